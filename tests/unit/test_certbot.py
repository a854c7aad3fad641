"""certbot: what it is told, what becomes of its answers, and lineages that are made whole again."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.portico.web.plugins.module_utils import certbot, layout, lineage

SERVER = "https://acme.example/dir"
ORDER = {"name": "shop", "domains": ["a.example", "b.example"], "server": SERVER, "challenge": {"kind": "http"}}
NOBODY = lineage.Lineage()
THERE = lineage.Lineage(lineage.Certificate(frozenset(), 1, "key", key_type="rsa", key_size=4096), True, "text", {})

# Writes down what it is told, then does what the test has put beside it: one script for each call, the last one for all others.
STAND_IN = """\
#!/bin/sh
[ "$1" = --version ] && echo certbot 4.0.0 && exit
cd {folder}
n=$(ls calls | wc -l)
{{ printf '%s\\n' "$@"; echo "bundle: $(cat "$REQUESTS_CA_BUNDLE")"; }} >calls/$n
while [ "$1" ]; do [ "$1" = --config ] && cp "$2" calls-config; shift; done
[ -e answers/$n ] || n=last
exec sh answers/$n
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host's folders below a temporary one, with a stand-in for certbot."""
    for name in ("LETSENCRYPT", "LIVE", "RENEWAL", "ACCOUNTS"):
        monkeypatch.setattr(lineage, name, getattr(lineage, name).replace("/etc", str(tmp_path)))
    for name in ("CERTBOT", "ACME_WEBROOT"):
        monkeypatch.setattr(layout, name, getattr(layout, name).replace("/var/lib", str(tmp_path)))
    monkeypatch.setattr(layout, "ACME_CA_BUNDLE", str(tmp_path / "ours.pem"))
    monkeypatch.setattr(certbot, "SYSTEM_CAS", str(tmp_path / "systems.pem"))
    monkeypatch.setattr(certbot, "LOG", str(tmp_path / "log"))
    monkeypatch.setattr(certbot, "SECONDS_BETWEEN_TRIES", 0)
    for folder in ("calls", "answers", "letsencrypt/renewal", "portico/certbot"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "answers/last").write_text("exit 0\n")
    (tmp_path / "certbot").write_text(STAND_IN.format(folder=tmp_path))
    (tmp_path / "certbot").chmod(0o755)
    return tmp_path


def calls(host):
    return [each.read_text() for each in sorted((host / "calls").iterdir(), key=lambda each: int(each.name))]


def stand_in(host, **authority):
    return certbot.Certbot(str(host / "certbot"), certbot.Authority(**authority))


def command(order=ORDER, known=NOBODY, **authority):
    return " ".join(certbot.Certbot("/nowhere/certbot", certbot.Authority(**authority)).command(order, known))


# ---- what it is told


def test_certbot_is_told_everything_by_name():
    assert command(email="ops@example.com") == (
        "certonly --non-interactive --agree-tos --no-directory-hooks --cert-name shop --server https://acme.example/dir --email ops@example.com "
        "--webroot --webroot-path /var/lib/portico/acme --key-type ecdsa --elliptic-curve secp256r1 --domain a.example --domain b.example"
    )


