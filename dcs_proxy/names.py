"""Machine ids, which the API uses, and machine names, which ssh and this program use.

A machine's id is what the API returns: a name that begins with ``dm-`` (the API contract) or, since
September 2026, a bare UUID.  Its name is the id, prefixed with ``dm-`` if the id lacks it, so
``dm-X`` and ``X`` are the same machine.  A short name is ``dm-`` and the end of a name.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NewType

from dcs_proxy.errors import UsageError
from dcs_proxy.text import quote_typed

MachineId = NewType("MachineId", str)
MachineName = NewType("MachineName", str)

PREFIX = "dm-"
MAX_LENGTH = 253
# Shorter ends are too likely to match several machines.
MIN_END = 4
# The contract's MachineIDPathSegment; \Z because $ would let a trailing newline through.
_PATTERN = re.compile(r"dm-[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_LOWER_CASE = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_ID_CHARACTERS = re.compile(r"[a-z0-9-]*\Z")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_UUID_LENGTH = 36
_NUMBER = re.compile(r"0*([0-9]+)")
# NAME_MAX is 255 bytes, and files beside the name carry suffixes and a temporary part.
_MAX_STEM = 200


def is_machine_name(text: str) -> bool:
    """Return whether `text` is a machine's name (contract: MachineIDPathSegment)."""
    return len(text) <= MAX_LENGTH and _PATTERN.match(text) is not None


def machine_name(text: str) -> MachineName | None:
    """Return the name of the machine with the id or name `text`; None if that is not valid."""
    name = text if text.startswith(PREFIX) else PREFIX + text
    return MachineName(name) if is_machine_name(name) else None


def why_unusable(machine_id: str) -> str:
    """Say why ssh cannot name a machine with this id; "" if it can."""
    if machine_name(machine_id) is not None:
        return ""
    if not machine_id:
        return "it has no id"
    if len(machine_id) > MAX_LENGTH - len(PREFIX):
        return "its id is too long for a host name"
    if not _ID_CHARACTERS.match(machine_id):
        return "its id has characters other than lower-case letters, digits and hyphens"
    return "its id begins or ends with a hyphen"


def fold_host(typed: str) -> str:
    """Return a host name as typed, in the form in which it is compared with others.

    ssh reads A to Z as lower case, and a dot at the end names the same host (RFC 1034 §3.1).
    """
    host = typed.translate(_LOWER_CASE)
    return host if host.endswith("..") else host.removesuffix(".")


def parse_machine_name(text: str) -> MachineName:
    """Return the name of the machine that a user calls `text`, in any case, with or without
    ``dm-`` before it or a dot after it.

    Raises UsageError if no machine can have that name.
    """
    name = machine_name(fold_host(text))
    if name is None:
        raise UsageError(
            f"{quote_typed(text)} is not the name of a machine",
            hint="a name is dm- followed by letters, digits and inner hyphens, up to "
            f"{MAX_LENGTH} characters",
        )
    return name


def bare(name: MachineName) -> str:
    """Return what follows ``dm-``."""
    return name[len(PREFIX) :]


def is_uuid(text: str) -> bool:
    """Return whether `text` is a lower-case hyphenated UUID."""
    return _UUID.match(text) is not None


def natural_order(names: Iterable[MachineName]) -> list[MachineName]:
    """Return names sorted with numbers by value: dm-2 before dm-10.

    UUIDs, whose digits are not numbers, are in alphabetical order.
    """
    return sorted(names, key=_natural_key)


def _natural_key(name: MachineName) -> tuple[str, str]:
    if is_uuid(bare(name)):
        return name, name
    # Of two numbers without leading zeros, the longer one is the greater.
    return _NUMBER.sub(lambda number: f"{len(number[1]):03}{number[1]}", name), name


def names_ending_so(short: MachineName, names: Iterable[MachineName]) -> list[MachineName]:
    """Return the machines that the short name `short` may mean, in natural order."""
    end = bare(short)
    if len(end) < MIN_END:
        return []
    return natural_order(name for name in names if bare(name).endswith(end))


def short_names(
    names: Collection[MachineName], taken: Collection[str] = ()
) -> dict[MachineName, MachineName]:
    """Return for each name the shortest one that means the same machine and no other.

    Only UUIDs are shortened; people have chosen the other ids.  A short name is never the name of
    another machine, or one of `taken`, which are aliases.
    """
    ends: Counter[str] = Counter()
    for name in names:
        ends.update(_ends(name))
    not_short = {*names, *taken}
    return {name: _shortest(name, ends, not_short) for name in names}


def _shortest(name: MachineName, ends: Counter[str], not_short: set[str]) -> MachineName:
    if is_uuid(bare(name)):
        for end in _ends(name):
            short = MachineName(PREFIX + end)
            if ends[end] == 1 and not end.startswith("-") and short not in not_short:
                return short
    return name


def _ends(name: MachineName) -> list[str]:
    """Return the possible ends of a short name for this machine, shortest first."""
    text = bare(name)
    # Nothing longer than a UUID is ever compared.
    return [text[-size:] for size in range(MIN_END, min(len(text), _UUID_LENGTH) + 1)]


def matches(pattern: str, text: str) -> bool:
    """Return whether an ssh_config pattern, with ``*`` and ``?``, matches all of `text`.

    A server may choose both, and a regular expression could take exponential time.  Here only the
    last ``*`` is ever retried, so the time is at most proportional to the product of the lengths.
    """
    at = position = begun = 0
    star = -1
    while position < len(text):
        if pattern[at : at + 1] == "*":
            star, begun, at = at, position, at + 1
        elif pattern[at : at + 1] in ("?", text[position]):
            at, position = at + 1, position + 1
        elif star >= 0:
            begun += 1
            at, position = star + 1, begun
        else:
            return False
    return not pattern[at:].strip("*")


def pattern_means(pattern: str, name: MachineName, aliases: Iterable[str] = ()) -> bool:
    """Return whether a user's pattern selects the machine.

    The pattern matches the name or an alias, with or without ``dm-``, or is a short name.
    """
    for known in (name, *aliases):
        if matches(pattern, known) or matches(PREFIX + pattern, known):
            return True
    end = pattern.removeprefix(PREFIX)
    return len(end) >= MIN_END and bare(name).endswith(end)


def file_stem(name: MachineName) -> str:
    """Return the stem of the machine's file names: the name, shortened with a digest if long."""
    if len(name) <= _MAX_STEM:
        return name
    return f"{name[:150]}.{hashlib.sha256(name.encode()).hexdigest()[:32]}"
