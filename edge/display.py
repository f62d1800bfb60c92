"""What the user sees: a live table on a terminal (`livetable.py`), lines where labels change, or
JSON lines.

Predictions go to stdout, everything about the run to stderr.
"""

from __future__ import annotations

import json
from typing import Protocol

from edge.pipeline import Prediction


class Display(Protocol):
    """Shows predictions one by one."""

    def show(self, prediction: Prediction, truth: str | None) -> None:
        """Show one window, with its true label where that is known."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def make_display(kind: str, title: str, with_truth: bool) -> Display:
    """The display for "table", "lines" or "jsonl"."""
    if kind == "jsonl":
        return JsonLines(with_truth)
    if kind == "lines":
        return Lines(with_truth)
    from edge.livetable import LiveTable  # drawing libraries that a pipe has no use for

    return LiveTable(title, with_truth)


def clock(seconds: float) -> str:
    """Minutes and seconds since the stream's start."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


class JsonLines:
    """One JSON object a window, flushed at once."""

    def __init__(self, with_truth: bool) -> None:
        self._with_truth = with_truth

    def show(self, prediction: Prediction, truth: str | None) -> None:
        """Print the window."""
        best = prediction.best
        record = {
            "start_s": round(prediction.start_s, 3),
            "end_s": round(prediction.end_s, 3),
            "label": prediction.label,
            "similarity": best and round(best.similarity, 4),
            "probability": best and round(best.probability, 4),
            "top": [score._asdict() for score in prediction.top],
            "presence": None if prediction.presence is None else round(prediction.presence, 4),
            "unknown": prediction.unknown,
            "valid": prediction.valid,
            "missing": round(prediction.missing, 4),
            "rate_hz": round(prediction.rate_hz, 2),
            "inference_ms": round(prediction.inference_ms, 3),
            "tilt_deg": _rounded(prediction.tilt_deg),
            "face_deg": _rounded(prediction.face_deg),
        }
        if self._with_truth:
            record["truth"] = truth
        print(json.dumps(record), flush=True)

    def close(self) -> None:
        """Nothing to leave."""


def _rounded(angle_deg: float | None) -> float | None:
    return None if angle_deg is None else round(angle_deg, 1)


class Changes:
    """Notices when the label (or the truth beside it) is another one than a window ago."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._last: tuple[str | None, str | None] | None = None

    def seen(self, prediction: Prediction, truth: str | None) -> tuple[bool, float]:
        """Whether something changed, and the window's end since the stream's start."""
        if self._start_s is None:
            self._start_s = prediction.start_s
        now = (prediction.label, truth)
        changed, self._last = now != self._last, now
        return changed, prediction.end_s - self._start_s


def unknown_text(prediction: Prediction) -> str:
    """What is said of an unknown window; in brackets the label that comes closest."""
    said = f"{prediction.label} ({prediction.top[0].label})"
    return f"{said:<28}      presence {prediction.presence:.2f}"


def line(prediction: Prediction, truth: str | None, at_s: float, with_truth: bool) -> str:
    """What a window says, at the stream's time of its end."""
    best = prediction.best
    if prediction.unknown:
        said = unknown_text(prediction)
    elif best:
        said = f"{best.label:<28} {best.probability:.2f}"
    else:
        said = f"{'(not classified)':<28}      {prediction.why_not_valid()}"
    return f"{clock(at_s):>8}  {said}" + (f"   truth: {truth or '-'}" if with_truth else "")


class Lines:
    """One line whenever the label changes; the time is the end of the window."""

    def __init__(self, with_truth: bool) -> None:
        self._with_truth = with_truth
        self._changes = Changes()

    def show(self, prediction: Prediction, truth: str | None) -> None:
        """Print the window if something changed."""
        changed, at_s = self._changes.seen(prediction, truth)
        if changed:
            print(line(prediction, truth, at_s, self._with_truth), flush=True)

    def close(self) -> None:
        """Nothing to leave."""
