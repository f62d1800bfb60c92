"""Corpora -> 5 s windows, cut by the runtime's own resampler and window cutter, cached on disk.

A window is cut once: the cache holds float16 windows (memory-mapped, NaN where nothing was
measured) and, beside them, what each one shows, of whom, worn where, and in which recording.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from edge.corpus import Corpus, CorpusRecording, Segment, Text, read_corpus, spans_in_segment
from edge.resample import Resampler
from edge.spec import SIGNAL
from edge.window import MIN_SPAN_S, Span, Window, WindowCutter
from firmware_bridge.errors import InputError
from training.captions import COMPOSITE, SENTENCE, UNLABELLED, Activity, activity_of, sentence

HOP_S = 2.5
"""Hop between training windows inside a segment: each signal is seen in two alignments."""

STILL_MPS2 = 0.3
"""A window whose |acceleration| varies less than this (standard deviation) shows no movement."""

MAY_BE_STILL = frozenset(
    {"posture", "leisure", "work", "food", "transport", "care", "selfcare", SENTENCE}
)
"""Groups whose activities go on without movement. A still window under any other label is label
noise: SisFall and UMAFall label a whole trial by its action, standing before and after it
included. Sentences are written about the moment itself, so nothing under them is known to be
noise."""

CLAIMS = {("wisdm", "climbing stairs"): "walking up and down stairs"}
"""What a corpus' label claims to train towards, where that is not what it says. WISDM's activity C
is "stairs", both ways: half of it taught the encoder that going down is climbing."""

LABEL = "label"
"""The kind of what `segments.parquet` says, beside the kinds of sentences in `texts.parquet`."""

Purpose = Literal["train", "score"]
"""What windows are for: "train" for all that learning or choosing depends on, "score" for windows
that are scored on and nothing else."""

_CACHE_VERSION = 2


@dataclass(frozen=True)
class WindowSet:
    """The windows of one corpus, each with a label or a free sentence.

    A stretch that has both, or several sentences, gives windows for each.
    """

    corpus: str
    imu: NDArray[np.float16]
    """(N, 6, 1000) in m/s^2 and rad/s, memory-mapped."""

    label: NDArray[np.int32]
    """(N,) index into `labels`."""

    labels: tuple[str, ...]
    """Labels and sentences, sorted; what is both stands there twice."""

    kinds: tuple[str, ...]
    """Of each entry of `labels`: `LABEL`, or the kind of sentence (`edge.corpus.Text.kind`)."""

    subject: NDArray[np.str_]
    """(N,) corpus/subject."""

    placement: NDArray[np.str_]
    """(N,) as the corpus says it."""

    recording: NDArray[np.int32]
    """(N,) number of the recording within the corpus; windows of one recording may overlap."""

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def activities(self) -> tuple[Activity, ...]:
        """What each entry of `labels` means; several entries may mean the same activity."""
        return tuple(
            activity_of(CLAIMS.get((self.corpus, text), text)) if kind == LABEL else sentence(text)
            for text, kind in zip(self.labels, self.kinds, strict=True)
        )

    def without_still_noise(self) -> NDArray[np.bool_]:
        """(N,) False for windows that show no movement although their activity is one."""
        moving_label = np.array([not _may_be_still(a) for a in self.activities], bool)[self.label]
        keep = np.ones(len(self), bool)
        for start in range(0, len(self), 4096):
            acc = np.asarray(self.imu[start : start + 4096, :3], np.float32)
            still = np.nanstd(np.sqrt((acc**2).sum(1)), axis=1) < STILL_MPS2
            keep[start : start + 4096] = ~still
        allowed: NDArray[np.bool_] = keep | ~moving_label
        return allowed


def _may_be_still(activity: Activity) -> bool:
    """Whether an activity, or any that a composite label names, goes on without movement."""
    if activity.group == COMPOSITE:
        return any(activity_of(name).group in MAY_BE_STILL for name in activity.parts)
    return activity.group in MAY_BE_STILL


def load_windows(
    folder: Path, cache: Path, progress: Progress, purpose: Purpose = "train"
) -> WindowSet:
    """Windows of a corpus folder, from the cache when it is up to date.

    Args:
        folder: the corpus.
        cache: the folder of cut windows.
        progress: shows the cutting.
        purpose: with "score", corpora of every role are read; see `Purpose`.

    Raises:
        InputError: not a corpus, or one of role "benchmark", which is never trained on.
    """
    corpus = read_corpus(folder)
    if purpose == "train" and corpus.role != "train":
        raise InputError(
            f"{folder}: its role is {corpus.role!r}; corpora that measure generalisation are "
            "never trained on. Leave it out of the training corpora."
        )
    stem = cache / f"{corpus.name}-{_fingerprint(folder)}"
    if not stem.with_suffix(".json").exists():
        _cut(corpus, stem, progress)
    meta = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    return WindowSet(
        corpus.name,
        np.load(stem.with_suffix(".npy"), mmap_mode="r"),
        np.array(meta["label"], np.int32),
        tuple(text for text, _ in meta["labels"]),
        tuple(kind for _, kind in meta["labels"]),
        np.array(meta["subject"], np.str_),
        np.array(meta["placement"], np.str_),
        np.array(meta["recording"], np.int32),
    )


def _fingerprint(folder: Path) -> str:
    """Changes when the corpus' files or the cutting do."""
    facts: list[object] = [_CACHE_VERSION, HOP_S, SIGNAL.to_json()]
    for path in sorted((*folder.glob("*.parquet"), folder / "corpus.json")):
        facts += [path.name, path.stat().st_size, path.stat().st_mtime_ns]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _cut(corpus: Corpus, stem: Path, progress: Progress) -> None:
    """Write a corpus' windows; the .json goes last, so a broken-off cache is cut again. Commands
    that run side by side may cut the same corpus: each writes files of its own until they are
    complete."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    said: list[tuple[str, str]] = []  # of each window, its label or sentence and of which kind
    meta: dict[str, list[Any]] = {"subject": [], "placement": [], "recording": []}
    task = progress.add_task(f"windows of {corpus.name}", total=len(corpus))
    own = f"{stem}-{os.getpid()}"
    raw, saved = Path(f"{own}.partial"), Path(f"{own}.npy")
    with raw.open("wb") as out:
        for recording in corpus.recordings():
            for window, text, kind in _wanted_windows(recording):
                out.write(window.imu.astype(np.float16).tobytes())
                said.append((text, kind))
                meta["subject"].append(f"{corpus.name}/{recording.subject}")
                meta["placement"].append(recording.placement)
                meta["recording"].append(recording.recording)
            progress.advance(task)
    progress.remove_task(task)
    labels = sorted(set(said))
    index = {label: i for i, label in enumerate(labels)}
    meta |= {"labels": labels, "label": [index[label] for label in said]}
    shape = (len(said), len(SIGNAL.channels), SIGNAL.window_samples)
    windows = np.memmap(raw, np.float16, "r", shape=shape) if said else np.empty(shape, np.float16)
    np.save(saved, windows)
    raw.unlink()
    saved.replace(stem.with_suffix(".npy"))
    stem.with_suffix(".json").write_text(json.dumps(meta), encoding="utf-8")


def _wanted_windows(recording: CorpusRecording) -> Iterator[tuple[Window, str, str]]:
    """The windows that are trained on, with their label or sentence, and its kind."""
    for window, label in labelled_windows(recording, HOP_S):
        if label not in UNLABELLED and window.valid:
            yield window, label, LABEL
    for window, text in sentence_windows(recording, HOP_S):
        if text.text.strip() and window.valid:
            yield window, text.text, text.kind


def labelled_windows(recording: CorpusRecording, hop_s: float) -> list[tuple[Window, str]]:
    """The windows inside a recording's labelled segments, cut from its stream."""
    spans, labels = [], []
    for segment in recording.segments:
        for span in spans_in_segment(segment, recording.rate_hz, hop_s):
            spans.append(span)
            labels.append(segment.label)
    # The stream may end before the last span.
    return list(zip(_windows(recording, spans), labels, strict=False))


