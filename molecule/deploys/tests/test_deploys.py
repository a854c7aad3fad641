"""What visitors see of deploys: nothing, but that the answers become new ones."""

from __future__ import annotations

import os

import pytest


def test_an_unchanged_run_changes_nothing(shop):
    live = shop.live()
    assert shop.deploy("first").changed == {shop.name: 0}
    assert shop.deploy("first", "--check", "--diff").changed == {shop.name: 0}
    assert shop.live() == live


def test_a_dry_run_says_what_would_be_and_touches_nothing(shop):
    live = shop.live()
    assert shop.deploy("another", "--check", "--diff").changed[shop.name] > 0
    assert (shop.live(), shop.version()) == (live, {"first"})


# `make test-all` takes twenty.
IN_A_ROW = int(os.environ.get("PORTICO_DEPLOYS_IN_A_ROW", "6"))


def test_deploys_in_a_row_lose_nothing(shop):
    workers = shop.workers_of_nginx()
    with shop.load() as quiet:
        shop.deploy("first")
    print("quiet:", quiet.report)
    with shop.load() as load:
        for number in range(IN_A_ROW):
            # nginx is not told of a deploy, and need not be asked.
            run = shop.deploy(f"version-{number}", "--skip-tags", "nginx")
            assert run.ok, run.output
    print(load.report)
    assert not load.report.lost, load.report
    assert load.report.closed_idle == 0, load.report
    assert {f"version-{number}" for number in range(IN_A_ROW)} <= set(load.report.labels)
    assert shop.version() == {f"version-{IN_A_ROW - 1}"}
    # No deploy reloads nginx, so that every connection lives through it.
    assert shop.workers_of_nginx() == workers
    assert len(shop.running()) == 1


def test_a_change_of_the_environment_alone_loses_nothing(shop):
    shop.deploy("coloured")
    release = shop.host.check_output("readlink -f /srv/portico/shop/live/release")
    with shop.load() as load:
        run = shop.deploy("coloured", environment_of_app={"COLOUR": "green"})
        assert run.ok, run.output
    assert not load.report.lost and load.report.closed_idle == 0, load.report
    assert shop.version() == {"coloured green"}
    assert shop.host.check_output("readlink -f /srv/portico/shop/live/release") == release


CRASHES = """
import os
import threading

threading.Timer(2, os._exit, [1]).start()


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""

BAD = {
    "it does not import": ({"wsgi": "import a_module_that_nobody_wrote\n"}, {}, "starting the new release", "No module named 'a_module_that_nobody_wrote'"),
    "it answers 500": (
        {"wsgi": "def application(environ, start_response):\n    start_response('500 No', [('Content-Length', '0')])\n    return []\n"},
        {"health": {"seconds": 3}},
        "its health check",
        "/ was answered 500",
    ),
    "it hangs": (
        {"wsgi": "import threading\n\ndef application(environ, start_response):\n    threading.Event().wait()\n"},
        {"health": {"seconds": 3}, "graceful": 1},
        "its health check",
        "gave no answer within",
    ),
    "it is never ready": ({"wsgi": "import threading\n\nthreading.Event().wait()\n"}, {"health": {"seconds": 3}, "graceful": 1}, "starting the new release", "not ready after 3 seconds"),
    "a worker crashes after two seconds": ({"wsgi": CRASHES}, {}, "its health check", "it was well, and one of its workers has ended"),
    "it needs a secret that is missing": ({"wsgi": "import os\n\nos.environ['A_SECRET_THAT_NOBODY_SET']\n"}, {}, "starting the new release", "KeyError: 'A_SECRET_THAT_NOBODY_SET'"),
    "it says the wrong thing": ({}, {"health": {"contains": "all well", "seconds": 2}}, "its health check", "without the text"),
    "a command before traffic fails": ({}, {"hooks": ["python -c 'raise SystemExit(\"no migration\")'"]}, "running", "no migration"),
    "its requirements cannot be had": ({"requirements.txt": "a-package-that-nobody-wrote==1\n"}, {}, "installing its requirements", "a-package-that-nobody-wrote"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_release_that_must_not_go_live_leaves_the_old_one_serving(shop, kind):
    files, variables, step, says = BAD[kind]
    before = (shop.version(), shop.live(), shop.host.check_output("ls /srv/portico/shop/releases"))
    with shop.load() as load:
        run = shop.deploy("bad", files=files, environment_of_app={"COLOUR": "red"}, **variables)
    assert not run.ok, run.output
    assert step in run.output and says in run.output and "what served before goes on serving" in run.output, run.output
    assert not load.report.lost and load.report.closed_idle == 0, load.report
    assert set(load.report.labels) == before[0], load.report
    assert (shop.version(), shop.live(), shop.host.check_output("ls /srv/portico/shop/releases")) == before
    assert len(shop.running()) == 1
    assert shop.host.check_output("systemctl --failed --no-legend --plain") == ""


def test_the_next_good_release_goes_live(shop):
    with shop.load() as load:
        run = shop.deploy("good")
        assert run.ok, run.output
    assert not load.report.lost, load.report
    assert shop.version() == {"good"}
    assert shop.deploy("good").changed == {shop.name: 0}


def test_a_crash_of_the_live_slot_costs_only_what_was_in_hand(shop, crash):
    (unit,) = shop.running()
    with shop.load() as load:
        crash(unit)
    print(load.report)
    # A read is asked again by nginx; a post rightly is not, and nobody can take back an answer that has begun.
    assert not [line for line in load.report.lost if not (line.startswith("502 from POST") or "IncompleteRead" in line)], load.report
    assert len(load.report.lost) <= 12, load.report
    assert shop.version() == {"good"}


def test_a_reboot_brings_the_live_slot_back(shop):
    live = shop.live()
    shop.reboot()
    assert (shop.live(), shop.version()) == (live, {"good"})
    assert shop.deploy("good").changed == {shop.name: 0}
