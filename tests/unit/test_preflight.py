"""What a host sees of itself before an order is spent: real servers on loopback addresses, real DNS messages."""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from ansible_collections.portico.web.plugins.module_utils import preflight

NAME = "shop.example.com"
CHALLENGES = ".well-known/acme-challenge"
ELSEWHERE = (
    " ({} is no address of this host: unless NAT leads from there to here, correct the DNS record; "
    "if NAT keeps this host from reaching itself, set certbot_preflight to false)."
)
TAKEN = "another server block or another program of this host answers for the name, so find it (nginx -T) and take the name from it."
NO_REDIRECT = "let /.well-known/acme-challenge/ be answered there without a redirect."


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the webroot, unless a test has an answer of its own for this address: C(answer(handler))."""

    server_version, sys_version = "strange/1.0", ""

    def do_GET(self):
        self.server.world.asked.append((self.server.server_address[0], self.headers["Host"]))
        self.server.answer(self)

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Gives connections up when the test is over, and says nothing of clients that went away."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_arguments):
        pass


class Server6(Server):
    address_family = socket.AF_INET6


class World:
    """Names, their addresses, and what answers there; all at one port."""

    def __init__(self, webroot, port):
        self.webroot, self.port, self.asked, self.names, self.servers = webroot, port, [], {}, []
        self.tls_port = None

    def getaddrinfo(self, name, _port, **_options):
        addresses = self.names.get(name, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if callable(addresses):
            addresses = addresses()
        if isinstance(addresses, Exception):
            raise addresses
        both = [(socket.AF_INET6, (each, 0, 0, 0)) if ":" in each else (socket.AF_INET, (each, 0)) for each in addresses]
        return [(family, socket.SOCK_STREAM, 6, "", where) for family, where in both]

    def serve(self, address, answer=None, context=None):
        port = 0 if context else self.port
        server = (Server6 if ":" in address else Server)((address, port), Handler)
        server.world, server.answer = self, answer or self.webroot_answer
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            self.tls_port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.servers.append(server)

    def webroot_answer(self, handler):
        path = self.webroot / handler.path.lstrip("/")
        if path.is_file():
            handler.reply(200, path.read_bytes() + b"\n", Content_Type="text/plain")
        else:
            handler.reply(404, b"<html><head><title>404</title></head>\r\n<body>Not here</body></html>", Content_Type="text/html")

    def check(self, *domains, **options):
        given = {"webroot": str(self.webroot), "caa_identities": [], "port": self.port, "patience": 0.3, "seconds": 5, **options}
        if self.tls_port:
            given["https_port"] = self.tls_port
        return preflight.check(domains or [NAME], **given)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path / "acme", free_port())
    monkeypatch.setattr(socket, "getaddrinfo", world.getaddrinfo)
    yield world
    for server in world.servers:
        server.shutdown()
        server.server_close()


def redirect(where, status=301):
    """Answer with a redirect; in it, %s is the path that was asked for."""
    return lambda handler: handler.reply(status, Location=where.replace("%s", handler.path))


# ---- what is fine


def test_a_host_that_answers_at_all_its_addresses_hears_nothing(world):
    world.names = {NAME: ["127.0.0.2", "127.0.0.3"], "www.example.com": ["127.0.0.2"]}
    world.serve("127.0.0.2")
    world.serve("127.0.0.3")
    begin = time.monotonic()
    assert world.check(NAME, "www.example.com") == {}
    assert time.monotonic() - begin < 1
    assert sorted(world.asked) == [
        ("127.0.0.2", f"{NAME}:{world.port}"),
        ("127.0.0.2", f"www.example.com:{world.port}"),
        ("127.0.0.3", f"{NAME}:{world.port}"),
    ]


def test_ipv6_is_asked_too(world):
    try:
        world.serve("::1", lambda handler: handler.reply(503))
    except OSError:
        pytest.skip("this machine has no IPv6")
    world.names = {NAME: ["::1", "127.0.0.2"]}
    world.serve("127.0.0.2")
    assert world.check() == {NAME: f"{NAME} leads to ::1, where something else answers (503 Service Unavailable, Server: strange/1.0): {TAKEN}"}


@pytest.mark.parametrize("domains", [["*.example.com"], []])
def test_no_host_is_asked_about_a_wildcard(world, domains):
    assert preflight.check(domains, webroot=str(world.webroot), caa_identities=[]) == {}
    assert not world.webroot.exists()


def test_no_host_is_asked_where_the_dns_proves(world):
    assert world.check(http=False) == {}
    assert not world.webroot.exists()


# ---- the file


@pytest.mark.parametrize("there", ["", ".well-known", CHALLENGES])
def test_the_challenge_can_be_read_by_all_and_is_gone_afterwards(world, there):
    (world.webroot / there).mkdir(parents=True)
    before = sorted(world.webroot.rglob("*"))
    modes = {}

    def answer(handler):
        path = world.webroot / handler.path.lstrip("/")
        for each in [path, path.parent, path.parent.parent]:
            modes[each.name if each != path else "file"] = stat.S_IMODE(each.stat().st_mode)
        world.webroot_answer(handler)

    world.names = {NAME: ["127.0.0.2"]}
    world.serve("127.0.0.2", answer)
    mask = os.umask(0o077)
    try:
        assert world.check() == {}
    finally:
        os.umask(mask)
    assert modes["file"] == 0o644
    if not there:
        assert modes == {"file": 0o644, "acme-challenge": 0o755, ".well-known": 0o755}
    assert sorted(world.webroot.rglob("*")) == before


def test_what_others_put_beside_the_challenge_stays(world):
    def answer(handler):
        (world.webroot / CHALLENGES / "other").write_text("x")
        world.webroot_answer(handler)

    world.names = {NAME: ["127.0.0.2"]}
    world.serve("127.0.0.2", answer)
    assert world.check() == {}
    assert [path.name for path in (world.webroot / CHALLENGES).iterdir()] == ["other"]


def test_the_challenge_is_gone_after_a_mistake_of_ours(world, monkeypatch):
    monkeypatch.setattr(preflight._Visit, "look", lambda _self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.check()
    assert not world.webroot.exists()


def test_a_webroot_that_cannot_be_written_is_told(world):
    world.webroot.write_text("a file")
    assert world.check() == {NAME: f"The challenge of {NAME} cannot be put into {world.webroot} (Not a directory): see to it that this host can write there."}


# ---- names


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), f"{NAME} does not resolve: give it an A or AAAA record that leads to this host."),
        (socket.gaierror(socket.EAI_NODATA, "No address"), f"{NAME} does not resolve: give it an A or AAAA record that leads to this host."),
        (UnicodeError("label too long"), f"{NAME} does not resolve: it is no name that the DNS can hold, so correct it."),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            f"The DNS says nothing about {NAME} (Temporary failure in name resolution): "
            "see whether the servers of its zone answer, and the resolver in this host's /etc/resolv.conf.",
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_told(world, found, message):
    world.names = {NAME: found}
    assert world.check() == {NAME: message}


def test_a_look_up_that_hangs_holds_nothing_up(world):
    hung = threading.Event()
    world.names = {NAME: lambda: hung.wait() and [], "www.example.com": ["127.0.0.2"]}
    world.serve("127.0.0.2")
    begin = time.monotonic()
    found = world.check(NAME, "www.example.com", "gone.example.com", seconds=0.5)
    assert time.monotonic() - begin < 2
    assert found == {
        NAME: f"The DNS says nothing about {NAME} (no answer within 0.5 seconds): "
        "see whether the servers of its zone answer, and the resolver in this host's /etc/resolv.conf.",
        "gone.example.com": "gone.example.com does not resolve: give it an A or AAAA record that leads to this host.",
    }
    hung.set()


def test_names_that_were_not_come_to_are_not_accused(world, monkeypatch):
    monkeypatch.setattr(preflight, "_AT_ONCE", 1)
    hung = threading.Event()
    world.names = {NAME: lambda: hung.wait() and []}
    assert list(world.check(NAME, "www.example.com", seconds=0.2)) == [NAME]
    hung.set()


# ---- addresses


def test_a_family_without_a_route_is_passed_over_if_another_works(world, monkeypatch):
    world.names = {NAME: ["2001:db8::1", "127.0.0.2"]}
    world.serve("127.0.0.2")
    connect = preflight._Place.connect

    def routed(place, port, patience):
        if ":" in place.address:
            raise preflight._NoRouteError
        return connect(place, port, patience)

    monkeypatch.setattr(preflight._Place, "connect", routed)
    assert world.check() == {}
    world.names = {NAME: ["2001:db8::1"]}
    assert world.check() == {NAME: f"{NAME} leads to 2001:db8::1, to which this host has no route: let the name lead to an address at which this host is reached."}


class Socket:
    """A socket of which the kernel says what a test wants."""

    def __init__(self, stream, datagram):
        self.stream, self.datagram = stream, datagram

    def __call__(self, family, kind):
        if self.stream == errno.EAFNOSUPPORT:
            raise OSError(self.stream, "unsupported")
        self.kind = kind
        return contextlib.nullcontext(self) if kind == socket.SOCK_DGRAM else self

    def connect(self, _where):
        number = self.datagram if self.kind == socket.SOCK_DGRAM else self.stream
        if number:
            raise OSError(number, os.strerror(number))

    def settimeout(self, _seconds):
        pass

    def close(self):
        pass


@pytest.mark.parametrize(
    ("stream", "datagram", "routed"),
    [
        (errno.ENETUNREACH, 0, False),
        (errno.EADDRNOTAVAIL, 0, False),
        (errno.EAFNOSUPPORT, 0, False),
        (errno.EHOSTUNREACH, errno.EHOSTUNREACH, False),  # `ip route add unreachable`
        (errno.EACCES, errno.EACCES, False),  # `ip route add prohibit`
        (errno.EHOSTUNREACH, 0, True),  # a machine on the way says so, or a firewall
        (errno.ECONNREFUSED, 0, True),
    ],
)
def test_having_no_route_is_told_from_what_others_answer(monkeypatch, stream, datagram, routed):
    monkeypatch.setattr(socket, "socket", Socket(stream, datagram))
    with pytest.raises(OSError if routed else preflight._NoRouteError):
        preflight._Place(socket.AF_INET6, ("2001:db8::1", 0, 0, 0)).connect(80, 1)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ECONNREFUSED, "where port {port} is closed: let nginx listen there, and the firewall let port {port} in from everywhere"),
        (errno.ETIMEDOUT, "where port {port} is filtered (no answer within 0.3 seconds): the firewall must let port {port} in from everywhere"),
        (errno.EHOSTUNREACH, "where port {port} cannot be reached (No route to host): see whether that machine runs, and whether its firewall lets port {port} in"),
    ],
)
def test_an_address_that_is_not_this_hosts_is_called_so(world, monkeypatch, number, message):
    def fail(*_arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(preflight._Place, "connect", fail)
    world.names = {NAME: ["192.0.2.9"]}
    assert world.check() == {NAME: f"{NAME} leads to 192.0.2.9, {message.format(port=world.port)}{ELSEWHERE.format('192.0.2.9')}"}


def test_a_closed_port_is_told(world):
    world.names = {NAME: ["127.0.0.2", "127.0.0.3"]}
    world.serve("127.0.0.2")
    p = world.port
    assert world.check() == {NAME: f"{NAME} leads to 127.0.0.3, where port {p} is closed: let nginx listen there, and the firewall let port {p} in from everywhere."}


def test_a_full_queue_looks_like_a_filter(world):
    """Nobody accepts, and the kernel then drops what comes, as a firewall does."""
    world.names = {NAME: ["127.0.0.2"]}
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.2", world.port))
        silent.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", world.port))
        begin = time.monotonic()
        found = world.check()
    assert time.monotonic() - begin < 2
    p = world.port
    assert found == {NAME: f"{NAME} leads to 127.0.0.2, where port {p} is filtered (no answer within 0.3 seconds): the firewall must let port {p} in from everywhere."}


# ---- answers


def hang(handler):
    handler.rfile.read(1)


def drip(handler):
    handler.reply(200, Content_Length="1000")
    # Each byte is in time, the whole never is; it ends with the connection.
    with contextlib.suppress(OSError):
        while not handler.server.over.wait(0.05):
            handler.wfile.write(b"x")


def say(handler, text):
    handler.wfile.write(text)
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h: h.reply(200, b"hello\x1b[1m world " * 9), 'something else answers (200 OK, Server: strange/1.0, "hello [1m world hello [1m world hello [1m world hello [1m wo..."): ' + TAKEN),
        (lambda h: h.reply(404, b"<h1>Not <b>here</b></h1><script>x</script>", Content_Type="text/html"), 'something else answers (404 Not Found, Server: strange/1.0, "Not here"): ' + TAKEN),
        (lambda h: h.reply(403, b"<TITLE>\n403\nForbidden </TITLE><h1>x</h1>", Content_Type="text/html"), "something else answers (403 Forbidden, Server: strange/1.0): " + TAKEN),
        (lambda h: h.reply(200, b"<title>Old &amp; gone\x1b[31m</title>x", Content_Type="text/html"), 'something else answers (200 OK, Server: strange/1.0, "Old & gone [31m"): ' + TAKEN),
        (lambda h: h.reply(200, b"GIF89a", Content_Type="image/gif"), "something else answers (200 OK, Server: strange/1.0): " + TAKEN),
        (lambda h: h.reply(200, b"x" * 200_000, Content_Type="image/gif"), "something else answers (200 OK, Server: strange/1.0): " + TAKEN),
        (lambda h: h.reply(303, Location="/"), "something else answers (303 See Other, Server: strange/1.0): " + TAKEN),
        (lambda h: h.reply(301), "something else answers (301 Moved Permanently, Server: strange/1.0): " + TAKEN),
        (hang, "port {port} is open, but nothing answers within 0.3 seconds: see what listens there."),
        (drip, "no whole answer came within 1 seconds: see what listens there."),
        (lambda h: say(h, b""), "port {port} does not answer in HTTP (Remote end closed connection without response): see what listens there."),
        (lambda h: say(h, b"SSH-2.0-OpenSSH_9.2\r\n"), "port {port} does not answer in HTTP (SSH-2.0-OpenSSH_9.2): see what listens there."),
    ],
)
def test_what_answers_instead_is_told(world, answer, message):
    world.names = {NAME: ["127.0.0.2"]}
    world.serve("127.0.0.2", answer)
    world.servers[0].over = threading.Event()
    begin = time.monotonic()
    assert world.check(seconds=1) == {NAME: f"{NAME} leads to 127.0.0.2, where {message.format(port=world.port)}"}
    assert time.monotonic() - begin < 2
    world.servers[0].over.set()


# ---- redirects


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=127.0.0.1"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
        + ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.cafile = str(folder / "cert.pem")
    return context


def test_a_redirect_is_followed_to_https_and_another_name_whatever_its_certificate(world, tls):
    names = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    world.names = {NAME: ["127.0.0.2"], "other.example.com": ["127.0.0.3"]}
    world.serve("127.0.0.3", context=tls)
    world.serve("127.0.0.2", redirect(f"https://other.example.com:{world.tls_port}%s?a=b#c", 308))
    world.servers[0].answer = lambda handler: (setattr(handler, "path", handler.path.removesuffix("?a=b")), world.webroot_answer(handler))
    assert world.check() == {}
    assert names == ["other.example.com"]
    assert world.asked[-1] == ("127.0.0.3", f"other.example.com:{world.tls_port}")


def test_a_redirect_to_the_same_name_stays_at_the_address_that_is_looked_at(world, tls):
    world.names = {NAME: ["127.0.0.2", "127.0.0.3"]}
    world.serve("127.0.0.3", context=tls)
    world.serve("127.0.0.2")
    world.serve("127.0.0.3", redirect(f"https://{NAME}:{world.tls_port}%s"))
    assert world.check() == {}
    assert [address for address, _host in world.asked] == ["127.0.0.2", "127.0.0.3", "127.0.0.3"]


def test_ten_redirects_are_followed_and_no_more(world):
    def count(handler):
        path, _, number = handler.path.partition("?")
        if int(number or 0) < most[0]:
            handler.reply(302, Location=f"{path}?{int(number or 0) + 1}")
        else:
            handler.path = path
            world.webroot_answer(handler)

    world.names = {NAME: ["127.0.0.2"]}
    world.serve("127.0.0.2", count)
    most = [10]
    assert world.check() == {}
    most = [11]
    last = f"http://{NAME}:{world.port}/{CHALLENGES}/TOKEN?11"
    assert world.check() == {NAME: f"{NAME} leads to 127.0.0.2, which redirects the challenge more than 10 times, at last to {last}: {NO_REDIRECT}"}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("%s", "in a circle, to http://{name}:{port}/{challenges}/TOKEN again"),
        ("https://{name}:22/a b", "to https://{name}:22/a%20b, where no CA follows (it does to http and https, at ports {port} and {other})"),
        ("ftp://{name}/", "to ftp://{name}/, where no CA follows (it does to http and https, at ports {port} and {other})"),
        ("http://[/", "to http://[/, where no CA follows (it does to http and https, at ports {port} and {other})"),
        ("http://{name}:x/", "to http://{name}:x/, where no CA follows (it does to http and https, at ports {port} and {other})"),
        ("https:///x", "to https:///x, where no CA follows (it does to http and https, at ports {port} and {other})"),
        ("//gone.example.com:{port}/x", "to http://gone.example.com:{port}/x, whose name does not resolve"),
        ("https://{name}:{other}/x", "to https://{name}:{other}/x, where port {other} is closed"),
        ("https://{name}:{port}/x", "to https://{name}:{port}/x, where port {port} does not answer in HTTPS ([SSL: WRONG_VERSION_NUMBER] wrong version number"),
        (
            "//web.example.com:{port}/x",
            'to http://web.example.com:{port}/x, where something else answers (404 Not Found, Server: strange/1.0, "404")',
        ),
    ],
)
def test_a_redirect_to_a_wrong_place_is_told(world, where, message):
    values = {"name": NAME, "port": world.port, "other": free_port(), "challenges": CHALLENGES}
    world.names = {NAME: ["127.0.0.2"], "web.example.com": ["127.0.0.3"]}
    world.serve("127.0.0.2", redirect(where.format(**values)))
    world.serve("127.0.0.3")
    found = world.check(https_port=values["other"])[NAME]
    assert found.startswith(f"{NAME} leads to 127.0.0.2, which redirects the challenge {message.format(**values)}")
    assert found.endswith(f": {NO_REDIRECT}")


# ---- CAA


class Zone:
    """A DNS server on a loopback address, with records of the tests."""

    def __init__(self):
        self.records, self.asked, self.silent, self.failing = {}, [], set(), set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        while True:
            content, where = self.socket.recvfrom(4096)
            if not content:
                return
            query = dns.message.from_wire(content)
            name = query.question[0].name.to_text(omit_final_dot=True)
            self.asked.append(name)
            if name not in self.silent:
                self.socket.sendto(self.answer(query, name).to_wire(), where)

    def answer(self, query, name):
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name in self.failing:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        alias = self.records.get(name)
        if isinstance(alias, str):
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", f"{alias}."))
            name = alias
        if self.records.get(name):
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CAA", *self.records[name]))
        return answer

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


@pytest.fixture
def zone(monkeypatch):
    zone = Zone()
    zone.thread.start()

    def resolver(original=dns.resolver.Resolver):
        made = original(configure=False)
        made.nameservers, made.port = ["127.0.0.1"], zone.socket.getsockname()[1]
        return made

    monkeypatch.setattr(dns.resolver, "Resolver", resolver)
    yield zone
    zone.stop()


def ask_caa(*domains, identities=("CA.example.net", "ca.example.org")):
    return preflight.check(domains or [NAME], webroot="/nowhere", caa_identities=identities, http=False)


@pytest.mark.parametrize(
    ("domain", "records", "allowed"),
    [
        (NAME, {}, True),
        (NAME, {NAME: [], "example.com": []}, True),
        (NAME, {NAME: ['0 issue "ca.example.net"']}, True),
        (NAME, {NAME: ['0 ISSUE "Ca.Example.Org ; accounturi=https://x/1"', '0 issue ";"']}, True),
        (NAME, {NAME: ['0 issue "ca.example.net"'], "example.com": ['0 issue ";"']}, True),
        (NAME, {NAME: ['0 iodef "mailto:a@example.com"'], "example.com": ['0 issue ";"']}, True),
        (NAME, {NAME: ['0 issuewild ";"', '0 tbs "x"', '128 iodef "mailto:a@example.com"']}, True),
        ("*.example.com", {"example.com": ['0 issue ";"', '0 issuewild "ca.example.net"']}, True),
        ("*.example.com", {"example.com": ['0 issue "ca.example.net"'], "*.example.com": ['0 issue ";"']}, True),
        (NAME, {NAME: "alias.example.net", "alias.example.net": ['0 issue "ca.example.net"'], "example.com": ['0 issue ";"']}, True),
        (NAME, {NAME: "alias.example.net", "alias.example.net": [], "example.net": ['0 issue ";"']}, True),
        (
            NAME,
            {NAME: ['0 issue "ca.other.example"', '0 iodef "mailto:a@example.com"']},
            f'CAA at {NAME} forbids this CA to issue for {NAME} (0 issue "ca.other.example"): add the record {NAME}. CAA 0 issue "CA.example.net".',
        ),
        (
            NAME,
            {"com": ['0 issue ";"']},
            f'CAA at com forbids this CA to issue for {NAME} (0 issue ";"): add the record com. CAA 0 issue "CA.example.net".',
        ),
        (
            NAME,
            {"example.com": ['0 issue "ca.b.example"', '0 issue "ca.a.example; x=y"']},
            f'CAA at example.com forbids this CA to issue for {NAME} (0 issue "ca.a.example; x=y", 0 issue "ca.b.example"): '
            'add the record example.com. CAA 0 issue "CA.example.net".',
        ),
        (
            NAME,
            {NAME: "alias.example.net", "alias.example.net": ['0 issue ";"']},
            f'CAA at alias.example.net forbids this CA to issue for {NAME} (0 issue ";"): add the record alias.example.net. CAA 0 issue "CA.example.net".',
        ),
        (
            NAME,
            {NAME: ['0 issue "ca.example.net"', '128 tbs "Unknown"']},
            f'CAA at {NAME} forbids a CA to issue for {NAME} that does not know what is critical there (128 tbs "Unknown"): remove that record, or its critical flag.',
        ),
        (
            "*.example.com",
            {"example.com": ['0 issue "ca.example.net"', '0 issuewild ";"']},
            'CAA at example.com forbids this CA to issue for *.example.com (0 issuewild ";"): add the record example.com. CAA 0 issuewild "CA.example.net".',
        ),
        (
            "*.example.com",
            {"example.com": ['0 issue "ca.other.example"']},
            'CAA at example.com forbids this CA to issue for *.example.com (0 issue "ca.other.example"): add the record example.com. CAA 0 issue "CA.example.net".',
        ),
    ],
)
def test_the_nearest_caa_records_decide(zone, domain, records, allowed):
    zone.records = records
    assert ask_caa(domain) == ({} if allowed is True else {domain: allowed})


def test_parents_are_asked_once_for_many_names(zone):
    zone.records = {"example.com": []}
    ask_caa("a.example.com")
    assert zone.asked == ["a.example.com", "example.com", "com"]
    zone.records = {"example.com": ['0 issue ";"']}
    assert list(ask_caa("a.example.com", "b.example.com", "a.example.com")) == ["a.example.com", "b.example.com"]


def test_no_answer_accuses_nobody_and_hides_the_parents(zone, monkeypatch):
    monkeypatch.setattr(preflight, "SECONDS_FOR_DNS", 0.3)
    zone.records = {"example.com": ['0 issue ";"']}
    zone.failing = {"failing.example.com"}
    zone.silent = {"silent.example.com"}
    begin = time.monotonic()
    assert ask_caa("failing.example.com", "silent.example.com", f"{'a' * 64}.example.com") == {}
    assert time.monotonic() - begin < 2


def test_without_identities_nothing_is_asked(zone):
    zone.records = {NAME: ['0 issue ";"']}
    assert ask_caa(identities=[]) == {}
    assert zone.asked == []


@pytest.mark.parametrize("missing", ["dns", "dns.resolver"])
def test_without_the_library_caa_says_nothing(zone, monkeypatch, missing):
    zone.records = {NAME: ['0 issue ";"']}
    monkeypatch.setitem(sys.modules, missing, None)
    assert ask_caa() == {}


def test_without_a_resolver_caa_says_nothing(monkeypatch):
    def unconfigured():
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", unconfigured)
    assert ask_caa() == {}


def test_both_mistakes_are_told(world, zone):
    zone.records = {NAME: ['0 issue ";"']}
    assert world.check(caa_identities=["ca.example.net"]) == {
        NAME: f"{NAME} does not resolve: give it an A or AAAA record that leads to this host. "
        f'CAA at {NAME} forbids this CA to issue for {NAME} (0 issue ";"): add the record {NAME}. CAA 0 issue "ca.example.net".'
    }


# ---- the directory


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda h: h.reply(200, json.dumps({"meta": {"caaIdentities": ["a"]}}).encode()), {"meta": {"caaIdentities": ["a"]}}),
        (lambda h: h.reply(200, b"[]"), {}),
        (lambda h: h.reply(200, b"<html>"), {}),
        (lambda h: h.reply(200, b"\xff"), {}),
        (lambda h: h.reply(503, b"{}"), {}),
        (lambda h: say(h, b"220 hello\r\n"), {}),
        (hang, {}),
    ],
)
def test_a_directory_is_read_or_there_is_none(tmp_path, tls, answer, found):
    tls.sni_callback = None
    world = World(tmp_path, 0)
    world.serve("127.0.0.1", answer, tls)
    url = f"https://127.0.0.1:{world.tls_port}/dir"
    try:
        assert preflight.directory(url, tls.cafile, seconds=1) == found
        assert preflight.directory(url, lambda: contextlib.nullcontext(tls.cafile), seconds=1) == found
        assert preflight.directory(url, None, seconds=1) == {}
    finally:
        world.servers[0].shutdown()
        world.servers[0].server_close()


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/dir", "http://127.0.0.1:1/dir", "file:///etc/passwd", "https://[/", "banana"])
def test_a_server_that_cannot_be_asked_has_no_directory(url):
    assert preflight.directory(url, None) == {}
    assert preflight.directory(url, "/nonexistent.pem") == {}
