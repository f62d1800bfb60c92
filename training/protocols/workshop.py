"""Trains the models of an experiment, all on the same pairs, each once.

Of one seed every model sees the same windows, captions and augmentations in the same order, for all
of them follow from the seed alone (`training.run.Run`): the encoders of others and the untrained
one through `training.train.fit`, the forests through the same `Sampler`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from edge.text import TextEncoder
from firmware_bridge.errors import InputError
from training import captions
from training.augment import augment
from training.augment_config import AugmentConfig
from training.batches import Draw, HostWindows, Sampler, Targets, TrainingData
from training.captions import Activity
from training.data import LABEL
from training.hardware import Hardware
from training.models import build
from training.protocols.cells import digest
from training.protocols.corpora import Library, corpus_digest
from training.protocols.options import FORESTS, RANDOM_INIT
from training.run import Run, TrainConfig, config_of, load_checkpoint
from training.run_folder import CHECKPOINT_FILE
from training.scoring import Recogniser, label_prototypes
from training.text_encoders import load_text_encoder
from training.train import embed_captions, fit

TRAINED_FOLDER = "trained"

FOREST_WINDOWS = 60_000
"""A forest is trained on at most so many of the windows that the encoders see."""


@dataclass(frozen=True)
class Lesson:
    """What a model is trained on."""

    folders: tuple[Path, ...]
    keep: tuple[NDArray[np.bool_], ...] | None = None
    """Of each corpus, (N,) the windows that may be drawn; None for all that are no label noise."""

    about_keep: Any = None
    """What decides `keep`, as JSON has it."""


class Workshop:
    """Trains models and makes prototypes.

    Args:
        config: what all trainings share; the model, the seed and the corpora are set for each.
        library: where windows come from.
        out: the experiment's folder.
        console: where progress is told.
    """

    def __init__(self, config: TrainConfig, library: Library, out: Path, console: Console) -> None:
        self.config = config
        self.library = library
        self.device = Hardware.alone(config.device).device
        self._out = out
        self._console = console
        self._text_encoders: dict[str, TextEncoder] = {}
        self._targets: dict[tuple[tuple[Activity, ...], tuple[str, ...]], Targets] = {}
        self._last: tuple[str, Recogniser] | None = None

    def prototypes(
        self, labels: Sequence[str], text_encoder: str | None = None
    ) -> NDArray[np.float32]:
        """(L, D) prototypes of labels, by the text encoder of that name or the trainings' one."""
        name = text_encoder or self.config.text_encoder
        if name not in self._text_encoders:
            self._text_encoders[name] = load_text_encoder(name)
        return label_prototypes(labels, self._text_encoders[name])

    def text_facts(self, text_encoder: str | None = None) -> dict[str, Any]:
        """What decides captions and prototypes."""
        bank = Path(captions.__file__).with_name("label_bank.toml")
        return {
            "encoder": text_encoder or self.config.text_encoder,
            "bank": hashlib.sha256(bank.read_bytes()).hexdigest()[:16],
        }

    def facts(
        self, name: str, seed: int, lesson: Lesson, augmentation: AugmentConfig | None = None
    ) -> dict[str, Any]:
        """What decides a trained model."""
        config = asdict(self._config_of(name, seed, lesson, augmentation))
        del config["corpora"], config["device"]
        facts = {"model": name, "config": config, "text": self.text_facts()}
        if name == RANDOM_INIT:  # no window was ever looked at
            del facts["text"]
            return facts | {"config": {"encoder": config["encoder"], "seed": seed}}
        return facts | {
            "corpora": [corpus_digest(folder) for folder in lesson.folders],
            "keep": lesson.about_keep,
        }

    def recogniser(
        self, name: str, seed: int, lesson: Lesson, augmentation: AugmentConfig | None = None
    ) -> Recogniser:
        """A trained model; what was trained before is not trained again.

        Raises:
            InputError: no window is left to train on.
        """
        key = digest(self.facts(name, seed, lesson, augmentation))
        if self._last is None or self._last[0] != key:
            config = self._config_of(name, seed, lesson, augmentation)
            if name in FORESTS:
                model: Recogniser = self._forest(name, config, self._data(lesson))
            else:
                out = None if name == RANDOM_INIT else self._out / TRAINED_FOLDER / key
                model = self._encoder(config, lesson, out).to(self.device)
            self._last = (key, model)
        return self._last[1]

    def _config_of(
        self, name: str, seed: int, lesson: Lesson, augmentation: AugmentConfig | None
    ) -> TrainConfig:
        config = replace(
            self.config,
            corpora=tuple(folder.name for folder in lesson.folders),
            seed=seed,
            augment=augmentation or self.config.augment,
        )
        if name == RANDOM_INIT:
            return replace(config, steps=0)
        return config if name in FORESTS else replace(config, model=name)

    def _encoder(self, config: TrainConfig, lesson: Lesson, out: Path | None) -> nn.Module:
        begun = out is not None and (out / CHECKPOINT_FILE).exists()
        if begun and out is not None:
            encoder, trained = read_encoder(out / CHECKPOINT_FILE)
            if trained["step"] == config.steps:
                return encoder
        data = self._data(lesson)
        return fit(config, data, self._targets_of(data), out, begun, self._console)

    def _data(self, lesson: Lesson) -> TrainingData:
        sets = tuple(self.library.windows(folder, "train") for folder in lesson.folders)
        keep = lesson.keep or tuple(self.library.kept(folder) for folder in lesson.folders)
        return TrainingData(sets, keep)

    def _targets_of(self, data: TrainingData) -> Targets:
        activities = data.activities()
        placements = data.placements() if self.config.placement_captions else ()
        key = (activities, placements)
        if key not in self._targets:
            self._targets[key] = embed_captions(activities, self.config.text_encoder, placements)
        return self._targets[key]

    def _forest(self, name: str, config: TrainConfig, data: TrainingData) -> Recogniser:
        from training.baselines.forest import fit_forest

        data = without_sentences(data)
        targets = self._targets_of(data)
        streams = Run(config, Hardware.alone("cpu"))  # for its random numbers
        draws = forest_draws(streams, data, targets)
        vectors = [targets.group(i).mean(0) for i in range(len(targets.activities))]
        return fit_forest(
            name,
            forest_windows(streams, data, draws),
            torch.cat([draw.activity for draw in draws]).numpy(),
            torch.nn.functional.normalize(torch.stack(vectors), dim=1).numpy(),
            config.seed,
            FOREST_WINDOWS,
            torch.get_num_threads(),
        )


