"""What every importer shares: original files -> SI recordings -> a corpus folder.

An importer reads one public data set's own files and yields `Recording`s; `write_corpus` checks
them and writes the form that `edge/corpus.py` reads. What an importer leaves out it tells to a
`Skipped`, so that nothing goes missing in silence. Needs pyarrow (extra `eval`), not torch.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet
from rich.progress import Progress

from edge.corpus import Segment, Text
from edge.spec import CHANNELS
from edge.window import MIN_SPAN_S
from firmware_bridge.errors import AuraError, InputError
from training.importers.grid import Piece, labels_of, pieces, runs_of, segments_of
from training.importers.textfile import csv_columns, table

__all__ = [
    "RATES_HZ",
    "Dataset",
    "Piece",
    "Recording",
    "Segment",
    "Skipped",
    "Summary",
    "Text",
    "csv_columns",
    "labels_of",
    "pieces",
    "runs_of",
    "segments_of",
    "table",
    "write_corpus",
]

ACC_STEP_MPS2, GYRO_STEP_RADS = 0.005, 0.001
"""Steps of the int16 counts: +-16.7 g and +-1877 deg/s; enlarged where a data set goes beyond."""

RATES_HZ = (10.0, 1000.0)
"""What the runtime's resampler takes."""

_INT16_MAX = 32767
_LIMITS = (
    ("acceleration", "m/s^2", 300.0, "mg or raw counts were not converted"),
    ("turn rate", "rad/s", 60.0, "deg/s or raw counts were not converted"),
)
"""No sensor of these data sets measures more (the widest: +-24 g, +-2000 deg/s)."""

_MAX_SPIKES = (10, 1e-3)
"""Samples (count, fraction of a recording) beyond the limits that are taken for transmission
errors and clipped; more mean wrong units."""

_CALM_WINDOW_S = 1.0


@dataclass(frozen=True)
class Recording:
    """One device's uninterrupted recording, in SI units."""

    subject: str
    session: str
    """Recordings of one subject and session were worn at the same time."""

    placement: str
    """Plain English: "wrist", "left thigh", "waist", "chest", "pocket"."""

    rate_hz: float
    acc_mps2: NDArray[np.float64]
    """(N, 3), gravity included, no NaN."""

    gyro_rads: NDArray[np.float64] | None
    """(N, 3); None where none was worn, or none that can be believed."""

    segments: tuple[Segment, ...]
    """Sample indices, ascending."""

    source: Path
    """The file it came from, for error messages."""

    texts: tuple[Text, ...] = ()


class Skipped:
    """What an importer leaves out on purpose, and why; printed at the end, kept in corpus.json."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, Path] = {}

    def note(self, path: Path, what: str, n: int = 1) -> None:
        """`n` things of the kind `what`, in `path`, are left out."""
        self._count[what] += n
        self._first.setdefault(what, path)

    def entries(self) -> list[tuple[str, int, Path]]:
        """(what, how many, first place) in the order of their first appearance."""
        return [(what, self._count[what], path) for what, path in self._first.items()]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A public data set: what every importer module exports as `DATASET`."""

    name: str
    """The corpus folder's name: "pamap2"."""

    title: str
    cite: str
    licence: str
    units: str
    """One line: the original files' units and how they are converted, gravity, axes."""

    read: Callable[[Path, Skipped], Iterator[Recording]]
    """From the original folder, telling what it leaves out."""

    role: str = "train"
    """ "train" or "benchmark"."""

    rest_mps2: tuple[float, float] = (8.3, 11.3)
    """Where the median |acceleration| of the calmest half of the data set has to lie."""

    note: str = ""


@dataclass(frozen=True)
class Summary:
    """What `write_corpus` wrote."""

    folder: Path
    recordings: int
    subjects: int
    placements: dict[str, int]
    """Placement -> recordings."""

    hours: float
    label_minutes: dict[str, float]
    texts: int
    acc_step: float
    gyro_step: float
    skipped: tuple[tuple[str, int, Path], ...]


