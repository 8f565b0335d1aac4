"""The text that ssh reads: our two blocks in the user's config, and the files they include.

Every OpenSSH from 7.9 on reads these options and their quoting alike, except that ForwardAgent
accepts a path only from 8.2 on.

Before 9.6, ssh accepted any character in a host name or user name and put it into the command
lines of Match exec and ProxyCommand (CVE-2023-51385; the ``ssh://`` URL of a git submodule is
enough to exploit it).  Two defences keep such names away from a shell, and against most characters
either would do: the patterns exclude every printable character that a pattern can express, and the
commands put ``%h`` and ``%r`` in single quotes, which only ``'`` (and in fish ``\\``) could end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dcs_proxy.errors import ConfigError
from dcs_proxy.names import MachineName, is_machine_name
from dcs_proxy.openssh.version import FORWARDS_ANY_AGENT, Version, missing_features

# A pattern list cannot express * ? , and ".  Upper case letters are compared in lower case, so they
# cannot be excluded either.  asyncssh splits a word at =.
_EXCLUDED = " !#$%&'()+./:;<>@[\\]^_`{|}~"
HOST_PATTERNS = ",".join(["dm-*", *(f"!*{character}*" for character in _EXCLUDED)])
# A login name may contain dots and more, but no character with a meaning in a quoted string.
_LOGIN_PATTERNS = ",".join(["*", *(f"!*{character}*" for character in "'\\`$;|&<>(){}!")])

# Paths are in single quotes for the shell and in double quotes for ssh, so a path may contain
# neither.  ssh also expands ${...} and, for Include, the glob characters.
_UNQUOTABLE = re.compile(r"""["'\\\x00-\x1f\x7f]|\$\{""")
_GLOB = re.compile(r"[*?\[\]{}]")
# In the state directory: the bridge's host keys, for clients that have not read a snippet.
KNOWN_HOSTS = "known_hosts"
# Limits the version exchange, but neither prepare nor, under ProxyUseFdpass, our connecting.
CONNECT_TIMEOUT_S = 30
_SAFE_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")
_SAFE_HOST = re.compile(r"[a-z0-9:][a-z0-9.:-]*\Z")
_SAFE_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}\Z")
_LISTED = re.compile(r"^Host (dm-\S+)$", re.MULTILINE)
_WRITTEN_FOR = re.compile(r"^# for OpenSSH ([0-9]{1,4})\.([0-9]{1,4})$", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """The command with which ssh runs us: program, state directory and, if not None, config file.

    `words` are the program and its first arguments; all paths are absolute.  Raises ConfigError
    if a path cannot be written into ssh's config.
    """

    words: tuple[str, ...]
    state_directory: str
    config_file: str | None = None

    def __post_init__(self) -> None:
        for path in (*self.words, self.state_directory, self.config_file or ""):
            if _UNQUOTABLE.search(path):
                raise ConfigError(
                    f"the ssh config cannot contain the path {path!r}",
                    hint="use a path without quotes, backslashes and ${",
                )
        if _GLOB.search(self.state_directory):
            raise ConfigError(
                f"ssh would read the state directory {self.state_directory!r} as a pattern",
                hint="set DCS_PROXY_HOME to a path without * ? [ ] { }",
            )

    def command(self, *words: str) -> str:
        """Return a command line for a shell.  `words` are appended without quoting."""
        fixed = [*self.words, "--home", self.state_directory]
        if self.config_file is not None:
            fixed += ["--config", self.config_file]
        quoted = [f"'{_escape_percent(word)}'" if _needs_quotes(word) else word for word in fixed]
        return " ".join([*quoted, *words])


@dataclass(frozen=True)
class Snippet:
    """The values in the file that ssh includes for one machine.  All paths are absolute.

    `identity_agent` is the agent's socket.  `identity_file` is the public key's if there is a
    `certificate_file`; otherwise it may be the certificate.
    """

    machine: MachineName
    user: str
    host_key_alias: str
    identity_file: str
    certificate_file: str | None
    identity_agent: str
    known_hosts_file: str


def render_top(program: Program, machines: Sequence[MachineName], version: Version) -> str:
    """Return the block for the top of the user's config, for an ssh of that version.

    Each of `machines` gets a ``Host`` line, because editors and completion list those.
    """
    no_agent = ["    ForwardAgent no"] if version < FORWARDS_ANY_AGENT else []
    prepare = program.command("prepare", "'%h'")
    connect = program.command("--login", "'%r'", "'%h'", "%p")
    lines = [
        f"# for OpenSSH {version}",
        *(f"# {missing}" for missing in missing_features(version)),
        f'Match originalhost "{HOST_PATTERNS}" exec "exec {prepare}"',
        f'    Include "{program.state_directory}/hosts/*.conf"',
        f'Match originalhost "{HOST_PATTERNS}" user "{_LOGIN_PATTERNS}"',
        f"    ProxyCommand {connect}",
        "    ProxyUseFdpass yes",
        f'Match originalhost "{HOST_PATTERNS}"',
        # ssh uses the snippet's, which comes first.
        f'    UserKnownHostsFile "{_escape_percent(program.state_directory)}/{KNOWN_HOSTS}"',
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    VerifyHostKeyDNS no",
        "    CanonicalizeHostname no",
        *no_agent,
        *(f"Host {machine}" for machine in machines),
        "Host *",
    ]
    return "".join(f"{line}\n" for line in lines)


def listed_hosts(top: str) -> list[MachineName]:
    """Return the machines that a top block lists by name."""
    return [MachineName(host) for host in _LISTED.findall(top) if is_machine_name(host)]


def written_for(top: str) -> Version | None:
    """Return the ssh version for which a top block was written; None if it names none."""
    match = _WRITTEN_FOR.search(top)
    return Version(int(match[1]), int(match[2])) if match else None


def render_end(program: Program, version: Version) -> str:
    """Return the block for the end of the user's config, for an ssh of that version.

    It follows everything that the user sets: the first ForwardAgent decides whether an agent is
    forwarded, and the first one with a path decides which.  Without any path ssh would forward
    the agent of IdentityAgent, which is ours.  ssh complains about a path that does not exist, so
    a user without an agent forwards /dev/null, which answers nothing.  ConnectTimeout is for a
    gateway that accepts a connection and sends nothing: ssh would wait for ever.
    """
    ours = f'Match originalhost "{HOST_PATTERNS}"'
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
    """Return the file that ssh includes for one machine.  Raises ValueError for an unsafe value."""
    _check(_SAFE_LOGIN, snippet.user)
    _check(_SAFE_HOST, snippet.host_key_alias)
    lines = [f"Match originalhost {snippet.machine}"]
    lines += [f"    {option}" for option in session_options(snippet)]
    return "".join(f"{line}\n" for line in lines)


def session_options(snippet: Snippet) -> list[str]:
    """Return the options that a session's login needs, each as ``KEYWORD VALUE``."""
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
    """Return the file that makes ``ssh -A`` forward the agent at `path`; None for an unsafe path.

    It applies `always`, or only to an ssh whose SSH_AUTH_SOCK is that path: several ssh with
    different agents may run at the same time.
    """
    if not path.startswith("/") or _UNQUOTABLE.search(path):
        return None
    is_ours = f"printenv SSH_AUTH_SOCK | grep -qxF -e '{_escape_percent(path)}'"
    condition = "" if always else f' exec "{is_ours}"'
    return (
        f'Match originalhost "{HOST_PATTERNS}"{condition}\n'
        "    ForwardAgent no\n"
        f"    ForwardAgent {_path(path)}\n"
    )


def render_known_hosts(endpoint: str, authority: str) -> str:
    """Return the known_hosts line that trusts one authority for one host name (sshd(8)).

    `authority` is a public key line, ``TYPE BASE64``.  Raises ValueError for an unsafe value.
    """
    _check(_SAFE_HOST, endpoint)
    _check(_SAFE_KEY, authority)
    return f"@cert-authority {endpoint} {authority}\n"


def _path(path: str) -> str:
    if _UNQUOTABLE.search(path):
        raise ValueError("the ssh config cannot contain this path")
    return f'"{_escape_percent(path)}"'


def _escape_percent(text: str) -> str:
    """Double the percent signs, with which ssh's tokens begin."""
    return text.replace("%", "%%")


def _needs_quotes(word: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_./:=@,+-]+", word) is None


def _check(pattern: re.Pattern[str], text: str) -> None:
    if not pattern.match(text):
        raise ValueError("the ssh config cannot contain this value")
