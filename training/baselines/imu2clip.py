"""IMU2CLIP's IMU encoder: stacked convolutions and a GRU.

Moon et al. 2023, "IMU2CLIP: Multimodal Contrastive Learning for IMU Motion Sensors from Egocentric
Videos and Text" (arXiv 2210.14395); shapes as in facebookresearch/imu2clip at 63530316,
lib/imu_models.py. 850,892 parameters at 512 dimensions, 838,656 of them in the GRU.

The released code hands the convolutions' output (N, channels, time) to a GRU that expects
(N, time, channels). It runs because both are 32 for 1000 samples: the GRU steps through the
channels and sees the whole time at each step. `mend_axes` puts the axes right, at the same cost.
"""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS = 32


def _convolution(channels_in: int, kernel: int) -> nn.Sequential:
    """Convolution with dilation 2, then a maximum over 3; no activation between."""
    return nn.Sequential(
        nn.Conv1d(channels_in, CHANNELS, kernel, dilation=2, bias=False), nn.MaxPool1d(3)
    )


class Imu2Clip(nn.Module):
    """(B, 6, T) -> (B, 512); T must be 1000 (or give 32 steps) unless `mend_axes`."""

    def __init__(self, mend_axes: bool, embedding_dim: int = 512) -> None:
        super().__init__()
        self.mend_axes = mend_axes
        # Accelerometer and gyroscope are normalised apart, over the whole window.
        self.front = nn.Sequential(
            nn.GroupNorm(2, 6),
            _convolution(6, 10),  # T = 1000 -> 982 -> 327
            _convolution(CHANNELS, 5),  # -> 319 -> 106
            _convolution(CHANNELS, 5),  # -> 98 -> 32
            nn.GroupNorm(4, CHANNELS),
        )
        self.gru = nn.GRU(CHANNELS, embedding_dim, batch_first=True)

    def forward(self, imu: Tensor) -> Tensor:
        """Embed windows: the GRU's last state, not normalised."""
        x = self.front(imu)  # (B, 32, T')
        _, state = self.gru(x.transpose(1, 2) if self.mend_axes else x)
        result: Tensor = state[0]
        return result
