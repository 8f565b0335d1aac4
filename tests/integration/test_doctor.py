"""dcs-proxy doctor: all well, and each of many things broken on purpose."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import quote, unquote

import pytest
import requests

from tests.support.emulator import Emulator, key_file
from tests.support.user import User

Start = Callable[..., Emulator]
COMPUTER = ["python", "ssh", "shell", "settings", "key", "api", "access", "clock", "state", "agent",
            "ssh-config", "block", "options"]  # fmt: skip
MARKER = "dsk-marker-0123456789"
MACHINE = ["machine", "session", "machine-options", "gateway", "login"]


@dataclass
class Patient:
    """One user, their emulator, and what doctor says about them."""

    user: User
    emulator: Emulator
    closed: str

    def doctor(self, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
        """Return doctor's exit code and its checks by name."""
        done = self.user.proxy(
            "doctor", "--json", "--ssh-config", str(self.user.config), *arguments
        )
        checks = json.loads(done.stdout)["checks"]
        assert "Traceback" not in done.stderr
        return done.returncode, {check["name"]: check for check in checks}

    def lines(self, *arguments: str) -> list[str]:
        """Return the lines that a person reads."""
        done = self.user.proxy("doctor", "--ssh-config", str(self.user.config), *arguments)
        return done.stdout.splitlines()

    def fault(self, text: str) -> None:
        self.emulator.control("POST", "faults", fault=text)

    def above(self, text: str) -> None:
        """Write lines above our block."""
        self.user.config.write_text(text + self.user.config.read_text())

    def write_vscode(self, text: str) -> None:
        path = self.user.home / ".config" / "Code" / "User" / "settings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def write_ssh(self, config: str) -> Path:
        """Write an ssh for an editor that always reads the same config; return its path."""
        path = self.user.root / "editor-ssh"
        path.write_text(f'#!/bin/sh\n[ "$1" != -F ] || shift 2\nexec ssh -F \'{config}\' "$@"\n')
        path.chmod(0o755)
        return path

    def move_program(self) -> None:
        launcher = self.user.state / "launcher"
        launcher.write_text(launcher.read_text().replace("start.py", "gone/start.py"))

    def lock_agent(self) -> None:
        self.user.settings('agent = "user"\n')
        self.user.start_agent()
        locked = self.user.run(["ssh-add", "-x"], input="secret\nsecret\n")
        assert locked.returncode == 0, locked.stderr


@pytest.fixture
def patient(start_emulator: Start, user: User) -> Iterator[Patient]:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    user.environment["LC_ALL"] = "C.UTF-8"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        yield Patient(user.use(emulator), emulator, f"http://127.0.0.1:{closed.getsockname()[1]}")


def test_all_is_well_and_nothing_is_woken(patient: Patient) -> None:
    status, checks = patient.doctor()
    assert (status, list(checks)) == (0, COMPUTER)
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert not patient.emulator.creates()
    assert list((patient.user.state / "hosts").iterdir()) == []
    assert patient.user.agents() == []


def test_with_a_machine_the_whole_way_is_gone(patient: Patient) -> None:
    status, checks = patient.doctor("dm-foo")
    assert (status, list(checks)) == (0, COMPUTER + MACHINE)
    assert all(float(checks[name]["seconds"]) >= 0 for name in MACHINE)
    assert float(checks["session"]["seconds"]) >= 1
    assert "SSH-2.0-AsyncSSH" in checks["gateway"]["text"]
    assert len(patient.emulator.sessions_created()) == 1
    assert patient.user.ssh("dm-foo", "true").stderr == ""


def test_a_block_in_an_included_file_is_well(patient: Patient) -> None:
    block = patient.user.root / "block"
    patient.user.config.rename(block)
    patient.user.config.write_text(f'Include "{block}"\n')
    patient.user.config.chmod(0o600)
    status, checks = patient.doctor("dm-foo")
    assert (status, checks["block"]["status"]) == (0, "ok"), checks
    assert re.search("in a file that .* includes", checks["block"]["text"])


