"""The one path from samples to labels: resampler -> window -> encoder -> zero-shot decision.

Beside it, the upright direction is learned from all that is measured, for the decision.

    pipeline = Pipeline(bundle, labels)
    for samples in source:
        for prediction in pipeline.push(samples):
            print(prediction.start_s, prediction.label)
    predictions = pipeline.finish()

Live use, replay and evaluation all run this loop; how the samples are chunked changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.posture import PostureEvidence, motion_mps2, posture_evidence, segment_of
from edge.resample import GridBlock, Resampler
from edge.spec import SIGNAL
from edge.upright import UprightTracker
from edge.window import MAX_MISSING, Span, Window, WindowCutter, every_hop
from edge.zeroshot import LabelSet, Score
from firmware_bridge.samples import Samples

DEFAULT_HOP_S = 1.0
DEFAULT_TOP = 5

UNKNOWN_LABEL = "unknown"
"""What is said of a window that none of the labels fits."""

_TOGETHER = 32
"""Windows taken through each step together where many end at once; 0.8 MB."""

_MAX_WAITING = 5_000
"""Samples that may wait for a window's end: 5 s at 1000 Hz. More would only cost memory."""


@dataclass(frozen=True)
class Prediction:
    """What is said of one window."""

    start_s: float
    """Start of the window, in seconds of the source's clock."""

    end_s: float

    valid: bool
    """False when too much of the window is missing: then it has no label and no embedding."""

    top: tuple[Score, ...]
    """The best labels, best first; empty when not valid."""

    missing: float
    """Fraction of the window that fell into gaps."""

    rate_hz: float
    """Samples the source delivered in the window, per second of measured signal."""

    inference_ms: float
    """Time the encoder took."""

    embedding: NDArray[np.float32] | None
    """(512,) unit vector."""

    tilt_deg: float | None = None
    """Angle of the device from where it hangs on its upright wearer, 0 to 180; None before enough
    walking was seen, and in a window without a steady direction."""

    face_deg: float | None = None
    """Angle of the device's flat face from vertical, 0 to 90; None without a steady direction."""

    presence: float | None = None
    """How well the best fitting label fits, -1 to 1 (`edge.zeroshot.Verdict`); None when not valid
    and where the bundle's decision does not ask for it."""

    unknown: bool = False
    """Whether none of the labels fits."""

    posterior: NDArray[np.float64] | None = None
    """(L,) the probabilities of all labels, in the label set's order; None when not valid."""

    motion_mps2: float | None = None
    """Root mean square of the acceleration's deviation from each second's mean, over the three
    axes; None when not valid."""

    @property
    def best(self) -> Score | None:
        """The best label, fitting or not; None when not valid."""
        return self.top[0] if self.top else None

    @property
    def label(self) -> str | None:
        """What is said: the best label, or "unknown"; None when not valid."""
        if self.unknown:
            return UNKNOWN_LABEL
        return self.top[0].label if self.top else None

    def why_not_valid(self) -> str:
        """One phrase for people."""
        return f"{self.missing:.0%} of the window is missing (limit {MAX_MISSING:.0%})"


