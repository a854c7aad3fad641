# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of apps: from what people write to complete objects, and from those to what a host is told."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import stat
import tarfile
import typing as t
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.plugin_utils import entries, formats
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, PorticoError, did_you_mean, problem

GUNICORN = "gunicorn==27.0.1"
"""What is installed beside requirements that bring no gunicorn."""

_TEMPLATES = Path(__file__).parents[2] / "roles" / "gunicorn" / "templates"
_WORKER_CLASSES = {"uvicorn": "uvicorn_worker.UvicornWorker"}
_THREADS = 4
_LEAST_MEMORY = 64
"""In MiB: with less not even gunicorn and a small app start."""
_LEAST_TASKS = 32
_CREDENTIALS_BYTES = 1024 * 1024
"""What systemd hands over to a unit, all in all (systemd.exec(5), LoadCredential=)."""
_LEFT_BEHIND = frozenset((".git", ".hg", ".svn", ".venv", "venv", "__pycache__", "node_modules", ".pytest_cache", ".mypy_cache", ".tox"))


def normalise_apps(apps: object, variable: str = "gunicorn_apps") -> list[Entry]:
    """Return the apps complete and checked, as M(portico.web.gunicorn_deploy) describes them.

    :raises PorticoError: at the first mistake; it shows no value of an environment and no credential.
    """
    described = entries.options("gunicorn_deploy", "apps")
    complete = entries.normalise(variable, apps, described, _FORMATS, secret=["environment", "credentials"])
    for app in complete:
        if app["state"] == "absent":
            continue
        for key in ("source", "app"):
            if app[key] is None:
                raise problem(variable, app["name"], key, HIDDEN, "is missing. Every entry needs it.")
        _check_source(variable, app)
        _check_shared(variable, app)
        _check_processes(variable, app)
    _refuse_shared_units(variable, complete)
    return complete


def present(apps: list[Entry]) -> list[Entry]:
    """Return the apps that are to be there."""
    return [app for app in apps if app["state"] == "present"]


def app_at(apps: object, name: str, version: str | None, path: str | None, archive: str | None, variable: str = "gunicorn_apps") -> Entry:
    """Return one app as the list has it, but for what is said of its source.

    :raises PorticoError: for an app that is not in the list, and for what its source has no use for.
    """
    by_name = {str(each["name"]): each for each in apps if isinstance(each, dict) and "name" in each} if isinstance(apps, list) else {}
    if name not in by_name:
        raise PorticoError(f'{variable} has no app "{name}". {did_you_mean(name, by_name)}')
    app = by_name[name]
    given = {key: value for key, value in (("version", version), ("path", path), ("archive", archive)) if value is not None}
    if len(given) > 1:
        raise PorticoError(f'The app "{name}" is given a {" and a ".join(given)} to deploy. Keep one of them.')
    if version is None:
        # They come from a command line, and are meant from where that was given.
        return {**app, "source": {key: os.path.abspath(value) for key, value in given.items()}} if given else app
    source = app.get("source") or {}
    if not isinstance(source, dict) or not {"git", "package"} & set(source):
        raise problem(variable, name, "source", HIDDEN, f"has no versions, but was to be deployed at {version}. Give a path or an archive.")
    return {**app, "source": {**source, "version": version}}


def check_folders(apps: list[Entry], resolve: Callable[[str], str], variable: str = "gunicorn_apps") -> None:
    """Refuse a source folder that the controller does not have, or that lacks its requirements.

    :param resolve: makes a path absolute that was written beside the playbook.
    """
    for app in present(apps):
        path = app["source"]["path"]
        if path is None:
            continue
        folder = resolve(path)
        if not os.path.isdir(folder):
            raise problem(variable, app["name"], "source.path", path, f"is not a folder on the controller (looked for {folder}).")
        if not os.path.isfile(os.path.join(folder, app["requirements"])):
            known = [each for each in os.listdir(folder) if each.endswith((".txt", ".in"))]
            raise problem(variable, app["name"], "requirements", app["requirements"], f"is not a file in {folder}. {did_you_mean(app['requirements'], known)}")


