"""Where a protocol's encoders come from: checkpoints, or training within the protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_bridge.errors import InputError
from training.protocols.workshop import Lesson, Workshop, read_encoder
from training.scoring import Recogniser


@dataclass(frozen=True)
class Source:
    """An encoder for each seed."""

    name: str
    facts: Callable[[int], dict[str, Any]]
    """Seed -> what decides the encoder, as JSON has it."""

    load: Callable[[int], Recogniser]
    """Seed -> the encoder, in eval mode."""

    fixed: bool
    """Whether it is the same for all seeds, as a checkpoint is."""

    trained_on: tuple[str, ...]
    """Names of corpora."""

    text_encoder: str

    def seeds(self, seeds: Sequence[int]) -> list[int]:
        """Those of the seeds that make a difference where nothing but the encoder is random."""
        return list(seeds[:1]) if self.fixed else list(seeds)


def checkpoint_sources(paths: Sequence[Path], workshop: Workshop) -> list[Source]:
    """One for each checkpoint, named after its run's folder.

    Raises:
        InputError: a file is no checkpoint of ours, or two have the same name.
    """
    sources = [_checkpoint_source(path, workshop) for path in paths]
    names = [s.name for s in sources]
    if len(set(names)) < len(names):
        raise InputError(
            f"checkpoints are told apart by their folders' names, not: {', '.join(names)}"
        )
    return sources


def _checkpoint_source(path: Path, workshop: Workshop) -> Source:
    encoder, state = read_encoder(path)
    facts = {"checkpoint": hashlib.sha256(path.read_bytes()).hexdigest()[:16]}
    return Source(
        path.resolve().parent.name,
        lambda seed: facts,
        lambda seed: encoder.to(workshop.device),
        True,
        tuple(state["provenance"]["corpora"]),
        state["config"]["text_encoder"],
    )


def trained_sources(names: Sequence[str], lesson: Lesson, workshop: Workshop) -> list[Source]:
    """One for each model's name, trained when it is asked for."""
    corpora = tuple(workshop.library.windows(f, "train").corpus for f in lesson.folders)

    def source(name: str) -> Source:
        return Source(
            name,
            lambda seed: workshop.facts(name, seed, lesson),
            lambda seed: workshop.recogniser(name, seed, lesson),
            False,
            corpora,
            workshop.config.text_encoder,
        )

    return [source(name) for name in names]
