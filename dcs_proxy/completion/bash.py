"""The completion script for bash, from 3.2 on; names of files are completed from 4.0 on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap

from dcs_proxy.syntax import Kind, Syntax, Value

_SCRIPT = r"""# bash completion for dcs-proxy, printed by: dcs-proxy completion bash

# Offer the names in the file that list and config-ssh write below the state directory.
_dcs_proxy_machines() {
    local home=$1 name
    [[ $home == '~/'* ]] && home=$HOME/${home:2}
    [[ -r $home/machines ]] || return 0
    while IFS= read -r name; do
        # compgen -W would expand what it is given.
        if [[ $name == "$cur"* && $name == dm-* && $name != *[!a-z0-9-]* ]]; then
            COMPREPLY+=("$name")
        fi
    done <"$home/machines"
}

_dcs_proxy() {
    local IFS=$' \t\n' cur=${COMP_WORDS[COMP_CWORD]} command= operands=0 waiting= words= word i
    local home=${DCS_PROXY_HOME:-$HOME/.ssh/dcs-proxy}
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        # readline parts --option=value into three words.
        [[ $word == = ]] && continue
        if [[ -n $waiting ]]; then
            [[ $waiting == ' --home' ]] && home=$word
            waiting=
            continue
        fi
        case "$command $word" in
@WITH_VALUE@
                waiting="$command $word" ;;
            *' -'*) ;;
            ' '*) command=$word ;;
            *) ((++operands)) ;;
        esac
    done
    [[ $cur == = ]] && cur=
    case $waiting in
        '') ;;
@VALUES@
        *) return ;;
    esac
    if [[ -z $waiting && $cur == -* ]]; then
        case $command in
@OPTIONS@
        esac
    elif [[ -z $waiting ]]; then
        case "$command $operands" in
@OPERANDS@
        esac
    fi
    for word in $words; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}

complete -F _dcs_proxy dcs-proxy
"""


def render(syntax: Syntax) -> str:
    """Return the script."""
    levels = [("", syntax), *((command.name, command) for command in syntax.commands)]
    commands = Value("COMMAND", choices=tuple(command.name for command in syntax.commands))
    parts = {
        "@WITH_VALUE@": " | \\\n".join(filter(None, starmap(_waiting, levels))) + ")",
        "@VALUES@": "\n".join(
            _case(f"'{where} {name}'", option.value, indent=8)
            for where, command in levels
            for option in command.options
            if option.value and _action(option.value)
            for name in option.names
        ),
        "@OPTIONS@": "\n".join(
            f"            '{where}') words='{' '.join(_names(command))}' ;;"
            for where, command in levels
        ),
        "@OPERANDS@": "\n".join(
            [_case("' 0'", commands), *(line for c in syntax.commands for line in _operands(c))]
        ),
    }
    text = _SCRIPT
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def _waiting(where: str, command: Syntax) -> str:
    """Return the pattern of the command's options that take a value."""
    names = [name for option in command.options if option.value for name in option.names]
    return " " * 12 + " | ".join(f"'{where} {name}'" for name in names) if names else ""


def _names(command: Syntax) -> list[str]:
    return [name for option in command.options for name in option.names]


def _operands(command: Syntax) -> Iterator[str]:
    for index, value in enumerate(command.operands):
        if _action(value):
            # The first pattern that fits wins, so a repeated operand takes the rest.
            count = "'*" if value.repeats else f"{index}'"
            yield _case(f"'{command.name} {count}", value)


def _case(pattern: str, value: Value, indent: int = 12) -> str:
    return " " * indent + f"{pattern}) {_action(value)} ;;"


def _action(value: Value) -> str:
    """Return what offers the value, "" if nobody can guess it."""
    if value.choices:
        return f"words='{' '.join(value.choices)}'"
    match value.kind:
        case Kind.MACHINE:
            return '_dcs_proxy_machines "$home"'
        case Kind.FILE:
            return "compopt -o default 2>/dev/null"
        case Kind.DIRECTORY:
            return "compopt -o dirnames 2>/dev/null"
        case Kind.OTHER:
            return ""
