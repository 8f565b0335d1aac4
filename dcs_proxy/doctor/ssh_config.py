"""Checks of the user's ssh config file: its permissions, and our two blocks in it."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat

from dcs_proxy.app import program_words
from dcs_proxy.doctor.context import NO_MACHINE, Context, required
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.errors import ConfigError
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import Program, render_end, render_top, written_for
from dcs_proxy.openssh.version import missing_features

_EXEC = re.compile(r'^Match \S+ .*exec "exec (.+) prepare [^"]*"$', re.MULTILINE)
_HOST = re.compile(r"^Host (dm-\S+)$", re.MULTILINE)
_AGAIN = "dcs-proxy config-ssh"


def check_permissions(exam: Context) -> Check:
    """Whether ssh reads the file at all: it refuses one that others can change."""
    path = exam.ssh_config
    home = pwd.getpwuid(os.geteuid()).pw_dir
    if exam.is_default_config and os.path.realpath(home) != os.path.realpath(
        os.path.expanduser("~")
    ):
        return failed(
            f"ssh reads {home}/.ssh/config whatever HOME is, and not {path}",
            f"dcs-proxy config-ssh --ssh-config '{home}/.ssh/config'",
        )
    _, status = config_file.read(os.path.realpath(path))
    if status is None:
        return failed(f"there is no {path}", _again(exam))
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid not in (0, os.geteuid()):
        return failed(f"{path} belongs to another user, so ssh refuses it", f"chown it: {path}")
    if status.st_mode & 0o022:
        return failed(
            f"{path} can be changed by others ({mode}), so ssh refuses it", f"chmod go-w '{path}'"
        )
    return passed(f"{path}, {mode}")


def check_block(exam: Context) -> Check:
    """Our blocks: there, not edited, and what config-ssh would write today."""
    path = exam.ssh_config
    data, _ = config_file.read(os.path.realpath(path))
    parts = config_file.parse_blocks(data or b"")
    if parts.top is None and parts.end is None and _is_elsewhere(exam):
        return passed(f"in a file that {path} includes")
    if parts.top is None or parts.end is None:
        which = "dcs-proxy block" if parts.top is None else "second dcs-proxy block, at the end,"
        return failed(f"{path} has no {which}", _again(exam))
    top, end = (part.decode("utf-8", "surrogateescape") for part in (parts.top, parts.end))
    program = parse_program(top)
    hosts = [MachineName(name) for name in _HOST.findall(top)]
    if program is not None and (wrong := _wrong_program(exam, program)):
        return failed(wrong, _again(exam))
    version = written_for(top)
    if (
        version is None
        or program is None
        or (top, end) != (render_top(program, hosts, version), render_end(program, version))
    ):
        return failed(f"the block in {path} is not what this version writes", _again(exam))
    if exam.ssh is not None and missing_features(exam.ssh.version) != missing_features(version):
        return failed(
            f"the block in {path} is for OpenSSH {version}, and {exam.ssh.path} is "
            f"{exam.ssh.version}", _again(exam),
        )  # fmt: skip
    listed = f"{len(hosts)} machine{'s' * (len(hosts) != 1)} listed"
    return passed(f"{path}: up to date, {listed}")


def _is_elsewhere(exam: Context) -> bool:
    """Tell whether ssh starts us though our blocks are not in the user's own file."""
    if exam.ssh is None:
        return False
    options, _ = exam.read_options(NO_MACHINE)
    return any(program_words()[-1] in command for command in options.get("proxycommand", []))


def parse_program(top: str) -> Program | None:
    """Return how a block's text starts us, the reverse of `render_top`; None if it does not."""
    match = _EXEC.search(top)
    if match is None:
        return None
    try:
        words = [word.replace("%%", "%") for word in shlex.split(match[1])]
        at = words.index("--home")
        config = words[words.index("--config") + 1] if "--config" in words else None
        return Program(tuple(words[:at]), words[at + 1], config)
    except (ValueError, IndexError, ConfigError):
        return None


def _wrong_program(exam: Context, program: Program) -> str:
    """Return what is wrong with the program that the block starts, "" if nothing is."""
    for word in program.words:
        if word.startswith("/") and not os.path.exists(word):
            return f"the block starts {word}, which is not there any more"
    ours = program_words()[-1]
    if os.path.realpath(program.words[-1]) != os.path.realpath(ours):
        return f"the block starts another dcs-proxy, {program.words[-1]}, than this one, {ours}"
    state = required(exam.state).path
    if os.path.realpath(program.state_directory) != os.path.realpath(state):
        return f"the block uses the state directory {program.state_directory}, and not {state}"
    config = exam.options.config_file(exam.environment)
    if program.config_file != config:
        shown = [file or "that of the environment" for file in (program.config_file, config)]
        return f"the block uses the config file {shown[0]}, and not {shown[1]}"
    return ""


def _again(exam: Context) -> str:
    return _AGAIN if exam.is_default_config else f"{_AGAIN} --ssh-config '{exam.ssh_config}'"
