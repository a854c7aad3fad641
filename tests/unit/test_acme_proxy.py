"""The proxy before the ACME server: it passes on what is right, and does wrong only as its rules say."""

from __future__ import annotations

import base64
import http.client
import http.server
import importlib.machinery
import importlib.util
import json
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "images/acme/acme-proxy"
ACCOUNT = "https://acme:14443/my-account/1"
DIRECTORY = {"newOrder": "https://acme:14443/order-plz", "meta": {"termsOfService": "data:text/plain,none"}}


def load():
    loader = importlib.machinery.SourceFileLoader("acme_proxy", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    # dataclasses and typing look a module up by its name.
    sys.modules[loader.name] = module
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


acme_proxy = load()


def jws(payload, kid=ACCOUNT):
    def encoded(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return json.dumps({"protected": encoded({"kid": kid, "nonce": "n"}), "payload": encoded(payload) if payload else "", "signature": "s"}).encode()


def set_rules(folder, *rules):
    """Write the rules at once: they may be read at any time."""
    (folder / "new.json").write_text(json.dumps(rules))
    (folder / "new.json").replace(folder / "rules.json")


def asked(resource="newOrder", client="192.0.2.1", **more):
    return {"resource": resource, "client": client, "port": 14443, "method": "POST", "kid": ACCOUNT, **more}


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/dir", "directory"),
        ("/nonce-plz", "newNonce"),
        ("/sign-me-up", "newAccount"),
        ("/my-account/5f", "account"),
        ("/order-plz", "newOrder"),
        ("/my-order/x", "order"),
        ("/authZ/x", "authz"),
        ("/chalZ/x", "challenge"),
        ("/finalize-order/x", "finalize"),
        ("/certZ/x?y=z", "cert"),
        ("/revoke-cert", "revokeCert"),
        ("/draft-ietf-acme-ari-03/renewalInfo/a.b", "renewalInfo"),
        ("/directions", "other"),
        ("/", "other"),
    ],
)
def test_a_path_says_what_is_asked_for(path, resource):
    assert acme_proxy.resource_of(path) == resource


@pytest.mark.parametrize(
    ("body", "header", "payload"),
    [
        (jws({"profile": "shortlived"}), {"kid": ACCOUNT, "nonce": "n"}, {"profile": "shortlived"}),
        (jws(None), {"kid": ACCOUNT, "nonce": "n"}, None),
        (b"", {}, None),
        (b"no JSON", {}, None),
        (b"[]", {}, None),
        (b'{"protected": "%", "payload": "a"}', {}, None),
        (b'{"protected": 1, "payload": 2}', {}, None),
    ],
)
def test_what_a_client_signed_is_read(body, header, payload):
    assert acme_proxy.signed(body) == (header, payload)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": 1}, {"a": {"b": None}}, {"a": {}}),
        ({"a": 1}, "b", "b"),
    ],
)
def test_bodies_merge_as_rfc_7396_says(target, patch, result):
    assert acme_proxy.merged(target, patch) == result


@pytest.fixture
def rules(tmp_path):
    """Write rules, and return the object that reads them."""
    read = acme_proxy.Rules(tmp_path / "rules.json")

    def write(*written):
        (tmp_path / "rules.json").write_text(json.dumps(written))
        return read

    return write


def test_no_file_is_no_rule(tmp_path):
    assert acme_proxy.Rules(tmp_path / "rules.json").apply(asked()) == []


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"resource": "newOrder"}, True),
        ({"resource": ["finalize", "newOrder"]}, True),
        ({"resource": "*"}, True),
        ({"resource": "finalize"}, False),
        ({"resource": "newOrder", "port": 14443, "client": ["192.0.2.1"], "method": "POST", "kid": ACCOUNT}, True),
        ({"resource": "newOrder", "port": 14444}, False),
        ({"resource": "newOrder", "client": "192.0.2.2"}, False),
        ({"resource": "*", "method": "GET"}, False),
        ({"resource": "*", "kid": ["https://acme:14443/my-account/2"]}, False),
    ],
)
def test_a_rule_is_for_the_requests_that_it_names(rules, condition, applies):
    assert bool(rules({"do": "drop", **condition}).apply(asked())) == applies


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ({"first": 2}, [1, 1, 0, 0, 0]),
        ({"nth": 2}, [0, 1, 0, 0, 0]),
        ({"nth": [1, 4]}, [1, 0, 0, 1, 0]),
        ({"rate": 0.0}, [0, 0, 0, 0, 0]),
        ({"rate": 1.0}, [1, 1, 1, 1, 1]),
    ],
)
def test_a_rule_counts_the_requests_of_each_client(rules, condition, met):
    read = rules({"resource": "newOrder", "do": "drop", **condition})
    for client in ("192.0.2.1", "192.0.2.2"):
        answers = []
        for _time in met:
            answers.append(len(read.apply(asked(client=client))))
            read.apply(asked("finalize", client))
        assert answers == met


