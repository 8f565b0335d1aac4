"""The catalogue of faults: each met by the real ssh, each with the right end in bounded time.

Every play is the same: a fault is set, `ssh dm-foo` is typed, what it says is compared, nothing is
left behind, the fault goes, and the next `ssh dm-foo` works.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.fastpath import helper
from tests.integration.harness import (
    LIMIT_S,
    Emulator,
    ProcessWatch,
    User,
    helpers_for,
    wait_until,
)

Start = Callable[..., Emulator]

# Not that of the tests that run beside us, whose emulators have theirs in their arguments.
KEY = f"dsk-marker-{os.getpid()}-0123456789abcdef"
HOST_KEYS = ("bridge_ed25519_key", "bridge_ecdsa_key")
PRIVATE = re.compile(rb"PRIVATE KEY|" + KEY.encode())
# How long ssh waits for what never comes, and for what must come, on however busy a computer.
WAKE_S, PATIENT_S = 4, 60
# ssh gets in, and nothing is said but that it took longer.
AGAIN = "(dcs-proxy: dm-foo: .*; trying again)?"
IN = f"^{AGAIN}$"
WAKES = r"dcs-proxy: dm-foo: waking up, at most \d+ s"
GETS_IN_AFTER_WAKE = f"^{WAKES}\n?{AGAIN}$"


@dataclass
class Play:
    """One person, one emulator, and what became of one ssh."""

    user: User
    emulator: Emulator
    record: Callable[[str, object], None]
    settings: str = ""

    def set(self, *faults: str) -> None:
        for fault in faults:
            self.emulator.control("POST", "faults", fault=fault)

    def meet(self, fault: str, said: str, *arguments: str, gets_in: bool | None = None) -> str:
        """Type ssh; compare what it says (a regular expression) and whether it gets in."""
        start = time.monotonic()
        with ProcessWatch(KEY, self.emulator.process.pid) as watch:
            done = self.user.ssh(*arguments, "dm-foo", "echo in", timeout=LIMIT_S)
        seconds = time.monotonic() - start
        errors = done.stderr.replace("\r", "")
        left = self.left_behind()
        row = [fault, done.returncode, round(seconds, 1), left or "nothing", readable(errors)]
        self.record("fault", row)
        assert re.search(said, errors.strip()), errors
        if gets_in is None:
            gets_in = said in (IN, GETS_IN_AFTER_WAKE)
        assert (done.returncode, done.stdout) == ((0, "in\n") if gets_in else (255, "")), errors
        assert "Traceback" not in errors and KEY not in errors
        assert all(character.isprintable() or character == "\n" for character in errors)
        assert not left
        assert not watch.found
        return errors

    def left_behind(self) -> str:
        """Return what should not be there once ssh has ended, in words."""
        found = []
        wait_until(lambda: not helpers_for(self.user))
        for path in self.user.root.rglob("*"):
            if path.suffix == ".tmp":
                found.append(f"the file {path.name}")
            # The bridge's host keys open nothing; they only identify our end of the pipe.
            is_host_key = path.name in HOST_KEYS and path.stat().st_mode & 0o777 == 0o600
            if path.is_file() and not is_host_key and PRIVATE.search(path.read_bytes()):
                found.append(f"a secret in {path.name}")
            if path.suffix == ".lock" and path.is_file() and is_held(path):
                found.append(f"the lock {path.name}")
        return ", ".join(found)

    def recovers(self) -> None:
        self.emulator.control("DELETE", "faults")
        self.user.settings(f"wake_seconds = {PATIENT_S}\n{self.settings}")
        done = self.user.ssh("dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def readable(errors: str) -> str:
    """Return what a person reads, without ssh's echo of our message."""
    lines = [line for line in errors.splitlines() if not line.startswith("Disconnected from")]
    ours = [line for line in lines if line.startswith("dcs-proxy: ")]
    return " / ".join(line.removeprefix("dcs-proxy: ") for line in ours or lines)[:300]


