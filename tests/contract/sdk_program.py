"""A program of somebody who uses dedalus-sdk: python sdk_program.py MODE ACTION:MACHINE...

It runs with whatever version PYTHONPATH offers, and prints the list of what the actions gave, as
JSON.  In mode "strict" a reply must be what the models say; in mode "once" nothing is retried.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import dedalus_sdk

PUBLIC_KEYS = [
    f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{end}"
    for end in (
        "PYg2QUhOMxGmCnl7dqOnNhNntitV93NdLCGsU0vy1Lt",
        "GIglw1VyldGAtnljOFILnxl+kaPdaYBwj199kazE986",
    )
]


# The form that the newest version says the API requires.
IDEMPOTENCY_KEY = "017f22e279b07cc398c4dc0c0c07398f"
PENDING = ("wake_in_progress", "ssh_in_progress")


def version(_: Any, __: str) -> Any:
    return dedalus_sdk.__version__


def use_session(client: Any, machine: str) -> Any:
    """Create one, wait for it, close it."""
    ssh = client.machines.ssh
    first = session = ssh.create(machine_id=machine, public_key=PUBLIC_KEYS[0])
    seen = [first.status]
    while session.status in PENDING:
        time.sleep(session.retry_after_ms / 1000)
        session = ssh.retrieve(machine_id=machine, session_id=session.session_id)
        seen += [session.status] if session.status != seen[-1] else []
    closed = ssh.delete(machine_id=machine, session_id=session.session_id)
    return {
        "statuses": [*seen, closed.status],
        "endpoint": session.connection.endpoint,
        "port": session.connection.port,
        "login": session.connection.ssh_username,
        "host_ca": session.connection.host_trust.public_key,
        "certificate": session.connection.user_certificate,
        "lasts_s": (session.expires_at - session.ready_at).total_seconds(),
    }


def create(client: Any, machine: str) -> Any:
    return client.machines.ssh.create(machine_id=machine, public_key=PUBLIC_KEYS[0]).session_id


def list_sessions(client: Any, machine: str) -> Any:
    """List them, one for each page."""
    return [s.session_id for s in client.machines.ssh.list(machine_id=machine, limit=1)]


def list_machines(client: Any, _: str) -> Any:
    """List all, one for each page."""
    return [machine.machine_id for machine in client.machines.list(limit=1)]


def phase(client: Any, machine: str) -> Any:
    return client.machines.retrieve(machine_id=machine).status.phase


def reuse_idempotency_key(client: Any, machine: str) -> Any:
    for public_key in PUBLIC_KEYS:
        client.machines.ssh.create(
            machine_id=machine, public_key=public_key, idempotency_key=IDEMPOTENCY_KEY
        )


def send_rubbish(client: Any, machine: str) -> Any:
    client.machines.ssh.create(machine_id=machine, public_key="rubbish")


def get_unknown_session(client: Any, machine: str) -> Any:
    client.machines.ssh.retrieve(machine_id=machine, session_id="wssh-none")


def do(client: Any, action: str) -> Any:
    """Do one action; of an error that is raised for a status, return what a program can see."""
    name, _, machine = action.partition(":")
    try:
        return globals()[name](client, machine)
    except dedalus_sdk.APIStatusError as error:
        return {"error": type(error).__name__, "status": error.status_code, "body": error.body}


def main(mode: str, *actions: str) -> None:
    client = dedalus_sdk.Dedalus(_strict_response_validation=mode == "strict")
    if mode == "once":
        client = client.with_options(max_retries=0)
    print(json.dumps([do(client, action) for action in actions]))


if __name__ == "__main__":
    main(*sys.argv[1:])
