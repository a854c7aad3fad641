"""The sandbox of nginx's unit, in the scenario where nearly everything is used."""

from __future__ import annotations

import json

import pytest

ALLOWED = {"CHOWN": 0, "DAC_OVERRIDE": 1, "SETGID": 6, "SETUID": 7, "NET_BIND_SERVICE": 10}
"""Capabilities by the numbers of their bits (linux/capability.h)."""


@pytest.fixture(scope="module")
def master(host):
    return host.check_output("cat /run/nginx.pid")


def test_the_unit_is_rated_2_5_or_better(host):
    told = json.loads(host.check_output("systemd-analyze security --no-pager --json=short nginx.service"))
    assert len(told) > 50
    rated = host.check_output("systemd-analyze security --no-pager nginx.service").splitlines()[-1]
    assert float(rated.split(": ")[1].split()[0]) <= 2.5, rated


def test_nginx_runs_in_it(host, master):
    """The master has five capabilities, the workers none; neither can get more, and the host is read-only but for a few folders."""
    status = host.check_output("cat /proc/%s/status", master)
    assert int(status.split("CapBnd:")[1].split()[0], 16) == sum(1 << bit for bit in ALLOWED.values())
    workers = host.check_output("pgrep --parent %s --full '^nginx: worker process$'", master).split()
    for pid in workers:
        status = host.check_output("cat /proc/%s/status", pid)
        assert status.split("NoNewPrivs:")[1].split()[0] == "1" and int(status.split("CapEff:")[1].split()[0], 16) == 0
        assert status.split("Seccomp:")[1].split()[0] == "2"
    inside = f"nsenter --mount=/proc/{master}/ns/mnt test -w"
    assert {folder: host.run(f"{inside} {folder}").rc for folder in ("/run", "/var/log/nginx", "/var/cache", "/etc", "/usr", "/srv", "/home", "/var/lib/portico")} == {
        "/run": 0, "/var/log/nginx": 0, "/var/cache": 0, "/etc": 1, "/usr": 1, "/srv": 1, "/home": 1, "/var/lib/portico": 1,
    }


def test_nginx_says_of_nothing_that_it_was_not_let(host):
    """What a sandbox refuses nginx at work is in its log, and nowhere else."""
    # What visitors have sent stands there too, in whatever bytes.
    host.check_output("test -s /var/log/nginx/error.log")
    told = host.run("grep --text --no-filename -E 'Operation not permitted|Read-only file system' /var/log/nginx/error.log*")
    assert (told.rc, told.stdout_bytes) == (1, b"")
