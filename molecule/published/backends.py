"""Whatever the examples of the documentation lead to: somebody at each of these ports and sockets, who answers in the protocol that he is asked in.

python3 backends.py PORT... SOCKET...: HTTP, uwsgi and FastCGI at each, and names at 127.0.0.5:53, which are all this host's.
What comes back is the address that was asked, and what it was told.
"""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import sys
import threading


class Answer(socketserver.BaseRequestHandler):
    """nginx writes the head of a request at once, and for FastCGI and uwsgi all that it says of it."""

    def handle(self) -> None:
        asked = self.request.recv(65536)
        if not asked:
            return
        where = self.request.getsockname()
        said = (f"{where[0]}:{where[1]}" if isinstance(where, tuple) else os.path.basename(where)).encode() + b"\n" + asked
        if asked[0] == 1:
            self.request.sendall(_record(6, b"Content-Type: text/plain\r\n\r\n" + said) + _record(6, b"") + _record(3, bytes(8)))
        else:
            status = b"401 Unauthorized" if b"GET /oauth2/auth " in asked and b"signed=in" not in asked else b"200 OK"
            head = b"Content-Type: text/plain\r\nX-Auth-Request-User: anna\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said)
            self.request.sendall(b"HTTP/1.1 " + status + b"\r\n" + head + said)
        # What is posted comes later; an answer is lost where a connection ends before that.
        self.request.shutdown(socket.SHUT_WR)
        while self.request.recv(65536):
            pass


def _record(kind: int, content: bytes) -> bytes:
    """Return a record of FastCGI (its specification, 3.3)."""
    return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content


class Names(socketserver.BaseRequestHandler):
    """Every name is this host's (RFC 1035)."""

    def handle(self) -> None:
        asked, end = self.request[0], self.request[0].index(b"\0", 12) + 5
        found = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if asked[end - 4 : end - 2] == b"\0\1" else b""
        self.request[1].sendto(asked[:2] + b"\x81\x80\0\1\0" + bytes([bool(found)]) + b"\0\0\0\0" + asked[12:end] + found, self.client_address)


class AtPort(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


class AtSocket(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class ForNames(socketserver.UDPServer):
    # nginx is at the same port of all addresses.
    allow_reuse_address = True


def main(places: list[str]) -> None:
    os.umask(0)
    servers: list[socketserver.BaseServer] = [AtPort(("0.0.0.0", int(place)), Answer) if place.isdigit() else AtSocket(place, Answer) for place in places]
    servers.append(ForNames(("127.0.0.5", 53), Names))
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    servers[0].serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
