"""HAPT's raw sessions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from tests.conftest import REPO
from training.importers.form import Skipped
from training.importers.hapt import DATASET, LABELS


def original(folder: Path, labels: str, n_gyro: int = 300) -> None:
    folder.mkdir(parents=True)
    for user in (1, 2):
        acc = np.tile([0.9, -0.1, user / 10], (300, 1))
        np.savetxt(folder / f"acc_exp{user + 4:02d}_user{user:02d}.txt", acc)
        gyro = np.tile([0.01, 0.02, -0.5], (n_gyro, 1))
        np.savetxt(folder / f"gyro_exp{user + 4:02d}_user{user:02d}.txt", gyro)
    (folder / "labels.txt").write_text(labels)


def test_units_and_the_last_sample_of_a_segment(tmp_path: Path) -> None:
    original(tmp_path / "RawData", "5 1 5 1 100\n5 1 7 101 130\n6 2 2 50 300\n")
    first, second = DATASET.read(tmp_path, Skipped())
    assert (first.subject, first.session, first.placement) == ("01", "exp05", "waist")
    assert first.rate_hz == 50
    np.testing.assert_allclose(first.acc_mps2[0], [8.825985, -0.980665, 0.980665])
    np.testing.assert_allclose(first.gyro_rads[0], [0.01, 0.02, -0.5])
    assert first.segments == (Segment(0, 100, "standing"), Segment(100, 130, "stand to sit"))
    assert second.acc_mps2[0, 2] == pytest.approx(1.96133)
    assert second.segments == (Segment(49, 300, "walking upstairs"),)


def test_it_is_a_benchmark_in_the_words_of_the_project() -> None:
    assert DATASET.role == "benchmark"
    six = json.loads((REPO / "tests" / "labels" / "hapt_6.json").read_text())
    assert set(six) < set(LABELS.values())


def test_samples_of_one_sensor_only_are_left_out_and_told(tmp_path: Path) -> None:
    original(tmp_path / "RawData", "5 1 5 1 100\n", n_gyro=290)
    skipped = Skipped()
    assert [len(r.acc_mps2) for r in DATASET.read(tmp_path, skipped)] == [290, 290]
    assert [(what, n) for what, n, _ in skipped.entries()] == [("sample of one sensor only", 20)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("5 1 5 1 100\n5 1 13 101 130\n", r"labels\.txt:2: unknown activity 13"),
        ("5 1 5 1\n", r"labels\.txt:1: 4 columns; expected 5"),
        ("5 1 five 1 100\n", r"labels\.txt:1: column 3 is 'five'"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, labels: str, message: str) -> None:
    original(tmp_path / "RawData", labels)
    with pytest.raises(InputError, match=message):
        list(DATASET.read(tmp_path, Skipped()))
