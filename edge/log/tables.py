"""What `edge-log` prints: tables of sessions, events, queries, hits, windows and sums, and a day as
bars of text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.log.read import Hit, LoggedEvent, LoggedQuery, Session
from edge.log.stats import Bout, Health, Total, totals
from edge.log.when import day_span, duration_text, local, local_text, ticks

if TYPE_CHECKING:
    from edge.log.read import WindowBlock

_WIDTH, _UNBROKEN = 120, 1000
"""Characters of a line of bars where no terminal says it; and of a table, whose rows other programs
want on one line each."""

_SHADES = " \N{LIGHT SHADE}\N{MEDIUM SHADE}\N{DARK SHADE}\N{FULL BLOCK}"
"""How much of a bar's cell an activity took: nothing, up to a quarter, ... more than three."""


def say(table: Table) -> None:
    """Print a table to stdout."""
    console = Console() if sys.stdout.isatty() else Console(width=_UNBROKEN)
    console.print(table, highlight=False)


def _table(*columns: str) -> Table:
    """A table; columns named with ">" at the end are aligned right and never broken."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        right = name.endswith(">")
        table.add_column(
            Text(name.removesuffix(">")),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))  # labels and file names are no markup


def sessions(found: Iterable[Session]) -> Table:
    """One line a session."""
    table = _table("session>", "began>", "length>", "windows>", "source", "worn", "labels")
    for s in found:
        start_s, end_s = s.start_s or 0.0, s.end_s or 0.0
        dropped = f" ({s.dropped:,} not logged)" if s.dropped else ""
        more = ", ..." if len(s.labels) > 3 else ""
        _add(
            table,
            str(s.id),
            local_text(s.zero_utc_s + start_s) + ("" if s.clock_known else " (replayed)"),
            duration_text(end_s - start_s),
            f"{s.windows:,}{dropped}",
            s.device or s.source,
            s.placement or "",
            f"{len(s.labels)}: {', '.join(s.labels[:3])}{more}",
        )
    return table


def events(found: Iterable[LoggedEvent]) -> Table:
    """One line an event."""
    table = _table("event>", "began>", "length>", "label", "confidence>")
    for e in found:
        _add(
            table,
            f"{e.session}.{e.number}",
            local_text(e.utc_s),
            duration_text(e.duration_s),
            e.label if e.ended else f"{e.label} ...",
            f"{e.confidence:.2f}",
        )
    return table


def queries(found: Iterable[LoggedQuery]) -> Table:
    """One line a query."""
    table = _table("query>", "asked>", "text", "found>", "best hit>", "similarity>", "took>")
    for q in found:
        best = q.hits[0] if q.hits else None
        _add(
            table,
            str(q.id),
            local_text(q.asked_utc_s),
            q.text,
            str(len(q.hits)),
            local_text(best.utc_s) if best else "",
            f"{best.similarity:.2f}" if best else "",
            f"{q.took_ms:.0f} ms",
        )
    return table


def hits(found: Sequence[Hit]) -> Table:
    """One line a bout that was found, nearest first."""
    table = _table("hit>", "when>", "length>", "similarity>", "said", "session>")
    for rank, hit in enumerate(found, start=1):
        _add(
            table,
            str(rank),
            local_text(hit.utc_s),
            duration_text(hit.end_s - hit.start_s),
            f"{hit.similarity:.2f}",
            hit.label or "",
            str(hit.session),
        )
    return table


def windows(blocks: Iterable[WindowBlock], start_s: float, end_s: float, most: int) -> Table:
    """One line a window, the first `most`; those from `start_s` to `end_s` (source time) are
    marked."""
    table = _table("", "window>", "began>", "said", "", "alone", "best labels", "missing>", "rate>")
    for block in blocks:
        said, alone = block.texts(block.label), block.texts(block.window_label)
        top = [block.texts(block.top[:, rank]) for rank in range(3)]
        for i in range(len(block)):
            if table.row_count >= most:
                return table
            inside = start_s <= block.start_s[i] and block.end_s[i] <= end_s + 1e-6
            best = [
                f"{top[rank][i]} {block.probability[i, rank]:.2f}"
                for rank in range(3)
                if top[rank][i] is not None
            ]
            _add(
                table,
                ">" if inside else "",
                f"{block.session}@{block.start_s[i]:g}",
                f"{local(float(block.utc_s[i])):%H:%M:%S}",
                said[i] or "",
                "" if np.isnan(block.confidence[i]) else f"{block.confidence[i]:.2f}",
                alone[i] or "not classified",
                ", ".join(best),
                f"{block.missing[i]:.0%}",
                f"{block.rate_hz[i]:.1f} Hz",
            )
    return table


def time_per_label(found: Sequence[Total]) -> Table:
    """One line a label, the longest first."""
    table = _table("label", "time>", "share>", "bouts>", "confidence>")
    whole_s = sum(total.seconds for total in found)
    for t in found:
        _add(
            table,
            t.label,
            duration_text(t.seconds),
            f"{t.seconds / whole_s:.0%}",
            str(t.bouts),
            f"{t.confidence:.2f}",
        )
    return table


def time_per_day(days: dict[date, list[Bout]], labels: Sequence[str]) -> Table:
    """One line a day: its time under each of the labels, and under all others."""
    table = _table("day>", *(f"{label}>" for label in labels), "other>", "together>")
    for day, of_day in days.items():
        seconds = {t.label: t.seconds for t in totals(of_day)}
        whole_s = sum(seconds.values())
        own = [seconds.get(label, 0.0) for label in labels]
        cells = [duration_text(s) if s else "" for s in (*own, whole_s - sum(own), whole_s)]
        _add(table, f"{day:%Y-%m-%d %a}", *cells)
    return table


def device_health(found: Iterable[Health]) -> Table:
    """One line a session."""
    table = _table(
        *("session>", "windows>", "classified>", "missing>", "rate>", "slowest 5 %>", "gaps>"),
        "source",
    )
    for h in found:
        _add(
            table,
            str(h.session.id),
            f"{h.windows:,}",
            f"{h.classified / h.windows:.1%}",
            f"{h.missing:.1%}",
            f"{h.rate_hz:.1f} Hz",
            f"{h.slowest_hz:.1f} Hz",
            f"{len(h.gaps)} ({duration_text(h.gap_s)})" if h.gaps else "none",
            h.session.device or h.session.source,
        )
    return table


def day_bars(of_day: Sequence[Bout], start_utc_s: float, end_utc_s: float) -> Table:
    """What was said between two times as bars: a row a label, the longest first, with the shade of
    a cell for how much of it the label took."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    sums = totals(of_day)
    longest = max((len(t.label) for t in sums), default=0)
    cells = max(10, console.width - min(longest, 30) - 20)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", max_width=30, overflow="fold")
    table.add_column(Text(_axis(start_utc_s, end_utc_s, cells)), no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for total in sums:
        own = [s for s in of_day if s.label == total.label]
        bar = "".join(
            _SHADES[int(np.ceil(4 * f))] for f in _shares(own, start_utc_s, end_utc_s, cells)
        )
        _add(table, total.label, bar, duration_text(total.seconds))
    return table


def _shares(found: Sequence[Bout], start_utc_s: float, end_utc_s: float, cells: int) -> list[float]:
    """How much of each of `cells` equal parts of a time the bouts take, 0 to 1."""
    edges = np.linspace(start_utc_s, end_utc_s, cells + 1)
    # Time taken up to each edge: differences are the parts' own.
    taken = np.zeros(cells + 1)
    for s in found:
        taken += np.clip(edges - s.start_utc_s, 0, s.duration_s)
    shares: list[float] = np.clip(np.diff(taken) / np.diff(edges), 0, 1).round(6).tolist()
    return shares


def _axis(start_utc_s: float, end_utc_s: float, cells: int) -> str:
    """Clock times, each over the cell where it begins."""
    line = ""
    for tick in ticks(start_utc_s, end_utc_s, max(2, cells // 8)):
        at = int((tick - start_utc_s) / (end_utc_s - start_utc_s) * cells)
        if at >= len(line) and at + 5 <= cells:
            line = line.ljust(at) + f"{local(tick):%H:%M}"
    return line.ljust(cells)


def span_of(of_day: Sequence[Bout]) -> tuple[float, float]:
    """Start and end of what a day's bouts are drawn in: from the first to the last, out to
    round times; within the day."""
    first, last = of_day[0].start_utc_s, max(s.end_utc_s for s in of_day)
    midnight, after = day_span(local(first).date())
    step_s = 3600.0 if last - first > 3 * 3600 else 600.0 if last - first > 1200 else 60.0
    start = midnight + (first - midnight) // step_s * step_s
    end = midnight - (midnight - last) // step_s * step_s
    return start, min(max(end, start + step_s), after)
