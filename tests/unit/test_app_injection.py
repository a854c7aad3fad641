"""No value of an app is more than a value: hostile ones are refused by name, or come back to the byte, and add nothing.

PORTICO_HOSTILE_VALUES says how many are tried; `make test-all` says 10000.
"""

from __future__ import annotations

import ast
import functools
import io
import json
import os
import re
import shlex
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import hostile
import pytest
import test_injection as sites

from ansible_collections.portico.web.plugins.module_utils import builder, health, installers, layout, sources
from ansible_collections.portico.web.plugins.module_utils.environments import Environments
from ansible_collections.portico.web.plugins.module_utils.hooks import Hooks
from ansible_collections.portico.web.plugins.module_utils.requirements import Wanted
from ansible_collections.portico.web.plugins.plugin_utils import apps, entries, render
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites

COUNT = int(os.environ.get("PORTICO_HOSTILE_VALUES", "2000"))
SEED = 20261124

MARK = "Tr0ub4dor"
"""Is in every secret that is right, and so in most that are hostile."""
BODY = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB" + MARK
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{BODY}\n-----END OPENSSH PRIVATE KEY-----\n"
KNOWN_HOSTS = "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIgLqZ3vXq0Jb1zT6n5gqJzj\n"

PIECES = [
    *hostile.PIECES,
    *("%i", "%n", "%%", "%h", "%", "${X}", "$X", "$$", "$", "\\\n", "\\", "\n", "\r", "\r\n", "\0", "!!", "!", "+", ":", ",", "@", "\x85", "\u2028", "\ufffe", "\ufdd0", "\U0010ffff"),
    *("\n[Service]\nExecStartPre=/bin/true\n", "\nUser=root\n", "\nX=y\n", '"\nX="y', '" ; /bin/true "', " ; ", ";", '\\"', "'''", '"""', "\nimport os\n", "#", "\t", " ", "  "),
    *("-", "--", "-S ", "-oProxyCommand=x", "--upload-pack=x", "=", "A=b ", "../", "/..", "..", "~root/", "~", "//", ".helper=!x", "{}", "{{ x }}", "[", "]", "[x]", "\udcff", "\ufeff"),
]

RIGHT = {
    "name": "shop",
    "source.path": "shop",
    "source.git": "https://git.example.com/team/shop.git",
    "source.version": "v1.4.2",
    "source.archive": "dist/shop-1.0-py3-none-any.whl",
    "source.package": "shop[postgres]",
    "source.key": KEY,
    "source.token": f"glp-{MARK}",
    "source.known_hosts": KNOWN_HOSTS,
    "app": "shop.wsgi:application",
    "static (name)": "/static/",
    "static (value)": "staticfiles",
    "requirements": "requirements/base.txt",
    "index.url": "https://pypi.example.com/simple/",
    "index.user": "deploy",
    "index.password": f"pw-{MARK}",
    "python": "/usr/bin/python3",
    "environment (name)": "SECRET_KEY",
    "environment (value)": f"sesame {MARK}",
    "before_traffic": "python manage.py migrate 'a b'",
    "after_traffic": "python manage.py warm",
    "shared": "media/uploads",
    "health.path": "/healthz",
    "health.host": "shop.example.com",
    "health.contains": "well",
    "companions.name": "worker",
    "companions.command": 'celery -A shop "a b"',
    "memory": "512M",
    "cpu": "150%",
    "credentials (name)": "payment.key",
    "credentials (value)": f"key {MARK}\n",
}
"""A value of each key that is text, with which an app is right."""

SECRET = ("source.key", "source.token", "index.password", "environment (value)", "credentials (value)")
OTHERS_THAT_ARE_NAMED = {"workers": {"tasks"}, "threads": {"tasks"}, "requirements": {"installer"}, "source.key": {"source.git"}, "source.token": {"source.git"}}
NUMBERS = ("", "0", "-1", "1", "2", "33", "200", "1e3", "0x10", "1_000", "²", "٣", " 5", "5\n", "5;", "9" * 30, "9" * 5000, 2**31, 10**30, 10**5000, -(10**5000), True, 1.5, [[]], {"a": 1})


