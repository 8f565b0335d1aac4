from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from dcs_proxy.app import Options, find_program
from dcs_proxy.doctor import ssh_options
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import failed
from dcs_proxy.doctor.ssh_options import check_host_options, check_options, find_faults
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import NO_MACHINE, render_top
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.publish.launcher import write_launcher
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
        ({"user": ["nc --token=secret"]}, "User is nc"),
        ({"user": ["x" * 61]}, f"User is {'x' * 57}..."),
        ({"identityfile": ["/a", "/b"]}, "IdentityFile is /a, /b"),
        ({"proxyjump": ["hop"]}, "ProxyJump replaces our command"),
        ({"hostkeyalgorithms": ["ssh-ed25519"]}, "HostKeyAlgorithms has no certificates"),
        ({"pubkeyacceptedalgorithms": ["ssh-rsa-cert-v01@openssh.com"]},
         "PubkeyAcceptedAlgorithms lacks ssh-ed25519-cert-v01@openssh.com"),
    ],
)  # fmt: skip
def test_each_option_that_differs_is_a_fault(change: dict[str, list[str]], text: str) -> None:
    (fault,) = find_faults({**GOOD, **change}, WANTED)
    assert fault.text == text or (" is " not in text and fault.text.startswith(text))
    assert fault.hint.startswith("lines for dm- hosts" if " is " in text else "")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"casignaturealgorithms": ["ecdsa-sha2-nistp256"]}, "CASignatureAlgorithms lacks ssh-ed2"),
        ({"casignaturealgorithms": ["sk-ssh-ed25519@openssh.com"]}, "CASignatureAlgorithms lacks"),
        ({"knownhostscommand": ["/bin/x"]}, "KnownHostsCommand is set"),
        ({"pkcs11provider": ["/lib/x.so"]}, "PKCS11Provider is set"),
        ({"revokedhostkeys": ["/does/not/exist"]}, "RevokedHostKeys names /does/not/exist"),
        ({"proxyjump": ["hop"]}, "ProxyJump replaces our command"),
    ],
)  # fmt: skip
def test_each_option_that_would_break_a_login_is_a_fault_with_its_hint(
    change: dict[str, list[str]], text: str
) -> None:
    (fault,) = find_faults({**GOOD, **change}, WANTED)
    assert fault.text.startswith(text)
    # The name is searched for in the config file.
    assert fault.option == text.split()[0]
    hints = {
        "CASignatureAlgorithms": ssh_options._LISTS,
        "RevokedHostKeys": "make that file readable, or remove the line",
    }
    assert fault.hint == hints.get(fault.option, ssh_options._ORDER)


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


def test_a_list_of_revoked_keys_may_be_named_by_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {**GOOD, "revokedhostkeys": ["~/revoked"]}
    assert [fault.option for fault in find_faults(options, WANTED)] == ["RevokedHostKeys"]
    (tmp_path / "revoked").touch()
    assert find_faults(options, WANTED) == []


class WithOptions(Context):
    """A context in which ssh prints these options."""

    printed: dict[str, list[str]]
    said = "one\ntwo\nbad configuration option\n"
    read: Sequence[Path] = ()
    asked: str

    def read_options(self, host: str, *, verbose: bool = False) -> tuple[dict[str, list[str]], str]:
        self.asked = host
        read = [f"debug1: Reading configuration data {path}\n" for path in self.read]
        return self.printed, "".join(read) if verbose else self.said


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


def test_a_line_of_a_config_without_a_block_is_named(context: WithOptions) -> None:
    Path(context.ssh_config).write_text("UpdateHostKeys yes\n")
    context.printed = {**context.printed, "updatehostkeys": ["yes"]}
    expected = f"UpdateHostKeys is yes (line 1 of {context.ssh_config})"
    assert check_options(context).text == expected


def test_a_line_of_an_included_file_is_named_and_none_of_our_own_files(
    context: WithOptions, tmp_path: Path
) -> None:
    names = ("fifo", "state/hosts/dm-foo.conf", "with a space", "late")
    context.read = [tmp_path / "config", *(tmp_path / name for name in names), tmp_path / "gone"]
    os.mkfifo(context.read[1])
    for path in context.read[2:-1]:
        path.write_text("# mine\n\tUpdateHostKeys=yes\n")
    context.printed = {**context.printed, "updatehostkeys": ["yes"]}
    expected = f"UpdateHostKeys is yes (line 2 of {tmp_path}/with a space)"
    assert check_options(context).text == expected


def test_an_error_of_the_command_in_the_block_explains_all_faults(context: WithOptions) -> None:
    context.said = "Pseudo-terminal\ndcs-proxy: /x is a directory\ndcs-proxy: hint: remove it\n"
    assert check_options(context).ok
    context.printed = {**context.printed, "user": ["me"], "proxyusefdpass": ["no"]}
    assert check_options(context) == failed("/x is a directory", "remove it")


