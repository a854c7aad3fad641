"""What the documentation shows, published as it is written, and asked of the nginx that runs. A new example needs a line here."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import socket
from pathlib import Path

import pytest
import yaml
from shown import ROOT, blocks, together

SITES, README = "docs/sites.md", "README.md"
APPS = [{"name": "shop", "source": {"git": "https://git.example.com/shop.git", "version": "v1.4.2"}, "app": "shop.wsgi:application", "static": {"/static/": "static"}}]

# Block by block, which is known by its sites: what is asked, and what comes back. That is the status, and where it leads or the
# first line of the text; a backend says where it was asked. "302" is what "301" becomes with a certificate that browsers trust.
ANSWERS = {
    SITES: {
        "shop": {
            "shop.example.com/": "200 app.sock",
            "shop.example.com/static/nothing": "404 *",
            "shop.example.com/api/": "200 127.0.0.[12]:8000",
            "shop.example.com/wiki/": "200 127.0.0.1:8080",
            "shop.example.com/mail/": "200 127.0.0.1:3031",
            "shop.example.com/docs/a": "200 /srv/www/docs/a",
            "shop.example.com/media/a": "200 /srv/uploads/a",
            "shop.example.com/panel/any/page": "200 /srv/www/panel/index.html",
            "shop.example.com/old/page": "302 https://shop.example.com/new",
            "shop.example.com/sale/": "410 <p>It is over.</p>",
            "shop.example.com/robots.txt": "200 User-agent: [*]",
        },
        "films": {
            "films.example.com/": "200 127.0.0.1:8000",
            "films.example.com/upload/": "200 127.0.0.1:8000",
            "films.example.com/events/": "200 127.0.0.1:8000",
        },
        "gallery": {
            "gallery.example.com/any/page": "200 /srv/gallery/index.html",
            "gallery.example.com/assets/site.js": "200 /srv/gallery/assets/site.js",
            "gallery.example.com/assets/nothing": "404 *",
            "gallery.example.com/media/a": "200 /srv/uploads/a",
            "gallery.example.com/.env": "404 *",
        },
        "handbook": {
            "handbook.example.com/a": "200 /srv/handbook/a",
            "handbook.example.com/start?b": "302 http://handbook.example.com/[?]b",
            "handbook.example.com/contact": "302 https://example.com/contact",
            "handbook.example.com/was": "302 http://handbook.example.com/a",
            "handbook.example.com/a/": "302 http://handbook.example.com/a",
            "www.handbook.example.com/a": "302 http://handbook.example.com/a",
        },
        "nginx_upstreams": {
            # Nobody is there who has a certificate of that CA.
            "ledger.example.com/": "502 *",
            "pictures.example.com/a": "200 127.0.0.[89]:8000",
        },
        # Nobody is there who has a certificate.
        "shelf": {"shelf.example.com/": "200 127.0.0.1:8000", "shelf.example.com/old/": "502 *"},
        "everything": {
            "everything.example.com/": "200 everything.sock",
            "everything.example.com/example.Orders/List": "502 *",
            "everything.example.com/blog/any/page": "200 php-fpm.sock",
            "everything.example.com/blog/assets/site.css": "200 /srv/blog/public/assets/site.css",
        },
        "panel": {
            "panel.example.com/": "200 127.0.0.1:8000",
            "panel.example.com/uploads/a": "200 /srv/uploads/a",
            "panel.example.com/next/": "200 127.0.0.1:8001",
        },
        "intranet": {
            "intranet.example.com/": "401 *",
            "intranet.example.com/admin/": "403 *",
            "intranet.example.com/health": "200 127.0.0.1:8000",
            "intranet.example.com/dumps/a": "403 *",
            "partners.example.com/": "403 *",
            "signed-in.example.com/a?b": "302 https://login.example.com/start[?]rd=http://signed-in.example.com/a[?]b",
        },
        "accounts novels": {
            "novels.example.com/": "200 127.0.0.1:8000",
            **{f"accounts.example.com/{path}": "200 127.0.0.1:8000" for path in ("", "login/", "api/", "v1/", "hooks/")},
        },
        "essays": {"essays.example.com/": "200 /srv/essays/index.html", "essays.example.com/robots.txt": "200 User-agent: Google-Extended"},
        "nginx_access nginx_upstreams nginx_streams": "test_streams_are_passed_on",
        "magazine": {f"magazine.example.com/{path}": "200 127.0.0.1:8000" for path in ("", "prices/", "live/", "admin/")},
        "nginx_trusted_proxies nginx_trusted_header": "test_of_proxies_no_visitor_says_who_it_is",
        "nginx_repository.channel": "test_where_nginx_is_the_distributions_another_repository_is_refused",
        "nginx_repository.url": "test_a_key_that_is_not_there_is_told_before_anything",
        "nginx_modules": "test_modules_are_installed_and_do_what_they_are_for",
        "news": {"news.example.com/": "200 127.0.0.1:8000", "news.example.com/health": "200 127.0.0.1:8000"},
    },
    README: {
        "shop wiki docs old all": {
            "shop.example.com/": "200 app.sock",
            "wiki.example.com/": "200 127.0.0.1:8080",
            "docs.example.com/": "200 /srv/docs/index.html",
            "shop.example.org/a?b": "302 https://shop.example.com/a[?]b",
            "all.example.com/": "200 /srv/www/index.html",
            "all.example.com/api/": "200 127.0.0.1:9000",
        },
    },
}

# What an example names that no example asks.
BESIDE = [
    {"name": "ledger", "server_names": ["ledger.example.com"], "upstream": "ledger"},
    {"name": "pictures", "server_names": ["pictures.example.com"], "upstream": "pictures"},
    {"name": "partners", "server_names": ["partners.example.com"], "root": "/srv/www", "access": "partners"},
    {"name": "signed_in", "server_names": ["signed-in.example.com"], "proxy": "http://127.0.0.1:8000", "access": "signed_in"},
]

PORTS = ("1883", "3031", "4180", "8000", "8001", "8080", "9000")
SOCKETS = ("/srv/portico/shop/live/app.sock", "/run/uwsgi/everything.sock", "/run/php/php-fpm.sock")
FOLDERS = ("/srv/www", "/srv/docs", "/srv/uploads", "/srv/gallery", "/srv/handbook", "/srv/essays", "/srv/dumps", "/srv/blog", "/srv/news", "/srv/portico", "/run/uwsgi", "/run/php", "/run/shown")
# Each says where it is.
FILES = (
    *("/srv/www/index.html", "/srv/www/docs/a", "/srv/www/panel/index.html", "/srv/docs/index.html", "/srv/uploads/a", "/srv/gallery/index.html", "/srv/gallery/assets/site.js"),
    *("/srv/handbook/a", "/srv/essays/index.html", "/srv/dumps/a", "/srv/blog/public/assets/site.css", "/srv/news/404.html", "/srv/news/away.html"),
)
KEYS = """
set -e
mkdir /run/shown
cd /run/shown
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=partners -keyout key -out ca -days 2 2>/dev/null
printf '[ca]\\ndefault_ca = it\\n[it]\\ndatabase = index\\ndefault_md = sha256\\ndefault_crl_days = 2\\n' >conf
: >index
openssl ca -config conf -keyfile key -cert ca -gencrl -out crl 2>/dev/null
cp ca /etc/ssl/partners-ca.pem
cp ca /etc/ssl/internal-ca.pem
cp crl /etc/ssl/partners.crl
"""


@pytest.fixture(scope="module")
def world(host):
    """What the examples name: files, folders, certificates of CAs, and who answers behind nginx."""
    backends = (ROOT / "molecule/published/backends.py").read_text()
    host.check_output("sh -c %s", KEYS)
    for path in (*FILES, *SOCKETS):
        host.check_output("mkdir -p %s", str(Path(path).parent))
    for path in FILES:
        host.check_output("echo %s >%s", path, path)
    words = ("python3", "-c", backends, *PORTS, *SOCKETS)
    host.check_output("systemd-run --quiet --unit=shown --property=Type=notify " + "%s " * len(words), *words)
    yield
    host.check_output("systemctl stop shown; rm -rf " + "%s " * len(FOLDERS) + "/etc/ssl/partners-ca.pem /etc/ssl/internal-ca.pem /etc/ssl/partners.crl", *FOLDERS)


@pytest.fixture(scope="module")
def publish(play, name, tmp_path_factory):
    """Publish what a play says, beside which is what it names. It has to end as the test says."""
    folder = tmp_path_factory.mktemp("play")
    (folder / "files").mkdir()
    (folder / "files/moved.txt").write_text("/was /a\n")

    def publish(ok=True, **said):
        what = {"name": "Publish what is shown", "hosts": "web", "become": True, "gather_facts": False, "vars": {"nginx_apps": APPS, **said}, "roles": ["portico.web.nginx"]}
        (folder / "play.yml").write_text(yaml.safe_dump([what], sort_keys=False))
        done = play(str(folder / "play.yml"), "--limit", name)
        assert done.ok == ok, done.output
        return done

    yield publish
    publish(nginx_state="absent")


@pytest.fixture(scope="module")
def sites(world, publish):
    """All that docs/sites.md shows, but for what there is once for a host; in one play."""
    said = together(block for block in blocks(SITES) if block.is_lists)
    said = {**said, "nginx_sites": [*said["nginx_sites"], *BESIDE], "nginx_resolvers": ["127.0.0.5"]}
    publish(**said)
    return said


@pytest.fixture
def get(visitor):
    """Ask over HTTP, as long as no browser trusts the sites' certificates."""
    return lambda url, **headers: visitor.get(f"http://{url}", **headers)


