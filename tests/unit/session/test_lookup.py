from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.api.known_machines import Known, KnownMachines
from dcs_proxy.errors import (
    ApiProtocolError,
    ApiUnavailable,
    DcsError,
    Forbidden,
    MachineNotFound,
    SessionFailed,
    UsageError,
)
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName
from dcs_proxy.session import lookup
from dcs_proxy.session.lookup import Lookup, find_locally, names_of, resolve_typed
from dcs_proxy.session.next_step import Half

FIRST = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
SECOND = "017f22e2-79b0-7cc3-98c4-dc0c0c08398f"
THIRD = "017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"


def name_of(machine_id: str) -> MachineName:
    return MachineName(f"dm-{machine_id}")


class World:
    """A lookup; `api` are the ids that the API lists, and `asked` counts how often it did."""

    def __init__(self, directory: Path, *, aliases: dict[str, str] | None = None) -> None:
        named = {alias: MachineName(name) for alias, name in (aliases or {}).items()}
        self.settings = Settings(aliases=named)
        self.known = KnownMachines(str(directory), "account")
        self.api: list[str] | Exception = []
        self.asked = 0
        self.lookup = Lookup(self.settings, self.known, self.list_anew)
        self.find = self.lookup.find

    def list_anew(self) -> None:
        self.asked += 1
        if isinstance(self.api, Exception):
            raise self.api
        self.known.save_list(map(MachineId, self.api))

    def has_seen(self, *ids: str, long_ago: bool = True) -> None:
        """Let these be the machines of a list that was asked for before."""
        self.known.save_list(map(MachineId, ids))
        if long_ago:
            seen_at = time.time() - 6
            self.known._change(lambda known: Known(seen_at, known.ids, known.short))
        self.api = list(ids)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("typed", [f"dm-{FIRST}", FIRST, "dm-foo", "foo", "dm-a"])
def test_full_names_are_themselves_and_ask_nothing(world: World, typed: str) -> None:
    assert world.find(typed) == name_of(typed.removeprefix("dm-"))
    assert world.asked == 0


def test_a_short_name_among_uuids_that_were_seen_asks_nothing(world: World) -> None:
    world.has_seen(FIRST, THIRD)
    for typed in ("dm-c0de", "c0de", "dm-7c0de"):
        assert world.find(typed) == name_of(THIRD)
    assert world.asked == 0
    assert set(world.known.load().short) == {"dm-c0de", "dm-7c0de"}


def test_a_short_name_that_was_not_seen_is_looked_up_once(world: World) -> None:
    world.api = [FIRST, THIRD]
    assert world.find("dm-c0de") == world.find("dm-c0de") == name_of(THIRD)
    assert world.asked == 1


def test_several_are_told_apart_by_their_shortest_names(world: World) -> None:
    world.has_seen(FIRST, SECOND, THIRD)
    with pytest.raises(MachineNotFound) as caught:
        world.find("dm-398f")
    assert world.asked == 1
    assert caught.value.message == "this is short for 2 machines: dm-7398f, dm-8398f"
    assert caught.value.hint == "type one of these names"
    assert caught.value.machine == "dm-398f"
    assert world.find("dm-7398f") == name_of(FIRST)


def test_several_of_which_one_is_gone_are_settled_by_the_api(world: World) -> None:
    world.has_seen(FIRST, SECOND)
    world.api = [SECOND]
    assert world.find("dm-398f") == name_of(SECOND)


def test_not_more_than_a_few_of_many_are_named(world: World) -> None:
    world.has_seen(*(f"017f22e2-79b0-7cc3-98c4-{n:08x}c0de" for n in range(20)))
    with pytest.raises(MachineNotFound) as caught:
        world.find("dm-c0de")
    assert caught.value.message.count("dm-") == 8 and "and 12 more" in caught.value.message
    world.has_seen(*(f"017f22e2-79b0-7cc3-98c4-{n:08x}c0de" for n in range(8)))
    with pytest.raises(MachineNotFound) as caught:
        world.find("dm-c0de")
    assert caught.value.message.count("dm-") == 8 and "more" not in caught.value.message


def test_a_name_that_is_an_alias_is_no_way_out_of_an_ambiguity(tmp_path: Path) -> None:
    world = World(tmp_path, aliases={"dm-7398f": name_of(THIRD)})
    world.has_seen(FIRST, SECOND, THIRD)
    with pytest.raises(MachineNotFound, match="2 machines: dm-07398f, dm-8398f"):
        world.find("dm-398f")


def test_a_name_that_exists_wins_over_a_short_one(world: World) -> None:
    world.has_seen("dm-c0de", THIRD)
    assert world.find("dm-c0de") == "dm-c0de"
    assert world.asked == 0


