"""A report as one picture: the timeline, and the time per activity. Needs matplotlib (extra
`eval`), which is imported where it is used."""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING

from edge.log.report import Day, Report, colours_of, title_of
from edge.log.when import duration_text, local, ticks
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ROW, _CLOCK, _LABEL = 11.0, 0.95, 0.4, 0.3
"""In inches: the picture's width, and the heights of a day, of the clock in it and of a label."""

_TOP, _BETWEEN = 0.55, 0.2
"""In inches: for the title, and between the days and the labels."""

_FONT = 9.0
_GREY, _ACCENT = "#57606a", "#2f5d8a"


def check_matplotlib() -> None:
    """Refuse to begin without matplotlib.

    Raises:
        InputError: it is not installed.
    """
    try:
        import_module("matplotlib.figure")
    except ImportError:
        raise InputError(
            'drawing needs matplotlib; install it with: pip install "aura-edge[eval]"'
        ) from None


def png_of(report: Report) -> bytes:
    """The picture as a PNG file's content."""
    content = io.BytesIO()
    figure_of(report).savefig(content, format="png", dpi=150, bbox_inches="tight", pad_inches=0.2)
    return content.getvalue()


def figure_of(report: Report) -> Figure:
    """The figure: its axes are one a day, then the time per activity."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    colours = colours_of(report.totals)
    n_days, n_labels = len(report.days), len(report.totals)
    height = _TOP + n_days * _ROW + _BETWEEN + n_labels * _LABEL
    figure = Figure(figsize=(_WIDTH, height))

    def axes(top: float, tall: float) -> Axes:
        return figure.add_axes((0.16, 1 - (top + tall) / height, 0.82, tall / height))

    for i, day in enumerate(report.days):
        _draw_day(axes(_TOP + i * _ROW, _ROW - _CLOCK), day, colours)
    bars = axes(_TOP + n_days * _ROW + _BETWEEN, n_labels * _LABEL)
    _draw_totals(bars, report, colours)
    figure.text(0.0, 1.0, title_of(report), fontsize=14, weight="bold", va="top")
    return figure


def _draw_day(axes: Axes, day: Day, colours: dict[str, str]) -> None:
    """Bars of what was said, with the confidence as a line over them."""
    for s in day.bouts:
        axes.broken_barh(
            [(s.start_utc_s, s.duration_s)], (0, 1), facecolors=colours[s.label], linewidth=0
        )
    at, mean = zip(*day.confidence, strict=True)
    axes.plot(at, mean, color="white", linewidth=2.5)
    axes.plot(at, mean, color=_ACCENT, linewidth=1.2)
    marks = ticks(day.start_utc_s, day.end_utc_s, 9)
    axes.set_xticks(marks, [f"{local(t):%H:%M}" for t in marks], fontsize=_FONT, color=_GREY)
    axes.set_yticks([0, 1], ["0", "1"], fontsize=_FONT, color=_GREY)
    axes.set(xlim=(day.start_utc_s, day.end_utc_s), ylim=(0, 1))
    axes.set_ylabel(
        f"{day.day:%a} {day.day.day} {day.day:%b}\nconfidence",
        fontsize=_FONT, rotation=0, ha="right", va="center",
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f3f5f7")


def _draw_totals(axes: Axes, report: Report, colours: dict[str, str]) -> None:
    names = [t.label for t in report.totals]
    hours = [t.seconds / 3600 for t in report.totals]
    axes.barh(range(len(names)), hours, color=[colours[name] for name in names], height=0.7)
    for row, t in enumerate(report.totals):
        text = f" {duration_text(t.seconds)}, confidence {t.confidence:.2f}"
        axes.text(t.seconds / 3600, row, text, va="center", fontsize=_FONT)
    axes.set_yticks(range(len(names)), names, fontsize=_FONT, parse_math=False)
    axes.set_xlim(0, 1.35 * max(hours))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