# What is broken, by which words doctor knows it, and the way out that it names.
BROKEN: dict[str, tuple[Callable[[Patient], object], str, str, str]] = {
    "no API key": (
        lambda p: p.user.environment.pop("DEDALUS_API_KEY"),
        "key", "there is no API key", "DEDALUS_API_KEY",
    ),
    "a wrong API key": (
        lambda p: p.user.environment.update(DEDALUS_API_KEY="dsk-wrong"),
        "access", "does not accept the key from DEDALUS_API_KEY", "set DEDALUS_API_KEY",
    ),
    "a key file that others can read": (
        lambda p: (
            p.user.environment.pop("DEDALUS_API_KEY"),
            (p.user.root / "key").write_text("dsk-x"),
            (p.user.root / "key").chmod(0o644),
            p.user.settings(f'key_file = "{p.user.root}/key"\n'),
        ),
        "key", "is readable by other users", "chmod 600",
    ),
    "the API down": (
        lambda p: p.user.environment.update(DEDALUS_BASE_URL=p.closed),
        "api", "cannot be reached: Connection refused", "check the network",
    ),
    "a setting that is none": (
        lambda p: p.user.settings("wake_second = 3\n"),
        "settings", "wake_second is not a setting", "did you mean wake_seconds",
    ),
    "the clock behind": (
        lambda p: p.fault("*=clock:3600"),
        "clock", r"3[56]\d\d s behind the API's", "set-ntp",
    ),
    "the clock ahead": (
        lambda p: p.fault("*=clock:-120"),
        "clock", r"1[12]\d s ahead of the API's", "set-ntp",
    ),
    "a state directory that others can change": (
        lambda p: p.user.state.chmod(0o770),
        "state", "is writable by other users", "chmod 700",
    ),
    "an agent that refuses": (
        Patient.lock_agent,
        "agent", "does not accept an identity", "ssh-add -X",
    ),
    "an agent of the user's that is not there": (
        lambda p: p.user.settings('agent = "user"\n'),
        "agent", "SSH_AUTH_SOCK is not set", "start an agent",
    ),
    "no ssh config": (
        lambda p: p.user.config.unlink(),
        "ssh-config", ".*ssh_config does not exist", "config-ssh --ssh-config",
    ),
    "an ssh config that others can change": (
        lambda p: p.user.config.chmod(0o606),
        "ssh-config", r"is writable by other users \(mode 0606\)", "chmod go-w",
    ),
    "no block": (
        lambda p: p.user.config.write_text("Host mine\n"),
        "block", "has no dcs-proxy block", "config-ssh",
    ),
    "half of the block": (
        lambda p: p.user.config.write_text(
            p.user.config.read_text().partition("# >>> dcs-proxy end")[0]
        ),
        "block", "has no second dcs-proxy block", "config-ssh",
    ),
    "an edited block": (
        lambda p: p.user.config.write_text(
            re.sub("    Include.*hosts.*\n", "", p.user.config.read_text())
        ),
        "block", "was edited by hand", "delete it",
    ),
    "an older block whose program has moved": (
        Patient.move_program,
        "block", "runs .*/gone/start.py, which no longer exists", "config-ssh",
    ),
    "a launcher that is gone": (
        lambda p: (p.user.state / "launcher").unlink(),
        "block", "runs .*/launcher, which no longer exists", "config-ssh",
    ),
    "a launcher that others can change": (
        lambda p: (p.user.state / "launcher").chmod(0o777),
        "block", r"runs .*/launcher is writable by other users", "config-ssh",
    ),
    "a block for another state directory": (
        lambda p: p.user.environment.update(DCS_PROXY_HOME=f"{p.user.root}/other"),
        "block", "uses the state directory .*/state, not .*/other", "config-ssh",
    ),
    "a block for another config file": (
        lambda p: p.user.environment.pop("DCS_PROXY_CONFIG"),
        "block", "uses the config file .*toml, not the default config file", "config-ssh",
    ),
    "Host * User above ours": (
        lambda p: p.above("Host *\n    User me\n"),
        "options", r"User is me \(line 2 of .*ssh_config\)", "config-ssh puts it first",
    ),
    "a ProxyCommand above ours": (
        lambda p: p.above("Host dm-*\n    ProxyCommand=nc %h %p\n"),
        "options", r"ProxyCommand is nc \(line 2", "config-ssh puts it first",
    ),
    "a ProxyJump above ours": (
        lambda p: p.above("Match all\n  ProxyJump hop\n"),
        "options", r"ProxyJump replaces our command \(line 2", "config-ssh puts it first",
    ),
    "HostKeyAlgorithms without certificates": (
        lambda p: p.above("HostKeyAlgorithms ssh-ed25519,rsa-sha2-512\n"),
        "options", r"HostKeyAlgorithms has no certificates.*\(line 1 of", r"with \+ or \^",
    ),
    "PubkeyAcceptedAlgorithms without certificates": (
        lambda p: p.above("PubkeyAcceptedAlgorithms ssh-ed25519\n"),
        "options", r"PubkeyAcceptedAlgorithms lacks ssh-ed25519-cert.*\(line 1 of", r"\+ or \^",
    ),
    "an ssh config with a bad line": (
        lambda p: p.above("Nonsense yes\n"),
        "options", "ssh -G fails: .*terminating, 1 bad configuration options", "ssh -G",
    ),
    "a ProxyJump in a file that is included above ours": (
        lambda p: (
            (p.user.root / "a.d").mkdir(),
            (p.user.root / "a.d" / "10-work").write_text("Host *\n  Include INNER\n".replace(
                "INNER", f'"{p.user.root}/inner"')),
            (p.user.root / "inner").write_text("# ours\n\tproxyjump=hop\n"),
            p.above(f'Include "{p.user.root}/a.d/*"\n'),
        ),
        "options", r"ProxyJump replaces our command \(line 2 of .*/inner\)",
        "config-ssh puts it first",
    ),
    "HostName above ours": (
        lambda p: p.above("Host *\n    HostName %h.corp.example\n"),
        "options", r"HostName is .*corp.example \(line 2", "config-ssh puts it first",
    ),
    "a KnownHostsCommand above ours": (
        lambda p: p.above("Host *\n    KnownHostsCommand /bin/false %H\n"),
        "options", r"KnownHostsCommand is set.*\(line 2", "config-ssh puts it first",
    ),
    "PubkeyAuthentication no above ours": (
        lambda p: p.above("Host *\n    PubkeyAuthentication no\n"),
        "options", r"PubkeyAuthentication is no \(line 2", "config-ssh puts it first",
    ),
    "PreferredAuthentications above ours": (
        lambda p: p.above("Host *\n    PreferredAuthentications password\n"),
        "options", r"PreferredAuthentications is password \(line 2", "config-ssh puts it first",
    ),
    "CASignatureAlgorithms above ours": (
        lambda p: p.above("Host *\n    CASignatureAlgorithms rsa-sha2-512\n"),
        "options", r"CASignatureAlgorithms lacks ssh-ed25519.*\(line 2", r"\+ or \^",
    ),
    "a smart card above ours": (
        lambda p: p.above("Host *\n    PKCS11Provider /none\n"),
        "options", r"PKCS11Provider is set.*\(line 2", "config-ssh puts it first",
    ),
    "RevokedHostKeys that cannot be read": (
        lambda p: p.above("Host *\n    RevokedHostKeys /none/revoked\n"),
        "options", r"RevokedHostKeys names /none/revoked, which cannot be read", "make that file",
    ),
    "a config file that others can change": (
        lambda p: (p.user.root / "config.toml").chmod(0o666),
        "settings", r"is writable by other users \(mode 0666\)", "chmod go-w",
    ),
    "a key file that others can change": (
        lambda p: (
            p.user.environment.pop("DEDALUS_API_KEY"),
            (p.user.root / "key").write_text("dsk-x"),
            (p.user.root / "key").chmod(0o622),
            p.user.settings(f'key_file = "{p.user.root}/key"\n'),
        ),
        "key", "is writable by other users", "chmod go-w",
    ),
    "a proxy variable that cannot work": (
        lambda p: p.user.environment.update(
            DEDALUS_BASE_URL="https://api.test", ALL_PROXY="socks5h://localhost:1080"
        ),
        "api", "ALL_PROXY names a SOCKS proxy", "name an HTTP proxy",
    ),
    "a CA file that is missing": (
        lambda p: p.user.environment.update(
            DEDALUS_BASE_URL="https://api.test", REQUESTS_CA_BUNDLE="/none/ca.pem"
        ),
        "api", "REQUESTS_CA_BUNDLE names /none/ca.pem, which does not exist", "unset REQUESTS_CA",
    ),
    "an impossible base URL": (
        lambda p: p.user.environment.update(DEDALUS_BASE_URL="http://a..b"),
        "settings", "DEDALUS_BASE_URL has an impossible host or port", "the service is at",
    ),
    "no login shell": (
        lambda p: p.user.environment.update(SHELL="/bin/false"),
        "shell", "/bin/false does not run commands", "set SHELL",
    ),
    "Ansible without host keys": (
        lambda p: p.user.environment.update(ANSIBLE_HOST_KEY_CHECKING="False"),
        "ansible", "ANSIBLE_HOST_KEY_CHECKING turns host key checking off", "remove it",
    ),
    "Ansible's config without host keys": (
        lambda p: (p.user.home / ".ansible.cfg").write_text(
            "[defaults]\nhost_key_checking = False\n"
        ),
        "ansible", "host_key_checking in .*/.ansible.cfg turns", "remove it",
    ),
    "VS Code's short time-out": (
        lambda p: p.write_vscode('{\n  // mine\n  "remote.SSH.connectTimeout": 15,\n}\n'),
        "vscode", "VS Code gives up after 15 s", '"remote.SSH.connectTimeout": 300 in /',
    ),
    "VS Code's ssh is gone": (
        lambda p: p.write_vscode('{"remote.SSH.path": "/nowhere/ssh"}'),
        "vscode", "VS Code runs /nowhere/ssh as its ssh", 'correct or remove "remote.SSH.path" in',
    ),
    "VS Code's ssh is another program": (
        lambda p: p.write_vscode('{"remote.SSH.path": "/bin/true"}'),
        "vscode", "VS Code runs /bin/true as its ssh: /bin/true is not OpenSSH", "remote.SSH.path",
    ),
    "VS Code's ssh reads no config": (
        lambda p: p.write_vscode(f'{{"remote.SSH.path": "{p.write_ssh("none")}"}}'),
        "vscode", "editor-ssh, which does not run dcs-proxy for a machine", "editor-ssh' -G dm-",
    ),
    "VS Code's own config": (
        lambda p: p.write_vscode('{"remote.SSH.configFile": "/dev/null",}'),
        "vscode", "VS Code reads /dev/null as its ssh config, and dcs-proxy is not in it",
        "dcs-proxy config-ssh --ssh-config /dev/null",
    ),
}  # fmt: skip


