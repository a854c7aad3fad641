"""Lineages: what is read from their files, what is decided, and what people are told about certbot's failures."""

from __future__ import annotations

import subprocess
import time

import pytest

from ansible_collections.portico.web.plugins.module_utils import lineage
from ansible_collections.portico.web.plugins.module_utils.commands import run

SERVER = "https://acme.example/dir"
NAMES = frozenset({"shop.example.com", "www.shop.example.com"})
RENEWAL = """\
# renew_before_expiry = 30 days
version = 2.1.0
archive_dir = /etc/letsencrypt/archive/shop
server = https://not-this.example/dir

# Options used in the renewal process
[renewalparams]
account = 4f3718264cc6fea2a04eb091e943dd38
key_type = ecdsa
server = https://acme.example/dir
authenticator = webroot
webroot_path = /var/lib/portico/acme,
[[webroot_map]]
server = /var/lib/portico/acme
shop.example.com = /var/lib/portico/acme
"""


def make_certificate(folder, names=NAMES, key="privkey.pem", days="30"):
    """Make a lineage's two files; with another key file, a key that is not the certificate's."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days]
    if names:
        command += ["-addext", "subjectAltName=" + ",".join(name if ":" in name else f"DNS:{name}" for name in sorted(names))]
    command += ["-subj", "/CN=test", "-keyout", folder / key, "-out", folder / "fullchain.pem"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def etc(tmp_path, monkeypatch):
    """A host's folders, below a temporary one."""
    monkeypatch.setattr(lineage, "LIVE", str(tmp_path / "live"))
    monkeypatch.setattr(lineage, "RENEWAL", str(tmp_path / "renewal"))
    monkeypatch.setattr(lineage, "ACCOUNTS", str(tmp_path / "accounts"))
    (tmp_path / "renewal").mkdir()
    return tmp_path


def make_lineage(etc, names=NAMES, server=SERVER):
    make_certificate(etc / "live" / "shop", names)
    (etc / "renewal" / "shop.conf").write_text(RENEWAL.replace(SERVER, server))


# ---- reading


def test_a_certificate_is_read_from_what_openssl_says(etc):
    make_lineage(etc)
    found = lineage.read("shop", run, "openssl")
    assert found.certificate is not None
    assert found.certificate.domains == NAMES
    assert 29 * 86400 < found.certificate.not_after - time.time() <= 30 * 86400
    assert (found.server, found.key_matches, found.known) == (SERVER, True, True)


def test_nothing_is_read_from_nothing(etc):
    assert lineage.read("shop", run, "openssl") == lineage.Lineage()


def test_a_host_without_openssl_has_lineages_that_cannot_be_read(etc):
    make_lineage(etc)
    found = lineage.read("shop", run, None)
    assert (found.certificate, found.server, found.known) == (None, SERVER, True)


def test_a_key_of_another_certificate_is_noticed(etc):
    make_lineage(etc)
    make_certificate(etc / "live" / "shop", key="another.pem")
    assert lineage.read("shop", run, "openssl").key_matches is False


def test_a_missing_key_is_noticed(etc):
    make_lineage(etc)
    (etc / "live" / "shop" / "privkey.pem").unlink()
    assert lineage.read("shop", run, "openssl").key_matches is False


def test_what_is_no_certificate_is_none(etc):
    make_lineage(etc)
    (etc / "live" / "shop" / "fullchain.pem").write_text("")
    found = lineage.read("shop", run, "openssl")
    assert (found.certificate, found.key_matches) == (None, False)


@pytest.mark.parametrize(
    ("names", "domains"),
    [
        ((), frozenset()),
        (("a.example", "IP:192.0.2.1"), {"a.example", "ip address:192.0.2.1"}),
        (("A.example", "*.b.example"), {"a.example", "*.b.example"}),
    ],
)
def test_names_of_every_kind(etc, names, domains):
    make_lineage(etc, names)
    found = lineage.read("shop", run, "openssl")
    assert found.certificate is not None
    assert found.certificate.domains == domains


