"""Lineages: what is read from their files, what is decided, and what is done on a host."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.portico.web.plugins.module_utils import layout, lineage
from ansible_collections.portico.web.plugins.modules import certbot_lineage

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


def run(argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def etc(tmp_path, monkeypatch):
    """A host's folders, below a temporary one."""
    monkeypatch.setattr(lineage, "LIVE", str(tmp_path / "live"))
    monkeypatch.setattr(lineage, "RENEWAL", str(tmp_path / "renewal"))
    for name in ("STATE", "ACME_WEBROOT", "CERTIFICATES", "LINEAGES"):
        monkeypatch.setattr(layout, name, getattr(layout, name).replace("/var/lib", str(tmp_path)))
    monkeypatch.setattr(certbot_lineage, "UNSERVED", f"{layout.STATE}/unserved")
    monkeypatch.setattr(certbot_lineage, "HOOK", str(tmp_path / "hook"))
    monkeypatch.setattr(certbot_lineage, "DROP_IN", str(tmp_path / "drop-in" / "portico.conf"))
    monkeypatch.setattr(certbot_lineage, "LOG", str(tmp_path / "log"))
    monkeypatch.setattr(layout, "ACME_CA_BUNDLE", str(tmp_path / "ca.pem"))
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
    assert lineage.read("shop", run, None) == lineage.Lineage(server=SERVER, known=True)


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


# ---- deciding

NOW = 1_800_000_000


def a_lineage(domains=NAMES, server=SERVER, key_matches=True, not_after=NOW + 1):
    return lineage.Lineage(lineage.Certificate(frozenset(domains), not_after, "key"), server, key_matches, known=True)


@pytest.mark.parametrize(
    ("found", "reasons"),
    [
        (a_lineage(), []),
        (lineage.Lineage(), ["there is none"]),
        (lineage.Lineage(known=True), ["it cannot be read"]),
        (a_lineage({"shop.example.com"}), ["it is not for www.shop.example.com"]),
        (a_lineage({*NAMES, "b.example", "a.example"}), ["it is also for a.example, b.example"]),
        (a_lineage({"a.example"}), ["it is not for shop.example.com, www.shop.example.com", "it is also for a.example"]),
        (a_lineage(server="https://other.example/dir"), ["it is from https://other.example/dir"]),
        (a_lineage(server=None), ["certbot does not know where it is from"]),
        (a_lineage(key_matches=False), ["its private key is another's"]),
        (a_lineage(not_after=NOW), ["it has expired"]),
    ],
)
def test_why_a_lineage_is_due(found, reasons):
    assert lineage.plan(found, NAMES, SERVER, NOW) == reasons


def test_certbot_is_told_everything_by_name():
    command = lineage.command("certbot", "shop", ["a.example", "b.example"], SERVER, "ops@example.com", known=False)
    assert " ".join(command) == (
        "certbot certonly --non-interactive --agree-tos --cert-name shop --server https://acme.example/dir --email ops@example.com "
        "--webroot --webroot-path /var/lib/portico/acme --key-type ecdsa --domain a.example --domain b.example"
    )


def test_a_lineage_that_is_there_is_renewed_whatever_its_age_and_an_account_needs_no_address():
    command = lineage.command("certbot", "shop", ["a.example"], SERVER, None, known=True)
    assert "--force-renewal" in command
    assert "--register-unsafely-without-email" in command


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


# ---- acting, with commands that only say that they were run


