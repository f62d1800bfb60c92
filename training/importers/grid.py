"""Stamped samples with holes -> uniform grids, and labels onto them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.corpus import Segment
from edge.resample import MAX_GAP_S
from firmware_bridge.errors import InputError

_ON_GRID = 1e-6
"""Sample intervals: a stamp this close to a grid time is on it."""


@dataclass(frozen=True)
class Piece:
    """An uninterrupted stretch on a uniform grid: sample i is at start_s + i / rate_hz."""

    start_s: float
    acc_mps2: NDArray[np.float64]
    gyro_rads: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.acc_mps2)


def pieces(
    t_s: NDArray[np.float64],
    acc_mps2: NDArray[np.float64],
    gyro_rads: NDArray[np.float64],
    rate_hz: float,
    max_gap_s: float = MAX_GAP_S,
    *,
    gyro_t_s: NDArray[np.float64] | None = None,
) -> list[Piece]:
    """Put stamped samples on uniform grids, linearly interpolated, without inventing gaps.

    Rows with NaN count as missing. Two samples of a sensor more than `max_gap_s` apart end one
    piece and start the next. Stamps are sorted; of equal ones the first counts. The grid is the
    accelerometer's: it starts at its first sample after each gap.

    Args:
        t_s: (N,) stamps of the accelerometer, and of the gyroscope unless `gyro_t_s` is given.
        acc_mps2: (N, 3).
        gyro_rads: (N, 3), or (M, 3) with `gyro_t_s`.
        rate_hz: of the grid: the native nominal rate.
        max_gap_s: the longest hole that is interpolated.
        gyro_t_s: (M,) stamps of a gyroscope with a clock of its own, same zero as `t_s`.
    """
    acc = _Stream.of(t_s, acc_mps2)
    gyro = _Stream.of(t_s if gyro_t_s is None else gyro_t_s, gyro_rads)
    found = []
    gyro_runs = gyro.runs(max_gap_s)
    first = 0
    for start_s, stop_s in acc.runs(max_gap_s):
        while first < len(gyro_runs) and gyro_runs[first][1] < start_s:
            first += 1
        for gyro_start_s, gyro_stop_s in gyro_runs[first:]:
            if gyro_start_s > stop_s:
                break
            begin = math.ceil(max(0.0, gyro_start_s - start_s) * rate_hz - _ON_GRID)
            end = math.floor((min(stop_s, gyro_stop_s) - start_s) * rate_hz + _ON_GRID)
            if end >= begin:
                grid_s = start_s + np.arange(begin, end + 1) / rate_hz
                found.append(Piece(float(grid_s[0]), acc.at(grid_s), gyro.at(grid_s)))
    return found


@dataclass(frozen=True)
class _Stream:
    """A sensor's samples with strictly ascending stamps, without NaN."""

    t_s: NDArray[np.float64]
    values: NDArray[np.float64]

    @staticmethod
    def of(t_s: NDArray[np.float64], values: NDArray[np.float64]) -> _Stream:
        keep = np.isfinite(t_s) & np.isfinite(values).all(axis=1)
        unique_s, rows = np.unique(t_s[keep], return_index=True)
        return _Stream(unique_s, values[keep][rows])

    def runs(self, max_gap_s: float) -> list[tuple[float, float]]:
        """(first, last) stamp of each stretch without a longer gap."""
        if not len(self.t_s):
            return []
        # A hole of exactly max_gap_s is not "more than": float stamps must not decide that.
        breaks = np.flatnonzero(np.diff(self.t_s) > max_gap_s + 1e-6)
        starts, stops = self.t_s[np.r_[0, breaks + 1]], self.t_s[np.r_[breaks, -1]]
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def at(self, grid_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(len(grid_s), 3) interpolated."""
        near = slice(
            max(0, int(np.searchsorted(self.t_s, grid_s[0])) - 1),
            int(np.searchsorted(self.t_s, grid_s[-1])) + 1,
        )
        t_s, values = self.t_s[near], self.values[near]
        return np.stack([np.interp(grid_s, t_s, axis) for axis in values.T], axis=1)


def segments_of(
    t_s: NDArray[np.float64],
    labels: Sequence[str | None],
    piece: Piece,
    rate_hz: float,
    max_gap_s: float = MAX_GAP_S,
) -> tuple[Segment, ...]:
    """Per-sample labels -> segments on a piece's grid, one for each run of a label.

    A grid sample has the label of the nearest stamp; further than `max_gap_s` from any it has
    none.

    Args:
        t_s: (N,) ascending stamps of the labels.
        labels: (N,) a label, or None for "unlabelled".
        piece: as `pieces` returned it.
        rate_hz: the piece's grid.
        max_gap_s: how far a label reaches.
    """
    grid_s = piece.start_s + np.arange(len(piece)) / rate_hz
    reach = np.array([grid_s[0] - max_gap_s, grid_s[-1] + max_gap_s])
    low, high = np.searchsorted(t_s, reach)
    if low == high:
        return ()
    stamps_s, near = t_s[low:high], labels[low:high]
    right = np.minimum(np.searchsorted(stamps_s, grid_s), len(stamps_s) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(grid_s - stamps_s[left] <= stamps_s[right] - grid_s, left, right)
    far = np.abs(stamps_s[nearest] - grid_s) > max_gap_s
    return runs_of([None if f else near[i] for i, f in zip(nearest, far, strict=True)])


def runs_of(labels: Sequence[str | None]) -> tuple[Segment, ...]:
    """One label a sample -> a segment for each run of a label; None is unlabelled."""
    runs = [(label, sum(1 for _ in run)) for label, run in groupby(labels)]
    stops = accumulate(n for _, n in runs)
    return tuple(
        Segment(stop - n, stop, label)
        for (label, n), stop in zip(runs, stops, strict=True)
        if label is not None
    )


def labels_of(path: Path, codes: NDArray[Any], names: Mapping[Any, str | None]) -> list[str | None]:
    """The label of each row's activity code.

    Args:
        path: the file whose line i + 1 holds `codes[i]`.
        codes: (N,) as the file has them.
        names: code -> label, None for what the data set calls no activity.

    Raises:
        InputError: a code that the data set does not have; names the line.
    """
    listed = codes.tolist()
    for line, code in enumerate(listed, start=1):
        if code not in names:
            known = ", ".join(str(c) for c in names)
            raise InputError(f"{path}:{line}: unknown activity {code!r}; known: {known}")
    return [names[code] for code in listed]
