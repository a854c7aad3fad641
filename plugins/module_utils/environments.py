# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Virtual environments: addressed by what went into them, and used again for the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import typing as t
from collections.abc import Iterator

from ansible_collections.portico.web.plugins.module_utils import builder, files, layout, requirements
from ansible_collections.portico.web.plugins.module_utils.installers import Command, Pip, Uv, find_uv, index_url
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

COMPLETE = "complete.json"
MOST_OF_A_CACHE = 1 << 30
"""Bytes of one app's cache after which it is begun anew."""

Order = dict[str, t.Any]


class Environments:
    """The environments of one app on this host."""

    def __init__(self, order: Order, steps: Steps) -> None:
        """Begin.

        :param order: the app, in the form in which M(portico.web.gunicorn_deploy) sends it.
        """
        self.order, self.steps = order, steps
        self.user = layout.app_unit(order["name"])
        self.folder = f"{layout.app_home(order['name'])}/environments"
        self.cache = f"{layout.app_home(order['name'])}/cache"
        self._python: str | None = None

    def python_version(self) -> str | None:
        """Return the version of the host's Python, which nothing changes while a module runs."""
        if self._python is None:
            rc, out, _err = self.steps.run([self.order["python"], "-c", "import platform; print(platform.python_version())"], may_be_missing=True)
            self._python = out.strip() if rc == 0 and out.startswith("3.") else None
        return self._python

    def works(self, folder: str) -> bool:
        """Return whether an environment is whole, and its Python still the one that it was made with.

        Its interpreter is a link to the host's, which an upgrade may have taken away or replaced.
        """
        made = re.search(r"^version(?:_info)?\s*=\s*(\S+)", files.read(f"{folder}/pyvenv.cfg") or "", re.M)
        if not (os.path.isfile(f"{folder}/{COMPLETE}") and made and os.access(f"{folder}/bin/python", os.X_OK)):
            return False
        return made[1] == self.python_version()

    def end(self) -> None:
        """End what a run has left behind that was killed while it built."""
        builder.end(self.steps, self.user)

    def make(self, source: str) -> str:
        """Make the virtual environment that the source asks for, or find the one that was made for the same."""
        wanted = self._wanted(source)
        address = self._address(wanted)
        number = 0
        while True:
            # One that is broken may be what the live slot still runs from: another is made beside it.
            folder = f"{self.folder}/{address}" + (f"-{number}" if number else "")
            if self.works(folder):
                return folder
            if not os.path.isfile(f"{folder}/{COMPLETE}"):
                break
            number += 1
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._build(folder, source, wanted)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise self.steps.error("making its environment", str(error)) from error
            raise
        return folder

    def repair(self, release: str) -> None:
        """Give a release that was made a new environment, if the host's Python has left its own; the release itself stays as it is."""
        if not self.works(f"{release}/environment"):
            folder = self.make(f"{release}/source")
            files.point(f"{release}/environment", os.path.relpath(folder, release))

    def _wanted(self, source: str) -> requirements.Wanted | None:
        """Return what the source asks for; nothing, where there is no source but a wheel or a package."""
        if self.order["wheel"] or self.order["package"]:
            return None
        try:
            return requirements.read(source, self.order["requirements"])
        except (requirements.RequirementsError, OSError) as error:
            raise self.steps.error("making its environment", str(error)) from error

    def _address(self, wanted: requirements.Wanted | None) -> str:
        index = self.order["index"] or {}
        parts: list[t.Any] = [self.order["python"], self.python_version() or "", self.order["gunicorn"], index.get("url")]
        if wanted is None:
            parts += [self.order["package"], self.order["version"]] if self.order["package"] else ["wheel", self.order["fingerprint"]]
        else:
            parts += [wanted.kind, wanted.texts]
            if wanted.takes_source:
                parts.append(self.order["fingerprint"])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def _build(self, folder: str, source: str, wanted: requirements.Wanted | None) -> None:
        installer = self._installer(folder, wanted)
        url = index_url(self.order["index"], (self.order.get("secrets") or {}).get("password"))
        own = f"{self.user}:{self.user}"
        writable = [folder]
        os.mkdir(folder, 0o700)
        if isinstance(installer, Uv):
            os.makedirs(self.cache, mode=0o700, exist_ok=True)
            self.steps.step("handing over its cache", ["chown", own, self.cache])
            writable.append(self.cache)
            settings = installer.settings(url, self.cache)
        else:
            settings = installer.settings(url)
        self.steps.step("handing over its environment", ["chown", own, folder])
        with builder.Builder(self.steps, self.user, writable, settings) as build:
            for command in installer.make():
                build.step(command.name, command.argv, cwd=source)
            with self._brought(folder, source, wanted) as (here, wheel):
                install = self._installation(installer, here, wanted, wheel)
                build.step(install.name, install.argv, cwd=here)
            if not os.path.lexists(f"{folder}/bin/gunicorn"):
                gunicorn = installer.install("installing gunicorn", [self.order["gunicorn"]])
                build.step(gunicorn.name, gunicorn.argv, cwd=source)
        self.steps.step("sealing its environment", ["chown", "--recursive", "--no-dereference", f"root:{self.user}", folder])
        self.steps.step("sealing its environment", ["chmod", "--recursive", "u=rwX,g=rX,o=", folder])
        # A power cut must not leave one that is called complete and has empty files.
        os.sync()
        # Written anew: what a build may have left under that name, such as a link, is not written through.
        files.write(f"{folder}/{COMPLETE}", json.dumps({"python": self.order["python"], "installer": type(installer).__name__.lower()}), 0o644)
        if os.path.isdir(self.cache) and _size(self.cache) > MOST_OF_A_CACHE:
            shutil.rmtree(self.cache, ignore_errors=True)

    @contextlib.contextmanager
    def _brought(self, folder: str, source: str, wanted: requirements.Wanted | None) -> Iterator[tuple[str, str | None]]:
        """Return where the source can be read, and the wheel if there is one.

        What is installed of the source itself is built in a copy: builds write into what they build, and a release is not edited.
        """
        here = f"{folder}/.source"
        if self.order["wheel"] and not self.order.get("archive"):
            raise self.steps.error("making its environment", f"{self.order['wheel']}, which it was made of, is not kept on the host. Deploy it again")
        if self.order["wheel"]:
            os.mkdir(here, 0o755)
            shutil.copyfile(self.order["archive"], f"{here}/{self.order['wheel']}")
        elif wanted and wanted.takes_source:
            shutil.copytree(source, here, symlinks=True)
        else:
            yield source, None
            return
        self.steps.step("handing over its source", ["chown", "--recursive", "--no-dereference", f"{self.user}:{self.user}", here])
        yield here, f"{here}/{self.order['wheel']}" if self.order["wheel"] else None
        shutil.rmtree(here)

    def _installation(self, installer: Pip | Uv, source: str, wanted: requirements.Wanted | None, wheel: str | None) -> Command:
        if wanted is None:
            if self.order["package"]:
                return installer.install("installing its package", [f"{self.order['package']}=={self.order['version']}"])
            return installer.install("installing its wheel", [str(wheel)])
        path = f"{source}/{wanted.path}"
        if wanted.kind == "lock" and isinstance(installer, Uv):
            return installer.sync("installing its locked requirements", os.path.dirname(path))
        if wanted.kind == "project":
            return installer.install("installing its project", [os.path.dirname(path)])
        return installer.install("installing its requirements", ["--requirement", path], hashed=wanted.hashed)

    def _installer(self, folder: str, wanted: requirements.Wanted | None) -> Pip | Uv:
        needs_uv = wanted is not None and wanted.kind == "lock"
        why = ""
        if needs_uv and self.order["installer"] == "pip":
            raise self.steps.error("choosing its installer", f"only uv understands {wanted.path}. Set installer to auto, or requirements to a file for pip")
        if self.order["installer"] != "pip":
            program, why = find_uv(self.steps)
            if program:
                return Uv(program, self.order["python"], folder)
            if needs_uv or self.order["installer"] == "uv":
                raise self.steps.error("getting uv", why)
        self._see_that_venv_is_there()
        return Pip(self.order["python"], folder)

    def _see_that_venv_is_there(self) -> None:
        if self.steps.run([self.order["python"], "-c", "import ensurepip, venv"], may_be_missing=True)[0] != 0:
            package = f"python{'.'.join((self.python_version() or '3').split('.')[:2])}-venv"
            raise self.steps.error(
                "making its environment",
                f"{self.order['python']} cannot make virtual environments. Install what it lacks on the host "
                f"(a distribution's package {package}), or set installer to uv, which does without",
            )


def _size(folder: str) -> int:
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, _folders, names in os.walk(folder) for name in names)
