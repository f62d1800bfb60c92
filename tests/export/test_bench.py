"""The benchmark runs and says what it measured; how fast is for people to judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.recording import open_recording
from export import bench

SECTIONS = {"machine", "install", "starts", "streams", "replays", "encoders"}


@pytest.fixture(scope="module")
def report() -> dict[str, list[bench.Row]]:
    return dict(bench.measure(bench.QUICK, day=False))


def test_every_figure_is_there_and_positive(report: dict[str, list[bench.Row]]) -> None:
    assert report.keys() == bench.TITLES.keys() == SECTIONS
    assert json.loads(json.dumps(report)) == report
    for name in SECTIONS - {"machine"}:
        for row in report[name]:
            assert row.keys() == report[name][0].keys()
            figures = [cell for cell in row.values() if isinstance(cell, int | float)]
            assert figures and np.isfinite(figures).all() and min(figures) > 0


def test_every_encoder_is_there(report: dict[str, list[bench.Row]]) -> None:
    rows = {str(row["encoder"]): row for row in report["encoders"]}
    assert rows.keys() == {
        "aura-edge as shipped, int8",
        "aura-edge float32",
        "IMU2CLIP",
        "AURA-MFM SS",
        "AURA-MFM S",
        "ImageBind IMU",
        "UniMTS-sized ST-GCN",
    }
    shipped, float32 = rows["aura-edge as shipped, int8"], rows["aura-edge float32"]
    assert shipped["batch1_times_ours"] == 1
    assert shipped["parameters"] == float32["parameters"]
    assert float(shipped["file_mb"] or 0) < float(float32["file_mb"] or 0)


def test_streams_and_replays_have_all_their_windows(report: dict[str, list[bench.Row]]) -> None:
    plan = bench.QUICK
    assert [row["rate_hz"] for row in report["streams"]] == 2 * list(bench.RATES_HZ)
    for row in report["streams"]:
        windows = int(row["stream_s"] or 0) - 5
        assert row["windows"] in (windows, windows + 1)
    assert [row["recording_s"] for row in report["replays"]] == list(plan.recordings_s)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_section_becomes_a_table(report: dict[str, list[bench.Row]], name: str) -> None:
    table = bench.render(name, report[name])
    assert table.row_count == len(report[name])
    assert len(table.columns) == len(report[name][0])


def test_a_written_recording_is_one_the_runtime_reads(tmp_path: Path) -> None:
    recording = open_recording(bench.write_recording(tmp_path / "walk.csv", 90))
    chunks = list(recording.chunks)
    assert recording.rate_hz == pytest.approx(50)
    assert sum(map(len, chunks)) == 90 * 50
    assert not recording.notes
