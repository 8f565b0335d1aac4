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
