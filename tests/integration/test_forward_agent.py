"""The user's own agent: forwarded when asked for, never in the way."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.keys import make_key
from tests.support.user import User, insert_between_blocks

Start = Callable[..., Emulator]
LIST = 'if [ -n "$SSH_AUTH_SOCK" ]; then ssh-add -l; else echo nothing forwarded; fi'


def add_keys(user: User, count: int) -> None:
    for number in range(count):
        key = make_key(user.root / f"key{number}", comment=f"own-{number}")
        assert user.run(["ssh-add", "-q", str(key)]).returncode == 0


@pytest.fixture
def forwarding(start_emulator: Start, user: User) -> User:
    """A user with an agent of their own that holds one key."""
    user.start_agent()
    add_keys(user, 1)
    return user.use(start_emulator("--machine", "dm-foo"))


def test_ssh_a_forwards_the_users_own_agent(forwarding: User) -> None:
    done = forwarding.ssh("-A", "dm-foo", LIST)
    assert "own-0" in done.stdout, done.stderr
    assert "dm-foo" not in done.stdout


def test_forward_agent_yes_in_the_users_config_forwards_it_too(forwarding: User) -> None:
    insert_between_blocks(forwarding.config, "Host *\n    ForwardAgent yes\n")
    assert "own-0" in forwarding.ssh("dm-foo", LIST).stdout
    assert "nothing forwarded" in forwarding.ssh("-a", "dm-foo", LIST).stdout


def test_nothing_is_forwarded_unless_asked_for(forwarding: User) -> None:
    assert forwarding.ssh("dm-foo", LIST).stdout == "nothing forwarded\n"


def test_the_private_agent_is_never_forwarded(start_emulator: Start, user: User) -> None:
    assert "SSH_AUTH_SOCK" not in user.environment
    user.use(start_emulator("--machine", "dm-foo"))
    done = user.ssh("-A", "dm-foo", LIST)
    # ssh says yes to -A before we are asked: what arrives is an agent that does not answer.
    assert done.stdout == "" and done.returncode not in (0, 255), done.stderr


@pytest.mark.parametrize("name", ["link", "directory/agent-1.sock"])
def test_a_link_to_the_private_agent_is_not_forwarded(
    start_emulator: Start, user: User, name: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    (agent,) = user.agents()
    (user.root / "link").symlink_to(agent)
    (user.root / "directory").symlink_to(os.path.dirname(agent))
    user.environment["SSH_AUTH_SOCK"] = str(user.root / name)
    for _ in range(2):
        done = user.ssh("-A", "dm-foo", LIST)
        assert "dm-foo" not in done.stdout, done.stdout
        assert done.stdout in ("", "nothing forwarded\n") and done.returncode != 255
    assert os.listdir(user.state / "agents") == []
    (user.root / "link").unlink()  # so that the user's end stops no agent by this name


@pytest.mark.parametrize("name", ["agent-1.sock", "link", "directory/agent-1.sock"])
def test_a_private_agent_of_another_state_directory_is_not_forwarded(
    start_emulator: Start, user: User, name: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    other = user.root / "other"
    assert user.proxy("--home", str(other), "prepare", "dm-foo").returncode == 0
    agent = other / "sockets" / "agent-1.sock"
    (user.root / "link").symlink_to(agent)
    (user.root / "directory").symlink_to(agent.parent)
    user.environment["SSH_AUTH_SOCK"] = str(
        (agent.parent if name == agent.name else user.root) / name
    )
    for _ in range(2):
        done = user.ssh("-A", "dm-foo", LIST)
        # The agent would say that it has no identities: it lists none that are bound to a gateway.
        assert done.stdout in ("", "nothing forwarded\n") and done.returncode != 255
        assert os.listdir(user.state / "agents") == []


def test_the_users_own_agent_may_become_a_link_to_the_private_one(forwarding: User) -> None:
    user = forwarding
    own = user.environment["SSH_AUTH_SOCK"]
    link = user.root / "link"
    link.symlink_to(own)
    user.environment["SSH_AUTH_SOCK"] = str(link)
    for _ in range(2):
        assert "own-0" in user.ssh("-A", "dm-foo", LIST).stdout
    link.unlink()
    link.symlink_to(user.agents()[0])
    for _ in range(2):
        assert "dm-foo" not in user.ssh("-A", "dm-foo", LIST).stdout
    user.environment["SSH_AUTH_SOCK"] = own


@pytest.mark.parametrize("agent", ["private", "user"])
def test_the_second_prepare_is_warm_with_either_agent(
    start_emulator: Start, user: User, agent: str
) -> None:
    user.start_agent()
    user.settings(f'agent = "{agent}"\n')
    user.use(start_emulator("--machine", "dm-foo"))
    for _ in range(2):
        assert user.ssh("dm-foo", "true").returncode == 0
    # The full program logs each prepare, the fast path none.
    assert user.log().count("prepared ") == 1


def test_twenty_other_keys_in_the_users_agent_do_not_matter(
    start_emulator: Start, user: User
) -> None:
    user.start_agent()
    add_keys(user, 20)
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_an_empty_agent_of_the_user_does_not_matter(start_emulator: Start, user: User) -> None:
    user.start_agent()
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_identities_only_in_the_users_config_does_not_matter(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    insert_between_blocks(user.config, "Host *\n    IdentitiesOnly yes\n    User somebody\n")
    done = user.ssh("dm-foo", "echo in")
    assert done.stdout == "in\n", done.stderr


def test_agent_user_lends_the_certificate_to_the_users_own_agent(
    start_emulator: Start, user: User
) -> None:
    user.start_agent()
    add_keys(user, 20)
    user.settings('agent = "user"\n')
    user.use(start_emulator("--machine", "dm-foo"))
    done = user.ssh("dm-foo", "echo in")
    assert done.stdout == "in\n", done.stderr
    assert "dm-foo" in user.run(["ssh-add", "-l"]).stdout
    assert user.agents() == []
