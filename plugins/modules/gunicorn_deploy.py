#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gunicorn_deploy
short_description: Deploy Python web applications with gunicorn, all apps in one step
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Asks the host once what runs there, and sends an app only if something of it differs. An unchanged run is one
    remote call, however many apps there are.
  - A release is a directory that is never edited, C(/srv/portico/NAME/releases/ID). Its virtual environment is addressed by
    what went into it, and used again by the next release.
  - An app has two slots, each with a socket and a service of its own. A new release is started in the one that is not live, and
    asked there whether it is well; then the link C(/srv/portico/NAME/live) is moved, through which nginx connects, and
    the old slot ends what it has in hand. So a deploy refuses nobody and reloads no nginx, and a release that is not well
    never meets a visitor. A change of the environment or of a setting alone goes the same way.
  - Each app runs as the user C(portico-NAME), confined to its state directory C(/var/lib/portico/apps/NAME), which
    it finds in the environment variable E(STATE_DIRECTORY).
  - An app that is no longer in the list is left as it is.
options:
  apps:
    description: The apps of this host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What this app is called in messages, paths, units and sites.
          - Small letters, digits and hyphens, beginning with a letter; at most 24 of them.
        type: str
        required: true
      source:
        description:
          - Where the app comes from. One of O(apps[].source.path), O(apps[].source.git), O(apps[].source.archive) and
            O(apps[].source.package).
        type: dict
        required: true
        suboptions:
          path:
            description:
              - A folder on the controller, absolute or beside the playbook.
              - What version control, editors and Python leave in it (C(.git), C(.venv), C(__pycache__) and the like)
                stays behind.
            type: str
          git:
            description:
              - The URL of a git repository that the host can read. It may name a user, and never a password or a token;
                these go to O(apps[].source.token).
              - Submodules and files of Git LFS are not fetched.
            type: str
          archive:
            description:
              - A file on the controller, absolute or beside the playbook, whose name ends in V(.tar.gz), V(.tgz), V(.tar.bz2),
                V(.tar.xz), V(.zip) or V(.whl).
              - A single folder at the top of an archive is left out. An archive with a device, a path or a link that leads
                outside is refused.
              - A wheel is installed into the environment, and the source is an empty folder.
            type: str
          package:
            description:
              - The name of a package on the index, with extras if it has any, as V(shop[postgres]). It is installed into the
                environment, and the source is an empty folder.
            type: str
          version:
            description:
              - With O(apps[].source.git), the branch, tag or full commit to deploy.
              - With O(apps[].source.package), the exact version, as V(4.2.1).
            type: str
          key:
            description:
              - With a repository over SSH, the text of the private key that opens it, such as a deploy key; one without a
                passphrase.
              - If not given, the key and the SSH settings of the host's root are used.
            type: str
          token:
            description: With a repository over C(https), the token or password that opens it. The host never writes it to a file.
            type: str
          known_hosts:
            description:
              - With a repository over SSH, the lines of the server in the form of C(known_hosts), as C(ssh-keyscan) prints
                them. Compare them with what the server's owner publishes.
              - If not given, the host's own files are asked. A server whose key is in neither is refused, never taken at its word.
            type: str
      app:
        description: What gunicorn runs, as V(shop.wsgi:application).
        type: str
        required: true
      static:
        description:
          - Folders inside the source that nginx serves itself, each under the path that leads to it, which begins and
            ends with a slash. V(/static/) for C(staticfiles) is what Django's C(collectstatic) is used with.
          - Everybody on the host can read them. The rest of the source is read by the app's user alone.
        type: dict
        default: {}
      requirements:
        description:
          - The file inside the source that says what the environment is made of, which is a requirements file, a
            C(pyproject.toml) or a C(uv.lock) with its C(pyproject.toml) beside it. gunicorn is added where it is not named.
          - If not given, it is the first of these that the source has at its top, C(uv.lock), C(requirements.txt), C(pyproject.toml).
          - Files that a requirements file includes are part of it. If one of its packages has a hash, all must have one.
        type: str
      index:
        description: The package index to use in place of the host's own.
        type: dict
        suboptions:
          url:
            description: Its URL, without user and password, as V(https://pypi.example.com/simple/).
            type: str
            required: true
          user:
            description: Who asks.
            type: str
          password:
            description: The user's password, or a token. It reaches the build alone, and is not kept.
            type: str
      installer:
        description:
          - What makes the environment. V(auto) takes V(uv) where it can be had, and otherwise V(pip); the former is needed
            for a C(uv.lock).
          - C(uv) is the host's own, or else one version of its wheel from the host's index, in C(/opt/portico/uv).
        type: str
        choices: [auto, pip, uv]
        default: auto
      python:
        description: The Python on the host that the virtual environment is made with.
        type: str
        default: /usr/bin/python3
      environment:
        description:
          - Environment variables of the app. They are never shown, and reach it in a file that only root reads.
          - Values are text; a number is taken for its text.
        type: dict
        default: {}
      before_traffic:
        description:
          - Commands that are run in a new release before it takes traffic, such as a migration of the database.
          - They run in the release's source and environment, as the app's user and as confined as the app. The source
            can be written while they run, and is sealed afterwards. If one fails, the old release stays.
        type: list
        elements: str
        default: []
      health:
        description:
          - What a new release is asked, at a socket that no visitor meets yet, before it takes traffic. Without a right answer it never does, and the old
            one goes on.
          - If this is left out, V(/) is asked, and every answer is right but a server error (500 and above).
        type: dict
        default: {}
        suboptions:
          path:
            description: The path to ask for.
            type: str
            default: /
          host:
            description: The host name to ask for. If not given, it is C(localhost).
            type: str
            default: localhost
          status:
            description: The statuses that are right. If not given, all below 500 are.
            type: list
            elements: int
            default: []
          contains:
            description: A text that the answer has somewhere in its first MiB.
            type: str
          seconds:
            description: How long the release may take until it is well.
            type: int
            default: 60
      workers:
        description: How many processes answer requests.
        type: int
        default: 2
      threads:
        description: How many requests each of them answers at a time.
        type: int
        default: 4
      timeout:
        description: After how many seconds of silence a worker is replaced.
        type: int
        default: 30
  socket_user:
    description: The user that may connect to the apps' sockets, which is the one that nginx's workers run as.
    type: str
    default: www-data
attributes:
  check_mode:
    support: full
    description: It says which apps would get a new release or new settings, and touches nothing.
  diff_mode:
    support: full
    description: A diff for each unit and configuration file that would change; never for the environment.
  idempotence:
    support: full
    description: An app that runs as described is left alone.
notes:
  - This is an action plugin over M(portico.web.gunicorn_release), which is what runs on the host.
seealso:
  - module: portico.web.gunicorn_release
  - module: portico.web.nginx_publish
"""

EXAMPLES = r"""
- name: Deploy a Django project that lies beside the playbook
  portico.web.gunicorn_deploy:
    apps:
      - name: shop
        source: {path: shop}
        app: shop.wsgi:application
        static: {/static/: staticfiles}
        before_traffic:
          - python manage.py migrate --noinput
          - python manage.py collectstatic --noinput
        environment:
          SECRET_KEY: "{{ vault_shop_secret_key }}"

- name: Deploy a tag of a repository
  portico.web.gunicorn_deploy:
    apps:
      - name: blog
        source: {git: "https://git.example.com/blog.git", version: v1.4.2}
        app: blog:app

- name: Deploy a private repository with a deploy key, a package, and an archive that a build has left on the controller
  portico.web.gunicorn_deploy:
    apps:
      - name: intra
        source:
          git: git@git.example.com:team/intra.git
          version: v2.0.1
          key: "{{ vault_intra_deploy_key }}"
          known_hosts: "{{ lookup('ansible.builtin.file', 'git.example.com.known_hosts') }}"
        app: intra.wsgi:application
      - name: wiki
        source: {package: "wiki[postgres]", version: 4.2.1}
        app: wiki:create_app()
        index: {url: "https://pypi.example.com/simple/", user: deploy, password: "{{ vault_index_password }}"}
      - name: news
        source: {archive: dist/news-1.7.tar.gz}
        app: news:app
"""

RETURN = r"""
apps:
  description: The apps that differed.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The app's name.
      type: str
    release:
      description: The identifier of its live release.
      type: str
    reasons:
      description: What differed.
      type: list
      elements: str
  sample: [{name: shop, release: 4f0c2a9be1d37f55, reasons: [another release]}]
"""
