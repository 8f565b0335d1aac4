"""``dcs-proxy config-ssh``: write, show or remove our blocks in the user's ssh config."""

from __future__ import annotations

import argparse
import os
import re

from dcs_proxy.app import Options, open_log, program_words
from dcs_proxy.commands.listing import list_machines
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put, put_json
from dcs_proxy.doctor.vscode import remote_ssh_settings
from dcs_proxy.errors import DcsError
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, is_machine_name
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import Program, render_end, render_top
from dcs_proxy.openssh.version import find_client, missing_features
from dcs_proxy.session.directory import StateDirectory

HELP = "write the block in ~/.ssh/config that makes ssh use dcs-proxy"
DESCRIPTION = (
    "Write a block at the top of the ssh config, and a small one at its end, that make ssh and "
    "whatever runs ssh use dcs-proxy for every machine's name. The account's machines and the "
    "aliases are listed by name, for editors and completion. Run it again after an update, when "
    "Python has moved, or to list new machines."
)
EXAMPLES = (
    ("See what would change", "dcs-proxy config-ssh --dry-run"),
    ("Give the file back as it was, to the byte", "dcs-proxy config-ssh --remove"),
    ("See what VS Code needs in its settings.json", "dcs-proxy config-ssh --vscode"),
)

_HOST_LINE = re.compile(rb"^Host (dm-\S+)$", re.MULTILINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--ssh-config", metavar="FILE", default="~/.ssh/config",
        help="the file to edit (default: %(default)s)",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dry-run", action="store_true", help="show what would change, change nothing"
    )
    how.add_argument("--remove", action="store_true", help="take the block out, to the byte")
    how.add_argument(
        "--vscode", action="store_true",
        help="print what VS Code's settings.json needs for Remote-SSH, change nothing",
    )  # fmt: skip


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Edit the ssh config.  Raises ConfigError or StateError; a file it cannot read is left."""
    if arguments.vscode:
        put_json(remote_ssh_settings(options.settings(os.environ)))
        return 0
    path = os.path.abspath(os.path.expanduser(arguments.ssh_config))
    if arguments.remove:
        changed = config_file.edit(path, lambda old: old and config_file.remove(old))
        put(f"dcs-proxy: {path}: {'block removed' if changed else 'there was no block'}")
        return 0
    version = find_client().version
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    program = Program(program_words(), state.path, options.config_file(os.environ))
    with config_file.edit_lock(state.file("config-ssh.lock")):
        old, _ = config_file.read(os.path.realpath(path))
        machines = _machines(settings, state, open_log(options, os.environ), old or b"")
        top, end = render_top(program, machines, version), render_end(program, version)

        def change(text: bytes | None) -> bytes:
            return config_file.install(text or b"", top, end, created=text is None)

        if arguments.dry_run:
            put(*config_file.difference(old or b"", change(old), path))
            return 0
        changed = config_file.edit(path, change)
    _report(path, changed, len(machines))
    for lost in missing_features(version):
        _show(f"OpenSSH {version}: {lost}")
    return 0


def _machines(settings: Settings, state: StateDirectory, log: Log, old: bytes) -> list[MachineName]:
    """Return the names to list; those listed already if the API cannot be asked."""
    try:
        machines = list_machines(settings, state, log)
        listed = [machine.machine_id for machine in machines if not machine.is_going]
    except DcsError as error:
        show(*error.lines())
        _show(
            "the block works for every dm- name all the same; run config-ssh again to list the "
            "machines for editors and completion"
        )
        present = config_file.parse_blocks(old).top or b""
        names = [match.decode("utf-8", "replace") for match in _HOST_LINE.findall(present)]
        listed = [MachineName(name) for name in names if is_machine_name(name)]
    return sorted({*listed, *(MachineName(alias) for alias in settings.aliases)})


def _show(text: str) -> None:
    show(f"dcs-proxy: {text}")


def _report(path: str, changed: bool, machines: int) -> None:
    done = "written" if changed else "already up to date"
    put(f"dcs-proxy: {path}: {done}, {machines} machine{'s' * (machines != 1)} listed")
    if os.stat(path).st_mode & 0o022:
        _show(f"{path} can be changed by others, so ssh will refuse it")
        _show(f"hint: chmod go-w '{path}'")
