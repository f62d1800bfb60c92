"""What protocols are made of: splits that do not leak, degradations, cells, heads, lessons."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import training.augment
import training.protocols.heads
import training.protocols.workshop
import training.train
from edge.corpus import CorpusRecording, Segment, read_corpus
from firmware_bridge.errors import InputError
from tests.conftest import walk, write_corpus
from tests.training.conftest import HashedText
from tests.training.test_scoring import Oracle
from training.augment_config import AugmentConfig
from training.baselines.forest import FOREST_MODELS
from training.data import HOP_S, labelled_windows
from training.model import EncoderConfig, ImuEncoder
from training.models import MODELS
from training.protocols import options
from training.protocols.cells import Cell, run_cells
from training.protocols.corpora import Library, corpus_digest, read_target, target_of
from training.protocols.degrade import (
    at_rate,
    conditions,
    with_lost_packets,
    without_gyroscope,
)
from training.protocols.heads import fine_tune, forest_head, gravity, linear_head
from training.protocols.labelled import Amount
from training.protocols.placements import heads
from training.protocols.report import Report
from training.protocols.splits import (
    Split,
    check_subjects,
    fraction_per_class,
    held_out_subjects,
    k_per_class,
    random_window_folds,
    subject_folds,
)
from training.protocols.stream import score_streams
from training.protocols.unseen import lesson_without, unseen_activities
from training.protocols.workshop import Lesson, Workshop
from training.run import TrainConfig
from training.scoring import Outcome, embed, label_prototypes, nearest

SUBJECT = np.repeat([f"s{i}" for i in range(7)], 10)
LABEL = np.tile([0, 0, 0, 0, 0, 0, 1, 1, 1, 2], 7)
QUIET = Console(file=io.StringIO())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are no faster on several threads, and far slower where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recording(duration_s: float = 60.0, rate_hz: float = 100.0) -> CorpusRecording:
    samples = walk(duration_s + 1, rate_hz)
    whole = (Segment(0, round(duration_s * rate_hz), "walking"),)
    return CorpusRecording(3, "s0", "day0", "waist", rate_hz, samples, whole)


def test_every_subject_is_tested_on_once_and_never_by_what_it_trained() -> None:
    folds = subject_folds(SUBJECT, 5, seed=0)
    assert len(folds) == 5
    assert sorted(np.concatenate([f.test for f in folds]).tolist()) == list(range(70))
    for fold in folds:
        assert not set(SUBJECT[fold.train]) & set(SUBJECT[fold.test])
        assert len(fold.train) + len(fold.test) == 70
    assert len(subject_folds(SUBJECT, 50, seed=0)) == 7
    assert any(
        not np.array_equal(a.test, b.test)
        for a, b in zip(folds, subject_folds(SUBJECT, 5, seed=1), strict=True)
    )
    with pytest.raises(InputError, match="two subjects"):
        subject_folds(SUBJECT[:10], 5, seed=0)


def test_a_split_that_leaks_is_caught() -> None:
    with pytest.raises(ValueError, match="leaks: s1 would"):
        check_subjects(Split(np.arange(15), np.arange(15, 70)), SUBJECT)
    leaking = random_window_folds(70, 5, seed=0)
    assert sorted(np.concatenate([f.test for f in leaking]).tolist()) == list(range(70))
    assert all(not set(f.train) & set(f.test) for f in leaking)
    for fold in leaking:
        with pytest.raises(ValueError, match="leaks"):
            check_subjects(fold, SUBJECT)


def test_k_windows_of_each_class_are_drawn_from_training_subjects() -> None:
    fold = subject_folds(SUBJECT, 5, seed=0)[0]
    for k in (1, 2, 4):
        rows = k_per_class(fold.train, LABEL, k, np.random.default_rng(0))
        assert len(set(rows.tolist())) == len(rows)
        assert np.bincount(LABEL[rows]).tolist() == [k, k, k]
        assert set(rows.tolist()) <= set(fold.train.tolist())
    few = k_per_class(fold.train, LABEL, 32, np.random.default_rng(0))
    assert np.bincount(LABEL[few]).tolist() == [30, 15, 5]  # all there are: 5 subjects are left
    two = Amount("2 per class", per_class=2)
    drawn = [two.draw(fold.train, LABEL, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_a_fraction_of_each_class_but_at_least_one() -> None:
    rows = fraction_per_class(np.arange(70), LABEL, 0.1, np.random.default_rng(0))
    assert np.bincount(LABEL[rows]).tolist() == [4, 2, 1]
    one = fraction_per_class(np.arange(70), LABEL, 0.001, np.random.default_rng(0))
    assert np.bincount(LABEL[one]).tolist() == [1, 1, 1]


def test_test_subjects_are_some_of_each_corpus() -> None:
    corpora = [np.char.add("a/", SUBJECT), np.char.add("b/", SUBJECT[:20])]
    chosen = held_out_subjects(corpora, 0.25, seed=0)
    assert sum(s.startswith("a/") for s in chosen) == 2
    assert sum(s.startswith("b/") for s in chosen) == 1
    with pytest.raises(InputError, match="only subject"):
        held_out_subjects([SUBJECT[:10]], 0.25, seed=0)


def test_without_gyroscope_every_window_lacks_it() -> None:
    windows = labelled_windows(without_gyroscope(recording()), HOP_S)
    assert len(windows) == len(labelled_windows(recording(), HOP_S)) == 23
    for window, _ in windows:
        assert np.isnan(window.imu[3:]).all() and not np.isnan(window.imu[:3]).any()


def test_packets_are_lost_in_bursts_and_the_first_one_never() -> None:
    whole = recording(duration_s=1200.0)
    for fraction in (0.05, 0.1, 0.2):
        lost = []
        for seed in range(5):
            rest = with_lost_packets(whole, fraction, seed).samples
            assert (
                rest.t_s[0] == whole.samples.t_s[0] and (len(whole.samples) - len(rest)) % 10 == 0
            )
            lost.append(1 - len(rest) / len(whole.samples))
            gaps = np.diff(rest.t_s) > 0.011
            assert 2 <= lost[-1] * len(whole.samples) / 10 / gaps.sum() <= 4  # packets in a burst
        assert np.mean(lost) == pytest.approx(fraction, rel=0.1)
    again = with_lost_packets(whole, 0.1, 0).samples
    assert np.array_equal(again.t_s, with_lost_packets(whole, 0.1, 0).samples.t_s)
    assert len(again) != len(with_lost_packets(whole, 0.1, 1).samples)


def test_a_slower_sensor_sees_the_same_movement_at_the_same_time() -> None:
    fast = recording()
    for rate_hz in (50.0, 25.0, 20.0):
        slow = at_rate(fast, rate_hz)
        t_s = slow.samples.t_s
        assert t_s[0] == 0 and np.allclose(np.diff(t_s), 1 / rate_hz)
        assert slow.segments == fast.segments and slow.rate_hz == fast.rate_hz
        windows = labelled_windows(slow, HOP_S)
        assert len(windows) == 23
        for (window, _), (before, _) in zip(windows, labelled_windows(fast, HOP_S), strict=True):
            steps = np.corrcoef(window.imu[2], before.imu[2])[0, 1]  # 1.8 Hz, and noise
            assert steps > 0.98
    assert at_rate(fast, 100.0) is fast
    odd = at_rate(recording(rate_hz=50.0), 20.0).samples  # 2.5 samples each
    assert np.allclose(np.diff(odd.t_s), 0.05) and np.abs(odd.acc_mps2).max() < 15


def test_conditions_are_those_that_change_something() -> None:
    names = [c.name for c in conditions([50.0, 20.0])]
    assert names[:4] == ["as recorded", "no gyroscope", "25 Hz", "20 Hz"] and "50 Hz" not in names
    assert names[4:] == [f"{p}% of the packets lost" for p in (5, 10, 20)]
    assert [c.random for c in conditions([20.0])] == [False] * 2 + [True] * 3


def test_a_stream_as_recorded_scores_as_its_windows_do(tmp_path: Path) -> None:
    target = target_of(write_corpus(tmp_path / "mini"), None)
    scorable = Library(tmp_path / "cache", QUIET).scorable(target)
    prototypes = label_prototypes(target.labels, HashedText())
    torch.manual_seed(0)
    encoder = ImuEncoder(EncoderConfig(patch_samples=100, width=32, heads=2, blocks=1)).eval()
    said = nearest(embed(encoder, scorable.imu, scorable.rows), prototypes)
    windows = Outcome.of(target.labels, scorable.subject, scorable.truth, said)
    stream = score_streams(encoder, prototypes, target, lambda r: r)
    assert np.array_equal(stream.confusion, windows.confusion) and stream.not_classified == 0
    oracle = Oracle(*prototypes)
    worse = score_streams(oracle, prototypes, target, lambda r: with_lost_packets(r, 0.6, 0))
    assert worse.not_classified > 0
    assert worse.not_classified + worse.total().sum() == windows.total().sum()


def test_finished_cells_are_not_made_again(tmp_path: Path) -> None:
    made = []

    def cell(seed: int) -> Cell:
        def make() -> dict[str, Any]:
            made.append(seed)
            if made == [0, 1]:
                raise KeyboardInterrupt
            return {"value": seed / 3}

        return Cell(f"seed {seed}", {"seed": seed}, make)

    cells = [cell(s) for s in range(3)]
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, tmp_path, QUIET)
    first = run_cells(cells, tmp_path, QUIET)
    assert made == [0, 1, 1, 2]
    assert [d.result for d in first] == [{"value": s / 3} for s in range(3)]
    assert [d.result for d in run_cells(cells, tmp_path, QUIET)] == [d.result for d in first]
    assert made == [0, 1, 1, 2]
    assert len({c.key for c in cells}) == 3
    stored = json.loads((tmp_path / "cells" / f"{cells[1].key}.json").read_text())
    assert stored["facts"] == {"seed": 1} and stored["result"] == {"value": 1 / 3}


def test_a_reports_rows_all_reach_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("toy", "Title", ("a", "b"), {"fact": 1}, ["a note"])
    report.add(("x", "0.5"), {"model": "x"})
    report.add(("y", "0.6"), {"model": "y"})
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        report.add(("z",), {})
    report.write(tmp_path, [])
    stored = json.loads((tmp_path / "results.json").read_text())
    assert [r["model"] for r in stored["rows"]] == ["x", "y"] and stored["fact"] == 1
    table = (tmp_path / "table.md").read_text()
    assert "| x | 0.5 |\n| y | 0.6 |" in table and "* a note" in table
    printed = capsys.readouterr().out
    assert "0.5" in printed and "0.6" in printed and "a note" in printed


def test_names_known_without_torch_are_those_there_are() -> None:
    assert tuple(MODELS) == options.DEEP_MODELS
    assert FOREST_MODELS == options.FORESTS


def test_targets_are_read_with_their_labels(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "mini")
    labels = tmp_path / "two.json"
    labels.write_text('{"walking": "strolling"}')
    target = read_target(f"{folder}:{labels}")
    assert target.name == "mini:two" and target.labels == ("strolling",)
    scorable = Library(tmp_path / "cache", QUIET).scorable(target)
    assert len(scorable.rows) == 9 and set(scorable.truth.tolist()) == {0}
    labels.write_text('{"walking": "walking", "lying": "on foot"}')
    with pytest.raises(InputError, match="mean the same activity"):
        read_target(f"{folder}:{labels}")
    labels.write_text('{"flying": "walking"}')
    with pytest.raises(InputError, match=r"no label 'flying'; it has: lying, walking"):
        read_target(f"{folder}:{labels}")
    with pytest.raises(InputError, match="no such file"):
        read_target(f"{folder}:{tmp_path}/absent.json")
    before = corpus_digest(folder)
    info = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps(info | {"acc_step": 0.02}))
    assert corpus_digest(folder) != before


def test_a_head_learns_and_a_forest_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([0, 2], 20)
    vectors = rng.normal(0, 0.3, (40, 16)).astype(np.float32)
    vectors[:, 0] += np.where(label == 2, 1, -1)
    assert (linear_head(vectors, label, vectors) == label).mean() > 0.95
    assert (forest_head(vectors, label, vectors, 0) == label).mean() > 0.95
    assert linear_head(vectors[:3], label[:3], vectors).tolist() == [0] * 40


def test_fine_tuning_learns_and_leaves_the_encoder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_of(write_corpus(tmp_path / "mini"), None)
    scorable = Library(tmp_path / "cache", QUIET).scorable(target)
    torch.manual_seed(1)
    encoder = ImuEncoder(EncoderConfig(patch_samples=100, width=32, heads=2, blocks=1)).eval()
    monkeypatch.setattr(training.protocols.heads, "LEARNING_RATE", 3e-3)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    prototypes = label_prototypes(target.labels, HashedText())
    tuned = fine_tune(encoder, prototypes, scorable.imu, scorable.rows, scorable.truth, 0, epochs=1)
    said = embed(tuned, scorable.imu, scorable.rows).argmax(1)
    assert (said == scorable.truth).all()
    assert all(torch.equal(v, before[n]) for n, v in encoder.state_dict().items())
    assert not torch.equal(tuned.encoder.state_dict()["project.weight"], before["project.weight"])


def test_a_head_sees_the_direction_of_gravity(tmp_path: Path) -> None:
    """An encoder that gives every window the same embedding, and windows that differ in how the
    device hangs, with noise and a gap."""
    torch.manual_seed(1)
    imu, label = torch.randn(40, 6, 1000), np.repeat([0, 1], 20)
    imu[:20, 2] += 9.8
    imu[20:, 0] += 9.8
    imu[:, :, :300] = torch.nan
    directions = gravity(imu)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(40))
    assert (directions[:20, 2] > 0.99).all() and (directions[20:, 0] > 0.99).all()
    assert torch.equal(gravity(torch.full((1, 6, 1000), torch.nan)), torch.zeros(1, 3))

    class Blind(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = torch.nn.Parameter(torch.ones(8) / 8**0.5)

        def forward(self, imu: torch.Tensor) -> torch.Tensor:
            return self.same.expand(len(imu), -1)

    prototypes = np.eye(2, 8, dtype=np.float32)
    tuned = fine_tune(Blind(), prototypes, imu.numpy(), np.arange(40), label, 0)
    with torch.no_grad():
        assert (tuned(imu).argmax(1).numpy() == label).all()


def test_heads_move_between_placements_on_other_subjects(tmp_path: Path) -> None:
    target = target_of(write_corpus(tmp_path / "mini", n_subjects=4), None)
    scorable = Library(tmp_path / "cache", QUIET).scorable(target)
    scorable = replace(scorable, placement=np.resize(["waist", "wrist"], len(scorable.rows)))
    # At the waist the first axis tells the classes, at the wrist it says the opposite.
    turned = np.where(scorable.placement == "waist", 1, -1)
    vectors = np.zeros((len(scorable.rows), 8), np.float32)
    vectors[:, 0] = turned * np.where(scorable.truth == 1, 1, -1)
    found = heads(scorable, vectors, folds=2, seed=0)
    assert set(found) == {(a, b) for a in ("waist", "wrist") for b in ("waist", "wrist")}
    for (trained, tested), outcome in found.items():
        right = np.trace(outcome.total()) / outcome.total().sum()
        assert right == (1 if trained == tested else 0)


def test_all_models_of_a_seed_see_the_same_windows(
    tmp_path: Path, hashed_text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoders through `fit`, the forests through the workshop."""
    seen: dict[str, list[torch.Tensor]] = {}
    current = ""

    def watch(module: Any) -> None:
        original = module.augment

        def watched(imu: torch.Tensor, *args: Any) -> torch.Tensor:
            out: torch.Tensor = original(imu, *args)
            seen.setdefault(current, []).append(out.clone())
            return out

        monkeypatch.setattr(module, "augment", watched)

    watch(training.train)
    watch(training.protocols.workshop)
    monkeypatch.setattr(training.protocols.workshop, "FOREST_WINDOWS", 16)
    folder = write_corpus(tmp_path / "mini")
    config = TrainConfig(corpora=(), text_encoder="hashed", steps=3, batch=8, device="cpu")
    workshop = Workshop(config, Library(tmp_path / "cache", QUIET), tmp_path / "out", QUIET)
    for current in ("aura-edge", "imu2clip", "random-forest"):
        workshop.recogniser(current, 5, Lesson((folder,)))
    assert [len(batches) for batches in seen.values()] == [3, 3, 2]
    for name in ("imu2clip", "random-forest"):
        for ours, other in zip(seen["aura-edge"], seen[name], strict=False):
            assert torch.equal(torch.nan_to_num(ours), torch.nan_to_num(other))
    other_seed = workshop.facts("aura-edge", 6, Lesson((folder,)))
    assert other_seed != workshop.facts("aura-edge", 5, Lesson((folder,)))
    no_gain = replace(AugmentConfig(), gain=0.0)
    assert workshop.facts("aura-edge", 6, Lesson((folder,)), no_gain) != other_seed


