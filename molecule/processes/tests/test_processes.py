"""The processes of an app: its companions, its workers, and what all of them may do."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DESK = Path(__file__).parents[1] / "desk"
BEAT = {"name": "beat", "command": "python beat.py", "stop_seconds": 20}
HOME = "/srv/portico/desk"

# Over the live slot's socket, as nginx asks.
ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("desk", timeout=30)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/srv/portico/desk/live/app.sock")
connection.request("GET", sys.argv[1], headers={"Connection": "close"})
print(connection.getresponse().read().decode())
"""


class Desk:
    """A server with the app."""

    def __init__(self, host: Any, name: str, play: Callable[..., Any], folder: Path) -> None:
        self.host, self.name, self._play, self.folder = host, name, play, folder

    def run(self, *flags: str, **keys: Any) -> Any:
        given = {"folder": str(self.folder), "keys": keys}
        return self._play("processes.yml", "--limit", self.name, "--extra-vars", json.dumps(given), *flags)

    def deploy(self, **keys: Any) -> None:
        run = self.run(**keys)
        assert run.ok, run.output

    def renew(self, text: str) -> None:
        """Make another release of it."""
        (self.folder / "release.txt").write_text(text)

    def ask(self, path: str = "/") -> Any:
        return json.loads(self.host.check_output("python3 -c %s %s", ASK, path))

    def live(self) -> str:
        return self.host.check_output(f"readlink {HOME}/live").rsplit("/", 1)[1]

    def units(self) -> list[str]:
        """Which of its services run, without what all are called."""
        found = self.host.check_output("systemctl list-units --no-legend --plain --state=active,activating 'portico-desk*.service'")
        return sorted(re.findall(r"portico-desk(\S*)\.service", found))

    def of_boot(self) -> list[str]:
        found = self.host.check_output("ls /etc/systemd/system/multi-user.target.wants")
        return sorted(re.findall(r"portico-desk(\S*)\.service", found))

    def beats(self) -> list[Any]:
        return [json.loads(line) for line in self.host.check_output("cat /var/lib/portico/apps/desk/beat").splitlines()]

    def shown(self, unit: str, *names: str) -> list[str]:
        return [self.host.check_output(f"systemctl show --value --property {name} portico-desk{unit}.service") for name in names]


