"""The text that ssh reads: our two blocks in the user's config, and the files they include.

Every OpenSSH from 7.9 on reads these options and their quoting alike, except that ForwardAgent
accepts a path only from 8.2 on, and that Include expands tokens from 9.9 on (its release notes).

Before 9.6, ssh accepted any character in a host name or user name and put it into the command
lines of Match exec and ProxyCommand (CVE-2023-51385; the ``ssh://`` URL of a git submodule is
enough to exploit it).  Two defences keep such names away from the shell, and against most
characters either one is enough: the patterns exclude every printable character that a pattern can
express, and the commands put ``%h`` and ``%r`` in single quotes, which only ``'`` (and in fish
``\\``) could end.

Other programs read and rewrite this file.  Parsers that do not support Match assign its lines to
the Host section above it, so there is a ``Host dm-*`` above each.  The npm package ssh-config,
which VS Code uses, drops the quotes of a value without a space, so every quoted pattern has one.
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
# Only a name with a dot before its end is for DNS.
HOST_PATTERNS = HOST_PATTERNS.replace("!*.*", "!*.?*")
# A login name may contain dots and more, but no character that is special in a quoted string.
_LOGIN_PATTERNS = ",".join(["*", *(f"!*{character}*" for character in " '\\`$;|&<>(){}!")])

# Paths are in single quotes for the shell and in double quotes for ssh, so a path may contain
# neither.  ssh also expands ${...} and, for Include, the glob characters.
_UNQUOTABLE = re.compile(r"""["'\\\x00-\x1f\x7f]|\$\{""")
_GLOB = re.compile(r"[*?\[\]{}]")
# The known_hosts file in the state directory, with the bridge's host keys.
KNOWN_HOSTS = "known_hosts"
# ssh's limit for the version exchange.  The time of prepare, and under ProxyUseFdpass that of the
# ProxyCommand, does not count.
CONNECT_TIMEOUT_S = 30
# A name that matches HOST_PATTERNS and that no machine has.
NO_MACHINE = MachineName("dm-dcs-proxy-doctor")
# The name of the launcher in the state directory.
LAUNCHER = "launcher"
_WHY = "# the patterns keep every name that a shell could read as a command away from the shell"
_BY_PIPES = ", by pipes: your shell prints something when it starts"
# From here on, "none" is no provider; 7.9 looks for a library of that name, and says so on stderr.
_CLEARS_PROVIDER = Version(8, 0)
# From here on there is KnownHostsCommand, and PubkeyAcceptedKeyTypes has a new name.
_ASKS_COMMANDS = _RENAMED = Version(8, 5)
# From here on, Include expands tokens; earlier versions read %% as two characters.
_EXPANDS_INCLUDES = Version(9, 9)
_SAFE_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")
_SAFE_HOST = re.compile(r"[a-z0-9:][a-z0-9.:-]*\Z")
_SAFE_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}\Z")
# A line of a known_hosts file (sshd(8)): a marker, names, the type of the key, the key.
_OTHER_HOST = re.compile(
    rb"^(@\S+[ \t]+)?(?!dm-|[@#])\S+[ \t]+[a-z0-9@.-]+[ \t]+AAAA", re.MULTILINE
)
_LISTED = re.compile(r"^Host (dm-[a-z0-9-]+)$", re.MULTILINE)
_WRITTEN_FOR = re.compile(r"^# for OpenSSH ([0-9]{1,4})\.([0-9]{1,4})(,.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """How ssh runs us: the program and its first arguments, state directory and config file.

    `config_file` is None for the default one, in `config_home`, which is the user's XDG_CONFIG_HOME
    ("" to leave that to the environment).  All paths are absolute.  Raises ConfigError if the ssh
    config cannot contain one of them.
    """

    words: tuple[str, ...]
    state_directory: str
    config_file: str | None = None
    config_home: str = ""

    def __post_init__(self) -> None:
        for word in filter(_UNQUOTABLE.search, self.words):
            raise _unquotable(word, "install dcs-proxy at")
        chosen = {
            "DCS_PROXY_HOME": self.state_directory,
            "DCS_PROXY_CONFIG": self.config_file or "",
            "XDG_CONFIG_HOME": self.config_home,
        }
        bad = {variable: path for variable, path in chosen.items() if _UNQUOTABLE.search(path)}
        if bad:
            raise _unquotable(next(iter(bad.values())), f"set {' and '.join(bad)} to")
        if _GLOB.search(self.state_directory):
            raise ConfigError(
                f"ssh would read the state directory {self.state_directory!r} as a pattern",
                hint="set DCS_PROXY_HOME to a path without * ? [ ] { }",
            )

    @property
    def launcher(self) -> str:
        """The path of the shell script that starts the program (publish/launcher.py)."""
        return f"{self.state_directory}/{LAUNCHER}"

    def arguments(self) -> list[str]:
        """Return the program's words and the options that say where its files are."""
        fixed = [*self.words, "--home", self.state_directory]
        if self.config_file is not None:
            fixed += ["--config", self.config_file]
        return fixed

    def command(self, *words: str) -> str:
        """Return a command line for ssh and a shell.  `words` are appended without quoting."""
        return " ".join([*map(_quote, self.arguments()), *words])

    def launch(self, *words: str) -> str:
        """Return the command line that runs the launcher.  `words` are appended without quoting."""
        # Through sh, because a home directory may be mounted noexec.
        return " ".join(["/bin/sh", _quote(self.launcher), *words])


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


def render_top(
    program: Program,
    machines: Sequence[MachineName],
    version: Version,
    *,
    hands_over: bool = True,
) -> str:
    """Return the block for the top of the user's config, for an ssh of that version.

    Each of `machines` gets a ``Host`` line, because editors and completion list those.  Without
    `hands_over` ssh reads from a pipe instead of a socket: slower, but a pipe tolerates what a
    shell prints when it starts.
    """
    prepare = program.launch("prepare", "'%h'")
    connect = program.launch("--login", "'%r'", "'%h'", "%p")
    ours = f'Match originalhost "{HOST_PATTERNS}"'
    lines = [
        f"# for OpenSSH {version}{'' if hands_over else _BY_PIPES}",
        *(f"# {missing}" for missing in missing_features(version)),
        _WHY,
        "Host dm-*",
        f'{ours} exec "exec {prepare}"',
        # If prepare fails, ssh must read why from a pipe: a launcher cannot pass a socket.
        *(["    ProxyUseFdpass yes"] if hands_over else []),
        f"    Include {_included(program, 'hosts/*.conf', version)}",
        "Host dm-*",
        f'{ours} user "{_LOGIN_PATTERNS}"',
        f"    ProxyCommand {connect}",
        "Host dm-*",
        ours,
        # Once there is a snippet, ssh uses the snippet's, which comes first.
        f"    UserKnownHostsFile {_escape_percent(_file(program, KNOWN_HOSTS))}",
        *(f"    {option}" for option in _pinned(version)),
    ]
    for machine in machines:
        lines += [f"Host {machine}", f"    HostName {machine}"]
    return "".join(f"{line}\n" for line in [*lines, "Host *"])


def _pinned(version: Version) -> list[str]:
    """Return the options that the login depends on, pinned so that no ``Host *`` can change them.

    Lists begin with +, so that they do not name algorithms that an ssh was built without.
    RevokedHostKeys is not pinned: the administrator decides which keys are revoked.
    """
    accepted = "PubkeyAcceptedAlgorithms" if version >= _RENAMED else "PubkeyAcceptedKeyTypes"
    options = [
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "VerifyHostKeyDNS no",
        "CanonicalizeHostname no",
        "PubkeyAuthentication yes",
        "PreferredAuthentications publickey",
        f"{accepted} +ssh-ed25519-cert-v01@openssh.com",
        "HostKeyAlgorithms +ssh-ed25519-cert-v01@openssh.com",
        "CASignatureAlgorithms +ssh-ed25519",
        *(["PKCS11Provider none"] if version >= _CLEARS_PROVIDER else []),
        # A key of the user's own would go into the agent of the session.
        "AddKeysToAgent no",
    ]
    if version >= _ASKS_COMMANDS:
        options.append("KnownHostsCommand none")
    if version < FORWARDS_ANY_AGENT:
        options.append("ForwardAgent no")
    return options


def listed_hosts(top: str) -> list[MachineName]:
    """Return the machines that a top block lists by name."""
    return [MachineName(host) for host in _LISTED.findall(top) if is_machine_name(host)]


def written_for(top: str) -> Version | None:
    """Return the ssh version for which a top block was written; None if it names none."""
    match = _WRITTEN_FOR.search(top)
    return Version(int(match[1]), int(match[2])) if match else None


def uses_pipes(top: str) -> bool:
    """Return whether a top block was written for a shell that prints when it starts."""
    match = _WRITTEN_FOR.search(top)
    return match is not None and match[3] is not None


def render_end(program: Program, version: Version) -> str:
    """Return the block for the end of the user's config, for an ssh of that version.

    It comes after all of the user's lines: the first ForwardAgent decides whether an agent is
    forwarded, and the first one with a path decides which.  Without a path ssh would forward the
    agent of IdentityAgent, which is ours.  ssh complains about a path that does not exist, so a
    user without an agent forwards /dev/null, which answers nothing.  ConnectTimeout is for a
    gateway that accepts a connection and sends nothing: ssh would wait forever.
    """
    ours = f'Match originalhost "{HOST_PATTERNS}"'
    agents = [
        ours,
        f"    Include {_included(program, 'agents/*.conf', version)}",
        ours,
        "    ForwardAgent no",
        "    ForwardAgent /dev/null",
    ]
    lines = agents if version >= FORWARDS_ANY_AGENT else [ours]
    lines += [f"    ConnectTimeout {CONNECT_TIMEOUT_S}", "Host *"]
    return "".join(f"{line}\n" for line in lines)


def render_snippet(snippet: Snippet) -> str:
    """Return the file that ssh includes for one machine.

    Raises ValueError for an unsafe value, ConfigError for a path that ssh cannot read.
    """
    _check(_SAFE_LOGIN, snippet.user)
    _check(_SAFE_HOST, snippet.host_key_alias)
    # HostName is not in the block, where paramiko would not expand "HostName %h".
    name = snippet.machine
    lines = [f"Match originalhost {name},{name}.", f"    HostName {name}"]
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
    is_ours = f"printenv SSH_AUTH_SOCK | grep -qxF -e {_in_quotes(path)}"
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


def lists_other_hosts(known_hosts: bytes) -> bool:
    """Return whether a known_hosts file has a line for a host that is not a machine: the user's."""
    return _OTHER_HOST.search(known_hosts) is not None


def _file(program: Program, name: str) -> str:
    """Return a path in the state directory, with quotes only if it needs them."""
    path = f"{program.state_directory}/{name}"
    return f'"{path}"' if re.search(r"[\s#=]", path) else path


def _included(program: Program, name: str, version: Version) -> str:
    """Return a path in the state directory for Include."""
    path = _file(program, name)
    return _escape_percent(path) if version >= _EXPANDS_INCLUDES else path


def _unquotable(path: str, remedy: str = "use") -> ConfigError:
    return ConfigError(
        f"the ssh config cannot contain the path {path!r}",
        hint=f"{remedy} a path without quotes, backslashes, control characters and ${{",
    )


def _path(path: str) -> str:
    if _UNQUOTABLE.search(path):
        raise _unquotable(path)
    return f'"{_escape_percent(path)}"'


def _escape_percent(text: str) -> str:
    """Double the percent signs, because ssh expands tokens such as %h."""
    return text.replace("%", "%%")


def _quote(word: str) -> str:
    plain = re.fullmatch(r"[A-Za-z0-9_./:=@,+-]+", word)
    return word if plain else _in_quotes(word)


def _in_quotes(text: str) -> str:
    """Return text without quotes or backslashes in single quotes, for any shell."""
    # csh and tcsh expand ! inside quotes too.
    return f"'{_escape_percent(text)}'".replace("!", "'\\!'")


def _check(pattern: re.Pattern[str], text: str) -> None:
    if not pattern.match(text):
        raise ValueError("the ssh config cannot contain this value")
