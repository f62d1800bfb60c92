"""Which way is up for the wearer, learned on line while they walk.

A device is worn at any angle, so gravity alone does not say how the body is tilted. Whoever walks
is upright: the mean acceleration of a stretch of gait is the wearer's upright direction in the
device's own axes. Later windows are compared with it (`edge/posture.py`).

The tracker looks once a second at the last 5 s, on seconds of the grid, so the chunks that a
stream comes in change nothing, bit for bit: sums run along the middle axis of arrays, where NumPy
adds element by element in order, however many seconds are worked out at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.resample import GridBlock
from edge.spec import SIGNAL

MIN_LENGTH_MPS2 = 2.0
"""A mean acceleration shorter than this is no gravity: free fall, or a device that turned over."""

_DECIMATION = 8
"""200 Hz -> 25 Hz: gait and its first harmonics lie below 8 Hz."""

_A_SECOND = SIGNAL.rate_hz // _DECIMATION
_LOOK_S = 5
"""Each step looks at as much as a window holds: three strides of a slow walker."""

_LOOK = _LOOK_S * _A_SECOND
_MAX_MISSING = 0.2

_MIN_STD_MPS2, _MAX_STD_MPS2 = 0.8, 6.0
"""Of |acceleration|: sitting, standing and riding stay below 0.8; running and jumping, in which
the trunk leans and the device swings, exceed 6."""

_MIN_LAG, _MAX_LAG = math.ceil(0.32 * _A_SECOND), math.floor(1.5 * _A_SECOND)
"""Lags of a period: a quick step takes 0.32 s, a slow stride (two steps, which is what an arm or a
leg repeats) 1.5 s."""

_MIN_AUTOCORRELATION = 0.65
"""Walking repeats itself more closely than this, housework and fidgeting do not."""

_STEADY_DEG = 20.0
"""A second's mean may turn this far from that of the 5 s: a device that is handled turns more."""

_FORGET_STEPS = 120.0
"""Two minutes of walking: long against a bend of the path, short against a shifting belt."""

_AGREE_DEG = 30.0
_REMOUNT_DEG = 35.0
"""Slopes, stairs and a stooped walk stay within 30 degrees; beyond 35 the device is worn in
another way, or it was no gait."""

_CERTAIN = 8
"""Gait steps that make a direction known, or a candidate the new reference: what lasts a moment is
seen by 5 steps."""

_INVERTED_DEG, _INVERTED_STEPS = 140.0, 10
"""Nobody rests upside down for so long: the device was turned over."""

_BATCH_SECONDS = 300
"""Worked out at once: bounds the memory of a long block."""

_FORGET = math.exp(-1.0 / _FORGET_STEPS)
_COS_AGREE = math.cos(math.radians(_AGREE_DEG))
_COS_REMOUNT = math.cos(math.radians(_REMOUNT_DEG))
_COS_INVERTED = math.cos(math.radians(_INVERTED_DEG))

Vector = tuple[float, float, float]

_Seconds = deque[list[float]]
"""Of each of the latest 5 s: the sums of ax ay az |a| |a|^2, and how many samples there are."""


