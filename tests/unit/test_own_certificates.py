"""Certificates without a CA that is asked: brought ones are checked on the controller, and both kinds kept on the host."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from issued import DAY, NOW, Issued, key_pem

from ansible_collections.portico.web.plugins.module_utils import commands, layout, own_certificates
from ansible_collections.portico.web.plugins.plugin_utils import own_certificates as controller
from ansible_collections.portico.web.plugins.plugin_utils.controller import reader
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError

DOMAINS = ["shop.test", "www.shop.test"]

ROOT = Issued("Root", ca=True, days=3000)
UPPER = Issued("Upper", ROOT, ca=True, days=2000)
LOWER = Issued("Lower", UPPER, ca=True, days=1000)
OTHER = Issued("Other", ca=True, days=3000)
LEAF = Issued("shop", LOWER, DOMAINS)
FULL = LEAF.pem + LOWER.pem + UPPER.pem


def brought(**keys):
    return {"name": "shop", "domains": DOMAINS, "certificate": FULL, "key": LEAF.key_pem, "chain": None, **keys}


def nothing_to_read(path):
    raise FileNotFoundError(2, "No such file or directory", path)


def load(entry, now=NOW, read_text=nothing_to_read):
    return controller.load(entry, read_text, now=now)


def refused(words, read_text=nothing_to_read, now=NOW, **keys):
    with pytest.raises(PorticoError) as told:
        load(brought(**keys), now, read_text)
    message = str(told.value)
    assert message.startswith('certbot_certificates, entry "shop", key "'), message
    for word in [words] if isinstance(words, str) else words:
        assert word in message
    # Of the key there is nothing, in no form.
    for line in LEAF.key_pem.splitlines()[1:-1]:
        assert line not in message
    assert "PRIVATE KEY-----\n" not in message
    return message


# ---- what is brought


def test_a_certificate_is_returned_with_its_chain_and_its_key():
    loaded = load(brought())
    assert (loaded.fullchain, loaded.key, loaded.warnings) == (FULL, LEAF.key_pem, [])
    assert "PRIVATE" not in repr(loaded)


@pytest.mark.parametrize(
    ("certificate", "chain"),
    [
        (LEAF.pem, LOWER.pem + UPPER.pem),
        (LEAF.pem, UPPER.pem + LOWER.pem),
        (UPPER.pem + LEAF.pem, LOWER.pem),
        (FULL + ROOT.pem, None),
        (ROOT.pem + UPPER.pem + LOWER.pem + LEAF.pem, None),
        (FULL, LOWER.pem + UPPER.pem + ROOT.pem),
        (f"Bag Attributes\n{FULL}".replace("\n", "\r\n"), None),
    ],
)
def test_a_chain_is_put_in_order_and_its_root_left_out(certificate, chain):
    assert load(brought(certificate=certificate, chain=chain)).fullchain == FULL


def test_a_new_root_that_an_old_one_has_signed_too_leads_on_to_the_old_one():
    new = Issued("New", ca=True)
    crossed = Issued("New", ROOT, ca=True, key=new.key)
    leaf = Issued("shop", new, DOMAINS)
    loaded = load(brought(certificate=leaf.pem, key=leaf.key_pem, chain=new.pem + crossed.pem))
    assert loaded.fullchain == leaf.pem + crossed.pem


def test_a_leaf_that_a_root_has_signed_is_enough():
    leaf = Issued("shop", ROOT, DOMAINS)
    assert load(brought(certificate=leaf.pem + ROOT.pem, key=leaf.key_pem)).fullchain == leaf.pem
    assert load(brought(certificate=leaf.pem, key=leaf.key_pem)).warnings == []


def test_one_that_vouches_for_itself_is_enough():
    leaf = Issued("shop", names=DOMAINS)
    loaded = load(brought(certificate=leaf.pem, key=leaf.key_pem))
    assert (loaded.fullchain, loaded.warnings) == (leaf.pem, [])


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()])
def test_every_usual_kind_of_key_is_taken(key):
    ca = Issued("CA", ca=True, key=key)
    leaf = Issued("shop", ca, DOMAINS, key=key)
    assert load(brought(certificate=leaf.pem + ca.pem, key=leaf.key_pem)).key == key_pem(key)


def test_keys_in_their_older_forms_are_taken():
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert load(brought(key=parameters + key_pem(LEAF.key, PrivateFormat.TraditionalOpenSSL))).key == LEAF.key_pem
    key = rsa.generate_private_key(65537, 2048)
    leaf = Issued("shop", ROOT, DOMAINS, key=key)
    assert load(brought(certificate=leaf.pem, key=key_pem(key, PrivateFormat.TraditionalOpenSSL))).key == key_pem(key)


@pytest.mark.parametrize(
    ("names", "domains"),
    [(["*.shop.test", "shop.test"], ["shop.test", "www.shop.test"]), (["*.Shop.test"], ["*.shop.test", "a.shop.test"]), ([*DOMAINS, "more.test"], DOMAINS)],
)
def test_names_are_covered_by_themselves_and_by_wildcards(names, domains):
    leaf = Issued("shop", ROOT, names)
    assert load(brought(certificate=leaf.pem, key=leaf.key_pem, domains=domains))


@pytest.mark.parametrize(
    ("names", "domains", "missing"),
    [
        (["shop.test"], DOMAINS, "is not valid for www.shop.test. It is valid for shop.test:"),
        (["*.shop.test"], ["shop.test"], "is not valid for shop.test."),
        (["*.shop.test"], ["a.b.shop.test"], "is not valid for a.b.shop.test."),
        (["*.shop.test"], ["*.a.shop.test"], "is not valid for *.a.shop.test."),
        (["www.shop.test"], ["*.shop.test"], "is not valid for *.shop.test."),
        ([], ["shop.test"], "is not valid for shop.test. It has no names at all"),
    ],
)
def test_a_name_that_is_not_covered_is_told(names, domains, missing):
    leaf = Issued("shop.test", ROOT, names)
    refused(['key "certificate": ', missing], certificate=leaf.pem, key=leaf.key_pem, domains=domains)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"certificate": None}, 'key "certificate": is missing, and a certificate with the issuer "own" needs it. Give it in certbot_overrides, under the name "shop".'),
        ({"key": None}, 'key "key": is missing'),
        ({"certificate": "shop.pem"}, 'key "certificate": "shop.pem" cannot be read on the controller: No such file or directory. Give PEM, or the path'),
        ({"key": "MIGHAgEAMBMGByqGSM49"}, 'key "key": cannot be read on the controller: No such file or directory.'),
        ({"key": "MIGHAgEA\nMBMGByqGSM49\n"}, 'key "key": is neither PEM nor the path of a file.'),
        ({"chain": "x" * 5000}, 'key "chain": is neither PEM nor the path of a file.'),
        ({"certificate": FULL + LEAF.key_pem}, 'key "certificate": has a private key in it. Give that in "key"'),
        ({"chain": LEAF.key_pem}, 'key "chain": has a private key in it.'),
        ({"certificate": FULL[:-30]}, 'key "certificate": has no whole certificate in PEM.'),
        ({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, 'key "certificate": has a certificate that cannot be read (number 1).'),
        ({"key": FULL}, 'key "key": is not one private key in PEM.'),
        ({"key": LEAF.key_pem * 2}, 'key "key": is not one private key in PEM.'),
        ({"key": LEAF.key_pem.replace("MIGH", "AAAA")}, 'key "key": is a private key that cannot be read.'),
        ({"key": key_pem(LEAF.key, PrivateFormat.OpenSSH)}, 'key "key": is not one private key in PEM.'),
        ({"key": key_pem(LEAF.key, protection=BestAvailableEncryption(b"word"))}, 'key "key": is protected by a passphrase, which nginx could not ask for.'),
        ({"key": key_pem(LEAF.key, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"word"))}, 'key "key": is protected by a passphrase'),
        ({"key": OTHER.key_pem}, 'key "key": belongs to another certificate than the one of CN=shop.'),
        ({"certificate": FULL + OTHER.pem}, 'key "certificate": has a certificate that did not sign CN=Upper (CN=Other).'),
        ({"certificate": LEAF.pem, "chain": UPPER.pem}, 'key "chain": has a certificate that did not sign CN=shop (CN=Upper). Take it out, or give the one that did.'),
        ({"certificate": LEAF.pem, "chain": Issued("Lower", UPPER, ca=True).pem}, 'key "chain": has a certificate that did not sign CN=shop (CN=Lower).'),
    ],
)
def test_what_is_no_certificate_with_its_key_is_refused(keys, words):
    refused(words, **keys)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"days": 1}, 'key "certificate": has expired (CN=shop, on 2026-06-01 00:00 UTC).'),
        ({"start": NOW + 2 * DAY}, 'key "certificate": is not valid before 2026-06-03 00:00 UTC (CN=shop).'),
        ({"uses": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, 'key "certificate": is not for servers'),
        ({"key": rsa.generate_private_key(65537, 1024)}, 'key "certificate": has an RSA key of 1024 bits (CN=shop), and it takes 2048 at least.'),
        ({"key": ec.generate_private_key(ec.SECP224R1())}, 'key "certificate": has an ECDSA key of 224 bits'),
        ({"key": dsa.generate_private_key(2048)}, 'key "key": is of a kind that TLS has no use for.'),
    ],
)
def test_what_visitors_or_nginx_would_refuse_is_refused(made, words):
    leaf = Issued("shop", ROOT, DOMAINS, **made)
    message = refused(words, certificate=leaf.pem, key=leaf.key_pem)
    assert not any(line in message for line in leaf.key_pem.splitlines()[1:-1])


def test_an_intermediate_that_has_expired_is_told_where_it_was_given():
    lower = Issued("Lower", ROOT, ca=True, start=NOW - 100 * DAY, days=90)
    leaf = Issued("shop", lower, DOMAINS)
    refused('key "chain": has expired (CN=Lower, on ', certificate=leaf.pem, key=leaf.key_pem, chain=lower.pem)


def test_a_signature_that_nobody_accepts_is_refused(monkeypatch):
    monkeypatch.setattr(controller, "_hash", lambda certificate: "sha1" if certificate == LOWER.certificate else "sha256")
    refused('key "certificate": is signed with sha1 (CN=Lower), which nobody accepts any more.')


@pytest.mark.parametrize(("days", "warned"), [(13, True), (15, False)])
def test_an_end_that_is_near_is_warned_of(days, warned):
    leaf = Issued("shop", ROOT, DOMAINS, start=NOW, days=days)
    words = [f"The certificate shop expires on 2026-06-{days + 1} 00:00 UTC. Nobody but you can renew it: give the one that follows it."]
    assert load(brought(certificate=leaf.pem, key=leaf.key_pem)).warnings == (words if warned else [])


def test_a_chain_that_is_forgotten_is_warned_of():
    leaf = Issued("shop", LOWER, DOMAINS, fetch=True)
    (warning,) = load(brought(certificate=leaf.pem, key=leaf.key_pem)).warnings
    assert warning.startswith("The certificate shop comes without the one that signed it (CN=Lower).")
    assert load(brought(certificate=leaf.pem + LOWER.pem, key=leaf.key_pem)).warnings == []


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()])
def test_signatures_are_verified_with_an_older_library_too(key):
    signer, stranger = Issued("CA", ca=True, key=key), Issued("CA", ca=True)

    def older(issued):
        # What cryptography before 40 has.
        keys = ("issuer", "subject", "signature", "tbs_certificate_bytes", "signature_hash_algorithm", "public_key")
        return SimpleNamespace(**{each: getattr(issued.certificate, each) for each in keys})

    leaf = older(Issued("shop", signer, DOMAINS))
    assert controller._has_signed(older(signer), leaf)
    assert not controller._has_signed(older(stranger), leaf)


def test_dates_are_read_with_an_older_library_too():
    older = SimpleNamespace(not_valid_after=datetime(2026, 6, 1), not_valid_before=datetime(2026, 5, 1))
    assert (controller._end(older), controller._start(older)) == (NOW, datetime(2026, 5, 1, tzinfo=timezone.utc))


def test_files_of_the_controller_are_read_beside_the_playbook_and_out_of_the_vault(tmp_path):
    secret = VaultSecret(b"word")
    loader = DataLoader()
    loader.set_basedir(str(tmp_path))
    loader.set_vault_secrets([("default", secret)])
    (tmp_path / "shop.pem").write_text(FULL)
    (tmp_path / "shop.key").write_bytes(VaultLib([("default", secret)]).encrypt(LEAF.key_pem, secret=secret))
    (tmp_path / "binary").write_bytes(b"\x30\x82\xff")
    read_text = reader(loader)
    entry = brought(certificate="shop.pem", key=str(tmp_path / "shop.key"))
    assert load(entry, read_text=read_text) == load(brought())

    refused('key "certificate": "no.pem" cannot be read on the controller: No such file or directory.', read_text, certificate="no.pem")
    refused('key "certificate": "." cannot be read on the controller: Is a directory.', read_text, certificate=".")
    refused('key "chain": "binary" cannot be read on the controller: it is not text.', read_text, chain="binary")
    loader.set_vault_secrets([("default", VaultSecret(b"another"))])
    refused('key "key": cannot be read on the controller: it cannot be decrypted with the vault passwords of this run.', read_text, key="shop.key")


# ---- on the host


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "OWN", str(tmp_path / "state" / "own"))
    return tmp_path / "state" / "own"


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def said(folder, *asked):
    return subprocess.run(["openssl", "x509", "-noout", "-in", folder / "fullchain.pem", *asked], check=True, capture_output=True, text=True).stdout


def everything(folder):
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def test_what_is_brought_is_installed_for_root_alone(own):
    assert own_certificates.differs("shop", FULL, LEAF.key_pem) == ["there is none"]
    own_certificates.install("shop", FULL, LEAF.key_pem)
    folder = own / "shop"
    assert ((folder / "fullchain.pem").read_text(), (folder / "privkey.pem").read_text()) == (FULL, LEAF.key_pem)
    assert [mode(each) for each in (own, folder, folder / "fullchain.pem", folder / "privkey.pem")] == [0o700, 0o700, 0o644, 0o600]
    assert own_certificates.differs("shop", FULL, LEAF.key_pem) == []


def test_what_differs_is_said_and_both_files_are_replaced_at_once(own):
    own_certificates.install("shop", FULL, LEAF.key_pem)
    before = os.readlink(own / "shop")
    assert own_certificates.differs("shop", OTHER.pem, OTHER.key_pem) == ["it is another one", "its private key is another one"]
    own_certificates.install("shop", OTHER.pem, OTHER.key_pem)
    assert own_certificates.differs("shop", OTHER.pem, OTHER.key_pem) == []
    assert os.readlink(own / "shop") != before
    # Nothing is left of the old key.
    assert len(list((own / ".shop").iterdir())) == 1


def test_a_key_that_others_may_read_is_put_right(own):
    own_certificates.install("shop", FULL, LEAF.key_pem)
    (own / "shop" / "privkey.pem").chmod(0o640)
    assert own_certificates.differs("shop", FULL, LEAF.key_pem) == ["others may read its private key"]
    own_certificates.install("shop", FULL, LEAF.key_pem)
    assert own_certificates.differs("shop", FULL, LEAF.key_pem) == []


def test_an_installation_that_fails_leaves_what_there_was(own, monkeypatch):
    own_certificates.install("shop", FULL, LEAF.key_pem)
    there = everything(own)
    write = own_certificates.files.write

    def full(path, *arguments):
        if path.endswith("fullchain.pem"):
            raise OSError(28, "No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(own_certificates.files, "write", full)
    with pytest.raises(OSError, match="No space left"):
        own_certificates.install("shop", OTHER.pem, OTHER.key_pem)
    assert everything(own) == there
    assert own_certificates.differs("shop", FULL, LEAF.key_pem) == []


def test_what_a_killed_run_left_is_cleared(own):
    own_certificates.install("shop", FULL, LEAF.key_pem)
    (own / ".shop" / "tmpkilled").mkdir()
    (own / ".shop" / "tmpkilled" / "privkey.pem").write_text("a key")
    (own / ".shop" / "link").symlink_to("tmpkilled")
    own_certificates.install("shop", OTHER.pem, OTHER.key_pem)
    assert own_certificates.differs("shop", OTHER.pem, OTHER.key_pem) == []
    assert len(list((own / ".shop").iterdir())) == 1


def test_installations_at_once_leave_one_whole(own):
    pairs = [(FULL, LEAF.key_pem), (OTHER.pem, OTHER.key_pem)] * 4
    threads = [threading.Thread(target=own_certificates.install, args=("shop", *pair)) for pair in pairs]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert any(own_certificates.differs("shop", *pair) == [] for pair in pairs)
    assert len(list((own / ".shop").iterdir())) == 1


def test_a_certificate_goes_with_its_key(own):
    own_certificates.install("shop", FULL, LEAF.key_pem)
    own_certificates.install("shop-2", OTHER.pem, OTHER.key_pem)
    own_certificates.remove("shop")
    own_certificates.remove("never")
    assert own_certificates.differs("shop", FULL, LEAF.key_pem) == ["there is none"]
    assert own_certificates.differs("shop-2", OTHER.pem, OTHER.key_pem) == []
    assert not (own / ".shop").exists()


def test_the_host_signs_a_certificate_for_its_names(own):
    own_certificates.self_sign("shop", ["shop.test", "*.shop.test"])
    folder = own / "shop"
    text = said(folder, "-text")
    assert "DNS:shop.test, DNS:*.shop.test" in text
    assert "CA:FALSE" in text and "CA:TRUE" not in text
    assert "Digital Signature" in text and "TLS Web Server Authentication" in text and "prime256v1" in text
    assert [mode(each) for each in (folder, folder / "fullchain.pem", folder / "privkey.pem")] == [0o700, 0o644, 0o600]
    assert sorted(each.name for each in folder.iterdir()) == ["fullchain.pem", "privkey.pem"]
    assert own_certificates.due("shop", ["shop.test", "*.shop.test"], time.time()) == []
    # Whoever trusts it, trusts it: Python's own judgement of names and uses.
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
    server.load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
    for name in ("shop.test", "www.shop.test"):
        shake_hands(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "a.b.shop.test")


def shake_hands(server, client, name):
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=name), server.wrap_bio(to_server, to_client, server_side=True)]
    for _turn in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_every_one_that_the_host_signs_has_a_serial_number_and_a_key_of_its_own(own):
    found = set()
    for _time in range(3):
        own_certificates.self_sign("shop", DOMAINS)
        found.add((said(own / "shop", "-serial"), (own / "shop" / "privkey.pem").read_text()))
    assert len({serial for serial, _key in found}) == len({key for _serial, key in found}) == 3


def test_a_name_that_is_longer_than_a_common_name_is_signed_for(own):
    long = f"{'a' * 60}.{'b' * 60}.test"
    for name in ("shop", "s" * 100):
        own_certificates.self_sign(name, [long])
        assert own_certificates.due(name, [long], time.time()) == []
        assert name[:64] in said(own / name, "-subject")


def test_a_hundred_names_are_signed_for(own):
    names = [f"n{number}.{'x' * 60}.{'y' * 60}.example.test" for number in range(100)]
    own_certificates.self_sign("shop", names)
    assert own_certificates.due("shop", names, time.time()) == []


def test_what_the_host_signs_is_due_when_it_is_not_the_wanted_one(own):
    now = time.time()
    assert own_certificates.due("shop", DOMAINS, now) == ["there is none"]
    own_certificates.self_sign("shop", DOMAINS, days=90)
    assert own_certificates.due("shop", ["WWW.shop.test", "shop.test"], now + 86400) == []
    assert own_certificates.due("shop", ["shop.test", "new.test"], now + 86400) == ["it is not for new.test", "it is also for www.shop.test"]
    assert own_certificates.due("shop", DOMAINS, now + 59 * 86400) == []
    assert own_certificates.due("shop", DOMAINS, now + 60.5 * 86400) == ["it expires in 29 days"]
    assert own_certificates.due("shop", DOMAINS, now + 91 * 86400) == ["it has expired"]
    assert own_certificates.due("shop", DOMAINS, now - 86400) == ["it is not valid yet"]


def test_what_cannot_be_read_or_is_another_kind_is_due(own):
    own_certificates.self_sign("shop", DOMAINS)
    (own / "shop" / "privkey.pem").unlink()
    assert own_certificates.due("shop", DOMAINS, time.time()) == ["its private key is another's"]
    (own / "shop" / "fullchain.pem").write_text("no certificate")
    assert own_certificates.due("shop", DOMAINS, time.time()) == ["it cannot be read"]
    brought_one = Issued("shop", ROOT, DOMAINS, start=datetime.now(timezone.utc) - DAY)
    own_certificates.install("shop", brought_one.pem, brought_one.key_pem)
    assert own_certificates.due("shop", DOMAINS, time.time()) == ["it is not self-signed"]
    own_certificates.self_sign("shop", DOMAINS)
    (own / "shop" / "privkey.pem").chmod(0o644)
    assert own_certificates.due("shop", DOMAINS, time.time()) == ["others may read its private key"]


def test_only_what_is_due_is_signed_anew(own):
    entries = {
        "old": {"issuer": "self_signed", "domains": ["old.test"]},
        "new": {"issuer": "self_signed", "domains": ["new.test"]},
        "brought": {"issuer": "own", "domains": ["brought.test"]},
        "shop": {"issuer": "acme", "domains": DOMAINS},
    }
    own_certificates.self_sign("old", ["before.test"])
    own_certificates.self_sign("new", ["new.test"])
    kept = (own / "new" / "fullchain.pem").read_text()
    assert own_certificates.renew(entries) == []
    assert own_certificates.due("old", ["old.test"], time.time()) == []
    assert (own / "new" / "fullchain.pem").read_text() == kept
    assert not (own / "brought").exists() and not (own / "shop").exists()


def test_one_that_cannot_be_signed_keeps_no_other_from_it(own, monkeypatch):
    real = commands.run
    monkeypatch.setattr(commands, "run", lambda argv: commands.Done(1, "", "no\nluck\n") if "/.bad/" in " ".join(argv) else real(argv))
    entries = {name: {"issuer": "self_signed", "domains": [f"{name}.test"]} for name in ("bad", "good")}
    assert own_certificates.renew(entries) == ["bad: openssl cannot sign it: no; luck"]
    assert own_certificates.due("good", ["good.test"], time.time()) == []
    assert own_certificates.due("bad", ["bad.test"], time.time()) == ["there is none"]
    assert list((own / ".bad").iterdir()) == []


def test_a_host_without_openssl_says_so(own, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "_ADMINISTRATORS_PATH", str(tmp_path))
    (problem,) = own_certificates.renew({"shop": {"issuer": "self_signed", "domains": DOMAINS}})
    assert problem.startswith("shop: ") and "openssl" in problem


def test_an_openssl_that_says_nothing_is_told_too(own, monkeypatch):
    monkeypatch.setattr(commands, "run", lambda argv: commands.Done(124, "", ""))
    with pytest.raises(OSError, match="openssl cannot sign it: it ended with 124 and did not say why"):
        own_certificates.self_sign("shop", DOMAINS)


def test_the_hosts_tool_can_use_it_without_ansible():
    source = Path(own_certificates.__file__).read_text()
    assert "import ansible" not in source and "from ansible." not in source
