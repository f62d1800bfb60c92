"""The classical controls: random forest and gradient boosting on `features`, with a text bridge.

Neither knows a label that it was not trained on; `training.bridge.conse` carries their
probabilities over the training activities into the text space, where they are compared with any
label's prototype as an encoder's embedding is. The random forest is Breiman 2001 (Machine Learning
45:5), the gradient boosting scikit-learn's on histograms, after Ke et al. 2017 (LightGBM).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from training.baselines.features import FEATURE_NAMES, features
from training.bridge import TOP, conse

FOREST_MODELS = ("random-forest", "gradient-boosting")

TREES = 200
MIN_SAMPLES_LEAF = 5
BOOSTING_ROUNDS = 40
"""One tree for each activity and round."""

BINS = 64
"""Values that the gradient boosting tells apart of each feature."""

_CHUNK = 2048
"""Windows whose probabilities are worked out at once."""


class _Bins:
    """Features -> numbers of bins that hold equally many training windows each; NaN stays.

    scikit-learn's own binning does nearly the same, but version 1.9 sorts all windows for each edge
    of each feature as soon as they have weights, and fails on a feature that no window has.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        at = np.linspace(0, 1, BINS + 1)[1:-1]
        columns = (column[~np.isnan(column)] for column in features.T)
        self._edges = [np.unique(np.quantile(c, at)) if len(c) else None for c in columns]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, F) -> (N, F); 0 throughout for a feature that no training window had."""
        out = np.zeros_like(features)
        for i, edges in enumerate(self._edges):
            if edges is not None:
                column = features[:, i]
                out[:, i] = np.where(np.isnan(column), np.nan, np.searchsorted(edges, column))
        return out


class ForestRecogniser:
    """A classifier of the training activities that embeds windows in the text space.

    Args:
        name: one of `FOREST_MODELS`.
        activity_vectors: (A, D) the training activities' prototypes, unit vectors.
        top: the bridge's `top`.
        jobs: threads that `fit` uses; their number does not change the result. On a busy machine
            take 1: the gradient boosting's threads wait for each other, which has taken ninety
            times as long.
    """

    def __init__(
        self, name: str, activity_vectors: NDArray[np.float32], top: int = TOP, jobs: int = 2
    ) -> None:
        if name not in FOREST_MODELS:
            raise ValueError(f"no model {name!r}; there are: {', '.join(FOREST_MODELS)}")
        self.name = name
        self.activity_vectors = activity_vectors
        self.top = top
        self.jobs = jobs
        self.model: Any = None
        self._bins: _Bins | None = None

    def fit(self, features: NDArray[np.float32], activity: NDArray[np.int64], seed: int) -> None:
        """Train on windows as they were drawn; each activity weighs the same, however often it is.

        Args:
            features: (N, F) as `training.baselines.features` makes them.
            activity: (N,) row of `activity_vectors` of each window.
            seed: everything random follows from it.
        """
        self.model = self._untrained(seed)
        if self.name == "gradient-boosting":
            self._bins = _Bins(features)
            features = self._bins(features)
        with threadpool_limits(self.jobs):
            self.model.fit(features, activity)
        if self.name == "random-forest":
            self.model.n_jobs = 1  # threads would add the trees' answers up in any order

    def _untrained(self, seed: int) -> Any:
        if self.name == "random-forest":
            return RandomForestClassifier(
                TREES,
                min_samples_leaf=MIN_SAMPLES_LEAF,
                class_weight="balanced_subsample",
                n_jobs=self.jobs,
                random_state=seed,
            )
        return HistGradientBoostingClassifier(
            learning_rate=0.1,
            max_iter=BOOSTING_ROUNDS,
            max_leaf_nodes=15,
            max_bins=BINS,
            l2_regularization=1.0,
            class_weight="balanced",
            early_stopping=False,  # its validation windows would overlap those trained on
            random_state=seed,
        )

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, F) -> (N, A) over all activities; 0 for those that no training window had."""
        out = np.zeros((len(features), len(self.activity_vectors)), np.float32)
        for start in range(0, len(features), _CHUNK):
            rows = features[start : start + _CHUNK]
            with threadpool_limits(1):
                chunk = self.model.predict_proba(rows if self._bins is None else self._bins(rows))
            out[start : start + _CHUNK, self.model.classes_] = chunk
        return out

    def embed(self, imu: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 6, 1000) windows in m/s^2 and rad/s -> (N, D) unit vectors in the text space."""
        return conse(self.probabilities(features(imu)), self.activity_vectors, self.top)


def fit_forest(
    name: str,
    imu_batches: Iterable[NDArray[np.floating]],
    activity: NDArray[np.int64],
    activity_vectors: NDArray[np.float32],
    seed: int,
    sample: int = 60_000,
    jobs: int = 2,
) -> ForestRecogniser:
    """Train a control on windows as they come: drawn, balanced and augmented by the caller.

    Args:
        name: one of `FOREST_MODELS`.
        imu_batches: windows (n, 6, 1000), N in all; only their features are kept.
        activity: (N,) row of `activity_vectors` of each window, in the same order.
        activity_vectors: (A, D) the training activities' prototypes, unit vectors.
        seed: everything random follows from it.
        sample: of more windows than this, so many are taken at random.
        jobs: threads; their number does not change the result.

    Raises:
        ValueError: no such model, or not as many windows as activities.
    """
    recogniser = ForestRecogniser(name, activity_vectors, jobs=jobs)
    chosen = np.ones(len(activity), bool)
    if len(activity) > sample:
        left_out = np.random.default_rng(seed).permutation(len(activity))[sample:]
        chosen[left_out] = False
    rows = np.empty((int(chosen.sum()), len(FEATURE_NAMES)), np.float32)
    seen = filled = 0
    for imu in imu_batches:
        wanted = chosen[seen : seen + len(imu)]
        seen += len(imu)
        if seen > len(activity):
            break
        made = features(imu[wanted])
        rows[filled : filled + len(made)] = made
        filled += len(made)
    if seen != len(activity):
        raise ValueError(f"{seen} windows or more, but {len(activity)} activities")
    recogniser.fit(rows, activity[chosen], seed)
    return recogniser
