#!/usr/bin/env python3
"""Compare our assumptions about the service with the source of its Python client.

Usage: drift_check.py DIRECTORY, with the unpacked wheel of the client.  Its source is parsed, never
imported.  Our assumptions about statuses, phases, error codes and ids are in the emulator, those
about routes and fields below.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dcs_proxy.emulator.contract import ERROR_CODES
from dcs_proxy.emulator.ids import Ids
from dcs_proxy.emulator.machines import PHASES, STATUSES

# The routes that we use (True), and those that the client has and we do not use (False).
ROUTES = {
    "GET /v1/machines": True,
    "POST /v1/machines": False,
    "GET /v1/machines/{machine_id}": True,
    "PATCH /v1/machines/{machine_id}": False,
    "DELETE /v1/machines/{machine_id}": False,
    "POST /v1/machines/{machine_id}/sleep": False,
    "POST /v1/machines/{machine_id}/wake": False,
    "POST /v1/machines/{machine_id}/reboot": False,
    "GET /v1/machines/{machine_id}/ssh": False,
    "POST /v1/machines/{machine_id}/ssh": True,
    "GET /v1/machines/{machine_id}/ssh/{session_id}": True,
    "DELETE /v1/machines/{machine_id}/ssh/{session_id}": True,
}
# Routes that begin with these are irrelevant to us.
OTHER_ROUTES = re.compile(
    r"\S+ /v1/(machines/\{machine_id\}/(executions|autoresizing)|organization)"
)
_SIZE = frozenset({"vcpu", "memory_mib", "storage_gib", "autosleep_seconds"})
FIELDS = {
    "SSHSession": frozenset(
        {"session_id", "machine_id", "status", "created_at", "ready_at", "expires_at",
         "retry_after_ms", "error_code", "error_message", "connection"}
    ),
    "SSHConnection": frozenset(
        {"endpoint", "port", "ssh_username", "user_certificate", "host_trust"}
    ),
    "SSHHostTrust": frozenset({"kind", "host_pattern", "public_key"}),
    "MachineListItem": _SIZE | {"machine_id", "phase", "desired_state", "created_at"},
    "MachineRetrieveResponse": _SIZE | {"machine_id", "status", "desired_state"},
    "LifecycleStatus": frozenset(
        {"phase", "reason", "retryable", "revision", "last_error", "last_progress_at",
         "last_transition_at", "memory_assigned_mib", "memory_configured_mib",
         "memory_last_autoresized_at", "memory_resize_state", "memory_target_mib"}
    ),
    "SSHCreateParams": frozenset({"machine_id", "public_key"}),
    "MachineListParams": frozenset({"limit", "cursor"}),
}  # fmt: skip
VALUES = {
    "SSHSession.status": frozenset(STATUSES),
    "SSHHostTrust.kind": frozenset({"cert_authority"}),
    "MachineListItem.phase": frozenset(PHASES),
    "LifecycleStatus.phase": frozenset(PHASES),
}
# How the client describes a machine's id and an Idempotency-Key.
SAID = frozenset(
    {
        "Bare, lowercase, hyphenated Machine UUID. Pass the returned machine_id unchanged.",
        "The API requires a compact UUIDv7; retries reuse this generated key.",
    }
)
VARIABLES = frozenset(
    {"DEDALUS_API_KEY", "DEDALUS_X_API_KEY", "DEDALUS_ORG_ID", "DEDALUS_BASE_URL", "DEDALUS_LOG",
     "DEDALUS_AS_URL", "DEDALUS_CUSTOM_HEADERS"}
)  # fmt: skip
ERROR_STATUSES = frozenset({"401", "403", "409", "429", "503"})

_METHODS = {"_get": "GET", "_post": "POST", "_put": "PUT", "_patch": "PATCH", "_delete": "DELETE",
            "_get_api_list": "GET"}  # fmt: skip
_EXAMPLE_ID = re.compile(r'\bmachine_id="([^"]+)"')
_ABOUT_IDS = re.compile(r"(?:machine_id: |# )(\S[^\n]*(?:UUID|\bdm-)[^\n]*)")
_ERROR_CODE = re.compile(r"\b[A-Z]{3,}(?:_[A-Z]+)+\b")
_VARIABLE = re.compile(r"\bDEDALUS_[A-Z_]+\b")
_STATUSES = re.compile(r"^Documented error statuses: (.*)$", re.MULTILINE)


@dataclass
class Client:
    """What the source of a client says about the service."""

    version: str = "unknown"
    routes: set[str] = field(default_factory=set)
    fields: dict[str, set[str]] = field(default_factory=dict)
    values: dict[str, set[str]] = field(default_factory=dict)
    example_ids: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    error_codes: set[str] = field(default_factory=set)
    error_statuses: set[str] = field(default_factory=set)


def read_client(directory: Path) -> Client:
    """Read the source and metadata of the client that is unpacked in `directory`."""
    client = Client()
    for path in sorted(directory.rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        client.routes |= set(_routes(tree))
        _read_classes(client, tree)
        client.example_ids |= set(_EXAMPLE_ID.findall(text))
        client.said |= {said.strip() for said in _ABOUT_IDS.findall(text)}
        client.variables |= set(_VARIABLE.findall(text))
        # Other files contain the names of the client's own constants.
        if {"types", "resources"} & set(path.relative_to(directory).parts):
            client.error_codes |= set(_ERROR_CODE.findall(" ".join(_strings(tree))))
    for path in directory.glob("*.dist-info/METADATA"):
        text = path.read_text()
        client.version = re.findall(r"^Version: (.*)$", text, re.MULTILINE)[0]
        for line in _STATUSES.findall(text):
            client.error_statuses |= set(re.findall(r"`(\d{3})`", line))
    client.error_codes -= client.variables
    return client


def differences(client: Client) -> Iterator[str]:
    """Yield a line for each difference between the client and our assumptions."""
    used = {route for route, is_used in ROUTES.items() if is_used}
    new = {route for route in client.routes - set(ROUTES) if not OTHER_ROUTES.match(route)}
    yield from _each("route is new", new)
    yield from _each("route that we use is gone", used - client.routes)
    yield from _compared("field", FIELDS, client.fields)
    yield from _compared("value", VALUES, client.values)
    ids = Ids("uuid")
    strange = {each for each in client.example_ids if ids.refuse_machine(each) is not None}
    yield from _each("example of a machine's id is not one to us", strange)
    if not client.example_ids:
        yield "no example of a machine's id"
    yield from _each("said of ids", client.said - SAID)
    yield from _each("no longer said of ids", SAID - client.said)
    yield from _each("variable is new", client.variables - VARIABLES)
    yield from _each("error code is new", client.error_codes - ERROR_CODES)
    yield from _each("error status is new", client.error_statuses - ERROR_STATUSES)
    yield from _each("error status is gone", ERROR_STATUSES - client.error_statuses)


def _compared(
    what: str, assumed: Mapping[str, frozenset[str]], found: Mapping[str, set[str]]
) -> Iterator[str]:
    for name, ours in assumed.items():
        theirs = found.get(name)
        if theirs is None:
            yield f"{name} is gone"
            continue
        yield from _each(f"{what} of {name} is new", theirs - ours)
        yield from _each(f"{what} of {name} is gone", ours - theirs)


def _each(what: str, found: Iterable[str]) -> Iterator[str]:
    for each in sorted(found):
        yield f"{what}: {each}"


def _routes(tree: ast.AST) -> Iterator[str]:
    """Yield ``METHOD PATH`` for each request that a method sends."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        method, path = _METHODS.get(node.func.attr), node.args[0]
        if isinstance(path, ast.Call) and path.args:  # path_template(PATH, ...)
            path = path.args[0]
        if method and isinstance(path, ast.Constant) and str(path.value).startswith("/"):
            yield f"{method} {path.value}"


def _read_classes(client: Client, tree: ast.AST) -> None:
    """Record the fields of each class, and the values of Literal fields."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = line.target.id
                client.fields.setdefault(node.name, set()).add(name)
                if values := set(_literals(line.annotation)):
                    client.values.setdefault(f"{node.name}.{name}", set()).update(values)


def _literals(annotation: ast.AST) -> Iterator[str]:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            yield from _strings(node.slice)


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def main(directory: str) -> int:
    client = read_client(Path(directory))
    found = list(differences(client))
    compared = (
        f"{len(client.routes)} routes, {len(FIELDS)} objects, {len(VALUES)} lists of values, "
        f"{len(client.example_ids)} example ids"
    )
    print(f"the client's version is {client.version}: {compared}")
    print("\n".join(found) if found else "nothing is new")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
