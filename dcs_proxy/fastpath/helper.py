"""The warm path of `prepare` and of ``HOST PORT``: what ssh starts first.

start.py runs it as ``start.py --home DIR [--config FILE] prepare HOST`` and ``start.py --home DIR
[--config FILE] --login USER HOST PORT``.  It imports builtins, _socket, posix and time only.  It
reads one fast entry, asks the agent, connects and hands over.  For anything that it does not
recognise it returns, and start.py runs the full program in the same process.

A fast entry, ``sessions/HOST.warm`` in the state directory, says what must still be true for the
next ssh to use the session without the full program.  publish/fast_entry.py writes it, from the
names below.
"""

import _socket
import posix
import sys
from time import gmtime, strftime, time

# The fields of a fast entry, by number, with a NUL between them.  Times are a pair of unix times:
# from, inclusive, and until, exclusive.
(
    VERSION,  # CURRENT_VERSION, which changes with the meaning of any field
    CONFIG_PATH,  # where the config file is
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
    USE,  # the file that says which ssh has used the session last, see note_use()
    END,  # COMPLETE, if the file is
) = range(15)
FIELDS = 15
CURRENT_VERSION = "3"
COMPLETE = "end\n"
NOT_EXPANDED = "%h"
# The environment variables that the settings depend on.
VARIABLES = ("DEDALUS_BASE_URL", "DEDALUS_ORG_ID")
# How to ask who is behind a Unix socket: the beginning of sys.platform, level, option, the size of
# the answer, where the user's number is in it, and the process's, -1 if it is missing.
PEER_OPTIONS = (
    ("linux", 1, 17, 12, 4, 0),
    ("darwin", 0, 1, 76, 4, -1),
    ("freebsd", 0, 1, 88, 4, -1),
    ("openbsd", 0xFFFF, 0x1022, 12, 0, 8),
    ("netbsd", 0, 3, 12, 4, 0),
)

_PACKAGE = __file__.rpartition("/fastpath/")[0]
_START = _PACKAGE + "/start.py"
# Of st_mode: S_IFMT and S_IFREG.
_FILE_TYPE, _REGULAR = 0o170000, 0o100000
_AGENT_S = 2
# OpenSSH's agents and clients have the same limit, without the length.
_MAX_REPLY = 256 * 1024 + 4
_CONNECT_S = 1
_RECEIVE_S = 2
# How long ssh may wait by itself for a gateway that says nothing (openssh/config_text.py sets the
# same limit), and how long such a gateway is waited for here.
_LONGEST_WAIT_S = 30
_SILENCE_S = 2
# How long a connection may be idle before TCP asks whether the other end is alive.
_IDLE_S = 60


def main(words: "list[str]") -> "int | None":
    """Do what ssh asks for and return 0, if it is warm; None if the full program has to do it.

    Return 1 for a host that is not expanded: the programs that evaluate Match exec so (asyncssh,
    VS Code for each host that it lists) do not log in with what `prepare` makes ready.
    """
    if words[-2:] == ["prepare", NOT_EXPANDED]:
        return 1
    try:
        done = run(words)
    except Exception:  # whatever it is, the full program does the work or explains it
        done = False
    return 0 if done else None


def run(words: "list[str]") -> bool:
    """Do what ssh asks for; return False, or raise anything, if the full program has to."""
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
    """Return the contents of the file of a session's last use, now that the API has confirmed it.

    It is text: the process id of the ssh in 10 digits; ``a`` if the API was asked for this ssh, or
    ``-`` if it was not; and the unix time until which is_doubtful() is false.
    """
    return f"{pid:010}a{until!r}".encode()


def note_use(path: str, pid: int) -> None:
    """Note that the ssh `pid` gets the session, in the file at `path`.

    If the API was asked for this very ssh, the note stays as it is.
    """
    flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
    fd = posix.open(path, flags, 0o600)
    try:
        if posix.read(fd, 11) != b"%010da" % pid:
            posix.pwrite(fd, b"%010d-" % pid, 0)
    finally:
        posix.close(fd)


