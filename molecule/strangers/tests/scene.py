"""What the stories of this scenario have in common: a host's state, and its way back to a host without nginx."""

from __future__ import annotations

# All files with their owners, modes, targets and contents; of folders not the time.
STATE = r"""
for place in /etc/nginx /etc/systemd/system /etc/tmpfiles.d /var/lib/portico /var/lib/dpkg/diversions /etc/letsencrypt /etc/apt /var/lib/nginx; do
  find $place -printf '%p %y %m %u:%g %l\n' 2>/dev/null
  find $place -type f -exec sha256sum {} + 2>/dev/null
done | LC_ALL=C sort
"""

WITHOUT_NGINX = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq purge nginx nginx-common 'libnginx-mod-*' >/dev/null
rm -rf /etc/nginx /var/log/nginx /etc/letsencrypt
"""


def state(host):
    return host.check_output(STATE).splitlines()
