# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""certbot on this host: what it can do, how it is told what to do, and what comes of it."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
import tempfile
import time
import typing as t
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.portico.web.plugins.module_utils import commands, files, layout, lineage

PACKAGED = "/usr/bin/certbot"
LOG = "/var/log/letsencrypt/letsencrypt.log"
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"

SECONDS_FOR_AN_ORDER = 300
SECONDS_FOR_HOOKS = 1800
SECONDS_FOR_A_RENEWAL = 3600
SECONDS_FOR_ANOTHER_CERTBOT = 120
SECONDS_BETWEEN_TRIES = 3

_SINCE: Mapping[str, tuple[tuple[int, int], str]] = {
    "profile": ((4, 0), "a profile"),
}
"""Key of an order -> the certbot that can do it first, and what to call it. The rest is older than Debian 12's."""


@dataclass(frozen=True)
class Authority:
    """How a host speaks to its CA, beside what an order says."""

    email: str | None = None
    eab: Mapping[str, str] = field(default_factory=dict)
    """C(kid) and C(hmac_key), or nothing."""
    account: str | None = None
    """The account to use, by certbot's name for it."""


def program(from_pypi: bool) -> str:
    """Return where certbot is, or will be."""
    return f"{layout.CERTBOT_ENVIRONMENT}/bin/certbot" if from_pypi else PACKAGED


def version(program: str) -> tuple[int, ...] | None:
    """Return the version of an installed certbot; None where there is none.

    It is read from the package's own record. certbot takes half a second to say it.
    """
    if not os.path.exists(program):
        return None
    places = "/usr/lib/python3*/dist-packages" if program == PACKAGED else f"{os.path.dirname(os.path.dirname(program))}/lib/python3*/site-packages"
    for record in sorted(glob.glob(f"{places}/certbot-[0-9]*.*-info")):
        return numbers(os.path.basename(record))
    return numbers(commands.run([program, "--version"]).out)