class Commands:
    """Stands for AnsibleModule: real openssl, everything else as the test says."""

    def __init__(self, **params):
        self.params = {
            "certificates": [{"name": "shop", "domains": sorted(NAMES)}],
            "server": SERVER,
            "trusted": True,
            "email": None,
            "ca_bundle": None,
            **params,
        }
        self.ran = []
        self.answers = {"systemctl show": (0, "UnitFileState=enabled\nActiveState=active\n", "")}

    def get_bin_path(self, name, **_options):
        return name

    def run_command(self, argv, check_rc=False, environ_update=None):
        if argv[0] == "openssl":
            return run(argv)
        self.ran.append(" ".join(argv))
        answer = next((answer for start, answer in self.answers.items() if self.ran[-1].startswith(start)), (0, "", ""))
        return answer() if callable(answer) else answer

    def carry_out(self, obtain=True):
        """Do what the module does."""
        host = certbot_lineage.Host(self)
        host.read()
        plan = host.plan()
        self.ran.clear()
        return plan, host.apply(plan, obtain)


def test_a_lineage_that_was_there_is_linked_without_an_order(etc):
    make_lineage(etc)
    commands = Commands()
    _plan, outcome = commands.carry_out()
    assert outcome.linked == ["shop"]
    assert os.readlink(layout.certificate_link("shop")) == "../lineages/shop"
    served = Path(layout.certificate_link("shop"))
    assert (served / "fullchain.pem").read_text() == (etc / "live/shop/fullchain.pem").read_text()
    assert (served / "transport.conf").read_text() == layout.TRANSPORT_TRUSTED
    assert commands.ran == ["systemctl is-active nginx.service", "nginx -t -q", "systemctl reload nginx.service"]


def test_a_second_run_does_nothing(etc):
    make_lineage(etc)
    commands = Commands()
    commands.carry_out()
    plan, outcome = commands.carry_out()
    assert not plan.changes(obtain=True)
    assert not outcome.changed
    assert commands.ran == []


def test_nothing_permanent_is_promised_with_certificates_for_tests(etc):
    make_lineage(etc)
    Commands().carry_out()
    _plan, outcome = Commands(trusted=False).carry_out()
    assert outcome.linked == ["shop"]
    assert Path(layout.certificate_link("shop"), "transport.conf").read_text() == layout.TRANSPORT_UNTRUSTED


def test_what_nginx_refuses_is_put_back_and_tried_again_by_the_next_run(etc):
    make_lineage(etc)
    os.makedirs(layout.CERTIFICATES)
    os.symlink("../placeholder", layout.certificate_link("shop"))
    commands = Commands()
    commands.answers["nginx -t"] = (1, "", "[emerg] no\n")
    _plan, outcome = commands.carry_out()
    assert outcome.failures == ["shop: the certificate is there, but nginx does not reload: [emerg] no"]
    assert os.readlink(layout.certificate_link("shop")) == "../placeholder"

    _plan, outcome = Commands().carry_out()
    assert (outcome.linked, outcome.failures) == (["shop"], [])
    assert not os.path.exists(certbot_lineage.UNSERVED)


def test_a_reload_that_failed_is_made_up_for(etc):
    make_lineage(etc)
    commands = Commands()
    commands.carry_out()
    make_lineage(etc, {"shop.example.com"})
    commands.answers["nginx -t"] = (1, "", "[emerg] no\n")
    commands.answers["timeout"] = lambda: (make_lineage(etc), (0, "", ""))[1]
    _plan, outcome = commands.carry_out()
    assert len(outcome.failures) == 1

    commands = Commands()
    plan, outcome = commands.carry_out()
    assert plan.unserved
    assert "systemctl reload nginx.service" in commands.ran
    assert not Commands().carry_out()[0].changes(obtain=True)


def test_nginx_that_does_not_run_is_not_told(etc):
    make_lineage(etc)
    commands = Commands()
    commands.answers["systemctl is-active"] = (3, "", "")
    _plan, outcome = commands.carry_out()
    assert outcome.linked == ["shop"]
    assert commands.ran == ["systemctl is-active nginx.service"]


def test_what_is_due_is_only_reported_when_so_asked(etc):
    commands = Commands()
    plan, outcome = commands.carry_out(obtain=False)
    assert plan.reasons == {"shop": ["there is none"]}
    assert not any(command.startswith("timeout") for command in commands.ran)
    assert outcome.obtained == []


