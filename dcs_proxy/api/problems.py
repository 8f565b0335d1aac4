"""Turn failed requests into errors: HTTP statuses, and the exceptions of `requests` and urllib3."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Mapping
from typing import Any

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.model import UNREACHABLE, ApiErrorBody, parse_error_body
from dcs_proxy.api.network import Network
from dcs_proxy.errors import (
    ApiProtocolError,
    ApiUnavailable,
    ConfigError,
    CredentialsError,
    DcsError,
    Forbidden,
    IdempotencyConflict,
    MachineNotFound,
    MachineUnreachable,
)
from dcs_proxy.local.settings import Settings
from dcs_proxy.text import as_word, quote_server

# Load balancers and CDNs send errors without the contract's `retryable`.  Of the 4xx, these are
# worth a retry: the request timed out, came too early or was rate limited.  Of the 5xx (such as 520
# to 530) all are, except those below, which say that the request itself is wrong.
_TRANSIENT_4XX = frozenset({408, 425, 429})
_LASTING_5XX = frozenset({501, 505})
_NETWORK_HINT = "check the network, DEDALUS_BASE_URL and {proxy}, then try again"
_NO_MACHINE_HINT = "check the name, and that the API key belongs to the right account"
_NO_LIST_HINT = "check DEDALUS_BASE_URL; if it is right, type the machine's complete name"
_ODD_ANSWER_HINT = (
    "try again later; if you report this, include the request's id from dcs-proxy log"
)
_PAYMENT_HINT = "look at the account's billing in the dashboard"
_PORTAL_HINT = "check DEDALUS_BASE_URL, and whether this network wants a login in a browser first"
_CA_HINT = (
    "something may be intercepting TLS; behind a corporate proxy, set ca_file in the config file to"
    " the PEM file of its CA"
)
_CLOCK_HINT = "check this computer's clock: it says {now}"
# What is wrong with a TLS connection, by parts of OpenSSL's messages.
_TLS_PROBLEMS = {
    "certificate is not yet valid": "presents a TLS certificate that is not yet valid",
    "certificate has expired": "presents a TLS certificate that has expired",
    "ostname mismatch": "presents a TLS certificate of another host",
    "doesn't match": "presents a TLS certificate of another host",
    "IP address mismatch": "presents a TLS certificate of another host",
    "CERTIFICATE_VERIFY_FAILED": "presents a TLS certificate that is not trusted",
    "WRONG_VERSION_NUMBER": "does not speak TLS",
    "record layer failure": "does not speak TLS",
    "UNEXPECTED_EOF": "closed the connection during the TLS handshake",
}
_ABOUT_TIME = ("certificate is not yet valid", "certificate has expired")
# Parts of OpenSSL's messages for a CA file that it cannot read.
_BAD_CA = ("[X509", "NO_CERTIFICATE_OR_CRL_FOUND", "PEM lib", "NO_START_LINE")
# What http.client puts before the status and reason of a proxy that refuses CONNECT.
_TUNNEL_FAILED = "Tunnel connection failed: "
_MAX_CAUSES = 50
_DIRECT = Network()


class RequestFailed(Exception):
    """One request failed.

    `error` is for the user if there is no further try, `retryable` says whether to try again, and
    `wait_s` is how long the API asked to wait before that, None if it did not.
    """

    def __init__(self, error: DcsError, *, retryable: bool, wait_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retryable = retryable
        self.wait_s = wait_s


class Problems:
    """Describes what went wrong with requests to the API of `settings`."""

    def __init__(
        self, settings: Settings, credentials: Credentials, network: Network = _DIRECT
    ) -> None:
        self._credentials = credentials
        self._host = settings.api_host
        self._base_url = settings.base_url
        self._network = network
        through = f" (through the HTTP proxy {network.proxy})" if network.proxy else ""
        self._api = f"the API at {settings.base_url}{through}"
        proxy = network.proxy_source or "proxy variables"
        self._network_hint = _NETWORK_HINT.format(proxy=proxy)

    def no_response(self, what: str, *, retryable: bool = True, hint: str = "") -> RequestFailed:
        """Return the failure of a request that got no complete response.

        `what` completes "the API at URL …", beginning with a verb.
        """
        return self._failed(f"{self._api} {what}", retryable=retryable, hint=hint)

    def from_exception(self, error: Exception) -> RequestFailed:
        """Return what an exception of `requests` means."""
        from http.client import HTTPException

        import requests

        if isinstance(error, requests.exceptions.SSLError):
            return self._from_tls_error(str(error))
        if isinstance(error, requests.exceptions.ProxyError):
            return self._from_proxy_error(error)
        if isinstance(error, requests.exceptions.Timeout):
            return self.no_response("does not answer")
        for cause in _causes(error):
            if isinstance(cause, socket.gaierror):
                return self._failed(f"cannot look up {self._host}")
            if isinstance(cause, OSError) and cause.strerror:
                return self.no_response(f"cannot be reached: {cause.strerror}")
            # http.client has limits: 100 headers, 64 KiB a line.
            if isinstance(cause, HTTPException) and "header" in str(cause):
                return self.no_response("sent too many or too long HTTP headers", retryable=False)
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            return self.no_response("sent an incomplete response")
        what = f"cannot be queried: {type(error).__name__}"
        return self.no_response(what, retryable=False)

    def from_status(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        names_machine: bool = True,
        id_is_unsure: bool = False,
    ) -> RequestFailed:
        """Return what an error response means; `headers` have lower-case names.

        `names_machine` says that the request's path contains a machine's id, and `id_is_unsure`
        that the API may reject it as an id, with 400 or 422.
        """
        fault = parse_error_body(body)
        said = self._quote(status, fault)
        retryable = fault is not None and fault.retryable
        if id_is_unsure and status in (400, 422):
            status = 404
        if not names_machine and status in (404, 405, 410):
            what = f"the API at {self._base_url} has no list of machines: {said}"
            return RequestFailed(ApiProtocolError(what, hint=_NO_LIST_HINT), retryable=False)
        error = self._refusal(status, fault, said)
        if error is not None:
            return RequestFailed(error, retryable=retryable)
        if _is_transient(status) or retryable:
            return _unavailable(status, headers, fault, said)
        error = ApiProtocolError(f"the API answered {said}", hint=_ODD_ANSWER_HINT)
        return RequestFailed(error, retryable=False)

    def _refusal(self, status: int, fault: ApiErrorBody | None, said: str) -> DcsError | None:
        """Return the error for a status with a special meaning, None for any other status."""
        if fault is not None and fault.error_code.lower() in UNREACHABLE:
            return MachineUnreachable(f"no such machine: {said}", hint=_NO_MACHINE_HINT)
        match status:
            case 401:
                return CredentialsError(
                    f"the API does not accept the key from {self._credentials.source}: {said}",
                    hint=self._credentials.renewal,
                )
            case 402:
                return Forbidden(f"the API demands payment: {said}", hint=_PAYMENT_HINT)
            case 403:
                return Forbidden(f"the API denied permission: {said}", hint=_forbidden_hint(fault))
            case 404 | 410:
                return MachineNotFound(f"no such machine: {said}", hint=_NO_MACHINE_HINT)
            case 409:
                return IdempotencyConflict(
                    f"the API refused the request: {said}", hint=_ODD_ANSWER_HINT
                )
            case 511:  # the network requires a login (RFC 6585 §6)
                what = f"the network answered in the API's place: {said}"
                return ApiUnavailable(what, hint=_PORTAL_HINT)
            case _ if 300 <= status < 400:
                return ApiProtocolError(
                    "the API answered with a redirect, which is not followed",
                    hint=_PORTAL_HINT,
                )
        return None

    def _quote(self, status: int, fault: ApiErrorBody | None) -> str:
        if fault is None:
            return f"HTTP {status}"
        code = as_word(fault.error_code) if fault.error_code else f"HTTP {status}"
        return f"{quote_server(fault.message)} ({code})"

    def _from_tls_error(self, text: str) -> RequestFailed:
        """Return what a failed TLS handshake means; `text` contains OpenSSL's message."""
        network = self._network
        if network.ca and any(words in text for words in _BAD_CA):
            return RequestFailed(
                ConfigError(
                    f"{network.ca_source} names {network.ca}, which has a broken certificate",
                    hint=f"see: openssl storeutl -noout -text -certs {shlex.quote(network.ca)}",
                ),
                retryable=False,
            )
        words = next((words for words in _TLS_PROBLEMS if words in text), "")
        what = _TLS_PROBLEMS.get(words, "cannot be reached: TLS failed")
        hint = ""
        if words in _ABOUT_TIME:
            hint = _CLOCK_HINT.format(now=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
        elif words == "CERTIFICATE_VERIFY_FAILED":
            what += f" by {network.ca} ({network.ca_source})" if network.ca else ""
            hint = _CA_HINT
        return self.no_response(what, retryable=False, hint=hint)

    def _from_proxy_error(self, error: Exception) -> RequestFailed:
        """Return what the proxy answered to CONNECT, or why there was no answer."""
        for cause in _causes(error):
            said = str(cause).removeprefix(_TUNNEL_FAILED)
            if isinstance(cause, OSError) and said != str(cause):
                what = f"cannot be reached: the proxy answers {quote_server(said)}"
                # A 4xx will not change in the next seconds.
                return self.no_response(what, retryable=not said.startswith("4"))
            if isinstance(cause, socket.gaierror):
                return self.no_response("cannot be reached: cannot look up the proxy's name")
            if isinstance(cause, OSError) and cause.strerror:
                return self.no_response(f"cannot be reached: the proxy: {cause.strerror}")
        return self.no_response("cannot be reached: the proxy does not answer")

    def _failed(self, message: str, *, retryable: bool = True, hint: str = "") -> RequestFailed:
        error = ApiUnavailable(message, hint=hint or self._network_hint)
        return RequestFailed(error, retryable=retryable)


def _is_transient(status: int) -> bool:
    return status in _TRANSIENT_4XX or (500 <= status < 600 and status not in _LASTING_5XX)


def _forbidden_hint(fault: ApiErrorBody | None) -> str:
    if fault is not None and fault.error_code == "BETA_ACCESS_REQUIRED":
        return "ask the service for access, or use the key of an organisation that has it"
    return "check that DEDALUS_ORG_ID names the organisation that owns the key"


def parse_date(value: str) -> float | None:
    """Return an HTTP date (RFC 9110 §5.6.7) as unix time, None if it is malformed."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def _unavailable(
    status: int, headers: Mapping[str, str], fault: ApiErrorBody | None, said: str
) -> RequestFailed:
    wait_s = _requested_wait(headers, fault)
    what = "is limiting requests" if status == 429 else "is temporarily unavailable"
    asks = f"; it asks to wait {wait_s:.0f} s" if wait_s and wait_s >= 1 else ""
    error = ApiUnavailable(f"the API {what}: {said}{asks}", hint="try again later")
    # problem+json and a load balancer's page have no `retryable`.
    retryable = fault.retryable if fault and fault.error_code else True
    return RequestFailed(error, retryable=retryable, wait_s=wait_s)


def _requested_wait(headers: Mapping[str, str], fault: ApiErrorBody | None) -> float | None:
    """Return the seconds the API asks to wait: `retry_after_ms`, else Retry-After (RFC 9110)."""
    if fault is not None and fault.retry_after_ms is not None:
        return fault.retry_after_ms / 1000
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    moment = parse_date(value)
    return None if moment is None else max(0.0, moment - time.time())


def _causes(error: BaseException) -> list[BaseException]:
    """Return `error` and the exceptions that it contains; urllib3 has some in args and `reason`."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < _MAX_CAUSES:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            waiting += [*cause.args, getattr(cause, "reason", None), cause.__context__]
    return found
