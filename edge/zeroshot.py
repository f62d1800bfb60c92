"""Naming an embedding in the user's words: cosine with text prototypes, softmax over the label set.

CLIP's raw text vectors all point roughly the same way (cosines of 0.6 to 0.97 whatever the
phrase), so prototypes are centred on the mean text vector and normalised before they are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.text import TextEncoder, centred


class Score(NamedTuple):
    """One label's score for one window."""

    label: str
    similarity: float
    """Cosine of the window's embedding and the label's prototype, -1 to 1."""

    probability: float
    """Share of the label in the softmax over the label set: how it compares with the other
    labels, not whether the activity is present."""


@dataclass(frozen=True)
class LabelSet:
    """The labels to choose from and their prototypes."""

    names: tuple[str, ...]
    prototypes: NDArray[np.float32]
    """(L, D) centred unit vectors."""

    made_by: tuple[str, ...]
    """Name of the text encoder that made each prototype."""

    def classify(
        self, embedding: NDArray[np.float32], logit_scale: float, top: int
    ) -> tuple[Score, ...]:
        """The `top` best labels of a (D,) unit vector, best first."""
        similarity = (self.prototypes @ embedding).astype(np.float64)
        odds = np.exp(logit_scale * (similarity - similarity.max()))
        probability = (odds / odds.sum()).tolist()
        best = (-similarity).argsort(kind="stable")[:top].tolist()
        cosine = similarity.tolist()
        return tuple(Score(self.names[i], cosine[i], probability[i]) for i in best)


def prototype(captions: Sequence[str], encoder: TextEncoder) -> NDArray[np.float32]:
    """Prototype of one label: its captions embedded, centred, averaged and renormalised.

    Returns:
        (D,) unit vector. Averaging over prompt templates follows CLIP (Radford et al. 2021,
        section 3.1.4).
    """
    mean = centred(encoder.encode(captions), encoder.centre).mean(axis=0)
    unit: NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit
