"""The host's own tool: what it compares, heals and tells."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time

import pytest
from stand_ins import TlsServer, make_certificate

from ansible_collections.portico.web.plugins.module_utils import certbot, commands, files, keeper, layout, lineage, own_certificates, register, serving, store

DAY = 86400
NO_MANIFEST = {"format": 1, "host": {"owner": None, "settings": {}, "files": {}}, "scopes": {}}
WORDS_OF_THE_DISK = ", and on the disk is the certificate with the serial "


def order(name):
    return {"name": name, "domains": ["a.example"], "server": "https://acme.example/dir", "challenge": {"kind": "http"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Certificates for a.example, made once: a pair, what replaces its first, and the placeholder."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, kind in (("first", "ecdsa"), ("second", "ecdsa"), ("rsa", "rsa"), ("other-rsa", "rsa")):
        make_certificate(folder / name, kind=kind)
    make_certificate(folder / "short", days=6)
    make_certificate(folder / "placeholder", ("placeholder.invalid",), days=3650)
    return folder


class Host:
    """A host below a temporary folder, with certbot, systemd and nginx replaced; its TLS is real."""

    def __init__(self, root, made, server, monkeypatch):
        self.root, self.made, self.server = root, made, server
        self.active, self.test = True, commands.Done(0, "", "")
        self.ran: list[str] = []
        self.alarms: list[tuple[str, str, str, str]] = []
        self.alarm_ends = 0
        self.entries: dict[str, dict] = {}
        self.served: dict[str, list[str]] | list[str] = {}
        self.sites: dict[str, list[str]] = {}
        self.settings: dict[str, object] = {"metrics": str(root / "metrics/portico.prom"), "alarm_command": ["/bin/page", "ops"], "certbot": str(root / "bin-certbot")}
        run = commands.run

        def stand_in(argv, environment=None, seconds=120, text=None):
            if argv[0] == "openssl":
                return run(argv, environment, seconds, text)
            self.ran.append(" ".join(argv))
            if argv[0] == "/bin/page":
                self.alarms.append((environment["PORTICO_STATE"], environment["PORTICO_CERTIFICATES"], environment["PORTICO_PROBLEMS"], text))
                return commands.Done(self.alarm_ends, "", "no such pager\n" if self.alarm_ends else "")
            if argv[0] == "nginx":
                return self.test
            if argv[:2] == ["systemctl", "is-active"]:
                return commands.Done(0 if self.active else 3, "", "")
            if argv[:2] == ["systemctl", "reload"]:
                server.reload()
            return commands.Done(0, "host.example\n" if argv[0] == "hostname" else "", "")

        monkeypatch.setattr(commands, "run", stand_in)

    @property
    def reloads(self):
        return self.ran.count("systemctl reload nginx.service")

    def have(self, name="shop", folder="first", names=("a.example",), second=None, issuer="acme", domains=None):
        """Have a certificate on the disk, in the register and in nginx; with a second one it is a pair."""
        place = self.root / "lineages" / name
        pairs = [(place, folder), (place / "rsa", second)]
        for path, source in pairs:
            if source:
                self.put(path, source)
        transport = layout.SECOND_CERTIFICATE.format(folder=place / "rsa") if second else ""
        (place / "transport.conf").write_text(layout.TRANSPORT_TRUSTED + transport)
        self.link(name, f"../lineages/{name}")
        orders = [order(name), *([order(f"{name}-rsa")] if second else [])] if issuer == "acme" else []
        self.entries[name] = {"domains": list(domains or names), "issuer": issuer, "trusted": True, "adopted": False, "orders": orders}
        if isinstance(self.served, dict):
            self.served[name] = list(names)
        for each in names:
            self.server.serves[each] = tuple(path for path, source in pairs if source)
        self.write()
        self.server.reload()

    def put(self, path, folder):
        shutil.copytree(self.made / folder, path, dirs_exist_ok=True)

    def link(self, name, target):
        files.point(layout.certificate_link(name), target, str(self.root / "link"))

    def write(self):
        register.save({"format": 1, "scopes": {"main": {"settings": self.settings, "certificates": self.entries}}})
        part = {"sites": self.sites, "certificates": self.served, "files": {}}
        self.manifest = {**NO_MANIFEST, "host": {"owner": "main", "settings": {"https_port": self.server.port}, "files": {}}, "scopes": {"main": part}}

    def serial(self, folder="first"):
        return lineage.read_certificate(f"{self.made}/{folder}/fullchain.pem").serial

    def metrics(self):
        return (self.root / "metrics/portico.prom").read_text()


@pytest.fixture
def host(tmp_path, made, monkeypatch):
    for name in ("CERTIFICATES", "LINEAGES", "PLACEHOLDER", "CERTBOT", "OWN"):
        monkeypatch.setattr(layout, name, str(tmp_path / name.lower()))
    for name in ("LIVE", "RENEWAL", "ACCOUNTS"):
        monkeypatch.setattr(lineage, name, str(tmp_path / "letsencrypt" / name.lower()))
    monkeypatch.setattr(keeper, "LOCK", str(tmp_path / "keeper.lock"))
    monkeypatch.setattr(serving, "LOCK", str(tmp_path / "nginx.lock"))
    monkeypatch.setattr(serving, "ERROR_LOG", str(tmp_path / "error.log"))
    monkeypatch.setattr(serving, "SECONDS_FOR_NAMES", 0)
    monkeypatch.setattr(serving, "accepting_workers", set)
    for folder in ("certificates", "lineages", "certbot", "metrics"):
        (tmp_path / folder).mkdir()
    shutil.copytree(made / "placeholder", tmp_path / "placeholder")
    with TlsServer() as server:
        host = Host(tmp_path, made, server, monkeypatch)
        monkeypatch.setattr(store, "manifest", lambda _number: host.manifest)
        host.write()
        yield host


def later(monkeypatch, seconds):
    """Let time pass for the keeper."""
    now = time.time() + seconds
    monkeypatch.setattr(keeper.time, "time", lambda: now)


# ---- comparing, and healing


def test_what_is_served_as_it_lies_on_the_disk_is_left_alone(host, capsys):
    host.have()
    assert keeper.reconcile() == []
    assert (host.reloads, host.alarms, capsys.readouterr().out) == (0, [], "")


def test_a_host_without_certificates_is_well(host):
    assert keeper.reconcile() == []
    assert host.ran == []


def test_what_differs_is_healed_by_one_reload(host, capsys):
    host.have()
    host.have("blog", "rsa", names=["b.example", "c.example"])
    host.put(host.root / "lineages/shop", "second")
    host.put(host.root / "lineages/blog", "other-rsa")
    assert keeper.reconcile() == []
    assert host.reloads == 1
    assert capsys.readouterr().out == "nginx was reloaded, and serves what is on the disk for blog, shop\n"
    assert f'served_info{{certificate="shop",name="a.example",serial="{host.serial("second")}"}} 1' in host.metrics()


def test_each_of_a_pair_is_compared(host):
    host.have(second="rsa")
    assert keeper.reconcile() == []
    host.put(host.root / "lineages/shop/rsa", "other-rsa")
    report = keeper.look(time.time())
    assert report.lines == [f"shop (rsa): a.example: nginx serves the certificate with the serial {host.serial('rsa')}{WORDS_OF_THE_DISK}{host.serial('other-rsa')}"]
    assert keeper.reconcile() == []
    assert host.reloads == 1


def test_a_pair_whose_second_is_not_served_yet_is_no_pair(host):
    host.have()
    host.entries["shop"]["orders"].append(order("shop-rsa"))
    host.write()
    assert keeper.reconcile() == ["shop: its second certificate, shop-rsa, is not served yet"]


def test_below_a_wildcard_a_name_is_asked_for(host):
    host.have(names=["*.a.example"])
    assert keeper.reconcile() == []
    assert host.server.asked == ["portico-asks.a.example"]


def test_what_cannot_be_healed_is_told_in_nginxs_words(host):
    host.have()
    host.put(host.root / "lineages/shop", "second")
    host.test = commands.Done(1, "", 'nginx: [emerg] unknown directive "banana" in /etc/nginx/x.conf:1\n')
    assert keeper.reconcile() == [
        'nginx could not be reloaded: nginx refuses its configuration: unknown directive "banana" in /etc/nginx/x.conf:1',
        f"shop: a.example: nginx serves the certificate with the serial {host.serial()}{WORDS_OF_THE_DISK}{host.serial('second')}",
    ]


def test_a_name_that_nginx_does_not_know_is_told(host):
    host.have()
    host.server.serves.clear()
    host.server.reload()
    problems = keeper.reconcile()
    assert problems[1] == f"shop: a.example: nginx does not know the name{WORDS_OF_THE_DISK}{host.serial()}"


def test_a_server_that_does_not_answer_is_told(host):
    host.have()
    host.manifest["host"]["settings"]["https_port"] = 1
    assert keeper.reconcile()[1].startswith("shop: a.example: there is no answer on port 1: Connection refused, and on the disk is")


def test_an_nginx_that_does_not_run_is_told_once_and_not_reloaded(host):
    host.have()
    host.have("blog", names=["b.example"])
    host.active = False
    assert keeper.reconcile() == ["nginx does not run, and serves nothing"]
    assert host.alarms[0][1] == "blog shop"
    assert 'portico_certificate_ok{certificate="shop"} 0' in host.metrics()
    assert host.reloads == 0


def test_a_certificate_that_no_site_has_needs_no_nginx(host):
    host.have(names=[], domains=["a.example"])
    host.active = False
    assert keeper.reconcile() == []


@pytest.mark.parametrize(
    ("folder", "issuer", "days", "words"),
    [
        ("first", "acme", 50, None),
        ("first", "acme", 66, None),
        ("first", "acme", 68, "its renewal is overdue since "),
        ("first", "acme", 91, "it expired on "),
        ("first", "acme", -1, "it is not valid before "),
        ("first", "self_signed", 68, "its renewal is overdue since "),
        ("first", "own", 70, None),
        ("first", "own", 77, "it expires on "),
        ("first", "own", 91, "it expired on "),
        ("short", "acme", 3.5, None),
        ("short", "acme", 4, "its renewal is overdue since "),
    ],
)
def test_how_old_a_certificate_may_be(host, monkeypatch, folder, issuer, days, words):
    host.have(folder=folder, issuer=issuer)
    later(monkeypatch, days * DAY)
    problems = keeper.look(keeper.time.time()).lines
    assert [problem.startswith(f"shop: {words}") for problem in problems] == ([True] if words else [])


def test_the_words_of_a_problem_stay_the_same_while_it_lasts(host):
    host.have()
    now = time.time() + 70 * DAY
    assert keeper.look(now).lines == keeper.look(now + DAY).lines != []


def test_a_placeholder_is_a_problem_and_is_exported_as_none(host):
    host.have()
    host.link("shop", "../placeholder")
    host.server.serves["a.example"] = (host.root / "placeholder",)
    host.server.reload()
    assert keeper.reconcile() == ["shop: it has no certificate yet, and the placeholder is served"]
    assert 'portico_certificate_placeholder{certificate="shop"} 1' in host.metrics()
    assert f'name="a.example",serial="{host.serial("placeholder")}"' in host.metrics()
    assert "not_after_timestamp_seconds{" not in host.metrics()


def test_a_link_to_nowhere_is_told(host):
    host.have()
    shutil.rmtree(host.root / "lineages/shop")
    assert keeper.reconcile() == [f"shop: its files cannot be read ({host.root}/certificates/shop/fullchain.pem)"]


def test_a_certificate_that_was_never_had_is_told(host):
    host.have()
    os.remove(host.root / "certificates/shop")
    assert keeper.reconcile() == ["shop: there is no certificate yet"]


def test_an_older_manifest_serves_what_the_certificates_are_for():
    entries = {"shop": {"domains": ["a.example", "shared.example", "unpublished.example"]}, "blog": {"domains": ["b.example", "shared.example"]}}
    sites = {"one": ["a.example", "shared.example"], "two": ["b.example"]}
    older = {"sites": sites, "certificates": ["shop", "blog", "stranger"], "files": {}}
    newer = {"sites": {}, "certificates": {"blog": ["c.example"], "stranger": ["d.example"]}, "files": {}}
    found = keeper.served_names({**NO_MANIFEST, "scopes": {"a": older, "b": newer}}, entries)
    assert found == {"shop": ["a.example"], "blog": ["b.example", "c.example"], "stranger": ["d.example"]}


# ---- renewing


def test_a_renewal_gives_certbot_its_orders_and_serves_what_came_of_it(host, monkeypatch):
    host.have(second="rsa")
    (host.root / "bin-certbot").touch()
    asked = []

    def renewed(self, orders, now):
        asked.extend([self.program, *(each["name"] for each in orders)])
        host.put(host.root / "lineages/shop", "second")
        # certbot's deploy hook is another keeper: it must not be kept out.
        assert keeper.reconcile() == []
        return []

    monkeypatch.setattr(certbot.Certbot, "renew", renewed)
    assert keeper.renew() == []
    assert asked == [host.settings["certbot"], "shop", "shop-rsa"]
    assert host.reloads == 1


def test_what_the_host_signs_itself_is_signed_anew_and_served(host, monkeypatch):
    host.have(issuer="self_signed")
    monkeypatch.setattr(own_certificates, "renew", lambda entries: host.put(host.root / "lineages/shop", "second") or [f"{name}: words" for name in entries])
    assert keeper.renew() == ["shop: words"]
    assert host.reloads == 1


def test_a_certbot_that_is_gone_is_told_where_it_is_needed(host):
    host.have(issuer="own")
    assert keeper.renew() == []
    host.have()
    assert keeper.renew() == [f"certbot is gone ({host.settings['certbot']}), and nothing is renewed"]


def test_a_failed_renewal_lasts_until_it_is_renewed(host, monkeypatch):
    host.have()
    (host.root / "bin-certbot").touch()
    host.put(host.root / "letsencrypt/live/shop", "first")
    monkeypatch.setattr(certbot.Certbot, "renew", lambda *_args: ["shop: it could not be renewed:\n the CA is down"])
    later(monkeypatch, 62 * DAY)
    assert keeper.renew() == ["shop: it could not be renewed: the CA is down"]
    # It is not what this run finds, and still no reason to say that all is well again.
    assert keeper.reconcile() == []
    assert [alarm[:3] for alarm in host.alarms] == [("failed", "shop", "shop: it could not be renewed: the CA is down")]
    make_certificate(host.root / "letsencrypt/live/shop", days=160)
    assert keeper.reconcile() == []
    assert host.alarms[-1][0] == "resolved"


def test_two_keepers_take_turns(host, monkeypatch):
    host.have()
    monkeypatch.setattr(keeper, "SECONDS_FOR_ANOTHER_KEEPER", 1)
    with serving.Lock("ann", path=keeper.LOCK):
        with pytest.raises(serving.BusyError, match=r"Another run keeps this host's certificates \(ann, since"):
            keeper.reconcile()
        assert keeper.renew()[-1].startswith("Another run keeps this host's certificates (ann, since ")


# ---- the alarm


def test_an_alarm_is_raised_for_news_once_a_day_and_at_the_end(host, monkeypatch):
    host.have()
    host.have("blog", names=["b.example"])
    assert keeper.reconcile() == [] == host.alarms

    os.remove(host.root / "certificates/shop")
    keeper.reconcile()
    keeper.reconcile()
    text = "shop: there is no certificate yet"
    assert host.alarms == [("failed", "shop", text, f"{text}\n")]

    os.remove(host.root / "certificates/blog")
    keeper.reconcile()
    both = f"blog: there is no certificate yet\n{text}"
    assert host.alarms[1:] == [("failed", "blog shop", both, f"{both}\n")]

    later(monkeypatch, DAY + 1)
    keeper.reconcile()
    keeper.reconcile()
    assert len(host.alarms) == 3

    for name in ("shop", "blog"):
        host.link(name, f"../lineages/{name}")
    keeper.reconcile()
    keeper.reconcile()
    assert host.alarms[3:] == [("resolved", "blog shop", both, f"{both}\n")]


def test_an_alarm_that_nobody_heard_is_told_and_raised_again(host):
    host.have()
    os.remove(host.root / "certificates/shop")
    host.alarm_ends = 1
    told = ["shop: there is no certificate yet", "the alarm command /bin/page ended with 1: no such pager"]
    assert keeper.reconcile() == told
    assert keeper.reconcile() == told
    host.alarm_ends = 0
    assert keeper.reconcile() == told[:1]
    assert keeper.reconcile() == told[:1]
    assert len(host.alarms) == 3


@pytest.mark.parametrize(("ends", "words"), [(124, "had not ended after 60 seconds"), (127, "ended with 127")])
def test_how_an_alarm_command_fails(host, ends, words):
    host.have()
    os.remove(host.root / "certificates/shop")
    host.alarm_ends = ends
    assert keeper.reconcile()[1].startswith(f"the alarm command /bin/page {words}")


def test_an_alarm_command_that_is_no_program_is_told(host, monkeypatch):
    monkeypatch.undo()
    assert keeper._run_alarm(["/"], "failed", {"problems": ["x"], "certificates": []}).startswith("the alarm command / cannot be run: ")


def test_without_an_alarm_command_nothing_is_remembered_of_it(host):
    del host.settings["alarm_command"]
    host.have()
    os.remove(host.root / "certificates/shop")
    assert keeper.reconcile() == ["shop: there is no certificate yet"]
    assert host.alarms == []
    host.settings["alarm_command"] = ["/bin/page"]
    host.write()
    keeper.reconcile()
    assert len(host.alarms) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 9}'])
def test_a_damaged_memory_is_begun_anew(host, text):
    host.have()
    (host.root / "certbot/keeper.json").write_text(text)
    assert keeper.reconcile() == []
    assert json.loads((host.root / "certbot/keeper.json").read_text())["succeeded"].keys() == {"shop"}


# ---- the metrics

SAMPLE = """\
# HELP portico_certificate_ok Whether the certificate is served as it lies on the disk, and was renewed in time.
# TYPE portico_certificate_ok gauge
portico_certificate_ok{certificate="shop"} 1
"""


def test_the_metrics_are_what_prometheus_reads(host, monkeypatch):
    host.have()
    now = int(time.time())
    later(monkeypatch, 0)
    keeper.reconcile()
    text = host.metrics()
    certificate = lineage.read_certificate(f"{host.made}/first/fullchain.pem")
    assert SAMPLE in text
    assert f'portico_certificate_not_after_timestamp_seconds{{certificate="shop"}} {certificate.not_after}\n' in text
    assert f'portico_certificate_not_before_timestamp_seconds{{certificate="shop"}} {certificate.not_before}\n' in text
    for name in ('certificate_last_success_timestamp_seconds{certificate="shop"}', "certificates_last_run_timestamp_seconds"):
        assert any(f"portico_{name} {now + late}\n" in text for late in (0, 1))
    assert stat.S_IMODE((host.root / "metrics/portico.prom").stat().st_mode) == 0o644


def test_a_success_stays_the_last_one(host, monkeypatch):
    host.have()
    keeper.reconcile()
    first = [line for line in host.metrics().splitlines() if "last_success" in line]
    later(monkeypatch, 100 * DAY)
    keeper.reconcile()
    assert [line for line in host.metrics().splitlines() if "last_success" in line] == first
    host.entries.clear()
    host.write()
    keeper.reconcile()
    assert "shop" not in host.metrics()


def test_a_label_can_hold_anything():
    assert keeper._labels({"certificate": 'a"b\\c\nd', "key": "rsa"}) == '{certificate="a\\"b\\\\c\\nd",key="rsa"}'
    assert keeper._labels({}) == ""


def test_where_no_exporter_looks_nothing_is_written(host):
    os.rmdir(host.root / "metrics")
    host.have()
    assert keeper.reconcile() == []
    assert not (host.root / "metrics").exists()


def test_metrics_that_cannot_be_written_are_told(host):
    (host.root / "metrics/portico.prom").mkdir()
    host.have()
    assert keeper.reconcile()[0].startswith(f"the metrics cannot be written to {host.root}/metrics/portico.prom: ")


# ---- the command


@pytest.fixture
def root(monkeypatch):
    monkeypatch.setattr(keeper.os, "geteuid", lambda: 0)


def test_the_exit_code_and_a_line_for_each_problem(host, root, capsys):
    host.have()
    assert keeper.main(["reconcile"]) == 0
    os.remove(host.root / "certificates/shop")
    assert keeper.main(["reconcile"]) == 1
    assert capsys.readouterr().err == "shop: there is no certificate yet\n"


def test_a_status_is_a_table_and_changes_nothing(host, root, capsys):
    host.have(second="rsa")
    host.have("blog", names=["b.example"], issuer="self_signed")
    host.have("wiki", names=[], domains=["c.example", "d.example", "e.example"], issuer="own")
    before = sorted(map(str, host.root.rglob("*")))
    assert keeper.main(["status"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == ["CERTIFICATE", "ISSUER", "NAMES", "NOT AFTER", "RENEWAL DUE", "SERVED SERIAL", "STATE"]
    assert [[row[0], row[1], row[2], row[-2], row[-1]] for row in cells[1:]] == [
        ["blog", "self-signed", "b.example", host.serial(), "served"],
        ["shop (ecdsa)", "test", "a.example", host.serial(), "served"],
        ["shop (rsa)", "test", "a.example", host.serial("rsa"), "served"],
        ["wiki", "test", "c.example, d.example and 1 more", "-", "not used"],
    ]
    assert cells[1][3].endswith("UTC (89 d)")
    host.put(host.root / "lineages/blog", "second")
    assert keeper.main(["status"]) == 1
    assert "wrong" in capsys.readouterr().out
    assert host.reloads == 0
    assert sorted(map(str, host.root.rglob("*"))) == before


def test_a_status_for_programs(host, root, capsys):
    host.have()
    host.link("shop", "../placeholder")
    assert keeper.main(["status", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    problem = "it has no certificate yet, and the placeholder is served"
    assert said["problems"][0] == f"shop: {problem}"
    described = said["certificates"][0]
    assert (described["certificate"], described["placeholder"], described["ok"], described["problems"][0]) == ("shop", True, False, problem)
    assert described["served"] == {"a.example": host.serial()}


def test_a_host_without_certificates_says_so(host, root, capsys):
    assert keeper.main(["status"]) == 0
    assert capsys.readouterr().out == "This host has no certificates.\n"


def test_only_root_is_answered(monkeypatch, capsys):
    monkeypatch.setattr(keeper.os, "geteuid", lambda: 1000)
    assert keeper.main(["status"]) == 2
    assert capsys.readouterr().err == "Only root can read the certificates. Use sudo.\n"


def test_a_damaged_register_is_told_and_not_a_traceback(host, root, capsys):
    (host.root / "certbot/manifest.json").write_text("{")
    assert keeper.main(["reconcile"]) == 1
    assert capsys.readouterr().err.startswith(f"Nothing can be said of the certificates, for {host.root}/certbot/manifest.json or nginx's manifest is damaged: ")


def test_each_name_is_asked_for_once_however_many_there_are(host):
    names = [[f"s{number}.example", f"www.s{number}.example"] for number in range(20)]
    for number, each in enumerate(names):
        host.have(f"site{number}", names=each)
    assert keeper.reconcile() == []
    assert sorted(host.server.asked) == sorted(name for each in names for name in each)
    assert host.ran == ["systemctl is-active --quiet nginx.service"]
