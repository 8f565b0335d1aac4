"""Run checks one after the other, and describe their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from dcs_proxy.app import internal_error
from dcs_proxy.errors import DcsError
from dcs_proxy.local.log import Log

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """The result of a check: `ok` is None if it was skipped.

    `text` says what was found, `hint` what to do about it; `seconds` is how long it took.
    """

    name: str
    ok: bool | None
    text: str
    hint: str = ""
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """The documented word for `ok`."""
        return {True: "ok", False: "failed", None: "skipped"}[self.ok]


@dataclass(frozen=True)
class Step(Generic[T]):
    """A check to run if all checks that it `needs` have passed.

    `run` returns its result without name and seconds, or None if the check does not apply.  A
    DcsError that it raises is a failed check.
    """

    name: str
    run: Callable[[T], Check | None]
    needs: tuple[str, ...] = ()


def passed(text: str) -> Check:
    """Return the result of a check that found nothing wrong."""
    return Check("", True, text)


def failed(text: str, hint: str) -> Check:
    """Return the result of a check that found a problem; `hint` is what to do or type next."""
    return Check("", False, text, hint)


def skipped(text: str, hint: str) -> Check:
    """Return the result of a check that could not be run; `hint` says how to try it."""
    return Check("", None, text, hint)


def run_steps(steps: Iterable[Step[T]], subject: T, log: Log) -> Iterator[Check]:
    """Run the checks in order, and skip those that need one that did not pass.

    An unexpected exception fails only its own check; `log` gets the traceback.
    """
    not_passed: set[str] = set()
    for step in steps:
        missing = next((name for name in step.needs if name in not_passed), None)
        check = _run(step, subject, log) if missing is None else _skip(step.name, missing)
        if check is not None:
            if not check.ok:
                not_passed.add(step.name)
            yield check


def _skip(name: str, missing: str) -> Check:
    return Check(name, None, f"skipped: needs {missing}")


def _run(step: Step[T], subject: T, log: Log) -> Check | None:
    start = time.monotonic()
    try:
        check = step.run(subject)
    except DcsError as error:
        check = failed(error.summary(), error.hint)
    except Exception as error:
        fault = internal_error(error, log)
        check = failed(fault.message, fault.hint)
    seconds = time.monotonic() - start
    return None if check is None else replace(check, name=step.name, seconds=seconds)
