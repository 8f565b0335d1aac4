from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dcs_proxy
from dcs_proxy.commands import config_ssh
from dcs_proxy.commands.config_ssh import _program_warnings, _report
from dcs_proxy.local import trusted_file
from dcs_proxy.local.programs import Output
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.config_text import Program, listed_hosts
from dcs_proxy.openssh.shell import Shell
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.session.directory import read_ssh_configs
from tests.support.fake_api import Answer
from tests.unit.commands.conftest import Commands, Done


@pytest.mark.parametrize(
    ("place", "is_temporary"),
    [
        ("/home/me/.cache/uv/archive-v0/x1/lib/python3.12/site-packages", True),
        ("/var/tmp/uv/environments-v2/dcs-proxy-1/lib", True),
        ("/home/me/.local/pipx/.cache/0a1b/lib", True),
        ("/home/me/.cache/pipx/0a1b/lib", True),
        ("/home/me/.local/share/uv/tools/dcs-proxy/lib", False),
        ("/home/me/.local/share/pipx/venvs/dcs-proxy/lib", False),
        ("/tmp/checkout", False),
        ("/usr/lib/python3/dist-packages", False),
    ],
)
def test_a_program_that_nothing_has_installed_is_named(place: str, is_temporary: bool) -> None:
    start = f"{place}/dcs_proxy/start.py"
    warnings = list(_program_warnings(Program(("/usr/bin/python3", "-I", "-S", start), "/s")))
    assert bool(warnings) is is_temporary
    assert all(start in line or "pipx or uv tool" in line for line in warnings)


@pytest.mark.parametrize(
    ("mode", "is_refused"), [(0o600, False), (0o644, False), (0o620, True), (0o602, True)]
)
def test_a_file_that_ssh_will_refuse_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    is_refused: bool,
) -> None:
    monkeypatch.setattr(trusted_file, "_is_private_group", lambda gid, uid: False)
    path = tmp_path / "config"
    path.touch()
    path.chmod(mode)
    _report(str(path), True, 1)
    shown = capsys.readouterr()
    assert shown.out == f"dcs-proxy: {path}: written, 1 machine listed\n"
    assert (f"hint: chmod go-w {path}" in shown.err) is is_refused
    assert (f"dcs-proxy: {path} " in shown.err and "ssh will refuse it" in shown.err) is is_refused


class Ssh:
    """Stands for ssh: it refuses a config that has one of the words `refused`."""

    def __init__(self) -> None:
        self.refused: dict[bytes, str] = {}
        self.commands: list[list[str]] = []
        self.reads: list[str] = []
        self.is_silent = False

    def run(self, command: list[str]) -> Output | None:
        self.commands.append(command)
        if self.is_silent:
            return None
        if "-v" in command:
            lines = [f"debug1: Reading configuration data {path}" for path in self.reads]
            return Output(0, b"", "\n".join(lines).encode())
        path = Path(command[3])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        said = [text for word, text in self.refused.items() if word in path.read_bytes()]
        return Output(255 if said else 0, b"", "".join(said).replace("FILE", str(path)).encode())


@pytest.fixture
def ssh(monkeypatch: pytest.MonkeyPatch) -> Ssh:
    """The ssh in PATH, which is new enough for everything, and shells that print nothing."""
    found = Ssh()
    client = Client("/usr/bin/ssh", "OpenSSH_9.6p1", Version(9, 6))
    monkeypatch.setattr(config_ssh, "find_client", lambda: client)
    monkeypatch.setattr(config_ssh, "_run_ssh", found.run)
    monkeypatch.setattr(config_ssh, "try_shells", lambda environment: [Shell("/bin/sh")])
    monkeypatch.setattr(config_ssh, "passwd_home", lambda: os.environ["HOME"])
    return found


def config(commands: Commands) -> Path:
    return commands.home / ".ssh" / "config"


