"""The list of certificates and its settings: what people may write, and what they are told when they may not."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.portico.web.plugins.plugin_utils.certificates import SERVERS, check_settings, normalise_certificates, settings
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError


def certificate(**keys):
    return {"name": "shop", "domains": ["shop.example.com"], **keys}


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A folder with a certificate, its key, and files that are neither."""
    folder = tmp_path_factory.mktemp("pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=Test CA"]
    subprocess.run([*command, "-keyout", folder / "key.pem", "-out", folder / "ca.pem"], check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "ca.pem").read_text() + (folder / "key.pem").read_text())
    (folder / "empty.pem").write_text("")
    (folder / "cut.pem").write_text((folder / "ca.pem").read_text()[:200])
    (folder / "binary.pem").write_bytes(b"\x30\x82\xff\xfe")
    return folder


def test_a_list_without_mistakes_is_returned_in_small_letters():
    (complete,) = normalise_certificates([certificate(domains=["Shop.Example.com", "www.shop.example.com"])])
    assert (complete["name"], complete["domains"]) == ("shop", ["shop.example.com", "www.shop.example.com"])


def test_one_domain_needs_no_list():
    assert normalise_certificates([certificate(domains="shop.example.com")])[0]["domains"] == ["shop.example.com"]


def test_a_name_of_other_letters_is_accepted_as_it_is_on_the_wire():
    assert normalise_certificates([certificate(domains=["xn--bcher-kva.example"])])[0]["domains"] == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("shop.example.com", ["certbot_certificates is a text"]),
        ([certificate(domain="a.example")], ['entry "shop"', 'key "domain"', 'Did you mean "domains"?']),
        ([{"name": "shop"}], ['entry "shop"', 'key "domains"', "is missing"]),
        ([certificate(domains=[])], ['key "domains"', "is empty"]),
        ([certificate(domains=[1])], ['key "domains"', "is a number, not text"]),
        ([certificate(name="../shop")], ['key "name"', '"../shop" is not a name']),
        ([certificate(name=".shop")], ['".shop" is not a name']),
        ([certificate(), certificate(domains=["b.example"])], ["entry 2", '"shop" is the name of entry 1 too']),
        ([certificate(domains=["a.example", "A.example"])], ['"a.example" stands there twice']),
        ([certificate(domains=["*.example.com"])], ['"*.example.com" is a wildcard', "through DNS"]),
        ([certificate(domains=["bücher.example"])], ["Write xn--bcher-kva.example"]),
        ([certificate(domains=["192.0.2.1"])], ['"192.0.2.1" is an address']),
        ([certificate(domains=["2001:db8::1"])], ['"2001:db8::1" is an address']),
        ([certificate(domains=["a_b.example"])], ["has an underscore"]),
        ([certificate(domains=["https://a.example"])], ["is not a host name", "without scheme"]),
        ([certificate(domains=["-d.example"])], ["is not a host name"]),
        ([certificate(domains=["a.example --force"])], ["is not a host name"]),
        ([certificate(domains=["a.example\n"])], ["control character"]),
        ([certificate(domains=[f"n{number}.example" for number in range(101)])], ["has 101 names", "100 at most"]),
    ],
)
def test_a_mistake_is_told_with_its_place(entries, words):
    with pytest.raises(PorticoError) as told:
        normalise_certificates(entries)
    for word in words:
        assert word in str(told.value)


def test_the_most_names_a_certificate_may_have():
    assert len(normalise_certificates([certificate(domains=[f"n{number}.example" for number in range(100)])])[0]["domains"]) == 100


@pytest.mark.parametrize(
    ("server", "url", "trusted"),
    [
        (None, SERVERS["letsencrypt"], True),
        ("letsencrypt", SERVERS["letsencrypt"], True),
        ("staging", SERVERS["staging"], False),
        (SERVERS["staging"], SERVERS["staging"], False),
        ("https://acme.example.internal:14000/dir", "https://acme.example.internal:14000/dir", True),
    ],
)
def test_a_server_is_a_name_or_a_url(server, url, trusted):
    ready = settings(server)
    assert (ready.server, ready.trusted) == (url, trusted)


def test_what_is_empty_is_not_set(pem):
    assert settings("", "", "") == settings()
    ready = settings(email="ops@example.com", ca_bundle=str(pem / "ca.pem"))
    assert ready.email == "ops@example.com"
    assert ready.ca_bundle == (pem / "ca.pem").read_text()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"certbot_server": "http://acme.example/dir"}, ["certbot_server", '"http://acme.example/dir" is not encrypted', "https://"]),
        ({"certbot_server": "stagin"}, ['"stagin" is neither', 'Did you mean "staging"?']),
        ({"certbot_server": "https://"}, ["is not the URL of an ACME directory"]),
        ({"certbot_server": "https://user:word@acme.example/dir"}, ["without user"]),
        ({"certbot_server": "https://acme.example:99999/dir"}, ["is not the URL of an ACME directory"]),
        ({"certbot_server": ["letsencrypt"]}, ["certbot_server", "is not text"]),
        ({"certbot_email": "ops"}, ["certbot_email", '"ops" is not a mail address']),
        ({"certbot_email": "Ops <ops@example.com>"}, ["without a name around it"]),
        ({"certbot_email": "--dry-run@example.com"}, ["is not a mail address"]),
        ({"certbot_ca_bundle": "ca.pem"}, ["certbot_ca_bundle", "is not an absolute path", "playbook_dir"]),
        ({"certbot_ca_bundle": "/nowhere/ca.pem"}, ["cannot be read on the controller: No such file or directory"]),
        ({"certbot_ca_bundle": "/"}, ["cannot be read on the controller: Is a directory"]),
    ],
)
def test_a_wrong_setting_is_told_with_its_variable(variables, words):
    with pytest.raises(PorticoError) as told:
        check_settings(variables)
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("key.pem", "has a private key in it"),
        ("both.pem", "has a private key in it"),
        ("empty.pem", "is not a file with PEM certificates"),
        ("cut.pem", "is not a file with PEM certificates"),
        ("binary.pem", "it is not text"),
    ],
)
def test_a_bundle_has_certificates_and_nothing_else(pem, name, words):
    with pytest.raises(PorticoError, match=words) as told:
        settings(ca_bundle=str(pem / name))
    assert "BEGIN" not in str(told.value)


def test_settings_that_are_not_there_are_not_asked_for():
    check_settings({})
