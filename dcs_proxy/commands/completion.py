"""``dcs-proxy completion SHELL``: print a completion script, which shtab makes from our parser.

The script completes machines' names from the file ``machines`` in the state directory, without
the network and without starting a program.  It never offers a word that a shell would expand, even
if there is one in that file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from dcs_proxy.app import Options
from dcs_proxy.arguments import Parser, build_parser
from dcs_proxy.console.stdout import put

HELP = "print the completion script for a shell"
DESCRIPTION = (
    "Print a script that completes commands, options, file names and machine names in a shell. "
    "The machine names are those that list or config-ssh saved last; completion does not use the "
    "network."
)
EXAMPLES = (
    ("bash, with the package bash-completion",
     "dcs-proxy completion bash > ~/.local/share/bash-completion/completions/dcs-proxy"),
    ("zsh, with ~/.zfunc added to fpath before compinit runs",
     "dcs-proxy completion zsh > ~/.zfunc/_dcs-proxy"),
    ("fish",
     "dcs-proxy completion fish > ~/.config/fish/completions/dcs-proxy.fish"),
    ("bash or zsh, in the rc file; this starts Python with every shell",
     'eval "$(dcs-proxy completion bash)"'),
)  # fmt: skip

SHELLS = ("bash", "zsh", "fish")

# Functions that offer the machines' names.  They obey ``--home DIR`` on the command line.
_MACHINES = {
    "bash": r"""
_dcs_proxy_machines() {
  local home=${DCS_PROXY_HOME:-$HOME/.ssh/dcs-proxy} word=$1 name i
  for ((i = 1; i < COMP_CWORD - 1; i++)); do
    [[ ${COMP_WORDS[i]} == --home ]] && home=${COMP_WORDS[i + 1]/#~\//$HOME/}
  done
  [[ -r $home/machines ]] || return 0
  while IFS= read -r name; do
    [[ $name == "$word"* && $name == dm-* && $name != *[!a-z0-9-]* ]] && echo "$name"
  done <"$home/machines"
}""",
    # _arguments has already removed --home from $words.
    "zsh": r"""
_dcs_proxy_machines() {
  local home=${DCS_PROXY_HOME:-$HOME/.ssh/dcs-proxy}
  local -a typed names expl
  typed=(${(Q)${(z)BUFFER}})
  (( $typed[(I)--home] )) && home=${typed[$typed[(I)--home] + 1]/#\~\//$HOME/}
  [[ -r $home/machines ]] || return 1
  names=(${(f)"$(<$home/machines)"})
  names=(${${(M)names:#dm-*}:#*[^a-z0-9-]*})
  _wanted machines expl machine compadd -a names
}""",
    "fish": r"""
function _dcs_proxy_machines
  set -l home ~/.ssh/dcs-proxy
  test -n "$DCS_PROXY_HOME"; and set home $DCS_PROXY_HOME
  set -l typed (commandline -opc)
  set -l i (contains -i -- --home $typed)
  and set home (string replace -r '^~(?=/)' ~ -- $typed[(math $i + 1)])
  test -r $home/machines; and string match -r '^dm-[a-z0-9-]+$' <$home/machines
end""",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the script for one shell."""
    put(*render(build_parser(), arguments.shell).split("\n"))
    return 0


def render(parser: Parser, shell: str) -> str:
    """Return the completion script of `parser`, which is modified.

    Arguments and option values named FILE, DIR or HOST are completed as such.
    """
    import shtab

    completers: Mapping[str, Any] = {
        "FILE": shtab.FILE,
        "DIR": shtab.DIRECTORY,
        "HOST": {
            "bash": "_dcs_proxy_machines",
            "zsh": "_dcs_proxy_machines",
            "fish": "(_dcs_proxy_machines)",
        },
    }
    for command in parser.commands.values():
        command.description = None  # shtab would show it instead of the shorter help
    for action in _actions(parser):
        if completer := completers.get(str(action.metavar)):
            action.complete = completer  # type: ignore[attr-defined]  # shtab's own attribute
        if shell == "zsh" and action.nargs in ("*", "+"):
            # In zsh, shtab would complete only the first of several words.
            action.nargs = argparse.REMAINDER
    return shtab.complete(parser, shell, preamble=_MACHINES[shell])


def _actions(parser: Parser) -> Iterator[argparse.Action]:
    for one in (parser, *parser.commands.values()):
        yield from one._actions
