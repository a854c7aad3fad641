"""What an app that has been taken over can do to its host and to the other apps: nothing. And who sees a secret: nobody."""

from __future__ import annotations

import json
import re

import pytest

# Whatever is true of these is true of all: what the probe is refused, and why not by chance (the file is there).
REFUSED = {
    "another app's environment": ("read", "/etc/portico/apps/patchman/{slot}.env"),
    "its own environment's file": ("read", "/etc/portico/apps/probe/a.env"),
    "a change of its own environment": ("write", "/etc/portico/apps/probe/a.env"),
    "another app's state": ("look", "/var/lib/portico/apps/patchman"),
    "another app's database": ("read", "/var/lib/portico/apps/patchman/patchman.db"),
    "another app's source": ("read", "/srv/portico/patchman/live/release/source/settings.py"),
    "another app's environment of Python": ("look", "/srv/portico/patchman/live/release/environment/bin"),
    "which apps there are": ("look", "/srv/portico"),
    "which sites there are": ("look", "/etc/nginx/portico/sites"),
    "another app's site": ("read", "/etc/nginx/portico/sites/patchman.conf"),
    "which releases an app has": ("look", "/srv/portico/patchman/releases"),
    "another app's live socket": ("connect", "/srv/portico/patchman/live/app.sock"),
    "another app's socket": ("connect", "/run/portico/patchman/{slot}.sock"),
    "its own socket": ("connect", "/run/portico/probe/a.sock"),
    "nginx's socket": ("connect", "/run/portico-nginx/generation.sock"),
    "systemd's socket": ("connect", "/run/systemd/private"),
    "a change of its own code": ("write", "/srv/portico/probe/live/release/source/wsgi.py"),
    "a new file beside its code": ("write", "/srv/portico/probe/live/release/source/new.py"),
    "the end of its own code": ("remove", "/srv/portico/probe/live/release/source/wsgi.py"),
    "a change of its own Python": ("write", "/srv/portico/probe/live/release/environment/pyvenv.cfg"),
    "another release under its own link": ("remove", "/srv/portico/probe/live"),
    "/etc": ("write", "/etc/new"),
    "its own unit": ("write", "/etc/systemd/system/portico-probe@a.service"),
    "/home": ("write", "/home/new"),
    "what is in /home": ("look", "/home"),
    "root's home": ("look", "/root"),
    "/usr": ("write", "/usr/new"),
    "/usr/local/bin": ("write", "/usr/local/bin/new"),
    "/run": ("write", "/run/new"),
    "/var/lib": ("write", "/var/lib/new"),
    "the sites' keys": ("look", "/etc/letsencrypt/live"),
    "passwords": ("read", "/etc/shadow"),
    "nginx's log": ("read", "/var/log/nginx/access.log"),
    "to be root": ("become", "0"),
    "to be nginx": ("become", "33"),
    "to be another app": ("become", "{uid}"),
    "a signal to another app": ("signal", "{pid}"),
    "another app's process": ("read", "/proc/{pid}/environ"),
}


@pytest.fixture
def probe(apps, someone):
    def ask(deed, to=""):
        return json.loads(someone.get(f"https://{apps.site('probe')}/{deed}?to={to}").text)

    return ask


@pytest.fixture(scope="module")
def facts(apps):
    """What there is of the app that the probe is after."""
    (pid,) = (pid for unit, pid in apps.main_processes().items() if re.fullmatch(r"portico-patchman@\w\.service", unit))
    return {"pid": pid, "uid": apps.host.check_output("id -u portico-patchman"), "slot": apps.host.check_output("readlink /srv/portico/patchman/live").removeprefix("slots/")}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(probe, facts, what):
    deed, to = REFUSED[what]
    answer = probe(deed, to.format(**facts))
    assert "refused" in answer, answer


