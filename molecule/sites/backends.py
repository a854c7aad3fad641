"""Backends of several kinds, which say what they were asked.

At the ports 9001 and 9002 and at a unix socket: plain HTTP, and websockets. At 9003, 9005 and 9007: TLS, with a certificate of a CA of its own. At 9004: one
that takes each request and dies of it. At 5354: one that talks by datagrams. At 9006: one that repeats the first line of a connection. Nothing is at 9009. At 127.0.0.2:9001: the one that a name leads to when it has moved. At 5353 a
server for names, which are what a file says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUN = "/run/backends"
NAME = "inner.example.test"

go_on = threading.Event()
down = threading.Event()
asked: Counter[str] = Counter()
posts: Counter[str] = Counter()


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.headers.get("Upgrade") == "websocket":
            self._repeat()
        elif path.endswith("/events"):
            self._events()
        elif path.endswith("/minute"):
            self._minute()
        elif path.endswith("/parts") and self.headers.get("Range") == "bytes=4-6":
            self._say(206, {"Content-Range": "bytes 4-6/10"}, b"456")
        elif path.endswith("/parts"):
            self._say(body=b"0123456789")
        elif path.endswith("/go"):
            go_on.set()
            self._say()
        elif path.endswith("/posts"):
            self._say(body=json.dumps(posts).encode())
        elif path.endswith("/never"):
            # Until the one who asks has had enough.
            self.connection.recv(1)
        elif path.endswith("/sends"):
            # nginx answers in its place, with a file.
            self._say(headers={"X-Accel-Redirect": "/kept/a.txt", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=1"})
        elif path.endswith("/elsewhere"):
            self._say(302, {"Location": f"http://{self.headers['Host']}/login"})
        elif path.endswith("/away"):
            self._say(302, {"Location": f"http://{self.headers['Host']}{path}/from/here"})
        elif "/kept/" in path:
            self._kept(path)
        elif path.endswith("/asked"):
            self._say(body=json.dumps(asked).encode())
        elif path.endswith("/down"):
            down.set()
            self._say()
        elif path.endswith("/up"):
            down.clear()
            self._say()
        elif path.endswith("/own"):
            self._say(headers={"Strict-Transport-Security": "max-age=1", "X-Frame-Options": "DENY", "Content-Security-Policy": "default-src 'none'"})
        elif path.endswith("/missing"):
            self._say(404)
        elif path.endswith("/who"):
            self._who()
        else:
            self._say()

    def do_POST(self) -> None:
        posts[self.server.label] += 1
        left = length = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, 1 << 20))):
            left -= len(piece)
        self._say(read=length - left)

    do_PATCH = do_PUT = do_POST

    def _repeat(self) -> None:
        """Say what is heard over a websocket, frame by frame, until it is closed (RFC 6455). No frame is larger than 125 bytes."""
        key = self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        for name, value in {"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Accept": base64.b64encode(hashlib.sha1(key).digest()).decode()}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2:
            mask, data = self.rfile.read(4), self.rfile.read(head[1] & 0x7F)
            self.wfile.write(bytes([head[0], len(data)]) + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))

    def _kept(self, path: str) -> None:
        """Say how often a path was asked for, in an answer that its last word describes; 503 while the backend is down."""
        if path.endswith("/slow"):
            go_on.clear()
        asked[path] += 1
        if down.is_set():
            self._say(503)
            return
        kinds = {"fresh": {"Cache-Control": "max-age=60"}, "brief": {"Cache-Control": "max-age=1"}, "private": {"Cache-Control": "private, max-age=60"}, "cookie": {"Set-Cookie": "a=b"}}
        if path.endswith("/slow"):
            # As long as it takes for others to ask for it as well.
            go_on.wait(10)
        rest = bytes(200_000) if path.endswith("/large") else b""
        self._say(headers={"Accept-Ranges": "bytes", **kinds.get(path.rpartition("/")[2], {})}, body=f"answer {asked[path]}".encode() + rest)

    def _who(self) -> None:
        """Say whether a visitor gets in, by its cookie."""
        if "signed=in" in self.headers.get("Cookie", ""):
            original = f"{self.headers['X-Original-Method']} {self.headers['X-Original-URL']}"
            self._say(204, {"X-User": "anna", "X-Asked": original, "Content-Length": "0"}, body=b"")
        else:
            self._say(403 if "signed=barred" in self.headers.get("Cookie", "") else 401)

    def _events(self) -> None:
        asked[self.path] += 1
        go_on.clear()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        go_on.wait(60)
        self.wfile.write(b"data: second\n\n")
        self.close_connection = True

    def _minute(self) -> None:
        """Say something each second of a minute."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("X-Accel-Buffering", "no")
        self.send_header("Connection", "close")
        self.end_headers()
        for second in range(61):
            self.wfile.write(b"data: %d\n\n" % second)
            self.wfile.flush()
            time.sleep(1)  # what is asked for is a stream that takes a minute
        self.close_connection = True

    def _say(self, status: int = 200, headers: dict[str, str] | None = None, body: bytes | None = None, **more: object) -> None:
        said = {"server": self.server.label, "connection": str(self.client_address), "version": self.request_version, "path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}, **more}
        body = json.dumps(said).encode() if body is None else body
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "X-Powered-By": "backends", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "nginx"

    def log_message(self, *_words: object) -> None:
        pass


class Dying(Backend):
    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline()
        if self.raw_requestline and self.parse_request():
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            posts["dying"] += self.command == "POST"
        self.close_connection = True


class Names(socketserver.BaseRequestHandler):
    """Tells the address of a name that is a file's, for a second; of others, that there are none (RFC 1035)."""

    def handle(self) -> None:
        asked, at, labels = self.request[0], 12, []
        while length := asked[at]:
            labels.append(asked[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        question, kind = asked[12 : at + 5], asked[at + 1 : at + 3]
        path = f"{RUN}/names/{'.'.join(labels)}"
        there = os.path.exists(path)
        answer = b""
        if there and kind == b"\0\1":
            with open(path) as file:
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(file.read().strip())
        flags = b"\x81\x80" if there else b"\x81\x83"
        self.request[1].sendto(asked[:2] + flags + b"\0\1\0" + bytes([bool(answer)]) + b"\0\0\0\0" + question + answer, self.client_address)


class FirstLine(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


class Talk(socketserver.BaseRequestHandler):
    """Says from which port a datagram came: nginx has one for each who asks, as long as they talk."""

    def handle(self) -> None:
        self.request[1].sendto(str(self.client_address[1]).encode(), self.client_address)


class AtSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    label = "socket"


class Nameless(ThreadingHTTPServer):
    """One that asks nobody for the name of its address."""

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address


def at_port(port: int, handler: type[Backend] = Backend, address: str = "127.0.0.1", label: str | None = None) -> ThreadingHTTPServer:
    server = Nameless((address, port), handler)
    server.label = label or str(port)
    return server


def make_certificates() -> None:
    for name, more in (("ca", []), ("other-ca", []), ("inner", ["-CA", f"{RUN}/ca.pem", "-CAkey", f"{RUN}/ca.key", "-addext", f"subjectAltName=DNS:{NAME}"])):
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
        subprocess.run([*request, "-keyout", f"{RUN}/{name}.key", "-out", f"{RUN}/{name}.pem", *more], check=True, capture_output=True)


def make_clients() -> None:
    """Make certificates of visitors: one that is good, one that was revoked, one of another CA, and those of CAs below the first."""
    for name, ca, is_ca in (("client", "ca", False), ("revoked", "ca", False), ("stranger", "other-ca", False), ("second-ca", "ca", True), ("third-ca", "second-ca", True), ("second", "second-ca", False), ("third", "third-ca", False)):
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
        signed = ["-CA", f"{RUN}/{ca}.pem", "-CAkey", f"{RUN}/{ca}.key", "-keyout", f"{RUN}/{name}.key", "-out", f"{RUN}/{name}.pem"]
        subprocess.run([*request, *signed, "-addext", f"basicConstraints=critical,CA:{str(is_ca).upper()}"], check=True, capture_output=True)
    # With the CAs that stand between it and the one that is known.
    for name, *between in (("second", "second-ca"), ("third", "third-ca", "second-ca")):
        with open(f"{RUN}/{name}.pem", "a") as file:
            file.write("".join(open(f"{RUN}/{ca}.pem").read() for ca in between))
    with open(f"{RUN}/ca.conf", "w") as file:
        file.write(f"[ca]\ndefault_ca = it\n[it]\ndatabase = {RUN}/index\ndefault_md = sha256\ndefault_crl_days = 30\n")
    with open(f"{RUN}/index", "w"):
        pass
    issuer = ["openssl", "ca", "-config", f"{RUN}/ca.conf", "-cert", f"{RUN}/ca.pem", "-keyfile", f"{RUN}/ca.key"]
    subprocess.run([*issuer, "-revoke", f"{RUN}/revoked.pem"], check=True, capture_output=True)
    subprocess.run([*issuer, "-gencrl", "-out", f"{RUN}/ca.crl"], check=True, capture_output=True)


def over_tls(port: int) -> ThreadingHTTPServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{RUN}/inner.pem", f"{RUN}/inner.key")
    server = at_port(port)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


def main() -> None:
    make_certificates()
    make_clients()
    unix = AtSocket(f"{RUN}/socket", Backend)
    os.chmod(f"{RUN}/socket", 0o666)
    os.mkdir(f"{RUN}/names")
    with open(f"{RUN}/names/moving.example.test", "w") as file:
        file.write("127.0.0.1")
    names = socketserver.ThreadingUDPServer(("127.0.0.1", 5353), Names)
    talk = socketserver.ThreadingUDPServer(("127.0.0.1", 5354), Talk)
    servers = [names, talk, socketserver.ThreadingTCPServer(("127.0.0.1", 9006), FirstLine), at_port(9001, address="127.0.0.2", label="moved"), at_port(9001), at_port(9002), over_tls(9003), over_tls(9005), over_tls(9007), at_port(9004, Dying), unix]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    for thread in threads:
        thread.join()


main()
