"""Each error inside ssh reaches the user once, whichever way: stderr, or a disconnect message."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.support.bridge import write_config
from tests.support.emulator import Emulator
from tests.support.terminal import Terminal
from tests.support.user import User

Start = Callable[..., Emulator]
OURS = f"{sys.executable} -m dcs_proxy"


def persisting(user: User) -> list[str]:
    """Return options under which ssh discards the stderr of its ProxyCommand, as Ansible's do."""
    control = f'ControlPath="{user.root}/control"'
    return ["-o", "ControlMaster=auto", "-o", control, "-o", "ControlPersist=9"]


def seen_on_terminal(user: User, *command: str) -> str:
    with Terminal(user, *command) as terminal:
        assert terminal.finish() == 255
        return terminal.shown


def ways_to_fail(user: User, host: str) -> dict[str, str]:
    """Return what ssh shows on a terminal, in a pipe, and under ControlPersist."""
    done = user.ssh(host, "true"), user.ssh(*persisting(user), host, "true")
    assert [each.returncode for each in done] == [255, 255]
    return {
        "terminal": seen_on_terminal(user, "ssh", "-F", str(user.config), host, "true"),
        "pipe": done[0].stderr,
        "ControlPersist": done[1].stderr,
    }


def assert_once(shown: dict[str, str], message: str, hint: str) -> None:
    for way, text in shown.items():
        assert (text.count(message), text.count(hint)) == (1, 1), f"{way}:\n{text}"


def no_machine(user: User) -> tuple[str, str]:
    return "no such machine", "check the name, and that"


def wrong_setting(user: User) -> tuple[str, str]:
    user.settings("wake_secnds = 1\n")
    return "wake_secnds is not a setting", "did you mean wake_seconds?"


def no_key(user: User) -> tuple[str, str]:
    del user.environment["DEDALUS_API_KEY"]
    return "there is no API key", "dcs-proxy login"


def no_agent(user: User) -> tuple[str, str]:
    user.settings('agent = "user"\n')
    return "SSH_AUTH_SOCK is not set", "start an agent"


def no_api(user: User) -> tuple[str, str]:
    user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    user.settings("wake_seconds = 1\n")
    return "cannot be reached", "check the network"


def bad_file(user: User) -> tuple[str, str]:
    (user.root / "config.toml").write_bytes(b"\xff\n")
    return "config.toml", "save it as UTF-8"


