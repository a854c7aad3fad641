# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nginx on this host, as it serves: who may change it, which certificates visitors meet, and a reload that is proved.

Whether a reload was carried out it tells nobody, neither by its exit code nor systemd. Its workers know.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import ssl
import time
import typing as t
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.portico.web.plugins.module_utils import commands, files

LOCK = "/run/lock/portico-nginx.lock"
ERROR_LOG = "/var/log/nginx/error.log"
PID_FILE = "/run/nginx.pid"

SECONDS_FOR_ANOTHER_RUN = 300
SECONDS_TO_PROVE = 60
SECONDS_FOR_NAMES = 5
"""How long nginx has to serve what it has read. Its new workers have read everything, so that this is for a busy host."""
SECONDS_FOR_A_HANDSHAKE = 5


class BusyError(Exception):
    """Who was waited for in vain, in words for the person."""


class SilentError(Exception):
    """Why no certificate was met at all, in words for the person."""


class Lock:
    """The right to do what only one run at a time may. One has it; another waits, and learns for whom."""

    def __init__(self, holder: str, patience: int = SECONDS_FOR_ANOTHER_RUN, path: str | None = None, does: str = "changes this host's nginx") -> None:
        self.holder, self.patience, self.path, self.does = holder, patience, path or LOCK, does
        self.waited_for: str | None = None

    def __enter__(self) -> Lock:
        """Get it.

        :raises BusyError: when another run has it for too long.
        """
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.waited_for = os.pread(self._file, 1000, 0).decode(errors="replace").strip()
            self._wait()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{self.holder}, since {time.strftime('%H:%M:%S')}\n".encode(), 0)
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._file)

    def _wait(self) -> None:
        def give_up(*_args: object) -> None:
            raise TimeoutError

        before = signal.signal(signal.SIGALRM, give_up)
        signal.alarm(self.patience)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except TimeoutError:
            os.close(self._file)
            raise BusyError(f"Another run {self.does} ({self.waited_for}). It was waited for during {self.patience} seconds.") from None
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


# ---- what visitors meet

_AUTHENTICATED_BY = {"ecdsa": "aECDSA", "rsa": "aRSA"}
"""OpenSSL's names for the cipher suites of TLS 1.2 that a server can only use with a key of a kind."""
_SIGNED_BY = {"ecdsa": "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512", "rsa": "RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256"}
"""The signatures that a visitor accepts who wants such a key, in TLS 1.3 too."""
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Expectation:
    """Which certificate a visitor should meet who asks for a name."""

    name: str
    path: str
    """The PEM file."""
    port: int = 443
    key_type: str | None = None
    """Of a pair, the kind that the visitor wants, C(ecdsa) or C(rsa)."""

    def is_met(self) -> bool:
        try:
            return served(self.name, self.port, key_type=self.key_type) == on_disk(self.path)
        except (OSError, SilentError):
            return False


def served(name: str, port: int = 443, address: str = "127.0.0.1", key_type: str | None = None) -> bytes | None:
    """Return the certificate that a visitor meets, whoever signed it, in DER; None where nobody serves that name.

    :param name: what the visitor asks for (SNI, RFC 6066, section 3).
    :param key_type: C(ecdsa) or C(rsa), where the server has both and one is meant.
    :raises SilentError: when nothing listens there, or no TLS comes about.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # To see a certificate is not to trust it: a weak one is seen too.
    context.set_ciphers(f"{_AUTHENTICATED_BY[key_type] if key_type else 'DEFAULT'}:@SECLEVEL=0")
    if key_type:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with socket.create_connection((address, port), SECONDS_FOR_A_HANDSHAKE) as connection, context.wrap_socket(connection, server_hostname=name) as met:
            return met.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if "UNRECOGNIZED_NAME" in reason:
            return None
        if key_type and "PROTOCOL_VERSION" in reason:
            return _served_over_tls13(name, port, address, key_type)
        raise SilentError(f"TLS fails on port {port}: {reason.lower().replace('_', ' ') or error}") from error
    except TimeoutError as error:
        raise SilentError(f"there is no answer on port {port}") from error
    except OSError as error:
        raise SilentError(f"there is no answer on port {port}: {error.strerror or error}") from error


def _served_over_tls13(name: str, port: int, address: str, key_type: str) -> bytes:
    """Ask a server that has nothing older. Python's ssl cannot say which signatures it accepts, and openssl can."""
    asked = ["openssl", "s_client", "-connect", f"{address}:{port}", "-servername", name, "-sigalgs", _SIGNED_BY[key_type]]
    done = commands.run(asked, seconds=SECONDS_FOR_A_HANDSHAKE)
    found = _PEM.search(done.out)
    if found is None:
        raise SilentError(f"TLS fails on port {port} with a key of the kind {key_type}")
    return ssl.PEM_cert_to_DER_cert(found.group(0))


