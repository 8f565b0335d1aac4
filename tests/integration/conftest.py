"""Fixtures: emulators and users, ended and removed after each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.prism import compared
from tests.integration.harness import Emulator, User
from tests.integration.secret_service import SecretService


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
    """Start emulators with the given arguments."""
    numbers = itertools.count()
    # One that gave a reply which breaks the contract must not leave the others running.
    with ExitStack() as started:

        def start(*arguments: str) -> Emulator:
            directory = tmp_path / f"emulator-{next(numbers)}"
            directory.mkdir()
            kind = () if "--ids" in arguments else ("--ids", ids)
            emulator = Emulator(directory, *kind, *arguments)
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
def keyring(user: User) -> Iterator[SecretService]:
    """The user's keyring, unlocked and empty."""
    service = SecretService(user)
    yield service
    service.close()