def test_the_server_is_the_one_of_the_renewal_parameters():
    found = lineage.renewal_parameters(RENEWAL)
    assert found["server"] == SERVER
    assert found["authenticator"] == "webroot"
    assert "shop.example.com" not in found


@pytest.mark.parametrize("text", ["", "[renewalparams\nserver", "\x00\x01", "server = https://acme.example/dir\n"])
def test_a_damaged_renewal_configuration_has_no_server(text):
    assert lineage.renewal_parameters(text).get("server") is None


@pytest.mark.parametrize(("kind", "key_type", "size"), [(["rsa:2048"], "rsa", 2048), (["rsa:3072"], "rsa", 3072), (["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"], "ecdsa", 384), (["ed25519"], "", 0)])
def test_the_kind_of_key_is_read_from_the_certificate(etc, kind, key_type, size):
    command = ["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-subj", "/CN=test", "-keyout", etc / "k.pem", "-out", etc / "c.pem"]
    subprocess.run(command, check=True, capture_output=True)
    found = lineage.read_certificate(str(etc / "c.pem"))
    assert found is not None
    assert (found.key_type, found.key_size) == (key_type, size)


def test_serial_issuer_and_window_are_read(etc):
    make_certificate(etc / "live" / "shop", days="90")
    found = lineage.read("shop").certificate
    serial = subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", etc / "live/shop/fullchain.pem"], check=True, capture_output=True, text=True).stdout
    assert f"serial={found.serial}\n" == serial
    assert "test" in found.issuer
    assert (found.lifetime, found.window) == (90 * 86400 + 1, 30 * 86400)


# ---- deciding

NOW = 1_800_000_000
ORDER = {"name": "shop", "domains": sorted(NAMES), "server": SERVER, "challenge": {"kind": "http"}}


def a_lineage(domains=NAMES, server=SERVER, key_matches=True, not_after=NOW + 1, **said):
    certificate = lineage.Certificate(frozenset(domains), not_after, "key", key_type="ecdsa", key_size=256)
    return lineage.Lineage(certificate, key_matches, "text", {**({"server": server} if server else {}), **said})


@pytest.mark.parametrize(
    ("found", "order", "reasons"),
    [
        (a_lineage(), {}, []),
        (lineage.Lineage(), {}, ["there is none"]),
        (lineage.Lineage(configuration=""), {}, ["it cannot be read"]),
        (a_lineage({"shop.example.com"}), {}, ["it is not for www.shop.example.com"]),
        (a_lineage({*NAMES, "b.example", "a.example"}), {}, ["it is also for a.example, b.example"]),
        (a_lineage({"a.example"}), {}, ["it is not for shop.example.com, www.shop.example.com", "it is also for a.example"]),
        (a_lineage(server="https://other.example/dir"), {}, ["it is from https://other.example/dir"]),
        (a_lineage(server=None), {}, ["certbot does not know where it is from"]),
        (a_lineage(key_matches=False), {}, ["its private key is another's"]),
        (a_lineage(not_after=NOW), {}, ["it has expired"]),
        (a_lineage(), {"key_type": "ecdsa", "key_size": 256}, []),
        (a_lineage(), {"key_type": "rsa", "key_size": 2048}, ["its key is ecdsa, not rsa"]),
        (a_lineage(), {"key_type": "ecdsa", "key_size": 384}, ["its key has 256 bits, not 384"]),
        (a_lineage(preferred_chain="Root B"), {"preferred_chain": "Root B"}, []),
        (a_lineage(), {"preferred_chain": "Root B"}, ["its chain is not the one to Root B"]),
        (a_lineage(preferred_profile="shortlived"), {"profile": "shortlived"}, []),
        (a_lineage(), {"profile": "shortlived"}, ["its profile is not shortlived"]),
        (a_lineage(account="a" * 32), {}, ["its account is gone from this host"]),
    ],
)
def test_why_a_lineage_is_due(etc, found, order, reasons):
    assert lineage.plan(found, {**ORDER, **order}, NOW) == reasons


