#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: package_query
short_description: Ask which of some packages a host lacks
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Asks dpkg which of the named packages are not installed.
  - It needs nothing but dpkg itself, so it also works in check mode on a host where M(ansible.builtin.apt) cannot
    work yet because its Python library is missing. And a host that lacks nothing is spared the second that
    M(ansible.builtin.apt) takes to find that out.
options:
  names:
    description: The packages, by their names in the distribution.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
    description: In check mode the task reports a change when a package is missing, since a real run would install it.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotence:
    support: full
    description: It never changes anything.
"""

EXAMPLES = r"""
- name: Ask which packages are missing
  portico.web.package_query:
    names: [nginx, openssl]
  register: packages

- name: Install what is missing
  ansible.builtin.apt:
    name: "{{ packages.missing }}"
    update_cache: true
  when: packages.missing | length > 0 and not ansible_check_mode
"""

RETURN = r"""
missing:
  description: The packages that are not installed, in the order asked.
  returned: success
  type: list
  elements: str
  sample: [nginx]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import packages


def main() -> None:
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    missing = packages.missing(module, module.params["names"])
    module.exit_json(changed=bool(missing) and module.check_mode, missing=missing)


if __name__ == "__main__":
    main()
