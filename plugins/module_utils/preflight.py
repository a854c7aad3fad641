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
import html
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
from dataclasses import dataclass, field

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
_LONGEST_URL = 120
_LONGEST_RECORD = 160

_NO_ROUTE = (errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPERM)
"""What is said of an address whose whole family this host cannot reach, or may not."""
_NO_SUCH_NAME = tuple(getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name))

_CRITICAL = 128
_KNOWN_TAGS = ("issue", "issuewild", "iodef", "issuemail")

_K = t.TypeVar("_K", bound=Hashable)
_R = t.TypeVar("_R")

_NO_REDIRECT = f"let {CHALLENGES} be answered there without a redirect"


class PreflightError(Exception):
    """Why a CA would refuse a name, in words for the person."""


class _NoRouteError(Exception):
    """This host knows no way to an address, so it can say nothing about it."""


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
    by_http = [domain for domain in domains if http and not domain.startswith("*.")]
    visits: dict[str, _Visit] = {}
    with contextlib.ExitStack() as stack:
        if by_http:
            try:
                challenge = stack.enter_context(_challenge(webroot))
            except OSError as error:
                why = f"cannot be put into {webroot} ({error.strerror}): see to it that this host can write there"
                return {domain: f"The challenge of {domain} {why}." for domain in by_http}
            visits = {domain: _Visit(domain, challenge, port, https_port, patience) for domain in by_http}
        jobs: dict[tuple[str, str], Callable[[], str | None]] = {(domain, "http"): visit.look for domain, visit in visits.items()}
        resolver = _resolver() if caa_identities else None
        if resolver:
            jobs.update({(domain, "caa"): functools.partial(_forbidden, domain, caa_identities, resolver) for domain in domains})
        found = _side_by_side(jobs, seconds)
    wrong = {}
    for domain in dict.fromkeys(domains):
        said = [found.get((domain, "http")), found.get((domain, "caa"))]
        if domain in visits and (domain, "http") not in found:
            said[0] = visits[domain].unfinished(seconds)
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
    folder = os.path.abspath(folder)
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

    def is_here(self) -> bool:
        """Whether the address is one of this host's own."""
        return self._is_possible(lambda sock: sock.bind(self._at(0)))

    def connect(self, port: int, patience: float) -> socket.socket:
        try:
            sock = socket.socket(self.family, socket.SOCK_STREAM)
        except OSError as error:
            raise _NoRouteError from error
        try:
            sock.settimeout(patience)
            sock.connect(self._at(port))
        except OSError as error:
            sock.close()
            # To connect a UDP socket asks the kernel for the way, and sends nothing.
            if error.errno in _NO_ROUTE or not self._is_possible(lambda asking: asking.connect(self._at(port))):
                raise _NoRouteError from error
            raise
        return sock

    def _is_possible(self, what: Callable[[socket.socket], None]) -> bool:
        try:
            with socket.socket(self.family, socket.SOCK_DGRAM) as sock:
                what(sock)
        except OSError:
            return False
        return True

    def _at(self, port: int) -> tuple[t.Any, ...]:
        return (self.where[0], port, *self.where[2:])


def _places(name: str) -> list[_Place]:
    """Return every address that a name has."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_Place(family, where) for family, _kind, _protocol, _name, where in found))


def _unresolved(name: str, error: OSError | UnicodeError) -> PreflightError:
    if isinstance(error, UnicodeError):
        return PreflightError(f"{name} does not resolve: it is no name that the DNS can hold, so correct it.")
    if error.errno in _NO_SUCH_NAME:
        return PreflightError(f"{name} does not resolve: give it an A or AAAA record that leads to this host.")
    return PreflightError(_no_dns(name, error.strerror))


def _no_dns(name: str, why: str) -> str:
    return f"The DNS says nothing about {name} ({why}): see whether the servers of its zone answer, and the resolver in this host's /etc/resolv.conf."


# ---- asking as the CA asks


@dataclass(frozen=True)
class _Answer:
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes

    def __str__(self) -> str:
        status, server, words = _words(f"{self.status} {self.reason}"), _words(self.headers.get("Server", "")), _words(self._text())
        said = [status]
        if server:
            said.append(f"Server: {server}")
        # A server's own page of an error says no more than its status.
        if words and not words.startswith(status):
            said.append(f'"{words}"')
        return ", ".join(said)

    def _text(self) -> str:
        """Return what a person would read: a page's title, or its text."""
        kind = self.headers.get("Content-Type", "text/plain").lower()
        if not kind.startswith(("text/", "application/json", "application/problem+json")):
            return ""
        text = self.body.decode(errors="replace")
        if "html" not in kind:
            return text
        title = re.search(r"(?is)<title\b[^>]*>(.*?)</title>", text)
        text = title[1] if title else re.sub(r"(?is)<(script|style)\b.*?</\1>|<!--.*?-->|<[^>]*>", " ", text)
        return html.unescape(text)


