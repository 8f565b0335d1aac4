"""Fixtures: emulators and users, ended and removed after each test."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from dcs_proxy.cli import main
from tests.support.emulator import Emulator, key_file
from tests.support.emulator_processes import fork, start_program
from tests.support.fake_agent import socket_directory
from tests.support.faults import GIVES_UP_S, KEY, PATIENT_S, FaultCase, Start
from tests.support.groups import Groups
from tests.support.prism import compared
from tests.support.private_agents import Authority, Place, make_authority
from tests.support.user import User
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.secret_service import SecretService


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked both_ids with both kinds of ids."""
    is_marked = metafunc.definition.get_closest_marker("both_ids") is not None
    if is_marked and "ids" in metafunc.fixturenames:
        metafunc.parametrize("ids", ["dm", "uuid"], indirect=True)


@pytest.fixture
def ids(request: pytest.FixtureRequest) -> str:
    """The kind of ids that emulators use, unless their arguments name one."""
    return str(getattr(request, "param", "dm"))


@pytest.fixture
def start_emulator(
    tmp_path: Path, request: pytest.FixtureRequest, ids: str
) -> Iterator[Callable[..., Emulator]]:
    """Start emulators with the given arguments, as forks unless asked for the program."""
    numbers = itertools.count()
    # One that gave a reply which breaks the contract must not leave the others running.
    with ExitStack() as started:

        def start(*arguments: str, as_program: bool = False) -> Emulator:
            directory = tmp_path / f"emulator-{next(numbers)}"
            directory.mkdir()
            kind = () if "--ids" in arguments else ("--ids", ids)
            emulator = Emulator(
                directory, *kind, *arguments, start=start_program if as_program else fork
            )
            started.callback(emulator.stop)
            if request.config.getoption("--through-prism"):
                emulator.in_between = started.enter_context(compared(emulator.api, directory))
            return emulator

        yield start


@pytest.fixture
def make_user() -> Iterator[Callable[..., User]]:
    """Make users, each with a home of their own."""
    made: list[User] = []

    def make() -> User:
        made.append(User())
        return made[-1]

    yield make
    for user in made:
        user.close()


@pytest.fixture
def user(make_user: Callable[..., User]) -> User:
    """One user."""
    return make_user()


@pytest.fixture
def call(
    user: User, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run dcs-proxy as the user, in this process: what scores of cases need.

    A start of Python and its imports cost half of a short command.  Other tests of the same
    command show the program.
    """

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(user.root)
        capfd.readouterr()
        with mock.patch.dict(os.environ, user.environment, clear=True):
            status = main(arguments)
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return run


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    """The computer's groups, for code that this process runs."""
    return Groups(monkeypatch)


@pytest.fixture
def keyring(user: User) -> Iterator[SecretService]:
    """The user's keyring, unlocked and empty."""
    # Its libraries exist on Linux only.
    from tests.support.secret_service import SecretService

    service = SecretService(user)
    yield service
    service.close()


@pytest.fixture
def place() -> Iterator[Place]:
    with socket_directory() as directory:
        place = Place(directory)
        try:
            yield place
        finally:
            for pid in place.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not place.pids())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path, "ca")


@pytest.fixture
def fault_case(
    start_emulator: Start,
    user: User,
    record_property: Callable[[str, object], None],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., FaultCase]:
    """Make a FaultCase; the arguments are the emulator's.

    Only a command that `gives_up`, because what it waits for never comes, has a short deadline.
    """

    def make(
        *arguments: str, settings: str = "", machine: str = "dm-foo", gives_up: bool = False
    ) -> FaultCase:
        emulator = start_emulator(
            "--machine", machine, "--wake-seconds", "1",
            "--api-key-file", key_file(tmp_path, KEY), *arguments,
        )  # fmt: skip
        limit_s = GIVES_UP_S if gives_up else PATIENT_S
        user.settings(f"wake_seconds = {limit_s}\n{settings}")
        user.use(emulator)
        return FaultCase(user, emulator, record_property, lambda: capfd.readouterr().err, settings)

    return make
