#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_rollback
short_description: Go back to an earlier configuration of nginx
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Makes a scope's sites what they were in a generation that the host keeps, tested and proved as
    M(portico.web.nginx_publish) does it. The last five generations are kept.
  - What there is once for the whole host goes back along with the scope that set it, or with the only scope.
  - Other scopes' sites stay what they are. Certificates are not part of a generation.
  - The lists of the play say what they said before. The next run of it publishes them again.
options:
  scope:
    description: Whose sites go back.
    type: str
    default: main
  generation:
    description:
      - The number of the generation to go back to. RV(history) has those that are kept.
      - If not given, it is the newest one in which the scope's sites were others than now.
    type: int
attributes:
  check_mode:
    support: full
    description: The earlier configuration is tested by the host's own nginx, and leaves nothing behind.
  diff_mode:
    support: full
    description: A diff for each file that would change.
  idempotence:
    support: partial
    description: With O(generation), a scope that is as it was then is left alone. Without it, each run goes one step back.
notes:
  - This is an action plugin over M(portico.web.nginx_generation), which is what runs on the host.
seealso:
  - module: portico.web.nginx_publish
  - module: portico.web.nginx_generation
"""

EXAMPLES = r"""
- name: Take the last change back
  portico.web.nginx_rollback:

- name: Go back to a certain generation
  portico.web.nginx_rollback:
    generation: 12
"""

RETURN = r"""
generation:
  description: The number of the configuration that is live after the task.
  returned: success
  type: int
  sample: 14
restored:
  description: The number of the generation whose files are live again.
  returned: changed
  type: int
  sample: 12
files:
  description: The files that differ from what was live, relative to the generation.
  returned: changed
  type: list
  elements: str
  sample: [sites/shop.conf]
history:
  description:
    - The kept generations, newest first. C(made) is a time in UTC, C(why) says what happened, and C(sites) has the number
      of each scope's sites.
  returned: success
  type: list
  elements: dict
  sample:
    - {generation: 14, made: "2026-11-20T08:00:00Z", why: scope "main" went back to generation 12, sites: {main: 3}}
"""
