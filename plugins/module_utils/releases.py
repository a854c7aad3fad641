# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The releases of an app on its host: made once and never edited, recorded, gone back to, and pruned."""

from __future__ import annotations

import json
import os
import shutil
import time
import typing as t

from ansible_collections.portico.web.plugins.module_utils import files, layout
from ansible_collections.portico.web.plugins.module_utils.environments import COMPLETE, Environments
from ansible_collections.portico.web.plugins.module_utils.hooks import Hooks
from ansible_collections.portico.web.plugins.module_utils.sources import Source
from ansible_collections.portico.web.plugins.module_utils.steps import StepError, Steps

SETTINGS = "settings.json"
"""What a release was last live with, so that it can be live with it again. No secret is in it."""

OWES = "after_traffic"
"""Is there while a release's commands after traffic have not all been run."""

_RECORDED: dict[str, t.Any] = {
    "files": {},
    "health": {},
    "static": [],
    "switch": "overlap",
    "hook_seconds": 900,
    "keep": 5,
    "python": "/usr/bin/python3",
    "gunicorn": "gunicorn",
    "requirements": None,
    "shared": [],
    "companions": [],
    "worker_class": "gthread",
    "network": "all",
    "max_requests": 0,
    "installer": "auto",
    "index": None,
    "package": None,
    "version": None,
    "wheel": None,
    "fingerprint": "",
}
"""What is recorded of an order, and what a release had before there was such a key."""
_LEAST_ROOM = 64 * 1024 * 1024
"""What a first release is taken to need, where nothing is known of it."""

Order = dict[str, t.Any]


