"""The line of state that hot.py reads: what must be true for the next ssh to ask nobody.

``sessions/HOST.warm`` holds fields with NUL between them, in the order of :func:`render`.  A field
that does not fit, or a file that is not as it was, and hot.py leaves it all to the full program.
"""

from __future__ import annotations

from collections.abc import Mapping

from dcs_proxy.fastpath.helper import VARIABLES, stamp
from dcs_proxy.local.files import read_small, remove_file, write_atomically
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, file_stem
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.lifetime import COMMITTED_S, margin_s
from dcs_proxy.session.records import ReadySession, Record

_VERSION = "1"


class FastEntry:
    """Writes the lines of one state directory, as seen from one configuration.

    `config` is the config file as the command line names it ("" if it does not), `config_path`
    where it is.
    """

    def __init__(
        self,
        state: StateDirectory,
        settings: Settings,
        environment: Mapping[str, str],
        config: str,
        config_path: str,
    ) -> None:
        self._state = state
        self._settings = settings
        self._environment = environment
        self._config = config
        self._config_path = config_path

    def write(self, host: MachineName, record: Record, files: list[str], address: str = "") -> None:
        """Write the line of a ready session that ssh knows as `host`.

        `files` are those that ssh reads for it; `address` is the gateway's that has answered, ""
        where none has yet: then that of the line before stays, if it is of the same session.  With
        a proxy in between it is "", and the full program connects.  Raises StateError.
        """
        path = self._path(host)
        if record.ready is None:
            remove_file(path)
            return
        before = (read_small(path) or b"").decode("utf-8", "surrogateescape").split("\0")
        fields = self.render(record, record.ready, files)
        if not address and before[8:9] == fields[8:9] and len(before) == len(fields):
            address = before[10]
        fields[10] = "" if self._settings.proxy_to(record.ready.endpoint) else address
        data = "\0".join(fields).encode("utf-8", "surrogateescape")
        if any("\0" in field for field in fields) or any("\n" in f for f in files):
            remove_file(path)
        elif fields != before:
            write_atomically(path, data)

    def render(self, record: Record, ready: ReadySession, files: list[str]) -> list[str]:
        """Return the fields: version, config twice with its stamp, variables, when prepare and
        when connecting may rely on it, agent, identity, logins, address, port, whose agent, files.
        """
        recent = ready.proved_at + self._settings.reuse_seconds
        committed = recent + COMMITTED_S  # prepare may have come late in the time before
        safe = ready.ends_at - margin_s(ready.ends_at - ready.began_at)
        return [
            _VERSION,
            self._config,
            self._config_path,
            stamp(self._config_path),
            "\n".join(self._environment.get(name, "") for name in VARIABLES),
            f"{ready.proved_at} {min(recent, safe)}",
            f"{ready.proved_at} {min(committed, ready.ends_at)}",
            record.attempt.agent_path,
            record.identity.hex(),
            "\n".join([ready.ssh_username, record.previous_username]),
            "",
            str(ready.port),
            self._settings.agent,
            "\n".join(f"{path}\t{stamp(path)}" for path in files),
            "end\n",
        ]

    def _path(self, host: MachineName) -> str:
        return self._state.file("sessions", f"{file_stem(host)}.warm")
