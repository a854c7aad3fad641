"""What the README shows is what is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shown import blocks

from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_play_is_the_example():
    (shown,) = re.findall(r"<!-- examples/guestbook.yml -->\n```yaml\n(.*?)```", README, re.DOTALL)
    assert shown == (ROOT / "examples/guestbook.yml").read_text(encoding="utf-8").removeprefix("---\n")


def test_its_sites_are_sites():
    (block,) = blocks("README.md")
    assert len(normalise_sites(block.says["nginx_sites"], [{"name": "shop", "static": None}])) == 5


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)]+)\)", README))))
def test_its_links_lead_somewhere(link):
    assert (ROOT / link).exists()
