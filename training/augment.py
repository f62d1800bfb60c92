"""Augmentation of training windows, on whole batches: (B, 6, 1000) -> (B, 6, 1000).

Missing samples stay NaN throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edge.spec import SIGNAL


@dataclass(frozen=True)
class AugmentConfig:
    """How much of what; 0 turns an augmentation off."""

    rotation: float = 1.0
    """Fraction of windows turned freely, accelerometer and gyroscope together: devices are worn
    in any orientation."""

    gain: float = 0.1
    """Each sensor's scale error: uniform in 1 +- gain."""

    noise_mps2: float = 0.05
    noise_rads: float = 0.02
    """Standard deviation of white noise added to each sample."""

    gyro_dropout: float = 0.15
    """Fraction of windows that lose their gyroscope: some devices have none."""

    partial: float = 0.15
    """Fraction of windows that keep only 1 to 5 s: short segments and gaps."""


def random_rotations(n: int, generator: torch.Generator) -> Tensor:
    """(n, 3, 3) rotations, uniform over SO(3), by way of random unit quaternions (Shoemake)."""
    q = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    w, x, y, z = q.unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def augment(imu: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """A new batch with every window disturbed on its own."""
    batch, _, length = imu.shape

    def chosen(fraction: float) -> Tensor:
        return torch.rand(batch, generator=generator) < fraction

    turn = random_rotations(batch, generator)
    turn[~chosen(config.rotation)] = torch.eye(3)
    gain = 1 + config.gain * (2 * torch.rand(batch, 2, 1, 1, generator=generator) - 1)
    sensors = (turn[:, None] @ imu.reshape(batch, 2, 3, length)) * gain
    imu = sensors.reshape(batch, 6, length)
    sigma = torch.tensor([config.noise_mps2] * 3 + [config.noise_rads] * 3)[:, None]
    imu = imu + sigma * torch.randn(imu.shape, generator=generator)
    imu[chosen(config.gyro_dropout), 3:] = torch.nan
    _keep_part(imu, chosen(config.partial), generator)
    return imu


def _keep_part(imu: Tensor, rows: Tensor, generator: torch.Generator) -> None:
    """Leave 1 to 5 s of the chosen windows, moved to the front as padded windows are."""
    for row in rows.nonzero()[:, 0].tolist():
        length = imu.shape[2]
        kept = int(torch.randint(SIGNAL.rate_hz, length + 1, (1,), generator=generator))
        start = int(torch.randint(0, length - kept + 1, (1,), generator=generator))
        imu[row, :, :kept] = imu[row, :, start : start + kept].clone()
        imu[row, :, kept:] = torch.nan
