"""The encoder: shape, unit length and missing samples."""

from __future__ import annotations

import torch

from training.model import EncoderConfig, ImuEncoder


def encoder() -> ImuEncoder:
    torch.manual_seed(0)
    return ImuEncoder(EncoderConfig()).eval()


def windows(n: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    imu = torch.randn(n, 6, 1000)
    imu[:, 2] += 9.8
    return imu


def test_unit_vectors_of_clips_size() -> None:
    model = encoder()
    with torch.no_grad():
        out = model(windows())
    assert out.shape == (3, 512)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    assert sum(p.numel() for p in model.parameters()) < 1_500_000


def test_a_window_does_not_depend_on_its_batch() -> None:
    model, imu = encoder(), windows()
    with torch.no_grad():
        torch.testing.assert_close(model(imu)[1:2], model(imu[1:2]))


def test_missing_patches_are_ignored_whatever_stood_there() -> None:
    """Attention and pooling skip a missing patch: with the positions' vectors made equal, leaving
    out the padded end gives what a window of the first part alone would."""
    model, imu = encoder(), windows()
    padded = imu.clone()
    padded[:, :, 400:] = torch.nan
    with torch.no_grad():
        out = model(padded)
        assert torch.isfinite(out).all()
        assert not torch.allclose(out, model(imu), atol=1e-3)
        model.position.zero_()
        twice = imu.clone()
        twice[:, :, 400:800] = imu[:, :, :400]  # the same patches again change no mean
        twice[:, :, 800:] = torch.nan
        torch.testing.assert_close(model(twice), model(padded), atol=1e-5, rtol=1e-4)


def test_a_gyroscope_that_is_missing_is_told_from_one_that_rests() -> None:
    model, imu = encoder(), windows()
    torch.nn.init.normal_(model.no_gyro)
    missing, resting = imu.clone(), imu.clone()
    missing[:, 3:], resting[:, 3:] = torch.nan, 0.0
    with torch.no_grad():
        assert not torch.allclose(model(missing), model(resting), atol=1e-3)


def test_residual_connections_carry_the_signal() -> None:
    """With every block's output at zero the tokens still reach the embedding (AURA-MFM's released
    blocks would lose them)."""
    model = encoder()
    for block in model.blocks:
        for layer in (block.attention.out, block.mlp[2]):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        out = model(windows(2))
    assert not torch.allclose(out[0], out[1], atol=1e-3)
