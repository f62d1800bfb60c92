"""What is trained on labelled windows of a target: a head on a frozen encoder, the encoder with its
head, or, as a control, a random forest on classical features.

Classes weigh the same throughout, however many windows they have, for macro-F1 is reported.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional

REGULARISATION = 100.0
"""scikit-learn's C: the same for all encoders and amounts, for choosing it would take labels that
few-shot settings do not have. On two training corpora a tenth cost up to 0.03 of macro-F1 where
there are many labels, and ten times as much 0.04 where there is one of each class."""

EPOCHS = 5
MIN_STEPS = 50
"""Of fine-tuning: so many at least where an epoch of few windows is no step."""

BATCH = 64
LEARNING_RATE = 3e-4
"""A third of the training's."""

LOGIT_SCALE = 20.0
"""The head starts as the zero-shot decision: prototypes times this."""

GRAVITY_RATE = 10 * LEARNING_RATE
"""Of the weights on the direction of gravity, which start at nothing."""

TREES = 250

Labels = NDArray[np.integer[Any]]


def gravity(imu: torch.Tensor) -> torch.Tensor:
    """(B, 6, 1000) windows, NaN where missing -> (B, 3) unit vectors of their mean acceleration.

    Heads see it beside the embedding: how a device hangs on its wearer tells postures apart where
    the labelled windows are of one placement, and an encoder may be blind to it on purpose.
    """
    return functional.normalize(imu[:, :3].nanmean(-1).nan_to_num(), dim=1)


def linear_head(
    train: NDArray[np.float32], label: Labels, test: NDArray[np.float32]
) -> NDArray[np.integer[Any]]:
    """Transfer: multinomial logistic regression on what a frozen encoder gives.

    Args:
        train: (N, D) embeddings, perhaps with `gravity` beside them.
        label: (N,) their classes, by number.
        test: (M, D)

    Returns:
        (M,) the classes said, of those trained on.
    """
    if len(np.unique(label)) == 1:
        return np.full(len(test), label[0])
    head = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=2000)
    with threadpool_limits(torch.get_num_threads()):
        said: NDArray[np.integer[Any]] = head.fit(train, label).predict(test)
    return said


def forest_head(
    train: NDArray[np.float32], label: Labels, test: NDArray[np.float32], seed: int
) -> NDArray[np.integer[Any]]:
    """The control: a random forest on `training.baselines.features`; arguments as in
    `linear_head`."""
    forest = RandomForestClassifier(
        TREES,
        class_weight="balanced_subsample",
        n_jobs=torch.get_num_threads(),
        random_state=seed,
    )
    said: NDArray[np.integer[Any]] = forest.fit(train, label).predict(test)
    return said


class Tuned(nn.Module):
    """An encoder with a linear head on its embedding and on the direction of gravity."""

    def __init__(self, encoder: nn.Module, prototypes: NDArray[np.float32]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(prototypes.shape[1], len(prototypes))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(prototypes) * LOGIT_SCALE)
            self.head.bias.zero_()
        self.posture = nn.Linear(3, len(prototypes), bias=False)
        nn.init.zeros_(self.posture.weight)

    def forward(self, imu: torch.Tensor) -> torch.Tensor:
        """(B, 6, 1000) windows -> (B, L) logits."""
        logits: torch.Tensor = self.head(self.encoder(imu)) + self.posture(
            gravity(imu) * LOGIT_SCALE
        )
        return logits


def fine_tune(
    encoder: nn.Module,
    prototypes: NDArray[np.float32],
    imu: NDArray[Any],
    rows: NDArray[np.int64],
    label: Labels,
    seed: int,
    epochs: int = EPOCHS,
) -> Tuned:
    """Fine-tuning: a copy of the encoder, trained on with a head that starts at the prototypes.

    Without augmentation: the windows already are of the device and the placement scored.

    Args:
        encoder: left as it is.
        prototypes: (L, D) of the classes.
        imu: (N, 6, 1000) windows, perhaps memory-mapped.
        rows: (M,) those to train on.
        label: (M,) their classes.
        seed: of the order and of dropout.
        epochs: passes over the windows, each drawn with replacement, classes equally often.

    Returns:
        In eval mode, on the encoder's device.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    device = next(encoder.parameters()).device
    tuned = Tuned(deepcopy(encoder), prototypes).to(device).train()
    batch = min(BATCH, len(rows))
    steps = max(MIN_STEPS, epochs * math.ceil(len(rows) / batch))
    slow = [*tuned.encoder.parameters(), *tuned.head.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": slow},
        {"params": tuned.posture.parameters(), "lr": GRAVITY_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weight = torch.from_numpy(1 / np.bincount(label)[label])
    for _ in range(steps):
        chosen = torch.multinomial(weight, batch, replacement=True, generator=generator).numpy()
        windows = torch.from_numpy(np.asarray(imu[rows[chosen]], np.float32)).to(device)
        truth = torch.from_numpy(np.asarray(label[chosen], np.int64)).to(device)
        loss = functional.cross_entropy(tuned(windows), truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return tuned.eval()
