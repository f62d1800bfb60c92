"""The live view on a terminal."""

from __future__ import annotations

import sys
from collections import deque

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.moment import NOT_WORN_LABEL, Event, Moment
from edge.outputs.display import Changes, clock, line, said
from edge.pipeline import UNKNOWN_LABEL

_RECENT_CHANGES = 8


class LiveTable:
    """What is said now, over the window's best labels and the latest changes; redrawn in place."""

    def __init__(self, title: str, with_truth: bool) -> None:
        self._title = title
        self._with_truth = with_truth
        self._changes = Changes()
        self._recent: deque[str] = deque(maxlen=_RECENT_CHANGES)
        self._live = Live(console=Console(file=sys.stdout), refresh_per_second=4)
        self._live.start()

    def show(self, moment: Moment, truth: str | None) -> None:
        """Draw the window."""
        changed, at_s = self._changes.seen(moment, truth)
        if changed:
            self._recent.appendleft(line(moment, truth, at_s, self._with_truth))
        self._live.update(render(self._title, moment, at_s, list(self._recent)))

    def finish(self, events: tuple[Event, ...]) -> None:
        """Nothing new is said."""

    def close(self) -> None:
        """Leave the last view standing."""
        self._live.stop()


def render(title: str, moment: Moment, at_s: float, recent: list[str]) -> Group:
    """The live view as a rich renderable: a pure function of what it shows.

    Args:
        title: names the source.
        moment: the newest.
        at_s: the stream's time of its window's end, since the stream's start.
        recent: the latest changes, newest first.
    """
    prediction = moment.prediction
    status = (
        f"{title}   {clock(at_s)}   {prediction.rate_hz:.1f} Hz   "
        f"missing {prediction.missing:.0%}   inference {prediction.inference_ms:.1f} ms"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("window by itself", min_width=28)
    table.add_column("", min_width=24)
    table.add_column("similarity", justify="right")
    table.add_column("probability", justify="right")
    for score in prediction.top:
        bar = "\N{BOX DRAWINGS HEAVY HORIZONTAL}" * round(24 * score.probability)
        table.add_row(Text(score.label), bar, f"{score.similarity:.2f}", f"{score.probability:.2f}")
    body = table if prediction.valid else Text(prediction.why_not_valid(), style="yellow")
    return Group(
        Text(status, style="bold"),
        _now(moment, at_s),
        Text(),
        body,
        Text(),
        *(Text(r) for r in recent),
    )


def _now(moment: Moment, at_s: float) -> Text:
    """What is said, and since when; raw windows are no events and have no since."""
    odd = moment.label in (None, UNKNOWN_LABEL, NOT_WORN_LABEL)
    text = Text(said(moment), style="yellow" if odd else "bold green")
    lasting = [event for event in moment.events if not event.ended]
    if lasting:
        since_s = at_s - (moment.prediction.end_s - lasting[-1].start_s)
        text.append(f"   since {clock(since_s)}", style="not bold")
    return text