def test_chance_is_the_same_with_the_same_seed(rules):
    def drawn(seed, client):
        read = rules({"resource": "*", "do": "drop", "rate": 0.3, "seed": seed})
        return [len(read.apply(asked(client=client))) for _time in range(50)]

    assert drawn(1, "192.0.2.1") == drawn(1, "192.0.2.2")
    assert drawn(1, "192.0.2.3") != drawn(2, "192.0.2.3")
    assert 5 < sum(drawn(3, "192.0.2.4")) < 25


def test_a_rule_of_another_name_begins_to_count_anew(rules):
    once = {"resource": "newOrder", "do": "drop", "first": 1}
    read = rules({**once, "name": "a"})
    assert [len(read.apply(asked())) for _time in "12"] == [1, 0]
    assert [len(rules({**once, "name": "b"}).apply(asked())) for _time in "12"] == [1, 0]


def test_the_first_rule_is_followed_and_every_merge(rules):
    read = rules(
        {"resource": "*", "do": "merge", "json": {"a": 1}}, {"resource": "*", "do": "hang", "seconds": 1}, {"resource": "*", "do": "drop"}, {"resource": "*", "do": "merge", "json": {"b": 1}}
    )
    assert [rule["do"] for rule in read.apply(asked())] == ["hang", "merge", "merge"]


class Upstream(http.server.BaseHTTPRequestHandler):
    """Stands for Pebble, and says which Host it was asked as."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        posted = self.rfile.read(length).decode()
        bodies = {"/dir": DIRECTORY, "/certZ/1": "x" * 100}
        body = json.dumps(bodies.get(self.path, {"host": self.headers["Host"], "posted": posted})).encode()
        self.send_response(201)
        self.send_header("Replay-Nonce", "a-nonce")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of an ACME server, with a certificate of its own."""
    folder = tmp_path_factory.mktemp("acme")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "server.key", "-out", folder / "server.pem"],
        check=True,
        capture_output=True,
    )
    (folder / "ca.pem").write_bytes((folder / "server.pem").read_bytes())
    return folder


@pytest.fixture(scope="module")
def proxy(folder):
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    upstream.socket = context.wrap_socket(upstream.socket, server_side=True)
    pebble = acme_proxy.Pebble(upstream.server_address[1], folder / "ca.pem")
    proxy = acme_proxy.Proxy(0, pebble, acme_proxy.Rules(folder / "rules.json"), folder / "requests.jsonl", folder / "server.pem", folder / "server.key")
    for server in (upstream, proxy):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield proxy
    for server in (proxy, upstream):
        server.shutdown()
        server.server_close()


