"""Preflight: what it says of a name, tried on servers on this machine's loopback."""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from ansible_collections.portico.web.plugins.module_utils import preflight

CHALLENGES = "/.well-known/acme-challenge"
RIGHT, OTHER, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
CURE = f"Give the name to a site of this host's nginx, and let no location of your own take {CHALLENGES}/."
NO_ADDRESS = "has no address: the DNS knows neither an A nor an AAAA record of it. Add one that leads to this host."
UNANSWERED = (
    "has no address that can be found: the DNS servers of this host (/etc/resolv.conf) do not answer, or know nothing of it. "
    "See to them, and to an A or AAAA record that leads to this host."
)
UNREDIRECT = f"Take {CHALLENGES}/ out of the redirect."


@pytest.fixture(scope="module")
def port():
    """A port that is free on every address of the loopback."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def names(monkeypatch):
    """A DNS of the test's own: name -> addresses, or what is raised."""
    known = {}

    def getaddrinfo(host, port, *_args, **_more):
        answer = known.get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0)) if ":" in each else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in answer
        ]

    monkeypatch.setattr(preflight.socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
def webroot(tmp_path):
    return tmp_path / "acme"


@pytest.fixture
def serve(port):
    """Start a server: serve(address, answer), where the answer is a function of the request's handler."""
    with contextlib.ExitStack() as stack:

        def start(address, answer, context=None):
            handler = type("Handler", (Handler,), {"do_GET": answer})
            server = Server((address, port), handler)
            if context:
                server.socket = context.wrap_socket(server.socket, server_side=True)
            stack.callback(server.server_close)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    @property
    def address_family(self):
        return socket.AF_INET6 if ":" in self.server_address[0] else socket.AF_INET

    def __init__(self, address, handler):
        self.server_address = address
        super().__init__(address, handler)

    def handle_error(self, request, client_address):
        """Say nothing: the visitor is what is tested."""


class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "other/1.0", ""

    def log_message(self, format, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def files_of(webroot):
    """Answer as nginx does that is in order."""

    def do_get(self):
        self.server.hosts = [*getattr(self.server, "hosts", []), self.headers["Host"]]
        path = Path(f"{webroot}{self.path}")
        self.answer(200, path.read_bytes() + b"\n") if path.is_file() else self.answer(404)

    return do_get


def says(status, body=b"", **headers):
    return lambda self: self.answer(status, body, **headers)


def sends_to(location):
    """Redirect, {path} being the path that was asked for."""
    return lambda self: self.answer(302, Location=location.format(path=self.path, name=self.path.rpartition("/")[2]))


@pytest.fixture
def look(webroot, port):
    def check(*domains, **more):
        return preflight.check(domains, webroot=str(webroot), **{"caa_identities": [], "port": port, "seconds": 5, **more})

    return check


# ---- names that are in order


def test_a_name_that_is_in_order_costs_no_time_and_leaves_nothing_behind(look, serve, names, webroot, port):
    names.update({"a.example": [RIGHT], "b.example": [RIGHT]})
    server = serve(RIGHT, files_of(webroot))
    begin = time.monotonic()
    assert look("a.example", "b.example", "a.example") == {}
    assert time.monotonic() - begin < 1
    assert sorted(server.hosts) == [f"a.example:{port}", f"b.example:{port}"]
    assert not webroot.exists()


def test_the_file_is_readable_by_everybody_whatever_the_umask(look, serve, names, webroot):
    names["a.example"] = [RIGHT]
    modes = {}

    def do_get(self):
        path = f"{webroot}{self.path}"
        modes.update({os.path.basename(each): os.stat(each).st_mode & 0o777 for each in (path, f"{webroot}{CHALLENGES}", f"{webroot}/.well-known", webroot)})
        files_of(webroot)(self)

    serve(RIGHT, do_get)
    umask = os.umask(0o077)
    try:
        assert look("a.example") == {}
    finally:
        os.umask(umask)
    assert sorted(modes.values()) == [0o644, 0o755, 0o755, 0o755]


def test_what_was_there_stays(look, serve, names, webroot):
    names["a.example"] = [RIGHT]
    (webroot / ".well-known/acme-challenge").mkdir(parents=True)
    (webroot / ".well-known/acme-challenge/certbots").write_text("x")
    serve(RIGHT, files_of(webroot))
    assert look("a.example") == {}
    assert [each.name for each in (webroot / ".well-known/acme-challenge").iterdir()] == ["certbots"]


def test_nothing_is_asked_by_http_of_wildcards_and_of_names_proved_by_dns(look, webroot):
    assert look("*.example") == {}
    assert look("a.example", http=False) == {}
    assert not webroot.exists()


def test_redirects_are_followed_to_another_name_and_to_a_certificate_that_nobody_verifies(look, serve, names, webroot, port, tmp_path):
    names.update({"a.example": [RIGHT], "b.example": [OTHER], "c.example": [THIRD]})
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=nobody"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    serve(RIGHT, sends_to(f"http://b.example:{port}{{path}}"))
    serve(OTHER, sends_to(f"https://c.example:{port}{{path}}"))
    serve(THIRD, files_of(webroot), context)
    assert look("a.example") == {}
    assert asked == ["c.example"]


def test_ten_redirects_are_followed_and_no_eleventh(look, serve, names, webroot):
    names.update({"ten.example": [RIGHT], "eleven.example": [OTHER]})

    def hops(number):
        def do_get(self):
            path, _mark, hop = self.path.partition("?")
            if int(hop or 0) < number:
                self.answer(301, Location=f"{path}?{int(hop or 0) + 1}")
            else:
                self.path = path
                files_of(webroot)(self)

        return do_get

    serve(RIGHT, hops(10))
    serve(OTHER, hops(11))
    assert look("ten.example", "eleven.example") == {
        "eleven.example": f"eleven.example leads to {OTHER}: the challenge is redirected more than 10 times. {UNREDIRECT}"
    }


# ---- what is said of the others


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            says(404, b"<title>404</title>\n<h1>Not  Found</h1>", Content_Type="text/html"),
            'something else answers there (status 404, Server: other/1.0, "404 Not Found")',
        ),
        (
            says(200, b"\x1b[31mred" + b"x" * 99, Content_Type="text/plain"),
            f'something else answers there (status 200, Server: other/1.0, "[31mred{"x" * 50}...")',
        ),
        (says(200, b"{}", Content_Type="application/json"), "something else answers there (status 200, Server: other/1.0)"),
        (says(303, Location="/"), "something else answers there (status 303, Server: other/1.0)"),
        (says(302), "something else answers there (status 302, Server: other/1.0)"),
        (lambda self: None, "the connection is closed there without an answer"),
        (lambda self: self.wfile.write(b"SSH-2.0-OpenSSH\r\n"), "what answers there does not speak HTTP (SSH-2.0-OpenSSH)"),
        (lambda self: self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), 'something else answers there (status 200, "x")'),
    ],
)
def test_something_else_answers(look, serve, names, answer, words):
    names["a.example"] = [RIGHT]
    serve(RIGHT, answer)
    assert look("a.example") == {"a.example": f"a.example leads to {RIGHT}: {words}. {CURE}"}


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("{path}", "the challenge is redirected in a loop (to http://a.example:{port}{challenges}/... again)"),
        ("http://b.example:{port}/", "the challenge is redirected to http://b.example:{port}/, and something else answers there (status 403, Server: other/1.0)"),
        ("https://b.example:{port}/", "the challenge is redirected to https://b.example:{port}/, and TLS fails there (WRONG_VERSION_NUMBER)"),
        ("http://closed.example:{port}/", "the challenge is redirected to http://closed.example:{port}/, and port {port} is closed there (connection refused)"),
        ("http://nobody.example:{port}/", "the challenge is redirected to http://nobody.example:{port}/, and nobody.example has no address"),
        ("http://b.example:8443/x#y", "the challenge is redirected to http://b.example:8443/x, {limits}"),
        ("ftp://b.example/", "the challenge is redirected to ftp://b.example/, {limits}"),
        ("http://127.0.0.3:{port}/", "the challenge is redirected to http://127.0.0.3:{port}/, {limits}"),
        ("http://b.example:x/", "the challenge is redirected to http://b.example:x/, {limits}"),
    ],
)
def test_a_redirect_leads_nowhere(look, serve, names, port, location, words):
    names.update({"a.example": [RIGHT], "b.example": [OTHER], "closed.example": [THIRD]})
    serve(RIGHT, sends_to(location.replace("{port}", str(port))))
    serve(OTHER, says(403))
    words = words.format(port=port, challenges=CHALLENGES, limits="but a CA goes only to names, by http or https, at port 80 or 443")
    assert look("a.example") == {"a.example": f"a.example leads to {RIGHT}: {words}. {UNREDIRECT}"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), NO_ADDRESS),
        (UnicodeError("label too long"), NO_ADDRESS),
        (socket.gaierror(socket.EAI_AGAIN, "x"), UNANSWERED),
    ],
)
def test_a_name_without_an_address(look, names, answer, words):
    names["a.example"] = answer
    assert look("a.example") == {"a.example": f"a.example {words}"}


