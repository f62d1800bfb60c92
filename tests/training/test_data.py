"""Windows of corpora: cut by the runtime's code, cached, cleaned, captioned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

import training.data
from edge.corpus import read_corpus
from training.captions import PROMPT_TEMPLATES, activity_of, label_bank
from training.data import labelled_windows, load_windows


def load(folder: Path, cache: Path) -> training.data.WindowSet:
    with Progress(disable=True) as progress:
        return load_windows(folder, cache, progress)


def test_the_cache_holds_the_runtimes_own_windows(corpus: Path, tmp_path: Path) -> None:
    windows = load(corpus, tmp_path / "cache")
    assert len(windows) == 3 * (3 + 2) and windows.labels == ("lying", "walking")
    first = next(read_corpus(corpus).recordings())
    cut = labelled_windows(first, training.data.HOP_S)
    assert [label for _, label in cut] == ["walking"] * 3 + ["lying"] * 2
    for row, (window, _) in enumerate(cut):
        np.testing.assert_allclose(windows.imu[row], window.imu, rtol=1e-3, atol=1e-3)
    assert set(windows.subject) == {"mini/s0", "mini/s1", "mini/s2"}


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


def test_still_windows_under_a_moving_label_are_noise(corpus: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    table = parquet.read_table(corpus / "segments.parquet")
    labels = ["climbing stairs" if name == "lying" else name for name in table["label"].to_pylist()]
    index = table.column_names.index("label")
    parquet.write_table(table.set_column(index, "label", [labels]), corpus / "segments.parquet")
    windows = load(corpus, tmp_path / "cache")
    keep = windows.without_still_noise()
    stairs = windows.labels.index("climbing stairs")
    assert not keep[windows.label == stairs].any() and keep[windows.label != stairs].all()


def test_the_bank_is_well_formed() -> None:
    bank = label_bank()
    assert 500 <= len(bank) <= 1000
    wordings = [activity_of(w).name for a in bank for w in (a.name, *a.aliases)]
    assert wordings == [a.name for a in bank for _ in (a.name, *a.aliases)]  # no word means two


def test_captions_put_every_wording_into_every_template() -> None:
    stairs = activity_of("Ascending_Stairs")
    assert stairs.name == "climbing stairs"
    captions = stairs.captions()
    assert (
        len(captions) == len(set(captions)) == (1 + len(stairs.aliases)) * len(PROMPT_TEMPLATES) + 1
    )
    assert "a person is climbing stairs" in captions and stairs.description in captions


def test_a_label_outside_the_bank_stands_for_itself() -> None:
    assert activity_of("Juggling_Torches").captions()[0] == "juggling torches"
