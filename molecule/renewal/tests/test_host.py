"""A renewal that meets a host on a bad day. Visitors go on being served, and the next run without the fault heals."""

from __future__ import annotations

import pytest
from faults import BASE, DUE
from servers import AS_A_MACHINE

LETSENCRYPT = "/etc/letsencrypt"
HOOK = f"{LETSENCRYPT}/renewal-hooks/deploy/portico"


@pytest.fixture
def renew(base):
    """Renew on all servers while visitors come: what each unit said, and what each served before."""

    def renew(days=DUE):
        before = base.at_once(lambda server: server.served("base"))
        with base.later(days), base.load("base"):
            done = base.at_once(lambda server: server.renew())
        return done, before

    return renew


@pytest.fixture
def heals(base, each, renews):
    """Have a run of the play put everything right, and the next renewal work."""

    def heals():
        with base.load("base"):
            run = base.deploy(nginx_sites=[BASE])
        assert run.ok, run.output
        healed = base.at_once(lambda server: server.reconcile())

        def judge(server):
            assert healed[server].ok, healed[server].text
            (row,) = server.status()
            assert row["state"] == "ok" and set(row["served"].values()) == {row["serial"]}
            assert server.lineages() == ["base.conf"]

        each(judge)
        again = base.deploy(nginx_sites=[BASE])
        assert again.ok and set(again.changed.values()) == {0}, again.output
        renews()

    return heals


def test_a_renewal_under_load_loses_nothing(renews):
    renews()


def test_nginx_is_down(base, each, renews):
    before = base.at_once(lambda server: server.run(f"systemctl stop nginx; cat {LETSENCRYPT}/live/base/cert.pem"))
    with base.later(DUE):
        done = base.at_once(lambda server: server.renew())
    after = base.at_once(lambda server: server.run(f"systemctl start nginx; cat {LETSENCRYPT}/live/base/cert.pem"))

    def judge(server):
        assert not done[server].ok
        assert "nginx does not run" in done[server].text and "connection refused" in done[server].text.lower(), done[server].text
        assert after[server] == before[server]

    each(judge)
    renews()


def test_the_deploy_hook_fails(renew, heals, base, each):
    """certbot never runs it again: what has come is served all the same."""
    base.at_once(lambda server: server.run(f"printf '#!/bin/sh\\nexit 1\\n' >{HOOK}"))
    _done, before = renew()

    def judge(server):
        assert server.serial("base") != before[server].serial

    each(judge)
    heals()


def test_nginx_refuses_to_reload(renew, base, each):
    base.at_once(lambda server: server.run("echo 'no_such_directive on;' >/etc/nginx/conf.d/broken.conf"))
    done, before = renew()
    base.at_once(lambda server: server.run("rm /etc/nginx/conf.d/broken.conf"))

    def judge(server):
        assert not done[server].ok
        assert "no_such_directive" in done[server].text and "broken.conf" in done[server].text, done[server].text
        assert server.served("base") == before[server]
        # The quarter of an hour's look is what heals it, and nobody has to come.
        healed = server.reconcile()
        assert healed.ok, healed.text
        assert server.serial("base") != before[server].serial

    each(judge)


def test_the_disk_is_full(renew, renews, base, each):
    """All of certbot's folder is on a disk of its own meanwhile."""
    base.at_once(
        lambda server: server.run(
            f"{AS_A_MACHINE}; mkdir -p /mnt/small; mount -t tmpfs -o size=2m,mode=0755 small /mnt/small; cp -a {LETSENCRYPT}/. /mnt/small;"
            f"mount --bind /mnt/small {LETSENCRYPT}; dd if=/dev/zero of={LETSENCRYPT}/filler bs=4k 2>/dev/null || true"
        )
    )
    try:
        done, before = renew()

        def judge(server):
            assert not done[server].ok
            assert "No space left on device" in done[server].text, done[server].text
            assert server.served("base") == before[server]

        each(judge)
        base.at_once(lambda server: server.run(f"rm {LETSENCRYPT}/filler"))
        renews()
    finally:
        base.at_once(
            lambda server: server.run(
                f"umount {LETSENCRYPT}; rm -f /mnt/small/filler; cp -a /mnt/small/. {LETSENCRYPT}; umount /mnt/small; rmdir /mnt/small"
            )
        )


def test_two_certbots_at_once(base, acme, each):
    """Somebody renews by hand, and the timer's turn comes: it waits, and then does its work."""
    before = base.at_once(lambda server: server.serial("base"))
    by_hand = "systemd-run --quiet --collect --unit by-hand --setenv REQUESTS_CA_BUNDLE=/etc/portico/acme-ca.pem"
    with acme.watch() as seen, base.load("base"), base.later(DUE):
        with acme.fault("newOrder", "hang", seconds=10, first=1):
            base.at_once(lambda server: server.run(f"{by_hand} {server.certbot()} renew --force-renewal --cert-name base --no-random-sleep-on-renew"))
            seen.wait_for("newOrder", [server.address for server in base])
            done = base.at_once(lambda server: server.renew())

    def judge(server):
        assert done[server].ok, done[server].text
        assert server.serial("base") != before[server]
        assert base.orders(seen)[server] == 2
        (row,) = server.status()
        assert row["state"] == "ok", row

    each(judge)


def test_a_renewal_is_killed_in_the_middle_of_an_order(base, acme, each, renews):
    before = base.at_once(lambda server: server.served("base"))
    with acme.watch() as seen, base.load("base"), base.later(DUE):
        with acme.fault("finalize", "hang", seconds=60):
            base.at_once(lambda server: server.run("systemctl start --no-block certificates-renew.service"))
            seen.wait_for("finalize", [server.address for server in base])
            base.at_once(lambda server: server.run("systemctl kill --signal KILL certificates-renew.service"))
        base.at_once(lambda server: server.wait_until("systemctl is-failed --quiet certificates-renew.service"))
    each(lambda server: _same(server, before[server]))
    renews()


def _same(server, before):
    assert server.served("base") == before


def test_the_accounts_folder_is_lost(renew, heals, base, each):
    base.at_once(lambda server: server.run(f"rm -r {LETSENCRYPT}/accounts"))
    done, before = renew()

    def judge(server):
        # It either registers anew or says so: what it must not do is to be silent about a certificate that is due.
        assert not done[server].ok or server.served("base") != before[server], done[server].text

    each(judge)
    heals()


@pytest.mark.parametrize(
    "harm",
    [
        f"rm {LETSENCRYPT}/live/base/privkey.pem",
        f"rm -r {LETSENCRYPT}/live/base",
        f"rm {LETSENCRYPT}/renewal/base.conf",
        f"echo '[renewalparams' >{LETSENCRYPT}/renewal/base.conf",
        f": >{LETSENCRYPT}/renewal/base.conf",
    ],
    ids=["a link", "all links", "the configuration", "garbage for the configuration", "an empty configuration"],
)
def test_what_certbot_keeps_is_damaged_by_hand(renews, heals, base, harm):
    """certbot would not renew it, and most of it would not even see it. The renewal makes it whole, and goes on."""
    base.at_once(lambda server: server.run(harm))
    renews()
    heals()


def test_all_of_a_lineage_is_deleted_by_hand(renew, heals, base, each):
    """Only the play obtains it again. Visitors are served what nginx has in memory meanwhile."""
    base.at_once(lambda server: server.run(f"rm -r {LETSENCRYPT}/live/base {LETSENCRYPT}/archive/base"))
    done, before = renew()

    def judge(server):
        assert not done[server].ok and "base: " in done[server].text, done[server].text
        assert server.served("base") == before[server]

    each(judge)
    heals()
