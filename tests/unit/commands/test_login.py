from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from dcs_proxy.api.client import Probe
from dcs_proxy.commands import login
from dcs_proxy.errors import CredentialsError, DcsError, Forbidden, UsageError


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