def test_where_ids_are_names_the_api_is_asked_whether_the_name_exists(world: World) -> None:
    world.has_seen("dm-ci-runner")
    assert world.find("dm-runner") == "dm-ci-runner"
    assert world.asked == 1
    world.has_seen("dm-ci-runner")
    world.api = ["dm-ci-runner", "dm-runner"]
    with pytest.raises(MachineNotFound, match="this was short for dm-ci-runner and is now"):
        world.find("dm-runner")


def test_a_machine_named_like_a_short_name_in_use_is_not_entered_unasked(tmp_path: Path) -> None:
    world = World(tmp_path, aliases={"dm-other": "dm-c0de", "dm-7c0de": "dm-c0de"})
    world.has_seen(FIRST, THIRD)
    assert world.find("dm-c0de") == name_of(THIRD)
    world.has_seen(FIRST, THIRD, "dm-c0de")
    with pytest.raises(MachineNotFound) as caught:
        world.find("dm-c0de")
    assert caught.value.message == (
        f"this was short for dm-{THIRD} and is now the name of another machine"
    )
    assert caught.value.machine == "dm-c0de"
    assert caught.value.hint.startswith("for the first: ssh dm-07c0de; ")
    assert world.find("dm-07c0de") == name_of(THIRD)
    assert world.find("dm-other") == "dm-c0de"
    world.has_seen(FIRST, "dm-c0de")
    assert world.find("dm-c0de") == "dm-c0de"


def test_a_machine_that_ends_like_one_in_use_makes_its_short_name_ambiguous(world: World) -> None:
    world.has_seen(FIRST)
    assert world.find("dm-398f") == name_of(FIRST)
    world.has_seen(FIRST, SECOND)
    with pytest.raises(MachineNotFound, match="short for 2 machines"):
        world.find("dm-398f")


def test_an_alias_is_what_the_user_says(tmp_path: Path) -> None:
    world = World(tmp_path, aliases={"dm-web": name_of(FIRST), "dm-c0de": name_of(FIRST)})
    world.has_seen(FIRST, THIRD, "dm-web")
    for typed in ("dm-web", "web", "dm-c0de"):
        assert world.find(typed) == name_of(FIRST)


@pytest.mark.parametrize("error", [MachineNotFound("404"), ApiProtocolError("405"), Forbidden("")])
def test_without_a_list_a_name_goes_out_as_typed(world: World, error: Exception) -> None:
    world.api = error
    assert world.find("dm-nobody-knows") == "dm-nobody-knows"


def test_an_api_that_does_not_answer_is_told(world: World) -> None:
    world.api = ApiUnavailable("down")
    with pytest.raises(ApiUnavailable):
        world.find("dm-c0de")


def test_what_cannot_be_a_name_asks_nothing(world: World) -> None:
    with pytest.raises(UsageError):
        world.find("dm-$(id)")
    assert world.asked == 0


def test_a_list_of_just_now_is_not_asked_for_again(world: World) -> None:
    world.has_seen(FIRST, SECOND, long_ago=False)
    with pytest.raises(MachineNotFound):
        world.find("dm-398f")
    assert world.find("dm-nobody") == "dm-nobody"
    assert world.asked == 0


def test_a_machine_that_is_gone_is_looked_up_anew(world: World) -> None:
    world.has_seen(FIRST)
    found = world.find("dm-398f")
    world.api = [SECOND]
    assert world.lookup.find_again("dm-398f", found) == name_of(SECOND)
    assert world.find("dm-398f") == name_of(SECOND)


@pytest.mark.parametrize(("age_s", "asked"), [(-0.1, 1), (0, 0), (4.9, 0), (5, 1)])
def test_a_list_is_fresh_for_five_seconds(
    world: World, monkeypatch: pytest.MonkeyPatch, age_s: float, asked: int
) -> None:
    world.has_seen(FIRST)
    now = world.known.load().seen_at + age_s
    monkeypatch.setattr(time, "time", lambda: now)
    assert world.find("dm-nobody") == "dm-nobody"
    assert world.asked == asked


def test_a_name_that_means_several_by_now_is_refused(world: World) -> None:
    world.has_seen(FIRST)
    world.api = [FIRST, SECOND]
    with pytest.raises(MachineNotFound, match="short for 2 machines: dm-7398f, dm-8") as caught:
        world.lookup.find_again("dm-398f", name_of(THIRD))
    assert caught.value.machine == "dm-398f"


