# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a CA will see of a name, looked at from this host before an order is spent.

A CA counts failures. Let's Encrypt stops a name for an hour after five of them, so that a mistake that can be seen from
here should cost none. What cannot be known from here is not held against a name: the CA has the last word.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import queue
import re
import secrets
import socket
import ssl
import string
import threading
import time
import typing as t
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ansible_collections.portico.web.plugins.module_utils import files

CHALLENGES = "/.well-known/acme-challenge"
"""RFC 8555, section 8.3."""

REDIRECTS = 10
"""As many as Let's Encrypt follows: https://letsencrypt.org/docs/challenge-types/."""

SECONDS_FOR_CAA = 3
SECONDS_FOR_THE_DIRECTORY = 10
THREADS = 50
ADDRESSES = 8
"""How many addresses of one name are looked at."""
BYTES = 64 * 1024

# The Baseline Requirements, section 3.2.2.4.19, allow these four, and so not 303.
_REDIRECTIONS = (301, 302, 307, 308)
_USUAL_PORTS = {"http": 80, "https": 443}
# The looks end by themselves when their time is over, and need a moment to say so.
_GRACE = 0.5
_CRITICAL = 128
# RFC 8659, RFC 9495, and the Baseline Requirements, appendix A.
_KNOWN_TAGS = frozenset({"issue", "issuewild", "iodef", "issuemail", "contactemail", "contactphone"})


def check(
    domains: Sequence[str], *, webroot: str, caa_identities: Sequence[str], http: bool = True, port: int = 80, seconds: float = 10
) -> dict[str, str]:
    """Return why the CA would refuse a name, in words that say what to do, for each name that it would refuse.

    :param domains: names, C(*.example.com) too. Of a wildcard only CAA is looked at, for it is never proved by HTTP.
    :param webroot: the folder whose C(/.well-known/acme-challenge/) nginx serves for every name.
    :param caa_identities: by which names the CA goes in CAA records. Without any, CAA is not looked at.
    :param http: whether the names are proved by HTTP.
    :param port: where the CA asks.
    :param seconds: after which there is an answer, whatever hangs.
    """
    names = {domain: _Name(domain, port) for domain in domains}
    by_http = [name for name in names.values() if http and not name.is_wildcard]
    looks = _Looks(seconds)
    resolver = _resolver() if caa_identities else None
    for name in names.values() if resolver else ():
        looks.add(lambda name=name: name.look_at_caa(resolver, caa_identities))
    with contextlib.ExitStack() as stack:
        try:
            token = stack.enter_context(_token(webroot)) if by_http else None
        except OSError as error:
            for name in by_http:
                name.unknown = f"has no challenge to show: {webroot}{CHALLENGES} takes no file ({error.strerror}). See to the disk and its rights."
        else:
            for name in by_http:
                looks.add(lambda name=name: name.look_up(looks, token))
        looks.wait()
    words = {name.domain: name.words() for name in names.values()}
    return {domain: why for domain, why in words.items() if why}


def directory(url: str, trusted: t.Callable[[], t.ContextManager[str]]) -> dict[str, t.Any]:
    """Return an ACME directory (RFC 8555, section 7.1.1), or nothing if it cannot be had: the order itself will say why.

    :param trusted: gives the path of a file with the CAs that verify its server.
    """
    found: dict[str, t.Any] = {}
    try:
        with trusted() as bundle:
            context = ssl.create_default_context(cafile=bundle)
    except OSError:
        return {}

    def fetch() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            request = urllib.request.Request(url, headers={"User-Agent": "portico", "Accept": "application/json"})
            with urllib.request.urlopen(request, timeout=SECONDS_FOR_THE_DIRECTORY, context=context) as answer:
                content = json.loads(answer.read(BYTES))
            if isinstance(content, dict):
                found.update(content, meta=content["meta"] if isinstance(content.get("meta"), dict) else {})

    # A server that answers byte by byte is not bounded by a socket's timeout.
    looks = _Looks(SECONDS_FOR_THE_DIRECTORY)
    looks.add(fetch)
    looks.wait()
    return dict(found)


# ---- looking side by side


