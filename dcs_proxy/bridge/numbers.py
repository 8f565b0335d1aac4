"""Sequence numbers (RFC 4253 §6.4) of messages that are passed from one connection to the other.

SSH_MSG_UNIMPLEMENTED (RFC 4253 §11.4) names a message by its number, and the same message has
another number in each connection.
"""

from __future__ import annotations

_MASK = 0xFFFF_FFFF
# A peer answers long before the difference has changed so often: a key exchange changes it twice.
_REMEMBERED = 32


class Numbers:
    """Knows, for the messages sent in one connection, their numbers in the other.

    Messages are passed on in order, so the two numbers differ by the same amount until one of the
    connections has a message of its own.  Only these changes are remembered.
    """

    def __init__(self) -> None:
        # Replaced, not changed: one thread notes while another looks up.
        self._changes: tuple[tuple[int, int | None], ...] = ()

    def note(self, sent: int, came: int | None) -> None:
        """Note that message `came` was sent as `sent`; None is for a message of our own."""
        difference = None if came is None else (came - sent) & _MASK
        if not self._changes or self._changes[-1][1] != difference:
            self._changes = (*self._changes[1 - _REMEMBERED :], (sent, difference))

    def origin(self, sent: int) -> int | None:
        """Return the number with which message `sent` came, None for a message of our own."""
        for first, difference in reversed(self._changes):
            if (sent - first) & _MASK <= _MASK // 2:
                return None if difference is None else (sent + difference) & _MASK
        return None

    def forget(self) -> None:
        """Forget all; called when numbers begin at zero again, in strict key exchanges."""
        self._changes = ()
