from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dcs_proxy.errors import DeadlineExceeded, StateError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.lock import FileLock, try_lock
from dcs_proxy.names import MachineName, file_stem
from dcs_proxy.session.directory import (
    StateDirectory,
    _is_older,
    default_state_directory,
    read_ssh_configs,
)
from dcs_proxy.session.records import Attempt, Failure, ReadySession, Record

NAME = MachineName("dm-foo")
ATTEMPT = Attempt("key-1", "ab" * 32, "/agent.sock", 2000.0, "account", "wssh-1", True)
READY = ReadySession(
    "ssh.example", 22, "wssh-1", "ssh-ed25519 AAAA", "", True, 3000.0, 1000.0, 1000.0
)
RECORD = Record(ATTEMPT, READY, "cd" * 6, "wssh-0")
DATA = json.dumps(asdict(RECORD)).encode()


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(str(tmp_path / "state"))


def test_a_record_comes_back_as_it_was_written(state: StateDirectory) -> None:
    assert state.load(NAME) is None
    for record in (RECORD, Record(ATTEMPT), replace(RECORD, previous_token="")):
        state.save(NAME, record)
        assert state.load(NAME) == record
    state.forget(NAME)
    assert state.load(NAME) is None


def test_everything_is_for_us_alone(state: StateDirectory) -> None:
    state.save(NAME, RECORD)
    with state.lock(NAME, Deadline(1)):
        pass
    for directory, _, names in os.walk(state.path):
        assert os.stat(directory).st_mode & 0o777 == 0o700
        assert all(os.stat(os.path.join(directory, n)).st_mode & 0o777 == 0o600 for n in names)


def test_a_failure_comes_back_as_it_was_written(state: StateDirectory) -> None:
    failure = Failure(9, "it failed", "try again", 1000.0)
    assert state.load_failure(NAME) is None
    state.save_failure(NAME, failure)
    assert state.load_failure(NAME) == failure


