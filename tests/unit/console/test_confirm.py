from __future__ import annotations

import os
import pty

import pytest

from dcs_proxy.console import confirm as module
from dcs_proxy.console.confirm import confirm


@pytest.mark.parametrize(("typed", "agreed"), [(b"yes\n", True), (b"Y\n", True), (b"\n", False)])
def test_the_question_is_safe_for_the_terminal(
    monkeypatch: pytest.MonkeyPatch, typed: bytes, agreed: bool
) -> None:
    ours, terminal = pty.openpty()
    monkeypatch.setattr(module.os, "open", lambda *_: os.dup(terminal))
    os.write(ours, typed)
    assert confirm("remove /home/\x1b]0;t\x07\u202ex?") is agreed
    shown = ""
    while "[y/N] " not in shown:
        shown += os.read(ours, 1000).decode()
    assert "dcs-proxy: remove /home/?]0;t??x? [y/N] " in shown
    os.close(ours)
    os.close(terminal)


def test_the_terminal_is_asked_whatever_stdin_is(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def fail(*arguments: object) -> int:
        opened.append(arguments)
        raise OSError(6, "No such device or address")

    monkeypatch.setattr(module.os, "open", fail)
    assert confirm("really?") is None
    # Without O_NOCTTY it could become the controlling terminal of a process that has none.
    assert opened == [("/dev/tty", os.O_RDWR | os.O_NOCTTY)]


def test_ctrl_c_at_the_question_ends_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    ours, terminal = os.pipe()
    monkeypatch.setattr(module.os, "open", lambda *_: terminal)
    monkeypatch.setattr(module.os, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        confirm("really?")
    assert capsys.readouterr().err == "\n"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(terminal)
    os.close(ours)