def numbers(text: str) -> tuple[int, ...] | None:
    """Return the first version that a text names."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, found.group(0).split("."))) if found else None


def cannot(orders: Iterable[lineage.Order], version: Sequence[int]) -> list[str]:
    """Return what is asked of a certbot that is too old for it, a line each, with the one that can."""
    return [
        f"{order['name']}: {what} needs certbot {first[0]}.{first[1]} or newer, and this host's is {'.'.join(map(str, version))}. "
        "Set certbot_install to pypi for a newer one, or leave it out."
        for order in orders
        for key, (first, what) in _SINCE.items()
        if order.get(key) and tuple(version) < first
    ]


class Certbot:
    """An installed certbot."""

    def __init__(self, program: str, authority: Authority | None = None) -> None:
        self.program = program
        self.authority = authority or Authority()
        self.version = version(program) or ()

    def obtain(self, order: lineage.Order, known: lineage.Lineage) -> str | None:
        """Let certbot obtain a lineage, or change one in place, and return why it could not.

        The CA is asked once. Only where it does not know this host's account any more is a new one made, and then asked
        again: that is no failure that it counts.
        """
        files.open_folders(layout.ACME_WEBROOT, layout.STATE)
        done, log = self._order(order, known)
        if done.rc != 0 and lineage.has_no_account(done.out + done.err, log):
            set_aside_accounts(order["server"])
            done, log = self._order(order, known)
        if done.rc == 0:
            return None
        if done.rc == 124:
            return f"certbot was stopped, for it had not ended after {self._seconds_for(order)} seconds"
        return lineage.words_of_failure(f"{done.out}\n{done.err}", log, order["server"])

    def _order(self, order: lineage.Order, known: lineage.Lineage) -> tuple[commands.Done, str]:
        with self._registration(order["server"], known.parameters.get("account")) as registration:
            return self.run([*self.command(order, known), *registration], self._seconds_for(order))

    @staticmethod
    def _seconds_for(order: lineage.Order) -> float:
        challenge = order["challenge"]
        # Somebody's own hooks may wait for each name. certbot's plugins wait once for all of them.
        wait = SECONDS_FOR_HOOKS if challenge["kind"] == "hooks" else challenge.get("propagation") or 0
        return SECONDS_FOR_AN_ORDER + wait

    def command(self, order: lineage.Order, known: lineage.Lineage) -> list[str]:
        """Return the arguments with which certbot obtains a lineage. It would else keep one that is not due for renewal."""
        certificate = known.certificate
        key_type = order.get("key_type") or (certificate.key_type if certificate else "") or "ecdsa"
        key_size = order.get("key_size") or (certificate.key_size if certificate and certificate.key_type == key_type else 0)
        argv = ["certonly", "--non-interactive", "--agree-tos", "--no-directory-hooks", "--cert-name", order["name"], "--server", order["server"]]
        argv += ["--email", self.authority.email] if self.authority.email else ["--register-unsafely-without-email"]
        argv += _challenge(order)
        argv += ["--key-type", key_type]
        if key_type == "rsa":
            argv += ["--rsa-key-size", str(key_size or 2048)]
        else:
            argv += ["--elliptic-curve", lineage.CURVE_NAMES[key_size or 256]]
        argv += ["--reuse-key"] if order.get("reuse_key") else []
        # certbot would otherwise keep a key that is reused, whatever its kind.
        argv += ["--new-key"] if order.get("reuse_key") and certificate and (certificate.key_type, certificate.key_size) != (key_type, key_size) else []
        argv += ["--preferred-chain", order["preferred_chain"]] if order.get("preferred_chain") else []
        argv += ["--preferred-profile", order["profile"]] if order.get("profile") else []
        argv += ["--force-renewal"] if known.known else []
        for domain in order["domains"]:
            argv += ["--domain", domain]
        return argv

    def renew(self, orders: Iterable[lineage.Order], now: float) -> list[str]:
        """Let certbot renew whatever is due on this host, and return what went wrong, a line each.

        What somebody has damaged is made whole first, as far as its files are there: certbot would not see it.

        :param orders: the lineages that are Portico's.
        """
        problems = []
        for order in orders:
            try:
                repair(order, self.version)
                self.settle(order)
            except OSError as error:
                problems.append(f"{order['name']}: {error}")
        for order in orders:
            # certbot 4.0 asks for a profile at the first order and forgets it.
            if order.get("profile") and (4, 0) <= self.version < (4, 1) and is_due(order["name"], now):
                problems += self._again(order)
        done, log = self.run(["renew", "--quiet", "--non-interactive", "--no-random-sleep-on-renew"], SECONDS_FOR_A_RENEWAL)
        if done.rc != 0:
            failed = [order for order in orders if is_due(order["name"], now)]
            if failed and lineage.has_no_account(done.out + done.err, log):
                problems += [problem for order in failed for problem in self._again(order)]
            else:
                server = failed[0]["server"] if failed else "the CA"
                who = ", ".join(order["name"] for order in failed) or "certbot renew"
                problems.append(f"{who}: it could not be renewed: {lineage.words_of_failure(f'{done.out}{done.err}', log, server)}")
        for order in orders:
            try:
                self.settle(order)
            except OSError as error:
                problems.append(f"{order['name']}: {error}")
        return list(dict.fromkeys(problems))

    def _again(self, order: lineage.Order) -> list[str]:
        why = self.obtain(order, lineage.read(order["name"]))
        return [f"{order['name']}: it could not be renewed: {why}"] if why else []

    def settle(self, order: lineage.Order, account: str | None = None) -> bool:
        """Have a lineage's renewal configuration say what it must, and return whether it did not."""
        if self._settled(order, account) is None:
            return False
        with alone():
            wanted = self._settled(order, account)
            if wanted is not None:
                files.write(f"{lineage.RENEWAL}/{order['name']}.conf", wanted)
        return True

    def _settled(self, order: lineage.Order, account: str | None) -> str | None:
        """Return what a renewal configuration must say; None where it says so, or there is none."""
        found = lineage.read(order["name"])
        if found.configuration is None:
            return None
        wanted = lineage.settled_configuration(found, order, self.version, account)
        return wanted if wanted != found.configuration else None

    def delete(self, name: str, revoke: bool) -> str | None:
        """Delete a lineage, and revoke its certificate first if so asked; return why it could not be."""
        found = lineage.read(name)
        server = found.server or "the CA"
        if revoke and found.certificate and found.certificate.not_after > time.time():
            # By the certificate's own key: the account may be gone, or be one of several.
            argv = ["revoke", "--non-interactive", "--cert-name", name, "--no-delete-after-revoke"]
            argv += ["--key-path", f"{lineage.LIVE}/{name}/{layout.KEY_FILE}"] if found.key_matches else []
            argv += ["--reason", "cessationofoperation", *(["--server", found.server] if found.server else [])]
            done, log = self.run(argv, SECONDS_FOR_AN_ORDER)
            # As after a run that was killed in between.
            if done.rc != 0 and "urn:ietf:params:acme:error:alreadyRevoked" not in f"{done.out}{done.err}{log}":
                return lineage.words_of_failure(f"{done.out}\n{done.err}", log, server)
        done, log = self.run(["delete", "--non-interactive", "--cert-name", name], SECONDS_FOR_AN_ORDER)
        return None if done.rc == 0 else lineage.words_of_failure(f"{done.out}\n{done.err}", log, server)

    def run(self, argv: Sequence[str], seconds: float) -> tuple[commands.Done, str]:
        """Run certbot, and return what it left and what it added to its log. Another certbot at work is waited for."""
        deadline = time.monotonic() + SECONDS_FOR_ANOTHER_CERTBOT
        with trusted() as trust:
            while True:
                log = files.LogFromNow(LOG)
                done = commands.run([self.program, *argv], {"REQUESTS_CA_BUNDLE": trust}, seconds)
                # Nothing was asked of the CA yet, so that waiting is no second try.
                if done.rc in (0, 124) or not lineage.is_locked(done.out + done.err) or time.monotonic() > deadline:
                    return done, log.read()
                time.sleep(SECONDS_BETWEEN_TRIES)  # certbot only tries its lock, and has no way to wait for it

    @contextlib.contextmanager
    def _registration(self, server: str, account: str | None = None) -> Iterator[list[str]]:
        """Give what only an account's registration or choice needs. What is secret in it goes through a file that root reads."""
        accounts = lineage.accounts(server)
        if accounts:
            chosen = next((each for each in (self.authority.account, account) if each in accounts), accounts[-1])
            yield ["--account", chosen] if len(accounts) > 1 else []
            return
        if not self.authority.eab:
            yield []
            return
        with tempfile.NamedTemporaryFile("w", prefix="portico-certbot-", suffix=".ini", dir=_run_folder()) as file:
            file.write(f"eab-kid = {self.authority.eab['kid']}\neab-hmac-key = {self.authority.eab['hmac_key']}\n")
            file.flush()
            yield ["--config", file.name]


