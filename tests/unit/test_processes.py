"""The processes of an app: how many they are, what they may do, and what systemd makes of their commands."""

from __future__ import annotations

import configparser
import json
import re
import shlex

import pytest

from ansible_collections.portico.web.plugins.plugin_utils.apps import credentials_text, host_files, normalise_apps, systemd_words
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError

SHOP = {"name": "shop", "source": {"path": "shop"}, "app": "shop.wsgi:application"}
WORKER = {"name": "worker", "command": "celery -A shop worker"}
GIB = 1024**3


def files_of(**keys):
    (app,) = normalise_apps([SHOP | keys])
    return host_files(app, "www-data")


def unit(name="portico-shop", **keys):
    """Return a unit as systemd reads it: section -> key -> its values."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in files_of(**keys)[f"/etc/systemd/system/{name}@%i.service"].splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            section.setdefault(key, []).append(value)
    return sections


def settings(**keys):
    found = {}
    exec(compile(files_of(**keys)["/etc/portico/apps/shop/%i.conf.py"], "shop.conf.py", "exec"), found)
    return found


def read_as_systemd(line):
    """Read a command by the rules of systemd.syntax(7) and systemd.service(5), as far as double quotes go."""
    words = []
    for quoted in re.findall(r'"((?:[^"\\]|\\.)*)"(?: |$)', line):
        word = re.sub(r"\\(.)", lambda found: {"\\": "\\", '"': '"'}[found.group(1)], quoted)
        assert not re.search(r"(?<!%)(%%)*%(?!%)", word) and not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word), word
        words.append(word.replace("%%", "%").replace("$$", "$"))
    return words


@pytest.mark.parametrize(
    "words",
    [
        ["celery", "-A", "shop", "worker", "--loglevel=info"],
        ["p", "$HOME", "${HOME}", "$$", "%n", "%%", "%"],
        ["p", "", " ", ";", "\\;", "&&", "|", ">", "~", "*", "#", "-", "@x", "+x", "!x", ":x"],
        ["p", 'a"b', "it's", "back\\slash", "\\", '\\"', "\\x41", "\\n", "é✓", "a  b"],
    ],
)
def test_systemd_runs_exactly_the_words_of_a_companions_command(words):
    (line,) = unit("portico-shop-worker", companions=[{"name": "worker", "command": shlex.join(words)}])["Service"]["ExecStart"]
    program, rest = line.split(" ", 1)
    assert (program, read_as_systemd(rest)) == ("/usr/bin/env", words)
    assert read_as_systemd(systemd_words(words)) == words


@pytest.mark.parametrize("command", ["a\nExecStartPre=/bin/evil", "a\rb", "a\0b", "a\x1bb", "a 'b", "", "   ", "X=1 celery", "-u celery", "''", "a\u2028b"])
def test_a_command_that_systemd_could_misread_is_refused(command):
    with pytest.raises(PorticoError, match=r'gunicorn_apps, entry "shop", key "companions.command"'):
        normalise_apps([SHOP | {"companions": [{"name": "worker", "command": command}]}])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"worker_class": "gevent"}, ["worker_class", "gevent", "gthread"]),
        ({"worker_class": "asgi", "threads": 4}, ["threads", "4", "asgi"]),
        ({"worker_class": "sync", "threads": 2}, ["threads", "2", "sync"]),
        ({"graceful_timeout": 0}, ["graceful_timeout", "0"]),
        ({"max_requests": -1}, ["max_requests", "-1"]),
        ({"preload": "perhaps"}, ["preload", "perhaps"]),
        ({"memory": "512"}, ["memory", "512", "512M"]),
        ({"memory": "512MB"}, ["memory", "512MB"]),
        ({"memory": "1.5G"}, ["memory", "1.5G"]),
        ({"memory": "16M"}, ["memory", "16M", "too little"]),
        ({"memory": "infinity"}, ["memory", "infinity"]),
        ({"memory": "1G\nUser=root"}, ["memory", "no amount"]),
        ({"memory": "1G\n"}, ["memory", "no amount"]),
        ({"cpu": "2"}, ["cpu", "2", "%"]),
        ({"cpu": "0%"}, ["cpu", "0%"]),
        ({"cpu": "50%\n"}, ["cpu", "no share"]),
        ({"tasks": 8}, ["tasks", "8", "32"]),
        ({"tasks": 40, "workers": 8, "threads": 8}, ["tasks", "40", "73"]),
        ({"tasks": 32, "workers": 10}, ["tasks", "32", "51"]),
        ({"network": "lan"}, ["network", "lan", "local"]),
        ({"companions": [{"name": "Worker", "command": "a"}]}, ["companions.name", "Worker"]),
        ({"companions": [{"name": "../x", "command": "a"}]}, ["companions.name", "../x"]),
        ({"companions": [{"name": "worker"}]}, ["companions.command", "is missing"]),
        ({"companions": [{**WORKER, "stop_seconds": 0}]}, ["companions.stop_seconds", "0"]),
        ({"companions": [{**WORKER, "comand": "b"}]}, ["companions.comand", "command"]),
        ({"companions": [WORKER, WORKER]}, ["companions[1].name", "worker", "companions[0]"]),
    ],
)
def test_a_mistake_is_told_with_its_key_and_value(wrong, words):
    with pytest.raises(PorticoError) as told:
        normalise_apps([SHOP | wrong])
    assert str(told.value).startswith('gunicorn_apps, entry "shop"')
    for word in words:
        assert word in str(told.value), str(told.value)


@pytest.mark.parametrize(
    ("apps", "owner"),
    [
        ([SHOP | {"companions": [{"name": "web", "command": "a"}]}, SHOP | {"name": "shop-web"}], "shop-web"),
        (
            [SHOP | {"name": "a", "companions": [{"name": "b-c", "command": "a"}]}, SHOP | {"name": "a-b", "companions": [{"name": "c", "command": "a"}]}],
            "a",
        ),
    ],
)
def test_no_companion_takes_the_unit_of_another_app(apps, owner):
    with pytest.raises(PorticoError, match=f'companions.0..name.*makes a unit that the app "{owner}" has too'):
        normalise_apps(apps)


@pytest.mark.parametrize(
    "credentials",
    [{"A B": "hunter2x"}, {"../x": "hunter2x"}, {"": "hunter2x"}, {".x": "hunter2x"}, {"a:b": "hunter2x"}, {"a": ["hunter2x"]}, {"a": None}, {1: "hunter2x"}, "hunter2x", {"a": "hunter2x" * 2**17}, {"a": "hunter2x\ud800"}],
)
def test_a_mistake_in_credentials_shows_none(credentials):
    with pytest.raises(PorticoError) as told:
        normalise_apps([SHOP | {"credentials": credentials}])
    assert 'key "credentials"' in str(told.value) and "hunter2x" not in str(told.value)


def test_a_misspelt_key_of_credentials_shows_none():
    with pytest.raises(PorticoError) as told:
        normalise_apps([SHOP | {"credential": {"a": "hunter2x"}}])
    assert "hunter2x" not in str(told.value)


def test_credentials_are_named_in_every_unit_and_shown_in_none():
    keys = {"credentials": {"tls.key": "hunter2x", "a": "hunter3x\r\n"}, "companions": [WORKER]}
    assert not any("hunter" in text for text in files_of(**keys).values())
    wanted = [f"{name}:/etc/portico/apps/shop/%i.credentials/{name}" for name in ("a", "tls.key")]
    assert unit(**keys)["Service"]["LoadCredential"] == unit("portico-shop-worker", **keys)["Service"]["LoadCredential"] == wanted
    (app,) = normalise_apps([SHOP | keys])
    assert json.loads(credentials_text(app["credentials"])) == keys["credentials"]
    assert credentials_text({"a": "1", "b": "2"}) == credentials_text({"b": "2", "a": "1"})


def test_a_companion_is_as_confined_as_its_app():
    keys = {"companions": [WORKER | {"stop_seconds": 90}], "memory": "1G", "cpu": "150%", "tasks": 200, "network": "local"}
    app, companion = unit(**keys)["Service"], unit("portico-shop-worker", **keys)["Service"]
    of_its_own = {"Type", "NotifyAccess", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec"}
    assert {key: value for key, value in app.items() if key not in of_its_own} == {
        key: [each for each in value if not each.startswith("PATH=")] for key, value in companion.items() if key not in of_its_own
    }
    assert companion["TimeoutStopSec"] == ["90"] and companion["Restart"] == ["always"]
    limits = {key: app[key] for key in ("MemoryMax", "MemorySwapMax", "CPUQuota", "TasksMax")}
    assert limits == {"MemoryMax": ["1G"], "MemorySwapMax": ["0"], "CPUQuota": ["150%"], "TasksMax": ["200"]}


def test_what_is_not_limited_has_no_limit_but_of_its_number():
    service = unit()["Service"]
    assert not {"MemoryMax", "MemorySwapMax", "CPUQuota", "LoadCredential", "IPAddressDeny", "PrivateNetwork"} & set(service)
    assert service["TasksMax"] == ["1024"]
    assert (service["RestrictAddressFamilies"], service["TimeoutStopSec"]) == (["AF_INET AF_INET6 AF_UNIX"], ["45"])


def test_a_network_is_confined_as_far_as_it_is_asked_for():
    local, none = unit(network="local")["Service"], unit(network="none")["Service"]
    assert (local["IPAddressDeny"], local["IPAddressAllow"], "PrivateNetwork" in local) == (["any"], ["localhost"], False)
    assert (none["RestrictAddressFamilies"], none["PrivateNetwork"], "IPAddressAllow" in none) == (["AF_UNIX"], ["yes"], False)


@pytest.mark.parametrize("keys", [{}, {"network": "local", "memory": "64M"}, {"companions": [WORKER], "credentials": {"a": "b"}, "network": "none", "cpu": "10%"}])
def test_every_unit_is_whole(keys):
    for path, text in files_of(**keys).items():
        if path.startswith("/etc/systemd/system/"):
            parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",), inline_comment_prefixes=None)
            parser.optionxform = str
            parser.read_string(text)
            assert parser.sections() == ["Unit", "Socket" if path.endswith(".socket") else "Service", "Install"]
            assert "{" not in text and "None" not in text and "\n\n\n" not in text


@pytest.mark.parametrize(("given", "seconds"), [({}, "45"), ({"graceful_timeout": 120}, "135")])
def test_a_stop_waits_longer_than_the_requests_in_hand(given, seconds):
    assert unit(**given)["Service"]["TimeoutStopSec"] == [seconds]
    assert settings(**given)["graceful_timeout"] == int(seconds) - 15


@pytest.mark.parametrize(
    ("worker_class", "loaded"), [("gthread", "gthread"), ("sync", "sync"), ("asgi", "asgi"), ("uvicorn", "uvicorn_worker.UvicornWorker")]
)
def test_gunicorn_is_told_its_worker_class(worker_class, loaded):
    found = settings(worker_class=worker_class, workers=3, max_requests=1000, preload=True, timeout=40)
    assert (found["worker_class"], found["workers"], found["threads"]) == (loaded, 3, 4 if worker_class == "gthread" else 1)
    assert (found["max_requests"], found["max_requests_jitter"], found["preload_app"], found["timeout"]) == (1000, 100, True, 40)


def test_sizes_that_are_not_set_are_computed_where_gunicorn_runs():
    found = settings()
    assert found["workers"] >= 1 and found["threads"] >= 4
    assert settings(threads=2)["threads"] == 2
    assert settings(worker_class="sync")["threads"] == settings(worker_class="asgi")["threads"] == 1


@pytest.mark.parametrize(
    ("cpus", "memory", "of_a_cpu", "threads", "tasks", "sizes"),
    [
        (2, 2 * GIB, 1, 4, 1024, (3, 4)),
        (2, 2 * GIB, 2, 1, 1024, (5, 1)),
        (0.5, 2 * GIB, 1, 4, 1024, (2, 4)),
        (64, 64 * GIB, 1, 4, 1024, (16, 4)),
        # Where the memory has no room for workers, threads answer as many requests at a time.
        (4, GIB // 4, 1, 4, 1024, (2, 10)),
        (4, GIB // 100, 1, 4, 1024, (1, 16)),
        (4, GIB // 100, 1, 1, 1024, (1, 1)),
        (64, 64 * GIB, 1, 4, 32, (6, 4)),
    ],
)
def test_sizes_fit_the_machine(cpus, memory, of_a_cpu, threads, tasks, sizes):
    found = settings()["_sizes"](cpus, memory, of_a_cpu, threads, tasks)
    assert found == sizes
    assert 1 + found[0] * (1 + found[1]) <= tasks


NO_LIMIT = 9223372036854771712
"""How control groups before version 2 say it."""


@pytest.mark.parametrize(
    ("limits", "memory"),
    [
        ([], 2 * GIB),
        ([(0, ["max"]), (1, ["max"])], 2 * GIB),
        ([(0, [str(NO_LIMIT)]), (1, [str(NO_LIMIT)])], 2 * GIB),
        ([(0, [str(GIB)]), (1, ["max"])], GIB),
        # A container's limit is the machine that the app shares with others; its own limit is its own.
        ([(0, ["max"]), (2, [str(4 * GIB)])], GIB),
        ([(0, [str(3 * GIB)]), (2, [str(2 * GIB)])], 2 * GIB),
    ],
)
def test_memory_is_what_the_control_groups_leave(limits, memory):
    assert settings()["_memory"](8 * GIB, limits) == memory


def test_cpus_are_what_the_control_groups_leave():
    cpus = settings()["_cpus"]
    assert cpus(8, []) == 8
    assert cpus(8, [(0, ["max", "100000"]), (1, ["150000", "100000"])]) == 1.5


def test_limits_are_read_from_both_kinds_of_control_groups(tmp_path):
    limits = settings()["_limits"]
    (tmp_path / "system.slice" / "shop").mkdir(parents=True)
    (tmp_path / "system.slice" / "shop" / "memory.max").write_text("1000\n")
    (tmp_path / "system.slice" / "memory.max").write_text("max\n")
    (tmp_path / "memory" / "shop").mkdir(parents=True)
    (tmp_path / "memory" / "shop" / "memory.limit_in_bytes").write_text("7\n")
    groups = tmp_path / "groups"
    groups.write_text("4:memory:/shop\n0::/system.slice/shop\n")
    assert limits("memory.max", groups, str(tmp_path)) == [(0, ["1000"]), (1, ["max"])]
    assert limits("memory.limit_in_bytes", groups, str(tmp_path)) == [(0, ["7"])]
    assert limits("cpu.max", groups, str(tmp_path)) == []
