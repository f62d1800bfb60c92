"""What is read of an export: its parts, each a stream of rows with a time of their own, and how
the parts of one recording become one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.formats.table import DAY_S, Column, Parse, Table, clock_s, read_blocks
from edge.resample import MAX_GAP_S

Blocks = Iterator[NDArray[np.float64]]
Kind = Literal["acc", "gyro"]

DOCUMENTED = "as documented"
"""Why a unit that the file does not state is taken."""

_MAX_DEVICES = 64


@dataclass(frozen=True)
class Vector:
    """Three columns of one sensor."""

    kind: Kind
    """The vectors of kind acc add up to the acceleration with gravity."""

    label: str
    """What people call it: the columns, or the file where that says more."""

    unit: str | None
    """None where neither the file nor the app's documentation states it."""

    why: str = ""
    """Where the unit is from, if not from the column's name."""


@dataclass(frozen=True)
class Part:
    """Rows with one time: a table, or some columns of one."""

    label: str
    """What messages call its file."""

    time: str
    """Name of its time."""

    time_unit: str | None
    vectors: tuple[Vector, ...]
    read: Callable[[list[str]], Blocks]
    """Blocks (n, 1 + 3 a vector) in the file's units, time first; adds notes to its argument."""

    time_why: str = ""


@dataclass(frozen=True)
class Export:
    """One recording as an app or device exported it."""

    format: str
    """The app or device; empty for a plain CSV."""

    parts: tuple[Part, ...]
    """The accelerometer's first; the vectors of the others are interpolated onto its times."""

    sign: Literal[1, -1] = 1
    """-1 where the device reports -1 g on the axis that points up, as Apple's do."""

    infers_units: bool = False
    """Units that are not stated are taken from the size of the signal."""

    notes: tuple[str, ...] = ()

    def has(self, kind: Kind) -> bool:
        """Whether any part measures this."""
        return any(v.kind == kind for p in self.parts for v in p.vectors)


def vector(
    kind: Kind,
    columns: tuple[Column, ...],
    unit: str | None = None,
    label: str = "",
    why: str = "",
) -> Vector:
    """A vector of these columns (x, y, z); its unit is what the first column's name says, else
    `unit`."""
    label = label or f"{columns[0].name}.."
    in_file = sorted(zip((c.index for c in columns), "xyz", strict=True))
    order = ",".join(axis for _, axis in in_file)
    if order != "x,y,z":
        label += f" (columns {order})"
    stated = columns[0].unit
    return Vector(kind, label, stated or unit, "" if stated else why)


def part(
    table: Table,
    time: Column,
    vectors: tuple[tuple[Vector, tuple[Column, ...]], ...],
    time_unit: str | None = None,
    *,
    written: bool = False,
    wraps_at: float | None = None,
    device: Column | None = None,
    time_why: str = "",
) -> Part:
    """A part of a table.

    Args:
        table: the table.
        time: the column of its time.
        vectors: the vectors and their columns.
        time_unit: the time's unit where the column's name does not say it.
        written: the time is written as a date or clock ('12:34:56.789').
        wraps_at: the value, in the time's unit, at which the time starts again from 0.
        device: the column that names the device, where one file may hold several: only the
            rows of the first are read.
        time_why: where the time's unit is from, if not from the name.
    """
    parsers: dict[int, Parse] = {time.index: clock_s} if written else {}
    columns = (time, *(c for _, triple in vectors for c in triple))
    if written:
        wraps_at = DAY_S

    def read(notes: list[str]) -> Blocks:
        blocks = (
            read_blocks(table, columns, notes, parsers)
            if device is None
            else _of_first_device(table, columns, device, notes, parsers)
        )
        return blocks if wraps_at is None else unwrapped(blocks, wraps_at)

    unit = "s" if written else time.unit or time_unit
    return Part(
        table.file.label,
        time.name,
        unit,
        tuple(v for v, _ in vectors),
        read,
        time_why if unit != time.unit else "",
    )


def counted_part(
    table: Table, vectors: tuple[tuple[Vector, tuple[Column, ...]], ...], rate_hz: float
) -> Part:
    """A part of a table without a time, sampled at a rate that is known: rows are counted, and a
    blank line is a second's pause."""
    columns = tuple(c for _, triple in vectors for c in triple)

    def read(notes: list[str]) -> Blocks:
        rows = 0.0
        for block in read_blocks(table, columns, notes, blank_is_gap=True):
            blank = np.isnan(block).all(axis=1)
            counts = rows + np.cumsum(np.where(blank, rate_hz, 1.0))
            rows = counts[-1]
            yield np.column_stack([counts / rate_hz, block])[~blank]

    return Part(
        table.file.label,
        "rows counted",
        "s",
        tuple(v for v, _ in vectors),
        read,
        f"at {rate_hz:g} Hz {DOCUMENTED}",
    )


