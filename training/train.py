"""`edge-train fit`: train the IMU encoder against frozen text embeddings.

Symmetric InfoNCE between windows and captions (AURA-MFM, arXiv 2506.03174, eq. 1-3). The text
side is frozen: every caption is embedded once, before training. Windows that share an activity
share their captions, so they are positives of each other's captions, never negatives.
"""

from __future__ import annotations

import argparse
import math
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from edge.text import COMPACT_NAME, centred
from firmware_bridge.errors import AuraError, InputError
from training.augment import AugmentConfig, augment
from training.captions import Activity, activity_of
from training.data import WindowSet, load_windows
from training.model import EncoderConfig, ImuEncoder
from training.text_encoders import load_text_encoder

CHECKPOINT_VERSION = 1
CHECKPOINT_EVERY_STEPS = 200
MAX_LOGIT_SCALE = 50.0
"""CLIP's cap is 100; centred text targets are further apart than CLIP's raw ones."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run, kept in its checkpoint."""

    corpora: tuple[str, ...]
    """Corpus folders."""

    text_encoder: str = COMPACT_NAME
    steps: int = 4000
    batch: int = 256
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    seed: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def symmetric_infonce(imu: Tensor, text: Tensor, activity: Tensor, logit_scale: Tensor) -> Tensor:
    """AURA-MFM's loss, eq. 1-3, with every caption of the window's own activity as a positive.

    Args:
        imu: (B, D) unit vectors of windows.
        text: (B, D) unit vectors, a caption of each window.
        activity: (B,) what each caption says; equal numbers are never negatives.
        logit_scale: the multiplier of the cosines (1 / temperature).
    """
    logits = logit_scale * imu @ text.T
    same = (activity[:, None] == activity[None, :]).float()
    target = same / same.sum(1, keepdim=True)
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


@dataclass(frozen=True)
class Targets:
    """The activities of the training corpora and their embedded captions."""

    activities: tuple[Activity, ...]
    captions: tuple[Tensor, ...]
    """Of each activity, (n_captions, 512) centred unit vectors."""

    def sample(self, activity: Tensor, generator: torch.Generator) -> Tensor:
        """One caption of each activity: (B,) -> (B, 512)."""
        pick = torch.rand(len(activity), generator=generator)
        rows = [self.captions[a] for a in activity.tolist()]
        return torch.stack([c[int(p * len(c))] for c, p in zip(rows, pick.tolist(), strict=True)])


def embed_captions(activities: tuple[Activity, ...], text_encoder: str) -> Targets:
    """Embed every caption once; the text side stays frozen."""
    encoder = load_text_encoder(text_encoder)
    captions = [a.captions() for a in activities]
    flat = encoder.encode([c for group in captions for c in group])
    vectors = torch.from_numpy(centred(flat, encoder.centre))
    return Targets(activities, torch.split(vectors, [len(c) for c in captions]))


