# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of apps: from what people write to complete objects, and from those to what a host is told."""

from __future__ import annotations

import base64
import binascii
import errno
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
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ansible_collections.portico.web.plugins.module_utils import archives, files, layout, requirements
from ansible_collections.portico.web.plugins.plugin_utils import entries, formats
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, PorticoError, did_you_mean, problem, shown, visible

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
_VARIABLE_BYTES = 128 * 1024
"""What Linux takes as one variable, with its name and the end of it (execve(2), MAX_ARG_STRLEN)."""
_ENVIRONMENT_BYTES = 1024 * 1024
"""All variables together: half of what Linux takes, for there are arguments and systemd's own variables too."""
_LONGEST_PATH = 1024
_LONGEST_NAME = 255
"""In bytes, of a file (NAME_MAX), and of what has the form of one."""
_LONGEST_SECRET = 16 * 1024
_MOST = 2**31 - 1
"""Beyond all use, and within what systemd, Python and gunicorn count with."""
_LEFT_BEHIND = frozenset((".git", ".hg", ".svn", ".venv", "venv", "__pycache__", "node_modules", ".pytest_cache", ".mypy_cache", ".tox"))


def normalise_apps(apps: object, variable: str = "gunicorn_apps") -> list[Entry]:
    """Return the apps complete and checked, as M(portico.web.gunicorn_deploy) describes them.

    :raises PorticoError: at the first mistake; it shows no value of an environment and no credential.
    """
    described = entries.options("gunicorn_deploy", "apps")
    _refuse_passwords_in_urls(variable, apps, described)
    complete = entries.normalise(variable, apps, described, _FORMATS, secret=["environment", "credentials", "source.key", "source.token", "index.password"])
    for app in complete:
        if app["state"] == "absent":
            continue
        for key in ("source", "app"):
            if app[key] is None:
                raise problem(variable, app["name"], key, HIDDEN, "is missing. Every entry needs it.")
        _check_source(variable, app)
        _check_requirements(variable, app)
        _check_shared(variable, app)
        _check_processes(variable, app)
    _refuse_shared_units(variable, complete)
    return complete


def present(apps: list[Entry]) -> list[Entry]:
    """Return the apps that are to be there."""
    return [app for app in apps if app["state"] == "present"]


def app_at(apps: object, name: str, version: object, path: str | None, archive: str | None, variable: str = "gunicorn_apps") -> Entry:
    """Return one app as the list has it, but for what is said of its source.

    :raises PorticoError: for an app that is not in the list, and for what its source has no use for.
    """
    by_name = {str(each["name"]): each for each in apps if isinstance(each, dict) and "name" in each} if isinstance(apps, list) else {}
    if name not in by_name:
        raise PorticoError(f'{variable} has no app "{name}". {did_you_mean(name, by_name)}')
    app = by_name[name]
    if app.get("state") == "absent":
        raise problem(variable, name, "state", "absent", "takes the app away, and it was to be deployed. Take the line out, or run the site's play.")
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
    """Refuse a source that the controller does not have, that must not be unpacked, or that lacks its requirements.

    :param resolve: makes a path absolute that was written beside the playbook.
    """
    for app in present(apps):
        if app["source"]["path"] is not None:
            _check_folder(variable, app, resolve(app["source"]["path"]))
        elif app["source"]["archive"] is not None:
            _check_archive(variable, app, resolve(app["source"]["archive"]))


def _check_folder(variable: str, app: Entry, folder: str) -> None:
    if not os.path.isdir(folder):
        raise problem(variable, app["name"], "source.path", app["source"]["path"], f"is not a folder on the controller (looked for {visible(folder)}).")
    try:
        requirements.read(folder, app["requirements"])
    except (requirements.RequirementsError, OSError) as error:
        raise problem(variable, app["name"], "requirements", HIDDEN, f"do not fit {visible(folder)}. {visible(str(error))}") from error


