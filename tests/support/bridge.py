"""A user whose ssh config is three lines by hand, and what the tests of the bridge look at."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.emulator import Emulator
from tests.support.processes import processes
from tests.support.user import User
from tests.support.waiting import wait_until


def write_config(user: User, emulator: Emulator, *lines: str) -> None:
    """Point the user at the emulator; write the config that README shows, and more `lines`."""
    user.use(emulator, config=False)
    text = [
        "Host dm-*",
        "    ProxyCommand dcs-proxy %h %p",
        f'    UserKnownHostsFile "{user.state}/known_hosts"',
        *(f"    {line}" for line in lines),
        # So that a question can be no answer.
        "Host *",
        "    StrictHostKeyChecking yes",
        "    PreferredAuthentications none",
    ]
    user.config.write_text("".join(f"{line}\n" for line in text))


def bridges_of(user: User) -> list[int]:
    """Return the processes that serve the user's clients."""
    found = []
    home = f"DCS_PROXY_HOME={user.state}".encode()
    for pid, (_, words) in processes().items():
        if len(words) > 3 and any(word.endswith("/dcs-proxy") for word in words[:2]):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if home in environment.split(b"\0"):
                found.append(pid)
    return found


def start_and_wait(user: User, *arguments: str, **more: Any) -> tuple[subprocess.Popen[bytes], int]:
    """Start an ssh that prints something at once; return it and its bridge when it is through."""
    ssh = user.start_ssh(*arguments, **more)
    assert ssh.stdout is not None
    first = ssh.stdout.readline()
    assert first, ssh.stderr and ssh.stderr.read()
    (bridge,) = bridges_of(user)
    return ssh, bridge


def wait_until_gone(user: User) -> None:
    """Wait until no bridge of the user's is left."""
    wait_until(lambda: not bridges_of(user))


def is_waking(user: User) -> bool:
    """Return whether the user's machine dm-foo has a session that is not ready yet."""
    return bool(user.record("dm-foo").get("attempt", {}).get("session_id"))


def set_rekeying(user: User, megabytes: int) -> None:
    """Make the bridge renew its keys on both sides after so many megabytes."""
    directory = user.root / "site"
    directory.mkdir(exist_ok=True)
    # Loaded by Python itself, before dcs-proxy: the bridge has no setting for it.
    (directory / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'dcs_proxy.bridge.packets':\n"
        "            import paramiko.packet\n"
        f"            paramiko.packet.Packetizer.REKEY_BYTES = {megabytes} << 20\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    user.environment["PYTHONPATH"] = os.fspath(directory)
