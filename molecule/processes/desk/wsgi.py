"""An app that tells what it may do."""

import errno
import json
import os
import socket


def spoken_to(address):
    """Send nothing somewhere, and say what became of it."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", (address, 9))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "sent"


def credentials():
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return {}
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), newline="") as file:
            found[name] = file.read()
    return found


def answer(path):
    if path == "/speak":
        return {"loopback": spoken_to("127.0.0.1"), "outside": spoken_to("192.0.2.1")}
    if path == "/credentials":
        return credentials()
    if path == "/eat":
        return len(b"x" * 1024**3)
    return os.getppid()


def application(environ, start_response):
    body = json.dumps(answer(environ["PATH_INFO"])).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """The same, for servers that speak ASGI."""
    if scope["type"] == "lifespan":
        while scope["type"] == "lifespan":
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = json.dumps(answer(scope["path"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
