"""What `edge-log show` and `edge-log export raw` take: a hit, an event, a window or a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

# A command line is parsed with this module: what is heavy is imported where it is used.
from edge.log.when import moment_of
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    from edge.log.read import LogReader, Session
    from edge.log.store import Where

REFERENCES = (
    "hit:2 (of the last query), hit:7.2 (of query 7), event:3.12 (session.number), 3@125 (session "
    "and second of its source) or a time"
)
"""How a thing is named, for help texts and errors."""

_AROUND_S = 5.0
"""What is taken along before and after what was asked for."""


class Place(NamedTuple):
    """A time of one session that `show` and `export raw` are about."""

    what: str
    session: int
    start_s: float
    """Of the source's clock."""
    end_s: float
    zero_utc_s: float
    """UTC of the source's time 0."""

    def around(self) -> Where:
        """It and a little before and after it."""
        from edge.log.store import Where

        start, end = self.zero_utc_s + self.start_s, self.zero_utc_s + self.end_s
        return Where(start - _AROUND_S - 0.001, end + _AROUND_S, session=self.session)


def place_of(log: LogReader, reference: str, now_utc_s: float) -> Place:
    """What a reference means.

    Args:
        log: where it is looked up.
        reference: one of `REFERENCES`.
        now_utc_s: what times count from.

    Raises:
        InputError: it is malformed, or there is no such thing.
    """
    if found := re.fullmatch(r"hit:(?:(\d+)\.)?(\d+)", reference):
        return _place_of_hit(log, int(found[1]) if found[1] else None, int(found[2]))
    if found := re.fullmatch(r"event:(\d+)\.(\d+)", reference):
        return _place_of_event(log, int(found[1]), int(found[2]))
    if found := re.fullmatch(r"(\d+)@(-?\d+(?:\.\d+)?)", reference):
        session = _session(log, int(found[1]))
        return _place_of_window(log, session.zero_utc_s + float(found[2]), session.id)
    try:
        at_utc_s = moment_of(reference, now_utc_s)
    except InputError:
        raise InputError(f"{reference!r}: expected {REFERENCES}") from None
    return _place_of_window(log, at_utc_s, None)


def _place_of_hit(log: LogReader, query: int | None, rank: int) -> Place:
    asked = log.queries()
    if query is not None:
        asked = [q for q in asked if q.id == query]
    if not asked:
        raise InputError("there is no such query; edge-log list queries shows them")
    hits = asked[-1].hits
    if not 1 <= rank <= len(hits):
        raise InputError(f"query {asked[-1].id} ({asked[-1].text!r}) found {len(hits)}, no {rank}")
    hit = hits[rank - 1]
    what = f"hit {rank} of {asked[-1].text!r}, similarity {hit.similarity:.2f}"
    return Place(what, hit.session, hit.start_s, hit.end_s, hit.utc_s - hit.start_s)


def _place_of_event(log: LogReader, session: int, number: int) -> Place:
    from edge.log.store import Where

    for e in log.events(Where(session=session)):
        if e.number == number:
            what = f"event {session}.{number}, {e.label}, confidence {e.confidence:.2f}"
            return Place(what, session, e.start_s, e.end_s, e.utc_s - e.start_s)
    raise InputError(f"there is no event {session}.{number}; edge-log list events shows them")


def _place_of_window(log: LogReader, at_utc_s: float, session: int | None) -> Place:
    """The window whose middle is nearest to a time, of those that hold it."""
    from edge.log.store import Where
    from edge.spec import SIGNAL

    found: list[tuple[float, Place]] = []
    zero = {s.id: s.zero_utc_s for s in log.sessions()}
    for block in log.windows(Where(at_utc_s - SIGNAL.window_s, at_utc_s + 0.001, session=session)):
        for start_s, end_s in zip(block.start_s.tolist(), block.end_s.tolist(), strict=True):
            apart_s = abs(zero[block.session] + (start_s + end_s) / 2 - at_utc_s)
            what = f"window {block.session}@{start_s:g}"
            found.append((apart_s, Place(what, block.session, start_s, end_s, zero[block.session])))
    if not found:
        raise InputError("no window was logged at that time; edge-log list shows the sessions")
    return min(found, key=lambda one: one[0])[1]


def _session(log: LogReader, number: int) -> Session:
    from edge.log.store import Where

    found = log.sessions(Where(session=number))
    if not found:
        raise InputError(f"there is no session {number}; edge-log list shows them")
    return found[0]
