"""Every kind of certificate, on three ages of certbot at once. The tests are one story, told in this order."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import named, site
from wire import ONLY_ECDSA, ONLY_RSA

PROFILES = {"resource": "directory", "do": "merge", "json": {"meta": {"profiles": {"shortlived": "six days", "classic": "ninety"}}}}
EAB_KEY = "Mz6dOkBYsgZctVd1Sxb6JSlldSznpCB1weFqedAz6yE9fqFcu-fo6jUvIH11V19A"
BOUND = "https://acme:14446/dir"
ALARM = "/usr/local/sbin/tell-somebody"
METRICS = "/var/lib/metrics/portico-certificates.prom"
SITES = ("shop", "www.shop", "new.shop", "pair", "bound", "hand", "self", "mine", "short")

# Somebody's CA, on the ACME server, with what it has signed.
ISSUER = "/run/issuer"
RESPONDER = "http://acme:8888"
ISSUE = f"""
mkdir {ISSUER}; cd {ISSUER}
openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 60 -subj '/CN=Portico test root' 2>/dev/null
sign() {{
  name=$1 signer=$2; shift 2
  openssl req -new -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj "/CN=Portico test $name" 2>/dev/null
  printf '%s\\n' "$@" >$name.extensions
  openssl x509 -req -in $name.csr -CA $signer.pem -CAkey $signer.key -CAcreateserial -days 60 -extfile $name.extensions -out $name.pem 2>/dev/null
}}
sign issuer root basicConstraints=critical,CA:TRUE
sign responder issuer extendedKeyUsage=OCSPSigning
sign visitor issuer extendedKeyUsage=clientAuth
sign mine issuer subjectAltName=NAMES extendedKeyUsage=serverAuth basicConstraints=CA:FALSE 'authorityInfoAccess=OCSP;URI:{RESPONDER}'
printf 'V\\t%s\\t\\t%s\\tunknown\\t/CN=mine\\n' $(date -u -d '+60 days' +%y%m%d%H%M%SZ) $(openssl x509 -in mine.pem -noout -serial | cut -d= -f2) >index
cat visitor.pem issuer.pem >visitor.fullchain.pem
cat mine.pem issuer.pem mine.key
"""
RESPOND = f"cd {ISSUER}; echo $$ >pid; exec openssl ocsp -port 8888 -index index -CA issuer.pem -rsigner responder.pem -rkey responder.key -nmin 60 >log 2>&1"

# What of the first deployment stays the same in all of the story.
COMMON = {
    "certbot_eab": {"kid": "kid-1", "hmac_key": EAB_KEY},
    "certbot_metrics": METRICS,
    "certbot_alarm_command": [ALARM],
    "nginx_access": [{"name": "partners", "clients": {"ca": "/root/ca.pem"}}],
}


@pytest.fixture(scope="module")
def common(acme):
    """The variables of every run. The DNS is written to by its address, as certbot's plugin wants it."""
    secret = re.search(r'secret "([^"]+)"', acme.run("cat", "/var/lib/acme/tsig.conf")).group(1)
    credentials = {"server": acme.address, "name": "certbot.", "secret": secret, "algorithm": "HMAC-SHA512"}
    return {**COMMON, "certbot_dns": {"plugin": "rfc2136", "credentials": credentials, "propagation": 1}}


@pytest.fixture(scope="module")
def first(common, own_certificate):
    """The sites and what differs for single certificates, as they are in the beginning."""
    return {
        **common,
        "nginx_sites": [
            site("shop", server_names=[named("shop"), named("www.shop")]),
            site("pair"),
            site("bound"),
            site("hand"),
            site("wild", server_names=["{{ inventory_hostname }}.dns.example.test", "*.{{ inventory_hostname }}.dns.example.test"]),
            site("self", issuer="self_signed"),
            site("mine", issuer="own", access="partners"),
        ],
        "certbot_overrides": [
            {"name": "pair", "key_types": ["ecdsa", "rsa"]},
            {"name": "bound", "server": BOUND},
            {"name": "mine", **own_certificate},
        ],
    }