def test_what_it_is_refused_is_there(apps, facts):
    """A path that nothing has would be refused as well."""
    new = {to for deed, to in REFUSED.values() if to.endswith(("/new", "/new.py"))}
    paths = [to.format(**facts) for deed, to in REFUSED.values() if to.startswith("/") and to not in new]
    assert [path for path in paths if not apps.host.file(path).exists] == []
    assert [path for path in new if apps.host.file(path).exists] == []


def test_it_can_do_what_an_app_has_to(apps, probe):
    assert probe("environment", "MARKER") == {"done": apps.secrets["probe"]}
    assert probe("write", "/var/lib/portico/apps/probe/notes") == {"done": "written"}
    for folder in ("/tmp", "/dev/shm"):
        assert probe("write", f"{folder}/notes") == {"done": "written"}
        assert probe("look", folder) == {"done": "notes"}
        assert not apps.host.file(f"{folder}/notes").exists, "everybody could read it there"


def test_it_sees_no_process_but_its_own(apps, probe):
    assert probe("processes") == {"done": apps.host.check_output("id -u portico-probe")}


def test_every_unit_is_confined(apps):
    units = list(apps.main_processes())
    assert len(units) >= 4, units
    for unit in units:
        told = apps.host.check_output("systemd-analyze security --no-pager %s", unit)
        assert float(re.search(r"Overall exposure level for \S+: ([\d.]+)", told).group(1)) <= 1.5, told


def test_no_secret_is_in_what_ansible_says(apps):
    assert "portico.web.gunicorn" in apps.first.output
    assert [app for app, secret in apps.secrets.items() if secret in apps.first.output] == []


def test_no_secret_is_in_the_journal(apps):
    found = apps.python(f"""
import json, subprocess
subprocess.run(["journalctl", "--sync"], check=True)
told = subprocess.run(["journalctl", "--no-pager", "--output", "export"], check=True, capture_output=True).stdout
assert b"portico-patchman" in told
print(json.dumps([each for each in {list(apps.secrets.values())!r} if each.encode() in told]))
""")
    assert found == []


def test_no_secret_was_in_the_process_list(apps):
    """Neither while the apps were being deployed, nor now that they run."""
    found = apps.python(f"""
import glob, json
told = open("/run/seen", "rb").read()
# It has seen something: these were started meanwhile.
assert b"gunicorn" in told and b"systemd-run" in told, told[:2000]
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        told += open(path, "rb").read()
    except OSError:
        continue
print(json.dumps([each for each in {list(apps.secrets.values())!r} if each.encode() in told]))
""")
    assert found == []


def test_no_secret_is_in_a_file_that_anybody_can_read(apps):
    script = """
import json, os, stat
seen = 0
FOUND = []
SECRETS = [each.encode() for each in %r]
USER = %d
if USER:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(USER)
for parent, folders, names in os.walk("/"):
    if parent == "/":
        folders[:] = [each for each in folders if each not in ("proc", "sys")]
    for name in names:
        path = os.path.join(parent, name)
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    text = file.read()
                seen += 1
                FOUND += [path for each in SECRETS if each in text]
        except OSError:
            continue
print(json.dumps([seen, sorted(FOUND)]))
"""
    secrets = list(apps.secrets.values())
    seen, found = apps.python(script % (secrets, 65534))
    assert seen > 1000 and found == []
    # root finds each of them where it has to be, and nowhere else.
    seen, found = apps.python(script % (secrets, 0))
    allowed = r"/etc/portico/apps/(patchman|ihatemoney|probe)/[ab]\.env"
    assert {re.fullmatch(allowed, path).group(1) if re.fullmatch(allowed, path) else path for path in found} == {"patchman", "ihatemoney", "probe"}


def test_the_files_with_secrets_are_roots_alone(apps):
    for path in apps.host.check_output("ls /etc/portico/apps/*/*.env").split():
        file = apps.host.file(path)
        assert (file.user, file.mode) == ("root", 0o600), path