HOLD = """
import sys
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.session.directory import StateDirectory, read_ssh_configs
with StateDirectory(sys.argv[1]).lock("dm-foo", Deadline(60)):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_held_elsewhere_is_named_when_the_deadline_passes(state: StateDirectory) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, state.path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(DeadlineExceeded, match=rf"\(process {holder.pid}\)"),
            state.lock(NAME, Deadline(0.2)),
        ):
            pass
        with state.lock(NAME, Deadline(60), lambda: True) as mine:
            assert not mine
        holder.communicate("")
    with state.lock(NAME, Deadline(60)) as mine:
        assert mine


def test_garbage_of_ended_sessions_goes_and_the_rest_stays(state: StateDirectory) -> None:
    other = MachineName("dm-bar")
    for name, ends_at in ((NAME, 1000.0), (other, 90_000.0)):
        with state.lock(name, Deadline(1)):
            state.save(name, replace(RECORD, ready=replace(READY, ends_at=ends_at)))
        Path(state.snippet_path(name)).touch()
        Path(state.session_path(name, ".abababababab.known_hosts")).touch()
        os.utime(state.session_path(name, ".lock"), (1000.0, 1000.0))
    temporary = Path(state.file("sessions", ".x.1.tmp"))
    temporary.touch()
    os.utime(temporary, (1000.0, 1000.0))
    state.collect_garbage(now=50_000.0)
    left = {name for part in ("hosts", "sessions") for name in os.listdir(state.file(part))}
    assert left == {
        "dm-bar.conf", "dm-bar.json", "dm-bar.lock", "dm-bar.abababababab.known_hosts"
    }  # fmt: skip


@pytest.mark.parametrize(("age", "is_gone"), [(299, False), (301, True)])
@pytest.mark.parametrize("what", ["record", "lock", "hosts", "sessions", "agents", ""])
def test_garbage_is_five_minutes_old(
    state: StateDirectory, what: str, age: int, is_gone: bool
) -> None:
    now = 50_000.0
    ended = {"record": now - age}.get(what, 1000.0)
    locked = {"lock": now - age}.get(what, 1000.0)
    with state.lock(NAME, Deadline(1)):
        state.save(NAME, replace(RECORD, ready=replace(READY, ends_at=ended)))
    os.utime(state.session_path(NAME, ".lock"), (locked, locked))
    path = Path(state.session_path(NAME, ".json"))
    if what not in ("record", "lock"):
        path = Path(state.file(what, ".left.1.tmp"))
        path.touch()
        os.utime(path, (now - age, now - age))
    state.collect_garbage(now)
    assert path.exists() is not is_gone


def test_a_temporary_file_that_its_writer_renames_meanwhile_is_no_garbage(tmp_path: Path) -> None:
    (tmp_path / ".x.1.tmp").touch()
    (entry,) = os.scandir(tmp_path)
    (tmp_path / ".x.1.tmp").rename(tmp_path / "x")
    assert _is_older(entry, 9e9) is False


def test_the_fast_path_finds_the_use_of_a_session(state: StateDirectory) -> None:
    assert state.use_path(NAME) == f"{state.path}/sessions/dm-foo.used"


def test_a_machine_that_is_worked_on_is_no_garbage(state: StateDirectory) -> None:
    with state.lock(NAME, Deadline(1)):
        os.utime(state.session_path(NAME, ".lock"), (1000.0, 1000.0))
        state.collect_garbage(now=50_000.0)
        assert os.path.exists(state.session_path(NAME, ".lock"))


def test_a_session_that_begins_while_garbage_is_collected_stays(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with state.lock(NAME, Deadline(1)):
        pass
    os.utime(state.session_path(NAME, ".lock"), (1000.0, 1000.0))

    def lock_after_another_process(path: str) -> FileLock | None:
        state.save(NAME, replace(RECORD, ready=replace(READY, ends_at=90_000.0)))
        return try_lock(path)

    monkeypatch.setattr("dcs_proxy.session.directory.try_lock", lock_after_another_process)
    state.collect_garbage(now=50_000.0)
    assert state.load(NAME) is not None


def test_every_machine_with_a_record_is_known_by_its_whole_name(state: StateDirectory) -> None:
    long = MachineName("dm-" + "a" * 249 + "b")
    for name in (NAME, long):
        state.save(name, replace(RECORD, attempt=replace(ATTEMPT, machine=name)))
    earlier = asdict(RECORD)
    del earlier["attempt"]["machine"]
    for name in ("dm-earlier.json", "notes.json", "dm-.json"):
        write(state, name, json.dumps(earlier).encode())
    lying = replace(RECORD, attempt=replace(ATTEMPT, machine="dm-foo"))
    write(state, "dm-bar.json", json.dumps(asdict(lying)).encode())
    write(state, "dm-damaged.json", DATA[:-1])
    write(state, "dm-not.failure", DATA)
    assert state.machines() == sorted([NAME, long, MachineName("dm-earlier")])


def write(state: StateDirectory, name: str, data: bytes) -> None:
    Path(state.file("sessions", name)).write_bytes(data)


def test_the_names_of_machines_are_written_whole(state: StateDirectory) -> None:
    state.save_machines([NAME, MachineName("dm-bar")])
    assert Path(state.file("machines")).read_text() == "dm-foo\ndm-bar\n"
    assert state.saved_machines() == [NAME, "dm-bar"]


def test_saved_names_that_are_no_names_are_left_out(state: StateDirectory) -> None:
    assert state.saved_machines() == []
    Path(state.file("machines")).write_bytes(b"dm-foo\n\nnot a name\n\xff\n* ssh-rsa AAAA\ndm-b")
    Path(state.file("machines")).chmod(0o600)
    assert state.saved_machines() == [NAME, "dm-b"]


def test_garbage_of_one_machine_is_not_that_of_one_whose_name_begins_alike(
    state: StateDirectory,
) -> None:
    longer = MachineName("dm-foo-2")
    state.save(longer, replace(RECORD, ready=replace(READY, ends_at=90_000.0)))
    with state.lock(NAME, Deadline(1)):
        state.save(NAME, RECORD)
    os.utime(state.session_path(NAME, ".lock"), (1000.0, 1000.0))
    state.collect_garbage(now=50_000.0)
    assert state.load(NAME) is None
    assert state.load(longer) is not None


def test_a_name_that_begins_a_long_one_does_not_take_its_files_for_garbage(
    state: StateDirectory,
) -> None:
    long = MachineName("dm-" + "a" * 250)
    short = MachineName(file_stem(long).partition(".")[0])
    with state.lock(short, Deadline(1)), state.lock(long, Deadline(1)):
        state.save(short, RECORD)
        state.save(long, replace(RECORD, ready=replace(READY, ends_at=90_000.0)))
    os.utime(state.session_path(short, ".lock"), (1000.0, 1000.0))
    state.collect_garbage(now=50_000.0)
    assert state.load(short) is None
    assert state.load(long) is not None
    assert os.path.exists(state.session_path(long, ".lock"))


@pytest.mark.parametrize("is_other", [False, True])
def test_only_the_record_that_was_read_is_marked_for_a_question(
    state: StateDirectory, is_other: bool
) -> None:
    written = replace(RECORD, previous_username="another") if is_other else RECORD
    state.save(NAME, written)
    state.expire(NAME, RECORD, 5.0)
    loaded = state.load(NAME)
    assert loaded is not None and loaded.ready is not None
    assert loaded.ready.proved_at == (READY.proved_at if is_other else 5.0)


def test_each_ssh_config_is_noted_once_for_uninstall(state: StateDirectory) -> None:
    assert read_ssh_configs(state.path) == []
    for path in ("/home/me/.ssh/config", "/other config", "/home/me/.ssh/config"):
        state.add_ssh_config(path)
    assert read_ssh_configs(state.path) == ["/home/me/.ssh/config", "/other config"]
    noted = Path(state.file("ssh-configs"))
    assert noted.read_text() == "/home/me/.ssh/config\n/other config\n"
    noted.write_text("relative\n\n/home/me/.ssh/config\n")
    assert read_ssh_configs(state.path) == ["/home/me/.ssh/config"]


def test_what_is_forgotten_is_out_of_reach_of_ssh_first(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh reads the snippet; a process that is killed in between leaves none without a record."""
    state.save(NAME, RECORD)
    Path(state.snippet_path(NAME)).touch()
    removed: list[str] = []
    monkeypatch.setattr(
        "dcs_proxy.session.directory.remove_file", lambda path: removed.append(path)
    )
    state.forget(NAME)
    assert removed == [state.snippet_path(NAME), state.session_path(NAME, ".json")]


