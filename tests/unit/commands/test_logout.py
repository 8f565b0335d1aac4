from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.commands import logout
from dcs_proxy.errors import CredentialsError, KeyringUnusable, ReaderGone
from tests.unit.commands.conftest import Commands, Done, Keyring


@pytest.fixture
def key_file(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key file of this user, who has set no variable with a key."""
    monkeypatch.delenv("DEDALUS_API_KEY")
    commands.configure("")
    path = commands.home / ".config" / "dcs-proxy" / "api-key"
    path.write_text("dsk-file\n")
    path.chmod(0o600)
    return path


def test_the_key_in_the_keyring_goes_and_others_are_named(
    commands: Commands, keyring: Keyring, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring.key = "dsk-key"
    monkeypatch.setenv("DEDALUS_API_KEY", "dsk-key")
    still = (
        "dcs-proxy: DEDALUS_API_KEY still holds a key\n"
        f"dcs-proxy: {key_file} still holds a key\n"
    )  # fmt: skip
    for done in ("was removed from", "was not in"):
        text = f"dcs-proxy: the key for {commands.api.url} {done} the system keyring\n"
        assert commands("logout") == Done(0, text, still)
    assert (keyring.calls, keyring.key) == (["remove", "remove"], None)
    assert key_file.exists()


def test_the_key_file_goes_if_it_is_asked_for(
    commands: Commands, keyring: Keyring, key_file: Path
) -> None:
    for text in ("removed", "did not exist"):
        done = commands("logout", "--file")
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[0] == f"dcs-proxy: {key_file} {text}"
        assert not key_file.exists()


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (KeyringUnusable("no keyring", hint="x"),
         Done(0, "", "dcs-proxy: no keyring: there is nothing to remove\n")),
        (CredentialsError("it is locked", hint="unlock it"),
         Done(4, "", "dcs-proxy: it is locked\ndcs-proxy: hint: unlock it\n")),
    ],
)  # fmt: skip
def test_a_keyring_that_may_hold_the_key_is_a_failure(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch,
    problem: CredentialsError, expected: Done,
) -> None:  # fmt: skip
    monkeypatch.delenv("DEDALUS_API_KEY")
    keyring.problem = problem
    assert commands("logout") == expected


def test_a_closed_pipe_leaves_no_key(
    commands: Commands, keyring: Keyring, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: str) -> None:
        raise ReaderGone("closed")

    keyring.key = "dsk-key"
    monkeypatch.setattr(logout, "put", put)
    assert commands("logout", "--file").code == 0
    assert (keyring.key, key_file.exists()) == (None, False)