def leaves(described, prefix=""):
    """Walk the dotted keys of a documentation's suboptions, with what is documented of each; a free dictionary is two, names and values."""
    for key, option in described.items():
        kind = option.get("elements", option["type"]) if option["type"] == "list" else option["type"]
        if kind != "dict":
            yield f"{prefix}{key}", {**option, "type": kind}
        elif "suboptions" in option:
            yield from leaves(option["suboptions"], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} (name)", {"type": "str"}
            yield f"{prefix}{key} (value)", {"type": "str"}


LEAVES = dict(leaves(entries.options("gunicorn_deploy", "apps")))
TEXTS = [key for key, option in LEAVES.items() if option["type"] == "str" and "choices" not in option]
NUMERIC = [key for key, option in LEAVES.items() if option["type"] == "int"]
CHOSEN = [key for key, option in LEAVES.items() if "choices" in option or option["type"] == "bool"]


def app(key, value):
    """Return an app that is right but for the value of one key, and that has what the key has a meaning with."""
    made = {
        "name": "shop",
        "source": {"path": "shop"},
        "app": RIGHT["app"],
        "static": {RIGHT["static (name)"]: RIGHT["static (value)"]},
        "environment": {RIGHT["environment (name)"]: RIGHT["environment (value)"]},
        "credentials": {RIGHT["credentials (name)"]: RIGHT["credentials (value)"]},
        "companions": [{"name": RIGHT["companions.name"], "command": RIGHT["companions.command"]}],
        "before_traffic": [RIGHT["before_traffic"]],
        "after_traffic": [RIGHT["after_traffic"]],
        "shared": [RIGHT["shared"]],
        "memory": RIGHT["memory"],
        "cpu": RIGHT["cpu"],
        "workers": 2,
    }
    first, _dot, second = key.partition(".")
    free, _space, half = first.partition(" ")
    if half == "(name)":
        made[free] = {value: RIGHT[f"{free} (value)"]}
    elif half == "(value)":
        made[free] = {RIGHT[f"{free} (name)"]: value}
    elif first == "source":
        over_ssh = {"git": "git@git.example.com:team/shop.git", "version": "v1"}
        over_https = {"git": RIGHT["source.git"], "version": "v1"}
        around = {"git": {"version": "v1"}, "version": over_https, "token": over_https, "key": over_ssh, "known_hosts": over_ssh, "package": {"version": "1.0"}}
        made["source"] = {**around.get(second, {}), second: value}
    elif first == "index":
        made["index"] = {"url": RIGHT["index.url"], "user": RIGHT["index.user"], "password": RIGHT["index.password"], second: value}
    elif first == "companions":
        made["companions"][0][second] = value
    elif first == "health":
        made["health"] = {second: value}
    elif first in ("before_traffic", "after_traffic", "shared"):
        made[first] = [value]
    else:
        made[first] = value
    return made


def found(complete, key):
    """Return what has become of the value of a key in an app that is complete."""
    first, _dot, second = key.partition(".")
    free, _space, half = first.partition(" ")
    if half:
        ((name, value),) = complete[free].items()
        return name if half == "(name)" else value
    value = complete[first]
    for part in (second, ""):
        if isinstance(value, list):
            (value,) = value
        value = value[part] if part else value
    return value


def normalised(made):
    (complete,) = apps.normalise_apps([made])
    return complete


def told_with_its_name(error, key, value):
    """The message names list, entry and key, is one line that a terminal can show, and has no secret in it."""
    told = str(error)
    assert told.isprintable() and len(told) < 5000, told
    assert told.startswith("gunicorn_apps, entry "), told
    unnumbered = re.sub(r"\[[0-9]+\]", "", told)
    named = {key.partition(" ")[0], *OTHERS_THAT_ARE_NAMED.get(key, ())}
    assert any(f', key "{each}"' in unnumbered for each in named), (key, value, told)
    if key in SECRET:
        # Not the end of one either: eight characters that are in the secret, and nowhere in the app around it.
        assert MARK not in told, told
        assert not (isinstance(value, str) and len(value) >= 8 and value in told), told


# ---- What systemd reads


