"""The progress of many machines: a table in place on a terminal, one line per event elsewhere.

    dm-foo     12 s  waking up, at most 300 s
    dm-ci-123  3 s   waking up, at most 300 s
    dcs-proxy: 14 of 50 done

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import contextlib
import sys
import time

from dcs_proxy.console.format import in_words
from dcs_proxy.console.stderr import can_draw, draw, show
from dcs_proxy.console.stdout import columns, put
from dcs_proxy.errors import DcsError, ReaderGone
from dcs_proxy.names import MachineName


class LiveTable:
    """Shows the progress of `total` machines.  Only one thread may use it.

    Call draw() several times a second, and clear() at the end.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended = 0
        # Each machine in progress: when its work began (monotonic), and its latest news.
        self._at_work: dict[MachineName, tuple[float, str]] = {}
        # If stdout is a pipe, its reader may write to the same terminal at any time.
        self._in_place = can_draw() and sys.stdout is not None and sys.stdout.isatty()

    def begin(self, name: MachineName) -> None:
        """Note that work on a machine has begun."""
        self._at_work[name] = (time.monotonic(), "")

    def tell(self, name: MachineName, news: str) -> None:
        """Show the latest news of a machine."""
        if not self._in_place:
            show(f"dcs-proxy: {news}")
            return
        since, _ = self._at_work[name]
        self._at_work[name] = (since, news.removeprefix(f"{name}: "))

    def end(self, name: MachineName, outcome: str | DcsError) -> None:
        """Show the outcome for a machine."""
        self._ended += 1
        del self._at_work[name]
        if isinstance(outcome, DcsError):
            show(*outcome.lines())
        else:
            self.clear()
            with contextlib.suppress(ReaderGone):  # the other machines are still to be done
                put(f"{name}: {outcome}")

    def draw(self) -> None:
        """Update the table if it is shown in place."""
        if self._in_place:
            draw(*self._lines())

    def clear(self) -> None:
        """Erase the table."""
        draw()

    def _lines(self) -> list[str]:
        now = time.monotonic()
        rows = [
            (name, in_words(now - since), news) for name, (since, news) in self._at_work.items()
        ]
        lines = columns(rows)
        if self._total > 1:
            lines.append(f"dcs-proxy: {self._ended} of {self._total} done")
        return lines
