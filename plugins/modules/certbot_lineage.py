#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: certbot_lineage
short_description: Compare, obtain and link lineages of certbot
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - The half of M(portico.web.certbot_certificate) that runs on the host.
  - It reads the lineages with openssl, keeps the files and the timers that renewal needs, obtains what is missing or
    different, points the symlinks through which nginx reads certificates at the lineages, and reloads nginx.
  - Beside a certificate it writes what a server block may do with it, to staple OCSP responses, for one, where the certificate names a responder.
options:
  certificates:
    description: The certificates that the scope should have, each with C(name), C(domains), C(issuer), C(trusted) and C(orders).
    type: list
    elements: dict
    required: true
  contents:
    description: The C(fullchain) and the C(key) of certificates that somebody brings, by name, in JSON.
    type: str
  obtain:
    description: The names of those that are obtained now.
    type: list
    elements: str
    default: []
  scope:
    description: Whose certificates these are.
    type: str
    default: main
  removed:
    description: What happens to those that the scope had before.
    type: str
    choices: [deleted, revoked, kept]
    default: deleted
  settings:
    description: What this scope says of the whole host and is not the default, C(metrics) and C(alarm_command).
    type: dict
    default: {}
  packages:
    description: The packages that are needed.
    type: list
    elements: str
    default: []
  requirements:
    description: What a certbot from PyPI is made of. If empty, it is the distribution's.
    type: list
    elements: str
    default: []
  email:
    description: Where the CA writes to.
    type: str
  eab:
    description: The external account binding, C(kid) and C(hmac_key), in JSON.
    type: str
  account:
    description: An account to use, as M(portico.web.certbot_account) exports it.
    type: str
  ca_bundle:
    description: The text of the PEM bundle that verifies the CA's own server.
    type: str
  credentials:
    description: The text of the file that certbot's DNS plugin reads.
    type: str
  preflight:
    description: Whether to look whether the CA will find the proof, before it is asked.
    type: bool
    default: true
  tool:
    description: The host's own tool, in base64.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says what would be done, and neither changes anything nor asks the CA.
  diff_mode:
    support: full
    description: A diff for each file and each certificate that would change. Of a file with a secret only that it differs.
  idempotence:
    support: full
    description: What is right is not touched.
seealso:
  - module: portico.web.certbot_certificate
"""

EXAMPLES = r"""
# It is not meant to be called by people: portico.web.certbot_certificate makes its options.
- name: Compare and obtain
  portico.web.certbot_certificate:
    certificates:
      - name: shop
        domains: [shop.example.com]
    obtain: [shop]
"""

RETURN = r"""
missing:
  description: The packages of O(packages) that are not installed. Where there are some, and not in check mode, nothing else was done.
  returned: success
  type: list
  elements: str
due:
  description: The names of the certificates that are missing or different, and were not obtained.
  returned: nothing is missing
  type: list
  elements: str
reasons:
  description: Why a certificate was due.
  returned: nothing is missing
  type: dict
obtained:
  description: The names of the certificates that were obtained.
  returned: nothing is missing
  type: list
  elements: str
linked:
  description: The names of the certificates that nginx is now told to serve, and was not before.
  returned: nothing is missing
  type: list
  elements: str
removed:
  description: The names of the certificates that were deleted or revoked.
  returned: nothing is missing
  type: list
  elements: str
files:
  description: The files that were written or removed.
  returned: nothing is missing
  type: list
  elements: str
failures:
  description: What went wrong, a line for each certificate, beginning with its name.
  returned: nothing is missing
  type: list
  elements: str
