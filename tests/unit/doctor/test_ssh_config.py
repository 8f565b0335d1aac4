"""The checks of the ssh config file: its mode and owner, and our two blocks in it."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.app import Options, find_program
from dcs_proxy.doctor import ssh_config
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.doctor.ssh_config import check_block, check_permissions, read_program
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import NO_MACHINE, Program, render_end, render_top
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.publish.launcher import write_launcher
from dcs_proxy.session.directory import StateDirectory
from tests.support.groups import Groups

VERSION = Version(9, 2)
HOSTS = [MachineName("dm-a"), MachineName("dm-b")]


@given(st.text())
def test_any_block_names_a_program_or_none(text: str) -> None:
    assert read_program(text) is None
    assert read_program(f'Match originalhost x exec "exec {text} prepare %h"') is None
    assert read_program(f'Match originalhost x exec "exec /bin/sh {os.devnull} prepare %h"') is None


@pytest.mark.parametrize(
    ("command", "problem"),
    [("'", ""), ("/a\0b", "the block runs /a\0b, which cannot be read: "), ("", ""),
     ("/gone", "the block runs /gone, which no longer exists")],
)  # fmt: skip
def test_a_damaged_command_in_a_block_names_no_program(command: str, problem: str) -> None:
    top = f'Match originalhost x exec "exec {command} prepare %h"'
    assert read_program(top) is None
    assert ssh_config._wrong_launcher(top).startswith(problem)
    assert bool(ssh_config._wrong_launcher(top)) is bool(problem)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A context whose ssh config has blocks as config-ssh writes them."""
    options = Options(str(tmp_path / "state"))
    found = Context(options, {"HOME": str(tmp_path)}, str(tmp_path / "config"), False, None)
    found.state = StateDirectory(options.state_directory(found.environment))
    found.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", VERSION)
    program = find_program(options, found.environment)
    write_launcher(program)
    write(found, program)
    return found


def write(
    context: Context, program: Program, version: Version = VERSION, *, hands_over: bool = True
) -> None:
    top = render_top(program, HOSTS, version, hands_over=hands_over)
    end = render_end(program, version)
    Path(context.ssh_config).write_bytes(config_file.install(b"Host mine\n", top, end))
    os.chmod(context.ssh_config, 0o600)


@pytest.mark.parametrize(
    ("mode", "is_refused"),
    [(0o600, False), (0o645, False), (0o444, False), (0o620, True), (0o602, True), (0o666, True)],
)
def test_an_ssh_config_that_others_can_change_is_refused_by_ssh(
    context: Context, groups: Groups, mode: int, is_refused: bool
) -> None:
    groups.members = ["another"]
    os.chmod(context.ssh_config, mode)
    check = check_permissions(context)
    assert check.ok is not is_refused
    assert f"mode {mode:04o}" in check.text
    assert check.hint == (f"chmod go-w {context.ssh_config}" if is_refused else "")


@pytest.mark.parametrize(("owner", "is_refused"), [(0, False), (4242, True), (None, False)])
def test_an_ssh_config_of_another_user_is_refused_by_ssh(
    context: Context, monkeypatch: pytest.MonkeyPatch, owner: int | None, is_refused: bool
) -> None:
    uid = 1000 if owner is None else owner
    status = os.stat_result((stat.S_IFREG | 0o600, 1, 1, 1, uid, 0, 0, 0, 0, 0))
    monkeypatch.setattr(config_file, "read", lambda path: (b"", status))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check = check_permissions(context)
    assert check.ok is not is_refused
    if is_refused:
        assert check.text == (
            f"{context.ssh_config} belongs to another user (user id {owner}), so ssh refuses it"
        )
        assert check.hint == f'sudo chown "$(id -un)" {context.ssh_config}'


