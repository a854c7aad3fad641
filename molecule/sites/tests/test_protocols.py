"""Which versions of HTTP and TLS are spoken."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def spoken(host, name):
    """What curl speaks with a site when it is asked to: the version of HTTP, and the status."""

    def spoken(site, *words):
        url = f"https://{site}.{name}.example.test/index.html"
        return host.run("curl --silent --insecure --output /dev/null --max-time 10 --write-out '%%{http_version} %%{http_code}' " + "%s " * (len(words) + 1), *words, url).stdout.split()

    return spoken


@pytest.fixture
def has_http3(host):
    return "--with-http_v3_module" in host.run("nginx -V").stderr


def test_http2_is_spoken(spoken):
    assert spoken("main", "--http2") == ["2", "200"]


def test_http3_is_spoken_and_told_where_nginx_has_it(spoken, ask, has_http3, host):
    told = ask("main", "/index.html").headers.get_all("Alt-Svc")
    if has_http3:
        assert told == ['h3=":443"; ma=86400']
        assert spoken("main", "--http3-only") == spoken("paged", "--http3-only") == ["3", "200"]
    else:
        assert told is None


def test_a_name_that_no_site_has_gets_nothing_over_http3(host, name, has_http3):
    if not has_http3:
        pytest.skip("nginx without HTTP/3")
    done = host.run("curl --silent --insecure --http3-only --max-time 10 --resolve nobody.example.test:443:127.0.0.1 https://nobody.example.test/")
    # Neither an answer, nor a curl without HTTP/3, nor nobody there.
    assert done.rc not in (0, 2, 4, 28) and not done.stdout, done


def test_where_nginx_has_no_http3_the_play_says_so_before_anything(play, name, has_http3, host):
    if has_http3:
        pytest.skip("nginx with HTTP/3")
    live = host.check_output("readlink /var/lib/portico/nginx/live")
    for flags in ([], ["--check"]):
        run = play("converge.yml", "--limit", name, "--extra-vars", json.dumps({"nginx_http3": True}), *flags)
        assert not run.ok and "nginx_http3: true needs nginx 1.25.0 or newer, built with HTTP/3, and this host's is 1.22.1 without it" in run.output, run.output
    assert host.check_output("readlink /var/lib/portico/nginx/live") == live


RESUME = """
site=$1 version=$2 session=/run/session-of-a-test
ask() { printf 'GET / HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n' "$site" | openssl s_client -ign_eof -connect 127.0.0.1:443 -servername "$site" "-$version" "$@" 2>&1 | grep --text --only-matching '^New\\|^Reused'; }
case $3 in
  first) ask -sess_out $session;;
  again) ask -sess_in $session;;
esac
"""


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_who_comes_back_takes_its_session_up_again(host, name, version, reload):
    """With any worker, and after a reload too: what they know of sessions they share, and keep."""

    def ask(time):
        return host.run("bash -c %s resume %s %s %s", RESUME, f"main.{name}.example.test", version, time).stdout.strip()

    assert ask("first") == "New"
    assert [ask("again") for _number in range(4)] == ["Reused"] * 4
    reload()
    assert ask("again") == "Reused"
