"""schemathesis against the emulator: what it makes of the documents, and what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.openapi import CONTRACT, load_whole
from tests.support.processes import clean_environment
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]
# A session that was deleted is still there: closed, as the contract's `status` has it.
NOT_CHECKED = "use_after_free"
HOOKS = str(Path(__file__).with_name("schemathesis_hooks.py"))


def run(emulator: Emulator, document: Path, phases: str, examples: int, *, cwd: Path) -> None:
    """Run all checks but that on requests that are the same each time.  Fails if one fails."""
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", emulator.api,
            "--header", f"Authorization: Bearer {emulator.key}", "--phases", phases,
            "--checks", "all", "--exclude-checks", NOT_CHECKED, "--no-color",
            "--max-examples", str(examples), "--generation-deterministic",
            # Made up, they would hide behind a 401 all that comes after it.
            "--generation-with-security-parameters", "false", "--continue-on-failure",
        ],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=LIMIT_S,
        env={**clean_environment(), "SCHEMATHESIS_HOOKS": HOOKS},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_alone_is_what_a_post_only_service_keeps_to(
    start_emulator: Start, tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--post-only")
    run(emulator, CONTRACT, "examples,coverage,fuzzing", 25, cwd=tmp_path)
    for status in (200, 401, 405, 422):
        assert emulator.events(path="/v1/machines/dm-foo/ssh", status=status)


@pytest.mark.parametrize("phases", ["examples,coverage,fuzzing", "stateful"])
def test_all_routes_together_keep_to_both_documents(
    start_emulator: Start, tmp_path: Path, phases: str
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    document = tmp_path / "whole.json"
    document.write_text(json.dumps(load_whole()))
    run(emulator, document, phases, 50 if phases == "stateful" else 25, cwd=tmp_path)
    assert emulator.events(method="POST", status=200, session_status="ready")
    if phases == "stateful":
        assert emulator.events(method="GET", status=200, session_status="ready")
        assert emulator.events(method="DELETE", status=200, session_status="closed")
