from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.commands import prepare
from dcs_proxy.errors import ApiUnavailable, ClientGone, DcsError, NotWoken


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts for which a session was made ready."""
    hosts: list[str] = []

    def note(host: str, options: Options, parent: int) -> int:
        hosts.append(host)
        return 0

    monkeypatch.setattr(prepare, "_prepare", note)
    monkeypatch.setattr(prepare, "wants_session", lambda pid: True)
    return hosts


@pytest.mark.parametrize("is_ssh", [True, False])
def test_a_host_is_prepared_in_lower_case(
    tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch, is_ssh: bool
) -> None:
    monkeypatch.setattr(prepare, "is_ssh", lambda pid: is_ssh)
    assert prepare.run(argparse.Namespace(host="DM-Foo"), Options(str(tmp_path))) == 0
    assert prepared == ["dm-foo"]


def test_an_ssh_that_will_not_log_in_prepares_nothing(
    tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "wants_session", lambda pid: False)
    assert prepare.run(argparse.Namespace(host="dm-foo"), Options(str(tmp_path))) == 0
    assert prepared == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_parent_that_is_not_known_may_only_show_its_options(
    tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    def refuse(host: str, options: Options, parent: int) -> int:
        raise NotWoken("asleep")

    monkeypatch.setattr(prepare, "_prepare", refuse)
    monkeypatch.setattr(prepare, "is_ssh", lambda pid: False)
    monkeypatch.setattr(prepare, "is_known", lambda pid: is_known)
    arguments = argparse.Namespace(host="dm-foo")
    if is_known:
        with pytest.raises(NotWoken):
            prepare.run(arguments, Options(str(tmp_path)))
    else:
        assert prepare.run(arguments, Options(str(tmp_path))) == 1


@pytest.mark.parametrize(
    ("error", "is_discarded", "is_saved"),
    [
        (ApiUnavailable("down"), False, True),
        (ApiUnavailable("down"), True, False),  # then the ProxyCommand has to tell it
        (ClientGone("gone"), False, False),
    ],
)
def test_the_second_half_repeats_an_error_that_the_user_has_seen(
    tmp_path: Path,
    prepared: list[str],
    monkeypatch: pytest.MonkeyPatch,
    error: DcsError,
    is_discarded: bool,
    is_saved: bool,
) -> None:
    def fail(host: str, options: Options, parent: int) -> int:
        raise error

    (tmp_path / "sessions").mkdir(mode=0o700)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(prepare, "_prepare", fail)
    monkeypatch.setattr(prepare, "is_ssh", lambda pid: True)
    monkeypatch.setattr(prepare, "is_discarded", lambda: is_discarded)
    with pytest.raises(type(error)):
        prepare.run(argparse.Namespace(host="dm-foo"), Options(str(tmp_path)))
    assert bool(list((tmp_path / "sessions").glob("*.failed"))) is is_saved
