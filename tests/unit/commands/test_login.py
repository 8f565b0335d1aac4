from __future__ import annotations

import getpass
import io
import stat
import sys
import warnings
from typing import Any

import pytest

from dcs_proxy.api.client import Probe
from dcs_proxy.commands import login
from dcs_proxy.errors import (
    CredentialsError,
    DcsError,
    Forbidden,
    KeyringUnusable,
    UsageError,
)
from tests.support.fake_api import Answer
from tests.unit.commands.conftest import Commands, Done, Keyring
from tests.unit.commands.test_machines import write_block


class Factory:
    """Opens an API that answers a probe with `probe`."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def open(self, deadline: Any) -> Any:
        return self

    def probe(self) -> Probe:
        return self._probe


@pytest.mark.parametrize("refusal", [CredentialsError("wrong key"), Forbidden("no access")])
def test_a_key_that_the_api_refuses_is_not_stored(refusal: CredentialsError | Forbidden) -> None:
    factory: Any = Factory(Probe(refusal, True, 0.0))
    with pytest.raises(DcsError) as caught:
        login._check_with_api(factory)
    assert caught.value is refusal


def test_a_key_that_cannot_be_checked_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for has_list, said in ((True, ""), (False, "dcs-proxy: the API has no list of machines ")):
        factory: Any = Factory(Probe(None, has_list, 0.0))
        login._check_with_api(factory)
        shown = capsys.readouterr().err
        assert shown.startswith(said) and bool(shown) is bool(said)


class Input(io.TextIOWrapper):
    """Standard input, which may be a terminal."""

    is_terminal = False

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_key_is_not_read_where_typing_would_show_it(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    stdin = Input(io.BytesIO(b"dsk-key\n" + b"x" * 10_000))
    stdin.is_terminal = is_terminal
    monkeypatch.setattr(sys, "stdin", stdin)
    if is_terminal:
        with pytest.raises(UsageError, match="would show the key"):
            login._from_stdin()
    else:
        key, source = login._from_stdin()
        assert (key[:8], len(key), source) == ("dsk-key\n", 4097, "standard input")


def test_a_key_is_not_read_from_a_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        login._from_stdin()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts at which a user who has set no key typed one."""
    prompts: list[str] = []

    def type_key(prompt: str) -> str:
        prompts.append(prompt)
        return " dsk-new "

    monkeypatch.setattr(getpass, "getpass", type_key)
    monkeypatch.delenv("DEDALUS_API_KEY", raising=False)
    return prompts


def test_a_key_is_checked_and_stored_in_the_keyring(
    commands: Commands, keyring: Keyring, typed: list[str]
) -> None:
    url = commands.api.url
    assert commands("login") == Done(
        0,
        f"dcs-proxy: the key is stored in the system keyring (Fake) for {url}\n"
        "dcs-proxy: next, make ssh use dcs-proxy: dcs-proxy config-ssh\n",
        "",
    )
    assert typed == [f"dcs-proxy: API key for {url}: "]
    assert (keyring.key, keyring.calls) == ("dsk-new", ["name", "store"])
    (asked,) = commands.api.asked
    assert (asked.method, asked.headers["authorization"]) == ("GET", "Bearer dsk-new")
    assert not (commands.home / ".config").exists()
    write_block(commands.home / ".ssh" / "config", [])
    assert commands("login").out.splitlines()[1] == (
        "dcs-proxy: next, see your machines: dcs-proxy list"
    )


def test_a_key_that_is_refused_replaces_none(
    commands: Commands, keyring: Keyring, typed: list[str]
) -> None:
    keyring.key = "dsk-old"
    commands.api.answers = [Answer(401)]
    done = commands("login")
    assert (done.code, keyring.key) == (4, "dsk-old")
    assert "dcs-proxy: hint: copy the key again; it looks like dsk-..." in done.err
    assert commands("login", "--file", "--yes").code == 4
    assert not (commands.home / ".config").exists()