@pytest.mark.parametrize(
    ("keys", "known", "words"),
    [
        ({}, NOBODY, "--register-unsafely-without-email"),
        ({}, THERE, "--key-type rsa --rsa-key-size 4096 --force-renewal"),
        ({"key_type": "ecdsa", "key_size": 384}, THERE, "--key-type ecdsa --elliptic-curve secp384r1"),
        ({"key_type": "rsa", "key_size": 3072}, NOBODY, "--key-type rsa --rsa-key-size 3072"),
        ({"key_type": "rsa"}, NOBODY, "--key-type rsa --rsa-key-size 2048"),
        ({"reuse_key": True}, NOBODY, "--reuse-key --domain"),
        ({"reuse_key": True, "key_type": "ecdsa"}, THERE, "--reuse-key --new-key"),
        ({"preferred_chain": "Root B"}, NOBODY, "--preferred-chain Root B"),
        ({"profile": "shortlived"}, NOBODY, "--preferred-profile shortlived"),
        (
            {"challenge": {"kind": "dns", "plugin": "rfc2136", "has_credentials": True, "propagation": 3}},
            NOBODY,
            "--authenticator dns-rfc2136 --dns-rfc2136-credentials /etc/portico/dns/shop.ini --dns-rfc2136-propagation-seconds 3",
        ),
        ({"challenge": {"kind": "dns", "plugin": "route53", "has_credentials": False, "propagation": None}}, NOBODY, "--authenticator dns-route53 --key-type"),
        (
            {"challenge": {"kind": "hooks", "auth": "/bin/add", "cleanup": "/bin/rm it", "type": "dns-01"}},
            NOBODY,
            "--manual --manual-auth-hook /bin/add --manual-cleanup-hook /bin/rm it --preferred-challenges dns-01",
        ),
    ],
)
def test_an_order_becomes_a_command(keys, known, words):
    assert words in command({**ORDER, **keys}, known)


@pytest.mark.parametrize(
    ("keys", "version", "says"),
    [
        ({}, (2, 1), []),
        ({"profile": "shortlived"}, (4, 0), []),
        (
            {"profile": "shortlived"},
            (2, 1, 0),
            ["shop: a profile needs certbot 4.0 or newer, and this host's is 2.1.0. Set certbot_install to pypi for a newer one, or leave it out."],
        ),
    ],
)
def test_what_an_old_certbot_cannot_do_is_told_with_the_one_that_can(keys, version, says):
    assert certbot.cannot([{**ORDER, **keys}], version) == says


def test_the_version_is_read_from_the_packages_own_record(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "CERTBOT_ENVIRONMENT", str(tmp_path))
    (tmp_path / "bin").mkdir()
    assert certbot.version(certbot.program(from_pypi=True)) is None
    (tmp_path / "bin/certbot").touch()
    (tmp_path / "lib/python3.13/site-packages/certbot-5.8.0.dist-info").mkdir(parents=True)
    (tmp_path / "lib/python3.13/site-packages/certbot_dns_rfc2136-5.8.0.dist-info").mkdir()
    assert certbot.version(certbot.program(from_pypi=True)) == (5, 8, 0)


def test_the_cas_server_is_verified_by_the_systems_cas_and_by_ours(host):
    (host / "systems.pem").write_text("the system's")
    (host / "ours.pem").write_text("ours")
    assert stand_in(host).obtain(ORDER, NOBODY) is None
    assert "bundle: the system's\nours" in calls(host)[0]


def test_an_external_account_binding_is_on_no_command_line(host):
    stand_in(host, eab={"kid": "kid-1", "hmac_key": "secret-1"}).obtain(ORDER, NOBODY)
    (told,) = calls(host)
    assert "kid-1" not in told and "secret-1" not in told
    assert (host / "calls-config").read_text() == "eab-kid = kid-1\neab-hmac-key = secret-1\n"
    config = told.split("--config\n")[1].split("\n")[0]
    assert not os.path.exists(config)


def make_account(host, name, server="acme.example/dir"):
    folder = host / "letsencrypt/accounts" / server / name
    folder.mkdir(parents=True)
    for part, content in (("regr", {"uri": "u"}), ("private_key", {"d": "secret-key"}), ("meta", {})):
        (folder / f"{part}.json").write_text(json.dumps(content))
    return folder


def test_a_host_with_several_accounts_says_which(host):
    make_account(host, "a" * 32)
    make_account(host, "b" * 32)
    stand_in(host).obtain(ORDER, NOBODY)
    stand_in(host, account="a" * 32, eab={"kid": "k", "hmac_key": "s"}).obtain(ORDER, NOBODY)
    assert f"--account\n{'b' * 32}\n" in calls(host)[0]
    assert f"--account\n{'a' * 32}\n" in calls(host)[1] and "--config" not in calls(host)[1]


