# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""portico-certificates, the tool with which a host keeps its certificates itself.

certbot tells of a renewal once, and of what then goes wrong nobody. So what is true is looked at again and again: what
nginx serves for each name, and what lies on the disk. Where they differ nginx reloads; what then still differs, runs out
or is not renewed in time is a problem, and problems are loud: the unit has failed, a metric says so, a command is run.
"""

from __future__ import annotations

import argparse
import functools
import glob
import json
import os
import socket
import ssl
import sys
import time
import typing as t
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.portico.web.plugins.module_utils import certbot, commands, files, layout, lineage, register, serving, stapling, store

LOCK = "/run/lock/portico-certificates.lock"
METRICS = "/var/lib/prometheus/node-exporter/portico-certificates.prom"
SECONDS_FOR_ANOTHER_KEEPER = 600
SECONDS_FOR_AN_ALARM = 60
SECONDS_BETWEEN_ALARMS = lineage.DAY
SECONDS_FOR_A_PLAY = 900
"""How long after a play has said what the certificates are to be nobody is called for one that there is not yet."""

HOLDER = "portico-certificates on this host"
ARBITRARY = "portico-certificates"
"""A label that a wildcard stands for, and that no other server block has."""

_LONGEST_NOTICE = 30 * lineage.DAY
"""How long before its end somebody who brings a certificate is expected to bring the next, at the most."""


@dataclass
class Part:
    """A certificate as nginx reads it: a registered one, or one of the two of a pair."""

    name: str
    issuer: str
    """C(acme), C(own) or C(self_signed)."""
    path: str
    domains: Sequence[str] = ()
    key: str = ""
    """Of a pair, C(ecdsa) or C(rsa)."""
    lineage: str = ""
    """certbot's, if it is one of those."""
    server_names: Sequence[str] = ()
    """The names that nginx serves with it."""
    placeholder: bool = False
    """Whether nginx is told to serve the placeholder in its place."""
    content: bytes | None = None
    certificate: lineage.Certificate | None = None
    served: dict[str, str] = field(default_factory=dict)
    """Name to the serial number that nginx serves for it."""
    wrong: list[str] = field(default_factory=list)
    """What is wrong on the disk."""
    differs: list[str] = field(default_factory=list)
    """What is wrong on the wire, which a reload may heal."""

    @property
    def window(self) -> float:
        """How long before its end it is to be renewed, in seconds."""
        if self.certificate is None:
            return 0
        if self.issuer == "own":
            return min(self.certificate.window, _LONGEST_NOTICE)
        return lineage.window(self.certificate, files.read(f"{lineage.RENEWAL}/{self.lineage}.conf") if self.lineage else None)

    @property
    def is_missing(self) -> bool:
        """Whether it was never had."""
        return self.placeholder or not os.path.lexists(self.path)

    @property
    def labels(self) -> dict[str, str]:
        return {"certificate": self.name, **({"key": self.key} if self.key else {})}

    @property
    def id(self) -> str:
        return f"{self.name}/{self.key}" if self.key else self.name


class Problem(t.NamedTuple):
    """What is wrong and could not be healed."""

    certificates: tuple[str, ...]
    """Those that it concerns; none where it is the host's."""
    line: str
    part: str = ""
    """The one that it concerns alone, of a pair."""
    is_new: bool = False
    """Whether it may be solved in a moment, by the play that just runs and tells its own failures."""


State = dict[str, t.Any]
"""What the tool keeps from run to run: C(unread), whether nginx has not read yet what was written for it; C(renewal), the problems of the last renewal; C(told), the C(problems) of which the
alarm command was last told, C(at) which time, with their C(certificates); C(success), when each part was last well."""


# ---- looking


def look(now: float) -> list[Part]:
    """Return the host's certificates as they lie on the disk, each with what is wrong about that."""
    found = []
    served = _server_names()
    for name, entry in sorted(register.certificates().items()):
        found += _parts(name, entry, served.get(name, []))
    for part in found:
        part.content = serving.on_disk(part.path)
        part.certificate = None if part.placeholder else lineage.read_certificate(part.path)
        part.wrong = _wrong(part, now)
    return found


def _server_names() -> dict[str, list[str]]:
    """Return the names that nginx serves with each certificate."""
    found: dict[str, list[str]] = {}
    for scope in store.manifest(store.live_number())["scopes"].values():
        certificates = scope["certificates"]
        if not isinstance(certificates, Mapping):
            # Published before names were kept with them: the names that it was ordered for.
            entries = register.certificates()
            certificates = {name: entries[name]["domains"] for name in certificates if name in entries}
        for name, server_names in certificates.items():
            found[name] = [*found.get(name, []), *server_names]
    return found


