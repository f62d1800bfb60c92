"""How likely each angle of a device is in each posture: the tables of a bundle's decision.

Counted from corpora whose activities leave no doubt of the posture (`posture` in
`label_bank.toml`), by the runtime's own angles (`edge/posture.py`), and weighed so that neither a
large corpus nor a frequent activity nor one wearer decides what an angle means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.posture import (
    POSTURES,
    SEGMENTS,
    UNKNOWN,
    gravity_direction,
    posture_evidence,
    segment_of,
)
from edge.upright import Vector
from training.captions import Activity
from training.data import LABEL, WindowSet

FACE_EDGES_DEG = tuple(range(0, 91, 10))
TILT_EDGES_DEG = tuple(range(0, 181, 10))

_SMOOTHING_DEG = 10.0
"""Standard deviation: another wearer's strap or pocket is easily this much off."""

_UNIFORM_SHARE = 0.1
"""Of every row: what no corpus shows is rare, not impossible, and one window never settles it."""

_MIN_GAIT_WINDOWS = 2

Worn = tuple[str, str]
"""A subject (corpus/subject) and a placement."""


def is_gait(activity: Activity) -> bool:
    """Whether an activity is on foot, so that its mean acceleration is the upright direction."""
    return activity.group == "locomotion" and activity.posture == "upright"


def upright_directions(windows: WindowSet, kept: NDArray[np.bool_]) -> dict[Worn, Vector]:
    """The upright direction of each wearer and placement, from all of their gait.

    It stands in for what the runtime's tracker learns on line, for windows are cut out of their
    stream; knowing it from the first window on is a little more than the tracker does.

    Args:
        windows: a corpus.
        kept: (N,) which windows are no label noise.

    Returns:
        Unit vectors; wearers with fewer than two steady windows of gait have none.
    """
    gait = np.array([is_gait(a) for a in windows.activities], bool)
    directions: dict[Worn, list[Vector]] = {}
    for row in np.flatnonzero(_labelled(windows, kept) & gait[windows.label]).tolist():
        direction = gravity_direction(np.asarray(windows.imu[row], np.float32))
        if direction is not None:
            directions.setdefault(worn(windows, row), []).append(direction)
    means = {w: np.mean(d, axis=0) for w, d in directions.items() if len(d) >= _MIN_GAIT_WINDOWS}
    return {w: tuple((mean / np.linalg.norm(mean)).tolist()) for w, mean in means.items()}


def worn(windows: WindowSet, row: int) -> Worn:
    """Whose window it is, and where the device was."""
    return str(windows.subject[row]), str(windows.placement[row])


def _labelled(windows: WindowSet, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labelled = np.array([kind == LABEL for kind in windows.kinds], bool)
    return np.asarray(kept & labelled[windows.label])


@dataclass(frozen=True)
class Angles:
    """The angles of a corpus' windows whose activity claims a posture."""

    corpus: str
    activity: NDArray[np.str_]
    """(N,) names."""

    gait: NDArray[np.bool_]
    posture: NDArray[np.int64]
    """(N,) of `POSTURES`."""

    worn: NDArray[np.str_]
    """(N,) subject and placement."""

    segment: NDArray[np.str_]
    face_deg: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]
    """(N,) NaN where the upright direction is not known."""


def angles_of(windows: WindowSet, kept: NDArray[np.bool_]) -> Angles:
    """The angles of the windows with a steady direction, on segments that are known.

    A device that was turned over between two activities (WISDM's phones) stays in: it happens to
    users as well, so that an angle that should not occur is what it is, a rare one.

    What a device means whose segment is not known is told by all segments, not by the few odd
    places (a head, a bag) that corpora have.
    """
    uprights = upright_directions(windows, kept)
    claims = np.array([a.posture is not None for a in windows.activities], bool)
    known = {p: segment_of(p) for p in np.unique(windows.placement).tolist()}
    found: list[tuple[int, str, float, float]] = []
    for row in np.flatnonzero(_labelled(windows, kept) & claims[windows.label]).tolist():
        wearing = worn(windows, row)
        imu = np.asarray(windows.imu[row], np.float32)
        evidence = posture_evidence(imu, uprights.get(wearing))
        if evidence is not None and known[wearing[1]] != UNKNOWN:
            tilt_deg = np.nan if evidence.tilt_deg is None else evidence.tilt_deg
            found.append((row, known[wearing[1]], evidence.face_deg, tilt_deg))
    rows = np.array([f[0] for f in found], np.int64)
    shown = [windows.activities[label] for label in windows.label[rows]]
    return Angles(
        windows.corpus,
        np.array([a.name for a in shown], np.str_),
        np.array([is_gait(a) for a in shown], bool),
        np.array([POSTURES.index(a.posture or "") for a in shown], np.int64),
        np.array(["\n".join(worn(windows, row)) for row in rows.tolist()], np.str_),
        np.array([f[1] for f in found], np.str_),
        np.array([f[2] for f in found], np.float64),
        np.array([f[3] for f in found], np.float64),
    )


