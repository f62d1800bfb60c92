"""The live view on a terminal."""

from __future__ import annotations

import sys
from collections import deque

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.display import Changes, clock, line, unknown_text
from edge.pipeline import Prediction

_RECENT_CHANGES = 8


class LiveTable:
    """A table of the best labels, redrawn in place, over the latest changes."""

    def __init__(self, title: str, with_truth: bool) -> None:
        self._title = title
        self._with_truth = with_truth
        self._changes = Changes()
        self._recent: deque[str] = deque(maxlen=_RECENT_CHANGES)
        self._live = Live(console=Console(file=sys.stdout), refresh_per_second=4)
        self._live.start()

    def show(self, prediction: Prediction, truth: str | None) -> None:
        """Draw the window."""
        changed, at_s = self._changes.seen(prediction, truth)
        if changed:
            self._recent.appendleft(line(prediction, truth, at_s, self._with_truth))
        self._live.update(render(self._title, prediction, at_s, list(self._recent)))

    def close(self) -> None:
        """Leave the last view standing."""
        self._live.stop()


def render(title: str, prediction: Prediction, at_s: float, recent: list[str]) -> Group:
    """The live view as a rich renderable: a pure function of what it shows."""
    status = (
        f"{title}   {clock(at_s)}   {prediction.rate_hz:.1f} Hz   "
        f"missing {prediction.missing:.0%}   inference {prediction.inference_ms:.1f} ms"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("label", min_width=28)
    table.add_column("", min_width=24)
    table.add_column("similarity", justify="right")
    table.add_column("probability", justify="right")
    for score in prediction.top:
        bar = "\N{BOX DRAWINGS HEAVY HORIZONTAL}" * round(24 * score.probability)
        table.add_row(Text(score.label), bar, f"{score.similarity:.2f}", f"{score.probability:.2f}")
    body = table if prediction.valid else Text(prediction.why_not_valid(), style="yellow")
    said = [Text(unknown_text(prediction), style="yellow")] if prediction.unknown else []
    return Group(Text(status, style="bold"), *said, body, Text(), *(Text(r) for r in recent))
