"""What the half on the host decides: why nginx refused, and what a scope is taken back to."""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
from types import SimpleNamespace

import pytest

from ansible_collections.portico.web.plugins.module_utils import files, store
from ansible_collections.portico.web.plugins.module_utils.files import LogFromNow
from ansible_collections.portico.web.plugins.modules import nginx_generation


@pytest.mark.parametrize("before", ["", "é " * 40 + "\n"])
def test_a_log_is_read_from_now_on(tmp_path, before):
    path = tmp_path / "error.log"
    path.write_text(before, encoding="utf-8")
    log = LogFromNow(str(path))
    assert log.read() == ""
    with path.open("a", encoding="utf-8") as file:
        file.write("[emerg] é\n")
    assert log.read() == "[emerg] é\n"
    path.rename(tmp_path / "error.log.1")
    assert log.read() == ""
    path.write_text("anew\n")
    assert log.read() == "anew\n"


def manifest(host, settings=None, **scopes):
    """A host's files, and those of each scope; who says something of the host's settings is the first one."""
    once = {"owner": "a" if settings else None, "settings": settings or {}, "files": dict.fromkeys(host, "x")}
    return {"format": 1, "host": once, "scopes": {name: {"sites": {}, "certificates": {}, "files": dict.fromkeys(paths, name), **({"streams": {"db": ["tcp", 5432, None]}} if "streams/db.conf" in paths else {})} for name, paths in scopes.items()}}


PLAIN, WITH = ["nginx.conf"], ["nginx.conf", "streams.conf"]


@pytest.mark.parametrize(
    ("then", "live", "has_place"),
    [
        # Alone, all goes back.
        (manifest(WITH, a=["streams/db.conf"]), manifest(PLAIN, a=["sites/a.conf"]), True),
        (manifest(PLAIN, a=["sites/a.conf"]), manifest(WITH, a=["streams/db.conf"]), False),
        # Of two, what nginx has once is what it is, but for the place that somebody's streams need.
        (manifest(WITH, a=["streams/db.conf"], b=["sites/b.conf"]), manifest(PLAIN, a=["sites/a.conf"], b=["sites/b.conf"]), True),
        (manifest(PLAIN, {"http3": True}, a=["sites/a.conf"]), manifest(WITH, {"http3": True}, a=["sites/c.conf"], b=["streams/db.conf"]), True),
    ],
)
def test_who_goes_back_to_streams_has_a_place_for_them_and_so_have_others(monkeypatch, then, live, has_place):
    monkeypatch.setattr(store, "numbers", lambda: [1, 2])
    monkeypatch.setattr(store, "manifest", {1: then, 2: live}.__getitem__)
    number, wanted = nginx_generation._restored_manifest(None, {"manifest": live, "generation": 2}, "a", None)
    assert number == 1 and ("streams.conf" in wanted["host"]["files"]) == has_place
    assert wanted["scopes"]["a"] == then["scopes"]["a"]


def test_where_there_is_no_place_for_streams_any_more_it_is_said(monkeypatch):
    then, live = manifest(WITH, a=["streams/db.conf"], b=["sites/b.conf"]), manifest(PLAIN, a=["sites/a.conf"], b=["sites/b.conf"])
    live["host"].update(owner="b", settings={"http3": True})
    monkeypatch.setattr(store, "numbers", lambda: [1, 2])
    monkeypatch.setattr(store, "manifest", {1: then, 2: live}.__getitem__)
    with pytest.raises(nginx_generation.GenerationError, match="Back at generation 1 there would be streams"):
        nginx_generation._restored_manifest(None, {"manifest": live, "generation": 2}, "a", None)


def test_nobody_goes_back_to_a_stream_that_another_scope_has_now(monkeypatch):
    then, live = manifest(WITH, a=["streams/db.conf"], b=["sites/b.conf"]), manifest(WITH, a=["sites/a.conf"], b=["streams/db.conf"])
    monkeypatch.setattr(store, "numbers", lambda: [1, 2])
    monkeypatch.setattr(store, "manifest", {1: then, 2: live}.__getitem__)
    with pytest.raises(nginx_generation.GenerationError, match='The stream "db" of generation 1 has the name or the port that "db" of the scope "b" has now'):
        nginx_generation._restored_manifest(None, {"manifest": live, "generation": 2}, "a", None)


