"""The Transformer block that AURA-MFM's and ImageBind's encoders have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention over all tokens.

    `extra_key` adds one learned key and value that belong to no token (`add_bias_kv` in
    `torch.nn.MultiheadAttention`).
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool, extra_key: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out = nn.Linear(width, width)
        self.extra = nn.Parameter(torch.randn(2, 1, 1, width) * 0.02) if extra_key else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each (B, N, D)
        if self.extra is not None:
            k = torch.cat([k, self.extra[0].expand(batch, 1, width)], dim=1)
            v = torch.cat([v, self.extra[1].expand(batch, 1, width)], dim=1)
        q, k, v = (self._by_head(y) for y in (q, k, v))
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
        result: Tensor = self.out(mixed)
        return result

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm Transformer block; without `residual` both skip connections are left out."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: int,
        qkv_bias: bool,
        extra_key: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, qkv_bias, extra_key)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, width * mlp_ratio), nn.GELU(), nn.Linear(width * mlp_ratio, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        mixed = self.attention(self.norm1(x))
        x = x + mixed if self.residual else mixed
        changed = self.mlp(self.norm2(x))
        result: Tensor = x + changed if self.residual else changed
        return result
