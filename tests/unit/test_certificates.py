"""The list of certificates and its settings: what people may write, and what they are told when they may not."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.portico.web.plugins.plugin_utils.certificates import SERVERS, check_settings, host_entries, normalise_certificates, settings
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


def test_a_list_without_mistakes_is_returned_complete_and_in_small_letters():
    (complete,) = normalise_certificates([certificate(domains=["Shop.Example.com", "www.shop.example.com"])])
    assert (complete["name"], complete["domains"]) == ("shop", ["shop.example.com", "www.shop.example.com"])
    assert (complete["issuer"], complete["challenge"], complete["reuse_key"], complete["key_types"]) == ("acme", "http", False, None)


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
        ([certificate(domains=["*.example.com"], challenge="http")], ['"*.example.com" is a wildcard', "through DNS", "Leave challenge out"]),
        ([certificate(domains=["*.example.com"], hooks={"auth": "/bin/a", "type": "http-01"})], ['"*.example.com" is a wildcard']),
        ([certificate(domains=["*.*.example.com"])], ["is not a host name"]),
        ([certificate(issuer="me")], ['key "issuer"', '"me" is not one of its choices']),
        ([certificate(key_types=["dsa"])], ['"dsa" is not one of its choices']),
        ([certificate(key_types=["rsa", "rsa"])], ['key "key_types"', "names one kind twice"]),
        ([certificate(key_types=["ecdsa", "rsa"]), certificate(name="shop-rsa")], ['entry "shop"', "makes a second lineage, shop-rsa"]),
        ([certificate(rsa_size=1024)], ['key "rsa_size"', "1024 is not one of its choices"]),
        ([certificate(server="http://ca.example/dir")], ['key "server"', "is not encrypted"]),
        ([certificate(profile="--force")], ['key "profile"', "cannot be told to certbot"]),
        ([certificate(hooks={"auth": "add-record"})], ['key "hooks.auth"', '"add-record" is not a command']),
        ([certificate(hooks={"cleanup": "/bin/x"})], ['key "hooks.auth"', "is missing"]),
        ([certificate(challenge="hooks")], ['key "hooks"', "is missing"]),
        ([certificate(issuer="own", certificate="a.pem")], ['key "key"', "is missing"]),
        ([certificate(key="a.pem")], ['key "key"', "the issuer is acme", "set issuer to own"]),
        ([certificate(issuer="self_signed", profile="shortlived")], ['key "profile"', "the issuer is self_signed", "set issuer to acme"]),
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
    ready = settings({"server": server})
    (entry,) = host_entries(normalise_certificates([certificate()]), ready)
    assert (entry["orders"][0]["server"], entry["trusted"]) == (url, trusted)


def test_what_is_empty_is_not_set(pem):
    assert settings({"server": "", "email": "", "ca_bundle": ""}) == settings({})
    ready = settings({"email": "ops@example.com", "ca_bundle": str(pem / "ca.pem")})
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
        ({"certbot_server": ["letsencrypt"]}, ['certbot_server: ["letsencrypt"] is a list, not text.']),
        ({"certbot_email": "ops"}, ["certbot_email", '"ops" is not a mail address']),
        ({"certbot_email": "Ops <ops@example.com>"}, ["without a name around it"]),
        ({"certbot_email": "--dry-run@example.com"}, ["is not a mail address"]),
        ({"certbot_ca_bundle": "ca.pem"}, ["certbot_ca_bundle", "is not an absolute path", "playbook_dir"]),
        ({"certbot_ca_bundle": "/nowhere/ca.pem"}, ["cannot be read on the controller: No such file or directory"]),
        ({"certbot_ca_bundle": "/"}, ["cannot be read on the controller: Is a directory"]),
        ({"certbot_eab": "kid:hunter2"}, ["certbot_eab: is a text. Write keys and values below it."]),
        ({"certbot_eab": {"kid": "k"}}, ['certbot_eab, key "hmac_key": is missing']),
        ({"certbot_eab": {"kid": "k", "hmac_key": "hunter2!"}}, ['certbot_eab, key "hmac_key": is not base64url']),
        ({"certbot_account": "hunter2"}, ["certbot_account: is not what portico.web.certbot_account has exported"]),
        ({"certbot_dns": {"plugn": "rfc2136"}}, ['certbot_dns, key "plugn"', 'Did you mean "plugin"?']),
        ({"certbot_dns": {"plugin": "dns_rfc2136"}}, ['certbot_dns, key "plugin": "dns_rfc2136" is not the name of a plugin']),
        ({"certbot_dns": {"plugin": "rfc2136", "credentials": {"secret": "hunter2\nx"}}}, ['certbot_dns, key "credentials": has a value that is not a text of one line']),
        ({"certbot_dns": {"plugin": "rfc2136", "propagation": -1}}, ['certbot_dns, key "propagation": -1 is not a number of seconds']),
        ({"certbot_install": "pypy"}, ["certbot_install", '"pypy" is not one of its choices', 'Did you mean "pypi"?']),
        ({"certbot_version": "5.8.0"}, ["certbot_version", '"5.8.0" is given, and certbot comes from the distribution']),
        ({"certbot_version": "newest", "certbot_install": "pypi"}, ["certbot_version", '"newest" is not a version']),
        ({"certbot_alarm_command": "page ops"}, ["certbot_alarm_command", '"page ops" begins with a program that has a space in its name']),
        ({"certbot_preflight": "perhaps"}, ["certbot_preflight", '"perhaps" is neither true nor false']),
        ({"certbot_metrics": "metrics.prom"}, ["certbot_metrics", "is not an absolute path"]),
        ({"certbot_removed": "burnt"}, ["certbot_removed", '"burnt" is not one of its choices']),
    ],
)
def test_a_wrong_setting_is_told_with_its_variable(variables, words):
    with pytest.raises(PorticoError) as told:
        check_settings(variables)
    for word in words:
        assert word in str(told.value)
    assert "hunter2" not in str(told.value)


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
        settings({"ca_bundle": str(pem / name)})
    assert "BEGIN" not in str(told.value)


def test_settings_that_are_not_there_are_not_asked_for():
    check_settings({})


# ---- what the host is told

DNS = {"plugin": "rfc2136", "credentials": {"server": "192.0.2.53", "name": "k.", "dns_rfc2136_secret": "hunter2"}, "propagation": 3}


def orders(settings_given=None, **keys):
    (entry,) = host_entries(normalise_certificates([certificate(**keys)]), settings(settings_given or {}))
    return entry["orders"]


def test_a_pair_is_two_lineages():
    first, second = orders(key_types=["ecdsa", "rsa"], ecdsa_size=384, rsa_size=3072)
    assert (first["name"], first["key_type"], first["key_size"]) == ("shop", "ecdsa", 384)
    assert (second["name"], second["key_type"], second["key_size"]) == ("shop-rsa", "rsa", 3072)


def test_a_size_says_the_kind_too_and_nothing_said_is_nothing_asked():
    assert (orders(rsa_size=4096)[0]["key_type"], orders(rsa_size=4096)[0]["key_size"]) == ("rsa", 4096)
    assert (orders()[0]["key_type"], orders()[0]["key_size"]) == (None, None)


def test_a_certificate_without_a_ca_has_no_orders():
    (own,) = host_entries(normalise_certificates([certificate(issuer="own", certificate="c.pem", key="k.pem")]), settings({}))
    (signed,) = host_entries(normalise_certificates([certificate(issuer="self_signed")]), settings({}))
    assert (own["orders"], own["trusted"], signed["orders"], signed["trusted"]) == ([], True, [], False)


def test_a_wildcard_is_proved_through_dns():
    (order,) = orders({"dns": DNS}, domains=["*.example.com"])
    assert order["challenge"] == {"kind": "dns", "plugin": "rfc2136", "has_credentials": True, "propagation": 3}
    ready = settings({"dns": DNS})
    assert ready.credentials == "dns_rfc2136_server = 192.0.2.53\ndns_rfc2136_name = k.\ndns_rfc2136_secret = hunter2\n"
    assert "python3-certbot-dns-rfc2136" in ready.packages


def test_a_wildcard_needs_a_way_to_write_records():
    with pytest.raises(PorticoError) as told:
        orders(domains=["*.example.com"])
    assert str(told.value) == (
        'certbot_certificates, entry "shop", key "domains": "*.example.com" is a wildcard, which is proved through DNS. '
        "Say in certbot_dns how it is reached, or give the entry hooks."
    )
    assert orders(domains=["*.example.com"], hooks={"auth": "/usr/local/bin/add"})[0]["challenge"]["kind"] == "hooks"


def test_what_a_host_is_told_of_certificates_has_no_secret_in_it():
    own = certificate(name="own", issuer="own", certificate="c.pem", key="hunter2")
    wild = certificate(domains=["*.example.com"])
    told = host_entries(normalise_certificates([own, wild]), settings({"dns": DNS, "eab": {"kid": "k", "hmac_key": "hunter2"}}))
    assert "hunter2" not in repr(told)


def test_certbot_comes_from_where_it_is_wanted():
    assert settings({}).packages == ["certbot", "openssl", "python3-dnspython"]
    assert settings({"preflight": False, "install": "pypi"}).packages == ["python3-venv", "ca-certificates", "openssl"]
    assert settings({}).requirements == []
    assert settings({"install": "pypi"}).requirements == ["certbot"]
    assert settings({"install": "pypi", "version": "5.8.0", "dns": DNS}).requirements == ["certbot==5.8.0", "certbot-dns-rfc2136"]
