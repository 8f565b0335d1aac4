"""One exchange with the control plane over HTTPS: asked until it is answered, within reason.

Every exception of `requests` is translated here.  `requests` is imported when the first request is
made: a warm connection makes none.
"""

from __future__ import annotations

import importlib
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dcs_proxy import __version__
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.model import ApiErrorBody, parse_error_body
from dcs_proxy.api.retry import RetryPolicy
from dcs_proxy.errors import (
    ApiProtocolError,
    ApiUnavailable,
    CredentialsError,
    DcsError,
    DeadlineExceeded,
    Forbidden,
    IdempotencyConflict,
    MachineNotFound,
    clean_text,
    quote_server,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName

if TYPE_CHECKING:
    import requests

_CONNECT_S = 10.0
_REPLY_S = 15.0
# What has not answered in less says nothing: the time was over, not the API silent.
_NO_SILENCE_S = 1.0
# Whoever waits longer than this for an answer is told why.
_SILENT_S = 2.0
_MAX_BODY = 1024 * 1024
# A load balancer's own answers, which come without the contract's word on `retryable`.
_TRANSIENT = frozenset({429, 502, 503, 504})
_CLOCK_TOLERANCE_S = 30.0
_NETWORK_HINT = "check the network, DEDALUS_BASE_URL and proxy variables, then try again"
_PROXY_HINT = "check the network, DEDALUS_BASE_URL and proxy in the config file, then try again"
# http.client's words, before the status and reason.
_TUNNEL_FAILED = "Tunnel connection failed: "
_TLS_HINT = (
    "does somebody stand in between? if it is your company's proxy, set REQUESTS_CA_BUNDLE to its"
    " certificate"
)


def load_library() -> None:
    """Load what the first request would load, for whoever has to wait anyway."""
    importlib.import_module("requests")


@dataclass(frozen=True)
class Reply:
    """One HTTP reply: status, headers with lower-case names, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Problem:
    """Why a request failed, whether to try again, and the seconds that the API asks to wait."""

    error: DcsError
    retryable: bool
    wait_s: float | None = None


class HttpClient:
    """Exchanges requests and replies with the control plane at `settings.base_url`.

    All waiting happens under `deadline`; `notice` is told when there is more of it than usual.
    `clock_ahead_s` is how far the API's clock is ahead of ours, from the Date of its last answer.
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
        self._proxy = None if settings.is_loopback else settings.proxy
        self._credentials = credentials
        self._deadline = deadline
        self._log = log
        self._notice = notice
        self._http: requests.Session | None = None
        self._has_answered = False

    def ask(
        self,
        method: str,
        path: str,
        *,
        machine: MachineName | None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
        absent: tuple[int, ...] = (),
        once: bool = False,
    ) -> Reply:
        """Return the reply: one of success, or of a status in `absent`.

        A request that may be retried is, but for `once`.  Raises ApiUnavailable, ApiProtocolError,
        CredentialsError, Forbidden, MachineNotFound, IdempotencyConflict, DeadlineExceeded or
        ClientGone.
        """
        policy = RetryPolicy()
        silent_until = time.monotonic() + _SILENT_S
        while True:
            outcome = self._try(method, path, machine, headers or {}, body, absent)
            if isinstance(outcome, Reply):
                return outcome
            problem = outcome
            if once or not problem.retryable:
                raise problem.error
            wait = policy.wait_s(problem.wait_s, has_answered=self._has_answered)
            if wait is None or wait >= self._deadline.remaining():
                raise problem.error
            if time.monotonic() + wait > silent_until:
                silent_until = math.inf
                self._notice(f"{problem.error.summary()}; trying again")
            self._deadline.sleep(wait)

    def _try(
        self,
        method: str,
        path: str,
        machine: MachineName | None,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None,
        absent: tuple[int, ...],
    ) -> Reply | _Problem:
        start = time.monotonic()
        problem = None
        try:
            reply = self._deadline.call(
                lambda: self._send(method, path, headers, body), within_s=_REPLY_S
            )
        except TimeoutError:
            # The connection is still in use by the request that was left behind.
            self._http = None
            error = self._unavailable(f"gave no whole answer in {_REPLY_S:g} s", machine)
            problem = _Problem(error, retryable=True)
        except DeadlineExceeded:
            waited_s = time.monotonic() - start
            if waited_s < _NO_SILENCE_S:
                raise
            raise self._unavailable(f"has not answered in {waited_s:.0f} s", machine) from None
        except _NetworkError as failed:
            error = self._unavailable(failed.what, machine, failed.hint)
            problem = _Problem(error, failed.retryable)
        milliseconds = int((time.monotonic() - start) * 1000)
        if problem is not None:
            self._log.event("api", machine=machine, method=method, path=path, error=problem.error,
                            ms=milliseconds)  # fmt: skip
            return problem
        request_id = reply.headers.get("x-request-id", "-")
        self._log.event(
            "api", machine=machine, method=method, path=path, status=reply.status,
            request=request_id, ms=milliseconds,
        )  # fmt: skip
        self._has_answered = True
        self._look_at_clock(reply.headers.get("date", ""))
        if reply.status in (200, 201, 202, 204) or reply.status in absent:
            return reply
        return self._problem(reply, machine)

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, str] | None
    ) -> Reply:
        """Exchange one request.  Raises _NetworkError.  Runs in a thread that may be left."""
        import requests

        if self._http is None:
            self._http = requests.Session()
            if self._settings.is_loopback:
                # A proxy has no way to the API on this very computer.
                self._http.trust_env = False
                self._http.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        try:
            with self._http.request(
                method,
                self._settings.base_url + path,
                headers={"Accept": "application/json", **headers},
                json=body,
                auth=self._authorize,
                # Named for this request, they come before those of the environment.
                proxies={"https": self._proxy.url()} if self._proxy else None,
                timeout=(_CONNECT_S, _REPLY_S),
                allow_redirects=False,
                stream=True,
            ) as response:
                # urllib3 1.26 takes half an answer for a whole one.
                response.raw.enforce_content_length = True
                data = b""
                for part in response.iter_content(64 * 1024):
                    data += part
                    if len(data) > _MAX_BODY:
                        raise _NetworkError(f"sent more than {_MAX_BODY >> 20} MiB", False)
                lowered = {k.lower(): v for k, v in response.headers.items()}
                return Reply(response.status_code, lowered, data)
        except requests.RequestException as error:
            raise _translate(error) from None

    def _authorize(self, request: Any) -> Any:
        """Set the credentials; as `auth`, so that no ``.netrc`` entry can take their place."""
        headers = request.headers
        headers["User-Agent"] = f"dcs-proxy/{__version__}"
        if self._credentials.bearer:
            headers["Authorization"] = f"Bearer {self._credentials.bearer}"
        if self._credentials.api_key:
            headers["x-api-key"] = self._credentials.api_key
        if self._settings.org_id:
            headers["X-Dedalus-Org-Id"] = self._settings.org_id
        return request

    def _unavailable(
        self, what: str, machine: MachineName | None, hint: str = ""
    ) -> ApiUnavailable:
        through = f" (through the HTTP proxy {self._proxy})" if self._proxy else ""
        message = f"the API at {self._settings.base_url}{through} {self._redact(what)}"
        hint = hint or (_PROXY_HINT if self._proxy else _NETWORK_HINT)
        return ApiUnavailable(message, hint=hint, machine=machine)

    def _problem(self, reply: Reply, machine: MachineName | None) -> _Problem:
        fault = parse_error_body(reply.body)
        said = self._what_it_said(reply.status, fault)
        match reply.status:
            case 401:
                error: DcsError = CredentialsError(
                    f"the API does not accept the key from {self._credentials.source}: {said}",
                    hint=self._credentials.renewal,
                    machine=machine,
                )
            case 403:
                hint = "does DEDALUS_ORG_ID name the organisation that the key belongs to?"
                error = Forbidden(f"the API forbids it: {said}", hint=hint, machine=machine)
            case 404:
                hint = "check the name, and that the API key belongs to the right account"
                error = MachineNotFound(f"the API knows no such machine: {said}", hint=hint,
                                        machine=machine)  # fmt: skip
            case 409:
                error = IdempotencyConflict(f"the API refused: {said}", machine=machine)
            case status if 300 <= status < 400:
                where = "the API answered with a redirect, which is not followed"
                hint = "check DEDALUS_BASE_URL"
                error = ApiProtocolError(where, hint=hint, machine=machine)
            case status if status in _TRANSIENT or (fault and fault.retryable):
                return self._transient(reply, fault, said, machine)
            case _:
                error = ApiProtocolError(f"the API answered {said}", machine=machine)
        return _Problem(error, bool(fault and fault.retryable))

    def _what_it_said(self, status: int, fault: ApiErrorBody | None) -> str:
        if fault is None:
            return f"HTTP {status}"
        code = f" ({clean_text(fault.error_code, 60)})" if fault.error_code else ""
        return f"{quote_server(self._redact(fault.message))}{code or f' (HTTP {status})'}"

    def _redact(self, text: str) -> str:
        """Take our secrets out of what a server sends back to us."""
        for secret in (self._credentials.bearer, self._credentials.api_key):
            text = text.replace(secret, "[key]") if secret else text
        if self._proxy and self._proxy.password:
            text = text.replace(self._proxy.password, "[password]")
        return text

    def _look_at_clock(self, date: str) -> None:
        moment = _parse_date(date)
        ahead = 0.0 if moment is None else moment - time.time()
        # Dates have whole seconds, and answers take their time.
        self.clock_ahead_s = ahead if abs(ahead) >= _CLOCK_TOLERANCE_S else 0.0

    def _transient(
        self, reply: Reply, fault: ApiErrorBody | None, said: str, machine: MachineName | None
    ) -> _Problem:
        wait = _wait_asked(reply, fault)
        retryable = fault.retryable if fault and fault.error_code else True
        asks = f", and asks to wait {wait:.0f} s" if wait and wait >= 1 else ""
        error = ApiUnavailable(
            f"the API cannot serve now: {said}{asks}", hint="try again later", machine=machine
        )
        return _Problem(error, retryable, wait)