def without_sentences(data: TrainingData) -> TrainingData:
    """The windows that have a label: to a classifier each sentence would be a class of its own."""
    labelled = tuple(
        keep & (np.array(windows.kinds) == LABEL)[windows.label]
        for windows, keep in zip(data.sets, data.keep, strict=True)
    )
    return TrainingData(data.sets, labelled)


def forest_draws(streams: Run, data: TrainingData, targets: Targets) -> list[Draw]:
    """The first batches that an encoder of the same configuration is trained on."""
    config = streams.config
    sampler = Sampler(data, targets)
    draws = []
    for _ in range(max(1, min(config.steps, math.ceil(FOREST_WINDOWS / config.batch)))):
        draw = sampler.draw(config.batch, streams.generator)
        # A forest has no use for captions; drawing them keeps the next windows the same.
        targets.sample(draw.activity, draw.column, config.placement_captions, streams.generator)
        draws.append(draw)
    return draws


def forest_windows(
    streams: Run, data: TrainingData, draws: Sequence[Draw]
) -> Iterator[NDArray[np.float32]]:
    """Their windows, (B, 6, 1000) a batch, augmented as for an encoder that trains on the CPU."""
    windows = HostWindows(data, torch.device("cpu"))
    for draw in draws:
        imu = augment(windows.fetch(draw.window), streams.config.augment, streams.augmenter)
        yield imu.numpy()


def read_encoder(checkpoint: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A checkpoint's encoder, in eval mode on the CPU, and all that the checkpoint holds.

    Raises:
        InputError: no checkpoint there, or not one of ours.
    """
    state = load_checkpoint(checkpoint)
    config = config_of(state)
    encoder = build(config.model, config.encoder)
    try:
        encoder.load_state_dict(state["model"])
    except RuntimeError:
        raise InputError(f"{checkpoint}: its weights do not fit this version's encoder") from None
    return encoder.eval(), state
