"""PAMAP2: 54 columns, dropouts, three units, transient stretches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from training.importers.form import Skipped
from training.importers.pamap2 import DATASET


def original(path: Path, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, fmt="%.6g")


def signal(n: int = 600) -> np.ndarray:
    """Every value tells its column: 100 times the column's number (from 1) plus the time."""
    rows = np.add.outer(np.arange(n) / 100, 100.0 * np.arange(1, 55))
    rows[:, 0] = 8.38 + np.arange(n) / 100
    rows[:, 1] = np.r_[np.zeros(100), np.full(300, 4), np.full(n - 400, 24)]
    rows[:, 2] = np.nan  # heart rate, measured now and then
    return rows


def test_units_columns_and_segments(tmp_path: Path) -> None:
    original(tmp_path / "Protocol" / "subject101.dat", signal())
    wrist, chest, ankle = DATASET.read(tmp_path, Skipped())
    assert [r.placement for r in (wrist, chest, ankle)] == ["wrist", "chest", "ankle"]
    assert {(r.subject, r.session, r.rate_hz) for r in (wrist, chest, ankle)} == {
        ("101", "protocol", 100.0)
    }
    # Columns from 1: hand 4-20, of which acceleration +-16 g 5-7 and gyroscope 11-13.
    np.testing.assert_allclose(wrist.acc_mps2[0], [500, 600, 700])
    np.testing.assert_allclose(wrist.gyro_rads[0], [1100, 1200, 1300])
    np.testing.assert_allclose(chest.acc_mps2[0], [2200, 2300, 2400])
    np.testing.assert_allclose(chest.gyro_rads[0], [2800, 2900, 3000])
    np.testing.assert_allclose(ankle.acc_mps2[0], [3900, 4000, 4100])
    np.testing.assert_allclose(ankle.gyro_rads[0], [4500, 4600, 4700])
    assert wrist.segments == (Segment(100, 400, "walking"), Segment(400, 600, "rope jumping"))


def test_a_dropout_of_one_unit_cuts_that_unit_only(tmp_path: Path) -> None:
    rows = signal()
    rows[200:210, 3:20] = np.nan  # 0.1 s at the hand: interpolated
    rows[300:350, 20:37] = np.nan  # 0.5 s at the chest
    original(tmp_path / "Optional" / "subject105.dat", rows)
    found = list(DATASET.read(tmp_path, Skipped()))
    assert [(r.placement, len(r.acc_mps2)) for r in found] == [
        ("wrist", 600),
        ("chest", 300),
        ("chest", 250),
        ("ankle", 600),
    ]
    assert found[0].session == "optional"
    assert found[0].acc_mps2[205, 0] == pytest.approx(502.05)
    assert found[2].segments == (Segment(0, 50, "walking"), Segment(50, 250, "rope jumping"))


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "Protocol" / "subject101.dat"
    rows = signal()
    rows[17, 1] = 8
    original(path, rows)
    with pytest.raises(InputError, match=r"subject101\.dat:18: unknown activity 8"):
        list(DATASET.read(tmp_path, Skipped()))
    path.write_text("1 2 3\n")
    with pytest.raises(InputError, match=r"subject101\.dat:1: 3 columns; expected 54"):
        list(DATASET.read(tmp_path, Skipped()))
