"""The life of an app's releases on a host that is only played: systemd answers as it would, and files lie below a folder."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import subprocess
import types
from pathlib import Path

import pytest

from ansible_collections.portico.web.plugins.module_utils import builder, health, layout, queue, serving, slots
from ansible_collections.portico.web.plugins.module_utils import hooks as hooks_module
from ansible_collections.portico.web.plugins.module_utils.environments import COMPLETE
from ansible_collections.portico.web.plugins.module_utils.releases import Releases
from ansible_collections.portico.web.plugins.module_utils.steps import StepError
from ansible_collections.portico.web.plugins.modules import gunicorn_release
from ansible_collections.portico.web.plugins.modules.gunicorn_release import App
from ansible_collections.portico.web.plugins.plugin_utils import apps

ME = pwd.getpwuid(os.getuid())
_REAL = {"tar", "cp", "mv", "rm", "mkdir", "chmod", "true"}


class Killed(BaseException):
    """The run was killed: nothing that would clean up is to believe that it could."""


class Host:
    """What a module meets on a host. Units are active, failed or inactive, and a service that is started answers or does not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.broken: set[str] = set()
        self.ran: list[list[str]] = []
        self.warnings: list[str] = []
        self.users: dict[str, str] = {}
        self.hook: tuple[int, str] = (0, "")
        self.said = ""
        self.workers = ["", ""]
        self.kill_at: str | None = None
        self.seen_running: list[set[str]] = []

    # ---- what a module asks of AnsibleModule

    def get_bin_path(self, name: str) -> str:
        return f"/usr/bin/{name}"

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def fail_json(self, msg: str, **_more: object) -> None:
        raise StepError(msg)

    def run_command(self, argv: list[str], **_more: object) -> tuple[int, str, str]:
        self.ran.append(argv)
        line = " ".join(argv)
        if self.kill_at and re.search(self.kill_at, line):
            raise Killed(line)
        if argv[0] == "timeout":
            argv = argv[2:]
        if argv[0] == "setpriv":
            argv = argv[argv.index("--") + 1 :]
        if argv[0] == "systemctl":
            return self.systemctl([each for each in argv[1:] if each != "--quiet"])
        if argv[0] == "systemd-run" and any(each.endswith("-build") for each in argv):
            if "venv" in argv:
                self._make_environment(Path(argv[-1]))
            return 0, "", ""
        if argv[0] == "systemd-run" and "CREDENTIALS_DIRECTORY" in line:
            handed_over = {each.split("=", 2)[2].split(":")[0] for each in argv if each.startswith("--property=LoadCredential=")}
            return (0 if set(argv[argv.index("sh") + 1 :]) <= handed_over else 1), "", ""
        if argv[0] == "systemd-run":
            return (*self.hook, "")
        if argv[0] == "journalctl" and "json" in argv:
            return 0, "".join(json.dumps({"MESSAGE": line, "_PID": "1"}) + "\n" for line in self.said.splitlines()), ""
        if argv[0] == "useradd":
            self.users[argv[-1]] = argv[argv.index("--comment") + 1]
        if argv[0] == "userdel":
            del self.users[argv[-1]]
        if argv[0] in _REAL:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr
        if argv[0] == "python" or argv[0].endswith("python3"):
            return 0, "3.13.5\n", ""
        return 0, "", ""

    def systemctl(self, argv: list[str]) -> tuple[int, str, str]:
        verb, units = argv[0], [each for each in argv[1:] if each.startswith("portico-")]
        if verb == "is-active":
            return 0 if units[0] in self.active else 3, "", ""
        if verb == "is-enabled":
            return 0 if units[0] in self.enabled else 1, "", ""
        if verb == "is-failed":
            return 1, "", ""
        if verb == "show":
            if "ActiveState,UnitFileState" in argv:
                states = [("active" if each in self.active else "inactive", "enabled" if each in self.enabled else "disabled") for each in units]
                return 0, "\n\n".join(f"ActiveState={active}\nUnitFileState={enabled}" for active, enabled in states), ""
            if "ActiveState" in argv:
                return 0, "active\n" if units[0] in self.active else "inactive\n", ""
            return 0, "1\n" if "MainPID" in argv else "InvocationID=1\nExecMainPID=1\n", ""
        for unit in units:
            if verb == "start":
                if unit.endswith(".service") and self.release_in(unit) in self.broken:
                    return 1, "", "it does not start"
                self.active.add(unit)
            if verb == "stop":
                self.active.discard(unit)
            if verb == "enable":
                self.enabled.add(unit)
            if verb == "disable":
                self.enabled.discard(unit)
        self.seen_running.append({each for each in self.active if each.endswith(".service") and "@" in each})
        return 0, "", ""

    @staticmethod
    def _make_environment(folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "bin/python").symlink_to("/bin/true")
        (folder / "pyvenv.cfg").write_text("version = 3.13.5\n")

    def hooks(self) -> list[list[str]]:
        """The commands of the app itself that were run once."""
        return [argv for argv in self.ran if argv[0] == "systemd-run" and not any(each.endswith("-build") for each in argv)]

    def release_in(self, unit: str) -> str:
        slot = re.search(r"@(\w)\.", unit)
        return os.path.basename(os.path.realpath(f"{layout.APPS}/shop/slots/{slot.group(1)}/release")) if slot else ""

    def children(self, process: str) -> set[str]:
        """The workers of a service: one ends while it is looked at, if that is wanted."""
        assert process == "1"
        self.workers = [*self.workers[1:], self.workers[-1]]
        return {"7", "8"} - {self.workers[0]}

    # ---- what outlives a run

    def save(self, path: Path) -> None:
        path.write_text(json.dumps([sorted(self.active), sorted(self.enabled), self.users]))

    def load(self, path: Path) -> None:
        active, enabled, self.users = json.loads(path.read_text())
        self.active, self.enabled = set(active), set(enabled)

    # ---- what a visitor meets

    def serves(self) -> str | None:
        """Return the release that a visitor meets; None for one who is refused."""
        socket = os.path.realpath(f"{layout.APPS}/shop/live")
        slot = os.path.basename(socket)
        if slot == layout.APP_QUEUE:
            if f"portico-shop-{layout.APP_QUEUE}.socket" not in self.active:
                return None
            slot = os.path.basename(os.path.realpath(f"{socket}/chosen"))
        if f"portico-shop@{slot}.socket" not in self.active:
            return None
        return self.release_in(f"portico-shop@{slot}.service")


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = Host(tmp_path)
    for name, folder in (("APPS", "srv"), ("APP_SETTINGS", "etc"), ("SOCKETS", "run"), ("UNITS", "units"), ("STATE", "state"), ("LOCKS", "lock")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(layout, name, str(tmp_path / folder))
    # Tests run side by side, and each of them builds for an app of the same name.
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(builder, "_PRIVATE", str(tmp_path / "private"))
    monkeypatch.setattr(slots, "SECONDS_TO_DRAIN", 0)
    monkeypatch.setattr(queue, "SECONDS_TO_DRAIN", 0)
    monkeypatch.setattr(slots, "SECONDS_TO_SETTLE", 0)
    monkeypatch.setattr(slots, "children", lambda process: host.children(process))
    monkeypatch.setattr(health, "wait", lambda check, path, is_alive: check.get("wrong"))

    def getpwnam(name):
        if name not in host.users:
            raise KeyError(name)
        return types.SimpleNamespace(pw_gecos=host.users[name], pw_uid=ME.pw_uid)

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    return host


@pytest.fixture
def source(tmp_path):
    """Pack a source of these files, and return the archive."""

    def pack(**texts: str) -> str:
        folder = tmp_path / "source"
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in {"requirements.txt": "", **texts}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        archive = tmp_path / "source.tar.gz"
        subprocess.run(["tar", "-czf", archive, "-C", folder, "."], check=True)
        return str(archive)

    return pack


@pytest.fixture
def order(source):
    def make(release: str, archive: str | None = None, **keys: object) -> dict[str, object]:
        unit = f"{layout.UNITS}/portico-shop@"
        return {
            "name": "shop",
            "release": release,
            "python": "/usr/bin/python3",
            "requirements": "requirements.txt",
            "gunicorn": "gunicorn",
            "archive": archive or source(**{"which.txt": release}),
            "git": None,
            "commit": None,
            "version": None,
            "static": [],
            "before_traffic": [],
            "after_traffic": [],
            "hook_seconds": 900,
            "shared": [],
            "switch": "overlap",
            "keep": 5,
            "health": {"seconds": 60},
            "max_requests": 0,
            "owes_only": False,
            "companions": [],
            "unpack": "folder",
            "wheel": None,
            "package": None,
            "index": None,
            "installer": "pip",
            "known_hosts": None,
            "fingerprint": release,
            "secrets": {},
            "worker_class": "gthread",
            "network": "all",
            "provenance": {"source": "shop", "version": f"v-{release}", "revision": release * 2, "who": "ann@desk", "python": "3.13.5", "collection": "0.1.0"},
            "files": {
                f"{unit}%i.socket": "[Socket]\nListenStream=/run/%i.sock\nSocketUser=www-data\n",
                f"{unit}%i.service": f"[Service]\nType=notify\nUser=portico-shop\nDescription=for {release}\n",
                f"{layout.slot_settings('shop', '%i')}.conf.py": f"workers = {release!r}\n",
            },
            **keys,
        }

    return make


def deploy(host: Host, order: dict[str, object], environment: str = 'A="b"\n') -> dict[str, object]:
    return App(host, order).deploy(environment, "{}")


def roll_back(host: Host, wanted: str | None = None, check_mode: bool = False) -> dict[str, object]:
    host.params = {"apps": [{"name": "shop", "wanted": wanted}], "holder": "a test"}
    host.check_mode = check_mode
    return gunicorn_release._roll_back(host)


def kept() -> list[str]:
    return sorted(os.listdir(f"{layout.APPS}/shop/releases"))


# ---- made and recorded


def test_a_release_is_recorded_with_where_it_came_from(host, order):
    told = deploy(host, order("r1"))
    assert (told["release"], told["before"], told["previous"], host.serves()) == ("r1", None, None, "r1")
    assert App(host, order("r1")).read()["live"]["releases"] == told["releases"]
    (record,) = told["releases"]
    assert record.pop("made").endswith("Z")
    assert record == {
        "release": "r1", "live": True, "source": "shop", "version": "v-r1", "revision": "r1r1", "who": "ann@desk", "python": "3.13.5", "collection": "0.1.0",
    }  # fmt: skip
    assert told["bytes"] > 0


def test_no_secret_is_kept_with_a_release(host, order):
    deploy(host, order("r1"), 'SECRET="hunter2"\n')
    for path in Path(layout.APPS).rglob("*"):
        assert not path.is_file() or "hunter2" not in path.read_text(errors="replace")
    assert Path(f"{layout.APPS}/shop/releases/r1/settings.json").stat().st_mode & 0o077 == 0


def test_the_newest_releases_are_kept_and_always_the_live_and_the_one_before(host, order):
    for number in range(1, 8):
        deploy(host, order(f"r{number}", keep=3))
    assert kept() == ["r5", "r6", "r7"]
    # A change of settings fills the other slot with the same release.
    deploy(host, order("r7", keep=2))
    assert kept() == ["r6", "r7"]
    assert App(host, order("r7")).read()["live"]["previous"] == "r6"


def test_what_was_not_finished_is_pruned_and_environments_with_it(host, order):
    deploy(host, order("r1"))
    os.makedirs(f"{layout.APPS}/shop/releases/half/source")
    os.makedirs(f"{layout.APPS}/shop/environments/half")
    deploy(host, order("r2"))
    assert kept() == ["r1", "r2"]
    assert os.listdir(f"{layout.APPS}/shop/environments") == [os.path.basename(os.path.realpath(f"{layout.APPS}/shop/releases/r2/environment"))]


def test_a_history_that_a_power_cut_has_emptied_is_begun_anew(host, order):
    deploy(host, order("r1"))
    Path(f"{layout.APPS}/shop/history.json").write_text("")
    deploy(host, order("r2"))
    assert App(host, order("r2")).read()["live"]["previous"] == "r1"


def test_a_release_that_may_find_no_room_is_warned_of(host, order, monkeypatch):
    deploy(host, order("r1"))
    assert host.warnings == []
    monkeypatch.setattr(os, "statvfs", lambda _path: types.SimpleNamespace(f_bavail=1000, f_frsize=1000))
    deploy(host, order("r2"))
    (warning,) = host.warnings
    assert '"shop"' in warning and "has 1 MB free, and about 67 MB are needed" in warning and "keep: 5" in warning
    # The release is there: nothing is needed for it.
    deploy(host, order("r2"))
    assert len(host.warnings) == 1


def test_a_release_that_found_no_room_is_told_with_how_much_there_is(host, order, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _path: types.SimpleNamespace(f_bavail=1000, f_frsize=1000))
    host.broken.add("r1")
    with pytest.raises(StepError, match="starting the new release(.|\n)*has 1 MB free, and about 67 MB are needed"):
        deploy(host, order("r1"))


def test_a_full_disk_leaves_the_old_release_and_nothing_of_the_new(host, order, monkeypatch):
    deploy(host, order("r1"))

    def full(self, source):
        os.makedirs(f"{self.folder}/new")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gunicorn_release.Environments, "make", full)
    units = {path.name: path.read_text() for path in Path(layout.UNITS).iterdir()}
    with pytest.raises(StepError, match="writing its files; what served before goes on serving(.|\n)*No space left on device"):
        deploy(host, order("r2"))
    assert host.serves() == "r1" and kept() == ["r1"]
    assert not os.path.exists(f"{layout.APPS}/shop/environments/new")
    assert {path.name: path.read_text() for path in Path(layout.UNITS).iterdir()} == units