def write_corpus(dataset: Dataset, src: Path, dst: Path, progress: Progress) -> Summary:
    """Import `src`, the original files, to the corpus folder `dst`/NAME.

    The folder appears when everything in it has been written and checked. A corpus of the same
    name is replaced. Recordings under `MIN_SPAN_S` hold no window and are left out, noted; values
    that no sensor measures are clipped, noted, while they are few.

    Raises:
        InputError: a file cannot be read, a recording or the whole data set is implausible, or
            `dst`/NAME holds something else.
        AuraError: the folder cannot be written (a full disk, no permission).
    """
    folder = dst / dataset.name
    if not src.is_dir():
        raise InputError(f"{src}: no such folder; give the folder of the unpacked data set")
    _refuse_foreign(folder, dataset.name)
    partial, old = (dst / f".{dataset.name}.{state}" for state in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        summary = _write(dataset, src, partial, folder, progress)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise AuraError(f"{error.filename or folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _refuse_foreign(folder: Path, name: str) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        found = json.loads((folder / "corpus.json").read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != name:
        raise InputError(
            f"{folder}: exists and is not a corpus {name!r}; choose another DST or move it away"
        )


def _write(dataset: Dataset, src: Path, partial: Path, folder: Path, progress: Progress) -> Summary:
    """Recordings go to a float32 spool first: the steps are known when all have been seen."""
    skipped, tables, calm = Skipped(), _Tables(), _Calm()
    spool = partial / "samples.float32"
    task = progress.add_task(f"importing {dataset.name}", total=None)
    with spool.open("wb") as out:
        for recording in dataset.read(src, skipped):
            imu = _checked(recording, skipped)
            if len(imu) < MIN_SPAN_S * recording.rate_hz:
                skipped.note(recording.source, f"recording shorter than {MIN_SPAN_S:g} s")
                continue
            calm.add(imu[:, :3], recording.rate_hz)
            imu.astype(np.float32).tofile(out)
            tables.add(recording)
            where = f"importing {dataset.name}: {recording.subject}, {recording.placement}"
            progress.update(task, advance=1, description=where)
    if not tables.recordings:
        raise InputError(
            f"{src}: no recording of {dataset.title} found; expected the original files, "
            f"unpacked:\n{_layout(dataset)}"
        )
    calm_mps2 = calm.check(dataset, src)
    steps = _write_samples(spool, partial / "samples.parquet", progress)
    spool.unlink()
    tables.write(partial)
    info = {
        "name": dataset.name,
        "role": dataset.role,
        "acc_step": steps[0],
        "gyro_step": steps[1],
        "title": dataset.title,
        "cite": dataset.cite,
        "licence": dataset.licence,
        "note": dataset.note,
        "units": dataset.units,
        "calm_mps2": round(calm_mps2, 3),
        "imported_by": "edge-train import",
        "skipped": [
            {"what": what, "count": n, "first": _relative(path, src)}
            for what, n, path in skipped.entries()
        ],
    }
    text = json.dumps(info, indent=1, ensure_ascii=False)
    (partial / "corpus.json").write_text(text + "\n", encoding="utf-8")
    progress.remove_task(task)
    return tables.summary(folder, steps, skipped)


def _layout(dataset: Dataset) -> str:
    """The importer's own description of the files: its module's docstring."""
    return (sys.modules[dataset.read.__module__].__doc__ or "").strip()


def _relative(path: Path, src: Path) -> str:
    return path.relative_to(src).as_posix() if path.is_relative_to(src) else path.name


def _checked(recording: Recording, skipped: Skipped) -> NDArray[np.float64]:
    """The recording's (N, 6) samples, plausible; zeros for a gyroscope that is not there.

    Raises:
        InputError: they are not, or its rate or segments are impossible; names the file.
    """
    source, n = recording.source, len(recording.acc_mps2)
    gyro_rads = np.zeros((n, 3)) if recording.gyro_rads is None else recording.gyro_rads
    if recording.acc_mps2.shape != (n, 3) or gyro_rads.shape != (n, 3):
        raise InputError(
            f"{source}: accelerometer {recording.acc_mps2.shape} and gyroscope "
            f"{gyro_rads.shape}; expected (N, 3) each"
        )
    if not RATES_HZ[0] <= recording.rate_hz <= RATES_HZ[1]:
        raise InputError(
            f"{source}: {recording.rate_hz:g} Hz; expected {RATES_HZ[0]:g} to {RATES_HZ[1]:g} Hz"
        )
    parts: tuple[Segment | Text, ...] = (*recording.segments, *recording.texts)
    for part in parts:
        if not 0 <= part.start < part.stop <= n:
            raise InputError(
                f"{source}: {part} lies outside the recording's {n} samples or is empty"
            )
    imu = np.hstack([recording.acc_mps2, gyro_rads]).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(imu).all(axis=1))
    if len(bad):
        raise InputError(f"{source}: sample {bad[0]} of {n} holds no number (NaN or infinite)")
    for first, (quantity, unit, limit, cause) in zip((0, 3), _LIMITS, strict=True):
        channels = imu[:, first : first + 3]
        spikes = int((np.abs(channels) > limit).any(axis=1).sum())
        if spikes > max(_MAX_SPIKES[0], _MAX_SPIKES[1] * n):
            raise InputError(
                f"{source}: {spikes} of {n} samples of {quantity} are above {limit:g} {unit} "
                f"(the largest {np.abs(channels).max():.4g}); probably {cause}"
            )
        if spikes:
            skipped.note(source, f"sample with {quantity} above {limit:g} {unit}, clipped", spikes)
            np.clip(channels, -limit, limit, out=channels)
    return imu


class _Calm:
    """What the accelerometer reads while little happens: wrong units and lost gravity show."""

    def __init__(self) -> None:
        self._mean: list[NDArray[np.float64]] = []
        self._spread: list[NDArray[np.float64]] = []

    def add(self, acc_mps2: NDArray[np.float64], rate_hz: float) -> None:
        size = round(_CALM_WINDOW_S * rate_hz)
        norm = np.sqrt((acc_mps2**2).sum(axis=1))
        windows = norm[: len(norm) // size * size].reshape(-1, size)
        self._mean.append(windows.mean(axis=1))
        self._spread.append(windows.std(axis=1))

    def check(self, dataset: Dataset, src: Path) -> float:
        """The median |acceleration| of the calmest half of all 1 s windows.

        Raises:
            InputError: it is not what a device at rest measures.
        """
        spread = np.concatenate(self._spread)
        measured = float(np.median(np.concatenate(self._mean)[spread <= np.median(spread)]))
        low, high = dataset.rest_mps2
        if not low <= measured <= high:
            raise InputError(
                f"{src}: in its calmest half the accelerometer reads {measured:.4g} m/s^2; "
                f"expected {low:g} to {high:g}. {_likely_cause(measured)}"
            )
        return measured


def _likely_cause(calm_mps2: float) -> str:
    if 0.8 <= calm_mps2 <= 1.2:
        return "Probably the files are in g, where m/s^2 was expected."
    if calm_mps2 < 4:
        return "Probably gravity was removed from these files; the corpus needs it."
    if 85 <= calm_mps2 <= 110:
        return "Probably the files are in m/s^2 already, where g was expected."
    if 800 <= calm_mps2 <= 1200:
        return "Probably the files are in mg, where m/s^2 was expected."
    return "Probably this is another version of the data set, with other units or columns."


def _write_samples(spool: Path, path: Path, progress: Progress) -> tuple[float, float]:
    """Quantise the float32 spool into int16; returns (acc_step, gyro_step)."""
    imu = np.memmap(spool, np.float32, "r").reshape(-1, len(CHANNELS))
    chunks = [imu[i : i + 1_000_000] for i in range(0, len(imu), 1_000_000)]
    peak = np.max([np.abs(c).max(axis=0) for c in chunks], axis=0)
    acc_step = _step(ACC_STEP_MPS2, float(peak[:3].max()))
    gyro_step = _step(GYRO_STEP_RADS, float(peak[3:].max()))
    steps = np.repeat([acc_step, gyro_step], 3)
    schema = pa.schema([(c, pa.int16()) for c in CHANNELS])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in progress.track(chunks, description="writing samples"):
            counts = np.round(chunk / steps).astype(np.int16)
            writer.write_table(pa.table(dict(zip(CHANNELS, counts.T, strict=True)), schema))
    return acc_step, gyro_step


def _step(default: float, peak: float) -> float:
    """The default, or the next multiple of 1 % of it with which `peak` fits into int16."""
    if peak <= default * _INT16_MAX:
        return default
    return round(math.ceil(peak / _INT16_MAX / default * 100) * default / 100, 8)


@dataclass
class _Tables:
    """The rows of everything but the samples."""

    recordings: list[tuple[Any, ...]] = field(default_factory=list)
    segments: list[tuple[Any, ...]] = field(default_factory=list)
    texts: list[tuple[Any, ...]] = field(default_factory=list)
    samples: int = 0

    def add(self, r: Recording) -> None:
        number, n = len(self.recordings), len(r.acc_mps2)
        where = (r.placement, float(r.rate_hz), self.samples, n, r.gyro_rads is not None)
        self.recordings.append((number, r.subject, r.session, *where))
        self.segments += [(number, s.start, s.stop, s.label) for s in r.segments]
        self.texts += [(number, t.start, t.stop, t.text, t.kind) for t in r.texts]
        self.samples += n

    def write(self, folder: Path) -> None:
        span: list[tuple[str, Any]] = [(c, pa.int64()) for c in ("recording", "start", "stop")]
        who = [(c, pa.string()) for c in ("subject", "session", "placement")]
        where = [("rate_hz", pa.float64()), ("offset", pa.int64()), ("length", pa.int64())]
        where += [("has_gyro", pa.bool_())]
        for stem, fields, rows in (
            ("recordings", [span[0], *who, *where], self.recordings),
            ("segments", [*span, ("label", pa.string())], self.segments),
            ("texts", [*span, ("text", pa.string()), ("kind", pa.string())], self.texts),
        ):
            if rows or stem != "texts":
                columns = [[row[i] for row in rows] for i in range(len(fields))]
                table = pa.table(columns, schema=pa.schema(fields))
                parquet.write_table(table, folder / f"{stem}.parquet")

    def summary(self, folder: Path, steps: tuple[float, float], skipped: Skipped) -> Summary:
        rate = {row[0]: row[4] for row in self.recordings}
        minutes: Counter[str] = Counter()
        for number, start, stop, label in self.segments:
            minutes[label] += (stop - start) / rate[number] / 60
        return Summary(
            folder=folder,
            recordings=len(self.recordings),
            subjects=len({row[1] for row in self.recordings}),
            placements=dict(Counter(row[3] for row in self.recordings)),
            hours=sum(row[6] / row[4] for row in self.recordings) / 3600,
            label_minutes=dict(minutes.most_common()),
            texts=len(self.texts),
            acc_step=steps[0],
            gyro_step=steps[1],
            skipped=tuple(skipped.entries()),
        )
