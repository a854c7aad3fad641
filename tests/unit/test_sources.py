"""Where a release's source comes from: real repositories and real archives."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import subprocess
import threading

import app_on_host
import pytest

from ansible_collections.portico.web.plugins.module_utils import sources
from ansible_collections.portico.web.plugins.module_utils.sources import Source
from ansible_collections.portico.web.plugins.module_utils.steps import StepError

TOKEN = "a-token-that-nobody-sees"
ORDER = {"name": "shop", "git": None, "version": None, "commit": None, "known_hosts": None, "archive": None, "unpack": None}


def git(folder, *arguments):
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com"}
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env={**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null"})
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    """Where keys are put for as long as git runs."""
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(sources, "_PRIVATE", str(folder))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    return folder


@pytest.fixture
def repository(tmp_path):
    """A repository of two commits: v1 is an annotated tag of the first, light a plain one, and main is the second."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / "app.py").write_text("one")
    (folder / "link").symlink_to("app.py")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "tag", "-a", "v1", "-m", "v1")
    git(folder, "tag", "light")
    git(folder, "branch", "feature/x")
    (folder / "app.py").write_text("two")
    git(folder, "commit", "--quiet", "-am", "two")
    return folder


def source(**order):
    steps, module = app_on_host.steps()
    return Source({**ORDER, **order}, steps), module


@pytest.mark.parametrize(("version", "means"), [("v1", "HEAD~1"), ("light", "HEAD~1"), ("feature/x", "HEAD~1"), ("main", "HEAD"), ("HEAD", "HEAD")])
def test_a_branch_or_a_tag_is_a_commit(repository, version, means):
    asked, _module = source(git=f"file://{repository}", version=version)
    assert asked.commit() == (git(repository, "rev-parse", means), "")


def test_a_commit_is_one_already_and_nobody_is_asked():
    asked, module = source(git="file:///nothing", version="a" * 40)
    assert asked.commit() == ("a" * 40, "")
    assert module.ran == []


def test_a_version_that_is_not_there_and_a_repository_that_is_not_are_told_apart(repository):
    assert source(git=f"file://{repository}", version="v9")[0].commit() == (None, "")
    commit, says = source(git=f"file://{repository}-not", version="v1")[0].commit()
    assert commit is None and "does not" in says


def test_what_is_checked_out_is_the_commit_without_its_history(repository, tmp_path):
    commit = git(repository, "rev-parse", "v1^{commit}")
    (tmp_path / "to").mkdir()
    source(git=f"file://{repository}", version="v1", commit=commit)[0].fetch(str(tmp_path / "to"))
    assert sorted(os.listdir(tmp_path / "to")) == ["app.py", "link"]
    assert (tmp_path / "to" / "app.py").read_text() == "one"


def test_a_commit_that_is_gone_is_told_in_gits_words(repository, tmp_path):
    (tmp_path / "to").mkdir()
    with pytest.raises(StepError, match=r"checking out its source(.|\n)*(unable to read|reference is not a tree)"):
        source(git=f"file://{repository}", version="v1", commit="b" * 40)[0].fetch(str(tmp_path / "to"))


class Guarded(http.server.SimpleHTTPRequestHandler):
    """A git server, in its plainest form, that lets in one user with one token."""

    def do_GET(self):
        login = self.headers.get("Authorization", "")
        self.server.logins.append(base64.b64decode(login[6:]).decode())
        if self.path.startswith("/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}{self.path[10:]}")
            self.end_headers()
        elif self.server.logins[-1] != f"{self.server.user}:{TOKEN}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_words):
        pass


@pytest.fixture
def guarded(repository, tmp_path):
    bare = tmp_path / "served" / "shop.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(repository), str(bare)], check=True)
    git(bare, "update-server-info")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Guarded, directory=str(tmp_path / "served")))
    server.user, server.logins = sources.USER_OF_A_TOKEN, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("user", [None, "deploy-17"])