def _parts(name: str, entry: register.Entry, server_names: Sequence[str]) -> list[Part]:
    orders = entry["orders"]
    make = functools.partial(Part, name, entry["issuer"], domains=entry["domains"], server_names=server_names)
    if not server_names:
        if not orders:
            return [make(f"{layout.OWN}/{name}/{layout.CERTIFICATE_FILE}")]
        kinds = _kinds(orders)
        return [make(f"{lineage.LIVE}/{order['name']}/{layout.CERTIFICATE_FILE}", key=kind, lineage=order["name"]) for order, kind in zip(orders, kinds)]
    link = layout.certificate_link(name)
    placeholder = os.path.realpath(link) == os.path.realpath(layout.PLACEHOLDER)
    paths = [f"{link}/{layout.CERTIFICATE_FILE}", f"{layout.LINEAGES}/{name}/rsa/{layout.CERTIFICATE_FILE}"]
    if len(orders) < 2 or placeholder:
        return [make(paths[0], placeholder=placeholder, lineage=name if orders else "")]
    return [make(path, key=kind, lineage=order["name"]) for path, kind, order in zip(paths, _kinds(orders), orders)]


def _kinds(orders: Sequence[lineage.Order]) -> list[str]:
    return ["ecdsa", "rsa"] if len(orders) > 1 else [""]


def _wrong(part: Part, now: float) -> list[str]:
    """Return what is wrong with a certificate on the disk, a phrase each."""
    certificate = part.certificate
    if part.placeholder:
        return ["it has no certificate, and nginx is told to serve a placeholder. The next run of the play obtains one"]
    if certificate is None:
        if part.server_names and not part.key:
            return [f"{layout.certificate_link(part.name)} leads to no certificate that can be read. The next run of the play obtains it again"]
        kind = f" with an {part.key.upper()} key" if part.key else ""
        return [f"{part.path} cannot be read" if os.path.lexists(part.path) else f"it has no certificate{kind} yet"]
    left = certificate.not_after - now
    if left <= 0:
        return [f"it expired on {_day(certificate.not_after)}"]
    if certificate.not_before > now:
        return [f"it is not valid before {_day(certificate.not_before)}, by this host's clock"]
    if left < part.window * _patience(certificate):
        return [f"it expires on {_day(certificate.not_after)}, and should have been renewed since {_day(certificate.not_after - part.window)}"]
    return []


def _patience(certificate: lineage.Certificate) -> float:
    """Return from which part of its time of renewal on a certificate is overdue.

    A certbot that asks the CA for the time takes a later one too. For a certificate of days that makes much of it.
    """
    return 1 / 4 if certificate.lifetime < lineage.SHORT_LIVED else 3 / 4


def staple(problems: list[str]) -> bool:
    """Have nginx staple to what it is led to, where that wants it since its renewal, and return whether something was another way.

    :param problems: what went wrong is added, a line for each certificate.
    """
    found = False
    for name in register.certificates():
        target = files.target(layout.certificate_link(name))
        try:
            found |= target is not None and stapling.settle(os.path.normpath(f"{layout.CERTIFICATES}/{target}"))
        except OSError as error:
            problems.append(f"{name}: {error}")
    return found


def compare(parts: Iterable[Part], port: int) -> None:
    """Ask nginx for every name of every certificate, and have each part say what differs from the disk."""
    for part in parts:
        part.served = {}
        differs: dict[str, list[str]] = {}
        # Where nothing is to be had, nginx serves what it has: a reload could only make it worse.
        for name in part.server_names if part.certificate else ():
            try:
                found = serving.served(name.replace("*", ARBITRARY, 1), port, part.key or None)
            except serving.ServingError as error:
                differs.setdefault(str(error), []).append(name)
                continue
            part.served[name] = part.certificate.serial if part.certificate and found == part.content else _serial(found)
            if found != part.content:
                differs.setdefault(f"nginx serves another certificate, with the serial number {part.served[name]}", []).append(name)
        part.differs = [f"{words} ({', '.join(names)})" for words, names in differs.items()]


def _is_down(different: Sequence[Part]) -> bool:
    """Return whether nothing is served because nginx does not run, and have each part say that alone."""
    if any(part.served for part in different) or serving.is_active():
        return False
    for part in different:
        part.differs = ["nginx does not run"]
    return True


