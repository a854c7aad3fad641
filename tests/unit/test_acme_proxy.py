"""The proxy passes on what it is not told to spoil, spoils what it is told to, and tells what it saw."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time

import acme_proxy
import pytest
from acme_proxy import Orders, Proxy, Reply, Request, Rules, merged, payload_of, resource_of

PEM = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"


class Pebble(http.server.BaseHTTPRequestHandler):
    """Answers as the ACME server does, as far as a proxy can see it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # Of the connection whatever comes after is a request again: the body has to be read.
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        base = f"https://{self.headers['Host']}"
        answers = {
            "/dir": {"newOrder": f"{base}/order-plz", "meta": {"externalAccountRequired": False}},
            "/order-plz": {
                "identifiers": [{"type": "dns", "value": "shop.example.test"}],
                "authorizations": [f"{base}/authZ/1"],
                "finalize": f"{base}/finalize-order/1",
            },
            "/authZ/1": {"identifier": {"value": "shop.example.test"}, "challenges": [{"url": f"{base}/chalZ/1"}]},
            "/my-order/1": {"identifiers": [{"type": "dns", "value": "shop.example.test"}], "certificate": f"{base}/certZ/1"},
        }
        text = PEM if self.path == "/certZ/1" else json.dumps(answers.get(self.path, {}))
        self.send_response(201 if self.path == "/order-plz" else 200)
        self.send_header("Replay-Nonce", "a-nonce")
        self.send_header("Content-Length", str(len(text)))
        if self.path == "/order-plz":
            self.send_header("Location", f"{base}/my-order/1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    do_POST = do_HEAD = do_GET

    def log_message(self, *_arguments):
        pass


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate for 127.0.0.1, which verifies itself."""
    folder = tmp_path_factory.mktemp("proxy")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=acme"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "server.key", "-out", "server.pem"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return folder


@pytest.fixture(scope="module")
def server(files):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pebble)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files / "server.pem", files / "server.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


class Client:
    """Asks through a proxy of its own."""

    def __init__(self, folder, files, target):
        self.folder, self.port = folder, free_port()
        inward, outward = acme_proxy.contexts(files / "server.pem", files / "server.key", files / "server.pem")
        self.tls = outward
        self.proxy = Proxy(Rules(folder / "rules.json"), folder / "requests.jsonl", inward, outward)
        self.over = threading.Event()
        self.thread = threading.Thread(target=acme_proxy.serve, args=(self.proxy, ("127.0.0.1", self.port), target, self.over))
        self.thread.start()
        self.wait_for(True)

    def rules(self, *rules):
        (self.folder / "rules.json").write_text(json.dumps(rules))

    def ask(self, path, payload=None, method=None, timeout=10):
        """Ask once, as certbot does: a JWS where there is a payload."""
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.tls)) as connection:
            body = None
            if payload is not None:
                body = json.dumps({"payload": base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")})
            connection.request(method or ("POST" if body else "GET"), path, body)
            reply = connection.getresponse()
            return Reply(reply.status, reply.getheaders(), reply.read())

    @property
    def log(self):
        return [json.loads(line) for line in (self.folder / "requests.jsonl").read_text().splitlines()]

    def listens(self):
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def wait_for(self, listens):
        deadline = time.monotonic() + 10
        while self.listens() != listens:
            assert time.monotonic() < deadline, f"it {'does not listen' if listens else 'goes on listening'}"
            time.sleep(0.02)  # the proxy looks at its rules now and then, and sends no word

    def stop(self):
        self.over.set()
        self.thread.join()


@pytest.fixture
def client(tmp_path, files, server):
    client = Client(tmp_path, files, server)
    yield client
    client.stop()


def said(reply):
    return json.loads(reply.body)


ORDER = {"identifiers": [{"type": "dns", "value": "shop.example.test"}], "profile": "shortlived"}


def test_urls_come_back_through_the_proxy(client):
    assert said(client.ask("/dir"))["newOrder"] == f"https://127.0.0.1:{client.port}/order-plz"


def test_an_order_is_passed_on_and_told_with_its_payload(client):
    reply = client.ask("/order-plz", ORDER)
    assert reply.status == 201 and ("Replay-Nonce", "a-nonce") in reply.headers
    (line,) = client.log
    assert (line["resource"], line["names"], line["payload"]) == ("newOrder", ["shop.example.test"], ORDER)
    assert (line["method"], line["client"], line["rule"]) == ("POST", "127.0.0.1", None)


def test_what_belongs_to_an_order_is_known_by_its_names(client):
    client.ask("/order-plz", ORDER)
    for path in ("/authZ/1", "/chalZ/1", "/my-order/1", "/finalize-order/1", "/certZ/1", "/dir"):
        client.ask(path)
    assert [line["resource"] for line in client.log] == ["newOrder", "authz", "challenge", "order", "finalize", "cert", "directory"]
    assert [line["names"] for line in client.log] == [["shop.example.test"]] * 6 + [[]]


def test_a_question_for_the_headers_has_no_body(client):
    reply = client.ask("/nonce-plz", method="HEAD")
    assert reply.body == b"" and ("Replay-Nonce", "a-nonce") in reply.headers


def test_a_problem_is_told_as_a_ca_tells_it(client):
    client.rules({"resource": "newOrder", "problem": {"status": 429, "type": "rateLimited", "detail": "too many", "retry_after": 60}})
    reply = client.ask("/order-plz", ORDER)
    assert reply.status == 429
    assert said(reply) == {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many", "status": 429}
    headers = dict(reply.headers)
    assert (headers["Retry-After"], headers["Content-Type"], headers["Replay-Nonce"]) == ("60", "application/problem+json", "a-nonce")
    assert client.log[0]["rule"] == 0
    assert client.ask("/dir").status == 200


def test_the_rules_are_read_anew_for_each_request(client):
    client.rules({"problem": {"status": 503, "type": "serverInternal"}})
    assert client.ask("/dir").status == 503
    client.rules()
    assert client.ask("/dir").status == 200


def test_rules_that_mean_nothing_are_told(client):
    client.rules({"resource": "directory"})
    reply = client.ask("/dir")
    assert reply.status == 500 and "one of problem, drop" in said(reply)["detail"]


def test_a_dropped_connection_has_no_answer(client):
    client.rules({"drop": True})
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError, ssl.SSLError)):
        client.ask("/dir")


def test_who_is_kept_waiting_has_no_answer(client):
    client.rules({"hang": 60})
    with pytest.raises(TimeoutError):
        client.ask("/dir", timeout=0.3)
    client.rules({"hang": 0})
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError, ssl.SSLError)):
        client.ask("/dir")


def test_a_certificate_is_cut(client):
    client.rules({"resource": "cert", "keep": 20})
    assert client.ask("/certZ/1").body == PEM[:20].encode()


def test_an_answer_is_replaced_or_added_to(client):
    client.rules({"resource": "directory", "merge": {"meta": {"profiles": {"shortlived": "short"}}, "newOrder": None}})
    assert said(client.ask("/dir")) == {"meta": {"externalAccountRequired": False, "profiles": {"shortlived": "short"}}}
    client.rules({"resource": "directory", "replace": {"a": 1}})
    assert said(client.ask("/dir")) == {"a": 1}
    client.rules({"resource": "cert", "merge": {"a": 1}})
    assert client.ask("/certZ/1").body == PEM.encode()


def test_a_port_is_closed_and_opened(client):
    client.rules({"refuse": True, "port": client.port})
    client.wait_for(False)
    client.rules({"refuse": True, "port": client.port + 1})
    client.wait_for(True)
    assert client.ask("/dir").status == 200


def test_a_server_that_is_down_is_no_reason_to_end(client, tmp_path, files):
    other = Client(tmp_path, files, free_port())
    try:
        assert other.ask("/dir").status == 502
    finally:
        other.stop()


def request(resource="newOrder", names=("shop.example.test",), port=1, client="192.0.2.1"):
    return Request(port, client, "POST", "/", resource, names)


@pytest.mark.parametrize(
    ("rule", "asked", "follows"),
    [
        ({}, request(), True),
        ({"resource": "newOrder"}, request(), True),
        ({"resource": "cert"}, request(), False),
        ({"resource": ["cert", "newOrder"]}, request(), True),
        ({"port": 1}, request(), True),
        ({"port": 2}, request(), False),
        ({"client": "192.0.2.2"}, request(), False),
        ({"names": "shop.*"}, request(), True),
        ({"names": "shop.*"}, request(names=("www.example.test", "shop.example.test")), True),
        ({"names": "shop.*"}, request(names=()), False),
        ({"names": "wiki.*"}, request(), False),
    ],
)
def test_a_rule_is_for_what_it_fits(tmp_path, rule, asked, follows):
    (tmp_path / "rules.json").write_text(json.dumps([{**rule, "drop": True}]))
    assert bool(Rules(tmp_path / "rules.json").followed(asked)) == follows


@pytest.mark.parametrize(
    ("rule", "turns"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"count": 2}, [1, 2]),
        ({"after": 2}, [3, 4, 5, 6]),
        ({"after": 2, "count": 1}, [3]),
        ({"every": 3}, [3, 6]),
        ({"every": 2, "count": 2, "after": 1}, [3, 5]),
    ],
)
def test_a_rule_has_its_turn(tmp_path, rule, turns):
    (tmp_path / "rules.json").write_text(json.dumps([{**rule, "drop": True}]))
    rules = Rules(tmp_path / "rules.json")
    assert [number for number in range(1, 7) if rules.followed(request())] == turns
    # Written anew, even if it says the same but for a space, it begins to count anew.
    (tmp_path / "rules.json").write_text(json.dumps([{**rule, "drop": True}]) + " ")
    assert [number for number in range(1, 7) if rules.followed(request())] == turns


def test_the_first_rule_that_has_its_turn_is_followed(tmp_path):
    (tmp_path / "rules.json").write_text(json.dumps([{"count": 1, "drop": True}, {"hang": 1}]))
    rules = Rules(tmp_path / "rules.json")
    assert [rules.followed(request())[0] for _ in range(3)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/dir", "directory"),
        ("/nonce-plz", "newNonce"),
        ("/sign-me-up", "newAccount"),
        ("/order-plz", "newOrder"),
        ("/authZ/abc", "authz"),
        ("/chalZ/abc", "challenge"),
        ("/finalize-order/abc", "finalize"),
        ("/my-order/abc", "order"),
        ("/certZ/abc", "cert"),
        ("/draft-ietf-acme-ari-03/renewalInfo/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", "renewalInfo"),
        ("/revoke-cert", "revokeCert"),
        ("/rollover-account-key", "keyChange"),
        ("/my-account/1", "account"),
        ("/", "other"),
    ],
)
def test_paths_are_known(path, resource):
    assert resource_of(path) == resource


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"payload": ""}', b'{"payload": "A"}', b'{"payload": 1}'])
def test_a_body_that_carries_nothing_is_nothing(body):
    assert payload_of(body) is None


def test_an_answer_that_is_no_order_teaches_nothing():
    orders = Orders()
    orders.learn(request(), Reply(500, [], b"no JSON"))
    orders.learn(request(), Reply(429, [], b'{"type": "urn:ietf:params:acme:error:rateLimited"}'))
    assert orders.of("/authZ/1") == ()


def test_merging_takes_out_what_is_null():
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None, "e": 3}, "d": [2]}) == {"a": {"c": 2, "e": 3}, "d": [2]}