class _NetworkError(Exception):
    """No whole reply: `what` completes "the API at URL …"; `hint` is "" for the usual one."""

    def __init__(self, what: str, retryable: bool, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.retryable = retryable
        self.hint = hint


def _wait_asked(reply: Reply, fault: ApiErrorBody | None) -> float | None:
    """Return the seconds that the API asks for: `retry_after_ms`, else Retry-After (RFC 9110)."""
    if fault is not None and fault.retry_after_ms is not None:
        return fault.retry_after_ms / 1000
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    if value:
        moment = _parse_date(value)
        return None if moment is None else max(0.0, moment - time.time())
    return None


def _parse_date(value: str) -> float | None:
    """Return an HTTP date (RFC 9110 §5.6.7) as unix time, None if it is none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def _translate(error: Exception) -> _NetworkError:
    """Say in a few words what a `requests` exception means."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        what = "presents a TLS certificate that is not trusted"
        return _NetworkError(what, False, _TLS_HINT)
    if isinstance(error, requests.exceptions.ProxyError):
        return _translate_proxy(error)
    if isinstance(error, requests.exceptions.Timeout):
        return _NetworkError("does not answer", True)
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return _NetworkError("has a name that cannot be looked up", True)
        if isinstance(cause, OSError) and cause.strerror:
            return _NetworkError(f"cannot be reached: {cause.strerror}", True)
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return _NetworkError("closed the connection before its answer was whole", True)
    return _NetworkError("cannot be asked: the request is not possible", False)


def _translate_proxy(error: Exception) -> _NetworkError:
    """Say what the proxy answered to CONNECT, or why there was no answer."""
    for cause in _causes(error):
        said = str(cause).removeprefix(_TUNNEL_FAILED)
        if isinstance(cause, OSError) and said != str(cause):
            what = f"cannot be reached: the proxy answers {quote_server(said)}"
            # Who may not today may not in a second either.
            return _NetworkError(what, not said.startswith("4"))
        if isinstance(cause, socket.gaierror):
            return _NetworkError("cannot be reached: the proxy's name cannot be looked up", True)
        if isinstance(cause, OSError) and cause.strerror:
            return _NetworkError(f"cannot be reached: the proxy: {cause.strerror}", True)
    return _NetworkError("cannot be reached: the proxy does not answer", True)


def _causes(error: BaseException) -> list[BaseException]:
    """Return every exception inside `error`: urllib3 hides them in arguments and `reason`."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < 50:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            waiting += [*cause.args, getattr(cause, "reason", None), cause.__context__]
    return found
