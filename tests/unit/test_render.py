"""nginx's configuration as text: read back by crossplane, a parser that others wrote."""

from __future__ import annotations

import re

import crossplane
import pytest

from ansible_collections.portico.web.plugins.plugin_utils import named, render, tls_profiles
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites
from ansible_collections.portico.web.plugins.plugin_utils.streams import normalise_streams

APPS = [{"name": "shop", "static": {"/static/": "staticfiles"}}]
SITES = [
    {"name": "shop", "server_names": ["shop.example.com", "www.shop.example.com"], "app": "shop"},
    {"name": "old", "server_names": ["old.example.com"], "redirect": "https://shop.example.com"},
    {"name": "files", "server_names": ["files.example.com"], "tls": False, "root": "/srv/some files"},
    {"name": "api", "server_names": ["api.example.com"], "locations": [{"path": "/v1/", "proxy": "http://127.0.0.1:9000"}]},
]
POOLS = [{"name": "db", "servers": [{"address": "10.0.0.1:5432"}], "tls": True, "host": "db.example.com"}]
STREAMS = [{"name": "db", "port": 5432, "upstream": "db", "certificate": "shop"}, {"name": "dns", "port": 53, "protocol": "udp", "proxy": "10.0.0.1:53"}]
BOOKWORM = render.Host((1, 22, 1), (3, 0, 17))
TRIXIE = render.Host((1, 26, 3), (3, 5, 1))


def published(host=TRIXIE, sites=SITES, ports=(80, 443), extra_config=""):
    settings = {"http_port": ports[0], "https_port": ports[1], "extra_config": extra_config}
    streams = normalise_streams(STREAMS, None, named.normalise({"upstreams": POOLS}))
    files = {**render.base(settings, host, True), **render.site_files(normalise_sites(sites, APPS), APPS, host, settings), **render.stream_files(streams, host)}
    return {path: text for path, text in files.items() if path.endswith(".conf")}


def parsed(text, tmp_path):
    file = tmp_path / "a.conf"
    file.write_text(text)
    answer = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)
    assert answer["status"] == "ok", answer["errors"]
    return answer["config"][0]["parsed"]


def directives(block, name):
    return [each["args"] for each in block if each["directive"] == name]


@pytest.mark.parametrize("host", [BOOKWORM, TRIXIE], ids=["bookworm", "trixie"])
def test_every_file_is_what_nginx_reads(host, tmp_path):
    files = published(host)
    assert {"nginx.conf", "sites/shop.conf", "sites/old.conf", "sites/files.conf", "sites/api.conf"} <= files.keys()
    for text in files.values():
        parsed(text, tmp_path)


def test_the_version_decides_how_http2_is_switched_on(tmp_path):
    old = parsed(published(BOOKWORM)["listens-tls.conf"], tmp_path)
    new = parsed(published(TRIXIE)["listens-tls.conf"], tmp_path)
    assert ["443", "ssl", "http2"] in directives(old, "listen") and not directives(old, "http2")
    assert ["443", "ssl"] in directives(new, "listen") and directives(new, "http2") == [["on"]]


def test_only_an_openssl_that_knows_it_is_told_of_the_hybrid_key_exchange():
    assert "X25519MLKEM768" not in published(BOOKWORM)["tls.conf"]
    assert "X25519MLKEM768" in published(TRIXIE)["tls.conf"]


def test_nobody_is_believed_unless_it_is_said(tmp_path):
    alone = published()["visitors.conf"]
    assert "real_ip" not in alone and "geo" not in alone
    settings = {"trusted_proxies": ["10.0.0.0/8", "cloudflare", "10.0.0.0/8"], "trusted_header": "CF-Connecting-IP"}
    said = parsed(render.base(settings, TRIXIE)["visitors.conf"], tmp_path)
    networks = [args for (args,) in directives(said, "set_real_ip_from")]
    assert networks[0] == "10.0.0.0/8" and "2400:cb00::/32" in networks and len(networks) == len(set(networks))
    assert directives(said, "real_ip_header") == [["CF-Connecting-IP"]]


