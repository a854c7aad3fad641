#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_generation
short_description: Read and replace nginx's configuration as a whole
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - The half of M(portico.web.nginx_publish) that runs on the host. It takes text, and knows nothing of sites.
  - A configuration is a directory that is never edited, a I(generation). A symlink names the live one, so that any
    number of files change at once. What a scope published is written in the generation's manifest; other scopes'
    files, and files that nobody published, are carried over.
  - The packaged C(nginx.conf) is kept as C(nginx.conf.distrib), by a diversion that dpkg knows of.
  - One run at a time changes a host. Another one waits for it.
options:
  state:
    description:
      - V(asked) reads what the host has and serves.
      - V(published) makes O(part) what the scope has on the host, and O(host) what there is once.
      - V(restored) makes the scope what it was in O(generation).
      - V(absent) takes everything off the host that portico.web did to nginx.
      - V(history) lists the kept generations.
    type: str
    choices: [asked, published, restored, absent, history]
    default: asked
  packages:
    description:
      - With O(state=asked), the names of packages to look for, as Debian calls them. Where nginx is its vendor's, it is what that calls
        them which is looked for, and told.
    type: list
    elements: str
    default: []
  repository:
    description: With O(state=asked), the repository that nginx should come from, as M(portico.web.nginx_repository) takes it.
    type: dict
  with_passwords:
    description: With O(state=asked), whether RV(passwords) has the hashes of passwords.
    type: bool
    default: false
  scope:
    description: Whose files are published or restored.
    type: str
    default: main
  host:
    description: With O(state=published), the part that there is once, as the manifest has it.
    type: dict
  part:
    description: With O(state=published), the scope's part as the manifest has it. If not given, the scope goes.
    type: dict
  texts:
    description: With O(state=published), the files that the host does not have yet, packed.
    type: str
    default: ""
  with_test:
    description: With O(state=published), whether nginx tests it. In a dry run it cannot, where it lacks a module that would be installed.
    type: bool
    default: true
  based_on:
    description:
      - With O(state=published), the generation that was live when the configuration was made.
      - If it is not any more, nothing is done, and RV(stale) says so.
    type: int
    default: 0
  generation:
    description:
      - With O(state=restored), the generation to take the scope's files from.
      - If not given, it is the newest kept one in which they were others than now.
    type: int
  holder:
    description: Who asks, in words for the person whose run has to wait.
    type: str
    default: another run
attributes:
  check_mode:
    support: full
    description: nginx tests the new configuration in a temporary directory, which is removed.
  diff_mode:
    support: none
    description: M(portico.web.nginx_publish) knows both texts, and shows the diff.
  idempotence:
    support: full
    description: What is live already is not published again.
seealso:
  - module: portico.web.nginx_publish
  - module: portico.web.nginx_rollback
"""

EXAMPLES = r"""
- name: Ask what the host serves
  portico.web.nginx_generation:
  register: nginx
"""

RETURN = r"""
installed:
  description: Whether the host has nginx.
  returned: state is asked
  type: bool
missing:
  description: The packages of O(packages) that are not installed.
  returned: state is asked
  type: list
  elements: str
version:
  description: nginx's version.
  returned: state is asked
  type: list
  elements: int
  sample: [1, 26, 3]
openssl:
  description: The version of the OpenSSL that nginx runs with.
  returned: state is asked
  type: list
  elements: int
  sample: [3, 5, 1]
ipv6:
  description: Whether the host's kernel has IPv6.
  returned: state is asked
  type: bool
unknown:
  description: Those of RV(missing) that the host's apt does not know.
  returned: state is asked
  type: list
  elements: str
upgrade:
  description: The version of nginx's package that is installed, and the newer one that apt would install; nothing where there is none.
  returned: state is asked
  type: list
  elements: str
modules:
  description: The dynamic modules that nginx loads.
  returned: state is asked
  type: list
  elements: str
  sample: [ngx_http_brotli_filter_module]
loadable:
  description: The packages of modules that nginx loads only where it is told to, each with its files.
  returned: state is asked
  type: dict
sourced:
  description: Whether apt takes nginx from O(repository), or from none of ours where that is not given.
  returned: state is asked
  type: bool
distributions:
  description: Whether nginx, if it is installed, is the distribution's.
  returned: state is asked
  type: bool
vendors:
  description: Whether it is its vendor's, or would be where it is not installed.
  returned: state is asked
  type: bool
nameservers:
  description: The servers that the host asks for names, as nginx writes their addresses.
  returned: state is asked
  type: list
  elements: str
generation:
  description: The number of the live generation; 0 where there is none.
  returned: success
  type: int
serving:
  description: The number of the generation that nginx's workers run, from their own mouth.
  returned: state is asked
  type: int
manifest:
  description: What the live generation is made of.
  returned: state is asked
  type: dict
drifted:
  description: The published files that are not as they were published.
  returned: state is asked
  type: list
  elements: str
passwords:
  description: The published files with hashes of passwords, so that a hash that fits stays what it is.
  returned: state is asked
  type: dict
certificates:
  description: The names of the certificates that the host has, placeholders included.
  returned: state is asked
  type: list
  elements: str
entered:
  description: Whether nginx reads the live generation.
  returned: state is asked
  type: bool
fitted:
  description: Whether nginx's unit has what portico.web adds to it.
  returned: state is asked
  type: bool
prefix:
  description: The folder that relative paths in nginx's configuration are below, of logs and caches.
  returned: state is asked
  type: str
sandboxed:
  description: Whether the nginx that runs is in a sandbox.
  returned: state is asked
  type: bool
sandbox:
  description: What is not as it is to be with nginx's sandbox, in words for the person.
  returned: something differed
  type: str
default_site:
  description: Whether the distribution's default site, as it was packaged, is switched on.
  returned: state is asked
  type: bool
active:
  description: Whether nginx runs.
  returned: state is asked
  type: bool
enabled:
  description: Whether nginx starts with the host.
  returned: state is asked
  type: bool
certbot_edits:
  description: The lineages for which certbot is set to edit nginx's configuration.
  returned: state is asked
  type: list
  elements: str
strangers:
  description:
    - What other people's files say that concerns ours, C(directives) of the http level (name to file),
      C(default_servers) (address to file) and C(streams), the file that has a stream block.
  returned: state is asked
  type: dict
tested:
  description: Whether nginx has tested the new configuration.
  returned: something differed
  type: bool
stale:
  description: Whether another run published something meanwhile.
  returned: state is published
  type: bool
waited_for:
  description: Who kept this run waiting.
  returned: it had to wait
  type: str
files:
  description: The files that differ, relative to the generation.
  returned: something differed
  type: list
  elements: str
before:
  description: In diff mode, the texts of RV(files) before.
  returned: something differed
  type: dict