def _words(text: str, most: int = _WORDS) -> str:
    """Return the first words of a stranger's text, harmless for a terminal."""
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return words if len(words) <= most else words[:most].rstrip() + "..."


class _Connection(http.client.HTTPConnection):
    """A connection to one address of a name, whatever others the name has."""

    def __init__(self, place: _Place, host: str, port: int, patience: float) -> None:
        super().__init__(host, port, timeout=patience)
        self.place, self.patience = place, patience

    def connect(self) -> None:
        self.sock = self.place.connect(self.port, self.patience)

    def encrypt(self) -> None:
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
    begun: bool = False
    place: _Place | None = None
    urls: list[str] = field(default_factory=list)

    def look(self) -> str | None:
        """Return why the CA would not find its challenge: at the first address that is wrong, for the CA may choose any."""
        self.begun = True
        try:
            self._ask_everywhere()
        except PreflightError as error:
            return str(error)
        return None

    def unfinished(self, seconds: float) -> str | None:
        """Return what the visit still waited for when the time was over; nothing where it had not begun."""
        if not self.begun:
            return None
        if self.place is None:
            return _no_dns(self.name, f"no answer within {seconds:g} seconds")
        return str(self._wrong(f"where no whole answer came within {seconds:g} seconds", "see what listens there"))

    def _ask_everywhere(self) -> None:
        try:
            places = _places(self.name)
        except (OSError, UnicodeError) as error:
            raise _unresolved(self.name, error) from error
        unknown = []
        for self.place in places:
            try:
                self._ask(self.place)
            except _NoRouteError:
                unknown.append(self.place.address)
        if len(unknown) == len(places):
            raise PreflightError(
                f"{self.name} leads to {' and '.join(unknown)}, to which this host has no route: let the name lead to an address at which this host is reached."
            )

    def _ask(self, place: _Place) -> None:
        """Ask at one address, and wherever it leads."""
        self.urls = [f"http://{self.name}{'' if self.port == 80 else f':{self.port}'}{CHALLENGES}{self.challenge.token}"]
        answer = self._get(place)
        while answer.status in _REDIRECTS and answer.headers.get("Location"):
            place = self._follow(answer.headers["Location"])
            try:
                answer = self._get(place)
            except _NoRouteError as error:
                raise self._wrong("to which this host has no route", "") from error
        if answer.status != 200 or answer.body.rstrip() != self.challenge.content.encode():
            raise self._wrong(f"where something else answers ({answer})", self._who())

    def _get(self, place: _Place) -> _Answer:
        url = urllib.parse.urlsplit(self.urls[-1])
        port = url.port or (443 if url.scheme == "https" else 80)
        request = {"Host": url.netloc.rpartition("@")[2], "User-Agent": "portico-preflight", "Accept": "*/*", "Connection": "close"}
        in_time = f"within {self.patience:g} seconds"
        with contextlib.closing(_Connection(place, url.hostname or "", port, self.patience)) as connection:
            try:
                connection.connect()
            except ConnectionRefusedError as error:
                raise self._wrong(f"where port {port} is closed", f"let nginx listen there, and the firewall let port {port} in from everywhere") from error
            except TimeoutError as error:
                raise self._wrong(f"where port {port} is filtered (no answer {in_time})", f"the firewall must let port {port} in from everywhere") from error
            except OSError as error:
                why = f"where port {port} cannot be reached ({error.strerror})"
                raise self._wrong(why, f"see whether that machine runs, and whether its firewall lets port {port} in") from error
            try:
                if url.scheme == "https":
                    connection.encrypt()
                connection.request("GET", urllib.parse.urlunsplit(("", "", url.path or "/", url.query, "")), headers=request)
                response = connection.getresponse()
                return _Answer(response.status, response.reason, response.headers, response.read(_MOST_BYTES))
            except TimeoutError as error:
                raise self._wrong(f"where port {port} is open, but nothing answers {in_time}", "see what listens there") from error
            except (OSError, ValueError, http.client.HTTPException) as error:
                how = f"{'HTTPS' if url.scheme == 'https' else 'HTTP'} ({_words(str(error) or type(error).__name__)})"
                raise self._wrong(f"where port {port} does not answer in {how}", "see what listens there") from error

    def _follow(self, location: str) -> _Place:
        """Go where a redirect leads, if a CA would, and return the address to ask there."""
        # What a browser would make of it: a relative address is completed, a letter that no address can have is written otherwise.
        written = urllib.parse.quote(location.strip(), safe="%/:=&?~#+!$,;'@()*[]")
        try:
            url = urllib.parse.urldefrag(urllib.parse.urljoin(self.urls[-1], written)).url
            parts = urllib.parse.urlsplit(url)
            allowed = parts.hostname and {"http": parts.port or 80, "https": parts.port or 443}.get(parts.scheme) in (self.port, self.https_port)
        except ValueError:
            url, allowed = written, False
        if not allowed:
            ports = f"{self.port} and {self.https_port}"
            raise self._redirected(f"to {self._shown(url)}, where no CA follows (it does to http and https, at ports {ports})")
        if url in self.urls:
            raise self._redirected(f"in a circle, to {self._shown(url)} again")
        if len(self.urls) > _MOST_REDIRECTS:
            raise self._redirected(f"more than {_MOST_REDIRECTS} times, at last to {self._shown(url)}")
        self.urls.append(url)
        if parts.hostname == self.name and self.place:
            return self.place
        try:
            return _places(parts.hostname or "")[0]
        except (OSError, UnicodeError) as error:
            raise self._wrong("whose name does not resolve", "") from error

    # What is said, always with the name and the address

    def _wrong(self, what: str, cure: str) -> PreflightError:
        """Return what is wrong at the last place, and the cure; after a redirect that is to have none."""
        if len(self.urls) > 1:
            return self._redirected(f"to {self._shown(self.urls[-1])}, {what}")
        return PreflightError(f"{self._lead()}, {what}: {cure}{self._elsewhere()}.")

    def _redirected(self, what: str) -> PreflightError:
        return PreflightError(f"{self._lead()}, which redirects the challenge {what}: {_NO_REDIRECT}{self._elsewhere()}.")

    def _lead(self) -> str:
        return f"{self.name} leads to {self._address()}"

    def _address(self) -> str:
        return self.place.address if self.place else ""

    def _who(self) -> str:
        if self.place and self.place.is_here():
            return "another server block or another program of this host answers for the name, so find it (nginx -T) and take the name from it"
        return "another machine or another server block answers for the name, so let the name lead to this host"

    def _elsewhere(self) -> str:
        """Return a hint where the address is not this host's. Behind NAT that may be right, so it is no more than a hint."""
        if self.place and self.place.is_here():
            return ""
        return (
            f" ({self._address()} is no address of this host: unless NAT leads from there to here, correct the DNS record; "
            "if NAT keeps this host from reaching itself, set certbot_preflight to false)"
        )

    def _shown(self, url: str) -> str:
        return _words(url.replace(self.challenge.token, "TOKEN"), _LONGEST_URL)


