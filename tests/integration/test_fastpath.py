"""The warm path: what it takes over, and what it leaves to the full program."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dcs_proxy
from dcs_proxy.fastpath import helper
from dcs_proxy.ssh.agent import Agent
from tests.support.emulator import Emulator
from tests.support.keys import make_key
from tests.support.user import User, helpers_for
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]
# No ssh asks about the session for a thirtieth of it.
LONG = "reuse_seconds = 3600\n"
START = Path(dcs_proxy.__file__).with_name("start.py")


@pytest.fixture
def warm(start_emulator: Start, user: User) -> tuple[User, Emulator]:
    """A user who has logged in a few times, so that the next ssh is warm."""
    user.settings(LONG)
    emulator = start_emulator("--machine", "dm-foo", "--machine", "dm-bar")
    user.use(emulator)
    settle(user)
    return user, emulator


def settle(user: User) -> None:
    """Log in as often as it takes: the third ssh asks about the session, the next do not."""
    for _ in range(3):
        assert user.ssh("dm-foo", "true").returncode == 0


def full_runs(user: User, *arguments: str) -> list[str]:
    """Type ssh, which must get in; return which halves the full program had to do."""
    before = len(user.log().splitlines())
    done = user.ssh(*arguments, "dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    lines = user.log().splitlines()[before:]
    prepared = ["prepare" for line in lines if " prepared machine=" in line]
    connected = [line for line in lines if " connected machine=" in line]
    assert len(connected) == 1
    return prepared + ["connect" for line in connected if " warm=yes" not in line]


@pytest.mark.both_ids
def test_a_warm_ssh_never_starts_the_full_program(warm: tuple[User, Emulator]) -> None:
    user, emulator = warm
    before = len(emulator.events(event="request"))
    assert full_runs(user) == []
    assert full_runs(user, "-A") == []
    assert len(emulator.events(event="request")) == before


@pytest.mark.both_ids
def test_the_warm_path_imports_next_to_nothing(warm: tuple[User, Emulator]) -> None:
    user, _ = warm
    command = [
        sys.executable,
        "-I",
        "-S",
        "-X",
        "importtime",
        str(START),
        "--home",
        str(user.state),
        "--config",
        str(user.root / "config.toml"),
        "prepare",
        "dm-foo",
    ]
    bare = [sys.executable, "-I", "-S", "-X", "importtime", "-c", "pass"]  # fmt: skip
    modules, usual = (
        {line.split("|")[-1].strip() for line in user.run(words).stderr.splitlines()}
        for words in (command, bare)
    )
    assert modules - usual <= {"_socket"}


@pytest.mark.both_ids
def test_a_cold_start_imports_no_more_than_it_needs(warm: tuple[User, Emulator]) -> None:
    """argparse and the parsers would be a tenth of it."""
    user, _ = warm
    for part in ("sessions", "hosts"):
        for path in (user.state / part).iterdir():
            path.unlink()
    # The option reaches no other interpreter: all these modules are in the one that ssh starts.
    command = [sys.executable, "-I", "-S", "-X", "importtime", str(START)]
    options = ["--home", str(user.state), "--config", str(user.root / "config.toml")]
    done = user.run([*command, *options, "prepare", "dm-foo"])
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert {"requests", "dcs_proxy.session.steps"} <= modules, done.stderr
    rare = {"argparse", "asyncio", "difflib", "keyring", "paramiko", "secretstorage", "shtab",
            "tomlkit"}  # fmt: skip
    assert modules & rare == set()


@pytest.mark.parametrize("file", ["start.py", "__main__.py"])
@pytest.mark.both_ids
def test_what_the_full_program_prints_is_whole(user: User, file: str) -> None:
    """Ssh's way of starting it ends at once; a person may start it so too, and read from a pipe."""
    path = START.with_name(file)
    done = user.run([sys.executable, str(path), "--home", str(user.state), "completion", "bash"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == user.proxy("completion", "bash").stdout != ""


@pytest.mark.parametrize("closing", [">&-", "| :"])
@pytest.mark.both_ids
def test_a_reader_that_is_gone_costs_no_traceback(user: User, closing: str) -> None:
    script = '"$@" completion bash ' + closing
    words = ["sh", "-c", script, "sh", sys.executable, str(START.with_name("__main__.py"))]
    assert "Traceback" not in user.run(words).stderr


@pytest.mark.both_ids
def test_relayed_connections_are_warm_too(warm: tuple[User, Emulator]) -> None:
    user, emulator = warm
    before = len(emulator.events(event="request"))
    # Without /proc only the full program can tell OpenSSH from a client that needs the bridge.
    assert full_runs(user, "-o", "ProxyUseFdpass=no") == (["connect"] if user.mac else [])
    assert len(emulator.events(event="request")) == before


@pytest.mark.both_ids
def test_the_relay_that_stays_has_no_secret(warm: tuple[User, Emulator]) -> None:
    user, _ = warm
    ssh = user.start_ssh("-o", "ProxyUseFdpass=no", "dm-foo", "echo in; sleep 1000")
    assert ssh.stdout and ssh.stdout.readline() == b"in\n"
    wait_until(lambda: helpers_for(user))
    (helper,) = helpers_for(user)
    assert b"\0relay\0" in Path(f"/proc/{helper}/cmdline").read_bytes()
    assert Path(f"/proc/{helper}/environ").read_bytes() == b""
    ssh.kill()
    wait_until(lambda: not helpers_for(user))


@pytest.mark.both_ids
def test_another_login_is_explained_by_the_full_program(warm: tuple[User, Emulator]) -> None:
    user, _ = warm
    done = user.ssh("root@dm-foo", "true")
    assert done.returncode == 255 and "ssh is about to log in as root" in done.stderr


CHANGES: dict[str, Callable[[User, Emulator], object]] = {
    "the config file": lambda user, _: user.settings(LONG + "wake_seconds = 200\n"),
    "an alias": lambda user, _: user.settings(LONG + '[aliases]\ndm-foo = "dm-bar"\n'),
    "the API": lambda user, _: user.environment.update(
        DEDALUS_BASE_URL=user.environment["DEDALUS_BASE_URL"] + "/"
    ),
    "the snippet": lambda user, _: (user.state / "hosts" / "dm-foo.conf").write_text("Bad line\n"),
    "another snippet": lambda user, _: (user.state / "hosts" / "dm-x.conf").write_text("Bad\n"),
    "a snippet's mode": lambda user, _: (user.state / "hosts" / "dm-foo.conf").chmod(0o666),
    "known_hosts": lambda user, _: next(user.state.glob("sessions/*.known_hosts")).write_text(""),
    "the agent": lambda user, _: user.end_agents(),
    "the identity": lambda user, _: [
        Agent(user.agent()).remove(identity.blob) for identity in Agent(user.agent()).identities()
    ],
    "the line": lambda user, _: (user.state / "sessions" / "dm-foo.warm").write_bytes(b"1\0\0"),
    "the user's agent": lambda user, _: user.start_agent(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_noticed_and_the_next_is_warm_again(
    warm: tuple[User, Emulator], change: str
) -> None:
    user, emulator = warm
    CHANGES[change](user, emulator)
    assert "prepare" in full_runs(user)
    settle(user)
    assert full_runs(user) == []


@pytest.mark.both_ids
def test_a_line_cut_short_at_any_byte_is_left_to_the_full_program(
    warm: tuple[User, Emulator],
) -> None:
    user, _ = warm
    path = user.state / "sessions" / "dm-foo.warm"
    whole = path.read_bytes()
    program = (
        "import sys; sys.argv = ['']; from dcs_proxy.fastpath import helper\n"
        "from pathlib import Path\n"
        "path, words = sys.stdin.read().splitlines()\n"
        "path, words = Path(path), words.split('|')\n"
        "whole = path.read_bytes(); good = []\n"
        "for length in range(len(whole) + 1):\n"
        "    path.write_bytes(whole[:length])\n"
        "    try: good += [length] * helper.run(words)\n"
        "    except (OSError, ValueError, IndexError): pass\n"
        "print(good)\n"
    )
    words = f"--home|{user.state}|--config|{user.root / 'config.toml'}|prepare|dm-foo"
    done = user.run([sys.executable, "-c", program], input=f"{path}\n{words}\n")
    assert done.stdout == f"[{len(whole)}]\n", done.stderr


@pytest.mark.parametrize("options", [(), ("-o", "ProxyUseFdpass=no")], ids=["handover", "relay"])
def test_no_fast_connection_follows_a_prepare_that_failed(
    start_emulator: Start, user: User, options: tuple[str, ...]
) -> None:
    """The local login is the session's, so only the failure is in the way."""
    emulator = start_emulator("--machine", "dm-foo", "--login", getpass.getuser())
    user.use(emulator)
    user.settings(LONG)
    for _ in range(2):
        assert user.ssh(*options, "dm-foo", "echo in").stdout == "in\n"
    assert (user.state / "sessions" / "dm-foo.warm").exists()
    user.end_agents()
    emulator.control("POST", "faults", fault="dm-foo=403/POST")
    done = user.ssh(*options, "dm-foo", "true")
    assert done.returncode == 255
    assert "the API denied permission" in done.stderr and "IDENTIFICATION" not in done.stderr


@pytest.mark.both_ids
def test_a_gateway_that_moved_is_found_by_the_full_program(warm: tuple[User, Emulator]) -> None:
    user, _ = warm
    path = user.state / "sessions" / "dm-foo.warm"
    fields = path.read_text().split("\0")
    fields[helper.PORT] = "1"
    path.write_text("\0".join(fields))
    assert full_runs(user) == ["connect"]
    assert full_runs(user) == []


@pytest.mark.both_ids
def test_several_agents_are_told_apart(warm: tuple[User, Emulator], tmp_path: Path) -> None:
    user, _ = warm
    first = user.start_agent()
    full_runs(user)
    assert [p.name for p in (user.state / "agents").iterdir()] == ["only.conf"]
    second = os.path.join(os.path.dirname(first), "second.sock")
    user.start("ssh-agent", "-D", "-a", second)
    wait_until(lambda: os.path.exists(second))
    for path in (second, first):
        user.environment["SSH_AUTH_SOCK"] = path
        key = make_key(tmp_path / os.path.basename(path), comment=path)
        assert user.run(["ssh-add", "-q", str(key)]).returncode == 0
    for path in (second, first, second):
        user.environment["SSH_AUTH_SOCK"] = path
        assert path in user.ssh("-A", "dm-foo", "ssh-add -l").stdout
    assert full_runs(user) == []
    del user.environment["SSH_AUTH_SOCK"]
    assert user.ssh("-A", "dm-foo", "ssh-add -l").returncode != 0
