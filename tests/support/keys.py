"""Keys and certificates in files, made by ssh-keygen."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

from tests.support.openssh import run


def keygen(*arguments: str, **environment: str) -> str:
    """Run ssh-keygen, which must succeed; return what it printed."""
    program = shutil.which("ssh-keygen")
    assert program, "ssh-keygen is missing"
    done = run(program, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_key(path: Path, kind: str = "ed25519", *, bits: str = "", comment: str = "") -> Path:
    """Make a key pair without a passphrase; return `path`, the private half's file."""
    words = ["-b", bits] if bits else []
    keygen("-q", "-t", kind, *words, "-N", "", "-C", comment, "-f", str(path))
    return path


def public_file(key: Path) -> Path:
    """Return the file of a private key's public half."""
    return key.with_name(f"{key.name}.pub")


def line_of(key: Path) -> str:
    """Return the line of a private key's public half."""
    return public_file(key).read_text().strip()


def blob_of(line: str) -> bytes:
    """Return the blob in a line of a public key or certificate."""
    return base64.b64decode(line.split()[1])


def certify(authority: Path, public: Path, *options: str) -> Path:
    """Sign a public key's file with an authority's private key; return the certificate's file."""
    keygen("-q", "-s", str(authority), *options, str(public))
    return public.with_name(f"{public.stem}-cert.pub")
