# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's own tool, C(portico-certificates): renews what is due, and sees to it that nginx serves what is on the disk.

certbot runs a deploy hook once and never again, even when it fails. So what is true is reconciled: what visitors meet is
compared with what lies there, again and again, and what differs and cannot be healed is told in every way there is.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import socket
import ssl
import sys
import time
import typing as t
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ansible_collections.portico.web.plugins.module_utils import certbot, commands, files, layout, lineage, own_certificates, register, serving, store

LOCK = "/run/lock/portico-certificates.lock"
METRICS = "/var/lib/prometheus/node-exporter/portico-certificates.prom"
SECONDS_FOR_ANOTHER_KEEPER = 900
SECONDS_FOR_THE_ALARM = 60
SECONDS_BETWEEN_ALARMS = lineage.DAY
DAYS_TO_BRING = 14
"""How long before its end a certificate is told of that somebody brings, and only that somebody can renew."""
AT_ONCE = 8
"""How many openssl processes, or handshakes, there are at the same time."""
BELOW_A_WILDCARD = "portico-asks"
"""The label that is asked for where a server name begins with C(*.), for there is none that must be there."""

Answer = t.Union[bytes, serving.SilentError, None]
"""A certificate in DER, why there was none, or None where nginx does not know the name."""


@dataclass
class Part:
    """A certificate file that nginx should serve; an entry of the register has one, or two where it is a pair."""

    name: str
    entry: register.Entry
    path: str
    certificate: lineage.Certificate | None = None
    der: bytes | None = None
    placeholder: bool = False
    paired: bool = False
    names: list[str] = field(default_factory=list)
    """The names for which nginx should serve it."""
    expected: dict[str, serving.Expectation] = field(default_factory=dict)
    """What should be met for each of them."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """What was met."""
    problems: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What tells the two of a pair apart."""
        return self.certificate.key_type if self.paired and self.certificate else ""

    @property
    def label(self) -> str:
        return f"{self.name} ({self.key})" if self.key else self.name

    @property
    def differing(self) -> list[str]:
        """The names that are served with something else than what lies on the disk."""
        return [name for name, answer in self.answers.items() if self.der is not None and answer != self.der]

    @property
    def renewal(self) -> int | None:
        """When it should be renewed, in seconds since 1970; None where nobody on this host does."""
        if self.certificate is None or self.placeholder or self.entry["issuer"] == "own":
            return None
        return self.certificate.not_after - self.certificate.window


@dataclass
class Report:
    """How the certificates of this host are."""

    parts: list[Part]
    problems: list[str] = field(default_factory=list)
    """What is wrong with none of them, a line each."""
    failing: list[str] = field(default_factory=list)
    """The names of the certificates with which something is wrong."""

    @property
    def lines(self) -> list[str]:
        return [*self.problems, *(f"{part.label}: {problem}" for part in self.parts for problem in part.problems)]


# ---- looking


def look(now: float) -> Report:
    """Compare what visitors meet with what lies on the disk."""
    entries = register.certificates()
    manifest = store.manifest(store.live_number())
    names, port = served_names(manifest, entries), manifest["host"]["settings"].get("https_port", 443)
    parts = [part for name, entry in entries.items() for part in _parts(name, entry, names.get(name, []))]
    active = not any(part.names for part in parts) or serving.is_active()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(_read, parts))
        for part in parts:
            part.expected = {name: _expectation(part, name, port) for name in part.names if active and part.der is not None}
        asked = [(part, name) for part in parts for name in part.expected]
        for (part, name), answer in zip(asked, pool.map(_ask, (part.expected[name] for part, name in asked))):
            part.answers[name] = answer
    for part in parts:
        part.problems += _problems(part, now)
    report = Report(parts, [] if active else ["nginx does not run, and serves nothing"])
    report.failing = sorted({part.name for part in parts if part.problems or (part.names and not active)})
    return report


