"""Requests and responses: headers, retries, time limits; and the way through an HTTP proxy."""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from dcs_proxy import __version__
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.http import HttpClient, Request
from dcs_proxy.emulator.contract import ERRORS
from dcs_proxy.emulator.loopback import closed_port
from dcs_proxy.emulator.tls import make_context
from dcs_proxy.errors import (
    ApiProtocolError,
    ApiUnavailable,
    CredentialsError,
    DcsError,
    DeadlineExceeded,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.text import add_secret
from tests.support.connect_proxy import ConnectProxy, connect_proxy
from tests.support.fake_api import Answer, FakeApi, fake_api

NAME = MachineName("dm-foo")
SECRET = "dsk-very-secret"
ANSWER = b'{"as": "it is"}'
CREATE = Request(
    "POST", "/v1/machines/dm-foo/ssh", NAME, {"Idempotency-Key": "id-1"}, {"public_key": "k"}
)
READ = Request("GET", "/v1/machines/dm-foo", NAME)


@pytest.fixture
def fake() -> Iterator[FakeApi]:
    with fake_api() as api:
        yield api


class Waits(Deadline):
    """A deadline that notes how long it is asked to wait, and does not."""

    def __init__(self, seconds: float = 300) -> None:
        super().__init__(seconds)
        self.waited: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


class SpentWaits(Waits):
    """As `Waits`, but what was waited for is gone from the time left."""

    def remaining(self) -> float:
        return self.seconds - sum(self.waited)


NOTICES: list[str] = []


def client_of(fake: FakeApi, tmp_path: Path, deadline: Deadline | None = None) -> HttpClient:
    NOTICES.clear()
    credentials = Credentials(SECRET, None, "DEDALUS_API_KEY")
    log = Log(str(tmp_path / "log"))
    return HttpClient(
        Settings(base_url=fake.url), credentials, deadline or Waits(), log, NOTICES.append
    )


def error(name: str) -> Answer:
    reply = ERRORS[name]
    return Answer(reply.status, reply.body, dict(reply.headers))


def test_each_key_goes_into_its_own_header(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, ANSWER)]
    settings = Settings(base_url=fake.url)
    log = Log(str(tmp_path / "log"))
    for credentials in (Credentials(None, "dsk-x", ""), Credentials("dsk-b", "dsk-x", "")):
        HttpClient(settings, credentials, Waits(), log, print).send(READ)
    first, second = (asked.headers for asked in fake.asked)
    assert ("authorization" in first, first["x-api-key"]) == (False, "dsk-x")
    assert (second["authorization"], second["x-api-key"]) == ("Bearer dsk-b", "dsk-x")


