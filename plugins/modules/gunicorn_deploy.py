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
  - An app that is no longer in the list is left as it is. One with O(apps[].state=absent) is removed.
  - The releases that were live last are kept, O(apps[].keep) of them; M(portico.web.gunicorn_rollback) goes back to one in seconds.
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
          - Needed unless O(apps[].state=absent).
        type: dict
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
        description:
          - What gunicorn runs, as V(shop.wsgi:application).
          - Needed unless O(apps[].state=absent).
        type: str
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
        description: The package index to use, alone, in place of all that the host names in files and variables.
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
      after_traffic:
        description:
          - Commands that are run once for a new release when it is live and the old one has stopped, such as the part of a
            migration that only the new code can live with, or the warming of a cache.
          - They run as O(apps[].before_traffic) does, but the source is sealed. If one fails, the task fails and the release
            stays live; the next run runs all of them again.
        type: list
        elements: str
        default: []
      hook_seconds:
        description: How long each command before and after traffic may take. Then it is ended, and counts as failed.
        type: int
        default: 900
      shared:
        description:
          - Folders of the source that live on from release to release, such as V(media). Each is a link to
            C(/var/lib/portico/apps/NAME/shared/FOLDER), which the app can write.
          - What the first release brings in such a folder is copied there once. What later ones bring is not used.
          - The app alone can read them, so that none can be in O(apps[].static).
        type: list
        elements: str
        default: []
      switch:
        description:
          - V(overlap) starts the new release while the old one serves. Both need memory for some seconds.
          - V(restart) is for machines that have too little for that. The new release is made, and its commands before traffic run,
            while the old one serves. Then visitors wait in a queue while the old one ends what it has in hand and stops, and the
            new one starts and is asked whether it is well. If it is not, the old one starts again, and answers those who waited.
            None is refused, and none meets a release that is not well; but nginx waits 60 seconds for an answer, so the start must
            take less.
        type: str
        choices: [overlap, restart]
        default: overlap
      keep:
        description: How many releases are kept, the live one and the one before it among them; at least 2.
        type: int
        default: 5
      state:
        description:
          - V(absent) removes the app, with its units, sockets, user, releases, environments and settings. Of the other keys only
            O(apps[].name) is needed then, and O(apps[].data) is looked at.
        type: str
        choices: [present, absent]
        default: present
      data:
        description:
          - With O(apps[].state=absent), whether the state directory C(/var/lib/portico/apps/NAME) stays.
          - V(kept) data belong to root, until an app of that name is deployed again and gets them back.
        type: str
        choices: [kept, removed]
        default: kept
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
            description:
              - How long the release may take until it says that it is ready, and again until its answer is right.
              - It is asked again and again meanwhile; each answer has to be whole within 5 seconds.
            type: int
            default: 60
      worker_class:
        description:
          - How a worker answers requests. V(gthread) and V(sync) run a WSGI app, with several threads and with one; V(asgi) and V(uvicorn) run an
            ASGI app, in the event loop of gunicorn's own worker and in uvicorn's.
          - V(asgi) needs gunicorn 24 or newer, as is added to requirements without any. V(uvicorn) needs the package
            C(uvicorn-worker) among the requirements.
        type: str
        choices: [gthread, sync, asgi, uvicorn]
        default: gthread
      workers:
        description:
          - How many processes answer requests.
          - If not given, it is computed on the host whenever the app starts. There is one more than there are CPUs (with V(sync) twice
            as many and one), at least 2 and at most 16, as long as the memory has 128 MiB for each. The memory is O(apps[].memory), and without it a
            quarter of the machine's. A limit that is set around the app, such as a container's, is heeded.
        type: int
      threads:
        description:
          - With O(apps[].worker_class=gthread), how many requests each of them answers at a time.
          - If not given, it is 4, and more where the memory has not let there be as many workers as there are CPUs for.
        type: int
      timeout:
        description: After how many seconds of silence a worker is replaced.
        type: int
        default: 30
      graceful_timeout:
        description: How many seconds the requests in hand have to end, when the app or a worker of it is stopped.
        type: int
        default: 30
      max_requests:
        description:
          - After how many requests a worker is replaced, and up to a tenth more, so that not all are replaced at once. It helps against an app
            that loses memory.
          - V(0) is never.
        type: int
        default: 0
      preload:
        description:
          - Whether the app is loaded once, before the workers come of it, which saves memory.
          - An app that opens connections or starts threads while it is loaded may not bear it.
        type: bool
        default: false
      companions:
        description:
          - Other processes of the same release, such as a queue's worker or a scheduler. Each is a service
            C(portico-APP-COMPANION@SLOT.service), with the user, environment, credentials, confinement and limits of the app.
          - A companion runs once, and never in both slots. When a new release is well, the old one's companions are stopped; the new one's are started and
            watched for some seconds; then the new release takes traffic. If one of them ends in that time, the old ones are started again
            and the deploy has failed.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: What it is called in messages and units, by the rules of O(apps[].name).
            type: str
            required: true
          command:
            description:
              - What it runs, in the release's source, with the programs of the release's environment at hand. It stays in the foreground.
              - It is a program and its arguments, as a shell would divide them; nothing else in it has a meaning, neither C($) nor C(%) nor C(|).
            type: str
            required: true
          stop_seconds:
            description: How long it has for ending what it has in hand when it is told to (by SIGTERM).
            type: int
            default: 60
      memory:
        description:
          - How much memory the app may use, as V(512M) or V(2G), none of it swapped out. Above that, the process of it that has most is ended, and
            replaced.
          - This limit and the next two hold for the slot that answers requests and for each companion by itself. During a deploy two slots run.
        type: str
      cpu:
        description: How much time of the CPUs the app may use; V(100%) is one CPU, V(250%) two and a half.
        type: str
      tasks:
        description: How many processes and threads the app may have.
        type: int
        default: 1024
      network:
        description:
          - What the app may speak to. V(all) is everything, V(local) only what is on the host itself (the loopback addresses and unix sockets), and
            V(none) only unix sockets.
          - It holds for the commands of O(apps[].before_traffic) and the companions too, and not for fetching the source and what it requires.
          - A host that cannot filter addresses for a unit is told so when V(local) is wanted, and the deploy fails.
        type: str
        choices: [all, local, none]
        default: all
      credentials:
        description:
          - Secrets that the app reads as files, each under its name in the folder that E(CREDENTIALS_DIRECTORY) names. They are not inherited as an
            environment is, and no other user can read them.
          - Byte for byte the text that is given here. They are never shown, and a change of one is as a change of the environment.
          - Needs systemd 247 or newer on the host. A deploy tries whether they arrive, and fails where they do not, as in a container without shared mounts.
        type: dict
        default: {}
  socket_user:
    description: The user that may connect to the apps' sockets, which is the one that nginx's workers run as.
    type: str
    default: www-data
  check_lists:
    description:
      - Whether all of Portico's lists that the play has are checked first, as M(portico.web.check) does it. The role says
        yes, and saves a task.
    type: bool
    default: false
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
  - One run changes an app at a time. Another waits for it, at most ten minutes, and then says for whom it has waited.
  - A run that was killed has changed nothing that visitors meet, and the next run puts right what it left behind.
