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
options:
  certificates:
    description: The certificates that the scope should have, each with C(name), C(domains), C(issuer), C(trusted) and C(orders).
    type: list
    elements: dict
    required: true
  contents:
    description: The C(fullchain) and the C(key) of certificates that somebody brings, by name.
    type: dict
    default: {}
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
    description: The external account binding, C(kid) and C(hmac_key).
    type: dict
  account:
    description: An account to use, as M(portico.web.certbot_account) exports it.
    type: dict
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
import hashlib
import os
import shutil
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import certbot, commands, files, layout, lineage, own_certificates, packages, preflight, register, serving, store, units
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
    manifest: bool = False
    warnings: list[str] = field(default_factory=list)

    def changes(self, obtain: list[str]) -> bool:
        """Return whether carrying it out changes anything."""
        found = (self.files, self.units, self.repairs, self.unsettled, self.contents, self.to_link, self.broken, self.to_remove)
        return any(found) or self.environment or self.account or self.unserved or self.manifest or any(entry["name"] in obtain for entry in self.due)


@dataclass
class Outcome:
    """What was done about it, and what could not be."""

    changed: bool = False
    obtained: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Host:
    """The certificates of this host, and what their renewal needs."""

    def __init__(self, params: t.Mapping[str, t.Any], holder: str = "certificates") -> None:
        self.params = params
        self.holder = holder
        self.wanted: list[Entry] = params["certificates"]
        self.obtain: list[str] = params["obtain"]
        self.account: t.Mapping[str, t.Any] | None = params["account"]
        self.manifest = register.load()
        self.before: dict[str, Entry] = self.manifest["scopes"].get(params["scope"], {"certificates": {}})["certificates"]
        self.program = certbot.program(bool(params["requirements"]))
        self.lineages: dict[str, lineage.Lineage] = {}

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
        for entry in self.wanted:
            self._plan_entry(plan, entry, version or (99,))
        self._plan_removal(plan)
        plan.manifest = register.text(self._new_manifest(plan)) != files.read(register.path())
        return plan

    def _plan_entry(self, plan: Plan, entry: Entry, version: tuple[int, ...]) -> None:
        name, reasons = entry["name"], []
        for order in entry["orders"]:
            if certbot.needs_repair(order["name"]):
                plan.repairs.append(order["name"])
            found = self.lineages[order["name"]] = lineage.read(order["name"])
            reasons += self._reasons(entry, order)
            if found.known and lineage.settled_configuration(found, order, version, self._account_for(order)) != found.configuration:
                plan.unsettled.append(order["name"])
        if not entry["orders"] and self._content_reasons(entry):
            plan.contents.append(name)
        if reasons:
            plan.due.append(entry)
            plan.reasons[name] = reasons
        if self._is_right(entry) and not self._is_linked(entry):
            plan.to_link.append(entry)
        elif not self._is_right(entry) and self._is_broken(name):
            plan.broken.append(name)

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
            for entry in self.wanted:
                if entry["name"] in part["certificates"]:
                    raise CertificateError(f'certbot_certificates, entry "{entry["name"]}": the scope "{other}" has a certificate of that name on this host. Choose another name.')
            for key, value in self.params["settings"].items():
                if part["settings"].get(key, value) != value:
                    raise CertificateError(f'certbot_{key}: the scope "{other}" has set it for this host already, to something else. Set it in one of the two.')

    def _refuse_incapable(self, version: tuple[int, ...]) -> None:
        wrong = certbot.cannot([order for entry in self.wanted for order in entry["orders"]], version)
        if wrong:
            raise CertificateError("; ".join(wrong))

    def _files(self) -> list[File]:
        bundle, credentials = (None if text is None else text.encode() for text in (self.params["ca_bundle"], self.params["credentials"]))
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
        if not self.params["requirements"]:
            return os.path.lexists(link)
        # A Python that was upgraded under it has taken its interpreter away, or its folder of packages.
        return files.read(f"{link}/requirements.txt") != self._requirements() or certbot.version(self.program) is None or not os.path.exists(f"{link}/bin/python")

    def _requirements(self) -> str:
        return "".join(f"{each}\n" for each in self.params["requirements"])

    # ---- what nginx is told to serve

    def _is_right(self, entry: Entry) -> bool:
        """Return whether the files that nginx reads first are those of the wanted certificate."""
        return not (self._reasons(entry, entry["orders"][0]) if entry["orders"] else self._content_reasons(entry))

    def _is_broken(self, name: str) -> bool:
        link = layout.certificate_link(name)
        return os.path.islink(link) and not os.path.exists(f"{link}/{layout.CERTIFICATE_FILE}") and os.path.exists(f"{layout.PLACEHOLDER}/{layout.CERTIFICATE_FILE}")

    def _is_linked(self, entry: Entry) -> bool:
        links = [(layout.certificate_link(entry["name"]), _link_target(entry["name"])), *self._links(entry)]
        return all(files.target(link) == target for link, target in links) and not self._transport(entry).differs()

    def _second(self, entry: Entry) -> bool:
        """Return whether a pair's second certificate is right."""
        return len(entry["orders"]) > 1 and not self._reasons(entry, entry["orders"][1])

    def _links(self, entry: Entry) -> list[tuple[str, str]]:
        """Return the links that make a certificate's folder, each with its target."""
        name = entry["name"]
        sources = [("", f"{lineage.LIVE}/{name}" if entry["orders"] else f"{layout.OWN}/{name}")]
        if self._second(entry):
            sources.append(("/rsa", f"{lineage.LIVE}/{entry['orders'][1]['name']}"))
        return [(f"{layout.LINEAGES}/{name}{below}/{file}", f"{source}/{file}") for below, source in sources for file in (layout.CERTIFICATE_FILE, layout.KEY_FILE)]

    def _transport(self, entry: Entry) -> File:
        text = layout.TRANSPORT_TRUSTED if entry["trusted"] else layout.TRANSPORT_UNTRUSTED
        if self._second(entry):
            text += layout.SECOND_CERTIFICATE.format(folder=f"{layout.LINEAGES}/{entry['name']}/rsa")
        return File(f"{layout.LINEAGES}/{entry['name']}/{layout.TRANSPORT_FILE}", text.encode())

    # ---- what goes

    def _plan_removal(self, plan: Plan) -> None:
        wanted = {entry["name"] for entry in self.wanted}
        served = set(certificates_of(store.manifest(store.live_number())))
        for name in self.before.keys() - wanted:
            if name in served:
                plan.warnings.append(f"The certificate {name} is in no list any more, and nginx still serves it. It is kept until no site has it.")
            else:
                plan.to_remove.append(name)
        plan.to_remove.sort()

    def _keeps(self, name: str) -> bool:
        """Return whether a certificate that goes from the list stays on the host."""
        return self.params["removed"] == "kept" or self.before[name].get("adopted", False)

    def _remove(self, name: str, outcome: Outcome) -> None:
        if self._keeps(name):
            return
        for order in self.before[name]["orders"]:
            why = certbot.Certbot(self.program).delete(order["name"], self.params["removed"] == "revoked") if lineage.read(order["name"]).known else None
            if why:
                outcome.failures.append(f"{name}: it could not be {self.params['removed']}: {why}")
                return
            files.remove(lineage.credentials_file(order["name"]))
        files.remove(layout.certificate_link(name))
        shutil.rmtree(f"{layout.LINEAGES}/{name}", ignore_errors=True)
        own_certificates.remove(name)
        outcome.removed.append(name)

    def _new_manifest(self, plan: Plan, failed: t.Collection[str] = ()) -> register.Manifest:
        """Return what this host's certificates are, when the plan is carried out."""
        entries = {}
        for entry in self.wanted:
            before = self.before.get(entry["name"])
            known = any(self.lineages[order["name"]].known for order in entry["orders"])
            adopted = before.get("adopted", False) if before else known
            profiles = (before or {}).get("profiles", {})
            entries[entry["name"]] = {**{key: value for key, value in entry.items() if key != "name"}, "adopted": adopted, "profiles": profiles}
        gone = set(plan.to_remove) - set(failed)
        entries.update({name: entry for name, entry in self.before.items() if name not in entries and name not in gone})
        settings = {**self.params["settings"], **({"certbot": self.program} if self.params["requirements"] else {})}
        return register.with_part(self.manifest, self.params["scope"], {"certificates": entries, "settings": settings})

    # ---- acting

    def apply(self, plan: Plan) -> Outcome:
        outcome = Outcome(changed=plan.changes([]))
        if plan.environment:
            self._make_environment()
        self._keep_renewal(plan)
        if plan.account:
            certbot.import_account(self.account or {})
        self._mend(plan)
        for name in plan.to_remove:
            self._remove(name, outcome)
        failed = [line.partition(":")[0] for line in outcome.failures]
        if plan.manifest:
            self.manifest = self._new_manifest(plan, failed)
            register.save(self.manifest)
        self._install_contents(plan, outcome)
        for name in plan.broken:
            # For its next start. What nginx has in memory is better, so that it is not told: the certificate may be had in a moment.
            _point(layout.certificate_link(name), os.path.relpath(layout.PLACEHOLDER, layout.CERTIFICATES))
        if plan.to_link or plan.unserved:
            self._serve(plan.to_link, outcome)
        for entry in plan.due:
            if entry["name"] in self.obtain:
                try:
                    self._obtain(entry, outcome)
                except OSError as error:
                    # A disk that is full, say. It keeps one certificate from being had, and not the play from going on.
                    outcome.failures.append(f"{entry['name']}: {error}")
        return outcome

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
        old = files.target(link)
        if not self.params["requirements"]:
            files.remove(link)
        else:
            folder = f"{link}-{hashlib.sha256(f'{self._requirements()}{time.time()}'.encode()).hexdigest()[:8]}"
            os.makedirs(os.path.dirname(folder), mode=0o755, exist_ok=True)
            try:
                for argv in (["python3", "-m", "venv", folder], [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.params["requirements"]]):
                    done = commands.run(argv, seconds=SECONDS_FOR_PIP)
                    if done.rc != 0:
                        raise CertificateError(f"certbot cannot be had from PyPI: {_last_words(done)}. Nothing was changed.")
                files.write(f"{folder}/requirements.txt", self._requirements())
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            files.point(link, folder)
            self._refuse_incapable(certbot.version(self.program) or ())
        if old:
            shutil.rmtree(old, ignore_errors=True)

    def _mend(self, plan: Plan) -> None:
        """Make lineages whole, and have them renewed as they should."""
        keeper = certbot.Certbot(self.program)
        for entry in self.wanted:
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
        outcome.failures += [f"{name}: the certificate is there, but nginx does not reload: {why}" for name in [entry["name"] for entry in entries] or ["nginx"]]

    def _link(self, entry: Entry) -> list[t.Callable[[], None]]:
        """Lead nginx to a certificate, and return the steps that put back what was there."""
        transport, link = self._transport(entry), layout.certificate_link(entry["name"])
        undo = [_restored(link), File(transport.path, transport.before()).write]
        for each, target in self._links(entry):
            os.makedirs(os.path.dirname(each), mode=0o755, exist_ok=True)
            _point(each, target)
        transport.write()
        # Everything behind the link is complete now: nginx, whenever it looks, finds one or the other.
        _point(link, _link_target(entry["name"]))
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


