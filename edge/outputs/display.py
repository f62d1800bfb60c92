"""What the user sees: a live table on a terminal (`livetable.py`), lines where something else is
said, or JSON lines.

What is said goes to stdout, everything about the run to stderr.
"""

from __future__ import annotations

import json

from edge.moment import Event, Moment, Output
from edge.pipeline import UNKNOWN_LABEL


def make_display(kind: str, title: str, with_truth: bool) -> Output:
    """The display for "table", "lines" or "jsonl"."""
    if kind == "jsonl":
        return JsonLines(with_truth)
    if kind == "lines":
        return Lines(with_truth)
    from edge.outputs.livetable import LiveTable  # drawing libraries that a pipe has no use for

    return LiveTable(title, with_truth)


def clock(seconds: float) -> str:
    """Minutes and seconds since the stream's start."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


class JsonLines:
    """One JSON object a window, flushed at once.

    `label` and `confidence` are what is said now, `window_label`, `similarity`, `probability` and
    `top` what the window says by itself. `events` holds those that it began or ended; the one that
    still lasts at the stream's end ends with its last valid window.
    """

    def __init__(self, with_truth: bool) -> None:
        self._with_truth = with_truth
        self._begun = 0  # number of the newest event

    def show(self, moment: Moment, truth: str | None) -> None:
        """Print the window."""
        prediction = moment.prediction
        best = prediction.best
        record = {
            "start_s": round(prediction.start_s, 3),
            "end_s": round(prediction.end_s, 3),
            "label": moment.label,
            "confidence": _rounded(moment.confidence, 4),
            "window_label": prediction.label,
            "similarity": best and round(best.similarity, 4),
            "probability": best and round(best.probability, 4),
            "top": [score._asdict() for score in prediction.top],
            "presence": _rounded(prediction.presence, 4),
            "unknown": prediction.unknown,
            "valid": prediction.valid,
            "missing": round(prediction.missing, 4),
            "rate_hz": round(prediction.rate_hz, 2),
            "inference_ms": round(prediction.inference_ms, 3),
            "tilt_deg": _rounded(prediction.tilt_deg, 1),
            "face_deg": _rounded(prediction.face_deg, 1),
            "events": [_of_event(e) for e in moment.events if e.ended or e.number > self._begun],
        }
        self._begun = max([self._begun, *(e.number for e in moment.events)])
        if self._with_truth:
            record["truth"] = truth
        print(json.dumps(record), flush=True)

    def finish(self, events: tuple[Event, ...]) -> None:
        """No window, no line."""

    def close(self) -> None:
        """Nothing to leave."""


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _of_event(event: Event) -> dict[str, object]:
    return event._asdict() | {
        "start_s": round(event.start_s, 3),
        "end_s": round(event.end_s, 3),
        "confidence": round(event.confidence, 4),
    }


class Changes:
    """Notices when what is said (or the truth beside it) is another thing than a window ago."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._last: tuple[str | None, str | None] | None = None

    def seen(self, moment: Moment, truth: str | None) -> tuple[bool, float]:
        """Whether something changed, and the window's end since the stream's start."""
        if self._start_s is None:
            self._start_s = moment.prediction.start_s
        now = (moment.label, truth)
        changed, self._last = now != self._last, now
        return changed, moment.prediction.end_s - self._start_s


def said(moment: Moment) -> str:
    """What is said, for people. Of unknown, the label that comes closest in brackets; of nothing,
    why."""
    prediction = moment.prediction
    if moment.label is None:
        return f"{'(not classified)':<28}      {prediction.why_not_valid()}"
    label, confidence = moment.label, f"{moment.confidence:.2f}"
    if label == UNKNOWN_LABEL and prediction.best:
        label = f"{label} ({prediction.best.label})"
        if prediction.presence is not None:
            confidence += f"  presence {prediction.presence:.2f}"
    return f"{label:<28} {confidence}"


def line(moment: Moment, truth: str | None, at_s: float, with_truth: bool) -> str:
    """What is said, at the stream's time of the window's end."""
    beside = f"   truth: {truth or '-'}" if with_truth else ""
    return f"{clock(at_s):>8}  {said(moment)}{beside}"


class Lines:
    """One line whenever what is said changes; the time is the end of the window."""

    def __init__(self, with_truth: bool) -> None:
        self._with_truth = with_truth
        self._changes = Changes()

    def show(self, moment: Moment, truth: str | None) -> None:
        """Print the window if something changed."""
        changed, at_s = self._changes.seen(moment, truth)
        if changed:
            print(line(moment, truth, at_s, self._with_truth), flush=True)

    def finish(self, events: tuple[Event, ...]) -> None:
        """Nothing new is said."""

    def close(self) -> None:
        """Nothing to leave."""
