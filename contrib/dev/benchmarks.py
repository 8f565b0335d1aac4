"""The measurements of contrib/dev/bench: each figure is a ratio to a yardstick of the same run.

A real sshd is the gateway and the emulator the control plane, both on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import getpass
import json
import os
import resource
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bridge_memory import Load, draw
from yardsticks import official, official_in_node

import dcs_proxy
from dcs_proxy.emulator.authority import Authorities
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair, public_line
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.bridge import set_rekeying
from tests.support.emulator import Emulator
from tests.support.processes import agent_pid
from tests.support.sshd import authorised_sshd
from tests.support.user import User, helpers_for
from tests.support.waiting import wait_until

START = Path(dcs_proxy.__file__).with_name("start.py")
BARE = [sys.executable, "-I", "-S", "-c", "pass"]
CIPHER = ["-c", "aes128-gcm@openssh.com"]
TLS_DELAY_S = 0.08
AT_ONCE, MACHINES = (1, 10, 25, 50, 100), (1, 10, 100, 300, 1000)


@dataclass
class Figure:
    """One ratio: the median of what was measured over that of its yardstick, with quartiles."""

    row: str
    what: str
    yardstick: str
    ratio: float
    target: float
    value: tuple[float, float, float]
    against: tuple[float, float, float]
    unit: str = "s"
    higher_is_better: bool = False

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(
    row: str, what: str, yardstick: str, target: float, values: list[float], against: list[float],
    **more: Any,
) -> Figure:  # fmt: skip
    value, base = quartiles(values), quartiles(against)
    return Figure(row, what, yardstick, value[1] / base[1], target, value, base, **more)


def interleave(cases: dict[str, Callable[[], float | None]], rounds: int) -> dict[str, list[float]]:
    """Run all cases in turn, `rounds` times.  A case returns its figure, or None to be timed."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            figure = case()
            seconds = time.perf_counter() - start
            if number:  # the first round warms caches
                found[name].append(seconds if figure is None else figure)
    return found


