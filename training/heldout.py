"""Windows of corpora that a checkpoint was not trained on, and all that decides on them.

What is chosen here (`training/fit_decision.py`) is the decision of the runtime: every score and
presence comes out of `edge.zeroshot.LabelSet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge.decision import Decision, LabelDecision
from edge.evaluate import macro_f1
from edge.posture import PostureEvidence, posture_evidence, segment_of
from edge.text import TextEncoder
from edge.zeroshot import LabelSet
from firmware_bridge.errors import InputError
from training.captions import Activity, activity_of, label_bank, with_trained
from training.posture_tables import (
    Angles,
    angles_of,
    fit_tables,
    upright_directions,
    worn,
)
from training.protocols.corpora import Library, Scorable, target_of
from training.protocols.workshop import read_encoder
from training.run import MAX_LOGIT_SCALE, config_of
from training.scoring import embed, label_prototypes
from training.text_encoders import load_text_encoder

MAX_WINDOWS = 6000
"""Of each held-out corpus, drawn with a fixed seed."""

_NOT_SCORED = "fall"
"""Group of labels that are left out: they name a whole trial, most of which is no fall."""

Matrix = NDArray[np.float64]

ALL_LABELS, EVERYDAY = "all", "everyday"
"""Label sets that a decision is fitted to, equally: what helps among the thirty labels of a corpus
may harm among the six that a user names."""


@dataclass(frozen=True)
class Choice:
    """What is chosen on held-out corpora."""

    bridge_weight: float = 0.0
    bridge_temperature: float = 0.05
    vocabulary_factor: float = 1.0
    """Logit scale over the vocabulary, of the checkpoint's own."""

    posture_weight: float = 0.0
    temperature: float = 1.0
    level_novel: bool = False
    """Whether labels that were not trained are put on the footing of those that were."""


def decision_record(tables: dict[str, Any], choice: Choice, logit_scale: float) -> dict[str, Any]:
    """A manifest's `decision`, less the rows of the vocabulary, which only a bundle has."""
    return {
        **({"level_novel_labels": True} if choice.level_novel else {}),
        "vocabulary": {"logit_scale": round(choice.vocabulary_factor * logit_scale, 4)},
        "bridge": {"weight": choice.bridge_weight, "temperature": choice.bridge_temperature},
        "posture": {"weight": choice.posture_weight, **tables},
        "temperature": round(choice.temperature, 4),
    }


