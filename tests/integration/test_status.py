"""dcs-proxy status: true, without a network and without starting anything."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]


def status(user: User) -> Any:
    done = user.proxy("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_with_nothing_there_it_says_so_and_starts_nothing(user: User) -> None:
    done = user.proxy("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    why = lines[4].pop()
    assert why.startswith(
        "none: there is no API key, and this computer has no usable system keyring"
    )
    assert lines == [
        ["no sessions"],
        [""],
        ["agent", f"private, {user.state}/sockets: not running"],
        ["API", "https://dcs.dedaluslabs.ai"],
        ["API key"],
        ["config file", f"{user.root}/config.toml"],
        ["state directory", str(user.state)],
        ["log", f"{user.state}/log"],
    ]
    assert user.agents() == []
    (user.root / "config.toml").unlink()
    del user.environment["DCS_PROXY_CONFIG"]
    assert (
        f"{user.home}/.config/dcs-proxy/config.toml (does not exist)\n"
        in user.proxy("status").stdout
    )


def test_a_session_is_shown_as_it_is(start_emulator: Start, user: User) -> None:
    user.settings('[aliases]\ndm-web = "dm-foo"\n')
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    requests = len(emulator.events(event="request"))
    shown = status(user)
    (session,) = shown["sessions"]
    begin, end = (session["certificate"].pop(key) for key in ("valid_from", "valid_to"))
    assert begin < end <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3700))
    login = user.record("dm-foo")["ready"]["ssh_username"]
    assert 3000 < session.pop("seconds_left") <= 3600
    assert session.pop("expires_at") <= end
    assert begin < session.pop("proved_at") < end
    assert session == {
        "machine": "dm-foo", "short_name": "dm-foo", "aliases": ["dm-web"],
        "base_url": emulator.front,
        "session_id": login, "status": "ready", "endpoint": "localhost",
        "port": emulator.ready["gateway"], "ssh_username": login,
        "certificate": {"principals": [login]}, "identity_held": True,
    }  # fmt: skip
    assert shown["agent"] == {
        "kind": "private", "place": f"{user.state}/sockets", "sockets": [user.agent()],
        "identities": 1, "problem": "",
    }  # fmt: skip
    assert (shown["api_key_source"], shown["api_key_problem"]) == ("DEDALUS_API_KEY", "")
    assert (shown["base_url"], shown["config_file_exists"]) == (emulator.front, True)
    assert len(emulator.events(event="request")) == requests
    assert emulator.key not in user.proxy("status", "--json").stdout


def test_a_person_reads_the_same(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    done = user.proxy("status")
    login = user.record("dm-foo")["ready"]["ssh_username"]
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    expected = [
        "dm-foo",
        rf"  session         {login}, ready, \d+ min left",
        rf"  API             {re.escape(emulator.front)}",
        rf"  login           {login} at localhost port {emulator.ready['gateway']}",
        rf"  certificate     {login}, valid {moment} to {moment} UTC",
        "  identity        in the agent",
        r"  last confirmed  \d+ s ago",
        "",
        r"agent            private, .*: 1 identity",
        "API              http://127.0.0.1:1",
        "API key          DEDALUS_API_KEY",
    ]
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected) + 3
    for line, pattern in zip(lines[:-3], expected, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_what_the_agent_has_lost_is_told(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    user.end_agents()
    assert status(user)["sessions"][0]["identity_held"] is None
    assert status(user)["agent"]["problem"] == "not running"
    assert user.ssh("dm-foo", "true").returncode == 0
    record = user.state / "sessions" / "dm-foo.json"
    kept = json.loads(record.read_text())
    kept["attempt"]["public_key"] = "ab" * 32
    kept["ready"]["bare_key"] = True
    record.write_text(json.dumps(kept))
    assert status(user)["sessions"][0]["identity_held"] is False


def test_a_wake_under_way_is_shown(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "60"))
    ssh = user.start_ssh("dm-foo", "true")
    wait_until(lambda: user.record("dm-foo").get("attempt", {}).get("session_id"))
    (session,) = status(user)["sessions"]
    ssh.kill()
    assert (session["status"], session["identity_held"]) == ("waking", True)
    unknown = ("endpoint", "port", "ssh_username", "certificate", "proved_at")
    assert {session[key] for key in unknown} == {None}


def test_the_users_own_agent_is_shown_where_it_is_used(start_emulator: Start, user: User) -> None:
    user.settings('agent = "user"\n')
    assert status(user)["agent"] == {
        "kind": "user", "place": "", "sockets": [], "identities": None,
        "problem": "SSH_AUTH_SOCK is not set",
    }  # fmt: skip
    path = user.start_agent()
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    shown = status(user)
    assert shown["agent"] == {
        "kind": "user", "place": path, "sockets": [path], "identities": 1, "problem": "",
    }  # fmt: skip
    assert shown["sessions"][0]["identity_held"] is True


def test_machines_share_an_agent_until_it_is_full(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo", "--machine", "dm-bar"))
    for name in ("dm-foo", "dm-bar"):
        assert user.ssh(name, "true").returncode == 0
        assert f"identityagent {user.agent(name)}\n" in user.ssh("-G", name).stdout
    (agent,) = {user.agent(name) for name in ("dm-foo", "dm-bar")}
    found = [identity.comment for identity in Agent(agent).identities()]
    assert found == ["dm-foo via localhost", "dm-bar via localhost"]
    assert f"private, {user.state}/sockets: 2 identities\n" in user.proxy("status").stdout
    for _ in range(7):
        PrivateAgents(str(user.state)).add_key(
            generate_key(), comment="", lifetime_s=60, may_start=True, timeout_s=60
        )
    assert (
        f"private, {user.state}/sockets: 9 identities in 2 agents\n" in user.proxy("status").stdout
    )


def test_a_damaged_record_is_left_out(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo", "--machine", "dm-bar"))
    for name in ("dm-foo", "dm-bar"):
        assert user.ssh(name, "true").returncode == 0
    (user.state / "sessions" / "dm-foo.json").write_text('{"attempt"')
    assert [session["machine"] for session in status(user)["sessions"]] == ["dm-bar"]
