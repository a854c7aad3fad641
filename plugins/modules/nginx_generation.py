#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_generation
short_description: Read and replace nginx's configuration as a whole
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - The half of M(portico.web.nginx_publish) that runs on the host. It takes text, and knows nothing of sites.
  - A configuration is a directory that is never edited, a I(generation). A symlink names the live one, so that any
    number of files change at once.
  - The packaged C(nginx.conf) is kept as C(nginx.conf.distrib), by a diversion that dpkg knows of.
options:
  state:
    description:
      - V(asked) reads what the host has and serves.
      - V(published) makes O(files) the live configuration, if it is not, and starts nginx if it does not run.
    type: str
    choices: [asked, published]
    default: asked
  files:
    description: With O(state=published), the whole configuration, path inside the generation to text.
    type: dict
    default: {}
  certificates:
    description:
      - With O(state=published), the names of the certificates that the configuration refers to.
      - Those that are not there yet are made to lead to a self-signed placeholder.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: nginx tests the new configuration in a temporary directory, which is removed.
  diff_mode:
    support: none
    description: M(portico.web.nginx_publish) knows both texts, and shows the diff.
  idempotence:
    support: full
    description: What is live already is not published again.
seealso:
  - module: portico.web.nginx_publish
"""

EXAMPLES = r"""
- name: Ask what the host serves
  portico.web.nginx_generation:
  register: nginx
"""

RETURN = r"""
installed:
  description: Whether the host has nginx.
  returned: success
  type: bool
version:
  description: nginx's version.
  returned: success
  type: list
  elements: int
  sample: [1, 26, 3]
openssl:
  description: The version of the OpenSSL that nginx runs with.
  returned: success
  type: list
  elements: int
  sample: [3, 5, 1]
ipv6:
  description: Whether the host's kernel has IPv6.
  returned: success
  type: bool
generation:
  description: The number of the live generation; 0 where there is none.
  returned: success
  type: int
files:
  description: The live generation's files and the digests of their texts.
  returned: success
  type: dict
texts:
  description: The live generation's files and their texts, in diff mode.
  returned: diff mode
  type: dict
certificates:
  description: The names of the certificates that the host has, placeholders included.
  returned: success
  type: list
  elements: str
entered:
  description: Whether nginx reads the live generation.
  returned: success
  type: bool
default_site:
  description: Whether the distribution's default site, as it was packaged, is switched on.
  returned: success
  type: bool
active:
  description: Whether nginx runs.
  returned: success
  type: bool
enabled:
  description: Whether nginx starts with the host.
  returned: success
  type: bool
tested:
  description: Whether nginx has tested the new configuration.
  returned: state is published and something differed
  type: bool
