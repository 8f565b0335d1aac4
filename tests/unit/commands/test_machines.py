from __future__ import annotations

import argparse
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from dcs_proxy.api.client import Api
from dcs_proxy.api.model import Listing, Machine, UnusableMachine
from dcs_proxy.app import ApiFactory
from dcs_proxy.commands import _machines
from dcs_proxy.commands._machines import (
    aliases_to_list,
    is_listed,
    names_to_list,
    read_listed,
    select_machines,
    show_unlisted,
    show_unusable,
    usable_names,
)
from dcs_proxy.errors import MachineNotFound, StateError, UsageError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import Program, render_end, render_top
from dcs_proxy.openssh.version import Version
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import NEVER
from tests.unit.commands.conftest import READY, Commands

KNOWN = [MachineName(name) for name in ("dm-a", "dm-b", "dm-ci-1", "dm-ci-2")]
SETTINGS = Settings(aliases={"dm-web": KNOWN[0], "dm-wiki": KNOWN[1]})


def chosen(*hosts: str, everything: bool = False) -> list[str]:
    arguments = argparse.Namespace(hosts=list(hosts), all=everything)
    return [*select_machines(arguments, SETTINGS, lambda: KNOWN, SETTINGS.machine, hint="look")]


def test_names_aliases_and_patterns_mean_each_machine_once_in_order() -> None:
    assert chosen("dm-ci-*", "dm-new", "dm-web", "dm-ci-2", "dm-a") == [
        "dm-ci-1", "dm-ci-2", "dm-new", "dm-a"
    ]  # fmt: skip
    assert chosen("dm-w*") == ["dm-a", "dm-b"]
    assert chosen("a", "web", "wik*", "c?-1") == ["dm-a", "dm-b", "dm-ci-1"]
    assert chosen("dm-?") == ["dm-a", "dm-b"]
    assert chosen("DM-CI-*", "WIK*", "A") == ["dm-ci-1", "dm-ci-2", "dm-b", "dm-a"]
    assert chosen(everything=True) == KNOWN


def test_a_pattern_that_means_nothing_and_a_wrong_name_are_told() -> None:
    with pytest.raises(MachineNotFound, match="no machine matches"):
        chosen("dm-a", "dm-x*")
    with pytest.raises(UsageError, match="not the name of a machine"):
        chosen("Web_")
    with pytest.raises(UsageError, match="name the machines, or use --all"):
        chosen()
    with pytest.raises(UsageError, match="give either --all or the names of machines, not both"):
        chosen("dm-a", everything=True)


def test_the_list_is_not_asked_for_where_names_are_enough() -> None:
    arguments = argparse.Namespace(hosts=["dm-a"], all=False)

    def fail() -> list[MachineName]:
        raise AssertionError

    assert select_machines(arguments, SETTINGS, fail, SETTINGS.machine, hint="look") == {
        "dm-a": "dm-a"
    }


def test_the_ssh_config_lists_no_more_machines_than_ssh_can_read_fast() -> None:
    names = [MachineName(f"dm-{'x' * 200}-{number}") for number in range(21_000)]
    listed = names_to_list(names, SETTINGS)
    assert len(listed) == 2_000 + len(SETTINGS.aliases)
    assert set(SETTINGS.aliases) <= set(listed)


def test_many_machines_that_ssh_cannot_name_take_few_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_unusable(Listing([], [UnusableMachine(f"m{number}", "x", "y") for number in range(500)]))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "dcs-proxy: ssh cannot name 480 more machines"


def test_a_machine_that_is_being_destroyed_has_no_usable_name() -> None:
    phases = {"dm-a": "running", "dm-b": "destroying", "dm-c": "destroyed", "dm-d": "sleeping"}
    machines = [Machine(MachineId(name), phase) for name, phase in phases.items()]
    assert usable_names(Listing(machines)) == ["dm-a", "dm-d"]


UUID = MachineName("dm-017f22e2-79b0-7cc3-98c4-dc0c0c07c0de")
SHORT = MachineName("dm-c0de")


def test_a_pattern_means_a_machine_by_its_short_name_as_well() -> None:
    arguments = argparse.Namespace(hosts=["dm-c0*"], all=False)
    assert select_machines(arguments, SETTINGS, lambda: [UUID], SETTINGS.machine, hint="look") == {
        UUID: UUID
    }


