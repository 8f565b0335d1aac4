"""Messages for one side: sent at once, or held while that side is in a key exchange.

Both sides count the same bytes, so both renew their keys at about the same time.  A side in a key
exchange may send nothing else, and its own thread must keep reading to finish the exchange.  A
thread whose own side is in one therefore never waits for the other side: it leaves the message
here.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from paramiko import SSHException, Transport

from dcs_proxy.bridge.packets import Payload

# If more bytes than this are held, put() waits if it may.
_ROOM = 2 * 1024 * 1024
# An honest peer has less than this in flight when it learns of a key exchange.
_LIMIT = 16 * 1024 * 1024
# The memory that a message takes in addition to its bytes.
_OVERHEAD = 200


class Outbox:
    """A queue of messages for one side.

    Every message is held until `open` names the side.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._side: Transport | None = None
        self._held: deque[Payload] = deque()
        self._size = 0
        self._closed = False

    def put(self, message: Payload, *, may_wait: bool) -> None:
        """Send a message, or hold it; wait for room only if `may_wait`.

        Raises SSHException if more is held than an honest peer sends.
        """
        with self._changed:
            while not self._closed:
                if not self._held and self._send(message):
                    return
                if self._size < _ROOM or not may_wait:
                    self._hold(message)
                    return
                self._changed.wait()

    def open(self, side: Transport) -> None:
        """Send all held messages to `side`, and from now on every new one."""
        with self._changed:
            self._side = side
        self.flush()

    def flush(self) -> None:
        """Send the held messages; called when a key exchange is over."""
        with self._changed:
            while self._held and self._send(self._held[0]):
                self._size -= self._held.popleft().size + _OVERHEAD
            self._changed.notify_all()

    def close(self, side: Transport) -> None:
        """Drop the held messages and all later ones, if the queue is open to `side`."""
        with self._changed:
            if self._side is side:
                self._closed = True
                self._held.clear()
                self._changed.notify_all()

    def wait_until_empty(self, timeout_s: float) -> None:
        """Return when nothing is held, or after `timeout_s`."""
        end = time.monotonic() + timeout_s
        # A thread may have the lock while it sends to a peer that reads nothing.
        if self._changed.acquire(timeout=timeout_s):
            try:
                self._changed.wait_for(lambda: not self._held, max(0.0, end - time.monotonic()))
            finally:
                self._changed.release()

    def _hold(self, message: Payload) -> None:
        self._held.append(message)
        self._size += message.size + _OVERHEAD
        if self._size > _LIMIT:
            raise SSHException("too many messages during a key exchange")

    def _send(self, message: Payload) -> bool:
        """Send a message unless the side is in a key exchange; return whether it was sent."""
        side = self._side
        if side is None:
            return False
        # A key exchange begins under this lock, so no message follows its first one.
        with side.clear_to_send_lock:
            if not side.clear_to_send.is_set():
                return False
            try:
                # The stubs know no message but paramiko's own.
                side.packetizer.send_message(message)  # type: ignore[arg-type]
            except (EOFError, OSError):
                # The connection is broken, which the side's own thread will notice.
                self._closed = True
            return True
