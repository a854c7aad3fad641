#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: certbot_certificate
short_description: Obtain certificates over ACME with certbot, and have nginx serve them
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Compares all certificates with those that the host has, in one call, and obtains those that are missing or different
    and named in O(obtain). What a certificate is, is read from its X.509 files and certbot's renewal configuration.
  - A lineage whose names or key change is changed in place. One that was made by hand before, with the same names and from
    the same CA, is used as it is, and its renewal is set up as the play says.
  - A certificate that is there is served through a symlink, which is moved from the placeholder to the lineage. nginx
    reloads then, and is never restarted.
  - It also keeps what renewal needs. That is one timer with a random delay, whatever way certbot was installed; the host's own
    tool C(portico-certificates), which renews, compares what nginx serves with what lies on the disk, reloads where they differ,
    and raises an alarm where they still do; and a second timer that has it do so every quarter of an hour.
  - Where certbot is missing it is installed, as O(install) says.
options:
  certificates:
    description:
      - The certificates that this scope has on the host. Lineages that no list has named are left alone.
      - What happens to one that is no longer in the list, O(removed) says.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - The lineage's name, by which sites refer to the certificate.
          - Letters, digits, dots, underscores and hyphens; at most 64 of them.
        type: str
        required: true
      domains:
        description:
          - The host names that the certificate is valid for, 100 at most.
          - A wildcard, such as V(*.example.com), is proved through DNS, with O(dns) or O(certificates[].hooks).
          - A name in other letters than ASCII is written in its C(xn--) form.
        type: list
        elements: str
        required: true
      issuer:
        description:
          - V(acme) obtains it with certbot.
          - V(own) takes O(certificates[].certificate) and O(certificates[].key).
          - V(self_signed) has the host make it, and make it again in time. Browsers do not trust it, so that nothing permanent
            is sent to visitors (no 301, no HSTS).
        type: str
        choices: [acme, own, self_signed]
        default: acme
      server:
        description: As O(server), for this certificate.
        type: str
      key_types:
        description:
          - The kinds of key. With both, two certificates are obtained, V(NAME) and V(NAME-rsa), and nginx serves to each visitor
            what it can verify.
          - If not given, a new certificate has an ECDSA key, and one that is there already keeps the kind it has.
        type: list
        elements: str
        choices: [ecdsa, rsa]
      ecdsa_size:
        description: The size of an ECDSA key in bits, that is its curve. If not given, a new one has 256.
        type: int
        choices: [256, 384]
      rsa_size:
        description: The size of an RSA key in bits. If not given, a new one has 2048.
        type: int
        choices: [2048, 3072, 4096]
      reuse_key:
        description: Whether renewals keep the private key, for those who pin it. Otherwise each has a new one.
        type: bool
        default: false
      profile:
        description:
          - The profile of the CA to ask for, such as V(shortlived) or V(tlsserver) of Let's Encrypt. certbot can do that since 4.0.
          - See U(https://letsencrypt.org/docs/profiles/).
        type: str
      preferred_chain:
        description: The common name of the root that the chain is to lead to, where the CA offers several.
        type: str
      challenge:
        description:
          - How the names are proved. V(http) by files that the nginx of this host serves; V(dns) by records that O(dns) writes;
            V(hooks) by the programs of O(certificates[].hooks).
          - If not given, it is V(hooks) where there are some, V(dns) where one of O(certificates[].domains) is a wildcard, else V(http).
        type: str
        choices: [http, dns, hooks]
      hooks:
        description: Programs of the host that prove a name, run by certbot as U(https://eff-certbot.readthedocs.io/en/stable/using.html#hooks) describes.
        type: dict
        suboptions:
          auth:
            description: The command that puts the proof where the CA looks for it.
            type: str
            required: true
          cleanup:
            description: The command that takes it away again.
            type: str
          type:
            description: What the proof is.
            type: str
            choices: [dns-01, http-01]
            default: dns-01
      certificate:
        description:
          - With V(own), the certificate in PEM, with or without its chain, or the path of such a file on the controller. Both may be
            vaulted.
        type: str
      key:
        description: With V(own), its private key in PEM, without a passphrase, or the path of such a file on the controller. Both may be vaulted.
        type: str
      chain:
        description: With V(own), the intermediate certificates in PEM or the path of such a file, where O(certificates[].certificate) lacks them.
        type: str
  obtain:
    description:
      - The names of the certificates that are obtained now, if they are missing or different. Those of others are only reported in RV(due).
      - Everything that needs no CA is done in any case.
    type: list
    elements: str
    default: []
  check_lists:
    description:
      - Whether all of Portico's lists that the play has are checked first, as M(portico.web.check) does it. The role says
        yes, and saves a task.
    type: bool
    default: false
  scope:
    description:
      - Whose certificates these are. Plays that each bring some to one host do it under names of their own, and leave each
        other's alone.
    type: str
    default: main
  removed:
    description:
      - What happens to a certificate that this scope had and its list does not have any more. V(deleted) deletes it, V(revoked) has the CA
        revoke it first, V(kept) leaves it to be renewed as before.
      - One that nginx still serves is kept, with a warning. One that was made by hand and was only used is kept too.
    type: str
    choices: [deleted, revoked, kept]
    default: deleted
  server:
    description:
      - The CA, which is V(letsencrypt), or V(staging) for Let's Encrypt's test certificates, or the HTTPS URL of an
        ACME directory.
      - Browsers do not trust V(staging), so that with it nothing permanent is sent to visitors (no 301, no HSTS).
    type: str
    default: letsencrypt
  email:
    description: Where the CA writes to. If not given, the account has no address.
    type: str
  ca_bundle:
    description:
      - The absolute path on the controller of a PEM file with the certificates that verify the CA's own server, for
        a private CA or behind a proxy that intercepts TLS.
      - Those that the host trusts anyway are trusted too.
    type: str
  eab:
    description: The external account binding that some CAs want at the registration (RFC 8555, section 7.3.4).
    type: dict
    suboptions:
      kid:
        description: The key's identifier.
        type: str
        required: true
      hmac_key:
        description: The key itself, as the CA has given it, in base64url.
        type: str
        required: true
  account:
    description:
      - An account to use, as M(portico.web.certbot_account) has exported it. It holds a private key, so keep it in a vault.
      - If not given, certbot registers one when it first needs it.
    type: str
  dns:
    description: How records are written for what is proved through DNS.
    type: dict
    suboptions:
      plugin:
        description:
          - certbot's plugin for it, by the last part of its name, such as V(rfc2136), V(cloudflare) or V(route53).
          - Its package is installed. See U(https://eff-certbot.readthedocs.io/en/stable/using.html#dns-plugins).
        type: str
        required: true
      credentials:
        description:
          - What the plugin reads from its file of credentials. A key may be written without the C(dns_PLUGIN_) that it begins with.
          - The file is only for root. If not given, the plugin finds its credentials by itself.
        type: dict
      propagation:
        description: How many seconds the records need to be seen everywhere. If not given, the plugin decides.
        type: int
  preflight:
    description:
      - Whether this host first looks itself whether a name leads to it, whether its challenge is answered, and whether the DNS lets the CA
        issue. A mistake is then told in plain words, and costs no order.
      - Say V(false) on a host that cannot reach itself by its names.
    type: bool
    default: true
  install:
    description:
      - Where certbot comes from, V(distribution) for the host's package or V(pypi) for a virtual environment of its own.
      - Switching keeps accounts and lineages. The package stays installed beside one from PyPI, and does nothing there.
    type: str
    choices: [distribution, pypi]
    default: distribution
  version:
    description: With V(pypi), the version of certbot. If not given, it is the newest at the time of the installation, and stays it.
    type: str
  metrics:
    description:
      - The file in which the Prometheus node exporter's textfile collector finds how the certificates are. It is written where its folder is.
      - If not given, it is the place that Debian's node exporter looks at, C(/var/lib/prometheus/node-exporter/portico-certificates.prom).
    type: str
  alarm_command:
    description:
      - A command, as a list of its words, that is run on the host when a certificate is not as it must be and could not be healed, once a day
        while it lasts, and when it is over.
      - It reads what is wrong, a line each, and has it in its environment, C(PORTICO_STATE) (V(failed) or V(resolved)), C(PORTICO_HOST),
        C(PORTICO_CERTIFICATES) and C(PORTICO_PROBLEMS).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Says what would be obtained and changed, and neither changes anything nor asks the CA.
  diff_mode:
    support: full
    description: A diff for each file and each certificate that would change.
  idempotence:
    support: full
    description: A certificate that is there, with the wanted names and from the wanted CA, is not obtained again.
notes:
  - This is an action plugin over M(portico.web.certbot_lineage), which is what runs on the host.
  - A certificate that cannot be had fails the task only after all others were tried. What was served before goes on
    being served. It is not tried twice, because CAs count failures.
seealso:
  - module: portico.web.certbot_lineage
  - module: portico.web.certbot_account
  - module: portico.web.nginx_publish
"""

EXAMPLES = r"""
- name: Obtain one certificate for two names
  portico.web.certbot_certificate:
    certificates:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
    obtain: [shop]
    email: ops@example.com

- name: Obtain one from a private CA
  portico.web.certbot_certificate:
    certificates:
      - name: wiki
        domains: [wiki.example.internal]
    obtain: [wiki]
    server: https://acme.example.internal/acme/directory
    ca_bundle: "{{ playbook_dir }}/example-ca.pem"

- name: Obtain a wildcard, proved through DNS, with an ECDSA and an RSA key
  portico.web.certbot_certificate:
    certificates:
      - name: all
        domains: [example.com, "*.example.com"]
        key_types: [ecdsa, rsa]
    obtain: [all]
    dns:
      plugin: rfc2136
      credentials:
        server: 192.0.2.53
        name: certbot.
        secret: "{{ vault_tsig_secret }}"
        algorithm: HMAC-SHA512
"""

RETURN = r"""
due:
  description: The names of the certificates that are missing or different, and were not obtained by this task.
  returned: success
  type: list
  elements: str
  sample: [shop]
reasons:
  description: Why a certificate was due.
  returned: success
  type: dict
  sample: {"shop": ["it is not for www.shop.example.com"]}
obtained:
  description: The names of the certificates that were obtained.
  returned: success
  type: list
  elements: str
  sample: [shop]
linked:
  description: The names of the certificates that nginx is now told to serve, and was not before.
  returned: success
  type: list
  elements: str
  sample: [shop]
removed:
  description: The names of the certificates that were deleted or revoked.
  returned: success
  type: list
  elements: str
  sample: [old-shop]
packages:
  description: The packages that were installed, or would be.
  returned: some were missing
  type: list
  elements: str
files:
  description: The files that were written or removed.
  returned: success
  type: list
  elements: str
  sample: [/etc/letsencrypt/renewal-hooks/deploy/portico]
failures:
  description: What went wrong, a line for each certificate, beginning with its name.
  returned: always, but not when the options themselves are wrong
  type: list
  elements: str
  sample: ["shop: 192.0.2.1: Fetching http://shop.example.com/.well-known/acme-challenge/x: Connection refused (connection)"]
"""
