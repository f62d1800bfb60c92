"""MATLAB files that hold one unit's (N, 6) readings: accelerometer in g, gyroscope in deg/s."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from firmware_bridge.errors import InputError
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS


@dataclass(frozen=True)
class MatReadings:
    """The readings of a .mat file in SI units, and its other variables."""

    acc_mps2: NDArray[np.float64]
    """(N, 3)."""

    gyro_rads: NDArray[np.float64]
    """(N, 3)."""

    variables: dict[str, Any]


def mat_readings(path: Path, variable: str) -> MatReadings:
    """Read the (N, 6) readings, g and deg/s, that a .mat file holds under a variable's name.

    Raises:
        InputError: the file is not a MATLAB file with such a variable.
    """
    try:
        variables = loadmat(path)
    except (MatReadError, ValueError, TypeError, NotImplementedError, OSError, zlib.error) as error:
        raise InputError(f"{path}: not a MATLAB file ({error})") from None
    if variable not in variables:
        names = ", ".join(name for name in variables if not name.startswith("__"))
        raise InputError(f"{path}: no variable {variable}; found: {names}")
    readings = np.asarray(variables.pop(variable), np.float64)
    if readings.ndim != 2 or readings.shape[1] != 6:
        raise InputError(f"{path}: {variable} has shape {readings.shape}; expected (N, 6)")
    return MatReadings(
        readings[:, :3] * ACC_UNITS_MPS2["g"], readings[:, 3:] * GYRO_UNITS_RADS["deg/s"], variables
    )
