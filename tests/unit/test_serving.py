"""What nginx serves, as a visitor meets it; a reload that is proved; and the lock that one run has."""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import threading

import pytest
from stand_ins import TlsServer, make_certificate

from ansible_collections.portico.web.plugins.module_utils import commands, serving
from ansible_collections.portico.web.plugins.module_utils.serving import BusyError, Expectation, Lock, SilentError, on_disk, served


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with certificates: two of a kind, and one of the other."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, kind in (("shop", "ecdsa"), ("blog", "ecdsa"), ("shop-rsa", "rsa")):
        make_certificate(folder / name, kind=kind)
    return folder


@pytest.fixture
def server(made):
    with TlsServer() as server:
        server.serves = {"a.example": (made / "shop", made / "shop-rsa"), "b.example": (made / "blog",)}
        server.reload()
        yield server


def der(folder):
    return on_disk(f"{folder}/fullchain.pem")


# ---- what visitors meet


def test_each_name_is_met_with_its_own_certificate(server, made):
    assert served("a.example", server.port) == der(made / "shop")
    assert served("b.example", server.port) == der(made / "blog")


def test_a_name_that_nobody_serves_is_no_failure_of_the_server(server):
    assert served("c.example", server.port) is None


@pytest.mark.parametrize("oldest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("kind", "folder"), [("ecdsa", "shop"), ("rsa", "shop-rsa")])
def test_each_of_a_pair_is_met_by_who_wants_its_kind(made, oldest, kind, folder):
    with TlsServer(oldest) as server:
        server.serves = {"a.example": (made / "shop", made / "shop-rsa")}
        server.reload()
        assert served("a.example", server.port, key_type=kind) == der(made / folder)


@pytest.mark.parametrize("oldest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_kind_that_a_server_does_not_have_is_not_met(made, oldest):
    with TlsServer(oldest) as server:
        server.serves = {"b.example": (made / "blog",)}
        server.reload()
        with pytest.raises(SilentError, match=f"TLS fails on port {server.port}"):
            served("b.example", server.port, key_type="rsa")


def test_nobody_at_the_port_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SilentError, match=f"no answer on port {port}: Connection refused"):
        served("a.example", port)


def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(serving, "SECONDS_FOR_A_HANDSHAKE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SilentError, match="no answer on port"):
        served("a.example", silent.getsockname()[1])


def test_a_server_without_tls_is_said_so():
    def answer():
        connection, _address = plain.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SilentError, match="TLS fails on port"):
            served("a.example", plain.getsockname()[1])
        thread.join()


def test_of_a_chain_the_first_certificate_counts(made, tmp_path):
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"words before\n" + (made / "shop/fullchain.pem").read_bytes() + (made / "blog/fullchain.pem").read_bytes())
    assert on_disk(str(chain)) == der(made / "shop")


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"])
def test_a_file_without_a_certificate_is_an_error(tmp_path, text):
    (tmp_path / "empty.pem").write_text(text)
    with pytest.raises(OSError, match=r"there is no certificate in .*empty\.pem"):
        on_disk(str(tmp_path / "empty.pem"))


# ---- a reload that is proved


class Host:
    """A host whose nginx is the stand-in. What it is told, and what comes of it."""

    def __init__(self, server, log):
        self.server, self.log = server, log
        self.active = True
        self.test = commands.Done(0, "", "")
        self.reloads = commands.Done(0, "", "")
        self.refuses = ""
        self.workers = {"10"}
        self.ran = []

    def run(self, argv, *_args, **_kwargs):
        self.ran.append(" ".join(argv))
        if argv[:2] == ["systemctl", "is-active"]:
            return commands.Done(0 if self.active else 3, "", "")
        if argv[0] == "nginx":
            return self.test
        if argv[:2] == ["systemctl", "reload"]:
            if self.refuses:
                self.log.write_text(self.refuses)
            elif self.reloads.rc == 0:
                self.server.reload()
                self.workers = {"20"}
            return self.reloads
        return commands.Done(0, "systemd says: nginx.service: Unit is masked.\n", "")