def test_the_block_is_written_with_what_it_needs(commands: Commands, ssh: Ssh) -> None:
    commands.configure('[aliases]\ndm-web = "dm-b"\n')
    commands.has("dm-b", "dm-a", "dm-10", "dm-9", {"machine_id": "dm-old", "phase": "destroyed"})
    config(commands).write_text("Host own\n")
    config(commands).chmod(0o600)
    done = commands("config-ssh")
    assert done == Done(
        0,
        f"dcs-proxy: {config(commands)}: written, 4 machines listed\ndcs-proxy: try it: ssh dm-9\n",
        "",
    )
    assert listed_hosts(config(commands).read_text()) == ["dm-9", "dm-10", "dm-a", "dm-web"]
    assert "\nHost own\n" in config(commands).read_text()
    assert "ProxyUseFdpass yes" in config(commands).read_text()
    assert read_ssh_configs(commands.state.path) == [str(config(commands))]
    launcher, known = (Path(commands.state.file(name)) for name in ("launcher", "known_hosts"))
    assert f"--home {commands.state.path}" in launcher.read_text().replace("'", "")
    for name in ("dm-9", "dm-b", "dm-web"):
        assert re.search(rf"(^|,){name}[, ]", known.read_text(), re.MULTILINE)
    assert not Path(commands.state.file("config-ssh.tmp")).exists()
    assert [command[-1] for command in ssh.commands] == ["dm-dcs-proxy-doctor"] * 2
    again = commands("config-ssh").out.splitlines()
    assert again[0].endswith(": already up to date, 4 machines listed")
    assert len(again) == 2
    # As after a move to another virtual environment, which changes the launcher alone.
    launcher.write_text(launcher.read_text().replace("start.py", "elsewhere/start.py"))
    moved = commands("config-ssh").out.splitlines()
    assert (moved[0], moved[2]) == (again[0], again[1])
    start = Path(dcs_proxy.__file__).with_name("start.py")
    assert moved[1] == f"dcs-proxy: ssh now runs {start}"


def test_a_dry_run_shows_the_difference_and_changes_nothing(commands: Commands, ssh: Ssh) -> None:
    commands.has("dm-a")
    missing = commands("config-ssh", "--dry-run")
    assert (missing.code, missing.err, config(commands).exists()) == (0, "", False)
    assert "+Host dm-a" in missing.out.splitlines()
    config(commands).write_text("Host own\n")
    done = commands("config-ssh", "--dry-run")
    assert (done.code, done.err, ssh.commands) == (0, "", [])
    assert "+Host dm-a" in done.out.splitlines() and " Host own" in done.out.splitlines()
    assert config(commands).read_text() == "Host own\n"
    assert read_ssh_configs(commands.state.path) == []
    assert not Path(commands.state.file("launcher")).exists()


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_config_that_others_could_exchange_changes_and_shows_nothing(
    commands: Commands, ssh: Ssh, words: tuple[str, ...]
) -> None:
    commands.has("dm-a")
    shared = commands.home / "shared"
    shared.mkdir()
    (shared / "config").write_text("Host own\n")
    shared.chmod(0o777)
    done = commands("config-ssh", *words, "--ssh-config", str(shared / "config"))
    assert (done.code, done.out, ssh.commands) == (3, "", [])
    assert str(shared) in done.err.splitlines()[0]
    assert not Path(commands.state.file("launcher")).exists()
    assert (shared / "config").read_text() == "Host own\n"


def test_removing_restores_the_file(commands: Commands, ssh: Ssh) -> None:
    assert commands("config-ssh", "--remove") == Done(
        0, f"dcs-proxy: {config(commands)}: there was no block\n", ""
    )
    assert not (commands.home / ".ssh" / "dcs-proxy").exists(), "not made to be locked"
    for text in (None, "Host own", "Host own\n"):
        config(commands).unlink(missing_ok=True)
        if text is not None:
            config(commands).write_text(text)
        assert commands("config-ssh").code == 0
        assert commands("config-ssh", "--remove") == Done(
            0, f"dcs-proxy: {config(commands)}: block removed\n", ""
        )
        assert (config(commands).read_text() if text else None) == text
        assert config(commands).exists() is (text is not None)


def test_settings_of_vs_code_are_json_and_why_is_not(commands: Commands, ssh: Ssh) -> None:
    commands.configure("wake_seconds = 77\n")
    done = commands("config-ssh", "--vscode")
    assert json.loads(done.out) == {
        "remote.SSH.connectTimeout": 77, "remote.SSH.remotePlatform": {"dm-*": "linux"}
    }  # fmt: skip
    assert all(line.startswith("dcs-proxy: ") for line in done.err.splitlines())
    assert len(done.err.splitlines()) == 3
    assert not config(commands).exists()


