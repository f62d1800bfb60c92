"""Moments that the tests of what takes them make up."""

from __future__ import annotations

import numpy as np

from edge.moment import Event, Moment
from edge.pipeline import Prediction
from edge.zeroshot import Score

LABELS = ("walking", "sitting", "lying")


def moment(
    end_s: float, label: str | None = "walking", events: tuple[Event, ...] = (), valid: bool = True
) -> Moment:
    """What is said at `end_s`. The window itself finds walking a little likelier than the rest."""
    shares = (0.5, 0.3, 0.2)
    scores = tuple(Score(n, 0.2, p) for n, p in zip(LABELS, shares, strict=True))
    prediction = Prediction(
        start_s=end_s - 5,
        end_s=end_s,
        valid=valid,
        top=scores if valid else (),
        missing=0.0 if valid else 0.4,
        rate_hz=50.02,
        inference_ms=0.4,
        embedding=None,
        unknown=label == "unknown",
        posterior=np.array(shares) if valid else None,
    )
    return Moment(prediction, label, None if label is None else 0.8125, events)


def event(number: int, label: str, start_s: float, end_s: float, ended: bool) -> Event:
    return Event(number, start_s, end_s, label, 0.75, ended)