# ---- what becomes of its answers


def test_a_refusal_is_told_and_not_repeated(host):
    (host / "answers/last").write_text("echo 'An unexpected error occurred:' >&2; echo 'the CA is out' >&2; exit 1\n")
    assert stand_in(host).obtain(ORDER, NOBODY) == "the CA is out"
    assert len(calls(host)) == 1


def test_another_certbot_is_waited_for(host):
    (host / "answers/0").write_text("echo 'Another instance of Certbot is already running.' >&2; exit 1\n")
    (host / "answers/1").write_text("echo 'Another instance of Certbot is already running.' >&2; exit 1\n")
    assert stand_in(host).obtain(ORDER, NOBODY) is None
    assert len(calls(host)) == 3


def test_another_certbot_is_not_waited_for_for_ever(host, monkeypatch):
    monkeypatch.setattr(certbot, "SECONDS_FOR_ANOTHER_CERTBOT", -1)
    (host / "answers/last").write_text("echo 'Another instance of Certbot is already running.' >&2; exit 1\n")
    assert stand_in(host).obtain(ORDER, NOBODY) == "Another instance of Certbot is already running."


def test_a_certbot_that_does_not_end_is_stopped(host, monkeypatch):
    monkeypatch.setattr(certbot, "SECONDS_FOR_AN_ORDER", 0.3)
    (host / "answers/last").write_text("exec sleep 60\n")
    assert stand_in(host).obtain(ORDER, NOBODY) == "certbot was stopped, for it had not ended after 0.3 seconds"


def test_an_account_that_the_ca_has_lost_is_replaced_once_and_its_key_kept(host):
    folder = make_account(host, "a" * 32)
    (host / "answers/last").write_text(f"echo 'urn:ietf:params:acme:error:accountDoesNotExist :: no :: unknown' >>{host}/log; echo no >&2; exit 1\n")
    assert "unknown (accountDoesNotExist)" in stand_in(host).obtain(ORDER, NOBODY)
    assert len(calls(host)) == 2
    assert not folder.exists()
    kept = host / "portico/certbot/lost-accounts"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert [path.read_text() for path in kept.glob("*/*/private_key.json")] == ['{"d": "secret-key"}']


def test_an_account_goes_out_and_comes_in_whole(host):
    folder = make_account(host, "a" * 32)
    account = json.loads(certbot.exported_account(SERVER, "a" * 32))
    certbot.set_aside_accounts(SERVER)
    certbot.import_account(account)
    assert json.loads((folder / "private_key.json").read_text()) == {"d": "secret-key"}
    assert stat.S_IMODE((folder / "private_key.json").stat().st_mode) == 0o400
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert lineage.accounts(SERVER) == ["a" * 32]


# ---- renewal


def make_lineage(host, number=1, days="90"):
    """Make a lineage as certbot has it."""
    for folder in ("archive/shop", "live/shop"):
        (host / "letsencrypt" / folder).mkdir(parents=True, exist_ok=True)
    archive, live = host / "letsencrypt/archive/shop", host / "letsencrypt/live/shop"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days, "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=DNS:a.example,DNS:b.example", "-keyout", archive / f"privkey{number}.pem", "-out", archive / f"fullchain{number}.pem"]
    subprocess.run(command, check=True, capture_output=True)
    for part in ("cert", "chain"):
        (archive / f"{part}{number}.pem").write_bytes((archive / f"fullchain{number}.pem").read_bytes())
    for part in ("cert", "chain", "fullchain", "privkey"):
        (live / f"{part}.pem").unlink(missing_ok=True)
        (live / f"{part}.pem").symlink_to(f"../../archive/shop/{part}{number}.pem")
    (host / "letsencrypt/renewal/shop.conf").write_text(certbot._configuration(ORDER, None, (2, 1, 0)))


