from __future__ import annotations

import errno
import resource

import pytest

from dcs_proxy.errors import ConfigError
from dcs_proxy.local.limits import NEEDED, explain_shortage, require_open_files

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [
        (1024, 4096, None),
        (NEEDED, NEEDED, None),
        (UNLIMITED, UNLIMITED, None),
        (10, 4096, (NEEDED, 4096)),
        (10, NEEDED, (NEEDED, NEEDED)),
        (10, UNLIMITED, (NEEDED, UNLIMITED)),
    ],
)
def test_a_low_limit_is_raised_where_that_is_permitted(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, then: tuple[int, int] | None
) -> None:
    asked: list[tuple[int, int]] = []
    of = resource.RLIMIT_NOFILE
    monkeypatch.setattr(resource, "getrlimit", {of: (soft, hard)}.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, to: asked.append({of: to}[kind]))
    require_open_files()
    assert asked == ([] if then is None else [then])


def test_a_limit_that_cannot_be_raised_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    with pytest.raises(ConfigError, match=r"may open only 10 files \(ulimit -n\)") as caught:
        require_open_files()
    assert caught.value.message.endswith("dcs-proxy needs 64")
    assert "LimitNOFILE" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "there is not enough memory (ulimit -v is 58)"),
        (OSError(errno.ENOMEM, "no"), "there is not enough memory (ulimit -v is 58)"),
        (ImportError("x.so: failed to map segment from shared object: Cannot allocate memory"),
         "there is not enough memory (ulimit -v is 58)"),
        (RuntimeError("can't start new thread"),
         "the system starts no more threads or processes (ulimit -u is 7, ulimit -v is 58)"),
        (BlockingIOError(errno.EAGAIN, "fork"),
         "the system starts no more threads or processes (ulimit -u is 7, ulimit -v is 58)"),
        (RuntimeError("another"), None),
        (RuntimeError("Cannot allocate memory"), None),
        (ValueError("can't start new thread"), None),
        (BlockingIOError(errno.EALREADY, "connect"), None),
        (OSError(errno.ENOSPC, "no"), None),
        (ImportError("no module"), None),
    ],
)  # fmt: skip
def test_a_shortage_is_named_with_the_limits_that_are_set(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str | None
) -> None:
    limits = {resource.RLIMIT_AS: 58 * 1024, resource.RLIMIT_NPROC: 7}
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (limits.get(kind, UNLIMITED), UNLIMITED)
    )
    shortage = explain_shortage(error)
    assert (shortage and shortage.message) == said
    assert shortage is None or "raise the limit where it is set" in shortage.hint
    limits.clear()
    shortage = explain_shortage(error)
    assert (shortage and shortage.message) == (said and said.partition(" (")[0])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "ulimit -d is 3"),
        (ImportError("Cannot allocate memory"), "ulimit -d is 3"),
        (RuntimeError("can't start new thread"), "ulimit -u is 0, ulimit -d is 3"),
    ],
)
def test_a_limit_of_data_alone_and_one_of_nothing_are_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    limits = {resource.RLIMIT_DATA: 3 * 1024, resource.RLIMIT_NPROC: 0}
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (limits.get(kind, UNLIMITED), UNLIMITED)
    )
    shortage = explain_shortage(error)
    assert shortage is not None and shortage.message.endswith(f" ({said})")