"""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.module_utils.generation import differences, digest

LIVE = layout.NGINX + "/live"
GENERATIONS = layout.NGINX + "/generations"
ETC = "/etc/nginx"
MAIN = ETC + "/nginx.conf"
PACKAGED = MAIN + ".distrib"
ENTRANCE = ETC + "/portico"
DEFAULT_SITE = ETC + "/sites-enabled/default"
DEFAULT_SITE_FILE = ETC + "/sites-available/default"
GENERATIONS_KEPT = 5


class GenerationError(Exception):
    """What went wrong, in words for the person."""


class Nginx:
    """nginx on this host, and its configuration."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.binary = module.get_bin_path("nginx", opt_dirs=["/usr/sbin"])
        self.undo: list[t.Callable[[], None]] = []

    def read(self) -> dict[str, t.Any]:
        version, openssl = self._versions()
        return {
            "installed": self.binary is not None,
            "version": version,
            "openssl": openssl,
            "ipv6": _has_ipv6(),
            "generation": _live_number(),
            "files": {path: digest(text) for path, text in self.texts().items()},
            "certificates": _certificates(),
            "entered": _leads_to(MAIN, "portico/nginx.conf") and _leads_to(ENTRANCE, LIVE),
            "default_site": self._has_pristine_default_site(),
            "active": self._systemctl("is-active", "--quiet") == 0,
            "enabled": self._systemctl("is-enabled", "--quiet") == 0,
        }

    def texts(self) -> dict[str, str]:
        """Return path -> text of the live generation."""
        found = {}
        for folder, _folders, names in os.walk(LIVE):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8", errors="replace") as file:
                    found[os.path.relpath(path, LIVE)] = file.read()
        return found

    def test(self, files: dict[str, str], certificates: list[str]) -> None:
        """Let nginx test a configuration as it will be live, strangers' files and relative includes resolving alike.

        nginx takes relative paths from the folder of the file that C(-c) names. So that folder is made to look
        like /etc/nginx after the change, out of links, and is removed again.

        :raises GenerationError: in nginx's own words.
        """
        with tempfile.TemporaryDirectory(prefix="portico-test-") as stage:
            for name in os.listdir(ETC):
                if name not in ("nginx.conf", "portico", "sites-enabled"):
                    os.symlink(f"{ETC}/{name}", f"{stage}/{name}")
            self._stage_enabled_sites(stage)
            _write_tree(f"{stage}/portico", files)
            os.symlink("portico/nginx.conf", f"{stage}/nginx.conf")
            self._stage_certificates(stage, certificates)
            rc, _out, err = self.module.run_command([self.binary, "-t", "-q", "-c", f"{stage}/nginx.conf"])
        if rc != 0:
            words = _relevant(err.replace(f"{stage}/portico/", "").replace(f"{stage}/", f"{ETC}/"))
            raise GenerationError(f"nginx refuses the new configuration, so nothing was changed: {words}")

    def publish(self, files: dict[str, str], certificates: list[str], state: dict[str, t.Any]) -> int:
        """Make a tested configuration the live one; on any failure put everything back.

        :returns: the number of the live generation.
        """
        self.make_certificates(certificates)
        number = state["generation"]
        try:
            if state["files"] != {path: digest(text) for path, text in files.items()}:
                number = self._new_generation(files)
                self._swap(f"generations/{number}")
            if not state["entered"]:
                self._enter()
            if state["default_site"]:
                self._switch_off_default_site()
            self._serve(state)
        except Exception:
            for step in reversed(self.undo):
                step()
            if state["active"]:
                self._systemctl("reload")
            raise
        self._prune(number)
        return number

    def make_certificates(self, names: list[str]) -> None:
        """Make sure that every certificate that nginx is told of exists, if only as the placeholder."""
        os.makedirs(layout.CERTIFICATES, mode=0o755, exist_ok=True)
        os.makedirs(layout.ACME_WEBROOT, mode=0o755, exist_ok=True)
        if not os.path.isdir(layout.PLACEHOLDER):
            self._make_placeholder(layout.PLACEHOLDER)
        for name in set(names) - set(_certificates()):
            _point(layout.certificate_link(name), os.path.relpath(layout.PLACEHOLDER, layout.CERTIFICATES))

    def _make_placeholder(self, folder: str) -> None:
        """Make a self-signed certificate that says by its name that it is none. It appears whole or not at all."""
        openssl = self.module.get_bin_path("openssl", required=True)
        new = tempfile.mkdtemp(dir=os.path.dirname(folder), prefix=".placeholder-")
        key = f"{new}/{layout.KEY_FILE}"
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "3650", "-subj", "/CN=placeholder.invalid", "-keyout", key, "-out", f"{new}/{layout.CERTIFICATE_FILE}"]
        self.module.run_command(command, check_rc=True, umask=0o077)
        _write(f"{new}/{layout.TRANSPORT_FILE}", layout.TRANSPORT_UNTRUSTED)
        os.chmod(new, 0o755)
        os.rename(new, folder)

    def _stage_enabled_sites(self, stage: str) -> None:
        pristine = self._has_pristine_default_site()
        os.mkdir(f"{stage}/sites-enabled")
        for name in os.listdir(f"{ETC}/sites-enabled") if os.path.isdir(f"{ETC}/sites-enabled") else []:
            if not (pristine and name == "default"):
                os.symlink(f"{ETC}/sites-enabled/{name}", f"{stage}/sites-enabled/{name}")

    def _stage_certificates(self, stage: str, names: list[str]) -> None:
        """Give the tested tree the certificates that are there, and a passing placeholder for the others."""
        folder = f"{stage}/portico/certificates"
        os.remove(folder)
        os.mkdir(folder)
        placeholder = layout.PLACEHOLDER
        if not os.path.isdir(placeholder):
            placeholder = f"{stage}/placeholder"
            self._make_placeholder(placeholder)
        there = _certificates()
        for name in names:
            os.symlink(layout.certificate_link(name) if name in there else placeholder, f"{folder}/{name}")

    def _new_generation(self, files: dict[str, str]) -> int:
        os.makedirs(GENERATIONS, mode=0o755, exist_ok=True)
        number = max([0, *_numbers()]) + 1
        new = tempfile.mkdtemp(dir=GENERATIONS, prefix=".new-")
        _write_tree(new, files)
        os.chmod(new, 0o755)
        os.rename(new, f"{GENERATIONS}/{number}")
        return number

    def _swap(self, target: str) -> None:
        before = os.readlink(LIVE) if os.path.islink(LIVE) else None
        _point(LIVE, target)
        self.undo.append(lambda: _point(LIVE, before) if before else os.remove(LIVE))

    def _enter(self) -> None:
        """Let nginx read the live generation. The packaged nginx.conf stays beside it, and dpkg knows where."""
        if not _leads_to(ENTRANCE, LIVE):
            _point(ENTRANCE, LIVE)
            self.undo.append(lambda: os.remove(ENTRANCE))
        if not os.path.islink(MAIN):
            shutil.copy2(MAIN, PACKAGED)
            self._divert("--add")
            # The copy has served its turn only when the link is gone again; rename puts it back in one step.
            self.undo.append(lambda: (os.rename(PACKAGED, MAIN), self._divert("--remove")))
        _point(MAIN, "portico/nginx.conf")

    def _divert(self, action: str) -> None:
        command = [self.module.get_bin_path("dpkg-divert", required=True), "--quiet", "--local", "--no-rename"]
        command += ["--divert", PACKAGED, action, MAIN]
        self.module.run_command(command, check_rc=True)

    def _has_pristine_default_site(self) -> bool:
        """Return whether the default site is switched on and is still the package's own file."""
        if not os.path.islink(DEFAULT_SITE) or os.path.realpath(DEFAULT_SITE) != DEFAULT_SITE_FILE:
            return False
        query = self.module.get_bin_path("dpkg-query")
        if query is None or not os.path.isfile(DEFAULT_SITE_FILE):
            return False
        _rc, out, _err = self.module.run_command([query, "--show", "--showformat=${Conffiles}\\n", "nginx-common"])
        packaged = re.search(rf"^ {re.escape(DEFAULT_SITE_FILE)} ([0-9a-f]{{32}})", out, re.MULTILINE)
        with open(DEFAULT_SITE_FILE, "rb") as file:
            # dpkg's own record of its files is in MD5; nothing here rests on its strength.
            return bool(packaged) and packaged.group(1) == hashlib.md5(file.read(), usedforsecurity=False).hexdigest()

    def _switch_off_default_site(self) -> None:
        target = os.readlink(DEFAULT_SITE)
        os.remove(DEFAULT_SITE)
        self.undo.append(lambda: os.symlink(target, DEFAULT_SITE))

    def _serve(self, state: dict[str, t.Any]) -> None:
        """Reload nginx, or start it: never restart it, which would refuse visitors."""
        if not state["enabled"]:
            self._systemctl("enable", "--quiet")
        verb = "reload" if state["active"] else "start"
        if self._systemctl(verb) != 0 or self._systemctl("is-active", "--quiet") != 0:
            raise GenerationError(f"nginx did not {verb} with the new configuration, and the old one is back: {self._last_words()}")

    def _last_words(self) -> str:
        _rc, out, _err = self.module.run_command(["journalctl", "--unit", "nginx", "--lines", "10", "--no-pager", "--output", "cat"])
        return _relevant(out)

    def _systemctl(self, verb: str, *flags: str) -> int:
        rc, _out, _err = self.module.run_command(["systemctl", verb, *flags, "nginx"])
        return rc

    def _versions(self) -> tuple[list[int], list[int]]:
        if self.binary is None:
            return [], []
        _rc, _out, err = self.module.run_command([self.binary, "-V"])
        return _numbers_after("nginx/", err), _numbers_after("running with OpenSSL ", err) or _numbers_after("built with OpenSSL ", err)

    @staticmethod
    def _prune(live: int) -> None:
        for number in sorted(_numbers())[:-GENERATIONS_KEPT]:
            if number != live:
                shutil.rmtree(f"{GENERATIONS}/{number}")


