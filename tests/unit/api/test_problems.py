"""What statuses and exceptions mean, without a network."""

from __future__ import annotations

import email.utils
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from http.client import BadStatusLine, HTTPException, LineTooLong
from typing import Any

import pytest
import requests
from urllib3.exceptions import MaxRetryError, NameResolutionError, ProtocolError, ProxyError

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.network import Network
from dcs_proxy.api.problems import Problems, RequestFailed, parse_date
from dcs_proxy.emulator.contract import ERRORS
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
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.settings import Settings

SECRET = "dsk-very-secret"
CREDENTIALS = Credentials(SECRET, None, "DEDALUS_API_KEY", "set DEDALUS_API_KEY to a valid key")
SETTINGS = Settings(base_url="https://api.test")
DIRECT = Network()
PROXY = HttpProxy("proxy.test", 3128, "me", "wr0ng-password")
PROXIED = Network(PROXY, PROXY.url(), "proxy in the config file")


def failure(status: int, body: Any, headers: Mapping[str, str] | None = None) -> RequestFailed:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Problems(SETTINGS, CREDENTIALS).from_status(status, headers or {}, data)


def of_exception(error: Exception, network: Network = DIRECT) -> RequestFailed:
    return Problems(SETTINGS, CREDENTIALS, network).from_exception(error)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("missing_key", CredentialsError,
         'the API does not accept the key from DEDALUS_API_KEY: "missing Dedalus API key" '
         "(AUTH_REQUIRED)"),
        ("invalid_key", CredentialsError, '"invalid Dedalus API key" (AUTH_INVALID)'),
        ("org_mismatch", Forbidden,
         'the API denied permission: "org scope does not match API key ownership"'),
        ("scope_forbidden", Forbidden, "(AUTH_SCOPE_FORBIDDEN)"),
    ],
)  # fmt: skip
def test_what_no_retry_can_mend_is_not_retried(name: str, kind: type[DcsError], said: str) -> None:
    failed = failure(ERRORS[name].status, ERRORS[name].body)
    assert isinstance(failed.error, kind) and failed.retryable is False
    assert said in failed.error.message
    assert failed.error.hint


def test_a_reused_idempotency_key_is_a_conflict() -> None:
    details = {"expected_request_hash": "a", "provided_request_hash": "b"}
    body = {"error_code": "IDEMPOTENCY_KEY_REUSED", "message": "reused", "retryable": False,
            "details": details}  # fmt: skip
    error = failure(409, body).error
    assert isinstance(error, IdempotencyConflict)
    assert error.message == 'the API refused the request: "reused" (IDEMPOTENCY_KEY_REUSED)'
    assert "include the request's id" in error.hint


def test_a_missing_machine_is_told() -> None:
    error = failure(404, b"").error
    assert isinstance(error, MachineNotFound) and error.message == "no such machine: HTTP 404"
    assert error.hint == "check the name, and that the API key belongs to the right account"
    assert str(failure(404, b"")) == error.message


@pytest.mark.parametrize(
    ("status", "is_unsure", "kind"),
    [
        (400, True, MachineNotFound),
        (422, True, MachineNotFound),
        (401, True, CredentialsError),
        (423, True, ApiProtocolError),
        (400, False, ApiProtocolError),
    ],
)
def test_an_id_that_may_be_none_is_refused_as_a_machine_that_is_missing(
    status: int, is_unsure: bool, kind: type[DcsError]
) -> None:
    failed = Problems(SETTINGS, CREDENTIALS).from_status(status, {}, b"", id_is_unsure=is_unsure)
    assert isinstance(failed.error, kind) and failed.error.message.endswith(f"HTTP {status}")


@pytest.mark.parametrize("status", [300, 307, 399])
def test_a_redirect_is_not_followed(status: int) -> None:
    failed = failure(status, b"", {"location": "https://evil.test"})
    assert isinstance(failed.error, ApiProtocolError) and failed.retryable is False
    assert failed.error.message == "the API answered with a redirect, which is not followed"
    assert failed.error.hint == (
        "check DEDALUS_BASE_URL, and whether this network wants a login in a browser first"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, "the API is limiting requests: "),
        (502, "the API is temporarily unavailable: "),
        (503, "the API is temporarily unavailable: "),
        (504, "the API is temporarily unavailable: "),
    ],
)
def test_what_passes_is_retried(status: int, said: str) -> None:
    failed = failure(status, b"<html>")
    assert isinstance(failed.error, ApiUnavailable) and failed.retryable
    assert failed.error.message == f"{said}HTTP {status}"
    assert failed.error.hint == "try again later"
    body = {"error_code": "E", "message": "m", "retryable": False}
    assert not failure(status, body).retryable
    assert failure(status, {"title": "Busy", "detail": "later"}).retryable


