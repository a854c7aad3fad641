"""The server of these tests, and the app's versions."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from load import Load
from visitor import Answer

APP = Path(__file__).parents[1] / "app"
SITE = "http://shop.example.test/"


def version_of(reply: Answer) -> str:
    return reply.body.decode().strip() if reply.status == 200 else f"status {reply.status}"


class Shop:
    """A server with the app, and visitors who read and post."""

    def __init__(self, host: Any, name: str, address: str, play: Callable[..., Any], folder: Path) -> None:
        self.host, self.name, self.address, self._play, self._folder = host, name, address, play, folder

    def write(self, version: str, **files: str) -> Path:
        """Write a version of the app, and more or other files of it."""
        folder = self._folder / version
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(APP, folder)
        (folder / "wsgi.py").write_text((APP / "wsgi.py").read_text().replace("VERSION = \"VERSION\"", f"VERSION = {version!r}"))
        (folder / "requirements.txt").write_text("")
        for name, text in files.items():
            (folder / f"{name}.py" if "." not in name else folder / name).write_text(text)
        return folder

    def deploy(self, version: str, *flags: str, files: dict[str, str] | None = None, **variables: Any) -> Any:
        given = {"folder": str(self.write(version, **(files or {}))), **variables}
        return self._play("deploy.yml", "--limit", self.name, "--extra-vars", json.dumps(given), *flags)

    def load(self, timeout: float = 10) -> Load:
        return Load(self.address, [SITE, f"POST {SITE}"], label=version_of, timeout=timeout)

    def version(self) -> set[str]:
        """Which versions visitors meet."""
        with self.load() as load:
            pass
        assert not load.report.lost, load.report
        return set(load.report.labels)

    def live(self) -> str:
        return self.host.check_output("readlink /srv/portico/shop/live")

    def workers_of_nginx(self) -> list[str]:
        return sorted(self.host.check_output("pgrep --parent $(cat /run/nginx.pid)").split())

    def running(self) -> list[str]:
        return sorted(re.findall(r"portico-shop@\w\.service", self.host.check_output("systemctl list-units --no-legend --plain --state=active 'portico-shop@*'")))

    def reboot(self) -> None:
        subprocess.run(["docker", "restart", self.name], check=True, capture_output=True)
        self.host.run("timeout 60 sh -c 'until systemctl is-system-running --wait | grep -qE \"running|degraded\"; do sleep 0.2; done'")


@pytest.fixture(scope="module")
def shop(host: Any, name: str, address: str, play: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The server with a first version of the app."""
    shop = Shop(host, name, address, play, tmp_path_factory.mktemp("versions"))
    run = shop.deploy("first")
    assert run.ok, run.output
    assert shop.version() == {"first"}
    return shop
