"""dcs-proxy close: nothing of a session is left, and the next ssh makes a new one."""

from __future__ import annotations

import os
from collections.abc import Callable

from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.emulator import Emulator
from tests.support.processes import processes
from tests.support.user import User
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]


def identities(user: User) -> list[str]:
    """Return the comments of what the private agents hold."""
    found = []
    for socket in user.agents():
        environment = {**user.environment, "SSH_AUTH_SOCK": socket}
        lines = user.run(["ssh-add", "-L"], env=environment).stdout.splitlines()
        found += [line.split(" ", 2)[2] for line in lines if line.startswith("ssh-")]
    return sorted(found)


def left(user: User) -> set[str]:
    """Return the files that ssh or we might still read."""
    found = {path.name for part in ("hosts", "sessions") for path in (user.state / part).iterdir()}
    return {name for name in found if not name.endswith(".lock")}


def test_a_closed_session_leaves_nothing_and_the_next_ssh_makes_a_new_one(
    start_emulator: Start, user: User
) -> None:
    user.settings('[aliases]\ndm-web = "dm-foo"\n')
    emulator = start_emulator("--machine", "dm-foo", "--machine", "dm-bar")
    user.use(emulator)
    for name in ("dm-foo", "dm-web", "dm-bar"):
        assert user.ssh(name, "true").returncode == 0
    (bar,) = [comment for comment in identities(user) if comment.startswith("dm-bar ")]
    session = user.record("dm-foo")["attempt"]["session_id"]
    done = user.proxy("close", "dm-web")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"dm-foo: session {session} closed\n"
    assert emulator.control("GET", "state")["sessions"][session] == "closed"
    assert identities(user) == [bar]
    assert {name.partition(".")[0] for name in left(user)} == {"dm-bar"}
    again = user.ssh("dm-web", "echo in")
    assert (again.returncode, again.stdout) == (0, "in\n"), again.stderr
    assert user.record("dm-foo")["attempt"]["session_id"] != session


