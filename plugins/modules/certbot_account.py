#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: certbot_account
short_description: Export the account that a host has at its CA
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Writes the account, its private key included, to a file on the controller that only its owner reads. Put it into a vault.
  - O(portico.web.certbot_certificate#module:account) takes such a text, on this host after a loss or on another one.
options:
  server:
    description: The CA, as O(portico.web.certbot_certificate#module:server) describes it.
    type: str
    default: letsencrypt
  dest:
    description: The path of the file on the controller, absolute or beside the playbook.
    type: path
    required: true
  pad:
    description:
      - As many random bytes as the account is long at most, in base64. The action plugin makes them.
      - What a module answers is shown by C(ansible-playbook -vvv), so that the account is answered under a one-time pad.
    type: str
attributes:
  check_mode:
    support: full
    description: Says whether the file would change, and does not write it.
  diff_mode:
    support: none
    description: It would show the private key.
  idempotence:
    support: full
    description: A file that has the account already is not written.
seealso:
  - module: portico.web.certbot_certificate
"""

EXAMPLES = r"""
- name: Keep the account for the day on which the host is lost
  portico.web.certbot_account:
    dest: "{{ playbook_dir }}/secret/{{ inventory_hostname }}-account.json"
"""

RETURN = r"""
dest:
  description: Where the account is.
  returned: success
  type: str
"""

import base64

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import certbot, lineage


def under(pad: bytes, text: bytes) -> bytes:
    """Return a text under a one-time pad, or from under it."""
    return bytes(a ^ b for a, b in zip(text, pad))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "str", "default": "letsencrypt"},
            "dest": {"type": "path", "required": True},
            "pad": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    server, pad = module.params["server"], base64.b64decode(module.params["pad"] or "")
    accounts = lineage.accounts(server)
    if not accounts:
        module.fail_json(msg=f"This host has no account at {server}. certbot registers one with the first certificate.")
    account = certbot.exported_account(server, accounts[-1]).encode()
    if len(account) > len(pad):
        module.fail_json(msg=f"The account has {len(account)} bytes, and {len(pad)} can be sent. It is none of certbot's.")
    module.exit_json(changed=False, account=base64.b64encode(under(pad, account)).decode())


if __name__ == "__main__":
    main()
