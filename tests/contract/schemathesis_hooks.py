"""What schemathesis is told beyond the documents: strings that the emulator takes for more.

The contract says `string` of a public key, and leaves it open what else it has to be.
"""

from __future__ import annotations

from typing import Any

import schemathesis

from dcs_proxy.names import is_machine_name
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import public_line

_PUBLIC_KEY = public_line(generate_key().public)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Let a request that keeps to the documents be one that can succeed."""
    if is_machine_name(str((case.path_parameters or {}).get("machine_id"))):
        case.path_parameters["machine_id"] = "dm-foo"
    if isinstance(case.body, dict) and isinstance(case.body.get("public_key"), str):
        case.body["public_key"] = _PUBLIC_KEY
    if (case.headers or {}).get("Idempotency-Key") == "":
        case.headers["Idempotency-Key"] = "k"
    # A cursor is what the list gave before, and nothing else.
    if isinstance((case.query or {}).get("cursor"), str):
        del case.query["cursor"]