# ---- commands


def test_a_command_is_confined_and_its_time_is_limited(host, order):
    deploy(host, order("r1", before_traffic=["sh -c 'echo $HOME'"], hook_seconds=7))
    (command,) = host.hooks()
    assert "--property=RuntimeMaxSec=7" in command and "--property=User=portico-shop" in command and "--property=Type=notify" not in command
    assert command[-3:] == ["sh", "-c", "echo $$HOME"]


def test_a_command_that_took_too_long_is_named(host, order, monkeypatch):
    host.hook = (1, "halfway")
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(hooks_module.time, "monotonic", lambda: next(clock))
    with pytest.raises(StepError, match=r"running 'migrate' \(before_traffic\)(.|\n)*halfway\n(.|\n)*not done after 7 seconds.*hook_seconds"):
        deploy(host, order("r1", before_traffic=["migrate"], hook_seconds=7))
    assert kept() == []


def test_commands_after_traffic_run_when_the_new_release_is_alone(host, order):
    deploy(host, order("r1"))
    host.ran.clear()
    deploy(host, order("r2", after_traffic=["warm"]))
    (at,) = [at for at, each in enumerate(host.ran) if each[0] == "systemd-run"]
    assert not any("ReadWritePaths" in each for each in host.ran[at])
    assert ["systemctl", "stop", "portico-shop@a.service"] in host.ran[:at]
    assert not App(host, order("r2")).read()["owes"]


