# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a release's source comes from."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import typing as t
from collections.abc import Iterator
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.module_utils import archives, files
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

SECONDS_TO_ASK = 60
SECONDS_TO_FETCH = 900
USER_OF_A_TOKEN = "oauth2"
"""Who asks with a token, where the URL names nobody: servers want some user, and most of them any."""

# Run by git's shell, with what is known so far as its input; the token itself is in the environment alone.
_HELPER = (
    f'!f() {{ test "$1" = get || exit 0; grep -q ^username= || echo username={USER_OF_A_TOKEN}; '
    'printf "password=%s\\n" "$PORTICO_TOKEN"; }; f'
)
_PRIVATE = "/run"
"""Memory, on every host with systemd: a key never comes to a disk."""

Order = dict[str, t.Any]


class Source:
    """The source of one app, as M(portico.web.gunicorn_deploy) sends it."""

    def __init__(self, order: Order, steps: Steps) -> None:
        self.order, self.steps = order, steps
        self.secrets: dict[str, str] = order.get("secrets") or {}

    def commit(self) -> tuple[str | None, str]:
        """Return the commit that the wanted version is now, and otherwise what git said."""
        url, version = self.order.get("git"), self.order.get("version")
        if not url:
            return None, ""
        if re.fullmatch(r"[0-9a-f]{40}", version):
            return version, ""
        rc, out, err = self._git(["ls-remote", "--", url, version, f"refs/tags/{version}^{{}}"], SECONDS_TO_ASK)
        found = dict(reversed(line.split("\t", 1)) for line in out.splitlines() if "\t" in line)
        for reference in (f"refs/tags/{version}^{{}}", f"refs/tags/{version}", f"refs/heads/{version}", version):
            if reference in found:
                return found[reference], ""
        return None, self._explained(rc, err, SECONDS_TO_ASK, "; ") if rc else ""

    def fetch(self, folder: str) -> None:
        """Put the source into an empty folder. A wheel or a package has none: all of it goes into the environment."""
        if self.order["git"]:
            self._check_out(folder)
        elif self.order["unpack"] == "folder":
            self.steps.step("unpacking its source", ["tar", "--extract", "--gzip", "--no-same-owner", "--file", self.order["archive"], "--directory", folder])
        elif self.order["unpack"] == "archive":
            try:
                archives.unpack(self.order["archive"], folder)
            except archives.ArchiveError as error:
                raise self.steps.error("unpacking its source", f"the archive {error}") from error

    def _check_out(self, folder: str) -> None:
        url, commit = self.order["git"], self.order["commit"]
        here = ["-C", folder]
        self._step("fetching its source", [*here, "init", "--quiet", "--template="])
        if self._git([*here, "fetch", "--quiet", "--depth", "1", "--", url, commit], SECONDS_TO_FETCH)[0] != 0:
            # Not every server gives a commit by its name.
            self._step("fetching its source", [*here, "fetch", "--quiet", "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
        self._step("checking out its source", [*here, "checkout", "--quiet", "--detach", commit])
        shutil.rmtree(f"{folder}/.git")

    def _step(self, name: str, arguments: list[str]) -> None:
        rc, out, err = self._git(arguments, SECONDS_TO_FETCH)
        if rc != 0:
            raise self.steps.error(name, f"{out}\n{self._explained(rc, err, SECONDS_TO_FETCH)}")

    def _explained(self, rc: int, said: str, seconds: int, between: str = "\n") -> str:
        lines = said.strip().splitlines()
        if rc == 124:
            lines.append(f"it gave no answer within {seconds} seconds")
        if "Host key verification failed" in said:
            where = "source.known_hosts" if self.order.get("known_hosts") else "the host's known_hosts"
            lines.append(f"the server's key is not the one in {where}, or not there at all. Give the server's own lines as source.known_hosts")
        return between.join(lines)

    def _git(self, arguments: list[str], seconds: int) -> tuple[int, str, str]:
        """Run git with what it needs to be let in, which is gone when it has ended."""
        rc, out, err = self.steps.run(["git", "--version"], may_be_missing=True)
        if rc != 0:
            return rc, out, err
        with self._let_in() as (options, environment):
            return self.steps.run(["timeout", "--kill-after", "10", str(seconds), "git", *options, *arguments], environment=environment)

    @contextlib.contextmanager
    def _let_in(self) -> Iterator[tuple[list[str], dict[str, str]]]:
        # A hook of the host's own that runs as root has no business in a stranger's repository.
        options = ["-c", "core.hooksPath=/dev/null"]
        # Large files of git-lfs are not fetched: a filter of the host's would ask where the repository itself says.
        environment = {"GIT_LFS_SKIP_SMUDGE": "1"}
        if "token" in self.secrets:
            url = urlsplit(self.order["git"])
            server = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
            # For this server alone: git asks for a password wherever it is led to.
            options += ["-c", "credential.helper=", "-c", f"credential.{server}.helper={_HELPER}"]
            environment["PORTICO_TOKEN"] = self.secrets["token"]
        with tempfile.TemporaryDirectory(prefix="portico-", dir=_PRIVATE) as private:
            # Nobody is there to say whether a key that nobody knows is the right one.
            ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "StrictHostKeyChecking=yes"]
            if "key" in self.secrets:
                files.write(f"{private}/key", self.secrets["key"], 0o600)
                ssh += ["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", f"{private}/key"]
            if self.order.get("known_hosts"):
                files.write(f"{private}/known_hosts", self.order["known_hosts"], 0o600)
                ssh += ["-o", f"UserKnownHostsFile={private}/known_hosts", "-o", "GlobalKnownHostsFile=/dev/null"]
            environment["GIT_SSH_COMMAND"] = " ".join(ssh)
            yield options, environment