def unit(text):
    """Return a unit as pairs of section and directive with the value, as systemd.syntax(7) has it."""
    assert text.endswith("\n") and not set("\r\0") & set(text)
    assert not apps._NO_CHARACTER.search(text)
    section, read, begun = None, [], ""
    # Nothing but a newline ends a line, whatever Python takes for one.
    for line in text.split("\n"):
        if line.lstrip().startswith(("#", ";")):
            continue
        line = begun + line
        if line.endswith("\\"):
            begun = line[:-1] + " "
            continue
        begun, line = "", line.strip(" \t")
        if not line:
            continue
        if line.startswith("["):
            section = re.fullmatch(r"\[(\w+)\]", line)[1]
            continue
        name, equals, value = line.partition("=")
        assert equals and section, line
        read.append(((section, name.strip()), value.strip()))
    assert not begun
    return read


def command_line(value, slot="a"):
    """Return the words of a command of a unit, as systemd hands them over (systemd.service(5), "Command lines")."""
    found, at = [], 0
    while at < len(value):
        if value[at] in " \t":
            at += 1
            continue
        # Outside of quotes it would begin another command.
        assert not re.match(r"\\?;(\s|$)", value[at:]), value
        word, quote = "", ""
        while at < len(value) and (quote or value[at] not in " \t"):
            sign = value[at]
            at += 1
            if sign == "\\":
                assert value[at] in "\\\"'", value
                word += value[at]
                at += 1
            elif quote:
                quote, word = ("", word) if sign == quote else (quote, word + sign)
            elif sign in "\"'":
                quote = sign
            else:
                word += sign
        assert not quote, value
        found.append(with_variables(with_specifiers(word, slot)))
    return found


def with_specifiers(text, slot="a"):
    assert re.fullmatch(r"(?:[^%]|%%|%i)*", text, re.S), text
    return re.sub(r"%(.)", lambda each: slot if each[1] == "i" else "%", text)


def with_variables(word):
    if word == "$MAINPID":
        return word
    assert re.fullmatch(r"(?:[^$]|\$\$)*", word, re.S), word
    return word.replace("$$", "$")


def environment_file(text):
    """Return variables as systemd reads them, sign by sign (systemd.exec(5), EnvironmentFile=)."""
    read, key, value, state = [], "", "", "before"
    for sign in text:
        if state == "before":
            if sign in "#;":
                state = "comment"
            elif sign not in " \t\n\r":
                key, value, state = sign, "", "key"
        elif state == "key":
            if sign in "\n\r":
                raise AssertionError(f"a line without a value: {key!r}")
            key, state = (key, "begin") if sign == "=" else (key + sign, "key")
        elif state == "begin":
            if sign in "\n\r":
                read.append((key, value))
                state = "before"
            elif sign == '"':
                state = "quoted"
            else:
                raise AssertionError(f"something outside of quotes: {sign!r}")
        elif state == "quoted":
            if sign in '"\\':
                state = "begin" if sign == '"' else "escaped"
            else:
                value += sign
        elif state == "escaped":
            value += sign if sign in '"\\`$' else "" if sign == "\n" else f"\\{sign}"
            state = "quoted"
    assert state == "before", state
    return read


# ---- What reaches the host


class Ran:
    """Steps that run nothing, and keep every command with its variables and the private files that it names."""

    def __init__(self):
        self.commands, self.variables, self.files = [], [], []

    def run(self, command, cwd=None, may_be_missing=False, data=None, environment=None):
        self.commands.append(list(command))
        self.variables.append(dict(environment or {}))
        paths = re.findall(r"(?:-i |UserKnownHostsFile=)(\S+)", (environment or {}).get("GIT_SSH_COMMAND", ""))
        self.files.append({os.path.basename(path): read_bytes(path) for path in paths})
        return 0, "", ""

    def error(self, name, said, meanwhile=None):
        raise AssertionError(said)


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def order(complete):
    """Return as much of an order as the parts of the host's module need that are tried here; once through JSON, as it travels."""
    made = {
        **{key: complete[key] for key in ("name", "python", "requirements", "installer", "before_traffic", "after_traffic", "hook_seconds", "shared", "network")},
        **{key: complete["source"][key] for key in ("git", "package", "version", "known_hosts")},
        **apps.archive(complete["source"]),
        "gunicorn": apps.GUNICORN,
        "index": apps.public_index(complete),
        "fingerprint": "0" * 64,
        "commit": "0" * 40,
        "files": host_files(complete),
        "secrets": apps.secrets(complete, "key", "token", "password"),
    }
    text = json.dumps(made)
    text.encode()
    assert json.loads(text) == made
    return made


