"""One computer, one service and the processes between them: the real code on a model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar
from unittest import mock

from dcs_proxy.api import http as https
from dcs_proxy.api.client import Api
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.console.progress import Progress
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Record
from dcs_proxy.session.resolve import resolve
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.keys import KeyPair
from tests.model.process import Ask, AskAgent, AwaitGuest, Process, Sleep, Write
from tests.model.service import Clock, ModelAgent, Service

T = TypeVar("T")
NAME = MachineName("dm-foo")
SETTINGS = Settings()
_AGENT = "/model.sock"
# No two things happen in the same moment.
_TURN_S = 0.001


class ModelDeadline(Deadline):
    """A deadline by the model's clock."""

    def __init__(self, seconds: float, clock: Clock, process: Process) -> None:
        super().__init__(seconds)
        self._process = process
        self._clock = clock
        self.at = clock.elapsed + seconds

    def remaining(self) -> float:
        return max(0.0, self.at - self._clock.elapsed)

    def sleep(self, seconds: float) -> None:
        self.check()
        self._process.stop(Sleep(min(seconds, self.remaining())))
        self.check()

    def call(self, function: Callable[[], T], *, within_s: float) -> T:
        limit = self._clock.elapsed + within_s
        value = function()
        self.check()
        if self._clock.elapsed >= limit:
            raise TimeoutError
        return value


class ModelState(StateDirectory):
    """A state directory; the process stops before each change of it."""

    def __init__(self, path: str, process: Process) -> None:
        super().__init__(path)
        self._process = process

    def save(self, *arguments: Any) -> None:
        self._process.stop(Write())
        super().save(*arguments)

    def forget(self, *arguments: Any) -> None:
        self._process.stop(Write())
        super().forget(*arguments)

    def save_failure(self, *arguments: Any) -> None:
        self._process.stop(Write())
        super().save_failure(*arguments)


class ModelAgents:
    """The one agent, which always runs."""

    place = _AGENT

    def check(self) -> None:
        """Nothing can be missing."""

    def ready(self, *, timeout_s: float) -> Agent:
        return Agent(_AGENT, timeout_s=timeout_s)

    def add_key(
        self, key: KeyPair, *, comment: str, lifetime_s: int, may_start: bool, timeout_s: float
    ) -> Agent:
        agent = self.ready(timeout_s=timeout_s)
        agent.add_key(key, comment=comment, lifetime_s=lifetime_s)
        return agent


class Computer:
    """One computer and one service; `running` is the process that may run at the moment."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="dcs")
        self.state = StateDirectory(self.path)
        self.clock = Clock()
        self.service = Service(self.clock)
        self.agent = ModelAgent(self.clock)
        self.running: Process | None = None
        self.patches = [
            mock.patch.object(https, "time", self.clock),
            mock.patch.object(https.HttpClient, "_send", self._send),
            mock.patch.object(Agent, "_exchange", self._exchange),
        ]
        for patch in self.patches:
            patch.start()

    def close(self) -> None:
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.path)

    def process(self, client: str, *, half: Half) -> Process:
        """Return a process of an ssh that has not started yet."""
        return Process(client, self.clock.elapsed, self._work, half=half)

    def go(self, process: Process, answer: Any) -> None:
        self.running = process
        self.clock.elapsed += _TURN_S
        process.go(answer)

    def answer(self, process: Process) -> Any:
        """Do what a process waits for, and return the answer for it."""
        match process.at:
            case Ask():
                return self.service.answer(process.at)
            case AskAgent(request):
                return self.agent.answer(request)
            case Sleep(seconds):
                self.clock.elapsed += seconds
        return None

    def _send(self, request: https.Request) -> Any:
        ask = Ask(request.method, request.path, request.headers, request.body or {})
        return self._stop(ask)

    def _exchange(self, *requests: bytes) -> list[Any]:
        return [self._stop(AskAgent(request)) for request in requests]

    def _stop(self, point: Ask | AskAgent) -> Any:
        assert self.running is not None
        return self.running.stop(point)

    def _work(self, process: Process) -> Record:
        deadline = ModelDeadline(SETTINGS.wake_seconds, self.clock, process)
        log = Log(os.path.join(self.path, "log"), "off")
        credentials = Credentials("key", None, "the model")
        known = KnownMachines(self.path, "account")
        context = Context(
            settings=SETTINGS,
            state=ModelState(self.path, process),
            deadline=deadline,
            log=log,
            agents=ModelAgents(),
            account="account",
            parent=os.getppid(),
            open_api=lambda: Api(SETTINGS, credentials, deadline, log, lambda _text: None, known),
            notice=lambda _text: None,
            progress=Progress(is_quiet=True, in_place=False),
            await_guest=lambda _name, _record: process.stop(AwaitGuest()),
            now=self.clock.time,
        )
        return resolve(NAME, context, process.half)
