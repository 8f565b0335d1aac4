from __future__ import annotations

import os
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor.context import NO_MACHINE, Context
from dcs_proxy.doctor.ssh_options import check_options, find_faults
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.ssh.private_agents import PrivateAgents

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


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"casignaturealgorithms": ["ecdsa-sha2-nistp256"]}, "CASignatureAlgorithms lacks ssh-ed2"),
        ({"casignaturealgorithms": ["sk-ssh-ed25519@openssh.com"]}, "CASignatureAlgorithms lacks"),
        ({"knownhostscommand": ["/bin/x"]}, "KnownHostsCommand is set"),
        ({"pkcs11provider": ["/lib/x.so"]}, "PKCS11Provider is set"),
        ({"revokedhostkeys": ["/does/not/exist"]}, "RevokedHostKeys names /does/not/exist"),
    ],
)  # fmt: skip
def test_each_option_that_would_break_a_login_is_a_fault(
    change: dict[str, list[str]], text: str
) -> None:
    (fault,) = find_faults({**GOOD, **change}, WANTED)
    assert fault.text.startswith(text)


@pytest.mark.parametrize(
    "change",
    [
        {"casignaturealgorithms": ["rsa-sha2-512,ssh-ed25519"]},
        {"knownhostscommand": ["none"], "pkcs11provider": ["none"], "revokedhostkeys": ["none"]},
        {"revokedhostkeys": [os.devnull]},
    ],
)  # fmt: skip
def test_what_does_no_harm_is_no_fault(change: dict[str, list[str]]) -> None:
    assert find_faults({**GOOD, **change}, WANTED) == []


class WithOptions(Context):
    """A context in which ssh prints these options."""

    printed: dict[str, list[str]]

    def read_options(self, host: str) -> tuple[dict[str, list[str]], str]:
        return self.printed, "one\nbad configuration option\n"


# What every session needs, whichever machine.
FIXED = {
    "proxyusefdpass": ["yes"],
    "stricthostkeychecking": ["yes"],
    "updatehostkeys": ["no"],
    "verifyhostkeydns": ["no"],
    "canonicalizehostname": ["no"],
    "pubkeyauthentication": ["yes"],
    "preferredauthentications": ["publickey"],
}


@pytest.fixture
def context(tmp_path: Path) -> WithOptions:
    """A context without a block, in which ssh prints what a session needs."""
    options = Options(str(tmp_path / "state"))
    found = WithOptions(options, {"HOME": str(tmp_path)}, str(tmp_path / "config"), False, None)
    found.state = StateDirectory(options.state_directory(found.environment))
    found.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))
    of_session = {
        "hostname": [NO_MACHINE],
        "user": ["dcs-proxy-doctor"],
        "hostkeyalias": ["doctor.invalid"],
        "identityfile": [found.state.file("sessions", "doctor-cert.pub")],
        "identitiesonly": ["yes"],
        "identityagent": [PrivateAgents(found.state.path).path(1)],
        "userknownhostsfile": [found.state.file("sessions", "doctor.known_hosts")],
        "globalknownhostsfile": [os.devnull],
    }
    found.printed = {**GOOD, **FIXED, **of_session}
    return found


def test_options_as_a_session_needs_them_pass(context: WithOptions) -> None:
    check = check_options(context)
    assert check.ok, check
    assert context.state is not None
    assert os.listdir(context.state.file("hosts")) == []


@pytest.mark.parametrize(
    "option", [*FIXED, "hostkeyalias", "identityagent", "identitiesonly", "userknownhostsfile"]
)
def test_every_option_that_a_session_needs_is_looked_at(context: WithOptions, option: str) -> None:
    context.printed = {**context.printed, option: ["wrong"]}
    check = check_options(context)
    assert check.ok is False
    assert check.text.lower() == f"{option} is wrong"


def test_a_line_of_the_users_is_named_and_never_one_of_the_block(context: WithOptions) -> None:
    block = "Host dm-*\n    UpdateHostKeys no\n"
    own = b"Host *\n    updatehostkeys=yes\n"
    text = config_file.install(own, block, block)
    Path(context.ssh_config).write_bytes(text)
    context.printed = {**context.printed, "updatehostkeys": ["yes"]}
    line = text.splitlines().index(b"    updatehostkeys=yes") + 1
    check = check_options(context)
    assert check.text == f"UpdateHostKeys is yes (line {line} of {context.ssh_config})"
    Path(context.ssh_config).write_bytes(config_file.install(b"", block, block))
    assert check_options(context).text == "UpdateHostKeys is yes"


def test_an_ssh_that_prints_no_options_has_failed(context: WithOptions) -> None:
    context.printed = {}
    check = check_options(context)
    assert (check.ok, check.text) == (False, "ssh -G fails: bad configuration option")


def test_three_faults_are_told_and_the_rest_counted(context: WithOptions) -> None:
    wrong = {option: ["wrong"] for option in FIXED}
    context.printed = {**context.printed, **wrong}
    assert check_options(context).text.endswith("; and 4 more")