def test_a_command_after_traffic_that_fails_is_told_and_tried_again(host, order):
    deploy(host, order("r1"))
    host.hook = (1, "no cache")
    with pytest.raises(StepError, match=r"running 'warm' \(after_traffic\); the new release is live, and stays so\. It said:\nno cache"):
        deploy(host, order("r2", after_traffic=["warm"]))
    assert host.serves() == "r2" and kept() == ["r1", "r2"]
    assert App(host, order("r2")).read()["owes"]
    host.hook, live = (0, ""), os.readlink(f"{layout.APPS}/shop/live")
    deploy(host, order("r2", after_traffic=["warm"], owes_only=True))
    assert os.readlink(f"{layout.APPS}/shop/live") == live
    assert not App(host, order("r2")).read()["owes"]


# ---- shared folders


def test_a_shared_folder_lives_on_and_is_filled_once(host, order, source):
    deploy(host, order("r1", source(**{"data/media/first.txt": "1"}), shared=["data/media", "logs"]))
    shared = Path(layout.STATE, "apps/shop/shared")
    (shared / "data/media/upload.txt").write_text("mine")
    deploy(host, order("r2", source(**{"data/media/second.txt": "2"}), shared=["data/media", "logs"]))
    live = Path(layout.APPS, "shop/live/release/source")
    assert sorted(each.name for each in (live / "data/media").iterdir()) == ["first.txt", "upload.txt"]
    assert os.readlink(live / "logs") == str(shared / "logs")
    # Nothing of root's follows what the app could have put there.
    assert not any(each[0] in ("cp", "mkdir", "mv", "rm") for each in host.ran)


