"""The targets of contrib/dev/fuzz: parsers of untrusted bytes, and the errors they may raise.

Usage: fuzz_targets.py [TARGET CORPUS [LIBFUZZER OPTIONS]]; without arguments, print the targets.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import atheris
import paramiko
from cryptography.hazmat.primitives.asymmetric import ed25519

with atheris.instrument_imports(include=["dcs_proxy"]):
    from dataclasses import replace

    from dcs_proxy.api.host_trust import check_host_trust
    from dcs_proxy.api.model import (
        parse_error_body,
        parse_machines,
        parse_session,
    )
    from dcs_proxy.bridge.packets import Packets
    from dcs_proxy.bridge.stream import Stream
    from dcs_proxy.emulator.authority import Authorities, public_line
    from dcs_proxy.errors import ApiProtocolError, ConfigError, Untrusted, UsageError
    from dcs_proxy.local.alias_editor import set_alias
    from dcs_proxy.local.settings import load_settings
    from dcs_proxy.names import (
        MachineName,
        machine_name,
        parse_machine_name,
        short_names,
        why_unusable,
    )
    from dcs_proxy.openssh.config_file import install, parse_blocks, remove
    from dcs_proxy.openssh.config_text import render_known_hosts
    from dcs_proxy.session.records import parse_record
    from dcs_proxy.ssh.agent import parse_identities
    from dcs_proxy.ssh.certificates import (
        Authority,
        check_host_certificate,
        check_user_certificate,
        generate_key,
        parse_authority,
    )
    from dcs_proxy.ssh.keys import public_line as key_line
    from dcs_proxy.ssh.wire import WireError, pack_string, pack_u32

NAME = MachineName("dm-foo")
KEY = generate_key()
CAS = Authorities(None)
USER = "wssh-1"
CERTIFICATE = CAS.sign_user(key_line(KEY.public), USER, 4_000_000_000)
BLOB = base64.b64decode(CERTIFICATE.split()[1])
HOST_CERTIFICATE_MADE_AT = time.time()
HOST_KEY = ed25519.Ed25519PrivateKey.generate()
HOST_BLOB = base64.b64decode(CAS.sign_host(HOST_KEY, "ssh.example").split()[1])
AUTHORITY = Authority(base64.b64decode(public_line(CAS.host_ca).split()[1]))
# RFC 4253 §6: a message 2 (ignore) of one byte, and padding.
PACKET = pack_u32(12) + bytes([10, 2]) + bytes(10)
SESSION = {
    "session_id": "wssh-1", "machine_id": NAME, "status": "ready",
    "created_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-02T04:04:05.5+01:00",
    "retry_after_ms": 500, "error_code": "X", "error_message": "x",
    "connection": {
        "endpoint": "ssh.example", "port": 22, "ssh_username": USER,
        "user_certificate": CERTIFICATE,
        "host_trust": {
            "kind": "cert_authority", "host_pattern": "*.example,ssh.example",
            "public_key": public_line(CAS.host_ca),
        },
    },
}  # fmt: skip
TOP, LAST = "Host dm-*\n    User x\n", "Host *\n"
INSTALLED = install(b"Host mine\n", TOP, LAST)
RECORD = {
    "attempt": {
        "idempotency_key": "k", "public_key": KEY.public.hex(), "agent_path": "/a",
        "key_ends_at": 1.0, "account": "[]", "session_id": "s", "polled": True, "machine": NAME,
    },
    "ready": {
        "endpoint": "e", "port": 22, "ssh_username": USER, "authority": "ssh-ed25519 AAAA",
        "certificate": CERTIFICATE, "bare_key": False, "ends_at": 1.0, "began_at": 1.0,
        "proved_at": 1.0,
    },
    "previous_token": "", "previous_username": "",
}  # fmt: skip


def session(data: bytes) -> None:
    """a response of the API, and the host trust in it"""
    try:
        parsed = parse_session(data, NAME)
        if parsed.connection is not None:
            parse_authority(
                check_host_trust(
                    parsed.connection.host_trust,
                    parsed.connection.endpoint,
                    parsed.connection.port,
                    NAME,
                ),
                NAME,
            )
    except (ApiProtocolError, Untrusted):
        pass
    parse_error_body(data)
    try:
        parse_machines(data)
    except ApiProtocolError:
        pass


def certificate_text(data: bytes) -> None:
    """a user certificate as the API sends it"""
    _check(data.decode("utf-8", "surrogateescape"))


def certificate_blob(data: bytes) -> None:
    """a user certificate on the wire"""
    kind = data[4 : 4 + int.from_bytes(data[:4], "big")].decode("latin-1")
    _check(f"{kind} {base64.b64encode(data).decode()}")


def _check(text: str) -> None:
    try:
        taken = check_user_certificate(
            text, public=KEY.public, username=USER, now=1_800_000_000, machine=NAME
        )
    except Untrusted:
        return
    # No other certificate can have a valid signature.
    assert taken.blob == BLOB


def identities(data: bytes) -> None:
    """an agent's list"""
    try:
        parse_identities(data)
    except WireError:
        pass