@pytest.mark.parametrize(
    ("is_default", "said", "is_refused"),
    [
        (True, "Bad owner or permissions on /home/me/.ssh/config", True),
        (True, "", False),
        # ssh does not judge a file that -F names.
        (False, "Bad owner or permissions on /home/me/.ssh/config", False),
    ],
)
def test_ssh_itself_says_whether_it_refuses_what_the_users_own_group_can_change(
    context: Context,
    groups: Groups,
    monkeypatch: pytest.MonkeyPatch,
    is_default: bool,
    said: str,
    is_refused: bool,
) -> None:
    groups.members = ["me"]
    os.chmod(context.ssh_config, 0o664)
    context.is_default_config = is_default
    monkeypatch.setattr(ssh_config, "passwd_home", lambda: os.path.expanduser("~"))
    monkeypatch.setattr(context, "read_options", lambda host: ({}, said))
    check = check_permissions(context)
    path = context.ssh_config
    if is_refused:
        text, hint = f"{path} is writable by its group, so /usr/bin/ssh refuses it", "chmod go-w "
        assert check == failed(text, hint + path)
    else:
        assert check == passed(f"{path}, mode 0664")


def test_an_ssh_config_that_is_missing_is_to_be_written(context: Context) -> None:
    os.unlink(context.ssh_config)
    check = check_permissions(context)
    assert check.ok is False and check.text.endswith("/config does not exist")
    assert check.hint == f"dcs-proxy config-ssh --ssh-config {context.ssh_config}"


def test_a_user_id_without_an_entry_in_the_database_is_named(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_config, "passwd_home", lambda: None)
    assert check_permissions(context) == failed(
        f"user id {os.geteuid()} has no entry in the user database, and ssh needs one",
        "add a line for it to /etc/passwd",
    )


