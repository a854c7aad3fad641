#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_repository
short_description: Say which repository apt takes nginx from
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - The part of M(portico.web.nginx_publish) that adds a repository of packages for nginx, or takes it away. It installs nothing.
  - The repository is a C(.sources) file with the keys that it has to be signed with, and a file of preferences by which nginx comes
    from it. apt reads it at once; if it cannot, or if there is no nginx in it, both files are what they were before.
options:
  repository:
    description:
      - The repository as M(portico.web.nginx_publish) has checked it. If not given, apt has none of ours.
    type: dict
attributes:
  check_mode:
    support: full
    description: The key is fetched and looked at, and nothing is written. What is in the repository, apt has not seen then.
  diff_mode:
    support: none
    description: There is one thing to say, which is RV(url).
  idempotence:
    support: full
    description: What apt has already is left as it is.
seealso:
  - module: portico.web.nginx_publish
"""

EXAMPLES = r"""
- name: Let nginx come from the distribution
  portico.web.nginx_repository:
"""

RETURN = r"""
url:
  description: Where nginx comes from; nothing where that is the distribution's repository.
  returned: success
  type: str
"""

import os
import time
import typing as t
from http.client import HTTPException
from urllib.error import URLError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.portico.web.plugins.module_utils import commands, files, layout, openpgp, repositories
from ansible_collections.portico.web.plugins.module_utils.repositories import RepositoryError

SECONDS_TO_FETCH = 30
SECONDS_FOR_APT = 300
"""How long another one's use of apt is waited for."""
LARGEST_KEY = 1 << 20


def wanted_texts(repository: dict[str, t.Any] | None) -> dict[str, str]:
    """Return the files that apt should have, path to text; none where there should be none.

    :raises RepositoryError: where there is no key that is trusted.
    """
    if repository is None:
        return {}
    return repositories.texts(repository, repositories.release(), _keyring(repository))


def _keyring(repository: dict[str, t.Any]) -> bytes:
    where = repository["key_url"]
    if repository["key"]:
        return b"".join(openpgp.keys(repository["key"].encode()).values())
    try:
        content = open_url(where, timeout=SECONDS_TO_FETCH, follow_redirects="safe").read(LARGEST_KEY)
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise RepositoryError(f'nginx_repository, key "key": "{where}" cannot be fetched by this host: {error}. Give a copy of it, as a file on the controller.') from error
    try:
        return openpgp.chosen(content, repository["fingerprints"])
    except ValueError as error:
        raise RepositoryError(f'nginx_repository, key "key": "{where}" {error}') from error


def apply(wanted: dict[str, str], url: str) -> None:
    """Write the files and have apt read the repository; or put back what was there.

    :raises RepositoryError: in apt's own words.
    """
    back = [files.restored(path) for path in repositories.FILES]
    try:
        for path in repositories.FILES:
            if path in wanted:
                files.write(path, wanted[path])
            else:
                files.remove(path)
        if wanted:
            _have_apt_read(url)
    except BaseException:
        for step in back:
            step()
        raise


def _have_apt_read(url: str) -> None:
    """Have apt fetch the index of this repository, and of no other."""
    only = ["-o", f"Dir::Etc::sourcelist={repositories.SOURCES}", "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0"]
    command = ["apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any", *only]
    deadline = time.monotonic() + SECONDS_FOR_APT
    while (done := commands.run(command, seconds=SECONDS_FOR_APT)).rc and "Could not get lock" in done.err and time.monotonic() < deadline:
        time.sleep(1)  # apt does not say when it is done, and waits for no other itself
    if done.rc:
        said = [line.removeprefix("E: ") for line in done.err.splitlines() if line.startswith("E: ")] or [done.err.strip()]
        raise RepositoryError(f"nginx_repository: apt cannot use {url}, so it was taken out again: {'; '.join(said)}")
    # Its version table has a line for each place that a version is at.
    if not any(line.split()[1:2] == [url] for line in commands.run(["apt-cache", "policy", "nginx"]).out.splitlines()):
        raise RepositoryError(f"nginx_repository: there is no package nginx for this host in {url}, so it was taken out again. Is there one for its release and its architecture?")


def main() -> None:
    module = AnsibleModule(argument_spec={"repository": {"type": "dict"}}, supports_check_mode=True)
    repository = module.params["repository"]
    try:
        changed = not repositories.is_there(repository)
        url = repositories.address(repository, repositories.release()) if repository else ""
        # A dry run installs no CAs, and without them nothing can be fetched.
        is_blind = module.check_mode and not os.path.exists(layout.TRUSTED_CAS)
        if changed and not is_blind:
            wanted = wanted_texts(repository)
            if not module.check_mode:
                apply(wanted, url)
    except RepositoryError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"nginx_repository: the host could not do it, and apt has what it had: {error}")
    module.exit_json(changed=changed, url=url)


if __name__ == "__main__":
    main()
