"""Training: the loss by hand, learning on a tiny corpus, resuming, and what is refused."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

import training.run
import training.train
from edge.spec import SIGNAL
from firmware_bridge.errors import InputError
from tests.conftest import write_corpus
from tests.training.conftest import HashedText
from training.__main__ import main
from training.batches import TrainingData
from training.captions import activity_of, sentence
from training.data import load_windows
from training.hardware import Hardware
from training.model import ImuEncoder
from training.models import build
from training.run import Run, symmetric_infonce
from training.train import (
    TrainConfig,
    config_of,
    embed_captions,
    fit,
    load_checkpoint,
    train,
)

QUIET = Console(file=io.StringIO())


def checkpoint_of(config: TrainConfig, out: Path, resume: bool = False) -> dict[str, object]:
    return load_checkpoint(train(config, out, out.parent / "cache", resume, QUIET))


def data_of(config: TrainConfig, cache: Path) -> TrainingData:
    with Progress(disable=True) as progress:
        return TrainingData.of([load_windows(Path(c), cache, progress) for c in config.corpora])


def break_off_in_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the user pressed Ctrl+C; once, so that training can go on afterwards."""
    calls = 0
    loss_of = training.run.symmetric_infonce

    def interrupted(*args: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt
        return loss_of(*args)

    monkeypatch.setattr(training.run, "symmetric_infonce", interrupted)


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


def test_a_composite_and_its_parts_are_neither_positives_nor_negatives() -> None:
    """Windows and captions of 0 and 1 leave each other alone: as if each met only the third."""
    torch.manual_seed(0)
    imu, text = (torch.nn.functional.normalize(torch.randn(3, 8), dim=1) for _ in range(2))
    scale = torch.tensor(3.0)
    unsure = torch.zeros(3, 3, dtype=torch.bool)
    unsure[0, 1] = unsure[1, 0] = True
    loss = symmetric_infonce(imu, text, torch.arange(3), scale, unsure)
    logits = 3 * imu @ text.T
    rows = [(0, [0, 2], 0), (1, [1, 2], 0), (2, [0, 1, 2], 2)]
    parts = [
        torch.nn.functional.cross_entropy(similar[at, among], torch.tensor(own))
        for similar in (logits, logits.T)
        for at, among, own in rows
    ]
    torch.testing.assert_close(loss, torch.stack(parts).mean())


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
    console = Console(file=lines, width=200)
    state = load_checkpoint(
        train(tiny_config, tmp_path / "run", tmp_path / "cache", False, console)
    )
    assert config_of(state) == tiny_config
    assert state["step"] == 40 and state["provenance"]["corpora"] == ["mini"]
    assert state["provenance"]["activities"] == ["lying", "walking"]
    final = float(lines.getvalue().split("loss ")[-1].split()[0])
    assert final < 2.3  # log(8): the loss when each of 16 windows has 8 positives, no negatives
    assert "windows/s, limited by" in lines.getvalue().splitlines()[-1]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, steps=3)
    a, b = checkpoint_of(config, tmp_path / "a"), checkpoint_of(config, tmp_path / "b")
    c = checkpoint_of(replace(config, seed=1), tmp_path / "c")
    weight = "project.weight"
    assert torch.equal(a["model"][weight], b["model"][weight])
    assert not torch.equal(a["model"][weight], c["model"][weight])


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_config, steps=8)
    whole = checkpoint_of(config, tmp_path / "whole")
    monkeypatch.setattr(training.train, "CHECKPOINT_EVERY_STEPS", 4)
    break_off_in_step(6, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_of(config, tmp_path / "broken")
    assert load_checkpoint(tmp_path / "broken" / "checkpoint.pt")["step"] == 4
    resumed = checkpoint_of(config, tmp_path / "broken", resume=True)
    for name, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][name]), name
    assert torch.equal(whole["reference"], resumed["reference"])


