from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.credentials import load_credentials
from dcs_proxy.errors import CredentialsError


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("dsk-file\n")
    (tmp_path / "key").chmod(0o600)
    both = {"DEDALUS_API_KEY": "dsk-a", "DEDALUS_X_API_KEY": "dsk-b"}
    credentials = load_credentials(both, str(tmp_path / "key"))
    assert (credentials.bearer, credentials.api_key) == ("dsk-a", "dsk-b")
    assert credentials.source == "DEDALUS_API_KEY and DEDALUS_X_API_KEY"
    from_file = load_credentials({"DEDALUS_API_KEY": ""}, str(tmp_path / "key"))
    assert (from_file.bearer, from_file.api_key) == ("dsk-file", None)
    assert from_file.source == str(tmp_path / "key")


def test_a_key_is_never_shown() -> None:
    credentials = load_credentials({"DEDALUS_X_API_KEY": "dsk-secret"}, "/none")
    assert "secret" not in repr(credentials)
    for wrong in ("dsk-secret\nX: y", "dsk-secret x", "dsk-secrét", "dsk-secret\x00"):
        with pytest.raises(CredentialsError) as caught:
            load_credentials({"DEDALUS_API_KEY": wrong}, "/none")
        assert "secr" not in caught.value.one_line()


def test_no_key_at_all_says_where_one_may_be(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="there is no API key") as caught:
        load_credentials({}, str(tmp_path / "none"))
    assert "DEDALUS_API_KEY" in caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text("dsk-file")
    path.chmod(mode)
    with pytest.raises(CredentialsError, match="can be read by others") as caught:
        load_credentials({}, str(path))
    assert caught.value.hint == f"chmod 600 {path}"


def test_an_empty_or_unreadable_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").touch(0o600)
    with pytest.raises(CredentialsError, match="not one printable word"):
        load_credentials({}, str(tmp_path / "key"))
    with pytest.raises(CredentialsError, match="cannot be read: Is a directory"):
        load_credentials({}, str(tmp_path))