@pytest.fixture(scope="module")
def own_certificate(acme, servers):
    """A certificate that somebody else has issued, for the names of all servers. Its responder answers with a certificate of its own."""
    names = ",".join(f"DNS:{server.site('mine')}" for server in servers)
    made = acme.run("sh", "-ec", ISSUE.replace("NAMES", names))
    subprocess.run(["docker", "exec", "--detach", acme.container, "sh", "-ec", RESPOND], check=True)
    acme.run("timeout", "10", "sh", "-c", f"cd {ISSUER}; until openssl ocsp -issuer issuer.pem -cert mine.pem -url {RESPONDER} -CAfile root.pem; do sleep 0.1; done")
    # The root they know, as that of a public CA.
    root = acme.run("cat", f"{ISSUER}/root.pem")
    servers.at_once(lambda server: server.run(f"cat >/usr/local/share/ca-certificates/issuer.crt <<'END'\n{root}END\nupdate-ca-certificates"))
    certificates, begin, key = made.partition("-----BEGIN PRIVATE KEY-----\n")
    return {"certificate": certificates, "key": begin + key}


@pytest.fixture(scope="module")
def made_by_hand(servers, acme):
    """A certificate that each server had before anybody thought of Portico, by the distribution's certbot: serial numbers."""
    servers.name_sites(*SITES)
    ca = acme.run("cat", "/var/lib/acme/ca.pem")

    def make(server):
        server.run(
            f"cat >/root/ca.pem <<'END'\n{ca}END\n"
            "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install --no-install-recommends certbot >/dev/null 2>&1;"
            "REQUESTS_CA_BUNDLE=/root/ca.pem certbot certonly --standalone --non-interactive --agree-tos --email hand@example.test"
            f" --server https://acme:14443/dir --cert-name hand --domain {server.site('hand')}"
        )
        return serial_of(server, "hand")

    return servers.at_once(make)


def serial_of(server, lineage):
    return server.run(f"openssl x509 -noout -serial -in /etc/letsencrypt/live/{lineage}/cert.pem").strip().removeprefix("serial=")


@pytest.fixture(scope="module")
def deployed(servers, acme, first, made_by_hand):
    """The first run, and what the CA saw of it."""
    servers.at_once(lambda server: server.run(f"mkdir -p $(dirname {METRICS})"))
    # It keeps what it reads and its part of the environment, a line each.
    script = '#!/bin/sh\n{ env | grep ^PORTICO_; cat; } >>/run/alarm\n'
    servers.at_once(lambda server: server.run(f"cat >{ALARM} <<'END'\n{script}END\nchmod 0755 {ALARM}"))
    with acme.watch() as seen:
        run = servers.deploy(**first)
    return run, seen


def test_one_run_brings_every_kind_of_certificate(deployed, each):
    run, _seen = deployed
    assert run.ok, run.output

    def judge(server):
        assert server.served("shop").from_pebble
        assert server.served("shop").names == {server.site("shop"), server.site("www.shop")}
        assert server.served("shop").key == "ecdsa"

    each(judge)


def test_a_visitor_verifies_what_the_ca_has_issued(deployed, servers):
    with servers.load("shop", "pair", "bound", "hand"):
        pass


def test_a_wildcard_is_proved_through_dns(deployed, each, acme):
    def judge(server):
        zone = f"{server.name}.dns.example.test"
        found = server.served_name(f"anything.{zone}")
        assert found.from_pebble and found.names == {zone, f"*.{zone}"}

    each(judge)


def test_an_account_is_bound_to_the_key_that_the_ca_has_given(deployed, each):
    _run, seen = deployed

    def judge(server):
        assert server.served("bound").from_pebble
        registered = [each for each in seen.of("newAccount", client=server.address) if each["port"] == 14446]
        assert ["externalAccountBinding" in each["payload"] for each in registered] == [True]

    each(judge)


def test_a_pair_serves_to_each_client_what_it_can_verify(deployed, each):
    def judge(server):
        assert (server.served("pair", *ONLY_ECDSA).key, server.served("pair", *ONLY_RSA).key) == ("ecdsa", "rsa")
        assert server.served("shop", *ONLY_RSA) is None

    each(judge)


def test_a_lineage_made_by_hand_is_adopted_and_not_issued_again(deployed, each, made_by_hand):
    _run, seen = deployed

    def judge(server):
        assert server.serial("hand") == made_by_hand[server]
        ordered = [name["value"] for order in seen.of("newOrder", client=server.address) for name in order["payload"]["identifiers"]]
        assert server.site("hand") not in ordered and server.site("shop") in ordered

    each(judge)


def test_a_certificate_of_ones_own_and_a_self_signed_one_are_served(deployed, each, own_certificate):
    def judge(server):
        mine, made = server.served("mine"), server.served("self")
        assert "Portico test issuer" in mine.issuer
        assert made.issuer == made.subject and made.names == {server.site("self")}
        key = "/var/lib/portico/own/mine/privkey.pem"
        assert server.run(f"stat --format '%a %U' {key}").split() == ["600", "root"]

    each(judge)


