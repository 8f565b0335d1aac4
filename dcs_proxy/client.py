"""The ssh that runs us: which process it is, and whether it wants a session at all.

ssh evaluates ``Match exec`` whenever it reads its configuration, also for ``ssh -G`` and
``ssh -O check``, which log in nowhere and so must wake nothing.
"""

from __future__ import annotations

import os

# ssh's getopt string (ssh.c): the letters that take an argument, of 8.2 to 10.x.
_WITH_ARGUMENT = frozenset("BDEFIJLOPQRSWbceilmopw")
# Print the configuration, control a running master, query, print the version.
_WITHOUT_SESSION = frozenset("GOQV")


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
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return True
    if not arguments or os.path.basename(arguments[0]) != "ssh":
        return True
    return not _WITHOUT_SESSION.intersection(option_letters(arguments[1:]))


def option_letters(arguments: list[str]) -> list[str]:
    """Return the letters of the options in ssh's arguments; those of the command do not count.

    As ssh.c parses them: options, host, options again, command.
    """
    letters: list[str] = []
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
            letters.append(letter)
            if letter in _WITH_ARGUMENT:
                # The rest of this word, or the whole next one.
                position += index == len(argument) - 1
                break
    return letters
