"""A visitor of a site: asks over HTTP and HTTPS as a browser would, and keeps its cookies.

The names of the sites under test are in no DNS that this machine asks, so a visitor is told the
address. Everything else is for real: the name goes into SNI and Host, and the certificate is
verified for it.
"""

from __future__ import annotations

import html.parser
import http.client
import http.cookiejar
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TIMEOUT = 15  # seconds, for each step of a request


@dataclass(frozen=True)
class Answer:
    """What came back. The certificate is as ssl.SSLSocket.getpeercert() describes it; {} without TLS."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    certificate: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def names(self) -> list[str]:
        """The names in the certificate."""
        return [name for kind, name in self.certificate.get("subjectAltName", ()) if kind == "DNS"]

    def __str__(self) -> str:
        headers = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
        return f"{self.url}\n{self.status}\n{headers}\n{self.body[:2000].decode(errors='replace')}"


class Visitor:
    """Visits through `address`, whatever the name; trusts the CA certificates in `ca` alone (a PEM file)."""

    def __init__(self, address: str, ca: str) -> None:
        self._address = address
        self._context = ssl.create_default_context(cafile=ca)
        self.cookies = http.cookiejar.CookieJar()
        self.last: Answer | None = None
        self._certificate: Mapping[str, Any] = {}
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(self.cookies),
            _NoRedirect(),
            _Handler(self),
        )

    def get(self, url: str, **headers: str) -> Answer:
        return self._ask(urllib.request.Request(url, headers=_header_names(headers)))

    def post(self, url: str, form: Mapping[str, str], **headers: str) -> Answer:
        data = urllib.parse.urlencode(form).encode()
        return self._ask(urllib.request.Request(url, data=data, headers=_header_names(headers)))

    def cookie(self, name: str) -> str | None:
        return next((cookie.value for cookie in self.cookies if cookie.name == name), None)

    def _ask(self, request: urllib.request.Request) -> Answer:
        self._certificate = {}
        try:
            response = self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            response = error  # a status of 300 and above is an answer too
        except urllib.error.URLError as error:
            # urllib's wrapping hides what happened: a refused connection, a certificate of another name.
            raise error.reason if isinstance(error.reason, OSError) else error from None
        with response:
            self.last = Answer(
                request.full_url, response.status, response.headers, response.read(), self._certificate
            )
        return self.last

    def _connect(self, connection: http.client.HTTPConnection) -> socket.socket:
        sock = socket.create_connection((self._address, connection.port), timeout=TIMEOUT)
        if not isinstance(connection, http.client.HTTPSConnection):
            return sock
        tls = self._context.wrap_socket(sock, server_hostname=connection.host)
        self._certificate = tls.getpeercert() or {}
        return tls


class Form(html.parser.HTMLParser):
    """The first form of a page: its address, and its fields with their values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.to_fill: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        if tag == "form" and self.action is None:
            self.action = given.get("action", "")
        elif tag in ("input", "textarea") and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")
            if tag == "textarea" or given.get("type", "text") == "text":
                self.to_fill.append(given["name"])


def _header_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A test wants to see the redirect."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens the connections of both schemes through the visitor."""

    def __init__(self, visitor: Visitor) -> None:
        urllib.request.HTTPSHandler.__init__(self, context=visitor._context)
        self._visitor = visitor

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection(http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection(http.client.HTTPSConnection), request)

    def _connection(self, kind: type[http.client.HTTPConnection]) -> type[http.client.HTTPConnection]:
        visitor = self._visitor

        class Connection(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                self.sock = visitor._connect(self)

        return Connection
