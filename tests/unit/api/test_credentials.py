from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dcs_proxy.api import credentials as module
from dcs_proxy.api.credentials import (
    Credentials,
    overriding_sources,
    remove_key_file,
    write_key_file,
)
from dcs_proxy.errors import CredentialsError, KeyringUnusable
from dcs_proxy.text import MASK, mask


def never() -> str | None:
    raise AssertionError("the keyring was asked")


def load_credentials(
    environment: Mapping[str, str],
    key_file: str,
    read_keyring: Callable[[], str | None] = never,
) -> Credentials:
    return module.load_credentials(environment, key_file, read_keyring)


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
    for name in ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY"):
        credentials = load_credentials({name: f"dsk-secret-{name}"}, "/none")
        assert "secret" not in repr(credentials)
        assert mask(f"<dsk-secret-{name}>") == f"<{MASK}>"
    for wrong in ("dsk-secret\nX: y", "dsk-secret x", "dsk-secrét", "dsk-secret\x00"):
        with pytest.raises(CredentialsError) as caught:
            load_credentials({"DEDALUS_API_KEY": wrong}, "/none")
        assert "secr" not in caught.value.one_line()


def test_space_around_a_key_and_an_empty_variable_do_not_matter() -> None:
    given = {"DEDALUS_API_KEY": "", "DEDALUS_X_API_KEY": " dsk-b\n"}
    credentials = load_credentials(given, "/none")
    assert (credentials.bearer, credentials.api_key) == (None, "dsk-b")


def test_a_key_file_that_cannot_be_emptied_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, size: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    write_key_file(str(tmp_path / "key"), "dsk-key")
    monkeypatch.setattr(os, "truncate", fail)
    assert remove_key_file(str(tmp_path / "key"))
    assert os.listdir(tmp_path) == []


def test_the_keyring_comes_last_and_is_named(tmp_path: Path) -> None:
    credentials = load_credentials({}, str(tmp_path / "none"), lambda: "dsk-ring")
    assert (credentials.bearer, credentials.api_key) == ("dsk-ring", None)
    assert credentials.source == "the system keyring"
    assert credentials.renewal == "dcs-proxy login"
    with pytest.raises(CredentialsError, match="from the system keyring must be printable"):
        load_credentials({}, str(tmp_path / "none"), lambda: "dsk ring")


