from __future__ import annotations

from typing import Any

import pytest

from dcs_proxy.api.client import Probe
from dcs_proxy.commands import login
from dcs_proxy.errors import CredentialsError, DcsError, Forbidden


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