def record(data: bytes) -> None:
    """a file in the state directory"""
    parse_record(data)


def config(data: bytes) -> None:
    """the user's ssh config, with and without our blocks"""
    try:
        own = parse_blocks(data).own
    except ConfigError:
        return
    assert remove(data) is None or remove(data) == own
    if parse_blocks(own).own == own and parse_blocks(own).top is None:
        assert remove(install(own, TOP, LAST)) == own


def ids(data: bytes) -> None:
    """ids of a list of machines, and names as users type them"""
    texts = data.decode("utf-8", "surrogateescape").split("\n")
    names = [name for text in texts if (name := machine_name(text)) is not None]
    for text in texts:
        assert (machine_name(text) is None) == bool(why_unusable(text))
        try:
            typed = parse_machine_name(text)
        except UsageError as error:
            assert all(line.isprintable() for line in error.lines())
        else:
            assert machine_name(typed) == typed
    for name, short in short_names(names, {}).items():
        meant = {other for other in names if other == short or other.endswith(short[3:])}
        assert short == name or meant == {name}


def packets(data: bytes) -> None:
    """what a client or gateway says to a bridge before there are keys"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        theirs.send(data[:100_000])
        theirs.close()
        packetizer = Packets(Stream(ours.fileno(), ours.fileno()))
        try:
            packetizer.readline(1)
            while True:
                number, message = packetizer.read_message()
                assert 0 <= number < 256
                message.asbytes()
        except (paramiko.SSHException, EOFError):
            pass


def host_certificate(data: bytes) -> None:
    """a gateway's host certificate"""
    try:
        check_host_certificate(
            data, authority=AUTHORITY, endpoint="ssh.example", now=HOST_CERTIFICATE_MADE_AT
        )
    except Untrusted:
        return
    # No other certificate can have a valid signature.
    assert data == HOST_BLOB


def known_hosts(data: bytes) -> None:
    """an endpoint and an authority that are to be written for ssh"""
    endpoint, _, authority = data.decode("utf-8", "surrogateescape").partition("\0")
    try:
        text = render_known_hosts(endpoint, authority)
    except ValueError:
        return
    mark, host, kind, key, *rest = text.removesuffix("\n").split(" ")
    assert (mark, host, f"{kind} {key}") == ("@cert-authority", endpoint, authority)
    assert not rest and text.isascii() and text[:-1].isprintable()


def toml(data: bytes) -> None:
    """the config file, read by one library and edited by another"""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        try:
            before = load_settings({}, file.name)
        except ConfigError as error:
            assert all(line.isprintable() for line in error.lines())
            return
        text = set_alias(data.decode(), MachineName("dm-alias"), NAME)
        Path(file.name).write_text(text)
        after = load_settings({}, file.name)
    assert after == replace(before, aliases={**before.aliases, "dm-alias": NAME})


TARGETS: dict[str, tuple[Callable[[bytes], None], bytes]] = {
    "session": (session, json.dumps(SESSION).encode()),
    "certificate_text": (certificate_text, CERTIFICATE.encode()),
    "certificate_blob": (certificate_blob, BLOB),
    "identities": (identities, pack_u32(1) + pack_string(KEY.blob) + pack_string(b"x")),
    "record": (record, json.dumps(RECORD).encode()),
    "config": (config, INSTALLED),
    "ids": (ids, f"dm-foo\n{'a' * 8}-bbbb-cccc-dddd-{'e' * 12}\nfoo\n../etc".encode()),
    "packets": (packets, b"SSH-2.0-x\r\n" + PACKET + PACKET),
    "host_certificate": (host_certificate, HOST_BLOB),
    "known_hosts": (known_hosts, b"ssh.example\0" + public_line(CAS.host_ca).encode()),
    "toml": (toml, b'wake_seconds = 5\nproxy = "http://a:1"\n[aliases]\ndm-web = "dm-foo"\n'),
}


def main() -> None:
    if len(sys.argv) < 2:
        print(*TARGETS)
        return
    target, seed = TARGETS[sys.argv.pop(1)]
    (Path(sys.argv[1]) / "seed").write_bytes(seed)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
