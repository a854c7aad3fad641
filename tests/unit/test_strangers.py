"""What other people's nginx files say that concerns ours."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.module_utils import strangers


@pytest.fixture
def etc(tmp_path):
    for folder in ("conf.d", "sites-enabled", "snippets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "nginx.conf").write_text("user www-data;\nevents { worker_connections 768; }\nhttp {\n    gzip on;\n    include conf.d/*.conf;\n}\n")
    return tmp_path


def test_nothing_is_found_where_nothing_is(etc):
    assert strangers.read(str(etc), None) == {"directives": {}, "default_servers": {}, "streams": None, "main": []}


def test_directives_of_the_http_level_are_found_and_no_others(etc):
    (etc / "conf.d/a.conf").write_text("# gzip off;\ngzip on; client_max_body_size 64m;\nserver { sendfile off; }\nlog_format x '; keepalive_timeout 1';\n")
    (etc / "snippets/b.conf").write_text("server_tokens off;\n")
    found = strangers.read(str(etc), None)["directives"]
    assert found == dict.fromkeys(("gzip", "client_max_body_size", "server", "log_format", "log_format x"), "conf.d/a.conf")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("80", "0.0.0.0:80"),
        ("*:8080", "0.0.0.0:8080"),
        ("0.0.0.0:443", "0.0.0.0:443"),
        ("[::]:80", "[::]:80"),
        ("[::]", "[::]:80"),
        ("192.0.2.1", "192.0.2.1:80"),
        ("192.0.2.1:81", "192.0.2.1:81"),
        ("unix:/run/x.sock", "unix:/run/x.sock:80"),
    ],
)
def test_a_default_server_is_known_by_its_address(etc, listen, address):
    (etc / "sites-enabled/default").write_text(f"server {{ listen {listen} ssl default_server; }}\nserver {{ listen 99; }}\n")
    assert strangers.read(str(etc), None)["default_servers"] == {address: "sites-enabled/default"}
    assert strangers.read(str(etc), str(etc / "sites-enabled/default"))["default_servers"] == {}


def test_what_an_edited_nginx_conf_would_lose_is_found(etc):
    (etc / "nginx.conf").write_text("user x;\nload_module a.so;\nhttp {\n  include mime.types; include mine/*.conf;\n  server {\n    listen 80;\n  }\n}\nstream { }\n")
    assert strangers.read(str(etc), None)["main"] == ["load_module a.so (line 2)", "include mine/*.conf (line 4)", "server (line 5)", "stream (line 9)"]
    assert strangers.read(str(etc), None, pristine=True)["main"] == []
    (etc / "nginx.conf").unlink()
    (etc / "nginx.conf").symlink_to("portico/nginx.conf")
    assert strangers.read(str(etc), None)["main"] == []


def test_a_stream_block_of_somebody_else_is_found(etc):
    (etc / "modules-enabled").mkdir()
    (etc / "modules-enabled/50-mod-stream.conf").write_text("load_module modules/ngx_stream_module.so;\n")
    assert strangers.read(str(etc), None)["streams"] is None
    (etc / "modules-enabled/60-database.conf").write_text("stream {\n    server { listen 5432; proxy_pass 10.0.0.5:5432; }\n}\n")
    assert strangers.read(str(etc), None)["streams"] == "modules-enabled/60-database.conf"


def test_of_an_edited_nginx_conf_of_the_vendor_nothing_is_lost_that_ours_says_too(etc):
    (etc / "nginx.conf").write_text("user nginx;\nhttp {\n  log_format main '$status';\n  log_format own '$status';\n  keepalive_timeout 20;\n  upstream b { }\n}\n")
    assert strangers.read(str(etc), None, is_vendors=True)["main"] == ["log_format own (line 4)", "upstream b (line 6)"]
    assert "log_format main (line 3)" in strangers.read(str(etc), None)["main"]
