from __future__ import annotations

import os
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.doctor.redact import mask, mask_url, secrets_in_url
from dcs_proxy.text import MASK


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:pw@proxy:3128", "http://[masked]@proxy:3128"),
        ("at http://me:p@w@proxy/a b", "at http://[masked]@proxy/a b"),
        ("HTTPS_PROXY='http://tok@proxy'", "HTTPS_PROXY='http://[masked]@proxy'"),
        ("HTTPS_PROXY=me:pw@proxy:3128", "HTTPS_PROXY=[masked]@proxy:3128"),
        ("https://h/p?a=1&api_key=x&b=2", "https://h/p?a=1&api_key=[masked]&b=2"),
        ("https://h/p?Access-Token=x", "https://h/p?Access-Token=[masked]"),
        ("https://h/v1/machines?limit=1", "https://h/v1/machines?limit=1"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("2026-01-01T00:00:00.000Z [1/2] ready me@host", None),
    ],
)
def test_urls_lose_what_opens_doors(text: str, masked: str | None) -> None:
    assert mask(text, ()) == (masked or text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key dsk-abc_DEF-1.2 end", "key dsk-[masked] end"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [masked]"),
        ("X-API-Key: abc", "X-API-Key: [masked]"),
        ("the secret hunter22 and hunter22x", "the secret [masked] and [masked]x"),
        ("pw2 and pw23, pw2.", "[masked] and pw23, [masked]."),
        ("ab stays", "ab stays"),
        ('a value that "hunter\'22"', 'a value that "[masked]"'),
    ],
)
def test_what_is_known_or_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    assert mask(text, {"hunter22", "hunter2", 'hunter"22', "pw2", "ab", ""}) == masked


def test_a_secret_that_is_part_of_another_leaves_nothing_of_it() -> None:
    assert mask("a-zsecret-b", {"zsecret", "a-zsecret-b"}) == MASK


@given(st.text(), st.text(alphabet="abcdefgh0123-_@:/?=&", min_size=6), st.text())
def test_a_known_secret_is_gone_wherever_it_stands(before: str, secret: str, after: str) -> None:
    assert secret not in mask(f"{before}{secret}{after}".replace("[masked]", ""), {secret})


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://me:pw@proxy:3128", "http://[masked]@proxy:3128"),
        ("http://me:p'w\"/x#?@y@proxy:3128", "http://[masked]@proxy:3128"),
        ("me:p/w@proxy:3128", "[masked]@proxy:3128"),
        ("http://me:pw://x@proxy", "http://[masked]@proxy"),
        ("socks5://tok en@proxy", "socks5://[masked]@proxy"),
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/?token=abc", "http://proxy:3128/?token=[masked]"),
        ("localhost,.example", "localhost,.example"),
    ],
)
def test_a_url_is_masked_up_to_its_last_at_sign(url: str, masked: str) -> None:
    assert mask_url(url) == masked


PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6)


@given(PASSWORDS)
def test_a_password_is_known_in_every_form(password: str) -> None:
    known = secrets_in_url(f"http://user:{password}@proxy:3128")
    quoted = quote(unquote(password), safe="")
    for form in (password, unquote(password), quoted, password.replace('"', "'")):
        assert form not in mask(f"it says: {form}!", known).replace(MASK, "")
    assert secrets_in_url("http://proxy:3128") == set()


def test_a_password_that_is_no_utf8_is_masked() -> None:
    url = os.fsdecode(b"http://me:\xffsecret@proxy")
    assert os.fsdecode(b"\xffsecret") in secrets_in_url(url)
    assert mask(url, secrets_in_url(url)) == "http://[masked]@proxy"


@pytest.mark.parametrize("unit", ["?key", "&key?", "://a@", "=a:", " a:b", "?x=", "&keykey"])
def test_no_text_makes_the_search_slow(unit: str) -> None:
    """A cubic pattern took 19 s for 54 lines; it would not come to the end of this."""
    mask(unit * 50_000, [])


def test_a_user_without_a_password_is_the_secret() -> None:
    assert secrets_in_url("https://p%40ss@api.example") >= {"p%40ss", "p@ss"}
    assert secrets_in_url("https://me:p%40ss@api.example") >= {"me:p%40ss", "p%40ss", "p@ss"}
    assert secrets_in_url("http://me:pw://x@proxy") >= {"me:pw://x", "pw://x"}
    assert secrets_in_url("me:p%40ss@proxy:3128") >= {"me:p%40ss", "p%40ss", "p@ss"}
    assert secrets_in_url("https://api.example/p%40ss") == set()
