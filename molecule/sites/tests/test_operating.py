"""Pages for errors, sites that are closed for a while, and logs."""

from __future__ import annotations

import json
import re
import uuid

import pytest
from load import Load

FLAG = "/var/lib/portico/maintenance/closing"


# ---- pages


@pytest.mark.parametrize(("path", "status", "words"), [("/nothing", 404, "There is nothing here"), ("/nobody/", 502, "The application is not answering")])
def test_an_error_has_a_page_and_the_safe_headers(ask, path, status, words):
    answer = ask("main", path)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html") and words in answer.text
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN" and answer.headers.get_all("Strict-Transport-Security") == ["max-age=63072000"]
    assert "nginx" not in answer.text


def test_what_was_posted_to_nobody_has_it_too(visitor, name):
    answer = visitor.post(f"https://main.{name}.example.test/nobody/", {"a": "b"})
    assert answer.status == 502 and "The application is not answering" in answer.text
    refused = visitor.post(f"https://main.{name}.example.test/index.html", {"a": "b"})
    assert refused.status == 405 and "That cannot be done here" in refused.text


def test_what_nginx_cannot_find_out_is_no_mistake_of_the_visitors(inside):
    """Nobody answers whether somebody may get in."""
    status, page = inside("guarded", "/unasked/")
    assert status == 500 and "Something is broken here" in page


def test_a_plain_site_has_it_too(visitor, name):
    answer = visitor.get(f"http://plain.{name}.example.test/nothing")
    assert answer.status == 404 and "There is nothing here" in answer.text


@pytest.mark.parametrize("path", ["/.portico/page", "/.portico/page/404"])
def test_nobody_asks_for_such_a_page_itself(ask, path):
    assert ask("paged", path).status == 404


def test_what_an_app_says_itself_is_passed_on(ask):
    for site in ("main", "paged"):
        answer = ask(site, "/backend/missing")
        assert answer.status == 404 and json.loads(answer.text)["server"] == "9001"


def test_a_site_may_have_pages_of_its_own(ask):
    missing, nobody = ask("paged", "/nothing"), ask("paged", "/nobody/")
    assert (missing.status, missing.text, missing.headers["Content-Type"]) == (404, "own/404.html\n", "text/html; charset=utf-8")
    assert (nobody.status, nobody.text, nobody.headers["Content-Type"]) == (502, "own/502.json\n", "application/json; charset=utf-8")


def test_a_page_that_is_not_there_takes_no_status_away(ask):
    answer = ask("paged", "/slow/never")
    assert answer.status == 504 and "The application takes too long" in answer.text


# ---- closed for a while


def test_a_file_closes_a_site_and_opens_it_again(host, ask, visitor, inside, name):
    host.check_output("mkdir -p /var/lib/portico/acme/.well-known/acme-challenge && echo token >/var/lib/portico/acme/.well-known/acme-challenge/test")
    assert ask("closing").status == 200
    try:
        host.check_output(f"touch {FLAG}")
        closed = ask("closing", "/any")
        assert (closed.status, closed.headers.get_all("Retry-After")) == (503, ["120"]) and "Closed for maintenance" in closed.text
        assert closed.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert visitor.post(f"https://closing.{name}.example.test/", {"a": "b"}).status == 503
        assert ask("closing", "/health").status == 200
        unwell = ask("closing", "/health/nobody")
        assert unwell.status == 502 and "The application is not answering" in unwell.text and not unwell.headers["Retry-After"]
        assert inside("closing")[0] == 200
        assert visitor.get(f"http://closing.{name}.example.test/.well-known/acme-challenge/test").text == "token\n"
        assert ask("main").status == 200
    finally:
        host.check_output(f"rm -f {FLAG}")
    opened = ask("closing")
    assert opened.status == 200 and not opened.headers.get_all("Retry-After")


def test_a_list_closes_a_site_and_its_page_says_so(visitor, name):
    closed = visitor.get(f"http://closed.{name}.example.test/")
    assert (closed.status, closed.text, closed.headers["Retry-After"]) == (503, "own/503.html\n", "300")


# ---- logs


def lines(host, path):
    return [json.loads(line) for line in host.file(path).content_string.splitlines()]


