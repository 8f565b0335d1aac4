"""The client's side: an SSH server on our stdin and stdout.

The client was started by the same user as we were, so any login name and any authentication method
is accepted.  The login request is granted when the machine is ready, or earlier if the client may
time out before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import paramiko
from paramiko.auth_handler import AuthHandler

from dcs_proxy.bridge.choose import OPENSSH
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.side import GCM, Side
from dcs_proxy.bridge.stream import Stream
from dcs_proxy.ssh.wire import Reader, WireError, pack_string
from dcs_proxy.text import LINE_LIMIT, safe_line

_KEXINIT = 20
# RFC 4252 §6.
_SUCCESS, _BANNER, _PK_OK = 52, 53, 60
_COOKIE_BYTES = 16
_NAME_LISTS = 10


class Client(Side):
    """The client's side; `keys` are the host keys that the client sees."""

    # OpenSSH and node's ssh2 use OpenSSH's extensions (eow@openssh.com, Unix sockets) only with a
    # server that calls itself OpenSSH.  They are meant for the gateway, whose version is not known
    # yet; a gateway without them refuses or ignores them (RFC 4254 §4, §5.4).
    _CLIENT_ID = "OpenSSH_9.9 dcs_proxy"

    def __init__(
        self,
        stream: Stream,
        keys: Sequence[paramiko.PKey],
        inbox: Outbox,
        outbox: Outbox,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(stream, inbox, outbox, on_end)
        for key in keys:
            self.add_server_key(key)
        self._negotiate = self._handler_table[_KEXINIT]
        self._handler_table[_KEXINIT] = self._start_exchange
        self._login_lock = threading.Lock()
        self._has_lists = False
        self._is_asking = self._is_let_in = False
        self._banners: list[bytes] = []

    def start(self) -> None:
        """Start the connection's thread, which answers the client."""
        self.server_mode = True
        self.server_object = paramiko.ServerInterface()
        self.active = True
        super().start()

    def show(self, text: str) -> None:
        """Show the client a line in a banner, unless it is already logged in."""
        message = (
            bytes([_BANNER])
            + pack_string(f"{safe_line(text, LINE_LIMIT)}\r\n".encode())
            + pack_string(b"")
        )
        with self._login_lock:
            self._banners.append(message)
            self._send_banners()

    def let_in(self) -> None:
        """Grant the client's login request, now or as soon as it arrives."""
        with self._login_lock:
            self._is_let_in = True
            self._answer()

    def ask(self) -> None:
        """Record that the client has asked to log in."""
        with self._login_lock:
            self._is_asking = True
            self._send_banners()
            self._answer()

    def _send_banners(self) -> None:
        if self._is_asking and not self.authenticated:
            for message in self._banners:
                self.send(message)
            self._banners.clear()

    def _answer(self) -> None:
        if self._is_asking and self._is_let_in and not self.authenticated:
            # Set first: the client's next message may arrive before send() returns.
            self.authenticated = True
            if self.auth_handler is not None:
                self.auth_handler.authenticated = True
            self.send(bytes([_SUCCESS]))
            self.inbox.open(self)

    def _send_kex_init(self) -> None:
        """Begin a key exchange, but leave the first one to OpenSSH.

        OpenSSH sends its lists without waiting for ours, which can then depend on them.
        """
        if not self._is_awaiting_lists():
            # paramiko's own method, which its type stubs leave out.
            super()._send_kex_init()  # type: ignore[misc]

    def _is_awaiting_lists(self) -> bool:
        return not self._has_lists and self.remote_version.startswith(OPENSSH)

    def _start_exchange(self, message: paramiko.Message) -> None:
        """Take the client's part of a key exchange, and skip its guess if that is wrong.

        SSH_MSG_KEXINIT (RFC 4253 §7.1): 16 bytes, ten lists of names, the first of them for key
        exchange, host keys and the ciphers of either direction; boolean first_kex_packet_follows.
        paramiko treats every guess as right.
        """
        reader = Reader(message.asbytes()[_COOKIE_BYTES:])
        try:
            lists = [reader.string().decode().split(",") for _ in range(_NAME_LISTS)]
            follows = reader.u8()
        except (WireError, UnicodeDecodeError) as error:
            raise paramiko.SSHException(f"a malformed key exchange: {error}") from None
        if self._is_awaiting_lists() and all(set(GCM) & set(names) for names in lists[2:4]):
            # The client's order decides, and OpenSSH's begins with slower ones.
            self._preferred_ciphers = GCM
        self._has_lists = True
        self._negotiate(message)
        ours = [self.preferred_kex[0], self._first_key()]
        guess = [lists[0][0], lists[1][0]]
        if follows and guess != ours:
            self.packetizer.drop_next()

    def _first_key(self) -> str:
        return next(name for name in self.preferred_keys if name in self.server_key_dict)

    def _take_keys(self, message: paramiko.Message) -> None:
        if self.auth_handler is None:
            self.auth_handler = _LoginRequests(self)
        super()._take_keys(message)


class _LoginRequests(AuthHandler):
    """Parses the client's login requests (RFC 4252)."""

    def _parse_userauth_request(self, message: paramiko.Message) -> None:
        """Parse a request: string user, string service, string method, more (RFC 4252 §5, §7).

        For the method "publickey": boolean signed, string algorithm, string key.
        """
        client = self.transport
        if not isinstance(client, Client):  # a weak proxy, whose class is the client's
            raise TypeError("a login request to another side")
        if client.authenticated:
            return  # RFC 4252 §5.1: further requests are ignored
        reader = Reader(message.asbytes())
        try:
            self.auth_username = reader.string().decode("utf-8", "replace")
            service, method = reader.string(), reader.string()
            if service != b"ssh-connection":
                raise paramiko.SSHException("a request for another service")
            if method == b"publickey" and not reader.u8():
                # The client asks whether this key would do, and signs only after a yes.
                algorithm, key = reader.string(), reader.string()
                client.send(bytes([_PK_OK]) + pack_string(algorithm) + pack_string(key))
                return
        except WireError as error:
            raise paramiko.SSHException(f"a malformed request: {error}") from None
        client.ask()

    def _parse_userauth_info_response(self, message: paramiko.Message) -> None:
        # paramiko would make a list of as many answers as the client says there are.
        raise paramiko.SSHException("an answer to no question")
