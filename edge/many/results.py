"""What labelling a folder of recordings gives: a folder with three Parquet files.

* `windows.parquet`: a row a window (`WINDOW_COLUMNS`).
* `events.parquet`: a row an event of the diary (`EVENT_COLUMNS`).
* `recordings.parquet`: a row a recording, those that could not be read too (`RECORDING_COLUMNS`).

Rows are in the order of recordings' names, and of time within each. While recordings are being
labelled, each that is done lies in `parts/`; so a run that is interrupted loses only those that
were under way. At the end parts and earlier results are merged. The new files take the place of
the old ones once all three are whole; where that is interrupted the next run completes it.

Needs pyarrow (extra `eval`).
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.moment import Event, Moment
from edge.raw import row_groups
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    import pyarrow

_Batches = Iterable["pyarrow.RecordBatch"]
_Columns = tuple[tuple[str, str, str], ...]
"""Name, type and meaning of each column. The meanings are in the files too, as the metadata of the
columns; pandas and DuckDB pass over them."""

_SCORES = "list<label: string, similarity: float, probability: float>"

WINDOW_COLUMNS: _Columns = (
    ("recording", "string", "path of the recording within the folder, with /"),
    ("start_s", "double", "start of the window, seconds of the recording's own clock"),
    ("end_s", "double", "its end"),
    ("label", "string", "what the diary says at the window's end; null where it says nothing"),
    (
        "confidence",
        "float",
        "probability of that label by all windows so far (--smooth: by all), 0 to 1",
    ),
    ("window_label", "string", "the window alone: its best label, or unknown; null if not valid"),
    ("probability", "float", "share of the window's best label in the softmax, 0 to 1"),
    ("similarity", "float", "cosine of the window and its best label, -1 to 1"),
    ("top", _SCORES, "the window's five best labels, best first"),
    ("presence", "float", "how well the best fitting label fits, -1 to 1; null if not asked for"),
    ("valid", "bool", "false where too much is missing to name the window"),
    ("missing", "float", "fraction of the window that fell into gaps, 0 to 1"),
    ("rate_hz", "float", "samples per second of measured signal"),
    ("motion_mps2", "float", "RMS of the acceleration about each second's mean, m/s^2"),
    ("tilt_deg", "float", "angle from where the device hangs on its upright wearer, 0 to 180"),
    ("face_deg", "float", "angle of the device's flat face from vertical, 0 to 90"),
)

EVENT_COLUMNS: _Columns = (
    ("recording", "string", "path of the recording within the folder, with /"),
    ("event", "int32", "counts the events of the recording, from 1"),
    ("start_s", "double", "seconds of the recording's own clock"),
    ("end_s", "double", "its end"),
    ("label", "string", "one of the labels, unknown or not worn"),
    ("confidence", "float", "mean probability of the label over the event, 0 to 1"),
)

RECORDING_COLUMNS: _Columns = (
    ("recording", "string", "path of the recording within the folder, with /"),
    ("error", "string", "why it could not be labelled; null if it could"),
    ("summary", "string", "format, rate, units and axes that were found"),
    ("notes", "list<string>", "what one should know of how it was read"),
    ("start_s", "double", "start of its first window, seconds of its own clock"),
    ("end_s", "double", "end of its last window"),
    ("windows", "int64", "its rows in windows.parquet"),
    ("classified", "int64", "those that are valid"),
    ("events", "int64", "its rows in events.parquet"),
    ("left_out", "int64", "samples that were not used: not finite, or not later than the last"),
    ("stamp", "string", "of its files' names, sizes and times of change"),
)

_FILES = ("windows.parquet", "events.parquet", "recordings.parquet")
"""In the order in which they are replaced: by the last one the others are understood."""

_PARTS, _JOB_FILE = "parts", "job.json"
_JOB_KEY, _ENTRY_KEY = b"aura_edge_job", b"aura_edge_recording"
"""Of the files' metadata: JSON."""

_SHOWN = 60
"""Characters of a differing value, in messages."""

_GROUP_ROWS = 131_072
"""Of a row group: 10 MB, which merging has in memory at once."""


@dataclass(frozen=True)
class Entry:
    """A row of recordings.parquet."""

    recording: str
    stamp: str
    error: str | None = None
    summary: str | None = None
    notes: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    windows: int = 0
    classified: int = 0
    events: int = 0
    left_out: int = 0


def window_row(recording: str, moment: Moment) -> dict[str, object]:
    """A row of windows.parquet."""
    p, best = moment.prediction, moment.prediction.best
    return {
        "recording": recording,
        "start_s": p.start_s,
        "end_s": p.end_s,
        "label": moment.label,
        "confidence": moment.confidence,
        "window_label": p.label,
        "probability": best and best.probability,
        "similarity": best and best.similarity,
        "top": [score._asdict() for score in p.top],
        "presence": p.presence,
        "valid": p.valid,
        "missing": p.missing,
        "rate_hz": p.rate_hz,
        "motion_mps2": p.motion_mps2,
        "tilt_deg": p.tilt_deg,
        "face_deg": p.face_deg,
    }