@functools.lru_cache(maxsize=None)
def _serial(content: bytes) -> str:
    done = commands.run(["openssl", "x509", *lineage.ASKED], text=ssl.DER_cert_to_PEM_cert(content))
    certificate = lineage.parse_certificate(done.out)
    return certificate.serial if certificate else "unknown"


def _port() -> int:
    return int(store.manifest(store.live_number())["host"]["settings"].get("https_port", 443))


def problems(parts: Sequence[Part], now: float, renewal: Iterable[str] = (), others: Iterable[str] = ()) -> list[Problem]:
    """Return all that is wrong, once each.

    :param renewal: what went wrong when certificates were renewed, as certbot's and the host's own half tell it.
    :param others: what is wrong with the host.
    """
    found = [Problem((), line) for line in others]
    is_new = 0 <= now - os.path.getmtime(register.path()) < SECONDS_FOR_A_PLAY if parts else False
    for part in parts:
        kind = f" ({part.key.upper()})" if part.key else ""
        found += [Problem((part.name,), f"{part.name}{kind}: {words}", part.id, part.is_missing and is_new) for words in (*part.wrong, *part.differs)]
    found += [Problem(_concerned(line), line) for line in renewal]
    return list(dict.fromkeys(found))


def _lineages() -> dict[str, str]:
    """Return the certificate that each lineage is of; one without lineages is named as itself."""
    return {each: name for name, entry in register.certificates().items() for each in ([order["name"] for order in entry["orders"]] or [name])}


def _named(line: str) -> list[str]:
    """Return the lineages that a line of a failed renewal begins with."""
    known = _lineages()
    names = line.partition(": ")[0].split(", ")
    return names if all(name in known for name in names) else []


def _concerned(line: str) -> tuple[str, ...]:
    known = _lineages()
    return tuple(dict.fromkeys(known[name] for name in _named(line)))


def _still(renewal: Iterable[str], now: float) -> list[str]:
    """Return the problems of the last renewal that nobody has solved since."""
    return [line for line in renewal if not (names := _named(line)) or any(_is_due(name, now) for name in names)]


def _is_due(name: str, now: float) -> bool:
    entry = register.certificates()[_lineages()[name]]
    if entry["orders"]:
        return certbot.is_due(name, now)
    certificate = lineage.read_certificate(f"{layout.OWN}/{name}/{layout.CERTIFICATE_FILE}")
    return certificate is None or certificate.not_after - now < certificate.window


# ---- the verbs


def reconcile(renewal: Sequence[str] | None = None) -> int:
    """Have nginx serve what lies on the disk, and raise an alarm where that cannot be.

    :param renewal: what has just gone wrong in a renewal; what did so last is remembered.
    :returns: the exit code. It says nothing of a certificate that a play may just be obtaining: whose unit failed meanwhile would be
        taken for one that needs somebody.
    """
    with serving.Lock(HOLDER, SECONDS_FOR_ANOTHER_KEEPER, LOCK, "keeps this host's certificates"):
        now, state, port = time.time(), _state(), _port()
        parts, others = look(now), []
        # Until nginx has read it, whatever else comes in between.
        state["unread"] = staple(others) or bool(state.get("unread"))
        compare(parts, port)
        different = [part for part in parts if part.differs]
        if (different and not _is_down(different)) or (state["unread"] and serving.is_active()):
            why = serving.reload(HOLDER)
            if why is None:
                state["unread"] = False
                compare(different, port)
            else:
                others.append(why)
        state["renewal"] = _still(state.get("renewal", []), now) if renewal is None else list(renewal)
        found = problems(parts, now, state["renewal"], others)
        failures = _tell(parts, found, state, now)
    for line in (*(problem.line for problem in found), *failures):
        print(_line(line), file=sys.stderr)
    return 1 if _pressing(found, state) or failures else 0


def renew() -> int:
    """Renew what is due, by certbot and by the host itself, and have nginx serve it.

    certbot runs this tool again, as its hook, so that no lock of the tool's is held meanwhile.

    :returns: the exit code.
    """
    wrong = []
    entries = register.certificates()
    orders = [order for entry in entries.values() for order in entry["orders"]]
    program = register.setting("certbot", certbot.PACKAGED)
    if os.path.exists(program) and (orders or glob.glob(f"{lineage.RENEWAL}/*.conf")):
        try:
            wrong += certbot.Certbot(program, certbot.Authority(register.setting("email"))).renew(orders, time.time())
        except OSError as error:
            wrong.append(f"certbot renew: {error}")
    elif orders:
        wrong.append(f"certbot renew: there is no {program}")
    if any(entry["issuer"] == "self_signed" for entry in entries.values()):
        from ansible_collections.portico.web.plugins.module_utils import own_certificates

        wrong += own_certificates.renew(entries)
    return reconcile(wrong)


