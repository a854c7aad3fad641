"""A load of requests on one server, to see whether anything is lost while something happens to it.

with Load(address, ["https://shop.example.test/"]) as load:
    ...  # requests flow from before this line until after the last
assert not load.report.lost

nginx closes idle keep-alive connections when it reloads, and a client may meet that at its next request: every
HTTP client asks again then (RFC 9112, section 9.3.1), so it is counted apart and is no loss.
"""

from __future__ import annotations

import http.client
import itertools
import math
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from visitor import Answer

_AWAY = re.compile(r": (ConnectionRefusedError|ConnectionResetError|RemoteDisconnected): ")
_AT_ONCE = 12
_MOST_REQUESTS = 200_000
_LONGEST_LOAD = 900  # seconds
_MOST_LOST_TO_A_START = 600  # requests, which is what is asked in five seconds: a start takes less
_UNTIL_IT_FLOWS = 15  # seconds


class LoadError(Exception):
    """The load itself could not be put on, so it says nothing about the server."""


@dataclass
class Report:
    """What became of the requests.

    `answers` counts complete answers by URL, status and label. `lost` has a line for each request that got no
    complete answer, or one of 500 and above, on a new connection or after the answer had begun. `closed_idle` counts
    kept connections that were found closed before the next answer's first byte. `longest` is in seconds, and so are
    the `times` of the answers by URL.
    """

    answers: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    closed_idle: int = 0
    longest: float = 0.0
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list), repr=False)

    @property
    def requests(self) -> int:
        """Requests that got an answer or were lost; those of 500 and above are both."""
        return self.answers.total() + sum(not line.startswith("5") for line in self.lost)

    @property
    def harmed(self) -> list[str]:
        """Those of `lost` who met more than a port where nobody listened for a moment, as while nginx is started anew: all, if it was no moment."""
        harmed = [line for line in self.lost if not _AWAY.search(line)]
        return harmed if len(self.lost) - len(harmed) <= _MOST_LOST_TO_A_START else self.lost

    @property
    def statuses(self) -> Counter[int]:
        return self._by(1)

    @property
    def labels(self) -> Counter[str]:
        return self._by(2)

    def labels_of(self, url: str) -> Counter[str]:
        return Counter({label: count for (each, _status, label), count in self.answers.items() if each == url})

    def p99(self, url: str) -> float:
        """Return the seconds within which 99 of 100 answers of a URL were there."""
        times = sorted(self.times[url])
        return times[math.ceil(len(times) * 0.99) - 1]

    def _by(self, part: int) -> Counter[Any]:
        counted: Counter[Any] = Counter()
        for key, count in self.answers.items():
            counted[key[part]] += count
        return counted

    def __str__(self) -> str:
        lines = [f"{self.requests} requests, {len(self.lost)} lost, {self.closed_idle} closed idle, longest {self.longest:.3f} s"]
        lines += [f"p99 {self.p99(url):.3f} s {url}" for url in sorted(self.times)]
        lines += [f"{count} x {status} {label} {url}" for (url, status, label), count in sorted(self.answers.items())]
        return "\n".join(lines + self.lost[:20])


