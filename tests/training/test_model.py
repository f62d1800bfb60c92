"""The encoder: shape, unit length and missing samples."""

from __future__ import annotations

import torch

from training import model as model_module
from training.model import EncoderConfig, ImuEncoder, Spectrum


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


def test_a_patch_that_is_mostly_missing_is_ignored_whatever_stood_there() -> None:
    model, imu = encoder(), windows()
    torch.nn.init.zeros_(model.spectrum.project.weight)  # it sees every sample that there is
    imu[:, :, 420:500] = torch.nan  # of the patch of samples 400 to 499
    other = imu.clone()
    other[:, :, 400:420] = imu[:, :, 400:420].flip(-1)  # the same mean: the same alignment
    other[:, 3:, 400:420] *= 5
    with torch.no_grad():
        torch.testing.assert_close(model(imu), model(other), atol=1e-5, rtol=1e-4)
        imu[:, :, 420:470], other[:, :, 420:470] = 0.0, 0.0  # now most of it is there
        assert not torch.allclose(model(imu), model(other), atol=1e-4)


def test_a_padded_window_gives_a_unit_vector() -> None:
    model, imu = encoder(), windows()
    imu[:, :, 200:] = torch.nan
    with torch.no_grad():
        torch.testing.assert_close(model(imu).norm(dim=1), torch.ones(3))


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


def turned(imu: torch.Tensor) -> torch.Tensor:
    """Windows of a device mounted at another, random angle."""
    torch.manual_seed(2)
    rotation, _ = torch.linalg.qr(torch.randn(len(imu), 3, 3))
    rotation = rotation * torch.det(rotation)[:, None, None]
    return (rotation[:, None] @ imu.reshape(-1, 2, 3, 1000)).reshape(imu.shape)


UNSCALED = torch.ones(2, 1, 1)


def gravity_aligned(imu: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Of windows in the encoder's form, (B, 6, 1000)."""
    return model_module.gravity_aligned(imu.reshape(-1, 2, 3, 1000), scale)


def test_alignment_leaves_of_the_mounting_a_turn_about_the_vertical() -> None:
    imu = windows()
    one, other = gravity_aligned(imu, UNSCALED), gravity_aligned(turned(imu), UNSCALED)
    torch.testing.assert_close(one[:, :, 2], other[:, :, 2], atol=1e-4, rtol=1e-4)
    across = [x[:, :, :2].norm(dim=2) for x in (one, other)]
    torch.testing.assert_close(across[0], across[1], atol=1e-4, rtol=1e-4)
    # Both sensors by one and the same turn, and no mirror image: also the parts of acceleration
    # along and across the turn rate stay as they are.
    acc, gyro = imu[:, :3], imu[:, 3:]
    level_acc, level_gyro = one.unbind(1)
    torch.testing.assert_close(level_acc.norm(dim=1), acc.norm(dim=1), atol=1e-4, rtol=1e-4)
    up = torch.nn.functional.normalize(acc.mean(-1), dim=-1)[..., None]
    swept = (torch.linalg.cross(acc, gyro, dim=1) * up).sum(1)
    level_swept = torch.linalg.cross(level_acc, level_gyro, dim=1)[:, 2]
    torch.testing.assert_close(level_swept, swept, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(one[:, 0].mean(-1)[:, :2], torch.zeros(3, 2), atol=1e-4, rtol=0)
    assert (one[:, 0, 2].mean(-1) > 9).all()


def test_an_upside_down_device_gives_finite_values() -> None:
    imu = windows()
    imu[:, :3] = 0.0
    imu[:, 2] = -9.8
    assert torch.isfinite(gravity_aligned(imu, UNSCALED)).all()
    assert torch.isfinite(gravity_aligned(torch.zeros(1, 6, 1000), UNSCALED)).all()


def test_alignment_stays_in_float32_where_products_are_not() -> None:
    imu = windows()
    with torch.autocast("cpu", torch.bfloat16):
        level = gravity_aligned(imu, UNSCALED)
    assert torch.equal(level, gravity_aligned(imu, UNSCALED))


def test_the_spectrum_shows_a_sine_in_its_bin_however_the_device_is_turned() -> None:
    """1.75 Hz up and down: bin 6 of the vertical acceleration, and as much in a window that is cut
    to 3 s."""
    time_s = torch.arange(1000) / 200
    imu = torch.zeros(1, 6, 1000)
    imu[:, 2] = 9.8 + 3 * torch.sin(2 * torch.pi * 1.75 * time_s)
    spectrum = Spectrum(200)
    torch.nn.init.eye_(spectrum.project.weight)
    torch.nn.init.zeros_(spectrum.project.bias)
    with torch.no_grad():
        whole, g = torch.ones(1, 1000), UNSCALED / 9.8
        shares = torch.nn.functional.avg_pool1d(whole[:, None], 4)
        bins = spectrum(gravity_aligned(imu, g), shares)[0, 0].reshape(4, 50)
        assert bins[0, :48].argmax() == 6
        again = spectrum(gravity_aligned(turned(imu), g), shares)[0, 0].reshape(4, 50)
        torch.testing.assert_close(bins[0], again[0], atol=1e-3, rtol=1e-3)
        part = whole.clone()
        part[:, 602:] = 0.0
        shares = torch.nn.functional.avg_pool1d(part[:, None], 4)
        short = spectrum(gravity_aligned(imu * part, g), shares)[0, 0].reshape(4, 50)
    assert short[0, :48].argmax() in (5, 6, 7)
    assert abs(short[0, 48] - bins[0, 48]) < 0.05  # of the whole variance
    assert abs(short[0, 49] - 1) < 0.02  # the mean, of what was measured alone
