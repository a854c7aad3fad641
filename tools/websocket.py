"""A websocket, by hand (RFC 6455): just enough to be a visitor of one."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl

TIMEOUT = 15  # seconds
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class WebSocket:
    """Opens one at `path` of a name that is served at `address`."""

    def __init__(self, address: str, ca: str, name: str, path: str) -> None:
        key = base64.b64encode(os.urandom(16))
        self._socket = ssl.create_default_context(cafile=ca).wrap_socket(socket.create_connection((address, 443), TIMEOUT), server_hostname=name)
        asks = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nOrigin: https://{name}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
        self._socket.sendall(f"{asks}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n".encode())
        self._in = self._socket.makefile("rb")
        self.status = int(self._in.readline().split()[1])
        lines = iter(lambda: self._in.readline().strip(), b"")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in lines)}
        self.is_accepted = self.headers.get("sec-websocket-accept") == base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()

    def send(self, kind: int, data: bytes) -> None:
        """Send a frame of at most 125 bytes, masked as a client's must be."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        self._socket.sendall(bytes([0x80 | kind, 0x80 | len(data)]) + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """Return the next frame's kind and content."""
        first, second = self._in.read(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self._in.read(2 if length == 126 else 8), "big")
        return first & 0x0F, self._in.read(length)

    def wait_for(self, kind: int, text: bytes) -> bytes:
        """Return the first frame of a kind that has a text in it."""
        while True:
            got, data = self.receive()
            if got == kind and text in data:
                return data
            assert got != CLOSE, f"closed: {data!r}"

    def close(self) -> None:
        self.send(CLOSE, b"\x03\xe8")
        self._socket.close()