def test_what_certbot_could_not_renew_is_named(host):
    make_lineage(host, days="1")
    (host / "answers/last").write_text("echo 'Requesting acme/dir: Connection refused' >&2; exit 1\n")
    assert stand_in(host).renew([ORDER], time.time() + 86000) == [f"shop: it could not be renewed: {SERVER} does not answer: Connection refused"]


def test_a_renewal_that_failed_for_somebody_elses_lineage_is_told_too(host):
    make_lineage(host)
    (host / "answers/last").write_text("echo 'Failed to renew certificate other' >&2; exit 1\n")
    assert stand_in(host).renew([ORDER], time.time()) == ["certbot renew: it could not be renewed: Failed to renew certificate other"]


def test_an_account_that_is_lost_at_renewal_heals(host):
    make_lineage(host, days="1")
    make_account(host, "a" * 32)
    (host / "answers/0").write_text("echo 'urn:ietf:params:acme:error:accountDoesNotExist :: no :: unknown' >&2; exit 1\n")
    (host / "answers/1").write_text("echo 'urn:ietf:params:acme:error:accountDoesNotExist :: no :: unknown' >&2; exit 1\n")
    assert stand_in(host).renew([ORDER], time.time() + 86000) == []
    assert [told.split("\n")[0] for told in calls(host)] == ["renew", "certonly", "certonly"]


# ---- repair


def test_a_whole_lineage_needs_no_repair(host):
    assert not certbot.needs_repair("shop")
    make_lineage(host)
    assert not certbot.needs_repair("shop")


@pytest.mark.parametrize(
    ("damage", "done"),
    [
        (lambda etc: [each.unlink() for each in (etc / "live/shop").iterdir()], "its links were made again"),
        (lambda etc: (etc / "live/shop/privkey.pem").unlink(), "its links were made again"),
        (lambda etc: (etc / "renewal/shop.conf").unlink(), "its renewal configuration was made again"),
        (lambda etc: (etc / "renewal/shop.conf").write_text(""), "its renewal configuration was made again"),
        (lambda etc: (etc / "renewal/shop.conf").write_text("[renewalparams\nthis is damaged"), "its renewal configuration was made again"),
        (lambda etc: (etc / "archive/shop/privkey2.pem").write_text(""), "its links were made again"),
    ],
)
def test_what_is_damaged_is_made_whole_from_what_is_there(host, damage, done):
    make_lineage(host, 1)
    make_lineage(host, 2)
    damage(host / "letsencrypt")
    assert certbot.needs_repair("shop")
    assert certbot.repair(ORDER, (2, 1, 0)) == done
    assert not certbot.needs_repair("shop")
    found = lineage.read("shop")
    assert found.certificate and found.key_matches
    assert (found.server, found.parameters["authenticator"]) == (SERVER, "webroot")


def test_what_cannot_be_used_is_moved_away_and_not_lost(host):
    make_lineage(host)
    (host / "letsencrypt/archive/shop/privkey1.pem").unlink()
    assert certbot.repair(ORDER, (2, 1, 0)) == "what was left of it was moved away"
    assert lineage.read("shop") == NOBODY
    kept = host / "portico/certbot/damaged"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    (folder,) = kept.iterdir()
    assert sorted(each.name for each in folder.iterdir()) == ["archive-shop", "live-shop", "renewal-shop.conf"]
    assert Path(folder / "archive-shop/fullchain1.pem").exists()


@pytest.mark.parametrize("damage", ["renewal/shop.conf", "live/shop/privkey.pem"])
def test_a_renewal_makes_whole_what_somebody_has_damaged(host, damage):
    make_lineage(host)
    (host / "letsencrypt" / damage).unlink()
    assert stand_in(host).renew([ORDER], time.time()) == []
    assert not certbot.needs_repair("shop")
    assert lineage.read("shop").parameters["authenticator"] == "webroot"


