"""What is kept of a backend's answers, for whom, and how it is taken out."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture
def path():
    """A path that nobody has asked for yet."""
    return f"/kept/{uuid.uuid4().hex}"


@pytest.fixture
def seen(ask):
    """What became of a request: what the cache says, and the answer."""

    def seen(path, **headers):
        answer = ask("kept", path, **headers)
        return answer.headers["X-Cache"], answer.text

    return seen


@pytest.fixture
def asked(ask):
    """How often the backend was asked for a path."""
    return lambda path: json.loads(ask("main", "/backend/asked").text).get(path, 0)


def test_what_says_nothing_of_it_is_kept_as_long_as_the_cache_says(seen, asked, path):
    assert [seen(path) for _number in range(3)] == [("MISS", "answer 1"), ("HIT", "answer 1"), ("HIT", "answer 1")]
    assert seen(f"{path}?page=2") == ("MISS", "answer 2")
    assert asked(path) == 2


def test_or_not_at_all(seen, path):
    said = f"/said{path}"
    assert [seen(said) for _number in range(2)] == [("MISS", "answer 1"), ("MISS", "answer 2")]
    assert [seen(f"{said}/fresh") for _number in range(2)] == [("MISS", "answer 1"), ("HIT", "answer 1")]


@pytest.mark.parametrize("kind", ["private", "cookie"])
def test_what_is_for_one_visitor_is_not_kept(seen, path, kind):
    assert [seen(f"{path}/{kind}") for _number in range(2)] == [("MISS", "answer 1"), ("MISS", "answer 2")]


@pytest.mark.parametrize("known", [{"Cookie": "sessionid=1"}, {"Cookie": "a=b; sessionid=1"}, {"Cookie": "a=b;sessionid=1"}, {"Cookie": "a=b;\tsessionid=1"}, {"Cookie": "sessionid =1"}, {"Cookie": "%73essionid=1"}, {"Cookie": "SessionID=1"}, {"X-Api-Key": "1"}, {"Authorization": "Bearer 0"}, {"Authorization": "0"}])
def test_who_is_known_gets_an_answer_of_its_own(seen, path, known):
    assert seen(path, **known) == ("BYPASS", "answer 1")
    assert seen(path) == ("MISS", "answer 2")
    assert seen(path, **known) == ("BYPASS", "answer 3")
    assert seen(path, Cookie="theme=dark") == ("HIT", "answer 2")


def test_in_a_cache_that_names_none_any_cookie_tells_who_somebody_is(seen, path):
    rush = f"/rush{path}/fresh"
    assert seen(rush, Cookie="theme=dark") == ("BYPASS", "answer 1")
    assert [seen(rush) for _number in range(2)] == [("MISS", "answer 2"), ("HIT", "answer 2")]


def test_in_a_rush_what_says_nothing_is_kept_for_a_second(seen, asked, path, eventually):
    rush = f"/rush{path}"
    assert seen(rush) == ("MISS", "answer 1")
    # On a busy host the second may be over: then it is what was kept all the same, for once.
    assert seen(rush)[1] == "answer 1"
    eventually(lambda: seen(rush) == ("HIT", "answer 2"))
    # Not more often than every second.
    assert asked(rush) == 2


def test_a_cache_of_a_location_is_what_it_says_and_nothing_of_its_sites(seen, ask, path, eventually):
    said = f"/said{path}/brief"
    assert seen(said) == ("MISS", "answer 1")
    try:
        ask("main", "/backend/down")
        eventually(lambda: ask("kept", said).status == 503)
    finally:
        ask("main", "/backend/up")


def test_a_path_may_be_without(seen, path):
    assert [seen(f"/none{path}") for _number in range(2)] == [(None, "answer 1"), (None, "answer 2")]


def test_what_is_posted_is_led_on_and_changes_nothing_that_is_kept(visitor, name, seen, path, posted):
    assert seen(path) == ("MISS", "answer 1")
    before = posted()
    for _number in range(2):
        assert visitor.post(f"https://kept.{name}.example.test{path}", {"a": "b"}).status == 200
    assert posted() == before + 2
    assert seen(path) == ("HIT", "answer 1")


def test_a_part_of_what_is_kept_comes_out_of_it(ask, seen, path):
    whole = seen(f"{path}/fresh")
    part = ask("kept", f"{path}/fresh", Range="bytes=0-5")
    assert whole == ("MISS", "answer 1") and (part.status, part.text, part.headers["X-Cache"]) == (206, "answer", "HIT")


def test_of_many_who_ask_at_once_one_is_led_on(seen, asked, ask, path, eventually):
    slow = f"{path}/slow"
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(seen, slow) for _number in range(8)]
        eventually(lambda: asked(slow))
        ask("main", "/backend/go")
        bodies = {answer.result()[1] for answer in answers}
    assert bodies == {"answer 1"} and asked(slow) == 1


def test_a_backend_that_is_down_is_not_missed(seen, ask, path, eventually):
    brief = f"{path}/brief"
    assert seen(brief) == ("MISS", "answer 1")
    try:
        ask("main", "/backend/down")
        # Fresh for a second; then it is asked again in vain, behind what visitors get.
        met = set()
        eventually(lambda: met.add(seen(brief)) or ("STALE", "answer 1") in met)
        assert met <= {("HIT", "answer 1"), ("UPDATING", "answer 1"), ("STALE", "answer 1")}
        assert ask("kept", f"{path}/fresh").status == 503
    finally:
        ask("main", "/backend/up")
    eventually(lambda: seen(brief)[1] != "answer 1")


def test_a_cache_grows_no_larger_than_is_said(host, seen, path, eventually):
    """nginx counts every ten seconds. What it takes out is its own affair: a minute after its start it reads the
    folder, and what it has found there last is from then on what somebody asked for last."""
    asked = [f"/small{path}/{number}/large" for number in range(20)]
    assert [seen(each)[0] for each in asked] == ["MISS"] * 20
    folder = "/var/cache/portico~main~small"
    # A file may go while they are counted.
    eventually(lambda: sum(map(int, host.run(f"find '{folder}' -type f -printf '%s\\n'").stdout.split())) <= 1 << 20)
    keys = host.check_output(f"grep -rahe '^KEY: ' '{folder}'").splitlines()
    kept = [each for each in asked if any(key.endswith(each) for key in keys)]
    assert kept
    assert [seen(each)[0] for each in kept] == ["HIT"] * len(kept)
    assert seen(next(each for each in asked if each not in kept))[0] == "MISS"


def test_what_nobody_asks_for_is_kept_no_longer_than_is_said(host, seen, path, eventually):
    passing = f"/passing{path}"
    assert [seen(passing) for _number in range(2)] == [("MISS", "answer 1"), ("HIT", "answer 1")]
    eventually(lambda: host.run(f"grep -raq '{passing}' '/var/cache/portico~main~passing'").rc == 1, seconds=40)
    # What is only no longer fresh would be said to have expired.
    assert seen(passing) == ("MISS", "answer 2")


def purge(play, name, flags=(), **variables):
    run = play("../../playbooks/nginx_purge.yml", "--limit", name, "--extra-vars", json.dumps({"portico_hosts": "web", **variables}), *flags)
    return run, run.changed.get(name)


def test_what_is_taken_out_is_asked_for_anew(seen, play, name, path):
    for at in (path, f"{path}/b", f"{path}?c"):
        seen(at)
    url = f"https://kept.{name}.example.test{path}"
    assert purge(play, name, ["--check"], nginx_cache="pages", nginx_urls=[url])[1] == 1 and seen(path)[0] == "HIT"
    assert purge(play, name, nginx_cache="pages", nginx_urls=[url])[1] == 1
    assert (seen(path)[0], seen(f"{path}/b")[0], seen(f"{path}?c")[0]) == ("MISS", "HIT", "HIT")
    assert purge(play, name, nginx_cache="pages", nginx_urls=[f"{url}*"])[1] == 1
    assert (seen(path)[0], seen(f"{path}/b")[0], seen(f"{path}?c")[0]) == ("MISS", "MISS", "MISS")
    assert purge(play, name, nginx_cache="pages")[1] == 1
    assert purge(play, name, nginx_cache="pages")[1] == 0
    run, _changed = purge(play, name, nginx_cache="pgaes")
    assert not run.ok and "pages (scope main)" in run.output, run.output