def folder_digest(folder: str) -> str:
    """Return the fingerprint of a folder: of every path, its kind, whether it is executable, and its content."""
    total = hashlib.sha256()
    for path, relative in _contents(folder):
        executable = bool(os.lstat(path).st_mode & stat.S_IXUSR)
        if os.path.islink(path):
            content = os.readlink(path).encode()
        elif os.path.isdir(path):
            content = b""
        else:
            content = Path(path).read_bytes()
        kind = "link" if os.path.islink(path) else "folder" if os.path.isdir(path) else "program" if executable else "file"
        total.update(f"{relative}\0{kind}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def pack(folder: str, archive: str) -> None:
    """Write a folder into a tar file, without what development leaves in it."""
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for path, relative in _contents(folder):
            tar.add(path, arcname=relative, recursive=False)


def release_id(app: Entry, source: str, python: str) -> str:
    """Return the identifier of the release that these make: the same again for the same.

    :param source: the fingerprint of a folder, or a commit.
    :param python: the version of the host's Python.
    """
    parts = [source, python, GUNICORN, app["requirements"], app["before_traffic"], sorted(app["static"].items()), sorted(app["shared"])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def host_files(app: Entry, socket_user: str) -> dict[str, str]:
    """Return the files of an app that are no secret, path on the host to text: its units and gunicorn's settings.

    In a path C(%i) is the slot that the text is for, as in systemd's units.
    """
    unit, settings = layout.app_unit(app["name"]), layout.slot_settings(app["name"], "%i")
    values = {
        "app": app,
        "unit": unit,
        "home": layout.app_home(app["name"]),
        "state": layout.app_state(app["name"]),
        "socket": layout.slot_socket(app["name"], "%i"),
        "socket_user": socket_user,
        "settings": settings,
        "credentials": layout.slot_credentials(app["name"], "%i"),
        "threads": app["threads"] or (_THREADS if app["worker_class"] == "gthread" else 1),
        "worker_class": _WORKER_CLASSES.get(app["worker_class"], app["worker_class"]),
    }
    companions = {layout.companion_unit(app["name"], companion["name"]): companion for companion in app["companions"]}
    return {
        f"{layout.UNITS}/{unit}@.socket": _templates().get_template("app.socket.j2").render(values),
        f"{layout.UNITS}/{unit}@.service": _templates().get_template("app.service.j2").render(values),
        f"{settings}.conf.py": _templates().get_template("gunicorn.conf.py.j2").render(values),
        **{
            f"{layout.UNITS}/{name}@.service": _templates().get_template("companion.service.j2").render(values, companion=companion, marker=layout.companion_marker(app["name"]))
            for name, companion in companions.items()
        },
    }


def credentials_text(credentials: Mapping[str, str]) -> str:
    """Return credentials as one text, always the same for the same; the host writes a file for each, and makes this text of them to compare."""
    return json.dumps(credentials, sort_keys=True)


def environment_file(environment: Mapping[str, str]) -> str:
    """Return environment variables as systemd reads them back, byte for byte.

    Inside double quotes a backslash keeps C("), C(\\), C($) and C(`) from their meaning, and a newline is a newline
    (systemd.exec(5), EnvironmentFile=).
    """
    escaped = {name: re.sub(r'(["\\$`])', r"\\\1", value) for name, value in sorted(environment.items())}
    return "".join(f'{name}="{value}"\n' for name, value in escaped.items())


def _contents(folder: str) -> Iterator[tuple[str, str]]:
    """Walk a folder in an order that is always the same."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in _LEFT_BEHIND)
        for name in sorted([*folders, *names]):
            if not name.endswith((".pyc", ".pyo")):
                path = os.path.join(parent, name)
                yield path, os.path.relpath(path, folder)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    # Units and Python are not HTML: every value in them is a checked name or number, or goes through tojson or systemd_words.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["systemd_words"] = lambda command: systemd_words(shlex.split(command))
    return environment


def systemd_words(words: Iterable[str]) -> str:
    """Return words of a command as systemd reads them back, each as it is.

    In double quotes nothing but a backslash, a quote, C(%) (a specifier) and C($) (a variable) has a meaning
    (systemd.syntax(7), systemd.service(5), "Command lines").
    """
    return " ".join('"' + re.sub(r'([\\"])', r"\\\1", word).replace("%", "%%").replace("$", "$$") + '"' for word in words)


def _check_source(variable: str, app: Entry) -> None:
    source = app["source"]
    given = [key for key in ("path", "git") if source[key] is not None]
    if not given:
        raise problem(variable, app["name"], "source.path or source.git", HIDDEN, "is missing. Say where the app comes from.")
    if len(given) == 2:
        raise problem(variable, app["name"], "source.path and source.git", HIDDEN, "are given together. Keep one of them.")
    if given == ["git"] and source["version"] is None:
        raise problem(variable, app["name"], "source.version", HIDDEN, "is missing. Name the branch, tag or commit to deploy.")
    if given == ["path"] and source["version"] is not None:
        raise problem(variable, app["name"], "source.version", source["version"], "has no meaning for a folder. Take it out.")


def _check_shared(variable: str, app: Entry) -> None:
    """Refuse a shared folder that is another's, or that nginx would have to read: the state directory is the app's alone."""
    for at, folder in enumerate(app["shared"]):
        for twin in app["shared"][:at]:
            if _overlap(folder, twin):
                raise problem(variable, app["name"], "shared", folder, f"overlaps with {twin}. Keep the outer one.")
        for mount in sorted(app["static"].values()):
            if _overlap(folder, mount):
                why = f"overlaps with the static folder {mount}. What nginx serves belongs to a release; take it out of one of the two."
                raise problem(variable, app["name"], "shared", folder, why)


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _check_processes(variable: str, app: Entry) -> None:
    if app["worker_class"] != "gthread" and app["threads"] not in (None, 1):
        raise problem(variable, app["name"], "threads", app["threads"], f"has no meaning with worker_class {app['worker_class']}. Take it out, or write worker_class: gthread.")
    tasks = 1 + (app["workers"] or 1) * (1 + (app["threads"] or 1))
    if tasks > app["tasks"]:
        raise problem(variable, app["name"], "tasks", app["tasks"], f"is too little for its workers and threads, which are {tasks} processes and threads already.")
    named: dict[str, int] = {}
    for at, companion in enumerate(app["companions"]):
        if companion["name"] in named:
            raise problem(variable, app["name"], f"companions[{at}].name", companion["name"], f"is the name of companions[{named[companion['name']]}] too. Give each a name of its own.")
        named[companion["name"]] = at


def _refuse_shared_units(variable: str, apps: list[Entry]) -> None:
    """Refuse a companion whose unit would be another app's: C(web) of the app C(shop) and the app C(shop-web)."""
    owners = {layout.app_unit(app["name"]): app["name"] for app in apps}
    for app in apps:
        for at, companion in enumerate(app["companions"]):
            owner = owners.setdefault(layout.companion_unit(app["name"], companion["name"]), app["name"])
            if owner != app["name"]:
                raise problem(variable, app["name"], f"companions[{at}].name", companion["name"], f'makes a unit that the app "{owner}" has too. Give it another name.')


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?", value):
        raise ValueError("is not an app's name. Use small letters, digits and hyphens; begin with a letter; at most 24.")
    return value


def _callable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?", value, re.ASCII):
        raise ValueError("is not what gunicorn can run. Write module:callable, such as shop.wsgi:application.")
    return value


def _static(value: dict[t.Any, t.Any]) -> dict[str, str]:
    mounts = {}
    for prefix, folder in value.items():
        for each in (prefix, folder):
            if not isinstance(each, str):
                raise ValueError("has something in it that is not text. Write paths and folders, such as {/static/: staticfiles}.")
        try:
            formats.url_path(prefix)
            mounts[prefix] = formats.relative_path(folder)
        except ValueError as error:
            raise ValueError(f"does not fit at {prefix!r}: it {error}") from error
        if not prefix.endswith("/") or prefix == "/":
            raise ValueError(f"does not fit at {prefix!r}: begin and end it with a slash, with a name between them.")
    return mounts


def _environment(value: dict[t.Any, t.Any]) -> dict[str, str]:
    variables = {}
    for name, content in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"has the name {name!r}, which no environment variable can have. Use letters, digits and underscores.")
        if isinstance(content, bool) or not isinstance(content, (str, int, float)):
            raise ValueError(f"has a value for {name} that is not text. Write it in quotes.")
        text = str(content)
        if re.search(r"[^\n\t\x20-\U0010ffff]|\x7f|[\ud800-\udfff]", text):
            raise ValueError(f"has a control character in the value of {name}, which systemd does not carry. Take it out, or encode it.")
        variables[name] = text
    return variables


def _command(value: str) -> str:
    formats.printable(value)
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"is not a command: {error}.") from error
    if not words:
        raise ValueError("is empty. Write a command, or take the line out.")
    return value


