"""WISDM: two clocks, semicolons, stamps that repeat, jump and run backwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from training.importers.form import Skipped
from training.importers.wisdm import DATASET

MS = 1_000_000
UPTIME_NS = 252_207_666_810_782
STEADY_MS = 50 * np.arange(200)
"""10 s at 20 Hz."""


def original(
    src: Path,
    acc_ms: np.ndarray,
    gyro_ms: np.ndarray,
    letter: str = "A",
    device: str = "phone",
    start_ns: int = UPTIME_NS,
) -> Path:
    """Each value is its own time in s (accelerometer) or twice that (gyroscope), on x."""
    paths = []
    for sensor, ms, scale in (("accel", acc_ms, 1), ("gyro", gyro_ms, 2)):
        path = src / "raw" / device / sensor / f"data_1600_{sensor}_{device}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as out:
            for m in ms.tolist():
                out.write(f"1600,{letter},{start_ns + m * MS},{scale * m / 1000},-9.5,0.25;\n")
        paths.append(path)
    return paths[0]


def test_gyroscope_is_put_on_the_accelerometers_clock(tmp_path: Path) -> None:
    original(tmp_path, STEADY_MS, STEADY_MS + 13)
    original(tmp_path, STEADY_MS + 60_000, STEADY_MS + 60_000, letter="O")
    walking, catch = DATASET.read(tmp_path, Skipped())
    assert (walking.subject, walking.session, walking.rate_hz) == ("1600", "A", 20.0)
    assert walking.placement == "trouser pocket"
    # The gyroscope starts 13 ms later: the grid's first two times are 0 and 50 ms.
    np.testing.assert_allclose(walking.acc_mps2[0], [0.05, -9.5, 0.25], atol=1e-6)
    np.testing.assert_allclose(walking.gyro_rads[0], [0.1, -9.5, 0.25], atol=1e-6)
    assert walking.segments == (Segment(0, 199, "walking"),)
    assert catch.segments == (Segment(0, 200, "playing catch with a tennis ball"),)


def test_stamps_since_1970_keep_their_digits(tmp_path: Path) -> None:
    original(tmp_path, STEADY_MS, STEADY_MS, device="watch", start_ns=1_600_000_000_123_456_789)
    (recording,) = DATASET.read(tmp_path, Skipped())
    assert recording.placement == "wrist"
    np.testing.assert_allclose(recording.gyro_rads[:, 0], 2 * STEADY_MS / 1000, atol=1e-6)


def test_a_gap_ends_a_recording_and_repeated_stamps_count_once(tmp_path: Path) -> None:
    ms = np.r_[STEADY_MS[:100], STEADY_MS[90:100], STEADY_MS[120:]]
    original(tmp_path, ms, STEADY_MS)
    before, after = DATASET.read(tmp_path, Skipped())
    assert (len(before.acc_mps2), len(after.acc_mps2)) == (100, 80)
    assert after.acc_mps2[0, 0] == pytest.approx(6.0)


def test_a_faster_device_keeps_its_rate(tmp_path: Path) -> None:
    original(tmp_path, 20 * np.arange(300), 20 * np.arange(300))
    (recording,) = DATASET.read(tmp_path, Skipped())
    assert recording.rate_hz == 50


@pytest.mark.parametrize(
    ("acc_ms", "gyro_ms", "what"),
    [
        (STEADY_MS, STEADY_MS + 10**9, "activity without a time that both sensors measured"),
        (
            np.r_[STEADY_MS + 7, STEADY_MS - 3000],
            STEADY_MS,
            "activity whose time stamps run backwards",
        ),
        (120 * np.arange(200), STEADY_MS, "device slower than 10 Hz"),
    ],
)
def test_what_cannot_be_paired_is_left_out_and_told(
    tmp_path: Path, acc_ms: np.ndarray, gyro_ms: np.ndarray, what: str
) -> None:
    path = original(tmp_path, acc_ms, gyro_ms)
    skipped = Skipped()
    assert list(DATASET.read(tmp_path, skipped)) == []
    assert skipped.entries() == [(what, 1, path)]


def test_an_accelerometer_alone_is_left_out_and_told(tmp_path: Path) -> None:
    path = original(tmp_path, STEADY_MS, STEADY_MS)
    (tmp_path / "raw" / "phone" / "gyro" / "data_1600_gyro_phone.txt").unlink()
    skipped = Skipped()
    assert list(DATASET.read(tmp_path, skipped)) == []
    assert skipped.entries() == [("accelerometer without a gyroscope's file", 1, path)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1600,N,1,2,3,4;\n", r"accel_phone\.txt:201: unknown activity 'N'"),
        ("1600,A,1,2,3;\n", r"accel_phone\.txt:201: 5 columns; expected 6"),
        ("1600,A,1,2,three,4;\n", r"accel_phone\.txt:201: column 5 is 'three'"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = original(tmp_path, STEADY_MS, STEADY_MS)
    with path.open("a") as out:
        out.write(line)
    with pytest.raises(InputError, match=message):
        list(DATASET.read(tmp_path, Skipped()))
