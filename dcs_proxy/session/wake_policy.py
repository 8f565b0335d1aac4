"""Whether a machine that is asleep may be woken.

An editor that reconnects all night must not keep a machine awake.
"""

from __future__ import annotations

from dcs_proxy.api.model import Machine
from dcs_proxy.errors import NotWoken
from dcs_proxy.names import MachineName


def require_awake(name: MachineName, machine: Machine) -> None:
    """Raise NotWoken if using the machine would wake it.

    A machine that is being destroyed passes: the API says that in its own words.
    """
    if machine.is_awake or machine.is_going:
        return
    phase = "asleep" if machine.phase == "sleeping" else machine.phase
    raise NotWoken(
        f'the machine is {phase}, and wake = "never" forbids waking it',
        hint=f"to wake it: dcs-proxy wake {name}, or DCS_PROXY_WAKE=always ssh {name}",
        machine=name,
    )
