"""What is said once for the whole host: other ports, other proxies, another profile of TLS, another log."""

from __future__ import annotations

import json
import re
import ssl
import uuid

import pytest

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


@pytest.fixture(scope="module")
def have(play, name):
    """Let the host have other settings, until a test wants yet others; its own again in the end."""
    there = {}

    def have(**wanted):
        if wanted != there:
            run = play("converge.yml", "--limit", name, "--extra-vars", json.dumps(wanted))
            assert run.ok, run.output
            there.clear()
            there.update(wanted)

    yield have
    have()


@pytest.fixture
def passed_on(have):
    """Behind a proxy that passes bytes on. What else is different is nothing to it."""
    have(nginx_proxy_protocol=True, nginx_http3=False, nginx_tls_profile="modern", nginx_access_log="json")


@pytest.fixture
def elsewhere(have):
    """At other ports, behind a proxy that names the visitor in a header of its own."""
    have(nginx_http_port=8080, nginx_https_port=8443, nginx_trusted_header="CF-Connecting-IP", nginx_access_log="none")


@pytest.mark.usefixtures("passed_on")
def test_the_proxy_protocol_says_who_asks(host, name, address):
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


@pytest.mark.usefixtures("passed_on")
def test_the_modern_profile_speaks_nothing_older_than_tls_1_3(host, name):
    def spoken(version):
        return host.run("openssl s_client -connect 127.0.0.1:443 -servername %s -%s </dev/null 2>&1", f"main.{name}.example.test", version).stdout

    assert "Cipher is TLS_" in spoken("tls1_3") and "BEGIN CERTIFICATE" in spoken("tls1_3")
    assert "alert protocol version" in spoken("tls1_2") and "BEGIN CERTIFICATE" not in spoken("tls1_2")


@pytest.mark.usefixtures("passed_on")
def test_all_sites_may_have_their_lines_as_json(host, inside, eventually):
    asked = f"/backend/{uuid.uuid4().hex}"
    assert inside("main", asked)[0] == 200
    eventually(lambda: host.run("grep %s /var/log/nginx/access.json.log", asked).rc == 0)
    line = json.loads(host.check_output("grep --no-filename --recursive %s /var/log/nginx", asked))
    assert (line["uri"], line["status"], line["address"], line["tls"]) == (asked, 200, "127.0.0.1", "TLSv1.3")
    assert host.check_output("stat --format '%a %U %G' /var/log/nginx/access.json.log") == "640 www-data adm"


@pytest.mark.usefixtures("elsewhere")
def test_sites_are_at_other_ports_and_unknown_names_at_none(visitor, name):
    site = f"main.{name}.example.test"
    plain = visitor.get(f"http://{site}:8080/a?b=c")
    assert (plain.status, plain.headers["Location"]) == (301, f"https://{site}:8443/a?b=c")
    assert visitor.get(f"https://{site}:8443/").text == "www/index.html\n"
    with pytest.raises(ConnectionError):
        visitor.get(f"http://unknown.{name}.example.test:8080/")
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        visitor.get(f"https://unknown.{name}.example.test:8443/")
    for nobody in (f"http://{site}/", f"https://{site}/"):
        with pytest.raises(ConnectionRefusedError):
            visitor.get(nobody)


@pytest.mark.usefixtures("elsewhere")
def test_a_proxy_says_who_asks_in_the_header_that_is_trusted_and_nobody_else_does(host, name):
    def hears(source, header):
        asked = f"https://guarded.{name}.example.test:8443/open/"
        said = json.loads(host.check_output("curl --silent --insecure --max-time 15 --interface %s --header %s %s", source, f"{header}: 192.0.2.77", asked))["headers"]
        assert said["x-forwarded-for"] == said["x-real-ip"] == said["cf-connecting-ip"]
        return said["x-real-ip"]

    assert hears("127.0.0.3", "CF-Connecting-IP") == "192.0.2.77"
    assert hears("127.0.0.3", "X-Forwarded-For") == "127.0.0.3"
    assert hears("127.0.0.9", "CF-Connecting-IP") == "127.0.0.9"


@pytest.mark.usefixtures("elsewhere")
def test_no_request_may_have_a_line_but_of_sites_that_say_so(host, visitor, name, eventually):
    told = uuid.uuid4().hex
    for site in ("main", "paged"):
        assert visitor.get(f"https://{site}.{name}.example.test:8443/backend/{told}").status == 200
    eventually(lambda: host.run("grep %s /var/log/nginx/paged.json.log", told).rc == 0)
    assert re.findall(r"^(\S+?):", host.check_output("grep --recursive %s /var/log/nginx", told), re.MULTILINE) == ["/var/log/nginx/paged.json.log"]
