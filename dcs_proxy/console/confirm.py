"""Ask the user a yes-or-no question."""

from __future__ import annotations

import os

from dcs_proxy.console.stderr import show
from dcs_proxy.text import safe_line


def confirm(question: str) -> bool | None:
    """Ask on the terminal, even if stdin is not the terminal; return None if there is none.

    Any answer but y and yes means no.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    try:
        os.write(terminal, f"dcs-proxy: {safe_line(question)} [y/N] ".encode())
        answer = os.read(terminal, 100)
    except KeyboardInterrupt:
        show("")
        raise
    finally:
        os.close(terminal)
    return answer.strip().lower() in (b"y", b"yes")