def test_a_host_without_ipv6_is_not_told_to_listen_there():
    assert not any("[::]" in text for text in published(render.Host((1, 26, 3), (3, 5, 1), ipv6=False)).values())


def locations(text, tmp_path):
    (server,) = (each["block"] for each in parsed(text, tmp_path) if each["directive"] == "server" and directives(each["block"], "location"))
    return {each["args"][-1]: each["block"] for each in server if each["directive"] == "location"}


def test_a_backend_is_told_of_a_websocket_and_of_no_other_protocol(tmp_path):
    files = published()
    (upgrade, connection) = (
        dict((inner["directive"], inner["args"]) for inner in each["block"])
        for each in parsed(files["maps.conf"], tmp_path)
        if each["args"] in (["$request_method:$http_upgrade", "$portico_websocket"], ["$portico_websocket", "$portico_connection"])
    )
    # nginx compares without regard to case. With an empty value it does not send the header at all.
    assert upgrade == {"default": [""], "GET:websocket": ["websocket"]}
    assert connection == {"default": [""], "websocket": ["upgrade"]}
    told = {name: value for name, value in directives(parsed(files["forwarded.conf"], tmp_path), "proxy_set_header")}
    assert (told["Upgrade"], told["Connection"]) == ("$portico_websocket", "$portico_connection")
    for name, path in (("blog", "/"), ("api", "/v1/")):
        files = published(sites=[*SITES, {"name": "blog", "server_names": ["blog.example.com"], "app": "shop"}])
        assert ["portico/proxy.conf"] in directives(locations(files[f"sites/{name}.conf"], tmp_path)[path], "include")


@pytest.mark.parametrize(
    ("timeout", "of_site", "of_location", "waits"),
    [
        (30, None, None, []),
        (300, None, None, [["305s"]]),
        (300, None, "proxy_read_timeout 1h;", [["1h"]]),
        (300, "proxy_read_timeout 1h;", None, []),
        (300, None, "if ($arg_a) { return 403; }", [["305s"]]),
    ],
)
def test_nginx_waits_longer_than_the_app_may_take(tmp_path, timeout, of_site, of_location, waits):
    apps = [{"name": "shop", "static": {}, "timeout": timeout}]
    site = {"name": "shop", "server_names": ["shop.example.com"], "extra_config": of_site, "locations": [{"path": "/", "app": "shop", "extra_config": of_location}]}
    settings = {"http_port": 80, "https_port": 443, "extra_config": ""}
    text = render.site_files(normalise_sites([site], apps), apps, TRIXIE, settings)["sites/shop.conf"]
    assert directives(locations(text, tmp_path)["/"], "proxy_read_timeout") == waits


def test_a_host_without_certificates_knows_every_variable(tmp_path):
    """nginx refuses a name that nothing defines, also where nobody asks for its value."""
    files = {path: text for path, text in render.base({}, TRIXIE).items() if path.endswith(".conf")}
    defined = {each["args"][-1].removeprefix("$") for text in files.values() for each in parsed(text, tmp_path) if each["directive"] == "map"}
    defined |= {name for text in files.values() for name in re.findall(r"\(\?<(portico_\w+)>", text)}
    used = {name for text in files.values() for name in re.findall(r"\$(portico_\w+)", text)}
    assert used and not used - defined


def test_old_workers_do_not_live_for_ever(tmp_path):
    assert directives(parsed(published()["nginx.conf"], tmp_path), "worker_shutdown_timeout") == [["24h"]]


def test_a_path_with_a_blank_is_one_token(tmp_path):
    (server,) = (each for each in parsed(published()["sites/files.conf"], tmp_path) if each["directive"] == "server")
    (location,) = (each for each in server["block"] if each["directive"] == "location")
    assert directives(location["block"], "root") == [["/srv/some files"]]


def test_another_port_is_in_redirects_and_listens(tmp_path):
    files = published(ports=(8080, 8443))
    assert "default :8443;" in files["visitors.conf"]
    assert ["8443", "ssl"] in directives(parsed(files["listens-tls.conf"], tmp_path), "listen")


