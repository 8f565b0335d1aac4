"""Faults of the API, met by `dcs-proxy prepare`, and one or two of each kind by the real ssh.

How a failure of `prepare` reaches the user of ssh does not depend on the fault: test_errors_once.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.emulator.tls import make_context
from tests.support.fake_api import Answer, fake_api
from tests.support.faults import DENIED, GETS_IN_AFTER_WAKE, IN, KEY, WAKES, FaultCase, Start
from tests.support.user import User
from tests.support.waiting import wait_until


def value(path: str, new: Any) -> str:
    return f"dm-foo=set:{path}={json.dumps(new)}"


SILENT = r"the API at \S+ has not answered in \d s"
LIMITED = "limiting requests: .*RATE_LIMITED"
DOWN = "temporarily unavailable: .*DEPENDENCY_UNAVAILABLE"
NOT_ROUTABLE = r"the session is failed: .*\(machine_not_routable\)"
NOT_READY = "not ready after 4 s"
NOT_READY_AFTER_WAKE = f"{WAKES}\ndcs-proxy: dm-foo: {NOT_READY}"
# What ends only with the deadline.
AT_THE_DEADLINE = (SILENT, LIMITED, DOWN, NOT_ROUTABLE, NOT_READY, NOT_READY_AFTER_WAKE)
API: list[tuple[str, str]] = [
    ("dm-foo=stall", SILENT),
    ("dm-foo=stall-body", SILENT),
    ("dm-foo=stall/GET", SILENT),
    ("dm-foo=huge", "sent more than 1 MiB"),
    ("dm-foo=reset", "sent an incomplete response|Connection reset"),
    ("dm-foo=reset@2", IN),
    ("dm-foo=html", r"temporarily unavailable: HTTP 502"),
    ("dm-foo=html@1", IN),
    ("dm-foo=html@3", IN),
    ("dm-foo=500", r'temporarily unavailable: "broken" \(HTTP 500\)'),
    ("dm-foo=502@2", IN),
    ("dm-foo=400", r'the API answered "the request is malformed" \(HTTP 400\)'),
    ("dm-foo=fails", NOT_ROUTABLE),
    ("dm-foo=not-json", "the API's response is not JSON"),
    ("dm-foo=body:[]", "not a JSON object"),
    ("dm-foo=body:null", "not a JSON object"),
    ("dm-foo=body:{}", "machine_id is missing"),
    ('dm-foo=body:{"machine_id": "dm-bar"}', "response is about another machine"),
    ("dm-foo=401-missing", "AUTH_REQUIRED"),
    ("dm-foo=403-scope", "AUTH_SCOPE_FORBIDDEN"),
    ("dm-foo=403-beta", "BETA_ACCESS_REQUIRED"),
    ("dm-foo=429-in-flight@3", IN),
    ("dm-foo=429:9007199254740993000", r"RATE_LIMITED\); it asks to wait \d+ s"),
    ("dm-foo=503-limiter@1", IN),
]
# What no retry mends ends the first ssh though the second answer would be good; one conflict of an
# idempotency key is an accident.
NO_KEY = r"does not accept the key from DEDALUS_API_KEY: .*AUTH_INVALID"
FORBIDDEN = "the API denied permission: .*AUTH_ORG_MISMATCH"
UNKNOWN = "no such machine"
REUSED = 'the API refused the request: "idempotency key reused'
ONCE_THRICE_EVER: dict[str, tuple[str, str, str]] = {
    "401": (NO_KEY, NO_KEY, NO_KEY),
    "403": (FORBIDDEN, FORBIDDEN, FORBIDDEN),
    "404": (UNKNOWN, UNKNOWN, UNKNOWN),
    "409": (IN, REUSED, REUSED),
    "429": (IN, IN, LIMITED),
    "503": (IN, IN, DOWN),
}
API += [
    (f"dm-foo={status}{times}", expected)
    for status, outcomes in ONCE_THRICE_EVER.items()
    for times, expected in zip(("@1", "@3", ""), outcomes, strict=True)
]


@pytest.mark.parametrize(("fault", "expected"), API, ids=[fault for fault, _ in API])
def test_faults_of_the_api(fault_case: Callable[..., FaultCase], fault: str, expected: str) -> None:
    machine = "dm-foo:sleeping" if "/GET" in fault else "dm-foo"
    case = fault_case(machine=machine, gives_up=expected in AT_THE_DEADLINE)
    case.set(fault)
    case.check_prepare(fault, expected)
    case.prepare_recovers()


@pytest.mark.parametrize(
    "fault", ["stall", "reset@2", "html", "not-json", "401", "404", "409@1", "429@3", "503"]
)
def test_ssh_meets_faults_of_the_api(fault_case: Callable[..., FaultCase], fault: str) -> None:
    expected = dict(API)[f"dm-foo={fault}"]
    case = fault_case(gives_up=expected in AT_THE_DEADLINE)
    case.set(f"dm-foo={fault}")
    case.check_ssh(fault, expected)
    case.recovers()


def test_more_refusals_than_failures_are_borne(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    case.set("dm-foo=429@8")
    case.check_prepare("429@8", IN)
    assert len(case.emulator.creates()) == 9
    assert len(case.emulator.sessions_created()) == 1


@pytest.mark.parametrize("fault", ["404/GET", "405/GET", "503/GET@3", "html/GET@3", "reset/GET@2"])
def test_faults_while_polling_are_outlasted(
    fault_case: Callable[..., FaultCase], fault: str
) -> None:
    case = fault_case(machine="dm-foo:sleeping")
    case.set(f"dm-foo={fault}")
    case.check_prepare(fault, GETS_IN_AFTER_WAKE)
    assert len(case.emulator.sessions_created()) == 1


@pytest.mark.parametrize(
    ("kind", "expected"), [("401", "does not accept the key"), ("403", "the API denied permission")]
)
def test_faults_while_polling_that_nothing_mends(
    fault_case: Callable[..., FaultCase], kind: str, expected: str
) -> None:
    case = fault_case(machine="dm-foo:sleeping")
    case.set(f"dm-foo={kind}/GET")
    case.check_prepare(f"{kind}/GET", expected)
    case.prepare_recovers()


def test_a_redirect_takes_the_key_nowhere(
    fault_case: Callable[..., FaultCase], start_emulator: Start
) -> None:
    case = fault_case()
    other = start_emulator("--machine", "dm-foo")
    case.set(f"dm-foo=redirect:{other.api}/v1/machines/dm-foo/ssh")
    case.check_ssh("redirect to another host", "answered with a redirect, which is not followed")
    assert not other.events(event="request")
    case.recovers()


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_redirect_from_tls_takes_the_key_nowhere(
    user: User, tmp_path: Path, scheme: str, status: int
) -> None:
    """Neither unencrypted nor to another host, even if that host's certificate is trusted."""
    right, left = tmp_path / "right.pem", tmp_path / "left.pem"
    first, second = make_context(str(right), "api.test"), make_context(str(left), "other.test")
    with fake_api(first) as api, fake_api(second if scheme == "https" else None) as other:
        (tmp_path / "both.pem").write_text(right.read_text() + left.read_text())
        target = f"{scheme}://localhost:{other.port}/v1/machines/dm-foo/ssh"
        api.answers = [Answer(status, b"moved", {"Location": target})]
        user.environment |= {
            "DEDALUS_BASE_URL": f"https://127.0.0.1:{api.port}",
            "REQUESTS_CA_BUNDLE": str(tmp_path / "both.pem"),
            "DEDALUS_API_KEY": KEY,
        }
        assert user.proxy("config-ssh", "--ssh-config", str(user.config)).returncode == 0
        done = user.ssh("dm-foo", "true")
        listed = user.proxy("list")
        assert {asked.headers["authorization"] for asked in api.asked} == {f"Bearer {KEY}"}
        assert other.asked == []
    assert (done.returncode, listed.returncode) == (255, 8), listed
    for text in (done.stderr, listed.stderr):
        assert "the API answered with a redirect, which is not followed" in text
        assert "Traceback" not in text and KEY not in text


