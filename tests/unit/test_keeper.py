"""The host's own tool: what it compares, heals and tells."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from issued import Issued
from stand_in import RSA_KEY, StandIn, issue

from ansible_collections.portico.web.plugins.module_utils import commands, files, keeper, layout, lineage, own_certificates, register, serving, stapling, store

DAY = 86400


class Host:
    """A host with certificates and the stand-in for nginx, which reads them when it is told to reload."""

    def __init__(self, root, nginx):
        self.root, self.nginx = root, nginx
        self.entries, self.sites, self.settings = {}, {}, {}
        self.reloads, self.refuses, self.active = 0, None, True

    def add(self, name, server_names=(), issuer="acme", lineages=None, served=True, **certificate):
        """Have a certificate on the host, and have a site served with it."""
        names = list(server_names) or [f"{name}.test"]
        lineages = lineages or [name]
        orders = [{"name": each, "domains": names, "server": "https://ca.test/dir", "challenge": {"kind": "http"}} for each in lineages]
        self.entries[name] = {"domains": names, "issuer": issuer, "lineages": lineages if issuer == "acme" else [], "orders": orders if issuer == "acme" else []}
        source = self.root / ("live" if issuer == "acme" else "own")
        serial = issue(source / name, names, **certificate)
        self.link(name, source / name)
        if len(lineages) > 1:
            issue(source / lineages[1], names, key=RSA_KEY)
            self.link(f"{name}/rsa", source / lineages[1])
        (self.root / "certificates").mkdir(exist_ok=True)
        files.point(str(self.root / "certificates" / name), f"../lineages/{name}")
        if served:
            self.sites[name] = names
        self.publish()
        self.read()
        return serial

    def link(self, name, source):
        (self.root / "lineages" / name).mkdir(parents=True, exist_ok=True)
        for file in ("fullchain.pem", "privkey.pem"):
            files.point(str(self.root / "lineages" / name / file), str(source / file))

    def renewed(self, name, key=None, **certificate):
        entry = self.entries[name.removesuffix("-rsa")]
        return issue(self.root / ("live" if entry["orders"] else "own") / name, entry["domains"], key=key, **certificate)

    def publish(self):
        register.save({"format": 1, "scopes": {"main": {"settings": self.settings, "certificates": self.entries}}})

    def play_was_long_ago(self):
        os.utime(register.path(), (0, 0))

    def read(self):
        folders = {}
        for name, server_names in self.sites.items():
            each = [self.root / "certificates" / name, self.root / "lineages" / name / "rsa"]
            folders.update(dict.fromkeys(server_names, [folder for folder in each if folder.exists()]))
        self.nginx.read(folders)

    def manifest(self, _number):
        scopes = {"main": {"sites": {}, "certificates": self.sites, "files": {}}}
        return {"format": 1, "host": {"owner": None, "settings": {"https_port": self.nginx.port}, "files": {}}, "scopes": scopes}

    def reload(self, holder):
        assert holder
        self.reloads += 1
        if self.refuses is None:
            self.read()
        return self.refuses

    def alarm(self):
        """Have an alarm command that writes down what it is told, and ends as the file beside it says."""
        script = self.root / "alarm"
        script.write_text(
            f"#!{sys.executable}\nimport json, os, pathlib, sys\nroot = pathlib.Path({str(self.root)!r})\n"
            "told = {name: value for name, value in os.environ.items() if name.startswith('PORTICO_')}\n"
            "with open(root / 'told', 'a') as file:\n    file.write(json.dumps({**told, 'stdin': sys.stdin.read(), 'argv': sys.argv[1:]}) + '\\n')\n"
            "sys.exit((root / 'says').read_text() if (root / 'says').exists() else 0)\n"
        )
        script.chmod(0o755)
        self.settings["alarm_command"] = [str(script), "two words"]
        self.publish()

    def told(self):
        path = self.root / "told"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        files.remove(str(path))
        return lines


@pytest.fixture
def host(tmp_path, monkeypatch):
    for name in ("certbot", "own", "certificates", "lineages", "placeholder"):
        monkeypatch.setattr(layout, name.upper(), str(tmp_path / name))
    monkeypatch.setattr(lineage, "LIVE", str(tmp_path / "live"))
    monkeypatch.setattr(lineage, "RENEWAL", str(tmp_path / "renewal"))
    monkeypatch.setattr(keeper, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(keeper, "METRICS", str(tmp_path / "metrics" / "certificates.prom"))
    with StandIn() as nginx:
        host = Host(tmp_path, nginx)
        monkeypatch.setattr(store, "live_number", lambda: 1)
        monkeypatch.setattr(store, "manifest", host.manifest)
        monkeypatch.setattr(serving, "reload", host.reload)
        monkeypatch.setattr(serving, "is_active", lambda: host.active)
        yield host


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = keeper.main(arguments)
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, lines=said.err.splitlines())

    return run


# ---- reconcile


def test_what_is_served_as_it_lies_there_is_left_alone(host, run):
    host.add("shop", ["shop.test", "*.shop.test"])
    host.add("intra", issuer="own")
    done = run("reconcile")
    assert (done.code, done.lines, host.reloads) == (0, [], 0)


def put(host, certificate):
    """Have certbot put a renewed certificate in the place of the shop's."""
    for path, text in (("fullchain.pem", certificate.pem), ("privkey.pem", certificate.key_pem)):
        (host.root / "live/shop" / path).write_text(text)


