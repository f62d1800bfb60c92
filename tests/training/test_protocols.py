"""The protocols from end to end, on tiny corpora and with a few steps of training."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import training.protocols.workshop
from edge.bundle import DEFAULT_BUNDLE, load_bundle
from edge.corpus import read_corpus
from edge.evaluate import score
from edge.labels import resolve_labels
from firmware_bridge.errors import InputError
from tests.conftest import REPO, write_corpus
from tests.training.conftest import HashedText
from training.protocols import PROTOCOLS, add_parsers, options, run
from training.protocols.labelled import FOREST
from training.protocols.workshop import Workshop
from training.scoring import Outcome

pytest.importorskip("pyarrow")

QUICK = ("--steps", "2", "--batch", "8", "--device", "cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are no faster on several threads, and far slower where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def fast(hashed_text: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text encoder that needs no packages, and small forests."""
    monkeypatch.setattr(training.protocols.workshop, "load_text_encoder", lambda name: HashedText())
    monkeypatch.setattr(training.protocols.workshop, "FOREST_WINDOWS", 16)
    monkeypatch.setattr("training.baselines.forest.TREES", 5)
    monkeypatch.setattr("training.baselines.forest.BOOSTING_ROUNDS", 2)
    monkeypatch.setattr("training.protocols.heads.TREES", 5)
    monkeypatch.setattr("training.protocols.heads.MIN_STEPS", 2)


@pytest.fixture
def corpora(tmp_path: Path) -> tuple[str, str]:
    """Two training corpora: walking and lying; jogging and lying."""
    first = write_corpus(tmp_path / "one")
    second = write_corpus(tmp_path / "two")
    change(second, "segments", "label", {"walking": "jogging"})
    return str(first), str(second)


def change(folder: Path, table: str, column: str, new: dict[str, str] | list[str]) -> None:
    """Other values in one column of a corpus: other names, or all of them."""
    from pyarrow import parquet

    path = folder / f"{table}.parquet"
    held = parquet.read_table(path)
    old = held[column].to_pylist()
    values = new if isinstance(new, list) else [new.get(value, value) for value in old]
    at = held.column_names.index(column)
    parquet.write_table(held.set_column(at, column, [values]), path)
    assert read_corpus(folder).name == folder.name


def command(*argv: str, console: Console | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers(dest="command"))
    return run(parser.parse_args(argv), console or Console(file=io.StringIO()))


