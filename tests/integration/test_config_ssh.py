"""dcs-proxy config-ssh, and what the real ssh makes of what it writes."""

from __future__ import annotations

import functools
import json
import os
import re
import string
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcs_proxy.cli import main
from dcs_proxy.local.lock import try_lock
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_file import install
from dcs_proxy.openssh.config_text import Program, render_end, render_top
from dcs_proxy.openssh.version import OLDEST, Version, find_client
from tests.support.emulator import Emulator
from tests.support.processes import clean_environment
from tests.support.user import User, insert_between_blocks

Start = Callable[..., Emulator]


def test_running_it_twice_changes_nothing(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    before = (user.config.read_bytes(), user.config.stat().st_mtime_ns)
    again = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert again.returncode == 0
    assert "already up to date, 1 machine listed" in again.stdout
    assert (user.config.read_bytes(), user.config.stat().st_mtime_ns) == before


def test_dry_run_shows_and_changes_nothing(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    user.config.write_text("Host mine\n")
    shown = user.proxy("config-ssh", "--dry-run", "--ssh-config", str(user.config))
    assert "+Host dm-foo\n" in shown.stdout and " Host mine\n" in shown.stdout
    assert user.config.read_text() == "Host mine\n"


def test_vscode_prints_settings_that_doctor_accepts(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator, config=False)
    settings = user.home / ".config" / "Code" / "User" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"remote.SSH.connectTimeout": 15}')
    assert vscode_check(user)["status"] == "failed"
    user.settings("wake_seconds = 240")
    printed = user.proxy("config-ssh", "--vscode", "--ssh-config", str(user.config))
    assert json.loads(printed.stdout) == {
        "remote.SSH.connectTimeout": 240,
        "remote.SSH.remotePlatform": {"dm-*": "linux"},
    }
    reasons = printed.stderr
    assert "remote.SSH.connectTimeout: a machine may take 240 s to wake" in reasons
    assert "remote.SSH.remotePlatform: machines run Linux" in reasons
    assert not user.config.exists()
    settings.write_text(printed.stdout)
    assert vscode_check(user) | {"seconds": 0} == {
        "name": "vscode", "status": "ok", "text": "VS Code waits 240 s", "hint": "", "seconds": 0,
    }  # fmt: skip


def vscode_check(user: User) -> dict[str, object]:
    checks = json.loads(user.proxy("doctor", "--json").stdout)["checks"]
    return next(check for check in checks if check["name"] == "vscode")


@pytest.mark.parametrize("text", [None, "", "Host mine\n    User me\n", "Host mine", "\r\n# x\r\n"])
def test_remove_gives_the_file_back_to_the_byte(
    start_emulator: Start, user: User, text: str | None
) -> None:
    if text is not None:
        user.config.write_bytes(text.encode())
        user.config.chmod(0o640)
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    removed = user.proxy("config-ssh", "--remove", "--ssh-config", str(user.config))
    assert (removed.returncode, removed.stderr) == (0, "")
    if text is None:
        assert not user.config.exists()
    else:
        assert user.config.read_bytes() == text.encode()
        assert user.config.stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_into_dotfiles_stays_one(start_emulator: Start, user: User) -> None:
    target = user.root / "dotfiles" / "config"
    target.parent.mkdir()
    target.write_text("Host mine\n")
    user.config.symlink_to("dotfiles/config")
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.config.is_symlink() and "dcs-proxy" in target.read_text()
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_the_default_is_the_users_own_config(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    assert user.proxy("config-ssh").returncode == 0
    config = user.home / ".ssh" / "config"
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.parent.stat().st_mode & 0o777 == 0o700


def test_an_edited_block_is_left_alone_and_explained(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    edited = user.config.read_text().replace("UpdateHostKeys no", "UpdateHostKeys yes")
    user.config.write_text(edited)
    for arguments in ([], ["--remove"], ["--dry-run"]):
        done = user.proxy("config-ssh", *arguments, "--ssh-config", str(user.config))
        assert done.returncode == 3
        assert "line 1 of the ssh config was edited by hand; nothing was changed" in done.stderr
    assert user.config.read_text() == edited


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "unmarked"])
def test_a_file_that_another_program_has_spoiled_is_named_and_left(
    start_emulator: Start, user: User, form: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    text = user.config.read_text()
    if form == "unmarked":
        spoiled = re.sub(r"(?m)^#.*\n", "", text).encode()
        said = "has lost its # >>> and # <<< lines; nothing was changed"
    else:
        spoiled = text.encode(form)
        said = "the ssh config is not plain UTF-8 text, so ssh cannot read it; nothing was changed"
    user.config.write_bytes(spoiled)
    for arguments in ([], ["--remove"], ["--dry-run"]):
        done = user.proxy("config-ssh", *arguments, "--ssh-config", str(user.config))
        assert done.returncode == 3 and said in done.stderr and "hint: " in done.stderr
    assert user.config.read_bytes() == spoiled


def test_a_block_pasted_twice_becomes_one(start_emulator: Start, user: User) -> None:
    user.config.write_text("Host mine\n")
    user.use(start_emulator("--machine", "dm-foo"))
    once = user.config.read_text()
    top = once.partition("Host mine\n")[0]
    user.config.write_text(top + once)
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    again = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert again.returncode == 0 and user.config.read_text() == once


def hosts_in(config: Path) -> list[str]:
    lines = config.read_text().splitlines()
    return [line.removeprefix("Host ") for line in lines if re.match("Host dm-[^*]+$", line)]


@pytest.mark.parametrize(
    ("listed", "hosts"),
    [
        ('"all"', ["dm-ci-1", "dm-ci-2", "dm-foo", "dm-web"]),
        ('"none"', []),
        ('["web", "dm-foo"]', ["dm-foo", "dm-web"]),
        ('["dm-ci-?"]', ["dm-ci-1", "dm-ci-2"]),
        ('["dm-bar"]', ["dm-web"]),
    ],
)
def test_the_setting_listed_selects_machines(
    start_emulator: Start, user: User, listed: str, hosts: list[str]
) -> None:
    names = ("dm-foo", "dm-bar", "dm-ci-1", "dm-ci-2")
    emulator = start_emulator(*(word for name in names for word in ("--machine", name)))
    user.settings(f'listed = {listed}\n[aliases]\ndm-web = "dm-bar"\n')
    user.use(emulator)
    assert hosts_in(user.config) == hosts
    written = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert f"\ndcs-proxy: try it: ssh -F '{user.config}' dm-" in written.stdout
    for host in ("dm-foo", "dm-web", "dm-ci-1"):
        assert user.ssh(host, "echo in").stdout == "in\n"
    # Machines that are left out on purpose are not missing.
    assert "not listed" not in user.proxy("list").stderr
    user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    again = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert again.returncode == 0 and hosts_in(user.config) == hosts


def test_machines_missing_from_any_file_that_config_ssh_wrote_are_reported(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    assert user.proxy("config-ssh").returncode == 0
    emulator.control("PUT", "machines/dm-new", phase="running")
    missing = "dcs-proxy: 1 machine is not listed in"
    named = f"{missing} {user.config}: run dcs-proxy config-ssh --ssh-config '{user.config}'"
    default = f"{missing} your ssh config: run dcs-proxy config-ssh"
    assert user.proxy("list").stderr.splitlines() == [default, named]
    assert user.proxy("config-ssh", "--ssh-config", str(user.config)).returncode == 0
    for command in (["list"], ["wake", "dm-foo"]):
        assert user.proxy(*command).stderr.splitlines() == [default]
    user.config.unlink()
    assert user.proxy("config-ssh").returncode == 0
    assert user.proxy("list").stderr == ""


def test_machines_are_listed_and_known_ones_kept_without_the_api(
    start_emulator: Start, user: User
) -> None:
    names = [f"dm-m{number:03}" for number in range(120)]
    emulator = start_emulator(*(word for name in names for word in ("--machine", name)))
    user.settings('[aliases]\ndm-web = "dm-m000"\n')
    user.use(emulator)
    hosts = [line.removeprefix("Host ") for line in user.config.read_text().splitlines()
             if line.startswith("Host dm-") and "*" not in line]  # fmt: skip
    assert hosts == sorted([*names[1:], "dm-web"])
    done = user.ssh("dm-web", "echo $DCS_MACHINE")
    assert done.stdout == "dm-m000\n", done.stderr
    before = user.config.read_bytes()
    user.environment["DEDALUS_BASE_URL"] = "http://127.0.0.1:1"
    again = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert again.returncode == 0
    assert "cannot be reached" in again.stderr and "works for every machine" in again.stderr
    assert user.config.read_bytes() == before


def test_without_an_api_key_the_block_still_works(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    done = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert done.returncode == 0 and "there is no API key" in done.stderr
    last = "dcs-proxy: next, store your API key: dcs-proxy login"
    assert done.stdout.splitlines()[-1] == last
    user.use(emulator, config=False)
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def options_of(config: Path, host: str) -> list[str]:
    done = subprocess.run(
        ["ssh", "-G", "-F", str(config), host],
        capture_output=True, text=True, check=False, env=clean_environment(),
    )  # fmt: skip
    return [str(done.returncode), *done.stdout.splitlines()]


USERS_LINES = st.lists(
    st.sampled_from(
        ["Host *", "Host mine", "Host dm-*", "Host !mine *", "Match host mine", "Match all",
         "    User me", "    ForwardAgent yes", "    IdentityFile ~/.ssh/k", "    Port 2222",
         "    ProxyJump hop", "    StrictHostKeyChecking no", "# words", "", "    SendEnv A"]
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(USERS_LINES, st.sampled_from(["\n", ""]), st.sampled_from([OLDEST, find_client().version]))
def test_ssh_reads_every_other_host_as_before(
    tmp_path: Path, lines: list[str], last: str, version: Version
) -> None:
    before = tmp_path / "before"
    before.write_text("\n".join(lines) + last)
    after = tmp_path / "after"
    program = Program(("/nowhere/dcs-proxy",), str(tmp_path / "state"))
    top, end = render_top(program, [], version), render_end(program, version)
    after.write_bytes(install(before.read_bytes(), top, end))
    for host in ("mine", "other.example", "dm-x.corp.example", "xdm-y"):
        assert options_of(after, host) == options_of(before, host)


def test_a_damaged_snippet_never_breaks_another_host(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo", "--machine", "dm-bar"))
    assert user.ssh("dm-foo", "true").returncode == 0
    snippet = user.state / "hosts" / "dm-foo.conf"
    snippet.write_text(snippet.read_text()[:50])
    other = user.ssh("dm-bar", "echo in")
    assert (other.returncode, other.stdout) == (0, "in\n"), other.stderr
    again = user.ssh("dm-foo", "echo in")
    assert (again.returncode, again.stdout) == (0, "in\n"), again.stderr


def shell_characters() -> list[str]:
    return sorted({*string.punctuation, " ", "\t", "\n"} - {"-"})


@pytest.mark.parametrize("part", ["host", "user"])
def test_no_name_ever_reaches_a_shell(
    start_emulator: Start, user: User, part: str, tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    # A name that is none of ours goes to no name server.
    insert_between_blocks(user.config, "Host *\n    ProxyCommand false\n")
    marks = tmp_path / "marks"  # without a space, for nothing quotes it
    marks.mkdir()
    user.environment["marks"] = str(marks)  # ssh turns host names into lower case
    for number, character in enumerate(shell_characters()):
        touch = f"touch\t$marks/{number}"
        for shape in (f"{character}{touch}{character}", f"'{character}{touch}{character}'",
                      f"$({touch})", f";{touch};"):  # fmt: skip
            name = f"dm-x{shape}" if part == "host" else f"{shape}@dm-foo"
            user.ssh("-o", "BatchMode=yes", "--", name, "true")
    assert os.listdir(marks) == []
    assert not [e for e in emulator.creates() if e["machine"] != "dm-foo"]


def test_no_address_of_a_repository_reaches_a_shell(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    insert_between_blocks(user.config, "Host *\n    ProxyCommand false\n")
    marks = tmp_path / "marks"
    marks.mkdir()
    user.environment |= {
        "marks": str(marks),
        "GIT_SSH_COMMAND": f"ssh -F '{user.config}' -o BatchMode=yes",
    }
    for number, character in enumerate(shell_characters()):
        touch = f"touch\t$marks/{number}"
        for shape in (f"{character}{touch}{character}", f"'{character}{touch}{character}'"):
            for address in (f"ssh://dm-x{shape}/repo", f"ssh://{shape}@dm-foo/repo",
                            f"dm-x{shape}:repo"):  # fmt: skip
                done = user.run(["git", "clone", "-q", "--", address, "clone"])
                assert done.returncode != 0
    assert os.listdir(marks) == []
    # A name that ends at a slash or colon is one.
    assert {e["machine"] for e in emulator.creates()} <= {"dm-foo", "dm-x"}


def test_no_submodule_runs_anything(start_emulator: Start, user: User, tmp_path: Path) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    insert_between_blocks(user.config, "Host *\n    ProxyCommand false\n")
    mark = tmp_path / "mark"
    user.environment |= {
        "mark": str(mark),
        "GIT_SSH_COMMAND": f"ssh -F '{user.config}' -o BatchMode=yes",
    }
    touch = "touch\t$mark"
    urls = [
        f"ssh://dm-x$({touch})/r", f"ssh://`{touch}`@dm-foo/r", f"ssh://dm-foo:22;{touch};/r",
        f"ssh://-oProxyCommand={touch}/r", f"ssh://-oProxyCommand={touch}@dm-foo/r",
        f"dm-foo:r;{touch}", f"ext::sh -c {touch}",
        f"ssh://dm-foo/-u$({touch})", f"ssh://[dm-foo;{touch}]/r", f"ssh://dm-%24({touch})/r",
    ]  # fmt: skip
    for number, url in enumerate(urls):
        repository = user.root / f"repository{number}"
        assert user.run(["git", "init", "-q", str(repository)]).returncode == 0
        (repository / ".gitmodules").write_text(
            f'[submodule "s"]\n\tpath = s\n\turl = {json.dumps(url)}\n'
        )
        git = ["git", "-C", str(repository)]
        entry = f"160000,{'1' * 40},s"
        assert user.run([*git, "update-index", "--add", "--cacheinfo", entry]).returncode == 0
        done = user.run([*git, "submodule", "update", "--init", "--recursive"])
        assert done.returncode != 0 and "Cloning into" in done.stderr, url
        assert not mark.exists(), url
    assert {e["machine"] for e in emulator.creates()} <= {"dm-foo", "dm-x"}


@pytest.mark.parametrize("option", [(), ("--remove",)])
def test_two_of_them_do_not_edit_at_the_same_time(
    start_emulator: Start, user: User, option: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    user.use(start_emulator("--machine", "dm-foo"))
    before = user.config.read_bytes()
    impatient = functools.partial(config_file.edit_lock, timeout_s=0.1)
    monkeypatch.setattr(config_file, "edit_lock", impatient)
    lock = try_lock(str(user.state / "config-ssh.lock"))
    assert lock is not None
    with lock, mock.patch.dict(os.environ, user.environment, clear=True):
        assert main(["config-ssh", "--ssh-config", str(user.config), *option]) != 0
    said = capsys.readouterr().err
    assert f"another config-ssh (process {os.getpid()}) has held" in said
    assert user.config.read_bytes() == before
