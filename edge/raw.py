"""The raw stream as a Parquet file: the samples that the pipeline was given, bit for bit.

    recorder = Recorder(path, "ble:Polar Sense", lambda: details, say)
    for samples in recorder.passing(source):
        pipeline.push(samples)
    recorder.close()

A row is a sample: t_s, ax_mps2, ay_mps2, az_mps2 and, of a device with a gyroscope, gx_rads,
gy_rads, gz_rads, all float64; the file's metadata says where they are from (`Origin`). Replaying
them gives the labels that the live run gave, as the pipeline does not depend on how samples are
chunked.

**After a crash.** A Parquet file cannot be read before its end is written. What comes is therefore
appended to a journal beside it (FILE.parquet.part, an Arrow IPC stream), once a second, and made
into Parquet when the recording is closed. If that is never reached, because the program was killed
or the disk is full, the journal stays: `--replay FILE.parquet.part` reads what is whole of it. A
crash of the program loses the last second; a power cut what the system had not written yet.

Needs pyarrow (extra `eval`).
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
JOURNAL_SUFFIX = ".part"
"""Added to the name of the file that the journal is to become."""

_FORMAT = 1
_KEY = b"aura_edge"
"""Of the metadata: JSON, `Origin` and the version of this format."""

_ACC = ("ax_mps2", "ay_mps2", "az_mps2")
_GYRO = ("gx_rads", "gy_rads", "gz_rads")

_WRITE_EVERY_S = 1.0
_WRITE_SAMPLES = 8192
"""What waits for the journal at most: a replay at full speed brings much in a second."""

_GROUP_ROWS = 65_536
"""Of a row group: 3.7 MB, which a reader has in memory at once."""

_READ_ROWS = 8192

_PARQUET_MAGIC = b"PAR1"
_JOURNAL_MAGIC = b"\xff\xff\xff\xff"
"""Arrow's "IPC streaming format": every message begins with this."""


Batches = Iterator["pyarrow.RecordBatch"]


@dataclass(frozen=True)
class Origin:
    """Where a raw recording is from."""

    source: str
    """As in the event log: "ble:Polar Sense 1234"."""

    began_utc: str
    """When the first samples came, ISO 8601."""

    version: str
    """Of aura-edge."""

    details: str
    """What was agreed on with the device."""


