"""The gateway: an SSH server that logs a session's key in to the session's machine.

It accepts certificates of the user authority (asyncssh checks principal, validity and key) or, for
sessions without certificates, the session's bare key.  It forwards to loopback only.
"""

from __future__ import annotations

import base64
import logging
import os
import socket
import time
from collections.abc import Sequence

import asyncssh
from cryptography.hazmat.primitives.asymmetric import ed25519

from dcs_proxy.emulator.authority import Authorities, private_pem, public_line
from dcs_proxy.emulator.faults import Faults
from dcs_proxy.emulator.guest import Guest, GuestSFTPServer
from dcs_proxy.emulator.journal import Journal
from dcs_proxy.emulator.machines import Service, SshSession
from dcs_proxy.errors import ConfigError, DcsError
from dcs_proxy.local.files import make_directories
from dcs_proxy.local.trusted_file import distrusted, find_distrust

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LOGIN_S = 120
# A faulty host certificate affects every connection of a listener, so each fault has its own port.
KEY_FAULTS = frozenset(
    {
        "gateway-unsigned-key",
        "gateway-other-name",
        "gateway-expired",
        "gateway-other-authority",
    }
)


class Gateway:
    """Logs users in to the machines of `service`, whose home directories are in `homes`."""

    def __init__(
        self,
        service: Service,
        authorities: Authorities,
        faults: Faults,
        journal: Journal,
        *,
        endpoint: str,
        homes: str,
    ) -> None:
        self.service = service
        self.authorities = authorities
        self.faults = faults
        self.journal = journal
        self.endpoint = endpoint
        self.homes = homes
        make_directories(os.path.abspath(homes))
        if distrust := find_distrust(os.path.abspath(homes), os.stat(homes)):
            # Shells of this user read their start files there.
            raise distrusted(homes, "the directory of the machines' homes", ConfigError, distrust)
        # Not the .Xauthority of the user who runs the emulator.
        self.x_authority = os.path.join(homes, ".Xauthority")
        self.guests: set[Guest] = set()
        self._host_key = ed25519.Ed25519PrivateKey.generate()
        self._acceptors: list[asyncssh.SSHAcceptor] = []
        # The gateway uses the service's clock, which a fault may set ahead.  setattr, because the
        # type stubs do not have this attribute.
        setattr(asyncssh.public_key, "time", _Clock(faults))  # noqa: B010

    async def start(self, sockets: Sequence[socket.socket], fault: str = "") -> None:
        """Serve listening sockets; `fault` of stage "gateway" changes the host certificate."""
        logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
        key = asyncssh.import_private_key(private_pem(self._host_key))
        keys: list[object] = [key]
        if fault != "gateway-unsigned-key":
            line = self.authorities.sign_host(self._host_key, self.endpoint, fault)
            keys = [(key, asyncssh.import_certificate(line))]
        for sock in sockets:
            acceptor = await asyncssh.listen(
                sock=sock,
                server_factory=lambda: _Login(self),
                server_host_keys=keys,
                process_factory=self._serve_process,
                sftp_factory=self._serve_sftp,
                allow_scp=False,  # scp -O runs the machine's own scp
                encoding=None,
                line_editor=False,
                login_timeout=_LOGIN_S,
                agent_forwarding=True,
                x11_forwarding=True,
                x11_auth_path=self.x_authority,
                keepalive_interval=0,
            )
            self._acceptors.append(acceptor)

    async def stop(self) -> None:
        """Close all connections and end the programs that run on the machines."""
        for acceptor in self._acceptors:
            acceptor.close()
        for guest in list(self.guests):
            guest.kill()

    def home(self, session: SshSession) -> str:
        """Return the home directory of a session's machine; create it if it is missing."""
        path = os.path.join(self.homes, session.machine.name)
        make_directories(os.path.abspath(path))
        return path

    async def _serve_process(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        session = _login_of(process.channel).session
        struck = self.faults.strike(session.machine.name, "guest")
        if struck:
            code = struck[0].argument or "SSH_TUNNEL_NOT_READY"
            process.stderr.write(f"{code}\n".encode())
            process.exit(255)
            return
        guest = Guest(process, session, self.home(session), self.x_authority)
        self.guests.add(guest)
        try:
            await guest.run()
        finally:
            self.guests.discard(guest)

    def _serve_sftp(self, channel: asyncssh.SSHServerChannel[bytes]) -> GuestSFTPServer:
        return GuestSFTPServer(channel, self.home(_login_of(channel).session))


class _Clock:
    """Replaces the module `time` where asyncssh checks the validity of a certificate."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def time(self) -> float:
        return time.time() + self._faults.clock_ahead()


def _login_of(channel: asyncssh.SSHServerChannel[bytes]) -> _Login:
    login = channel.get_connection().get_owner()
    if not isinstance(login, _Login):
        raise TypeError("the channel belongs to another server")
    return login


class _Login(asyncssh.SSHServer):
    """One connection: its login, and what it may forward."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._session: SshSession | None = None
        self._offered = ""
        self._is_in = False

    @property
    def session(self) -> SshSession:
        """The session that logged in."""
        if self._session is None:
            raise DcsError("no session has logged in")
        return self._session

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._gateway.journal.note("connection")
        validate = conn.validate_public_key

        # asyncssh passes the authority of a certificate to the server, but not the certified key.
        async def remember(username: str, key: bytes, message: bytes, signature: bytes) -> bool:
            self._offered = _bare_line(key)
            return await validate(username, key, message, signature)

        # setattr, because mypy rejects assignments to methods.
        setattr(conn, "validate_public_key", remember)  # noqa: B010

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_in:
            self._gateway.service.connect(self.session, -1)
            self._gateway.journal.note("closed", machine=self.session.machine.name)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        trusted = public_line(self._gateway.authorities.user_ca)
        return _line(key) == trusted and self._find(username)

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._find(username) and not self.session.certificate

    def auth_completed(self) -> None:
        self._is_in = True
        self._gateway.service.connect(self.session, +1)
        self._gateway.journal.note(
            "login", machine=self.session.machine.name, session_id=self.session.session_id
        )

    def _find(self, username: str) -> bool:
        self._session = self._gateway.service.for_login(username, self._offered)
        return self._session is not None

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        if dest_host in _LOOPBACK:
            return True
        raise asyncssh.ChannelOpenError(
            asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "the emulator forwards to loopback only"
        )

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return listen_host in _LOOPBACK

    def unix_connection_requested(self, dest_path: str) -> bool:
        return True

    def unix_server_requested(self, listen_path: str) -> bool:
        return True


def _line(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


def _bare_line(blob: bytes) -> str:
    """Return the key in a public key or certificate blob as ``TYPE BASE64``, "" if unknown."""
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("latin-1")
    line = f"{kind} {base64.b64encode(blob).decode()}"
    try:
        if "-cert-" in kind:
            return _line(asyncssh.import_certificate(line).key)
        return _line(asyncssh.import_public_key(line))
    except asyncssh.KeyImportError:
        return ""
