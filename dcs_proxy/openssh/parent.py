"""The ssh process that runs us: what its command line says about login, route and verbosity.

ssh evaluates ``Match exec`` whenever it reads its configuration.  That includes ``ssh -G`` and
``ssh -O check``, which do not log in and so must not wake a machine.
"""

from __future__ import annotations

import functools
import os
import re

from dcs_proxy.local.programs import find_program, run
from dcs_proxy.names import fold_host

# The options that take an argument, from the getopt strings in ssh.c of 8.2 to 10.x.
_WITH_ARGUMENT = frozenset("BDEFIJLOPQRSWbceilmopw")
# Options with which ssh does not log in: print the configuration, control a master process, query
# algorithms, print the version.
_WITHOUT_SESSION = frozenset("GOQV")
# The options that decide which lines of the config apply, and their values.
_DECIDING = frozenset("FJlop")
_LOG_LEVEL = re.compile(r"\s*loglevel[\s=]+\"?([a-z]+[0-9]?)\"?\s*", re.IGNORECASE)
_USER = re.compile(r"\s*user[\s=]+\"?([^\"]*?)\"?\s*", re.IGNORECASE)
_CONNECT_TIMEOUT = re.compile(r"\s*connecttimeout[\s=]+\"?([0-9]{1,9})\"?\s*", re.IGNORECASE)
_BYPASS = re.compile(r"\s*(proxyjump|proxycommand)[\s=]+\"?([^\"]*?)\"?\s*", re.IGNORECASE)
_PROXY_COMMAND = re.compile(r"\s*proxycommand[\s=].*", re.IGNORECASE | re.DOTALL)
_DESTINATION = ""
# ssh itself, and the names that wrappers give it: ssh.real, ssh-10.0, .ssh-wrapped, openssh.
_SSH = re.compile(r"(?:\A|[^a-z]|open)ssh(?!-(?:add|agent|key))(?:\Z|[^a-z])")
_PS_S = 2.0
# ssh -G reads files and runs what Match exec names.
_ASK_S = 10.0
# The values of LogLevel below INFO (ssh_config(5)).
_QUIET = frozenset({"quiet", "fatal", "error"})


