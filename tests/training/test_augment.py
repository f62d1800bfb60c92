"""Augmentation: physics kept, missing kept missing, and every switch a switch."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.recording import open_recording
from edge.resample import Resampler
from edge.spec import SIGNAL
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2, Samples
from tests.conftest import RECORDING, REPO, walk
from training.augment import (
    ABLATIONS,
    AugmentConfig,
    add_arguments,
    augment,
    config_from,
    keep_part,
    low_pass,
    remeasure,
    rotate,
    rotations,
    rotations_about_gravity,
    warp,
)
from training.augment_config import OFF

LENGTH = SIGNAL.window_samples
NAN = float("nan")

ALONE = {
    "free": replace(OFF, orientation="free", rotation=1.0),
    "tilt-yaw": replace(OFF, orientation="tilt-yaw", rotation=1.0),
    "gain": replace(OFF, gain=0.1),
    "noise": replace(OFF, noise_mps2=0.05, noise_rads=0.02),
    "rate degradation": replace(OFF, rate_degradation=1.0),
    "bandwidth": replace(OFF, bandwidth=1.0),
    "gyro dropout": replace(OFF, gyro_dropout=0.5),
    "partial": replace(OFF, partial=1.0),
    "time shift": replace(OFF, time_shift=1.0),
    "time warp": replace(OFF, time_warp=1.0),
}
"""Each augmentation on its own, done to every window (a dropped gyroscope: to half of them)."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walks(n: int) -> Tensor:
    """(n, 6, 1000) walks that differ in their noise."""
    rows = [walk(5, SIGNAL.rate_hz, seed=seed) for seed in range(n)]
    return torch.stack([to_window(s) for s in rows])


def to_window(samples: Samples) -> Tensor:
    assert samples.gyro_rads is not None
    imu = np.hstack([samples.acc_mps2, samples.gyro_rads])[:LENGTH].T
    return torch.from_numpy(imu.astype(np.float32))


def with_missing(n: int = 12) -> Tensor:
    """Walks of which every fourth has a gap, is padded, has no gyroscope, or is whole."""
    imu = walks(n)
    imu[0::4, :, 300:420] = NAN
    imu[1::4, :, 500:] = NAN
    imu[2::4, 3:] = NAN
    return imu


def tone(frequency_hz: float, amplitude: float = 1.0) -> Tensor:
    """(1000,) a sine."""
    return amplitude * torch.sin(2 * math.pi * frequency_hz * torch.arange(LENGTH) / SIGNAL.rate_hz)


def spectrum(imu: Tensor) -> Tensor:
    """Power of full windows in bins of 0.2 Hz: (n, 6, 1000) -> (501,)."""
    taper = torch.hann_window(LENGTH)
    power: Tensor = torch.fft.rfft((imu - imu.mean(2, keepdim=True)) * taper).abs().square()
    return power.mean((0, 1))


def band(power: Tensor, low_hz: float, high_hz: float) -> float:
    return float(power[round(low_hz * 5) : round(high_hz * 5)].mean())


def decibels(a: float, b: float) -> float:
    return 10 * math.log10(a / b)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit, NaN included."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def resampled(t_s: NDArray[np.float64], imu: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 6) samples at `t_s` -> the runtime's grid values, from the first sample on."""
    resampler = Resampler()
    blocks = resampler.push(Samples(t_s, imu[:, :3], imu[:, 3:])) + resampler.finish()
    return np.concatenate([b.values for b in blocks])


def recorded() -> NDArray[np.float32]:
    """(n, 6) the bundled recording of a real phone, on the grid."""
    resampler = Resampler()
    blocks = [b for s in open_recording(RECORDING).chunks for b in resampler.push(s)]
    return np.concatenate([b.values for b in blocks])


# --- turning ---


def test_rotations_are_proper_and_spread_over_all_directions() -> None:
    turn = rotations(torch.rand(2000, 3, generator=seeded()))
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand(2000, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(2000), atol=1e-4, rtol=0)
    assert turn.mean(0).abs().max() < 0.05
    # Uniform over SO(3): the trace, 1 + 2 cos(angle), has mean 0 and variance 1.
    trace = turn.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.mean()) < 0.1 and abs(trace.var() - 1) < 0.1


