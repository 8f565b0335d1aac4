"""The two OpenAPI documents, and whether a reply keeps to them.

`ids` is the kind of ids that a service uses: "dm", as in the documents, or "uuid", for which they
are changed as dedalus-sdk 0.6.0 has it.
"""

from __future__ import annotations

import functools
import http.client
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DATA = Path(__file__).parent.parent / "data"
CONTRACT = DATA / "create-ssh-session.yaml"
OTHER_ROUTES = DATA / "other-routes.yaml"
CREATE = "/v1/machines/{machine_id}/ssh"
_SERVER = "https://dcs.dedaluslabs.ai"


class BrokenContractError(AssertionError):
    """A reply is not what the documents promise."""


class Tally:
    """How many replies were checked in this process."""

    checked = 0


def load_contract() -> dict[str, Any]:
    """Return the contract, createMachineSSHSession."""
    return _load(CONTRACT.read_text())


def load_whole(ids: str = "dm") -> dict[str, Any]:
    """Return one document of all routes, in which sessions link to what can follow them."""
    whole = load_contract()
    other = _load(OTHER_ROUTES.read_text().replace(f"{CONTRACT.name}#", "#"))
    for path, methods in other["paths"].items():
        whole["paths"].setdefault(path, {}).update(methods)
    for kind, named in other["components"].items():
        whole["components"].setdefault(kind, {}).update(named)
    created = whole["paths"][CREATE]["post"]["responses"]["200"]
    created["links"] = other["components"]["links"]
    if ids == "uuid":
        _use_uuids(whole["components"]["schemas"])
        # A machine that was just created is not found in the words of the other errors.
        error = {"schema": {"$ref": "#/components/schemas/Error"}}
        whole["components"]["responses"]["Problem"]["content"]["application/json"] = error
        default = whole["paths"][CREATE]["post"]["responses"]["default"]
        default["content"]["application/json"] = error
    return whole


def _use_uuids(schemas: dict[str, Any]) -> None:
    """Change what the service has changed with its ids."""
    uuid = {"type": "string", "format": "uuid", "pattern": "^[0-9a-f-]{36}$"}
    schemas["MachineIDPathSegment"] = uuid
    session, listed = schemas["SSHSessionResponse"], schemas["ListedMachine"]
    session["properties"] |= {"machine_id": uuid, "session_id": uuid}
    session["properties"]["status"]["enum"].append("ssh_in_progress")
    listed["properties"]["status"] = {"$ref": "#/components/schemas/MachineStatus"}
    listed["required"].append("status")


def documented_errors() -> dict[str, tuple[int, dict[str, Any]]]:
    """Return the contract's examples of errors by name: status and body."""
    responses = load_contract()["paths"][CREATE]["post"]["responses"]
    return {
        name: (int(status), example["value"])
        for status, response in responses.items()
        for content in response["content"].values()
        for name, example in content.get("examples", {}).items()
    }


def check_recorded(file: Path, ids: str = "dm") -> None:
    """Check every reply that recording.py wrote down.  Raises BrokenContractError at the first."""
    if file.exists():
        for line in file.read_text().splitlines():
            check_reply(**json.loads(line), ids=ids)


def check_reply(method: str, path: str, reply: str, ids: str = "dm") -> None:
    """Check one reply, whose bytes are given as Latin-1.  Raises BrokenContractError.

    The emulator's control routes are no part of the contract; a reply to HEAD has no body.
    """
    if path.startswith("/emulator/") or method == "HEAD":
        return
    status, kind, body = _parse(reply)
    fault = _fault(ids, method, urlsplit(path).path, status, kind, body)
    if fault:
        raise BrokenContractError(f"{method} {path}: {fault}\n{reply}")
    Tally.checked += 1


def _fault(ids: str, method: str, path: str, status: int, kind: str, body: bytes) -> str:
    """Say what is wrong with a reply, "" if nothing is."""
    # Only who has a reply to check waits for this import.
    from openapi_core.exceptions import OpenAPIError
    from openapi_core.templating.paths.exceptions import PathError
    from openapi_core.testing import MockRequest, MockResponse

    request = MockRequest(_SERVER, method.lower(), path)
    try:
        _whole(ids).validate_response(request, MockResponse(body, status, content_type=kind))
    except PathError:
        return "" if status >= 400 else "no document has this route"
    except OpenAPIError as error:
        causes = getattr(error.__cause__, "schema_errors", [])
        return "; ".join([str(error), *(f"{c.json_path}: {c.message}" for c in causes)])
    return ""


@functools.cache
def _whole(ids: str) -> Any:
    from openapi_core import Config, OpenAPI

    # It knows no JSON but application/json.
    config = Config(extra_media_type_deserializers={"application/problem+json": json.loads})
    return OpenAPI.from_dict(load_whole(ids), config)


def _load(text: str) -> dict[str, Any]:
    import yaml

    document: dict[str, Any] = yaml.safe_load(text)
    return document


def _parse(reply: str) -> tuple[int, str, bytes]:
    """Return status, content type and body (RFC 9112).  Raises BrokenContractError."""
    head, _, rest = reply.partition("\r\n\r\n")
    first, _, fields = head.partition("\r\n")
    status = re.fullmatch(r"HTTP/1\.1 (\d{3}) [ -~]*", first)
    headers = http.client.parse_headers(io.BytesIO(f"{fields}\r\n\r\n".encode("latin-1")))
    body = rest.encode("latin-1")
    if status is None or headers.defects or headers["Content-Length"] != str(len(body)):
        raise BrokenContractError(f"not one HTTP/1.1 reply\n{reply}")
    return int(status[1]), headers.get_content_type(), body
