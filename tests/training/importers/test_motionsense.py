"""MotionSense: Core Motion's signs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from training.importers.form import Skipped
from training.importers.motionsense import DATASET

HEADER = (
    ",attitude.roll,attitude.pitch,attitude.yaw,gravity.x,gravity.y,gravity.z,rotationRate.x,"
    "rotationRate.y,rotationRate.z,userAcceleration.x,userAcceleration.y,userAcceleration.z\n"
)


def original(folder: Path, name: str, line: str = "0,0,0,0,0,-1,0.1,0.2,0.3,0,0,-0.5") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{i},{line}\n" for i in range(60)))


def test_a_phone_face_up_that_is_pushed_up_reads_more_than_g(tmp_path: Path) -> None:
    original(tmp_path, "A_DeviceMotion_data/dws_1/sub_12.csv")
    original(tmp_path, "A_DeviceMotion_data/std_6/sub_2.csv")
    down, standing = DATASET.read(tmp_path, Skipped())
    assert (down.subject, down.session, down.placement) == ("12", "dws_1", "trouser pocket")
    assert down.rate_hz == 50
    np.testing.assert_allclose(down.acc_mps2[7], [0, 0, 1.5 * 9.80665])
    np.testing.assert_allclose(down.gyro_rads[7], [0.1, 0.2, 0.3])
    assert down.segments == (Segment(0, 60, "walking downstairs"),)
    assert standing.segments == (Segment(0, 60, "standing"),)


def test_the_folder_itself_may_be_given_and_the_separate_sensors_are_passed_over(
    tmp_path: Path,
) -> None:
    original(tmp_path, "A_DeviceMotion_data/A_DeviceMotion_data/jog_9/sub_1.csv")
    other = tmp_path / "B_Accelerometer_data" / "jog_9" / "sub_1.csv"
    other.parent.mkdir(parents=True)
    other.write_text(",x,y,z\n0,0,0,1\n")
    for src in (tmp_path, tmp_path / "A_DeviceMotion_data"):
        (recording,) = DATASET.read(src, Skipped())
        assert recording.segments[0].label == "jogging"


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("fly_1/sub_1.csv", "0", "unknown activity 'fly' .* known: dws, ups"),
        ("wlk_7/sub_1.csv", "0,0,0", r"sub_1\.csv:2: 4 columns; expected 13"),
        (
            "wlk_7/sub_1.csv",
            "0,0,0,0,0,-1,0.1,0.2,0.3,0,0,up",
            r"sub_1\.csv:2: column 13 is 'up'; expected a number",
        ),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    original(tmp_path / "A_DeviceMotion_data", name, line)
    with pytest.raises(InputError, match=message):
        list(DATASET.read(tmp_path, Skipped()))
