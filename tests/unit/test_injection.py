"""No value is more than a value: hostile ones are refused by name, or come back to the byte, and add nothing.

PORTICO_HOSTILE_VALUES says how many are tried; `make test-all` says 10000.
"""

from __future__ import annotations

import os
from collections import Counter

import crossplane
import hostile

from ansible_collections.portico.web.plugins.plugin_utils import entries, render
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import check_settings, normalise_sites
from ansible_collections.portico.web.plugins.plugin_utils.upstreams import normalise_upstreams

COUNT = int(os.environ.get("PORTICO_HOSTILE_VALUES", "2000"))
SEED = 20261123
APPS = [{"name": "shop", "static": {"/static/": "staticfiles"}}]
SETTINGS = {"http_port": 80, "https_port": 443, "extra_config": ""}
# A template is a path on the controller, and never text of nginx's.
KEYS = [key for key in hostile.text_keys(entries.options("nginx_publish", "sites")) if key != "template"]
UPSTREAM_KEYS = list(hostile.text_keys(entries.options("nginx_publish", "upstreams")))


def rendered(site):
    complete = normalise_sites([site], APPS, upstreams=normalise_upstreams([hostile.UPSTREAM]))
    (text,) = render.site_files(complete, APPS, render.Host(), SETTINGS).values()
    return text


def rendered_upstream(upstream):
    """An upstream, and a site that it answers for, in one text."""
    upstreams = normalise_upstreams([upstream])
    complete = normalise_sites([{"name": "shop", "server_names": "shop.example.com", "upstream": upstreams[0]["name"]}], APPS, upstreams=upstreams)
    return "".join({**render.scope_files("main", upstreams), **render.site_files(complete, APPS, render.Host(), SETTINGS)}.values())


def tree(text, file):
    """Return what a parser that others wrote reads: nested tuples of name, arguments, block."""
    file.write_text(text, encoding="utf-8")
    payload = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False, comments=False)
    assert payload["status"] == "ok", payload["errors"]
    return simple(payload["config"][0]["parsed"])


def simple(block):
    # crossplane leaves a backslash that is escaped as it is written.
    return [(each["directive"], [arg.replace("\\\\", "\\") for arg in each["args"]], simple(each.get("block", []))) for each in block]


def names(block):
    return [(name, names(inner)) for name, _args, inner in block]


def words(block):
    return [word for _name, args, inner in block for word in (*args, *words(inner))]


def test_every_key_that_is_text_is_tried():
    assert {key.rpartition(".")[2] for key in KEYS} <= hostile.HARMLESS.keys()
    for key in KEYS:
        rendered(hostile.site(key, hostile.harmless(key)))
    assert {key.rpartition(".")[2] for key in UPSTREAM_KEYS} <= hostile.HARMLESS.keys()
    for key in UPSTREAM_KEYS:
        rendered_upstream(hostile.upstream(key, hostile.harmless(key)))


def test_hostile_values_are_refused_by_name_or_come_back_to_the_byte(tmp_path):
    file = tmp_path / "site.conf"
    outcome = Counter()
    usual = {key: tree(rendered(hostile.site(key, hostile.harmless(key))), file) for key in KEYS}
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
        assert names(got) == names(usual[key]), (key, value)
        assert key == "name" or any(_written(key, value) in word for word in words(got)), (key, value)
    print(f"{COUNT} hostile values: {outcome['refused']} refused by name, {outcome['accepted']} came back to the byte")
    assert outcome["refused"] > COUNT / 4 and outcome["accepted"] > COUNT / 20, outcome


def test_hostile_values_of_an_upstream_are_refused_by_name_or_come_back_to_the_byte(tmp_path):
    file = tmp_path / "upstream.conf"
    outcome = Counter()
    usual = {key: tree(rendered_upstream(hostile.upstream(key, hostile.harmless(key))), file) for key in UPSTREAM_KEYS}
    for key, value in hostile.values(SEED + 2, COUNT // 2, UPSTREAM_KEYS):
        try:
            text = rendered_upstream(hostile.upstream(key, value))
        except PorticoError as error:
            told = str(error)
            assert told.startswith("nginx_upstreams, entry ") and told.isprintable() and f'"{key.partition(".")[0]}' in told, (key, value, told)
            outcome["refused"] += 1
            continue
        outcome["accepted"] += 1
        got = tree(text, file)
        assert names(got) == names(usual[key]), (key, value)
        assert any(_written(key, value) in word for word in words(got)), (key, value)
    assert outcome["refused"] > COUNT / 8 and outcome["accepted"] > COUNT / 40, outcome


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
    if block[-len(harmless) :] == harmless:
        return [*block[: -len(harmless)], *added]
    return [(name, args, _with(inner, harmless, added) if inner else inner) for name, args, inner in block]


def _without_promises(block, added):
    """Take out the headers that are said again in a location that sends one of its own."""
    if not any(name == "add_header" for name, _args, _inner in added):
        return block
    return [(name, args, [each for each in inner if each[1] != ["portico/headers.conf"]] if name == "location" else inner) for name, args, inner in block]


def _written(key, value):
    """Return a value in its final form: names in small letters, folders without a slash at their end."""
    last = key.rpartition(".")[2]
    if last in ("server_names", "host", "certificate_name", "max_body_size", "address"):
        return value.lower()
    if last in ("root", "alias", "ca"):
        return "/" + value.strip("/")
    return value.strip(" ") if last in ("value", "csp", "csp_report_only", "content_type") else value