def _check_archive(variable: str, app: Entry, path: str) -> None:
    archive = app["source"]["archive"]
    if not os.path.isfile(path):
        raise problem(variable, app["name"], "source.archive", archive, f"is not a file on the controller (looked for {visible(path)}).")
    try:
        inside = archives.contents(path)
    except archives.ArchiveError as error:
        raise problem(variable, app["name"], "source.archive", archive, f"{error}. It is not unpacked.") from error
    if archives.suffix(archive) == archives.WHEEL:
        return
    wanted = [app["requirements"]] if app["requirements"] else [requirements.LOCK, requirements.REQUIREMENTS, requirements.PROJECT]
    if not inside & set(wanted):
        known = ", ".join(sorted(each for each in inside if "/" not in each and each.isprintable())[:8]) or "nothing"
        raise problem(variable, app["name"], "requirements", app["requirements"] or HIDDEN, f"{'is' if app['requirements'] else 'are'} not in {visible(archive)}, which has at its top: {known}.")


def fingerprint(source: Entry, resolve: Callable[[str], str]) -> str:
    """Return the fingerprint of a source that is no repository."""
    if source["path"] is not None:
        return folder_digest(resolve(source["path"]))
    if source["archive"] is not None:
        total = hashlib.sha256()
        with open(resolve(source["archive"]), "rb") as file:
            while part := file.read(1 << 20):
                total.update(part)
        return total.hexdigest()
    return f"{source['package']}=={source['version']}"


def archive(source: Entry) -> Entry:
    """Return what the host is told of an archive that comes later: nothing, how it is unpacked, or that it is a wheel of that name."""
    wheel = source["archive"] is not None and archives.suffix(source["archive"]) == archives.WHEEL
    return {
        "archive": None,
        "unpack": "folder" if source["path"] is not None else "archive" if source["archive"] is not None and not wheel else None,
        "wheel": os.path.basename(source["archive"]) if wheel else None,
    }


def public_index(app: Entry) -> Entry | None:
    """Return the index of an app without its password."""
    return app["index"] and {key: app["index"][key] for key in ("url", "user")}


def secrets(app: Entry, *names: str) -> dict[str, str]:
    """Return what opens an app's repository and its index: C(key), C(token), C(password), those that are there."""
    known = {"key": app["source"]["key"], "token": app["source"]["token"], "password": (app["index"] or {}).get("password")}
    return {name: known[name] for name in names if known[name] is not None}


