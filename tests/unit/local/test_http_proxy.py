from __future__ import annotations

import base64
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.utils import get_auth_from_url

from dcs_proxy.local.http_proxy import HttpProxy, authority, parse_http_proxy
from dcs_proxy.ssh.tunnel import connect_request
from dcs_proxy.text import mask

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example:3128/", "http://proxy.example:3128"),
        ("http://PROXY:80", "http://proxy:80"),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("http://me:secret@10.0.0.1:3128", "http://10.0.0.1:3128"),
    ],
)
def test_a_proxy_is_shown_by_its_address_alone(text: str, shown: str) -> None:
    proxy = parse_http_proxy(text)
    assert str(proxy) == shown
    assert "secret" not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        "", "proxy:3128", "proxy.example:3128", "https://proxy:3128", "socks5://proxy:1080",
        "http://proxy", "http://:3128", "http://proxy:0", "http://proxy:port", "http://proxy:99999",
        "http://proxy:3128/path", "http://proxy:3128?a", "http://proxy:3128#a", "http://a b:3128",
        "http://proxy:3128\r\nX: y", "http://[::1:3128", "http://[x]:3128", "http://pr\u00f6xy:80",
        "http://:secret@proxy:3128", "http://me%3Ax:secret@proxy:80", "http://me:s%0d%0a@proxy:80",
        "http://me:s%c3%bc@proxy:80", "http://pro\nxy:3128", "http://proxy:3128\t", "http://proxy:80/\n",
    ],
)  # fmt: skip
def test_what_is_no_proxy_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_http_proxy(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "http://me:a#b@proxy:3128",
            "has a user or password with #, / or ?: write %23, %2F or %3F",
        ),
        ("http://me:1/b@proxy:3128", "has a user or password with #, / or ?"),
        ("http://me:a?b@proxy:3128", "has a user or password with #, / or ?"),
        ("http://a..b:3128", "has an impossible host or port"),
        ("http://proxy:99999", "has an impossible host or port"),
        (f"http://{'a' * 64}:80", "has an impossible host or port"),
        ("http://proxy:3128/path", "has something after the port"),
        ("https://proxy:3128", 'must be "http://host:port"'),
        ("http://proxy", 'must be "http://host:port"'),
        ("http://me:s%c3%bc@proxy:80", "has a user or password with characters that cannot be"),
        ("http://:secret@proxy:80", "has a password but no user"),
    ],
)
def test_what_is_wrong_with_a_proxy_is_said(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        parse_http_proxy(text)


def test_a_port_is_needed_unless_there_is_a_default() -> None:
    assert parse_http_proxy("http://proxy", 80) == HttpProxy("proxy", 80)
    assert parse_http_proxy("http://proxy", 80).url() == "http://proxy:80"
    with pytest.raises(ValueError, match="impossible host or port"):
        parse_http_proxy("http://proxy:0", 80)


@given(PRINTABLE.filter(lambda user: ":" not in user), PRINTABLE)
def test_any_user_and_password_arrive_as_they_are(user: str, password: str) -> None:
    text = f"http://{quote(user, safe='')}:{quote(password, safe='')}@proxy:3128"
    proxy = parse_http_proxy(text)
    assert proxy == HttpProxy("proxy", 3128, user, password)
    assert get_auth_from_url(proxy.url()) == (user, password)
    lines = connect_request(proxy, "gateway:22").decode().split("\r\n")
    token = lines[-3].removeprefix("Proxy-Authorization: Basic ")
    assert base64.b64decode(token).decode() == f"{user}:{password}"


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    for candidate in (text, f"http://{text}:3128", f"http://a:{text}@b:1"):
        try:
            proxy = parse_http_proxy(candidate)
        except ValueError:
            continue
        assert connect_request(proxy, "gateway:22").isascii()
        assert str(proxy).isprintable()


def test_an_address_with_colons_stands_in_brackets() -> None:
    assert authority("fd00::1", 22) == "[fd00::1]:22"
    assert connect_request(HttpProxy("p", 1), "[fd00::1]:22").startswith(
        b"CONNECT [fd00::1]:22 HTTP/1.1\r\nHost: [fd00::1]:22\r\n"
    )


def test_the_password_is_masked_alone_and_as_it_is_sent() -> None:
    proxy = HttpProxy("proxy", 3128, "me", "pass-word/1")
    sent = connect_request(proxy, "gateway:22").decode()
    for text in (sent, proxy.url(), proxy.token(), "said pass-word/1"):
        assert mask(text) != text
        assert "pass-word" not in mask(text) and proxy.token() not in mask(text)


def test_a_proxys_password_is_in_no_representation() -> None:
    assert "s3cret" not in repr(parse_http_proxy("http://me:s3cret@proxy:3128"))
