"""The site that is there before, when its certificate is due, and what a CA does on a bad day."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from acme import AcmeServer
from servers import named, site

BASE = site("base", server_names=[named("base"), named("www.base")])
DUE, NOT_YET_DUE = 61, 59  # days after a certificate of ninety was issued

EXHAUSTED = "too many certificates (50) already issued for example.test in the last 168h0m0s"


@dataclass(frozen=True)
class Fault:
    """One fault of the CA.

    :param rule: of acme-proxy.
    :param says: a pattern of what a person is told; nothing where the run gets over it by itself.
    :param over: whether it is over by itself when it is met again.
    :param orders: how many orders a failed run may cost: a CA counts them.
    """

    rule: dict[str, Any] = field(default_factory=dict)
    says: str = ""
    over: bool = False
    orders: int = 1

    @contextlib.contextmanager
    def at(self, acme: AcmeServer) -> Iterator[None]:
        """While it lasts, the CA is at fault."""
        rule = dict(self.rule)
        if rule.get("type") == "accountDoesNotExist":
            # The accounts that there are now are lost, and not those that are registered meanwhile.
            rule["kid"] = sorted({each["kid"] for each in acme.requests() if each["kid"]})
        with acme.fault(**rule):
            yield


FAULTS = {
    "the CA is down": Fault({"resource": "*", "do": "drop"}, r"does not answer", orders=0),
    "429": Fault(
        {"resource": "newOrder", "do": "problem", "type": "rateLimited", "detail": EXHAUSTED, "retry_after": 7200},
        r"too many certificates \(50\) already issued for example\.test.*The CA asks to wait 2 hours",
    ),
    "503 once": Fault({"resource": "newOrder", "do": "problem", "type": "serverInternal", "status": 503, "first": 1}, r"internal error", over=True),
    "bad nonces": Fault({"resource": "*", "method": "POST", "do": "problem", "type": "badNonce", "rate": 0.05, "seed": 2}),
    "a connection breaks": Fault({"resource": "finalize", "do": "drop"}, r"does not answer"),
    "the CA hangs": Fault({"resource": "directory", "do": "hang", "seconds": 120}, r"does not answer: .*[Tt]imed out", orders=0),
    "half a certificate": Fault({"resource": "cert", "do": "truncate"}, r"certificates? in (the )?chain|chain"),
    "the account is lost": Fault({"resource": "*", "do": "problem", "type": "accountDoesNotExist"}, orders=2),
}