def test_a_netrc_entry_does_not_take_the_keys_place(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pass\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fake.answers = [Answer(200, ANSWER)]
    client_of(fake, tmp_path).send(READ)
    assert fake.asked[0].headers["authorization"] == f"Bearer {SECRET}"


def test_loopback_is_reached_without_the_proxy_of_the_environment(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
    fake.answers = [Answer(200, ANSWER)]
    assert client_of(fake, tmp_path).send(READ).body == ANSWER


@pytest.mark.parametrize(
    "name",
    ["idempotency_in_flight", "mutation_rate_limited", "mutation_limiter_unavailable",
     "runtime_unavailable"],
)  # fmt: skip
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_retryable_is_tried_again_with_the_same_key(
    fake: FakeApi, tmp_path: Path, name: str, times: int
) -> None:
    fake.answers = [error(name)] * times + [Answer(200, ANSWER)]
    client_of(fake, tmp_path).send(CREATE)
    assert len(fake.asked) == times + 1
    assert {asked.headers["idempotency-key"] for asked in fake.asked} == {"id-1"}
    assert {asked.body for asked in fake.asked} == {b'{"public_key": "k"}'}


def test_patience_with_failures_that_name_no_wait_has_an_end(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("runtime_unavailable")]
    deadline = Waits()
    with pytest.raises(ApiUnavailable, match="runtime unavailable"):
        client_of(fake, tmp_path, deadline).send(CREATE)
    assert len(fake.asked) == 8
    assert sum(deadline.waited) < 60


@pytest.mark.parametrize(("limit_s", "least_s"), [(1, 0.3), (20, 11.9), (300, 291.9)])
def test_a_refusal_that_names_its_wait_is_waited_for_until_the_deadline(
    fake: FakeApi, tmp_path: Path, limit_s: float, least_s: float
) -> None:
    fake.answers = [error("mutation_rate_limited")]
    deadline = SpentWaits(limit_s)
    with pytest.raises(ApiUnavailable, match=r"mutation rate limit exceeded.*RATE_LIMITED") as met:
        client_of(fake, tmp_path, deadline).send(CREATE)
    assert met.value.machine == NAME
    # It ends where the next wait, up to 8 s longer than asked, would not fit any more.
    assert least_s < sum(deadline.waited) < limit_s
    assert all(wait >= 0.084 for wait in deadline.waited)
    assert len(fake.asked) == len(deadline.waited) + 1
    assert len(fake.asked) < 12 + limit_s
    assert {asked.headers["idempotency-key"] for asked in fake.asked} == {"id-1"}


def test_a_refusal_that_lasts_is_told_once(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("mutation_rate_limited")] * 30 + [Answer(200, ANSWER)]
    client_of(fake, tmp_path, SpentWaits()).send(CREATE)
    (notice,) = NOTICES
    assert "RATE_LIMITED" in notice and notice.endswith("; trying again")


def test_a_courtesy_is_asked_for_once(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("mutation_rate_limited")]
    with pytest.raises(ApiUnavailable):
        client_of(fake, tmp_path).send(replace(CREATE, once=True))
    assert len(fake.asked) == 1


def test_retryable_false_is_believed(fake: FakeApi, tmp_path: Path) -> None:
    body = {"error_code": "DEPENDENCY_UNAVAILABLE", "message": "no", "retryable": False}
    fake.answers = [Answer(503, body)]
    with pytest.raises(ApiUnavailable):
        client_of(fake, tmp_path).send(CREATE)
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("milliseconds", "header", "low", "high"),
    [
        (84, None, 0.084, 0.15),
        (5000, "1", 5, 5.6),
        (None, "3", 3, 3.4),
        (None, "0", 0, 0.1),
        (None, "soon", 0.2, 1),
        (None, None, 0.2, 1),
    ],
)
def test_the_wait_is_at_least_what_was_asked_and_spread(
    fake: FakeApi, tmp_path: Path, milliseconds: int | None, header: str | None, low: float,
    high: float,
) -> None:  # fmt: skip
    body: dict[str, Any] = {"error_code": "RATE_LIMITED", "message": "slow", "retryable": True}
    if milliseconds is not None:
        body["retry_after_ms"] = milliseconds
    headers = {} if header is None else {"Retry-After": header}
    waited = []
    for _ in range(5):
        deadline = Waits()
        fake.answers = [Answer(429, body, headers), Answer(200, ANSWER)]
        client_of(fake, tmp_path, deadline).send(CREATE)
        waited += deadline.waited
    assert all(low <= seconds <= high for seconds in waited), waited
    assert len(set(waited)) > 1


def test_an_absurd_wait_ends_at_once_and_is_told(fake: FakeApi, tmp_path: Path) -> None:
    body = {"error_code": "RATE_LIMITED", "message": "m", "retryable": True,
            "retry_after_ms": 10**15}  # fmt: skip
    fake.answers = [Answer(429, body)]
    deadline = Waits()
    with pytest.raises(ApiUnavailable, match="asks to wait"):
        client_of(fake, tmp_path, deadline).send(CREATE)
    assert (deadline.waited, len(fake.asked)) == ([], 1)


def test_a_long_wait_is_told_once_and_a_short_one_not(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("runtime_unavailable"), Answer(200, ANSWER)]
    client_of(fake, tmp_path).send(CREATE)
    assert NOTICES == []
    fake.answers = [error("runtime_unavailable")]
    with pytest.raises(ApiUnavailable):
        client_of(fake, tmp_path).send(CREATE)
    (notice,) = NOTICES
    assert "runtime unavailable" in notice and notice.endswith("; trying again")


@pytest.mark.parametrize(
    ("seconds", "kind", "said"),
    [
        (1.2, ApiUnavailable, r"has not answered in 1 s$"),
        (0.3, DeadlineExceeded, r"after 0\.3 s$"),
    ],
)
def test_an_api_that_says_nothing_is_named_when_the_deadline_passes(
    tmp_path: Path, seconds: float, kind: type[DcsError], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        log = Log(str(tmp_path / "log"))
        client = HttpClient(settings, Credentials(SECRET, None, ""), Deadline(seconds), log, print)
        with pytest.raises(kind, match=said):
            client.send(CREATE)


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_apis_clock_is_known_from_its_answers(
    fake: FakeApi, tmp_path: Path, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(fake, tmp_path)
    fake.answers = [Answer(200, ANSWER)]
    client.send(CREATE)
    assert client.clock_ahead_s == 0
    now = time.time() - hours * 3600
    monkeypatch.setattr(time, "time", lambda: now)
    fake.date = now + hours * 3600
    client.send(CREATE)
    assert abs(client.clock_ahead_s - hours * 3600) <= 2


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_load_balancers_errors_are_retried(fake: FakeApi, tmp_path: Path, status: int) -> None:
    fake.answers = [Answer(status, b"<html>"), Answer(200, ANSWER)]
    assert client_of(fake, tmp_path).send(CREATE).body == ANSWER


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 399])
@pytest.mark.parametrize("request_", [CREATE, READ], ids=["POST", "GET"])
def test_a_redirect_is_not_followed(
    fake: FakeApi, tmp_path: Path, status: int, request_: Request
) -> None:
    with fake_api() as other:
        here = f"{fake.url}{request_.path}"
        for location in (other.url, other.url.removeprefix("http:"), here, "/v1/machines", ""):
            headers = {"Location": location, "Refresh": f"0;{other.url}"}
            fake.answers = [Answer(status, b"", headers)]
            fake.asked.clear()
            with pytest.raises(ApiProtocolError, match="redirect"):
                client_of(fake, tmp_path).send(request_)
            assert len(fake.asked) == 1 and other.asked == []


def test_a_body_without_end_is_cut_off(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, b" " * (2 * 1024 * 1024))]
    with pytest.raises(ApiUnavailable, match="more than 1 MiB"):
        client_of(fake, tmp_path).send(READ)
    assert len(fake.asked) == 1, "the same would come again"


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "deflate", "br", "zstd", "x"])
def test_a_compressed_body_is_not_asked_for_and_not_unpacked(
    fake: FakeApi, tmp_path: Path, coding: str
) -> None:
    bomb = gzip.compress(gzip.compress(bytes(64 * 1024 * 1024)))
    fake.answers = [Answer(200, bomb, {"Content-Encoding": coding})]
    with pytest.raises(ApiUnavailable, match="sent a compressed response"):
        client_of(fake, tmp_path).send(READ)
    assert [asked.headers["accept-encoding"] for asked in fake.asked] == ["identity"]


