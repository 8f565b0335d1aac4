"""The warm path of `prepare` and of ``HOST PORT``, tried before the full program.

start.py runs it as ``start.py --home DIR [--config FILE] prepare HOST`` and ``start.py --home DIR
[--config FILE] --login USER HOST PORT``.  It imports builtins, _socket, posix and time only.  It
reads one fast entry, asks the agent, connects, and hands the socket over.  If anything is unusual,
it returns, and start.py runs the full program in the same process.

A fast entry, ``sessions/HOST.warm`` in the state directory, lists the conditions under which the
next ssh may use the session without the full program.  publish/fast_entry.py writes it, with the
field numbers below.
"""

import _socket
import posix
import sys
from time import gmtime, strftime, time

# The fields of a fast entry, by number, with a NUL between them.  Times are a pair of unix times:
# from, inclusive, and until, exclusive.
(
    VERSION,  # CURRENT_VERSION, which changes with the meaning of any field
    CONFIG_PATH,  # the path of the config file
    CONFIG_STAMP,  # its stamp()
    ENVIRONMENT,  # the values of VARIABLES, one a line
    PREPARE_TIMES,  # when `prepare` may use the session
    CONNECT_TIMES,  # when the ProxyCommand may
    AGENT,  # the socket of the agent that holds the identity
    IDENTITY,  # the identity's public blob, in hex
    LOGINS,  # the logins that ssh may use, one a line
    ADDRESS,  # the gateway's address that answered last, "" if none is known
    PORT,  # the gateway's port
    AGENT_KIND,  # the setting `agent`: "private" or "user"
    FILES,  # the files that ssh reads, one a line: the path, a tab, its stamp()
    USE,  # the file that says which ssh used the session last, see note_use()
    END,  # COMPLETE, unless the file was cut short
) = range(15)
FIELDS = 15
CURRENT_VERSION = "3"
COMPLETE = "end\n"
NOT_EXPANDED = "%h"
# The environment variables that the settings depend on.
VARIABLES = ("DEDALUS_BASE_URL", "DEDALUS_ORG_ID")
# How to ask the kernel for the peer of a Unix socket: the beginning of sys.platform, the option's
# level and number, the size of the answer, and the offsets of the user id and of the process id in
# it (-1 if it has none).
PEER_OPTIONS = (
    ("linux", 1, 17, 12, 4, 0),
    ("darwin", 0, 1, 76, 4, -1),
    ("freebsd", 0, 1, 88, 4, -1),
    ("openbsd", 0xFFFF, 0x1022, 12, 0, 8),
    ("netbsd", 0, 3, 12, 4, 0),
)

_PACKAGE = __file__.rpartition("/fastpath/")[0]
_START = _PACKAGE + "/start.py"
# Of st_mode: S_IFMT, S_IFREG and S_IFSOCK.
_FILE_TYPE, _REGULAR, _SOCKET = 0o170000, 0o100000, 0o140000
_AGENT_S = 2
# The limit of OpenSSH's agents and clients, plus the length field.
_MAX_REPLY = 256 * 1024 + 4
_CONNECT_S = 1
_RECEIVE_S = 2
# The longest ConnectTimeout with which ssh itself waits for a silent gateway (the block sets the
# same, see openssh/config_text.py).  If it is longer, the gateway has _SILENCE_S to send something
# before the handover.
_LONGEST_WAIT_S = 30
_SILENCE_S = 2
# How long a connection may be idle before TCP asks whether the other end is alive.
_IDLE_S = 60


def main(words: "list[str]") -> "int | None":
    """Do what ssh asks for and return 0; return None if the full program has to do it.

    Return 1 for a ``%h`` that was not expanded: programs that run Match exec that way (asyncssh, VS
    Code for each host that it lists) do not log in with the session that `prepare` makes ready.
    """
    if words[-2:] == ["prepare", NOT_EXPANDED]:
        return 1
    try:
        done = run(words)
    except Exception:  # the full program will do the work, or explain the error
        done = False
    return 0 if done else None