def listens(text, tmp_path):
    return [each["args"] for server in parsed(text, tmp_path) if server["directive"] == "server" for each in server["block"] if each["directive"] == "listen"]


def test_with_the_proxy_protocol_the_host_itself_is_still_heard(tmp_path):
    said = {"http_port": 80, "https_port": 443, "proxy_protocol": True, "trusted_proxies": ["10.0.0.7"]}
    files = render.base(said, TRIXIE)
    together = "".join(f"server {{\n{files[name]}}}\n" for name in ("listens.conf", "listens-tls.conf"))
    for text, more in ((files["default.conf"], ["default_server"]), (together, [])):
        assert listens(text, tmp_path) == [
            *([address, *more, "proxy_protocol"] for address in ("80", "[::]:80")),
            *([address, *more] for address in ("127.0.0.1:80", "[::1]:80")),
            *([address, "ssl", *more, "proxy_protocol"] for address in ("443", "[::]:443")),
            *([address, "ssl", *more] for address in ("127.0.0.1:443", "[::1]:443")),
        ]
    visitors = parsed(files["visitors.conf"], tmp_path)
    assert [each["args"] for each in visitors if each["directive"].startswith("real_ip")] == [["proxy_protocol"]]
    # What such a proxy passes on is all its visitor's.
    assert [each["args"] for each in visitors if each["args"][1:] == ["$portico_proxied"]] == [["", "$portico_proxied"]]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({}, {"CF-Connecting-IP": "", "True-Client-IP": ""}),
        ({"trusted_proxies": ["10.0.0.7"], "trusted_header": "CF-Connecting-IP"}, {"CF-Connecting-IP": "$remote_addr", "True-Client-IP": ""}),
        ({"trusted_proxies": ["10.0.0.7"], "trusted_header": "X-Visitor"}, {"X-Visitor": "$remote_addr", "CF-Connecting-IP": ""}),
        ({"trusted_proxies": ["10.0.0.7"], "trusted_header": "X-Visitor", "proxy_protocol": True}, {"X-Visitor": "", "CF-Connecting-IP": ""}),
    ],
)
def test_what_proxies_say_of_a_visitor_no_visitor_says(tmp_path, said, heard):
    told = dict(directives(parsed(render.base(said, TRIXIE)["forwarded.conf"], tmp_path), "proxy_set_header"))
    assert heard.items() <= told.items() and told["X-Forwarded-For"] == "$remote_addr"


@pytest.mark.parametrize("family", ["fastcgi", "uwsgi"])
def test_an_application_hears_in_variables_what_a_backend_hears_in_headers(tmp_path, family):
    files = render.base({"trusted_proxies": ["10.0.0.7"], "trusted_header": "X-Visitor"}, TRIXIE)
    headers = dict(directives(parsed(files["forwarded.conf"], tmp_path), "proxy_set_header"))
    params = {name: value for name, value, *_more in directives(parsed(files[f"{family}.conf"], tmp_path), f"{family}_param")}
    for name, value in headers.items():
        if name not in ("Upgrade", "Connection"):
            assert params[f"HTTP_{name.upper().replace('-', '_')}"] == value
    # A program that a FastCGI server runs may take it for the proxy that it is to use (CVE-2016-5385).
    assert (params["HTTP_PROXY"], params["HTTP_UPGRADE"], params["HTTP_X_VISITOR"]) == ("", "", "$remote_addr")
    assert dict(directives(parsed(files["grpc.conf"], tmp_path), "grpc_set_header")).items() <= headers.items()


def test_http3_listens_beside_and_once_with_workers_of_its_own(tmp_path):
    said = {"http_port": 80, "https_port": 443, "http3": True}
    files = render.base(said, TRIXIE)
    assert [args for args in listens(files["default.conf"], tmp_path) if "quic" in args] == [["443", "quic", "reuseport", "default_server"], ["[::]:443", "quic", "reuseport", "default_server"]]
    assert [args for args in listens(f"server {{\n{files['listens-tls.conf']}}}\n", tmp_path) if "quic" in args] == [["443", "quic"], ["[::]:443", "quic"]]
    assert "quic" not in published()["default.conf"]