def stapled(server, label):
    """Return the command that asks for the OCSP response that a visitor is handed with a certificate."""
    return f"openssl s_client -connect 127.0.0.1:443 -servername {server.site(label)} -status </dev/null 2>/dev/null"


NOT_STAPLED = "OCSP response: no response sent"


def test_a_certificate_that_names_a_responder_is_stapled_to_and_no_other(deployed, each):
    def judge(server):
        # nginx asks the responder when somebody has asked nginx.
        server.wait_until(f"{stapled(server, 'mine')} | grep 'Cert Status: good' >/dev/null")
        for label in ("self", "shop", "pair"):
            assert NOT_STAPLED in server.run(f"{stapled(server, label)} >/dev/null; {stapled(server, label)}")
        # It would warn of a certificate without one at each start.
        assert "stapl" not in server.run("nginx -t 2>&1")
        assert server.run("grep -i ocsp /var/log/nginx/error.log || true") == ""

    each(judge)


def test_whom_nginx_believes_about_certificates_lets_nobody_in(deployed, each, acme):
    """The site asks visitors for certificates of another CA."""

    def ask(server, *flags):
        name = server.site("mine")
        return acme.run("curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", "--resolve", f"{name}:443:{server.address}", f"https://{name}/", *flags)

    def judge(server):
        assert ask(server) == "403"
        assert ask(server, "--cert", f"{ISSUER}/visitor.fullchain.pem", "--key", f"{ISSUER}/visitor.key") == "400"

    each(judge)


def test_a_responder_that_is_gone_keeps_nobody_out(deployed, each, acme):
    acme.run("sh", "-c", f"kill $(cat {ISSUER}/pid)")

    def judge(server):
        server.run("systemctl reload nginx")
        # Workers of before the reload have kept its answer.
        server.wait_until(f"{stapled(server, 'mine')} | grep '{NOT_STAPLED}' >/dev/null")
        assert "Portico test issuer" in server.served("mine").issuer
        assert "stapl" not in server.run("nginx -t 2>&1")
        # It looks the responder up when it starts. While the DNS is silent that takes ten seconds for each server block.
        assert "TimeoutStartUSec=15min" in server.run("systemctl show nginx")

    each(judge)


def test_there_is_one_timer_that_renews(deployed, each):
    def judge(server):
        # One that is masked has no next time, but may still be known.
        timers = server.run("systemctl list-timers --all --no-legend --plain | grep -v '^-'")
        assert sorted(re.findall(r"\S*cert\S*\.timer", timers)) == ["certificates-reconcile.timer", "certificates-renew.timer"]
        assert "RandomizedDelayUSec=12h" in server.run("systemctl show certificates-renew.timer")
        assert all(row["state"] == "ok" for row in server.status()), server.status()

    each(judge)


def test_no_unit_has_failed(deployed, each):
    """The timer that came with certbot is switched off, and not broken."""

    def judge(server):
        assert server.run("systemctl --failed --no-legend --plain") == ""

    each(judge)


def test_a_second_run_changes_nothing_and_asks_the_ca_nothing(deployed, servers, acme, first):
    workers = servers.at_once(lambda server: server.workers())
    with acme.watch() as seen:
        run = servers.deploy(**first)
    assert run.ok and set(run.changed.values()) == {0}, run.output
    assert seen.requests() == []
    # A reload would have replaced them.
    assert servers.at_once(lambda server: server.workers()) == workers
    with acme.watch() as seen:
        run = servers.deploy("--check", "--diff", **first)
    assert run.ok and set(run.changed.values()) == {0}, run.output
    assert seen.requests() == []


def test_a_profile_is_asked_for_where_certbot_can_and_refused_where_not(deployed, servers, acme, first, each):
    wanted = {
        **first,
        "nginx_sites": [*first["nginx_sites"], site("short")],
        "certbot_overrides": [*first["certbot_overrides"], {"name": "short", "profile": "shortlived"}],
    }
    with acme.fault(**PROFILES), acme.watch() as seen:
        run = servers.deploy(**wanted)

    def judge(server):
        orders = [order["payload"].get("profile") for order in seen.of("newOrder", client=server.address)]
        if server.age_of_certbot() >= (4, 0):
            assert orders == ["shortlived"] and server.name not in run.failed, run.output
        else:
            assert orders == [] and server.name in run.failed
            assert re.search(r"short: a profile needs certbot 4\.0 or newer, and this host's is 2\.1", run.output), run.output
        assert server.served("shop").from_pebble

    each(judge)


