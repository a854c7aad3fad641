"""Which certificates nginx staples OCSP responses to, and whom it believes them from."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from issued import Issued

from ansible_collections.portico.web.plugins.module_utils import der, layout, stapling

RESPONDER = "http://ocsp.ca.test"


@pytest.fixture(scope="module")
def root():
    return Issued("Root", ca=True)


@pytest.fixture(scope="module")
def issuer(root):
    # It has a responder of its own, at the root's.
    return Issued("Issuer", root, ca=True, responder="http://ocsp.root.test")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "TRUSTED_CAS", str(tmp_path / "cas.pem"))
    return tmp_path


def wanted(folder, *chains):
    """Return the names of the files that are to be there, name to text, in the order in which they are written."""
    paths = []
    for number, chain in enumerate(chains):
        paths.append(folder / f"fullchain{number}.pem")
        paths[-1].write_text("".join(each if isinstance(each, str) else each.pem for each in chain))
    return {Path(path).name: None if content is None else content.decode() for path, content in stapling.wanted(str(folder), map(str, paths)).items()}


NOTHING = {"stapling.conf": None, "stapling.pem": None}


def test_a_certificate_with_a_responder_is_stapled_to(folder, issuer):
    leaf = Issued("leaf", issuer, ["shop.test"], responder=RESPONDER)
    assert wanted(folder, [leaf, issuer]) == {"stapling.conf": "ssl_stapling on;\nssl_stapling_verify on;\n", "stapling.pem": None}


def test_where_the_host_knows_the_root_a_responder_may_have_a_certificate_of_its_own(folder, root, issuer):
    (folder / "cas.pem").write_text(Issued("Stranger", ca=True).pem + root.pem)
    found = wanted(folder, [Issued("leaf", issuer, ["shop.test"], responder=RESPONDER), issuer])
    assert list(found) == ["stapling.pem", "stapling.conf"]
    assert found["stapling.conf"] == f"ssl_stapling on;\nssl_stapling_verify on;\nssl_trusted_certificate {folder}/stapling.pem;\n"
    assert found["stapling.pem"].count("BEGIN") == 1


def test_whom_nginx_believes_about_certificates_it_does_not_believe_about_visitors(folder, root, issuer):
    """openssl has a form of its own for it."""
    (folder / "cas.pem").write_text(root.pem)
    found = wanted(folder, [Issued("leaf", issuer, responder=RESPONDER), issuer])
    (folder / "root.pem").write_text(root.pem)
    made = subprocess.run(["openssl", "x509", "-in", folder / "root.pem", "-addreject", "clientAuth", "-trustout"], check=True, capture_output=True, text=True).stdout
    assert found["stapling.pem"] == made


@pytest.mark.parametrize("responder", [None, "https://ocsp.ca.test", "ldap://ca.test/cn=ocsp"])
def test_no_other_certificate_is_stapled_to(folder, root, issuer, responder):
    """nginx would warn of it at each start."""
    (folder / "cas.pem").write_text(root.pem)
    assert wanted(folder, [Issued("leaf", issuer, ["shop.test"], fetch=True, responder=responder), issuer]) == NOTHING


@pytest.mark.parametrize("responder", ["HTTP://OCSP.CA.TEST/", "http://ocsp.ca.test:8080/a/b"])
def test_nginx_speaks_http_to_whatever_place(folder, issuer, responder):
    assert wanted(folder, [Issued("leaf", issuer, responder=responder), issuer])["stapling.conf"]


def test_a_self_signed_certificate_is_not_stapled_to(folder):
    assert wanted(folder, [Issued("self", names=["shop.test"])]) == NOTHING


def test_nothing_is_stapled_where_nobody_knows_the_issuer(folder, root):
    leaf = Issued("leaf", root, ["shop.test"], responder=RESPONDER)
    assert wanted(folder, [leaf]) == NOTHING
    (folder / "cas.pem").write_text(root.pem)
    assert wanted(folder, [leaf])["stapling.conf"]


def test_a_pair_is_stapled_to_where_both_have_a_responder(folder, root, issuer):
    other = Issued("Other", ca=True)
    first, second = Issued("first", issuer, responder=RESPONDER), Issued("second", other, responder=RESPONDER)
    (folder / "cas.pem").write_text(root.pem + other.pem)
    assert wanted(folder, [first, issuer], [second])["stapling.pem"].count("BEGIN") == 2
    assert wanted(folder, [first, issuer], [Issued("second", other)]) == NOTHING


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_not_stapled_to(folder, issuer, text):
    assert wanted(folder, [text]) == NOTHING
    # The issuer, which has a responder, is not taken for the certificate.
    assert text.count("BEGIN") == 0 or wanted(folder, [text, issuer]) == NOTHING


def test_a_ca_that_cannot_be_read_hides_no_other(folder, root):
    (folder / "cas.pem").write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n" + root.pem)
    assert wanted(folder, [Issued("leaf", root, responder=RESPONDER)])["stapling.pem"]


def test_a_certificate_that_is_cut_off_anywhere_is_none(issuer):
    whole = der.elements(ssl.PEM_cert_to_DER_cert(issuer.pem))[0].whole
    for length in range(1, len(whole)):
        with pytest.raises(ValueError):
            stapling._read(whole[:length])


# ---- what is there already


def test_a_folder_is_settled_once(folder, root, issuer):
    (folder / "cas.pem").write_text(root.pem)
    (folder / "fullchain.pem").write_text(Issued("leaf", issuer, responder=RESPONDER).pem + issuer.pem)
    assert stapling.settle(str(folder)) and not stapling.settle(str(folder))
    assert {path.name for path in folder.glob("stapling*")} == {"stapling.conf", "stapling.pem"}
    (folder / "fullchain.pem").write_text(Issued("leaf", issuer).pem + issuer.pem)
    assert stapling.settle(str(folder)) and not list(folder.glob("stapling*"))


def test_a_pair_is_settled_by_what_nginx_serves_of_it(folder, issuer):
    (folder / "fullchain.pem").write_text(Issued("leaf", issuer, responder=RESPONDER).pem + issuer.pem)
    (folder / "rsa").mkdir()
    (folder / "rsa/fullchain.pem").write_text(Issued("leaf", issuer).pem + issuer.pem)
    assert stapling.settle(str(folder))
    (folder / "transport.conf").write_text(layout.SECOND_CERTIFICATE.format(folder=f"{folder}/rsa"))
    assert stapling.settle(str(folder)) and not list(folder.glob("stapling*"))


def test_a_certificate_that_is_gone_takes_nothing_with_it(folder, issuer):
    """nginx goes on with what it has in memory, and is not told to read anew."""
    path = folder / "fullchain.pem"
    path.write_text(Issued("leaf", issuer, responder=RESPONDER).pem + issuer.pem)
    assert stapling.settle(str(folder))
    path.unlink()
    assert not stapling.settle(str(folder)) and (folder / "stapling.conf").exists()