# Takes certbot's lock as certbot does, says so, and gives it back when its input ends.
HOLDER = """\
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o600)
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
os.remove(sys.argv[1])
"""


@pytest.fixture
def another(host):
    """A certbot at work."""
    command = [sys.executable, "-c", HOLDER, host / "letsencrypt/.certbot.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process


def test_what_a_certbot_is_just_making_is_not_repaired(host, another, monkeypatch):
    monkeypatch.setattr(certbot, "SECONDS_FOR_ANOTHER_CERTBOT", 0)
    make_lineage(host)
    (host / "letsencrypt/renewal/shop.conf").unlink()
    with pytest.raises(TimeoutError, match="another certbot is at work on this host"):
        certbot.repair(ORDER, (2, 1, 0))
    assert not (host / "letsencrypt/renewal/shop.conf").exists()
    another.stdin.close()
    another.wait()
    assert certbot.repair(ORDER, (2, 1, 0)) == "its renewal configuration was made again"
    assert not (host / "letsencrypt/.certbot.lock").exists()


def test_copies_that_a_backup_brought_back_become_a_version(host):
    make_lineage(host)
    live = host / "letsencrypt/live/shop"
    contents = {each.name: each.read_bytes() for each in live.iterdir()}
    for name, content in contents.items():
        (live / name).unlink()
        (live / name).write_bytes(content)
    for each in (host / "letsencrypt/archive/shop").iterdir():
        each.write_text("older")
    assert certbot.repair(ORDER, (2, 1, 0)) == "its links were made again"
    assert {each.name: each.read_bytes() for each in live.iterdir()} == contents
    assert os.readlink(live / "privkey.pem") == "../../archive/shop/privkey2.pem"


def test_a_configuration_that_is_made_again_goes_on_with_the_same_kind_of_key(host):
    make_lineage(host)
    (host / "letsencrypt/renewal/shop.conf").unlink()
    certbot.repair({**ORDER, "profile": "tlsserver"}, (4, 0))
    found = lineage.read("shop").parameters
    assert (found["key_type"], found["elliptic_curve"], found["preferred_profile"]) == ("ecdsa", "secp256r1", "tlsserver")


def test_one_lineage_that_cannot_be_mended_keeps_no_other_from_being_renewed(host, monkeypatch):
    make_lineage(host)

    def full(_order, _version):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certbot, "repair", full)
    assert stand_in(host).renew([ORDER], time.time()) == ["shop: [Errno 28] No space left on device"]
    assert [told.split("\n")[0] for told in calls(host)] == ["renew"]


def test_what_is_revoked_already_is_deleted(host):
    make_lineage(host)
    (host / "answers/0").write_text("echo 'urn:ietf:params:acme:error:alreadyRevoked :: no :: done' >&2; exit 1\n")
    assert stand_in(host).delete("shop", revoke=True) is None
    revoke, delete = calls(host)
    assert "--key-path" in revoke and delete.startswith("delete\n")


def test_the_account_of_a_lineage_is_the_one_that_it_is_renewed_with(host):
    for name in ("a" * 32, "b" * 32):
        make_account(host, name)
    stand_in(host).obtain(ORDER, lineage.Lineage(parameters={"account": "a" * 32}))
    assert f"--account\n{'a' * 32}\n" in calls(host)[0]


def test_a_lock_that_is_given_back_just_now_is_taken_anew(host, monkeypatch):
    path = host / "letsencrypt/.certbot.lock"
    lockf, taken = certbot.fcntl.lockf, []

    def given_back(lock, how):
        if not taken:
            path.unlink()
        taken.append(lock)
        lockf(lock, how)

    monkeypatch.setattr(certbot.fcntl, "lockf", given_back)
    with certbot.alone():
        assert path.exists()
    assert len(taken) == 2 and not path.exists()