def test_nobody_goes_back_to_a_site_that_another_scope_has_now(monkeypatch):
    then, live = manifest(PLAIN, a=["sites/shop.conf"], b=["sites/b.conf"]), manifest(PLAIN, a=["sites/a.conf"], b=["sites/shop.conf"])
    monkeypatch.setattr(store, "numbers", lambda: [1, 2])
    monkeypatch.setattr(store, "manifest", {1: then, 2: live}.__getitem__)
    then["scopes"]["a"]["sites"] = {"shop": ["shop.example.com"]}
    for theirs in ({"shop": ["new.example.com"]}, {"other": ["www.example.com", "shop.example.com"]}):
        live["scopes"]["b"]["sites"] = theirs
        with pytest.raises(nginx_generation.GenerationError, match='The site "shop" of generation 1 has the name, or a server name, that "(shop|other)" of the scope "b" has now'):
            nginx_generation._restored_manifest(None, {"manifest": live, "generation": 2}, "a", None)
    live["scopes"]["b"]["sites"] = {"other": ["other.example.com"]}
    assert nginx_generation._restored_manifest(None, {"manifest": live, "generation": 2}, "a", None)[0] == 1


def test_who_goes_back_takes_nobody_the_settings_of_the_host(monkeypatch):
    then, live = manifest(PLAIN, {"http3": True}, a=["sites/a.conf"], b=["sites/b.conf"]), manifest(PLAIN, {"https_port": 8443}, a=["sites/c.conf"], b=["sites/b.conf"])
    monkeypatch.setattr(store, "numbers", lambda: [1, 2])
    monkeypatch.setattr(store, "manifest", {1: then, 2: live}.__getitem__)
    for owner, settings in (("b", {"https_port": 8443}), ("a", {"http3": True}), (None, {"http3": True})):
        live["host"]["owner"] = owner
        _number, wanted = nginx_generation._restored_manifest(None, {"manifest": live, "generation": 2}, "a", None)
        assert wanted["host"]["settings"] == settings, owner


def test_a_test_leaves_a_log_that_another_run_has_published_meanwhile(nginx, tmp_path, monkeypatch):
    """nginx makes the logs of what it only tests, and those that are nobody's go again."""
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"

    def test(_command):
        ours.touch()
        theirs.touch()
        return 0, "", ""

    nginx.module.run_command, nginx.module.check_mode = test, True
    monkeypatch.setattr(store, "live_number", lambda: 2)
    monkeypatch.setattr(store, "texts", lambda _number: {"sites/theirs.conf": f"access_log {theirs} combined;\n"})
    nginx._ask_nginx(str(tmp_path), {"sites/a.conf": f"access_log {ours};\naccess_log {theirs};\n"})
    assert theirs.exists() and not ours.exists()


def test_what_a_killed_run_left_behind_the_link_is_not_left_there_when_nginx_refuses_it(nginx, tmp_path, monkeypatch):
    """nginx serves the second generation, and the link has been at the third since a run was killed before the reload."""
    live = tmp_path / "live"
    live.symlink_to("generations/3")
    monkeypatch.setattr(store, "LIVE", str(live))
    monkeypatch.setattr(store, "numbers", lambda: [2, 3])
    monkeypatch.setattr(store, "texts", lambda _number: {})
    for step in ("make_certificates", "_make_logs", "fit", "_open_up", "_enter"):
        monkeypatch.setattr(nginx, step, lambda *_args: None)

    def refused(*_args):
        raise nginx_generation.GenerationError("refused")

    monkeypatch.setattr(nginx, "_serve", refused)
    wanted = manifest(PLAIN)
    state = {"generation": 3, "serving": 2, "manifest": wanted, "default_site": False, "active": False}
    with pytest.raises(nginx_generation.GenerationError, match="refused"):
        nginx.publish({}, wanted, state, "a test", None, None)
    assert os.readlink(live) == "generations/2"


@pytest.mark.parametrize("why", ["by its own doing", "because systemd does not answer"])
def test_what_cannot_be_put_back_keeps_nothing_else_from_being_put_back(nginx, tmp_path, monkeypatch, why):
    """The unit's file is written, systemd does not read it, and does not read either that it is gone again."""
    live, unit = tmp_path / "live", tmp_path / "unit.d/portico.conf"
    live.symlink_to("generations/3")
    monkeypatch.setattr(store, "LIVE", str(live))
    monkeypatch.setattr(store, "numbers", lambda: [2, 3])
    monkeypatch.setattr(store, "texts", lambda _number: {})
    monkeypatch.setattr(nginx_generation, "FITTINGS", {str(unit): "new"})
    monkeypatch.setattr(nginx_generation.sandbox, "DROP_IN", str(tmp_path / "sandbox.conf"))
    monkeypatch.setattr(nginx_generation.layout, "NGINX_RUN", str(tmp_path / "run"))
    for step in ("make_certificates", "_make_logs"):
        monkeypatch.setattr(nginx, step, lambda *_args: None)
    nginx.module.run_command = lambda argv, **_more: (1, "", "Failed to reload daemon:\n Connection timed out") if argv == ["systemctl", "daemon-reload"] else (0, "", "")
    if why == "by its own doing":
        monkeypatch.setattr(nginx, "fit", lambda *_args: nginx.undo.append(nginx._daemon_reload))

        def refused(*_args):
            raise nginx_generation.GenerationError("refused.")

        monkeypatch.setattr(nginx, "_open_up", refused)
    state = {"generation": 3, "serving": 2, "manifest": manifest(PLAIN), "default_site": False, "active": False}
    with pytest.raises(nginx_generation.GenerationError) as error:
        nginx.publish({}, manifest(PLAIN), state, "a test", None, None)
    failed = "systemctl daemon-reload failed: Failed to reload daemon: Connection timed out."
    first = "refused." if why == "by its own doing" else failed
    assert str(error.value) == f"{first} Not all that was there before could be put back: {failed} Run the play again when that is mended."
    assert os.readlink(live) == "generations/2" and not unit.exists()


