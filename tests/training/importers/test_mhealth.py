"""MHEALTH: three accelerometers, and no gyroscope that can be believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from training.importers.form import Skipped
from training.importers.mhealth import DATASET


def original(path: Path, labels: list[int]) -> None:
    rows = np.tile(np.arange(1.0, 25), (len(labels), 1))  # every value is its column's number
    rows[:, -1] = labels
    np.savetxt(path, rows, delimiter="\t", fmt="%g")


def test_units_columns_and_segments(tmp_path: Path) -> None:
    (tmp_path / "MHEALTHDATASET").mkdir()
    labels = [0] * 50 + [4] * 100 + [0] * 10 + [12] * 40
    original(tmp_path / "MHEALTHDATASET" / "mHealth_subject10.log", labels)
    skipped = Skipped()
    chest, ankle, wrist = DATASET.read(tmp_path, skipped)
    assert {(r.subject, r.session) for r in (chest, ankle, wrist)} == {("10", "1")}
    assert [r.placement for r in (chest, ankle, wrist)] == ["chest", "left ankle", "right wrist"]
    np.testing.assert_allclose(chest.acc_mps2[0], [1, 2, 3])
    np.testing.assert_allclose(ankle.acc_mps2[0], [6, 7, 8])
    np.testing.assert_allclose(wrist.acc_mps2[0], [15, 16, 17])
    assert all(r.gyro_rads is None for r in (chest, ankle, wrist))
    assert wrist.segments == (
        Segment(50, 150, "walking"),
        Segment(160, 200, "jumping forwards and backwards"),
    )
    assert [(what, n) for what, n, _ in skipped.entries()] == [
        ("gyroscope whose columns hold no turn rates", 2)
    ]


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mHealth_subject1.log"
    original(path, [0, 13])
    with pytest.raises(InputError, match=r"mHealth_subject1\.log:2: unknown activity 13"):
        list(DATASET.read(tmp_path, Skipped()))
    path.write_text(path.read_text().replace("\t12\t", "\t-\t", 1))
    with pytest.raises(InputError, match=r"subject1\.log:1: column 12 is '-'; expected a number"):
        list(DATASET.read(tmp_path, Skipped()))