def _challenge(order: lineage.Order) -> list[str]:
    """Return how a name is proved."""
    challenge = order["challenge"]
    if challenge["kind"] == "http":
        return ["--webroot", "--webroot-path", layout.ACME_WEBROOT]
    if challenge["kind"] == "hooks":
        hooks = ["--manual-auth-hook", challenge["auth"], *(["--manual-cleanup-hook", challenge["cleanup"]] if challenge["cleanup"] else [])]
        return ["--manual", *hooks, "--preferred-challenges", challenge["type"]]
    plugin = f"dns-{challenge['plugin']}"
    argv = ["--authenticator", plugin]
    argv += [f"--{plugin}-credentials", lineage.credentials_file(order["name"])] if challenge["has_credentials"] else []
    argv += [f"--{plugin}-propagation-seconds", str(challenge["propagation"])] if challenge.get("propagation") is not None else []
    return argv


def is_due(name: str, now: float) -> bool:
    """Return whether a lineage's certificate is in its time of renewal, or cannot be read."""
    found = lineage.read(name)
    return found.certificate is None or found.certificate.not_after - now < lineage.window(found.certificate, found.configuration)


@contextlib.contextmanager
def trusted() -> Iterator[str]:
    """Return a file with the CAs that verify any CA's own server: those of the system, and those the play brought."""
    with tempfile.NamedTemporaryFile("w", prefix="portico-certbot-", suffix=".pem", dir=_run_folder()) as file:
        file.write(f"{files.read(SYSTEM_CAS) or ''}\n{files.read(layout.ACME_CA_BUNDLE) or ''}")
        file.flush()
        yield file.name


def _run_folder() -> str | None:
    return "/run" if os.access("/run", os.W_OK) else None


# ---- accounts


def set_aside_accounts(server: str) -> None:
    """Move a CA's accounts away, so that certbot registers a new one. The keys are kept."""
    folder = lineage.account_folder(server)
    kept = f"{layout.CERTBOT}/lost-accounts"
    os.makedirs(kept, mode=0o700, exist_ok=True)
    os.chmod(kept, 0o700)
    shutil.move(folder, f"{kept}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.path.basename(os.path.dirname(folder))}")


