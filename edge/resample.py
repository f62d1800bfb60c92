"""Samples at any rate from 10 to 1000 Hz, uniform or jittered -> the 200 Hz grid.

Each grid value depends on the samples around it and on nothing else, and is computed element by
element, so feeding one sample at a time or the whole file gives the same bits.

* Up to 200 Hz: monotone cubic Hermite interpolation (Fritsch and Butland 1984), which never
  leaves the range of the two samples it lies between, so nothing overshoots at a gap.
* Above 200 Hz: a Kaiser-windowed sinc, flat to 60 Hz and 60 dB or more down from 100 Hz (the
  grid's Nyquist rate), evaluated at the samples' own times; each sample weighs as much time as
  it stands for, so jitter does not tilt the average. Where the kernel finds too few samples (a
  hole, an end of the stream) the interpolated value stands.

Two samples more than `MAX_GAP_S` apart bound a gap: the grid has no values there, and none are
invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.spec import SIGNAL
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

MAX_GAP_S = 0.25
"""The longest hole that is interpolated: two lost samples at 10 Hz are already a gap."""

MAX_BACKWARD_S = 1.0
"""A stamp further back than this means that the clock was reset, not that samples came late."""

MAX_JUMP_S = 86_400.0
"""A stamp further ahead than this means that the clock was set, not that the device slept."""

RATE_DECISION_S = 0.5
"""A stretch of samples is this old when its rate decides whether it needs the low-pass."""

LOW_PASS_ABOVE_HZ = 201.0
"""200 Hz and the error of its measurement: slower sources have nothing to alias."""

_PASS_HZ, _STOP_HZ, _STOP_DB = 60.0, 100.0, 72.0
# Kaiser's design formulas (Oppenheim and Schafer, section 7.5): shape and length of the window.
# Designed 12 dB below the promised 60 dB, because the stop band must hold in every image.
_BETA = 0.1102 * (_STOP_DB - 8.7)
_HALF_WIDTH_S = (_STOP_DB - 7.95) / (14.36 * (_STOP_HZ - _PASS_HZ)) / 2
_CUTOFF_HZ = (_PASS_HZ + _STOP_HZ) / 2
_SUPPORT_TOLERANCE = 0.1
"""How far the kernel's weights may be from adding up to 1: jitter of 30 % of a sample reaches 0.11
at 300 Hz and 0.02 at 500 Hz, a hole of 10 ms 0.8 and more."""

_I0_BETA = float(np.i0(_BETA))
_KERNEL_ROWS = 256
"""Grid values filtered at once: bounds the memory of a long push."""

_EPS_GRID = 1e-3
"""Grid steps (5 us): a sample this close to a grid time is on it; above float64's error for
stamps since 1970."""


@dataclass(frozen=True)
class GridBlock:
    """Consecutive values of the 200 Hz grid; between two blocks lies a gap."""

    start_index: int
    """Index on the grid of the first value; the grid's zero is the stream's first sample."""

    values: NDArray[np.float32]
    """(n, 3) accelerometer only, or (n, 6) with gyroscope."""

    @property
    def stop_index(self) -> int:
        """Index after the last value."""
        return self.start_index + len(self.values)


@dataclass
class Dropped:
    """Samples that were left out, and why."""

    not_later: int = 0
    """Stamp not later than the sample before it."""

    not_finite: int = 0
    """NaN or infinite in some channel: treated as not measured."""

    first_not_later_s: float = float("nan")
    """The first stamp that went back."""


class Resampler:
    """Streaming resampler of one source.

    `push` samples in any chunks, `finish` at the end of the stream; both return finished blocks.
    """

    def __init__(self) -> None:
        self.origin_s: float | None = None
        """Time of grid index 0: the stream's first sample."""
        self.dropped = Dropped()
        self.accepted_s = np.empty(0)
        """Times of the samples that the last push took."""
        self._step_s = 1.0 / SIGNAL.rate_hz
        self._has_gyro: bool | None = None
        self._last_s = -np.inf
        self._clock_error = ""
        # The current stretch: samples since the last gap that unfinished grid values still need.
        self._t = np.empty(0)
        self._x = np.empty((0, 6))
        self._stretch_start_s = 0.0
        self._low_pass: bool | None = None  # undecided until the stretch is RATE_DECISION_S old
        self._stretch_count = 0
        self._next_index = 0

    def push(self, samples: Samples) -> list[GridBlock]:
        """Take samples; return the grid values that are now final.

        Raises:
            InputError: the clock went back by more than 1 s or ahead by more than a day, or the
                gyroscope came or went in mid-stream. What was measured before that is returned
                first: a clock's error is raised by the call after.
        """
        if self._clock_error:
            raise InputError(self._clock_error)
        blocks = self._take(samples)
        return blocks + self._end_stretch() if self._clock_error else blocks

    def _take(self, samples: Samples) -> list[GridBlock]:
        t, x = self._accept(samples)
        self.accepted_s = t
        blocks: list[GridBlock] = []
        if not len(t):
            return blocks
        if self.origin_s is None:
            self.origin_s = float(t[0])
        previous = self._t[-1] if len(self._t) else -np.inf
        breaks = np.flatnonzero(np.diff(t, prepend=previous) > MAX_GAP_S)
        for piece_t, piece_x in zip(np.split(t, breaks), np.split(x, breaks), strict=True):
            if len(self._t) and len(piece_t) and piece_t[0] - self._t[-1] > MAX_GAP_S:
                blocks += self._end_stretch()
            blocks += self._extend(piece_t, piece_x)
        return blocks

    def finish(self) -> list[GridBlock]:
        """The stream has ended: return the grid values up to its last sample.

        Raises:
            InputError: the clock's error, when the last push met one.
        """
        if self._clock_error:
            raise InputError(self._clock_error)
        return self._end_stretch()

    def time_of(self, index: int) -> float:
        """Time of a grid index, in seconds of the source's clock."""
        if self.origin_s is None:
            raise ValueError("no sample has arrived yet: the grid has no origin")
        return self.origin_s + index * self._step_s

    def _accept(self, samples: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Leave out what cannot be placed in time and what was not measured."""
        has_gyro = samples.gyro_rads is not None
        if self._has_gyro is None:
            self._has_gyro = has_gyro
            self._x = np.empty((0, 6 if has_gyro else 3))
        elif self._has_gyro != has_gyro:
            raise InputError(
                f"the gyroscope {'appeared' if has_gyro else 'disappeared'} in mid-stream; "
                "start a new stream when the device's sensors change"
            )
        t = np.asarray(samples.t_s, dtype=np.float64)
        x = np.asarray(samples.acc_mps2, dtype=np.float64)
        if samples.gyro_rads is not None:
            x = np.hstack([x, np.asarray(samples.gyro_rads, dtype=np.float64)])
        finite = np.isfinite(t) & np.isfinite(x).all(axis=1)
        self.dropped.not_finite += int((~finite).sum())
        t, x = t[finite], x[finite]
        if not len(t):
            return t, x
        # A sample is late when an earlier one already carries its stamp or a later one.
        latest_before = np.maximum.accumulate(np.concatenate([[self._last_s], t[:-1]]))
        good, self._clock_error = _until_clock_error(t, latest_before)
        t, x, latest_before = t[:good], x[:good], latest_before[:good]
        if not len(t):
            return t, x
        later = t > latest_before
        if not later.all() and not self.dropped.not_later:
            self.dropped.first_not_later_s = float(t[~later][0])
        self.dropped.not_later += int((~later).sum())
        self._last_s = max(self._last_s, float(t.max()))
        return t[later], x[later]

    def _extend(self, t: NDArray[np.float64], x: NDArray[np.float64]) -> list[GridBlock]:
        if not len(t):
            return []
        if not len(self._t):
            self._stretch_start_s = float(t[0])
        if self._low_pass is None:
            old_enough = np.flatnonzero(t - self._stretch_start_s >= RATE_DECISION_S)
            if len(old_enough):
                i = old_enough[0]
                self._decide(self._stretch_count + int(i), float(t[i]))
        self._stretch_count += len(t)
        self._t = np.concatenate([self._t, t])
        self._x = np.concatenate([self._x, x])
        return [] if self._low_pass is None else self._emit(final=False)

    def _decide(self, n_intervals: int, t_s: float) -> None:
        span_s = t_s - self._stretch_start_s
        self._low_pass = span_s > 0 and n_intervals / span_s > LOW_PASS_ABOVE_HZ

    def _end_stretch(self) -> list[GridBlock]:
        if not len(self._t):
            return []
        if self._low_pass is None:
            self._decide(self._stretch_count - 1, float(self._t[-1]))
        blocks = self._emit(final=True)
        self._t, self._x = self._t[:0], self._x[:0]
        self._low_pass, self._stretch_count = None, 0
        return blocks

    def _grid_ceil(self, t_s: float) -> int:
        """First grid index at or after a time."""
        assert self.origin_s is not None
        return int(np.ceil((t_s - self.origin_s) / self._step_s - _EPS_GRID))

    def _emit(self, final: bool) -> list[GridBlock]:
        """Grid values whose neighbourhood is complete (all that are left, when `final`)."""
        t = self._t
        first = max(self._next_index, self._grid_ceil(float(t[0])))
        if final:
            assert self.origin_s is not None
            stop = int(np.floor((float(t[-1]) - self.origin_s) / self._step_s + _EPS_GRID)) + 1
        elif len(t) < 3:
            return []  # the slope at a sample needs the one after it
        else:
            known_to_s = float(t[-2]) - (_HALF_WIDTH_S if self._low_pass else 0.0)
            stop = self._grid_ceil(known_to_s)
        if stop <= first:
            return []
        assert self.origin_s is not None
        g = self.origin_s + np.arange(first, stop, dtype=np.float64) * self._step_s
        values = _interpolate(t, self._x, g)
        if self._low_pass:
            _filter_into(values, t, self._x, g, self._stretch_start_s)
        self._next_index = stop
        self._forget(float(g[-1]))
        return [GridBlock(first, values.astype(np.float32))]

    def _forget(self, done_s: float) -> None:
        """Drop the samples that no unfinished grid value needs."""
        reach_s = _HALF_WIDTH_S if self._low_pass else 0.0
        # Two more than the value needs: the slope at its left neighbour looks one further back,
        # and so does the time that the kernel's outermost sample stands for.
        keep = max(0, int(np.searchsorted(self._t, done_s - reach_s, side="right")) - 3)
        if keep:
            self._t, self._x = self._t[keep:], self._x[keep:]


def _until_clock_error(
    t: NDArray[np.float64], latest_before: NDArray[np.float64]
) -> tuple[int, str]:
    """How many samples come before the clock was reset or set, and what to say of it ("" if not).

    Args:
        t: (N,) stamps.
        latest_before: (N,) the latest stamp before each.
    """
    step = t - latest_before
    wrong = np.flatnonzero((step < -MAX_BACKWARD_S) | (np.isfinite(step) & (step > MAX_JUMP_S)))
    if not len(wrong):
        return len(t), ""
    i = int(wrong[0])
    where = f"(from {latest_before[i]:.3f} s to {t[i]:.3f} s)"
    if step[i] < 0:
        return i, (
            f"time goes back by {-step[i]:.3f} s {where}: the device's clock was reset, or the "
            "rows are not in the order of measurement. Split the recording there, or sort it by "
            "time."
        )
    return i, (
        f"time jumps ahead by {step[i] / 3600:.1f} h {where}: the device's clock was set, or these "
        "are two recordings. Split the recording there."
    )


def _interpolate(
    t: NDArray[np.float64], x: NDArray[np.float64], g: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Monotone cubic Hermite interpolation of samples (n, C) at the times g -> (len(g), C)."""
    if len(t) == 1:
        return np.repeat(x, len(g), axis=0)
    step = np.diff(t)
    # Broadcasting a column over six channels, and indexing rows by an array, take NumPy several
    # times as long as the same work on whole arrays and `take`.
    h = _each_channel(step, x)
    secant = np.diff(x, axis=0) / h
    slope = np.concatenate([secant[:1], _inner_slopes(h, secant), secant[-1:]])
    rise = secant * h
    left, right = slope[:-1] * h, slope[1:] * h
    i = np.clip(np.searchsorted(t, g + _EPS_GRID / SIGNAL.rate_hz, side="right") - 1, 0, len(h) - 1)
    u = _each_channel(np.clip((g - t.take(i)) / step.take(i), 0.0, 1.0), x)
    # Hermite form around the left sample; exact at u = 0 and monotone between the samples. Each
    # interval's coefficients are worked out once: a slow source has many grid times in each.
    quadratic, cubic = 3 * rise - 2 * left - right, left + right - 2 * rise
    values = cubic.take(i, axis=0)
    for coefficient in (quadratic, left, x):
        values *= u
        values += coefficient.take(i, axis=0)
    return values


def _each_channel(of_row: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) -> (n, C), the same in each of the channels of x (n, C)."""
    return of_row.repeat(x.shape[1]).reshape(-1, x.shape[1])


def _inner_slopes(h: NDArray[np.float64], secant: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fritsch-Butland slopes: weighted harmonic mean of the two secants, 0 at an extremum."""
    before, after = secant[:-1], secant[1:]
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same_sign = before * after > 0
    safe_before, safe_after = np.where(same_sign, before, 1.0), np.where(same_sign, after, 1.0)
    return np.where(same_sign, (w1 + w2) / (w1 / safe_before + w2 / safe_after), 0.0)


def _kernel(offset_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kaiser-windowed sinc, unit area; 0 outside the half width."""
    inside = np.clip(1.0 - (offset_s / _HALF_WIDTH_S) ** 2, 0.0, None)
    window = np.where(
        np.abs(offset_s) < _HALF_WIDTH_S, np.i0(_BETA * np.sqrt(inside)) / _I0_BETA, 0
    )
    return 2 * _CUTOFF_HZ * np.sinc(2 * _CUTOFF_HZ * offset_s) * window


def _filter_into(
    values: NDArray[np.float64],
    t: NDArray[np.float64],
    x: NDArray[np.float64],
    g: NDArray[np.float64],
    stretch_start_s: float,
) -> None:
    """Replace interpolated values by low-passed ones wherever the kernel has its samples: not
    within its half width of a gap, where it would see one side only, and not over a hole."""
    if len(t) < 3:
        return
    stands_for_s = np.empty_like(t)
    stands_for_s[1:-1] = (t[2:] - t[:-2]) / 2
    stands_for_s[0], stands_for_s[-1] = t[1] - t[0], t[-1] - t[-2]
    for start in range(0, len(g), _KERNEL_ROWS):
        rows = slice(start, start + _KERNEL_ROWS)
        lo = np.searchsorted(t, g[rows] - _HALF_WIDTH_S, side="left")
        hi = np.searchsorted(t, g[rows] + _HALF_WIDTH_S, side="right")
        column = lo[:, None] + np.arange(max(1, int((hi - lo).max())))
        inside = column < hi[:, None]
        column = np.minimum(column, len(t) - 1)
        weight = np.where(inside, _kernel(g[rows, None] - t[column]) * stands_for_s[column], 0.0)
        # cumsum adds strictly from left to right, so padding cannot change the rounding, as the
        # pairwise order of sum() would.
        total = np.cumsum(weight, axis=1)[:, -1]
        filtered = (
            np.cumsum(weight[:, :, None] * x[column], axis=1)[:, -1]
            / np.where(total == 0, 1.0, total)[:, None]
        )
        supported = (
            (np.abs(total - 1.0) < _SUPPORT_TOLERANCE)
            & (g[rows] - _HALF_WIDTH_S >= stretch_start_s)
            & (g[rows] + _HALF_WIDTH_S <= t[-1])
        )
        values[rows] = np.where(supported[:, None], filtered, values[rows])
