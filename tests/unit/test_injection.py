"""No value is more than a value: hostile ones are refused by name, or come back to the byte, and add nothing.

PORTICO_HOSTILE_VALUES says how many are tried; `make test-all` says 10000.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
from collections import Counter
from urllib.parse import unquote

import crossplane
import hostile
import pytest

from ansible_collections.portico.web.plugins.plugin_utils import entries, named, render
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import check_settings, normalise_sites

COUNT = int(os.environ.get("PORTICO_HOSTILE_VALUES", "2000"))
SEED = 20261123
APPS = [{"name": "shop", "static": {"/static/": "staticfiles"}}]
SETTINGS = {"http_port": 80, "https_port": 443, "extra_config": ""}
PAGES = [("include", ["portico/pages.conf"], [])]
MAPS = ("map", "geo")
# These are paths on the controller, and never text of nginx's.
KEYS = [key for key in hostile.text_keys(entries.options("nginx_publish", "sites")) if key not in ("template", "redirects_file")]
NAMED_KEYS = {option: list(hostile.text_keys(entries.options("nginx_publish", option))) for option in named.LISTS}


def rendered(site):
    complete = normalise_sites([site], APPS, named=named.normalise({option: [entry] for option, entry in hostile.NAMED.items()}))
    files = {**render.scope_files("main", named.normalise({}), complete), **render.site_files(complete, APPS, render.Host(), SETTINGS)}
    # A table of redirects is included inside of a map.
    return "".join(f"map a b {{\n{text}}}\n" if path.startswith("redirects/") else text for path, text in files.items() if path.endswith(".conf"))


def rendered_named(option, entry):
    """An entry that sites call by a name, and a site that does, in one text; and the hashes of passwords."""
    known = named.normalise({option: [entry]})
    says = {"upstreams": "upstream", "access": "access", "limits": "limits", "caches": "cache"}[option]
    does = {"access": {"root": "/srv/www"}, "limits": {"root": "/srv/www"}, "caches": {"proxy": "http://127.0.0.1:8000"}}.get(option, {})
    complete = normalise_sites([{"name": "shop", "server_names": "shop.example.com", says: entry["name"], **does}], APPS, named=known)
    files = {**render.scope_files("main", known, complete), **render.site_files(complete, APPS, render.Host(), SETTINGS)}
    return "".join(text for path, text in files.items() if path.endswith(".conf")), "".join(text for path, text in files.items() if not path.endswith(".conf"))


def tree(text, file):
    """Return what a parser that others wrote reads: nested tuples of name, arguments, block."""
    file.write_text(text, encoding="utf-8")
    payload = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False, comments=False)
    assert payload["status"] == "ok", payload["errors"]
    return simple(payload["config"][0]["parsed"])


def simple(block):
    # crossplane leaves a backslash that is escaped as it is written.
    def plain(word):
        return word.replace("\\\\", "\\")

    return [(plain(each["directive"]), list(map(plain, each["args"])), simple(each.get("block", []))) for each in block]


def names(block):
    # What stands in front in a map or a geo is a value.
    return [(name, len(inner) if name in MAPS else names(inner)) for name, _args, inner in block]


def words(block):
    return [word for name, args, inner in block for word in (*args, *([each[0] for each in inner] if name in MAPS else []), *words(inner))]


def test_every_key_that_is_text_is_tried():
    assert {key.rpartition(".")[2] for key in KEYS} <= hostile.HARMLESS.keys()
    for key in KEYS:
        rendered(hostile.site(key, hostile.harmless(key)))
    for option, keys in NAMED_KEYS.items():
        assert {key.rpartition(".")[2] for key in keys} <= hostile.HARMLESS.keys()
        for key in keys:
            rendered_named(option, hostile.named(option, key, hostile.harmless(key)))


def test_hostile_values_are_refused_by_name_or_come_back_to_the_byte(tmp_path):
    file = tmp_path / "site.conf"
    outcome = Counter()
    usual = {key: tree(rendered(hostile.site(key, hostile.harmless(key))), file) for key in KEYS}
    # A backend that is spoken to over TLS is verified.
    over_tls = {key: tree(rendered(hostile.site(key, "https://inner.example.com")), file) for key in KEYS if key.endswith("proxy")}
    for key, value in hostile.values(SEED, COUNT, KEYS):
        try:
            text = rendered(hostile.site(key, value))
        except PorticoError as error:
            told = str(error)
            assert told.startswith("nginx_sites, entry ") and told.isprintable(), told
            assert f'"{key.partition(".")[0]}' in told, (key, value, told)
            outcome["refused"] += 1
            continue
        outcome["accepted"] += 1
        got = tree(text, file)
        if key.endswith("extra_config"):
            assert_only_added(usual[key], got, tree(value, file), tree(hostile.HARMLESS["extra_config"], file))
            continue
        assert names(got) == names((over_tls if key in over_tls and value.lower().startswith("https:") else usual)[key]), (key, value)
        assert key == "name" or all(any(part in word for word in words(got)) for part in _parts(key, value)), (key, value)
    print(f"{COUNT} hostile values: {outcome['refused']} refused by name, {outcome['accepted']} came back to the byte")
    assert outcome["refused"] > COUNT / 4 and outcome["accepted"] > COUNT / 20, outcome


@pytest.mark.parametrize("option", NAMED_KEYS)
def test_hostile_values_of_what_sites_name_are_refused_by_name_or_come_back_to_the_byte(option, tmp_path):
    file = tmp_path / "named.conf"
    outcome = Counter()
    keys = NAMED_KEYS[option]
    usual = {key: tree(rendered_named(option, hostile.named(option, key, hostile.harmless(key)))[0], file) for key in keys}
    for key, value in hostile.values(SEED + 2, COUNT // 2, keys):
        try:
            text, hashes = rendered_named(option, hostile.named(option, key, value))
        except PorticoError as error:
            told = str(error)
            assert told.startswith(f"nginx_{option}, entry ") and told.isprintable() and f'"{key.partition(".")[0]}' in told, (key, value, told)
            assert not key.startswith("users.password") or value not in told, (key, value, told)
            outcome["refused"] += 1
            continue
        outcome["accepted"] += 1
        got = tree(text, file)
        assert names(got) == names(usual[key]), (key, value)
        if key.startswith("users."):
            name, hashed = hashes.removesuffix("\n").split(":")
            assert name == (value if key == "users.name" else "anna") and "\n" not in hashed and hashed.startswith("$"), (key, value, hashes)
        else:
            assert any(_written(key, value) in word for word in words(got)), (key, value)
    assert outcome["refused"] > COUNT / 8 and outcome["accepted"] > COUNT / 200, outcome


def test_the_http_levels_text_adds_itself_and_nothing_else(tmp_path):
    file = tmp_path / "http.conf"
    for _key, value in hostile.values(SEED + 1, COUNT // 10, ["extra_config"]):
        try:
            check_settings({"extra_config": value})
        except PorticoError as error:
            assert str(error).startswith("nginx_extra_config: ")
            continue
        files = render.base({**SETTINGS, "extra_config": value}, render.Host())
        assert tree(files["http.conf"], file) == tree(value, file), value


def assert_only_added(usual, got, added, harmless):
    """The tree is the usual one, with other directives where the harmless ones were."""
    assert _with(usual, harmless, added) == _without_promises(got, added), (got, added)


def _with(block, harmless, added):
    if block[-1:] == PAGES:
        return [*_with(block[:-1], harmless, added), *PAGES]
    if block[-len(harmless) :] == harmless:
        return [*block[: -len(harmless)], *added]
    return [(name, args, _with(inner, harmless, added) if inner else inner) for name, args, inner in block]


def _without_promises(block, added):
    """Take out the headers that are said again in a location that sends one of its own."""
    if not any(name == "add_header" for name, _args, _inner in added):
        return block
    return [(name, args, [each for each in inner if each[1] != ["portico/headers.conf"]] if name == "location" else inner) for name, args, inner in block]


def _parts(key, value):
    """Return what of a value stands in a token of its own: of a page, its folder and its name."""
    written = _written(key, value)
    return posixpath.split(written) if key == "error_pages.value" else [written]


def _written(key, value):
    """Return a value in its final form: names in small letters, folders without a slash at their end."""
    last = key.rpartition(".")[2]
    if last == "open":
        return re.escape(value)
    if key == "redirects.header":
        return unquote(value)
    if last == "refuse_agents":
        return re.sub(r"[^A-Za-z0-9_ -]", lambda found: "\\" + found[0], value)
    if last == "private_cookies":
        return "".join("[_. [+]" if sign in "_." else re.sub(r"[^A-Za-z0-9-]", lambda found: "\\" + found[0], sign) for sign in value.removesuffix("*"))
    if last in ("allow", "deny", "except"):
        return str(ipaddress.ip_network(value)) if "/" in value else str(ipaddress.ip_address(value))
    if last == "requests":
        return "{}r/{}".format(*value.lstrip("0").split("/"))
    if last == "methods":
        return value.upper()
    if last == "headers":
        return value.lower().replace("-", "_")
    if last in ("server_names", "host", "certificate_name", "max_body_size", "address", "size"):
        return value.lower()
    if last in ("root", "alias", "ca", "crl", "script") or key == "error_pages.value":
        return "/" + value.strip("/")
    return value.strip(" ") if last in ("value", "csp", "csp_report_only", "content_type", "realm") else value
