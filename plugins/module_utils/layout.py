# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things are on a host: the one place where paths and unit names are made.

The controller writes them into configuration, the host's modules act on them; both import this file.
"""

from __future__ import annotations

STATE = "/var/lib/portico"
"""What Portico keeps and nobody edits. Outside /etc/nginx, which a purge of the package removes."""

OWN_PATHS = ("/.well-known/acme-challenge/", "/.portico/")
"""What of each site Portico answers itself."""
ACME_WEBROOT = STATE + "/acme"
PLACEHOLDER = STATE + "/placeholder"
CERTIFICATES = STATE + "/certificates"
LINEAGES = STATE + "/lineages"
NGINX = STATE + "/nginx"
MAINTENANCE = STATE + "/maintenance"
"""Where a file with a site's name closes the site."""
CACHES = "/var/cache"
"""Below a folder that each host has, so that nginx can make those of its caches itself."""
CACHE_PREFIX = "portico~"
NGINX_RUN = "/run/portico-nginx"
NGINX_USER = "www-data"
"""Whom nginx's workers run as (roles/nginx/templates/nginx.conf.j2)."""
NGINX_SOCKET = NGINX_RUN + "/generation.sock"
NGINX_SCOPE = "main"
"""The scope of a play that names none."""

CERTIFICATE_FILE = "fullchain.pem"
KEY_FILE = "privkey.pem"
TRANSPORT_FILE = "transport.conf"
STAPLING_FILE = "stapling.conf"
"""There where the certificate names an OCSP responder. A site that says these things itself reads the other file alone."""
STAPLING_CAS_FILE = "stapling.pem"

CERTBOT = STATE + "/certbot"
OWN = STATE + "/own"
"""Certificates that certbot knows nothing of: brought by somebody, or self-signed."""
CERTBOT_ENVIRONMENT = "/opt/portico/certbot"
"""The virtual environment of a certbot from PyPI."""
DNS_CREDENTIALS = "/etc/portico/dns"
TOOL = "/usr/local/sbin/portico-certificates"

APPS = "/srv/portico"
APP_SETTINGS = "/etc/portico/apps"
UV = "/opt/portico/uv"
"""The program that makes environments, where the host has none of its own: one folder a version."""
SOCKETS = "/run/portico"
UNITS = "/etc/systemd/system"
LOCKS = "/run/lock"

ACME_CA_BUNDLE = "/etc/portico/acme-ca.pem"
TRUSTED_CAS = "/etc/ssl/certs/ca-certificates.crt"
"""What the host trusts, where the package ca-certificates of Debian and its derivatives keeps it."""

# What a server block may promise about HTTPS depends on the certificate that it serves, and on that
# alone. So the promise lies beside the certificate, and moving the one symlink changes both at once.
# The variables on the right come from nginx's http level (roles/nginx/templates/maps.conf.j2).
TRANSPORT_TRUSTED = """\
set $portico_trusted 1;
set $portico_hsts $portico_hsts_over_tls;
if ($portico_upgrade) { return 301 https://$host$portico_https_port$request_uri; }
"""
TRANSPORT_UNTRUSTED = """\
set $portico_trusted "";
set $portico_hsts "";
"""

# What stands after that for a pair, whose first certificate the server block names itself.
SECOND_CERTIFICATE = """\
ssl_certificate {folder}/fullchain.pem;
ssl_certificate_key {folder}/privkey.pem;
"""

STAPLING = """\
ssl_stapling on;
ssl_stapling_verify on;
"""

# What stands after that where the host knows the CA, for the responses that somebody signs in its name.
STAPLING_CAS = """\
ssl_trusted_certificate {path};
"""

# A server block of its own on a socket of its own: no visitor meets it, and no other port is in its way.
NGINX_MARKER = """\
# portico.web asks here which generation the workers run: a reload can be refused without a word.
server {{
    listen unix:/run/portico-nginx/generation.sock;
    access_log off;
    location / {{
        return 200 "{number}\\n";
    }}
    # curl --unix-socket /run/portico-nginx/generation.sock http://nginx/status
    location = /status {{
        stub_status;
    }}
}}
"""


COMPANION_MARK = "# A companion of the app "

APP_SLOTS = ("a", "b")
"""Two places to run a release in. One of them is live, and the next release is started in the other."""

APP_QUEUE = "queue"
"""Stands beside the slots while visitors wait for one of them: nothing runs in it."""


def cache(scope: str, name: str) -> str:
    """Return the folder of a cache of nginx. No scope and no cache has a tilde in its name."""
    return f"{CACHES}/{CACHE_PREFIX}{scope}~{name}"


def app_home(name: str) -> str:
    """Return the folder of an app: its releases, its environments, its slots and the link C(live), which names one of these.

    What a visitor meets is behind that one link: moving it changes the socket and the static files at once.
    """
    return f"{APPS}/{name}"


def app_source(name: str) -> str:
    """Return the folder that always holds the live release's source."""
    return f"{APPS}/{name}/live/release/source"


def app_socket(name: str) -> str:
    """Return the path at which the live slot answers HTTP. nginx looks it up anew for each connection."""
    return f"{APPS}/{name}/live/app.sock"


def slot_socket(name: str, slot: str) -> str:
    """Return the unix socket of a slot, which may be C(%i) in its unit."""
    return f"{SOCKETS}/{name}/{slot}.sock"


def slot_settings(name: str, slot: str) -> str:
    """Return the path, without its suffix, of a slot's settings and its environment."""
    return f"{APP_SETTINGS}/{name}/{slot}"


def slot_credentials(name: str, slot: str) -> str:
    """Return the folder with a slot's credentials, a file for each."""
    return f"{slot_settings(name, slot)}.credentials"


def companion_unit(name: str, companion: str) -> str:
    """Return the name, without slot and suffix, of a companion's unit."""
    return f"{app_unit(name)}-{companion}"


def companion_marker(name: str) -> str:
    """Return the line by which a companion's unit is known as one of this app: by its name it could be one of another."""
    return f"{COMPANION_MARK}{name}.\n"


def app_unit(name: str) -> str:
    """Return the name, without slot and suffix, of the app's units; its user and group are called the same."""
    return f"portico-{name}"


def app_comment(name: str) -> str:
    """Return what /etc/passwd says of an app's user, by which we know that it is ours."""
    return f"The app {name}, by portico.web"


def app_state(name: str) -> str:
    """Return the state directory of an app relative to /var/lib, as systemd's StateDirectory= wants it."""
    return f"portico/apps/{name}"


def app_data(name: str) -> str:
    """Return the state directory of an app: the one place where it writes, and what outlives its releases."""
    return f"{STATE}/apps/{name}"


def app_lock(name: str) -> str:
    """Return the file that a run locks while it changes an app."""
    return f"{LOCKS}/portico-app-{name}.lock"


def certificate_link(name: str) -> str:
    """Return the symlink that names the certificate to serve: the placeholder's folder or a lineage's."""
    return f"{CERTIFICATES}/{name}"
