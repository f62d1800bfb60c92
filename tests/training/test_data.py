"""Windows of corpora: cut by the runtime's code, cached, cleaned, with labels or sentences."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

import training.data
from edge.corpus import CorpusRecording, Text, read_corpus
from edge.resample import Resampler
from edge.window import WindowCutter
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples
from tests.conftest import write_corpus
from training.captions import activity_of, compatible, sentence
from training.data import (
    HOP_S,
    Purpose,
    WindowSet,
    labelled_windows,
    load_windows,
    sentence_windows,
)


def load(folder: Path, cache: Path, purpose: Purpose = "train") -> WindowSet:
    with Progress(disable=True) as progress:
        return load_windows(folder, cache, progress, purpose)


def relabel(folder: Path, renamed: dict[str, str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(folder / "segments.parquet")
    labels = [renamed.get(name, name) for name in table["label"].to_pylist()]
    index = table.column_names.index("label")
    parquet.write_table(table.set_column(index, "label", [labels]), folder / "segments.parquet")


def write_texts(folder: Path, rows: list[tuple[int, int, int, str, str]]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    columns = zip(*rows, strict=True)
    names = ("recording", "start", "stop", "text", "kind")
    values: dict[str, list[Any]] = dict(zip(names, map(list, columns), strict=True))
    parquet.write_table(table(values), folder / "texts.parquet")


def recording_of(folder: Path, *texts: Text) -> CorpusRecording:
    return replace(next(read_corpus(folder).recordings()), texts=texts)


def starts_s(recording: CorpusRecording) -> list[tuple[float, str]]:
    return [(w.start / 200, text.text) for w, text in sentence_windows(recording, HOP_S)]


def test_the_cache_holds_the_runtimes_own_windows(corpus: Path, tmp_path: Path) -> None:
    windows = load(corpus, tmp_path / "cache")
    assert len(windows) == 3 * (3 + 2) and windows.labels == ("lying", "walking")
    first = next(read_corpus(corpus).recordings())
    cut = labelled_windows(first, HOP_S)
    assert [label for _, label in cut] == ["walking"] * 3 + ["lying"] * 2
    for row, (window, _) in enumerate(cut):
        np.testing.assert_allclose(windows.imu[row], window.imu, rtol=1e-3, atol=1e-3)
    assert set(windows.subject) == {"mini/s0", "mini/s1", "mini/s2"}
    assert set(windows.placement) == {"waist"}
    assert windows.recording.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_the_cache_is_used_until_the_corpus_changes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = []
    cut = training.data._cut
    monkeypatch.setattr(training.data, "_cut", lambda *a: (cuts.append(a), cut(*a)))
    load(corpus, tmp_path / "cache")
    load(corpus, tmp_path / "cache")
    assert len(cuts) == 1
    (corpus / "segments.parquet").touch()
    load(corpus, tmp_path / "cache")
    assert len(cuts) == 2
    write_texts(corpus, [(0, 0, 250, "a person walks", "narration")])
    load(corpus, tmp_path / "cache")
    assert len(cuts) == 3
    info = json.loads((corpus / "corpus.json").read_text())
    (corpus / "corpus.json").write_text(json.dumps(info | {"acc_step": 0.02}))
    windows = load(corpus, tmp_path / "cache")
    assert len(cuts) == 4
    still = windows.imu[windows.label == windows.labels.index("lying")]
    np.testing.assert_allclose(np.median(still[:, 0]), 2 * 9.81, atol=0.1)


def test_a_benchmark_corpus_is_read_for_scoring_only(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "bench", role="benchmark")
    with pytest.raises(InputError, match="never trained on"):
        load(folder, tmp_path / "cache")
    scored = load(folder, tmp_path / "cache", "score")
    assert len(scored) == 15 and scored.corpus == "bench"
    trained = write_corpus(tmp_path / "mini")
    np.testing.assert_array_equal(
        load(trained, tmp_path / "cache", "score").imu, load(trained, tmp_path / "cache").imu
    )


def test_a_corpus_without_labels_gives_no_windows(corpus: Path, tmp_path: Path) -> None:
    relabel(corpus, {"walking": "null", "lying": "null"})
    windows = load(corpus, tmp_path / "cache")
    assert len(windows) == 0 and windows.labels == () and windows.imu.shape == (0, 6, 1000)
    assert windows.activities == () and windows.without_still_noise().shape == (0,)


def test_still_windows_under_a_moving_label_are_noise(corpus: Path, tmp_path: Path) -> None:
    relabel(corpus, {"lying": "climbing stairs"})
    windows = load(corpus, tmp_path / "cache")
    keep = windows.without_still_noise()
    stairs = windows.labels.index("climbing stairs")
    assert not keep[windows.label == stairs].any() and keep[windows.label != stairs].all()


@pytest.mark.parametrize(
    ("label", "kept"), [("sitting or jogging", True), ("walking/jogging", False)]
)
def test_still_windows_fit_a_composite_one_part_of_which_is_still(
    corpus: Path, tmp_path: Path, label: str, kept: bool
) -> None:
    relabel(corpus, {"lying": label})
    windows = load(corpus, tmp_path / "cache")
    keep = windows.without_still_noise()
    assert (keep[windows.label == windows.labels.index(label)] == kept).all()


def test_sentences_are_labels_of_another_kind(corpus: Path, tmp_path: Path) -> None:
    commentary = "The wearer lies well and does not move, sitting, or standing."
    write_texts(
        corpus,
        [
            (0, 100, 150, "walking", "narration"),
            (0, 900, 950, commentary, "expert commentary"),
            (1, 900, 950, commentary, "expert commentary"),
            (2, 0, 100, "  ", "narration"),
        ],
    )
    windows = load(corpus, tmp_path / "cache")
    assert windows.labels == (commentary, "lying", "walking", "walking")
    assert windows.kinds == ("expert commentary", "label", "label", "narration")
    assert Counter(windows.label.tolist()) == {0: 2, 1: 6, 2: 9, 3: 1}
    assert windows.activities == (
        sentence(commentary),
        activity_of("lying"),
        activity_of("walking"),
        sentence("walking"),
    )
    assert windows.without_still_noise().all()  # also where the commentary's windows are still
    for row in np.flatnonzero(windows.label == 0):
        acc = windows.imu[row, :3].astype(np.float32)
        assert np.linalg.norm(acc, axis=0).std() < training.data.STILL_MPS2


def test_a_short_texts_window_has_it_in_the_middle(corpus: Path) -> None:
    recording = recording_of(corpus, Text(500, 600, "turns", "narration"))  # 10 to 12 s
    ((window, text),) = sentence_windows(recording, HOP_S)
    assert (window.start / 200, window.stop / 200, text.text) == (8.5, 13.5, "turns")
    resampler, cutter = Resampler(), WindowCutter(iter([(1700, 2700)]))
    blocks = resampler.push(recording.samples) + resampler.finish()
    (expected,) = [w for block in blocks for w in cutter.push(block)]
    np.testing.assert_array_equal(window.imu, expected.imu)


def test_windows_of_texts_stay_inside_the_recording(corpus: Path) -> None:
    texts = (Text(0, 50, "begins", "narration"), Text(1149, 1150, "ends", "narration"))
    assert starts_s(recording_of(corpus, *texts)) == [(0.0, "begins"), (18.0, "ends")]


def test_a_long_text_gives_windows_every_hop_inside(corpus: Path) -> None:
    texts = (
        Text(50, 700, "long", "expert commentary"),  # 1 to 14 s
        Text(175, 425, "five seconds", "expert commentary"),
        Text(300, 350, "short", "narration"),
    )
    assert starts_s(recording_of(corpus, *texts)) == [
        (1.0, "long"),
        (3.5, "long"),
        (3.5, "five seconds"),
        (4.0, "short"),
        (6.0, "long"),
        (8.5, "long"),
    ]


@pytest.mark.parametrize(("n_samples", "n_windows"), [(150, 2), (40, 0)])
def test_a_short_recording_gives_padded_windows(
    corpus: Path, n_samples: int, n_windows: int
) -> None:
    recording = recording_of(corpus, Text(0, 20, "a", "narration"), Text(10, 40, "b", "narration"))
    s = recording.samples
    assert s.gyro_rads is not None
    short = Samples(s.t_s[:n_samples], s.acc_mps2[:n_samples], s.gyro_rads[:n_samples])
    cut = sentence_windows(replace(recording, samples=short), HOP_S)
    assert len(cut) == n_windows
    for window, _ in cut:
        assert (window.start, window.stop) == (0, 600) and window.valid
        assert np.isnan(window.imu[:, 600:]).all()


def test_wisdms_stairs_are_both_ways(tmp_path: Path) -> None:
    """They train neither "climbing stairs" nor, as its negative, "descending stairs"."""

    def stairs(corpus: str) -> WindowSet:
        empty = np.zeros((0, 6, 1000), np.float16)
        none = np.zeros(0, np.int32)
        words = np.zeros(0, np.str_)
        return WindowSet(corpus, empty, none, ("climbing stairs",), ("label",), words, words, none)

    (both,) = stairs("wisdm").activities
    assert compatible(both, activity_of("climbing stairs"))
    assert compatible(both, activity_of("descending stairs"))
    assert stairs("other").activities == (activity_of("climbing stairs"),)