def status(as_json: bool) -> int:
    """Show every certificate, and change nothing.

    :returns: the exit code.
    """
    now = time.time()
    parts = look(now)
    compare(parts, _port())
    _is_down([part for part in parts if part.differs])
    found = problems(parts, now, _still(_state().get("renewal", []), now))
    rows = [_row(part, found, now) for part in parts]
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _print_table(rows)
    for problem in found:
        if not problem.certificates:
            print(_line(problem.line), file=sys.stderr)
    return 1 if found else 0


def _line(text: str) -> str:
    return " ".join(text.split())


# ---- status


def _row(part: Part, found: Iterable[Problem], now: float) -> dict[str, t.Any]:
    """Return what a machine is told of a certificate."""
    certificate = part.certificate
    mine = [problem.line for problem in found if _concerns(problem, part)]
    return {
        "certificate": part.name,
        "key": part.key or (certificate.key_type if certificate else ""),
        "kind": part.issuer,
        "issuer": certificate.issuer if certificate else None,
        "names": sorted(certificate.domains if certificate else part.domains),
        "serial": certificate.serial if certificate else None,
        "not_before": _moment(certificate.not_before) if certificate else None,
        "not_after": _moment(certificate.not_after) if certificate else None,
        "days_left": int((certificate.not_after - now) // lineage.DAY) if certificate else None,
        "renewal_due": _moment(certificate.not_after - part.window) if certificate else None,
        "served": part.served,
        "state": "failed" if mine else "ok" if part.server_names else "not served",
        "problems": mine,
    }


def _concerns(problem: Problem, part: Part) -> bool:
    return problem.part == part.id if problem.part else part.name in problem.certificates


_COLUMNS = ("CERTIFICATE", "ISSUER", "NAMES", "NOT AFTER", "RENEWAL DUE", "SERVED SERIAL", "STATE")


def _print_table(rows: Sequence[Mapping[str, t.Any]]) -> None:
    if not rows:
        print("portico.web keeps no certificate on this host.")
        return
    lines = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _cells(row: Mapping[str, t.Any]) -> tuple[str, ...]:
    names = row["names"]
    served = sorted(set(row["served"].values()))
    return (
        row["certificate"] + (f" ({row['key']})" if row["key"] else ""),
        _common_name(row["issuer"]) if row["issuer"] else row["kind"],
        ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else ""),
        f"{row['not_after'][:10]} ({row['days_left']} days)" if row["not_after"] else "-",
        row["renewal_due"][:10] if row["renewal_due"] else "-",
        ", ".join(served) or "-",
        _line("; ".join(row["problems"])) or row["state"],
    )


def _common_name(issuer: str) -> str:
    parts = dict(part.partition("=")[::2] for part in issuer.split(", "))
    return parts.get("commonName") or parts.get("organizationName") or issuer


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _day(seconds: float) -> str:
    return _moment(seconds)[:10]


# ---- telling


def _state_path() -> str:
    return f"{layout.CERTBOT}/keeper.json"