# ---- CAA


def _resolver() -> t.Any:
    """Return dnspython's resolver with the system's servers, or None where there is no dnspython or no server: then nothing is said of CAA."""
    try:
        import dns.exception
        import dns.resolver
    except ImportError:
        return None
    try:
        resolver = dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return None
    # The names of one certificate share their parents.
    resolver.cache = dns.resolver.LRUCache()
    return resolver


def _forbidden(domain: str, identities: Sequence[str], resolver: t.Any) -> str | None:
    """Return why CAA records forbid the CA to issue for a name (RFC 8659, sections 3 and 4)."""
    where, records = _relevant(domain[2:] if domain.startswith("*.") else domain, resolver)
    unknown = [each for each in records if each.flags & _CRITICAL and each.tag not in _KNOWN_TAGS]
    if unknown:
        return (
            f"CAA at {where} forbids a CA to issue for {domain} that does not know what is critical there ({_listed(unknown)}): "
            "remove that record, or its critical flag."
        )
    tag = "issue"
    if domain.startswith("*.") and any(each.tag == "issuewild" for each in records):
        tag = "issuewild"
    deciding = [each for each in records if each.tag == tag]
    if not deciding or {each.issuer for each in deciding} & {identity.lower() for identity in identities}:
        return None
    return f'CAA at {where} forbids this CA to issue for {domain} ({_listed(deciding)}): add the record {where}. CAA 0 {tag} "{identities[0]}".'


class _Record(t.NamedTuple):
    flags: int
    tag: str
    value: str

    @property
    def issuer(self) -> str:
        """The CA that a record lets issue; the rest of the value are parameters for that CA."""
        return self.value.partition(";")[0].strip().lower().rstrip(".")

    def __str__(self) -> str:
        return _words(f'{self.flags} {self.tag} "{self.value}"', _LONGEST_RECORD)


def _listed(records: Sequence[_Record]) -> str:
    return ", ".join(map(str, records))


def _relevant(name: str, resolver: t.Any) -> tuple[str, list[_Record]]:
    """Return the records that decide about a name, and where they are: its own, or those of the nearest parent that has some."""
    import dns.exception
    import dns.resolver

    until = time.monotonic() + SECONDS_FOR_DNS
    labels = name.split(".")
    for each in (".".join(labels[n:]) for n in range(len(labels))):
        try:
            answer = resolver.resolve(each + ".", "CAA", raise_on_no_answer=False, lifetime=max(0.1, until - time.monotonic()))
        except dns.resolver.NXDOMAIN:
            continue
        except (dns.exception.DNSException, OSError, UnicodeError):
            # Who does not answer us may answer the CA, and what it would say hides what its parents say.
            break
        if answer.rrset:
            found = [_Record(record.flags, record.tag.decode().lower(), record.value.decode(errors="replace")) for record in answer]
            # The resolver has followed an alias.
            return answer.canonical_name.to_text(omit_final_dot=True), sorted(found)
    return name, []