class Resolved:
    """Stands for `resolve`, which fails for the machines in `errors`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.errors: dict[str, DcsError] = {}
        self.calls: list[tuple[MachineName, object, Half]] = []
        self.log_file = directory / "log"
        self.context: Any = SimpleNamespace(log=Log(str(self.log_file)))
        monkeypatch.setattr(lookup, "resolve", self.resolve)

    def resolve(self, name: MachineName, context: object, half: Half) -> str:
        self.calls.append((name, context, half))
        if name in self.errors:
            raise self.errors[name]
        return f"the record of {name}"

    def typed(self, world: World, half: Half) -> object:
        return resolve_typed("dm-398f", self.context, world.lookup, half)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Resolved:
    return Resolved(monkeypatch, tmp_path)


@pytest.mark.parametrize("half", Half)
def test_what_was_typed_is_resolved(world: World, resolved: Resolved, half: Half) -> None:
    world.has_seen(FIRST)
    assert resolved.typed(world, half) == (name_of(FIRST), f"the record of {name_of(FIRST)}")
    assert resolved.calls == [(name_of(FIRST), resolved.context, half)]


@pytest.mark.parametrize("error", [MachineNotFound("gone"), SessionFailed("destroyed")])
def test_a_short_name_whose_machine_is_gone_is_looked_up_once_more(
    world: World, resolved: Resolved, error: DcsError
) -> None:
    world.has_seen(FIRST)
    resolved.errors[name_of(FIRST)] = error
    with pytest.raises(type(error)) as caught:
        resolved.typed(world, Half.CONNECT)
    assert caught.value is error and len(resolved.calls) == 1
    world.api = [SECOND]
    world.known._change(lambda known: Known(0.0, known.ids, known.short))
    found = resolved.typed(world, Half.CONNECT)
    assert found == (name_of(SECOND), f"the record of {name_of(SECOND)}")
    assert resolved.calls[-1] == (name_of(SECOND), resolved.context, Half.CONNECT)
    said = resolved.log_file.read_text()
    assert f"looked-up-again machine={name_of(SECOND)} instead_of={name_of(FIRST)}" in said


def test_another_error_is_not_a_reason_to_look_again(world: World, resolved: Resolved) -> None:
    world.has_seen(FIRST)
    resolved.errors[name_of(FIRST)] = ApiUnavailable("down")
    with pytest.raises(ApiUnavailable):
        resolved.typed(world, Half.PREPARE)
    assert world.asked == 0


@pytest.mark.parametrize("api", [[FIRST], []])
def test_there_may_be_nothing_else_that_it_means(world: World, api: list[str]) -> None:
    world.has_seen(FIRST)
    world.api = api
    assert world.lookup.find_again("dm-398f", name_of(FIRST)) is None
    assert world.lookup.find_again(FIRST, name_of(FIRST)) is None
    assert world.asked == 1


def known_ids(*ids: str) -> Known:
    return Known(1.0, tuple(map(MachineId, ids)))


@pytest.mark.parametrize(
    ("typed", "names", "ids", "found"),
    [
        ("c0de", [THIRD], [FIRST], THIRD),
        ("398f", [THIRD], [FIRST], FIRST),
        ("398f", [FIRST], [FIRST, SECOND], FIRST),
        ("web", [THIRD], [FIRST], FIRST),
        ("nobody", [THIRD], [FIRST], "nobody"),
        ("c0de", [THIRD, "c0de"], [], "c0de"),
        ("c0de", [THIRD], ["dm-c0de", THIRD], "c0de"),
    ],
)
def test_commands_that_ask_nothing_look_where_sessions_are_first(
    typed: str, names: Iterable[str], ids: Iterable[str], found: str
) -> None:
    settings = Settings(aliases={"dm-web": name_of(FIRST)})
    here = {name_of(each) for each in names}
    assert find_locally(typed, settings, here, known_ids(*ids)) == name_of(found)


def test_an_id_is_never_short_for_another() -> None:
    longer = MachineName(f"dm-web-{FIRST}")
    assert find_locally(FIRST, Settings(), {longer}, Known()) == name_of(FIRST)


def test_a_full_name_whose_machine_is_gone_is_not_looked_up_again(world: World) -> None:
    world.api = [THIRD]
    assert world.lookup.find_again("dm-foo", MachineName("dm-foo")) is None
    assert world.asked == 0


def test_they_refuse_what_is_ambiguous_too() -> None:
    here = {name_of(FIRST), name_of(SECOND)}
    with pytest.raises(MachineNotFound, match="dm-7398f, dm-8398f") as caught:
        find_locally("398f", Settings(), here, Known())
    assert caught.value.machine == "dm-398f"


def test_a_machine_s_names_are_all_that_may_be_typed() -> None:
    settings = Settings(aliases={"dm-web": name_of(FIRST)})
    used = {MachineName("dm-7398f"): MachineId(FIRST), MachineName("dm-c0de"): MachineId(THIRD)}
    known = Known(1.0, (MachineId(FIRST), MachineId(THIRD)), used)
    assert names_of(name_of(FIRST), settings, known) == {
        name_of(FIRST), "dm-web", "dm-398f", "dm-7398f",
    }  # fmt: skip
    # A short name that is an alias means the alias.
    settings = Settings(aliases={"dm-398f": name_of(THIRD)})
    assert names_of(name_of(FIRST), settings, known) == {
        name_of(FIRST), "dm-7398f",
    }  # fmt: skip
    assert names_of(name_of(SECOND), settings, known) == {name_of(SECOND)}