def served_names(manifest: register.Manifest, entries: t.Mapping[str, register.Entry]) -> dict[str, list[str]]:
    """Return the server names that the live generation of nginx's configuration serves with each certificate.

    :param manifest: the generation's. An older one has no server names at its certificates, so that it is taken to serve
        with each what it is for, and nothing that two are for.
    """
    found: dict[str, list[str]] = {}
    for part in manifest["scopes"].values():
        if isinstance(part["certificates"], dict):
            for name, server_names in part["certificates"].items():
                found.setdefault(name, []).extend(server_names)
            continue
        published = {each for server_names in part["sites"].values() for each in server_names}
        domains = {name: published & set(entries[name]["domains"]) for name in part["certificates"] if name in entries}
        for name, own in domains.items():
            others = set().union(*(each for other, each in domains.items() if other != name))
            found.setdefault(name, []).extend(sorted(own - others))
    return found


def _parts(name: str, entry: register.Entry, names: list[str]) -> list[Part]:
    link = layout.certificate_link(name)
    first = Part(name, entry, f"{link}/{layout.CERTIFICATE_FILE}", names=names)
    first.placeholder = os.path.realpath(link) == os.path.realpath(layout.PLACEHOLDER)
    second = Part(name, entry, f"{layout.LINEAGES}/{name}/rsa/{layout.CERTIFICATE_FILE}", names=names)
    if second.path in (files.read(f"{link}/{layout.TRANSPORT_FILE}") or ""):
        first.paired = second.paired = True
        return [first, second]
    if len(entry["orders"]) > 1 and not first.placeholder:
        first.problems.append(f"its second certificate, {entry['orders'][1]['name']}, is not served yet")
    return [first]


def _read(part: Part) -> None:
    # nginx could not read either what openssl cannot.
    part.certificate = lineage.read_certificate(part.path)
    with contextlib.suppress(OSError):
        part.der = serving.on_disk(part.path) if part.certificate else None


def _expectation(part: Part, name: str, port: int) -> serving.Expectation:
    return serving.Expectation(name.replace("*", BELOW_A_WILDCARD), part.path, port, part.key or None)


def _ask(expectation: serving.Expectation) -> Answer:
    try:
        return serving.served(expectation.name, expectation.port, key_type=expectation.key_type)
    except serving.SilentError as error:
        return error


def _problems(part: Part, now: float) -> list[str]:
    """Return what is wrong with a certificate. The words are the same each time, for as long as it is the same."""
    if not os.path.lexists(layout.certificate_link(part.name)):
        return ["there is no certificate yet"]
    if part.certificate is None:
        return [f"its files cannot be read ({part.path})"]
    found = ["it has no certificate yet, and the placeholder is served"] if part.placeholder else _problems_of_age(part, part.certificate, now)
    others: dict[str, list[str]] = {}
    for name in part.differing:
        others.setdefault(_words(part.answers[name]), []).append(name)
    on_disk = f"on the disk is the certificate with the serial {part.certificate.serial}"
    return found + [f"{_listed(names)}: {words}, and {on_disk}" for words, names in others.items()]


def _problems_of_age(part: Part, certificate: lineage.Certificate, now: float) -> list[str]:
    left = certificate.not_after - now
    if left <= 0:
        return [f"it expired on {_moment(certificate.not_after)}"]
    if certificate.not_before > now:
        return [f"it is not valid before {_moment(certificate.not_before)}, by this host's clock"]
    if part.renewal is not None and left < certificate.window * 3 / 4:
        return [f"its renewal is overdue since {_moment(part.renewal)}, and it expires on {_moment(certificate.not_after)}"]
    if part.renewal is None and left < min(DAYS_TO_BRING * lineage.DAY, certificate.window * 3 / 4):
        return [f"it expires on {_moment(certificate.not_after)}, and only who brought it can renew it"]
    return []


def _words(answer: Answer) -> str:
    if answer is None:
        return "nginx does not know the name"
    if isinstance(answer, serving.SilentError):
        return str(answer)
    return f"nginx serves the certificate with the serial {serial(answer)}"


@functools.lru_cache(maxsize=None)
def serial(der: bytes) -> str:
    """Return the serial number of a certificate, in capital hexadecimal digits."""
    done = commands.run(["openssl", "x509", *lineage.ASKED], text=ssl.DER_cert_to_PEM_cert(der))
    found = lineage.parse_certificate(done.out)
    return found.serial if found else "unknown"


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


# ---- acting


