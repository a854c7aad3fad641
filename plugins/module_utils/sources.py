# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a release's source comes from."""

from __future__ import annotations

import re
import shutil
import typing as t

from ansible_collections.portico.web.plugins.module_utils.steps import Steps

Order = dict[str, t.Any]


class Source:
    """The source of one app, as M(portico.web.gunicorn_deploy) sends it."""

    def __init__(self, order: Order, steps: Steps) -> None:
        self.order, self.steps = order, steps

    def commit(self) -> tuple[str | None, str]:
        """Return the commit that the wanted version is now, and otherwise what git said."""
        url, version = self.order.get("git"), self.order.get("version")
        if not url:
            return None, ""
        if re.fullmatch(r"[0-9a-f]{40}", version):
            return version, ""
        rc, out, err = self.steps.run(["git", "ls-remote", url, version, f"refs/tags/{version}^{{}}"], may_be_missing=True)
        found = dict(reversed(line.split("\t", 1)) for line in out.splitlines() if "\t" in line)
        for reference in (f"refs/tags/{version}^{{}}", f"refs/tags/{version}", f"refs/heads/{version}", version):
            if reference in found:
                return found[reference], ""
        return None, "; ".join(err.strip().splitlines()) if rc else ""

    def fetch(self, folder: str) -> None:
        """Put the source into an empty folder."""
        if self.order["archive"]:
            self.steps.step("unpacking its source", ["tar", "--extract", "--gzip", "--no-same-owner", "--file", self.order["archive"], "--directory", folder])
        else:
            self._check_out(folder)

    def _check_out(self, folder: str) -> None:
        git = ["git", "-C", folder]
        self.steps.step("fetching its source", [*git, "init", "--quiet"])
        one = [*git, "fetch", "--quiet", "--depth", "1", self.order["git"], self.order["commit"]]
        if self.steps.run(one)[0] != 0:
            # Not every server gives a commit by its name.
            self.steps.step("fetching its source", [*git, "fetch", "--quiet", self.order["git"], "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
        self.steps.step("checking out its source", [*git, "checkout", "--quiet", "--detach", self.order["commit"]])
        shutil.rmtree(f"{folder}/.git")
