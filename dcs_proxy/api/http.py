"""HTTPS requests to the control plane, with retries.

`requests` is imported with the first request, because a warm connection makes none.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from dcs_proxy import __version__
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.network import find_network
from dcs_proxy.api.problems import Problems, RequestFailed, parse_date
from dcs_proxy.api.retry import RetryPolicy
from dcs_proxy.errors import DeadlineExceeded
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.text import mask

if TYPE_CHECKING:
    import requests

_CONNECT_S = 10.0
_RESPONSE_S = 15.0
# If the deadline passes sooner than this after a request, that is not the API's fault.
_LEAST_SILENCE_S = 1.0
# The user is told the reason for a longer wait.
_NOTICE_AFTER_S = 2.0
_MAX_BODY = 1024 * 1024
_MAX_SIZE_LINE = 64 * 1024
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\n]*)?\r?\n\Z")
_SUCCESS = (200, 201, 202, 203, 204)
_CLOCK_TOLERANCE_S = 30.0


def load_library() -> None:
    """Import what the first request needs; callers use the time while they wait for the keyring."""
    importlib.import_module("requests")


@dataclass(frozen=True)
class Request:
    """One request. `path` is below the base URL, `body` is sent as JSON.

    `machine` is the machine that errors name; `is_unsure` says that the API may not accept the id
    in the path.  Responses with a status in `expected` are returned like successes; `once` forbids
    retries.
    """

    method: str
    path: str = ""
    machine: MachineName | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str] | None = None
    expected: tuple[int, ...] = ()
    once: bool = False
    is_unsure: bool = False


@dataclass(frozen=True)
class Response:
    """One HTTP response: status, headers and the complete body.

    The headers have lower-case names, and secrets in their values are masked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests to the control plane at `settings.base_url`.

    All waiting is limited by `deadline`; `notice` is called once for a request that takes long.
    `clock_ahead_s` is how far the API's clock is ahead of ours, from its last Date header.  Raises
    ConfigError if a proxy or CA file that applies cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        deadline: Deadline,
        log: Log,
        notice: Callable[[str], None],
    ) -> None:
        self.clock_ahead_s = 0.0
        self._settings = settings
        self._network = find_network(settings)
        self._credentials = credentials
        self._deadline = deadline
        self._log = log
        self._notice = notice
        self._problems = Problems(settings, credentials, self._network)
        self._session: requests.Session | None = None
        self._has_answered = False

    def send(self, request: Request) -> Response:
        """Return the response: a success, or a status that the request expects.

        Raises ApiUnavailable, ApiProtocolError, CredentialsError, Forbidden, MachineNotFound,
        IdempotencyConflict, DeadlineExceeded or ClientGone.
        """
        policy = RetryPolicy()
        notice_at = time.monotonic() + _NOTICE_AFTER_S
        failure: RequestFailed | None = None
        wait_s = 0.0
        while True:
            try:
                if failure is not None:
                    self._deadline.sleep(wait_s)
                return self._try(request)
            except DeadlineExceeded:
                if failure is None:
                    raise
                # The failure says more than that the time is over.
                raise failure.error from None
            except RequestFailed as caught:
                failure = caught
            failure.error.machine = request.machine
            wait_s = self._retry_wait(request, failure, policy)
            if time.monotonic() + wait_s > notice_at:
                notice_at = math.inf
                self._notice(f"{failure.error.summary()}; trying again")

    def _retry_wait(self, request: Request, failure: RequestFailed, policy: RetryPolicy) -> float:
        """Return the seconds to wait before the next try, or raise the failure's error."""
        if request.once or not failure.retryable:
            raise failure.error
        wait_s = policy.wait_s(failure.wait_s, has_answered=self._has_answered)
        if wait_s is None or wait_s >= self._deadline.remaining():
            raise failure.error
        return wait_s

    def _try(self, request: Request) -> Response:
        """Send the request once.  Raises RequestFailed, DeadlineExceeded or ClientGone."""
        start = time.monotonic()
        try:
            response = self._exchange(request)
        except RequestFailed as failed:
            self._log_event(request, start, {"error": failed.error})
            raise
        request_id = response.headers.get("x-request-id", "-")
        self._log_event(request, start, {"status": response.status, "request": request_id})
        self._has_answered = True
        self._compare_clocks(response.headers.get("date", ""))
        if response.status in (*_SUCCESS, *request.expected):
            return response
        raise self._problems.from_status(
            response.status, response.headers, response.body,
            names_machine=request.machine is not None, id_is_unsure=request.is_unsure,
        )  # fmt: skip

    def _exchange(self, request: Request) -> Response:
        """Send the request under the deadline and the time limit for one response."""
        start = time.monotonic()
        try:
            return self._deadline.call(lambda: self._send(request), within_s=_RESPONSE_S)
        except TimeoutError:
            # The thread that was left behind still uses this connection.
            self._session = None
            what = f"sent no complete response in {_RESPONSE_S:g} s"
            raise self._problems.no_response(what) from None
        except DeadlineExceeded:
            waited_s = time.monotonic() - start
            if waited_s < _LEAST_SILENCE_S:
                raise
            what = f"has not answered in {waited_s:.0f} s"
            raise self._problems.no_response(what, retryable=False) from None

    def _log_event(self, request: Request, start: float, outcome: Mapping[str, object]) -> None:
        milliseconds = int((time.monotonic() - start) * 1000)
        self._log.event("api", machine=request.machine, method=request.method, path=request.path,
                        **outcome, ms=milliseconds)  # fmt: skip

    def _send(self, request: Request) -> Response:
        """Send one request.  Raises RequestFailed.  Runs in a thread that may be left behind."""
        import requests

        if self._session is None:
            self._session = self._open_session()
        try:
            with self._session.request(
                request.method,
                self._settings.base_url + request.path,
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    **request.headers,
                },
                json=request.body,
                auth=self._authorize,
                timeout=(_CONNECT_S, _RESPONSE_S),
                allow_redirects=False,
                stream=True,
            ) as response:
                return self._read(response)
        except requests.RequestException as error:
            raise self._problems.from_exception(error) from None

    def _open_session(self) -> requests.Session:
        import requests

        # urllib3 would write the TLS secrets to this file, with which others could decrypt the key.
        os.environ.pop("SSLKEYLOGFILE", None)
        session = requests.Session()
        # requests would read the complete body of a redirect, although it may not follow it.
        session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
        # network.py has already read the environment's proxy and CA file.
        session.trust_env = False
        session.verify = self._network.ca or True
        if self._network.proxy_url:
            session.proxies = {"https": self._network.proxy_url}
        return session

    def _read(self, response: requests.Response) -> Response:
        # urllib3 would read a chunk's size line without a limit.  http.client, below it, has one,
        # but accepts the size -1, for which it would read to the end without a limit.
        response.raw.chunked = False
        original: Any = response.raw._original_response
        original._read_next_chunk_size = lambda: _read_chunk_size(original.fp)
        # A small compressed body may be huge when it is unpacked.
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            what = "sent a compressed response, which was not requested"
            raise self._problems.no_response(what, retryable=False)
        data = b""
        for part in response.iter_content(64 * 1024):
            data += part
            if len(data) > _MAX_BODY:
                what = f"sent more than {_MAX_BODY >> 20} MiB"
                raise self._problems.no_response(what, retryable=False)
        headers = {name.lower(): mask(value) for name, value in response.headers.items()}
        return Response(response.status_code, headers, data)

    def _authorize(self, request: Any) -> Any:
        """Set the credentials.  Passed as `auth`, so that no ``.netrc`` entry replaces them."""
        headers = request.headers
        headers["User-Agent"] = f"dcs-proxy/{__version__}"
        if self._credentials.bearer:
            headers["Authorization"] = f"Bearer {self._credentials.bearer}"
        if self._credentials.api_key:
            headers["x-api-key"] = self._credentials.api_key
        if self._settings.org_id:
            headers["X-Dedalus-Org-Id"] = self._settings.org_id
        return request

    def _compare_clocks(self, date: str) -> None:
        moment = parse_date(date)
        ahead_s = 0.0 if moment is None else moment - time.time()
        # A Date has whole seconds, and responses take a while to arrive.
        self.clock_ahead_s = ahead_s if abs(ahead_s) >= _CLOCK_TOLERANCE_S else 0.0


def _read_chunk_size(file: BinaryIO) -> int:
    """Read the line before a chunk: its size in hexadecimal digits, and extensions (RFC 9112 §7.1).

    Raises ValueError, for which http.client ends the response as incomplete.
    """
    match = _CHUNK_SIZE.match(file.readline(_MAX_SIZE_LINE))
    if match is None:
        raise ValueError("not the size of a chunk")
    return int(match[1], 16)
