"""The picture of `edge-eval --picture`: confusion matrix and reliability diagram, side by side.

Sizes are in inches and grow with the labels; the page is cut to what is drawn, so that no name is.
Needs matplotlib (extra `eval`), which is imported where it is used.
"""

from __future__ import annotations

import textwrap
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.evaluate import interval_text
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

SUFFIXES = (".png", ".svg", ".pdf")

_CELL = 0.42
"""Least side of a cell of the matrix."""
_MATRIX = 4.0
"""Least side of the matrix."""
_DIAGRAM = 3.2
"""Least side of the reliability diagram."""
_OF_MATRIX = 0.35
"""Side of the diagram, beside a large matrix, as a fraction of that."""
_HISTOGRAM = 0.25
"""Height of the histogram below the diagram, as a fraction of that."""
_GAP = 0.9
"""Between the matrix and the diagram, whose numbers stand in it."""

_POINTS = 72.0
"""Points in an inch."""
_PAD = 7.0
"""From the matrix to what is written above it, in points."""
_FONT = 9.0
"""Size of names and numbers, in points."""
_LINE = 1.25 * _FONT
_CHARACTER = 0.62 * _FONT
"""Mean width of a character, rather more than less."""
_WRAP = 26
"""Characters of a line of a name; more where it would take more lines than a cell has room for."""

_COLOURS = "Blues"
_DARK = 0.55
"""Shares from here on are written in white."""
_LEAST = 0.01
"""Smaller shares are not written."""
_BLUE, _RED, _GREY = "#6aa0cf", "#c8553d", "#666666"


def check_picture(path: Path) -> None:
    """Refuse what `draw` could not write, before minutes of work go into it.

    Raises:
        InputError: no format of that name, no folder to write it into, or no matplotlib.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a picture's name has to end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    try:
        import_module("matplotlib.figure")
    except ImportError:
        raise InputError(
            'drawing needs matplotlib; install it with: pip install "aura-edge[eval]"'
        ) from None


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw what `edge-eval` found (the object that `--json` prints) and write it.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        figure_of(result).savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.25)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def figure_of(result: dict[str, Any]) -> Figure:
    """The figure: its axes are the matrix, the reliability diagram and the histogram below it."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    side = max(_MATRIX, _CELL * len(result["labels"]))
    across = max(_DIAGRAM, _OF_MATRIX * side)
    below = _HISTOGRAM * across
    width, height = side + _GAP + across, side
    figure = Figure(figsize=(width, height))

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    matrix = axes(0, 0, side, side)
    diagram = axes(side + _GAP, side - across, across, across)
    histogram = axes(side + _GAP, side - across - 0.15 - below, across, below)
    left = _draw_matrix(matrix, result, side)
    _draw_reliability(diagram, histogram, result)
    _draw_title(figure, result, left, height)
    return figure


