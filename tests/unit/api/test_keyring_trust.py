from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dcs_proxy.api.keyring_trust import keyring_environment
from dcs_proxy.errors import CredentialsError

BUS = "DBUS_SESSION_BUS_ADDRESS"


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_a_bus_of_ours_is_passed_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a b"))
        listener.listen()
        (tmp_path / "a b").chmod(0o777)
        for path in (tmp_path / "a b", f"{tmp_path}/a%20b"):
            environment = {BUS: f"unix:path={path},guid=0", "XDG_DATA_HOME": "/data", "A": "b"}
            assert keyring_environment(environment) == environment


def test_a_bus_that_does_not_exist_is_not_passed_on(tmp_path: Path) -> None:
    for address in (f"unix:path={tmp_path}/bus", f"unix:abstract={tmp_path}/bus",
                    f"unix:path={tmp_path}/bus/../bus;unix:path=/nowhere"):  # fmt: skip
        assert keyring_environment({BUS: address, "A": "b"}) == {"A": "b"}


@pytest.mark.parametrize(
    "address", ["", ":", "unix", "unix:", "unix:path", "autolaunch:", "tcp:a=b"]
)
def test_an_address_without_a_path_is_keyrings_own_business(address: str) -> None:
    assert keyring_environment({BUS: address}) == {BUS: address}


def test_a_bus_in_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "bus"))
        place.chmod(0o777)
        with pytest.raises(CredentialsError) as caught:
            keyring_environment({BUS: f"unix:path={place}/bus"})
        assert f"{place} is writable by other users" in caught.value.message
        assert caught.value.hint == f"unset {BUS}"
        place.chmod(0o1777)
        assert BUS in keyring_environment({BUS: f"unix:path={place}/bus"})


def test_directories_of_the_current_one_are_not_passed_on() -> None:
    given = {"XDG_CONFIG_HOME": ".", "XDG_DATA_HOME": "data", "HOME": os.environ["HOME"]}
    assert keyring_environment(given) == {"HOME": os.environ["HOME"]}
