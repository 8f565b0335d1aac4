"""The checks of this computer: its programs, its shell, the state directory, the agent."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor import computer
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import passed
from dcs_proxy.errors import ConfigError, StateError
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import Program, render_top
from dcs_proxy.openssh.shell import Shell
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import _parse_certificate, generate_key
from dcs_proxy.ssh.wire import pack_string, pack_u32
from tests.support.fake_agent import Store, fake_agent

CLIENT = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    environment = {"PATH": str(tmp_path / "bin")}
    (tmp_path / "bin").mkdir()
    return Context(Options(str(tmp_path / "state")), environment, str(tmp_path / "c"), False, None)


def make_program(context: Context, name: str) -> None:
    path = Path(context.environment["PATH"], name)
    path.touch()
    path.chmod(0o700)


@pytest.mark.parametrize("package", ["requests", "cryptography", "keyring", "paramiko"])
def test_a_package_that_is_missing_is_named(
    context: Context, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(computer, "version", version)
    check = computer.check_python(context)
    assert check.ok is False
    assert check.text.endswith(f"has no package {package}")
    assert check.hint.endswith(f"-m pip install {package}")
    monkeypatch.setattr(sys, "executable", "/home/o'neill/python")
    command = computer.check_python(context).hint.partition("or: ")[2]
    assert shlex.split(command) == ["/home/o'neill/python", "-m", "pip", "install", package]


def test_the_packages_are_shown_with_their_versions(context: Context) -> None:
    check = computer.check_python(context)
    assert check.ok
    for package in ("requests", "cryptography", "keyring", "paramiko"):
        assert f", {package} " in check.text


def test_ssh_and_an_ssh_agent_are_needed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computer, "find_client", lambda: CLIENT)
    make_program(context, "apt-get")
    check = computer.check_ssh(context)
    assert (check.ok, check.text) == (False, "there is no ssh-agent in PATH")
    assert check.hint.endswith("sudo apt-get install openssh-client")
    make_program(context, "ssh-agent")
    check = computer.check_ssh(context)
    assert (check.ok, check.text) == (True, "OpenSSH_9.2p1 at /usr/bin/ssh")
    assert context.ssh == CLIENT


def test_an_ssh_that_cannot_be_used_is_told(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find() -> Client:
        raise ConfigError("too old", hint="update")

    monkeypatch.setattr(computer, "find_client", find)
    check = computer.check_ssh(context)
    assert (check.ok, check.text, check.hint, context.ssh) == (False, "too old", "update", None)


SILENT = Shell("/bin/sh")


@pytest.mark.parametrize(
    ("shells", "is_by_pipes", "text"),
    [
        ([SILENT, Shell("/bin/bash")], False, ""),
        ([SILENT, Shell("/bin/no", problem="cannot be run: x")], False, "/bin/no cannot be run: x"),
        ([SILENT, Shell("/bin/no", problem="cannot be run: x")], True, "/bin/no cannot be run: x"),
        ([SILENT, Shell("/bin/bash", output="hi")], False, '/bin/bash prints "hi"'),
        ([SILENT, Shell("/bin/bash", output="hi")], True, ""),
    ],
)
def test_every_shell_has_to_run_commands_and_be_silent(
    context: Context, monkeypatch: pytest.MonkeyPatch,
    shells: list[Shell], is_by_pipes: bool, text: str,
) -> None:  # fmt: skip
    def try_shells(environment: Mapping[str, str]) -> list[Shell]:
        assert environment is context.environment
        return shells

    monkeypatch.setattr(computer, "try_shells", try_shells)
    write_block(context, hands_over=not is_by_pipes)
    check = computer.check_shell(context)
    assert check.ok is not bool(text)
    assert check.text.startswith(text or ", ".join(shell.path for shell in shells))
    assert bool(check.hint) is bool(text)
    if "cannot" in text:
        assert check.hint == "set SHELL to a shell that runs commands, such as /bin/sh"


def write_block(context: Context, *, hands_over: bool) -> None:
    """Write a block into the ssh config, beside a line that is not UTF-8."""
    program = Program(("/bin/true", "\udcff"), "/state")
    top = render_top(program, [], Version(9, 2), hands_over=hands_over)
    block = top + "# \udcff\n"
    Path(context.ssh_config).write_bytes(config_file.install(b"# \xff\n", block, "Host *\n"))


def test_without_a_block_a_shell_that_prints_is_a_fault(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computer, "try_shells", lambda _: [Shell("/bin/bash", output="hi")])
    assert computer.check_shell(context).ok is False
    Path(context.ssh_config).write_text("Host *\n")
    assert computer.check_shell(context).ok is False


class Agents:
    """Stands for the session's context: its agents are the one at `path`."""

    def __init__(self, path: str) -> None:
        self.agents, self.path = self, path

    def ready(self, *, timeout_s: float) -> Agent:
        assert timeout_s == 20
        return Agent(self.path)