def _companion(value: str) -> str:
    _command(value)
    first = shlex.split(value)[0]
    if first.startswith("-") or "=" in first or not first:
        raise ValueError("does not begin with a program. Put variables under the key environment.")
    return value


def _credentials(value: dict[t.Any, t.Any]) -> dict[str, str]:
    found = {}
    for name, content in value.items():
        if not isinstance(name, str):
            raise ValueError("has a name that is not text. Write it in quotes.")
        try:
            formats.file_name(name)
        except ValueError as error:
            raise ValueError(f"has the name {name!r}, which {error}") from error
        if not isinstance(content, str):
            raise ValueError(f"has something at {name} that is not text. Write it in quotes.")
        try:
            content.encode()
        except UnicodeEncodeError:
            raise ValueError(f"has something at {name} that is no text. For binary content, encode it, for example as base64.") from None
        found[name] = content
    if sum(len(name) + len(content.encode()) for name, content in found.items()) > _CREDENTIALS_BYTES:
        raise ValueError("is more than 1 MiB, which systemd does not hand over. Shorten it.")
    return found


def _memory(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,6}[MG]", value):
        raise ValueError("is no amount of memory. Write a whole number and M or G, such as 512M.")
    if int(value[:-1]) * (1024 if value.endswith("G") else 1) < _LEAST_MEMORY:
        raise ValueError(f"is too little for any app. Write {_LEAST_MEMORY}M or more.")
    return value