def _state() -> State:
    """Return what was kept. What cannot be read is not worth more than what it would keep from being done."""
    try:
        found = json.loads(files.read(_state_path()) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _tell(parts: Sequence[Part], found: Sequence[Problem], state: State, now: float) -> list[str]:
    """Tell people and machines what was found, and return whom it could not be told, a line each."""
    failures = []
    before = json.dumps(state)
    well = {part.id for part in parts if not any(_concerns(problem, part) for problem in found)}
    success = state.get("success", {})
    state["success"] = {part.id: now if part.id in well else success[part.id] for part in parts if part.id in well or part.id in success}
    why = _alarm(found, state, now)
    if why is not None:
        failures.append(why)
    try:
        if parts or found or before != json.dumps(state):
            os.makedirs(layout.CERTBOT, mode=0o755, exist_ok=True)
            files.write(_state_path(), json.dumps(state, indent=1, sort_keys=True) + "\n")
        path = register.setting("metrics", METRICS)
        if os.path.isdir(os.path.dirname(path)):
            files.write(path, metrics(parts, well, state["success"], now))
    except OSError as error:
        # A disk that is full must not keep the other half from being told.
        failures.append(f"What was found cannot be written: {error}")
    return failures


def _pressing(found: Iterable[Problem], state: State) -> list[Problem]:
    """Return the problems that somebody has to know of: not what a play may solve in a moment, unless it was told of before."""
    told = (state.get("told") or {}).get("problems", [])
    return [problem for problem in found if not problem.is_new or _line(problem.line) in told]


def _alarm(found: Sequence[Problem], state: State, now: float) -> str | None:
    """Run the user's command if there is something new to tell, and return why that failed.

    Only what the command took is told: it is run again the next time else.
    """
    command = register.setting("alarm_command", [])
    told = state.get("told")
    found = _pressing(found, state)
    lines = sorted({_line(problem.line) for problem in found})
    if not command or (not lines and not told):
        state["told"] = None
        return None
    if lines and told and told["problems"] == lines and 0 <= now - told["at"] < SECONDS_BETWEEN_ALARMS:
        return None
    concerned = sorted({name for problem in found for name in problem.certificates})
    new = {"problems": lines, "certificates": concerned, "at": now} if lines else None
    what = new or told
    text = "".join(f"{line}\n" for line in what["problems"])
    environment = {
        "PORTICO_STATE": "failed" if new else "resolved",
        "PORTICO_HOST": socket.getfqdn(),
        "PORTICO_CERTIFICATES": " ".join(what["certificates"]),
        "PORTICO_PROBLEMS": text.rstrip("\n"),
    }
    try:
        done = commands.run(command, environment, SECONDS_FOR_AN_ALARM, text)
    except OSError as error:
        done = commands.Done(126, "", str(error))
    if done.rc != 0:
        how = f"had not ended after {SECONDS_FOR_AN_ALARM} seconds" if done.rc == 124 else f"ended with {done.rc}"
        return _line(f"The alarm command {command[0]} {how}: {done.err.strip() or done.out.strip() or 'it did not say why'}")
    state["told"] = new
    return None


_HELP = {
    "portico_certificate_not_after_timestamp_seconds": "The end of the validity of the certificate on the disk.",
    "portico_certificate_not_before_timestamp_seconds": "The beginning of the validity of the certificate on the disk.",
    "portico_certificate_last_success_timestamp_seconds": "When the certificate was last served as it lies on the disk, and without a problem.",
    "portico_certificate_ok": "Whether the certificate is served as it lies on the disk, is valid, and is renewed in time.",
    "portico_certificate_served_info": "The serial number of the certificate that nginx serves for a name.",
    "portico_certificates_last_run_timestamp_seconds": "When the host last looked at its certificates.",
}


def metrics(parts: Iterable[Part], well: Collection[str], success: Mapping[str, float], now: float) -> str:
    """Return the metrics in Prometheus's text format, which node exporter's textfile collector reads.

    See U(https://prometheus.io/docs/instrumenting/exposition_formats/).

    :param well: the parts that have no problem.
    :param success: when each part was last well.
    """
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {name: [] for name in _HELP}
    for part in parts:
        if part.certificate:
            samples["portico_certificate_not_after_timestamp_seconds"].append((part.labels, part.certificate.not_after))
            samples["portico_certificate_not_before_timestamp_seconds"].append((part.labels, part.certificate.not_before))
        if part.id in success:
            samples["portico_certificate_last_success_timestamp_seconds"].append((part.labels, success[part.id]))
        samples["portico_certificate_ok"].append((part.labels, part.id in well))
        samples["portico_certificate_served_info"] += [({**part.labels, "name": name, "serial": serial}, 1) for name, serial in part.served.items()]
    samples["portico_certificates_last_run_timestamp_seconds"].append(({}, now))
    lines = []
    for name, help_text in _HELP.items():
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(labels)} {int(value)}" for labels, value in samples[name]]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items()) + "}" if labels else ""


# ---- the command


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="portico-certificates", description="Keep this host's certificates: renewed, and served as they lie on the disk.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("reconcile", help="have nginx serve what lies on the disk, and raise an alarm where that cannot be")
    verbs.add_parser("renew", help="renew what is due, then reconcile")
    shown = verbs.add_parser("status", help="show every certificate, and change nothing")
    shown.add_argument("--json", action="store_true", help="for machines")
    asked = parser.parse_args(arguments)
    if os.path.isdir(lineage.LIVE) and not os.access(lineage.LIVE, os.R_OK | os.X_OK):
        print("portico-certificates: only root may read this host's certificates. Run it as root.", file=sys.stderr)
        return 1
    try:
        if asked.verb == "status":
            return status(asked.json)
        return renew() if asked.verb == "renew" else reconcile()
    except (serving.ServingError, OSError, ValueError) as error:
        print(f"portico-certificates: {_line(str(error))}", file=sys.stderr)
        return 1
