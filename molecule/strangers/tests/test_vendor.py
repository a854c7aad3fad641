"""nginx from its vendor's repository: one that is made here, of the same form. The tests are one story, told in this order."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest
from load import Load
from scene import state

REPOSITORY = "http://127.0.0.1:8099"
VERSION = "1.29.3-1~"
SITE = {"name": "ours", "server_names": ["ours.example.test"], "tls": False, "redirect": "https://published.example.test", "extra_config": "location = /echo { echo loaded; }"}
APT = ("/etc/apt/sources.list.d/portico-nginx.sources", "/etc/apt/preferences.d/portico-nginx.pref")
TEMPORARY = "/var/lib/nginx/body"

THEIRS = r"""
cat >/etc/nginx/conf.d/theirs.conf <<'END'
server { listen 80; server_name theirs.example.test; access_log /var/log/nginx/theirs.log main; return 200 "theirs\n"; }
END
nginx -t -q && systemctl reload nginx
"""


@pytest.fixture(scope="module")
def keys(bare):
    """A host without nginx that serves such a repository: the fingerprint of its key, and of another one that is in the same file."""
    with Path(__file__).parents[1].joinpath("vendor.sh").open() as script:
        done = subprocess.run(["docker", "exec", "--interactive", bare.backend.name, "bash"], stdin=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def repository(keys):
    return {"url": f"{REPOSITORY}/packages", "key": f"{REPOSITORY}/key.asc", "fingerprints": keys[:1]}


@pytest.fixture(scope="module")
def from_vendor(play_of, repository):
    return functools.partial(play_of, nginx_repository=repository, nginx_modules=["echo"], nginx_sites=[SITE])


def words(run):
    return " ".join(run.output.split())


def asked(host):
    """Return how often the host was asked or told something: modules leave a line in its journal."""
    return host.check_output("journalctl --sync; journalctl --no-pager --output cat | grep -c '^Invoked with'")


def users(host):
    """Return who nginx is, but for workers of before a reload that have something in hand."""
    return set(host.check_output("ps -o user=,args= -C nginx | grep -v 'is shutting down' | cut -d' ' -f1").split())


def is_served(host, visitor, module=True):
    assert visitor.get("http://ours.example.test/").headers["Location"] == "https://published.example.test/"
    if module:
        assert visitor.get("http://ours.example.test/echo").text == "loaded\n"
    assert users(host) == {"root", "www-data"}


def version(host):
    return host.check_output("dpkg-query --show --showformat='${Version}' nginx")


def test_a_key_that_nobody_has_named_is_refused_before_anything_is_touched(keys, host, repository, from_vendor):
    before = state(host)
    for flags in ([], ["--check"]):
        run = from_vendor(*flags, ok=False, nginx_repository={**repository, "fingerprints": ["0" * 40]})
        assert f'nginx_repository, key "key": "{REPOSITORY}/key.asc" has the keys {keys[0]}, {keys[1]}, and the fingerprint of none of them is in fingerprints.' in words(run)
    assert state(host) == before
    assert not host.package("nginx").is_installed


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"key": f"{REPOSITORY}/gone.asc"}, "cannot be fetched by this host"),
        ({"key": f"{REPOSITORY}/stranger.asc"}, "so it was taken out again"),
        ({"url": f"{REPOSITORY}/nothing"}, "so it was taken out again"),
    ],
    ids=["no key", "another's signature", "no repository"],
)
def test_a_repository_that_apt_cannot_use_leaves_nothing(keys, host, repository, from_vendor, wrong, why):
    before = state(host)
    run = from_vendor(ok=False, nginx_repository={**repository, "fingerprints": keys, **wrong})
    assert why in words(run)
    assert state(host) == before
    assert not host.package("nginx").is_installed


def test_a_dry_run_touches_nothing(host, from_vendor):
    before = state(host)
    assert from_vendor("--check").changed == {host.backend.name: 1}
    assert state(host) == before
    assert not host.package("nginx").is_installed


def test_one_run_installs_it_and_serves(host, visitor, from_vendor):
    from_vendor()
    is_served(host, visitor)
    assert version(host).startswith(VERSION)
    assert f"*** {version(host)} 900" in host.check_output("apt-cache policy nginx")
    # The packaged site is off, though nobody has edited it.
    unknown = host.run("curl --silent http://localhost/")
    assert unknown.rc != 0 and unknown.stdout == ""


def test_the_next_run_asks_once_and_changes_nothing(host, from_vendor):
    before = int(asked(host))
    assert from_vendor().changed == {host.backend.name: 0}
    assert int(asked(host)) == before + 1
    assert from_vendor("--check").changed == {host.backend.name: 0}


def test_a_file_of_apt_that_was_edited_is_put_right(host, from_vendor):
    there = [host.file(path).content_string for path in APT]
    host.check_output("sed -i 's/ 900/ 1/' %s && echo 'Trusted: yes' >>%s", APT[1], APT[0])
    assert from_vendor().changed == {host.backend.name: 1}
    assert [host.file(path).content_string for path in APT] == there


def test_another_scope_that_says_nothing_of_it_leaves_it(host, visitor, play_of, from_vendor):
    play_of(nginx_scope="other", nginx_sites=[{"name": "theirs", "server_names": ["other.example.test"], "tls": False, "redirect": "https://elsewhere.example.test"}])
    is_served(host, visitor)
    assert visitor.get("http://other.example.test/").headers["Location"] == "https://elsewhere.example.test/"
    assert from_vendor().changed == {host.backend.name: 0}
    play_of(nginx_scope="other", nginx_state="absent")
    assert host.file(APT[0]).exists


def test_without_the_setting_the_distribution_is_where_it_comes_from_again(host, visitor, from_vendor):
    was = version(host)
    assert from_vendor(nginx_repository={}).changed == {host.backend.name: 1}
    assert not any(host.file(path).exists for path in APT)
    assert version(host) == was
    is_served(host, visitor)
    assert from_vendor(nginx_repository={}).changed == {host.backend.name: 0}


def test_absent_gives_back_the_packages_own(host, visitor, from_vendor):
    from_vendor()
    from_vendor(nginx_state="absent")
    assert not any(host.file(path).exists for path in APT)
    assert host.check_output("dpkg --verify nginx") == ""
    assert host.check_output("curl --silent http://localhost/") == "The page of nothing."
    assert host.check_output("find /etc/nginx -name '*distrib*' -o -name '*portico*'") == ""
    assert users(host) == {"root", "nginx"}
    assert from_vendor(nginx_state="absent").changed == {host.backend.name: 0}


def test_who_had_it_before_keeps_what_it_serves(host, address, visitor, play_of):
    """Somebody else has installed it, and names in a file what its nginx.conf says."""
    host.check_output(THEIRS)
    before = state(host)
    play_of("--check")
    assert state(host) == before
    with Load(address, ["http://theirs.example.test/"]) as load:
        play_of()
        assert visitor.get("http://ours.example.test/").headers["Location"] == "https://published.example.test/"
        assert play_of().changed == {host.backend.name: 0}
        play_of(nginx_state="absent")
    assert not load.report.lost, load.report
    assert state(host) == before


def test_a_host_with_the_distributions_nginx_is_refused_and_told_how_to_go_on(host, visitor, play_of, from_vendor):
    play_of(nginx_state="absent")
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq purge nginx nginx-module-echo 2>&1; rm -rf /etc/nginx /var/lib/apt/lists/127.0.0.1*; apt-get -qq update")
    play_of()
    before = state(host)
    for flags in ([], ["--check"]):
        run = from_vendor(*flags, ok=False)
        assert "nginx_repository: this host has nginx 1." in words(run)
        assert "run 'apt-get remove nginx nginx-common' and then this play again" in words(run)
    assert state(host) == before
    assert visitor.get("http://ours.example.test/").headers["Location"] == "https://published.example.test/"

    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq remove nginx nginx-common 2>&1")
    from_vendor()
    assert version(host).startswith(VERSION)
    is_served(host, visitor)
    assert from_vendor().changed == {host.backend.name: 0}
    from_vendor(nginx_state="absent")
    assert host.check_output("curl --silent http://localhost/") == "The page of nothing."
    assert from_vendor(nginx_state="absent").changed == {host.backend.name: 0}
