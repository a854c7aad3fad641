"""What the documentation shows is what is tested, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from shown import blocks, together

from ansible_collections.portico.web.plugins.plugin_utils import access, named, render, repositories
from ansible_collections.portico.web.plugins.plugin_utils.apps import normalise_apps
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites
from ansible_collections.portico.web.plugins.plugin_utils.streams import normalise_streams

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
SHOWN = [(name, *shown) for name, text in PAGES.items() for shown in re.findall(r"<!-- (examples/\S+) -->\n```yaml\n(.*?)```", text, re.DOTALL)]
LINKS = sorted({(name, link) for name, text in PAGES.items() for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text)})


@pytest.mark.parametrize(("page", "example", "shown"), SHOWN, ids=[f"{page}-{example}" for page, example, _shown in SHOWN])
def test_a_play_that_is_shown_is_an_example(page, example, shown):
    assert shown == (ROOT / example).read_text(encoding="utf-8").removeprefix("---\n")


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page, link):
    assert (ROOT / "docs" / link).exists()


def test_the_sites_and_upstreams_that_are_shown_are_right():
    lists = together(block for block in blocks("docs/sites.md") if block.is_lists)
    known = named.normalise({key: lists.get(f"nginx_{key}", []) for key in named.LISTS})
    apps = [{"name": "shop", "static": {"/static/": "static"}}]
    sites = normalise_sites(lists["nginx_sites"], apps, named=known)
    assert len(known["upstreams"]) == 5 and len(known["access"]) == 5 + len(access.BUILT_IN) and len(sites) == 13
    assert len(normalise_streams(lists["nginx_streams"], sites, known)) == 3


def test_what_is_shown_that_there_is_once_for_a_host_is_a_setting_and_is_right():
    once = [block.says for block in blocks("docs/sites.md") if not block.is_lists]
    assert len(once) == 4 and not any(says.keys() - {f"nginx_{name}" for name in render.SETTINGS} for says in once)
    for says in once:
        assert render.base({name.removeprefix("nginx_"): value for name, value in says.items()}, render.Host())


@pytest.mark.parametrize("named_test", sorted({name for text in PAGES.values() for name in re.findall(r"\btest_\w+", text)}))
def test_a_test_that_is_named_is_there(named_test):
    texts = {path: path.read_text(encoding="utf-8") for folder in ("molecule", "tests") for path in (ROOT / folder).rglob("test_*.py")}
    assert any(path.stem == named_test or f"def {named_test}(" in text for path, text in texts.items())


def test_the_repositories_that_are_shown_are_right():
    shown = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(nginx_repository:.*?)```", PAGES["sites.md"], re.DOTALL)]
    assert [bool(repositories.normalise(block["nginx_repository"])) for block in shown] == [True, True]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yml")), ids=lambda path: path.stem)
def test_the_lists_of_an_example_are_right(example):
    for play in yaml.safe_load(example.read_text(encoding="utf-8")):
        apps = normalise_apps(play["vars"]["gunicorn_apps"])
        assert normalise_sites(play["vars"]["nginx_sites"], apps)
