from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from dcs_proxy.api.known_machines import Known, KnownMachines
from dcs_proxy.errors import (
    ApiProtocolError,
    ApiUnavailable,
    Forbidden,
    MachineNotFound,
    UsageError,
)
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName
from dcs_proxy.session.lookup import Lookup, find_locally, names_of

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
    world = World(tmp_path, aliases={"dm-other": "dm-c0de"})
    world.has_seen(FIRST, THIRD)
    assert world.find("dm-c0de") == name_of(THIRD)
    world.has_seen(FIRST, THIRD, "dm-c0de")
    with pytest.raises(MachineNotFound) as caught:
        world.find("dm-c0de")
    assert caught.value.message == (
        f"this was short for dm-{THIRD} and is now the name of another machine"
    )
    assert caught.value.hint.startswith("for the first: ssh dm-7c0de; ")
    assert world.find("dm-7c0de") == name_of(THIRD)
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


def test_they_refuse_what_is_ambiguous_too() -> None:
    here = {name_of(FIRST), name_of(SECOND)}
    with pytest.raises(MachineNotFound, match="dm-7398f, dm-8398f"):
        find_locally("398f", Settings(), here, Known())


def test_a_machine_s_names_are_all_that_may_be_typed() -> None:
    settings = Settings(aliases={"dm-web": name_of(FIRST)})
    used = {MachineName("dm-7398f"): MachineId(FIRST), MachineName("dm-c0de"): MachineId(THIRD)}
    known = Known(1.0, (MachineId(FIRST), MachineId(THIRD)), used)
    assert names_of(name_of(FIRST), settings, known) == {
        name_of(FIRST), "dm-web", "dm-398f", "dm-7398f",
    }  # fmt: skip
