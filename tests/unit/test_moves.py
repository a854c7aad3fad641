"""What has moved: what people may write, and what nginx is told."""

from __future__ import annotations

import crossplane
import pytest

from ansible_collections.portico.web.plugins.plugin_utils import moves, named, render
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites, read_files

NAMED = named.normalise({})


def site(**keys):
    return {"name": "shop", "server_names": ["shop.example.com"], **({} if "locations" in keys else {"root": "/srv"}), **keys}


def complete(text=None, **keys):
    found = normalise_sites([site(**keys)], [], named=NAMED)

    def read(path):
        if text is None:
            raise FileNotFoundError(2, "No such file or directory")
        return text

    read_files(found, str, read)
    return found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"redirects": {"old": "/new"}}, 'has "old": "/new", whose path is none. Begin with a slash'),
        ({"redirects": {"/old?a=b": "/new"}}, "leave queries away"),
        ({"redirects": {"/old": "new"}}, "is not a URL that begins with http:// or https:// and a host"),
        ({"redirects": {"/old": "//evil.example.com/"}}, "is not a URL that begins with"),
        ({"redirects": {"/old": "/new page"}}, "leads to a path with a character that no URL has. Percent-encode it."),
        ({"redirects": {"/old": "/new$uri"}}, "leads to a path with a character"),
        ({"redirects": {"/old": "javascript:alert(1)"}}, "is not a URL"),
        ({"redirects": {"/old": "/old"}}, 'key "redirects": "/old" leads back to itself (capitals make no difference). Take it out.'),
        ({"redirects": {"/Contact": "/contact"}}, "leads back to itself"),
        ({"redirects": {"/menu": "/menu#top"}}, "leads back to itself"),
        ({"redirects": {"/list": "/list?page=1"}}, "leads back to itself"),
        ({"redirects": {"/caf%C3%A9": "/caf%C3%A9"}}, "leads back to itself"),
        ({"redirects": {"/a": "https://shop.example.com/a"}}, "leads back to itself"),
        ({"redirects": {"/a": "/b", "/b": "/A", "/c": "/a"}}, '"/a" leads back to itself by way of /b'),
        ({"redirects": {"/a": "/a/"}, "trailing_slash": "remove"}, "leads back to itself"),
        ({"redirects": {"/a/": "/a"}, "trailing_slash": "add"}, "leads back to itself"),
        ({"redirects": {"/x": "/a/", "/a/": "/x"}, "trailing_slash": "remove"}, "leads back to itself by way of"),
        ({"redirects": {"/a": "/b/../a"}}, "leads back to itself"),
        ({"trailing_slash": "add", "locations": [{"path": "/" + "x" * 200, "exact": True, "root": "/srv"}]}, "is not possible with a location whose path is longer than 200 bytes"),
        ({"redirects_file": "moved.txt", "redirects": {"/a": "/b"}, "text": "/b /a\n"}, 'key "redirects_file": "/a" leads back to itself by way of /b'),
        ({"redirects": {"/old": "/a", "/OLD": "/b"}}, "whose path has been said before (capitals make no difference). Keep one."),
        ({"redirects": {"/a/../b": "/c"}}, "whose path nobody asks for"),
        ({"redirects": {"/a%2e%2e": "/c", "/a%0ab": "/d"}}, "has a control character"),
        ({"redirects": {"/.well-known/acme-challenge/x": "/c"}}, "whose path is Portico's own"),
        ({"redirects": {"/" + "x" * 900: "/c"}}, "is longer than 900 bytes"),
        ({"redirects": {1: "/c"}}, "has 1"),
        ({"redirects": ["/a"]}, 'key "redirects"'),
        ({"trailing_slash": "both"}, 'key "trailing_slash": "both" is not one of its choices'),
        ({"redirects_file": "moved.txt"}, 'key "redirects_file": "moved.txt" cannot be read on the controller: No such file or directory.'),
        ({"redirects_file": "moved.txt", "text": "/a /b\n\n# of old\n/c\n"}, 'has in line 4 "/c", which is not a path and where it leads'),
        ({"redirects_file": "moved.txt", "text": "/a /b\n/a /c\n"}, 'has in line 2 "/a /c", whose path has been said before'),
        ({"redirects_file": "moved.txt", "redirects": {"/a": "/b"}, "text": "/A /c\n"}, 'has in line 1 "/A /c", whose path has been said before'),
    ],
)
def test_a_mistake_is_told(keys, message):
    with pytest.raises(PorticoError) as told:
        complete(**keys)
    assert str(told.value).startswith('nginx_sites, entry "shop", key "') and message in str(told.value)


def test_what_is_decoded_once_is_not_decoded_again():
    (found,) = complete(text="/x /y\n", redirects={"/a%253Fb": "/c", "/what%3F": "/why", "/É": "/e", "/é": "/f"}, redirects_file="moved.txt")
    assert found["moved"] == {"/a%3Fb": "/c", "/what?": "/why", "/É": "/e", "/é": "/f", "/x": "/y"}


@pytest.mark.parametrize(("kind", "exempt"), [("remove", ["/api/", "/a(?:\\ |%(?i:20))b/"]), ("add", ["/health"])])
def test_a_location_whose_other_form_is_another_path_stays_what_it_is(kind, exempt):
    backend = "http://127.0.0.1:8000"
    locations = [{"path": "/", "proxy": backend}, {"path": "/api/", "proxy": backend}, {"path": "/health", "exact": True, "answer": {"text": "well"}}]
    (found,) = normalise_sites([{"name": "shop", "server_names": ["shop.example.com"], "locations": locations, "trailing_slash": kind}], [], named=NAMED)
    if kind == "remove":
        found["locations"].append({**found["locations"][1], "path": "/a b/"})
    assert moves.slash("main", found)["exempt"] == exempt


def parsed(text, tmp_path):
    (tmp_path / "read.conf").write_text(text)
    (found,) = crossplane.parse(str(tmp_path / "read.conf"), single=True, check_ctx=False, check_args=False)["config"]
    return found["parsed"]


def test_what_has_moved_is_a_table_of_its_own(tmp_path):
    sites = complete(
        text="/old%20page /new\n/there https://other.example.com/a;b?c=d\n/caf%C3%A9 /cafe#menu\n",
        redirects={"/a": "https://other.example.com"},
        redirects_file="moved.txt",
    )
    files = {**render.scope_files("main", NAMED, sites), **render.site_files(sites, [], render.Host(), {})}
    table = {each["directive"]: each["args"] for each in parsed(files["redirects/main~shop.conf"], tmp_path)}
    assert table == {
        "/a": ["https://other.example.com/$is_args$args"],
        "/café": ["$portico_scheme://$host$portico_port/cafe#menu"],
        "/old page": ["$portico_scheme://$host$portico_port/new$is_args$args"],
        "/there": ["https://other.example.com/a;b?c=d"],
    }
    (found,) = [each for each in parsed(files["scopes/main.conf"], tmp_path) if each["directive"] == "map"]
    assert [(each["directive"], each["args"]) for each in found["block"]] == [("default", [""]), ("include", ["portico/redirects/main~shop.conf"])]
    assert found["args"][1] in files["sites/shop.conf"]


def test_a_site_of_which_nothing_has_moved_says_nothing_of_it():
    sites = complete()
    files = {**render.scope_files("main", NAMED, sites), **render.site_files(sites, [], render.Host(), {})}
    assert list(files) == ["sites/shop.conf"] and "move" not in files["sites/shop.conf"] and "slash" not in files["sites/shop.conf"]