class Bench:
    """What all rows share: a user, an emulator, an sshd, and plain ssh to the same sshd."""

    def __init__(self, root: Path, user: User, arguments: list[str], port: int) -> None:
        self.root, self.user, self.arguments, self.port = root, user, arguments, port
        self.rounds, self.gib = 15, 2.0
        self.memory_plot: Path | None = None
        plain = root / "plain"
        plain.write_text(
            f"Host *\n    HostName localhost\n    Port {port}\n    IdentityFile {root}/key\n"
            f"    IdentitiesOnly yes\n    UserKnownHostsFile {root}/known_hosts\n"
            "    StrictHostKeyChecking yes\n"
        )
        host_ca = (root / "ca" / "host_ca.pub").read_text()
        (root / "known_hosts").write_text(f"@cert-authority * {host_ca}")
        self.plain = ["ssh", "-F", str(plain), "plain"]
        self.ours = ["ssh", "-F", str(user.config), "dm-foo"]

    def run(self, *command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        done = self.user.run(list(command), **more)
        assert done.returncode == 0, done.stderr
        return done

    def warm_up(self) -> None:
        """Log in twice, so that the next ssh is warm."""
        for _ in range(2):
            self.run(*self.ours, "true")

    def warm(self, *rest: str) -> list[str]:
        """Return the command line that ssh runs."""
        return [sys.executable, "-I", "-S", str(START), "--home", str(self.user.state),
                "--config", str(self.user.root / "config.toml"), *rest]  # fmt: skip

    @property
    def bridge(self) -> str:
        """What a config by hand has for its ProxyCommand."""
        program = [sys.executable, "-m", "dcs_proxy", "--home", str(self.user.state)]
        return shlex.join([*program, "--bridge", "dm-foo", "22"])

    def relays(self) -> dict[str, list[str]]:
        """Return ssh's arguments before the command, for each way to the sshd."""
        host = ["ssh", "-F", str(self.user.config), *CIPHER]
        plain = [*self.plain[:-1], *CIPHER]
        return {
            "plain ssh": [*plain, "plain"],
            "handover": [*host, "dm-foo"],
            "relay": [*host, "-o", "ProxyUseFdpass=no", "dm-foo"],
            "bridge": ["ssh", "-F", "none", *CIPHER,
                       "-o", f"ProxyCommand={self.bridge}", "-o", "StrictHostKeyChecking=yes",
                       "-o", f'UserKnownHostsFile="{self.user.state}/known_hosts"', "dm-foo"],
            "nc": [*plain, "-o", f"ProxyCommand=nc localhost {self.port}", "plain"],
            "socat": [*plain, "-o", f"ProxyCommand=socat - TCP:localhost:{self.port}", "plain"],
        }  # fmt: skip


def row_prepare(bench: Bench) -> Iterator[Figure]:
    """warm prepare"""
    bench.run(*bench.ours, "true")
    command = bench.warm("prepare", "dm-foo")
    found = interleave(
        {"bare": lambda: call(bench, BARE), "prepare": lambda: call(bench, command)},
        bench.rounds * 4,
    )
    yield compare("prepare", "warm prepare", "python -I -S -c pass", 1.2,
                  found["prepare"], found["bare"])  # fmt: skip


def call(bench: Bench, command: list[str]) -> None:
    subprocess.run(command, env=bench.user.environment, check=True, stdin=subprocess.DEVNULL)


def row_connect(bench: Bench) -> Iterator[Figure]:
    """warm HOST PORT with handover"""
    bench.warm_up()
    login = getpass.getuser()
    command = bench.warm("--login", login, "dm-foo", "22")

    def hand_over() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            subprocess.run(command, env=bench.user.environment, stdin=theirs, stdout=theirs,
                           check=True)  # fmt: skip
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            os.close(fds[0])

    found = interleave({"bare": lambda: call(bench, BARE), "connect": hand_over}, bench.rounds * 4)
    yield compare("connect", "warm HOST PORT", "python -I -S -c pass", 1.25,
                  found["connect"], found["bare"])  # fmt: skip


def row_warm(bench: Bench) -> Iterator[Figure]:
    """warm ssh dm-foo true"""
    through_nc = [*bench.plain[:-1], "-o", f"ProxyCommand=nc localhost {bench.port}", "plain"]
    cases = {"plain": bench.plain, "nc": through_nc, "ours": bench.ours}
    found = interleave(
        {name: lambda c=command: ignore(bench.run(*c, "true")) for name, command in cases.items()},
        bench.rounds * 3,
    )
    yield compare("warm", "warm ssh dm-foo true", "plain ssh", 0.95, found["ours"],
                  found["plain"])  # fmt: skip
    yield compare("warm", "warm ssh dm-foo true", "ssh through nc", 1.0,
                  found["ours"], found["nc"])  # fmt: skip


def ignore(_: object) -> None:
    """Return None, so that the time counts."""


def forget(bench: Bench, user: User | None = None) -> None:
    for part in ("sessions", "hosts"):
        for path in ((user or bench.user).state / part).iterdir():
            path.unlink()


def row_cold(bench: Bench) -> Iterator[Figure]:
    """cold ssh dm-foo true, the API on loopback answering at once"""

    def cold() -> None:
        bench.run(*bench.ours, "true")

    place = bench.root / "official"
    cases = {"ours": cold, "curl": lambda: official(bench.user, place)}
    if shutil.which("node"):
        cases["node"] = lambda: official_in_node(bench.user, place)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(bench.rounds):
        forget(bench)  # not part of the time
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            times[name].append(time.perf_counter() - start)
    for name, target in (("curl", 1.15), ("node", 0.85)):
        if name in times:
            yield compare("cold", "cold ssh dm-foo true", f"the official way by {name}",
                          target, times["ours"], times[name])  # fmt: skip


@contextlib.contextmanager
def far_away(port: int, delay_s: float) -> Iterator[int]:
    """Forward a local port to `port`, with half of `delay_s` of latency in each direction."""
    ready: list[int] = []
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                loop.call_later(delay_s / 2, writer.write, data)
        loop.call_later(delay_s / 2, writer.close)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_s)  # the TCP handshake
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async def serve() -> None:
        server = await asyncio.start_server(accept, "localhost", 0, family=socket.AF_INET)
        ready.append(server.sockets[0].getsockname()[1])

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop).result()
    yield ready[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def row_far(bench: Bench) -> Iterator[Figure]:
    """ten connections in a row to one machine, the API over TLS 80 ms away"""
    directory = bench.root / "far"
    directory.mkdir()
    pem = str(directory / "tls.pem")
    emulator = Emulator(directory, "--machine", "dm-foo", "--tls", pem, *bench.arguments)
    user = User()
    try:
        user.environment["REQUESTS_CA_BUNDLE"] = pem
        user.use(emulator)
        with far_away(int(emulator.api.rpartition(":")[2]), TLS_DELAY_S) as port:
            user.environment["DEDALUS_BASE_URL"] = f"https://localhost:{port}"

            def ours() -> None:
                forget(bench, user)
                for _ in range(10):
                    assert user.ssh("dm-foo", "true").returncode == 0

            def theirs() -> None:
                for _ in range(10):
                    official(user, bench.root / "official", pem)

            found = interleave({"ours": ours, "official": theirs}, max(2, bench.rounds // 5))
    finally:
        user.close()
        emulator.stop()
    yield compare("far", "ten connections, API over TLS 80 ms away", "the official way by curl",
                  0.7, found["ours"], found["official"])  # fmt: skip


def row_wake(bench: Bench) -> Iterator[Figure]:
    """wake: from the API's ready to the first byte to the gateway"""
    wake_s, poll_s = 2.0, 0.5
    directory = bench.root / "wake"
    directory.mkdir()
    emulator = Emulator(directory, "--machine", "dm-foo", "--wake-seconds", str(wake_s))
    user = User()
    late = []
    try:
        user.use(emulator)
        for _ in range(max(3, bench.rounds // 3)):
            emulator.control("PUT", "machines/dm-foo", phase="sleeping")
            forget(bench, user)
            seen = len(emulator.events())
            assert user.ssh("dm-foo", "true").returncode == 0
            events = emulator.events()[seen:]
            asked = next(e["time"] for e in events if e.get("method") == "POST")
            came = next(e["time"] for e in events if e["event"] == "connection")
            late.append(came - asked - wake_s)
    finally:
        user.close()
        emulator.stop()
    yield compare("wake", "from ready to the gateway", "one poll interval and 100 ms", 1.0,
                  late, [poll_s + 0.1])  # fmt: skip


def row_throughput(bench: Bench) -> Iterator[Figure]:
    """throughput, both ways, aes128-gcm"""
    bench.run(*bench.ours, "true")
    for way in ("up", "down"):
        cases = {name: (lambda w=words, way=way: throughput(bench, w, way))
                 for name, words in bench.relays().items()}  # fmt: skip
        found = interleave(cases, max(3, bench.rounds // 5))
        for what, yardstick, target in (
            ("handover", "plain ssh", 0.98), ("relay", "nc", 0.75), ("relay", "socat", 1.0),
            ("bridge", "plain ssh", 0.65 if way == "up" else 0.8),
        ):  # fmt: skip
            yield compare("throughput", f"{what} {way}", yardstick, target, found[what],
                          found[yardstick], unit="GiB/s", higher_is_better=True)  # fmt: skip


def moving(bench: Bench, words: list[str], way: str) -> str:
    """Return the shell's line that moves `bench.gib` through an ssh."""
    size = int(bench.gib * 2**30)
    ssh = shlex.join([*words, "cat >/dev/null" if way == "up" else f"head -c {size} /dev/zero"])
    return f"head -c {size} /dev/zero | {ssh}" if way == "up" else f"{ssh} >/dev/null"


def throughput(bench: Bench, words: list[str], way: str) -> float:
    """Return how many GiB/s go through an ssh."""
    start = time.perf_counter()
    bench.run("sh", "-c", moving(bench, words, way))
    return bench.gib / (time.perf_counter() - start)


USAGE = """
import resource, signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *_: None)  # which ssh sends in the end
subprocess.run(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
open(sys.argv[1], "w").write(str(used.ru_utime + used.ru_stime))
"""


def row_cpu(bench: Bench) -> Iterator[Figure]:
    """CPU of the relay and of the bridge per GiB, both ways"""
    bench.run(*bench.ours, "true")
    script, used = bench.root / "usage.py", bench.root / "used"
    script.write_text(USAGE)
    wrapper = shlex.join([sys.executable, str(script), str(used)])
    relay = shlex.join(bench.warm("--relay", "dm-foo", "22"))
    known_hosts = f'UserKnownHostsFile="{bench.user.state}/known_hosts"'
    plain = [*bench.plain[:-1], *CIPHER]
    ways = {
        "relay": [*plain, "-o", f"ProxyCommand={wrapper} {relay}", "plain"],
        "bridge": ["ssh", "-F", "none", *CIPHER, "-o", known_hosts,
                   "-o", f"ProxyCommand={wrapper} {bench.bridge}", "dm-foo"],
        "nc": [*plain, "-o", f"ProxyCommand={wrapper} nc localhost {bench.port}", "plain"],
    }  # fmt: skip
    for way in ("up", "down"):

        def move(words: list[str], way: str = way) -> float:
            used.unlink(missing_ok=True)
            bench.run("sh", "-c", moving(bench, words, way))
            wait_until(lambda: used.exists() and used.read_text())
            return float(used.read_text()) / bench.gib

        found = interleave({n: (lambda w=words: move(w)) for n, words in ways.items()},
                           max(3, bench.rounds // 5))  # fmt: skip
        yield compare("cpu", f"CPU of the relay per GiB {way}", "nc", 1.0,
                      found["relay"], found["nc"], unit="s/GiB")  # fmt: skip
        yield compare("cpu", f"CPU of the bridge per GiB {way}", "3 s", 1.0,
                      found["bridge"], [3.0], unit="s/GiB")  # fmt: skip


def row_keystroke(bench: Bench) -> Iterator[Figure]:
    """keystroke round trip, p50 and p99"""
    bench.run(*bench.ours, "true")
    names = ("plain ssh", "handover", "relay", "bridge", "nc")
    shells = {name: bench.user.start(*bench.relays()[name], "cat", stdin=subprocess.PIPE,
                                     bufsize=0) for name in names}  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(200 * max(1, bench.rounds // 5)):
        for name, shell in shells.items():
            assert shell.stdin and shell.stdout
            start = time.perf_counter()
            shell.stdin.write(b"x")
            assert shell.stdout.read(1) == b"x"
            found[name].append(time.perf_counter() - start)
    for shell in shells.values():
        shell.kill()
        shell.communicate()
    for what, yardstick, target in (
        ("handover", "plain ssh", 1.1), ("relay", "nc", 1.2), ("bridge", "nc", 1.5)
    ):  # fmt: skip
        yield compare("keystroke", f"{what} p50", yardstick, target, found[what], found[yardstick])
        p99 = [sorted(found[name])[int(len(found[name]) * 0.99)] for name in (what, yardstick)]
        yield compare("keystroke", f"{what} p99", yardstick, target, p99[:1], p99[1:])


def own_memory(pid: int) -> float:
    """Return the memory that only this process uses, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def row_memory(bench: Bench) -> Iterator[Figure]:
    """resident memory per open connection"""
    bench.run(*bench.ours, "true")
    with subprocess.Popen([*BARE[:-1], "input()"], stdin=subprocess.PIPE) as bare:
        shell = bench.user.start(*bench.relays()["handover"], "cat", stdin=subprocess.PIPE)
        shell.stdin.write(b"x")
        shell.stdin.flush()
        assert shell.stdout.read(1) == b"x"
        left = [float(len(helpers_for(bench.user)))]
        relayed = bench.user.start(*bench.relays()["relay"], "cat", stdin=subprocess.PIPE)
        relayed.stdin.write(b"x")
        relayed.stdin.flush()
        assert relayed.stdout.read(1) == b"x"
        (helper,) = helpers_for(bench.user)
        yield compare("memory", "processes left after a handover", "one", 0.0, left, [1.0], unit="")
        yield compare("memory", "relay", "bare interpreter", 1.5, [own_memory(helper)],
                      [own_memory(bare.pid)], unit="MiB")  # fmt: skip
        for program in (shell, relayed):
            program.kill()
            program.communicate()
        wait_until(lambda: not helpers_for(bench.user))
        bridged = bench.user.start(*bench.relays()["bridge"], "cat", stdin=subprocess.PIPE)
        bridged.stdin.write(b"x")
        bridged.stdin.flush()
        assert bridged.stdout.read(1) == b"x"
        (helper,) = helpers_for(bench.user)
        yield compare("memory", "bridge", "48 MiB", 1.0, [own_memory(helper)], [48.0],
                      unit="MiB")  # fmt: skip
        bridged.kill()
        bridged.communicate()
        bare.communicate(b"\n")


@contextlib.contextmanager
def hundred(bench: Bench) -> Iterator[dict[str, list[list[str]]]]:
    """Yield the command lines of 100 ssh to 100 ready machines, ours and plain."""
    names = [f"dm-h{number:02}" for number in range(100)]
    directory = Path(tempfile.mkdtemp(dir=bench.root))
    emulator = Emulator(directory, *(w for n in names for w in ("--machine", n)), *bench.arguments)
    user = User()
    ours = [["ssh", "-F", str(user.config), name] for name in names]
    try:
        user.settings("reuse_seconds = 3600\n")
        user.use(emulator)
        for _ in range(2):
            for command in ours:
                assert user.run([*command, "true"]).returncode == 0
        environment = [f"{key}={value}" for key, value in user.environment.items()]
        yield {"ours": [["env", "-i", *environment, *c] for c in ours],
               "plain": [["env", "-i", *environment, *bench.plain]] * 100}  # fmt: skip
    finally:
        user.close()
        emulator.stop()


def at_once(bench: Bench, commands: list[list[str]]) -> tuple[float, float]:
    """Return the wall and CPU seconds of these ssh commands, run at once."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    programs = [bench.user.start(*command, "true") for command in commands]
    for program in programs:
        _, errors = program.communicate()
        assert program.returncode == 0, errors
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row_bridge(bench: Bench) -> Iterator[Figure]:
    """a login through the bridge, one and 20 at once"""
    bench.run(*bench.ours, "true")
    ways = {name: bench.relays()[name] for name in ("plain ssh", "bridge")}
    one = {n: (lambda w=words: call(bench, [*w, "true"])) for n, words in ways.items()}
    found = interleave(one, bench.rounds)
    yield compare("bridge", "warm ssh dm-foo true through the bridge", "plain ssh", 1.25,
                  found["bridge"], found["plain ssh"])  # fmt: skip
    twenty = {n: (lambda w=words: at_once(bench, [w] * 20)[0]) for n, words in ways.items()}
    many = interleave(twenty, max(3, bench.rounds // 5))
    yield compare("bridge", "20 bridges at once, wall", "20 plain ssh", 2.0,
                  many["bridge"], many["plain ssh"])  # fmt: skip


def row_renewal(bench: Bench) -> Iterator[Figure]:
    """the bridge's memory while --gib goes each way at once, with keys renewed every 8 MiB"""
    bench.run(*bench.ours, "true")
    before = bench.user.environment["PYTHONPATH"]
    set_rekeying(bench.user, 8)
    bench.user.environment["PYTHONPATH"] += f":{before}"
    try:
        words = [*bench.relays()["bridge"][:-1], "-o", "RekeyLimit=8M", "dm-foo", "cat"]
        ssh = bench.user.start(*words, stdin=subprocess.PIPE, stderr=None)
        (bridge,) = wait_until(lambda: helpers_for(bench.user))
        load = Load(ssh, bridge, int(bench.gib * 1024))
        load.run()
        assert ssh.wait() == 0
    finally:
        bench.user.environment["PYTHONPATH"] = before
    memory = [each for _, each in load.samples]
    quarter = len(memory) // 4
    yield compare("renewal", "the bridge's memory, last quarter", "the quarter before the middle",
                  1.1, memory[-quarter:], memory[quarter : 2 * quarter], unit="MiB")  # fmt: skip
    yield compare("renewal", "the bridge's memory, at most", "48 MiB", 1.0, [max(memory)], [48.0],
                  unit="MiB")  # fmt: skip
    if bench.memory_plot:
        title = f"The bridge: {bench.gib:g} GiB each way at once, keys renewed every 8 MiB"
        draw(load.samples, title, bench.memory_plot)


def row_hundred(bench: Bench) -> Iterator[Figure]:
    """100 connections at once to 100 ready machines"""
    wall: dict[str, list[float]] = {"ours": [], "plain": []}
    cpu: dict[str, list[float]] = {"ours": [], "plain": []}
    with hundred(bench) as ways:
        for _ in range(max(3, bench.rounds // 5)):
            for name, commands in ways.items():
                seconds, used = at_once(bench, commands)
                wall[name].append(seconds)
                cpu[name].append(used)
    for what, target, found in (("wall", 1.3, wall), ("CPU", 1.35, cpu)):
        yield compare("hundred", f"100 at once, {what}", "plain ssh", target, found["ours"],
                      found["plain"])  # fmt: skip


class Crowd:
    """Other machines in the state directory, each with the files and identity of a session."""

    def __init__(self, bench: Bench) -> None:
        state = bench.user.state
        self.agents = PrivateAgents(str(state))
        self.authorities = Authorities()
        self.lent: list[tuple[MachineName, KeyPair, bytes]] = []
        self.holders: list[tuple[Agent, bytes]] = []
        self.sessions, self.hosts = state / "sessions", state / "hosts"
        self.names = [path.name for path in self.sessions.glob("dm-foo.*")]
        self.snippet = (self.hosts / "dm-foo.conf").read_text()

    def change(self, count: int) -> None:
        for path in [*self.hosts.glob("dm-t*"), *self.sessions.glob("dm-t*")]:
            path.unlink()
        for number in range(count):
            for name in self.names:
                (self.sessions / name.replace("dm-foo", f"dm-t{number:03}")).touch(0o600)
            path = self.hosts / f"dm-t{number:03}.conf"
            path.touch(0o600)
            path.write_text(self.snippet.replace("dm-foo", path.stem))
        self.lend(count)

    def lend(self, count: int) -> None:
        """Add a certificate for each machine to an agent, and take the others out."""
        for number in range(len(self.lent), count):
            key = generate_key()
            line = self.authorities.sign_user(public_line(key.public), "crowd", time.time() + 3600)
            certificate = base64.b64decode(line.split()[1])
            self.lent.append((MachineName(f"dm-t{number:03}"), key, certificate))
        for agent, certificate in self.holders:
            agent.remove(certificate)
        self.holders = []
        for name, key, certificate in self.lent[:count]:
            agent = self.agents.add_key(
                key, comment=name, lifetime_s=3600, may_start=True, timeout_s=30
            )
            assert agent is not None
            agent.add_certificate(key, certificate, comment=name, lifetime_s=3600, destination=None)
            agent.remove(key.blob)
            self.holders.append((agent, certificate))
        self.agents.end(timeout_s=30)


def warm_times(bench: Bench, crowd: Crowd, count: int) -> list[float]:
    """Return the seconds of five warm ssh, with so many other machines in the state directory."""
    crowd.change(count)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        bench.run(*bench.ours, "true")
        times.append(time.perf_counter() - start)
    return times[1:]  # the first one checks the new files


def row_thousand(bench: Bench) -> Iterator[Figure]:
    """1,000 machines in the state directory"""
    bench.warm_up()
    crowd = Crowd(bench)
    found: dict[str, list[float]] = {"one": [], "thousand": []}
    for _ in range(max(2, bench.rounds // 5)):
        for name, count in (("one", 0), ("thousand", 999)):
            found[name] += warm_times(bench, crowd, count)
    crowd.change(0)
    yield compare("thousand", "warm ssh with 1,000 machines", "with one", 1.08,
                  found["thousand"], found["one"])  # fmt: skip


def row_agents(bench: Bench) -> Iterator[Figure]:
    """the private agents of 31 sessions: processes and their own memory"""
    bench.user.end_agents()
    forget(bench)
    bench.warm_up()
    crowd = Crowd(bench)
    crowd.change(30)
    pids = [agent_pid(path) for path in crowd.agents.paths()]
    memory = sum(own_memory(pid) for pid in pids if pid is not None)
    crowd.change(0)
    yield compare("agents", "agents of 31 machines", "four", 1.0, [float(len(pids))], [4.0],
                  unit="processes")  # fmt: skip
    yield compare("agents", "memory of their own", "8 MiB", 1.0, [memory], [8.0], unit="MiB")


def row_list(bench: Bench) -> Iterator[Figure]:
    """10,000 machines: list, config-ssh, and a short name"""
    small, large = account_times(bench, 1000), account_times(bench, 10_000)
    yield compare("list", "config-ssh with 10,000 machines", "2 s", 1.0,
                  large["config-ssh"], [2.0])  # fmt: skip
    for command in ("list", "config-ssh"):
        yield compare("list", f"{command} with 10,000 machines", "ten times 1,000 (linear)", 1.0,
                      large[command], [10 * small[command][0]])  # fmt: skip
    yield compare("list", "ssh's own parse, 10,000 listed", "1 s", 1.0, large["parse"], [1.0])
    yield compare("list", "warm prepare of a short name of 10,000", "of a complete name", 1.3,
                  large["short"], large["complete"])  # fmt: skip


def account_times(bench: Bench, count: int) -> dict[str, list[float]]:
    """Return the seconds that commands take for an account with so many machines."""
    names = [f"dm-l{number:05}" for number in range(count)]
    directory = bench.root / f"list{count}"
    directory.mkdir()
    emulator = Emulator(directory, *(word for n in names for word in ("--machine", n)),
                        *bench.arguments)  # fmt: skip
    user = User()
    times: dict[str, list[float]] = {}
    hosts = {"complete": names[-1], "short": f"dm-{names[-1][-4:]}"}
    try:
        user.settings("reuse_seconds = 3600\n")
        user.use(emulator, config=False)
        ssh_config = ["--ssh-config", str(user.config)]
        for command, words in {"config-ssh": ["config-ssh", *ssh_config], "list": ["list"]}.items():
            start = time.perf_counter()
            assert user.proxy(*words).returncode == 0
            times[command] = [time.perf_counter() - start]
        start = time.perf_counter()
        assert user.ssh("-G", "other.example").returncode == 0
        times["parse"] = [time.perf_counter() - start]
        for host in [*hosts.values()] * 2:
            assert user.ssh(host, "true").returncode == 0
        prepare = {what: [*BARE[:3], str(START), "--home", str(user.state), "--config",
                          str(user.root / "config.toml"), "prepare", host]
                   for what, host in hosts.items()}  # fmt: skip
        times |= interleave(
            {what: (lambda w=words: ignore(user.run(w))) for what, words in prepare.items()},
            bench.rounds,
        )
    finally:
        user.close()
        emulator.stop()
    return times


ROWS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    name.removeprefix("row_"): row for name, row in list(globals().items())
    if name.startswith("row_")
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (all)")
    parser.add_argument("--rounds", type=int, default=15, help="how often to measure (15)")
    parser.add_argument("--gib", type=float, default=2, help="how much to move (2 GiB)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw the ratios, and how cost grows"
    )
    parser.add_argument(
        "--memory-plot", type=Path, metavar="FILE.svg", help="draw what the row renewal measures"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    figures, growth = measure(arguments)
    if arguments.json:
        rows = [asdict(figure) for figure in figures]
        arguments.json.write_text(json.dumps({"figures": rows, "growth": growth}, indent=2))
    if arguments.plot:
        plot(figures, growth, arguments.plot)


def measure(arguments: argparse.Namespace) -> tuple[list[Figure], Growth]:
    figures, growth = [], {}
    print(f"{'':4} {'ratio':>7} {'target':>8}  what / yardstick  (medians, quartiles)")
    with tempfile.TemporaryDirectory(prefix="dcs-bench.") as name:
        root = Path(name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "key"],
                       check=True)  # fmt: skip
        key = (root / "key.pub").read_text().strip()
        with authorised_sshd(root, authorized_keys=[key]) as (sshd, extra):
            (root / "main").mkdir()
            emulator = Emulator(root / "main", "--machine", "dm-foo", *extra)
            user = User()
            try:
                user.settings("reuse_seconds = 3600\n")
                bench = Bench(root, user.use(emulator), extra, sshd.port)
                bench.rounds, bench.gib = arguments.rounds, arguments.gib
                bench.memory_plot = arguments.memory_plot
                for row in arguments.rows or ROWS:
                    for figure in ROWS[row](bench):
                        show(figure)
                        figures.append(figure)
                if arguments.plot:
                    growth = grow(bench)
            finally:
                user.close()
                emulator.stop()
    return figures, growth


def show(figure: Figure) -> None:
    def spread(values: tuple[float, float, float]) -> str:
        low, middle, high = values
        return f"{middle:.4g} {figure.unit} ({low:.4g} to {high:.4g})"

    sign = ">=" if figure.higher_is_better else "<="
    print(
        f"{'ok' if figure.is_met else 'MISS':4} {figure.ratio:7.3f} {sign} {figure.target:5.2f}  "
        f"{figure.what} / {figure.yardstick}: {spread(figure.value)} / {spread(figure.against)}",
        flush=True,
    )


Growth = dict[str, dict[str, list[float]]]


def grow(bench: Bench) -> Growth:
    """Measure how the cost grows with parallel connections and with machines."""
    connections: dict[str, list[float]] = {"ours": [], "plain": []}
    with hundred(bench) as ways:
        for count in AT_ONCE:
            for name, commands in ways.items():
                times = [at_once(bench, commands[:count])[0] for _ in range(3)]
                connections[name].append(statistics.median(times))
    bench.warm_up()
    crowd = Crowd(bench)
    machines: dict[str, list[float]] = {"ours": []}
    for count in MACHINES:
        machines["ours"].append(statistics.median(warm_times(bench, crowd, count - 1)))
    crowd.change(0)
    return {"connections": connections, "machines": machines}


def plot(figures: list[Figure], growth: Growth, path: Path) -> None:
    """Draw the ratios, and how the cost grows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    _, (ratios, *curves) = pyplot.subplots(
        3, 1, figsize=(10, 0.35 * len(figures) + 9), height_ratios=[0.35 * len(figures) + 1, 4, 4]
    )
    labels = [f"{figure.what} / {figure.yardstick}" for figure in figures]
    colours = ["tab:green" if figure.is_met else "tab:red" for figure in figures]
    ratios.barh(labels, [figure.ratio for figure in figures], color=colours)
    ratios.plot([figure.target for figure in figures], labels, "k|", markersize=14, label="target")
    ratios.axvline(1, color="grey", linewidth=0.5)
    ratios.invert_yaxis()
    ratios.set_xlabel("ratio against the yardstick")
    ratios.legend()
    kinds = (
        ("connections", AT_ONCE, "connections at once"),
        ("machines", MACHINES, "machines in the state directory, warm ssh to one of them"),
    )
    for axes, (kind, counts, label) in zip(curves, kinds, strict=True):
        for name, seconds in growth[kind].items():
            axes.plot(counts, seconds, marker="o", label=name)
        axes.set(xlabel=label, ylabel="seconds", ylim=(0, None))
        axes.legend()
    pyplot.tight_layout()
    pyplot.savefig(path)


if __name__ == "__main__":
    main()