def test_a_certificate_is_obtained_and_served(etc):
    commands = Commands()
    commands.answers["timeout"] = lambda: (make_lineage(etc), (0, "", ""))[1]
    _plan, outcome = commands.carry_out()
    assert (outcome.obtained, outcome.linked, outcome.failures) == (["shop"], ["shop"], [])
    assert os.path.isdir(layout.ACME_WEBROOT)


def test_a_certificate_that_cannot_be_had_changes_nothing(etc):
    commands = Commands()
    commands.carry_out(obtain=False)
    commands.answers["timeout"] = (1, "", CHALLENGE)
    _plan, outcome = commands.carry_out()
    assert not outcome.changed
    assert outcome.failures[0].startswith("shop: nodns.example.test: Get")
    assert sum(command.startswith("timeout") for command in commands.ran) == 1
    assert not os.path.lexists(layout.certificate_link("shop"))


def test_certbot_is_not_believed_but_looked_after(etc):
    commands = Commands()
    commands.answers["timeout"] = lambda: (make_lineage(etc, {"shop.example.com"}), (0, "", ""))[1]
    _plan, outcome = commands.carry_out()
    assert outcome.failures == ["shop: certbot has ended well, but it is not for www.shop.example.com"]


def test_a_certbot_that_does_not_end_is_stopped(etc):
    commands = Commands()
    commands.answers["timeout"] = (124, "", "")
    _plan, outcome = commands.carry_out()
    assert outcome.failures == ["shop: certbot was stopped, for it had not ended after 300 seconds"]


def test_another_certbot_is_waited_for(etc, monkeypatch):
    monkeypatch.setattr(certbot_lineage, "SECONDS_BETWEEN_TRIES", 0)
    answers = iter([(1, "", "Another instance of Certbot is already running.\n")] * 2)

    def answer():
        make_lineage(etc)
        return next(answers, (0, "", ""))

    commands = Commands()
    commands.answers["timeout"] = answer
    _plan, outcome = commands.carry_out()
    assert outcome.obtained == ["shop"]


def test_another_certbot_is_not_waited_for_for_ever(etc, monkeypatch):
    monkeypatch.setattr(certbot_lineage, "SECONDS_FOR_ANOTHER_CERTBOT", -1)
    commands = Commands()
    commands.answers["timeout"] = (1, "", "Another instance of Certbot is already running.\n")
    _plan, outcome = commands.carry_out()
    assert outcome.failures == ["shop: Another instance of Certbot is already running."]


def test_what_renewal_needs_comes_and_goes(etc):
    commands = Commands(ca_bundle="the bundle\n")
    commands.answers["systemctl show"] = (0, "UnitFileState=disabled\nActiveState=inactive\n", "")
    commands.carry_out(obtain=False)
    assert (etc / "ca.pem").read_text() == "the bundle\n"
    assert (etc / "drop-in" / "portico.conf").exists()
    assert os.access(etc / "hook", os.X_OK)
    assert commands.ran == ["systemctl daemon-reload", "systemctl enable --now certbot.timer"]

    (etc / "hook").chmod(0o644)
    commands = Commands()
    plan, _outcome = commands.carry_out(obtain=False)
    assert [os.path.basename(file.path) for file in plan.files] == ["ca.pem", "portico.conf", "hook"]
    assert not (etc / "ca.pem").exists()
    assert not (etc / "drop-in" / "portico.conf").exists()
    assert commands.ran == ["systemctl daemon-reload"]


def test_a_disk_that_is_full_is_a_failure_like_others(etc, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device", layout.ACME_WEBROOT)

    commands = Commands()
    commands.carry_out(obtain=False)
    monkeypatch.setattr(certbot_lineage.os, "makedirs", full)
    _plan, outcome = commands.carry_out()
    assert outcome.failures == [f"shop: [Errno 28] No space left on device: '{layout.ACME_WEBROOT}'"]