@pytest.fixture
def over_tls(host):
    """Ask on the server itself, as somebody who takes any certificate, with more words for curl; return all that came back."""

    def over_tls(url, *words):
        port = url.partition("/")[0].partition(":")[2] or "443"
        done = host.run("curl --silent --show-error --insecure --include --max-time 15 --connect-to %s " + "%s " * (len(words) + 1), f"::127.0.0.1:{port}", *words, f"https://{url}")
        assert done.rc == 0, done
        return done.stdout

    return over_tls


def told(answer):
    """Return an answer in words: its status, and where it leads or the first line of its text."""
    first, _line, _rest = answer.body.partition(b"\n")
    return f"{answer.status} {answer.headers['Location'] or first.decode()}"


def wrong(get, answers):
    """Return the answers that are not as they are to be, and what was asked for them."""
    return {url: got for url, wanted in answers.items() if not fnmatch.fnmatchcase(got := told(get(url)), wanted)}


# ---- every block has its answers, and each site in it


@pytest.mark.parametrize("page", ANSWERS)
def test_of_every_block_something_is_asked(page):
    shown = {block.names: block for block in blocks(page)}
    assert len(shown) == len(blocks(page)) and shown.keys() == ANSWERS[page].keys()
    for names, answers in ANSWERS[page].items():
        if isinstance(answers, str):
            assert answers in globals()
            continue
        asked = {url.partition("/")[0] for url in answers}
        wanted = {server_name for site in shown[names].says.get("nginx_sites", []) for server_name in site["server_names"]}
        assert wanted <= asked and asked, (names, wanted - asked)


