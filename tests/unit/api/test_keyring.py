from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.api import keyring as system_keyring
from dcs_proxy.api import keyring_process
from dcs_proxy.api.keyring import SystemKeyring
from dcs_proxy.errors import ClientGone, CredentialsError, KeyringUnusable
from dcs_proxy.local.deadline import Deadline


def keyring(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    program: str,
    deadline: Deadline | None = None,
    limit_s: int = 60,
) -> SystemKeyring:
    """Return one whose process is `program`, which has sys, os and time."""
    path = tmp_path / "program.py"
    path.write_text(f"import os, sys, time\n{program}\n")
    monkeypatch.setattr(system_keyring, "_PROGRAM", str(path))
    environment = {"DEDALUS_API_KEY": "dsk-env", "DEDALUS_X_API_KEY": "dsk-env", "OTHER": "1"}
    notices: list[str] = []
    return SystemKeyring(
        "https://a", environment, deadline or Deadline(60), limit_s, notices.append
    )


def test_the_key_goes_through_pipes_and_the_rest_by_arguments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    tell = f"open({str(seen)!r}, 'w').write(repr((sys.argv[1:], sys.stdin.read(), *os.environ)))"
    keyring(monkeypatch, tmp_path, tell).store("dsk-new")
    told = seen.read_text()
    assert "(['65', 'set', 'dcs-proxy', 'https://a'], 'dsk-new', " in told
    assert "OTHER" in told and "DEDALUS" not in told


def test_what_it_prints_is_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert keyring(monkeypatch, tmp_path, "print('dsk-a', end='')").read() == "dsk-a"
    absent = f"sys.exit({keyring_process.ABSENT})"
    assert keyring(monkeypatch, tmp_path, absent).read() is None
    assert keyring(monkeypatch, tmp_path, absent).remove() is False
    assert keyring(monkeypatch, tmp_path, "").remove() is True


def test_it_says_which_keyring_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ring = keyring(monkeypatch, tmp_path, "print('of-' + sys.argv[2], end='')")
    assert (ring.name(), ring.store("dsk-a")) == ("of-name", "of-set")
    absent = keyring(monkeypatch, tmp_path, f"sys.exit({keyring_process.ABSENT})")
    assert absent.name() == absent.store("dsk-a") == ""


@pytest.mark.parametrize("isolated", [0, 1])
def test_it_is_as_isolated_as_we_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, isolated: int
) -> None:
    flags = SimpleNamespace(isolated=isolated)
    monkeypatch.setattr(
        system_keyring, "sys", SimpleNamespace(flags=flags, executable=sys.executable)
    )
    ring = keyring(monkeypatch, tmp_path, "print(sys.flags.isolated, end='')")
    assert ring.name() == str(isolated)


def test_one_that_has_ended_before_it_is_given_the_key_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = system_keyring.start

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = real(*arguments, **options)
        process.wait()
        return process

    monkeypatch.setattr(system_keyring, "start", start)
    with pytest.raises(CredentialsError, match="is locked"):
        keyring(monkeypatch, tmp_path, f"sys.exit({keyring_process.LOCKED})").store("dsk-a")


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (keyring_process.UNUSABLE, KeyringUnusable, "no usable system keyring (so it is)"),
        (keyring_process.LOCKED, CredentialsError, "the system keyring is locked"),
        (keyring_process.FAILED, CredentialsError, "the system keyring failed: so it is"),
        (1, CredentialsError, "the system keyring failed with exit status 1"),
    ],
)
def test_each_status_is_told_in_one_line_with_the_ways_out(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    status: int,
    kind: type[CredentialsError],
    said: str,
) -> None:
    # It ends without reading what it is given.
    ring = keyring(monkeypatch, tmp_path, f"print('so\\n\\x1bit is')\nsys.exit({status})")
    with pytest.raises(kind) as caught:
        ring.store("dsk-secret" * 400)
    assert said in caught.value.message
    assert "set DEDALUS_API_KEY, or store the key in a file: dcs-proxy login" in caught.value.hint
    assert "dsk" not in caught.value.one_line()


@pytest.mark.parametrize(("limit_s", "deadline_s"), [(0, 60.0), (60, 0.3)])
def test_waiting_ends_with_the_limit_or_the_deadline_and_so_does_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit_s: int, deadline_s: float
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    ring = keyring(monkeypatch, tmp_path, "time.sleep(600)", Deadline(deadline_s), limit_s)
    with pytest.raises(
        CredentialsError, match=r"not answered in [0-9.]+ s; it may be waiting to be unlocked"
    ):
        ring.read()
    assert [process.poll() for process in started] == [-signal.SIGKILL]


def test_what_else_there_is_to_do_is_done_while_the_process_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # It waits for what is done meanwhile.
    flag = tmp_path / "done"
    keyring(monkeypatch, tmp_path, f"while not os.path.exists({str(flag)!r}): time.sleep(0.01)")
    ring = SystemKeyring("https://a", os.environ, Deadline(60), 60, print, flag.touch)
    assert ring.read() == ""


def test_waiting_ends_when_the_client_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ClientGone):
        keyring(monkeypatch, tmp_path, "time.sleep(600)", Deadline(60, lambda: True)).read()


def test_the_process_has_no_terminal_and_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = os.listdir("/dev/fd")
    tell = "print(os.getsid(0) == os.getpid(), end='')"
    assert keyring(monkeypatch, tmp_path, tell).read() == "True"
    with pytest.raises(CredentialsError):
        keyring(monkeypatch, tmp_path, "time.sleep(600)", limit_s=0).read()
    assert os.listdir("/dev/fd") == before


def test_a_key_of_the_greatest_length_is_read_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert keyring(monkeypatch, tmp_path, "print('k' * 4096, end='')").read() == "k" * 4096


@pytest.mark.parametrize(
    ("limit_s", "deadline_s", "limits"),
    [(60, 600, [2.0, 58.0]), (1, 600, [1.0, -1.0]), (60, 10, [2.0, 8.0])],
)
def test_the_user_learns_after_two_seconds_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    limit_s: int,
    deadline_s: float,
    limits: list[float],
) -> None:
    asked: list[float] = []
    notices: list[str] = []

    class Over(Deadline):
        def call(self, function: Any, *, within_s: float) -> Any:
            asked.append(within_s)
            raise TimeoutError

    keyring(monkeypatch, tmp_path, "time.sleep(600)")
    ring = SystemKeyring("https://a", os.environ, Over(deadline_s), limit_s, notices.append)
    with pytest.raises(CredentialsError):
        ring.read()
    assert asked == pytest.approx(limits, abs=1)
    assert notices == ["waiting for the system keyring: look for a window that asks to unlock it"]
