"""Which versions of HTTP and TLS are spoken."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def spoken(host, name):
    """What curl speaks with a site when it is asked to: the version of HTTP, and the status."""

    def spoken(site, *words):
        url = f"https://{site}.{name}.example.test/index.html"
        return host.run("curl --silent --insecure --output /dev/null --max-time 10 --write-out '%%{http_version} %%{http_code}' " + "%s " * (len(words) + 1), *words, url).stdout.split()

    return spoken


@pytest.fixture
def has_http3(host):
    return "--with-http_v3_module" in host.run("nginx -V").stderr


def test_http2_is_spoken(spoken):
    assert spoken("main", "--http2") == ["2", "200"]


def test_http3_is_spoken_and_told_where_nginx_has_it(spoken, ask, has_http3, host):
    told = ask("main", "/index.html").headers.get_all("Alt-Svc")
    if has_http3:
        assert told == ['h3=":443"; ma=86400']
        assert spoken("main", "--http3-only") == spoken("paged", "--http3-only") == ["3", "200"]
    else:
        assert told is None


def test_a_name_that_no_site_has_gets_nothing_over_http3(host, name, has_http3):
    if not has_http3:
        pytest.skip("nginx without HTTP/3")
    done = host.run("curl --silent --insecure --http3-only --max-time 10 --resolve nobody.example.test:443:127.0.0.1 https://nobody.example.test/")
    # Neither an answer, nor a curl without HTTP/3, nor nobody there.
    assert done.rc not in (0, 2, 4, 28) and not done.stdout, done


def test_where_nginx_has_no_http3_the_play_says_so_before_anything(play, name, has_http3, host):
    if has_http3:
        pytest.skip("nginx with HTTP/3")
    live = host.check_output("readlink /var/lib/portico/nginx/live")
    for flags in ([], ["--check"]):
        run = play("converge.yml", "--limit", name, "--extra-vars", json.dumps({"nginx_http3": True}), *flags)
        assert not run.ok and "nginx_http3: true needs nginx 1.25.0 or newer, built with HTTP/3, and this host's is 1.22.1 without it" in run.output, run.output
    assert host.check_output("readlink /var/lib/portico/nginx/live") == live


SPEAK = """
import json, socket, ssl, sys
to, source, said, name = sys.argv[1:]
plain = socket.create_connection((to, 443), timeout=10, source_address=(source, 0) if source else None)
plain.sendall(said.encode())
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    tls = context.wrap_socket(plain, server_hostname=name)
    lies = "X-Forwarded-For: 6.6.6.6\\r\\nX-Forwarded-Proto: http\\r\\n"
    tls.sendall(f"GET /open/ HTTP/1.0\\r\\nHost: {name}\\r\\n{lies}\\r\\n".encode())
    print(b"".join(iter(lambda: tls.recv(4096), b"")).decode().partition("\\r\\n\\r\\n")[2])
except (ssl.SSLError, ConnectionError):
    print("null")
"""


@pytest.fixture
def proxied(play, name):
    """The host behind a proxy that passes bytes on, for as long as a test."""
    run = play("converge.yml", "--limit", name, "--extra-vars", json.dumps({"nginx_proxy_protocol": True, "nginx_http3": False}))
    assert run.ok, run.output
    yield
    run = play("converge.yml", "--limit", name)
    assert run.ok, run.output


def test_the_proxy_protocol_says_who_asks(proxied, host, name, address):
    def ask(to, source="", says=""):
        """What a backend hears of who asks, from an address of the host."""
        heard = json.loads(host.check_output("python3 -c %s %s %s %s %s", SPEAK, to, source, says, f"guarded.{name}.example.test"))
        return heard and tuple(heard["headers"][header] for header in ("x-forwarded-for", "x-real-ip", "x-forwarded-proto"))

    says = "PROXY TCP4 192.0.2.77 192.0.2.1 4711 443\r\n"
    assert ask(address, "127.0.0.3", says) == ("192.0.2.77", "192.0.2.77", "https")
    # Who says nothing gets nothing, and who says so without being trusted is who it is.
    assert ask(address) is None
    assert ask(address, address, says) == (address, address, "https")
    # On the host itself nothing is different: certificates are looked after there.
    assert ask("127.0.0.1") == ("127.0.0.1", "127.0.0.1", "https")
