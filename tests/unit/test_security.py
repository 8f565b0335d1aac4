"""contrib/docs/security.rst: each claim has a number, and each number a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "contrib" / "docs" / "security.rst").read_text()
CLAIMS, _, TABLE = PAGE.partition("\nWhich test shows it\n")
ROWS = re.findall(r"^\[(\d+)\] +``([\w/]+\.py)`` ``(test_\w+)``$", TABLE, re.M)


def test_every_claim_has_a_row_and_every_row_a_claim() -> None:
    claims = [int(number) for number in re.findall(r"\[(\d+)\]", CLAIMS)]
    assert claims == list(range(1, len(claims) + 1))
    rows = [int(number) for number, _, _ in ROWS]
    assert rows == sorted(rows) and set(rows) == set(claims)
    assert TABLE.count("[") == len(ROWS)


def test_every_test_that_is_named_exists() -> None:
    missing = [
        (path, name)
        for _, path, name in ROWS
        if not re.search(rf"^def {name}\(", (TESTS / path).read_text(), re.M)
    ]
    assert missing == []