after:
  description: In diff mode, the texts of RV(files) after.
  returned: something differed, and state is restored
  type: dict
history:
  description: The kept generations, newest first, each with C(generation), C(made), C(why) and C(sites).
  returned: state is history
  type: list
  elements: dict
"""

import contextlib
import glob
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import commands, files, layout, packages, repositories, sandbox, serving, store, strangers, vendors
from ansible_collections.portico.web.plugins.module_utils.generation import (
    CERTIFICATES,
    Manifest,
    at_one_place,
    certificates_of,
    changed_files,
    differences,
    files_of,
    shown,
    streams_of,
    unpack,
    with_part,
)

ETC = "/etc/nginx"
MAIN = ETC + "/nginx.conf"
PACKAGED = MAIN + ".distrib"
OURS = "# Written by portico.web"
"""With this a published nginx.conf begins."""
ENTRANCE = ETC + "/portico"
DEFAULT_SITE = ETC + "/sites-enabled/default"
DEFAULT_SITE_FILE = ETC + "/sites-available/default"
SWITCHED_OFF = layout.NGINX + "/switched-off.json"
YIELDING = ETC + "/portico-default-site" + files.SUFFIX
YIELDED = layout.NGINX + "/default-site.conf"
"""The default site without its claim to be the default server, served while ours comes and it goes."""
BOOTED = "/run/systemd/system"
"""What is there on a host that systemd has booted (sd_booted(3))."""
STAGE = "/run/portico-nginx-test-"
PREPARED = "Its unit is prepared now: run systemctl restart nginx when it suits your visitors, and then this play again, before any other. Or do without."
STAYS = "nginx stays in the sandbox that it was started in until it is started again: systemctl restart nginx, when it suits your visitors."
ENABLED = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")
"""The states of a unit's file for which C(systemctl is-enabled) says yes."""

LOGS = "/var/log/nginx"
PREFIX = "/usr/share/nginx"
"""What relative paths are below, unless nginx was built to have it otherwise."""
STREAMS = "streams.conf"
"""The file of a host on which somebody has streams."""

FITTINGS = {
    "/etc/systemd/system/nginx.service.d/portico.conf": f"""\
# Written by portico.web.
[Service]
ExecStartPre=
# A socket outlives a master that was killed, and nothing could listen there again.
ExecStartPre=/bin/rm -f {layout.NGINX_SOCKET}
# Who purges the package and installs it again begins anew; dpkg puts its nginx.conf where ours had moved it.
# nginx itself may not write there.
ExecStartPre=+/bin/sh -c 'test -e {MAIN} || cp {PACKAGED} {MAIN}'
ExecStartPre=/usr/sbin/nginx -t -q -g 'daemon on; master_process on;'
Restart=on-failure
""",
    # Before those of other people, which count where they say something else.
    "/etc/systemd/system/nginx.service.d/00-portico.conf": f"""\
# Written by portico.web.
[Service]
# nginx looks names up when it starts. While the DNS is silent it waits ten seconds for each, and is not to be ended for that.
TimeoutStartSec={serving.SECONDS_TO_START}
LimitNOFILE={serving.OPEN_FILES}
""",
    "/etc/tmpfiles.d/portico-nginx.conf": f"""\
# Written by portico.web: where nginx tells root which configuration it runs.
d {layout.NGINX_RUN} 0700 root root -
""",
}


class GenerationError(Exception):
    """What went wrong, in words for the person."""


class Confinement(t.NamedTuple):
    """What a configuration needs of nginx's sandbox."""

    box: sandbox.Sandbox
    why_not: str | None
    """Why there can be none."""
    is_wanted: bool

    @property
    def is_had(self) -> bool:
        """Whether nginx's unit has it."""
        return self.is_wanted and self.why_not is None


