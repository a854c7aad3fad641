# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a CA will see of this host, looked at from here before an order is spent.

A CA counts failures, and soon takes no more orders for a name. So a challenge of our own is asked for as the CA asks for its own
(RFC 8555, section 8.3), at every address that a name has, and the DNS is asked who may issue (RFC 8659).
What cannot be known from here is not held against a name.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import http.client
import json
import os
import queue
import re
import secrets
import socket
import ssl
import threading
import time
import typing as t
import urllib.parse
import urllib.request
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

SECONDS = 10
"""What all that is asked for all the names has together."""
PATIENCE = 4
"""How many seconds one connection may take, and then its answer: a lost packet is sent again after one second and after three."""
SECONDS_FOR_DNS = 3

CHALLENGES = "/.well-known/acme-challenge/"

_AT_ONCE = 64
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 307, 308)
"""Those that a CA may follow (CA/Browser Forum, Baseline Requirements, section 3.2.2.4.19)."""
_MOST_BYTES = 64 * 1024
_MOST_BYTES_OF_A_DIRECTORY = 1024 * 1024
_WORDS = 60
"""How many characters of a strange answer are worth repeating."""

_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN, errno.EACCES, errno.EPERM, errno.EINVAL)
"""What the kernel says of an address that it knows no way to."""
_NO_SUCH_NAME = tuple(getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name))

_CRITICAL = 128
_KNOWN_TAGS = ("issue", "issuewild", "iodef", "issuemail")

_K = t.TypeVar("_K", bound=Hashable)
_R = t.TypeVar("_R")


class PreflightError(Exception):
    """Why a CA would refuse a name, in words for the person."""


# ---- the two questions


def check(
    domains: Sequence[str],
    *,
    webroot: str,
    caa_identities: Sequence[str],
    http: bool = True,
    port: int = 80,
    https_port: int = 443,
    seconds: float = SECONDS,
    patience: float = PATIENCE,
) -> dict[str, str]:
    """Return for each name that the CA would refuse why, and what to do; nothing for the others.

    :param domains: a wildcard is only asked for in the DNS.
    :param webroot: the folder in which nginx finds challenges.
    :param caa_identities: the names under which the CA looks for itself in the DNS (C(caaIdentities) of its directory); without one the DNS is not asked.
    :param http: whether the CA will ask this host.
    :param port: where it asks first.
    :param https_port: where a redirect to https may lead.
    :param seconds: what all of it has together.
    :param patience: what one connection has, and then its answer.
    """
    jobs: dict[tuple[str, str], Callable[[], str | None]] = {}
    visits: dict[str, _Visit] = {}
    with contextlib.ExitStack() as stack:
        try:
            by_http = [domain for domain in domains if http and not domain.startswith("*.")]
            challenge = stack.enter_context(_challenge(webroot)) if by_http else None
        except OSError as error:
            return {domain: f"The challenge of {domain} cannot be put into {webroot} ({error.strerror}): see to it that this host can write there." for domain in by_http}
        for domain in by_http if challenge else []:
            visits[domain] = _Visit(domain, challenge, port, https_port, patience)
            jobs[domain, "http"] = visits[domain].look
        resolver = _resolver() if caa_identities else None
        for domain in domains if resolver else []:
            jobs[domain, "caa"] = functools.partial(_forbidden, domain, caa_identities, resolver)
        found = _side_by_side(jobs, seconds)
    wrong = {}
    for domain in dict.fromkeys(domains):
        said = [found[domain, question] for question in ("http", "caa") if found.get((domain, question))]
        if (domain, "http") not in found and domain in visits:
            said.insert(0, visits[domain].unfinished(seconds))
        if any(said):
            wrong[domain] = " ".join(filter(None, said))
    return wrong


