"""Certificates, keys and known_hosts: we and OpenSSH's own programs read the same in them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcs_proxy.errors import Untrusted
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.config_text import render_known_hosts
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import (
    START_TOLERANCE_S,
    _parse_certificate,
    check_user_certificate,
    generate_key,
    parse_authority,
    read_terms,
)
from dcs_proxy.ssh.keys import public_blob, public_line
from tests.support.forged_certificates import Forgery, packed
from tests.support.keys import blob_of, certify, keygen, make_key
from tests.support.openssh import Shown, run, show

NAME = MachineName("dm-foo")
KEY = generate_key()
AUTHORITIES = {
    "ed25519": "", "ecdsa-256": "256", "ecdsa-384": "384", "ecdsa-521": "521", "rsa": "2048",
}  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority of each kind, and our public key as user.pub."""
    directory = tmp_path_factory.mktemp("keys")
    for name, bits in AUTHORITIES.items():
        make_key(directory / name, name.partition("-")[0], bits=bits)
    (directory / "user.pub").write_text(f"{public_line(KEY.public)}\n")
    return directory


def fingerprint(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"


def accepted(line: str, *, username: str, now: float) -> bool:
    try:
        check_user_certificate(line, public=KEY.public, username=username, now=now, machine=NAME)
    except Untrusted:
        return False
    return True


# --- certificates that ssh-keygen makes ---------------------------------------------------------

# ssh-keygen takes principals apart at commas, and prints each on a line of its own.
WORDS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=","), min_size=1, max_size=20
)
KEY_IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
BEGINNINGS = st.none() | st.integers(1, 2**32)
LENGTHS = st.none() | st.integers(1, 2**32)
OPTIONS = st.lists(
    st.sampled_from(
        ["clear", "no-pty", "no-port-forwarding", "no-touch-required", "verify-required",
         "force-command=ls -l", "source-address=192.0.2.0/24,::1/128", "critical:unheard-of=x",
         "critical:flag", "extension:login@example.com=me"]
    ),
    unique=True,
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What a certificate is to say."""

    kind: str
    authority: str
    key_id: str
    serial: int
    principals: list[str]
    begins_at: int | None
    length_s: int | None
    options: list[str]

    def words(self) -> list[str]:
        begin = "always" if self.begins_at is None else _date(self.begins_at)
        end = "forever"
        if self.length_s is not None:
            end = _date((self.begins_at or 0) + self.length_s)
        words = ["-I", self.key_id, "-z", str(self.serial), "-V", f"{begin}:{end}"]
        words += ["-h"] if self.kind == "host" else []
        words += ["-n", ",".join(self.principals)] if self.principals else []
        return words + [word for option in self.options for word in ("-O", option)]


def _date(moment: int) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(moment))


WISHES = st.builds(
    Wish, st.sampled_from(["user", "user", "host"]), st.sampled_from(list(AUTHORITIES)), KEY_IDS,
    st.integers(0, 2**64 - 1), st.lists(WORDS, max_size=3), BEGINNINGS, LENGTHS, OPTIONS,
)  # fmt: skip
ODD_ID = Wish("user", "rsa", "x\n        Serial: 1\n", 2**64 - 1, ["me"], None, None, ["clear"])
KNOWN = Wish("user", "ed25519", "id", 0, ["me"], 1, 9, ["force-command=ls", "verify-required"])
UNKNOWN = Wish("user", "ed25519", "id", 0, ["me"], 1, 9, ["critical:unheard-of=x"])
# Around the beginning and the end, and anywhere between.
SHIFTS = st.sampled_from([-START_TOLERANCE_S - 1, -START_TOLERANCE_S, 0, 8, 9]) | st.integers(0)


@settings(max_examples=60, deadline=None)
@given(wish=WISHES, shift=SHIFTS, choice=st.integers(0, 3))
@example(wish=ODD_ID, shift=0, choice=0)
@example(wish=KNOWN, shift=8, choice=0)
@example(wish=KNOWN, shift=9, choice=0)
@example(wish=KNOWN, shift=-START_TOLERANCE_S - 1, choice=0)
@example(wish=UNKNOWN, shift=0, choice=0)
def test_openssh_and_we_read_the_same(keys: Path, wish: Wish, shift: int, choice: int) -> None:
    line = certify(keys / wish.authority, keys / "user.pub", *wish.words()).read_text()
    shown = show(keys / "user-cert.pub")
    ours, terms = _parse_certificate(blob_of(line)), read_terms(line)
    assert shown is not None and terms is not None
    assert shown.kind == f"ssh-ed25519-cert-v01@openssh.com {_kind(ours.kind)} certificate"
    assert shown.public_key == fingerprint(public_blob(ours.public))
    assert shown.authority == fingerprint(ours.authority)
    assert shown.principals == [p.decode() for p in ours.principals] == wish.principals
    assert (shown.begins_at, shown.ends_at) == (ours.valid_after, ours.valid_before)
    assert [o.partition(" ")[0] for o in shown.critical_options] == [
        name.decode() for name in ours.critical_options
    ]
    assert terms.begins_at == shown.begins_at
    assert terms.ends_at == (None if wish.length_s is None else shown.ends_at)
    username = [*wish.principals, "nobody"][choice % (len(wish.principals) + 1)]
    now = (wish.begins_at or 0) + shift
    assert accepted(line, username=username, now=now) is _is_good(shown, username, now)


def _kind(kind: int) -> str:
    return {1: "user", 2: "host"}[kind]


def _is_good(shown: Shown, username: str, now: float) -> bool:
    """Whether a certificate is one to log in with, by what OpenSSH says of it."""
    return (
        " user " in shown.kind
        and username in shown.principals
        and shown.begins_at <= now + START_TOLERANCE_S
        and now < shown.ends_at
        and not any("UNKNOWN" in option for option in shown.critical_options)
    )


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "sk-ssh-ed25519@openssh.com"])
def test_certificates_of_other_keys_are_refused_for_what_they_are(
    keys: Path, kind: str, tmp_path: Path
) -> None:
    public = tmp_path / "other.pub"
    if kind.startswith("sk-"):
        # Only a security key could sign with it; anybody can write its public half down.
        blob = packed(kind.encode(), KEY.public, b"ssh:")
        public.write_text(f"{kind} {base64.b64encode(blob).decode()}\n")
    else:
        make_key(tmp_path / "other", kind)
    line = certify(keys / "ed25519", public, "-I", "x", "-n", "me").read_text()
    shown = show(tmp_path / "other-cert.pub")
    assert shown is not None and shown.kind.startswith(f"{line.split()[0]} ")
    assert read_terms(line) is None
    with pytest.raises(Untrusted, match="it is not a certificate of an Ed25519 key"):
        check_user_certificate(line, public=KEY.public, username="me", now=1.0, machine=NAME)


@pytest.mark.parametrize("authority", list(AUTHORITIES))
def test_an_authority_made_by_openssh_is_read_and_written_as_it_is(
    keys: Path, authority: str
) -> None:
    line = (keys / f"{authority}.pub").read_text()
    read = parse_authority(line, NAME)
    assert read.line == line.strip()
    said = keygen("-l", "-f", str(keys / f"{authority}.pub"))
    assert said.split()[1] == fingerprint(read.blob)


# --- certificates that are not as they should be ------------------------------------------------


RESTS = st.sampled_from([b"", b"", b"", b"\0\0\0\1", b"x"])
NAMES = st.sampled_from([b"me", b"me", b"me\0too", b"", "\u00fc".encode(), b"\xff"])
# Now and then something is left over.
LISTS = st.builds(lambda each, rest: packed(*each) + rest, st.lists(NAMES, max_size=4), RESTS)
OPTIONALLY = st.just(b"") | LISTS


@settings(max_examples=100, deadline=None)
@given(
    st.builds(Forgery, st.binary(max_size=40), NAMES, LISTS, OPTIONALLY, OPTIONALLY,
              st.binary(max_size=4), RESTS, RESTS)
)  # fmt: skip
@example(Forgery())
@example(Forgery(key_id=b"i\0d"))
@example(Forgery(principals=packed(b"me", b"a\0b")))
@example(Forgery(principals=packed(*[b"me"] * 256)))
@example(Forgery(principals=packed(*[b"me"] * 257)))
@example(Forgery(extensions=packed(b"permit-pty")))
@example(Forgery(extensions=packed(b"me\0too", b"")))
@example(Forgery(inside=b"x"))
def test_what_we_accept_openssh_accepts(
    tmp_path_factory: pytest.TempPathFactory, forgery: Forgery
) -> None:
    if accepted(forgery.line(KEY.public), username="me", now=1.0):
        file = tmp_path_factory.mktemp("forgery") / "forged-cert.pub"
        file.write_text(f"{forgery.line(KEY.public)}\n")
        assert show(file) is not None


@pytest.mark.parametrize("forgery", [Forgery(), Forgery(principals=packed(*[b"me"] * 256))])
def test_a_forgery_without_a_fault_is_accepted_by_both(tmp_path: Path, forgery: Forgery) -> None:
    assert accepted(forgery.line(KEY.public), username="me", now=1.0)
    file = tmp_path / "forged-cert.pub"
    file.write_text(f"{forgery.line(KEY.public)}\n")
    assert show(file) is not None


# --- known_hosts --------------------------------------------------------------------------------


def finds(known_hosts: Path, name: str) -> bool:
    """Whether `ssh-keygen -F` finds a line for the name."""
    program = shutil.which("ssh-keygen")
    assert program
    done = run(program, "-F", name, "-f", str(known_hosts))
    assert bool(done.stdout) is (done.returncode == 0)
    return done.returncode == 0


@pytest.mark.parametrize(
    ("endpoint", "others"),
    [
        ("ssh.example", ["sshxexample", "a.ssh.example", "ssh.example.org", "example", "dm-foo"]),
        ("a.ssh.example", ["b.ssh.example", "ssh.example"]),
        ("192.0.2.1", ["192.0.2.10", "192.0.2.2", "192x0.2.1"]),
        ("2001:db8::1", ["2001:db8::2", "2001:db8::11"]),
    ],
)
@pytest.mark.parametrize("authority", ["ed25519", "rsa"])
def test_openssh_finds_our_known_hosts_line_for_the_endpoint_alone(
    keys: Path, tmp_path: Path, endpoint: str, others: list[str], authority: str
) -> None:
    key = parse_authority((keys / f"{authority}.pub").read_text(), NAME)
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(render_known_hosts(endpoint, key.line))
    assert finds(known_hosts, endpoint)
    assert [name for name in others if finds(known_hosts, name)] == []
    said = keygen("-l", "-F", endpoint, "-f", str(known_hosts))
    assert "CA" in said.split("\n")[0].split() and fingerprint(key.blob) in said


# --- keys that we make, in a real agent ---------------------------------------------------------


@pytest.fixture
def lent(agent: Agent, keys: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Our key and its certificate, both in the agent: the files of their public halves."""
    public = tmp_path / "lent.pub"
    public.write_text(f"{public_line(KEY.public)}\n")
    certificate = certify(keys / "ed25519", public, "-I", "id", "-n", "me")
    agent.add_key(KEY, comment="dm-foo", lifetime_s=600)
    blob = blob_of(certificate.read_text())
    agent.add_certificate(KEY, blob, comment="dm-foo", lifetime_s=600, destination=None)
    return public, certificate


def test_ssh_keygen_and_ssh_add_know_our_keys_by_one_fingerprint(
    agent: Agent, lent: tuple[Path, Path]
) -> None:
    expected = f"256 {fingerprint(KEY.blob)}"
    for file, kind in zip(lent, ["(ED25519)", "(ED25519-CERT)"], strict=True):
        words = keygen("-l", "-f", str(file)).split()
        assert (" ".join(words[:2]), words[-1]) == (expected, kind)
    listed = run("ssh-add", "-l", SSH_AUTH_SOCK=agent.path).stdout.splitlines()
    assert listed == [f"{expected} dm-foo (ED25519)", f"{expected} dm-foo (ED25519-CERT)"]


def test_ssh_add_tests_our_key_and_certificate_and_finds_them_usable(
    agent: Agent, lent: tuple[Path, Path]
) -> None:
    for file in lent:
        done = run("ssh-add", "-T", str(file), SSH_AUTH_SOCK=agent.path)
        assert done.returncode == 0, done.stderr
    assert agent.remove(KEY.blob)
    assert run("ssh-add", "-T", str(lent[0]), SSH_AUTH_SOCK=agent.path).returncode != 0
    assert run("ssh-add", "-T", str(lent[1]), SSH_AUTH_SOCK=agent.path).returncode == 0


@pytest.mark.parametrize("which", ["key", "certificate"])
def test_what_the_agent_signs_with_our_key_is_verified(
    agent: Agent, lent: tuple[Path, Path], keys: Path, tmp_path: Path, which: str
) -> None:
    file = lent[which == "certificate"]
    signer = public_line(KEY.public) if which == "key" else (
        f"cert-authority {(keys / 'ed25519.pub').read_text().strip()}"
    )  # fmt: skip
    allowed, message = tmp_path / "allowed", tmp_path / "message"
    allowed.write_text(f"me {signer}\n")
    message.write_text("from the machine\n")
    keygen("-Y", "sign", "-q", "-U", "-f", str(file), "-n", "file", str(message),
           SSH_AUTH_SOCK=agent.path)  # fmt: skip
    command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "me", "-n", "file",
               "-s", f"{message}.sig"]  # fmt: skip
    verdicts = [
        subprocess.run(command, input=text, capture_output=True, timeout=60, check=False).returncode
        for text in (message.read_bytes(), b"from elsewhere\n")
    ]
    assert verdicts[0] == 0 and verdicts[1] != 0
