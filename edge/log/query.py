"""Asking a log in free text: the bouts whose windows resemble a text, nearest first.

The text becomes a vector as a label does (by examples, the bundle's bank or its text encoder), and
windows are ranked by the cosine of their stored embeddings with it: text and motion share one
space. Only windows that the same bundle embedded compare with its vectors. Neighbouring windows
overlap and resemble each other, so what is found are bouts: the nearest window, with those
around it that are about as near.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.log.read import Hit, LoggedEvent, LogReader
from edge.log.store import Where

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.personal.store import Personal

PAUSE_S = 30.0
"""Windows of a session that lie less than this apart can be one bout: a pause shorter than that
hardly makes it another thing that was done."""

ALIKE = 0.8
"""A window belongs to the bout of a nearer one if its cosine is at least this part of that
one's."""

_ASKED = (1_000, 10_000)
"""Windows that are asked for; the second time only if those of the first make too few bouts,
as those of a long night may."""

_AROUND_S = 300.0
"""How much around a hit is read at first to find where its bout begins and ends."""


def vector_of(text: str, bundle: Bundle, personal: Personal | None = None) -> NDArray[np.float32]:
    """(D,) unit vector of a text, or of a personal label's text and examples.

    Raises:
        InputError: the text is not in the bundle's bank and no text encoder can run.
    """
    from edge.labels import resolve_labels

    vector: NDArray[np.float32] = resolve_labels([text], bundle, personal).prototypes[0]
    return vector


def search(
    log: LogReader,
    vector: NDArray[np.float32],
    where: Where,
    top: int,
    bundle_id: str,
    beside: Hit | None = None,
) -> list[Hit]:
    """The bouts that resemble a vector most.

    Args:
        log: where to look.
        vector: (D,) of a text or of a window.
        where: which windows.
        top: how many bouts at most.
        bundle_id: whose windows compare with the vector.
        beside: a bout that is not wanted, with all that lies near it.

    Returns:
        One `Hit` a bout, from its first to its last window; all else is of its nearest window.
        Nearest first.
    """
    found: list[Hit] = []
    seen = 0
    for asked in _ASKED:
        hits = log.search(vector, where, asked, bundle_id)
        for hit in hits[seen:]:
            taken = [*found, beside] if beside else found
            if not any(_near(hit, other) for other in taken):
                found.append(_bout(log, hit, vector, where, taken))
            if len(found) >= top:
                return found
        if len(hits) < asked:
            break
        seen = len(hits)
    return found


def _bout(
    log: LogReader, hit: Hit, vector: NDArray[np.float32], where: Where, taken: Sequence[Hit]
) -> Hit:
    """A hit from the first to the last window of its bout, which keeps off those taken."""
    import numpy as np

    zero_utc_s = hit.utc_s - hit.start_s
    first_s = -np.inf if where.since_utc_s is None else where.since_utc_s - zero_utc_s
    last_s = np.inf if where.until_utc_s is None else where.until_utc_s - zero_utc_s
    around_s = _AROUND_S
    while True:
        from_s, to_s = max(hit.start_s - around_s, first_s), min(hit.start_s + around_s, last_s)
        here = replace(
            where,
            since_utc_s=zero_utc_s + from_s,
            until_utc_s=zero_utc_s + to_s,
            session=hit.session,
        )
        alike = _alike(log, here, vector, ALIKE * hit.similarity)
        for other in taken:
            if other.session == hit.session:
                before, after = other.start_s - alike[:, 1], alike[:, 0] - other.end_s
                alike = alike[np.maximum(before, after) >= PAUSE_S]
        begin_s, end_s = _extent(hit, alike)
        # Where it reaches the border of what was read, there may be more of it.
        is_cut = begin_s - from_s < PAUSE_S and from_s > first_s
        is_cut |= to_s - end_s < PAUSE_S and to_s < last_s
        if not is_cut:
            return hit._replace(start_s=begin_s, end_s=end_s, utc_s=zero_utc_s + begin_s)
        around_s *= 4


def _alike(
    log: LogReader, where: Where, vector: NDArray[np.float32], least: float
) -> NDArray[np.float64]:
    """(N, 2) start and end, in the source's clock, of the windows of one session whose cosine with
    a vector is at least `least`, in order of time."""
    import numpy as np

    found = [np.empty((0, 2))]
    for block in log.windows(where, with_embeddings=True):
        if block.embedding is not None:
            alike = block.valid & (block.embedding @ vector >= least)
            found.append(np.stack([block.start_s, block.end_s], axis=1)[alike])
    return np.concatenate(found)


def _extent(hit: Hit, alike: NDArray[np.float64]) -> tuple[float, float]:
    """Start and end of what is around a hit without a pause.

    Args:
        hit: any window.
        alike: (N, 2) start and end of windows, in order of time.
    """
    import numpy as np

    start_s, end_s = hit.start_s, hit.end_s
    after = int(np.searchsorted(alike[:, 0], hit.start_s))
    for begin, end in alike[after:].tolist():
        if begin - end_s >= PAUSE_S:
            break
        end_s = max(end_s, end)
    for begin, end in alike[:after][::-1].tolist():
        if start_s - end >= PAUSE_S:
            break
        start_s = begin
    return start_s, end_s


def _near(one: Hit, other: Hit) -> bool:
    """Whether two are of one session and less than a pause apart."""
    apart_s = max(one.start_s, other.start_s) - min(one.end_s, other.end_s)
    return one.session == other.session and apart_s < PAUSE_S


def same_activity(text: str, labels: Iterable[str], bundle: Bundle) -> list[str]:
    """Those of the labels that name the activity that the text names, in other words perhaps."""
    from edge.bundle import normalised

    def activity(label: str) -> int | str:
        return bundle.bank.get(normalised(label), normalised(label))

    return [label for label in labels if activity(label) == activity(text)]


def called(text: str, events: Sequence[LoggedEvent], bundle: Bundle) -> list[LoggedEvent]:
    """The events that were called what the text says, in the same or other words."""
    names = set(same_activity(text, {e.label for e in events}, bundle))
    return [e for e in events if e.label in names]
