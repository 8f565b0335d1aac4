from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dcs_proxy.local import programs
from dcs_proxy.local.programs import find_program, install_hint, run, start

EMPTY: dict[str, str] = {}


def python(text: str, **more: float) -> list[str]:
    return [sys.executable, "-I", "-c", f"import os, sys, time\n{text}"]


def test_a_program_gets_the_environment_without_the_api_key() -> None:
    environment = {"DEDALUS_API_KEY": "dsk-1", "DEDALUS_X_API_KEY": "dsk-2", "OTHER": "1"}
    done = run(python("print(*os.environ)"), environment=environment, limit_s=60)
    assert b"OTHER" in done.stdout
    assert b"DEDALUS" not in done.stdout
    assert "DEDALUS_API_KEY" in environment


@pytest.mark.parametrize(
    ("path", "rest"),
    [(":/usr/bin:.:../x:/bin:", "/usr/bin:/bin"), (".", os.defpath), ("", os.defpath)],
)
def test_a_program_gets_no_relative_entry_of_path(path: str, rest: str) -> None:
    done = run(python("print(os.environ['PATH'])"), environment={"PATH": path}, limit_s=60)
    assert done.stdout.decode() == f"{rest}\n"


def test_status_and_both_streams_are_returned() -> None:
    text = "print('a'); print('b', file=sys.stderr); sys.exit(3)"
    done = run(python(text), environment=EMPTY, limit_s=60)
    assert (done.status, done.stdout, done.stderr, done.is_cut) == (3, b"a\n", b"b\n", False)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_program_that_prints_without_end_is_killed(stream: str) -> None:
    text = f"while True: sys.{stream}.write('x' * 65536)"
    done = run(python(text), environment=EMPTY, limit_s=60, max_output=100_000)
    assert done.is_cut
    assert done.status == -9
    assert {len(done.stdout), len(done.stderr)} == {0, 100_000}


def test_a_program_that_does_not_end_is_killed(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    text = f"open({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(1000)"

    def turn() -> None:
        if marker.exists() and marker.read_text():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(python(text), environment=EMPTY, limit_s=60, turn=turn)
    assert not os.path.exists(f"/proc/{marker.read_text()}")
    with pytest.raises(TimeoutError):
        run(python("time.sleep(1000)"), environment=EMPTY, limit_s=0.2)


def test_one_that_closes_its_streams_is_still_waited_for() -> None:
    text = "os.close(1); os.close(2); time.sleep(0.2); os._exit(7)"
    assert run(python(text), environment=EMPTY, limit_s=60).status == 7


def test_a_background_process_that_keeps_the_streams_open_delays_nothing() -> None:
    text = "print('a', flush=True)\nif os.fork() == 0: time.sleep(5)"
    begin = time.monotonic()
    done = run(python(text), environment=EMPTY, limit_s=60)
    assert (done.status, done.stdout) == (0, b"a\n")
    assert time.monotonic() - begin < 5


def put(directory: Path, mode: int = 0o755) -> str:
    directory.mkdir(exist_ok=True)
    path = directory / "tool"
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_relative_entries_of_path_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "trap")
    real = put(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "trap")
    for path in ("", ".", "../trap", "trap/../../trap"):
        assert find_program("tool", {"PATH": path}) is None
        assert find_program("tool", {"PATH": f"{path}:{tmp_path}/real"}) == real
    assert find_program("tool", {"PATH": ""}, [str(tmp_path / "real")]) == real


def test_only_what_can_be_executed_is_a_program(tmp_path: Path) -> None:
    put(tmp_path / "text", 0o644)
    (tmp_path / "directory" / "tool").mkdir(parents=True)
    path = f"{tmp_path}/nowhere:{tmp_path}/text:{tmp_path}/directory"
    assert find_program("tool", {"PATH": path}) is None


def test_a_relative_path_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    monkeypatch.chdir(tmp_path)
    for word in ("tool", "./tool"):
        with pytest.raises(FileNotFoundError):
            start([word], environment={"PATH": str(tmp_path)})


