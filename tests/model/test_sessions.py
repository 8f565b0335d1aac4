"""Any order of processes, answers, time and faults, checked against what must be true in all.

The code is the real one from `resolve` down to single requests to API and agent, with a real state
directory; the service, the agent and the clocks are models.  Hypothesis makes the stories up: the
same 120 each time, or DCS_PROXY_MODEL_STORIES of them, other ones each time.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dcs_proxy.api.problems import RequestFailed
from dcs_proxy.errors import ApiUnavailable, DeadlineExceeded, SessionFailed
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.session.lifetime import COMMITTED_S, margin_s
from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Record
from tests.model.computer import NAME, SETTINGS, Computer
from tests.model.process import Ask, AskAgent, Killed, Process, Sleep
from tests.model.service import Lease

# What a process may fail with in these stories; anything else is a bug.
FAILURES = (ApiUnavailable, DeadlineExceeded, SessionFailed)


WHICH = st.integers(0, 3)
LIVES = st.sampled_from([45.0, 100.0, 3600.0, 90000.0])


@dataclass
class Given:
    """What the first half of an ssh was given, and when (the clock's `elapsed`).

    `is_still_there` is whether the record was unchanged when the second half started.
    """

    client: str
    record: Record
    at: float
    is_still_there: bool = True


class Sessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.computer = Computer()
        self.clock, self.service, self.agent = (
            self.computer.clock, self.computer.service, self.computer.agent,
        )  # fmt: skip
        self.processes: list[Process] = []
        self.started = 0
        self.first_halves: list[Given] = []
        self.given: dict[str, Given] = {}  # to the ssh whose second half has begun
        self.agent_lost_at = -1.0
        self.key_of: dict[str, str] = {}
        self.records: dict[str, Record] = {}  # the last one that was written of each session

    def teardown(self) -> None:
        try:
            for process in list(self.processes):
                self.go(process, Killed())
            self.ends_well()
        finally:
            self.computer.close()

    def ends_well(self) -> None:
        """Whatever has happened, the next ssh finds a session, and its second half keeps it."""
        self.service.is_awake, self.service.life_s = True, 3600.0
        first = self.run_to_the_end("last:1", half=Half.PREPARE)
        before = len(self.service.leases)
        second = self.run_to_the_end("last:1", half=Half.CONNECT)
        assert first == second
        assert len(self.service.leases) == before

    def run_to_the_end(self, client: str, *, half: Half) -> Record:
        process = self.start(client, half=half)
        self.go_on(process, 100)
        assert process.record is not None, process.error or process.at
        return process.record

    # --- what may happen

    @precondition(lambda self: len(self.processes) < 4)
    @rule(steps=st.sampled_from([0, 2, 40]))
    def an_ssh_starts(self, steps: int) -> None:
        self.started += 1
        self.go_on(self.start(f"{self.started}:1", half=Half.PREPARE), steps)

    @precondition(lambda self: len(self.processes) < 4 and self.first_halves and self.is_quiet())
    @rule(seconds=st.sampled_from([0, 0, 10, 57]), steps=st.sampled_from([0, 40]))
    def an_ssh_connects(self, seconds: float, steps: int) -> None:
        self.clock.elapsed += seconds
        given = self.first_halves.pop()
        self.given[given.client] = given
        given.is_still_there = self.computer.state.load(NAME) == given.record
        self.go_on(self.start(given.client, half=Half.CONNECT), steps)

    @precondition(lambda self: self.processes)
    @rule(which=WHICH, steps=st.integers(1, 12))
    def a_process_goes_on(self, which: int, steps: int) -> None:
        self.go_on(self.pick(which), steps)

    @precondition(lambda self: self.waiting(Ask))
    @rule(which=WHICH, how=st.sampled_from([429, 503, "lost", "unreachable"]))
    def the_api_fails(self, which: int, how: int | str) -> None:
        process = self.pick(which, Ask)
        if how == "lost":
            self.computer.answer(process)
        if isinstance(how, int):
            self.go(process, self.service.refuse(how))
        else:
            self.go(process, RequestFailed(ApiUnavailable(how), retryable=True))

    @precondition(lambda self: self.processes)
    @rule(which=WHICH, is_done=st.booleans())
    def a_process_is_killed(self, which: int, is_done: bool) -> None:
        process = self.pick(which)
        if is_done and isinstance(process.at, Ask | AskAgent):
            self.computer.answer(process)
        self.go(process, Killed())

    @precondition(lambda self: self.is_quiet())
    @rule(seconds=st.sampled_from([14, 16, 35, 59, 61, 301, 550, 601]))
    def time_passes(self, seconds: float) -> None:
        self.clock.elapsed += seconds

    @precondition(lambda self: self.is_quiet() and self.service.leases)
    @rule(left_s=st.sampled_from([32, 28, 5, -1]))
    def the_newest_session_comes_near_its_end(self, left_s: float) -> None:
        self.clock.elapsed = max(self.clock.elapsed, self.newest().ends_at - left_s)

    @precondition(lambda self: self.is_quiet())
    @rule(seconds=st.sampled_from([-7200, -3600, -50, 50, 3600, 7200]))
    def our_clock_is_set(self, seconds: float) -> None:
        self.clock.step += seconds
        self.clock.steps += 1

    @initialize(is_awake=st.booleans(), life_s=LIVES)
    def the_story_begins(self, is_awake: bool, life_s: float) -> None:
        self.the_machine_changes(is_awake, life_s)

    @rule(is_awake=st.booleans(), life_s=LIVES)
    def the_machine_changes(self, is_awake: bool, life_s: float) -> None:
        self.service.is_awake, self.service.life_s = is_awake, life_s

    @precondition(lambda self: self.is_quiet() and self.service.leases)
    @rule(status=st.sampled_from(["closed", "failed"]), seconds=st.sampled_from([0, 61]))
    def the_newest_session_ends(self, status: str, seconds: float) -> None:
        self.service.end(self.newest(), status)
        self.clock.elapsed += seconds

    @rule(takes_certificates=st.booleans())
    def the_agent_is_started_anew(self, takes_certificates: bool) -> None:
        self.agent.held.clear()
        self.agent.takes_certificates = takes_certificates
        self.agent_lost_at = self.clock.elapsed

    def start(self, client: str, *, half: Half) -> Process:
        process = self.computer.process(client, half=half)
        self.processes.append(process)
        self.go(process, None)
        return process

    def newest(self) -> Lease:
        return list(self.service.leases.values())[-1]

    def go_on(self, process: Process, steps: int) -> None:
        for _ in range(steps):
            # A process is slow only where it may take any time; otherwise nothing would hold.
            is_late = isinstance(process.at, Sleep) and not self.is_quiet()
            if process in self.processes and not is_late:
                self.go(process, self.computer.answer(process))

    # --- what must be true

    def waiting(self, *kinds: type) -> list[Process]:
        return [p for p in self.processes if isinstance(p.at, kinds)]

    def pick(self, which: int, *kinds: type) -> Process:
        chosen = self.waiting(*kinds) if kinds else self.processes
        return chosen[which % len(chosen)]

    def is_quiet(self) -> bool:
        """Return whether all processes wait for something that may take any time."""
        return len(self.waiting(Ask, Sleep)) == len(self.processes)

    def go(self, process: Process, answer: Any) -> None:
        """Let a process run to its next stop, and check what it has done."""
        self.look_at_new_sessions()
        self.computer.go(process, answer)
        self.look_at_requests()
        self.look_at_files()
        if process.at is None:
            self.processes.remove(process)
            self.look_at_end(process)

    def look_at_new_sessions(self) -> None:
        """No session is created while another can be used."""
        for new in self.service.created:
            others = [lease for lease in self.service.leases.values() if lease is not new]
            assert not any(map(self.is_usable, others)), "a session too many"
        self.service.created.clear()

    def is_usable(self, lease: Lease) -> bool:
        """Return whether an ssh that starts now must use this session."""
        record = self.records.get(lease.session_id)
        if record is None or not self.service.is_live(lease):
            return False
        ends_at = min(lease.ends_at, self.agent.held.get(record.identity, 0.0))
        # Its end was written by the clock as it was.
        is_clock_same = lease.steps == self.clock.steps
        return is_clock_same and ends_at - self.clock.elapsed > margin_s(math.inf)

    def look_at_requests(self) -> None:
        """One process at a time asks the API, as it has written, and each key has one request."""
        asking = self.waiting(Ask)
        assert len(asking) <= 1, "two processes work on one machine"
        for process in asking:
            ask = process.at
            if ask.method == "POST":
                key = ask.headers["Idempotency-Key"]
                assert self.key_of.setdefault(ask.body["public_key"], key) == key
                record = self.computer.state.load(NAME)
                assert record is not None and record.attempt.idempotency_key == key
                # Its times are by the clock as it is now, not when the request arrives.
                self.service.steps_of.setdefault(key, self.clock.steps)

    def look_at_files(self) -> None:
        """The record can be read, if there is one, and no lock outlives its holder."""
        state = self.computer.state
        if os.path.exists(state.session_path(NAME, ".json")):
            record = state.load(NAME)
            assert record is not None
            lease = self.service.leases.get(record.attempt.idempotency_key)
            if lease is not None:
                self.records[lease.session_id] = record
        if not self.processes:
            with state.lock(NAME, Deadline(0)) as is_held:
                assert is_held

    def look_at_end(self, process: Process) -> None:
        """A process that succeeds has what ssh needs; one that fails has a reason."""
        if process.record is None:
            assert isinstance(process.error, (Killed, *FAILURES)), repr(process.error)
            # A wake continues, and the next ssh resumes it.
            if self.service.leases and self.service.is_live(self.newest()):
                assert self.computer.state.load(NAME) is not None, "a session forgotten"
            return
        self.look_at_record(process, process.record)
        if process.half is Half.PREPARE:
            given = Given(process.client, process.record, self.clock.elapsed)
            self.first_halves.append(given)
        elif process.client in self.given:
            self.look_at_second_half(self.given[process.client], process.record)

    def look_at_record(self, process: Process, record: Record) -> None:
        """The service knows the session that ssh gets, and enough of it is left."""
        lease = self.service.leases[record.attempt.idempotency_key]
        ready, now = record.ready, self.clock.elapsed
        assert ready is not None
        assert (ready.ssh_username, record.attempt.session_id) == (lease.session_id,) * 2
        limit = SETTINGS.reuse_seconds + (COMMITTED_S if process.half is Half.CONNECT else 0)
        if self.clock.step:
            # While the clock is wrong, the API's answer is saved as just too old.
            limit = SETTINGS.reuse_seconds + COMMITTED_S
        assert 0 <= self.clock.time() - ready.proved_at < limit, "used for too long without asking"
        # Its end was written by the clock as it was.
        is_clock_same = lease.steps == self.clock.steps
        if is_clock_same or not ready.bare_key:
            assert lease.ends_at > now, "a certificate past its end"
        if self.agent_lost_at < process.started_at:
            assert record.identity in self.agent.held, "ssh asks the agent in vain"
            self.look_at_identity(lease, record)
        if is_clock_same and process.half is Half.PREPARE:
            self.look_at_margin(process, lease, record)

    def look_at_identity(self, lease: Lease, record: Record) -> None:
        """A certificate is in the agent until its session ends, give or take whole seconds."""
        if record.ready is not None and not record.ready.bare_key:
            assert abs(self.agent.held[record.identity] - lease.ends_at) < 2

    def look_at_margin(self, process: Process, lease: Lease, record: Record) -> None:
        """Of an earlier session enough is left, and of its identity too."""
        if lease.created_at < process.started_at:
            margin = margin_s(lease.ends_at - lease.created_at)
            ends_at = min(lease.ends_at, self.agent.held.get(record.identity, lease.ends_at))
            assert ends_at - process.started_at > margin - 1, "too near its end"

    def look_at_second_half(self, given: Given, record: Record) -> None:
        """An ssh logs in with the session that its first half got, and no other."""
        lease = self.service.leases[given.record.attempt.idempotency_key]
        is_good = (
            given.is_still_there
            and lease.steps == self.clock.steps
            and lease.ends_at > self.clock.elapsed + 1
            and self.clock.elapsed - given.at < COMMITTED_S - 1
            and given.record.identity in self.agent.held
        )
        assert record == given.record or not is_good


TestSessions = Sessions.TestCase
STORIES = os.environ.get("DCS_PROXY_MODEL_STORIES")
TestSessions.settings = settings(
    max_examples=int(STORIES or "120"),
    # A failure of a new story would say more about the code as it was than about the change under
    # test, and shrinking the story takes five minutes.
    derandomize=STORIES is None,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
