"""One host with the applications of all examples, and one beside them that has been taken over."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from load import Load
from visitor import Visitor

ROOT = Path(__file__).parents[3]
PROBE = Path(__file__).parents[1] / "probe"
EXAMPLES = ("patchman", "ihatemoney", "marimo")
PAGES = {"patchman": "/login/", "money": "/", "notebook": "/health", "probe": "/"}


class Apps:
    """What a host has, and the secrets of its apps."""

    def __init__(self, host: Any, name: str, address: str, play: Callable[..., Any], folder: Path) -> None:
        self.host, self.name, self.address, self._play, self._folder = host, name, address, play, folder
        self.secrets = {app: f"the-secret-of-{app}-{secrets.token_hex(8)}" for app in (*EXAMPLES, "probe")}

    def site(self, label: str) -> str:
        return f"{label}.{self.name}.example.test"

    def deploy(self, *flags: str, **probe: Any) -> Any:
        """Deploy the examples, word for word but for their domain, in one run; and the probe, with these keys."""
        apps, sites, tasks = [], [], []
        for example in EXAMPLES:
            (play,) = yaml.safe_load((ROOT / f"examples/{example}.yml").read_text())
            for app in self._here(play["vars"]["gunicorn_apps"]):
                apps.append({**app, "source": {"path": str(ROOT / "examples" / app["source"]["path"])}})
            sites += self._here(play["vars"]["nginx_sites"])
            tasks += play.get("pre_tasks", [])
        ours = {"name": "probe", "source": {"path": str(PROBE)}, "app": "wsgi:application", "workers": 1, "environment": {"MARKER": self.secrets["probe"]}}
        apps.append({**ours, **probe})
        if probe.get("state") != "absent":
            sites.append({"name": "probe", "server_names": [self.site("probe")], "app": "probe"})
        play = {
            "name": "Deploy what the examples deploy, and the probe",
            "hosts": "web",
            "become": True,
            "gather_facts": False,
            "vars": {"gunicorn_apps": apps, "nginx_sites": sites},
            "pre_tasks": tasks,
            "roles": ["portico.web.gunicorn", "portico.web.nginx", "portico.web.certbot"],
        }
        (self._folder / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
        # As from a vault: on no command line.
        vault = self._folder / "vault.json"
        vault.write_text(json.dumps({f"vault_{app}_secret_key": secret for app, secret in self.secrets.items()}))
        return self._play(str(self._folder / "play.yml"), "--limit", self.name, "--extra-vars", f"@{vault}", *flags)

    def _here(self, value: Any) -> Any:
        """Return a part of an example with this host's domain in it."""
        if isinstance(value, dict):
            return {key: self._here(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._here(each) for each in value]
        return value.replace(".example.com", f".{self.name}.example.test") if isinstance(value, str) else value

    def load(self, *labels: str) -> Load:
        return Load(self.address, [f"https://{self.site(label)}{PAGES[label]}" for label in labels], ca=str(issuing_root()), clients=4, pause=0.02)

    def main_processes(self) -> dict[str, str]:
        """The main process of each unit of an app that runs."""
        units = self.host.check_output("systemctl list-units --plain --no-legend --state=active --type=service 'portico-*' | cut -d ' ' -f 1").split()
        return {unit: self.host.check_output("systemctl show --property MainPID --value %s", unit) for unit in units}

    def python(self, script: str) -> Any:
        """Run a script on the host, in whose process list no word of it is, and return what it prints as JSON."""
        done = subprocess.run(["docker", "exec", "--interactive", self.name, "python3", "-"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def issuing_root() -> Path:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "issuing-root.pem")


WATCH = """
# As nobody, for as long as the file is there: what anybody can see of the processes that come and go.
import glob, os, time
open("/run/watching", "w").close()
seen = open("/run/seen", "wb")
os.nice(19), os.setgroups([]), os.setgid(65534), os.setuid(65534)
known = set()
while os.path.exists("/run/watching"):
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                text = file.read()
        except OSError:
            continue
        if text not in known:
            known.add(text)
            seen.write(text + b"\\n")
    time.sleep(0.1)  # between two looks at the process list, which tells nobody that it has grown
seen.close()
"""

_apps: dict[str, Apps] = {}


@pytest.fixture(scope="module")
def apps(host: Any, name: str, address: str, play: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Apps:
    """The host with all apps, deployed once for all modules; `first` is that run, told as loudly as an operator may ask."""
    if name not in _apps:
        apps = Apps(host, name, address, play, tmp_path_factory.mktemp("plays"))
        watcher = subprocess.Popen(["docker", "exec", "--interactive", name, "python3", "-"], stdin=subprocess.PIPE, text=True)
        watcher.stdin.write(WATCH)
        watcher.stdin.close()
        apps.first = apps.deploy("-vvv", "--diff")
        host.check_output("rm /run/watching")
        assert watcher.wait(60) == 0
        assert apps.first.ok, apps.first.output[-20000:]
        _apps[name] = apps
    return _apps[name]


@pytest.fixture
def someone(apps: Apps) -> Visitor:
    """A visitor of this host's sites."""
    return Visitor(apps.address, ca=str(issuing_root()))
