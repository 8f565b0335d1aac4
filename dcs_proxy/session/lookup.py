"""Find the machine that a user means by a name, an alias, or a short name.

A full name takes precedence over a short name.  So the known machines alone decide only where no
full name is as short: in an account whose ids are all UUIDs.  Otherwise, and if they do not decide
it, the API is asked for its list, which wakes no machine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence

from dcs_proxy.api.known_machines import Known, KnownMachines
from dcs_proxy.errors import ApiProtocolError, Forbidden, MachineNotFound, SessionFailed
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import (
    MIN_END,
    MachineName,
    bare,
    is_uuid,
    machine_name,
    names_ending_so,
    parse_machine_name,
    short_names,
)
from dcs_proxy.session.context import Context
from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Record
from dcs_proxy.session.resolve import resolve

# A list newer than this is not fetched again: each ssh looks twice, and many may run at once.
_FRESH_S = 5.0
_MAX_SHOWN = 8


class Lookup:
    """Finds machines by the names that users type.

    `known` has the account's machines as last listed; `list_anew` asks the API for the list and
    stores it there.
    """

    def __init__(
        self, settings: Settings, known: KnownMachines, list_anew: Callable[[], object]
    ) -> None:
        self._settings = settings
        self._known = known
        self._list_anew = list_anew

    def find(self, typed: str) -> MachineName:
        """Return the machine; an unknown name is returned unchanged.

        Raises UsageError for an impossible name, MachineNotFound for a short name of several
        machines, or what the API raises.
        """
        name = self._settings.machine(typed)
        known = self._known.load()
        if is_uuid(bare(name)) or len(bare(name)) < MIN_END:
            return name
        if name in known.by_name:
            return self._checked(typed, name, known)
        candidates = names_ending_so(name, known.by_name)
        if len(candidates) != 1 or not known.are_uuids:
            known = self._list(known)
            if name in known.by_name:
                return self._checked(typed, name, known)
            candidates = names_ending_so(name, known.by_name)
        return self._only(name, candidates, known)

    def find_again(self, typed: str, found: MachineName) -> MachineName | None:
        """Return the machine that a short name means now; None if that is still `found`, or if
        `typed` is not a short name.

        Raises MachineNotFound if it means several, or what the API raises.
        """
        name = self._settings.machine(typed)
        if name == found:
            return None
        known = self._list(self._known.load())
        candidates = names_ending_so(name, known.by_name)
        if not candidates or candidates == [found]:
            return None
        return self._only(name, candidates, known)

    def _list(self, known: Known) -> Known:
        """Return the machines as the API lists them, or as they were known if it has no list."""
        if 0 <= time.time() - known.seen_at < _FRESH_S:
            return known
        # The API may have no list, or not let this key read it; the name may still be valid.
        with contextlib.suppress(MachineNotFound, ApiProtocolError, Forbidden):
            self._list_anew()
        return self._known.load()

    def _only(
        self, name: MachineName, candidates: Sequence[MachineName], known: Known
    ) -> MachineName:
        if not candidates:
            return name
        if len(candidates) > 1:
            raise _ambiguous(name, candidates, known.by_name, self._settings.aliases)
        self._known.note_short(name, candidates[0])
        return candidates[0]

    def _checked(self, typed: str, name: MachineName, known: Known) -> MachineName:
        """Return `name`; raise MachineNotFound if it was another machine's short name until now.

        Otherwise anyone who can create machines in the account could take over a short name that
        another user types.  An alias is unambiguous.
        """
        meant = machine_name(known.short.get(name, name))
        if meant in (None, name) or parse_machine_name(typed) in self._settings.aliases:
            return name
        short = short_names(known.by_name, self._settings.aliases)
        raise MachineNotFound(
            f"this was short for {meant} and is now the name of another machine",
            hint=f"for the first: ssh {short[MachineName(str(meant))]}; for the other, give it an "
            f"alias: dcs-proxy alias dm-NAME {name}",
            machine=name,
        )


def find_locally(
    typed: str, settings: Settings, names: Collection[MachineName], known: Known
) -> MachineName:
    """Return the machine among `names`, or among the known ones, without asking the API.

    As in `Lookup.find`, the full name of any of them comes before a short name.  Raises UsageError,
    or MachineNotFound for a short name of several.
    """
    name = settings.machine(typed)
    if is_uuid(bare(name)) or name in names or name in known.by_name:
        return name
    for these in (names, known.by_name):
        candidates = names_ending_so(name, these)
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise _ambiguous(name, candidates, {*names, *known.by_name}, settings.aliases)
    return name


def names_of(name: MachineName, settings: Settings, known: Known) -> set[MachineName]:
    """Return every name that the user may type for the machine: itself, aliases, short names."""
    short = short_names(known.by_name, settings.aliases).get(name, name)
    used = {each for each, of in known.short.items() if machine_name(of) == name}
    return {name, short, *used, *map(MachineName, settings.aliases_of(name))}


def _ambiguous(
    name: MachineName,
    candidates: Sequence[MachineName],
    names: Collection[MachineName],
    aliases: Collection[str],
) -> MachineNotFound:
    short = short_names(names, aliases)
    shown = [short[each] for each in candidates[:_MAX_SHOWN]]
    more = f" and {len(candidates) - _MAX_SHOWN} more" if len(candidates) > _MAX_SHOWN else ""
    return MachineNotFound(
        f"this is short for {len(candidates)} machines: {', '.join(shown)}{more}",
        hint="type one of these names",
        machine=name,
    )


def resolve_typed(
    typed: str, context: Context, lookup: Lookup, half: Half = Half.PREPARE
) -> tuple[MachineName, Record]:
    """Return the machine that the user typed and the record of its session, ready for ssh.

    If a short name's machine is gone or cannot be used, the name is looked up once more.  Raises as
    `resolve` and `Lookup.find` do.
    """
    name = lookup.find(typed)
    try:
        return name, resolve(name, context, half)
    except (MachineNotFound, SessionFailed):
        other = lookup.find_again(typed, name)
        if other is None:
            raise
    context.log.event("looked-up-again", machine=other, instead_of=name)
    return other, resolve(other, context, half)
