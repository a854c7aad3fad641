"""What those who look for mistakes in nginx's configuration find where nearly all is used."""

from __future__ import annotations

import re

import judges

EXPLAINED = {
    "ssl_ecdh_curve": "the group is named to an OpenSSL that has it, and to no other",
    "nginx_cves": "Debian mends nginx without changing its version",
    "add_header_redefinition": "a location that says one of these headers itself does so in place of its site's",
    "return_bypasses_allow_deny": "a file with a dot is a 404 for everybody; other answers are in named locations, where nginx goes after it has asked",
    "try_files_is_evil_too": "no file is looked for where nginx answers itself, a step later than it asks who may",
    "proxy_pass_normalized": "a path in a proxy's URL takes the place of the location's, which is what it is documented to do",
}


def test_gixy_finds_nothing_that_is_not_explained(host, tmp_path):
    found = judges.findings(host, tmp_path)
    assert found.keys() <= EXPLAINED.keys(), {check: found[check] for check in found.keys() - EXPLAINED.keys()}
    replaced = {name for reason in found.get("add_header_redefinition", []) for name in re.findall(r'"([^"]+)"', reason)}
    assert replaced <= {"cache-control", "referrer-policy", "x-frame-options", "permissions-policy", "content-security-policy", "content-security-policy-report-only"}
