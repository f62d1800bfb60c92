"""UTD-MHAD's .mat files, as scipy writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.importers.imported import G, imported, imu, refused
from training.importers.utd_mhad import DATASET

savemat = pytest.importorskip("scipy.io").savemat


def trial(src: Path, name: str, acc_g: float = 1.0) -> None:
    (src / "Inertial").mkdir(parents=True, exist_ok=True)
    readings = np.tile([0.0, -acc_g, 0.0, 180.0, 0.0, -18.0], (120, 1))
    savemat(src / "Inertial" / f"{name}_inertial.mat", {"d_iner": readings})


def test_the_unit_moved_from_wrist_to_thigh(tmp_path: Path) -> None:
    for name in ("a21_s8_t4", "a22_s1_t1"):
        trial(tmp_path / "src", name)
    wrist, thigh = imported(DATASET, tmp_path / "src", tmp_path)[0]
    assert (wrist.subject, wrist.session, wrist.placement) == ("8", "a21_s8_t4", "right wrist")
    assert (thigh.subject, thigh.placement, thigh.rate_hz) == ("1", "right thigh", 50.0)
    assert [r.segments[0].label for r in (wrist, thigh)] == ["pick up and throw", "jogging"]
    assert (wrist.segments[0].start, wrist.segments[0].stop) == (0, 120)
    expected = np.tile([0, -G, 0, np.pi, 0, -np.pi / 10], (120, 1))
    np.testing.assert_allclose(imu(wrist), expected, atol=0.003)


def test_refusals(tmp_path: Path) -> None:
    trial(tmp_path / "unknown", "a28_s1_t1")
    message = refused(DATASET, tmp_path / "unknown", tmp_path)
    assert "a28_s1_t1_inertial.mat: unknown action" in message
    trial(tmp_path / "mps2", "a1_s1_t1", acc_g=G)
    assert "in m/s^2 already" in refused(DATASET, tmp_path / "mps2", tmp_path)
