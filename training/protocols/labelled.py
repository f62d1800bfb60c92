"""What a corpus' labelled windows teach: settings x splits x amounts, as cells of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.baselines.features import features
from training.protocols.cells import Cell
from training.protocols.corpora import Scorable, Target
from training.protocols.heads import fine_tune, forest_head, gravity, linear_head
from training.protocols.options import FORESTS
from training.protocols.sources import Source
from training.protocols.splits import (
    Rows,
    Split,
    fraction_per_class,
    k_per_class,
    random_window_folds,
    subject_folds,
)
from training.protocols.workshop import Workshop
from training.scoring import Outcome, embed, nearest

ZERO_SHOT, TRANSFER, FINE_TUNING = "zero-shot", "transfer", "fine-tuning"
FOREST = "random forest on features"
"""The control's name and only setting."""

BY_SUBJECT, RANDOM_WINDOWS = "by subject", "random windows"
ALL = "all"

Predict = Callable[[Rows, Rows], NDArray[np.integer[Any]]]
"""(rows trained on, rows tested on) -> what is said of the latter; rows of the scorable windows."""


@dataclass(frozen=True)
class Amount:
    """How much of the training subjects' windows is labelled."""

    name: str
    per_class: int | None = None
    fraction: float | None = None

    def draw(self, rows: Rows, label: NDArray[np.int64], rng: np.random.Generator) -> Rows:
        """The labelled ones among the rows."""
        if self.per_class is not None:
            return k_per_class(rows, label, self.per_class, rng)
        if self.fraction is not None:
            return fraction_per_class(rows, label, self.fraction, rng)
        return rows


