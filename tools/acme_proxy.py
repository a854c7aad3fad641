#!/usr/bin/env python3
"""A proxy in front of an ACME server that has bad days, on demand.

It stands between certbot and Pebble, tells each request to a log, and does to those that a rule names what a CA, or the
network before it, does now and then: a rate limit, an outage, a refused nonce, a connection that is dropped. Pebble
makes its URLs from the Host header, which is passed on, so that a client comes back through the proxy.

The rules are a JSON file, read anew for each request. It is a list, and the first rule that fits is followed:

    [{"resource": "newOrder", "names": "shop.*", "problem": {"status": 429, "type": "rateLimited", "retry_after": 60}},
     {"resource": "renewalInfo", "merge": {"suggestedWindow": {"start": "...", "end": "..."}}}]

What a rule fits, each key being optional:

    resource   what is asked for, or a list of it: directory, newNonce, newAccount, account, newOrder, order, authz,
               challenge, finalize, cert, renewalInfo, revokeCert, keyChange
    port       the port of the proxy that was asked
    client     the address that asks
    names      a pattern of a host name; one of the order that the request belongs to has to fit
    after      that many requests that fit are passed on first
    every      of those that follow, only each so-manieth
    count      at most so many

And what is then done, one of:

    problem    answer with a problem document: {"status", "type" (without its urn), "detail", "retry_after"}
    drop       close the connection without a word
    hang       keep the client waiting for so many seconds, MOST_SECONDS at most, and close then
    keep       pass on only so many bytes of the answer, as if it ended there
    replace    answer with this JSON instead of what the server says
    merge      put this JSON into the server's own; null takes a key out
    refuse     accept no connection on the port at all; the other keys but `port` have no meaning then

The log has a JSON object in each line, written before the request is acted upon: time, port, client, method, path,
resource, names, rule (which one was followed, from 0, or null), and for newAccount and newOrder the payload.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import fnmatch
import http.client
import http.server
import json
import re
import select
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

MOST_SECONDS = 120
PATIENCE = 30  # seconds, for the server behind
MOST_BYTES = 1_000_000
BETWEEN_LOOKS = 0.1  # seconds

_RESOURCES = [
    (re.compile(pattern), resource)
    for pattern, resource in (
        (r"/dir$", "directory"),
        (r"/nonce-plz$", "newNonce"),
        (r"/sign-me-up$", "newAccount"),
        (r"/my-account/", "account"),
        (r"/order-plz$", "newOrder"),
        (r"/my-order/", "order"),
        (r"/authZ/", "authz"),
        (r"/chalZ/", "challenge"),
        (r"/finalize-order/", "finalize"),
        (r"/certZ/", "cert"),
        (r"/.*/?renewalInfo/", "renewalInfo"),
        (r"/revoke-cert$", "revokeCert"),
        (r"/rollover-account-key$", "keyChange"),
    )
]
"""Pebble's paths."""

_WITH_PAYLOAD = ("newAccount", "newOrder")
_ACTIONS = ("problem", "drop", "hang", "keep", "replace", "merge", "refuse")
_NOT_PASSED_ON = ("connection", "content-length", "keep-alive", "transfer-encoding", "date", "server")


class RuleError(Exception):
    """The file of rules says something that means nothing."""


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    port: int
    client: str
    method: str
    path: str
    resource: str
    names: tuple[str, ...] = ()


@dataclass
class Reply:
    """What it is answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def resource_of(path: str) -> str:
    """Say which resource of ACME (RFC 8555, section 7.1) a path of Pebble is."""
    return next((resource for pattern, resource in _RESOURCES if pattern.match(path)), "other")


def payload_of(body: bytes) -> Any:
    """Return what a JWS carries (RFC 7515, section 7.2.2); None where it carries nothing, or is none."""
    try:
        payload = json.loads(body)["payload"]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None


class Rules:
    """The rules as the file has them now, and how often each was met. A file that is changed begins to count anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._text = ""
        self._rules: list[dict[str, Any]] = []
        self._met: Counter[int] = Counter()

    def followed(self, request: Request) -> tuple[int, dict[str, Any]] | None:
        """Return the rule to follow, with its number.

        :raises RuleError: where the file is not to be understood.
        """
        with self._lock:
            self._read()
            for number, rule in enumerate(self._rules):
                if "refuse" not in rule and _fits(rule, request):
                    self._met[number] += 1
                    if _has_its_turn(rule, self._met[number]):
                        return number, rule
        return None

    def refuses(self, port: int) -> bool:
        """Say whether a port is to be closed."""
        with self._lock:
            try:
                self._read()
            except RuleError:
                return False
            return any("refuse" in rule and rule.get("port", port) == port for rule in self._rules)

    def _read(self) -> None:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            text = ""
        if text == self._text:
            return
        try:
            rules = json.loads(text or "[]")
        except ValueError as error:
            raise RuleError(f"{self._path}: {error}") from None
        for rule in rules:
            if sum(action in rule for action in _ACTIONS) != 1:
                raise RuleError(f"{self._path}: one of {', '.join(_ACTIONS)} is needed in {rule}")
        self._text, self._rules, self._met = text, rules, Counter()


