"""A report as one page of HTML: a pure function of it.

The page needs nothing but itself: no script, no font, no request to anywhere; its content security
policy forbids them. Every drawing has its content in words or in a table beside it. The frame is
`edge/data/report/page.html`.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from string import Template

from edge.log.report import Day, Report, colours_of, title_of
from edge.log.stats import Bout, Total, totals
from edge.log.when import duration_text, local, local_text, ticks
from edge.pipeline import UNKNOWN_LABEL

FRAME = Path(__file__).parent.parent / "data" / "report" / "page.html"

_MOST_BOUTS, _MOST_UNKNOWN = 300, 30
"""Rows of tables; the longest bouts are kept."""


def html_of(report: Report) -> str:
    """The page."""
    colours = colours_of(report.totals)
    said_s = sum(t.seconds for t in report.totals)
    unknown_s = sum(t.seconds for t in report.totals if t.label == UNKNOWN_LABEL)
    sure = sum(t.seconds * t.confidence for t in report.totals) / said_s
    n_windows = sum(h.windows for h in report.health)
    sessions = f"{len(report.health)} session{'s' if len(report.health) != 1 else ''}"
    return Template(FRAME.read_text(encoding="utf-8")).substitute(
        title=escape(title_of(report)),
        facts=escape(
            f"{local_text(report.since_utc_s)} to {local_text(report.until_utc_s)}, "
            f"{n_windows:,} windows in {sessions}"
        ),
        cards="".join(
            _card(name, value)
            for name, value in (
                ("recorded", duration_text(said_s)),
                ("mostly", report.totals[0].label),
                ("mean confidence", f"{sure:.2f}"),
                ("unknown", f"{unknown_s / said_s:.0%}"),
            )
        ),
        legend="".join(
            f'<li><span class="swatch" style="background:{colours[t.label]}"></span>'
            f"{escape(t.label)}</li>"
            for t in report.totals
        ),
        timeline="".join(_day_figure(day, colours) for day in report.days),
        bouts=_bout_rows(report),
        activities=_activity_rows(report, colours, said_s),
        confidence=_confidence_rows(report),
        unknown=_unknown_html(report),
        health=_health_rows(report),
        similar=_similar_html(report),
    )


def _card(name: str, value: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


_W, _BAR, _CURVE, _BETWEEN = 1000, 44, 40, 6
"""Width of a day's drawing, and the heights of its parts, in user units."""

_CLOCKS = 7
"""Clock times below a day at most: as many as a phone's width has room for."""


def _day_figure(day: Day, colours: dict[str, str]) -> str:
    """Bars of what was said, over the confidence with which it was, over a clock."""
    start, end = day.start_utc_s, day.end_utc_s

    def x(utc_s: float) -> float:
        return _W * (utc_s - start) / (end - start)

    bars = "".join(
        f'<rect x="{x(s.start_utc_s):.2f}" height="{_BAR}" fill="{colours[s.label]}" '
        f'width="{max(x(s.end_utc_s) - x(s.start_utc_s), 0.3):.2f}"><title>'
        f"{escape(_bout_text(s))}</title></rect>"
        for s in day.bouts
    )
    top, height = _BAR + _BETWEEN, _BAR + _BETWEEN + _CURVE
    runs: list[list[str]] = [[]]  # the curve, broken where nothing was said
    for at, mean in day.confidence:
        if math.isnan(mean):
            runs.append([])
        else:
            runs[-1].append(f"{x(at):.1f},{top + _CURVE * (1 - mean):.1f}")
    curve = "".join(
        f'<polyline class="curve" points="{" ".join(run * 2 if len(run) == 1 else run)}"/>'
        for run in runs
        if run
    )
    marks = ticks(start, end, _CLOCKS)
    lines = "".join(
        f'<line class="tick" x1="{x(t):.1f}" x2="{x(t):.1f}" y2="{height}"/>' for t in marks
    )
    # Words beside the drawing, not in it: they keep their size on a narrow screen.
    clock = "".join(
        f'<span class="{_side(x(t) / _W)}" style="left:{x(t) / _W:.2%}">{local(t):%H:%M}</span>'
        for t in marks
    )
    name = f"{day.day:%a} {day.day.day} {day.day:%b}"
    words = ", ".join(f"{t.label} {duration_text(t.seconds)}" for t in totals(day.bouts))
    return (
        f'<figure class="day"><figcaption>{escape(name)}</figcaption>'
        f'<svg viewBox="0 0 {_W} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"Timeline of {name}: {words}")}">'
        f'<rect class="back" width="{_W}" height="{_BAR}"/>'
        f'<rect class="back" y="{top}" width="{_W}" height="{_CURVE}"/>{lines}{bars}{curve}'
        f'</svg><div class="clock" aria-hidden="true">{clock}</div></figure>'
    )


