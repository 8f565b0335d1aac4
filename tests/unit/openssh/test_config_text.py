from __future__ import annotations

import itertools
import re
import shlex
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcs_proxy.api.host_trust import covers
from dcs_proxy.errors import ConfigError
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.config_text import (
    HOST_PATTERNS,
    Program,
    Snippet,
    listed_hosts,
    render_agent_snippet,
    render_end,
    render_known_hosts,
    render_snippet,
    render_top,
    uses_pipes,
    written_for,
)
from dcs_proxy.openssh.version import Version
from dcs_proxy.publish.includes import is_well_formed

SSH = Version(9, 6)
PROGRAM = Program(("/p",), "/s")
SNIPPET = Snippet(
    MachineName("dm-foo"), "wssh-1", "ssh.example", "/s/key.pub", None, "/s/agent.sock", "/s/known"
)


@pytest.mark.parametrize("path", ["/a'b", '/a"b', "/a\\b", "/a\nb", "/a${HOME}b", "/a\x7fb"])
def test_a_path_that_cannot_be_quoted_is_refused(path: str) -> None:
    for words, state, config, home, remedy in (
        (("/p", path), "/s", None, "", "install dcs-proxy at"),
        (("/p",), path, None, "", "set DCS_PROXY_HOME to"),
        (("/p",), "/s", path, "", "set DCS_PROXY_CONFIG to"),
        (("/p",), "/s", None, path, "set XDG_CONFIG_HOME to"),
        # A home directory is in several of them.
        (("/p",), path, None, path, "set DCS_PROXY_HOME and XDG_CONFIG_HOME to"),
    ):
        with pytest.raises(ConfigError) as caught:
            Program(words, state, config, home)
        assert caught.value.one_line() == (
            f"the ssh config cannot contain the path {path!r}; "
            f"hint: {remedy} a path without quotes, backslashes, control characters and ${{"
        )


