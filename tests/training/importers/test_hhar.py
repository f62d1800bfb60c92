"""HHAR's four files and the clocks in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.importers.imported import imported, imu, refused, write_rows
from training.importers import hhar
from training.importers.hhar import DATASET

HEADER = "Index,Arrival_Time,Creation_Time,x,y,z,User,Model,Device,gt"
START_MS = 1_424_696_633_908
ACC, GYRO = (-5.9, 0.7, 7.8), (0.1, -0.2, 1.25)


def lines(
    device: str,
    labels: list[str],
    rate_hz: float,
    values: tuple[float, float, float] = ACC,
    creation_ns: np.ndarray | None = None,
    start_ms: int = START_MS,
) -> list[str]:
    """One device on user a, a label a sample; arrivals come in bursts of four."""
    n = len(labels)
    t_s = np.arange(n) / rate_hz
    arrival_ms = (start_ms + 1000 * t_s[np.minimum(np.arange(n) // 4 * 4 + 3, n - 1)]).astype(int)
    if creation_ns is None:
        creation_ns = 27_920_678_471_000 + (t_s * 1e9).astype(np.int64)
    x, y, z = values
    model = device.split("_", maxsplit=1)[0]
    return [
        f"{i},{arrival_ms[i]},{creation_ns[i]},{x},{y},{z},a,{model},{device},{labels[i]}"
        for i in range(n)
    ]


def files(src: Path, **rows: list[str]) -> None:
    """The four files; those that are not given hold no line."""
    for name in ("Phones_accelerometer", "Phones_gyroscope", "Watch_accelerometer"):
        write_rows(src / f"{name}.csv", HEADER, rows.get(name, []))
    write_rows(src / "Watch_gyroscope.csv", HEADER, rows.get("Watch_gyroscope", []))


def test_devices_rates_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hhar, "_BLOCK_BYTES", 4096)  # several blocks
    labels = ["null"] * 100 + ["stairsup"] * 200 + ["bike"] * 100
    files(
        tmp_path / "src",
        Phones_accelerometer=lines("samsungold_1", ["sit"] * 50, 50)
        + lines("s3mini_1", labels, 100),
        Phones_gyroscope=lines("s3mini_1", labels, 100, GYRO),
        Watch_accelerometer=lines("lgwatch_2", ["walk"] * 600, 200),
        Watch_gyroscope=lines("lgwatch_2", ["walk"] * 600, 200, GYRO),
    )
    (phone, watch), skipped = imported(DATASET, tmp_path / "src", tmp_path)
    assert (phone.subject, phone.placement, phone.rate_hz) == ("a", "waist", 100.0)
    assert (watch.placement, watch.rate_hz) == ("wrist", 200.0)
    assert (len(phone.samples), len(watch.samples)) == (400, 600)
    np.testing.assert_allclose(imu(phone), np.tile([*ACC, *GYRO], (400, 1)), atol=0.003)
    assert [(s.start, s.stop, s.label) for s in phone.segments] == [
        (100, 300, "ascending stairs"),
        (300, 400, "cycling"),
    ]
    assert [(s.start, s.stop, s.label) for s in watch.segments] == [(0, 600, "walking")]
    assert skipped == {"sample of a device without gyroscope (samsungold)": 50}


def test_creation_times_are_used_while_they_run_with_the_arrivals(tmp_path: Path) -> None:
    """A ramp on the creation times comes out straight although arrivals are bunched."""
    n = 400
    acc = lines("s3mini_1", ["walk"] * n, 100)
    ramp = [f"{3 * i / n - 1.5}" for i in range(n)]
    acc = [line.replace("-5.9,0.7", f"-5.9,{r}") for line, r in zip(acc, ramp, strict=True)]
    files(
        tmp_path / "src",
        Phones_accelerometer=acc,
        Phones_gyroscope=lines("s3mini_1", ["walk"] * n, 100, GYRO),
    )
    (recording,), skipped = imported(DATASET, tmp_path / "src", tmp_path)
    np.testing.assert_allclose(imu(recording)[:, 1], 3 * np.arange(n) / n - 1.5, atol=0.006)
    assert not skipped


def test_clocks_that_jump_or_stand(tmp_path: Path) -> None:
    """A restart in between: two stretches. A clock in another unit: even timing, noted."""
    t_ns = (np.arange(400) / 100 * 1e9).astype(np.int64)
    restarted = np.concatenate([5 * 10**15 + t_ns[:200], t_ns[200:]])
    microseconds = t_ns // 1000
    labels = ["stand"] * 400
    files(
        tmp_path / "src",
        Phones_accelerometer=lines("s3mini_1", labels, 100, creation_ns=restarted)
        + lines("s3mini_2", labels, 100, creation_ns=microseconds),
        Phones_gyroscope=lines("s3mini_1", labels, 100, GYRO)
        + lines("s3mini_2", labels, 100, GYRO),
    )
    (first, second), skipped = imported(DATASET, tmp_path / "src", tmp_path)
    assert abs(len(first.samples) - 400) <= 4
    assert abs(len(second.samples) - 400) <= 4
    assert skipped == {"creation time not used: it parts from the arrivals": 400}


def test_a_pause_splits(tmp_path: Path) -> None:
    parts = [
        lines("gear_1", ["sit"] * n, 100, values, start_ms=START_MS + later_ms, creation_ns=c)
        for values in (ACC, GYRO)
        for n, later_ms in ((300, 0), (200, 60_000))
        for c in [(later_ms * 10**6 + np.arange(n) * 10**7).astype(np.int64)]
    ]
    files(
        tmp_path / "src",
        Watch_accelerometer=parts[0] + parts[1],
        Watch_gyroscope=parts[2] + parts[3],
    )
    recordings, _ = imported(DATASET, tmp_path / "src", tmp_path)
    assert [len(r.samples) for r in recordings] == [300, 200]


def test_refusals(tmp_path: Path) -> None:
    good = lines("s3_1", ["sit"] * 400, 150)
    files(tmp_path / "columns", Phones_accelerometer=[*good[:2], "2,1424,5,0.1"])
    path = tmp_path / "columns" / "Phones_accelerometer.csv"
    assert f"{path}:4: 4 columns; expected 10" in refused(DATASET, tmp_path / "columns", tmp_path)
    files(tmp_path / "words", Phones_accelerometer=[good[0].replace("-5.9", "fast")])
    path = tmp_path / "words" / "Phones_accelerometer.csv"
    assert f"{path}:2: x is 'fast'" in refused(DATASET, tmp_path / "words", tmp_path)
    files(tmp_path / "unknown", Phones_accelerometer=[good[0].replace("sit", "fly")])
    assert "unknown activity 'fly'" in refused(DATASET, tmp_path / "unknown", tmp_path)
    files(tmp_path / "model", Phones_accelerometer=[good[0].replace("s3", "s99")])
    assert "unknown model 's99'" in refused(DATASET, tmp_path / "model", tmp_path)
    files(
        tmp_path / "units",
        Phones_accelerometer=lines("s3_1", ["sit"] * 400, 150, (0.0, 1.0, 0.0)),
        Phones_gyroscope=lines("s3_1", ["sit"] * 400, 150, GYRO),
    )
    assert "in g, where m/s^2 was expected" in refused(DATASET, tmp_path / "units", tmp_path)
    (tmp_path / "units" / "Watch_gyroscope.csv").unlink()
    assert "holds no Watch_gyroscope.csv" in refused(DATASET, tmp_path / "units", tmp_path)
    write_rows(tmp_path / "units" / "Watch_gyroscope.csv", "Index,x,y,z", [])
    assert "Watch_gyroscope.csv:1: no column Arrival_Time" in refused(
        DATASET, tmp_path / "units", tmp_path
    )
