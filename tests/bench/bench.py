"""A server in a container that is reached over SSH, and what a play on it costs."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# systemd as the first process of a container, without --privileged.
SYSTEMD = (
    "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined --cgroupns host"
    " --volume /sys/fs/cgroup:/sys/fs/cgroup:rw --tmpfs /run --tmpfs /run/lock --tmpfs /tmp"
).split()

# nginx is there already: how long it takes to fetch it is the mirror's business.
SET_UP = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --no-install-recommends openssh-server nginx openssl >/dev/null
useradd --create-home --shell /bin/bash deploy
install -d -o deploy -g deploy -m 700 /home/deploy/.ssh
install -o deploy -g deploy -m 600 /dev/stdin /home/deploy/.ssh/authorized_keys
echo 'deploy ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/deploy
"""

# As an ordinary user sets it; ControlPersist is Ansible's own default.
CONFIGURATION = """
[defaults]
inventory = inventory.yml
interpreter_python = /usr/bin/python3
[ssh_connection]
pipelining = true
control_path_dir = {work}/cp
"""


@dataclass(frozen=True)
class Run:
    """What one run of ansible-playbook took: seconds, seconds of the controller's CPU, MB at its largest."""

    seconds: float
    user: float
    megabytes: float


class Bench:
    """A server in a container, and a controller's folder that knows the way to it."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.work = name, work
        (work / "cp").mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / "key"], check=True)
        (work / "ansible.cfg").write_text(CONFIGURATION.format(work=work))
        for play in HERE.glob("*.yml"):
            (work / play.name).write_text(play.read_text())

    def prepare(self) -> None:
        """Make the image that each size starts from."""
        docker("network", "create", self.name)
        self._start("portico-host:13")
        set_up = ["docker", "exec", "--interactive", self.name, "bash", "-c", SET_UP]
        with (self.work / "key.pub").open() as key:
            subprocess.run(set_up, stdin=key, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        docker("commit", self.name, self.name)

    def renew(self) -> None:
        """Start a server that nothing was published to."""
        docker("rm", "--force", self.name)
        self._start(self.name)
        address = docker("exec", self.name, "hostname", "--ip-address").split()[0]
        host_key = docker("exec", self.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        (self.work / "known_hosts").write_text(f"{address} {host_key}")
        options = f"-o UserKnownHostsFile={self.work}/known_hosts"
        variables = {"ansible_host": address, "ansible_user": "deploy", "ansible_ssh_private_key_file": str(self.work / "key"), "ansible_ssh_common_args": options}
        (self.work / "inventory.yml").write_text(yaml.safe_dump({"web": {"hosts": {"server": variables}}}))

    def remove(self) -> None:
        """Remove what prepare() and renew() made. None of it need be there."""
        for command in (("rm", "--force", "--volumes", self.name), ("network", "rm", self.name), ("image", "rm", self.name)):
            subprocess.run(["docker", *command], capture_output=True, check=False)

    def play(self, *arguments: str) -> Run:
        """Run a play and measure it."""
        with tempfile.TemporaryFile() as output:
            began = time.monotonic()
            process = subprocess.Popen(["ansible-playbook", *arguments], cwd=self.work, env=_environment(), stdout=output, stderr=subprocess.STDOUT)
            _pid, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                output.seek(0)
                raise SystemExit(f"bench: ansible-playbook {shlex.join(arguments)}\n{output.read().decode()[-4000:]}")
        return Run(seconds, usage.ru_utime, usage.ru_maxrss / 1024)

    def sessions(self, *arguments: str) -> int:
        """Run a play and count how often it talks to the host: with pipelining, once for each module."""
        told = subprocess.run(["ansible-playbook", "-vvv", *arguments], cwd=self.work, env=_environment(), capture_output=True, text=True, check=True)
        return told.stdout.count(" SSH: EXEC ")

    def _start(self, image: str) -> None:
        docker("run", "--detach", "--name", self.name, "--hostname", "server", "--network", self.name, *SYSTEMD, image)
        booted = "until systemctl is-system-running --wait 2>/dev/null | grep -qE 'running|degraded'; do sleep 0.2; done"
        docker("exec", self.name, "timeout", "60", "sh", "-c", booted)


def asked(doc: str | None, what: str, counts: str, **flags: str) -> argparse.Namespace:
    """Return what the command line asks for, C(counts) as numbers, when the images are there.

    :param what: what there is more and more of, as the option is called.
    :param flags: options that are said or not, and what each is for.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(f"--{what}", dest="counts", default=counts, help="how many, for each part of the table")
    parser.add_argument("--rounds", type=int, default=5, help="how often what is compared takes turns")
    parser.add_argument("--name", default="portico-bench", help="of the containers, their network and their image")
    for flag, words in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=words)
    options = parser.parse_args()
    options.counts = [int(each) for each in options.counts.split(",")]
    subprocess.run([ROOT / "tools/containers"], check=True)
    return options


def _environment() -> dict[str, str]:
    """Return the environment of a play: one in which Python keeps what it has compiled, as it does for people who do not forbid it.

    Without that a play that does nothing takes half as long again, and a run that is compared with it looks better than it is.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: docker {shlex.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def server(name: str) -> Iterator[Bench]:
    # Short, because the path of SSH's control socket may have 100 letters.
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        bench = Bench(name, Path(work))
        bench.remove()
        try:
            bench.prepare()
            yield bench
        finally:
            bench.remove()