@pytest.mark.parametrize("status", [408, 425, 500, 507, 520, 522, 524, 529, 530, 599])
def test_what_a_load_balancer_or_cdn_sends_is_retried(status: int) -> None:
    failed = failure(status, b"<html>")
    assert isinstance(failed.error, ApiUnavailable) and failed.retryable


@pytest.mark.parametrize(
    ("status", "kind", "said", "hint"),
    [
        (402, Forbidden, "the API demands payment: HTTP 402", "billing"),
        (410, MachineNotFound, "no such machine: HTTP 410", "check the name"),
        (418, ApiProtocolError, "the API answered HTTP 418", "try again later"),
        (501, ApiProtocolError, "the API answered HTTP 501", "try again later"),
        (505, ApiProtocolError, "the API answered HTTP 505", "try again later"),
        (511, ApiUnavailable, "the network answered in the API's place: HTTP 511", "browser"),
        (302, ApiProtocolError, "the API answered with a redirect, which is not followed",
         "browser"),
        (206, ApiProtocolError, "the API answered HTTP 206", "try again later"),
        (600, ApiProtocolError, "the API answered HTTP 600", "try again later"),
        (999, ApiProtocolError, "the API answered HTTP 999", "try again later"),
    ],
)  # fmt: skip
def test_what_lasts_is_not_retried(status: int, kind: type[DcsError], said: str, hint: str) -> None:
    failed = failure(status, b"<html>")
    assert isinstance(failed.error, kind) and not failed.retryable
    assert failed.error.message == said and hint in failed.error.hint


def test_an_unknown_status_is_retried_only_if_the_api_says_so() -> None:
    body = {"error_code": "E", "message": "m", "retryable": True}
    failed = failure(418, body)
    assert isinstance(failed.error, ApiUnavailable) and failed.retryable
    failed = failure(418, {**body, "retryable": False})
    assert isinstance(failed.error, ApiProtocolError) and failed.retryable is False


@pytest.mark.parametrize(
    ("milliseconds", "header", "seconds", "asks"),
    [
        (84, None, 0.084, ""),
        (5000, "1", 5.0, "; it asks to wait 5 s"),
        (999, None, 0.999, ""),
        (1000, None, 1.0, "; it asks to wait 1 s"),
        (None, "1" * 13, 111111111111.0, "; it asks to wait 111111111111 s"),
        (None, "3", 3.0, "; it asks to wait 3 s"),
        (None, " 3 ", 3.0, "; it asks to wait 3 s"),
        (None, "0", 0.0, ""),
        (None, "soon", None, ""),
        (None, None, None, ""),
    ],
)
def test_the_wait_is_the_bodys_or_else_the_headers(
    milliseconds: int | None, header: str | None, seconds: float | None, asks: str
) -> None:
    body: dict[str, Any] = {"error_code": "RATE_LIMITED", "message": "slow", "retryable": True}
    if milliseconds is not None:
        body["retry_after_ms"] = milliseconds
    failed = failure(429, body, {} if header is None else {"retry-after": header})
    assert failed.wait_s == seconds
    assert failed.error.message == (f'the API is limiting requests: "slow" (RATE_LIMITED){asks}')


def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    wait_s = failure(503, b"", {"retry-after": date}).wait_s
    assert wait_s is not None and 15 < wait_s < 21
    past = email.utils.formatdate(time.time() - 20, usegmt=True)
    assert failure(503, b"", {"retry-after": past}).wait_s == 0


@pytest.mark.parametrize(
    "value",
    ["-1", "NaN", "inf", "1e9", "5.5", "\u0663", "Thu, 01 Jan 1970 00:00:00 +9999",
     "Thu, 99999999999999999999 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 99999 23:59:59 GMT"],
)  # fmt: skip
def test_an_impossible_wait_is_none(value: str) -> None:
    assert failure(503, b"", {"retry-after": value}).wait_s is None


