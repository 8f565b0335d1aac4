"""The programs above our ssh in the process tree that need messages of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from dcs_proxy.openssh.parent import connect_timeout

# Programs that may give up during a wake, which resumes if the user tries again: the process name,
# and the line to show.
_IMPATIENT = {
    "gvfsd-sftp": "the file manager gives up after 40 s: open the folder again; the wake continues",
}
# VS Code's Remote-SSH sets this for each ssh that it starts.
_VSCODE = "VSCODE_SSH_ASKPASS_HANDLE"
_VSCODE_DEFAULT_S = 15
# Its own timer exceeds the ConnectTimeout that it passes to ssh by this much.
_VSCODE_MORE_S = 2
_ANSIBLE = re.compile(r"ansible(-[a-z]+)?\Z")
_MAX_DEPTH = 12


def find_advice(pid: int, environment: Mapping[str, str], wake_seconds: int) -> str:
    """Return advice for the user of a program that may give up during a wake, else "".

    `pid` is the ssh that runs us; a wake may take up to `wake_seconds`.
    """
    if environment.get(_VSCODE):
        seconds = (connect_timeout(pid) or _VSCODE_DEFAULT_S) + _VSCODE_MORE_S
        return (
            f"VS Code gives up after {seconds} s: then press Retry; the wake continues "
            "(to make VS Code wait: dcs-proxy config-ssh --vscode)"
            if seconds < wake_seconds
            else ""
        )
    for words in _ancestors(pid):
        if advice := _IMPATIENT.get(os.path.basename(words[0])):
            return advice
    return ""


def is_run_by_ansible(pid: int) -> bool:
    """Return whether process `pid` descends from Ansible; false without /proc."""
    # As a script it is the second word, after Python's path; as ``python -m``, the third.
    return any(
        _ANSIBLE.match(os.path.basename(word)) for words in _ancestors(pid) for word in words[:3]
    )


def _ancestors(pid: int) -> Iterator[list[str]]:
    """Yield the command lines of process `pid` and of its ancestors; nothing without /proc."""
    for _ in range(_MAX_DEPTH):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = os.fsdecode(file.read()).split("\0")
            with open(f"/proc/{pid}/stat", "rb") as file:
                # proc(5): the name in parentheses may contain anything; ppid is field 4.
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            return
        yield words