def _certificates() -> list[str]:
    """Return the names of the certificates that nginx could read; a link whose target is gone is none."""
    if not os.path.isdir(layout.CERTIFICATES):
        return []
    return sorted(name for name in os.listdir(layout.CERTIFICATES) if os.path.exists(f"{layout.CERTIFICATES}/{name}/{layout.CERTIFICATE_FILE}"))


def _numbers() -> list[int]:
    """Return the numbers of the generations that are there."""
    return [int(name) for name in os.listdir(GENERATIONS) if name.isdigit()] if os.path.isdir(GENERATIONS) else []


def _live_number() -> int:
    name = os.path.basename(os.readlink(LIVE)) if os.path.islink(LIVE) else ""
    return int(name) if name.isdigit() else 0


def _write_tree(folder: str, files: dict[str, str]) -> None:
    """Write a generation: its files, and the link through which it names certificates."""
    os.makedirs(folder, mode=0o755, exist_ok=True)
    for path, text in files.items():
        os.makedirs(os.path.dirname(f"{folder}/{path}"), mode=0o755, exist_ok=True)
        _write(f"{folder}/{path}", text)
    os.symlink(layout.CERTIFICATES, f"{folder}/certificates")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)


def _point(link: str, target: str) -> None:
    """Make a symlink, or move it, in one step."""
    new = f"{link}.portico-new"
    with contextlib.suppress(FileNotFoundError):
        os.remove(new)
    os.symlink(target, new)
    os.rename(new, link)


