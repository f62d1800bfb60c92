"""ImageBind's IMU branch: a wide Transformer over patches of 8 samples.

Girdhar et al. 2023, "ImageBind: One Embedding Space To Bind Them All" (arXiv 2305.05665); shapes as
in facebookresearch/ImageBind, imagebind/models/imagebind_model.py (stem, trunk and head of the
modality "imu"). 19.6 M parameters, out of about 1.2 billion for all modalities. Drop path and
dropout are left out: neither acts when a window is embedded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.baselines.blocks import Block

WINDOW_SAMPLES = 2000
"""10 s at 200 Hz."""

PATCH_SAMPLES = 8
WIDTH, HEADS, BLOCKS, MLP_RATIO = 512, 8, 6, 4
EMBEDDING_DIM = 1024


class ImageBindImu(nn.Module):
    """(B, 6, 2000) -> (B, 1024) unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.n_patches = WINDOW_SAMPLES // PATCH_SAMPLES
        self.stem = nn.Linear(6 * PATCH_SAMPLES, WIDTH, bias=False)
        self.stem_norm = nn.LayerNorm(WIDTH)
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.position = nn.Parameter(torch.randn(1, self.n_patches + 1, WIDTH) * 0.02)
        self.blocks = nn.Sequential(
            *(Block(WIDTH, HEADS, MLP_RATIO, qkv_bias=True, extra_key=True) for _ in range(BLOCKS))
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.project = nn.Linear(WIDTH, EMBEDDING_DIM, bias=False)

    def forward(self, imu: Tensor) -> Tensor:
        """Embed windows: the projected CLS token."""
        batch, channels, _ = imu.shape
        patches = imu.reshape(batch, channels, self.n_patches, PATCH_SAMPLES).transpose(1, 2)
        tokens = self.stem_norm(self.stem(patches.flatten(2)))  # (B, 250, 512)
        cls = self.cls.expand(batch, -1, -1)
        tokens = self.blocks(torch.cat([cls, tokens], dim=1) + self.position)
        return functional.normalize(self.project(self.norm(tokens)[:, 0]), dim=-1)
