"""Read a TOML file, and tell in which line something of it stands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def parse(text: str) -> dict[str, Any]:
    """Return the table that a TOML document is.  Raises ValueError, which names the place."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def line_of(text: str, keys: Sequence[str]) -> int:
    """Return the number of the line where a key of a correct document stands, from 1.

    `keys` leads to it from the outermost table.  The parser tells no places, so ever more of the
    document is parsed until the key is in it: a line in the midst of a value does not parse.
    """
    lines = text.split("\n")
    # A key stands where its letters first are, or later; where it has none of them (escapes are
    # allowed in keys), anywhere.
    start = next((number for number, line in enumerate(lines) if keys[-1] in line), 0)
    parsed = start
    for end in range(start + 1, len(lines) + 1):
        try:
            table = parse("\n".join(lines[:end]) + "\n")
        except ValueError:
            continue
        if _contains(table, keys):
            break
        parsed = end
    while parsed < len(lines) - 1 and lines[parsed].strip()[:1] in ("", "#"):
        parsed += 1
    return parsed + 1


def _contains(table: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(table, dict) or key not in table:
            return False
        table = table[key]
    return True
