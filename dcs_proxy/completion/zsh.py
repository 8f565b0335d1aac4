"""The completion script for zsh."""

from __future__ import annotations

from collections.abc import Iterator

from dcs_proxy.syntax import Kind, Option, Syntax, Value

_SCRIPT = r"""#compdef dcs-proxy
# zsh completion for dcs-proxy, printed by: dcs-proxy completion zsh

# Offer the names in the file that list and config-ssh write below the state directory.
_dcs_proxy_machines() {
    local -a names expl
    [[ -r $state_directory/machines ]] || return 1
    names=(${(f)"$(<$state_directory/machines)"})
    names=(${${(M)names:#dm-*}:#*[^a-z0-9-]*})
    _wanted machines expl machine compadd -a names
}

_dcs_proxy() {
    local curcontext=$curcontext context state state_descr
    local state_directory=${DCS_PROXY_HOME:-$HOME/.ssh/dcs-proxy}
    local -a line commands
    typeset -A opt_args
    commands=(
@COMMANDS@
    )
    _arguments -C \
@OPTIONS@
        '1: :->command' \
        '*:: :->operands' && return 0
    if [[ -n $opt_args[--home] ]]; then
        state_directory=${(Q)opt_args[--home]}
        state_directory=${state_directory/#\~\//$HOME/}
    fi
    case $state in
        command) _describe -t commands command commands ;;
        operands)
            curcontext=${curcontext%:*:*}:dcs-proxy-$line[1]:
            case $line[1] in
@CASES@
            esac ;;
    esac
}

# As a file on fpath this is the function itself; evaluated, it announces it.
if [[ $funcstack[1] == _dcs-proxy ]]; then
    _dcs_proxy "$@"
else
    compdef _dcs_proxy dcs-proxy
fi
"""


def render(syntax: Syntax) -> str:
    """Return the script."""
    parts = {
        "@COMMANDS@": "\n".join(
            f"        {_quote(f'{c.name}:{_escape(c.help)}')}" for c in syntax.commands
        ),
        "@OPTIONS@": "\n".join(f"        {spec} \\" for spec in _specs(syntax)),
        "@CASES@": "\n".join(
            f"                {command.name})\n                    _arguments"
            + "".join(f" \\\n                        {spec}" for spec in _specs(command))
            + " ;;"
            for command in syntax.commands
        ),
    }
    text = _SCRIPT
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def _specs(command: Syntax) -> Iterator[str]:
    """Return what _arguments takes for the command's options and operands."""
    for option in command.options:
        for name in option.names:
            yield _quote(_option(option, name))
    for value in command.operands:
        number = "*" if value.repeats else ""
        optional = ":" if value.is_optional and not value.repeats else ""
        yield _quote(f"{number}:{optional}{_escape(value.name)}:{_action(value)}")


def _option(option: Option, name: str) -> str:
    others = sorted({*option.excludes, *option.names} - {name})
    excluded = "- *" if option.stands_alone else " ".join(others)
    return (
        (f"({excluded})" if excluded else "")
        + ("*" if option.repeats else "")
        + name
        + ("=" if option.value and name.startswith("--") else "")
        + f"[{_escape(option.help)}]"
        + (f":{_escape(option.value.name)}:{_action(option.value)}" if option.value else "")
    )


def _action(value: Value) -> str:
    """Return the action that offers the value, " " if nobody can guess it."""
    if value.choices:
        return f"({' '.join(value.choices)})"
    match value.kind:
        case Kind.MACHINE:
            return "_dcs_proxy_machines"
        case Kind.FILE:
            return "_files"
        case Kind.DIRECTORY:
            return "_files -/"
        case Kind.OTHER:
            return " "


def _escape(text: str) -> str:
    for special in "\\[]:":
        text = text.replace(special, f"\\{special}")
    return text


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
