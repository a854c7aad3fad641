"""A WSGI application that says what it was told."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import parse_qs


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    # What a visitor asks for is an answer that takes so many seconds.
    time.sleep(float(parse_qs(environ.get("QUERY_STRING", "")).get("takes", ["0"])[0]))
    read = len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    said = {"read": read, "scheme": environ["wsgi.url_scheme"], "variables": {name: value for name, value in environ.items() if isinstance(value, str)}}
    body = json.dumps(said).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("X-Powered-By", "told")])
    return [body]