class Sampler:
    """Draws windows so that no corpus and no activity drowns the others.

    A window's chance is proportional to (windows of its corpus and activity) ** -0.5.
    """

    def __init__(self, sets: list[WindowSet], targets: Targets) -> None:
        index = {a.name: i for i, a in enumerate(targets.activities)}
        self.sets = sets
        where, activity, weight = [], [], []
        for s, windows in enumerate(sets):
            rows = np.flatnonzero(windows.without_still_noise())
            of_label = np.array([index[activity_of(name).name] for name in windows.labels])
            own = of_label[windows.label[rows]]
            count = np.bincount(own, minlength=len(index))
            where.append(np.stack([np.full(len(rows), s), rows], 1))
            activity.append(own)
            weight.append(count[own] ** -0.5)
        self.where = np.concatenate(where)
        self.activity = torch.from_numpy(np.concatenate(activity))
        flat = np.concatenate(weight)
        self.weight = torch.from_numpy(flat / flat.sum())

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(B, 6, 1000) windows and their (B,) activities."""
        chosen = torch.multinomial(self.weight, batch, replacement=True, generator=generator)
        where: NDArray[np.int64] = self.where[chosen.numpy()]
        imu = np.stack([self.sets[s].imu[row] for s, row in where]).astype(np.float32)
        return torch.from_numpy(imu), self.activity[chosen]


class Run:
    """Everything that training changes: weights, optimizer, random numbers, step."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.step = 0
        self.model = ImuEncoder(config.encoder)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's start
        self._parameters = [*self.model.parameters(), self.log_logit_scale]
        self._optimizer = torch.optim.AdamW(
            self._parameters, config.learning_rate, weight_decay=config.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, _learning_rate(config))
        self.generator = torch.Generator().manual_seed(config.seed)
        """Draws the windows, the captions and the augmentation."""

    def advance(self, imu: Tensor, text: Tensor, activity: Tensor) -> str:
        """One optimizer step on a batch; returns what to tell the user."""
        self.model.train()
        scale = self.log_logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        loss = symmetric_infonce(self.model(imu), text, activity, scale)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self.step += 1
        return f"step {self.step}  loss {loss.item():.3f}  logit scale {scale.item():.1f}"

    def save(self, path: Path, provenance: dict[str, Any]) -> None:
        """Replace the checkpoint in one step: a run that is killed leaves the one before it."""
        state = {
            "version": CHECKPOINT_VERSION,
            "config": asdict(self.config),
            "step": self.step,
            "model": self.model.state_dict(),
            "log_logit_scale": self.log_logit_scale.detach(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),  # drives dropout
            "provenance": provenance,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: it was trained with another configuration.
        """
        state = load_checkpoint(path)
        if config_of(state) != self.config:
            raise InputError(
                f"{path}: was trained with another configuration; resume with the same options, "
                "or choose another --out"
            )
        self.step = int(state["step"])
        self.model.load_state_dict(state["model"])
        with torch.no_grad():
            self.log_logit_scale.copy_(state["log_logit_scale"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])


def train(config: TrainConfig, out: Path, cache: Path, resume: bool, console: Console) -> Path:
    """Train and return the checkpoint's path.

    Raises:
        InputError: a folder is no training corpus, or the run to resume had another config.
    """
    checkpoint = out / "checkpoint.pt"
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        sets = [load_windows(Path(folder), cache, progress) for folder in config.corpora]
        names = sorted({activity_of(name).name for s in sets for name in s.labels})
        targets = embed_captions(tuple(activity_of(n) for n in names), config.text_encoder)
        sampler = Sampler(sets, targets)
        console.print(
            f"{len(sampler.where)} of {sum(map(len, sets))} windows kept, "
            f"{len(names)} activities, {len(sets)} corpora"
        )
        run = Run(config)  # after the text encoder, which may draw random numbers of its own
        if resume:
            run.restore(checkpoint)
        provenance = _provenance(sets, names)
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            run.save(checkpoint, provenance)  # with --steps 0 the control: an untrained encoder
        task = progress.add_task("training", total=config.steps, completed=run.step)
        while run.step < config.steps:
            imu, activity = sampler.draw(config.batch, run.generator)
            text = targets.sample(activity, run.generator)
            line = run.advance(augment(imu, config.augment, run.generator), text, activity)
            progress.update(task, completed=run.step, description=line)
            if run.step % CHECKPOINT_EVERY_STEPS == 0 or run.step == config.steps:
                run.save(checkpoint, provenance)
                if not console.is_terminal:
                    console.print(line)
    return checkpoint


def _learning_rate(config: TrainConfig) -> Callable[[int], float]:
    """Linear warm-up, then a half cosine to zero."""

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors and plain values only, nothing in it is executed.

    Raises:
        InputError: no checkpoint there, or not one of ours.
    """
    if not path.exists():
        raise InputError(f"{path}: no checkpoint there; make one with `edge-train fit`")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise InputError(f"{path}: not a readable checkpoint ({error})") from None
    if state.get("version") != CHECKPOINT_VERSION:
        raise InputError(
            f"{path}: checkpoint version {state.get('version')}, expected {CHECKPOINT_VERSION}; "
            "train it again"
        )
    return state


def config_of(state: dict[str, Any]) -> TrainConfig:
    """The configuration a checkpoint was trained with."""
    fields = dict(state["config"])
    fields["encoder"] = EncoderConfig(**fields["encoder"])
    fields["augment"] = AugmentConfig(**fields["augment"])
    fields["corpora"] = tuple(fields["corpora"])
    return TrainConfig(**fields)


def _provenance(sets: list[WindowSet], activities: list[str]) -> dict[str, Any]:
    """What the encoder was trained on, for the bundle's manifest."""
    return {
        "corpora": [s.corpus for s in sets],
        "windows": sum(map(len, sets)),
        "subjects": sum(len(set(s.subject.tolist())) for s in sets),
        "activities": activities,
        "git_revision": _git_revision(),
    }


def _git_revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-train", description="Train the IMU encoder on a workstation."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser(
        "fit",
        help="train an encoder on corpora",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fit.add_argument("corpora", nargs="+", metavar="CORPUS", help="a training corpus' folder")
    fit.add_argument("--out", type=Path, required=True, help="the run's folder")
    fit.add_argument(
        "--cache", type=Path, help="folder of cut windows (default: `cache` beside OUT)"
    )
    fit.add_argument("--text-encoder", default=COMPACT_NAME, metavar="NAME")
    fit.add_argument("--steps", type=int, default=TrainConfig.steps)
    fit.add_argument("--batch", type=int, default=TrainConfig.batch)
    fit.add_argument("--seed", type=int, default=0)
    fit.add_argument(
        "--rotation",
        type=float,
        default=AugmentConfig.rotation,
        help="fraction of windows turned freely",
    )
    fit.add_argument("--resume", action="store_true", help="go on from OUT's checkpoint")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line behind `edge-train`."""
    args = _parser().parse_args(argv)
    console = Console(stderr=True)
    config = TrainConfig(
        corpora=tuple(str(c) for c in args.corpora),
        text_encoder=args.text_encoder,
        steps=args.steps,
        batch=args.batch,
        seed=args.seed,
        augment=AugmentConfig(rotation=args.rotation),
    )
    cache = args.cache or args.out.parent / "cache"
    try:
        checkpoint = train(config, args.out, cache, args.resume, console)
    except AuraError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return error.exit_code
    except KeyboardInterrupt:
        console.print(f"stopped; go on with: edge-train fit ... --out {args.out} --resume")
        return 130
    print(checkpoint)
    return 0