def test_a_file_that_cannot_be_put_back_keeps_what_it_leads_to(nginx, tmp_path, monkeypatch):
    """On a full disk the link cannot be moved back. Were the generation taken away that it names, nginx could not be started any more."""
    live = tmp_path / "live"
    live.symlink_to("generations/2")
    (tmp_path / "generations/2").mkdir(parents=True)
    monkeypatch.setattr(store, "LIVE", str(live))
    monkeypatch.setattr(store, "GENERATIONS", str(tmp_path / "generations"))
    monkeypatch.setattr(store, "make", lambda *_args: (tmp_path / "generations/3").mkdir() or 3)
    for step in ("make_certificates", "_make_logs", "fit"):
        monkeypatch.setattr(nginx, step, lambda *_args: None)
    reloaded, point = [], files.point
    monkeypatch.setattr(nginx, "_reload", reloaded.append)
    nginx.module.run_command = lambda *_args, **_more: (0, "", "")

    def refused(*_args):
        monkeypatch.setattr(files, "point", full)
        raise nginx_generation.GenerationError("refused.")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device", str(live))

    monkeypatch.setattr(nginx, "_open_up", refused)
    state = {"generation": 2, "serving": 2, "manifest": manifest(PLAIN), "default_site": False, "active": True}
    with pytest.raises(nginx_generation.GenerationError, match="^refused. Not all that was there before could be put back: .*No space left on device.* Run the play again"):
        nginx.publish({"a": "b"}, manifest(PLAIN), state, "a test", None, None)
    assert files.point is not point and os.readlink(live) == "generations/3" and live.is_dir()
    assert not reloaded, "it would run what it is not known to run well"


