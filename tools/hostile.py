"""Values that want to be more than a value: for every key of a site, from a seed, the same again for the same.

Some are nonsense, some are nearly right, and some are right and look dangerous. What becomes of each is for a test to
see.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

PIECES = [
    *("\"", "'", "\\", ";", "{", "}", "#", "$", " ", "\t", "\n", "\r", "\0", "\x1b", "\x7f", "`", "|", "<", ">", "&", "%", "*", "/", "..", "//"),
    *("a; return 418", "a;\nreturn 418", "} server { listen 81; } #", "\\\"; return 418; \"", "'; return 418; '", "${host}", "$request_uri", "$", "\\$"),
    *("{{ 7 * 7 }}", "{% raw %}", "{# #}", "<script>", "*/", "/*", "\u2028", "\u00a0", "é", "ß", "漢字", "🦊", "\u202e", "\ud800", "e\u0301", "%00", "%0d%0aX: y"),
    *("on", "off", "null", "~", "-", "--", "=", "@", "^~", "~*", "default_server", "ssl", "_", ".", "example.com", "/srv/www", "https://example.com", "0", "80", "a"),
]
PLAIN = "abcxyz019-_./: "

HARMLESS: dict[str, Any] = {
    "name": "shop",
    "server_names": ["shop.example.com", "www.shop.example.com"],
    "certificate": "shop",
    "proxy": "http://127.0.0.1:8000",
    "root": "/srv/www",
    "redirect": "https://example.com/new",
    "app": "shop",
    "extra_config": "client_max_body_size 1m;",
    "path": "/place/",
    "template": "own.conf.j2",
}
"""A value of each key that is text, with which a site is right."""

ANSWERS = ("app", "proxy", "root", "redirect")


def text_keys(described: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Walk the dotted keys, out of a documentation's suboptions, whose values are any text."""
    for key, option in described.items():
        kind = option.get("elements", option["type"]) if option["type"] == "list" else option["type"]
        if kind == "dict":
            yield from text_keys(option.get("suboptions", {}), f"{prefix}{key}.")
        elif kind == "str" and "choices" not in option:
            yield f"{prefix}{key}"


def site(key: str, value: str) -> dict[str, Any]:
    """Return a site that is right but for the value of one dotted key."""
    made: dict[str, Any] = {"name": "shop", "server_names": copy.copy(HARMLESS["server_names"]), "certificate": "shop"}
    first, _dot, second = key.partition(".")
    if first == "locations":
        location = {"path": HARMLESS["path"]}
        if second not in ANSWERS:
            location["root"] = HARMLESS["root"]
        made["locations"] = [{**location, second: value}]
    elif first == "server_names":
        made["server_names"][1] = value
        made["root"] = HARMLESS["root"]
    else:
        if first not in ANSWERS:
            made["root"] = HARMLESS["root"]
        made[first] = value
    return made


def harmless(key: str) -> str:
    """Return a value of a dotted key with which a site is right."""
    value = HARMLESS[key.rpartition(".")[2]]
    return value[1] if isinstance(value, list) else value


def values(seed: int, count: int, keys: list[str], right: Callable[[str], str] = harmless, pieces: Sequence[str] = PIECES) -> Iterator[tuple[str, str]]:
    """Walk pairs of a key and a hostile value; every key in turn.

    :param right: returns a value of a key that is right, from which the hostile ones are made.
    :param pieces: what they are made with.
    """
    chance = random.Random(seed)
    for number in range(count):
        key = keys[number % len(keys)]
        yield key, _value(chance, right(key), pieces)


def _value(chance: random.Random, right: str, all_pieces: Sequence[str]) -> str:
    kind = chance.random()
    pieces = "".join(chance.choice(all_pieces) for _ in range(chance.randint(1, 5)))
    if kind < 0.35:
        at = chance.randint(0, len(right))
        return right[:at] + pieces + right[at:]
    if kind < 0.6:
        return right + pieces
    if kind < 0.8:
        return pieces
    if kind < 0.83:
        return right + chance.choice(("x", "é", "/x")) * chance.randint(1000, 6000)
    return right + "".join(chance.choice(PLAIN) for _ in range(chance.randint(1, 12)))
