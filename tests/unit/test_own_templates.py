"""A site's file from a template of somebody's own."""

from __future__ import annotations

import crossplane
import pytest

from ansible_collections.portico.web.plugins.plugin_utils import render
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites

SETTINGS = {"http_port": 80, "https_port": 443, "extra_config": ""}


@pytest.fixture
def made(tmp_path):
    """Render a site by a template of that text, beside which another lies."""
    (tmp_path / "beside.j2").write_text("# beside\nset $a {{ word }};\n")

    def make(text, **variables):
        (tmp_path / "own.conf.j2").write_text(text)
        sites = normalise_sites([{"name": "shop", "server_names": ["shop.example.com"], "template": "own.conf.j2"}], [])
        files = render.site_files(sites, [], render.Host(), SETTINGS, variables, lambda path: str(tmp_path / path))
        return files["sites/shop.conf"]

    return make


def test_it_includes_ours_and_what_lies_beside_it(made, tmp_path):
    text = made('server {\n{% include "listen.conf.j2" %}\n    server_name {{ site.server_names }};\n{% include "beside.j2" %}\n}\n', word="a b")
    (tmp_path / "made.conf").write_text(text)
    (parsed,) = crossplane.parse(str(tmp_path / "made.conf"), single=True, check_ctx=False, check_args=False)["config"]
    block = {each["directive"]: each["args"] for each in parsed["parsed"][0]["block"]}
    assert block["server_name"] == ["shop.example.com"] and block["set"] == ["$a", "a b"] and block["include"] == ["portico/listens-tls.conf"]


@pytest.mark.parametrize(("theirs", "is_stapled"), [("", True), ("ssl_stapling on;", False), ("include snippets/tls.conf;", False)])
def test_what_it_says_of_stapling_itself_is_not_said_twice(made, theirs, is_stapled):
    text = made('include more.conf;\nserver {\n{% include "certificate.conf.j2" %}\n' + theirs + "\n}\n")
    assert ("/stapling*.conf;" in text) is is_stapled and "/transport.conf;" in text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("word | regex_replace('a', 'b')", "b"),
        ("word | b64encode", "YQ=="),
        ("missing | default('c d')", '"c d"'),
        ("[word, 'x;y'] | join(' ')", '"a x;y"'),
        ("hostvars_like.one | upper", "TWO"),
        ("'on' if word is match('a') else 'off'", "on"),
        ("true", "on"),
    ],
)
def test_ansibles_filters_and_the_plays_variables_are_at_hand(made, expression, text):
    assert made(f"set $a {{{{ {expression} }}}};", word="a", hostvars_like={"one": "two"}) == f"set $a {text};\n"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% if %}", "is no template"),
        ("a;\n{{ nothing_of_that_name }};", "fails in line 2: 'nothing_of_that_name' is undefined"),
        ("{{ 1 // 0 }};", "fails in line 1"),
        ("{{ site | no_filter_has_this_name }};", "no_filter_has_this_name"),
        ('{% include "nowhere.j2" %}', "includes nowhere.j2"),
        ("server {", "makes text that opens a block that it does not close. See its line 1"),
        ("{{ '}' | safe }}", "makes text that closes a block"),
        ("set $a {{ '$b' }};", "fails in line 1"),
        ("{{ lookup('pipe', 'id') }};", "'lookup' is undefined"),
    ],
)
def test_a_template_that_fails_is_named_with_the_reason(made, template, words):
    with pytest.raises(PorticoError) as told:
        made(template)
    assert 'nginx_sites, entry "shop", key "template": "own.conf.j2"' in str(told.value)
    assert words in str(told.value)


def test_what_lies_beside_it_comes_before_ours_in_what_ours_include_too(made, tmp_path):
    (tmp_path / "listen.conf.j2").write_text("    listen 8080;\n")
    text = made('{% include "aliases.conf.j2" %}')
    assert "listen 8080;" in text and "portico/listens.conf" not in text


def test_a_key_that_is_called_like_what_every_dictionary_can_hides_nothing(made):
    given = {"items": 1, "a": "b"}
    assert made("{% for key, value in given.items() %}\nset ${{ key | bare | safe }} {{ value }};\n{% endfor %}\nset $c {{ given.a }};\n", given=given) == "set $items 1;\nset $a b;\nset $c b;\n"
