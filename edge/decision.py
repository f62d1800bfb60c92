"""How a bundle's labels are decided between: `decision` of its manifest, see `export/BUNDLE.md`.

Three things speak for a label: the cosine of the window's embedding with the label's own prototype,
levelled where that was not trained; the activities that the encoder was trained on, whose
probabilities are carried over to the label by the similarity of the texts (the bridge); and the
posture that gravity shows.

How a label compares with the others does not say that its activity is there. What does is presence:
how close in text the labels come to what the window seems to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.posture import POSTURES, LogLikelihoods, PostureEvidence, PostureTables
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    from edge.personal.examples import ExampleAngles

SAME_COSINE = 1 - 1e-5
"""Text vectors closer than this are those of one and the same label; float32 rounds within it."""

_LEAST_DEVIATION = 1e-6
"""Of cosines: keeps a division finite."""

_BRIDGE_FLOOR = 1e-4
"""Added to the bridge's probabilities: a label that it knows nothing of is unlikely, never ruled
out."""

_POSTURE_TEMPERATURE = 0.05
"""Of the softmax over the bank that guesses the posture of a label outside it: only the few
activities that are closest in text take part."""


@dataclass(frozen=True)
class Decision:
    """The manifest's `decision`, and the postures of its label bank."""

    vocabulary_rows: NDArray[np.intp]
    """(V,) rows of the label bank that the encoder was trained on."""

    vocabulary_scale: float
    """Multiplier of the cosines in the softmax over the vocabulary."""

    bridge_weight: float
    """0: only the label's own cosine counts. 1: only the bridge."""

    bridge_temperature: float

    posture_weight: float

    tables: PostureTables

    temperature: float
    """Of the probabilities; it changes no label."""

    bank_postures: NDArray[np.float64]
    """(A, 4) one-hot: the posture that each activity of the bank claims; the last: none."""

    reject_below: float | None = None
    """A window of less presence is unknown; None: none ever is."""

    levels_novel: bool = False
    """Whether labels that were not trained are put on the footing of those that were."""

    @property
    def asks_vocabulary(self) -> bool:
        """Whether it counts what a window seems to be among the trained activities."""
        return self.bridge_weight > 0 or self.reject_below is not None

    @classmethod
    def parse(cls, manifest: dict[str, Any]) -> Decision | None:
        """The decision of a manifest; None if it has none (format 1).

        Raises:
            InputError: it is malformed, and where.
        """
        if "decision" not in manifest:
            return None
        record = manifest["decision"]
        if not isinstance(record, dict):
            raise InputError("decision: expected an object")
        bank = manifest["label_bank"]
        vocabulary, bridge, posture = (
            _section(record, key) for key in ("vocabulary", "bridge", "posture")
        )
        return cls(
            _rows(vocabulary.get("rows"), len(bank)),
            _number(vocabulary, "decision.vocabulary.logit_scale", above=0.0),
            _number(bridge, "decision.bridge.weight", at_most=1.0),
            _number(bridge, "decision.bridge.temperature", above=0.0),
            _number(posture, "decision.posture.weight"),
            PostureTables.parse(posture),
            _number(record, "decision.temperature", above=0.0),
            _bank_postures(bank),
            _reject_below(record),
            _levels_novel(record),
        )


def _section(record: dict[str, Any], key: str) -> dict[str, Any]:
    section = record.get(key)
    if not isinstance(section, dict):
        raise InputError(f"decision.{key}: expected an object")
    return section


def _number(
    record: dict[str, Any], path: str, above: float = -math.inf, at_most: float = math.inf
) -> float:
    """A finite number that is not negative, named by the last part of its path."""
    value: Any = record.get(path.rsplit(".", maxsplit=1)[-1])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and 0 <= value <= at_most and value > above):
        limits = f" up to {at_most:g}" if at_most < math.inf else ""
        least = "above 0" if above == 0 else "of 0 or more"
        raise InputError(f"{path}: expected a number {least}{limits}, found {value!r}")
    return float(value)


def _reject_below(record: dict[str, Any]) -> float | None:
    if "reject" not in record:
        return None
    below: Any = _section(record, "reject").get("below")
    if type(below) not in (int, float) or not -1 <= below <= 1:
        raise InputError(f"decision.reject.below: expected a cosine, -1 to 1, found {below!r}")
    return float(below)


