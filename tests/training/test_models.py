"""Every model that can be trained keeps the contract that training and scoring rely on."""

from __future__ import annotations

import pytest
import torch

from firmware_bridge.errors import InputError
from training.model import EncoderConfig
from training.models import MODELS, build


@pytest.mark.parametrize("name", MODELS)
def test_windows_with_missing_samples_become_unit_vectors_that_can_be_trained(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, EncoderConfig())
    imu = torch.randn(3, 6, 1000)
    imu[0, :, 600:] = torch.nan
    imu[1, 3:] = torch.nan
    out = model(imu)
    assert out.shape == (3, 512)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    out[:, 0].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_variants_of_a_baseline_differ() -> None:
    imu = torch.randn(2, 6, 1000, generator=torch.Generator().manual_seed(0))
    for a, b in (("imu2clip", "imu2clip-mended"), ("aura-mfm", "aura-mfm-residual")):
        one, other = (build(name, EncoderConfig()).eval() for name in (a, b))
        other.load_state_dict(one.state_dict())
        assert not torch.allclose(one(imu), other(imu), atol=1e-3)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown model 'aura'; accepted: aura-edge, imu2clip,"):
        build("aura", EncoderConfig())
