"""Results: lines on stdout, in whatever encoding it has, for as long as somebody reads them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable

from dcs_proxy.errors import ReaderGone


def put(*lines: str) -> None:
    """Write lines to stdout at once; what its encoding cannot say is replaced.

    Raises ReaderGone when nobody reads them any more, as after ``| head``.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        for line in lines:
            sys.stdout.buffer.write(f"{line}\n".encode(encoding, "replace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail once more when Python ends, with status 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        raise ReaderGone("nobody reads the output any more") from None


def put_json(value: object) -> None:
    """Write one JSON document.  Raises ReaderGone as :func:`put`."""
    put(json.dumps(value, indent=2))


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows of the same length as lines with aligned columns, two spaces between them."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
