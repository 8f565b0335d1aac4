"""The checks of the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.api.client import Probe
from dcs_proxy.app import Options
from dcs_proxy.doctor.api import check_access, check_clock
from dcs_proxy.doctor.context import Context
from dcs_proxy.errors import CredentialsError
from dcs_proxy.local.settings import Settings


def context(directory: Path, probe: Probe, org_id: str = "") -> Context:
    made = Context(Options(str(directory)), {}, str(directory / "config"), True, None)
    made.settings, made.probe = Settings(org_id=org_id), probe
    return made


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(0.0, "agrees with the API's"), (90.0, "90 s behind the API's"),
     (-7200.0, "7200 s ahead of the API's")],
)  # fmt: skip
def test_the_clock_is_named_from_this_computers_side(
    tmp_path: Path, ahead_s: float, said: str
) -> None:
    check = check_clock(context(tmp_path, Probe(None, True, ahead_s)))
    assert check.ok is (ahead_s == 0) and check.text.startswith(said)


@pytest.mark.parametrize(
    ("probe", "org_id", "is_ok", "said"),
    [
        (Probe(None, True, 0.0), "", True, "the key is accepted"),
        (Probe(None, True, 0.0), "org-1", True, "the key is accepted for org-1"),
        (Probe(None, False, 0.0), "", True, "unknown: this API has no list of machines"),
        (Probe(CredentialsError("wrong", hint="log in"), True, 0.0), "", False, "wrong"),
    ],
)
def test_access_is_what_the_probe_has_found(
    tmp_path: Path, probe: Probe, org_id: str, is_ok: bool, said: str
) -> None:
    check = check_access(context(tmp_path, probe, org_id))
    assert check.ok is is_ok and check.text.startswith(said)
    assert check.hint == ("" if is_ok else "log in")
