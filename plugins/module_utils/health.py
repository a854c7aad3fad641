# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an app answers as it should, asked at a socket that no visitor meets yet."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import typing as t
from collections.abc import Callable, Mapping

SECONDS_BETWEEN = 0.2
SECONDS_FOR_AN_ANSWER = 5
BYTES = 1024 * 1024
"""How much of an answer is looked at."""

Check = Mapping[str, t.Any]
"""C(path), C(host), C(status) (numbers, none meaning all below 500), C(contains) (text or None), and C(seconds)."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, host: str, seconds: float) -> None:
        super().__init__(host, timeout=seconds)
        self._path = path
        self.spoken: socket.socket | None = None
        """What stays when the answer has begun, and C(sock) may be gone."""

    def connect(self) -> None:
        self.sock = self.spoken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def wrong(check: Check, path: str, seconds: float) -> str | None:
    """Ask once, as nginx would, and return what is wrong with the answer.

    :param path: the unix socket.
    """
    connection = _Connection(path, check["host"], seconds)
    over = threading.Event()
    # Each word may come in time, and the last one never.
    end = threading.Timer(seconds, _end, [connection, over])
    end.start()
    try:
        # As behind TLS: an app that leads to HTTPS by itself would else lead there for ever.
        connection.request("GET", check["path"], headers={"X-Forwarded-Proto": "https", "User-Agent": "portico-health", "Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(BYTES)
    except (OSError, http.client.HTTPException) as error:
        if over.is_set() or isinstance(error, TimeoutError):
            return f"{check['path']} gave no answer within {seconds:g} seconds"
        return f"{check['path']} gave no answer: {error or type(error).__name__}"
    finally:
        end.cancel()
        connection.close()
    if over.is_set():
        return f"{check['path']} gave no whole answer within {seconds:g} seconds"
    if answer.status not in check["status"] if check["status"] else answer.status >= 500:
        wanted = f", and not {' or '.join(map(str, check['status']))}" if check["status"] else ""
        return f"{check['path']} was answered {answer.status}{wanted}"
    if check["contains"] is not None and check["contains"].encode() not in body:
        return f"{check['path']} was answered {answer.status}, without the text {check['contains']!r}"
    return None


def _end(connection: _Connection, over: threading.Event) -> None:
    over.set()
    if connection.spoken:
        with contextlib.suppress(OSError):
            connection.spoken.shutdown(socket.SHUT_RDWR)


def wait(check: Check, path: str, is_alive: Callable[[], bool]) -> str | None:
    """Ask until the answer is right, and return why it never was.

    :param is_alive: whether the app still runs: one that has ended is not waited for.
    """
    deadline = time.monotonic() + check["seconds"]
    while True:
        left = deadline - time.monotonic()
        found = wrong(check, path, max(min(SECONDS_FOR_AN_ANSWER, left), 0.1))
        if found is None:
            return None
        if not is_alive():
            return f"it has ended; before that, {found}"
        if time.monotonic() >= deadline:
            return f"after {check['seconds']} seconds, {found}"
        time.sleep(SECONDS_BETWEEN)  # between two questions to an app that sends no word when it is well