def test_a_token_opens_a_repository_and_is_left_nowhere(guarded, repository, tmp_path, user):
    guarded.user = user or guarded.user
    url = f"http://{user}@127.0.0.1:{guarded.server_port}/shop.git" if user else f"http://127.0.0.1:{guarded.server_port}/shop.git"
    asked, module = source(git=url, version="main", secrets={"token": TOKEN})
    commit, says = asked.commit()
    assert commit == git(repository, "rev-parse", "main"), says
    (tmp_path / "to").mkdir()
    asked.order["commit"] = commit
    asked.fetch(str(tmp_path / "to"))
    assert (tmp_path / "to" / "app.py").read_text() == "two"
    assert not [line for line in module.lines() if TOKEN in line]
    assert subprocess.run(["grep", "-r", TOKEN, str(tmp_path)], capture_output=True).returncode == 1


def test_without_its_token_a_repository_stays_closed(guarded):
    commit, says = source(git=f"http://127.0.0.1:{guarded.server_port}/shop.git", version="main")[0].commit()
    assert commit is None and "could not read Username" in says


def test_a_token_goes_to_no_other_server(guarded):
    asked, _module = source(git=f"http://127.0.0.1:{guarded.server_port}/elsewhere/shop.git", version="main", secrets={"token": TOKEN})
    assert asked.commit()[0] is None
    assert not [login for login in guarded.logins if TOKEN in login]


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A stand-in for ssh that notes its options, what the files behind them hold, and what they may be read by."""
    notes = tmp_path / "notes"
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
printf '%s\\n' "$*" >>{notes}
while [ $# -gt 0 ]; do
  case "$1" in
    -i) stat -c 'key %a' "$2" >>{notes}; cat "$2" >>{notes};;
    UserKnownHostsFile=*) cat "${{1#*=}}" >>{notes};;
  esac
  shift
done
echo 'Host key verification failed.' >&2
exit 255
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    return notes


def test_a_key_is_there_for_ssh_alone_and_strangers_servers_are_refused(ssh, private):
    asked, module = source(git="git@git.example.com:shop.git", version="main", known_hosts="git.example.com ssh-ed25519 AAAA\n", secrets={"key": "the key's text\n"})
    commit, says = asked.commit()
    assert commit is None
    assert "Host key verification failed" in says and "source.known_hosts" in says
    noted = ssh.read_text()
    for words in ("StrictHostKeyChecking=yes", "BatchMode=yes", "IdentitiesOnly=yes", "key 600", "the key's text", "git.example.com ssh-ed25519 AAAA", "GlobalKnownHostsFile=/dev/null"):
        assert words in noted
    assert not [line for line in module.lines() if "the key's text" in line]
    assert os.listdir(private) == []


def test_without_a_key_the_hosts_own_settings_hold(ssh):
    _commit, says = source(git="git@git.example.com:shop.git", version="main")[0].commit()
    assert "-i " not in ssh.read_text() and "UserKnownHostsFile" not in ssh.read_text()
    assert "StrictHostKeyChecking=yes" in ssh.read_text() and "the host's known_hosts" in says


def test_a_server_that_says_nothing_is_waited_for_a_while(monkeypatch, tmp_path, repository):
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(sources, "SECONDS_TO_ASK", 1)
    assert source(git="ssh://git@git.example.com/shop.git", version="main")[0].commit() == (None, "it gave no answer within 1 seconds")


def test_an_archive_that_must_not_be_unpacked_names_its_step(tmp_path):
    (tmp_path / "a.zip").write_text("no archive")
    (tmp_path / "to").mkdir()
    with pytest.raises(StepError, match=r"failed at unpacking its source(.|\n)*the archive cannot be unpacked"):
        source(archive=str(tmp_path / "a.zip"), unpack="archive")[0].fetch(str(tmp_path / "to"))


def test_a_wheel_or_a_package_has_an_empty_source(tmp_path):
    (tmp_path / "to").mkdir()
    source(archive=str(tmp_path / "a.whl"))[0].fetch(str(tmp_path / "to"))
    assert os.listdir(tmp_path / "to") == []