@pytest.mark.parametrize("names", [names for names, answers in ANSWERS[SITES].items() if isinstance(answers, dict)])
def test_what_is_shown_answers(sites, get, names):
    assert wrong(get, ANSWERS[SITES][names]) == {}


def test_a_second_run_changes_nothing(sites, publish, name):
    assert publish(**sites).changed == {name: 0}


# ---- what is seen of it beside the first answer


@pytest.mark.parametrize(
    ("url", "header", "value"),
    [
        ("gallery.example.com/assets/site.js", "Cache-Control", "max-age=31536000, immutable"),
        ("gallery.example.com/media/a", "Content-Security-Policy", "*sandbox*"),
        ("panel.example.com/", "Content-Security-Policy", "default-src 'self'"),
        ("panel.example.com/", "X-Frame-Options", "DENY"),
        ("panel.example.com/", "Permissions-Policy", "camera=(), microphone=()"),
        ("panel.example.com/uploads/a", "Content-Security-Policy", "sandbox"),
        ("panel.example.com/next/", "Content-Security-Policy-Report-Only", "default-src 'self'; report-uri /reports"),
    ],
)
def test_what_is_shown_of_headers_is_sent(sites, get, url, header, value):
    assert fnmatch.fnmatchcase(get(url).headers[header] or "", value)