def fit_tables(corpora: Sequence[Angles]) -> dict[str, Any]:
    """`decision.posture` of a manifest, less its weight.

    "unknown" is the mean over the segments that were seen in a posture. A segment that was not
    borrows that row by half; the other half is the mean of its own rows, by which no angle speaks
    for or against it. For what others show need not hold: a sitting shank hangs as a standing one
    does. A posture that was seen nowhere is the mean of those that were, by which it is neither
    likelier nor less likely at any angle.
    """
    return {
        "postures": list(POSTURES),
        "face_edges_deg": list(FACE_EDGES_DEG),
        "tilt_edges_deg": list(TILT_EDGES_DEG),
        "face": _table(corpora, [a.face_deg for a in corpora], FACE_EDGES_DEG),
        "tilt": _table(corpora, [a.tilt_deg for a in corpora], TILT_EDGES_DEG),
    }


def _table(
    corpora: Sequence[Angles], angles_deg: Sequence[NDArray[np.float64]], edges_deg: Sequence[int]
) -> dict[str, list[list[float]]]:
    n_bins = len(edges_deg) - 1
    seen = np.full((len(SEGMENTS), len(POSTURES), n_bins), np.nan)
    for s, segment in enumerate(SEGMENTS):
        for p in range(len(POSTURES)):
            histogram = _histogram(corpora, angles_deg, edges_deg, segment, p)
            if histogram.any():
                blurred = histogram @ _blur(edges_deg)
                seen[s, p] = (1 - _UNIFORM_SHARE) * blurred + _UNIFORM_SHARE / n_bins
    anywhere = _mean_of_seen(seen)
    anywhere = _or(_or(anywhere, _mean_of_seen(anywhere)), np.full(n_bins, 1 / n_bins))
    own = _mean_of_seen(seen.swapaxes(0, 1))[:, None]
    rows = _or(seen, (_or(own, anywhere) + anywhere) / 2)
    return {segment: rows[s].round(6).tolist() for s, segment in enumerate(SEGMENTS)}


def _or(rows: NDArray[np.float64], instead: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(rows), instead, rows)


def _mean_of_seen(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where there is nothing."""
    there = ~np.isnan(rows)
    count = there.sum(axis=0)
    total = np.where(there, rows, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _histogram(
    corpora: Sequence[Angles],
    angles_deg: Sequence[NDArray[np.float64]],
    edges_deg: Sequence[int],
    segment: str,
    posture: int,
) -> NDArray[np.float64]:
    """(B,) shares of a segment's and a posture's bins; zeros where no window shows them.

    Gait is one half of what shows "upright" and standing the other, for it is by its own gait that
    a wearer's upright direction is known; within that corpora count the same, within these their
    activities, within these their wearers, and within these their windows.
    """
    angle_deg, levels = [], []
    for corpus, deg in zip(corpora, angles_deg, strict=True):
        here = (corpus.segment == segment) & (corpus.posture == posture) & ~np.isnan(deg)
        angle_deg.append(deg[here])
        corpus_of = np.full(int(here.sum()), corpus.corpus)
        of = (corpus.gait[here].astype(str), corpus_of, corpus.activity[here], corpus.worn[here])
        levels.append(np.stack(of))
    if not sum(map(len, angle_deg)):
        return np.zeros(len(edges_deg) - 1)
    weight = _nested_weights(np.concatenate(levels, axis=1))
    counts, _ = np.histogram(np.concatenate(angle_deg), edges_deg, weights=weight)
    return np.asarray(counts, np.float64)


def _nested_weights(levels: NDArray[np.str_]) -> NDArray[np.float64]:
    """(K, N) groups, from the widest to the narrowest -> (N,) weights that add up to 1: groups
    within the same wider group have the same total."""
    weight = np.ones(levels.shape[1])
    parent = np.zeros(levels.shape[1], np.int64)
    for level in levels:
        codes = np.unique(level, return_inverse=True)[1].reshape(-1)
        pairs, child = np.unique(np.stack([parent, codes]), axis=1, return_inverse=True)
        weight /= np.bincount(pairs[0])[parent]
        parent = child.reshape(-1)
    return np.asarray(weight / np.bincount(parent)[parent])


def _blur(edges_deg: Sequence[int]) -> NDArray[np.float64]:
    """(B, B) what each bin's share is spread to: a Gaussian, reflected at both ends, for an angle
    cannot leave its range. Rows add up to 1."""
    edges = np.array(edges_deg, np.float64)
    centres = (edges[:-1] + edges[1:]) / 2
    images = (centres, -centres, 2 * edges[-1] - centres)
    kernel = sum(
        np.exp(-0.5 * ((centres[:, None] - image) / _SMOOTHING_DEG) ** 2) for image in images
    )
    return np.asarray(kernel / np.sum(kernel, axis=1, keepdims=True))
