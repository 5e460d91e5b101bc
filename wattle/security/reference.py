"""The table of access rules in docs/security.md, made of the rules: ``python -m wattle.security.reference`` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

from wattle.protocol.keys import Keys
from wattle.security.access import grants
from wattle.security.roster import ROLES

PAGE = "docs/security.md"
_WORDS = {
    "declare_subscriber": "subscribe",
    "declare_queryable": "serve",
    "liveliness_token": "be alive",
    "declare_liveliness_subscriber": "watch",
    "liveliness_query": "",
}
_MARKS = re.compile(r"(<!-- rules -->\n).*?(<!-- end -->)", re.DOTALL)


def table() -> str:
    """What each role may say, as a table in Markdown."""
    keys = Keys("NAMESPACE")
    lines = ["| role | may | on |", "|---|---|---|"]
    for role in ROLES:
        said: dict[str, list[str]] = {}
        for messages, allowed in grants(role, ["P"], keys):
            words = ", ".join(filter(None, (_WORDS.get(message, message) for message in messages)))
            said.setdefault(words, []).extend(f"`{key.removeprefix(f'{keys.root}/')}`" for key in allowed)
        lines += [f"| {role} | {words} | {', '.join(dict.fromkeys(allowed))} |" for words, allowed in said.items()]
    lines.append(
        f"| any, also who is on no roster | query, serve, reply | `{keys.roster.removeprefix(f'{keys.root}/')}` |"
    )
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """The page with the table as it is now."""
    return _MARKS.sub(lambda match: match[1] + table() + match[2], page)


if __name__ == "__main__":
    path = Path.cwd() / PAGE
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
