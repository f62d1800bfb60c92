"""Naming an embedding in the user's words: cosine with text prototypes, softmax over the label set.

A bundle may decide by more than the cosine: by what its encoder was trained on and by the posture
that gravity shows (`edge/decision.py`).

CLIP's raw text vectors all point roughly the same way (cosines of 0.6 to 0.97 whatever the
phrase), so prototypes are centred on the mean text vector and normalised before they are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.decision import LabelDecision
from edge.posture import UNKNOWN, PostureEvidence
from edge.text import TextEncoder, centred


class Score(NamedTuple):
    """One label's score for one window."""

    label: str
    similarity: float
    """Cosine of the window's embedding and the label's prototype, -1 to 1."""

    probability: float
    """Share of the label in the softmax over the label set: how it compares with the other
    labels, not whether the activity is present (`Verdict.presence`). A bundle's decision may rank
    the labels otherwise than their similarities do; then so do the probabilities."""


class Verdict(NamedTuple):
    """What a label set says of one window."""

    top: tuple[Score, ...]
    """The best labels, best first, whether or not one of them fits."""

    presence: float | None
    """Expected cosine, in text, of what the window seems to be with the label that comes nearest to
    that; None where the bundle's decision does not ask for it."""

    unknown: bool
    """Whether none of the labels fits: presence is below the bundle's threshold."""

    posterior: NDArray[np.float64]
    """(L,) the probabilities of all labels, in the label set's order."""


@dataclass(frozen=True)
class LabelSet:
    """The labels to choose from and their prototypes."""

    names: tuple[str, ...]
    prototypes: NDArray[np.float32]
    """(L, D) centred unit vectors."""

    made_by: tuple[str, ...]
    """Name of the text encoder that made each prototype."""

    decision: LabelDecision | None = None
    """What else decides between them; None: the cosine alone."""

    @cached_property
    def _compared(self) -> NDArray[np.float32]:
        """(L + V, D) all that an embedding is compared with, in one product; without the vocabulary
        where nothing asks for it."""
        if self.decision is None or not self.decision.rule.asks_vocabulary:
            return self.prototypes
        return np.concatenate([self.prototypes, self.decision.vocabulary])

    def classify(
        self,
        embedding: NDArray[np.float32],
        logit_scale: float,
        top: int,
        segment: str = UNKNOWN,
        evidence: PostureEvidence | None = None,
    ) -> tuple[Score, ...]:
        """The `top` best labels of a window, best first: `judge`, forced to choose."""
        return self.judge(embedding, logit_scale, top, segment, evidence).top

    def judge(
        self,
        embedding: NDArray[np.float32],
        logit_scale: float,
        top: int,
        segment: str = UNKNOWN,
        evidence: PostureEvidence | None = None,
    ) -> Verdict:
        """The `top` best labels of a window, and whether one of them fits.

        Args:
            embedding: (D,) unit vector.
            logit_scale: multiplier of the cosines.
            top: how many labels to return.
            segment: body segment that the device is worn on (`edge.posture.SEGMENTS`).
            evidence: the window's angles, where it has any.
        """
        n = len(self.names)
        cosine = (self._compared @ embedding).astype(np.float64)
        similarity = cosine[:n]
        presence, unknown = None, False
        if self.decision is None:
            score = logit_scale * similarity
        else:
            score, presence = self.decision.scores(
                similarity, logit_scale, cosine[n:], segment, evidence
            )
            unknown = self.decision.is_unknown(presence)
        odds = np.exp(score - score.max())
        probability = odds / odds.sum()
        best = (-score).argsort(kind="stable")[:top].tolist()
        scores = tuple(
            Score(self.names[i], float(similarity[i]), float(probability[i])) for i in best
        )
        return Verdict(scores, presence, unknown, probability)


def prototype(captions: Sequence[str], encoder: TextEncoder) -> NDArray[np.float32]:
    """Prototype of one label: its captions embedded, centred, averaged and renormalised.

    Returns:
        (D,) unit vector. Averaging over prompt templates follows CLIP (Radford et al. 2021,
        section 3.1.4).
    """
    mean = centred(encoder.encode(captions), encoder.centre).mean(axis=0)
    unit: NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit
