"""How events that were written agree with those that were: the categories of Ward et al. 2011,
"Performance Metrics for Activity Recognition" (ACM TIST 2(1), sections 3 and 4).

Both are timelines of one label a frame. Each label is looked at by itself: its true events, the
events that were said, and where they overlap. A true event is

* deleted, where none of it was said;
* fragmented, where several events were said of it;
* merged, where one event was said of it and of another true one;
* both; or else correct.

A said event is inserted where none of it was true. Time that was said at the wrong label's cost
belongs to one of: insertion and deletion (all of such an event), merge and fragmentation (between
what is right), overfill and underfill (before or after it).

There are two packages for it: ward-metrics, last released in 2018, and aqudem, which needs a whole
process-mining library; so this is our own.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EVENT_KINDS = ("correct", "deleted", "fragmented", "merged", "fragmented and merged", "inserted")
"""Of events; all but the inserted ones are true ones."""

TIME_KINDS = ("deletion", "underfill", "fragmentation", "insertion", "overfill", "merge")
"""Of frames; the first three were missed, the others said wrongly."""


class Agreement(NamedTuple):
    """Counts over the labels."""

    events: Counter[str]
    """By `EVENT_KINDS`."""

    frames: Counter[str]
    """By `TIME_KINDS`; a frame that is said wrongly counts for its true and for its said label."""


def compare(truth: NDArray[np.intp], said: NDArray[np.intp]) -> Agreement:
    """Compare two timelines.

    Args:
        truth: (T,) label of each frame, in order.
        said: (T,) the same as it was said; negative where no label was, which only ever misses.
    """
    total = Agreement(Counter(), Counter())
    labels = np.unique(np.concatenate([truth, said]))
    for label in labels[labels >= 0]:
        one = _of_label(truth == label, said == label)
        total.events.update(one.events)
        total.frames.update(one.frames)
    return total


def runs(present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of the stretches of (T,) frames that hold."""
    edges = np.flatnonzero(np.diff(present, prepend=False, append=False))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _of_label(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> Agreement:
    events: Counter[str] = Counter()
    frames: Counter[str] = Counter()
    true_events, said_events = runs(truth), runs(said)
    covers = [sum(a < d and c < b for a, b in true_events) for c, d in said_events]
    for start, stop in true_events:
        overlap = [
            n for n, (c, d) in zip(covers, said_events, strict=True) if c < stop and start < d
        ]
        events[_kind(len(overlap), max(overlap, default=0))] += 1
        _time(frames, said[start:stop], "deletion", "underfill", "fragmentation")
    events["inserted"] += covers.count(0)
    for start, stop in said_events:
        _time(frames, truth[start:stop], "insertion", "overfill", "merge")
    return Agreement(events, frames)


def _kind(n_said: int, n_true: int) -> str:
    """Of a true event: how many said events overlap it, and how many true ones the widest of these
    covers."""
    if n_said == 0:
        return "deleted"
    if n_said > 1:
        return "fragmented and merged" if n_true > 1 else "fragmented"
    return "merged" if n_true > 1 else "correct"


def _time(
    frames: Counter[str], right: NDArray[np.bool_], nothing: str, outside: str, between: str
) -> None:
    """Count an event's wrong frames: all of it, before and after what is right, or in between."""
    where = np.flatnonzero(right)
    if len(where) == 0:
        frames[nothing] += len(right)
        return
    inside = int(where[-1] - where[0]) + 1
    frames[outside] += len(right) - inside
    frames[between] += inside - len(where)
