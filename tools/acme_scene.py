"""What tests of certificates do to an ACME server and to hosts with certificates, and what they see of them.

All of it from outside: through the servers' own ports, and with what an administrator has on a host (openssl, systemctl,
certbot), so that whatever keeps the certificates may change.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

DAY = 86400
RULES, LOG = "/var/lib/acme/rules.json", "/var/lib/acme/requests.jsonl"
RENEW, RECONCILE = "certificates-renew.service", "certificates-reconcile.service"

_R = TypeVar("_R")
Rule = dict[str, Any]
Seen = dict[str, Any]
"""A request, as the proxy's log tells it."""


class SceneError(AssertionError):
    """Something that a test relies on did not go as it must."""


@dataclass(frozen=True)
class Run:
    """What became of a unit: whether it ended well, and what it wrote to the journal."""

    ok: bool
    said: str


class Container:
    """A container, as root sees it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def address(self) -> str:
        (container,) = json.loads(subprocess.run(["docker", "inspect", self.name], check=True, capture_output=True, text=True).stdout)
        (network,) = container["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def run(self, script: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a shell script there, which may read a text."""
        return subprocess.run(["docker", "exec", "--interactive", self.name, "bash", "-c", script], input=text, capture_output=True, text=True, check=False)

    def ask(self, script: str, text: str = "") -> str:
        """Run a shell script there, and return what it prints.

        :raises SceneError: when it fails.
        """
        done = self.run(script, text)
        if done.returncode != 0:
            raise SceneError(f"{self.name}: {script}\n{done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")


class Acme(Container):
    """The ACME server of the image portico-acme, behind its proxy."""

    @contextlib.contextmanager
    def fault(self, *rules: Rule) -> Iterator[None]:
        """While it lasts, the proxy follows rules, which tools/acme_proxy.py describes."""
        self._follow(rules)
        try:
            yield
        finally:
            self._follow([])

    def _follow(self, rules: Sequence[Rule]) -> None:
        self.ask(f"cat >{RULES}.new && mv {RULES}.new {RULES}", json.dumps(rules))
        refused = [rule["port"] for rule in rules if "refuse" in rule]
        for port in (14443, 14406, 14445, 14401, 14453):
            self._wait_for_port(port, open=port not in refused)

    def _wait_for_port(self, port: int, open: bool) -> None:
        address = self.address
        wait_until(lambda: _connects(address, port) == open, f"port {port} {'opens' if open else 'closes'}")

    def requests(self, since: float = 0, **fields: Any) -> list[Seen]:
        """Return the requests that were made since a moment of C(now()), and whose fields are those."""
        lines = self.run(f"cat {LOG}").stdout.splitlines()
        seen = (json.loads(line) for line in lines)
        return [each for each in seen if each["time"] >= since and all(each[key] == value for key, value in fields.items())]

    def orders(self, client: str, since: float = 0) -> list[Seen]:
        """Return the orders that a host has placed."""
        return self.requests(since, client=client, resource="newOrder")

    def now(self) -> float:
        """Return the moment by the clock of the log."""
        return float(self.ask("date +%s.%N"))

    # ---- its DNS

    def resolve(self, name: str, *addresses: str) -> None:
        """Have a name lead somewhere, or nowhere."""
        self._tell_dns("clear-a", {"host": name})
        if addresses:
            self._tell_dns("add-a", {"host": name, "addresses": list(addresses)})

    def forbid(self, name: str, *identities: str) -> None:
        """Have the DNS say that only these CAs may issue for a name (RFC 8659); without any, that all may."""
        self._tell_dns("clear-caa", {"host": name})
        if identities:
            self._tell_dns("add-caa", {"host": name, "policies": [{"tag": "issue", "value": each} for each in identities]})

    def _tell_dns(self, verb: str, what: dict[str, Any]) -> None:
        self.ask(f"curl --silent --show-error --fail --data @- http://localhost:8055/{verb}", json.dumps(what))

    # ---- old certificates

    def sign(self, public_key: str, names: Iterable[str], began: float, lifetime: int) -> tuple[str, str]:
        """Make a certificate that began some time ago, and return it with its chain, in PEM.

        Pebble's certificates begin now. So it is from the CA of the server's own certificate, and verifies with that.
        """
        alternatives = ",".join(f"DNS:{name}" for name in names)
        begin, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(each)) for each in (began, began + lifetime - 1))
        certificate = self.ask(
            "folder=$(mktemp -d) && cd $folder && cat >key.pem"
            f" && printf '%s\\n' 'subjectAltName=critical,{alternatives}' extendedKeyUsage=serverAuth basicConstraints=CA:FALSE >extensions"
            " && openssl x509 -new -force_pubkey key.pem -subj / -extfile extensions -sha256 -CA /var/lib/acme/ca.pem -CAkey /var/lib/acme/ca.key"
            f" -set_serial 0x1$(openssl rand -hex 15) -not_before {begin} -not_after {end} && rm -r $folder",
            public_key,
        )
        return f"{certificate}\n", self.ask("cat /var/lib/acme/ca.pem") + "\n"