class Pipeline:
    """All state of one stream. Push samples in any chunks, then `finish`.

    Args:
        bundle: the encoder and how it decides.
        labels: what to decide between.
        spans: of the windows; one every second by default.
        top: how many labels a prediction holds.
        placement: where the device is worn, in words (`edge.posture.segment_of`); None if that is
            not known.
    """

    def __init__(
        self,
        bundle: Bundle,
        labels: LabelSet,
        spans: Iterator[Span] | None = None,
        top: int = DEFAULT_TOP,
        placement: str | None = None,
    ) -> None:
        self.resampler = Resampler()
        self._bundle = bundle
        self._labels = labels
        self._top = top
        self._segment = segment_of(placement)
        self._upright = UprightTracker()
        self._cutter = WindowCutter(every_hop(DEFAULT_HOP_S) if spans is None else spans)
        self._waiting: list[Samples] = []
        self._n_waiting = 0
        self._due_s = -np.inf  # time of the last grid point of the next window; asked per packet
        self._measured_s = np.empty(0)  # times of the samples that coming windows may hold

    def push(self, samples: Samples) -> list[Prediction]:
        """Take samples; return the windows they complete.

        Raises:
            InputError: the stream's clock or sensors changed (see `Resampler.push`).
        """
        if self._waiting and (self._waiting[0].gyro_rads is None) != (samples.gyro_rads is None):
            predictions = self._process()
            self._keep(samples)  # the resampler says what is wrong once its turn comes
            return predictions
        self._keep(samples)
        return self._process() if self._is_due(samples) else []

    def _keep(self, samples: Samples) -> None:
        self._waiting.append(samples)
        self._n_waiting += len(samples)

    def _is_due(self, newest: Samples) -> bool:
        """Whether waiting samples may complete a window.

        Until then they wait, for resampling many at once costs little more than a few: a live
        stream is processed about once a hop. The result is the same, bit for bit.
        """
        if self._n_waiting > _MAX_WAITING:
            return True
        # NaN compares as not due; a stamp that is off by far is looked at when its turn comes.
        return len(newest) > 0 and bool(newest.t_s[-1] >= self._due_s)

    def _process(self) -> list[Prediction]:
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        if not waiting:
            return []
        blocks = self.resampler.push(Samples.joined(waiting))
        self._measured_s = np.concatenate([self._measured_s, self.resampler.accepted_s])
        predictions = self._predict(blocks)
        if self.resampler.origin_s is not None:
            due = self._cutter.due_index
            self._due_s = np.inf if due is None else self.resampler.time_of(due - 1)
        return predictions

    def finish(self) -> list[Prediction]:
        """The stream has ended: return the last windows."""
        predictions = self._process() + self._predict(self.resampler.finish())
        return predictions + self._classify(self._cutter.finish())

    def _predict(self, blocks: list[GridBlock]) -> list[Prediction]:
        predictions = []
        for block in blocks:
            self._upright.push(block)  # all of it, whether or not a span asks for a window there
            predictions += self._classify(self._cutter.push(block))
        return predictions

    def _classify(self, windows: Iterator[Window]) -> list[Prediction]:
        """Some windows at a time, step by step: what a step needs stays in the processor's caches,
        which the encoder fills with its weights."""
        predictions = []
        while some := list(islice(windows, _TOGETHER)):
            embedded = [self._embed(window) if window.valid else None for window in some]
            evidence = [
                posture_evidence(window.imu, self._upright.reference_at(window.stop))
                for window in some
            ]
            motion = [motion_mps2(window.imu) for window in some]
            predictions += [
                self._judge(*of_window)
                for of_window in zip(some, embedded, evidence, motion, strict=True)
            ]
        return predictions

    def _embed(self, window: Window) -> tuple[NDArray[np.float32], float]:
        """A valid window's embedding, and the milliseconds it took."""
        began = time.perf_counter()
        embedding = self._bundle.encoder.embed(window.imu)
        return embedding, (time.perf_counter() - began) * 1e3

    def _judge(
        self,
        window: Window,
        embedded: tuple[NDArray[np.float32], float] | None,
        evidence: PostureEvidence | None,
        motion: float,
    ) -> Prediction:
        start_s = self.resampler.time_of(window.start)
        end_s = self.resampler.time_of(window.stop)
        rate_hz = self._rate(start_s, end_s, window.missing)
        if embedded is None:
            return Prediction(start_s, end_s, False, (), window.missing, rate_hz, 0.0, None)
        embedding, inference_ms = embedded
        verdict = self._labels.judge(
            embedding, self._bundle.logit_scale, self._top, self._segment, evidence
        )
        return Prediction(
            start_s,
            end_s,
            True,
            verdict.top,
            window.missing,
            rate_hz,
            inference_ms,
            embedding,
            evidence and evidence.tilt_deg,
            evidence and evidence.face_deg,
            verdict.presence,
            verdict.unknown,
            verdict.posterior,
            motion,
        )

    def _rate(self, start_s: float, end_s: float, missing: float) -> float:
        half_step_s = 0.5 / SIGNAL.rate_hz  # keeps a sample on the border out of the rounding
        first, after = self._measured_s.searchsorted([start_s - half_step_s, end_s - half_step_s])
        self._measured_s = self._measured_s[first:]
        measured_s = (end_s - start_s) * (1 - missing)
        return float((after - first) / measured_s) if measured_s > 0 else 0.0
