"""Label-text bridges: from a classifier of fixed activities to labels it never saw.

A classifier knows only the activities it was trained on. Text vectors of those activities and of
the wanted labels lie in one space, so the classifier's probabilities can be carried over. Nothing
but numpy and the runtime's own: what is here can run on a device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.decision import transfer_matrix

TOP = 10
"""Activities that take part in the combination; Norouzi et al. 2013 do best with 10 on ImageNet."""


def conse(
    probabilities: NDArray[np.floating], activity_vectors: NDArray[np.float32], top: int = TOP
) -> NDArray[np.float32]:
    """A window's place in the text space: the convex combination of its likeliest activities.

    ConSE: Norouzi et al. 2013, "Zero-Shot Learning by Convex Combination of Semantic Embeddings"
    (arXiv 1312.5650), eq. 3. The result is compared with the labels' prototypes by cosine, as an
    encoder's embedding is.

    Args:
        probabilities: (N, A) over the training activities; rows need not add up to 1.
        activity_vectors: (A, D) the activities' prototypes, unit vectors.
        top: how many of the likeliest activities take part; ties go to the earlier ones.

    Returns:
        (N, D) unit vectors; zeros where the combination vanishes, as without any probability.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top}")
    kept = np.array(probabilities, np.float64)
    if top < kept.shape[1]:
        order = np.argsort(-kept, axis=1, kind="stable")
        np.put_along_axis(kept, order[:, top:], 0, axis=1)
    mixed = kept @ activity_vectors.astype(np.float64)
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(mixed / np.maximum(length, 1e-12), np.float32)


def transfer(
    probabilities: NDArray[np.floating],
    activity_vectors: NDArray[np.float32],
    target_vectors: NDArray[np.float32],
    temperature: float,
) -> NDArray[np.float64]:
    """Probabilities over training activities -> probabilities over the wanted labels.

    Each activity gives its probability to the labels as `edge.decision.transfer_matrix` says.

    Args:
        probabilities: (N, A) of each window over the training activities.
        activity_vectors: (A, D) the activities' prototypes, unit vectors.
        target_vectors: (L, D) the labels' prototypes, unit vectors of the same space.
        temperature: what the cosines are divided by; the smaller, the more goes to the nearest.

    Returns:
        (N, L); rows add up to what those of `probabilities` do.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    result: NDArray[np.float64] = probabilities @ transfer_matrix(
        activity_vectors, target_vectors, temperature
    )
    return result