@pytest.mark.parametrize("option", ["path", "configFile"])
def test_doctor_reads_what_the_editor_reads(patient: Patient, option: str) -> None:
    """An ssh and a config file of the editor's own, that come to our block in their own way."""
    other = patient.user.root / "other-config"
    other.write_text(f'Include "{patient.user.config}"\n')
    value = patient.write_ssh(str(other)) if option == "path" else other
    patient.write_vscode(
        f'{{"remote.SSH.{option}": "{value}", "remote.SSH.connectTimeout": 300, // why\n}}'
    )
    _, checks = patient.doctor()
    assert (checks["vscode"]["status"], checks["vscode"]["text"]) == ("ok", "VS Code waits 300 s")


@pytest.mark.parametrize("what", BROKEN)
def test_doctor_names_what_is_broken_and_the_way_out(
    patient: Patient, call: Callable[..., CompletedProcess[str]], what: str
) -> None:
    break_it, name, text, hint = BROKEN[what]
    break_it(patient)
    done = call("doctor", "--json", "--ssh-config", str(patient.user.config))
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert (done.returncode, done.stderr) == (1, "")
    assert checks[name]["status"] == "failed", checks
    assert re.search(text, checks[name]["text"])
    assert re.search(hint, checks[name]["hint"])
    failed = [check["name"] for check in checks.values() if check["status"] == "failed"]
    assert failed == [name]
    for check in checks.values():
        if check["status"] == "skipped":
            assert re.fullmatch(r"skipped: needs [a-z-]+", check["text"])
    assert len(checks) >= len(COMPUTER)


