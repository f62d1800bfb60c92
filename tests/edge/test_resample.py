"""The streaming resampler: rates, jitter, gaps, bad stamps, and independence of chunking."""

from __future__ import annotations

from itertools import cycle, pairwise

import numpy as np
import pytest

from edge.resample import MAX_GAP_S, GridBlock, Resampler
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples
from tests.conftest import walk, without


def resample(
    samples: Samples, chunks: list[int] | None = None
) -> tuple[Resampler, list[GridBlock]]:
    """Push in chunks of the given sizes, over and over (one chunk by default)."""
    resampler, blocks, start = Resampler(), [], 0
    for size in cycle(chunks or [len(samples)]):
        blocks += resampler.push(samples[start : start + size])
        start += size
        if start >= len(samples):
            return resampler, blocks + resampler.finish()
    raise AssertionError


def grid(blocks: list[GridBlock]) -> dict[int, np.ndarray]:
    values = {b.start_index + k: row for b in blocks for k, row in enumerate(b.values)}
    assert len(values) == sum(len(b.values) for b in blocks), "an index came twice"
    return values


def unbroken(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of a stream without gaps, its blocks joined."""
    resampler, blocks = resample(samples)
    assert all(a.stop_index == b.start_index for a, b in pairwise(blocks))
    values = np.concatenate([b.values for b in blocks])
    return np.array([resampler.time_of(k) for k in range(len(values))]), values


def tone(rate_hz: float, tone_hz: float, jitter: float = 0.0) -> Samples:
    """Four seconds of a sine of amplitude 1 on all axes."""
    n = round(4 * rate_hz)
    t = (np.arange(n) + np.random.default_rng(1).uniform(-jitter, jitter, n)) / rate_hz
    return Samples(t, np.repeat(np.sin(2 * np.pi * tone_hz * t)[:, None], 3, axis=1), None)


@pytest.mark.parametrize("rate_hz", [10, 26, 50, 199.7, 200, 208, 416, 1000])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_chunking_changes_no_bit(rate_hz: float, jitter: float) -> None:
    samples = without(without(walk(12, rate_hz, jitter), 4.2, 5.1), 7.0, 7.2)
    whole = grid(resample(samples)[1])
    for chunks in ([1], [7, 1, 50, 3], [333]):
        pieces = grid(resample(samples, chunks)[1])
        assert pieces.keys() == whole.keys()
        assert all(np.array_equal(pieces[k], whole[k]) for k in whole)


TONES_HZ = (101, 110, 150, 190, 300, 480)


@pytest.mark.parametrize(
    ("rate_hz", "tone_hz"),
    [(rate, f) for rate in (208, 250, 416, 1000) for f in TONES_HZ if f < rate / 2],
)
def test_tones_above_the_grids_nyquist_rate_are_60_db_down(rate_hz: float, tone_hz: float) -> None:
    _, values = unbroken(tone(rate_hz, tone_hz))
    assert 20 * np.log10(np.abs(values[200:-200]).max()) < -60


@pytest.mark.parametrize("rate_hz", [250, 1000])
def test_tones_of_human_motion_pass_the_filter(rate_hz: float) -> None:
    t, values = unbroken(tone(rate_hz, 20, jitter=0.1))
    error = values[:, 0] - np.sin(2 * np.pi * 20 * t)
    assert np.abs(error[100:-100]).max() < 0.05


def test_a_50_hz_walk_keeps_its_shape() -> None:
    t, values = unbroken(tone(50, 2))
    assert np.abs(values[:, 0] - np.sin(2 * np.pi * 2 * t)).max() < 0.01


def test_a_200_hz_source_on_the_grid_is_passed_through() -> None:
    samples = walk(3, 200)
    np.testing.assert_allclose(unbroken(samples)[1][:, :3], samples.acc_mps2, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [20, 100, 500])
def test_nothing_overshoots_at_a_gap(rate_hz: float) -> None:
    """A step from 0 to 1 just before a gap: no value leaves [0, 1]."""
    t = np.arange(0, 4, 1 / rate_hz)
    t = t[(t < 1.5) | (t > 2.5)]
    step = np.repeat((t > 1.4).astype(float)[:, None], 3, axis=1)
    blocks = resample(Samples(t, step, None))[1]
    near_gap = np.concatenate([b.values for b in blocks if b.stop_index < 310 or rate_hz <= 200])
    tolerance = 1e-6 if rate_hz <= 200 else 0.1  # a linear-phase filter rings at an inner step
    assert near_gap.min() >= -tolerance and near_gap.max() <= 1 + tolerance


@pytest.mark.parametrize("hole_s", [0.02, 0.05, 0.2])
def test_the_filter_leaves_a_hole_to_interpolation(hole_s: float) -> None:
    """Weights that no longer add up to 1 would throw the ramp off by seconds."""
    t = np.arange(0, 6, 1 / 500)
    t = t[(t < 3) | (t > 3 + hole_s)]
    at, values = unbroken(Samples(t, np.repeat(t[:, None], 3, axis=1), None))
    np.testing.assert_allclose(values[:, 0], at, atol=0.02)


@pytest.mark.parametrize("rate_hz", [20, 500])
def test_at_a_gap_the_samples_themselves_stand(rate_hz: float) -> None:
    """A half-empty filter would average the ramp: its first and last value would be off."""
    t = np.arange(0, 4, 1 / rate_hz)
    t = t[(t < 1.5) | (t > 2.5)]
    resampler, blocks = resample(Samples(t, np.repeat(t[:, None], 3, axis=1), None))
    for k, row in grid(blocks).items():
        assert row[0] == pytest.approx(resampler.time_of(k), abs=1e-5)


def test_a_gap_is_left_empty_and_a_short_hole_is_bridged() -> None:
    samples = without(without(walk(6, 100), 1.0, 1.0 + MAX_GAP_S - 0.02), 3.0, 4.0)
    blocks = resample(samples)[1]
    indices = sorted(grid(blocks))
    holes = [(a, b) for a, b in pairwise(indices) if b - a > 1]
    assert holes == [(598, 800)]  # 2.99 s, the last sample before the gap, and 4.00 s


def test_a_stamp_that_does_not_advance_is_left_out_and_counted() -> None:
    samples = walk(3, 50)
    t = samples.t_s.copy()
    t[60] = t[59]  # repeated
    t[80] = t[70]  # late by 0.2 s
    resampler, blocks = resample(Samples(t, samples.acc_mps2, samples.gyro_rads), [1])
    assert resampler.dropped.not_later == 2
    assert resampler.dropped.first_not_later_s == t[59]
    assert len(grid(blocks)) == 597  # 0 to 2.98 s: the neighbours bridge both


def test_nan_is_not_measured_and_never_spreads() -> None:
    samples = walk(3, 50)
    acc = samples.acc_mps2.copy()
    acc[50, 1] = np.nan
    acc[100:120] = np.inf  # 0.4 s: longer than the gap limit
    resampler, blocks = resample(Samples(samples.t_s, acc, samples.gyro_rads))
    assert resampler.dropped.not_finite == 21
    values = grid(blocks)
    assert all(np.isfinite(v).all() for v in values.values())
    assert 420 not in values and 200 in values


@pytest.mark.parametrize(
    ("shift_s", "message"),
    [
        (-2.0, r"goes back by 1\.98\d s .*Split the recording"),
        (1e6, r"jumps ahead by 277\.8 h .*Split the recording"),
    ],
)
@pytest.mark.parametrize("chunks", [[150], [1], [37]])
def test_a_clock_that_was_reset_or_set_is_an_error_after_all_that_was_measured(
    shift_s: float, message: str, chunks: list[int]
) -> None:
    samples = walk(3, 50)
    t = np.where(samples.t_s > 2, samples.t_s + shift_s, samples.t_s)
    spoilt = Samples(t, samples.acc_mps2, samples.gyro_rads)
    resampler, blocks, start = Resampler(), [], 0
    with pytest.raises(InputError, match=message):
        for size in cycle(chunks):
            blocks += resampler.push(spoilt[start : start + size])
            start += size
            if start >= len(spoilt):
                resampler.finish()
    good = grid(resample(samples[:101])[1])
    assert grid(blocks).keys() == good.keys()
    assert all(np.array_equal(grid(blocks)[k], good[k]) for k in good)


def test_a_gyroscope_that_vanishes_is_an_error() -> None:
    resampler = Resampler()
    resampler.push(walk(1, 50))
    with pytest.raises(InputError, match="gyroscope disappeared"):
        resampler.push(Samples(np.array([1.0]), np.ones((1, 3)), None))


def test_stamps_since_1970_lose_no_precision() -> None:
    samples = walk(4, 52)
    near = grid(resample(samples)[1])
    epoch = grid(resample(samples.shifted(1.7e9))[1])
    assert near.keys() == epoch.keys()
    assert max(np.abs(near[k] - epoch[k]).max() for k in near) < 1e-3