@pytest.mark.parametrize("path", ["/a*b", "/a?b", "/a[b]", "/a{b,c}"])
def test_a_state_directory_that_reads_as_a_pattern_is_refused(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Program(("/p",), path)
    assert caught.value.one_line() == (
        f"ssh would read the state directory {path!r} as a pattern; "
        "hint: set DCS_PROXY_HOME to a path without * ? [ ] { }"
    )


def test_a_launcher_is_quoted_only_where_it_must_be() -> None:
    assert Program(("/p",), "/s").launch("'%h'") == "/bin/sh /s/launcher '%h'"
    assert Program(("/p",), "/my 100%").launch() == "/bin/sh '/my 100%%/launcher'"


def test_an_exclamation_mark_is_no_history_to_csh() -> None:
    """csh and tcsh expand ! inside single quotes too; a backslash protects it in every shell."""
    program = Program(("/p",), "/it ours!/a!!b")
    assert program.launch() == "/bin/sh '/it ours'\\!'/a'\\!''\\!'b/launcher'"
    assert shlex.split(program.launch())[1] == program.launcher
    snippet = render_agent_snippet("/tmp/a!b", always=False)
    assert snippet is not None and "-e '/tmp/a'\\!'b'\"" in snippet


def test_a_percent_sign_in_the_state_directory_is_no_token() -> None:
    top = render_top(Program(("/p",), "/my 100%"), [], SSH)
    assert '    UserKnownHostsFile "/my 100%%/known_hosts"\n' in top


@pytest.mark.parametrize(("version", "shown"), [((9, 8), "%"), ((9, 9), "%%"), ((10, 0), "%%")])
def test_a_percent_sign_in_an_include_is_doubled_for_an_ssh_that_expands_it(
    version: tuple[int, int], shown: str
) -> None:
    program, ssh = Program(("/p",), "/100%"), Version(*version)
    assert f"    Include /100{shown}/hosts/*.conf\n" in render_top(program, [], ssh)
    assert f"    Include /100{shown}/agents/*.conf\n" in render_end(program, ssh)


def test_commands_are_quoted_only_where_they_must_be() -> None:
    assert Program(("/Bin/dcs-proxy",), "/s").command("'%h'") == "/Bin/dcs-proxy --home /s '%h'"
    spaced = Program(("/my bin/dcs-proxy",), "/100%/s", "/c d").command()
    assert spaced == "'/my bin/dcs-proxy' --home '/100%%/s' --config '/c d'"


def test_every_character_of_a_shell_is_excluded_or_inside_quotes() -> None:
    for character in set(string.punctuation) - set('-*?,"=.'):
        assert f"!*{character}*" in HOST_PATTERNS, character
    assert "!*.?*" in HOST_PATTERNS  # a dot may end a name
    top = render_top(PROGRAM, [], SSH)
    assert (top.count("'%h'"), top.count("'%r'")) == (2, 1)
    for line in top.splitlines():
        assert line.count("%h") == line.count("'%h'")
        assert line.count("%r") == line.count("'%r'")


def evil_names(mark: Path) -> Iterator[str]:
    """Names that run a command if a shell ever reads them, around every character."""
    touches = [f"touch{space}{mark}" for space in (" ", "\t", "${IFS}", "<")]
    for character, touch in itertools.product(string.punctuation + " \t\n", touches):
        for inside in (touch, f"$({touch})", f"`{touch}`", f";{touch};", f"'{touch}'"):
            yield f"{character}{inside}{character}"
            yield f"'{character}{inside}{character}'"
            yield f"\\'{character}{inside}{character}"


def expand(command: str, host: str, login: str) -> str:
    """Expand a command's tokens as ssh did before 9.6: with whatever the names hold."""
    values = {"%h": host, "%r": login, "%p": "22", "%%": "%"}
    return re.sub("%[hrp%]", lambda match: values[match[0]], command)


@pytest.mark.parametrize("part", ["host", "login"])
def test_names_that_an_old_ssh_lets_through_run_nothing(part: str, tmp_path: Path) -> None:
    top = render_top(Program(("/bin/true",), "/s"), [], SSH)
    exec_line = re.search('(originalhost ".*") exec "(.*)"\n', top)
    proxy = re.search(r"ProxyCommand (.*)\n", top)
    logins = re.search(r'user "(.*)"\n', top)
    assert exec_line and proxy and logins
    mark = tmp_path / "mark"
    commands = []
    for name in evil_names(mark):
        host = f"dm-x{name}".lower() if part == "host" else "dm-foo"
        login = name if part == "login" else "me"
        if not covers(HOST_PATTERNS, host):
            continue
        if part == "host":
            commands.append(expand(exec_line[2], host, login))
        if covers(logins[1], login):
            commands.append(f"exec {expand(proxy[1], host, login)}")
    for command in commands:
        subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True, cwd=tmp_path)
    assert not mark.exists()


def test_only_characters_that_single_quotes_hold_pass_the_pattern() -> None:
    passed = {c for c in map(chr, range(128)) if covers(HOST_PATTERNS, f"dm-x{c.lower()}y")}
    harmless = set(string.ascii_letters + string.digits + '-*?,"=')
    assert passed == harmless | {chr(n) for n in range(32)} | {"\x7f"}


# ssh has no way to continue a line.
TOP = """\
# for OpenSSH 9.6
# the patterns keep every name that a shell could read as a command away from the shell
Host dm-*
Match originalhost "HOSTS" exec "exec /bin/sh /s/launcher prepare '%h'"
    ProxyUseFdpass yes
    Include /s/hosts/*.conf
Host dm-*
Match originalhost "HOSTS" user "*,!* *,!*'*,!*\\*,!*`*,!*$*,!*;*,!*|*,!*&*,!*<*,!*>*,!*(*,!*)*,!*{*,!*}*,!*!*"
    ProxyCommand /bin/sh /s/launcher --login '%r' '%h' %p
Host dm-*
Match originalhost "HOSTS"
    UserKnownHostsFile /s/known_hosts
    StrictHostKeyChecking yes
    UpdateHostKeys no
    VerifyHostKeyDNS no
    CanonicalizeHostname no
    PubkeyAuthentication yes
    PreferredAuthentications publickey
    PubkeyAcceptedAlgorithms +ssh-ed25519-cert-v01@openssh.com
    HostKeyAlgorithms +ssh-ed25519-cert-v01@openssh.com
    CASignatureAlgorithms +ssh-ed25519
    PKCS11Provider none
    AddKeysToAgent no
    KnownHostsCommand none
Host dm-a
    HostName dm-a
Host dm-b
    HostName dm-b
Host *
"""  # noqa: E501  # the lines are as long as in the file
END = """\
Match originalhost "HOSTS"
    Include /s/agents/*.conf
Match originalhost "HOSTS"
    ForwardAgent no
    ForwardAgent /dev/null
    ConnectTimeout 30
Host *
"""
SNIPPET_FILE = """\
Match originalhost dm-foo,dm-foo.
    HostName dm-foo
    User wssh-1
    HostKeyAlias ssh.example
    IdentityFile "/s/key.pub"
    CertificateFile "/s/100%% cert"
    IdentitiesOnly yes
    IdentityAgent "/s/agent.sock"
    UserKnownHostsFile "/s/known"
    GlobalKnownHostsFile /dev/null
"""
AGENT_SNIPPET = """\
Match originalhost "HOSTS" exec "printenv SSH_AUTH_SOCK | grep -qxF -e '/tmp/100%% mine'"
    ForwardAgent no
    ForwardAgent "/tmp/100%% mine"
"""