class _Looks:
    """Jobs that are done side by side, until their common time is over. One that hangs then is left alone."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._jobs: queue.Queue[t.Callable[[], None] | None] = queue.Queue()
        self._threads = 0
        self._lock = threading.Lock()

    def left(self) -> float:
        """Return the seconds that are left, and never so few that a socket would not wait at all."""
        return max(self._deadline - time.monotonic(), 0.01)

    def add(self, job: t.Callable[[], None]) -> None:
        """Have a job done. It may add others."""
        with self._lock:
            if time.monotonic() > self._deadline:
                return
            self._jobs.put(job)
            if self._threads < THREADS:
                self._threads += 1
                # A daemon, because getaddrinfo cannot be told to stop, and no process should wait for it at its end.
                threading.Thread(target=self._work, daemon=True).start()

    def wait(self) -> None:
        """Wait until all is done or the time is over."""
        with self._jobs.all_tasks_done:
            self._jobs.all_tasks_done.wait_for(lambda: not self._jobs.unfinished_tasks, self.left() + _GRACE)
        with self._lock:
            self._deadline = 0.0
            for _thread in range(self._threads):
                self._jobs.put(None)

    def _work(self) -> None:
        for job in iter(self._jobs.get, None):
            try:
                if time.monotonic() < self._deadline:
                    job()
            finally:
                self._jobs.task_done()


# ---- what is wrong


# Not frozen: Python writes into an exception where it passed.
@dataclass(unsafe_hash=True)
class _Fault(Exception):
    """What is wrong at an address, and what to do if the address is this host's or another's."""

    what: str
    here: str
    elsewhere: str
    unreached: bool = False
    """Whether no connection was made. Over IPv6 a CA then turns to IPv4."""
    unrouted: bool = False
    """Whether that is because this host does not speak to such addresses at all, which says nothing about the CA."""


def _closed(port: int, what: str) -> _Fault:
    return _Fault(
        f"port {port} {what}",
        f"nginx must listen there, and the firewall must let port {port} in.",
        f"Correct the {{record}}, or, if it is right, have the firewall let port {port} in and what has this address pass it on to this host.",
        unreached=True,
    )


def _silent(what: str) -> _Fault:
    return _Fault(
        what,
        f"See to what listens there, for nginx must answer {CHALLENGES}/ at once.",
        f"Correct the {{record}}, or let what has this address pass {CHALLENGES}/ on to this host.",
    )


def _other(what: str) -> _Fault:
    return _Fault(
        what,
        f"Give the name to a site of this host's nginx, and let no location of your own take {CHALLENGES}/.",
        f"Correct the {{record}}, or let what has this address pass {CHALLENGES}/ on to this host.",
    )


def _redirected(what: str) -> _Fault:
    return _Fault(
        what,
        f"Take {CHALLENGES}/ out of the redirect.",
        f"Correct the {{record}}, or take {CHALLENGES}/ out of the redirect and pass it on to this host.",
    )


def _unconnected(error: OSError, port: int) -> _Fault:
    """Return what it means that no connection was made."""
    if error.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        what = f"this host has no route to it ({error.strerror})"
        cure = "Give the host one, or the name another {record}, or set certbot_preflight to false if the CA gets there."
        return _Fault(what, cure, cure, unreached=True, unrouted=True)
    if isinstance(error, ConnectionRefusedError):
        return _closed(port, "is closed there (connection refused)")
    if isinstance(error, TimeoutError):
        return _closed(port, "does not answer there (timed out)")
    return _closed(port, f"cannot be reached there ({error.strerror or error})")


# ---- a name


class _Place(t.NamedTuple):
    """One of a name's addresses."""

    family: int
    address: tuple[t.Any, ...]
    """As L(socket.getaddrinfo) has it: the address in words first, then the port."""

    def at(self, port: int) -> _Place:
        return self._replace(address=(self.address[0], port, *self.address[2:]))

    def connect(self, seconds: float) -> socket.socket:
        connection = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.connect(self.address)
        except BaseException:
            connection.close()
            raise
        return connection

    def is_ours(self) -> bool:
        """Return whether this host has the address. Nobody else can bind to it."""
        try:
            with socket.socket(self.family, socket.SOCK_DGRAM) as probe:
                probe.bind(self.at(0).address)
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
        return True


