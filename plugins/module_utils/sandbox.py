# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sandbox of nginx's unit: what a process that speaks to everybody does not need, it has not.

Where nginx may write follows from what its configuration names, other people's files included. What a running nginx may
do was decided when it was started. So what a newer configuration needs is added to it before it is told to reload.

See systemd.exec(5) for each of the properties.
"""

from __future__ import annotations

import glob
import os
import re
import typing as t
from collections.abc import Collection, Iterable, Sequence

from ansible_collections.portico.web.plugins.module_utils import commands, files, layout, serving

DROP_IN = "/etc/systemd/system/nginx.service.d/00-portico-sandbox.conf"
"""Before those of other people, which count where they say something else."""

_ALWAYS = ("/run", layout.CACHES, "/var/lib/nginx", "/var/log")

_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_NET_BIND_SERVICE": 10, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""By name, with the number that the kernel has for each (capabilities(7))."""
_CAP_SYS_ADMIN = 21

# The master starts as root: it binds ports, opens logs that the workers own, and becomes somebody else for its workers.
# It tells them over a pipe when to go, so it needs no right to send signals to others.
_PROPERTIES = (
    f"CapabilityBoundingSet={' '.join(_CAPABILITIES)}",
    "KeyringMode=private",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "ProcSubset=pid",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    # Many a site lies there.
    "ProtectHome=read-only",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
    "RemoveIPC=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@obsolete @privileged @resources",
    "SystemCallFilter=@chown @setuid",
    "UMask=0027",
)

_RUN_CODE = ("auth_pam", "lua", "modsecurity", "passenger", "perl", "rtmp")
"""What modules that run programs, or what others wrote, have in their names. Nobody can say what those need."""


class _Saying(t.NamedTuple):
    """What a configuration says in many ways.

    To look for a word is a hundred times faster than to look for a pattern, and most of a thousand sites' files have none of the words.
    """

    words: tuple[str, ...]
    """One of these is in whatever the pattern is found in."""
    pattern: re.Pattern[str]

    def may_be_in(self, text: str) -> bool:
        return any(word in text for word in self.words)

    def findall(self, text: str) -> list[t.Any]:
        return self.pattern.findall(text) if self.may_be_in(text) else []

    def is_in(self, text: str) -> bool:
        return self.may_be_in(text) and self.pattern.search(text) is not None


def _saying(pattern: str, *words: str) -> _Saying:
    return _Saying(words, re.compile(pattern, re.MULTILINE))


_WORD = r"""\s+(?:"([^"\n]+)"|'([^'\n]+)'|([^\s;{}"']+))"""
_BEGIN = r"(?:^|[;{}])\s*"
_WRITES = _saying(
    rf"{_BEGIN}(access_log|error_log|pid|lock_file|state|state_path|working_directory|\w+_temp_path|\w+_cache_path|proxy_store|fastcgi_store|uwsgi_store|scgi_store){_WORD}",
    *("_log", "pid", "lock_file", "state", "working_directory", "_path", "_store"),
)
_LISTENS = _saying(rf"""{_BEGIN}listen\s+["']?unix:([^\s;"']+)""", "unix:")
_INCLUDES = _saying(rf"{_BEGIN}include{_WORD}", "include")
_OF_OURS = "include portico/"
_STORES = _saying(rf"{_BEGIN}(?:dav_methods\s+(?!off\b)|(?:proxy|fastcgi|uwsgi|scgi)_store\s+(?!off\b))", "dav_methods", "_store")
_SERVED = _saying(rf"{_BEGIN}(?:root|alias){_WORD}", "root", "alias")
_TEMPORARY = _saying(rf"""(?:unix:|{_BEGIN}(?!location\b)[a-z_]+\s+["']?)/(?:var/)?tmp(?![\w.-])""", "/tmp")
_AS_OTHERS = _saying(r"\bproxy_bind\s[^;]*\btransparent\b", "transparent")
_WHERE_IT_IS_SAID = _saying(rf"""{_BEGIN}(?:access_log|error_log)\s+["']?\$""", "_log")
_SERVES = _saying(rf"{_BEGIN}(?:server\s*\{{|listen\s)", "server", "listen")
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_NO_PATH = re.compile(r"(off|on|stderr|syslog:.*|memory:.*|/dev/.*)$")
_NEVER_WHOLE = ("/", "/boot", "/etc", "/root", "/usr")
"""Folders of which only what is named is written to, whatever nginx wants to make in them."""


class Sandbox(t.NamedTuple):
    """What nginx is let do on a host."""

    folders: tuple[str, ...]
    """Those that it may write to."""
    private_tmp: bool
    """Whether it has folders for temporary files of its own. It has not where its configuration names something in those of all."""

    @property
    def properties(self) -> list[str]:
        """The lines of a unit."""
        writable = " ".join(_word(f"-{folder}") for folder in self.folders)
        return sorted([*_PROPERTIES, f"PrivateTmp={'yes' if self.private_tmp else 'no'}", f"ReadWritePaths={writable}"], key=lambda line: line.partition("=")[0])

    @property
    def text(self) -> str:
        """The drop-in."""
        lines = "".join(f"{line}\n" for line in self.properties)
        return f"# Written by portico.web: nginx_sandbox. Where nginx may write follows from its configuration.\n[Service]\n{lines}"


