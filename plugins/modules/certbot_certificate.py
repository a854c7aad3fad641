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
  - Compares all certificates with the lineages that certbot has on the host, in one call, and obtains those that are
    missing or different. What a lineage is for is read from its X.509 files and its renewal configuration.
  - A lineage whose names change is changed in place. One that was there before, with the same names and from the
    same CA, is used as it is.
  - Names are proved through HTTP, by files that the nginx of this host serves.
  - A certificate that is there is served through a symlink, which is moved from the placeholder to the lineage. nginx
    reloads then, and is never restarted.
  - It also keeps what renewal needs, which is the timer of the distribution's package, a deploy hook that reloads
    nginx, and the CA bundle.
options:
  certificates:
    description: The certificates that this host should have. Lineages that are not in the list are left alone.
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
          - Wildcards cannot be proved through HTTP and are refused.
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
      - If not given, the host's own certificates do.
    type: str
  obtain:
    description: With V(false), what is missing or different is only reported. Everything else is done all the same.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Says what would be obtained and changed, and neither changes anything nor asks the CA.
  diff_mode:
    support: full
    description: A diff for each file and each certificate that would change.
  idempotence:
    support: full
    description: A lineage that is there, with the wanted names and from the wanted CA, is not obtained again.
notes:
  - This is an action plugin over M(portico.web.certbot_lineage), which is what runs on the host.
  - A certificate that cannot be had fails the task only after all others were tried. What was served before goes on
    being served. It is not tried twice, because CAs count failures.
seealso:
  - module: portico.web.certbot_lineage
  - module: portico.web.nginx_publish
"""

EXAMPLES = r"""
- name: Obtain one certificate for two names
  portico.web.certbot_certificate:
    certificates:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
    email: ops@example.com

- name: Obtain one from a private CA
  portico.web.certbot_certificate:
    certificates:
      - name: wiki
        domains: [wiki.example.internal]
    server: https://acme.example.internal/acme/directory
    ca_bundle: "{{ playbook_dir }}/example-ca.pem"
"""

RETURN = r"""
due:
  description: The certificates that were missing or different, in the form of O(certificates).
  returned: success
  type: list
  elements: dict
  sample: [{"name": "shop", "domains": ["shop.example.com", "www.shop.example.com"]}]
reasons:
  description: Why each of RV(due) was due.
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
files:
  description: The files for renewal that were written or removed.
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
