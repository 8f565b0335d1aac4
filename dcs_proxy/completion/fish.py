"""The completion script for fish."""

from __future__ import annotations

from collections.abc import Iterator

from dcs_proxy.syntax import Kind, Option, Syntax, Value

_SCRIPT = r"""# fish completion for dcs-proxy, printed by: dcs-proxy completion fish

# Print what stands before the cursor: the state directory, the command, its operands.
function __dcs_proxy_line
    set -l home ~/.ssh/dcs-proxy
    test -n "$DCS_PROXY_HOME"; and set home $DCS_PROXY_HOME
    set -l command ''
    set -l operands
    set -l waiting ''
    for word in (commandline -opc)[2..-1]
        if test -n "$waiting"
            test "$waiting" = ' --home'; and set home $word
            set waiting ''
            continue
        end
        switch "$command $word"
            case @WITH_VALUE@
                set waiting "$command $word"
            case ' --home=*'
                set home (string replace -- --home= '' $word)
            case '* -*'
            case ' *'
                set command $word
            case '*'
                set -a operands $word
        end
    end
    string replace -r '^~(?=/)' ~ -- $home
    echo $command
    string join \n -- $operands
end

# Tell whether the command on the line is this one ('' for none yet).
function __dcs_proxy_command -a command
    set -l line (__dcs_proxy_line)
    test "$line[2]" = "$command"
end

# Tell whether so many operands stand before the cursor, or (-ge) at least so many.
function __dcs_proxy_operands -a command compare number
    set -l line (__dcs_proxy_line)
    test "$line[2]" = "$command"; and test (count $line[3..-1]) $compare $number
end

# Print the names in the file that list and config-ssh write below the state directory.
function __dcs_proxy_machines
    set -l line (__dcs_proxy_line)
    test -r $line[1]/machines; and string match -r '^dm-[a-z0-9-]+$' <$line[1]/machines
end

complete -c dcs-proxy -e
complete -c dcs-proxy -f
@LINES@
"""


def render(syntax: Syntax) -> str:
    """Return the script."""
    levels = [("", syntax), *((command.name, command) for command in syntax.commands)]
    waiting = [
        f"'{where} {name}'"
        for where, command in levels
        for option in command.options
        if option.value
        for name in option.names
    ]
    lines = [line for where, command in levels for line in _level(where, command)]
    text = _SCRIPT.replace("@WITH_VALUE@", " ".join(waiting))
    return text.replace("@LINES@", "\n".join(lines))


def _level(where: str, command: Syntax) -> Iterator[str]:
    here = f"complete -c dcs-proxy -n {_quote(f'__dcs_proxy_command {_quote(where)}')}"
    for sub in command.commands:
        yield f"{here} -a {sub.name} -d {_quote(sub.help)}"
    for option in command.options:
        yield f"{here} {_option(option)} -d {_quote(option.help)}"
    for index, value in enumerate(command.operands):
        if action := _action(value):
            compare = "-ge" if value.repeats else "-eq"
            test = f"__dcs_proxy_operands {where} {compare} {index}"
            yield f"complete -c dcs-proxy -n {_quote(test)} {action}"


def _option(option: Option) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    )
    if option.value is None:
        return names
    # -x takes a value and offers no files.
    takes = "-r" if option.value.kind is Kind.FILE else "-x"
    return f"{names} {takes} {_action(option.value)}".rstrip()


def _action(value: Value) -> str:
    """Return the argument of `complete` that offers the value, "" if nobody can guess it."""
    if value.choices:
        return f"-a {_quote(' '.join(value.choices))}"
    match value.kind:
        case Kind.MACHINE:
            return "-a '(__dcs_proxy_machines)'"
        case Kind.FILE:
            return "-F"
        case Kind.DIRECTORY:
            return "-a '(__fish_complete_directories)'"
        case Kind.OTHER:
            return ""


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
