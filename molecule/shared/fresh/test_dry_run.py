"""--check on hosts that nothing was deployed to yet: it tells what it would do, and does nothing."""

from __future__ import annotations

import testinfra

# Everything a run could leave behind: files and folders with their owners and modes, packages, units,
# what listens. The journal, Ansible's own folder in the home of the user who logs in, sudo's memory of
# the password, and what systemd and the kernel keep moving are not Portico's.
STATE = r"""
find / \( -path /proc -o -path /sys -o -path /dev -o -path /run/systemd -o -path /run/log -o -path /var/log/journal \
  -o -path /run/sudo -o -name .sudo_as_admin_successful -o -path /root/.ansible -o -path '/home/*/.ansible' \
  -o -path '/var/log/?tmp*' -o -path /var/log/lastlog \) -prune \
  -o -type d -printf '%p %y %m %u:%g\n' -o -printf '%p %y %m %u:%g %s %T@ %l\n' | LC_ALL=C sort
dpkg-query --show
systemctl list-unit-files --no-legend
systemctl list-units --all --plain --no-legend --type service,socket,timer,path
ss --listening --no-header --tcp --udp --unix
"""


def state(host) -> list[str]:
    return host.check_output(STATE).splitlines()


def test_a_dry_run_of_a_fresh_host_changes_nothing(play, request):
    hosts = {name: testinfra.get_host(name) for name in request.config.option.hosts.split(",")}
    before = {name: state(host) for name, host in hosts.items()}
    run = play("converge.yml", "--check", "--diff")
    assert run.ok, run.output
    assert run.changed and all(run.changed.values()), f"it should say that there is something to do:\n{run.output}"
    for name, host in hosts.items():
        difference = set(before[name]) ^ set(state(host))
        assert not difference, f"{name}:\n" + "\n".join(sorted(difference))
