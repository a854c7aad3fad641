# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pip and uv: how each of them makes an environment and installs into it, and what each is told of the host's settings."""

from __future__ import annotations

import configparser
import contextlib
import os
import tempfile
import typing as t
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from ansible_collections.portico.web.plugins.module_utils import commands, files, layout
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

UV_VERSION = "0.13.9"
SECONDS_TO_GET_UV = 300

PIP_SETTINGS = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf")
"""Where a host's administrator tells pip of indexes and certificates; a user's own file is not the host's."""
_OF_THE_NETWORK = ("cert", "client-cert", "proxy", "trusted-host", "timeout", "retries")
"""How an index is reached, whichever it is."""
SYSTEM_PYTHON = "/usr/bin/python3"
"""What gets uv, whatever Python an app runs on."""


class Command(t.NamedTuple):
    """A step of a build: its name for people, and what is run."""

    name: str
    argv: list[str]


class Pip:
    """Python's own tools."""

    def __init__(self, python: str, folder: str) -> None:
        self.python, self.folder = python, folder

    def make(self) -> list[Command]:
        return [Command("making its environment", [self.python, "-m", "venv", self.folder])]

    def install(self, name: str, what: Iterable[str], hashed: bool = False) -> Command:
        pip = [f"{self.folder}/bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
        return Command(name, [*pip, *(["--require-hashes"] if hashed else []), *what])

    @staticmethod
    def settings(index: str | None) -> dict[str, str]:
        if not index:
            return {}
        # In place of all that the host names, in files and variables: a package of that name elsewhere must not come in.
        kept = {f"PIP_{name.replace('-', '_').upper()}": value for name, value in pip_settings(os.environ).items() if name in _OF_THE_NETWORK}
        return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_NO_INDEX": "", "PIP_INDEX_URL": index}


class Uv:
    """uv, which understands lock files, and is the faster one."""

    def __init__(self, program: str, python: str, folder: str) -> None:
        self.program, self.python, self.folder = program, python, folder

    def make(self) -> list[Command]:
        return [Command("making its environment", [self.program, "venv", "--quiet", "--python", self.python, self.folder])]

    def install(self, name: str, what: Iterable[str], hashed: bool = False) -> Command:
        install = [self.program, "pip", "install", "--quiet", "--python", f"{self.folder}/bin/python"]
        return Command(name, [*install, *(["--require-hashes"] if hashed else []), *what])

    def sync(self, name: str, project: str) -> Command:
        # Frozen: exactly what was locked, whatever the index has by now.
        return Command(name, [self.program, "sync", "--quiet", "--frozen", "--no-dev", "--no-editable", "--python", self.python, "--project", project])

    def settings(self, index: str | None, cache: str) -> dict[str, str]:
        found = {
            "UV_CACHE_DIR": cache,
            # The environment is sealed afterwards, where Python could not write what it has compiled.
            "UV_COMPILE_BYTECODE": "1",
            # Sealing must not reach what is in the cache.
            "UV_LINK_MODE": "copy",
            "UV_NO_PROGRESS": "1",
            "UV_PROJECT_ENVIRONMENT": self.folder,
            "UV_PYTHON_DOWNLOADS": "never",
            # The certificates that the host trusts, and not uv's own.
            "UV_SYSTEM_CERTS": "1",
            **as_uv(pip_settings(os.environ), os.environ),
        }
        if index:
            # As with pip.
            found.update({name: "" for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")})
            found.update(UV_NO_SYSTEM_CONFIG="1", UV_INDEX_STRATEGY="first-index", UV_DEFAULT_INDEX=index)
            if "UV_CONFIG_FILE" in os.environ:
                found["UV_CONFIG_FILE"] = os.devnull
            trusted = pip_settings(os.environ).get("trusted-host", "").split()
            if trusted and "UV_INSECURE_HOST" not in os.environ:
                found["UV_INSECURE_HOST"] = " ".join(trusted)
        return found


def index_url(index: Mapping[str, str] | None, password: str | None) -> str | None:
    """Return the URL of a private index with what opens it, for an environment that nobody else reads."""
    if not index:
        return None
    url = urlsplit(index["url"])
    if not index.get("user"):
        return index["url"]
    login = quote(index["user"], safe="") + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(url._replace(netloc=f"{login}@{url.netloc}"))


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the host tells pip of indexes, certificates and proxies, in its files and, before these, in its environment."""
    found: dict[str, str] = {}
    parser = configparser.RawConfigParser()
    for path in (*PIP_SETTINGS, environment.get("PIP_CONFIG_FILE", "")):
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            # pip itself says what is wrong with it.
            continue
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update((name.replace("_", "-"), value) for name, value in parser.items(section))
    found.update((name[4:].lower().replace("_", "-"), value) for name, value in environment.items() if name.startswith("PIP_"))
    return found


def as_uv(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings in uv's words, but for what the host tells uv itself."""
    found: dict[str, str] = {}
    if "index-url" in pip:
        found["UV_DEFAULT_INDEX"] = pip["index-url"]
    if pip.get("extra-index-url", "").split():
        found["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        # pip takes the best version of all indexes; uv would take the first index that has the package.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if pip.get("find-links", "").split():
        found["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if pip.get("trusted-host", "").split():
        found["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        found["UV_NO_INDEX"] = "1"
    if "cert" in pip:
        found["SSL_CERT_FILE"] = pip["cert"]
    if "proxy" in pip:
        found["HTTPS_PROXY"] = found["HTTP_PROXY"] = pip["proxy"]
    told_uv = {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"} & environment.keys()
    if told_uv or os.path.isfile("/etc/uv/uv.toml"):
        found = {name: value for name, value in found.items() if not name.startswith("UV_")}
    return {name: value for name, value in found.items() if name not in environment}


def find_uv(steps: Steps) -> tuple[str | None, str]:
    """Return the host's uv, or Portico's, which is fetched if it is not there yet; and, where neither can be had, why.

    It is the published wheel of one version. Nothing of it is run as root.
    """
    own = commands.find("uv")
    if own:
        return own, ""
    program = f"{layout.UV}/{UV_VERSION}/uv"
    files.open_folders(layout.UV, os.path.dirname(layout.UV))
    if os.access(program, os.X_OK):
        return program, ""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=layout.UV) as here:
        rc, out, err = steps.run(["timeout", str(SECONDS_TO_GET_UV), SYSTEM_PYTHON, "-m", "venv", f"{here}/pip"])
        if rc == 0:
            pip = [f"{here}/pip/bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
            wheel = ["--only-binary", ":all:", "--no-deps", "--no-compile", f"uv=={UV_VERSION}"]
            rc, out, err = steps.run(["timeout", str(SECONDS_TO_GET_UV), *pip, *wheel])
        if rc != 0:
            return None, f"{out}\n{err}".strip()
        os.mkdir(f"{here}/bin", 0o755)
        os.chmod(f"{here}/bin", 0o755)
        os.rename(f"{here}/pip/bin/uv", f"{here}/bin/uv")
        os.chmod(f"{here}/bin/uv", 0o755)
        # Another app's run may have been faster, and builds with it already.
        with contextlib.suppress(OSError):
            os.rename(f"{here}/bin", os.path.dirname(program))
    if not os.access(program, os.X_OK):
        return None, f"{os.path.dirname(program)} is in the way. Remove it"
    return program, ""
