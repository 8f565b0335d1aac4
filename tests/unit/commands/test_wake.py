from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import ApiFactory, Options
from dcs_proxy.commands import wake
from dcs_proxy.commands._batch import Batch
from dcs_proxy.commands.wake import _interrupted
from dcs_proxy.errors import MachineNotFound
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.lookup import Lookup
from dcs_proxy.session.records import NEVER, Attempt, ReadySession, Record
from tests.unit.commands.conftest import Commands, Done
from tests.unit.commands.test_machines import write_block

# Longer than a whole run of the tests takes, because this is when they are collected.
LIFE_S = 86400
END = time.time() + LIFE_S
ATTEMPT = Attempt("k", "ab" * 32, "/agent.sock", END, "account", "wssh-1")
READY = ReadySession("ssh.example", 22, "u", "a", "", True, END, END - 900, END - 900)
WAKING = Record(ATTEMPT)


@pytest.mark.parametrize(
    ("record", "is_waking"),
    [
        (WAKING, True),
        (Record(ATTEMPT, replace(READY, proved_at=NEVER)), True),
        (Record(ATTEMPT, READY), False),
        (Record(replace(ATTEMPT, session_id="")), False),
        (Record(replace(ATTEMPT, key_ends_at=END - LIFE_S - 1)), False),
        (Record(ATTEMPT, replace(READY, proved_at=NEVER, ends_at=END - LIFE_S - 1)), False),
        (None, False),
    ],
)
def test_a_machine_continues_to_wake_if_the_api_has_been_asked(
    tmp_path: Path, record: Record | None, is_waking: bool
) -> None:
    state, name = StateDirectory(str(tmp_path)), MachineName("dm-foo")
    if record is not None:
        state.save(name, record)
    expected = "1 still waking (the next ssh resumes it)" if is_waking else "1 not started"
    assert _interrupted(state, [name]) == f"interrupted: {expected}"


