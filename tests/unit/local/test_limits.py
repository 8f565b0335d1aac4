from __future__ import annotations

import resource

import pytest

from dcs_proxy.errors import ConfigError
from dcs_proxy.local.limits import NEEDED, require_open_files

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
