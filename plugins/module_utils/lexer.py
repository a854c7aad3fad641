# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nginx's text as nginx reads it, so that text of somebody's own can stand in a file of ours and not reach out of it.

The grammar is that of ngx_conf_read_token in nginx's src/core/ngx_conf_file.c.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from collections.abc import Iterator

LONGEST_TOKEN = 4000
"""nginx reads through a buffer of 4096 bytes, and refuses a token that does not fit."""

_BLANKS = " \t\r\n"


class Token(t.NamedTuple):
    """C(mark) is C(;), C({) or C(}), or nothing for a word; C(start) and C(end) are places in the text."""

    mark: str
    word: str
    start: int
    end: int
    line: int


class LexError(ValueError):
    """Text that nginx would read in another way than it is meant; C(line) is counted from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def tokens(text: str) -> Iterator[Token]:
    """Walk the tokens of a text; comments and blanks are none.

    :raises LexError: for a quote that is not closed, text right behind a closed one, and a token that is too long.
    """
    at, line = 0, 1
    while at < len(text):
        char = text[at]
        if char in _BLANKS:
            line += char == "\n"
            at += 1
        elif char == "#":
            rest = text.find("\n", at)
            at = rest if rest != -1 else len(text)
        elif char in ";{}":
            yield Token(char, "", at, at + 1, line)
            at += 1
        else:
            end = _end_of_quoted(text, at, line) if char in "\"'" else _end_of_bare(text, at, line)
            written = text[at:end]
            if len(written.encode("utf-8", "replace")) > LONGEST_TOKEN:
                raise LexError(line, "has a word that is longer than nginx takes")
            yield Token("", written, at, end, line)
            line += written.count("\n")
            at = end


def statements(text: str) -> Iterator[tuple[int, list[str], int]]:
    """Walk the directives of a text: depth, words without their quotes, line."""
    depth, words, began = 0, [], 1
    for token in tokens(text):
        if token.mark:
            if words:
                yield depth, words, began
            depth += {"{": 1, "}": -1, ";": 0}[token.mark]
            words = []
        else:
            began = began if words else token.line
            words = [*words, token.word[1:-1] if token.word[0] in "\"'" else token.word]


def check(text: str) -> None:
    """Refuse text that is not a number of whole directives.

    :raises LexError: naming the line.
    """
    open_blocks: list[int] = []
    words, began = 0, 1
    for token in tokens(text):
        if not token.mark:
            began = began if words else token.line
            words += 1
            blank = next((sign for sign in token.word if sign.isspace() and sign not in _BLANKS), None)
            if blank and token.word[0] not in "\"'":
                # Often copied from a page. nginx makes it a part of the word, and other parsers do not.
                raise LexError(token.line, f"has a blank (U+{ord(blank):04X}) that is none to nginx. Write an ordinary one, or put the word in quotes")
        elif token.mark == "}" and words:
            raise LexError(began, "has a directive that does not end. Put a ';' at its end")
        elif token.mark == "}" and not open_blocks:
            raise LexError(token.line, "closes a block that it did not open")
        elif token.mark != "}" and not words:
            raise LexError(token.line, f"has a '{token.mark}' with no directive before it")
        else:
            words = 0
            if token.mark == "{":
                open_blocks.append(token.line)
            elif token.mark == "}":
                open_blocks.pop()
    if words:
        raise LexError(began, "has a directive that does not end. Put a ';' at its end")
    if open_blocks:
        raise LexError(open_blocks[-1], "opens a block that it does not close")


def indented(text: str, level: int) -> str:
    """Return whole directives as lines of a block of that depth, four blanks a level.

    What stands in quotes stays as it is, over as many lines as it goes.
    """
    deeper: Counter[int] = Counter()
    inside: set[int] = set()
    for token in tokens(text):
        deeper[token.line] += {"{": 1, "}": -1}.get(token.mark, 0)
        inside.update(range(token.line + 1, token.line + 1 + token.word.count("\n")))
    lines, depth = [], level
    for number, line in enumerate(text.split("\n"), start=1):
        if number not in inside:
            bare = line.lstrip(_BLANKS)
            line = "    " * (depth - bare.startswith("}")) + bare if bare else ""
        lines.append(line if number + 1 in inside else line.rstrip(_BLANKS))
        depth += deeper[number]
    return "\n".join(lines).strip("\n") + "\n"


def _end_of_quoted(text: str, start: int, line: int) -> int:
    quote, at = text[start], start + 1
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == quote:
            after = text[at + 1 : at + 2]
            if after and after not in _BLANKS + ";{)":
                raise LexError(line + text.count("\n", start, at), f"has {after!r} right behind a closing quote. Put a blank between them")
            return at + 1
        else:
            at += 1
    raise LexError(line, f"has a {quote} that nothing closes")


def _end_of_bare(text: str, start: int, line: int) -> int:
    at, variable = start, False
    while at < len(text) and text[at] not in _BLANKS + ";{":
        if text[at] == "}" and not variable:
            # To nginx it is a letter like others; to whoever reads it, and to other parsers, the end of a block.
            raise LexError(line, "has a '}' in the middle of a word. Put the word in quotes")
        # A backslash takes what follows, and "${" opens a variable's name and no block.
        variable = text.startswith("${", at) or (variable and text[at] != "}")
        at += 2 if text[at] == "\\" or text.startswith("${", at) else 1
    return min(at, len(text))