def git(complete):
    """Return what git is run with, and beside it the variables and the files."""
    ran = Ran()
    source = sources.Source(order(complete), ran)
    source.commit()
    folder = f"{sources._PRIVATE}/source"
    os.makedirs(f"{folder}/.git")
    source.fetch(folder)
    return ran


def host_files(complete):
    return _host_files(json.dumps(complete))


@functools.lru_cache(maxsize=1)
def _host_files(text):
    # Once for all that is looked at in the texts of one app.
    return apps.host_files(json.loads(text), "www-data")


def units(complete):
    return {path: unit(text) for path, text in host_files(complete).items() if path.startswith(layout.UNITS)}


def settings(complete):
    (text,) = (text for path, text in host_files(complete).items() if path.endswith(".conf.py"))
    tree = ast.parse(text)
    compile(tree, "gunicorn.conf.py", "exec")
    return tree


def assigned(tree):
    return {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)}


def shape(complete):
    """Return what a value must not change: every directive of every unit, and the whole of gunicorn's settings but for what is constant."""
    tree = settings(complete)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = node.kind = None
    every = [[name for name, _value in read] for read in units(complete).values()]
    return every, ast.dump(tree)


def the_unit(complete, kind):
    """Return a unit of an app as a dictionary; of what stands there several times, the last."""
    names = {"service": layout.app_unit(complete["name"]), "companion": layout.companion_unit(complete["name"], complete["companions"][0]["name"])}
    return {name: value for (_section, name), value in units(complete)[f"{layout.UNITS}/{names[kind]}@%i.service"]}


# ---- How each key is carried


def is_inside(path, folder="/srv/portico/shop/releases/0/source"):
    joined = os.path.normpath(os.path.join(folder, path))
    return joined == f"{folder}/{path}" and len(joined) < 4096


def carries_name(complete, value):
    paths = list(host_files(complete))
    assert all(os.path.normpath(path) == path and os.path.dirname(path) in (layout.UNITS, f"{layout.APP_SETTINGS}/{value}") for path in paths), paths
    assert assigned(settings(complete))["proc_name"] == value
    return the_unit(complete, "service")["User"] == f"portico-{value}" and len(f"portico-{value}") <= 32


def carries_git(complete, value):
    if complete["source"]["git"] is None:
        return False
    for command in git(complete).commands:
        if value in command:
            assert command[command.index(value) - 1] == "--", command
    return any(value in command for command in git(complete).commands)


def carries_version(complete, value):
    commands = git(complete).commands
    (asked,) = [command for command in commands if "ls-remote" in command]
    return asked[-2:] == [value, f"refs/tags/{value}^{{}}"] and not value.startswith("-")


def carries_token(complete, value):
    ran = git(complete)
    assert not any(MARK in word for command in ran.commands for word in command)
    for command in [command for command in ran.commands if "ls-remote" in command]:
        helper = next(word for word in command if word.startswith("credential.https"))
        assert helper.split("=", 1)[0] == "credential.https://git.example.com.helper"
    return ran.variables[1]["PORTICO_TOKEN"] == value


def carries_private_file(name, complete, value):
    ran = git(complete)
    assert not any(MARK in word for command in ran.commands for word in command)
    return ran.files[1][name] == value.encode()


def carries_package(complete, value):
    ask = order(complete)
    argv = Environments(ask, Ran())._installation(installers.Pip("/usr/bin/python3", "/e"), "/s", None, None).argv
    harmless = Environments({**ask, "package": "shop"}, Ran())._installation(installers.Pip("/usr/bin/python3", "/e"), "/s", None, None).argv
    return argv[:-1] == harmless[:-1] and argv[-1] == f"{value}=={complete['source']['version']}" and not value.startswith("-")


