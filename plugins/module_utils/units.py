# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs the host's own tool: two services with their timers, and certbot's deploy hook."""

from __future__ import annotations

from ansible_collections.portico.web.plugins.module_utils import layout

RENEW = "certificates-renew"
RECONCILE = "certificates-reconcile"
TIMERS = (f"{RENEW}.timer", f"{RECONCILE}.timer")
FOREIGN_TIMERS = ("certbot.timer", "certbot-renew.timer", "snap.certbot.renew.timer")
"""Those that certbot's packages bring. There is one renewal timer on a host, and it is ours."""

DEPLOY_HOOK = "/etc/letsencrypt/renewal-hooks/deploy/portico"
_SYSTEMD = "/etc/systemd/system"

# Nothing of /home, /var or /dev is shut: nginx opens every log of its configuration when it tests it, wherever that is,
# and would refuse for us what it does not refuse for itself. And hooks are other people's: one opens the firewall, another
# uses sudo, or podman.
_SANDBOX = """\
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_RAWIO CAP_SYS_PACCT CAP_MKNOD CAP_BPF CAP_PERFMON CAP_AUDIT_CONTROL CAP_BLOCK_SUSPEND CAP_WAKE_ALARM
"""

_RENEW_SERVICE = f"""\
# Written by portico.web.
[Unit]
Description=Renew the certificates that are due
Documentation=https://letsencrypt.org/docs/integration-guide/
Wants=network-online.target
After=network-online.target nginx.service

[Service]
Type=oneshot
ExecStart={layout.TOOL} renew
TimeoutStartSec=2h
# Not /etc: certbot's hooks are other people's, and copy certificates to where their services have them.
ProtectSystem=yes
{_SANDBOX}"""

_RENEW_TIMER = """\
# Written by portico.web: twice a day, at a random time as CAs ask for.
[Unit]
Description=Renew the certificates that are due, twice a day

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
Description=Have nginx serve the certificates that are on the disk
After=nginx.service

[Service]
Type=oneshot
ExecStart={layout.TOOL} reconcile
TimeoutStartSec=30min
ProtectSystem=full
{_SANDBOX}"""

# Two minutes after it is begun, by a boot or by a play, which then has its first certificates.
_RECONCILE_TIMER = """\
# Written by portico.web.
[Unit]
Description=Have nginx serve the certificates that are on the disk, every quarter of an hour

[Timer]
OnActiveSec=2min
OnCalendar=*:00/15
RandomizedDelaySec=1min

[Install]
WantedBy=timers.target
"""

_HOOK = f"""\
#!/bin/sh
# Written by portico.web. certbot runs this once for each renewed lineage, and never again if it fails; the timer
# {RECONCILE}.timer makes up for that.
exec {layout.TOOL} reconcile
"""


def files() -> dict[str, tuple[str, int]]:
    """Return the files, path to text and mode."""
    return {
        f"{_SYSTEMD}/{RENEW}.service": (_RENEW_SERVICE, 0o644),
        f"{_SYSTEMD}/{RENEW}.timer": (_RENEW_TIMER, 0o644),
        f"{_SYSTEMD}/{RECONCILE}.service": (_RECONCILE_SERVICE, 0o644),
        f"{_SYSTEMD}/{RECONCILE}.timer": (_RECONCILE_TIMER, 0o644),
        DEPLOY_HOOK: (_HOOK, 0o755),
    }
