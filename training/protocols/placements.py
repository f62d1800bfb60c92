"""A device worn at one place or another: zero-shot at each, and heads moved between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.protocols.corpora import Scorable
from training.protocols.heads import linear_head
from training.protocols.splits import subject_folds
from training.scoring import Outcome, nearest


def zero_shot(
    scorable: Scorable, embeddings: NDArray[np.float32], prototypes: NDArray[np.float32]
) -> dict[str, Outcome]:
    """Placement -> the outcome of its windows.

    Args:
        scorable: a corpus with several placements.
        embeddings: (M, D) of its windows.
        prototypes: (L, D) of its labels.
    """
    said = nearest(embeddings, prototypes)
    return {
        str(name): _outcome(scorable, scorable.placement == name, said)
        for name in np.unique(scorable.placement)
    }


def heads(
    scorable: Scorable, embeddings: NDArray[np.float32], folds: int, seed: int
) -> dict[tuple[str, str], Outcome]:
    """(trained at, tested at) -> outcome; heads are trained on other subjects than tested on.

    Only labels count that occur at both places, and pairs with two such labels or more.
    """
    names = [str(name) for name in np.unique(scorable.placement)]
    own_labels = {n: set(scorable.truth[scorable.placement == n].tolist()) for n in names}
    splits = subject_folds(scorable.subject, folds, seed)
    found = {}
    for trained in names:
        said = np.full(len(scorable.rows), -1)
        for split in splits:
            rows = split.train[scorable.placement[split.train] == trained]
            if len(rows):
                said[split.test] = linear_head(
                    embeddings[rows], scorable.truth[rows], embeddings[split.test]
                )
        for tested in names:
            shared = own_labels[trained] & own_labels[tested]
            chosen = (scorable.placement == tested) & np.isin(scorable.truth, sorted(shared))
            if len(shared) >= 2 and (said[chosen] >= 0).all():
                found[trained, tested] = _outcome(scorable, chosen, said)
    return found


def _outcome(scorable: Scorable, chosen: NDArray[np.bool_], said: NDArray[np.intp]) -> Outcome:
    return Outcome.of(
        scorable.target.labels,
        scorable.subject[chosen],
        scorable.truth[chosen],
        said[chosen],
    )
