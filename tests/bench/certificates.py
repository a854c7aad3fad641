#!/usr/bin/env python3
"""certificates.py [--certificates 1,10,50] [--rounds 5]: what certificates cost over SSH, in time and in the CA's patience.

Run by `make bench`. The CA is Pebble, which has none of an internet's distance. Nothing passes or fails here.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import yaml

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tools")]

from acme import AcmeServer
from bench import Bench, asked, docker, server


def certificates(count: int) -> list[dict[str, object]]:
    return [{"name": f"site-{n}", "server_names": [f"site-{n}.example.test"], "redirect": "https://elsewhere.example.test"} for n in range(count)]


def start_acme(bench: Bench) -> AcmeServer:
    """Start a CA beside the server, whose healthcheck says when it is there."""
    name = f"{bench.name}-acme"
    docker("run", "--detach", "--name", name, "--network", bench.name, "--network-alias", "acme", "portico-acme")
    docker("exec", name, "timeout", "60", "sh", "-c", "until curl --silent --fail --output /dev/null --cacert /var/lib/acme/ca.pem https://localhost:14443/dir; do sleep 0.2; done")
    return AcmeServer(name)


def measure(bench: Bench, acme: AcmeServer, count: int, rounds: int) -> None:
    """Measure a first run for a number of certificates, and those that follow it."""
    bench.renew()
    sites = certificates(count)
    names = [name for site in sites for name in site["server_names"]]
    address = docker("exec", bench.name, "hostname", "--ip-address").split()[0]
    for name in names:
        acme.lead(name, address)
    docker("exec", bench.name, "sh", "-c", f"echo '127.0.0.1 {' '.join(names)}' >>/etc/hosts")
    folder = bench.work / f"certificates-{count}"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "groups.yml").write_text("web: {}\n")
    ca = folder / "ca.pem"
    ca.write_text(acme.run("cat", "/var/lib/acme/ca.pem"))
    variables = {"nginx_sites": sites, "certbot_server": "https://acme:14443/dir", "certbot_ca_bundle": str(ca), "certbot_email": "ops@example.test"}
    (folder / "group_vars/web.yml").write_text(yaml.safe_dump(variables))
    play = ["certificates.yml", "--inventory", "inventory.yml", "--inventory", folder.name]
    # Opens the connection for all that follow.
    bench.play("noop.yml")
    with acme.watch() as seen:
        first = bench.play(*play)
    noops, seconds = [], []
    with acme.watch() as again:
        for _round in range(rounds):
            noops.append(bench.play("noop.yml").seconds)
            seconds.append(bench.play(*play).seconds)
    ratio = statistics.median(ours / base for ours, base in zip(seconds, noops, strict=True))
    calls = bench.sessions(*play)
    orders = len(seen.of("newOrder"))
    print(
        f"{count:>12}{first.seconds:>10.1f} s{len(seen.requests()):>10}{orders:>8}{first.seconds / count:>10.1f} s"
        f"{statistics.median(seconds):>10.2f} s{ratio:>7.2f} x{len(again.requests()) / rounds:>10.0f}{calls:>7}",
        flush=True,
    )


def main() -> None:
    options = asked(__doc__, "certificates", "1,10,50")
    print(f"{'':>12}{'first run':>40}{'second run':>38}")
    print(f"{'certificates':>12}{'time':>12}{'requests':>10}{'orders':>8}{'each':>12}{'median':>12}{'ratio':>9}{'requests':>10}{'calls':>7}", flush=True)
    with server(options.name) as bench:
        try:
            acme = start_acme(bench)
            for count in options.counts:
                measure(bench, acme, count, options.rounds)
        finally:
            subprocess.run(["docker", "rm", "--force", "--volumes", f"{options.name}-acme"], capture_output=True, check=False)
    print("first run: of nginx and certbot, which are installed by it. requests: to the CA, orders among them. ratio: to a play with one task")
    print("that does nothing, in the same session. calls: SSH sessions of the whole play, for nginx and the certificates.")


if __name__ == "__main__":
    main()
