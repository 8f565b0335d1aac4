"""SSH wire encoding (RFC 4251 §5), on bytes only.

paramiko has the same, but importing it would add 183 ms to every cold connection.
"""

from __future__ import annotations


class WireError(ValueError):
    """Data ends within a field, or continues after the last one."""


def pack_u32(value: int) -> bytes:
    """Return `value` as uint32.  Raises OverflowError outside 0 to 2**32 - 1."""
    return value.to_bytes(4, "big")


def pack_string(value: bytes) -> bytes:
    """Return `value` as a string: its length as uint32, then its bytes."""
    return pack_u32(len(value)) + value


class Reader:
    """Read the fields of `data` in order, one per call.

    A call raises WireError, and reads nothing, if the field does not end within `data`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def remaining(self) -> int:
        """The number of bytes that have not been read yet."""
        return len(self._data) - self._offset

    def u8(self) -> int:
        """Read a byte or a boolean."""
        return self._take(1)[0]

    def u32(self) -> int:
        """Read a uint32."""
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        """Read a uint64."""
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        """Read a string."""
        start = self._offset
        length = self.u32()
        try:
            return self._take(length)
        except WireError:
            self._offset = start
            raise

    def finish(self) -> None:
        """Raise WireError if any bytes are left."""
        if self.remaining:
            raise WireError(f"{self.remaining} bytes too many")

    def _take(self, size: int) -> bytes:
        if size > self.remaining:
            raise WireError(f"{size} bytes expected, {self.remaining} left")
        start = self._offset
        self._offset = start + size
        return self._data[start : self._offset]
