"""Grid values -> windows of 5 s, on a schedule of spans.

Live use and replay cut a window every hop; evaluation cuts windows inside labelled segments.
Both are the same cutter with another schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.resample import GridBlock
from edge.spec import SIGNAL

MAX_MISSING = 0.2
"""A window that lacks more than this fraction of its samples is reported but not classified."""

MIN_SPAN_S = 1.0
"""The shortest signal that is classified at all, as a window padded with missing samples."""

END_TOLERANCE_S = 0.1
"""How much the stream may end before a window does: the grid stops at the last sample, up to one
sample period (0.1 s at 10 Hz) before the recording's nominal end."""

Span = tuple[int, int]
"""Grid indices (start, stop) of a window, at most 1000 apart."""


@dataclass(frozen=True)
class Window:
    """One window of signal."""

    start: int
    """Grid index of its first sample."""

    stop: int
    """Grid index after the last sample of its span; shorter than 5 s for a padded window."""

    imu: NDArray[np.float32]
    """(6, 1000), rows ax ay az gx gy gz in m/s^2 and rad/s; NaN where nothing was measured."""

    missing: float
    """Fraction of the span's samples that fell into gaps."""

    @property
    def valid(self) -> bool:
        """Whether enough was measured to classify it."""
        return self.missing <= MAX_MISSING


def every_hop(hop_s: float) -> Iterator[Span]:
    """Spans of a full window every `hop_s` seconds, without end; starts are rounded to the grid
    one by one, so that a hop that is no multiple of 5 ms does not drift."""
    k = 0
    while True:
        start = round(k * hop_s * SIGNAL.rate_hz)
        yield start, start + SIGNAL.window_samples
        k += 1


class WindowCutter:
    """Cuts windows out of grid blocks; keeps the last 5 s and nothing else.

    Spans must ascend in start and in stop.
    """

    def __init__(self, spans: Iterator[Span]) -> None:
        self._spans = spans
        self._due = next(spans, None)
        self._length = SIGNAL.window_samples
        self._ring = np.full((len(SIGNAL.channels), self._length), np.nan, np.float32)
        self._head = 0  # grid index after the newest value in the ring
        self._cut = 0

    @property
    def due_index(self) -> int | None:
        """Grid index at which the next window is complete; None when no span is left."""
        return None if self._due is None else self._due[1]

    def push(self, block: GridBlock) -> Iterator[Window]:
        """Take the next block; yield the windows that end within it or in the gap before it."""
        yield from self._advance(block.start_index, None)
        yield from self._advance(block.stop_index, block.values)

    def finish(self) -> Iterator[Window]:
        """The stream has ended: yield the windows that lack at most the end tolerance, and, of a
        stream shorter than a window, one padded window."""
        end = self._head
        reach = end + round(END_TOLERANCE_S * SIGNAL.rate_hz)
        while self._due is not None and self._due[1] <= reach:
            yield from self._advance(self._due[1], None)
        if not self._cut and self._due is not None:
            start = self._due[0]
            if end - start >= MIN_SPAN_S * SIGNAL.rate_hz:
                yield self._window((start, end))

    def _advance(self, to: int, values: NDArray[np.float32] | None) -> Iterator[Window]:
        """Move the head to grid index `to`, with values (to - head, C) or with missing samples."""
        base = self._head
        while self._due is not None and self._due[1] <= to:
            due, self._due = self._due, next(self._spans, None)
            self._write(due[1], values, base)
            yield self._window(due)
        self._write(to, values, base)

    def _write(self, to: int, values: NDArray[np.float32] | None, base: int) -> None:
        start = max(self._head, to - self._length)  # what is older leaves the ring anyway
        while start < to:  # at most twice: the ring wraps around once
            first = start % self._length
            count = min(to - start, self._length - first)
            part = self._ring[:, first : first + count]
            if values is None:
                part[:] = np.nan
            else:
                part[values.shape[1] :] = np.nan
                part[: values.shape[1]] = values[start - base : start - base + count].T
            start += count
        self._head = max(self._head, to)

    def _window(self, span: Span) -> Window:
        start, stop = span
        self._cut += 1
        imu = np.empty((len(SIGNAL.channels), self._length), np.float32)
        oldest = start % self._length
        until_wrap = min(stop - start, self._length - oldest)
        imu[:, :until_wrap] = self._ring[:, oldest : oldest + until_wrap]
        imu[:, until_wrap : stop - start] = self._ring[:, : stop - start - until_wrap]
        imu[:, stop - start :] = np.nan
        missing = np.count_nonzero(np.isnan(imu[0, : stop - start])) / (stop - start)
        return Window(start, stop, imu, missing)
