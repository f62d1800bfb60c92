"""The encoders that can be trained, by name: ours, and the baselines under the same conditions.

Whatever the name, a built encoder maps (B, 6, 1000) windows in m/s^2 and rad/s, NaN where missing,
to (B, 512) unit vectors, so that training and scoring never ask which one it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from firmware_bridge.errors import InputError
from training.baselines.aura_mfm import AuraMfm
from training.baselines.imu2clip import Imu2Clip
from training.model import EncoderConfig, ImuEncoder


class Baseline(nn.Module):
    """A baseline that knows neither missing samples nor unit vectors, given both."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, imu: Tensor) -> Tensor:
        """(B, 6, 1000), NaN where missing -> (B, 512) unit vectors; missing samples count as 0."""
        return functional.normalize(self.encoder(torch.nan_to_num(imu)), dim=-1)


DEFAULT_MODEL = "aura-edge"

MODELS: dict[str, Callable[[EncoderConfig], nn.Module]] = {
    DEFAULT_MODEL: ImuEncoder,
    "imu2clip": lambda config: Baseline(Imu2Clip(False, config.embedding_dim)),
    "imu2clip-mended": lambda config: Baseline(Imu2Clip(True, config.embedding_dim)),
    "aura-mfm": lambda config: Baseline(AuraMfm("SS", False, config.embedding_dim)),
    "aura-mfm-residual": lambda config: Baseline(AuraMfm("SS", True, config.embedding_dim)),
}
"""Name -> what builds it. A baseline has its published shape; of the configuration it takes the
size of the embedding only."""


def build(name: str, config: EncoderConfig) -> nn.Module:
    """A new encoder with random weights.

    Raises:
        InputError: no encoder has that name.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; accepted: {', '.join(MODELS)}")
    return MODELS[name](config)
