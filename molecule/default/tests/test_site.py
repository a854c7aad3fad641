"""The site as a visitor meets it, who trusts the ACME server's root and nothing else."""

from __future__ import annotations

import re
import shlex
import ssl

import judges
import pytest
import testinfra

SAFE_HEADERS = ("Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy")


@pytest.fixture(scope="module")
def site(name):
    return f"guestbook.{name}.example.test"


@pytest.fixture
def handshake(acme, address, site):
    """Say what OpenSSL's newest client sees of a TLS handshake with the server."""
    client = testinfra.get_host(f"docker://{acme.container}")

    def shake(*flags, name=site):
        words = ["openssl", "s_client", "-connect", f"{address}:443", "-servername", name, *flags]
        # Once HTTP/2 is agreed upon, the server greets with bytes that are no text.
        return client.run(f"{shlex.join(words)} </dev/null 2>&1 | LC_ALL=C tr -cd '[:print:]\\n'").stdout

    return shake


def test_the_page_is_there_over_verified_https(visitor, site):
    answer = visitor.get(f"https://{site}/")
    assert answer.status == 200
    assert "<h1" in answer.text and "Guestbook" in answer.text
    assert answer.headers["Strict-Transport-Security"] == "max-age=63072000"


def test_the_certificate_is_the_cas_for_the_sites_names(visitor, site):
    answer = visitor.get(f"https://{site}/")
    issuer = dict(pair for (pair,) in answer.certificate["issuer"])
    assert issuer["commonName"].startswith("Pebble Intermediate CA")
    assert set(answer.names) == {site, f"www.{site}"}


def test_plain_http_leads_to_the_same_address(visitor, site):
    answer = visitor.get(f"http://{site}/some/page?a=b&c=d")
    assert answer.status == 301
    assert answer.headers["Location"] == f"https://{site}/some/page?a=b&c=d"
    assert "Strict-Transport-Security" not in answer.headers


def test_the_acme_challenge_is_answered_on_the_plain_port(host, visitor, site):
    folder, token = "/var/lib/portico/acme/.well-known/acme-challenge", "placed-by-a-test"
    url = f"http://{site}/.well-known/acme-challenge/{token}"
    host.check_output("mkdir -p %s && echo proof >%s", folder, f"{folder}/{token}")
    try:
        answer = visitor.get(url)
    finally:
        host.check_output("rm %s", f"{folder}/{token}")
    assert (answer.status, answer.text) == (200, "proof\n")
    assert visitor.get(url).status == 404


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_other_name_leads_to_the_first(visitor, site, scheme):
    first = visitor.get(f"{scheme}://www.{site}/some/page?a=b")
    last = first if scheme == "https" else visitor.get(first.headers["Location"])
    assert (first.status, last.status) == (301, 301)
    assert last.headers["Location"] == f"https://{site}/some/page?a=b"


def test_what_is_posted_can_be_read_back(visitor, site):
    page = f"https://{site}/"
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', visitor.get(page).text).group(1)
    form = {"csrfmiddlewaretoken": token, "name": "A visitor", "message": "Written through nginx"}
    answer = visitor.post(page, form, Origin=f"https://{site}", Referer=page)
    assert answer.status == 302, answer
    assert "Written through nginx" in visitor.get(page).text


