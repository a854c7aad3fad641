"""Hosts with certificates of all kinds, and what is seen of them after each step of their life."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from acme_scene import DAY, Acme, Host, Run, Seen, hosts_of, together, trust

SITES = ("shop", "six", "month", "pair", "profiled", "wild")


@dataclass
class Look:
    """What is seen of one host."""

    certificates: dict[str, dict[str, Any]]
    """Of each site, as ssl.SSLSocket.getpeercert() describes it; {} where none is served that a visitor trusts."""
    lineages: list[str]
    accounts: list[str]
    timers: list[str]
    """Those that are enabled and renew certificates."""
    master: str
    requests: list[Seen] = field(default_factory=list)
    """What the host has asked of the CA during the step."""

    @property
    def orders(self) -> list[Seen]:
        return [each for each in self.requests if each["resource"] == "newOrder"]

    @property
    def serials(self) -> dict[str, str]:
        return {label: each.get("serialNumber", "") for label, each in self.certificates.items()}

    def names(self, label: str) -> set[str]:
        return {name for _kind, name in self.certificates[label].get("subjectAltName", ())}

    def days(self, label: str) -> float:
        """Return how long a certificate is valid."""
        begin, end = (ssl.cert_time_to_seconds(self.certificates[label][key]) for key in ("notBefore", "notAfter"))
        return round((end - begin) / DAY, 2)

    def ordered(self) -> set[str]:
        """Return the first labels of the names that were ordered."""
        return {name.removeprefix("*.").partition(".")[0] for order in self.orders for name in order["names"]}


@dataclass
class Step:
    """One step, on all hosts: the run of the play or of a unit on each, and what is seen afterwards."""

    looks: dict[str, Look]
    run: Any = None
    units: dict[str, Run] = field(default_factory=dict)


class Scene:
    """All the hosts, and the CA."""

    def __init__(self, play: Callable[..., Any]) -> None:
        (acme,) = hosts_of("acme")
        self.ca = trust()
        self.acme = Acme(acme)
        self.hosts = [Host(name, self.ca) for name in hosts_of("web")]
        self._play = play

    # ---- what is deployed

    def sites(self) -> dict[str, dict[str, Any]]:
        """Return the sites that each host has at first, by name."""
        names = {label: [f"{label}.{{{{ inventory_hostname }}}}.example.test"] for label in (*SITES, "byhand")}
        names["shop"].insert(1, "www.shop.{{ inventory_hostname }}.example.test")
        names["wild"] = [self.zone_name("*.wild"), self.zone_name("wild")]
        sites = {label: {"name": label, "server_names": each, "root": "/usr/share/nginx/html"} for label, each in names.items()}
        sites["byhand"]["tls"] = False
        return sites

    @staticmethod
    def zone_name(label: str) -> str:
        """Return a name in the zone that certbot may write to."""
        return f"{label}.{{{{ inventory_hostname }}}}.dns.example.test"

    def overrides(self) -> list[dict[str, Any]]:
        return [
            {"name": "six", "server": "https://acme:14406/dir"},
            {"name": "month", "server": "https://acme:14445/dir"},
            {"name": "wild", "server": "https://acme:14453/dir"},
            {"name": "pair", "key_types": ["ecdsa", "rsa"]},
            {"name": "profiled", "profile": "shortlived"},
        ]

    def dns(self) -> dict[str, Any]:
        """Return how certbot writes to the zone."""
        (secret,) = re.findall(r'secret "(.+)"', self.acme.ask("cat /var/lib/acme/tsig.conf"))
        credentials = {"server": self.acme.address, "port": 5353, "name": "certbot.", "secret": secret, "algorithm": "HMAC-SHA256"}
        return {"plugin": "rfc2136", "credentials": credentials, "propagation": 0}

    def deploy(self, sites: dict[str, dict[str, Any]], *flags: str, **variables: Any) -> Step:
        """Run the play on all hosts."""
        given = {"nginx_sites": list(sites.values()), "overrides": self.overrides(), "certbot_dns": self.dns(), **variables}
        began = self.acme.now()
        run = self._play("deploy.yml", "--extra-vars", json.dumps(given), *flags)
        return Step(self._look(began), run=run)

    def renew(self) -> Step:
        """Run the unit that renews on all hosts."""
        began = self.acme.now()
        units = together(self.hosts, Host.renew)
        return Step(self._look(began), units=units)

    # ---- what is seen

    def _look(self, began: float) -> dict[str, Look]:
        looks = together(self.hosts, self._look_at)
        for host in self.hosts:
            looks[host.name].requests = self.acme.requests(began, client=host.address)
        return looks

    def _look_at(self, host: Host) -> Look:
        timers = host.ask("systemctl list-unit-files --type timer --state enabled --no-legend --plain").splitlines()
        return Look(
            {label: self._certificate(host, label) for label in (*SITES, "byhand", "external")},
            host.lineages(),
            host.ask("cd /etc/letsencrypt/accounts && find . -name private_key.json | sort || true").split(),
            [timer for timer in (line.split()[0] for line in timers) if re.search(r"cert(bot|ificates-renew)", timer)],
            host.master(),
        )

    @staticmethod
    def _certificate(host: Host, label: str) -> dict[str, Any]:
        try:
            return host.certificate(domain(host.name, label))
        except (ssl.SSLError, ConnectionError):
            return {}


def domain(host: str, label: str) -> str:
    """Return the name that a visitor uses for a site."""
    return f"any.wild.{host}.dns.example.test" if label == "wild" else f"{label}.{host}.example.test"
