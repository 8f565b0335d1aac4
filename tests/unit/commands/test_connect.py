from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.commands import connect
from dcs_proxy.errors import UsageError
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record

NAME = MachineName("dm-foo")
ATTEMPT = Attempt("k", "ab" * 32, "/agent.sock", 5000.0, "account", "wssh-1")
READY = ReadySession("ssh.example", 22, "me", "a", "", True, 5000.0, 1000.0, 2000.0)


def test_the_api_is_asked_about_a_session_whose_login_was_refused(tmp_path: Path) -> None:
    state, record = StateDirectory(str(tmp_path)), Record(ATTEMPT, READY)
    state.save(NAME, record)
    context: Any = SimpleNamespace(
        state=state, settings=Settings(reuse_seconds=60), now=lambda: 2010.0,
        log=Log(state.file("log")),
    )  # fmt: skip
    connect._doubt(NAME, record, context)
    loaded = state.load(NAME)
    assert loaded is not None and loaded.ready is not None
    assert loaded.ready.proved_at == 1950
    assert " login-refused machine=dm-foo session=wssh-1" in Path(state.file("log")).read_text()


@pytest.mark.parametrize("port", ["", "ssh", "-1", "22x", " 22"])
def test_a_port_is_a_number(port: str) -> None:
    connect._check_port("22")
    with pytest.raises(UsageError, match="PORT must be a number"):
        connect._check_port(port)