def test_a_profile_that_certbot_forgot_is_remembered(etc):
    assert lineage.plan(a_lineage(), {**ORDER, "profile": "shortlived"}, NOW, "shortlived") == []


def test_another_account_of_the_same_ca_will_do(etc):
    folder = etc / "accounts/acme.example/dir" / ("b" * 32)
    folder.mkdir(parents=True)
    (folder / "private_key.json").write_text("{}")
    assert lineage.plan(a_lineage(account="a" * 32), ORDER, NOW) == []
    assert f"account = {'b' * 32}\n" in lineage.settled_configuration(read_text(RENEWAL), ORDER, (4, 0))


# ---- the renewal configuration


def read_text(text, certificate=None):
    return lineage.Lineage(certificate, True, text, lineage.renewal_parameters(text))


def test_what_is_settled_stays_to_the_byte():
    text = RENEWAL.replace("server = /var/lib/portico/acme\n", "").replace("shop.example.com = ", "shop.example.com = ") + "www.shop.example.com = /var/lib/portico/acme\n"
    settled = lineage.settled_configuration(read_text(text), ORDER, (2, 1))
    assert settled == text
    assert lineage.settled_configuration(read_text(settled), ORDER, (2, 1)) == settled


def test_a_lineage_made_by_hand_is_renewed_through_nginx_from_now_on():
    text = RENEWAL.replace("authenticator = webroot\nwebroot_path = /var/lib/portico/acme,\n", "authenticator = standalone\ninstaller = nginx\n").partition("[[webroot_map]]")[0]
    settled = lineage.settled_configuration(read_text(text), ORDER, (2, 1))
    found = lineage.renewal_parameters(settled)
    assert (found["authenticator"], found["webroot_path"], found.get("installer")) == ("webroot", "/var/lib/portico/acme,", None)
    assert settled.endswith("[[webroot_map]]\nshop.example.com = /var/lib/portico/acme\nwww.shop.example.com = /var/lib/portico/acme\n")


def test_a_challenge_through_dns_needs_no_webroot():
    challenge = {"kind": "dns", "plugin": "rfc2136", "has_credentials": True, "propagation": 3}
    settled = lineage.settled_configuration(read_text(RENEWAL), {**ORDER, "challenge": challenge}, (4, 0))
    found = lineage.renewal_parameters(settled)
    assert (found["authenticator"], found["dns_rfc2136_credentials"], found["dns_rfc2136_propagation_seconds"]) == ("dns-rfc2136", "/etc/portico/dns/shop.ini", "3")
    assert "webroot" not in settled


def test_hooks_are_kept_for_renewal():
    challenge = {"kind": "hooks", "auth": "/bin/add it", "cleanup": None, "type": "dns-01"}
    found = lineage.renewal_parameters(lineage.settled_configuration(read_text(RENEWAL), {**ORDER, "challenge": challenge}, (4, 0)))
    assert (found["authenticator"], found["manual_auth_hook"], found["pref_challs"]) == ("manual", "/bin/add it", "dns-01,")


@pytest.mark.parametrize(
    ("days", "version", "said", "wanted"),
    [
        (90, (2, 1), None, None),
        (64, (2, 1), None, "512 hours"),
        (45, (2, 1), None, "360 hours"),
        (6, (2, 1), None, "72 hours"),
        (6, (4, 0), None, "72 hours"),
        (6, (4, 1), None, None),
        (90, (2, 1), "72 hours", None),
        (6, (5, 8), "72 hours", None),
        (6, (2, 1), "2 days", "2 days"),
    ],
)
def test_certbot_is_told_when_to_renew_where_it_would_not_know(days, version, said, wanted):
    certificate = lineage.Certificate(NAMES, NOW + days * 86400 - 1, "key", not_before=NOW)
    text = (f"renew_before_expiry = {said}\n" if said else "") + RENEWAL
    settled = lineage.settled_configuration(read_text(text, certificate), ORDER, version)
    assert lineage.top_parameters(settled).get("renew_before_expiry") == wanted


# ---- the CA's words: what certbot 2.1 (Debian 12) and 4.0 (Debian 13) printed and logged