class Releases:
    """The releases of one app."""

    def __init__(self, order: Order, steps: Steps, source: Source, environments: Environments, hooks: Hooks) -> None:
        self.order, self.steps, self.source, self.environments, self.hooks = order, steps, source, environments, hooks
        self.name: str = order["name"]
        self.user = layout.app_unit(self.name)
        self.folder = f"{layout.app_home(self.name)}/releases"
        self.history = f"{layout.app_home(self.name)}/history.json"

    # ---- reading

    def path(self, release: str) -> str:
        return f"{self.folder}/{release}"

    def is_complete(self, release: str) -> bool:
        return os.path.isfile(f"{self.path(release)}/{COMPLETE}")

    def record(self, release: str | None) -> dict[str, t.Any]:
        """Return where a release came from, when it was made and by whom; nothing for one that is not there."""
        return _read(f"{self.path(release)}/{COMPLETE}") if release else {}

    def owes(self, release: str | None) -> bool:
        """Return whether commands after traffic are still to be run for a release."""
        return release is not None and os.path.exists(f"{self.path(release)}/{OWES}")

    def lived(self) -> list[str]:
        """Return the releases that can be gone back to, in the order in which they were live last; the latest is the last."""
        return [each for each in _read(self.history).get("lived", []) if self.is_complete(each) and os.path.isfile(f"{self.path(each)}/{SETTINGS}")]

    def previous(self, live: str | None) -> str | None:
        return next((each for each in reversed(self.lived()) if each != live), None)

    def kept(self, live: str | None) -> list[dict[str, t.Any]]:
        """Return the kept releases and where each came from, those that were live last first."""
        return [{"release": each, "live": each == live, **self.record(each)} for each in reversed(self.lived())]

    def bytes(self) -> int:
        """Return what releases and environments took on the disk when the last deploy was over."""
        return _read(self.history).get("bytes", 0)

    def find(self, wanted: str | None, live: str | None) -> str:
        """Return the release to go back to.

        :param wanted: its identifier or the beginning of it; the previous one if None.
        :raises StepError: naming the releases that are kept.
        """
        kept = [each for each in reversed(self.lived()) if each != live]
        if wanted is None:
            found = kept[:1]
        elif wanted == live:
            found = [wanted]
        else:
            found = [each for each in [*kept, *([live] if live else [])] if each.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(f"{each} ({_words(self.record(each))})" for each in kept) or "none"
        if wanted is None:
            why = "has no earlier release to go back to"
        else:
            why = f'has several releases that begin with "{wanted}"' if found else f'has no release "{wanted}"'
        raise StepError(f'The app "{self.name}" {why}. Besides the live one ({live or "there is none"}) these are kept: {names}.')

    def settings(self, release: str) -> Order:
        """Return what a release was last live with; nothing where that is not known."""
        found = _read(f"{self.path(release)}/{SETTINGS}")
        return {**_RECORDED, **found} if found else {}

    # ---- room on the disk

    def lacks_room(self, live: str | None) -> str | None:
        """Return the warning that a new release may not find room, if it may not.

        It is taken to need what the live one takes, with an environment of its own.
        """
        known = [self.path(live), os.path.realpath(f"{self.path(live)}/environment")] if live else []
        archive = self.order.get("archive")
        packed = os.path.getsize(archive) if archive and os.path.isfile(archive) else 0
        needed = max(_size(known), 4 * packed, _LEAST_ROOM)
        found = os.statvfs(self.folder)
        free = found.f_bavail * found.f_frsize
        if free >= needed:
            return None
        return (
            f'The app "{self.name}" may not find room for its new release: {self.folder} has {_megabytes(free)} free, and about {_megabytes(needed)} are needed. '
            f"Its releases and environments take {_megabytes(self.bytes())} there; make room, or keep fewer of them (keep: {self.order['keep']})."
        )

    # ---- making

    def make(self, release: str, slot: str) -> None:
        """Make a release, unless it is there.

        :param slot: where it will run, whose environment its commands have.
        :raises StepError: naming the step.
        """
        folder = self.path(release)
        if self.is_complete(release):
            self.environments.repair(folder)
            return
        # What lies there otherwise is what an interrupted run had made so far.
        shutil.rmtree(folder, ignore_errors=True)
        source = f"{folder}/source"
        os.makedirs(source)
        os.chmod(folder, 0o711)
        self.source.fetch(source)
        self.steps.step("handing over its files", ["chown", "--recursive", "--no-dereference", f"{self.user}:{self.user}", source])
        os.symlink(os.path.relpath(self.environments.make(source), folder), f"{folder}/environment")
        for shared in self.order["shared"]:
            self._share(source, shared)
        self.hooks.before_traffic(folder, slot)
        self._seal(source)
        if self.order["after_traffic"]:
            files.write(f"{folder}/{OWES}", "")
        # A power cut must not leave one that is called complete and has empty files.
        os.sync()
        made = {**self.order["provenance"], "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        files.write(f"{folder}/{COMPLETE}", json.dumps(made, sort_keys=True) + "\n")

    def _share(self, source: str, folder: str) -> None:
        """Let a folder of the source be the one in the state directory; what the first release brings is copied there."""
        *parents, _last = parts = folder.split("/")
        for depth in range(len(parts)):
            place = "/".join((source, *parts[: depth + 1]))
            # The source is somebody else's text. Root must not follow where it leads.
            if os.path.islink(place) or (os.path.lexists(place) and not os.path.isdir(place)):
                raise self.steps.error("sharing its folders", f"{'/'.join(parts[: depth + 1])} is no folder in the source, but shared has {folder}")
        here, shared = f"{source}/{folder}", f"{layout.app_data(self.name)}/shared/{folder}"
        # As the app's user, who could have put a link where root would write.
        as_user = ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups", "--"]
        if not os.path.isdir(shared):
            new = shared + files.SUFFIX
            self.steps.step("sharing its folders", [*as_user, "rm", "--recursive", "--force", new])
            self.steps.step("sharing its folders", [*as_user, "mkdir", "--parents", os.path.dirname(shared)])
            make = ["cp", "--recursive", "--no-dereference", "--preserve=mode,timestamps", here, new] if os.path.isdir(here) else ["mkdir", new]
            self.steps.step("sharing its folders", [*as_user, *make])
            self.steps.step("sharing its folders", [*as_user, "mv", "--no-target-directory", new, shared])
        shutil.rmtree(here, ignore_errors=True)
        os.makedirs("/".join((source, *parents)), exist_ok=True)
        os.symlink(shared, here)

    def _seal(self, source: str) -> None:
        """Let the app read its code and not write it, and nginx read the static folders."""
        self.steps.step("sealing its source", ["chown", "--recursive", "--no-dereference", f"root:{self.user}", source])
        self.steps.step("sealing its source", ["chmod", "--recursive", "u=rwX,g=rX,o=", source])
        for folder in self.order["static"]:
            path = source
            os.chmod(path, 0o751)
            for part in folder.split("/"):
                path = f"{path}/{part}"
                # A link made by the app would have root open what it leads to.
                if os.path.islink(path) or not os.path.isdir(path):
                    raise self.steps.error("sealing its source", f"the static folder {folder} is not there. Does a command of before_traffic make it?")
                os.chmod(path, 0o751)
            self._refuse_ways_out(source, path)
            self.steps.step("opening its static files", ["chmod", "--recursive", "o=rX", path])

    def _refuse_ways_out(self, source: str, folder: str) -> None:
        """Refuse a link of a static folder that leads out of the source: nginx would serve what is there to everybody."""
        for parent, folders, names in os.walk(folder):
            for name in (*folders, *names):
                place = os.path.join(parent, name)
                if os.path.islink(place) and not os.path.realpath(place).startswith(f"{os.path.realpath(source)}/"):
                    shown = os.path.relpath(place, source)
                    raise self.steps.error("sealing its source", f"{shown} leads out of the source, and nginx would serve what is there. Copy the file instead of linking it")

    # ---- recording

    def remember(self, release: str) -> None:
        """Keep with a release what it is about to be live with."""
        settings = {key: self.order[key] for key in _RECORDED if key in self.order}
        files.write(f"{self.path(release)}/{SETTINGS}", json.dumps(settings, sort_keys=True) + "\n", 0o600)

    def went_live(self, release: str, before: str | None) -> None:
        """Put a release at the end of the history, after the one that was live before."""
        last = [each for each in (before, release) if each is not None]
        self._write_history([*(each for each in self.lived() if each not in last), *dict.fromkeys(last)])

    def settle(self, release: str, slot: str) -> None:
        """Run the commands that a release owes since it is live.

        :raises StepError: saying that the release stays live; the next run tries the commands again.
        """
        if self.owes(release):
            self.hooks.after_traffic(self.path(release), slot)
            files.remove(f"{self.path(release)}/{OWES}")

    # ---- removing

    def forget(self, release: str) -> None:
        """Remove a release that did not come to life, and what of its environment was not finished."""
        shutil.rmtree(self.path(release), ignore_errors=True)
        self._remove_environments(lambda name: not os.path.isfile(f"{self.environments.folder}/{name}/{COMPLETE}"))

    def prune(self, live: str, keep: set[str]) -> None:
        """Keep as many releases as are wanted, those that were live last; and the environments that they use.

        :param keep: releases that stay in any case, such as those of both slots.
        """
        lived = self.lived()
        stay = {live, *lived[-max(self.order["keep"], 2) :], *keep}
        previous = self.previous(live)
        if previous:
            stay.add(previous)
        for name in os.listdir(self.folder):
            if name not in stay:
                shutil.rmtree(self.path(name))
        used = {os.path.basename(os.path.realpath(f"{self.path(name)}/environment")) for name in os.listdir(self.folder)}
        self._remove_environments(lambda name: name not in used)
        self._write_history(self.lived(), _size([self.folder, self.environments.folder]))

    def _remove_environments(self, is_useless: t.Callable[[str], bool]) -> None:
        folder = self.environments.folder
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if is_useless(name):
                shutil.rmtree(f"{folder}/{name}", ignore_errors=True)

    def _write_history(self, lived: list[str], size: int | None = None) -> None:
        history = {"lived": lived, "bytes": self.bytes() if size is None else size}
        files.write(self.history, json.dumps(history) + "\n")


def _read(path: str) -> dict[str, t.Any]:
    """Return what a file of ours holds; nothing where there is none, or a power cut has emptied it."""
    try:
        return json.loads(files.read(path) or "{}")
    except ValueError:
        return {}


def _words(record: dict[str, t.Any]) -> str:
    """Return what people know a release by."""
    return ", ".join(str(record[key]) for key in ("version", "revision", "made") if record.get(key))


def _size(paths: list[str]) -> int:
    """Return what folders take on the disk, a file with several names once."""
    seen, total = set(), 0
    for path in paths:
        for parent, _folders, names in os.walk(path):
            for place in (parent, *(os.path.join(parent, name) for name in names)):
                try:
                    found = os.lstat(place)
                except FileNotFoundError:
                    continue
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
    return total


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:.0f} MB"
