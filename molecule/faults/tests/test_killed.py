"""Whatever publishes may be killed at any step: by the kernel, by the network, by an impatient person.

What serves is then what served before or the new configuration, wholly; and the next run ends what was begun.
PORTICO_ALL_FAULTS=1 kills at every step, the releases by turns; of steps that are alike, in which a tree is made or taken away, at
the first, one in the middle and the last. The ordinary run takes some, evenly. The moves of links and the commands that act on
nginx are each release's in any case.
"""

from __future__ import annotations

import os
import re

EVERY_STEP = bool(os.environ.get("PORTICO_ALL_FAULTS"))
SAMPLED = 3
# A whole tree is moved, and then served, in one step, which is none of these.
IN_A_TREE = re.compile(r"(?P<how>open|os\.(?:mkdir|symlink|chmod|chown|remove|rmdir)) \S*(?P<tree>/run/portico-nginx-test-|/generations/(?:\.new-|\d+))\S*$")
TAKE_AWAY = ("os.remove", "os.rmdir")
RESTART = re.compile(r"run systemctl restart")
DECISIVE = re.compile(r"^(run systemctl (reload|restart|start)|os\.rename \S*/live)")


def alike(step):
    """Return a step without what tells it from others of a tree that nginx does not serve: the file, and how it is made or taken away."""
    found = IN_A_TREE.match(step)
    return f"{'take away' if found['how'] in TAKE_AWAY else 'make'} what is in {found['tree']}" if found else step


def spread(numbers):
    """Some of several numbers, evenly: the first and the last among them."""
    return {numbers[round(at * (len(numbers) - 1) / (SAMPLED - 1))] for at in range(SAMPLED)}


def of_each_kind(steps, numbers):
    """Of several numbers of steps, some of each kind."""
    kinds = {}
    for number in numbers:
        kinds.setdefault(alike(steps[number - 1]), []).append(number)
    return sorted(number for alike_ones in kinds.values() for number in spread(alike_ones))


def chosen(steps, turn):
    """The numbers of the steps to kill at, each with whether nginx is restarted before the next run.

    A restart shows that what is on disk can be served. It also hides it when the next run forgets the reload.
    """
    everything = range(1, len(steps) + 1)
    decisive = {number for number in everything if DECISIVE.search(steps[number - 1])}
    assert decisive, steps
    kept = sorted(decisive | (set(of_each_kind(steps, everything)[turn]) if EVERY_STEP else spread(everything)))
    return [(number, False) for number in kept] + [(number, True) for number in sorted(decisive)]


class Kills:
    """Kill the publishing of a version at one step after the other, and remember what went wrong."""

    def __init__(self, server, steps):
        self.server, self.steps, self.traces, self.wrong = server, steps, server.traces(), []
        # nginx is started anew, for its sandbox, where it has served nobody's sites yet, and at most once.
        self.restart = next((number for number, step in enumerate(steps, 1) if RESTART.match(step)), 0)

    def at(self, number, restart, before, after, *urls):
        try:
            self.kill(number, before, after, *urls)
            if restart:
                self.server.restart()
                assert self.server.versions(*urls) in ({before}, {after})
            self.heal(after, *urls, restarts=number <= self.restart)
        except AssertionError as error:
            step = f"step {number} of {len(self.steps)}, {self.steps[number - 1]}{', then nginx restarted' if restart else ''}"
            self.wrong.append(f"killed before {step}:\n{error}")
            # Whatever state this left, the next step is judged from a known one.
            self.server.publish(after)
            self.traces = self.server.traces()

    def kill(self, number, before, after, *urls, **variables):
        """What is served stays what it was or becomes the new version, wholly; and nginx could start with it."""
        with self.server.load(*urls) as load:
            with self.server.faults(kill_before=number):
                run = self.server.publish(after, **variables)
            assert not run.ok and len(self.server.steps) == number, f"{self.server.steps}\n{run.output}"
        assert not load.report.lost, load.report
        assert set(load.report.labels) <= {before, after}, load.report
        assert self.server.versions(*urls) in ({before}, {after})
        self.server.host.check_output("nginx -t -q")

    def heal(self, after, *urls, restarts=False):
        """The next run publishes the version, loses nothing, leaves nothing behind and nothing to do."""
        with self.server.load(*urls) as load:
            run, again = self.server.publish_twice(after)
            assert run.ok, run.output
        assert not (load.report.harmed if restarts else load.report.lost), load.report
        assert self.server.versions() == {after}
        assert not again, run.output
        # What a reboot has swept away since is no concern of this.
        left = [path for path in self.server.changed_since(self.traces) if path.startswith("+")]
        assert not left, f"left behind: {' '.join(left)}"


def test_a_change_that_is_killed_at_any_step_is_ended_by_the_next_run(old):
    with old.faults():
        assert old.publish("new").ok
    kills = Kills(old, old.steps)
    before, after = "new", "old"
    for number, restart in chosen(kills.steps, old.turn):
        kills.at(number, restart, before, after)
        before, after = after, before
    assert not kills.wrong, "\n\n".join(kills.wrong)


def test_a_first_run_that_is_killed_at_any_step_is_ended_by_the_next_run(packaged):
    with packaged.faults():
        assert packaged.publish("new").ok
    kills = Kills(packaged, packaged.steps)
    assert kills.restart, kills.steps
    for number, restart in chosen(kills.steps, packaged.turn):
        packaged.unpublish()
        kills.at(number, restart, "packaged", "new", "http://pages.example.test/")
    assert not kills.wrong, "\n\n".join(kills.wrong)


def test_what_is_killed_while_it_is_put_back_is_put_back_by_the_next_run(old):
    """The change fails after the reload, and then whatever puts the old configuration back is killed as well."""
    with old.held_port(8099):
        with old.faults():
            run = old.publish("new", nginx_http_port=8099)
        assert not run.ok, run.output
        kills = Kills(old, old.steps)
        (swap, *_) = (number for number, step in enumerate(kills.steps, 1) if DECISIVE.search(step))
    for number in of_each_kind(kills.steps, range(swap + 1, len(kills.steps) + 1))[old.turn]:
        assert old.publish("old").ok
        with old.held_port(8099):
            kills.kill(number, "old", "new", nginx_http_port=8099)
        kills.heal("new")


def test_nginx_comes_back_when_its_master_is_killed(old, crash):
    crash("nginx", "main")
    assert old.versions() == {"old"}
    assert old.publish("old").changed == {old.name: 0}


def test_a_host_that_restarts_between_the_swap_and_the_reload_serves_one_version(old):
    with old.faults():
        assert old.publish("new").ok
    (reload,) = (number for number, step in enumerate(old.steps, 1) if re.match("run .*(systemctl|nginx) .*reload", step))
    assert old.publish("old").ok
    kills = Kills(old, old.steps)
    kills.kill(reload, "old", "new")
    old.reboot()
    assert old.versions() in ({"old"}, {"new"})
    kills.heal("new")