def test_without_a_keyring_no_key_is_asked_for(
    commands: Commands, keyring: Keyring, typed: list[str]
) -> None:
    keyring.problem = KeyringUnusable("no keyring", hint="dcs-proxy login --file")
    assert commands("login").code == 4
    assert (typed, keyring.calls) == ([], ["name"])
    assert commands("login", "--file", "--yes").code == 0
    assert keyring.calls == ["name"]


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (True, 0, ""),
        (False, 4, "dcs-proxy: no key was stored\n"
                   "dcs-proxy: hint: set DEDALUS_API_KEY where it is needed\n"),
        (None, 2, "dcs-proxy: there is no terminal to ask whether to store the key in FILE\n"
                  "dcs-proxy: hint: add --yes to store it without asking\n"),
    ],
)  # fmt: skip
def test_a_key_file_is_written_only_with_consent(
    commands: Commands, keyring: Keyring, typed: list[str], monkeypatch: pytest.MonkeyPatch,
    answer: bool | None, code: int, said: str,
) -> None:  # fmt: skip
    questions: list[str] = []
    monkeypatch.setattr(login, "confirm", lambda text: questions.append(text) or answer)
    path = commands.home / ".config" / "dcs-proxy" / "api-key"
    done = commands("login", "--file")
    assert (done.code, done.err) == (code, said.replace("FILE", str(path)))
    assert questions == [f"store the key in plain text in {path}?"]
    assert path.exists() is (answer is True)
    assert bool(typed) is (answer is True), "the question comes first"
    assert keyring.key is None
    if answer:
        assert path.read_text() == "dsk-new\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert done.out.startswith(f"dcs-proxy: the key is stored in {path} (mode 0600)\n")


def test_a_key_that_is_overridden_is_told(
    commands: Commands, keyring: Keyring, typed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = commands.home / "my key"
    commands.configure(f'key_file = "{path}"\n')
    path.write_text("dsk-file\n")
    path.chmod(0o600)
    for name in ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY"):
        monkeypatch.setenv(name, "dsk-set")
    variables = [
        line for name in ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY") for line in (
            f"dcs-proxy: {name} is set and overrides the stored key",
            f"dcs-proxy: hint: unset {name}",
        )
    ]  # fmt: skip
    file = [f"dcs-proxy: the key file {path} overrides the stored key",
            f"dcs-proxy: hint: rm '{path}'"]  # fmt: skip
    assert commands("login").err.splitlines() == [*variables, *file]
    assert commands("login", "--file", "--yes").err.splitlines() == variables


@pytest.mark.parametrize("error", [getpass.GetPassWarning("echo"), EOFError()])
def test_without_a_terminal_the_user_reads_how_to_pass_the_key(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(prompt: str) -> str:
        if isinstance(error, Warning):
            warnings.warn(error, stacklevel=2)
            return "typed with echo"
        raise error

    monkeypatch.setattr(getpass, "getpass", fail)
    assert commands("login") == Done(
        2, "", "dcs-proxy: there is no terminal to type the key on\n"
        "dcs-proxy: hint: pass it on standard input: dcs-proxy login --stdin\n",
    )  # fmt: skip


def test_ctrl_c_at_the_prompt_ends_its_line(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(getpass, "getpass", interrupt)
    assert commands("login") == Done(130, "", "\ndcs-proxy: interrupted\n")


def test_a_key_may_come_from_standard_input(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data, code, key in ((b" dsk-piped\n", 0, "dsk-piped"), (b"\n", 4, None)):
        keyring.key = None
        monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(data)))
        assert (commands("login", "--stdin").code, keyring.key) == (code, key)


def test_the_check_has_a_time_limit() -> None:
    limits = []

    class Timed(Factory):
        def open(self, deadline: Any) -> Any:
            limits.append(deadline.seconds)
            return self

    factory: Any = Timed(Probe(None, True, 0.0))
    login._check_with_api(factory)
    assert limits == [60]


def test_bytes_that_are_no_text_are_a_wrong_key(
    commands: Commands, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(b"dsk-\xff\xfe")))
    done = commands("login", "--stdin")
    assert (done.code, keyring.key) == (4, None)
    assert "must be printable ASCII" in done.err


def test_a_warning_about_echo_is_an_error_only_at_the_prompt(typed: list[str]) -> None:
    before = list(warnings.filters)
    login._from_terminal("https://dcs.example")
    assert list(warnings.filters) == before