@pytest.fixture
def host(server, tmp_path, monkeypatch):
    host = Host(server, tmp_path / "error.log")
    monkeypatch.setattr(serving, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(serving, "ERROR_LOG", str(host.log))
    monkeypatch.setattr(serving, "SECONDS_FOR_NAMES", 0)
    monkeypatch.setattr(serving, "accepting_workers", lambda: host.workers)
    monkeypatch.setattr(commands, "run", host.run)
    return host


def test_a_reload_is_proved_on_the_wire(host, server, made):
    server.serves["a.example"] = (made / "blog",)
    expected = Expectation("a.example", f"{made}/blog/fullchain.pem", server.port)
    assert not expected.is_met()
    assert serving.reload("a test", [expected]) is None
    assert expected.is_met()
    assert host.ran == ["systemctl is-active --quiet nginx.service", "nginx -t -q", "systemctl reload nginx.service"]


def test_what_does_not_run_is_not_reloaded(host):
    host.active = False
    assert serving.reload("a test") is None
    assert not serving.is_active()
    assert "systemctl reload nginx.service" not in host.ran


def test_what_nginx_refuses_it_is_not_told(host):
    host.test = commands.Done(1, "", 'nginx: [emerg] unknown directive "banana" in /etc/nginx/x.conf:1\nnginx: configuration file test failed\n')
    assert serving.reload("a test") == 'nginx refuses its configuration: unknown directive "banana" in /etc/nginx/x.conf:1'
    assert "systemctl reload nginx.service" not in host.ran


def test_a_reload_that_systemd_does_not_do_is_told_in_its_words(host):
    host.reloads = commands.Done(1, "", "")
    assert serving.reload("a test") == "systemd says: nginx.service: Unit is masked."


def test_a_reload_that_is_refused_without_a_word_is_noticed(host):
    host.refuses = "2026/11/24 10:00:00 [emerg] 9#9: bind() to 0.0.0.0:8443 failed (98: Address already in use)\n2026/11/24 10:00:02 [emerg] 9#9: still could not bind()\n"
    words = "bind() to 0.0.0.0:8443 failed (98: Address already in use); still could not bind()"
    assert serving.reload("a test") == f"nginx passed its configuration and refused to run it: {words}"


def test_a_port_that_is_tried_again_is_no_refusal_yet():
    assert serving.refusal("[emerg] 9#9: bind() to 0.0.0.0:443 failed (98: Address already in use)\n") is None
    assert serving.refusal("[warn] 9#9: conflicting server name\n") is None


def test_workers_that_do_not_leave_are_not_waited_for_for_ever(host, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS_TO_PROVE", 0)
    monkeypatch.setattr(serving, "accepting_workers", lambda: {"10"})
    assert serving.reload("a test") == "nginx passed its configuration and does not run it after 0 seconds: it did not say why"


def test_a_name_that_is_served_with_something_else_after_a_reload_is_told(host, server, made):
    expected = [Expectation(name, f"{made}/blog/fullchain.pem", server.port) for name in ("b.example", "a.example")]
    assert serving.reload("a test", expected) == "nginx runs what is on the disk, and does not serve it for a.example"


def test_a_reload_waits_for_who_changes_nginx(host, monkeypatch):
    monkeypatch.setattr(Lock, "__init__", lambda self, holder, _init=Lock.__init__: _init(self, holder, patience=1))
    with Lock("ann@desk"):
        assert serving.reload("a test").startswith("Another run changes this host's nginx (ann@desk, since ")
    assert host.ran == ["systemctl is-active --quiet nginx.service"]


# ---- the lock


@pytest.fixture
def held(tmp_path, monkeypatch):
    """The lock, in the hands of somebody else until it is closed."""
    monkeypatch.setattr(serving, "LOCK", str(tmp_path / "lock"))
    file = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.write(file, b'ann@desk, play "Deploy", since 10:00:00\n')
    fcntl.flock(file, fcntl.LOCK_EX)
    yield file


def test_a_run_that_waits_in_vain_says_for_whom(held):
    with pytest.raises(BusyError, match=r'ann@desk, play "Deploy", since 10:00:00.*during 1 seconds'), Lock("bob@desk", patience=1):
        pass
    os.close(held)


def test_a_run_that_waits_knows_for_whom_and_is_the_next_holder(held):
    release = threading.Timer(0.1, os.close, [held])
    release.start()
    with Lock("bob@desk", patience=30) as lock:
        assert lock.waited_for == 'ann@desk, play "Deploy", since 10:00:00'
        with open(serving.LOCK) as file:
            assert file.read().startswith("bob@desk, since ")
    release.join()
    with Lock("carl@desk", patience=30) as lock:
        assert lock.waited_for is None


def test_a_lock_of_another_file_is_another_lock(held, tmp_path):
    with Lock("bob@desk", path=str(tmp_path / "other"), does="does something else") as lock:
        assert lock.waited_for is None
    os.close(held)