def is_lost(account: str) -> bool:
    """Return whether the CA did not know an account any more."""
    return bool(glob.glob(f"{layout.CERTBOT}/lost-accounts/*/{account}"))


def exported_account(server: str, name: str) -> str:
    """Return an account, its private key included, as a text that L(import_account) takes."""
    folder = f"{lineage.account_folder(server)}/{name}"
    parts = {part: json.loads(files.read(f"{folder}/{part}.json") or "null") for part in ("regr", "private_key", "meta")}
    return json.dumps({"server": server, "name": name, **parts}, indent=1) + "\n"


def import_account(account: Mapping[str, t.Any]) -> None:
    """Put an exported account where certbot looks for it, complete or not at all, for root alone."""
    folder = lineage.account_folder(account["server"])
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # certbot takes what begins with a dot for an account too, so that it is not made beside the others.
    new = tempfile.mkdtemp(prefix=".portico-", dir=lineage.LETSENCRYPT)
    try:
        for part in ("regr", "private_key", "meta"):
            files.write(f"{new}/{part}.json", json.dumps(account[part]), 0o600 if part != "private_key" else 0o400)
        # What a run that was killed had not finished.
        shutil.rmtree(f"{folder}/{account['name']}", ignore_errors=True)
        os.rename(new, f"{folder}/{account['name']}")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


# ---- lineages that somebody or something broke


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep every certbot of this host from its work meanwhile, with the lock that each of them takes.

    :raises TimeoutError: when another has it for too long.
    """
    path = f"{lineage.LETSENCRYPT}/.certbot.lock"
    deadline = time.monotonic() + SECONDS_FOR_ANOTHER_CERTBOT
    while (lock := _locked(path)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"another certbot is at work on this host, and was waited for during {SECONDS_FOR_ANOTHER_CERTBOT} seconds")
        time.sleep(SECONDS_BETWEEN_TRIES)  # to wait in the lock's own way would mean to wait without an end
    try:
        yield
    finally:
        os.remove(path)
        os.close(lock)


def _locked(path: str) -> int | None:
    """Return the lock, or None where somebody has it. Whoever gives it back removes its file, as certbot does."""
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path), os.fstat(lock)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass  # somebody has it, or has given it back since it was opened
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def repair(order: lineage.Order, version: Sequence[int]) -> str | None:
    """Make a lineage whole again as far as its files are still there, and return what was done.

    certbot neither renews nor replaces one whose parts do not fit each other. What cannot be used is moved away, not
    removed: an order makes the lineage anew then.
    """
    if not needs_repair(order["name"]):
        return None
    # A certbot in the middle of its work leaves parts that do not fit each other, for a moment.
    with alone():
        return _repair(order, version) if needs_repair(order["name"]) else None


def _archive_copies(live: str, archive: str) -> None:
    """Make a version of copies that lie where certbot's links should be, as after a backup was brought back."""
    paths = {part: f"{live}/{part}.pem" for part in _PARTS}
    if not all(os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) for path in paths.values()):
        return
    numbers_there = [int(found.group(1)) for found in (re.fullmatch(r"\w+?(\d+)\.pem", name) for name in (os.listdir(archive) if os.path.isdir(archive) else [])) if found]
    number = max(numbers_there, default=0) + 1
    os.makedirs(archive, mode=0o700, exist_ok=True)
    for part, path in paths.items():
        shutil.copy2(path, f"{archive}/{part}{number}.pem")


def _repair(order: lineage.Order, version: Sequence[int]) -> str | None:
    name = order["name"]
    live, conf = f"{lineage.LIVE}/{name}", f"{lineage.RENEWAL}/{name}.conf"
    archive = f"{lineage.LETSENCRYPT}/archive/{name}"
    _archive_copies(live, archive)
    number = _newest(archive)
    if number is None:
        _move_away(name, live, conf, archive)
        return "what was left of it was moved away"
    done = []
    targets = {f"{live}/{part}.pem": f"../../archive/{name}/{part}{number}.pem" for part in _PARTS}
    if not _are_whole(targets):
        os.makedirs(live, mode=0o700, exist_ok=True)
        copies = [link for link in targets if os.path.lexists(link) and not os.path.islink(link)]
        if copies:
            _move_away(name, *copies)
        for link, target in targets.items():
            files.point(link, target)
        done.append("its links were made again")
    if not _is_whole(files.read(conf) or ""):
        accounts = lineage.accounts(order["server"])
        if os.path.exists(conf):
            _move_away(name, conf)
        files.write(conf, _configuration(order, accounts[-1] if accounts else None, version))
        done.append("its renewal configuration was made again")
    return " and ".join(done) or None