def test_a_directory_that_is_only_looked_at_is_not_made(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path / "none"), create=False)
    assert (state.machines(), state.saved_machines(), state.load(NAME)) == ([], [], None)
    assert read_ssh_configs(state.path) == [] and state.load_failure(NAME) is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", ["", "hosts", "sessions", "agents"])
@pytest.mark.parametrize("create", [True, False])
def test_no_part_of_the_directory_may_be_writable_by_others(
    state: StateDirectory, part: str, create: bool
) -> None:
    path = state.file(part).rstrip("/")
    os.chmod(path, 0o777)
    with pytest.raises(StateError, match=f"the state directory {path} is writable"):
        StateDirectory(state.path, create=create)


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({}, "/home/me/.ssh/dcs-proxy"),
        ({"DCS_PROXY_HOME": ""}, "/home/me/.ssh/dcs-proxy"),
        ({"DCS_PROXY_HOME": "~/state"}, "/home/me/state"),
        ({"DCS_PROXY_HOME": "/var/x/"}, "/var/x"),
    ],
)
def test_the_state_directory_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], path: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert default_state_directory(environment) == path


def test_a_session_that_was_asked_about_for_an_ssh_is_not_doubtful(state: StateDirectory) -> None:
    assert not state.is_doubtful(NAME, 1000.0), "no ssh has used it"
    state.save_use(NAME, 4242, 2000.0)
    assert not state.is_doubtful(NAME, 1000.0)
    path = Path(state.use_path(NAME))
    # An ssh that is not there any more has used it, and the API was not asked.
    path.write_bytes(path.read_bytes().replace(b"a", b"-").replace(b"0000004242", b"9999999999"))
    assert not state.is_doubtful(NAME, 1999.0) and state.is_doubtful(NAME, 2000.0)
    path.unlink()
    path.mkdir()
    assert state.is_doubtful(NAME, 1000.0), "what cannot be read is asked about"