def _link_target(name: str) -> str:
    return os.path.relpath(f"{layout.LINEAGES}/{name}", layout.CERTIFICATES)


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
            "contents": {"type": "dict", "default": {}, "no_log": True},
            "obtain": {"type": "list", "elements": "str", "default": []},
            "scope": {"type": "str", "default": "main"},
            "removed": {"type": "str", "choices": ["deleted", "revoked", "kept"], "default": "deleted"},
            "settings": {"type": "dict", "default": {}},
            "packages": {"type": "list", "elements": "str", "default": []},
            "requirements": {"type": "list", "elements": "str", "default": []},
            "email": {"type": "str"},
            "eab": {"type": "dict", "no_log": True},
            "account": {"type": "dict", "no_log": True},
            "ca_bundle": {"type": "str"},
            "credentials": {"type": "str", "no_log": True},
            "preflight": {"type": "bool", "default": True},
            "tool": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    missing = packages.missing(module, module.params["packages"])
    host = Host(module.params)
    try:
        if "certbot" in missing:
            host._refuse_incapable(packages.candidate(module, "certbot") or (99,))
        if missing and not module.check_mode:
            module.exit_json(changed=False, missing=missing)
        plan = host.plan()
        diff = _diff(host, plan)
        if module.check_mode:
            outcome = Outcome(changed=plan.changes(module.params["obtain"]), linked=[entry["name"] for entry in plan.to_link], removed=plan.to_remove)
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
