#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: check
short_description: Check every Portico list that a play brings to a host
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Checks C(gunicorn_apps), C(nginx_sites) and C(certbot_certificates), as far as the play brings them, each alone
    and against the others. The first mistake is told with its entry, its key, its value and what to do.
  - Refuses a variable whose name is within two letters of one of Portico's, which is nearly always a slip.
    Other variables, whatever their prefix, are none of its business.
  - The roles of this collection do this first, so that a mistake in any of the lists is known before anything on
    the host is touched. It needs no connection to the host.
attributes:
  check_mode:
    support: full
    description: It never changes anything.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotence:
    support: full
    description: It never changes anything.
notes:
  - This is an action plugin: it runs on the controller.
seealso:
  - module: portico.web.gunicorn_deploy
  - module: portico.web.nginx_publish
  - module: portico.web.certbot_certificate
"""

EXAMPLES = r"""
- name: Check every Portico list that this play brings
  portico.web.check:
"""

RETURN = r"""
checked:
  description: The variables that were there to be checked.
  returned: success
  type: list
  elements: str
  sample: [gunicorn_apps, nginx_sites]
"""
