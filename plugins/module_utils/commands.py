# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Other programs, run by a module or by the host's own tool: in English, bounded in time, and with no shell between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import typing as t
from collections.abc import Mapping, Sequence

SECONDS = 120
"""What a program has that nobody said more about."""

SECONDS_TO_END = 10
"""What it then has for cleaning up, as certbot does with the records that it wrote."""

_ADMINISTRATORS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Done(t.NamedTuple):
    """What a program left: its exit code (124 where its time was over, 127 where there is no such program), and what it said."""

    rc: int
    out: str
    err: str


def find(name: str) -> str | None:
    """Return where a program is."""
    return shutil.which(name, path=_ADMINISTRATORS_PATH)


class Running:
    """A program that runs while its caller does something else."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None, text: str | None = None) -> None:
        self._text = text
        self._there_is_none = ""
        try:
            self._process = _start(argv, environment, text is not None)
        except FileNotFoundError as error:
            self._there_is_none = str(error)

    def done(self, seconds: float = SECONDS) -> Done:
        """Wait for it, and end it with all that it has started when its time is over."""
        if self._there_is_none:
            return Done(127, "", self._there_is_none)
        process = self._process
        try:
            out, err = process.communicate(None if self._text is None else self._text.encode(), timeout=seconds)
            return Done(process.returncode, _decoded(out), _decoded(err))
        except subprocess.TimeoutExpired:
            out, err = _ended(process)
            return Done(124, _decoded(out), _decoded(err))


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = SECONDS, text: str | None = None) -> Done:
    """Run a program, and end it with all that it has started when its time is over.

    :param environment: what it gets beside PATH, HOME and an English locale.
    :param text: what it reads.
    """
    return Running(argv, environment, text).done(seconds)


def _start(argv: Sequence[str], environment: Mapping[str, str] | None, reads: bool) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name in ("HOME", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")}
    full = {"HOME": "/root", **inherited, "PATH": _ADMINISTRATORS_PATH, "LC_ALL": "C.UTF-8", "LANGUAGE": "C", **(environment or {})}
    return subprocess.Popen(list(argv), env=full, stdin=subprocess.PIPE if reads else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def _ended(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a program that was told to, or did not hear it, and return what it said."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.communicate(timeout=SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


def _decoded(said: bytes) -> str:
    return said.decode(errors="replace")
