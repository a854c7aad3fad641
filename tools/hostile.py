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
    "upstream": "pool",
    "root": "/srv/www",
    "alias": "/srv/other",
    "fallback": "/index.html",
    "redirect": "https://example.com/new",
    "app": "shop",
    "extra_config": "client_max_body_size 1m;",
    "path": "/place/",
    "template": "own.conf.j2",
    "text": "robots",
    "content_type": "text/html",
    "max_body_size": "20m",
    "host": "inner.example.com",
    "ca": "/etc/ssl/inner.pem",
    "certificate_name": "certified.example.com",
    "script": "/srv/shop/index.php",
    "hide_headers": "X-Powered-By",
    "csp": "default-src 'none'",
    "csp_report_only": "default-src 'self'",
    "header": "X-Extra",
    "headers": "X-Extra",
    "value": "extra",
    "address": "10.0.0.1:8000",
    "access": "policy",
    "limits": "slow",
    "cache": "pages",
    "size": "20m",
    "private_cookies": "sessionid",
    "redirects_file": "moved.txt",
    "refuse_agents": "SomeBot",
    "allow": "192.0.2.0/24",
    "deny": "192.0.2.9",
    "password": "correct horse",
    "password_hash": "$6$abcdefgh$VfjvBFPGjfLDmVVBzF0KYh0hGZ1d8Pq9GZFmT6mTL8GoBzWyCvW0x4hMmzQ0",
    "realm": "Staff",
    "crl": "/etc/ssl/revoked.pem",
    "url": "http://127.0.0.1:4180/auth",
    "sign_in": "https://login.example.com/start?rd=",
    "requests": "5/m",
    "methods": "POST",
    "open": "/health",
    "except": "198.51.100.0/24",
}
"""A value of each key that is text, with which a site is right."""

ANSWERS = ("app", "upstream", "proxy", "root", "alias", "redirect", "answer")
NAMED: dict[str, dict[str, Any]] = {
    "upstreams": {"name": "pool", "servers": [{"address": "10.0.0.1:8000"}], "tls": True, "host": HARMLESS["host"]},
    "access": {
        "name": "policy",
        "allow": [HARMLESS["allow"]],
        "users": [{"name": "anna", "password": HARMLESS["password"]}],
        "clients": {"ca": HARMLESS["ca"]},
        "ask": {"url": HARMLESS["url"], "headers": ["X-Extra"]},
    },
    "limits": {"name": "slow", "requests": HARMLESS["requests"]},
    "caches": {"name": "pages", "fresh": 60},
}
"""An entry that is right, of each list whose entries sites call by their names."""
_BESIDE = {"backend": {"proxy": "https://inner.example.com"}, "backend.script": {"proxy": "fastcgi://127.0.0.1:9000"}, "cache": {"proxy": HARMLESS["proxy"]}}
"""What has to stand beside a key so that it means something; else it is files."""


def text_keys(described: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Walk the dotted keys, out of a documentation's suboptions, whose values are any text."""
    for key, option in described.items():
        kind = option.get("elements", option["type"]) if option["type"] == "list" else option["type"]
        if kind == "dict":
            yield from text_keys(option.get("suboptions", {}), f"{prefix}{key}.")
            if not option.get("suboptions"):
                yield from (f"{prefix}{key}.header", f"{prefix}{key}.value")
        elif kind == "str" and "choices" not in option:
            yield f"{prefix}{key}"


def site(key: str, value: str) -> dict[str, Any]:
    """Return a site that is right but for the value of one dotted key."""
    made: dict[str, Any] = {"name": "shop", "server_names": copy.copy(HARMLESS["server_names"]), "certificate": "shop"}
    first, _dot, rest = key.partition(".")
    if first == "locations":
        made["locations"] = [{"path": HARMLESS["path"], **_with(rest, value)}]
    elif first == "server_names":
        made["server_names"][1] = value
        made["root"] = HARMLESS["root"]
    else:
        made.update(_with(key, value))
    return made


def _with(key: str, value: str) -> dict[str, Any]:
    """Return a dotted key with its value, and what it needs beside it."""
    first, _dot, last = key.partition(".")
    made: dict[str, Any] = {} if first in ANSWERS else copy.copy(_BESIDE.get(key) or _BESIDE.get(first, {"root": HARMLESS["root"]}))
    if last in ("header", "value"):
        name, text = _HARMLESS_THERE.get(f"{first}.header", HARMLESS["header"]), _HARMLESS_THERE.get(f"{first}.value", HARMLESS["value"])
        made[first] = {value: text} if last == "header" else {name: value}
    else:
        made[first] = {last: value} if last else value
    return made


def named(option: str, key: str, value: str) -> dict[str, Any]:
    """Return an entry of a list that sites call by a name, right but for the value of one dotted key."""
    made = copy.deepcopy(NAMED[option])
    first, _dot, last = key.partition(".")
    if key == "script":
        made.update(protocol="fastcgi", tls=False)
    if not last:
        made[first] = value
        return made
    inside = made.setdefault(first, {})
    inside = inside[0] if isinstance(inside, list) else inside
    if last in _EITHER:
        inside.pop(_EITHER[last], None)
    if last == "sign_in":
        made.pop("users")
    inside[last] = value
    return made


_EITHER = {"password": "password_hash", "password_hash": "password"}


_HARMLESS_THERE = {"redirects.header": "/old", "redirects.value": "/new", "error_pages.header": "404", "error_pages.value": "/srv/www/404.html"}


def harmless(key: str) -> str:
    """Return a value of a dotted key with which a site is right."""
    value = _HARMLESS_THERE.get(key) or HARMLESS[key.rpartition(".")[2]]
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
