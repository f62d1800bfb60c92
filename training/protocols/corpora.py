"""The corpora of an experiment: what is trained on, and what is scored under which labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from edge.corpus import Corpus, read_corpus
from edge.measuring import read_mapping
from firmware_bridge.errors import InputError
from training.captions import UNLABELLED, activity_of
from training.data import LABEL, Purpose, WindowSet, load_windows
from training.protocols.cells import digest


@dataclass(frozen=True)
class Target:
    """A corpus to be scored on, and what its labels are called."""

    corpus: Corpus
    folder: Path
    mapping: dict[str, str]
    """Corpus label -> label text; labels that are not in it are left out."""

    name: str
    """The corpus, and after a colon the file of labels, if there is one."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label texts that are told apart."""
        return tuple(dict.fromkeys(self.mapping.values()))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What decides the result of scoring on it."""
        return {
            "corpus": self.corpus.name,
            "content": corpus_digest(self.folder),
            "mapping": self.mapping,
        }


@dataclass(frozen=True)
class Scorable:
    """The windows of a target. Everything but `imu` is about the M windows whose labels count."""

    target: Target
    imu: NDArray[Any]
    """(N, 6, 1000) all windows of the corpus, memory-mapped."""

    rows: NDArray[np.int64]
    """(M,) numbers of windows of `imu`."""

    truth: NDArray[np.int64]
    """(M,) row of the target's labels."""

    subject: NDArray[np.str_]
    placement: NDArray[np.str_]


class Library:
    """Reads corpora, each once."""

    def __init__(self, cache: Path, console: Console) -> None:
        self._cache = cache
        self._console = console
        self._sets: dict[tuple[Path, str], WindowSet] = {}
        self._keep: dict[Path, NDArray[np.bool_]] = {}

    def windows(self, folder: Path, purpose: Purpose) -> WindowSet:
        """The windows of a corpus.

        Raises:
            InputError: not a corpus, or one of role "benchmark" that is to be trained on.
        """
        key = (folder.resolve(), purpose)
        if key not in self._sets:
            with Progress(console=self._console, transient=True) as progress:
                self._sets[key] = load_windows(folder, self._cache, progress, purpose)
        return self._sets[key]

    def kept(self, folder: Path) -> NDArray[np.bool_]:
        """(N,) which windows of a training corpus are no label noise."""
        key = folder.resolve()
        if key not in self._keep:
            self._keep[key] = self.windows(folder, "train").without_still_noise()
        return self._keep[key]

    def scorable(self, target: Target) -> Scorable:
        """The windows of a target that are scored.

        Raises:
            InputError: there is none.
        """
        windows = self.windows(target.folder, "score")
        row_of = {text: row for row, text in enumerate(target.labels)}
        of_label = np.array(
            [
                row_of[target.mapping[label]] if kind == LABEL and label in target.mapping else -1
                for label, kind in zip(windows.labels, windows.kinds, strict=True)
            ],
            np.int64,
        )
        truth = of_label[windows.label]
        rows = np.flatnonzero(truth >= 0)
        if not len(rows):
            raise InputError(f"{target.folder}: no labelled segment of 1 s or more to score")
        return Scorable(
            target, windows.imu, rows, truth[rows], windows.subject[rows], windows.placement[rows]
        )


def read_target(text: str) -> Target:
    """A target from `CORPUS` or `CORPUS:LABELS.json` (see `target_of`)."""
    folder, colon, labels = text.rpartition(":")
    if colon and labels.endswith(".json"):
        return target_of(Path(folder), Path(labels))
    return target_of(Path(text), None)


def target_of(folder: Path, labels: Path | None) -> Target:
    """A corpus to be scored on.

    Args:
        folder: the corpus.
        labels: a file of corpus label -> label text, as for `edge-eval`; None takes the corpus' own
            labels, those that mean the same activity as one.

    Raises:
        InputError: no corpus, no such file, or labels that the corpus lacks.
    """
    corpus = read_corpus(folder)
    own = sorted({s.label for r in corpus.recordings() for s in r.segments} - UNLABELLED)
    mapping = _own_mapping(own) if labels is None else _mapping_of(labels, corpus.name, own)
    name = corpus.name if labels is None else f"{corpus.name}:{labels.stem}"
    return Target(corpus, folder, mapping, name)


def _own_mapping(own: list[str]) -> dict[str, str]:
    by_activity: dict[str, list[str]] = {}
    for label in own:
        by_activity.setdefault(activity_of(label).name, []).append(label)
    return {
        label: labels[0] if len(labels) == 1 else activity
        for activity, labels in by_activity.items()
        for label in labels
    }


def _mapping_of(path: Path, corpus: str, own: list[str]) -> dict[str, str]:
    mapping = read_mapping(path, corpus, own)
    meant: dict[str, str] = {}
    for text in mapping.values():
        other = meant.setdefault(activity_of(text).name, text)
        if other != text:
            raise InputError(f"{path}: {other!r} and {text!r} mean the same activity")
    return mapping


def corpus_digest(folder: Path) -> str:
    """Changes with a corpus' content; of the samples only their number is looked at."""
    facts: dict[str, Any] = {"samples": (folder / "samples.parquet").stat().st_size}
    for name in ("corpus.json", "recordings.parquet", "segments.parquet", "texts.parquet"):
        path = folder / name
        if path.exists():
            facts[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest(facts)
