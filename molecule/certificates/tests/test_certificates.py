"""The life of a host's certificates, in the order in which it is told: each step happens on all hosts at once."""

from __future__ import annotations

import contextlib

import pytest
from acme_scene import together
from load import Load
from scene import SITES, domain

LIFETIMES = {"shop": 90, "six": 6, "month": 45, "pair": 90, "profiled": 90, "wild": 90}
PROFILES = {"resource": "directory", "merge": {"meta": {"profiles": {"shortlived": "https://acme/docs/shortlived"}}}}
PAST = {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}
# How old they are, in days: just not to be renewed, and just to be.
YOUNG = {"shop": 59, "six": 2.9, "month": 29, "profiled": 59}
OLD = {"shop": 61, "six": 3.1, "month": 31, "profiled": 61}


def knows_profiles(name):
    return "debian12" not in name


# ---- the steps


@pytest.fixture(scope="module", autouse=True)
def profiles(scene):
    """The CA has profiles, all along."""
    with scene.acme.fault(PROFILES):
        yield


@pytest.fixture(scope="module")
def refused(scene):
    """What an old certbot cannot do is asked of it, on the host that has one."""
    overrides = [{"name": "profiled", "profile": "shortlived"}]
    return scene.deploy(scene.sites(), "--limit", "*debian12", certbot_overrides=overrides)


@pytest.fixture(scope="module")
def first(refused, scene):
    return scene.deploy(scene.sites())


@pytest.fixture(scope="module")
def second(first, scene):
    return scene.deploy(scene.sites())


@pytest.fixture(scope="module")
def fresh(second, scene):
    """Nothing is due."""
    return scene.renew()


def aged(scene, ages):
    return together(scene.hosts, lambda host: {label: host.age(label, scene.acme, days) for label, days in ages.items()})


@pytest.fixture(scope="module")
def young(fresh, scene):
    aged(scene, YOUNG)
    return scene.renew()


@pytest.fixture(scope="module")
def old(young, scene):
    """All that are due are renewed under load."""
    before = aged(scene, OLD)
    masters = together(scene.hosts, lambda host: host.master())

    def serial(reply):
        return str(reply.certificate.get("serialNumber"))

    with contextlib.ExitStack() as visits:
        loads = {}
        for host in scene.hosts:
            urls = [f"https://{domain(host.name, label)}/" for label in OLD]
            loads[host.name] = visits.enter_context(Load(host.address, urls, ca=str(host.ca), label=serial, clients=6))
        step = scene.renew()
    return step, before, masters, {name: load.report for name, load in loads.items()}


@pytest.fixture(scope="module")
def early(old, scene):
    """The CA wants one certificate replaced, as it does before it revokes many."""
    together(scene.hosts, lambda host: host.forget_renewal_info("month"))
    with scene.acme.fault(PROFILES, {"resource": "renewalInfo", "port": 14445, "merge": {"suggestedWindow": PAST}}):
        return scene.renew()


def settled(scene):
    """The sites as they are after that, and what differs of them."""
    sites = scene.sites()
    sites["shop"]["server_names"][1] = "m.shop.{{ inventory_hostname }}.example.test"
    return sites, [*scene.overrides(), {"name": "shop", "key_types": ["rsa"]}]


@pytest.fixture(scope="module")
def changed(early, scene):
    """One name goes, one comes, and the key becomes another."""
    sites, overrides = settled(scene)
    return scene.deploy(sites, overrides=overrides)


@pytest.fixture(scope="module")
def switched(changed, scene):
    """Each host gets its certbot from the other place, renews with it, and goes back."""
    sites, overrides = settled(scene)
    there = scene.deploy(sites, overrides=overrides, certbot_install="{{ 'distribution' if 'pypi' in inventory_hostname else 'pypi' }}")
    aged(scene, {"six": OLD["six"]})
    renewed = scene.renew()
    return there, renewed, scene.deploy(sites, overrides=overrides)


@pytest.fixture(scope="module")
def adopted(switched, scene):
    """Somebody has made a certificate by hand, and then the site is told to have one."""
    sites, overrides = settled(scene)
    together(
        scene.hosts,
        lambda host: host.ask(
            f"{host.certbot()} certonly --non-interactive --agree-tos --email by-hand@example.test --server https://acme:14443/dir --webroot"
            f" --webroot-path /var/lib/portico/acme --cert-name byhand --domain {domain(host.name, 'byhand')}"
        ),
    )
    made = together(scene.hosts, lambda host: host.serial_on_disk("byhand"))
    del sites["byhand"]["tls"]
    return scene.deploy(sites, overrides=overrides), made


@pytest.fixture(scope="module")
def external(adopted, scene):
    """Another play brings a site whose CA knows its customers."""
    key = {"kid": "kid-1", "hmac_key": scene.acme.ask("cat /var/lib/acme/external-key")}
    site = {"name": "external", "server_names": ["external.{{ inventory_hostname }}.example.test"], "root": "/usr/share/nginx/html"}
    variables = {"nginx_scope": "external", "certbot_scope": "external", "certbot_server": "https://acme:14401/dir", "overrides": []}
    without = scene.deploy({"external": site}, **variables)
    return without, scene.deploy({"external": site}, certbot_eab=key, **variables), key["hmac_key"]


@pytest.fixture(scope="module")
def removed(external, scene):
    """One site goes, and its certificate is revoked."""
    sites, overrides = settled(scene)
    del sites["byhand"], sites["month"]
    return scene.deploy(sites, overrides=[each for each in overrides if each["name"] != "month"], certbot_removed="revoked")


# ---- what is seen of them


def test_what_an_old_certbot_cannot_do_is_refused_before_anything_happens(refused, name):
    if knows_profiles(name):
        pytest.skip("it can")
    assert not refused.run.ok
    assert "profiled: a profile needs certbot 4.0" in refused.run.output
    assert refused.looks[name].requests == []