@pytest.mark.parametrize("orientation", ["free", "tilt-yaw"])
def test_accelerometer_and_gyroscope_turn_together(orientation: str) -> None:
    imu = walks(8)
    out = augment(imu, ALONE[orientation], seeded())
    for sensor in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(
            out[:, sensor].norm(dim=1), imu[:, sensor].norm(dim=1), atol=1e-4, rtol=1e-4
        )
    angle = (out[:, :3] * out[:, 3:]).sum(1)
    torch.testing.assert_close(angle, (imu[:, :3] * imu[:, 3:]).sum(1), atol=1e-3, rtol=1e-4)
    triple = torch.linalg.cross(out[:, :3], out[:, 3:], dim=1)  # a mirror image would turn it round
    before = torch.linalg.cross(imu[:, :3], imu[:, 3:], dim=1)
    torch.testing.assert_close(
        (triple * out[:, :3].roll(1, 2)).sum(1),
        (before * imu[:, :3].roll(1, 2)).sum(1),
        atol=5e-3,
        rtol=1e-3,
    )
    assert (out - imu).abs().amax((1, 2)).min() > 0.1


def test_tilt_and_yaw_bound_the_direction_of_gravity() -> None:
    imu = walks(8).repeat(50, 1, 1)
    imu = rotate(imu, rotations(torch.rand(400, 3, generator=seeded(1))))  # gravity anywhere
    imu[::3, :, 600:] = NAN
    out = augment(imu, replace(ALONE["tilt-yaw"], max_tilt_deg=20), seeded())
    before, after = imu[:, :3].nanmean(2), out[:, :3].nanmean(2)
    angle = torch.rad2deg(torch.acos(torch.cosine_similarity(before, after)))
    assert angle.max() < 20.1 and angle.max() > 18
    assert 8 < angle.mean() < 12


def test_yaw_turns_about_gravity_and_to_every_side() -> None:
    imu = walks(1).repeat(400, 1, 1)
    turn = rotations_about_gravity(imu, torch.rand(400, 3, generator=seeded()), 0.0)
    gravity = imu[:, :3].mean(2, keepdim=True)
    torch.testing.assert_close(turn @ gravity, gravity, atol=1e-4, rtol=0)
    heading = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])  # gravity is on z here, nearly
    assert torch.histc(heading, 8, -math.pi, math.pi).min() > 25


def test_a_window_without_gravity_is_turned_about_z() -> None:
    imu = torch.zeros(2, 6, LENGTH)
    imu[1, :3] = NAN
    turn = rotations_about_gravity(imu, torch.full((2, 3), 0.3), 0.0)
    z = torch.tensor([0.0, 0.0, 1.0]).expand(2, 3)
    torch.testing.assert_close(turn[:, :, 2], z, atol=1e-6, rtol=0)


def test_a_fraction_of_the_windows_is_turned() -> None:
    imu = walks(4).repeat(50, 1, 1)
    out = augment(imu, replace(ALONE["free"], rotation=0.3), seeded())
    turned = (out != imu).any(2).any(1)
    assert 40 < turned.sum() < 80
    assert same_bits(out[~turned], imu[~turned])


# --- gain and noise ---


def test_each_sensor_has_one_gain() -> None:
    imu = walks(300)
    ratio = augment(imu, ALONE["gain"], seeded()) / imu
    for sensor in (ratio[:, :3], ratio[:, 3:]):
        gain = sensor.flatten(1)[:, 0]
        torch.testing.assert_close(sensor, gain[:, None, None].expand_as(sensor))
        assert 0.9 <= gain.min() < 0.91 and 1.09 < gain.max() <= 1.1
    assert abs(float(torch.corrcoef(torch.stack([ratio[:, 0, 0], ratio[:, 3, 0]]))[0, 1])) < 0.2


def test_noise_has_the_size_that_is_asked_for() -> None:
    imu = walks(20)
    noise = augment(imu, replace(OFF, noise_mps2=0.3, noise_rads=0.1), seeded()) - imu
    assert float(noise[:, :3].std()) == pytest.approx(0.3, rel=0.02)
    assert float(noise[:, 3:].std()) == pytest.approx(0.1, rel=0.02)
    assert float(spectrum(noise)[5:].std() / spectrum(noise)[5:].mean()) < 0.2  # white


def test_noise_fills_the_bands_that_a_degraded_window_lost() -> None:
    """As it does in windows of slow sources, which come here with those bands empty."""
    config = replace(OFF, rate_degradation=1.0, bandwidth=1.0, noise_mps2=0.3, noise_rads=0.3)
    quiet = replace(config, noise_mps2=0.0, noise_rads=0.0)
    noise = augment(walks(20), config, seeded()) - augment(walks(20), quiet, seeded())
    power = spectrum(noise)
    assert band(power, 80, 100) == pytest.approx(band(power, 1, 20), rel=0.1)


