from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.console import stderr
from dcs_proxy.console.stderr import draw, show


@pytest.fixture(autouse=True)
def nothing_is_drawn() -> Iterator[None]:
    draw()
    yield
    draw()


def test_drawn_lines_are_replaced_by_those_drawn_next(capsys: pytest.CaptureFixture[str]) -> None:
    draw("a", "b", "c")
    draw("a", "d")
    draw()
    assert capsys.readouterr().err == "a\nb\nc\r\x1b[2A\x1b[Ja\nd\r\x1b[1A\x1b[J"


def test_the_same_lines_are_not_drawn_again(capsys: pytest.CaptureFixture[str]) -> None:
    draw("a", "b")
    draw("a", "b")
    draw()
    draw()
    assert capsys.readouterr().err == "a\nb\r\x1b[1A\x1b[J"


def test_lines_that_are_shown_stay(capsys: pytest.CaptureFixture[str]) -> None:
    draw("a")
    show("kept")
    draw("a")
    show()
    assert capsys.readouterr().err == "a\r\x1b[Jkept\na\r\x1b[J"


def test_lines_are_cut_to_the_terminal_and_end_with_dots(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((30, 3)))
    draw("1", "2" * 40, "3" * 29)
    assert capsys.readouterr().err == f"{'2' * 26}...\n{'3' * 29}"


def test_an_interrupted_line_is_not_erased(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("dcs_proxy.console.stderr._write", interrupt)
        draw("a")
    show("b")
    assert capsys.readouterr().err == "b\n"


def test_without_a_stderr_nothing_reaches_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after ``2>&-``: print() would use stdout, which may be ssh's connection.
    monkeypatch.setattr(sys, "stderr", None)
    show("lost")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("redirection", "is_discarded"),
    [("2>/dev/null", True), ("2>&-", True), ("2>&1 | cat", False), ("2>file", False)],
)
def test_the_null_device_and_no_stderr_discard_what_is_shown(
    tmp_path: Path, redirection: str, is_discarded: bool
) -> None:
    script = "from dcs_proxy.console.stderr import is_discarded; print(is_discarded())"
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -c '{script}' {redirection}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.stdout == f"{is_discarded}\n"


@pytest.mark.parametrize(
    ("is_terminal", "term", "group", "expected"),
    [
        (True, "xterm", 7, True),
        (True, "xterm", 8, False),  # in the background
        (True, "xterm", None, True),  # a terminal of another session has no background
        (True, "dumb", 7, False),
        (True, None, 7, False),
        (False, "xterm", 7, False),
    ],
)
def test_lines_change_in_place_on_a_terminal_of_the_foreground(
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool, term: str | None, group: int | None, expected: bool,
) -> None:  # fmt: skip
    def foreground(fd: int) -> int:
        if group is None or fd != 2:
            raise OSError(25, "Inappropriate ioctl for device")
        return group

    monkeypatch.setattr(os, "isatty", lambda fd: is_terminal and fd == 2)
    monkeypatch.setattr(os, "tcgetpgrp", foreground)
    monkeypatch.setattr(os, "getpgrp", lambda: 7)
    monkeypatch.setenv("TERM", term or "")
    if term is None:
        monkeypatch.delenv("TERM")
    assert stderr.can_draw() is expected


@pytest.mark.parametrize(
    ("open_as", "expected"),
    [("/dev/null", True), ("/dev/zero", False), ("/dev/tty", False), ("file", False), (None, True)],
)
def test_only_the_null_device_and_no_stderr_discard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_as: str | None, expected: bool
) -> None:
    (tmp_path / "file").touch()

    def status(fd: int) -> Any:
        assert fd == 2
        if open_as is None:
            raise OSError(9, "Bad file descriptor")
        return os.stat(tmp_path / open_as)

    system = SimpleNamespace(fstat=status, stat=os.stat, devnull=os.devnull)
    monkeypatch.setattr(stderr, "os", system)
    assert stderr.is_discarded() is expected
    # A block device may have the same number.
    block = SimpleNamespace(st_mode=0o060644, st_rdev=os.stat(os.devnull).st_rdev)
    system.fstat = lambda fd: block
    assert stderr.is_discarded() is False


def test_what_is_drawn_is_safe_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    draw("a\x1b[2Jb")
    show("c\x1b[2Jd" + "e" * 3000)
    assert capsys.readouterr().err == "a?[2Jb\r\x1b[Jc?[2Jd" + "e" * 1991 + "...\n"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 50), (100, 50)), ((0, 0), (80, 24)), ((5, 1), (20, 2)), (None, (80, 24))],
)
def test_a_terminal_that_does_not_tell_its_size_has_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    def ask(fd: int) -> os.terminal_size:
        if size is None or fd != 2:
            raise OSError(25, "Inappropriate ioctl for device")
        return os.terminal_size(size)

    monkeypatch.setattr(os, "get_terminal_size", ask)
    assert stderr._terminal_size() == expected


def test_a_stderr_that_cannot_be_written_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    class Full:
        def write(self, text: str) -> None:
            calls.append(("write", text))

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    monkeypatch.setattr(stderr, "os", SimpleNamespace(
        open=lambda *a: calls.append(("open", *a)) or 77, devnull=os.devnull, O_WRONLY=os.O_WRONLY,
        dup2=lambda *a: calls.append(("dup2", *a)), close=lambda *a: calls.append(("close", *a)),
    ))  # fmt: skip
    show("lost")
    assert calls[-3:] == [("open", os.devnull, os.O_WRONLY), ("dup2", 77, 2), ("close", 77)]
