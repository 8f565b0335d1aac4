"""Read-only questions to the API: the state of a session, whether a machine is awake.

A session in doubt is usually still valid.  So the API is asked once, with a short time limit; if it
does not answer, the session is used as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dcs_proxy.errors import ApiProtocolError, ClientGone, DcsError, MachineNotFound, NotWoken
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import ControlPlane
from dcs_proxy.session.lifetime import trusted_s
from dcs_proxy.session.polling import SessionPoller
from dcs_proxy.session.work import Work

T = TypeVar("T")

_DOUBT_S = 3.0


class StillDoubtful(Exception):
    """The API did not answer in time, so the session is used as before."""


def ask(work: Work, question: Callable[[SessionPoller, bool], T]) -> T:
    """Return the API's answer to `question`, whose second argument forbids retries.

    Raises StillDoubtful, or what the API raises.
    """
    if not work.situation.is_doubtful:
        return question(work.poller(), False)
    try:
        poller = work.poller()
        return work.context.deadline.call(lambda: question(poller, True), within_s=_DOUBT_S)
    except (ClientGone, MachineNotFound):
        raise
    except TimeoutError:
        raise _give_up_doubt(work, f"no answer within {_DOUBT_S:g} s") from None
    except DcsError as error:
        raise _give_up_doubt(work, error.message) from None


def look_at_machine(work: Work) -> None:
    """Ask the API whether the machine is awake.  Raises NotWoken if this API does not say."""
    try:
        machine = ask(work, lambda poller, once: poller.api.get_machine(work.name, once=once))
    except StillDoubtful:
        return
    except (MachineNotFound, ApiProtocolError):
        if _has_list(work.poller().api):
            raise
        # This deployment has only the contract's POST, which would wake the machine.
        if work.situation.is_doubtful:
            _give_up_doubt(work, "the API does not say")
            return
        raise NotWoken(
            'the API does not say whether the machine is awake, and wake = "never" forbids waking '
            "it",
            hint=how_to_wake(work.name),
        ) from None
    work.learn(machine=machine)


def save_proof(work: Work) -> None:
    """Record that the API was asked for this ssh, so that the session is no longer in doubt."""
    context, situation = work.context, work.situation
    trusted = trusted_s(situation.reuse_s) if situation.is_doubtful else 0
    context.state.save_use(work.name, context.parent, context.now() + trusted)


def how_to_wake(name: MachineName) -> str:
    """Return a hint with the commands that wake a machine whatever the policy is."""
    return f"to wake it: dcs-proxy wake {name}, or DCS_PROXY_WAKE=always ssh {name}"


def _give_up_doubt(work: Work, what: str) -> StillDoubtful:
    work.context.log.event("still-doubtful", machine=work.name, what=what)
    save_proof(work)
    work.learn(is_doubtful=False)
    return StillDoubtful()


def _has_list(api: ControlPlane) -> bool:
    """Return whether the API lists machines; then it also describes each one."""
    try:
        api.list_machines()
    except (MachineNotFound, ApiProtocolError):
        return False
    return True
