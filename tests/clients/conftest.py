"""Ansible with our collection."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.clients.ansible_controller import SOURCE, Controller
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the collection and install the archive; return the path of collections.

    One is enough for all of pytest's workers, whose temporary directories have the same parent.
    """
    own = tmp_path_factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "collections"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "ansible_collections").exists():
            _install(directory)
    return directory


def _install(directory: Path) -> None:
    user = User()
    try:
        galaxy = partial(Controller(user, directory).run, "ansible-galaxy", "collection")
        built = galaxy("build", str(SOURCE), "--output-path", str(directory))
        assert built.returncode == 0, built.stderr
        (archive,) = directory.glob("dedalus-dcs-*.tar.gz")
        installed = galaxy("install", str(archive), "-p", str(directory))
        assert installed.returncode == 0, installed.stderr
    finally:
        user.close()


@pytest.fixture
def controller(start_emulator: Start, user: User, collections: Path) -> Iterator[Controller]:
    """The user's Ansible; its connections end before the emulators do."""
    made = Controller(user, collections)
    yield made
    made.end_masters()