def test_a_renewed_certificate_is_stapled_to_if_it_names_a_responder_and_else_no_more(host, run, monkeypatch):
    host.add("shop")
    issuer, now = Issued("Issuer", ca=True), datetime.now(timezone.utc)
    monkeypatch.setattr(layout, "TRUSTED_CAS", str(host.root / "cas.pem"))
    (host.root / "cas.pem").write_text(issuer.pem)
    for number, (responder, names) in enumerate([("http://ocsp.ca.test", {"stapling.conf", "stapling.pem"}), (None, set())], 1):
        put(host, Issued("shop", issuer, ["shop.test"], start=now, responder=responder))
        for _time in range(2):
            assert (run("reconcile").code, host.reloads) == (0, number)
            assert {path.name for path in (host.root / "lineages/shop").glob("stapling*")} == names


def test_a_host_from_before_there_was_stapling_reloads_for_it_alone(host, run, monkeypatch):
    host.add("shop")
    issuer = Issued("Issuer", ca=True)
    monkeypatch.setattr(layout, "TRUSTED_CAS", str(host.root / "cas.pem"))
    (host.root / "cas.pem").write_text(issuer.pem)
    put(host, Issued("shop", issuer, ["shop.test"], start=datetime.now(timezone.utc), responder="http://ocsp.ca.test"))
    host.read()
    assert (run("reconcile").code, host.reloads) == (0, 1)
    assert (run("reconcile").code, host.reloads) == (0, 1)


def test_what_nginx_could_not_read_then_it_reads_later(host, run, monkeypatch):
    """Its reload is refused for another reason, and next time nothing is to be written any more."""
    host.add("shop")
    settled = iter([True, False, False])
    monkeypatch.setattr(stapling, "settle", lambda folder: next(settled))
    host.refuses = "nginx refuses its configuration"
    assert (run("reconcile").code, host.reloads) == (1, 1)
    host.refuses = None
    assert (run("reconcile").code, host.reloads) == (0, 2)
    assert (run("reconcile").code, host.reloads) == (0, 2)


def test_stapling_that_cannot_be_written_keeps_no_certificate_from_being_served(host, run, monkeypatch):
    host.add("shop")

    def full(_folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stapling, "settle", full)
    host.renewed("shop")
    done = run("reconcile")
    assert (done.code, done.lines, host.reloads) == (1, ["shop: [Errno 28] No space left on device"], 1)


