"""A service with bare UUIDs, through the real ssh: full names, short names, aliases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]
WEB = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
TWIN = "017f22e2-79b0-7cc3-98c4-dc0c0c08398f"
CODE = "017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"
UNKNOWN = "00000000-0000-4000-8000-00000000beef"


@pytest.fixture
def emulator(start_emulator: Start) -> Emulator:
    return start_emulator(
        "--ids", "uuid", "--machine", WEB, "--machine", TWIN, "--machine", f"{CODE}:sleeping",
        "--wake-seconds", "0.5",
    )  # fmt: skip


@pytest.fixture
def ready(emulator: Emulator, user: User) -> User:
    """A user whose ssh config is in its usual place, with an alias for a bare id."""
    user.settings(f'[aliases]\ndm-web = "{WEB}"\n')
    user.config = user.home / ".ssh" / "config"
    return user.use(emulator)


def log_in(user: User, host: str) -> str:
    done = user.ssh(host, "echo $DCS_MACHINE")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def listed(user: User) -> list[str]:
    lines = user.config.read_text().splitlines()
    names = [line.removeprefix("Host ") for line in lines if line.startswith("Host dm-")]
    return [name for name in names if "*" not in name]


def test_every_name_of_a_machine_leads_to_one_session(emulator: Emulator, ready: User) -> None:
    for host in (f"dm-{WEB}", "dm-web", "dm-7398f", "dm-c07398f"):
        assert log_in(ready, host) == WEB
    assert [entry["path"] for entry in emulator.creates()] == [f"/v1/machines/{WEB}/ssh"]
    assert len(list((ready.state / "sessions").glob("*.json"))) == 1
    assert len(list((ready.state / "sessions").glob("*.lock"))) == 1


def test_a_short_name_wakes_its_machine_and_is_warm_the_second_time(
    emulator: Emulator, ready: User
) -> None:
    assert log_in(ready, "dm-c0de") == CODE
    requests = len(emulator.events(event="request"))
    lines = len(ready.log().splitlines())
    assert log_in(ready, "dm-c0de") == CODE
    assert len(emulator.events(event="request")) == requests
    (line,) = ready.log().splitlines()[lines:]
    assert " connected machine=dm-c0de " in line and " warm=yes " in line


def test_a_short_name_of_several_wakes_none_and_names_them(emulator: Emulator, ready: User) -> None:
    done = ready.ssh("dm-398f", "true")
    assert done.returncode == 255
    assert done.stderr.startswith(
        "dcs-proxy: dm-398f: this is short for 2 machines: dm-7398f, dm-8398f\n"
        "dcs-proxy: hint: type one of these names\n"
    )
    assert not emulator.creates()
    assert log_in(ready, "dm-8398f") == TWIN


def test_twenty_ssh_under_three_names_ask_for_one_session(emulator: Emulator, ready: User) -> None:
    emulator.control("PUT", f"machines/{WEB}", phase="sleeping")
    names = ("dm-web", "dm-7398f", f"dm-{WEB}")
    programs = [ready.start_ssh(names[number % 3], "echo $DCS_MACHINE") for number in range(20)]
    for program in programs:
        out, err = program.communicate(timeout=LIMIT_S)
        assert (program.returncode, out.decode().strip()) == (0, WEB), err
    assert len(emulator.creates()) == 1


def test_an_unknown_uuid_is_found_without_a_list(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--ids", "uuid", "--post-only", "--machine", WEB)
    user.use(emulator)
    for _ in range(2):
        assert log_in(user, f"dm-{WEB}") == WEB
        assert user.proxy("close", "--all").returncode == 0
    asked = [(e["path"], e["status"]) for e in emulator.creates()]
    bare = (f"/v1/machines/{WEB}/ssh", 200)
    assert asked == [(f"/v1/machines/dm-{WEB}/ssh", 400), bare, bare]
    done = user.ssh(f"dm-{UNKNOWN}", "true")
    assert f"dcs-proxy: dm-{UNKNOWN}: no such machine: " in done.stderr


def test_a_short_name_is_looked_up_anew_when_its_machine_is_gone(
    emulator: Emulator, ready: User
) -> None:
    emulator.control("DELETE", f"machines/{WEB}")
    _forget_when(ready)
    assert log_in(ready, "dm-398f") == TWIN
    emulator.control("DELETE", f"machines/{TWIN}")
    emulator.control("PUT", f"machines/{WEB}", phase="running")
    assert ready.proxy("close", "--all").returncode == 0
    _forget_when(ready)
    assert log_in(ready, "dm-398f") == WEB


def _forget_when(user: User) -> None:
    """Let the list that was seen last be an old one."""
    (file,) = user.state.glob("account-*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "seen_at": 1.0}))


def test_commands_take_short_names_with_and_without_the_prefix(
    emulator: Emulator, ready: User
) -> None:
    for host in ("dm-c0de", "dm-7398f", "dm-web"):
        assert ready.proxy("wake", "c0de", "dm-7398f").returncode == 0
        requests = len(emulator.events(event="request"))
        log_in(ready, host)  # `wake` has made all of its names warm
        assert len(emulator.events(event="request")) == requests
    assert {entry["machine"] for entry in emulator.creates()} == {CODE, WEB}
    shown = ready.proxy("status", "c0de").stdout
    assert shown.startswith(f"dm-{CODE} (dm-c0de)\n") and WEB not in shown
    log = ready.proxy("log", "c0de").stdout
    assert f"machine=dm-{CODE} " in log and "machine=dm-c0de " in log and WEB not in log
    closed = ready.proxy("close", "c0de")
    assert closed.returncode == 0 and len(emulator.events(method="DELETE")) == 1
    assert ready.proxy("close", "398f").returncode == 0, "among the sessions there is one such"


def test_doctor_takes_a_short_name(ready: User) -> None:
    done = ready.proxy("doctor", "c0de", "--ssh-config", str(ready.config))
    assert f"dm-c0de is dm-{CODE}" in done.stdout and done.returncode == 0, done.stdout


def test_the_wake_policy_goes_by_short_names_too(emulator: Emulator, ready: User) -> None:
    ready.settings('[wake]\n"c0de" = "never"\n')
    done = ready.ssh("dm-c0de", "true")
    assert done.returncode == 255 and 'wake = "never"' in done.stderr
    assert not emulator.creates()


def test_list_and_the_ssh_config_show_short_names(emulator: Emulator, ready: User) -> None:
    assert listed(ready) == ["dm-8398f", "dm-c0de", "dm-web"]
    rows = [line.split() for line in ready.proxy("list").stdout.splitlines()]
    assert rows[0][:3] == ["NAME", "SHORT", "PHASE"]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[1:]] == [
        (f"dm-{WEB}", "dm-7398f", "running", "dm-web"),
        (f"dm-{CODE}", "dm-c0de", "sleeping", "-"),
        (f"dm-{TWIN}", "dm-8398f", "running", "-"),
    ]
    assert "not listed" not in ready.proxy("list").stderr
    for end in ("beef", "cafe"):
        emulator.control("PUT", f"machines/00000000-0000-4000-8000-00000000{end}", phase="running")
    for command in ("list", "wake"):
        done = ready.proxy(command, *(["dm-web"] if command == "wake" else []))
        assert done.stderr.splitlines()[-1] == (
            "dcs-proxy: 2 machines are not listed in your ssh config: run dcs-proxy config-ssh"
        )
    assert ready.proxy("config-ssh").returncode == 0
    assert {"dm-beef", "dm-cafe"} <= set(listed(ready))
    assert "not listed" not in ready.proxy("list").stderr


def test_machines_that_ssh_cannot_name_are_shown_with_the_reason(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    body = {"items": [{"machine_id": "M_01", "phase": "running"}]}
    emulator = start_emulator("--ids", "uuid", "--fault", f"*=body:{json.dumps(body)}")
    user.use(emulator, config=False)
    why = "its id has characters other than lower-case letters, digits and hyphens"
    done = user.proxy("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f'dcs-proxy: ssh cannot name the machine "M_01": {why}\n'
    (machine,) = json.loads(user.proxy("list", "--json").stdout)
    assert (machine["machine_id"], machine["name"], machine["problem"]) == ("M_01", None, why)
    wake = user.proxy("wake", "--all")
    assert wake.returncode == 6 and "ssh cannot name any of the account's machines" in wake.stderr


def test_a_machine_named_like_a_short_name_in_use_is_not_entered_unasked(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", f"dm-{CODE}")
    user.use(emulator)
    assert log_in(user, "dm-c0de") == f"dm-{CODE}"
    emulator.control("PUT", "machines/dm-c0de", phase="running")
    assert user.proxy("list").returncode == 0
    assert user.proxy("close", "--all").returncode == 0
    done = user.ssh("dm-c0de", "true")
    assert done.returncode == 255
    assert f"this was short for dm-{CODE} and is now the name of another" in done.stderr
    assert len(emulator.creates()) == 1
    assert log_in(user, "dm-7c0de") == f"dm-{CODE}"
