"""The shared framework: grids, labels, readers, the checks and the corpus folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from edge.corpus import Segment, Text, read_corpus
from firmware_bridge.errors import AuraError, InputError
from tests.conftest import walk
from training.captions import activity_of, label_bank
from training.data import load_windows
from training.importers import DATASETS, dataset
from training.importers.form import (
    Dataset,
    Piece,
    Recording,
    Skipped,
    Summary,
    csv_columns,
    labels_of,
    pieces,
    runs_of,
    segments_of,
    table,
    write_corpus,
)


def made(seconds: float = 20, rate_hz: float = 50, **changes: object) -> Recording:
    samples = walk(seconds, rate_hz)
    assert samples.gyro_rads is not None
    n = len(samples)
    recording = Recording(
        "s1",
        "day 1",
        "wrist",
        rate_hz,
        samples.acc_mps2,
        samples.gyro_rads,
        (Segment(0, n // 2, "walking"), Segment(n // 2, n, "lying")),
        Path("made.csv"),
    )
    return replace(recording, **changes)  # type: ignore[arg-type]


def made_dataset(*recordings: Recording, **changes: object) -> Dataset:
    def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
        skipped.note(src / "chest.csv", "no gyroscope", 3)
        yield from recordings

    plain = Dataset(
        name="mini", title="Mini", cite="nobody", licence="CC0", units="m/s^2", read=read
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def written(dataset: Dataset, tmp_path: Path) -> Summary:
    src = tmp_path / "original"
    src.mkdir(exist_ok=True)
    with Progress(disable=True) as progress:
        return write_corpus(dataset, src, tmp_path / "corpora", progress)


def axes(*columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack(columns, axis=1)


# --- grids ----------------------------------------------------------------------------------


def test_pieces_interpolates_short_gaps_and_splits_at_long_ones() -> None:
    t_s = np.arange(200) / 100
    ramp = axes(t_s, 2 * t_s, -t_s)
    acc, gyro = ramp.copy(), 3 * ramp
    acc[10:20] = np.nan  # 0.11 s: interpolated
    gyro[100:140, 1] = np.nan  # 0.41 s: a gap, one axis is enough
    first, second = pieces(t_s, acc, gyro, 100.0)
    assert (len(first), len(second)) == (100, 60)
    assert first.start_s == 0
    assert second.start_s == pytest.approx(1.4)
    np.testing.assert_allclose(first.acc_mps2, ramp[:100], atol=1e-12)
    np.testing.assert_allclose(second.gyro_rads, 3 * ramp[140:], atol=1e-12)


def test_pieces_sorts_stamps_and_takes_the_first_of_equal_ones() -> None:
    t_s = np.array([0.0, 0.2, 0.1, 0.1, 0.3])
    values = axes(*[np.array([0.0, 2.0, 1.0, 77.0, 3.0])] * 3)
    (piece,) = pieces(t_s, values, values, 10.0)
    np.testing.assert_allclose(piece.acc_mps2[:, 0], [0, 1, 2, 3])


def test_pieces_keeps_what_two_clocks_have_in_common_on_the_accelerometers_grid() -> None:
    acc_s, gyro_s = np.arange(40) / 20, 0.53 + np.arange(100) / 50
    (piece,) = pieces(
        acc_s, axes(acc_s, acc_s, acc_s), axes(gyro_s, gyro_s, gyro_s), 20.0, gyro_t_s=gyro_s
    )
    assert piece.start_s == pytest.approx(0.55)
    grid_s = 0.55 + np.arange(len(piece)) / 20
    assert grid_s[-1] == pytest.approx(1.95)
    np.testing.assert_allclose(piece.acc_mps2[:, 0], grid_s)
    np.testing.assert_allclose(piece.gyro_rads[:, 2], grid_s)


def test_pieces_of_sensors_that_never_meet_is_empty() -> None:
    t_s = np.arange(20) / 20
    xyz = axes(t_s, t_s, t_s)
    assert pieces(t_s, xyz, xyz, 20.0, gyro_t_s=t_s + 100) == []
    assert pieces(t_s, np.full((20, 3), np.nan), xyz, 20.0) == []


def test_segments_follow_the_nearest_stamp_and_stop_at_unlabelled_stretches() -> None:
    t_s = np.arange(10) / 10
    labels = ["a", "a", "a", None, None, "b", "b", "a", "a", "a"]
    still = np.zeros((20, 3))
    piece = Piece(0.02, still, still)  # at 20 Hz: two grid times for each stamp
    assert segments_of(t_s, labels, piece, 20.0) == (
        Segment(0, 5, "a"),
        Segment(9, 13, "b"),
        Segment(13, 20, "a"),
    )


def test_labels_do_not_reach_over_a_gap_of_their_own() -> None:
    t_s = np.r_[np.arange(10), np.arange(20, 30)] / 10
    still = np.zeros((30, 3))
    found = segments_of(t_s, ["a"] * 20, Piece(0.0, still, still), 10.0)
    assert found == (Segment(0, 12, "a"), Segment(18, 30, "a"))
    assert segments_of(t_s, ["a"] * 20, Piece(50.0, still, still), 10.0) == ()


def test_runs_of_labels() -> None:
    assert runs_of([]) == ()
    assert runs_of(["a", None, "b", "b"]) == (Segment(0, 1, "a"), Segment(2, 4, "b"))


def test_unknown_activity_names_the_line() -> None:
    names = {1: "walking", 0: None}
    assert labels_of(Path("x"), np.array([1.0, 0.0]), names) == ["walking", None]
    with pytest.raises(InputError, match=r"x:2: unknown activity 7.0; known: 1, 0"):
        labels_of(Path("x"), np.array([1.0, 7.0]), names)


# --- readers --------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [None, ","])
def test_table(tmp_path: Path, delimiter: str | None) -> None:
    path = tmp_path / "numbers.txt"
    text = "1 2 3\n4 NaN -6e-1\n"
    path.write_text(text if delimiter is None else text.replace(" ", delimiter))
    np.testing.assert_array_equal(table(path, 3, delimiter), [[1, 2, 3], [4, np.nan, -0.6]])
    np.testing.assert_array_equal(table(path, 3, delimiter, use=[2, 0]), [[3, 1], [-0.6, 4]])
    data = path.read_bytes()
    assert table(tmp_path / "archive.zip", 3, delimiter, data=data).shape == (2, 3)


@pytest.mark.parametrize("delimiter", [None, ","])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n4 5\n7 8 9\n", ":2: 2 columns; expected 3"),
        ("1 2 3 4\n5 6 7 8\n", ":1: 4 columns; expected 3"),
        ("1 2 3\n\n4 x 6\n", ":3: column 2 is 'x'; expected a number"),
        ("", ": holds no data"),
        ("\n\n", ": holds no data"),
    ],
)
def test_table_names_file_and_line(
    tmp_path: Path, delimiter: str | None, text: str, message: str
) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text(text if delimiter is None else text.replace(" ", delimiter))
    with pytest.raises(InputError) as caught:
        table(path, 3, delimiter)
    assert str(caught.value) == f"{path}{message}"


def test_missing_file_is_named(tmp_path: Path) -> None:
    for delimiter in (None, ","):
        with pytest.raises(InputError, match=r"gone\.txt: cannot be read"):
            table(tmp_path / "gone.txt", 3, delimiter)
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read"):
        csv_columns(tmp_path / "gone.csv", {"x": float})


def test_csv_columns(tmp_path: Path) -> None:
    path = tmp_path / "named.csv"
    path.write_text('"","who","x","ns"\n0,ann,1.5,1600000000000000001\n1,null,NaN,2\n')
    found = csv_columns(path, {"x": float, "who": str, "ns": int})
    np.testing.assert_array_equal(found["x"], [1.5, np.nan])
    assert found["who"].tolist() == ["ann", "null"]
    assert found["ns"].tolist() == [1600000000000000001, 2]
    found = csv_columns(path, {"a": int, "b": str}, ";", header=False, data=b"7;x\n8;y\n")
    assert (found["a"].tolist(), found["b"].tolist()) == ([7, 8], ["x", "y"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,x\n1,2\n3,y\n", r":3: column 2 is 'y'; expected a number"),
        ("t,x\n1,2\n3\n", r":3: 1 columns; expected 2"),
        ("t,z\n1,2\n", r":1: no column x; found: t, z"),
        ("", r":1: no column t, x; found: "),
    ],
)
def test_csv_columns_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "named.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        csv_columns(path, {"t": float, "x": float})


# --- the corpus folder ----------------------------------------------------------------------


def test_written_corpus_is_read_by_evaluation_and_training(tmp_path: Path) -> None:
    texts = (Text(0, 100, "they walk to the door", "narration"),)
    one, two = made(), made(placement="chest", rate_hz=100.0, texts=texts)
    summary = written(made_dataset(one, two), tmp_path)

    assert summary.folder == tmp_path / "corpora" / "mini"
    assert (summary.recordings, summary.subjects, summary.texts) == (2, 1, 1)
    assert summary.placements == {"wrist": 1, "chest": 1}
    assert summary.hours == pytest.approx(40 / 3600)
    assert summary.label_minutes == pytest.approx({"walking": 1 / 3, "lying": 1 / 3})

    corpus = read_corpus(summary.folder)
    assert corpus.role == "train"
    assert (corpus.info["acc_step"], corpus.info["gyro_step"]) == (0.005, 0.001)
    assert corpus.info["imported_by"] == "edge-train import"
    assert corpus.info["skipped"] == [{"what": "no gyroscope", "count": 3, "first": "chest.csv"}]
    first, second = corpus.recordings()
    np.testing.assert_allclose(first.samples.acc_mps2, one.acc_mps2, atol=0.0026)
    np.testing.assert_allclose(second.samples.gyro_rads, two.gyro_rads, atol=0.00051)
    assert first.segments == one.segments
    assert second.texts == texts

    with Progress(disable=True) as progress:
        windows = load_windows(summary.folder, tmp_path / "cache", progress)
    assert set(windows.placement.tolist()) == {"wrist", "chest"}
    assert np.abs(np.nanmean(np.asarray(windows.imu, np.float32)[:, 2]) - 9.8) < 0.2


def test_a_recording_without_a_gyroscope_stays_without_one(tmp_path: Path) -> None:
    summary = written(made_dataset(made(), made(gyro_rads=None)), tmp_path)
    with_gyro, without = read_corpus(summary.folder).recordings()
    assert with_gyro.samples.gyro_rads is not None
    assert without.samples.gyro_rads is None
    with Progress(disable=True) as progress:
        windows = load_windows(summary.folder, tmp_path / "cache", progress)
    assert np.isnan(windows.imu[windows.recording == 1, 3:]).all()
    assert np.isfinite(windows.imu[windows.recording == 0, 3:, :200]).all()


def test_corpus_without_texts_has_no_file_of_them(tmp_path: Path) -> None:
    names = {p.name for p in written(made_dataset(made()), tmp_path).folder.iterdir()}
    assert names == {
        "corpus.json",
        "recordings.parquet",
        "samples.parquet",
        "segments.parquet",
    }


def test_steps_grow_with_the_range(tmp_path: Path) -> None:
    strong = made()
    strong.acc_mps2[5] = [-250.0, 0, 0]
    strong.gyro_rads[7] = [0, 34.9, 0]
    summary = written(made_dataset(strong), tmp_path)
    assert summary.acc_step == pytest.approx(0.00765)
    assert summary.gyro_step == pytest.approx(0.00107)
    (recording,) = read_corpus(summary.folder).recordings()
    assert recording.samples.acc_mps2[5, 0] == pytest.approx(-250, abs=0.004)


def test_a_few_spikes_are_clipped_and_told(tmp_path: Path) -> None:
    spiky = made()
    spiky.gyro_rads[7] = [0, 5000.0, 0]
    summary = written(made_dataset(spiky), tmp_path)
    assert ("sample with turn rate above 60 rad/s, clipped", 1, Path("made.csv")) in summary.skipped


def test_short_recordings_are_left_out_and_told(tmp_path: Path) -> None:
    summary = written(made_dataset(made(), made(seconds=0.9, segments=())), tmp_path)
    assert summary.recordings == 1
    assert ("recording shorter than 1 s", 1, Path("made.csv")) in summary.skipped


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"acc_mps2": walk(20, 50).acc_mps2 / 9.80665}, "reads 1.* 8.3 to 11.3.* are in g"),
        ({"acc_mps2": walk(20, 50).acc_mps2 - [0, 0, 9.8]}, "gravity was removed"),
        ({"acc_mps2": walk(20, 50).acc_mps2 * 9.80665}, "in m/s.2 already"),
        ({"acc_mps2": walk(20, 50).acc_mps2 * 102}, "made.csv: 1000 of 1000.* mg or raw counts"),
        ({"gyro_rads": np.full((1000, 3), 90.0)}, "made.csv: 1000 of 1000.* deg/s or raw counts"),
        ({"gyro_rads": np.zeros((999, 3))}, r"made.csv: accelerometer \(1000, 3\)"),
        ({"gyro_rads": np.full((1000, 3), np.nan)}, "made.csv: sample 0 of 1000 holds no number"),
        ({"rate_hz": 5.0}, "made.csv: 5 Hz; expected 10 to 1000 Hz"),
        ({"segments": (Segment(0, 1001, "x"),)}, "made.csv: Segment.* outside .* 1000 samples"),
        ({"texts": (Text(9, 9, "x", "narration"),)}, "made.csv: Text.* is empty"),
    ],
)
def test_implausible_recordings_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        written(made_dataset(made(**changes)), tmp_path)
    assert list((tmp_path / "corpora").iterdir()) == []


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recording of Mini.*(.|\n)*The shared framework"):
        written(made_dataset(), tmp_path)
    with Progress(disable=True) as progress, pytest.raises(InputError, match="no such folder"):
        write_corpus(made_dataset(made()), tmp_path / "gone", tmp_path, progress)


def test_a_corpus_of_the_same_name_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    written(made_dataset(made()), tmp_path)
    assert written(made_dataset(made(), made()), tmp_path).recordings == 2
    folder = tmp_path / "corpora" / "mini"
    assert [p.name for p in folder.parent.iterdir()] == ["mini"]

    with pytest.raises(InputError, match=r"made\.csv: 5 Hz"):
        written(made_dataset(made(rate_hz=5.0)), tmp_path)
    assert len(read_corpus(folder)) == 2  # as it was before the import that failed

    for content in ('{"name": "other"}', "no JSON", "[]"):
        (folder / "corpus.json").write_text(content)
        with pytest.raises(InputError, match="is not a corpus 'mini'"):
            written(made_dataset(made()), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "corpora").write_text("a file")
    with pytest.raises(AuraError, match="corpora"):
        written(made_dataset(made()), tmp_path)


# --- the registry ---------------------------------------------------------------------------


def test_unknown_data_set_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="no data set 'imagenet'; there are: pamap2, hapt"):
        dataset("imagenet")


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_it_is(name: str) -> None:
    pytest.importorskip(f"training.importers.{name}")
    found = dataset(name)
    assert found.name == name
    assert found.role in ("train", "benchmark")
    assert ("benchmark" in DATASETS[name]) == (found.role == "benchmark")
    assert all((found.title, found.cite, found.licence, found.units))
    json.dumps(found.note)


@pytest.mark.parametrize(
    "name", ["pamap2", "hapt", "uci_har", "motionsense", "mhealth", "wisdm", "dsads"]
)
def test_every_label_is_in_the_bank(name: str) -> None:
    module = import_module(f"training.importers.{name}")
    table = module.LABELS if name == "hapt" else module._LABELS
    labels = [x for x in (table.values() if isinstance(table, dict) else table) if x is not None]
    bank = {activity.name for activity in label_bank()}
    assert [x for x in labels if activity_of(x).name not in bank] == []