@pytest.mark.parametrize("name", ["shop", "shop-rsa", "intra"])
def test_a_renewed_certificate_is_served_after_one_reload(host, run, name):
    host.add("shop", lineages=["shop", "shop-rsa"])
    host.add("intra", issuer="self_signed")
    host.renewed(name, RSA_KEY if name == "shop-rsa" else None)
    assert (run("reconcile").code, host.reloads) == (0, 1)
    assert (run("reconcile").code, host.reloads) == (0, 1)


def test_what_a_reload_does_not_heal_is_a_problem(host, run):
    host.add("shop")
    before = host.renewed("shop")
    host.read()
    host.renewed("shop")
    host.refuses = "nginx refuses its configuration: unknown directive"
    done = run("reconcile")
    assert (done.code, host.reloads) == (1, 1)
    assert done.lines == [host.refuses, f"shop: nginx serves another certificate, with the serial number {before} (shop.test)"]


def test_a_name_that_nginx_does_not_have_is_a_problem(host, run, monkeypatch):
    host.add("shop", ["shop.test", "www.shop.test"])
    monkeypatch.setattr(host, "read", lambda: None)
    del host.nginx.contexts["www.shop.test"]
    done = run("reconcile")
    assert (done.code, done.lines) == (1, ["shop: nginx has no such name (www.shop.test)"])


def test_an_nginx_that_does_not_run_is_told_once_for_each_certificate(host, run):
    host.add("shop", ["shop.test", "www.shop.test"])
    host.add("blog", served=False)
    host.nginx.server.shutdown()
    host.nginx.server.server_close()
    host.active = False
    done = run("reconcile")
    assert (done.code, done.lines, host.reloads) == (1, ["shop: nginx does not run"], 0)


def test_a_placeholder_is_a_problem_and_no_reason_to_reload(host, run):
    host.add("shop")
    issue(host.root / "placeholder", ["placeholder.invalid"])
    files.point(str(host.root / "certificates/shop"), "../placeholder")
    host.play_was_long_ago()
    done = run("reconcile")
    assert (done.code, done.lines, host.reloads) == (1, ["shop: it has no certificate, and nginx is told to serve a placeholder. The next run of the play obtains one"], 0)


def test_a_link_that_leads_nowhere_is_a_problem(host, run):
    host.add("shop")
    (host.root / "live/shop/fullchain.pem").unlink()
    done = run("reconcile")
    assert (done.code, host.reloads) == (1, 0)
    assert done.lines == [f"shop: {layout.CERTIFICATES}/shop leads to no certificate that can be read. The next run of the play obtains it again"]


@pytest.mark.parametrize(
    ("certificate", "wrong"),
    [
        ({"days": 90, "age": 67}, None),
        ({"days": 90, "age": 68}, "should have been renewed since"),
        ({"days": 6, "age": 5}, None),
        ({"days": 6, "age": 5.5}, "should have been renewed since"),
        ({"days": 90, "age": 91}, "it expired on"),
        ({"days": 90, "age": -2}, "it is not valid before"),
        ({"days": 365, "age": 330, "issuer": "own"}, None),
        ({"days": 365, "age": 345, "issuer": "own"}, "should have been renewed since"),
    ],
)
@pytest.mark.parametrize("served", [True, False])
def test_a_certificate_that_runs_out_is_a_problem(host, run, certificate, wrong, served):
    host.add("shop", served=served, **certificate)
    done = run("reconcile")
    assert done.code == (1 if wrong else 0)
    assert [wrong in line for line in done.lines] == ([True] if wrong else [])


def test_of_a_pair_each_certificate_is_looked_at(host, run):
    host.add("shop", lineages=["shop", "shop-rsa"])
    (host.root / "lineages/shop/rsa/fullchain.pem").unlink()
    done = run("reconcile")
    assert done.lines == ["shop (RSA): it has no certificate with an RSA key yet"]
    host.renewed("shop-rsa", RSA_KEY, age=85)
    host.link("shop/rsa", host.root / "live/shop-rsa")
    (line,) = run("reconcile").lines
    assert line.startswith("shop (RSA): it expires on ") and host.reloads == 1