def directory(url: str, cafile: str | Callable[[], contextlib.AbstractContextManager[str]] | None, seconds: float = SECONDS) -> dict[str, t.Any]:
    """Return what an ACME server says of itself (RFC 8555, section 7.1.1), or nothing where it does not: the order will tell.

    :param cafile: a file with the CAs to trust, or what makes one for a while; without one those of the system.
    """

    def fetch() -> dict[str, t.Any]:
        # The server's answers and the network's moods are too many to name. None of them is told here.
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException), _made(cafile) as path:
            context = ssl.create_default_context(cafile=path)
            # certbot is not stricter, and what it can use must be of use here.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            with urllib.request.urlopen(url, timeout=seconds, context=context) as answer:
                content = json.loads(answer.read(_MOST_BYTES_OF_A_DIRECTORY))
            return content if isinstance(content, dict) else {}
        return {}

    if not url.startswith("https://"):
        return {}
    return _side_by_side({url: fetch}, seconds).get(url, {})


def _made(cafile: str | Callable[[], contextlib.AbstractContextManager[str]] | None) -> contextlib.AbstractContextManager[str | None]:
    return cafile() if callable(cafile) else contextlib.nullcontext(cafile)


def _side_by_side(jobs: Mapping[_K, Callable[[], _R]], seconds: float) -> dict[_K, _R]:
    """Do all jobs at the same time, and return what came of those that ended within the time.

    The threads are daemons: a look-up that hangs cannot be stopped, and must hold up neither the others nor the end of the process.
    """
    futures: dict[_K, concurrent.futures.Future[_R]] = {key: concurrent.futures.Future() for key in jobs}
    waiting: queue.SimpleQueue[_K] = queue.SimpleQueue()
    for key in jobs:
        waiting.put(key)

    def work() -> None:
        while True:
            try:
                key = waiting.get_nowait()
            except queue.Empty:
                return
            if not futures[key].set_running_or_notify_cancel():
                continue
            try:
                futures[key].set_result(jobs[key]())
            # Whatever it is, it belongs to who asks for the result.
            except BaseException as error:  # noqa: BLE001
                futures[key].set_exception(error)

    for _ in range(min(len(jobs), _AT_ONCE)):
        threading.Thread(target=work, daemon=True).start()
    done, late = concurrent.futures.wait(futures.values(), timeout=seconds)
    for future in late:
        future.cancel()
    return {key: future.result() for key, future in futures.items() if future in done}


# ---- the challenge


@dataclass(frozen=True)
class _Challenge:
    token: str
    content: str