def test_all_that_ssh_is_given_to_read_is_this() -> None:
    """The one place to read it whole; what each line is for is shown by tests with a real ssh."""
    top = render_top(PROGRAM, [MachineName("dm-a"), MachineName("dm-b")], SSH)
    assert top == TOP.replace("HOSTS", HOST_PATTERNS)
    assert render_end(PROGRAM, SSH) == END.replace("HOSTS", HOST_PATTERNS)
    snippet = Snippet(**{**vars(SNIPPET), "certificate_file": "/s/100% cert"})
    assert render_snippet(snippet) == SNIPPET_FILE
    without = [line for line in SNIPPET_FILE.splitlines(True) if "Certificate" not in line]
    assert render_snippet(SNIPPET) == "".join(without)
    by_variable = render_agent_snippet("/tmp/100% mine", always=False)
    assert by_variable == AGENT_SNIPPET.replace("HOSTS", HOST_PATTERNS)
    always = render_agent_snippet("/tmp/100% mine", always=True)
    assert always == re.sub(" exec .*", "", AGENT_SNIPPET).replace("HOSTS", HOST_PATTERNS)
    known = render_known_hosts("ssh.example", "ssh-ed25519 AAAA")
    assert known == "@cert-authority ssh.example ssh-ed25519 AAAA\n"


def test_an_ssh_that_forwards_no_agent_by_path_forwards_none() -> None:
    top = render_top(PROGRAM, [], Version(8, 1))
    assert "\n# never use ssh -A with a machine: it would forward the agent that holds" in top
    assert "\n# the agent cannot restrict a certificate to the gateway's host key (" in top
    assert top.endswith("\n    ForwardAgent no\nHost *\n")
    end = f'Match originalhost "{HOST_PATTERNS}"\n    ConnectTimeout 30\nHost *\n'
    assert render_end(PROGRAM, Version(8, 1)) == end


def test_7_9_gets_no_provider_called_none() -> None:
    assert "PKCS11Provider" not in render_top(PROGRAM, [], Version(7, 9))
    assert "PKCS11Provider none\n" in render_top(PROGRAM, [], Version(8, 0))


def test_an_ssh_before_8_5_gets_the_options_that_it_knows() -> None:
    top = render_top(PROGRAM, [], Version(8, 4))
    assert "KnownHostsCommand" not in top and "PubkeyAcceptedAlgorithms" not in top
    assert "    PubkeyAcceptedKeyTypes +ssh-ed25519-cert-v01@openssh.com\n" in top
    first = render_top(PROGRAM, [], Version(8, 5))
    assert "KnownHostsCommand none\n" in first and "PubkeyAcceptedAlgorithms +" in first


def test_the_machines_that_a_block_lists_are_found() -> None:
    names = [MachineName("dm-a"), MachineName("dm-b-2")]
    assert listed_hosts(render_top(PROGRAM, names, SSH)) == names
    assert listed_hosts("Host dm-*\nHost dm-\nHost other\n  Host dm-c\nHost dm-d-\n") == []


