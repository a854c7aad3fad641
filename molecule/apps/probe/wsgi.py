"""An app that has been taken over: it does to its host what a visitor asks for, and answers with what came of it."""

import json
import os
import socket
import threading
from urllib.parse import parse_qs


def read(path):
    with open(path, "rb") as file:
        return file.read(200).decode(errors="replace")


def write(path):
    with open(path, "a") as file:
        file.write("written by the probe\n")
    return "written"


def remove(path):
    os.unlink(path)
    return "removed"


def look(path):
    return " ".join(sorted(os.listdir(path)))


def connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return sock.recv(200).decode(errors="replace")


def processes(_path):
    return " ".join(sorted({str(os.stat(f"/proc/{each}").st_uid) for each in os.listdir("/proc") if each.isdigit()}))


def become(user):
    os.setuid(int(user))
    return "is another user"


def signal(pid):
    os.kill(int(pid), 0)
    return "reached"


def environment(name):
    return os.environ[name]


def go(_to):
    GO.set()
    return "the stream goes on"


GO = threading.Event()
DEEDS = {each.__name__: each for each in (read, write, remove, look, connect, processes, become, signal, environment, go)}


def stream():
    """A first line at once, and a second when another visitor says so."""
    yield b"first\n"
    GO.wait(30)
    yield b"second\n"


def application(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        GO.clear()
        start_response("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")])
        return stream()
    asked = parse_qs(environ["QUERY_STRING"])
    deed = DEEDS.get(environ["PATH_INFO"].strip("/"))
    answer = {"probe": "here", "upgrade": environ.get("HTTP_UPGRADE"), "connection": environ.get("HTTP_CONNECTION")}
    if deed is not None:
        try:
            answer = {"done": deed(asked.get("to", [""])[0])}
        except (OSError, KeyError) as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