def folder_digest(folder: str) -> str:
    """Return the fingerprint of a folder: of every path, its kind, whether it is executable, and its content."""
    total = hashlib.sha256()
    for path, relative in _contents(folder):
        executable = bool(os.lstat(path).st_mode & stat.S_IXUSR)
        if os.path.islink(path):
            content = os.fsencode(os.readlink(path))
        elif os.path.isdir(path):
            content = b""
        else:
            content = Path(path).read_bytes()
        kind = "link" if os.path.islink(path) else "folder" if os.path.isdir(path) else "program" if executable else "file"
        total.update(os.fsencode(relative) + f"\0{kind}\0{len(content)}\0".encode())
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
    index = app["index"]["url"] if app["index"] else None
    parts = [source, app["python"], python, GUNICORN, app["requirements"], index, app["before_traffic"], sorted(app["static"].items()), sorted(app["shared"])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def host_files(app: Entry, socket_user: str) -> dict[str, str]:
    """Return the files of an app that are no secret, path on the host to text: its units and gunicorn's settings.

    In a path C(%i) is the slot that the text is for, as in systemd's units. Each slot has units of its own, for systemd lays
    what a unit says of memory or addresses upon what runs of it already.

    :raises PorticoError: for a socket_user that cannot be a user.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,30}", socket_user):
        raise problem("gunicorn_socket_user", None, "", socket_user, "is not the name of a user. Write the user that nginx's workers run as, such as www-data.")
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
        "threads": _threads(app),
        "worker_class": _WORKER_CLASSES.get(app["worker_class"], app["worker_class"]),
    }
    companions = {layout.companion_unit(app["name"], companion["name"]): companion for companion in app["companions"]}
    return {
        f"{layout.UNITS}/{unit}@%i.socket": _templates().get_template("app.socket.j2").render(values),
        f"{layout.UNITS}/{unit}@%i.service": _templates().get_template("app.service.j2").render(values),
        f"{settings}.conf.py": _templates().get_template("gunicorn.conf.py.j2").render(values),
        **{
            f"{layout.UNITS}/{name}@%i.service": _templates().get_template("companion.service.j2").render(values, companion=companion, marker=layout.companion_marker(app["name"]))
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
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(each for each in folders if each not in _LEFT_BEHIND)
        for name in sorted([*folders, *names]):
            if not name.endswith((".pyc", ".pyo")):
                path = os.path.join(parent, name)
                kind = os.lstat(path).st_mode
                if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
                    raise OSError(errno.EINVAL, "It is neither a file nor a folder nor a link. Move it out of the source", path)
                yield path, os.path.relpath(path, folder)


def _refuse(error: OSError) -> None:
    """What cannot be listed is not left out: the release would be called complete."""
    raise error


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


KINDS = ("path", "git", "archive", "package")


def _refuse_passwords_in_urls(variable: str, apps: object, described: entries.Options) -> None:
    """Refuse a URL with a password before anything else can be wrong with it and show it, such as the place where it was written."""
    for number, app in enumerate(apps if isinstance(apps, list) else [], start=1):
        if not isinstance(app, dict):
            continue
        name = app["name"] if isinstance(app.get("name"), str) and not _has_a_password(app["name"]) else number
        for key, value in app.items():
            if key in _WITHOUT_PASSWORDS:
                where, instead, has_one = *_WITHOUT_PASSWORDS[key], _has_a_password
            elif key in _COMMANDS:
                where, instead, has_one = str(key), "environment or credentials, where commands find it", _LOGIN.search
            elif key not in described:
                # Misspelt, or in the wrong place: what it would mean elsewhere is not known.
                where, instead, has_one = str(key), "", _has_a_password
            else:
                continue
            if any(has_one(text) for text in _texts(value)):
                why = f"has a password in it, which others would come to see. Put it into {instead}."
                raise problem(variable, name, where, HIDDEN, why if instead else f"is given to a key that does not exist, with a password in it. {did_you_mean(str(key), described)}")


_WITHOUT_PASSWORDS = {
    "source": ("source.git", "source.token, and leave at most the user in the URL"),
    "index": ("index.url", "index.user and index.password"),
}
"""Where a URL stands, and where what opens it belongs."""
_COMMANDS = ("before_traffic", "after_traffic", "companions")
_LOGIN = re.compile(r"://[^/\s?#@:]*:[^/\s@]+@")


def _texts(value: object) -> Iterator[str]:
    """Walk all text that is written at a key, but for what is hidden anyway."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in ("key", "token", "password"):
                yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _has_a_password(value: str) -> bool:
    if re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*://[^?]*\?|[^/@\s:]+:[^/@\s]+@)", value):
        # What stands in a query may open a door; and this is no form of SSH's user@host:path.
        return True
    found = re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*://(?P<user>[^/?#@:]*)(?P<more>:(?![0-9]{1,5}(/|$)).*)?@", value, re.S)
    return found is not None and (found["more"] is not None or _LIKE_A_TOKEN.match(found["user"]) is not None)


# Tokens of GitHub, GitLab and others that people write in the place of a user; and anything as long as one, or nearly, that is no name.
_LIKE_A_TOKEN = re.compile(r"gh[a-z]_|github_pat_|glpat-|gldt-|pypi-|[A-Za-z0-9_]{32}|.{48}", re.S)


def _check_source(variable: str, app: Entry) -> None:
    source, name = app["source"], app["name"]
    given = [key for key in KINDS if source[key] is not None]
    if not given:
        raise problem(variable, name, "source.path or source.git", HIDDEN, "is missing, and so are source.archive and source.package. Say where the app comes from.")
    if len(given) > 1:
        raise problem(variable, name, " and ".join(f"source.{key}" for key in given), HIDDEN, "are given together. Keep one of them.")
    (kind,) = given
    if kind == "git" and source["version"] is None:
        raise problem(variable, name, "source.version", HIDDEN, "is missing. Name the branch, tag or commit to deploy.")
    if kind == "package" and not re.fullmatch(_EXACT_VERSION, source["version"] or ""):
        why = "is no exact version" if source["version"] else "is missing"
        raise problem(variable, name, "source.version", source["version"] or HIDDEN, f"{why}. Name the one to install, such as 4.2.1, so that it is the same one tomorrow.")
    if kind in ("path", "archive") and source["version"] is not None:
        what = "a folder" if kind == "path" else "an archive"
        raise problem(variable, name, "source.version", source["version"], f"has no meaning for {what}. Take it out.")
    _check_credentials(variable, app, kind)


def is_over_ssh(url: str) -> bool:
    """Return whether the URL of a repository, which may have the form C(user@host:path), is one over SSH."""
    return not re.match(r"(https?|git|file)://", url)


def _check_credentials(variable: str, app: Entry, kind: str) -> None:
    source, name = app["source"], app["name"]
    url = source["git"] or ""
    over_ssh = kind == "git" and is_over_ssh(url)
    for key in ("key", "known_hosts"):
        if source[key] is not None and not over_ssh:
            instead = "Use source.token, or a URL such as ssh://git@git.example.com/team/shop.git." if url.startswith("https:") else "Take it out."
            raise problem(variable, name, f"source.{key}", HIDDEN, f"has a meaning for a git repository over SSH alone. {instead}")
    if source["token"] is not None and not url.startswith("https://"):
        why = "would cross the network for all to read over http://. Use https://." if url.startswith("http:") else "has a meaning for a git repository over https:// alone."
        raise problem(variable, name, "source.token", HIDDEN, f"{why} {'With SSH, use source.key.' if over_ssh else 'Otherwise take it out.'}")
    index = app["index"]
    if index and index["password"] is not None:
        if index["user"] is None:
            raise problem(variable, name, "index.user", HIDDEN, "is missing beside index.password. Name the user; for a token, many servers want __token__.")
        if not index["url"].startswith("https://"):
            raise problem(variable, name, "index.password", HIDDEN, "would cross the network for all to read. Let index.url begin with https://.")


def _check_requirements(variable: str, app: Entry) -> None:
    asked = app["requirements"]
    if asked is None:
        return
    if app["source"]["package"] or archives.suffix(app["source"]["archive"] or "") == archives.WHEEL:
        raise problem(variable, app["name"], "requirements", asked, "has no meaning for a package or a wheel, which brings its own. Take it out.")
    if os.path.basename(asked) == requirements.LOCK and app["installer"] == "pip":
        raise problem(variable, app["name"], "installer", "pip", f"does not understand {asked}. Write auto or uv, or name another file of requirements.")


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


def _threads(app: Entry) -> int:
    return app["threads"] or (_THREADS if app["worker_class"] == "gthread" else 1)


def _check_processes(variable: str, app: Entry) -> None:
    if app["worker_class"] != "gthread" and app["threads"] not in (None, 1):
        raise problem(variable, app["name"], "threads", app["threads"], f"has no meaning with worker_class {app['worker_class']}. Take it out, or write worker_class: gthread.")
    tasks = 1 + (app["workers"] or 1) * (1 + _threads(app))
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
            formats.read_path(prefix)
            mounts[prefix] = _inside(folder)
        except ValueError as error:
            raise ValueError(f"does not fit at {prefix[:80]!r}: it {error}") from error
        if not prefix.endswith("/") or prefix == "/":
            raise ValueError(f"does not fit at {prefix[:80]!r}: begin and end it with a slash, with a name between them.")
    return mounts


def _environment(value: dict[t.Any, t.Any]) -> dict[str, str]:
    variables = {}
    for name, content in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"has the name {shown(name)}, which no environment variable can have. Use letters, digits and underscores.")
        if name in _NOT_THE_APPS:
            raise ValueError(f"has {name}, which {_NOT_THE_APPS[name]}. Take it out.")
        if isinstance(content, bool) or not isinstance(content, (str, int, float)):
            raise ValueError(f"has a value for {shown(name)} that is not text. Write it in quotes.")
        text = str(content)
        if re.search(r"[^\n\t\x20-\U0010ffff]|\x7f|[\ud800-\udfff]", text) or _NO_CHARACTER.search(text):
            raise ValueError(f"has a control character in the value of {shown(name)}, which systemd does not carry. Take it out, or encode it.")
        if len(f"{name}={text}\0".encode()) > _VARIABLE_BYTES:
            raise ValueError(f"has a value for {shown(name)} that is longer than the 128 KiB which Linux takes. Shorten it, or make it a credential.")
        variables[name] = text
    if sum(len(f"{name}={text}\0".encode()) for name, text in variables.items()) > _ENVIRONMENT_BYTES:
        raise ValueError("is more than 1 MiB all in all, which Linux does not take. Shorten it.")
    return variables