def test_a_model_that_was_trained_before_is_read_again(
    tmp_path: Path, hashed_text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_corpus(tmp_path / "mini")
    config = TrainConfig(corpora=(), text_encoder="hashed", steps=2, batch=8, device="cpu")

    def workshop() -> Workshop:
        return Workshop(config, Library(tmp_path / "cache", QUIET), tmp_path / "out", QUIET)

    first = workshop().recogniser("aura-edge", 0, Lesson((folder,)))
    monkeypatch.setattr(training.protocols.workshop, "fit", None)
    again = workshop().recogniser("aura-edge", 0, Lesson((folder,)))
    assert isinstance(first, torch.nn.Module) and isinstance(again, torch.nn.Module)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_training_that_was_interrupted_goes_on(
    tmp_path: Path, hashed_text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_corpus(tmp_path / "mini")
    config = TrainConfig(corpora=(), text_encoder="hashed", steps=4, batch=8, device="cpu")
    library = Library(tmp_path / "cache", QUIET)

    def encoder(out: str) -> dict[str, torch.Tensor]:
        workshop = Workshop(config, library, tmp_path / out, QUIET)
        model = workshop.recogniser("aura-edge", 0, Lesson((folder,)))
        assert isinstance(model, torch.nn.Module)
        return dict(model.state_dict())

    whole = encoder("whole")
    monkeypatch.setattr(training.train, "CHECKPOINT_EVERY_STEPS", 1)
    original, calls = training.augment.augment, 0

    def interrupted(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(training.train, "augment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encoder("broken")
    resumed = encoder("broken")
    assert calls == 3 + 2  # steps 3 and 4
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_what_is_unseen_and_who_is_tested_on_cannot_be_drawn(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "mini")
    library = Library(tmp_path / "cache", QUIET)
    lesson = lesson_without([folder], library, ("walking",), frozenset({"mini/s1"}))
    windows = library.windows(folder, "train")
    assert lesson.keep is not None
    drawn = set(zip(windows.subject[lesson.keep], windows.label[lesson.keep], strict=True))
    lying = windows.labels.index("lying")
    assert drawn == {("mini/s0", lying), ("mini/s2", lying)}


def test_composites_are_held_out_with_their_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_corpus(tmp_path / "mini")
    rename(folder, {"lying": "jogging or cycling"})
    library = Library(tmp_path / "cache", QUIET)
    lesson = lesson_without([folder], library, ("jogging",), frozenset())
    windows = library.windows(folder, "train")
    assert lesson.keep is not None
    assert {windows.labels[i] for i in windows.label[lesson.keep]} == {"walking"}


def rename(folder: Path, new: dict[str, str]) -> None:
    """Give the labels of a corpus other names."""
    from pyarrow import parquet

    path = folder / "segments.parquet"
    table = parquet.read_table(path)
    labels = [new.get(label, label) for label in table["label"].to_pylist()]
    parquet.write_table(table.set_column(3, "label", [labels]), path)
    assert read_corpus(folder).name


def test_the_unseen_activities_are_given_or_drawn() -> None:
    names = [f"activity {i}" for i in range(10)]
    drawn = unseen_activities(None, 0.2, names, 0)
    assert len(drawn) == 2 and drawn == unseen_activities(None, 0.2, names, 0)
    assert len({unseen_activities(None, 0.2, names, s) for s in range(5)}) > 1
    own = ["climbing stairs", "lying", "walking"]
    assert unseen_activities("walking upstairs, lying", 0.2, own, 0) == tuple(own[:2])
    with pytest.raises(InputError, match="no corpus has flying"):
        unseen_activities("flying", 0.2, names, 0)
    with pytest.raises(InputError, match="none is left to train on"):
        unseen_activities("activity 0", 0.2, ["activity 0"], 0)