class UprightTracker:
    """Follows the upright direction of one stream.

    Push its grid blocks in order, and ask for the reference at ascending grid indices.
    """

    def __init__(self) -> None:
        self._head = 0  # grid index after the newest sample
        self._partial = np.empty((0, 3), np.float32)  # samples of the unfinished second
        self._sums: _Seconds = deque([[0.0] * 6] * _LOOK_S, maxlen=_LOOK_S)
        self._magnitude = np.full(_LOOK - _A_SECOND, np.nan)  # of the 4 s before that
        self._seconds = 0  # seconds of grid looked at
        self._votes = _Votes()
        self._history: deque[tuple[int, Vector | None]] = deque([(0, None)])

    def push(self, block: GridBlock) -> None:
        """Take the next block; what lies between two blocks is missing."""
        if block.start_index > self._head:
            self._miss_until(block.start_index)
        self._take(block.values[:, :3])

    def reference_at(self, index: int) -> Vector | None:
        """The reference after the last step whose 5 s end at or before a grid index.

        Args:
            index: not below the one asked for before; what is older is forgotten.

        Returns:
            A unit vector in device axes, of the acceleration of an upright wearer at rest; None
            as long as too little gait was seen.
        """
        while len(self._history) > 1 and self._history[1][0] <= index:
            self._history.popleft()
        return self._history[0][1]

    def _miss_until(self, index: int) -> None:
        """Fill a gap. Of a long one only its first 5 s: all steps after them see nothing at all."""
        all_missing = -(-self._head // SIGNAL.rate_hz) * SIGNAL.rate_hz + _LOOK * _DECIMATION
        if index > all_missing:
            self._take(_missing(all_missing - self._head))
            self._seconds = index // SIGNAL.rate_hz
            self._head = self._seconds * SIGNAL.rate_hz
        self._take(_missing(index - self._head))

    def _take(self, values: NDArray[np.float32]) -> None:
        """Take (n, 3) values from the head on."""
        self._head += len(values)
        while len(values):
            room = _BATCH_SECONDS * SIGNAL.rate_hz - len(self._partial)
            batch = np.concatenate([self._partial, values[:room]])
            values = values[room:]
            whole = len(batch) // SIGNAL.rate_hz * SIGNAL.rate_hz
            if whole:
                self._look(batch[:whole])
            self._partial = batch[whole:]

    def _look(self, values: NDArray[np.float32]) -> None:
        """Take the steps at the end of each of some whole seconds."""
        acc = values.astype(np.float64).reshape(-1, _DECIMATION, 3).sum(axis=1) / _DECIMATION
        magnitude = np.sqrt((acc * acc).sum(axis=1))
        columns = np.empty((len(acc), 6))
        columns[:, :3], columns[:, 3], columns[:, 4] = acc, magnitude, magnitude * magnitude
        columns[:, 5] = 1
        columns[np.isnan(magnitude)] = 0
        self._magnitude = np.concatenate([self._magnitude, magnitude])
        for k, sums in enumerate(columns.reshape(-1, _A_SECOND, 6).sum(axis=1).tolist()):
            self._sums.append(sums)
            self._seconds += 1
            direction = _direction(self._sums)
            first = k * _A_SECOND
            is_gait = direction is not None and _is_gait(
                self._sums, self._magnitude[first : first + _LOOK]
            )
            if self._votes.step(direction, is_gait):
                self._history.append((self._seconds * SIGNAL.rate_hz, self._votes.known()))
        self._magnitude = self._magnitude[-(_LOOK - _A_SECOND) :]


def _missing(n: int) -> NDArray[np.float32]:
    return np.full((n, 3), np.nan, np.float32)


def _direction(seconds: _Seconds) -> Vector | None:
    """The steady mean direction of 5 s; None if there is none or too much is missing."""
    if sum(s[5] for s in seconds) < (1 - _MAX_MISSING) * _LOOK:
        return None
    return steady_direction([(s[0], s[1], s[2], s[5]) for s in seconds], _A_SECOND, _STEADY_DEG)


def _is_gait(seconds: _Seconds, magnitude: NDArray[np.float64]) -> bool:
    """Whether 5 s, (125,) |acceleration| with NaN where missing, are as strong and as regular."""
    count = sum(s[5] for s in seconds)
    mean = sum(s[3] for s in seconds) / count
    variance = sum(s[4] for s in seconds) / count - mean * mean
    if not _MIN_STD_MPS2**2 <= variance <= _MAX_STD_MPS2**2:
        return False
    return _periodicity(magnitude - mean) >= _MIN_AUTOCORRELATION * variance


def _periodicity(around_zero: NDArray[np.float64]) -> float:
    """The highest peak of the unbiased autocovariance over the lags of gait.

    A peak, for a slow swing (an arm raised and lowered) resembles itself a little later as well:
    its autocovariance is high at the shortest lags, and falls.

    Args:
        around_zero: (125,) less their mean, NaN where missing.

    Returns:
        At most about their variance; 0 without a peak.
    """
    missing = np.isnan(around_zero)
    if missing.any():
        pairs = _products_at_lags((~missing).astype(np.float64))
        similarity = _products_at_lags(np.where(missing, 0, around_zero)) / pairs
    else:
        similarity = _products_at_lags(around_zero) / _ALL_PAIRS
    inner = similarity[1:-1]
    peaks = inner[(inner >= similarity[:-2]) & (inner >= similarity[2:])]
    return float(peaks.max(initial=0.0))


def steady_direction(
    pieces: Sequence[tuple[float, float, float, float]], full: int, limit_deg: float
) -> Vector | None:
    """The direction of the mean acceleration of a stretch, if it holds through all its pieces.

    Plain floats: of a handful of numbers, NumPy's calls would cost several times as much.

    Args:
        pieces: of each, the sums of ax, ay and az in m/s^2, and how many samples were measured.
            Pieces that lack more than half of theirs are not asked.
        full: samples in a whole piece.
        limit_deg: how far a piece's mean may point from the stretch's.

    Returns:
        A unit vector; None where a piece points elsewhere, the mean is shorter than
        `MIN_LENGTH_MPS2` or no piece can be asked.
    """
    asked = [piece for piece in pieces if 2 * piece[3] >= full]
    x, y, z, count = (sum(column) for column in zip(*pieces, strict=True))
    length = math.sqrt(x * x + y * y + z * z)
    if not asked or length < MIN_LENGTH_MPS2 * count:
        return None
    x, y, z = x / length, y / length, z / length
    limit = math.cos(math.radians(limit_deg))
    for a, b, c, _ in asked:
        if a * x + b * y + c * z < limit * math.sqrt(a * a + b * b + c * c):
            return None
    return x, y, z


def _products_at_lags(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(125,) -> sums of the products of all pairs a lag apart, from one lag below those of gait to
    one above: a peak has two neighbours."""
    padded = np.zeros(_LOOK + _MAX_LAG + 1)
    padded[:_LOOK] = values
    return np.correlate(padded[_MIN_LAG - 1 :], values, "valid")


_ALL_PAIRS = _products_at_lags(np.ones(_LOOK))
"""How many pairs there are where nothing is missing."""


class _Votes:
    """Turns the steps, one by one, into the reference."""

    def __init__(self) -> None:
        self._reference = _Direction()
        self._candidate = _Direction()
        self._confirmed = 0  # agreeing votes since the candidate came up
        self._inverted = 0

    def known(self) -> Vector | None:
        """The reference, once it is certain."""
        return self._reference.unit if self._reference.votes >= _CERTAIN else None

    def step(self, direction: Vector | None, is_gait: bool) -> bool:
        """Take a step's direction (None if not steady); whether the reference may have changed."""
        if direction is None:
            self._inverted = 0
            return False
        if is_gait:
            self._vote(direction)
        inverted = self._reference.votes and self._reference.cosine(direction) < _COS_INVERTED
        self._inverted = self._inverted + 1 if inverted else 0
        if self._inverted < _INVERTED_STEPS:
            return is_gait
        self._reference, self._candidate, self._inverted = _Direction(), _Direction(), 0
        return True

    def _vote(self, vote: Vector) -> None:
        if not self._reference.votes:
            self._reference.add(vote, agrees=True)
            return
        cosine = self._reference.cosine(vote)
        if cosine >= _COS_REMOUNT:
            self._reference.add(vote, agrees=cosine >= _COS_AGREE)
            self._confirmed += cosine >= _COS_AGREE
            if self._confirmed >= _CERTAIN:
                self._candidate = _Direction()
            return
        if not (self._candidate.votes and self._candidate.cosine(vote) >= _COS_AGREE):
            self._candidate, self._confirmed = _Direction(), 0
        self._candidate.add(vote, agrees=True)
        if self._candidate.votes >= _CERTAIN:
            self._reference, self._candidate = self._candidate, _Direction()


class _Direction:
    """An exponentially forgetting mean of unit vectors. Plain floats: a step has only a few."""

    def __init__(self) -> None:
        self.votes = 0
        """Votes that agreed with those before them."""
        self.unit: Vector = (0.0, 0.0, 0.0)
        self._sum: Vector = (0.0, 0.0, 0.0)

    def cosine(self, other: Vector) -> float:
        """Cosine with a unit vector."""
        x, y, z = self.unit
        return x * other[0] + y * other[1] + z * other[2]

    def add(self, vote: Vector, agrees: bool) -> None:
        """Take a unit vector."""
        x, y, z = (_FORGET * s + v for s, v in zip(self._sum, vote, strict=True))
        length = math.sqrt(x * x + y * y + z * z)
        self._sum, self.unit = (x, y, z), (x / length, y / length, z / length)
        self.votes += agrees