def client_id(pid: int) -> str:
    """Return an id for process `pid` that differs from a later process's with the same pid.

    Without /proc it is the pid alone.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc(5): the name in parentheses may contain anything; starttime is field 22.
            started = file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError, UnicodeDecodeError):
        started = ""
    return f"{pid}:{started}"


def is_known(pid: int) -> bool:
    """Return whether the command line of process `pid` can be read."""
    return _command_line(pid) is not None


def is_ssh(pid: int) -> bool:
    """Return whether process `pid` is known to be an ssh."""
    return bool(_arguments(pid))


def wants_session(pid: int) -> bool:
    """Return whether process `pid` is an ssh that will log in; true if that is unknown."""
    return not any(letter in _WITHOUT_SESSION for letter, _ in parse_options(_arguments(pid)))


def wants_quiet(pid: int) -> bool:
    """Return whether the command line of the ssh `pid` asks for errors only (``-q``)."""
    return log_level(parse_options(_arguments(pid))) in _QUIET


def typed_login(pid: int) -> str | None:
    """Return the login name on the command line of the ssh `pid`; None if there is none."""
    return login_name(parse_options(_arguments(pid)))


def typed_host(pid: int) -> str | None:
    """Return the host on the command line of the ssh `pid`, after fold_host(); None if unknown."""
    for letter, value in parse_options(_arguments(pid)):
        if letter == _DESTINATION:  # USER@HOST or ssh://USER@HOST:PORT/
            host = value.rpartition("@")[2].removeprefix("ssh://")
            is_url = value.startswith("ssh://")
            return fold_host(re.split("[:/]", host)[0] if is_url else host)
    return None


def connect_timeout(pid: int) -> int | None:
    """Return the seconds of ``-o ConnectTimeout`` on the command line of the ssh `pid`.

    Return None if there is no such option, or its value is not a plain number.
    """
    for letter, value in parse_options(_arguments(pid)):
        if letter == "o" and (match := _CONNECT_TIMEOUT.fullmatch(value)):
            return int(match[1])
    return None


def typed_bypass(pid: int) -> str | None:
    """Return how the command line of the ssh `pid` bypasses our ProxyCommand; see find_bypass()."""
    return find_bypass(parse_options(_arguments(pid)))


def ask_options(pid: int) -> dict[str, str]:
    """Return the options of the ssh `pid`, which has a ProxyCommand on its command line.

    They are what ``ssh -G`` prints for the same command line, by lower-case name; the last one
    counts.  Return {} if there is no such ProxyCommand, or ssh does not answer.
    """
    options = parse_options(_arguments(pid))
    if not any(letter == "o" and _PROXY_COMMAND.match(value) for letter, value in options):
        return {}
    words = [f"-{letter}{value}" for letter, value in options if letter in _DECIDING]
    words += ["--", *(value for letter, value in options if letter == _DESTINATION)]
    try:
        ssh = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        ssh = find_program("ssh", os.environ) or ""
    try:
        done = run([ssh, "-G", *words], environment=os.environ, limit_s=_ASK_S)
    except (OSError, TimeoutError):
        return {}
    lines = done.stdout.decode("utf-8", "replace").splitlines() if done.status == 0 else []
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def find_bypass(options: list[tuple[str, str]]) -> str | None:
    """Return the jump host that ssh's options set, "" if they make ssh connect directly, else None.

    Neither can work, because no other computer knows the machine's name.  Another ProxyCommand is
    allowed: it may know how to reach the gateway.  As in readconf.c, the first of ``-J``, ProxyJump
    and ProxyCommand counts.
    """
    found = []
    for letter, value in options:
        if letter == "J":
            found.append(("proxyjump", value))
        elif letter == "o" and (match := _BYPASS.fullmatch(value)):
            found.append((match[1].lower(), match[2]))
    match found[:1]:
        case [("proxyjump", jump)] if jump.lower() != "none":
            return jump
        case [("proxycommand", command)] if command.lower() == "none":
            return ""
    return None


def login_name(options: list[tuple[str, str]]) -> str | None:
    """Return the login name that ssh's options and destination set; None if they set none.

    As in ssh.c, the first of ``-l``, ``-o User=`` and ``USER@HOST`` wins.
    """
    for letter, value in options:
        if letter == "l":
            return value
        if letter == "o" and (match := _USER.fullmatch(value)):
            return match[1]
        if letter == _DESTINATION and "@" in value:
            return value.removeprefix("ssh://").rpartition("@")[0]
    return None


def log_level(options: list[tuple[str, str]]) -> str:
    """Return the LogLevel that ssh's options set, in lower case; "" if they set none.

    As in ssh.c, the last -q or -v wins, and an -o counts only if neither of them nor another -o
    came before it.
    """
    level = ""
    for letter, value in options:
        if letter in ("q", "v"):
            level = "quiet" if letter == "q" else "debug"
        elif letter == "o" and not level and (match := _LOG_LEVEL.fullmatch(value)):
            level = match[1].lower()
    return level


def _arguments(pid: int) -> list[str]:
    """Return the arguments of process `pid`; [] if it is not an ssh or they cannot be read."""
    words = _command_line(pid) or []
    is_program = bool(words) and _SSH.search(os.path.basename(words[0])) is not None
    return words[1:] if is_program or (words and _runs_ssh(pid)) else []


def _runs_ssh(pid: int) -> bool:
    """Return whether process `pid` runs an ssh under another name; false without /proc."""
    try:
        return _SSH.search(os.path.basename(os.readlink(f"/proc/{pid}/exe"))) is not None
    except OSError:
        return False


def _command_line(pid: int) -> list[str] | None:
    """Return the words of a process's command line, None if it cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return _ask_ps(pid)


@functools.lru_cache(maxsize=1)
def _ask_ps(pid: int) -> list[str] | None:
    """Return a process's command line from ps(1), beginning with the name of an ssh if it has one.

    ps does not distinguish spaces within a word from those between words.
    """
    program = find_program("ps", os.environ, ("/bin", "/usr/bin"))
    if program is None:
        return None
    try:
        done = run(
            [program, "-ww", "-o", "args=", "-p", str(pid)],
            environment={"PATH": os.defpath}, limit_s=_PS_S,
        )  # fmt: skip
    except (OSError, TimeoutError):
        return None
    words = done.stdout.decode("utf-8", "replace").split()
    if done.status or not words:
        return None
    named = [at for at, word in enumerate(words) if _SSH.search(os.path.basename(word))]
    return words[named[0] :] if named else words


def parse_options(arguments: list[str]) -> list[tuple[str, str]]:
    """Return the letters and values of the options in ssh's arguments.

    As in ssh.c, options may come before and after the destination, which is returned as an option
    without a letter.  The words of a remote command are not options of ssh.
    """
    options: list[tuple[str, str]] = []
    hosts = 0
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--" or not argument.startswith("-") or argument == "-":
            hosts += 1
            if hosts == 2:
                break
            if argument == "--":
                options += [(_DESTINATION, word) for word in arguments[position : position + 1]]
                break
            options.append((_DESTINATION, argument))
            continue
        for index, letter in enumerate(argument[1:], 1):
            if letter not in _WITH_ARGUMENT:
                options.append((letter, ""))
                continue
            # The value is the rest of this word or, if that is empty, the next word.
            value = argument[index + 1 :] or "".join(arguments[position : position + 1])
            position += index == len(argument) - 1
            options.append((letter, value))
            break
    return options
