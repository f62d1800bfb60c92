"""The parity gate: an exported encoder must say what the trained one says.

Torch, float32 ONNX and the quantized ONNX embed the same held-out windows; the cosine of their
embeddings, the agreement of their best labels and the macro-F1 they reach are compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from edge.evaluate import macro_f1
from edge.recording import open_recording, read_truth, truth_of
from edge.resample import Resampler
from edge.window import WindowCutter, every_hop
from training.captions import activity_of
from training.data import LABEL, load_windows

MIN_WORST_COSINE = 0.98
MIN_TOP1_AGREEMENT = 0.99
MAX_MACRO_F1_LOSS = 0.005

_PER_CORPUS = 600
"""Windows drawn from each corpus, half for calibration and half for the gate."""

_RECORDING = Path(__file__).parent.parent / "edge" / "data" / "recording"


@dataclass(frozen=True)
class LabelledWindows:
    """Windows and what was done in them."""

    imu: NDArray[np.float32]
    """(N, 6, 1000)"""

    activity: tuple[str, ...]
    """(N,) name of the label bank's activity."""


@dataclass(frozen=True)
class Parity:
    """How close a variant comes to the trained encoder."""

    n_windows: int
    worst_cosine: float
    mean_cosine: float
    top1_agreement: float
    macro_f1: float
    macro_f1_loss: float
    """The trained encoder's macro-F1 less the variant's."""

    def shortfalls(self) -> list[str]:
        """What is outside the bounds, each as one phrase."""
        said = []
        if self.worst_cosine < MIN_WORST_COSINE:
            said.append(f"worst cosine {self.worst_cosine:.4f} below {MIN_WORST_COSINE}")
        if self.top1_agreement < MIN_TOP1_AGREEMENT:
            said.append(f"top-1 agreement {self.top1_agreement:.4f} below {MIN_TOP1_AGREEMENT}")
        if self.macro_f1_loss > MAX_MACRO_F1_LOSS:
            said.append(f"macro-F1 loss {self.macro_f1_loss:.4f} above {MAX_MACRO_F1_LOSS}")
        return said

    def to_json(self) -> dict[str, Any]:
        """Rounded, for the manifest."""
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}


def compare(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    windows: LabelledWindows,
    prototypes: dict[str, NDArray[np.float32]],
) -> Parity:
    """Compare two encoders' embeddings (N, D) of the same windows.

    Args:
        prototypes: activity -> (D,), at least of every activity of the windows; the label set.
    """
    names = sorted(prototypes)
    stacked = np.stack([prototypes[n] for n in names])
    truth = np.array([names.index(a) for a in windows.activity])
    expected, said = ((e @ stacked.T).argmax(axis=1) for e in (reference, candidate))
    cosine = (reference * candidate).sum(axis=1)
    reached = _macro_f1(truth, said, len(names))
    return Parity(
        len(truth),
        float(cosine.min()),
        float(cosine.mean()),
        float((expected == said).mean()),
        reached,
        _macro_f1(truth, expected, len(names)) - reached,
    )


def _macro_f1(truth: NDArray[np.int64], said: NDArray[np.int64], n_labels: int) -> float:
    confusion = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(confusion, (truth, said), 1)
    return macro_f1(confusion)


def windows_of_corpora(
    folders: list[Path], cache: Path, console: Console
) -> tuple[LabelledWindows, LabelledWindows]:
    """Labelled windows of training-role corpora: for calibration, and for the gate.

    No subject is in both.

    Raises:
        InputError: a folder is no corpus, or one of role "benchmark".
    """
    rng = np.random.default_rng(0)
    calibration: list[tuple[NDArray[np.float32], list[str]]] = []
    gate: list[tuple[NDArray[np.float32], list[str]]] = []
    with Progress(console=console) as progress:
        for folder in folders:
            windows = load_windows(folder, cache, progress)
            labelled = np.array([kind == LABEL for kind in windows.kinds], bool)[windows.label]
            subjects = rng.permutation(np.unique(windows.subject))
            for_gate = np.isin(windows.subject, subjects[: (len(subjects) + 1) // 2])
            for part, rows in ((calibration, ~for_gate), (gate, for_gate)):
                candidates = np.flatnonzero(rows & labelled)
                chosen = np.sort(rng.permutation(candidates)[: _PER_CORPUS // 2])
                labels = [windows.labels[i] for i in windows.label[chosen]]
                part.append((windows.imu[chosen].astype(np.float32), labels))
    return _joined(calibration), _joined(gate)


def _joined(parts: list[tuple[NDArray[np.float32], list[str]]]) -> LabelledWindows:
    return LabelledWindows(
        np.concatenate([imu for imu, _ in parts]),
        tuple(activity_of(label).name for _, labels in parts for label in labels),
    )


def windows_of_recording() -> LabelledWindows:
    """The labelled windows of the shipped recording, which nothing is trained on."""
    truth = read_truth(_RECORDING / "walkthrough_truth.csv")
    resampler, cutter = Resampler(), WindowCutter(every_hop(1.0))
    imu, activity = [], []
    for samples in open_recording(_RECORDING / "walkthrough.csv").chunks:
        for block in resampler.push(samples):
            for window in cutter.push(block):
                start_s, end_s = (resampler.time_of(i) for i in (window.start, window.stop))
                label = truth_of(truth, start_s, end_s)
                if label is not None:
                    imu.append(window.imu)
                    activity.append(activity_of(label).name)
    return LabelledWindows(np.stack(imu), tuple(activity))