def carries_requirements(complete, value):
    ask = order(complete)
    wanted = Wanted("requirements", ask["requirements"], (), False, False)
    argv = Environments(ask, Ran())._installation(installers.Pip("/usr/bin/python3", "/e"), "/s", wanted, None).argv
    return argv[-2:] == ["--requirement", f"/s/{value}"] and is_inside(value)


def carries_archive(complete, value):
    told = apps.archive(complete["source"])
    if told["wheel"] is None:
        return told["unpack"] == "archive" and complete["source"]["archive"] == value
    return told["wheel"] == os.path.basename(value) and is_inside(told["wheel"]) and "/" not in told["wheel"]


def carries_index(part, complete, value):
    url = installers.index_url(apps.public_index(complete), apps.secrets(complete, "password").get("password"))
    ((_name, read),) = environment_file(f"PIP_INDEX_URL={builder._quoted(url)}\n")
    assert read == url
    split = urlsplit(url)
    host = split.netloc.rpartition("@")[2]
    assert split.port is None or split.port < 65536
    parts = {"user": unquote(split.username), "password": unquote(split.password), "url": f"{split.scheme}://{host}{split.path}"}
    return parts[part] == value and url.count("@") - split.path.count("@") == 1


def carries_environment(half, complete, value):
    ((name, content),) = environment_file(apps.environment_file(complete["environment"]))
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.A) and len(f"{name}={content}\0".encode()) <= 128 * 1024
    return (name if half == "name" else content) == value


def carries_credentials(half, complete, value):
    # As the host takes it apart, writes it, and reads it again for comparison.
    kept = {name: content.encode() for name, content in json.loads(apps.credentials_text(complete["credentials"])).items()}
    again = json.dumps({name: content.decode(errors="replace") for name, content in kept.items()}, sort_keys=True)
    assert again == apps.credentials_text(complete["credentials"])
    ((name, content),) = kept.items()
    assert the_unit(complete, "service")["LoadCredential"] == f"{name}:/etc/portico/apps/shop/%i.credentials/{name}"
    assert is_inside(name) and "/" not in name
    return (name if half == "name" else content.decode()) == value


def carries_hook(when, complete, value):
    ran = Ran()
    hooks = Hooks(order(complete), ran)
    getattr(hooks, when)("/srv/portico/shop/releases/0", "a")
    (command,) = ran.commands
    at = command.index("--")
    assert all(word.startswith("--") for word in command[1:at]) and command[at + 1] == "/usr/bin/env"
    words = [with_variables(word) for word in command[at + 2 :]]
    assert words[0] and not words[0].startswith("-") and "=" not in words[0]
    return words == shlex.split(value) and complete[when] == [value]


def carries_command(complete, value):
    env, *words = command_line(the_unit(complete, "companion")["ExecStart"])
    assert env == "/usr/bin/env" and words[0] and not words[0].startswith("-") and "=" not in words[0]
    return words == shlex.split(value)


def carries_companion(complete, value):
    return the_unit(complete, "companion")["Description"] == f"{value} of shop, slot %i"


def carries_static(half, complete, value):
    ((prefix, folder),) = complete["static"].items()
    assert is_inside(folder)
    (text,) = render.site_files(normalise_sites([{"name": "shop", "server_names": ["shop.example.com"], "app": "shop"}], [complete]), [complete], render.Host(), sites.SETTINGS).values()
    read = sites.tree(text, carries_static.file)
    assert sites.names(read) == sites.names(carries_static.usual(read))
    return any(value in word for word in sites.words(read)) and (prefix if half == "name" else folder) == value


def carries_health(key, complete, value):
    """See what a socket would get, and what is made of the answer."""
    sent = []

    class Socket:
        def sendall(self, data):
            sent.append(data)

        def makefile(self, *_how):
            body = f"<p>{value}</p>".encode()
            return io.BytesIO(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        def close(self):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health._Connection, "connect", lambda self: setattr(self, "sock", Socket()))
        assert health.wrong(complete["health"], "/run/x.sock", 1) is None
    lines = b"".join(sent).decode("ascii").split("\r\n")
    assert len(lines) == 8 and lines[-2:] == ["", ""], lines
    path, host = complete["health"]["path"], complete["health"]["host"]
    assert lines[0] == f"GET {path} HTTP/1.1" and lines[1] == f"Host: {host}", lines
    return complete["health"][key] == value


