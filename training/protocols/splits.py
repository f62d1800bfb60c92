"""Splits of one corpus' windows into those trained on and those tested on.

Everything here works on (N,) arrays that say of each window whose it is and what it shows, and
gives back numbers of windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import InputError

Rows = NDArray[np.int64]
"""Numbers of windows."""

Labels = NDArray[np.integer[Any]]
"""(N,) label of each window, by number."""


@dataclass(frozen=True)
class Split:
    """One fold."""

    train: Rows
    test: Rows


def check_subjects(split: Split, subject: NDArray[np.str_]) -> Split:
    """The split, if no subject is on both sides of it.

    Raises:
        ValueError: a subject is; what was scored on it would say nothing about new people.
    """
    both = sorted(set(subject[split.train].tolist()) & set(subject[split.test].tolist()))
    if both:
        raise ValueError(f"the split leaks: {', '.join(both)} would be trained and tested on")
    return split


def subject_folds(subject: NDArray[np.str_], folds: int, seed: int) -> list[Split]:
    """Every subject is tested on in exactly one fold and trained on in all others.

    Raises:
        InputError: there are not two subjects.
    """
    names = np.unique(subject)
    if len(names) < 2:
        raise InputError("a subject-wise split needs windows of two subjects or more")
    order = np.random.default_rng(seed).permutation(names)
    held_out = [np.isin(subject, part) for part in np.array_split(order, min(folds, len(names)))]
    return [
        check_subjects(Split(np.flatnonzero(~tested), np.flatnonzero(tested)), subject)
        for tested in held_out
    ]


def random_window_folds(n: int, folds: int, seed: int) -> list[Split]:
    """AURA-MFM's own split: windows at random, whoever's they are.

    It leaks: windows overlap by half, and the same person is trained and tested on. Its scores are
    not comparable with any subject-wise ones; they are there to compare with the paper.
    """
    order = np.random.default_rng(seed).permutation(n)
    parts = np.array_split(order, folds)
    return [
        Split(np.sort(np.concatenate(parts[:i] + parts[i + 1 :])), np.sort(part))
        for i, part in enumerate(parts)
    ]


def k_per_class(rows: Rows, label: Labels, k: int, rng: np.random.Generator) -> Rows:
    """k of the given windows of each class at random; all of a class that has fewer."""
    return _by_class(rows, label, rng, lambda n: min(k, n))


def fraction_per_class(
    rows: Rows, label: Labels, fraction: float, rng: np.random.Generator
) -> Rows:
    """A fraction of the given windows of each class at random, but at least one."""
    return _by_class(rows, label, rng, lambda n: max(1, round(fraction * n)))


def _by_class(rows: Rows, label: Labels, rng: np.random.Generator, how_many: Any) -> Rows:
    chosen = []
    for name in np.unique(label[rows]):
        own = rows[label[rows] == name]
        chosen.append(rng.permutation(own)[: how_many(len(own))])
    return np.sort(np.concatenate(chosen))


def held_out_subjects(
    corpora: Sequence[NDArray[np.str_]], fraction: float, seed: int
) -> frozenset[str]:
    """Some subjects of each corpus, given the (N,) subjects of its windows; at least one, and not
    all.

    Raises:
        InputError: a corpus has a single subject.
    """
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    for subject in corpora:
        names = np.unique(subject)
        if len(names) < 2:
            raise InputError(f"{names[0]} is its corpus' only subject: none is left to test on")
        count = min(max(1, round(fraction * len(names))), len(names) - 1)
        chosen |= set(rng.permutation(names)[:count].tolist())
    return frozenset(chosen)