def on_disk(path: str) -> bytes:
    """Return the first certificate of a PEM file, in DER.

    :raises OSError: when there is none.
    """
    with open(path, encoding="ascii", errors="replace") as file:
        found = _PEM.search(file.read())
    with contextlib.suppress(ValueError):
        der = ssl.PEM_cert_to_DER_cert(found.group(0)) if found else b""
        if der:
            return der
    raise OSError(f"there is no certificate in {path}")


# ---- a reload that is proved


def is_active() -> bool:
    """Return whether nginx runs."""
    return commands.run(["systemctl", "is-active", "--quiet", "nginx.service"]).rc == 0


def reload(holder: str, expected: Iterable[Expectation] = ()) -> str | None:
    """Have nginx read its files again, and prove that it serves what is in them.

    An nginx that does not run needs none: it reads them when it starts. Ask L(is_active) to tell the two apart.

    :param holder: who asks, in words for the person whose run has to wait.
    :param expected: what must be met afterwards.
    :returns: why it does not, in nginx's own words as far as it has some; None when it does.
    """
    if not is_active():
        return None
    try:
        with Lock(holder):
            return _reload(list(expected))
    except BusyError as error:
        return str(error)


def _reload(expected: list[Expectation]) -> str | None:
    tested = commands.run(["nginx", "-t", "-q"])
    if tested.rc != 0:
        return f"nginx refuses its configuration: {relevant(tested.err)}"
    log, before = files.LogFromNow(ERROR_LOG), accepting_workers()
    if commands.run(["systemctl", "reload", "nginx.service"]).rc != 0:
        return last_words()
    deadline = time.monotonic() + SECONDS_TO_PROVE
    while before & accepting_workers():
        refused = refusal(log.read())
        if refused or time.monotonic() > deadline:
            what = "refused to run it" if refused else f"does not run it after {SECONDS_TO_PROVE} seconds"
            return f"nginx passed its configuration and {what}: {refused or relevant(log.read())}"
        time.sleep(0.02)  # between two questions to processes that send no word when they are done
    deadline = time.monotonic() + SECONDS_FOR_NAMES
    while True:
        expected = [each for each in expected if not each.is_met()]
        if not expected:
            return None
        if time.monotonic() > deadline:
            return f"nginx runs what is on the disk, and does not serve it for {', '.join(sorted({each.name for each in expected}))}"
        time.sleep(0.1)  # a handshake cannot be waited for either


def accepting_workers() -> set[str]:
    """Return the process IDs of nginx's workers that accept connections, those of a master that is replaced just now too.

    A worker that is told to leave says so in its title, and closes its listening sockets in the same breath.
    """
    unit = _proc((files.read(PID_FILE) or "").strip(), "cgroup")
    pids = filter(str.isdigit, os.listdir("/proc") if unit else [])
    return {pid for pid in pids if _proc(pid, "cmdline").rstrip("\0 ") == "nginx: worker process" and _proc(pid, "cgroup") == unit}


def _proc(pid: str, name: str) -> str:
    """Return what the kernel says of a process; nothing if it is gone."""
    try:
        return files.read(f"/proc/{pid}/{name}") or ""
    except ProcessLookupError:
        return ""


# ---- nginx's words


def relevant(text: str) -> str:
    """Return nginx's complaints without its time stamps, or all it said where it does not complain."""
    lines = [re.sub(r"^.*?\[(?:emerg|alert|crit|error)\]\s*(?:\d+#\d+:\s*)?", "", line) for line in text.splitlines() if re.search(r"\[(emerg|alert|crit|error)\]", line)]
    return "; ".join(dict.fromkeys(lines)) or text.strip() or "it did not say why"


def refusal(said: str) -> str | None:
    """Return why nginx does not run a configuration that it was told to run; None where it has not said so.

    A port that is taken it tries again, for two seconds and a half, and has it if it is free then.

    :param said: its error log since it was told.
    """
    return relevant(said) if any("[emerg]" in line and "bind() to" not in line for line in said.splitlines()) else None


def last_words() -> str:
    """Return what systemd's journal has of nginx, where it did not start or reload."""
    return relevant(commands.run(["journalctl", "--unit", "nginx", "--lines", "10", "--no-pager", "--output", "cat"]).out)
