"""The log that real connections leave, and dcs-proxy log."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.local.log import LIMIT
from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]
LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) \[(?P<pid>\d+)/(?P<ssh>\d+)\] "
    r"(?P<event>[a-z-]+)(?P<values>( [a-z_]+=.+)?)"
)


@pytest.fixture
def ready(start_emulator: Start, user: User) -> User:
    """A user with two sleeping machines, one of which has an alias."""
    user.settings('[aliases]\ndm-web = "dm-foo"\n')
    emulator = start_emulator(
        "--machine", "dm-foo:sleeping", "--machine", "dm-bar", "--wake-seconds", "1"
    )
    return user.use(emulator)


def entries(user: User, *arguments: str) -> list[re.Match[str]]:
    """Return the lines of `dcs-proxy log`, each taken apart."""
    done = user.proxy("log", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(found), done.stdout
    return [match for match in found if match]


def connect(user: User, host: str = "dm-foo") -> int:
    """Type ssh, which must get in; return its process number."""
    ssh = user.start_ssh(host, "true")
    _, errors = ssh.communicate()
    assert ssh.returncode == 0, errors
    return ssh.pid


def test_a_wake_is_told_from_the_request_to_the_connection(ready: User) -> None:
    ssh = connect(ready)
    told = [entry for entry in entries(ready, "dm-foo") if int(entry["ssh"]) == ssh]
    events = [entry["event"] for entry in told]
    order = ["api", "session", "ready", "guest-ready", "prepared", "connected"]
    assert sorted(set(events) & set(order), key=events.index) == order
    ready_line = next(entry["values"] for entry in told if entry["event"] == "ready")
    assert re.search(r" session=wssh-\S+ login=wssh-\S+ seconds=\d+ ms=\d+$", ready_line)
    api = [entry["values"] for entry in told if entry["event"] == "api"]
    assert all(re.search(r" status=\d+ request=\S+ ms=\d+$", values) for values in api)


def test_a_warm_connection_leaves_one_line(ready: User) -> None:
    connect(ready)
    before = len(entries(ready))
    ssh = connect(ready)
    (entry,) = entries(ready)[before:]
    assert (entry["event"], int(entry["ssh"])) == ("connected", ssh)
    assert re.fullmatch(
        r" machine=dm-foo login=wssh-\S+ warm=yes fdpass=yes ms=\d+", entry["values"]
    )


def test_off_leaves_nothing_and_debug_more(ready: User) -> None:
    (ready.state / "log").unlink()  # config-ssh has asked for the machines
    ready.environment["DCS_PROXY_LOG"] = "off"
    for _ in range(3):
        connect(ready)
    assert not (ready.state / "log").exists()
    done = ready.proxy("log")
    assert (done.returncode, done.stdout) == (0, "") and "there is no log yet" in done.stderr
    ready.environment["DCS_PROXY_LOG"] = "debug"
    connect(ready, "dm-bar")
    events = {entry["event"] for entry in entries(ready)}
    assert {"lock", "agent", "api", "ready", "prepared"} <= events


def test_a_machine_is_told_from_another_and_known_by_its_alias(ready: User) -> None:
    for host in ("dm-bar", "dm-web", "dm-web", "dm-web"):
        connect(ready, host)
    assert "dm-foo" not in "".join(entry["values"] for entry in entries(ready, "dm-bar"))
    by_name, by_alias = ([e[0] for e in entries(ready, host)] for host in ("dm-foo", "dm-web"))
    assert by_name == by_alias
    assert any(" machine=dm-web " in line for line in by_name)
    assert any(" machine=dm-foo " in line for line in by_name)
    wrong = ready.proxy("log", "foo_")
    assert wrong.returncode == 2 and "is not the name of a machine" in wrong.stderr


def test_a_machine_without_a_line_is_named(ready: User) -> None:
    connect(ready, "dm-bar")
    for host in ("dm-foo", "dm-web", "dm-none"):
        done = ready.proxy("log", host)
        assert (done.returncode, done.stdout) == (0, "")
        first, hint = done.stderr.splitlines()
        assert first == f"dcs-proxy: {host}: the log has nothing about this machine"
        assert "dcs-proxy list" in hint
    (ready.state / "log").unlink()
    done = ready.proxy("log", "dm-foo")
    assert done.stderr == f"dcs-proxy: there is no log yet at {ready.state}/log\n"


def test_a_failure_is_told_with_its_code(ready: User) -> None:
    assert ready.ssh("dm-none", "true").returncode == 255
    failed = [entry for entry in entries(ready, "dm-none") if entry["event"] == "failed"]
    assert " code=6 " in failed[0]["values"] and "no such machine" in failed[0]["values"]


@pytest.fixture
def followed(ready: User) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """`dcs-proxy log -f dm-foo`, and what it has printed so far."""
    program = ready.start(sys.executable, "-m", "dcs_proxy", "log", "-f", "dm-foo")
    lines: list[str] = []

    def read() -> None:
        assert program.stdout
        for line in program.stdout:
            lines.append(line.decode().rstrip("\n"))

    thread = threading.Thread(target=read)
    thread.start()
    yield program, lines
    program.kill()
    thread.join()


def test_following_goes_on_across_a_rotation(
    ready: User, followed: tuple[subprocess.Popen[bytes], list[str]]
) -> None:
    program, lines = followed
    log = ready.state / "log"
    connect(ready)
    wait_until(lambda: any(" connected " in line for line in lines))
    with log.open("a") as file:
        file.write("2026-01-01T00:00:00.000Z [1/1] filler machine=dm-bar\n" * (LIMIT // 50))
    ssh = connect(ready)  # warm: it leaves the rotation to the next
    connect(ready, "dm-bar")
    wait_until(lambda: Path(f"{log}.1").exists())
    last = connect(ready)
    wait_until(lambda: any(f"/{last}] connected" in line for line in lines))
    assert sum(f"/{ssh}] connected" in line for line in lines) == 1
    assert lines == [entry[0] for entry in entries(ready, "dm-foo")]
    assert log.stat().st_size < LIMIT < Path(f"{log}.1").stat().st_size
    assert {log.stat().st_mode & 0o777, Path(f"{log}.1").stat().st_mode & 0o777} == {0o600}
    program.send_signal(signal.SIGINT)
    assert program.wait(30) == 130
    assert program.stderr and program.stderr.read() == b"dcs-proxy: interrupted\n"


def test_a_reader_that_goes_early_hears_no_complaint(ready: User) -> None:
    connect(ready)
    with (ready.state / "log").open("a") as file:
        file.write("2026-01-01T00:00:00.000Z [1/1] filler\n" * 10_000)
    script = f"{sys.executable} -m dcs_proxy log | head -n 1"
    done = ready.run(["bash", "-c", f"{script}; echo ${{PIPESTATUS[0]}}"])
    assert (done.stdout.splitlines()[1:], done.stderr) == (["0"], "")
