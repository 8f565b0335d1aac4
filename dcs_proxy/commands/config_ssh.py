"""``dcs-proxy config-ssh``: write, show or remove our blocks in the user's ssh config."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from dcs_proxy.app import ApiFactory, Options, find_program, open_factory
from dcs_proxy.bridge.host_keys import write_known_hosts
from dcs_proxy.commands._machines import (
    aliases_to_list,
    is_listed,
    list_machines,
    names_to_list,
    show_unusable,
    usable_names,
)
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put, put_json
from dcs_proxy.doctor.editors import explain_settings, remote_ssh_settings
from dcs_proxy.errors import ConfigError, CredentialsError, DcsError
from dcs_proxy.local.environment import full_path, passwd_home
from dcs_proxy.local.files import remove_file, write_atomically
from dcs_proxy.local.lock import FileLock
from dcs_proxy.local.programs import Output
from dcs_proxy.local.programs import run as run_program
from dcs_proxy.local.settings import Settings
from dcs_proxy.local.trusted_file import judge, real_path
from dcs_proxy.names import MachineName, natural_order
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import (
    NO_MACHINE,
    Program,
    listed_hosts,
    render_end,
    render_top,
)
from dcs_proxy.openssh.shell import Shell, try_shells
from dcs_proxy.openssh.version import find_client, missing_features
from dcs_proxy.publish.launcher import write_launcher
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.text import clean_text, quote_server

HELP = "make ssh use dcs-proxy"
DESCRIPTION = (
    "Write one block at the top of the ssh config and a small one at its end. They make ssh, and "
    "every program that runs ssh, use dcs-proxy for machines. The block at the top lists the "
    "account's machines by alias or shortest name, for editors and completion. Run the command "
    "again after an update, after Python has moved, or to list new machines."
)
EXAMPLES = (
    ("See what would change", "dcs-proxy config-ssh --dry-run"),
    ("Restore the file exactly as it was", "dcs-proxy config-ssh --remove"),
    ("Print the settings that VS Code needs", "dcs-proxy config-ssh --vscode"),
)

# argparse would need more than 60 columns.
_USAGE = """dcs-proxy config-ssh [--ssh-config FILE]
                 [--dry-run | --remove | --vscode]"""
_SSH_S = 30
# Where uvx and `pipx run` put programs that are not installed.
_TEMPORARY = re.compile(r"/uv/(archive|environments)-v\d+/|/\.cache/(uv|pipx)/|/pipx/\.cache/")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = _USAGE
    parser.add_argument(
        "--ssh-config", metavar="FILE", default=config_file.DEFAULT_PATH,
        help="the file to edit (default: %(default)s)",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dry-run", action="store_true", help="print what would change; change nothing"
    )
    how.add_argument(
        "--remove", action="store_true", help="remove the blocks; keep the rest as it is"
    )
    how.add_argument(
        "--vscode", action="store_true",
        help="print what Remote-SSH needs in VS Code's settings.json, and why; change nothing",
    )  # fmt: skip


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Edit the ssh config.  Raises ConfigError or StateError, and then changes nothing."""
    path = full_path(arguments.ssh_config)
    if arguments.vscode:
        _show_vscode(options.settings(os.environ))
    elif arguments.remove:
        _remove(path, options)
    else:
        is_default = arguments.ssh_config == config_file.DEFAULT_PATH
        _install(path, options, is_default=is_default, dry_run=arguments.dry_run)
    return 0


def _show_vscode(settings: Settings) -> None:
    for line in explain_settings(settings):
        _show(line)
    put_json(remote_ssh_settings(settings))


def _remove(path: str, options: Options) -> None:
    directory = options.state_directory(os.environ)
    # Do not create the state directory just to lock it: the user is probably uninstalling.
    with _lock(directory) if os.path.isdir(directory) else contextlib.nullcontext():
        is_changed = config_file.edit(path, lambda old: old and config_file.remove(old))
    put(f"dcs-proxy: {path}: {'block removed' if is_changed else 'there was no block'}")


def _check_program(program: Program) -> None:
    """Raise ConfigError if ssh could not start the program, because it runs from a zip file."""
    start = program.words[-1]
    if not os.path.isfile(start):
        raise ConfigError(
            f"ssh cannot start this dcs-proxy, because there is no file {start}",
            hint="install dcs-proxy with pipx or uv; one that runs from a zip file will not do",
        )


def _install(path: str, options: Options, *, is_default: bool, dry_run: bool) -> None:
    ssh = find_client()
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    program = find_program(options, os.environ)
    _check_program(program)
    shells = try_shells(os.environ)
    is_silent = not any(shell.output for shell in shells)
    with _lock(state.path):
        config_file.check_way(path)
        old, status = config_file.read(real_path(path))
        # ssh would run the commands (Match exec) of whoever can change the file.
        is_trusted = status is None or judge(path, status) is None
        factory = open_factory(options, os.environ, settings)
        machines, failure = _machines(factory, state, old or b"")
        top = render_top(program, machines, ssh.version, hands_over=is_silent)
        end = render_end(program, ssh.version)

        def change(text: bytes | None) -> bytes:
            return config_file.install(text or b"", top, end, created=text is None)

        if dry_run:
            put(*config_file.difference(old or b"", change(old), path))
            return
        # All names that ssh accepts, including long ones that the block does not list.
        write_known_hosts(state, [*state.saved_machines(), *machines])
        has_moved = write_launcher(program)
        problems = _try_ssh(ssh.path, state, old or b"", change(old)) if is_trusted else []
        is_changed = config_file.edit(path, change)
        state.add_ssh_config(path)
    _report(path, is_changed, len(machines))
    if has_moved and not is_changed:
        put(f"dcs-proxy: ssh now runs {program.words[-1]}")
    for text in [
        *problems,
        *_shell_warnings(shells),
        *_program_warnings(program),
        *(_home_warnings(ssh.path, path) if is_default else ()),
        *(f"OpenSSH {ssh.version}: {sentence}" for sentence in missing_features(ssh.version)),
    ]:
        _show(text)
    if isinstance(failure, CredentialsError):
        put("dcs-proxy: next, store your API key: dcs-proxy login")
    else:
        file = "" if is_default else f"-F {shlex.quote(path)} "
        name = next(iter([*machines, *state.saved_machines()]), "dm-NAME")
        put(f"dcs-proxy: try it: ssh {file}{name}")