def unwrapped(blocks: Blocks, modulus: float) -> Blocks:
    """The same rows, the first column counting on where it starts again from 0.

    Args:
        blocks: arrays (n, k), the time first.
        modulus: the value at which the time starts again, in its unit.
    """
    turns, last = 0.0, np.nan
    for block in blocks:
        times = block[:, 0]
        known = np.isfinite(times)
        seen = times[known]
        if len(seen):
            fell = np.diff(seen, prepend=last) < -modulus / 2  # False for the NaN before the first
            counts = turns + np.cumsum(fell)
            turns, last = counts[-1], seen[-1]
            times[known] = seen + counts * modulus
        yield block


def _of_first_device(
    table: Table,
    columns: tuple[Column, ...],
    device: Column,
    notes: list[str],
    parsers: dict[int, Parse],
) -> Blocks:
    numbers: dict[str, int] = {}

    def number_of(name: str) -> float:
        if len(numbers) < _MAX_DEVICES:
            return numbers.setdefault(name.strip(), len(numbers))
        return numbers.get(name.strip(), _MAX_DEVICES)

    for block in read_blocks(
        table, (*columns, device), notes, {**parsers, device.index: number_of}
    ):
        own = block[block[:, -1] == 0, :-1]
        if len(own):
            yield own
    if len(numbers) > 1:
        first, *others = numbers
        notes.append(
            f"the file holds {len(numbers)} devices: replayed is {first}, left out "
            f"{', '.join(others[:3])}{' and more' if len(others) > 3 else ''}; to replay another, "
            "delete the rows of the rest"
        )


def in_seconds(blocks: Blocks, seconds_per_unit: float) -> Blocks:
    """The same rows, the first column in seconds."""
    for block in blocks:
        if seconds_per_unit != 1.0:
            block[:, 0] *= seconds_per_unit
        yield block


def interpolated(primary: Blocks, secondary: Blocks, label: str, notes: list[str]) -> Blocks:
    """Rows of `primary` with the columns of `secondary` at their times, by linear interpolation.

    A row is left out where the samples of `secondary` before and after it are `MAX_GAP_S` or more
    apart, or where one of them is missing. Both are streamed: of `secondary` no more is kept than
    one block of `primary` lasts.

    Args:
        primary: arrays (n, 1 + k), seconds first.
        secondary: arrays (m, 1 + j), seconds first. Rows that are not later than the row before
            them, or that hold NaN, are passed over.
        label: what `secondary` is called in the note about rows left out.
        notes: that note is added here at the end.

    Yields:
        Arrays (n', 1 + k + j).
    """
    left_out = 0
    source = _rising(secondary)
    first = next(source, None)
    if first is None:
        notes.append(f"{label} holds no samples")
        return
    kept = first
    for block in primary:
        rows = block[np.isfinite(block[:, 0])]
        if not len(rows):
            continue
        while kept[-1, 0] < rows[:, 0].max():
            more = next(source, None)
            if more is None:
                break
            kept = np.concatenate([_from(kept, rows[:, 0].min()), more])
        joined = _between(rows, kept)
        left_out += len(rows) - len(joined)
        kept = _from(kept, rows[-1, 0])
        if len(joined):
            yield joined
    if left_out:
        notes.append(
            f"accelerometer samples left out: {left_out}, around which {label} has no samples less "
            f"than {MAX_GAP_S:g} s apart"
        )


def _between(rows: NDArray[np.float64], kept: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows that lie between two rows of `kept` less than `MAX_GAP_S` apart, or on one, with
    its columns at their times."""
    times = kept[:, 0]
    after = np.searchsorted(times, rows[:, 0])
    inside = after < len(kept)
    after = np.minimum(after, len(kept) - 1)
    before = np.where(times[after] == rows[:, 0], after, np.maximum(after - 1, 0))
    gap_s = times[after] - times[before]
    inside &= (rows[:, 0] >= times[before]) & (gap_s < MAX_GAP_S)
    rows, before, after, gap_s = rows[inside], before[inside], after[inside], gap_s[inside]
    weight = (rows[:, 0] - times[before]) / np.where(gap_s > 0, gap_s, 1.0)
    values = kept[before, 1:] + weight[:, None] * (kept[after, 1:] - kept[before, 1:])
    return np.column_stack([rows, values])


def _from(kept: NDArray[np.float64], start_s: float) -> NDArray[np.float64]:
    """The rows from the last one that is not later than `start_s`."""
    return kept[max(int(np.searchsorted(kept[:, 0], start_s, side="right")) - 1, 0) :]


def _rising(blocks: Blocks) -> Blocks:
    latest = -np.inf
    for block in blocks:
        rows = block[np.isfinite(block).all(axis=1)]
        before = np.maximum.accumulate(np.concatenate([[latest], rows[:, 0]]))
        rows = rows[rows[:, 0] > before[:-1]]
        if len(rows):
            latest = rows[-1, 0]
            yield rows


def head(blocks: Blocks, n_blocks: int) -> tuple[NDArray[np.float64], Blocks]:
    """The first blocks as one array (n, k), (0, 0) if there are none, and all blocks."""
    first = list(islice(blocks, n_blocks))
    return (np.concatenate(first) if first else np.empty((0, 0))), chain(first, blocks)
