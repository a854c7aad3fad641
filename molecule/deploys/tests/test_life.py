"""The life of releases: going back, restarts, what is shared, what comes after traffic, full disks, and the end of an app."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from servers import AS_A_MACHINE

pytestmark = pytest.mark.skipif(not os.environ.get("PORTICO_LIVES"), reason="as long as all deploys: `make test-all` takes it")

PATIENCE = 30
"""Seconds. In a restart visitors wait as long as the app takes to start, and twice that where it fails."""

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
APP = (Path(__file__).parents[1] / "app/wsgi.py").read_text()


@pytest.fixture
def playbook(shop):
    """Run one of the collection's playbooks for the app of this server."""

    def run(name, **variables):
        return shop._play(str(PLAYBOOKS / name), "--limit", shop.name, "--extra-vars", json.dumps({"app": "shop", "portico_hosts": "web", **variables}))

    return run


def slow(version):
    """Return the files of a version that takes some seconds to start."""
    return {"wsgi": "import time\n\ntime.sleep(4)\n" + APP.replace('"VERSION"', repr(version), 1)}  # a slow start is what this one is for


def release(shop):
    return os.path.basename(shop.host.check_output("readlink -f /srv/portico/shop/live/release"))


def no_queue(shop):
    return not shop.host.check_output("ls /etc/systemd/system /srv/portico/shop/slots /run/portico/shop | grep queue || true")


def test_going_back_loses_nothing(shop, playbook):
    assert shop.deploy("one").ok
    first = release(shop)
    assert shop.deploy("two", environment_of_app={"COLOUR": "green"}).ok
    with shop.load() as load:
        run = playbook("gunicorn_rollback.yml")
        assert run.ok, run.output
    print(load.report)
    assert not load.report.lost and load.report.closed_idle == 0, load.report
    # The release of then, with the environment of today.
    assert (release(shop), shop.version()) == (first, {"one green"})
    assert "deploys what the list says again" in run.output
    assert playbook("gunicorn_rollback.yml", release=first[:6]).changed == {shop.name: 0}
    run = playbook("gunicorn_rollback.yml", release="no-such")
    assert not run.ok and first in run.output and 'has no release "no-such"' in run.output, run.output
    # What the list says is deployed again, though nothing in it has changed.
    assert shop.deploy("two", environment_of_app={"COLOUR": "green"}).changed[shop.name] > 0
    assert shop.version() == {"two green"}


def test_a_restart_loses_nothing_and_lets_visitors_wait(shop):
    assert shop.deploy("before", switch="restart").ok
    with shop.load(timeout=PATIENCE) as load:
        run = shop.deploy("after", switch="restart", files=slow("after"))
        assert run.ok, run.output
    print(load.report)
    assert not load.report.lost and load.report.closed_idle == 0, load.report
    assert set(load.report.labels) == {"before", "after"}
    assert load.report.longest > 4, load.report
    assert shop.version() == {"after"} and len(shop.running()) == 1 and no_queue(shop)
    assert shop.deploy("after", switch="restart", files=slow("after")).changed == {shop.name: 0}


@pytest.mark.parametrize(
    "files",
    [
        {"wsgi": "import a_module_that_nobody_wrote\n"},
        {"wsgi": "def application(environ, start_response):\n    start_response('500 No', [('Content-Length', '0')])\n    return []\n"},
    ],
    ids=["does not import", "answers 500"],
)
def test_a_restart_that_fails_has_the_old_release_answer_those_who_waited(shop, files):
    assert shop.deploy("sound", switch="restart").ok
    with shop.load(timeout=PATIENCE) as load:
        run = shop.deploy("unsound", switch="restart", files=files, health={"seconds": 3})
    assert not run.ok and "what served before goes on serving" in run.output, run.output
    # Nobody met the new release, not even for its 500.
    assert not load.report.lost and load.report.closed_idle == 0, load.report
    assert set(load.report.labels) == {"sound"}, load.report
    assert len(shop.running()) == 1 and no_queue(shop)


def test_a_restart_that_is_killed_while_visitors_wait_loses_nothing(shop):
    assert shop.deploy("sound", switch="restart").ok
    with shop.load(timeout=PATIENCE) as load:
        run = threading.Thread(target=shop.deploy, args=("slow",), kwargs={"switch": "restart", "files": slow("slow")})
        run.start()
        shop.host.check_output("timeout 120 sh -c 'until systemctl list-units --no-legend --state=activating \"portico-shop@*.service\" | grep -q .; do sleep 0.1; done'")
        assert shop.host.check_output("readlink /srv/portico/shop/live") == "slots/queue"
        shop.host.check_output("kill -KILL $(find /proc/[0-9]*/fd -lname /run/lock/portico-app-shop.lock 2> /dev/null | cut -d/ -f3 | sort -u)")
        run.join()
        # Nobody leads those who wait now but systemd.
        assert shop.version() <= {"sound", "slow"}
        assert shop.deploy("slow", switch="restart", files=slow("slow")).ok
    print(load.report)
    assert not load.report.lost and load.report.closed_idle == 0, load.report
    assert shop.version() == {"slow"} and len(shop.running()) == 1 and no_queue(shop)


