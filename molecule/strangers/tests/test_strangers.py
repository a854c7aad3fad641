"""A host that had nginx before: its sites go on, and get their host back. The tests are one story, told in this order."""

from __future__ import annotations

import pytest
from load import Load
from scene import STATE

# As on any server, logs are rotated: a package that is installed stays when Portico leaves.
# As an administrator, a package and `certbot --nginx` leave them: relative includes, a password file and a certificate
# named from /etc/nginx, a default server, and a directive that ours would say too.
BEFORE = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update && apt-get -qq install --no-install-recommends nginx openssl logrotate >/dev/null
cd /etc/nginx
printf 'client_max_body_size 7m;\nkeepalive_timeout 20s;\n' >conf.d/tuning.conf
printf 'allow all;\n' >snippets/everybody.conf
printf 'guest:{PLAIN}secret\n' >passwords
mkdir private && openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=legacy -keyout private/key.pem -out private/cert.pem 2>/dev/null
cat >sites-available/legacy <<'END'
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    listen 443 ssl; # managed by Certbot
    server_name legacy.example.test;
    ssl_certificate private/cert.pem; # managed by Certbot
    ssl_certificate_key private/key.pem; # managed by Certbot
    include snippets/everybody.conf;
    location / { return 200 "legacy\n"; }
    location /inside/ { auth_basic inside; auth_basic_user_file passwords; root /srv; }
}
END
ln -s ../sites-available/legacy sites-enabled/legacy && rm sites-enabled/default
mkdir -p /etc/letsencrypt/renewal /srv/inside && echo inside >/srv/inside/page
printf '[renewalparams]\nauthenticator = nginx\ninstaller = nginx\n' >/etc/letsencrypt/renewal/legacy.example.test.conf
nginx -t -q && systemctl restart nginx
"""


@pytest.fixture(scope="module")
def before(host):
    host.check_output(BEFORE)
    return host.check_output(STATE).splitlines()


@pytest.fixture(scope="module")
def publish(before, play_of):
    return play_of


def all_is_served(host, visitor, ours=True):
    assert visitor.get("http://legacy.example.test/").text == "legacy\n"
    # The stranger's default server is the default one still.
    assert visitor.get("http://nobody.example.test/").text == "legacy\n"
    assert visitor.get("http://legacy.example.test/inside/page").status == 401
    login = {"Authorization": "Basic Z3Vlc3Q6c2VjcmV0"}
    assert visitor.get("http://legacy.example.test/inside/page", **login).text == "inside\n"
    shown = host.check_output("openssl s_client -connect localhost:443 -servername legacy.example.test </dev/null 2>/dev/null | openssl x509 -noout -subject")
    assert "legacy" in shown
    if ours:
        assert visitor.get("http://ours.example.test/").headers["Location"] == "https://published.example.test/"


def test_a_dry_run_touches_nothing(before, host, publish):
    publish("--check", "--diff")
    assert host.check_output(STATE).splitlines() == before


def test_a_step_that_fails_puts_everything_back(before, host, visitor, publish):
    """dpkg-divert comes after the link has been moved."""
    script = 'case "$*" in *--add*) exit 2 ;; esac; exec /usr/bin/dpkg-divert "$@"'
    host.check_output("printf '#!/bin/sh\\n%%s\\n' %s >/usr/local/bin/dpkg-divert && chmod 755 /usr/local/bin/dpkg-divert", script)
    try:
        publish(ok=False)
    finally:
        host.check_output("rm /usr/local/bin/dpkg-divert")
    assert [line for line in host.check_output(STATE).splitlines() if "/var/lib/portico" not in line] == before
    assert not host.file("/var/lib/portico/nginx/live").exists
    all_is_served(host, visitor, ours=False)


def test_what_was_there_goes_on_beside_ours(host, address, visitor, publish):
    with Load(address, ["http://legacy.example.test/"]) as load:
        run = publish()
    assert not load.report.lost, load.report
    all_is_served(host, visitor)
    assert "/etc/nginx/sites-enabled/legacy has the default server at 0.0.0.0:80" in " ".join(run.output.split())
    assert "/etc/nginx/conf.d/tuning.conf says client_max_body_size at the http level" in " ".join(run.output.split())
    assert "certbot is set to edit nginx's files for legacy.example.test" in " ".join(run.output.split())
    assert "nginx is not in its sandbox before it is started again" in " ".join(run.output.split())
    assert publish().changed == {host.backend.name: 0}


def test_nginx_is_in_its_sandbox_from_its_next_start_on(host, visitor, publish):
    host.check_output("systemctl restart nginx")
    assert host.check_output("readlink /proc/$(cat /run/nginx.pid)/ns/mnt") != host.check_output("readlink /proc/1/ns/mnt")
    all_is_served(host, visitor)
    assert publish().changed == {host.backend.name: 0}


def test_a_newer_package_is_told(host, publish):
    """In an index of packages that the host has besides, as after something was mended in nginx."""
    source, lists = "/etc/apt/sources.list.d/newer.list", "-o Dir::Etc::sourcelist=sources.list.d/newer.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0"
    entry = "Package: nginx\nVersion: 99.1-1\nArchitecture: all\nFilename: ./nginx.deb\nSize: 1\nSHA256: " + "0" * 64
    host.check_output("mkdir /srv/newer && printf '%%b\n' %s >/srv/newer/Packages && echo 'deb [trusted=yes] file:/srv/newer ./' >%s", entry, source)
    try:
        host.check_output(f"apt-get -qq update {lists}")
        for flags in ([], ["--check"]):
            run = publish(*flags)
            assert run.changed == {host.backend.name: 0}
            assert "and apt has 99.1-1, with what was mended since: apt-get install --only-upgrade nginx" in " ".join(run.output.split())
    finally:
        host.check_output("rm -r /srv/newer %s", source)
        host.check_output("rm /var/lib/apt/lists/*_srv_newer_* && apt-cache gencaches")
    assert "apt has" not in publish().output


def test_a_reinstallation_of_the_package_asks_nothing_and_changes_nothing(host, visitor, publish):
    told = host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq install --reinstall nginx nginx-common 2>&1")
    assert "conffile" not in told.lower() and "configuration file" not in told.lower()
    assert host.file("/etc/nginx/nginx.conf").is_symlink
    assert host.check_output("find /etc/nginx -name '*.dpkg-*'") == ""
    all_is_served(host, visitor)
    assert publish().changed == {host.backend.name: 0}


def test_absent_gives_back_what_was_there(before, host, address, visitor, publish):
    with Load(address, ["http://legacy.example.test/"]) as load:
        run = publish(nginx_state="absent")
    assert "nginx stays in the sandbox that it was started in until it is started again" in " ".join(run.output.split())
    assert not load.report.lost, load.report
    assert host.check_output(STATE).splitlines() == before
    all_is_served(host, visitor, ours=False)
    assert host.check_output("dpkg --verify nginx-common") == ""
    assert publish(nginx_state="absent").changed == {host.backend.name: 0}


def test_an_nginx_conf_that_would_be_lost_is_refused(host, visitor, publish):
    host.check_output("cp -a /etc/nginx/nginx.conf /root/ && sed -i 's/^http {/http { server { listen 8181; }\\n/' /etc/nginx/nginx.conf")
    told = publish(ok=False).output
    assert "/etc/nginx/nginx.conf of this host says what no other file says: server (line " in told
    # What never came need not go.
    assert publish(nginx_state="absent").changed == {host.backend.name: 0}
    host.check_output("mv /root/nginx.conf /etc/nginx/nginx.conf")
    all_is_served(host, visitor, ours=False)


def test_a_purge_takes_the_package_and_the_next_run_brings_the_sites_back(host, visitor, publish):
    publish()
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq purge nginx nginx-common 2>&1")
    assert not host.file("/etc/nginx/nginx.conf").exists
    # An administrator who installs it again has the distribution's nginx.
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends nginx 2>&1")
    assert "Welcome to nginx" in visitor.get("http://ours.example.test/").text
    publish()
    assert visitor.get("http://ours.example.test/").headers["Location"] == "https://published.example.test/"

    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq purge nginx nginx-common 2>&1")
    publish()
    assert visitor.get("http://ours.example.test/").headers["Location"] == "https://published.example.test/"
    assert publish().changed == {host.backend.name: 0}
