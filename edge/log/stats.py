"""What a log says in sum: bouts of activity, time per label and day, gaps, device health."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.log.read import LogReader, Session, WindowBlock
from edge.log.store import Where
from edge.log.when import day_span, local
from edge.spec import SIGNAL

_SLACK_S = 0.5
"""How much later than expected a window may begin before that is a gap."""

_MAX_HZ, _RATE_STEP_HZ = 2000.0, 0.1
"""Range and resolution of the rates whose median is told."""


class Bout(NamedTuple):
    """A time in which one thing was said."""

    session: int
    start_utc_s: float
    end_utc_s: float
    label: str
    confidence: float
    """Mean over the bout, 0 to 1; NaN where there is none."""

    @property
    def duration_s(self) -> float:
        """Length."""
        return self.end_utc_s - self.start_utc_s


class Total(NamedTuple):
    """All of one label."""

    label: str
    seconds: float
    confidence: float
    """Mean over the time, 0 to 1."""
    bouts: int


@dataclass(frozen=True)
class Health:
    """How well one session's device delivered, in the windows that were asked for."""

    session: Session
    start_utc_s: float
    end_utc_s: float
    windows: int
    classified: int
    """Windows of which enough was measured."""
    missing: float
    """Mean fraction of a window that is missing."""
    rate_hz: float
    """Median over the windows."""
    slowest_hz: float
    """5th percentile of the rate over the windows."""
    inference_ms: float
    """Mean over the classified windows; NaN without any."""
    gaps: tuple[tuple[float, float], ...]
    """Start and end, in UTC seconds, of the times that no classified window covers, other than
    what a hop longer than a window leaves out."""

    @property
    def gap_s(self) -> float:
        """Length of all gaps."""
        return sum(end - start for start, end in self.gaps)


def bouts(log: LogReader, where: Where) -> list[Bout]:
    """What was said, in order of time, cut at the ends of the time asked for.

    The events of the diary; of sessions without any (`edge-run --raw-windows`), neighbouring
    windows with the same label, each of which counts for one hop.
    """
    events = log.events(where)
    with_diary = {e.session for e in events}
    if where.label is not None:  # a session may have events, but none of this label
        with_diary |= {e.session for e in log.events(replace(where, label=None))}
    found = [
        Bout(e.session, e.utc_s, e.utc_s + e.duration_s, e.label, e.confidence) for e in events
    ]
    for session in log.sessions(where):
        if session.id not in with_diary and session.windows:
            found += _of_windows(log, session, where)
    return sorted(_within(found, where.since_utc_s, where.until_utc_s), key=lambda s: s.start_utc_s)


def _of_windows(log: LogReader, session: Session, where: Where) -> Iterator[Bout]:
    last: Bout | None = None
    n = 0
    for block in log.windows(replace(where, session=session.id)):
        said = block.texts(block.label)
        for utc_s, label, confidence in zip(
            block.utc_s.tolist(), said, block.confidence.tolist(), strict=True
        ):
            if label is None:
                continue
            follows = last is not None and utc_s <= last.end_utc_s + _SLACK_S
            if last is not None and follows and last.label == label:
                mean = (n * last.confidence + confidence) / (n + 1)
                last = last._replace(end_utc_s=utc_s + session.hop_s, confidence=mean)
                n += 1
                continue
            if last is not None:
                yield last
            last, n = Bout(session.id, utc_s, utc_s + session.hop_s, label, confidence), 1
    if last is not None:
        yield last


def _within(
    found: Iterable[Bout], since_utc_s: float | None, until_utc_s: float | None
) -> Iterator[Bout]:
    for s in found:
        start = s.start_utc_s if since_utc_s is None else max(s.start_utc_s, since_utc_s)
        end = s.end_utc_s if until_utc_s is None else min(s.end_utc_s, until_utc_s)
        if start < end:
            yield s._replace(start_utc_s=start, end_utc_s=end)