"""

import base64
import contextlib
import glob
import hashlib
import json
import os
import shutil
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import certbot, commands, files, layout, lineage, own_certificates, packages, preflight, register, serving, stapling, store, units
from ansible_collections.portico.web.plugins.module_utils.generation import certificates_of

OLD_DROP_IN = "/etc/systemd/system/certbot.service.d/portico.conf"
"""What the versions of Portico before its own timer wrote."""
UNSERVED = layout.STATE + "/certificates-unserved"
"""There while nginx may not have read what it is told to serve: a reload that failed is made up for by the next run."""

SECONDS_FOR_PIP = 600

Entry = dict[str, t.Any]


class CertificateError(Exception):
    """Why nothing can be done at all, in words for the person."""


@dataclass(frozen=True)
class File:
    """A file as it should be; without content it should not be there."""

    path: str
    content: bytes | None
    mode: int = 0o644
    secret: bool = False

    def before(self) -> bytes | None:
        """Return what is there."""
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def differs(self) -> bool:
        before = self.before()
        return before != self.content or (before is not None and os.stat(self.path).st_mode & 0o7777 != self.mode)

    def write(self) -> None:
        """Write or remove it; whoever reads it meanwhile has the old one or the new one."""
        if self.content is None:
            files.remove(self.path)
            return
        os.makedirs(os.path.dirname(self.path), mode=0o700 if self.secret else 0o755, exist_ok=True)
        files.write_bytes(self.path, self.content, self.mode)

    def diff(self) -> dict[str, str]:
        before, after = (_shown(each, self.secret) for each in (self.before(), self.content))
        return _before_and_after(self.path, before, after)


@dataclass
class Plan:
    """What differs from what is wanted."""

    files: list[File] = field(default_factory=list)
    units: list[list[str]] = field(default_factory=list)
    """Words of systemctl, each a step."""
    environment: bool = False
    """Whether certbot's virtual environment is another than the wanted one."""
    account: bool = False
    repairs: list[str] = field(default_factory=list)
    """Lineages of which something is missing or damaged."""
    unsettled: list[str] = field(default_factory=list)
    """Lineages that would not be renewed as they should."""
    contents: list[str] = field(default_factory=list)
    """Certificates without a CA that are missing or different."""
    due: list[Entry] = field(default_factory=list)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    to_link: list[Entry] = field(default_factory=list)
    """Certificates that are right, and that nginx is not told to serve yet."""
    broken: list[str] = field(default_factory=list)
    """Certificates that nginx is told to serve, and whose files are gone."""
    unserved: bool = False
    """Whether an earlier run could not have nginx read what it is told to serve."""
    to_remove: list[str] = field(default_factory=list)
    awaiting: list[str] = field(default_factory=list)
    """Certificates that are removed when others for the same names are there."""
    stale: list[str] = field(default_factory=list)
    """Certificates that were made of something else before, which is still there."""
    manifest: bool = False
    warnings: list[str] = field(default_factory=list)

    def changes(self, obtain: list[str]) -> bool:
        """Return whether carrying it out changes anything."""
        found = (self.files, self.units, self.repairs, self.unsettled, self.contents, self.to_link, self.broken, self.to_remove, self.stale)
        return any(found) or self.environment or self.account or self.unserved or self.manifest or any(entry["name"] in obtain for entry in self.due)


@dataclass
class Outcome:
    """What was done about it, and what could not be."""

    changed: bool = False
    obtained: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    """Those that are the scope's no more, removed or not."""
    failures: list[str] = field(default_factory=list)