def run(words: "list[str]") -> bool:
    """Do what ssh asks for; return False, or raise any exception, if the full program has to."""
    home, rest = words[1], words[2:]
    config = ""
    if rest[0] == "--config":
        config, rest = rest[1], rest[2:]
    if words[0] != "--home":
        return False
    if rest[0] == "prepare" and len(rest) == 2:
        entry = _read_entry(home, rest[1].lower(), config)
        return entry is not None and not _may_jump(posix.getppid()) and _is_prepared(home, entry)
    if rest[0] == "--login" and len(rest) == 4 and rest[3].isdigit():
        entry = _read_entry(home, rest[2], config)
        return entry is not None and _connect(entry, home, rest[2], rest[1])
    return False


def stamp(path: str) -> str:
    """Return a text that changes whenever the file at `path` does; "-" if it is missing."""
    try:
        status = posix.stat(path)
    except OSError:
        return "-"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def render_use(pid: int, until: float) -> bytes:
    """Return the contents of a use file for the ssh `pid`, for which the API was asked.

    It is text: the process id in 10 digits; ``a`` if the API was asked for this ssh, or ``-`` if it
    was not; and the unix time until which is_doubtful() is false.
    """
    return f"{pid:010}a{until!r}".encode()


def note_use(path: str, pid: int) -> None:
    """Write into the use file at `path` that the ssh `pid` gets the session.

    If the API was asked for this ssh, the file stays as it is.
    """
    flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
    fd = posix.open(path, flags, 0o600)
    try:
        if posix.read(fd, 11) != b"%010da" % pid:
            posix.pwrite(fd, b"%010d-" % pid, 0)
    finally:
        posix.close(fd)


def is_doubtful(path: str, now: float) -> bool:
    """Return whether the last ssh got the session without asking the API, and has ended.

    The gateway may have refused its login because the session is over, which none of our processes
    has seen.
    """
    try:
        use = _read(path)
    except FileNotFoundError:
        return False
    try:
        if use[10:11] != b"-" or now < float(use[11:] or b"0"):
            return False
        pid = int(use[:10])
        posix.kill(pid, 0)
    except (OSError, ValueError, OverflowError):  # no such process of ours; or a damaged file
        return True
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and its parent has not reaped it; false without /proc."""
    try:
        # proc(5): the name in parentheses may contain anything; the state is field 3.
        return _read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1] == b"Z"
    except OSError:
        return False


def write_line(path: str, parent: int, text: str) -> int:
    """Append a line to the log at `path`, created with mode 0600; return the log's size in bytes.

    Each line is one write with O_APPEND, so that lines of several processes do not mix.  Another
    user may have put something else at `path`: a FIFO, a file of their own or a hard link to one of
    ours is not written to.  Raises OSError.
    """
    now = time()
    moment = f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(now))}.{int(now % 1 * 1000):03}Z"
    flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
    fd = posix.open(path, flags | posix.O_NONBLOCK, 0o600)
    try:
        status = posix.fstat(fd)
        is_ours = posix.geteuid() in (0, status.st_uid)
        if status.st_mode & _FILE_TYPE != _REGULAR or status.st_nlink != 1 or not is_ours:
            raise OSError("not a log of ours")
        line = f"{moment} [{posix.getpid()}/{parent}] {text}\n"
        posix.write(fd, line.encode("utf-8", "replace"))
        return posix.lseek(fd, 0, 1)
    finally:
        posix.close(fd)


def _read_entry(home: str, host: str, config: str) -> "list[str] | None":
    """Return the fields of the host's entry; None if it is damaged or not for these settings."""
    if not host.replace("-", "a").isalnum() or len(host) > 200:
        return None
    if not all(map(_is_private, (home, f"{home}/sessions", f"{home}/hosts", f"{home}/agents"))):
        return None
    entry = _read(f"{home}/sessions/{host}.warm").decode("utf-8", "surrogateescape").split("\0")
    if len(entry) != FIELDS or entry[VERSION] != CURRENT_VERSION or entry[END] != COMPLETE:
        return None
    path = _config_path(config)
    if entry[CONFIG_PATH] != path or entry[CONFIG_STAMP] != stamp(path):
        return None
    if entry[ENVIRONMENT] != "\n".join(map(_variable, VARIABLES)):
        return None
    return entry