def test_without_the_api_the_machines_in_the_file_stay_and_aliases_are_added(
    commands: Commands, ssh: Ssh
) -> None:
    commands.has("dm-b", "dm-a", "dm-c")
    assert commands("config-ssh").code == 0
    commands.configure('listed = ["dm-a", "dm-web", "dm-www"]\n[aliases]\ndm-web = "dm-x"\n')
    commands.api.answers = [Answer(403)]
    done = commands("config-ssh")
    assert done.code == 0
    assert listed_hosts(config(commands).read_text()) == ["dm-a", "dm-web"]
    assert done.out.splitlines()[-1] == "dcs-proxy: try it: ssh dm-a"
    assert done.err.splitlines()[-1] == (
        "dcs-proxy: ssh works for every machine, listed or not; to list new ones for editors and "
        "completion, run config-ssh again later"
    )
    assert done.err.startswith("dcs-proxy: ")
    known = Path(commands.state.file("known_hosts")).read_text()
    assert "dm-c" in known, "a bridge serves machines that no config lists"


def test_without_a_key_the_next_step_is_to_store_one(commands: Commands, ssh: Ssh) -> None:
    commands.api.answers = [Answer(401)]
    done = commands("config-ssh")
    assert done.out.splitlines() == [
        f"dcs-proxy: {config(commands)}: written, 0 machines listed",
        "dcs-proxy: next, store your API key: dcs-proxy login",
    ]
    commands.api.answers = [Answer(403)]
    assert commands("config-ssh").out.splitlines()[-1] == "dcs-proxy: try it: ssh dm-NAME"
    commands.state.save_machines([MachineName("dm-seen")])
    assert commands("config-ssh").out.splitlines()[-1] == "dcs-proxy: try it: ssh dm-seen"


def test_another_file_is_named_in_what_to_try(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.has("dm-a", "Web_1")
    monkeypatch.setattr(config_ssh, "passwd_home", lambda: "/home/other")
    path = commands.home / "my config"
    done = commands("config-ssh", "--ssh-config", str(path))
    assert done.out.splitlines() == [
        f"dcs-proxy: {path}: written, 1 machine listed",
        f"dcs-proxy: try it: ssh -F '{path}' dm-a",
    ]
    assert done.err.startswith('dcs-proxy: ssh cannot name the machine "Web_1": ')
    assert len(done.err.splitlines()) == 1
    assert (stat.S_IMODE(path.stat().st_mode), config(commands).exists()) == (0o600, False)


def test_a_config_that_ssh_refuses_is_not_written(commands: Commands, ssh: Ssh) -> None:
    config(commands).write_text("Host own\n")
    config(commands).chmod(0o600)
    ssh.refused = {b"ProxyCommand": "first line\nFILE line 3: Bad option\n"}
    done = commands("config-ssh")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        "dcs-proxy: /usr/bin/ssh refuses the block, so nothing was changed: "
        '"the config line 3: Bad option"',
        "dcs-proxy: hint: see whether another ssh comes first in PATH; report it with: ssh -V",
    ]
    assert config(commands).read_text() == "Host own\n"
    assert not Path(commands.state.file("config-ssh.tmp")).exists()
    # The user's own mistake is no reason to stop.
    hint = "dcs-proxy: hint: correct it; until then, ssh connects to no host"
    for ending in ("", "FILE: terminating, 1 bad configuration options\n"):
        ssh.refused = {b"own": f"FILE line 1: Bad option\n{ending}"}
        done = commands("config-ssh")
        said = "dcs-proxy: ssh cannot read your config: the config line 1: Bad option"
        assert (done.code, done.err.splitlines()) == (0, [said, hint])
    ssh.refused = {b"own": "FILE: terminating, 1 bad configuration options\n"}
    assert "the config: terminating, 1 bad" in commands("config-ssh").err
    ssh.refused = {b"own": ""}
    said = "dcs-proxy: ssh cannot read your config: exit status 255"
    assert commands("config-ssh").err.splitlines() == [said, hint]
    ssh.is_silent = True
    said = "dcs-proxy: ssh cannot read your config: no answer after 30 s"
    assert commands("config-ssh").err.splitlines() == [said, hint]


