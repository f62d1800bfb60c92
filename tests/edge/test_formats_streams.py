"""Under the layouts: merging two sensors, clocks that wrap, memory, archives that are hostile."""

from __future__ import annotations

import contextlib
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.formats import files
from edge.formats.export import interpolated, unwrapped
from edge.formats.table import BLOCK_ROWS, clock_s
from edge.recording import open_recording
from edge.resample import MAX_GAP_S
from firmware_bridge.errors import InputError
from tests.edge.test_formats import (
    UP,
    in_folder,
    logger_files,
    logger_metadata,
    phyphox_file,
    text,
    zipped,
)
from tests.edge.test_recording import all_samples


def blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Some rows, `size` at a time."""
    return iter([rows[i : i + size].copy() for i in range(0, len(rows), size)])


def merge(primary: np.ndarray, secondary: np.ndarray, *sizes: int) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    sizes = sizes or (1000, 1000)
    parts = interpolated(blocks(primary, sizes[0]), blocks(secondary, sizes[1]), "gyro", notes)
    joined = [np.empty((0, primary.shape[1] + secondary.shape[1] - 1)), *parts]
    return np.concatenate(joined), notes


def column(*times: float) -> np.ndarray:
    """Rows whose value is twice their time."""
    return np.column_stack([times, 2 * np.array(times)])


TIMES_S = st.lists(st.floats(0, 3, width=32), max_size=60).map(sorted)


@settings(deadline=None)
@given(TIMES_S, TIMES_S, st.integers(1, 60), st.integers(1, 60))
def test_merging_is_the_same_in_any_blocks_and_as_its_definition(
    primary: list[float], secondary: list[float], primary_size: int, secondary_size: int
) -> None:
    secondary = sorted(set(secondary))
    merged, notes = merge(column(*primary), column(*secondary), primary_size, secondary_size)
    kept = []
    for t in primary:
        before = max((s for s in secondary if s <= t), default=None)
        after = min((s for s in secondary if s >= t), default=None)
        if before is not None and after is not None and after - before < MAX_GAP_S:
            kept.append(t)
    np.testing.assert_array_equal(merged[:, 0], kept)
    np.testing.assert_allclose(merged[:, 2], 2 * np.array(kept), atol=1e-6)
    if secondary:
        left_out = len(primary) - len(kept)
        note = (
            f"accelerometer samples left out: {left_out}, around which gyro has no samples less "
            "than 0.25 s apart"
        )
        assert notes == ([note] if left_out else [])


def test_merging_ends_at_a_gap_of_a_quarter_of_a_second() -> None:
    merged, _ = merge(column(0, 0.125, 0.25, 0.375, 0.5), column(0, 0.25, 0.499))
    np.testing.assert_allclose(merged[:, 0], [0, 0.25, 0.375])


def test_merging_passes_over_what_was_not_measured() -> None:
    secondary = column(0, 0.1, 0.15, 0.05, 0.2, 0.2, 0.3)
    secondary[1, 1] = np.nan
    secondary[3, 1] = 99  # earlier than the row before it
    secondary[4] = [np.nan, np.nan]
    merged, notes = merge(column(0, np.nan, 0.1, 0.25), secondary)
    np.testing.assert_allclose(merged[:, [0, 2]], [[0, 0], [0.1, 0.2], [0.25, 0.5]])
    assert notes == []
    assert merge(column(0, 1), np.empty((0, 2))) [1] == ["gyro holds no samples"]  # fmt: skip


def test_merging_keeps_no_more_than_it_needs() -> None:
    def long(offset_s: float, n_blocks: int) -> Iterator[np.ndarray]:
        for i in range(n_blocks):
            t = offset_s + (i * BLOCK_ROWS + np.arange(BLOCK_ROWS)) / 50
            yield np.column_stack([t, np.zeros((BLOCK_ROWS, 3))])

    tracemalloc.start()
    try:
        # The gyroscope began hours before the accelerometer.
        n = sum(len(b) for b in interpolated(long(20_000.003, 500), long(0, 1200), "gyro", []))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n == 500 * BLOCK_ROWS
    assert peak < 20 * BLOCK_ROWS * 7 * 8  # 32 MB if all were kept, 2.2 MB allowed


@settings(deadline=None)
@given(st.lists(st.integers(1, 499), min_size=1, max_size=50), st.integers(1, 7))
def test_a_clock_that_wraps_counts_on(steps: list[int], size: int) -> None:
    true = np.cumsum(steps).astype(float)
    wrapped = true % 1000
    rows = np.concatenate(list(unwrapped(blocks(np.column_stack([wrapped, true]), size), 1000)))
    np.testing.assert_allclose(rows[:, 0] - rows[0, 0], true - true[0])


def test_a_time_that_is_missing_does_not_hide_a_wrap() -> None:
    rows = column(900, np.nan, 10, 20)
    (block,) = unwrapped(iter([rows]), 1000)
    np.testing.assert_array_equal(block[:, 0], [900, np.nan, 1010, 1020])


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-02T00:00:01.5", 86_401.5),
        ("1970-1-2 0:0:1:500", 86_401.5),
        ("1970/01/02 00:00:01", 86_401.0),
        ("1970-01-02 02:00:01.500 +0200", 86_401.5),
        ("1970-01-01T22:30:01.5-01:30", 86_401.5),
        ("1970-01-02T00:00:01.5Z", 86_401.5),
        ("12:34:56.78", 45_296.78),
    ],
)
def test_written_times(written: str, seconds: float) -> None:
    assert clock_s(written) == pytest.approx(seconds, abs=1e-6)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_text_makes_the_clock_fail_otherwise(written: str) -> None:
    with contextlib.suppress(ValueError):
        assert np.isfinite(clock_s(written))


def test_a_gap_in_the_gyroscope_leaves_a_gap_and_a_note(tmp_path: Path) -> None:
    t = np.arange(500) / 50
    gyro_t = t[(t < 3) | (t >= 5)] + 0.003
    export = {
        "Accelerometer.csv": phyphox_file(t, "Acceleration", "m/s^2", UP.acc(t), ",."),
        "Gyroscope.csv": phyphox_file(gyro_t, "Gyroscope", "rad/s", UP.gyro(gyro_t), ",."),
    }
    recording = open_recording(in_folder(tmp_path / "export", export))
    found, acc, gyro = all_samples(recording)
    assert gyro is not None
    expected = t[(t > 0) & ((t < 3) | (t > 5))]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(acc, UP.acc(expected), atol=1e-6)
    assert recording.notes == [
        "accelerometer samples left out: 102, around which the gyroscope has no samples less than "
        "0.25 s apart"
    ]


def _peak_of_replay(path: Path, n_rows: int, is_zip: bool) -> int:
    """Bytes at the peak of reading an accelerometer's and a gyroscope's file of `n_rows` each."""
    t = np.arange(n_rows) / 50
    header = "Phone timestamp;sensor timestamp [ns];X [{0}];Y [{0}];Z [{0}]"
    stamps = [f"{838_432_586_543_515_816 + round(s * 1e9)}" for s in t]
    phone = ["2026-01-31T12:34:56.789"] * len(t)
    contents = {
        "A_ACC.txt": text(header.format("mg"), [phone, stamps, np.round(UP.acc(t) * 102)], ";"),
        "A_GYRO.txt": text(header.format("dps"), [phone, stamps, UP.gyro(t)], ";"),
    }
    (zipped if is_zip else in_folder)(path, contents)
    del contents, stamps, phone
    tracemalloc.start()
    try:
        assert sum(len(chunk) for chunk in open_recording(path).chunks) == n_rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_longer_recording_takes_no_more_memory(tmp_path: Path, is_zip: bool) -> None:
    # The first 20,000 rows are kept to judge units by.
    short = _peak_of_replay(tmp_path / "short", 25_000, is_zip)
    assert _peak_of_replay(tmp_path / "long", 75_000, is_zip) < 1.05 * short


# --- archives -----------------------------------------------------------------------------------


def test_names_in_a_zip_are_looked_up_and_nothing_is_written(tmp_path: Path) -> None:
    contents = logger_files(UP, "android")
    contents["../../evil.csv"] = "x"
    contents["/etc/evil.csv"] = "x"
    contents["__MACOSX/._TotalAcceleration.csv"] = "x"
    path = zipped(tmp_path / "export.zip", contents)
    assert len(all_samples(open_recording(path))[0]) == 299
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_with_one_file_is_that_file(tmp_path: Path) -> None:
    content = text("time_s,ax,ay,az", [np.arange(300) / 50, UP.acc(np.arange(300) / 50)])
    recording = open_recording(zipped(tmp_path / "r.zip", {"walk.csv": content}))
    assert recording.rate_hz == pytest.approx(50)
    assert len(all_samples(recording)[0]) == 300


def _bomb(path: Path) -> Path:
    """2 MiB in one line, of 2 kB."""
    return zipped(path / "bomb.zip", {"walk.csv": "0" * (2 << 20)})


def _damaged(path: Path) -> Path:
    whole = zipped(path / "whole.zip", logger_files(UP, "android")).read_bytes()
    at = whole.index(b"TotalAcceleration.csv") + 2000
    (path / "damaged.zip").write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
    return path / "damaged.zip"


def _encrypted(path: Path) -> Path:
    whole = bytearray(zipped(path / "plain.zip", {"walk.csv": "time,ax,ay,az\n"}).read_bytes())
    whole[6] |= 1  # flag of the local header
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # and of the directory's
    (path / "encrypted.zip").write_bytes(whole)
    return path / "encrypted.zip"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_bomb, r"bomb\.zip/walk\.csv: a line of more than 1 MiB"),
        (_damaged, r"damaged\.zip/TotalAcceleration\.csv: damaged in the archive"),
        (_encrypted, r"encrypted\.zip/walk\.csv: is encrypted"),
        (
            lambda p: zipped(p / "many.zip", {f"{i}.csv": "" for i in range(1001)}),
            "holds 1001 files",
        ),
    ],
)
def test_hostile_and_damaged_archives(tmp_path: Path, write, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        all_samples(open_recording(write(tmp_path)))


def test_a_zip_that_claims_absurd_sizes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "large.zip", logger_files(UP, "android"))
    monkeypatch.setattr(files, "MAX_ZIP_FILE_BYTES", 1000)
    with pytest.raises(InputError, match=r"claims to be .* GiB large, .*unpack it"):
        open_recording(path)


def test_a_zip_that_holds_more_than_it_claims_is_not_read_on(tmp_path: Path) -> None:
    content = "time,ax,ay,az\n" + "0,0,0,9.8\n" * 50_000
    whole = bytearray(zipped(tmp_path / "r.zip", {"walk.csv": content}).read_bytes())
    directory = whole.index(b"PK\x01\x02")
    whole[directory + 24 : directory + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "lies.zip").write_bytes(whole)
    with pytest.raises(InputError, match="damaged in the archive"):
        open_recording(tmp_path / "lies.zip")


def test_only_known_names_of_a_folder_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder(tmp_path / "e", {**logger_files(UP, "android"), "secret.csv": "x"})
    opened: list[str] = []
    encoding = files.TextFile.encoding

    def watched(self: files.TextFile) -> str:
        opened.append(self.name)
        return encoding(self)

    monkeypatch.setattr(files.TextFile, "encoding", watched)
    open_recording(folder)
    assert set(opened) == {
        "TotalAcceleration.csv",
        "Accelerometer.csv",
        "Gyroscope.csv",
        "Metadata.csv",
    }


def test_metadata_that_is_cut_off_does_not_name_the_platform(tmp_path: Path) -> None:
    contents = logger_files(UP, "ios")
    contents["Metadata.csv"] = logger_metadata("ios", False).splitlines()[0]
    with pytest.raises(InputError, match="does not name the platform"):
        open_recording(in_folder(tmp_path / "e", contents))


def test_a_zip_is_told_by_its_content(tmp_path: Path) -> None:
    path = zipped(tmp_path / "export.recording", logger_files(UP, "android"))
    assert zipfile.is_zipfile(path)
    assert "Sensor Logger" in open_recording(path).summary
