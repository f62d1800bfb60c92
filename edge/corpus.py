"""Corpora of recordings in the shared form: a folder with three Parquet files and a corpus.json.

* `samples.parquet`: int16 columns ax ay az gx gy gz of all recordings, one after another; times
  `acc_step` (m/s^2, gravity included) and `gyro_step` (rad/s) from `corpus.json`.
* `recordings.parquet`: recording, subject, session, placement, rate_hz, offset, length (samples);
  optionally has_gyro: where it is false, gx gy gz hold nothing.
* `segments.parquet`: recording, start, stop (sample indices within the recording), label.
* `texts.parquet` (optional): recording, start, stop, text, kind: sentences about a stretch.
* `corpus.json`: name, role ("train" or "benchmark"), acc_step, gyro_step, licence, cite, ...

Read by `edge-eval` and by training, which thereby share one reader. Needs pyarrow (extra `eval`).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.spec import CHANNELS, SIGNAL
from edge.window import MIN_SPAN_S, Span
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

_COLUMNS = {
    "samples": CHANNELS,
    "recordings": (
        "recording",
        "subject",
        "session",
        "placement",
        "rate_hz",
        "offset",
        "length",
    ),
    "segments": ("recording", "start", "stop", "label"),
    "texts": ("recording", "start", "stop", "text", "kind"),
}

_OPTIONAL: dict[str, dict[str, list[Any]]] = {"texts": {c: [] for c in _COLUMNS["texts"]}}
"""What a table that may be absent holds then: nothing."""


@dataclass(frozen=True)
class Segment:
    """A labelled stretch of a recording."""

    start: int
    """Index of its first sample within the recording."""

    stop: int
    """Index after its last sample."""

    label: str


@dataclass(frozen=True)
class Text:
    """A sentence about a stretch of a recording. Stretches of texts may overlap."""

    start: int
    """Index of the stretch's first sample within the recording."""

    stop: int
    """Index after its last sample."""

    text: str

    kind: str
    """Who speaks: "narration", "atomic description" or "expert commentary"."""


@dataclass(frozen=True)
class CorpusRecording:
    """One device's uninterrupted recording of one subject."""

    recording: int
    subject: str
    session: str
    placement: str
    rate_hz: float
    samples: Samples
    segments: tuple[Segment, ...]
    texts: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """A corpus, samples in memory as int16 and converted recording by recording."""

    name: str
    info: dict[str, Any]
    _tables: dict[str, Any]
    _counts: NDArray[np.int16]

    @property
    def role(self) -> str:
        """ "train", or "benchmark" for a corpus that is only ever scored on."""
        return str(self.info["role"])

    def __len__(self) -> int:
        return len(self._tables["recordings"]["recording"])

    def recordings(self) -> Iterator[CorpusRecording]:
        """All recordings in file order, in SI units."""
        segments: dict[int, list[Segment]] = defaultdict(list)
        for recording, *segment in self._rows("segments"):
            segments[recording].append(Segment(*segment))
        texts: dict[int, list[Text]] = defaultdict(list)
        for recording, *text in self._rows("texts"):
            texts[recording].append(Text(*text))
        steps = np.repeat([self.info["acc_step"], self.info["gyro_step"]], 3)
        has_gyro = self._tables["recordings"].get("has_gyro")
        for row, (recording, subject, session, placement, rate_hz, offset, length) in enumerate(
            self._rows("recordings")
        ):
            imu = self._counts[offset : offset + length] * steps
            gyro_rads = imu[:, 3:] if has_gyro is None or has_gyro[row] else None
            yield CorpusRecording(
                recording,
                str(subject),
                str(session),
                str(placement),
                rate_hz,
                Samples(np.arange(length) / rate_hz, imu[:, :3], gyro_rads),
                tuple(sorted(segments[recording], key=lambda s: s.start)),
                tuple(sorted(texts[recording], key=lambda t: t.start)),
            )

    def _rows(self, stem: str) -> Iterator[tuple[Any, ...]]:
        return zip(*(self._tables[stem][c] for c in _COLUMNS[stem]), strict=True)


def read_corpus(folder: Path) -> Corpus:
    """Read a corpus folder.

    Raises:
        InputError: pyarrow is missing, or the folder is not in the shared form.
    """
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise InputError(
            'reading a corpus needs pyarrow; install it with: pip install "aura-edge[eval]"'
        ) from None
    info = _read_info(folder / "corpus.json")
    tables = {}
    for stem, columns in _COLUMNS.items():
        path = folder / f"{stem}.parquet"
        if stem in _OPTIONAL and not path.exists():
            continue
        if not path.exists():
            raise InputError(
                f"{path}: missing; a corpus folder needs samples, recordings and "
                "segments as .parquet beside corpus.json"
            )
        try:
            table = parquet.read_table(path)
        except ArrowInvalid as error:
            raise InputError(f"{path}: not a Parquet file ({error})") from None
        absent = [c for c in columns if c not in table.column_names]
        if absent:
            raise InputError(f"{path}: no column {', '.join(absent)}; expected {columns}")
        tables[stem] = table
    counts = np.stack([tables["samples"][c].to_numpy() for c in CHANNELS], axis=1)
    plain = _OPTIONAL | {s: table.to_pydict() for s, table in tables.items() if s != "samples"}
    _check_bounds(folder, plain, len(counts))
    return Corpus(info["name"], info, plain, counts)


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is {path.parent} a corpus folder?") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    absent = [k for k in ("name", "role", "acc_step", "gyro_step") if k not in info]
    if absent:
        raise InputError(f"{path}: no field {', '.join(absent)}")
    return info


def _check_bounds(folder: Path, tables: dict[str, Any], n_samples: int) -> None:
    recordings = tables["recordings"]
    length = dict(zip(recordings["recording"], recordings["length"], strict=True))
    for row, (offset, n) in enumerate(zip(recordings["offset"], recordings["length"], strict=True)):
        if offset < 0 or offset + n > n_samples:
            raise InputError(
                f"{folder / 'recordings.parquet'}, row {row}: samples {offset} to {offset + n} "
                f"do not exist, samples.parquet has {n_samples}"
            )
    for stem in ("segments", "texts"):
        for row, (recording, start, stop) in enumerate(
            zip(*(tables[stem][c] for c in ("recording", "start", "stop")), strict=True)
        ):
            if recording not in length or not 0 <= start < stop <= length[recording]:
                raise InputError(
                    f"{folder / f'{stem}.parquet'}, row {row}: samples {start} to {stop} of "
                    f"recording {recording}, which has {length.get(recording, 'no')} samples"
                )


def spans_in_segment(segment: Segment, rate_hz: float, hop_s: float) -> list[Span]:
    """Grid spans of the windows that lie inside one segment.

    Full windows every `hop_s`; a segment of 1 to 5 s gives one span of its own length (a padded
    window), a shorter one none.
    """
    start = math.ceil(segment.start / rate_hz * SIGNAL.rate_hz)
    stop = math.floor(segment.stop / rate_hz * SIGNAL.rate_hz)
    if stop - start < MIN_SPAN_S * SIGNAL.rate_hz:
        return []
    if stop - start < SIGNAL.window_samples:
        return [(start, stop)]
    hop = round(hop_s * SIGNAL.rate_hz)
    return [
        (s, s + SIGNAL.window_samples) for s in range(start, stop - SIGNAL.window_samples + 1, hop)
    ]
