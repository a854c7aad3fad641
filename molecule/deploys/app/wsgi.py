"""An app that says which version of it answers, and what it was told."""

import os

VERSION = "VERSION"


def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"{VERSION} {os.environ.get('COLOUR', '')}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
