"""The walk along a list's description, and the names of the variables themselves."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from unittest import mock

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template as trusted
from jinja2 import Undefined

from ansible_collections.portico.web.plugins.plugin_utils import entries, lists
from ansible_collections.portico.web.plugins.plugin_utils.action import Meanwhile, PorticoAction, Templated, is_plain
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError

DESCRIBED = {
    "name": {"type": "str", "required": True},
    "size": {"type": "int", "default": 3},
    "kind": {"type": "str", "choices": ["small", "large"], "default": "small"},
    "words": {"type": "list", "elements": "str"},
    "free": {"type": "dict"},
    "inner": {"type": "dict", "suboptions": {"on": {"type": "bool", "default": False}, "secret": {"type": "str"}}},
}


def normalise(*given, **more):
    return entries.normalise("things", list(given), DESCRIBED, **more)


def test_an_entry_comes_back_complete():
    assert normalise({"name": "a", "words": "one", "inner": {"on": "yes"}, "size": "4"}) == [
        {"name": "a", "size": 4, "kind": "small", "words": ["one"], "free": None, "inner": {"on": True, "secret": None}}
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "a", "size": "big"}, 'things, entry "a", key "size": "big" is not a whole number. Write digits alone, such as 30.'),
        ({"name": "a", "size": True}, 'key "size": true is not a whole number.'),
        ({"name": "a", "size": 1.5}, 'key "size": 1.5 is not a whole number.'),
        ({"name": "a", "kind": "smal"}, 'key "kind": "smal" is not one of its choices. Did you mean "small"?'),
        ({"name": 7}, 'things, entry 1, key "name": 7 is a number, not text. Write it in quotes.'),
        ({"name": "a", "words": ["x", {}]}, 'key "words[1]": {} is a dictionary, not text.'),
        ({"name": "a", "free": ["x"]}, 'key "free": ["x"] is a list. Write keys and values below it.'),
        ({"name": "a", "inner": {"onn": True}}, 'key "inner.onn": true is given to a key that does not exist. Did you mean "on"?'),
        ({"name": "a", 5: "x"}, 'key "5": "x" is given to a key that does not exist.'),
        ({"name": "a", "size": "9" * 200}, None),
    ],
)
def test_a_mistake_is_told_whole(entry, message):
    if message is None:
        assert normalise(entry)
        return
    with pytest.raises(PorticoError) as error:
        normalise(entry)
    assert message in str(error.value)


def test_a_secret_value_is_never_shown():
    with pytest.raises(PorticoError) as error:
        normalise({"name": "a", "inner": {"secret": ["hunter2"]}}, secret=["inner"])
    assert "hunter2" not in str(error.value) and '"inner.secret"' in str(error.value)


def test_a_value_that_is_vaulted_by_itself_is_text():
    class Vaulted:
        """What ansible-core before 2.19 makes of it."""

        __ENCRYPTED__ = True

        def __str__(self):
            return "hunter2"

    (entry,) = normalise({"name": "a", "inner": {"secret": Vaulted()}, "free": {"PASSWORD": Vaulted()}})
    assert (entry["inner"]["secret"], entry["free"]["PASSWORD"]) == ("hunter2", "hunter2")


@pytest.mark.parametrize("key", ["secrt", "my_secret", "SECRET"])
def test_a_value_given_to_what_may_be_a_secrets_key_is_never_shown(key):
    with pytest.raises(PorticoError, match=f'"inner.{key}": is given to a key that does not exist') as error:
        normalise({"name": "a", "inner": {key: "hunter2"}}, secret=["inner.secret"])
    assert "hunter2" not in str(error.value)
    with pytest.raises(PorticoError, match='"inner.no": "hunter2" is given to a key'):
        normalise({"name": "a", "inner": {"no": "hunter2"}}, secret=["inner.secret"])


def test_a_private_key_is_never_shown():
    with pytest.raises(PorticoError, match='key "size": a private key is not a whole number') as error:
        normalise({"name": "a", "size": "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE"})
    assert "MHcCAQEE" not in str(error.value)


def test_a_long_value_is_cut():
    assert len(entries.shown("x" * 1000)) == 80


@pytest.mark.parametrize(
    ("one", "other", "letters"),
    [("nginx_siets", "nginx_sites", 1), ("ngnix_sites", "nginx_sites", 1), ("nginx_site", "nginx_sites", 1), ("nginxsite", "nginx_sites", 2), ("abc", "abc", 0), ("nginx_users", "nginx_sites", 3)],
)
def test_the_distance_counts_letters(one, other, letters):
    assert entries.distance(one, other, 2) == letters == entries.distance(other, one, 2)


def steps(one, other):
    """The optimal string alignment distance, as it is defined."""
    if not one or not other:
        return len(one) + len(other)
    found = [steps(one[1:], other) + 1, steps(one, other[1:]) + 1, steps(one[1:], other[1:]) + (one[0] != other[0])]
    if one[:2] == other[1::-1] and len(one) > 1:
        found.append(steps(one[2:], other[2:]) + 1)
    return min(found)


def test_what_is_passed_over_quickly_is_far_away():
    words = ["".join(letters) for length in range(5) for letters in itertools.product("abc", repeat=length)]
    words += [word.replace("a", "xyz") for word in words if len(word) < 4]
    pairs = list(itertools.combinations(words, 2))[::7]
    wrong = [(one, other) for one, other in pairs if min(entries.distance(one, other, 2), 3) != min(steps(one, other), 3)]
    assert len(pairs) > 1000 and not wrong


@pytest.mark.parametrize("name", ["nginx_siets", "nginx_site", "gunicorn_app", "gunicorn_aps", "certbot_certificate", "certbot_emial"])
def test_a_variable_that_is_nearly_ours_is_refused(name):
    with pytest.raises(PorticoError, match=name):
        lists.refuse_near_misses([name, "hostvars"])


@pytest.mark.parametrize("name", ["nginx_sites", "nginx_vhosts", "nginx_user", "certbot_auto_renew", "sites", "__nginx_sites"])
def test_other_variables_are_none_of_our_business(name):
    lists.refuse_near_misses([name])


def test_mistakes_are_told_in_the_list_where_they_were_made():
    variables = {"gunicorn_apps": [{"name": "shop"}], "nginx_sites": [{"nam": "x"}]}
    with pytest.raises(PorticoError, match="gunicorn_apps"):
        lists.check(variables, str, str)
    with pytest.raises(PorticoError, match='nginx_sites, entry 1, key "nam"'):
        lists.check({"nginx_sites": [{"nam": "x"}]}, str, str)


def test_what_was_checked_comes_back_complete_and_templated_once():
    class Templar:
        asked = []

        def template(self, value):
            self.asked.append(value)
            return self.made[value]

        made = {"{{ all_of_them }}": [{"name": "shop", "server_names": ["shop.test"], "root": "/srv/shop"}], "{{ no_app }}": []}

    variables = {"nginx_sites": "{{ all_of_them }}", "nginx_apps": "{{ no_app }}", "other": "{{ whatever }}"}
    checked = lists.check(Templated(variables, Templar()), str, str)
    assert checked.names == ["nginx_apps", "nginx_sites"]
    assert checked.apps == []
    assert [site["server_names"] for site in checked.sites] == [["shop.test"]]
    assert Templar.asked == ["{{ no_app }}", "{{ all_of_them }}"]


class Answers:
    """Answers every template, and notes what it is asked for."""

    def __init__(self):
        self.asked = []

    def template(self, value):
        self.asked.append(value)
        return ["answered"] * len(value) if isinstance(value, list) else "answered"


PLAIN = {"name": "a", "words": ["b", {"c": None}], "size": 3, "share": 0.5, "on": True, "text": "{ } {not one} }} %}"}


@pytest.mark.parametrize("value", ["text", 3, None, [], PLAIN, [PLAIN, PLAIN]])
def test_ansible_is_not_asked_for_what_has_no_template(value):
    answers = Answers()
    assert Templated({"it": value}, answers)["it"] is value
    assert answers.asked == []


@pytest.mark.parametrize("text", ["{{ a }}", "b {% if c %}", "{#", "#jinja2: variable_start_string: '[%'\n[% a %]"])
@pytest.mark.parametrize("around", [lambda text: text, lambda text: {"a": {"b": [text]}}], ids=["alone", "inside"])
def test_ansible_is_asked_for_whatever_may_be_a_template(around, text):
    answers = Answers()
    assert Templated({"it": around(text)}, answers)["it"] == "answered"
    assert answers.asked == [around(text)]


def test_ansible_is_asked_for_those_entries_that_have_a_template_and_their_order_stays():
    one, two = {"name": "{{ one }}"}, {"name": "a", "words": ["{{ two }}"]}
    answers = Answers()
    assert Templated({"it": [PLAIN, one, two, PLAIN, two]}, answers)["it"] == [PLAIN, "answered", "answered", PLAIN, "answered"]
    assert answers.asked == [[one, two], [two]]


def test_ansible_is_asked_for_what_is_of_no_plain_type():
    class Lazy(dict):
        """As Ansible has some: it makes what is looked at when it is looked at."""

    for value in (Lazy(a=1), [Lazy()], {"a": object()}, ("a",), {"a": Undefined()}):
        answers = Answers()
        Templated({"it": value}, answers)["it"]
        assert answers.asked == [value]


WRITTEN = """
- {name: a, port: 80, share: 0.5, "on": true, none: , words: [b, "c d"], inner: {deep: [{e: f}]}}
- {name: "{{ word }}", words: ["{{ words }}", "{{ omit }}", x], when: 2026-01-02}
- "{{ omit }}"
- {name: b}
- {name: c, text: "{{ word }}"}
"""


def types(value):
    inside = [types(each) for each in (value.values() if isinstance(value, dict) else value)] if isinstance(value, (dict, list)) else []
    return type(value), inside


@pytest.mark.parametrize("written", [WRITTEN, "[{name: a}, {name: b, words: [c]}]", "text", '"{{ words }}"', "{a: {b: '{{ word }}'}}"])
def test_it_is_what_ansible_would_have_made_of_it(written):
    loader = DataLoader()
    variables = {"it": loader.load(written), "word": trusted("w"), "words": [trusted("{{ word }}"), "v"]}
    made = Templated(variables, Templar(loader=loader, variables=variables))["it"]
    expected = Templar(loader=loader, variables=variables).template(variables["it"])
    # A list that was put together has no file and line of its own, which nobody asks for.
    assert (made, types(made)[1]) == (expected, types(expected)[1])


def test_what_ansible_reads_from_a_file_is_plain_and_what_is_vaulted_is_not():
    """Otherwise all would be templated as before, and nobody would notice but for the time that it takes."""
    loader = DataLoader()
    assert is_plain(loader.load("- {name: a, port: 80, share: 0.5, 'on': true, none: , words: [b], inner: {c: d}}"))
    assert not is_plain(loader.load("- name: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    6162\n"))


def test_every_list_is_known_as_a_variable():
    assert {"gunicorn_apps", "nginx_apps", "nginx_sites", "certbot_certificates", "certbot_overrides"} <= lists.variables_of_ours()


def test_documented_defaults_are_of_their_documented_types():
    """A default that the walk itself would refuse could never be written by hand."""
    for module, option in (("nginx_publish", "sites"), ("gunicorn_deploy", "apps"), ("certbot_certificate", "certificates")):
        for key, described in entries.options(module, option).items():
            assert described.get("description"), f"{module}: {key}"
            if "default" in described:
                assert entries._Walk("x", {}, frozenset())._value(key, None, described) is not None, f"{module}: {key}"


class Asks(PorticoAction):
    """An action plugin whose host is not there: it answers nothing, and says when it is asked."""

    def __init__(self):
        pass


def test_work_begins_when_the_host_is_asked_and_is_done_once(monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(PorticoAction.__base__, "_low_level_execute_command", lambda _self, command: asked.set() or {"stdout": command})
    action, done = Asks(), []

    def work():
        # Were it not done beside the question, this would wait in vain.
        assert asked.wait(10)
        done.append("work")
        return "result"

    action._meanwhile = Meanwhile(work)
    assert not done
    assert action._low_level_execute_command("one") == {"stdout": "one"}
    assert action._low_level_execute_command("two") == {"stdout": "two"}
    assert (action._meanwhile.result(), action._meanwhile.result(), done) == ("result", "result", ["work"])


def test_what_has_not_begun_is_done_when_its_result_is_wanted():
    assert Meanwhile(lambda: "result").result() == "result"


def test_where_there_may_be_no_more_threads_work_is_done_all_the_same(monkeypatch):
    def refused(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    done = []
    work = Meanwhile(lambda: done.append("work") or "result")
    work.begin()
    assert not done
    assert (work.result(), work.result(), done) == ("result", "result", ["work"])


def test_what_work_raises_is_raised_where_its_result_is_wanted():
    failing = Meanwhile(lambda: {}["missing"])
    failing.begin()
    for _again in range(2):
        with pytest.raises(KeyError, match="missing"):
            failing.result()


@pytest.mark.parametrize("on", [True, False])
def test_nothing_is_collected_while_a_task_works_and_afterwards_all_is_as_before(on):
    class Action(PorticoAction):
        def __init__(self):
            self._task = SimpleNamespace(args={})

        def _act(self, args, task_vars):
            self.was_on = gc.isenabled()
            raise PorticoError("a mistake")

    action = Action()
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with mock.patch.object(ActionBase, "run", return_value={}):
            assert action.run() == {"failed": True, "msg": "a mistake"}
        assert (action.was_on, gc.isenabled()) == (False, on)
    finally:
        (gc.enable if before else gc.disable)()


def test_where_there_are_no_apps_nothing_of_them_is_read():
    asked = "import sys; from ansible_collections.portico.web.plugins.plugin_utils import lists; lists.check({'nginx_apps': [], 'nginx_sites': []}, str, str)"
    found = subprocess.run([sys.executable, "-c", f"{asked}; print([name for name in sys.modules if name.endswith('.apps')])"], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
    with pytest.raises(PorticoError, match="nginx_apps"):
        lists.checked_apps({}, variable="nginx_apps")
