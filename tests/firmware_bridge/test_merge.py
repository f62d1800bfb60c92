"""Accelerometer and gyroscope of one device, sent apart."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.merge import MAX_BRACKET_S, MAX_WAIT_S, Merger
from firmware_bridge.samples import Samples
from tests.firmware_bridge.simulated_links import STAMPS, STAMPS_MS, Link, apart_s

SLOW = Link("stamps, 52 Hz, 36 a packet", tick_s=1e-6, packet=36, nominal_hz=52.0)


def acc_at(t_s: np.ndarray) -> np.ndarray:
    return np.stack([t_s, -t_s, t_s + 9.8], axis=1)


def gyro_at(t_s: np.ndarray) -> np.ndarray:
    return np.stack([2 * t_s, 3 - t_s, 0 * t_s], axis=1)  # linear: interpolation has no error


def joined(parts: list[Samples | None]) -> Samples:
    return Samples.joined([p for p in parts if p is not None])


def push(merger: Merger, kind: str, t_s: np.ndarray) -> Samples | None:
    if kind == "acc":
        return merger.push("acc", t_s, acc_at(t_s))
    return merger.push("gyro", t_s, gyro_at(t_s))


def test_six_axes_and_accelerometers_alone_pass() -> None:
    t, values = np.arange(3.0), np.arange(18.0).reshape(3, 6)
    both = Merger({"imu"}).push("imu", t, values)
    assert both is not None and both.gyro_rads is not None
    assert np.array_equal(np.hstack([both.acc_mps2, both.gyro_rads]), values)
    alone = Merger({"acc"}).push("acc", t, values[:, :3])
    assert alone is not None and alone.gyro_rads is None and len(alone) == 3


@pytest.mark.parametrize("kinds", [[], ["gyro"], ["imu", "acc"]])
def test_other_combinations_are_refused(kinds: list[str]) -> None:
    with pytest.raises(ValueError, match="no samples come of"):
        Merger(kinds)  # type: ignore[arg-type]


def test_the_gyroscope_is_interpolated_at_the_accelerometers_times() -> None:
    merger = Merger({"acc", "gyro"})
    acc_s, gyro_s = np.arange(0, 10, 0.0192), np.arange(0.003, 10, 0.0191)
    parts = []
    for i in range(0, len(acc_s), 20):
        parts += [push(merger, "acc", acc_s[i : i + 20]), push(merger, "gyro", gyro_s[i : i + 20])]
    samples = joined(parts)
    assert samples.gyro_rads is not None
    assert np.array_equal(samples.acc_mps2, acc_at(samples.t_s))
    assert samples.gyro_rads == pytest.approx(gyro_at(samples.t_s), abs=1e-9)
    # The one before the first gyroscope sample has no bracket; those after the last one wait.
    assert merger.unpaired == 1 and samples.t_s[0] == acc_s[1]
    assert samples.t_s[-1] <= gyro_s[-1]


def test_the_same_times_need_no_bracket() -> None:
    merger, t = Merger({"acc", "gyro"}), np.arange(5) * 0.02
    push(merger, "gyro", t)
    samples = push(merger, "acc", t)
    assert samples is not None and samples.gyro_rads is not None and merger.unpaired == 0
    assert np.array_equal(samples.gyro_rads, gyro_at(t))


def test_a_hole_in_the_gyroscope_is_a_gap() -> None:
    merger, t = Merger({"acc", "gyro"}), np.arange(0, 4, 0.02)
    keep = (t < 1.005) | (t > 1.995)
    samples = joined([push(merger, "acc", t), push(merger, "gyro", t[keep])])
    assert np.array_equal(samples.t_s, t[keep])
    assert merger.unpaired == (~keep).sum() and np.diff(samples.t_s).max() > MAX_BRACKET_S
    short = Merger({"acc", "gyro"})
    keep = (t < 1.005) | (t > 1.195)  # 0.2 s are interpolated
    assert len(joined([push(short, "acc", t), push(short, "gyro", t[keep])])) == len(t)


def test_a_silent_stream_is_not_waited_for_without_end() -> None:
    merger, t = Merger({"acc", "gyro"}), np.arange(0, 60, 0.02)
    push(merger, "gyro", t[:50])
    for i in range(0, len(t), 10):
        push(merger, "acc", t[i : i + 10])
    assert merger.unpaired == pytest.approx((60 - 1 - MAX_WAIT_S) / 0.02, abs=2)
    # It speaks again: what waited lies in the hole and is left out, what comes now is joined.
    push(merger, "gyro", t[-3:])
    samples = push(merger, "acc", t[-1:] + 0.001)
    assert samples is None and merger.unpaired == len(t) - 50 - 3
    silent = Merger({"acc", "gyro"})
    for i in range(0, len(t), 10):
        assert push(silent, "gyro", t[i : i + 10]) is None
    assert len(silent._gyro_s) <= MAX_WAIT_S / 0.02 + 2


def test_streams_that_are_seconds_apart_are_joined_whole() -> None:
    """A sensor at rest sends packets of 2 s, each stream when its own is full."""
    merger, t = Merger({"acc", "gyro"}), np.arange(0, 30, 0.02)
    parts = []
    for i in range(0, len(t), 100):
        parts += [
            push(merger, "acc", t[i : i + 100]),
            push(merger, "gyro", t[max(0, i - 90) : i + 10]),
        ]
    assert merger.unpaired == 0 and len(joined(parts)) >= len(t) - 100


def test_streams_of_one_clock_are_joined_by_it_however_late_each_is_placed() -> None:
    merger, device_s = Merger({"acc", "gyro"}), 5e8 + np.arange(0, 10, 0.02)
    parts = []
    for i in range(0, len(device_s), 20):
        stamps = device_s[i : i + 20]
        acc_s, gyro_s = stamps - 5e8 + 7.0, stamps - 5e8 + 7.045  # a burst apart
        parts += [
            merger.push("acc", acc_s, acc_at(stamps - 5e8), stamps),
            merger.push("gyro", gyro_s, gyro_at(stamps - 5e8), stamps),
        ]
    samples = joined(parts)
    assert merger.unpaired == 0 and len(samples) == len(device_s)
    assert samples.t_s == pytest.approx(device_s - 5e8 + 7.0, abs=1e-6)
    assert samples.gyro_rads == pytest.approx(gyro_at(device_s - 5e8), abs=1e-6)


def test_a_clock_that_begins_anew_is_another_one() -> None:
    merger, t = Merger({"acc", "gyro"}), np.arange(0, 1, 0.02)
    for kind, later_s in (("acc", 0), ("gyro", 0), ("acc", 1)):
        push_stamped(merger, kind, t + later_s, 1000.0 + t + later_s)
    assert merger.unpaired == 0 and len(merger._acc_s) == len(t)
    # What waited was measured before; that it is left out is a gap.
    assert push_stamped(merger, "acc", t + 2, t) is None and merger.unpaired == len(t)
    samples = push_stamped(merger, "gyro", t + 2.03, t)
    assert samples is not None and np.array_equal(samples.t_s, t + 2) and merger.unpaired == len(t)


def test_stamps_that_come_or_go_are_not_joined_with_times() -> None:
    merger, t = Merger({"acc", "gyro"}), np.arange(0, 1, 0.02)
    push(merger, "acc", t)
    assert push_stamped(merger, "gyro", t, t) is None and merger.unpaired == len(t)
    samples = push_stamped(merger, "acc", t + 1, t)
    assert samples is not None and len(samples) == len(t)


def push_stamped(merger: Merger, kind: str, t_s: np.ndarray, at_s: np.ndarray) -> Samples | None:
    values = acc_at(t_s) if kind == "acc" else gyro_at(t_s)
    return merger.push(kind, t_s, values, at_s)  # type: ignore[arg-type]


@pytest.mark.parametrize("link", [STAMPS, STAMPS_MS, SLOW], ids=lambda link: link.name)
def test_over_a_link_the_streams_are_joined_to_the_resolution_of_the_stamps(link: Link) -> None:
    short = dataclasses.replace(link, duration_s=30.0)
    apart = np.concatenate([apart_s(short, seed) for seed in range(3)])
    assert link.tick_s and len(apart) > 3000 and np.abs(apart).max() <= link.tick_s


def test_a_flush_leaves_out_what_waits() -> None:
    merger, t = Merger({"acc", "gyro"}), np.arange(0, 1, 0.02)
    push(merger, "acc", t)
    merger.flush()
    assert merger.unpaired == len(t)
    assert push(merger, "gyro", t + 5) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.floats(1e-3, 3.0), min_size=1, max_size=9))))
def test_nothing_is_invented_and_nothing_vanishes(
    pushes: list[tuple[bool, list[float]]],
) -> None:
    merger = Merger({"acc", "gyro"})
    end = {"acc": 0.0, "gyro": 0.0}
    sent: dict[str, list[float]] = {"acc": [], "gyro": []}
    out: list[float] = []
    for is_acc, steps in pushes:
        kind = "acc" if is_acc else "gyro"
        t = end[kind] + np.cumsum(steps)
        end[kind] = float(t[-1])
        sent[kind] += t.tolist()
        samples = push(merger, kind, t)
        if samples is not None:
            assert samples.gyro_rads is not None
            assert samples.gyro_rads == pytest.approx(gyro_at(samples.t_s), rel=1e-6, abs=1e-6)
            out += samples.t_s.tolist()
    merger.flush()
    assert all(a < b for a, b in pairwise(out)) and set(out) <= set(sent["acc"])
    assert len(out) + merger.unpaired == len(sent["acc"])
