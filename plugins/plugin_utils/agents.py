# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that a site does not want to hear from, by what they call themselves."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping, Sequence

from ansible_collections.portico.web.plugins.plugin_utils import formats, variables
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry

KINDS: t.Final[Mapping[str, Sequence[str]]] = {
    # Those that gather texts to train models with, as their makers name them in 2026; not those that fetch a page for a person who asks.
    "ai_crawlers": (
        *("AI2Bot", "Amazonbot", "anthropic-ai", "Applebot-Extended", "Bytespider", "CCBot", "ClaudeBot", "cohere-training-data-crawler"),
        *("Diffbot", "FacebookBot", "GPTBot", "ICC-Crawler", "ImagesiftBot", "meta-externalagent", "omgili", "PanguBot", "Timpibot", "VelenPublicWebCrawler"),
    ),
    # Those that look for holes, as long as nobody has changed what they say.
    "scanners": (
        *("dirbuster", "feroxbuster", "fimap", "gobuster", "havij", "jorgee", "l9explore", "masscan", "morfeus", "muieblackcat", "nessus"),
        *("netsparker", "nikto", "nmap scripting engine", "nuclei", "openvas", "sqlmap", "w3af", "whatweb", "wpscan", "zgrab", "zmeu"),
    ),
}
"""Names that stand for many."""

_LONGEST = 100


def agent(value: str) -> str:
    """Return a part of a program's name, or the name of a kind of programs."""
    if value in KINDS:
        return value
    formats.printable(value)
    if not 3 <= len(value.encode()) <= _LONGEST or "$" in value or value != value.strip():
        raise ValueError(f"is not a part of what a program calls itself. Write 3 to {_LONGEST} letters without a '$', such as SomeBot, or one of {', '.join(KINDS)}.")
    return value


def patterns(site: Entry) -> list[str]:
    """Return the patterns that find the agents that a site refuses, for the http level."""
    names = dict.fromkeys(name for each in site["refuse_agents"] or [] for name in KINDS.get(each, [each]))
    return [f"~*^:.*{_literal(name)}" for name in names]


def variable(scope: str, site: Entry) -> str:
    """Return the variable that says whether who asks is refused."""
    return f"$portico_unwelcome_{variables.number(scope, site['name'])}"


def _literal(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_ -]", lambda found: f"\\{found[0]}", name)
