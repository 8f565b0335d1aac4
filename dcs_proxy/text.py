"""Make text from others safe for a terminal, a log, a disconnect message or a file.

All text that the program shows passes through here: what the API and the gateway sent, typed names,
the output of other programs.  Control characters and bidirectional overrides are removed, quoted
text cannot end its quotation, long text is cut, and every secret that the program knows is replaced
by ``[masked]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "[masked]"
SERVER_TEXT_LIMIT = 200
# The longest error, hint or notice.
LINE_LIMIT = 1000
_TYPED_LIMIT = 80
# A shorter secret could be part of an ordinary word, so it is masked only as a word of its own.
_LEAST_INSIDE = 6
# An even shorter one could be guessed from the places where it is masked.
_LEAST = 4
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")
# Quotation marks, and characters that look like them.
_QUOTES = dict.fromkeys(map(ord, "\"\u02ba\u02dd\u02ee\u201c\u201d\u201e\u201f\u2033\u2036\u275d"
                                 "\u275e\u301d\u301e\u301f\uff02"), "'")  # fmt: skip

# They count as printable but show nothing, or an empty cell.  A row of them would push what follows
# to the beginning of the next line on a screen, where it could pose as ours.
_EMPTY = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
                    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]")  # fmt: skip

# The secrets of this process, in each form in which a server may send them back.
_secrets: set[str] = set()


def add_secret(secret: str) -> None:
    """Mask `secret` from now on, also in its URL-encoded and JSON-encoded forms.

    A secret of fewer than four characters is ignored.
    """
    if len(secret) >= _LEAST:
        _secrets.update((secret, quote(secret, safe=""), json.dumps(secret)[1:-1]))


def mask(text: str) -> str:
    """Return `text` with the secrets of this process masked."""
    return replace_secrets(text, _secrets)


def replace_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with `secrets` masked, short ones only where they are words of their own."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret not in text:
            continue
        if len(secret) >= _LEAST_INSIDE:
            text = text.replace(secret, MASK)
        else:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    return text


def clean_text(text: str, limit: int = SERVER_TEXT_LIMIT) -> str:
    """Return `text` on one line, masked, without control or format characters, cut to `limit`.

    Each run of characters that are empty or that :meth:`str.isprintable` rejects, such as terminal
    escapes, bidirectional overrides and line separators, becomes one space.
    """
    head = mask(text)[: 4 * limit]
    words = "".join(c if c.isprintable() else " " for c in _EMPTY.sub(" ", head)).split()
    line = " ".join(words)
    return _cut(line, limit)


def quote_server(text: str, limit: int = SERVER_TEXT_LIMIT) -> str:
    """Return untrusted text, from a server or the command line, cleaned and in quotation marks.

    Quotation marks in it become apostrophes, so that it cannot end the quotation and continue as if
    it were our message.
    """
    return f'"{clean_text(text, limit).translate(_QUOTES)}"'


def quote_typed(text: str) -> str:
    """Return what the user typed, in quotation marks.

    Spaces stay, and each unprintable character is shown as ``?``, so that the user sees its place.
    """
    line = safe_line(text.replace("\t", "?"), _TYPED_LIMIT)
    return f'"{line.translate(_QUOTES)}"'


def as_word(text: str, limit: int = 60) -> str:
    """Return an identifier, such as an error code, without quotation marks; quote anything else."""
    return clean_text(text, limit) if _WORD.match(text) else quote_server(text, limit)


def safe_line(text: str, limit: int | None = None) -> str:
    """Return a line as it may be shown: masked, ``?`` for each empty or unprintable character.

    Unlike :func:`clean_text` it keeps spaces and tabs.  Cut to `limit`, if there is one.
    """
    text = _EMPTY.sub("?", mask(text))
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
    return text if limit is None else _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    """Return `text`, with a mark at its end if it is cut to `limit`."""
    # The mark is ASCII, because ssh prints other characters as octal numbers.
    return text if len(text) <= limit else (text[: max(0, limit - 3)] + "...")[:limit]
