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
  - It reads the lineages with openssl, keeps the files and the timer that renewal needs, obtains what is missing or
    different, points the symlinks through which nginx reads certificates at the lineages, and reloads nginx.
options:
  certificates:
    description: The lineages that the host should have.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The lineage's name.
        type: str
        required: true
      domains:
        description: The host names that it is valid for.
        type: list
        elements: str
        required: true
  server:
    description: The URL of the CA's directory.
    type: str
    required: true
  trusted:
    description: Whether visitors trust the CA, so that something permanent may be promised to them.
    type: bool
    required: true
  email:
    description: Where the CA writes to.
    type: str
  ca_bundle:
    description: The text of the PEM bundle that verifies the CA's own server. If not given, the host's own does.
    type: str
  obtain:
    description: Whether to obtain what is missing or different, or only to report it.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Says what would be done, and neither changes anything nor asks the CA.
  diff_mode:
    support: full
    description: A diff for each file and each certificate that would change.
  idempotence:
    support: full
    description: What is right is not touched.
seealso:
  - module: portico.web.certbot_certificate
"""

EXAMPLES = r"""
- name: Ask whether a lineage is what it should be
  portico.web.certbot_lineage:
    certificates:
      - name: shop
        domains: [shop.example.com]
    server: https://acme-v02.api.letsencrypt.org/directory
    trusted: true
    obtain: false
  check_mode: true
"""

RETURN = r"""
due:
  description: The certificates that were missing or different, in the form of O(certificates).
  returned: success
  type: list
  elements: dict
reasons:
  description: Why each of RV(due) was due.
  returned: success
  type: dict
obtained:
  description: The names of the certificates that were obtained.
  returned: success
  type: list
  elements: str
linked:
  description: The names of the certificates that nginx is now told to serve, and was not before.
  returned: success
  type: list
  elements: str
files:
  description: The files for renewal that were written or removed.
  returned: success
  type: list
  elements: str
failures:
  description: What went wrong, a line for each certificate, beginning with its name.
  returned: success
  type: list
  elements: str
"""

import contextlib
import os
import time
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import files, layout, lineage

HOOK = lineage.LETSENCRYPT + "/renewal-hooks/deploy/portico"
DROP_IN = "/etc/systemd/system/certbot.service.d/portico.conf"
TIMER = "certbot.timer"
UNSERVED = layout.STATE + "/certificates-unserved"
"""There while nginx may not have read what it is told to serve: a reload that failed is made up for by the next run."""
LOG = "/var/log/letsencrypt/letsencrypt.log"

SECONDS_FOR_AN_ORDER = 300
SECONDS_FOR_ANOTHER_CERTBOT = 120
SECONDS_BETWEEN_TRIES = 3

# nginx tests the configuration in the signalling process too, but says why only to its own log.
HOOK_TEXT = """\
#!/bin/sh
# certbot runs this after a renewal: nginx reads certificates only when it starts or reloads.
set -eu
if systemctl --quiet is-active nginx.service; then
    nginx -t -q
    systemctl reload nginx.service
fi
"""
DROP_IN_TEXT = f"""\
# The renewals must verify the CA's server with the same bundle as the first order did.
[Service]
Environment=REQUESTS_CA_BUNDLE={layout.ACME_CA_BUNDLE}
"""

Entry = dict[str, t.Any]


@dataclass(frozen=True)
class File:
    """A file as it should be; without a text it should not be there."""

    path: str
    text: str | None
    mode: int = 0o644

    def before(self) -> str | None:
        """Return the text that is there."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def differs(self) -> bool:
        before = self.before()
        return before != self.text or (before is not None and os.stat(self.path).st_mode & 0o7777 != self.mode)

    def write(self) -> None:
        """Write or remove it; whoever reads it meanwhile has the old one or the new one."""
        if self.text is None:
            os.remove(self.path)
            return
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        new = f"{self.path}.portico-new"
        with open(new, "w", encoding="utf-8") as file:
            file.write(self.text)
        os.chmod(new, self.mode)
        os.replace(new, self.path)


@dataclass
class Plan:
    """What differs from what is wanted."""

    files: list[File] = field(default_factory=list)
    timer: bool = False
    due: list[Entry] = field(default_factory=list)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    to_link: list[str] = field(default_factory=list)
    """Lineages that are right, and that nginx is not told to serve yet."""
    unserved: bool = False
    """Whether an earlier run could not have nginx read what it is told to serve."""

    def changes(self, obtain: bool) -> bool:
        """Return whether carrying it out changes anything."""
        return bool(self.files or self.timer or self.to_link or self.unserved or (self.due and obtain))