HELP = "Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile /var/log/letsencrypt/letsencrypt.log or re-run Certbot with -v for more details.\n"
CHALLENGE = f"""\
Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for nodns.example.test and other.example.test

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: nodns.example.test
  Type:   connection
  Detail: Get "http://nodns.example.test:80/x": could not resolve URL "http://nodns.example.test:80/x"

  Domain: other.example.test
  Type:   unauthorized
  Detail: 192.0.2.1: Invalid response from http://other.example.test/x: 404

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
{HELP}"""
BROKEN_21 = f"Saving debug log to /var/log/letsencrypt/letsencrypt.log\nAn unexpected error occurred:\nAttributeError: can't set attribute\n{HELP}"
REJECTED_LOG = """\
    raise messages.Error.from_json(jobj)
acme.messages.Error: urn:ietf:params:acme:error:rejectedIdentifier :: The server will not issue certificates for the identifier :: Order is forbidden by policy: "blocked.example.test"
Problem for blocked.example.test: urn:ietf:params:acme:error:rejectedIdentifier :: The server will not issue certificates for the identifier :: blocked.example.test is a forbidden domain

During handling of the above exception, another exception occurred:
2026-11-23 17:43:52,073:ERROR:certbot._internal.log:AttributeError: can't set attribute
"""
LIMITED_LOG = """\
acme.messages.Error: urn:ietf:params:acme:error:rateLimited :: There were too many requests of a given type :: too many certificates already issued, retry after 2026-11-24
"""
# An answer as certbot logs it.
WAIT_LOG = "Received response:\nHTTP 429\nServer: nginx\nRetry-After: 3600\nContent-Type: application/problem+json\n\n{}\n"
PENDING_LOG = "Received response:\nHTTP 200\nServer: nginx\nRetry-After: 1\nContent-Type: application/json\n\n{}\n"


def unexpected(words):
    return f"Saving debug log to /var/log/letsencrypt/letsencrypt.log\nAn unexpected error occurred:\n{words}\n{HELP}"


@pytest.mark.parametrize(
    ("output", "log", "words"),
    [
        (
            CHALLENGE,
            "",
            'nodns.example.test: Get "http://nodns.example.test:80/x": could not resolve URL "http://nodns.example.test:80/x" (connection); '
            "other.example.test: 192.0.2.1: Invalid response from http://other.example.test/x: 404 (unauthorized)",
        ),
        (
            BROKEN_21,
            REJECTED_LOG,
            'Order is forbidden by policy: "blocked.example.test" (rejectedIdentifier); blocked.example.test is a forbidden domain (rejectedIdentifier)',
        ),
        (BROKEN_21, LIMITED_LOG, "too many certificates already issued, retry after 2026-11-24 (rateLimited)"),
        (BROKEN_21, WAIT_LOG + LIMITED_LOG, "too many certificates already issued, retry after 2026-11-24 (rateLimited). The CA asks to wait 1 hour"),
        (BROKEN_21, PENDING_LOG + LIMITED_LOG, "too many certificates already issued, retry after 2026-11-24 (rateLimited)"),
        (
            unexpected(
                "requests.exceptions.SSLError: HTTPSConnectionPool(host='acme', port=14000): Max retries exceeded with url: /dir (Caused by "
                "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate (_ssl.c:992)')))"
            ),
            "",
            f"{SERVER} is not trusted: unable to get local issuer certificate. "
            "Set certbot_ca_bundle to a PEM file with the CA that signed its certificate.",
        ),
        (unexpected("ValueError: Requesting localhost/dir: Connection refused"), "", f"{SERVER} does not answer: Connection refused"),
        (
            unexpected(
                "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='nowhere', port=14000): Max retries exceeded with url: /dir (Caused by "
                "NewConnectionError('<urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a new connection: [Errno -2] Name or service not known'))"
            ),
            "",
            f"{SERVER} does not answer: Name or service not known",
        ),
        (
            unexpected(
                "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='nowhere', port=443): Max retries exceeded with url: /dir (Caused by "
                "NameResolutionError(\"<urllib3.connection.HTTPSConnection object at 0x7f>: Failed to resolve 'nowhere' ([Errno -2] Name or service not known)\"))"
            ),
            "",
            f"{SERVER} does not answer: Name or service not known",
        ),
        (
            unexpected("requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='acme', port=443): Read timed out. (read timeout=45)"),
            "",
            f"{SERVER} does not answer: Read timed out",
        ),
        (
            unexpected("requests.exceptions.ConnectionError: ('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))"),
            "",
            f"{SERVER} does not answer: Remote end closed connection without response",
        ),
        (
            unexpected(
                "requests.exceptions.SSLError: HTTPSConnectionPool(host='localhost', port=443): Max retries exceeded with url: /dir (Caused by "
                "SSLError(SSLZeroReturnError(6, 'TLS/SSL connection has been closed (EOF) (_ssl.c:992)')))"
            ),
            "",
            f"{SERVER} does not answer: TLS/SSL connection has been closed",
        ),
        (
            unexpected("ValueError: Requesting acme/dir: Connection refused"),
            # The log has a traceback, and that quotes the source.
            '        self, f"Failed to establish a new connection: {e}"\n    ) from e\n',
            f"{SERVER} does not answer: Connection refused",
        ),
        (unexpected("OSError: [Errno 28] No space left on device"), "", "OSError: [Errno 28] No space left on device"),
        (f"Saving debug log to x\nlive directory exists for shop\n{HELP}", "", "live directory exists for shop"),
        ("", "", "certbot did not say why"),
    ],
)
def test_why_there_is_no_certificate_is_told_in_one_line(output, log, words):
    told = lineage.words_of_failure(output, log, SERVER)
    assert told == words
    assert "\n" not in told