def test_what_an_interrupt_leaves_is_counted(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    names = [MachineName(f"dm-{number}") for number in range(3)]
    for name in names[:2]:
        state.save(name, WAKING)
    assert _interrupted(state, names) == (
        "interrupted: 2 still waking (the next ssh resumes them), 1 not started"
    )
    assert _interrupted(state, []) == "interrupted"


def test_a_wake_that_the_user_has_asked_for_is_forbidden_by_no_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(wake, "open_context", lambda *_, **more: opened.append(more))
    settings = Settings(wake=(("*", "never"),), reuse_seconds=900, wake_seconds=7)
    credentials = Credentials("dsk-key", None, "")
    name = MachineName("dm-foo")
    waker = wake._Waker(Options(), settings, credentials, {name: "foo"})
    waker._open_context(print, lambda: False)
    (found,) = opened
    used = found["settings"]
    assert used.wake_policy(name) == "always"
    assert (used.reuse_seconds, used.wake_seconds) == (0, 7)
    assert found["credentials"] is credentials
    assert isinstance(found["progress"], wake._BatchProgress)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was published for ssh: hosts, machine, record, and the other arguments by name."""
    calls: list[tuple[Any, ...]] = []

    def resolve(typed: str, context: Context, lookup: Lookup) -> tuple[MachineName, Record]:
        if typed == "dm-bad":
            raise MachineNotFound("no such machine", hint="see: dcs-proxy list")
        context.notice(f"{typed}: waking up, at most 7 s")
        return context.settings.machine(typed), Record(ATTEMPT, READY)

    def publish(hosts: Any, name: str, record: Any, context: Any, fast: Any, **more: Any) -> None:
        assert isinstance(fast._state, StateDirectory) and isinstance(fast._settings, Settings)
        calls.append((hosts, name, record, fast._config_path, more))

    monkeypatch.setattr(wake, "resolve_typed", resolve)
    monkeypatch.setattr(wake, "publish_session", publish)
    monkeypatch.setattr(wake, "first_address", lambda record, _: record.ready and "192.0.2.1")
    return calls


def test_the_next_ssh_is_warm_under_every_name_of_the_machine(
    commands: Commands, published: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.configure('[aliases]\ndm-web = "dm-foo"\ndm-www = "dm-foo"\n')
    commands.has("dm-foo", "dm-bar")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/my/agent")
    done = commands("wake", "Web")
    assert (done.code, done.err) == (0, "dcs-proxy: Web: waking up, at most 7 s\n")
    assert re.fullmatch(r"dm-foo: ready after \d\.\d s\n", done.out)
    (hosts, name, record, _, more) = published[0]
    assert hosts == ["dm-foo", "dm-web", "dm-www"]
    assert (name, record) == ("dm-foo", Record(ATTEMPT, READY))
    assert more == {"user_agent": "/my/agent", "address": "192.0.2.1"}
    assert len(published) == 1


def test_all_are_those_of_the_account_that_exist(
    commands: Commands, published: list[tuple[Any, ...]]
) -> None:
    commands.has("dm-foo", {"machine_id": "dm-old", "phase": "destroyed"}, "dm-ci-1", "Web_1")
    assert commands("wake", "--all").code == 0
    assert sorted(name for _, name, *_ in published) == ["dm-ci-1", "dm-foo"]
    assert commands("wake", "dm-ci-*", "dm-bad").code == MachineNotFound.exit_code
    assert commands.api.asked[0].path == "/v1/machines?limit=100"


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ([], Done(0, "", "dcs-proxy: the account has no machines\n")),
        ([{"machine_id": "dm-old", "phase": "destroyed"}],
         Done(0, "", "dcs-proxy: the account has no machines\n")),
        (["Web_1"], Done(6, "", "dcs-proxy: ssh cannot name any of the account's machines\n"
                                "dcs-proxy: hint: dcs-proxy list says why\n")),
    ],
)  # fmt: skip
def test_an_account_without_usable_machines_is_told(
    commands: Commands, published: list[Any], machines: list[Any], expected: Done
) -> None:
    commands.has(*machines)
    assert (commands("wake", "--all"), published) == (expected, [])


def test_a_failure_names_its_machine_and_the_others_are_woken(
    commands: Commands, published: list[tuple[Any, ...]]
) -> None:
    commands.has("dm-foo", "dm-bad")
    done = commands("wake", "dm-bad", "dm-foo")
    assert (done.code, [name for _, name, *_ in published]) == (6, ["dm-foo"])
    assert set(done.err.splitlines()) == {
        "dcs-proxy: dm-bad: no such machine",
        "dcs-proxy: hint: see: dcs-proxy list",
        "dcs-proxy: dm-foo: waking up, at most 7 s",
    }


def test_machines_that_the_ssh_config_lacks_are_told_after_the_wake(
    commands: Commands, published: list[Any]
) -> None:
    commands.has("dm-foo")
    write_block(commands.home / ".ssh" / "config", [])
    assert commands("wake", "--all").err.splitlines()[-1] == (
        "dcs-proxy: 1 machine is not listed in your ssh config: run dcs-proxy config-ssh"
    )


def test_included_files_that_ssh_could_not_read_are_removed(
    commands: Commands, published: list[Any]
) -> None:
    commands.has("dm-foo")
    broken = Path(commands.state.file("hosts", "dm-bar.conf"))
    broken.write_text("Host")
    assert commands("wake", "dm-foo").code == 0
    assert not broken.exists()


def test_the_key_is_read_once_and_within_the_time_for_a_wake(
    commands: Commands, published: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def find(self: ApiFactory, deadline: Deadline) -> Credentials:
        limits.append(deadline.seconds)
        return Credentials("dsk-key", None, "")

    monkeypatch.setattr(ApiFactory, "find_credentials", find)
    commands.configure("wake_seconds = 7\n")
    assert commands("wake", "dm-1", "dm-2", "dm-3").code == 0
    assert limits == [7]


def test_an_interrupt_tells_what_goes_on_without_us(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Batch) -> int:
        self.outcomes[MachineName("dm-1")] = "ready"
        raise KeyboardInterrupt

    monkeypatch.setattr(Batch, "run", interrupt)
    assert commands("wake", "dm-1", "dm-2", "dm-3") == Done(
        130, "", "dcs-proxy: interrupted: 2 not started\n"
    )


def test_what_ssh_will_run_names_the_config_file_that_wake_used(
    commands: Commands, published: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = commands.home / "own.toml"
    own.touch()
    monkeypatch.setenv("DCS_PROXY_CONFIG", str(own))
    assert commands("wake", "dm-1").code == 0
    assert published[0][3] == str(own)


def test_a_short_name_is_looked_up_in_the_accounts_list(
    commands: Commands, published: list[tuple[Any, ...]]
) -> None:
    uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"
    commands.has(uuid)
    assert commands("wake", "c0de").out.startswith(f"dm-{uuid}: ready after ")
    (hosts, *_, more) = published[0]
    assert "dm-c0de" in hosts
    assert more["user_agent"] == ""


def test_the_config_file_is_named_as_ssh_names_it(
    commands: Commands, published: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(commands.home)
    (commands.home / "own.toml").touch()
    assert commands("--config", "own.toml", "wake", "dm-1").code == 0
    assert published[0][3] == str(commands.home / "own.toml")


def test_the_name_that_was_typed_is_warm_even_if_it_is_not_known(
    commands: Commands, published: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "resolve_typed", lambda *_: (MachineName("dm-foo"), Record(ATTEMPT)))
    assert commands("wake", "dm-new").code == 0
    assert published[0][0] == ["dm-foo", "dm-new"]


def test_files_are_written_for_one_machine_at_a_time(
    commands: Commands, published: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most = 0, 0

    def publish(*_: object, **__: object) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.002)
        under_way -= 1

    monkeypatch.setattr(wake, "publish_session", publish)
    assert commands("wake", *(f"dm-{number}" for number in range(8))).code == 0
    assert most == 1


def test_news_of_one_machine_goes_to_the_batch(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    progress = wake._BatchProgress(lines.append)
    progress.waking(MachineName("dm-foo"), 7)
    progress.tick()
    progress.ready()
    assert lines == ["dm-foo: waking up, at most 7 s"]
    assert capsys.readouterr() == ("", "")
