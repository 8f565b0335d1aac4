"""The routes: what is asked, and what becomes of the answers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.client import Api, Probe, account, new_idempotency_key
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.api.model import Closing
from dcs_proxy.emulator.contract import ERRORS
from dcs_proxy.errors import (
    ApiProtocolError,
    ApiUnavailable,
    CredentialsError,
    Forbidden,
    MachineNotFound,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from tests.support.fake_api import Answer, FakeApi, fake_api

NAME = MachineName("dm-foo")
SECRET = "dsk-very-secret"
UUID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
UUID_NAME = MachineName(f"dm-{UUID}")
PENDING = {
    "machine_id": "dm-foo",
    "session_id": "wssh-1",
    "status": "wake_in_progress",
    "created_at": "2026-01-02T03:04:05Z",
}


@pytest.fixture
def fake() -> Iterator[FakeApi]:
    with fake_api() as api:
        yield api


def api_of(fake: FakeApi, tmp_path: Path, **changes: Any) -> Api:
    settings = replace(Settings(base_url=fake.url), **changes)
    credentials = Credentials(SECRET, None, "DEDALUS_API_KEY")
    known = KnownMachines(str(tmp_path), "account")
    return Api(settings, credentials, Deadline(60), Log(str(tmp_path / "log")), print, known)


def test_a_create_is_sent_as_the_contract_says(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, PENDING)]
    session = api_of(fake, tmp_path, org_id="org-1").create_session(NAME, "ssh-ed25519 A", "id-1")
    assert session.session_id == "wssh-1"
    (asked,) = fake.asked
    assert (asked.method, asked.path) == ("POST", "/v1/machines/dm-foo/ssh")
    assert json.loads(asked.body) == {"public_key": "ssh-ed25519 A"}
    assert asked.headers["idempotency-key"] == "id-1"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["x-dedalus-org-id"] == "org-1"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("dcs-proxy/")


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_a_missing_get_is_told_from_a_missing_machine(
    fake: FakeApi, tmp_path: Path, status: int
) -> None:
    fake.answers = [Answer(status, b"")]
    api = api_of(fake, tmp_path)
    assert api.get_session(NAME, "wssh-1") is None
    api.close_session(NAME, "wssh-1", "id-2")
    fake.answers = [Answer(404, b"")]
    with pytest.raises(MachineNotFound):
        api.create_session(NAME, "k", "id-1")


@pytest.mark.parametrize(
    "answer, expected",
    [
        (Answer(200), Closing.CLOSED),
        (Answer(202), Closing.CLOSED),
        (Answer(204), Closing.CLOSED),
        (Answer(200, {**PENDING, "status": "closing"}), Closing.CLOSED),
        (Answer(200, {"deleted": True}), Closing.CLOSED),
        (Answer(200, {"status": None}), Closing.CLOSED),
        (Answer(200, b"null"), Closing.CLOSED),
        (Answer(200, b"[]\n"), Closing.CLOSED),
        (Answer(404), Closing.UNKNOWN),
        (Answer(410), Closing.UNKNOWN),
        (Answer(405), Closing.UNSUPPORTED),
        (Answer(501), Closing.UNSUPPORTED),
    ],
)
def test_what_became_of_a_session_that_was_to_be_closed(
    fake: FakeApi, tmp_path: Path, answer: Answer, expected: Closing
) -> None:
    fake.answers = [answer]
    assert api_of(fake, tmp_path).close_session(NAME, "wssh-1", "id-2") is expected
    (asked,) = fake.asked
    assert (asked.method, asked.path) == ("DELETE", "/v1/machines/dm-foo/ssh/wssh-1")
    assert asked.headers["idempotency-key"] == "id-2"


STILL_READY = {
    **PENDING,
    "status": "READY",
    "connection": {"endpoint": "ssh.example", "port": 22, "ssh_username": "me"},
}


@pytest.mark.parametrize("answer", [Answer(409), Answer(200, STILL_READY)])
def test_a_close_that_may_have_done_nothing_is_checked(
    fake: FakeApi, tmp_path: Path, answer: Answer
) -> None:
    api = api_of(fake, tmp_path)
    fake.answers = [answer, Answer(200, {**PENDING, "status": "closed"})]
    assert api.close_session(NAME, "wssh-1", "id-2") is Closing.CLOSED
    for status in (404, 410):
        fake.answers = [answer, Answer(status)]
        is_refused = answer.status == 409
        expected = Closing.UNKNOWN if is_refused else Closing.CLOSED
        assert api.close_session(NAME, "wssh-1", "id-2") is expected
    # Where the API has no such route, nothing says that the session is over.
    for found in (Answer(200, STILL_READY), Answer(200, PENDING), Answer(405), Answer(501)):
        fake.answers = [answer, found]
        with pytest.raises(
            ApiProtocolError, match=r"refused the request|still calls the session"
        ) as caught:
            api.close_session(NAME, "wssh-1", "id-2")
        assert caught.value.hint


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"closed", b"{", b"\xff"])
def test_a_page_in_answer_to_a_close_is_no_close(
    fake: FakeApi, tmp_path: Path, body: bytes
) -> None:
    fake.answers = [Answer(200, body)]
    with pytest.raises(ApiProtocolError, match="the API's response is not JSON"):
        api_of(fake, tmp_path).close_session(NAME, "wssh-1", "id-2")


def test_all_pages_are_listed_and_what_cannot_be_named_is_told(
    fake: FakeApi, tmp_path: Path
) -> None:
    def page(*names: str, cursor: str | None) -> Answer:
        return Answer(200, {"items": [{"machine_id": n, "phase": "running"} for n in names],
                            "next_cursor": cursor})  # fmt: skip

    fake.answers = [page("dm-b", "../etc", cursor="a&b/c"), page(UUID, "dm-a", cursor=None)]
    listing = api_of(fake, tmp_path).list_machines()
    assert [machine.machine_id for machine in listing.machines] == [UUID, "dm-a", "dm-b"]
    assert [machine.name for machine in listing.machines] == [f"dm-{UUID}", "dm-a", "dm-b"]
    assert [machine.machine_id for machine in listing.unusable] == ["../etc"]
    assert KnownMachines(str(tmp_path), "account").load().ids == (UUID, "dm-a", "dm-b")
    first, second = fake.asked
    assert first.path == "/v1/machines?limit=100"
    assert second.path == "/v1/machines?limit=100&cursor=a%26b%2Fc"


def test_a_list_without_an_end_is_told(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcs_proxy.api.client._MAX_PAGES", 3)
    fake.answers = [Answer(200, {"items": [], "next_cursor": f"on{number}"}) for number in range(9)]
    with pytest.raises(ApiProtocolError, match="does not end after 0 machines"):
        api_of(fake, tmp_path).list_machines()
    assert len(fake.asked) == 3


def test_a_list_that_comes_back_to_a_page_is_not_read_again(fake: FakeApi, tmp_path: Path) -> None:
    pages = [Answer(200, {"items": [], "next_cursor": cursor}) for cursor in "abca"]
    fake.answers = pages
    with pytest.raises(ApiProtocolError, match="repeats a page") as caught:
        api_of(fake, tmp_path).list_machines()
    assert caught.value.hint
    assert len(fake.asked) == 4


def test_a_list_of_too_many_machines_is_refused(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcs_proxy.api.client.MAX_IDS", 5)
    machines = [{"machine_id": f"dm-{n}", "phase": "running"} for n in "ab"] + [{"phase": "x"}]
    fake.answers = [
        Answer(200, {"items": machines, "next_cursor": f"on{number}"}) for number in range(9)
    ]
    with pytest.raises(ApiProtocolError, match="does not end after 6 machines") as caught:
        api_of(fake, tmp_path).list_machines()
    assert caught.value.hint


@pytest.mark.parametrize("cursor", ["\ud800", "x" * 2049])
def test_a_cursor_that_cannot_be_sent_back_is_no_internal_error(
    fake: FakeApi, tmp_path: Path, cursor: str
) -> None:
    pages = [Answer(200, {"items": [], "next_cursor": cursor}), Answer(200, {"items": []})]
    fake.answers = pages
    try:
        assert api_of(fake, tmp_path).list_machines().machines == []
    except ApiProtocolError as error:
        assert "next_cursor is too long" in error.message


def test_a_machine_is_asked_for_by_its_name(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, {"machine_id": "dm-foo", "status": {"phase": "sleeping"}})]
    assert api_of(fake, tmp_path).get_machine(NAME).phase == "sleeping"
    assert (fake.asked[0].method, fake.asked[0].path) == ("GET", "/v1/machines/dm-foo")
    fake.answers = [Answer(404, b"")]
    with pytest.raises(MachineNotFound):
        api_of(fake, tmp_path).get_machine(NAME)


def paths(fake: FakeApi) -> list[str]:
    return [asked.path.removeprefix("/v1/machines/") for asked in fake.asked]


@pytest.mark.parametrize("refusal", [400, 404, 410, 422])
def test_an_unknown_uuid_is_tried_bare_once_and_then_remembered(
    fake: FakeApi, tmp_path: Path, refusal: int
) -> None:
    session = {**PENDING, "machine_id": UUID}
    fake.answers = [Answer(refusal, b""), Answer(200, session)]
    api = api_of(fake, tmp_path)
    assert api.create_session(UUID_NAME, "k", "id-1").machine == UUID_NAME
    api.get_session(UUID_NAME, "s")
    api_of(fake, tmp_path).create_session(UUID_NAME, "k", "id-2")
    assert paths(fake) == [f"{UUID_NAME}/ssh", f"{UUID}/ssh", f"{UUID}/ssh/s", f"{UUID}/ssh"]
    assert {a.headers["idempotency-key"] for a in fake.asked[:2]} == {"id-1"}


def test_a_uuid_that_has_the_prefix_goes_out_with_it(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, {**PENDING, "machine_id": UUID_NAME}), Answer(404, b"")]
    api = api_of(fake, tmp_path)
    api.create_session(UUID_NAME, "k", "id-1")
    with pytest.raises(MachineNotFound):
        api.create_session(UUID_NAME, "k", "id-2")
    assert paths(fake) == [f"{UUID_NAME}/ssh"] * 2


def test_an_id_that_was_listed_is_used_as_it_was(fake: FakeApi, tmp_path: Path) -> None:
    listed = {"items": [{"machine_id": "foo", "phase": "running"}]}
    fake.answers = [Answer(200, listed), Answer(200, {**PENDING, "machine_id": "foo"})]
    api = api_of(fake, tmp_path)
    api.list_machines()
    assert api.create_session(NAME, "k", "id-1").machine == NAME
    assert paths(fake)[1] == "foo/ssh"


@pytest.mark.parametrize(("name", "asked"), [(NAME, 1), (UUID_NAME, 2)])
@pytest.mark.parametrize("refusal", [400, 404, 410, 422])
def test_an_id_that_the_api_does_not_take_is_no_machine(
    fake: FakeApi, tmp_path: Path, name: MachineName, asked: int, refusal: int
) -> None:
    fake.answers = [Answer(refusal, b'{"title": "x", "detail": "not an id"}')]
    with pytest.raises(MachineNotFound, match=f'no such machine: "not an id" .HTTP {refusal}.'):
        api_of(fake, tmp_path).create_session(name, "k", "id-1")
    assert len(fake.asked) == asked
    assert not KnownMachines(str(tmp_path), "account").load().ids


def test_a_request_that_is_wrong_otherwise_is_not_blamed_on_a_known_machine(
    fake: FakeApi, tmp_path: Path
) -> None:
    fake.answers = [Answer(200, PENDING), Answer(422, b"")]
    api = api_of(fake, tmp_path)
    api.create_session(NAME, "k", "id-1")
    with pytest.raises(ApiProtocolError):
        api.create_session(NAME, "k", "id-2")


def test_a_session_id_cannot_leave_its_place_in_the_path(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(404, b"")]
    api_of(fake, tmp_path).get_session(NAME, "a/../b?c")
    assert fake.asked[0].path == "/v1/machines/dm-foo/ssh/a%2F..%2Fb%3Fc"


@pytest.mark.parametrize(
    ("answer", "refusal", "has_list"),
    [
        (Answer(200, {"items": []}), type(None), True),
        (Answer(404, b""), type(None), False),
        (Answer(405, b""), type(None), False),
        (Answer(410, b""), type(None), False),
        (Answer(501, b""), type(None), False),
        (Answer(401, ERRORS["invalid_key"].body), CredentialsError, True),
        (Answer(403, ERRORS["scope_forbidden"].body), Forbidden, True),
    ],
)
def test_a_probe_tells_whether_the_key_is_accepted(
    fake: FakeApi, tmp_path: Path, answer: Answer, refusal: type[object], has_list: bool
) -> None:
    fake.answers = [answer]
    probe = api_of(fake, tmp_path).probe()
    assert (type(probe.refusal), probe.has_list) == (refusal, has_list)
    assert [asked.path for asked in fake.asked] == ["/v1/machines?limit=1"]


def test_a_probe_tells_how_far_the_clocks_are_apart(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, {"items": []})]
    assert api_of(fake, tmp_path).probe() == Probe(None, True, 0.0)
    fake.date = time.time() + 3600
    assert 3590 < api_of(fake, tmp_path).probe().clock_ahead_s < 3610


def test_a_probe_that_gets_no_answer_raises(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(503, {"error_code": "X", "message": "no", "retryable": False})]
    with pytest.raises(ApiUnavailable):
        api_of(fake, tmp_path).probe()


def test_an_account_is_that_of_one_api_and_one_organisation() -> None:
    settings = [
        Settings(base_url=url, org_id=org)
        for url in ("https://a", "https://b")
        for org in ("", "o")
    ]
    assert len({account(each) for each in settings}) == 4
    assert account(settings[0]) == account(replace(settings[0], wake="never"))


def test_an_idempotency_key_is_a_compact_uuid_of_version_7() -> None:
    before = int(time.time() * 1000)
    key = new_idempotency_key()
    assert len(key) == 32 and key == key.lower()
    parsed = uuid.UUID(hex=key)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= int(time.time() * 1000)


def test_no_two_idempotency_keys_are_the_same() -> None:
    assert len({new_idempotency_key() for _ in range(10_000)}) == 10_000


def test_a_machine_that_is_being_destroyed_has_no_short_name(fake: FakeApi, tmp_path: Path) -> None:
    phases = {"dm-a": "running", "dm-b": "destroying", "dm-c": "destroyed", "dm-d": "failed"}
    items = [{"machine_id": name, "phase": phase} for name, phase in phases.items()]
    fake.answers = [Answer(200, {"items": items})]
    listing = api_of(fake, tmp_path).list_machines()
    assert [machine.name for machine in listing.machines] == list(phases)
    assert KnownMachines(str(tmp_path), "account").load().ids == ("dm-a", "dm-d")


def test_a_request_that_is_made_once_is_not_repeated(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(503)]
    api = api_of(fake, tmp_path)
    for request in (
        lambda: api.get_machine(NAME, once=True),
        lambda: api.get_session(NAME, "wssh-1", once=True),
        lambda: api.close_session(NAME, "wssh-1", "id-1", once=True),
    ):
        fake.asked.clear()
        with pytest.raises(ApiUnavailable):
            request()
        assert len(fake.asked) == 1


def test_the_check_of_a_close_that_is_made_once_is_not_repeated(
    fake: FakeApi, tmp_path: Path
) -> None:
    fake.answers = [Answer(200, STILL_READY), Answer(503)]
    with pytest.raises(ApiUnavailable):
        api_of(fake, tmp_path).close_session(NAME, "wssh-1", "id-1", once=True)
    assert len(fake.asked) == 2


def test_a_request_is_repeated_unless_it_is_made_once(fake: FakeApi, tmp_path: Path) -> None:
    api = api_of(fake, tmp_path)
    running = {"machine_id": "dm-foo", "phase": "running"}
    for request, body in (
        (lambda: api.get_machine(NAME), running),
        (lambda: api.get_session(NAME, "wssh-1"), PENDING),
        (lambda: api.close_session(NAME, "wssh-1", "id-1"), b""),
    ):
        fake.asked.clear()
        fake.answers = [Answer(503), Answer(200, body)]
        request()
        assert len(fake.asked) == 2


def test_an_id_that_answers_no_question_is_not_learned(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(404, b"")]
    api = api_of(fake, tmp_path)
    for _ in range(2):
        assert api.get_session(UUID_NAME, "s") is None
    assert paths(fake) == [f"{UUID_NAME}/ssh/s", f"{UUID}/ssh/s"] * 2
    assert not KnownMachines(str(tmp_path), "account").load().ids


def test_an_id_that_was_known_stays_the_same_when_the_file_is_gone(
    fake: FakeApi, tmp_path: Path
) -> None:
    fake.answers = [Answer(200, {"items": [{"machine_id": "foo", "phase": "running"}]})]
    api = api_of(fake, tmp_path)
    api.list_machines()
    fake.answers = [Answer(200, {**PENDING, "machine_id": "foo"})]
    api.create_session(NAME, "k", "id-1")
    KnownMachines(str(tmp_path), "account").save_list([])
    api.create_session(NAME, "k", "id-2")
    assert paths(fake)[1:] == ["foo/ssh"] * 2


def test_an_id_is_remembered_where_it_cannot_be_written(fake: FakeApi, tmp_path: Path) -> None:
    """On a full disk, a session that is polled must not be looked for by two ids each time."""
    fake.answers = [Answer(404, b""), Answer(200, {**PENDING, "machine_id": UUID})]
    api = api_of(fake, tmp_path)
    api._known = KnownMachines(str(tmp_path / "missing"), "account")
    for _ in range(2):
        api.create_session(UUID_NAME, "k", "id-1")
    api.get_session(UUID_NAME, "s")
    assert paths(fake) == [f"{UUID_NAME}/ssh", *[f"{UUID}/ssh"] * 2, f"{UUID}/ssh/s"]