def test_who_is_let_in_is_let_in(sites, get, over_tls):
    assert get("intranet.example.com/", Authorization="Basic YmVuOm9mIGJlbg==").status == 200
    assert get("intranet.example.com/", Authorization="Basic YW5uYTpvZiBhbm5h").status == 200
    assert get("intranet.example.com/", Authorization="Basic YW5uYTpvZiBiZW4=").status == 401
    assert "\nX-Auth-Request-User: anna\r\n" in get("signed-in.example.com/", Cookie="signed=in", X_Auth_Request_User="ben").text
    assert " 403 " in over_tls("partners.example.com/").splitlines()[0]
    assert "/srv/www/index.html" in over_tls("partners.example.com/", "--cert", "/run/shown/ca", "--key", "/run/shown/key")


def test_who_asks_too_often_or_is_not_welcome_is_refused(sites, get, visitor):
    statuses = [visitor.post("http://accounts.example.com/login/", {"a": "b"}).status for _ in range(8)]
    assert statuses[:5] == [200] * 5 and statuses[-1] == 429 and visitor.last.headers["Retry-After"]
    assert get("accounts.example.com/login/").status == 200
    for agent in ("GPTBot/1.0", "SomeBot"):
        assert [get(f"essays.example.com/{path}", User_Agent=agent).status for path in ("", "robots.txt")] == [403, 403]


def test_what_was_kept_is_given_again(sites, get):
    assert [get("magazine.example.com/kept").headers["X-Cache"] for _ in range(2)] == ["MISS", "HIT"]
    assert get("magazine.example.com/admin/").headers["X-Cache"] is None


def test_a_site_is_closed_while_there_is_a_file_with_its_name(sites, host, get):
    """As the console beside the block says."""
    closing, opening = re.findall(r"^\$ ((?:touch|rm) \S+)", (ROOT / SITES).read_text(), re.MULTILINE)
    host.check_output(closing)
    try:
        answer = get("news.example.com/")
        assert (answer.status, answer.headers["Retry-After"], get("news.example.com/health").status) == (503, "600", 200)
    finally:
        host.check_output(opening)
    assert get("news.example.com/").status == 200


def test_streams_are_passed_on(sites, address, over_tls):
    with socket.create_connection((address, 5432), timeout=10) as database, contextlib.suppress(ConnectionResetError):
        assert database.recv(1) == b"", "who is not of those who are let in gets nothing"
    assert re.search(r"^127\.0\.0\.[67]:1883$", over_tls("shop.example.com:8883/"), re.MULTILINE)
    asked = b"\0\7\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names:
        names.settimeout(10)
        names.sendto(asked, (address, 53))
        assert names.recv(512).endswith(b"\x7f\0\0\1")


# ---- what there is once for a host, beside the README's sites


@pytest.fixture(scope="module")
def readme(world, publish):
    return together(blocks(README))


def shown_once(*names):
    """Return what docs/sites.md shows that there is once for a host."""
    return next(block.says for block in blocks(SITES) if set(names) <= block.says.keys())


def test_what_the_readme_shows_answers(readme, publish, get):
    publish(**readme)
    for answers in ANSWERS[README].values():
        assert wrong(get, answers) == {}


