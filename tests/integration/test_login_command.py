"""dcs-proxy login and logout, as a person types them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.secret_service import SecretService
from tests.support.secret_watch import SecretWatch
from tests.support.terminal import Terminal
from tests.support.user import User

Start = Callable[..., Emulator]
PROGRAM = (sys.executable, "-m", "dcs_proxy")


@pytest.fixture
def emulator(start_emulator: Start, user: User) -> Emulator:
    """An emulator whose key the user has nowhere yet."""
    emulator = start_emulator("--machine", "dm-foo")
    # Before config-ssh runs: what ssh starts uses the places that config-ssh has found.
    user.environment["XDG_CONFIG_HOME"] = str(user.root / "config")
    user.use(emulator)
    del user.environment["DEDALUS_API_KEY"]
    return emulator


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines on stderr, but for the one that only a slow keyring brings about."""
    return [line for line in done.stderr.splitlines() if "look for a window that asks" not in line]


def key_file(user: User) -> str:
    return str(user.root / "config" / "dcs-proxy" / "api-key")


def test_login_stores_a_typed_key_unseen_and_ssh_works(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    with SecretWatch(emulator.key, emulator.process.pid) as watch:
        terminal = Terminal(user, *PROGRAM, "login")
        terminal.wait_for(f"dcs-proxy: API key for {emulator.api}: ")
        assert not terminal.echoes()
        terminal.type(f"{emulator.key}\n")
        assert terminal.finish() == 0, terminal.shown
    assert not watch.found
    assert terminal.shown.splitlines() == [
        f"dcs-proxy: API key for {emulator.api}: ",
        f"dcs-proxy: the key is stored in the system keyring (SecretService) for {emulator.api}",
        "dcs-proxy: next, make ssh use dcs-proxy: dcs-proxy config-ssh",
    ]
    assert keyring.entries() == {emulator.api: emulator.key}
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_login_takes_the_key_from_standard_input(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add(emulator.api, "dsk-old", application="Python keyring library")
    done = user.proxy("login", "--stdin", input=f"{emulator.key}\n")
    assert (done.returncode, told(done)) == (0, [])
    assert keyring.entries() == {emulator.api: emulator.key}
    assert done.stdout.endswith("dcs-proxy: next, make ssh use dcs-proxy: dcs-proxy config-ssh\n")
    assert user.proxy("config-ssh").returncode == 0
    done = user.proxy("login", "--stdin", input=f"{emulator.key}\n")
    assert done.stdout.endswith("dcs-proxy: next, see your machines: dcs-proxy list\n")


def test_a_key_that_the_api_refuses_is_not_stored(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    done = user.proxy("login", "--stdin", input="dsk-wrong\n")
    assert done.returncode == 4
    assert "the API does not accept the key from standard input" in done.stderr
    assert "hint: copy the key again" in done.stderr
    assert not keyring.entries()
    assert "dsk-wrong" not in done.stdout + done.stderr + user.log()


def test_a_key_is_not_stored_if_the_api_cannot_be_asked(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    done = user.proxy("login", "--stdin", input=emulator.key)
    assert (done.returncode, keyring.entries()) == (7, {})


def test_an_api_without_a_list_is_told_and_the_key_stored(
    start_emulator: Start, keyring: SecretService, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--post-only")
    user.environment["DEDALUS_BASE_URL"] = emulator.api
    done = user.proxy("login", "--stdin", input=emulator.key)
    assert done.returncode == 0
    assert "the API has no list of machines to check the key with" in done.stderr
    assert keyring.entries() == {emulator.api: emulator.key}


@pytest.mark.parametrize("typed", ["", "\n", "two words\n", "dsk-\u00fc\n", "k" * 5000])
def test_what_is_no_key_is_refused_without_being_shown(
    emulator: Emulator, keyring: SecretService, user: User, typed: str
) -> None:
    done = user.proxy("login", "--stdin", input=typed)
    assert done.returncode == 4
    why = "must be printable ASCII without spaces" if typed.strip() else "is empty"
    assert f"the API key from standard input {why}" in done.stderr
    assert typed.strip() not in done.stderr or not typed.strip()


def test_login_without_a_terminal_names_stdin(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    done = user.run(["setsid", "--wait", *PROGRAM, "login"])
    assert done.returncode == 2
    assert "there is no terminal to type the key on" in done.stderr
    assert "hint: pass it on standard input: dcs-proxy login --stdin" in done.stderr


def test_stdin_is_not_read_from_a_terminal(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    terminal = Terminal(user, *PROGRAM, "login", "--stdin")
    assert terminal.finish() == 2
    assert "standard input is a terminal, which would show the key" in terminal.shown


def test_ctrl_c_at_the_prompt_ends_with_one_line(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    terminal = Terminal(user, *PROGRAM, "login")
    terminal.wait_for("API key for")
    terminal.type("dsk-half\x03")
    assert terminal.finish() == 130
    assert terminal.shown.splitlines()[1:] == ["dcs-proxy: interrupted"]


def test_login_without_a_keyring_offers_the_file(emulator: Emulator, user: User) -> None:
    terminal = Terminal(user, *PROGRAM, "login")
    assert terminal.finish() == 4
    assert "API key for" not in terminal.shown
    assert "dcs-proxy: this computer has no usable system keyring (" in terminal.shown
    assert "store the key in a file: dcs-proxy login --file" in terminal.shown


def test_the_file_is_written_after_a_yes_only(emulator: Emulator, user: User) -> None:
    path = user.root / "config" / "dcs-proxy" / "api-key"
    question = f"dcs-proxy: store the key in plain text in {path}? [y/N] "
    terminal = Terminal(user, *PROGRAM, "login", "--file")
    terminal.wait_for(question)
    terminal.type("\n")
    assert terminal.finish() == 4
    assert "dcs-proxy: no key was stored" in terminal.shown
    assert not path.exists()
    terminal = Terminal(user, *PROGRAM, "login", "--file")
    terminal.wait_for(question)
    terminal.type("y\n")
    terminal.wait_for("API key for")
    terminal.type(f"{emulator.key}\n")
    assert terminal.finish() == 0, terminal.shown
    assert f"dcs-proxy: the key is stored in {path} (mode 0600)" in terminal.shown
    assert emulator.key not in terminal.shown
    assert (path.stat().st_mode & 0o777, path.read_text()) == (0o600, f"{emulator.key}\n")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_without_a_terminal_the_file_needs_a_yes_on_the_command_line(
    emulator: Emulator, user: User
) -> None:
    command = ["setsid", "--wait", *PROGRAM, "login", "--stdin", "--file"]
    done = user.run(command, input=emulator.key)
    assert done.returncode == 2
    assert "hint: add --yes to store it without asking" in done.stderr
    assert user.run([*command, "--yes"], input=emulator.key).returncode == 0
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_what_overrides_the_stored_key_is_told(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    assert user.proxy("login", "--stdin", "--file", "--yes", input=emulator.key).stderr == ""
    user.environment["DEDALUS_X_API_KEY"] = "dsk-other"
    done = user.proxy("login", "--stdin", input=emulator.key)
    assert told(done) == [
        "dcs-proxy: DEDALUS_X_API_KEY is set and overrides the stored key",
        "dcs-proxy: hint: unset DEDALUS_X_API_KEY",
        f"dcs-proxy: the key file {key_file(user)} overrides the stored key",
        f"dcs-proxy: hint: rm '{key_file(user)}'",
    ]
    assert "dsk-other" not in done.stdout


def test_logout_removes_every_entry_of_this_api_and_no_other(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    for url, application in ((emulator.api, "a"), (emulator.api, "b"), ("https://b.example", "")):
        keyring.add(url, "dsk-a", application=application)
    done = user.proxy("logout")
    assert (done.returncode, told(done)) == (0, [])
    assert done.stdout == (
        f"dcs-proxy: the key for {emulator.api} was removed from the system keyring\n"
    )
    assert keyring.entries() == {"https://b.example": "dsk-a"}
    done = user.proxy("logout")
    assert done.stdout == f"dcs-proxy: the key for {emulator.api} was not in the system keyring\n"


def test_logout_says_what_still_gives_a_key(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    user.proxy("login", "--stdin", "--file", "--yes", input=emulator.key)
    user.environment["DEDALUS_API_KEY"] = emulator.key
    done = user.proxy("logout")
    assert told(done) == [
        "dcs-proxy: DEDALUS_API_KEY still holds a key",
        f"dcs-proxy: {key_file(user)} still holds a key",
    ]
    done = user.proxy("logout", "--file")
    assert f"dcs-proxy: {key_file(user)} removed\n" in done.stdout
    assert told(done) == ["dcs-proxy: DEDALUS_API_KEY still holds a key"]
    assert f"dcs-proxy: {key_file(user)} did not exist\n" in user.proxy("logout", "--file").stdout


def test_logout_works_where_there_is_no_keyring(emulator: Emulator, user: User) -> None:
    user.proxy("login", "--stdin", "--file", "--yes", input=emulator.key)
    done = user.proxy("logout", "--file")
    assert done.returncode == 0
    assert "no usable system keyring" in done.stderr
    assert user.proxy("prepare", "dm-foo").returncode == 4


def test_a_locked_keyring_is_no_successful_logout(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add(emulator.api, emulator.key)
    keyring.lock()
    done = user.proxy("logout")
    assert done.returncode == 4
    assert "the system keyring is locked" in done.stderr


def test_a_key_file_that_cannot_be_written_is_told(emulator: Emulator, user: User) -> None:
    (user.root / "config").write_text("in the way")
    done = user.proxy("login", "--stdin", "--file", "--yes", input=emulator.key)
    assert done.returncode == 4
    assert f"{user.root}/config/dcs-proxy cannot be written: Not a directory" in done.stderr
    assert "or set key_file in the config file" in done.stderr