@pytest.fixture
def ask(proxy, folder):
    """Ask the proxy under some rules: the status, the headers and the body of the answer."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")

    def ask(path, *rules, body=None, method=None):
        set_rules(folder, *rules)
        connection = http.client.HTTPSConnection("localhost", proxy.server_address[1], timeout=10, context=context)
        try:
            connection.request(method or ("POST" if body else "GET"), path, body, {"Host": "acme:14443"})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    (folder / "requests.jsonl").write_text("")
    return ask


@pytest.fixture
def noted(folder):
    return lambda: [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]


def test_a_request_goes_through_as_it_came_and_is_noted(ask, noted, proxy):
    body = jws({"identifiers": [], "profile": "shortlived"})
    status, headers, answer = ask("/order-plz", body=body)
    assert (status, headers["Replay-Nonce"]) == (201, "a-nonce")
    assert json.loads(answer) == {"host": "acme:14443", "posted": body.decode()}
    (request,) = noted()
    assert time.time() - request.pop("time") < 10
    assert request == {
        "client": "127.0.0.1",
        "port": proxy.server_address[1],
        "method": "POST",
        "path": "/order-plz",
        "resource": "newOrder",
        "kid": ACCOUNT,
        "payload": {"identifiers": [], "profile": "shortlived"},
        "fault": None,
    }


def test_a_head_request_has_no_body(ask):
    status, headers, body = ask("/nonce-plz", method="HEAD")
    assert (status, headers["Replay-Nonce"], body) == (201, "a-nonce", b"")


@pytest.mark.parametrize(
    ("rule", "status", "document", "retry_after"),
    [
        ({"type": "rateLimited", "detail": "enough", "retry_after": 3600}, 429, {"type": "rateLimited", "detail": "enough"}, "3600"),
        ({"type": "badNonce"}, 400, {"type": "badNonce", "detail": "JWS has an invalid anti-replay nonce"}, None),
        ({"type": "accountDoesNotExist"}, 400, {"type": "accountDoesNotExist", "detail": "Account not found"}, None),
        ({"type": "serverInternal", "status": 503}, 503, {"type": "serverInternal", "detail": "The server experienced an internal error"}, None),
    ],
)
def test_a_problem_is_told_as_rfc_8555_says(ask, noted, rule, status, document, retry_after):
    told, headers, body = ask("/order-plz", {"resource": "newOrder", "do": "problem", **rule}, body=jws({}))
    assert (told, headers["Retry-After"], headers["Content-Type"]) == (status, retry_after, "application/problem+json")
    # A client may go on with what it is given here, although Pebble has not seen its request.
    assert headers["Replay-Nonce"] == "a-nonce"
    assert json.loads(body) == {**document, "type": f"urn:ietf:params:acme:error:{document['type']}", "status": status}
    assert [request["fault"] for request in noted()] == ["problem"]


def test_a_dropped_connection_gets_nothing(ask):
    with pytest.raises(http.client.RemoteDisconnected):
        ask("/dir", {"resource": "directory", "do": "drop"})


def test_a_body_is_cut_in_half(ask):
    _status, headers, body = ask("/certZ/1", {"resource": "cert", "do": "truncate"}, body=jws(None))
    assert (headers["Content-Length"], len(body)) == ("51", 51)


def test_a_body_is_changed(ask):
    rule = {"resource": "directory", "do": "merge", "json": {"meta": {"profiles": {"shortlived": "6 days"}}}}
    _status, _headers, body = ask("/dir", rule)
    assert json.loads(body) == {**DIRECTORY, "meta": {**DIRECTORY["meta"], "profiles": {"shortlived": "6 days"}}}


def test_a_hanging_request_is_noted_at_once_and_goes_on_when_the_rule_is_gone(ask, noted, folder):
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(ask("/dir", {"resource": "directory", "do": "hang", "seconds": 60})))
    waiting.start()
    deadline = time.monotonic() + 10
    while not noted() and time.monotonic() < deadline:
        time.sleep(0.01)  # between two looks at a file
    assert [request["fault"] for request in noted()] == ["hang"] and not answers
    set_rules(folder)
    waiting.join(10)
    assert [status for status, _headers, _body in answers] == [201]


def test_a_request_that_hangs_for_its_time_goes_on(ask):
    began = time.monotonic()
    assert ask("/dir", {"resource": "directory", "do": "hang", "seconds": 0.3})[0] == 201
    assert 0.3 <= time.monotonic() - began < 5


def test_a_pebble_that_is_away_is_a_connection_that_breaks(folder):
    proxy = acme_proxy.Proxy(0, acme_proxy.Pebble(1, folder / "ca.pem"), acme_proxy.Rules(folder / "none"), folder / "requests.jsonl", folder / "server.pem", folder / "server.key")
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    connection = http.client.HTTPSConnection("localhost", proxy.server_address[1], timeout=10, context=context)
    try:
        with pytest.raises(http.client.RemoteDisconnected):
            connection.request("GET", "/dir")
            connection.getresponse()
    finally:
        connection.close()
        proxy.shutdown()
        proxy.server_close()
