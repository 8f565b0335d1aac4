"""Find a session of a machine that ssh can use: reuse, resume or create one, and wait for it.

next_step.py decides what to do, steps.py does it.  One process at a time works on a machine, under
its lock; the others wait for its result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dcs_proxy.errors import ApiUnavailable, ClientGone, DcsError, DeadlineExceeded
from dcs_proxy.local.log import milliseconds_since
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.last_failure import save_failure, to_error
from dcs_proxy.session.next_step import (
    AskAgent,
    FailAgain,
    Half,
    Phase,
    Situation,
    Step,
    TakeLock,
    Use,
    next_step,
)
from dcs_proxy.session.records import Record
from dcs_proxy.session.steps import do, holds
from dcs_proxy.session.work import Work

# After these errors the next process resumes the attempt.
_RESUMABLE = (DeadlineExceeded, ClientGone, ApiUnavailable)


def resolve(name: MachineName, context: Context, half: Half = Half.PREPARE) -> Record:
    """Return the record of a ready session of the machine, for `half` of an ssh.

    Raises any DcsError except UsageError, ConfigError and LoginMismatch, with the machine's name.
    """
    settings = context.settings
    situation = Situation(
        half=half,
        account=context.account,
        agent_place=context.agents.place,
        reuse_s=settings.reuse_seconds,
        may_wake=settings.wake_policy(name) == "always",
        started_at=context.now(),
        now=context.now(),
    )
    try:
        with contextlib.ExitStack() as lock:
            record = _run(Work(name, context, situation), lock)
        context.progress.ready()
        return record
    except DcsError as error:
        error.machine = error.machine or name
        raise


def _run(work: Work, lock: contextlib.ExitStack) -> Record:
    """Do one step after another until there is a session; `lock` keeps the machine's lock."""
    _reload(work)
    while True:
        step = _decide(work)
        work.context.log.debug("step", machine=work.name, step=type(step).__name__)
        match step:
            case Use(record):
                return record
            case FailAgain(failure):
                raise to_error(failure)
            case TakeLock():
                _take_lock(work, lock)
            case _:
                with _saving_failures(work), _discarding_failed_attempts(work):
                    do(step, work)


def _decide(work: Work) -> Step:
    work.learn(now=work.context.now())
    return next_step(work.situation)


def _reload(work: Work) -> None:
    """Read the files that other processes may have written."""
    context, name = work.context, work.name
    work.learn(
        record=context.state.load(name),
        failure=context.state.load_failure(name),
        is_doubtful=context.state.is_doubtful(name, context.now()),
        is_held=None,
    )


def _take_lock(work: Work, lock: contextlib.ExitStack) -> None:
    """Take the machine's lock, or return without it once its holder has found a session or failed.

    Raises DeadlineExceeded, which names the holder, ClientGone or StateError.
    """
    context, start = work.context, time.monotonic()
    is_taken = lock.enter_context(
        context.state.lock(work.name, context.deadline, lambda: _is_settled(work))
    )
    ms = milliseconds_since(start)
    context.log.debug("lock", machine=work.name, held=is_taken, ms=ms)
    # While we waited, another process may have written or removed the session.
    _reload(work)
    if is_taken:
        work.learn(phase=Phase.LOCKED)


def _is_settled(work: Work) -> bool:
    """Return whether another process has found a session, or failed, while this one waited."""
    _reload(work)
    record = work.situation.record
    if record is not None and record.ready is None and record.attempt.session_id:
        work.announce()
    step = _decide(work)
    if isinstance(step, AskAgent):
        work.learn(is_held=holds(step.record, work.context))
        step = _decide(work)
    return not isinstance(step, TakeLock)


@contextlib.contextmanager
def _saving_failures(work: Work) -> Iterator[None]:
    """Write a failure for the processes that wait for the lock."""
    try:
        yield
    except ClientGone:
        raise
    except DcsError as error:
        if isinstance(error, DeadlineExceeded) and _is_waking(work.situation):
            error = DeadlineExceeded(
                f"not ready after {work.context.deadline.seconds:g} s",
                hint="try again: the wake continues, and the next ssh resumes it",
            )
        save_failure(work.name, error, work.context)
        raise error from None


def _is_waking(situation: Situation) -> bool:
    """Return whether this process waits for a session that the API has already accepted."""
    record = situation.record
    if record is None or situation.phase not in (Phase.RESUMED, Phase.CREATED):
        return False
    return record.ready is None and bool(record.attempt.session_id)


@contextlib.contextmanager
def _discarding_failed_attempts(work: Work) -> Iterator[None]:
    """Forget an attempt that this process has made if it fails with no chance to be resumed."""
    try:
        yield
    except _RESUMABLE:
        raise
    except DcsError:
        work.discard_attempt()
        raise
