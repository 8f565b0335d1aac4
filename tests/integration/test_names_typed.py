"""Whatever a command line can hold as a name ends in a login or in one clear line, and wakes
nothing for nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from tests.support.bridge import write_config
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
NO_NAME = "is not the name of a machine"
HINT = (
    "dcs-proxy: hint: a name is dm- followed by letters, digits and inner hyphens, up to 253 "
    "characters\n"
)


@pytest.fixture
def asleep(start_emulator: Start, user: User) -> Emulator:
    """The emulator with a machine that sleeps and a user who has an ssh config."""
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
    user.use(emulator)
    user.environment["GIT_SSH_COMMAND"] = f"ssh -F '{user.config}'"
    user.environment["RSYNC_RSH"] = f"ssh -F '{user.config}'"
    (user.root / "file").write_text("text\n")
    return emulator


@pytest.mark.parametrize(
    "host",
    ["DM-FOO", "Dm-Foo", "dm-foo.", "DM-foo.", "ssh://DM-foo", "ssh://dm-foo:2222/",
     "ssh://dm-foo.:22"],
)  # fmt: skip
def test_ssh_logs_in_by_the_name_in_any_case_and_with_a_dot_at_its_end(
    asleep: Emulator, user: User, host: str
) -> None:
    done = user.ssh(host, "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert len(asleep.creates()) == 1


@pytest.mark.parametrize(
    "host",
    ["dm-", "dm-foo-", "dm--foo", "dm-*", "dm-?", "dm-" + "x" * 251, "dm-" + "x" * 4000, "dm-fö",
     "dm-f\udcff\udcfe", "DM-", "dm-\u212a"],
    ids=ascii,
)  # fmt: skip
def test_a_name_that_none_can_have_is_one_line(asleep: Emulator, user: User, host: str) -> None:
    done = user.run(["ssh", "-F", str(user.config), os.fsencode(host), "true"])
    assert done.returncode == 255
    assert done.stderr.count(NO_NAME) == 1 and HINT in done.stderr
    assert max(map(len, done.stderr.splitlines()[:2])) < 140
    assert asleep.creates() == []


@pytest.mark.parametrize(
    "host",
    [
        "dm-foo..",
        "dm-foo.x",
        "dm-foo.x.",
        "dm-foo%h",
        "dm-[foo]",
        "dm-foo:22",
        "::1%lo",
        "dm-foo ",
        "dm-foo@",
        "",
    ],
)
def test_other_hosts_are_left_to_ssh(asleep: Emulator, user: User, host: str) -> None:
    done = user.ssh("-o", "ConnectTimeout=2", "--", host, "true")
    assert done.returncode == 255 and "dcs-proxy" not in done.stderr
    assert asleep.events(event="request", method="POST") == []


@pytest.mark.parametrize("is_awake", [True, False])
@pytest.mark.parametrize(
    ("line", "host"),
    [("Host dm-web\n  HostName dm-foo\n", "dm-web"), ("Host dm-b*\n  HostName dm-foo\n", "dm-bar"),
     ("Match host dm-web\n  HostName DM-foo.\n  User me\n", "dm-web")],
)  # fmt: skip
def test_host_name_that_leads_to_another_machine_is_named(
    asleep: Emulator, user: User, line: str, host: str, is_awake: bool
) -> None:
    """It took its session's login, or the local user's, and the error spoke of that."""
    if is_awake:
        assert user.ssh("dm-foo", "true").returncode == 0
    user.config.write_text(line + user.config.read_text())
    done = user.ssh(host, "true")
    assert done.returncode == 255
    first, second, *_ = done.stderr.splitlines()
    assert first == (
        f'dcs-proxy: HostName makes ssh connect "{host}" to dm-foo, which has another session'
    )
    assert second.startswith("dcs-proxy: hint: type: ssh dm-foo; or remove that HostName")
    assert len(asleep.creates()) == is_awake
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


LOGINS = {
    "root@dm-foo": ["root@dm-foo"],
    "ssh://root@dm-foo": ["ssh://root@dm-foo:2222"],
    "two at signs": ["me@you@dm-foo"],
    "-l": ["-l", "root", "dm-foo"],
    "-l after the host": ["dm-foo", "-l", "root"],
    "-lroot": ["-lroot", "--", "dm-foo"],
    "-o User": ["-o", "User=root", "dm-foo"],
    "-o user": ["-ouser root", "dm-foo"],
    "-l, empty": ["-l", "", "dm-foo"],
    "-l, a token": ["-l", "%r", "dm-foo"],
    "-l, a blank": ["-l", "a b", "dm-foo"],
    "-l, long": ["-l", "x" * 4000, "dm-foo"],
    "-l, not UTF-8": ["-l", "\udcff", "dm-foo"],
}


@pytest.mark.parametrize("name", LOGINS)
def test_a_login_that_would_be_refused_wakes_nothing(
    asleep: Emulator, user: User, name: str
) -> None:
    done = user.run(["ssh", "-F", str(user.config), *map(os.fsencode, LOGINS[name]), "true"])
    assert done.returncode == 255
    first, second, *_ = done.stderr.splitlines()
    how = "with an empty user name," if name == "-l, empty" else "as "
    assert first.startswith(f"dcs-proxy: dm-foo: ssh is about to log in {how}")
    assert first.endswith(", but only the session's own login works; the machine was not woken")
    assert second.startswith("dcs-proxy: hint: type: ssh dm-foo (")
    assert asleep.creates() == []


@pytest.mark.parametrize("name", LOGINS)
def test_a_wrong_login_of_a_machine_that_is_awake_is_refused(
    asleep: Emulator, user: User, name: str
) -> None:
    assert user.ssh("dm-foo", "true").returncode == 0
    done = user.run(["ssh", "-F", str(user.config), *map(os.fsencode, LOGINS[name]), "true"])
    assert done.returncode == 255 and "Permission denied" not in done.stderr
    if name != "-l, a blank":  # which ssh must not pass to a shell
        assert "dm-foo: ssh is about to log in " in done.stderr
    assert len(asleep.creates()) == 1


def test_the_sessions_own_login_may_be_typed(asleep: Emulator, user: User) -> None:
    assert user.ssh("dm-foo", "true").returncode == 0
    login = user.record("dm-foo")["ready"]["ssh_username"]
    for words in (["-l", login, "dm-foo"], [f"{login}@dm-foo"], ["-o", f"User={login}", "dm-foo"]):
        done = user.ssh(*words, "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["scp", "-F", "CONFIG", "file", "DM-FOO:"],
        ["scp", "-O", "-F", "CONFIG", "file", "Dm-Foo:"],
        ["scp", "-F", "CONFIG", "file", "scp://DM-FOO:2222/copy"],
        ["scp", "-F", "CONFIG", "file", "[dm-foo]:"],
        ["sftp", "-F", "CONFIG", "-b", "/dev/null", "DM-FOO"],
        ["sftp", "-F", "CONFIG", "-b", "/dev/null", "sftp://Dm-foo/"],
        ["rsync", "-a", "file", "DM-FOO:"],
    ],
    ids=" ".join,
)
def test_other_programs_take_names_in_any_case(
    asleep: Emulator, user: User, command: list[str]
) -> None:
    done = user.run([str(user.config) if word == "CONFIG" else word for word in command])
    assert done.returncode == 0, done.stderr
    assert len(asleep.creates()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["scp", "-F", "CONFIG", "file", "root@dm-foo:"],
        ["scp", "-F", "CONFIG", "file", "scp://root@dm-foo/"],
        ["sftp", "-F", "CONFIG", "-b", "/dev/null", "root@dm-foo"],
        ["git", "clone", "-q", "ssh://root@dm-foo/repo"],
        ["git", "clone", "-q", "root@DM-FOO:repo"],
        ["rsync", "-a", "file", "root@dm-foo:"],
        ["scp", "-F", "CONFIG", "file", "dm-:"],
        ["git", "clone", "-q", "dm-:repo"],
    ],
    ids=" ".join,
)
def test_other_programs_show_the_line_and_wake_nothing(
    asleep: Emulator, user: User, command: list[str]
) -> None:
    done = user.run([str(user.config) if word == "CONFIG" else word for word in command])
    assert done.returncode != 0
    assert "was not woken" in done.stderr or NO_NAME in done.stderr
    assert asleep.creates() == []


def test_the_bridge_takes_any_login_and_names_what_is_none(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    write_config(user, emulator)
    for words in (["root@dm-foo"], ["-l", "", "dm-foo"], ["-l", "a b", "dm-foo"]):
        done = user.ssh(*words, "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    for host in ("dm-", "dm-foo..", "dm-fö", "dm-" + "x" * 1000, "dm-f\udcff"):
        done = user.run(["ssh", "-F", str(user.config), os.fsencode(host), "true"])
        assert done.returncode == 255 and NO_NAME in done.stderr, done.stderr
    assert len(emulator.creates()) == 1


@pytest.mark.parametrize("command", ["wake", "status", "log", "doctor", "close"])
def test_every_command_takes_a_name_in_any_case(asleep: Emulator, user: User, command: str) -> None:
    assert user.proxy("wake", "Dm-FOO").returncode == 0
    hosts = {"log": "DM-FOO"}.get(command, "FOO")
    more = ["--ssh-config", str(user.config)] if command == "doctor" else []
    done = user.proxy(command, hosts, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dm-foo" in done.stdout
    if command in ("wake", "close"):
        assert user.proxy(command, "DM-F*").returncode in (0, 6)
    assert len(asleep.creates()) == 1


@pytest.mark.parametrize("command", ["wake", "status", "log", "doctor", "close"])
def test_every_command_says_what_is_no_name(user: User, command: str) -> None:
    for name, shown in (
        ("dm-", "dm-"), ("", ""), (" dm-foo", " dm-foo"), ("dm-foo\n", "dm-foo?"),
        ("dm-f\udcff", "dm-f?"), ("x" * 4000, "x" * 77 + "..."), ("::1", "::1"),
        ("me@dm-foo", "me@dm-foo"), ("ssh://dm-foo", "ssh://dm-foo"), ("dm-\u212a", "dm-\u212a"),
        ("dm-\x1b[31m", "dm-?[31m"), ("dm-\u202efoo", "dm-?foo"),
    ):  # fmt: skip
        done = user.run([sys.executable, "-m", "dcs_proxy", command, os.fsencode(name)])
        said = done.stdout + done.stderr
        assert done.returncode in (1, 2) and f'"{shown}" {NO_NAME}' in said, said
        assert "internal error" not in said


def test_aliases_are_written_in_lower_case(asleep: Emulator, user: User) -> None:
    assert user.proxy("alias", "DM-WEB", "FOO").stderr.startswith(
        "dcs-proxy: dm-web now means dm-foo\n"
    )
    done = user.ssh("Dm-Web", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert user.proxy("alias", "--remove", "Web").returncode == 0
