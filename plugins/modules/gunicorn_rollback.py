#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gunicorn_rollback
short_description: Go back to an earlier release of an app
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Starts a release that the host keeps in the slot that is not live, asks it there whether it is well, and leads visitors to it, as
    M(portico.web.gunicorn_deploy) does it with a new one. It is there already, so it takes seconds; only
    where the host's Python was upgraded since is its environment built anew.
  - The release has its own settings again, such as the number of its workers and its health check, and the environment
    variables and credentials of today.
  - No commands are run, neither before nor after traffic. A database stays as the newer release has migrated it. So write migrations
    that the release before can live with; what it cannot live with (a column that goes) belongs into a later release.
  - The list of the play says what it said before. The next run of M(portico.web.gunicorn_deploy), though nothing in it has changed,
    deploys that again.
options:
  name:
    description: The name of the app.
    type: str
    required: true
  release:
    description:
      - The release to go back to, or so much of the beginning of its identifier that no other has it. RV(releases) has those
        that are kept.
      - If not given, it is the release that was live before the one that is now. So a second run goes forward again.
    type: str
attributes:
  check_mode:
    support: full
    description: It says which release would be live, and touches nothing.
  diff_mode:
    support: none
    description: RV(replaced) and RV(release) say what there is to be said.
  idempotence:
    support: partial
    description: With O(release), an app that runs that release is left alone. Without it, each run changes between two releases.
notes:
  - This is an action plugin over M(portico.web.gunicorn_release), which is what runs on the host.
seealso:
  - module: portico.web.gunicorn_deploy
  - module: portico.web.gunicorn_release
"""

EXAMPLES = r"""
- name: Take the last deploy back
  portico.web.gunicorn_rollback:
    name: shop

- name: Go back to a certain release
  portico.web.gunicorn_rollback:
    name: shop
    release: 4f0c2a
"""

RETURN = r"""
app:
  description: The app's name.
  returned: success
  type: str
  sample: shop
release:
  description: The identifier of the release that is live after the task; in check mode, of the one that would be.
  returned: success
  type: str
  sample: 4f0c2a9be1d37f55
revision:
  description: The commit that the live release was made of, or the fingerprint of its folder.
  returned: success
  type: str
replaced:
  description: The release that was live before.
  returned: success
  type: str
  sample: 90be4a11c07f2d3e
msg:
  description: That the list still says something else.
  returned: changed
  type: str
releases:
  description: The kept releases, as in RV(portico.web.gunicorn_deploy#module:live).
  returned: success
  type: list
  elements: dict
bytes:
  description: What the app's releases and environments take on the disk.
  returned: success
  type: int
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 2.4
waited_for:
  description: Whose run was waited for, if that was necessary.
  returned: success
  type: str
"""
