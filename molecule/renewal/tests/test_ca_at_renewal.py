"""A renewal that meets a CA on a bad day. Visitors go on being served the certificate that there is."""

from __future__ import annotations

import re

import pytest
from faults import DUE, FAULTS, NOT_YET_DUE


@pytest.mark.parametrize("name", FAULTS)
def test_the_old_certificate_serves_and_the_next_renewal_heals(base, acme, each, renews, name):
    fault = FAULTS[name]
    before = base.at_once(lambda server: (server.serial("base"), server.nginx()))
    with fault.at(acme), acme.watch() as seen, base.later(DUE), base.load("base"):
        done = base.at_once(lambda server: server.renew())
    orders = base.orders(seen)

    def judge(server):
        serial, master = before[server]
        assert server.nginx() == master
        assert done[server].ok != bool(fault.says), done[server].text
        if fault.says:
            assert re.search(fault.says, done[server].text), done[server].text
            assert server.serial("base") == serial
            assert orders[server] <= fault.orders
        else:
            assert server.serial("base") != serial

    each(judge)
    if fault.says:
        renews()


def test_a_renewal_costs_one_order_and_comes_in_time(base, acme, each):
    before = base.at_once(lambda server: server.serial("base"))
    with acme.watch() as early, base.later(NOT_YET_DUE):
        too_early = base.at_once(lambda server: server.renew())
    with acme.watch() as due, base.later(DUE), base.load("base"):
        in_time = base.at_once(lambda server: server.renew())

    def judge(server):
        assert too_early[server].ok and in_time[server].ok, too_early[server].text + in_time[server].text
        assert (base.orders(early)[server], base.orders(due)[server]) == (0, 1)
        assert server.serial("base") != before[server]
        (row,) = server.status()
        assert row["state"] == "ok" and set(row["served"].values()) == {row["serial"]}

    each(judge)


@pytest.mark.parametrize("label", ["base", "www.base"])
def test_a_name_that_leads_elsewhere_costs_no_certificate(base, acme, each, renews, label):
    before = base.at_once(lambda server: server.served("base"))
    for server in base:
        acme.lead(server.site(label), acme.address)
    try:
        with base.later(DUE), base.load("base"):
            done = base.at_once(lambda server: server.renew())
    finally:
        base.name_sites(label)

    def judge(server):
        assert not done[server].ok
        assert server.site(label) in done[server].text and "connection refused" in done[server].text.lower(), done[server].text
        assert server.served("base") == before[server]

    each(judge)
    renews()