def test_streams_are_closed_unless_named(tmp_path: Path) -> None:
    text = "print(sys.stdin.read()); print([os.fstat(fd).st_rdev for fd in (0, 2)])"
    with start(python(text), environment=EMPTY, stdout=subprocess.PIPE) as process:
        assert process.stdout
        said = process.stdout.read()
    null = os.stat(os.devnull).st_rdev
    assert said == f"\n[{null}, {null}]\n".encode()


@pytest.mark.parametrize(
    ("managers", "command"),
    [
        (["apt-get"], "sudo apt-get install openssh-client"),
        (["dnf"], "sudo dnf install openssh-clients"),
        (["apk"], "sudo apk add openssh-client"),
        (["apt-get", "brew"], "brew install openssh"),
        (["pacman"], "sudo pacman -S openssh"),
        ([], None),
    ],
)
def test_the_hint_is_for_this_computers_package_manager(
    managers: list[str], command: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_MANAGER_DIRECTORIES", ())
    for manager in managers:
        (tmp_path / manager).touch(0o700)
    more = f": {command}" if command else ""
    assert install_hint({"PATH": str(tmp_path)}) == f"install OpenSSH's client{more}"


def test_without_path_the_systems_own_directories_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put(tmp_path / "first"), put(tmp_path / "second")
    monkeypatch.setattr(os, "defpath", str(tmp_path / "first"))
    assert find_program("tool", {}) == first
    assert find_program("tool", {}, [str(tmp_path / "second")]) == first
    environment = {"PATH": f"{tmp_path}/second:{tmp_path}/first"}
    assert find_program("tool", environment) == second, "the first in PATH"
    assert find_program("other", environment, [str(tmp_path)]) is None


@pytest.mark.parametrize("manager", ["zypper", "pkg", "brew", "pacman"])
def test_a_package_manager_need_not_be_in_path(
    manager: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_MANAGER_DIRECTORIES", (str(tmp_path),))
    (tmp_path / manager).touch(0o700)
    assert manager in install_hint({"PATH": "/nowhere"})


def test_a_program_runs_where_and_as_it_is_told(tmp_path: Path) -> None:
    text = "print(os.getcwd(), os.getsid(0) == os.getpid(), len(sys.argv))"
    for cwd, new_session in ((str(tmp_path), True), ("/", False)):
        with start(
            python(text), environment=EMPTY, cwd=cwd, new_session=new_session,
            stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout
            assert process.stdout.read().decode() == f"{cwd} {new_session} 1\n"


def test_a_program_that_prints_just_to_the_limit_is_cut_there() -> None:
    done = run(python("print('x' * 99)"), environment=EMPTY, limit_s=60, max_output=101)
    assert (done.is_cut, len(done.stdout), done.status) == (False, 100, 0)


def test_output_that_comes_with_the_exit_is_not_lost() -> None:
    """More than a pipe holds, on both streams."""
    text = "sys.stdout.write('a' * 150_000); sys.stderr.write('b' * 150_000)"
    done = run(python(text), environment=EMPTY, limit_s=60)
    assert (done.stdout, done.stderr) == (b"a" * 150_000, b"b" * 150_000)


def test_a_program_that_is_told_to_be_patient_is_asked_ten_times_a_second() -> None:
    turns: list[float] = []
    run(python("time.sleep(0.25)"), environment=EMPTY, limit_s=60,
        turn=lambda: turns.append(time.monotonic()))  # fmt: skip
    assert len(turns) >= 2


def test_the_streams_of_a_program_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must neither read what ssh sends nor write where the user looks."""
    started: list[dict[str, object]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: started.append(options))
    start(["/bin/true"], environment={"A": "1"})
    (options,) = started
    streams = (options["stdin"], options["stdout"], options["stderr"])
    assert streams == (subprocess.DEVNULL,) * 3
    assert options["env"] == {"A": "1"}


def test_no_descriptor_of_a_program_that_ran_stays_open() -> None:
    before = os.listdir("/dev/fd")
    run(python("print('a')"), environment=EMPTY, limit_s=60)
    assert run(python("print('x' * 999)"), environment=EMPTY, limit_s=60, max_output=9).is_cut
    with pytest.raises(TimeoutError):
        run(python("time.sleep(1000)"), environment=EMPTY, limit_s=0)
    assert os.listdir("/dev/fd") == before
