from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.errors import DcsError, DeadlineExceeded, KeyringUnusable, SessionFailed, StateError
from dcs_proxy.session.last_failure import save_failure, to_error, to_failure
from dcs_proxy.session.records import Failure
from tests.unit.session.fakes import NAME, Fakes


@pytest.mark.parametrize("kind", DcsError.__subclasses__())
def test_an_error_is_the_same_in_another_process(kind: type[DcsError]) -> None:
    failure = to_failure(kind("what happened", hint="what to do"), 1234.5)
    assert failure == Failure(kind.exit_code, "what happened", "what to do", 1234.5)
    error = to_error(failure)
    assert type(error) is kind
    assert (error.message, error.hint) == ("what happened", "what to do")


def test_an_error_of_a_finer_kind_keeps_its_exit_code() -> None:
    error = to_error(to_failure(KeyringUnusable("none"), 0.0))
    assert error.exit_code == KeyringUnusable.exit_code


def test_an_unknown_or_endless_failure_is_an_error_all_the_same() -> None:
    error = to_error(Failure(99, "a\x1b[31mb" + "x" * 5000, "c\n" + "y" * 5000, 0.0))
    assert type(error) is DcsError
    assert error.message.startswith("a [31mbx") and len(error.message) <= 1000
    assert error.hint.startswith("c y") and len(error.hint) <= 1000


def test_a_failure_is_written_with_its_time_for_other_processes(fakes: Fakes) -> None:
    save_failure(NAME, SessionFailed("broken", hint="again"), fakes.context(now=lambda: 77.0))
    failure = fakes.state.load_failure(NAME)
    assert failure == Failure(SessionFailed.exit_code, "broken", "again", 77.0)


def test_a_failure_that_cannot_be_written_does_not_hide_the_first(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(fakes.state, "save_failure", fail)
    save_failure(NAME, DeadlineExceeded("too late"), fakes.context())
    assert not Path(fakes.state.session_path(NAME, ".failure")).exists()