def a_host(monkeypatch, tmp_path, **programs):
    """A host with nothing but some programs, name to what each does; and what a module says on it."""
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(nginx_generation.commands, "_ADMINISTRATORS_PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(nginx_generation, "BOOTED", str(tmp_path))
    found = {name: str(tmp_path / name) for name in programs}
    return nginx_generation.Nginx(SimpleNamespace(get_bin_path=lambda name, **_options: found.get(name), run_command=lambda *_args, **_more: (0, "", ""), params={}))


@pytest.mark.parametrize("programs", [{}, {"systemctl": "exit 0"}], ids=["has none", "has not begun with it"])
def test_a_host_without_systemd_is_refused_before_anything(monkeypatch, tmp_path, programs):
    host = a_host(monkeypatch, tmp_path, nginx="exit 0", **programs)
    monkeypatch.setattr(nginx_generation, "BOOTED", str(tmp_path / "not there"))
    with pytest.raises(nginx_generation.GenerationError, match="This host was not booted with systemd"):
        host.read()


def test_an_nginx_that_does_not_say_which_it_is_is_refused(monkeypatch, tmp_path):
    host = a_host(monkeypatch, tmp_path, nginx="echo 'nginx: error while loading shared libraries: libpcre2-8.so.0' >&2; exit 127", systemctl="exit 0")
    with pytest.raises(nginx_generation.GenerationError, match="nginx -V does not say which nginx this host has: .*libpcre2"):
        host.read()


@pytest.fixture
def etc(monkeypatch, tmp_path):
    """A published host's /etc/nginx."""
    for name, path in (("MAIN", "nginx.conf"), ("PACKAGED", "nginx.conf.distrib"), ("ENTRANCE", "portico")):
        monkeypatch.setattr(nginx_generation, name, str(tmp_path / path))
    (tmp_path / "nginx.conf").symlink_to("portico/nginx.conf")
    (tmp_path / "portico").symlink_to(store.LIVE)
    (tmp_path / "nginx.conf.distrib").write_text("# the package's\n")
    return tmp_path


def test_an_nginx_conf_that_was_edited_in_its_place_is_ours_and_the_packages_stays(nginx, etc, monkeypatch):
    """As sed -i leaves it: a copy where the link was."""
    monkeypatch.setattr(nginx, "_is_diverted", lambda: True)
    edited = f"{nginx_generation.OURS}: edited\n"
    assert nginx_generation._is_ours() and not nginx_generation._is_a_copy_of_ours()
    (etc / "nginx.conf").unlink()
    assert nginx_generation._is_ours()
    (etc / "nginx.conf").write_text(edited)
    assert nginx_generation._is_ours() and nginx_generation._is_a_copy_of_ours()
    nginx._enter()
    assert os.readlink(etc / "nginx.conf") == "portico/nginx.conf" and (etc / "nginx.conf.distrib").read_text() == "# the package's\n"
    for step in reversed(nginx.undo):
        step()
    assert (etc / "nginx.conf").read_text() == edited
    (etc / "nginx.conf").write_text("user somebody;\n")
    assert not nginx_generation._is_ours()


def test_what_is_missing_of_another_scope_is_that_scopes_business(nginx, monkeypatch):
    live = manifest(PLAIN, a=["sites/a.conf"], b=["sites/b.conf"])
    live["host"]["files"]["nginx.conf"] = nginx_generation.files.digest("main")
    live["scopes"]["a"]["files"]["sites/a.conf"] = nginx_generation.files.digest("a")
    monkeypatch.setattr(store, "texts", lambda _number: {"nginx.conf": "main"})
    state = {"generation": 1, "manifest": live}
    assert nginx.compose(state, live, "a", {"sites/a.conf": "a"}) == {"nginx.conf": "main", "sites/a.conf": "a"}
    with pytest.raises(nginx_generation.GenerationError, match="The file sites/a.conf of the live generation is gone or edited"):
        nginx.compose(state, live, "a", {})


@pytest.fixture
def nginx(tmp_path):
    """nginx on a host on which workers have been nobody's so far."""
    nginx = nginx_generation.Nginx(SimpleNamespace(get_bin_path=lambda *_args, **_options: None))
    nginx.temporary = str(tmp_path)
    return nginx


def test_a_test_of_a_configuration_gives_no_folder_to_another_user(nginx, tmp_path):
    """nginx gives its temporary folders to the user that a configuration names, also when it only tests that."""
    real, main = tmp_path / "real.conf", tmp_path / "nginx.conf"
    real.write_text("# user x;\n\nuser www-data;\nhttp { }\n")
    main.symlink_to(real)
    nginx._keep_worker(str(main))
    owner = pwd.getpwuid(os.getuid()).pw_name
    assert main.read_text() == f"# user x;\n\nuser {owner};\nhttp {{ }}\n"
    assert real.read_text().splitlines()[2] == "user www-data;"


def test_where_nobody_has_them_it_is_tested_as_it_is(nginx, tmp_path):
    main = tmp_path / "nginx.conf"
    main.write_text("user www-data;\n")
    nginx.temporary = str(tmp_path / "gone")
    nginx._keep_worker(str(main))
    assert main.read_text() == "user www-data;\n"


@pytest.mark.parametrize("package", ["nginx", "nginx-common"])
def test_a_file_is_the_packages_own_whichever_package_it_is(monkeypatch, tmp_path, package):
    site = tmp_path / "default.conf"
    site.write_text("server { }\n")
    told = {"nginx-common": "\n", "nginx": "\n", package: f"\n {site} {hashlib.md5(site.read_bytes()).hexdigest()}\n"}
    module = SimpleNamespace(get_bin_path=lambda name, **_options: name, run_command=lambda argv: (0, "".join(told[each] for each in argv[3:]), ""))
    nginx = nginx_generation.Nginx(module)
    assert nginx._is_pristine(str(site))
    site.write_text("server { listen 81; }\n")
    assert not nginx._is_pristine(str(site))


def test_systemd_reads_units_again_when_they_are_what_they_were(tmp_path, monkeypatch):
    path, drop_in, seen = tmp_path / "unit.d/portico.conf", tmp_path / "unit.d/sandbox.conf", []
    monkeypatch.setattr(nginx_generation, "FITTINGS", {str(path): "new"})
    monkeypatch.setattr(nginx_generation.sandbox, "DROP_IN", str(drop_in))
    monkeypatch.setattr(nginx_generation.layout, "NGINX_RUN", str(tmp_path / "run"))
    monkeypatch.setattr(nginx_generation.Nginx, "_daemon_reload", lambda _self: seen.append((path.exists(), drop_in.exists())))
    nginx = nginx_generation.Nginx(SimpleNamespace(get_bin_path=lambda *_args, **_more: None))
    nginx.fit("sandbox")
    for step in reversed(nginx.undo):
        step()
    assert seen == [(True, True), (False, False)]
