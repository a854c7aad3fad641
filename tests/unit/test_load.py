"""The load tells what is lost from what any client must bear, against a server that misbehaves in each way."""

from __future__ import annotations

import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time

import pytest
from load import Load, LoadError, Report

HOST = "a.example.test"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold"


class Server(socketserver.ThreadingTCPServer):
    """Does to each request what its path says."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = tls
        self.serves = WHOLE

    def get_request(self):
        connection, client = super().get_request()
        return (self.tls.wrap_socket(connection, server_side=True) if self.tls else connection), client

    def url(self, path, scheme="http"):
        return f"{scheme}://{HOST}:{self.server_address[1]}{path}"


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for number in range(10_000):
            line = self.rfile.readline()
            if not line:
                return
            while self.rfile.readline().strip():
                pass
            misbehave = getattr(self, line.split()[1].decode().strip("/"))
            if misbehave(number) == "close":
                return

    def whole(self, _number):
        self.wfile.write(self.server.serves)

    def broken(self, _number):
        self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    def missing(self, _number):
        self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def cut(self, _number):
        self.wfile.write(WHOLE[:-1])
        return "close"

    def silent(self, _number):
        return "close"

    def once(self, number):
        """As nginx when it reloads: the connection looks kept, and is closed while nothing is asked on it."""
        return "close" if number else self.whole(number)

    def reset_once(self, number):
        if not number:
            return self.whole(number)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "close"

    def half_once(self, number):
        """The second answer on a kept connection begins and does not end."""
        self.wfile.write(WHOLE[: 20 if number else None])
        return "close" if number else None

    def slow(self, _number):
        time.sleep(0.05)  # an answer that takes its time is what this one is for
        self.wfile.write(WHOLE)

    def stuck(self, _number):
        self.server.stuck.wait()
        return "close"


@pytest.fixture
def serve():
    running = []

    def start(**options):
        server = Server(**options)
        server.stuck = threading.Event()
        running.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for server in running:
        server.stuck.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(serve):
    return serve()


def loaded(url, **options):
    with Load("127.0.0.1", [url], clients=4, pause=0.005, **options) as load:
        pass
    return load.report


def test_whole_answers_are_counted_by_status_and_label(server):
    report = loaded(server.url("/whole"), label=lambda reply: reply.body.decode())
    assert not report.lost and not report.closed_idle
    assert set(report.statuses) == {200} and set(report.labels) == {"old"}
    assert report.requests == report.labels_of(server.url("/whole"))["old"] >= 8


def test_a_client_sees_new_content_as_soon_as_it_is_there(server):
    with Load("127.0.0.1", [server.url("/whole")], clients=4, pause=0.005, label=lambda reply: reply.body.decode()) as load:
        server.serves = WHOLE.replace(b"old", b"new")
        assert load.wait_for_label("new")
    assert set(load.report.labels) == {"old", "new"}


@pytest.mark.parametrize("path", ["/cut", "/silent"])
def test_an_answer_that_is_not_whole_is_lost(server, path):
    report = loaded(server.url(path))
    assert len(report.lost) == report.requests >= 8
    assert report.answers.total() == 0


def test_an_error_of_the_servers_is_lost_and_one_of_the_clients_is_an_answer(server):
    broken, missing = loaded(server.url("/broken")), loaded(server.url("/missing"))
    assert len(broken.lost) == broken.requests == broken.statuses[502] >= 8
    assert not missing.lost and set(missing.statuses) == {404}


@pytest.mark.parametrize("path", ["/once", "/reset_once"])
def test_a_connection_that_is_closed_while_idle_is_no_loss(server, path):
    report = loaded(server.url(path))
    assert report.closed_idle >= 2
    assert not report.lost and set(report.statuses) == {200}


def test_an_answer_that_has_begun_on_a_kept_connection_is_lost(server):
    report = loaded(server.url("/half_once"))
    assert len(report.lost) >= 2 and not report.closed_idle
    assert all("kept connection" in line for line in report.lost)


def test_no_answer_in_time_is_lost(server):
    report = loaded(server.url("/stuck"), timeout=0.1)
    assert len(report.lost) == report.requests >= 8
    assert report.longest >= 0.1


def test_who_is_refused_is_lost(serve):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        report = loaded(f"http://{HOST}:{closed.getsockname()[1]}/")
    assert len(report.lost) == report.requests and "refused" in report.lost[0]


def test_who_is_refused_for_a_moment_bears_a_start_and_nobody_bears_more(serve, server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = loaded(f"http://{HOST}:{closed.getsockname()[1]}/")
    assert refused.lost and not refused.harmed
    silent = loaded(server.url("/silent"))
    assert silent.lost and not silent.harmed
    for path in ("/cut", "/broken"):
        report = loaded(server.url(path))
        assert report.harmed == report.lost != []
        report.lost += refused.lost
        assert report.harmed == report.lost[: -len(refused.lost)]


def test_a_start_that_takes_long_has_harmed_everybody():
    line = f"http://{HOST}/ on a new connection after 0.000 s: ConnectionRefusedError: [Errno 111] Connection refused"
    assert not Report(lost=[line] * 600).harmed
    assert len(Report(lost=[line] * 601).harmed) == 601


def test_the_longest_wait_is_told(server):
    assert 0.05 <= loaded(server.url("/slow")).longest < 2


def test_what_nearly_all_have_waited_is_told_for_each_url():
    report = Report(times={"a": [0.001] * 98 + [0.5, 2.0], "b": [0.25]})
    assert (report.p99("a"), report.p99("b")) == (0.5, 0.25)
    assert "p99 0.500 s a\np99 0.250 s b" in str(report)


def test_tls_is_verified_for_the_name(serve, tmp_path):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=a"]
    command += ["-addext", f"subjectAltName=DNS:{HOST}", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    url = serve(tls=context).url("/whole", "https")
    assert not loaded(url, ca=str(tmp_path / "ca.pem")).lost
    assert not loaded(url).lost
    report = loaded(url.replace("a.", "b."), ca=str(tmp_path / "ca.pem"))
    assert len(report.lost) == report.requests and "CERTIFICATE_VERIFY_FAILED" in report.lost[0]


def test_a_load_that_ends_early_says_so(server):
    def stumble(reply):
        raise ValueError("no such label")

    with pytest.raises(LoadError, match="no such label"), Load("127.0.0.1", [server.url("/whole")], label=stumble):
        pass