def totals(found: Iterable[Bout]) -> list[Total]:
    """All of each label, the longest first."""
    seconds: dict[str, float] = defaultdict(float)
    sure: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for s in found:
        seconds[s.label] += s.duration_s
        sure[s.label] += s.duration_s * s.confidence
        count[s.label] += 1
    return sorted(
        (Total(label, t, sure[label] / t, count[label]) for label, t in seconds.items()),
        key=lambda total: -total.seconds,
    )


def by_day(found: Iterable[Bout]) -> dict[date, list[Bout]]:
    """The bouts of each local day that has any, cut at midnight; days and bouts in order
    of time."""
    days: dict[date, list[Bout]] = defaultdict(list)
    for s in found:
        day = local(s.start_utc_s).date()
        while True:
            first, after = day_span(day)
            days[day].append(
                s._replace(start_utc_s=max(s.start_utc_s, first), end_utc_s=min(s.end_utc_s, after))
            )
            if s.end_utc_s <= after:
                break
            day = local(after).date()
    return dict(sorted(days.items()))


def health(log: LogReader, where: Where) -> list[Health]:
    """How well each session's device delivered, by session; those without a window are left out.
    The label of `where` is not looked at. Reads every window, in bounded memory."""
    sessions = {s.id: s for s in log.sessions(where)}
    tallies: dict[int, _Tally] = {}
    for block in log.windows(replace(where, label=None)):
        if len(block):
            tally = tallies.setdefault(block.session, _Tally(sessions[block.session]))
            tally.push(block)
    return [tally.health() for tally in tallies.values()]


class _Tally:
    """The health of one session, block after block."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._allowed_s = max(0.0, session.hop_s - SIGNAL.window_s) + _SLACK_S
        self._start_s = self._end_s = self._covered_to_s = float("nan")
        self._windows = self._classified = 0
        self._missing = self._inference_ms = 0.0
        self._rates = np.zeros(round(_MAX_HZ / _RATE_STEP_HZ) + 1, np.int64)
        self._gaps: list[tuple[float, float]] = []

    def push(self, block: WindowBlock) -> None:
        """Take the windows that come next; one at least."""
        if not self._windows:
            self._start_s = self._covered_to_s = float(block.start_s[0])
        self._end_s = float(block.end_s[-1])
        covered_from_s, covered_to_s = block.start_s[block.valid], block.end_s[block.valid]
        self._note_gaps(covered_from_s, covered_to_s)
        if len(covered_to_s):
            self._covered_to_s = float(covered_to_s[-1])
        self._windows += len(block)
        self._classified += len(covered_to_s)
        self._missing += float(block.missing.sum())
        self._inference_ms += float(block.inference_ms[block.valid].sum())
        bins = np.minimum(block.rate_hz, _MAX_HZ) / _RATE_STEP_HZ
        self._rates += np.bincount(bins.round().astype(np.int64), minlength=len(self._rates))

    def _note_gaps(self, start_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> None:
        """Note what lies uncovered before each of the windows."""
        before_s = np.concatenate([[self._covered_to_s], end_s[:-1]])[: len(start_s)]
        wide = start_s - before_s > self._allowed_s
        zero_utc_s = self._session.zero_utc_s
        self._gaps += [
            (zero_utc_s + start, zero_utc_s + end)
            for start, end in zip(before_s[wide].tolist(), start_s[wide].tolist(), strict=True)
        ]

    def health(self) -> Health:
        """Of all windows so far."""
        end_s = np.array([self._end_s])
        self._note_gaps(end_s, end_s)  # the end counts as covered
        zero_utc_s = self._session.zero_utc_s
        return Health(
            self._session,
            zero_utc_s + self._start_s,
            zero_utc_s + self._end_s,
            self._windows,
            self._classified,
            self._missing / self._windows,
            self._rate_at(0.5),
            self._rate_at(0.05),
            self._inference_ms / self._classified if self._classified else float("nan"),
            tuple(self._gaps),
        )

    def _rate_at(self, share: float) -> float:
        """The rate that `share` of the windows do not exceed, in Hz."""
        return float(np.searchsorted(self._rates.cumsum(), share * self._windows) * _RATE_STEP_HZ)
