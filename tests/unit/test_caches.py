"""Caches: what is kept, for whom, and what could never be."""

from __future__ import annotations

import json
from pathlib import Path

import crossplane
import pytest

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.modules import nginx_purge
from ansible_collections.portico.web.plugins.plugin_utils import caches, named, render
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites

BACKEND = "http://127.0.0.1:8000"
PAGES = {"name": "pages", "fresh": 60, "private_cookies": ["sessionid", "wp_*"]}
KNOWN = named.normalise({"caches": [PAGES], "access": [{"name": "staff", "users": [{"name": "anna", "password": "a"}]}]})


def site(**keys):
    return {"name": "shop", "server_names": ["shop.example.com"], **keys}


def normalised(**keys):
    return normalise_sites([site(**keys)], [], named=KNOWN)


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ({"size": "lots"}, 'key "size": "lots" is not a size'),
        ({"size": "1k"}, 'key "size": "1k" is too small to keep anything. Write a megabyte (1m) at the least.'),
        ({"size": "1048575"}, "is too small"),
        ({"fresh": -1}, 'key "fresh": -1 is not possible. Write a number of seconds from 0 to'),
        ({"keep": 0}, 'key "keep": 0 is not possible'),
        ({"keep": 5, "fresh": 10}, 'key "keep": 5 is less than its fresh (10)'),
        ({"private_cookies": ["a b"]}, 'key "private_cookies": "a b" is not the name of a cookie'),
        ({"private_cookies": ["a*b"]}, "is not the name of a cookie"),
        ({"name": "none"}, 'key "name": "none" is what a location says that keeps nothing'),
        ({"stale": "perhaps"}, "is neither true nor false"),
    ],
)
def test_a_mistake_in_a_cache_names_entry_key_value_and_cure(cache, message):
    with pytest.raises(PorticoError) as told:
        caches.normalise_caches([{"name": "pages", **cache}])
    assert str(told.value).startswith("nginx_caches, entry ") and message in str(told.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"proxy": BACKEND, "cache": "pags"}, 'key "cache": "pags" is not a cache of nginx_caches. Did you mean "pages"?'),
        ({"locations": [{"path": "/", "proxy": BACKEND, "cache": "no"}]}, 'key "locations[0].cache": "no" is not a cache'),
        ({"root": "/srv", "cache": "pages"}, 'key "cache": "pages" is for answers of HTTP backends, and this site has none'),
        ({"locations": [{"path": "/", "root": "/srv", "cache": "pages"}]}, 'key "locations[0].cache": "pages" is for answers of HTTP backends, and this is none'),
        ({"locations": [{"path": "/", "proxy": "uwsgi://127.0.0.1:3031", "cache": "pages"}]}, 'key "locations[0].cache": "pages" is for answers of HTTP backends, and this is none'),
        ({"proxy": "fastcgi://127.0.0.1:9000", "cache": "pages"}, 'key "cache": "pages" is for answers of HTTP backends, and this site has none'),
        ({"proxy": BACKEND, "cache": "pages", "access": "staff"}, 'key "cache": "pages" would show what one visitor got to others: the access policy "staff" has users'),
        ({"cache": "pages", "locations": [{"path": "/", "proxy": BACKEND, "access": "staff"}]}, 'key "locations[0].cache": "pages" would show'),
        ({"proxy": BACKEND, "cache": "pages", "unbuffered": ["answers"]}, 'key "cache": "pages" keeps nothing where answers are passed on unbuffered'),
        ({"cache": "pages", "locations": [{"path": "/", "proxy": BACKEND, "unbuffered": ["answers"]}]}, 'key "locations[0].cache": "pages" keeps nothing'),
        ({"template": "own.conf.j2", "cache": "pages"}, 'key "cache": "pages" has no effect where a template of your own writes the site'),
    ],
)
def test_what_could_not_be_kept_or_not_for_everybody_is_refused(keys, message):
    with pytest.raises(PorticoError) as told:
        normalised(**keys)
    assert message in str(told.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"cache": "pages", "locations": [{"path": "/", "proxy": BACKEND}, {"path": "/admin/", "proxy": BACKEND, "access": "staff", "cache": "none"}]},
        {"cache": "pages", "locations": [{"path": "/", "proxy": BACKEND}, {"path": "/events/", "proxy": BACKEND, "unbuffered": ["answers"], "cache": "none"}]},
        {"cache": "pages", "locations": [{"path": "/", "proxy": BACKEND}, {"path": "/static/", "root": "/srv", "access": "staff"}]},
        {"cache": "none", "proxy": BACKEND, "access": "staff"},
        {"cache": "none", "root": "/srv"},
    ],
)
def test_a_location_that_keeps_nothing_may_do_what_it_likes(keys):
    normalised(**keys)


