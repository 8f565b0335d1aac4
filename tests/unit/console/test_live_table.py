from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from dcs_proxy.console import live_table
from dcs_proxy.console.live_table import LiveTable
from dcs_proxy.console.stderr import draw
from dcs_proxy.errors import ApiUnavailable, ReaderGone
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


def test_the_table_counts_what_has_ended_and_makes_room_for_results(
    table: Callable[[int], LiveTable], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = table(2)
    shown.begin(FOO)
    shown.draw()
    assert capsys.readouterr().err == "dm-foo  0 s\ndcs-proxy: 0 of 2 done"
    shown.end(FOO, "closed")
    assert capsys.readouterr() == ("dm-foo: closed\n", "\r\x1b[1A\x1b[J")
    shown.draw()
    assert capsys.readouterr().err == "dcs-proxy: 1 of 2 done"
    shown.begin(LONGER)
    shown.end(LONGER, ApiUnavailable("down", hint="wait", machine=LONGER))
    shown.draw()
    assert capsys.readouterr() == (
        "", "\r\x1b[Jdcs-proxy: dm-ci-123: down\ndcs-proxy: hint: wait\ndcs-proxy: 2 of 2 done"
    )  # fmt: skip
    shown.clear()
    assert capsys.readouterr().err == "\r\x1b[J"


def test_one_machine_needs_no_count(
    table: Callable[[int], LiveTable], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = table(1)
    shown.draw()
    assert capsys.readouterr().err == ""
    shown.begin(FOO)
    shown.draw()
    assert capsys.readouterr().err == "dm-foo  0 s"


@pytest.mark.parametrize(
    ("can_draw", "stdout"), [(False, "a terminal"), (True, "a pipe"), (True, None)]
)
def test_elsewhere_each_event_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    can_draw: bool, stdout: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(live_table, "can_draw", lambda: can_draw)
    output = None if stdout is None else SimpleNamespace(isatty=lambda: stdout == "a terminal")
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", output)
        shown = LiveTable(2)
    shown.begin(FOO)
    shown.draw()
    shown.tell(FOO, "dm-foo: waking up")
    shown.draw()
    shown.end(FOO, "ready")
    shown.clear()
    assert capsys.readouterr() == ("dm-foo: ready\n", "dcs-proxy: dm-foo: waking up\n")


def test_a_reader_that_has_gone_stops_no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*_: str) -> None:
        raise ReaderGone("closed")

    monkeypatch.setattr(live_table, "put", put)
    shown = LiveTable(1)
    shown.begin(FOO)
    shown.end(FOO, "ready")
