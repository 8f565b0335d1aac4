"""The check of VS Code and related editors: does their ssh run us, do they wait long enough?"""

from __future__ import annotations

import os
import shlex

from dcs_proxy.app import find_program
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.editors import (
    CONFIG_FILE,
    CONNECT_TIMEOUT,
    SSH_PATH,
    Editor,
    find_editors,
)
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.programs import run
from dcs_proxy.local.settings import Settings
from dcs_proxy.local.trusted_file import find_distrust_of_file, real_path
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import NO_MACHINE
from dcs_proxy.openssh.version import find_client, read_client

# A shorter limit may end before an ordinary wake does.
_LEAST_S = 60
_SSH_S = 30


def check_vscode(context: Context) -> Check | None:
    """Check each editor's ssh, its ssh config and its time limit.

    Return None if no editor has Remote-SSH or settings for it.
    """
    editors = find_editors(context.environment)
    if not editors:
        return None
    wake_s = (context.settings or Settings()).wake_seconds
    for editor in editors:
        if problem := _find_problem(context, editor, wake_s):
            return problem
    return passed(", ".join(map(_describe, editors)))


def _find_problem(context: Context, editor: Editor, wake_s: int) -> Check | None:
    """Return the failed check of an editor, None if nothing is wrong with it."""
    if editor.runs_here and (problem := _wrong_ssh(editor) or _wrong_config(context, editor)):
        return problem
    seconds = editor.timeout_s
    if editor.uses_local_server and seconds is not None and seconds < min(_LEAST_S, wake_s):
        return failed(
            f"{editor.name} gives up after {seconds} s, and a machine may take longer to wake",
            f'set "{CONNECT_TIMEOUT}": {wake_s} in {editor.settings_file}',
        )
    return None


def _wrong_ssh(editor: Editor) -> Check | None:
    """Return the failed check of the ssh that the editor's settings choose, None if it works."""
    if not editor.ssh_path:
        return None
    try:
        read_client(editor.ssh_path)
    except ConfigError as error:
        return failed(
            f"{editor.name} runs {editor.ssh_path} as its ssh: {error.message}",
            f'correct or remove "{SSH_PATH}" in {editor.settings_file}',
        )
    return None


def _wrong_config(context: Context, editor: Editor) -> Check | None:
    """Return the failed check of the editor's ssh config, None if it runs us.

    If the editor's settings name neither an ssh nor a config, the other checks are enough.
    """
    path = editor.config_file
    if real_path(path) == real_path(context.ssh_config):
        path = ""
    if not (path or editor.ssh_path):
        return None
    # Others could write a Match exec line into it, which ssh would run.
    if path and (distrust := find_distrust_of_file(os.path.abspath(path))):
        place = "which" if distrust.place == path else f"and {distrust.place}"
        return failed(
            f"{editor.name} reads {path} as its ssh config, {place} {distrust.problem}",
            distrust.hint,
        )
    if _runs_us(context, editor) if editor.runs_openssh else _has_block(path):
        return None
    if not path:
        return failed(
            f"{editor.name} runs {editor.ssh_path}, which does not run dcs-proxy for a machine",
            f"see: {shlex.quote(editor.ssh_path)} -G {NO_MACHINE}",
        )
    return failed(
        f"{editor.name} reads {path} as its ssh config, and dcs-proxy is not in it",
        f'dcs-proxy config-ssh --ssh-config {shlex.quote(path)}, or remove "{CONFIG_FILE}" from '
        f"{editor.settings_file}",
    )


def _runs_us(context: Context, editor: Editor) -> bool:
    """Return whether the editor's ssh, with the editor's ssh config, runs us for a machine."""
    config = editor.config_file or ("" if context.is_default_config else context.ssh_config)
    try:
        ssh = editor.ssh_path or find_client().path
        command = [ssh, *(["-F", config] if config else []), "-G", NO_MACHINE]
        done = run(command, environment=context.environment, limit_s=_SSH_S)
    except (ConfigError, TimeoutError, OSError):
        return False
    return os.fsencode(find_program(context.options, context.environment).launcher) in done.stdout


def _has_block(path: str) -> bool:
    """Return whether a file itself contains our block: editors with ssh2 ignore Include."""
    try:
        return config_file.read_blocks(path).top is not None
    except ConfigError:
        return False


def _describe(editor: Editor) -> str:
    if editor.timeout_s is None:
        return f"{editor.name} has the block"
    if not editor.uses_local_server:
        return f"{editor.name} waits for as long as ssh does"
    return f"{editor.name} waits {editor.timeout_s} s"
