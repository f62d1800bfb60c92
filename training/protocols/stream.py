"""Scores a corpus from its samples, through the runtime's resampler and window cutter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge.corpus import CorpusRecording, spans_in_segment
from training.data import HOP_S, labelled_windows
from training.protocols.corpora import Target
from training.scoring import Outcome, Recogniser, embed, nearest

_AT_ONCE = 512
"""Windows held until they are embedded."""


def score_streams(
    model: Recogniser,
    prototypes: NDArray[np.float32],
    target: Target,
    degrade: Callable[[CorpusRecording], CorpusRecording],
) -> Outcome:
    """Name every window of the labelled segments after something befell the recordings.

    Args:
        model: the recogniser.
        prototypes: (L, D) of the target's labels.
        target: the corpus.
        degrade: puts other samples into a recording.
    """
    row_of = {text: row for row, text in enumerate(target.labels)}
    waiting: list[NDArray[np.float32]] = []
    subjects: list[str] = []
    truth: list[int] = []
    said: list[NDArray[np.intp]] = []
    everyone: set[str] = set()
    expected = 0

    def flush() -> None:
        if waiting:
            windows = np.stack(waiting)
            said.append(nearest(embed(model, windows, np.arange(len(windows))), prototypes))
            waiting.clear()

    for recording in target.corpus.recordings():
        segments = tuple(s for s in recording.segments if s.label in target.mapping)
        spans = [s for g in segments for s in spans_in_segment(g, recording.rate_hz, HOP_S)]
        if not spans:
            continue
        expected += len(spans)
        everyone.add(recording.subject)
        worse = degrade(replace(recording, segments=segments))
        for window, label in labelled_windows(worse, HOP_S):
            if window.valid:
                waiting.append(window.imu)
                subjects.append(recording.subject)
                truth.append(row_of[target.mapping[label]])
        if len(waiting) >= _AT_ONCE:
            flush()
    flush()
    named = np.concatenate([np.empty(0, np.intp), *said])
    return Outcome.of(
        target.labels,
        np.array(subjects, np.str_),
        np.array(truth, np.int64),
        named,
        expected - len(named),
        sorted(everyone),
    )
