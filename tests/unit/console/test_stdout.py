from __future__ import annotations

import io
import sys

import pytest

from dcs_proxy.console.stdout import wrap

LINE = "✓ shell      /usr/bin/bash, a long path without a space, and more"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_that_is_too_long_for_the_terminal_continues_below_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    assert wrap(LINE, 13) == [
        "✓ shell      /usr/bin/bash, a long path",
        "             without a space, and more",
    ]
    assert wrap("✓ x  " + "/a-path" * 10, 5) == ["✓ x", "     " + "/a-path" * 10]


def test_a_line_in_a_file_or_pipe_remains_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "40")
    assert wrap(LINE, 13) == [LINE]
