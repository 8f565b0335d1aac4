from __future__ import annotations

import pytest

from dcs_proxy.local.host_names import parse_host


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("API.Example", "api.example"),
        ("my_proxy", "my_proxy"),
        ("example.com.", "example.com."),
        ("10.0.0.1", "10.0.0.1"),
        ("FD00::1", "fd00::1"),
        ("a" * 63, "a" * 63),
        ("a" * 64, None),
        ("a..b", None),
        ("", None),
        (".", None),
        ("-a", None),
        ("a-", None),
        ("a b", None),
        ("a\n", None),
        ("fe80::1%eth0", None),
        ("b\u00fccher", None),
        ("a." * 126 + "a", "a." * 126 + "a"),
        ("a." * 126 + "ab", None),
        ("a." * 127, None),
    ],
)
def test_host_names_and_addresses(text: str, host: str | None) -> None:
    assert parse_host(text) == host