class Nginx:
    """nginx on this host, and its configuration."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.binary = module.get_bin_path("nginx", opt_dirs=["/usr/sbin"])
        self.undo: list[t.Callable[[], object]] = []
        self.restarted = False
        self.temporary = ""
        """A folder that nginx gives to the user that its workers are."""

    # ---- reading

    def read(self) -> dict[str, t.Any]:
        if not os.path.isdir(BOOTED):
            raise GenerationError("This host was not booted with systemd, by which Portico runs nginx. A container for it has systemd as its first process.")
        # Each of them takes a moment to answer, and they need not wait for each other.
        upgrade, unit = packages.Upgrade(self.module, "nginx"), commands.Running(["systemctl", "show", "--property=ActiveState,UnitFileState", "nginx"])
        asked_nginx = commands.Running([self.binary, "-V"]) if self.binary else None
        number = store.live_number()
        manifest, texts, loaded = store.manifest(number), store.texts(number), _modules()
        active, enabled = _unit(unit.done().out)
        version, openssl, http3, built_in, prefix = self._versions(asked_nginx)
        asked, repository = self.module.params["packages"], self.module.params["repository"]
        # One question for all that they may be called.
        absent = packages.missing(self.module, [*asked, *vendors.renamed(asked), "nginx", vendors.COMMON])
        distributions = vendors.COMMON not in absent
        is_vendors = not distributions and ("nginx" not in absent or repository is not None or not repositories.is_there(None))
        missing = [name for name in (vendors.renamed(asked) if is_vendors else asked) if name in absent and name not in built_in]
        default_site = self._has_pristine_default_site()
        # A link is ours or a stranger's: of a file alone there is more to ask.
        pristine = os.path.islink(MAIN) or _is_a_copy_of_ours() or self._is_pristine(MAIN)
        return {
            "missing": missing,
            "unknown": packages.unknown(self.module, missing),
            "upgrade": upgrade.answer(),
            "installed": self.binary is not None,
            "version": version,
            "openssl": openssl,
            "http3": http3,
            "ipv6": _has_ipv6(),
            "prefix": prefix,
            "modules": loaded,
            "loadable": vendors.loadable(),
            "sourced": repositories.is_there(repository),
            "distributions": distributions,
            "vendors": is_vendors,
            "nameservers": _nameservers(),
            "generation": number,
            "serving": _serving(),
            "manifest": manifest,
            "drifted": store.drifted(manifest, texts),
            "passwords": store.passwords(number, manifest) if self.module.params["with_passwords"] else {},
            "certificates": _certificates(),
            "entered": files.target(MAIN) == "portico/nginx.conf" and files.target(ENTRANCE) == store.LIVE and self._is_diverted(),
            "fitted": all(files.read(path) == text for path, text in FITTINGS.items()) and self.has_sandbox(manifest, texts, loaded, prefix, default_site),
            "sandboxed": sandbox.is_sandboxed(serving.master()),
            "default_site": default_site,
            "active": active,
            "enabled": enabled,
            "certbot_edits": _certbot_edits(),
            "strangers": strangers.read(ETC, self._left_out(default_site), pristine, is_vendors),
        }

    def compose(self, state: dict[str, t.Any], wanted: Manifest, scope: str, texts: dict[str, str]) -> dict[str, str]:
        """Return the new generation's files, path to text.

        What the scope did not send is what the live generation has, to the byte; so is every file of another scope,
        and every file that nobody published.

        :raises GenerationError: when a text is neither sent nor there.
        """
        live = store.texts(state["generation"])
        unpublished = live.keys() - files_of(state["manifest"]).keys()
        tree = {path: live[path] for path in unpublished}
        own = {**wanted["host"]["files"], **wanted["scopes"].get(scope, {"files": {}})["files"]}
        for path, known in files_of(wanted).items():
            text = texts.get(path, live.get(path))
            if text is None and path not in own:
                # Another scope's, which is that scope's business: its next run has it.
                continue
            if text is None or (path in own and files.digest(text) != known):
                raise GenerationError(f"The file {path} of the live generation is gone or edited, and was not sent. Run the play again.")
            tree[path] = text
        return tree

    # ---- testing

    def sandbox(self, manifest: Manifest, tree: dict[str, str], loaded: list[str], prefix: str, pristine: bool) -> Confinement:
        """Return in which sandbox nginx can do what a configuration says."""
        own = [text for path, text in tree.items() if path.endswith(".conf")]
        texts = sandbox.configuration(own, ETC, strangers.PLACES, self._left_out(pristine))
        why_not = sandbox.why_not([*loaded, *_loaded(tree.get("nginx.conf", ""))], texts)
        return Confinement(sandbox.of(texts, prefix), why_not, manifest["host"]["settings"].get("sandbox", True))

    def has_sandbox(self, *configuration: t.Any) -> bool:
        """Return whether nginx's unit is sandboxed as it is to be."""
        confined = self.sandbox(*configuration)
        return sandbox.is_written(confined.box if confined.is_had else None)

    @staticmethod
    def outside(confined: Confinement, refused: str | None) -> str:
        """Return how it is otherwise with nginx's sandbox than people may think, in words for the person.

        :param refused: what nginx said when it did not start in it.
        """
        is_sandboxed = sandbox.is_sandboxed(serving.master())
        if not confined.is_wanted:
            return STAYS if is_sandboxed else ""
        why_not = confined.why_not or refused or sandbox.said()
        if why_not:
            return f"nginx's unit has no sandbox on this host: {why_not}. nginx_sandbox: false says that it is to have none."
        return "" if is_sandboxed else "nginx is not in its sandbox before it is started again: systemctl restart nginx, when it suits your visitors."

    def test(self, tree: dict[str, str], certificates: list[str], pristine: bool, confined: Confinement) -> str | None:
        """Let nginx test a configuration as it will be live, strangers' files and relative includes resolving alike.

        nginx takes relative paths from the folder of the file that C(-c) names. So that folder is made to look
        like /etc/nginx after the change, out of links, and is removed again.

        :param pristine: whether the packaged default site will be switched off.
        :param confined: the sandbox that nginx will be in.
        :returns: why it cannot be in it on this host.
        :raises GenerationError: in nginx's own words.
        """
        with self._stage(pristine) as stage:
            # Without the marker: its socket belongs to the nginx that runs.
            store.write_tree(f"{stage}/portico", tree, "")
            os.symlink("portico/nginx.conf", f"{stage}/nginx.conf")
            self._stage_certificates(stage, certificates)
            return self._ask_nginx(stage, tree, confined)

    def test_without(self) -> None:
        """Let nginx test what will be left when portico.web is gone.

        :raises GenerationError: in nginx's own words.
        """
        with self._stage(pristine=False) as stage:
            main = PACKAGED if _is_ours() and os.path.exists(PACKAGED) else MAIN
            shutil.copyfile(main, f"{stage}/nginx.conf")
            for name, leads in (_switched_off()).items():
                if not os.path.lexists(f"{stage}/sites-enabled/{os.path.basename(name)}"):
                    os.symlink(os.path.join(os.path.dirname(name), leads), f"{stage}/sites-enabled/{os.path.basename(name)}")
            self._ask_nginx(stage, {})

    @contextlib.contextmanager
    def _stage(self, pristine: bool) -> t.Iterator[str]:
        with tempfile.TemporaryDirectory(prefix=f"{STAGE}{os.getpid()}-") as stage:
            os.chmod(stage, 0o755)
            for name in os.listdir(ETC):
                if name not in ("nginx.conf", "nginx.conf.distrib", "portico", "sites-enabled"):
                    os.symlink(f"{ETC}/{name}", f"{stage}/{name}")
            os.mkdir(f"{stage}/sites-enabled")
            for name in os.listdir(f"{ETC}/sites-enabled") if os.path.isdir(f"{ETC}/sites-enabled") else []:
                if not (pristine and name == "default"):
                    os.symlink(f"{ETC}/sites-enabled/{name}", f"{stage}/sites-enabled/{name}")
            yield stage

    def _stage_certificates(self, stage: str, names: list[str]) -> None:
        """Give the tested tree the certificates that are there, and a passing placeholder for the others."""
        folder = f"{stage}/portico/{CERTIFICATES}"
        os.remove(folder)
        os.mkdir(folder)
        placeholder = layout.PLACEHOLDER
        if not _is_whole(placeholder):
            placeholder = f"{stage}/placeholder"
            self._make_placeholder(placeholder)
        there = _certificates()
        for name in names:
            os.symlink(layout.certificate_link(name) if name in there else placeholder, f"{folder}/{name}")

    def _ask_nginx(self, stage: str, tree: dict[str, str], confined: Confinement | None = None) -> str | None:
        box = confined.box if confined and confined.is_had else None
        command = [self.binary, "-t", "-q", "-c", f"{stage}/nginx.conf"]
        # nginx opens the logs that a configuration names, and makes its folders, when it only tests it.
        self._keep_worker(f"{stage}/nginx.conf")
        newcomers = {path for path in _named_paths(tree) if not os.path.lexists(path)}
        # It may have open what this process may, and that is what a login may.
        serving.let_open_files(str(os.getpid()))
        rc, kept = 1, set(box.folders if box and not self.module.check_mode else ())
        try:
            rc, _out, err = self.module.run_command(command)
            why = sandbox.try_out(box, command) if rc == 0 and box and not sandbox.is_tried(box, serving.master()) else None
        finally:
            # Another run may have published one of them meanwhile: a log that workers have open, a cache whose folder they could not make again.
            named = _named_paths(store.texts(store.live_number()))
            # And what a sandbox lets it write to has to be there when that is made.
            for path in newcomers - named - (kept if rc == 0 else set()):
                _remove_empty(path)
        if rc != 0:
            words = serving.relevant(err.replace(f"{stage}/portico/", "").replace(f"{stage}/", f"{ETC}/"))
            raise GenerationError(f"nginx refuses the new configuration, so nothing was changed: {words}{_quoted_line(words, tree)}")
        return serving.relevant(why) if why else None

    def _keep_worker(self, main: str) -> None:
        """Have a tested configuration name the user that workers are now: nginx gives that one its temporary folders, also when it only tests."""
        text = files.read(main) or ""
        try:
            owner = pwd.getpwuid(os.stat(self.temporary).st_uid).pw_name
        except (OSError, KeyError):
            return
        same = re.sub(r"^[ \t]*user\s[^;]*;", f"user {owner};", text, count=1, flags=re.MULTILINE)
        if same != text:
            files.write(main, same)

    # ---- acting

    def publish(self, tree: dict[str, str], wanted: Manifest, state: dict[str, t.Any], why: str, box: sandbox.Sandbox, drop_in: str | None) -> int:
        """Make a tested configuration the live one; on any failure put everything back.

        :param box: the sandbox that nginx needs for it, whether it is in one or not.
        :param drop_in: what is written of it into nginx's unit.
        :returns: the number of the live generation.
        """
        serving = state["serving"] or 0
        with self._or_put_back(state):
            self.make_certificates(certificates_of(wanted))
            number = state["generation"]
            if state["manifest"] != wanted or store.texts(number) != tree:
                number = store.make(tree, wanted, why)
                self.undo.append(lambda: shutil.rmtree(store.folder(number)))
            # What serves now, which a killed run may have left behind the link, is what to go back to.
            back = serving if serving in store.numbers() else state["generation"]
            if back != number:
                self.undo.append(lambda: files.point(store.LIVE, f"generations/{back}") if back else files.remove(store.LIVE))
            if files.target(store.LIVE) != f"generations/{number}":
                files.point(store.LIVE, f"generations/{number}")
            self._make_logs(tree)
            self.fit(drop_in)
            self._open_up(box)
            if state["default_site"]:
                self._have_default_site_yield()
            self._enter()
            if state["default_site"]:
                self._switch_off_default_site()
            self._serve(state, number)
        store.prune({number, serving})
        _drop_caches(tree)
        return number

    def leave(self, state: dict[str, t.Any]) -> None:
        """Give back what was there before portico.web came."""
        with self._or_put_back(state):
            if _is_ours():
                self.undo.append(files.restored(MAIN))
                if os.path.exists(PACKAGED):
                    # Not moved: until nginx has taken it, it has to be there for the way back.
                    shutil.copy2(PACKAGED, MAIN + files.SUFFIX)
                    os.rename(MAIN + files.SUFFIX, MAIN)
                else:
                    files.remove(MAIN)
            for name, leads in _switched_off().items():
                # Where the package is another one meanwhile, there may be no such folder.
                if not os.path.lexists(name) and os.path.isdir(os.path.dirname(name)):
                    os.symlink(leads, name)
                    self.undo.append(lambda name=name: files.remove(name))
            self._give_back_vendors_site()
            self.undo.append(files.restored(ENTRANCE))
            files.remove(ENTRANCE)
            if state["active"]:
                left = sandbox.configuration([files.read(MAIN) or ""], ETC, strangers.PLACES, None)
                self._open_up(sandbox.of(left, state["prefix"]))
                self._reload(None)
        if self._is_diverted():
            files.remove(PACKAGED)
            self._divert("--remove")
        for path in (*FITTINGS, sandbox.DROP_IN):
            files.remove(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(next(iter(FITTINGS))))
        self._daemon_reload()
        self._remove_state()
        _drop_caches({})

    @contextlib.contextmanager
    def _or_put_back(self, state: dict[str, t.Any]) -> t.Iterator[None]:
        try:
            yield
        except BaseException as error:
            # Ansible ends a module that cannot go on by SystemExit, which is no Exception.
            files_are_back, left = self._take_back()
            # Why it came to this is what the person needs to know.
            with contextlib.suppress(GenerationError):
                if files_are_back and state["active"] and self._systemctl("is-active", "--quiet") == 0:
                    self._reload(state["serving"])
                elif files_are_back and self.restarted:
                    self._systemctl("start")
            if left and isinstance(error, Exception):
                raise GenerationError(f"{error} Not all that was there before could be put back: {' '.join(left)} Run the play again when that is mended.") from error
            raise

    def _take_back(self) -> tuple[bool, list[str]]:
        """Take back what was done, the last first, and return whether all files are back, and what could not be taken back.

        Where a file cannot be, what was done before stays: it may lead there, and nginx has to be able to start. What another
        program does not do keeps nothing from being taken back.
        """
        left = []
        for step in reversed(self.undo):
            try:
                step()
            except GenerationError as error:
                left.append(str(error))
            except OSError as error:
                return False, [*left, f"{error}."]
        return True, left

    def make_certificates(self, names: list[str]) -> None:
        """Make sure that every certificate that nginx is told of exists, if only as the placeholder."""
        # nginx's workers, which are not root, read the ACME challenge there, and which sites are closed.
        files.open_folders(layout.CERTIFICATES, layout.ACME_WEBROOT, layout.MAINTENANCE, layout.STATE)
        if not _is_whole(layout.PLACEHOLDER):
            shutil.rmtree(layout.PLACEHOLDER, ignore_errors=True)
            self._make_placeholder(layout.PLACEHOLDER)
        for name in set(names) - set(_certificates()):
            files.point(layout.certificate_link(name), os.path.relpath(layout.PLACEHOLDER, layout.CERTIFICATES), f"{layout.STATE}/.link-{os.getpid()}")

    def _make_logs(self, tree: dict[str, str]) -> None:
        """Make the logs that a configuration names as the package has made its own: nginx would let everybody read them."""
        named = {path for text in tree.values() for path in re.findall(rf"^\s*access_log ({LOGS}/[^\s/$;]+)[ ;]", text, re.MULTILINE)}
        for path in sorted(named):
            with contextlib.suppress(FileExistsError, FileNotFoundError, KeyError):
                owner, group = pwd.getpwnam(layout.NGINX_USER).pw_uid, grp.getgrnam("adm").gr_gid
                log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
                os.fchown(log, owner, group)
                os.close(log)
                self.undo.append(lambda path=path: _remove_empty(path))

    def _make_placeholder(self, folder: str) -> None:
        """Make a self-signed certificate that says by its name that it is none. It appears whole or not at all."""
        openssl = self.module.get_bin_path("openssl", required=True)
        new = tempfile.mkdtemp(dir=os.path.dirname(folder), prefix=".placeholder-")
        try:
            key = f"{new}/{layout.KEY_FILE}"
            command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            command += ["-days", "3650", "-subj", "/CN=placeholder.invalid", "-keyout", key, "-out", f"{new}/{layout.CERTIFICATE_FILE}"]
            self.module.run_command(command, check_rc=True, umask=0o077)
            files.write(f"{new}/{layout.TRANSPORT_FILE}", layout.TRANSPORT_UNTRUSTED)
            os.chmod(new, 0o755)
            os.rename(new, folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def fit(self, drop_in: str | None) -> None:
        """Give nginx's unit what it needs to tell what it runs, to come back after a crash, and its sandbox.

        :param drop_in: the text of the sandbox's file, if there is to be one.
        """
        os.makedirs(layout.NGINX_RUN, mode=0o700, exist_ok=True)
        fittings = {**FITTINGS, sandbox.DROP_IN: drop_in}
        different = [path for path, text in fittings.items() if files.read(path) != text]
        if different:
            # The last of what is undone.
            self.undo.append(self._daemon_reload)
        for path in different:
            folder = os.path.dirname(path)
            if not os.path.isdir(folder):
                os.makedirs(folder, mode=0o755)
                self.undo.append(lambda folder=folder: _remove_empty(folder))
            self.undo.append(files.restored(path))
            text = fittings[path]
            files.remove(path) if text is None else files.write(path, text)
        if different:
            self._daemon_reload()

    def refuse_what_it_is_not_let(self, state: dict[str, t.Any], confined: Confinement) -> None:
        """Refuse a configuration that nginx could not do in the sandbox in which it was started, and prepare its unit for it.

        :raises GenerationError: saying how to go on.
        """
        if not state["sandboxed"]:
            return
        needs = confined.why_not
        if needs is None and sandbox.is_shut_out(confined.box, serving.master()):
            needs = "something in /tmp or /var/tmp, and it has such folders of its own since then"
        if needs is None:
            return
        how = "The play would prepare its unit, and then tell you to start it anew. Or do without."
        if self.module.check_mode:
            if not confined.why_not and sandbox.is_public_in_unit() and self._has_private_tmp():
                return
        else:
            # Until then it may be started at any time, with what is live.
            live = self.sandbox(state["manifest"], store.texts(state["generation"]), state["modules"], state["prefix"], state["default_site"])
            self.fit(sandbox.drop_in(sandbox.together(confined.box, live.box) if confined.is_had else None, None))
            if not confined.why_not and self._has_private_tmp():
                # It is somebody else's wish, and will be so after any start.
                return
            how = PREPARED
        raise GenerationError(f"nginx was started in a sandbox, and the new configuration needs what that does not let it: {needs}. What was live is live. {how}")

    def _has_private_tmp(self) -> bool:
        _rc, out, _err = self.module.run_command(["systemctl", "show", "--property=PrivateTmp", "--value", "nginx"])
        return out.strip() not in ("", "no")

    @staticmethod
    def _open_up(box: sandbox.Sandbox) -> None:
        """Let an nginx that runs in a sandbox do what the new configuration needs."""
        why = sandbox.open_up(box, serving.master())
        if why:
            raise GenerationError(f"nginx runs in a sandbox that the new configuration does not fit into, so the one before is back: {why}")

    def _enter(self) -> None:
        """Let nginx read the live generation. The packaged nginx.conf stays beside it, and dpkg knows where."""
        if files.target(ENTRANCE) != store.LIVE:
            self.undo.append(files.restored(ENTRANCE))
            files.point(ENTRANCE, store.LIVE)
        if _is_a_copy_of_ours():
            self.undo.append(files.restored(MAIN))
        elif os.path.exists(MAIN) and not os.path.islink(MAIN):
            shutil.copy2(MAIN, PACKAGED)
            # rename puts the copy back in one step, with its owner and its times.
            self.undo.append(lambda: (os.rename(PACKAGED, MAIN), self._divert("--remove")))
        if not self._is_diverted():
            self._divert("--add")
        if files.target(MAIN) != "portico/nginx.conf":
            files.point(MAIN, "portico/nginx.conf")

    def _is_diverted(self, path: str = MAIN, aside: str = PACKAGED) -> bool:
        tool = self.module.get_bin_path("dpkg-divert")
        if tool is None:
            return False
        _rc, out, _err = self.module.run_command([tool, "--truename", path])
        return out.strip() == aside

    def _divert(self, action: str, path: str = MAIN, aside: str = PACKAGED, rename: str = "--no-rename") -> None:
        command = [self.module.get_bin_path("dpkg-divert", required=True), "--quiet", "--local", rename]
        self._do([*command, "--divert", aside, action, path])

    def _has_pristine_default_site(self) -> bool:
        """Return whether the default site is switched on and is still the package's own file."""
        if files.target(DEFAULT_SITE) == YIELDED or self._is_pristine(vendors.DEFAULT_SITE):
            return True
        return os.path.islink(DEFAULT_SITE) and os.path.realpath(DEFAULT_SITE) == DEFAULT_SITE_FILE and self._is_pristine(DEFAULT_SITE_FILE)

    def _left_out(self, default_site: bool) -> str | None:
        """Return the file of the default site, which will not be there any more."""
        if not default_site:
            return None
        return vendors.DEFAULT_SITE if self._is_pristine(vendors.DEFAULT_SITE) else DEFAULT_SITE

    def _is_pristine(self, path: str) -> bool:
        query = self.module.get_bin_path("dpkg-query")
        if query is None or not os.path.isfile(path):
            return False
        _rc, out, _err = self.module.run_command([query, "--show", "--showformat=${Conffiles}\\n", vendors.COMMON, "nginx"])
        packaged = re.findall(rf"^ {re.escape(path)} ([0-9a-f]{{32}})", out, re.MULTILINE)
        with open(path, "rb") as file:
            # dpkg's own record of its files is in MD5; nothing here rests on its strength.
            return bool(packaged) and hashlib.md5(file.read(), usedforsecurity=False).hexdigest() in packaged

    def _have_default_site_yield(self) -> None:
        """Let the default site go on without being the default server, which ours is when nginx.conf is ours.

        Both cannot be, and no one step makes one of them come and the other go: nginx must be able to start between any two.
        """
        self.undo.append(files.restored(DEFAULT_SITE))
        # The vendor's makes no such claim.
        if files.target(DEFAULT_SITE) == YIELDED or not os.path.islink(DEFAULT_SITE):
            return
        files.write(SWITCHED_OFF, json.dumps({DEFAULT_SITE: os.readlink(DEFAULT_SITE)}))
        files.write(YIELDED, re.sub(r"\s+default_server\b", "", files.read(DEFAULT_SITE) or ""))
        # Not beside the link: nginx reads whatever lies there.
        files.point(DEFAULT_SITE, YIELDED, YIELDING)

    def _switch_off_default_site(self) -> None:
        files.remove(DEFAULT_SITE)
        if not self._is_pristine(vendors.DEFAULT_SITE):
            return
        aside = vendors.DEFAULT_SITE, vendors.SET_ASIDE
        if self._is_diverted(*aside):
            # Somebody has put it back meanwhile, and dpkg has its own beside it.
            self.undo.append(files.restored(vendors.DEFAULT_SITE))
            files.remove(vendors.DEFAULT_SITE)
        else:
            self.undo.append(lambda: self._divert("--remove", *aside, rename="--rename"))
            self._divert("--add", *aside, rename="--rename")

    def _give_back_vendors_site(self) -> None:
        aside = vendors.DEFAULT_SITE, vendors.SET_ASIDE
        if not self._is_diverted(*aside):
            return
        is_free = not os.path.lexists(vendors.DEFAULT_SITE)
        if is_free:
            self.undo.append(lambda: self._divert("--add", *aside, rename="--rename"))
        self._divert("--remove", *aside, rename="--rename" if is_free else "--no-rename")
        if not is_free:
            # What somebody has put there counts, and dpkg's copy of its own beside it is of no use any more.
            files.remove(vendors.SET_ASIDE)

    def _serve(self, state: dict[str, t.Any], number: int) -> None:
        """Reload nginx, or start it, and have it prove what it runs. Never restart it, which would refuse visitors."""
        if not state["enabled"]:
            self._systemctl("enable", "--quiet")
        if state["active"] and self._serves_nobody(state):
            self._restart(number)
            return
        if state["active"]:
            # Whose links alone were mended need not be told, and may have better certificates in memory than on the disk.
            if number != state["generation"] or state["serving"] != number or not state["entered"] or state["default_site"]:
                self._reload(number)
            return
        log = files.LogFromNow(serving.ERROR_LOG)
        if self._systemctl("start") != 0:
            raise GenerationError(f"nginx did not start with the new configuration, and the one before is back: {self._last_words()}")
        self._prove(number, log, set())

    def _serves_nobody(self, state: dict[str, t.Any]) -> bool:
        """Return whether nginx has run for nobody yet, as after its package was installed, and not in a sandbox."""
        if state["entered"] or state["sandboxed"] or state["serving"] is not None or not sandbox.is_in_unit():
            return False
        return not sandbox.serves(sandbox.configuration([], ETC, strangers.PLACES, self._left_out(state["default_site"])))

    def _restart(self, number: int) -> None:
        """Start nginx anew, which is how it comes into its sandbox."""
        log, self.restarted = files.LogFromNow(serving.ERROR_LOG), True
        if self._systemctl("restart") != 0:
            raise GenerationError(f"nginx did not start in its sandbox, and what was there is back: {self._last_words()}")
        self._prove(number, log, set())

    def _reload(self, number: int | None) -> None:
        log, workers = files.LogFromNow(serving.ERROR_LOG), serving.accepting_workers()
        # One that was started before its unit said so.
        serving.let_open_files(serving.master())
        if self._systemctl("reload") != 0:
            raise GenerationError(f"nginx did not reload, and the configuration before is back: {self._last_words()}")
        self._prove(number, log, workers)

    @staticmethod
    def _prove(number: int | None, log: files.LogFromNow, before: set[str]) -> None:
        """Wait until nginx answers as the generation of that number, or as none of ours, and as no other any more.

        The new workers answer a tenth of a second before the old ones are told to leave, and longer on a busy host.

        :param log: its error log since it was told.
        :param before: the workers that accepted connections until then.
        :raises GenerationError: when it does not, which it tells nobody: not by its exit code, not systemd.
        """
        told_at = time.monotonic()
        deadline = told_at + serving.SECONDS_TO_PROVE
        while _serving() != number or before & serving.accepting_workers():
            refused = serving.refusal(log.read(), serving.master())
            if refused and time.monotonic() > told_at + serving.SECONDS_OF_DOUBT and _serving() != number:
                raise GenerationError(f"nginx passed the new configuration and refused to run it, so the one before is back: {refused}")
            if time.monotonic() > deadline:
                raise GenerationError(f"nginx does not run the new configuration after {serving.SECONDS_TO_PROVE} seconds, so the one before is back.")
            time.sleep(0.02)  # between two questions to a process that sends no word when it is done

    def _remove_state(self) -> None:
        shutil.rmtree(layout.NGINX, ignore_errors=True)
        shutil.rmtree(layout.NGINX_RUN, ignore_errors=True)
        for name in os.listdir(layout.CERTIFICATES) if os.path.isdir(layout.CERTIFICATES) else []:
            if os.path.realpath(layout.certificate_link(name)) == layout.PLACEHOLDER:
                os.remove(layout.certificate_link(name))
        shutil.rmtree(layout.PLACEHOLDER, ignore_errors=True)
        for folder in (layout.CERTIFICATES, layout.ACME_WEBROOT, layout.MAINTENANCE, layout.STATE):
            # What certbot's half keeps there, or somebody else, stays.
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def _last_words(self) -> str:
        _rc, out, _err = self.module.run_command(["journalctl", "--unit", "nginx", "--lines", "10", "--no-pager", "--output", "cat"])
        return serving.relevant(out)

    def _daemon_reload(self) -> None:
        self._do(["systemctl", "daemon-reload"])

    def _do(self, command: list[str]) -> None:
        rc, out, err = self.module.run_command(command)
        if rc != 0:
            raise GenerationError(f"{' '.join(command)} failed: {' '.join((err or out).split()) or f'it ended with {rc}'}.")

    def _systemctl(self, verb: str, *flags: str) -> int:
        rc, _out, _err = self.module.run_command(["systemctl", verb, *flags, "nginx"])
        return rc

    def _versions(self, asked: commands.Running | None) -> tuple[list[int], list[int], bool, list[str], str]:
        """Return nginx's version, its OpenSSL's, whether it was built with HTTP/3, the packages of modules that it has in it, and its prefix.

        :param asked: C(nginx -V), where there is an nginx.
        :raises GenerationError: when it does not say.
        """
        if asked is None:
            return [], [], False, [], PREFIX
        rc, _out, err = asked.done()
        if rc != 0:
            raise GenerationError(f"{self.binary} -V does not say which nginx this host has: {serving.relevant(err)}")
        self.temporary = next(iter(re.findall(r"--http-client-body-temp-path=(/\S+)", err)), "")
        prefix = re.search(r"--prefix=(/\S+)", err)
        return _numbers_after("nginx/", err), _numbers_after("running with OpenSSL ", err) or _numbers_after("built with OpenSSL ", err), "--with-http_v3_module" in err.split(), ["libnginx-mod-stream"] if "--with-stream" in err.split() else [], prefix[1] if prefix else PREFIX


def _unit(out: str) -> tuple[bool, bool]:
    """Return whether nginx runs, and whether it will after a boot, from what C(systemctl show) has said."""
    known = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    return known.get("ActiveState") in ("active", "reloading"), known.get("UnitFileState") in ENABLED


def _serving() -> int | None:
    """Return the number of the generation that nginx's workers run, or None where they run none of ours."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(5)
        try:
            asked.connect(layout.NGINX_SOCKET)
            asked.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: asked.recv(4096), b""))
        except OSError:
            return None
    number = answer.rpartition(b"\r\n\r\n")[2].strip()
    return int(number) if number.isdigit() else None


def _certificates() -> list[str]:
    """Return the names of the certificates that nginx could read; a link whose target is gone is none."""
    if not os.path.isdir(layout.CERTIFICATES):
        return []
    return sorted(name for name in os.listdir(layout.CERTIFICATES) if _is_whole(layout.certificate_link(name)))


def _is_whole(folder: str) -> bool:
    """Return whether a folder has all that nginx reads of a certificate."""
    return all(os.path.exists(f"{folder}/{each}") for each in (layout.CERTIFICATE_FILE, layout.KEY_FILE, layout.TRANSPORT_FILE))


def _certbot_edits() -> list[str]:
    """Return the lineages that certbot renews or installs by editing nginx's files."""
    found = []
    for path in sorted(glob.glob("/etc/letsencrypt/renewal/*.conf")):
        if re.search(r"^(installer|authenticator) = nginx$", files.read(path) or "", re.MULTILINE):
            found.append(os.path.basename(path).removesuffix(".conf"))
    return found


def _switched_off() -> dict[str, str]:
    """Return what was switched off when portico.web came, link to target."""
    return json.loads(files.read(SWITCHED_OFF) or "{}")


def _clear_leftovers() -> None:
    """Remove what killed runs had not finished."""
    store.clear_leftovers()
    for path in [*glob.glob(f"{layout.STATE}/.placeholder-*"), *glob.glob(f"{layout.STATE}/.link-*")]:
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else files.remove(path)
    for path in glob.glob(f"{STAGE}*"):
        # A run in check mode takes no lock, and may be testing just now.
        if not os.path.exists(f"/proc/{path.removeprefix(STAGE).split('-')[0]}"):
            shutil.rmtree(path)
    files.remove(YIELDING)
    for path in (MAIN, ENTRANCE, *FITTINGS, sandbox.DROP_IN):
        files.remove(path + files.SUFFIX)


def _named_caches(tree: dict[str, str]) -> set[str]:
    return {path for text in tree.values() for path in re.findall(r"^proxy_cache_path (\S+)", text, re.MULTILINE)}


def _drop_caches(tree: dict[str, str]) -> None:
    """Remove the caches that a configuration does not name."""
    named = _named_caches(tree)
    for name in os.listdir(layout.CACHES):
        path = os.path.join(layout.CACHES, name)
        if name.startswith(layout.CACHE_PREFIX) and path not in named:
            # Workers of before the reload may still write to it.
            shutil.rmtree(path, ignore_errors=True)


def _named_paths(tree: dict[str, str]) -> set[str]:
    """Return all that looks like a path of the host in a configuration."""
    return {path for text in tree.values() for path in re.findall(r"(?<![^\s\"'=])/[^\s;\"'{}]+", text)}


def _remove_empty(path: str) -> None:
    """Remove what came into being at a path, if nothing is in it."""
    with contextlib.suppress(OSError):
        if os.path.isdir(path):
            os.rmdir(path)
        elif os.path.getsize(path) == 0:
            os.remove(path)


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _is_ours() -> bool:
    """Return whether nginx.conf is the published one: the link to it, or a copy, or nothing where somebody removed it."""
    return not os.path.lexists(MAIN) or files.target(MAIN) == "portico/nginx.conf" or _is_a_copy_of_ours()


def _is_a_copy_of_ours() -> bool:
    """Return whether nginx.conf was the link to ours before somebody edited it in a way that leaves a copy, as C(sed -i) does."""
    return not os.path.islink(MAIN) and os.path.exists(PACKAGED) and (files.read(MAIN) or "").startswith(OURS)


def _modules() -> list[str]:
    """Return the names of the dynamic modules that nginx loads."""
    return [name for path in sorted(glob.glob(f"{ETC}/modules-enabled/*.conf")) for name in _loaded(files.read(path) or "")]


def _loaded(text: str) -> list[str]:
    return re.findall(r"^\s*load_module\s+[\"']?(?:\S*/)?([a-z0-9_]+)\.so", text, re.MULTILINE)


def _nameservers() -> list[str]:
    """Return the servers that the host asks for names (resolv.conf(5)); an address with a zone is none to nginx."""
    found = re.findall(r"^nameserver\s+([0-9A-Fa-f:.]+)\s*$", files.read("/etc/resolv.conf") or "", re.MULTILINE)
    return [f"[{address}]" if ":" in address else address for address in found]


def _numbers_after(words: str, text: str) -> list[int]:
    found = re.search(re.escape(words) + r"(\d+(?:\.\d+)*)", text)
    return [int(number) for number in found.group(1).split(".")] if found else []


def _quoted_line(words: str, tree: dict[str, str]) -> str:
    """Return the line of a published file that nginx names."""
    place = re.search(r"in (\S+):(\d+)", words)
    lines = tree.get(place.group(1), "").splitlines() if place else []
    number = int(place.group(2)) if place else 0
    return f"\n{place.group(1)}:{number}: {lines[number - 1].strip()}" if place and 0 < number <= len(lines) else ""


def _refuse_shared_streams(found: dict[str, dict[str, list[t.Any]]], scope: str, asked: int) -> None:
    """Refuse to go back to streams whose names or places other scopes have now."""
    for name, place in found.get(scope, {}).items():
        for other, theirs in found.items():
            taken = [their_name for their_name, their_place in theirs.items() if other != scope and (their_name.lower() == name.lower() or at_one_place(place, their_place))]
            if taken:
                raise GenerationError(f'The stream "{name}" of generation {asked} has the name or the port that "{taken[0]}" of the scope "{other}" has now. Take one of them out first.')


def _refuse_shared_sites(wanted: Manifest, scope: str, asked: int) -> None:
    """Refuse to go back to sites whose names, or the names that they answer to, other scopes have now."""
    for name, names in wanted["scopes"].get(scope, {"sites": {}})["sites"].items():
        for other, part in wanted["scopes"].items():
            taken = [theirs for theirs, their_names in part["sites"].items() if other != scope and (theirs == name or set(names) & set(their_names))]
            if taken:
                raise GenerationError(f'The site "{name}" of generation {asked} has the name, or a server name, that "{taken[0]}" of the scope "{other}" has now. Take one of them out first.')


def _restored_manifest(nginx: Nginx, state: dict[str, t.Any], scope: str, asked: int | None) -> tuple[int, Manifest]:
    """Return the generation to go back to, and what is live when its scope is restored.

    The part that there is once goes back with the scope that it belongs to: the one that set it, or the only one.

    :raises GenerationError: when there is no such generation.
    """
    live = state["manifest"]
    kept = {number: store.manifest(number) for number in store.numbers() if number != state["generation"]}
    if asked is None:
        other = [number for number in sorted(kept, reverse=True) if number < state["generation"] and kept[number]["scopes"].get(scope) != live["scopes"].get(scope)]
        if not other:
            raise GenerationError(f'No kept generation has other files of the scope "{scope}" than the live one, {state["generation"]}.')
        asked = other[0]
    if asked not in kept:
        raise GenerationError(f"Generation {asked} is not kept, or is live. Kept are: {', '.join(map(str, sorted(kept))) or 'none'}.")
    then = kept[asked]
    alone = not (live["scopes"].keys() | then["scopes"].keys()) - {scope}
    owner = live["host"]["owner"]
    host = then["host"] if alone or owner == scope or (owner is None and then["host"]["owner"] == scope) else live["host"]
    wanted = with_part(live, scope, host, then["scopes"].get(scope))
    _refuse_shared_sites(wanted, scope, asked)
    _refuse_shared_streams(streams_of(wanted), scope, asked)
    if STREAMS not in host["files"] and streams_of(wanted):
        # nginx has a block for streams only while somebody has some: now, or then.
        said = host["owner"], host["settings"]
        fitting = [each for each in (live["host"], then["host"]) if STREAMS in each["files"] and (each["owner"], each["settings"]) == said]
        if not fitting:
            raise GenerationError(f"Back at generation {asked} there would be streams, and no place for them in what nginx has once for the whole host. Run the play that has them instead.")
        wanted = with_part(live, scope, fitting[0], then["scopes"].get(scope))
    return asked, wanted


def _publish(module: AnsibleModule, nginx: Nginx) -> dict[str, t.Any]:
    """Make the scope what was asked for, unless it is."""
    params, scope = module.params, module.params["scope"]
    state = nginx.read()
    if params["state"] == "restored":
        source, wanted = _restored_manifest(nginx, state, scope, params["generation"])
        sent = {path: text for path, text in store.texts(source).items() if path in files_of(wanted) and files.digest(text) == files_of(wanted)[path]}
        why = f'scope "{scope}" went back to generation {source}'
    else:
        if state["generation"] != params["based_on"]:
            return {"changed": False, "stale": True, "generation": state["generation"]}
        wanted = with_part(state["manifest"], scope, params["host"], params["part"])
        sent, why = unpack(params["texts"]), f'scope "{scope}" was published'
    own = wanted["host"]["files"].keys() | wanted["scopes"].get(scope, {"files": {}})["files"].keys()
    result = {"generation": state["generation"], "stale": False, "files": changed_files(state["manifest"], wanted, set(state["drifted"]) & own)}
    if not differences(state, wanted, scope):
        return {"changed": False, **result}
    tested = nginx.binary is not None and (params["with_test"] or not module.check_mode)
    if nginx.binary is None and not module.check_mode:
        raise GenerationError("nginx is not installed on this host. The role portico.web.nginx installs it.")
    tree = nginx.compose(state, wanted, scope, sent)
    if module._diff:
        live = store.texts(state["generation"])
        result["before"] = {path: shown(path, live[path]) for path in result["files"] if path in live}
        result["after"] = {path: shown(path, tree[path]) for path in result["files"] if path in tree}
    confined = nginx.sandbox(wanted, tree, state["modules"], state["prefix"], state["default_site"])
    refused = nginx.test(tree, certificates_of(wanted), state["default_site"], confined) if tested else None
    nginx.refuse_what_it_is_not_let(state, confined)
    if not module.check_mode:
        drop_in = sandbox.drop_in(confined.box if confined.is_had else None, refused)
        try:
            result["generation"] = nginx.publish(tree, wanted, state, why, confined.box, drop_in)
        except GenerationError as error:
            if not (refused and state["sandboxed"]):
                raise
            # It runs in a sandbox that is too narrow for this, and a start would bring that back.
            nginx.fit(drop_in)
            raise GenerationError(f"{error} In its sandbox it says: {refused}. {PREPARED}") from error
        result["sandbox"] = nginx.outside(confined, refused)
    if params["state"] == "restored":
        result["restored"] = source
    return {"changed": True, "tested": tested, **result}


def _leave(module: AnsibleModule, nginx: Nginx) -> dict[str, t.Any]:
    """Take portico.web's hand off nginx, unless it is off."""
    state = nginx.read()
    there = state["generation"] or any(map(os.path.lexists, (ENTRANCE, layout.NGINX, *FITTINGS, sandbox.DROP_IN))) or state["entered"]
    if not there:
        return {"changed": False, "generation": 0}
    if nginx.binary is not None and os.path.isdir(ETC):
        nginx.test_without()
    if not module.check_mode:
        nginx.leave(state)
    return {"changed": True, "sandbox": STAYS if state["sandboxed"] else "", "generation": 0, "files": sorted(files_of(state["manifest"])), "tested": nginx.binary is not None}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["asked", "published", "restored", "absent", "history"], "default": "asked"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "repository": {"type": "dict"},
            "scope": {"type": "str", "default": layout.NGINX_SCOPE},
            "host": {"type": "dict"},
            "part": {"type": "dict"},
            "with_passwords": {"type": "bool", "default": False, "no_log": False},
            # Hashes of passwords are among them, and Ansible writes what a module was told into the journal.
            "texts": {"type": "str", "default": "", "no_log": True},
            "with_test": {"type": "bool", "default": True},
            "based_on": {"type": "int", "default": 0},
            "generation": {"type": "int"},
            "holder": {"type": "str", "default": "another run"},
        },
        required_if=[("state", "published", ["host"])],
        supports_check_mode=True,
    )
    nginx = Nginx(module)
    act = _leave if module.params["state"] == "absent" else _publish
    # A dry run touches nothing, the lock neither; at the worst its answer is about a moment ago.
    lock = contextlib.nullcontext() if module.check_mode else serving.Lock(module.params["holder"])
    waited = {}
    try:
        if module.params["state"] == "asked":
            module.exit_json(changed=False, **nginx.read())
        if module.params["state"] == "history":
            module.exit_json(changed=False, generation=store.live_number(), history=store.history())
        with lock:
            if not module.check_mode:
                _clear_leftovers()
            result = act(module, nginx)
            if getattr(lock, "waited_for", None):
                waited = {"waited_for": lock.waited_for}
    except (GenerationError, serving.ServingError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The host could not do it, and what was live is live: {error}")
    module.exit_json(**result, **waited)


if __name__ == "__main__":
    main()