def _config_path(named: str) -> str:
    """Return the path of the config file, by the rules of local/settings.py."""
    home = _variable("XDG_CONFIG_HOME") or _variable("HOME") + "/.config"
    return named or _variable("DCS_PROXY_CONFIG") or home + "/dcs-proxy/config.toml"


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 65536)
    finally:
        posix.close(fd)


def _is_private(directory: "str | bytes") -> bool:
    """Return whether no other user can put files into a directory."""
    status = posix.stat(directory)
    return status.st_uid == posix.geteuid() and not status.st_mode & 0o022


def _variable(name: str) -> str:
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


def _is_within(times: str) -> bool:
    begin, end = times.split()
    return float(begin) <= time() < float(end)


def _may_jump(pid: int) -> bool:
    """Return whether the ssh `pid` may use a jump host instead of us; false without /proc.

    The full program decides, in openssh/parent.py.
    """
    try:
        line = _read(f"/proc/{pid}/cmdline")
    except OSError:
        return False
    return b"\0-J" in line or b"proxyjump" in line.lower()


def _is_prepared(home: str, entry: "list[str]") -> bool:
    """Return whether ssh may log in with the files as they are, without asking the API."""
    if not _is_within(entry[PREPARE_TIMES]) or is_doubtful(entry[USE], time()):
        return False
    for file in entry[FILES].split("\n"):
        path, _, known = file.partition("\t")
        if stamp(path) != known:
            return False
    # ssh reads all of these files.  ctime also changes with the mode.
    checked = posix.stat(f"{home}/checked").st_ctime_ns
    for part in ("hosts", "agents"):
        for included in posix.scandir(f"{home}/{part}"):
            if included.stat(follow_symlinks=False).st_ctime_ns > checked:
                return False
    if not _is_agent_known(home, entry[AGENT], entry[AGENT_KIND]):
        return False
    return _holds(entry[AGENT], bytes.fromhex(entry[IDENTITY]))


def _is_agent_known(home: str, agent: str, kind: str) -> bool:
    """Return whether the agent can be trusted, and ``ssh -A`` will forward the user's own agent
    (none, if the user has none).
    """
    path = posix.environ.get(b"SSH_AUTH_SOCK", b"")
    socket = agent.encode("utf-8", "surrogateescape")
    is_ours = False
    if kind == "user" and path != socket:
        return False
    if kind == "private":
        directory = socket.rpartition(b"/")[0]
        if not _is_private(directory):
            return False
        is_ours = _leads_to(path, directory)
    own = stamp(f"{home}/agents/{path.hex()}.conf")
    try:
        only = _read(f"{home}/agents/only.conf")
    except FileNotFoundError:
        only = b""
    if not path or is_ours:
        return not only and own == "-"
    if only:
        return b'    ForwardAgent "' + path.replace(b"%", b"%%") + b'"\n' in only
    return own != "-"


def _leads_to(path: bytes, directory: bytes) -> bool:
    """Return whether `path` is a file in the directory, by whatever links.

    `path` may be a symbolic link, be below one, or be a hard link.  Raises OSError if it is missing
    and not named as in the directory.
    """
    if not path or path.rpartition(b"/")[0] == directory:
        return bool(path)
    status = posix.stat(path)
    found = [entry.stat() for entry in posix.scandir(directory)]
    return (status.st_dev, status.st_ino) in [(each.st_dev, each.st_ino) for each in found]