class Host:
    """The certificates of this host, and what their renewal needs."""

    def __init__(self, params: t.Mapping[str, t.Any], holder: str = "certificates") -> None:
        self.params = params
        self.holder = holder
        self.wanted: list[Entry] = params["certificates"]
        self.obtain: list[str] = params["obtain"]
        self.account: t.Mapping[str, t.Any] | None = params["account"]
        self.lost_account = self.account is not None and certbot.is_lost(self.account["name"])
        if self.lost_account:
            self.account = None
        self.manifest = register.load()
        self.before: dict[str, Entry] = dict(self.manifest["scopes"].get(params["scope"], {"certificates": {}})["certificates"])
        self.others: dict[str, dict[str, t.Any]] = {}
        """What the other scopes say of the whole host, if they have certificates on it."""
        for name, part in sorted(self.manifest["scopes"].items()):
            if name != params["scope"]:
                # What another scope has given up and this one wants is this one's, with its past.
                taken = {each: entry for each, entry in part["certificates"].items() if entry.get("given_up") and each in {wanted["name"] for wanted in self.wanted}}
                self.before.update({each: {key: value for key, value in entry.items() if key != "given_up"} for each, entry in taken.items()})
                if any(not entry.get("given_up") for entry in part["certificates"].values()):
                    self.others[name] = part["settings"]
        self.requirements = _united([params["requirements"], *(settings.get("requirements", []) for settings in self.others.values())])
        self.program = certbot.program(bool(self.requirements))
        self.lineages: dict[str, lineage.Lineage] = {}
        self._configuration: tuple[bool, str] | None = None

    @property
    def authority(self) -> certbot.Authority:
        return certbot.Authority(self.params["email"], self.params["eab"] or {}, self.account["name"] if self.account else None)

    # ---- reading and deciding

    def plan(self) -> Plan:
        """Compare what there is with what is wanted.

        :raises CertificateError: where what is wanted cannot be had from this host's certbot, or another scope has it.
        """
        self._refuse_shared()
        version = certbot.version(self.program)
        if version is not None:
            self._refuse_incapable(version)
        plan = Plan(files=[file for file in self._files() if file.differs()], units=self._unit_steps(), environment=self._environment_differs())
        plan.account = self.account is not None and self.account["name"] not in lineage.accounts(self.account["server"])
        plan.unserved = os.path.exists(UNSERVED)
        if self.lost_account:
            plan.warnings.append("The CA does not know the account of certbot_account any more, and another was registered. Export that one with portico.web.certbot_account.")
        for entry in self.wanted:
            self._refuse_strangers(plan, entry)
        for entry in self.wanted:
            self._plan_entry(plan, entry, version or (99,))
        self._plan_removal(plan)
        plan.manifest = register.text(self._new_manifest(plan.to_remove)) != files.read(register.path())
        return plan

    def _plan_entry(self, plan: Plan, entry: Entry, version: tuple[int, ...]) -> None:
        name, reasons = entry["name"], []
        for order in entry["orders"]:
            if certbot.needs_repair(order["name"]):
                plan.repairs.append(order["name"])
            found = self.lineages[order["name"]] = lineage.read(order["name"])
            reasons += self._reasons(entry, order)
            settled = lineage.settled_configuration(found, order, version, self._account_for(order)) if found.known else None
            if settled != found.configuration:
                plan.unsettled.append(order["name"])
                dropped = [f"{key} = {value}" for key, value in found.parameters.items() if key in ("pre_hook", "post_hook") and key not in lineage.renewal_parameters(settled or "")]
                if dropped:
                    plan.warnings.append(f"The renewal of {order['name']} does without {' and '.join(dropped)}, which made room for certbot's own server. What is still needed belongs to /etc/letsencrypt/renewal-hooks.")
        if not entry["orders"] and self._content_reasons(entry):
            plan.contents.append(name)
        if reasons:
            plan.due.append(entry)
            plan.reasons[name] = reasons
        if (self._is_right(entry) or self._is_better(entry)) and not self._is_linked(entry):
            plan.to_link.append(entry)
        elif not self._is_right(entry) and self._is_broken(entry):
            plan.broken.append(name)
        elif self._is_right(entry) and self._has_stale(entry):
            plan.stale.append(name)

    def _reasons(self, entry: Entry, order: lineage.Order) -> list[str]:
        profile = self.before.get(entry["name"], {}).get("profiles", {}).get(order["name"])
        found = lineage.plan(self.lineages[order["name"]], order, time.time(), profile)
        return [f"{order['name']}: {reason}" for reason in found] if order["name"] != entry["name"] else found

    def _content_reasons(self, entry: Entry) -> list[str]:
        if entry["issuer"] == "self_signed":
            return own_certificates.due(entry["name"], entry["domains"], time.time())
        content = self.params["contents"][entry["name"]]
        return own_certificates.differs(entry["name"], content["fullchain"], content["key"])

    def _account_for(self, order: lineage.Order) -> str | None:
        return self.account["name"] if self.account and self.account["server"] == order["server"] else None

    def _refuse_shared(self) -> None:
        scope = self.params["scope"]
        for other, part in self.manifest["scopes"].items():
            if other == scope:
                continue
            taken = {name for name, each in part["certificates"].items() if not each.get("given_up")}
            taken |= {order["name"] for name in taken for order in part["certificates"][name]["orders"]}
            for entry in self.wanted:
                if taken & {entry["name"], *(order["name"] for order in entry["orders"])}:
                    raise CertificateError(f'certbot_certificates, entry "{entry["name"]}": the scope "{other}" has a certificate of that name on this host. Choose another name.')
            for key, value in self.params["settings"].items():
                if self.others.get(other, {}).get(key, value) != value:
                    raise CertificateError(f'certbot_{key}: the scope "{other}" has set it for this host already, to something else. Set it in one of the two.')

    def _refuse_strangers(self, plan: Plan, entry: Entry) -> None:
        """See that a lineage that somebody else made, and that has a wanted name, is for what is wanted."""
        for order in entry["orders"] if entry["name"] not in self.before else []:
            certificate = lineage.read(order["name"]).certificate
            dropped = sorted(certificate.domains - set(order["domains"])) if certificate else []
            if certificate and certificate.domains.isdisjoint(order["domains"]):
                raise CertificateError(
                    f'certbot_certificates, entry "{entry["name"]}": this host\'s certbot has a certificate of that name already, for {", ".join(dropped)}. Give the entry another name.'
                )
            if dropped:
                plan.warnings.append(f"The certificate {order['name']} was on this host already, and will not be for {', '.join(dropped)} any more.")

    def _refuse_incapable(self, version: tuple[int, ...]) -> None:
        wrong = certbot.cannot([order for entry in self.wanted for order in entry["orders"]], version)
        if wrong:
            raise CertificateError("; ".join(wrong))

    def _files(self) -> list[File]:
        bundles = dict.fromkeys(filter(None, [*(each.get("ca_bundle") for each in self.others.values()), self.params["ca_bundle"]]))
        bundle = "\n".join(sorted(bundles)).encode() or None
        credentials = None if self.params["credentials"] is None else self.params["credentials"].encode()
        found = [File(path, text.encode(), mode) for path, (text, mode) in units.files().items()]
        found += [File(layout.TOOL, base64.b64decode(self.params["tool"]), 0o755), File(layout.ACME_CA_BUNDLE, bundle), File(OLD_DROP_IN, None)]
        for entry in self.wanted:
            for order in entry["orders"]:
                uses = order["challenge"]["kind"] == "dns"
                found.append(File(lineage.credentials_file(order["name"]), credentials if uses else None, 0o600, secret=True))
        return found

    def _unit_steps(self) -> list[list[str]]:
        """Return what systemd must be told, so that one timer renews, and one compares."""
        said = commands.run(["systemctl", "show", "--property=Id,LoadState,UnitFileState,ActiveState", *units.TIMERS, *units.FOREIGN_TIMERS])
        states = {}
        for block in said.out.strip().split("\n\n"):
            state = dict(line.partition("=")[::2] for line in block.splitlines())
            states[state.get("Id", "")] = state
        steps = []
        for timer in units.FOREIGN_TIMERS:
            state = states.get(timer, {})
            if state.get("LoadState") not in (None, "masked", "not-found"):
                # Stopped while systemd still knows it: one that is masked first has failed.
                steps += [["stop", "--quiet", timer], ["mask", "--quiet", timer]]
            elif state.get("ActiveState") == "failed":
                steps.append(["reset-failed", "--quiet", timer])
        for timer in units.TIMERS:
            state = states.get(timer, {})
            if (state.get("UnitFileState"), state.get("ActiveState")) != ("enabled", "active"):
                steps.append(["enable", "--now", "--quiet", timer])
        return steps

    def _environment_differs(self) -> bool:
        link = layout.CERTBOT_ENVIRONMENT
        if not self.requirements:
            return os.path.lexists(link)
        # A Python that was upgraded under it has taken its interpreter away, or its folder of packages.
        return files.read(f"{link}/requirements.txt") != self._requirements() or certbot.version(self.program) is None or not os.path.exists(f"{link}/bin/python")

    def _requirements(self) -> str:
        return "".join(f"{each}\n" for each in self.requirements)

    # ---- what nginx is told to serve

    def _is_right(self, entry: Entry) -> bool:
        """Return whether the files that nginx reads first are those of the wanted certificate."""
        return not (self._reasons(entry, entry["orders"][0]) if entry["orders"] else self._content_reasons(entry))

    def _is_better(self, entry: Entry) -> bool:
        """Return whether a certificate that is not the wanted one is better than the placeholder that nginx has."""
        if not entry["orders"] or not self._has_placeholder(entry["name"]):
            return False
        order = entry["orders"][0]
        found = self.lineages[order["name"]]
        return bool(self._is_usable(found) and found.server == order["server"] and found.certificate and not found.certificate.domains.isdisjoint(entry["domains"]))

    @staticmethod
    def _is_usable(found: lineage.Lineage) -> bool:
        return found.certificate is not None and found.key_matches and found.certificate.not_after > time.time()

    @staticmethod
    def _has_placeholder(name: str) -> bool:
        return os.path.realpath(layout.certificate_link(name)) == os.path.realpath(layout.PLACEHOLDER)

    def _is_broken(self, entry: Entry) -> bool:
        """Return whether nginx is led to what it cannot start with."""
        link = layout.certificate_link(entry["name"])
        if not os.path.islink(link) or self._has_placeholder(entry["name"]) or not os.path.exists(f"{layout.PLACEHOLDER}/{layout.CERTIFICATE_FILE}"):
            return False
        if not os.path.exists(f"{link}/{layout.CERTIFICATE_FILE}") or not os.path.exists(f"{link}/{layout.KEY_FILE}"):
            return True
        if not entry["orders"] or files.target(link) != _link_target(entry):
            return False
        second = f"{_folder(entry)}/rsa"
        if second in (files.read(f"{link}/{layout.TRANSPORT_FILE}") or "") and not all(os.path.exists(f"{second}/{file}") for file in (layout.CERTIFICATE_FILE, layout.KEY_FILE)):
            return True
        found = self.lineages[entry["orders"][0]["name"]]
        return found.certificate is None or not found.key_matches

    def _is_linked(self, entry: Entry) -> bool:
        links = [(layout.certificate_link(entry["name"]), _link_target(entry)), *self._links(entry)]
        return all(files.target(link) == target for link, target in links) and not any(file.differs() for file in self._promises(entry))

    def _second(self, entry: Entry) -> bool:
        """Return whether nginx is to serve a pair's second certificate: one that is right, or that it serves and may go on to."""
        if len(entry["orders"]) < 2:
            return False
        order = entry["orders"][1]
        found = self.lineages[order["name"]]
        is_served = files.target(f"{layout.LINEAGES}/{entry['name']}/rsa/{layout.CERTIFICATE_FILE}") == f"{lineage.LIVE}/{order['name']}/{layout.CERTIFICATE_FILE}"
        return (is_served and self._is_usable(found)) or not self._reasons(entry, order)

    def _links(self, entry: Entry) -> list[tuple[str, str]]:
        """Return the links that make a certificate's folder, each with its target."""
        sources = [(_folder(entry), _source(entry))]
        if self._second(entry):
            sources.append((f"{_folder(entry)}/rsa", f"{lineage.LIVE}/{entry['orders'][1]['name']}"))
        return [(f"{folder}/{file}", f"{source}/{file}") for folder, source in sources for file in (layout.CERTIFICATE_FILE, layout.KEY_FILE)]

    def _promises(self, entry: Entry) -> list[File]:
        """Return the files beside a certificate that say what a server block does with it, in the order in which they are written."""
        folder = _folder(entry)
        text = layout.TRANSPORT_TRUSTED if entry["trusted"] else layout.TRANSPORT_UNTRUSTED
        certificates = [f"{_source(entry)}/{layout.CERTIFICATE_FILE}"]
        if self._second(entry):
            text += layout.SECOND_CERTIFICATE.format(folder=f"{folder}/rsa")
            certificates.append(f"{lineage.LIVE}/{entry['orders'][1]['name']}/{layout.CERTIFICATE_FILE}")
        return [File(f"{folder}/{layout.TRANSPORT_FILE}", text.encode()), *(File(path, content) for path, content in stapling.wanted(folder, certificates).items())]

    # ---- what goes

    def _plan_removal(self, plan: Plan) -> None:
        gone = self.before.keys() - {entry["name"] for entry in self.wanted}
        served = {name for name in gone if self._is_served(name)}
        for name in sorted(gone):
            if name in served:
                plan.warnings.append(f"The certificate {name} is in no list any more, and nginx still serves it. It is kept until no site has it.")
            else:
                (plan.awaiting if self._awaits(name) else plan.to_remove).append(name)

    def _is_served(self, name: str) -> bool:
        """Return whether nginx serves a certificate, in a site of Portico or in one that somebody wrote."""
        if name in certificates_of(store.manifest(store.live_number())):
            return True
        return any(self._says_nginx(f"{folder}/{name}/") for folder in (layout.CERTIFICATES, layout.LINEAGES, lineage.LIVE, layout.OWN))

    def _says_nginx(self, path: str) -> bool:
        """Return whether nginx's configuration has a path in it, or may have, because it cannot be had."""
        if self._configuration is None:
            nginx = commands.find("nginx")
            done = commands.run([nginx, "-T"]) if nginx else commands.Done(0, "", "")
            self._configuration = (done.rc == 0, done.out)
        known, text = self._configuration
        return not known or path in text

    def _awaits(self, name: str) -> list[str]:
        """Return the wanted certificates for some of a certificate's names that are not there yet: until then it is not removed."""
        domains = set(self.before[name]["domains"])
        return [entry["name"] for entry in self.wanted if domains & set(entry["domains"]) and not self._is_right(entry)]

    def _keeps(self, name: str) -> bool:
        """Return whether a certificate that goes from the list stays on the host."""
        return self.params["removed"] == "kept" or self.before[name].get("adopted", False)

    def _remove(self, name: str, outcome: Outcome) -> None:
        """Remove a certificate that is in the list no more, or leave it to whoever made it."""
        if self._awaits(name):
            return
        if not self._keeps(name):
            for order in (*self.before[name]["orders"], *self.before[name].get("stale", [])):
                why = self._delete(order) if order["name"] not in self._wanted_lineages() else None
                if why:
                    outcome.failures.append(f"{name}: it could not be {self.params['removed']}: {why}")
                    return
            files.remove(layout.certificate_link(name))
            shutil.rmtree(f"{layout.LINEAGES}/{name}", ignore_errors=True)
            own_certificates.remove(name)
            outcome.removed.append(name)
        outcome.forgotten.append(name)

    def _stale(self, entry: Entry) -> list[lineage.Order]:
        """Return the lineages that a certificate was made of before, and is not any more."""
        before = self.before.get(entry["name"], {})
        wanted = self._wanted_lineages()
        return [order for order in (*before.get("orders", []), *before.get("stale", [])) if order["name"] not in wanted]

    def _wanted_lineages(self) -> set[str]:
        """Return the lineages that some certificate of this host is to be made of."""
        others = [entry for name, part in self.manifest["scopes"].items() if name != self.params["scope"] for entry in part["certificates"].values()]
        return {order["name"] for entry in (*self.wanted, *others) for order in entry["orders"]}

    def _has_stale(self, entry: Entry) -> bool:
        """Return whether something is left of what a certificate was before, that nobody else has nginx serve."""
        left = [f"{lineage.LIVE}/{order['name']}/" for order in self._stale(entry)]
        left += [f"{layout.OWN}/{entry['name']}/"] if entry["orders"] and os.path.lexists(f"{layout.OWN}/{entry['name']}") else []
        return bool(left) and not any(self._says_nginx(path) for path in left)

    def _remove_stale(self, entry: Entry, outcome: Outcome) -> None:
        """Remove what a certificate was made of before, now that nginx serves what it is made of."""
        name = entry["name"]
        for order in self._stale(entry):
            why = None if self._keeps(name) else self._delete(order)
            if why:
                outcome.failures.append(f"{name}: what it was before could not be {self.params['removed']}: {why}")
                return
        if entry["orders"]:
            own_certificates.remove(name)
            shutil.rmtree(f"{layout.LINEAGES}/{name}/own", ignore_errors=True)
        self.manifest["scopes"][self.params["scope"]]["certificates"][name]["stale"] = []
        self.before = self.manifest["scopes"][self.params["scope"]]["certificates"]
        register.save(self.manifest)

    def _delete(self, order: lineage.Order) -> str | None:
        """Delete or revoke a lineage, and what it is proved with; return why it could not be."""
        certbot.repair(order, certbot.version(self.program) or ())
        if lineage.read(order["name"]).known:
            why = certbot.Certbot(self.program).delete(order["name"], self.params["removed"] == "revoked")
            if why:
                return why
        files.remove(lineage.credentials_file(order["name"]))
        return None

    def _new_manifest(self, removed: t.Collection[str]) -> register.Manifest:
        """Return what this host's certificates are, when some were removed."""
        entries = {}
        for entry in self.wanted:
            before = self.before.get(entry["name"])
            known = any(self.lineages[order["name"]].known for order in entry["orders"])
            adopted = before.get("adopted", False) if before else known
            profiles = (before or {}).get("profiles", {})
            kept = {key: value for key, value in entry.items() if key != "name"}
            entries[entry["name"]] = {**kept, "adopted": adopted, "profiles": profiles, "stale": self._stale(entry)}
        # Another scope may take over what this one has given up, and keeps because nginx serves it.
        entries.update({name: {**entry, "given_up": True} for name, entry in self.before.items() if name not in entries and name not in removed})
        settings = dict(self.params["settings"])
        if self.params["requirements"]:
            settings.update(certbot=self.program, requirements=self.params["requirements"])
        settings.update({key: self.params[key] for key in ("ca_bundle", "email") if self.params[key]})
        manifest = register.without(self.manifest, entries)
        return register.with_part(manifest, self.params["scope"], {"certificates": entries, "settings": settings})

    # ---- acting

    def apply(self, plan: Plan) -> Outcome:
        outcome = Outcome(changed=plan.changes([]))
        # Who obtains one certificate after the other has had the rest done, or refused, by the run before.
        is_one_of_many = bool(self.obtain) and any(entry["name"] not in self.obtain for entry in plan.due)
        if plan.environment and not is_one_of_many:
            try:
                self._make_environment()
            except CertificateError as error:
                # What is there goes on.
                outcome.failures.append(f"certbot: {error}")
        self._keep_renewal(plan)
        if plan.account:
            certbot.import_account(self.account or {})
        self._mend(plan, outcome)
        if plan.manifest:
            self.manifest = self._new_manifest([])
            register.save(self.manifest)
        self._install_contents(plan, outcome)
        for name in plan.broken:
            # For its next start. What nginx has in memory is better, so that it is not told: the certificate may be had in a moment.
            _point(layout.certificate_link(name), os.path.relpath(layout.PLACEHOLDER, layout.CERTIFICATES))
        if plan.to_link or plan.unserved:
            self._serve(plan.to_link, outcome)
        for entry in plan.due:
            if entry["name"] in self.obtain:
                with _failing_alone(entry["name"], outcome):
                    self._obtain(entry, outcome)
        self._clear_away(plan, outcome, is_one_of_many)
        return outcome

    def _clear_away(self, plan: Plan, outcome: Outcome, is_one_of_many: bool) -> None:
        """Remove what is not wanted any more, now that nginx serves what is."""
        for name in (*plan.awaiting, *([] if is_one_of_many else plan.to_remove)):
            with _failing_alone(name, outcome):
                self._remove(name, outcome)
        for entry in self.wanted:
            if is_one_of_many and entry["name"] not in self.obtain:
                continue
            if self._has_stale(entry) and self._is_right(entry) and self._is_linked(entry) and not os.path.exists(UNSERVED):
                outcome.changed = True
                with _failing_alone(entry["name"], outcome):
                    self._remove_stale(entry, outcome)
        if outcome.forgotten:
            outcome.changed = True
            self.manifest = self._new_manifest(outcome.forgotten)
            register.save(self.manifest)

    def _keep_renewal(self, plan: Plan) -> None:
        for file in plan.files:
            file.write()
        if any(file.path.startswith("/etc/systemd/") for file in plan.files):
            self._systemctl("daemon-reload")
        for step in plan.units:
            self._systemctl(*step)

    def _make_environment(self) -> None:
        """Make certbot's virtual environment beside the old one, and move the link to it."""
        link = layout.CERTBOT_ENVIRONMENT
        if not self.requirements:
            files.remove(link)
        else:
            folder = f"{link}-{hashlib.sha256(f'{self._requirements()}{time.time()}'.encode()).hexdigest()[:8]}"
            os.makedirs(os.path.dirname(folder), mode=0o755, exist_ok=True)
            try:
                for argv in (["python3", "-m", "venv", folder], [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.requirements]):
                    done = commands.run(argv, seconds=SECONDS_FOR_PIP)
                    if done.rc != 0:
                        raise CertificateError(f"certbot cannot be had from PyPI: {_last_words(done)}. Nothing was changed.")
                self._refuse_incapable(certbot.version(f"{folder}/bin/certbot") or ())
                files.write(f"{folder}/requirements.txt", self._requirements())
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            files.point(link, folder)
        for each in glob.glob(f"{link}-*"):
            if each != files.target(link):
                shutil.rmtree(each, ignore_errors=True)

    def _mend(self, plan: Plan, outcome: Outcome) -> None:
        """Make lineages whole, and have them renewed as they should."""
        keeper = certbot.Certbot(self.program)
        for entry in self.wanted:
            with _failing_alone(entry["name"], outcome):
                for order in entry["orders"]:
                    if order["name"] in plan.repairs:
                        certbot.repair(order, keeper.version)
                    if order["name"] in (*plan.repairs, *plan.unsettled):
                        keeper.settle(order, self._account_for(order))
                        self.lineages[order["name"]] = lineage.read(order["name"])
                if any(order["name"] in plan.repairs for order in entry["orders"]):
                    self._judge_again(plan, entry)

    def _judge_again(self, plan: Plan, entry: Entry) -> None:
        """Say anew whether a certificate is due that was just made whole."""
        plan.due = [each for each in plan.due if each is not entry]
        plan.to_link = [each for each in plan.to_link if each is not entry]
        plan.broken = [name for name in plan.broken if name != entry["name"]]
        plan.reasons.pop(entry["name"], None)
        plan.repairs, repaired = [], plan.repairs
        self._plan_entry(plan, entry, certbot.version(self.program) or ())
        plan.repairs = repaired

    def _install_contents(self, plan: Plan, outcome: Outcome) -> None:
        for entry in self.wanted:
            name = entry["name"]
            if name not in plan.contents:
                continue
            try:
                if entry["issuer"] == "self_signed":
                    own_certificates.self_sign(name, entry["domains"])
                else:
                    content = self.params["contents"][name]
                    own_certificates.install(name, content["fullchain"], content["key"])
            except OSError as error:
                outcome.failures.append(f"{name}: {error}")
                continue
            if entry not in plan.to_link:
                plan.to_link.append(entry)

    def _serve(self, entries: list[Entry], outcome: Outcome) -> None:
        """Have nginx serve certificates that are right, or what it served before."""
        outcome.changed = True
        for folder in (layout.LINEAGES, layout.CERTIFICATES):
            os.makedirs(folder, mode=0o755, exist_ok=True)
        files.write(UNSERVED, "")
        undo = [step for entry in entries for step in self._link(entry)]
        why = serving.reload(self.holder)
        if why is None:
            files.remove(UNSERVED)
            outcome.linked += [entry["name"] for entry in entries]
            return
        # What nginx refuses now it would refuse at the next boot too, and then serve nothing.
        for step in reversed(undo):
            step()
        if len(entries) > 1:
            # One of them is to blame.
            for entry in entries:
                self._serve([entry], outcome)
            return
        outcome.failures += [f"{name}: the certificate is there, but nginx does not reload: {why}" for name in [entry["name"] for entry in entries] or ["nginx"]]

    def _link(self, entry: Entry) -> list[t.Callable[[], None]]:
        """Lead nginx to a certificate, and return the steps that put back what was there."""
        promises, link = self._promises(entry), layout.certificate_link(entry["name"])
        undo = [_restored(link), *(File(file.path, file.before()).write for file in promises)]
        for each, target in self._links(entry):
            os.makedirs(os.path.dirname(each), mode=0o755, exist_ok=True)
            undo.append(_restored(each))
            _point(each, target)
        for file in promises:
            file.write()
        # Everything behind the link is complete now: nginx, whenever it looks, finds one or the other.
        _point(link, _link_target(entry))
        return undo

    def _obtain(self, entry: Entry, outcome: Outcome) -> None:
        due = [order for order in entry["orders"] if self._reasons(entry, order)]
        why = self._preflight(entry, due)
        obtained = []
        for order in due if why is None else []:
            why = self._order(entry, order)
            if why is not None:
                break
            obtained.append(order)
        if why is not None:
            outcome.failures.append(f"{entry['name']}: {why}")
        if obtained:
            outcome.changed = True
            self._remember_profiles(entry, obtained)
        if obtained and self._is_right(entry):
            self._serve([entry], outcome)
            if why is None:
                outcome.obtained.append(entry["name"])

    def _order(self, entry: Entry, order: lineage.Order) -> str | None:
        """Let certbot obtain one lineage, once, and return why it could not."""
        keeper = certbot.Certbot(self.program, self.authority)
        if not keeper.version:
            return "certbot is not installed"
        why = keeper.obtain(order, self.lineages[order["name"]])
        if why is not None:
            return why
        # What certbot says is one thing, what now lies there is another.
        keeper.settle(order, self._account_for(order))
        self.lineages[order["name"]] = lineage.read(order["name"])
        reasons = lineage.plan(self.lineages[order["name"]], {**order, "profile": None}, time.time())
        return "; ".join(f"certbot has ended well, but {reason}" for reason in reasons) or None

    def _preflight(self, entry: Entry, orders: list[lineage.Order]) -> str | None:
        """Return why the CA would refuse, as far as it can be known from here."""
        if not self.params["preflight"] or not orders:
            return None
        directory = preflight.directory(orders[0]["server"], certbot.trusted)
        identities = directory.get("meta", {}).get("caaIdentities") or []
        by_http = orders[0]["challenge"]["kind"] == "http"
        wrong = preflight.check(entry["domains"], webroot=layout.ACME_WEBROOT, caa_identities=identities, http=by_http)
        return " ".join(wrong.values()) or None

    def _remember_profiles(self, entry: Entry, orders: list[lineage.Order]) -> None:
        """Keep which profile a lineage was obtained with, for the certbot that forgets it."""
        kept = self.manifest["scopes"][self.params["scope"]]["certificates"][entry["name"]]
        kept["profiles"] = {**kept["profiles"], **{order["name"]: order["profile"] for order in orders if order["profile"]}}
        self.before = self.manifest["scopes"][self.params["scope"]]["certificates"]
        register.save(self.manifest)

    @staticmethod
    def _systemctl(*arguments: str) -> None:
        done = commands.run(["systemctl", *arguments])
        if done.rc != 0:
            raise CertificateError(f"systemctl {' '.join(arguments)}: {_last_words(done)}")