def is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def play(
    start_emulator: Start, user: User, record_property: Callable[[str, object], None]
) -> Callable[..., Play]:
    """Set the stage; the arguments are the emulator's.

    `said` is what ssh will say: where it gets in, it may take its time.
    """

    def start(*arguments: str, settings: str = "", machine: str = "dm-foo", said: str = "") -> Play:
        emulator = start_emulator(
            "--machine", machine, "--wake-seconds", "1", "--api-key", KEY, *arguments
        )
        limit_s = PATIENT_S if said in (IN, GETS_IN_AFTER_WAKE) else WAKE_S
        user.settings(f"wake_seconds = {limit_s}\n{settings}")
        return Play(user.use(emulator), emulator, record_property, settings)

    return start


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


@pytest.mark.parametrize("kind", ["401", "403"])
def test_faults_while_polling_that_nothing_mends(play: Callable[..., Play], kind: str) -> None:
    stage = play(machine="dm-foo:sleeping")
    stage.set(f"dm-foo={kind}/GET")
    stage.meet(f"{kind}/GET", "does not accept the key|the API denied permission")
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
    ("other-key", "the API's certificate cannot be used: it is for another key"),
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


GATEWAY = [
    ("gateway-refuses", r"the gateway localhost:\d+ cannot be reached: .*Connection refused"),
    ("gateway-resets", "Connection reset by|Connection closed by"),
    ("gateway-silent", "Connection timed out during banner exchange"),
    ("gateway-unsigned-key", "Host key verification failed"),
    ("gateway-other-name", "Host key verification failed"),
    ("gateway-expired", "Host key verification failed"),
    ("gateway-other-authority", "Host key verification failed"),
]


@pytest.mark.parametrize(("fault", "said"), GATEWAY, ids=[fault for fault, _ in GATEWAY])
def test_faults_of_the_gateway(play: Callable[..., Play], fault: str, said: str) -> None:
    stage = play(settings="reuse_seconds = 0\n")
    stage.set(f"dm-foo={fault}")
    stage.meet(fault, said, "-o", "ConnectTimeout=2")
    assert not stage.emulator.events(event="login")
    stage.recovers()


def test_ssh_waits_for_a_silent_gateway_only_so_long(user: User, play: Callable[..., Play]) -> None:
    play()
    assert "connecttimeout 30\n" in user.ssh("-G", "dm-foo").stdout
    assert "connecttimeout 5\n" in user.ssh("-G", "-o", "ConnectTimeout=5", "dm-foo").stdout


CODES = ["SSH_TUNNEL_NOT_READY", "SSH_GUEST_CONNECT_FAILED", "SSH_GUEST_AUTH_FAILED",
         "SSH_GUEST_SESSION_TERMINATED"]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_guest_that_lags_behind_its_wake_is_waited_for(
    play: Callable[..., Play], code: str
) -> None:
    stage = play(machine="dm-foo:sleeping", said=GETS_IN_AFTER_WAKE)
    stage.set(f"dm-foo=guest:{code}@2")
    stage.meet(f"guest:{code} twice after a wake", GETS_IN_AFTER_WAKE)
    assert len(stage.emulator.creates()) == 1
    assert stage.user.log().count("guest-not-ready") == 2


def test_a_guest_that_never_comes_is_named_at_the_deadline(play: Callable[..., Play]) -> None:
    stage = play(machine="dm-foo:sleeping")
    stage.set("dm-foo=guest")
    said = r"no login succeeded within 4 s \(SSH_TUNNEL_NOT_READY\)"
    stage.meet("guest for ever after a wake", said)
    stage.recovers()
    assert len(stage.emulator.creates()) == 1


# Faults of this computer.


def test_an_agent_that_was_killed(play: Callable[..., Play]) -> None:
    stage = play()
    assert stage.user.ssh("dm-foo", "true").returncode == 0
    stage.user.end_agents()
    stage.meet("private agent killed", IN)


def test_a_socket_that_nobody_listens_on(play: Callable[..., Play]) -> None:
    stage = play()
    assert stage.user.ssh("dm-foo", "true").returncode == 0
    stage.user.kill_agent()
    assert stage.user.agent() in stage.user.agents()
    stage.meet("agent socket stale", IN)