class LabelledBench:
    """One corpus, its folds, and what models make of it."""

    def __init__(self, target: Target, workshop: Workshop, folds: int, epochs: int) -> None:
        self.target = target
        self.workshop = workshop
        self._folds = folds
        self._epochs = epochs
        self._embedded: tuple[Any, NDArray[np.float32]] | None = None
        self.splits = cache(self._splits)
        self.scorable: Callable[[], Scorable] = cache(lambda: workshop.library.scorable(target))
        self.features = cache(self._features)
        self.gravity = cache(self._gravity)

    def cells(
        self, sources: Sequence[Source], seeds: Sequence[int], amounts: Sequence[Amount]
    ) -> list[Cell]:
        """All that this protocol scores, the models' one after another."""
        cells = []
        labelled = [(BY_SUBJECT, a) for a in amounts] + [(RANDOM_WINDOWS, Amount(ALL))]
        for source in sources:
            for seed in source.seeds(seeds):
                cells.append(self._zero_shot_cell(source, seed))
            if source.name in FORESTS:
                continue  # knows no features but its own, which the control has
            for seed in seeds:
                for split, amount in labelled:
                    cells.append(self._cell(TRANSFER, split, amount, seed, source))
                    cells.append(self._cell(FINE_TUNING, split, amount, seed, source))
        for seed in seeds:
            cells += [self._cell(FOREST, split, amount, seed, None) for split, amount in labelled]
        return cells

    def _zero_shot_cell(self, source: Source, seed: int) -> Cell:
        def make() -> dict[str, Any]:
            scorable = self.scorable()
            prototypes = self.workshop.prototypes(self.target.labels, source.text_encoder)
            said = nearest(self._embeddings(source, seed), prototypes)
            outcome = Outcome.of(self.target.labels, scorable.subject, scorable.truth, said)
            return outcome.to_json()

        shown = None if source.fixed else seed
        facts = self._facts(ZERO_SHOT, BY_SUBJECT, Amount("none"), shown, source, seed)
        return Cell(f"{source.name}, zero-shot, seed {seed}", facts, make)

    def _cell(
        self, setting: str, split: str, amount: Amount, seed: int, source: Source | None
    ) -> Cell:
        def make() -> dict[str, Any]:
            predict = self._predict(setting, seed, source)
            return self._over_folds(split, amount, seed, predict)

        name = FOREST if source is None else f"{source.name}, {setting}"
        title = f"{name}, {split}, {amount.name}, seed {seed}"
        return Cell(title, self._facts(setting, split, amount, seed, source, seed), make)

    def _facts(
        self,
        setting: str,
        split: str,
        amount: Amount,
        seed: int | None,
        source: Source | None,
        model_seed: int,
    ) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "protocol": "settings",
            "name": FOREST if source is None else source.name,
            "setting": setting,
            "split": split,
            "amount": amount.name,
            "seed": seed,
            "target": self.target.facts,
        }
        if setting != ZERO_SHOT:
            facts["folds"] = self._folds
            facts["head_sees"] = "embedding, gravity"
        if setting == FINE_TUNING:
            facts["epochs"] = self._epochs
        if source is not None:
            facts["model"] = source.facts(model_seed)
            facts["text"] = self.workshop.text_facts(source.text_encoder)
        return facts

    def _predict(self, setting: str, seed: int, source: Source | None) -> Predict:
        """How a setting learns from some windows and names others."""
        scorable = self.scorable()
        label = scorable.truth
        if source is None:
            features = self.features()
            return lambda train, test: forest_head(
                features[train], label[train], features[test], seed
            )
        if setting == TRANSFER:
            vectors = np.hstack([self._embeddings(source, seed), self.gravity()])
            return lambda train, test: linear_head(vectors[train], label[train], vectors[test])
        prototypes = self.workshop.prototypes(self.target.labels, source.text_encoder)
        encoder: Any = source.load(seed)

        def tune(train: Rows, test: Rows) -> NDArray[np.integer[Any]]:
            rows = scorable.rows
            tuned = fine_tune(
                encoder, prototypes, scorable.imu, rows[train], label[train], seed, self._epochs
            )
            logits = embed(tuned, scorable.imu, rows[test])
            return np.asarray(logits.argmax(axis=1))

        return tune

    def _over_folds(
        self, split: str, amount: Amount, seed: int, predict: Predict
    ) -> dict[str, Any]:
        """Train and test on every fold; each window is tested on once."""
        scorable = self.scorable()
        said = np.full(len(scorable.rows), -1)
        for number, fold in enumerate(self.splits(split, seed)):
            rng = np.random.default_rng([seed, number])
            labelled = amount.draw(fold.train, scorable.truth, rng)
            said[fold.test] = predict(labelled, fold.test)
        outcome = Outcome.of(self.target.labels, scorable.subject, scorable.truth, said)
        return outcome.to_json()

    def _splits(self, split: str, seed: int) -> list[Split]:
        scorable = self.scorable()
        if split == RANDOM_WINDOWS:
            return random_window_folds(len(scorable.rows), self._folds, seed)
        return subject_folds(scorable.subject, self._folds, seed)

    def _embeddings(self, source: Source, seed: int) -> NDArray[np.float32]:
        """(M, D) of all scorable windows; those of the last encoder are kept."""
        key = source.facts(seed)
        if self._embedded is None or self._embedded[0] != key:
            scorable = self.scorable()
            self._embedded = key, embed(source.load(seed), scorable.imu, scorable.rows)
        return self._embedded[1]

    def _features(self) -> NDArray[np.float32]:
        return np.concatenate([features(imu) for imu in self._windows()])

    def _gravity(self) -> NDArray[np.float32]:
        """(M, 3) of all scorable windows."""
        found = [gravity(torch.from_numpy(np.asarray(w, np.float32))) for w in self._windows()]
        return torch.cat(found).numpy()

    def _windows(self) -> Iterator[NDArray[Any]]:
        """All scorable windows, about a thousand at a time."""
        scorable = self.scorable()
        for rows in np.array_split(scorable.rows, max(1, len(scorable.rows) // 1024)):
            yield scorable.imu[rows]
