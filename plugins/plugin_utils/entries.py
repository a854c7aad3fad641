# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check and complete the lists that people write.

A key is described once, in the documentation of the plugin that takes the list. From there come its type,
its default, its choices and the names that a misspelt key is compared with. What stands here is the walk
along that description, and the words of every mistake.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import typing as t
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from ansible.module_utils.common.yaml import yaml_load

HIDDEN = object()
"""Given to L(problem) in place of a value that must not be shown."""

_LONGEST_VALUE = 80
_MOST_DIGITS = 4000
"""Python itself refuses to write down, and to read, a number with some more (sys.set_int_max_str_digits)."""
_BEYOND_ALL_USE = 10**_MOST_DIGITS
_WORDS_OF_SECRETS = ("auth", "cred", "env", "key", "pass", "pwd", "secret", "token")
"""What people call a key beside which there are secrets."""
_WORDS_FOR_TRUE = ("true", "yes", "on")
_WORDS_FOR_FALSE = ("false", "no", "off")

Entry = dict[str, t.Any]
Format = Callable[[t.Any], t.Any]
Options = Mapping[str, Mapping[str, t.Any]]


class PorticoError(Exception):
    """A mistake or a failure, in words for the person who runs the play."""

    changed = False
    """Whether something was changed on the host all the same."""


Mistake = Callable[[str, object, str], PorticoError]
"""Makes the error of a key of some entry, the value and the reason."""


def options(module: str, option: str | None = None) -> dict[str, dict[str, t.Any]]:
    """Return the documented options of a plugin, or the keys of one that is a list.

    :param module: the plugin, such as C(nginx_publish).
    :param option: its option that is the list, such as C(sites).
    :returns: key -> its description (type, default, choices, elements, suboptions), as documented.
    """
    documented = _documented(module)
    return documented[option]["suboptions"] if option else documented


def normalise(
    variable: str,
    entries: object,
    described: Options,
    formats: Mapping[str, Format] | None = None,
    secret: Iterable[str] = (),
) -> list[dict[str, t.Any]]:
    """Check a list and return it complete: every documented key is there, in its documented type.

    :param variable: the name of the list, for messages.
    :param described: the result of L(options).
    :param formats: dotted key (C(source.git), and C(server_names) for each of its elements) -> a function
        that returns the value in its final form, or raises ValueError saying what is wrong and what to do.
    :param secret: dotted keys whose values no message may show.
    :raises PorticoError: naming the entry, the key, the value, and what to do.
    """
    if not isinstance(entries, list):
        raise PorticoError(f"{variable} is {_kind(entries)}. Make it a list, one entry a line that starts with '- name:'.")
    walk = _Walk(variable, formats or {}, frozenset(secret))
    complete = [walk.entry(number, entry, described) for number, entry in enumerate(entries, start=1)]
    _refuse_twins(variable, complete)
    return complete


def arguments(module: str, given: Mapping[str, t.Any], secret: Iterable[str] = ()) -> dict[str, t.Any]:
    """Return the options of a task complete, as they are documented; what lists and dictionaries have in them is left as it is.

    :param secret: options whose values no message may show.
    :raises PorticoError: for an option that does not exist, is missing or is of another type.
    """
    walk = _Walk(f"portico.web.{module}", {}, frozenset(secret))
    described = {key: {**option, "type": "raw"} if option.get("type") in ("list", "dict") else option for key, option in _documented(module).items()}
    return walk.options(given, described)


def setting(variable: str, value: object, described: Mapping[str, t.Any], formats: Mapping[str, Format] | None = None, secret: Iterable[str] = ()) -> t.Any:
    """Check a variable that is no list of entries, and return it complete and in its documented type.

    :param described: its option, as documented.
    :param formats: as of L(normalise); the key of the variable itself is empty.
    :raises PorticoError: naming the variable, the key in it, the value, and what to do.
    """
    return _Walk(variable, formats or {}, frozenset(secret)).value(value, described)


def problem(variable: str, entry: str | int | None, key: str, value: object, why: str) -> PorticoError:
    """Return the one message for a mistake: where it is, what was written, why it is wrong and what to do.

    :param entry: the entry's name, or its place in the list, counted from 1, where it has none; None for a variable that
        is no list of entries.
    :param key: nothing for the whole of such a variable.
    """
    where = variable if entry is None else f"{variable}, entry {_quote(entry)}"
    where += f", key {_quote(key)}" if key else ""
    return PorticoError(f"{where}: {why}" if value is HIDDEN else f"{where}: {shown(value)} {why}")