@pytest.mark.parametrize(
    ("output", "locked"),
    [("Another instance of Certbot is already running.", True), ("Another Certbot instance is running", True), (CHALLENGE, False)],
)
def test_another_certbot_at_work_is_recognised(output, locked):
    assert lineage.is_locked(output) is locked




def test_a_value_with_a_comma_is_one_text_for_certbot():
    text = lineage.with_parameters("[renewalparams]\nserver = x\n", {"manual_auth_hook": "/bin/prove a,b", "pref_challs": "http-01,"})
    assert 'manual_auth_hook = "/bin/prove a,b"\n' in text and "pref_challs = http-01,\n" in text
    assert lineage.renewal_parameters(text)["manual_auth_hook"] == "/bin/prove a,b"


def test_the_webroots_stand_below_the_parameters_and_nowhere_else():
    text = "[renewalparams]\nserver = x\n[acme_renewal_info]\nari_retry_after = 1\n"
    settled = lineage.with_parameters(text, {}, webroots={"a.example": "/w"})
    assert settled == "[renewalparams]\nserver = x\n[[webroot_map]]\na.example = /w\n[acme_renewal_info]\nari_retry_after = 1\n"
    assert lineage.with_parameters(settled, {}, webroots={"a.example": "/w"}) == settled


def test_what_made_room_for_certbots_own_server_stops_nginx_no_more():
    text = RENEWAL.replace("authenticator = webroot", "authenticator = standalone\npre_hook = systemctl stop nginx\npost_hook = systemctl start nginx")
    assert "systemctl" not in lineage.settled_configuration(read_text(text), ORDER, (4, 0))


def test_somebodys_own_word_about_when_to_renew_is_respected():
    certificate = lineage.Certificate(NAMES, NOW + 90 * 86400 - 1, "key", not_before=NOW)
    assert lineage.window(certificate, "renew_before_expiry = 10 days\n") == 10 * 86400
    assert lineage.window(certificate, None) == lineage.window(certificate, "renew_before_expiry = 90 days\n") == 30 * 86400


def test_a_directory_url_with_a_query_has_the_account_folder_that_certbot_gives_it():
    assert lineage.account_folder("https://acme.example/dir?x=y") == "/etc/letsencrypt/accounts/acme.example/dir"
