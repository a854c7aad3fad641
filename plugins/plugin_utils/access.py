# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Access policies: who gets in, said once and called by a name."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping

from ansible_collections.portico.web.plugins.module_utils.generation import PASSWORDS
from ansible_collections.portico.web.plugins.plugin_utils import backends, entries, formats, hashes, headers, proxies, urls
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, Mistake, PorticoError, problem

_NOTHING: t.Final[Entry] = {"allow": None, "deny": None, "users": None, "realm": "", "any": False, "clients": None, "ask": None}
BUILT_IN: t.Final[dict[str, Entry]] = {
    "everybody": {"name": "everybody", **_NOTHING},
    "nobody": {"name": "nobody", **_NOTHING, "deny": ["0.0.0.0/0", "::/0"]},
}
"""The policies that need not be in the list."""

SECRET = ("users",)
"""The names too: who writes a password in a wrong place writes it beside one."""

_LONGEST_PASSWORD = 500
"""crypt(3) takes no more than 511 bytes."""
_HASH = re.compile(r"\$(?:1|apr1|5|6|2[aby]|y|gy|7)\$[./A-Za-z0-9$=,]{8,250}")


def normalise_access(policies: object, variable: str = "nginx_access") -> list[Entry]:
    """Return the access policies complete and checked, in the words of their documentation.

    :raises PorticoError: at the first mistake.
    """
    complete = entries.normalise(variable, policies, entries.options("nginx_publish", "access"), _FORMATS, secret=SECRET)
    for policy in complete:
        mistake = _mistake(variable, policy)
        _check(policy, mistake)
        if policy["ask"]:
            policy["ask"] = _asked(policy["ask"], bool(policy["users"]), mistake)
    return complete


def is_open(policy: Entry | None) -> bool:
    """Return whether a policy lets everybody in."""
    return policy is None or not any(policy[key] for key in ("allow", "deny", "users", "clients", "ask"))


def rules(policy: Entry | None, over: Entry | None) -> list[tuple[str, str]]:
    """Return what a policy says of addresses, in nginx's words: the first that fits counts.

    :param over: the policy of the block around, whose words hold as long as there are none here.
    """
    if policy is None:
        return []
    if policy is BUILT_IN["nobody"]:
        return [("deny", "all")]
    found = [*(("deny", each) for each in policy["deny"] or []), *(("allow", each) for each in policy["allow"] or [])]
    if policy["allow"]:
        return [*found, ("deny", "all")]
    if found:
        return [*found, ("allow", "all")]
    if over and (over["allow"] or over["deny"]):
        # Where one of several is enough, an address alone is not.
        return [("deny" if policy["any"] else "allow", "all")]
    return []


def password_files(scope: str, policies: Iterable[Entry], there: Mapping[str, str]) -> dict[str, str]:
    """Return the files with the hashes of passwords of policies that have users.

    A hash that fits its password stays what it is; a new one has a salt that nobody can guess.

    :param there: the files of this kind that the host has, path to text.
    :returns: path inside the generation -> text.
    """
    found = {}
    for policy in policies:
        if policy["users"]:
            path = password_file(scope, policy["name"])
            known = {name: secret for name, _colon, secret in (line.partition(":") for line in there.get(path, "").splitlines())}
            found[path] = "".join(f"{user['name']}:{_hash(user, known.get(user['name']))}\n" for user in policy["users"])
    return found


def password_file(scope: str, policy: str) -> str:
    """Return the path of a policy's hashes inside the generation."""
    return f"{PASSWORDS}/{scope}/{policy}"


def _hash(user: Entry, known: str | None) -> str:
    if user["password_hash"]:
        return user["password_hash"]
    return known if known and hashes.fits(user["password"], known) else hashes.hashed(user["password"])


def variable_of(header: str) -> str:
    """Return the variable that has what was heard of a visitor under a header's name."""
    return f"$portico_told_{header.lower().replace('-', '_')}"


def _mistake(variable: str, policy: Entry) -> Mistake:
    return lambda key, value, why: problem(variable, policy["name"], key, value, why)


def _asked(ask: Entry, policy_users: bool, mistake: Mistake) -> Entry:
    """Return how a server is asked who gets in: besides what is written, C(spoken) and C(hears), variable to where nginx hears it."""
    parts = urls.parsed(ask["url"])
    if not parts.path:
        raise mistake("ask.url", ask["url"], "has no path, and nginx would put a path of its own there. Write one, / at the least.")
    if policy_users and ask["sign_in"]:
        raise mistake("ask.sign_in", ask["sign_in"], "is not possible together with users: a browser is either sent to sign in or asked for a password. Take one of them out.")
    if parts.scheme == "https" and (not parts.host or urls.is_address(parts.host)):
        raise mistake("ask.url", ask["url"], "has no host name, and nginx verifies certificates by name. Write the name that its certificate has.")
    spoken = backends.spoken(parts.scheme, {**backends.UNSAID, "verify": True, "certificate_name": parts.host}, None, parts.path, parts.path)
    heard = [(variable_of(header), f"$upstream_http_{header.lower().replace('-', '_')}") for header in ask["headers"] or []]
    return {**ask, "spoken": {**spoken, "is_shared": True}, "hears": heard}


