#!/usr/bin/env python3
"""apps.py [--apps 1,10,30] [--rounds 5]: what deploys of apps cost over SSH, beside a play with one task.

Run by `make bench`. Seconds hang on the machine and on how near the index of packages is; the ratios to the play with
one task less so. Nothing passes or fails here.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import yaml

from bench import Bench, Run, asked, server

APP = """
VERSION = {version!r}


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [VERSION.encode()]
"""

WORDS = {
    "no-op": "one task that does nothing",
    "unchanged": "unchanged",
    "deploy": "another release of one app, same requirements",
    "rollback": "rollback of one app",
    "pip": "first deploy, environment by pip",
    "uv": "first deploy, environment by uv",
}


def write(folder: Path, version: str) -> None:
    """Write a version of an app that wants a little of the index."""
    folder.mkdir(exist_ok=True)
    (folder / "wsgi.py").write_text(APP.format(version=version))
    (folder / "requirements.txt").write_text("flask==3.1.2\n")


def measure(bench: Bench, count: int, rounds: int) -> None:
    """Measure a first run for a number of apps, and what follows in the life of one of them."""
    bench.renew()
    inventory = bench.work / f"apps-{count}"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "groups.yml").write_text("web: {}\n")
    apps = [{"name": f"app-{n}", "source": {"path": str(inventory / f"app-{n}")}, "app": "wsgi:application", "workers": 1} for n in range(count)]
    for app in apps:
        write(inventory / app["name"], "first")
    variables = inventory / "group_vars/web.yml"
    variables.write_text(yaml.safe_dump({"gunicorn_apps": apps}))
    play = ["apps.yml", "--inventory", "inventory.yml", "--inventory", inventory.name]
    back = ["apps_rollback.yml", "--extra-vars", json.dumps({"app": "app-0"})]
    # Opens the connection for all that follow.
    bench.play("noop.yml")
    first = bench.play(*play)
    runs: dict[str, list[Run]] = {"no-op": [], "unchanged": [], "deploy": [], "rollback": []}
    for number in range(rounds):
        runs["no-op"].append(bench.play("noop.yml"))
        runs["unchanged"].append(bench.play(*play))
        write(inventory / "app-0", f"version-{number}")
        runs["deploy"].append(bench.play(*play))
        runs["rollback"].append(bench.play(*back))
        # Forward again, to what the list says: otherwise the next unchanged run would be a deploy.
        bench.play(*back)
    calls = {kind: bench.sessions(*arguments) for kind, arguments in (("no-op", ["noop.yml"]), ("unchanged", play))}
    print(f"{count:>5}  {'first run, python3-venv and uv are fetched':<46}{first.seconds:>8.2f} s{first.seconds / count:>8.2f} s each")
    tell(count, runs, calls)


def measure_installers(bench: Bench, rounds: int) -> None:
    """Measure the first deploy of one app, whose environment is made by pip and by uv in turn."""
    bench.renew()
    apps = {}
    for installer in ("pip", "uv"):
        folder = bench.work / f"by-{installer}"
        write(folder, "first")
        apps[installer] = {"name": f"by-{installer}", "source": {"path": str(folder)}, "app": "wsgi:application", "workers": 1, "installer": installer}

    def deploy(*wanted: dict[str, object]) -> Run:
        return bench.play("apps.yml", "--extra-vars", json.dumps({"gunicorn_apps": wanted}))

    def remove() -> Run:
        # With an app go its environment and uv's cache.
        return deploy(*({"name": app["name"], "state": "absent", "data": "removed"} for app in apps.values()))

    # What a host fetches once, python3-venv and uv, is no matter of an app.
    deploy(*apps.values())
    runs: dict[str, list[Run]] = {"no-op": [], "pip": [], "uv": []}
    for _ in range(rounds):
        remove()
        runs["no-op"].append(bench.play("noop.yml"))
        for installer, app in apps.items():
            runs[installer].append(deploy(app))
    tell(1, runs, {})


def tell(count: int, runs: dict[str, list[Run]], calls: dict[str, int]) -> None:
    """Print what runs took that have taken turns, beside the play with one task."""
    noop = [run.seconds for run in runs["no-op"]]
    for kind, measured in runs.items():
        seconds = statistics.median(run.seconds for run in measured)
        ratio = statistics.median(run.seconds / base for run, base in zip(measured, noop, strict=True))
        print(f"{count:>5}  {WORDS[kind]:<46}{seconds:>8.2f} s{ratio:>8.2f} x{calls.get(kind, ''):>7}", flush=True)


def main() -> None:
    options = asked(__doc__, "apps", "1,10,30")
    print(f"{'apps':>5}  {'run':<46}{'median':>10}{'ratio':>10}{'calls':>7}", flush=True)
    with server(options.name) as bench:
        for count in options.counts:
            measure(bench, count, options.rounds)
        measure_installers(bench, options.rounds)
    print("ratio: to the play with one task, in the same session. calls: SSH sessions.")


if __name__ == "__main__":
    main()
