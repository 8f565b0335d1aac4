"""Death at any moment, and a day's work in a short time: nothing is lost, nothing grows."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from dcs_proxy.ssh.agent import Agent
from tests.support.bridge import bridges_of, write_config
from tests.support.emulator import Emulator
from tests.support.processes import processes
from tests.support.user import User, helpers_for
from tests.support.waiting import LIMIT_S, wait_until

Start = Callable[..., Emulator]


@dataclass(frozen=True)
class Way:
    """How ssh gets to a machine: what configures it, and what finds its processes of ours."""

    configure: Callable[[User, Emulator], object]
    helpers: Callable[[User], list[int]]


WAYS = {"handover": Way(User.use, helpers_for), "bridge": Way(write_config, bridges_of)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def test_helpers_killed_at_random_moments_lose_nothing(
    start_emulator: Start, user: User, way: Way, pytestconfig: pytest.Config
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--wake-seconds", "0.3")
    way.configure(user, emulator)
    user.settings("reuse_seconds = 0\n")
    moments = random.Random(20261124)
    killed = 0
    for _ in range(pytestconfig.getoption("--kills")):
        emulator.control("PUT", "machines/dm-foo", phase="sleeping")
        before = emulator.sessions_created()
        ssh = user.start_ssh("dm-foo", "true")
        killed += kill_helpers(way.helpers, user, ssh, moments.uniform(0, 0.8))
        ssh.communicate(timeout=LIMIT_S)
        wait_until(lambda: not way.helpers(user))
        done = user.ssh("dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        live = [s for s, status in emulator.control("GET", "state")["sessions"].items()
                if s not in before and status in ("ready", "wake_in_progress")]  # fmt: skip
        assert len(live) == 1, "two live sessions for one machine"
    assert killed, "no helper was killed"


def kill_helpers(
    find: Callable[[User], list[int]], user: User, ssh: subprocess.Popen[bytes], after_s: float
) -> bool:
    """Kill the helpers that run a random time after ssh was started; return whether any did."""
    end = time.monotonic() + after_s
    while time.monotonic() < end and ssh.poll() is None:
        time.sleep(0.001)
    helpers = find(user)
    for pid in helpers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return bool(helpers)


def test_a_long_time_of_use_fails_only_as_injected_and_grows_nothing(
    start_emulator: Start, user: User, way: Way, pytestconfig: pytest.Config
) -> None:
    names = [f"dm-m{number}" for number in range(8)]
    seconds = pytestconfig.getoption("--soak-seconds")
    life = min(20.0, seconds / 2)
    emulator = start_emulator(
        *(word for name in names for word in ("--machine", name)),
        "--session-seconds", str(life), "--fault", "*=503~0.1",
    )  # fmt: skip
    user.settings("reuse_seconds = 1\n")
    way.configure(user, emulator)
    failures: list[str] = []
    counts = dict.fromkeys(names, 0)
    end = time.monotonic() + seconds

    def work(name: str) -> None:
        # A slow computer takes longer.
        while time.monotonic() < end or counts[name] < 3:
            begin = time.monotonic()
            done = user.ssh(name, f"echo {name}")
            counts[name] += 1
            # On a slow computer a short session may end during a login: see lifetime.margin_s().
            is_slow = time.monotonic() - begin >= life / 2 and "Permission denied" in done.stderr
            if not is_slow and (done.returncode, done.stdout) != (0, f"{name}\n"):
                failures.append(f"{name}: {done.returncode} {done.stderr}")

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    sizes = []
    while time.monotonic() < end:
        time.sleep(seconds / 10)
        sizes.append(size_of(user, way))
    for thread in threads:
        thread.join()
    injected = [f for f in failures if "runtime unavailable" in f]
    assert failures == injected
    assert len(emulator.sessions_created()) > len(names), "no session has ended in the meantime"
    # Two sessions for each machine at the most have files, and the agent's lifetimes have ends.
    half = len(sizes) // 2
    early, late = (
        {what: max(size[what] for size in part) for what in sizes[0]}
        for part in (sizes[:half], sizes[half:])
    )
    print(f"{sum(counts.values())} logins, {len(injected)} failed as injected; {early} then {late}")
    for what in late:
        assert late[what] <= early[what] * 1.5 + 8, (early, late)
    wait_until(lambda: not way.helpers(user))
    assert not list(user.state.rglob("*.tmp"))


def size_of(user: User, way: Way) -> dict[str, int]:
    """Return how much there is of everything that must not grow."""
    return {
        "files": sum(1 for path in user.state.rglob("*") if path.is_file()),
        "identities": sum(len(Agent(path).identities()) for path in user.agents()),
        "agent descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in agents_of(user)),
        "helpers": len(way.helpers(user)),
    }


def agents_of(user: User) -> list[int]:
    sockets = set(user.agents())
    return [p for p, (_, words) in processes().items() if "-a" in words and sockets & set(words)]
