"""A run's folder: what it records, for whom it is readable, and that resuming keeps it right."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import training.train
from tests.training.test_train import break_off_in_step
from training.run import TrainConfig
from training.run_folder import METRICS, RunFolder, read_metrics
from training.train import train

QUIET = Console(file=io.StringIO())


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: tag -> step -> value."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_a_run_records_what_it_is_and_how_it_went(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_config, steps=25)
    out = tmp_path / "run"
    train(config, out, tmp_path / "cache", False, QUIET)
    said = json.loads((out / "config.json").read_text())
    assert said["config"] == json.loads(json.dumps(asdict(config)))
    assert said["versions"]["torch"] == torch.__version__ and said["git_revision"]
    assert said["processes"] == 1 and "processor" in said["device"]
    (corpus,) = said["corpora"]
    assert corpus["name"] == "mini" and corpus["cache"].startswith("mini-")
    rows = read_metrics(out)
    assert [row["step"] for row in rows] == [10, 20, 25]
    assert all(set(row) == {"step", *METRICS} for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["windows_per_s"] > 0
    assert rows[-1]["learning_rate"] < config.learning_rate
    seen = scalars(out)
    assert set(seen) == set(METRICS)
    assert seen["loss"] == pytest.approx({row["step"]: row["loss"] for row in rows})
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    names = {p.name.split(".")[0] for p in out.iterdir()}
    assert names == {"config", "metrics", "events", "curves", "checkpoint"}


def test_resuming_continues_the_record_without_the_steps_that_come_again(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_config, steps=9)
    whole, broken, cache = tmp_path / "whole", tmp_path / "broken", tmp_path / "cache"
    monkeypatch.setattr(training.train, "METRICS_EVERY_STEPS", 2)
    monkeypatch.setattr(training.train, "CHECKPOINT_EVERY_STEPS", 4)
    train(config, whole, cache, False, QUIET)
    break_off_in_step(8, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(config, broken, cache, False, QUIET)
    assert [row["step"] for row in read_metrics(broken)] == [2, 4, 6]  # the checkpoint is of 4
    train(config, broken, cache, True, QUIET)

    def learned(folder: Path) -> list[tuple[float, ...]]:
        fields = ("step", "loss", "learning_rate", "logit_scale")
        return [tuple(row[f] for f in fields) for row in read_metrics(folder)]

    assert learned(broken) == learned(whole)
    assert list(scalars(broken)["loss"]) == [2, 4, 6, 8, 9]
    said = json.loads((broken / "config.json").read_text())
    assert [again["step"] for again in said["resumed"]] == [4]


def test_a_new_run_replaces_the_record_of_an_old_one(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        with RunFolder(tmp_path, {}, None) as folder:
            folder.log(10, dict.fromkeys(METRICS, loss))
    assert [row["loss"] for row in read_metrics(tmp_path)] == [2.0]
    assert scalars(tmp_path)["loss"] == {10: 2.0}


def test_a_line_that_was_broken_off_is_no_metric(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n{"step": 2')
    assert read_metrics(tmp_path) == [{"step": 10}]
