from __future__ import annotations

import errno
import io
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.console import stdout
from dcs_proxy.console.stdout import columns, pause, put, put_json, put_or_show, wrap
from dcs_proxy.errors import DcsError, ReaderGone

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


class Output(io.TextIOWrapper):
    """Standard output with an encoding, which may fail."""

    def __init__(self, encoding: str = "utf-8", error: OSError | None = None) -> None:
        self.bytes = io.BytesIO()
        super().__init__(Buffer(self.bytes, error), encoding=encoding)


class Buffer(io.BufferedIOBase):
    """Keeps what is written until it is flushed to `target`, or fails then."""

    def __init__(self, target: io.BytesIO, error: OSError | None) -> None:
        self._target, self._error, self._kept = target, error, b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._kept += bytes(data)
        return len(data)

    def flush(self) -> None:
        if self._error is not None and self._kept:
            raise self._error
        self._target.write(self._kept)
        self._kept = b""


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("utf-8", "é — ?[31m".encode()), ("latin-1", b"\xe9 ? ?[31m"), ("ascii", b"? ? ?[31m")],
)
def test_each_line_is_safe_and_in_the_encoding_and_flushed(
    monkeypatch: pytest.MonkeyPatch, encoding: str, written: bytes
) -> None:
    output = Output(encoding)
    monkeypatch.setattr(sys, "stdout", output)
    put("é — \x1b[31m", "two\nlines")
    assert output.bytes.getvalue() == written + b"\ntwo?lines\n"


def test_an_output_that_does_not_tell_its_encoding_gets_utf_8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = SimpleNamespace(encoding=None, buffer=io.BytesIO())
    monkeypatch.setattr(sys, "stdout", output)
    put("é")
    assert output.buffer.getvalue() == "é\n".encode()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ReaderGone, "the reader closed the pipe"),
        (OSError(errno.ENOSPC, "No space left on device"), DcsError,
         "cannot write to standard output: No space left on device"),
    ],
)  # fmt: skip
def test_output_that_cannot_be_written_ends_the_command_and_is_discarded(
    monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[DcsError], message: str
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(sys, "stdout", Output(error=error))
    monkeypatch.setattr(stdout, "os", SimpleNamespace(
        open=lambda *a: calls.append(("open", *a)) or 77, devnull=os.devnull, O_WRONLY=os.O_WRONLY,
        dup2=lambda *a: calls.append(("dup2", *a)), close=lambda *a: calls.append(("close", *a)),
    ))  # fmt: skip
    with pytest.raises(DcsError) as caught:
        put("a")
    assert (type(caught.value), caught.value.message) == (kind, message)
    assert ("disk is full" in caught.value.hint) is (kind is DcsError)
    # Otherwise Python would try to write it again at exit.
    assert calls == [("open", os.devnull, os.O_WRONLY), ("dup2", 77, 1), ("close", 77)]
    monkeypatch.setattr(sys, "stdout", None)


@pytest.mark.parametrize(
    ("error", "out", "err"),
    [
        (None, "done\n", ""),
        (ReaderGone("the reader closed the pipe"), "", ""),
        (DcsError("the disk is full"), "", "done\n"),
    ],
)
def test_a_command_with_more_to_do_goes_on_whatever_becomes_of_its_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: DcsError | None, out: str, err: str,
) -> None:  # fmt: skip
    if error is not None:

        def fail(*_: str) -> None:
            raise error

        monkeypatch.setattr(stdout, "put", fail)
    put_or_show("done")
    assert capsys.readouterr() == (out, err)


def test_a_closed_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(DcsError, match="cannot write to standard output: Bad file descriptor"):
        put()


def test_a_document_is_indented_and_ends_with_a_newline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_json({"a": [1, "é\n"], "b": None})
    assert capsys.readouterr().out == (
        '{\n  "a": [\n    1,\n    "\\u00e9\\n"\n  ],\n  "b": null\n}\n'
    )


def test_a_pause_ends_when_the_reader_closes_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []

    class Poll:
        found: list[Any] = []  # noqa: RUF012  # one for all, which the test changes

        def register(self, *arguments: int) -> None:
            registered.append(arguments)

        def poll(self, timeout_ms: float) -> list[Any]:
            registered.append(timeout_ms)
            return self.found

    monkeypatch.setattr(stdout.select, "poll", Poll)
    pause(0.5)
    # Only errors and hang-ups count: stdout may also be a terminal on which the user types.
    assert registered == [(1, 0), 500]
    Poll.found = [(1, 16)]
    with pytest.raises(ReaderGone):
        pause(0.5)


def test_columns_are_aligned_and_without_blanks_at_the_end() -> None:
    rows = iter([("a", "long"), ("longer", ""), ("b", "c")])
    assert columns(rows) == ["a       long", "longer", "b       c"]
    assert columns([]) == []
    with pytest.raises(ValueError, match="argument"):
        columns([("a",), ("a", "b")])


def test_without_an_output_a_line_remains_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert wrap(LINE, 13) == [LINE]


def test_a_narrow_terminal_has_room_for_some_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "15")
    assert wrap("- name       well-known words of a text", 13) == [
        "- name       well-known words of", "             a text"
    ]  # fmt: skip
    assert wrap("- name       " + "x-" * 30, 13) == ["- name", " " * 13 + "x-" * 30]
