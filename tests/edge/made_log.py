"""Logs of days that never were, written as `edge-run` writes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.log.eventlog import EventLog
from edge.moment import NOT_WORN_LABEL, Event, Moment
from edge.pipeline import UNKNOWN_LABEL, Prediction
from edge.zeroshot import Score
from firmware_bridge.samples import Samples
from tests.conftest import walk

LABELS = ["walking", "sitting", "climbing stairs", "lying"]


class Act(NamedTuple):
    """What is done, and for how long."""

    label: str | None
    """One of `LABELS`, "unknown", "not worn" or None: nothing arrives."""
    seconds: int
    confidence: float = 0.8
    alike: str = "walking"
    """Of an unknown act, the label that comes nearest."""


def utc(*parts: int) -> float:
    """UTC seconds of a date and time."""
    year, month, day, hour, minute, second = (*parts, 0, 0, 0)[:6]
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


@contextmanager
def in_zone(monkeypatch: pytest.MonkeyPatch, zone: str) -> Iterator[None]:
    """This process in another time zone."""
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of a process cannot be set on this system")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def write_session(
    path: Path,
    bundle: Bundle,
    acts: Sequence[Act],
    start_utc_s: float,
    *,
    diary: bool = True,
    device: str | None = None,
    bundle_id: str | None = None,
    raw: bool = False,
    warn: Callable[[str], None] = pytest.fail,
) -> None:
    """Log one session, a window a second, each embedded near its label's prototype."""
    log = EventLog(
        path,
        "replay:day.csv",
        bundle_id or bundle.id,
        LABELS,
        1.0,
        "0.1.0",
        warn,
        device=device,
        placement="left wrist",
        keep_raw_s=600.0 if raw else 0.0,
    )
    rng = np.random.default_rng(1)
    at, event = start_utc_s, None
    for number, act in enumerate(acts, start=1):
        for _ in range(act.seconds):
            events: tuple[Event, ...] = ()
            if diary and event and event.number != number:
                events, event = (event._replace(ended=True),), None
            if diary and act.label is not None:
                begun = event.start_s if event else at
                event = Event(number, begun, at + 1, act.label, act.confidence, False)
                events = (*events, event)
            confidence = None if act.label is None else act.confidence
            log.show(Moment(_window(bundle, act, at, rng), act.label, confidence, events))
            at += 1
    if raw:
        moving = walk(sum(act.seconds for act in acts), 50)
        whole = Samples(moving.t_s + start_utc_s, moving.acc_mps2, moving.gyro_rads)
        for _ in log.passing(whole[i : i + 50] for i in range(0, len(whole), 50)):
            pass
    if event:
        log.finish((event._replace(ended=True),))
    log.close()


def _window(bundle: Bundle, act: Act, at: float, rng: np.random.Generator) -> Prediction:
    if act.label is None:
        return Prediction(at, at + 5, False, (), 0.9, 50.0, 0.0, None)
    unknown = act.label == UNKNOWN_LABEL
    best = act.alike if act.label in (UNKNOWN_LABEL, NOT_WORN_LABEL) else act.label
    others = [label for label in LABELS if label != best]
    top = (Score(best, 0.6, 0.7), *(Score(label, 0.2, 0.1) for label in others))
    vector = bundle.prototypes[bundle.bank[best]] + rng.normal(0, 0.01, 512)
    embedding = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Prediction(
        at, at + 5, True, top, 0.02, 50.0, 1.5, embedding, unknown=unknown, motion_mps2=0.5
    )
