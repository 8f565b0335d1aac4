"""dcs-proxy uninstall: nothing of ours is left, nothing else is touched, and both are said."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.processes import processes
from tests.support.secret_service import SecretService
from tests.support.terminal import Terminal
from tests.support.user import User

Start = Callable[..., Emulator]
NOW = "dcs-proxy: now remove the program itself, for example: pipx uninstall dcs-proxy"
OWN = "Host other\n    Port 2222\n"


@pytest.fixture
def settled(start_emulator: Start, user: User) -> tuple[Emulator, User]:
    """A user with the default places, two ssh configs, a key file, and two sessions."""
    for variable in ("DCS_PROXY_HOME", "DCS_PROXY_CONFIG"):
        del user.environment[variable]
    user.state = user.home / ".ssh" / "dcs-proxy"
    user.config = user.home / ".ssh" / "config"
    (user.root / "config.toml").unlink()
    emulator = start_emulator("--machine", "dm-foo", "--machine", "dm-bar")
    user.config.parent.mkdir(mode=0o700)
    user.config.write_text(OWN)
    user.use(emulator)
    for arguments in (
        ["config-ssh"],
        ["config-ssh", "--ssh-config", str(user.root / "second")],
        ["alias", "dm-web", "dm-foo"],
    ):
        assert user.proxy(*arguments).returncode == 0
    done = user.proxy("login", "--file", "--yes", "--stdin", input=emulator.key)
    assert done.returncode == 0, done.stderr
    for name in ("dm-web", "dm-bar"):
        assert user.ssh(name, "true").returncode == 0
    return emulator, user


def agents_of(user: User) -> list[int]:
    """Return every process that has a socket of the user's among its arguments."""
    place = re.compile(re.escape(str(user.root)) + r"/.*\.sock\Z")
    return [p for p, (_, words) in processes().items() if any(map(place.match, words))]


def files_of(user: User) -> list[str]:
    found = [path.relative_to(user.home) for path in user.home.rglob("*") if not path.is_dir()]
    return sorted(map(str, found))


def test_everything_goes_and_is_said(settled: tuple[Emulator, User]) -> None:
    emulator, user = settled
    assert agents_of(user)
    done = user.proxy("uninstall", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r"session \S+ closed", "session ID closed", done.stdout).splitlines()
    assert sorted(shown) == sorted([
        f"dcs-proxy: {user.config}: block removed",
        f"dcs-proxy: {user.root}/second: block removed",
        "dm-foo: session ID closed",
        "dm-bar: session ID closed",
        "dcs-proxy: 1 private agent ended",
        f"dcs-proxy: {user.state}: removed",
        f"dcs-proxy: {user.home}/.config/dcs-proxy/config.toml: removed",
        f"dcs-proxy: {user.home}/.config/dcs-proxy/api-key: removed",
        NOW,
    ])  # fmt: skip
    assert set(emulator.control("GET", "state")["sessions"].values()) == {"closed"}
    assert agents_of(user) == []
    assert files_of(user) == [".ssh/config"]
    assert user.config.read_text() == OWN
    assert not (user.root / "second").exists()
    assert not (user.home / ".config" / "dcs-proxy").exists()
    again = user.proxy("uninstall", "--yes")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines() == [f"dcs-proxy: {user.state}: does not exist", NOW]
    assert not user.state.exists()


