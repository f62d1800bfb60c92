"""OPPORTUNITY's files of 250 columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.importers.imported import imported, imu, refused
from training.importers.opportunity import DATASET

UNITS = ["back", "right upper arm", "right forearm", "left upper arm", "left forearm"]


def session(src: Path, rows: np.ndarray, name: str = "S2-ADL3") -> Path:
    path = src / "dataset" / f"{name}.dat"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [" ".join("NaN" if np.isnan(v) else f"{v:g}" for v in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def still(n: int = 300) -> np.ndarray:
    """All units read 1000 mg on an axis of their own and turn at 1.5 rad/s."""
    rows = np.zeros((n, 250))
    rows[:, 0] = np.round(np.arange(n) * 1000 / 30)
    for unit in range(5):
        rows[:, 37 + 13 * unit + unit % 3] = 1000 if unit < 3 else -1000
        rows[:, 41 + 13 * unit] = 1500
    rows[:, 243] = 1
    return rows


def test_five_units_with_locomotion(tmp_path: Path) -> None:
    rows = still()
    rows[100:160, 243] = 0
    rows[160:, 243] = 5
    session(tmp_path / "src", rows)
    recordings, skipped = imported(DATASET, tmp_path / "src", tmp_path)
    assert [r.placement for r in recordings] == UNITS
    assert {(r.subject, r.session, r.rate_hz) for r in recordings} == {("S2", "ADL3", 30.0)}
    for unit, recording in enumerate(recordings):
        expected = [0.0, 0, 0, 0, 1.5, 0]
        expected[unit % 3] = 9.8 if unit < 3 else -9.8
        np.testing.assert_allclose(imu(recording), np.tile(expected, (300, 1)), atol=0.003)
        assert [(s.start, s.stop, s.label) for s in recording.segments] == [
            (0, 100, "standing"),
            (160, 300, "lying"),
        ]
    assert not skipped


def test_lost_radio_splits_one_unit_only(tmp_path: Path) -> None:
    rows = still()
    rows[150:200, 50:56] = np.nan  # right upper arm, 1.7 s
    rows[50:53, 63] = np.nan  # right forearm, 0.1 s: interpolated
    session(tmp_path / "src", rows)
    recordings, skipped = imported(DATASET, tmp_path / "src", tmp_path)
    lengths = [(r.placement, len(r.samples)) for r in recordings]
    assert lengths == [
        ("back", 300),
        ("right upper arm", 150),
        ("right upper arm", 100),
        *((unit, 300) for unit in UNITS[2:]),
    ]
    assert recordings[2].segments[0].stop == 100
    assert skipped == {
        "sample of the right upper arm lost by the radio": 50,
        "sample of the right forearm lost by the radio": 3,
    }


def test_refusals(tmp_path: Path) -> None:
    rows = still(60)
    path = session(tmp_path / "columns", rows[:, :249])
    assert f"{path}:1: 249 columns; expected 250" in refused(
        DATASET, tmp_path / "columns", tmp_path
    )
    rows[2, 243] = 3
    path = session(tmp_path / "unknown", rows)
    assert f"{path}:3: unknown activity 3.0" in refused(DATASET, tmp_path / "unknown", tmp_path)
    rows = still(60)
    rows[:, 37:102] /= 1000
    session(tmp_path / "units", rows)
    assert "expected 8.3 to 11.3" in refused(DATASET, tmp_path / "units", tmp_path)
    session(tmp_path / "name", still(60), name="S5-Lunch")
    assert "S5-Lunch.dat: unknown session" in refused(DATASET, tmp_path / "name", tmp_path)
