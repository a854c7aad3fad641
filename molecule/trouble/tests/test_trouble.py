"""What goes wrong leaves what works. The tests are one story, told in this order."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path

import pytest
from visitor import Form

GUESTBOOK = Path(__file__).parents[3] / "examples/apps/guestbook"
SECRET = "no-one-else-may-read-this"


@pytest.fixture(scope="module")
def deploy(play, name):
    """Deploy to this one server, with other variables than the play's."""

    def run(**variables):
        return play("deploy.yml", "--limit", name, "--extra-vars", json.dumps(variables))

    return run


@pytest.fixture(scope="module")
def without_a_ca(deploy):
    return deploy(certbot_server="https://acme:1/dir")


@pytest.fixture(scope="module")
def deployed(without_a_ca, deploy):
    """The run after the one that had no CA."""
    return deploy()


@pytest.fixture
def site(name):
    return f"guestbook.{name}.example.test"


@pytest.fixture
def another_guestbook(tmp_path):
    return shutil.copytree(GUESTBOOK, tmp_path / "guestbook")


def test_without_the_ca_the_host_fails_last_and_says_why(without_a_ca, host):
    assert not without_a_ca.ok
    assert "guestbook: https://acme:1/dir does not answer: Connection refused" in without_a_ca.output
    assert host.file("/run/trouble/the-plays-own-handler-ran").exists


def test_without_the_ca_the_site_is_used_on_port_80(without_a_ca, visitor, site):
    page = visitor.get(f"http://{site}/")
    assert page.status == 200 and "Guestbook" in page.text
    form = Form(page.text)
    answer = visitor.post(f"http://{site}/", form.fields | dict.fromkeys(form.to_fill, "Over plain HTTP"))
    assert answer.status == 302, answer
    assert "Over plain HTTP" in visitor.get(f"http://{site}/").text


def test_without_the_ca_nothing_permanent_is_sent(without_a_ca, visitor, site):
    assert "Strict-Transport-Security" not in visitor.get(f"http://{site}/").headers
    with pytest.raises(ssl.SSLCertVerificationError):
        visitor.get(f"https://{site}/")


def test_the_next_run_obtains_the_certificate(deployed, visitor, site):
    assert deployed.ok, deployed.output
    assert visitor.get(f"https://{site}/").status == 200
    assert visitor.get(f"http://{site}/").status == 301


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("guestbook/wsgi.py", "import a_module_that_nobody_wrote\n", "No module named 'a_module_that_nobody_wrote'"),
        ("guestbook/wsgi.py", "import os\nraise SystemExit('It was ' + os.environ['SECRET_KEY'])\n", "It was ********"),
        ("guestbook/settings.py", "no Python\n", "SyntaxError"),
        ("requirements.txt", "a-package-that-nobody-wrote==1\n", "a-package-that-nobody-wrote"),
    ],
    ids=["import", "exit", "hook", "requirements"],
)
def test_a_release_that_cannot_run_leaves_the_one_before(deployed, deploy, host, visitor, site, another_guestbook, file, text, says):
    before = host.check_output("readlink -f /srv/portico/guestbook/live/release && ls /srv/portico/guestbook/releases")
    (another_guestbook / file).write_text(text)
    run = deploy(guestbook=str(another_guestbook))
    assert not run.ok
    assert says in run.output and "what served before goes on serving" in run.output
    assert SECRET not in run.output
    assert visitor.get(f"https://{site}/").status == 200
    assert host.check_output("readlink -f /srv/portico/guestbook/live/release && ls /srv/portico/guestbook/releases") == before
    assert host.check_output("systemctl --failed --no-legend --plain") == ""


def test_a_step_that_the_disk_refuses_leaves_the_release_before(deployed, deploy, host, visitor, site, another_guestbook):
    """A folder in the way of the link that is to be moved."""
    before = host.check_output("readlink -f /srv/portico/guestbook/live/release && ls /srv/portico/guestbook/releases")
    (another_guestbook / "new.txt").write_text("another release")
    host.check_output("mkdir /srv/portico/guestbook/live.portico-new")
    try:
        run = deploy(guestbook=str(another_guestbook))
    finally:
        host.check_output("rmdir /srv/portico/guestbook/live.portico-new")
    assert not run.ok
    assert r"The app \"guestbook\" failed at writing its files; what served before goes on serving" in run.output
    assert visitor.get(f"https://{site}/").status == 200
    assert host.check_output("readlink -f /srv/portico/guestbook/live/release && ls /srv/portico/guestbook/releases") == before


def test_a_new_release_keeps_what_was_written(deployed, deploy, visitor, site, another_guestbook):
    page = visitor.get(f"https://{site}/")
    form = Form(page.text)
    visitor.post(f"https://{site}/", form.fields | dict.fromkeys(form.to_fill, "Before the release"), Referer=f"https://{site}/")
    template = another_guestbook / "guestbook/templates/guestbook/index.html"
    template.write_text(template.read_text().replace("</h1>", " of a new release</h1>"))
    run = deploy(guestbook=str(another_guestbook))
    assert run.ok, run.output
    text = visitor.get(f"https://{site}/").text
    assert "of a new release</h1>" in text and "Before the release" in text


def test_the_secret_is_nowhere_but_in_its_file(deployed, host):
    slot = host.check_output("basename $(readlink /srv/portico/guestbook/live)")
    kept = host.file(f"/etc/portico/apps/guestbook/{slot}.env")
    assert SECRET in kept.content_string and kept.mode == 0o600
    found = host.run("grep -rlF --exclude-dir=journal -e %s /etc /srv /var/lib /var/log /run /tmp /home", SECRET).stdout.split()
    # Not with the slot that has stopped either.
    assert found == [kept.path]
