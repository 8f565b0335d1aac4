"""Faults of this computer, met by the real ssh (faults.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable

import pytest

from dcs_proxy.fastpath import helper
from tests.support.faults import GIVES_UP_S, IN, FaultCase, readable
from tests.support.user import helpers_for
from tests.support.waiting import LIMIT_S, wait_until


def test_an_agent_that_was_killed(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    assert case.user.ssh("dm-foo", "true").returncode == 0
    case.user.end_agents()
    case.check_ssh("private agent killed", IN)


def test_a_socket_that_nobody_listens_on(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    assert case.user.ssh("dm-foo", "true").returncode == 0
    case.user.kill_agent()
    assert case.user.agent() in case.user.agents()
    case.check_ssh("agent socket stale", IN)


def test_an_agent_that_is_locked(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    assert case.user.ssh("dm-foo", "true").returncode == 0
    password = case.user.root / "password"
    environment = {**case.user.environment, "SSH_AUTH_SOCK": case.user.agent(),
                   "SSH_ASKPASS": str(password), "SSH_ASKPASS_REQUIRE": "force"}  # fmt: skip
    password.write_text("#!/bin/sh\necho x\n")
    password.chmod(0o700)
    assert case.user.run(["ssh-add", "-x"], env=environment).returncode == 0
    case.check_ssh("private agent locked", IN)


def test_an_agent_that_refuses_certificates(fault_case: Callable[..., FaultCase]) -> None:
    from tests.support.fake_agent import Store, fake_agent

    with fake_agent() as agent:
        store = Store()
        store.refuses_certificates = True
        agent.answer = store
        case = fault_case(settings='agent = "user"\n')
        case.user.environment["SSH_AUTH_SOCK"] = agent.path
        # It takes the bare key but, being no real agent, cannot sign.
        case.check_ssh("agent refuses certificates", "Permission denied|agent refused")
        assert "agent-refused-certificate" in case.user.log()
        agent.answer = lambda _: b"\0\0\0\1\5"
        case.user.environment.pop("SSH_AUTH_SOCK")
    case.settings = ""
    case.recovers()


def test_an_agent_that_refuses_everything(fault_case: Callable[..., FaultCase]) -> None:
    from tests.support.fake_agent import fake_agent

    with fake_agent() as agent:
        case = fault_case(settings='agent = "user"\n')
        case.user.environment["SSH_AUTH_SOCK"] = agent.path
        case.check_ssh("agent refuses everything", "does not accept an identity\n.*1Password")
        assert not case.emulator.creates(), "no session is asked for that nobody could use"


def test_agent_user_without_an_agent(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case(settings='agent = "user"\n')
    case.check_ssh('agent = "user", no SSH_AUTH_SOCK', "SSH_AUTH_SOCK is not set")


def test_a_state_directory_of_another_user(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    if os.geteuid() == 0:
        os.chown(case.user.state, 65534, -1)
        case.check_ssh("state directory of another user", "belongs to another user")
        os.chown(case.user.state, 0, -1)
        case.recovers()
    else:
        case.user.environment["DCS_PROXY_HOME"] = "/"
        assert (
            "belongs to another user" in case.user.proxy("--home", "/", "prepare", "dm-foo").stderr
        )


@pytest.mark.parametrize("when", ["cold", "warm"])
@pytest.mark.parametrize("part", ["", "sessions", "hosts", "agents", "sockets"])
def test_a_state_directory_that_others_can_write_to(
    fault_case: Callable[..., FaultCase], part: str, when: str
) -> None:
    case = fault_case()
    if when == "warm":
        for _ in range(2):
            assert case.user.ssh("dm-foo", "true").returncode == 0
    (case.user.state / part).mkdir(exist_ok=True)
    (case.user.state / part).chmod(0o770)
    fault = f"state directory {part or 'itself'} group-writable, {when}"
    case.check_ssh(fault, "is writable by other users")
    (case.user.state / part).chmod(0o700)
    case.recovers()


def test_a_disk_that_takes_nothing(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    # The kernel refuses every write to a file, as it does when the disk is full.
    check_on_disk(case, "disk takes nothing", ["prlimit", "--fsize=0"], "File too large")


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
def test_a_disk_that_is(fault_case: Callable[..., FaultCase], kind: str) -> None:
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace with mounts of its own can be made: see the test above")
    case = fault_case()
    mount, reason = DISKS[kind]
    command = [*alone, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    check_on_disk(case, f"disk {kind}", command, reason)


def check_on_disk(case: FaultCase, fault: str, place: list[str], reason: str) -> None:
    """Type ssh where `place` (a command's first words) lets nothing be written."""
    start = time.monotonic()
    done = case.user.run([*place, "ssh", "-F", str(case.user.config), "dm-foo", "echo in"])
    seconds = time.monotonic() - start
    left = case.left_behind()
    case.record("fault", [fault, done.returncode, round(seconds, 1), left or "nothing",
                           readable(done.stderr)])  # fmt: skip
    assert done.returncode == 255
    written = f"(cannot be written|cannot open the lock .*): {reason}"
    assert re.search(written, done.stderr), done.stderr
    remedy = "free some space" if reason.startswith("No space") else "DCS_PROXY_HOME"
    if "--fsize=0" in place:
        remedy = "ulimit -f"
    assert remedy in done.stderr and "Traceback" not in done.stderr
    assert not left
    assert not case.emulator.creates(), "no session is asked for that could not be kept"
    case.recovers()


def test_a_state_directory_that_cannot_be_written_is_reported_once(
    fault_case: Callable[..., FaultCase],
) -> None:
    case = fault_case()
    runtime = case.user.root / "runtime"
    runtime.mkdir(mode=0o700)
    case.user.environment["XDG_RUNTIME_DIR"] = str(runtime)
    sessions = case.user.state / "sessions"
    sessions.chmod(0o500)
    # As root the tests may write everywhere, until the right to do so is taken away.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    words = [*(powerless if os.geteuid() == 0 else ()), "ssh", "-F", str(case.user.config)]
    done = case.user.run([*words, "dm-foo", "true"])
    sessions.chmod(0o700)
    assert done.returncode == 255
    assert done.stderr.count("Permission denied") == 1, done.stderr
    assert os.listdir(runtime) == []


def test_a_state_directory_that_cannot_be_made(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    (case.user.root / "file").touch()
    done = case.user.proxy("--home", f"{case.user.root}/file/state", "prepare", "dm-foo")
    assert done.returncode == 14
    assert "Not a directory" in done.stderr and "Traceback" not in done.stderr


def test_files_cut_short_anywhere(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    assert case.user.ssh("dm-foo", "true").returncode == 0
    kinds = ["hosts/*.conf", "sessions/*.json", "sessions/*.known_hosts", "sessions/*-cert.pub"]
    for kind in kinds:
        for part in (0, 0.001, 0.3, 0.5, 0.8, 0.999):
            newest = max(case.user.state.glob(kind), key=lambda path: path.stat().st_mtime_ns)
            whole = newest.read_bytes()
            newest.write_bytes(whole[: int(len(whole) * part)])
            done = case.user.ssh("dm-foo", "echo in")
            assert (done.returncode, done.stdout) == (0, "in\n"), (kind, part, done.stderr)


def test_a_lock_held_by_a_process_that_is_stopped(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case("--wake-seconds", "60", machine="dm-foo:sleeping")
    first = case.user.start_ssh("dm-foo", "true")
    wait_until(lambda: case.user.record("dm-foo").get("attempt", {}).get("session_id"))
    (helper,) = helpers_for(case.user)
    os.kill(helper, 19)
    case.user.settings(f"wake_seconds = {GIVES_UP_S}\n")
    done = case.user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert f"another dcs-proxy (process {helper}) has been working on this machine for 4 s" in (
        done.stderr
    )
    assert f"ps -o stat,lstart,args {helper}" in done.stderr
    os.kill(helper, 9)
    first.communicate(timeout=LIMIT_S)
    assert len(case.emulator.creates()) == 1


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_a_record_of_another_version(fault_case: Callable[..., FaultCase], change: str) -> None:
    case = fault_case()
    assert case.user.ssh("dm-foo", "true").returncode == 0
    record = case.user.record("dm-foo")
    if change == "more":
        record["attempt"]["brand_new"] = 1
    else:
        del record["ready"]["began_at"]
    path = case.user.state / "sessions" / "dm-foo.json"
    path.write_text(json.dumps(record))
    case.check_ssh(f"a record with {change} fields", IN)


def test_a_clock_set_back(fault_case: Callable[..., FaultCase]) -> None:
    case = fault_case()
    assert case.user.ssh("dm-foo", "true").returncode == 0
    record = case.user.record("dm-foo")
    for name in ("proved_at", "began_at"):
        record["ready"][name] += 7200
    (case.user.state / "sessions" / "dm-foo.json").write_text(json.dumps(record))
    warm = case.user.state / "sessions" / "dm-foo.warm"
    fields = warm.read_text().split("\0")
    for number in (helper.PREPARE_TIMES, helper.CONNECT_TIMES):
        begin, end = map(float, fields[number].split())
        fields[number] = f"{begin + 7200} {end + 7200}"
    warm.write_text("\0".join(fields))
    case.check_ssh("clock set back two hours", IN)
    assert case.emulator.events(method="GET", status=200, machine="dm-foo")