def test_the_modern_profile_speaks_tls_1_3_alone(tmp_path):
    modern = parsed(render.base({"tls_profile": "modern"}, TRIXIE)["tls.conf"], tmp_path)
    assert [each["args"] for each in modern if each["directive"] in ("ssl_protocols", "ssl_ciphers")] == [["TLSv1.3"]]


def test_blocks_are_indented_as_they_are_nested():
    for name, text in published().items():
        depth, goes_on = 0, False
        for line in text.splitlines():
            bare_line = line.strip()
            if not bare_line or bare_line.startswith("#"):
                continue
            depth -= bare_line == "}"
            assert line == "    " * (depth + goes_on) + bare_line, f"{name}: {line!r}"
            goes_on = bare_line[-1] not in ";{}"
            depth += bare_line.endswith("{")
        assert depth == 0, name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a.test", "a.test"),
        (80, "80"),
        (True, "on"),
        (False, "off"),
        (["a", "b c"], 'a "b c"'),
        ("", '""'),
        ("a; return 418", '"a; return 418"'),
        ("a\nb", '"a\nb"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("#a", '"#a"'),
        ("{a}", '"{a}"'),
    ],
)
def test_a_value_becomes_one_token(value, text):
    assert str(render.token(value)) == text


@pytest.mark.parametrize("value", ["a$b", "a\0b", "x" * 5000, None, {"a": 1}, 1.5])
def test_what_no_token_can_carry_is_refused(value):
    with pytest.raises(ValueError):
        render.token(value)


@pytest.mark.parametrize("value", ["a b", "a;b", "", "{"])
def test_the_middle_of_a_token_takes_no_quotes(value):
    with pytest.raises(ValueError):
        render.bare(value)


def test_nginx_itself_goes_on_to_write_its_log_where_it_is_looked_for():
    """What somebody says at the http level takes the place of nothing outside of it."""
    extra = "error_log /var/log/nginx/http.log warn;\ngzip off;"
    text = render.base({**render.default_settings(), "extra_config": extra}, render.Host(taken_directives=("error_log",)))["nginx.conf"]
    assert "\nerror_log /var/log/nginx/error.log;\n" in text
    assert "    gzip on;" not in text


def test_templates_quote_or_say_why_not():
    """An expression that touches other text is in the middle of a token, and has to be bare (or safe)."""
    for template in render._TEMPLATES.glob("*.j2"):
        for before, expression, after in re.findall(r"(.?)\{\{ (.*?) \}\}(.?)", template.read_text(encoding="utf-8")):
            alone = before in ("", " ") and after in ("", " ", ";")
            assert alone or expression.endswith(("| bare", "| safe", "| within")) or template.name == "location_redirect.conf.j2", f"{template.name}: {expression}"


def test_extra_config_stands_in_its_block(tmp_path):
    sites = [
        {
            "name": "shop",
            "server_names": ["shop.example.com"],
            "extra_config": "client_max_body_size 64m;\nif ($arg_a) {\nreturn 403;\n}",
            "locations": [{"path": "/", "root": "/srv", "extra_config": "add_header X-A 'b; }';"}, {"path": "/b/", "root": "/srv", "extra_config": "autoindex on; # yes"}],
        }
    ]
    text = published(sites=sites)["sites/shop.conf"]
    (server,) = (each["block"] for each in parsed(text, tmp_path) if each["directive"] == "server")
    assert directives(server, "client_max_body_size") == [["64m"]]
    assert [each["args"] for each in server if each["directive"] == "if"] == [["$arg_a"]]
    root, below = (each["block"] for each in server if each["directive"] == "location" and each["args"][0] in ("/", "/b/"))
    assert ["X-A", "b; }"] in directives(root, "add_header") and ["portico/headers.conf"] in directives(root, "include")
    assert directives(below, "autoindex") == [["on"]] and not directives(below, "add_header")
    assert "        autoindex on; # yes\n    }\n" in text and "    if ($arg_a) {\n        return 403;\n    }\n\n    include portico/pages.conf;\n}\n" in text


