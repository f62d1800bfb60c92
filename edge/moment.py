"""What is said of now, and the events of a diary: what the diary hands to whatever shows, keeps or
sends it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edge.pipeline import Prediction

NOT_WORN_LABEL = "not worn"
"""What is said while the device lies still as no body can."""


class Event(NamedTuple):
    """A stretch of one activity."""

    number: int
    """Counts the events of a session, from 1; the same while one event grows."""

    start_s: float
    """Seconds of the source's clock."""

    end_s: float
    """Up to now while it lasts."""

    label: str
    """One of the labels, "unknown" or "not worn"."""

    confidence: float
    """Mean posterior of the label over the event, 0 to 1."""

    ended: bool


@dataclass(frozen=True)
class Moment:
    """What is said once a window was classified."""

    prediction: Prediction

    label: str | None
    """One of the labels, "unknown" or "not worn"; None where nothing is said."""

    confidence: float | None
    """Probability of the label, 0 to 1; None where there is none."""

    events: tuple[Event, ...] = ()
    """Those that this window began, made longer or ended, in the order of time."""


class Output(Protocol):
    """Whatever takes what a run says: a display, the log, a page, a broker.

    Called from one thread. What goes wrong with one output may not end the run: it warns once and
    lets the labels go on.
    """

    def show(self, moment: Moment, truth: str | None) -> None:
        """Take one window, with its true label where that is known."""

    def finish(self, events: tuple[Event, ...]) -> None:
        """The stream has ended: take the events that this ended."""

    def close(self) -> None:
        """Leave nothing behind; called once, after an error too."""
