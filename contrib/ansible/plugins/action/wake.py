"""Wake the machines of a play in one run of dcs-proxy, under any strategy."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ansible.constants as C
from ansible.plugins.action import ActionBase

from ..plugin_utils.conditions import is_true
from ..plugin_utils.program import OPTIONS, Program, ProgramFailed
from ..plugin_utils.waking import Outcome, find_forged, machine_of, wake_machines

_FORGED = "which only the inventory may set: the machine, or a cacheable set_fact, has sent it"


class ActionModule(ActionBase):
    """Return the outcome for one host.

    Ansible runs an action in one process per host, and only the linear strategy can run it once for
    all.  So the first process wakes the machines of all hosts that have the same account and leaves
    their results in a file.  The others wait for the lock on it and take theirs.
    """

    _VALID_ARGS = frozenset({*OPTIONS, "names"})
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return the result of the task for one host."""
        result = super().run(tmp, task_vars)
        result["changed"] = False
        host = str(task_vars["inventory_hostname"])
        if name := find_forged(task_vars):
            return {
                **result,
                "failed": True,
                "msg": f"the facts of {host} contain {name}, {_FORGED}",
            }
        arguments = {key: value for key, value in self._task.args.items() if value}
        names = _as_list(arguments.pop("names", None))
        if not names and machine_of(host, task_vars) is None:
            return {**result, "skipped": True, "skip_reason": "the host is not a machine"}
        options = _account(arguments, task_vars)
        batch = map(str, task_vars["ansible_play_batch"])
        identity = json.dumps([self._task._uuid, names, {**options, "api_key": None}])
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        # Each run of Ansible has a temporary directory of its own, which it removes.
        with _results(os.path.join(C.DEFAULT_LOCAL_TMP, f"dcs-wake-{name}")) as results:
            # A host whose result has been taken is trying again.
            if host not in results:
                chosen = [
                    each for each in batch if each == host or self._is_chosen(each, task_vars)
                ]
                peers = _peers(chosen, task_vars["hostvars"], arguments, options)
                results.update(_wake(options, names, peers, host))
            return {**result, **results.pop(host)}

    def _is_chosen(self, host: str, task_vars: Mapping[str, Any]) -> bool:
        """Return whether another host meets the conditions of the task (``when``).

        False if that cannot be told: the host then wakes its machine itself, when its turn comes.
        """
        hostvars = task_vars["hostvars"]
        try:
            own = hostvars.raw_get(task_vars["inventory_hostname"])
            shared = {name: value for name, value in task_vars.items() if name not in own}
            variables = {**shared, **hostvars.raw_get(host)}
            templar = self._templar.copy_with_new_env(available_variables=variables)
            return all(is_true(condition, templar) for condition in self._task.when)
        except Exception:  # Jinja raises whatever the condition's functions do
            return False


def _as_list(value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.split(",")
    return [str(name).strip() for name in value or []]


def _account(arguments: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of dcs-proxy for a host: the inventory plugin sets variables for them.

    A key that is an argument replaces the file that a variable names.
    """
    found = {name: arguments.get(name) or variables.get(f"dcs_{name}") for name in OPTIONS}
    if arguments.get("api_key"):
        found["api_key_file"] = arguments.get("api_key_file")
    return {name: str(value) for name, value in found.items() if value}


def _peers(
    hosts: Sequence[str],
    hostvars: Mapping[str, Any],
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, str]:
    """Return those of the hosts whose machines have the same account, and these machines."""
    found = {}
    for host in hosts:
        variables = hostvars[host]
        machine = None if find_forged(variables) else machine_of(host, variables)
        if machine is not None and _account(arguments, variables) == options:
            found[host] = machine
    return found


def _wake(
    options: Mapping[str, Any], names: list[str], peers: Mapping[str, str], host: str
) -> dict[str, dict[str, Any]]:
    """Wake `names`, or else the machines of `peers`; return the result for each host.

    A host that is not a peer gets the result of the machines that no peer is responsible for.
    """
    wanted = names or list(dict.fromkeys(peers.values()))
    try:
        outcomes = wake_machines(Program(options), wanted)
    except ProgramFailed as error:
        return {each: {"failed": True, "msg": str(error)} for each in {*peers, host}}
    rest = [name for name in wanted if name not in peers.values()]
    results = {}
    for each in {*peers, host}:
        machine = peers.get(each)
        mine = [machine] if machine in outcomes else rest
        results[each] = _result([outcomes[name] for name in mine])
    return results


def _result(outcomes: list[Outcome]) -> dict[str, Any]:
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    failures = [outcome.msg for outcome in outcomes if outcome.failed]
    return {
        "failed": bool(failures),
        "msg": "; ".join(failures or [outcome.msg for outcome in outcomes]),
        "woken": any(outcome.woken for outcome in outcomes),
        "seconds": max(seconds, default=None),
        "machines": [outcome.as_dict() for outcome in outcomes],
    }


@contextlib.contextmanager
def _results(path: str) -> Iterator[dict[str, Any]]:
    """Yield what the file has, which no other process reads meanwhile; then write it back."""
    with open(path, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        results = json.loads(file.read() or "{}")
        yield results
        file.seek(0)
        file.truncate()
        json.dump(results, file)
