"""What the controller and the host agree on: the manifest of a generation."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.module_utils.generation import certificates_of, differences, no_manifest, with_part

STATE = {"drifted": [], "default_site": False, "generation": 3, "serving": 3, **dict.fromkeys(("installed", "entered", "fitted", "active", "enabled"), True)}


def published(certificates, scope="main", before=None):
    manifest = before or no_manifest()
    return with_part(manifest, scope, manifest["host"], {"sites": {}, "certificates": certificates, "files": {"sites/a.conf": "1"}})


@pytest.mark.parametrize("older", [["shop", "blog"], {"shop": ["shop.test"], "blog": []}])
def test_certificates_are_found_in_manifests_old_and_new(older):
    assert certificates_of(published(older)) == ["blog", "shop"]
    both = published({"api": ["api.test"], "shop": ["shop.test"]}, "other", published(older))
    assert certificates_of(both) == ["api", "blog", "shop"]


def test_a_manifest_from_before_there_were_server_names_is_replaced_once():
    old, new = published(["shop"]), published({"shop": ["shop.test"]})
    assert differences({**STATE, "manifest": old, "certificates": ["shop"]}, new, "main") == ["the manifest differs"]
    assert differences({**STATE, "manifest": new, "certificates": ["shop"]}, new, "main") == []


def test_a_certificate_that_the_host_lacks_is_told():
    new = published({"shop": ["shop.test"]})
    assert differences({**STATE, "manifest": new, "certificates": []}, new, "main") == ["the certificate shop has neither a lineage nor a placeholder"]
