"""The IMU encoder: one window -> one unit vector in CLIP's text space.

A patch Transformer after AURA-MFM's IMU encoder (arXiv 2506.03174, section 3.2), with the
residual connections that its released code lacks, pre-norm blocks, and longer patches. What it
reads is made independent of how the device is worn, up to a turn about the vertical: every window
is turned until its mean acceleration points along +z (gravity alignment, as in LanHAR, arXiv
2410.00003, but by window and inside the network), and one more token holds the spectra of the
vertical and the horizontal motion, which no turn about the vertical changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from edge.spec import SIGNAL
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2

SPECTRUM_STEP = 4
"""Grid samples averaged before the spectrum: 50 Hz hold every movement of a body."""

SPECTRUM_BINS, SPECTRUM_BIN_HZ = 48, 0.25
"""0.25 to 12 Hz: from slow swaying to the fourth harmonic of a fast run."""

_TINY = 1e-6
_FLOOR = 1e-5
"""Powers below this are taken for silence: (0.03 m/s^2)^2 in g."""


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the encoder; 0.6 M parameters by default."""

    patch_samples: int = 50
    """0.25 s at 200 Hz: 20 patches a window. Patches of 40 ms (AURA-MFM) see no gait cycle."""

    width: int = 128
    """Size of a token."""

    heads: int = 4
    blocks: int = 3
    mlp_ratio: int = 2
    dropout: float = 0.0
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


class Spectrum(nn.Module):
    """Log spectra of a window's vertical and horizontal motion -> one token."""

    basis: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        coarse = SIGNAL.window_samples // SPECTRUM_STEP
        time_s = torch.arange(coarse) * SPECTRUM_STEP / SIGNAL.rate_hz
        frequency_hz = (torch.arange(SPECTRUM_BINS) + 1) * SPECTRUM_BIN_HZ
        phase = 2 * torch.pi * frequency_hz[:, None] * time_s
        hann = torch.hann_window(coarse, periodic=False)
        waves = torch.cat([phase.cos(), phase.sin()]) * hann / (hann.sum() / 2)
        self.register_buffer("basis", waves)  # (2 * bins, 250): amplitudes of sine waves
        self.project = nn.Linear(4 * (SPECTRUM_BINS + 2), width)

    def forward(self, level: Tensor, missing: Tensor) -> Tensor:
        """(B, 2, 3, 1000) gravity-aligned signal in g and half turns per second, 0 where (B, 1000)
        says it is missing -> (B, 1, D)."""
        horizontal = (level[:, :, :2].pow(2).sum(2) + _TINY).sqrt()
        signal = torch.stack([level[:, :, 2], horizontal], 2)  # acc up, across, gyro up, across
        signal = _coarse(signal.reshape(-1, 4, SIGNAL.window_samples))
        here = 1 - _coarse(missing[:, None].to(signal.dtype))
        n = here.sum(-1, keepdim=True).clamp(min=1)
        mean = (signal * here).sum(-1, keepdim=True) / n
        motion = (signal - mean) * here
        power = (self.basis @ motion.transpose(1, 2)).reshape(-1, 2, SPECTRUM_BINS, 4).pow(2)
        # What a short window lacks is no silence: its power is that of a full one.
        power = power.sum(1) * (signal.shape[-1] / n)
        variance = motion.pow(2).sum(-1, keepdim=True) / n
        of_bins, of_all = (((x + _FLOOR).log() / 4 + 1) for x in (power.transpose(1, 2), variance))
        token: Tensor = self.project(torch.cat([of_bins, mean, of_all], -1).flatten(1))
        return token[:, None]


def _coarse(x: Tensor) -> Tensor:
    """(B, C, 1000) -> (B, C, 250) means of neighbours."""
    means: Tensor = x.reshape(-1, x.shape[1], x.shape[2] // SPECTRUM_STEP, SPECTRUM_STEP).mean(-1)
    return means


def gravity_aligned(x: Tensor) -> Tensor:
    """Turn each window so that its mean acceleration points along +z.

    Half a turn about the bisector of that direction and z: accelerometer and gyroscope together,
    so a proper rotation, and one that changes smoothly but for a device that lies exactly upside
    down. What is left of the mounting is a turn about the vertical.

    Args:
        x: (B, 6, 1000), 0 where missing.

    Returns:
        (B, 2, 3, 1000): accelerometer and gyroscope, each (x, y, up).
    """
    up = x[:, :3].sum(-1)
    up = up / (up.norm(dim=-1, keepdim=True) + _TINY)
    axis = up + pad(torch.ones_like(up[:, :1]), (2, 0))
    axis = (axis / (axis.norm(dim=-1, keepdim=True) + _TINY))[:, None, :, None]
    x = x.reshape(-1, 2, 3, x.shape[-1])
    level: Tensor = 2 * axis * (axis * x).sum(2, keepdim=True) - x
    return level


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
        self.spectrum = Spectrum(config.width)
        self.position = nn.Parameter(torch.randn(self.n_patches + 1, config.width) * 0.02)
        self.no_gyro = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, config.embedding_dim, bias=False)

    def forward(self, imu: Tensor) -> Tensor:
        """Embed windows; a patch with half of its accelerometer samples missing is ignored."""
        missing = torch.isnan(imu)
        level = gravity_aligned(torch.where(missing, 0.0, imu) * self.scale)
        patches = missing[:, 0].reshape(-1, self.n_patches, self.config.patch_samples)
        absent = (patches.to(level.dtype).mean(-1) > 0.5).to(level.dtype)
        absent = pad(absent, (0, 1))  # (B, N): the spectrum is always there
        tokens = self.patch(level.flatten(1, 2)).transpose(1, 2)
        tokens = torch.cat([tokens, self.spectrum(level, missing[:, 0])], 1)
        gyro_absent = missing[:, 3].to(level.dtype).mean(-1).floor()  # 1 only if all is missing
        tokens = tokens + self.position + gyro_absent[:, None, None] * self.no_gyro  # (B, N, D)
        bias = (absent * -1e4)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, bias)
        present = (1 - absent)[:, :, None]
        pooled = (self.norm(tokens) * present).sum(1) / present.sum(1)
        embedding = self.project(pooled)
        unit: Tensor = embedding / (embedding.norm(dim=-1, keepdim=True) + 1e-12)
        return unit
