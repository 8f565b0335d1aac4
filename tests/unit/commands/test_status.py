from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.commands import status as command
from dcs_proxy.commands.status import Status, render
from dcs_proxy.errors import CredentialsError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.session.report import AgentStatus, CertificateStatus, SessionStatus
from tests.support.fake_agent import Store, fake_agent
from tests.unit.commands.conftest import READY, Commands

NOW = 1767323045.0  # 2026-01-02T03:04:05Z
CERTIFICATE = CertificateStatus(
    ["me", "root"], "2026-01-02T03:00:00.000Z", "2026-01-02T04:00:00.000Z"
)
SESSION = SessionStatus(
    machine="dm-foo", short_name="dm-c0de", aliases=["dm-web", "dm-www"],
    base_url="https://dcs.example", session_id="wssh-1", status="ready", endpoint="ssh.example",
    port=2222, ssh_username="me", expires_at="2026-01-02T04:00:00.000Z", seconds_left=3355,
    certificate=CERTIFICATE, identity_held=True, proved_at="2026-01-02T03:02:05.000Z",
)  # fmt: skip
AGENT = AgentStatus("private", "/s/sockets", ["/s/sockets/agent-1.sock"], 1, "")
STATUS = Status(
    sessions=[SESSION], agent=AGENT, base_url="https://dcs.example",
    api_key_source="DEDALUS_API_KEY", api_key_problem="", config_file="/c.toml",
    config_file_exists=True, state_directory="/s", log="/s/log",
)  # fmt: skip
WAKING: dict[str, Any] = {
    "session_id": None, "status": "waking", "endpoint": None, "port": None, "ssh_username": None,
    "certificate": None, "identity_held": False, "proved_at": None, "seconds_left": 119,
}  # fmt: skip


def test_a_ready_session_and_what_is_in_use_are_shown_in_full() -> None:
    assert render(STATUS, NOW) == [
        "dm-foo (dm-c0de, dm-web, dm-www)",
        "  session         wssh-1, ready, 55 min left",
        "  login           me at ssh.example port 2222",
        "  certificate     me, root, valid 2026-01-02 03:00:00 to 2026-01-02 04:00:00 UTC",
        "  identity        in the agent",
        "  last confirmed  2 min ago",
        "",
        "agent            private, /s/sockets: 1 identity",
        "API              https://dcs.example",
        "API key          DEDALUS_API_KEY",
        "config file      /c.toml",
        "state directory  /s",
        "log              /s/log",
    ]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (WAKING, ["dm-foo (dm-c0de, dm-web, dm-www)", "  session   requested, waking, 119 s left",
                  "  identity  not in the agent"]),
        ({**WAKING, "identity_held": None, "short_name": "dm-foo", "aliases": []},
         ["dm-foo", "  session   requested, waking, 119 s left",
          "  identity  the agent does not answer"]),
        ({**WAKING, "session_id": "wssh-2", "status": "ended"},
         ["dm-foo (dm-c0de, dm-web, dm-www)", "  session         wssh-2, ended",
          "  identity        not in the agent", "  last confirmed  not yet"]),
        ({**WAKING, "status": "ready", "base_url": "https://old.example", "aliases": []},
         ["dm-foo (dm-c0de)", "  session         requested, ready, 119 s left",
          "  API             https://old.example", "  identity        not in the agent",
          "  last confirmed  not yet"]),
        ({**WAKING, "base_url": "", "certificate": replace(CERTIFICATE, valid_to=None)},
         ["dm-foo (dm-c0de, dm-web, dm-www)", "  session      requested, waking, 119 s left",
          "  API          unknown",
          "  certificate  me, root, valid 2026-01-02 03:00:00 UTC, no end",
          "  identity     not in the agent"]),
    ],
)  # fmt: skip
def test_a_session_is_shown_as_far_as_it_is_known(changes: Any, lines: list[str]) -> None:
    status = replace(STATUS, sessions=[replace(SESSION, **changes)])
    shown = render(status, NOW)
    assert shown[: shown.index("")] == lines


@pytest.mark.parametrize(
    ("changes", "label", "text"),
    [
        ({"agent": replace(AGENT, identities=0)}, "agent", "private, /s/sockets: 0 identities"),
        ({"agent": replace(AGENT, identities=3, sockets=["/1", "/2"])}, "agent",
         "private, /s/sockets: 3 identities in 2 agents"),
        ({"agent": AgentStatus("user", "", [], None, "SSH_AUTH_SOCK is not set")}, "agent",
         "user, none: SSH_AUTH_SOCK is not set"),
        ({"api_key_source": None, "api_key_problem": "there is no API key"}, "API key",
         "none: there is no API key"),
        ({"config_file_exists": False}, "config file", "/c.toml (does not exist)"),
    ],
)  # fmt: skip
def test_what_is_missing_is_shown(changes: Any, label: str, text: str) -> None:
    status = replace(STATUS, sessions=[], **changes)
    shown = render(status, NOW)
    assert shown[:2] == ["no sessions", ""]
    assert [
        line[len("state directory  ") :] for line in shown if line.startswith(label + "  ")
    ] == [text]


