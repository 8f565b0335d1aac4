from __future__ import annotations

import pytest

from dcs_proxy.doctor.ssh_options import find_faults

GOOD = {
    "user": ["wssh-1"],
    "identityfile": ["/home/me/.ssh/id", "/state/x-cert.pub"],
    "hostkeyalgorithms": ["ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"],
    "pubkeyacceptedalgorithms": ["ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"],
}
WANTED = {"User": "wssh-1", "IdentityFile": "/state/x-cert.pub"}


def test_what_a_session_needs_is_no_fault() -> None:
    assert find_faults(GOOD, WANTED) == []
    older = {**GOOD, "pubkeyacceptedkeytypes": GOOD["pubkeyacceptedalgorithms"]}
    del older["pubkeyacceptedalgorithms"]
    assert find_faults({**older, "proxyjump": ["none"]}, WANTED) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"user": ["root"]}, "User is root"),
        ({"user": []}, "User is not set"),
        ({"identityfile": ["/a", "/b"]}, "IdentityFile is /a, /b"),
        ({"proxyjump": ["hop"]}, "ProxyJump replaces our command"),
        ({"hostkeyalgorithms": ["ssh-ed25519"]}, "HostKeyAlgorithms has no certificates"),
        ({"pubkeyacceptedalgorithms": ["ssh-rsa-cert-v01@openssh.com"]},
         "PubkeyAcceptedAlgorithms lacks ssh-ed25519-cert-v01@openssh.com"),
    ],
)  # fmt: skip
def test_each_option_that_differs_is_a_fault(change: dict[str, list[str]], text: str) -> None:
    (fault,) = find_faults({**GOOD, **change}, WANTED)
    assert fault.text.startswith(text)
