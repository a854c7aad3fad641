"""Two people, or two pipelines, publish to one host at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from scene import sites


def at_once(*calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def test_plays_at_once_of_one_scope_end_with_one_of_them(old):
    with old.load() as load:
        runs = at_once(*(lambda version=version: old.publish(version) for version in ("new", "other", "old", "new")))
    assert not load.report.lost, load.report
    assert all(run.ok for run in runs), "\n".join(run.output for run in runs if not run.ok)
    (last,) = old.versions()
    # Whoever was last published all of its version, and what is on disk is what is served.
    assert old.publish(last).changed == {old.name: 0}
    old.restart()
    assert old.versions() == {last}


def test_plays_at_once_of_two_scopes_are_both_served(old):
    pages, moved, _secure = sites("new")
    a = {**pages, "name": "a", "server_names": ["a.example.test"]}
    b = {**moved, "name": "b", "server_names": ["b.example.test"]}
    with old.load() as load:
        runs = at_once(
            lambda: old.play_with({"nginx_scope": "a", "nginx_sites": [a]}),
            lambda: old.play_with({"nginx_scope": "b", "nginx_sites": [b]}),
        )
    assert all(run.ok for run in runs), "\n".join(run.output for run in runs if not run.ok)
    assert not load.report.lost, load.report
    # The host's own scope, and each of the others.
    assert old.versions() == {"old"}
    assert old.versions("http://a.example.test/", "http://b.example.test/") == {"new"}