@pytest.mark.parametrize("label", SITES)
def test_one_run_obtains_all(first, name, label):
    assert first.run.ok, first.run.output
    look = first.looks[name]
    assert domain(name, label) in look.names(label) or label == "wild", look.certificates[label]
    assert look.days(label) == LIFETIMES[label]


def test_a_wildcard_is_proved_through_the_dns(first, name):
    assert first.looks[name].names("wild") == {f"*.wild.{name}.dns.example.test", f"wild.{name}.dns.example.test"}


def test_a_pair_has_something_for_everyone(first, scene, name):
    (host,) = (each for each in scene.hosts if each.name == name)
    serials = {host.certificate(domain(name, "pair"), kind)["serialNumber"] for kind in ("ECDSA", "RSA")}
    assert len(serials) == 2


def test_the_profile_reaches_the_ca(first, old, name):
    for look in (first.looks[name], old[0].looks[name]):
        profiles = [order["payload"].get("profile") for order in look.orders if order["names"] == [domain(name, "profiled")]]
        assert profiles == ["shortlived" if knows_profiles(name) else None]


def test_a_second_run_changes_nothing_and_hardly_asks(second, name):
    assert second.run.ok and not any(second.run.changed.values()), second.run.output
    assert len(second.looks[name].requests) <= 3


def test_one_timer_renews(first, switched, name):
    for step in (first, *switched):
        assert step.looks[name].timers == ["certificates-renew.timer"]


@pytest.mark.parametrize("step", ["fresh", "young"])
def test_what_is_not_due_is_not_renewed(step, request, name):
    step = request.getfixturevalue(step)
    assert step.units[name].ok, step.units[name].said
    assert step.looks[name].ordered() == set()


def test_what_is_due_is_renewed_and_nobody_is_lost(old, name):
    step, before, masters, visits = old
    look = step.looks[name]
    assert step.units[name].ok, step.units[name].said
    assert look.ordered() == set(OLD)
    for label in OLD:
        assert look.serials[label] not in ("", before[name][label])
        assert look.days(label) == LIFETIMES[label]
    assert not visits[name].lost, visits[name]
    assert set(visits[name].labels) == {*before[name].values(), *(look.serials[label] for label in OLD)}
    assert look.master == masters[name]


def test_the_ca_may_ask_for_an_early_renewal(early, name):
    assert early.units[name].ok, early.units[name].said
    # certbot knows that since 4.1.
    assert early.looks[name].ordered() == ({"month"} if "pypi" in name else set())


def test_names_and_key_change_in_place(early, changed, scene, name):
    assert changed.run.ok, changed.run.output
    look = changed.looks[name]
    assert look.names("shop") == {domain(name, "shop"), domain(name, "m.shop")}
    assert look.ordered() - {"m"} == {"shop"}
    assert look.lineages == early.looks[name].lineages
    (host,) = (each for each in scene.hosts if each.name == name)
    assert host.certificate(domain(name, "shop"), "RSA")


def test_certbot_may_come_from_elsewhere_and_go_back(changed, switched, name):
    there, renewed, back = switched
    assert there.run.ok and back.run.ok, there.run.output + back.run.output
    assert renewed.units[name].ok, renewed.units[name].said
    assert [step.looks[name].ordered() for step in switched] == [set(), {"six"}, set()]
    assert there.looks[name].serials == changed.looks[name].serials
    assert back.looks[name].serials == renewed.looks[name].serials
    for step in switched:
        assert step.looks[name].accounts == changed.looks[name].accounts
        assert step.looks[name].lineages == changed.looks[name].lineages


def test_what_was_made_by_hand_is_used(adopted, name):
    step, made = adopted
    assert step.run.ok, step.run.output
    assert step.looks[name].orders == []
    assert step.looks[name].serials["byhand"] == made[name]


def test_a_ca_that_knows_its_customers_gets_the_key(external, name):
    without, with_key, _secret = external
    assert not without.run.ok and "external: " in without.run.output
    assert with_key.run.ok, with_key.run.output
    assert domain(name, "external") in with_key.looks[name].names("external")


def test_the_key_is_nowhere(external, scene, name):
    without, with_key, secret = external
    assert secret not in without.run.output + with_key.run.output
    (host,) = (each for each in scene.hosts if each.name == name)
    assert host.run(f"grep -rlF --exclude-dir=journal -e {secret} /etc /var/lib /var/log /run /tmp /root").stdout == ""


def test_what_another_play_brought_is_left_alone(adopted, external, name):
    before, after = adopted[0].looks[name], external[1].looks[name]
    assert {label: after.serials[label] for label in (*SITES, "byhand")} == {label: before.serials[label] for label in (*SITES, "byhand")}


def test_what_goes_is_revoked_and_nothing_else(external, removed, name):
    assert removed.run.ok, removed.run.output
    look = removed.looks[name]
    assert [each["port"] for each in look.requests if each["resource"] == "revokeCert"] == [14445]
    # What was made by hand was only used.
    assert set(external[1].looks[name].lineages) - set(look.lineages) == {"month"}
    assert look.certificates["month"] == {}
    kept = [label for label in SITES if label != "month"]
    assert {label: look.serials[label] for label in kept} == {label: external[1].looks[name].serials[label] for label in kept}


def test_keys_are_for_root_alone(removed, scene, name):
    (host,) = (each for each in scene.hosts if each.name == name)
    assert host.ask("find /etc/letsencrypt /var/lib/portico /etc/portico -name 'privkey*.pem' -type f -not -perm 600") == ""
    assert host.run("find / -xdev -user www-data -name '*.pem'").stdout == ""
