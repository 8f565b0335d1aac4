from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcs_proxy.certificate import (
    Terms,
    check_user_certificate,
    generate_key,
    parse_authority,
    read_terms,
)
from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.errors import Untrusted
from dcs_proxy.keypair import KeyPair
from dcs_proxy.keypair import public_line as key_line
from dcs_proxy.names import MachineName

NAME = MachineName("dm-foo")
AUTHORITIES = Authorities()
KEY = generate_key()


def sign(fault: str = "", key: KeyPair = KEY, ends_at: float | None = None) -> str:
    ends_at = time.time() + 3600 if ends_at is None else ends_at
    return AUTHORITIES.sign_user(key_line(key.public), "wssh-1", ends_at, fault)


def check(text: str, *, now: float | None = None, username: str = "wssh-1") -> None:
    now = time.time() if now is None else now
    check_user_certificate(text, public=KEY.public, username=username, now=now, machine=NAME)


def test_a_good_certificate_is_taken_with_its_end() -> None:
    now = time.time()
    text = sign(ends_at=now + 3600)
    certificate = check_user_certificate(
        text, public=KEY.public, username="wssh-1", now=now, machine=NAME
    )
    assert certificate.ends_at == int(now + 3600)
    assert certificate.line == " ".join(text.split()[:2])


def test_what_a_certificate_says_is_read_whether_it_holds_or_not() -> None:
    now = int(time.time())
    terms = read_terms(sign(ends_at=now + 100))
    assert terms is not None and terms.begins_at <= now
    assert terms == Terms(("wssh-1",), terms.begins_at, now + 100)
    assert read_terms(sign("certificate-expired")) is not None
    for text in ("", key_line(KEY.public), sign("certificate-garbage")):
        assert read_terms(text) is None


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("certificate-other-key", "for another key"),
        ("certificate-other-principal", "not for the session's login name wssh-1"),
        ("certificate-host", "not a user certificate"),
        ("certificate-expired", "it ended at"),
        ("certificate-future", "not valid before"),
        ("certificate-critical", "a critical option"),
        ("certificate-garbage", "not a certificate that OpenSSH can read"),
        ("certificate-two-lines", "not one line of text"),
    ],
)
def test_every_wrong_certificate_is_refused_with_the_reason(fault: str, said: str) -> None:
    with pytest.raises(Untrusted, match=said) as caught:
        check(sign(fault))
    assert caught.value.machine == NAME
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("fault", ["certificate-rsa", "certificate-ecdsa"])
def test_any_kind_of_authority_may_sign(fault: str) -> None:
    check(sign(fault))


def test_a_certificate_holds_until_its_last_second() -> None:
    end = int(time.time()) + 1000
    text = sign(ends_at=end)
    check(text, now=end - 0.5)
    with pytest.raises(Untrusted, match="it ended at"):
        check(text, now=end)


def test_a_certificate_slightly_from_the_future_is_a_clock_that_is_slow() -> None:
    now = time.time()
    text = sign()
    check(text, now=now - 200)
    with pytest.raises(Untrusted, match="not valid before") as caught:
        check(text, now=now - 3600)
    assert caught.value.hint == "is this computer's clock right?"


def test_a_plain_key_is_no_certificate() -> None:
    with pytest.raises(Untrusted, match="not a certificate of an Ed25519 key"):
        check(key_line(KEY.public))


def test_what_is_no_base64_is_not_passed_over() -> None:
    kind, encoded = sign().split()[:2]
    for text in (
        f"{kind} {encoded[:40]}#{encoded[40:]}",
        f"{kind} {encoded}=",
        kind,
        f" {encoded}",
    ):
        with pytest.raises(Untrusted, match="not a certificate that OpenSSH can read"):
            check(text)
    with pytest.raises(Untrusted, match="no usable public key"):
        parse_authority(public_line(AUTHORITIES.host_ca).replace(" ", " #"), NAME)


def test_a_line_must_say_what_is_in_it() -> None:
    _, encoded = sign().split()[:2]
    with pytest.raises(Untrusted, match="not a certificate that OpenSSH can read"):
        check(f"ssh-rsa-cert-v01@openssh.com {encoded}")


def test_an_authority_of_an_unknown_kind_is_said_so() -> None:
    import base64

    kind, encoded = sign().split()[:2]
    blob = base64.b64decode(encoded)
    authority = b"\x00\x00\x00\x0bssh-ed25519"
    assert blob.count(authority) == 2, "the authority's key, and its signature"
    other = blob.replace(authority, authority[:-1] + b"8")
    with pytest.raises(Untrusted, match="a kind of key that is not known here"):
        check(f"{kind} {base64.b64encode(other).decode()}")


def test_our_reader_finds_what_cryptographys_finds() -> None:
    import base64

    from cryptography.hazmat.primitives.serialization import (
        SSHCertificate,
        load_ssh_public_identity,
    )

    from dcs_proxy.certificate import _parse_certificate

    for fault in ("", "certificate-host", "certificate-critical", "certificate-rsa"):
        text = sign(fault)
        ours = _parse_certificate(base64.b64decode(text.split()[1]))
        theirs = load_ssh_public_identity(text.encode())
        assert isinstance(theirs, SSHCertificate)
        assert ours.kind == theirs.type.value
        assert ours.principals == list(theirs.valid_principals)
        assert (ours.valid_after, ours.valid_before) == (theirs.valid_after, theirs.valid_before)
        assert ours.critical_options == list(theirs.critical_options)


def test_a_changed_bit_breaks_the_signature() -> None:
    import base64

    kind, data = sign().split()[:2]
    blob = bytearray(base64.b64decode(data))
    blob[-1] ^= 1
    with pytest.raises(Untrusted):
        check(f"{kind} {base64.b64encode(blob).decode()}")


@given(st.text())
def test_any_text_is_a_clear_refusal(text: str) -> None:
    with pytest.raises(Untrusted):
        check(text)
    with pytest.raises(Untrusted):
        parse_authority(text, NAME)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_certificate_is_refused_or_good(data: st.DataObject) -> None:
    import base64

    kind, encoded = sign().split()[:2]
    blob = bytearray(base64.b64decode(encoded))
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        check(f"{kind} {base64.b64encode(blob).decode()}")
    except Untrusted:
        pass
    else:
        assert base64.b64encode(blob).decode() == encoded


def test_an_authority_is_one_key() -> None:
    line = public_line(AUTHORITIES.host_ca)
    assert parse_authority(f"{line} a comment", NAME).line == line
    for wrong in (f"{line}\n{line}", sign(), "ssh-ed25519 AAAA", "", "# nothing"):
        with pytest.raises(Untrusted, match="no usable public key"):
            parse_authority(wrong, NAME)


def test_openssh_reads_the_certificate_as_we_do(tmp_path: Path) -> None:
    program = shutil.which("ssh-keygen")
    assert program
    (tmp_path / "cert.pub").write_text(sign() + "\n")
    said = subprocess.run(
        [program, "-L", "-f", tmp_path / "cert.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert "user certificate" in said and "wssh-1" in said