@pytest.mark.parametrize("value", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_of_ages_is_a_number_that_a_timer_takes(value: str) -> None:
    wait_s = failure(503, b"", {"retry-after": value}).wait_s
    assert wait_s is not None and 1e11 < wait_s < 1e12


@pytest.mark.parametrize("date", ["", "soon", "Mon, 99 Jan 2026 00:00:00 GMT"])
def test_a_date_that_is_none_is_no_time(date: str) -> None:
    assert parse_date(date) is None


def test_a_key_that_a_server_sends_back_is_not_shown() -> None:
    body = {"error_code": "AUTH_INVALID", "message": f"bad {SECRET}!"}
    assert '"bad [masked]!"' in failure(401, body).error.message


@pytest.mark.parametrize(
    ("status", "kind"), [(401, CredentialsError), (403, Forbidden), (503, ApiUnavailable)]
)
def test_a_refused_list_is_not_taken_for_an_api_without_one(
    status: int, kind: type[DcsError]
) -> None:
    failed = Problems(SETTINGS, CREDENTIALS).from_status(status, {}, b"", names_machine=False)
    assert isinstance(failed.error, kind)


@pytest.mark.parametrize("status", [404, 405, 410])
def test_a_request_about_no_machine_does_not_speak_of_one(status: int) -> None:
    failed = Problems(SETTINGS, CREDENTIALS).from_status(status, {}, b"", names_machine=False)
    assert isinstance(failed.error, ApiProtocolError) and failed.retryable is False
    assert failed.error.message == (
        f"the API at https://api.test has no list of machines: HTTP {status}"
    )
    assert failed.error.hint == (
        "check DEDALUS_BASE_URL; if it is right, type the machine's complete name"
    )


def test_problem_json_and_html_are_quoted_or_left_out() -> None:
    body = {"title": "Bad\x1b[0m", "detail": "no\nsuch"}
    assert failure(400, body).error.message == 'the API answered "no such" (HTTP 400)'
    error = failure(501, b"<html>").error
    assert error.message == "the API answered HTTP 501"
    assert error.hint == (
        "try again later; if you report this, include the request's id from dcs-proxy log"
    )


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_fails_without_a_word_is_asked_again(status: int) -> None:
    failed = failure(status, b"<html>")
    assert isinstance(failed.error, ApiUnavailable) and failed.retryable


def test_who_has_no_access_to_the_beta_is_told_what_to_do() -> None:
    body = {"error_code": "BETA_ACCESS_REQUIRED", "message": "no", "retryable": False}
    assert failure(403, body).error.hint == (
        "ask the service for access, or use the key of an organisation that has it"
    )
    for other in ({**body, "error_code": "AUTH"}, b"<html>"):
        assert failure(403, other).error.hint == (
            "check that DEDALUS_ORG_ID names the organisation that owns the key"
        )


@pytest.mark.parametrize("code", ["machine_not_found", "MACHINE_NOT_ROUTABLE"])
@pytest.mark.parametrize("status", [400, 404, 409, 503])
def test_a_machine_that_cannot_be_reached_is_one_whatever_the_status(
    code: str, status: int
) -> None:
    body = {"error_code": code, "message": "no", "retryable": False}
    failed = failure(status, body)
    assert isinstance(failed.error, MachineUnreachable) and failed.retryable is False
    assert failed.error.hint.startswith("check the name")


NO_NAME = socket.gaierror(-2, "Name or service not known")
POOL: Any = None  # urllib3's errors only keep it


def caused_by(cause: Exception, error: Exception) -> Exception:
    """Return `error` as it is raised while `cause` is handled."""
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said", "retryable"),
    [
        (requests.exceptions.SSLError("[SSL: X] x"), "cannot be reached: TLS failed", False),
        (requests.exceptions.SSLError("[SSL: UNEXPECTED_EOF_WHILE_READING] x"),
         "closed the connection during the TLS handshake", False),
        (requests.exceptions.SSLError("[SSL: WRONG_VERSION_NUMBER] x"), "does not speak TLS",
         False),
        (requests.exceptions.ReadTimeout("x"), "does not answer", True),
        (requests.ConnectionError(ProtocolError("x", ConnectionResetError(104, "Reset"))),
         "cannot be reached: Reset", True),
        (requests.ConnectionError(ProtocolError("x", HTTPException("got more than 100 headers"))),
         "sent too many or too long HTTP headers", False),
        (requests.ConnectionError(ProtocolError("x", LineTooLong("header line"))),
         "sent too many or too long HTTP headers", False),
        (requests.ConnectionError(ProtocolError("x", BadStatusLine("x"))),
         "sent an incomplete response", True),
        (requests.exceptions.ChunkedEncodingError("x"), "sent an incomplete response", True),
        (requests.ConnectionError("x"), "sent an incomplete response", True),
        (requests.exceptions.InvalidURL("x"), "cannot be queried: InvalidURL", False),
        (requests.exceptions.InvalidHeader("a header of ours"),
         "cannot be queried: InvalidHeader", False),
    ],
)  # fmt: skip
def test_each_exception_is_told_in_a_few_words(
    error: Exception, said: str, retryable: bool
) -> None:
    failed = of_exception(error)
    assert failed.error.message == f"the API at https://api.test {said}"
    assert failed.retryable == retryable