def test_a_shared_folder_that_was_copied_halfway_is_copied_anew(host, order, source):
    archive = source(**{"media/first.txt": "1"})
    host.kill_at = "mv --no-target-directory"
    with pytest.raises(Killed):
        deploy(host, order("r1", archive, shared=["media"]))
    host.kill_at = None
    deploy(host, order("r1", archive, shared=["media"]))
    assert os.listdir(f"{layout.STATE}/apps/shop/shared") == ["media"]
    assert os.listdir(f"{layout.STATE}/apps/shop/shared/media") == ["first.txt"]


@pytest.mark.parametrize("folder", ["out", "out/media"])
def test_a_source_cannot_lead_root_out_of_it_by_a_link(host, order, tmp_path, folder):
    (tmp_path / "precious" / "media").mkdir(parents=True)
    (tmp_path / "link").mkdir()
    (tmp_path / "link/requirements.txt").write_text("")
    (tmp_path / "link/out").symlink_to(tmp_path / "precious")
    archive = tmp_path / "link.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path / "link", "."], check=True)
    with pytest.raises(StepError, match=f"sharing its folders(.|\n)*out is no folder in the source, but shared has {folder}"):
        deploy(host, order("r1", str(archive), shared=[folder]))
    assert (tmp_path / "precious/media").is_dir()


# ---- restart


def test_a_restart_never_has_two_releases_in_memory_and_refuses_nobody(host, order):
    deploy(host, order("r1"))
    host.seen_running.clear()
    deploy(host, order("r2", switch="restart", before_traffic=["migrate"]))
    assert host.serves() == "r2"
    assert all(len(each) <= 1 for each in host.seen_running), host.seen_running
    starts = [" ".join(each) for each in host.ran]
    hook = next(at for at, each in enumerate(host.ran) if each[0] == "systemd-run")
    queue_opens = starts.index("systemctl start portico-shop-queue.socket")
    assert hook < queue_opens < starts.index("systemctl stop portico-shop@a.service", queue_opens)
    assert not list(Path(layout.UNITS).glob("*queue*")) and not os.path.lexists(f"{layout.APPS}/shop/slots/queue")
    assert host.active == host.enabled == {"portico-shop@b.socket", "portico-shop@b.service"}


@pytest.mark.parametrize("how", ["does not start", "is not well"])
def test_a_restart_that_fails_has_the_old_release_answer_those_who_waited(host, order, how):
    deploy(host, order("r1"))
    units = {path.name: path.read_text() for path in Path(layout.UNITS).iterdir()}
    keys = {"switch": "restart"}
    if how == "does not start":
        host.broken.add("r2")
    else:
        keys["health"] = {"seconds": 60, "wrong": "/ was answered 500"}
    with pytest.raises(StepError, match="what served before goes on serving"):
        deploy(host, order("r2", **keys))
    assert host.serves() == "r1" and kept() == ["r1"]
    assert host.active == {"portico-shop@a.socket", "portico-shop@a.service"}
    assert {path.name: path.read_text() for path in Path(layout.UNITS).iterdir()} == units


def test_a_worker_that_ends_while_it_is_watched_takes_the_release_back(host, order):
    deploy(host, order("r1"))
    host.workers = ["", "", "8"]
    with pytest.raises(StepError, match="(?s)its health check; what served before goes on serving.*it was well, and one of its workers has ended"):
        deploy(host, order("r2"))
    assert host.serves() == "r1"
    # One whose workers end by themselves after a few requests is taken at its word.
    host.workers = ["", "", "8"]
    deploy(host, order("r2", max_requests=10))
    assert host.serves() == "r2"


def test_a_release_that_is_not_ready_in_time_is_told(host, order, monkeypatch):
    deploy(host, order("r1"))
    run = host.run_command
    monkeypatch.setattr(host, "run_command", lambda argv, **more: (124, "", "") if argv[0] == "timeout" else run(argv, **more))
    with pytest.raises(StepError, match="(?s)starting the new release; what served before.*it was not ready after 60 seconds"):
        deploy(host, order("r2"))