def test_the_http_levels_extra_config_counts_instead_of_ours(tmp_path):
    files = published(extra_config="client_max_body_size 64m;\nssl_session_timeout 1h;\nclient_header_timeout 60s;")
    assert directives(parsed(files["http.conf"], tmp_path), "client_max_body_size") == [["64m"]]
    assert not {"client_max_body_size", "client_header_timeout"} & set(files["nginx.conf"].split()) and "ssl_session_timeout" not in files["tls.conf"]
    assert "gzip on;" in files["nginx.conf"] and "ssl_protocols" in files["tls.conf"]


def test_what_can_be_said_twice_is_not_taken_out():
    extra = "include /etc/nginx/more.conf;\nadd_header X-A b;"
    for files in published(extra_config=extra), published(render.Host(taken_directives=("include", "add_header"))):
        assert "    include mime.types;\n" in files["nginx.conf"] and "    include portico/sites/*.conf;\n" in files["nginx.conf"]


def test_what_others_have_said_once_is_left_to_them():
    host = render.Host((1, 26, 3), (3, 5, 1), taken_listens=("0.0.0.0:80", "[::]:443"), taken_directives=("gzip", "server_tokens", "client_header_timeout", "server"))
    files = published(host)
    assert not re.search(r"^ *(gzip|server_tokens|client_header_timeout) ", files["nginx.conf"], re.MULTILINE) and "gzip_vary on;" in files["nginx.conf"]
    assert re.findall(r"listen (.*) default_server", files["default.conf"]) == ["[::]:80", "443 ssl"]
    assert {"gzip", "client_max_body_size", "client_header_timeout", "ssl_ciphers"} <= render.once_at_http_level()
    assert not {"include", "add_header", "server", "map"} & render.once_at_http_level()


def test_a_site_reads_what_lies_beside_its_certificate(tmp_path):
    for server in parsed(published()["sites/shop.conf"], tmp_path):
        if server["directive"] == "server":
            included = [path for (path,) in directives(server["block"], "include") if "certificates" in path]
            assert included == ["portico/certificates/shop/transport.conf", "portico/certificates/shop/stapling*.conf"]


@pytest.mark.parametrize(
    ("extra", "is_stapled"),
    [
        ("ssl_stapling off;", False),
        ("ssl_stapling_verify on;", False),
        ("ssl_trusted_certificate /etc/ssl/ca.pem;", False),
        ("include snippets/tls.conf;", False),
        ("client_max_body_size 1m;", True),
        ("include portico/headers.conf;", True),
        ("location /a/ {\ninclude fastcgi_params;\nproxy_ssl_trusted_certificate /etc/ssl/ca.pem;\n}", True),
        ("# ssl_stapling on;", True),
    ],
)
def test_what_a_site_says_of_stapling_itself_is_not_said_twice(extra, is_stapled):
    (text,) = (text for path, text in published(sites=[{**SITES[0], "extra_config": extra}]).items() if path.startswith("sites/"))
    assert text.count("/stapling*.conf;") == (2 if is_stapled else 0) and text.count("/transport.conf;") == 2


@pytest.mark.parametrize(("extra", "theirs", "is_stapled"), [("ssl_stapling off;", (), False), ("", ("ssl_trusted_certificate",), False), ("", ("ssl_certificate",), True)])
def test_what_is_said_of_stapling_for_all_sites_counts(extra, theirs, is_stapled):
    site = {"name": "blog", "server_names": ["blog.example.test"], "root": "/srv/blog"}
    texts = render.site_files(normalise_sites([site], []), [], render.Host(taken_directives=theirs), {"extra_config": extra})
    assert all(("/stapling*.conf;" in text) is is_stapled for text in texts.values()) and texts


def test_nginx_looks_responders_up_at_the_hosts_resolvers_or_at_those_it_is_given():
    host = render.Host(nameservers=("192.0.2.53", "[2001:db8::53]"), ipv6=False)
    assert "\nresolver 192.0.2.53 [2001:db8::53] ipv6=off;\nresolver_timeout 5s;\n" in render.base({}, host)["tls.conf"]
    assert "\nresolver 127.0.0.1:5353 ipv6=off;\n" in render.base({"resolvers": ["127.0.0.1:5353"]}, host)["tls.conf"]
    assert "resolver" not in render.base({}, render.Host())["tls.conf"]