def carries_directive(name, kind, complete, value):
    return with_specifiers(the_unit(complete, kind)[name]) == str(value)


def carries_setting(name, complete, value):
    return assigned(settings(complete))[name] == value


def is_value(key, complete, value):
    """It is a number, or one of a few words, that code on the host counts or compares with."""
    return found(complete, key) == value


CARRIED = {
    "name": carries_name,
    # On the controller alone, as the person's own.
    "source.path": lambda complete, value: complete["source"]["path"] == value and value.strip() != "",
    "source.git": carries_git,
    "source.version": carries_version,
    "source.archive": carries_archive,
    "source.package": carries_package,
    "source.key": functools.partial(carries_private_file, "key"),
    "source.token": carries_token,
    "source.known_hosts": functools.partial(carries_private_file, "known_hosts"),
    "app": functools.partial(carries_setting, "wsgi_app"),
    "static (name)": functools.partial(carries_static, "name"),
    "static (value)": functools.partial(carries_static, "value"),
    "requirements": carries_requirements,
    "index.url": functools.partial(carries_index, "url"),
    "index.user": functools.partial(carries_index, "user"),
    "index.password": functools.partial(carries_index, "password"),
    "python": lambda complete, value: installers.Pip(complete["python"], "/e").make()[0].argv == [value, "-m", "venv", "/e"] and value.startswith("/") and "$" not in value,
    "environment (name)": functools.partial(carries_environment, "name"),
    "environment (value)": functools.partial(carries_environment, "value"),
    "before_traffic": functools.partial(carries_hook, "before_traffic"),
    "after_traffic": functools.partial(carries_hook, "after_traffic"),
    "shared": lambda complete, value: complete["shared"] == [value] and is_inside(value),
    "health.path": functools.partial(carries_health, "path"),
    "health.host": functools.partial(carries_health, "host"),
    "health.contains": functools.partial(carries_health, "contains"),
    "companions.name": carries_companion,
    "companions.command": carries_command,
    "companions.stop_seconds": functools.partial(carries_directive, "TimeoutStopSec", "companion"),
    "memory": functools.partial(carries_directive, "MemoryMax", "service"),
    # A percentage, and the one value with a sign that elsewhere begins a specifier (systemd.resource-control(5)).
    "cpu": lambda complete, value: the_unit(complete, "service")["CPUQuota"] == value,
    "tasks": functools.partial(carries_directive, "TasksMax", "service"),
    "credentials (name)": functools.partial(carries_credentials, "name"),
    "credentials (value)": functools.partial(carries_credentials, "value"),
    "worker_class": lambda complete, value: assigned(settings(complete))["worker_class"] in (value, "uvicorn_worker.UvicornWorker"),
    "workers": functools.partial(carries_setting, "workers"),
    "threads": functools.partial(carries_setting, "threads"),
    "timeout": functools.partial(carries_setting, "timeout"),
    "graceful_timeout": functools.partial(carries_setting, "graceful_timeout"),
    "max_requests": functools.partial(carries_setting, "max_requests"),
    "preload": functools.partial(carries_setting, "preload_app"),
    **{key: functools.partial(is_value, key) for key in ("hook_seconds", "keep", "health.status", "health.seconds", "installer", "switch", "state", "data", "network")},
}
"""For each key, what sees that a value has come to the host, and to nowhere else there."""


def final(key, value):
    """Return a value in its final form: folders without slashes at their ends, keys and lines of servers with plain ends of lines."""
    if key in ("requirements", "shared", "static (value)"):
        return value.strip("/")
    if key == "python":
        return "/" + value.strip("/")
    if key == "source.key":
        return value.replace("\r\n", "\n").strip() + "\n"
    if key == "source.known_hosts":
        lines = [line.strip() for line in value.replace("\r\n", "\n").split("\n")]
        return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))
    return value


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PRIVATE", str(tmp_path))
    carries_static.file = tmp_path / "site.conf"
    carries_static.usual = lambda _read: usual_site(str(tmp_path / "usual.conf"))


