"""Machine names: the only host names that dcs-proxy acts on."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from dcs_proxy.errors import UsageError, quote_server

MachineName = NewType("MachineName", str)

MIN_LENGTH, MAX_LENGTH = 4, 253
# The contract's MachineIDPathSegment; \Z because $ would let a trailing newline through.
_PATTERN = re.compile(r"dm-[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
# NAME_MAX is 255 bytes, and files beside the name carry suffixes and a temporary part.
_MAX_STEM = 200


def is_machine_name(text: str) -> bool:
    """Return whether `text` is a machine's name (contract: MachineIDPathSegment)."""
    return MIN_LENGTH <= len(text) <= MAX_LENGTH and _PATTERN.match(text) is not None


def parse_machine_name(text: str) -> MachineName:
    """Return `text` as a checked machine name.  Raises UsageError if it is not one."""
    if not is_machine_name(text):
        raise UsageError(
            f"{quote_server(text)} is not the name of a machine",
            hint="a name is dm- followed by lower-case letters, digits and inner hyphens",
        )
    return MachineName(text)


def matches(pattern: str, text: str) -> bool:
    """Return whether a pattern as in ssh_config, with ``*`` and ``?``, matches all of `text`.

    A server may choose both, and a regular expression could take exponential time.  Only the last
    ``*`` is ever retried here, so the time is bounded by the product of the lengths.
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


def file_stem(name: MachineName) -> str:
    """Return the stem of the machine's file names: the name, shortened with a digest if long."""
    if len(name) <= _MAX_STEM:
        return name
    return f"{name[:150]}.{hashlib.sha256(name.encode()).hexdigest()[:32]}"