@pytest.mark.parametrize("theirs", [("resolver",), ("resolver", "resolver_timeout"), ("include",)])
@pytest.mark.parametrize("resolvers", [[], ["127.0.0.1"]])
def test_a_resolver_of_somebodys_own_is_not_said_twice(theirs, resolvers):
    """Nor where a file may say it that somebody includes."""
    host = render.Host(nameservers=("192.0.2.53",), taken_directives=theirs)
    assert "\nresolver " not in render.base({"resolvers": resolvers}, host)["tls.conf"]
    extra = "".join(f"{name} 1;\n" for name in theirs)
    assert "\nresolver " not in render.base({"resolvers": resolvers, "extra_config": extra}, render.Host(nameservers=("192.0.2.53",)))["tls.conf"]


def test_a_name_that_no_site_has_gets_nothing_at_any_port(tmp_path):
    """Also where the handshake was about another name: which server answers is decided anew by Host."""
    default = parsed(render.base({"http3": True}, TRIXIE)["default.conf"], tmp_path)
    assert [directives(server["block"], "return") for server in default if server["directive"] == "server"] == [[["444"]]] * 3


EVERYTHING = [
    *SITES,
    {"name": "plain", "server_names": ["plain.example.com", "www.plain.example.com"], "tls": False, "proxy": "https://backend.example.com/", "headers": {"X-Frame-Options": ""}},
    {"name": "closed", "server_names": ["closed.example.com"], "root": "/srv/closed", "maintenance": {"allow": ["192.0.2.0/24"]}, "error_pages": {404: "/srv/404.html"}, "refuse_agents": ["scanners"], "trailing_slash": "add", "redirects": {"/a": "/b"}},
    {"name": "guarded", "server_names": ["guarded.example.com"], "access": "office", "limits": ["everything"], "hsts": {"include_subdomains": True}, "answer": {"text": "here"}},
    {
        "name": "mixed",
        "server_names": ["mixed.example.com"],
        "cache": "pages",
        "access_log": "json",
        "extra_config": "add_header X-Own own;",
        "locations": [
            {"path": "/", "proxy": "http://127.0.0.1:9000", "timeout": 9, "unbuffered": ["answers"], "cache": "none"},
            {"path": "/in/", "proxy": "uwsgi://127.0.0.1:9001", "csp": "default-src 'self'", "max_body_size": "5m"},
            {"path": "/asked/", "proxy": "grpc://127.0.0.1:9002", "access": "asked"},
            {"path": "/kept/", "proxy": "http://127.0.0.1:9000"},
            {"path": "/media/", "alias": "/srv/media", "uploads": True, "extra_config": "autoindex on;"},
            {"path": "/gone", "exact": True, "redirect": "https://example.com/elsewhere", "limits": ["login"]},
        ],
    },
]
NAMED = {
    "access": [{"name": "office", "allow": ["192.0.2.0/24"], "users": [{"name": "a", "password": "b"}]}, {"name": "asked", "ask": {"url": "http://127.0.0.1:4180/auth", "sign_in": "/in?to=", "headers": ["X-User"]}}],
    "caches": [{"name": "pages", "fresh": 60}],
}


@pytest.mark.parametrize("host", [BOOKWORM, TRIXIE], ids=["bookworm", "trixie"])
def test_a_site_is_what_its_template_makes_of_it_with_each_include_where_jinja2_has_it(host, monkeypatch):
    def made():
        return render.site_files(normalise_sites(EVERYTHING, APPS, named=named.normalise(NAMED)), APPS, host, {"http_port": 80, "https_port": 443})

    quick = made()
    monkeypatch.setattr(render, "_of_sites", lambda: render._environment().get_template("site.conf.j2"))
    assert quick == made()


