"""Access policies and limits: their mistakes, and what a site that names them is to nginx."""

from __future__ import annotations

import crossplane
import pytest

from ansible_collections.portico.web.plugins.module_utils.generation import shown
from ansible_collections.portico.web.plugins.plugin_utils import named, render
from ansible_collections.portico.web.plugins.plugin_utils.access import normalise_access
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.hashes import fits
from ansible_collections.portico.web.plugins.plugin_utils.limits import normalise_limits
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites

SETTINGS = {"http_port": 80, "https_port": 443, "extra_config": ""}
ANNA = {"name": "anna", "password": "hunter2"}
OFFICE = {"name": "office", "allow": ["192.0.2.0/24"]}
STAFF = {"name": "staff", "users": [ANNA], "realm": "Staff"}
EITHER = {"name": "either", "allow": ["192.0.2.0/24"], "users": [ANNA], "any": True}
PARTNERS = {"name": "partners", "clients": {"ca": "/etc/ssl/partners.pem"}}
ASKED = {"name": "asked", "ask": {"url": "http://127.0.0.1:4180/auth", "sign_in": "/start?rd=", "headers": ["X-User"]}}
POLICIES = [OFFICE, STAFF, EITHER, PARTNERS, ASKED]
BACKEND = "http://127.0.0.1:8000"


def policy(**keys):
    return [{"name": "staff", **keys}]


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (policy(), 'key "allow or deny or users or clients or ask": is missing'),
        ([{**OFFICE, "name": "nobody"}], 'key "name": "nobody" is there by itself'),
        (policy(allow=[]), 'key "allow": [] is empty'),
        (policy(allow=["office"]), 'key "allow": "office" is neither an address nor a network. Write one such as 192.0.2.7'),
        (policy(deny=["192.0.2.7/24"]), 'key "deny": "192.0.2.7/24" is an address with the size of its network. Write 192.0.2.0/24'),
        (policy(allow=["192.0.2.0/24; return 418"]), "is neither an address nor a network"),
        (policy(users=[{"name": "anna"}]), 'key "users[0].password": is missing. Write one of password and password_hash.'),
        (policy(users=[{**ANNA, "password_hash": "$6$abcdefgh$abcdefgh"}]), 'key "users[0].password and password_hash": are given together'),
        (policy(users=[ANNA, ANNA]), 'key "users[1].name": "anna" stands there twice'),
        (policy(users=[{**ANNA, "name": "an:na"}]), 'key "users.name": is not a user\'s name'),
        (policy(users=[{**ANNA, "password": "hunter2\n"}]), 'key "users.password": has a control character in it'),
        (policy(users=[{"name": "anna", "password_hash": "hunter2"}]), 'key "users.password_hash": is not a salted hash that nginx takes'),
        (policy(users=[{"name": "anna", "pasword": "hunter2"}]), 'key "users.pasword": is given to a key that does not exist. Did you mean "password"?'),
        (policy(users={"anna": "hunter2"}), 'key "users.anna": is given to a key that does not exist'),
        (policy(users=["anna:hunter2"]), 'key "users": is a text'),
        (policy(users=[{"name": "anna", "pw": "hunter2"}]), 'key "users.pw": is given to a key that does not exist'),
        (policy(users=[{"name": "anna:hunter2", "password": "a"}]), 'key "users.name": is not a user'),
        (policy(password="hunter2"), 'key "password": is given to a key that does not exist'),
        (policy(users=[ANNA], realm="OFF"), 'key "realm": "OFF" is what nginx calls no password at all'),
        (policy(users=[ANNA], ask=ASKED["ask"]), 'key "ask.sign_in": "/start?rd=" is not possible together with users'),
        (policy(ask={"url": "http://127.0.0.1:4180"}), 'key "ask.url": "http://127.0.0.1:4180" has no path'),
        (policy(allow=["fe80::1%eth0"]), "is neither an address nor a network"),
        (policy(users=[ANNA], any=True), 'key "any": true needs two of allow, users and ask'),
        ([{**EITHER, "deny": ["192.0.2.9"]}], 'key "any": true is not possible with deny'),
        ([{**EITHER, "clients": PARTNERS["clients"]}], 'key "any": true is not possible with clients'),
        (policy(clients={"ca": "partners.pem"}), 'key "clients.ca": "partners.pem" is not an absolute path'),
        (policy(clients={"ca": "/etc/ssl/p.pem", "depth": 0}), "has a depth that is not possible"),
        (policy(ask={"url": "https://127.0.0.1/auth"}), 'key "ask.url": "https://127.0.0.1/auth" has no host name'),
        (policy(ask={"url": "http://127.0.0.1/", "headers": ["Host"]}), 'key "ask.headers": "Host" is not a header that can be told to a backend'),
        (policy(ask={"url": "http://127.0.0.1/", "sign_in": "/$uri"}), "has a character that no URL has"),
    ],
)
def test_a_mistake_in_a_policy_names_entry_key_value_and_cure_and_no_secret(policies, message):
    with pytest.raises(PorticoError) as told:
        normalise_access(policies)
    assert str(told.value).startswith("nginx_access, entry ") and message in str(told.value)
    assert "hunter2" not in str(told.value) and "$6$" not in str(told.value)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({}, 'key "requests or connections": is missing'),
        ({"requests": "10"}, 'key "requests": "10" is not a rate. Write requests by the second or the minute, such as 10/s or 5/m.'),
        ({"requests": "0/s"}, "is not a rate"),
        ({"requests": "10/h"}, "is not a rate"),
        ({"requests": "5/s", "burst": -1}, 'key "burst": -1 is not possible'),
        ({"connections": 0}, 'key "connections": 0 is not possible. Write a number from 1 to 65535.'),
        ({"requests": "5/s", "methods": ["GET|POST"]}, 'key "methods": "GET|POST" is not a method'),
        ({"requests": "5/s", "methods": []}, 'key "methods": [] is empty'),
        ({"requests": "5/s", "except": ["here"]}, "is neither an address nor a network"),
        ({"requests": "5/s", "by": "cookie"}, "is not one of its choices"),
    ],
)
def test_a_mistake_in_a_limit_names_entry_key_value_and_cure(limit, message):
    with pytest.raises(PorticoError) as told:
        normalise_limits([{"name": "slow", **limit}])
    assert str(told.value).startswith('nginx_limits, entry "slow", ') and message in str(told.value)