def test_an_old_release_that_does_not_come_back_is_told(host, order):
    deploy(host, order("r1"))
    host.broken.update(("r1", "r2"))
    with pytest.raises(StepError, match="starting the old release again; nothing serves it now"):
        deploy(host, order("r2", switch="restart"))


@pytest.mark.parametrize("switch", ["overlap", "restart"])
def test_what_fails_when_visitors_are_led_already_leaves_the_new_release(host, order, monkeypatch, switch):
    deploy(host, order("r1"))

    def full(*_all):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(*((queue.Queue, "close") if switch == "restart" else (Releases, "went_live")), full)
        with pytest.raises(StepError, match="(?s)writing its files; the new release is live, and stays so.*No space left"):
            deployed(host, order("r2", switch=switch))
    assert host.serves() == "r2" and "for r2" in Path(f"{layout.UNITS}/portico-shop@b.service").read_text()
    deploy(host, order("r2", switch=switch))
    assert App(host, order("r2")).read()["runs"]


# ---- several apps in one run


def deployed(host: Host, *orders: dict[str, object], environment: str = "", credentials: str = "{}") -> dict[str, object]:
    names = [order["name"] for order in orders]
    host.params = {"apps": list(orders), "holder": "a test", "secrets": {}, "environments": dict.fromkeys(names, environment), "credentials": dict.fromkeys(names, credentials)}
    return gunicorn_release._deploy(host)


def test_an_app_that_fails_does_not_stop_those_after_it(host, order, monkeypatch):
    deploy(host, order("r1"))
    gone = {"name": "blog", "state": "absent", "data": "kept"}
    host.broken.add("r2")
    with pytest.raises(StepError, match='(?s)"shop" failed at starting the new release; what served before.*Done in the same run: blog, wiki'):
        deployed(host, gone, order("r2"), {**gone, "name": "wiki"})
    assert host.serves() == "r1"


# ---- secrets


def secrets_of(slot: str) -> list[str]:
    return sorted(path.name for path in Path(f"{layout.APP_SETTINGS}/shop").iterdir() if path.name.startswith(slot) and not path.name.endswith(".conf.py"))


@pytest.mark.parametrize("fails", [False, True])
def test_the_live_slot_alone_keeps_secrets(host, order, fails):
    deployed(host, order("r1"), environment='A="first-secret"\n', credentials='{"card": "x"}')
    host.broken.update(["r2"] if fails else [])
    with pytest.raises(StepError) if fails else contextlib.nullcontext():
        deployed(host, order("r2"), environment='A="other-secret"\n', credentials='{"card": "y"}')
    live, idle = ("a", "b") if fails else ("b", "a")
    assert (secrets_of(live), secrets_of(idle)) == ([f"{live}.credentials", f"{live}.env"], [])
    assert App(host, order("r2"))._credentials(live) == ('{"card": "x"}' if fails else '{"card": "y"}')


def test_what_an_app_said_is_shown_without_its_secrets(host, order):
    secrets = {"environment": 'A="two \\"words\\"\nand a line"\nB="1"\n', "credentials": '{"card": "4000-0000"}'}
    deployed(host, order("r1"), **secrets)
    deployed(host, order("r2"), **secrets)
    host.said = 'cannot use two "words"\n> and a line\nwith 4000-0000 and 1'
    host.broken.update(("r1", "r3"))
    for act in (lambda: deployed(host, order("r3"), **secrets), lambda: roll_back(host)):
        with pytest.raises(StepError) as told:
            act()
        assert str(told.value).endswith("It said:\ncannot use ********\n> ********\nwith ******** and 1")


def test_no_form_of_a_secret_is_shown():
    url = "postgres://shop:hunter2x@db.example.test:5432/shop_of_production"
    environment = apps.environment_file({"DATABASE_URL": url, "WORDS": 'one "two" \\three', "JSON": '  {"indented": "value"}\n  more of it'})
    hidden = gunicorn_release._hidden(environment, ["p@ss/word", None])
    for said in (
        f"input_value='{url[:25]}...{url[-22:]}', input_type=str",
        "cannot log in with hunter2x",
        repr({"WORDS": 'one "two" \\three'}),
        json.dumps({"WORDS": 'one "two" \\three'}),
        "GET https://deploy:p%40ss%2Fword@pypi.example.test/simple",
        '{"indented": "value"}',
        "more of it",
    ):
        shown = gunicorn_release._without(said, hidden)
        assert "****" in shown, shown
        assert not re.search("hunter2|shop:|of_production|two|three|word|indented|more of", shown), shown


def test_a_run_that_was_killed_while_it_built_leaves_no_secret_unseen(host, order, monkeypatch):
    deploy(host, order("r1"))
    step = 1
    while killed_at(host, monkeypatch, step, lambda: deploy(host, order("r2"))) and not kept() == ["r1", "r2"]:
        step += 1
    assert App(host, order("r1")).read()["secrets_left"]
    deploy(host, order("r1"))
    assert not App(host, order("r1")).read()["secrets_left"]