def test_nobody_listens_for_the_api(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    right = case.user.environment["DEDALUS_BASE_URL"]
    case.user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    case.check_ssh(
        "API connection refused", "http://127.0.0.1:1 cannot be reached: Connection refused"
    )
    case.user.environment["DEDALUS_BASE_URL"] = right
    case.recovers()


def test_the_apis_name_cannot_be_looked_up(fault_case: Callable[..., FaultCase]) -> None:
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip(
            "no namespace without a network can be made: test_problems has the same, without ssh"
        )
    case = fault_case()
    case.user.environment["DEDALUS_BASE_URL"] = "https://api.invalid"
    done = case.user.run([*alone, "ssh", "-F", str(case.user.config), "dm-foo", "true"])
    assert done.returncode == 255
    assert "cannot look up api.invalid\n" in done.stderr


def test_tls_that_is_not_trusted(fault_case: Callable[..., FaultCase], tmp_path: Path) -> None:
    case = fault_case("--tls", str(tmp_path / "tls.pem"))
    case.check_ssh("TLS certificate not trusted", "presents a TLS certificate that is not trusted")
    assert not case.emulator.events(event="request", machine="dm-foo")
    case.user.environment["REQUESTS_CA_BUNDLE"] = str(tmp_path / "tls.pem")
    assert case.user.ssh("dm-foo", "echo in").stdout == "in\n"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong(fault_case: Callable[..., FaultCase], hours: int) -> None:
    case = fault_case("--session-seconds", "9000", "--fault", f"*=clock:{hours * 3600}")
    how = "behind" if hours > 0 else "ahead of"
    expected = f"^dcs-proxy: this computer's clock is 60 min {how} the API's: set it$"
    case.check_ssh(f"clock {hours:+} h", expected, gets_in=True)


def test_a_clock_that_is_wrong_is_named_for_a_session_from_before(
    fault_case: Callable[..., FaultCase],
) -> None:
    case = fault_case("--session-seconds", "9000", settings="reuse_seconds = 0\n")
    assert case.user.ssh("dm-foo", "true").stderr == ""
    case.set("*=clock:7200")
    expected = "dcs-proxy: this computer's clock is 2 h behind the API's: set it"
    for _ in range(2):
        assert expected in case.user.ssh("dm-foo", "true").stderr


SESSION: list[tuple[str, str, str]] = [
    *((value("status", status), "dm-foo", f"the session is {status}")
      for status in ("closed", "expired", "failed")),
    *((value("status", status) + "/GET", "dm-foo:sleeping", f"the session is {status}")
      for status in ("closed", "expired", "failed")),
    (value("status", "brand_new"), "dm-foo", NOT_READY_AFTER_WAKE),
    (value("status", "a\x1b[2Jb\n"), "dm-foo", NOT_READY),
    (value("brand_new", {"a": [1]}), "dm-foo", IN),
    (value("status", 7), "dm-foo", "status has the wrong type"),
    (value("created_at", "yesterday"), "dm-foo", "created_at is not a date and time"),
    (value("session_id", "../../x"), "dm-foo", "session_id is not an identifier"),
    (value("retry_after_ms", 10**18), "dm-foo:sleeping", NOT_READY),
    (value("retry_after_ms", -5), "dm-foo:sleeping", GETS_IN_AFTER_WAKE),
    (value("expires_at", "2020-01-01T00:00:00Z"), "dm-foo", "has already ended"),
    (value("status", "READY"), "dm-foo", IN),
    (value("retry_after_ms", "500"), "dm-foo:sleeping", GETS_IN_AFTER_WAKE),
    (value("retry_after_ms", 12.5), "dm-foo:sleeping", GETS_IN_AFTER_WAKE),
    (value("connection.endpoint", "localhost."), "dm-foo", IN),
    (value("connection.endpoint", "LocalHost"), "dm-foo", IN),
    (value("connection.endpoint", "[::1]"), "dm-foo", "does not cover the endpoint ::1"),
    ("dm-foo=missing:connection", "dm-foo", "connection is missing from a session that is ready"),
    ("dm-foo=missing:status", "dm-foo", "status is missing"),
    ("dm-foo=missing:expires_at", "dm-foo", IN),
    ("dm-foo=missing:connection.host_trust", "dm-foo", "no host trust"),
    ("dm-foo=missing:connection.port", "dm-foo", "connection.port is not a port"),
    (value("created_at", "0000-01-01T00:00:00Z"), "dm-foo", "created_at is not a date and time"),
    (value("expires_at", "-0001-01-01T00:00:00Z"), "dm-foo", "expires_at is not a date and time"),
    (value("expires_at", "1970-01-01T00:00:00Z"), "dm-foo", "has already ended"),
    (value("expires_at", "0001-01-01T00:00:01Z"), "dm-foo", "has already ended"),
    (value("expires_at", "1969-12-31T23:59:60Z"), "dm-foo", "has already ended"),
    (value("expires_at", ""), "dm-foo", IN),
]  # fmt: skip
TRUST: list[tuple[str, str, str]] = [
    (value("connection.host_trust.host_pattern", "*"), "dm-foo", IN),
    (value("connection.host_trust.host_pattern", "other.example"), "dm-foo", "does not cover"),
    (value("connection.host_trust.host_pattern", "localhost\n* ssh-rsa A"), "dm-foo", "not cover"),
    (value("connection.host_trust.host_pattern", "localhost x"), "dm-foo", "does not cover"),
    (value("connection.host_trust.kind", "known_key"), "dm-foo", "of the unknown kind"),
    (value("connection.host_trust.public_key", "rubbish"), "dm-foo", "no usable public key"),
    (value("connection.host_trust.public_key", ""), "dm-foo", "no usable public key"),
    (value("connection.endpoint", "a\nb"), "dm-foo", "endpoint is not a host name or address"),
    (value("connection.endpoint", "a b"), "dm-foo", "endpoint is not a host name or address"),
    (value("connection.endpoint", "-oProxyCommand=id"), "dm-foo", "endpoint is not a host name"),
    (value("connection.endpoint", "$(id)"), "dm-foo", "endpoint is not a host name or address"),
    (value("connection.ssh_username", "-oProxyCommand=id"), "dm-foo", "is not a login name"),
    (value("connection.ssh_username", "$(id)"), "dm-foo", "is not a login name"),
    (value("connection.ssh_username", "a\nb"), "dm-foo", "is not a login name"),
    (value("connection.ssh_username", "a b"), "dm-foo", "is not a login name"),
]
CERTIFICATE = [
    ("other-key", "the API's certificate cannot be used: it certifies another key"),
    ("other-principal", "it is not for the session's login name"),
    ("host", "it is not a user certificate"),
    ("expired", "it ended at"),
    ("future", "it is not valid before"),
    ("critical", "a critical option that OpenSSH does not know"),
    ("garbage", "not a certificate that OpenSSH can read"),
    ("two-lines", "not one line of text"),
    ("rsa", DENIED),
    ("ecdsa", DENIED),
]
VALUES = [
    *SESSION, *TRUST,
    *((f"dm-foo=certificate-{kind}", "dm-foo", expected) for kind, expected in CERTIFICATE),
]  # fmt: skip


# Only the gateway can refuse these certificates, and only ssh can tell that a pattern matches.
IN_SSH = [
    *(row for row in VALUES if row[2] == DENIED or '"*"' in row[0]),
    SESSION[0], SESSION[3], SESSION[13], SESSION[18], TRUST[1], TRUST[7],
    VALUES[len(SESSION) + len(TRUST)],
]  # fmt: skip


def ids_of(rows: list[tuple[str, str, str]]) -> list[str]:
    return [ascii(fault) for fault, _, _ in rows]


@pytest.mark.parametrize(
    ("fault", "machine", "expected"),
    IN_PREPARE := [row for row in VALUES if row[2] != DENIED],
    ids=ids_of(IN_PREPARE),
)
def test_faults_of_what_the_api_says(
    fault_case: Callable[..., FaultCase], fault: str, machine: str, expected: str
) -> None:
    # The next command must not meet the session again, which is usable for a minute.
    case = fault_case(
        machine=machine, settings="reuse_seconds = 0\n", gives_up=expected in AT_THE_DEADLINE
    )
    case.set(fault)
    case.check_prepare(fault.replace("dm-foo=", "", 1), expected)
    case.prepare_recovers()


@pytest.mark.parametrize(("fault", "machine", "expected"), IN_SSH, ids=ids_of(IN_SSH))
def test_ssh_meets_faults_of_what_the_api_says(
    fault_case: Callable[..., FaultCase], fault: str, machine: str, expected: str
) -> None:
    case = fault_case(
        machine=machine, settings="reuse_seconds = 0\n", gives_up=expected in AT_THE_DEADLINE
    )
    case.set(fault)
    case.check_ssh(fault.replace("dm-foo=", "", 1), expected)
    if expected == DENIED:
        # The session stays in use until it is closed.
        case.emulator.control("POST", "machines/dm-foo/close-sessions")
    case.recovers()


@pytest.mark.parametrize(
    ("created_at", "expires_at", "clock_ahead_s"),
    [
        ("0001-01-01T00:00:01Z", "9999-12-31T23:59:59Z", 7200),
        ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999999Z", 0),
        ("1969-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", 2 * 10**11),
        ("9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00Z", 0),
    ],
)
def test_sessions_at_the_ends_of_the_calendar(
    fault_case: Callable[..., FaultCase], created_at: str, expires_at: str, clock_ahead_s: int
) -> None:
    """Programs write such times for "unset" and "never"."""
    case = fault_case()
    case.set(value("created_at", created_at), value("ready_at", created_at))
    case.set(value("expires_at", expires_at), f"*=clock:{clock_ahead_s}")
    done = case.user.ssh("dm-foo", "echo in")
    assert done.stdout == "in\n", done.stderr
    assert ("clock is" in done.stderr) is bool(clock_ahead_s)
    for command in (["status"], ["status", "--json"], ["list"], ["close", "dm-foo"]):
        said = case.user.proxy(*command)
        assert said.returncode == 0 and "internal" not in said.stderr, said


def test_a_failure_full_of_escapes_is_one_clean_line(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    text = "\x1b]0;title\x07\r\n\u202e" + "A" * 100_000
    case.set(value("status", "failed"), value("error_message", text))
    errors = case.check_ssh(
        "failed with escapes and 100 kB", 'the session is failed: "]0;title AAA'
    )
    assert max(map(len, errors.splitlines())) < 700
    case.recovers()


def test_a_failure_of_a_megabyte(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    case.set(value("status", "failed"), value("error_message", "\x1b" * 10**6))
    case.check_ssh("failed with 1 MB of escapes", "sent more than 1 MiB")
    case.recovers()


def test_a_session_that_closes_between_prepare_and_connect(
    fault_case: Callable[..., FaultCase],
) -> None:
    case = fault_case(settings="reuse_seconds = 1\n")
    case.set("dm-foo=closes@1")
    case.check_ssh("closed between prepare and connect", DENIED)
    record = case.user.record("dm-foo")
    wait_until(lambda: time.time() > record["ready"]["proved_at"] + 1)
    case.recovers()
