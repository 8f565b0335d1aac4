"""Text that somebody else chose: a server, a link, a repository; and secrets that come back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.emulator import Emulator
from tests.support.fake_api import Answer, fake_api
from tests.support.faults import KEY, FaultCase
from tests.support.user import User

Start = Callable[..., Emulator]

PROGRAM = [sys.executable, "-m", "dcs_proxy"]
# Terminal escapes, an override of direction, bytes that are no UTF-8, a second line, the end of a
# quotation; and one that has no end.
HOSTILE = {
    "odd": "dm-\x1b]0;t\x07\u202e"
    + os.fsdecode(b"\xff\xfe")
    + '\ndcs-proxy: hint: curl "; hint: rm',
    "long": "dm-" + "a" * 3000,
}
COMMANDS: list[list[str]] = [
    ["TEXT", "22"], ["--login", "TEXT", "dm-foo", "22"], ["dm-foo", "TEXT"],
    ["--fdpass", "TEXT", "22"], ["--relay", "--login", "TEXT", "dm-foo", "22"],
    ["--bridge", "TEXT", "22"], ["TEXT"], ["--TEXT"], ["prepare", "TEXT"], ["dial", "TEXT", "22"],
    ["dial", "localhost", "TEXT"], ["status", "TEXT"], ["wake", "TEXT"], ["close", "TEXT"],
    ["alias", "TEXT", "dm-foo"], ["alias", "web", "TEXT"], ["log", "TEXT"], ["doctor", "TEXT"],
    ["completion", "TEXT"], ["emulator", "--fault", "TEXT"], ["emulator", "--machine", "TEXT:x"],
    ["config-ssh", "--ssh-config", "/nowhere/TEXT", "--dry-run"], ["--config", "TEXT", "status"],
    ["--home", "/dev/null/TEXT", "status"], ["doctor", "--bundle", "/dev/null/TEXT"],
]  # fmt: skip


def check_shown(out: bytes) -> None:
    """Fail if a line could disturb a terminal, is endless, or is an internal error's."""
    text = out.decode()  # or it is no UTF-8
    for line in text.replace("\r\n", "\n").split("\n"):
        assert line.isprintable(), line
        assert len(line) < 4000
        assert not line.startswith("dcs-proxy: hint: curl")
    assert "internal error" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_is_typed_is_shown_in_safe_lines(
    start_emulator: Start, user: User, kind: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    for words in COMMANDS:
        typed = [word.replace("TEXT", HOSTILE[kind]) for word in words]
        done = user.run([*PROGRAM, *typed], text=False, timeout=60)
        check_shown(done.stderr)
        if not done.stdout.startswith(b"SSH-"):  # the packet with the reason, for the client
            check_shown(done.stdout)
    check_shown(user.log().encode())


@pytest.mark.parametrize(
    "fault",
    [
        'set:session_id="KEY"', 'set:session_id="wssh-KEY"', 'set:connection.ssh_username="KEY"',
        'set:connection.endpoint="KEY.example"', 'set:connection.host_trust.host_pattern="*.KEY"',
        'set:connection.host_trust.kind="KEY"', 'set:connection.user_certificate="KEY"',
        "body:KEY", 'body:{"KEY": "KEY"}', 'body:"KEY"',
    ],
)  # fmt: skip
def test_a_key_that_comes_back_in_a_session_is_written_nowhere(
    fault_case: Callable[..., FaultCase], fault: str
) -> None:
    case = fault_case()
    case.set(f"dm-foo={fault.replace('KEY', KEY)}")
    # check_prepare() looks for the key in what is printed and in every file.
    case.check_prepare(fault, "dcs-proxy: dm-foo: ")


def test_ssh_writes_a_key_that_comes_back_nowhere(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    case.set(f'dm-foo=set:connection.ssh_username="{KEY}"')
    case.check_ssh("the key as a login", "dcs-proxy: dm-foo: ")


_SAYS_KEY: dict[str, Any] = {
    "error_code": KEY, "message": f"Bearer {KEY}", "retryable": False, "title": KEY,
    "session_id": KEY, "machine_id": KEY, "status": KEY, "phase": KEY, "items": [
        {"machine_id": KEY, "phase": KEY}, {"machine_id": f"dm-{KEY}", "phase": "x"},
    ], "next_cursor": KEY,
}  # fmt: skip


@pytest.mark.parametrize("status", [200, 401, 403, 404, 409, 503])
def test_a_server_that_repeats_the_key_everywhere_has_it_written_nowhere(
    user: User, status: int
) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    with fake_api() as api:
        user.settings("wake_seconds = 1\n")
        user.environment |= {"DEDALUS_BASE_URL": api.url, "DEDALUS_API_KEY": KEY}
        user.environment["DCS_PROXY_LOG"] = "debug"
        for body in (_SAYS_KEY, json.dumps(_SAYS_KEY).replace(KEY, escaped).encode()):
            headers = {"x-request-id": KEY, "Location": f"/{KEY}", "Retry-After": KEY, KEY: KEY}
            api.answers = [Answer(status, body, headers)]
            said = ""
            for words in (
                ["list"], ["list", "--json"], ["prepare", "dm-foo"], ["dm-foo", "22"], ["log"],
                ["doctor", "--ssh-config", str(user.config), "dm-foo"],
            ):  # fmt: skip
                done = user.run([*PROGRAM, *words], text=False, timeout=60)
                check_shown(done.stderr)
                said += (done.stdout + done.stderr).decode("utf-8", "replace")
            assert KEY not in said
        assert api.asked
    for path in user.root.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
