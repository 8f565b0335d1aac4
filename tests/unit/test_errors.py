from __future__ import annotations

from dcs_proxy import errors
from dcs_proxy.errors import DcsError, GatewayUnreachable


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
