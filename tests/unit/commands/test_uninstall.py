from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.app import ApiFactory, Options
from dcs_proxy.commands import uninstall
from dcs_proxy.errors import (
    AgentUnavailable,
    ApiUnavailable,
    CredentialsError,
    DcsError,
    KeyringUnusable,
    ReaderGone,
    StateError,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.fake_agent import Store, fake_agent, framed
from tests.support.fake_api import Answer, fake_api
from tests.unit.commands.conftest import Commands, Done, Keyring
from tests.unit.commands.test_list import END, TOP


class Agents(PrivateAgents):
    """Two agents, of which the second does not end."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def paths(self) -> list[str]:
        return ["/a/agent-1.sock", "/a/agent-2.sock"]

    def end(self, **options: Any) -> list[str]:
        self.calls.append(options)
        return ["/a/agent-2.sock"]


def test_agents_are_ended_whether_or_not_they_hold_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    agents = Agents()
    uninstall._end_agents(agents)
    assert agents.calls == [{"unless_used": False, "timeout_s": 30}]
    assert capsys.readouterr().out.splitlines() == [
        "dcs-proxy: 1 private agents ended",
        "dcs-proxy: left: the agents at /a/agent-2.sock, which did not end",
    ]


@pytest.mark.parametrize("agreed", [True, False])
def test_what_the_user_has_typed_in_goes_only_with_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(uninstall, "confirm", lambda question: False)
    directory = tmp_path / "dcs-proxy"
    directory.mkdir()
    for name in ("config.toml", "api-key"):
        (directory / name).write_text("content")
        os.link(directory / name, tmp_path / f"{name}.other")
    uninstall._remove_choices(None, agreed=agreed)
    assert directory.exists() is not agreed
    # The key must not stay anywhere (api/credentials.py); other files keep their other names.
    assert (tmp_path / "api-key.other").read_text() == ("" if agreed else "content")
    assert (tmp_path / "config.toml.other").read_text() == "content"


class Sessions:
    """Stands for the state directory: two sessions, whose records cannot be read."""

    def machines(self) -> list[MachineName]:
        return [MachineName("dm-a"), MachineName("dm-b")]

    def load(self, name: MachineName) -> None:
        return None


def test_a_key_that_the_api_refuses_is_said_once_for_all_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEDALUS_API_KEY", "dsk-old")
    monkeypatch.delenv("DEDALUS_X_API_KEY", raising=False)
    sessions: Any = Sessions()
    with fake_api() as fake:
        fake.answers = [Answer(401)]
        settings = Settings(base_url=fake.url)
        uninstall._close_sessions(sessions, Agents(), settings, Options(str(tmp_path)))
    assert len(fake.asked) == 1
    assert capsys.readouterr() == (
        "dcs-proxy: 2 sessions were not closed at the API and will expire "
        "(the API does not accept the key from DEDALUS_API_KEY: HTTP 401)\n",
        "",
    )


LAST = "dcs-proxy: now remove the program itself, for example: pipx uninstall dcs-proxy"


def lines(done: Done) -> list[str]:
    """What uninstall says; its last line is always the same."""
    *found, last = done.out.splitlines()
    assert last == LAST
    return found


def test_nothing_to_remove_is_said(commands: Commands, keyring: Keyring) -> None:
    done = commands("uninstall")
    assert (done.code, done.err) == (0, "")
    assert lines(done) == [f"dcs-proxy: {commands.home}/.ssh/dcs-proxy: does not exist"]


def test_blocks_go_from_every_ssh_config_that_has_one(commands: Commands, keyring: Keyring) -> None:
    default, noted, named, other = (commands.home / name for name in
                                    (".ssh/config", "noted", "named", "other"))  # fmt: skip
    for path in (default, noted, named):
        path.write_text("Host own\n")
        path.write_bytes(config_file.install(path.read_bytes(), TOP, END))
    other.write_text("Host own\n")
    for path in (noted, default, commands.home / "gone"):
        commands.state.add_ssh_config(str(path))
    done = commands("uninstall", "--ssh-config", str(named), "--ssh-config", str(other))
    assert lines(done) == [
        f"dcs-proxy: {default}: block removed",
        f"dcs-proxy: {named}: block removed",
        f"dcs-proxy: {other}: there was no block",
        f"dcs-proxy: {noted}: block removed",
        f"dcs-proxy: {commands.home}/.ssh/dcs-proxy: removed",
    ]
    assert {path.read_text() for path in (default, noted, named, other)} == {"Host own\n"}


def test_a_block_that_cannot_be_removed_keeps_everything_else(
    commands: Commands, keyring: Keyring
) -> None:
    path = commands.home / ".ssh" / "config"
    path.write_bytes(config_file.install(b"", TOP, END)[:-20])
    commands.save("dm-foo")
    assert commands("uninstall", "--yes").code == 3
    assert commands.state.machines() == ["dm-foo"]
    assert (keyring.calls, commands.api.asked) == ([], [])


def test_sessions_are_closed_and_files_that_are_not_ours_stay(
    commands: Commands, keyring: Keyring
) -> None:
    commands.api.answers = [Answer(200, {"items": []}), Answer(204)]
    commands.save("dm-foo")
    mine = Path(commands.state.file("notes"))
    mine.write_text("mine")
    done = commands("uninstall")
    assert lines(done) == [
        "dm-foo: session wssh-dm-foo closed",
        f"dcs-proxy: {commands.state.path}: the files of dcs-proxy removed",
        f"dcs-proxy: left, because dcs-proxy did not create them: {mine}",
    ]
    assert [asked.method for asked in commands.api.asked] == ["GET", "DELETE"]
    assert [path.name for path in Path(commands.state.path).iterdir() if path.is_file()] == [
        "notes"
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_an_api_that_does_not_answer_is_left_alone_and_identities_go(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def fail(self: ApiFactory, deadline: Deadline) -> None:
        assert deadline.seconds == 5
        self.notice("waiting")
        raise ApiUnavailable("the API is down", hint="wait")

    monkeypatch.setattr(ApiFactory, "open", fail)
    commands.configure('agent = "user"\n')
    with fake_agent() as agent:
        agent.answer = store = Store()
        for number in range(count):
            record = commands.save(f"dm-{number}", agent=agent.path)
        store.held = {record.identity: b"", b"other": b""}
        done = commands("uninstall")
    noun = "1 session was" if count == 1 else "2 sessions were"
    assert lines(done) == [
        f"dcs-proxy: {noun} not closed at the API and will expire (the API is down)",
        f"dcs-proxy: {commands.home}/.ssh/dcs-proxy: removed",
        f"dcs-proxy: left: {commands.home}/.config/dcs-proxy/config.toml"
        " (to remove it: dcs-proxy uninstall --yes)",
    ]
    assert (done.code, done.err, set(store.held)) == (0, "", {b"other"})


def test_an_agent_that_has_exited_is_no_reason_to_stop(
    commands: Commands, keyring: Keyring
) -> None:
    commands.api.answers = [Answer(401)]
    commands.save("dm-foo", agent="/nowhere/agent.sock")
    assert commands("uninstall").code == 0
    assert not Path(commands.home, ".ssh", "dcs-proxy").exists()


def test_settings_that_cannot_be_read_do_not_stop_it(commands: Commands, keyring: Keyring) -> None:
    commands.configure("no = setting = at all")
    commands.save("dm-foo")
    done = commands("uninstall", "--yes")
    assert (done.code, commands.api.asked, keyring.calls) == (0, [], [])
    assert done.err.startswith("dcs-proxy: ")
    assert not (commands.home / ".config" / "dcs-proxy").exists()
    assert not (commands.home / ".ssh" / "dcs-proxy").exists()


def test_files_that_cannot_be_removed_are_a_failure_and_the_rest_goes(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: str) -> list[str]:
        raise StateError(f"cannot remove {directory}", hint="see why")

    commands.save("dm-foo")
    commands.configure("")
    monkeypatch.setattr(uninstall, "remove_state", fail)
    done = commands("uninstall", "--yes")
    assert done.code == StateError.exit_code
    assert done.err.splitlines() == [
        f"dcs-proxy: cannot remove {commands.state.path}", "dcs-proxy: hint: see why"
    ]  # fmt: skip
    assert not (commands.home / ".config" / "dcs-proxy").exists()


@pytest.mark.parametrize(
    ("words", "answer", "question", "goes"),
    [
        (["--yes"], None, False, True),
        ([], True, True, True),
        ([], False, True, False),
        ([], None, True, False),
    ],
)
def test_the_key_and_the_settings_go_if_the_user_agrees(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch,
    words: list[str], answer: bool | None, question: bool, goes: bool,
) -> None:  # fmt: skip
    questions: list[str] = []
    monkeypatch.setattr(uninstall, "confirm", lambda text: questions.append(text) or answer)
    keyring.key = "dsk-key"
    commands.configure("")
    directory = commands.home / ".config" / "dcs-proxy"
    (directory / "api-key").write_text("dsk-file")
    files = [f"{directory}/config.toml", f"{directory}/api-key"]
    names = ["the API key in the system keyring", *files]
    found = lines(commands("uninstall", *words))[1:]
    assert questions == ([f"remove {', '.join(names)} too?"] if question else [])
    if goes:
        assert found == ["dcs-proxy: the API key was removed from the system keyring",
                         *(f"dcs-proxy: {name}: removed" for name in files)]  # fmt: skip
    else:
        hint = " (to remove it: dcs-proxy uninstall --yes)" if answer is None else ""
        assert found == [f"dcs-proxy: left: {', '.join(names)}{hint}"]
    assert (keyring.key is None, not directory.exists()) == (goes, goes)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (KeyringUnusable("no keyring", hint="x"), []),
        (CredentialsError("it is locked", hint="x"),
         ["dcs-proxy: left: the API key in the system keyring, if there is one: it is locked"]),
    ],
)  # fmt: skip
def test_a_keyring_that_may_hold_the_key_is_reported(
    commands: Commands, keyring: Keyring, problem: CredentialsError, said: list[str]
) -> None:
    keyring.problem = problem
    done = commands("uninstall", "--yes")
    assert (done.code, lines(done)[1:]) == (0, said)


def test_what_the_user_has_put_elsewhere_is_reported(commands: Commands, keyring: Keyring) -> None:
    home = commands.home
    (home / "own.toml").write_text(f'key_file = "{home}/key"\n')
    (home / "key").write_text("dsk-file")
    (home / "key").chmod(0o600)
    editor = home / ".config" / "Code" / "User" / "settings.json"
    others = [".local/share/bash-completion/completions/dcs-proxy", ".zfunc/_dcs-proxy",
              ".config/fish/completions/dcs-proxy.fish"]  # fmt: skip
    for path in (editor, *(home / each for each in others)):
        path.parent.mkdir(parents=True)
        path.write_text('"remote.SSH.remotePlatform": {"dm-*": "linux"}')
    done = commands("--config", str(home / "own.toml"), "uninstall")
    assert lines(done)[1:] == [
        *(f"dcs-proxy: left: {home}/{each}" for each in ("own.toml", "key", *others)),
        f'dcs-proxy: left: the settings for "dm-*" in {editor}',
    ]


def test_sockets_that_are_elsewhere_are_removed_too(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = commands.home / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    place = commands.home / ("long" * 20)
    agents = PrivateAgents(str(place))
    assert agents.is_outside(str(place))
    place.mkdir(mode=0o700)
    assert commands("--home", str(place), "uninstall").code == 0
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("error", [ReaderGone("closed"), DcsError("full")])
def test_output_that_cannot_be_written_stops_nothing(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, error: DcsError
) -> None:
    def put(*_: str) -> None:
        raise error

    for module in ("dcs_proxy.console.stdout", "dcs_proxy.console.live_table"):
        monkeypatch.setattr(f"{module}.put", put)
    commands.api.answers = [Answer(200, {"items": []}), Answer(204)]
    keyring.key = "dsk-key"
    for name in ("dm-a", "dm-b"):
        commands.save(name)
    done = commands("uninstall", "--yes")
    assert done.code == 0
    assert ("dcs-proxy: now remove the program itself" in done.err) is (error.message == "full")
    assert [asked.method for asked in commands.api.asked] == ["GET", "DELETE", "DELETE"]
    assert (keyring.key, Path(commands.home, ".ssh", "dcs-proxy").exists()) == (None, False)


def test_agents_that_cannot_be_ended_now_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    class Busy(Agents):
        def end(self, **options: Any) -> list[str]:
            raise AgentUnavailable("another dcs-proxy uses them", hint="wait")

    uninstall._end_agents(Busy())
    assert capsys.readouterr().err.splitlines() == [
        "dcs-proxy: another dcs-proxy uses them", "dcs-proxy: hint: wait"
    ]  # fmt: skip


def test_each_file_is_edited_once_however_often_it_is_named(
    commands: Commands, keyring: Keyring
) -> None:
    path = commands.home / "my-config"
    path.write_bytes(config_file.install(b"", TOP, END))
    commands.state.add_ssh_config(str(path))
    words = ["--ssh-config", "~/my-config", "--ssh-config", str(path)]
    assert lines(commands("uninstall", *words))[:1] == [f"dcs-proxy: {path}: block removed"]
    assert lines(commands("uninstall", *words))[:1] == [f"dcs-proxy: {path}: there was no block"]


def test_agents_are_ended_and_without_sessions_no_api_is_asked(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(uninstall, "_end_agents", lambda agents: ended.append(agents.place))
    place = f"{commands.state.path}/sockets"
    assert commands("uninstall").code == 0
    assert (ended, commands.api.asked) == ([place], [])


@pytest.mark.parametrize("reply", [b"\x05", b""])
def test_an_agent_in_trouble_is_no_reason_to_stop(
    commands: Commands, keyring: Keyring, reply: bytes
) -> None:
    commands.api.answers = [Answer(401)]
    with fake_agent() as agent:
        agent.answer = framed(reply)
        commands.save("dm-foo", agent=agent.path)
        assert commands("uninstall").code == 0
        assert agent.requests != []
    assert not Path(commands.home, ".ssh", "dcs-proxy").exists()
