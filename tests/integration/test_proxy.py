"""Everything through an HTTP proxy, as the config file says: names that only the proxy knows."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.fastpath.helper import ADDRESS
from tests.support.connect_proxy import ConnectProxy, connect_proxy
from tests.support.emulator import Emulator
from tests.support.secret_watch import SecretWatch
from tests.support.user import User

Start = Callable[..., Emulator]


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with connect_proxy() as running:
        yield running


@pytest.fixture
def emulator(start_emulator: Start, user: User, proxy: ConnectProxy, tmp_path: Path) -> Emulator:
    """An API and a gateway that the user reaches through the proxy alone."""
    emulator = start_emulator(
        "--machine", "dm-foo:sleeping", "--wake-seconds", "0.5", "--endpoint", "ssh.test",
        "--tls", str(tmp_path / "tls.pem"), "--tls-name", "api.test",
    )  # fmt: skip
    user.environment["REQUESTS_CA_BUNDLE"] = str(tmp_path / "tls.pem")
    emulator.api = emulator.api.replace("localhost", "api.test")
    user.settings(f'proxy = "{proxy.url}"\n')
    return emulator


def test_a_machine_wakes_and_lets_in_through_the_proxy(
    emulator: Emulator, proxy: ConnectProxy, user: User
) -> None:
    user.use(emulator)
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert done.stderr == "dcs-proxy: dm-foo: waking up, at most 300 s\n"
    gateway = f"ssh.test:{emulator.ready['gateway']}"
    # Once for the question whether the woken machine answers, once for ssh itself.
    assert proxy.targets.count(gateway) == 2
    assert set(proxy.targets) == {gateway, emulator.api.removeprefix("https://")}


def test_a_warm_ssh_goes_through_the_proxy_too(
    emulator: Emulator, proxy: ConnectProxy, user: User
) -> None:
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    for way in ("ProxyUseFdpass=yes", "ProxyUseFdpass=no"):
        proxy.asked.clear()
        assert user.ssh("-o", way, "dm-foo", "echo in").stdout == "in\n"
        # The session of an ssh that has ended may be asked about first.
        gateway = f"ssh.test:{emulator.ready['gateway']}"
        assert proxy.targets[-1] == gateway and proxy.targets.count(gateway) == 1


def test_a_proxy_that_is_set_later_is_not_passed_by(
    start_emulator: Start, proxy: ConnectProxy, user: User
) -> None:
    # `localhost` is reached without it, so the warm line of a name that is not must be made up.
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    warm = user.state / "sessions" / "dm-foo.warm"
    assert warm.read_text().split("\0")[ADDRESS]
    record = user.state / "sessions" / "dm-foo.json"
    record.write_text(record.read_text().replace('"localhost"', '"ssh.test"'))
    user.settings(f'proxy = "{proxy.url}"\n')
    done = user.ssh("dm-foo", "true")
    assert warm.read_text().split("\0")[ADDRESS] == ""
    assert proxy.targets == [f"ssh.test:{emulator.ready['gateway']}"]
    # The gateway is not ssh.test, which is found out.
    assert done.returncode == 255


def test_user_and_password_reach_the_proxy_and_nobody_else(
    emulator: Emulator, proxy: ConnectProxy, user: User
) -> None:
    proxy.token = base64.b64encode(b"me:pr0xy pass").decode()
    user.settings(f'proxy = "http://me:pr0xy%20pass@127.0.0.1:{proxy.port}"\n')
    (user.root / "config.toml").chmod(0o600)
    with SecretWatch("pr0xy", emulator.process.pid) as watch:
        user.use(emulator)
        done = user.ssh("dm-foo", "echo in")
    assert done.stdout == "in\n", done.stderr
    assert not watch.found
    files = [path for path in user.root.rglob("*") if path.is_file()]
    assert [path.name for path in files if b"pr0xy" in path.read_bytes()] == ["config.toml"]


def test_a_proxy_that_wants_a_password_is_named_with_what_it_says(
    emulator: Emulator, proxy: ConnectProxy, user: User
) -> None:
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    proxy.token = "wanted"
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert (
        f"dcs-proxy: dm-foo: the gateway ssh.test:{emulator.ready['gateway']} cannot be reached: "
        f'the HTTP proxy {proxy.url} answered "HTTP/1.1 407 Proxy Authentication Required"\n'
    ) in done.stderr
    assert (
        'hint: set the login in the config file: proxy = "http://user:password@host:port"'
        in done.stderr
    )


def test_doctor_goes_through_the_proxy_as_ssh_does(
    emulator: Emulator, proxy: ConnectProxy, user: User
) -> None:
    user.use(emulator)
    done = user.proxy("doctor", "--ssh-config", str(user.config), "dm-foo")
    assert (
        f"gateway         ssh.test port {emulator.ready['gateway']} through {proxy.url}"
        in done.stdout
    )
    assert done.returncode == 0, done.stdout


def test_login_checks_the_key_through_the_proxy(
    emulator: Emulator, proxy: ConnectProxy, user: User
) -> None:
    user.environment["DEDALUS_BASE_URL"] = emulator.api
    user.settings(f'proxy = "{proxy.url}"\nkey_file = "{user.root}/key"\n')
    done = user.proxy("login", "--stdin", "--file", "--yes", input=emulator.key)
    assert done.returncode == 0, done.stderr
    assert proxy.targets == [emulator.api.removeprefix("https://")]


def test_the_emulator_is_reached_without_the_proxy(
    start_emulator: Start, proxy: ConnectProxy, user: User
) -> None:
    user.settings(f'proxy = "{proxy.url}"\n')
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5"))
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    assert not proxy.asked
