"""The warm half of `prepare` and of ``HOST PORT``, alone and tiny: what ssh starts first.

start.py runs it as ``start.py --home DIR [--config FILE] prepare HOST`` and ``start.py --home DIR
[--config FILE] --login USER HOST PORT``.  It imports builtins, _socket, posix and time only.  It
reads one line of state (publish/fast_entry.py writes it), asks the agent, connects, hands over; for
anything that it does not recognise the full program takes its place, in the same process.
"""

import posix
import sys
from time import gmtime, strftime, time

_PACKAGE = __file__.rpartition("/fastpath/")[0]
_FULL = _PACKAGE + "/__main__.py"
_START = _PACKAGE + "/start.py"
_FIELDS = 15
# What the settings depend on, beside the config file.
VARIABLES = ("DEDALUS_BASE_URL", "DEDALUS_ORG_ID", "DCS_PROXY_CONFIG", "XDG_CONFIG_HOME")


def main(words: "list[str]") -> int:
    """Do what is warm and return 0; become the full program otherwise."""
    try:
        done = _warm(words)
    except Exception:  # the outermost frame: whatever it is, the full program will explain it
        done = False
    if not done:
        posix.execv(sys.executable, [sys.executable, _FULL, *words])
    return 0


def _warm(words: "list[str]") -> bool:
    home, rest = words[1], words[2:]
    config = ""
    if rest[0] == "--config":
        config, rest = rest[1], rest[2:]
    if words[0] != "--home":
        return False
    if rest[0] == "prepare" and len(rest) == 2:
        line = _read_line(home, rest[1], config)
        return line is not None and _is_prepared(home, line)
    if rest[0] == "--login" and len(rest) == 4 and rest[3].isdigit():
        line = _read_line(home, rest[2], config)
        return line is not None and _connect(line, home, rest[2], rest[1])
    return False


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 65536)
    finally:
        posix.close(fd)


def stamp(path: str) -> str:
    """Return what changes when a file does."""
    try:
        status = posix.stat(path)
    except OSError:
        return "-"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _read_line(home: str, host: str, config: str) -> "list[str] | None":
    """Return the fields of the host's line of state if it is true of here and now."""
    if not host.replace("-", "a").isalnum() or len(host) > 200:
        return None
    if not all(map(_is_ours_alone, (home, f"{home}/sessions", f"{home}/hosts", f"{home}/agents"))):
        return None
    line = _read(f"{home}/sessions/{host}.warm").decode("utf-8", "surrogateescape").split("\0")
    if len(line) != _FIELDS or line[-1] != "end\n" or line[1] != config:
        return None
    if "\n".join(map(_variable, VARIABLES)) != line[4]:
        return None
    if line[3] != stamp(line[2]):
        return None
    return line


def _is_ours_alone(directory: "str | bytes") -> bool:
    """Tell whether nobody else can put files of theirs into a directory."""
    status = posix.stat(directory)
    return status.st_uid == posix.geteuid() and not status.st_mode & 0o022


def write_line(path: str, parent: int, text: str) -> int:
    """Append one line to the log at `path`, made 0600 if missing; return how long the log is now.

    One write for one line: O_APPEND keeps the lines of many processes whole.
    """
    now = time()
    moment = f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(now))}.{int(now % 1 * 1000):03}Z"
    flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
    fd = posix.open(path, flags, 0o600)
    try:
        line = f"{moment} [{posix.getpid()}/{parent}] {text}\n"
        posix.write(fd, line.encode("utf-8", "replace"))
        return posix.lseek(fd, 0, 1)
    finally:
        posix.close(fd)


def _variable(name: str) -> str:
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


def _is_prepared(home: str, line: "list[str]") -> bool:
    """Tell whether ssh may log in with what lies ready, without asking the API."""
    begin, end = line[5].split()
    if not float(begin) <= time() < float(end):
        return False
    for file in line[13].split("\n"):
        path, _, known = file.partition("\t")
        if stamp(path) != known:
            return False
    # ctime: what was written to or whose mode was changed since must be looked at by heal.
    healed = posix.stat(f"{home}/healed").st_ctime_ns
    for part in ("hosts", "agents"):
        for entry in posix.scandir(f"{home}/{part}"):
            if entry.stat(follow_symlinks=False).st_ctime_ns > healed:
                return False
    if not _is_agent_known(home, line[7], line[12]):
        return False
    return _is_held(line[7], bytes.fromhex(line[8]))


def _is_agent_known(home: str, ours: str, whose: str) -> bool:
    """Tell whether our agent's directory is ours alone, and `ssh -A` finds the user's own agent,
    or none where there is none.
    """
    path = posix.environ.get(b"SSH_AUTH_SOCK", b"")
    socket = ours.encode("utf-8", "surrogateescape")
    is_ours = path == socket
    if whose == "user" and not is_ours:
        return False
    if whose == "private":
        directory = socket.rpartition(b"/")[0]
        if not _is_ours_alone(directory):
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


def _is_held(path: str, blob: bytes) -> bool:
    """Tell whether the agent at `path`, ours, holds the identity `blob` (RFC 9987)."""
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(2)
    sock.connect(path)
    if hasattr(_socket, "SO_PEERCRED"):
        peer = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        if int.from_bytes(peer[4:8], sys.byteorder) != posix.geteuid():
            return False
    sock.sendall(b"\0\0\0\1\x0b")
    reply = b""
    while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "big"):
        part = sock.recv(65536)
        if not part:
            return False
        reply += part
    if reply[4] != 12:
        return False
    # The list is walked: a certificate contains its authority's key, so a search would find that.
    at = 9
    for number in range(2 * int.from_bytes(reply[5:9], "big")):
        size = int.from_bytes(reply[at : at + 4], "big")
        if number % 2 == 0 and reply[at + 4 : at + 4 + size] == blob:
            return True
        at += 4 + size
    return False


def _connect(line: "list[str]", home: str, host: str, login: str) -> bool:
    """Connect to the address that answered last; hand the socket to ssh, or relay."""
    import _socket

    now = time()
    begin, end = line[6].split()
    if login not in line[9].split("\n") or not float(begin) <= now < float(end):
        return False
    first, second = posix.fstat(0), posix.fstat(1)
    # One socket on both: ProxyUseFdpass.  S_ISSOCK, without the module stat.
    is_one = (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    is_fdpass = is_one and first.st_mode & 0o170000 == 0o140000
    if is_one != is_fdpass or not line[10]:
        return False
    family = _socket.AF_INET6 if ":" in line[10] else _socket.AF_INET
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    sock.settimeout(1)
    sock.connect((line[10], int(line[11])))
    sock.settimeout(None)
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
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
    return True


if __name__ == "__main__":
    # Taking the interpreter apart would be a seventh of all that this costs.
    posix._exit(main(sys.argv[1:]))
