"""What the host's half does with certificates: links, reloads, orders, removal, repairs; certbot, systemd and nginx stand aside."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from issued import Issued

from ansible_collections.portico.web.plugins.module_utils import certbot, commands, layout, lineage, own_certificates, preflight, register, serving, store, units
from ansible_collections.portico.web.plugins.modules import certbot_lineage

SERVER = "https://acme.example/dir"
NAMES = ["shop.example.com", "www.shop.example.com"]
QUIET = {"systemctl show": commands.Done(0, "\n\n".join(f"Id={timer}\nLoadState=loaded\nUnitFileState=enabled\nActiveState=active" for timer in units.TIMERS), "")}


def order(name="shop", domains=None, **keys):
    return {"name": name, "domains": domains or NAMES, "server": SERVER, "challenge": {"kind": "http"}, "profile": None, "reuse_key": False, "preferred_chain": None, **keys}


def entry(name="shop", domains=None, trusted=True, orders=None, issuer="acme"):
    domains = domains or NAMES
    return {"name": name, "domains": domains, "issuer": issuer, "trusted": trusted, "orders": [order(name, domains)] if orders is None else orders}


def parameters(*entries, **params):
    """Return the module's parameters."""
    return {
        "certificates": list(entries),
        "contents": {},
        "obtain": [each["name"] for each in entries],
        "scope": "main",
        "removed": "deleted",
        "settings": {},
        "packages": [],
        "requirements": [],
        "email": None,
        "eab": None,
        "account": None,
        "ca_bundle": None,
        "credentials": None,
        "preflight": True,
        "tool": base64.b64encode(b"#!tool").decode(),
        **params,
    }