def test_a_config_of_any_bytes_is_searched(context: WithOptions) -> None:
    text = b"# \xff\nUpdateHostKeys yes\n"
    block = "Host dm-*\n    User \udcff\n"
    Path(context.ssh_config).write_bytes(config_file.install(text, block, "Host *\n"))
    context.printed = {**context.printed, "updatehostkeys": ["yes"]}
    assert "UpdateHostKeys is yes (line " in check_options(context).text


def test_an_ssh_that_prints_no_options_has_failed(context: WithOptions) -> None:
    context.printed = {}
    check = check_options(context)
    hint = f"fix that; see: ssh -G {NO_MACHINE}"
    assert check == failed("ssh -G fails: bad configuration option", hint)
    context.said = "\n"
    assert check_options(context) == failed("ssh -G fails: no message", hint)


def test_three_faults_are_told_and_the_rest_counted(context: WithOptions) -> None:
    wrong = {option: ["wrong"] for option in FIXED}
    context.printed = {**context.printed, **wrong}
    assert check_options(context).text.endswith("; and 4 more")


@pytest.mark.parametrize("count", [3, 4])
def test_only_faults_beyond_the_third_are_counted(context: WithOptions, count: int) -> None:
    wrong = {option: ["wrong"] for option in list(FIXED)[:count]}
    context.printed = {**context.printed, **wrong}
    check = check_options(context)
    assert check.text.count(" is wrong") == 3
    text = check.text.lower()
    assert text.startswith("; ".join(f"{option} is wrong" for option in list(FIXED)[:3]))
    assert "more" not in check.text or count == 4
    assert check.text.endswith("; and 1 more") is (count == 4)
    assert check.hint.startswith("lines for dm- hosts belong below")


@pytest.mark.parametrize("hands_over", [True, False])
def test_the_command_of_the_block_is_needed_and_a_block_of_pipes_needs_no_socket(
    context: WithOptions, hands_over: bool
) -> None:
    program = find_program(context.options, context.environment)
    write_launcher(program)
    block = render_top(program, [], Version(9, 2), hands_over=hands_over)
    Path(context.ssh_config).write_bytes(config_file.install(b"", block, "Host *\n"))
    assert check_options(context).text.startswith("ProxyCommand is not set")
    command = program.launch("--login", "'%r'", "'%h'", "%p")
    context.printed = {**context.printed, "proxycommand": [command], "proxyusefdpass": ["no"]}
    check = check_options(context)
    assert (check.ok, check.text) == (
        (False, "ProxyUseFdpass is no") if hands_over else
        (True, f"ssh -G {NO_MACHINE} prints what a session needs")
    )  # fmt: skip


def test_the_users_machine_needs_the_options_of_its_own_session(context: WithOptions) -> None:
    context.host = "dm-foo"
    assert context.state is not None
    path = Path(context.state.snippet_path(MachineName("dm-foo")))
    path.write_text('Match originalhost dm-foo\n    User wssh-7\n    IdentityFile "/a b%%cX"\n')
    path.chmod(0o600)
    context.printed = {**context.printed, "user": ["wssh-7"], "identityfile": ["/a b%cX"]}
    assert check_host_options(context).text == "ssh -G dm-foo prints what a session needs"
    assert context.asked == "dm-foo"
    context.printed = {**context.printed, "user": ["me"]}
    assert check_host_options(context).text == "User is me"


def test_a_machine_without_a_file_to_include_needs_what_every_session_needs(
    context: WithOptions,
) -> None:
    context.host = "dm-foo"
    assert check_host_options(context).ok
    context.printed = {**context.printed, "updatehostkeys": ["yes"]}
    assert check_host_options(context).text == "UpdateHostKeys is yes"


def test_a_line_of_the_systems_config_is_named(
    context: WithOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "ssh_config"
    system.write_text("Host *\n  UpdateHostKeys yes\n")
    monkeypatch.setattr(ssh_options, "_SYSTEM_CONFIG", str(system))
    context.printed = {**context.printed, "updatehostkeys": ["yes"]}
    assert check_options(context).text == f"UpdateHostKeys is yes (line 2 of {system})"


def test_a_jump_is_the_first_fault_to_mend() -> None:
    faults = find_faults({**GOOD, "user": ["root"], "proxyjump": ["hop"]}, WANTED)
    assert [fault.option for fault in faults] == ["ProxyJump", "User"]


def test_a_missing_list_of_algorithms_is_a_fault_with_its_hint() -> None:
    faults = find_faults({"user": ["wssh-1"], "identityfile": ["/state/x-cert.pub"]}, WANTED)
    assert [fault.option for fault in faults] == [
        "HostKeyAlgorithms", "PubkeyAccepted(Algorithms|KeyTypes)"
    ]  # fmt: skip
    assert {fault.hint for fault in faults} == {
        "begin the list with + or ^ to keep the algorithms of certificates"
    }
