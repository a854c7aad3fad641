"""apt brings a newer nginx to a host that serves: it asks nothing, and changes nothing that was published.

Debian's package restarts nginx meanwhile (nginx-common, when it is configured), whoever has written what nginx reads. Who comes at that
moment is refused; nobody gets another answer than before.

Twice: from the oldest version that Debian's archive has of this release to its newest, where it has two, and from there to
one that is made here, of the same files with a higher version.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from load import Load
from scene import state

URLS = ["http://ours.example.test/", "http://theirs.example.test/"]
PACKAGES = ("nginx", "nginx-common", "libnginx-mod-stream")

THEIRS = r"""
cat >/etc/nginx/conf.d/theirs.conf <<'END'
server { listen 80; listen [::]:80; server_name theirs.example.test; return 200 "theirs\n"; }
END
nginx -t -q && systemctl reload nginx
"""

# The newest packages with a higher version, in a repository of their own.
REPACK = r"""
set -e
work=$(mktemp -d /var/tmp/newer.XXXXXX) && cd "$work"
apt-get -qq -o APT::Sandbox::User=root download nginx nginx-common libnginx-mod-stream
rm -rf /srv/newer && mkdir /srv/newer
old=$(dpkg-deb -f nginx_*.deb Version) new="$old+portico1"
for deb in *.deb; do
  dpkg-deb -R "$deb" content
  # Where it depends on another of its source, and itself.
  python3 - content/DEBIAN/control "$old" "$new" <<'END'
import sys
path, old, new = sys.argv[1:]
text = open(path).read()
open(path, "w").write(text.replace(f"(= {old})", f"(= {new})").replace(f"Version: {old}\n", f"Version: {new}\n"))
END
  dpkg-deb --root-owner-group -b content "/srv/newer/${deb%%_*}.deb" >/dev/null
  rm -r content
done
cd /srv/newer
for deb in *.deb; do
  dpkg-deb -f "$deb"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
done >Packages
rm -r "$work"
echo 'deb [trusted=yes] file:/srv/newer ./' >/etc/apt/sources.list.d/newer.list
apt-get -qq update
echo "$new"
"""


def installed(host):
    return host.check_output("dpkg-query --show --showformat='${Version}' nginx")


def conffiles(host):
    """Return what dpkg says of the packages' own files: path to digest."""
    told = host.check_output("dpkg-query --show --showformat='${Conffiles}\n' %s" % " ".join(PACKAGES))
    return dict(re.findall(r"^ (\S+) ([0-9a-f]{32})", told, re.MULTILINE))


@pytest.fixture(scope="module")
def older(bare):
    """A host with the oldest nginx of its release, and a site of somebody else's. What it was like, and the newer version if there is one."""
    versions = list(dict.fromkeys(re.findall(r"^ *nginx \| (\S+) \|", bare.check_output("apt-cache madison nginx"), re.MULTILINE)))
    wanted = " ".join(f"{package}={versions[-1]}" for package in PACKAGES)
    bare.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends {wanted} logrotate openssl ca-certificates >/dev/null")
    bare.check_output(THEIRS)
    assert installed(bare) == versions[-1]
    return SimpleNamespace(newer=versions[0] if len(versions) > 1 else None, state=state(bare), conffiles=conffiles(bare))


@pytest.fixture(scope="module")
def published(older, play_of):
    play_of(nginx_streams=[{"name": "echo", "port": 7007, "proxy": "127.0.0.1:80"}])
    return older


def upgrade(host, address, version):
    """Upgrade, with visitors at the sites, and return what became of these."""
    before = [line for line in state(host) if "/etc/apt" not in line]
    with Load(address, URLS) as load:
        told = host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get -q install --only-upgrade --yes {' '.join(PACKAGES)} 2>&1")
    assert installed(host) == version
    assert "conffile" not in told.lower() and "configuration file" not in told.lower(), told
    assert host.check_output("find /etc/nginx -name '*.dpkg-*'") == ""
    known = older_or_newer(host, before)
    assert known[1] == known[0]
    return load.report


def older_or_newer(host, before):
    """Return the state before and now, without what the packages themselves have otherwise."""
    own = tuple(f" {path}" for path in [*conffiles(host), "/etc/nginx/nginx.conf.distrib"])
    now = [line for line in state(host) if "/etc/apt" not in line]
    return [[line for line in lines if not (line.endswith(own) and re.match(r"[0-9a-f]{64} ", line))] for lines in (before, now)]


def was_away_for_a_moment(report):
    print(report)
    assert report.statuses.keys() == {200, 301}, report
    assert not report.harmed, report


def all_is_served(visitor, ours=True):
    assert visitor.get("http://theirs.example.test/").text == "theirs\n"
    if ours:
        assert visitor.get("http://ours.example.test/").headers["Location"] == "https://published.example.test/"


def test_a_newer_package_of_the_archive_changes_nothing(published, host, address, visitor, play_of):
    if published.newer is None:
        pytest.skip("the archive has one version; the next test makes another")
    report = upgrade(host, address, published.newer)
    was_away_for_a_moment(report)
    all_is_served(visitor)
    assert play_of(nginx_streams=[{"name": "echo", "port": 7007, "proxy": "127.0.0.1:80"}]).changed == {host.backend.name: 0}


def test_nor_does_one_that_comes_after_it(published, host, address, visitor, play_of):
    version = host.check_output("bash -c %s", REPACK)
    try:
        report = upgrade(host, address, version)
    finally:
        host.check_output("rm -r /srv/newer /etc/apt/sources.list.d/newer.list && apt-get -qq update")
    was_away_for_a_moment(report)
    all_is_served(visitor)
    assert play_of(nginx_streams=[{"name": "echo", "port": 7007, "proxy": "127.0.0.1:80"}]).changed == {host.backend.name: 0}


def test_after_which_absent_gives_back_what_was_there(published, host, visitor, play_of):
    play_of(nginx_state="absent")
    before, now = older_or_newer(host, [line for line in published.state if "/etc/apt" not in line])
    assert now == before
    assert host.check_output("dpkg --verify nginx nginx-common") == ""
    all_is_served(visitor, ours=False)