def is_doubtful(path: str, now: float) -> bool:
    """Return whether the last ssh has ended that got the session without asking the API.

    Its login may have been refused, because the session is over; nothing of ours has seen that.
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
    except (OSError, ValueError):  # no such process of ours; or the file is damaged
        return True
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and its parent has not noticed; false without /proc."""
    try:
        # proc(5): the name in parentheses may contain anything; the state is field 3.
        return _read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1] == b"Z"
    except OSError:
        return False


def write_line(path: str, parent: int, text: str) -> int:
    """Append one line to the log at `path`, made 0600 if missing; return how long the log is now.

    One write for one line: O_APPEND keeps the lines of many processes whole.  Nothing is written to
    what others may have put there: a FIFO, their file, another name of a file of ours.  Raises
    OSError.
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
    """Return where the config file is, as local/settings.py finds it."""
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
    """Return whether the ssh `pid` may have a jump host in our place; false without /proc.

    The full program tells: see openssh/parent.py.
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
    # ssh reads all of these.  ctime also tells of a mode that was changed since the last check.
    checked = posix.stat(f"{home}/checked").st_ctime_ns
    for part in ("hosts", "agents"):
        for included in posix.scandir(f"{home}/{part}"):
            if included.stat(follow_symlinks=False).st_ctime_ns > checked:
                return False
    if not _is_agent_known(home, entry[AGENT], entry[AGENT_KIND]):
        return False
    return _holds(entry[AGENT], bytes.fromhex(entry[IDENTITY]))


def _is_agent_known(home: str, agent: str, kind: str) -> bool:
    """Return whether the agent's directory is private, and ``ssh -A`` will forward the user's own
    agent, or none if there is none.
    """
    path = posix.environ.get(b"SSH_AUTH_SOCK", b"")
    socket = agent.encode("utf-8", "surrogateescape")
    is_ours = path == socket
    if kind == "user" and not is_ours:
        return False
    if kind == "private":
        directory = socket.rpartition(b"/")[0]
        if not _is_private(directory):
            return False
        is_ours = path.rpartition(b"/")[0] == directory
    try:
        only = _read(f"{home}/agents/only.conf")
    except FileNotFoundError:
        only = b""
    if not path or is_ours:
        return not only
    posix.stat(path)
    if only:
        return b'    ForwardAgent "' + path.replace(b"%", b"%%") + b'"\n' in only
    return stamp(f"{home}/agents/{path.hex()}.conf") != "-"


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
    while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
        part = sock.recv(65536)
        reply += part
        if not part or len(reply) > _MAX_REPLY or time() > until:
            return False
    if reply[4] != 12:
        return False
    # Walked, not searched: a certificate contains its authority's key, which a search would find.
    at, is_blob = 9, True
    while at < len(reply):
        size = int.from_bytes(reply[at : at + 4], "big")
        if is_blob and reply[at + 4 : at + 4 + size] == blob:
            return True
        at, is_blob = at + 4 + size, not is_blob
    return False


def is_trusted(sock: "_socket.socket", path: "str | bytes") -> bool:
    """Return whether the agent that `sock`, a connection to `path`, leads to is ours or root's.

    Where the system does not tell, no other user may be able to put a socket there.
    """
    uid = peer(sock)[0]
    if uid is None:
        name = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
        return _is_private(name[: name.rfind(b"/") + 1] or b".")
    return uid in (posix.geteuid(), 0)