def test_a_failure_after_visitors_were_led_on_is_a_change(host, order, monkeypatch):
    told = {}
    monkeypatch.setattr(host, "fail_json", lambda msg, **more: told.update(more, msg=msg))
    deploy(host, order("r1"))
    host.hook = (1, "no cache")
    deployed(host, order("r2", after_traffic=["warm"]))
    assert host.serves() == "r2" and told["changed"] and "the new release is live" in told["msg"]
    host.broken.add("r3")
    deployed(host, order("r3"))
    assert not told["changed"] and "what served before" in told["msg"]


def test_what_is_live_runs_with_its_own_limits_until_it_ends(host, order, monkeypatch):
    """systemd lays what a unit says of memory upon what runs of it, and starts a crashed one again as it says."""
    deploy(host, order("r1"))
    live = {path.name: path.read_text() for path in Path(layout.UNITS).iterdir()}
    step = 1
    while killed_at(host, monkeypatch, step, lambda: deploy(host, order("r2"))) and App(host, order("r2")).slots.live() == "a":
        assert {name: text for name, text in ((path.name, path.read_text()) for path in Path(layout.UNITS).iterdir()) if "@a" in name} == live, step
        step += 1
    assert step > 10 and host.serves() == "r2"


# ---- killed


def killed_at(host: Host, monkeypatch: pytest.MonkeyPatch, step: int, act) -> bool:
    """Act in a process that ends, as by kill -9, before its command or rename of this number, and return whether it came so far."""
    state = host.root / "state.json"
    child = os.fork()
    if child == 0:
        try:
            steps, run, rename = iter(range(10_000)), host.run_command, os.rename

            def die_in_time():
                if next(steps) == step:
                    host.save(state)
                    os._exit(9)

            def run_command(argv, **more):
                die_in_time()
                return run(argv, **more)

            def rename_in_time(*paths):
                die_in_time()
                rename(*paths)

            host.run_command = run_command
            monkeypatch.setattr(os, "rename", rename_in_time)
            act()
            host.save(state)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    host.load(state)
    return status == 9


@pytest.mark.parametrize("switch", ["overlap", "restart"])
def test_a_deploy_that_is_killed_at_any_step_refuses_nobody_and_the_next_heals(host, order, monkeypatch, switch):
    number = step = 1
    deploy(host, order("r1"))
    while True:
        before, number = f"r{number}", number + 1
        new = order(f"r{number}", switch=switch, before_traffic=["migrate"], after_traffic=["warm"], shared=["media"], keep=3)
        was_killed = killed_at(host, monkeypatch, step, lambda new=new: deploy(host, new))
        assert host.serves() in (before, new["release"]), step
        deploy(host, new)
        app = App(host, new)
        assert (host.serves(), app.read()["runs"], app.read()["owes"]) == (new["release"], True, False), step
        assert app.read()["live"]["previous"] == before, step
        assert len(host.active) == 2 and host.active == host.enabled, (step, host.active, host.enabled)
        assert not list(Path(layout.UNITS).glob("*queue*")), step
        if not was_killed:
            break
        step += 1
    assert step > 30


def test_going_back_that_is_killed_at_any_step_refuses_nobody_and_can_be_done_again(host, order, monkeypatch):
    deploy(host, order("r1"))
    deploy(host, order("r2"))
    step, wanted = 1, "r1"
    while killed_at(host, monkeypatch, step, lambda wanted=wanted: roll_back(host, wanted)):
        assert host.serves() in ("r1", "r2"), step
        roll_back(host, wanted)
        deploy(host, order(wanted))
        assert host.serves() == wanted and kept() == ["r1", "r2"], step
        step, wanted = step + 1, "r2" if wanted == "r1" else "r1"
    assert step > 10


# ---- going back


def test_going_back_is_to_the_release_before_with_its_settings_and_todays_environment(host, order):
    deploy(host, order("r1"), "old")
    deploy(host, order("r2"), "new")
    host.ran.clear()
    told = roll_back(host)["apps"]["shop"]
    assert (told["release"], told["before"], told["previous"], host.serves()) == ("r1", "r2", "r2", "r1")
    slot = os.path.basename(os.readlink(f"{layout.APPS}/shop/live"))
    assert Path(f"{layout.APP_SETTINGS}/shop/{slot}.env").read_text() == "new"
    assert Path(f"{layout.APP_SETTINGS}/shop/{slot}.env").stat().st_mode & 0o777 == 0o600
    assert Path(f"{layout.APP_SETTINGS}/shop/{slot}.conf.py").read_text() == "workers = 'r1'\n"
    assert "for r1" in Path(f"{layout.UNITS}/portico-shop@a.service").read_text()
    assert not any(each[0] in ("systemd-run", "tar", "git") for each in host.ran)
    # And forward again.
    assert roll_back(host)["apps"]["shop"]["release"] == "r2"


def test_going_back_to_a_named_release_takes_the_beginning_of_its_name(host, order):
    for release in ("aa1", "ab1", "b1", "b2"):
        deploy(host, order(release))
    assert roll_back(host, "aa")["apps"]["shop"]["release"] == "aa1"
    assert roll_back(host, "aa1")["changed"] is False
    with pytest.raises(StepError, match=r'has several releases that begin with "b".*b2 \(v-b2, b2b2, .*b1 \(v-b1'):
        roll_back(host, "b")
    with pytest.raises(StepError, match=r'has no release "c".*live one \(aa1\).*b2 .*, b1 .*, ab1 '):
        roll_back(host, "c")


