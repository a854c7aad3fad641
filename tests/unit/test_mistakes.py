"""Mistakes in a real play: one message, in whichever list it is, before the host is touched.

Each case is a host at which nothing listens. Whoever touches it learns that it is unreachable.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from issued import DAY, Issued

APP = {"name": "shop", "source": {"git": "https://git.example.com/shop.git", "version": "v1"}, "app": "shop.wsgi:application"}
SITE = {"name": "shop", "server_names": ["shop.example.com"], "app": "shop"}
CERTIFICATE = {"name": "shop", "domains": ["shop.example.com"]}

# In base64 like a real one, and no key at all.
KEY = "-----BEGIN PRIVATE KEY-----\n" + "aHVudGVyMg" * 6 + "\n-----END PRIVATE KEY-----\n"
OWN = {"name": "shop", "issuer": "own", "certificate": "shop.pem", "key": KEY}

START = datetime.now(timezone.utc).replace(microsecond=0) - DAY
CA = Issued("CA", ca=True, start=START)
INTERMEDIATE = Issued("Intermediate", CA, ca=True, start=START)
STRANGER = Issued("Stranger", CA, ca=True, start=START)
LEAF = Issued("shop", INTERMEDIATE, ["shop.example.com"], start=START)
OTHER = Issued("blog", INTERMEDIATE, ["blog.example.com"], start=START)
PAST = Issued("past", INTERMEDIATE, ["shop.example.com"], start=START - 100 * DAY)


def brought(leaf, **keys):
    """Return the site's certificate as somebody brings it."""
    return {"certbot_overrides": [{**OWN, "certificate": leaf.pem, "key": leaf.key_pem, "chain": INTERMEDIATE.pem, **keys}]}


WILDCARD = {**SITE, "server_names": ["shop.example.com", "*.shop.example.com"]}

