"""What `edge-log report` says of a time: gathered from the log, for `logpage.py` (HTML) and
`logpicture.py` (PNG) to show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.log import query as logquery
from edge.log.read import Hit, LogReader, WindowBlock
from edge.log.stats import Bout, Health, Total, bouts, by_day, health, totals
from edge.log.store import Where
from edge.log.tables import span_of
from edge.log.when import day_span
from edge.moment import NOT_WORN_LABEL
from edge.pipeline import UNKNOWN_LABEL
from firmware_bridge.errors import InputError

PALETTE = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99"),
)
"""Of the labels that took the most time: Paul Tol's bright scheme and two of his light one, told
apart by colour-blind readers too (personal.sron.nl/~pault)."""

_OTHER, _UNKNOWN, _NOT_WORN = "#5f6368", "#9aa0a6", "#cfd4d9"

_POINTS, _POINT_S = 288, 5.0
"""A day's confidence is drawn as this many means (one every 5 minutes of a full day), of 5 s at
least."""

_BINS = 10
"""Of the distribution of confidence."""

_SIMILAR_TO, _SIMILAR = 5, 3
"""How many events are told what resembles them, and how much of it."""


class Day(NamedTuple):
    """One row of the timeline."""

    day: date
    start_utc_s: float
    end_utc_s: float
    """What the row is drawn from and to."""
    bouts: tuple[Bout, ...]
    confidence: tuple[tuple[float, float], ...]
    """Time (UTC seconds) and mean confidence about it; NaN where nothing was said."""


class Unknown(NamedTuple):
    """A time in which no label fitted."""

    bout: Bout
    nearest: str | None
    """The label that was most often the best one."""


class Similar(NamedTuple):
    """A bout, and others whose windows resemble it most."""

    bout: Bout
    found: tuple[Hit, ...]


@dataclass(frozen=True)
class Report:
    """All that a page says."""

    since_utc_s: float
    until_utc_s: float
    """Of what there is: from the first bout to the last."""
    days: tuple[Day, ...]
    totals: tuple[Total, ...]
    windows_by_confidence: tuple[int, ...]
    """Windows whose confidence is in each of ten equal parts of 0 to 1."""
    unknown: tuple[Unknown, ...]
    health: tuple[Health, ...]
    similar: tuple[Similar, ...]


def gather(log: LogReader, where: Where) -> Report:
    """Read what a page is to say.

    Raises:
        InputError: the log holds nothing of the kind.
    """
    found = bouts(log, where)
    if not found:
        raise InputError(
            f"{log.path}: nothing was logged there; edge-log list shows what the log holds"
        )
    split = by_day(found)
    sums = _WindowSums(_spans(split), [s for s in found if s.label == UNKNOWN_LABEL])
    for block in log.windows(where):
        sums.push(block)
    return Report(
        found[0].start_utc_s,
        max(s.end_utc_s for s in found),
        tuple(
            Day(day, *span, tuple(of_day), confidence)
            for (day, of_day), span, confidence in zip(
                split.items(), sums.spans, sums.confidence(), strict=True
            )
        ),
        tuple(totals(found)),
        tuple(sums.by_confidence.tolist()),
        tuple(
            Unknown(s, n.most_common(1)[0][0] if n else None)
            for s, n in zip(sums.unknown, sums.nearest, strict=True)
        ),
        tuple(health(log, where)),
        tuple(_similar(log, found)),
    )


class _WindowSums:
    """What is summed over the windows, block after block."""

    def __init__(self, spans: list[tuple[float, float]], unknown: list[Bout]) -> None:
        self.spans = spans
        self.unknown = unknown
        self.by_confidence = np.zeros(_BINS, np.int64)
        self.nearest: list[Counter[str]] = [Counter() for _ in unknown]
        self._edges = [np.linspace(*span, _points(span) + 1) for span in spans]
        self._begins = [start for start, _ in spans]
        self._unknown_begins = [s.start_utc_s for s in unknown]
        # Of each day and point: the sum of the windows' confidence, and their number.
        self._sums = [np.zeros((2, len(edges) - 1)) for edges in self._edges]

    def push(self, block: WindowBlock) -> None:
        """Take the next windows; one at least."""
        sure = ~np.isnan(block.confidence)
        at, confidence = block.utc_s[sure], block.confidence[sure]
        self.by_confidence += np.histogram(confidence, _BINS, (0, 1))[0]
        first, last = np.searchsorted(self._begins, block.utc_s[[0, -1]], side="right")
        for day in range(max(first - 1, 0), last):
            self._sums[day][0] += np.histogram(at, self._edges[day], weights=confidence)[0]
            self._sums[day][1] += np.histogram(at, self._edges[day])[0]
        if self.unknown:
            self._note_nearest(block)

    def _note_nearest(self, block: WindowBlock) -> None:
        """Note which labels come nearest in the unknown bouts."""
        is_unknown = block.label == block.names.index(UNKNOWN_LABEL)
        owners = np.searchsorted(self._unknown_begins, block.utc_s[is_unknown], side="right") - 1
        best = block.texts(block.top[is_unknown, 0])
        for owner, label in zip(owners.tolist(), best, strict=True):
            if owner >= 0 and label is not None:
                self.nearest[owner][label] += 1

    def confidence(self) -> Iterator[tuple[tuple[float, float], ...]]:
        """Of each day time and mean confidence, NaN where nothing was said."""
        for edges, (total, count) in zip(self._edges, self._sums, strict=True):
            mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
            middle = (edges[:-1] + edges[1:]) / 2
            yield tuple(zip(middle.tolist(), mean.tolist(), strict=True))


def _spans(split: dict[date, list[Bout]]) -> list[tuple[float, float]]:
    """What each day's row is drawn from and to: one day alone where something was said, several in
    full, so that they compare."""
    if len(split) == 1:
        return [span_of(of_day) for of_day in split.values()]
    return [day_span(day) for day in split]


def _points(span: tuple[float, float]) -> int:
    return max(1, min(_POINTS, math.ceil((span[1] - span[0]) / _POINT_S)))


def _similar(log: LogReader, found: Sequence[Bout]) -> Iterator[Similar]:
    """What resembles the longest bout of each label most, anywhere in the log."""
    sessions = {s.id: s for s in log.sessions()}
    longest: dict[str, Bout] = {}
    for s in sorted(found, key=lambda s: -s.duration_s):
        if s.label not in (UNKNOWN_LABEL, NOT_WORN_LABEL):
            longest.setdefault(s.label, s)
    for s in list(longest.values())[:_SIMILAR_TO]:
        session = sessions[s.session]
        vector = _mean_embedding(log, s)
        if vector is None:
            continue
        zero = session.zero_utc_s
        start_s, end_s = s.start_utc_s - zero, s.end_utc_s - zero
        own = Hit(s.session, start_s, end_s, s.start_utc_s, 1.0, s.label, None, s.label, 1.0)
        hits = logquery.search(log, vector, Where(), _SIMILAR, session.bundle_id, beside=own)
        yield Similar(s, tuple(hits))


def _mean_embedding(log: LogReader, s: Bout) -> NDArray[np.float32] | None:
    """(D,) unit vector: the mean direction of a bout's windows; None without any."""
    total: NDArray[np.float64] | None = None
    where = Where(s.start_utc_s, s.end_utc_s, session=s.session)
    for block in log.windows(where, with_embeddings=True):
        if block.embedding is not None:
            of_block = block.embedding.sum(axis=0, dtype=np.float64)
            total = of_block if total is None else total + of_block
    if total is None or not total.any():
        return None
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


def title_of(report: Report) -> str:
    """What the page is about: "Saturday 21 November 2026", or the first and last day."""
    first, last = report.days[0].day, report.days[-1].day
    if first == last:
        return f"{first:%A} {first.day} {first:%B %Y}"
    return f"{first.day} {first:%B %Y} to {last.day} {last:%B %Y}"


def colours_of(found: Sequence[Total]) -> dict[str, str]:
    """Label -> its colour: own ones for those that took the most time, grey for the others."""
    named = [t.label for t in found if t.label not in (UNKNOWN_LABEL, NOT_WORN_LABEL)]
    colours = dict.fromkeys(named, _OTHER) | dict(zip(named, PALETTE, strict=False))
    return colours | {UNKNOWN_LABEL: _UNKNOWN, NOT_WORN_LABEL: _NOT_WORN}
