"""A site of three lines with an application, as those see it who look for what is wrong with others' TLS."""

from __future__ import annotations

import json

import pytest
import testinfra
from conftest import containers


@pytest.fixture(scope="module")
def judge():
    return testinfra.get_host(f"docker://{containers('judges')[0]}")


@pytest.fixture(scope="module")
def site(name):
    return f"guestbook.{name}.example.test"


def test_testssl_says_a_plus(judge, address, site, name):
    report = f"/root/{name}.json"
    done = judge.run("testssl --color 0 --quiet --warnings off --add-ca /root/root.pem --ip %s --jsonfile %s https://%s/", address, report, site)
    found = {each["id"]: each for each in json.loads(judge.check_output("cat %s", report))}
    assert found["overall_grade"]["finding"] == "A+", done.stdout
    bad = {key: each["finding"] for key, each in found.items() if each["severity"] in ("HIGH", "CRITICAL")}
    # This CA says nowhere what it has revoked.
    assert bad.keys() <= {"cert_revocation", "cert_revocation <hostCert#1>"}, bad


def test_sslyze_finds_mozillas_intermediate_profile(judge, address, site):
    done = judge.run("/opt/sslyze/bin/sslyze --certinfo_ca_file /root/root.pem --mozilla_config intermediate --sni %s %s:443", site, address)
    assert done.rc == 0 and "Compliant" in done.stdout, done.stdout


def test_the_post_quantum_group_is_taken_where_the_server_has_it(judge, host, address, site):
    said = judge.run("openssl s_client -connect %s -servername %s </dev/null 2>&1", f"{address}:443", site).stdout
    assert ("X25519MLKEM768" in said) == (host.check_output("openssl version").split()[1] >= "3.5"), said


@pytest.mark.parametrize(("which", "grades"), [("static", ["A+"]), ("proxied", ["A+", "A", "A-", "B+", "B"])])
def test_the_observatory_says_a_plus_of_files_and_no_worse_than_b_of_what_says_nothing(judge, address, name, which, grades):
    """An application's Content-Security-Policy is the application's business, and costs a grade."""
    site = f"{which}.{name}.example.test"
    judge.check_output("echo %s >>/etc/hosts", f"{address} {site}")
    done = judge.run("cd /opt/node_modules/@mdn/mdn-http-observatory && NODE_EXTRA_CA_CERTS=/root/root.pem node src/scan.js %s", site)
    scan = json.loads(done.stdout)["scan"]
    assert scan["grade"] in grades, done.stdout