def _levels_novel(record: dict[str, Any]) -> bool:
    levels: Any = record.get("level_novel_labels", False)
    if not isinstance(levels, bool):
        raise InputError(f"decision.level_novel_labels: expected true or false, found {levels!r}")
    return levels


def _rows(rows: Any, bank_size: int) -> NDArray[np.intp]:
    good = isinstance(rows, list) and all(type(r) is int and 0 <= r < bank_size for r in rows)
    if not good or not rows or len(set(rows)) < len(rows):
        raise InputError(
            f"decision.vocabulary.rows: expected different rows of the label bank (0 to "
            f"{bank_size - 1})"
        )
    return np.array(rows, np.intp)


def _bank_postures(bank: list[dict[str, Any]]) -> NDArray[np.float64]:
    one_hot = np.zeros((len(bank), len(POSTURES) + 1))
    for row, activity in enumerate(bank):
        posture = activity.get("posture")
        if posture is not None and posture not in POSTURES:
            raise InputError(
                f"label_bank, {activity.get('name')!r}: posture {posture!r} is none of "
                f"{', '.join(POSTURES)}"
            )
        one_hot[row, len(POSTURES) if posture is None else POSTURES.index(posture)] = 1
    return one_hot


@dataclass(frozen=True)
class Footing:
    """What puts labels that the encoder was not trained on upon the footing of those it was.

    Training compares the cosines of its own activities with each other, so these are on one scale.
    Of other labels some prototypes come close to every window and some to none (hubness,
    Radovanovic et al. 2010): their cosines are shifted and stretched until they are as high and
    spread as much, over windows of all kinds, as is usual for what was trained.
    """

    gain: NDArray[np.float64]
    """(L,) 1 for what was trained."""

    offset: NDArray[np.float64]
    """(L,) 0 for what was trained."""

    @classmethod
    def of(
        cls,
        reference: NDArray[np.float32],
        prototypes: NDArray[np.float32],
        vocabulary: NDArray[np.float32],
    ) -> Footing:
        """From (R, D) embeddings of windows of all kinds, (L, D) labels and (V, D) activities."""
        mean, deviation = usual_cosines(reference, prototypes)
        trained_mean, trained_deviation = (
            np.median(x) for x in usual_cosines(reference, vocabulary)
        )
        trained = (_unit(prototypes) @ _unit(vocabulary).T).max(axis=1) >= SAME_COSINE
        gain = np.where(trained, 1.0, trained_deviation / deviation)
        return cls(gain, np.where(trained, 0.0, trained_mean - gain * mean))


