"""The API through an HTTP proxy: the config file's, or the environment's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.http import HttpClient
from dcs_proxy.emulator.loopback import closed_port
from dcs_proxy.emulator.tls import make_context
from dcs_proxy.errors import ApiUnavailable
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from tests.connect_proxy import ConnectProxy, connect_proxy
from tests.fake_api import Answer, FakeApi, fake_api


class NoWaits(Deadline):
    def sleep(self, seconds: float) -> None:
        """Go on at once."""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """An API that only a proxy finds: its name is known nowhere."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls.pem"))
    with fake_api(make_context(str(tmp_path / "tls.pem"), "api.test")) as api:
        api.answers = [Answer(200, {})]
        yield api


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with connect_proxy() as running:
        yield running


def ask(api: FakeApi, tmp_path: Path, proxy: HttpProxy | None) -> None:
    settings = replace(Settings(base_url=f"https://api.test:{api.port}"), proxy=proxy)
    log = Log(str(tmp_path / "log"))
    credentials = Credentials("dsk-key", None, "a test")
    exchange = HttpClient(settings, credentials, NoWaits(60), log, lambda _: None)
    exchange.ask("GET", "/v1/machines", machine=None)


def test_the_api_is_asked_through_the_proxy_of_the_config_file(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the environment says does not apply then.
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", "*")
    ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port))
    assert proxy.targets == [f"api.test:{api.port}"]
    assert api.asked[0].headers["authorization"] == "Bearer dsk-key"
    # The proxy sees neither the key nor what is asked.
    assert "dsk-key" not in proxy.asked[0]


def test_without_the_setting_the_environments_proxy_is_used(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    ask(api, tmp_path, None)
    assert proxy.targets == [f"api.test:{api.port}"]


def test_an_api_on_this_computer_is_asked_directly(proxy: ConnectProxy, tmp_path: Path) -> None:
    with fake_api() as api:
        api.answers = [Answer(200, {})]
        settings = Settings(base_url=api.url, proxy=HttpProxy("127.0.0.1", proxy.port))
        log = Log(str(tmp_path / "log"))
        exchange = HttpClient(
            settings, Credentials("k", None, ""), NoWaits(60), log, lambda _: None
        )
        exchange.ask("GET", "/v1/machines", machine=None)
        assert len(api.asked) == 1
    assert not proxy.asked


def test_user_and_password_are_sent_to_the_proxy_and_shown_to_nobody(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path
) -> None:
    proxy.token = base64.b64encode(b"me:pass word@:").decode()
    ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port, "me", "pass word@:"))
    assert "Basic" not in str(api.asked[0].headers)
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port, "me", "wr0ng"))
    assert caught.value.message == (
        f"the API at https://api.test:{api.port} (through the HTTP proxy {proxy.url}) cannot be "
        'reached: the proxy answers "407 Proxy Authentication Required"'
    )
    assert "proxy in the config file" in caught.value.hint
    assert "wr0ng" not in caught.value.one_line() + (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("answer", "said", "tries"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 'the proxy answers "403 Forbidden"', 1),
        (b"HTTP/1.1 502 \x1b[31mBad\r\n\r\n", 'the proxy answers "502 [31mBad"', 4),
        (b"HTTP/1.1 407 no wr0ng here\r\n\r\n", 'the proxy answers "407 no [password] here"', 1),
    ],
)
def test_what_the_proxy_answers_is_told_and_decides_whether_to_try_again(
    api: FakeApi, proxy: ConnectProxy, tmp_path: Path, answer: bytes, said: str, tries: int
) -> None:
    proxy.answer = answer
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, HttpProxy("127.0.0.1", proxy.port, "me", "wr0ng"))
    assert said in caught.value.message
    assert len(proxy.asked) == tries


def test_a_proxy_that_is_not_there_is_named(api: FakeApi, tmp_path: Path) -> None:
    port = closed_port()
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, HttpProxy("127.0.0.1", port))
    said = f"(through the HTTP proxy http://127.0.0.1:{port}) cannot be reached: the proxy: Conn"
    assert said in caught.value.message


def test_an_environments_proxy_with_a_password_is_not_shown(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:wr0ng@127.0.0.1:{closed_port()}")
    with pytest.raises(ApiUnavailable) as caught:
        ask(api, tmp_path, None)
    assert "cannot be reached: the proxy: Connection refused" in caught.value.message
    assert "proxy variables" in caught.value.hint
    assert "wr0ng" not in caught.value.one_line()
