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
from tests.support.faults import IN, Play, readable
from tests.support.user import helpers_for
from tests.support.waiting import LIMIT_S, wait_until


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
    stage.meet("private agent locked", IN)


def test_an_agent_that_refuses_certificates(play: Callable[..., Play]) -> None:
    from tests.support.fake_agent import Store, fake_agent

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
    from tests.support.fake_agent import fake_agent

    with fake_agent() as agent:
        stage = play(settings='agent = "user"\n')
        stage.user.environment["SSH_AUTH_SOCK"] = agent.path
        stage.meet("agent refuses everything", "does not accept an identity\n.*1Password")
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


def test_a_state_directory_that_cannot_be_written_is_reported_once(
    play: Callable[..., Play],
) -> None:
    stage = play()
    runtime = stage.user.root / "runtime"
    runtime.mkdir(mode=0o700)
    stage.user.environment["XDG_RUNTIME_DIR"] = str(runtime)
    sessions = stage.user.state / "sessions"
    sessions.chmod(0o500)
    # As root the tests may write everywhere, until the right to do so is taken away.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    words = [*(powerless if os.geteuid() == 0 else ()), "ssh", "-F", str(stage.user.config)]
    done = stage.user.run([*words, "dm-foo", "true"])
    sessions.chmod(0o700)
    assert done.returncode == 255
    assert done.stderr.count("Permission denied") == 1, done.stderr
    assert os.listdir(runtime) == []


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