def reconcile() -> list[str]:
    """Have nginx serve what is on the disk, and return what is wrong still, a line each.

    :raises BusyError: when another keeper is at work for too long.
    """
    with _alone("reconcile"):
        return _reconcile(State.load())


def renew() -> list[str]:
    """Renew what is due, reconcile, and return what is wrong still, a line each.

    certbot runs the deploy hook meanwhile, which is another keeper: so that others are kept out only after it.

    """
    problems = _renew(register.certificates(), time.time())
    try:
        with _alone("renew"):
            state = State.load()
            state.renewal = problems
            return [*problems, *_reconcile(state)]
    except serving.BusyError as error:
        return [*problems, str(error)]


def _alone(verb: str) -> serving.Lock:
    return serving.Lock(f"{os.path.basename(layout.TOOL)} {verb}", SECONDS_FOR_ANOTHER_KEEPER, LOCK, "keeps this host's certificates")


def _renew(entries: t.Mapping[str, register.Entry], now: float) -> list[str]:
    problems: list[str] = []
    orders = [order for entry in entries.values() for order in entry["orders"]]
    program = register.setting("certbot", certbot.PACKAGED)
    try:
        # Lineages that are nobody's but this host's are renewed too: its own timer was switched off.
        if os.path.exists(program):
            problems += certbot.Certbot(program).renew(orders, now)
        elif orders:
            problems.append(f"certbot is gone ({program}), and nothing is renewed")
    except OSError as error:
        problems.append(f"certbot cannot be run: {error}")
    return [" ".join(line.split()) for line in (*problems, *own_certificates.renew(entries))]


def _reconcile(state: State) -> list[str]:
    report = look(time.time())
    differing = sorted({part.name for part in report.parts if part.differing})
    if differing:
        expected = [part.expected[name] for part in report.parts for name in part.differing]
        why = serving.reload(f"{os.path.basename(layout.TOOL)}, for {_listed(differing)}", expected)
        report = look(time.time())
        if why is not None:
            report.problems.append(f"nginx could not be reloaded: {' '.join(why.split())}")
            report.failing = sorted({*report.failing, *differing})
        healed = [name for name in differing if name not in report.failing]
        if healed:
            print(f"nginx was reloaded, and serves what is on the disk for {_listed(healed)}")
    return [*report.lines, *_tell(state, report, time.time())]


# ---- telling


@dataclass
class State:
    """What the keeper knows from one run to the next."""

    succeeded: dict[str, float] = field(default_factory=dict)
    """When a certificate was last as it must be."""
    renewal: list[str] = field(default_factory=list)
    """What went wrong at the last renewal."""
    alarm: dict[str, t.Any] | None = None
    """The alarm that was raised and is not over: its problems, its certificates, and when."""

    @staticmethod
    def path() -> str:
        return f"{layout.CERTBOT}/keeper.json"

    @classmethod
    def load(cls) -> State:
        """Read it; one that is damaged only makes an alarm come again."""
        try:
            return cls(**json.loads(files.read(cls.path()) or "{}"))
        except (ValueError, TypeError):
            return cls()

    def save(self) -> None:
        os.makedirs(layout.CERTBOT, mode=0o755, exist_ok=True)
        files.write(self.path(), json.dumps({"succeeded": self.succeeded, "renewal": self.renewal, "alarm": self.alarm}, indent=1) + "\n", 0o600)


def _tell(state: State, report: Report, now: float) -> list[str]:
    """Raise the alarm, write the metrics and remember; return what of that went wrong, a line each."""
    state.renewal = _unsettled(state.renewal, now)
    good = {part.label for part in report.parts if part.name not in report.failing}
    known = {**state.succeeded, **dict.fromkeys(good, now)}
    state.succeeded = {part.label: known[part.label] for part in report.parts if part.label in known}
    path = register.setting("metrics", METRICS)
    problems = [
        _alarm(state, report, now),
        _tried(f"the metrics cannot be written to {path}", lambda: _write_metrics(path, metrics(report, state, now))),
        _tried("the state cannot be kept", state.save),
    ]
    return [problem for problem in problems if problem]