class World:
    """A host below a temporary folder. What is run is written down, and answered as the test says."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.ran: list[str] = []
        self.answers = dict(QUIET)
        self.reloads: list[str | None] = []
        """What nginx answers when it is told to reload, one after the other."""
        self.told = 0
        self.issue = {"domains": NAMES, "kind": ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")}
        self.refusal: str | None = None
        self.served: list[str] = []
        self.asked_first: dict[str, str] = {}
        run = commands.run

        def stand_in(argv, environment=None, seconds=120, text=None):
            if argv[0] == "openssl":
                return run(argv)
            self.ran.append(" ".join(argv))
            return next((answer for start, answer in self.answers.items() if self.ran[-1].startswith(start)), commands.Done(0, "", ""))

        for module in (commands, certbot_lineage.commands, certbot.commands):
            monkeypatch.setattr(module, "run", stand_in)
        monkeypatch.setattr(serving, "reload", self.reload)
        monkeypatch.setattr(preflight, "check", lambda domains, **_options: self.asked_first)
        monkeypatch.setattr(preflight, "directory", lambda _url, _trusted: {})
        monkeypatch.setattr(units, "files", lambda: {str(root / "etc/systemd/system/renew.timer"): ("[Timer]\n", 0o644)})
        monkeypatch.setattr(certbot, "version", lambda program: (4, 0, 0))
        monkeypatch.setattr(certbot.Certbot, "obtain", lambda _certbot, order, known: self.obtain(order))
        monkeypatch.setattr(store, "manifest", lambda _number: {"scopes": {"main": {"certificates": {name: [] for name in self.served}}}})
        self.orders: list[str] = []

    def reload(self, _holder):
        self.told += 1
        return self.reloads.pop(0) if self.reloads else None

    def obtain(self, order):
        self.orders.append(order["name"])
        if self.refusal is None:
            kind = ("rsa:2048",) if order.get("key_type") == "rsa" else self.issue["kind"]
            self.make_lineage(order["name"], **{**self.issue, "kind": kind, "domains": order["domains"] if self.issue["domains"] is NAMES else self.issue["domains"]})
        return self.refusal

    def make_lineage(self, name="shop", domains=NAMES, kind=("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), server=SERVER):
        archive, live = self.root / "letsencrypt/archive" / name, self.root / "letsencrypt/live" / name
        archive.mkdir(parents=True, exist_ok=True)
        live.mkdir(parents=True, exist_ok=True)
        command = ["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "90", "-subj", "/CN=test", "-addext", "subjectAltName=" + ",".join(f"DNS:{each}" for each in domains)]
        subprocess.run([*command, "-keyout", archive / "privkey1.pem", "-out", archive / "fullchain1.pem"], check=True, capture_output=True)
        for part in ("cert", "chain", "fullchain", "privkey"):
            if part in ("cert", "chain"):
                (archive / f"{part}1.pem").write_bytes((archive / "fullchain1.pem").read_bytes())
            (live / f"{part}.pem").unlink(missing_ok=True)
            (live / f"{part}.pem").symlink_to(f"../../archive/{name}/{part}1.pem")
        (self.root / "letsencrypt/renewal").mkdir(exist_ok=True)
        made = certbot._configuration({**order(name, list(domains)), "server": server}, None, (4, 0))
        (self.root / f"letsencrypt/renewal/{name}.conf").write_text(made)

    def run(self, *entries, **params):
        """Do what the module does, and return its plan and its outcome."""
        host = certbot_lineage.Host(parameters(*entries, **params))
        plan = host.plan()
        self.ran.clear()
        self.orders.clear()
        return plan, host.apply(plan)

    def link(self, name="shop"):
        return os.readlink(layout.certificate_link(name))


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("LETSENCRYPT", "LIVE", "RENEWAL", "ACCOUNTS"):
        monkeypatch.setattr(lineage, name, getattr(lineage, name).replace("/etc", str(tmp_path)))
    for name in ("STATE", "ACME_WEBROOT", "CERTIFICATES", "LINEAGES", "CERTBOT", "OWN", "PLACEHOLDER"):
        monkeypatch.setattr(layout, name, getattr(layout, name).replace("/var/lib", str(tmp_path)))
    for name in ("ACME_CA_BUNDLE", "DNS_CREDENTIALS", "TOOL", "CERTBOT_ENVIRONMENT"):
        monkeypatch.setattr(layout, name, str(tmp_path) + getattr(layout, name))
    monkeypatch.setattr(certbot_lineage, "UNSERVED", f"{layout.STATE}/unserved")
    monkeypatch.setattr(certbot_lineage, "OLD_DROP_IN", str(tmp_path / "old-drop-in"))
    Path(layout.PLACEHOLDER).mkdir(parents=True)
    for name in (layout.CERTIFICATE_FILE, layout.KEY_FILE, layout.TRANSPORT_FILE):
        Path(layout.PLACEHOLDER, name).touch()
    Path(layout.CERTIFICATES).mkdir()
    return World(tmp_path, monkeypatch)


def transport(name="shop"):
    return Path(layout.certificate_link(name), layout.TRANSPORT_FILE).read_text()


# ---- obtaining and serving


def test_a_certificate_is_obtained_and_served(world):
    plan, outcome = world.run(entry())
    assert plan.reasons == {"shop": ["there is none"]}
    assert (outcome.obtained, outcome.linked, outcome.failures) == (["shop"], ["shop"], [])
    assert world.link() == "../lineages/shop"
    served = Path(layout.certificate_link("shop"))
    assert (served / "fullchain.pem").read_text() == Path(lineage.LIVE, "shop/fullchain.pem").read_text()
    assert transport() == layout.TRANSPORT_TRUSTED


def test_a_second_run_does_nothing(world):
    world.run(entry())
    plan, outcome = world.run(entry())
    assert not plan.changes(["shop"]) and not outcome.changed
    assert world.ran == [] and world.orders == []


def test_what_is_due_is_only_reported_when_so_asked(world):
    plan, outcome = world.run(entry(), obtain=[])
    assert [each["name"] for each in plan.due] == ["shop"]
    assert (world.orders, outcome.obtained) == ([], [])


def test_a_lineage_that_was_there_is_linked_without_an_order(world):
    world.make_lineage()
    _plan, outcome = world.run(entry())
    assert (outcome.linked, world.orders) == (["shop"], [])
    assert register.certificates()["shop"]["adopted"] is True


def test_nothing_permanent_is_promised_with_certificates_for_tests(world):
    world.run(entry())
    _plan, outcome = world.run(entry(trusted=False))
    assert outcome.linked == ["shop"]
    assert transport() == layout.TRANSPORT_UNTRUSTED


def test_a_certificate_that_cannot_be_had_changes_nothing(world):
    world.run(entry(), obtain=[])
    world.refusal = "the CA is out"
    _plan, outcome = world.run(entry())
    assert (outcome.failures, outcome.changed, world.orders) == (["shop: the CA is out"], False, ["shop"])
    assert not os.path.lexists(layout.certificate_link("shop"))


def test_what_the_ca_will_not_see_costs_no_order(world):
    world.asked_first = {"www.shop.example.com": "www.shop.example.com does not resolve."}
    _plan, outcome = world.run(entry())
    assert (outcome.failures, world.orders) == (["shop: www.shop.example.com does not resolve."], [])
    world.run(entry(), preflight=False)
    assert world.orders == ["shop"]


def test_certbot_is_not_believed_but_looked_after(world):
    world.issue["domains"] = ["shop.example.com"]
    _plan, outcome = world.run(entry())
    assert outcome.failures == ["shop: certbot has ended well, but it is not for www.shop.example.com"]


def test_a_disk_that_is_full_is_a_failure_like_others(world, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certbot.Certbot, "obtain", full)
    _plan, outcome = world.run(entry())
    assert outcome.failures == ["shop: [Errno 28] No space left on device"]


# ---- a pair


def a_pair():
    return entry(orders=[order(key_type="ecdsa", key_size=None), order("shop-rsa", key_type="rsa", key_size=2048)])


def test_a_pair_is_served_with_both(world, monkeypatch):
    def obtain(_certbot, wanted, _known):
        world.make_lineage(wanted["name"], kind=("rsa:2048",) if wanted["key_type"] == "rsa" else ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"))

    monkeypatch.setattr(certbot.Certbot, "obtain", obtain)
    _plan, outcome = world.run(a_pair())
    assert outcome.obtained == ["shop"]
    folder = f"{layout.LINEAGES}/shop/rsa"
    assert transport() == layout.TRANSPORT_TRUSTED + f"ssl_certificate {folder}/fullchain.pem;\nssl_certificate_key {folder}/privkey.pem;\n"
    assert lineage.read_certificate(f"{folder}/fullchain.pem").key_type == "rsa"
    plan, _outcome = world.run(a_pair())
    assert not plan.changes(["shop"])


def test_half_a_pair_is_served_while_the_other_half_cannot_be_had(world):
    world.make_lineage()
    world.refusal = "no"
    plan, outcome = world.run(a_pair())
    assert plan.reasons == {"shop": ["shop-rsa: there is none"]}
    assert (outcome.linked, outcome.failures, world.orders) == (["shop"], ["shop: no"], ["shop-rsa"])
    assert transport() == layout.TRANSPORT_TRUSTED


# ---- nginx


def test_what_nginx_refuses_is_put_back_and_tried_again_by_the_next_run(world):
    world.make_lineage()
    os.symlink("../placeholder", layout.certificate_link("shop"))
    world.reloads = ["[emerg] no"]
    _plan, outcome = world.run(entry())
    assert outcome.failures == ["shop: the certificate is there, but nginx does not reload: [emerg] no"]
    assert world.link() == "../placeholder"
    _plan, outcome = world.run(entry())
    assert (outcome.linked, outcome.failures) == (["shop"], [])
    assert not os.path.exists(certbot_lineage.UNSERVED)


def test_a_certificate_whose_files_are_gone_gives_way_to_the_placeholder(world):
    world.run(entry())
    for folder in ("live/shop", "archive/shop"):
        subprocess.run(["rm", "-r", world.root / "letsencrypt" / folder], check=True)
    world.refusal, world.told = "the CA is out", 0
    _plan, outcome = world.run(entry())
    assert outcome.failures == ["shop: the CA is out"]
    # It is for nginx's next start. What it has in memory is better.
    assert (world.link(), world.told) == ("../placeholder", 0)
    world.refusal = None
    _plan, outcome = world.run(entry())
    assert (outcome.obtained, world.link()) == (["shop"], "../lineages/shop")


def test_links_deleted_by_hand_are_made_again_without_an_order(world):
    world.run(entry())
    for each in Path(lineage.LIVE, "shop").iterdir():
        each.unlink()
    plan, outcome = world.run(entry())
    assert (plan.repairs, world.orders, outcome.failures) == (["shop"], [], [])
    assert Path(layout.certificate_link("shop"), "fullchain.pem").exists()
    assert not world.run(entry())[0].changes(["shop"])


# ---- without a CA


def test_a_self_signed_certificate_is_made_and_served(world):
    _plan, outcome = world.run(entry(issuer="self_signed", orders=[], trusted=False))
    assert (outcome.linked, outcome.failures) == (["shop"], [])
    assert transport() == layout.TRANSPORT_UNTRUSTED
    assert lineage.read_certificate(f"{layout.certificate_link('shop')}/fullchain.pem").domains == frozenset(NAMES)
    plan, _outcome = world.run(entry(issuer="self_signed", orders=[], trusted=False))
    assert not plan.changes(["shop"])


def test_a_certificate_that_is_brought_is_served_and_replaced(world):
    for number in (1, 2):
        own_certificates.self_sign("made", NAMES)
        content = {file: Path(layout.OWN, "made", f"{name}.pem").read_text() for file, name in (("fullchain", "fullchain"), ("key", "privkey"))}
        _plan, outcome = world.run(entry(issuer="own", orders=[]), contents={"shop": content})
        assert (outcome.linked, outcome.failures) == (["shop"], []), number
        assert Path(layout.certificate_link("shop"), "fullchain.pem").read_text() == content["fullchain"]
    assert stat.S_IMODE(os.stat(f"{layout.certificate_link('shop')}/privkey.pem").st_mode) == 0o600


# ---- stapling


@pytest.fixture
def issuer(world, monkeypatch):
    """A CA that this host trusts."""
    found = Issued("Issuer", ca=True)
    monkeypatch.setattr(layout, "TRUSTED_CAS", str(world.root / "cas.pem"))
    Path(layout.TRUSTED_CAS).write_text(found.pem)
    return found


def brought(issuer, **keys):
    """Return the parameters of a run with a certificate that somebody brings."""
    made = Issued("shop", issuer, NAMES, **keys)
    return {"contents": {"shop": {"fullchain": made.pem, "key": made.key_pem}}}


def stapling_files():
    return sorted(path.name for path in Path(layout.certificate_link("shop")).glob("stapling*"))


MINE = entry(issuer="own", orders=[])


def test_what_names_a_responder_is_stapled_to_and_what_replaces_it_is_not(world, issuer):
    with_one, without = brought(issuer, responder="http://ocsp.ca.test"), brought(issuer)
    world.run(MINE, **with_one)
    assert stapling_files() == ["stapling.conf", "stapling.pem"]
    plan, outcome = world.run(MINE, **with_one)
    assert not plan.changes(["shop"]) and not outcome.changed and not any(each.startswith("openssl") for each in world.ran)
    world.run(MINE, **without)
    assert stapling_files() == []
    assert not world.run(MINE, **without)[0].changes(["shop"])


def test_a_host_from_before_there_was_stapling_gets_it_in_one_run(world, issuer):
    mine = brought(issuer, responder="http://ocsp.ca.test")
    world.run(MINE, **mine)
    folder = Path(layout.certificate_link("shop"))
    for name in stapling_files():
        (folder / name).unlink()
    checked = certbot_lineage.Host(parameters(MINE, **mine)).plan()
    assert checked.changes([]) and [each["name"] for each in checked.to_link] == ["shop"] and stapling_files() == []
    world.told = 0
    _plan, outcome = world.run(MINE, **mine)
    assert (outcome.linked, world.told, stapling_files()) == (["shop"], 1, ["stapling.conf", "stapling.pem"])
    assert not world.run(MINE, **mine)[0].changes([])


def test_stapling_that_nginx_refuses_is_taken_back(world, issuer):
    world.run(MINE, **brought(issuer))
    world.reloads = ["[emerg] no"]
    _plan, outcome = world.run(MINE, **brought(issuer, responder="http://ocsp.ca.test"))
    assert len(outcome.failures) == 1 and stapling_files() == []


def test_a_lineage_is_stapled_to_as_a_pair_where_both_have_a_responder(world, issuer):
    pair = a_pair()
    world.make_lineage()
    world.make_lineage("shop-rsa", kind=("rsa:2048",))
    world.run(pair)
    assert stapling_files() == []
    for number, name in enumerate(("shop", "shop-rsa")):
        made = Issued(name, issuer, NAMES, key=rsa.generate_private_key(65537, 2048) if number else None, start=datetime.now(timezone.utc), responder="http://ocsp.ca.test")
        Path(lineage.LIVE, name, "fullchain.pem").write_text(made.pem)
        Path(lineage.LIVE, name, "privkey.pem").write_text(made.key_pem)
        _plan, outcome = world.run(pair)
        assert (stapling_files() == ["stapling.conf", "stapling.pem"]) is bool(number), outcome.failures


# ---- what renewal needs


def test_what_renewal_needs_comes_and_goes(world):
    dns = entry(orders=[order(challenge={"kind": "dns", "plugin": "rfc2136", "has_credentials": True, "propagation": None})])
    world.run(dns, obtain=[], ca_bundle="the bundle\n", credentials="dns_rfc2136_secret = s\n")
    assert Path(layout.ACME_CA_BUNDLE).read_text() == "the bundle\n"
    assert Path(layout.TOOL).read_bytes() == b"#!tool" and os.access(layout.TOOL, os.X_OK)
    credentials = Path(layout.DNS_CREDENTIALS, "shop.ini")
    assert (credentials.read_text(), stat.S_IMODE(credentials.stat().st_mode), stat.S_IMODE(credentials.parent.stat().st_mode)) == ("dns_rfc2136_secret = s\n", 0o600, 0o700)
    world.run(entry(), obtain=[])
    assert not Path(layout.ACME_CA_BUNDLE).exists() and not credentials.exists()


def test_a_secret_is_in_no_diff(world):
    dns = entry(orders=[order(challenge={"kind": "dns", "plugin": "rfc2136", "has_credentials": True, "propagation": None})])
    plan, _outcome = world.run(dns, obtain=[], credentials="hunter2\n")
    assert any(file.secret for file in plan.files)
    assert "hunter2" not in repr([file.diff() for file in plan.files])


def test_other_timers_are_masked_and_ours_enabled(world):
    world.answers["systemctl show"] = commands.Done(0, "Id=certbot.timer\nLoadState=loaded\nUnitFileState=enabled\nActiveState=active", "")
    world.run(entry(), obtain=[])
    assert world.ran.index("systemctl stop --quiet certbot.timer") < world.ran.index("systemctl mask --quiet certbot.timer")
    assert [f"systemctl enable --now --quiet {timer}" in world.ran for timer in units.TIMERS] == [True, True]


def test_a_lineage_that_is_renewed_otherwise_is_set_up_anew(world):
    world.make_lineage()
    conf = Path(lineage.RENEWAL, "shop.conf")
    conf.write_text(conf.read_text().replace("authenticator = webroot", "authenticator = standalone"))
    plan, outcome = world.run(entry())
    assert (plan.unsettled, world.orders, outcome.changed) == (["shop"], [], True)
    assert "authenticator = webroot" in conf.read_text()


def test_what_certbot_cannot_do_is_refused_before_anything_happens(world):
    with pytest.raises(certbot_lineage.CertificateError, match="a profile needs certbot 4.0"):
        certbot_lineage.certbot.version = lambda _program: (2, 1, 0)
        world.run(entry(orders=[order(profile="shortlived")]))
    assert not Path(layout.TOOL).exists()


# ---- what goes


def test_a_certificate_that_goes_from_the_list_is_deleted(world):
    world.run(entry(), entry("blog", ["blog.example.com"]))
    plan, outcome = world.run(entry())
    assert (plan.to_remove, outcome.removed) == (["blog"], ["blog"])
    assert any(each.endswith("delete --non-interactive --cert-name blog") for each in world.ran)
    assert not os.path.lexists(layout.certificate_link("blog"))
    assert list(register.certificates()) == ["shop"]


def test_it_is_revoked_where_that_is_wanted(world):
    world.run(entry())
    world.run(removed="revoked")
    assert any("revoke --non-interactive --cert-name shop" in each and "--key-path" in each for each in world.ran)
    assert any("delete --non-interactive --cert-name shop" in each for each in world.ran)


def test_what_nginx_still_serves_is_kept(world):
    world.run(entry())
    world.served = ["shop"]
    plan, outcome = world.run()
    assert plan.warnings == ["The certificate shop is in no list any more, and nginx still serves it. It is kept until no site has it."]
    assert outcome.removed == [] and os.path.lexists(layout.certificate_link("shop"))
    world.served = []
    assert world.run()[1].removed == ["shop"]


@pytest.mark.parametrize("adopted", [True, False])
def test_what_was_made_by_hand_or_is_to_be_kept_is_kept(world, adopted):
    if adopted:
        world.make_lineage()
    world.run(entry())
    _plan, outcome = world.run(removed="deleted" if adopted else "kept")
    assert outcome.removed == []
    assert not any("certbot" in each for each in world.ran)
    assert register.certificates() == {}


def test_a_certificate_that_cannot_be_revoked_stays_and_is_told(world):
    world.run(entry())
    world.answers[certbot.PACKAGED] = commands.Done(1, "", "An unexpected error occurred:\nthe CA is out\n")
    _plan, outcome = world.run(removed="revoked")
    assert outcome.failures == ["shop: it could not be revoked: the CA is out"]
    assert list(register.certificates()) == ["shop"]


# ---- scopes


def test_scopes_leave_each_others_certificates_alone(world):
    world.run(entry())
    world.run(entry("blog", ["blog.example.com"]), scope="blog")
    assert sorted(register.certificates()) == ["blog", "shop"]
    world.run(scope="blog")
    assert sorted(register.certificates()) == ["shop"]


def test_one_name_belongs_to_one_scope(world):
    world.run(entry())
    with pytest.raises(certbot_lineage.CertificateError, match='entry "shop": the scope "main" has a certificate of that name'):
        world.run(entry(), scope="blog")


def test_a_setting_of_the_host_belongs_to_one_scope(world):
    world.run(entry(), settings={"alarm_command": ["/bin/page"]})
    world.run(entry("blog", ["blog.example.com"]), scope="blog")
    assert register.setting("alarm_command") == ["/bin/page"]
    with pytest.raises(certbot_lineage.CertificateError, match='certbot_alarm_command: the scope "main" has set it'):
        world.run(entry("blog", ["blog.example.com"]), scope="blog", settings={"alarm_command": ["/bin/other"]})


def test_there_is_nothing_secret_in_the_register(world):
    world.run(entry(), eab={"kid": "k", "hmac_key": "hunter2"}, credentials="hunter2")
    assert "hunter2" not in json.dumps(register.load())


# ---- what must not be lost on the way from one state to another


def test_a_renamed_certificate_is_removed_when_its_successor_is_there(world):
    world.run(entry())
    world.refusal = "the CA is out"
    _plan, outcome = world.run(entry("store"))
    assert (outcome.removed, lineage.read("shop").known) == ([], True)
    world.refusal = None
    _plan, outcome = world.run(entry("store"))
    assert (outcome.obtained, outcome.removed) == (["store"], ["shop"])
    assert not world.run(entry("store"))[0].changes(["store"])


def test_a_pair_serves_the_second_certificate_until_its_successor_is_there(world):
    def pair(size):
        return entry(orders=[order(key_type="ecdsa"), order("shop-rsa", key_type="rsa", key_size=size)])

    world.make_lineage("shop-rsa", kind=("rsa:2048",))
    world.make_lineage()
    world.run(pair(2048))
    assert "/rsa/" in transport()
    world.refusal = "the CA is out"
    _plan, outcome = world.run(pair(3072))
    assert outcome.failures == ["shop: the CA is out"]
    assert "/rsa/" in transport()


def test_a_pair_that_becomes_one_leaves_no_lineage_behind(world):
    pair = entry(orders=[order(key_type="ecdsa"), order("shop-rsa", key_type="rsa")])
    world.run(pair)
    assert "/rsa/" in transport()
    world.run(entry(orders=[order(key_type="ecdsa")]))
    assert any("delete --non-interactive --cert-name shop-rsa" in each for each in world.ran)
    assert "/rsa/" not in transport()
    assert register.certificates()["shop"]["stale"] == []


def test_what_nginx_refused_is_put_back_link_by_link(world):
    world.run(entry())
    before = {each: os.readlink(each) for each in Path(layout.LINEAGES).rglob("*.pem")}
    world.reloads = ["[emerg] no"]
    _plan, outcome = world.run(entry(issuer="own", orders=[]), contents={"shop": {"fullchain": "certificate", "key": "key"}})
    assert len(outcome.failures) == 1
    assert {each: os.readlink(each) for each in Path(layout.LINEAGES).rglob("*.pem")} == before
    assert world.link() == "../lineages/shop"


def test_a_certificate_that_nginx_could_not_start_with_gives_way_to_the_placeholder(world):
    world.run(entry())
    (world.root / "letsencrypt/archive/shop/fullchain1.pem").write_text("garbage")
    world.refusal = "the CA is out"
    world.run(entry())
    assert world.link() == "../placeholder"


def test_what_there_is_is_served_until_more_can_be_had(world):
    """It was made by hand for one of the two names."""
    world.make_lineage(domains=NAMES[:1])
    os.symlink("../placeholder", layout.certificate_link("shop"))
    world.refusal = "the CA is out"
    _plan, outcome = world.run(entry())
    assert (outcome.linked, outcome.failures) == (["shop"], ["shop: the CA is out"])


def test_a_strangers_lineage_of_the_same_name_is_left_alone(world):
    world.make_lineage("mail", domains=["mail.example.com"])
    with pytest.raises(certbot_lineage.CertificateError, match='entry "mail": .* already, for mail.example.com. Give the entry another name'):
        world.run(entry("mail", domains=["webmail.example.com"]))


def test_scopes_do_not_take_from_each_other_what_is_the_hosts(world, monkeypatch):
    monkeypatch.setattr(certbot_lineage.Host, "_make_environment", lambda _host: None)
    world.run(entry("a"), scope="one", ca_bundle="ONE", requirements=["certbot==5.8.0"])
    plan, _outcome = world.run(entry("b"), scope="two", ca_bundle="TWO", requirements=["certbot==5.8.0", "certbot-dns-rfc2136"])
    assert Path(layout.ACME_CA_BUNDLE).read_text() == "ONE\nTWO"
    host = certbot_lineage.Host(parameters(entry("c"), scope="three"))
    assert host.requirements == ["certbot-dns-rfc2136", "certbot==5.8.0"]
    assert not any(file.path == layout.ACME_CA_BUNDLE for file in host.plan().files)
    # The newest that one of them names is for all of them, so that they can be brought to it one after the other.
    host = certbot_lineage.Host(parameters(entry("d"), scope="four", requirements=["certbot==5.10.0"]))
    assert host.requirements == ["certbot-dns-rfc2136", "certbot==5.10.0"]


def test_two_scopes_never_have_one_lineage(world):
    world.run(entry(orders=[order(key_type="ecdsa"), order("shop-rsa", key_type="rsa")]), scope="one")
    with pytest.raises(certbot_lineage.CertificateError, match='entry "shop-rsa": the scope "one"'):
        world.run(entry("shop-rsa"), scope="two")


def test_what_one_scope_has_given_up_another_may_take(world):
    world.run(entry(), scope="old")
    world.served = ["shop"]
    world.run(scope="old")
    _plan, outcome = world.run(entry(), scope="new")
    assert (outcome.failures, world.orders) == ([], [])
    assert list(register.load()["scopes"]["new"]["certificates"]) == ["shop"]
    assert not register.load()["scopes"].get("old", {"certificates": {}})["certificates"]


def test_what_a_hand_written_server_block_names_is_kept(world, monkeypatch):
    world.run(entry())
    monkeypatch.setattr(commands, "find", lambda name: name)
    world.answers["nginx -T"] = commands.Done(0, f"ssl_certificate {lineage.LIVE}/shop/fullchain.pem;", "")
    plan, outcome = world.run()
    assert (outcome.removed, len(plan.warnings)) == ([], 1)


def test_an_account_that_the_ca_has_lost_is_not_brought_back(world):
    name = "a" * 32
    os.makedirs(f"{layout.CERTBOT}/lost-accounts/20260101T000000Z-acme.example/{name}")
    plan, _outcome = world.run(entry(), account={"name": name, "server": SERVER})
    assert (plan.account, len(plan.warnings)) == (False, 1)


def test_a_lineage_that_somebody_wants_is_not_removed_with_what_had_it(world):
    world.run(entry("shop-rsa"))
    pair = entry(orders=[order(key_type="ecdsa"), order("shop-rsa")])
    world.run(pair)
    assert not any("delete" in each for each in world.ran)
    world.run(entry("shop-rsa"))
    assert not any("--cert-name shop-rsa" in each for each in world.ran)


def test_what_was_taken_over_is_removed_like_any_other(world):
    world.run(entry(), scope="old")
    world.served = ["shop"]
    world.run(scope="old")
    world.run(entry(), scope="new")
    assert not register.certificates()["shop"]["adopted"]
    world.served = []
    _plan, outcome = world.run(scope="new")
    assert outcome.removed == ["shop"]


def test_what_a_certificate_was_before_stays_while_somebody_else_has_it_served(world, monkeypatch):
    monkeypatch.setattr(commands, "find", lambda name: name)
    world.answers["nginx -T"] = commands.Done(0, f"ssl_certificate {lineage.LIVE}/shop/fullchain.pem;", "")
    world.run(entry())
    brought = {"contents": {"shop": {"fullchain": "certificate", "key": "key"}}}
    world.run(entry(issuer="own", orders=[]), **brought)
    assert not any("delete" in each for each in world.ran)
    assert not world.run(entry(issuer="own", orders=[]), **brought)[0].changes([])


def test_nothing_is_removed_while_nginx_does_not_say_what_it_serves(world, monkeypatch):
    world.run(entry())
    monkeypatch.setattr(commands, "find", lambda name: name)
    world.answers["nginx -T"] = commands.Done(1, "", "[emerg] no")
    _plan, outcome = world.run()
    assert outcome.removed == []


def test_a_hook_that_is_taken_out_is_told(world):
    world.make_lineage()
    conf = Path(lineage.RENEWAL, "shop.conf")
    conf.write_text(conf.read_text().replace("authenticator = webroot", "authenticator = standalone\npost_hook = systemctl reload postfix"))
    plan, _outcome = world.run(entry())
    assert len(plan.warnings) == 1 and "post_hook = systemctl reload postfix" in plan.warnings[0]
