from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from dcs_proxy.console import live_table
from dcs_proxy.console.live_table import LiveTable
from dcs_proxy.console.stderr import draw
from dcs_proxy.names import MachineName

UUID = MachineName("dm-0a1b2c3d-0000-4000-8000-00000000c0de")
FOO, LONGER = MachineName("dm-foo"), MachineName("dm-ci-123")


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def table(
    monkeypatch: pytest.MonkeyPatch, now: list[float]
) -> Iterator[Callable[[int], LiveTable]]:
    """Make tables that are drawn in place, on a terminal of 60 columns."""
    monkeypatch.setattr(live_table, "can_draw", lambda: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((60, 24)))
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def make(total: int) -> LiveTable:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        return LiveTable(total)

    yield make
    draw()


def test_the_names_come_first_in_columns(
    table: Callable[[int], LiveTable], now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = table(3)
    shown.begin(FOO)
    shown.tell(FOO, "dm-foo: waking up, at most 300 s")
    now[0] = 12
    shown.begin(LONGER)
    shown.draw()
    assert capsys.readouterr().err.splitlines() == [
        "dm-foo     12 s  waking up, at most 300 s",
        "dm-ci-123  0 s",
        "dcs-proxy: 0 of 3 done",
    ]


def test_the_longest_names_leave_room_in_60_columns(
    table: Callable[[int], LiveTable], now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = table(1)
    shown.begin(UUID)
    shown.tell(UUID, f"{UUID}: waking up, at most 300 s")
    now[0] = 100
    shown.draw()
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 60
    assert line.startswith(f"{UUID}  100 s  waking") and line.endswith("...")