def _fits(rule: Mapping[str, Any], request: Request) -> bool:
    resources = rule.get("resource", request.resource)
    names = rule.get("names")
    return (
        request.resource in ([resources] if isinstance(resources, str) else resources)
        and rule.get("port", request.port) == request.port
        and rule.get("client", request.client) == request.client
        and (names is None or any(fnmatch.fnmatchcase(name, names) for name in request.names))
    )


def _has_its_turn(rule: Mapping[str, Any], met: int) -> bool:
    """Say whether the rule is followed when it is met for the so-manieth time, from 1."""
    past = met - rule.get("after", 0)
    every = rule.get("every", 1)
    return past > 0 and past % every == 0 and past // every <= rule.get("count", past)


class Orders:
    """Which host names a path belongs to, as the server's answers told."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, ...]] = {}

    def of(self, path: str) -> tuple[str, ...]:
        return self._names.get(path, ())

    def learn(self, request: Request, reply: Reply) -> None:
        """Remember the URLs in an order or an authorization (RFC 8555, sections 7.1.3 and 7.1.4)."""
        if request.resource not in ("newOrder", "order", "finalize", "authz"):
            return
        try:
            said = json.loads(reply.body)
        except ValueError:
            return
        if request.resource == "authz":
            names = (said.get("identifier", {}).get("value", ""),)
            urls = [each["url"] for each in said.get("challenges", ())]
        else:
            names = names_in(said)
            urls = [*said.get("authorizations", ()), *(said[key] for key in ("finalize", "certificate") if key in said)]
            urls += [value for key, value in reply.headers if key.lower() == "location"]
        if any(names):
            self._names.update({_path_of(url): names for url in urls})


def names_in(order: Any) -> tuple[str, ...]:
    """Return the host names of an order."""
    identifiers = order.get("identifiers", ()) if isinstance(order, dict) else ()
    return tuple(each["value"] for each in identifiers)


def _path_of(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]


@dataclass
class Proxy:
    """Everything that the handlers share."""

    rules: Rules
    log: Path
    context: ssl.SSLContext
    upstream: ssl.SSLContext
    orders: Orders = field(default_factory=Orders)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, request: Request, rule: int | None, payload: Any) -> None:
        """Add a request to the log."""
        line = {"time": time.time(), **vars(request), "rule": rule}
        if request.resource in _WITH_PAYLOAD:
            line["payload"] = payload
        with self._lock, self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")


class Server(http.server.ThreadingHTTPServer):
    """The proxy on one of its ports."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: Proxy, address: tuple[str, int], target: int) -> None:
        super().__init__(address, Handler)
        self.proxy, self.target = proxy, target
        # How long handle_request() waits at most for a client.
        self.timeout = BETWEEN_LOOKS

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, client = super().get_request()
        # The handshake is left to the thread of the connection: a client that is slow at it holds up nobody else.
        return self.proxy.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), client

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of what is tried out, and of no interest."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes requests on, or does what a rule says."""

    protocol_version = "HTTP/1.1"
    timeout = MOST_SECONDS
    server: Server

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET

    def log_message(self, *_arguments: Any) -> None:
        """The log is written by Proxy.tell()."""

    def _answer(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MOST_BYTES))
        payload = payload_of(body)
        path = self.path.partition("?")[0]
        resource = resource_of(path)
        names = names_in(payload) if resource == "newOrder" else proxy.orders.of(path)
        request = Request(self.server.server_address[1], self.client_address[0], self.command, path, resource, names)
        try:
            number, rule = proxy.rules.followed(request) or (None, {})
        except RuleError as error:
            number, rule = None, {"problem": {"status": 500, "type": "serverInternal", "detail": str(error)}}
        proxy.tell(request, number, payload)
        if "drop" in rule:
            self.close_connection = True
        elif "hang" in rule:
            self._hang(min(rule["hang"], MOST_SECONDS))
        elif "problem" in rule:
            self._send(self._problem(**rule["problem"]))
        else:
            reply = self._ask(self.command, self.path, body)
            proxy.orders.learn(request, reply)
            self._send(changed(reply, rule))

    def _hang(self, seconds: float) -> None:
        """Say nothing until the time is over or the client has had enough."""
        self.close_connection = True
        select.select([self.connection], [], [], seconds)

    def _problem(self, status: int, type: str, detail: str = "", retry_after: int | str | None = None) -> Reply:
        """Make an error as a CA tells it (RFC 8555, section 6.7), with a nonce of the server's own."""
        headers = [("Content-Type", "application/problem+json")]
        if self.command == "POST":
            headers += [each for each in self._ask("HEAD", "/nonce-plz", b"").headers if each[0].lower() == "replay-nonce"]
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        said = {"type": f"urn:ietf:params:acme:error:{type}", "detail": detail, "status": status}
        return Reply(status, headers, json.dumps(said).encode())

    def _ask(self, method: str, path: str, body: bytes) -> Reply:
        """Ask the server behind."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.server.target, timeout=PATIENCE, context=self.server.proxy.upstream)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in (*_NOT_PASSED_ON, "accept-encoding")}
        try:
            connection.request(method, path, body or None, headers)
            reply = connection.getresponse()
            return Reply(reply.status, [each for each in reply.getheaders() if each[0].lower() not in _NOT_PASSED_ON], reply.read())
        except (OSError, http.client.HTTPException) as error:
            return Reply(HTTPStatus.BAD_GATEWAY, [("Content-Type", "text/plain")], f"{type(error).__name__}: {error}\n".encode())
        finally:
            connection.close()

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for key, value in reply.headers:
            self.send_header(key, value)
        if reply.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)


def changed(reply: Reply, rule: Mapping[str, Any]) -> Reply:
    """Return a reply as a rule wants it."""
    if "keep" in rule:
        return Reply(reply.status, reply.headers, reply.body[: rule["keep"]])
    if "replace" in rule:
        return Reply(reply.status, reply.headers, json.dumps(rule["replace"]).encode())
    if "merge" in rule:
        try:
            said = json.loads(reply.body)
        except ValueError:
            return reply  # not what the rule was meant for, such as an error of another kind
        return Reply(reply.status, reply.headers, json.dumps(merged(said, rule["merge"])).encode())
    return reply


def merged(said: Any, more: Any) -> Any:
    """Return JSON with more of it merged into it (RFC 7396)."""
    if not isinstance(more, dict):
        return more
    result = dict(said) if isinstance(said, dict) else {}
    for key, value in more.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def serve(proxy: Proxy, address: tuple[str, int], target: int, over: threading.Event) -> None:
    """Serve one port until it is over, but for the times when a rule wants it closed."""
    server: Server | None = None
    while not over.is_set():
        if proxy.rules.refuses(address[1]):
            if server is not None:
                server.server_close()
                server = None
            over.wait(BETWEEN_LOOKS)  # nothing tells when somebody writes the file of rules
        elif server is None:
            server = Server(proxy, address, target)
        else:
            server.handle_request()
    if server is not None:
        server.server_close()


def contexts(certificate: Path, key: Path, ca: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return how clients are met, and how the server behind is."""
    inward = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inward.load_cert_chain(certificate, key)
    return inward, ssl.create_default_context(cafile=str(ca))


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where server.pem, server.key and ca.pem are, and rules.json and requests.jsonl will be")
    parser.add_argument("ports", nargs="+", metavar="PORT:TARGET", help="a port to listen on, and that of the server behind")
    given = parser.parse_args(list(arguments))
    folder: Path = given.folder
    inward, outward = contexts(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    proxy = Proxy(Rules(folder / "rules.json"), folder / "requests.jsonl", inward, outward)
    over = threading.Event()
    threads = []
    for pair in given.ports:
        port, target = map(int, pair.split(":"))
        threads.append(threading.Thread(target=serve, args=(proxy, ("0.0.0.0", port), target, over), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
