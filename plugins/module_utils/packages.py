# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packages a host has. dpkg's own answer takes milliseconds; apt's module takes a second."""

from __future__ import annotations

import glob
import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

_INDEX = "/var/lib/apt/lists"
_CACHE = "/var/cache/apt/pkgcache.bin"
_ENGLISH = {"LC_ALL": "C"}


def missing(module: AnsibleModule, names: list[str]) -> list[str]:
    """Return the packages that are not installed, in the order asked. On a host without dpkg the module fails."""
    if not names:
        return []
    query = module.get_bin_path("dpkg-query")
    if query is None:
        module.fail_json(msg="This host has no dpkg-query. Portico installs packages on Debian and its derivatives; this is something else.")
    # It exits 1 when it does not know one of the names, and still prints the others.
    _rc, out, _err = module.run_command([query, "--show", "--showformat=${Package} ${db:Status-Status}\\n", *names])
    installed = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def unknown(module: AnsibleModule, names: list[str]) -> list[str]:
    """Return the packages that apt does not know, in the order asked; none on a host whose index of packages is empty."""
    query = module.get_bin_path("apt-cache")
    if query is None or not names or not glob.glob(f"{_INDEX}/*_Packages*"):
        return []
    _rc, out, _err = module.run_command([query, "policy", *names], environ_update=_ENGLISH)
    known = set(re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (?!\(none\))", out, re.MULTILINE))
    return [name for name in names if name not in known]


class Upgrade:
    """What apt would make of a package, asked while other questions are, because it takes a moment."""

    def __init__(self, module: AnsibleModule, name: str) -> None:
        self._module = module
        query = module.get_bin_path("apt-cache")
        # Without its cache apt would read all of its index again.
        self._asked = subprocess.Popen([query, "policy", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **_ENGLISH}) if query and os.path.exists(_CACHE) else None

    def answer(self) -> list[str]:
        """Return the version that is installed and the newer one that would be; nothing where there is none."""
        out = self._asked.communicate()[0] if self._asked else ""
        found = re.search(r"^  Installed: (\S+)\n  Candidate: (\S+)$", out, re.MULTILINE)
        if not found or "(none)" in found.groups() or found[1] == found[2]:
            return []
        rc, _out, _err = self._module.run_command(["dpkg", "--compare-versions", found[1], "lt", found[2]])
        return list(found.groups()) if rc == 0 else []


def candidate(module: AnsibleModule, name: str) -> tuple[int, ...] | None:
    """Return the version that would be installed, without what Debian adds to it; None where apt does not know one."""
    query = module.get_bin_path("apt-cache")
    if query is None:
        return None
    _rc, out, _err = module.run_command([query, "policy", name], environ_update=_ENGLISH)
    found = re.search(r"^  Candidate: (?:\d+:)?(\d+(?:\.\d+)*)", out, re.MULTILINE)
    return tuple(map(int, found.group(1).split("."))) if found else None
