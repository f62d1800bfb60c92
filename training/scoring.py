"""Scores of recognisers that embed windows in the text space, with intervals.

A window is named by the label whose prototype its embedding is nearest to, as `edge.zeroshot` does.
What a recogniser said is kept as one confusion matrix a subject: everything reported is computed
from these, and the 95 % intervals by drawing whole subjects anew (percentile bootstrap; Efron &
Tibshirani 1993, chapter 13), because windows of one subject are far from independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge.evaluate import Scored, macro_f1
from edge.text import TextEncoder
from edge.zeroshot import prototype
from training.captions import activity_of

RESAMPLES = 1000

Statistic = Callable[[NDArray[np.int64]], float]
"""(L, L) confusion matrix, rows truth and columns said -> what is reported of it."""

_CHUNK = 256
"""Windows embedded at once."""


class TextSpaceModel(Protocol):
    """A recogniser that is no torch module, such as a forest with a label-text bridge."""

    def embed(self, imu: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 6, 1000) windows -> (N, D) unit vectors in the text space."""
        ...


Recogniser = nn.Module | TextSpaceModel


def embed(model: Recogniser, imu: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embed chosen windows, a few at a time, for they may be memory-mapped.

    Args:
        model: an encoder in eval mode, on any device, or another recogniser.
        imu: (N, 6, 1000) in m/s^2 and rad/s, NaN where missing.
        rows: (M,) the windows wanted.

    Returns:
        (M, D) unit vectors.
    """
    parts = []
    for start in range(0, len(rows), _CHUNK):
        windows = np.asarray(imu[rows[start : start + _CHUNK]], np.float32)
        parts.append(_embed_chunk(model, windows))
    return np.concatenate(parts)


def _embed_chunk(model: Recogniser, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    if not isinstance(model, nn.Module):
        return model.embed(windows)
    if model.training:
        raise ValueError("an encoder has to be in eval mode to be scored")
    device = next(model.parameters()).device
    with torch.inference_mode():
        vectors: NDArray[np.float32] = model(torch.from_numpy(windows).to(device)).cpu().numpy()
    return vectors


def label_prototypes(labels: Sequence[str], encoder: TextEncoder) -> NDArray[np.float32]:
    """(L, D) prototypes as a bundle's labels have them: from the bank's captions where it knows the
    label by any of its names, else from the prompt templates alone."""
    captions = (dict.fromkeys(activity_of(label).captions()) for label in labels)
    return np.stack([prototype(list(c), encoder) for c in captions])


def nearest(embeddings: NDArray[np.float32], prototypes: NDArray[np.float32]) -> NDArray[np.intp]:
    """(N, D) unit vectors and (L, D) prototypes -> (N,) row of the prototype with the largest
    cosine."""
    return np.asarray((embeddings @ prototypes.T).argmax(axis=1))


@dataclass(frozen=True)
class Outcome:
    """What was said of all windows of a corpus, by subject."""

    labels: tuple[str, ...]
    subjects: tuple[str, ...]
    confusion: NDArray[np.int64]
    """(S, L, L) windows, rows truth and columns said."""

    not_classified: int = 0
    """Windows that lacked too many samples to be named; they are in no matrix."""

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        subject: NDArray[np.str_],
        truth: NDArray[np.integer[Any]],
        said: NDArray[np.integer[Any]],
        not_classified: int = 0,
        subjects: Sequence[str] | None = None,
    ) -> Outcome:
        """From (N,) subjects, true labels and said labels, by row of `labels`.

        `subjects` are all there are, if some may have no window left; by default those that have.
        """
        names = np.unique(subject if subjects is None else np.array(subjects, np.str_))
        confusion = np.zeros((len(names), len(labels), len(labels)), np.int64)
        np.add.at(confusion, (np.searchsorted(names, subject), truth, said), 1)
        return cls(tuple(labels), tuple(names.tolist()), confusion, not_classified)

    @classmethod
    def of_scored(
        cls, labels: Sequence[str], scored: Sequence[Scored], not_classified: int
    ) -> Outcome:
        """From what `edge-eval` scored."""
        index = {name: i for i, name in enumerate(labels)}
        return cls.of(
            labels,
            np.array([s.subject for s in scored]),
            np.array([index[s.truth] for s in scored], np.int64),
            np.array([index[s.said] for s in scored], np.int64),
            not_classified,
        )

    def total(self) -> NDArray[np.int64]:
        """(L, L) of all subjects."""
        return np.asarray(self.confusion.sum(axis=0))

    def to_json(self) -> dict[str, Any]:
        """The matrices as lists of (truth, said, windows), for most cells are empty."""
        cells = {
            subject: [[int(t), int(s), int(m[t, s])] for t, s in np.argwhere(m)]
            for subject, m in zip(self.subjects, self.confusion, strict=True)
        }
        return {
            "labels": list(self.labels),
            "windows": int(self.confusion.sum()),
            "not_classified": self.not_classified,
            "by_subject": cells,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Outcome:
        """What `to_json` made."""
        n = len(stored["labels"])
        confusion = np.zeros((len(stored["by_subject"]), n, n), np.int64)
        for row, cells in enumerate(stored["by_subject"].values()):
            for truth, said, count in cells:
                confusion[row, truth, said] = count
        subjects = tuple(stored["by_subject"])
        return cls(tuple(stored["labels"]), subjects, confusion, stored["not_classified"])


def macro_f1_or_0(confusion: NDArray[np.int64]) -> float:
    """`edge.evaluate.macro_f1`; 0 where no window was named, as of subjects that lost them all."""
    return macro_f1(confusion) if confusion.any() else 0.0


def accuracy(confusion: NDArray[np.int64]) -> float:
    """Fraction of the windows named rightly."""
    return float(np.trace(confusion) / max(1, confusion.sum()))


def f1_of_classes(wanted: NDArray[np.bool_]) -> Statistic:
    """Macro-F1 over (L,) some of the classes, said and confused among all of them."""

    def statistic(confusion: NDArray[np.int64]) -> float:
        support = confusion.sum(axis=1)
        f1 = 2 * np.diag(confusion) / np.maximum(support + confusion.sum(axis=0), 1)
        scored = wanted & (support > 0)
        return float(f1[scored].mean()) if scored.any() else 0.0

    return statistic


def recall_of_classes(wanted: NDArray[np.bool_]) -> Statistic:
    """Mean accuracy of some of the classes, each weighing the same (Xian et al. 2017, "Zero-Shot
    Learning: A Comprehensive Evaluation of the Good, the Bad and the Ugly", eq. 8)."""

    def statistic(confusion: NDArray[np.int64]) -> float:
        support = confusion.sum(axis=1)
        scored = wanted & (support > 0)
        recall = np.diag(confusion)[scored] / support[scored]
        return float(recall.mean()) if scored.any() else 0.0

    return statistic


def f1_by_class(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Label -> F1, mean over the seeds."""
    values = []
    for outcome in outcomes:
        confusion = outcome.total()
        met = confusion.sum(axis=0) + confusion.sum(axis=1)
        values.append(2 * np.diag(confusion) / np.maximum(met, 1))
    mean = np.mean(values, axis=0)
    return {name: round(float(f1), 6) for name, f1 in zip(outcomes[0].labels, mean, strict=True)}


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b): high only where both are (Xian et al. 2017, eq. 10); 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def harmonic(of_seen: Statistic, of_unseen: Statistic) -> Statistic:
    """The harmonic mean of two statistics."""
    return lambda confusion: harmonic_mean(of_seen(confusion), of_unseen(confusion))


@dataclass(frozen=True)
class Summary:
    """A statistic over seeds, of one corpus or the mean of several."""

    mean: float
    sd: float | None
    """Over the seeds; None for a single one."""

    low: float
    high: float
    """95 % interval over subjects of the mean over the seeds."""

    of_seeds: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Rounded to what a reader may want to see, so that it does not depend on the platform."""
        return {
            "mean": round(self.mean, 6),
            "sd": None if self.sd is None else round(self.sd, 6),
            "ci": [round(self.low, 6), round(self.high, 6)],
            "seeds": [round(v, 6) for v in self.of_seeds],
        }

    def __str__(self) -> str:
        sd = "" if self.sd is None else f" ± {self.sd:.3f}"
        return f"{self.mean:.3f}{sd} ({self.low:.3f} to {self.high:.3f})"


def summarise(
    folds: Sequence[Sequence[Outcome]],
    statistic: Statistic = macro_f1_or_0,
    resamples: int = RESAMPLES,
) -> Summary:
    """Mean over folds and seeds of a statistic.

    The interval is of the mean over the seeds: each resample draws the subjects of every fold anew,
    the same ones for all seeds, and for all folds that have the same subjects.

    Args:
        folds: of each fold (a corpus, or a split), the outcomes of its seeds, in the order of the
            seeds; all seeds of a fold have the same subjects.
        statistic: what is computed of a confusion matrix.
        resamples: draws of the bootstrap.
    """
    by_fold = np.array([[statistic(o.total()) for o in seeds] for seeds in folds])
    people = [seeds[0].subjects for seeds in folds]
    drawn = np.stack(
        [
            _resampled(seeds, statistic, resamples, people.index(own))
            for seeds, own in zip(folds, people, strict=True)
        ]
    )
    low, high = np.quantile(drawn.mean(axis=0), [0.025, 0.975])
    of_seeds = by_fold.mean(axis=0)
    sd = float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else None
    return Summary(float(of_seeds.mean()), sd, float(low), float(high), tuple(of_seeds.tolist()))


def _resampled(
    seeds: Sequence[Outcome], statistic: Statistic, resamples: int, stream: int
) -> NDArray[np.float64]:
    """(resamples,) the statistic's mean over the seeds, subjects drawn anew."""
    subjects = seeds[0].subjects
    if any(o.subjects != subjects for o in seeds):
        raise ValueError("the seeds of a fold were scored on different subjects")
    n = len(subjects)
    # Stream 0 is that of `edge.evaluate.metrics`, so that both give the same interval.
    draws = np.random.default_rng(stream).integers(n, size=(resamples, n))
    out = np.empty(resamples)
    for r, draw in enumerate(draws):
        weight = np.bincount(draw, minlength=n)
        out[r] = np.mean([statistic(np.tensordot(weight, o.confusion, 1)) for o in seeds])
    return out


_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t with 1 to 9 degrees of freedom."""


def seed_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval (Student's t) of the mean of paired differences, one a seed; None for a single
    one. Of more than ten seeds it is slightly too wide."""
    n = len(differences)
    if n < 2:
        return None
    error = float(np.std(differences, ddof=1)) / n**0.5
    half = _T_975[min(n - 1, len(_T_975)) - 1] * error
    mean = float(np.mean(differences))
    return mean - half, mean + half
