"""Text -> window retrieval: the measures by hand-made rankings, chance by drawing, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.corpus import read_corpus
from edge.labels import resolve_labels
from edge.pipeline import Pipeline
from edge.retrieval import MEASURES, Gallery, chance, embed_corpus, main, measures, retrieval
from edge.zeroshot import LabelSet


def ranked(n: int, *right_at: int) -> np.ndarray:
    """A ranking of `n` windows, those at the ranks named (from 1) right."""
    right = np.zeros(n, bool)
    right[[rank - 1 for rank in right_at]] = True
    return right


def named(values: list[float]) -> dict[str, float]:
    return dict(zip(MEASURES, values, strict=True))


def test_the_first_right_window_decides_recall_and_reciprocal_rank() -> None:
    found = named(measures(ranked(100, 4, 60)))
    assert (found["recall@1"], found["recall@10"], found["recall@50"]) == (0, 1, 1)
    assert found["mrr"] == 1 / 4
    assert named(measures(ranked(100, 51)))["recall@50"] == 0


def test_precision_can_reach_one_whatever_the_number_of_right_windows() -> None:
    assert named(measures(ranked(100, 1, 2, 3)))["precision@10"] == 1
    few = named(measures(ranked(100, 1, 20, 30, 70)))
    assert few["precision@10"] == 1 / 4
    assert few["precision@50"] == 3 / 4
    many = named(measures(ranked(100, *range(2, 90))))
    assert many["precision@10"] == 9 / 10
    assert many["precision@50"] == 49 / 50


@pytest.mark.parametrize(("n", "n_right"), [(30, 4), (8, 1), (60, 55), (5, 5), (1, 1)])
def test_chance_is_the_mean_of_random_orders(n: int, n_right: int) -> None:
    rng = np.random.default_rng(1)
    right = ranked(n, *range(1, n_right + 1))
    drawn = np.array([measures(rng.permutation(right)) for _ in range(4000)])
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - chance(n, n_right)) <= 4 * error + 1e-12)


def queries(n: int) -> LabelSet:
    """`n` labels, each an axis of space."""
    names = tuple(f"label {i}" for i in range(n))
    return LabelSet(names, np.eye(n, dtype=np.float32), ("test",) * n)


def at(*axes: int, n: int = 3) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[list(axes)]


def test_labels_weigh_the_same_and_subjects_are_asked_for_what_they_did() -> None:
    galleries = {
        # Two labels, all found; and the third never done, so it is not asked for.
        "a": Gallery(at(0, 0, 1), np.array([0, 0, 1])),
        # Their windows are where the other label's text is: each finds the wrong one first.
        "b": Gallery(at(1, 0), np.array([0, 1])),
    }
    result = retrieval(galleries, queries(3))
    assert (result["n_windows"], result["n_subjects"]) == (5, 2)
    assert list(result["per_label"]) == ["label 0", "label 1"]
    assert result["per_label"]["label 0"]["n_windows"] == 3
    assert result["per_label"]["label 0"]["mean"]["recall@1"] == 0.5
    assert result["mean"]["recall@1"] == 0.5
    assert result["mean"]["mrr"] == pytest.approx((1 + 1 / 2) / 2)
    assert result["chance"]["recall@1"] == pytest.approx(((2 / 3 + 1 / 2) + (1 / 3 + 1 / 2)) / 4)
    assert result["interval"]["recall@1"] == [0, 1], "some draws have one subject alone"
    # One gallery: each label's first is one of its own three or two windows (ties keep order).
    assert result["whole"]["mean"]["recall@1"] == 1
    assert result["whole"]["chance"]["recall@1"] == pytest.approx((3 / 5 + 2 / 5) / 2)


def test_windows_are_those_of_the_streaming_path(bundle: Bundle, corpus: Path) -> None:
    mapping = {"walking": "walking", "lying": "lying"}
    labels = resolve_labels(["walking", "lying"], bundle)
    galleries = embed_corpus(bundle, labels, read_corpus(corpus), mapping)
    assert list(galleries) == ["s0", "s1", "s2"]
    assert galleries["s1"].labels.tolist() == [0, 0, 0, 1, 1], "12 s and 8 s at 2.5 s hop"
    recording = list(read_corpus(corpus).recordings())[1]
    spans = iter([(500, 1500), (3000, 4000)])
    pipeline = Pipeline(bundle, labels, spans)
    predictions = pipeline.push(recording.samples) + pipeline.finish()
    for row, prediction in zip((1, 3), predictions, strict=True):
        assert prediction.embedding is not None
        np.testing.assert_array_equal(galleries["s1"].embeddings[row], prediction.embedding)
    only = embed_corpus(bundle, labels, read_corpus(corpus), {"lying": "lying"})
    assert only["s0"].labels.tolist() == [1, 1]


def test_the_command(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = tmp_path / "labels.json"
    mapping.write_text(json.dumps({"walking": "strolling", "lying": "lying"}))
    assert main(["--corpus", str(corpus), "--labels", str(mapping), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["per_label"]) == ["strolling", "lying"]
    assert result["n_windows"] == 15
    low, high = result["interval"]["mrr"]
    assert 0 < low <= result["mean"]["mrr"] <= high <= 1

    assert main(["--corpus", str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert "2 queries, 15 windows of 3 subjects" in printed
    assert "walking" in printed and "chance" in printed

    assert main(["--corpus", str(tmp_path / "nowhere")]) == 2
    assert "corpus.json: missing" in capsys.readouterr().err
