"""Windows, events and raw samples of a log as files for other programs.

Written beside the file first and then put in its place, readable by its owner only: they say what
someone did all day.

Windows and events have these columns; times in seconds, `utc` as ISO 8601:

* windows: `session`, `utc` and `utc_s` (start), `start_s` and `end_s` (the source's clock),
  `label` (what was said), `confidence`, `window_label` (what the window alone says), `best_label`
  with its `similarity` and `probability`, `valid`, `missing` (fraction), `rate_hz`, `inference_ms`,
  `motion_mps2`, `tilt_deg`, `face_deg`, `presence`.
* events: `session`, `number`, `utc`, `utc_s`, `start_s`, `end_s`, `label`, `confidence`, `ended`.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge.log.read import LoggedEvent, LogReader, WindowBlock
from edge.log.store import Where
from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.samples import Samples

SUFFIXES = (".csv", ".jsonl", ".parquet")

_ROWS = 50_000
"""Events that are written at once."""

_NUMBERS = ("missing", "rate_hz", "inference_ms", "motion_mps2", "tilt_deg", "face_deg", "presence")

_TYPES = {
    "session": "int64",
    "number": "int64",
    "utc": "string",
    "label": "string",
    "window_label": "string",
    "best_label": "string",
    "valid": "bool",
    "ended": "bool",
}
"""Arrow types of the columns that are not float64."""

_WINDOW_COLUMNS = (
    *("session", "utc", "utc_s", "start_s", "end_s", "label", "confidence", "window_label"),
    *("best_label", "similarity", "probability", "valid", *_NUMBERS),
)
_EVENT_COLUMNS = (
    *("session", "number", "utc", "utc_s", "start_s", "end_s", "label", "confidence", "ended"),
)

_Columns = dict[str, list[Any]]


def check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Refuse a name that no format goes with.

    Raises:
        InputError: which names can be written.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: its name has to end in {', '.join(suffixes)}")


def export_windows(log: LogReader, where: Where, path: Path) -> int:
    """Write the windows asked for; the name's ending says how.

    Returns:
        How many.

    Raises:
        InputError: no format of that name, or pyarrow is missing.
        AuraError: the file cannot be written.
    """
    return _export(path, _WINDOW_COLUMNS, map(_of_block, log.windows(where)))


def export_events(log: LogReader, where: Where, path: Path) -> int:
    """Write the events asked for, as `export_windows` does."""
    events = log.events(where)
    parts = (_of_events(events[i : i + _ROWS]) for i in range(0, len(events), _ROWS))
    return _export(path, _EVENT_COLUMNS, parts)


def export_raw(pieces: Sequence[Samples], path: Path) -> int:
    """Write raw samples as a CSV that `edge-run --replay` reads.

    Args:
        pieces: one or more, in order of time, all with or all without a gyroscope.
        path: named .csv.

    Returns:
        How many samples.

    Raises:
        InputError: another name.
        AuraError: the file cannot be written.
    """
    check_suffix(path, (".csv",))
    names = ["time_s", "ax_mps2", "ay_mps2", "az_mps2"]
    with_gyro = pieces[0].gyro_rads is not None
    names += ["gx_rads", "gy_rads", "gz_rads"] if with_gyro else []
    with _written(path) as file:
        file.write(",".join(names) + "\n")
        for piece in pieces:
            columns = [piece.t_s[:, None], piece.acc_mps2]
            columns += [piece.gyro_rads] if piece.gyro_rads is not None else []
            # Seconds since 1970 need 16 digits for 1 us.
            formats = ["%.6f"] + ["%.7g"] * (len(names) - 1)
            np.savetxt(file, np.hstack(columns), fmt=formats, delimiter=",")
    return sum(map(len, pieces))


def _export(path: Path, names: Sequence[str], parts: Iterator[_Columns]) -> int:
    check_suffix(path)
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _write_parquet(path, names, parts)
    n = 0
    with _written(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        if kind == ".csv":
            writer.writerow(names)
        for part in parts:
            for row in zip(*(part[name] for name in names), strict=True):
                n += 1
                if kind == ".csv":
                    writer.writerow(row)
                else:
                    file.write(json.dumps(dict(zip(names, row, strict=True))) + "\n")
    return n


def _write_parquet(path: Path, names: Sequence[str], parts: Iterator[_Columns]) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            'writing Parquet needs pyarrow; install it with: pip install "aura-edge[eval]"'
        ) from None
    schema = pyarrow.schema([(name, _TYPES.get(name, "float64")) for name in names])
    n = 0
    with _written(path, binary=True) as file, parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(pyarrow.table(part, schema))
            n += len(part["session"])
    return n


def _of_block(block: WindowBlock) -> _Columns:
    numbers = {name: _plain(getattr(block, name)) for name in _NUMBERS}
    return {
        "session": [block.session] * len(block),
        "utc": [_iso(t) for t in block.utc_s.tolist()],
        "utc_s": block.utc_s.tolist(),
        "start_s": block.start_s.tolist(),
        "end_s": block.end_s.tolist(),
        "label": block.texts(block.label),
        "confidence": _plain(block.confidence),
        "window_label": block.texts(block.window_label),
        "best_label": block.texts(block.top[:, 0]),
        "similarity": _plain(block.similarity[:, 0]),
        "probability": _plain(block.probability[:, 0]),
        "valid": block.valid.tolist(),
        **numbers,
    }


def _of_events(events: Sequence[LoggedEvent]) -> _Columns:
    return {
        "session": [e.session for e in events],
        "number": [e.number for e in events],
        "utc": [_iso(e.utc_s) for e in events],
        "utc_s": [e.utc_s for e in events],
        "start_s": [e.start_s for e in events],
        "end_s": [e.end_s for e in events],
        "label": [e.label for e in events],
        "confidence": [e.confidence for e in events],
        "ended": [e.ended for e in events],
    }


def _plain(values: np.ndarray[Any, Any]) -> list[float | None]:
    """Numbers as stored, without the digits that they do not have; None for NaN."""
    return [None if math.isnan(v) else round(v, 6) for v in values.tolist()]


def _iso(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, UTC).isoformat(timespec="milliseconds")


@contextmanager
def _written(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A new file in the place of `path`, once all is written; nothing is left of a broken one."""
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)  # left by a run that was killed
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with (
            os.fdopen(handle, "wb")
            if binary
            else os.fdopen(handle, "w", encoding="utf-8", newline="") as file
        ):
            yield file
        part.replace(path)
    except OSError as error:
        raise AuraError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, readable by its owner only.

    Raises:
        AuraError: it cannot be written.
    """
    with _written(path, binary=True) as file:
        file.write(content)
