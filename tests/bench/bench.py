#!/usr/bin/env python3
"""bench.py [--sites 1,100,1000] [--rounds 5]: what runs of the nginx role cost over SSH, beside a play with one task.

Run by `make bench`. Seconds say little about another machine; the ratios do. The plays that are compared take turns in
one session, so that whatever else the machine does slows all of them. Nothing passes or fails here.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
            process = subprocess.Popen(["ansible-playbook", *arguments], cwd=self.work, stdout=output, stderr=subprocess.STDOUT)
            _pid, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                output.seek(0)
                raise SystemExit(f"bench: ansible-playbook {shlex.join(arguments)}\n{output.read().decode()[-4000:]}")
        return Run(seconds, usage.ru_utime, usage.ru_maxrss / 1024)

    def sessions(self, *arguments: str) -> int:
        """Run a play and count how often it talks to the host: with pipelining, once for each module."""
        told = subprocess.run(["ansible-playbook", "-vvv", *arguments], cwd=self.work, capture_output=True, text=True, check=True)
        return told.stdout.count(" SSH: EXEC ")

    def _start(self, image: str) -> None:
        docker("run", "--detach", "--name", self.name, "--hostname", "server", "--network", self.name, *SYSTEMD, image)
        booted = "until systemctl is-system-running --wait 2>/dev/null | grep -qE 'running|degraded'; do sleep 0.2; done"
        docker("exec", self.name, "timeout", "60", "sh", "-c", booted)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: docker {shlex.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def sites(count: int, backend: int) -> list[dict[str, object]]:
    """Sites over HTTPS: half of them lead to a backend, the others elsewhere. The backend's port is that of the first."""
    return [
        {"name": f"site-{n}", "server_names": [f"site-{n}.example.test", f"www.site-{n}.example.test"]}
        | ({"redirect": f"https://elsewhere-{n}.example.test"} if n % 2 else {"proxy": f"http://127.0.0.1:{9000 if n else backend}"})
        for n in range(count)
    ]


def measure(bench: Bench, count: int, rounds: int) -> tuple[Mapping[str, list[Run]], Mapping[str, int]]:
    """Measure all runs for one number of sites."""
    # In group_vars, where a thousand sites are kept: what vars_files names, Ansible reads again for each task.
    folders = [f"sites-{count}-{backend}" for backend in (9000, 9001)]
    for folder, backend in zip(folders, (9000, 9001), strict=True):
        (bench.work / folder / "group_vars").mkdir(parents=True)
        (bench.work / folder / "groups.yml").write_text("web: {}\n")
        (bench.work / folder / "group_vars/web.yml").write_text(yaml.safe_dump({"nginx_sites": sites(count, backend)}))

    def having(folder: str) -> list[str]:
        return ["--inventory", "inventory.yml", "--inventory", folder]

    def publish(folder: str) -> list[str]:
        return ["nginx.yml", *having(folder)]

    bench.renew()
    # The first connection of a session is opened here, for all that follow.
    sessions = {"no-op": bench.sessions("noop.yml")}
    runs: dict[str, list[Run]] = {"no-op": [], "loaded": [], "first": [bench.play(*publish(folders[0]))], "unchanged": [], "check": [], "changed": []}
    for _round in range(rounds):
        runs["no-op"].append(bench.play("noop.yml"))
        runs["loaded"].append(bench.play("noop.yml", *having(folders[0])))
        runs["unchanged"].append(bench.play(*publish(folders[0])))
        runs["check"].append(bench.play(*publish(folders[1]), "--check", "--diff"))
        runs["changed"].append(bench.play(*publish(folders[1])))
        folders.reverse()
    sessions["unchanged"] = bench.sessions(*publish(folders[0]))
    sessions["check"] = bench.sessions(*publish(folders[1]), "--check", "--diff")
    sessions["changed"] = bench.sessions(*publish(folders[1]))
    return runs, sessions


WORDS = {
    "no-op": "one task that does nothing",
    "loaded": "the same, with the sites loaded",
    "first": "first run, nginx is installed",
    "unchanged": "unchanged",
    "check": "--check --diff, one site differs",
    "changed": "one site changed",
}


def rows(count: int, runs: Mapping[str, Sequence[Run]], sessions: Mapping[str, int]) -> Iterator[str]:
    """Medians over the rounds; the ratio is the median of each round's own."""
    noop = [run.seconds for run in runs["no-op"]]
    for kind, measured in runs.items():
        seconds = [run.seconds for run in measured]
        ratio = statistics.median(ours / base for ours, base in zip(seconds, noop))
        calls = sessions.get(kind, "")
        user, size = statistics.median(run.user for run in measured), max(run.megabytes for run in measured)
        yield (
            f"{count:>5}  {WORDS[kind]:<34}{statistics.median(seconds):>7.2f} s{ratio:>7.2f} x  {min(seconds):>6.2f} - {max(seconds):<6.2f}"
            f"{calls:>5}{user:>9.2f} s{size:>8.0f} MB"
        )


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default="1,100,1000", help="how many sites, for each table part")
    parser.add_argument("--rounds", type=int, default=5, help="how often each play takes its turn")
    parser.add_argument("--name", default="portico-bench", help="of the container, its network and its image")
    options = parser.parse_args()
    subprocess.run([ROOT / "tools/containers"], check=True)
    unchanged = {}
    print(f"{'sites':>5}  {'run':<34}{'median':>9}{'ratio':>9}  {'min - max':^15}{'calls':>5}{'CPU':>11}{'memory':>11}", flush=True)
    with server(options.name) as bench:
        for count in map(int, options.sites.split(",")):
            runs, sessions = measure(bench, count, options.rounds)
            print("\n".join(rows(count, runs, sessions)), flush=True)
            unchanged[count] = statistics.median(run.seconds for run in runs["unchanged"])
    fewest, most = min(unchanged), max(unchanged)
    if most > fewest:
        print(f"One more site costs an unchanged run {1000 * (unchanged[most] - unchanged[fewest]) / (most - fewest):.1f} ms.")
    print("ratio: to the play with one task, in the same session. calls: SSH sessions. CPU and memory: the controller's.")


if __name__ == "__main__":
    main()
