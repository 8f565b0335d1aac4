#!/usr/bin/env python3
"""Simulate the load of many computers on the API: requests, refusals, and how long logins take.

Nothing is sent or measured; the same seed gives the same figures.  contrib/docs/scale.rst
discusses them, simulation.py computes them.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from contrib.dev.simulation import (
    DCS_PROXY,
    HOUR_S,
    REFUSALS,
    SESSIONS,
    Outcome,
    Scenario,
    World,
)

_HELP = {
    "clients": "computers",
    "machines": "machines of each computer",
    "ssh": "ssh to one machine at once",
    "limit": "mutations that the API takes in a second",
    "burst": "mutations that the API takes at once after a quiet time",
    "retry_after_ms": "what a refusal of the API asks for",
    "poll_ms": "what the API asks for while a machine wakes",
    "wake_s": "a machine wakes in half of that to half as much again",
    "start_s": "all begin within that time",
    "round_trip_ms": "an exchange with the API takes half of that to half as much again",
    "down_s": "so long at first the API answers 503 and names no wait",
    "unreachable": "while it is down the API does not answer at all",
    "every_s": "an editor ends an ssh that is not in, and starts another, so often",
    "rounds": "how often in an hour the ssh to a machine are started (hour only)",
    "session_s": "how long a session is good",
    "autosleep_s": "a machine not used for so long goes to sleep, and its sessions end",
    "seed": "of the random numbers",
}


COLUMNS = ["POST", "peak/s", "GET", "peak/s", "in", "gave up", "p50", "p99", "last"]


def row(outcome: Outcome) -> list[str]:
    posts, gets = outcome.posts, outcome.gets
    return [
        f"{posts.total():,}", f"{max(posts.values(), default=0):,}",
        f"{gets.total():,}", f"{max(gets.values(), default=0):,}",
        f"{outcome.share_in():.1%}", f"{outcome.gave_up:,}",
        *(f"{outcome.percentile(part):.1f}" if outcome.took else "-" for part in (0.5, 0.99, 1)),
    ]  # fmt: skip


Rows = Iterable[list[str]]


def refusals(scenario: Scenario) -> Rows:
    """What clients do after a refusal."""
    yield ["a refused client tries", *COLUMNS]
    for client in REFUSALS:
        yield [client.name, *row(World(scenario, client).outage())]


def sessions(scenario: Scenario) -> Rows:
    """With and without reuse of sessions and single flight."""
    yield ["a client has", *COLUMNS]
    for client in SESSIONS:
        yield [client.name, *row(World(scenario, client).outage())]


def limits(scenario: Scenario) -> Rows:
    """The size of the limit."""
    yield ["limit", *COLUMNS]
    for limit in (12, 30, 100, 300, 1000):
        with_limit = replace(scenario, limit=limit, burst=limit)
        yield [f"{limit}/s", *row(World(with_limit, DCS_PROXY).outage())]


def down(scenario: Scenario) -> Rows:
    """How long the API stays down after all clients have started to retry."""
    yield ["API down for", *COLUMNS]
    for unreachable in (False, True):
        for seconds in (2, 10, 20, 30):
            still_down = replace(scenario, down_s=seconds, unreachable=unreachable)
            how = "unreachable" if unreachable else "503"
            yield [f"{seconds} s, {how}", *row(World(still_down, DCS_PROXY).outage())]


def hour(scenario: Scenario) -> Rows:
    """One hour of work without a limit: the requests to the API."""
    yield ["N x M", "a client has", "POST", "POST/s", "peak/s", "GET", "GET/s", "peak/s"]
    for part, machines in ((100, 1), (10, 5), (1, 2)):
        clients = scenario.clients // part
        for client in SESSIONS:
            size = replace(scenario, clients=clients, machines=machines, limit=math.inf)
            outcome = World(size, client).hour()
            yield [f"{clients:,} x {machines}", client.name, *demand(outcome.posts),
                   *demand(outcome.gets)]  # fmt: skip


def demand(counts: Counter[int]) -> list[str]:
    peak = max(counts.values(), default=0)
    return [f"{counts.total():,}", f"{counts.total() / HOUR_S:.1f}", f"{peak:,}"]


TABLES = {table.__name__: table for table in (refusals, sessions, limits, down, hour)}


def print_table(rows: Rows) -> None:
    """Print a reStructuredText table."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = " ".join("=" * width for width in widths)
    lines = [
        " ".join(
            cell.ljust(width) if not cell[0].isdigit() or not number else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    print("\n".join([rule, lines[0], rule, *lines[1:], rule]))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog="tables: " + "; ".join(f"{n}: {t.__doc__}" for n, t in TABLES.items()),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("table", choices=TABLES, help="which table to print")
    for option in fields(Scenario):
        name, default = "--" + option.name.replace("_", "-"), option.default
        if isinstance(default, bool):
            parser.add_argument(name, action="store_true", help=_HELP[option.name])
        else:
            kind = type(default)
            parser.add_argument(name, type=kind, default=default, metavar="N",
                                help=_HELP[option.name])  # fmt: skip
    given = vars(parser.parse_args(words))
    print_table(TABLES[given.pop("table")](Scenario(**given)))


if __name__ == "__main__":
    main()
