"""What is augmented and how much: options, command line switches and the ablation table.

Without torch, so that `edge-train --help` and the ablation runner need none; the operations are
in `training.augment`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields, replace

from training.arguments import fraction, not_negative

ORIENTATIONS = ("free", "tilt-yaw", "none")


@dataclass(frozen=True)
class AugmentConfig:
    """How much of what; 0 (or "none") turns an augmentation off. Fractions are of windows."""

    orientation: str = "free"
    """How windows are turned, accelerometer and gyroscope together. "free": any rotation, the
    device is worn anyhow. "tilt-yaw": any turn about gravity and a bounded tilt, which keeps the
    direction that tells postures apart. "none": not at all."""

    rotation: float = 1.0
    """Fraction turned."""

    max_tilt_deg: float = 30.0
    """The largest tilt of "tilt-yaw", in degrees."""

    gain: float = 0.1
    """Each sensor's scale error: uniform in 1 +- gain."""

    noise_mps2: float = 0.05
    """Standard deviation of white noise added to each accelerometer sample, in m/s^2."""

    noise_rads: float = 0.02
    """The same for the gyroscope, in rad/s."""

    rate_degradation: float = 0.3
    """Fraction measured again as a sensor of 20 to 100 Hz would have."""

    bandwidth: float = 0.2
    """Fraction low-passed at 5 to 50 Hz: sensors filter before they sample."""

    gyro_dropout: float = 0.15
    """Fraction that loses its gyroscope: some devices have none."""

    partial: float = 0.15
    """Fraction that keeps only 1 to 5 s: short segments."""

    time_shift: float = 0.5
    """Fraction that starts up to 0.5 s later: an activity begins anywhere in a patch."""

    time_warp: float = 0.3
    """Fraction played 0.8 to 1.25 times as fast."""

    def __post_init__(self) -> None:
        if self.orientation not in ORIENTATIONS:
            raise ValueError(f"orientation {self.orientation!r} is none of {ORIENTATIONS}")
        for name in _FRACTIONS:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is no fraction between 0 and 1")
        for name in ("max_tilt_deg", "gain", "noise_mps2", "noise_rads"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} {value} is negative or not finite")


_FRACTIONS = (
    "rotation",
    "rate_degradation",
    "bandwidth",
    "gyro_dropout",
    "partial",
    "time_shift",
    "time_warp",
)

OFF = AugmentConfig(
    orientation="none",
    rotation=0.0,
    gain=0.0,
    noise_mps2=0.0,
    noise_rads=0.0,
    rate_degradation=0.0,
    bandwidth=0.0,
    gyro_dropout=0.0,
    partial=0.0,
    time_shift=0.0,
    time_warp=0.0,
)
"""No augmentation at all."""

_DEFAULT = AugmentConfig()

ABLATIONS: dict[str, AugmentConfig] = {
    "no rotation": replace(_DEFAULT, orientation="none"),
    "tilt-yaw instead of free": replace(_DEFAULT, orientation="tilt-yaw"),
    "no gain": replace(_DEFAULT, gain=0.0),
    "no noise": replace(_DEFAULT, noise_mps2=0.0, noise_rads=0.0),
    "no rate degradation": replace(_DEFAULT, rate_degradation=0.0),
    "no bandwidth": replace(_DEFAULT, bandwidth=0.0),
    "no gyro dropout": replace(_DEFAULT, gyro_dropout=0.0),
    "no partial": replace(_DEFAULT, partial=0.0),
    "no time shift": replace(_DEFAULT, time_shift=0.0),
    "no time warp": replace(_DEFAULT, time_warp=0.0),
    "none at all": OFF,
}
"""What a training run is repeated with to see what each augmentation is worth; the reference is
`AugmentConfig()`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One switch for each field of `AugmentConfig`, with its default."""
    group = parser.add_argument_group("augmentation", "how training windows are disturbed; 0: off")

    def add(flag: str, field: str, metavar: str, meaning: str) -> None:
        group.add_argument(
            flag,
            dest=field,
            type=fraction if field in _FRACTIONS else not_negative,
            default=getattr(_DEFAULT, field),
            metavar=metavar,
            help=f"{meaning} (default: %(default)s)",
        )

    group.add_argument(
        "--orientation",
        choices=ORIENTATIONS,
        default=_DEFAULT.orientation,
        help="turn windows freely, or about gravity with a bounded tilt (default: %(default)s)",
    )
    add("--rotation", "rotation", "FRACTION", "windows that are turned")
    add("--max-tilt", "max_tilt_deg", "DEG", "largest tilt of tilt-yaw")
    add("--gain", "gain", "FRACTION", "each sensor's scale error, uniform in 1 +- this")
    add("--noise-acc", "noise_mps2", "MPS2", "white noise of the accelerometer, in m/s^2")
    add("--noise-gyro", "noise_rads", "RADS", "white noise of the gyroscope, in rad/s")
    add("--rate-degradation", "rate_degradation", "FRACTION", "windows measured anew at 20-100 Hz")
    add("--bandwidth", "bandwidth", "FRACTION", "windows low-passed at 5-50 Hz")
    add("--gyro-dropout", "gyro_dropout", "FRACTION", "windows that lose their gyroscope")
    add("--partial", "partial", "FRACTION", "windows cut to 1-5 s")
    add("--time-shift", "time_shift", "FRACTION", "windows that start up to 0.5 s later")
    add("--time-warp", "time_warp", "FRACTION", "windows played 0.8-1.25 times as fast")


def config_from(args: argparse.Namespace) -> AugmentConfig:
    """The configuration that the switches of `add_arguments` ask for."""
    return AugmentConfig(**{f.name: getattr(args, f.name) for f in fields(AugmentConfig)})
