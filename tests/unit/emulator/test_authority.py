from __future__ import annotations

import os
from pathlib import Path

import pytest

from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.errors import ConfigError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_keys_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "authorities"
    before = os.umask(0)
    try:
        made = Authorities(str(directory))
    finally:
        os.umask(before)
    assert [mode(path) for path in (directory.parent, directory)] == [0o700, 0o700]
    assert [mode(directory / name) for name in ("user_ca", "host_ca")] == [0o600, 0o600]
    again = Authorities(str(directory))
    assert public_line(again.user_ca) == public_line(made.user_ca)


@pytest.mark.parametrize(
    ("place", "bits", "said"),
    [
        ("user_ca", 0o640, "is readable by other users"),
        ("user_ca", 0o622, "is writable by other users"),
        (".", 0o777, "is writable by other users"),
    ],
)
def test_a_key_that_others_can_use_is_refused(
    tmp_path: Path, place: str, bits: int, said: str
) -> None:
    directory = tmp_path / "authorities"
    Authorities(str(directory))
    (directory / place).chmod(bits)
    with pytest.raises(ConfigError, match=said):
        Authorities(str(directory))


def test_a_file_that_is_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "user_ca").write_text("rubbish")
    (tmp_path / "user_ca").chmod(0o600)
    with pytest.raises(ConfigError, match=r"user_ca cannot be read"):
        Authorities(str(tmp_path))
