"""The ids of an account's machines as last seen, stored so that names can be resolved offline.

``account-DIGEST.json`` in the state directory is one JSON object for one account:

``account``
   the account, as :func:`dcs_proxy.api.client.account` names it
``seen_at``
   when the machines were last listed (unix time), 0 if never
``ids``
   the ids of its machines: from the last list, and from successful requests since
``short``
   short names that were used, and the id that each one meant

A file that is damaged or too large counts as missing: everything in it can be learned again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dcs_proxy.errors import StateError
from dcs_proxy.local.files import read_small, write_atomically
from dcs_proxy.names import PREFIX, MachineId, MachineName, bare, is_uuid, machine_name

# If there are more machines, none are stored, and short names are looked up in the API.
MAX_IDS = 20_000
MAX_SHORT = 1_000
_MAX_FILE = 8 * 1024 * 1024


@dataclass(frozen=True)
class Known:
    """What is known of an account's machines; see the module's docstring."""

    seen_at: float = 0.0
    ids: tuple[MachineId, ...] = ()
    short: Mapping[MachineName, MachineId] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[MachineName, MachineId]:
        """The ids by the machines' names; if two have the same name, the one that begins with
        ``dm-`` wins, because it is what the user types.
        """
        ids = sorted(self.ids, key=lambda each: each.startswith(PREFIX))
        named = {machine_name(each): each for each in ids}
        return {name: each for name, each in named.items() if name is not None}

    @property
    def are_uuids(self) -> bool:
        """Whether all ids are UUIDs, so that nothing shorter can be a machine's own name."""
        return all(is_uuid(each.removeprefix(PREFIX)) for each in self.ids)


class KnownMachines:
    """The file of `account` in the state directory `directory`.

    Nothing here raises: if the file cannot be written, the API is asked again next time.
    """

    def __init__(self, directory: str, account: str) -> None:
        digest = hashlib.sha256(account.encode()).hexdigest()[:16]
        self._path = f"{directory}/account-{digest}.json"
        self._account = account

    def load(self) -> Known:
        """Return what is known; nothing if the file is missing, damaged or another account's."""
        data = read_small(self._path, _MAX_FILE)
        return (None if data is None else _parse(data, self._account)) or Known()

    def id_of(self, name: MachineName) -> MachineId | None:
        """Return the machine's id in the API; None if it is not known."""
        return self.load().by_name.get(name)

    def save_list(self, ids: Iterable[MachineId]) -> Known:
        """Replace the known ids by those of a complete list; return what is known now."""
        listed = tuple(dict.fromkeys(ids))
        listed = listed if len(listed) <= MAX_IDS else ()
        return self._change(lambda known: replace(known, seen_at=time.time(), ids=listed))

    def learn(self, machine_id: MachineId) -> None:
        """Note that a machine with this id exists."""
        ids = self.load().ids
        if machine_id not in ids and len(ids) < MAX_IDS:
            self._change(lambda known: replace(known, ids=(*known.ids, machine_id)))

    def note_short(self, short: MachineName, name: MachineName) -> None:
        """Note that `short` was used for the machine `name`."""
        known = self.load()
        machine_id = known.by_name.get(name)
        if machine_id is not None and known.short.get(short) != machine_id:
            newest = [*known.short.items(), (short, machine_id)][-MAX_SHORT:]
            self._change(lambda known: replace(known, short=dict(newest)))

    def _change(self, change: Callable[[Known], Known]) -> Known:
        known = change(self.load())
        exist = {*known.ids}
        short = {name: each for name, each in known.short.items() if each in exist}
        known = replace(known, short=short)
        document = {"account": self._account, **asdict(known)}
        try:
            write_atomically(self._path, json.dumps(document).encode())
        except StateError:
            pass  # a read-only or full disk: the API is asked each time instead
        return known


def other_form(name: MachineName) -> MachineId | None:
    """Return the id to try for an unknown machine if the API has none that begins with ``dm-``."""
    return MachineId(bare(name)) if is_uuid(bare(name)) else None


def _parse(data: bytes, account: str) -> Known | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("account") != account:
        return None
    seen_at, ids, short = value.get("seen_at"), value.get("ids"), value.get("short")
    if not isinstance(seen_at, float | int) or not isinstance(ids, list):
        return None
    if len(ids) > MAX_IDS or not all(map(_is_id, ids)):
        return None
    return Known(float(seen_at), tuple(map(MachineId, ids)), _parse_short(short, set(ids)))


def _parse_short(value: Any, ids: set[str]) -> dict[MachineName, MachineId]:
    if not isinstance(value, dict) or len(value) > MAX_SHORT:
        return {}
    return {
        MachineName(short): MachineId(each)
        for short, each in value.items()
        if machine_name(short) == short and isinstance(each, str) and each in ids
    }


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and machine_name(value) is not None
