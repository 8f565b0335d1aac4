from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dcs_proxy.api.client import account
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.app import Options
from dcs_proxy.commands import alias
from dcs_proxy.errors import Forbidden, MachineNotFound, UsageError
from dcs_proxy.local.settings import Settings


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options of a user whose account has the machines dm-foo and dm-bar."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "state").mkdir(mode=0o700)
    known = KnownMachines(str(tmp_path / "state"), account(Settings()))
    monkeypatch.setattr(alias, "list_machines", lambda *_: known.save_list(["dm-foo", "dm-bar"]))
    return Options(str(tmp_path / "state"))


def set_alias(options: Options, name: str, host: str) -> int:
    return alias.run(argparse.Namespace(remove=None, name=name, host=host), options)


def config(tmp_path: Path) -> str:
    path = tmp_path / ".config" / "dcs-proxy" / "config.toml"
    return path.read_text() if path.exists() else ""


def test_an_alias_stands_for_a_machine_of_the_account(tmp_path: Path, options: Options) -> None:
    assert set_alias(options, "web", "foo") == 0
    assert config(tmp_path) == '[aliases]\ndm-web = "dm-foo"\n'


def test_an_alias_never_hides_a_machine(tmp_path: Path, options: Options) -> None:
    with pytest.raises(UsageError, match="dm-bar is the name of a machine"):
        set_alias(options, "bar", "foo")
    assert config(tmp_path) == ""


def test_an_alias_of_no_machine_is_refused_where_there_is_a_list(
    tmp_path: Path, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MachineNotFound, match="no such machine"):
        set_alias(options, "web", "none")
    assert config(tmp_path) == ""

    def refuse(*_: object) -> None:
        raise Forbidden("no list for this key")

    monkeypatch.setattr(alias, "list_machines", refuse)
    monkeypatch.setattr(alias.Lookup, "find", lambda self, typed: f"dm-{typed}")
    assert set_alias(options, "web", "none") == 0
    assert config(tmp_path) == '[aliases]\ndm-web = "dm-none"\n'
