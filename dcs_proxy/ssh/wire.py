"""SSH wire encoding (RFC 4251 §5): pure, bytes in and bytes out.

paramiko has the same, but importing it costs 183 ms on every cold connection.
"""

from __future__ import annotations


class WireError(ValueError):
    """Bytes end too early, or go on where they should end."""


def pack_u32(value: int) -> bytes:
    """Return `value` as uint32.  Raises OverflowError outside 0 to 2**32 - 1."""
    return value.to_bytes(4, "big")


def pack_string(value: bytes) -> bytes:
    """Return `value` as string: its length as uint32, then its bytes."""
    return pack_u32(len(value)) + value


class Reader:
    """Take fields off the front of `data`, one call each, in their order.

    Each call raises WireError, and takes nothing, if the field does not end within `data`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def remaining(self) -> int:
        """How many bytes have not been taken yet."""
        return len(self._data) - self._offset

    def u8(self) -> int:
        """Take a byte; a boolean is one too."""
        return self._take(1)[0]

    def u32(self) -> int:
        """Take a uint32."""
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        """Take a uint64."""
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        """Take a string."""
        start = self._offset
        length = self.u32()
        try:
            return self._take(length)
        except WireError:
            self._offset = start
            raise

    def rest(self) -> bytes:
        """Take all that is left, which may be nothing."""
        return self._take(self.remaining)

    def finish(self) -> None:
        """Raise WireError if anything is left."""
        if self.remaining:
            raise WireError(f"{self.remaining} bytes too many")

    def _take(self, size: int) -> bytes:
        if size > self.remaining:
            raise WireError(f"{size} bytes expected, {self.remaining} left")
        start = self._offset
        self._offset = start + size
        return self._data[start : self._offset]