def _side(at: float) -> str:
    """Which part of a clock time stands at its place: what keeps it inside the drawing."""
    return "first" if at < 0.06 else "last" if at > 0.94 else "middle"


def _bout_text(s: Bout) -> str:
    times = f"{local(s.start_utc_s):%H:%M:%S} to {local(s.end_utc_s):%H:%M:%S}"
    return f"{s.label}, {times}, {duration_text(s.duration_s)}, confidence {s.confidence:.2f}"


def _bout_rows(report: Report) -> str:
    """The longest bouts, in order of time."""
    every = [s for day in report.days for s in day.bouts]
    kept = sorted(every, key=lambda s: -s.duration_s)[:_MOST_BOUTS]
    kept.sort(key=lambda s: s.start_utc_s)
    rows = "".join(
        _row(local_text(s.start_utc_s), duration_text(s.duration_s), s.label, f"{s.confidence:.2f}")
        for s in kept
    )
    left_out = len(every) - len(kept)
    return rows + (_row(f"{left_out} shorter ones left out", "", "", "") if left_out else "")


def _activity_rows(report: Report, colours: dict[str, str], said_s: float) -> str:
    longest_s = report.totals[0].seconds

    def bar(t: Total) -> str:
        width = max(100 * t.seconds / longest_s, 0.5)
        return f'<span class="bar" style="width:{width:.1f}%;background:{colours[t.label]}"></span>'

    return "".join(
        f'<tr><th scope="row">{escape(t.label)}</th><td class="wide">{bar(t)}</td>'
        f"<td>{duration_text(t.seconds)}</td><td>{t.seconds / said_s:.0%}</td>"
        f"<td>{t.bouts}</td><td>{t.confidence:.2f}</td></tr>"
        for t in report.totals
    )


def _confidence_rows(report: Report) -> str:
    n = report.windows_by_confidence
    most, together = max(1, *n), max(1, sum(n))
    return "".join(
        f'<tr><th scope="row">{i / len(n):.1f} to {(i + 1) / len(n):.1f}</th>'
        f'<td class="wide"><span class="bar plain" style="width:{100 * count / most:.1f}%"></span>'
        f"</td><td>{count:,}</td><td>{count / together:.0%}</td></tr>"
        for i, count in enumerate(n)
    )


def _unknown_html(report: Report) -> str:
    if not report.unknown:
        return "<p>Nothing was unknown.</p>"
    longest = sorted(report.unknown, key=lambda u: -u.bout.duration_s)[:_MOST_UNKNOWN]
    rows = "".join(
        _row(local_text(u.bout.start_utc_s), duration_text(u.bout.duration_s), u.nearest or "-")
        for u in sorted(longest, key=lambda u: u.bout.start_utc_s)
    )
    left_out = len(report.unknown) - len(longest)
    note = f"<p>{left_out} shorter ones left out.</p>" if left_out else ""
    head = _head("began", "length", "label that came nearest")
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>{note}'


def _health_rows(report: Report) -> str:
    return "".join(
        _row(
            f"{h.session.id}: {h.session.device or h.session.source}",
            local_text(h.start_utc_s),
            duration_text(h.end_utc_s - h.start_utc_s),
            f"{h.windows:,}",
            f"{h.classified / h.windows:.1%}",
            f"{h.missing:.1%}",
            f"{h.rate_hz:.1f} Hz",
            f"{h.slowest_hz:.1f} Hz",
            f"{len(h.gaps)} ({duration_text(h.gap_s)})" if h.gaps else "none",
        )
        for h in report.health
    )


def _similar_html(report: Report) -> str:
    if not report.similar:
        return "<p>No bout has windows to compare.</p>"
    return "".join(
        f"<h3>{escape(of.bout.label)}, {escape(local_text(of.bout.start_utc_s))}, "
        f"{duration_text(of.bout.duration_s)}</h3>"
        + (
            f'<div class="scroll"><table>{_head("similarity", "began", "length", "said then")}'
            "<tbody>"
            + "".join(
                _row(
                    f"{hit.similarity:.2f}",
                    local_text(hit.utc_s),
                    duration_text(hit.end_s - hit.start_s),
                    hit.label or "-",
                )
                for hit in of.found
            )
            + "</tbody></table></div>"
            if of.found
            else "<p>Nothing else is in the log.</p>"
        )
        for of in report.similar
    )


def _head(*names: str) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"


def _row(*cells: str) -> str:
    first, *others = map(escape, cells)
    rest = "".join(f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="row">{first}</th>{rest}</tr>'