def _united(requirements: t.Iterable[list[str]]) -> list[str]:
    """Return what the scopes of a host want of PyPI, together: of certbot the newest that one of them names."""
    wanted = {each for part in requirements for each in part}
    pins = sorted((each for each in wanted if each.startswith("certbot==")), key=lambda each: certbot.numbers(each) or ())
    if pins:
        wanted -= {"certbot", *pins[:-1]}
    return sorted(wanted)


def _folder(entry: Entry) -> str:
    """Return the folder of links to a certificate.

    Those of a CA and those of one's own have a folder each: nginx is led from one to the other in one step.
    """
    return f"{layout.LINEAGES}/{entry['name']}" + ("" if entry["orders"] else "/own")


def _source(entry: Entry) -> str:
    """Return the folder in which a certificate's files are, of a pair those of the first."""
    return f"{lineage.LIVE if entry['orders'] else layout.OWN}/{entry['name']}"


@contextlib.contextmanager
def _failing_alone(name: str, outcome: Outcome) -> t.Iterator[None]:
    """Have what goes wrong with one certificate, a disk that is full, say, keep no other from being had."""
    try:
        yield
    except OSError as error:
        outcome.failures.append(f"{name}: {error}")


def _link_target(entry: Entry) -> str:
    return os.path.relpath(_folder(entry), layout.CERTIFICATES)


