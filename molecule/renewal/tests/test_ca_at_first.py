"""A new site's first certificate, from a CA on a bad day. Another site's visitors notice nothing."""

from __future__ import annotations

import re

import pytest
from faults import BASE, FAULTS
from servers import named, site


@pytest.mark.parametrize("name", FAULTS)
def test_the_site_is_used_without_and_the_next_run_brings_it(base, acme, each, name):
    fault, label = FAULTS[name], "new-" + re.sub(r"\W", "-", name.lower())
    base.name_sites(label)
    sites = [BASE, site(label)]
    before = base.at_once(lambda server: (server.serial("base"), server.nginx()))
    with fault.at(acme), acme.watch() as seen, base.load("base"):
        run = base.deploy(nginx_sites=sites)
        again = base.deploy(nginx_sites=sites) if fault.over else None
    orders = base.orders(seen)
    if fault.says:
        with base.load(label, scheme="http") as loads:
            pass

        def judge(server):
            assert server.name in run.failed, run.output
            assert re.search(fault.says, run.lines_of(server.name)), run.output
            assert again or orders[server] <= fault.orders
            assert (server.serial("base"), server.nginx()) == before[server]
            if not again:
                # Nothing permanent is sent to who comes meanwhile.
                assert set(loads[server].report.statuses) == {200}
                assert not server.served(label).from_pebble

        each(judge)
    healed = again or (base.deploy(nginx_sites=sites) if fault.says else run)
    assert healed.ok, healed.output
    with base.load(label):
        pass


def test_a_ca_that_is_not_there(base, each):
    base.name_sites("new-nobody")
    sites = [BASE, site("new-nobody")]
    run = base.deploy(nginx_sites=sites, certbot_overrides=[{"name": "new-nobody", "server": "https://acme:1/dir"}])

    def judge(server):
        assert server.name in run.failed
        assert "https://acme:1/dir does not answer: Connection refused" in run.lines_of(server.name), run.output

    each(judge)
    healed = base.deploy(nginx_sites=sites)
    assert healed.ok, healed.output


@pytest.mark.parametrize(("label", "wrong"), [("elsewhere", "elsewhere"), ("one-of-two", "www.one-of-two")])
def test_a_name_that_leads_elsewhere(base, acme, each, label, wrong):
    """Seen by the CA alone: the host knows its own name. The other site's visitors notice nothing."""
    labels = [label, wrong] if wrong != label else [label]
    base.name_sites(*labels)
    for server in base:
        acme.lead(server.site(wrong), acme.address)
    wanted = [BASE, site(label, server_names=[named(one) for one in labels])]
    with base.load("base"):
        run = base.deploy(nginx_sites=wanted)

    def judge(server):
        assert server.name in run.failed
        told = run.lines_of(server.name)
        assert server.site(wrong) in told and "connection refused" in told.lower(), run.output
        assert not server.served(label).from_pebble

    each(judge)
    base.name_sites(*labels)
    healed = base.deploy(nginx_sites=wanted)
    assert healed.ok, healed.output
    with base.load(*labels):
        pass