def _check(policy: Entry, mistake: Mistake) -> None:
    if policy["name"] in BUILT_IN:
        raise mistake("name", policy["name"], "is there by itself and means what it says. Choose another name.")
    for key in ("allow", "deny", "users"):
        if policy[key] == []:
            raise mistake(key, [], "is empty. Write at least one, or leave the key away; the policy \"nobody\" lets nobody in.")
    if is_open(policy):
        raise mistake("allow or deny or users or clients or ask", HIDDEN, "is missing. Say with one of them who gets in; the policy \"everybody\" lets everybody in.")
    _check_any(policy, mistake)
    _check_users(policy, mistake)


def _check_any(policy: Entry, mistake: Mistake) -> None:
    if not policy["any"]:
        return
    if policy["deny"]:
        raise mistake("any", True, "is not possible with deny, whose addresses could get in by something else. Take one of them out.")
    if policy["clients"]:
        raise mistake("any", True, "is not possible with clients, whose certificates are asked in any case. Take one of them out.")
    if sum(bool(policy[key]) for key in ("allow", "users", "ask")) < 2:
        raise mistake("any", True, "needs two of allow, users and ask, of which one is enough. Write a second, or take it out.")


def _check_users(policy: Entry, mistake: Mistake) -> None:
    seen: set[str] = set()
    for at, user in enumerate(policy["users"] or []):
        if user["name"] in seen:
            raise mistake(f"users[{at}].name", user["name"], "stands there twice. Keep one.")
        seen.add(user["name"])
        if bool(user["password"]) == bool(user["password_hash"]):
            which = "are given together" if user["password"] else "is missing"
            raise mistake(f"users[{at}].{'password and password_hash' if user['password'] else 'password'}", HIDDEN, f"{which}. Write one of password and password_hash.")


# ---- forms of values


def _user(value: str) -> str:
    formats.printable(value)
    if not value or not value.isascii() or ":" in value or value != value.strip() or value.startswith("#") or len(value) > 128:
        raise ValueError("is not a user's name. Use ASCII without a colon, at most 128 letters; no blank at its ends and no '#' at its beginning.")
    return value


def _password(value: str) -> str:
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in value) or len(value.encode("utf-8", "replace")) > _LONGEST_PASSWORD:
        raise ValueError(f"has a control character in it, or is longer than {_LONGEST_PASSWORD} bytes. Nobody could type it.")
    if not value.isprintable():
        raise ValueError("has signs in it that nobody sees. Nobody could type it.")
    return value


def _password_hash(value: str) -> str:
    if not _HASH.fullmatch(value):
        raise ValueError("is not a salted hash that nginx takes. Make one with mkpasswd -m sha512crypt, or write password.")
    return value


def _realm(value: str) -> str:
    if value.lower() == "off":
        raise ValueError("is what nginx calls no password at all. Write other words.")
    if '"' in value or "\\" in value:
        raise ValueError("has a quote or a backslash, with which browsers would not read it. Take it out.")
    return headers.header_text(value)


def _depth(value: Mapping[str, t.Any]) -> dict[str, t.Any]:
    if not 1 <= value["depth"] <= 10:
        raise ValueError("has a depth that is not possible. Write a number from 1 to 10.")
    return dict(value)


def _passed(value: str) -> str:
    name = headers.name(value)
    if not re.fullmatch(rf"[A-Za-z0-9-]{{1,{headers.LONGEST_ELSEWHERE}}}", name) or name.lower() in _NOT_PASSED:
        raise ValueError("is not a header that can be told to a backend. Use letters, digits and hyphens, and none that requests are made of.")
    return name


_NOT_PASSED = (
    *("host", "connection", "upgrade", "content-length", "transfer-encoding", "authorization", "te", "expect", "range", "x-forwarded-host"),
    *(name.lower() for name in (*proxies.TOLD, *proxies.TAKEN, *proxies.SAID_BY_PROXIES)),
)
"""What nginx tells backends itself."""

_FORMATS: t.Final[dict[str, entries.Format]] = {
    "name": formats.file_name,
    "allow": formats.network,
    "deny": formats.network,
    "users.name": _user,
    "users.password": _password,
    "users.password_hash": _password_hash,
    "realm": _realm,
    "clients": _depth,
    "clients.ca": formats.absolute_path,
    "clients.crl": formats.absolute_path,
    "ask.url": urls.backend,
    "ask.sign_in": urls.sign_in,
    "ask.headers": _passed,
}
