"""Samples and the simulated wearable."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from firmware_bridge.samples import STANDARD_GRAVITY_MPS2, Samples
from firmware_bridge.sim import RATE_HZ, simulated_packets


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"acc_mps2 has shape \(2, 2\), expected \(2, 3\)"):
        Samples(np.zeros(2), np.zeros((2, 2)), None)
    with pytest.raises(ValueError, match="gyro_rads"):
        Samples(np.zeros(2), np.zeros((2, 3)), np.zeros((3, 3)))


def test_slices_and_shifts() -> None:
    s = Samples(np.arange(4.0), np.arange(12.0).reshape(4, 3), None)
    assert len(s[1:3]) == 2 and s[1:3].shifted(10).t_s.tolist() == [11, 12]


def test_chunks_are_joined_with_and_without_a_gyroscope() -> None:
    s = Samples(np.arange(4.0), np.arange(12.0).reshape(4, 3), np.ones((4, 3)))
    joined = Samples.joined([s[:1], s[1:4]])
    assert joined.t_s.tolist() == [0, 1, 2, 3] and joined.gyro_rads is not None
    assert Samples.joined([Samples(s.t_s, s.acc_mps2, None)]).gyro_rads is None


def test_the_simulated_wearable_is_repeatable_lossy_and_in_si_units() -> None:
    first, again = (list(islice(simulated_packets(seed=3), 1000)) for _ in range(2))
    assert all(np.array_equal(a.acc_mps2, b.acc_mps2) for a, b in zip(first, again, strict=True))
    t = np.concatenate([p.t_s for p in first])
    acc = np.concatenate([p.acc_mps2 for p in first])
    assert np.median(np.sqrt((acc**2).sum(axis=1))) == pytest.approx(STANDARD_GRAVITY_MPS2, rel=0.1)
    lost = 1 - len(t) / (t[-1] * RATE_HZ * 1.01)
    assert 0.005 < lost < 0.05
    assert np.std(np.diff(t)) > 5e-4  # jitter
