"""The ssh that runs us: which process it is, whether it wants a session at all, and how quiet.

ssh evaluates ``Match exec`` whenever it reads its configuration, also for ``ssh -G`` and
``ssh -O check``, which log in nowhere and so must wake nothing.
"""

from __future__ import annotations

import os
import re

# ssh's getopt string (ssh.c): the letters that take an argument, of 8.2 to 10.x.
_WITH_ARGUMENT = frozenset("BDEFIJLOPQRSWbceilmopw")
# Print the configuration, control a running master, query, print the version.
_WITHOUT_SESSION = frozenset("GOQV")
_LOG_LEVEL = re.compile(r"\s*loglevel[\s=]+\"?([a-z]+[0-9]?)\"?\s*", re.IGNORECASE)
# ssh_config(5): the levels below INFO.
_QUIET = frozenset({"quiet", "fatal", "error"})


def client_id(pid: int) -> str:
    """Return what identifies process `pid` among all that ever had its number, where known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc(5): the name, in parentheses, may hold anything; starttime is field 22.
            started = file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError, UnicodeDecodeError):
        started = ""
    return f"{pid}:{started}"


def wants_session(pid: int) -> bool:
    """Tell whether the ssh with process number `pid` is going to log in, as far as one can see."""
    return not any(letter in _WITHOUT_SESSION for letter, _ in parse_options(_arguments(pid)))


def wants_quiet(pid: int) -> bool:
    """Tell whether the command line of the ssh `pid` asks for errors at most (``-q``)."""
    return log_level(parse_options(_arguments(pid))) in _QUIET


def log_level(options: list[tuple[str, str]]) -> str:
    """Return the LogLevel that ssh's options set, in lower case; "" if they do not.

    As ssh.c has it: the last -q or -v wins, and an -o counts only if nothing came before it.
    """
    level = ""
    for letter, value in options:
        if letter in ("q", "v"):
            level = "quiet" if letter == "q" else "debug"
        elif letter == "o" and not level and (match := _LOG_LEVEL.fullmatch(value)):
            level = match[1].lower()
    return level


def _arguments(pid: int) -> list[str]:
    """Return the arguments of process `pid` if it is an ssh, as far as one can see."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []
    return words[1:] if words and os.path.basename(words[0]) == "ssh" else []


def parse_options(arguments: list[str]) -> list[tuple[str, str]]:
    """Return letters and values of the options in ssh's arguments; not those of the command.

    As ssh.c parses them: options, host, options again, command.
    """
    options: list[tuple[str, str]] = []
    hosts = 0
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--" or not argument.startswith("-") or argument == "-":
            hosts += 1
            if hosts == 2 or (argument == "--" and hosts == 1):
                break
            continue
        for index, letter in enumerate(argument[1:], 1):
            if letter not in _WITH_ARGUMENT:
                options.append((letter, ""))
                continue
            # The rest of this word, or the whole next one.
            value = argument[index + 1 :] or "".join(arguments[position : position + 1])
            position += index == len(argument) - 1
            options.append((letter, value))
            break
    return options