def together(one: Sandbox, other: Sandbox) -> Sandbox:
    """Return the sandbox in which nginx can do what either of two configurations says."""
    folders = sorted({*one.folders, *other.folders})
    return Sandbox(tuple(path for path in folders if not _is_below(path, folders)), one.private_tmp and other.private_tmp)


def why_not(modules: Iterable[str], texts: Collection[str]) -> str | None:
    """Return why a host's nginx has no sandbox; None where it has.

    :param modules: the dynamic modules that it loads.
    :param texts: all files of the configuration.
    """
    found = next((module for module in modules if any(f"_{name}_" in module for name in _RUN_CODE)), None)
    if found:
        return f"the module {found} runs what others wrote"
    if _is_said(_AS_OTHERS, texts):
        return "proxy_bind with transparent takes rights over the network"
    if _is_said(_WHERE_IT_IS_SAID, texts):
        return "a variable says where a log is"
    return None


def _is_said(what: _Saying, texts: Iterable[str]) -> bool:
    """Return whether one of the texts says something, and not in a comment."""
    return any(what.is_in(text) and what.is_in(_COMMENT.sub("", text)) for text in texts)


def serves(texts: Iterable[str]) -> bool:
    """Return whether a configuration has a server."""
    return _is_said(_SERVES, texts)


def of(texts: Collection[str], prefix: str) -> Sandbox:
    """Return the sandbox in which nginx can do what its configuration says.

    :param texts: all files of the configuration.
    :param prefix: the folder that relative paths of a configuration are below, of logs and caches.
    """
    found = set(_ALWAYS)
    for text in texts:
        for name, *words in _WRITES.findall(text):
            found |= _written(name, os.path.join(prefix, "".join(words)), "".join(words))
        found |= {os.path.dirname(path) for path in _LISTENS.findall(text)}
    if any(map(_STORES.is_in, texts)):
        # Where nginx stores what it is given, somewhere below what it serves.
        found |= {os.path.join(prefix, path).partition("$")[0] for text in texts for path in map("".join, _SERVED.findall(text))}
    folders = {path for path in map(os.path.normpath, found) if path.startswith("/")}
    # What a link below one of them leads to is elsewhere.
    folders = sorted({*folders, *map(os.path.realpath, folders)} - {*_NEVER_WHOLE})
    return Sandbox(tuple(path for path in folders if not _is_below(path, folders)), not _is_said(_TEMPORARY, texts))


def _written(name: str, path: str, word: str) -> set[str]:
    """Return the folder that a directive needs to be writable."""
    if _NO_PATH.match(word):
        return set()
    constant, variable, _rest = path.partition("$")
    if name.endswith("_store"):
        return {constant if variable else os.path.dirname(constant)}
    folder = os.path.dirname(constant if variable else constant.rstrip("/"))
    # One that nginx makes is made again where somebody has removed it, in the folder above.
    return {folder} if folder not in _NEVER_WHOLE else {constant}


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path != folder and path.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def _word(text: str) -> str:
    """Return a text as one word of a unit (systemd.syntax(7))."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[A-Za-z0-9/._~%@:+,=-]+", text):
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


# ---- the configuration


def configuration(own: Iterable[str], etc: str, places: Iterable[str], left_out: str | None) -> list[str]:
    """Return all texts that nginx reads, included ones too, each once.

    :param own: those that portico.web publishes.
    :param places: patterns of the others, relative to C(etc).
    :param left_out: a file that will not be there any more.
    """
    texts = list(own)
    seen = {left_out} if left_out else set()
    patterns = [f"{etc}/{place}" for place in places] + _included(texts, etc)
    while patterns:
        new = sorted({path for pattern in patterns for path in glob.glob(pattern) if os.path.isfile(path)} - seen)
        seen.update(new)
        found = [files.read(path) or "" for path in new]
        texts += found
        patterns = _included(found, etc)
    return texts


def _included(texts: Iterable[str], etc: str) -> list[str]:
    """Return the patterns of what texts include; what is published is among the texts already."""
    # Most of a thousand sites' files include nothing else, and are not looked through for more.
    found = {os.path.join(etc, "".join(words)) for text in texts if "include" in text.replace(_OF_OURS, "") for words in _INCLUDES.findall(text)}
    return sorted(path for path in found if not path.startswith(f"{etc}/portico/"))


# ---- the nginx that runs


def is_sandboxed(process: str) -> bool:
    """Return whether a running nginx is in the sandbox that is made here.

    :param process: the process ID of its master; nothing where there is none.
    """
    status = files.read(f"/proc/{process}/status") if process else None
    bounded = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status or "", re.MULTILINE)
    if bounded is None or _mounts(process) == _mounts("1"):
        return False
    has = int(bounded[1], 16)
    # A drop-in of somebody's own may add to ours. Without one, or with another's alone, root may administer the machine.
    return all(has >> bit & 1 for bit in _CAPABILITIES.values()) and not has >> _CAP_SYS_ADMIN & 1


def _mounts(process: str) -> str:
    """Return which mounts a process sees; nothing where it is gone, or nobody may know."""
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return ""


def is_shut_out(wanted: Sandbox, process: str) -> bool:
    """Return whether a running nginx does not see what a configuration names in C(/tmp), because it was started with one of its own.

    :param process: the process ID of its master.
    """
    return not wanted.private_tmp and is_sandboxed(process) and not all(os.path.samefile(path, f"/proc/{process}/root{path}") for path in ("/tmp", "/var/tmp"))


def open_up(wanted: Sandbox, process: str) -> str | None:
    """Let a running nginx write wherever another sandbox lets it, and return why that cannot be.

    :param process: the process ID of its master.
    """
    # What systemd keeps from it in those that are always there stays so.
    new = [os.path.realpath(folder) for folder in wanted.folders if folder not in _ALWAYS] if is_sandboxed(process) else []
    for folder in new:
        closed = [path for path in _mounted(folder, process) if _is_read_only(f"/proc/{process}/root{path}") and _is_read_only(path) is False]
        why = _open(folder, closed, process) if closed else None
        if why:
            return f"{folder} is not writable for it: {why}"
    return None


def _is_read_only(path: str) -> bool | None:
    """Return whether what is mounted there is; None where there is no such path."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return None


