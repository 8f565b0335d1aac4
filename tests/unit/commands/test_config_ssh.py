from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.model import Listing
from dcs_proxy.app import Options
from dcs_proxy.commands import config_ssh
from dcs_proxy.local.lock import try_lock


def test_two_config_ssh_never_edit_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "home" / "config-ssh.lock"
    locked: list[str] = []

    def only_while_locked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any) -> Any:
            assert try_lock(str(lock)) is None
            locked.append(name)
            return call(*arguments)

        return checked

    file = config_ssh.config_file
    monkeypatch.setattr(file, "read", only_while_locked("read", file.read))
    monkeypatch.setattr(file, "edit", only_while_locked("edit", file.edit))
    monkeypatch.setattr(
        config_ssh, "list_machines", only_while_locked("list", lambda *_: Listing([]))
    )
    parser = argparse.ArgumentParser()
    config_ssh.add_arguments(parser)
    words = ["--ssh-config", str(tmp_path / "config")]
    options = Options(home=str(tmp_path / "home"))
    assert config_ssh.run(parser.parse_args(words), options) == 0
    assert {"read", "list", "edit"} <= set(locked)
    locked.clear()
    assert config_ssh.run(parser.parse_args([*words, "--remove"]), options) == 0
    assert "edit" in locked


def test_removing_the_block_makes_no_state_directory(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    config_ssh.add_arguments(parser)
    arguments = parser.parse_args(["--ssh-config", str(tmp_path / "config"), "--remove"])
    assert config_ssh.run(arguments, Options(home=str(tmp_path / "home"))) == 0
    assert list(tmp_path.iterdir()) == []