@dataclass(frozen=True)
class _Token:
    """The file that a CA would look for."""

    name: str
    content: str


@dataclass
class _Name:
    """A name, and what was found out about it."""

    domain: str
    port: int
    unknown: str | None = None
    """Why there is no address to ask."""
    faults: dict[_Place, _Fault | None] = field(default_factory=dict)
    """For each address what is wrong there."""
    forbidden: str | None = None
    """Why the CA may not issue."""

    @property
    def is_wildcard(self) -> bool:
        return self.domain.startswith("*.")

    def look_up(self, looks: _Looks, token: _Token) -> None:
        """Find the name's addresses, and have each of them looked at."""
        self.unknown = _UNANSWERED
        try:
            places = _places(self.domain, self.port)
        except (OSError, UnicodeError) as error:
            self.unknown = _unresolved(error)
            return
        self.unknown = None
        self.faults.update(dict.fromkeys(places))
        for place in places:
            looks.add(lambda place=place: self._look_at(place, looks, token))

    def _look_at(self, place: _Place, looks: _Looks, token: _Token) -> None:
        # It stays so for a server that never comes to an end.
        self.faults[place] = _silent(f"port {self.port} is open there, and gives no answer within {looks.seconds:g} seconds")
        try:
            _Visit(self.domain, place, self.port, looks, token).see()
        except _Fault as fault:
            self.faults[place] = fault
        else:
            self.faults[place] = None

    def look_at_caa(self, resolver: t.Any, identities: Sequence[str]) -> None:
        """Find out whether the DNS lets the CA issue."""
        records = _caa_records(resolver, self.domain[2:] if self.is_wildcard else self.domain)
        if records:
            self.forbidden = _forbidden(self.domain, *records, identities)

    def words(self) -> str:
        """Return what is wrong with the name, or nothing."""
        sentences = [f"{self.domain} {self.unknown}"] if self.unknown else [*self._words_of_faults()]
        return " ".join([*sentences, *([f"{self.domain} {self.forbidden}"] if self.forbidden else [])])

    def _words_of_faults(self) -> Iterator[str]:
        faults = dict(self.faults)
        # Where an address is right, a CA passes over what it could not connect to by IPv6, as visitors do.
        is_right = None in faults.values()
        told = {
            place: fault
            for place, fault in faults.items()
            if fault and not (is_right and (fault.unrouted or (fault.unreached and place.family == socket.AF_INET6)))
        }
        told = {place: fault for place, fault in told.items() if not fault.unrouted} or told
        alike: dict[tuple[_Fault, bool], list[_Place]] = {}
        for place, fault in told.items():
            alike.setdefault((fault, place.is_ours()), []).append(place)
        for (fault, is_ours), places in alike.items():
            addresses = " and ".join(place.address[0] for place in places)
            which = "which is not an address of this host" if len(places) == 1 else "which are not addresses of this host"
            kinds = dict.fromkeys("AAAA" if place.family == socket.AF_INET6 else "A" for place in places)
            record = f"{' and '.join(kinds)} record{'s' if len(places) > 1 else ''}"
            cure = (fault.here if is_ours else fault.elsewhere).format(record=record)
            yield f"{self.domain} leads to {addresses}{'' if is_ours else f', {which}'}: {fault.what}. {cure}"


_UNANSWERED = (
    "has no address that can be found: the DNS servers of this host (/etc/resolv.conf) do not answer, or know nothing of it. "
    "See to them, and to an A or AAAA record that leads to this host."
)


def _places(name: str, port: int) -> list[_Place]:
    """Return a name's addresses.

    :raises OSError: if it has none, or nobody says.
    """
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_Place(family, address) for family, _type, _protocol, _canonical, address in found))[:ADDRESSES]


def _unresolved(error: Exception) -> str:
    if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM):
        return _UNANSWERED
    return "has no address: the DNS knows neither an A nor an AAAA record of it. Add one that leads to this host."


# ---- the challenge