def test_an_agent_that_is_locked(play: Callable[..., Play]) -> None:
    stage = play()
    assert stage.user.ssh("dm-foo", "true").returncode == 0
    password = stage.user.root / "password"
    environment = {**stage.user.environment, "SSH_AUTH_SOCK": stage.user.agent(),
                   "SSH_ASKPASS": str(password), "SSH_ASKPASS_REQUIRE": "force"}  # fmt: skip
    password.write_text("#!/bin/sh\necho x\n")
    password.chmod(0o700)
    assert stage.user.run(["ssh-add", "-x"], env=environment).returncode == 0
    stage.meet("private agent locked", r"does not take an identity\n.*hint: unlock the agent")
    assert stage.user.run(["ssh-add", "-X"], env=environment).returncode == 0
    stage.recovers()


def test_an_agent_that_refuses_certificates(play: Callable[..., Play]) -> None:
    from tests.fake_agent import Store, fake_agent

    with fake_agent() as agent:
        store = Store()
        store.refuses_certificates = True
        agent.answer = store
        stage = play(settings='agent = "user"\n')
        stage.user.environment["SSH_AUTH_SOCK"] = agent.path
        # It takes the bare key but, being no real agent, cannot sign.
        stage.meet("agent refuses certificates", "Permission denied|agent refused")
        assert "agent-refused-certificate" in stage.user.log()
        agent.answer = lambda _: b"\0\0\0\1\5"
        stage.user.environment.pop("SSH_AUTH_SOCK")
    stage.settings = ""
    stage.recovers()


def test_an_agent_that_refuses_everything(play: Callable[..., Play]) -> None:
    from tests.fake_agent import fake_agent

    with fake_agent() as agent:
        stage = play(settings='agent = "user"\n')
        stage.user.environment["SSH_AUTH_SOCK"] = agent.path
        stage.meet("agent refuses everything", "does not take an identity\n.*1Password")
        assert not stage.emulator.creates(), "no session is asked for that nobody could use"


def test_agent_user_without_an_agent(play: Callable[..., Play]) -> None:
    stage = play(settings='agent = "user"\n')
    stage.meet('agent = "user", no SSH_AUTH_SOCK', "SSH_AUTH_SOCK is not set")


def test_a_state_directory_of_another_user(play: Callable[..., Play]) -> None:
    stage = play()
    if os.geteuid() == 0:
        os.chown(stage.user.state, 65534, -1)
        stage.meet("state directory of another user", "belongs to another user")
        os.chown(stage.user.state, 0, -1)
        stage.recovers()
    else:
        stage.user.environment["DCS_PROXY_HOME"] = "/"
        assert (
            "belongs to another user" in stage.user.proxy("--home", "/", "prepare", "dm-foo").stderr
        )


@pytest.mark.parametrize("when", ["cold", "warm"])
@pytest.mark.parametrize("part", ["", "sessions", "hosts", "agents", "sockets"])
def test_a_state_directory_that_others_can_write_to(
    play: Callable[..., Play], part: str, when: str
) -> None:
    stage = play()
    if when == "warm":
        for _ in range(2):
            assert stage.user.ssh("dm-foo", "true").returncode == 0
    (stage.user.state / part).mkdir(exist_ok=True)
    (stage.user.state / part).chmod(0o770)
    fault = f"state directory {part or 'itself'} group-writable, {when}"
    stage.meet(fault, "is writable by other users")
    (stage.user.state / part).chmod(0o700)
    stage.recovers()


def test_a_disk_that_takes_nothing(play: Callable[..., Play]) -> None:
    stage = play()
    # The kernel refuses every write to a file, as it does when the disk is full.
    meet_on_disk(stage, "disk takes nothing", ["prlimit", "--fsize=0"], "File too large")


