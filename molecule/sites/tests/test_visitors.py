"""Who gets in, and how often."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections import Counter

import pytest

ANNA = "correct horse é"


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def backend(answer):
    return json.loads(answer)["headers"]


# ---- who gets in


@pytest.mark.parametrize("path", ["/", "/answer", "/nobody/", "/text/a.txt"])
def test_an_address_that_is_not_named_gets_nothing_and_the_safe_headers(ask, path):
    answer = ask("guarded", path)
    assert answer.status == 403 and answer.headers["X-Frame-Options"] == "SAMEORIGIN" and answer.headers["Strict-Transport-Security"]
    assert "kept" not in answer.text


@pytest.mark.parametrize(("path", "status", "body"), [("/", 200, '"server": "9001"'), ("/answer", 200, "kept"), ("/nobody/", 403, "This is not open to you"), ("/text/a.txt", 200, "media/a.txt")])
def test_one_that_is_gets_in(inside, path, status, body):
    answered, text = inside("guarded", path)
    assert answered == status and body in text


def test_an_address_that_is_named_stays_outside_and_no_other(ask, inside):
    assert (ask("guarded", "/outside/").status, inside("guarded", "/outside/")[0]) == (200, 403)


def test_an_address_may_be_left_out_of_a_network_that_is_let_in(ask, inside):
    assert inside("guarded", "/not-the-first/")[0] == 403
    assert inside("guarded", "/not-the-first/", "--interface", "127.0.0.9")[0] == 200
    assert ask("guarded", "/not-the-first/").status == 403


@pytest.mark.parametrize(("path", "status"), [("/shut", 403), ("/shut/", 403), ("/shut;/x", 403), ("/shut/x", 403), ("/half/", 403), ("/half/x", 403), ("/half", 301), ("/half;/x", 200)])
def test_a_path_without_a_slash_is_closed_whole(ask, path, status):
    assert ask("pools", path).status == status


def test_an_answer_that_waited_has_its_headers_and_its_type(host, name):
    head = host.check_output("curl --silent --insecure --include https://guarded.%s.example.test/answer", name)
    assert re.search(r"(?i)^x-kept: yes\r?$", head, re.M) and re.search(r"(?i)^content-type: text/html\r?$", head, re.M), head


def test_a_location_may_be_open_in_a_site_that_is_not(told):
    assert told("guarded", "/open/")["server"] == "9001"


def test_a_password_lets_in_and_the_backend_does_not_hear_it(ask):
    asked = ask("guarded", "/staff/")
    assert asked.status == 401 and asked.headers["WWW-Authenticate"] == 'Basic realm="Staff"'
    for user, password in (("anna", ANNA), ("ben", "of ben")):
        answer = ask("guarded", "/staff/", Authorization=basic(user, password))
        assert answer.status == 200 and "authorization" not in backend(answer.text), answer
    for user, password in (("anna", "of ben"), ("ben", ANNA), ("eve", ANNA), ("anna", "")):
        assert ask("guarded", "/staff/", Authorization=basic(user, password)).status == 401


def test_a_redirect_is_not_told_to_who_may_not_know_it(ask):
    assert ask("guarded", "/away/").status == 401
    answer = ask("guarded", "/away/", Authorization=basic("anna", ANNA))
    assert (answer.status, answer.headers["Location"]) == (301, "https://kept.example.test/")


def test_one_of_two_is_enough_where_that_is_said(ask, inside):
    assert ask("guarded", "/either/").status == 401
    assert ask("guarded", "/either/", Authorization=basic("anna", ANNA)).status == 200
    assert inside("guarded", "/either/")[0] == 200


def test_a_server_is_asked_and_the_backend_is_told_what_it_says(ask, name):
    url = f"https://guarded.{name}.example.test/known/a?b=c"
    answer = ask("guarded", "/known/a?b=c", Cookie="signed=in", X_User="eve")
    heard = backend(answer.text)
    assert (answer.status, heard["x-user"], heard["x-asked"]) == (200, "anna", f"GET {url}")
    refused = ask("guarded", "/known/a?b=c")
    assert (refused.status, refused.headers["Location"]) == (302, f"https://login.example.test/?rd={url}")
    assert ask("guarded", "/known/", Cookie="signed=barred").status == 403
    # An error page of somebody's own takes none of this away.
    assert ask("asked", "/a").headers["Location"] == f"https://login.example.test/?rd=https://asked.{name}.example.test/a"


def test_a_regular_expression_does_not_come_before_what_is_asked(inside):
    assert inside("guarded", "/a.kept") == (200, "open")
    assert inside("guarded", "/nobody/a.kept")[0] == 403


@pytest.mark.parametrize("path", ["/open/", "/staff/"])
def test_nobody_says_of_itself_what_only_that_server_says(ask, path):
    answer = ask("guarded", path, X_User="eve", Authorization=basic("anna", ANNA))
    assert answer.status == 200 and "x-user" not in backend(answer.text)


def test_nobody_asks_that_server_itself(inside):
    assert inside("guarded", "/.portico/ask/known")[0] == 404


@pytest.mark.parametrize(
    ("site", "path", "client", "status"),
    [
        ("partners", "/", "client", 200),
        ("partners", "/", None, 403),
        ("partners", "/", "revoked", 400),
        ("partners", "/", "stranger", 400),
        ("partners", "/text/a.txt", None, 403),
        ("partners", "/text/a.txt", "client", 200),
        ("some-partners", "/", None, 200),
        ("some-partners", "/in/a.txt", None, 403),
        ("some-partners", "/in/a.txt", "client", 200),
        # One CA may stand between, and for partners two.
        ("pools", "/near/", None, 403),
        ("pools", "/near/", "client", 200),
        ("pools", "/near/", "second", 200),
        ("pools", "/near/", "third", 400),
    ],
)
def test_a_client_certificate_lets_in(inside, site, path, client, status):
    words = ["--cert", f"/run/backends/{client}.pem", "--key", f"/run/backends/{client}.key"] if client else []
    assert inside(site, path, *words)[0] == status


def test_the_challenge_of_the_ca_is_open_whatever_a_site_asks(visitor, name, host):
    host.check_output("mkdir -p /var/lib/portico/acme/.well-known/acme-challenge && echo token >/var/lib/portico/acme/.well-known/acme-challenge/test")
    for site in ("guarded", "partners", "limited", "asked", "paged", "moved", "kept"):
        answers = [visitor.get(f"http://{site}.{name}.example.test/.well-known/acme-challenge/test") for _number in range(8)]
        assert {(answer.status, answer.text) for answer in answers} == {(200, "token\n")}


# ---- who says who asks


def test_a_trusted_proxy_says_who_asks_and_how(through):
    status, body = through("guarded", "/open/", X_Forwarded_For="6.6.6.6, 192.0.2.77", X_Forwarded_Proto="https", X_Request_ID="from-the-proxy-1")
    heard = backend(body)
    assert status == 200
    assert (heard["x-forwarded-for"], heard["x-real-ip"]) == ("192.0.2.77", "192.0.2.77")
    assert (heard["x-forwarded-proto"], heard["x-request-id"]) == ("https", "from-the-proxy-1")


def test_so_does_a_cdn_that_is_trusted_by_its_name(through):
    """What Fastly has written ends with the address of one of its own servers."""
    heard = [backend(through("guarded", "/open/", X_Forwarded_For=f"6.6.6.6, 192.0.2.77, {last}")[1])["x-real-ip"] for last in ("151.101.0.9", "2a04:4e40::9", "192.0.2.88")]
    assert heard == ["192.0.2.77", "192.0.2.77", "192.0.2.88"]


def test_nobody_else_does(ask, through):
    lies = {"X_Forwarded_For": "127.0.0.1", "X_Forwarded_Proto": "http", "X_Request_ID": "from-a-visitor-1"}
    answer = ask("guarded", "/open/", **lies)
    heard = backend(answer.text)
    assert "127.0.0.1" not in (heard["x-forwarded-for"], heard["x-real-ip"]) and heard["x-forwarded-proto"] == "https"
    assert re.fullmatch("[0-9a-f]{32}", heard["x-request-id"]) and answer.headers.get_all("X-Request-ID") == [heard["x-request-id"]]
    assert ask("guarded", "/", **lies).status == 403
    assert through("guarded", "/", X_Forwarded_For="192.0.2.77")[0] == 403
    assert through("guarded", "/", X_Forwarded_For="127.0.0.9")[0] == 200


def test_what_a_proxy_has_had_over_https_is_not_sent_there_again(host, name):
    url = f"http://main.{name}.example.test/"
    said = "curl --silent --output /dev/null --write-out '%%{http_code} %%{redirect_url}' --header 'X-Forwarded-Proto: https' "
    assert host.check_output(said + "--interface 127.0.0.3 %s", url) == "200 "
    assert host.check_output(said + "%s", url) == f"301 https://main.{name}.example.test/"
    assert host.check_output(said + "--interface 127.0.0.3 %s", f"http://www.main.{name}.example.test/a") == f"301 https://main.{name}.example.test/a"


# ---- secrets


def test_hashes_are_read_by_root_and_nginx_alone(host):
    file = host.file("/etc/nginx/portico/passwords/main/staff")
    assert (file.mode, file.user, file.group) == (0o640, "root", "www-data")
    hashes = re.findall(r":(\S+)", file.content_string)
    assert len(hashes) == 2
    told = host.check_output("journalctl --no-pager --quiet --grep 'Invoked with .*state=published'")
    assert "texts=NOT_LOGGING_PARAMETER" in told and not any(secret in told for secret in (ANNA, *hashes))


def test_no_output_shows_a_password_or_a_hash(play, host, name):
    hashes = re.findall(r":(\S+)", host.file("/etc/nginx/portico/passwords/main/staff").content_string)
    run = play("converge.yml", "--limit", name, "--check", "--diff", "-vvv", "--extra-vars", json.dumps({"password_of_anna": "another horse"}))
    assert run.ok and run.changed[name], run.output
    assert "anna: a hash that is not shown (fingerprint " in run.output
    for secret in (ANNA, "another horse", *hashes, "$7$", "$6$"):
        assert secret not in run.output


# ---- how often


def test_a_login_is_not_guessed_and_the_person_gets_in(visitor, name, inside):
    url = f"https://tried.{name}.example.test/login/"
    began = time.monotonic()
    # All that somebody tries in a minute, in a few seconds.
    guesses = [visitor.post(url, {"password": str(number)}) for number in range(1000 if os.environ.get("PORTICO_LIVES") else 60)]
    statuses = Counter(guess.status for guess in guesses)
    # Ten a minute, and five at once.
    assert set(statuses) == {200, 429} and statuses[200] <= 7 + (time.monotonic() - began) / 6, statuses
    assert {guess.headers["Retry-After"] for guess in guesses if guess.status == 429} == {"6"}
    assert visitor.get(url).status == 200
    assert inside("tried", "/login/", "--data", "password=right")[0] == 200


def test_somebody_who_was_too_quick_may_ask_again_when_it_says(ask):
    answers = []
    deadline = time.monotonic() + 30
    while not any(answer.status == 429 for answer in answers):
        assert time.monotonic() < deadline
        answers.append(ask("limited", "/"))
    assert "That was too often" in answers[-1].text and answers[-1].headers.get_all("Retry-After") == ["3"] and answers[-1].headers["X-Frame-Options"] == "SAMEORIGIN"
    refused = time.monotonic()
    while ask("limited", "/").status == 429:  # who is refused is not counted
        assert time.monotonic() < refused + 5
    assert {ask("limited", "/free/").status for _number in range(20)} == {200}
    # Nor is it counted when somebody else is asked about them.
    assert {ask("limited", "/known/", Cookie="signed=in").status for _number in range(20)} == {200}


def test_all_addresses_of_a_network_of_ipv6_are_one_visitor(through):
    def outside(address):
        return through("tried", "/outside/", X_Forwarded_For=address)[0]

    assert [outside(f"2001:db8:0:7::{number}") for number in range(4)] == [200, 429, 429, 429]
    assert outside("2001:db8:0:8::1") == 200
    assert [outside(f"192.0.2.{number}") for number in range(1, 5)] == [200] * 4


def test_an_address_that_is_excepted_may_ask_as_often_as_it_likes(ask, inside):
    assert Counter(ask("tried", "/outside/").status for _number in range(4))[429] >= 3
    assert [inside("tried", "/outside/")[0] for _number in range(4)] == [200] * 4


def test_a_program_asks_twenty_times_a_second_and_forty_at_once(at_once):
    began = time.monotonic()
    statuses, waits = at_once("tried", "/api/a.txt", 200)
    assert set(statuses) == {200, 429} and 41 <= statuses[200] <= 42 + 20 * (time.monotonic() - began) and waits == {"1"}, statuses


def test_a_page_with_all_its_pictures_meets_no_limit_and_a_flood_does(at_once):
    began = time.monotonic()
    assert at_once("tried", "/page/a.txt", 100) == ({200: 100}, set())
    statuses, waits = at_once("tried", "/page/a.txt", 1500, "--http1.1")
    assert set(statuses) == {200, 429} and 300 <= statuses[200] <= 402 + 100 * (time.monotonic() - began) and waits == {"1"}, statuses


def test_all_visitors_of_a_site_may_be_counted_together(through):
    assert [through("tried", "/together/", X_Forwarded_For=f"192.0.2.{number}")[0] for number in range(1, 4)] == [200, 429, 429]


def test_some_kinds_of_requests_may_be_counted_and_no_others(inside):
    def said(method):
        return inside("tried", "/changes/", "--request", method, "--data", "a=b")[0]

    assert [said(method) for method in ("PUT", "PATCH", "PUT", "POST", "POST", "GET", "GET")] == [200, 429, 429, 200, 200, 200, 200]


def test_a_limit_that_is_tried_refuses_nobody_and_is_told(ask, host):
    assert {ask("tried", "/").status for _number in range(4)} == {200}
    assert host.run("grep --count 'limiting requests, dry run' /var/log/nginx/error.log").stdout.strip() != "0"


def test_connections_are_counted_while_they_are_open(visitor, ask, name):
    with visitor._opener.open(f"https://tried.{name}.example.test/one/events", timeout=10) as stream:
        assert stream.readline() == b"data: first\n"
        refused = ask("tried", "/one/")
        assert refused.status == 429 and refused.headers["Retry-After"]
        assert ask("backends", "/streams/go").status == 200
        stream.read()
    # nginx closes a moment after the last byte.
    deadline = time.monotonic() + 5
    while ask("tried", "/one/").status != 200:
        assert time.monotonic() < deadline


# ---- programs


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ("Mozilla/5.0 (compatible; gptbot/1.2; +https://openai.com/gptbot)", 403),
        ("sqlmap/1.8", 403),
        ("a bad (bot) of somebody's", 403),
        ("a bad bot", 200),
        ("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", 200),
        ("", 200),
    ],
)
def test_programs_that_are_not_wanted_get_nothing(visitor, host, name, agent, status):
    answer = visitor.get(f"https://picky.{name}.example.test/?nikto", User_Agent=agent)
    assert answer.status == status and ("index.html" in answer.text) == (status == 200)
    assert visitor.get(f"https://picky.{name}.example.test/a:nikto", User_Agent=agent).status == (404 if status == 200 else 403)
    host.check_output("mkdir -p /var/lib/portico/acme/.well-known/acme-challenge && echo token >/var/lib/portico/acme/.well-known/acme-challenge/test")
    assert visitor.get(f"http://picky.{name}.example.test/.well-known/acme-challenge/test", User_Agent=agent).text == "token\n"