_PARTS = ("cert", "chain", "fullchain", "privkey")


def needs_repair(name: str) -> bool:
    """Return whether something of a lineage is there, and something is missing or damaged."""
    live, conf = f"{lineage.LIVE}/{name}", f"{lineage.RENEWAL}/{name}.conf"
    if not any(map(os.path.lexists, (live, conf, f"{lineage.LETSENCRYPT}/archive/{name}"))):
        return False
    return not _are_whole(f"{live}/{part}.pem" for part in _PARTS) or not _is_whole(files.read(conf) or "")


def _are_whole(links: Iterable[str]) -> bool:
    return all(os.path.islink(link) and os.path.exists(link) and os.path.getsize(link) for link in links)


def _newest(archive: str) -> int | None:
    """Return the newest number of which an archive has all parts, none of them empty."""
    names = os.listdir(archive) if os.path.isdir(archive) else []
    candidates = sorted((int(found.group(1)) for found in (re.fullmatch(r"fullchain(\d+)\.pem", name) for name in names) if found), reverse=True)
    paths = {number: [f"{archive}/{part}{number}.pem" for part in _PARTS] for number in candidates}
    return next((number for number in candidates if all(os.path.isfile(path) and os.path.getsize(path) for path in paths[number])), None)


def _is_whole(text: str) -> bool:
    """Return whether certbot can make sense of a renewal configuration."""
    top, parameters = lineage.top_parameters(text), lineage.renewal_parameters(text)
    # ConfigObj's values of several lines are somebody's own.
    readable = "'''" in text or '"""' in text or all(not line.strip() or line.strip().startswith(("#", "[")) or "=" in line for line in text.splitlines())
    return readable and set(_PARTS) <= top.keys() and {"server", "authenticator"} <= parameters.keys()


def _configuration(order: lineage.Order, account: str | None, version: Sequence[int]) -> str:
    name = order["name"]
    certificate = lineage.read_certificate(f"{lineage.LIVE}/{name}/{layout.CERTIFICATE_FILE}")
    top = {"version": ".".join(map(str, version)), "archive_dir": f"{lineage.LETSENCRYPT}/archive/{name}"}
    top.update({part: f"{lineage.LIVE}/{name}/{part}.pem" for part in ("cert", "privkey", "chain", "fullchain")})
    key_type = order.get("key_type") or (certificate.key_type if certificate else "") or "ecdsa"
    size = certificate.key_size if certificate and certificate.key_type == key_type else 0
    parameters = {"account": account, "key_type": key_type, "server": _server_of(certificate, order)}
    parameters.update({"rsa_key_size": str(size)} if key_type == "rsa" and size else {})
    parameters.update({"elliptic_curve": lineage.CURVE_NAMES.get(size, "")} if key_type == "ecdsa" else {})
    parameters.update(preferred_chain=order.get("preferred_chain"), preferred_profile=order.get("profile"))
    lines = [f"{key} = {value}" for key, value in top.items()]
    lines += ["", "# Options used in the renewal process", "[renewalparams]"]
    lines += [f"{key} = {value}" for key, value in parameters.items() if value]
    return lineage.settled_configuration(lineage.Lineage(configuration="\n".join(lines) + "\n"), order, version)


def _server_of(certificate: lineage.Certificate | None, order: lineage.Order) -> str:
    """Return the CA that a certificate is from, as far as it tells: nobody may be promised that a test certificate is trusted."""
    return lineage.STAGING if certificate and "(STAGING)" in certificate.issuer else order["server"]


def _move_away(name: str, *paths: str) -> None:
    """Move what is left of a lineage away; it may hold the only copy of a key."""
    os.makedirs(f"{layout.CERTBOT}/damaged", mode=0o700, exist_ok=True)
    os.chmod(f"{layout.CERTBOT}/damaged", 0o700)
    place = tempfile.mkdtemp(prefix=f"{name}-", dir=f"{layout.CERTBOT}/damaged")
    for path in paths:
        if os.path.lexists(path):
            shutil.move(path, f"{place}/{path.removeprefix(lineage.LETSENCRYPT + '/').replace('/', '-')}")
