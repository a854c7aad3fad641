# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packages a host has. dpkg's own answer takes milliseconds; apt's module takes a second."""

from __future__ import annotations

import re

from ansible.module_utils.basic import AnsibleModule


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


def candidate(module: AnsibleModule, name: str) -> tuple[int, ...] | None:
    """Return the version that would be installed, without what Debian adds to it; None where apt does not know one."""
    query = module.get_bin_path("apt-cache")
    if query is None:
        return None
    _rc, out, _err = module.run_command([query, "policy", name])
    found = re.search(r"^  Candidate: (?:\d+:)?(\d+(?:\.\d+)*)", out, re.MULTILINE)
    return tuple(map(int, found.group(1).split("."))) if found else None
