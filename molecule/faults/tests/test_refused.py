"""What nginx, the disk or the network refuses changes nothing, and the play says what and where."""

from __future__ import annotations

import contextlib
import re

import pytest
from servers import AS_A_MACHINE

BROKEN = {"name": "broken", "server_names": ["broken.example.test"], "tls": False}
REFUSED = [
    pytest.param({"proxy": "http://nowhere.invalid"}, "host not found in upstream", id="unknown-host"),
    pytest.param({"root": "/srv", "extra_config": "client_max_body_size banana;"}, "client_max_body_size", id="bad-value"),
    pytest.param({"root": "/srv", "extra_config": "no_such_directive on;"}, "no_such_directive", id="bad-directive"),
]


@contextlib.contextmanager
def nothing_changes(server):
    """What is done meanwhile loses no request, shows no visitor anything new, and leaves nothing behind."""
    live, traces = server.live(), server.traces()
    with server.load() as load:
        yield
    assert not load.report.lost, load.report
    assert set(load.report.labels) == {"old"}, load.report
    assert server.live() == live
    changed = server.changed_since(traces)
    assert not changed, f"left behind: {' '.join(changed)}"
    server.restart()
    assert server.versions() == {"old"}


def heals(server):
    """The next good run publishes, loses nothing, and leaves nothing to do."""
    with server.load() as load:
        run = server.publish("new")
        assert run.ok, run.output
    assert not load.report.lost, load.report
    assert server.versions() == {"new"}
    assert server.publish("new").changed == {server.name: 0}


@pytest.mark.parametrize("flags", [[], ["--check", "--diff"]], ids=["run", "check"])
@pytest.mark.parametrize(("keys", "words"), REFUSED)
def test_what_nginx_refuses_is_not_published(old, keys, words, flags):
    with nothing_changes(old):
        run = old.publish("new", *flags, more=({**BROKEN, **keys},))
        assert not run.ok, run.output
        assert words in run.output
        assert re.search(r"broken\.conf:\d+", run.output), run.output
    if not flags:
        heals(old)


def test_a_template_that_raises_for_one_of_a_thousand_sites_changes_nothing(old, tmp_path):
    template = tmp_path / "bad.conf.j2"
    template.write_text("server {\n    listen 80;\n    server_name {{ 1 // 0 }};\n}\n")
    thousand = [{"name": f"s{number}", "server_names": [f"s{number}.example.test"], "tls": False, "root": "/srv"} for number in range(1000)]
    thousand[499] = {**thousand[499], "root": None, "template": str(template)}
    with nothing_changes(old):
        for flags in ([], ["--check"]):
            run = old.publish("new", *flags, more=tuple(thousand))
            assert not run.ok and run.changed == {old.name: 0}, run.output
            assert re.search(r'entry \\?"s499\\?", key \\?"template\\?": .* fails in line 3: integer division', run.output), run.output
    heals(old)


@pytest.mark.parametrize("port", ["nginx_http_port", "nginx_https_port"])
def test_a_port_that_another_process_holds_is_found_out(old, port):
    """Only the running workers tell that they went on as before."""
    with old.held_port(8099), nothing_changes(old):
        run = old.publish("new", **{port: 8099})
        assert not run.ok, run.output
        assert "8099" in run.output and "Address already in use" in run.output
    heals(old)


@pytest.mark.parametrize("option", ["size=1m", "size=8m,nr_inodes=1000"], ids=["bytes", "files"])
def test_a_full_disk_is_no_reason_to_serve_less(old, option):
    """The disk is full from the beginning, so that not even the first file can be written whole."""
    folder = "/var/lib/portico/nginx"
    fill = f"i=0; while echo x >{folder}/fill-$i; do i=$((i + 1)); done" if "nr_inodes" in option else f"dd if=/dev/zero of={folder}/fill bs=4k"
    old.host.check_output(AS_A_MACHINE)
    old.host.check_output(f"cp --archive {folder} /srv/disk && mount -t tmpfs -o {option},mode=755 none {folder} && cp --archive /srv/disk/. {folder}/")
    try:
        old.host.run(f"({fill}) 2>/dev/null")
        with nothing_changes(old):
            run = old.publish("new")
            assert not run.ok, run.output
            assert "No space left on device" in run.output
    finally:
        old.host.check_output(f"umount {folder} && rm -r /srv/disk")
    heals(old)


def test_an_nginx_conf_that_was_edited_in_its_place_is_published_again(old):
    """sed -i leaves a copy where the link was, and the package's own file must outlive it."""
    packaged = old.host.check_output("sha256sum /etc/nginx/nginx.conf.distrib")
    old.host.check_output("sed -i 's/^worker_processes .*/worker_processes 1;/' /etc/nginx/nginx.conf && test ! -L /etc/nginx/nginx.conf && systemctl reload nginx")
    heals(old)
    assert old.host.check_output("readlink /etc/nginx/nginx.conf") == "portico/nginx.conf"
    assert old.host.check_output("sha256sum /etc/nginx/nginx.conf.distrib") == packaged
    old.restart()


def test_a_placeholder_that_lost_its_file_is_made_again(old):
    """nginx serves what it has in memory; its next start would fail."""
    file = "/var/lib/portico/placeholder/fullchain.pem"
    old.host.check_output(f"mv {file} /srv/")
    try:
        heals(old)
        old.restart()
        assert old.versions() == {"new"}
    finally:
        # For the tests that follow: it belongs to its key, if nobody made both anew.
        old.host.check_output(f"test -e {file} || mv /srv/fullchain.pem {file}")


def test_a_certificate_that_lost_its_file_is_replaced_by_the_placeholder(old):
    """As after somebody's cleaning up in /etc/letsencrypt: the site must outlive it, restarts included."""
    link, lineage = "/var/lib/portico/certificates/secure", "/var/lib/portico/lineages/secure"
    old.host.check_output(
        f"mkdir -p {lineage} /srv/letsencrypt && cp /var/lib/portico/placeholder/* {lineage}/"
        f" && mv {lineage}/fullchain.pem /srv/letsencrypt/ && ln -s /srv/letsencrypt/fullchain.pem {lineage}/"
        f" && ln -sfn ../lineages/secure {link} && systemctl reload nginx"
    )
    assert old.versions() == {"old"}
    old.host.check_output("rm -r /srv/letsencrypt")
    try:
        heals(old)
        old.restart()
        assert old.versions() == {"new"}
    finally:
        old.host.check_output(f"rm -r {lineage}")
