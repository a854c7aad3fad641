# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The units that have a host keep its certificates itself, and the hook through which certbot tells of a new one."""

from __future__ import annotations

from ansible_collections.portico.web.plugins.module_utils import layout

TIMERS = ("certificates-renew.timer", "certificates-reconcile.timer")
FOREIGN_TIMERS = ("certbot.timer", "certbot-renew.timer", "snap.certbot.renew.timer")
"""Those of the ways in which certbot is installed. There must be one timer that renews, and not two."""

DEPLOY_HOOK = "/etc/letsencrypt/renewal-hooks/deploy/portico"
_SYSTEMD = "/etc/systemd/system"

# The commands that people bring, certbot's hooks and the alarm, must be able to do their work: write a file wherever it
# belongs, or send a mail, for which a program gets the rights of the mail system's group. What none of them has to do
# is to change the machine itself.
_SANDBOX = """\
LockPersonality=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
"""

_RENEW_SERVICE = f"""\
# Written by portico.web.
[Unit]
Description=Renew this host's certificates
Documentation=https://letsencrypt.org/docs/integration-guide/
Wants=network-online.target
After=network-online.target nss-lookup.target nginx.service

[Service]
Type=oneshot
ExecStart={layout.TOOL} renew
TimeoutStartSec=90min
{_SANDBOX}"""

# A CA asks for a random second of the day, and twice a day also sees a certificate that it takes back early.
_RENEW_TIMER = """\
# Written by portico.web: the one timer that renews certificates.
[Unit]
Description=Renew this host's certificates twice a day, at a random time

[Timer]
OnCalendar=*-*-* 00,12:00:00
RandomizedDelaySec=12h
Persistent=true

[Install]
WantedBy=timers.target
"""

_RECONCILE_SERVICE = f"""\
# Written by portico.web.
[Unit]
Description=Compare the certificates that nginx serves with those on the disk
After=nginx.service

[Service]
Type=oneshot
ExecStart={layout.TOOL} reconcile
TimeoutStartSec=20min
{_SANDBOX}"""

_RECONCILE_TIMER = """\
# Written by portico.web.
[Unit]
Description=Compare the certificates that nginx serves with those on the disk, every quarter of an hour

[Timer]
OnBootSec=1min
OnCalendar=*:0/15

[Install]
WantedBy=timers.target
"""

# certbot runs it once for each renewal, and never again.
_DEPLOY_HOOK = f"""\
#!/bin/sh
# Written by portico.web.
exec {layout.TOOL} reconcile
"""


def files() -> dict[str, tuple[str, int]]:
    """Return the files that renewal needs, path to text and mode."""
    found = {
        f"{_SYSTEMD}/certificates-renew.service": (_RENEW_SERVICE, 0o644),
        f"{_SYSTEMD}/certificates-renew.timer": (_RENEW_TIMER, 0o644),
        f"{_SYSTEMD}/certificates-reconcile.service": (_RECONCILE_SERVICE, 0o644),
        f"{_SYSTEMD}/certificates-reconcile.timer": (_RECONCILE_TIMER, 0o644),
    }
    return {**found, DEPLOY_HOOK: (_DEPLOY_HOOK, 0o755)}