@dataclass
class Outcome:
    """What was done about it, and what could not be."""

    changed: bool = False
    obtained: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Host:
    """The certificates of this host, and what their renewal needs."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted: list[Entry] = module.params["certificates"]
        self.server: str = module.params["server"]
        self.bundle: str | None = module.params["ca_bundle"]
        self.transport = layout.TRANSPORT_TRUSTED if module.params["trusted"] else layout.TRANSPORT_UNTRUSTED
        self.lineages: dict[str, lineage.Lineage] = {}

    # ---- reading and deciding

    def read(self) -> None:
        openssl = self.module.get_bin_path("openssl")
        self.lineages = {each["name"]: lineage.read(each["name"], self._run, openssl) for each in self.wanted}

    def plan(self) -> Plan:
        plan = Plan(files=[file for file in self._files() if file.differs()], timer=not self._timer_runs(), unserved=os.path.exists(UNSERVED))
        for each in self.wanted:
            reasons = self._reasons(each)
            if reasons:
                plan.due.append(each)
                plan.reasons[each["name"]] = reasons
            elif not self._is_linked(each["name"]):
                plan.to_link.append(each["name"])
        return plan

    def _reasons(self, wanted: Entry) -> list[str]:
        return lineage.plan(self.lineages[wanted["name"]], frozenset(wanted["domains"]), self.server, time.time())

    def _files(self) -> list[File]:
        return [
            File(layout.ACME_CA_BUNDLE, self.bundle),
            File(DROP_IN, DROP_IN_TEXT if self.bundle else None),
            File(HOOK, HOOK_TEXT, 0o755),
        ]

    def _timer_runs(self) -> bool:
        _rc, out, _err = self._systemctl("show", TIMER, "--property=UnitFileState,ActiveState")
        return {"UnitFileState=enabled", "ActiveState=active"} <= set(out.splitlines())

    def _is_linked(self, name: str) -> bool:
        links = [(layout.certificate_link(name), _link_target(name)), *_lineage_links(name)]
        return all(_leads_to(*each) for each in links) and not self._transport(name).differs()

    def _transport(self, name: str) -> File:
        return File(f"{layout.LINEAGES}/{name}/{layout.TRANSPORT_FILE}", self.transport)

    # ---- acting

    def apply(self, plan: Plan, obtain: bool) -> Outcome:
        outcome = Outcome(changed=bool(plan.files or plan.timer))
        self._keep_renewal(plan)
        if plan.to_link or plan.unserved:
            self._serve(plan.to_link, outcome)
        for each in plan.due if obtain else []:
            try:
                self._obtain(each, outcome)
            except OSError as error:
                # A disk that is full, say. It keeps one certificate from being had, and not the play from going on.
                outcome.failures.append(f"{each['name']}: {error}")
        return outcome

    def _keep_renewal(self, plan: Plan) -> None:
        for file in plan.files:
            file.write()
        if any(file.path == DROP_IN for file in plan.files):
            self._systemctl("daemon-reload", check=True)
        if plan.timer:
            self._systemctl("enable", "--now", TIMER, check=True)

    def _serve(self, names: list[str], outcome: Outcome) -> None:
        """Have nginx serve lineages that are right, or what it served before."""
        outcome.changed = True
        for folder in (layout.LINEAGES, layout.CERTIFICATES):
            os.makedirs(folder, mode=0o755, exist_ok=True)
        _touch(UNSERVED)
        undo = [step for name in names for step in self._link(name)]
        why = self._reload_nginx()
        if why is None:
            os.remove(UNSERVED)
            outcome.linked += names
            return
        # What nginx refuses now it would refuse at the next boot too, and then serve nothing.
        for step in reversed(undo):
            step()
        outcome.failures += [f"{name}: the certificate is there, but nginx does not reload: {why}" for name in names or ["nginx"]]

    def _link(self, name: str) -> list[t.Callable[[], None]]:
        """Lead nginx to a lineage, and return the steps that put back what was there."""
        transport, link = self._transport(name), layout.certificate_link(name)
        undo = [_restored(link), File(transport.path, transport.before()).write]
        os.makedirs(f"{layout.LINEAGES}/{name}", mode=0o755, exist_ok=True)
        for each, target in _lineage_links(name):
            _point(each, target)
        transport.write()
        # Everything behind the link is complete now: nginx, whenever it looks, finds one or the other.
        _point(link, _link_target(name))
        return undo

    def _reload_nginx(self) -> str | None:
        """Reload nginx where it runs, and return why it did not. Where it does not run it needs no telling."""
        if self._systemctl("is-active", "nginx.service")[0] != 0:
            return None
        rc, _out, err = self._run([self.module.get_bin_path("nginx", required=True, opt_dirs=["/usr/sbin"]), "-t", "-q"])
        if rc == 0:
            rc, _out, err = self._systemctl("reload", "nginx.service")
        return None if rc == 0 else "; ".join(err.strip().splitlines()) or "it did not say why"

    def _obtain(self, wanted: Entry, outcome: Outcome) -> None:
        name = wanted["name"]
        why = self._order(wanted)
        if why is None:
            # What certbot says is one thing, what now lies there is another.
            self.lineages[name] = lineage.read(name, self._run, self.module.get_bin_path("openssl", required=True))
            why = "; ".join(f"certbot has ended well, but {reason}" for reason in self._reasons(wanted)) or None
        if why is not None:
            outcome.failures.append(f"{name}: {why}")
            return
        outcome.obtained.append(name)
        self._serve([name], outcome)

    def _order(self, wanted: Entry) -> str | None:
        """Let certbot obtain one certificate, once, and return why it could not."""
        os.makedirs(layout.ACME_WEBROOT, mode=0o755, exist_ok=True)
        known = self.lineages[wanted["name"]].known
        certbot = self.module.get_bin_path("certbot", required=True)
        command = lineage.command(certbot, wanted["name"], wanted["domains"], self.server, self.module.params["email"], known)
        bound = ["timeout", "--kill-after=10", str(SECONDS_FOR_AN_ORDER)]
        environment = {"REQUESTS_CA_BUNDLE": layout.ACME_CA_BUNDLE} if self.bundle else {}
        deadline = time.monotonic() + SECONDS_FOR_ANOTHER_CERTBOT
        while True:
            log = files.LogFromNow(LOG)
            rc, out, err = self.module.run_command([*bound, *command], environ_update=environment)
            # The timer may be renewing just now. Nothing was asked of the CA yet, so that waiting is no second try.
            if rc == 0 or not lineage.is_locked(out + err) or time.monotonic() > deadline:
                break
            time.sleep(SECONDS_BETWEEN_TRIES)  # certbot only tries its lock, and has no way to wait for it
        if rc == 0:
            return None
        if rc in (124, 137):
            return f"certbot was stopped, for it had not ended after {SECONDS_FOR_AN_ORDER} seconds"
        return lineage.words_of_failure(f"{out}\n{err}", log.read(), self.server)

    def _run(self, argv: list[str]) -> tuple[int, str, str]:
        return self.module.run_command(argv)

    def _systemctl(self, *arguments: str, check: bool = False) -> tuple[int, str, str]:
        return self.module.run_command([self.module.get_bin_path("systemctl", required=True), *arguments], check_rc=check)


def _link_target(name: str) -> str:
    return os.path.relpath(f"{layout.LINEAGES}/{name}", layout.CERTIFICATES)


def _lineage_links(name: str) -> list[tuple[str, str]]:
    """Return the links that make a lineage's folder, each with its target."""
    return [(f"{layout.LINEAGES}/{name}/{file}", f"{lineage.LIVE}/{name}/{file}") for file in (layout.CERTIFICATE_FILE, layout.KEY_FILE)]


