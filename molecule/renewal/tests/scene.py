"""Hosts whose certificate is due, and what happens to its renewal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from acme_scene import RENEW, Acme, Host, Rule, Run, hosts_of, together, trust, wait_until
from load import Load, Report
from visitor import Answer

SERVER = "https://acme:14443/dir"
MIDDLE_AGE = 61  # days, of 90: every certbot renews it
CONF = "/etc/letsencrypt/renewal/shop.conf"
LETSENCRYPT = "/etc/letsencrypt"
DROP_IN = "/run/systemd/system/certificates-renew.service.d"


@dataclass(frozen=True)
class Fault:
    """What goes wrong when a certificate is renewed, and what is to be seen of it."""

    name: str
    cause: Callable[[Scene], contextlib.AbstractContextManager[None]]
    """Causes it on all hosts while it lasts."""
    says: str = ""
    """What the unit has to say."""
    ok: bool = False
    """Whether the unit ends well all the same."""
    renewed: bool = False
    """Whether visitors have the new certificate all the same."""
    served: bool = True
    """Whether there is anything to visit meanwhile."""
    age: float = MIDDLE_AGE
    """How old the certificate is, in days."""
    act: Callable[[Scene, Host], Run] = lambda _scene, host: host.renew()
    """What is done on each host under the fault."""
    heals: str = "unit"
    """What heals it: the next run of the unit, or of the play and then of the unit. Nothing, where there is nothing to heal."""
    orders: int = 1
    """How many orders a host may place under the fault."""


@dataclass
class Outcome:
    """What happened on one host: under the fault, and in the next run without it."""

    old: str
    """The serial number that was served before."""
    run: Run
    new: str = ""
    """The serial number that was served when the unit had ended; nothing where nothing was."""
    orders: int = 0
    visits: Report | None = None
    healing: list[Run] = field(default_factory=list)
    healed: str = ""
    """The serial number that is served in the end."""
    again: int = 0
    """The orders of one more run, which has nothing to do."""


class Scene:
    """All hosts with a certificate, and the CA."""

    def __init__(self, play: Callable[..., Any]) -> None:
        (acme,) = hosts_of("acme")
        self._play, self._ca = play, trust()
        self.acme = Acme(acme)
        self.hosts = [Host(name, self._ca) for name in hosts_of("web")]
        self._has_tools = False
        self._sites: Sequence[dict[str, Any]] = ()

    def deploy(self, *sites: dict[str, Any], **variables: Any) -> Any:
        """Run the play on all hosts. What its variables say of inventory_hostname each of them fills in."""
        self._sites = sites
        return self._play("deploy.yml", "--extra-vars", json.dumps({"nginx_sites": sites, **variables}))

    def publish(self, **variables: Any) -> Any:
        """Run the play with the two sites whose certificates are renewed."""
        return self.deploy(*RENEWED, **variables)

    def begin(self) -> None:
        """Have both certificates served, and at hand what faults are caused and seen with."""
        if not self._has_tools:
            together(self.hosts, lambda host: host.ask(INSTALL))
            self._has_tools = True
        if self._sites != RENEWED:
            run = self.publish()
            assert run.ok, run.output

    def renew_under(self, fault: Fault) -> dict[str, Outcome]:
        """Let a certificate become due, renew it under the fault and without it, and see what visitors have."""
        self.begin()
        old = together(self.hosts, lambda host: host.age("shop", self.acme, fault.age))
        began = self.acme.now()
        with contextlib.ExitStack() as visits:
            with fault.cause(self):
                loads = {host.name: visits.enter_context(self._visits(host)) for host in self.hosts} if fault.served else {}
                runs = together(self.hosts, lambda host: fault.act(self, host))
            serials = together(self.hosts, self._served)
        outcomes = {host.name: Outcome(old[host.name], runs[host.name], serials[host.name]) for host in self.hosts}
        for host in self.hosts:
            outcomes[host.name].visits = loads[host.name].report if fault.served else None
            outcomes[host.name].orders = len(self.acme.orders(host.address, began))
        self._heal(fault, outcomes)
        return outcomes

    def _heal(self, fault: Fault, outcomes: dict[str, Outcome]) -> None:
        if fault.heals == "play":
            played = self.publish()
            for outcome in outcomes.values():
                outcome.healing.append(Run(played.ok, played.output))
        for name, run in together(self.hosts, Host.renew).items():
            outcomes[name].healing.append(run)
        for name, serial in together(self.hosts, self._served).items():
            outcomes[name].healed = serial
        began = self.acme.now()
        together(self.hosts, Host.renew)
        for host in self.hosts:
            outcomes[host.name].again = len(self.acme.orders(host.address, began))
        if not all(outcome.healed and all(run.ok for run in outcome.healing) for outcome in outcomes.values()):
            # It fails the test of this fault. The next one begins with what works.
            together(self.hosts, lambda host: host.run("systemctl start nginx"))
            self.publish()

    def _visits(self, host: Host) -> Load:
        def serial(reply: Answer) -> str:
            return str(reply.certificate.get("serialNumber"))

        return Load(host.address, [f"https://{domain(host, 'shop')}/"], ca=str(self._ca), label=serial, clients=4, pause=0.1)

    def _served(self, host: Host) -> str:
        try:
            return host.serial(domain(host, "shop"))
        except OSError:
            return ""

    # ---- how faults are caused

    @contextlib.contextmanager
    def on_hosts(self, before: str, after: str = "true") -> Iterator[None]:
        """Run a script on all hosts, and another when it is over."""
        together(self.hosts, lambda host: host.ask(before))
        try:
            yield
        finally:
            together(self.hosts, lambda host: host.ask(after))

    def each_once(self, **rule: Any) -> list[Rule]:
        """Return a rule for each host, which is followed once."""
        return [{**rule, "client": host.address, "count": 1} for host in self.hosts]

    @contextlib.contextmanager
    def names_lead(self, label: str, *addresses: str) -> Iterator[None]:
        """While it lasts, the DNS that the CA asks leads a name elsewhere, or nowhere."""
        for host in self.hosts:
            self.acme.resolve(domain(host, label), *addresses)
        try:
            yield
        finally:
            for host in self.hosts:
                self.acme.resolve(domain(host, label), host.address)


def site(name: str, *labels: str) -> dict[str, Any]:
    """Return a site of the distribution's own page, by the first labels of its names."""
    return {"name": name, "server_names": [f"{label}.{{{{ inventory_hostname }}}}.example.test" for label in labels], "root": "/usr/share/nginx/html"}