def test_an_interrupt_leaves_no_copy_of_the_config_behind(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_command: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config_ssh, "_run_ssh", interrupt)
    with pytest.raises(KeyboardInterrupt):
        config_ssh._ssh_error("ssh", commands.state, b"Host own\n")
    assert not Path(commands.state.file("config-ssh.tmp")).exists()


def test_a_warning_of_ssh_is_no_refusal(commands: Commands, ssh: Ssh, tmp_path: Path) -> None:
    ssh.run = lambda command: Output(0, b"", b"Deprecated option")  # type: ignore[method-assign]
    assert config_ssh._ssh_error("ssh", commands.state, b"") == ""


@pytest.mark.parametrize(
    ("shell", "said", "hands_over"),
    [
        (Shell("/bin/bash", output="hello"),
         ['/bin/bash prints "hello" when it starts, which ends up in every connection',
          "hint: look at ~/.bashrc, or the file in BASH_ENV; until that is gone, connections are "
          "relayed"], False),
        (Shell("/bin/false", problem="does not run commands (status 1)"),
         ["/bin/false, with which ssh runs commands, does not run commands (status 1)",
          "hint: set SHELL to a shell that runs commands, such as /bin/sh"], True),
    ],
)  # fmt: skip
def test_a_shell_that_is_in_the_way_is_told(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch,
    shell: Shell, said: list[str], hands_over: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(config_ssh, "try_shells", lambda environment: [Shell("/bin/sh"), shell])
    done = commands("config-ssh")
    assert (done.code, done.err.splitlines()) == (0, [f"dcs-proxy: {line}" for line in said])
    assert ("ProxyUseFdpass yes" in config(commands).read_text()) is hands_over


def test_an_ssh_that_ignores_home_is_told(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_ssh, "passwd_home", lambda: "/home/the other")
    ssh.reads = ["/etc/ssh/ssh_config", "/home/the other/.ssh/config"]
    assert commands("config-ssh").err.splitlines() == [
        "dcs-proxy: ssh reads /home/the other/.ssh/config whatever HOME says, not this file",
        "dcs-proxy: hint: dcs-proxy config-ssh --ssh-config '/home/the other/.ssh/config'",
    ]
    assert ssh.commands[-1] == ["/usr/bin/ssh", "-v", "-G", "dm-dcs-proxy-doctor"]
    ssh.reads.append(str(config(commands)))
    assert commands("config-ssh").err == ""
    ssh.reads.clear()
    (commands.home / "link").symlink_to(commands.home)
    for home in (None, str(commands.home / "link")):
        monkeypatch.setattr(config_ssh, "passwd_home", lambda home=home: home)
        assert commands("config-ssh").err == ""


def test_what_an_old_ssh_lacks_is_told(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client("/usr/bin/ssh", "OpenSSH_8.2p1", Version(8, 2))
    monkeypatch.setattr(config_ssh, "find_client", lambda: client)
    assert commands("config-ssh").err == (
        "dcs-proxy: OpenSSH 8.2: the agent cannot restrict a certificate to the gateway's host key "
        "(OpenSSH 8.9 can)\n"
    )
    assert "# for OpenSSH 8.2" in config(commands).read_text()


def test_a_program_that_ssh_cannot_start_is_refused(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("/usr/bin/python3", "/tmp/dcs.pyz/dcs_proxy/start.py")
    monkeypatch.setattr(config_ssh, "find_program", lambda *_: Program(words, "/s"))
    done = commands("config-ssh")
    assert (done.code, done.err.splitlines()[0]) == (
        3, f"dcs-proxy: ssh cannot start this dcs-proxy, because there is no file {words[-1]}"
    )  # fmt: skip
    assert not config(commands).exists()


def test_nobody_else_edits_the_config_meanwhile(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    edit = config_ssh.config_file.edit

    @contextlib.contextmanager
    def lock(path: str, what: str = "") -> Iterator[None]:
        held.append(path)
        yield
        held.clear()

    def locked_edit(*arguments: Any) -> bool:
        assert held == [commands.state.file("config-ssh.lock")]
        return edit(*arguments)

    monkeypatch.setattr(config_ssh.config_file, "edit_lock", lock)
    monkeypatch.setattr(config_ssh.config_file, "edit", locked_edit)
    assert commands("config-ssh").code == 0
    assert commands("config-ssh", "--remove").code == 0
    assert held == []


def test_a_slow_ssh_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def run(command: list[str], *, environment: object, limit_s: float) -> Output:
        assert environment == {**os.environ, "SHELL": "/bin/sh"}
        limits.append(limit_s)
        raise TimeoutError

    monkeypatch.setattr(config_ssh, "run_program", run)
    assert config_ssh._run_ssh(["ssh"]) is None
    assert limits == [30]


def test_a_config_that_is_a_link_is_read_and_stays_one(commands: Commands, ssh: Ssh) -> None:
    own = commands.home / "dotfiles"
    own.write_text("Host own\n")
    own.chmod(0o600)
    config(commands).symlink_to(own)
    assert " Host own" in commands("config-ssh", "--dry-run").out.splitlines()
    assert commands("config-ssh").code == 0
    assert config(commands).is_symlink() and "Host own\n" in own.read_text()


def test_the_names_in_the_file_are_known_to_the_bridge_and_in_order(
    commands: Commands, ssh: Ssh
) -> None:
    commands.has("dm-10", "dm-9", "dm-b")
    assert commands("config-ssh").code == 0
    Path(commands.state.file("machines")).unlink()
    commands.api.answers = [Answer(403)]
    done = commands("config-ssh")
    assert len(done.err.splitlines()) == 3 and "dcs-proxy: hint: " in done.err
    assert listed_hosts(config(commands).read_text()) == ["dm-9", "dm-10", "dm-b"]
    assert "dm-10" in Path(commands.state.file("known_hosts")).read_text()


def test_what_to_try_is_a_machine_that_is_listed(commands: Commands, ssh: Ssh) -> None:
    commands.configure('listed = ["dm-b"]\n')
    commands.has("dm-a", "dm-b")
    assert commands("config-ssh").out.splitlines()[-1] == "dcs-proxy: try it: ssh dm-b"
    path = commands.state.file("config-ssh.tmp")
    assert ssh.commands == [["/usr/bin/ssh", "-G", "-F", path, "dm-dcs-proxy-doctor"]] * 2


@pytest.mark.parametrize("at", [0, -1])
def test_a_program_in_a_cache_is_told_by_every_path(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    cache = commands.home / ".cache" / "uv"
    cache.mkdir(parents=True)
    (cache / "start.py").touch()
    (commands.home / "link").symlink_to(cache)
    words = ["/usr/bin/python3", "-I", __file__]
    words[at] = f"{commands.home}/link/start.py"
    program = Program(tuple(words), commands.state.path)
    monkeypatch.setattr(config_ssh, "find_program", lambda *_: program)
    assert commands("config-ssh").err.splitlines() == [
        f"dcs-proxy: this dcs-proxy is in a cache that may be emptied: {words[-1]}",
        "dcs-proxy: hint: install it with pipx or uv tool, then run config-ssh again",
    ]


def test_an_ssh_that_does_not_say_what_it_reads_is_told(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_ssh, "passwd_home", lambda: "/home/other")
    ssh.is_silent = True
    assert "whatever HOME says" in commands("config-ssh").err
    ssh.is_silent = False
    (commands.home / "link").symlink_to(commands.home)
    monkeypatch.setattr(config_ssh, "passwd_home", lambda: str(commands.home))
    monkeypatch.setenv("HOME", str(commands.home / "link"))
    assert commands("config-ssh").err == ""


def test_what_ssh_says_may_be_any_bytes(
    commands: Commands, ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Output(255, b"", b"first\nbad \xff\x1b line\r\n\n")
    monkeypatch.setattr(config_ssh, "_run_ssh", lambda command: said)
    assert config_ssh._ssh_error("ssh", commands.state, b"") == "bad \ufffd line"
