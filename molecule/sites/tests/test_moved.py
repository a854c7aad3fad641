"""What has moved, and where visitors are led."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/a", "/b"),
        ("/A?c=d", "/b?c=d"),
        ("/away", "https://away.example.test/"),
        ("/away?q=1", "https://away.example.test/?q=1"),
        ("/away%20now?q", "https://away.example.test/there?x=y"),
        ("/archive/0.html", "/articles/0"),
        ("/archive/4999.html?q=1", "/articles/4999?q=1"),
        ("/trailing/", "/trailing"),
        ("/trailing//?a=/b/", "/trailing?a=/b/"),
        ("//evil.example.test/x/", "//evil.example.test/x"),
        ("/line%0d%0aX-Broken:%20yes/", "/line%0d%0aX-Broken:%20yes"),
    ],
)
def test_a_path_that_has_moved_leads_on(ask, name, path, leads):
    answer = ask("moved", path)
    site = f"https://moved.{name}.example.test"
    assert (answer.status, answer.headers["Location"]) == (301, leads if leads.startswith("http") else site + leads)
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN" and not answer.headers["X-Broken"]


@pytest.mark.parametrize(("path", "status", "words"), [("/spa/", 200, "www/spa/index.html"), ("/shelf/spa", 200, "www/spa/index.html"), ("/api/", 200, "9001"), ("/api", 301, "")])
def test_no_path_leads_round_and_round(ask, path, status, words):
    answer = ask("moved", path)
    assert answer.status == status and words in answer.text
    if status == 301:
        assert answer.headers["Location"] == "/api/" and ask("moved", "/api/").status == 200


@pytest.mark.parametrize("path", ["/", "/b", "/archive/5000.html", "/?a=/b/"])
def test_what_has_not_is_where_it_was(told, path):
    assert told("moved", path)["path"] == path


def test_what_is_posted_keeps_its_body(visitor, name):
    answer = visitor.post(f"https://moved.{name}.example.test/trailing/", {"a": "b"})
    assert answer.status == 200 and '"read": 3' in answer.text


@pytest.mark.parametrize(("path", "leads"), [("/a", "/a/"), ("/a/b?c=d", "/a/b/?c=d"), ("/a/", None), ("/a.html", None), ("/.well-known/x", None), ("/", None), ("/health", None)])
def test_a_slash_is_added_where_there_is_none(visitor, name, path, leads):
    site = f"http://slashed.{name}.example.test"
    answer = visitor.get(site + path)
    assert (answer.status, answer.headers["Location"]) == ((301, site + leads) if leads else (200, None))


@pytest.mark.parametrize("path", ["/", "/a/b%20c?d=e&f", "//x/../y", "/a%0d%0aX-Broken:%20yes"])
def test_a_site_that_has_moved_leads_to_the_same_path(ask, path):
    answer = ask("gone", path)
    assert (answer.status, answer.headers["Location"], answer.headers["X-Broken"]) == (301, f"https://new.example.test{path}", None)
