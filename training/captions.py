"""Label -> captions: the sentences whose text embeddings the encoder is trained towards.

The sentences are data (`label_bank.toml` and the templates below), so that the same words make
the training targets and, at export, the prototypes.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edge.bundle import normalised

PROMPT_TEMPLATES = (
    "{}",
    "a person is {}",
    "a video of a person {}",
    "the activity of {}",
)
"""What an activity's name and aliases are put into; several wordings make one target steadier."""

UNLABELLED = frozenset({"null"})
"""Corpus labels that name no activity: windows under them get no caption."""


@dataclass(frozen=True)
class Activity:
    """One entry of the label bank."""

    name: str
    group: str
    aliases: tuple[str, ...]
    description: str

    def captions(self) -> list[str]:
        """Every template with every wording, and the description."""
        wordings = (self.name, *self.aliases)
        return [t.format(w) for w in wordings for t in PROMPT_TEMPLATES] + [self.description]


@cache
def label_bank() -> tuple[Activity, ...]:
    """The activities of `label_bank.toml`, in file order."""
    path = Path(__file__).parent / "label_bank.toml"
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["activity"]
    return tuple(
        Activity(r["name"], r["group"], tuple(r["aliases"]), r["description"]) for r in rows
    )


@cache
def _by_wording() -> dict[str, Activity]:
    return {normalised(w): a for a in label_bank() for w in (a.name, *a.aliases)}


def activity_of(label: str) -> Activity:
    """The bank's activity for a corpus label; a label that the bank lacks stands for itself."""
    found = _by_wording().get(normalised(label))
    return found or Activity(normalised(label), "other", (), normalised(label))
