"""contrib/docs/architecture.rst, compared with the tree that it describes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dcs_proxy"
TEXT = (ROOT / "contrib" / "docs" / "architecture.rst").read_text()
PATHS = [path for path in re.findall(r"``([\w./-]+)``", TEXT) if "/" in path or "." in path]


def test_every_file_and_package_that_it_names_exists() -> None:
    assert len(PATHS) > 30
    assert [p for p in PATHS if not ((PACKAGE / p).exists() or (ROOT / p).exists())] == []


def test_it_names_every_package_in_the_order_of_imports() -> None:
    from tests.unit.test_imports import ROOMS

    section = TEXT.partition("\nPackages\n")[2].partition("\nWhat must not happen\n")[0]
    listed = re.findall(r"``([\w.]+)/?``", "".join(re.findall(r"^``.*$", section, re.M)))
    assert [name.removesuffix(".py") for name in listed] == [
        room for room in ROOMS if not room.startswith("__")
    ]