def shown(value: object) -> str:
    """Return a value as people wrote it, cut where it is long, and with the names of signs that nobody sees.

    A private key is not shown, wherever somebody may have put it.
    """
    try:
        written = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        # A number of thousands of digits, which Python does not write down.
        return _kind(value)
    if "PRIVATE KEY-----" in written:
        return "a private key"
    text = visible(written)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def visible(text: str) -> str:
    """Return a text whole, with the names of signs that nobody sees, and that could do something to a terminal."""
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one most likely meant, if there is one."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the nearest known one, or all of them."""
    known = sorted(known)
    near = nearest(word, known)
    if near:
        return f"Did you mean {_quote(near)}?"
    return f"Known are: {', '.join(known)}." if known else "There are none."


def distance(one: str, other: str, most: int) -> int:
    """Return how many letters are missing, added, wrong or swapped; above C(most), just something above it.

    This is the optimal string alignment distance.
    """
    # A letter that only one of them has takes a step, in which a letter of the other can go: most pairs of words are told apart so.
    if abs(len(one) - len(other)) > most or len(set(one) ^ set(other)) > 2 * most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                row[j] = min(row[j], last[j - 2] + 1)
        if min(row) > most:
            return most + 1
    return row[-1]


@lru_cache
def _documented(module: str) -> dict[str, dict[str, t.Any]]:
    name = f"{__name__.rsplit('.', 2)[0]}.modules.{module}"
    return yaml_load(importlib.import_module(name).DOCUMENTATION)["options"]


