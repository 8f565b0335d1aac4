from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import Options
from dcs_proxy.commands import wake
from dcs_proxy.commands.wake import _interrupted
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import NEVER, Attempt, ReadySession, Record

# Longer than a whole run of the tests takes, because this is when they are collected.
LIFE_S = 86400
END = time.time() + LIFE_S
ATTEMPT = Attempt("k", "ab" * 32, "/agent.sock", END, "account", "wssh-1")
READY = ReadySession("ssh.example", 22, "u", "a", "", True, END, END - 900, END - 900)
WAKING = Record(ATTEMPT)


@pytest.mark.parametrize(
    ("record", "is_waking"),
    [
        (WAKING, True),
        (Record(ATTEMPT, replace(READY, proved_at=NEVER)), True),
        (Record(ATTEMPT, READY), False),
        (Record(replace(ATTEMPT, session_id="")), False),
        (Record(replace(ATTEMPT, key_ends_at=END - LIFE_S - 1)), False),
        (Record(ATTEMPT, replace(READY, proved_at=NEVER, ends_at=END - LIFE_S - 1)), False),
        (None, False),
    ],
)
def test_a_machine_continues_to_wake_if_the_api_has_been_asked(
    tmp_path: Path, record: Record | None, is_waking: bool
) -> None:
    state, name = StateDirectory(str(tmp_path)), MachineName("dm-foo")
    if record is not None:
        state.save(name, record)
    expected = "1 still waking (the next ssh resumes it)" if is_waking else "1 not started"
    assert _interrupted(state, [name]) == f"interrupted: {expected}"


def test_what_an_interrupt_leaves_is_counted(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    names = [MachineName(f"dm-{number}") for number in range(3)]
    for name in names[:2]:
        state.save(name, WAKING)
    assert _interrupted(state, names) == (
        "interrupted: 2 still waking (the next ssh resumes them), 1 not started"
    )
    assert _interrupted(state, []) == "interrupted"


def test_a_wake_that_the_user_has_asked_for_is_forbidden_by_no_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(wake, "open_context", lambda *_, **more: opened.append(more))
    settings = Settings(wake=(("*", "never"),), reuse_seconds=900, wake_seconds=7)
    credentials = Credentials("dsk-key", None, "")
    name = MachineName("dm-foo")
    waker = wake._Waker(Options(), settings, credentials, {name: "foo"})
    waker._open_context(print, lambda: False)
    (found,) = opened
    used = found["settings"]
    assert used.wake_policy(name) == "always"
    assert (used.reuse_seconds, used.wake_seconds) == (0, 7)
    assert found["credentials"] is credentials