RENEWED = (site("shop", "shop", "www.shop"), site("second", "second"))
INSTALL = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install --no-install-recommends faketime python3-prometheus-client >/dev/null"


def domain(host: Host, label: str) -> str:
    return f"{label}.{host.name}.example.test"


def ruled(*rules: Rule) -> Callable[[Scene], contextlib.AbstractContextManager[None]]:
    return lambda scene: scene.acme.fault(*rules)


def once(**rule: Any) -> Callable[[Scene], contextlib.AbstractContextManager[None]]:
    return lambda scene: scene.acme.fault(*scene.each_once(**rule))


def broken(before: str, after: str = "true") -> Callable[[Scene], contextlib.AbstractContextManager[None]]:
    return lambda scene: scene.on_hosts(before, after)


@contextlib.contextmanager
def another_certbot(scene: Scene) -> Iterator[None]:
    """Somebody renews another certificate by hand, and the CA takes its time."""
    began = scene.acme.now()
    with scene.acme.fault({"resource": "newOrder", "names": "second.*", "hang": 6}):
        by_hand = "systemd-run --quiet --collect --unit by-hand bash -c '{} renew --force-renewal --cert-name second'"
        together(scene.hosts, lambda host: host.ask(by_hand.format(host.certbot())))
        wait_until(lambda: all(scene.acme.orders(host.address, began) for host in scene.hosts), "the other certbots order")
        yield
    together(scene.hosts, lambda host: wait_until(lambda: host.run("systemctl is-active by-hand").returncode != 0, "the other certbot ends"))


def killed_in_an_order(scene: Scene, host: Host) -> Run:
    """Kill the unit, and whatever it runs, when the CA has everything but the last word."""
    began = scene.acme.now()
    host.ask(f"systemctl start --no-block {RENEW}")
    wait_until(lambda: bool(scene.acme.requests(began, client=host.address, resource="finalize")), "the order is finalized")
    host.ask(f"systemctl kill --signal KILL {RENEW}")
    wait_until(lambda: host.run(f"systemctl is-active {RENEW}").stdout.strip() == "failed", "the unit has failed")
    return Run(False, host.ask(f"systemctl status --no-pager {RENEW} || true"))


def clock(days: int) -> Callable[[Scene], contextlib.AbstractContextManager[None]]:
    """What the unit runs believes that days have passed. nginx and the kernel do not."""
    text = f"[Service]\\nExecStart=\\nEnvironment=DONT_FAKE_MONOTONIC=1\\nExecStart=/usr/bin/faketime -f +{days}d /usr/local/sbin/portico-certificates renew\\n"
    return broken(f"mkdir -p {DROP_IN} && printf '{text}' >{DROP_IN}/clock.conf && systemctl daemon-reload", f"rm -r {DROP_IN} && systemctl daemon-reload")


