"""Write the fast entry, with which the next ssh does not need the full program.

fastpath/helper.py reads it and documents its format.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcs_proxy.fastpath import helper
from dcs_proxy.local.files import read_small, remove_file, write_atomically
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, file_stem
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.lifetime import COMMITTED_S, margin_s
from dcs_proxy.session.records import ReadySession, Record


def _path(state: StateDirectory, host: MachineName) -> str:
    return state.file("sessions", f"{file_stem(host)}.warm")


def remove_fast_entry(state: StateDirectory, host: MachineName) -> None:
    """Leave the next ssh for this host to the full program.  Raises StateError."""
    remove_file(_path(state, host))


class FastEntry:
    """Writes the fast entries in one state directory, for the config file at `config_path`."""

    def __init__(
        self,
        state: StateDirectory,
        settings: Settings,
        environment: Mapping[str, str],
        config_path: str,
    ) -> None:
        self._state = state
        self._settings = settings
        self._environment = environment
        self._config_path = config_path

    def write(self, host: MachineName, record: Record, files: list[str], address: str = "") -> None:
        """Write the entry of a ready session for the host name that the user types.

        `files` are the files that ssh reads for it.  `address` is the gateway's address that has
        answered; if it is "", the address in the old entry is kept if the session is the same.
        Behind an HTTP proxy the entry has no address, and the full program connects.

        Raises StateError.
        """
        path = _path(self._state, host)
        if record.ready is None:
            remove_file(path)
            return
        old = (read_small(path) or b"").decode("utf-8", "surrogateescape").split("\0")
        entry = self._render(host, record, record.ready, files)
        if self._settings.proxy_to(record.ready.endpoint):
            address = ""
        elif not address and len(old) == len(entry):
            is_same = old[helper.IDENTITY] == entry[helper.IDENTITY]
            address = old[helper.ADDRESS] if is_same else ""
        entry[helper.ADDRESS] = address
        if entry != old:
            write_atomically(path, "\0".join(entry).encode("utf-8", "surrogateescape"))

    def _render(
        self, host: MachineName, record: Record, ready: ReadySession, files: list[str]
    ) -> list[str]:
        """Return the fields of the entry, with no address."""
        recent = ready.proved_at + self._settings.reuse_seconds
        committed = recent + COMMITTED_S  # `prepare` may have come at the very end of `recent`
        safe = ready.ends_at - margin_s(ready.ends_at - ready.began_at)
        entry = [""] * helper.FIELDS
        entry[helper.VERSION] = helper.CURRENT_VERSION
        entry[helper.CONFIG_PATH] = self._config_path
        entry[helper.CONFIG_STAMP] = helper.stamp(self._config_path)
        entry[helper.ENVIRONMENT] = "\n".join(
            self._environment.get(name, "") for name in helper.VARIABLES
        )
        entry[helper.PREPARE_TIMES] = f"{ready.proved_at} {min(recent, safe)}"
        entry[helper.CONNECT_TIMES] = f"{ready.proved_at} {min(committed, ready.ends_at)}"
        entry[helper.AGENT] = record.attempt.agent_path
        entry[helper.IDENTITY] = record.identity.hex()
        entry[helper.LOGINS] = "\n".join(record.logins)
        entry[helper.PORT] = str(ready.port)
        entry[helper.AGENT_KIND] = self._settings.agent
        entry[helper.FILES] = "\n".join(f"{path}\t{helper.stamp(path)}" for path in files)
        entry[helper.USE] = self._state.use_path(MachineName(record.attempt.machine or host))
        entry[helper.END] = helper.COMPLETE
        return entry