def usual_cosines(
    reference: NDArray[np.float32], prototypes: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) mean and standard deviation of each prototype's cosine over (R, D) reference embeddings;
    the latter never quite 0."""
    cosine = reference.astype(np.float64) @ prototypes.T.astype(np.float64)
    # A prototype may be at right angles to all embeddings; nothing tells it then, but no NaN.
    return cosine.mean(axis=0), np.maximum(cosine.std(axis=0), _LEAST_DEVIATION)


@dataclass(frozen=True)
class LabelDecision:
    """A decision, worked out for one label set."""

    rule: Decision

    vocabulary: NDArray[np.float32]
    """(V, D) prototypes of the activities that the encoder was trained on."""

    transfer: NDArray[np.float64]
    """(V, L) share of each of them that goes to each label; rows add up to 1."""

    postures: NDArray[np.float64]
    """(L, 4) share of each posture, and of none, in each label; rows add up to 1."""

    nearest: NDArray[np.float64]
    """(V,) cosine of each activity of the vocabulary with the label that comes nearest to it."""

    footing: Footing | None = None
    """None where the rule takes all cosines as they are."""

    angles: ExampleAngles | None = None
    """Of the examples that a wearer gave of some labels (`edge/personal/examples.py`)."""

    _by_segment: dict[str, LogLikelihoods] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def between(
        cls,
        rule: Decision,
        bank: NDArray[np.float32],
        prototypes: NDArray[np.float32],
        rows: Sequence[int | None],
        reference: NDArray[np.float32] | None = None,
    ) -> LabelDecision:
        """Work a decision out.

        Args:
            rule: the bundle's.
            bank: (A, D) prototypes of its label bank.
            prototypes: (L, D) of the labels to decide between.
            rows: each label's row in the bank; None for a label outside it.
            reference: (R, D) the bundle's reference embeddings, where the rule asks for them.
        """
        vocabulary = bank[rule.vocabulary_rows]
        footing = None
        if rule.levels_novel:
            if reference is None:
                raise ValueError("levelling novel labels needs reference embeddings")
            footing = Footing.of(reference, prototypes, vocabulary)
        return cls(
            rule,
            vocabulary,
            transfer_matrix(vocabulary, prototypes, rule.bridge_temperature),
            _label_postures(rule.bank_postures, bank, prototypes, rows),
            (_unit(vocabulary) @ _unit(prototypes).T).max(axis=1),
            footing,
        )

    def scores(
        self,
        cosine: NDArray[np.float64],
        logit_scale: float,
        vocabulary_cosine: NDArray[np.float64],
        segment: str,
        evidence: PostureEvidence | None,
    ) -> tuple[NDArray[np.float64], float | None]:
        """What the labels of a window are ranked by, and its presence.

        Args:
            cosine: (L,) of the labels' own prototypes.
            logit_scale: multiplier of the cosines.
            vocabulary_cosine: (V,) of the embedding with the vocabulary; not looked at where the
                rule does not ask for it.
            segment: body segment that the device is worn on (`edge.posture.SEGMENTS`).
            evidence: the window's angles, where it has any.

        Returns:
            (L,) scores, whose softmax gives the probabilities; and the expected cosine, in text, of
            what the window seems to be with the label that comes nearest to that, -1 to 1: None
            where the rule does not ask.
        """
        rule, presence = self.rule, None
        if self.footing is not None:
            cosine = self.footing.gain * cosine + self.footing.offset
        logits = logit_scale * cosine
        if rule.asks_vocabulary:
            odds = np.exp(rule.vocabulary_scale * (vocabulary_cosine - vocabulary_cosine.max()))
            seems = odds / odds.sum()
            presence = float(seems @ self.nearest)
            bridged = np.log(seems @ self.transfer + _BRIDGE_FLOOR)
            # As a log-probability; what the softmax would take away again is not worked out else.
            own = logits - logits.max()
            own -= np.log(np.exp(own).sum())
            logits = (1 - rule.bridge_weight) * own + rule.bridge_weight * bridged
        score: NDArray[np.float64] = (
            logits + rule.posture_weight * self._likelihoods(segment).of(evidence)
        ) / rule.temperature
        return score, presence

    def _likelihoods(self, segment: str) -> LogLikelihoods:
        """Of the labels, worked out once."""
        if segment not in self._by_segment:
            likelihoods = self.rule.tables.log_likelihoods(self.postures, segment)
            if self.angles is not None:
                likelihoods = self.angles.joined(likelihoods, segment)
            self._by_segment[segment] = likelihoods
        return self._by_segment[segment]

    def is_unknown(self, presence: float | None) -> bool:
        """Whether a window of this presence is none of the labels."""
        below = self.rule.reject_below
        return below is not None and presence is not None and presence < below


def transfer_matrix(
    activities: NDArray[np.float32], labels: NDArray[np.float32], temperature: float
) -> NDArray[np.float64]:
    """How activities hand their probability on to labels, by the similarity of their texts.

    Each activity gives to the labels in the proportions of the softmax of their cosines with it. An
    activity that is itself a wanted label keeps all of its own (shared equally if the label is
    wanted under several names of one vector).

    Args:
        activities: (V, D) prototypes.
        labels: (L, D) prototypes in the same space.
        temperature: what the cosines are divided by; the smaller, the more goes to the nearest.

    Returns:
        (V, L); rows add up to 1.
    """
    # Prototypes that were stored as float16 are longer or shorter than 1 by more than SAME_COSINE
    # allows for.
    cosine = _unit(activities) @ _unit(labels).T
    odds = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / temperature)
    same = cosine >= SAME_COSINE
    given = np.where(same.any(axis=1, keepdims=True), same, odds)
    shares: NDArray[np.float64] = given / given.sum(axis=1, keepdims=True)
    return shares


def _label_postures(
    bank_postures: NDArray[np.float64],
    bank: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    rows: Sequence[int | None],
) -> NDArray[np.float64]:
    """(L, 4): a label of the bank claims its posture, any other those of what is close in text."""
    cosine = _unit(prototypes) @ _unit(bank).T
    odds = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / _POSTURE_TEMPERATURE)
    postures: NDArray[np.float64] = odds @ bank_postures / odds.sum(axis=1, keepdims=True)
    for label, row in enumerate(rows):
        if row is not None:
            postures[label] = bank_postures[row]
    return postures


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = vectors.astype(np.float64)
    unit: NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit
