"""The targets of contrib/dev/fuzz, without the fuzzer: each takes its seed, and a little damage."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from dcs_proxy.session.records import parse_record

Targets = dict[str, tuple[Callable[[bytes], None], bytes]]


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Targets:
    atheris: Any = ModuleType("atheris")
    atheris.instrument_imports = lambda include: contextlib.nullcontext()
    monkeypatch.setitem(sys.modules, "atheris", atheris)
    module = importlib.import_module("contrib.dev.fuzz_targets")
    monkeypatch.delitem(sys.modules, "contrib.dev.fuzz_targets")
    found: Targets = module.TARGETS
    return found


def test_each_target_takes_its_seed_and_pieces_of_it(targets: Targets) -> None:
    for target, seed in targets.values():
        for data in (seed, seed[:-1], seed[1:], seed + seed, b""):
            target(data)


def test_the_seed_of_a_record_is_a_record(targets: Targets) -> None:
    """A search that begins with what no reader takes finds little."""
    assert parse_record(targets["record"][1]) is not None