def test_no_key_at_all_says_all_the_ways_to_give_one(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    with pytest.raises(CredentialsError, match=r"there is no API key$") as caught:
        load_credentials({}, path, lambda: None)
    for way in ("dcs-proxy login", "DEDALUS_API_KEY", path):
        assert way in caught.value.hint

    def unusable() -> str | None:
        raise KeyringUnusable("this computer has none (so)")

    with pytest.raises(
        CredentialsError, match=r"there is no API key, and .* none \(so\)"
    ) as caught:
        load_credentials({}, path, unusable)
    for way in ("dcs-proxy login --file", "DEDALUS_API_KEY", path):
        assert way in caught.value.hint


def test_each_source_says_how_to_renew_the_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_key_file(str(path), "dsk-file")
    assert load_credentials({}, str(path)).renewal == "dcs-proxy login --file"
    assert load_credentials({"DEDALUS_X_API_KEY": "k"}, "").renewal == (
        "set DEDALUS_X_API_KEY to a valid key"
    )


def test_a_stored_key_file_is_ours_alone_and_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "key"
    write_key_file(str(path), "dsk-file")
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_credentials({}, str(path)).bearer == "dsk-file"
    assert overriding_sources({"DEDALUS_API_KEY": "k"}, str(path)) == [
        "DEDALUS_API_KEY", str(path)
    ]  # fmt: skip
    assert remove_key_file(str(path)) and not remove_key_file(str(path))
    assert overriding_sources({"DEDALUS_API_KEY": ""}, str(path)) == []


def test_a_key_file_that_cannot_be_written_or_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "directory" / "key"
    (tmp_path / "directory").mkdir()
    taken = tmp_path / "directory"
    hint = "free some space or fix its permissions, or set key_file in the config file"
    for fail, path, shown, why in (
        (lambda path: write_key_file(path, "dsk"), below, below.parent, "Not a directory"),
        (lambda path: write_key_file(path, "dsk"), taken, taken, "Is a directory"),
        (remove_key_file, taken, taken, "Is a directory"),
    ):
        with pytest.raises(CredentialsError) as caught:
            fail(str(path))
        assert caught.value.one_line() == f"{shown} cannot be written: {why}; hint: {hint}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text("dsk-file")
    path.chmod(mode)
    with pytest.raises(CredentialsError, match="is readable by other users") as caught:
        load_credentials({}, str(path))
    assert caught.value.hint == f"chmod 600 {path}"


def test_an_empty_or_unreadable_key_file_is_named(tmp_path: Path) -> None:
    for data in (b"", b" \n", b"\xef\xbb\xbf"):
        (tmp_path / "key").write_bytes(data)
        (tmp_path / "key").chmod(0o600)
        with pytest.raises(CredentialsError) as caught:
            load_credentials({}, str(tmp_path / "key"))
        assert caught.value.message == f"the API key from {tmp_path}/key is empty"
    with pytest.raises(CredentialsError, match=r"the key file .* is a directory"):
        load_credentials({}, str(tmp_path))


@pytest.mark.parametrize("kind", ["symbolic", "hard", "dangling"])
def test_a_key_that_a_link_leads_to_is_removed_too(tmp_path: Path, kind: str) -> None:
    real, link = tmp_path / "dotfiles", tmp_path / "api-key"
    real.write_text("dsk-0123456789\n")
    if kind == "hard":
        os.link(real, link)
    else:
        link.symlink_to(real)
    if kind == "dangling":
        real.unlink()
    assert remove_key_file(str(link))
    assert not os.path.lexists(link)
    # The other name of a hard link cannot be found.
    assert (real.read_text() == "") if kind == "hard" else not real.exists()
    assert not remove_key_file(str(link))


@pytest.mark.parametrize("place", ["directory", "link's directory"])
def test_others_do_not_choose_the_file_that_is_removed(tmp_path: Path, place: str) -> None:
    shared, precious = tmp_path / "shared", tmp_path / "precious"
    shared.mkdir()
    precious.write_text("mine\n")
    path = shared / "api-key"
    path.symlink_to(precious)
    shared.chmod(0o777)
    if place != "directory":
        (tmp_path / "api-key").symlink_to(path)
        path = tmp_path / "api-key"
    with pytest.raises(CredentialsError) as caught:
        remove_key_file(str(path))
    assert f"{shared} is writable by other users" in caught.value.message
    assert caught.value.hint == f"chmod go-w {shared}"
    assert precious.read_text() == "mine\n"
    assert path.is_symlink()


@pytest.mark.parametrize("made", ["nothing", "a link to a missing file", "a hard link"])
def test_no_file_is_written_or_removed_that_others_could_choose_in_time(
    tmp_path: Path, made: str
) -> None:
    shared, precious = tmp_path / "shared", tmp_path / "precious"
    shared.mkdir()
    shared.chmod(0o1777)
    precious.write_text("mine\n")
    path = shared / "api-key"
    place = path
    if made == "a hard link":
        os.link(precious, path)
        problem = "is a hard link, which other users can create there"
    else:
        problem = "is missing, and other users can create it"
    if made == "a link to a missing file":
        path = tmp_path / "api-key"
        path.symlink_to(place)
    before = sorted(os.listdir(shared))
    for use in (remove_key_file, lambda path: write_key_file(path, "dsk-1")):
        with pytest.raises(CredentialsError) as caught:
            use(str(path))
        assert f"{place} {problem}" in caught.value.message
        assert caught.value.hint == f"look at who else uses it: ls -ld {shared}"
    assert precious.read_text() == "mine\n"
    assert sorted(os.listdir(shared)) == before


def test_a_key_file_of_ours_in_a_shared_directory_can_be_replaced_and_removed(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o1777)
    path = tmp_path / "api-key"
    path.write_text("dsk-old\n")
    path.chmod(0o666)
    write_key_file(str(path), "dsk-new")
    assert path.read_text() == "dsk-new\n"
    assert remove_key_file(str(path))
    assert not path.exists()


@pytest.mark.parametrize("text", ["DEDALUS_API_KEY=dsk-a", "export X=dsk-a", '"dsk-a"', "'dsk-a'"])
def test_a_key_file_written_as_for_a_shell_is_named(tmp_path: Path, text: str) -> None:
    write_key_file(str(tmp_path / "key"), text)
    with pytest.raises(CredentialsError, match="must contain nothing but the key") as caught:
        load_credentials({}, str(tmp_path / "key"))
    assert "dsk-a" not in caught.value.one_line()


def test_a_key_is_not_stored_where_others_could_replace_it(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(
        CredentialsError, match=f"key file {place}/api-key is not trusted"
    ) as caught:
        write_key_file(f"{place}/api-key", "dsk-1")
    assert str(place) in caught.value.hint and os.listdir(place) == []


@pytest.mark.parametrize("variable", ["DEDALUS_API_KEY", "DEDALUS_X_API_KEY"])
@pytest.mark.parametrize(
    ("key", "said", "hint"),
    [
        ("'dsk-1'", "must contain nothing but the key",
         "remove the name of the variable and the quotation marks"),
        ("dsk 1", "must be printable ASCII without spaces",
         "copy the key again; it looks like dsk-..."),
        ("x" * (module.MAX_KEY + 1), "must be printable ASCII without spaces",
         "copy the key again; it looks like dsk-..."),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_one_is_told_by_its_source(
    tmp_path: Path, variable: str, key: str, said: str, hint: str
) -> None:
    file = tmp_path / "key"
    file.write_text(key)
    file.chmod(0o600)
    for environment, source in (({variable: key}, variable), ({}, str(file))):
        with pytest.raises(CredentialsError) as caught:
            load_credentials(environment, str(file))
        assert caught.value.message == f"the API key from {source} {said}"
        assert caught.value.hint == hint


def test_a_key_may_be_as_long_as_the_limit(tmp_path: Path) -> None:
    key = "x" * module.MAX_KEY
    assert load_credentials({"DEDALUS_API_KEY": key}, str(tmp_path / "none")).bearer == key


def test_without_a_key_the_mode_of_its_file_is_told(tmp_path: Path) -> None:
    file = str(tmp_path / "key")
    with pytest.raises(CredentialsError) as caught:
        load_credentials({}, file, lambda: None)
    assert caught.value.hint == (
        f"type: dcs-proxy login; or set DEDALUS_API_KEY, or write the key to {file} (mode 0600)"
    )