def test_without_an_answer_the_key_and_the_settings_stay(settled: tuple[Emulator, User]) -> None:
    _, user = settled
    done = user.proxy("uninstall", start_new_session=True)
    assert (done.returncode, done.stderr) == (0, "")
    config = f"{user.home}/.config/dcs-proxy"
    assert (
        f"dcs-proxy: left: {config}/config.toml, {config}/api-key"
        " (to remove it: dcs-proxy uninstall --yes)\n" in done.stdout
    )
    kept = [".config/dcs-proxy/api-key", ".config/dcs-proxy/config.toml", ".ssh/config"]
    assert files_of(user) == kept


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("n", False)])
def test_the_key_in_the_keyring_goes_after_asking(
    start_emulator: Start, keyring: SecretService, user: User, answer: str, goes: bool
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    del user.environment["DEDALUS_API_KEY"]
    keyring.add(emulator.api, emulator.key, application="Python keyring library")
    terminal = Terminal(user, sys.executable, "-m", "dcs_proxy", "uninstall")
    terminal.wait_for("remove the API key in the system keyring too? [y/N] ")
    terminal.type(f"{answer}\n")
    assert terminal.finish() == 0, terminal.shown
    assert (keyring.entries() == {}) is goes
    said = "the API key was removed" if goes else "left: the API key in the system keyring"
    assert said in terminal.shown


def test_an_api_that_is_down_does_not_stop_it(settled: tuple[Emulator, User]) -> None:
    emulator, user = settled
    emulator.stop()
    done = user.proxy("uninstall", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 sessions were not closed at the API and will expire (" in done.stdout, done.stdout
    assert (agents_of(user), files_of(user)) == ([], [".ssh/config"])


def test_a_block_that_has_to_stay_stops_it_before_anything_goes(
    settled: tuple[Emulator, User],
) -> None:
    _, user = settled
    text = user.config.read_text()
    user.config.write_text(text.replace("# <<< dcs-proxy top", "    # mine\n# <<< dcs-proxy top"))
    done = user.proxy("uninstall", "--yes")
    assert done.returncode == 3 and "was edited by hand" in done.stderr
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_what_is_not_ours_stays_and_is_named(settled: tuple[Emulator, User]) -> None:
    _, user = settled
    mine = [user.state / "notes", user.state / "sessions" / "mine.txt", user.state / "hosts" / "d"]
    for path in mine[:2]:
        path.write_text("mine")
    mine[2].mkdir()
    settings = user.home / ".config" / "Code" / "User" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"remote.SSH.remotePlatform": {"dm-*": "linux"}}')
    done = user.proxy("uninstall", "--yes")
    assert done.returncode == 0
    assert f"dcs-proxy: {user.state}: the files of dcs-proxy removed\n" in done.stdout
    for path in mine:
        assert path.exists() and str(path) in done.stdout
    assert f'dcs-proxy: left: the settings for "dm-*" in {settings}\n' in done.stdout


def test_a_state_directory_that_is_also_a_home_survives(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    home = user.root / "shared"
    (home / "sessions").mkdir(parents=True)
    (home / "sessions" / "thesis.json").write_text("{}")
    (home / "log.txt").write_text("mine")
    home.chmod(0o700)
    user.state = home
    user.environment["DCS_PROXY_HOME"] = str(home)
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    assert user.proxy("uninstall").returncode == 0
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    assert left == ["log.txt", "sessions", "sessions/thesis.json"]


def test_the_users_known_hosts_survive_a_state_directory_in_ssh(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    directory = user.home / ".ssh"
    directory.mkdir(mode=0o700)
    known = directory / "known_hosts"
    known.write_text("github.com ssh-ed25519 AAAA\n")
    user.environment["DCS_PROXY_HOME"] = str(directory)
    done = user.proxy("config-ssh")
    assert done.returncode == 14 and f"{known} lists other hosts" in done.stderr
    assert not (directory / "config").exists()
    done = user.proxy("uninstall", "--yes")
    assert (
        done.returncode == 0
        and f"left, because dcs-proxy did not create them: {known}" in done.stdout
    )
    assert os.listdir(directory) == ["known_hosts"]
    assert known.read_text() == "github.com ssh-ed25519 AAAA\n"


def test_short_paths_for_sockets_go_too(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.state = user.root / ("d" * 90)
    runtime = user.root / "run"
    runtime.mkdir(mode=0o700)
    user.environment |= {"DCS_PROXY_HOME": str(user.state), "XDG_RUNTIME_DIR": str(runtime)}
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    assert os.listdir(runtime) == ["dcs-proxy"]
    assert user.proxy("uninstall").returncode == 0
    assert (os.listdir(runtime), user.state.exists()) == ([], False)


def test_a_broken_config_file_does_not_stop_it(settled: tuple[Emulator, User]) -> None:
    _, user = settled
    (user.home / ".config" / "dcs-proxy" / "config.toml").write_text("wake = 7\n")
    done = user.proxy("uninstall", "--yes")
    assert done.returncode == 0 and "wake" in done.stderr
    assert (agents_of(user), files_of(user)) == ([], [".ssh/config"])
