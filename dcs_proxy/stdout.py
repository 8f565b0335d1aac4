"""Results: lines on stdout, for as long as somebody reads them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable


def put(*lines: str) -> None:
    """Write lines to stdout at once; if nobody reads them any more (``| head``), go on without."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail once more when Python ends, with status 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def put_json(value: object) -> None:
    """Write one JSON document."""
    put(json.dumps(value, indent=2))


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows of the same length as lines with aligned columns, two spaces between them."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
