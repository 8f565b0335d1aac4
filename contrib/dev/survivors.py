"""Print the mutants that no test notices, one per line; contrib/dev/mutants runs this after mutmut.

Each mutant that mutmut reports as a survivor is tried again in a process of its own: mutmut forks
one process for all of them, and tests that work in threads do not always fail in such a fork.
Usage, where mutmut has run: survivors.py FILE.  Exits with status 1 if one is not in FILE.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIMIT_S = 300
MUTANTS = Path("mutants")


def main() -> int:
    known = set(Path(sys.argv[1]).read_text().splitlines())
    tests = json.loads((MUTANTS / "mutmut-stats.json").read_text())
    names = survivors()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        noticed = list(pool.map(lambda name: is_noticed(name, tests_of(name, tests)), names))
    lines = sorted(describe(name) for name, was in zip(names, noticed, strict=True) if not was)
    new = [line for line in lines if line not in known]
    for line in new:
        print(line)
    print(f"{len(lines)} mutants that no test notices, {len(new)} of them not in {sys.argv[1]}")
    return 1 if new else 0


def survivors() -> list[str]:
    """Return the names of the mutants that mutmut reports as survivors, or that no test runs."""
    said = mutmut("results").splitlines()
    return [
        line.split(":")[0].strip() for line in said if line.endswith((": survived", "no tests"))
    ]


def tests_of(name: str, stats: dict[str, dict[str, list[str]]]) -> list[str]:
    return stats["tests_by_mangled_function_name"].get(name.rpartition("__mutmut_")[0], [])


def is_noticed(name: str, tests: list[str]) -> bool:
    """Tell whether one of the tests fails, or hangs, with the mutant."""
    if not tests:
        return False
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=MUTANTS, env={**os.environ, "MUTANT_UNDER_TEST": name},
            capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout.decode())
    return done.returncode == 1


def describe(name: str) -> str:
    """Return ``module.function: what the code says → what the mutant says``."""
    # mutmut names them MODULE.x_FUNCTION__mutmut_N or MODULE.xǁCLASSǁMETHOD__mutmut_N.
    module, _, rest = name.removeprefix("dcs_proxy.").rpartition(".")
    function = rest.rpartition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ")
    changed = [line for line in mutmut("show", name).splitlines() if line[:1] in ("-", "+")]
    sides = (
        " ".join(line[1:].strip() for line in changed if line[0] == sign and line[:3] != sign * 3)
        for sign in "-+"
    )
    return f"{module}.{function.replace('ǁ', '.')}: {' → '.join(sides)}"


def mutmut(*words: str) -> str:
    command = [sys.executable, "-m", "mutmut", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