class _Walk:
    """One walk along the description of a list."""

    def __init__(self, variable: str, formats: Mapping[str, Format], secret: frozenset[str]) -> None:
        self.variable = variable
        self.formats = formats
        self.secret = secret
        self.name: str | int | None = None
        self._unsaid: dict[int, tuple[Options, frozenset[str]]] = {}

    def entry(self, number: int, entry: object, described: Options) -> dict[str, t.Any]:
        self.name = number
        if not isinstance(entry, dict):
            raise PorticoError(
                f"{self.variable}, entry {number}: {shown(entry)} is {_kind(entry)}. Write its keys, beginning with '- name:'."
            )
        if isinstance(entry.get("name"), str) and entry["name"]:
            self.name = str(entry["name"])
        return self._mapping("", entry, described)

    def value(self, value: object, option: Mapping[str, t.Any]) -> t.Any:
        return self._value("", value, option)

    def options(self, given: Mapping[str, t.Any], described: Options) -> dict[str, t.Any]:
        self.name = "options"
        return self._mapping("", given, described)

    def _mapping(self, prefix: str, given: Mapping[t.Any, t.Any], described: Options) -> dict[str, t.Any]:
        for key in given:
            if key not in described:
                why = f"is given to a key that does not exist. {did_you_mean(str(key), described)}"
                hidden = isinstance(given[key], (dict, list)) or self._may_be_secret(prefix, str(key), described)
                raise self._problem(f"{prefix}{key}", HIDDEN if hidden else given[key], why)
        unsaid = self._may_be_unsaid(described)
        return {str(key): None if key in unsaid and key not in given else self._value(prefix + key, given.get(key), option) for key, option in described.items()}

    def _may_be_unsaid(self, described: Options) -> frozenset[str]:
        """Return the keys that are nothing when they are not there. Most keys are not, in a thousand entries."""
        if id(described) not in self._unsaid:
            # Beside it the description itself, so that no other one is ever at its place.
            self._unsaid[id(described)] = described, frozenset(key for key, option in described.items() if not option.get("required") and option.get("default") is None)
        return self._unsaid[id(described)][1]

    def _value(self, key: str, value: object, option: Mapping[str, t.Any]) -> t.Any:
        if value is None:
            if option.get("required"):
                raise self._problem(key, HIDDEN, "is missing. Every entry needs it.")
            value = option.get("default")
            if value is None:
                return None
        return self._typed(key, value, option)

    def _typed(self, key: str, value: object, option: Mapping[str, t.Any]) -> t.Any:
        kind = option.get("type", "str")
        if kind == "str" and isinstance(value, str) and "choices" not in option:
            # As most values are, in a thousand entries.
            return self._formatted(key, str(value))
        if kind == "raw":
            return value
        if kind == "list":
            # One value where several are possible is what people write; it cannot mean anything else.
            several = value if isinstance(value, list) else [value]
            element = {**option, "type": option.get("elements", "str")}
            return [self._typed(f"{key}[{at}]" if len(several) > 1 else key, each, element) for at, each in enumerate(several)]
        if kind == "dict":
            if not isinstance(value, dict):
                raise self._problem(key, value, f"is {_kind(value)}. Write keys and values below it.")
            described = option.get("suboptions")
            if described:
                return self._formatted(key, self._mapping(f"{key}." if key else "", value, described))
            return self._formatted(key, {_plain(k): _plain(v) for k, v in value.items()})
        value = self._scalar(key, _plain(value), kind)
        choices = option.get("choices")
        if choices and value not in choices:
            raise self._problem(key, value, f"is not one of its choices. {did_you_mean(str(value), map(str, choices))}")
        return self._formatted(key, value)

    def _scalar(self, key: str, value: object, kind: str) -> t.Any:
        if kind == "bool":
            word = str(value).lower() if isinstance(value, str) else value
            if isinstance(value, bool) or word in _WORDS_FOR_TRUE or word in _WORDS_FOR_FALSE:
                return value is True or word in _WORDS_FOR_TRUE
            raise self._problem(key, value, "is neither true nor false. Write one of the two, without quotes.")
        if kind == "int":
            if (isinstance(value, int) and abs(value) >= _BEYOND_ALL_USE) or (isinstance(value, str) and value.isdigit() and len(value) > _MOST_DIGITS):
                raise self._problem(key, HIDDEN, "is a number beyond all use. Write a smaller one.")
            if isinstance(value, int) and not isinstance(value, bool):
                return int(value)
            if isinstance(value, str) and value.isascii() and value.isdigit():
                return int(value)
            raise self._problem(key, value, "is not a whole number. Write digits alone, such as 30.")
        if not isinstance(value, str):
            hint = "Write it in quotes" if isinstance(value, (int, float)) else "Write one text"
            raise self._problem(key, value, f"is {_kind(value)}, not text. {hint}.")
        return str(value)

    def _formatted(self, key: str, value: t.Any) -> t.Any:
        form = self.formats.get(_unnumbered(key) if "[" in key else key)
        if form is None:
            return value
        try:
            return form(value)
        except ValueError as error:
            raise self._problem(key, value, str(error)) from error

    def _problem(self, key: str, value: object, why: str) -> PorticoError:
        return problem(self.variable, self.name, key, HIDDEN if self._is_secret(key) else value, why)

    def _is_secret(self, key: str) -> bool:
        return any(_unnumbered(key) == each or _unnumbered(key).startswith(f"{each}.") for each in self.secret)

    def _may_be_secret(self, prefix: str, key: str, described: Options) -> bool:
        """Return whether an unknown key may be a secret's, misspelt or with something around it (C(kye), C(private_key))."""
        known = [each for each in described if self._is_secret(f"{prefix}{each}")]
        words = (*known, *_WORDS_OF_SECRETS) if known else ()
        return any(each in key.lower() for each in words) or nearest(key, described) in known


def _refuse_twins(variable: str, entries: list[dict[str, t.Any]]) -> None:
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name")
        if name in seen:
            raise problem(variable, number, "name", name, f"is the name of entry {seen[name]} too. Give each a name of its own.")
        seen[name] = number


@lru_cache(maxsize=1024)
def _unnumbered(key: str) -> str:
    """Return a dotted key without the places of list elements: C(locations[2].path) -> C(locations.path)."""
    return re.sub(r"\[[0-9]+\]", "", key)


def _plain(value: t.Any) -> t.Any:
    """Return a free-form value without Ansible's own string types, which jinja2 and json treat in their own way.

    Before ansible-core 2.19 a value that is vaulted by itself is no string at all, and one only when it is asked for.
    """
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, str) or getattr(value, "__ENCRYPTED__", False) else value


def _quote(word: str | int) -> str:
    return str(word) if isinstance(word, int) else shown(word)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, dict):
        return "a dictionary"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else f"a {type(value).__name__}"