def test_a_block_by_pipes_says_so_and_has_no_socket() -> None:
    top = render_top(PROGRAM, [], SSH, hands_over=False)
    assert "ProxyUseFdpass" not in top
    assert (uses_pipes(top), uses_pipes(TOP), uses_pipes("")) == (True, False, False)
    assert written_for(top) == SSH


def test_every_quoted_pattern_holds_a_blank_for_editors_that_drop_other_quotes() -> None:
    top = render_top(PROGRAM, [], SSH) + render_end(PROGRAM, SSH)
    quoted = re.findall('"([^"]*)"', top)
    assert quoted and all(" " in value for value in quoted)


def test_blocks_end_so_that_the_users_lines_apply_to_every_host() -> None:
    assert render_top(PROGRAM, [], SSH).endswith("Host *\n")
    assert render_end(PROGRAM, SSH).endswith("Host *\n")


@pytest.mark.parametrize("version", [Version(7, 6), Version(8, 1), Version(8, 2), Version(10, 0)])
def test_a_block_says_for_which_ssh_it_is(version: Version) -> None:
    top, end = render_top(PROGRAM, [], version), render_end(PROGRAM, version)
    assert written_for(top) == version
    # Before 8.2 a path is an error that ends every ssh, to whatever host.
    assert ("ForwardAgent /dev/null" in end) == (version >= (8, 2))
    assert ("agents/*.conf" in end) == (version >= (8, 2))
    assert ("ForwardAgent no" in top) == (version < (8, 2))


def test_a_block_that_does_not_say_is_for_no_version() -> None:
    assert written_for("Match all\n") is None
    assert written_for(f"# for OpenSSH 9.{'1' * 5000}\n") is None


def test_the_environment_is_never_named_in_braces() -> None:
    for text in (render_top(PROGRAM, [], SSH), render_end(PROGRAM, SSH)):
        assert "${" not in text


@pytest.mark.parametrize(
    ("field", "value"),
    [("user", "-oProxyCommand=id"), ("user", "a b"), ("user", "a\nb"), ("user", "$(id)"),
     ("host_key_alias", "a b"), ("host_key_alias", "-x"), ("identity_file", '/a"b'),
     ("identity_agent", "/${X}"), ("known_hosts_file", "/a\nb")],
)  # fmt: skip
def test_unsafe_values_reach_no_snippet(field: str, value: str) -> None:
    said = r"^the ssh config cannot contain (this value$|the path )"
    with pytest.raises((ValueError, ConfigError), match=said):
        render_snippet(Snippet(**{**vars(SNIPPET), field: value}))


@pytest.mark.parametrize(
    ("endpoint", "authority"),
    [("a,b", "ssh-ed25519 AAAA"), ("*", "ssh-ed25519 AAAA"), ("a b", "ssh-ed25519 AAAA"),
     ("a", "ssh-ed25519 AAAA\nx"), ("a", "ssh-ed25519"), ("a", "@revoked AAAA BBBB")],
)  # fmt: skip
def test_unsafe_values_reach_no_known_hosts(endpoint: str, authority: str) -> None:
    with pytest.raises(ValueError, match=r"^the ssh config cannot contain this value$"):
        render_known_hosts(endpoint, authority)


def test_what_we_write_is_well_formed_and_nothing_shorter_is() -> None:
    with_certificate = Snippet(**{**vars(SNIPPET), "certificate_file": "/s/cert"})
    agents = [
        render_agent_snippet("/tmp/my agent", always=always) or "" for always in (True, False)
    ]
    for text in (render_snippet(SNIPPET), render_snippet(with_certificate), *agents):
        data = text.encode()
        assert is_well_formed(data)
        lines = [len(part) for part in data.split(b"\n")]
        ends = {sum(lines[: n + 1]) + n + 1 for n in range(1, len(lines))}
        for length in range(len(data)):
            # Whole options at the end may be missing: then ssh parses it, and publish mends it.
            assert not is_well_formed(data[:length]) or length in ends


@pytest.mark.parametrize("path", ["", "relative", "/a'b", "/a\nb", "/a${b}"])
def test_an_agents_path_that_cannot_be_said_is_not(path: str) -> None:
    assert render_agent_snippet(path, always=False) is None