def test_a_session_that_is_not_ready_cannot_be_marked(state: StateDirectory) -> None:
    state.save(NAME, Record(ATTEMPT))
    state.expire(NAME, Record(ATTEMPT), 5.0)
    assert state.load(NAME) == Record(ATTEMPT)
    state.forget(NAME)
    state.expire(NAME, RECORD, 5.0)
    assert state.load(NAME) is None, "it was removed meanwhile"


def test_all_files_of_an_ended_session_go_and_other_old_files_stay(state: StateDirectory) -> None:
    with state.lock(NAME, Deadline(1)):
        state.save(NAME, RECORD)
    ours = [".used", ".warm", ".failure", ".abababababab-cert.pub", ".abababababab.pub"]
    for suffix in ours:
        Path(state.session_path(NAME, suffix)).touch()
    stay = ["launcher", "hosts/dm-x.conf", "agents/only.conf", "sessions/dm-x.json", "sessions/tmp"]
    go = [".launcher.1.tmp", "hosts/.dm-x.conf.1.tmp", "agents/.only.conf.1.tmp"]
    for name in [*stay, *go, "sessions/1-2.failed"]:
        Path(state.file(*name.split("/"))).touch()
    for directory, _, names in os.walk(state.path):
        for name in names:
            os.utime(os.path.join(directory, name), (1000.0, 1000.0))
    state.collect_garbage(now=50_000.0)
    left = {
        os.path.relpath(os.path.join(directory, name), state.path)
        for directory, _, names in os.walk(state.path)
        for name in names
    }
    assert left == set(stay)


def test_a_lock_that_is_free_is_taken_without_asking_whether_to_stop(
    state: StateDirectory,
) -> None:
    with state.lock(NAME, Deadline(0), lambda: pytest.fail("it was asked")) as mine:
        assert mine
        with state.lock(NAME, Deadline(60), lambda: True) as second:
            assert not second
    with pytest.raises(KeyError), state.lock(NAME, Deadline(1)):
        raise KeyError
    with state.lock(NAME, Deadline(0)) as mine:
        assert mine, "it was released"


def test_the_holder_of_a_lock_can_be_looked_at(state: StateDirectory) -> None:
    with state.lock(NAME, Deadline(1)):
        with pytest.raises(DeadlineExceeded) as caught, state.lock(NAME, Deadline(0)):
            pass
        assert caught.value.message == (
            f"another dcs-proxy (process {os.getpid()}) has been working on this machine for 0 s"
        )
        assert caught.value.hint == (
            f"to see what it is doing: ps -o stat,lstart,args {os.getpid()}"
        )
        Path(state.session_path(NAME, ".lock")).write_text("")
        with pytest.raises(DeadlineExceeded) as caught, state.lock(NAME, Deadline(0)):
            pass
        assert (caught.value.message, caught.value.hint) == (
            "another dcs-proxy has been working on this machine for 0 s", "",
        )  # fmt: skip


def test_names_of_a_hundred_thousand_machines_are_read(state: StateDirectory) -> None:
    names = [MachineName(f"dm-{number:08}-aaaa-bbbb") for number in range(100_000)]
    state.save_machines(names)
    assert len(state.saved_machines()) == 100_000
