"""The plot of contrib/docs/performance.rst shows its figures."""

from __future__ import annotations

from contrib.dev import ratios

PAGE = ratios.PAGE.read_text()
FIGURES = list(ratios.read(PAGE))


def test_the_plot_shows_the_figures_of_the_page() -> None:
    """Run contrib/dev/ratios.py after changing a figure."""
    assert ratios.PICTURE.read_text() == ratios.draw(FIGURES)


def test_every_row_is_read_and_says_whether_it_misses_its_target() -> None:
    assert len(FIGURES) == PAGE.count("≤ ") + PAGE.count("≥ ") > 30
    for figure in FIGURES:
        is_met = figure.ratio >= figure.target if figure.is_least else figure.ratio <= figure.target
        assert figure.is_met is is_met, figure
