#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gunicorn_report
short_description: Tell a program what became of a deploy
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Writes one line of JSON about the deploy of an app on all the hosts of the play, those that failed too. The playbook
    C(portico.web.deploy) ends with it, for the job in CI that runs it.
  - It runs on the controller, once for the play.
options:
  name:
    description: The name of the app.
    type: str
    required: true
  result:
    description: The variable in which the result of M(portico.web.gunicorn_deploy) was registered.
    type: str
    required: true
  path:
    description: The file on the controller that the report is written to. If not given, it is printed, in a line of its own.
    type: str
attributes:
  check_mode:
    support: full
    description: A report is written of a run in check mode too. It says what would change, and what is live.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotence:
    support: full
    description: It changes nothing on a host.
notes:
  - This is an action plugin. It runs on the controller.
seealso:
  - module: portico.web.gunicorn_deploy
"""

EXAMPLES = r"""
- name: Report
  portico.web.gunicorn_report:
    name: shop
    result: deployed
    path: /tmp/deploy.json
  run_once: true
"""

RETURN = r"""
report:
  description: What was written.
  returned: success
  type: dict
  contains:
    app:
      description: The app's name.
      type: str
    changed:
      description: Whether anything changed on any host.
      type: bool
    failed:
      description: Whether the deploy failed on any host.
      type: bool
    hosts:
      description:
        - For each host its name (C(host)), C(changed), C(failed), the live release (C(release)), what it was made of
          (C(revision)), the release before it (C(previous)), and C(seconds).
        - Of a host that failed there is C(error) in place of what is live.
      type: list
      elements: dict
"""