seealso:
  - module: portico.web.gunicorn_rollback
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

- name: Deploy an app with a queue's worker and a scheduler, confined to the host
  portico.web.gunicorn_deploy:
    apps:
      - name: shop
        source: {path: shop}
        app: shop.asgi:application
        worker_class: asgi
        companions:
          - {name: worker, command: celery -A shop worker, stop_seconds: 300}
          - {name: beat, command: "celery -A shop beat --schedule /var/lib/portico/apps/shop/beat"}
        memory: 1G
        cpu: 200%
        network: local
        credentials:
          payment.key: "{{ vault_payment_key }}"

- name: Deploy a tag of a repository
  portico.web.gunicorn_deploy:
    apps:
      - name: blog
        source: {git: "https://git.example.com/blog.git", version: v1.4.2}
        app: blog:app
        shared: [media]

- name: Remove an app, and keep its data
  portico.web.gunicorn_deploy:
    apps:
      - {name: blog, state: absent}

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
packages:
  description: The packages that were installed, where some were missing.
  returned: when some were
  type: list
  elements: str
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
    seconds:
      description: How long it took, where something was done.
      type: float
    waited_for:
      description: Whose run was waited for, if that was necessary.
      type: str
  sample: [{name: shop, release: 4f0c2a9be1d37f55, reasons: [another release], seconds: 8.3}]
live:
  description: Of each app that is present, what is live when the task is over, by the app's name; in check mode, what is live now.
  returned: success
  type: dict
  contains:
    release:
      description: The identifier of the live release.
      type: str
    revision:
      description: The commit that it was made of, or the fingerprint of what was sent.
      type: str
    previous:
      description: The release that M(portico.web.gunicorn_rollback) goes back to if it is told none.
      type: str
    bytes:
      description: What the app's releases and environments take on the disk.
      type: int
    releases:
      description:
        - The releases that are kept, those that were live last first, each with where it came from (C(source),
          C(version), C(revision)), who made it, when, with which Python and which version of the collection.
      type: list
      elements: dict
seconds:
  description: How long the task took.
  returned: success
  type: float
  sample: 8.9
"""
