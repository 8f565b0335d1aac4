from __future__ import annotations

from typing import Any

import pytest

from dcs_proxy.api.model import Listing, Machine
from dcs_proxy.commands.list import _table, size
from dcs_proxy.console.stdout import columns
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, short_names


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ({"vcpu": 2, "memory_mib": 4096, "storage_gib": 20}, "2 vCPU 4 GiB 20 GiB"),
        ({"vcpu": 0.25, "memory_mib": 512, "storage_gib": 20}, "0.25 vCPU 512 MiB 20 GiB"),
        ({"vcpu": 1, "memory_mib": 1536}, "1 vCPU 1.5 GiB"),
        ({"memory_mib": 1023}, "1023 MiB"),
        ({"memory_mib": 1024}, "1 GiB"),
        ({"storage_gib": 0}, "0 GiB"),
        ({"memory_mib": 2.0**52}, "4398046511104 GiB"),
        ({}, "-"),
    ],
)
def test_a_size_says_what_is_known(amounts: dict[str, Any], words: str) -> None:
    assert size(Machine(MachineName("dm-foo"), "running", **amounts)) == words


def test_columns_are_as_wide_as_their_widest_and_lines_end_with_text() -> None:
    assert columns([("A", "B", "C"), ("long", "", "x"), ("1", "22", "")]) == [
        "A     B   C",
        "long      x",
        "1     22",
    ]


def test_short_names_have_a_column_if_any_machine_has_one() -> None:
    chosen = Machine(MachineName("dm-foo"), "running")
    uuid = Machine(MachineName("dm-017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"), "sleeping")

    def table(*machines: Machine) -> list[list[str]]:
        short = short_names([machine.name for machine in machines])
        return [line.split() for line in _table(Listing([*machines], []), short, Settings(), 0)]

    assert table(chosen) == [
        ["NAME", "PHASE", "SIZE", "AGE", "ALIAS"],
        ["dm-foo", "running", "-", "-", "-"],
    ]
    assert table(chosen, uuid) == [
        ["NAME", "SHORT", "PHASE", "SIZE", "AGE", "ALIAS"],
        ["dm-foo", "-", "running", "-", "-", "-"],
        [uuid.name, "dm-c0de", "sleeping", "-", "-", "-"],
    ]