def event_row(recording: str, event: Event) -> dict[str, object]:
    """A row of events.parquet."""
    return {
        "recording": recording,
        "event": event.number,
        "start_s": event.start_s,
        "end_s": event.end_s,
        "label": event.label,
        "confidence": event.confidence,
    }


@cache
def schema_of(columns: _Columns) -> pyarrow.Schema:
    """The Arrow schema of a file's columns.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            "labelling a folder writes Parquet, which needs pyarrow; install it with: "
            'pip install "aura-edge[eval]"'
        ) from None
    import pyarrow as pa

    scores = pa.struct(
        [("label", pa.string()), ("similarity", pa.float32()), ("probability", pa.float32())]
    )
    types = {_SCORES: pa.list_(scores), "list<string>": pa.list_(pa.string())}
    return pa.schema(
        pa.field(name, types.get(kind) or pa.type_for_alias(kind), metadata={"meaning": meaning})
        for name, kind, meaning in columns
    )


class Results:
    """The folder of results of one job.

    Args:
        folder: made if it is not there.
        job: what labels the recordings, as JSON can hold it. Results of another job are neither
            mixed with nor replaced.

    Raises:
        InputError: the folder cannot be used; it holds something else; results of another job.
        OSError: the disk is full.
    """

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        schema_of(WINDOW_COLUMNS)  # says at once if pyarrow is missing
        self.folder, self._parts, self._job = folder, folder / _PARTS, job
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; --out takes a folder")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it says what people did all day
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
        self._replace_old()
        self._refuse_other_job()
        self._old = self._finished()
        self._new = self._in_parts()
        self._parts.mkdir(exist_ok=True)
        record = json.dumps(job, indent=1).encode()
        _safely(self._parts / _JOB_FILE, lambda path: path.write_bytes(record))

    def done(self) -> dict[str, Entry]:
        """What is labelled already, by name."""
        return {**{e.recording: e for e in self._old if not e.error}, **self._new}

    def add(self, entry: Entry, windows: pyarrow.Table, events: pyarrow.Table) -> None:
        """Keep what a recording gave. Once this returns, a crash does not lose it.

        Raises:
            OSError: the disk is full.
        """
        part = self._parts / _part_name(entry.recording)
        record = json.dumps(asdict(entry)).encode()
        _write_table(part.with_suffix(".events"), events)
        # The second file makes the part valid.
        windows = windows.replace_schema_metadata({_ENTRY_KEY: record})
        _write_table(part.with_suffix(".windows"), windows)
        self._new[entry.recording] = entry

    def finish(self, keep: Collection[str], failed: Iterable[Entry]) -> list[Entry]:
        """Merge what was done into the three files, which hold nothing else then.

        Args:
            keep: names of the recordings that the results are of.
            failed: recordings that could not be labelled.

        Returns:
            All rows of recordings.parquet.

        Raises:
            OSError: the disk is full.
        """
        done = {name: entry for name, entry in self.done().items() if name in keep}
        entries = sorted([*done.values(), *failed], key=lambda e: e.recording)
        if self._new or entries != self._old:
            kept = [e.recording if done.get(e.recording) is e else None for e in self._old]
            for kind, columns in (("windows", WINDOW_COLUMNS), ("events", EVENT_COLUMNS)):
                rows = heapq.merge(
                    self._old_rows(kind, kept), self._new_rows(kind, done), key=itemgetter(0)
                )
                self._merge(f"{kind}.parquet", columns, (batch for _, batch in rows))
            self._merge(_FILES[-1], RECORDING_COLUMNS, _entry_rows(entries))
            self._replace_old()
        shutil.rmtree(self._parts, ignore_errors=True)
        return entries

    def _replace_old(self) -> None:
        """Put merged files in the place of the old ones, if all three are there; goes on where it
        was interrupted."""
        if (self._parts / _FILES[-1]).exists():
            for name in _FILES:
                with suppress(FileNotFoundError):  # in its place already
                    (self._parts / name).replace(self.folder / name)

    def _refuse_other_job(self) -> None:
        clashing = [name for name in (*_FILES, _PARTS) if (self.folder / name).exists()]
        if not clashing:
            return
        job = self._old_job()
        if job is None:
            raise InputError(
                f"{self.folder}: holds {clashing[0]}, which is not from edge-run, or is damaged; "
                "choose another folder with --out"
            )
        differing = [key for key in {**job, **self._job} if job.get(key) != self._job.get(key)]
        if differing:
            changes = "; ".join(f"{k} was {_short(job.get(k))}" for k in differing)
            now = "; ".join(f"{k} {_short(self._job.get(k))}" for k in differing)
            raise InputError(
                f"{self.folder}: holds results of another job ({changes}; now {now}). Results "
                "are not mixed: choose another folder with --out, or delete this one"
            )

    def _old_job(self) -> dict[str, Any] | None:
        """The job of what is there, None if that is not known."""
        from pyarrow import ArrowException, parquet

        for path in (self.folder / _FILES[-1], self._parts / _JOB_FILE):
            try:
                if path.name == _JOB_FILE:
                    job = json.loads(path.read_bytes())
                else:
                    job = json.loads((parquet.read_schema(path).metadata or {})[_JOB_KEY])
            except (OSError, ArrowException, KeyError, ValueError):
                continue
            if isinstance(job, dict):
                return job
        return None

    def _finished(self) -> list[Entry]:
        """The rows of recordings.parquet, where what they say of the other files is true."""
        from pyarrow import ArrowException, parquet

        path = self.folder / _FILES[-1]
        if not path.exists():
            return []
        try:
            rows = parquet.ParquetFile(path).read().to_pylist()
            entries = [Entry(**{**row, "notes": tuple(row["notes"])}) for row in rows]
            for name in _FILES[:-1]:
                counted = sum(getattr(e, name.removesuffix(".parquet")) for e in entries)
                if parquet.read_metadata(self.folder / name).num_rows != counted:
                    raise InputError(f"{self.folder / name}: has not {counted} rows")
        except (OSError, ArrowException, TypeError, KeyError, InputError) as error:
            raise InputError(
                f"{self.folder}: its results are damaged ({error}); delete the folder, or choose "
                "another one with --out"
            ) from None
        return entries

    def _in_parts(self) -> dict[str, Entry]:
        """What an interrupted run left."""
        from pyarrow import ArrowException, parquet

        entries = {}
        for path in self._parts.glob("*.windows"):
            try:
                record = json.loads(parquet.read_schema(path).metadata[_ENTRY_KEY])
            except (ArrowException, OSError, KeyError, TypeError, ValueError):
                continue  # a power cut; that recording is done again
            entry = Entry(**{**record, "notes": tuple(record["notes"])})
            entries[entry.recording] = entry
        return entries

    def _old_rows(self, kind: str, kept: list[str | None]) -> Iterator[tuple[str, _Batches]]:
        """The rows of an earlier result, recording after recording.

        Args:
            kind: "windows" or "events".
            kept: the name of each of its recordings, None where it is left out.
        """
        from pyarrow import parquet

        if not self._old:
            return
        with parquet.ParquetFile(self.folder / f"{kind}.parquet") as file:
            counts = [getattr(entry, kind) for entry in self._old]
            for name, batches in zip(kept, _cut(file.iter_batches(), counts), strict=True):
                if name is not None:
                    yield name, batches

    def _new_rows(self, kind: str, done: Collection[str]) -> Iterator[tuple[str, _Batches]]:
        from pyarrow import parquet

        for name in sorted(self._new.keys() & done):
            path = self._parts / f"{_part_name(name)}.{kind}"
            yield name, parquet.ParquetFile(path).read().to_batches()

    def _merge(self, name: str, columns: _Columns, batches: Iterable[_Batches]) -> None:
        """Write one of the three files, beside the parts."""
        from pyarrow import Table, parquet

        schema = schema_of(columns).with_metadata({_JOB_KEY: json.dumps(self._job).encode()})

        def write(path: Path) -> None:
            with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
                each = (batch for some in batches for batch in some)
                for group in row_groups(each, _GROUP_ROWS):
                    writer.write_table(Table.from_batches(group, schema))

        _safely(self._parts / name, write)


def _cut(batches: _Batches, counts: list[int]) -> Iterator[list[pyarrow.RecordBatch]]:
    """The rows of batches, in pieces of `counts` rows."""
    rest, waiting = None, iter(batches)
    for count in counts:
        piece, lacking = [], count
        while lacking:
            batch = next(waiting) if rest is None else rest
            piece.append(batch.slice(0, lacking))
            rest = batch.slice(lacking) if lacking < batch.num_rows else None
            lacking -= piece[-1].num_rows
        yield piece


def _entry_rows(entries: list[Entry]) -> Iterator[_Batches]:
    import pyarrow as pa

    rows = [asdict(entry) for entry in entries]
    yield pa.Table.from_pylist(rows, schema_of(RECORDING_COLUMNS)).to_batches()


def _part_name(recording: str) -> str:
    return hashlib.sha256(recording.encode()).hexdigest()[:32]


def _write_table(path: Path, table: pyarrow.Table) -> None:
    from pyarrow import parquet

    _safely(path, lambda new: parquet.write_table(table, new, compression="zstd"))


def _safely(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written, so that it is there whole or not at all."""
    new = path.with_name(path.name + ".new")
    try:
        write(new)
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
