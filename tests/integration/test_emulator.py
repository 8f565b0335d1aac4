"""The emulator, asked as a stranger would ask it: over HTTP, with the contract in hand."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import public_line
from tests.support.emulator import Emulator, key_file
from tests.support.processes import clean_environment
from tests.support.waiting import LIMIT_S, wait_until

Start = Callable[..., Emulator]
SESSIONS = "/v1/machines/dm-foo/ssh"
# A compact UUIDv7, as the newest clients send.
KEY = "017f22e279b07cc398c4dc0c0c07398f"


def ask(
    emulator: Emulator, method: str, path: str, *, key: str | None = None, **more: Any
) -> requests.Response:
    headers = {"x-api-key": emulator.key, **more.pop("headers", {})}
    if key is not None:
        headers["Idempotency-Key"] = key
    return requests.request(
        method, emulator.api + path, timeout=LIMIT_S,
        headers={name: value for name, value in headers.items() if value is not None}, **more,
    )  # fmt: skip


def create(emulator: Emulator, machine: str = "dm-foo", **more: Any) -> requests.Response:
    more.setdefault("key", str(uuid.uuid4()))
    more.setdefault("json", {"public_key": public_line(generate_key().public)})
    return ask(emulator, "POST", f"/v1/machines/{machine}/ssh", **more)


def test_a_sleeping_machine_wakes_and_gives_a_whole_session(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
    pending = create(emulator).json()
    assert (pending["status"], pending["machine_id"]) == ("wake_in_progress", "dm-foo")
    assert pending["retry_after_ms"] > 0 and "connection" not in pending
    path = f"{SESSIONS}/{pending['session_id']}"
    ready = wait_until(
        lambda: next(
            (s for s in [ask(emulator, "GET", path).json()] if s["status"] == "ready"), None
        )
    )
    connection = ready["connection"]
    assert connection["port"] == emulator.ready["gateway"]
    assert connection["ssh_username"] == pending["session_id"]
    assert connection["user_certificate"].startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert connection["host_trust"]["kind"] == "cert_authority"
    assert connection["host_trust"]["public_key"] == emulator.ready["host_ca"]


def test_one_idempotency_key_is_one_session_or_a_conflict(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--machine", "dm-bar")
    body = {"public_key": public_line(generate_key().public)}
    first, again = (create(emulator, key="k1", json=body).json() for _ in range(2))
    assert first["session_id"] == again["session_id"]
    for conflict in (create(emulator, key="k1"), create(emulator, "dm-bar", key="k1", json=body)):
        assert conflict.status_code == 409
        fault = conflict.json()
        assert (fault["error_code"], fault["retryable"]) == ("IDEMPOTENCY_KEY_REUSED", False)
        details = fault["details"]
        assert details["expected_request_hash"] != details["provided_request_hash"]


@pytest.mark.parametrize(
    ("change", "status", "location"),
    [
        ({"key": None}, 422, "header.Idempotency-Key"),
        ({"json": {}}, 422, "body.public_key"),
        ({"json": {"public_key": "rubbish"}}, 422, "body.public_key"),
        ({"json": {"public_key": 1}}, 422, "body.public_key"),
        ({"json": ["x"]}, 422, "body"),
        ({"json": {"public_key": "ssh-ed25519 A", "more": 1}}, 422, "body.more"),
        (
            {"data": b"{", "json": None, "headers": {"Content-Type": "application/json"}},
            400,
            "body",
        ),
        ({"data": b"{}", "json": None, "headers": {"Content-Type": "text/plain"}}, 415, None),
    ],
)
def test_a_request_that_breaks_the_contract_is_told_where(
    start_emulator: Start, change: dict[str, Any], status: int, location: str | None
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    reply = create(emulator, **change)
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "application/problem+json"
    found = [error["location"] for error in reply.json().get("errors", [])]
    assert found == ([location] if location else [])


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-api-key": None}, 401, "AUTH_REQUIRED"),
        ({"x-api-key": None, "Authorization": "Basic abc"}, 401, "AUTH_REQUIRED"),
        ({"x-api-key": "dsk-wrong"}, 401, "AUTH_INVALID"),
        ({"x-api-key": None, "Authorization": "Bearer dsk-wrong"}, 401, "AUTH_INVALID"),
        ({"X-Dedalus-Org-Id": "org-other"}, 403, "AUTH_ORG_MISMATCH"),
    ],
)
def test_credentials_are_checked(
    start_emulator: Start, headers: dict[str, str | None], status: int, code: str
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--org-id", "org-mine")
    reply = create(emulator, headers=headers)
    assert (reply.status_code, reply.json()["error_code"]) == (status, code)
    bearer = {"x-api-key": None, "Authorization": f"Bearer {emulator.key}",
              "X-Dedalus-Org-Id": "org-mine"}  # fmt: skip
    assert create(emulator, headers=bearer).status_code == 200


def test_unknown_machines_routes_and_methods_are_refused(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    assert create(emulator, "dm-bar").status_code == 404
    assert create(emulator, "DM-foo").status_code == 422
    assert ask(emulator, "GET", f"{SESSIONS}/wssh-none").status_code == 404
    assert ask(emulator, "GET", "/v2/machines").status_code == 404
    refused = ask(emulator, "DELETE", "/v1/machines")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")


def test_with_uuids_a_name_stands_for_a_made_up_one(start_emulator: Start) -> None:
    uuid_of_theirs = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    arguments = ("--ids", "uuid", "--machine", "dm-foo", "--machine", uuid_of_theirs)
    emulator = start_emulator(*arguments)
    made_up = emulator.machine_id("dm-foo")
    assert str(uuid.UUID(made_up)) == made_up
    assert start_emulator(*arguments).machine_id("dm-foo") == made_up
    for number, machine_id in enumerate((made_up, uuid_of_theirs)):
        reply = create(emulator, machine_id, key=f"{KEY[:-1]}{number}")
        assert reply.json()["machine_id"] == machine_id
        assert str(uuid.UUID(reply.json()["session_id"])) == reply.json()["session_id"]
    listed = ask(emulator, "GET", "/v1/machines").json()["items"]
    assert sorted(item["machine_id"] for item in listed) == sorted([made_up, uuid_of_theirs])
    assert all(item["status"]["phase"] == item["phase"] == "running" for item in listed)
    (entry,) = emulator.events(machine="dm-foo", method="POST")
    assert entry["path"] == f"/v1/machines/{made_up}/ssh"


def test_with_uuids_other_ids_and_keys_are_refused(start_emulator: Start) -> None:
    emulator = start_emulator("--ids", "uuid", "--machine", "dm-foo")
    made_up = emulator.machine_id("dm-foo")
    for wrong in ("dm-foo", f"dm-{made_up}", made_up.upper()):
        reply = create(emulator, wrong, key=KEY)
        assert reply.status_code == 400
        assert reply.json()["errors"][0]["location"] == "path.machine_id"
    assert create(emulator, str(uuid.uuid4()), key=KEY).status_code == 404
    refused = create(emulator, made_up, key="k1")
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["location"] == "header.Idempotency-Key"


def test_with_uuids_a_woken_machine_prepares_ssh(start_emulator: Start) -> None:
    emulator = start_emulator(
        "--ids", "uuid", "--machine", "dm-foo:sleeping", "--wake-seconds", "0.2"
    )
    machine_id = emulator.machine_id("dm-foo")
    seen = [create(emulator, machine_id, key=KEY).json()]
    path = f"/v1/machines/{machine_id}/ssh/{seen[0]['session_id']}"

    def is_ready() -> bool:
        seen.append(ask(emulator, "GET", path).json())
        return bool(seen[-1]["status"] == "ready")

    wait_until(is_ready)
    assert [s["status"] for s in seen if "retry_after_ms" not in s] == ["ready"]
    assert {"wake_in_progress", "ssh_in_progress"} >= {s["status"] for s in seen[:-1]}


def test_a_session_fails_as_soon_as_it_is_asked_for(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--fault", "dm-foo=fails@1")
    first, second = create(emulator).json(), create(emulator).json()
    assert (first["status"], first["error_code"]) == ("failed", "machine_not_routable")
    assert second["status"] == "ready"


def test_a_machine_can_be_taken_away(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    emulator.control("DELETE", "machines/dm-foo")
    assert create(emulator).status_code == 404
    assert ask(emulator, "GET", "/v1/machines").json()["items"] == []


def test_lists_come_in_pages(start_emulator: Start) -> None:
    names = [f"dm-m{number:02}" for number in range(7)]
    emulator = start_emulator(*(word for name in names for word in ("--machine", name)))
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = ask(emulator, "GET", f"/v1/machines?limit=3{cursor}").json()
        seen += [item["machine_id"] for item in page["items"]]
        cursor = f"&cursor={page.get('next_cursor', '')}"
    assert seen == names and "next_cursor" not in page
    assert set(page["items"][0]) >= {
        "machine_id", "phase", "desired_state", "vcpu", "memory_mib", "storage_gib",
        "autosleep_seconds", "created_at",
    }  # fmt: skip
    for _ in range(3):
        create(emulator, "dm-m00")
    sessions = ask(emulator, "GET", "/v1/machines/dm-m00/ssh?limit=2").json()
    assert len(sessions["items"]) == 2 and sessions["next_cursor"]
    assert ask(emulator, "GET", "/v1/machines?limit=0").status_code == 422
    assert ask(emulator, "GET", "/v1/machines?cursor=x").status_code == 422


def test_a_session_is_closed_expires_or_sleeps_away(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--session-seconds", "1")
    first = create(emulator).json()
    path = f"{SESSIONS}/{first['session_id']}"
    assert ask(emulator, "DELETE", path, key="d1").json()["status"] == "closed"
    assert ask(emulator, "DELETE", path).status_code == 422
    second = f"{SESSIONS}/{create(emulator).json()['session_id']}"
    wait_until(lambda: ask(emulator, "GET", second).json()["status"] == "expired")
    sleepy = start_emulator("--machine", "dm-foo", "--autosleep-seconds", "0.5")
    third = f"{SESSIONS}/{create(sleepy).json()['session_id']}"
    wait_until(lambda: ask(sleepy, "GET", third).json()["status"] == "closed")
    machine = ask(sleepy, "GET", "/v1/machines/dm-foo").json()
    assert machine["status"]["phase"] == "sleeping"


def test_a_machine_that_failed_fails_its_sessions(start_emulator: Start) -> None:
    session = create(start_emulator("--machine", "dm-foo:failed")).json()
    assert session["status"] == "failed" and session["error_code"] and session["error_message"]


def test_changes_beyond_the_rate_are_limited(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--rate-limit", "2")
    replies = [create(emulator) for _ in range(12)]
    limited = next(reply for reply in replies if reply.status_code == 429)
    assert limited.json()["details"] == {"rate_limit_scope": "mutating_lifecycle_routes"}
    assert limited.json()["retry_after_ms"] and limited.headers["Retry-After"]


def test_it_listens_on_loopback_only_and_stops_cleanly(start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo", as_program=True)
    listening = listeners(emulator.process.pid)
    port = int(emulator.api.rpartition(":")[2])
    assert {port, emulator.ready["gateway"]} <= {number for _, number in listening}
    assert {address for address, _ in listening} <= {"127.0.0.1", "::1"}
    with socket.create_connection(("127.0.0.1", port)):
        emulator.process.send_signal(signal.SIGTERM)
        assert emulator.process.wait(LIMIT_S) == 0


def listeners(pid: int) -> set[tuple[str, int]]:
    """Return the addresses and TCP ports on which a process listens (proc_pid_net(5))."""
    inodes = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                # Words of four bytes, each in the order of this machine.
                words = [address[start : start + 8] for start in range(0, len(address), 8)]
                raw = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
                found.add((socket.inet_ntop(family, raw), int(port, 16)))
    return found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--machine", "foo"], "foo is not NAME[:PHASE]"),
        (["--machine", "dm-foo:asleep"], "dm-foo:asleep is not NAME[:PHASE]"),
        (["--fault", "dm-foo=nonsense"], "'dm-foo=nonsense' is not a fault"),
        (["--wake-seconds", "-1"], "argument --wake-seconds"),
        (["--gateway", "nowhere"], "argument --gateway"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dcs_proxy", "emulator", *arguments],
        capture_output=True, text=True, check=False, env=clean_environment(), timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert all(line.startswith("dcs-proxy: ") for line in done.stderr.splitlines())


def test_the_kinds_of_fault_are_listed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dcs_proxy", "emulator", "--list-faults"],
        capture_output=True, text=True, check=True, env=clean_environment(),
    )  # fmt: skip
    kinds = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(set(kinds)) == len(kinds) > 30


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [
        (0o644, "dsk-mine", "is readable by other users"),
        (0o600, "two words", "must be printable ASCII without spaces"),
        (None, "", "does not exist"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_refused(
    tmp_path: Path, mode: int | None, text: str, said: str
) -> None:
    path = tmp_path / "key"
    if mode is not None:
        path.write_text(text)
        path.chmod(mode)
    done = subprocess.run(
        [sys.executable, "-m", "dcs_proxy", "emulator", "--api-key-file", str(path)],
        capture_output=True, text=True, check=False, env=clean_environment(), timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode != 0 and said in done.stderr


def test_no_command_line_shows_the_emulators_key(start_emulator: Start, tmp_path: Path) -> None:
    emulator = start_emulator(
        "--api-key-file", key_file(tmp_path, "dsk-mine-0123456789"), as_program=True
    )
    assert emulator.key == "dsk-mine-0123456789"
    words = Path(f"/proc/{emulator.process.pid}/cmdline").read_text()
    assert "key" in words and "dsk-mine" not in words
    help_ = subprocess.run(
        [sys.executable, "-m", "dcs_proxy", "emulator", "--help"],
        capture_output=True, text=True, check=True, timeout=LIMIT_S,
    ).stdout  # fmt: skip
    assert "--api-key " not in help_
