from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