def test_what_every_site_has_is_in_its_template_and_not_included_for_each():
    source = render._Whole(render._TEMPLATES).get_source(render._environment(), "site.conf.j2")[0]
    assert "server_name {{ site.canonical }};" in source and "ssl_certificate_key" in source and "Strict-Transport-Security" in source
    assert '{% include "location.conf.j2" %}' not in source and '{% include "promises.conf.j2" %}' not in source


LOOKS_UP = {"name": "cloud", "server_names": ["cloud.example.com"], "proxy": "http://backend.example.com", "backend": {"resolve": True}}
WITH_BROTLI = render.Host((1, 26, 3), (3, 5, 1), modules=render._BROTLI)


def drafted(settings):
    return render.drafts(normalise_sites([*EVERYTHING, LOOKS_UP], APPS, named=named.normalise(NAMED)), APPS, {**render.default_settings(), **settings})


def finished(drafts, host, settings):
    sites = normalise_sites([*EVERYTHING, LOOKS_UP], APPS, named=named.normalise(NAMED))
    return render.site_files(sites, APPS, host, {**render.default_settings(), **settings}, drafted=drafts)


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({}, BOOKWORM),
        ({}, TRIXIE),
        ({"modules": ["brotli"]}, WITH_BROTLI),
        ({"trusted_proxies": ["192.0.2.1"], "trusted_header": "CF-Connecting-IP"}, TRIXIE),
    ],
)
def test_what_was_rendered_before_the_host_answered_is_what_it_gets(settings, host, monkeypatch):
    drafts = drafted(settings)
    expected = finished(None, host, settings)
    rendered = []
    values = render._values
    monkeypatch.setattr(render, "_values", lambda site, *more: rendered.append(site["name"]) or values(site, *more))
    assert finished(drafts, host, settings) == expected
    assert rendered == ["cloud"], "the name servers of a host are known when it has answered"


@pytest.mark.parametrize(
    ("expected", "found", "host"),
    [
        ({"modules": ["brotli"]}, {"modules": ["brotli"]}, TRIXIE),
        ({}, {"trusted_proxies": ["192.0.2.1"], "trusted_header": "CF-Connecting-IP"}, TRIXIE),
    ],
    ids=["a module is not there", "another scope says who is trusted"],
)
def test_what_was_rendered_for_another_host_is_not_used(expected, found, host):
    drafts, fresh = drafted(expected), finished(None, host, found)
    assert finished(drafts, host, found) == fresh
    assert any(text != fresh[f"sites/{name}.conf"] for name, text in drafts.texts.items()), "or it would be no matter"


def test_what_holds_beside_a_site_is_said_of_a_draft_too():
    """What lies beside certificates is not included where the http level says it for all sites, or somebody else does."""
    settings = {"extra_config": "ssl_stapling on;"}
    drafts = drafted(settings)
    assert any("stapling" in text for text in drafts.texts.values())
    assert not any("stapling" in text for text in finished(drafts, TRIXIE, settings).values())


def test_a_template_of_somebodys_own_waits_for_the_host(tmp_path):
    (tmp_path / "own.j2").write_text("server { listen 80; }\n")
    sites = normalise_sites([{"name": "own", "server_names": ["own.example.com"], "template": str(tmp_path / "own.j2")}], [])
    assert render.drafts(sites, [], render.default_settings()).texts == {}


@pytest.mark.parametrize(("value", "written"), [(True, "on"), (1, "1"), ("1", "1"), ("True", "True"), ("on", "on"), (False, "off"), (0, "0"), (render.Markup("$a"), "$a")])
def test_a_token_that_was_made_of_one_value_is_not_given_for_another(value, written):
    assert render.token(value) == written


def test_a_site_of_three_lines_is_short_enough_to_read():
    site = {"name": "blog", "server_names": ["blog.example.test"], "proxy": "http://127.0.0.1:8000"}
    (text,) = render.site_files(normalise_sites([site], []), [], render.Host(), {}).values()
    assert len(text.splitlines()) <= 25


def test_the_profile_of_tls_names_the_guideline_that_it_is_of():
    assert f"guideline {tls_profiles.GUIDELINE}, profile \"intermediate\": https://ssl-config.mozilla.org/guidelines/6.0.json\n" in published()["tls.conf"]