@contextlib.contextmanager
def _challenge(webroot: str) -> Iterator[_Challenge]:
    """Put a challenge of our own where the CA's would be, and take it away again with every folder that it needed."""
    challenge = _Challenge(secrets.token_urlsafe(32), secrets.token_urlsafe(64))
    folder = webroot + CHALLENGES.rstrip("/")
    path = f"{folder}/{challenge.token}"
    made = []
    try:
        for each in _missing(folder):
            os.mkdir(each)
            made.append(each)
            # nginx's workers must get through, whatever the umask is.
            os.chmod(each, 0o755)
        with open(path, "x", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(challenge.content)
        yield challenge
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        # A folder that something else is in by now is no longer ours.
        with contextlib.suppress(OSError):
            for each in reversed(made):
                os.rmdir(each)


def _missing(folder: str) -> list[str]:
    """Return the folders that are to be made, the outermost first."""
    missing: list[str] = []
    while not os.path.isdir(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    return missing


# ---- addresses


@dataclass(frozen=True)
class _Place:
    """One address of a name, as the system's calls want it."""

    family: int
    where: tuple[t.Any, ...]

    @property
    def address(self) -> str:
        return str(self.where[0])

    def is_routed(self) -> bool:
        """Whether this host knows a way there. To connect a UDP socket asks the kernel and sends nothing."""
        try:
            with socket.socket(self.family, socket.SOCK_DGRAM) as sock:
                sock.connect(self._at(80))
        except OSError as error:
            return error.errno not in _NO_ROUTE
        return True

    def is_here(self) -> bool:
        """Whether the address is one of this host's own."""
        try:
            with socket.socket(self.family, socket.SOCK_DGRAM) as sock:
                sock.bind(self._at(0))
        except OSError:
            return False
        return True

    def connect(self, port: int, patience: float) -> socket.socket:
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(patience)
            sock.connect(self._at(port))
        except OSError:
            sock.close()
            raise
        return sock

    def _at(self, port: int) -> tuple[t.Any, ...]:
        return (self.where[0], port, *self.where[2:])


def _places(name: str) -> list[_Place]:
    """Return every address that a name has."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise PreflightError(f"{name} does not resolve: it is no name that the DNS can have.") from error
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            raise PreflightError(f"{name} does not resolve: give it an A or AAAA record that leads to this host.") from error
        raise PreflightError(_no_dns(name, error.strerror)) from error
    return list(dict.fromkeys(_Place(family, where) for family, _kind, _protocol, _name, where in found))


def _no_dns(name: str, why: str) -> str:
    return f"The DNS says nothing about {name} ({why}): see whether the servers of its zone answer, and the resolver in this host's /etc/resolv.conf."


# ---- asking as the CA asks


@dataclass(frozen=True)
class _Answer:
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        said = [_words(f"{self.status} {self.reason}")]
        if self.headers.get("Server"):
            said.append(f"Server: {_words(self.headers['Server'])}")
        words = _words(self._text())
        return ", ".join([*said, f'"{words}"'] if words else said)

    def _text(self) -> str:
        kind = self.headers.get("Content-Type", "text/plain").lower()
        if not kind.startswith(("text/", "application/json", "application/problem+json")):
            return ""
        text = self.body.decode(errors="replace")
        return re.sub(r"(?is)<(script|style)\b.*?</\1>|<!--.*?-->|<[^>]*>", " ", text) if "html" in kind or "xml" in kind else text


def _words(text: str) -> str:
    """Return the first words of a stranger's text, harmless for a terminal."""
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return words if len(words) <= _WORDS else words[:_WORDS].rstrip() + "..."


class _Connection(http.client.HTTPConnection):
    """A connection to one address of a name, whatever others the name has."""

    def __init__(self, place: _Place, host: str, port: int, encrypted: bool, patience: float) -> None:
        super().__init__(host, port, timeout=patience)
        self.place, self.encrypted, self.patience = place, encrypted, patience

    def connect(self) -> None:
        self.sock = self.place.connect(self.port, self.patience)

    def encrypt(self) -> None:
        if not self.encrypted:
            return
        context = ssl.create_default_context()
        # As the CA does: the certificate is what is still to be had.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


@dataclass
class _Visit:
    """The CA's visit to one name, as far as it has come."""

    name: str
    challenge: _Challenge
    port: int
    https_port: int
    patience: float
    place: _Place | None = None

    def look(self) -> str | None:
        """Return why the CA would not find its challenge: at the first address that is wrong, for the CA may choose any."""
        try:
            places = _places(self.name)
            routed = [place for place in places if place.is_routed()]
            if not routed:
                raise PreflightError(
                    f"{self.name} leads to {_listed([place.address for place in places])}, to which this host has no route: "
                    "give the name an address at which this host is reached."
                )
            for place in routed:
                self.place = place
                self._ask()
        except PreflightError as error:
            return str(error)
        return None

    def unfinished(self, seconds: float) -> str | None:
        """Return what the visit was waiting for when the time was over; nothing if it had not begun."""
        return None

    def _ask(self) -> None:
        url = f"http://{self._host(self.port)}{CHALLENGES}{self.challenge.token}"
        place, seen = self.place, [url]
        while True:
            answer = self._get(place, url, redirected=len(seen) > 1)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                break
            # What a browser would make of it: a relative address, and letters that an address cannot have.
            url = urllib.parse.urldefrag(urllib.parse.urljoin(url, urllib.parse.quote(location.strip(), safe="%/:=&?~#+!$,;'@()*[]"))).url
            self._may_follow(url, seen)
            place = self._next(url)
            seen.append(url)
        if answer.status != 200 or answer.body.rstrip() != self.challenge.content.encode():
            raise PreflightError(self._something_else(str(answer), seen))