def test_a_name_that_cannot_be_looked_up_is_told() -> None:
    unknown = caused_by(NO_NAME, NameResolutionError("api.test", POOL, NO_NAME))
    error = requests.ConnectionError(MaxRetryError(POOL, "/", unknown))
    failed = of_exception(error)
    assert failed.error.message == "cannot look up api.test" and failed.retryable is True
    assert failed.error.hint == (
        "check the network, DEDALUS_BASE_URL and proxy variables, then try again"
    )
    second = requests.ConnectionError(ProtocolError(ValueError("x"), NO_NAME))
    assert of_exception(second).error.message == "cannot look up api.test"


@pytest.mark.parametrize(
    ("cause", "said", "retryable"),
    [
        (OSError("Tunnel connection failed: 403 Forbidden"),
         'the proxy answers "403 Forbidden"', False),
        (OSError("Tunnel connection failed: 407 no wr0ng-password"),
         'the proxy answers "407 no [masked]"', False),
        (OSError("Tunnel connection failed: 502 \x1b[31mBad"),
         'the proxy answers "502 [31mBad"', True),
        (TimeoutError("timed out"), "the proxy does not answer", True),
        (ConnectionRefusedError(111, "Refused"), "the proxy: Refused", True),
        (caused_by(NO_NAME, NameResolutionError("proxy.test", POOL, NO_NAME)),
         "cannot look up the proxy's name", True),
    ],
)  # fmt: skip
def test_what_the_proxy_said_is_told(cause: Exception, said: str, retryable: bool) -> None:
    reason = ProxyError("Unable to connect to proxy", cause)
    error = requests.exceptions.ProxyError(MaxRetryError(POOL, "/", reason))
    failed = of_exception(error, PROXIED)
    assert failed.error.message == (
        "the API at https://api.test (through the HTTP proxy http://proxy.test:3128) "
        f"cannot be reached: {said}"
    )
    assert "proxy in the config file" in failed.error.hint
    assert failed.retryable == retryable


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("certificate verify failed: certificate is not yet valid",
         "presents a TLS certificate that is not yet valid", "check this computer's clock"),
        ("certificate verify failed: certificate has expired",
         "presents a TLS certificate that has expired", "check this computer's clock"),
        ("certificate verify failed: Hostname mismatch, certificate is not valid for 'api.test'.",
         "presents a TLS certificate of another host", "check the network"),
        ("certificate verify failed: self-signed certificate in certificate chain",
         "presents a TLS certificate that is not trusted", "set ca_file in the config file"),
    ],
)  # fmt: skip
def test_a_failed_tls_handshake_is_told_by_its_cause(words: str, said: str, hint: str) -> None:
    text = f"[SSL: CERTIFICATE_VERIFY_FAILED] {words} (_ssl.c:1006)"
    failed = of_exception(requests.exceptions.SSLError(text))
    assert failed.error.message == f"the API at https://api.test {said}"
    assert failed.error.hint.startswith(hint) or hint in failed.error.hint
    assert failed.retryable is False


def test_a_certificate_that_is_out_of_its_time_is_told_with_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((2026, 1, 2, 3, 4, 5, 4, 2, 0)))
    error = requests.exceptions.SSLError("certificate has expired")
    expected = "check this computer's clock: it says 2026-01-02 03:04 UTC"
    assert of_exception(error).error.hint == expected


def test_a_ca_of_the_users_is_named() -> None:
    network = replace(DIRECT, ca="/etc/my ca.pem", ca_source="REQUESTS_CA_BUNDLE")
    error = requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get issuer")
    assert of_exception(error, network).error.message == (
        "the API at https://api.test presents a TLS certificate that is not trusted by "
        "/etc/my ca.pem (REQUESTS_CA_BUNDLE)"
    )


@pytest.mark.parametrize(
    "text",
    ["[X509: KEY_VALUES_MISMATCH] key values mismatch (_ssl.c:4149)", "[SSL] PEM lib (_ssl.c:4149)",
     "[PEM: NO_START_LINE] no start line (_ssl.c:4149)", "NO_CERTIFICATE_OR_CRL_FOUND"],
)  # fmt: skip
def test_a_ca_file_that_openssl_cannot_read_is_named(text: str) -> None:
    network = replace(DIRECT, ca="/etc/my ca.pem", ca_source="REQUESTS_CA_BUNDLE")
    words = requests.exceptions.SSLError(text)
    failed = of_exception(words, network)
    assert isinstance(failed.error, ConfigError) and failed.retryable is False
    assert failed.error.message == (
        "REQUESTS_CA_BUNDLE names /etc/my ca.pem, which has a broken certificate"
    )
    assert failed.error.hint == "see: openssl storeutl -noout -text -certs '/etc/my ca.pem'"
    # The same words about the system's own authorities are no fault of the user's file.
    assert of_exception(words).error.message.endswith("cannot be reached: TLS failed")