def site(**keys):
    return {"name": "shop", "server_names": ["shop.example.com"], **({} if keys.keys() & {"locations", "answer", "redirect", "template"} else {"proxy": BACKEND}), **keys}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"access": "ofice"}, 'key "access": "ofice" is not an access policy of nginx_access. Did you mean "office"?'),
        ({"locations": [{"path": "/", "proxy": BACKEND, "access": "stuff"}]}, 'key "locations[0].access": "stuff" is not an access policy'),
        ({"limits": ["logn"]}, 'key "limits": "logn" is not a limit of nginx_limits. Did you mean "login"?'),
        ({"limits": ["dry", "api"]}, 'key "limits": ["dry", "api"] are not alike in dry_run'),
        ({"template": "own.conf.j2", "access": "office"}, 'key "access": "office" has no effect where a template of your own writes the site'),
        ({"tls": False, "access": "partners"}, 'key "access": "partners" asks for client certificates, which there are over TLS alone'),
        (
            {"access": "partners", "locations": [{"path": "/", "proxy": BACKEND, "access": "others"}]},
            'key "access": "partners and others" ask for certificates of different CAs',
        ),
        (
            {"locations": [{"path": "/", "proxy": BACKEND}, {"path": "/in/", "proxy": BACKEND, "access": "partners", "extra_config": "location /in/x/ { }"}]},
            'key "locations.extra_config": has a location inside of /in/, and nginx would ask nobody for a certificate there',
        ),
        ({"access": "asked", "extra_config": "location /x/ { location /x/y/ { proxy_pass http://127.0.0.1:9; } }"}, 'key "extra_config": leads to a backend'),
        (
            {"locations": [{"path": "/", "root": "/srv", "access": "asked", "extra_config": "location /x/ { proxy_pass http://127.0.0.1:9; }"}]},
            'key "locations.extra_config": leads to a backend inside of /,',
        ),
        ({"access": "asked", "extra_config": "include snippets/x.conf;"}, 'key "extra_config": leads to a backend, which would believe what visitors say of themselves'),
        (
            {"extra_config": "location ~* '\\.png$' { }", "locations": [{"path": "/", "proxy": BACKEND, "access": "office"}]},
            'key "extra_config": has a location with a regular expression, which nginx takes before /',
        ),
        ({"extra_config": "location ~ \\.php$ { }", "locations": [{"path": "/", "root": "/srv", "uploads": True}]}, 'key "extra_config": has a location with a regular expression'),
        (
            {"access": "partners", "extra_config": "location /x/ { }", "locations": [{"path": "/", "proxy": BACKEND, "access": "everybody"}]},
            'key "extra_config": has a location, and nginx would ask nobody for a certificate there',
        ),
    ],
)
def test_what_a_site_names_is_there_and_can_be_kept(keys, message):
    known = named.normalise({"access": [*POLICIES, {"name": "others", "clients": {"ca": "/etc/ssl/others.pem"}}], "limits": [{"name": "dry", "requests": "1/s", "dry_run": True}]})
    with pytest.raises(PorticoError) as told:
        normalise_sites([site(**keys)], [], named=known)
    assert str(told.value).startswith('nginx_sites, entry "shop", ') and message in str(told.value)


