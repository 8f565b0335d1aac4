"""Results: lines on stdout, in whatever encoding it has, for as long as somebody reads them."""

from __future__ import annotations

import os
import sys

from dcs_proxy.errors import ClientGone


def put(*lines: str) -> None:
    """Write lines to stdout at once; what its encoding cannot say is replaced.

    Raises ClientGone when nobody reads them any more, as after ``| head``.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        for line in lines:
            sys.stdout.buffer.write(f"{line}\n".encode(encoding, "replace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail once more when Python ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        raise ClientGone("nobody reads the output any more") from None