def test_a_pattern_does_not_mean_a_machine_by_an_alias_of_another() -> None:
    settings = Settings(aliases={SHORT: KNOWN[0]})
    arguments = argparse.Namespace(hosts=["dm-c0*"], all=False)
    assert select_machines(
        arguments, settings, lambda: [UUID, *KNOWN], settings.machine, hint="look"
    ) == {"dm-a": "dm-a"}


def test_what_was_typed_is_returned_but_for_a_pattern() -> None:
    arguments = argparse.Namespace(hosts=["web", "dm-ci-?", "dm-a"], all=False)
    assert select_machines(arguments, SETTINGS, lambda: KNOWN, SETTINGS.machine, hint="look") == {
        "dm-a": "web", "dm-ci-1": "dm-ci-1", "dm-ci-2": "dm-ci-2"
    }  # fmt: skip


def test_the_hint_of_the_command_is_that_of_the_error() -> None:
    for hosts in ([], ["dm-x*"]):
        arguments = argparse.Namespace(hosts=hosts, all=False)
        with pytest.raises((UsageError, MachineNotFound)) as caught:
            select_machines(arguments, SETTINGS, lambda: KNOWN, SETTINGS.machine, hint="look")
        assert caught.value.hint == "look"


@pytest.mark.parametrize(
    ("listed", "names", "aliases"),
    [
        (("*",), ["dm-c0de", "dm-ci-1", "dm-ci-2", "dm-ci-10", "dm-web", "dm-wiki"],
         ["dm-web", "dm-wiki"]),
        ((), [], []),
        (("dm-ci-*",), ["dm-ci-1", "dm-ci-2", "dm-ci-10"], []),
        (("dm-w*",), ["dm-web", "dm-wiki"], ["dm-web", "dm-wiki"]),
        (("dm-a", "dm-c0de"), ["dm-c0de", "dm-web"], ["dm-web"]),
        (("wik*",), ["dm-wiki"], ["dm-wiki"]),
        (("dm-c0*",), ["dm-c0de"], []),
    ],
)  # fmt: skip
def test_the_setting_selects_machines_by_each_of_their_names(
    listed: tuple[str, ...], names: list[str], aliases: list[str]
) -> None:
    settings = replace(SETTINGS, listed=listed)
    machines = [MachineName("dm-ci-10"), UUID, *reversed(KNOWN)]
    assert names_to_list(machines, settings) == names
    assert aliases_to_list(settings) == aliases
    assert is_listed(KNOWN[0], settings) is ("dm-web" in names)


PROGRAM, VERSION = Program(("/usr/bin/python3",), "/state"), Version(9, 6)


def write_block(path: Path, hosts: Collection[str]) -> None:
    """Write an ssh config with our blocks, which list `hosts`."""
    top = render_top(PROGRAM, [MachineName(host) for host in hosts], VERSION)
    path.write_bytes(config_file.install(b"", top, render_end(PROGRAM, VERSION)))


def unlisted(commands: Commands, settings: Settings) -> list[str]:
    show_unlisted([UUID, *KNOWN], settings, commands.state.path)
    return commands.shown().err.splitlines()


def test_machines_that_a_config_lacks_are_counted_for_each_file(commands: Commands) -> None:
    default, other = commands.home / ".ssh" / "config", commands.home / "my config"
    run = "run dcs-proxy config-ssh"
    assert unlisted(commands, SETTINGS) == []
    write_block(default, ["dm-web", "dm-wiki", "dm-c0de", "dm-ci-1"])
    assert unlisted(commands, SETTINGS) == [
        f"dcs-proxy: 1 machine is not listed in your ssh config: {run}"
    ]
    for path in (other, default, commands.home / "gone"):
        commands.state.add_ssh_config(str(path))
    write_block(other, ["dm-a", "dm-b", UUID, "dm-ci-1", "dm-ci-2"])
    assert unlisted(commands, SETTINGS) == [
        f"dcs-proxy: 1 machine is not listed in your ssh config: {run}",
        f"dcs-proxy: 3 machines are not listed in {other}: {run} --ssh-config '{other}'",
    ]
    assert unlisted(commands, replace(SETTINGS, listed=("dm-c0de", "dm-ci-1"))) == [
        f"dcs-proxy: 1 machine is not listed in {other}: {run} --ssh-config '{other}'"
    ]
    assert unlisted(commands, replace(SETTINGS, listed=())) == []


def test_every_alias_of_a_machine_is_to_be_listed(commands: Commands) -> None:
    settings = replace(SETTINGS, aliases={"dm-web": KNOWN[0], "dm-www": KNOWN[0]}, listed=("dm-a",))
    write_block(commands.home / ".ssh" / "config", ["dm-web"])
    assert len(unlisted(commands, settings)) == 1
    write_block(commands.home / ".ssh" / "config", ["dm-web", "dm-www"])
    assert unlisted(commands, settings) == []


