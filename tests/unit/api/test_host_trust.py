from __future__ import annotations

import pytest

from dcs_proxy.api.host_trust import HostTrust, check_host_trust, covers
from dcs_proxy.errors import Untrusted
from dcs_proxy.names import MachineName

NAME = MachineName("dm-foo")


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("ssh.example", "ssh.example", True),
        ("*", "ssh.example", True),
        ("*.example", "ssh.example", True),
        ("*.example", "example", False),
        ("s?h.example", "ssh.example", True),
        ("SSH.example", "ssh.example", True),
        ("other,ssh.example", "ssh.example", True),
        ("*,!ssh.example", "ssh.example", False),
        ("!ssh.example,*", "ssh.example", False),
        ("!other,*", "ssh.example", True),
        ("!ssh.example", "other", False),
        ("ssh.exampl", "ssh.example", False),
        ("ssh.example.evil", "ssh.example", False),
        ("sshxexample", "ssh.example", False),
        ("", "ssh.example", False),
    ],
)
def test_patterns_match_as_in_openssh(pattern: str, host: str, expected: bool) -> None:
    assert covers(pattern, host) is expected


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        ("other.example", "other.example"),
        ("ssh.example\n* evil", "ssh.example * evil"),
        ("ssh.example evil", "ssh.example evil"),
        ("*" * 2000, "*" * 197 + "..."),
    ],
)
def test_host_trust_that_does_not_cover_the_endpoint_is_refused(pattern: str, shown: str) -> None:
    with pytest.raises(Untrusted) as caught:
        check_host_trust(HostTrust("cert_authority", pattern, "k"), "ssh.example", 22, NAME)
    assert caught.value.one_line() == (
        f'dm-foo: the API\'s host trust for "{shown}" does not cover the endpoint ssh.example; '
        "hint: no connection was made; report it to the service's support"
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[ssh.example]:2222", True),
        ("[SSH.*]:*", True),
        ("[ssh.example]:22", False),
        ("[ssh.example]", False),
        ("*,![ssh.example]:2222", False),
        ("ssh.example", True),
    ],
)
def test_a_pattern_may_have_the_port(pattern: str, expected: bool) -> None:
    trust = HostTrust("cert_authority", pattern, "k")
    if expected:
        assert check_host_trust(trust, "ssh.example", 2222, NAME) == "k"
        return
    with pytest.raises(Untrusted, match="does not cover the endpoint"):
        check_host_trust(trust, "ssh.example", 2222, NAME)


def test_without_host_trust_of_a_kind_that_is_known_nobody_is_trusted() -> None:
    with pytest.raises(Untrusted) as missing:
        check_host_trust(None, "ssh.example", 22, NAME)
    assert missing.value.one_line() == (
        "dm-foo: the API sent no host trust, so the gateway's identity cannot be verified; "
        "hint: try again; if this persists, report it to the service's support"
    )
    with pytest.raises(Untrusted) as unknown:
        check_host_trust(HostTrust("pinned\x1b[0m", "*", "k"), "ssh.example", 22, NAME)
    assert unknown.value.one_line() == (
        'dm-foo: the API sent host trust of the unknown kind "pinned [0m"; '
        "hint: a newer dcs-proxy may support it"
    )


def test_host_trust_that_covers_the_endpoint_gives_its_key() -> None:
    trust = HostTrust("cert_authority", "*.example", "ssh-ed25519 AAAA")
    assert check_host_trust(trust, "ssh.example", 22, NAME) == "ssh-ed25519 AAAA"