class Host(Container):
    """A host with certificates.

    :param ca: a PEM file with what its visitors trust.
    """

    def __init__(self, name: str, ca: Path) -> None:
        super().__init__(name)
        self.ca = ca

    # ---- on the wire

    def certificate(self, name: str, kind: str | None = None) -> dict[str, Any]:
        """Return the certificate that a visitor of a name gets and verifies, as ssl.SSLSocket.getpeercert() does.

        :param kind: of the key that the visitor can verify, ECDSA or RSA; if not given, it can both.
        """
        context = ssl.create_default_context(cafile=str(self.ca))
        if kind is not None:
            # After TLS 1.2 the cipher says nothing of the key.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256")
        with socket.create_connection((self.address, 443), timeout=10) as connection, context.wrap_socket(connection, server_hostname=name) as tls:
            return dict(tls.getpeercert() or {})

    def serial(self, name: str) -> str:
        """Return the serial number of the certificate that is served for a name."""
        return str(self.certificate(name)["serialNumber"])

    def serial_on_disk(self, lineage: str) -> str:
        return self.ask(f"openssl x509 -in /etc/letsencrypt/live/{lineage}/cert.pem -noout -serial").partition("=")[2]

    def master(self) -> str:
        """Return the process of nginx's master."""
        return self.ask("systemctl show --property MainPID --value nginx")

    # ---- its certificates

    def certbot(self) -> str:
        """Return the command line of its certbot, for a person at the shell, trusting the test's ACME server."""
        return "REQUESTS_CA_BUNDLE=/etc/portico/acme-ca.pem $(ls -d /opt/portico/certbot/bin/certbot /usr/bin/certbot 2>/dev/null | head -n 1)"

    def age(self, lineage: str, acme: Acme, days: float) -> str:
        """Put a certificate into a lineage that is so old, and else as the one that is there; have nginx serve it, and return its serial number."""
        live = f"/etc/letsencrypt/live/{lineage}"
        said = self.ask(f"openssl x509 -in {live}/cert.pem -noout -pubkey -dates -ext subjectAltName")
        begin, end = (ssl.cert_time_to_seconds(each) for each in re.findall(r"^not\w+=(.+)$", said, re.MULTILINE))
        key = said[said.index("-----BEGIN") :].partition("END PUBLIC KEY-----")[0] + "END PUBLIC KEY-----\n"
        names = re.findall(r"DNS:([^,\s]+)", said)
        certificate, chain = acme.sign(key, names, time.time() - days * DAY, int(end - begin) + 1)
        for file, text in (("cert", certificate), ("chain", chain), ("fullchain", certificate + chain)):
            self.ask(f"cat >{live}/{file}.pem", text)
        self.ask("systemctl reload nginx")
        serial, name = self.serial_on_disk(lineage), names[0].replace("*", "any")
        wait_until(lambda: self.serial(name) == serial, f"{self.name} serves the aged certificate of {lineage}")
        return serial

    def forget_renewal_info(self, lineage: str) -> None:
        """As if the hours had passed that certbot waits before it asks the CA again whether to renew early."""
        self.ask(f"sed -i '/^\\[acme_renewal_info\\]/,/^\\[/{{/^\\[acme_renewal_info\\]/d;/^[^[]/d}}' /etc/letsencrypt/renewal/{lineage}.conf")

    def lineages(self) -> list[str]:
        return self.ask("ls /etc/letsencrypt/live | grep -v README || true").split()

    # ---- its units

    def start(self, unit: str) -> Run:
        """Start a unit that does something and ends."""
        done = self.run(f"systemctl start {unit}")
        said = self.ask(f"journalctl --sync; journalctl --no-pager --output cat _SYSTEMD_INVOCATION_ID=$(systemctl show --property InvocationID --value {unit})")
        return Run(done.returncode == 0, said)

    def renew(self) -> Run:
        return self.start(RENEW)

    def reconcile(self) -> Run:
        return self.start(RECONCILE)

    def status(self) -> list[dict[str, Any]]:
        """Return what the host itself says of its certificates."""
        return list(json.loads(self.run("portico-certificates status --json").stdout))


def hosts_of(group: str) -> list[str]:
    """Return the containers of a group of the scenario's inventory."""
    inventory = yaml.safe_load(Path(os.environ["MOLECULE_INVENTORY_FILE"]).read_text())
    return sorted(inventory[group]["hosts"])


def trust() -> Path:
    """Return a PEM file of what visitors trust: Pebble's roots, and the CA that aged certificates are made with."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    file = folder / "trust.pem"
    file.write_text("".join((folder / f"{name}.pem").read_text() for name in ("issuing-root", "directory-ca")))
    return file


def together(hosts: Iterable[Host], function: Callable[[Host], _R]) -> dict[str, _R]:
    """Do something to all hosts at once; return what came of it, by the host's name."""
    hosts = list(hosts)
    with ThreadPoolExecutor(len(hosts)) as pool:
        return dict(zip((host.name for host in hosts), pool.map(function, hosts), strict=True))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until something is so that nothing tells of.

    :raises SceneError: when it is not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SceneError(f"not within {seconds} s: {what}")
        time.sleep(0.1)  # between two questions


def _connects(address: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(5)
        return sock.connect_ex((address, port)) == 0