def test_no_session_is_no_error_but_said(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    done = user.proxy("close", "dm-foo")
    assert (done.returncode, done.stdout) == (0, "dm-foo: there was no session\n")
    everything = user.proxy("close", "--all")
    assert (everything.returncode, everything.stdout) == (0, "")
    assert everything.stderr == "dcs-proxy: there are no sessions\n"
    assert not emulator.events(event="request", machine="dm-foo")
    assert user.agents() == []


def test_all_closes_every_session_and_a_pattern_those_it_matches(
    start_emulator: Start, user: User
) -> None:
    names = [f"dm-m{number}" for number in range(4)]
    emulator = start_emulator(*(word for name in names for word in ("--machine", name)))
    user.use(emulator)
    assert user.proxy("wake", *names).returncode == 0
    some = user.proxy("close", "dm-*2", "dm-*3")
    assert (some.returncode, len(some.stdout.splitlines())) == (0, 2)
    assert sorted(identities(user)) == [f"dm-m{n} via localhost" for n in (0, 1)]
    assert "no machine matches" in user.proxy("close", "dm-*2").stderr
    assert user.proxy("close", "--all").returncode == 0
    assert (identities(user), left(user)) == ([], set())
    sessions = emulator.control("GET", "state")["sessions"]
    assert len(sessions) == 4 and set(sessions.values()) == {"closed"}


def test_many_machines_share_few_agents_and_closing_all_ends_them(
    start_emulator: Start, user: User
) -> None:
    names = [f"dm-m{number}" for number in range(17)]
    emulator = start_emulator(*(word for name in names for word in ("--machine", name)))
    user.use(emulator)
    assert user.proxy("wake", "--all").returncode == 0
    assert len(agents_of(user)) == 3
    assert [len(Agent(path).identities()) for path in user.agents()] == [8, 8, 1]
    assert user.proxy("close", "--all").returncode == 0
    assert (agents_of(user), user.agents()) == ([], [])


def test_what_a_replaced_session_has_left_goes_too(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--machine", "dm-bar")
    user.use(emulator)
    assert user.ssh("dm-bar", "true").returncode == 0
    for _ in range(2):
        assert user.ssh("dm-foo", "true").returncode == 0
        (user.state / "sessions" / "dm-foo.json").unlink()
        (user.state / "sessions" / "dm-foo.warm").unlink()
    assert len(identities(user)) == 3
    done = user.proxy("close", "dm-foo")
    assert (done.returncode, done.stdout) == (0, "dm-foo: there was no session\n")
    assert identities(user) == ["dm-bar via localhost"]
    assert user.proxy("close", "--all").returncode == 0
    assert agents_of(user) == []


def test_no_ssh_lacks_an_agent_while_everything_is_closed(
    start_emulator: Start, user: User
) -> None:
    names = [f"dm-m{number}" for number in range(4)]
    emulator = start_emulator(*(word for name in names for word in ("--machine", name)))
    user.use(emulator)
    for _ in range(3):
        running = [user.start_ssh(name, "echo in") for name in names]
        assert user.proxy("close", "--all").returncode == 0
        for ssh in running:
            output, errors = ssh.communicate(timeout=60)
            # After `prepare`, a close may remove the session, its key, or a file that ssh has yet
            # to read: the login or the gateway's authority.  But no ssh fails for want of an agent.
            refused = (b"Permission denied", b"but this session's login is", b"key is known for")
            assert output == b"in\n" or any(why in errors for why in refused), errors
            others = errors.replace(b"from agent: agent refused operation", b"")
            assert b"agent" not in others, errors
    assert user.proxy("close", "--all").returncode == 0
    assert agents_of(user) == []


def test_any_command_ends_agents_that_hold_nothing(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    agent = Agent(user.agent())
    assert user.proxy("list").returncode == 0
    assert agents_of(user)
    for identity in agent.identities():
        agent.remove(identity.blob)
    assert user.proxy("list").returncode == 0
    assert (agents_of(user), user.agents()) == ([], [])
    assert user.ssh("dm-foo", "true").returncode == 0


def agents_of(user: User) -> list[int]:
    """Return every process that has something of the user's agents among its arguments."""
    place = f"{PrivateAgents(str(user.state)).place}/"
    return [p for p, (_, words) in processes().items() if any(place in word for word in words)]


def test_a_wake_that_was_broken_off_is_closed_too(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "60")
    user.use(emulator)
    ssh = user.start_ssh("dm-foo", "true")
    wait_until(lambda: user.record("dm-foo").get("attempt", {}).get("session_id"))
    ssh.kill()
    ssh.communicate()
    session = user.record("dm-foo")["attempt"]["session_id"]
    assert identities(user) == ["dm-foo"]
    done = user.proxy("close", "--all")
    assert (done.returncode, done.stdout) == (0, f"dm-foo: session {session} closed\n")
    assert (identities(user), left(user)) == ([], set())
    assert emulator.control("GET", "state")["sessions"] == {session: "closed"}


def test_an_api_that_fails_leaves_no_way_in_and_can_be_asked_again(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    emulator.control("POST", "faults", fault="dm-foo=403/DELETE@1")
    done = user.proxy("close", "dm-foo")
    assert (done.returncode, done.stdout) == (5, "")
    assert "dcs-proxy: dm-foo: the API denied permission" in done.stderr
    assert identities(user) == []
    again = user.proxy("close", "--all")
    assert again.returncode == 0 and again.stdout.endswith(" closed\n")
    assert set(emulator.control("GET", "state")["sessions"].values()) == {"closed"}


def test_without_an_agent_the_rest_is_closed(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    user.end_agents()
    done = user.proxy("close", "dm-foo")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(emulator.control("GET", "state")["sessions"].values()) == {"closed"}
    assert user.agents() == []


def test_a_session_of_another_api_is_not_asked_for_here(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    other = start_emulator("--machine", "dm-foo")
    user.use(other, config=False)
    done = user.proxy("close", "dm-foo")
    assert done.returncode == 3
    assert "dm-foo: the session was created with another API or organisation" in done.stderr
    assert not other.events(method="DELETE")
    assert len(identities(user)) == 1


def test_a_name_too_long_for_a_file_is_closed_by_its_name(
    start_emulator: Start, user: User
) -> None:
    name = "dm-" + "a" * 250
    emulator = start_emulator("--machine", name)
    user.use(emulator, config=False)
    assert user.proxy("wake", name).returncode == 0
    assert user.proxy("close", "--all").stdout.startswith(f"{name}: session wssh-")
    assert emulator.events(method="DELETE", machine=name, status=200)
    assert left(user) == set()
    assert os.listdir(user.state / "hosts") == []
