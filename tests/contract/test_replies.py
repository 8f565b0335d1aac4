"""The check of the emulator's replies that each test makes when it stops one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.support.emulator import Emulator
from tests.support.openapi import BrokenContractError, Tally, check_recorded, check_reply
from tests.support.waiting import LIMIT_S

SESSION = {
    "session_id": "wssh-1", "machine_id": "dm-foo", "status": "wake_in_progress",
    "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip
CREATE = "/v1/machines/dm-foo/ssh"
HEALTHY = {"error_code": "AUTH_INVALID", "message": "no", "retryable": False}


def reply(status: int, body: object, kind: str = "application/json", more: int = 0) -> str:
    text = json.dumps(body)
    return (
        f"HTTP/1.1 {status} Whatever\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(text) + more}\r\n\r\n{text}"
    )


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", CREATE, reply(200, SESSION)),
        ("GET", f"{CREATE}?limit=1", reply(200, {"items": [SESSION]})),
        ("DELETE", f"{CREATE}/wssh-1", reply(401, HEALTHY)),
        ("POST", CREATE, reply(500, {"title": "x"}, "application/problem+json")),
        ("GET", "/v2", reply(404, {})),
    ],
)
def test_a_reply_that_keeps_to_the_contract_is_counted(method: str, path: str, sent: str) -> None:
    before = Tally.checked
    check_reply(method, path, sent)
    assert Tally.checked == before + 1


@pytest.mark.parametrize(
    ("method", "path", "sent", "said"),
    [
        ("POST", CREATE, reply(200, {**SESSION, "status": "asleep"}), "$.status"),
        ("POST", CREATE, reply(200, {**SESSION, "more": 1}), "'more' was unexpected"),
        ("POST", CREATE, reply(200, {**SESSION, "created_at": "today"}), "$.created_at"),
        ("POST", CREATE, reply(200, {"session_id": "wssh-1"}), "'machine_id' is a required"),
        ("POST", CREATE, reply(429, {**HEALTHY, "retry_after_ms": "1"}), "$.retry_after_ms"),
        ("POST", CREATE, reply(401, HEALTHY, "application/problem+json"), "Content"),
        ("POST", CREATE, reply(500, HEALTHY, "application/problem+json"), "unexpected"),
        ("POST", CREATE, reply(200, SESSION, more=1), "not one HTTP/1.1 reply"),
        ("POST", CREATE, reply(200, SESSION, more=-1), "not one HTTP/1.1 reply"),
        ("GET", f"{CREATE}/wssh-1", reply(200, {"items": []}), "unexpected"),
        ("GET", "/v2", reply(200, {}), "no document has this route"),
    ],
)
def test_a_reply_that_breaks_it_is_shown(method: str, path: str, sent: str, said: str) -> None:
    with pytest.raises(BrokenContractError) as broken:
        check_reply(method, path, sent)
    assert said in str(broken.value) and sent in str(broken.value)


def test_every_reply_is_recorded_but_those_that_a_fault_broke(
    start_emulator: Callable[..., Emulator], tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--fault", "dm-foo=not-json@1")
    for _ in range(3):
        requests.get(f"{emulator.api}/v1/machines/dm-foo", timeout=LIMIT_S)
    emulator.stop()
    entries = [json.loads(line) for line in emulator.replies.read_text().splitlines()]
    assert [entry["path"] for entry in entries] == ["/v1/machines/dm-foo"] * 2
    assert all("AUTH_REQUIRED" in entry["reply"] for entry in entries)
    changed = tmp_path / "changed"
    text = emulator.replies.read_text()
    changed.write_text(text.replace("AUTH_REQUIRED", "AUTH_REQUIRE"))
    with pytest.raises(BrokenContractError):
        check_recorded(changed)


UUID_SESSION = {
    **SESSION,
    "session_id": "1b4e28ba-2fa1-4d3b-83f5-ccc6f1a3e0a1",
    "machine_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
    "status": "ssh_in_progress",
}


def test_a_service_with_uuids_is_held_to_what_its_newest_client_says() -> None:
    path = f"/v1/machines/{UUID_SESSION['machine_id']}/ssh"
    check_reply("POST", path, reply(200, UUID_SESSION), ids="uuid")
    for field in ("machine_id", "session_id"):
        with pytest.raises(BrokenContractError):
            check_reply("POST", path, reply(200, {**UUID_SESSION, field: "dm-foo"}), ids="uuid")
    with pytest.raises(BrokenContractError):
        check_reply("POST", CREATE, reply(200, {**SESSION, "status": "ssh_in_progress"}))
