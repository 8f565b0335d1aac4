"""``dcs-proxy completion SHELL``: print the script that lets a shell complete our command line."""

from __future__ import annotations

import argparse
import importlib
import sys

from dcs_proxy.app import Options
from dcs_proxy.cli import build_parser
from dcs_proxy.syntax import read_syntax

HELP = "print the completion script for bash, zsh or fish"
DESCRIPTION = (
    "Print a script that makes the shell complete commands, options, files and the names of "
    "machines. Names are those that list or config-ssh saw last: completing asks nobody."
)
EXAMPLES = (
    ("bash, where the package bash-completion is in use",
     "dcs-proxy completion bash > ~/.local/share/bash-completion/completions/dcs-proxy"),
    ("zsh, where fpath has ~/.zfunc before compinit runs",
     "dcs-proxy completion zsh > ~/.zfunc/_dcs-proxy"),
    ("fish",
     "dcs-proxy completion fish > ~/.config/fish/completions/dcs-proxy.fish"),
    ("bash or zsh, in their rc file, which starts Python with each shell",
     'eval "$(dcs-proxy completion bash)"'),
)  # fmt: skip

_SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help="bash, zsh or fish")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the script of one shell."""
    shell = importlib.import_module(f"dcs_proxy.completion.{arguments.shell}")
    sys.stdout.write(shell.render(read_syntax(build_parser())))
    return 0
