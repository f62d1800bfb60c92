"""Training: the loss by hand, learning on a tiny corpus, resuming, and what is refused."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import training.train
from firmware_bridge.errors import InputError
from tests.conftest import write_corpus
from training.train import (
    TrainConfig,
    config_of,
    load_checkpoint,
    main,
    symmetric_infonce,
    train,
)

QUIET = Console(file=io.StringIO())


def fit(config: TrainConfig, out: Path, resume: bool = False) -> dict[str, object]:
    return load_checkpoint(train(config, out, out.parent / "cache", resume, QUIET))


def test_the_loss_of_a_worked_example() -> None:
    """Two windows on their captions' axes, scale 2: each row's softmax is e^2 / (e^2 + 1)."""
    eye = torch.eye(2)
    loss = symmetric_infonce(eye, eye, torch.tensor([0, 1]), torch.tensor(2.0))
    assert loss.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 1)))


def test_windows_of_one_activity_are_not_each_others_negatives() -> None:
    """Both windows say the same: either caption is right for either, so the best loss is the
    entropy of an even choice, and pulling them apart cannot lower it."""
    together = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    apart = torch.eye(2)
    same = torch.tensor([7, 7])
    scale = torch.tensor(5.0)
    at_best = symmetric_infonce(together, together, same, scale)
    assert at_best.item() == pytest.approx(math.log(2))
    assert symmetric_infonce(apart, apart, same, scale) > at_best
    assert symmetric_infonce(apart, apart, torch.tensor([0, 1]), scale) < at_best


def test_the_loss_is_symmetric() -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    activity, scale = torch.tensor([0, 1, 1, 2, 0]), torch.tensor(3.0)
    forward, backward = (symmetric_infonce(x, y, activity, scale) for x, y in ((a, b), (b, a)))
    assert forward.item() == pytest.approx(backward.item())


def test_training_learns_to_tell_walking_from_lying(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    lines = io.StringIO()
    checkpoint = train(
        tiny_config, tmp_path / "run", tmp_path / "cache", False, Console(file=lines)
    )
    state = load_checkpoint(checkpoint)
    assert config_of(state) == tiny_config
    assert state["step"] == 40 and state["provenance"]["corpora"] == ["mini"]
    assert state["provenance"]["activities"] == ["lying", "walking"]
    final = float(lines.getvalue().split("loss ")[-1].split()[0])
    assert final < 2.3  # log(8): the loss when each of 16 windows has 8 positives, no negatives


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, steps=3)
    a, b = fit(config, tmp_path / "a"), fit(config, tmp_path / "b")
    c = fit(replace(config, seed=1), tmp_path / "c")
    weight = "project.weight"
    assert torch.equal(a["model"][weight], b["model"][weight])
    assert not torch.equal(a["model"][weight], c["model"][weight])


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_config, steps=8)
    whole = fit(config, tmp_path / "whole")
    monkeypatch.setattr(training.train, "CHECKPOINT_EVERY_STEPS", 4)
    calls = 0
    loss_of = training.train.symmetric_infonce

    def break_off(*args: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return loss_of(*args)

    monkeypatch.setattr(training.train, "symmetric_infonce", break_off)
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "broken")
    assert load_checkpoint(tmp_path / "broken" / "checkpoint.pt")["step"] == 4
    resumed = fit(config, tmp_path / "broken", resume=True)
    for name, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][name]), name


def test_resuming_with_another_configuration_is_refused(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, steps=2)
    fit(config, tmp_path / "run")
    with pytest.raises(InputError, match="another configuration"):
        fit(replace(config, batch=8), tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="no checkpoint there"):
        fit(config, tmp_path / "new", resume=True)


def test_a_benchmark_corpus_is_never_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_corpus(tmp_path / "bench", role="benchmark")
    assert main(["fit", str(folder), "--out", str(tmp_path / "run")]) == 2
    assert "never trained on" in " ".join(capsys.readouterr().err.split())


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_checkpoint(path)
