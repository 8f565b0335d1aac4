"""What we write for ssh to read: the two blocks of the user's config, and the snippets.

Pure text.  Options and quoting are those that every OpenSSH since 7.9 reads alike, but for
ForwardAgent, which takes a path since 8.2 only.

Before 9.6 ssh let any character through in a host name or user name and put it into the command
lines of Match exec and ProxyCommand (CVE-2023-51385; an ``ssh://`` URL of a git submodule is
enough).  Two things keep such names from a shell, each alone being enough for most characters:
the patterns exclude every printable character that they can express, and the commands quote
``%h`` and ``%r`` with single quotes, which only ``'`` (and in fish ``\\``) could end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dcs_proxy.errors import ConfigError
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.version import FORWARDS_ANY_AGENT, Version, missing_features

# Not in here, for a pattern list has no way to say them: * ? , and ".  Upper case is not either:
# patterns are compared in lower case.  Nor is =, at which asyncssh takes a word apart.
_EXCLUDED = " !#$%&'()+./:;<>@[\\]^_`{|}~"
HOSTS = ",".join(["dm-*", *(f"!*{character}*" for character in _EXCLUDED)])
# A login name may hold dots and more, but nothing that ends or means something in a quotation.
_LOGINS = ",".join(["*", *(f"!*{character}*" for character in "'\\`$;|&<>(){}!")])

# Single quotes hold the shell's paths and double quotes ssh's, so neither may be in one; ssh
# expands ${...} and, for Include, the glob characters.
_UNQUOTABLE = re.compile(r"""["'\\\x00-\x1f\x7f]|\$\{""")
_GLOB = re.compile(r"[*?\[\]{}]")
# Covers the version exchange, not what prepare does, nor the dialling under ProxyUseFdpass.
CONNECT_TIMEOUT_S = 30
_SAFE_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")
_SAFE_HOST = re.compile(r"[a-z0-9:][a-z0-9.:-]*\Z")
_SAFE_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}\Z")
_WRITTEN_FOR = re.compile(r"^# for OpenSSH ([0-9]{1,4})\.([0-9]{1,4})$", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """How ssh runs us: the program's words, the state directory, and a config file or None.

    All paths are absolute.  Raises ConfigError if one cannot be written into ssh's config.
    """

    words: tuple[str, ...]
    state_directory: str
    config_file: str | None = None

    def __post_init__(self) -> None:
        for path in (*self.words, self.state_directory, self.config_file or ""):
            if _UNQUOTABLE.search(path):
                raise ConfigError(
                    f"ssh's config cannot hold the path {path!r}",
                    hint="use a path without quotation marks, backslashes and ${",
                )
        if _GLOB.search(self.state_directory):
            raise ConfigError(
                f"ssh would take the state directory {self.state_directory!r} for a pattern",
                hint="set DCS_PROXY_HOME to a path without * ? [ ] { }",
            )

    def command(self, *words: str) -> str:
        """Return a command line for a shell; `words` are taken as they are."""
        fixed = [*self.words, "--home", self.state_directory]
        if self.config_file is not None:
            fixed += ["--config", self.config_file]
        quoted = [f"'{_percent(word)}'" if _needs_quotes(word) else word for word in fixed]
        return " ".join([*quoted, *words])


@dataclass(frozen=True)
class Snippet:
    """What ssh includes for one machine; paths are absolute.

    `identity_agent` is the agent's socket.  With a `certificate_file` the identity file is the
    bare key's; without one it may be the certificate itself.
    """

    machine: MachineName
    user: str
    host_key_alias: str
    identity_file: str
    certificate_file: str | None
    identity_agent: str
    known_hosts_file: str


def render_top(program: Program, machines: Sequence[MachineName], version: Version) -> str:
    """Return the block for the top of the user's ssh config, for the ssh of that version.

    One ``Host`` line for each of `machines`, for editors and completion that list them.
    """
    no_agent = ["    ForwardAgent no"] if version < FORWARDS_ANY_AGENT else []
    prepare = program.command("prepare", "'%h'")
    connect = program.command("--login", "'%r'", "'%h'", "%p")
    lines = [
        f"# for OpenSSH {version}",
        *(f"# {lost}" for lost in missing_features(version)),
        f'Match originalhost "{HOSTS}" exec "exec {prepare}"',
        f'    Include "{program.state_directory}/hosts/*.conf"',
        f'Match originalhost "{HOSTS}" user "{_LOGINS}"',
        f"    ProxyCommand {connect}",
        "    ProxyUseFdpass yes",
        f'Match originalhost "{HOSTS}"',
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    VerifyHostKeyDNS no",
        "    CanonicalizeHostname no",
        *no_agent,
        *(f"Host {machine}" for machine in machines),
        "Host *",
    ]
    return "".join(f"{line}\n" for line in lines)


def written_for(top: str) -> Version | None:
    """Return the version that a top block was written for, None if it does not say."""
    match = _WRITTEN_FOR.search(top)
    return Version(int(match[1]), int(match[2])) if match else None


def render_end(program: Program, version: Version) -> str:
    """Return the block for the end of the user's ssh config, for the ssh of that version.

    It comes after all that the user says of ForwardAgent: the first value decides whether to
    forward, the first path which agent.  Without a path that would be IdentityAgent's, ours, and
    of a path where nothing is ssh complains: so who has no agent forwards what answers nothing.
    ConnectTimeout is for a gateway that accepts and says nothing, where ssh would wait for ever.
    """
    ours = f'Match originalhost "{HOSTS}"'
    agents = [
        ours,
        f'    Include "{program.state_directory}/agents/*.conf"',
        ours,
        "    ForwardAgent no",
        "    ForwardAgent /dev/null",
    ]
    lines = agents if version >= FORWARDS_ANY_AGENT else [ours]
    lines += [f"    ConnectTimeout {CONNECT_TIMEOUT_S}", "Host *"]
    return "".join(f"{line}\n" for line in lines)


def render_snippet(snippet: Snippet) -> str:
    """Return the file that ssh includes for one machine.  Raises ValueError for unsafe values."""
    _check(_SAFE_LOGIN, snippet.user)
    _check(_SAFE_HOST, snippet.host_key_alias)
    lines = [f"Match originalhost {snippet.machine}"]
    lines += [f"    {option}" for option in session_options(snippet)]
    return "".join(f"{line}\n" for line in lines)


def session_options(snippet: Snippet) -> list[str]:
    """Return the options that log in to a session, each as ``KEYWORD VALUE``."""
    options = [
        f"User {snippet.user}",
        f"HostKeyAlias {snippet.host_key_alias}",
        f"IdentityFile {_path(snippet.identity_file)}",
        "IdentitiesOnly yes",
        f"IdentityAgent {_path(snippet.identity_agent)}",
        f"UserKnownHostsFile {_path(snippet.known_hosts_file)}",
        "GlobalKnownHostsFile /dev/null",
    ]
    if snippet.certificate_file is not None:
        options.insert(3, f"CertificateFile {_path(snippet.certificate_file)}")
    return options


def render_agent_snippet(path: str, *, always: bool) -> str | None:
    """Return the file that lets ``ssh -A`` forward the agent at `path`; None if it cannot be said.

    It applies `always`, or to an ssh whose SSH_AUTH_SOCK is that path, for several ssh with
    different agents may run at once.
    """
    if not path.startswith("/") or _UNQUOTABLE.search(path):
        return None
    is_ours = f"printenv SSH_AUTH_SOCK | grep -qxF -e '{_percent(path)}'"
    condition = "" if always else f' exec "{is_ours}"'
    return (
        f'Match originalhost "{HOSTS}"{condition}\n'
        "    ForwardAgent no\n"
        f"    ForwardAgent {_path(path)}\n"
    )


def render_known_hosts(endpoint: str, authority: str) -> str:
    """Return the known_hosts line that trusts one authority for one name (sshd(8)).

    `authority` is a public key line, ``TYPE BASE64``.  Raises ValueError for unsafe values.
    """
    _check(_SAFE_HOST, endpoint)
    _check(_SAFE_KEY, authority)
    return f"@cert-authority {endpoint} {authority}\n"


def _path(path: str) -> str:
    if _UNQUOTABLE.search(path):
        raise ValueError("a path that ssh's config cannot hold")
    return f'"{_percent(path)}"'


def _percent(text: str) -> str:
    """Double what ssh would take for a token."""
    return text.replace("%", "%%")


def _needs_quotes(word: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_./:=@,+-]+", word) is None


def _check(pattern: re.Pattern[str], text: str) -> None:
    if not pattern.match(text):
        raise ValueError("a value that ssh's config cannot hold")
