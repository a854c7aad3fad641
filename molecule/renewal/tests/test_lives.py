"""Certificates that live for six and for 45 days, and a CA that wants one back: renewed in time, and not at every run."""

from __future__ import annotations

import pytest
from faults import BASE
from servers import site

LABELS = ("base", "ari", "six", "fortyfive")
PORTS = {"six": 14444, "fortyfive": 14445}
PAST = {"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}}


@pytest.fixture(scope="module")
def deployed(base):
    base.name_sites("ari", "six", "fortyfive")
    overrides = [{"name": label, "server": f"https://acme:{port}/dir"} for label, port in PORTS.items()]
    run = base.deploy(nginx_sites=[BASE, site("ari"), site("six"), site("fortyfive")], certbot_overrides=overrides)
    assert run.ok, run.output
    return base


@pytest.fixture
def renew(deployed, acme):
    """Renew after some days: what each unit said, and the names that each server has ordered."""

    def renew(days):
        with acme.watch() as seen, deployed.later(days), deployed.load(*LABELS):
            done = deployed.at_once(lambda server: server.renew())
        ordered = {
            server: {name["value"].removesuffix(f".{server.name}.example.test") for order in seen.of("newOrder", client=server.address) for name in order["payload"]["identifiers"]}
            for server in deployed
        }
        return done, ordered

    return renew


def test_a_ca_that_wants_one_back_has_it_renewed_at_once(renew, deployed, acme, each):
    """RFC 9773, where certbot knows it. The six days are a day old."""
    before = deployed.at_once(lambda server: server.serial("ari"))
    with acme.fault("renewalInfo", "merge", json=PAST):
        done, ordered = renew(0.5)

    def judge(server):
        knows = server.age_of_certbot() >= (4, 1)
        assert done[server].ok, done[server].text
        assert ("ari" in ordered[server]) == knows
        assert (server.serial("ari") != before[server]) == knows

    each(judge)


@pytest.mark.parametrize(("days", "due"), [(0, set()), (2, set()), (3.5, {"six"}), (29, {"six"}), (31, {"six", "fortyfive"})])
def test_each_is_renewed_in_its_time(renew, deployed, each, days, due):
    before = deployed.at_once(lambda server: {label: server.serial(label) for label in LABELS})
    done, ordered = renew(days)

    def judge(server):
        # Whoever sets the clock on by a month has certificates of six days that end in the past.
        if days < 6:
            assert done[server].ok, done[server].text
        # A certbot that asks the CA for the time takes the CA's: for Pebble, a moment of the fourth or the fifth day.
        expected = ordered[server] & {"six"} if days == 3.5 and server.age_of_certbot() >= (4, 1) else due
        assert ordered[server] == expected
        assert {label for label in LABELS if server.serial(label) != before[server][label]} == expected

    each(judge)