def _lock(state_directory: str) -> FileLock:
    return config_file.edit_lock(os.path.join(state_directory, "config-ssh.lock"))


def _try_ssh(ssh: str, state: StateDirectory, old: bytes, new: bytes) -> list[str]:
    """Let ssh read the new file before it is written; return warnings about the user's own lines.

    Raises ConfigError if ssh rejects the new file but not the old one.
    """
    errors = [_ssh_error(ssh, state, text) for text in (new, old)]
    if errors[0] and not errors[1]:
        raise ConfigError(
            f"{ssh} refuses the block, so nothing was changed: {quote_server(errors[0])}",
            hint="see whether another ssh comes first in PATH; report it with: ssh -V",
        )
    if not errors[0]:
        return []
    hint = "hint: correct it; until then, ssh connects to no host"
    return [f"ssh cannot read your config: {errors[0]}", hint]


def _ssh_error(ssh: str, state: StateDirectory, text: bytes) -> str:
    """Return ssh's error for a config file with the contents `text`, "" if ssh can read it."""
    path = state.file("config-ssh.tmp")
    write_atomically(path, text)
    try:
        done = _run_ssh([ssh, "-G", "-F", path, NO_MACHINE])
    finally:
        remove_file(path)
    if done is None:
        return f"no answer after {_SSH_S} s"
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    # The last line may only count the others: "terminating, 1 bad configuration options".
    lines = [line for line in said if "terminating, " not in line] or said
    line = lines[-1] if lines else f"exit status {done.status}"
    return clean_text(line.replace(path, "the config")) if done.status else ""


def _run_ssh(command: list[str]) -> Output | None:
    """Run ssh; return None if it takes too long."""
    try:
        # Match exec fails if SHELL cannot be run, which is not the config's fault.
        environment = {**os.environ, "SHELL": "/bin/sh"}
        return run_program(command, environment=environment, limit_s=_SSH_S)
    except TimeoutError:
        return None


def _shell_warnings(shells: Sequence[Shell]) -> Iterator[str]:
    for shell in shells:
        if shell.problem:
            yield f"{shell.label}, with which ssh runs commands, {shell.problem}"
            yield "hint: set SHELL to a shell that runs commands, such as /bin/sh"
        elif shell.output:
            said = quote_server(shell.output)
            yield f"{shell.path} prints {said} when it starts, which ends up in every connection"
            yield f"hint: look at {shell.start_files}; until that is gone, connections are relayed"


def _program_warnings(program: Program) -> Iterator[str]:
    if any(_TEMPORARY.search(real_path(program.words[at])) for at in (0, -1)):
        yield f"this dcs-proxy is in a cache that may be emptied: {program.words[-1]}"
        yield "hint: install it with pipx or uv tool, then run config-ssh again"


def _home_warnings(ssh: str, path: str) -> Iterator[str]:
    """Yield warnings if ssh's default config is not `path`, because ssh ignores HOME."""
    home = passwd_home()
    if home is None or real_path(home) == real_path(os.path.expanduser("~")):
        return
    done = _run_ssh([ssh, "-v", "-G", NO_MACHINE])
    read = [] if done is None else done.stderr.decode("utf-8", "replace").splitlines()
    if f"debug1: Reading configuration data {path}" not in read:
        yield f"ssh reads {home}/.ssh/config whatever HOME says, not this file"
        yield f"hint: dcs-proxy config-ssh --ssh-config {shlex.quote(f'{home}/.ssh/config')}"


def _machines(
    factory: ApiFactory, state: StateDirectory, old: bytes
) -> tuple[list[MachineName], DcsError | None]:
    """Return the names to list, and the API's error if it has no list.

    Then the names are those that the file `old` lists already.
    """
    try:
        listing = list_machines(factory, state)
    except DcsError as error:
        show(*error.lines())
        _show(
            "ssh works for every machine, listed or not; to list new ones for editors and "
            "completion, run config-ssh again later"
        )
        present = config_file.parse_blocks(old).top or b""
        listed = listed_hosts(present.decode("utf-8", "replace"))
        settings = factory.settings
        kept = [name for name in listed if is_listed(name, settings)]
        return natural_order({*kept, *aliases_to_list(settings)}), error
    show_unusable(listing)
    return names_to_list(usable_names(listing), factory.settings), None


def _show(text: str) -> None:
    show(f"dcs-proxy: {text}")


def _report(path: str, is_changed: bool, machines: int) -> None:
    done = "written" if is_changed else "already up to date"
    put(f"dcs-proxy: {path}: {done}, {machines} machine{'s' * (machines != 1)} listed")
    if distrust := judge(path, os.stat(path)):
        _show(f"{path} {distrust.problem}, so ssh will refuse it")
        _show(f"hint: {distrust.hint}")
