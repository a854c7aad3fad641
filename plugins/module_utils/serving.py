# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nginx serves on the wire, and a reload that is proved.

nginx can pass a test, be told to reload, and carry on as it was: systemd does not learn of it, nor does who asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import resource
import signal
import socket
import ssl
import stat
import time

from ansible_collections.portico.web.plugins.module_utils import commands, files

UNIT = "nginx.service"
ERROR_LOG = "/var/log/nginx/error.log"
PID_FILE = "/run/nginx.pid"
LOCK = "/run/lock/portico-nginx.lock"
SECONDS_OF_DOUBT = 3
"""nginx tries for so long to do what it is told. What its log says sooner may be somebody's URL."""
SECONDS_TO_PROVE = 60
SECONDS_FOR_ANOTHER_RUN = 300
SECONDS_TO_START = 900
"""nginx looks names up when it starts, and when it tests. While the DNS is silent it waits ten seconds for each."""
SECONDS_FOR_A_HANDSHAKE = 10

OPEN_FILES = 65_536
"""So many files nginx's master may have open, and an nginx that tests: a log of each site, while it reloads twice. A process has 1024 by itself."""

_CIPHERS = {"rsa": "aRSA", "ecdsa": "aECDSA"}
_SIGNATURES = {"rsa": "RSA-PSS+SHA256:RSA-PSS+SHA384", "ecdsa": "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512"}
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s.+?\s-----END CERTIFICATE-----", re.DOTALL)


class ServingError(Exception):
    """What went wrong, in words for the person."""


class Silent(ServingError):
    """Nothing speaks TLS there."""


class Refused(ServingError):
    """What is there speaks TLS, and not for that name, or with no certificate of that kind."""


# ---- one run at a time


class Lock:
    """The right to change this host's nginx. One run has it; another waits, and learns for whom."""

    def __init__(self, holder: str, patience: int = SECONDS_FOR_ANOTHER_RUN, path: str | None = None, what: str = "changes this host's nginx") -> None:
        """:param path: the file that is locked, where it is another right.
        :param what: what its holder does, for the person who waits in vain.
        """
        self.holder, self.patience = holder, patience
        self.path, self.what = path or LOCK, what
        self.waited_for: str | None = None

    def __enter__(self) -> Lock:
        # Everybody may make files in the folder of locks: what somebody else put there is no lock.
        with contextlib.suppress(FileNotFoundError):
            there = os.lstat(self.path)
            if there.st_uid != os.geteuid() or not stat.S_ISREG(there.st_mode):
                os.remove(self.path)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
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

        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(self.patience)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except TimeoutError:
            os.close(self._file)
            raise ServingError(f"Another run {self.what} ({self.waited_for}). It was waited for during {self.patience} seconds.") from None
        finally:
            signal.alarm(0)


# ---- what is served


def served(name: str, port: int, key_type: str | None = None, address: str = "127.0.0.1") -> bytes:
    """Return the certificate, in DER, that a visitor of a name gets. Nobody verifies it.

    :param key_type: C(ecdsa) or C(rsa), for a visitor who can do nothing else.
    :raises Silent: when nothing answers, or not in TLS.
    :raises Refused: when the handshake is refused; a name that no server block has is.
    """
    try:
        with socket.create_connection((address, port), SECONDS_FOR_A_HANDSHAKE) as connection:
            with _context(key_type).wrap_socket(connection, server_hostname=name) as tls:
                return tls.getpeercert(binary_form=True) or b""
    except ssl.SSLError as error:
        if key_type and error.reason == "TLSV1_ALERT_PROTOCOL_VERSION":
            return _served_over_tls_1_3(name, port, key_type, address)
        # OpenSSL names an alert of the other side by the version that it was new in.
        if not (error.reason or "").startswith(("SSLV3_", "TLSV1_", "TLSV13_")):
            raise Silent(f"port {port} does not speak TLS: {error.reason or error}") from None
        if error.reason == "TLSV1_UNRECOGNIZED_NAME":
            raise Refused("nginx has no such name") from None
        raise Refused(f"nginx refuses the handshake: {error.reason}") from None
    except OSError as error:
        raise Silent(f"port {port} does not answer: {error.strerror or error}") from None


