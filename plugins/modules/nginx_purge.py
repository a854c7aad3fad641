#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_purge
short_description: Take answers out of a cache of nginx
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Takes answers out of a cache of O(portico.web.nginx_publish#module:caches), so that the next visitor gets a new one.
  - nginx need not be told, and no request is lost. An answer that is being sent is sent to its end.
options:
  cache:
    description: The cache's name.
    type: str
    required: true
  scope:
    description: The scope whose sites name it.
    type: str
    default: main
  urls:
    description:
      - The URLs whose answers are taken out, as visitors ask for them, with their queries, such as V(https://shop.example.com/list?page=2).
      - One with a V(*) at its end means all that begin so.
      - If not given, all answers are.
    type: list
    elements: str
attributes:
  check_mode:
    support: full
    description: Counts what would be taken out.
  diff_mode:
    support: none
    description: What is taken out is data, and not configuration.
  idempotence:
    support: full
    description: Where nothing is kept, nothing changes.
seealso:
  - module: portico.web.nginx_publish
"""

EXAMPLES = r"""
- name: Have visitors see the new prices
  portico.web.nginx_purge:
    cache: pages
    urls:
      - https://shop.example.com/prices
      - https://shop.example.com/list*

- name: Empty the cache
  portico.web.nginx_purge:
    cache: pages
"""

RETURN = r"""
removed:
  description: How many answers were taken out.
  returned: success
  type: int
  sample: 12
"""

import contextlib
import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import layout

_HEAD = 65_536
"""The bytes of a file of a cache in which its key stands, behind a header of nginx's own."""


def _kept(folder: str) -> t.Iterator[str]:
    for parent, _folders, names in os.walk(folder):
        for name in names:
            # What is being written has a number behind its name, and is not kept yet.
            if re.fullmatch("[0-9a-f]{32}", name):
                yield os.path.join(parent, name)


def _key(path: str) -> str | None:
    """Return the URL that an answer is kept under; None where it is gone meanwhile, or no answer."""
    try:
        with open(path, "rb") as file:
            found = re.search(rb"\nKEY: ([^\n]*)\n", file.read(_HEAD))
    except FileNotFoundError:
        return None
    return found[1].decode("utf-8", "surrogateescape") if found else None


def _kept_under(url: str) -> str:
    """Return a URL as nginx keeps it: the scheme and the host in small letters."""
    scheme, _slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}://{host.lower()}{slash}{path}"


def _is_meant(key: str | None, urls: list[str]) -> bool:
    return key is not None and any(key.startswith(url[:-1]) if url.endswith("*") else key == url for url in urls)


def mistake(scope: str, cache: str, urls: list[str] | None) -> str | None:
    """Return what is wrong with what was asked for, and what to do; None where nothing is."""
    for kind, name in (("scope", scope), ("cache", cache)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            return f"{kind}: {name!r} is not the name of a {kind}. Write the one that is in the play."
    for url in urls or []:
        if not re.match("https?://[^/]+/", url):
            return f"urls: {url!r} is not a whole URL. Write one such as https://shop.example.com/list, or with a * at its end for all that begin so."
    if not os.path.isdir(layout.cache(scope, cache)):
        known = [name.removeprefix(layout.CACHE_PREFIX).split("~") for name in sorted(os.listdir(layout.CACHES)) if name.startswith(layout.CACHE_PREFIX) and name.count("~") == 2]
        there = f"There are: {', '.join(f'{name} (scope {owner})' for owner, name in known)}." if known else "No site names one."
        return f'cache: "{cache}" of the scope "{scope}" is not on this host. {there}'
    return None


def purge(scope: str, cache: str, urls: list[str] | None, dry: bool) -> int:
    """Take answers out, and return how many there were.

    :param urls: those whose answers are meant; None is all.
    :param dry: whether they are counted only.
    """
    urls = None if urls is None else [_kept_under(url) for url in urls]
    found = [path for path in _kept(layout.cache(scope, cache)) if urls is None or _is_meant(_key(path), urls)]
    for path in [] if dry else found:
        # nginx makes room by itself, at any time.
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    return len(found)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "cache": {"type": "str", "required": True},
            "scope": {"type": "str", "default": layout.NGINX_SCOPE},
            "urls": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    asked = [module.params[key] for key in ("scope", "cache", "urls")]
    wrong = mistake(*asked)
    if wrong:
        module.fail_json(msg=f"nginx_purge: {wrong}")
    removed = purge(*asked, dry=module.check_mode)
    module.exit_json(changed=removed > 0, removed=removed)


if __name__ == "__main__":
    main()