_NOT_THE_APPS = {
    "PATH": "is set for commands and companions so that the release's own programs are found first. Write other programs with their full paths",
    **dict.fromkeys(
        ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "MAINPID", "WATCHDOG_PID", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM"),
        "systemd sets for each start",
    ),
    **dict.fromkeys(("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"), "systemd sets to the app's own folder"),
}

# Unicode has set these aside, and systemd takes no line and no file with one of them (its utf8_is_valid()).
_NO_CHARACTER = re.compile("[\ufdd0-\ufdef" + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)) + "]")


def _command(value: str) -> str:
    formats.printable(value)
    if _NO_CHARACTER.search(value):
        raise ValueError("has a sign in it that is no character, and that systemd does not carry. Take it out.")
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"is not a command: {error}.") from error
    if not words:
        raise ValueError("is empty. Write a command, or take the line out.")
    # env(1), which finds the program, would take it for an option or a variable.
    if words[0].startswith("-") or "=" in words[0] or not words[0]:
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
            raise ValueError(f"has the name {shown(name)}, which {error}") from error
        if name.endswith(files.SUFFIX):
            raise ValueError(f"has the name {shown(name)}, which a file has that is being written. Give it another one.")
        if not isinstance(content, str):
            raise ValueError(f"has something at {shown(name)} that is not text. Write it in quotes.")
        try:
            content.encode()
        except UnicodeEncodeError:
            raise ValueError(f"has something at {shown(name)} that is no text. For binary content, encode it, for example as base64.") from None
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
    return _bounded(value)


