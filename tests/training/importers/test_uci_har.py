"""UCI HAR: windows that overlap by half become recordings again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from training.importers.form import Skipped
from training.importers.uci_har import DATASET

STREAM = np.random.default_rng(0).normal(size=(2000, 6))


def original(folder: Path, windows: list[tuple[int, int, int]], split: str = "train") -> None:
    """`windows`: (first sample of the stream, subject, activity)."""
    (folder / split / "Inertial Signals").mkdir(parents=True)
    names = [f"{s}_{a}" for s in ("total_acc", "body_gyro") for a in "xyz"]
    for column, name in enumerate(names):
        rows = [STREAM[first : first + 128, column] for first, _, _ in windows]
        path = folder / split / "Inertial Signals" / f"{name}_{split}.txt"
        np.savetxt(path, rows, fmt="%16.7e")
    for name, which in (("subject", 1), ("y", 2)):
        np.savetxt(folder / split / f"{name}_{split}.txt", [w[which] for w in windows], fmt="%d")


def test_overlapping_windows_are_joined_and_others_not(tmp_path: Path) -> None:
    windows = [
        *((64 * k, 1, 5) for k in range(4)),  # one chain of four
        (600, 1, 5),  # does not overlap
        (664, 1, 4),  # does, with another activity
        (728, 3, 4),  # does, but is another subject's
    ]
    original(tmp_path, windows)
    first, second, third = DATASET.read(tmp_path, Skipped())
    assert DATASET.role == "benchmark"
    assert (first.subject, first.placement, first.rate_hz) == ("01", "waist", 50.0)
    np.testing.assert_allclose(first.acc_mps2, STREAM[:320, :3] * 9.80665, atol=1e-5)
    np.testing.assert_allclose(first.gyro_rads, STREAM[:320, 3:], atol=1e-6)
    assert first.segments == (Segment(0, 320, "standing"),)
    np.testing.assert_allclose(second.gyro_rads, STREAM[600:792, 3:], atol=1e-6)
    assert second.segments == (Segment(0, 64, "standing"), Segment(128, 192, "sitting"))
    assert (third.subject, len(third.acc_mps2)) == ("03", 128)
    assert len({r.session for r in (first, second, third)}) == 3


def test_both_splits_are_read(tmp_path: Path) -> None:
    original(tmp_path, [(0, 1, 1)])
    original(tmp_path, [(0, 2, 6)], "test")
    assert [r.subject for r in DATASET.read(tmp_path, Skipped())] == ["02", "01"]


def test_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    original(tmp_path, [(0, 1, 1), (64, 1, 9)])
    with pytest.raises(InputError, match=r"y_train\.txt:2: unknown activity 9"):
        list(DATASET.read(tmp_path, Skipped()))
    (tmp_path / "train" / "y_train.txt").write_text("1\n")
    with pytest.raises(InputError, match=r"\[2, 1, 2, 2, 2, 2, 2, 2\] lines in subject_train"):
        list(DATASET.read(tmp_path, Skipped()))
    path = tmp_path / "train" / "Inertial Signals" / "body_gyro_x_train.txt"
    path.write_text("1.0 2.0\n")
    with pytest.raises(InputError, match=r"body_gyro_x_train\.txt:1: 2 columns; expected 128"):
        list(DATASET.read(tmp_path, Skipped()))
