#!/usr/bin/env python3
"""sites.py [--sites 1,100,1000] [--rounds 5] [--features]: what runs of the nginx role cost over SSH, beside a play with one task.

Run by `make bench`. Seconds say little about another machine; the ratios do. The plays that are compared take turns in
one session, so that whatever else the machine does slows all of them. Nothing passes or fails here.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

import yaml

from bench import Bench, Run, asked, server


Site = dict[str, object]

PROXY: Site = {"proxy": "http://127.0.0.1:9000"}
FEATURES: Sequence[Site] = [
    {**PROXY, "csp": "default-src 'self'", "headers": {"Permissions-Policy": "camera=()"}, "hsts": {"include_subdomains": True}},
    {**PROXY, "access": "office", "limits": ["everything"], "access_log": "json"},
    {**PROXY, "cache": "pages", "max_body_size": "50m", "timeout": 120},
    {"root": "/srv/www", "redirects": {"/old": "/new", "/older": "/new"}, "trailing_slash": "remove"},
    {"maintenance": {"allow": ["192.0.2.0/24"]}, "error_pages": {404: "/srv/www/404.html"}, "refuse_agents": ["scanners"], **PROXY},
    {
        "locations": [
            {"path": "/", "upstream": "pool"},
            {"path": "/login/", "upstream": "pool", "limits": ["login"]},
            {"path": "/media/", "alias": "/srv/media", "uploads": True},
            {"path": "/assets/", "alias": "/srv/assets", "immutable": True},
            {"path": "/staff/", "upstream": "pool", "access": "office"},
            {"path": "/wiki/", "proxy": "uwsgi://127.0.0.1:3031"},
        ]
    },
    {"answer": {"text": "here"}, "limits": ["api"]},
    {"redirect": "https://elsewhere.example.test"},
]
"""What sites say that say much, by turns."""
NAMED = {
    "nginx_upstreams": [{"name": "pool", "servers": [{"address": "127.0.0.1:9000"}, {"address": "127.0.0.1:9001", "backup": True}]}],
    "nginx_access": [{"name": "office", "allow": ["192.0.2.0/24", "2001:db8::/32"]}],
    "nginx_caches": [{"name": "pages", "fresh": 60}],
}


def sites(count: int, backend: int, features: bool = False) -> list[Site]:
    """Sites over HTTPS: half of them lead to a backend, the others elsewhere. The backend's port is that of the first."""

    def does(n: int) -> Site:
        if n and features:
            return FEATURES[n % len(FEATURES)]
        return {"redirect": f"https://elsewhere-{n}.example.test"} if n % 2 else {"proxy": f"http://127.0.0.1:{9000 if n else backend}"}

    return [{"name": f"site-{n}", "server_names": [f"site-{n}.example.test", f"www.site-{n}.example.test"], **does(n)} for n in range(count)]


def measure(bench: Bench, count: int, rounds: int, features: bool) -> tuple[Mapping[str, list[Run]], Mapping[str, int]]:
    """Measure all runs for one number of sites."""
    # In group_vars, where a thousand sites are kept: what vars_files names, Ansible reads again for each task.
    folders = [f"sites-{count}-{backend}" for backend in (9000, 9001)]
    for folder, backend in zip(folders, (9000, 9001), strict=True):
        (bench.work / folder / "group_vars").mkdir(parents=True)
        (bench.work / folder / "groups.yml").write_text("web: {}\n")
        (bench.work / folder / "group_vars/web.yml").write_text(yaml.safe_dump({"nginx_sites": sites(count, backend, features), **(NAMED if features else {})}))

    def having(folder: str) -> list[str]:
        return ["--inventory", "inventory.yml", "--inventory", folder]

    def publish(folder: str) -> list[str]:
        return ["nginx.yml", *having(folder)]

    bench.renew()
    # The first connection of a session is opened here, for all that follow.
    sessions = {"no-op": bench.sessions("noop.yml")}
    runs: dict[str, list[Run]] = {"no-op": [], "loaded": [], "first": [bench.play(*publish(folders[0]))], "unchanged": [], "check": [], "changed": []}
    for _round in range(rounds):
        runs["no-op"].append(bench.play("noop.yml"))
        runs["loaded"].append(bench.play("noop.yml", *having(folders[0])))
        runs["unchanged"].append(bench.play(*publish(folders[0])))
        runs["check"].append(bench.play(*publish(folders[1]), "--check", "--diff"))
        runs["changed"].append(bench.play(*publish(folders[1])))
        folders.reverse()
    sessions["unchanged"] = bench.sessions(*publish(folders[0]))
    sessions["check"] = bench.sessions(*publish(folders[1]), "--check", "--diff")
    sessions["changed"] = bench.sessions(*publish(folders[1]))
    return runs, sessions


WORDS = {
    "no-op": "one task that does nothing",
    "loaded": "the same, with the sites loaded",
    "first": "first run, nginx is installed",
    "unchanged": "unchanged",
    "check": "--check --diff, one site differs",
    "changed": "one site changed",
}


def rows(count: int, runs: Mapping[str, Sequence[Run]], sessions: Mapping[str, int]) -> Iterator[str]:
    """Medians over the rounds; the ratio is the median of each round's own."""
    noop = [run.seconds for run in runs["no-op"]]
    for kind, measured in runs.items():
        seconds = [run.seconds for run in measured]
        ratio = statistics.median(ours / base for ours, base in zip(seconds, noop))
        calls = sessions.get(kind, "")
        user, size = statistics.median(run.user for run in measured), max(run.megabytes for run in measured)
        yield (
            f"{count:>5}  {WORDS[kind]:<34}{statistics.median(seconds):>7.2f} s{ratio:>7.2f} x  {min(seconds):>6.2f} - {max(seconds):<6.2f}"
            f"{calls:>5}{user:>9.2f} s{size:>8.0f} MB"
        )


def main() -> None:
    options = asked(__doc__, "sites", "1,100,1000", features="let the sites say much, each something else")
    unchanged = {}
    print(f"{'sites':>5}  {'run':<34}{'median':>9}{'ratio':>9}  {'min - max':^15}{'calls':>5}{'CPU':>11}{'memory':>11}", flush=True)
    with server(options.name) as bench:
        for count in options.counts:
            runs, sessions = measure(bench, count, options.rounds, options.features)
            print("\n".join(rows(count, runs, sessions)), flush=True)
            unchanged[count] = statistics.median(run.seconds for run in runs["unchanged"])
    fewest, most = min(unchanged), max(unchanged)
    if most > fewest:
        print(f"One more site costs an unchanged run {1000 * (unchanged[most] - unchanged[fewest]) / (most - fewest):.1f} ms.")
    print("ratio: to the play with one task, in the same session. calls: SSH sessions. CPU and memory: the controller's.")


if __name__ == "__main__":
    main()
