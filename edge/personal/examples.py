"""What examples add to a label's text: a prototype that was seen, and the device's angles.

No gradients: one linear system. The examples' mean embedding is told apart from windows of all
kinds, the bundle's reference embeddings, as Fisher's linear discriminant does with the covariance
of a background in the place of each class's own (Hariharan, Malik and Ramanan 2012,
"Discriminative Decorrelation for Clustering and Classification"). Subtracting their mean also
closes the gap between embeddings and texts, which lie in different parts of the sphere.

The label is then recognised by both, its text as the prior: as a posterior mean does, the examples
weigh n / (n + k) after n windows that do not overlap. A label that the bundle's bank does not know
rests on its examples alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.decision import Footing, LabelDecision, usual_cosines
from edge.posture import SEGMENTS, LogLikelihoods, segment_of
from edge.spec import SIGNAL

PRIOR_WINDOWS = 1.0
"""k: windows of examples that a known label's text is worth. With half of it labels gain more on
average, but some that were known well lose at 5 s. This, the ridge, the spread and the reach were
chosen on training corpora, by encoders that had not seen them (umafall, wisdm, dsads)."""

_RIDGE = 0.3 / 128
"""Added to the reference's covariance, as a share of its total variance: a third of the mean
variance along one of the 128 directions that embeddings have."""

_SPREAD, _REACH = 0.5, 2.5
"""How far cosines with examples spread over windows of all kinds, against those with trained
texts: less, for a wearer's own examples fit so well that other windows would be taken along; but
as far (never farther than texts) as puts the examples' mean that many standard deviations above
what is usual, or those of everyday rest, which many windows resemble, would not be recognised."""

_SMOOTH_DEG, _UNIFORM = 10.0, 0.1
"""Angles of examples are smoothed as the bundle's own tables are (`training/README.md`)."""

_OVERLAP = SIGNAL.window_s
"""Windows a second apart that make one which overlaps with none of them: 5."""


@dataclass(frozen=True)
class Take:
    """Examples of a label from one go: N valid windows, a second apart."""

    embeddings: NDArray[np.float32]
    """(N, D) unit vectors."""

    face_deg: NDArray[np.float32]
    """(N,) angle of the device's flat face from vertical; NaN without a steady direction."""

    tilt_deg: NDArray[np.float32]
    """(N,) angle from the wearer's upright direction; NaN where that was not known."""

    placement: str | None
    """Where the device was worn, in words; None if that was not told."""

    @property
    def segment(self) -> str:
        """The body segment that it was worn on (`edge.posture.SEGMENTS`)."""
        return segment_of(self.placement)

    @property
    def windows(self) -> float:
        """How many windows it is worth that do not overlap; overlapping ones share signal."""
        return (len(self.embeddings) - 1) / _OVERLAP + 1


def teach(
    prototypes: NDArray[np.float32],
    decision: LabelDecision,
    examples: Mapping[int, Sequence[Take]],
    text_known: Sequence[bool],
    reference: NDArray[np.float32],
    manifest: dict[str, Any],
) -> tuple[NDArray[np.float32], LabelDecision]:
    """Let examples decide on some of the labels, and leave all others as they are, bit by bit.

    Args:
        prototypes: (L, D) of the labels' texts; what stands for a text that is not known does not
            matter.
        decision: between these labels.
        examples: label's index -> its takes, one or more.
        text_known: (L,) whether a label's prototype is that of its text.
        reference: (R, D) embeddings of windows of all kinds.
        manifest: the bundle's, whose posture tables say which angles are usual.

    Returns:
        (L, D) prototypes, unit vectors, and the decision that goes with them.
    """
    background = _Background.of(reference)
    level, deviation = (float(np.median(x)) for x in usual_cosines(reference, decision.vocabulary))
    taught, postures = prototypes.copy(), decision.postures.copy()
    gain = np.ones(len(prototypes))
    offset = np.zeros(len(prototypes))
    if decision.footing is not None:
        gain, offset = decision.footing.gain.copy(), decision.footing.offset.copy()
    for label, takes in examples.items():
        mean = _mean(takes)
        direction, usual, usual_deviation = background.direction(mean)
        height = (float(mean @ direction) - usual) / usual_deviation
        spread = min(max(_SPREAD, _REACH / height), 1.0)
        stretch = spread * deviation / usual_deviation
        share = _share(takes, text_known[label])
        # Cosines with the text and with the examples are both linear in the embedding, so their
        # weighted mean is one prototype again, with a gain and an offset.
        both = (1 - share) * gain[label] * prototypes[label] + share * stretch * direction
        gain[label] = np.linalg.norm(both)
        taught[label] = both / gain[label]
        offset[label] = (1 - share) * offset[label] + share * (level - stretch * usual)
        if not text_known[label]:
            postures[label] = [0, 0, 0, 1]  # none is claimed: the examples' angles say it
    return taught, replace(
        decision,
        footing=Footing(gain, offset),
        postures=postures,
        angles=ExampleAngles(dict(examples), tuple(text_known), _usual_angles(manifest)),
    )


