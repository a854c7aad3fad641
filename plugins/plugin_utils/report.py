# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What became of a deploy, for a program to read."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping


def report(app: str, results: Mapping[str, Mapping[str, t.Any] | None]) -> dict[str, t.Any]:
    """Return the report of one app's deploy.

    :param results: by host, the result of M(portico.web.gunicorn_deploy); None for a host that did not come so far.
    """
    hosts = [_of_host(app, host, result) for host, result in results.items()]
    return {
        "app": app,
        "changed": any(host["changed"] for host in hosts),
        "failed": any(host["failed"] for host in hosts),
        "hosts": hosts,
    }


def _of_host(app: str, host: str, result: Mapping[str, t.Any] | None) -> dict[str, t.Any]:
    if result is None or "live" not in result:
        why = "the host was not reached" if result is None or result.get("unreachable") else str(result.get("msg", "it was not said why"))
        return {"host": host, "failed": True, "changed": bool(result and result.get("changed")), "error": why}
    live = result["live"].get(app) or {}
    told = {key: live.get(key) for key in ("release", "revision", "previous")}
    return {"host": host, "failed": False, "changed": bool(result.get("changed")), **told, "seconds": result.get("seconds")}
