# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What other people's nginx files on a host say that concerns ours.

Two things can be said once only: a directive such as C(gzip) at the http level, and which server is the default one of
an address. Who was there first keeps them.
"""

from __future__ import annotations

import glob
import os
import re
import typing as t

from ansible_collections.portico.web.plugins.module_utils import files, vendors
from ansible_collections.portico.web.plugins.module_utils.lexer import LexError, statements

_PLACES = ("conf.d/*.conf", "sites-enabled/*")
"""What the http block of the packaged nginx.conf includes, and ours too."""
PLACES = (*_PLACES, "modules-enabled/*.conf")
"""The same, and what is included outside of that block."""

# What the packaged nginx.conf says, on Debian 12 and 13. Ours says it too, or better.
_PACKAGED = frozenset(
    "user worker_processes worker_cpu_affinity pid error_log events worker_connections http sendfile tcp_nopush tcp_nodelay types_hash_max_size "
    "server_tokens default_type ssl_protocols ssl_prefer_server_ciphers access_log gzip".split()
)
_PACKAGED_INCLUDES = re.compile(r"(/etc/nginx/)?(modules-enabled/\*\.conf|mime\.types|conf\.d/\*\.conf|sites-enabled/\*)")


def read(etc: str, switched_off: str | None, pristine: bool = False, is_vendors: bool = False) -> dict[str, t.Any]:
    """Return what was found below /etc/nginx.

    :param switched_off: a file that will not be there any more.
    :param pristine: whether nginx.conf is the packaged one, which loses nothing.
    :param is_vendors: whether the package is that of nginx's vendor.
    :returns: C(directives), name -> file of those at the http level that are said in it, of the form of a log also with its own name; C(default_servers), address
        (C(0.0.0.0:80), C([::]:443)) -> file; C(streams), the file that has a stream block, or None; C(main), the directives of an nginx.conf that somebody wrote and that
        ours would put an end to, each as C(name (line N)).
    """
    directives: dict[str, str] = {}
    defaults: dict[str, str] = {}
    for pattern in _PLACES:
        for path in sorted(glob.glob(f"{etc}/{pattern}")):
            if path == switched_off or not os.path.isfile(path):
                continue
            name = os.path.relpath(path, etc)
            for depth, words, _line in _statements(path):
                if depth == 0:
                    directives.setdefault(words[0], name)
                    if words[0] == "log_format":
                        directives.setdefault(" ".join(words[:2]), name)
                elif words[0] == "listen" and "default_server" in words[2:] and "quic" not in words[2:]:
                    defaults.setdefault(_address(words[1]), name)
    others = (os.path.relpath(path, etc) for path in sorted(glob.glob(f"{etc}/modules-enabled/*.conf")) if any(depth == 0 and words[0] == "stream" for depth, words, _line in _statements(path)))
    return {"directives": directives, "default_servers": defaults, "streams": next(others, None), "main": [] if pristine else _lost(f"{etc}/nginx.conf", is_vendors)}


def _statements(path: str) -> list[tuple[int, list[str], int]]:
    """Return the directives of a file; of one that nginx would not read either, none."""
    try:
        return list(statements(files.read(path) or ""))
    except LexError:
        return []


def _lost(path: str, is_vendors: bool) -> list[str]:
    """Return what an nginx.conf of somebody's own says and ours would not."""
    if os.path.islink(path):
        return []
    found = ((words, line) for depth, words, line in _statements(path) if depth < 2)
    return [f"{' '.join(words[:2])} (line {line})" for words, line in found if not (_is_packaged(words) or (is_vendors and _is_vendors(words)))]


def _is_packaged(words: list[str]) -> bool:
    return words[0] in _PACKAGED or (words[0] == "include" and all(_PACKAGED_INCLUDES.fullmatch(word) for word in words[1:]))


def _is_vendors(words: list[str]) -> bool:
    """Return whether the vendor's nginx.conf says something more, and ours too."""
    return words[0] == "keepalive_timeout" or words[:2] == ["log_format", vendors.LOG_FORMAT]


def _address(listen: str) -> str:
    """Return what a server listens at, all of one protocol's addresses in one way of writing."""
    if listen.isdigit():
        return f"0.0.0.0:{listen}"
    address, colon, port = listen.rpartition(":")
    if not colon or listen.startswith("unix:") or listen.endswith("]"):
        address, port = listen, "80"
    return f"{'0.0.0.0' if address == '*' else address}:{port}"
