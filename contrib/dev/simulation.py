"""Ten thousand computers and one API, in simulated time: the model behind contrib/dev/simulate.py.

A clock jumps from event to event.  How long to wait, when to give up and how long a session is good
comes from dcs_proxy itself, so that the model cannot drift from the program.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

from dcs_proxy.api.retry import MAX_BACKOFF_S, SPREAD_PART, SPREAD_S, RetryPolicy, poll_wait_s
from dcs_proxy.local.settings import Settings
from dcs_proxy.session.directory import LOCK_TURN_S
from dcs_proxy.session.lifetime import margin_s

HOUR_S = 3600.0


@dataclass(frozen=True)
class Scenario:
    """The computers and the service; simulate.py explains the fields."""

    clients: int = 10_000
    machines: int = 1
    ssh: int = 4
    limit: float = 100.0
    burst: float = 100.0
    retry_after_ms: int = 84
    poll_ms: int = 500
    wake_s: float = 10.0
    start_s: float = 1.0
    round_trip_ms: float = 80.0
    down_s: float = 0.0
    unreachable: bool = False
    every_s: float = math.inf
    rounds: float = 12.0
    session_s: float = 3600.0
    autosleep_s: float = 300.0
    seed: int = 1


class Fixed(RetryPolicy):
    """Retry every half second, without end, whatever the API asks for."""

    def wait_s(self, asked_s: float | None, *, has_answered: bool) -> float | None:
        return 0.5


class AsAsked(RetryPolicy):
    """Retry after the requested time with downward jitter, `tries` times in all."""

    def __init__(self, *, spread: bool, tries: float = math.inf) -> None:
        super().__init__()
        self.spread, self.left = spread, tries

    def wait_s(self, asked_s: float | None, *, has_answered: bool) -> float | None:
        if asked_s is None:
            return super().wait_s(None, has_answered=has_answered)
        self.left -= 1
        wide = max(SPREAD_S, asked_s * SPREAD_PART) if self.spread else 0.0
        return asked_s + random.uniform(0, wide) if self.left > 0 else None


class Doubling(RetryPolicy):
    """Retry after the requested time plus the average of what dcs-proxy adds, the same for all."""

    def __init__(self) -> None:
        super().__init__()
        self.extra_s = SPREAD_S / 2

    def wait_s(self, asked_s: float | None, *, has_answered: bool) -> float | None:
        if asked_s is None:
            return super().wait_s(None, has_answered=has_answered)
        extra_s, self.extra_s = self.extra_s, min(MAX_BACKOFF_S / 2, self.extra_s * 2)
        return asked_s + extra_s


@dataclass(frozen=True)
class Client:
    """A kind of client: how it uses sessions, retries and polls."""

    name: str
    reuses: bool = True
    single_flight: bool = True
    policy: Callable[[], RetryPolicy] = RetryPolicy
    poll_s: Callable[[int], float] = poll_wait_s


DCS_PROXY = Client("dcs-proxy")
NAIVE = Client("naive", False, False, Fixed, lambda asked_ms: asked_ms / 1000)
REFUSALS = [
    NAIVE,
    Client("every 500 ms", policy=Fixed),
    Client("as asked", policy=lambda: AsAsked(spread=False)),
    Client("as asked, spread", policy=lambda: AsAsked(spread=True)),
    Client("as asked, spread, 8 times", policy=lambda: AsAsked(spread=True, tries=8)),
    Client("doubling, no spread", policy=Doubling),
    DCS_PROXY,
]
SESSIONS = [
    Client("neither", False, False),
    Client("reuse", True, False),
    Client("single flight", False, True),
    Client("both", True, True),
]


class GivesUp(Exception):
    """An ssh gives up with an error."""


class Killed(Exception):
    """The editor that started an ssh has killed it."""


class Flight:
    """The one process that works on a machine, and those that wait for its result."""

    def __init__(self) -> None:
        self.error: type[Exception] | None = None
        self.waiting: list[Process] = []


# Yields the seconds to wait, or the flight to wait for.
Process = Generator["float | Flight", None, None]


@dataclass
class Machine:
    """A machine, and its record on the user's computer; times are in seconds."""

    wakes_at: float = math.inf
    used_at: float = 0.0
    flight: Flight | None = None
    is_pending: bool = False
    proved_at: float = -math.inf
    ends_at: float = -math.inf


@dataclass
class Outcome:
    """Requests by the second of their arrival, and how long each ssh took to log in."""

    posts: Counter[int] = field(default_factory=Counter)
    gets: Counter[int] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    gave_up: int = 0

    def share_in(self) -> float:
        return len(self.took) / (len(self.took) + self.gave_up)

    def percentile(self, part: float) -> float:
        ordered = sorted(self.took)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Api:
    """The API: a token bucket for mutations, and machines that take time to wake."""

    def __init__(self, scenario: Scenario, chance: random.Random) -> None:
        self.scenario, self.chance = scenario, chance
        self.tokens, self.filled_at = scenario.burst, 0.0

    def takes_post(self, machine: Machine, now: float) -> bool:
        """Accept a POST, which wakes the machine, or refuse it."""
        if self.scenario.limit < math.inf:
            earned = (now - self.filled_at) * self.scenario.limit
            self.tokens = min(self.scenario.burst, self.tokens + earned)
            self.filled_at = now
            if self.tokens < 1:
                return False
            self.tokens -= 1
        if self.sleeps(machine, now):
            machine.wakes_at = now + self.scenario.wake_s * self.chance.uniform(0.5, 1.5)
        return True

    def sleeps(self, machine: Machine, now: float) -> bool:
        idle_s = now - max(machine.wakes_at, machine.used_at)
        return machine.wakes_at == math.inf or idle_s >= self.scenario.autosleep_s


