"""The upright direction: from gait, in any orientation, however the stream is cut."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.posture import posture_evidence
from edge.resample import GridBlock
from edge.upright import UprightTracker, steady_direction
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2

Vector = NDArray[np.float64]

UP = np.array([0.48, -0.6, 0.64])
ASIDE = np.cross(UP, [0.0, 0.0, 1.0]) / np.linalg.norm(np.cross(UP, [0.0, 0.0, 1.0]))


def tilted(angle_deg: float) -> Vector:
    """A direction at an angle from `UP`."""
    angle = np.radians(angle_deg)
    return np.cos(angle) * UP + np.sin(angle) * ASIDE


def moving(
    up: Vector, duration_s: float, bounce_mps2: float = 2.5, rate_hz: float = 2.0
) -> NDArray[np.float32]:
    """(n, 3) a body that bobs along the vertical; the default is gait."""
    t = np.arange(round(duration_s * 200)) / 200
    vertical = STANDARD_GRAVITY_MPS2 + bounce_mps2 * np.sin(2 * np.pi * rate_hz * t)
    return (vertical[:, None] * up).astype(np.float32)


def still(up: Vector, duration_s: float) -> NDArray[np.float32]:
    return moving(up, duration_s, bounce_mps2=0)


def fed(*parts: NDArray[np.float32]) -> UprightTracker:
    tracker = UprightTracker()
    tracker.push(GridBlock(0, np.concatenate(parts)))
    return tracker


def at_s(tracker: UprightTracker, time_s: float) -> Vector | None:
    return tracker.reference_at(round(time_s * 200))


def angle_deg(a: Vector | None, b: Vector) -> float:
    assert a is not None
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


@pytest.mark.parametrize("up", [UP, np.array([0.0, 0.0, -1.0]), np.array([1.0, 0.0, 0.0])])
def test_gait_shows_the_upright_direction_in_any_orientation(up: Vector) -> None:
    """8 steps, the first after 4 s: a fifth of its 5 s may be missing."""
    tracker = fed(moving(up, 30))
    assert tracker.reference_at(11 * 200 - 1) is None
    assert angle_deg(tracker.reference_at(11 * 200), up) < 0.5
    assert np.linalg.norm(at_s(tracker, 30)) == pytest.approx(1)


def test_a_static_tilt_after_gait_is_measured_from_it() -> None:
    tracker = fed(moving(UP, 30), still(tilted(70), 10))
    imu = np.full((6, 1000), np.nan, np.float32)
    imu[:3] = still(tilted(70), 5).T
    evidence = posture_evidence(imu, at_s(tracker, 40))
    assert evidence is not None and evidence.tilt_deg == pytest.approx(70, abs=0.5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("still", still(UP, 60)),
        ("cycling: slow, periodic, gentle", moving(UP, 60, bounce_mps2=1.0, rate_hz=1.2)),
        ("jumping: too hard", moving(UP, 60, bounce_mps2=11, rate_hz=2)),
        ("rocking: too slow a period", moving(UP, 60, bounce_mps2=2.5, rate_hz=0.3)),
    ],
)
def test_what_is_no_gait_votes_for_nothing(name: str, values: NDArray[np.float32]) -> None:
    assert at_s(fed(values), 60) is None, name


def test_noise_as_strong_as_gait_is_no_gait() -> None:
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.normal(0, 2.5, (60 * 25, 1)), 8, axis=0)
    noise = ((STANDARD_GRAVITY_MPS2 + slow) * UP).astype(np.float32)
    assert at_s(fed(noise), 60) is None
    assert at_s(fed((slow * 0).astype(np.float32) + moving(UP, 60)), 60) is not None


def test_a_device_that_turns_while_its_wearer_walks_votes_for_nothing() -> None:
    angle = np.radians(15) * np.arange(60 * 200)[:, None] / 200  # 15 degrees a second
    up = np.cos(angle) * UP + np.sin(angle) * ASIDE
    size = np.linalg.norm(moving(UP, 60), axis=1, keepdims=True)
    assert at_s(fed((size * up).astype(np.float32)), 60) is None


def test_a_remounted_device_takes_the_new_direction_after_eight_steps() -> None:
    """The first step that is all in the new direction ends 5 s after the change."""
    tracker = fed(moving(UP, 60), moving(tilted(90), 60))
    assert angle_deg(at_s(tracker, 71), UP) < 0.5
    assert angle_deg(at_s(tracker, 60 + 5 + 8), tilted(90)) < 0.5
    assert angle_deg(at_s(tracker, 120), tilted(90)) < 0.5


def test_a_short_walk_with_the_device_held_elsewhere_changes_nothing() -> None:
    tracker = fed(moving(UP, 60), moving(tilted(60), 9), moving(UP, 60))
    for time_s in range(60, 130):
        assert angle_deg(at_s(tracker, time_s), UP) < 0.5


def test_two_short_walks_elsewhere_do_not_add_up() -> None:
    elsewhere = moving(tilted(60), 9)
    tracker = fed(moving(UP, 60), elsewhere, moving(UP, 30), elsewhere, moving(UP, 30))
    for time_s in range(60, 138):
        assert angle_deg(at_s(tracker, time_s), UP) < 0.5


def test_a_slow_shift_is_followed_and_the_old_forgotten() -> None:
    tracker = fed(moving(UP, 300), moving(tilted(25), 600))
    after_a_minute, at_the_end = at_s(tracker, 360), at_s(tracker, 900)
    assert 5 < angle_deg(after_a_minute, UP) < 20
    assert angle_deg(at_the_end, tilted(25)) < 1


def test_upside_down_for_long_drops_the_reference_and_lying_does_not() -> None:
    assert angle_deg(at_s(fed(moving(UP, 30), still(tilted(120), 60)), 90), UP) < 0.5
    tracker = fed(moving(UP, 30), still(tilted(160), 60), moving(tilted(160), 30))
    assert angle_deg(at_s(tracker, 30 + 5 + 8), UP) < 0.5
    assert at_s(tracker, 30 + 5 + 10) is None
    assert angle_deg(at_s(tracker, 120), tilted(160)) < 0.5


@pytest.mark.parametrize("between_deg", [30, 132])  # over 132 degrees all steps are steady
def test_upside_down_with_pauses_drops_nothing(between_deg: float) -> None:
    moments = [still(tilted(150), 8), still(tilted(between_deg), 8)] * 4
    tracker = fed(moving(UP, 30), *moments)
    for time_s in range(30, 95):
        assert angle_deg(at_s(tracker, time_s), UP) < 0.5


def test_the_reference_is_kept_over_a_gap_of_a_day() -> None:
    tracker, day = UprightTracker(), 86_400 * 200
    tracker.push(GridBlock(0, moving(UP, 30)))
    tracker.push(GridBlock(day + 77, still(tilted(70), 10)))
    assert angle_deg(tracker.reference_at(day), UP) < 0.5
    assert angle_deg(tracker.reference_at(day + 2000), UP) < 0.5


def test_a_step_that_lacks_more_than_a_fifth_does_not_count() -> None:
    """Of every 5 s, 0.8 s are missing, or 1.2 s."""
    for lost_s, known in ((0.8, True), (1.2, False)):
        tracker = UprightTracker()
        walk = moving(UP, 60)
        for start in range(0, 60 * 200, 1000):
            tracker.push(GridBlock(start, walk[start : start + 1000 - round(lost_s * 200)]))
        assert (at_s(tracker, 55) is not None) == known


def references(tracker: UprightTracker, until: int) -> list[tuple[float, ...] | None]:
    found = [tracker.reference_at(index) for index in range(0, until, 100)]
    return [None if r is None else tuple(r) for r in found]


def day_in_short() -> list[GridBlock]:
    """Walks, rests, a remount, gaps short and long, noise."""
    rng = np.random.default_rng(3)
    parts = [
        moving(UP, 40.3),
        still(tilted(70), 20.2),
        moving(tilted(15), 35),
        moving(tilted(80), 40),
    ]
    parts += [still(-UP, 30), moving(UP, 33.3)]
    values = np.concatenate(parts) + rng.normal(0, 0.3, (sum(map(len, parts)), 3)).astype(
        np.float32
    )
    cuts, blocks, shift = [0, 3017, 5555, 9001, 22_222, len(values)], [], 0
    for first, stop, gap in zip(cuts, cuts[1:], (60, 150, 1003, 9999, 0), strict=False):
        blocks.append(GridBlock(first + shift, values[first:stop]))
        shift += gap
    return blocks


def test_the_chunks_change_nothing_bit_for_bit() -> None:
    blocks = day_in_short()
    end = blocks[-1].stop_index
    whole = UprightTracker()
    for block in blocks:
        whole.push(block)
    expected = references(whole, end)
    assert len({r for r in expected if r}) > 50 and None in expected
    rng = np.random.default_rng(0)
    for largest in (3, 40, 700, 5000):
        live, asked = UprightTracker(), []
        for block in blocks:
            start = 0
            while start < len(block.values):
                stop = start + int(rng.integers(1, largest + 1))
                live.push(GridBlock(block.start_index + start, block.values[start:stop]))
                start = stop
                # Asked as soon as the stream is there, as live use does.
                until = min(block.start_index + start, block.stop_index)
                asked += [live.reference_at(i) for i in range(100 * len(asked), until + 1, 100)]
        assert [None if r is None else tuple(r) for r in asked[: len(expected)]] == expected


def test_a_gap_is_what_missing_samples_are() -> None:
    blocks = day_in_short()
    end = blocks[-1].stop_index
    filled = np.full((end, 3), np.nan, np.float32)
    with_gaps, without = UprightTracker(), UprightTracker()
    for block in blocks:
        with_gaps.push(block)
        filled[block.start_index : block.stop_index] = block.values
    without.push(GridBlock(0, filled))
    assert references(with_gaps, end) == references(without, end)


def test_a_gyroscope_does_not_matter() -> None:
    tracker = UprightTracker()
    walk = moving(UP, 20)
    tracker.push(GridBlock(0, np.hstack([walk, walk * 7])))
    assert angle_deg(at_s(tracker, 20), UP) < 0.5


def test_the_steady_direction_of_worked_examples() -> None:
    """Two pieces of two samples: 20 degrees from the middle; free fall; half empty; empty."""
    a, b = np.radians(20), np.radians(-20)
    apart = [(20 * np.cos(a), 20 * np.sin(a), 0, 2), (20 * np.cos(b), 20 * np.sin(b), 0, 2)]
    assert steady_direction(apart, 2, 21.0) == pytest.approx((1, 0, 0))
    assert steady_direction(apart, 2, 19.0) is None
    assert steady_direction([(3, 0, 0, 2), (3, 0, 0, 2)], 2, 21.0) is None
    assert steady_direction([(0, 20, 0, 2), (9, 0, 0, 0.9)], 2, 45.0) is not None
    assert steady_direction([(0, 20, 0, 2), (9, 0, 0, 1)], 2, 45.0) is None
    assert steady_direction([(0, 0, 0, 0), (0, 0, 0, 0)], 2, 45.0) is None