def _holds(path: str, blob: bytes) -> bool:
    """Return whether the agent at `path`, a process of this user, holds the identity `blob`.

    RFC 9987: the request is SSH_AGENTC_REQUEST_IDENTITIES (11); the answer is
    SSH_AGENT_IDENTITIES_ANSWER (12), a uint32 count, and for each identity its blob and its comment
    as strings.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    until = time() + _AGENT_S
    sock.settimeout(_AGENT_S)
    sock.connect(path)
    if not is_trusted(sock, path):
        return False
    sock.sendall(b"\0\0\0\1\x0b")
    reply = b""
    while len(reply) < 4 + int.from_bytes(reply[:4], "big"):
        part = sock.recv(65536)
        reply += part
        if not part or len(reply) > _MAX_REPLY or time() > until:
            return False
    if reply[4] != 12:
        return False
    # A substring search would also find an authority's key, which its certificates contain.
    at, is_blob = 9, True
    while at < len(reply):
        size = int.from_bytes(reply[at : at + 4], "big")
        if is_blob and reply[at + 4 : at + 4 + size] == blob:
            return True
        at, is_blob = at + 4 + size, not is_blob
    return False


def is_trusted(sock: "_socket.socket", path: "str | bytes") -> bool:
    """Return whether the agent at the other end of `sock`, connected to `path`, is ours or root's.

    Where the kernel does not tell, the socket's directory must be private.
    """
    uid = peer(sock)[0]
    if uid is None:
        name = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
        return _is_private(name[: name.rfind(b"/") + 1] or b".")
    return uid in (posix.geteuid(), 0)


def peer(sock: "_socket.socket") -> "tuple[int | None, int | None]":
    """Return the user id and process id of the peer of a Unix socket, None for what is unknown.

    The peer is the process that called listen().  The answers are struct ucred on Linux (unix(7)),
    sockpeercred on OpenBSD, xucred on macOS and FreeBSD, and unpcbid on NetBSD.
    """
    for name, level, option, size, uid_at, pid_at in PEER_OPTIONS:
        if sys.platform.startswith(name):
            try:
                found = sock.getsockopt(level, option, size)
            except OSError:
                break
            uid = int.from_bytes(found[uid_at : uid_at + 4], sys.byteorder)
            pid = int.from_bytes(found[pid_at : pid_at + 4], sys.byteorder) if pid_at >= 0 else 0
            return uid, pid or None
    return None, None


def _connect(entry: "list[str]", home: str, host: str, login: str) -> bool:
    """Connect to the address that answered last; hand the socket to ssh, or relay."""
    now, address = time(), entry[ADDRESS]
    if login not in entry[LOGINS].split("\n") or not _is_within(entry[CONNECT_TIMES]):
        return False
    fdpass, parent = is_fdpass(), posix.getppid()
    if (
        not address
        or checks_no_host(parent)
        or (has_spoken() if fdpass else not _is_openssh(parent))
    ):
        return False
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    sock.settimeout(_CONNECT_S)
    sock.connect((address, int(entry[PORT])))
    if waits_too_long(parent):
        sock.settimeout(_SILENCE_S)
        sock.recv(1, _socket.MSG_PEEK)  # after a TimeoutError the full program looks closer
    sock.settimeout(None)
    set_options(sock)
    try:
        note_use(entry[USE], parent)
    except OSError:
        pass  # not worth failing the connection
    if posix.environ.get(b"DCS_PROXY_LOG") != b"off":
        how = "yes" if fdpass else "no"
        ms = int((time() - now) * 1000)
        text = f"connected machine={host} login={login} warm=yes fdpass={how} ms={ms}"
        try:
            write_line(f"{home}/log", parent, text)
        except OSError:
            pass  # not worth failing the connection
    if not fdpass:
        become_relay(sock, host, home)
    hand_over(sock)
    return True


def is_fdpass(stdin: int = 0, stdout: int = 1) -> bool:
    """Return whether both descriptors are the same socket, as under ProxyUseFdpass."""
    first, second = posix.fstat(stdin), posix.fstat(stdout)
    is_same = (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    return is_same and first.st_mode & _FILE_TYPE == _SOCKET


def has_spoken(stdin: int = 0) -> bool:
    """Return whether the client has sent anything, which a client never does before a handover.

    `stdin` is a socket.  If the client has closed it, the answer is no.
    """
    channel = _socket.socket(fileno=posix.dup(stdin))
    try:
        return bool(channel.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT))
    except OSError:
        return False
    finally:
        channel.close()


def hand_over(sock: _socket.socket, fd: int = 1) -> None:
    """Pass a connected socket to ssh over the socket `fd`, as mm_receive_fd of OpenSSH expects it.

    One zero byte with the descriptor as SCM_RIGHTS (monitor_fdpass.c).  Raises OSError if ssh has
    exited.
    """
    channel = _socket.socket(fileno=posix.dup(fd))
    try:
        passed = sock.fileno().to_bytes(4, sys.byteorder)
        channel.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
        await_received(channel)
    finally:
        channel.close()


def become_relay(sock: _socket.socket, host: str, home: str) -> None:
    """Replace this program by the relay between stdin, stdout and `sock`.  Does not return.

    The relay gets an empty environment, because ours may contain the API key.  `host` and the state
    directory `home` only serve to identify it in a list of processes.
    """
    posix.set_inheritable(sock.fileno(), True)
    words = [sys.executable, "-I", "-S", _START, "relay", str(sock.fileno()), host, home]
    posix.execve(sys.executable, words, {})


def _is_openssh(pid: int) -> bool:
    """Return whether process `pid` runs a program called ssh; false without /proc.

    For any other client behind a pipe the full program reads the client's version line: a client
    that took the session's login from ``ssh -G`` still needs the bridge.
    """
    try:
        return posix.readlink(f"/proc/{pid}/exe").endswith("/ssh")
    except OSError:
        return False


def waits_too_long(pid: int) -> bool:
    """Return whether the ssh `pid` would wait too long for a silent gateway; true without /proc.

    It would if its command line raises ConnectTimeout, as VS Code and Ansible can.  In all other
    cases waiting for the gateway's first bytes would only delay ssh's own by a round trip.
    """
    value = _option_of(pid, b"connecttimeout")
    if value is None:
        return True
    return bool(value) and not (value.isdigit() and 0 < int(value) <= _LONGEST_WAIT_S)


def checks_no_host(pid: int) -> bool:
    """Return whether the command line of the ssh `pid` disables StrictHostKeyChecking.

    False without /proc.  See bridge/proof.py.
    """
    return (_option_of(pid, b"stricthostkeychecking") or b"yes") not in (b"yes", b"true")


def _option_of(pid: int, name: bytes) -> "bytes | None":
    """Return the value, in lower case, of an option on the command line of the ssh `pid`.

    Return b"" if the option is not set, None without /proc.  As in ssh, the first value counts.
    """
    try:
        line = _read(f"/proc/{pid}/cmdline").lower()
    except OSError:
        return None
    rest = line.partition(name)[2].lstrip(b"= \t\0")
    return rest.partition(b"\0")[0].strip(b' \t"')


def set_options(sock: _socket.socket) -> None:
    """Set the options that a connection to a gateway needs, before it is handed over.

    ssh sets TCP_NODELAY late: its first packets would each wait for a delayed ACK.  It never sets
    SO_KEEPALIVE on a socket that it receives.  A probe after a minute (the default is two hours)
    keeps NAT routers from dropping an idle connection, and detects a dead one.
    """
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):  # macOS has the second
        if hasattr(_socket, name):
            sock.setsockopt(_socket.IPPROTO_TCP, getattr(_socket, name), _IDLE_S)


def await_received(channel: _socket.socket) -> None:
    """Wait until ssh has received the descriptor, on systems that may drop one in flight.

    On Linux the sender may exit at once.  Elsewhere the kernel's garbage collection of descriptors
    may close one that is still in flight.  ssh closes its end when it has received the descriptor.
    """
    if sys.platform != "linux":
        channel.settimeout(_RECEIVE_S)
        try:
            channel.recv(1)
        except OSError:
            pass  # it took too long, or ssh has exited: nothing more can be done


if __name__ == "__main__":
    if (_status := main(sys.argv[1:])) is not None:
        # Skip the interpreter's shutdown, which would take a seventh of the total time.
        posix._exit(_status)
