"""Our client against Prism, which knows nothing but the contract, and with Prism in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.emulator import Emulator
from tests.support.openapi import CONTRACT, documented_errors
from tests.support.prism import Prism, compared, needs_prism, preferring, run_prism, write_whole
from tests.support.user import User

pytestmark = needs_prism
Start = Callable[..., Emulator]
ERRORS = documented_errors()
# What our client says first, and its exit code.
SAID = {
    401: ("the API does not accept the key from DEDALUS_API_KEY", 4),
    403: ("the API denied permission", 5),
    409: ("the API refused the request", 8),
    429: ("the API is limiting requests", 7),
    503: ("the API is temporarily unavailable", 7),
}


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prism]:
    """Prism serving the contract."""
    with run_prism(tmp_path_factory.mktemp("prism"), "mock", CONTRACT) as prism:
        yield prism


def point(user: User, url: str) -> None:
    user.environment.update(DEDALUS_BASE_URL=url, DEDALUS_API_KEY="dsk-any")


@pytest.mark.parametrize("name", ERRORS)
def test_each_documented_error_is_told_to_the_user(
    mock: Prism, user: User, call: Callable[..., CompletedProcess[str]], name: str
) -> None:
    status, example = ERRORS[name]
    if example["retryable"]:
        user.settings("wake_seconds = 10\n")
    with preferring(mock.url, f"code={status}, example={name}") as url:
        point(user, url)
        done = call("wake", "dm-foo")
    what, code = SAID[status]
    assert done.returncode == code, done.stderr
    line = f'dcs-proxy: dm-foo: {what}: "{example["message"]}" ({example["error_code"]})'
    assert line in done.stderr.splitlines()
    assert not mock.complaints()


def test_ssh_shows_it_too(mock: Prism, user: User) -> None:
    with preferring(mock.url, "code=401, example=invalid_key") as url:
        point(user, url)
        assert user.proxy("config-ssh", "--ssh-config", str(user.config)).returncode == 0
        done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert '"invalid Dedalus API key" (AUTH_INVALID)' in done.stderr


@pytest.mark.parametrize("prefer", ["code=200", "code=200, dynamic=true"])
def test_a_session_made_up_from_the_schema_is_not_used(
    mock: Prism, user: User, prefer: str
) -> None:
    with preferring(mock.url, prefer) as url:
        point(user, url)
        done = user.proxy("wake", "dm-foo")
    assert done.returncode == 8, done.stderr
    assert "dm-foo: the API's response is about another machine" in done.stderr
    assert not user.record("dm-foo").get("connection")


def test_a_day_s_work_breaks_no_document(start_emulator: Start, user: User, tmp_path: Path) -> None:
    emulator = start_emulator(
        "--machine", "dm-foo:sleeping", "--machine", "dm-bar:sleeping", "--wake-seconds", "0.5"
    )
    user.use(emulator)
    with compared(emulator.api, tmp_path) as url:
        user.environment["DEDALUS_BASE_URL"] = url
        for _ in range(2):
            assert user.ssh("dm-foo", "echo in").stdout == "in\n"
        for command in (["list"], ["status"], ["close", "dm-foo"]):
            done = user.proxy(*command)
            assert done.returncode == 0, done.stderr
        emulator.control("POST", "faults", fault="dm-bar=429/POST@1")
        assert user.proxy("wake", "dm-bar").returncode == 0
    asked = {(e["method"], e["status"]) for e in emulator.events(event="request") if e["machine"]}
    assert {("POST", 200), ("POST", 429), ("GET", 200), ("DELETE", 200)} <= asked


def test_prism_would_complain(start_emulator: Start, user: User, tmp_path: Path) -> None:
    fault = 'dm-foo=set:status="asleep"/POST'
    emulator = start_emulator("--machine", "dm-foo", "--fault", fault)
    user.use(emulator, config=False)
    with run_prism(tmp_path, "proxy", write_whole(tmp_path), emulator.api) as prism:
        user.environment["DEDALUS_BASE_URL"] = prism.url
        user.settings("wake_seconds = 5\n")
        assert user.proxy("wake", "dm-foo").returncode == 7
        complaints = prism.complaints()
        assert complaints and all("VIOLATIONS" in complaint for complaint in complaints)
