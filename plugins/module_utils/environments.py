# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Virtual environments: addressed by what went into them, and used again for the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import typing as t

from ansible_collections.portico.web.plugins.module_utils import files, layout
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

COMPLETE = "complete.json"

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

    def python_version(self) -> str | None:
        rc, out, _err = self.steps.run([self.order["python"], "-c", "import platform; print(platform.python_version())"], may_be_missing=True)
        return out.strip() if rc == 0 and out.startswith("3.") else None

    def make(self, source: str) -> str:
        """Make the virtual environment that the source asks for, or find the one that was made for the same."""
        requirements = f"{source}/{self.order['requirements']}"
        if not os.path.isfile(requirements):
            raise self.steps.error("making its environment", f"the source has no {self.order['requirements']}. Set the key requirements")
        made_of = "\0".join((self.order["python"], self.python_version() or "", files.read(requirements) or "", self.order["gunicorn"]))
        folder = f"{self.folder}/{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
        if os.path.isfile(f"{folder}/{COMPLETE}"):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        self.steps.step("handing over its environment", ["chown", f"{self.user}:{self.user}", folder])
        # As the app's user: what pip builds may run code of strangers.
        as_user = ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups", "--"]
        pip = [*as_user, f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
        self.steps.step("making its environment", [*as_user, self.order["python"], "-m", "venv", folder], cwd=source)
        self.steps.step("installing its requirements", [*pip, "--requirement", requirements], cwd=source)
        if not os.path.exists(f"{folder}/bin/gunicorn"):
            self.steps.step("installing gunicorn", [*pip, self.order["gunicorn"]], cwd=source)
        self.steps.step("sealing its environment", ["chown", "--recursive", "--no-dereference", f"root:{self.user}", folder])
        self.steps.step("sealing its environment", ["chmod", "--recursive", "u=rwX,g=rX,o=", folder])
        with open(f"{folder}/{COMPLETE}", "w", encoding="utf-8") as file:
            json.dump({"python": self.order["python"]}, file)
        return folder