@pytest.fixture(scope="module")
def desk(host: Any, name: str, play: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    # In a container systemd leaves mounts as they are, and then it cannot hand over credentials.
    host.check_output("mount --make-rshared /")
    folder = tmp_path_factory.mktemp("desk") / "desk"
    shutil.copytree(DESK, folder)
    (folder / "requirements.txt").write_text("uvicorn-worker\n")
    desk = Desk(host, name, play, folder)
    desk.deploy(companions=[BEAT])
    return desk


def test_a_companion_runs_beside_the_live_slot_and_from_boot_on(desk):
    live = desk.live()
    assert desk.units() == desk.of_boot() == [f"-beat@{live}", f"@{live}"]
    assert desk.run(companions=[BEAT]).changed == {desk.name: 0}
    user = desk.host.check_output("ps -o user:32= -p $(systemctl show --value -p MainPID portico-desk-beat@%s.service)", live)
    assert user == "portico-desk"


def test_a_scheduler_never_runs_twice(desk):
    before = desk.beats()
    for number in range(4):
        desk.renew(f"release {number}")
        desk.deploy(companions=[BEAT])
    beats = desk.beats()[len(before) - 1 :]
    assert [what for what, *_more in beats] == ["began", "ended"] * 4 + ["began"], beats
    assert len({release for _what, _words, release, _when in beats}) == 5
    assert all(before[3] <= after[3] for before, after in itertools.pairwise(beats))
    assert desk.units() == desk.of_boot() == [f"-beat@{desk.live()}", f"@{desk.live()}"]


BAD = {
    "it does not import": ("python -c 'import a_module_that_nobody_wrote'", "No module named 'a_module_that_nobody_wrote'"),
    "there is no such program": ("a-program-that-nobody-wrote --serve", "a-program-that-nobody-wrote"),
    "it ends at once": ("true", "it has ended"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_companion_that_does_not_start_leaves_the_old_release_serving(desk, kind):
    command, says = BAD[kind]
    live, units, release = desk.live(), desk.units(), desk.host.check_output(f"readlink -f {HOME}/live/release")
    desk.renew(kind)
    run = desk.run(companions=[BEAT, {"name": "bad", "command": command}])
    assert not run.ok and "starting the companion portico-desk-bad@" in run.output and says in run.output, run.output
    assert "what served before goes on serving" in run.output, run.output
    assert (desk.live(), desk.units(), desk.of_boot(), desk.host.check_output(f"readlink -f {HOME}/live/release")) == (live, units, units, release)
    assert desk.beats()[-1][0] == "began" and release in desk.beats()[-1][2]
    assert desk.ask() > 0
    assert desk.host.check_output("systemctl --failed --no-legend --plain") == ""


def test_a_companion_gets_its_words_as_they_are_written(desk):
    words = ["$HOME", "${HOME}", "$$", "%n", "%%", ";", "\\;", "", 'a"b', "it's", "\\x41", "\\", "-", "@x", "é", "#", "a  b", "~", "*", "|", ">", "A=b"]
    note = "import json, os, signal, sys; print(json.dumps(sys.argv[1:]), file=open(os.environ['STATE_DIRECTORY'] + '/{}', 'w')); {}"
    hook = shlex.join(["python", "-c", note.format("hook", "0"), *words])
    desk.deploy(companions=[BEAT, {"name": "words", "command": shlex.join(["python", "-c", note.format("words", "signal.pause()"), *words])}], before_traffic=[hook])
    for name in ("words", "hook"):
        assert json.loads(desk.host.check_output(f"cat /var/lib/portico/apps/desk/{name}")) == words


def test_a_companion_that_crashes_comes_back(desk):
    unit = f"portico-desk-beat@{desk.live()}.service"
    before = desk.shown(f"-beat@{desk.live()}", "MainPID")
    desk.host.check_output(f"systemctl kill --signal KILL {unit}")
    desk.host.check_output(f"timeout 20 sh -c 'until [ \"$(systemctl show --value -p NRestarts {unit})\" = 1 ] && systemctl is-active --quiet {unit}; do sleep 0.2; done'")
    assert desk.shown(f"-beat@{desk.live()}", "MainPID") != before


def test_a_companion_that_does_not_run_is_brought_back_by_a_run(desk):
    desk.deploy(companions=[BEAT])
    desk.host.check_output(f"systemctl stop portico-desk-beat@{desk.live()}.service")
    assert desk.run("--check", companions=[BEAT]).changed == {desk.name: 1}
    desk.deploy(companions=[BEAT])
    assert desk.units() == [f"-beat@{desk.live()}", f"@{desk.live()}"]


def test_a_companion_that_is_no_longer_listed_goes_with_its_unit(desk):
    desk.deploy()
    assert desk.units() == desk.of_boot() == [f"@{desk.live()}"]
    assert desk.host.run("ls /etc/systemd/system/portico-desk-*").rc != 0
    assert desk.run().changed == {desk.name: 0}


@pytest.mark.parametrize("worker_class", ["sync", "asgi", "uvicorn"])
def test_a_worker_class_answers(desk, worker_class):
    app = "wsgi:application" if worker_class == "sync" else "wsgi:asgi"
    desk.deploy(app=app, worker_class=worker_class, workers=2, max_requests=50)
    masters = {desk.ask() for _ in range(3)}
    assert masters == {int(desk.shown(f"@{desk.live()}", "MainPID")[0])}
    assert desk.host.check_output("pgrep --count --parent %s", str(masters.pop())) == "2"


def test_a_worker_class_that_is_not_installed_is_told(desk):
    live = desk.live()
    (desk.folder / "requirements.txt").write_text("")
    run = desk.run(app="wsgi:asgi", worker_class="uvicorn")
    (desk.folder / "requirements.txt").write_text("uvicorn-worker\n")
    assert not run.ok and "finding its worker class" in run.output and "no uvicorn-worker" in run.output, run.output
    assert desk.live() == live and desk.ask() > 0


def test_limits_hold_for_every_process(desk):
    keys = {"memory": "256M", "cpu": "150%", "tasks": 100, "companions": [BEAT], "preload": True}
    desk.deploy(**keys)
    live = desk.live()
    for unit in (f"@{live}", f"-beat@{live}"):
        assert desk.shown(unit, "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax") == [str(256 * 1024**2), "1.500000s", "100"]
    # What it has room for, of the 128 MiB that a worker is reckoned to need.
    assert int(desk.host.check_output("pgrep --count --parent %s", desk.shown(f"@{live}", "MainPID")[0])) == 2


def test_a_worker_that_eats_all_memory_is_replaced_and_the_app_goes_on(desk):
    master = desk.ask()
    assert desk.host.run("python3 -c %s /eat", ASK).rc != 0
    assert desk.ask() == master
    assert desk.shown(f"@{desk.live()}", "NRestarts") == ["0"]


@pytest.mark.parametrize(
    ("network", "spoken"),
    [("local", {"loopback": "sent", "outside": "EPERM"}), ("none", {"loopback": "EAFNOSUPPORT", "outside": "EAFNOSUPPORT"})],
)
def test_a_network_is_confined_as_far_as_it_is_asked_for(desk, network, spoken):
    desk.deploy(network=network)
    assert desk.ask("/speak") == spoken
    assert desk.run(network=network).changed == {desk.name: 0}


@pytest.mark.parametrize("network", ["all", "local", "none"])
def test_the_exposure_is_small(desk, network):
    desk.deploy(network=network, companions=[BEAT])
    for unit in (f"@{desk.live()}", f"-beat@{desk.live()}"):
        judged = desk.host.check_output(f"systemd-analyze security --no-pager portico-desk{unit}.service")
        exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", judged).group(1))
        assert exposure <= 1.5, judged


def test_credentials_reach_the_app_alone_byte_for_byte(desk):
    first = {"password": "hunter2 of the desk", "tls.key": "a\r\nb\n\n  é", "empty": ""}
    run = desk.run("-vvv", "--diff", credentials=first)
    assert run.ok and "hunter2" not in run.output, run.output
    live = desk.live()
    assert desk.ask("/credentials") == first
    assert desk.run(credentials=first).changed == {desk.name: 0}
    # Another, at the same release: the slots are switched.
    second = {"password": "hunter3 of the desk"}
    desk.deploy(credentials=second)
    assert desk.live() != live and desk.ask("/credentials") == second
    # Not in a file, a process list or a journal that somebody else may read.
    (folder,) = desk.host.check_output("ls -d /run/credentials/portico-desk@*").splitlines()
    for path in (f"{folder}/password", f"/etc/portico/apps/desk/{desk.live()}.credentials/password"):
        assert desk.host.check_output(f"cat {path}") == "hunter3 of the desk"
        assert desk.host.run(f"setpriv --reuid www-data --regid www-data --clear-groups cat {path}").rc != 0
    assert desk.host.run("journalctl --no-pager --all | grep -E 'hunter[23]'").rc == 1
    assert desk.host.run("grep -zlE 'hunter[23]' /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep -v self").stdout == ""
    desk.deploy()
    assert desk.ask("/credentials") == {}
    assert desk.run().changed == {desk.name: 0}


def test_credentials_that_a_host_cannot_hand_over_are_told(desk):
    live = desk.live()
    desk.host.check_output("mount --make-rprivate /")
    run = desk.run(credentials={"password": "hunter2 of the desk"})
    desk.host.check_output("mount --make-rshared /")
    assert not run.ok and "handing over its credentials" in run.output and "hunter2" not in run.output, run.output
    assert desk.live() == live and desk.ask() > 0


def test_a_reboot_brings_the_companions_of_the_live_slot_back(desk):
    desk.deploy(companions=[BEAT])
    live = desk.live()
    subprocess.run(["docker", "restart", desk.name], check=True, capture_output=True)
    desk.host.run("timeout 60 sh -c 'until systemctl is-system-running --wait | grep -qE \"running|degraded\"; do sleep 0.2; done'")
    assert (desk.live(), desk.units()) == (live, [f"-beat@{live}", f"@{live}"])
    assert desk.ask() > 0
    assert desk.run(companions=[BEAT]).changed == {desk.name: 0}