def test_the_end_of_a_training_leaves_reference_embeddings(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the trained encoder makes of windows as they are, of all corpora and activities."""
    state = checkpoint_of(replace(tiny_config, steps=3), tmp_path / "run")
    reference = state["reference"]
    assert reference.shape == (512, 512) and reference.dtype == torch.float16
    norms = reference.float().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(512), atol=2e-3, rtol=0)
    encoder = ImuEncoder(config_of(state).encoder).eval()
    encoder.load_state_dict(state["model"])
    with Progress(console=QUIET) as progress:
        (windows,) = (
            load_windows(Path(c), tmp_path / "cache", progress) for c in tiny_config.corpora
        )
    with torch.inference_mode():
        own = encoder(torch.from_numpy(np.asarray(windows.imu, np.float32)))
    nearest = (reference.float() @ own.T).max(dim=1)
    assert (nearest.values > 0.999).all() and len(nearest.indices.unique()) > len(own) / 3
    break_off_in_step(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_of(replace(tiny_config, steps=3), tmp_path / "broken")
    assert "reference" not in load_checkpoint(tmp_path / "broken" / "checkpoint.pt")


def test_resuming_otherwise_than_a_run_began_is_refused(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, steps=2)
    checkpoint_of(config, tmp_path / "run")
    with pytest.raises(InputError, match="another configuration"):
        checkpoint_of(replace(config, batch=8), tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="no checkpoint there"):
        checkpoint_of(config, tmp_path / "new", resume=True)
    checkpoint_of(replace(config, device="cpu"), tmp_path / "run", resume=True)  # what auto was
    path = tmp_path / "run" / "checkpoint.pt"
    state = load_checkpoint(path)
    torch.save(state | {"random": state["random"] * 2}, path)
    with pytest.raises(InputError, match=r"on cpu by 2 process\(es\), here are 1 on cpu"):
        checkpoint_of(config, tmp_path / "run", resume=True)


def test_without_a_folder_nothing_is_written_and_the_encoder_comes_back(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    data = data_of(tiny_config, tmp_path / "cache")
    targets = embed_captions(data.activities(), "hashed")
    before = set(tmp_path.rglob("*"))
    trained = fit(replace(tiny_config, steps=3), data, targets, None, False, QUIET)
    control = fit(replace(tiny_config, steps=0), data, targets, None, False, QUIET)
    assert set(tmp_path.rglob("*")) == before
    torch.manual_seed(tiny_config.seed)
    untrained = ImuEncoder(tiny_config.encoder)
    assert not trained.training and not control.training
    assert torch.equal(control.project.weight, untrained.project.weight)
    assert not torch.equal(trained.project.weight, untrained.project.weight)


def test_what_fit_returns_is_what_its_checkpoint_holds(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, steps=2)
    data = data_of(config, tmp_path / "cache")
    targets = embed_captions(data.activities(), "hashed")
    returned = fit(config, data, targets, tmp_path / "run", False, QUIET).state_dict()
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert state["provenance"]["windows"] == len(data.sets[0])
    assert all(torch.equal(value, returned[name]) for name, value in state["model"].items())


def test_captions_are_embedded_in_the_groups_they_are_drawn_from(hashed_text: None) -> None:
    activities = (activity_of("walking"), sentence("she picks up a cup"))
    targets = embed_captions(activities, "hashed", ("waist", "left wrist"))
    places = (None, *targets.placements)
    expected = [[a.captions(p) for p in places] for a in activities]
    assert targets.count.tolist() == [[len(c) for c in columns] for columns in expected]
    assert targets.count[1].tolist() == [1, 0, 0]
    for i, columns in enumerate(expected):
        for column, captions in enumerate(columns):
            vectors = HashedText().encode(captions) if captions else np.zeros((0, 512))
            np.testing.assert_allclose(targets.group(i, column), vectors, atol=1e-6)


def test_a_baseline_trains_in_the_same_harness(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_config, model="imu2clip-mended", steps=2, batch=4)
    state = checkpoint_of(config, tmp_path / "run")
    build("imu2clip-mended", config.encoder).load_state_dict(state["model"])
    with pytest.raises(InputError, match="unknown model"):
        checkpoint_of(replace(config, model="imu3clip"), tmp_path / "other")


def test_bfloat16_gives_nearly_the_same_loss_and_gradients(tiny_config: TrainConfig) -> None:
    """The path that GPUs take, on a processor."""
    config = replace(tiny_config, encoder=replace(tiny_config.encoder, dropout=0.0))
    torch.manual_seed(0)
    imu = torch.randn(8, len(SIGNAL.channels), SIGNAL.window_samples)
    text = torch.nn.functional.normalize(torch.randn(8, 512), dim=1)
    cpu = replace(Hardware.alone("cpu"), bf16=False)
    runs = [Run(config, cpu), Run(config, replace(cpu, bf16=True))]
    exact, rounded = (run.gradients(imu, text, torch.arange(8)) for run in runs)
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < abs(exact.item() - rounded.item()) < 0.02
    a, b = (
        torch.cat([p.grad.flatten() for p in run.learned.parameters() if p.grad is not None])
        for run in runs
    )
    assert a.dtype == b.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Hardware.alone("auto").device.type == "cpu"
    with pytest.raises(InputError, match="no CUDA device"):
        Hardware.alone("cuda")
    with pytest.raises(InputError, match="accepted: auto, cpu, cuda"):
        Hardware.alone("tpu")


def test_a_benchmark_corpus_is_never_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_corpus(tmp_path / "bench", role="benchmark")
    assert main(["fit", str(folder), "--out", str(tmp_path / "run")]) == 2
    assert "never trained on" in " ".join(capsys.readouterr().err.split())


def test_the_options_of_a_run_reach_its_configuration(
    corpus: Path, tmp_path: Path, hashed_text: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = "--steps 1 --batch 4 --seed 3 --learning-rate 0.002 --model imu2clip --device cpu"
    switches = "--placement-captions 0.5 --orientation none"
    argv = ["fit", str(corpus), "--out", str(out), *options.split(), *switches.split()]
    assert main([*argv, "--text-encoder", "hashed"]) == 0
    assert capsys.readouterr().out == f"{out / 'checkpoint.pt'}\n"
    config = config_of(load_checkpoint(out / "checkpoint.pt"))
    assert (config.steps, config.batch, config.seed) == (1, 4, 3)
    assert (config.learning_rate, config.model, config.device) == (0.002, "imu2clip", "cpu")
    assert config.placement_captions == 0.5 and config.augment.orientation == "none"
    with pytest.raises(SystemExit):
        main([*argv, "--placement-captions", "2"])


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_checkpoint(path)
