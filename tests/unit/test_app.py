"""How the parts are put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dcs_proxy import app
from dcs_proxy.app import Options, log_failure, open_factory, open_keyring
from dcs_proxy.errors import ApiUnavailable
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings


class Keyring:
    """Stands for the system keyring, and has the arguments with which it was opened."""

    opened: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any, **_: Any) -> None:
        Keyring.opened = arguments

    def read(self) -> str:
        return "dsk-a"


def test_a_keyring_may_take_longer_where_ssh_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SystemKeyring", Keyring)
    settings, deadline = Settings(key_file=str(tmp_path / "none")), Deadline(60)
    factory = open_factory(Options(str(tmp_path)), {}, settings)
    assert factory.find_credentials(deadline).bearer == "dsk-a"
    # VS Code waits for ssh 17 s by default.
    assert Keyring.opened == (settings.base_url, {}, deadline, 15, factory.notice)
    open_keyring(settings, {})
    url, _, deadline, limit_s, _ = Keyring.opened
    assert (url, deadline.seconds, limit_s) == (settings.base_url, 120, 120)


def test_a_failure_is_logged_once(tmp_path: Path) -> None:
    error = ApiUnavailable("down", machine="dm-foo")
    for _ in range(2):
        log_failure(error, Options(str(tmp_path)), {})
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert f" failed machine=dm-foo code={ApiUnavailable.exit_code} what=" in line