def test_every_session_is_shown() -> None:
    other = replace(SESSION, machine="dm-bar", short_name="dm-bar", aliases=[])
    shown = render(replace(STATUS, sessions=[SESSION, other]), NOW)
    assert [line for line in shown if line.startswith("dm-")] == [
        "dm-foo (dm-c0de, dm-web, dm-www)", "dm-bar"
    ]  # fmt: skip


def sessions(done: Any) -> list[str]:
    return [session["machine"] for session in json.loads(done.out)["sessions"]]


def test_only_the_sessions_of_the_machines_that_are_named_are_shown(commands: Commands) -> None:
    commands.configure('[aliases]\ndm-web = "dm-b-1234"\n')
    for name in ("dm-b-1234", "dm-a", "dm-c"):
        commands.save(name)
    assert sessions(commands("status", "--json")) == ["dm-a", "dm-b-1234", "dm-c"]
    assert sessions(commands("status", "--json", "dm-c", "1234")) == ["dm-b-1234", "dm-c"]
    assert sessions(commands("status", "--json", "web")) == ["dm-b-1234"]
    assert sessions(commands("status", "--json", "dm-other")) == []
    assert commands.api.asked == []


def test_files_and_settings_in_use_are_named(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("base_url", "config_file", "config_file_exists", "state_directory", "log")

    def shown(*words: str) -> list[Any]:
        found = json.loads(commands(*words, "status", "--json").out)
        return [found[key] for key in keys]

    home, url = str(commands.home), commands.api.url
    default = f"{home}/.config/dcs-proxy/config.toml"
    state = f"{home}/.ssh/dcs-proxy"
    assert shown() == [url, default, False, state, f"{state}/log"]
    assert not Path(state).exists(), "to look creates nothing"
    commands.configure("")
    assert shown() == [url, default, True, state, f"{state}/log"]
    own = commands.home / "own.toml"
    own.write_text("")
    assert shown("--config", str(own))[1:3] == [str(own), True]
    monkeypatch.setenv("DCS_PROXY_CONFIG", str(own))
    assert shown("--home", f"{home}/other")[1:] == [
        str(own), True, f"{home}/other", f"{home}/other/log"
    ]  # fmt: skip


def test_the_agent_in_use_is_the_one_that_is_asked(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(commands("status", "--json").out)["agent"]
        return found

    assert shown() == {
        "kind": "private", "place": f"{commands.home}/.ssh/dcs-proxy/sockets", "sockets": [],
        "identities": None, "problem": "not running",
    }  # fmt: skip
    commands.configure('agent = "user"\n')
    assert (shown()["place"], shown()["problem"]) == ("", "SSH_AUTH_SOCK is not set")
    with fake_agent() as agent:
        agent.answer = store = Store()
        store.held = {b"one": b"", b"two": b""}
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
        commands.save("dm-foo", agent=agent.path, ready=READY)
        assert shown() == {
            "kind": "user", "place": agent.path, "sockets": [agent.path], "identities": 2,
            "problem": "",
        }  # fmt: skip


def test_the_key_is_named_and_not_shown_and_a_keyring_is_not_waited_for(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = commands("status", "--json")
    found = json.loads(done.out)
    assert (found["api_key_source"], found["api_key_problem"]) == ("DEDALUS_API_KEY", "")
    assert "dsk-key" not in done.out
    limits = []

    def fail(self: Any, deadline: Deadline) -> None:
        limits.append(deadline.seconds)
        raise CredentialsError("the keyring is locked", hint="unlock it")

    monkeypatch.setattr(command.ApiFactory, "find_credentials", fail)
    found = json.loads(commands("status", "--json").out)
    assert (found["api_key_source"], found["api_key_problem"]) == (None, "the keyring is locked")
    assert limits == [5]


def test_a_person_reads_lines_and_no_json(commands: Commands) -> None:
    done = commands("status")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "no sessions"
    assert lines[3:5] == [
        f"API              {commands.api.url}",
        "API key          DEDALUS_API_KEY",
    ]


def test_a_short_name_means_the_session_of_its_machine(commands: Commands) -> None:
    name = "dm-017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"
    commands.save(name)
    commands.save("dm-a")
    done = commands("status", "--json", "c0de")
    assert sessions(done) == [name]
    assert json.loads(done.out)["sessions"][0]["short_name"] == "dm-c0de"
