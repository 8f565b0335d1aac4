from __future__ import annotations

import argparse
import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcs_proxy.api.client import account
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.app import Options
from dcs_proxy.commands import alias
from dcs_proxy.errors import Forbidden, MachineNotFound, UsageError
from dcs_proxy.local.settings import Settings
from tests.support.fake_api import Answer
from tests.unit.commands.conftest import Commands, Done
from tests.unit.commands.test_machines import write_block


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


def test_aliases_are_listed_set_and_removed_in_the_file_that_is_used(commands: Commands) -> None:
    commands.has("dm-foo", "dm-ci-1234")
    assert commands("alias") == Done(0, "", "")
    assert commands("alias", "Web", "1234").err == "dcs-proxy: dm-web now means dm-ci-1234\n"
    file = commands.home / ".config" / "dcs-proxy" / "config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    commands.configure("# mine\n" + config(commands.home))
    assert commands("alias").out == "ALIAS   MACHINE\ndm-web  dm-ci-1234\n"
    assert commands("alias", "--remove", "WEB") == Done(
        0, "", "dcs-proxy: dm-web is no longer an alias\n"
    )
    assert config(commands.home) == "# mine\n[aliases]\n"
    own = commands.home / "own.toml"
    own.touch()
    assert commands("--config", str(own), "alias", "dm-b", "dm-foo").code == 0
    assert own.read_text() == '[aliases]\ndm-b = "dm-foo"\n'
    assert config(commands.home) == "# mine\n[aliases]\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--remove", "dm-web"], 1,
         "dcs-proxy: there is no alias dm-web\ndcs-proxy: hint: see them: dcs-proxy alias\n"),
        (["--remove", "dm-web", "dm-foo"], 2,
         "dcs-proxy: --remove takes no other names\n"
         "dcs-proxy: hint: dcs-proxy alias --help\n"),
        (["dm-web"], 2,
         "dcs-proxy: name the machine as well\ndcs-proxy: hint: dcs-proxy alias --help\n"),
        (["dm-web", "dm-none"], 6,
         "dcs-proxy: dm-none: no such machine\n"
         "dcs-proxy: hint: see the names: dcs-proxy list\n"),
        (["dm-foo", "dm-foo"], 2,
         "dcs-proxy: dm-foo is the name of a machine\n"
         "dcs-proxy: hint: choose another alias\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_changes_nothing(
    commands: Commands, words: list[str], code: int, said: str
) -> None:
    commands.has("dm-foo")
    assert commands("alias", *words) == Done(code, "", said)
    assert config(commands.home) == ""


@pytest.mark.parametrize("status", [403, 404, 405, 401])
def test_only_an_api_without_a_list_is_done_without(commands: Commands, status: int) -> None:
    commands.api.answers = [Answer(status)]
    done = commands("alias", "dm-web", "dm-foo")
    assert (done.code == 0) is (status in (403, 404, 405))
    assert ('dm-web = "dm-foo"' in config(commands.home)) is (done.code == 0)


def test_an_ssh_config_that_lacks_the_alias_is_named(commands: Commands) -> None:
    commands.has("dm-foo")
    write_block(commands.home / ".ssh" / "config", ["dm-foo"])
    said = "1 machine is not listed in your ssh config: run dcs-proxy config-ssh"
    assert commands("alias", "dm-web", "dm-foo").err.splitlines()[1:] == [f"dcs-proxy: {said}"]
    write_block(commands.home / ".ssh" / "config", ["dm-web"])
    assert commands("alias", "--remove", "dm-web").err.splitlines()[1:] == [f"dcs-proxy: {said}"]


def test_two_at_a_time_do_not_lose_an_alias(commands: Commands) -> None:
    commands.has("dm-foo")
    places = []

    @contextlib.contextmanager
    def lock(path: str, what: str = "") -> Iterator[None]:
        places.append((path, what))
        yield

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(alias.config_file, "edit_lock", lock)
        commands("alias", "dm-web", "dm-foo")
        commands("alias", "--remove", "dm-web")
    assert places == [(commands.state.file("config.lock"), "dcs-proxy alias")] * 2
