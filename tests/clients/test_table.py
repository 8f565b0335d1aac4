"""The table in clients.rst says what the tests' marks say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from tests.support.client_table import Row, rows_of

_TABLE = Path(__file__).parents[2] / "contrib" / "docs" / "clients.rst"


def marked() -> set[Row]:
    """Return what the marks of all tests of clients say."""
    names = [f"tests.clients.{path.stem}" for path in Path(__file__).parent.glob("test_*.py")]
    modules = [
        importlib.import_module(name) for name in [*names, "tests.integration.test_transfer"]
    ]
    return rows_of(f for module in modules for f in vars(module).values() if callable(f))


def written() -> list[Row]:
    """Return the rows of the first table in clients.rst, by the columns that its rule makes."""
    _, rule, head, _, body, _ = re.split(
        r"^(=+ =+ =+)\n(.*)\n(=+ =+ =+)\n((?:.*\n)+?)=+ =+ =+$",
        _TABLE.read_text(), maxsplit=1, flags=re.MULTILINE,
    )  # fmt: skip
    client, version, how = (match.span() for match in re.finditer("=+", rule))
    assert head[slice(*client)].strip() == "client" and head[version[0] :].startswith("version")
    return [Row(line[slice(*client)].strip(), line[how[0] :]) for line in body.splitlines()]


def test_the_table_has_one_row_for_each_claim_that_a_test_proves() -> None:
    rows = written()
    assert set(rows) == marked()
    assert len(rows) == len(set(rows))