# --- sample rate and bandwidth ---


@pytest.mark.parametrize(("rate_hz", "first"), [(20, 0), (20, 7), (40, 3), (50, 1), (100, 1)])
def test_a_slower_sensor_gives_what_the_runtime_makes_of_it(rate_hz: int, first: int) -> None:
    """Real movement, decimated: where the slow samples fall on the grid nothing but the
    interpolation is left, so the two agree to float32's rounding of 10 m/s^2 (1e-4). Between the
    window's edges and its first and last slow sample ours knows less (it holds the edge's value
    where the stream goes on), so there it only has to be near."""
    grid, step, origin = recorded(), SIGNAL.rate_hz // rate_hz, 2000
    at = np.arange(origin % step + first, len(grid) - step, step)
    stream = resampled((at - at[0]) / SIGNAL.rate_hz, grid[at].astype(np.float64))
    expected = torch.from_numpy(stream[origin - at[0] :][:LENGTH].T)
    window = torch.from_numpy(grid[origin : origin + LENGTH].T)
    phase = torch.tensor([float((at[0] - origin) % step / step)])
    out = remeasure(window[None], torch.tensor([float(rate_hz)]), phase)[0]
    inner = slice(2 * step, LENGTH - 2 * step)
    assert (window[:, inner] - expected[:, inner]).abs().max() > 0.01  # there is something to lose
    torch.testing.assert_close(out[:, inner], expected[:, inner], atol=1e-4, rtol=0)
    at_edges = torch.cat([out[:, : 2 * step], out[:, -2 * step :]], 1)
    within = torch.cat([window[:, : 3 * step], window[:, -3 * step :]], 1)
    assert torch.isfinite(at_edges).all()
    assert (at_edges <= within.amax(1, keepdim=True) + 1e-4).all()
    assert (at_edges >= within.amin(1, keepdim=True) - 1e-4).all()


def test_a_gap_is_as_long_as_a_slower_sensor_would_have_made_it() -> None:
    """Both sides of a gap, against the runtime; ours may lack the very sample before it."""
    grid, step, origin = recorded(), 10, 2000
    window = torch.from_numpy(grid[origin : origin + LENGTH].T.copy())
    window[:, 400:480] = NAN
    at = np.arange(origin % step + 3, len(grid), step)
    at = at[(at < origin + 400) | (at >= origin + 480)]
    resampler = Resampler()
    x = grid[at].astype(np.float64)
    stream = torch.full((len(grid), 6), NAN)
    for block in resampler.push(Samples((at - at[0]) / SIGNAL.rate_hz, x[:, :3], x[:, 3:])):
        begin = at[0] + block.start_index
        stream[begin : begin + len(block.values)] = torch.from_numpy(block.values)
    expected = stream[origin : origin + LENGTH].T.clone()
    assert torch.isnan(expected[0]).nonzero()[:, 0].tolist() == list(range(394, 483))
    out = remeasure(window[None], torch.tensor([20.0]), torch.tensor([0.3]))[0]
    assert torch.isnan(out[:, 393]).all()
    expected[:, 393] = NAN
    inner = slice(20, LENGTH - 20)
    torch.testing.assert_close(out[:, inner], expected[:, inner], atol=1e-4, rtol=0, equal_nan=True)


def test_slow_samples_between_grid_times() -> None:
    """30 Hz does not divide 200 Hz. Of known smooth signals the runtime gets exact samples; ours
    reads them between grid values, which at 3 Hz errs by less than 1e-3 of the amplitude."""
    rate_hz, phase, period = 30.0, 0.4, 200 / 30
    k = np.arange(-31, 160)  # (k + phase) * period is whole for the first, so the grids agree
    steps = (k + phase) * period

    def signals(step: NDArray[Any]) -> NDArray[np.float64]:
        return np.stack([np.sin(2 * np.pi * (1 + 0.4 * c) * step / 200 + c) for c in range(6)], 1)

    stream = resampled(steps / SIGNAL.rate_hz, signals(steps))
    expected = torch.from_numpy(stream[-round(steps[0]) :][:LENGTH].T)
    window = torch.from_numpy(signals(np.arange(LENGTH)).T.astype(np.float32))
    out = remeasure(window[None], torch.tensor([rate_hz]), torch.tensor([phase]))[0]
    inner = slice(14, LENGTH - 14)
    torch.testing.assert_close(out[:, inner], expected[:, inner], atol=1e-3, rtol=0)
    assert (window[:, inner] - expected[:, inner]).abs().max() > 0.01


