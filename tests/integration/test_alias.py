"""dcs-proxy alias: what it writes, what it refuses, and that ssh takes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]
WEB = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
CODE = "017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"


@pytest.fixture
def ready(start_emulator: Start, user: User) -> User:
    emulator = start_emulator("--ids", "uuid", "--machine", WEB, "--machine", CODE)
    user.config = user.home / ".ssh" / "config"
    return user.use(emulator)


def test_an_alias_is_written_used_listed_and_removed(ready: User) -> None:
    file = ready.root / "config.toml"
    before = '# mine\nreuse_seconds = 60 # a minute\n\n[wake]\n"*" = "always"\n'
    file.write_text(before)
    file.chmod(0o600)
    done = ready.proxy("alias", "dm-web", "398f")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"dcs-proxy: dm-web now means dm-{WEB}\n"
        "dcs-proxy: 1 machine is not listed in your ssh config: run dcs-proxy config-ssh\n"
    )
    assert file.read_text() == f'{before}\n[aliases]\ndm-web = "dm-{WEB}"\n'
    assert file.stat().st_mode & 0o777 == 0o600
    assert ready.ssh("dm-web", "echo $DCS_MACHINE").stdout == f"{WEB}\n"
    assert ready.proxy("alias").stdout.splitlines()[1].split() == ["dm-web", f"dm-{WEB}"]
    assert ready.proxy("alias", "dm-web", "c0de").returncode == 0
    assert ready.ssh("dm-web", "echo $DCS_MACHINE").stdout == f"{CODE}\n"
    assert ready.proxy("config-ssh").returncode == 0
    assert "\nHost dm-web\n" in ready.config.read_text()
    assert ready.proxy("alias", "--remove", "web").returncode == 0
    assert file.read_text() == f"{before}\n[aliases]\n"
    assert ready.proxy("alias").stdout == ""


def test_a_missing_file_is_made_for_its_owner_alone(ready: User) -> None:
    ready.environment["XDG_CONFIG_HOME"] = str(ready.home / "xdg")
    del ready.environment["DCS_PROXY_CONFIG"]
    assert ready.proxy("alias", "web", f"dm-{WEB}").returncode == 0
    file = ready.home / "xdg" / "dcs-proxy" / "config.toml"
    assert file.read_text() == f'[aliases]\ndm-web = "dm-{WEB}"\n'
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((f"dm-{CODE}", "398f"), 2, f"dm-{CODE} is the name of a machine"),
        (("dm-web", "beef"), 6, "dm-beef: no such machine"),
        (("dm-web", "07"), 6, "dm-07: no such machine"),
        (("dm-web",), 2, "name the machine as well"),
        (("dm-We!", "398f"), 2, "is not the name of a machine"),
        (("--remove", "dm-web"), 1, "there is no alias dm-web"),
        (("--remove", "dm-web", "dm-x"), 2, "--remove takes no other names"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    ready: User,
    call: Callable[..., CompletedProcess[str]],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    done = call("alias", *arguments)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert (ready.root / "config.toml").read_text() == ""


def test_many_at_once_lose_none(ready: User) -> None:
    names = [f"dm-n{number}" for number in range(6)]
    programs = [
        ready.start(sys.executable, "-m", "dcs_proxy", "alias", name, "c0de") for name in names
    ]
    assert [program.wait(LIMIT_S) for program in programs] == [0] * 6
    lines = ready.proxy("alias").stdout.splitlines()[1:]
    assert sorted(line.split()[0] for line in lines) == names
