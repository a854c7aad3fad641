"""certbot of the distribution and certbot from PyPI take turns, with the same accounts and the same lineages."""

from __future__ import annotations

from faults import BASE

OTHER = {
    "certbot_install": "{{ 'distribution' if 'pypi' in group_names else 'pypi' }}",
    # The distribution has one version, and to ask it for another is refused.
    "certbot_version": "{{ '' if 'pypi' in group_names else '5.8.0' }}",
}
ACCOUNTS = "find /etc/letsencrypt/accounts -name private_key.json | sort | xargs sha256sum"


def test_neither_loses_an_account_or_a_lineage(base, acme, each, renews):
    before = base.at_once(lambda server: (server.run(ACCOUNTS), server.served("base"), server.certbot()))
    for variables in OTHER, {}:
        with acme.watch() as seen, base.load("base"):
            run = base.deploy(nginx_sites=[BASE], **variables)
        assert run.ok, run.output
        again = base.deploy(nginx_sites=[BASE], **variables)
        assert again.ok and set(again.changed.values()) == {0}, again.output

        def judge(server, seen=seen, variables=variables):
            accounts, served, certbot = before[server]
            assert (server.certbot() == certbot) == (not variables)
            assert server.run(ACCOUNTS) == accounts and server.served("base").names == served.names
            assert seen.of("newOrder", "newAccount", client=server.address) == []
            timers = server.run("systemctl list-timers --all --no-legend --plain | grep -v '^-'")
            assert [word for word in timers.split() if word.endswith(".timer") and ("renew" in word or "certbot" in word)] == ["certificates-renew.timer"]

        each(judge)
        renews()
        each(lambda server: _same_accounts(server, before[server][0]))


def _same_accounts(server, accounts):
    assert server.run(ACCOUNTS) == accounts
