"""A user with a home of their own, who runs real programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from dcs_proxy.cli import main
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.emulator import Emulator
from tests.support.macos import Mac
from tests.support.processes import agent_pid, clean_environment, is_alive, processes
from tests.support.waiting import LIMIT_S, wait_until


def insert_between_blocks(config: Path, text: str) -> None:
    """Write what the user's own part of the config says: after our first block."""
    end = "# <<< dcs-proxy"
    head, mark, tail = config.read_text().partition(end)
    line, newline, rest = tail.partition("\n")
    assert mark and newline
    config.write_text(head + mark + line + newline + text + rest)


class User:
    """A person with a home directory, an API key and an ssh config written by config-ssh."""

    mac: ClassVar[Mac | None] = None  # with --as-macos

    def __init__(self, *, home: Path | None = None) -> None:
        # Short, for the agent's socket; with a space, for everybody's quoting.
        self._made = home or Path(tempfile.mkdtemp(prefix="dcs ", dir="/tmp"))
        self.root = self._made
        if self.mac is not None:
            self.root = self._made / "Users" / ("x" * 90)
            self.root.mkdir(parents=True)
        self.home = self.root / "home"
        self.home.mkdir()
        self.state = self.root / "state"
        self.config = self.root / "ssh_config"
        self.environment = {
            **clean_environment(),
            "HOME": str(self.home),
            "DCS_PROXY_HOME": str(self.state),
            "DCS_PROXY_CONFIG": str(self.root / "config.toml"),
            "TMPDIR": str(self.root),
            **(self.mac.environment if self.mac else {}),
        }
        self.full_names: dict[str, str] = {}
        self.settings("")
        self.programs: list[subprocess.Popen[bytes]] = []

    def use(self, emulator: Emulator, *, config: bool = True) -> User:
        """Point the user at the emulator and, unless told otherwise, write the ssh config."""
        self.environment["DEDALUS_BASE_URL"] = emulator.front
        if emulator.ids == "uuid":
            self._name_machines(emulator)
        self.environment["DEDALUS_API_KEY"] = emulator.key
        if config:
            # In this process: hundreds of tests need it, and others show the program itself.
            with mock.patch.dict(os.environ, self.environment, clear=True):
                assert main(["config-ssh", "--ssh-config", str(self.config)]) == 0
        return self

    def _name_machines(self, emulator: Emulator) -> None:
        """Let the emulator's names be aliases, so that a test can use them with either ids."""
        named = {name: each for name, each in emulator.ready["machines"].items() if name != each}
        self.full_names = {name: f"dm-{each}" for name, each in named.items()}
        self.settings((self.root / "config.toml").read_text())

    def settings(self, toml: str) -> None:
        if self.full_names and "[aliases]" not in toml:
            lines = [f'{name} = "{each}"' for name, each in self.full_names.items()]
            toml = "\n".join([toml, "[aliases]", *lines, ""])
        (self.root / "config.toml").write_text(toml)

    def proxy(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run dcs-proxy as the user."""
        return self.run([sys.executable, "-m", "dcs_proxy", *arguments], **more)

    def ssh(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run ssh with the user's config file."""
        return self.run(["ssh", "-F", str(self.config), *arguments], **more)

    def run(self, command: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
        options: dict[str, Any] = {
            "env": self.environment,
            "stdin": subprocess.DEVNULL if "input" not in more else None,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "timeout": LIMIT_S,
            "cwd": self.root,
        }
        if "input" in more:
            del options["stdin"]
        words = self.mac.wrap(command) if self.mac else command
        return subprocess.run(words, check=False, **{**options, **more})

    def start(self, *command: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a program as the user; it is killed in the end if it still runs."""
        options: dict[str, Any] = {
            "env": self.environment,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.root,
        }
        words = self.mac.wrap(command) if self.mac else command
        program = subprocess.Popen(words, **{**options, **more})
        self.programs.append(program)
        return program

    def start_ssh(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        return self.start("ssh", "-F", str(self.config), *arguments, **more)

    def start_agent(self) -> str:
        """Start the user's own agent; return its socket and put it into the environment."""
        path = str(self._made / "user-agent.sock")
        self.start("ssh-agent", "-D", "-a", path)
        wait_until(lambda: agent_pid(path))
        self.environment["SSH_AUTH_SOCK"] = path
        return path

    def agent(self, name: str = "dm-foo") -> str:
        """Return the socket of the agent that holds a machine's identity."""
        return str(self.record(name)["attempt"]["agent_path"])

    def agents(self) -> list[str]:
        """Return the sockets of all private agents."""
        return PrivateAgents(str(self.state)).paths()

    def end_agents(self) -> None:
        """End the private agents, if there are any, and wait for their end."""
        for path in self.agents():
            pid = agent_pid(path)
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda p=path: not os.path.exists(p))

    def kill_agent(self, name: str = "dm-foo") -> None:
        """Kill a private agent; its socket stays."""
        path = self.agent(name)
        pid = agent_pid(path)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: agent_pid(path) is None)

    def log(self) -> str:
        path = self.state / "log"
        return path.read_text() if path.exists() else ""

    def record(self, name: str) -> dict[str, Any]:
        path = self.state / "sessions" / f"{self.full_names.get(name, name)}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def close(self) -> None:
        for program in self.programs:
            if program.poll() is None:
                program.kill()
            program.communicate()
        if self.state.exists():
            self.state.chmod(0o700)  # a test may have opened it to others
        self.end_agents()
        # Those of other state directories that the test has made.
        for pid, (_, words) in processes().items():
            if os.path.basename(words[0]) == "ssh-agent" and f"{self._made}/" in " ".join(words):
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda p=pid: not is_alive(p))
        shutil.rmtree(self._made)


def helpers_for(user: User) -> list[int]:
    """Return the dcs-proxy processes that work in the user's state directory."""
    return [p for p, (_, words) in processes().items() if str(user.state) in words]