def _not_negative(value: int) -> int:
    if value < 0:
        raise ValueError("is less than nothing. Write 0 or more.")
    return _bounded(value)


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError("is too little. Write 1 or more.")
    return _bounded(value)


def _bounded(value: int) -> int:
    if value > _MOST:
        raise ValueError(f"is beyond all use. Write {_MOST} or less.")
    return value


def _at_least_two(value: int) -> int:
    if value < 2:
        raise ValueError("is too little: the live release and the one before it are always kept. Write 2 or more.")
    return _bounded(value)


def _health_path(value: str) -> str:
    formats.url_path(value)
    if not value.isascii():
        raise ValueError(f"has letters that a request does not have on the wire. Write {shown(quote(value, safe='/%:@!&()*+,;=~'))}.")
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
        raise ValueError("is not a host name.")
    return value


def _status(value: int) -> int:
    if not 100 <= value <= 599:
        raise ValueError("is no status of HTTP. Write a number from 100 to 599.")
    return value


# As host names are on the wire, or an address of IPv6; not what ssh would take for an option or git for one of its settings.
_AUTHORITY = r"([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"


def _folder(value: str) -> str:
    """Return a path on the controller, where the host's rules for paths do not hold."""
    formats.printable(value)
    if not value.strip():
        raise ValueError("is empty. Write the path of a folder; that of the playbook itself is '.'.")
    return value


def _inside(value: str) -> str:
    """Return a path inside the source that a file system can have."""
    path = formats.relative_path(value)
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in path.split("/")):
        raise ValueError(f"is longer than a path can be: {_LONGEST_NAME} bytes between two slashes, and {_LONGEST_PATH} in all. Shorten it.")
    return path


def _requirements(value: str) -> str:
    path = _inside(value)
    # A folder is given to pip and uv in place of a requirement, which may have extras, markers and fragments.
    if os.path.basename(path) == requirements.PROJECT and re.search(r"[;#@\[\]\s]", os.path.dirname(path)):
        raise ValueError("is in a folder whose name pip and uv would read more into. Name that without spaces, brackets, ';', '#' and '@'.")
    return path


def _repository(value: str) -> str:
    formats.printable(value)
    url = rf"(https?|ssh|git)://([^\s/@]+@)?{_AUTHORITY}(/\S*)?|file:///\S*|[A-Za-z0-9_][\w.-]*@{_AUTHORITY.rpartition('(')[0]}:[^\s-]\S*"
    if not re.fullmatch(url, value):
        raise ValueError("is not the URL of a repository. Write https://..., ssh://... or user@host:path.")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9._/+!-]{{0,{_LONGEST_NAME - 1}}}", value) or ".." in value:
        raise ValueError("is not a branch, tag, commit or version.")
    return value


_EXACT_VERSION = r"([0-9]+!)?[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[A-Za-z0-9]+([._-][A-Za-z0-9]+)*)?"
"""The normal form of a version of a package (PEP 440)."""


