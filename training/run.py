"""What a run is: its configuration, its loss, and everything that training changes.

Symmetric InfoNCE between windows and captions (AURA-MFM, arXiv 2506.03174, eq. 1-3). Windows that
share an activity share their captions, so they are positives of each other's captions, never
negatives; those of a composite and of its parts are neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.text import COMPACT_NAME
from firmware_bridge.errors import InputError
from training.augment import AugmentConfig
from training.hardware import Hardware
from training.model import EncoderConfig
from training.models import DEFAULT_MODEL, build

CHECKPOINT_VERSION = 2
MAX_LOGIT_SCALE = 50.0
"""CLIP's cap is 100; centred text targets are further apart than CLIP's raw ones."""

_STREAM = 1_000_003
"""Between the seeds of random streams. Below 2 ** 32, of which the CPU generator reads no more."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a run, kept in its checkpoint."""

    corpora: tuple[str, ...]
    """Corpus folders."""

    text_encoder: str = COMPACT_NAME
    model: str = DEFAULT_MODEL
    """One of `training.models.MODELS`."""

    steps: int = 4000
    batch: int = 256
    """Windows in the joint batch of all processes."""

    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    placement_captions: float = 0.0
    """Fraction of the drawn captions that mention where the device is worn."""

    seed: int = 0
    device: str = "auto"
    """"cpu", "cuda", or "auto": a GPU if there is one."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Of "aura-edge"."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)


_EXCLUDED = -1e4
"""A logit that has no weight in a softmax; finite, for it is multiplied by a target of 0."""


def symmetric_infonce(
    imu: Tensor,
    text: Tensor,
    activity: Tensor,
    logit_scale: Tensor,
    unsure: Tensor | None = None,
) -> Tensor:
    """AURA-MFM's loss, eq. 1-3, with every caption of the window's own activity as a positive.

    Args:
        imu: (B, D) unit vectors of windows.
        text: (B, D) unit vectors, a caption of each window.
        activity: (B,) what each caption says; equal numbers are never negatives.
        logit_scale: the multiplier of the cosines (1 / temperature).
        unsure: (B, B) pairs of different activities that are no negatives either, such as
            "running" and "running or cycling": they are left out.
    """
    logits = logit_scale * imu @ text.T
    if unsure is not None:
        logits = logits.masked_fill(unsure, _EXCLUDED)
    same = (activity[:, None] == activity[None, :]).float()
    target = same / same.sum(1, keepdim=True)
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


class Contrast(nn.Module):
    """What is learned: the encoder, and how sharply its similarities are compared."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's start

    def forward(self, imu: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 6, 1000) windows -> (B, 512) unit vectors and the logit scale, float32."""
        scale = self.log_logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        return self.encoder(imu).float(), scale


class Run:
    """Everything that training changes: weights, optimizer, random numbers, step."""

    def __init__(self, config: TrainConfig, hardware: Hardware) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.hardware = hardware
        self.step = 0
        self.learned = Contrast(build(config.model, config.encoder)).to(hardware.device)
        if hardware.compiled:
            self.learned.encoder.compile(dynamic=False)
        self._forward = hardware.parallel(self.learned)
        self._optimizer = torch.optim.AdamW(
            self.learned.parameters(),
            config.learning_rate,
            weight_decay=config.weight_decay,
            fused=hardware.fused,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, _learning_rate(config))
        self._learning_rate = 0.0
        self._losses: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(config.seed)
        """Draws windows and captions, the same in all processes."""

        own = config.seed + _STREAM * (1 + hardware.rank)
        self.augmenter = torch.Generator(hardware.device).manual_seed(own)
        """Augments the windows of this process."""

        if not hardware.leads:
            torch.manual_seed(own)  # dropout of its own; the weights are the same by now

    def gradients(
        self, imu: Tensor, text: Tensor, activity: Tensor, unsure: Tensor | None = None
    ) -> Tensor:
        """Put the gradients of the joint batch's loss into the parameters.

        Args:
            imu: (B / processes, 6, 1000) this process' share of the windows.
            text: (B, 512) a caption of each window of the joint batch.
            activity: (B,) what they say.
            unsure: (B, B) pairs that say nothing, see `symmetric_infonce`.

        Returns:
            The loss of the joint batch.
        """
        self.learned.train()
        with self.hardware.autocast():
            own, scale = self._forward(imu)
        loss = symmetric_infonce(self.hardware.gather(own), text, activity, scale, unsure)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def advance(
        self, imu: Tensor, text: Tensor, activity: Tensor, unsure: Tensor | None = None
    ) -> None:
        """One optimizer step on a joint batch; arguments as for `gradients`."""
        self._losses.append(self.gradients(imu, text, activity, unsure))
        nn.utils.clip_grad_norm_(self.learned.parameters(), 1.0)
        self._learning_rate = float(self._schedule.get_last_lr()[0])
        self._optimizer.step()
        self._schedule.step()
        self.step += 1

    def read_metrics(self) -> dict[str, float]:
        """The mean loss since the last reading; learning rate and logit scale as they are.

        Read only every few steps: a GPU has to finish what it is at.
        """
        loss = torch.stack(self._losses).mean().item()
        self._losses.clear()
        scale = self.learned.log_logit_scale.exp().clamp(max=MAX_LOGIT_SCALE).item()
        return {"loss": loss, "learning_rate": self._learning_rate, "logit_scale": scale}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds. All processes have to ask at once; the first one's answer is
        complete."""
        random = {
            "torch": self.hardware.random_state(),  # drives dropout
            "augmenter": self.augmenter.get_state(),
        }
        return {
            "version": CHECKPOINT_VERSION,
            "config": asdict(self.config),
            "step": self.step,
            "model": self.learned.encoder.state_dict(),
            "log_logit_scale": self.learned.log_logit_scale.detach(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "device": self.hardware.device.type,
            "generator": self.generator.get_state(),
            "random": self.hardware.to_leader(random),
        }

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: it was trained with another configuration or on other hardware.
        """
        state = load_checkpoint(path)
        if replace(config_of(state), device=self.config.device) != self.config:
            raise InputError(
                f"{path}: was trained with another configuration; resume with the same options, "
                "or choose another --out"
            )
        before = (state["device"], len(state["random"]))
        if before != (self.hardware.device.type, self.hardware.processes):
            raise InputError(
                f"{path}: was trained on {before[0]} by {before[1]} process(es), here are "
                f"{self.hardware.processes} on {self.hardware.device.type}; a run can only go on "
                "as it began"
            )
        self.step = int(state["step"])
        self.learned.encoder.load_state_dict(state["model"])
        with torch.no_grad():
            self.learned.log_logit_scale.copy_(state["log_logit_scale"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        random = state["random"][self.hardware.rank]
        self.augmenter.set_state(random["augmenter"])
        self.hardware.set_random_state(random["torch"])

    def encoder(self) -> nn.Module:
        """The encoder as it is now, in eval mode on the CPU, neither compiled nor shared."""
        encoder = build(self.config.model, self.config.encoder)
        encoder.load_state_dict(self.learned.encoder.state_dict())
        return encoder.eval()


def _learning_rate(config: TrainConfig) -> Callable[[int], float]:
    """Linear warm-up (a fifth of a short run at most), then a half cosine to zero."""
    warmup_steps = min(config.warmup_steps, config.steps // 5)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, config.steps - warmup_steps)
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
