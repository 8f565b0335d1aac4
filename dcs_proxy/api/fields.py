"""Read the fields of a JSON object from the API, with errors that name them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from dcs_proxy.errors import ApiProtocolError
from dcs_proxy.names import MachineName
from dcs_proxy.text import mask

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)
# Go's zero time, which Go programs send for a time that is not set (package time, Time.IsZero).
_GO_ZERO = datetime(1, 1, 1, tzinfo=timezone.utc)
_LAST = datetime.max.replace(tzinfo=timezone.utc)
# More milliseconds than this are an error of the server, and could overflow a float or a timer.
_MAX_MS = 2**53
_NOT_THE_API_HINT = (
    "check the network and DEDALUS_BASE_URL: a proxy, or a network that wants a login in a browser,"
    " may answer in the API's place"
)
CONTRACT_HINT = (
    "update dcs-proxy; if that does not help, report this with the request's id from dcs-proxy log"
)


def load_object(body: bytes, machine: MachineName | None) -> dict[str, Any]:
    """Parse a JSON object, as :func:`load_json`; `machine` is what it is about, for the error.

    Raises ApiProtocolError if it is not one.
    """
    try:
        value = load_json(body)
    except ValueError:
        raise not_json(machine) from None
    if not isinstance(value, dict):
        raise ApiProtocolError(
            "the API's response is not a JSON object", hint=_NOT_THE_API_HINT, machine=machine
        )
    return value


def not_json(machine: MachineName | None) -> ApiProtocolError:
    """Return the error for a response about `machine` that is not JSON."""
    return ApiProtocolError(
        "the API's response is not JSON", hint=_NOT_THE_API_HINT, machine=machine
    )


def load_json(body: bytes) -> Any:
    """Parse a JSON document.  Raises ValueError.

    In its strings, secrets of ours are masked and surrogates, which cannot be encoded, replaced.
    """
    try:
        return _safe(json.loads(body))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _safe(value: Any) -> Any:
    match value:
        case str():
            return mask(value.encode("utf-8", "replace").decode())
        case list():
            return [_safe(each) for each in value]
        case dict():
            return {_safe(name): _safe(each) for name, each in value.items()}
    return value


def milliseconds(value: Any) -> int | None:
    """Return how long the API asks to wait, None if the value is not a number."""
    # A NaN is unequal to itself, and bool is an int in Python but not in JSON.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(max(0, min(value, _MAX_MS)))


@dataclass(frozen=True)
class Fields:
    """The fields of one JSON object, `value`; errors name the field, after `prefix`.

    Methods return None for a field that is missing or null unless their docstrings say otherwise,
    and raise ApiProtocolError for a value of the wrong type.
    """

    value: dict[str, Any]
    machine: MachineName | None
    prefix: str = ""

    def wrong(self, field: str, what: str) -> ApiProtocolError:
        """Return the error for a field; `what` completes "FIELD …"."""
        return ApiProtocolError(
            f"the API's response breaks its contract: {self.prefix}{field} {what}",
            hint=CONTRACT_HINT,
            machine=self.machine,
        )

    def optional(self, field: str, kind: type) -> Any:
        """Return a value of type `kind`."""
        value = self.value.get(field)
        # bool is an int in Python but not in JSON.
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise self.wrong(field, "has the wrong type")
        return value

    def text(self, field: str) -> str:
        """Return a string.  Raises ApiProtocolError also if it is missing."""
        value = self.optional(field, str)
        if value is None:
            raise self.wrong(field, "is missing")
        return str(value)

    def whole_number(self, field: str) -> int | None:
        """Return an integer; 22.0 is one, as in JSON Schema."""
        value = self.value.get(field)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        number: int | None = self.optional(field, int)
        return number

    def cursor(self, field: str) -> str | None:
        """Return the cursor of the next page, None after the last page; it may be a number."""
        value = self.value.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.optional(field, str) or None

    def shown_text(self, field: str) -> str:
        """Return a text that is only shown; "" if it is missing or not a text."""
        value = self.value.get(field)
        return value if isinstance(value, str) else ""

    def shown_amount(self, field: str) -> float | None:
        """Return an amount that is only shown; None if it is missing or is not an amount."""
        value = self.value.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        # The comparison is false for NaN, which Python's JSON lets through.
        return value if 0 <= value < 2**53 else None

    def shown_time(self, field: str) -> datetime | None:
        """Return a time that is only shown; None if it is missing or is not a time."""
        value = self.value.get(field)
        moment = parse_time(value) if isinstance(value, str) else None
        return None if moment == _GO_ZERO else moment

    def time(self, field: str) -> datetime | None:
        """Return an RFC 3339 time; None if it is missing, empty, or Go's zero time."""
        text = self.optional(field, str)
        if not text:
            return None
        moment = parse_time(text)
        if moment is None:
            raise self.wrong(field, "is not a date and time")
        return None if moment == _GO_ZERO else moment


def parse_time(text: str) -> datetime | None:
    """Parse an RFC 3339 date-time to aware UTC; None if it is malformed.

    A time outside the years 1 to 9999 in UTC becomes the first or last moment of them: libraries
    write "unset" and "never" as the ends of the calendar, with more digits than microseconds (.NET:
    9999-12-31T23:59:59.9999999), or in their own time zone.
    """
    match = _RFC3339.match(text)
    if match is None:
        return None
    day, clock, fraction, offset = match.groups()
    offset = "+00:00" if offset in "Zz" else offset
    # A leap second (RFC 3339 §5.7), which Python does not know.
    leap_s = clock.endswith(":60")
    clock = clock.replace(":60", ":59") if leap_s else clock
    try:
        local = datetime.fromisoformat(f"{day}T{clock}{offset}")
    except ValueError:
        return None
    try:
        return local.astimezone(timezone.utc) + timedelta(seconds=float(fraction or 0) + leap_s)
    except OverflowError:
        return _GO_ZERO if local.year == 1 else _LAST
