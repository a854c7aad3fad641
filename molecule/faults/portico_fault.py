"""Kill whatever Python runs on a host right before its n-th step. A test puts this file on the host.

Python starts it through a .pth file, so that the module under test is what users run, with no special case in it.
A step is what can change the host: a change of a file that Portico answers for, or a command that acts on nginx.
While PLACE exists, each step is written to PLACE/steps; before the one that PLACE/kill-before numbers, the process
that is about to take it is killed, as by the kernel when memory ends.
"""

import os
import signal
import sys

PLACE = "/run/fault"
WATCHED = ("/var/lib/portico", "/etc/nginx", "/etc/systemd", "/run/portico")
COMMANDS = ("nginx", "systemctl", "dpkg-divert", "openssl", "mount", "umount", "unshare")
ONLY_ASK = ("-V", "-v", "is-active", "is-enabled", "is-failed", "show", "cat", "--version")

# Audit event -> its arguments that are paths. A dir_fd's place follows from the event's own description:
# https://docs.python.org/3/library/audit_events.html
PATHS = {
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.truncate": (0,),
    "socket.bind": (1,),
}
DIRECTORIES = {"os.rename": {0: 2, 1: 3}, "os.link": {0: 2, 1: 3}, "os.symlink": {1: 2}, "os.remove": {0: 1}, "os.mkdir": {0: 2}, "os.rmdir": {0: 1}, "os.chmod": {0: 2}, "os.chown": {0: 3}}


def watch(event, arguments):
    step = described(event, arguments)
    if step is None or not os.path.isdir(PLACE):
        return
    log = os.open(PLACE + "/steps", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        number = os.pread(log, os.fstat(log).st_size, 0).count(b"\n") + 1
        os.write(log, (step.replace("\n", " ") + "\n").encode())
    finally:
        os.close(log)
    if number == wanted():
        os.kill(os.getpid(), signal.SIGKILL)


def wanted():
    try:
        with open(PLACE + "/kill-before") as file:
            return int(file.read())
    except FileNotFoundError:
        return None


def described(event, arguments):
    """Say in words what is about to be done, if it is a step."""
    if event == "subprocess.Popen":
        words = [os.fsdecode(word) for word in arguments[1]] if isinstance(arguments[1], (list, tuple)) else [os.fsdecode(arguments[1])]
        acts = os.path.basename(words[0]) in COMMANDS and not set(words).intersection(ONLY_ASK)
        return "run " + " ".join(words) if acts else None
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return "open " + where(path) if writes and watched(where(path)) else None
    if event == "os.kill":
        process, number = arguments
        return f"signal {number} to {process}" if number and process != os.getpid() else None
    if event not in PATHS:
        return None
    places = [where(arguments[at], directory(event, at, arguments)) for at in PATHS[event]]
    return f"{event} {' '.join(places)}" if any(map(watched, places)) else None


def directory(event, at, arguments):
    place = DIRECTORIES.get(event, {}).get(at)
    return arguments[place] if place is not None and place < len(arguments) else -1


def where(path, folder=-1):
    """Return the absolute path that an audit event speaks of: it may be bytes, a descriptor, or relative to one."""
    if isinstance(path, int):
        return linked(path)
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    base = linked(folder) if isinstance(folder, int) and folder >= 0 else os.readlink("/proc/self/cwd")
    return os.path.join(base, os.fsdecode(path))


def linked(descriptor):
    try:
        return os.readlink("/proc/self/fd/%d" % descriptor)
    except OSError:  # closed meanwhile: then it names nothing
        return ""


def watched(path):
    return os.path.normpath(path).startswith(WATCHED)


sys.addaudithook(watch)