def test_a_certificate_of_an_older_generation_is_asked_for_its_own_names(host, run):
    host.add("shop")
    sites = dict(host.sites)
    host.sites = ["shop"]
    before = host.renewed("shop")
    host.reload = None
    report = json.loads(run("status", "--json").out)
    assert report[0]["served"].keys() == set(sites["shop"]) and before not in report[0]["served"].values()


def test_another_keeper_is_waited_for_and_named(host, run, monkeypatch):
    host.add("shop")
    monkeypatch.setattr(keeper, "SECONDS_FOR_ANOTHER_KEEPER", 1)
    with serving.Lock("the other", path=keeper.LOCK):
        done = run("reconcile")
    assert done.code == 1 and "Another run keeps this host's certificates (the other" in done.lines[0]


def test_many_certificates_take_one_process_each(host, run, monkeypatch):
    """A process is what costs: a certificate that is served as it lies there is one, however many names it has."""
    for number in range(10):
        host.add(f"shop{number}", [f"shop{number}.test", f"www.shop{number}.test"])
    ran = []
    monkeypatch.setattr(lineage.read_certificate, "__defaults__", (lambda argv, **_more: ran.append(argv) or commands.run(argv), "openssl"))
    assert run("reconcile").code == 0
    assert len(ran) == 10


# ---- renew


@pytest.fixture
def certbot(host, monkeypatch):
    """A certbot that is there, and what is asked of it and said by it."""
    known = SimpleNamespace(orders=None, wrong=[], does=lambda: None)

    def renew(_self, orders, _now):
        known.orders = [order["name"] for order in orders]
        known.does()
        return known.wrong

    program = host.root / "bin-certbot"
    program.touch()
    host.settings["certbot"] = str(program)
    monkeypatch.setattr(keeper.certbot, "version", lambda _program: (4, 0, 0))
    monkeypatch.setattr(keeper.certbot.Certbot, "renew", renew)
    return known


def test_renewing_lets_certbot_renew_and_nginx_serve(host, run, certbot):
    host.add("shop", lineages=["shop", "shop-rsa"])
    host.add("intra", issuer="own")

    def hook():
        # certbot runs this tool while it is at work.
        host.renewed("shop")
        assert keeper.main(["reconcile"]) == 0

    certbot.does = hook
    assert run("renew").code == 0
    assert (certbot.orders, host.reloads) == (["shop", "shop-rsa"], 1)


def test_strangers_lineages_are_renewed_too_and_nobodys_are_not(host, run, certbot):
    host.add("intra", issuer="own")
    assert run("renew").code == 0 and certbot.orders is None
    (host.root / "renewal").mkdir()
    (host.root / "renewal/theirs.conf").touch()
    assert run("renew").code == 0 and certbot.orders == []


def test_a_certbot_that_is_gone_is_a_problem(host, run, certbot):
    host.add("shop")
    (host.root / "bin-certbot").unlink()
    assert run("renew").lines == [f"certbot renew: there is no {host.root}/bin-certbot"]


def test_a_failed_renewal_is_a_problem_until_somebody_solves_it(host, run, certbot):
    host.add("shop", age=62)
    host.add("blog", age=1)
    certbot.wrong = ["shop: it could not be renewed: no", "certbot renew: it could not be renewed: theirs"]
    assert run("renew").lines == certbot.wrong
    assert run("reconcile").lines == certbot.wrong
    host.renewed("shop")
    assert run("reconcile").lines == certbot.wrong[1:]
    certbot.wrong = []
    assert run("renew").code == 0


