"""The sandbox of nginx's unit: what follows from a configuration."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.module_utils import commands, sandbox, serving

PREFIX = "/usr/share/nginx"
ALWAYS = ("/run", "/var/cache", "/var/lib/nginx", "/var/log")


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", ()),
        ("access_log off;\nerror_log stderr;\nerror_log syslog:server=unix:/dev/log;\nerror_log memory:32m debug;", ()),
        ("access_log /var/log/nginx/shop.log json;\npid /run/nginx.pid;", ()),
        ("server { access_log /srv/shop/logs/access.log; }", ("/srv/shop/logs",)),
        ('server {\n  error_log\n    "/srv/a b/error.log" info;\n}', ("/srv/a b",)),
        ("access_log '/srv/c/access.log';", ("/srv/c",)),
        ("access_log logs/access.log;", ("/usr/share/nginx/logs",)),
        ("access_log /srv/logs/$host/access.log;", ("/srv/logs",)),
        ("access_log /srv/logs/$host.log;", ("/srv/logs",)),
        ("# access_log /srv/no/access.log;", ()),
        ("    # error_log /srv/no/error.log;", ()),
        ("proxy_cache_path /srv/cache/pages levels=1:2 keys_zone=a:1m;", ("/srv/cache",)),
        ("fastcgi_cache_path /data/ keys_zone=a:1m;", ("/data",)),
        ("client_body_temp_path /mnt/disk/bodies 1 2;", ("/mnt/disk",)),
        ("access_log /etc/nginx.log;", ("/etc/nginx.log",)),
        ("access_log /access.log;", ("/access.log",)),
        ("server { listen unix:/srv/sockets/in.sock; listen 80; }", ("/srv/sockets",)),
        ("location / { root /srv/files; dav_methods PUT; }", ("/srv/files",)),
        ("location / { root /srv/files; dav_methods off; }", ()),
        ("location / { root /srv/mirror; proxy_store on; }", ("/srv/mirror",)),
        ("location / { proxy_store /srv/mirror$uri; }", ("/srv/mirror",)),
        ("location / { root /srv/files; }", ()),
        ("location / { root /srv/dav/$remote_user; dav_methods PUT; }", ("/srv/dav",)),
        ("access_log /dev/null;", ()),
        ("access_log /$host.log;", ()),
        ("proxy_cache_path /data keys_zone=a:1m;", ("/data",)),
        ("server { listen 'unix:/srv/sockets/in.sock'; }", ("/srv/sockets",)),
        ("access_log /srv/logs/a/x.log;\nerror_log /srv/logs/y.log;", ("/srv/logs",)),
    ],
)
def test_nginx_may_write_where_its_configuration_says(text, added):
    assert sandbox.of([text], PREFIX).folders == tuple(sorted((*ALWAYS, *added)))


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("location /tmp/ { return 404; }", True),
        ("root /srv/tmp/site;", True),
        ("proxy_pass http://unix:/tmp/app.sock;", False),
        ("server unix:/var/tmp/app.sock;", False),
        ("alias /tmp/files/;", False),
        ('access_log "/tmp/access.log";', False),
        ("root /tmp;", False),
        ("ssl_dhparam /var/tmp/dh.pem;", False),
        ("  # proxy_pass http://unix:/tmp/app.sock;", True),
        ("root /tmp.old;", True),
        ("try_files $uri /tmp/x.html;", True),
        ("rewrite ^/a /tmp/b;", True),
        ("map $uri $to { /old /tmp/new; }", True),
        ("root /srv/x; # was in /tmp/x", True),
        ("server { root /tmp/x; }", False),
    ],
)
def test_nginx_has_a_tmp_of_its_own_unless_something_there_is_meant(text, private):
    found = sandbox.of(["", text], PREFIX)
    assert found.private_tmp is private and f"PrivateTmp={'yes' if private else 'no'}\n" in found.text


def test_a_path_is_one_word_in_a_unit():
    text = sandbox.of(["access_log '/srv/it \\is \"x\"/a.log';", "access_log /srv/90%/a.log;"], PREFIX).text
    (line,) = [line for line in text.splitlines() if line.startswith("ReadWritePaths=")]
    assert line == 'ReadWritePaths=-/run -/srv/90%% "-/srv/it \\\\is \\"x\\"" -/var/cache -/var/lib/nginx -/var/log'


@pytest.mark.parametrize(
    ("modules", "text", "why"),
    [
        (["ngx_http_brotli_filter_module", "ngx_stream_module"], "proxy_bind 192.0.2.1; # transparent", None),
        (["ngx_stream_module", "ngx_http_lua_module"], "", "the module ngx_http_lua_module runs what others wrote"),
        (["ngx_http_passenger_module"], "", "the module ngx_http_passenger_module runs what others wrote"),
        ([], "proxy_bind $remote_addr transparent;", "proxy_bind with transparent takes rights over the network"),
        ([], "# proxy_bind $remote_addr transparent;", None),
        ([], "access_log $where;", "a variable says where a log is"),
        ([], "access_log /var/log/nginx/$host.log;", None),
    ],
)
def test_what_nobody_can_say_the_rights_of_is_in_no_sandbox(modules, text, why):
    assert sandbox.why_not(modules, [text]) == why


@pytest.mark.parametrize(("text", "serves"), [("", False), ("gzip on;", False), ("# server {", False), ("server {\n}", True), ("mail { server { listen 25; } }", True), ("upstream a { server 192.0.2.1; }", False)])
def test_who_has_a_server_serves(text, serves):
    assert sandbox.serves([text]) is serves


def test_files_of_one_configuration_say_together_where_nginx_stores():
    assert "/srv/dav" in sandbox.of(["root /srv/dav;\n", "dav_methods PUT;\n"], PREFIX).folders
    assert f"{PREFIX}/html" in sandbox.of(["root html; dav_methods PUT;"], PREFIX).folders


def test_all_that_nginx_reads_is_looked_at_once(tmp_path):
    for name in ("conf.d", "sites-enabled", "snippets", "portico"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf.d/a.conf").write_text("include snippets/*.conf;\ninclude conf.d/a.conf;\n# a\n")
    (tmp_path / "snippets/b.conf").write_text(f"include {tmp_path}/snippets/b.conf;\n# b\n")
    (tmp_path / "sites-enabled/default").write_text("# default\n")
    (tmp_path / "portico/c.conf").write_text("# c\n")
    own = ["include portico/c.conf;\ninclude extra.conf;\n# own\n"]
    (tmp_path / "extra.conf").write_text("# extra\n")
    texts = sandbox.configuration(own, str(tmp_path), ["conf.d/*.conf", "sites-enabled/*"], f"{tmp_path}/sites-enabled/default")
    assert sorted(text.splitlines()[-1] for text in texts) == ["# a", "# b", "# extra", "# own"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("include portico/pages.conf;\n    include portico/acme.conf;\n", []),
        ("include portico/pages.conf; include extra.conf;\n", ["extra"]),
        ("include portico/pages.conf;include\n  'extra.conf';\n", ["extra"]),
        ("include\tportico/pages.conf;\n", []),
        ('include "portico/pages.conf";\ninclude extra.conf;\n', ["extra"]),
        ("include extra.conf;\n", ["extra"]),
        ("include portico-of-others/*.conf;\n", ["others"]),
    ],
)
def test_what_is_included_beside_what_is_published_is_read(tmp_path, text, read):
    (tmp_path / "portico").mkdir()
    (tmp_path / "portico/pages.conf").write_text("pages")
    (tmp_path / "portico/acme.conf").write_text("acme")
    (tmp_path / "extra.conf").write_text("extra")
    (tmp_path / "portico-of-others").mkdir()
    (tmp_path / "portico-of-others/a.conf").write_text("others")
    assert sandbox.configuration([text], str(tmp_path), [], None) == [text, *read]


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
    path = tmp_path / "sandbox.conf"
    monkeypatch.setattr(sandbox, "DROP_IN", str(path))
    return path


def test_what_is_written_is_known_again(drop_in, monkeypatch):
    wanted, other = sandbox.of([], PREFIX), sandbox.of(["access_log /srv/logs/x.log;"], PREFIX)
    assert sandbox.is_written(None) and not sandbox.is_written(wanted) and not sandbox.is_in_unit() and sandbox.said() is None
    drop_in.write_text(sandbox.drop_in(wanted, None))
    assert sandbox.is_written(wanted) and not sandbox.is_written(other) and not sandbox.is_written(None) and sandbox.is_in_unit()
    monkeypatch.setattr(sandbox, "is_sandboxed", {"1": True, "2": False}.__getitem__)
    assert sandbox.is_tried(wanted, "1") and not sandbox.is_tried(other, "1"), "one that runs outside of it has not tried it"
    assert not sandbox.is_tried(wanted, "2")
    assert sandbox.drop_in(wanted, None) == wanted.text and sandbox.drop_in(other, None) == other.text and sandbox.drop_in(None, None) is None


def test_a_host_on_which_it_cannot_be_says_why_and_is_asked_again_when_something_else_changes(drop_in):
    wanted, other = sandbox.of([], PREFIX), sandbox.of(["access_log /srv/logs/x.log;"], PREFIX)
    drop_in.write_text(sandbox.drop_in(wanted, "Failed to set up mount namespacing"))
    assert sandbox.is_written(wanted) and not sandbox.is_in_unit() and not sandbox.is_written(other)
    assert sandbox.said() == "Failed to set up mount namespacing"


def test_it_is_tried_with_each_of_its_properties(monkeypatch):
    asked = []
    monkeypatch.setattr(commands, "run", lambda argv, seconds: asked.append(argv) or commands.Done(1, "", "one\n two"))
    wanted = sandbox.of([], PREFIX)
    assert sandbox.try_out(wanted, ["nginx", "-t"]) == "one two"
    assert asked[0][:2] == ["systemd-run", "--quiet"] and asked[0][-2:] == ["nginx", "-t"]
    # And with as many open files as its unit has, which is no part of the sandbox.
    assert f"LimitNOFILE={serving.OPEN_FILES}" in asked[0]
    assert asked[0].count("--property") == len(wanted.properties) + 1 and all(f"{line}\n" in wanted.text for line in wanted.properties)
    assert set(wanted.properties) <= set(asked[0])


def test_two_together_let_nginx_do_what_either_needs():
    one, other = sandbox.of(["access_log /srv/logs/a/x.log;"], PREFIX), sandbox.of(["access_log /srv/logs/y.log; root /tmp/x;"], PREFIX)
    assert sandbox.together(one, other) == sandbox.Sandbox(other.folders, False)


def test_a_process_in_no_sandbox_of_ours_is_not_let_anything_else(monkeypatch):
    assert not sandbox.is_sandboxed("") and not sandbox.is_sandboxed(str(2**31)) and not sandbox.is_sandboxed("self")
    monkeypatch.setattr(commands, "run", None)
    assert sandbox.open_up(sandbox.of(["access_log /srv/logs/x.log;"], PREFIX), "self") is None


def test_what_a_link_leads_to_is_writable_too(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "real")
    folders = sandbox.of([f"access_log {tmp_path}/logs/x.log;"], PREFIX).folders
    assert {str(tmp_path / "logs"), str(tmp_path / "real")} <= {*folders}


@pytest.mark.parametrize(("bounded", "ours"), [(0x4C3, True), (0x4C3 | 1 << 23, True), (0x4C3 | 1 << 21, False), (0x4C2, False), (2**41 - 1, False)])
def test_our_sandbox_is_known_by_the_rights_that_it_leaves(monkeypatch, bounded, ours):
    monkeypatch.setattr(sandbox, "_mounts", {"1": "mnt:[1]", "7": "mnt:[2]"}.get)
    monkeypatch.setattr(sandbox.files, "read", {"/proc/7/status": f"Name:\tnginx\nCapBnd:\t{bounded:016x}\nCapAmb:\t0\n"}.get)
    assert sandbox.is_sandboxed("7") is ours


def test_who_sees_the_mounts_of_all_is_in_no_sandbox(monkeypatch):
    """As in a container that may make none."""
    monkeypatch.setattr(sandbox, "_mounts", lambda _process: "mnt:[1]")
    monkeypatch.setattr(sandbox.files, "read", {"/proc/7/status": f"CapBnd:\t{0x4C3:016x}\n"}.get)
    assert not sandbox.is_sandboxed("7")
