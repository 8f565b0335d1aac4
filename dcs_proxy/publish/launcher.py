"""The launcher: the shell script in the state directory with which ssh starts the program.

ssh starts helpers with the user's shell, in its own environment.  The script pins what config-ssh
found: the Python, the program, the state directory and the config file.  If the program has moved
or was removed, or its Python cannot be started, the script says so; the shell would only say that
there is no such file, or nothing.
"""

from __future__ import annotations

import os
import re
import shlex

from dcs_proxy.errors import ConfigError
from dcs_proxy.local.files import read_small, write_atomically
from dcs_proxy.openssh.config_text import Program
from dcs_proxy.ssh.disconnect import disconnect_bytes

_COMMAND = re.compile(r'^ +exec (.+) "\$@"$', re.MULTILINE)
_CONFIG_HOME = re.compile(r"^XDG_CONFIG_HOME=(.+) && export XDG_CONFIG_HOME$", re.MULTILINE)
_MOVED = "dcs-proxy has moved or was removed"
_MOVED_HINT = "run dcs-proxy config-ssh; if the program is gone, install it again first"
_BROKEN = "the Python of dcs-proxy cannot be started"
_BROKEN_HINT = "run dcs-proxy config-ssh; if that fails too, install dcs-proxy again first"


def render_launcher(program: Program) -> str:
    """Return the script that starts `program` with the script's own arguments.

    If the program is missing or its Python cannot be started, `prepare` prints an error on stderr,
    and ``HOST PORT`` sends an SSH disconnect message (RFC 4253 §11.1), then waits until ssh has
    read it.  That message has a hint only if stderr is the null device: otherwise the user has seen
    the hint of `prepare`.
    """
    python, start = program.words[0], program.words[-1]
    command = " ".join(map(shlex.quote, program.arguments()))
    config_home = ""
    if program.config_home:
        home = shlex.quote(program.config_home)
        config_home = f"XDG_CONFIG_HOME={home} && export XDG_CONFIG_HOME\n"
    return f"""\
#!/bin/sh
# Written by dcs-proxy config-ssh, which also rewrites it.  The ssh config runs it.
unset DCS_PROXY_CONFIG
{config_home}\
if [ "$1" != explain ]; then
    # A shell that cannot execute Python exits; bash goes on if told to.
    trap 'exec /bin/sh "$0" explain "$@"' 0
    [ -z "$BASH_VERSION" ] || shopt -s execfail
    if [ -x {shlex.quote(python)} ] && [ -f {shlex.quote(start)} ]; then
        exec {command} "$@"
    fi
    exit
fi
if [ -f {shlex.quote(start)} ]; then
{_texts(_BROKEN, python, _BROKEN_HINT)}
else
{_texts(_MOVED, start, _MOVED_HINT)}
fi
if [ "$2" = prepare ]; then
    printf '%s\\n' "dcs-proxy: $error" "dcs-proxy: hint: $hint" >&2
    exit 3
fi
if [ -c /dev/fd/2 ] && ! [ -t 2 ]; then
    printf "$full"
else
    printf "$short"
fi
cat >/dev/null
exit 3
"""


def _texts(error: str, path: str, hint: str) -> str:
    """Return the lines of sh that set the texts about a failure with the file `path`."""
    packets = {"short": f"not connected: {error}", "full": f"{error}: {path}; hint: {hint}"}
    lines = [f"error={shlex.quote(f'{error}: {path}')}", f"hint={shlex.quote(hint)}"]
    lines += [f"{name}='{_packet(text)}'" for name, text in packets.items()]
    return "\n".join(f"    {line}" for line in lines)


def _packet(message: str) -> str:
    """Return a disconnect message as an argument of printf."""
    return "".join(f"\\{byte:03o}" for byte in disconnect_bytes(message))


def parse_launcher(text: str) -> Program | None:
    """Return the program that a script by `render_launcher` starts; None if it is not one."""
    command = _COMMAND.search(text)
    if command is None:
        return None
    home = _CONFIG_HOME.search(text)
    try:
        words = shlex.split(command[1])
        at = words.index("--home")
        config = words[words.index("--config") + 1] if "--config" in words else None
        config_home = shlex.split(home[1])[0] if home else ""
        return Program(tuple(words[:at]), words[at + 1], config, config_home)
    except (ValueError, IndexError, ConfigError):
        return None


def write_launcher(program: Program) -> bool:
    """Write the script unless it is up to date; return whether it was written.

    Raises StateError.
    """
    data = os.fsencode(render_launcher(program))
    if read_small(program.launcher) == data:
        return False
    write_atomically(program.launcher, data)
    return True