def test_of_proxies_no_visitor_says_who_it_is(readme, publish, get):
    publish(**readme, **shown_once("nginx_trusted_proxies", "nginx_trusted_header"))
    answer = get("wiki.example.com/", CF_Connecting_IP="192.0.2.1", X_Forwarded_For="192.0.2.2")
    assert answer.status == 200 and "192.0.2." not in answer.text and re.search(r"^X-Forwarded-For: \d", answer.text, re.MULTILINE)


def once(page):
    """Return what a page says within its sentences that there is once for a host."""
    found = dict(re.findall(r"`(nginx_\w+): (\w+)`", (ROOT / page).read_text()))
    return {name: value for name, value in found.items() if name != "nginx_state"}


def test_each_setting_of_a_sentence_is_tried():
    assert once(SITES) == {"nginx_proxy_protocol": "true", "nginx_tls_profile": "modern", "nginx_http3": "true", "nginx_sandbox": "false"}


def test_all_of_the_others_in_one_play(readme, publish, host, address, over_tls):
    """Whoever speaks TLS 1.2, or no PROXY protocol, is not answered; and nginx's unit has no sandbox."""
    said = {name: yaml.safe_load(value) for name, value in once(SITES).items() if name != "nginx_http3"}
    publish(**readme, **said, nginx_trusted_proxies=shown_once("nginx_trusted_proxies")["nginx_trusted_proxies"])
    old = host.run("openssl s_client -connect 127.0.0.1:443 -servername wiki.example.com -tls1_2 </dev/null 2>&1")
    assert "alert protocol version" in old.stdout
    assert host.check_output("systemctl show --property ProtectSystem --value nginx") == "no"
    assert "\n127.0.0.1:8080\n" in over_tls("wiki.example.com/")
    with socket.create_connection((address, 80), timeout=10) as alone:
        alone.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 80\r\nGET / HTTP/1.0\r\nHost: wiki.example.com\r\n\r\n")
        assert b" 200 OK\r\n" in alone.recv(65536)
    with socket.create_connection((address, 80), timeout=10) as alone, contextlib.suppress(ConnectionResetError):
        alone.sendall(b"GET / HTTP/1.0\r\nHost: wiki.example.com\r\n\r\n")
        assert alone.recv(65536) == b""


def test_http3_is_told_of_or_refused(readme, publish, name, over_tls):
    can = "debian13" in name
    done = publish(ok=can, **readme, nginx_http3=True)
    if can:
        assert re.search(r"^alt-svc: h3=", over_tls("wiki.example.com/"), re.MULTILINE | re.IGNORECASE)
    else:
        assert "nginx_http3: true needs nginx 1.25.0 or newer" in done.output


def test_where_nginx_is_the_distributions_another_repository_is_refused(readme, publish):
    """What it does on a host that has none is asked by the scenario strangers."""
    shown = next(block.says for block in blocks(SITES) if block.names == "nginx_repository.channel")
    assert "apt-get remove nginx nginx-common" in publish(ok=False, **readme, **shown).output


def test_a_key_that_is_not_there_is_told_before_anything(readme, publish):
    shown = next(block.says for block in blocks(SITES) if block.names == "nginx_repository.url")
    assert "cannot be read on the controller" in " ".join(publish(ok=False, **readme, **shown).output.split())


def test_modules_are_installed_and_do_what_they_are_for(readme, publish, host, over_tls):
    try:
        publish(**readme, **shown_once("nginx_modules"))
        host.check_output("head -c 5000 /dev/zero | tr '\\0' a >/srv/docs/long.css")
        assert "content-encoding: br" in over_tls("docs.example.com/long.css", "--header", "Accept-Encoding: br", "--output", "/dev/null", "--dump-header", "-").lower()
        assert "ngx_http_geoip2_module.so" in host.check_output("cat /proc/$(cat /run/nginx.pid)/maps")
    finally:
        publish(nginx_state="absent")
        host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq purge libnginx-mod-http-brotli-filter libnginx-mod-http-brotli-static libnginx-mod-http-geoip2")