def _share(takes: Sequence[Take], text_known: bool) -> float:
    """What the examples weigh against the text, 0 to 1."""
    windows = sum(take.windows for take in takes)
    return windows / (windows + PRIOR_WINDOWS) if text_known else 1.0


def _mean(takes: Sequence[Take]) -> NDArray[np.float64]:
    """(D,) mean embedding, each take by the signal that it holds."""
    means = [take.embeddings.astype(np.float64).mean(axis=0) for take in takes]
    mean: NDArray[np.float64] = np.average(means, axis=0, weights=[take.windows for take in takes])
    return mean


@dataclass(frozen=True)
class _Background:
    """Windows of all kinds, which examples are told apart from."""

    reference: NDArray[np.float64]
    """(R, D)"""

    mean: NDArray[np.float64]
    """(D,)"""

    covariance: NDArray[np.float64]
    """(D, D), ridge included."""

    @classmethod
    def of(cls, reference: NDArray[np.float32]) -> _Background:
        exact = reference.astype(np.float64)
        mean = exact.mean(axis=0)
        covariance = np.cov(exact, rowvar=False)
        ridge = _RIDGE * np.trace(covariance)
        return cls(exact, mean, covariance + ridge * np.eye(len(mean)))

    def direction(self, examples: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, float]:
        """What tells the mean (D,) of some examples apart: a unit vector, and the mean and standard
        deviation of the reference's cosines with it."""
        towards = np.linalg.solve(self.covariance, examples - self.mean)
        unit: NDArray[np.float64] = towards / np.linalg.norm(towards)
        cosine = self.reference @ unit
        return unit, float(cosine.mean()), float(cosine.std())


@dataclass(frozen=True)
class ExampleAngles:
    """How likely the device's angles are in labels that have examples.

    The angles of a wearer's own chair or bed differ less than those of everyone's: their histogram
    joins what the bundle's tables say of the label, with the weight that the examples have.
    """

    examples: Mapping[int, Sequence[Take]]
    """Label's index -> its takes."""

    text_known: tuple[bool, ...]
    """(L,) whether the tables say something of a label."""

    usual: _UsualAngles

    def joined(self, likelihoods: LogLikelihoods, segment: str) -> LogLikelihoods:
        """The labels' likelihoods on a body segment, with what was seen on that same segment."""
        face, tilt = likelihoods.face.copy(), likelihoods.tilt.copy()
        for label, takes in self.examples.items():
            here = [take for take in takes if take.segment == segment]
            for table, kind in ((face, "face"), (tilt, "tilt")):
                angles = [_measured(getattr(take, f"{kind}_deg")) for take in here]
                seen = [take for take, own in zip(here, angles, strict=True) if len(own)]
                if seen:
                    share = _share(seen, self.text_known[label])
                    ratio = self.usual[kind, segment].ratio(np.concatenate(angles))
                    table[:, label] = np.log((1 - share) * np.exp(table[:, label]) + share * ratio)
        return replace(likelihoods, face=face, tilt=tilt)


def _measured(angles_deg: NDArray[np.float32]) -> NDArray[np.float64]:
    return angles_deg[~np.isnan(angles_deg)].astype(np.float64)


@dataclass(frozen=True)
class _UsualAngle:
    """How likely each bin of an angle is whatever the posture."""

    edges_deg: NDArray[np.float64]
    """(B + 1,)"""

    probability: NDArray[np.float64]
    """(B,) mean over the postures, as the ratios of `edge.posture.PostureTables` are over it."""

    def ratio(self, angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B,) how much likelier each bin is where these angles (N,) were seen."""
        middle = (self.edges_deg[1:] + self.edges_deg[:-1])[:, None] / 2
        # An angle is mirrored at both ends of its range: smoothing leaves it nowhere else to go.
        mirrored = (angles_deg, -angles_deg, 2 * self.edges_deg[-1] - angles_deg)
        near = np.exp(-0.5 * ((middle - np.stack(mirrored)[:, None]) / _SMOOTH_DEG) ** 2)
        near = near.sum(axis=0)
        seen = (near / near.sum(axis=0)).mean(axis=1)
        smooth = (1 - _UNIFORM) * seen + _UNIFORM / len(seen)
        ratio: NDArray[np.float64] = smooth / self.probability
        return ratio


_UsualAngles = dict[tuple[str, str], _UsualAngle]
"""By angle ("face" or "tilt") and body segment."""


def _usual_angles(manifest: dict[str, Any]) -> _UsualAngles:
    """From a manifest whose `decision` was parsed."""
    tables = manifest["decision"]["posture"]
    return {
        (kind, segment): _UsualAngle(
            np.asarray(tables[f"{kind}_edges_deg"], np.float64),
            np.mean(tables[kind][segment], axis=0),
        )
        for kind in ("face", "tilt")
        for segment in SEGMENTS
    }
