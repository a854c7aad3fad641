"""A certificate that cannot be had at first: its site is used without it, and the others have theirs."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from acme_scene import together
from scene import LIMIT, OUTAGE, domain, site
from visitor import Visitor

# The site, and what the play has to say of it.
FAULTS = [
    ("limited", "too many certificates (5) already issued for this exact set of identifiers"),
    ("unavailable", "down for maintenance"),
    ("dropped", ""),
    ("hung", "Read timed out"),
    ("cut", ""),
    ("misled", "Connection refused"),
    ("half", "www.half."),
    ("unreached", "https://acme:1/dir does not answer: Connection refused"),
]
SITES = [site("fine", "fine"), *(site(name, name, *(["www.half"] if name == "half" else [])) for name, _says in FAULTS)]
UNREACHED = [{"name": "unreached", "server": "https://acme:1/dir"}]


@pytest.fixture(scope="module")
def refused(scene):
    """The first run, in which each site has another fault to bear."""
    rules = [
        {"resource": "newOrder", "names": "limited.*", "problem": LIMIT},
        {"resource": "newOrder", "names": "unavailable.*", "problem": OUTAGE},
        {"resource": "newOrder", "names": "dropped.*", "drop": True},
        {"resource": "newOrder", "names": "hung.*", "hang": 60},
        {"resource": "cert", "names": "cut.*", "keep": 300},
    ]
    began = scene.acme.now()
    with contextlib.ExitStack() as faults:
        faults.enter_context(scene.acme.fault(*rules))
        faults.enter_context(scene.names_lead("misled", scene.acme.address))
        faults.enter_context(scene.names_lead("www.half"))
        run = scene.deploy(*SITES, certbot_overrides=UNREACHED)
        orders = {host.name: scene.acme.orders(host.address, began) for host in scene.hosts}
    return run, orders


@pytest.fixture(scope="module")
def visits(refused, scene):
    """What visitors have after that run, over both schemes: the status, or nothing where they cannot trust."""

    def look(host):
        seen = {}
        for label in ("fine", *(name for name, _says in FAULTS)):
            visitor = Visitor(host.address, str(host.ca))
            plain = visitor.get(f"http://{domain(host, label)}/")
            try:
                secure = visitor.get(f"https://{domain(host, label)}/").status
            except ssl.SSLCertVerificationError:
                secure = None
            seen[label] = (plain.status, "Strict-Transport-Security" in plain.headers, secure)
        return seen

    return together(scene.hosts, look)


@pytest.fixture(scope="module")
def healed(visits, scene):
    return scene.deploy(*SITES)


@pytest.mark.parametrize(("label", "says"), FAULTS)
def test_the_host_fails_last_and_says_why(refused, name, label, says):
    run, _orders = refused
    assert not run.ok
    said = [line for line in run.output.splitlines() if f"{label}: " in line]
    assert said, run.output
    assert any(says in line for line in said), "\n".join(said)


@pytest.mark.parametrize("label", [name for name, _says in FAULTS])
def test_the_site_is_used_on_port_80(visits, name, label):
    assert visits[name][label] == (200, False, None)


def test_the_others_have_their_certificates(visits, name):
    assert visits[name]["fine"] == (301, False, 200)


@pytest.mark.parametrize("label", [name for name, _says in FAULTS])
def test_nothing_is_ordered_twice(refused, name, label):
    _run, orders = refused
    placed = [order for order in orders[name] if any(each.startswith(f"{label}.") for each in order["names"])]
    assert len(placed) == (0 if label == "unreached" else 1)


@pytest.mark.parametrize("label", [name for name, _says in FAULTS])
def test_the_next_run_heals(healed, scene, name, label):
    assert healed.ok, healed.output
    (host,) = (each for each in scene.hosts if each.name == name)
    visitor = Visitor(host.address, str(host.ca))
    assert visitor.get(f"https://{domain(host, label)}/").status == 200
    assert visitor.get(f"http://{domain(host, label)}/").status == 301