def _archive(value: str) -> str:
    formats.printable(value)
    if len(os.path.basename(value).encode()) > _LONGEST_NAME:
        raise ValueError(f"has a longer name than a file can have. Shorten it to {_LONGEST_NAME} bytes.")
    kind = archives.suffix(os.path.basename(value))
    if kind is None:
        raise ValueError(f"has no suffix by which its kind is known. Give it one of {', '.join(archives.SUFFIXES)} and {archives.WHEEL}.")
    if kind == archives.WHEEL and not re.fullmatch(r"[A-Za-z0-9_.]+-[A-Za-z0-9_.!+]+(-[0-9][A-Za-z0-9_.]*)?-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl", os.path.basename(value)):
        raise ValueError("is not named as wheels are. Keep the name that the build gave it, such as shop-1.0-py3-none-any.whl.")
    return value


def _package(value: str) -> str:
    if len(value) > _LONGEST_PATH or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9][A-Za-z0-9._-]*(, ?[A-Za-z0-9][A-Za-z0-9._-]*)*\])?", value):
        raise ValueError("is not the name of a package, with its extras in brackets if it has any. Its version goes to source.version.")
    return value


def _key(value: str) -> str:
    text = value.replace("\r\n", "\n").strip() + "\n"
    found = re.fullmatch(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----\n([\n\x20-\x7e]*)\n-----END \1-----\n", text)
    if not found:
        raise ValueError("is not the text of a private key. Give all of it, from -----BEGIN to -----END, with its line ends, as a block (key: |).")
    if "ENCRYPTED" in found[1] + found[2] or _is_locked(found[2]):
        raise ValueError("is locked with a passphrase, which nobody is there to type. Make a deploy key without one.")
    return text


def _is_locked(body: str) -> bool:
    """Return whether OpenSSH's form of a key names a cipher (PROTOCOL.key in its sources)."""
    try:
        content = base64.b64decode(body, validate=False)
    except binascii.Error:
        return False
    magic = b"openssh-key-v1\0"
    return content.startswith(magic) and content[len(magic) : len(magic) + 8] != b"\0\0\0\4none"


def _secret(value: str) -> str:
    if not re.fullmatch(rf"[\x21-\x7e]{{8,{_LONGEST_SECRET}}}", value):
        raise ValueError(f"is not a token or password of a server: these have 8 to {_LONGEST_SECRET} printable ASCII characters, and no spaces.")
    return value


def _known_hosts(value: str) -> str:
    lines = [line.strip() for line in value.replace("\r\n", "\n").split("\n") if line.strip() and not line.strip().startswith("#")]
    for line in lines:
        formats.printable(line)
    if not lines or not all(re.fullmatch(r"(@[a-z-]+ +)?\S+ +[a-z][a-z0-9@.-]+ +[A-Za-z0-9+/=]{32,}( .*)?", line) for line in lines):
        raise ValueError("is not the text of a known_hosts file. Give the lines that ssh-keyscan prints for the server.")
    return "".join(f"{line}\n" for line in lines)


def _index(value: str) -> str:
    formats.printable(value)
    if not re.fullmatch(rf"https?://{_AUTHORITY}(/[^\s?#\"\\]*)?", value):
        raise ValueError("is not the URL of a package index. Write https://host/path, such as https://pypi.example.com/simple/.")
    return value


def _user(value: str) -> str:
    if not re.fullmatch(rf"[\x21-\x39\x3b-\x7e]{{1,{_LONGEST_NAME}}}", value):
        raise ValueError("is not a user of a server. Use printable ASCII characters, no colon and no space.")
    return value


_FORMATS: Mapping[str, entries.Format] = {
    "name": _name,
    "source.path": _folder,
    "source.git": _repository,
    "source.version": _version,
    "source.archive": _archive,
    "source.package": _package,
    "source.key": _key,
    "source.token": _secret,
    "source.known_hosts": _known_hosts,
    "index.url": _index,
    "index.user": _user,
    "index.password": _secret,
    "app": _callable,
    "static": _static,
    "requirements": _requirements,
    "python": formats.absolute_path,
    "environment": _environment,
    "before_traffic": _command,
    "after_traffic": _command,
    "hook_seconds": _positive,
    "shared": _inside,
    "keep": _at_least_two,
    "health.path": _health_path,
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
    "companions.command": _command,
    "companions.stop_seconds": _positive,
    "memory": _memory,
    "cpu": _cpu,
    "tasks": _tasks,
    "credentials": _credentials,
}
