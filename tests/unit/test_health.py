"""What a release is asked before it takes traffic, at a socket of its own."""

from __future__ import annotations

import http.server
import socketserver
import threading

import pytest

from ansible_collections.portico.web.plugins.module_utils import health

CHECK = {"path": "/health", "host": "shop.example.com", "status": [], "contains": None, "seconds": 5}


class Server(socketserver.ThreadingUnixStreamServer):
    """An app at a unix socket. Its answers are (status, body), one after the other, the last for all that follow."""

    daemon_threads = True

    def __init__(self, path: str, answers: list[tuple[int, bytes]]) -> None:
        self.answers = answers
        self.asked: list[dict[str, str]] = []
        super().__init__(path, Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.asked.append({"path": self.path, **self.headers})
        status, body = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def app(tmp_path):
    """Start an app: its socket's path, and what it was asked."""
    servers = []

    def start(*answers):
        server = Server(str(tmp_path / "app.sock"), list(answers))
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        servers.append(server)
        return server.server_address, server.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_answer_that_never_ends_is_given_up(tmp_path):
    """Each word of it comes in time, also from a machine that is busy with other tests."""
    over = threading.Event()

    class Endless(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not over.wait(0.05):
                try:
                    self.wfile.write(b".")
                except OSError:
                    return

    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "app.sock"), Endless) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        asked = threading.Thread(target=lambda: found.append(health.wrong(CHECK, server.server_address, 2)), daemon=True)
        found: list[str | None] = []
        asked.start()
        asked.join(10)
        over.set()
        server.shutdown()
    assert found == ["/health gave no whole answer within 2 seconds"]


@pytest.mark.parametrize(
    ("wanted", "answer", "wrong"),
    [
        ({}, (200, b""), None),
        ({}, (404, b""), None),
        ({}, (500, b""), "/health was answered 500"),
        ({"status": [200]}, (200, b""), None),
        ({"status": [200, 204]}, (404, b""), "/health was answered 404, and not 200 or 204"),
        ({"contains": "all well"}, (200, b"<p>all well</p>"), None),
        ({"contains": "all well"}, (200, b"no"), "/health was answered 200, without the text 'all well'"),
    ],
)
def test_an_answer_is_right_or_it_is_said_why_not(app, wanted, answer, wrong):
    path, asked = app(answer)
    assert health.wrong({**CHECK, **wanted}, path, 5) == wrong
    assert [(each["path"], each["Host"], each["X-Forwarded-Proto"]) for each in asked] == [("/health", "shop.example.com", "https")]


def test_a_release_that_needs_a_while_is_waited_for(app):
    path, asked = app((503, b""), (503, b""), (200, b""))
    assert health.wait(CHECK, path, lambda: True) is None
    assert len(asked) == 3


def test_a_release_that_is_never_well_is_given_up(app):
    path, _asked = app((503, b""))
    assert health.wait({**CHECK, "seconds": 1}, path, lambda: True) == "after 1 seconds, /health was answered 503"


def test_a_release_that_has_ended_is_not_waited_for(tmp_path):
    why = health.wait(CHECK, str(tmp_path / "nobody.sock"), lambda: False)
    assert why is not None and why.startswith("it has ended; before that, /health gave no answer: ")