@pytest.fixture(scope="module")
def changed(deployed, servers, acme, common):
    """A run with other names and another key for the shop, and without what is not wanted any more."""
    before = servers.at_once(lambda server: (server.serial("shop"), server.nginx()))
    with acme.watch() as seen, servers.load("shop"):
        run = servers.deploy(
            **common,
            nginx_sites=[site("shop", server_names=[named("shop"), named("new.shop")])],
            certbot_overrides=[{"name": "shop", "key_types": ["rsa"], "rsa_size": 3072}],
            certbot_removed="revoked",
        )
    return run, seen, before


def test_names_and_the_key_change_in_the_same_lineage(changed, each):
    run, seen, before = changed
    assert run.ok, run.output

    def judge(server):
        found = server.served("shop")
        assert found.names == {server.site("shop"), server.site("new.shop")}
        assert (found.key, found.bits) == ("rsa", 3072)
        assert found.serial != before[server][0] and server.nginx() == before[server][1]
        assert len(seen.of("newOrder", client=server.address)) == 1
        assert not [name for name in server.lineages() if "-0" in name], server.lineages()

    each(judge)


def test_what_is_off_the_list_is_revoked_and_gone_but_not_what_was_made_by_hand(changed, each):
    _run, seen, _before = changed

    def judge(server):
        assert {"shop.conf", "hand.conf"} == set(server.lineages())
        # The pair's two, the bound one, the wildcard, and where certbot knew its profile the short one.
        revoked = len(seen.of("revokeCert", client=server.address))
        assert revoked == (5 if server.age_of_certbot() >= (4, 0) else 4)
        assert server.served("pair") is None and server.served("mine") is None
        assert server.run("ls /var/lib/portico/own").split() == []

    each(judge)


def metrics(server):
    """What Prometheus reads of the shop's certificate: name of the metric to its value."""
    families = text_string_to_metric_families(server.run(f"cat {METRICS}"))
    return {sample.name: sample.value for family in families for sample in family.samples if sample.labels.get("certificate") == "shop"}


def test_a_certificate_that_is_not_well_is_told_to_everybody(changed, servers, each):
    """Its files are taken away. What nginx has in memory goes on being served meanwhile."""

    def judge(server):
        serial = server.serial("shop")
        server.run("rm -f /run/alarm; mv /etc/letsencrypt/live/shop /root/shop")
        failed = server.reconcile()
        try:
            assert not failed.ok and "shop" in failed.text
            assert server.run("systemctl is-failed certificates-reconcile.service").strip() == "failed"
            assert metrics(server)["portico_certificate_ok"] == 0
            alarm = server.run("cat /run/alarm")
            assert "PORTICO_STATE=failed" in alarm and "PORTICO_CERTIFICATES=shop" in alarm
            assert server.serial("shop") == serial
            # It is told once a day, and not four times an hour.
            server.reconcile()
            assert server.run("cat /run/alarm") == alarm
        finally:
            server.run("mv /root/shop /etc/letsencrypt/live/shop")
        healed = server.reconcile()
        assert healed.ok, healed.text
        assert "PORTICO_STATE=resolved" in server.run("cat /run/alarm")
        told = metrics(server)
        assert told["portico_certificate_ok"] == 1
        assert told["portico_certificate_not_after_timestamp_seconds"] == server.served("shop").ends
        assert time.time() - told["portico_certificate_last_success_timestamp_seconds"] < 60
        (row,) = [row for row in server.status() if row["certificate"] == "shop"]
        assert row["state"] == "ok" and set(row["served"].values()) == {row["serial"]}
        assert time.strftime("%Y") <= row["not_after"][:4]

    each(judge)


def test_no_secret_is_where_others_read_it(changed, servers, each, common):
    secrets = [EAB_KEY, common["certbot_dns"]["credentials"]["secret"]]
    assert not any(secret in json.dumps(changed[0].output) for secret in secrets)

    def judge(server):
        for secret in secrets:
            found = server.try_to(f"grep -rlF -e '{secret}' /etc /var/lib/portico /var/log /run 2>/dev/null").text.split()
            readable = [path for path in found if server.run(f"stat --format %a '{path}'").strip() not in ("600", "400")]
            assert readable == []

    each(judge)