@functools.lru_cache
def usual_site(path):
    complete = normalised(app("name", "shop"))
    (text,) = render.site_files(normalise_sites([{"name": "shop", "server_names": ["shop.example.com"], "app": "shop"}], [complete]), [complete], render.Host(), sites.SETTINGS).values()
    return sites.tree(text, Path(path))


def try_value(key, value, usual, tmp_path):
    """Return whether a value was refused, as it should be, or accepted and carried."""
    try:
        complete = normalised(app(key, value))
        if key in ("source.path", "source.archive"):
            with pytest.raises(PorticoError) as missing:
                apps.check_folders([complete], lambda path: os.path.join(tmp_path / "nowhere", path.lstrip("/~.")))
            told_with_its_name(missing.value, key, value)
    except PorticoError as error:
        told_with_its_name(error, key, value)
        return "refused"
    assert CARRIED[key](complete, final(key, value)), (key, value)
    assert shape(complete) == usual, (key, value)
    return "accepted"


# ---- The tests


def test_every_key_is_tried():
    assert CARRIED.keys() == LEAVES.keys()
    assert set(TEXTS) == RIGHT.keys()
    assert {*TEXTS, *NUMERIC, *CHOSEN} == LEAVES.keys()


@pytest.mark.parametrize("key", TEXTS)
def test_a_harmless_value_is_carried(key, tmp_path):
    complete = normalised(app(key, RIGHT[key]))
    assert CARRIED[key](complete, final(key, RIGHT[key]))


def test_hostile_values_are_refused_by_name_or_come_back_to_the_byte(tmp_path):
    outcome, accepted = Counter(), Counter()
    usual = {key: shape(normalised(app(key, RIGHT[key]))) for key in TEXTS}
    for key, value in hostile.values(SEED, COUNT, TEXTS, RIGHT.__getitem__, PIECES):
        became = try_value(key, value, usual[key], tmp_path)
        outcome[became] += 1
        accepted[key] += became == "accepted"
    print(f"{COUNT} hostile values: {outcome['refused']} refused by name, {outcome['accepted']} came back to the byte")
    assert outcome["refused"] > COUNT / 4 and outcome["accepted"] > COUNT / 20, outcome
    # Those that take nearly any text must show that they carry it.
    for key in ("environment (value)", "credentials (value)", "health.contains", "companions.command", "before_traffic"):
        assert accepted[key] > COUNT / len(TEXTS) / 10, accepted


def test_each_hostile_piece_alone_is_refused_by_name_or_comes_back_to_the_byte(tmp_path):
    """In every key, at its ends and alone: what chance may pass over."""
    usual = {key: shape(normalised(app(key, RIGHT[key]))) for key in TEXTS}
    pieces = ["", *dict.fromkeys(PIECES), "x" * 300, "x/" * 2000, "é" * 70_000, "x" * 140_000]
    # All with all is a matter of the long run.
    step = 1 if COUNT > 2000 else 11
    for number, piece in enumerate(pieces):
        for key in TEXTS[number % step :: step]:
            for value in (piece, piece + RIGHT[key], RIGHT[key] + piece):
                try_value(key, value, usual[key], tmp_path)


@pytest.mark.parametrize("key", NUMERIC)
def test_a_number_is_one_or_is_refused_by_name(key, tmp_path):
    for value in NUMBERS:
        try:
            complete = normalised(app(key, value))
        except PorticoError as error:
            told_with_its_name(error, key, value)
            continue
        number = int(value)
        assert -(2**31) < number < 2**31 and CARRIED[key](complete, number), (key, value)