@contextlib.contextmanager
def _token(webroot: str) -> Iterator[_Token]:
    """Put a file where certbot would put one, and leave nothing of it behind.

    :raises OSError: if it cannot be written.
    """
    token = _Token(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    folder = webroot + CHALLENGES
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    path = f"{webroot}{CHALLENGES}/{token.name}"
    with contextlib.ExitStack() as undo:
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
                undo.callback(_remove_empty, folder)
                os.chmod(folder, 0o755)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
            undo.callback(files.remove, path)
            os.fchmod(file.fileno(), 0o644)
            file.write(token.content)
        yield token


def _remove_empty(folder: str) -> None:
    # Not empty: certbot, run by somebody else meanwhile, has a challenge of its own there.
    with contextlib.suppress(OSError):
        os.rmdir(folder)


class _Visit:
    """One look at the challenge as a CA's server takes it: at one address of a name, and from there wherever it is sent."""

    def __init__(self, name: str, place: _Place, port: int, looks: _Looks, token: _Token) -> None:
        self.name = name
        self.place = place
        self.port = port
        self.looks = looks
        self.token = token
        self.seen: list[str] = []

    def see(self) -> None:
        """Look whether the token's content is found.

        :raises _Fault: if it is not.
        """
        url = f"http://{self.name}{'' if self.port == 80 else f':{self.port}'}{CHALLENGES}/{self.token.name}"
        try:
            while True:
                self.seen.append(url)
                answer = self._answer(urllib.parse.urlsplit(url))
                if answer.status not in _REDIRECTIONS or not answer.location:
                    break
                url = self._next(url, answer.location)
            if answer.status != 200 or answer.body.rstrip() != self.token.content.encode():
                raise _other(f"something else answers there ({answer})")
        except _Fault as fault:
            if len(self.seen) == 1 or fault.what.startswith("the challenge"):
                raise
            raise _redirected(f"the challenge is redirected to {self._shown(self.seen[-1])}, and {fault.what}") from None

    def _next(self, url: str, location: str) -> str:
        """Return where a redirect leads."""
        new = urllib.parse.urljoin(url, location)
        try:
            split = urllib.parse.urlsplit(new)
            port = split.port or _USUAL_PORTS.get(split.scheme)
        except ValueError:
            split, port = urllib.parse.urlsplit(""), None
        new = split._replace(fragment="").geturl() or location
        if split.scheme not in _USUAL_PORTS or port not in (80, 443, self.port) or not split.hostname or _is_address(split.hostname):
            raise _redirected(f"the challenge is redirected to {self._shown(new)}, but a CA goes only to names, by http or https, at port 80 or 443")
        if new in self.seen:
            raise _redirected(f"the challenge is redirected in a loop (to {self._shown(new)} again)")
        if len(self.seen) > REDIRECTS:
            raise _redirected(f"the challenge is redirected more than {REDIRECTS} times")
        return new

    def _shown(self, url: str) -> str:
        # A name that is new each time tells nobody anything.
        return _shown(url.replace(self.token.name, "..."))

    def _answer(self, url: urllib.parse.SplitResult) -> _Answer:
        host = url.hostname or ""
        port = url.port or _USUAL_PORTS[url.scheme]
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._connect(host, port))
            try:
                if url.scheme == "https":
                    connection = stack.enter_context(_UNVERIFIED.wrap_socket(connection, server_hostname=host))
                return self._ask(connection, host, url)
            except TimeoutError:
                raise _silent(f"port {port} is open there, and gives no answer within {self.looks.seconds:g} seconds") from None
            except ssl.SSLError as error:
                raise _other(f"TLS fails there ({error.reason or error})") from None
            except (ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead):
                raise _other("the connection is closed there without an answer") from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _other(f"what answers there does not speak HTTP ({_shown(str(error) or type(error).__name__)})") from None

    def _connect(self, host: str, port: int) -> socket.socket:
        """Connect to the address that is looked at, or, if a redirect leads to another name, to the first of its addresses that answers."""
        try:
            places = [self.place.at(port)] if host == self.name.lower() else _places(host, port)
        except (OSError, UnicodeError):
            raise _other(f"{_shown(host)} has no address") from None
        fault = None
        for number, place in enumerate(places):
            try:
                return place.connect(self.looks.left() / (len(places) - number))
            except OSError as error:
                fault = _unconnected(error, port) if fault is None or fault.unrouted else fault
        raise fault or _other(f"{_shown(host)} has no address")

    def _ask(self, connection: socket.socket, host: str, url: urllib.parse.SplitResult) -> _Answer:
        connection.settimeout(self.looks.left())
        client = http.client.HTTPConnection(host)
        client.sock = connection
        path = urllib.parse.quote(url._replace(scheme="", netloc="").geturl() or "/", safe=string.punctuation)
        headers = {"Host": url.netloc.rpartition("@")[2], "User-Agent": "portico (looks before a CA does)", "Connection": "close"}
        client.request("GET", path, headers=headers)
        answer = client.getresponse()
        location = answer.getheader("Location", "")
        body = b"" if answer.status in _REDIRECTIONS and location else answer.read(BYTES)
        return _Answer(answer.status, answer.getheader("Server", ""), answer.getheader("Content-Type", ""), location, body)


