# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files on the controller, as Ansible reads them."""

from __future__ import annotations

import functools
import json
import typing as t
from collections.abc import Callable
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.module_utils.common.yaml import yaml_load

ReadText = Callable[[str], str]


@functools.lru_cache(maxsize=1)
def collection_version() -> str:
    """Return the version of this collection: an installed one has a manifest, a checkout what the manifest is made of."""
    root = Path(__file__).parents[2]
    manifest = root / "MANIFEST.json"
    if manifest.is_file():
        return json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
    return str(yaml_load((root / "galaxy.yml").read_text(encoding="utf-8"))["version"])


def reader(loader: t.Any) -> ReadText:
    """Return what reads a text file of the controller: beside the playbook where its path is relative, and decrypted where it is vaulted.

    :param loader: Ansible's DataLoader. The function that it gives raises OSError or ValueError, which say why a file cannot be read.
    """

    def read(path: str) -> str:
        where = loader.path_dwim(path)
        try:
            # Opened here, because Ansible does not say why it could not. What it decrypts is never in a file.
            with open(where, "rb"):
                content, _plain = loader._get_file_contents(path)
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError("it is not text") from error
        except AnsibleError as error:
            raise ValueError("it cannot be decrypted with the vault passwords of this run") from error

    return read