def results(out: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((out / "results.json").read_text())
    table = (out / "table.md").read_text()
    assert table.count("\n| ") == 2 + len(stored["rows"])
    for cell in stored["cells"]:
        assert (out / cell).exists()
    return stored


def test_zero_shot_with_every_model_and_again_without_any_work(
    corpora: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = write_corpus(tmp_path / "bench", role="benchmark")
    labels = tmp_path / "one_label.json"
    labels.write_text('{"walking": "going on foot"}')
    out = tmp_path / "out"
    argv = ("zero-shot", "--train", *corpora, "--on", str(bench), f"{bench}:{labels}",
            "--models", *options.MODELS, "--bundle", str(DEFAULT_BUNDLE), "--seeds", "0", "1",
            *QUICK, "--out", str(out))  # fmt: skip
    assert command(*argv) == 0
    stored = results(out)
    rows = {(r["corpus"], r["model"]) for r in stored["rows"]}
    models = (*options.MODELS, "bundle")
    assert rows == {(c, m) for c in ("bench", "bench:one_label") for m in models}
    for row in stored["rows"]:
        assert row["n_windows"] == (9 if row["corpus"].endswith("label") else 15)
        assert row["role"] == "benchmark" and row["n_subjects"] == 3
        assert 0 <= row["macro_f1"]["ci"][0] <= row["macro_f1"]["ci"][1] <= 1
        assert row["seeds"] == ([None] if row["model"] == "bundle" else [0, 1])
        if row["corpus"].endswith("label"):
            assert row["macro_f1"]["mean"] == 1  # one label: nothing to confuse it with

    before = (out / "results.json").read_bytes()
    monkeypatch.setattr(Workshop, "recogniser", None)
    assert command(*argv) == 0
    assert (out / "results.json").read_bytes() == before


def test_the_bundle_is_scored_as_edge_eval_scores_it(tmp_path: Path) -> None:
    bench = write_corpus(tmp_path / "bench", role="benchmark")
    out = tmp_path / "out"
    assert command("zero-shot", "--on", str(bench), "--models", "bundle", "--out", str(out)) == 0
    bundle = load_bundle(DEFAULT_BUNDLE)
    names = ["lying", "walking"]
    own = {name: name for name in names}
    labels = resolve_labels(names, bundle)
    scored, lost = score(bundle, labels, read_corpus(bench), own, "recording")
    expected = Outcome.of_scored(names, scored, lost)
    stored = results(out)
    cell = json.loads((out / stored["cells"][0]).read_text())
    assert cell["result"] == expected.to_json()


def test_an_interrupted_command_goes_on(
    corpora: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("leave-one-out", *corpora, "--models", "random-init", "--seeds", "0", "1", *QUICK)
    calls = 0
    recogniser = Workshop.recogniser

    def broken(self: Workshop, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return recogniser(self, *args)

    monkeypatch.setattr(Workshop, "recogniser", broken)
    screen = io.StringIO()
    out = tmp_path / "broken"
    assert command(*argv, "--out", str(out), console=Console(file=screen)) == 130
    assert "goes on where it stopped" in screen.getvalue()
    assert len(list((out / "cells").iterdir())) == 2 and not (out / "results.json").exists()
    assert command(*argv, "--out", str(out)) == 0
    assert calls == 3 + 2  # the interrupted one and the one after it
    assert command(*argv, "--out", str(tmp_path / "whole")) == 0
    assert results(out) == results(tmp_path / "whole")


def test_leave_one_out_trains_on_the_others_only(
    corpora: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    lessons = []
    recogniser = Workshop.recogniser

    def watched(self: Workshop, name: str, seed: int, lesson: Any, *args: Any) -> Any:
        lessons.append([folder.name for folder in lesson.folders])
        return recogniser(self, name, seed, lesson, *args)

    monkeypatch.setattr(Workshop, "recogniser", watched)
    models = ("aura-edge", "random-forest")
    assert command("leave-one-out", *corpora, "--models", *models, "--seeds", "0", *QUICK,
                   "--out", str(out)) == 0  # fmt: skip
    assert lessons == [["two"]] * 2 + [["one"]] * 2
    rows = results(out)["rows"]
    assert [(r["corpus"], r["model"]) for r in rows] == [
        (c, m) for c in ("one", "two", "mean") for m in models
    ]
    mean = (rows[0]["macro_f1"]["mean"] + rows[2]["macro_f1"]["mean"]) / 2
    assert rows[4]["macro_f1"]["mean"] == pytest.approx(mean, abs=1e-5)
    with pytest.raises(InputError, match="no corpus three; there are: one, two"):
        command("leave-one-out", *corpora, "--fold", "three", "--out", str(out))


def test_ablate_shares_the_default_with_leave_one_out(
    corpora: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shared = ("--fold", "one", "--seeds", "0", "1", *QUICK, "--out", str(out))
    assert command("leave-one-out", *corpora, "--models", "random-forest", *shared) == 0
    before = set((out / "cells").iterdir())
    assert command("ablate", *corpora, "--model", "random-forest", "--only", "no rotation",
                   "none at all", *shared) == 0  # fmt: skip
    assert len(set((out / "cells").iterdir()) - before) == 2 * 2
    stored = results(out)
    default, *variants = stored["rows"]
    assert default["variant"] == "default" and default["difference"] == 0
    assert [r["variant"] for r in variants] == ["no rotation", "none at all"]
    for row in variants:
        both = zip(row["macro_f1"]["seeds"], default["macro_f1"]["seeds"], strict=True)
        paired = [own - base for own, base in both]
        assert row["difference_of_seeds"] == pytest.approx(paired, abs=1e-5)
        assert row["difference_ci"][0] <= row["difference"] <= row["difference_ci"][1]


def test_unseen_activities_are_scored_among_all(corpora: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ("unseen", *corpora, "--activities", "jogging", "--seeds", "0", *QUICK)
    models = ("aura-edge", "random-forest")
    assert command(*argv, "--models", *models, "--out", str(out)) == 0
    stored = results(out)
    assert stored["unseen"] == ["jogging"] and stored["seen"] == ["lying", "walking"]
    assert len(stored["test_subjects"]) == 2
    assert {s.split("/")[0] for s in stored["test_subjects"]} == {"one", "two"}
    assert [r["model"] for r in stored["rows"]] == list(models)
    for row in stored["rows"]:
        seen, new, both = (row[f"f1_{k}"]["mean"] for k in ("seen", "unseen", "harmonic"))
        assert both == pytest.approx(2 * seen * new / (seen + new) if seen + new else 0, abs=1e-5)
    cell = json.loads((out / stored["cells"][0]).read_text())
    assert set(cell["result"]["by_subject"]) == set(stored["test_subjects"])
    assert cell["result"]["labels"] == ["jogging", "lying", "walking"]


def test_settings_of_a_checkpoint(corpora: tuple[str, str], tmp_path: Path) -> None:
    checkpoint = trained(corpora[1], tmp_path / "run")
    out = tmp_path / "out"
    screen = io.StringIO()
    bench = write_corpus(tmp_path / "bench", role="benchmark")
    argv = ("settings", str(bench), "--checkpoint", str(checkpoint), "--seeds", "0", "1",
            "--folds", "2", "--epochs", "1", "--shots", "1", "2", "--percent", "50", *QUICK,
            "--out", str(out))  # fmt: skip
    assert command(*argv, console=Console(file=screen, width=200)) == 0
    assert "of role 'benchmark'" in screen.getvalue()
    stored = results(out)
    rows = {(r["model"], r["setting"], r["labelled"], r["split"]): r for r in stored["rows"]}
    expected = {("run", "zero-shot", "none", "by subject")}
    for model, setting in (("run", "transfer"), ("run", "fine-tuning"), (FOREST, FOREST)):
        for amount in ("1 per class", "2 per class", "50 %", "all"):
            expected.add((model, setting, amount, "by subject"))
        expected.add((model, setting, "all", "random windows"))
    assert set(rows) == expected
    for (_, _, _, split), row in rows.items():
        assert row["comparable"] is row["subject_disjoint"] is (split == "by subject")
    # Lying and walking differ enough for a head on any features.
    assert rows["run", "transfer", "all", "by subject"]["macro_f1"]["mean"] > 0.9
    assert "random windows (not comparable)" in (out / "table.md").read_text()


def test_settings_of_models_trained_on_the_spot(corpora: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ("settings", corpora[0], "--models", "random-init", "random-forest", "--seeds", "0",
            "--folds", "2", "--shots", "--percent", *QUICK, "--out", str(out))  # fmt: skip
    with pytest.raises(InputError, match="nothing to score"):
        command(*argv)
    with pytest.raises(InputError, match="trained on and scored on"):
        command(*argv, "--train", *corpora)
    assert command(*argv, "--train", corpora[1]) == 0
    settings = {(r["model"], r["setting"]) for r in results(out)["rows"]}
    assert settings == {
        ("random-init", "zero-shot"),
        ("random-init", "transfer"),
        ("random-init", "fine-tuning"),
        ("random-forest", "zero-shot"),
        (FOREST, FOREST),
    }


def test_robustness_of_a_checkpoint(corpora: tuple[str, str], tmp_path: Path) -> None:
    checkpoint = trained(corpora[1], tmp_path / "run")
    worn = write_corpus(tmp_path / "worn", n_sessions=2)
    change(worn, "recordings", "placement", ["waist"] * 3 + ["wrist"] * 3)
    out = tmp_path / "out"
    assert command("robustness", "--checkpoint", str(checkpoint), "--on", str(worn), corpora[1],
                   "--seeds", "0", "1", "--folds", "3", "--device", "cpu",
                   "--out", str(out)) == 0  # fmt: skip
    stored = results(out)
    conditions = ["as recorded", "no gyroscope", "25 Hz", "20 Hz",
                  *(f"{p}% of the packets lost" for p in (5, 10, 20))]  # fmt: skip
    placed = ["zero-shot at the waist", "zero-shot at the wrist",
              "head, worn where it was trained", "head, worn elsewhere"]  # fmt: skip
    shown = [(r["corpus"], r["condition"]) for r in stored["rows"]]
    assert shown == [("worn", c) for c in conditions + placed] + [("two", c) for c in conditions]
    assert any("run was trained on two" in note for note in stored["notes"])
    rows = {r["condition"]: r for r in stored["rows"] if r["corpus"] == "worn"}
    assert rows["as recorded"]["change"] is None and rows["as recorded"]["not_classified"] == 0
    assert len(rows["5% of the packets lost"]["macro_f1"]["seeds"]) == 2
    assert rows["20% of the packets lost"]["not_classified"] > 0
    assert [(p["trained"], p["tested"]) for p in rows["head, worn elsewhere"]["pairs"]] == [
        ("waist", "wrist"),
        ("wrist", "waist"),
    ]


def trained(corpus: str, out: Path) -> Path:
    """A checkpoint of a few steps, made by a protocol's own workshop."""
    from training.protocols.corpora import Library
    from training.protocols.workshop import Lesson
    from training.run import TrainConfig

    console = Console(file=io.StringIO())
    config = TrainConfig(corpora=(), text_encoder="hashed", steps=2, batch=8, device="cpu")
    workshop = Workshop(config, Library(out.parent / "cache", console), out.parent / "w", console)
    workshop.recogniser("aura-edge", 0, Lesson((Path(corpus),)))
    (made,) = (out.parent / "w" / "trained").glob("*/checkpoint.pt")
    out.mkdir()
    return made.rename(out / "checkpoint.pt")


def test_a_benchmark_is_never_trained_on(corpora: tuple[str, str], tmp_path: Path) -> None:
    bench = str(write_corpus(tmp_path / "bench", role="benchmark"))
    out = ("--out", str(tmp_path / "out"))
    for argv in (
        ("zero-shot", "--train", corpora[0], bench, "--on", corpora[1]),
        ("leave-one-out", corpora[0], bench),
        ("ablate", corpora[0], bench),
        ("unseen", corpora[0], bench),
        ("settings", corpora[0], "--train", bench),
    ):
        with pytest.raises(InputError, match="never trained on"):
            command(*argv, *out)
    with pytest.raises(InputError, match="one: trained on and scored on"):
        command("zero-shot", "--train", *corpora, "--on", corpora[0], *out)
    with pytest.raises(InputError, match="no corpus to train aura-edge on"):
        command("zero-shot", "--models", "aura-edge", "--on", corpora[0], *out)


def test_help_answers_without_torch() -> None:
    code = f"""
import sys
for heavy in ("torch", "sklearn", "pyarrow"):
    sys.modules[heavy] = None
import argparse
from training.protocols import add_parsers
parser = argparse.ArgumentParser()
add_parsers(parser.add_subparsers())
for name in {PROTOCOLS!r}:
    try:
        parser.parse_args([name, "--help"])
    except SystemExit as done:
        assert done.code == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in PROTOCOLS:
        assert f"{name} [-h]" in done.stdout
