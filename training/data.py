"""Corpora -> 5 s windows, cut by the runtime's own resampler and window cutter, cached on disk.

A window is cut once: the cache holds float16 windows (memory-mapped, NaN where nothing was
measured) and, beside them, each window's label, subject and placement.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from edge.corpus import Corpus, CorpusRecording, read_corpus, spans_in_segment
from edge.resample import Resampler
from edge.spec import SIGNAL
from edge.window import Window, WindowCutter
from firmware_bridge.errors import InputError
from training.captions import UNLABELLED, activity_of

HOP_S = 2.5
"""Hop between training windows inside a segment: each signal is seen in two alignments."""

STILL_MPS2 = 0.3
"""A window whose |acceleration| varies less than this (standard deviation) shows no movement."""

MAY_BE_STILL = frozenset({"posture", "leisure", "work", "food", "transport", "care", "selfcare"})
"""Bank groups whose activities go on without movement. A still window under any other label is
label noise: SisFall and UMAFall label a whole trial by its action, standing before and after it
included."""

_CACHE_VERSION = 1


@dataclass(frozen=True)
class WindowSet:
    """The labelled windows of one corpus."""

    corpus: str
    imu: NDArray[np.float16]
    """(N, 6, 1000) in m/s^2 and rad/s, memory-mapped."""

    label: NDArray[np.int32]
    """(N,) index into `labels`."""

    labels: tuple[str, ...]
    subject: NDArray[np.str_]
    placement: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.label)

    def without_still_noise(self) -> NDArray[np.bool_]:
        """(N,) False for windows that show no movement although their activity is one."""
        moving_label = np.array(
            [activity_of(name).group not in MAY_BE_STILL for name in self.labels]
        )[self.label]
        keep = np.ones(len(self), bool)
        for start in range(0, len(self), 4096):
            acc = np.asarray(self.imu[start : start + 4096, :3], np.float32)
            still = np.nanstd(np.sqrt((acc**2).sum(1)), axis=1) < STILL_MPS2
            keep[start : start + 4096] = ~still
        allowed: NDArray[np.bool_] = keep | ~moving_label
        return allowed


def load_windows(folder: Path, cache: Path, progress: Progress) -> WindowSet:
    """Windows of a corpus folder, from the cache when it is up to date.

    Raises:
        InputError: not a corpus, or one of role "benchmark", which is never trained on.
    """
    corpus = read_corpus(folder)
    if corpus.role != "train":
        raise InputError(
            f"{folder}: its role is {corpus.role!r}; corpora that measure generalisation are "
            "never trained on. Leave it out of the training corpora."
        )
    stem = cache / f"{corpus.name}-{_fingerprint(folder)}"
    if not stem.with_suffix(".json").exists():
        _cut(corpus, stem, progress)
    meta = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    labels = tuple(sorted(set(meta["label"])))
    index = {name: i for i, name in enumerate(labels)}
    return WindowSet(
        corpus.name,
        np.load(stem.with_suffix(".npy"), mmap_mode="r"),
        np.array([index[name] for name in meta["label"]], np.int32),
        labels,
        np.array(meta["subject"]),
        np.array(meta["placement"]),
    )


def _fingerprint(folder: Path) -> str:
    """Changes when the corpus' files or the cutting do."""
    facts: list[object] = [_CACHE_VERSION, HOP_S, SIGNAL.to_json()]
    for path in sorted(folder.glob("*.parquet")):
        facts += [path.name, path.stat().st_size, path.stat().st_mtime_ns]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _cut(corpus: Corpus, stem: Path, progress: Progress) -> None:
    """Write a corpus' windows; the .json goes last, so a broken-off cache is cut again."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    meta: dict[str, list[str]] = {"label": [], "subject": [], "placement": []}
    task = progress.add_task(f"windows of {corpus.name}", total=len(corpus))
    raw = stem.with_suffix(".partial")
    with raw.open("wb") as out:
        for recording in corpus.recordings():
            for window, label in labelled_windows(recording, HOP_S):
                if label in UNLABELLED or not window.valid:
                    continue
                out.write(window.imu.astype(np.float16).tobytes())
                meta["label"].append(label)
                meta["subject"].append(f"{corpus.name}/{recording.subject}")
                meta["placement"].append(recording.placement)
            progress.advance(task)
    progress.remove_task(task)
    shape = (len(meta["label"]), len(SIGNAL.channels), SIGNAL.window_samples)
    windows = np.memmap(raw, np.float16, "r", shape=shape) if shape[0] else np.empty(shape)
    np.save(stem.with_suffix(".npy"), windows)
    raw.unlink()
    stem.with_suffix(".json").write_text(json.dumps(meta), encoding="utf-8")


def labelled_windows(recording: CorpusRecording, hop_s: float) -> list[tuple[Window, str]]:
    """The windows inside a recording's labelled segments, cut from its stream."""
    spans, labels = [], []
    for segment in recording.segments:
        for span in spans_in_segment(segment, recording.rate_hz, hop_s):
            spans.append(span)
            labels.append(segment.label)
    resampler, cutter = Resampler(), WindowCutter(iter(spans))
    windows: list[Window] = []
    for block in resampler.push(recording.samples) + resampler.finish():
        windows += cutter.push(block)
    windows += cutter.finish()
    return list(zip(windows, labels, strict=False))  # the stream may end before the last span
