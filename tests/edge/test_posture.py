"""Placements in words, the angles of a window, and the tables that weigh them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.posture import (
    SEGMENTS,
    PostureEvidence,
    PostureTables,
    gravity_direction,
    known_placements,
    motion_mps2,
    posture_evidence,
    segment_of,
)
from firmware_bridge.errors import InputError
from tests.conftest import decision_record


@pytest.mark.parametrize(
    ("placement", "segment"),
    [
        ("waist (smartphone)", "trunk"), ("torso", "trunk"), ("Chest", "trunk"), ("hip", "trunk"),
        ("lower back", "trunk"), ("hip pocket", "trunk"), ("shirt pocket", "trunk"),
        ("left jacket-pocket", "trunk"), ("belt", "trunk"), ("sternum", "trunk"),
        ("trouser pocket (smartphone)", "thigh"), ("pocket", "thigh"), ("right leg", "thigh"),
        ("right thigh (above knee)", "thigh"), ("upper leg", "thigh"), ("left_trousers", "thigh"),
        ("wrist (smartwatch)", "arm"), ("left arm", "arm"), ("Smartwatch", "arm"),
        ("right elbow", "arm"), ("upper arm", "arm"), ("back of the hand", "arm"),
        ("left ankle", "shank"), ("lower leg", "shank"), ("shoe", "shank"), ("left calf", "shank"),
        ("head", "unknown"), ("handlebar", "unknown"), ("smartphone", "unknown"), ("", "unknown"),
        (None, "unknown"),
    ],
)  # fmt: skip
def test_segments_of_placements(placement: str | None, segment: str) -> None:
    assert segment_of(placement) == segment


def test_what_people_are_told_is_recognised() -> None:
    words = known_placements().split(", ")
    assert {"wrist", "waist", "trouser pocket", "shirt pocket"} <= set(words)
    assert {segment_of(word) for word in words} == set(SEGMENTS) - {"unknown"}


def window(*directions: tuple[float, float, float]) -> NDArray[np.float32]:
    """Five seconds, each of a direction in m/s^2 and some noise."""
    acc = np.repeat(np.array(directions), 200, axis=0)
    acc = acc + np.random.default_rng(0).normal(0, 0.5, acc.shape)
    return np.vstack([acc.T, np.zeros((3, 1000))]).astype(np.float32)


def test_the_direction_of_a_window() -> None:
    assert gravity_direction(window(*[(0, 3, -9)] * 5)) == pytest.approx(
        np.array([0, 3, -9]) / np.sqrt(90), abs=0.01
    )


def test_a_window_that_turns_or_falls_has_no_direction() -> None:
    upright, leaning = (9.8, 0.0, 0.0), (4.9, 8.5, 0.0)
    assert gravity_direction(window(upright, upright, upright, upright, leaning)) is None
    slightly = (9.2, 3.4, 0.0)  # 20 degrees, 16 from the mean
    assert gravity_direction(window(upright, upright, upright, upright, slightly)) is not None
    assert gravity_direction(window(*[(1.0, 0.0, 1.0)] * 5)) is None


def test_seconds_that_lack_more_than_half_are_not_asked() -> None:
    upright, leaning = (9.8, 0.0, 0.0), (4.9, 8.5, 0.0)
    imu = window(upright, upright, upright, upright, leaning)
    imu[:, 899:] = np.nan
    assert gravity_direction(imu) is not None
    imu[:, 400:] = np.nan  # a padded window
    assert gravity_direction(imu) == pytest.approx([1, 0, 0], abs=0.01)
    imu[:] = np.nan
    assert gravity_direction(imu) is None


def test_motion_is_what_is_left_around_each_seconds_mean() -> None:
    assert motion_mps2(window(*[(0, 3, -9)] * 5)) == pytest.approx(0.5 * np.sqrt(3), rel=0.05)
    turning = window((9, 0, 0), (0, 9, 0), (9, 0, 0), (0, 9, 0), (9, 0, 0))
    assert motion_mps2(turning) == pytest.approx(0.5 * np.sqrt(3), rel=0.05)
    imu = window(*[(0, 0, 9.8)] * 5)
    whole = motion_mps2(imu)
    imu[:, 300:550] = np.nan  # half a second and a quarter of another
    assert motion_mps2(imu) == pytest.approx(whole, rel=0.05)
    imu[:] = np.nan
    assert motion_mps2(imu) == 0
    still = np.zeros((6, 1000), np.float32)
    still[2] = 9.80665
    assert motion_mps2(still) < 1e-4


def test_the_angles_of_a_window() -> None:
    imu = window(*[(0, 6, -6)] * 5)
    evidence = posture_evidence(imu, None)
    assert evidence is not None and evidence.tilt_deg is None
    assert evidence.face_deg == pytest.approx(45, abs=1)
    evidence = posture_evidence(imu, np.array([0, 0, 1.0]))
    assert evidence is not None and evidence.tilt_deg == pytest.approx(135, abs=1)
    direction = gravity_direction(imu)
    same = posture_evidence(imu, direction)
    assert same is not None and same.tilt_deg == pytest.approx(0, abs=1e-5)
    turning = window((9, 0, 0), (0, 9, 0), (9, 0, 0), (0, 9, 0), (9, 0, 0))
    assert posture_evidence(turning, direction) is None


ONE_HOT = np.eye(4)


def tables() -> PostureTables:
    return PostureTables.parse(decision_record([0])["posture"])


def test_no_evidence_and_an_unknown_placement_say_nothing() -> None:
    assert not tables().log_likelihoods(ONE_HOT, "trunk").of(None).any()
    for evidence in (PostureEvidence(60, None), PostureEvidence(60, 100)):
        np.testing.assert_allclose(tables().log_likelihoods(ONE_HOT, "unknown").of(evidence), 0)


def test_the_face_angle_counts_until_the_tilt_is_known() -> None:
    """The trunk's lowest bin of the face: 0.85 0.85 0.05, mean 0.5833; of the tilt's third bin:
    0.05 0.05 0.85, mean 0.3167."""
    face = tables().log_likelihoods(ONE_HOT, "trunk").of(PostureEvidence(5, None))
    np.testing.assert_allclose(
        np.exp(face), np.array([0.85, 0.85, 0.05, 0]) / (1.75 / 3) + ONE_HOT[3]
    )
    tilt = tables().log_likelihoods(ONE_HOT, "trunk").of(PostureEvidence(5, 90))
    np.testing.assert_allclose(
        np.exp(tilt), np.array([0.05, 0.05, 0.85, 0]) / (0.95 / 3) + ONE_HOT[3]
    )


def test_a_label_between_postures_weighs_them() -> None:
    mixed = np.array([[0.5, 0, 0.2, 0.3]])
    got = tables().log_likelihoods(mixed, "trunk").of(PostureEvidence(5, 90))
    expected = (0.5 * 0.05 + 0.2 * 0.85) / (0.95 / 3) + 0.3
    assert got == pytest.approx([np.log(expected)])


@pytest.mark.parametrize(
    ("face_deg", "bin_of"),
    [(0, 0), (19.99, 0), (20, 1), (45, 2), (69.9, 2), (70, 3), (89.9, 3), (90, 3)],
)
def test_bins_hold_their_lower_edge_and_the_last_both(face_deg: float, bin_of: int) -> None:
    record = decision_record([0])["posture"]
    thigh = [[0.1, 0.2, 0.3, 0.4], [0.25] * 4, [0.25] * 4]
    record["face"]["thigh"] = thigh
    (upright, *_) = (
        PostureTables.parse(record)
        .log_likelihoods(ONE_HOT, "thigh")
        .of(PostureEvidence(face_deg, None))
    )
    column = np.array(thigh)[:, bin_of]
    assert np.exp(upright) == pytest.approx(column[0] / column.mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(postures=["lying", "sitting", "upright"]), "postures: expected upr"),
        (lambda p: p.pop("face_edges_deg"), "face_edges_deg: expected angles"),
        (lambda p: p.update(face_edges_deg=[0, 50, 40, 90]), "face_edges_deg: .* 0 to 90"),
        (lambda p: p.update(tilt_edges_deg=[0, 90]), "tilt_edges_deg: .* 0 to 180"),
        (lambda p: p.update(tilt_edges_deg="0 90"), "tilt_edges_deg: expected angles"),
        (lambda p: p["tilt"].pop("arm"), r"tilt: expected one table each of .*'arm'"),
        (lambda p: p["face"].update(nose=[]), "face: expected one table each"),
        (lambda p: p["face"].update(arm=[[0.5, 0.5]] * 3), "face.arm: expected 3 rows of 4"),
        (lambda p: p["face"].update(arm=[[1], [0.5, 0.5], []]), "face.arm: expected 3 rows of 4"),
        (lambda p: p["face"]["arm"].pop(), "face.arm: expected 3 rows of 4"),
        (lambda p: p["tilt"].update(arm=[[0, 0, 0, 1]] * 3), "tilt.arm: expected probabilities"),
        (lambda p: p["tilt"].update(arm=[[0.2] * 4] * 3), "tilt.arm: .* add up to 1"),
        (lambda p: p["tilt"].update(arm=[[float("nan")] * 4] * 3), "tilt.arm: expected 3 rows"),
    ],
)  # fmt: skip
def test_malformed_tables(change: Callable[[dict[str, Any]], object], message: str) -> None:
    record = copy.deepcopy(decision_record([0])["posture"])
    PostureTables.parse(record)
    change(record)
    with pytest.raises(InputError, match=r"decision\.posture\." + message):
        PostureTables.parse(record)
