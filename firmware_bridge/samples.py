"""What every source of samples hands on: timestamped samples in SI units.

Units are converted here and nowhere else: a decoder or file reader multiplies by one of these
factors at the border, and everything behind it is m/s^2, rad/s and seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STANDARD_GRAVITY_MPS2 = 9.80665
"""1 g by definition (CGPM 1901)."""

ACC_UNITS_MPS2 = {
    "m/s^2": 1.0,
    "g": STANDARD_GRAVITY_MPS2,
    "mg": STANDARD_GRAVITY_MPS2 / 1000.0,
}
"""Accelerometer unit -> factor to m/s^2."""

GYRO_UNITS_RADS = {
    "rad/s": 1.0,
    "deg/s": math.pi / 180.0,
    "mdeg/s": math.pi / 180_000.0,
}
"""Gyroscope unit -> factor to rad/s."""

TIME_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Time unit -> factor to seconds."""


@dataclass(frozen=True)
class Samples:
    """Some consecutive samples of one device, oldest first."""

    t_s: NDArray[np.float64]
    """(N,) when each sample was measured, in seconds of the source's own clock."""

    acc_mps2: NDArray[np.float64]
    """(N, 3) ax ay az in m/s^2, gravity included."""

    gyro_rads: NDArray[np.float64] | None
    """(N, 3) gx gy gz in rad/s; None for a device without a gyroscope."""

    def __post_init__(self) -> None:
        n = len(self.t_s)
        for name, values in (("acc_mps2", self.acc_mps2), ("gyro_rads", self.gyro_rads)):
            if values is not None and values.shape != (n, 3):
                raise ValueError(f"{name} has shape {values.shape}, expected ({n}, 3)")

    def __len__(self) -> int:
        return len(self.t_s)

    def __getitem__(self, rows: slice) -> Samples:
        gyro = None if self.gyro_rads is None else self.gyro_rads[rows]
        return Samples(self.t_s[rows], self.acc_mps2[rows], gyro)

    @staticmethod
    def joined(parts: list[Samples]) -> Samples:
        """Some chunks of one device, one after another."""
        gyro = [p.gyro_rads for p in parts if p.gyro_rads is not None]
        return Samples(
            np.concatenate([p.t_s for p in parts]),
            np.concatenate([p.acc_mps2 for p in parts]),
            np.concatenate(gyro) if gyro else None,
        )

    def shifted(self, offset_s: float) -> Samples:
        """The same samples, all `offset_s` later."""
        return Samples(self.t_s + offset_s, self.acc_mps2, self.gyro_rads)