@dataclass(frozen=True)
class Heldout:
    """Windows of a corpus that a checkpoint was not trained on, and all that decides on them."""

    corpus: str
    trained_on: tuple[str, ...]
    steps: int
    logit_scale: float
    rule: Decision
    """Its posture tables know nothing of the corpus either."""

    bank: NDArray[np.float32]
    """(A, D) prototypes of what the checkpoint was trained on and of the corpus' labels."""

    labels: tuple[str, ...]
    rows: tuple[int | None, ...]
    """Of each label in the bank."""

    prototypes: NDArray[np.float32]
    """(L, D)"""

    embeddings: NDArray[np.float32]
    """(N, D)"""

    truth: NDArray[np.int64]
    """(N,) row of `labels`."""

    placement: NDArray[np.str_]
    """(N,)"""

    evidence: tuple[PostureEvidence | None, ...]
    """(N,)"""

    reference: NDArray[np.float32]
    """(R, D) the checkpoint's reference embeddings."""

    label_set: str = ALL_LABELS
    """Which of the corpus' labels there are to choose from."""

    def everyday(self) -> Heldout | None:
        """Those windows that show how people move and rest, with only such labels to choose from:
        what a user names first, unlike all that a corpus has. None where fewer than three are left.
        """
        activities = [activity_of(label) for label in self.labels]
        wanted = [row for row, a in enumerate(activities) if a.group == "locomotion" or a.posture]
        if not 3 <= len(wanted) < len(self.labels):
            return None
        chosen = np.flatnonzero(np.isin(self.truth, wanted))
        return replace(
            self,
            label_set=EVERYDAY,
            labels=tuple(self.labels[row] for row in wanted),
            rows=tuple(self.rows[row] for row in wanted),
            prototypes=self.prototypes[wanted],
            embeddings=self.embeddings[chosen],
            truth=np.searchsorted(wanted, self.truth[chosen]),
            placement=self.placement[chosen],
            evidence=tuple(self.evidence[n] for n in chosen.tolist()),
        )

    def log_probabilities(self, choice: Choice) -> Matrix:
        """(N, L) as the runtime would give them with these weights."""
        labels = self._label_set(choice)
        segment = {p: segment_of(p) for p in np.unique(self.placement).tolist()}
        n_labels = len(self.labels)
        probability = np.empty((len(self.truth), n_labels))
        for n, (embedding, evidence) in enumerate(zip(self.embeddings, self.evidence, strict=True)):
            worn_on = segment[str(self.placement[n])]
            for score in labels.classify(embedding, self.logit_scale, n_labels, worn_on, evidence):
                probability[n, int(score.label)] = score.probability
        return np.asarray(np.log(np.maximum(probability, np.finfo(np.float64).tiny)))

    def presence(self, choice: Choice, left_out: int | None = None) -> NDArray[np.float64]:
        """(N,) as the runtime would give it with these weights.

        Args:
            choice: the weights.
            left_out: row of a label that nobody asked for; at least one other is needed.
        """
        labels = self._label_set(choice, left_out)
        verdicts = [labels.judge(embedding, self.logit_scale, 1) for embedding in self.embeddings]
        return np.array([verdict.presence for verdict in verdicts], np.float64)

    def _label_set(self, choice: Choice, left_out: int | None = None) -> LabelSet:
        """The labels, named by their rows, and the decision between them."""
        rule = replace(
            self.rule,
            vocabulary_scale=choice.vocabulary_factor * self.logit_scale,
            bridge_weight=choice.bridge_weight,
            bridge_temperature=choice.bridge_temperature,
            posture_weight=choice.posture_weight,
            temperature=choice.temperature,
            levels_novel=choice.level_novel,
            reject_below=-1.0,  # rejects nothing, and asks for the presence
        )
        wanted = [row for row in range(len(self.labels)) if row != left_out]
        prototypes, rows = self.prototypes[wanted], [self.rows[row] for row in wanted]
        decision = LabelDecision.between(rule, self.bank, prototypes, rows, self.reference)
        return LabelSet(tuple(map(str, wanted)), prototypes, ("",) * len(wanted), decision)

    def cells(self) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """Each placement and its windows."""
        for placement in np.unique(self.placement).tolist():
            yield placement, np.flatnonzero(self.placement == placement)

    def macro_f1(self, scores: Matrix) -> list[float]:
        """Of each placement, by (N, L) scores."""
        n = len(self.labels)
        pairs = self.truth * n + scores.argmax(axis=1)
        return [
            macro_f1(np.bincount(pairs[rows], minlength=n * n).reshape(n, n))
            for _, rows in self.cells()
        ]

    def to_json(self) -> dict[str, Any]:
        """What it is, for the manifest."""
        return {
            "corpus": self.corpus,
            "labels": self.label_set,
            "windows": len(self.truth),
            "trained_on": list(self.trained_on),
            "steps": self.steps,
        }