DISKS = {
    # A small disk with the launcher, which ssh starts, and a file that fills the rest.
    "full": (
        'cp "$DCS_PROXY_HOME/launcher" "$TMPDIR" &&'
        ' mount -t tmpfs -o size=16k,mode=700 disk "$DCS_PROXY_HOME" &&'
        ' cp "$TMPDIR/launcher" "$DCS_PROXY_HOME" &&'
        ' ! head -c 65536 /dev/zero >"$DCS_PROXY_HOME/ballast" 2>/dev/null',
        "No space left on device",
    ),
    "read-only": (
        'mount --bind "$DCS_PROXY_HOME" "$DCS_PROXY_HOME" &&'
        ' mount -o remount,bind,ro "$DCS_PROXY_HOME"',
        "Read-only file system",
    ),
}


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_is(play: Callable[..., Play], kind: str) -> None:
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace with mounts of its own can be made: see the test above")
    stage = play()
    mount, reason = DISKS[kind]
    command = [*alone, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    meet_on_disk(stage, f"disk {kind}", command, reason)


def meet_on_disk(stage: Play, fault: str, place: list[str], reason: str) -> None:
    """Type ssh where `place` (a command's first words) lets nothing be written."""
    start = time.monotonic()
    done = stage.user.run([*place, "ssh", "-F", str(stage.user.config), "dm-foo", "echo in"])
    seconds = time.monotonic() - start
    left = stage.left_behind()
    stage.record("fault", [fault, done.returncode, round(seconds, 1), left or "nothing",
                           readable(done.stderr)])  # fmt: skip
    assert done.returncode == 255
    written = f"(cannot be written|cannot open the lock .*): {reason}"
    assert re.search(written, done.stderr), done.stderr
    assert "free some space" in done.stderr and "Traceback" not in done.stderr
    assert not left
    assert not stage.emulator.creates(), "no session is asked for that could not be kept"
    stage.recovers()


def test_a_state_directory_that_cannot_be_made(play: Callable[..., Play]) -> None:
    stage = play()
    (stage.user.root / "file").touch()
    done = stage.user.proxy("--home", f"{stage.user.root}/file/state", "prepare", "dm-foo")
    assert done.returncode == 14
    assert "Not a directory" in done.stderr and "Traceback" not in done.stderr


def test_files_cut_short_anywhere(play: Callable[..., Play]) -> None:
    stage = play()
    assert stage.user.ssh("dm-foo", "true").returncode == 0
    kinds = ["hosts/*.conf", "sessions/*.json", "sessions/*.known_hosts", "sessions/*-cert.pub"]
    for kind in kinds:
        for part in (0, 0.001, 0.3, 0.5, 0.8, 0.999):
            newest = max(stage.user.state.glob(kind), key=lambda path: path.stat().st_mtime_ns)
            whole = newest.read_bytes()
            newest.write_bytes(whole[: int(len(whole) * part)])
            done = stage.user.ssh("dm-foo", "echo in")
            assert (done.returncode, done.stdout) == (0, "in\n"), (kind, part, done.stderr)


def test_a_lock_held_by_a_process_that_is_stopped(play: Callable[..., Play]) -> None:
    stage = play("--wake-seconds", "60", machine="dm-foo:sleeping")
    first = stage.user.start_ssh("dm-foo", "true")
    wait_until(lambda: stage.user.record("dm-foo").get("attempt", {}).get("session_id"))
    (helper,) = helpers_for(stage.user)
    os.kill(helper, 19)
    done = stage.user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert f"another dcs-proxy (process {helper}) has been working on this machine for 4 s" in (
        done.stderr
    )
    assert f"ps -o stat,lstart,args {helper}" in done.stderr
    os.kill(helper, 9)
    first.communicate(timeout=LIMIT_S)
    assert len(stage.emulator.creates()) == 1


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_a_record_of_another_version(play: Callable[..., Play], change: str) -> None:
    stage = play()
    assert stage.user.ssh("dm-foo", "true").returncode == 0
    record = stage.user.record("dm-foo")
    if change == "more":
        record["attempt"]["brand_new"] = 1
    else:
        del record["ready"]["began_at"]
    path = stage.user.state / "sessions" / "dm-foo.json"
    path.write_text(json.dumps(record))
    stage.meet(f"a record with {change} fields", IN)


def test_a_clock_set_back(play: Callable[..., Play]) -> None:
    stage = play()
    assert stage.user.ssh("dm-foo", "true").returncode == 0
    record = stage.user.record("dm-foo")
    for name in ("proved_at", "began_at"):
        record["ready"][name] += 7200
    (stage.user.state / "sessions" / "dm-foo.json").write_text(json.dumps(record))
    warm = stage.user.state / "sessions" / "dm-foo.warm"
    fields = warm.read_text().split("\0")
    for number in (helper.PREPARE_TIMES, helper.CONNECT_TIMES):
        begin, end = map(float, fields[number].split())
        fields[number] = f"{begin + 7200} {end + 7200}"
    warm.write_text("\0".join(fields))
    stage.meet("clock set back two hours", IN)
    assert stage.emulator.events(method="GET", status=200, machine="dm-foo")
