"""Training of an IMU encoder against frozen text embeddings, on corpora or on given windows.

The text side is frozen: every caption is embedded once, before training.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from edge.text import centred
from training.augment import augment
from training.batches import Sampler, Targets, TrainingData, windows_on
from training.captions import Activity
from training.data import WindowSet, load_windows
from training.hardware import Hardware
from training.reference import reference_embeddings
from training.run import MAX_LOGIT_SCALE, Run, TrainConfig, config_of, load_checkpoint
from training.run_folder import CHECKPOINT_FILE, RunFolder, facts, provenance
from training.text_encoders import load_text_encoder
from training.throughput import AUGMENT, COMPUTE, DRAW, Meter

__all__ = [
    "MAX_LOGIT_SCALE",
    "Targets",
    "TrainConfig",
    "TrainingData",
    "config_of",
    "embed_captions",
    "fit",
    "load_checkpoint",
    "train",
]

CHECKPOINT_EVERY_STEPS = 200
METRICS_EVERY_STEPS = 10


def embed_captions(
    activities: tuple[Activity, ...], text_encoder: str, placements: tuple[str, ...] = ()
) -> Targets:
    """Embed every caption once; the text side stays frozen.

    Args:
        activities: what windows are trained towards.
        text_encoder: as in `load_text_encoder`.
        placements: for each of these, captions that mention it are embedded too.

    Raises:
        InputError: there is no such text encoder.
    """
    encoder = load_text_encoder(text_encoder)
    groups = [[a.captions(), *(a.captions(p) for p in placements)] for a in activities]
    flat = [caption for columns in groups for captions in columns for caption in captions]
    vectors = torch.from_numpy(centred(encoder.encode(flat), encoder.centre))
    counts = [[len(captions) for captions in columns] for columns in groups]
    return Targets.of(activities, vectors, counts, placements)


def train(config: TrainConfig, out: Path, cache: Path, resume: bool, console: Console) -> Path:
    """Train on the corpora of the configuration and return the checkpoint's path.

    Started by torchrun, all its processes train together.

    Raises:
        InputError: a folder is no training corpus, or the run to resume had another config.
    """
    with Hardware.joined(config.device) as hardware:
        if not hardware.leads:
            console = Console(quiet=True)
        # What cannot be split is refused before anything long begins.
        hardware.from_leader(lambda: hardware.share(config.batch))
        sets = hardware.leader_first(lambda: _load(config.corpora, cache, console))
        data = TrainingData.of(sets)
        activities = data.activities()
        console.print(
            f"{len(data)} of {sum(map(len, sets))} windows kept, {len(activities)} activities, "
            f"{len(sets)} corpora"
        )
        placements = data.placements() if config.placement_captions else ()
        targets = hardware.from_leader(
            lambda: embed_captions(activities, config.text_encoder, placements)
        )
        fit(config, data, targets, out, resume, console, hardware)
    return out / CHECKPOINT_FILE


def _load(corpora: tuple[str, ...], cache: Path, console: Console) -> list[WindowSet]:
    with Progress(console=console) as progress:
        return [load_windows(Path(folder), cache, progress) for folder in corpora]


def fit(
    config: TrainConfig,
    data: TrainingData,
    targets: Targets,
    out: Path | None,
    resume: bool,
    console: Console,
    hardware: Hardware | None = None,
) -> nn.Module:
    """Train on windows that are already there; with 0 steps the outcome is the untrained control.

    Args:
        config: its corpora are not read.
        data: what to draw from.
        targets: the captions of at least the activities of `data`.
        out: the run's folder (`run_folder`); with None nothing is written.
        resume: go on from the checkpoint in `out`.
        console: where progress is told.
        hardware: what to train on if not what the configuration says; see `Hardware.joined`.

    Returns:
        The encoder, in eval mode on the CPU.

    Raises:
        InputError: no window may be drawn, or the run to resume had another configuration.
    """
    hardware = hardware or Hardware.alone(config.device)
    sampler = Sampler(data, targets)
    run = Run(config, hardware)
    if resume:
        if out is None:
            raise ValueError("a run that was not written cannot be resumed")
        run.restore(out / CHECKPOINT_FILE)
    writing: AbstractContextManager[RunFolder | None] = nullcontext()
    if out is not None and hardware.leads:
        started = facts(asdict(config), data, hardware)
        writing = RunFolder(out, started, run.step if resume else None)
    with writing as folder:
        journal = _Journal(run, folder, out is not None, provenance(data), console)
        if not resume:
            journal.checkpoint()
        if run.step < config.steps:
            _take_steps(run, sampler, data, targets, journal)
        if journal.written:
            journal.checkpoint(reference_embeddings(run.encoder(), data, targets))
    return run.encoder()


@dataclass
class _Journal:
    """Tells the user and the run's folder how training goes."""

    run: Run
    folder: RunFolder | None
    """None in all processes but the first, and where nothing is written."""

    written: bool
    provenance: dict[str, Any]
    console: Console

    def metrics(self, meter: Meter) -> str:
        """Write a line of metrics; returns what to tell the user."""
        lap = meter.end_lap()
        now = self.run.read_metrics() | {
            "windows_per_s": meter.windows_per_s(lap),
            "waiting_for_data_s": lap.mean_s(DRAW),
            "augmentation_s": lap.mean_s(AUGMENT),
            "compute_s": lap.mean_s(COMPUTE),
        }
        if self.folder:
            self.folder.log(self.run.step, now)
        return (
            f"step {self.run.step}  loss {now['loss']:.3f}  logit scale {now['logit_scale']:.1f}  "
            f"{now['windows_per_s']:,.0f} windows/s"
        )

    def checkpoint(self, reference: Tensor | None = None) -> None:
        """Write a checkpoint, the last one with its reference embeddings. All processes have to be
        here at once."""
        if self.written:
            state = self.run.state() | {"provenance": self.provenance}
            if reference is not None:
                state["reference"] = reference
            if self.folder:
                self.folder.save(state)


def _take_steps(
    run: Run, sampler: Sampler, data: TrainingData, targets: Targets, journal: _Journal
) -> None:
    """Train to the end."""
    config, hardware, console = run.config, run.hardware, journal.console
    share = hardware.share(config.batch)
    targets = targets.to(hardware.device)
    windows = windows_on(hardware, data)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("training", total=config.steps)
        meter = Meter(config.batch, hardware)
        while run.step < config.steps:
            with meter.phase(DRAW):
                batch = sampler.draw(config.batch, run.generator)
                text = targets.sample(
                    batch.activity, batch.column, config.placement_captions, run.generator
                )
                imu = windows.fetch(batch.window[share])
            with meter.phase(AUGMENT):
                imu = augment(imu, config.augment, run.augmenter)
            with meter.phase(COMPUTE):
                activity = batch.activity.to(hardware.device)
                run.advance(imu, text, activity, targets.unsure(batch.activity))
            meter.step_done()
            progress.update(task, completed=run.step)
            at_checkpoint = run.step % CHECKPOINT_EVERY_STEPS == 0 or run.step == config.steps
            if at_checkpoint or run.step % METRICS_EVERY_STEPS == 0:
                line = journal.metrics(meter)
                progress.update(task, description=line)
                if at_checkpoint:
                    journal.checkpoint()
                    if not console.is_terminal:
                        console.print(line)
                meter.start_lap()
    console.print(meter.summary(), highlight=False)
