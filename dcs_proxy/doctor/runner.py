"""A check's result, and how checks are run one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from dcs_proxy.errors import DcsError

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """What a check has found: `ok` is None where it was skipped.

    `text` says what was found, `hint` what to do about it, `seconds` how long it took.
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
    """A check that is to be run once all that it `needs` have been found well.

    `run` returns what it found, without name and seconds; None if there is nothing to look at
    here.  A DcsError from it is a failure that explains itself.
    """

    name: str
    run: Callable[[T], Check | None]
    needs: tuple[str, ...] = ()


def passed(text: str) -> Check:
    """Return that all is well."""
    return Check("", True, text)


def failed(text: str, hint: str) -> Check:
    """Return that something is not, and the next thing to do or type."""
    return Check("", False, text, hint)


def run_steps(steps: Iterable[Step[T]], subject: T) -> Iterator[Check]:
    """Run the checks in their order; one that fails stops only those that need it."""
    without: set[str] = set()
    for step in steps:
        missing = [name for name in step.needs if name in without]
        check = _skip(step.name, missing[0]) if missing else _run(step, subject)
        if check is not None:
            if not check.ok:
                without.add(step.name)
            yield check


def _skip(name: str, missing: str) -> Check:
    return Check(name, None, f"skipped, for it needs: {missing}")


def _run(step: Step[T], subject: T) -> Check | None:
    start = time.monotonic()
    try:
        check = step.run(subject)
    except DcsError as error:
        check = failed(error.summary(), error.hint)
    seconds = time.monotonic() - start
    return None if check is None else replace(check, name=step.name, seconds=seconds)
