"""Scores: by hand, against `edge-eval`'s own, and with a recogniser that is always right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from edge.evaluate import Scored, macro_f1, metrics
from edge.zeroshot import prototype
from tests.conftest import write_corpus
from tests.training.conftest import HashedText
from training.captions import activity_of, prompt_templates
from training.model import EncoderConfig, ImuEncoder
from training.protocols.corpora import Library, target_of
from training.scoring import (
    Outcome,
    accuracy,
    embed,
    f1_of_classes,
    harmonic,
    harmonic_mean,
    label_prototypes,
    nearest,
    recall_of_classes,
    seed_interval,
    summarise,
)


class Oracle:
    """Knows lying from walking by how much the acceleration varies."""

    def __init__(self, lying: NDArray[np.float32], walking: NDArray[np.float32]) -> None:
        self._vectors = np.stack([lying, walking])

    def embed(self, imu: NDArray[np.float32]) -> NDArray[np.float32]:
        moves = np.nanstd(imu[:, 2], axis=1) > 0.5
        return np.asarray(self._vectors[moves.astype(int)])


def random_outcome(seed: int, n_subjects: int = 6, n_labels: int = 4) -> Outcome:
    confusion = np.random.default_rng(seed).integers(0, 9, (n_subjects, n_labels, n_labels))
    labels = tuple(f"label{i}" for i in range(n_labels))
    return Outcome(labels, tuple(f"s{i}" for i in range(n_subjects)), confusion)


def scored(outcome: Outcome) -> list[Scored]:
    return [
        Scored(outcome.subjects[s], outcome.labels[t], outcome.labels[p])
        for s, t, p in np.argwhere(outcome.confusion)
        for _ in range(outcome.confusion[s, t, p])
    ]


def test_a_recogniser_that_is_always_right_scores_one(tmp_path: Path) -> None:
    target = target_of(write_corpus(tmp_path / "mini"), None)
    scorable = Library(tmp_path / "cache", Console(quiet=True)).scorable(target)
    prototypes = label_prototypes(target.labels, HashedText())
    assert target.labels == ("lying", "walking")
    embeddings = embed(Oracle(*prototypes), scorable.imu, scorable.rows)
    said = nearest(embeddings, prototypes)
    outcome = Outcome.of(target.labels, scorable.subject, scorable.truth, said)
    f1 = summarise([[outcome]])
    assert (f1.mean, f1.low, f1.high, f1.sd) == (1.0, 1.0, 1.0, None)
    assert outcome.total().sum() == 3 * 5
    wrong = Outcome.of(target.labels, scorable.subject, scorable.truth, 1 - said)
    assert summarise([[wrong]]).mean == 0


def test_one_seed_gives_what_edge_eval_gives() -> None:
    outcome = random_outcome(0)
    expected = metrics(scored(outcome), outcome.labels)
    ours = summarise([[outcome]])
    assert ours.mean == pytest.approx(expected["macro_f1"])
    assert [ours.low, ours.high] == pytest.approx(expected["macro_f1_ci"])
    assert accuracy(outcome.total()) == pytest.approx(expected["accuracy"])
    again = Outcome.of_scored(outcome.labels, scored(outcome), 0)
    assert np.array_equal(again.confusion, outcome.confusion)


def test_seeds_are_averaged_and_resampled_together() -> None:
    seeds = [random_outcome(s) for s in range(3)]
    summary = summarise([seeds])
    values = [macro_f1(o.total()) for o in seeds]
    assert summary.of_seeds == pytest.approx(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    assert summary.low < summary.mean < summary.high
    # One outcome three times is no more certain than once.
    thrice, once = summarise([[seeds[0]] * 3]), summarise([[seeds[0]]])
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    with pytest.raises(ValueError, match="different subjects"):
        summarise([[random_outcome(0, 6), random_outcome(0, 5)]])


def test_folds_of_the_same_people_are_no_new_evidence() -> None:
    outcome = random_outcome(1)
    strangers = Outcome(outcome.labels, tuple("abcdef"), outcome.confusion)
    once = summarise([[outcome]])
    same = summarise([[outcome], [outcome]])
    other = summarise([[outcome], [strangers]])
    assert (same.low, same.high) == pytest.approx((once.low, once.high))
    assert other.high - other.low < 0.9 * (once.high - once.low)


def test_an_outcome_survives_json() -> None:
    outcome = random_outcome(2)
    again = Outcome.from_json(outcome.to_json())
    assert again.labels == outcome.labels and again.subjects == outcome.subjects
    assert np.array_equal(again.confusion, outcome.confusion)


def test_scores_of_some_classes_by_hand() -> None:
    """a: 3 of 4 right, one false alarm from c, F1 6/8. b: none of 2. c: 1 of 2, F1 2/5."""
    confusion = np.array([[3, 0, 1], [0, 0, 2], [1, 0, 1]])
    seen, unseen = np.array([True, True, False]), np.array([False, False, True])
    assert f1_of_classes(seen)(confusion) == pytest.approx((6 / 8 + 0) / 2)
    assert f1_of_classes(unseen)(confusion) == pytest.approx(2 / 6)
    assert f1_of_classes(seen | unseen)(confusion) == pytest.approx(macro_f1(confusion))
    assert recall_of_classes(seen)(confusion) == pytest.approx((3 / 4 + 0) / 2)
    both = harmonic(recall_of_classes(seen), recall_of_classes(unseen))
    assert both(confusion) == pytest.approx(2 * 0.375 * 0.5 / 0.875)
    assert f1_of_classes(np.array([False] * 3))(confusion) == 0


def test_the_harmonic_mean() -> None:
    assert harmonic_mean(0.5, 0.5) == 0.5
    assert harmonic_mean(0.2, 0.6) == pytest.approx(0.3)
    assert harmonic_mean(1.0, 0.0) == 0 and harmonic_mean(0.0, 0.0) == 0


def test_the_interval_over_seeds_of_a_worked_example() -> None:
    """Mean 0.02, standard deviation 0.01, t of 2 degrees of freedom 4.303."""
    interval = seed_interval([0.01, 0.02, 0.03])
    assert interval == pytest.approx((0.02 - 4.303 * 0.01 / 3**0.5, 0.02 + 4.303 * 0.01 / 3**0.5))
    assert seed_interval([0.5]) is None


def test_prototypes_are_those_of_the_runtime() -> None:
    """A label that the bank knows by an alias has its activity's; any other the templates'."""
    encoder = HashedText()
    alias, unknown = label_prototypes(["strolling", "juggling chainsaws"], encoder)
    activity = activity_of("strolling")
    assert activity.name != "strolling"
    assert np.allclose(alias, prototype(activity.captions(), encoder), atol=1e-6)
    templates = [t.format("juggling chainsaws") for t in prompt_templates()]
    assert np.allclose(unknown, prototype(templates, encoder), atol=1e-6)


def test_windows_are_embedded_the_same_one_by_one() -> None:
    torch.manual_seed(0)
    encoder = ImuEncoder(EncoderConfig(patch_samples=100, width=32, heads=2, blocks=1))
    imu = np.random.default_rng(0).normal(size=(300, 6, 1000)).astype(np.float16)
    rows = np.array([299, 3, *range(10, 280)])
    with pytest.raises(ValueError, match="eval mode"):
        embed(encoder.train(), imu, rows)
    vectors = embed(encoder.eval(), imu, rows)
    assert vectors.shape == (272, 512)
    assert np.allclose(vectors[1], embed(encoder, imu, np.array([3]))[0], atol=1e-5)