class World:
    """One run of a scenario in which all clients are of the kind `client`."""

    def __init__(self, scenario: Scenario, client: Client) -> None:
        self.scenario, self.client = scenario, client
        self.chance = random.Random(scenario.seed)
        random.seed(scenario.seed)  # the random numbers of dcs_proxy
        self.api = Api(scenario, self.chance)
        self.half_s = scenario.round_trip_ms / 2000
        self.limit_s = min(Settings.wake_seconds, scenario.every_s)
        self.outcome = Outcome()
        self.now = 0.0
        self._events: list[tuple[float, int, Process]] = []
        self._number = 0

    def outage(self) -> Outcome:
        """All users log in at once, and all machines are asleep."""
        for machine in self.all_machines():
            self.start_ssh(machine, self.scenario.start_s)
        return self.run()

    def hour(self) -> Outcome:
        """All users work for an hour, each at random times."""
        for machine in self.all_machines():
            self.resume(self.work(machine), 0)
        return self.run()

    def all_machines(self) -> Iterable[Machine]:
        return (Machine() for _ in range(self.scenario.clients * self.scenario.machines))

    def start_ssh(self, machine: Machine, within_s: float) -> None:
        for _ in range(self.scenario.ssh):
            self.resume(self.ssh(machine), self.chance.uniform(0, within_s))

    def run(self) -> Outcome:
        while self._events:
            self.now, _, process = heapq.heappop(self._events)
            wait = next(process, None)
            if isinstance(wait, Flight):
                wait.waiting.append(process)
            elif wait is not None:
                self.resume(process, wait)
        return self.outcome

    def resume(self, process: Process, after_s: float) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + after_s, self._number, process))

    def work(self, machine: Machine) -> Process:
        while True:
            yield self.chance.expovariate(self.scenario.rounds / HOUR_S)
            if self.now >= HOUR_S:
                return
            self.start_ssh(machine, self.scenario.start_s)

    def ssh(self, machine: Machine) -> Process:
        """Log in, with one ssh or with as many as an editor starts."""
        began = self.now
        while True:
            tried = self.now
            try:
                yield from self.resolve(machine, tried)
                break
            except (GivesUp, Killed):
                if self.scenario.every_s == math.inf:
                    self.outcome.gave_up += 1
                    return
            yield max(0.0, tried + self.scenario.every_s - self.now)
        machine.used_at = self.now
        self.outcome.took.append(self.now - began)

    # The rest follows dcs_proxy.session.resolve.

    def resolve(self, machine: Machine, began: float) -> Process:
        """Use the session, wait for another process, or create one.  Raises GivesUp or Killed."""
        if self.may_use(machine):
            return
        if not self.client.single_flight:
            yield from self.take_up_or_create(machine, began)
            return
        while (flight := machine.flight) is not None:
            yield flight
            if flight.error is None:
                return
            if flight.error is GivesUp:
                raise GivesUp
            yield from self.sleep(0, began)
        machine.flight = flight = Flight()
        try:
            yield from self.take_up_or_create(machine, began)
        except (GivesUp, Killed) as error:
            flight.error = type(error)
            raise
        finally:
            machine.flight = None
            for process in flight.waiting:
                self.resume(process, self.chance.uniform(0, LOCK_TURN_S))

    def is_alive(self, machine: Machine) -> bool:
        margin = margin_s(self.scenario.session_s)
        return self.client.reuses and machine.ends_at - self.now > margin

    def may_use(self, machine: Machine) -> bool:
        age = self.now - machine.proved_at
        return age < Settings.reuse_seconds and self.is_alive(machine)

    def take_up_or_create(self, machine: Machine, began: float) -> Process:
        if machine.is_pending or self.is_alive(machine):
            yield from self.ask(self.outcome.gets, machine, began)
        if not machine.is_pending and (
            not self.is_alive(machine) or self.api.sleeps(machine, self.now)
        ):
            yield from self.ask(self.outcome.posts, machine, began)
            machine.is_pending = self.client.single_flight
        while self.now < machine.wakes_at:
            yield from self.sleep(self.client.poll_s(self.scenario.poll_ms), began)
            yield from self.ask(self.outcome.gets, machine, began)
        if machine.is_pending or not self.is_alive(machine):
            machine.ends_at = self.now + self.scenario.session_s
        machine.is_pending, machine.proved_at = False, self.now

    def ask(self, counts: Counter[int], machine: Machine, began: float) -> Process:
        """Send a request until the API accepts it (dcs_proxy.api.http.HttpClient)."""
        policy = self.client.policy()
        wait = 0.0
        while True:
            yield from self.sleep(wait + self.half_round_trip(), began)
            counts[int(self.now)] += 1
            back = self.half_round_trip()
            is_down = self.now < self.scenario.down_s
            if not is_down and (
                counts is self.outcome.gets or self.api.takes_post(machine, self.now)
            ):
                yield from self.sleep(back, began)
                return
            asked_s = None if is_down else self.scenario.retry_after_ms / 1000
            has_answered = not (is_down and self.scenario.unreachable)
            rest = policy.wait_s(asked_s, has_answered=has_answered)
            if rest is None or back + rest >= began + Settings.wake_seconds - self.now:
                yield from self.sleep(back, began)
                raise GivesUp
            wait = back + rest

    def half_round_trip(self) -> float:
        return self.half_s * self.chance.uniform(0.5, 1.5)

    def sleep(self, seconds: float, began: float) -> Process:
        """Let time pass.  Raises GivesUp at the deadline, Killed when the editor gives up."""
        left = began + self.limit_s - self.now
        if seconds < left:
            yield seconds
            return
        yield max(0.0, left)
        raise Killed if self.scenario.every_s < Settings.wake_seconds else GivesUp