class Recorder:
    """Writes a raw recording. Made before the stream starts, so that what is wrong is said then.

    Args:
        path: of the file; its name ends in .parquet.
        source: where the samples are from.
        details: of the source; asked for when the first samples are written, as a device has said
            nothing before.
        warn: tells the user what went wrong while recording.

    Raises:
        InputError: pyarrow is missing, or the file cannot be made or is there already.
    """

    def __init__(
        self, path: Path, source: str, details: Callable[[], str], warn: Callable[[str], None]
    ) -> None:
        _pyarrow("recording")
        if path.suffix.lower() != SUFFIX:
            raise InputError(f"--record writes Parquet: name the file {path.stem}{SUFFIX}")
        self.path = path
        self.journal = path.with_name(path.name + JOURNAL_SUFFIX)
        self.samples = 0
        """Written so far."""
        self._source, self._details, self._warn = source, details, warn
        self._waiting: list[Samples] = []
        self._n_waiting = 0
        self._last_write_s = time.monotonic()
        self._began_utc = ""
        self._has_gyro = False
        self._schema: pyarrow.Schema | None = None
        self._writer: pyarrow.ipc.RecordBatchStreamWriter | None = None
        self._file: IO[bytes] | None = self._create()

    def passing(self, chunks: Iterable[Samples]) -> Iterator[Samples]:
        """The same samples, each recorded before it is handed on."""
        for samples in chunks:
            self.write(samples)
            yield samples

    def write(self, samples: Samples) -> None:
        """Record some samples. Never raises for a disk that is full: it warns once."""
        if self._file is None or not len(samples):
            return
        if not self._began_utc:
            self._began_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._has_gyro = samples.gyro_rads is not None
        elif self._has_gyro != (samples.gyro_rads is not None):
            self._flush()
            self._give_up("the gyroscope came or went")
            return
        self._waiting.append(samples)
        self._n_waiting += len(samples)
        is_due = time.monotonic() - self._last_write_s >= _WRITE_EVERY_S
        if is_due or self._n_waiting >= _WRITE_SAMPLES:
            self._flush()

    def close(self) -> None:
        """Write what waits and make the journal into the file; a recording without samples leaves
        nothing behind."""
        self._flush()
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._writer is not None:
                self._writer.close()
            file.close()
            if self.samples:
                _to_parquet(self.journal, self.path, self.samples)
            self.journal.unlink()
        except (OSError, InputError) as error:
            self._warn(
                f"{self.path} could not be written ({_reason(error)}); the {self.samples} samples "
                f"are in {self.journal}, which --replay reads"
            )

    def _create(self) -> IO[bytes]:
        for path in (self.path, self.journal):
            if path.exists():
                raise InputError(
                    f"{path}: is there already, and is not overwritten; choose another file with "
                    "--record, or delete it"
                )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return _create_private(self.journal)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot record there ({_reason(error)}); choose another file with "
                "--record"
            ) from None

    def _flush(self) -> None:
        """Append what waits to the journal."""
        self._last_write_s = time.monotonic()
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        if self._file is None or not waiting:
            return
        import pyarrow as pa

        samples = Samples.joined(waiting)
        columns = [samples.t_s, *samples.acc_mps2.T]
        columns += [] if samples.gyro_rads is None else [*samples.gyro_rads.T]
        arrays = [pa.array(np.ascontiguousarray(c), pa.float64()) for c in columns]
        try:
            if self._writer is None:
                self._schema = _columns(self._has_gyro).with_metadata(self._metadata())
                self._writer = pa.ipc.new_stream(self._file, self._schema)
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
            self._file.flush()
        except OSError as error:
            self._give_up(_reason(error))
        else:
            self.samples += len(samples)

    def _metadata(self) -> dict[bytes, bytes]:
        origin = Origin(self._source, self._began_utc, version("aura-edge"), self._details())
        return {_KEY: json.dumps({"format": _FORMAT, **asdict(origin)}).encode()}

    def _give_up(self, why: str) -> None:
        file, self._file = self._file, None
        self._warn(
            f"recording to {self.path} stopped after {self.samples} samples ({why}); what came "
            f"before is in {self.journal}, which --replay reads; labels go on"
        )
        if file is not None:
            with suppress(OSError):  # it is already given up, and said so
                file.close()


