"""SisFall's text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.importers.imported import G, imported, imu, refused
from training.importers.sisfall import DATASET

LINE = "   0,-256,  64,  16384,   0,-8192,   7,-999,  -8;"
"""1 g down y, 0.25 g on z; 1000 deg/s about x, -500 deg/s about z."""


def trial(src: Path, name: str, lines: list[str]) -> Path:
    path = src / name.split("_")[1] / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_counts_become_si_units(tmp_path: Path) -> None:
    trial(tmp_path / "src", "D17_SE06_R03", [LINE] * 400)
    trial(tmp_path / "src", "F05_SA01_R01", [LINE] * 400)
    (young, old), skipped = imported(DATASET, tmp_path / "src", tmp_path)
    assert (old.subject, old.session, old.placement) == ("SE06", "D17_SE06_R03", "waist")
    assert (old.rate_hz, len(old.samples)) == (200.0, 400)
    expected = [0, -G, G / 4, np.radians(1000), 0, np.radians(-500)]
    np.testing.assert_allclose(imu(old), np.tile(expected, (400, 1)), atol=0.003)
    assert [(s.start, s.stop, s.label) for s in old.segments] == [
        (0, 400, "getting into and out of a car")
    ]
    assert young.segments[0].label == "forward fall while jogging (trip)"
    assert not skipped


def test_a_cut_off_last_line_is_left_out(tmp_path: Path) -> None:
    trial(tmp_path / "src", "D01_SA01_R01", [*[LINE] * 400, "  0,-256,  6"])
    (recording,), skipped = imported(DATASET, tmp_path / "src", tmp_path)
    assert len(recording.samples) == 400
    assert skipped == {"last line, cut off": 1}


def test_refusals(tmp_path: Path) -> None:
    path = trial(tmp_path / "columns", "D01_SA01_R01", [LINE, LINE, "1,2,3;", LINE])
    assert f"{path}:3: 3 columns; expected 9" in refused(DATASET, tmp_path / "columns", tmp_path)
    path = trial(tmp_path / "words", "D01_SA01_R01", [LINE, LINE.replace("-256", "x")])
    assert f"{path}:2: column 2 is 'x'" in refused(DATASET, tmp_path / "words", tmp_path)
    trial(tmp_path / "unknown", "D20_SA01_R01", [LINE])
    assert "D20_SA01_R01.txt: unknown activity" in refused(DATASET, tmp_path / "unknown", tmp_path)
    trial(tmp_path / "units", "D01_SA01_R01", [LINE.replace("-256", "-10")] * 400)
    assert "expected 8.3 to 11.3" in refused(DATASET, tmp_path / "units", tmp_path)