def test_a_body_that_says_that_it_is_not_compressed_is_read(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, b"{}", {"Content-Encoding": "Identity"})]
    assert client_of(fake, tmp_path).send(READ).body == b"{}"


@pytest.mark.parametrize("status", [301, 303, 307])
def test_the_body_of_a_redirect_is_limited_too(fake: FakeApi, tmp_path: Path, status: int) -> None:
    flood = Answer(status, b" " * (2 * 1024 * 1024), {"Location": fake.url})
    fake.answers = [flood]
    with pytest.raises(ApiUnavailable, match="more than 1 MiB"):
        client_of(fake, tmp_path).send(READ)


def test_a_body_that_stops_half_way_is_tried_again(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, b"{", {"Content-Length": "100"}), Answer(200, ANSWER)]
    assert client_of(fake, tmp_path).send(CREATE).body == ANSWER


def test_nobody_listening_is_told_after_a_few_tries(fake: FakeApi, tmp_path: Path) -> None:
    fake.server.server_close()
    deadline = Waits()
    with pytest.raises(ApiUnavailable, match="cannot be reached: Connection refused") as caught:
        client_of(fake, tmp_path, deadline).send(CREATE)
    assert fake.url in caught.value.message
    assert len(deadline.waited) == 3


def test_the_key_is_in_no_log_and_no_message(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [
        Answer(401, {"error_code": "AUTH_INVALID", "message": "bad", "retryable": False})
    ]
    with pytest.raises(CredentialsError) as caught:
        client_of(fake, tmp_path).send(CREATE)
    assert SECRET not in caught.value.one_line()
    log = (tmp_path / "log").read_text()
    assert "status=401" in log and SECRET not in log


class EndsWhileWaiting(Waits):
    def sleep(self, seconds: float) -> None:
        raise DeadlineExceeded("the time is over")


class EndsWhileAsking(Waits):
    def call(self, function: Callable[[], Any], *, within_s: float) -> Any:
        if self.waited:
            raise DeadlineExceeded("the time is over")
        return super().call(function, within_s=within_s)


@pytest.mark.parametrize("deadline", [EndsWhileWaiting, EndsWhileAsking])
@pytest.mark.parametrize(
    ("name", "said"),
    [("mutation_rate_limited", "limiting requests"), ("runtime_unavailable", "unavailable: ")],
)
def test_a_refusal_is_told_when_the_deadline_passes_before_the_next_answer(
    fake: FakeApi, tmp_path: Path, deadline: type[Waits], name: str, said: str
) -> None:
    fake.answers = [error(name)]
    with pytest.raises(ApiUnavailable, match=said) as caught:
        client_of(fake, tmp_path, deadline()).send(READ)
    assert caught.value.machine == NAME
    assert len(fake.asked) == 1


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """An API that only a proxy finds: its name is known nowhere."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls.pem"))
    with fake_api(make_context(str(tmp_path / "tls.pem"), "api.test")) as api:
        api.answers = [Answer(200, {})]
        yield api


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with connect_proxy() as running:
        yield running


def ask(api: FakeApi, tmp_path: Path, proxy: HttpProxy | None) -> None:
    settings = replace(Settings(base_url=f"https://api.test:{api.port}"), proxy=proxy)
    log = Log(str(tmp_path / "log"))
    credentials = Credentials("dsk-key", None, "a test")
    client = HttpClient(settings, credentials, Waits(), log, lambda _: None)
    client.send(Request("GET", "/v1/machines"))


def test_the_api_is_asked_through_the_proxy_of_the_config_file(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the environment says does not apply then.
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", "*")
    ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port))
    assert proxy.targets == [f"api.test:{api.port}"]
    assert api.asked[0].headers["authorization"] == "Bearer dsk-key"
    # The proxy sees neither the key nor what is asked.
    assert "dsk-key" not in proxy.asked[0]


def test_without_the_setting_the_environments_proxy_is_used(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    ask(api, tmp_path, None)
    assert proxy.targets == [f"api.test:{api.port}"]


def test_an_api_on_this_computer_is_asked_directly(proxy: ConnectProxy, tmp_path: Path) -> None:
    with fake_api() as api:
        api.answers = [Answer(200, {})]
        settings = Settings(base_url=api.url, proxy=HttpProxy("127.0.0.1", proxy.port))
        log = Log(str(tmp_path / "log"))
        client = HttpClient(settings, Credentials("k", None, ""), Waits(), log, lambda _: None)
        client.send(Request("GET", "/v1/machines"))
        assert len(api.asked) == 1
    assert not proxy.asked


def test_user_and_password_are_sent_to_the_proxy_and_shown_to_nobody(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path
) -> None:
    proxy.token = base64.b64encode(b"me:pass word@:").decode()
    ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port, "me", "pass word@:"))
    assert "Basic" not in str(api.asked[0].headers)
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port, "me", "wr0ng"))
    assert caught.value.message == (
        f"the API at https://api.test:{api.port} (through the HTTP proxy {proxy.url}) cannot be "
        'reached: the proxy answers "407 Proxy Authentication Required"'
    )
    assert "proxy in the config file" in caught.value.hint
    assert "wr0ng" not in caught.value.one_line() + (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("answer", "said", "tries"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 'the proxy answers "403 Forbidden"', 1),
        (b"HTTP/1.1 502 \x1b[31mBad\r\n\r\n", 'the proxy answers "502 [31mBad"', 4),
        (b"HTTP/1.1 407 no wr0ng here\r\n\r\n", 'the proxy answers "407 no [masked] here"', 1),
    ],
)
def test_what_the_proxy_answers_is_told_and_decides_whether_to_try_again(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path, answer: bytes, said: str, tries: int
) -> None:
    proxy.answer = answer
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port, "me", "wr0ng"))
    assert said in caught.value.message
    assert len(proxy.asked) == tries


def test_a_proxy_that_is_not_there_is_named(api: FakeApi, tmp_path: Path) -> None:
    port = closed_port()
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, HttpProxy("127.0.0.1", port))
    said = f"(through the HTTP proxy http://127.0.0.1:{port}) cannot be reached: the proxy: Conn"
    assert said in caught.value.message


def test_an_environments_proxy_with_a_password_is_not_shown(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:wr0ng@127.0.0.1:{closed_port()}")
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, None)
    assert "cannot be reached: the proxy: Connection refused" in caught.value.message
    assert "HTTPS_PROXY" in caught.value.hint
    assert "wr0ng" not in caught.value.one_line()


class Recording(Waits):
    """A deadline that notes the time limit of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[float] = []

    def call(self, function: Callable[[], Any], *, within_s: float) -> Any:
        self.limits.append(within_s)
        return super().call(function, within_s=within_s)


def test_a_response_may_take_15_seconds_and_a_connection_10(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = []
    send = requests.Session.request

    def record(session: requests.Session, *words: Any, **options: Any) -> requests.Response:
        timeouts.append(options["timeout"])
        return send(session, *words, **options)

    monkeypatch.setattr(requests.Session, "request", record)
    deadline = Recording()
    fake.answers = [Answer(200, ANSWER)]
    client_of(fake, tmp_path, deadline).send(READ)
    assert (deadline.limits, timeouts) == ([15], [(10, 15)])


class TimesOutOnce(Waits):
    """A deadline whose second call sends the request, but takes too long to return."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call(self, function: Callable[[], Any], *, within_s: float) -> Any:
        self.calls += 1
        result = super().call(function, within_s=within_s)
        if self.calls == 2:
            raise TimeoutError
        return result


def test_a_connection_whose_response_took_too_long_is_not_used_again(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    open_session = requests.Session

    def record() -> requests.Session:
        opened.append(open_session())
        return opened[-1]

    monkeypatch.setattr(requests, "Session", record)
    fake.answers = [Answer(200, ANSWER)]
    client = client_of(fake, tmp_path, TimesOutOnce())
    client.send(READ)
    assert len(opened) == 1
    client.send(READ)
    assert (len(opened), len(fake.asked)) == (2, 3)


def test_a_key_that_the_api_sends_back_in_a_header_is_masked(fake: FakeApi, tmp_path: Path) -> None:
    add_secret(SECRET)
    fake.answers = [Answer(200, ANSWER, {"X-Request-Id": f"id-{SECRET}"})]
    response = client_of(fake, tmp_path).send(READ)
    assert response.headers["x-request-id"] == "id-[masked]"
    assert SECRET not in (tmp_path / "log").read_text()


class ServesAnEndlessChunkSize:
    """A server whose response has one line of a chunk's size, of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, contextlib.suppress(OSError):  # the client has closed it
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while self.sent < self.size:
                self.sent += sock.send(bytes(65536).replace(b"\0", b"0"))

    def close(self) -> None:
        self._thread.join(60)
        self._listener.close()


def test_the_size_of_a_chunk_is_not_read_without_end(tmp_path: Path) -> None:
    # Far more than the kernel holds for a socket.
    server = ServesAnEndlessChunkSize(64 * 1024 * 1024)
    credentials = Credentials(SECRET, None, "DEDALUS_API_KEY")
    settings = Settings(base_url=server.url)
    client = HttpClient(settings, credentials, Waits(), Log(str(tmp_path / "log")), print)
    with pytest.raises(ApiUnavailable, match="sent an incomplete response"):
        client.send(replace(READ, once=True))
    server.close()
    assert server.sent < server.size


def test_a_chunked_response_is_read(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(head + b'4 ;x=y\r\n{"a"\r\n3 \t\r\n:1}\r\n0\r\nX: y\r\n\r\n')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        settings = Settings(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        credentials = Credentials(SECRET, None, "DEDALUS_API_KEY")
        client = HttpClient(settings, credentials, Waits(), Log(str(tmp_path / "log")), print)
        assert client.send(READ).body == b'{"a":1}'
        thread.join(60)


@pytest.mark.parametrize("size", ["-1", "-2", "+2", "0x2", "0_2", "", " ", "g", "\xb2"])
def test_the_size_of_a_chunk_is_a_hexadecimal_number(tmp_path: Path, size: str) -> None:
    """Python's own reader takes -1, and then reads without a limit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                sock.sendall(f"{head}{size}\r\n{{}}\r\n0\r\n\r\n".encode("latin-1"))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        settings = Settings(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        credentials = Credentials(SECRET, None, "DEDALUS_API_KEY")
        client = HttpClient(settings, credentials, Waits(), Log(str(tmp_path / "log")), print)
        with pytest.raises(ApiUnavailable, match="sent an incomplete response"):
            client.send(replace(READ, once=True))
        thread.join(60)


def test_a_redirect_is_not_followed_by_either_of_two_safeguards(
    fake: FakeApi, tmp_path: Path
) -> None:
    """The request would carry the key to wherever the redirect leads."""
    with fake_api() as other:
        fake.answers = [Answer(307, b"", {"Location": other.url})]
        client = client_of(fake, tmp_path)
        client._session = client._open_session()
        assert client._session.get_redirect_target(requests.Response()) is None
        del client._session.get_redirect_target
        with pytest.raises(ApiProtocolError, match="redirect"):
            client.send(CREATE)
        assert other.asked == []


def test_no_variable_makes_the_library_write_down_its_keys(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    fake.answers = [Answer(200, ANSWER)]
    client_of(fake, tmp_path).send(READ)
    assert "SSLKEYLOGFILE" not in os.environ


@pytest.mark.parametrize("org_id", ["", "org-1"])
def test_a_request_says_who_asks_and_for_whom(fake: FakeApi, tmp_path: Path, org_id: str) -> None:
    fake.answers = [Answer(200, ANSWER)]
    settings = Settings(base_url=fake.url, org_id=org_id)
    credentials = Credentials(SECRET, None, "DEDALUS_API_KEY")
    HttpClient(settings, credentials, Waits(), Log(str(tmp_path / "log")), print).send(CREATE)
    headers = fake.asked[0].headers
    assert headers["user-agent"] == f"dcs-proxy/{__version__}"
    assert headers["accept"] == "application/json"
    assert headers.get("x-dedalus-org-id", "") == org_id
    assert headers["idempotency-key"] == "id-1" and headers["content-type"] == "application/json"


def test_each_try_is_one_line_of_the_log(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [
        Answer(200, b"{", {"Content-Length": "100"}),
        Answer(503, b"", {"X-Request-Id": "r-1"}), Answer(200, ANSWER),
    ]  # fmt: skip
    client_of(fake, tmp_path).send(CREATE)
    lines = (tmp_path / "log").read_text().splitlines()
    about = "api machine=dm-foo method=POST path=/v1/machines/dm-foo/ssh "
    said = [line.partition("] ")[2].rpartition(" ms=") for line in lines]
    assert [each[0].startswith(about) and each[2].isdigit() for each in said] == [True] * 3
    outcomes = [each[0].removeprefix(about) for each in said]
    assert outcomes[0].startswith("error=") and outcomes[1:] == [
        "status=503 request=r-1", "status=200 request=-",
    ]  # fmt: skip


def test_an_error_names_the_machine_that_was_asked_for(fake: FakeApi, tmp_path: Path) -> None:
    for answer in (error("missing_key"), Answer(200, b" " * (2 * 1024 * 1024))):
        fake.answers = [answer]
        with pytest.raises(DcsError) as caught:
            client_of(fake, tmp_path).send(READ)
        assert caught.value.machine == NAME
