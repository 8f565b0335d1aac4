from __future__ import annotations

import pytest

from dcs_proxy import errors
from dcs_proxy.errors import DcsError, GatewayUnreachable, UsageError, attribute_errors_to


def test_what_a_person_reads_is_an_error_and_a_hint() -> None:
    error = GatewayUnreachable("it is gone", hint="come back", machine="dm-foo")
    assert error.lines() == ["dcs-proxy: dm-foo: it is gone", "dcs-proxy: hint: come back"]
    assert error.one_line() == "dm-foo: it is gone; hint: come back"
    assert DcsError("so").lines() == ["dcs-proxy: so"]
    assert DcsError("so").one_line() == "so"


def test_every_exit_code_has_one_class_but_for_its_subclasses() -> None:
    direct = DcsError.__subclasses__()
    codes = [kind.exit_code for kind in direct]
    assert len(set(codes)) == len(codes)
    assert errors.IdempotencyConflict.exit_code == errors.ApiProtocolError.exit_code


def test_exit_codes_are_those_that_scripts_rely_on() -> None:
    found = {name: kind.exit_code for name, kind in vars(errors).items()
             if isinstance(kind, type) and issubclass(kind, DcsError)}  # fmt: skip
    assert found == {
        "DcsError": 1, "UsageError": 2, "ConfigError": 3, "CredentialsError": 4,
        "KeyringUnusable": 4, "Forbidden": 5, "MachineNotFound": 6, "MachineUnreachable": 6,
        "ApiUnavailable": 7, "ApiProtocolError": 8, "IdempotencyConflict": 8, "SessionFailed": 9,
        "LoginRefused": 9, "DeadlineExceeded": 10, "Untrusted": 11, "AgentUnavailable": 12,
        "AgentRefused": 13, "StateError": 14, "GatewayUnreachable": 15, "LoginMismatch": 16,
        "NotWoken": 17, "ClientGone": 130, "ReaderGone": 0,
    }  # fmt: skip
    documented = dict(errors.exit_codes())
    assert sorted(documented) == sorted(set(found.values()))
    assert (documented[0], documented[4]) == (
        "Success.", "The API key is missing, or the API rejects it (401)."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (GatewayUnreachable, None, "dm-foo ?"), (GatewayUnreachable, "dm-bar", "dm-bar"),
        (UsageError, None, None), (UsageError, "dm-bar", "dm-bar"),
    ],
)  # fmt: skip
def test_an_error_is_about_the_machine_that_the_user_named(
    kind: type[DcsError], before: str | None, after: str | None
) -> None:
    error = kind("so", machine=before)
    with pytest.raises(kind) as caught, attribute_errors_to("dm-foo \x1b?"):
        raise error
    assert caught.value is error
    assert error.machine == after


def test_a_message_and_a_hint_are_safe_and_short() -> None:
    error = DcsError("a\x1b[31m" + "b" * 2000, hint="c\nd" + "e" * 2000)
    assert error.message == str(error) == "a?[31m" + "b" * 991 + "..."
    assert error.hint == "c?d" + "e" * 994 + "..."
    assert (error.was_shown, error.was_logged, error.machine) == (False, False, None)