@pytest.mark.parametrize("key", CHOSEN)
def test_a_choice_is_one_or_is_refused_by_name(key):
    right = [*LEAVES[key].get("choices", ("true", "no"))]
    for value in [*right, *PIECES, *(right[0] + piece for piece in PIECES), 10**5000]:
        try:
            complete = normalised(app(key, value))
        except PorticoError as error:
            told_with_its_name(error, key, value)
            continue
        if complete["state"] == "present":
            final_value = value in ("true", "yes", "on") if LEAVES[key]["type"] == "bool" else value
            assert CARRIED[key](complete, final_value), (key, value)
            units(complete)


@pytest.mark.parametrize("place", ["", "source", "index", "health", "companions"])
def test_a_key_that_nobody_knows_is_named_and_hides_what_may_be_secret(place):
    for piece in [*PIECES, "x" * 5000, *("[", "a[", "]a[", "a[0]", "a[0")]:
        made = app("name", "shop")
        inner = {"": made, "source": made["source"], "companions": made["companions"][0]}.get(place)
        if inner is None:
            inner = made[place] = {"url": RIGHT["index.url"]} if place == "index" else {}
        inner[f"x{piece}"] = {"A": f"sesame {MARK}"}
        with pytest.raises(PorticoError) as error:
            normalised(made)
        told = str(error.value)
        assert told.isprintable() and told.startswith('gunicorn_apps, entry "shop", key "') and MARK not in told and len(told) < 2000, told


@pytest.mark.parametrize(
    ("place", "key"),
    [("", "env"), ("", "secrets"), ("", "credential"), ("", "enviroment"), ("source", "ssh_key"), ("source", "kye"), ("source", "passphrase"), ("index", "pass"), ("index", "auth")],
)
def test_a_misspelt_key_of_a_secret_does_not_show_it(place, key):
    made = app("name", "shop")
    inner = made.setdefault(place, {"url": RIGHT["index.url"]}) if place else made
    for secret in (f"sesame {MARK}", {"A": MARK}, [MARK]):
        inner[key] = secret
        with pytest.raises(PorticoError, match="does not exist") as error:
            normalised(made)
        assert MARK not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": f"https://deploy:{MARK}@git.example.com/shop.git"},
        {"source": {"git": [f"https://deploy:{MARK}@git.example.com/shop.git"], "version": "v1"}},
        {"source": {"url": f"https://deploy:{MARK}@git.example.com/shop.git"}},
        {"source": {"git": f"https://deploy:{MARK}/x@git.example.com/shop.git", "version": "v1"}},
        {"index": f"https://deploy:{MARK}@pypi.example.com/simple/"},
        {"index": {"url": f"https://deploy:{MARK}/x@pypi.example.com/simple/"}},
    ],
)
def test_a_password_in_a_url_is_not_shown_wherever_it_was_written(wrong):
    with pytest.raises(PorticoError, match="has a password in it") as error:
        normalised({**app("name", "shop"), **wrong})
    assert MARK not in str(error.value)


@pytest.mark.parametrize("url", ["https://git.example.com:8443/team/a@b.git", "ssh://git@git.example.com:2222/shop.git", "git@git.example.com:shop.git", "file:///srv/shop.git", "https://[::1]:3000/shop.git"])
def test_a_url_without_a_password_is_taken(url):
    assert normalised({**app("name", "shop"), "source": {"git": url, "version": "v1"}})["source"]["git"] == url


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=x/shop", "git@-oProxyCommand:shop", "git@host:-x", "https://x.helper=!x/shop", "https://[::1/shop", "https://ex\u2100mple.com/shop", "ext::sh -c x", "--upload-pack=x", "https://a b/shop"])
def test_a_url_is_no_option_and_no_setting_of_git(url):
    with pytest.raises(PorticoError, match=r'key "source.git"'):
        normalised({**app("name", "shop"), "source": {"git": url, "version": "v1"}})


def test_a_user_of_the_socket_is_a_user():
    complete = normalised(app("name", "shop"))
    for value in ["", *PIECES, *(f"www-data{piece}" for piece in PIECES)]:
        try:
            texts = apps.host_files(complete, value)
        except PorticoError as error:
            assert str(error).startswith("gunicorn_socket_user: ") and str(error).isprintable()
            continue
        socket = dict(unit(texts[f"{layout.UNITS}/portico-shop@%i.socket"]))
        assert socket["Socket", "SocketUser"] == value
