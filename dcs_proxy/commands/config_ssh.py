"""``dcs-proxy config-ssh``: write, show or remove our blocks in the user's ssh config."""

from __future__ import annotations

import argparse
import contextlib
import os

from dcs_proxy.app import ApiFactory, Options, open_known, open_log, program_words
from dcs_proxy.bridge.host_keys import write_known_hosts
from dcs_proxy.commands.listing import (
    list_machines,
    names_to_list,
    show_unusable,
    usable_names,
)
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put, put_json
from dcs_proxy.doctor.vscode import remote_ssh_settings
from dcs_proxy.errors import DcsError
from dcs_proxy.local.lock import FileLock
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import Program, listed_hosts, render_end, render_top
from dcs_proxy.openssh.version import find_client, missing_features
from dcs_proxy.session.directory import StateDirectory

HELP = "write the block in ~/.ssh/config that makes ssh use dcs-proxy"
DESCRIPTION = (
    "Write a block at the top of the ssh config and a small one at its end, which make ssh, and "
    "every program that runs ssh, use dcs-proxy for machines. The block lists the account's "
    "machines by alias or shortest name, for editors and completion. Run the command again after "
    "an update, when Python has moved, or to list new machines."
)
EXAMPLES = (
    ("See what would change", "dcs-proxy config-ssh --dry-run"),
    ("Restore the file exactly as it was", "dcs-proxy config-ssh --remove"),
    ("Print the settings that VS Code needs", "dcs-proxy config-ssh --vscode"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--ssh-config", metavar="FILE", default="~/.ssh/config",
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
        help="print what Remote-SSH needs in VS Code's settings.json; change nothing",
    )  # fmt: skip


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Edit the ssh config.  Raises ConfigError or StateError, and then changes nothing."""
    path = os.path.abspath(os.path.expanduser(arguments.ssh_config))
    if arguments.vscode:
        put_json(remote_ssh_settings(options.settings(os.environ)))
    elif arguments.remove:
        _remove(path, options)
    else:
        _install(path, options, dry_run=arguments.dry_run)
    return 0


def _remove(path: str, options: Options) -> None:
    directory = options.state_directory(os.environ)
    # Not created only to be locked: it is probably about to be removed, too.
    with _lock(directory) if os.path.isdir(directory) else contextlib.nullcontext():
        is_changed = config_file.edit(path, lambda old: old and config_file.remove(old))
    put(f"dcs-proxy: {path}: {'block removed' if is_changed else 'there was no block'}")


def _install(path: str, options: Options, *, dry_run: bool) -> None:
    version = find_client().version
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    program = Program(program_words(), state.path, options.config_file(os.environ))
    with _lock(state.path):
        old, _ = config_file.read(os.path.realpath(path))
        known = open_known(options, os.environ, settings)
        factory = ApiFactory(settings, os.environ, open_log(options, os.environ), known)
        machines = _machines(factory, state, old or b"")
        top, end = render_top(program, machines, version), render_end(program, version)

        def change(text: bytes | None) -> bytes:
            return config_file.install(text or b"", top, end, created=text is None)

        if dry_run:
            put(*config_file.difference(old or b"", change(old), path))
            return
        is_changed = config_file.edit(path, change)
        write_known_hosts(state, machines)
    _report(path, is_changed, len(machines))
    for sentence in missing_features(version):
        _show(f"OpenSSH {version}: {sentence}")


def _lock(state_directory: str) -> FileLock:
    return config_file.edit_lock(os.path.join(state_directory, "config-ssh.lock"))


def _machines(factory: ApiFactory, state: StateDirectory, old: bytes) -> list[MachineName]:
    """Return the names to list, which are those in the file if the API does not answer."""
    try:
        listing = list_machines(factory, state)
    except DcsError as error:
        show(*error.lines())
        _show(
            "ssh works for every dm- name without a list; run config-ssh again later to list the "
            "machines for editors and completion"
        )
        present = config_file.parse_blocks(old).top or b""
        listed = listed_hosts(present.decode("utf-8", "replace"))
        return sorted({*listed, *map(MachineName, factory.settings.aliases)})
    show_unusable(listing)
    return names_to_list(usable_names(listing), factory.settings)


def _show(text: str) -> None:
    show(f"dcs-proxy: {text}")


def _report(path: str, is_changed: bool, machines: int) -> None:
    done = "written" if is_changed else "already up to date"
    put(f"dcs-proxy: {path}: {done}, {machines} machine{'s' * (machines != 1)} listed")
    if os.stat(path).st_mode & 0o022:
        _show(f"{path} is writable by other users, so ssh will refuse it")
        _show(f"hint: chmod go-w '{path}'")