def test_what_the_host_signs_itself_is_renewed_by_it(host, run, monkeypatch):
    host.add("lab", issuer="self_signed", days=365, age=350)

    def renew(entries):
        assert entries.keys() == {"lab"}
        host.renewed("lab")
        return []

    monkeypatch.setattr(own_certificates, "renew", renew)
    assert (run("renew").code, host.reloads) == (0, 1)


# ---- status


def test_the_status_shows_and_changes_nothing(host, run):
    old = host.add("shop", ["shop.test", "www.shop.test", "m.shop.test"])
    host.add("blog", served=False)
    assert run("status").code == 0
    new = host.renewed("shop")
    before = sorted(path for path in host.root.rglob("*"))
    done = run("status")
    assert (done.code, host.reloads) == (1, 0)
    assert sorted(path for path in host.root.rglob("*")) == before
    head, blog, shop = done.out.splitlines()
    assert head.split("  ")[0] == "CERTIFICATE"
    assert "Test CA" in shop and "m.shop.test, shop.test and 1 more" in shop and "(88 days)" in shop and old in shop
    assert blog.endswith("not served")
    rows = {row["certificate"]: row for row in json.loads(run("status", "--json").out)}
    assert set(rows["shop"]["served"].values()) == {old} and rows["shop"]["serial"] == new
    assert (rows["shop"]["state"], len(rows["shop"]["problems"]), rows["blog"]["state"]) == ("failed", 1, "not served")
    assert set(rows["shop"]) == {"certificate", "key", "kind", "issuer", "names", "serial", "not_before", "not_after", "days_left", "renewal_due", "served", "state", "problems"}


# ---- metrics


def metrics(host):
    text = (host.root / "metrics/certificates.prom").read_text()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if not line.startswith("#")}


def test_the_metrics_say_what_was_found(host, run):
    serial = host.add("shop", lineages=["shop", "shop-rsa"])
    run("reconcile")
    assert not (host.root / "metrics").exists(), "who has no collector gets no folder"
    (host.root / "metrics").mkdir()
    run("reconcile")
    found = metrics(host)
    certificate = lineage.read_certificate(f"{lineage.LIVE}/shop/fullchain.pem")
    assert found['portico_certificate_not_after_timestamp_seconds{certificate="shop",key="ecdsa"}'] == certificate.not_after
    assert found['portico_certificate_not_before_timestamp_seconds{certificate="shop",key="ecdsa"}'] == certificate.not_before
    assert found['portico_certificate_ok{certificate="shop",key="rsa"}'] == 1
    assert found[f'portico_certificate_served_info{{certificate="shop",key="ecdsa",name="shop.test",serial="{serial}"}}'] == 1
    assert abs(found["portico_certificates_last_run_timestamp_seconds"] - time.time()) < 60
    assert (host.root / "metrics/certificates.prom").stat().st_mode & 0o777 == 0o644


def test_the_last_success_is_kept_while_something_is_wrong(host, run, monkeypatch):
    (host.root / "metrics").mkdir()
    host.add("shop", lineages=["shop", "shop-rsa"])
    run("reconcile")
    well = int(time.time())
    host.renewed("shop-rsa", RSA_KEY)
    host.refuses = "no"
    monkeypatch.setattr(keeper.time, "time", lambda: well + 1000)
    assert run("reconcile").code == 1
    found = metrics(host)
    assert found['portico_certificate_ok{certificate="shop",key="rsa"}'] == 0
    assert found['portico_certificate_ok{certificate="shop",key="ecdsa"}'] == 1
    assert abs(found['portico_certificate_last_success_timestamp_seconds{certificate="shop",key="rsa"}'] - well) < 60
    assert found['portico_certificate_last_success_timestamp_seconds{certificate="shop",key="ecdsa"}'] == well + 1000


def test_labels_are_escaped():
    part = keeper.Part('a"b\\c\nd', "own", "")
    assert 'portico_certificate_ok{certificate="a\\"b\\\\c\\nd"} 1\n' in keeper.metrics([part], [part.id], {}, 0)


# ---- alarm


