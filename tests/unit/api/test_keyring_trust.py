from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

import pytest

from dcs_proxy.api import keyring_trust
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


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets")
@pytest.mark.parametrize(("uid", "is_refused"), [(None, False), (0, False), (4711, True)])
def test_an_abstract_bus_belongs_to_whoever_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int | None, is_refused: bool
) -> None:
    name = f"{tmp_path}/bus"
    monkeypatch.setattr(keyring_trust, "peer", lambda sock: (sock.getpeername() and uid, None))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        environment = {BUS: f"unix:abstract={name},guid=0"}
        if not is_refused:
            assert keyring_environment(environment) == environment
            return
        with pytest.raises(CredentialsError) as caught:
            keyring_environment(environment)
    assert caught.value.message.startswith(
        f"the system keyring is not used, because the session bus in {BUS} belongs to another user"
    )
    assert caught.value.hint == f"unset {BUS}"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets")
def test_an_abstract_bus_that_accepts_no_connection_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(f"\0{tmp_path}/bus")
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(f"\0{tmp_path}/bus")
        assert keyring_environment({BUS: f"unix:abstract={tmp_path}/bus", "A": "b"}) == {"A": "b"}


def test_every_address_of_the_bus_must_be_ours(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    with socket.socket(socket.AF_UNIX) as good, socket.socket(socket.AF_UNIX) as bad:
        good.bind(str(tmp_path / "good"))
        bad.bind(str(tmp_path / "open" / "bad"))
        (tmp_path / "open").chmod(0o777)
        addresses = [f"unix:path={tmp_path}/good", f"unix:guid=0,path={tmp_path}/open/bad"]
        for order in (addresses, addresses[::-1]):
            with pytest.raises(CredentialsError, match="open is writable by other users"):
                keyring_environment({BUS: ";".join(order)})
        # Those of other transports are not files.
        other = f"tcp:path={tmp_path}/open/bad;unix:path={tmp_path}/good"
        assert keyring_environment({BUS: other}) == {BUS: other}


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "HOME"])
def test_keyrings_config_must_not_be_what_others_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It may name a module to load."""
    base = tmp_path / ".config"
    config = base / "python_keyring" / "keyringrc.cfg"
    config.parent.mkdir(parents=True)
    config.touch(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {"XDG_CONFIG_HOME": str(base)} if variable == "XDG_CONFIG_HOME" else {}
    assert keyring_environment(environment) == environment
    config.chmod(0o666)
    with pytest.raises(CredentialsError) as caught:
        keyring_environment(environment)
    assert caught.value.message == (
        f"the system keyring is not used, because its config file {config} is writable by other"
        " users (mode 0666)"
    )
    assert caught.value.hint == f"chmod go-w {config}"
    config.chmod(0o600)
    config.parent.chmod(0o777)
    with pytest.raises(CredentialsError) as caught:
        keyring_environment(environment)
    assert f"its config file {config} is not trusted: {config.parent} is" in caught.value.message


def test_keyrings_config_must_not_be_what_others_can_create_meanwhile(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert keyring_environment(environment) == environment
    tmp_path.chmod(0o1777)
    with pytest.raises(CredentialsError) as caught:
        keyring_environment(environment)
    assert f"{tmp_path}/python_keyring is missing, and other users" in caught.value.message
