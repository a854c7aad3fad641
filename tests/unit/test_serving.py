"""What is served on the wire, the reload that is proved, and the lock that one run has."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import ssl
import subprocess
import threading

import pytest
from stand_in import RSA_KEY, StandIn, issue

from ansible_collections.portico.web.plugins.module_utils import commands, serving
from ansible_collections.portico.web.plugins.module_utils.serving import Lock, ServingError

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
    with pytest.raises(ServingError, match=r'ann@desk, play "Deploy", since 10:00:00.*during 1 seconds'), Lock("bob@desk", patience=1):
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


def test_what_somebody_put_where_the_lock_is_is_no_lock(tmp_path):
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "lock").symlink_to(tmp_path / "theirs")
    with serving.Lock("me", path=str(tmp_path / "lock")):
        assert (tmp_path / "lock").read_text().startswith("me, since ") and not (tmp_path / "lock").is_symlink()
    assert (tmp_path / "theirs").read_text() == "kept"


def test_another_right_has_a_lock_of_its_own(held, tmp_path):
    with Lock("bob@desk", patience=1, path=str(tmp_path / "other"), what="keeps certificates") as lock:
        assert lock.waited_for is None
    os.close(held)


# ---- what is served


@pytest.mark.parametrize("oldest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_each_kind_of_visitor_gets_its_certificate(tmp_path, oldest):
    issue(tmp_path / "ecdsa")
    issue(tmp_path / "rsa", key=RSA_KEY)
    with StandIn(oldest) as nginx:
        nginx.read({"shop.test": [tmp_path / "ecdsa", tmp_path / "rsa"], "one.test": [tmp_path / "ecdsa"]})
        for kind in ("ecdsa", "rsa"):
            assert serving.served("shop.test", nginx.port, kind) == serving.on_disk(str(tmp_path / kind / "fullchain.pem"))
        assert serving.served("one.test", nginx.port) == serving.on_disk(str(tmp_path / "ecdsa/fullchain.pem"))
        with pytest.raises(serving.Refused):
            serving.served("one.test", nginx.port, "rsa")


def test_a_name_that_is_nobodys_is_not_what_is_not_there(tmp_path):
    issue(tmp_path)
    with StandIn() as nginx:
        nginx.read({"shop.test": [tmp_path]})
        with pytest.raises(serving.Refused, match="nginx has no such name"):
            serving.served("other.test", nginx.port)
    with pytest.raises(serving.Silent, match=f"port {nginx.port} does not answer: Connection refused"):
        serving.served("shop.test", nginx.port)


def test_what_does_not_speak_tls_serves_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            visitor, _address = server.accept()
            with visitor:
                visitor.recv(1000)
                visitor.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(serving.Silent, match="does not speak TLS"):
            serving.served("shop.test", server.getsockname()[1])
        thread.join()


@pytest.mark.parametrize("text", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nä\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "fullchain.pem").write_text(text)
    assert serving.on_disk(str(tmp_path / "fullchain.pem")) is None


# ---- the reload

NOW = "2026/11/28 10:00:00"


class Machine:
    """What the reload asks of a host."""

    def __init__(self, tmp_path):
        self.log = tmp_path / "error.log"
        self.active, self.test, self.told = True, "", ""
        self.workers = [{"1", "2"}, {"1", "2"}, {"2", "3"}, {"3", "4"}]
        self.writes = ""
        self.ran = []

    def run(self, argv, *_more, **_named):
        verb = argv[1] if argv[0] == "systemctl" else os.path.basename(argv[0])
        self.ran.append(verb)
        if verb == "is-active":
            return commands.Done(0 if self.active else 3, "", "")
        if verb == "nginx":
            return commands.Done(1 if self.test else 0, "", self.test)
        if verb == "reload":
            self.log.write_text(self.writes)
            return commands.Done(1 if self.told else 0, "", "")
        return commands.Done(0, self.told, "")

    def accepting(self):
        return self.workers.pop(0) if len(self.workers) > 1 else self.workers[0]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = Machine(tmp_path)
    monkeypatch.setattr(serving, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(serving, "ERROR_LOG", str(machine.log))
    monkeypatch.setattr(serving, "accepting_workers", machine.accepting)
    monkeypatch.setattr(serving, "master", lambda: "12")
    monkeypatch.setattr(serving.commands, "run", machine.run)
    return machine


def test_a_reload_is_done_when_the_workers_are_others(machine):
    assert serving.reload("a test") is None
    assert machine.ran == ["is-active", "nginx", "reload"]
    assert machine.workers == [{"3", "4"}]


def test_an_nginx_that_does_not_run_is_told_nothing(machine):
    machine.active = False
    assert serving.reload("a test") is None
    assert machine.ran == ["is-active"]


def test_a_refused_configuration_is_not_reloaded(machine):
    machine.test = '2026/11/24 10:00:00 [emerg] 12#12: cannot load certificate "x"\nnginx: configuration file test failed\n'
    assert serving.reload("a test") == 'nginx refuses its configuration: cannot load certificate "x"'
    assert "reload" not in machine.ran


def test_a_reload_that_fails_is_told_from_the_journal(machine):
    machine.told = '[emerg] 12#12: open() "/x" failed\n'
    assert serving.reload("a test") == 'nginx does not reload: open() "/x" failed'


def test_a_reload_that_nginx_refuses_without_a_word_is_seen_in_its_log(machine, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS_OF_DOUBT", 0)
    machine.workers = [{"1"}]
    machine.writes = f"{NOW} [emerg] 12#12: bind() to 0.0.0.0:443 failed (98: Address already in use)\n{NOW} [emerg] 12#12: still could not bind()\n"
    assert serving.reload("a test") == "nginx passed its configuration and refused to run it: bind() to 0.0.0.0:443 failed (98: Address already in use); still could not bind()"


def test_a_port_that_is_taken_may_be_free_a_moment_later(machine):
    machine.writes = f"{NOW} [emerg] 12#12: bind() to 0.0.0.0:443 failed (98: Address already in use)\n"
    assert serving.reload("a test") is None


@pytest.mark.parametrize(
    "asked_for",
    [
        '[error] 13#13: *7 open() "/srv/[emerg] 12#12: no" failed (2: No such file or directory), request: "GET /[emerg] HTTP/1.1"',
        # A line break in a path is one in the log.
        f'[error] 13#13: *7 open() "/srv/\n[emerg] 12#12: no\n{NOW} [emerg] 13#13: no" failed (2: No such file or directory)',
        # Even where somebody has guessed the process: the reload is done before it would be believed.
        f'[error] 13#13: *7 open() "/srv/\n{NOW} [emerg] 12#12: no" failed (2: No such file or directory)',
    ],
)
def test_a_visitor_does_not_pass_for_nginx(machine, asked_for):
    machine.writes = f"{NOW} {asked_for}\n"
    assert serving.reload("a test") is None


def test_workers_that_stay_are_not_waited_for_without_end(machine, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS_TO_PROVE", 0)
    machine.workers = [{"1"}]
    assert serving.reload("a test") == "nginx has not changed its workers after 0 seconds"


def test_who_waits_for_another_run_in_vain_says_so(held, monkeypatch):
    monkeypatch.setattr(serving.Lock.__init__, "__defaults__", (1, None, "changes this host's nginx"))
    assert "ann@desk" in (serving.reload("a test") or "")
    os.close(held)


# ---- open files


@pytest.fixture
def process():
    """A process that may have few files open, and the most that it may be let have."""
    with subprocess.Popen(["sleep", "60"]) as process:
        _soft, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (64, most))
        yield process, most
        process.kill()


def test_a_process_may_have_as_many_files_open_as_nginx_needs(process):
    process, most = process
    serving.let_open_files(str(process.pid))
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (min(most, serving.OPEN_FILES), most)


def test_one_that_may_have_more_keeps_that(process, monkeypatch):
    process, most = process
    monkeypatch.setattr(serving, "OPEN_FILES", 32)
    serving.let_open_files(str(process.pid))
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (64, most)


@pytest.mark.parametrize("nobody", ["", "99999999"])
def test_where_nobody_is_nobody_is_let(nobody):
    serving.let_open_files(nobody)