def test_a_closed_port(look, names, port):
    names["a.example"] = [RIGHT, OTHER]
    assert look("a.example") == {
        "a.example": f"a.example leads to {RIGHT} and {OTHER}: port {port} is closed there (connection refused). "
        f"nginx must listen there, and the firewall must let port {port} in."
    }


def test_each_address_is_looked_at(look, serve, names, webroot):
    names["a.example"] = [RIGHT, OTHER, THIRD]
    serve(RIGHT, files_of(webroot))
    for address in (OTHER, THIRD):
        serve(address, says(404))
    assert look("a.example") == {"a.example": f"a.example leads to {OTHER} and {THIRD}: something else answers there (status 404, Server: other/1.0). {CURE}"}


def fails(monkeypatch, failures):
    """Let connections to some addresses fail with an error's number."""
    connect = preflight._Place.connect

    def failing(self, seconds):
        if self.address[0] in failures:
            number = failures[self.address[0]]
            raise OSError(number, os.strerror(number))
        return connect(self, seconds)

    monkeypatch.setattr(preflight._Place, "connect", failing)


ELSEWHERE = "Correct the {record}, or, if it is right, have the firewall let port {port} in and what has this address pass it on to this host."


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        (
            {"192.0.2.1": errno.ETIMEDOUT},
            "192.0.2.1, which is not an address of this host: port {port} does not answer there (timed out). " + ELSEWHERE.replace("{record}", "A record"),
        ),
        (
            {"192.0.2.1": errno.EHOSTUNREACH, "192.0.2.2": errno.EHOSTUNREACH},
            "192.0.2.1 and 192.0.2.2, which are not addresses of this host: port {port} cannot be reached there (No route to host). "
            + ELSEWHERE.replace("{record}", "A records"),
        ),
        (
            {"2001:db8::1": errno.ECONNREFUSED},
            "2001:db8::1, which is not an address of this host: port {port} is closed there (connection refused). " + ELSEWHERE.replace("{record}", "AAAA record"),
        ),
        (
            {"192.0.2.1": errno.ETIMEDOUT, "2001:db8::1": errno.ENETUNREACH},
            "192.0.2.1, which is not an address of this host: port {port} does not answer there (timed out). " + ELSEWHERE.replace("{record}", "A record"),
        ),
        (
            {"2001:db8::1": errno.ENETUNREACH},
            "2001:db8::1, which is not an address of this host: this host has no route to it (Network is unreachable). "
            "Give the host one, or the name another AAAA record, or set certbot_preflight to false if the CA gets there.",
        ),
    ],
)
def test_an_address_elsewhere_that_cannot_be_reached(look, names, monkeypatch, port, failures, words):
    names["a.example"] = list(failures)
    fails(monkeypatch, failures)
    monkeypatch.setattr(preflight._Place, "is_ours", lambda self: False)
    assert look("a.example") == {"a.example": f"a.example leads to {words.format(port=port)}"}


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ECONNREFUSED, errno.ETIMEDOUT])
def test_ipv6_that_does_not_answer_is_passed_over_where_ipv4_is_right(look, serve, names, monkeypatch, webroot, number):
    names["a.example"] = ["2001:db8::1", RIGHT]
    fails(monkeypatch, {"2001:db8::1": number})
    serve(RIGHT, files_of(webroot))
    assert look("a.example") == {}