def test_commands_after_traffic_run_once_and_a_failure_leaves_the_release_live(shop):
    count = ["sh -c 'echo x >> $STATE_DIRECTORY/after'"]
    assert shop.deploy("hooked", after=count).ok
    assert shop.deploy("hooked", after=count).changed == {shop.name: 0}
    assert shop.host.check_output("cat /var/lib/portico/apps/shop/after") == "x"
    run = shop.deploy("hooked-2", after=["python -c 'raise SystemExit(\"no cache\")'"])
    assert not run.ok and "no cache" in run.output and "the new release is live, and stays so" in run.output, run.output
    assert shop.version() == {"hooked-2"}
    # Another run does what is owed, and moves nothing.
    live = shop.live()
    assert shop.deploy("hooked-2", after=count).ok
    assert shop.live() == live and shop.host.check_output("cat /var/lib/portico/apps/shop/after") == "x\nx"


def test_a_command_that_hangs_is_ended_and_named(shop):
    before = shop.version()
    run = shop.deploy("hanging", hooks=["sleep 600"], hook_seconds=2)
    assert not run.ok and "sleep 600" in run.output and "not done after 2 seconds" in run.output, run.output
    assert shop.version() == before
    assert shop.host.run("pgrep --full '^sleep [6]00'").rc != 0


def test_a_shared_folder_outlives_the_release_that_brought_it(shop):
    fill = ["sh -c 'echo mine > media/upload.txt'"]
    assert shop.deploy("sharing", shared=["media"], after=fill).ok
    assert shop.deploy("sharing-2", shared=["media"]).ok
    assert shop.host.check_output("cat /srv/portico/shop/live/release/source/media/upload.txt") == "mine"


def test_two_runs_at_once_are_one_after_the_other(shop):
    runs = []
    both = [threading.Thread(target=lambda version=version: runs.append(shop.deploy(version, "-v", hooks=["sleep 3"]))) for version in ("left", "right")]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert all(run.ok for run in runs), [run.output for run in runs]
    assert any('"waited_for": "' in run.output for run in runs), [run.output for run in runs]
    assert shop.version() in ({"left"}, {"right"}) and len(shop.running()) == 1


def test_a_job_in_ci_deploys_one_app_and_reads_what_became_of_it(shop, playbook, tmp_path):
    app = {"name": "shop", "source": {"path": "/nowhere"}, "app": "wsgi:application"}
    given = {"gunicorn_apps": [app], "path": str(shop.write("from-ci")), "result": str(tmp_path / "result.json")}
    before = release(shop)
    run = playbook("deploy.yml", **given)
    assert run.ok, run.output
    told = json.loads((tmp_path / "result.json").read_text())
    (host,) = told["hosts"]
    assert (told["app"], told["changed"], told["failed"], host["host"]) == ("shop", True, False, shop.name)
    assert (host["release"], host["previous"]) == (release(shop), before)
    run = playbook("deploy.yml", **given)
    assert json.loads((tmp_path / "result.json").read_text())["changed"] is False


def test_a_removed_app_leaves_its_data_and_nothing_else(shop):
    shop.host.check_output("sh -c 'echo precious > /var/lib/portico/apps/shop/data.txt'")

    def remove(data, *flags):
        return shop._play("absent.yml", "--limit", shop.name, "--extra-vars", json.dumps({"data": data}), *flags)

    assert remove("kept", "--check").changed[shop.name] > 0
    assert shop.running()
    run = remove("kept")
    assert run.ok, run.output
    assert remove("kept").changed == {shop.name: 0}
    left = shop.host.check_output("find / -xdev -name '*portico-shop*' -not -path '/proc/*' -not -path '*/journal/*' -not -path '/run/lock/*'; ls /srv/portico /etc/portico/apps /run/portico; getent passwd portico-shop; getent group portico-shop; true")
    assert "shop" not in left.replace("/srv/portico:", ""), left
    assert shop.host.check_output("stat -c '%U %a' /var/lib/portico/apps/shop") == "root 700"
    assert shop.host.check_output("cat /var/lib/portico/apps/shop/data.txt") == "precious"
    # An app of that name gets its data back.
    assert shop.deploy("returned").ok
    assert shop.version() == {"returned"}
    assert shop.host.check_output("stat -c '%U' /var/lib/portico/apps/shop/data.txt") == "portico-shop"
    assert remove("removed").ok
    assert not shop.host.file("/var/lib/portico/apps/shop").exists


def test_a_full_disk_leaves_the_old_release_serving(shop):
    shop.host.check_output(AS_A_MACHINE)
    shop.host.check_output("mkdir -p /srv/portico/shop && mount -t tmpfs -o size=60m,mode=711 full /srv/portico/shop")
    try:
        run = shop.deploy("small")
        assert run.ok, run.output
        before = (release(shop), shop.host.check_output("ls /srv/portico/shop/releases /srv/portico/shop/environments"))
        with shop.load() as load:
            run = shop.deploy("big", files={"big.bin": os.urandom(30_000_000).hex()})
        assert not run.ok and "No space left" in run.output and " MB free, and about " in run.output, run.output
        assert not load.report.lost and set(load.report.labels) == {"small"}, load.report
        assert (release(shop), shop.host.check_output("ls /srv/portico/shop/releases /srv/portico/shop/environments")) == before
        assert shop.deploy("small-2").ok
        assert shop.version() == {"small-2"}
    finally:
        shop.host.run("systemctl stop 'portico-shop@*.service' 'portico-shop@*.socket'; umount /srv/portico/shop")
        assert shop.deploy("last").ok