def _tried(what: str, step: Callable[[], None]) -> str | None:
    # A full disk, say. It must not keep the rest from being done.
    try:
        step()
    except OSError as error:
        return f"{what}: {error}"
    return None


def _unsettled(problems: Iterable[str], now: float) -> list[str]:
    """Return the problems of the last renewal without those of lineages that were renewed since, by hand or by a play."""
    orders = {order["name"] for entry in register.certificates().values() for order in entry["orders"]}

    def is_over(problem: str) -> bool:
        names = problem.partition(":")[0].split(", ")
        return orders.issuperset(names) and not any(certbot.is_due(name, now) for name in names)

    return [problem for problem in problems if not is_over(problem)]


def _alarm(state: State, report: Report, now: float) -> str | None:
    """Run the alarm command where there is news, or a day has passed; return why it could not be run."""
    command = register.setting("alarm_command", [])
    if not command:
        state.alarm = None
        return None
    problems = sorted({*state.renewal, *report.lines})
    before = state.alarm
    if problems:
        if before and before["problems"] == problems and 0 <= now - before["at"] < SECONDS_BETWEEN_ALARMS:
            return None
        names = {name for line in state.renewal for name in line.partition(":")[0].split(", ")} & register.certificates().keys()
        told = {"problems": problems, "certificates": sorted({*report.failing, *names}), "at": now}
        why = _run_alarm(command, "failed", told)
    elif before:
        told = None
        why = _run_alarm(command, "resolved", before)
    else:
        return None
    if why is None:
        state.alarm = told
    return why


def _run_alarm(command: Sequence[str], what: str, told: t.Mapping[str, t.Any]) -> str | None:
    text = "\n".join(told["problems"])
    environment = {"PORTICO_STATE": what, "PORTICO_HOST": _host(), "PORTICO_CERTIFICATES": " ".join(told["certificates"]), "PORTICO_PROBLEMS": text}
    try:
        done = commands.run(command, environment, SECONDS_FOR_THE_ALARM, f"{text}\n")
    except OSError as error:
        return f"the alarm command {command[0]} cannot be run: {error}"
    if done.rc == 0:
        return None
    said = "; ".join((done.err or done.out).strip().splitlines()[-3:])
    how = f"had not ended after {SECONDS_FOR_THE_ALARM} seconds" if done.rc == 124 else f"ended with {done.rc}"
    return f"the alarm command {command[0]} {how}" + (f": {said}" if said else "")



def _host() -> str:
    # Not Python's getfqdn: a resolver that does not answer would hold it up for minutes.
    return commands.run(["hostname", "--fqdn"], seconds=5).out.strip() or socket.gethostname()


def _write_metrics(path: str, text: str) -> None:
    if os.path.isdir(os.path.dirname(path)):
        files.write(path, text, 0o644)


def metrics(report: Report, state: State, now: float) -> str:
    """Return the report for Prometheus (U(https://prometheus.io/docs/instrumenting/exposition_formats/))."""
    lines: list[str] = []

    def metric(name: str, words: str, samples: Iterable[tuple[t.Mapping[str, str], float | None]]) -> None:
        lines.extend([f"# HELP portico_{name} {words}", f"# TYPE portico_{name} gauge"])
        lines.extend(f"portico_{name}{_labels(labels)} {value:.0f}" for labels, value in samples if value is not None)

    def each(value: Callable[[Part], float | None]) -> list[tuple[t.Mapping[str, str], float | None]]:
        return [({"certificate": part.name, **({"key": part.key} if part.key else {})}, value(part)) for part in report.parts]

    def fact(name: str) -> Callable[[Part], float | None]:
        return lambda part: None if part.placeholder or part.certificate is None else getattr(part.certificate, name)

    metric("certificate_not_after_timestamp_seconds", "The end of the certificate's validity.", each(fact("not_after")))
    metric("certificate_not_before_timestamp_seconds", "The beginning of the certificate's validity.", each(fact("not_before")))
    metric("certificate_last_success_timestamp_seconds", "When all was well with the certificate last.", each(lambda part: state.succeeded.get(part.label)))
    metric("certificate_ok", "Whether the certificate is served as it lies on the disk, and was renewed in time.", each(lambda part: part.name not in report.failing))
    metric("certificate_placeholder", "Whether the certificate is still to be had, and the placeholder stands for it.", each(lambda part: part.placeholder))
    metric("certificate_served_info", "The serial number of the certificate that nginx serves for a name.", _served_info(report))
    metric("certificates_last_run_timestamp_seconds", "When the certificates were looked at last.", [({}, now)])
    return "\n".join(lines) + "\n"