def broadband(n: int, rate_hz: int, seed: int = 0) -> Tensor:
    """(n, 6, 1000) grid windows of the same noise, flat to 60 Hz, whatever they are measured at."""
    fine_hz, rng = 1200, np.random.default_rng(seed)
    noise = np.fft.rfft(rng.normal(0, 1, (n, 7 * fine_hz, 6)), axis=1)
    frequency = np.fft.rfftfreq(7 * fine_hz, 1 / fine_hz)
    noise /= (1 + (frequency / 60) ** 8)[:, None]
    fine = np.fft.irfft(noise, axis=1)[:, :: fine_hz // rate_hz]
    t = np.arange(fine.shape[1]) / rate_hz
    return torch.from_numpy(np.stack([resampled(t, x)[200:1200].T for x in fine]))


@pytest.mark.parametrize(("rate_hz", "phases"), [(50, 4), (48, 1000), (24, 1000)])
def test_a_slow_source_and_a_degraded_fast_one_have_similar_spectra(
    rate_hz: int, phases: int
) -> None:
    """The same noise measured slowly and at 200 Hz: as they are, the missing band gives the slow
    source away; once degraded, they are within 1 dB of each other in every band that holds more
    than a millionth of the power. A source of exactly 50 Hz has its samples on the grid, in one of
    four phases."""
    slow, fast = broadband(16, rate_hz), broadband(16, 200)
    phase = torch.randint(phases, (16,), generator=seeded()) / phases
    degraded = remeasure(fast, torch.full((16,), float(rate_hz)), phase)
    a, b, untouched = spectrum(slow), spectrum(degraded), spectrum(fast)
    assert decibels(band(untouched, 30, 55), band(a, 30, 55)) > 6
    for low in range(0, 100, 10):
        theirs, ours = band(a, low + 1, low + 10), band(b, low + 1, low + 10)
        if theirs > 1e-6 * band(a, 1, 10):
            assert abs(decibels(ours, theirs)) < 1, low


def test_twenty_hertz_leaves_little_above_ten() -> None:
    fast = broadband(8, 200)
    rate = torch.full((8,), 20.0)
    out = spectrum(remeasure(fast, rate, torch.rand(8, generator=seeded())))
    assert decibels(band(out, 20, 60), band(out, 0.4, 8)) < -20
    assert decibels(band(out, 60, 100), band(out, 0.4, 8)) < -35
    filtered = spectrum(remeasure(low_pass(fast, rate / 4), rate, torch.full((8,), 0.5)))
    assert decibels(band(filtered, 10, 60), band(filtered, 0.4, 3)) < -25


def test_degraded_windows_differ_in_rate_and_half_of_them_are_filtered() -> None:
    """A 55 Hz tone aliases to anywhere, or is filtered away."""
    imu = torch.zeros(400, 6, LENGTH) + tone(55)
    power = augment(imu, ALONE["rate degradation"], seeded()).square().mean((1, 2)) / 0.5
    filtered = power < 0.02
    assert 120 < filtered.sum() < 260
    assert power[~filtered].std() > 0.1


@pytest.mark.parametrize("cutoff_hz", [5.0, 12.0, 40.0])
def test_the_low_pass_is_smooth_and_3_db_down_at_its_cutoff(cutoff_hz: float) -> None:
    for times, expected_db in ((0.25, -0.19), (0.5, -0.75), (1.0, -3.01), (2.0, -12.04)):
        x = tone(times * cutoff_hz).repeat(1, 6, 1)
        out = low_pass(x, torch.tensor([cutoff_hz]))
        middle = slice(200, 800)
        ratio = float(out[:, :, middle].square().mean() / x[:, :, middle].square().mean())
        assert 10 * math.log10(ratio) == pytest.approx(expected_db, abs=0.1)


def test_the_low_pass_keeps_the_mean_up_to_edges_and_gaps() -> None:
    imu = with_missing(4)
    constant = torch.where(torch.isnan(imu), NAN, 9.8)
    cutoff = torch.full((4,), 5.0)
    torch.testing.assert_close(
        low_pass(constant, cutoff), constant, equal_nan=True, rtol=1e-5, atol=0
    )
    change = low_pass(imu, cutoff).nanmean(2) - imu.nanmean(2)
    assert change.nan_to_num().abs().max() < 0.01


def test_cutoffs_lie_between_5_and_50_hz() -> None:
    for hz, low_db, high_db in ((5.0, -3.1, 0.0), (50.0, -300.0, -2.9)):
        imu = torch.zeros(300, 6, LENGTH) + tone(hz)
        power = augment(imu, ALONE["bandwidth"], seeded())[:, 0, 200:800].square().mean(1) / 0.5
        loss_db = 10 * torch.log10(power + 1e-12)
        assert low_db < loss_db.min() and loss_db.max() < high_db
        nearest = loss_db.min() if hz == 5.0 else loss_db.max()
        assert abs(float(nearest) + 3) < 0.3


def test_bandwidth_takes_high_bands_from_its_fraction_only() -> None:
    imu = broadband(8, 200).repeat(25, 1, 1)
    out = augment(imu, replace(OFF, bandwidth=0.2), seeded())
    filtered = (out != imu).any(2).any(1)
    assert 20 < filtered.sum() < 60
    before, after = spectrum(imu[filtered]), spectrum(out[filtered])
    assert decibels(band(after, 40, 60), band(before, 40, 60)) < -3
    assert abs(decibels(band(after, 0.4, 2), band(before, 0.4, 2))) < 0.5


# --- time ---


@pytest.mark.parametrize("speed", [0.8, 0.93, 1.1, 1.25])
def test_a_warp_scales_frequency_and_angular_rate_and_keeps_the_angle(speed: float) -> None:
    hz = 4.0
    imu = (tone(hz) + 0.5).repeat(1, 6, 1)
    imu[:, 2] += STANDARD_GRAVITY_MPS2
    out = warp(imu, torch.tensor([speed]))
    n = int((~torch.isnan(out[0, 0])).sum())
    assert n == min(LENGTH, math.floor((LENGTH - 1) / speed) + 1)
    x = out[0, 0, :n] - 0.5
    padded = torch.fft.rfft(x * torch.hann_window(n), 20_000).abs()
    assert float(padded.argmax()) / 100 == pytest.approx(hz * speed, abs=0.02)
    torch.testing.assert_close(out[0, 3, :n], out[0, 0, :n] * speed)
    # The turn that the window's first k samples show is the one that 1/speed as many show now.
    k = 500
    m = round(k / speed)
    turned = float(imu[0, 3, : round(m * speed)].sum()), float(out[0, 3, :m].sum())
    assert turned[1] == pytest.approx(turned[0], abs=1.5)
    assert float(out[0, 2, :n].mean()) == pytest.approx(STANDARD_GRAVITY_MPS2 + 0.5, abs=0.02)


def test_a_warp_reads_fast_movement_between_grid_times() -> None:
    """A 20 Hz tone, to 0.5 % of its size; 4 % at the edge, where a neighbour is missing."""
    out = warp(tone(20).repeat(1, 6, 1), torch.tensor([0.9]))[0, 0]
    torch.testing.assert_close(out[2:], tone(18)[2:], atol=0.005, rtol=0)
    torch.testing.assert_close(out[:2], tone(18)[:2], atol=0.04, rtol=0)


def test_a_warp_at_speed_1_changes_nothing_but_the_sample_before_a_gap() -> None:
    imu = with_missing()
    out = warp(imu, torch.ones(len(imu)))
    kept = ~torch.isnan(out)
    assert torch.equal(out[kept], imu[kept])
    assert (torch.isnan(out) & ~torch.isnan(imu))[:, 0].sum(1).max() == 1


def test_a_warp_keeps_a_device_at_rest_at_one_g_whichever_way_it_lies() -> None:
    """Sitting down turns gravity from one axis to another; before and after it 1 g is measured."""
    turned = torch.sigmoid((torch.arange(LENGTH) - 500) / 40) * math.pi / 2
    imu = torch.zeros(1, 6, LENGTH)
    imu[0, 0], imu[0, 2] = 9.8 * turned.sin(), 9.8 * turned.cos()
    out = warp(imu, torch.tensor([1.25]))[0, :3]
    norm = out.norm(dim=0)[~torch.isnan(out[0])]
    torch.testing.assert_close(norm, torch.full_like(norm, 9.8), atol=1e-2, rtol=0)


def test_a_warp_moves_gaps_and_never_shortens_a_padded_end() -> None:
    imu = walks(1).repeat(3, 1, 1)
    imu[:, :, 400:480] = NAN
    imu[1, :, 700:] = NAN
    imu[2, :, 210:] = NAN
    slow = torch.isnan(warp(imu, torch.full((3,), 0.8)))[:, 0]
    fast = torch.isnan(warp(imu, torch.full((3,), 1.25)))[:, 0]
    lost = slow[0].nonzero()[:, 0]
    assert abs(int(lost[0]) - 500) <= 1 and abs(int(lost[-1]) - 599) <= 1
    assert not slow[1, 650:700].any() and slow[1, 700:].all()
    lost = fast[0, :700].nonzero()[:, 0]
    assert abs(int(lost[0]) - 320) <= 1 and abs(int(lost[-1]) - 383) <= 1
    assert fast[0, 800:].all() and not fast[0, 384:798].any()
    assert (~fast[2]).sum() >= 199  # a second is left, within a sample


def test_every_warp_stays_within_its_bounds() -> None:
    out = augment(walks(4).repeat(100, 1, 1), ALONE["time warp"], seeded())
    missing = torch.isnan(out[:, 0]).sum(1)
    assert missing.max() <= 200 and missing.max() > 180
    assert 160 < (missing == 0).sum() < 240  # half of the windows are slowed down


def test_a_shift_starts_later_and_pads_the_end() -> None:
    imu = walks(4).repeat(100, 1, 1)
    out = augment(imu, replace(OFF, time_shift=0.5), seeded())
    kept = (~torch.isnan(out[:, 0])).sum(1)
    assert 160 < (kept == LENGTH).sum() < 240
    assert kept.min() == 900
    for row, n in enumerate(kept.tolist()):
        assert same_bits(out[row, :, :n].contiguous(), imu[row, :, LENGTH - n :].contiguous())


def test_a_part_is_cut_from_what_was_measured() -> None:
    imu = walks(4).repeat(100, 1, 1)
    imu[1::2, :, 300:] = NAN
    out = augment(imu, ALONE["partial"], seeded())
    kept = (~torch.isnan(out[:, 0])).sum(1)
    assert kept.min() >= 200 and kept[0::2].max() > 980 and kept[0::2].float().std() > 100
    assert kept[1::2].max() <= 300
    room = []
    for row, n in enumerate(kept.tolist()):
        assert torch.isnan(out[row, :, n:]).all()
        start = int((imu[row, 0] == out[row, 0, 0]).nonzero()[0, 0])
        assert same_bits(out[row, :, :n].contiguous(), imu[row, :, start : start + n].contiguous())
        room.append(((300 if row % 2 else LENGTH) - n, start))
    assert all(start <= most for most, start in room)
    assert 0.4 < sum(start for _, start in room) / sum(most for most, _ in room) < 0.6


def test_a_short_window_is_left_a_second() -> None:
    imu = walks(4).repeat(25, 1, 1)
    imu[:, :, 200:] = NAN
    config = replace(OFF, partial=1.0, time_shift=1.0)
    assert same_bits(augment(imu, config, seeded()), imu)


def test_a_part_that_lies_in_a_gap_is_not_cut_out() -> None:
    imu = walks(2)
    imu[:, :, 300:500] = NAN
    start, kept = torch.tensor([290, 100]), torch.tensor([230, 240])
    out = keep_part(imu, start, kept)
    assert same_bits(out[0], imu[0])
    assert (~torch.isnan(out[1, 0])).sum() == 200


# --- missing ---


@pytest.mark.parametrize("name", [n for n in ALONE if n not in ("partial", "time shift")])
def test_missing_stays_missing(name: str) -> None:
    """Everything that moves no sample keeps what is missing in place, and adds at most a slow
    sensor's sample period on each side of a gap; a warp moves a gap and stretches it."""
    imu = with_missing(80)
    out = augment(imu, ALONE[name], seeded())
    before, after = torch.isnan(imu), torch.isnan(out)
    assert torch.equal(after[:, :3].any(1), after[:, :3].all(1))
    assert torch.equal(after[:, 3:].any(1), after[:, 3:].all(1))
    assert after[2::4, 3:].all()
    if name == "time warp":
        inside = after[0::4, 0, 400:480] | after[0::4, 0, 320:400]
        assert inside.any(1).all()
        assert after[1::4, :, 500:].all()
        return
    assert (after | ~before).all()
    if name == "gyro dropout":
        assert torch.equal(after[:, :3], before[:, :3])
        return
    grown = (after & ~before)[:, 0].sum(1)
    if name == "rate degradation":
        assert not (after & ~before)[3::4].any() and not (after & ~before)[2::4].any()
        assert grown[0::4].max() > 1 and grown[0::4].max() <= 20 and grown[1::4].max() <= 10
    else:
        assert not grown.any()


def test_a_gap_shorter_than_a_slow_period_is_not_bridged() -> None:
    imu = walks(1)
    imu[:, :, 404:406] = NAN
    for phase in (0.0, 0.3, 0.5, 0.9):
        out = remeasure(imu, torch.tensor([20.0]), torch.tensor([phase]))
        assert torch.isnan(out[:, :, 404:406]).all()
    assert torch.isnan(warp(imu, torch.tensor([1.1]))[:, :, 367:369]).any()


def test_a_whole_window_stays_whole_at_any_rate_and_phase() -> None:
    """Also where slow samples fall on the window's first or last sample, exactly or nearly."""
    rate, phase = torch.meshgrid(
        torch.tensor([20.0, 25.0, 30.0, 33.3, 40.0, 50.0, 60.0, 100.0]),
        torch.cat([torch.arange(10) / 10, torch.tensor([0.25, 0.75, 1e-8, 1 - 2**-24])]),
        indexing="ij",
    )
    rate, phase = rate.flatten(), phase.flatten()
    imu = (tone(2) + 9.8).repeat(len(rate), 6, 1)
    out = remeasure(imu, rate, phase)
    assert (out - imu).abs().max() < 0.7  # NaN would fail too; an edge held is off by a period
    many = 1500
    rate = 20 * 5 ** torch.rand(many, generator=seeded())
    out = remeasure(torch.ones(many, 6, LENGTH), rate, torch.rand(many, generator=seeded(1)))
    torch.testing.assert_close(out, torch.ones(many, 6, LENGTH))


def test_measured_samples_stay_measured_with_everything_on() -> None:
    config = AugmentConfig(rate_degradation=1, bandwidth=1, time_shift=1, time_warp=1, partial=0.5)
    out = augment(with_missing(200), config, seeded())
    missing = torch.isnan(out)
    assert torch.equal(missing[:, :3].any(1), missing[:, :3].all(1))
    assert (~missing[:, 0]).sum(1).min() >= 150
    assert not (missing[:, 0] & ~missing[:, 3]).any()
    assert out.nan_to_num().abs().max() < 25


# --- switches ---


@pytest.mark.parametrize("name", ALONE)
def test_every_augmentation_works_alone_and_is_off_at_0(name: str) -> None:
    imu = with_missing()
    untouched = imu.clone()
    out = augment(imu, ALONE[name], seeded())
    assert out.shape == imu.shape and out.dtype == imu.dtype
    assert not same_bits(out, imu)
    assert same_bits(imu, untouched)
    off = augment(imu, OFF, seeded())
    assert same_bits(off, imu) and off.data_ptr() != imu.data_ptr()


@pytest.mark.parametrize(
    "switch",
    [{"orientation": "none", "rotation": 1.0}, {"orientation": "free"}, {"max_tilt_deg": 30.0}],
)
def test_an_orientation_without_windows_and_windows_without_orientation(
    switch: dict[str, Any],
) -> None:
    imu = with_missing(4)
    assert same_bits(augment(imu, replace(OFF, **switch), seeded()), imu)


@pytest.mark.parametrize("name", ALONE)
def test_a_windows_fate_does_not_depend_on_its_neighbours(name: str) -> None:
    imu = with_missing()
    other = imu.clone()
    other[3] = torch.randn(6, LENGTH, generator=seeded(5)) * 100
    other[7] = NAN
    a, b = (augment(x, ALONE[name], seeded()) for x in (imu, other))
    rest = [i for i in range(len(imu)) if i not in (3, 7)]
    assert same_bits(a[rest], b[rest])


def test_the_generator_decides() -> None:
    imu = with_missing()
    a, b, c = (augment(imu, AugmentConfig(), seeded(seed)) for seed in (0, 0, 1))
    assert same_bits(a, b) and not same_bits(a, c)
    generator = seeded()
    augment(imu, AugmentConfig(), generator)
    assert not same_bits(augment(imu, AugmentConfig(), generator), a)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_nothing_else_and_draws_the_same(name: str) -> None:
    imu, generator, reference = with_missing(40), seeded(), seeded()
    without, whole = (
        augment(imu, config, g)
        for config, g in ((ABLATIONS[name], generator), (AugmentConfig(), reference))
    )
    assert torch.equal(generator.get_state(), reference.get_state())
    assert not same_bits(without, whole)
    if name not in ("no gyro dropout", "none at all"):
        lost = [torch.isnan(x[:, 3]).all(1) for x in (without, whole)]
        assert torch.equal(*lost)


def test_the_ablations_are_the_default_less_one() -> None:
    changed = {
        name: {f for f, v in asdict(config).items() if v != asdict(AugmentConfig())[f]}
        for name, config in ABLATIONS.items()
    }
    none_at_all = changed.pop("none at all")
    assert changed == {
        "no rotation": {"orientation"},
        "tilt-yaw instead of free": {"orientation"},
        "no gain": {"gain"},
        "no noise": {"noise_mps2", "noise_rads"},
        "no rate degradation": {"rate_degradation"},
        "no bandwidth": {"bandwidth"},
        "no gyro dropout": {"gyro_dropout"},
        "no partial": {"partial"},
        "no time shift": {"time_shift"},
        "no time warp": {"time_warp"},
    }
    assert none_at_all == {f.name for f in fields(AugmentConfig)} - {"max_tilt_deg"}


@pytest.mark.parametrize("orientation", ["free", "tilt-yaw"])
def test_all_happens_on_the_batchs_device(orientation: str) -> None:
    """Whatever is made without naming the batch's device comes to lie on another one here, where
    it cannot be computed with."""
    imu, config = with_missing(), AugmentConfig(orientation=orientation)
    expected, generator = augment(imu, config, seeded()), seeded()
    with torch.device("meta"):
        out = augment(imu, config, generator)
    assert same_bits(out, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("orientation", ["free", "tilt-yaw"])
def test_on_a_gpu_as_deterministic_and_as_strict(orientation: str) -> None:
    imu, config = with_missing(64).cuda(), AugmentConfig(orientation=orientation)
    a, b = (augment(imu, config, torch.Generator("cuda").manual_seed(0)) for _ in range(2))
    assert a.device == imu.device and same_bits(a, b)
    off = augment(imu, OFF, torch.Generator("cuda").manual_seed(0))
    assert same_bits(off, imu)
    number, speed = torch.rand(64, 3), torch.full((64,), 1.1)
    rate, phase = torch.full((64,), 33.0), torch.rand(64)
    operations: tuple[tuple[Callable[..., Tensor], tuple[Tensor, ...]], ...] = (
        (rotate, (rotations(number),)),
        (warp, (speed,)),
        (low_pass, (rate,)),
        (remeasure, (rate, phase)),
    )
    for operation, numbers in operations:
        there = operation(imu, *(x.cuda() for x in numbers)).cpu()
        here = operation(imu.cpu(), *numbers)
        torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-4, equal_nan=True)


# --- the command line ---


def parse(*argv: str) -> AugmentConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return config_from(parser.parse_args(argv))


def test_without_switches_the_default() -> None:
    assert parse() == AugmentConfig()


@pytest.mark.parametrize(
    ("flag", "text", "field", "value"),
    [
        ("--orientation", "tilt-yaw", "orientation", "tilt-yaw"),
        ("--rotation", "0.5", "rotation", 0.5),
        ("--max-tilt", "45", "max_tilt_deg", 45.0),
        ("--gain", "0", "gain", 0.0),
        ("--noise-acc", "0.2", "noise_mps2", 0.2),
        ("--noise-gyro", "0.1", "noise_rads", 0.1),
        ("--rate-degradation", "0", "rate_degradation", 0.0),
        ("--bandwidth", "1", "bandwidth", 1.0),
        ("--gyro-dropout", "0", "gyro_dropout", 0.0),
        ("--partial", "0", "partial", 0.0),
        ("--time-shift", "0", "time_shift", 0.0),
        ("--time-warp", "0", "time_warp", 0.0),
    ],
)
def test_every_field_has_its_switch(flag: str, text: str, field: str, value: Any) -> None:
    assert parse(flag, text) == replace(AugmentConfig(), **{field: value})


def test_help_tells_every_default() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = " ".join(parser.format_help().split())
    for field in fields(AugmentConfig):
        assert f"(default: {field.default})" in words, field.name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--rotation", "1.5"), "no fraction between 0 and 1"),
        (("--partial", "-0.1"), "negative"),
        (("--gain", "nan"), "not finite"),
        (("--noise-acc", "much"), "no number"),
        (("--orientation", "upright"), "invalid choice"),
    ],
)
def test_a_wrong_switch_is_refused(
    argv: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*argv)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"orientation": "up"}, {"partial": 1.1}, {"gain": -1.0}, {"max_tilt_deg": NAN}]
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentConfig(**wrong)


def test_a_configuration_survives_json() -> None:
    for config in ABLATIONS.values():
        assert AugmentConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_the_configuration_needs_no_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None
from training.augment_config import ABLATIONS, AugmentConfig, add_arguments, config_from
print(len(ABLATIONS))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "11", done.stderr