class Fitting:
    """Reads corpora, checkpoints and captions, each once."""

    def __init__(self, library: Library, console: Console) -> None:
        self._library = library
        self._console = console
        self._encoders: dict[str, TextEncoder] = {}
        self._prototypes: dict[tuple[str, str], NDArray[np.float32]] = {}

    def angles(self, folder: Path) -> Angles:
        """The angles of a corpus.

        Raises:
            InputError: not a corpus, or one of role "benchmark".
        """
        windows = self._library.windows(folder, "train")
        return angles_of(windows, self._library.kept(folder))

    def heldout(self, text: str, angles: Sequence[Angles]) -> Iterator[Heldout]:
        """What `CHECKPOINT:CORPUS[,CORPUS...]` names.

        Args:
            text: the option's value.
            angles: of all corpora; those of the held-out one are left out of its tables.

        Raises:
            InputError: a checkpoint or corpus cannot be used, or the one was trained on the other.
        """
        checkpoint, colon, corpora = text.rpartition(":")
        if not colon or not checkpoint or not corpora:
            raise InputError(f"--heldout {text!r}: expected CHECKPOINT:CORPUS[,CORPUS...]")
        encoder, state = read_encoder(Path(checkpoint))
        if "reference" not in state:
            raise InputError(
                f"{checkpoint}: holds no reference embeddings, which come with the end of a "
                "training: finish it with `edge-train fit --resume`, or train it again"
            )
        trained = {
            *state["provenance"]["corpora"],
            *(Path(c).name for c in config_of(state).corpora),
        }
        for folder in map(Path, corpora.split(",")):
            name = self._library.windows(folder, "train").corpus  # refuses a benchmark
            if name in trained:
                raise InputError(
                    f"{checkpoint}: was trained on {name}; hold out a corpus that it has never seen"
                )
            yield self._heldout(encoder, state, folder, angles)

    def _heldout(
        self, encoder: Any, state: dict[str, Any], folder: Path, angles: Sequence[Angles]
    ) -> Heldout:
        windows, config = self._library.windows(folder, "train"), config_of(state)
        scorable, labels = self._scorable(folder)
        names = [activity_of(label).name for label in labels]
        bank, vocabulary = _bank_of(state["provenance"]["activities"], names)
        row_of = {activity.name: row for row, activity in enumerate(bank)}
        scale = min(float(state["log_logit_scale"].exp()), MAX_LOGIT_SCALE)
        others = fit_tables([a for a in angles if a.corpus != windows.corpus])
        record = decision_record(others, Choice(), scale)
        record["vocabulary"]["rows"] = vocabulary
        entries = [{"name": a.name, "posture": a.posture} for a in bank]
        rule = Decision.parse({"label_bank": entries, "decision": record})
        assert rule is not None  # there is a decision in it
        uprights = upright_directions(windows, self._library.kept(folder))
        return Heldout(
            windows.corpus,
            tuple(state["provenance"]["corpora"]),
            state["step"],
            scale,
            rule,
            self._embedded([a.name for a in bank], config.text_encoder),
            labels,
            tuple(row_of.get(name) for name in names),
            self._embedded(names, config.text_encoder),
            embed(encoder, scorable.imu, scorable.rows),
            scorable.truth,
            scorable.placement,
            tuple(
                posture_evidence(
                    np.asarray(windows.imu[row], np.float32), uprights.get(worn(windows, row))
                )
                for row in scorable.rows.tolist()
            ),
            state["reference"].float().numpy(),
        )

    def _scorable(self, folder: Path) -> tuple[Scorable, tuple[str, ...]]:
        """Some windows of a corpus, and the labels that are told apart."""
        target = target_of(folder, None)
        mapping = {
            own: text
            for own, text in target.mapping.items()
            if activity_of(text).group != _NOT_SCORED
        }
        target = replace(target, mapping=mapping)
        scorable = self._library.scorable(target)
        rng = np.random.default_rng(0)
        drawn = np.sort(rng.permutation(len(scorable.rows))[:MAX_WINDOWS])
        some = replace(
            scorable,
            rows=scorable.rows[drawn],
            truth=scorable.truth[drawn],
            subject=scorable.subject[drawn],
            placement=scorable.placement[drawn],
        )
        return some, target.labels

    def _embedded(self, names: Sequence[str], text_encoder: str) -> NDArray[np.float32]:
        """(A, D) prototypes of activities."""
        if text_encoder not in self._encoders:
            self._encoders[text_encoder] = load_text_encoder(text_encoder)
        encoder = self._encoders[text_encoder]
        lacking = [n for n in dict.fromkeys(names) if (text_encoder, n) not in self._prototypes]
        for name in track(lacking, "captions", console=self._console, transient=True):
            (self._prototypes[text_encoder, name],) = label_prototypes([name], encoder)
        return np.stack([self._prototypes[text_encoder, name] for name in names])


def _bank_of(
    trained: Sequence[str], wanted: Sequence[str]
) -> tuple[tuple[Activity, ...], list[int]]:
    """As much of a bundle's bank as decides between the wanted activities, and the rows of what the
    encoder was trained on.

    An activity of the bank claims its own posture: only for others is the whole bank looked at,
    which takes minutes to embed.
    """
    bank, rows = with_trained(label_bank(), trained)
    if not {activity.name for activity in bank} >= set(wanted):
        return bank, rows
    needed = {*wanted, *(bank[row].name for row in rows)}
    return with_trained([activity for activity in bank if activity.name in needed], trained)