@dataclass(frozen=True)
class _Answer:
    """What a server answered. Its words say who that may be."""

    status: int
    server: str
    content_type: str
    location: str
    body: bytes

    def __str__(self) -> str:
        parts = [f"status {self.status}"]
        if self.server:
            parts.append(f"Server: {_shown(self.server, 40)}")
        if self.content_type.lower().startswith("text/") or not self.content_type:
            text = re.sub(r"(?s)<(style|script)\b.*?</\1>|<[^>]*>", " ", self.body.decode(errors="replace"))
            if text.strip():
                parts.append(f'"{_shown(text, 60)}"')
        return ", ".join(parts)


def _unverified() -> ssl.SSLContext:
    # A CA does not verify the target of a redirect either: the certificate is what is being asked for.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_UNVERIFIED = _unverified()


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _shown(text: str, length: int = 100) -> str:
    """Return what a stranger said as a line that can be shown."""
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return line if len(line) <= length else line[: length - 3] + "..."


# ---- CAA, RFC 8659


def _resolver() -> t.Any | None:
    """Return what asks this host's DNS servers, or None where that cannot be done."""
    try:
        import dns.exception
        import dns.resolver
    except ImportError:
        return None
    try:
        resolver = dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return None
    resolver.cache = dns.resolver.Cache()
    return resolver


def _caa_records(resolver: t.Any, name: str) -> tuple[str, list[t.Any]] | None:
    """Return the CAA records that count for a name, and whose they are: its own, or those of the nearest domain above that has any."""
    import dns.exception
    import dns.resolver

    deadline = time.monotonic() + SECONDS_FOR_CAA
    labels = name.rstrip(".").split(".")
    for number in range(len(labels)):
        domain = ".".join(labels[number:])
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        try:
            return domain, list(resolver.resolve(f"{domain}.", "CAA", lifetime=left))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            continue
        # A DNS server that does not answer says nothing: the CA may ask another.
        except (dns.exception.DNSException, OSError, UnicodeError):
            return None
    return None


def _forbidden(name: str, domain: str, records: Iterable[t.Any], identities: Sequence[str]) -> str | None:
    """Return why CAA records forbid a certificate to a CA.

    :param domain: whose records they are.
    :param identities: by which names the CA goes.
    """
    found = [(record.flags, record.tag.decode(errors="replace").lower(), record.value.decode(errors="replace")) for record in records]
    for flags, tag, _value in found:
        if flags & _CRITICAL and tag not in _KNOWN_TAGS:
            return f"gets no certificate: the DNS has a critical CAA record of {domain} that no CA understands ({_shown(tag)}). Remove it."
    tags = ["issue"]
    if name.startswith("*.") and any(tag == "issuewild" for _flags, tag, _value in found):
        tags = ["issuewild"]
    relevant = [(flags, tag, value) for flags, tag, value in found if tag in tags]
    allowed = {value.partition(";")[0].strip().lower().rstrip(".") for _flags, _tag, value in relevant}
    if not relevant or allowed & {identity.lower() for identity in identities}:
        return None
    kept = ", ".join(f'{domain} CAA {flags} {tag} "{_shown(value)}"' for flags, tag, value in sorted(relevant))
    added = f'{domain} CAA 0 {tags[0]} "{identities[0]}"'
    return f"gets no certificate from this CA: the DNS has {kept}, and so forbids it. Add {added}, or remove what is there."