def _leads_to(link: str, target: str) -> bool:
    return os.path.islink(link) and os.readlink(link) == target


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _numbers_after(words: str, text: str) -> list[int]:
    found = re.search(re.escape(words) + r"(\d+(?:\.\d+)*)", text)
    return [int(number) for number in found.group(1).split(".")] if found else []


def _relevant(text: str) -> str:
    """Return nginx's complaints without its time stamps, or all it said where it does not complain."""
    lines = [re.sub(r"^.*?\[(?:emerg|alert|crit|error)\]\s*(?:\d+#\d+:\s*)?", "", line) for line in text.splitlines() if re.search(r"\[(emerg|alert|crit|error)\]", line)]
    return "; ".join(lines) or text.strip() or "it did not say why"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["asked", "published"], "default": "asked"},
            "files": {"type": "dict", "default": {}},
            "certificates": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    nginx = Nginx(module)
    state = nginx.read()
    if module.params["state"] == "asked":
        if module._diff:
            state["texts"] = nginx.texts()
        module.exit_json(changed=False, **state)

    files, certificates = module.params["files"], module.params["certificates"]
    if not differences(state, {path: digest(text) for path, text in files.items()}, certificates):
        module.exit_json(changed=False, **state)
    if nginx.binary is None and not module.check_mode:
        module.fail_json(msg="nginx is not installed on this host. The role portico.web.nginx installs it.")
    try:
        if nginx.binary is not None:
            nginx.test(files, certificates)
        if not module.check_mode:
            state["generation"] = nginx.publish(files, certificates, state)
    except GenerationError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, tested=nginx.binary is not None, **state)


if __name__ == "__main__":
    main()