MISTAKES = {
    "key of an app": (
        {"gunicorn_apps": [{**APP, "worker": 4}]},
        'gunicorn_apps, entry "shop", key "worker": 4 is given to a key that does not exist. Did you mean "workers"?',
    ),
    "key of a site": (
        {"nginx_sites": [{**SITE, "server_name": "shop.example.com"}]},
        'nginx_sites, entry "shop", key "server_name": "shop.example.com" is given to a key that does not exist. Did you mean "server_names"?',
    ),
    "key of a certificate": (
        {"certbot_certificates": [{**CERTIFICATE, "domain": "shop.example.com"}]},
        'certbot_certificates, entry "shop", key "domain": "shop.example.com" is given to a key that does not exist. Did you mean "domains"?',
    ),
    "type in an app": ({"gunicorn_apps": [{**APP, "workers": "many"}]}, 'gunicorn_apps, entry "shop", key "workers": "many" is not a whole number.'),
    "type in a site": ({"nginx_sites": [{**SITE, "tls": "maybe"}]}, 'nginx_sites, entry "shop", key "tls": "maybe" is neither true nor false.'),
    "type in a certificate": (
        {"certbot_certificates": [{**CERTIFICATE, "domains": {"shop.example.com": None}}]},
        'certbot_certificates, entry "shop", key "domains": {"shop.example.com": null} is a dictionary, not text.',
    ),
    "missing in an app": ({"gunicorn_apps": [{"name": "shop", "source": APP["source"]}]}, 'gunicorn_apps, entry "shop", key "app": is missing. Every entry needs it.'),
    "missing in a site": ({"nginx_sites": [{"name": "shop", "app": "shop"}]}, 'nginx_sites, entry "shop", key "server_names": is missing. Every entry needs it.'),
    "missing in a certificate": ({"certbot_certificates": [{"domains": ["a.example.com"]}]}, 'certbot_certificates, entry 1, key "name": is missing. Every entry needs it.'),
    "an app that is not there": ({"nginx_sites": [{**SITE, "app": "shpo"}]}, 'nginx_sites, entry "shop", key "app": "shpo" is not an app of gunicorn_apps. Did you mean "shop"?'),
    "a key of an upstream": (
        {"nginx_upstreams": [{"name": "api", "servers": [{"address": "10.0.0.1:80", "wieght": 2}]}]},
        'nginx_upstreams, entry "api", key "servers.wieght": 2 is given to a key that does not exist. Did you mean "weight"?',
    ),
    "an upstream that is not there": (
        {"nginx_sites": [{"name": "shop", "server_names": ["shop.example.com"], "upstream": "api"}]},
        'nginx_sites, entry "shop", key "upstream": "api" is not an upstream of nginx_upstreams.',
    ),
    "twins among apps": ({"gunicorn_apps": [APP, APP]}, 'gunicorn_apps, entry 2, key "name": "shop" is the name of entry 1 too.'),
    "twins among sites": ({"nginx_sites": [SITE, {**SITE, "server_names": ["b.example.com"]}]}, 'nginx_sites, entry 2, key "name": "shop" is the name of entry 1 too.'),
    "twins among certificates": ({"certbot_certificates": [CERTIFICATE, CERTIFICATE]}, 'certbot_certificates, entry 2, key "name": "shop" is the name of entry 1 too.'),
    "a variable of sites": ({"nginx_siets": []}, 'The variable "nginx_siets" is not one of portico.web, but nearly "nginx_sites".'),
    "a variable of apps": ({"gunicorn_aps": []}, 'The variable "gunicorn_aps" is not one of portico.web, but nearly "gunicorn_apps".'),
    "a variable of certificates": ({"certbot_emial": "ops@example.com"}, 'The variable "certbot_emial" is not one of portico.web, but nearly "certbot_email".'),
    "no list": ({"nginx_sites": {"shop": SITE}}, "nginx_sites is a dictionary. Make it a list"),
    "no dictionary": ({"nginx_sites": ["shop"]}, 'nginx_sites, entry 1: "shop" is a text. Write its keys'),
    "nothing known of a template": ({"nginx_sites": "{{ my_sites }}"}, "nginx_sites cannot be templated: "),
    "a secret": ({"gunicorn_apps": [{**APP, "environment": {"KEY": ["hunter2"]}}]}, 'gunicorn_apps, entry "shop", key "environment'),
    "a port": ({"nginx_http_port": 70000}, "nginx_http_port: 70000 is not a port. Write a number from 1 to 65535."),
    "nginx's own text": ({"nginx_extra_config": "}"}, 'nginx_extra_config: "}" closes a block that it did not open. See its line 1: "}".'),
    "text of a site": ({"nginx_sites": [{**SITE, "extra_config": "gzip on"}]}, 'nginx_sites, entry "shop", key "extra_config": "gzip on" has a directive that does not end.'),
    "a template that is not there": ({"nginx_sites": [{**SITE, "template": "own.j2"}]}, 'nginx_sites, entry "shop", key "template": "own.j2" is not a file on the controller'),
    "an issuer": ({"nginx_sites": [{**SITE, "issuer": "self-signed"}]}, 'nginx_sites, entry "shop", key "issuer": "self-signed" is not one of its choices. Did you mean "self_signed"?'),
    "two issuers of one certificate": (
        {"nginx_sites": [SITE, {**SITE, "name": "b", "server_names": ["b.example.com"], "certificate": "shop", "issuer": "own"}]},
        'nginx_sites, entry "b", key "issuer": "own" is not what the site "shop" says of the certificate "shop" that they share ("acme").',
    ),
    "a variable of overrides": ({"certbot_override": []}, 'The variable "certbot_override" is not one of portico.web, but nearly "certbot_overrides".'),
    "no list of overrides": ({"certbot_overrides": {"shop": OWN}}, "certbot_overrides is a dictionary. Make it a list"),
    "key of an override": ({"certbot_overrides": [{"name": "shop", "isuer": "own"}]}, 'certbot_overrides, entry "shop", key "isuer": "own" is given to a key that does not exist. Did you mean "issuer"?'),
    "a secret of an override": ({"certbot_overrides": [{"name": "shop", "kye": "hunter2"}]}, 'certbot_overrides, entry "shop", key "kye": is given to a key that does not exist. Did you mean "key"?'),
    "type of a secret of an override": ({"certbot_overrides": [{"name": "shop", "key": ["hunter2"]}]}, 'certbot_overrides, entry "shop", key "key": is a list, not text.'),
    "an override of nothing": (
        {"certbot_overrides": [{**OWN, "name": "shpo"}]},
        'certbot_overrides, entry "shpo", key "name": "shpo" is no certificate that a site wants, and there are no domains to make it one of its own. Did you mean "shop"?',
    ),
    "a certificate of ones own that is not there": (
        {"certbot_overrides": [OWN]},
        'certbot_overrides, entry "shop", key "certificate": "shop.pem" cannot be read on the controller: No such file or directory. Give PEM, or the path of a PEM file',
    ),
    "a certificate of ones own that is none": ({"certbot_overrides": [{**OWN, "certificate": KEY}]}, 'certbot_overrides, entry "shop", key "certificate": has a private key in it.'),
    "a certificate of ones own without its key": (brought(LEAF, key=None), 'certbot_overrides, entry "shop", key "key": is missing.'),
    "a key that is anothers": (brought(LEAF, key=OTHER.key_pem), 'certbot_overrides, entry "shop", key "key": belongs to another certificate than the one of CN=shop.'),
    "a chain that is anothers": (brought(LEAF, chain=STRANGER.pem), 'certbot_overrides, entry "shop", key "chain": has a certificate that did not sign CN=shop (CN=Stranger).'),
    "names that are anothers": (
        brought(OTHER),
        'certbot_overrides, entry "shop", key "certificate": is not valid for shop.example.com. It is valid for blog.example.com: have one made',
    ),
    "a certificate that has expired": (brought(PAST), 'certbot_overrides, entry "shop", key "certificate": has expired (CN=past, on '),
    "one of ones own in the whole list": (
        {"certbot_certificates": [{**CERTIFICATE, "issuer": "own", "certificate": LEAF.pem, "key": OTHER.key_pem}]},
        'certbot_certificates, entry "shop", key "key": belongs to another certificate',
    ),
    "a key for a CA": (brought(LEAF, issuer="acme"), 'certbot_overrides, entry "shop", key "certificate": is given, and the issuer is acme.'),
    "a profile of ones own": (brought(LEAF, profile="tlsserver"), 'certbot_overrides, entry "shop", key "profile": is given, and the issuer is own.'),
    "a wildcard without DNS": (
        {"nginx_sites": [WILDCARD]},
        'certbot_certificates, entry "shop", key "domains": "*.shop.example.com" is a wildcard, which is proved through DNS. Say in certbot_dns how it is reached',
    ),
    "an override of a wildcard without DNS": (
        {"nginx_sites": [WILDCARD], "certbot_overrides": [{"name": "shop", "reuse_key": True}]},
        'certbot_overrides, entry "shop", key "domains": "*.shop.example.com" is a wildcard, which is proved through DNS. Say in certbot_dns how it is reached',
    ),
    "a wildcard by HTTP": (
        {"nginx_sites": [WILDCARD], "certbot_overrides": [{"name": "shop", "challenge": "http"}]},
        'certbot_overrides, entry "shop", key "domains": "*.shop.example.com" is a wildcard, which is only proved through DNS.',
    ),
    "half an EAB": ({"certbot_eab": {"kid": "k"}}, 'certbot_eab, key "hmac_key": is missing'),
    "an EAB that is no base64url": ({"certbot_eab": {"kid": "k", "hmac_key": "hunter2!"}}, 'certbot_eab, key "hmac_key": is not base64url.'),
    "credentials for DNS": (
        {"certbot_dns": {"plugin": "rfc2136", "credentials": {"secret": ["hunter2"]}}},
        'certbot_dns, key "credentials": has a value that is not a text of one line.',
    ),
    "an account": ({"certbot_account": "hunter2"}, "certbot_account: is not what portico.web.certbot_account has exported."),
    "a repository": ({"nginx_repository": {"channel": "stabel"}}, 'nginx_repository, key "channel": "stabel" is not one of its choices. Did you mean "stable"?'),
    "a key of a repository that is not there": (
        {"nginx_repository": {"url": "https://mirror.example.com/nginx", "key": "nginx.asc"}},
        'nginx_repository, key "key": "nginx.asc" cannot be read on the controller: No such file or directory. Give the key in ASCII armour',
    ),
    "a private key of a repository": (
        {"nginx_repository": {"url": "https://mirror.example.com/nginx", "key": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nhunter2\n-----END PGP PRIVATE KEY BLOCK-----\n"}},
        'nginx_repository, key "key": has a private key in it',
    ),
    "a password of a repository": ({"nginx_repository": {"url": "https://ann:hunter2@mirror.example.com/nginx"}}, 'nginx_repository, key "url": has a name or a password in it'),
    "a server of ACME": ({"certbot_server": "http://ca.example.com/dir"}, "certbot_server"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run one play with one host for each mistake, and return what each was told."""
    folder = tmp_path_factory.mktemp("mistakes")
    common = {"ansible_host": "127.0.0.1", "ansible_port": 1, "gunicorn_apps": [APP], "nginx_sites": [SITE]}
    hosts = {_host(case): {**common, **variables} for case, (variables, _message) in MISTAKES.items()}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    roles = [f"portico.web.{role}" for role in ("gunicorn", "nginx", "certbot")]
    play = [{"name": "Try", "hosts": "all", "gather_facts": False, "become": True, "roles": roles}]
    (folder / "play.yml").write_text(yaml.safe_dump(play))
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", folder / "inventory.yml", folder / "play.yml"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert "UNREACHABLE" not in run.stdout, run.stdout
    found = re.findall(r"^fatal: \[(\S+)\]: FAILED! => (.*)$", run.stdout, re.MULTILINE)
    return {host: json.loads(answer) for host, answer in found}, run.stdout + run.stderr


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_before_the_host_is_touched(told, case):
    messages, output = told
    assert _host(case) in messages, output
    assert MISTAKES[case][1] in messages[_host(case)]["msg"]


def test_a_secret_is_not_in_what_is_told(told):
    assert "hunter2" not in told[1]
    assert "aHVudGVyMg" not in told[1]
    for key in (LEAF.key_pem, OTHER.key_pem, PAST.key_pem):
        assert not any(line in told[1] for line in key.splitlines()[1:-1])


def _host(case):
    return case.replace(" ", "-")