def test_an_alias_that_looks_like_the_short_name_of_another_machine_does_not_list_it(
    commands: Commands,
) -> None:
    settings = Settings(aliases={SHORT: KNOWN[0]})
    config = commands.home / ".ssh" / "config"
    write_block(config, [SHORT, *KNOWN[1:]])
    assert len(unlisted(commands, settings)) == 1
    write_block(config, names_to_list([UUID, *KNOWN], settings))
    assert unlisted(commands, settings) == []


def test_a_list_that_can_take_no_more_is_not_complained_of(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_block(commands.home / ".ssh" / "config", ["dm-x", "dm-y"])
    for limit, count in ((3, 1), (2, 0)):
        monkeypatch.setattr(_machines, "_MAX_LISTED", limit)
        assert len(unlisted(commands, SETTINGS)) == count


def test_the_list_in_a_config_is_that_of_an_undamaged_block(tmp_path: Path) -> None:
    path = tmp_path / "config"
    assert read_listed(str(path)) is None
    path.write_text("Host dm-own\n")
    assert read_listed(str(path)) is None
    write_block(path, [])
    assert read_listed(str(path)) == set()
    write_block(path, ["dm-a", "dm-b"])
    (tmp_path / "link").symlink_to(path)
    assert read_listed(str(tmp_path / "link")) == {"dm-a", "dm-b"}
    path.write_bytes(path.read_bytes()[:300])
    assert read_listed(str(path)) is None


def test_names_are_saved_for_completion_and_machines_that_sleep_are_confirmed(
    commands: Commands,
) -> None:
    commands.configure('reuse_seconds = 100\n[aliases]\ndm-web = "dm-a"\n')
    phases = {"dm-a": "running", "dm-b": "sleeping", "dm-c": "sleeping", "dm-d": "sleeping",
              "dm-e": "destroyed", UUID: "running"}  # fmt: skip
    commands.has(*({"machine_id": name, "phase": phase} for name, phase in phases.items()))
    # Later than any time at which the test can run.
    proved_later = replace(READY, proved_at=READY.ends_at)
    for name in ("dm-a", "dm-b"):
        commands.save(name, ready=proved_later)
    commands.save("dm-c", ready=replace(READY, proved_at=NEVER))
    commands.save("dm-d")
    assert commands("list").code == 0
    assert Path(commands.state.file("machines")).read_text().splitlines() == [
        UUID, "dm-a", "dm-b", "dm-c", "dm-c0de", "dm-d", "dm-web"
    ]  # fmt: skip
    proved = {
        name: record and record.ready and record.ready.proved_at
        for name in ("dm-a", "dm-b", "dm-c", "dm-d")
        if (record := commands.state.load(MachineName(name)))
    }
    assert (proved["dm-a"], proved["dm-c"], proved["dm-d"]) == (READY.ends_at, NEVER, None)
    ago = time.time() - (proved["dm-b"] or 0)
    assert 100 <= ago < 160


def test_the_name_to_complete_is_not_that_of_an_alias_for_another_machine(
    commands: Commands,
) -> None:
    commands.configure('[aliases]\ndm-c0de = "dm-a"\n')
    commands.has("dm-a", UUID)
    assert commands("list").code == 0
    assert set(commands.state.saved_machines()) == {UUID, "dm-7c0de", "dm-a", "dm-c0de"}


def test_a_list_that_cannot_be_saved_is_shown_all_the_same(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(StateDirectory, "save_machines", fail)
    commands.has("dm-a")
    assert commands("list").out.splitlines()[1].startswith("dm-a ")
    assert ' list-not-saved what="the disk is full"' in Path(commands.state.file("log")).read_text()


def test_those_that_the_ssh_config_has_no_room_for_are_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_machines, "_MAX_LISTED", 2)
    machines = [MachineName(f"dm-{number}") for number in (10, 9, 8)]
    assert names_to_list(machines, Settings()) == ["dm-8", "dm-9"]


def test_the_list_has_a_time_limit(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    open_api = ApiFactory.open

    def note(self: ApiFactory, deadline: Deadline) -> Api:
        limits.append(deadline.seconds)
        return open_api(self, deadline)

    monkeypatch.setattr(ApiFactory, "open", note)
    assert commands("list").code == 0
    assert limits == [30]
