"""Command lines that switch ssh's check of the gateway off: it is proved all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
# What ansible.posix.synchronize adds, and what Ansible adds with host_key_checking = False.
SYNCHRONIZE = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
ANSIBLE = ("-o", "StrictHostKeyChecking=no")
RELAYED = ("-o", "ProxyUseFdpass=no")
OPTIONS = {
    "synchronize": SYNCHRONIZE,
    "ansible": ANSIBLE,
    "relayed": (*ANSIBLE, *RELAYED),
    "off": ("-oStrictHostKeyChecking=off",),
    "accept-new": ("-o", "StrictHostKeyChecking accept-new"),
}
IMPOSTORS = ["gateway-other-authority", "gateway-other-name", "gateway-expired",
             "gateway-unsigned-key"]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_an_impostor_gets_nothing(
    start_emulator: Start, user: User, impostor: str, options: tuple[str, ...]
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--fault", f"dm-foo={impostor}")
    user.use(emulator)
    for _ in range(2):
        done = user.ssh(*options, "dm-foo", "cat", input="a playbook's data\n")
        assert (done.returncode, done.stdout) == (255, ""), done.stderr
        assert "dcs-proxy: dm-foo: the gateway" in done.stderr
        assert "Permanently added" not in done.stderr
    assert not emulator.events(event="login")


@pytest.mark.parametrize("options", [SYNCHRONIZE, (*ANSIBLE, *RELAYED)])
def test_the_right_gateway_lets_in_cold_and_warm(
    start_emulator: Start, user: User, options: tuple[str, ...]
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    for number in (1, 2):
        done = user.ssh(*options, "dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        assert user.log().count("gateway-proved machine=dm-foo") == number


def test_a_strict_ssh_pays_nothing(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    for _ in range(2):
        done = user.ssh("-o", "StrictHostKeyChecking=yes", "dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert "gateway-proved" not in user.log()
    assert " warm=yes " in user.log().splitlines()[-1]


def test_a_file_of_known_hosts_alone_is_no_way_in(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--fault", "dm-foo=gateway-other-authority")
    user.use(emulator)
    done = user.ssh("-o", "UserKnownHostsFile=/dev/null", "dm-foo", "true")
    assert done.returncode == 255 and "Host key verification failed" in done.stderr
    assert not emulator.events(event="login")