def sentence_windows(recording: CorpusRecording, hop_s: float) -> list[tuple[Window, Text]]:
    """The windows that a recording's free sentences are about, cut from its stream.

    One window for a sentence about less than 5 s, with what it is about in its middle, as far as
    the recording reaches; for one about more, windows every `hop_s` inside, as in segments.
    """
    stop = math.floor(len(recording.samples.t_s) / recording.rate_hz * SIGNAL.rate_hz)
    about = [
        (span, text)
        for text in recording.texts
        for span in _spans_of_text(text, recording.rate_hz, hop_s, stop)
    ]
    about.sort(key=lambda pair: pair[0])  # the windows of overlapping texts interleave
    windows = _windows(recording, [span for span, _ in about])
    return list(zip(windows, (text for _, text in about), strict=False))


def _spans_of_text(text: Text, rate_hz: float, hop_s: float, stop: int) -> list[Span]:
    """Grid spans of the windows about a text, in a recording that ends at grid index `stop`."""
    inside = spans_in_segment(Segment(text.start, text.stop, ""), rate_hz, hop_s)
    if inside and inside[0][1] - inside[0][0] == SIGNAL.window_samples:
        return inside
    if stop < MIN_SPAN_S * SIGNAL.rate_hz:
        return []
    middle = round((text.start + text.stop) / 2 / rate_hz * SIGNAL.rate_hz)
    start = max(0, min(middle - SIGNAL.window_samples // 2, stop - SIGNAL.window_samples))
    return [(start, min(stop, start + SIGNAL.window_samples))]


def _windows(recording: CorpusRecording, spans: Sequence[Span]) -> list[Window]:
    """The windows over the spans, in their order, which ascends."""
    if not spans:
        return []
    resampler, cutter = Resampler(), WindowCutter(iter(spans))
    windows: list[Window] = []
    for block in resampler.push(recording.samples) + resampler.finish():
        windows += cutter.push(block)
    return [*windows, *cutter.finish()]
