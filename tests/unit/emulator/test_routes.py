"""What the control plane answers: each rule of the contract, and a client that breaks it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from dcs_proxy.emulator.authority import Authorities
from dcs_proxy.emulator.contract import Response
from dcs_proxy.emulator.describe import Describer
from dcs_proxy.emulator.faults import Faults
from dcs_proxy.emulator.ids import Ids
from dcs_proxy.emulator.machines import Service
from dcs_proxy.emulator.routes import Request, Routes
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import public_line

SESSIONS = "/v1/machines/dm-foo/ssh"
JSON = {"Content-Type": "application/json"}
KEY = {"Idempotency-Key": "k1"}
PUBLIC_KEY = public_line(generate_key().public)


class Plane:
    """The routes of a service with dm-foo and dm-bar running, and a way to ask them."""

    def __init__(self, kind: str = "dm", **more: Any) -> None:
        self.service = Service(5.0, 3600.0, 300.0, ids=Ids(kind))
        for name in ("dm-foo", "dm-bar"):
            self.service.add(name, "running")
        describer = Describer(
            self.service, Authorities(), Faults(), "ssh.example", {"": 22}, frozenset()
        )
        self.routes = Routes(self.service, describer, Faults(), **more)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts = path.strip("/").split("/")
        return self.routes.answer(Request(method, parts, query or {}, headers or {}, data))

    def create(self, path: str = SESSIONS, key: str = "k1", body: object = None) -> Response:
        body = {"public_key": PUBLIC_KEY} if body is None else body
        return self.ask("POST", path, body, {**JSON, "Idempotency-Key": key})

    def session_id(self) -> str:
        return str(json.loads(self.create(key=uuid.uuid4().hex).body)["session_id"])


def location_of(reply: Response) -> str:
    assert reply.content_type == "application/problem+json"
    return str(json.loads(reply.body)["errors"][0]["location"])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/machines", "GET"),
        ("DELETE", "/v1/machines/dm-foo", "GET"),
        ("DELETE", SESSIONS, "POST, GET"),
        ("POST", f"{SESSIONS}/x", "GET, DELETE"),
    ],
)
def test_a_method_that_a_route_lacks_is_refused(method: str, path: str, allowed: str) -> None:
    reply = Plane().ask(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/machines", "/v1/machine", f"{SESSIONS}/a/b"])
def test_an_unknown_route_is_404(path: str) -> None:
    assert Plane().ask("GET", path).status == 404


def test_a_post_only_deployment_has_the_contracts_route_and_no_other() -> None:
    plane = Plane(post_only=True)
    assert plane.create().status == 200
    assert plane.ask("GET", SESSIONS).status == 405
    for path in ("/v1/machines", "/v1/machines/dm-foo", f"{SESSIONS}/{plane.session_id()}"):
        assert plane.ask("GET", path).status == 404


@pytest.mark.parametrize(
    ("body", "headers", "status", "location"),
    [
        ({"public_key": PUBLIC_KEY}, {**JSON}, 422, "header.Idempotency-Key"),
        ({"public_key": PUBLIC_KEY}, {**JSON, "Idempotency-Key": ""}, 422,
         "header.Idempotency-Key"),
        ({}, {**JSON, **KEY}, 422, "body.public_key"),
        ({"public_key": None}, {**JSON, **KEY}, 422, "body.public_key"),
        ({"public_key": ""}, {**JSON, **KEY}, 422, "body.public_key"),
        ({"public_key": "ssh-ed25519 AAAA"}, {**JSON, **KEY}, 422, "body.public_key"),
        ({"public_key": PUBLIC_KEY, "extra": 1}, {**JSON, **KEY}, 422, "body.extra"),
        ([], {**JSON, **KEY}, 422, "body"),
        ("text", {**JSON, **KEY}, 422, "body"),
        (b"", {**JSON, **KEY}, 400, "body"),
        (b"\xff", {**JSON, **KEY}, 400, "body"),
        (b"[" * 100_000, {**JSON, **KEY}, 400, "body"),
    ],
)  # fmt: skip
def test_a_wrong_request_creates_nothing_and_says_where(
    body: object, headers: dict[str, str], status: int, location: str
) -> None:
    plane = Plane()
    reply = plane.ask("POST", SESSIONS, body, headers)
    assert (reply.status, location_of(reply)) == (status, location)
    assert not plane.service.sessions


@pytest.mark.parametrize("kind", ["", "text/plain", "application/jsonx", "text/json"])
def test_a_body_that_is_not_json_by_name_is_415(kind: str) -> None:
    plane = Plane()
    reply = plane.ask("POST", SESSIONS, {"public_key": PUBLIC_KEY}, {"Content-Type": kind, **KEY})
    assert reply.status == 415
    assert not plane.service.sessions


@pytest.mark.parametrize("machine", ["DM-foo", "foo", "dm-", "dm-a_b", "dm-%41"])
def test_a_wrong_machine_id_is_refused_on_every_route(machine: str) -> None:
    plane = Plane()
    replies = [
        plane.create(f"/v1/machines/{machine}/ssh"),
        plane.ask("GET", f"/v1/machines/{machine}"),
        plane.ask("GET", f"/v1/machines/{machine}/ssh"),
        plane.ask("GET", f"/v1/machines/{machine}/ssh/x"),
        plane.ask("DELETE", f"/v1/machines/{machine}/ssh/x", headers=KEY),
    ]
    assert {(reply.status, location_of(reply)) for reply in replies} == {(422, "path.machine_id")}


def test_a_session_is_seen_and_closed_under_its_own_machine_only() -> None:
    plane = Plane()
    session_id = plane.session_id()
    elsewhere = f"/v1/machines/dm-bar/ssh/{session_id}"
    assert plane.ask("GET", elsewhere).status == 404
    assert plane.ask("DELETE", elsewhere, headers=KEY).status == 404
    assert json.loads(plane.ask("GET", f"{SESSIONS}/{session_id}").body)["status"] == "ready"


def test_closing_needs_an_idempotency_key() -> None:
    plane = Plane()
    path = f"{SESSIONS}/{plane.session_id()}"
    assert location_of(plane.ask("DELETE", path)) == "header.Idempotency-Key"
    assert json.loads(plane.ask("GET", path).body)["status"] == "ready"
    assert json.loads(plane.ask("DELETE", path, headers=KEY).body)["status"] == "closed"


def test_one_key_for_two_requests_is_a_conflict() -> None:
    plane = Plane()
    assert plane.create().status == 200
    other = {"public_key": public_line(generate_key().public)}
    for reply in (plane.create(body=other), plane.create("/v1/machines/dm-bar/ssh")):
        assert reply.status == 409
        assert json.loads(reply.body)["error_code"] == "IDEMPOTENCY_KEY_REUSED"
    assert len(plane.service.sessions) == 1


def test_a_comment_behind_the_key_makes_no_other_request() -> None:
    plane = Plane()
    first = plane.create(body={"public_key": PUBLIC_KEY})
    again = plane.create(body={"public_key": f"{PUBLIC_KEY} me@here"})
    assert json.loads(first.body)["session_id"] == json.loads(again.body)["session_id"]


def test_every_change_takes_from_the_same_limit() -> None:
    plane = Plane(rate_limit=2.0)
    path = f"{SESSIONS}/{plane.session_id()}"
    assert plane.ask("DELETE", path, headers=KEY).status == 200
    for refused in (plane.ask("DELETE", path, headers=KEY), plane.create(key="k9")):
        body = json.loads(refused.body)
        assert (refused.status, body["error_code"]) == (429, "RATE_LIMITED")
        assert body["details"]["rate_limit_scope"] == "mutating_lifecycle_routes"
        assert int(refused.headers["Retry-After"]) * 1000 >= body["retry_after_ms"] > 0
    assert plane.ask("GET", path).status == 200


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ({"limit": "0"}, "query.limit"),
        ({"limit": "101"}, "query.limit"),
        ({"limit": "-1"}, "query.limit"),
        ({"limit": "ten"}, "query.limit"),
        ({"limit": ""}, "query.limit"),
        ({"limit": "٣"}, "query.limit"),
        ({"cursor": "x"}, "query.cursor"),
        ({"cursor": "MTA"}, "query.cursor"),
    ],
)
def test_a_page_has_limits(query: dict[str, str], location: str) -> None:
    for path in ("/v1/machines", SESSIONS):
        reply = Plane().ask("GET", path, query=query)
        assert (reply.status, location_of(reply)) == (422, location)


def test_pages_hold_each_machine_once() -> None:
    plane = Plane()
    seen, cursor = [], ""
    while True:
        query = {"limit": "1", **({"cursor": cursor} if cursor else {})}
        page = json.loads(plane.ask("GET", "/v1/machines", query=query).body)
        assert len(page["items"]) == 1
        seen += [item["machine_id"] for item in page["items"]]
        cursor = page.get("next_cursor", "")
        if not cursor:
            break
    assert seen == ["dm-bar", "dm-foo"]


@pytest.mark.parametrize(
    "key", ["k1", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "017F22E279B07CC398C4DC0C0C07398F",
            "017f22e279b04cc398c4dc0c0c07398f", "017f22e279b07cc3c8c4dc0c0c07398f"],
)  # fmt: skip
def test_with_uuids_a_key_is_a_compact_uuid_of_version_7(key: str) -> None:
    plane = Plane("uuid")
    machine_id = next(iter(plane.service.machines))
    reply = plane.create(f"/v1/machines/{machine_id}/ssh", key)
    assert (reply.status, location_of(reply)) == (400, "header.Idempotency-Key")
    right = plane.create(f"/v1/machines/{machine_id}/ssh", "017f22e279b07cc398c4dc0c0c07398f")
    assert right.status == 200


def test_a_pending_session_has_no_connection_and_a_ready_one_does() -> None:
    plane = Plane()
    plane.service.put("dm-foo", "sleeping")
    pending = json.loads(plane.create().body)
    assert "connection" not in pending and "expires_at" not in pending
    assert pending["retry_after_ms"] > 0
    plane.service.put("dm-foo", "running")
    ready = json.loads(plane.ask("GET", f"{SESSIONS}/{pending['session_id']}").body)
    assert "retry_after_ms" not in ready and "error_code" not in ready
    connection = ready["connection"]
    assert connection["endpoint"] == connection["host_trust"]["host_pattern"] == "ssh.example"
    assert connection["port"] == 22
