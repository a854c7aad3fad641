"""nginx's text as nginx reads it."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.module_utils.lexer import LexError, check, indented, statements, tokens


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \t\n",
        "# a comment with } and ; and '",
        "gzip off;",
        "gzip off; # and a comment }",
        "if ($a = '}') { return 403; }",
        "if ($arg_a) {\n  set $b \"{;}\";\n}",
        "add_header X 'it\\'s; }';",
        "return 200 \"two\nlines } {\";",
        'rewrite "^/a{2}$" /b;',
        "set $a ${b}c;",
        "set $a b\\;c;",
        "set $a b\\{c;",
        "location ~ \\.php$ { deny all; }",
        "set $a a#b;",
        "set $a 'a\u00a0b'; # a\u00a0b",
        "set $a a'b;",
        "allow 127.0.0.1;deny all;",
    ],
)
def test_whole_directives_pass(text):
    check(text)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("}", 1, "closes a block"),
        ("gzip off;\n}\nserver {", 2, "closes a block"),
        ("if ($a) {\n  set $b c;", 1, "opens a block"),
        ("gzip off", 1, "does not end"),
        ("a b;\nc d", 2, "does not end"),
        ("a {\n b\n}", 2, "does not end"),
        ("a b; # c\n# d\ne", 3, "does not end"),
        ('a "b;', 1, "nothing closes"),
        ("x;\na 'b;\n", 2, "nothing closes"),
        ('a "b"c;', 1, "right behind"),
        (";", 1, "no directive"),
        ("a b;;", 1, "no directive"),
        ("{ }", 1, "no directive"),
        ("a b\\;", 1, "does not end"),
        ("a ${b;}", 1, "closes a block"),
        (f"a {'b' * 4100};", 1, "longer"),
        ("a b #c;\n", 1, "does not end"),
        ("\na b}c;", 2, "in quotes"),
        ("a ${b}};", 1, "in quotes"),
        ("a\u00a0b c;", 1, "has a blank .U.00A0. that is none to nginx"),
        ("a b;\nc d\u2028\"e;", 2, "has a blank .U.2028. that is none to nginx"),
    ],
)
def test_what_would_reach_out_is_refused(text, line, words):
    with pytest.raises(LexError, match=words) as told:
        check(text)
    assert told.value.line == line


def test_a_statement_knows_its_depth_words_and_line():
    text = 'a b;\n# c;\nd {\n  e "f;\n}" g;\n}\nh ${i};'
    assert list(statements(text)) == [(0, ["a", "b"], 1), (0, ["d"], 3), (1, ["e", "f;\n}", "g"], 4), (0, ["h", "${i}"], 7)]


def test_lines_are_indented_and_quoted_ones_left_alone():
    text = '\n\nif ($a) {\nset $b "one  \n  two";\n      # three\n\n   }\nc d;   \n'
    nice = '    if ($a) {\n        set $b "one  \n  two";\n        # three\n\n    }\n    c d;\n'
    assert indented(text, 1) == nice
    assert indented(nice, 1) == nice
    assert [token.word for token in tokens(text)] == [token.word for token in tokens(nice)]