def written(tmp_path, **keys):
    sites = normalised(**keys)
    texts = {**render.scope_files("main", KNOWN, sites), **render.site_files(sites, [], render.Host(), {})}
    blocks = {}
    for path, text in texts.items():
        file = tmp_path / path.replace("/", "-")
        file.write_text(text)
        (parsed,) = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)["config"]
        blocks[path] = parsed["parsed"]
    return blocks


def of(block, name):
    return [each["args"] for each in block if each["directive"] == name]


def test_only_the_caches_that_are_used_are_there_each_once(tmp_path):
    blocks = written(tmp_path, cache="pages", locations=[{"path": "/", "proxy": BACKEND}, {"path": "/rush/", "proxy": BACKEND, "cache": "micro"}, {"path": "/a/", "proxy": BACKEND, "cache": "none"}])
    paths = of(blocks["scopes/main.conf"], "proxy_cache_path")
    assert [path[0] for path in paths] == ["/var/cache/portico~main~micro", "/var/cache/portico~main~pages"]
    (server,) = [each["block"] for each in blocks["sites/shop.conf"] if each["directive"] == "server" and of(each["block"], "proxy_cache")]
    assert of(server, "proxy_cache") == [["cache~main~pages"]]
    assert of(server, "proxy_cache_valid") == [["200", "301", "302", "60s"], ["404", "10s"]]
    inside = {tuple(each["args"]): of(each["block"], "proxy_cache") for each in server if each["directive"] == "location"}
    assert (inside["/",], inside["/rush/",], inside["/a/",]) == ([], [["cache~main~micro"]], [["off"]])


def test_who_is_known_is_told_by_named_cookies_or_by_any(tmp_path):
    maps = {tuple(each["args"]): {line["directive"]: line["args"] for line in each["block"]} for each in written(tmp_path, cache="pages", proxy=BACKEND)["scopes/main.conf"] if each["directive"] == "map"}
    (known,) = [lines for (variable, _into), lines in maps.items() if variable == "$http_cookie"]
    assert known == {"default": [""], "~*sessionid": ["1"], "~*wp[_. [+]": ["1"], "~(^|[;,])[^=;,]*%": ["1"]}
    maps = {tuple(each["args"]): {line["directive"]: line["args"] for line in each["block"]} for each in written(tmp_path, cache="micro", proxy=BACKEND)["scopes/main.conf"] if each["directive"] == "map"}
    (known,) = [lines for (variable, _into), lines in maps.items() if variable == "$http_cookie"]
    assert known == {"default": ["1"], "": [""]}


def test_a_site_without_a_cache_says_nothing_of_it(tmp_path):
    blocks = written(tmp_path, proxy=BACKEND)
    assert "scopes/main.conf" not in blocks or not of(blocks["scopes/main.conf"], "proxy_cache_path")
    assert "cache" not in json.dumps(blocks["sites/shop.conf"])


# ---- taking answers out


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Put an answer into the cache, as nginx lays it down."""
    monkeypatch.setattr(layout, "CACHES", str(tmp_path))

    def answer(name, key):
        path = Path(layout.cache("main", "pages"), name[-1], name[-3:-1], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\5\0\0\0\xff" * 60 + b"\nKEY: " + key.encode() + b"\nHTTP/1.1 200 OK\r\n\r\nbody\nKEY: https://other.example.com/\n")
        return path

    return answer


def test_answers_are_taken_out_by_their_urls(answer):
    def purge(*urls, dry=False):
        return nginx_purge.purge("main", "pages", list(urls) or None, dry)

    news, more, other = (answer(f"{number:032x}", f"https://shop.example.com/{path}") for number, path in enumerate(("news", "news?page=2", "about")))
    writing = answer("f" * 32 + ".0000000001", "https://shop.example.com/news")
    assert purge("https://shop.example.com/news", dry=True) == 1 and news.exists()
    assert purge("https://shop.example.com/news") == 1 and not news.exists() and more.exists()
    assert purge("https://shop.example.com/news*") == 1 and not more.exists() and other.exists()
    assert purge("https://other.example.com/") == 0
    assert purge() == 1 and not other.exists() and writing.exists()
    assert purge() == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cache": "page"}, 'cache: "page" of the scope "main" is not on this host. There are: pages (scope main).'),
        ({"cache": "../pages"}, "cache: '../pages' is not the name of a cache"),
        ({"scope": "a/b"}, "scope: 'a/b' is not the name of a scope"),
        ({"urls": ["/news"]}, "urls: '/news' is not a whole URL. Write one such as"),
    ],
)
def test_what_cannot_be_taken_out_is_told(answer, given, message):
    answer("0" * 32, "https://shop.example.com/news")
    right = {"scope": "main", "cache": "pages", "urls": ["https://shop.example.com/news"]}
    assert nginx_purge.mistake(**right) is None
    assert message in nginx_purge.mistake(**{**right, **given})