BROKEN_WAY: dict[str, tuple[Callable[[Patient], object], str, str, str, str]] = {
    "no such name": (
        lambda p: None, "dm-foo_", "machine", "is not the name of a machine", "dm-",
    ),
    "no such machine": (
        lambda p: None, "dm-none", "session", "no such machine", "check the name",
    ),
    "a gateway that refuses": (
        lambda p: p.fault("*=gateway-refuses"),
        "dm-foo", "gateway", "cannot be reached: .*Connection refused", "firewall",
    ),
    "a gateway that says nothing": (
        lambda p: (p.user.settings("connect_seconds = 1\n"), p.fault("dm-foo=gateway-silent")),
        "dm-foo", "gateway", "accepts a connection but sends nothing", "intercepting",
    ),
    "a line for this machine above ours": (
        lambda p: p.above("Host dm-foo\n    User root\n"),
        "dm-foo", "machine-options", r"User is root \(line 2", "config-ssh puts it first",
    ),
    "a gateway with another authority": (
        lambda p: p.fault("*=gateway-other-authority"),
        "dm-foo", "login", 'ssh dm-foo true failed .* "Host key verification', "ssh -v dm-foo",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN_WAY)
def test_doctor_names_the_step_that_fails_on_the_way(
    start_emulator: Start, user: User, what: str
) -> None:
    user.use(emulator := start_emulator("--machine", "dm-foo"))
    patient = Patient(user, emulator, "")
    break_it, host, name, text, hint = BROKEN_WAY[what]
    break_it(patient)
    status, checks = patient.doctor(host)
    assert status == 1
    assert checks[name]["status"] == "failed", checks
    assert re.search(text, checks[name]["text"])
    assert re.search(hint, checks[name]["hint"])
    assert [c["name"] for c in checks.values() if c["status"] == "failed"] == [name]
    assert list(checks) == COMPUTER + MACHINE


def test_what_does_not_depend_on_a_failure_goes_on(patient: Patient) -> None:
    patient.user.environment["DEDALUS_BASE_URL"] = patient.closed
    _, checks = patient.doctor("dm-foo")
    states = {name: check["status"] for name, check in checks.items()}
    skipped = ["access", "clock", "session", "machine-options", "gateway", "login"]
    assert states == {
        name: "failed" if name == "api" else "skipped" if name in skipped else "ok"
        for name in COMPUTER + MACHINE
    }
    assert checks["session"]["text"] == "skipped: needs access"


def test_an_unexpected_exception_ends_neither_doctor_nor_the_bundle(
    patient: Patient, tmp_path: Path
) -> None:
    # Python runs it before the program, in whose modules it breaks one check and one part.
    (tmp_path / "sitecustomize.py").write_text(
        "import dcs_proxy.doctor.computer as computer, dcs_proxy.doctor.bundle as bundle\n"
        f"def broken(_): raise ZeroDivisionError({MARKER!r})\n"
        "computer.check_state = bundle._agent = broken\n"
    )
    patient.user.environment["PYTHONPATH"] = str(tmp_path)
    path = tmp_path / "bundle"
    status, checks = patient.doctor("--bundle", str(path))
    assert status == 1
    assert checks["state"] | {"seconds": 0} == {
        "name": "state",
        "status": "failed",
        "text": "internal error (ZeroDivisionError); this is a bug in dcs-proxy",
        "hint": f"report it with the last lines of {patient.user.state}/log",
        "seconds": 0,
    }
    assert checks["ssh-config"]["status"] == "ok" and list(checks) == COMPUTER
    assert patient.user.log().count("internal-error kind=ZeroDivisionError") == 2
    bundle = path.read_text()
    assert "== agent ==\ninternal error (ZeroDivisionError)" in bundle
    assert "== log ==\n2" in bundle
    assert MARKER not in bundle + patient.user.log()


def test_a_person_reads_a_mark_and_a_hint_below(patient: Patient) -> None:
    patient.user.environment["DEDALUS_API_KEY"] = "dsk-wrong"
    lines = patient.lines("dm-foo")
    assert re.fullmatch(r"✓ api +http://\S+ answers \(\d+ ms\)", lines[5])
    assert re.fullmatch(r"✗ access +the API does not accept the key from .*", lines[6])
    assert re.fullmatch(r" +hint: set DEDALUS_API_KEY to a valid key", lines[7])
    assert "- login           skipped: needs gateway" in lines
    patient.user.environment["LC_ALL"] = "C"
    plain = patient.lines("dm-foo")
    assert plain[5].startswith("ok   api ") and plain[6].startswith("FAIL access ")
    assert "".join(plain).isascii()


def test_a_login_for_which_ssh_would_need_the_key_is_not_tried(
    start_emulator: Start, user: User
) -> None:
    user.use(emulator := start_emulator("--machine", "dm-foo"))
    user.settings("reuse_seconds = 0\n")
    status, checks = Patient(user, emulator, "").doctor("dm-foo")
    assert (status, checks["login"]["status"]) == (0, "skipped")
    assert "the key in DEDALUS_API_KEY" in checks["login"]["text"]
    assert checks["login"]["hint"] == "try it yourself: ssh dm-foo true"
    assert all(check["status"] == "ok" for name, check in checks.items() if name != "login")
    assert user.ssh("dm-foo", "true").returncode == 0


def test_a_machine_that_poses_as_us_does_not_hide_its_failure(
    start_emulator: Start, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "dcs-proxy: dm-foo: there is no API key"
    shell = tmp_path / "bin" / "bash"
    shell.parent.mkdir()
    shell.write_text(f"#!/bin/sh\necho '{line}' >&2\nexit 255\n")
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", str(shell.parent), prepend=":")
    user.use(emulator := start_emulator("--machine", "dm-foo"))
    status, checks = Patient(user, emulator, "").doctor("dm-foo")
    assert (status, checks["login"]["status"]) == (1, "failed")
    failure = "ssh dm-foo true failed with exit status 255 and printed"
    assert checks["login"]["text"] == f'{failure} "{line}"'


def test_doctor_asks_for_a_session_anew(start_emulator: Start, user: User) -> None:
    user.use(emulator := start_emulator("--machine", "dm-foo"))
    patient = Patient(user, emulator, "")
    assert user.ssh("dm-foo", "true").returncode == 0
    (session,) = emulator.sessions_created()
    # By another program, within the time in which ssh uses it without asking.
    closed = requests.delete(
        f"{emulator.api}/v1/machines/dm-foo/ssh/{session}",
        headers={"Authorization": f"Bearer {emulator.key}", "Idempotency-Key": "a"},
        timeout=30,
    )
    assert closed.ok
    status, checks = patient.doctor("dm-foo")
    assert (status, checks["login"]["status"]) == (0, "ok"), checks
    assert session not in checks["session"]["text"]
    assert user.ssh("dm-foo", "true").stderr == ""


@pytest.mark.parametrize("password", ["pa'ss\"w/rd@#?x", "hunt2", "p%40ss%2Fword"])
def test_a_proxys_password_is_shown_nowhere(
    patient: Patient, tmp_path: Path, password: str
) -> None:
    user = patient.user
    user.environment["HTTPS_PROXY"] = f"http://me:{password}@proxy.example:3128"
    user.environment["all_proxy"] = f"me:{password}@proxy.example:3128"
    plain = unquote(password)
    with (user.state / "log").open("a") as log:
        log.write(f"2026-01-01T00:00:00.000Z [1/1] api said={password} and={plain}\n")
    bundle = tmp_path / "bundle"
    lines = "\n".join(patient.lines("--bundle", str(bundle)))
    for text in (lines, bundle.read_text()):
        assert "http://[masked]@proxy.example:3128" in text
        for form in {password, plain, quote(plain, safe=""), repr(password)[1:-1]}:
            assert form not in text


def test_proxy_variables_are_shown_without_passwords(patient: Patient) -> None:
    patient.user.environment["HTTPS_PROXY"] = "http://me:hunter2@proxy.example:3128"
    (line,) = [line for line in patient.lines() if " api " in line]
    assert "HTTPS_PROXY=http://[masked]@proxy.example:3128" in line
    assert "hunter2" not in line and "not used for loopback" in line


def test_doctor_says_what_an_editor_would_miss(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    from tests.support.connect_proxy import connect_proxy

    with connect_proxy() as proxy:
        emulator = start_emulator("--machine", "dm-foo", "--tls", str(tmp_path / "tls.pem"),
                                  "--tls-name", "api.test")  # fmt: skip
        emulator.api = emulator.api.replace("localhost", "api.test")
        user.environment |= {"REQUESTS_CA_BUNDLE": str(tmp_path / "tls.pem"),
                             "HTTPS_PROXY": proxy.url}  # fmt: skip
        patient = Patient(user.use(emulator), emulator, "")
        status, checks = patient.doctor()
        assert status == 0, checks
        assert checks["api"]["text"].endswith("variables, so set proxy and ca_file")
        assert checks["key"]["text"].endswith("dcs-proxy login stores the key for them")
        user.settings(f'proxy = "{proxy.url}"\nca_file = "{tmp_path}/tls.pem"\n')
        assert "editors" not in patient.doctor()[1]["api"]["text"]


def test_a_bundle_holds_what_a_report_needs_and_no_secret(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--api-key-file", key_file(tmp_path, MARKER))
    user.use(emulator)
    patient = Patient(user, emulator, "")
    for name in ("HTTPS_PROXY", "http_proxy"):
        user.environment[name] = f"http://me:{MARKER}-{name}@proxy.example:3128"
    user.environment["ALL_PROXY"] = f"socks5://x/?token={MARKER}-query"
    user.environment["DEDALUS_ORG_ID"] = f"org-{MARKER}"
    (user.root / "key").write_text(f"{MARKER}-of-the-file\n")
    user.settings(f'key_file = "{user.root}/key"\n')
    patient.above(f"Host dm-*\n    SetEnv TOKEN={MARKER}\n    ProxyCommand nc --auth {MARKER}\n")
    with (user.state / "log").open("a") as log:
        log.write(f"2026-01-01T00:00:00.000Z [1/1] api Authorization: Bearer {MARKER[4:]}\n")
        log.write(f"2026-01-01T00:00:00.000Z [1/1] key {MARKER}-of-the-file\n")
    bundle = tmp_path / "bundle"
    lines = patient.lines("dm-foo", "--bundle", str(bundle))
    assert bundle.stat().st_mode & 0o777 == 0o600
    text = bundle.read_text()
    assert MARKER not in text and MARKER[4:] not in text and "marker" not in text
    assert all(MARKER not in line for line in lines)
    for title in ("versions", "checks", "environment", "settings", "sessions", "agent", "block",
                  "ssh -G", "log"):  # fmt: skip
        _, found, part = text.partition(f"== {title} ==\n")
        assert found and part.partition("\n== ")[0].strip(), title
    for told in ("OpenSSH_", "DEDALUS_API_KEY set", "wake_seconds = 300", "setenv [masked]",
                 "failed  options: ProxyCommand is nc", "proxycommand nc [masked]",
                 "proxyusefdpass yes", " api method=GET "):  # fmt: skip
        assert told in text, told


def test_a_bundle_can_be_read_on_a_terminal(patient: Patient, tmp_path: Path) -> None:
    user = patient.user
    evil = "\x1b]0;t\x07\x9b31m\u202e\x1b]8;;http://x\x1b\\\r"
    with (user.state / "log").open("a") as log:
        log.write(f"2026-01-01T00:00:00.000Z [1/1] api {evil}\n")
    patient.above(f"Host {evil.encode().decode('latin-1')}\n    Bad{evil} x\n")
    user.environment["LANG"] = user.environment["TERM"] = f"C{evil}"
    path = tmp_path / "bundle"
    patient.lines("--bundle", str(path))
    lines = path.read_bytes().decode().split("\n")
    assert all(line.replace("\t", "").isprintable() for line in lines), lines
    assert any(" api ?" in line for line in lines)


def test_a_bundle_overwrites_nothing(patient: Patient) -> None:
    path = patient.user.root / "precious"
    path.write_text("mine\n")
    done = patient.user.proxy("doctor", "--bundle", str(path))
    assert done.returncode == 2 and done.stdout == ""
    assert "precious already exists" in done.stderr
    assert path.read_text() == "mine\n"


def test_a_bundle_is_written_though_nothing_works(patient: Patient, tmp_path: Path) -> None:
    patient.user.settings(f'base_url = "https://{MARKER}@api.example"\n')
    del patient.user.environment["DEDALUS_BASE_URL"]
    patient.user.config.write_text("Host mine\n")
    patient.user.state.chmod(0o770)
    patient.user.environment["PATH"] = os.fspath(tmp_path)
    bundle = tmp_path / "bundle"
    patient.doctor("--bundle", str(bundle))
    text = bundle.read_text()
    assert "failed  settings: " in text and "failed  state: " in text and MARKER not in text
