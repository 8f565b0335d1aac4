"""Host certificates made by ssh-keygen, which is the outside judge of what one looks like."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from dcs_proxy.errors import Untrusted
from dcs_proxy.ssh.certificates import Authority, check_host_certificate
from tests.support.keys import blob_of, certify, line_of, make_key, public_file

KINDS = ("ed25519", "ecdsa", "rsa")
NAME = "gw.example"


class Keys:
    """Keys in one directory, each made once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def key(self, name: str, kind: str) -> Path:
        path = self.directory / f"{name}_{kind}"
        if not path.exists():
            make_key(path, kind)
        return path

    def certificate(self, *options: str, key: str = "ed25519", ca: str = "ed25519") -> bytes:
        """Return the blob of a host certificate, unless options say otherwise for NAME."""
        public = public_file(self.key("host", key))
        options = options or ("-h", "-n", NAME)
        return blob_of(certify(self.key("ca", ca), public, "-I", "id", *options).read_text())

    def authority(self, kind: str = "ed25519", name: str = "ca") -> Authority:
        return Authority(blob_of(line_of(self.key(name, kind))))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


def check(
    blob: bytes, authority: Authority, *, endpoint: str = NAME, now: float | None = None
) -> None:
    now = time.time() if now is None else now
    check_host_certificate(blob, authority=authority, endpoint=endpoint, now=now)


@pytest.mark.parametrize(("key", "ca"), list(itertools.product(KINDS, KINDS)))
def test_a_host_key_of_any_kind_signed_by_any_kind_of_authority_is_trusted(
    keys: Keys, key: str, ca: str
) -> None:
    blob = keys.certificate(key=key, ca=ca)
    check(blob, keys.authority(ca))
    with pytest.raises(Untrusted, match="not signed by the session's authority"):
        check(blob, keys.authority(ca, "other"))
    # One bit of what was signed: in the nonce, which nothing else is compared with.
    spoilt = bytearray(blob)
    spoilt[4 + int.from_bytes(blob[:4], "big") + 4] ^= 1
    with pytest.raises(Untrusted, match="its signature is invalid"):
        check(bytes(spoilt), keys.authority(ca))


@pytest.mark.parametrize("bits", ["384", "521"])
def test_a_host_key_of_any_size_is_trusted(keys: Keys, tmp_path: Path, bits: str) -> None:
    key = make_key(tmp_path / "key", "ecdsa", bits=bits)
    ca = keys.key("ca", "ed25519")
    line = certify(ca, public_file(key), "-I", "id", "-h", "-n", NAME).read_text()
    check(blob_of(line), keys.authority())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-h", "-n", NAME, "-V", "20200101:20210101"), "it ended at 202"),
        (("-h", "-n", NAME, "-V", "+1h:+2h"), "it is not valid before "),
        (("-h", "-n", "elsewhere.example"), f"it does not name {NAME}"),
        (("-h", "-n", f"x{NAME}"), f"it does not name {NAME}"),
        (("-h",), f"it does not name {NAME}"),
        (("-h", "-n", "*.example"), f"it does not name {NAME}"),
        (("-h", "-n", f"{NAME},*.example"), "it names hosts by a pattern"),
        (("-n", NAME), "it is not a host certificate"),
        (("-h", "-n", NAME, "-O", "critical:odd@example.com"), "it has a critical option"),
    ],
)
def test_a_certificate_that_proves_something_else_is_refused(
    keys: Keys, kind: str, options: tuple[str, ...], said: str
) -> None:
    blob = keys.certificate(*options, key=kind, ca=kind)
    with pytest.raises(Untrusted) as caught:
        check(blob, keys.authority(kind))
    assert caught.value.message.startswith(f"the gateway's host key cannot be trusted: {said}")
    is_of_another_time = "ended" in said or "before" in said
    hint = "clock" if is_of_another_time else "no connection was made; report it"
    assert hint in caught.value.hint


def test_a_certificate_that_begins_within_the_clocks_tolerance_is_trusted(keys: Keys) -> None:
    check(keys.certificate("-h", "-n", NAME, "-V", "+4m:+2h"), keys.authority())


@pytest.mark.parametrize("key", KINDS)
def test_a_signature_that_uses_sha1_is_refused(keys: Keys, key: str) -> None:
    blob = keys.certificate("-h", "-n", NAME, "-t", "ssh-rsa", key=key, ca="rsa")
    with pytest.raises(Untrusted, match="its signature uses SHA-1"):
        check(blob, keys.authority("rsa"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_key_is_refused(keys: Keys, kind: str) -> None:
    # The authority's own too.
    for name in ("host", "ca"):
        bare = blob_of(line_of(keys.key(name, kind)))
        with pytest.raises(Untrusted, match=r"it is not a certificate$"):
            check(bare, keys.authority(kind))


def test_any_damage_is_refused(keys: Keys) -> None:
    blob = keys.certificate()
    for end in range(len(blob)):
        with pytest.raises(Untrusted):
            check(blob[:end], keys.authority())
    with pytest.raises(Untrusted):
        check(blob + b"\0", keys.authority())