FULL_DISK = broken(
    f"cp --archive {LETSENCRYPT} /root/letsencrypt && mount -t tmpfs -o size=2m,mode=755 none {LETSENCRYPT}"
    f" && cp --archive /root/letsencrypt/. {LETSENCRYPT}/ && (dd if=/dev/zero of={LETSENCRYPT}/fill bs=1k 2>/dev/null || true)",
    f"rm {LETSENCRYPT}/fill && rm -r /root/letsencrypt && cp --archive {LETSENCRYPT} /root/letsencrypt && umount {LETSENCRYPT}"
    f" && rm -r {LETSENCRYPT}/* && cp --archive /root/letsencrypt/. {LETSENCRYPT}/ && rm -r /root/letsencrypt",
)

LIMIT = {
    "status": 429,
    "type": "rateLimited",
    "detail": "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2099-01-01 00:00:00 UTC",
    "retry_after": 7200,
}
OUTAGE = {"status": 503, "type": "serverInternal", "detail": "The service is down for maintenance or had an internal error.", "retry_after": 600}
NO_ACCOUNT = {"status": 400, "type": "accountDoesNotExist", "detail": "No account exists with the provided key"}

FAULTS = [
    Fault("ca-down", ruled({"port": 14443, "refuse": True}), "Connection refused", orders=0),
    Fault("rate-limit", ruled({"resource": "newOrder", "problem": LIMIT}), "too many certificates (5) already issued"),
    Fault("outage-once", once(resource="newOrder", problem=OUTAGE), "down for maintenance"),
    Fault(
        "bad-nonces",
        ruled({"every": 20, "resource": ["newOrder", "authz", "challenge", "finalize", "order", "cert"], "problem": {"status": 400, "type": "badNonce"}}),
        ok=True,
        renewed=True,
        orders=2,
    ),
    Fault("dropped", ruled({"resource": "newOrder", "drop": True}), "shop: "),
    Fault("hanging", ruled({"resource": "directory", "hang": 60}), "Read timed out", orders=0),
    Fault("cut-certificate", ruled({"resource": "cert", "keep": 300}), "shop: "),
    Fault("account-lost", once(resource="newOrder", problem=NO_ACCOUNT), ok=True, renewed=True, orders=2),
    Fault("account-folder-lost", broken(f"rm -r {LETSENCRYPT}/accounts/acme:14443"), "shop: ", heals="play"),
    Fault("wrong-dns", lambda scene: scene.names_lead("shop", scene.acme.address), "Connection refused"),
    Fault("one-name-wrong", lambda scene: scene.names_lead("www.shop"), "www.shop."),
    Fault("nginx-down", broken("systemctl stop nginx", "systemctl start nginx"), "Connection refused", served=False),
    Fault(
        "hook-fails",
        broken(
            f"cd {LETSENCRYPT}/renewal-hooks/deploy && mv portico /root/hook && printf '#!/bin/sh\\nexit 1\\n' >portico && chmod +x portico",
            f"mv /root/hook {LETSENCRYPT}/renewal-hooks/deploy/portico",
        ),
        ok=True,
        renewed=True,
    ),
    Fault("reload-refused", broken("echo 'no_such_directive;' >/etc/nginx/conf.d/broken.conf", "rm /etc/nginx/conf.d/broken.conf"), "no_such_directive"),
    Fault("disk-full", FULL_DISK, "No space left on device"),
    Fault("two-certbots", another_certbot, ok=True, renewed=True, orders=2),
    Fault("killed", ruled({"resource": "finalize", "hang": 60}), "signal=KILL", act=killed_in_an_order),
    Fault("clock-59-days-on", clock(59), age=0, ok=True, heals="nothing", orders=0),
    Fault("clock-61-days-on", clock(61), age=0, ok=True, renewed=True),
    Fault("links-deleted", broken(f"rm {LETSENCRYPT}/live/shop/*.pem"), "shop", heals="play"),
    Fault("lineage-deleted", broken(f"rm -r {LETSENCRYPT}/live/shop {LETSENCRYPT}/archive/shop {CONF}"), "shop", heals="play", orders=0),
    Fault("configuration-damaged", broken(f"head -c 150 {CONF} >/root/half && cp /root/half {CONF}"), "shop", heals="play"),
]
