"""Daily and Sports Activities: pieces joined, five units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from training.importers.dsads import DATASET
from training.importers.form import Skipped


def original(src: Path, activity: int, numbers: list[int], columns: int = 45) -> Path:
    folder = src / "data" / f"a{activity:02d}" / "p3"
    folder.mkdir(parents=True)
    for number in numbers:
        rows = np.tile(np.arange(1.0, columns + 1), (125, 1)) + 100 * number
        np.savetxt(folder / f"s{number:02d}.txt", rows, delimiter=",", fmt="%g")
    return folder


def test_pieces_become_one_recording_for_each_unit(tmp_path: Path) -> None:
    original(tmp_path, 17, [1, 2, 3])
    found = list(DATASET.read(tmp_path, Skipped()))
    assert [r.placement for r in found] == [
        "torso",
        "right arm",
        "left arm",
        "right leg",
        "left leg",
    ]
    torso, right_arm = found[:2]
    assert (torso.subject, torso.session, torso.rate_hz) == ("p3", "a17", 25.0)
    np.testing.assert_allclose(torso.acc_mps2[0], [101, 102, 103])
    np.testing.assert_allclose(torso.gyro_rads[125], [204, 205, 206])
    np.testing.assert_allclose(right_arm.acc_mps2[374], [310, 311, 312])
    np.testing.assert_allclose(found[-1].gyro_rads[0], [140, 141, 142])
    assert {r.segments for r in found} == {(Segment(0, 375, "rowing"),)}


def test_a_missing_piece_ends_a_recording(tmp_path: Path) -> None:
    original(tmp_path, 1, [1, 2, 4])
    lengths = [len(r.acc_mps2) for r in DATASET.read(tmp_path, Skipped())]
    assert lengths == [250] * 5 + [125] * 5


def test_bad_files_are_named(tmp_path: Path) -> None:
    folder = original(tmp_path / "a", 1, [1], columns=44)
    with pytest.raises(InputError, match=r"s01\.txt:1: 44 columns; expected 45"):
        list(DATASET.read(folder.parents[2], Skipped()))
    folder = original(tmp_path / "b", 1, [1])
    (folder / "s01.txt").write_text("".join((folder / "s01.txt").read_text().splitlines(True)[:9]))
    with pytest.raises(InputError, match=r"s01\.txt: 9 rows; expected 125"):
        list(DATASET.read(folder.parents[2], Skipped()))
    folder = original(tmp_path / "c", 20, [1])
    with pytest.raises(InputError, match=r"a20/p3: unknown activity; known: a01 to a19"):
        list(DATASET.read(folder.parents[2], Skipped()))