@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ([], "accepts certificates and binds them to the gateway"),
        ([b"restrict-destination"], "accepts certificates but no constraint (OpenSSH before 8.9): "
         "not bound to the gateway"),
        ([b"ssh-ed25519-cert"], "accepts keys but no certificates, so they are not bound to the "
         "gateway"),
    ],
)  # fmt: skip
def test_the_agent_is_tried_and_nothing_is_left_in_it(
    context: Context, monkeypatch: pytest.MonkeyPatch, refused: list[bytes], said: str, held: int
) -> None:
    store = Store()
    store.held = {b"blob%d" % number: b"" for number in range(held)}
    before = dict(store.held)

    def answer(request: bytes) -> bytes:
        is_refused = request[0] == 25 and any(words in request for words in refused)
        return b"\0\0\0\1\5" if is_refused else store(request)

    with fake_agent() as agent:
        agent.answer = answer
        monkeypatch.setattr(Context, "open_session_context", lambda _: Agents(agent.path))
        check = computer.check_agent(context)
        adds = [request for request in agent.requests if request[0] == 25]
    number = "1 identity" if held == 1 else f"{held} identities"
    assert check == passed(f"{agent.path}: {number}, {said}")
    assert store.held == before
    # An agent without certificates is asked to accept a bare key.
    assert (b"ssh-ed25519-cert" in adds[-1]) is (refused != [b"ssh-ed25519-cert"])
    assert (b"doctor.invalid" in adds[0].partition(b"restrict-destination")[2]) and len(adds) >= 1
    for add in adds:
        # RFC 9987: SSH_AGENT_CONSTRAIN_LIFETIME is a 1 and the seconds.
        assert pack_string(b"dcs-proxy doctor") + b"\1" + pack_u32(60) in add


def test_the_certificate_that_is_tried_opens_nothing() -> None:
    key = generate_key()
    blob = computer._certificate(key)
    parsed = _parse_certificate(blob)
    assert (parsed.public, parsed.valid_after, parsed.valid_before) == (key.public, 0, 1)
    assert (parsed.principals, parsed.kind) == ([b"doctor.invalid"], 1)


def test_the_state_directory_is_that_of_the_environment(context: Context, tmp_path: Path) -> None:
    context.options = Options()
    context.environment = {"DCS_PROXY_HOME": str(tmp_path / "other")}
    assert computer.check_state(context).text == f"{tmp_path}/other, mode 0700"


def test_the_state_directory_has_to_be_writable_and_nothing_is_left(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert computer.check_state(context).text.endswith("/state, mode 0700")
    assert context.state is not None
    before = os.listdir(context.state.path)
    assert not [name for name in before if name.startswith("doctor")]

    def fail(path: str, data: bytes) -> None:
        Path(path).write_bytes(data)
        raise StateError("full")

    monkeypatch.setattr(computer, "write_atomically", fail)
    with pytest.raises(StateError):
        computer.check_state(context)
    assert os.listdir(context.state.path) == before
