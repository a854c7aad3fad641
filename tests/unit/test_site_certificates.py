"""The filter that makes certificates of sites, and what may differ for single ones."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from ansible.errors import AnsibleFilterError
from issued import DAY, Issued

from ansible_collections.portico.web.plugins.filter.site_certificates import FilterModule
from ansible_collections.portico.web.plugins.plugin_utils import lists
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError

SITES = [
    {"name": "shop", "server_names": ["shop.test", "www.shop.test"], "root": "/srv/shop"},
    {"name": "intern", "server_names": ["intern.test", "*.intern.test"], "root": "/srv/intern", "issuer": "self_signed"},
]
SHOP = {"name": "shop", "domains": ["shop.test", "www.shop.test"], "issuer": "acme"}
INTERN = {"name": "intern", "domains": ["intern.test", "*.intern.test"], "issuer": "self_signed"}

site_certificates = FilterModule().filters()["site_certificates"]


@pytest.mark.parametrize(
    ("overrides", "certificates"),
    [
        ([], [SHOP, INTERN]),
        (None, [SHOP, INTERN]),
        ([{"name": "shop"}], [SHOP, INTERN]),
        ([{"name": "shop", "issuer": "own", "certificate": "a.pem", "key": "k.pem"}], [{**SHOP, "issuer": "own", "certificate": "a.pem", "key": "k.pem"}, INTERN]),
        ([{"name": "shop", "domains": "Mail.test", "chain": None}], [{**SHOP, "domains": ["mail.test"]}, INTERN]),
        ([{"name": "mail", "domains": ["mail.test"]}], [SHOP, INTERN, {"name": "mail", "domains": ["mail.test"], "issuer": "acme"}]),
    ],
)
def test_an_override_is_laid_over_what_the_sites_want(overrides, certificates):
    assert site_certificates(SITES, overrides) == certificates


def test_without_sites_there_is_what_the_overrides_add():
    assert site_certificates([], [{"name": "mail", "domains": ["*.mail.test"], "issuer": "self_signed"}]) == [
        {"name": "mail", "domains": ["*.mail.test"], "issuer": "self_signed"}
    ]


MISTAKES = [
    ([{"name": "shpo", "key": "hunter2"}], 'certbot_overrides, entry "shpo", key "name": "shpo" is no certificate that a site wants', 'Did you mean "shop"?'),
    ([{"name": "x"}], "is no certificate that a site wants", "Known are: intern, shop."),
    ([{"name": "shop", "isuer": "own"}], 'certbot_overrides, entry "shop", key "isuer": "own" is given to a key that does not exist', 'Did you mean "issuer"?'),
    ([{"name": "shop", "kye": "hunter2"}], 'entry "shop", key "kye": is given to a key that does not exist', 'Did you mean "key"?'),
    ([{"name": "shop", "private_key": "hunter2"}], 'key "private_key": is given to a key that does not exist', ""),
    ([{"name": "shop", "key": ["hunter2"]}], 'entry "shop", key "key": is a list, not text', ""),
    ([{"name": "shop", "issuer": "me"}], 'key "issuer": "me" is not one of its choices', ""),
    ([{"name": "shop", "domains": ["a b"]}], 'key "domains": "a b" is not a host name', ""),
    ([{"name": "shop"}, {"name": "shop"}], 'certbot_overrides, entry 2, key "name": "shop" is the name of entry 1 too', ""),
    ([{"issuer": "own"}], 'certbot_overrides, entry 1, key "name": is missing', ""),
    ({"shop": {"key": "hunter2"}}, "certbot_overrides is a dictionary. Make it a list", ""),
]


@pytest.mark.parametrize(("overrides", "message", "cure"), MISTAKES)
def test_a_mistake_is_told_with_its_place_and_without_a_secret(overrides, message, cure):
    with pytest.raises(AnsibleFilterError) as told:
        site_certificates(SITES, overrides)
    assert message in str(told.value) and cure in str(told.value)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(("overrides", "message", "cure"), MISTAKES)
def test_a_mistake_is_told_by_the_lists_check_too(overrides, message, cure):
    with pytest.raises(PorticoError) as told:
        lists.check({"nginx_sites": SITES, "certbot_overrides": overrides}, str, str)
    assert message in str(told.value) and cure in str(told.value)
    assert "hunter2" not in str(told.value)


def test_what_is_brought_is_read_before_the_host_is_touched():
    start = datetime.now(timezone.utc) - DAY
    leaf = Issued("shop", Issued("CA", ca=True, start=start), ["*.test", "shop.test"], start=start)
    texts = {"shop.pem": leaf.pem, "shop.key": leaf.key_pem}
    override = {"name": "shop", "issuer": "own", "certificate": "shop.pem", "key": "shop.key"}

    def check(names):
        sites = [{"name": "shop", "server_names": names, "root": "/srv/shop"}]
        made = site_certificates(sites, [override])
        return lists.check({"nginx_sites": sites, "certbot_overrides": [override], "certbot_certificates": made}, str, texts.__getitem__).names

    assert check(["shop.test", "www.test"]) == ["nginx_sites", "certbot_overrides", "certbot_certificates"]
    with pytest.raises(PorticoError, match='certbot_overrides, entry "shop", key "certificate": is not valid for www.shop.test'):
        check(["shop.test", "www.shop.test"])


def test_a_wildcard_needs_no_dns_where_no_ca_is_asked():
    assert lists.check({"nginx_sites": SITES[1:], "certbot_certificates": site_certificates(SITES[1:])}, str, str)


def test_a_mistake_in_the_sites_is_the_sites():
    with pytest.raises(AnsibleFilterError, match='nginx_sites, entry 1, key "nam"'):
        site_certificates([{"nam": "x"}])