def _mounted(folder: str, process: str) -> list[str]:
    """Return a folder, and what is mounted below it where nginx sees it."""
    lines = (files.read(f"/proc/{process}/mountinfo") or "").splitlines()
    # See proc_pid_mountinfo(5): the fifth field, in which blanks are octal.
    places = {re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines}
    return [folder, *sorted(place for place in places if _is_below(place, [folder]))]


def _open(folder: str, closed: Iterable[str], process: str) -> str | None:
    """Make a folder a mount of its own, with all that is mounted below it, and make writable what is not."""
    inside: Sequence[str] = ["nsenter", f"--mount=/proc/{process}/ns/mnt", "mount"]
    for arguments in (["--rbind", folder, folder], *(["-o", "remount,bind,rw", path] for path in closed)):
        done = commands.run([*inside, *arguments])
        if done.rc != 0:
            return done.err.strip() or "mount did not say why"
    return None


def try_out(wanted: Sandbox, command: Sequence[str]) -> str | None:
    """Run a command in a sandbox, and return what it says where it fails.

    :param command: one that changes nothing.
    """
    properties = [word for line in (f"LimitNOFILE={serving.OPEN_FILES}", *wanted.properties) for word in ("--property", line)]
    try:
        done = commands.run(["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *properties, *command], seconds=serving.SECONDS_TO_START)
    except OSError as error:
        return str(error)
    return None if done.rc == 0 else " ".join((done.err or done.out).split()) or f"it ended with {done.rc}"


# ---- the drop-in

_REFUSED = "# Written by portico.web: nginx does not start in its sandbox on this host. "


def drop_in(wanted: Sandbox | None, why_not: str | None) -> str | None:
    """Return the text of the drop-in; None where there is to be none.

    :param why_not: what nginx said when it did not start in the sandbox.
    """
    if wanted is None:
        return None
    if why_not:
        return f"{_REFUSED}{why_not}\n# {files.digest(wanted.text)}\n"
    return wanted.text


def is_tried(wanted: Sandbox, process: str) -> bool:
    """Return whether nginx is known to start in a sandbox, because it runs in this one.

    :param process: the process ID of its master.
    """
    return files.read(DROP_IN) == wanted.text and is_sandboxed(process)


def is_written(wanted: Sandbox | None) -> bool:
    """Return whether the drop-in is the one for a sandbox, or says why there is none."""
    there = files.read(DROP_IN)
    if wanted is None or there is None:
        return wanted is there
    return there == wanted.text or there.endswith(f"\n# {files.digest(wanted.text)}\n")


def said() -> str | None:
    """Return why a host's nginx does not start in its sandbox, as it was found when that was tried last; None where it does."""
    there = files.read(DROP_IN) or ""
    return there.removeprefix(_REFUSED).splitlines()[0] if there.startswith(_REFUSED) else None


def is_in_unit() -> bool:
    """Return whether nginx is in a sandbox from its next start on."""
    return "[Service]" in (files.read(DROP_IN) or "")


def is_public_in_unit() -> bool:
    """Return whether nginx's unit lets it see what is in C(/tmp), as far as it is ours to say."""
    return "\nPrivateTmp=no\n" in (files.read(DROP_IN) or "")
