"""Faults of the API, met by the real ssh (faults.py)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import GETS_IN_AFTER_WAKE, IN, WAKES, Play, Start
from tests.support.waiting import wait_until


def value(path: str, new: Any) -> str:
    return f"dm-foo=set:{path}={json.dumps(new)}"


API: list[tuple[str, str]] = [
    ("dm-foo=stall", r"the API at \S+ has not answered in \d s"),
    ("dm-foo=stall-body", r"the API at \S+ has not answered in \d s"),
    ("dm-foo=stall/GET", "has not answered in"),
    ("dm-foo=huge", "sent more than 1 MiB"),
    ("dm-foo=reset", "sent an incomplete response|Connection reset"),
    ("dm-foo=reset@2", IN),
    ("dm-foo=html", r"temporarily unavailable: HTTP 502"),
    ("dm-foo=html@1", IN),
    ("dm-foo=html@3", IN),
    ("dm-foo=500", r'temporarily unavailable: "broken" \(HTTP 500\)'),
    ("dm-foo=502@2", IN),
    ("dm-foo=400", r'the API answered "the request is malformed" \(HTTP 400\)'),
    ("dm-foo=fails", r"the session is failed: .*\(machine_not_routable\)"),
    ("dm-foo=not-json", "the API's response is not JSON"),
    ("dm-foo=body:[]", "not a JSON object"),
    ("dm-foo=body:null", "not a JSON object"),
    ("dm-foo=body:{}", "machine_id is missing"),
    ('dm-foo=body:{"machine_id": "dm-bar"}', "answered about another machine"),
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
LIMITED = "limiting requests: .*RATE_LIMITED"
DOWN = "temporarily unavailable: .*DEPENDENCY_UNAVAILABLE"
ONCE_THRICE_EVER: dict[str, tuple[str, str, str]] = {
    "401": (NO_KEY, NO_KEY, NO_KEY),
    "403": (FORBIDDEN, FORBIDDEN, FORBIDDEN),
    "404": (UNKNOWN, UNKNOWN, UNKNOWN),
    "409": (IN, REUSED, REUSED),
    "429": (IN, IN, LIMITED),
    "503": (IN, IN, DOWN),
}
API += [
    (f"dm-foo={status}{times}", said)
    for status, outcomes in ONCE_THRICE_EVER.items()
    for times, said in zip(("@1", "@3", ""), outcomes, strict=True)
]


@pytest.mark.parametrize(("fault", "said"), API, ids=[fault for fault, _ in API])
def test_faults_of_the_api(play: Callable[..., Play], fault: str, said: str) -> None:
    stage = play(machine="dm-foo:sleeping" if "/GET" in fault else "dm-foo", said=said)
    stage.set(fault)
    stage.meet(fault, said)
    stage.recovers()


def test_more_refusals_than_failures_are_borne(play: Callable[..., Play]) -> None:
    stage = play(said=IN)
    stage.set("dm-foo=429@8")
    stage.meet("429@8", IN)
    assert len(stage.emulator.creates()) == 9
    assert len(stage.emulator.sessions_created()) == 1


@pytest.mark.parametrize("fault", ["404/GET", "405/GET", "503/GET@3", "html/GET@3", "reset/GET@2"])
def test_faults_while_polling_are_outlasted(play: Callable[..., Play], fault: str) -> None:
    stage = play(machine="dm-foo:sleeping", said=GETS_IN_AFTER_WAKE)
    stage.set(f"dm-foo={fault}")
    stage.meet(fault, GETS_IN_AFTER_WAKE)
    assert len(stage.emulator.sessions_created()) == 1


@pytest.mark.parametrize(
    ("kind", "said"), [("401", "does not accept the key"), ("403", "the API denied permission")]
)
def test_faults_while_polling_that_nothing_mends(
    play: Callable[..., Play], kind: str, said: str
) -> None:
    stage = play(machine="dm-foo:sleeping")
    stage.set(f"dm-foo={kind}/GET")
    stage.meet(f"{kind}/GET", said)
    stage.recovers()


def test_a_redirect_takes_the_key_nowhere(play: Callable[..., Play], start_emulator: Start) -> None:
    stage = play()
    other = start_emulator("--machine", "dm-foo")
    stage.set(f"dm-foo=redirect:{other.api}/v1/machines/dm-foo/ssh")
    stage.meet("redirect to another host", "answered with a redirect, which is not followed")
    assert not other.events(event="request")
    stage.recovers()


def test_nobody_listens_for_the_api(play: Callable[..., Play]) -> None:
    stage = play()
    right = stage.user.environment["DEDALUS_BASE_URL"]
    stage.user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    stage.meet("API connection refused", "http://127.0.0.1:1 cannot be reached: Connection refused")
    stage.user.environment["DEDALUS_BASE_URL"] = right
    stage.recovers()


def test_the_apis_name_cannot_be_looked_up(play: Callable[..., Play]) -> None:
    alone = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip(
            "no namespace without a network can be made: test_problems has the same, without ssh"
        )
    stage = play()
    stage.user.environment["DEDALUS_BASE_URL"] = "https://api.invalid"
    done = stage.user.run([*alone, "ssh", "-F", str(stage.user.config), "dm-foo", "true"])
    assert done.returncode == 255
    assert "cannot look up api.invalid\n" in done.stderr


def test_tls_that_is_not_trusted(play: Callable[..., Play], tmp_path: Path) -> None:
    stage = play("--tls", str(tmp_path / "tls.pem"))
    stage.meet("TLS certificate not trusted", "presents a TLS certificate that is not trusted")
    assert not stage.emulator.events(event="request", machine="dm-foo")
    stage.user.environment["REQUESTS_CA_BUNDLE"] = str(tmp_path / "tls.pem")
    assert stage.user.ssh("dm-foo", "echo in").stdout == "in\n"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong(play: Callable[..., Play], hours: int) -> None:
    stage = play("--session-seconds", "9000", "--fault", f"*=clock:{hours * 3600}")
    how = "behind" if hours > 0 else "ahead of"
    said = f"^dcs-proxy: this computer's clock is 60 min {how} the API's: set it$"
    stage.meet(f"clock {hours:+} h", said, gets_in=True)


def test_a_clock_that_is_wrong_is_named_for_a_session_from_before(
    play: Callable[..., Play],
) -> None:
    stage = play("--session-seconds", "9000", settings="reuse_seconds = 0\n")
    assert stage.user.ssh("dm-foo", "true").stderr == ""
    stage.set("*=clock:7200")
    said = "dcs-proxy: this computer's clock is 120 min behind the API's: set it"
    for _ in range(2):
        assert said in stage.user.ssh("dm-foo", "true").stderr


SESSION: list[tuple[str, str, str]] = [
    *((value("status", status), "dm-foo", f"the session is {status}")
      for status in ("closed", "expired", "failed")),
    *((value("status", status) + "/GET", "dm-foo:sleeping", f"the session is {status}")
      for status in ("closed", "expired", "failed")),
    (value("status", "brand_new"), "dm-foo", f"{WAKES}\ndcs-proxy: dm-foo: not ready after 4 s"),
    (value("status", "a\x1b[2Jb\n"), "dm-foo", "not ready after 4 s"),
    (value("brand_new", {"a": [1]}), "dm-foo", IN),
    (value("status", 7), "dm-foo", "status has the wrong type"),
    (value("created_at", "yesterday"), "dm-foo", "created_at is not a date and time"),
    (value("session_id", "../../x"), "dm-foo", "session_id is not an identifier"),
    (value("retry_after_ms", 10**18), "dm-foo:sleeping", "not ready after 4 s"),
    (value("retry_after_ms", -5), "dm-foo:sleeping", GETS_IN_AFTER_WAKE),
    (value("expires_at", "2020-01-01T00:00:00Z"), "dm-foo", "has already ended"),
    ("dm-foo=missing:connection", "dm-foo", "connection is missing from a session that is ready"),
    ("dm-foo=missing:status", "dm-foo", "status is missing"),
    ("dm-foo=missing:expires_at", "dm-foo", IN),
    ("dm-foo=missing:connection.host_trust", "dm-foo", "no host trust"),
    ("dm-foo=missing:connection.port", "dm-foo", "connection.port is not a port"),
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
    ("rsa", "Permission denied"),
    ("ecdsa", "Permission denied"),
]
VALUES = [
    *SESSION, *TRUST,
    *((f"dm-foo=certificate-{kind}", "dm-foo", said) for kind, said in CERTIFICATE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "machine", "said"), VALUES, ids=[ascii(fault) for fault, _, _ in VALUES]
)
def test_faults_of_what_the_api_says(
    play: Callable[..., Play], fault: str, machine: str, said: str
) -> None:
    # Whatever a bad session leads to, it must not be met again a minute long.
    stage = play(machine=machine, settings="reuse_seconds = 0\n", said=said)
    stage.set(fault)
    stage.meet(fault.replace("dm-foo=", "", 1), said)
    if "Permission denied" in said:
        # A certificate that only the gateway can refuse stays until its session is closed.
        stage.emulator.control("POST", "machines/dm-foo/close-sessions")
    stage.recovers()


def test_a_failure_full_of_escapes_is_one_clean_line(play: Callable[..., Play]) -> None:
    stage = play()
    text = "\x1b]0;title\x07\r\n\u202e" + "A" * 100_000
    stage.set(value("status", "failed"), value("error_message", text))
    errors = stage.meet("failed with escapes and 100 kB", 'the session is failed: "]0;title AAA')
    assert max(map(len, errors.splitlines())) < 700
    stage.recovers()


def test_a_failure_of_a_megabyte(play: Callable[..., Play]) -> None:
    stage = play()
    stage.set(value("status", "failed"), value("error_message", "\x1b" * 10**6))
    stage.meet("failed with 1 MB of escapes", "sent more than 1 MiB")
    stage.recovers()


def test_a_session_that_closes_between_prepare_and_connect(play: Callable[..., Play]) -> None:
    stage = play(settings="reuse_seconds = 1\n")
    stage.set("dm-foo=closes@1")
    stage.meet("closed between prepare and connect", "Permission denied")
    record = stage.user.record("dm-foo")
    wait_until(lambda: time.time() > record["ready"]["proved_at"] + 1)
    stage.recovers()
