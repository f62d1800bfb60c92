"""The IMU encoder: one window -> one unit vector in CLIP's text space.

A patch Transformer after AURA-MFM's IMU encoder (arXiv 2506.03174, section 3.2), with the
residual connections that its released code lacks, pre-norm blocks, and longer patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.spec import SIGNAL
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder; 0.5 M parameters by default."""

    patch_samples: int = 40
    """0.2 s at 200 Hz: 25 patches a window. Patches of 40 ms (AURA-MFM) see no gait cycle."""

    width: int = 128
    """Size of a token."""

    heads: int = 4
    blocks: int = 3
    mlp_ratio: int = 2
    dropout: float = 0.1
    embedding_dim: int = 512
    """CLIP ViT-B/32's text space."""


class Attention(nn.Module):
    """Multi-head self-attention that ignores missing patches."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, N, D) tokens and (B, 1, 1, N) additive bias -> (B, N, D)."""
        _, tokens, width = x.shape
        # One transposition for all three, and no use of the batch size: few nodes in ONNX, where a
        # small encoder's time goes into starting them.
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, D / heads)
        scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5 + bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, tokens, width)
        result: Tensor = self.out(mixed)
        return result


class Block(nn.Module):
    """Pre-norm Transformer block with residual connections."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.width * config.mlp_ratio
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, config.width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.dropout(self.attention(self.norm1(x), bias))
        result: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return result


class ImuEncoder(nn.Module):
    """(B, 6, 1000) in m/s^2 and rad/s, NaN where missing -> (B, 512) unit vectors."""

    scale: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        if SIGNAL.window_samples % config.patch_samples:
            raise ValueError(
                f"{config.patch_samples} samples a patch do not divide {SIGNAL.window_samples}"
            )
        self.n_patches = SIGNAL.window_samples // config.patch_samples
        # Fixed scales, inside the network so that nothing outside can apply others: 1 g and
        # pi rad/s become 1.
        scale = torch.tensor([1 / STANDARD_GRAVITY_MPS2] * 3 + [1 / torch.pi] * 3)
        self.register_buffer("scale", scale[:, None])
        n_channels = len(SIGNAL.channels)
        self.patch = nn.Conv1d(n_channels, config.width, config.patch_samples, config.patch_samples)
        self.position = nn.Parameter(torch.randn(self.n_patches, config.width) * 0.02)
        self.no_gyro = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, config.embedding_dim, bias=False)

    def forward(self, imu: Tensor) -> Tensor:
        """Embed windows; a patch with half of its accelerometer samples missing is ignored."""
        missing = torch.isnan(imu)
        x = torch.where(missing, 0.0, imu)
        patches = missing[:, 0].reshape(-1, self.n_patches, self.config.patch_samples)
        absent = (patches.to(x.dtype).mean(-1) > 0.5).to(x.dtype)  # (B, N)
        weight = self.patch.weight * self.scale  # scaling the signal, at no cost in ONNX
        tokens = functional.conv1d(x, weight, self.patch.bias, self.config.patch_samples)
        tokens = tokens.transpose(1, 2) + self.position  # (B, N, D)
        gyro_absent = missing[:, 3].to(x.dtype).mean(-1).floor()  # 1 only if all is missing
        tokens = tokens + gyro_absent[:, None, None] * self.no_gyro
        bias = (absent * -1e4)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, bias)
        present = (1 - absent)[:, :, None]
        pooled = (self.norm(tokens) * present).sum(1) / present.sum(1).clamp(min=1)
        embedding = self.project(pooled)
        unit: Tensor = embedding / (embedding.norm(dim=-1, keepdim=True) + 1e-12)
        return unit
