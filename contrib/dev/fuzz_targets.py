"""The targets of contrib/dev/fuzz: parsers of untrusted bytes, and the errors they may raise.

Usage: fuzz_targets.py [TARGET CORPUS [LIBFUZZER OPTIONS]]; without arguments, print the targets.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dcs_proxy"]):
    from dcs_proxy.api.host_trust import check_host_trust
    from dcs_proxy.api.model import (
        parse_error_body,
        parse_machines,
        parse_session,
    )
    from dcs_proxy.emulator.authority import Authorities, public_line
    from dcs_proxy.errors import ApiProtocolError, ConfigError, Untrusted
    from dcs_proxy.names import MachineName
    from dcs_proxy.openssh.config_file import install, parse_blocks, remove
    from dcs_proxy.session.records import parse_record
    from dcs_proxy.ssh.agent import parse_identities
    from dcs_proxy.ssh.certificates import check_user_certificate, generate_key, parse_authority
    from dcs_proxy.ssh.keys import public_line as key_line
    from dcs_proxy.ssh.wire import WireError, pack_string, pack_u32

NAME = MachineName("dm-foo")
KEY = generate_key()
CAS = Authorities(None)
USER = "wssh-1"
CERTIFICATE = CAS.sign_user(key_line(KEY.public), USER, 4_000_000_000)
BLOB = base64.b64decode(CERTIFICATE.split()[1])
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
                check_host_trust(parsed.connection.host_trust, parsed.connection.endpoint, NAME),
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


TARGETS: dict[str, tuple[Callable[[bytes], None], bytes]] = {
    "session": (session, json.dumps(SESSION).encode()),
    "certificate_text": (certificate_text, CERTIFICATE.encode()),
    "certificate_blob": (certificate_blob, BLOB),
    "identities": (identities, pack_u32(1) + pack_string(KEY.blob) + pack_string(b"x")),
    "record": (record, json.dumps(RECORD).encode()),
    "config": (config, INSTALLED),
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
