from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcs_proxy.api import known_machines
from dcs_proxy.api.known_machines import Known, KnownMachines, other_form
from dcs_proxy.names import MachineId, MachineName

UUID = MachineId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
UUID_NAME = MachineName(f"dm-{UUID}")
FOO = MachineId("dm-foo")


def known(tmp_path: Path, account: str = "a") -> KnownMachines:
    return KnownMachines(str(tmp_path), account)


def file_of(tmp_path: Path) -> Path:
    (file,) = tmp_path.glob("account-*.json")
    return file


def test_a_list_is_remembered_for_its_account(tmp_path: Path) -> None:
    known(tmp_path).save_list([UUID, FOO, UUID])
    assert known(tmp_path).load().ids == (UUID, FOO)
    assert known(tmp_path).load().seen_at > 0
    assert known(tmp_path, "b").load() == Known()
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_name_leads_to_the_id_as_the_api_has_it(tmp_path: Path) -> None:
    known(tmp_path).save_list([UUID])
    assert known(tmp_path).id_of(UUID_NAME) == UUID
    assert known(tmp_path).id_of(MachineName("dm-foo")) is None
    for full, bare in ((UUID_NAME, UUID), (FOO, "foo")):
        for both in ([full, bare], [bare, full]):
            known(tmp_path).save_list(map(MachineId, both))
            assert known(tmp_path).id_of(MachineName(full)) == full
    assert Known(ids=(MachineId("../etc"),)).by_name == {}


def test_a_name_that_is_no_uuid_may_be_as_short_as_it_likes() -> None:
    for ids, are_uuids in (
        ([], True), ([UUID], True), ([UUID_NAME], True), ([UUID, FOO], False), ([FOO], False)
    ):  # fmt: skip
        assert Known(ids=tuple(map(MachineId, ids))).are_uuids is are_uuids


def test_an_id_that_worked_is_added_and_a_new_list_replaces_all(tmp_path: Path) -> None:
    known(tmp_path).learn(UUID)
    for _ in range(2):
        known(tmp_path).learn(FOO)
    assert known(tmp_path).load() == Known(0.0, (UUID, FOO))
    known(tmp_path).save_list([FOO])
    assert known(tmp_path).load().ids == (FOO,)


def test_a_short_name_is_noted_until_its_machine_is_gone(tmp_path: Path) -> None:
    short = MachineName("dm-398f")
    known(tmp_path).note_short(short, UUID_NAME)
    assert known(tmp_path).load().short == {}
    known(tmp_path).save_list([UUID, FOO])
    known(tmp_path).note_short(short, UUID_NAME)
    assert known(tmp_path).load().short == {short: UUID}
    assert known(tmp_path).save_list([FOO]).short == {}
    assert known(tmp_path).load().short == {}
    # Not even if the machine comes back.
    known(tmp_path).save_list([FOO, UUID])
    assert known(tmp_path).load().short == {}


def test_all_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_machines, "MAX_IDS", 3)
    monkeypatch.setattr(known_machines, "MAX_SHORT", 2)
    known(tmp_path).save_list(MachineId(f"dm-{n}") for n in range(3))
    known(tmp_path).learn(FOO)
    assert FOO not in known(tmp_path).load().ids
    for end in ("aaaa", "bbbb", "cccc"):
        known(tmp_path).note_short(MachineName(f"dm-{end}"), MachineName("dm-1"))
    assert list(known(tmp_path).load().short) == ["dm-bbbb", "dm-cccc"]
    known(tmp_path).save_list(MachineId(f"dm-{n}") for n in range(4))
    assert known(tmp_path).load().ids == ()
    assert known(tmp_path).load().seen_at > 0


GOOD: dict[str, Any] = {"account": "a", "seen_at": 1.0, "ids": [UUID], "short": {"dm-398f": UUID}}


@pytest.mark.parametrize(
    "change",
    [
        {"account": "b"}, {"account": None}, {"seen_at": "1"}, {"ids": None}, {"ids": ["../x"]},
        {"ids": [1]}, {"ids": ["A"]},
        {"ids": [f"dm-{number}" for number in range(known_machines.MAX_IDS + 1)]},
    ],
)  # fmt: skip
def test_a_file_that_says_something_else_counts_as_missing(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    known(tmp_path).save_list([UUID])
    file_of(tmp_path).write_text(json.dumps(GOOD))
    assert known(tmp_path).load() == Known(1.0, (UUID,), {MachineName("dm-398f"): UUID})
    for text in (json.dumps({**GOOD, **change}), "", "{", "[]", "1", "[" * 100_000):
        file_of(tmp_path).write_text(text)
        assert known(tmp_path).load() == Known()


@pytest.mark.parametrize(
    "short",
    [
        None, [], {"DM-X": UUID}, {"398f": UUID}, {"dm-398f": FOO}, {"dm-398f": []},
        {f"dm-{number:04}": UUID for number in range(known_machines.MAX_SHORT + 1)},
    ],
)  # fmt: skip
def test_short_names_that_are_none_are_left_out(tmp_path: Path, short: object) -> None:
    known(tmp_path).save_list([UUID])
    file_of(tmp_path).write_text(json.dumps({**GOOD, "short": short}))
    assert known(tmp_path).load() == Known(1.0, (UUID,))


@given(st.binary(max_size=200) | st.text('[{":,}]0a', max_size=40).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_nothing_or_ids(tmp_path: Path, data: bytes) -> None:
    known(tmp_path).save_list([UUID])
    file_of(tmp_path).write_bytes(data)
    assert known(tmp_path).load() == Known()


def test_a_directory_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    missing = KnownMachines(str(tmp_path / "missing"), "a")
    assert missing.save_list([FOO]).ids == (FOO,)
    missing.learn(UUID)
    assert missing.load() == Known()


def test_only_a_uuid_has_another_form() -> None:
    assert other_form(UUID_NAME) == UUID
    assert other_form(MachineName("dm-foo")) is None


def test_each_account_has_a_file_of_its_own(tmp_path: Path) -> None:
    known(tmp_path, "first").save_list([MachineId("dm-a")])
    known(tmp_path, "second").save_list([MachineId("dm-b")])
    assert known(tmp_path, "first").load().ids == ("dm-a",)
    assert known(tmp_path, "second").load().ids == ("dm-b",)
    names = [path.name for path in tmp_path.iterdir()]
    assert all(re.fullmatch(r"account-[0-9a-f]{16}\.json", name) for name in names)


def test_as_many_as_are_kept_are_read_back(tmp_path: Path) -> None:
    machines = known(tmp_path)
    ids = [MachineId(f"017f22e2-79b0-7cc3-98c4-{number:012x}") for number in range(20_000)]
    machines.save_list(ids)
    assert machines.load().ids == tuple(ids)


def test_a_short_name_is_noted_once_and_for_a_known_machine_only(tmp_path: Path) -> None:
    machines = known(tmp_path)
    machines.note_short(MachineName("dm-x"), MachineName("dm-unknown"))
    assert list(tmp_path.iterdir()) == []
    machines.save_list([MachineId("dm-ci-runner")])
    machines.note_short(MachineName("dm-runner"), MachineName("dm-ci-runner"))
    (path,) = tmp_path.iterdir()
    before = path.stat().st_ino
    machines.note_short(MachineName("dm-runner"), MachineName("dm-ci-runner"))
    machines.note_short(MachineName("dm-x"), MachineName("dm-unknown"))
    assert path.stat().st_ino == before
    assert machines.load().short == {"dm-runner": "dm-ci-runner"}
