"""A session that ends elsewhere costs one failed ssh at most, and a good one is not asked about
each time.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.bridge import write_config
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]

WAYS = {"handover": (), "relay": ("-o", "ProxyUseFdpass=no")}


def put(emulator: Emulator, *phases: str) -> None:
    """Let the machine go through the phases."""
    for phase in phases:
        emulator.control("PUT", "machines/dm-foo", phase=phase)


ENDS: dict[str, Callable[[Emulator], object]] = {
    "closed": lambda e: e.control("POST", "machines/dm-foo/close-sessions"),
    "stopped": lambda e: put(e, "stopping", "sleeping"),
    "rebooted": lambda e: put(e, "stopping", "starting", "running"),
    "made anew": lambda e: [
        e.control("DELETE", "machines/dm-foo"),
        put(e, "running"),
    ],
}


def get_in(user: User, *arguments: str) -> None:
    done = user.ssh(*arguments, "dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def requests(emulator: Emulator) -> int:
    return len(emulator.events(event="request"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ENDS)
def test_the_second_ssh_gets_in(start_emulator: Start, user: User, end: str, way: str) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--wake-seconds", "0.5")
    user.use(emulator)
    get_in(user, *WAYS[way])
    ENDS[end](emulator)
    refused = user.ssh(*WAYS[way], "dm-foo", "true")
    assert refused.returncode == 255 and "Permission denied" in refused.stderr
    get_in(user, *WAYS[way])


@pytest.mark.parametrize("end", ENDS)
def test_after_a_warm_ssh_too(start_emulator: Start, user: User, end: str) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--wake-seconds", "0.5")
    user.use(emulator)
    for _ in range(2):
        get_in(user)
    ENDS[end](emulator)
    # What has ended since makes this very one ask.
    get_in(user)


@pytest.mark.parametrize("end", ["stopped"])
def test_what_list_has_seen_costs_no_failed_ssh(
    start_emulator: Start, user: User, end: str
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--wake-seconds", "0.5")
    user.use(emulator)
    get_in(user)
    ENDS[end](emulator)
    assert user.proxy("list").returncode == 0
    get_in(user)


@pytest.mark.parametrize("end", ENDS)
def test_through_the_bridge_the_first_gets_in(start_emulator: Start, user: User, end: str) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--wake-seconds", "0.5")
    write_config(user, emulator)
    get_in(user)
    ENDS[end](emulator)
    get_in(user)


@pytest.mark.parametrize("name", ["dm-web", "dm-foo"])
def test_a_try_by_another_name_counts(start_emulator: Start, user: User, name: str) -> None:
    user.settings('[aliases]\ndm-web = "dm-foo"\n')
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for host in ("dm-web", "dm-foo"):
        assert user.ssh(host, "true").returncode == 0
    ENDS["closed"](emulator)
    user.ssh("dm-web", "true")
    assert user.ssh(name, "true").returncode == 0


def test_a_loop_asks_once_in_a_while(start_emulator: Start, user: User) -> None:
    user.settings("reuse_seconds = 3600\n")
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    get_in(user)
    get_in(user)
    before = requests(emulator)
    get_in(user)
    assert requests(emulator) == before + 1
    for _ in range(5):
        get_in(user)
    assert requests(emulator) == before + 1


def test_while_an_ssh_is_still_there_its_session_is_not_in_doubt(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    get_in(user)
    before = requests(emulator)
    for _ in range(3):
        ssh = user.start_ssh("dm-foo", "echo in; sleep 1000")
        assert ssh.stdout and ssh.stdout.readline() == b"in\n"
    assert requests(emulator) == before


def test_looking_at_the_configuration_leaves_no_doubt(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    get_in(user)
    before = requests(emulator)
    for _ in range(3):
        assert user.ssh("-G", "dm-foo").returncode == 0
    get_in(user)
    assert requests(emulator) == before


@pytest.mark.parametrize("fault", ["reset", "503", "429:9000", "401", "stall", "not-json"])
def test_an_api_that_gives_no_answer_ends_no_good_session(
    start_emulator: Start, user: User, fault: str
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for _ in range(2):
        get_in(user)
    emulator.control("POST", "faults", fault=f"dm-foo={fault}")
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert "still-doubtful" in user.log()


def test_a_policy_against_waking_is_kept(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    get_in(user)
    user.settings('wake = "never"\n')
    get_in(user)
    ENDS["stopped"](emulator)
    user.ssh("dm-foo", "true")
    done = user.ssh("dm-foo", "true")
    assert 'wake = "never" forbids waking it' in done.stderr
    assert len(emulator.creates()) == 1