def test_another_server_at_ipv6_counts_although_ipv4_is_right(look, serve, names, webroot):
    names["a.example"] = ["::1", RIGHT]
    serve(RIGHT, files_of(webroot))
    try:
        serve("::1", says(404))
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert look("a.example") == {"a.example": f"a.example leads to ::1: something else answers there (status 404, Server: other/1.0). {CURE}"}


@pytest.mark.parametrize(("address", "ours"), [("127.0.0.1", True), ("192.0.2.1", False)])
def test_whose_an_address_is(address, ours):
    assert preflight._Place(socket.AF_INET, (address, 80)).is_ours() is ours


def test_a_webroot_that_takes_no_file(look, webroot):
    webroot.write_text("a file")
    assert look("a.example", "*.example") == {
        "a.example": f"a.example has no challenge to show: {webroot}{CHALLENGES} takes no file (Not a directory). See to the disk and its rights."
    }


# ---- what hangs


def test_what_hangs_does_not_hold_up_the_rest(look, serve, names, webroot, port):
    end = threading.Event()
    names.update({"good.example": [RIGHT], "silent.example": [OTHER], "drips.example": [THIRD], "dns.example": lambda: [RIGHT] if end.wait(10) else []})
    serve(RIGHT, files_of(webroot))

    def drip(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while not end.wait(0.05):
                self.wfile.write(b"x")

    serve(OTHER, lambda self: end.wait(10))
    serve(THIRD, drip)
    begin = time.monotonic()
    found = look("dns.example", "silent.example", "drips.example", "good.example", "nobody.example", seconds=0.6)
    took = time.monotonic() - begin
    left = webroot.exists()
    end.set()
    assert took < 1.5
    assert not left
    late = f"port {port} is open there, and gives no answer within 0.6 seconds"
    cure = f"See to what listens there, for nginx must answer {CHALLENGES}/ at once."
    assert found == {
        "dns.example": f"dns.example {UNANSWERED}",
        "silent.example": f"silent.example leads to {OTHER}: {late}. {cure}",
        "drips.example": f"drips.example leads to {THIRD}: {late}. {cure}",
        "nobody.example": f"nobody.example {NO_ADDRESS}",
    }


def test_a_filtered_port(look, names, port):
    """A listener whose queue is full drops what comes, as a firewall does."""
    names["a.example"] = [RIGHT]
    with socket.create_server((RIGHT, port), backlog=0), contextlib.ExitStack() as stack:
        for _number in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((RIGHT, port))
        assert look("a.example", seconds=0.5) == {
            "a.example": f"a.example leads to {RIGHT}: port {port} does not answer there (timed out). "
            f"nginx must listen there, and the firewall must let port {port} in."
        }


def test_more_names_than_threads(look, serve, names, webroot, monkeypatch):
    monkeypatch.setattr(preflight, "THREADS", 3)
    domains = [f"n{number}.example" for number in range(30)]
    names.update(dict.fromkeys(domains[1:], [RIGHT]))
    serve(RIGHT, files_of(webroot))
    assert list(look(*domains)) == ["n0.example"]


# ---- CAA


ZONE = {
    "other.example.": '0 issue "other.example"',
    "ours.example.": '0 issue "other.example"|0 issue "CA.test; validationmethods=http-01"',
    "nobody.example.": '0 issue ";"',
    "critical.example.": '0 issue "ca.test"|128 futuretag "x"',
    "uncritical.example.": '0 futuretag "x"|128 iodef "mailto:a@b.example"',
    "wild.example.": '0 issue "ca.test"|0 issuewild "other.example"',
    "onlywild.example.": '0 issuewild "ca.test"|0 issue ";"',
    "below.other.example.": '0 issue "ca.test"',
    "broken.other.example.": "SERVFAIL",
    "hung.other.example.": "HANG",
}


@pytest.fixture(scope="module")
def dns_server():
    """A DNS server: what is not in the zone has no CAA record, and names with a digit first do not exist."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer_all():
            while True:
                text, client = server.recvfrom(4096)
                if not text:
                    return
                query = dns.message.from_wire(text)
                name = query.question[0].name.to_text()
                response = dns.message.make_response(query)
                records = ZONE.get(name.lower(), "")
                if name[0].isdigit():
                    response.set_rcode(dns.rcode.NXDOMAIN)
                elif records == "SERVFAIL":
                    response.set_rcode(dns.rcode.SERVFAIL)
                elif records == "HANG":
                    continue
                elif records:
                    response.answer.append(dns.rrset.from_text(name, 60, "IN", "CAA", *records.split("|")))
                server.sendto(response.to_wire(), client)

        thread = threading.Thread(target=answer_all)
        thread.start()
        yield server.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", server.getsockname())
        thread.join()


@pytest.fixture
def by_dns(look, dns_server, monkeypatch):
    """Look at CAA alone, for a CA that goes by ca.test."""
    monkeypatch.setattr(preflight, "SECONDS_FOR_CAA", 0.3)

    def resolver():
        made = dns.resolver.Resolver(configure=False)
        made.nameservers, made.port = [dns_server[0]], dns_server[1]
        return made

    monkeypatch.setattr(preflight, "_resolver", resolver)
    return lambda domain, *identities: look(domain, http=False, caa_identities=identities or ("ca.test",)).get(domain)


@pytest.mark.parametrize(
    "domain",
    [
        "free.example",
        "1.free.example",
        "ours.example",
        "a.b.ours.example",
        "*.ours.example",
        "uncritical.example",
        "wild.example",
        "*.onlywild.example",
        "below.other.example",
        "*.below.other.example",
        "broken.other.example",
        "hung.other.example",
    ],
)
def test_caa_allows_or_says_nothing(by_dns, domain):
    assert by_dns(domain) is None


OTHERS = (
    'gets no certificate from this CA: the DNS has other.example CAA 0 issue "other.example", and so forbids it. '
    'Add other.example CAA 0 issue "ca.test", or remove what is there.'
)


@pytest.mark.parametrize(
    ("domain", "words"),
    [
        ("other.example", OTHERS),
        ("1.other.example", OTHERS),
        ("a.b.other.example", OTHERS),
        ("*.other.example", OTHERS),
        (
            "nobody.example",
            'gets no certificate from this CA: the DNS has nobody.example CAA 0 issue ";", and so forbids it. '
            'Add nobody.example CAA 0 issue "ca.test", or remove what is there.',
        ),
        (
            "*.wild.example",
            'gets no certificate from this CA: the DNS has wild.example CAA 0 issuewild "other.example", and so forbids it. '
            'Add wild.example CAA 0 issuewild "ca.test", or remove what is there.',
        ),
        (
            "onlywild.example",
            'gets no certificate from this CA: the DNS has onlywild.example CAA 0 issue ";", and so forbids it. '
            'Add onlywild.example CAA 0 issue "ca.test", or remove what is there.',
        ),
        ("critical.example", "gets no certificate: the DNS has a critical CAA record of critical.example that no CA understands (futuretag). Remove it."),
    ],
)
def test_caa_forbids(by_dns, domain, words):
    assert by_dns(domain) == f"{domain} {words}"


def test_any_of_the_cas_names_will_do(by_dns):
    assert by_dns("other.example", "ca.test", "Other.Example") is None


def test_both_kinds_of_mistake_are_told(look, by_dns, names):
    assert look("other.example", caa_identities=["ca.test"]) == {
        "other.example": f"other.example {NO_ADDRESS} other.example {OTHERS}"
    }


@pytest.mark.parametrize("lacking", ["dns.resolver", "resolv.conf"])
def test_caa_says_nothing_where_nobody_can_be_asked(look, monkeypatch, lacking):
    def no_configuration(self, _file):
        raise dns.resolver.NoResolverConfiguration

    if lacking == "resolv.conf":
        monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", no_configuration)
    else:
        monkeypatch.setitem(sys.modules, "dns.resolver", None)
    assert look("other.example", http=False, caa_identities=["ca.test"]) == {}


# ---- the CA's directory


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (json.dumps({"newNonce": "x", "meta": {"caaIdentities": ["ca.test"]}}), {"newNonce": "x", "meta": {"caaIdentities": ["ca.test"]}}),
        (json.dumps({"newNonce": "x", "meta": None}), {"newNonce": "x", "meta": {}}),
        ("[]", {}),
        ("no JSON", {}),
    ],
)
def test_directory(certified, body, found):
    assert preflight.directory(certified(says(200, body.encode())), certified.trusted) == found


def test_a_directory_that_cannot_be_had_is_an_empty_one(certified, tmp_path, port):
    assert preflight.directory(certified(says(500)), certified.trusted) == {}
    assert preflight.directory(certified(says(200, b"{}")), lambda: contextlib.nullcontext("/etc/ssl/certs/ca-certificates.crt")) == {}
    assert preflight.directory("https://localhost:1/", certified.trusted) == {}
    assert preflight.directory("no url", certified.trusted) == {}
    assert preflight.directory("https://localhost/", lambda: contextlib.nullcontext(str(tmp_path / "nothing"))) == {}


def test_a_directory_that_hangs_is_left_alone(certified, monkeypatch):
    monkeypatch.setattr(preflight, "SECONDS_FOR_THE_DIRECTORY", 0.2)
    end = threading.Event()
    begin = time.monotonic()
    assert preflight.directory(certified(lambda self: end.wait(10)), certified.trusted) == {}
    assert time.monotonic() - begin < 2
    end.set()


@pytest.fixture
def certified(tmp_path, serve):
    """Start a server of localhost with a certificate, whose URL is returned."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.2", "-keyout", key, "-out", certificate], check=True, capture_output=True)

    def start(answer):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        start.number += 1
        return f"https://127.0.0.2:{serve(f'127.0.0.{start.number}', answer, context).server_address[1]}/dir"

    start.number = 1
    start.trusted = lambda: contextlib.nullcontext(certificate)
    return start
