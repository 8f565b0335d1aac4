"""What is under way for many machines, for people: in place on a terminal, a line each elsewhere.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from dcs_proxy.console.format import in_words
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put
from dcs_proxy.errors import DcsError, ReaderGone
from dcs_proxy.names import MachineName


class LiveTable:
    """Shows the progress of `total` machines.  One thread uses it; clear() when done."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended = 0
        self._under_way: dict[MachineName, tuple[float, str]] = {}
        self._drawn: list[str] = []
        is_terminal = sys.stderr.isatty() and sys.stdout.isatty()
        self._in_place = is_terminal and os.environ.get("TERM", "dumb") != "dumb"

    def begin(self, name: MachineName) -> None:
        """Show that work on a machine has begun."""
        self._under_way[name] = (time.monotonic(), "")

    def tell(self, name: MachineName, news: str) -> None:
        """Show what happens to a machine."""
        if not self._in_place:
            show(f"dcs-proxy: {news}")
            return
        since, _ = self._under_way[name]
        self._under_way[name] = (since, news.removeprefix(f"{name}: "))

    def end(self, name: MachineName, outcome: str | DcsError) -> None:
        """Show what became of a machine."""
        self._ended += 1
        del self._under_way[name]
        self.clear()
        if isinstance(outcome, DcsError):
            show(*outcome.lines())
        else:
            with contextlib.suppress(ReaderGone):  # the work goes on all the same
                put(f"{name}: {outcome}")

    def draw(self) -> None:
        """Bring what is shown in place up to date."""
        if not self._in_place:
            return
        lines = self._lines()
        if lines != self._drawn:
            self.clear()
            _write("".join(f"{line}\n" for line in lines))
            self._drawn = lines

    def clear(self) -> None:
        """Take away what is shown in place."""
        if self._drawn:
            # ECMA-48: cursor up, erase from there to the end of the screen.
            _write(f"\r\x1b[{len(self._drawn)}A\x1b[J")
            self._drawn = []

    def _lines(self) -> list[str]:
        columns, rows = _terminal_size()
        now = time.monotonic()
        lines = [
            f"dcs-proxy: {name}: {in_words(now - since)}{', ' if news else ''}{news}"
            for name, (since, news) in self._under_way.items()
        ]
        if self._total > 1:
            lines.append(f"dcs-proxy: {self._ended} of {self._total} done")
        # A line that wraps, or a screen that scrolls, could not be taken away again.
        return [line[: columns - 1] for line in lines[-(rows - 1) :]]


def _terminal_size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except OSError:
        return 80, 24
    return max(size.columns, 20), max(size.lines, 2)


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass  # the terminal has hung up
