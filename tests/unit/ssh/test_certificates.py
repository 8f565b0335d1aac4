from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.errors import Untrusted
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.certificates import (
    START_TOLERANCE_S,
    Terms,
    check_user_certificate,
    generate_key,
    parse_authority,
    read_terms,
)
from dcs_proxy.ssh.keys import KeyPair
from dcs_proxy.ssh.keys import public_line as key_line
from tests.support.forged_certificates import Forgery, packed
from tests.support.keys import keygen

NAME = MachineName("dm-foo")
AUTHORITIES = Authorities()
KEY = generate_key()


def sign(fault: str = "", key: KeyPair = KEY, ends_at: float | None = None) -> str:
    ends_at = time.time() + 3600 if ends_at is None else ends_at
    return AUTHORITIES.sign_user(key_line(key.public), "wssh-1", ends_at, fault)


def check(text: str, *, now: float | None = None, username: str = "wssh-1") -> None:
    now = time.time() if now is None else now
    check_user_certificate(text, public=KEY.public, username=username, now=now, machine=NAME)


def test_a_new_key_is_a_seed_and_its_public_half() -> None:
    key = generate_key()
    seed = Ed25519PrivateKey.from_private_bytes(key.seed)
    assert seed.public_key().public_bytes_raw() == key.public
    assert generate_key().seed != key.seed


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
    odd = read_terms(Forgery(principals=packed(b"m\xffe\n")).line(KEY.public))
    assert odd == Terms(("m\N{REPLACEMENT CHARACTER}e",), 0, None)


REPORT = "no connection was made; report it to the service's support"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("certificate-other-key", "it certifies another key"),
        ("certificate-other-principal", "it is not for the session's login name wssh-1"),
        ("certificate-host", "it is not a user certificate"),
        ("certificate-critical", "it has a critical option that OpenSSH does not know"),
        ("certificate-garbage", "it is not a certificate that OpenSSH can read"),
        ("certificate-two-lines", "it is not one line of text"),
    ],
)
def test_every_wrong_certificate_is_refused_with_the_reason(fault: str, said: str) -> None:
    with pytest.raises(Untrusted) as caught:
        check(sign(fault))
    assert caught.value.one_line() == (
        f"dm-foo: the API's certificate cannot be used: {said}; hint: {REPORT}"
    )


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize(
    ("forgery", "said"),
    [
        (Forgery(valid_before=1767323045), "it ended at 2026-01-02 03:04:05 UTC"),
        (Forgery(valid_after=4102542245), "it is not valid before 2100-01-02 03:04:05 UTC"),
        (Forgery(valid_after=2**63), "it is not valid before an impossible date"),
        (Forgery(valid_after=10**13), "it is not valid before an impossible date"),
    ],
)
def test_a_certificate_of_another_time_may_be_the_clocks_fault(forgery: Forgery, said: str) -> None:
    with pytest.raises(Untrusted) as caught:
        check(forgery.line(KEY.public), now=2e9, username="me")
    assert caught.value.one_line() == (
        f"dm-foo: the API's certificate cannot be used: {said}; hint: check this computer's clock"
    )


@pytest.mark.parametrize(
    "forgery",
    [
        Forgery(principals=packed(*[b"you"] * 255, b"me")),
        Forgery(critical_options=packed(b"force-command", b"a\0b", b"source-address", b"c\0d")),
        Forgery(critical_options=packed(b"verify-required", b"")),
        Forgery(extensions=packed(b"permit-pty", b"", b"new", b"a\0b")),
        Forgery(valid_after=2_000_000_000 + START_TOLERANCE_S, valid_before=2_000_000_001),
    ],
)
def test_what_openssh_takes_is_taken_to_its_limits(forgery: Forgery) -> None:
    check(forgery.line(KEY.public), now=2_000_000_000, username="me")


@pytest.mark.parametrize(
    "forgery",
    [
        Forgery(principals=packed(*[b"me"] * 257)),
        Forgery(principals=packed(b"me", b"y\0u")),
        Forgery(key_id=b"i\0d"),
        Forgery(critical_options=packed(b"force-command", b"x", b"source\0address", b"y")),
        Forgery(extensions=packed(b"permit-pty", b"", b"n\0w", b"")),
        Forgery(extensions=packed(b"permit-pty")),
        Forgery(after=b"x"),
    ],
)
def test_what_openssh_cannot_read_is_refused(forgery: Forgery) -> None:
    with pytest.raises(Untrusted, match=r"it is not a certificate that OpenSSH can read$"):
        check(forgery.line(KEY.public), now=1, username="me")
    assert read_terms(forgery.line(KEY.public)) is None


def test_bytes_after_the_signature_are_refused() -> None:
    with pytest.raises(Untrusted, match=r"its signature is invalid$"):
        check(Forgery(inside=b"x").line(KEY.public), now=1, username="me")


def test_the_end_of_a_line_is_no_part_of_it_and_nothing_else_is_passed_over() -> None:
    line = sign()
    longest = line + " " * (16 * 1024 - len(line))
    for text in (f"{line}\n", f"{line}\r\n", f"{line} comment", longest):
        check(text)
    for text in (f"\n{line}", f"\r{line}", f"{line}\n\n", f"{line} \u00e9", f"{longest} "):
        with pytest.raises(Untrusted, match=r"it is not one line of text$"):
            check(text)


