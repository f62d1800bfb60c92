"""Separate accelerometer and gyroscope streams of one device -> samples of six axes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.link import Kind
from firmware_bridge.samples import Samples

MAX_BRACKET_S = 0.25
"""The gyroscope is interpolated between two of its samples that are less than this apart; further
apart they bound a gap, as everywhere in the glossary."""

MAX_WAIT_S = 5.0
"""How much of one stream waits for the other. A Polar sends a packet when it is full, which takes
up to 2 s at rest (links.md, section 1.1), so the streams may be that far apart in sound health."""

Floats = NDArray[np.float64]


class Merger:
    """Joins placed packets; the samples are at the accelerometer's times.

    Where the device stamps its samples, they are joined by these stamps: both streams are of one
    clock, while each waits for the radio by itself and is placed on the host's clock by itself.

    An accelerometer sample that no two gyroscope samples bracket is left out and counted: a hole
    in the gyroscope is a gap of the device. Nothing comes out further than the slower stream.

    Args:
        kinds: what the device sends: "imu" alone, "acc" alone (then there is no gyroscope), or
            "acc" and "gyro".

    Raises:
        ValueError: any other combination.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds: frozenset[Kind] = frozenset(kinds)
        if self.kinds not in ({"imu"}, {"acc"}, {"acc", "gyro"}):
            raise ValueError(f"no samples come of {sorted(self.kinds)}")
        self.unpaired = 0
        """Accelerometer samples left out, as the gyroscope had a hole there or was silent."""
        self._acc_t_s = np.empty(0)  # what comes out; the streams are joined by the next ones
        self._acc_s, self._acc = np.empty(0), np.empty((0, 3))
        self._gyro_s, self._gyro = np.empty(0), np.empty((0, 3))
        self._is_stamped = False
        self._last_s: dict[Kind, float] = {}  # by what the streams are joined

    def push(
        self, kind: Kind, t_s: Floats, values: Floats, device_s: Floats | None = None
    ) -> Samples | None:
        """Take a packet; return the samples that are now complete, if any.

        Args:
            kind: one of the device's.
            t_s: (n,) seconds, ascending from packet to packet of a kind.
            values: (n, 6) for "imu", else (n, 3), as in `Packet`.
            device_s: (n,) ascending seconds of the device's clock, as in `Packet`; None for a
                device that does not stamp. Where they step back, or come or go, all begins anew.
        """
        if not len(t_s):
            return None
        if kind == "imu":
            return Samples(t_s, values[:, :3], values[:, 3:])
        if "gyro" not in self.kinds:
            return Samples(t_s, values, None)
        by_s = t_s if device_s is None else device_s
        if self._is_stamped != (device_s is not None) or by_s[0] <= self._last_s.get(kind, -np.inf):
            self.flush()
            self._is_stamped = device_s is not None
        self._last_s[kind] = float(by_s[-1])
        if kind == "acc":
            self._acc_t_s = np.concatenate([self._acc_t_s, t_s])
            self._acc_s = np.concatenate([self._acc_s, by_s])
            self._acc = np.concatenate([self._acc, values])
        else:
            self._gyro_s = np.concatenate([self._gyro_s, by_s])
            self._gyro = np.concatenate([self._gyro, values])
        merged = self._merged()
        self._bound()
        return merged

    def flush(self) -> None:
        """No more comes of this stretch: what waits for its other half is left out."""
        self.unpaired += len(self._acc_s)
        self._drop_acc(len(self._acc_s))
        self._gyro_s, self._gyro = self._gyro_s[:0], self._gyro[:0]
        self._last_s.clear()

    def _merged(self) -> Samples | None:
        if not len(self._acc_s) or not len(self._gyro_s):
            return None
        ready = int(np.searchsorted(self._acc_s, self._gyro_s[-1], side="right"))
        t_s, at_s, acc = self._acc_t_s[:ready], self._acc_s[:ready], self._acc[:ready]
        self._drop_acc(ready)
        # The bracket of a sample: the last gyroscope value not after it, the first not before it.
        before = np.searchsorted(self._gyro_s, at_s, side="right") - 1
        after = np.searchsorted(self._gyro_s, at_s, side="left")
        known = (before >= 0) & (self._gyro_s[after] - self._gyro_s[before] < MAX_BRACKET_S)
        self.unpaired += int((~known).sum())
        gyro = self._interpolated(at_s, before, after)[known]
        self._forget(float(at_s[-1]) if ready else -np.inf)
        return Samples(t_s[known], acc[known], gyro) if known.any() else None

    def _drop_acc(self, n: int) -> None:
        self._acc_t_s, self._acc_s = self._acc_t_s[n:], self._acc_s[n:]
        self._acc = self._acc[n:]

    def _interpolated(
        self, at_s: Floats, before: NDArray[np.intp], after: NDArray[np.intp]
    ) -> Floats:
        left_s, right_s = self._gyro_s[before], self._gyro_s[after]
        width_s = np.where(right_s > left_s, right_s - left_s, 1.0)
        left, right = self._gyro[before], self._gyro[after]
        return np.asarray(left + ((at_s - left_s) / width_s)[:, None] * (right - left))

    def _forget(self, done_s: float) -> None:
        """Drop gyroscope samples that no coming accelerometer sample lies behind."""
        keep = max(0, int(np.searchsorted(self._gyro_s, done_s, side="right")) - 1)
        self._gyro_s, self._gyro = self._gyro_s[keep:], self._gyro[keep:]

    def _bound(self) -> None:
        """Wait no longer than `MAX_WAIT_S` for a stream that is silent."""
        if len(self._acc_s):
            late = int(np.searchsorted(self._acc_s, self._acc_s[-1] - MAX_WAIT_S))
            self.unpaired += late
            self._drop_acc(late)
        if len(self._gyro_s):
            self._forget(float(self._gyro_s[-1]) - MAX_WAIT_S)