def _point(link: str, target: str) -> None:
    # Not beside the link: what lies there is the name of a certificate.
    files.point(link, target, f"{layout.STATE}/.link-{os.getpid()}")


def _restored(link: str) -> t.Callable[[], None]:
    """Return the step that puts back what a symlink is now."""
    if os.path.islink(link):
        target = os.readlink(link)
        return lambda: _point(link, target)
    return lambda: files.remove(link)


def _last_words(done: commands.Done) -> str:
    lines = [line.strip() for line in f"{done.out}\n{done.err}".splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or f"it ended with {done.rc} and did not say why"


def _shown(content: bytes | None, secret: bool) -> str:
    if content is None:
        return ""
    if secret:
        return "(its content is secret)\n"
    if content.startswith(b"#!") and b"PK\x03\x04" in content:
        return f"(the tool, {hashlib.sha256(content).hexdigest()[:16]})\n"
    return content.decode(errors="replace")


def _diff(host: Host, plan: Plan) -> list[dict[str, str]]:
    found = [file.diff() for file in plan.files]
    for entry in plan.due if host.params["obtain"] else []:
        if entry["name"] not in host.params["obtain"]:
            continue
        for order in entry["orders"]:
            state = host.lineages[order["name"]]
            before = _description(sorted(state.certificate.domains), state.server) if state.certificate else ""
            found.append(_before_and_after(f"certificate {order['name']}", before, _description(sorted(order["domains"]), order["server"])))
    return found


def _before_and_after(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def _description(domains: list[str], server: str | None) -> str:
    return "".join(f"{line}\n" for line in (*domains, f"from {server}"))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "dict", "required": True},
            "contents": {"type": "str", "no_log": True},
            "obtain": {"type": "list", "elements": "str", "default": []},
            "scope": {"type": "str", "default": "main"},
            "removed": {"type": "str", "choices": ["deleted", "revoked", "kept"], "default": "deleted"},
            "settings": {"type": "dict", "default": {}},
            "packages": {"type": "list", "elements": "str", "default": []},
            "requirements": {"type": "list", "elements": "str", "default": []},
            "email": {"type": "str"},
            # Texts, because Ansible would strike each single value of a dict from the answer, the name of a certificate too.
            "eab": {"type": "str", "no_log": True},
            "account": {"type": "str", "no_log": True},
            "ca_bundle": {"type": "str"},
            "credentials": {"type": "str", "no_log": True},
            "preflight": {"type": "bool", "default": True},
            "tool": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    missing = packages.missing(module, module.params["packages"])
    secret = {key: json.loads(module.params[key] or "{}") or None for key in ("contents", "eab", "account")}
    host = Host({**module.params, **secret})
    try:
        if "certbot" in missing:
            host._refuse_incapable(packages.candidate(module, "certbot") or (99,))
        if missing and not module.check_mode:
            module.exit_json(changed=False, missing=missing)
        plan = host.plan()
        diff = _diff(host, plan)
        if module.check_mode:
            outcome = Outcome(changed=plan.changes(module.params["obtain"]), linked=[entry["name"] for entry in plan.to_link], removed=[name for name in plan.to_remove if not host._keeps(name)])
        else:
            outcome = host.apply(plan)
    except CertificateError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The host could not do it, and what was served is served: {error}")
    module.exit_json(
        changed=outcome.changed,
        missing=missing,
        due=[entry["name"] for entry in plan.due if entry["name"] not in outcome.obtained],
        reasons=plan.reasons,
        obtained=outcome.obtained,
        linked=outcome.linked,
        removed=outcome.removed,
        files=[file.path for file in plan.files],
        failures=outcome.failures,
        warnings=plan.warnings,
        diff=diff,
    )


if __name__ == "__main__":
    main()
