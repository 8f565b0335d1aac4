"""What people read that is no result: lines on stderr, whether or not anybody is there."""

from __future__ import annotations

import os
import sys


def show(*lines: str) -> None:
    """Write lines to stderr at once; if nobody reads them any more, go on without."""
    try:
        for line in lines:
            print(line, file=sys.stderr, flush=True)
    except OSError:
        # What is left in the buffer would fail once more when Python ends, with status 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