@pytest.fixture
def blocks(tmp_path):
    """The directives of a site's server block and of its locations, by path, each a list of words."""

    def blocks(known_limits=(), **keys):
        known = named.normalise({"access": POLICIES, "limits": list(known_limits)})
        (text,) = render.site_files(normalise_sites([site(**keys)], [], named=known), [], render.Host(), SETTINGS).values()
        (tmp_path / "site.conf").write_text(text)
        (parsed,) = crossplane.parse(str(tmp_path / "site.conf"), single=True, check_ctx=False, check_args=False)["config"]
        server = parsed["parsed"][0]["block"]
        found = {each["args"][-1]: words(each["block"]) for each in server if each["directive"] == "location"}
        return {"server": words(each for each in server if each["directive"] != "location"), **found}

    def words(block):
        return [" ".join([each["directive"], *each["args"]]) for each in block]

    return blocks


def test_what_a_site_says_is_said_once_and_its_locations_have_it(blocks):
    found = blocks(access="office", limits=["everything"], locations=[{"path": "/", "proxy": BACKEND}, {"path": "/a/", "root": "/srv"}])
    assert {"allow 192.0.2.0/24", "deny all", "limit_req zone=limit~main~everything burst=400 nodelay"} <= set(found["server"])
    assert not any(word.startswith(("allow", "deny", "limit")) for path in ("/", "/a/") for word in found[path])


@pytest.mark.parametrize(
    ("around", "inside", "said"),
    [
        ("office", "everybody", {"allow all"}),
        ("office", "nobody", {"deny all"}),
        ("office", "staff", {"allow all", "auth_basic Staff"}),
        ("staff", "office", {"allow 192.0.2.0/24", "deny all", "auth_basic off"}),
        ("either", "everybody", {"satisfy all", "allow all", "auth_basic off"}),
        ("office", "either", {"satisfy any", "allow 192.0.2.0/24", "deny all"}),
        ("asked", "everybody", {"auth_request off", "error_page 403 404 405 413 429 500 502 503 504 /.portico/page"}),
        ("staff", "asked", {"auth_basic off", "auth_request /.portico/ask/asked", "error_page 401 = @portico-sign-in-asked"}),
    ],
)
def test_a_location_takes_back_all_that_its_site_says_and_it_does_not(blocks, around, inside, said):
    assert said <= set(blocks(access=around, locations=[{"path": "/", "proxy": BACKEND, "access": inside}])["/"])


def test_a_location_with_headers_of_its_own_keeps_the_way_to_sign_in_and_every_page(blocks):
    keys = {"access": "asked", "error_pages": {404: "/srv/404.html"}, "extra_config": "error_page 405 /no.html;"}
    own = {"headers": {"X-A": "b"}, "extra_config": "error_page 502 = @mine;"}
    pages = [word for word in blocks(**keys, locations=[{"path": "/", "proxy": BACKEND, **own}])["/"] if word.startswith("error_page")]
    # The first that has a status counts: what somebody has written, then what is written around, then ours.
    assert pages == [
        "error_page 502 = @mine",
        "error_page 405 /no.html",
        "error_page 401 = @portico-sign-in-asked",
        "error_page 404 /.portico/page/404",
        "error_page 403 404 405 413 429 500 502 503 504 /.portico/page/at/1",
    ]
    assert not any(word.startswith("error_page") for word in blocks(**keys, locations=[{"path": "/", "proxy": BACKEND}])["/"])


def test_so_does_one_with_a_page_of_its_own(blocks):
    own = {"path": "/", "proxy": BACKEND, "extra_config": "error_page 404 = @mine;"}
    pages = [word for word in blocks(access="asked", locations=[own])["/"] if word.startswith("error_page")]
    assert pages == ["error_page 404 = @mine", "error_page 401 = @portico-sign-in-asked", "error_page 403 404 405 413 429 500 502 503 504 /.portico/page"]


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"access": "office"}, "^~ /a/"),
        ({"limits": ["login"]}, "^~ /a/"),
        ({"uploads": True}, "^~ /a/"),
        ({"access": "office", "exact": True, "path": "/a"}, "= /a"),
        ({"access": "everybody"}, "/a/"),
        ({"limits": []}, "/a/"),
        ({}, "/a/"),
    ],
)
def test_no_regular_expression_comes_before_what_is_asked_of_visitors(keys, place):
    known = named.normalise({"access": POLICIES})
    location = {"path": "/a/", "root": "/srv", **keys}
    written = site(locations=[{"path": "/", "proxy": BACKEND}, location], extra_config="location ~ \\.png$ { root /srv; }")
    (text,) = render.site_files(normalise_sites([written], [], named=known), [], render.Host(), SETTINGS).values()
    assert f"    location {place} {{\n" in text