def test_static_files_come_from_nginx(host, visitor, site):
    path = re.search(r'href="(/static/[^"]+\.css)"', visitor.get(f"https://{site}/").text).group(1)
    answer = visitor.get(f"https://{site}{path}")
    assert answer.status == 200 and "{" in answer.text
    # Its name has a hash of its content.
    assert answer.headers["Cache-Control"] == "max-age=31536000, immutable"
    assert answer.headers["Server"] == "nginx"
    # nginx makes its ETag of the file's time and size; Python's frameworks do not.
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', answer.headers["ETag"])
    host.check_output("systemctl stop portico-guestbook@a.socket portico-guestbook@a.service")
    try:
        assert visitor.get(f"https://{site}{path}").status == 200
        assert visitor.get(f"https://{site}/").status == 502
    finally:
        host.check_output("systemctl start portico-guestbook@a.socket portico-guestbook@a.service")


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/static/nothing-here.css", 404), ("/nothing-here", 404)])
def test_every_answer_carries_the_safe_headers_once(visitor, site, path, status):
    answer = visitor.get(f"https://{site}{path}")
    assert answer.status == status
    assert {name: len(answer.headers.get_all(name, [])) for name in SAFE_HEADERS} == dict.fromkeys(SAFE_HEADERS, 1)


def test_a_name_that_no_site_has_gets_nothing(visitor, handshake):
    assert "unrecognized name" in handshake(name="nobody.example.test")
    with pytest.raises(ssl.SSLError):
        visitor.get("https://nobody.example.test/")
    with pytest.raises(ConnectionError):
        visitor.get("http://nobody.example.test/")


def test_new_protocols_are_spoken_and_old_ones_refused(handshake):
    assert "Protocol version: TLSv1.3" in handshake("-tls1_3", "-brief")
    assert "Protocol version: TLSv1.2" in handshake("-tls1_2", "-brief")
    assert "alert protocol version" in handshake("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "ALPN protocol: h2" in handshake("-alpn", "h2,http/1.1")


def test_the_hybrid_key_exchange_is_used_where_openssl_has_it(host, handshake):
    modern = "OpenSSL 3.5" in host.run("nginx -V").stderr
    assert ("X25519MLKEM768" in handshake()) == modern


def test_the_app_and_nginx_run_as_users_of_their_own(host):
    running = host.check_output("ps -eo user:32=,args=")
    assert re.search(r"^www-data +nginx: worker", running, re.MULTILINE)
    assert re.search(r"^portico-guestbook .*gunicorn", running, re.MULTILINE)
    assert not re.search(r"^root .*gunicorn", running, re.MULTILINE)


def test_no_other_user_reads_the_apps_code_or_secrets(host):
    for path in ("/srv/portico/guestbook/live/release/source/guestbook/settings.py", "/etc/portico/apps/guestbook/a.env"):
        assert host.file(path).exists
        assert host.run("setpriv --reuid nobody --clear-groups cat %s", path).failed
    assert host.run("setpriv --reuid nobody --clear-groups curl --unix-socket /srv/portico/guestbook/live/app.sock http://x/").failed


def test_the_app_is_confined(host):
    told = host.check_output("systemd-analyze security --no-pager portico-guestbook@a.service")
    assert float(re.search(r"Overall exposure level for \S+: ([\d.]+)", told).group(1)) <= 1.5


def test_nginx_was_not_restarted_for_the_certificate(host):
    """It came while the same master ran that had served the placeholder. Before that nginx served nobody, and came into its sandbox."""
    master = int(host.file("/run/nginx.pid").content_string)
    came = host.file("/var/lib/portico/lineages/guestbook/transport.conf").mtime
    assert host.file("/var/lib/portico/placeholder/fullchain.pem").mtime < came
    started = host.check_output("stat --format %%Y %s", f"/proc/{master}")
    assert int(started) < came.timestamp()


def test_there_is_one_renewal_timer(host):
    """Of those that have a next time: certbot's own is masked."""
    timers = host.check_output("systemctl list-timers --all --no-legend --plain | grep -v '^-'")
    assert sorted(re.findall(r"\S*cert\S*\.timer", timers)) == ["certificates-reconcile.timer", "certificates-renew.timer"]


def test_gixy_finds_nothing_in_it_but_what_it_cannot_know(host, tmp_path):
    """That this OpenSSL has the post-quantum group, and that Debian mends nginx without changing its version."""
    assert judges.findings(host, tmp_path).keys() <= {"ssl_ecdh_curve", "nginx_cves"}