class Load:
    """Clients that ask through `address` from entering the context until leaving it.

    :param urls: asked in turn by each client. The name in one goes into Host and SNI. One after "POST " is sent a form, and counted
        apart from the reads of the same URL.
    :param ca: a PEM file, the only CAs to trust; None where the certificate is not what is looked at.
    :param label: says what kind of answer a reply is, so that old content can be told from new.
    :param clients: half of them keep their connections, the others open one for each request.
    :param pause: seconds between two requests of a client: the load is to notice, not to weigh.
    :param timeout: seconds without a byte after which a request is lost.
    """

    def __init__(
        self,
        address: str,
        urls: Sequence[str],
        *,
        ca: str | None = None,
        label: Callable[[Answer], str] = lambda reply: str(reply.status),
        clients: int = _AT_ONCE,
        pause: float = 0.1,  # twelve clients then ask some hundred times in a second
        timeout: float = 10,
    ) -> None:
        self.report = Report()
        self._address, self._urls, self._label = address, list(urls), label
        self._pause, self._timeout = pause, timeout
        self._context = ssl.create_default_context(cafile=ca)
        if ca is None:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._trouble: BaseException | None = None
        self._deadline = 0.0
        self._clients = [_Client(self, number) for number in range(clients)]

    def __enter__(self) -> Load:
        self._deadline = time.monotonic() + _LONGEST_LOAD
        for client in self._clients:
            client.start()
        try:
            self.wait_for_round()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            if kind is None:
                # What the body did last must have been met by every client too.
                self.wait_for_round()
        finally:
            self._stop()

    def wait_for_round(self) -> None:
        """Wait until every client has asked each URL anew and knows what became of it.

        :raises LoadError: when the clients ended before, so that what followed went unseen.
        """
        with self._changed:
            goals = [(client, client.done + len(self._urls) + 1) for client in self._clients]
            patience = _UNTIL_IT_FLOWS + self._timeout * (len(self._urls) + 1)
            reached = self._changed.wait_for(lambda: self._trouble or all(client.done >= goal for client, goal in goals), patience)
        if self._trouble is not None:
            raise LoadError(f"the load ended before its time: {self._trouble}") from self._trouble
        if not reached:
            raise LoadError(f"the load does not flow:\n{self.report}")

    def wait_for_label(self, label: str, timeout: float = 10) -> bool:
        """Wait until an answer of this kind has come, and say whether one did."""
        with self._changed:
            return self._changed.wait_for(lambda: self.report.labels[label] > 0, timeout)

    def _stop(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def _count(self, client: _Client, *, reply: Answer | None = None, lost: str = "", closed_idle: bool = False, took: float) -> None:
        label = self._label(reply) if reply else ""
        with self._changed:
            if reply:
                self.report.answers[reply.url, reply.status, label] += 1
                self.report.times[reply.url].append(took)
            if lost:
                self.report.lost.append(lost)
            self.report.closed_idle += closed_idle
            self.report.longest = max(self.report.longest, took)
            client.done += not closed_idle
            if self.report.requests > _MOST_REQUESTS or time.monotonic() > self._deadline:
                raise LoadError(f"it is bounded to {_MOST_REQUESTS} requests and {_LONGEST_LOAD} s")
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._trouble = self._trouble or error
            self._over.set()
            self._changed.notify_all()


class _Client(threading.Thread):
    def __init__(self, load: Load, number: int) -> None:
        super().__init__(name=f"load-{number}", daemon=True)
        self.done = 0
        self._load = load
        self._keeps = number % 2 == 1
        self._kept: dict[tuple[str, str], http.client.HTTPConnection] = {}
        turn = number // 2 % len(load._urls)
        self._urls: Iterator[str] = itertools.cycle(load._urls[turn:] + load._urls[:turn])

    def run(self) -> None:
        try:
            while not self._load._over.wait(self._load._pause):
                self._ask(next(self._urls))
        except BaseException as error:
            # A thread's exception would end it unseen, and the report would look better than it is.
            self._load._fail(error)
        finally:
            for connection in self._kept.values():
                connection.close()

    def _ask(self, url: str) -> None:
        method, _space, address = url.rpartition(" ")
        parts = urllib.parse.urlsplit(address)
        headers = {} if self._keeps else {"Connection": "close"}
        form = {"body": b"text=hello", "headers": {**headers, "Content-Type": "application/x-www-form-urlencoded"}}
        connection = self._kept.pop((parts.scheme, parts.netloc), None)
        reused = connection is not None
        if connection is None:
            connection = self._connection(parts)
        began = time.monotonic()
        try:
            path = parts._replace(scheme="", netloc="").geturl() or "/"
            connection.request(method or "GET", path, **(form if method else {"headers": headers}))
            answer = connection.getresponse()
            if answer.length is None and not answer.chunked:
                raise http.client.HTTPException("nothing says where the answer ends, so it may be cut")
            reply = Answer(url, answer.status, answer.headers, answer.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            took = time.monotonic() - began
            if reused and not connection.answering and not isinstance(error, TimeoutError):
                self._load._count(self, closed_idle=True, took=took)
                self._ask(url)
                return
            words = str(error) or type(error).__name__
            self._load._count(self, lost=f"{url} on a {'kept' if reused else 'new'} connection after {took:.3f} s: {type(error).__name__}: {words}", took=took)
            return
        took = time.monotonic() - began
        if self._keeps and not answer.will_close:
            self._kept[parts.scheme, parts.netloc] = connection
        else:
            connection.close()
        lost = f"{reply.status} from {url}" if reply.status >= 500 else ""
        self._load._count(self, reply=reply, lost=lost, took=took)

    def _connection(self, parts: urllib.parse.SplitResult) -> _Connection:
        return _Connection(parts, self._load._address, self._load._context, self._load._timeout)


class _Connection(http.client.HTTPConnection):
    """Leads to the load's address, and notices when an answer begins."""

    def __init__(self, parts: urllib.parse.SplitResult, address: str, context: ssl.SSLContext, timeout: float) -> None:
        self._tls = parts.scheme == "https"
        super().__init__(parts.hostname or "", parts.port or (443 if self._tls else 80), timeout=timeout)
        self._name, self._address, self._tls_context = parts.hostname, address, context
        self.default_port = 443 if self._tls else 80
        self.answering = False
        self.response_class = self._response

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), timeout=self.timeout)
        if self._tls:
            self.sock = self._tls_context.wrap_socket(self.sock, server_hostname=self._name)

    def request(self, *args: Any, **kwargs: Any) -> None:
        self.answering = False
        super().request(*args, **kwargs)

    def _response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **kwargs)
        # Returns as soon as there is one byte, and nothing when the server closes instead.
        self.answering = bool(response.fp.peek(1))
        return response