def peer(sock: "_socket.socket") -> "tuple[int | None, int | None]":
    """Return the user and the process behind a connected Unix socket, None for what is not known.

    They are those of the process that called listen().  The options are those of unix(7) on Linux
    (struct ucred), OpenBSD (struct sockpeercred), macOS and FreeBSD (struct xucred), and NetBSD
    (struct unpcbid).
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
    first, second = posix.fstat(0), posix.fstat(1)
    # One socket on both: ProxyUseFdpass.  S_ISSOCK, without the module stat.
    is_one = (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    is_fdpass = is_one and first.st_mode & 0o170000 == 0o140000
    if is_one != is_fdpass or not address or (is_fdpass and _has_spoken()):
        return False
    parent = posix.getppid()
    if checks_no_host(parent) or not (is_fdpass or _is_openssh(parent)):
        return False
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    sock.settimeout(_CONNECT_S)
    sock.connect((address, int(entry[PORT])))
    if waits_too_long(parent):
        sock.settimeout(_SILENCE_S)
        sock.recv(1, _socket.MSG_PEEK)  # a TimeoutError is the full program's
    sock.settimeout(None)
    set_options(sock)
    try:
        note_use(entry[USE], parent)
    except OSError:
        pass  # no reason to refuse a connection
    if posix.environ.get(b"DCS_PROXY_LOG") != b"off":
        how = "yes" if is_fdpass else "no"
        ms = int((time() - now) * 1000)
        text = f"connected machine={host} login={login} warm=yes fdpass={how} ms={ms}"
        try:
            write_line(f"{home}/log", posix.getppid(), text)
        except OSError:
            pass  # a log that cannot be written is no reason to refuse a connection
    if not is_fdpass:
        posix.set_inheritable(sock.fileno(), True)
        words = [sys.executable, "-I", "-S", _START, "relay", str(sock.fileno()), host, home]
        posix.execve(sys.executable, words, {})
    channel = _socket.socket(fileno=posix.dup(1))
    passed = sock.fileno().to_bytes(4, sys.byteorder)
    channel.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
    await_received(channel)
    return True


def _is_openssh(pid: int) -> bool:
    """Return whether process `pid` runs a program called ssh; false without /proc.

    Any other client behind a pipe is the full program's, which reads what the client calls itself:
    one that took the session's login from ``ssh -G`` still needs the bridge.
    """
    try:
        return posix.readlink(f"/proc/{pid}/exe").endswith("/ssh")
    except OSError:
        return False


def waits_too_long(pid: int) -> bool:
    """Return whether the ssh `pid` would wait long for a gateway that says nothing.

    That is so if its command line raises ConnectTimeout, as VS Code and Ansible can; without /proc
    it may be so.  Other ssh do not wait here for the gateway's first bytes: theirs would leave
    later, by as long as a packet takes to the gateway and back.
    """
    value = _option_of(pid, b"connecttimeout")
    if value is None:
        return True
    return bool(value) and not (value.isdigit() and 0 < int(value) <= _LONGEST_WAIT_S)


def checks_no_host(pid: int) -> bool:
    """Return whether the command line of the ssh `pid` says to accept any gateway.

    False without /proc.  See bridge/proof.py.
    """
    return (_option_of(pid, b"stricthostkeychecking") or b"yes") not in (b"yes", b"true")


def _option_of(pid: int, name: bytes) -> "bytes | None":
    """Return the value of an option in lower case from the command line of the ssh `pid`.

    It is empty if the option is not there, and None without /proc.  As in ssh, the first counts.
    """
    try:
        line = _read(f"/proc/{pid}/cmdline").lower()
    except OSError:
        return None
    rest = line.partition(name)[2].lstrip(b"= \t\0")
    return rest.partition(b"\0")[0].strip(b' \t"')


def set_options(sock: _socket.socket) -> None:
    """Set the options that a connection to a gateway needs; it may be handed over afterwards.

    ssh sets TCP_NODELAY late: its first packets would each wait for a delayed ACK.  It does not
    set keepalive on a socket that it was handed.  A probe after a minute, not after the two hours
    that are usual, keeps a NAT router from forgetting an idle connection, and notices a dead one.
    """
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):  # macOS has the second
        if hasattr(_socket, name):
            sock.setsockopt(_socket.IPPROTO_TCP, getattr(_socket, name), _IDLE_S)


def await_received(channel: _socket.socket) -> None:
    """Wait until ssh has closed its end, on systems that may drop a descriptor in flight.

    Linux keeps one that was sent even if the sender exits at once.  Elsewhere the garbage collector
    of descriptors may take it for lost.  ssh closes its end as soon as it has the descriptor.
    """
    if sys.platform != "linux":
        channel.settimeout(_RECEIVE_S)
        try:
            channel.recv(1)
        except OSError:
            pass  # too late, or ssh is gone: nothing more can be done


def _has_spoken() -> bool:
    """Return True if the client has sent something: one that waits for a socket does not."""
    channel = _socket.socket(fileno=posix.dup(0))
    try:
        return bool(channel.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


if __name__ == "__main__":
    if (_status := main(sys.argv[1:])) is not None:
        # Without the interpreter's clean-up, which would be a seventh of the whole cost.
        posix._exit(_status)
