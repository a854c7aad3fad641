"""What a page of the documentation shows of a play's lists: its YAML blocks, each with what only a reader has put in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

# The hash is of the words "of ben".
_FILLED_IN = {
    "{{ vault_password_of_anna }}": "of anna",
    "{{ vault_hash_of_ben }}": "$6$Mi6mQbvYhLO1sHkZ$KmzTNRjzgiAPyoNXLcY/celuDt8rpJ8gT6fg1gvRJvMguEHRVamX9LAh4cg.l19bDsrtMI7sRSV3Eg58QPhG/.",
    # Servers of somebody else's network are this host's own.
    '"10.0.': '"127.0.',
}
_BLOCK = re.compile(r"^## (?P<heading>[^\n]*)$|(?<!-->\n)^```yaml\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of YAML: the heading that it is below, and what it says, variable to value."""

    heading: str
    says: dict[str, Any]

    @property
    def names(self) -> str:
        """What it is known by in a test: its sites, or else its variables, with the first key of a dictionary."""
        variables = [f"{name}.{next(iter(value))}" if isinstance(value, dict) else name for name, value in self.says.items()]
        return " ".join([site["name"] for site in self.says.get("nginx_sites", [])] or variables)

    @property
    def is_lists(self) -> bool:
        """Whether it is lists of entries, which can stand beside others; or else what there is once for a host."""
        return all(isinstance(value, list) and all(isinstance(entry, dict) for entry in value) for value in self.says.values())


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in order. A play that is an example's file is none of them.

    :param page: its path inside the project.
    """
    found, heading = [], ""
    for part in _BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        if part["text"] is None:
            heading = part["heading"]
            continue
        text = part["text"]
        for shown, filled_in in _FILLED_IN.items():
            text = text.replace(shown, filled_in)
        found.append(Block(heading, yaml.safe_load(text)))
    return found


def together(parts: Iterable[Block]) -> dict[str, Any]:
    """Return the lists of several blocks, one behind the other."""
    said: dict[str, Any] = {}
    for part in parts:
        for name, entries in part.says.items():
            said[name] = [*said.get(name, []), *entries]
    return said