def _draw_matrix(axes: Axes, result: dict[str, Any], side: float) -> float:
    """Draw the confusion matrix with its names, F1 and windows at the left.

    Returns:
        The left end of the names, in pixels.
    """
    counts = np.array(result["confusion"])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(share, cmap=_COLOURS, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    for i, j in np.argwhere(share >= _LEAST):
        colour = "white" if share[i, j] >= _DARK else "black"
        percent = f"{100 * share[i, j]:.0f}"
        axes.text(j + 0.5, i + 0.5, percent, fontsize=_FONT, color=colour, ha="center", va="center")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.set_title("% of a true label's windows", fontsize=10, pad=_PAD)
    axes.set_xlabel("said", fontsize=10, weight="bold")
    labels, cell = result["labels"], side / len(share)
    _name_columns(axes, labels, cell)
    own = [result["per_class"][name] for name in labels]
    _column(axes, 10, "windows", [f"{c['n_windows']:,}" for c in own])
    _column(axes, 74, "F1", [f"{c['f1']:.2f}" if c["n_windows"] else "-" for c in own])
    names = [_wrapped(name, cell) for name in labels]
    left: float = min(t.get_window_extent().x0 for t in _column(axes, 114, "true label", names))
    return left


def _column(axes: Axes, distance: float, header: str, rows: Sequence[str]) -> list[Annotation]:
    """Write a right-aligned column at the left of the matrix, `distance` points from it."""

    def write(row: float, above: float, text: str, **style: Any) -> Annotation:
        return axes.annotate(
            text,
            (0, row),
            (-distance, above),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            linespacing=1.0,
            parse_math=False,  # a name may hold dollars
            **style,
        )

    written = [write(0, _PAD, header, fontsize=10, weight="bold", va="bottom")]
    return written + [
        write(i + 0.5, 0, text, fontsize=_FONT, va="center") for i, text in enumerate(rows)
    ]


def _name_columns(axes: Axes, labels: Sequence[str], cell: float) -> None:
    """Write the names below the matrix: level where a cell is wide enough, else upwards."""
    across = int(cell * _POINTS / _CHARACTER)
    level = [textwrap.fill(name, across, break_long_words=False) for name in labels]
    fits = all(len(line) <= across for name in level for line in name.splitlines())
    names = level if fits else [_wrapped(name, cell) for name in labels]
    axes.set_xticks(
        np.arange(len(labels)) + 0.5,
        names,
        rotation=0 if fits else 90,
        multialignment="center" if fits else "right",
        fontsize=_FONT,
        linespacing=1.0,
        parse_math=False,
    )


def _wrapped(name: str, cell: float) -> str:
    """A name in lines of about the same length, no more than fit into the height of a cell."""

    def lines(width: int) -> list[str]:
        return textwrap.wrap(name, width, break_long_words=False)

    room = max(1, int(cell * _POINTS / _LINE))
    n = min(room, len(lines(_WRAP)))
    return "\n".join(next(w for w in map(lines, range(1, len(name) + 2)) if len(w) <= n))


def _draw_reliability(diagram: Axes, histogram: Axes, result: dict[str, Any]) -> None:
    """Draw how often the best label is right at which probability, and how often that one is."""
    bins = result["reliability"]
    start = [b["from"] for b in bins]
    width = [b["to"] - b["from"] for b in bins]
    confidence = [b["confidence"] for b in bins]
    accuracy = [b["accuracy"] for b in bins]
    share = [100 * b["n_windows"] / result["n_windows"] for b in bins]
    bar: dict[str, Any] = {"align": "edge", "color": _BLUE, "edgecolor": "white"}
    diagram.bar(start, accuracy, width, label="observed", **bar)
    diagram.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label="calibrated")
    diagram.vlines(confidence, accuracy, confidence, color=_RED, linewidth=2, label="gap")
    diagram.plot(confidence, accuracy, "o", color=_RED, markersize=4, clip_on=False)
    diagram.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right", xticklabels=[])
    diagram.set_title(f"expected calibration error {result['ece']:.3f}", fontsize=10, pad=_PAD)
    diagram.legend(loc="best", fontsize=_FONT, edgecolor="none", handlelength=1.2, borderpad=0.2)
    histogram.bar(start, share, width, **bar)
    histogram.set(xlim=(0, 1), xlabel="probability of the best label", ylabel="% of windows")
    for axes in (diagram, histogram):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_FONT)
        axes.xaxis.label.set_fontsize(_FONT)
        axes.yaxis.label.set_fontsize(_FONT)


def _draw_title(figure: Figure, result: dict[str, Any], left: float, height: float) -> None:
    title = f"{result['corpus']}: macro-F1 {result['macro_f1']:.3f}"
    title += f" (95 % over subjects {interval_text(result)})"
    facts = f"bundle {result['bundle']}, context {result['context']}, "
    facts += f"{result['n_windows']:,} windows of {result['n_subjects']} subjects"
    x, y = left / figure.bbox.width, 1 + 0.5 / height
    plain: dict[str, Any] = {"va": "bottom", "parse_math": False}
    figure.text(x, y + 0.3 / height, title, fontsize=14, weight="bold", **plain)
    figure.text(x, y, facts, fontsize=10, color=_GREY, **plain)
