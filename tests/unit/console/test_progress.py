from __future__ import annotations

import pytest

from dcs_proxy.console import stderr
from dcs_proxy.console.progress import Progress
from dcs_proxy.names import MachineName

NAME = MachineName("dm-foo")


def wake(seconds: list[float], *, is_quiet: bool = False, in_place: bool = False) -> Progress:
    """Let a machine wake, with a tick after each of the seconds."""
    now = [0.0]
    progress = Progress(is_quiet=is_quiet, in_place=in_place, clock=lambda: now[0])
    progress.tick()
    progress.waking(NAME, 300)
    for now[0] in seconds:
        progress.tick()
    return progress


def test_elsewhere_it_is_one_line_and_one_every_half_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wake([0.1, 1, 29.9, 30.1, 31, 59, 65, 66]).ready()
    assert capsys.readouterr().err == (
        "dcs-proxy: dm-foo: waking up, at most 300 s\n"
        "dcs-proxy: dm-foo: waking up, 30 s\n"
        "dcs-proxy: dm-foo: waking up, 65 s\n"
    )


def test_on_a_terminal_the_line_counts_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    wake([0.1, 1.2, 1.9, 2.0], in_place=True).ready()
    assert capsys.readouterr().err == (
        "dcs-proxy: dm-foo: waking up, 0 s"
        "\r\x1b[Jdcs-proxy: dm-foo: waking up, 1 s"
        "\r\x1b[Jdcs-proxy: dm-foo: waking up, 2 s"
        "\r\x1b[Jdcs-proxy: dm-foo: ready after 2 s\n"
    )


@pytest.mark.parametrize("in_place", [True, False])
def test_what_is_ready_counts_no_more(capsys: pytest.CaptureFixture[str], in_place: bool) -> None:
    now = 0.0
    progress = Progress(is_quiet=False, in_place=in_place, clock=lambda: now)
    progress.waking(NAME, 300)
    progress.ready()
    capsys.readouterr()
    now = 100.0
    progress.tick()
    progress.ready()
    assert capsys.readouterr().err == ""


def test_an_error_takes_the_place_of_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    wake([1.0], in_place=True)
    stderr.show("one", "two")
    stderr.show("three")
    assert capsys.readouterr().err.endswith("waking up, 1 s\r\x1b[Jone\ntwo\nthree\n")


def test_a_notice_comes_between_and_the_line_is_drawn_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = wake([1.0], in_place=True)
    progress.notice("notice")
    stderr.draw("again")
    stderr.show()
    assert capsys.readouterr().err.endswith("1 s\r\x1b[Jdcs-proxy: notice\nagain\r\x1b[J")


@pytest.mark.parametrize("in_place", [True, False])
def test_a_quiet_ssh_shows_nothing(capsys: pytest.CaptureFixture[str], in_place: bool) -> None:
    progress = wake([1, 40], is_quiet=True, in_place=in_place)
    progress.notice("notice")
    progress.ready()
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_where_nothing_wakes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(is_quiet=False, in_place=True)
    progress.tick()
    progress.ready()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("in_place", "second"), [(True, "0 s"), (False, "at most 300 s\n")])
def test_the_first_line_comes_at_once_after_any_advice(
    capsys: pytest.CaptureFixture[str], in_place: bool, second: str
) -> None:
    progress = Progress(is_quiet=False, in_place=in_place, advice="press a key", clock=lambda: 5.0)
    progress.waking(NAME, 300)
    assert capsys.readouterr().err == (
        f"dcs-proxy: dm-foo: press a key\ndcs-proxy: dm-foo: waking up, {second}"
    )
    stderr.show()


@pytest.mark.parametrize("seconds", [0, 1, 2])
def test_the_first_line_comes_at_once_however_long_the_command_has_run(
    capsys: pytest.CaptureFixture[str], seconds: int
) -> None:
    now = 100.0
    progress = Progress(is_quiet=False, in_place=True, clock=lambda: now)
    now += seconds
    progress.waking(NAME, 300)
    stderr.show()
    assert capsys.readouterr().err.startswith(f"dcs-proxy: dm-foo: waking up, {seconds} s")


def test_the_time_counts_from_when_the_command_began(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    progress = Progress(is_quiet=False, in_place=True, clock=lambda: now)
    now = 103.5
    progress.waking(NAME, 300)
    progress.ready()
    assert capsys.readouterr().err.endswith(
        "waking up, 3 s\r\x1b[Jdcs-proxy: dm-foo: ready after 3 s\n"
    )
