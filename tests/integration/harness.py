"""A user with a home of their own, and the emulator: what the integration tests are played with.

Everything is real: ssh, ssh-agent, the emulator's process.  Whatever is started is ended by its
own process number.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from unittest import mock

import requests

from dcs_proxy.cli import main
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.contract import recording
from tests.contract.documents import check_recorded
from tests.integration.as_macos import Mac

T = TypeVar("T")
LIMIT_S = 120.0
# What a test must not inherit from whoever runs it.
_OWN = (
    "DEDALUS_API_KEY", "DEDALUS_X_API_KEY", "DEDALUS_ORG_ID", "DEDALUS_BASE_URL",
    "DCS_PROXY_HOME", "DCS_PROXY_CONFIG", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME", "PYTHONUNBUFFERED", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
    "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND", "DISPLAY", "WAYLAND_DISPLAY",
)  # fmt: skip


def wait_until(condition: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """Return the condition's first true value; fail when none comes within `limit_s`."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


def processes() -> dict[int, tuple[int, list[str]]]:
    """Return every process: its parent and its arguments."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            found[int(entry.name)] = (parent, arguments.split("\0"))
    return found


def clean_environment() -> dict[str, str]:
    """Return the environment without anything that says who runs the tests."""
    return {key: value for key, value in os.environ.items() if key not in _OWN}


def agent_pid(path: str | os.PathLike[str]) -> int | None:
    """Return the process that listens on an agent's socket (SO_PEERCRED), None if nobody does."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.fspath(path))
        except OSError:
            return None
        return int(
            struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        )


def insert_between_blocks(config: Path, text: str) -> None:
    """Write what the user's own part of the config says: after our first block."""
    end = "# <<< dcs-proxy"
    head, mark, tail = config.read_text().partition(end)
    line, newline, rest = tail.partition("\n")
    assert mark and newline
    config.write_text(head + mark + line + newline + text + rest)


class Emulator:
    """A running emulator; `api` and `key` as its ready line gives them, `ids` their kind.

    Users are given `front` as base URL: that of what is `in_between`, if something is.
    """

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.ids = arguments[arguments.index("--ids") + 1] if "--ids" in arguments else "dm"
        self.journal = directory / "journal"
        self.replies = directory / "replies"
        self.process = subprocess.Popen(
            [
                sys.executable, recording.__file__, str(self.replies),
                "--journal", str(self.journal), *arguments,
            ],
            stdout=subprocess.PIPE,
            env=clean_environment(),
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the emulator did not start"
        self.ready: dict[str, Any] = json.loads(line)
        self.api: str = self.ready["api"]
        self.key: str = self.ready["key"]
        self.in_between = ""

    @property
    def front(self) -> str:
        return self.in_between or self.api

    def machine_id(self, name: str) -> str:
        """Return the id of the machine that the command line called `name`."""
        return str(self.ready["machines"][name])

    def control(self, method: str, path: str, **body: Any) -> Any:
        """Use a control route of the emulator."""
        reply = requests.request(
            method,
            f"{self.api}/emulator/{path}",
            headers={"Authorization": f"Bearer {self.key}"},
            json=body or None,
            timeout=30,
        )
        assert reply.ok, reply.text
        return reply.json() if reply.content else None

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the journal's entries that have all the given values."""
        if not self.journal.exists():
            return []
        entries = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [e for e in entries if all(e.get(key) == value for key, value in wanted.items())]

    def creates(self) -> list[dict[str, Any]]:
        """Return the journal's entries of POSTs that asked for a session."""
        return [e for e in self.events(method="POST") if str(e.get("path", "")).endswith("/ssh")]

    def sessions_created(self) -> set[str]:
        """Return the ids of all sessions that POSTs were answered with."""
        return {e["session_id"] for e in self.creates() if e.get("session_id")}

    def stop(self) -> None:
        """End it, once; fail if it did not end well or gave a reply that breaks the contract."""
        assert self.process.stdout is not None
        if self.process.stdout.closed:
            return
        self.process.stdout.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT_S) == 0, "the emulator did not stop cleanly"
        check_recorded(self.replies, self.ids)


def key_file(directory: Path, key: str) -> str:
    """Return the path of a new file with an API key, for the emulator."""
    path = directory / "emulator-key"
    path.write_text(f"{key}\n")
    path.chmod(0o600)
    return str(path)


class ProcessWatch:
    """Looks at every process, over and over, for a secret where none should be.

    That is in any arguments but those of `excepted` (and of its children before they run their own
    program), and in the environment of programs that need
    none of ours: ssh-agent, what looks after it, and the short ssh that asks for the guest.
    """

    def __init__(self, secret: str, excepted: int) -> None:
        self.secret = secret.encode()
        self.excepted = str(excepted)
        self.found: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ProcessWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            for process in Path("/proc").iterdir():
                if process.name.isdigit() and process.name != self.excepted:
                    try:
                        self._look(process)
                    except OSError:
                        continue

    def _look(self, process: Path) -> None:
        words = (process / "cmdline").read_bytes().split(b"\0")
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        if parent == self.excepted:
            return
        if any(self.secret in word for word in words):
            self.found.add(f"the arguments of {words[0].decode()}")
        program = os.path.basename(words[0])
        lone = program in (b"ssh-agent", b"ssh-add") or words[1:3] == [b"-F", b"none"]
        if lone and self.secret in (process / "environ").read_bytes():
            self.found.add(f"the environment of {program.decode()}")


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
        shutil.rmtree(self._made)


def helpers_for(user: User) -> list[int]:
    """Return the dcs-proxy processes that work in the user's state directory."""
    return [p for p, (_, words) in processes().items() if str(user.state) in words]