def test_a_release_that_wants_a_credential_which_there_is_no_more_is_not_gone_back_to(host, order):
    old = order("r1")
    old["files"][f"{layout.UNITS}/portico-shop@%i.service"] += "LoadCredential=card:/etc/card\n"
    deployed(host, old, credentials='{"card": "x"}')
    deployed(host, order("r2"))
    with pytest.raises(StepError, match="(?s)handing over its credentials; what served before goes on serving.*not among the credentials of today: card"):
        roll_back(host)
    assert host.serves() == "r2"


def test_a_release_that_knows_nothing_of_a_new_credential_is_gone_back_to(host, order):
    new = order("r2")
    new["files"][f"{layout.UNITS}/portico-shop@%i.service"] += "LoadCredential=card:/etc/card\n"
    deployed(host, order("r1"))
    deployed(host, new, credentials='{"card": "x"}')
    assert roll_back(host)["apps"]["shop"]["release"] == "r1" and host.serves() == "r1"
    # It is kept for the way forward.
    assert roll_back(host)["apps"]["shop"]["release"] == "r2" and host.serves() == "r2"


def test_who_may_connect_is_the_hosts_matter_and_not_a_releases(host, order):
    deploy(host, order("r1"))
    new = order("r2")
    new["files"] = {path: text.replace("www-data", "nginx") for path, text in new["files"].items()}
    deploy(host, new)
    assert roll_back(host)["apps"]["shop"]["release"] == "r1"
    slot = os.path.basename(os.readlink(f"{layout.APPS}/shop/live"))
    assert "SocketUser=nginx" in Path(f"{layout.UNITS}/portico-shop@{slot}.socket").read_text()


def test_folders_that_others_pass_through_are_open_whatever_umask_says(host, order, tmp_path, monkeypatch):
    umask = os.umask(0o077)
    # As an earlier run has left it.
    (tmp_path / "settings").mkdir(0o700)
    monkeypatch.setattr(layout, "APP_SETTINGS", str(tmp_path / "settings/apps"))
    try:
        deploy(host, order("r1"))
    finally:
        os.umask(umask)
    for folder in (tmp_path / "settings", layout.APP_SETTINGS, f"{layout.APP_SETTINGS}/shop", layout.STATE, f"{layout.STATE}/apps"):
        assert os.stat(folder).st_mode & 0o777 == 0o755, folder


def test_a_static_folder_leads_nginx_nowhere_else(host, order, source, tmp_path):
    (tmp_path / "source" / "files").mkdir(parents=True)
    (tmp_path / "log").write_text("the secrets of others")
    (tmp_path / "source/files/log").symlink_to(tmp_path / "log")
    (tmp_path / "source/requirements.txt").write_text("")
    archive = tmp_path / "links.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path / "source", "."], check=True)
    with pytest.raises(StepError, match="(?s)sealing its source.*files/log leads out of the source"):
        deploy(host, order("r1", archive=str(archive), static=["files"]))


def test_a_release_that_is_not_well_when_its_companions_run_is_not_led_to(host, order, monkeypatch):
    deploy(host, order("r1"))
    answers = [None, "/ was answered 500"]
    monkeypatch.setattr(health, "wait", lambda check, path, is_alive: answers.pop(0))
    new = order("r2", companions=["portico-shop-queue"])
    new["files"][f"{layout.UNITS}/portico-shop-queue@%i.service"] = f"# {layout.companion_marker('shop')}\n[Service]\n"
    with pytest.raises(StepError, match="(?s)its health check.*/ was answered 500"):
        deploy(host, new)
    assert host.serves() == "r1" and answers == []


def test_the_live_release_is_there_already_whatever_is_known_of_it(host, order):
    deploy(host, order("r1"))
    os.remove(f"{layout.APPS}/shop/releases/r1/settings.json")
    assert roll_back(host, "r1")["changed"] is False


def test_a_release_of_before_there_was_a_key_is_gone_back_to(host, order):
    deploy(host, order("r1"))
    path = Path(f"{layout.APPS}/shop/releases/r1/settings.json")
    known = json.loads(path.read_text())
    path.write_text(json.dumps({"files": known["files"], "health": known["health"]}))
    deploy(host, order("r2"))
    assert roll_back(host)["apps"]["shop"]["release"] == "r1" and host.serves() == "r1"


def test_what_is_owed_is_not_all_where_another_run_has_led_elsewhere(host, order):
    deploy(host, order("r1", after_traffic=["warm"]))
    deploy(host, order("r2"))
    deploy(host, order("r1", after_traffic=["warm"], owes_only=True))
    assert host.serves() == "r1"


def test_a_release_that_is_not_well_any_more_is_not_gone_back_to(host, order):
    deploy(host, order("r1"))
    deploy(host, order("r2"))
    host.broken.add("r1")
    with pytest.raises(StepError, match="starting the new release"):
        roll_back(host)
    assert host.serves() == "r2" and kept() == ["r1", "r2"]
    assert "for r2" in Path(f"{layout.UNITS}/portico-shop@b.service").read_text()