def test_a_request_is_a_line_of_json(ask, host):
    answer = ask("paged", '/backend/x?a="b', User_Agent='quoted " agent')
    (line,) = (each for each in lines(host, "/var/log/nginx/paged.json.log") if each["request_id"] == answer.headers["X-Request-ID"])
    assert (line["method"], line["uri"], line["status"], line["agent"]) == ("GET", '/backend/x?a="b', 200, 'quoted " agent')
    assert line["site"] == line["host"] and line["seconds"] >= 0 and float(line["upstream_seconds"]) >= 0 and line["upstream"] == "127.0.0.1:9001"


def test_what_is_not_logged_is_in_no_log(ask, host, eventually):
    told = uuid.uuid4().hex
    assert ask("paged", f"/quiet/{told}-nobody").status == 200
    assert ask("paged", f"/backend/{told}-somebody").status == 200
    # What was asked later is there, so the other would be.
    eventually(lambda: host.run("grep --recursive %s-somebody /var/log/nginx", told).rc == 0)
    assert host.run("grep --recursive %s-nobody /var/log/nginx", told).stdout == ""


@pytest.mark.parametrize(("site", "path", "file"), [("main", "/backend/", "access.log"), ("paged", "/common/", "paged.log")])
def test_a_request_is_a_line_as_other_programs_read_it(ask, host, eventually, site, path, file):
    asked = f"{path}{uuid.uuid4().hex}?a=b"
    answer = ask(site, asked, User_Agent='quoted " agent', Referer="https://before.example.test/")
    eventually(lambda: host.run("grep --fixed-strings %s %s", asked, f"/var/log/nginx/{file}").rc == 0)
    (line,) = host.check_output("grep --fixed-strings --no-filename --recursive %s /var/log/nginx", asked).splitlines()
    address, user, request, status, size, referer, agent = re.fullmatch(r'(\S+) - (\S+) \[[^]]+\] "([^"]*)" (\d+) (\d+) "([^"]*)" "([^"]*)"', line).groups()
    assert address == json.loads(answer.text)["headers"]["x-forwarded-for"] and user == "-"
    assert (request, int(status), int(size)) == (f"GET {asked} HTTP/1.1", 200, len(answer.body))
    assert (referer, agent) == ("https://before.example.test/", "quoted \\x22 agent")
    assert host.check_output("stat --format '%%a %%U %%G' %s", f"/var/log/nginx/{file}") == "640 www-data adm"


def test_no_line_is_lost_when_logs_are_rotated(address, name, host, eventually):
    log = "/var/log/nginx/paged.json.log"

    def logged():
        return set(re.findall(r'"request_id": "(\w+)"', host.check_output(f"cat {log}; zcat --force {log}.*")))

    with Load(address, [f"https://paged.{name}.example.test/backend/"], label=lambda answer: answer.headers["X-Request-ID"]) as load:
        for _turn in range(3):
            host.check_output("logrotate --force /etc/logrotate.d/nginx")
            # Not again before nginx writes to the new one, as between two nights.
            eventually(lambda: host.file(log).size > 0)
            load.wait_for_round()
    assert not load.report.lost, load.report
    assert len(load.report.labels) == load.report.requests > 100
    eventually(lambda: set(load.report.labels) <= logged())


# ---- workers


def test_workers_have_what_the_configuration_gives_them(host, workers):
    """The sandbox, which takes much from them, leaves them that; and the master what the logs of many sites need."""

    def files(process):
        return int(re.search(r"^Max open files +(\d+) ", host.check_output("cat /proc/%s/limits", process), re.MULTILINE).group(1))

    assert len(workers()) == int(host.check_output("getconf _NPROCESSORS_ONLN"))
    assert {files(worker) for worker in workers()} == {16384}
    # 65536, or as much as a container may have.
    assert files(host.file("/run/nginx.pid").content_string.strip()) > 16384


# ---- status


def test_root_asks_how_many_visitors_there_are(host):
    ask = "curl --silent --unix-socket /run/portico-nginx/generation.sock http://nginx/status"
    assert re.match(r"Active connections: \d+ \nserver accepts handled requests\n", host.check_output(ask))
    assert host.run(f"runuser --user nobody -- {ask}").rc != 0