def _served_info(report: Report) -> list[tuple[t.Mapping[str, str], float]]:
    found = []
    for part in report.parts:
        for name, answer in part.answers.items():
            if isinstance(answer, bytes):
                labels = {"certificate": part.name, **({"key": part.key} if part.key else {}), "name": name, "serial": _serial(part, answer)}
                found.append((labels, 1.0))
    return found


def _serial(part: Part, answer: bytes) -> str:
    return part.certificate.serial if part.certificate and answer == part.der else serial(answer)


def _labels(labels: t.Mapping[str, str]) -> str:
    escaped = {name: value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for name, value in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}" if labels else ""


# ---- for people


def status(as_json: bool) -> list[str]:
    """Print how the certificates are, and return what is wrong, a line each. Nothing is changed."""
    now = time.time()
    report = look(now)
    problems = [*report.lines, *_unsettled(State.load().renewal, now)]
    if as_json:
        print(json.dumps({"certificates": [_described(part, report) for part in report.parts], "problems": problems}, indent=2))
        return problems
    print(_table([_row(part, report, now) for part in report.parts]) if report.parts else "This host has no certificates.")
    return problems


def _described(part: Part, report: Report) -> dict[str, t.Any]:
    found = part.certificate
    return {
        "certificate": part.name,
        "key": found.key_type if found else None,
        "issuer": found.issuer if found else None,
        "names": sorted(found.domains) if found else [],
        "not_before": found.not_before if found else None,
        "not_after": found.not_after if found else None,
        "renewal_due": part.renewal,
        "serial": found.serial if found else None,
        "served": {name: _serial(part, answer) if isinstance(answer, bytes) else None for name, answer in part.answers.items()},
        "placeholder": part.placeholder,
        "ok": part.name not in report.failing,
        "problems": part.problems,
    }


_COLUMNS = ("CERTIFICATE", "ISSUER", "NAMES", "NOT AFTER", "RENEWAL DUE", "SERVED SERIAL", "STATE")


def _row(part: Part, report: Report, now: float) -> tuple[str, ...]:
    found = part.certificate
    if found is None or part.placeholder:
        issuer = not_after = "-"
    else:
        issuer = "self-signed" if part.entry["issuer"] == "self_signed" else _common_name(found.issuer)
        not_after = f"{_moment(found.not_after)} ({int((found.not_after - now) // lineage.DAY)} d)"
    served = sorted({_serial(part, answer) for answer in part.answers.values() if isinstance(answer, bytes)})
    state = "wrong" if part.name in report.failing else "served" if part.names else "not used"
    return (
        part.label,
        issuer,
        _listed(part.entry["domains"], 2),
        not_after,
        _moment(part.renewal) if part.renewal is not None else "-",
        ", ".join(served) or "-",
        "placeholder" if part.placeholder else state,
    )


def _common_name(issuer: str) -> str:
    parts = dict(each.partition("=")[::2] for each in issuer.split(", "))
    return parts.get("commonName") or parts.get("organizationName") or issuer


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (_COLUMNS, *rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code: 0 when all is well, 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog=os.path.basename(layout.TOOL), description="Keeps this host's certificates.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("reconcile", help="have nginx serve the certificates that are on the disk")
    verbs.add_parser("renew", help="renew the certificates that are due, then reconcile")
    verbs.add_parser("status", help="say how the certificates are").add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("Only root can read the certificates. Use sudo.", file=sys.stderr)
        return 2
    try:
        problems = {"reconcile": reconcile, "renew": renew, "status": lambda: status(given.json)}[given.verb]()
    except (OSError, serving.BusyError) as error:
        problems = [f"Nothing can be said of the certificates: {error}"]
    except ValueError as error:
        problems = [f"Nothing can be said of the certificates, for {register.path()} or nginx's manifest is damaged: {error}"]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0
