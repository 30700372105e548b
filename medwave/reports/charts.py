"""Charts that are plain HTML: text stays text at any width, colours follow the theme, print shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.reports.figures import nice_limit
from medwave.reports.page import number


@dataclass(frozen=True)
class Bar:
    """One bar: height as a share of the plot, number of its series, what it says when it is pointed at."""

    share: float
    series: int
    text: str


@dataclass(frozen=True)
class Chart:
    """Groups of bars side by side, with ticks as (position in [0, 1], text) and a key for each series.

    ``edges_marked``: ticks of x stand at the borders of groups (a histogram), else at their middles.
    """

    name: str
    title: str
    text: str
    summary: str
    groups: Sequence[Sequence[Bar]]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    x_label: str
    y_label: str
    series: Sequence[str] = ()


@dataclass(frozen=True)
class Curve:
    """A line through points ``(x, y)`` and one mark, both as shares of the plot; the rest as in :class:`Chart`."""

    name: str
    title: str
    text: str
    summary: str
    points: Sequence[tuple[float, float]]
    mark: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    x_label: str
    y_label: str

    @property
    def path(self) -> str:
        """The line as an SVG path in a square of 100 with y downwards, going right before it goes up."""
        (x, y), *rest = [(100 * x, 100 - 100 * y) for x, y in self.points]
        return f"M{x:.2f} {y:.2f}" + "".join(f"H{a:.2f}V{b:.2f}" for a, b in rest)


def histogram(
    heights: npt.NDArray[np.floating],
    labels: Sequence[str],
    *,
    name: str,
    title: str,
    text: str,
    x_ticks: Sequence[tuple[float, str]],
    x_label: str,
    y_label: str,
    series: Sequence[str] = (),
) -> Chart:
    """A chart of one or two series.

    Args:
        heights: ``(S, B)`` values of S series in B bins.
        labels: ``(B,)`` names of the bins, for people who point at a bar.
        name, title, text, x_ticks, x_label, y_label, series: see :class:`Chart`.
    """
    top = nice_limit(float(heights.max(initial=0)))
    groups = [
        [
            Bar(float(value) / top, s, f"{labels[b]}: {series[s] + ', ' if series else ''}{number(float(value))}")
            for s, value in enumerate(heights[:, b])
        ]
        for b in range(heights.shape[1])
    ]
    largest = [f"{labels[int(row.argmax())]}" for row in heights]
    peak = "; ".join(f"{s}: most at {where}" for s, where in zip(series or ("Bars",), largest, strict=True))
    ticks = [(share, number(round(share * top)) if top >= 1000 else f"{share * top:g}") for share in (0.0, 0.5, 1.0)]
    return Chart(name, title, text, f"{title}. {peak}.", groups, x_ticks, ticks, x_label, y_label, series)


def even_bins(largest: float, about: int) -> npt.NDArray[np.floating]:
    """Borders of about so many bins of a round width, from 0 to beyond ``largest``."""
    wanted = max(largest, 1e-9) / about
    power = 10.0 ** np.floor(np.log10(wanted))
    width = float(next(n for n in (1, 2, 5, 10) if n * power >= wanted * 0.999) * power)
    return width * np.arange(int(np.floor(max(largest, 1e-9) / width + 1e-9)) + 2)