def test_the_alarm_is_raised_for_what_is_new_once_a_day_and_when_it_is_over(host, run, monkeypatch):
    host.add("shop")
    host.alarm()
    now = time.time()
    monkeypatch.setattr(keeper.time, "time", lambda: now)
    assert run("reconcile").code == 0 and host.told() == []
    host.refuses = "nginx does not reload"
    host.renewed("shop")
    assert run("reconcile").code == 1
    (told,) = host.told()
    assert told["PORTICO_STATE"] == "failed" and told["PORTICO_CERTIFICATES"] == "shop" and told["PORTICO_HOST"]
    assert told["PORTICO_PROBLEMS"].splitlines()[0] == "nginx does not reload" and told["stdin"] == told["PORTICO_PROBLEMS"] + "\n"
    assert told["argv"] == ["two words"]
    assert run("reconcile").code == 1 and host.told() == []
    now += DAY
    run("reconcile")
    assert [each["PORTICO_STATE"] for each in host.told()] == ["failed"]
    host.refuses = "nginx says something else"
    run("reconcile")
    assert [each["PORTICO_PROBLEMS"].splitlines()[0] for each in host.told()] == ["nginx says something else"]
    host.refuses = None
    assert run("reconcile").code == 0
    (over,) = host.told()
    assert over["PORTICO_STATE"] == "resolved" and over["PORTICO_CERTIFICATES"] == "shop" and "something else" in over["stdin"]
    assert run("reconcile").code == 0 and host.told() == []


def test_an_alarm_that_fails_is_told_and_raised_again(host, run):
    host.add("shop", age=100)
    host.alarm()
    (host.root / "says").write_text("no line")
    for _time in range(2):
        done = run("reconcile")
        assert done.code == 1 and done.lines[-1] == f"The alarm command {host.root}/alarm ended with 1: no line"
        assert len(host.told()) == 1
    (host.root / "says").unlink()
    assert len(run("reconcile").lines) == 1 and len(host.told()) == 1
    host.renewed("shop")
    (host.root / "says").write_text("no line")
    assert run("reconcile").code == 1, "nobody knows that it is over"
    (host.root / "says").unlink()
    assert run("reconcile").code == 0 and [each["PORTICO_STATE"] for each in host.told()] == ["resolved"] * 2


def test_nobody_is_called_for_a_certificate_that_a_play_is_just_obtaining(host, run, monkeypatch):
    """Nor does the unit fail, which a timer may start in the middle of any play."""
    host.add("shop")
    issue(host.root / "placeholder", ["placeholder.invalid"])
    files.point(str(host.root / "certificates/shop"), "../placeholder")
    host.alarm()
    now = time.time()
    monkeypatch.setattr(keeper.time, "time", lambda: now)
    meanwhile = run("reconcile")
    assert (meanwhile.code, host.told()) == (0, []) and "shop: it has no certificate" in meanwhile.lines[0], "it is said all the same"
    now += keeper.SECONDS_FOR_A_PLAY
    assert run("reconcile").code == 1 and [each["PORTICO_STATE"] for each in host.told()] == ["failed"]
    os.utime(register.path(), (now, now))
    assert run("reconcile").code == 1 and host.told() == [], "a play that tries again has not solved it"


def test_what_is_wrong_beside_a_certificate_that_is_being_obtained_fails_at_once(host, run):
    host.add("shop")
    host.add("wiki", days=90, age=91)
    issue(host.root / "placeholder", ["placeholder.invalid"])
    files.point(str(host.root / "certificates/shop"), "../placeholder")
    assert run("reconcile").code == 1


def test_a_state_that_cannot_be_read_or_written_stops_no_alarm(host, run, monkeypatch):
    host.add("shop", age=100)
    host.alarm()
    (host.root / "certbot/keeper.json").write_text("{")

    def full(path, *_more):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(keeper.files, "write", full)
    done = run("reconcile")
    assert done.code == 1 and "No space left on device" in done.lines[-1] and len(host.told()) == 1