def _cpu(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,5}%", value):
        raise ValueError("is no share of the CPUs' time. Write a whole number and %, such as 150% for one and a half.")
    return value


def _tasks(value: int) -> int:
    if value < _LEAST_TASKS:
        raise ValueError(f"is too little for any app. Write {_LEAST_TASKS} or more.")
    return value


def _not_negative(value: int) -> int:
    if value < 0:
        raise ValueError("is less than nothing. Write 0 or more.")
    return value


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError("is too little. Write 1 or more.")
    return value


def _at_least_two(value: int) -> int:
    if value < 2:
        raise ValueError("is too little: the live release and the one before it are always kept. Write 2 or more.")
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
        raise ValueError("is not a host name.")
    return value


def _status(value: int) -> int:
    if not 100 <= value <= 599:
        raise ValueError("is no status of HTTP. Write a number from 100 to 599.")
    return value


def _repository(value: str) -> str:
    formats.printable(value)
    if not re.match(r"(https?|ssh|git|file)://\S+$|[\w.-]+@[\w.-]+:\S+$", value) or value.startswith("-"):
        raise ValueError("is not the URL of a repository. Write https://..., ssh://... or user@host:path.")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*", value) or ".." in value:
        raise ValueError("is not a branch, tag or commit.")
    return value


_FORMATS: Mapping[str, entries.Format] = {
    "name": _name,
    "source.git": _repository,
    "source.version": _version,
    "app": _callable,
    "static": _static,
    "requirements": formats.relative_path,
    "python": formats.absolute_path,
    "environment": _environment,
    "before_traffic": _command,
    "after_traffic": _command,
    "hook_seconds": _positive,
    "shared": formats.relative_path,
    "keep": _at_least_two,
    "health.path": formats.url_path,
    "health.host": _host,
    "health.status": _status,
    "health.contains": formats.printable,
    "health.seconds": _positive,
    "workers": _positive,
    "threads": _positive,
    "timeout": _positive,
    "graceful_timeout": _positive,
    "max_requests": _not_negative,
    "companions.name": _name,
    "companions.command": _companion,
    "companions.stop_seconds": _positive,
    "memory": _memory,
    "cpu": _cpu,
    "tasks": _tasks,
    "credentials": _credentials,
}
