"""AURA-MFM's IMU encoder: a Transformer over patches of 8 samples.

"AURA-MFM" (arXiv 2506.03174); shapes as in Okita-Laboratory/AURA-MFM at d33fe6aa,
aura-mfm/lib/transformer.py. 1.91 M parameters in size SS and 14.5 M in size S, a linear layer to
512 dimensions included. Dropout and the masking of pre-training are left out: neither acts when a
window is embedded.

The released blocks have no skip connections (`residual=False`): each replaces the tokens instead of
adding to them. With them it is the Transformer that the paper describes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.baselines.blocks import Block

WINDOW_SAMPLES = 1000
PATCH_SAMPLES = 8
"""40 ms at 200 Hz."""

SIZES = {"SS": (192, 6, 6), "S": (384, 6, 12)}
"""Name -> width, heads, blocks. B (768, 12, 12) and L (1024, 16, 24) are no edge sizes."""


class AuraMfm(nn.Module):
    """(B, 6, 1000) -> (B, 512)."""

    def __init__(self, size: str, residual: bool, embedding_dim: int = 512) -> None:
        super().__init__()
        width, heads, blocks = SIZES[size]
        n_patches = WINDOW_SAMPLES // PATCH_SAMPLES
        self.patch = nn.Conv1d(6, width, PATCH_SAMPLES, PATCH_SAMPLES)
        self.patch_norm = nn.LayerNorm(width)
        self.cls = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.rand(1, n_patches + 1, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads, 2, qkv_bias=False, residual=residual) for _ in range(blocks))
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, embedding_dim)

    def forward(self, imu: Tensor) -> Tensor:
        """Embed windows: the projected CLS token, not normalised."""
        patches = self.patch_norm(self.patch(imu).transpose(1, 2))  # (B, 125, D)
        cls = self.cls.expand(imu.shape[0], -1, -1)
        tokens = self.blocks(torch.cat([cls, patches], dim=1) + self.position)
        result: Tensor = self.project(self.norm(tokens)[:, 0])
        return result
