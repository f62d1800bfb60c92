"""A simulated wearable: a wrist unit at a nominal 52 Hz with clock error, jitter and lost packets.

The motion is synthetic (gravity in a slowly swaying frame, harmonics of a step rate, sensor
noise): enough to exercise the whole path without hardware, not a measure of accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from firmware_bridge.samples import STANDARD_GRAVITY_MPS2, Samples

RATE_HZ = 52.0
_CLOCK_ERROR = 0.01
"""The true rate is this much above the nominal one."""

_JITTER_S = 0.002
_PACKET_SAMPLES = 4
_LOSS = 0.02
"""Fraction of packets that never arrive."""


@dataclass(frozen=True)
class Motion:
    """One activity of the script."""

    name: str
    duration_s: float
    step_hz: float
    acc_mps2: float
    """Amplitude of the steps."""
    gyro_rads: float
    tilt_rad: float
    """Angle between the device's z axis and upright."""


SCRIPT = (
    Motion("standing", 15.0, 0.0, 0.0, 0.0, 0.1),
    Motion("walking", 25.0, 1.8, 2.5, 1.2, 0.2),
    Motion("jogging", 20.0, 2.7, 8.0, 3.0, 0.3),
    Motion("walking", 15.0, 1.8, 2.5, 1.2, 0.2),
    Motion("lying", 15.0, 0.0, 0.0, 0.0, 1.5),
)
"""What the simulated wearer does, over and over."""


def simulated_packets(seed: int = 0) -> Iterator[Samples]:
    """Packets of a simulated wearable, without end and without waiting for real time."""
    rng = np.random.default_rng(seed)
    total_s = sum(m.duration_s for m in SCRIPT)
    ends_s = np.cumsum([m.duration_s for m in SCRIPT])
    packet = 0
    while True:
        index = packet * _PACKET_SAMPLES + np.arange(_PACKET_SAMPLES)
        true_s = index / (RATE_HZ * (1 + _CLOCK_ERROR))
        samples = _measure(
            true_s, [SCRIPT[i] for i in np.searchsorted(ends_s, true_s % total_s)], rng
        )
        packet += 1
        if rng.random() >= _LOSS:
            yield samples


def _measure(t_s: np.ndarray, motions: list[Motion], rng: np.random.Generator) -> Samples:
    n = len(t_s)
    tilt = np.array([m.tilt_rad for m in motions]) + 0.05 * np.sin(2 * np.pi * 0.1 * t_s)
    phase = 2 * np.pi * np.array([m.step_hz for m in motions]) * t_s
    acc = np.array([m.acc_mps2 for m in motions])
    gyro = np.array([m.gyro_rads for m in motions])
    gravity = STANDARD_GRAVITY_MPS2 * np.stack([np.sin(tilt), np.zeros(n), np.cos(tilt)], axis=1)
    steps = np.stack(
        [0.4 * np.sin(phase / 2), 0.3 * np.cos(phase), np.sin(phase) + 0.4 * np.sin(2 * phase)],
        axis=1,
    )
    swing = np.stack([np.cos(phase / 2), 0.3 * np.sin(phase), 0.2 * np.cos(phase)], axis=1)
    return Samples(
        t_s + rng.uniform(-_JITTER_S, _JITTER_S, n),
        gravity + acc[:, None] * steps + rng.normal(0, 0.05, (n, 3)),
        gyro[:, None] * swing + rng.normal(0, 0.01, (n, 3)),
    )
