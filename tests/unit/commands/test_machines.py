from __future__ import annotations

import argparse

import pytest

from dcs_proxy.api.model import Listing, Machine, UnusableMachine
from dcs_proxy.commands._machines import (
    names_to_list,
    select_machines,
    show_unusable,
    usable_names,
)
from dcs_proxy.errors import MachineNotFound, UsageError
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName

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
    for arguments in ({}, {"everything": True}):
        with pytest.raises(UsageError, match="name the machines, or use --all"):
            chosen(*(["dm-a"] if arguments else []), **arguments)


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