def test_a_password_is_not_passed_on_unless_it_may_be_the_apps(blocks):
    hidden = "proxy_set_header Authorization "
    assert hidden in blocks(access="staff")["/"]
    assert hidden not in blocks(access="either")["/"] and hidden not in blocks()["/"]


def test_what_was_heard_of_a_visitor_is_told_and_what_it_says_itself_is_not(blocks):
    found = blocks(locations=[{"path": "/", "proxy": BACKEND}, {"path": "/in/", "proxy": BACKEND, "access": "asked"}])
    assert "proxy_set_header X-User " in found["/"]
    assert "proxy_set_header X-User $portico_told_x_user" in found["/in/"] and "auth_request_set $portico_told_x_user $upstream_http_x_user" in found["/in/"]


@pytest.mark.parametrize("does", [{"answer": {"text": "secret"}}, {"redirect": "https://example.com/secret"}])
def test_what_nginx_answers_itself_waits_until_it_is_known_who_asks(blocks, does):
    found = blocks(access="office", **does)
    assert found["/"] == ["root /dev/null", "try_files /- @portico-answer-1"]
    assert any("secret" in word for word in found["@portico-answer-1"])
    assert "@portico-answer-1" not in blocks(**does)


def test_client_certificates_are_asked_for_by_the_server_and_needed_where_it_is_said(blocks):
    everywhere = blocks(access="partners")
    assert {"ssl_client_certificate /etc/ssl/partners.pem", "ssl_verify_client optional", "if $portico_unverified"} <= set(everywhere["server"])
    one = blocks(locations=[{"path": "/", "proxy": BACKEND}, {"path": "/in/", "proxy": BACKEND, "access": "partners"}])
    assert "if $portico_unverified" not in one["server"] and "ssl_verify_client optional" in one["server"]
    assert "if $ssl_client_verify != SUCCESS" in one["/in/"] and "if $ssl_client_verify != SUCCESS" not in one["/"]


def test_the_limits_of_a_location_count_beside_its_sites_or_none_does(blocks):
    slow = {"name": "slow", "requests": "5/m", "burst": 2}
    found = blocks([slow], limits=["api"], locations=[{"path": "/", "proxy": BACKEND, "limits": ["slow"]}, {"path": "/free/", "proxy": BACKEND, "limits": []}])
    assert {"limit_req zone=limit~main~api burst=40 nodelay", "limit_req zone=limit~main~slow burst=2 nodelay", "set $portico_wait 12"} <= set(found["/"])
    assert "limit_req zone=portico_nobody" in found["/free/"]


def test_a_limit_of_the_users_own_takes_the_place_of_one_that_is_there():
    known = named.normalise({"limits": [{"name": "login", "requests": "3/m"}]})
    files = render.scope_files("main", known, normalise_sites([site(limits=["login"])], [], named=known))
    assert "rate=3r/m" in files["scopes/main.conf"] and "POST" not in files["scopes/main.conf"]


# What crypt(3) of libxcrypt made of it.
KNOWN = "$7$96..../....vBEKyddEeR9PXY140Bkgw1$SJSTm6VyVexXFQq5coDx9d9vzhoH8VQe13PAjRryKt7"


def test_a_hash_is_what_the_host_makes_of_the_password():
    assert fits("a b$c é", KNOWN) and not fits("a b$c e", KNOWN)
    assert not fits("a b$c é", "$6$abcdefgh$abcdefgh") and not fits("a b$c é", "")


def test_a_hash_that_fits_stays_and_another_password_gets_another_one():
    known = named.normalise({"access": [STAFF]})
    sites = normalise_sites([site(access="staff")], [], named=known)

    def made(there=None):
        return {path: text for path, text in render.scope_files("main", known, sites, there).items() if path.startswith("passwords/")}

    one, other = made(), made()
    (text,), (another,) = one.values(), other.values()
    assert text != another and text.startswith("anna:$7$") and fits("hunter2", text.removeprefix("anna:").rstrip())
    assert made(one) == one and made({"passwords/main/staff": f"anna:{KNOWN}\n"}) != one
    told = shown("passwords/main/staff", text)
    assert told.startswith("anna: a hash that is not shown (fingerprint ") and "$" not in told and told != shown("passwords/main/staff", another)
