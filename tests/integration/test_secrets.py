"""No private key on disk at any moment, no API key anywhere."""

from __future__ import annotations

import base64
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.app import program_words
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]

# Loaded by every Python of the user before anything else: keys come from a known seed, and every
# file that is opened for writing is noted.
_SPY = """
import os, sys
log = os.environ["SPY_LOG"]
def note(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, (str, bytes)) and isinstance(flags, int):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                fd = os.open(log, os.O_WRONLY | os.O_APPEND)
                os.write(fd, os.fsencode(path) + b"\\n")
                os.close(fd)
_busy = False
def hook(event, arguments):
    global _busy
    if not _busy:
        _busy = True
        try:
            note(event, arguments)
        finally:
            _busy = False
sys.addaudithook(hook)
"""
_SEED = bytes(range(101, 133))
_KNOWN_KEY = f"""
import cryptography.hazmat.primitives.asymmetric.ed25519 as ed25519
_real = ed25519.Ed25519PrivateKey
class Known:
    @staticmethod
    def generate():
        return _real.from_private_bytes(bytes.fromhex("{_SEED.hex()}"))
ed25519.Ed25519PrivateKey = Known
"""


class Watch:
    """Reads every file below some directories, over and over, until it is told to stop."""

    def __init__(self, roots: list[Path], needles: list[bytes]) -> None:
        self.roots = roots
        self.needles = needles
        self.found: set[str] = set()
        self.rounds = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.ended.is_set():
            self.look()

    def look(self) -> None:
        for root in self.roots:
            for path in root.rglob("*"):
                try:
                    data = path.read_bytes() if path.is_file() else b""
                except OSError:
                    continue
                if any(needle in data for needle in self.needles):
                    self.found.add(str(path))
        self.rounds += 1

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()
        self.look()


# Then the program, as start.py runs it.
_RUN = """
import runpy
runpy.run_module("dcs_proxy", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def spied(user: User, tmp_path: Path) -> Iterator[User]:
    """A user whose key's seed is known and whose written files are noted."""
    place = tmp_path / "spy"
    place.mkdir()
    (place / "program.py").write_text(_SPY + _KNOWN_KEY + _RUN)
    (place / "log").touch()
    user.environment |= {"SPY_LOG": str(place / "log"), "PYTHONDONTWRITEBYTECODE": "1"}
    yield user


def use_spy(user: User, place: Path) -> None:
    """Let the launcher start the full program with the spy in it: the program is isolated."""
    launcher = user.state / "launcher"
    words = shlex.join(program_words()[1:])
    text = launcher.read_text()
    assert words in text
    launcher.write_text(text.replace(words, shlex.quote(str(place / "program.py"))))


def encodings(secret: bytes) -> list[bytes]:
    """Return a secret as it may be found: raw, hexadecimal, and in each phase of base64."""
    found = [secret, secret.hex().encode()]
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + secret)
        found.append(text[4:-4])
    return found


def test_no_private_key_is_on_disk_at_any_moment(
    start_emulator: Start, spied: User, tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    needles = [*encodings(_SEED), b"PRIVATE KEY", b"openssh-key-v1"]
    watch = Watch([spied.root], needles)
    spied.use(emulator)
    use_spy(spied, tmp_path / "spy")
    done = spied.ssh("dm-foo", "echo in")
    watch.stop()
    assert done.stdout == "in\n", done.stderr
    assert spied.record("dm-foo")["attempt"]["public_key"], "the known key was not used"
    assert watch.rounds > 1
    # The bridge's host keys open no machine.
    found = {path for path in watch.found if "bridge_" not in os.path.basename(path)}
    assert not found
    written = set((tmp_path / "spy" / "log").read_text().splitlines())
    elsewhere = {
        path for path in written
        if not path.startswith((str(spied.root), "/dev/", "/proc/"))
    }  # fmt: skip
    assert written
    assert not elsewhere


def test_a_planted_secret_is_found_by_the_watch(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(base64.b64encode(b"x" + _SEED))
    watch = Watch([tmp_path], encodings(_SEED))
    watch.stop()
    assert watch.found == {str(tmp_path / "key")}


def test_the_api_key_reaches_no_file_and_no_other_process(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    user.use(emulator)
    key = emulator.key.encode()
    watch = Watch([user.root], [key])
    ssh = user.start_ssh("dm-foo", "true")
    seen: set[str] = set()
    while ssh.poll() is None:
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    arguments = (process / "cmdline").read_bytes()
                    program = arguments.split(b"\0")[0]
                    if key in arguments:
                        seen.add(f"arguments of {program!r}")
                    if program.endswith(b"ssh-agent") and (
                        key in (process / "environ").read_bytes()
                    ):
                        seen.add("environment of the agent")
                except OSError:
                    continue
    out, errors = ssh.communicate()
    watch.stop()
    assert ssh.returncode == 0, errors
    assert not seen
    assert not watch.found
    assert key not in out + errors


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_cannot_reach_the_private_agent(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    environment = {**user.environment, "SSH_AUTH_SOCK": user.agent()}
    assert user.run(["ssh-add", "-l"], env=environment).returncode == 0
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for path in (user.root, user.state, user.state / "sockets"):
        # The directories that lead there are opened one by one: each lock holds alone.
        assert user.run([*somebody, "ssh-add", "-l"], env=environment).returncode == 2
        path.chmod(0o755)
    assert user.run([*somebody, "ssh-add", "-l"], env=environment).returncode != 0


def test_everything_in_the_state_directory_is_ours_alone(start_emulator: Start, user: User) -> None:
    old = os.umask(0o002)
    try:
        user.use(start_emulator("--machine", "dm-foo"))
        assert user.ssh("dm-foo", "true").returncode == 0
    finally:
        os.umask(old)
    modes = {str(p): p.stat().st_mode & 0o777 for p in [user.state, *user.state.rglob("*")]}
    wrong = {
        path: oct(mode) for path, mode in modes.items()
        if mode != (0o700 if Path(path).is_dir() else 0o600)
    }  # fmt: skip
    assert len(modes) > 5
    assert not wrong


@pytest.mark.parametrize("fault", ["mode", "owner", "directory"])
def test_a_config_file_of_others_does_not_say_where_the_key_is_sent(
    start_emulator: Start, user: User, fault: str
) -> None:
    if fault == "owner" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    emulator = start_emulator("--machine", "dm-foo")
    config = user.root / "settings" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'base_url = "{emulator.api}"\n')
    user.environment["DCS_PROXY_CONFIG"] = str(config)
    user.use(emulator)
    del user.environment["DEDALUS_BASE_URL"]
    before = emulator.events()
    if fault == "owner":
        os.chown(config, 65534, -1)
    else:
        (config if fault == "mode" else config.parent).chmod(0o777)
    said = "belongs to another user" if fault == "owner" else "is writable by other users"
    for command in (["list"], ["doctor"], ["prepare", "dm-foo"], ["login", "--stdin", "--yes"]):
        done = user.proxy(*command, input=emulator.key)
        assert done.returncode != 0
        assert said in done.stdout + done.stderr, command
    assert said in user.ssh("dm-foo", "true").stderr
    assert emulator.events() == before
