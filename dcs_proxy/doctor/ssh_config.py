"""Checks of the user's ssh config file: its permissions, and our two blocks in it."""

from __future__ import annotations

import os
import re
import shlex
import stat

from dcs_proxy.app import find_program
from dcs_proxy.doctor.context import Context, required
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.local.environment import passwd_home
from dcs_proxy.local.files import read_small
from dcs_proxy.local.trusted_file import find_distrust, real_path
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import (
    NO_MACHINE,
    Program,
    listed_hosts,
    render_end,
    render_top,
    uses_pipes,
    written_for,
)
from dcs_proxy.openssh.version import missing_features
from dcs_proxy.publish.launcher import parse_launcher

_EXEC = re.compile(r'^Match \S+ .*exec "exec (.+) prepare [^"]*"$', re.MULTILINE)


def check_permissions(context: Context) -> Check:
    """Check that ssh reads the file, and does not reject it because others can change it."""
    path = context.ssh_config
    home = passwd_home()
    if home is None:
        return failed(
            f"user id {os.geteuid()} has no entry in the user database, and ssh needs one",
            "add a line for it to /etc/passwd",
        )
    if (
        context.is_default_config
        and real_path(home) != real_path(os.path.expanduser("~"))
        and not _is_included(context)
    ):
        read = f"{home}/.ssh/config"
        return failed(
            f"ssh reads {read}, not {path}: it ignores HOME",
            f"dcs-proxy config-ssh --ssh-config {shlex.quote(read)}",
        )
    _, status = config_file.read(real_path(path))
    if status is None:
        return failed(f"{path} does not exist", _config_ssh(context))
    if problem := _find_refusal(context, path, status):
        return problem
    return passed(f"{path}, mode {stat.S_IMODE(status.st_mode):04o}")


def _find_refusal(context: Context, path: str, status: os.stat_result) -> Check | None:
    """Return a failed check if others can change the file, else None.

    Debian's ssh accepts a file that the user's private group can change, other versions do not.
    """
    distrust = find_distrust(path, status)
    if distrust is not None and distrust.place == path:
        return failed(f"{path} {distrust.problem}, so ssh refuses it", distrust.hint)
    if distrust is not None:
        why = f"{distrust.place} {distrust.problem}"
        return failed(f"other users can choose what {path} is: {why}", distrust.hint)
    if not status.st_mode & 0o020 or not context.is_default_config or context.ssh is None:
        return None
    _, said = context.read_options(NO_MACHINE)
    if "Bad owner or permissions" not in said:
        return None
    return failed(
        f"{path} is writable by its group, so {context.ssh.path} refuses it",
        f"chmod go-w {shlex.quote(path)}",
    )


def check_block(context: Context) -> Check:
    """Check that our blocks are complete, unedited and up to date."""
    path = context.ssh_config
    parts = config_file.read_blocks(path)
    if parts.top is None and parts.end is None and _is_included(context):
        return passed(f"in a file that {path} includes")
    if parts.top is None or parts.end is None:
        which = "dcs-proxy block" if parts.top is None else "second dcs-proxy block, at the end"
        return failed(f"{path} has no {which}", _config_ssh(context))
    top, end = (part.decode("utf-8", "surrogateescape") for part in (parts.top, parts.end))
    hosts = listed_hosts(top)
    if problem := _find_problem(context, top, end, hosts):
        return failed(problem, _config_ssh(context))
    return passed(f"{path}: up to date, {len(hosts)} machine{'s' * (len(hosts) != 1)} listed")


def _find_problem(context: Context, top: str, end: str, hosts: list[MachineName]) -> str:
    """Return what is wrong with the blocks, "" if nothing is."""
    path, program, version = context.ssh_config, read_program(top), written_for(top)
    if program is not None and (problem := _wrong_program(context, program)):
        return problem
    if program is None and (problem := _wrong_launcher(top)):
        return problem
    if version is None or program is None:
        return f"the block in {path} is not what this version of dcs-proxy writes"
    expected = render_top(program, hosts, version, hands_over=not uses_pipes(top))
    if (top, end) != (expected, render_end(program, version)):
        return f"the block in {path} is not what this version of dcs-proxy writes"
    ssh = context.ssh
    if ssh is not None and missing_features(ssh.version) != missing_features(version):
        return f"the block in {path} is for OpenSSH {version}, but {ssh.path} is {ssh.version}"
    return ""


def _is_included(context: Context) -> bool:
    """Return whether ssh runs us although our blocks are not in the user's file itself."""
    if context.ssh is None:
        return False
    options, _ = context.read_options(NO_MACHINE)
    launcher = find_program(context.options, context.environment).launcher
    return any(launcher in command for command in options.get("proxycommand", []))


def read_program(top: str) -> Program | None:
    """Return the program that a block's launcher starts, None if there is no such launcher."""
    try:
        data = read_small(_launcher(top))
    except ValueError:  # a NUL in the path
        return None
    return None if data is None else parse_launcher(os.fsdecode(data))


def _launcher(top: str) -> str:
    """Return the path of the launcher that a block runs, "" if it names none."""
    match = _EXEC.search(top)
    try:
        words = shlex.split(match[1]) if match else []
    except ValueError:  # quotes without an end
        return ""
    return words[-1].replace("%%", "%") if words else ""


def _wrong_launcher(top: str) -> str:
    """Return why the launcher that the block runs cannot be read, "" if it can."""
    path = _launcher(top)
    try:
        if path.startswith("/") and (distrust := find_distrust(path, os.stat(path))):
            return f"the block runs {path}: {distrust.place} {distrust.problem}"
    except FileNotFoundError:
        return f"the block runs {path}, which no longer exists"
    except (OSError, ValueError) as error:
        return f"the block runs {path}, which cannot be read: {error}"
    return ""


def _wrong_program(context: Context, program: Program) -> str:
    """Return what is wrong with the program that the block runs, "" if nothing is."""
    for word in program.words:
        if word.startswith("/") and not os.path.exists(word):
            return f"the block runs {word}, which no longer exists"
    expected = find_program(context.options, context.environment)
    ours = expected.words[-1]
    if real_path(program.words[-1]) != real_path(ours):
        return f"the block runs another dcs-proxy: {program.words[-1]}, not {ours}"
    state = required(context.state).path
    if real_path(program.state_directory) != real_path(state):
        return f"the block uses the state directory {program.state_directory}, not {state}"
    if program.config_file != expected.config_file:
        used, wanted = (_shown(each.config_file) for each in (program, expected))
        return f"the block uses {used}, not {wanted}"
    if program.config_file is None and program.config_home != expected.config_home:
        return f"the block uses the config in {program.config_home}, not {expected.config_home}"
    return ""


def _shown(config_file: str | None) -> str:
    return "the default config file" if config_file is None else f"the config file {config_file}"


def _config_ssh(context: Context) -> str:
    """Return the command that writes the blocks into the file that is checked."""
    path = shlex.quote(context.ssh_config)
    return "dcs-proxy config-ssh" + ("" if context.is_default_config else f" --ssh-config {path}")
