"""USC-HAD's .mat files, as scipy writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.importers.imported import G, imported, imu, refused
from training.importers.usc_had import DATASET

savemat = pytest.importorskip("scipy.io").savemat


def trial(src: Path, name: str, n: int = 300, acc_g: float = 1.0, **fields: object) -> Path:
    """A trial lying still but for a turn of 90 deg/s about y."""
    path = src / name
    path.parent.mkdir(parents=True, exist_ok=True)
    readings = np.tile([0.5, 0.0, -np.sqrt(0.75) * acc_g, 0.0, 90.0, -30.0], (n, 1))
    readings[:, 0] *= acc_g
    savemat(path, {"sensor_readings": readings, **fields})
    return path


def test_values_labels_and_the_misspelt_field(tmp_path: Path) -> None:
    trial(tmp_path / "src", "Subject1/a4t2.mat", activity_number=np.array(["4"]))
    trial(tmp_path / "src", "Subject13/a10t1.mat", activity_numbr=np.array(["10"]))
    recordings, skipped = imported(DATASET, tmp_path / "src", tmp_path)
    first, second = recordings
    assert (first.subject, first.session, first.placement) == ("1", "a4t2", "hip")
    assert first.rate_hz == 100.0
    expected = [0.5 * G, 0, -np.sqrt(0.75) * G, 0, np.pi / 2, -np.pi / 6]
    np.testing.assert_allclose(imu(first), np.tile(expected, (300, 1)), atol=0.003)
    assert [(s.start, s.stop, s.label) for s in first.segments] == [(0, 300, "walking upstairs")]
    assert (second.subject, second.segments[0].label) == ("13", "sleeping")
    assert not skipped


def test_a_file_that_contradicts_its_name_is_left_out(tmp_path: Path) -> None:
    trial(tmp_path / "src", "Subject1/a4t2.mat", activity_number=np.array(["4"]))
    trial(tmp_path / "src", "Subject1/a5t1.mat", activity_number=np.array(["4"]))
    recordings, skipped = imported(DATASET, tmp_path / "src", tmp_path)
    assert [r.session for r in recordings] == ["a4t2"]
    assert skipped == {"file whose name and activity number disagree": 1}


def test_refusals(tmp_path: Path) -> None:
    path = trial(tmp_path / "unknown", "Subject1/a13t1.mat")
    assert str(path) in (message := refused(DATASET, tmp_path / "unknown", tmp_path))
    assert "unknown activity" in message
    trial(tmp_path / "mps2", "Subject1/a9t1.mat", acc_g=G)
    assert "in m/s^2 already" in refused(DATASET, tmp_path / "mps2", tmp_path)
    path = trial(tmp_path / "garbage", "Subject1/a9t1.mat")
    path.write_bytes(b"no MATLAB file" * 20)
    assert "not a MATLAB file" in refused(DATASET, tmp_path / "garbage", tmp_path)
    savemat(path, {"sensor_readings": np.zeros((9, 7))})
    assert "(9, 7); expected (N, 6)" in refused(DATASET, tmp_path / "garbage", tmp_path)
    savemat(path, {"other": np.zeros((9, 6))})
    assert "no variable sensor_readings; found: other" in refused(
        DATASET, tmp_path / "garbage", tmp_path
    )