@pytest.mark.parametrize("fault", ["certificate-rsa", "certificate-ecdsa"])
def test_any_kind_of_authority_may_sign(fault: str) -> None:
    check(sign(fault))


def test_a_certificate_holds_until_its_last_second() -> None:
    end = int(time.time()) + 1000
    text = sign(ends_at=end)
    check(text, now=end - 0.5)
    with pytest.raises(Untrusted, match="it ended at "):
        check(text, now=end)


def test_a_certificate_slightly_from_the_future_is_a_clock_that_is_slow() -> None:
    now = time.time()
    text = sign()
    check(text, now=now - 200)
    with pytest.raises(Untrusted, match="not valid before") as caught:
        check(text, now=now - 3600)
    assert caught.value.hint == "check this computer's clock"


def test_a_plain_key_is_no_certificate() -> None:
    with pytest.raises(Untrusted, match=r": it is not a certificate of an Ed25519 key$"):
        check(key_line(KEY.public))


def test_what_is_no_base64_is_not_passed_over() -> None:
    kind, encoded = sign().split()[:2]
    for text in (
        f"{kind} {encoded[:40]}#{encoded[40:]}",
        f"{kind} {encoded}=",
        kind,
        f" {encoded}",
    ):
        with pytest.raises(Untrusted, match=r": it is not a certificate that OpenSSH can read$"):
            check(text)
    with pytest.raises(Untrusted, match="no usable public key"):
        parse_authority(public_line(AUTHORITIES.host_ca).replace(" ", " #"), NAME)


def test_a_line_must_say_what_is_in_it() -> None:
    _, encoded = sign().split()[:2]
    with pytest.raises(Untrusted, match=r": it is not a certificate that OpenSSH can read$"):
        check(f"ssh-rsa-cert-v01@openssh.com {encoded}")


def test_an_authority_of_an_unknown_kind_is_said_so() -> None:
    kind, encoded = sign().split()[:2]
    blob = base64.b64decode(encoded)
    authority = b"\x00\x00\x00\x0bssh-ed25519"
    assert blob.count(authority) == 2, "the authority's key, and its signature"
    other = blob.replace(authority, authority[:-1] + b"8")
    with pytest.raises(Untrusted, match=r": it is signed by an unknown kind of key$"):
        check(f"{kind} {base64.b64encode(other).decode()}")


def test_a_signature_that_calls_itself_of_another_kind_is_invalid() -> None:
    kind, encoded = sign().split()[:2]
    blob = base64.b64decode(encoded)
    name = b"\x00\x00\x00\x0bssh-ed25519"
    other = name[:-1] + b"8"
    head, _, tail = blob.rpartition(name)
    assert len(tail) == 4 + 64
    with pytest.raises(Untrusted, match=r"its signature is invalid$"):
        check(f"{kind} {base64.b64encode(head + other + tail).decode()}")


def test_our_reader_finds_what_cryptographys_finds() -> None:
    from cryptography.hazmat.primitives.serialization import (
        SSHCertificate,
        load_ssh_public_identity,
    )

    from dcs_proxy.ssh.certificates import _parse_certificate

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
    kind, data = sign().split()[:2]
    blob = bytearray(base64.b64decode(data))
    blob[-1] ^= 1
    with pytest.raises(Untrusted, match=r"its signature is invalid$"):
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
    short = base64.b64encode(packed(b"ssh-ed25519", bytes(31))).decode()
    longer = base64.b64encode(packed(b"ssh-ed25519", bytes(32)) + b"x").decode()
    for wrong in (
        f"{line}\n{line}", sign(), "ssh-ed25519 AAAA", f"ssh-ed25519 {short}",
        f"ssh-ed25519 {longer}", "", "# nothing",
    ):  # fmt: skip
        with pytest.raises(Untrusted) as caught:
            parse_authority(wrong, NAME)
        assert caught.value.one_line() == (
            f"dm-foo: the API's host trust contains no usable public key; hint: {REPORT}"
        )


def test_an_authority_may_be_of_another_kind_that_is_known() -> None:
    other = public_line(ec.generate_private_key(ec.SECP256R1()))
    assert parse_authority(other, NAME).line == other
    kind, encoded = other.split()
    blob = base64.b64decode(encoded)
    unknown = base64.b64encode(packed(b"ssh-unheard-of", b"key")).decode()
    for wrong in (
        f"{kind} {base64.b64encode(blob[:-1]).decode()}", f"ssh-unheard-of {unknown}"
    ):  # fmt: skip
        with pytest.raises(Untrusted, match="no usable public key"):
            parse_authority(wrong, NAME)


def test_openssh_reads_the_certificate_as_we_do(tmp_path: Path) -> None:
    (tmp_path / "cert.pub").write_text(sign() + "\n")
    said = keygen("-L", "-f", str(tmp_path / "cert.pub"))
    assert "user certificate" in said and "wssh-1" in said