def is_raw(path: Path) -> bool:
    """Whether a file is one that `Recorder` writes, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (_PARQUET_MAGIC, _JOURNAL_MAGIC)
    except OSError:
        return False  # whoever opens it next says what is wrong


def read_raw(path: Path, notes: list[str]) -> tuple[Origin, bool, Iterator[Samples]]:
    """A raw recording or its journal.

    Args:
        path: of a file that `is_raw`.
        notes: what the user should know is added here, by reading the samples too.

    Returns:
        Where it is from, whether there is a gyroscope, and the samples in chunks of at most a few
        thousand, to be read once.

    Raises:
        InputError: pyarrow is missing, or the file is damaged or another program's.
    """
    _pyarrow("replaying a raw recording")
    schema, batches = _open_raw(path, notes)
    return _origin(path, schema), _GYRO[0] in schema.names, _samples(batches)


def _samples(batches: Batches) -> Iterator[Samples]:
    for batch in batches:
        for start in range(0, batch.num_rows, _READ_ROWS):
            yield _to_samples(batch.slice(start, _READ_ROWS))


def _to_samples(batch: pyarrow.RecordBatch) -> Samples:
    def columns(names: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.stack([batch.column(n).to_numpy(zero_copy_only=False) for n in names], axis=1)

    gyro = columns(_GYRO) if _GYRO[0] in batch.schema.names else None
    return Samples(columns(("t_s",))[:, 0], columns(_ACC), gyro)


def _columns(has_gyro: bool) -> pyarrow.Schema:
    import pyarrow as pa

    names = ("t_s", *_ACC, *(_GYRO if has_gyro else ()))
    return pa.schema([pa.field(name, pa.float64(), nullable=False) for name in names])


def _origin(path: Path, schema: pyarrow.Schema) -> Origin:
    """Raises:
    InputError: the columns or the metadata are not those of a raw recording.
    """
    text = (schema.metadata or {}).get(_KEY)
    if text is None or not any(schema.equals(_columns(has_gyro)) for has_gyro in (False, True)):
        raise InputError(
            f"{path}: holds no raw recording (columns {', '.join(schema.names[:8])}). Of Parquet "
            "files only those of edge-run --record are read; export the recording as CSV"
        )
    try:
        record = json.loads(text)
        if record.pop("format") == _FORMAT:
            return Origin(**record)
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise InputError(
        f"{path}: a raw recording whose description this version does not understand (it reads "
        f"format {_FORMAT}); was it recorded with a newer aura-edge?"
    )


def _open_raw(path: Path, notes: list[str]) -> tuple[pyarrow.Schema, Batches]:
    """Schema and batches of a file or journal.

    Raises:
        InputError: it cannot be read; of what comes later the batches raise it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = pa.OSFile(os.fspath(path), "rb")
        magic = file.read(4)
        file.seek(0)
        if magic == _JOURNAL_MAGIC:
            reader = pa.ipc.open_stream(file)
            notes.append(f"{path.name} was not closed: its last second may be missing")
            schema, batches = reader.schema, _whole_batches(reader)
        else:
            table = parquet.ParquetFile(file)
            schema, batches = table.schema_arrow, _readable(path, _by_group(table))
        _ = schema.names  # decodes them
        return schema, batches
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _whole_batches(reader: pyarrow.ipc.RecordBatchStreamReader) -> Batches:
    """Of a journal: up to where it was cut off, wherever in a batch that is."""
    import pyarrow as pa

    while True:
        try:
            batch = reader.read_next_batch()
            batch.validate()
        except (StopIteration, pa.ArrowException, OSError):
            return
        yield batch


def _by_group(table: pyarrow.parquet.ParquetFile) -> Batches:
    """All batches. Asked for at once, Arrow would hold what it read of all groups."""
    for group in range(table.num_row_groups):
        yield from table.iter_batches(_READ_ROWS, row_groups=[group])


def _readable(path: Path, batches: Batches) -> Batches:
    import pyarrow as pa

    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from None
        yield batch


def _unreadable(path: Path, error: Exception) -> InputError:
    journal = path.with_name(path.name + JOURNAL_SUFFIX)
    cure = f"; replay {journal} instead" if journal.exists() else ""
    return InputError(f"{path}: a raw recording that is damaged or cut off ({error}){cure}")


def _to_parquet(journal: Path, path: Path, n: int) -> None:
    """Make a journal of `n` samples into a Parquet file.

    Raises:
        OSError: the file is there already, or the disk is full; then none is left behind.
        InputError: the journal cannot be read; nor then.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema, batches = _open_raw(journal, [])
    n_read = 0
    try:
        with (
            _create_private(path) as file,
            # Hardly any value comes twice, so dictionaries would only cost.
            parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer,
        ):
            for group in row_groups(batches, _GROUP_ROWS):
                writer.write_table(pa.Table.from_batches(group))
                n_read += sum(batch.num_rows for batch in group)
        if n_read != n:
            raise InputError(f"of {n} samples {n_read} could be read back")
    except FileExistsError:  # made by someone else meanwhile
        raise
    except BaseException:  # Ctrl-C too: half a file is none
        path.unlink(missing_ok=True)
        raise


def row_groups(batches: Batches, rows: int) -> Iterator[list[pyarrow.RecordBatch]]:
    """The batches, as many at a time as make a row group of at least so many rows."""
    group: list[pyarrow.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(b.num_rows for b in group) >= rows:
            yield group
            group = []
    if group:
        yield group


def _create_private(path: Path) -> IO[bytes]:
    """A new file, readable by its owner only: it says what someone did all day."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    return open(path, "xb", opener=opener)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return "the disk is full" if error.errno == errno.ENOSPC else os.strerror(error.errno)
    return str(error)


def _pyarrow(purpose: str) -> None:
    """Raises:
    InputError: pyarrow is not installed.
    """
    try:
        import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            f'{purpose} needs pyarrow; install it with: pip install "aura-edge[eval]"'
        ) from None
