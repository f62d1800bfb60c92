"""Ego-Exo4D: IMU written from the VRS files, the takes' clocks, and sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.importers.imported import imported, imu, refused, write_rows
from training.importers.ego_exo4d import DATASET

HEADER = "timestamp_ns,accel_x,accel_y,accel_z,gyro_x,gyro_y,gyro_z"
TAKE, UID = "cmu_bike01_2", "ed3ec638"
START_NS = 284_324_000_000


def signal(n: int, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Stamps and (n, 6): gravity on y, a nod at 2 Hz, and a buzz at 300 Hz above 600 Hz."""
    t_s = np.arange(n) / rate_hz
    values = np.zeros((n, 6))
    values[:, 1] = 9.81 + (np.sin(2 * np.pi * 300 * t_s) if rate_hz > 600 else 0)
    values[:, 3] = np.sin(2 * np.pi * 2 * t_s)
    return START_NS + np.round(t_s * 1e9).astype(np.int64), values


def csv_rows(stamps_ns: np.ndarray, values: np.ndarray) -> list[str]:
    return [
        f"{t}," + ",".join(f"{v:.6f}" for v in row)
        for t, row in zip(stamps_ns, values, strict=True)
    ]


def take(**changes: Any) -> dict[str, Any]:
    plain = {
        "root_dir": f"takes/{TAKE}",
        "take_name": TAKE,
        "take_uid": UID,
        "participant_uid": 657,
        "parent_task_name": "Bike Repair",
        "task_start_sec": 1.0,
        "task_end_sec": 9.0,
        "timesync_start_idx": 3,
    }
    return {**plain, **changes}


def released(
    src: Path, takes: list[dict[str, Any]], imus: dict[str, list[str]], sync_ns: int | None = None
) -> Path:
    """`takes.json`, IMU files by their path below `takes/`, a timesync.csv whose line 4 counts."""
    src.mkdir(parents=True, exist_ok=True)
    (src / "takes.json").write_text(json.dumps(takes))
    for path, lines in imus.items():
        write_rows(src / "takes" / path, HEADER, lines)
    if sync_ns is not None:
        rows = [f"{i}.0,{sync_ns if i == 4 else ''},x" for i in range(6)]
        header = "cam01_pts,aria01_214-1_capture_timestamp_ns,aria01_214-1_frame_number"
        write_rows(src / "captures" / "cmu_bike01" / "timesync.csv", header, rows)
    return src


def annotate(src: Path, name: str, annotations: dict[str, Any]) -> None:
    path = src / "annotations" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"ds": "", "annotations": annotations}))


NO_TEXTS = {"file of texts, missing": 4}


def test_decimated_with_the_runtimes_low_pass(tmp_path: Path) -> None:
    """imu-right is preferred; the buzz at 300 Hz would alias to 100 Hz."""
    imus = {
        f"{TAKE}/imu-right.csv": csv_rows(*signal(10_000, 1000)),
        f"{TAKE}/imu-left.csv": ["never read"],
    }
    src = released(tmp_path / "src", [take()], imus, sync_ns=START_NS)
    (recording,), skipped = imported(DATASET, src, tmp_path)
    assert (recording.subject, recording.session) == ("657", TAKE)
    assert (recording.placement, recording.rate_hz) == ("head", 200.0)
    assert len(recording.samples) == 2000
    inner = slice(50, -50)
    acc, gyro = imu(recording)[inner, :3], imu(recording)[inner, 3:]
    np.testing.assert_allclose(acc, np.tile([0, 9.81, 0], (1900, 1)), atol=0.01)
    nod = np.sin(2 * np.pi * 2 * np.arange(2000) / 200)[inner]
    np.testing.assert_allclose(gyro[:, 0], nod, atol=0.01)
    assert [(s.start, s.stop, s.label) for s in recording.segments] == [(200, 1800, "bike repair")]
    assert skipped == NO_TEXTS


