"""A real Secret Service, gnome-keyring, on a session bus of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import secretstorage
from jeepney import MessageType, message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from tests.support.user import User
from tests.support.waiting import wait_until

_CALL = MessageType.method_call
_PROMPTER = "org.gnome.keyring.SystemPrompter"
# No services to start: what is not there stays away.
_BUS = """<busconfig><type>session</type><listen>unix:tmpdir={}</listen><policy context="default">
<allow send_destination="*"/><allow own="*"/><allow receive_sender="*"/></policy></busconfig>
"""


class SecretService:
    """A user's session bus and keyring, which is unlocked until `lock` is called."""

    def __init__(self, user: User) -> None:
        # A short path, without what a bus address would need to escape.
        self.directory = tempfile.TemporaryDirectory(prefix="bus", dir="/tmp")
        config = Path(self.directory.name) / "bus.conf"
        config.write_text(_BUS.format(self.directory.name))
        bus = user.start("dbus-daemon", "--nofork", "--print-address", f"--config-file={config}")
        assert bus.stdout
        self.address = bus.stdout.readline().decode().strip()
        user.environment |= {
            "DBUS_SESSION_BUS_ADDRESS": self.address, "XDG_RUNTIME_DIR": self.directory.name
        }  # fmt: skip
        password, end = os.pipe()
        os.write(end, b"password")
        os.close(end)
        user.start(
            "gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets",
            stdin=password,
        )  # fmt: skip
        os.close(password)
        wait_until(lambda: self._has("org.freedesktop.secrets"))
        wait_until(lambda: not self._is_locked())

    def _has(self, name: str) -> bool:
        with self.connect() as connection:
            reply = connection.send_and_get_reply(message_bus.NameHasOwner(name))
            return bool(reply.body[0])

    def _is_locked(self) -> bool:
        with self.connect() as connection:
            try:
                return secretstorage.Collection(connection).is_locked()
            except secretstorage.exceptions.ItemNotFoundException:
                return True

    def connect(self) -> closing[DBusConnection]:
        return closing(open_dbus_connection(self.address))

    def lock(self) -> None:
        with self.connect() as connection:
            secretstorage.Collection(connection).lock()
        assert self._is_locked()

    def entries(self) -> dict[str, str]:
        """Return what the keyring holds for the program: base URLs and keys."""
        return wait_until(self._search)[0]

    def _search(self) -> list[dict[str, str]]:
        """Return what there is in a list, or nothing: a busy gnome-keyring may refuse to search."""
        with self.connect() as connection:
            try:
                items = list(secretstorage.search_items(connection, {"service": "dcs-proxy"}))
            except secretstorage.exceptions.ItemNotFoundException:
                return []
            return [{i.get_attributes()["username"]: i.get_secret().decode() for i in items}]

    def add(self, url: str, key: str, **attributes: str) -> None:
        """Keep a key as another program would."""
        with self.connect() as connection:
            names = {"service": "dcs-proxy", "username": url, **attributes}
            secretstorage.Collection(connection).create_item("a key", names, key.encode())

    @contextmanager
    def unseen_window(self) -> Iterator[Callable[[float], bool]]:
        """Take the place of what asks for passwords, and never show anything.

        What it gives tells whether it is asked within a time.
        """
        with self.connect() as connection:
            reply = connection.send_and_get_reply(message_bus.RequestName(_PROMPTER))
            assert reply.body == (1,)

            def is_asked(timeout_s: float) -> bool:
                try:
                    while connection.receive(timeout=timeout_s).header.message_type != _CALL:
                        pass
                except TimeoutError:
                    return False
                return True

            yield is_asked

    def close(self) -> None:
        self.directory.cleanup()
