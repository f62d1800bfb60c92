"""Ego4D's IMU files with their known faults, and narrations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.importers.imported import imported, imu, refused, write_rows
from training.importers.ego4d import DATASET, plain_narration

HEADER = (
    "component_idx,component_timestamp_ms,canonical_timestamp_ms,"
    "gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
)
GYRO, ACC = (0.5, -0.25, 0.1), (-2.0, 0.5, 9.6)


def rows(
    n: int = 2000, step_ms: float = 5.0, acc: tuple[float, float, float] = ACC, start_ms: float = 0
) -> list[str]:
    values = ",".join(map(str, (*GYRO, *acc)))
    return [f"0,{i * step_ms},{start_ms + i * step_ms},{values}" for i in range(n)]


def released(
    src: Path,
    imus: dict[str, list[str]],
    scenarios: list[str] | None = None,
    narrations: list[tuple[float, str]] = (),  # type: ignore[assignment]
    duration_s: float = 60,
) -> Path:
    """The files that the downloader leaves, with the same narrations for each video."""
    for uid, lines in imus.items():
        write_rows(src / "v2" / "imu" / f"{uid}.csv", HEADER, lines)
    videos = [
        {
            "video_uid": uid,
            "duration_sec": duration_s,
            "scenarios": ["Cooking"] if scenarios is None else scenarios,
            "fb_participant_id": 7 if uid == "one" else None,
        }
        for uid in imus
    ]
    (src / "ego4d.json").write_text(json.dumps({"videos": videos}))
    entries = [{"timestamp_sec": t, "narration_text": text} for t, text in narrations]
    told: dict[str, Any] = {
        uid: {"status": "complete", "narration_pass_1": {"narrations": entries, "summaries": []}}
        for uid in imus
    }
    (src / "v2" / "annotations").mkdir(parents=True)
    (src / "v2" / "annotations" / "narration.json").write_text(json.dumps(told))
    return src


def test_signal_label_and_narrations(tmp_path: Path) -> None:
    src = released(
        tmp_path / "src",
        {"one": rows(), "two": rows(step_ms=1000 / 198)},
        narrations=[
            (5.0, "#C C picks up a cup\n"),
            (1.0, "#C C walks to C's car."),
            (6.0, "#O A man X talks"),
            (30.0, "#C C leaves"),
        ],
    )
    (one, two), skipped = imported(DATASET, src, tmp_path)
    assert (one.subject, one.session, one.placement, one.rate_hz) == ("7", "one", "head", 200.0)
    assert (two.subject, two.rate_hz) == ("two", 198.0)
    np.testing.assert_allclose(imu(one), np.tile([*ACC, *GYRO], (2000, 1)), atol=0.003)
    assert [(s.start, s.stop, s.label) for s in one.segments] == [(0, 2000, "cooking")]
    assert [(t.start, t.stop, t.text, t.kind) for t in one.texts] == [
        (0, 700, "a person walks to the person's car", "narration"),
        (500, 1500, "a person picks up a cup", "narration"),
    ]
    assert skipped == {
        "narration about someone else, or unsure": 2,
        "narration without a signal": 2,
    }


def test_packets_out_of_order_are_sorted_and_gaps_kept(tmp_path: Path) -> None:
    ramp = [line.rsplit(",", 1)[0] + f",{9 + i / 2000}" for i, line in enumerate(rows())]
    lines = ramp[400:800] + ramp[:400] + ramp[1000:]
    lines += ["0,1.0,NULL,0,0,0,0,0,9.8", "0,1.0,,0,0,0,0,0,9.8", "0,1.0,1e12,0,0,0,0,0,9.8"]
    lines[10] = lines[10].replace(str(GYRO[0]), "", 1)
    src = released(tmp_path / "src", {"one": lines}, scenarios=["Cooking", "Eating"])
    recordings, skipped = imported(DATASET, src, tmp_path)
    assert [len(r.samples) for r in recordings] == [800, 1000]
    assert recordings[0].segments == ()
    whole = np.concatenate([imu(r)[:, 2] for r in recordings])
    expected = 9 + np.r_[0:800, 1000:2000] / 2000
    np.testing.assert_allclose(whole, expected, atol=0.006)
    assert skipped == {"sample outside of the video": 3}


def test_useless_videos_are_left_out(tmp_path: Path) -> None:
    src = released(
        tmp_path / "src",
        {
            "one": rows(),
            "equal": rows(acc=(0.0, 6.9, 6.9)),
            "flat": rows(acc=(0.1, 0.2, 0.3)),
            "twice": rows() + rows(start_ms=1.0),
            "empty": [line.rsplit(",", 3)[0] + ",,,nan" for line in rows()],
            "slow": rows(n=100, step_ms=500.0),
        },
    )
    recordings, skipped = imported(DATASET, src, tmp_path)
    assert [r.session for r in recordings] == ["one"]
    assert skipped == {
        "video with two equal axes of acceleration": 1,
        "video with an accelerometer that does not show gravity": 1,
        "video with overlapping stamps": 1,
        "video with no acceleration": 1,
        "video with an impossible rate": 1,
    }


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("#C C picks up a cup", "a person picks up a cup"),
        ("#C picks up a cup.", "a person picks up a cup"),
        ("# c c looks at C's hand \n", "a person looks at the person's hand"),
        ("#O a man X walks", None),
        ("#C C holds a #unsure", None),
        ("#C", None),
        ("#unsure", None),
        ("#Cooking", None),
    ],
)
def test_plain_narration(text: str, plain: str | None) -> None:
    assert plain_narration(text) == plain


def test_refusals(tmp_path: Path) -> None:
    src = released(tmp_path / "src", {"one": [*rows(3), "0,1,2,3"]})
    path = src / "v2" / "imu" / "one.csv"
    assert f"{path}:5: 4 columns; expected 9" in refused(DATASET, src, tmp_path)
    path.write_text("timestamp,x\n1,2\n")
    assert "one.csv:1: no column canonical_timestamp_ms" in refused(DATASET, src, tmp_path)
    narrations = src / "v2" / "annotations" / "narration.json"
    narrations.write_text('{"one": {"narration_pass_1": {"narrations": [{}]}}}')
    assert "narration.json: not in the published form (KeyError" in refused(DATASET, src, tmp_path)
    narrations.write_text('{\n"one": [}')
    assert "narration.json:2: not JSON" in refused(DATASET, src, tmp_path)
    narrations.unlink()
    assert "narration.json: missing" in refused(DATASET, src, tmp_path)
