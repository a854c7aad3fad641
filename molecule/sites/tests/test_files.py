"""Files that nginx serves itself: for how long they are kept, what is closed, and what visitors have brought."""

from __future__ import annotations

import gzip

import pytest

FOR_EVER = "max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("path", "status", "kept"),
    [
        ("/site.9ae1f9c10fb5.css", 200, [FOR_EVER]),
        ("/photo.20260101.txt", 200, []),
        ("/photo-9ae1-426614174a0c.css", 200, []),
        ("/index.html", 200, []),
        ("/assets/page.html", 200, []),
        ("/missing.9ae1f9c10fb5.css", 404, []),
        ("/assets/index-DiwrgTda.js", 200, [FOR_EVER]),
        ("/assets/missing.js", 404, []),
        ("/dated/site.9ae1f9c10fb5.css", 200, ["no-store"]),
        ("/edited/site.9ae1f9c10fb5.css", 200, []),
        ("/once/picture.png", 200, ["no-store"]),
    ],
)
def test_what_has_its_hash_in_its_name_is_kept_for_ever(ask, path, status, kept):
    answer = ask("files", path)
    assert (answer.status, answer.headers.get_all("Cache-Control") or []) == (status, kept)
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN" and answer.headers.get_all("Strict-Transport-Security") == ["max-age=63072000"]


def test_it_is_kept_too_where_it_has_not_changed(ask):
    first = ask("files", "/site.9ae1f9c10fb5.css")
    again = ask("files", "/site.9ae1f9c10fb5.css", If_None_Match=first.headers["ETag"])
    assert (again.status, again.headers["Cache-Control"]) == (304, FOR_EVER)


@pytest.mark.parametrize("path", ["/.env", "/.git/config", "/.git/", "/media/.env", "/%2egit/config", "//.git/config"])
def test_what_begins_with_a_dot_is_not_for_visitors(ask, path):
    answer = ask("files", path)
    assert answer.status == 404 and "git/config" not in answer.text


def test_but_what_is_well_known_is(ask):
    assert ask("files", "/.well-known/security.txt").text == "www/.well-known/security.txt\n"


def test_a_file_that_lies_there_compressed_is_sent_so(host, name):
    url = f"https://files.{name}.example.test/zeros.txt"
    sent = "curl --silent --insecure --output /dev/null --write-out '%%{size_download} %%{content_type}' "
    packed = host.check_output("stat --format %s /srv/files/www/zeros.txt.gz")
    assert host.check_output(sent + "--header 'Accept-Encoding: gzip' %s", url) == f"{packed} text/plain"
    assert host.check_output(sent + "%s", url) == "100000 text/plain"


def test_who_asks_for_a_part_gets_it(ask):
    answer = ask("files", "/index.html", Range="bytes=4-8")
    assert (answer.status, answer.text, answer.headers["Content-Range"]) == (206, "index", "bytes 4-8/15")


@pytest.mark.parametrize("kind", ["css", "js", "json", "svg"])
def test_text_is_compressed_while_it_is_sent(ask, kind):
    """Nothing lies beside these files that is compressed already."""
    answer = ask("files", f"/loose.{kind}", Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip" and "Accept-Encoding" in answer.headers["Vary"]
    assert gzip.decompress(answer.body) == b"\0" * 100_000


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "zip", "woff2"])
def test_what_is_compressed_by_its_kind_is_sent_as_it_is(ask, kind):
    answer = ask("files", f"/loose.{kind}", Accept_Encoding="gzip, br")
    assert (answer.status, answer.headers["Content-Encoding"], len(answer.body)) == (200, None, 100_000)


def test_a_file_stays_open_for_who_asks_next_and_a_new_one_takes_its_place(host, ask, eventually):
    host.check_output("echo first >/srv/files/www/replaced.txt")
    assert ask("files", "/replaced.txt").text == "first\n"
    assert host.check_output("for worker in $(pgrep --full 'nginx: worker process$'); do runuser --user www-data -- find /proc/$worker/fd -lname /srv/files/www/replaced.txt; done")
    host.check_output("echo second >/srv/files/new.txt && mv /srv/files/new.txt /srv/files/www/replaced.txt")
    eventually(lambda: ask("files", "/replaced.txt").text == "second\n")


@pytest.mark.parametrize(("file", "kept"), [("plain.css", "max-age=3600"), ("site.9ae1f9c10fb5.css", FOR_EVER)])
def test_an_apps_files_are_kept_for_an_hour_and_those_with_a_hash_for_ever(ask, file, kept):
    answer = ask("pools", f"/below/static/{file}")
    assert (answer.text, answer.headers.get_all("Cache-Control")) == ("told\n", [kept])


@pytest.mark.parametrize(("path", "sandboxed"), [("/media/page.html", True), ("/media/drawing.svg", True), ("/media/a.txt", True), ("/media/picture.png", False)])
def test_nothing_that_visitors_have_brought_acts_in_the_sites_name(ask, path, sandboxed):
    answer = ask("files", path)
    assert answer.status == 200 and answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert [("sandbox" in policy, "default-src 'none'" in policy) for policy in answer.headers.get_all("Content-Security-Policy") or []] == [(True, True)] * sandboxed


def test_what_is_not_for_everybody_is_kept_by_its_visitor_alone(host, name):
    head = host.check_output("curl --silent --insecure --head https://files.%s.example.test/closed/site.9ae1f9c10fb5.css", name)
    assert "cache-control: private, max-age=31536000, immutable" in head.lower(), head


# ---- brotli


@pytest.mark.parametrize(
    ("takes", "path", "how", "text"),
    [
        ("br", "/spa/", "br", "squeezed\n"),
        ("gzip", "/spa/", None, "www/spa/index.html\n"),
        ("gzip, br", "/site.9ae1f9c10fb5.css", "br", None),
        ("gzip, br", "/backend/", "br", None),
        ("gzip", "/backend/", "gzip", None),
    ],
)
def test_who_takes_brotli_gets_it(ask, takes, path, how, text):
    answer = ask("main", path, Accept_Encoding=takes)
    assert answer.status == 200 and answer.headers["Content-Encoding"] == how, answer
    assert text is None or answer.text == text
