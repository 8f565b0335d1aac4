"""What contrib/docs/scale.rst claims of many clients, at a sixty-fourth of their number."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docutils.core
import docutils.nodes
import pytest

from contrib.dev import simulate
from contrib.dev.simulation import (
    DCS_PROXY,
    NAIVE,
    REFUSALS,
    SESSIONS,
    Client,
    Outcome,
    Scenario,
    World,
)

DOCUMENT = Path(__file__).parents[2] / "contrib" / "docs" / "scale.rst"
SMALL = Scenario(clients=156, limit=100 / 64, burst=100 / 64)
CLIENTS = {client.name: client for client in REFUSALS + SESSIONS}


@pytest.fixture(autouse=True)
def dice() -> Iterator[None]:
    """Give the program's random numbers back as they were."""
    state = random.getstate()
    yield
    random.setstate(state)


def outage(client: Client, **changes: Any) -> Outcome:
    return World(replace(SMALL, **changes), client).outage()


def test_the_same_seed_gives_the_same_figures_and_another_does_not() -> None:
    first, again, other = (outage(DCS_PROXY, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_giving_up_after_eight_refusals_keeps_most_clients_out() -> None:
    assert outage(CLIENTS["as asked, spread, 8 times"]).share_in() < 0.1
    assert outage(DCS_PROXY).share_in() == 1


def test_waiting_longer_each_time_costs_a_tenth_of_the_requests_and_hardly_any_time() -> None:
    steady, ours = outage(CLIENTS["as asked, spread"]), outage(DCS_PROXY)
    assert ours.posts.total() < steady.posts.total() / 8
    assert ours.percentile(0.99) < steady.percentile(0.99) * 1.1


def test_waiting_longer_without_spread_wastes_the_limit() -> None:
    in_step, ours = outage(CLIENTS["doubling, no spread"]), outage(DCS_PROXY)
    assert in_step.percentile(0.5) > ours.percentile(0.5) * 1.5
    assert in_step.posts.total() > ours.posts.total()


def test_one_session_for_each_ssh_is_more_than_the_limit_gives_before_the_deadline() -> None:
    naive, ours = outage(NAIVE), outage(DCS_PROXY)
    assert naive.share_in() < 0.8
    assert naive.posts.total() > ours.posts.total() * 20
    every_500_ms = outage(CLIENTS["every 500 ms"])
    assert ours.posts.total() < every_500_ms.posts.total() < naive.posts.total()


def test_single_flight_is_what_counts_when_all_begin_at_once() -> None:
    alone, both = outage(CLIENTS["single flight"]), outage(CLIENTS["both"])
    neither, reuse = outage(CLIENTS["neither"]), outage(CLIENTS["reuse"])
    assert (alone.share_in(), both.share_in()) == (1, 1)
    assert max(neither.share_in(), reuse.share_in()) < 0.8
    assert both.posts.total() < reuse.posts.total() / 5


def test_an_hours_work_needs_fewest_mutations_with_both() -> None:
    size = Scenario(clients=60, limit=math.inf)
    posts = {client.name: World(size, client).hour().posts.total() for client in SESSIONS}
    assert posts["both"] < posts["reuse"] < posts["single flight"] < posts["neither"]
    assert posts["both"] < posts["neither"] / 8


def test_a_limit_too_small_for_the_crowd_is_used_to_the_full() -> None:
    limit = SMALL.limit / 8
    few = outage(DCS_PROXY, limit=limit, burst=1)
    granted = limit * 300 / SMALL.clients
    assert granted * 0.85 < few.share_in() < granted * 1.02


def test_an_api_that_is_down_is_outlasted_for_seconds_only_and_by_an_editor_for_longer() -> None:
    assert outage(DCS_PROXY, down_s=10).share_in() == 1
    assert outage(DCS_PROXY, down_s=40).share_in() == 0
    assert outage(DCS_PROXY, down_s=10, unreachable=True).share_in() == 0
    assert outage(DCS_PROXY, down_s=40, every_s=17).share_in() == 1


def documented() -> list[tuple[list[str], docutils.nodes.table]]:
    """Return every command of the document with the table that it prints."""
    tree = docutils.core.publish_doctree(DOCUMENT.read_text(), settings_overrides={
        "halt_level": 2, "report_level": 5})  # fmt: skip
    found = []
    words: list[str] | None = None
    for node in tree.findall():
        if isinstance(node, docutils.nodes.literal_block) and "simulate.py" in node.astext():
            words = node.astext().removeprefix("$ contrib/dev/simulate.py").split()
        if isinstance(node, docutils.nodes.table) and words is not None:
            found.append((words, node))
            words = None
    return found


def cells(table: docutils.nodes.table) -> list[list[str]]:
    rows = table.findall(docutils.nodes.row)
    return [[entry.astext() for entry in row.findall(docutils.nodes.entry)] for row in rows]


COMMANDS = documented()


def test_every_table_has_its_command() -> None:
    assert {words[0] for words, _ in COMMANDS} == set(simulate.TABLES)


@pytest.mark.parametrize(("words", "table"), COMMANDS, ids=[" ".join(w) for w, _ in COMMANDS])
def test_the_documents_commands_print_the_documents_tables(
    words: list[str], table: docutils.nodes.table, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate.main(words if "--clients" in words else [*words, "--clients", "100"])
    tree = docutils.core.publish_doctree(capsys.readouterr().out,
                                         settings_overrides={"halt_level": 2})  # fmt: skip
    (printed,) = tree.findall(docutils.nodes.table)
    shown, now = cells(table), cells(printed)
    if "--clients" in words:
        assert shown == now
        return
    # Fewer clients than in the document: the same rows and the same kinds of figures.
    assert shown[0] == now[0]
    if words[0] != "hour":  # whose rows begin with the number of clients
        assert [row[0] for row in shown] == [row[0] for row in now]
    assert [list(map(kind_of, row)) for row in shown[1:]] == [
        list(map(kind_of, row)) for row in now[1:]
    ]


def kind_of(cell: str) -> str:
    """Return what a cell holds: a count, a share, a decimal or none; else the words in it."""
    # docutils reads the "-" for none as an empty list.
    for kind, pattern in (("count", r"[\d,]+"), ("share", r"\d+\.\d%"), ("decimal", r"(\d+\.\d)?")):
        if re.fullmatch(pattern, cell):
            return kind
    return re.sub(r"[\d,]+ x \d+", "N x M", cell)


def test_the_documented_commands_include_one_whose_figures_are_compared() -> None:
    assert [words for words, _ in COMMANDS if "--clients" in words]
