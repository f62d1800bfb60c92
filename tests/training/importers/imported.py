"""What the tests of the importers share: import a made-up copy of the original files, read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from edge.corpus import CorpusRecording, read_corpus
from firmware_bridge.errors import InputError
from training.importers.form import Dataset, write_corpus

G = 9.80665


def imported(
    dataset: Dataset, src: Path, dst: Path
) -> tuple[list[CorpusRecording], dict[str, int]]:
    """The recordings of the corpus that the importer makes of `src`, and what it left out."""
    with Progress(console=Console(quiet=True)) as progress:
        summary = write_corpus(dataset, src, dst / "corpora", progress)
    skipped = {what: n for what, n, _ in summary.skipped}
    return list(read_corpus(summary.folder).recordings()), skipped


def refused(dataset: Dataset, src: Path, dst: Path) -> str:
    """The message with which the importer refuses `src`."""
    with pytest.raises(InputError) as caught:
        imported(dataset, src, dst)
    return str(caught.value)


def imu(recording: CorpusRecording) -> np.ndarray:
    """(N, 6) of a recording."""
    assert recording.samples.gyro_rads is not None
    return np.hstack([recording.samples.acc_mps2, recording.samples.gyro_rads])


def write_rows(path: Path, header: str, rows: list[str]) -> Path:
    """A CSV file with a header line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path
