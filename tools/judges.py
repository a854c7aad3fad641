"""What gixy, which others wrote, finds in a server's nginx configuration."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

COPY = "tar --create --dereference --exclude 'privkey*' --directory /etc nginx | base64 --wrap 0"


def findings(host: Any, folder: Path) -> dict[str, list[str]]:
    """Return what is found, check to the reasons that are given.

    :param host: the server, as testinfra has it.
    :param folder: somewhere to copy its configuration to.
    """
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(host.check_output(COPY)))) as archive:
        archive.extractall(folder, filter="data")
    done = subprocess.run(["gixy", "--format", "json", "nginx.conf"], cwd=folder / "nginx", capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {}
    for each in json.loads(done.stdout):
        found.setdefault(each["plugin"], []).append(each["reason"])
    return found
