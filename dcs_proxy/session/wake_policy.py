"""Whether a machine that sleeps may be woken: the policy decides, or a person.

An editor that reconnects all night must not keep a machine awake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dcs_proxy.api.model import Machine
from dcs_proxy.errors import NotWoken
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory

# How long a person has to answer, and how much that may take of the time for the wake.
_ANSWER_S, _SHARE = 30.0, 0.5


class Questioner(Protocol):
    """Whom to ask; :class:`dcs_proxy.console.prompt.Terminal` says more."""

    def is_usable(self) -> bool: ...

    def ask(self, question: str, within_s: float) -> bool: ...


class WakePolicy:
    """Leave to wake one machine under `policy`, for a process that holds the machine's lock."""

    def __init__(
        self,
        name: MachineName,
        policy: str,
        state: StateDirectory,
        terminal: Questioner,
        deadline: Deadline,
    ) -> None:
        self._name = name
        self._policy = policy
        self._state = state
        self._terminal = terminal
        self._deadline = deadline

    @property
    def is_given(self) -> bool:
        """Whether the policy alone lets the machine be woken."""
        return self._policy == "always"

    def require(self, look: Callable[[MachineName], Machine]) -> None:
        """Return if the machine is awake, or may be woken.  Raises NotWoken.

        `look` returns the machine as it is now; it is asked only where it matters.  A machine
        that is being destroyed is left to the API's own words.
        """
        if self.is_given:
            return
        machine = look(self._name)
        if machine.is_awake or machine.is_going:
            return
        why, was_answered = f'and wake = "{self._policy}" leaves it so', False
        if self._policy == "ask":
            match self._ask(f"dcs-proxy: {self._name} is {machine.phase}. Wake it? [y/N] "):
                case True:
                    return
                case False:
                    why, was_answered = "and nobody said yes to waking it", True
                case None:
                    why = 'and wake = "ask" finds no terminal to ask on'
        error = NotWoken(
            f"the machine is {machine.phase}, {why}",
            hint=f"to wake it: dcs-proxy wake {self._name}, "
            f"or DCS_PROXY_WAKE=always ssh {self._name}",
            machine=self._name,
        )
        error.was_answered = was_answered
        raise error

    def _ask(self, question: str) -> bool | None:
        """Return a person's answer; None if there is nobody to ask."""
        if not self._terminal.is_usable():
            return None
        with self._state.asking(self._name):
            limit = min(_ANSWER_S, _SHARE * self._deadline.remaining())
            return self._terminal.ask(question, limit)