def test_parquet_at_a_native_rate_and_a_gap(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    src = released(tmp_path / "src", [take(task_start_sec=None, task_end_sec=None)], {})
    stamps_ns, values = signal(4000, 400)
    kept = np.r_[0:1600, 2400:4000]
    columns = dict(zip(HEADER.split(","), [stamps_ns[kept], *values[kept].T], strict=True))
    (src / "takes" / TAKE).mkdir(parents=True)
    parquet.write_table(table(columns), src / "takes" / TAKE / "imu-left.parquet")
    recordings, skipped = imported(DATASET, src, tmp_path)
    assert [(r.rate_hz, len(r.samples)) for r in recordings] == [(400.0, 1600), (400.0, 1600)]
    assert [(r.segments[0].start, r.segments[0].stop) for r in recordings] == [(0, 1600)] * 2
    assert skipped == {
        **NO_TEXTS,
        "timesync.csv missing, take timed from the IMU's first sample": 1,
    }


def test_sentences_on_the_takes_clock(tmp_path: Path) -> None:
    """The take begins 2 s after its IMU."""
    imus = {f"{TAKE}/imu-right.csv": csv_rows(*signal(2400, 200)), "empty_1/imu-left.csv": []}
    others = ("iiith_cooking_1", "empty_1")
    src = released(
        tmp_path / "src",
        [take(), *(take(take_name=n, take_uid=n, root_dir=f"takes/{n}") for n in others)],
        imus,
        sync_ns=START_NS + 2 * 10**9,
    )
    described = [
        {"text": "C lifts C's left hand.", "timestamp": 5.0, "subject": "C"},
        {"text": "The man A laughs.", "timestamp": 5.0, "subject": "O"},
        {"text": "C turns.", "timestamp": -9.0, "narration_subject": "C"},
    ]
    annotate(
        src,
        "atomic_descriptions_train",
        {
            UID: [
                {"rejected": False, "descriptions": described},
                {"rejected": True, "descriptions": described[:1]},
            ]
        },
    )
    said = [
        {"video_time": 9.0, "text": " Good grip.", "error": False},
        {"video_time": 4.0, "text": "", "error": True},
        {"video_time": 99.0, "text": "Too late.", "error": False},
    ]
    annotate(src, "expert_commentary_val", {UID: [{"task_name": "", "commentary_data": said}]})
    pose = src / "annotations" / "ego_pose" / "train" / "body" / "annotation" / f"{UID}.json"
    pose.parent.mkdir(parents=True)
    pose.write_text("{}")
    (recording,), skipped = imported(DATASET, src, tmp_path)
    assert [(t.start, t.stop, t.text, t.kind) for t in recording.texts] == [
        (900, 1900, "a person lifts the person's left hand", "atomic description"),
        (1200, 2200, "Good grip.", "expert commentary"),
    ]
    assert [(s.start, s.stop) for s in recording.segments] == [(600, 2200)]
    assert skipped == {
        "file of texts, missing": 2,
        "atomic description of someone else, or empty": 1,
        "atomic description of a rejected annotation": 1,
        "expert commentary without a transcription": 1,
        "body pose of a take, no part of this form": 1,
        "atomic description without a signal": 1,
        "expert commentary without a signal": 1,
        "take without imu-right.csv, .parquet or imu-left": 1,
        "IMU file without samples": 1,
    }


def test_refusals(tmp_path: Path) -> None:
    good = csv_rows(*signal(10, 200))
    where = f"{TAKE}/imu-right.csv"
    src = released(tmp_path / "src", [take()], {where: [*good[:2], "1,2,3"]})
    path = src / "takes" / where
    assert f"{path}:4: 3 columns; expected 7" in refused(DATASET, src, tmp_path)
    released(src, [take()], {where: csv_rows(*signal(2000, 200))}, sync_ns=START_NS)
    released(src, [take(timesync_start_idx=40)], {})
    assert "timesync.csv: no line 43" in refused(DATASET, src, tmp_path)
    released(src, [take(timesync_start_idx=2)], {})
    assert "timesync.csv:5: no capture time" in refused(DATASET, src, tmp_path)
    stamps_ns, values = signal(2000, 200)
    released(src, [take()], {where: csv_rows(stamps_ns, values / 9.81)})
    assert "in g, where m/s^2 was expected" in refused(DATASET, src, tmp_path)
    fast_ns, fast = signal(4000, 1000)
    fast_ns[2000:] -= 3 * 10**9
    released(src, [take()], {where: csv_rows(fast_ns, fast)})
    assert str(path) in (message := refused(DATASET, src, tmp_path))
    assert "back" in message
    (src / "takes.json").write_text('[{"take_name": "x"}]')
    assert "takes.json: not in the published form (KeyError" in refused(DATASET, src, tmp_path)
    annotate(src, "expert_commentary_train", {UID: [{}]})
    released(src, [take()], {})
    assert "expert_commentary_train.json: not in the published form" in refused(
        DATASET, src, tmp_path
    )
