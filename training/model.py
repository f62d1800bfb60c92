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
from torch.nn.functional import avg_pool1d, linear, pad

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

    patch_samples: int = 100
    """0.5 s at 200 Hz, about a step: 10 patches a window. Patches of 40 ms (AURA-MFM) see none."""

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
        qkv = self.qkv(x).reshape(-1, tokens, 3 * self.heads, width // self.heads).transpose(1, 2)
        q, k, v = qkv.split(self.heads, 1)  # each (B, heads, N, D / heads)
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
        self.register_buffer("basis", waves.T.contiguous())  # (250, 2 * bins): amplitudes of sines
        self.project = nn.Linear(4 * (SPECTRUM_BINS + 2), width)

    def forward(self, level: Tensor, here: Tensor) -> Tensor:
        """(B, 2, 3, 1000) gravity-aligned signal in g and half turns per second, 0 where missing,
        and (B, 1, 250), the measured share of each four samples -> (B, 1, D)."""
        across, up = level[:, :, :2].norm(dim=2), level[:, :, 2]
        signal = _coarse(torch.cat([up, across], 1))  # acc up, gyro up, acc across, gyro across
        n = here.sum(-1, keepdim=True).clamp(min=1)
        mean = signal.sum(-1, keepdim=True) / n
        motion = signal - mean * here
        power = (motion @ self.basis).reshape(-1, 4, 2, SPECTRUM_BINS).square().sum(2)
        # What a short window lacks is no silence: its power is that of a full one.
        power = torch.cat([power * signal.shape[-1], motion.square().sum(-1, keepdim=True)], -1) / n
        features = torch.cat([(power + _FLOOR).log() / 4 + 1, mean], -1)
        token: Tensor = self.project(features.flatten(1))
        return token[:, None]


def _coarse(x: Tensor) -> Tensor:
    """(B, C, 1000) -> (B, C, 250) means of neighbours."""
    means: Tensor = avg_pool1d(x, SPECTRUM_STEP)
    return means


def gravity_aligned(x: Tensor, scale: Tensor) -> Tensor:
    """Turn each window so that its mean acceleration points along +z.

    Half a turn about the bisector of that direction and z: accelerometer and gyroscope together,
    so a proper rotation, and one that changes smoothly but for a device that lies exactly upside
    down. What is left of the mounting is a turn about the vertical.

    Args:
        x: (B, 2, 3, 1000), accelerometer and gyroscope, 0 where missing.
        scale: (2, 1, 1), what each sensor's values are multiplied by.

    Returns:
        (B, 2, 3, 1000): accelerometer and gyroscope, each (x, y, up).
    """
    eye = torch.eye(3, device=x.device)
    acc = x.sum(-1, keepdim=True)[:, :1]  # (B, 1, 3, 1): columns all the way need no reshaping
    axis = acc / (acc.norm(dim=2, keepdim=True) + _TINY) + eye[2:].T  # its square is twice its z
    # In float32 whatever the products of training are in: gravity is far above small motions.
    with torch.autocast(x.device.type, enabled=False):
        turn = axis @ axis.transpose(-2, -1) / (axis[:, :, 2:] + _TINY) - eye
        level: Tensor = (turn * scale) @ x
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
        scale = torch.tensor([1 / STANDARD_GRAVITY_MPS2, 1 / torch.pi])
        self.register_buffer("scale", scale[:, None, None])
        n_channels = len(SIGNAL.channels)
        self.patch = nn.Linear(n_channels * config.patch_samples, config.width)
        self.spectrum = Spectrum(config.width)
        self.position = nn.Parameter(torch.randn(self.n_patches + 1, config.width) * 0.02)
        self.no_gyro = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.project = nn.Linear(config.width, config.embedding_dim, bias=False)

    def forward(self, imu: Tensor) -> Tensor:
        """Embed windows; a patch with half of its accelerometer samples missing is ignored."""
        # Written for few nodes in ONNX, where a small encoder's time goes into starting them.
        missing = torch.isnan(imu)
        signal = torch.where(missing, 0.0, imu)
        level = gravity_aligned(signal.reshape(-1, 2, 3, imu.shape[-1]), self.scale)
        measured = 1 - _coarse(missing[:, ::3].to(level.dtype))  # (B, 2, 250): of acc, gyro
        of_acc, of_gyro = measured.tensor_split(2, 1)
        patches = level.reshape(-1, 6, self.n_patches, self.config.patch_samples)
        tokens = linear(patches.transpose(1, 2).flatten(2), self.patch.weight)
        tokens = torch.cat([tokens, self.spectrum(level, of_acc)], 1)
        no_gyro = of_gyro.sum(-1, keepdim=True) == 0
        # The bias of the patches is here too: a constant more is none once they are folded.
        place = self.position + pad(self.patch.bias.expand(self.n_patches, -1), (0, 0, 0, 1))
        tokens = tokens + torch.where(no_gyro, place + self.no_gyro, place)  # (B, N, D)
        here = avg_pool1d(of_acc, self.config.patch_samples // SPECTRUM_STEP) >= 0.5
        # (B, 1, N) 0, or far below where missing; the spectrum is always there.
        bias = pad(torch.where(here, 0.0, -1e4), (0, 1))
        for block in self.blocks:
            tokens = block(tokens, bias[:, None])
        pooled = bias.softmax(-1) @ self.norm(tokens)  # the mean of those that are there
        embedding = self.project(pooled[:, 0])
        unit: Tensor = embedding / (embedding.norm(dim=-1, keepdim=True) + 1e-12)
        return unit
