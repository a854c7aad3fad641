"""Backends that do not speak HTTP, and those whose addresses change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

OF_A_VISITOR = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1", "X-Forwarded-Prefix": "/evil", "Proxy": "http://evil.example.test", "Upgrade": "h2c", "X-User": "root"}

ASK = """
import grpc, json, sys
name, root = sys.argv[1:]
options = [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
with grpc.secure_channel("127.0.0.1:443", grpc.ssl_channel_credentials(root.encode()), options) as channel:
    said = json.loads(channel.unary_unary("/example.Echo/Say")(b"hello", timeout=10, metadata=(("x-forwarded-for", "192.0.2.1"), ("x-mine", "kept"))))
    said["stream"] = [heard.decode() for heard in channel.stream_stream("/example.Echo/Repeat")(iter([b"a", b"b"]), timeout=10)]
    for method in ("Fail", "Nothing"):
        try:
            channel.unary_unary("/example.Echo/" + method)(b"", timeout=10)
        except grpc.RpcError as error:
            said[method] = [error.code().name, error.details()]
print(json.dumps(said))
"""

SILENT = """
import grpc, sys, threading, time
name, root = sys.argv[1:]
options = [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
ended = threading.Event()
def messages():
    yield b"a"
    ended.wait(60)
with grpc.secure_channel("127.0.0.1:443", grpc.ssl_channel_credentials(root.encode()), options) as channel:
    began = time.monotonic()
    try:
        for heard in channel.stream_stream("/example.Echo/Repeat")(messages(), timeout=60):
            assert heard == b"heard a"
    except grpc.RpcError:
        pass
    print(time.monotonic() - began)
    ended.set()
"""


@pytest.fixture
def moved_to(host):
    """Say where a name leads, as a server for names does; None for nowhere."""
    names = "/run/backends/names"
    before = host.check_output("cat %s/moving.example.test", names)

    def moved_to(name, address):
        if address is None:
            host.check_output("rm -f %s", f"{names}/{name}")
        else:
            host.check_output("echo %s > %s", address, f"{names}/{name}")

    yield moved_to
    moved_to("moving.example.test", before)
    moved_to("unborn.example.test", None)


@pytest.mark.parametrize("path", ["/any/way", "/fastcgi/any%20way", "/pool/way", "/scripts/way", "/sealed/any%20way"])
def test_an_application_is_told_the_request_and_who_asks(told, path, name, visitor, host):
    said = told("spoken", f"{path}?a=b&c", **OF_A_VISITOR)
    variables = said["variables"]
    site = f"spoken.{name}.example.test"
    assert (variables["PATH_INFO"], variables["QUERY_STRING"], variables["REQUEST_METHOD"], said["scheme"]) == (path.replace("%20", " "), "a=b&c", "GET", "https")
    assert (variables["HTTP_HOST"], variables["SERVER_NAME"], variables["SERVER_PORT"]) == (site, site, "443")
    assert variables["REMOTE_ADDR"] == variables["HTTP_X_FORWARDED_FOR"] == variables["HTTP_X_REAL_IP"] != "192.0.2.1"
    assert variables["HTTP_X_FORWARDED_PROTO"] == "https" and variables.get("SCRIPT_NAME", "") == ""
    assert not {"HTTP_FORWARDED", "HTTP_X_FORWARDED_PREFIX", "HTTP_PROXY", "HTTP_UPGRADE"} & {key for key, value in variables.items() if value}


def test_a_backend_of_another_protocol_is_asked_for_the_host_that_is_said(told, name):
    variables = told("spoken", "/host/")["variables"]
    assert (variables["HTTP_HOST"], variables["HTTP_X_FORWARDED_HOST"]) == ("inner.example.test", f"spoken.{name}.example.test")


def test_what_is_posted_arrives_in_one_piece_or_several(host, inside):
    host.check_output("head --bytes 100000 /dev/zero >/srv/fits && head --bytes 1100000 /dev/zero >/srv/too-large")
    for path in ("/", "/fastcgi/", "/pool/"):
        for chunked in ([], ["--header", "Transfer-Encoding: chunked"]):
            status, said = inside("spoken", path, "--http1.1", "--data-binary", "@/srv/fits", *chunked)
            assert status == 200 and json.loads(said)["read"] == 100_000
            assert not json.loads(said)["variables"].get("HTTP_TRANSFER_ENCODING")
        assert inside("spoken", path, "--http1.1", "--data-binary", "@/srv/too-large")[0] == 413


def test_of_php_one_script_is_run_and_no_other(told, ask):
    for path in ("/php/", "/php/news/7?a=b", "/php/brought.php", "/php/brought.php/x", "/php/index.php/../brought.php"):
        said = told("spoken", path, Proxy="http://evil.example.test")
        variables = said["variables"]
        assert (said["server"], variables["SCRIPT_NAME"], variables["DOCUMENT_ROOT"]) == ("php", "/index.php", "/srv/php/public")
        assert variables["REQUEST_URI"] == path and variables["HTTPS"] == "on" and not variables.get("HTTP_PROXY")


def test_who_is_let_in_is_told_as_over_http(told, ask):
    known = told("spoken", "/known/", Cookie="signed=in", **OF_A_VISITOR)["variables"]
    assert known["HTTP_X_USER"] == "anna"
    assert not told("spoken", "/", **OF_A_VISITOR)["variables"].get("HTTP_X_USER")
    assert ask("spoken", "/known/", Cookie="signed=barred").status == 403
    # "anna" and "correct horse" with an e acute, in UTF-8.
    staff = told("spoken", "/staff/", Authorization="Basic YW5uYTpjb3JyZWN0IGhvcnNlIMOp")["variables"]
    assert not staff.get("HTTP_AUTHORIZATION")
    assert ask("spoken", "/staff/").status == 401


def test_a_server_over_tls_is_verified_in_other_protocols_too(ask):
    assert (ask("spoken", "/sealed/").status, ask("spoken", "/wrong-name/").status) == (200, 502)


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/fastcgi/", 200), ("/php/", 200), ("/nobody/", 502)])
def test_headers_are_what_they_are_over_http(ask, path, status):
    answer = ask("spoken", path)
    assert answer.status == status
    sent = {header: answer.headers.get_all(header) for header in ("Content-Security-Policy", "X-Frame-Options", "Strict-Transport-Security", "X-Powered-By")}
    assert sent == {"Content-Security-Policy": ["default-src 'self'"], "X-Frame-Options": ["SAMEORIGIN"], "Strict-Transport-Security": ["max-age=63072000"], "X-Powered-By": None}


# Of an upstream in plain text, and at a grpcs:// with a certificate that is verified.
@pytest.mark.parametrize("site", ["spoken", "pools"])
def test_grpc_goes_through_with_its_streams_and_its_errors(host, name, site):
    root = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "issuing-root.pem").read_text()
    done = host.run("python3 -c %s %s %s", ASK, f"{site}.{name}.example.test", root)
    assert done.rc == 0, done
    said = json.loads(done.stdout)
    assert (said["message"], said["stream"], said["Fail"]) == ("hello", ["heard a", "heard b"], ["NOT_FOUND", "nothing here"])
    assert said["Nothing"][0] == "UNIMPLEMENTED"
    told = said["told"]
    assert (told["x-forwarded-for"], told["x-mine"], told["x-forwarded-proto"]) == ("127.0.0.1", "kept", "https") and told["x-request-id"]


def test_a_stream_on_which_nobody_says_anything_ends_after_the_timeout_that_is_said(host, name):
    """And not sooner: nginx's own patience with a body is a minute, and the site's timeout 5 seconds."""
    root = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "issuing-root.pem").read_text()
    done = host.run("python3 -c %s %s %s", SILENT, f"spoken.{name}.example.test", root)
    assert done.rc == 0 and 4 < float(done.stdout) < 30, done


def test_a_name_that_moves_is_followed(told, moved_to, eventually):
    assert told("spoken", "/moving/")["server"] == "9001"
    moved_to("moving.example.test", "127.0.0.2")
    eventually(lambda: told("spoken", "/moving/")["server"] == "moved")


def test_a_name_that_nobody_has_yet_is_found_when_somebody_has_it(ask, moved_to, eventually):
    assert ask("spoken", "/unborn/").status == 502
    moved_to("unborn.example.test", "127.0.0.1")
    eventually(lambda: ask("spoken", "/unborn/").status == 200)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"nginx_upstreams": [{"name": "moving", "resolve": True, "servers": [{"address": "moving.example.test:9001"}]}]}, "needs nginx 1.27.3 or newer, and this host's is 1."),
        ({"nginx_modules": ["brotly"]}, 'nginx_modules: "brotly" is in no package that this host\'s apt knows (libnginx-mod-brotly)'),
    ],
)
def test_what_this_host_cannot_do_is_told_before_anything(play, name, host, extra, message):
    live = host.check_output("readlink /var/lib/portico/nginx/live")
    sites = {"nginx_sites": [{"name": "alone", "server_names": [f"main.{name}.example.test"], "root": "/srv/files/www"}], "nginx_upstreams": [], "nginx_streams": []}
    for flags in ([], ["--check"]):
        run = play("converge.yml", "--limit", name, "--extra-vars", json.dumps({**sites, **extra}), *flags)
        assert not run.ok and message in run.output, run.output
    assert host.check_output("readlink /var/lib/portico/nginx/live") == live