@functools.lru_cache(maxsize=None)
def _context(key_type: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if key_type:
        # Python cannot say which signatures it takes; before TLS 1.3 the ciphers decide.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS[key_type])
    return context


def _served_over_tls_1_3(name: str, port: int, key_type: str, address: str) -> bytes:
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    argv = ["openssl", "s_client", "-connect", place, "-servername", name, "-tls1_3", "-sigalgs", _SIGNATURES[key_type]]
    found = _PEM.search(commands.run(argv, seconds=SECONDS_FOR_A_HANDSHAKE).out)
    if found is None:
        raise Refused(f"nginx has no certificate with an {key_type.upper()} key for that name")
    return ssl.PEM_cert_to_DER_cert(found.group(0))


def on_disk(path: str) -> bytes | None:
    """Return the first certificate of a PEM file, in DER; None where there is none."""
    try:
        found = _PEM.search(files.read(path) or "")
        return ssl.PEM_cert_to_DER_cert(found.group(0)) if found else None
    except (OSError, ValueError):
        return None


# ---- a reload that is proved


def is_active() -> bool:
    """Return whether systemd has nginx running."""
    return commands.run(["systemctl", "is-active", "--quiet", UNIT]).rc == 0


def reload(holder: str) -> str | None:
    """Let a running nginx read its configuration and its certificates anew, and return why it does not.

    An nginx that does not run needs no telling.

    :param holder: who asks, in words for the person whose run has to wait.
    """
    try:
        with Lock(holder):
            return _reload() if is_active() else None
    except (ServingError, OSError) as error:
        return str(error)


def let_open_files(process: str) -> None:
    """Let a process that runs, and what it starts from now on, have as many files open as nginx needs, or as many as it may be let have.

    nginx itself says so of its workers alone (worker_rlimit_nofile), and to its unit systemd listens at its next start.

    :param process: its ID; nothing where there is none.
    """
    if not process.isdigit():
        return
    with contextlib.suppress(ProcessLookupError):
        now, most = resource.prlimit(int(process), resource.RLIMIT_NOFILE)
        wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
        if resource.RLIM_INFINITY != now < wanted:
            resource.prlimit(int(process), resource.RLIMIT_NOFILE, (wanted, most))


def _reload() -> str | None:
    let_open_files(str(os.getpid()))
    test = commands.run([commands.find("nginx") or "nginx", "-t", "-q"], seconds=SECONDS_TO_START)
    if test.rc != 0:
        return f"nginx refuses its configuration: {relevant(test.err or test.out)}"
    # Not before the test: what that complains of is in the log too.
    log, before = files.LogFromNow(ERROR_LOG), accepting_workers()
    told = commands.run(["systemctl", "reload", UNIT])
    if told.rc != 0:
        journal = commands.run(["journalctl", "--unit", UNIT, "--lines", "10", "--no-pager", "--output", "cat"])
        return f"nginx does not reload: {relevant(journal.out or told.err)}"
    told_at = time.monotonic()
    deadline = told_at + SECONDS_TO_PROVE
    while before & accepting_workers():
        refused = refusal(log.read(), master())
        if refused and time.monotonic() > told_at + SECONDS_OF_DOUBT:
            return f"nginx passed its configuration and refused to run it: {refused}"
        if time.monotonic() > deadline:
            return f"nginx has not changed its workers after {SECONDS_TO_PROVE} seconds"
        time.sleep(0.02)  # between two questions to a process that sends no word when it is done
    return None


def refusal(said: str, process: str) -> str | None:
    """Return why nginx goes on as before, if it said so in its error log.

    A port that is taken it tries again, for two seconds and a half, and has it if it is free then. What visitors ask for stands in
    that log too, with their line breaks: to pass for nginx's own words it would have to guess the master's process ID.

    :param said: lines of the log.
    :param process: the process ID of nginx's master, as the log has it.
    """
    lines = re.findall(rf"^\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d \[emerg\] {re.escape(process)}#\d+: (.*)", said, re.MULTILINE)
    return "; ".join(dict.fromkeys(lines)) if any("bind() to" not in line for line in lines) else None


def master() -> str:
    """Return the process ID of nginx's master; nothing where there is none."""
    return (files.read(PID_FILE) or "").strip()


def accepting_workers() -> set[str]:
    """Return the process IDs of nginx's workers that accept connections, those of a master that is replaced just now too.

    A worker that is told to leave says so in its title, and closes its listening sockets in the same breath.
    """
    unit = _proc(master(), "cgroup")
    pids = filter(str.isdigit, os.listdir("/proc") if unit else [])
    return {pid for pid in pids if _proc(pid, "cmdline").rstrip("\0 ") == "nginx: worker process" and _proc(pid, "cgroup") == unit}


def _proc(pid: str, name: str) -> str:
    """Return what the kernel says of a process; nothing if it is gone."""
    try:
        return files.read(f"/proc/{pid}/{name}") or ""
    except ProcessLookupError:
        return ""


def relevant(text: str) -> str:
    """Return nginx's complaints without its time stamps, or all it said where it does not complain."""
    lines = [re.sub(r"^.*?\[(?:emerg|alert|crit|error)\]\s*(?:\d+#\d+:\s*)?", "", line) for line in text.splitlines() if re.search(r"\[(emerg|alert|crit|error)\]", line)]
    return "; ".join(dict.fromkeys(lines)) or text.strip() or "it did not say why"