@pytest.mark.parametrize("fault", [no_machine, wrong_setting, no_key, no_agent, no_api, bad_file])
def test_an_error_before_ssh_connects_comes_once(
    start_emulator: Start,
    user: User,
    fault: Callable[[User], tuple[str, str]],
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    message, hint = fault(user)
    shown = ways_to_fail(user, "dm-none")
    assert_once(shown, message, hint)
    for text in shown.values():
        first, _, rest = text.partition("\n")
        assert first.startswith("dcs-proxy: ") and "Received disconnect" in rest
        assert ":11: dm-none: not connected; the reason is shown above" in rest
    assert not list((user.state / "sessions").glob("*.failed"))


def test_a_name_that_none_can_have_comes_once(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    shown = ways_to_fail(user, "dm-foo-")
    assert_once(shown, "is not the name of a machine", "a name is dm- followed by")


def test_a_second_reading_of_the_config_shows_nothing_again(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    with user.config.open("a") as file:
        file.write("Match final\n    SendEnv LANG\n")
    done = user.ssh("dm-none", "true")
    assert_once({"pipe": done.stderr}, "no such machine", "check the name")
    assert len(emulator.creates()) == 1


def test_an_error_while_ssh_connects_comes_once(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo", "--fault", "dm-foo=gateway-refuses"))
    shown = ways_to_fail(user, "dm-foo")
    assert_once(shown, "the gateway localhost:", "a firewall may block this port")
    for way in ("terminal", "pipe"):
        assert shown[way].startswith("dcs-proxy: dm-foo: the gateway localhost:")
        assert ":11: dm-foo: not connected; the reason is shown above" in shown[way]
    # ssh has thrown away what the ProxyCommand wrote to stderr.
    assert "dcs-proxy: " not in shown["ControlPersist"]
    assert ":11: dm-foo: the gateway localhost:" in shown["ControlPersist"]


@pytest.mark.parametrize("stderr", ["2>/dev/null", "2>&-"])
def test_with_stderr_thrown_away_the_disconnect_message_says_it_all(
    start_emulator: Start, user: User, stderr: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    log = user.root / "ssh.log"
    ssh = f"ssh -E '{log}' -F '{user.config}' dm-none true {stderr}"
    assert user.run(["sh", "-c", ssh]).returncode == 255
    text = log.read_text()
    assert_once({"log": text}, "no such machine", "check the name")
    assert ":11: dm-none: no such machine" in text


def test_the_next_ssh_is_told_again(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for count in (1, 2):
        assert "dcs-proxy: dm-none: no such machine" in user.ssh("dm-none", "true").stderr
        assert len(emulator.creates()) == count


def test_prepare_by_hand_tries_again_each_time(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for count in (1, 2):
        done = user.proxy("prepare", "dm-none")
        assert done.returncode == 6 and "no such machine" in done.stderr
        assert len(emulator.creates()) == count


def test_the_bridge_tells_openssh_once(start_emulator: Start, user: User) -> None:
    write_config(user, start_emulator("--machine", "dm-foo"))
    shown = ways_to_fail(user, "dm-none")
    assert_once(shown, "no such machine", "check the name")
    user.settings("wake_secnds = 1\n")
    assert_once(ways_to_fail(user, "dm-foo"), "not a setting", "did you mean")


def test_a_bridge_that_cannot_start_says_so_once(start_emulator: Start, user: User) -> None:
    write_config(user, start_emulator("--machine", "dm-foo"))
    user.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    (user.state / "bridge_ed25519_key").symlink_to("elsewhere")
    shown = ways_to_fail(user, "dm-foo")
    assert_once(shown, "bridge_ed25519_key is not a file of yours", "a new one will be created")


def test_the_bridge_tells_other_clients_through_both(start_emulator: Start, user: User) -> None:
    """A client may show only one of the two, and which one cannot be known."""
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    script = (
        "import sys, subprocess as s; p = s.Popen(sys.argv[1:], stdin=-1, stdout=-1); "
        "p.stdin.write(b'SSH-2.0-mine\\r\\n'); p.stdin.flush(); p.stdout.read(); p.wait()"
    )
    done = user.run([sys.executable, "-c", script, *OURS.split(), "dm-none", "22"])
    assert "dcs-proxy: dm-none: no such machine" in done.stderr


@pytest.mark.parametrize("redirection", ["", "</dev/null", "| cat", "<&-"])
def test_a_proxycommand_typed_by_hand_says_what_to_type(user: User, redirection: str) -> None:
    for words in ("foo 22", "dm-foo 22", "--login me dm-foo 22", "--relay dm-foo 22",
                  "--fdpass dm-foo 22", "--bridge DM-FOO 22"):  # fmt: skip
        with Terminal(user, "sh", "-c", f"{OURS} {words} {redirection}") as terminal:
            terminal.finish()
            assert terminal.shown == (
                "dcs-proxy: this command is for SSH clients, which run it as their ProxyCommand\n"
                "dcs-proxy: hint: to log in, type: ssh dm-foo\n"
            )
    assert not user.state.exists()


def test_dial_typed_by_hand_connects_to_nothing(user: User) -> None:
    with Terminal(user, *OURS.split(), "dial", "localhost", "22") as terminal:
        assert terminal.finish() == 2
        assert "this command is for SSH clients" in terminal.shown
    done = user.proxy("dial", "localhost", "22")
    assert done.returncode == 2 and "write ProxyUseFdpass yes" in done.stderr


def test_prepare_typed_by_hand_says_what_to_type_next(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    with Terminal(user, *OURS.split(), "prepare", "foo") as terminal:
        assert terminal.finish() == 0
        assert terminal.shown == (
            "dcs-proxy: dm-foo: ready; ssh runs this command by itself, so type: ssh dm-foo\n"
        )
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_a_machine_as_the_only_word_is_answered_with_ssh(user: User) -> None:
    done = user.proxy("dm-foo")
    assert (done.returncode, done.stderr) == (2, (
        'dcs-proxy: "dm-foo" is not a command\ndcs-proxy: hint: to log in, type: ssh dm-foo\n'
    ))  # fmt: skip


def test_fdpass_without_a_socket_is_an_error(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping")
    user.use(emulator)
    done = user.ssh("-o", "ProxyUseFdpass=no",
                    "-o", f"ProxyCommand={OURS} --fdpass %h %p", "dm-foo", "true")  # fmt: skip
    assert done.returncode == 255
    assert "--fdpass needs a socket from ssh as stdin and stdout" in done.stderr