def _leads_to(link: str, target: str) -> bool:
    return os.path.islink(link) and os.readlink(link) == target


def _point(link: str, target: str) -> None:
    # Not beside the link: what lies there is the name of a certificate.
    files.point(link, target, f"{layout.STATE}/.link-{os.getpid()}")


def _restored(link: str) -> t.Callable[[], None]:
    """Return the step that puts back what a symlink is now."""
    if os.path.islink(link):
        target = os.readlink(link)
        return lambda: _point(link, target)
    return lambda: os.remove(link)


def _touch(path: str) -> None:
    with open(path, "a", encoding="utf-8"):
        pass


def _diff(host: Host, plan: Plan, obtain: bool) -> list[dict[str, str]]:
    found = [_before_and_after(file.path, file.before() or "", file.text or "") for file in plan.files]
    for each in plan.due if obtain else []:
        state = host.lineages[each["name"]]
        before = _description(sorted(state.certificate.domains), state.server) if state.certificate else ""
        found.append(_before_and_after(f"certificate {each['name']}", before, _description(sorted(each["domains"]), host.server)))
    return found


def _before_and_after(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def _description(domains: list[str], server: str | None) -> str:
    return "".join(f"{line}\n" for line in (*domains, f"from {server}"))


def main() -> None:
    entry = {"name": {"type": "str", "required": True}, "domains": {"type": "list", "elements": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "dict", "required": True, "options": entry},
            "server": {"type": "str", "required": True},
            "trusted": {"type": "bool", "required": True},
            "email": {"type": "str"},
            "ca_bundle": {"type": "str"},
            "obtain": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    obtain = module.params["obtain"]
    host = Host(module)
    host.read()
    plan = host.plan()
    diff = _diff(host, plan, obtain)
    if module.check_mode:
        outcome = Outcome(changed=plan.changes(obtain), linked=plan.to_link)
    else:
        outcome = host.apply(plan, obtain)
    module.exit_json(
        changed=outcome.changed,
        due=plan.due,
        reasons=plan.reasons,
        obtained=outcome.obtained,
        linked=outcome.linked,
        files=[file.path for file in plan.files],
        failures=outcome.failures,
        diff=diff,
    )


if __name__ == "__main__":
    main()
