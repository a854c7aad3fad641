#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_publish
short_description: Publish nginx's configuration, all sites in one step
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Asks the host once what it has and what it serves, renders nginx's whole configuration on the controller, and
    sends it only if something differs. An unchanged run is one remote call, for one site and for a thousand.
  - On the host the new configuration is written beside the old one and tested by nginx, and one symlink is moved;
    then nginx reloads and is asked which configuration it runs, because it can refuse one without a word. If it
    refuses, the old configuration stays, or comes back, and the task fails in nginx's own words.
  - What other people have in C(conf.d), C(sites-enabled) and C(snippets) goes on as before. A default server or a
    directive of the http level that is there already counts, and ours gives way.
  - Settings that there is one of for the whole host (O(http_port), O(https_port), O(extra_config)) belong to the scope
    that sets them to something else than their defaults. A second scope that does so is refused.
  - A site with O(sites[].tls) is served with its certificate, and with a self-signed placeholder until there is one.
    With the placeholder nothing permanent is sent (no 301, no HSTS) and the site works on the plain port too.
    Which of the two it is lies beside the certificate, so that a certificate's arrival changes no configuration.
options:
  sites:
    description:
      - The sites of this scope.
      - Each needs exactly one of O(sites[].app), O(sites[].proxy), O(sites[].root), O(sites[].redirect)
        and O(sites[].locations).
      - A site that is no longer in the list is no longer served.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What this site is called in messages, in its file's name, and (unless O(sites[].certificate) says
            otherwise) in its certificate's.
          - Letters, digits, dots, underscores and hyphens; at most 64 of them.
        type: str
        required: true
      server_names:
        description:
          - The host names that the site answers to. The first is the canonical one; the others redirect to it.
          - A name may begin with C(*.); such a name cannot be the canonical one.
          - A name in other letters than ASCII is written in its C(xn--) form.
        type: list
        elements: str
        required: true
      app:
        description:
          - The name of an app of O(apps) that answers, at the path C(/).
          - Its static folders are served by nginx itself.
          - Websockets are led on to it, and no other protocol. nginx waits 60 seconds for its next word, or longer where the app's
            own C(timeout) is. C(proxy_read_timeout) in an C(extra_config) says something else.
        type: str
      proxy:
        description:
          - The URL of an HTTP server that answers, such as V(http://127.0.0.1:8000).
          - A path in the URL replaces the location's path, as nginx's own C(proxy_pass) does it.
          - Websockets are led on to it, as to an O(sites[].app).
        type: str
      root:
        description: An absolute path on the host. nginx serves the files below it.
        type: str
      redirect:
        description:
          - An absolute URL that visitors are sent to.
          - With no path, as in V(https://example.com), the visitor's path and query are kept; with a path, everybody
            is sent to exactly that address.
        type: str
      locations:
        description: What the site does, path by path, when one answer for all of it is not enough.
        type: list
        elements: dict
        suboptions:
          path:
            description: The beginning of the paths that this location answers, such as V(/) or V(/api/).
            type: str
            required: true
          app:
            description: As O(sites[].app), for this path. The app's static folders come along.
            type: str
          proxy:
            description: As O(sites[].proxy), for this path.
            type: str
          root:
            description: As O(sites[].root), for this path, which is kept, so that V(/media/a.png) is C(root)/media/a.png.
            type: str
          redirect:
            description: As O(sites[].redirect), for this path.
            type: str
          extra_config:
            description: As O(sites[].extra_config), inside this location.
            type: str
      extra_config:
        description:
          - Directives of nginx that the site's server block gets at its end, for what has no key.
          - They are refused where they would close a block that they did not open, or leave one open. What they mean is
            nginx's to judge, which tests them before anything is changed.
        type: str
      template:
        description:
          - A Jinja2 template on the controller, absolute or beside the playbook, that makes the site's whole file instead of
            Portico's own.
          - C({{ expression }}) becomes one token of nginx, quoted where it must be; C(| bare) writes a part of a token, and
            C(| safe) plain text.
          - It sees C(site), C(host), C(http_port), C(https_port), the play's variables and Ansible's filters, and it can include
            Portico's templates, such as C(listen.conf.j2) and C(certificate.conf.j2).
          - What the site does need not be said then; with it, C(site.locations) has it.
        type: str
      tls:
        description: Whether the site is served over HTTPS, with plain HTTP redirecting to it.
        type: bool
        default: true
      certificate:
        description:
          - The name of the certificate that the site is served with. Sites may share one.
          - If not given, it is O(sites[].name).
        type: str
      issuer:
        description:
          - Who issues the site's certificate. Sites that share one say the same.
          - V(acme) is a CA that is asked over ACME.
          - V(own) is somebody else. You bring the certificate and its key in C(certbot_overrides) of the role
            P(portico.web.certbot#role).
          - V(self_signed) is the host itself, for hosts that no CA reaches. Browsers do not trust such a certificate, so that
            nothing permanent is sent to visitors (no 301, no HSTS).
        type: str
        choices: [acme, own, self_signed]
        default: acme
  apps:
    description: The apps that sites may name, described as M(portico.web.gunicorn_deploy#module) does.
    type: list
    elements: dict
    default: []
  state:
    description:
      - V(present) publishes O(sites).
      - V(absent) takes the scope's sites off the host; with the last scope portico.web goes too, and gives back what was
        there before it came. nginx stays installed.
    type: str
    choices: [present, absent]
    default: present
  scope:
    description:
      - Whose sites these are. Plays that each bring some sites to one host publish under names of their own.
      - What one scope publishes, removes or rolls back leaves the others' sites alone. Letters, digits, dots,
        underscores and hyphens.
    type: str
    default: main
  check_lists:
    description:
      - Whether all of Portico's lists that the play has are checked first, as M(portico.web.check) does it. The role says
        yes, and saves a task.
      - O(sites) and O(apps) are then the play's own C(nginx_sites) and C(nginx_apps), unless they are given.
    type: bool
    default: false
  packages:
    description: Packages that are installed first, where they are missing.
    type: list
    elements: str
    default: []
  http_port:
    description: The port for plain HTTP. It is also where the ACME challenge is answered.
    type: int
    default: 80
  https_port:
    description: The port for HTTPS, and the one that redirects name, unless it is 443.
    type: int
    default: 443
  extra_config:
    description:
      - Directives of nginx for the http level, for what has no key. They are checked as O(sites[].extra_config) is.
      - What is said here is left out of what Portico says itself, such as C(client_max_body_size).
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description:
      - The new configuration is tested by the host's own nginx and leaves nothing behind.
      - Where nginx is not installed yet, the result says that it was not tested.
  diff_mode:
    support: full
    description: A diff for each file that would change.
  idempotence:
    support: full
    description: What is served already is not published again.
notes:
  - This is an action plugin over M(portico.web.nginx_generation), which is what runs on the host.
seealso:
  - module: portico.web.nginx_generation
  - module: portico.web.nginx_rollback
  - module: portico.web.gunicorn_deploy
  - module: portico.web.certbot_certificate
"""

EXAMPLES = r"""
- name: Publish an app, an old name that leads to it, and a backend in another language
  portico.web.nginx_publish:
    apps: "{{ gunicorn_apps }}"
    sites:
      - name: shop
        server_names: [shop.example.com, www.shop.example.com]
        app: shop
      - name: old-shop
        server_names: [shop.example.org]
        redirect: https://shop.example.com
      - name: reports
        server_names: [reports.example.com]
        locations:
          - path: /
            root: /srv/reports
          - path: /api/
            proxy: http://127.0.0.1:9000
"""

RETURN = r"""
generation:
  description: The number of the configuration that is live after the task.
  returned: success
  type: int
  sample: 3
tested:
  description: Whether nginx itself has tested the new configuration. V(false) in check mode where nginx is missing.
  returned: changed
  type: bool
  sample: true
packages:
  description: The packages that were installed, or would be.
  returned: some were missing
  type: list
  elements: str
waited_for:
  description: The run that this one had to wait for.
  returned: it had to wait
  type: str
files:
  description: The files that differ from what was live, relative to the generation.
  returned: changed
  type: list
  elements: str
  sample: [sites/shop.conf]
"""
