"""The headers of a site: what people may write, and what each level then sends."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites


def site(**keys):
    return {"name": "shop", "server_names": ["shop.example.com"], **({} if "locations" in keys else {"root": "/srv"}), **keys}


def only(**keys):
    (complete,) = normalise_sites([site(**keys)], [])
    return complete


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"headers": {"X A": "b"}}, 'key "headers": {"X A": "b"} has "X A", which is not the name of a header'),
        ({"headers": {"X-A": 1}}, "has a value of X-A that is not text: 1. Write it in quotes."),
        ({"headers": {"X-A": "a\nX-B: c"}}, "that has a control character (U+000A) in it"),
        ({"headers": {"X-A": "$host"}}, "has a '$', which nginx would read as a variable"),
        ({"headers": {"X-A": "é"}}, "Write ASCII alone"),
        ({"headers": {"X-A": "  "}}, "that has nothing but blanks in it"),
        ({"csp": " "}, 'key "csp": " " has nothing but blanks in it'),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "has x-a twice"),
        ({"headers": {"Strict-Transport-Security": "max-age=1"}}, 'has Strict-Transport-Security. Say it with the key "hsts".'),
        ({"headers": {"Content-Security-Policy": "a"}}, 'Say it with the key "csp".'),
        ({"headers": {"Content-Type": "text/html"}}, "has Content-Type, which nginx makes itself"),
        ({"headers": ["X-A: b"]}, 'key "headers"'),
        ({"hide_headers": "X A"}, 'key "hide_headers": "X A" is not the name of a header'),
        ({"csp": "a; $b"}, 'key "csp": "a; $b" has a \'$\''),
        ({"hsts": {"max_age": -1}}, "has a max_age that is not between 0 and ten years"),
        ({"hsts": {"preload": True}}, "has preload, which the list takes only with include_subdomains: true and a max_age of a year"),
        ({"hsts": {"max_age": 300, "preload": True, "include_subdomains": True}}, "has preload"),
        ({"hsts": {"subdomains": True}}, 'key "hsts.subdomains": true is given to a key that does not exist. Did you mean "include_subdomains"?'),
    ],
)
def test_a_mistake_is_told(keys, message):
    with pytest.raises(PorticoError) as told:
        normalise_sites([site(**keys)], [])
    assert 'nginx_sites, entry "shop", key "' in str(told.value) and message in str(told.value)


def test_a_header_replaces_a_safe_one_and_a_backends():
    sends = only(headers={"x-frame-options": "DENY", "Referrer-Policy": "", "X-A": "b"}).get("sends")
    assert not sends.standard
    kept = [("X-Content-Type-Options", "$portico_content_type_options"), ("X-Request-ID", "$portico_request_id_sent"), ("Retry-After", "$portico_retry_after"), ("Cache-Control", "$portico_cache_control"), ("Alt-Svc", "$portico_alternative"), ("X-Cache", "$upstream_cache_status")]
    assert sends.headers == [*kept, ("x-frame-options", "DENY"), ("X-A", "b")]
    assert sends.hidden == ["X-A", "x-frame-options"]


def test_what_is_hidden_of_a_backend_is_not_lost():
    complete = only(hide_headers=["x-frame-options", "Strict-Transport-Security"])
    # Their variables look at what is sent, and not at what a backend has said.
    assert complete["sends"].standard and complete["promise"] == "$portico_promise"
    assert "Strict-Transport-Security" in only(hsts={})["sends"].hidden


def test_what_a_site_adds_by_itself_is_said_again_where_a_location_adds_something():
    extra = "add_header X-Site 'a; }' always;\nif ($arg_a) { add_header X-If 1; }\nproxy_hide_header X-Secret;"
    plain, more = only(extra_config=extra, locations=[{"path": "/", "root": "/srv"}, {"path": "/a/", "root": "/srv", "csp": "sandbox"}])["locations"]
    assert plain["repeated"] == []
    assert more["repeated"] == ["add_header X-Site 'a; }' always;", "proxy_hide_header X-Secret;"]


def test_a_locations_headers_are_added_to_its_sites():
    complete = only(
        headers={"X-A": "1", "X-B": "2"},
        csp="default-src 'self'",
        hide_headers=["X-Powered-By"],
        locations=[
            {"path": "/", "root": "/srv"},
            {"path": "/a/", "root": "/srv", "headers": {"x-b": "3", "X-C": "4"}, "hide_headers": ["X-Runtime"]},
            {"path": "/b/", "root": "/srv", "csp": "", "csp_report_only": "default-src 'none'"},
            {"path": "/c/", "root": "/srv", "extra_config": "add_header X-D 5;"},
        ],
    )
    plain, more, other, own = (location["sends"] for location in complete["locations"])
    policy = ("Content-Security-Policy", "default-src 'self'")
    assert plain is None
    assert more.headers == [("X-A", "1"), ("x-b", "3"), policy, ("X-C", "4")]
    assert more.hidden == ["Content-Security-Policy", "X-A", "x-b", "X-C", "X-Powered-By", "X-Runtime"]
    assert other.headers == [("X-A", "1"), ("X-B", "2"), ("Content-Security-Policy-Report-Only", "default-src 'none'")]
    assert own.standard and own.headers == [("X-A", "1"), ("X-B", "2"), policy]


@pytest.mark.parametrize(
    ("hsts", "text"),
    [
        (None, None),
        ({}, None),
        ({"include_subdomains": False}, None),
        ({"include_subdomains": True}, "max-age=63072000; includeSubDomains"),
        ({"max_age": 31536000, "include_subdomains": True, "preload": True}, "max-age=31536000; includeSubDomains; preload"),
        ({"max_age": 0}, "max-age=0"),
    ],
)
def test_a_promise_is_what_is_said(hsts, text):
    complete = only(hsts=hsts)
    assert complete["own_promise"] == text
    assert (complete["promise"] == "$portico_promise") == (text is None)
    # What is said counts instead of what a backend says.
    assert ("Strict-Transport-Security" in complete["sends"].hidden) == (hsts is not None)


@pytest.mark.parametrize(
    ("around", "inside", "kept"),
    [
        ({}, {"uploads": True}, []),
        ({}, {"uploads": True, "headers": {"cache-control": "no-store"}}, ["no-store"]),
        ({"headers": {"Cache-Control": "private"}}, {"uploads": True}, ["private"]),
        ({"headers": {"Cache-Control": "private"}}, {"immutable": False}, ["private"]),
        ({"headers": {"Cache-Control": "private"}}, {"immutable": True}, ["$portico_lasting"]),
        ({}, {"immutable": False}, []),
    ],
)
def test_what_is_said_of_keeping_files_is_not_taken_out_with_what_is_said_by_itself(around, inside, kept):
    complete = only(**around, locations=[{"path": "/", "root": "/srv"}, {"path": "/media/", "root": "/srv", **inside}])
    # A location without headers of its own has its site's.
    sends = complete["locations"][1]["sends"] or complete["sends"]
    assert [text for name, text in sends.headers if name.lower() == "cache-control"] == kept