def test_how_many_are_kept_is_as_the_live_release_was_deployed(host, order):
    deploy(host, order("r1", keep=2))
    for number in range(2, 5):
        deploy(host, order(f"r{number}", keep=5))
    roll_back(host, "r1")
    assert kept() == ["r1", "r2", "r3", "r4"]


def test_a_dry_run_of_going_back_touches_nothing(host, order):
    deploy(host, order("r1"))
    deploy(host, order("r2"))
    host.ran.clear()
    told = roll_back(host, check_mode=True)
    assert told["changed"] and told["apps"]["shop"]["release"] == "r1" and host.serves() == "r2"
    assert told["apps"]["shop"]["revision"] == "r1r1"
    assert not [each for each in host.ran if each[:2] != ["systemctl", "is-active"]]


def test_there_may_be_nothing_to_go_back_to(host, order):
    with pytest.raises(StepError, match='no app "shop" on this host. There is none'):
        roll_back(host)
    deploy(host, order("r1"))
    with pytest.raises(StepError, match=r"no earlier release to go back to\. Besides the live one \(r1\) these are kept: none"):
        roll_back(host)


# ---- removed


def absent(host: Host, data: str = "kept") -> App:
    return App(host, {"name": "shop", "state": "absent", "data": data})


def test_a_removed_app_leaves_its_data_and_nothing_else(host, order):
    deploy(host, order("r1", shared=["media"]))
    left = absent(host).read()["left"]
    assert any(each.endswith("portico-shop@a.service") for each in left) and "the user portico-shop" in left
    absent(host).removal.remove(False)
    assert absent(host).read()["left"] == []
    assert (host.active, host.enabled, host.users) == (set(), set(), {})
    for folder in (layout.APPS, layout.APP_SETTINGS, layout.UNITS, layout.SOCKETS):
        assert os.listdir(folder) == []
    assert os.path.isdir(f"{layout.STATE}/apps/shop/shared/media")
    assert absent(host, "removed").read()["left"] == [f"{layout.STATE}/apps/shop"]
    absent(host, "removed").removal.remove(True)
    assert os.listdir(f"{layout.STATE}/apps") == []


def test_units_that_only_an_earlier_release_has_brought_go_too(host, order):
    more = order("r1")
    more["files"][f"{layout.UNITS}/portico-shop-worker@%i.service"] = layout.companion_marker("shop") + "[Service]\n"
    deploy(host, more)
    host.active.add("portico-shop-worker@a.service")
    absent(host).removal.remove(False)
    assert os.listdir(layout.UNITS) == [] and host.active == set()


def test_another_app_whose_name_begins_alike_stays(host, order):
    # An earlier release had a companion of that name.
    more = order("r1")
    more["files"][f"{layout.UNITS}/portico-shop-api@%i.service"] = layout.companion_marker("shop") + "[Service]\n"
    deploy(host, more)
    deploy(host, order("r2"))
    Path(f"{layout.UNITS}/portico-shop-api@a.service").write_text("another's")
    host.users["portico-shop-api"] = layout.app_comment("shop-api")
    absent(host).removal.remove(False)
    assert os.listdir(layout.UNITS) == ["portico-shop-api@a.service"] and list(host.users) == ["portico-shop-api"]


def test_what_cannot_be_removed_is_told(host, order, monkeypatch):
    deploy(host, order("r1"))

    def busy(path):
        raise OSError(16, "Device or resource busy", path)

    with monkeypatch.context() as context:
        context.setattr(shutil, "rmtree", lambda path, ignore_errors=False: ignore_errors or busy(path))
        with pytest.raises(StepError, match='"shop" could not be removed wholly: .*busy'):
            absent(host).removal.remove(False)
    absent(host).removal.remove(False)
    assert absent(host).read()["left"] == []


def test_a_user_that_is_not_ours_stays(host):
    host.users["portico-shop"] = "Somebody"
    assert absent(host).read()["left"] == []


def test_a_removal_that_is_killed_at_any_step_is_done_by_the_next_run(host, order, monkeypatch):
    step = 1
    deploy(host, order("r1"))
    while killed_at(host, monkeypatch, step, lambda: absent(host).removal.remove(False)):
        assert absent(host).read()["left"], step
        absent(host).removal.remove(False)
        assert absent(host).read()["left"] == [] and host.active == host.enabled == set(), step
        deploy(host, order("r1"))
        step += 1
    assert step > 10


# ---- one run at a time


def test_one_run_changes_an_app_at_a_time(host, monkeypatch):
    monkeypatch.setattr(gunicorn_release, "SECONDS_FOR_ANOTHER_RUN", 1)
    app = App(host, {"name": "shop", "state": "absent", "data": "kept"})
    blog = App(host, {"name": "blog", "state": "absent", "data": "kept"})
    with app.alone("ann@desk"):
        with blog.alone("bob@desk") as lock:
            assert lock.waited_for is None
        with pytest.raises(serving.ServingError, match='Another run changes the app "shop" \\(ann@desk, since .*during 1 seconds'), app.alone("bob@desk"):
            pass


def test_what_is_complete_is_what_the_file_says(host, order):
    deploy(host, order("r1"))
    record = json.loads(Path(f"{layout.APPS}/shop/releases/r1/{COMPLETE}").read_text())
    assert set(record) == {"source", "version", "revision", "who", "python", "collection", "made"}
