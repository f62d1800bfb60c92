"""RealWorld's zips: plain, within each other, unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from tests.training.importers.imported import imported, imu, refused
from training.importers.realworld import DATASET

START_MS = 1_435_993_200_000
HEADER = "id,attr_time,attr_x,attr_y,attr_z"


def still(values: tuple[float, float, float], n: int = 400, start_ms: int = 0) -> str:
    """50 Hz of one sensor at rest."""
    stamps = START_MS + start_ms + 20 * np.arange(n)
    axes = ",".join(map(str, values))
    return "\n".join([HEADER, *(f"{i},{t},{axes}" for i, t in enumerate(stamps))]) + "\n"


def zipped(members: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def write(src: Path, proband: int, name: str, content: bytes | str) -> Path:
    path = src / f"proband{proband}" / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


ACC, GYRO = (0.0, 9.81, 0.5), (0.25, 0.0, -1.5)


def test_zips_and_unpacked_files(tmp_path: Path) -> None:
    src = tmp_path / "src"
    acc = {f"acc_climbingup_{p}.csv": still(ACC) for p in ("waist", "upperarm", "head")}
    gyro = {f"Gyroscope_climbingup_{p}.csv": still(GYRO) for p in ("waist", "upperarm")}
    write(src, 10, "acc_climbingup_csv.zip", zipped({**acc, "readMe": "not ours"}))
    write(src, 10, "gyr_climbingup_csv.zip", zipped({**gyro}))
    write(src, 10, "mag_climbingup_csv.zip", b"never opened")
    write(src, 2, "acc_sitting_csv/acc_sitting_2_chest.csv", still(ACC))
    write(src, 2, "gyr_sitting_csv/Gyroscope_sitting_2_chest.csv", still(GYRO))
    recordings, skipped = imported(DATASET, src, tmp_path)
    assert [(r.subject, r.session, r.placement) for r in recordings] == [
        ("2", "sitting", "chest"),
        ("10", "climbingup", "upper arm"),
        ("10", "climbingup", "waist"),
    ]
    for recording in recordings:
        assert recording.rate_hz == 50.0
        np.testing.assert_allclose(imu(recording), np.tile([*ACC, *GYRO], (400, 1)), atol=0.003)
    assert [(s.start, s.stop, s.label) for s in recordings[2].segments] == [
        (0, 400, "ascending stairs")
    ]
    assert skipped == {"activity at one place without gyroscope": 1}


def test_parts_are_told_apart_by_time(tmp_path: Path) -> None:
    """The two sensors number their inner zips differently."""
    acc = {
        "acc_climbingup_1_csv.zip": zipped({"acc_climbingup_waist.csv": still(ACC, 200)}),
        "acc_climbingup_2_csv.zip": zipped(
            {"acc_climbingup_2_waist.csv": still(ACC, 300, start_ms=60_000)}
        ),
    }
    gyro = {
        "gyr_climbingup_csv.zip": zipped({"Gyroscope_climbingup_waist.csv": still(GYRO, 200)}),
        "gyr_climbingup_2_csv.zip": zipped(
            {"Gyroscope_climbingup_2_waist.csv": still(GYRO, 250, start_ms=60_010)}
        ),
    }
    write(tmp_path / "src", 4, "acc_climbingup_csv.zip", zipped({**acc}))
    write(tmp_path / "src", 4, "gyr_climbingup_csv.zip", zipped({**gyro}))
    recordings, _ = imported(DATASET, tmp_path / "src", tmp_path)
    assert [len(r.samples) for r in recordings] == [200, 249]


def test_refusals(tmp_path: Path) -> None:
    bad = still(ACC, 3) + "3,1435993200060,0,9.81\n"
    path = write(tmp_path / "columns", 1, "acc_lying_csv.zip", zipped({"acc_lying_shin.csv": bad}))
    message = refused(DATASET, tmp_path / "columns", tmp_path)
    assert f"{path}/acc_lying_shin.csv:5: 4 columns; expected 5" in message
    write(tmp_path / "unknown", 1, "acc_flying_csv.zip", zipped({"acc_flying_shin.csv": bad}))
    assert "acc_flying_shin.csv: unknown activity or place" in refused(
        DATASET, tmp_path / "unknown", tmp_path
    )
    write(tmp_path / "broken", 1, "acc_lying_csv.zip", b"PK cut off")
    assert "acc_lying_csv.zip: not a zip file" in refused(DATASET, tmp_path / "broken", tmp_path)
    write(tmp_path / "units", 1, "acc_lying_shin.csv", still((0.0, 1.0, 0.0)))
    write(tmp_path / "units", 1, "Gyroscope_lying_shin.csv", still(GYRO))
    assert "in g, where m/s^2 was expected" in refused(DATASET, tmp_path / "units", tmp_path)