def answers(context: Context, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Let ``ssh -G`` print `command`, with the launcher's path, as the ProxyCommand."""
    launcher = find_program(context.options, context.environment).launcher

    def read(host: str) -> tuple[dict[str, list[str]], str]:
        assert host == NO_MACHINE
        return {"proxycommand": [command.replace("LAUNCHER", launcher)]} if command else {}, ""

    monkeypatch.setattr(context, "read_options", read)


@pytest.mark.parametrize(
    ("command", "is_read"), [("", False), ("nc %h %p", False), ("exec LAUNCHER %h %p", True)]
)
def test_a_home_that_ssh_ignores_is_named_unless_ssh_runs_us(
    context: Context, monkeypatch: pytest.MonkeyPatch, command: str, is_read: bool
) -> None:
    context.is_default_config = True
    monkeypatch.setattr(ssh_config, "passwd_home", lambda: "/elsewhere")
    answers(context, monkeypatch, command)
    refused = failed(
        f"ssh reads /elsewhere/.ssh/config, not {context.ssh_config}: it ignores HOME",
        "dcs-proxy config-ssh --ssh-config /elsewhere/.ssh/config",
    )
    assert check_permissions(context) == (
        passed(f"{context.ssh_config}, mode 0600") if is_read else refused
    )
    context.ssh = None
    assert check_permissions(context) == refused
    # A file that is named has no home to be found in.
    context.is_default_config = False
    assert check_permissions(context).ok


def test_a_path_with_an_apostrophe_is_quoted_in_the_command_to_type(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["dcs-proxy", "config-ssh", "--ssh-config"]
    context.ssh_config = "/no/o'neill's config"
    assert shlex.split(check_permissions(context).hint) == [*command, "/no/o'neill's config"]
    context.is_default_config, context.ssh = True, None
    monkeypatch.setattr(ssh_config, "passwd_home", lambda: "/home/o'neill")
    hint = check_permissions(context).hint
    assert shlex.split(hint) == [*command, "/home/o'neill/.ssh/config"]


def test_the_home_of_the_database_may_be_a_link(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.is_default_config, context.ssh = True, None
    home = tmp_path / "home"
    home.symlink_to(tmp_path)
    for passwd, variable in ((home, tmp_path), (tmp_path, home)):
        monkeypatch.setattr(ssh_config, "passwd_home", lambda path=passwd: str(path))
        monkeypatch.setenv("HOME", str(variable))
        assert check_permissions(context).ok
    os.unlink(context.ssh_config)
    assert check_permissions(context).hint == "dcs-proxy config-ssh"


@pytest.mark.parametrize("hands_over", [True, False])
def test_a_block_as_config_ssh_writes_it_passes(context: Context, hands_over: bool) -> None:
    program = find_program(context.options, context.environment)
    write(context, program, hands_over=hands_over)
    assert check_block(context) == passed(f"{context.ssh_config}: up to date, 2 machines listed")


def test_a_block_for_paths_with_a_percent_sign_passes(tmp_path: Path, context: Context) -> None:
    context.options = Options(str(tmp_path / "100%"))
    context.state = StateDirectory(context.options.state_directory(context.environment))
    program = find_program(context.options, context.environment)
    write_launcher(program)
    write(context, program)
    assert check_block(context).ok


def replace_in_block(context: Context, old: str, new: str) -> None:
    """Edit the top block as an earlier version might have written it: with a valid digest."""
    parts = config_file.parse_blocks(Path(context.ssh_config).read_bytes())
    assert parts.top is not None and parts.end is not None
    top = parts.top.decode()
    assert old in top
    text = config_file.install(parts.own, top.replace(old, new), parts.end.decode())
    Path(context.ssh_config).write_bytes(text)


def launcher(context: Context) -> Path:
    return Path(find_program(context.options, context.environment).launcher)


CHANGES: dict[str, tuple[Callable[[Context], object], str]] = {
    "another Python": (
        lambda c: write_launcher(
            replace(
                find_program(c.options, c.environment), words=("/gone/python", "/gone/start.py")
            )
        ),
        "the block runs /gone/python, which no longer exists",
    ),
    "another program": (
        lambda c: write_launcher(
            replace(find_program(c.options, c.environment), words=("/bin/sh", "/bin/cat"))
        ),
        "the block runs another dcs-proxy: /bin/cat, not /",
    ),
    "another directory for the config": (
        lambda c: write_launcher(
            replace(find_program(c.options, c.environment), config_home="/elsewhere")
        ),
        "the block uses the config in /elsewhere, not /",
    ),
    "an option that this version does not write": (
        lambda c: replace_in_block(c, "StrictHostKeyChecking yes", "StrictHostKeyChecking no"),
        "is not what this version of dcs-proxy writes",
    ),
    "an OpenSSH that can do more": (
        lambda c: setattr(c, "ssh", Client("/usr/bin/ssh", "OpenSSH_8.1", Version(8, 1))),
        "is for OpenSSH 9.2, but /usr/bin/ssh is 8.1",
    ),
    "another program in one word": (
        lambda c: write_launcher(
            replace(find_program(c.options, c.environment), words=("/bin/cat",))
        ),
        "the block runs another dcs-proxy: /bin/cat, not /",
    ),
    "a config file": (
        lambda c: write_launcher(
            replace(find_program(c.options, c.environment), config_file="/a.toml")
        ),
        "the block uses the config file /a.toml, not the default config file",
    ),
    "no config file": (
        lambda c: setattr(c, "options", replace(c.options, config="/a.toml")),
        "the block uses the default config file, not the config file /a.toml",
    ),
    "another state directory": (
        lambda c: setattr(c, "state", StateDirectory(f"{c.ssh_config}.state")),
        "/config.state",
    ),
    "no version": (
        lambda c: replace_in_block(c, "9.2", "nine"),
        "is not what this version of dcs-proxy writes",
    ),
    "bytes that are not UTF-8": (
        lambda c: replace_in_block(c, "StrictHostKeyChecking yes", "StrictHostKeyChecking \udcff"),
        "is not what this version of dcs-proxy writes",
    ),
    "a launcher that others can change": (
        lambda c: launcher(c).chmod(0o722),
        "/launcher is writable by other users",
    ),
    "a launcher that starts nothing": (
        lambda c: launcher(c).write_text("#!/bin/sh\n"),
        "/config is not what this version of dcs-proxy writes",
    ),
    "no launcher": (
        lambda c: os.unlink(Path(c.options.state_directory(c.environment), "launcher")),
        "/launcher, which no longer exists",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_block_that_has_to_be_written_again_is_told(context: Context, what: str) -> None:
    change, text = CHANGES[what]
    change(context)
    check = check_block(context)
    assert check.ok is False
    assert text in check.text
    assert check.hint == f"dcs-proxy config-ssh --ssh-config {context.ssh_config}"


def without(context: Context, kind: str) -> Check:
    """Return the check of the config without one of the blocks."""
    text = Path(context.ssh_config).read_text()
    start = text.index(f"# >>> dcs-proxy {kind}")
    mark = f"# <<< dcs-proxy {kind} <<<\n"
    end = text.index(mark) + len(mark)
    Path(context.ssh_config).write_text(text[:start] + text[end:])
    context.ssh = None
    return check_block(context)


def test_each_block_is_missed(context: Context) -> None:
    text = Path(context.ssh_config).read_text()
    hint = f"dcs-proxy config-ssh --ssh-config {context.ssh_config}"
    assert without(context, "top") == failed(f"{context.ssh_config} has no dcs-proxy block", hint)
    Path(context.ssh_config).write_text(text)
    assert without(context, "end") == failed(
        f"{context.ssh_config} has no second dcs-proxy block, at the end", hint
    )


def test_blocks_may_be_in_a_file_that_the_users_own_includes(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(context, monkeypatch, "exec LAUNCHER %h %p")
    text = Path(context.ssh_config).read_text()
    Path(context.ssh_config).unlink()
    assert check_block(context) == passed(f"in a file that {context.ssh_config} includes")
    Path(context.ssh_config).write_text("Include other\n")
    assert check_block(context) == passed(f"in a file that {context.ssh_config} includes")
    # One block without the other is a mistake even so.
    for kind in ("top", "end"):
        Path(context.ssh_config).write_text(text)
        assert not without(context, kind).ok


@pytest.mark.parametrize(("mode", "has_ssh"), [(0o600, True), (0o664, False)])
def test_ssh_is_asked_only_about_a_file_that_its_group_can_change(
    context: Context, groups: Groups, monkeypatch: pytest.MonkeyPatch, mode: int, has_ssh: bool
) -> None:
    groups.members = ["me"]
    os.chmod(context.ssh_config, mode)
    context.is_default_config = True
    if not has_ssh:
        context.ssh = None
    monkeypatch.setattr(ssh_config, "passwd_home", lambda: os.path.expanduser("~"))
    # About another file, such as one that it includes.
    said = "Bad owner or permissions on /home/me/.ssh/other"
    monkeypatch.setattr(context, "read_options", lambda host: ({}, said))
    assert check_permissions(context) == passed(f"{context.ssh_config}, mode {mode:04o}")


def test_a_config_without_a_block_fails_if_ssh_does_not_run_us(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(context.ssh_config).write_text("Include other\n")
    answers(context, monkeypatch, "nc %h %p")
    expected = failed(
        f"{context.ssh_config} has no dcs-proxy block",
        f"dcs-proxy config-ssh --ssh-config {context.ssh_config}",
    )
    assert check_block(context) == expected
    context.ssh = None
    assert check_block(context) == expected


def test_a_block_is_checked_without_an_ssh(context: Context) -> None:
    context.ssh = None
    assert check_block(context).ok


def test_a_directory_that_others_can_change_lets_them_choose_the_config(
    context: Context, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    check = check_permissions(context)
    assert check == failed(
        f"other users can choose what {context.ssh_config} is: {tmp_path} is writable by other "
        "users (mode 0777)",
        f"chmod go-w {tmp_path}",
    )


@pytest.mark.parametrize("kinds", [["top"], ["end"], []])
def test_an_included_file_has_both_blocks_or_none_is_here(
    context: Context, monkeypatch: pytest.MonkeyPatch, kinds: list[str]
) -> None:
    path = Path(context.ssh_config)
    text = path.read_bytes()
    at = text.index(b"Host mine\n")
    parts = {"top": text[:at], "end": text[at:]}
    path.write_bytes(b"".join(parts[kind] for kind in kinds))
    monkeypatch.setattr(ssh_config, "_is_included", lambda context: True)
    check = check_block(context)
    if kinds:
        which = "second dcs-proxy block, at the end" if kinds == ["top"] else "dcs-proxy block"
        assert (check.ok, check.text) == (False, f"{path} has no {which}")
    else:
        assert check == passed(f"in a file that {path} includes")
