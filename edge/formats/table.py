"""A table in a text file: what its columns are named and measured in, and its rows as a stream."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edge.formats.files import TextFile
from firmware_bridge.errors import InputError

BLOCK_ROWS = 2_000
"""Rows that are parsed, and handed on, together."""

HEADER_LINES = 30
"""How far down a header row is looked for: some apps write a preamble."""

_DELIMITERS = (",", ";", "\t")

# fmt: off
UNIT_SPELLINGS = {
    "m/s^2": "m/s^2", "m/s2": "m/s^2", "m/s²": "m/s^2", "mps2": "m/s^2", "ms2": "m/s^2",
    "g": "g", "mg": "mg",
    "rad/s": "rad/s", "rads": "rad/s", "radps": "rad/s",
    "deg/s": "deg/s", "°/s": "deg/s", "dps": "deg/s", "degs": "deg/s",
    "mdps": "mdeg/s", "mdeg/s": "mdeg/s",
    "s": "s", "sec": "s", "seconds": "s", "ms": "ms", "us": "us", "µs": "us", "ns": "ns",
}
# fmt: on

Parse = Callable[[str], float]
"""Reads a cell that is no plain number; raises ValueError."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    index: int
    name: str
    base: str
    """The name's letters and digits, lower case, without the unit."""
    unit: str | None


@dataclass(frozen=True)
class Table:
    """A table whose header row was found."""

    file: TextFile
    encoding: str
    delimiter: str
    header_line: int
    columns: tuple[Column, ...]

    @property
    def n_columns(self) -> int:
        """Columns up to the last one that has a name: some apps end rows with a delimiter."""
        return max(c.index for c in self.columns if c.name) + 1

    def named(self, *bases: str) -> Column | None:
        """The first column with one of these names, the names in order of preference."""
        return next((c for base in bases for c in self.columns if c.base == base), None)

    def axes(self, *patterns: str) -> tuple[Column, ...]:
        """The columns x, y, z of the first pattern ({} for the axis) that all three match."""
        for pattern in patterns:
            found = [self.named(pattern.format(axis)) for axis in "xyz"]
            triple = tuple(c for c in found if c)
            if len(triple) == 3:
                return triple
        return ()


def candidates(file: TextFile) -> Iterator[Table]:
    """Every reading of every line as a header row, top line first.

    Raises:
        InputError: the file is not there, empty or not text.
    """
    encoding = file.encoding()
    lines = file.lines(encoding, HEADER_LINES)
    if not lines:
        raise InputError(f"{file.label}: is empty")
    for number, line in enumerate(lines, start=1):
        for delimiter in _DELIMITERS:
            try:
                cells = next(csv.reader([line], delimiter=delimiter), [])
            except csv.Error:  # a cell of more than 128 KiB
                continue
            columns = tuple(column(i, name) for i, name in enumerate(cells))
            if any(c.name for c in columns):
                yield Table(file, encoding, delimiter, number, columns)


def column(index: int, name: str) -> Column:
    """Split a column's name into what it measures and its unit: 'Acc X (g)', 'ax_mps2'."""
    text = name.strip()
    match = re.fullmatch(r"(.*?)\s*[(\[]([^)\]]*)[)\]]", text)
    base, unit = (match[1], match[2]) if match else (text, None)
    words = text.split("_")
    for n_words in (2, 1):  # gyro_x_rad_s, ax_mps2
        suffix = "/".join(words[-n_words:]).lower()
        if unit is None and len(words) > n_words and suffix in UNIT_SPELLINGS:
            base, unit = "_".join(words[:-n_words]), suffix
    return Column(index, text, re.sub(r"[\W_]", "", base.lower()), known_unit(unit))


def known_unit(text: str | None) -> str | None:
    """The unit that a spelling stands for, None if it is none."""
    return UNIT_SPELLINGS.get(text.strip().lower().replace(" ", "")) if text else None


def read_blocks(
    table: Table,
    columns: tuple[Column, ...],
    notes: list[str],
    parsers: Mapping[int, Parse] | None = None,
    blank_is_gap: bool = False,
) -> Iterator[NDArray[np.float64]]:
    """Blocks (n, columns) of some columns below the header; empty cells are NaN.

    Args:
        table: where to read.
        columns: what to read, in this order.
        notes: what the user should know of how it was read is added here.
        parsers: column index -> how its cells are read, for cells that are no plain numbers.
        blank_is_gap: blank lines become rows of NaN instead of being skipped.

    Raises:
        InputError: with file, line and column, a cell or row that cannot be understood.
    """
    rows = _Rows(table, columns, notes, parsers or {})
    with table.file.open(table.encoding) as file:
        list(islice(file, table.header_line))
        first_line = table.header_line + 1
        lines = list(islice(file, BLOCK_ROWS))
        while lines:
            following = list(islice(file, BLOCK_ROWS))
            if blank_is_gap:
                nan_row = table.delimiter.join(["nan"] * table.n_columns)
                lines = [line if line.strip() else nan_row for line in lines]
            block = rows.fast(lines)
            if block is None:
                block = rows.careful(lines, first_line, is_last=not following)
            if len(block):
                yield block
            first_line += len(lines)
            lines = following


class _Rows:
    """Parses blocks of lines."""

    def __init__(
        self,
        table: Table,
        columns: tuple[Column, ...],
        notes: list[str],
        parsers: Mapping[int, Parse],
    ) -> None:
        self._table = table
        self._columns = columns
        self._notes = notes
        self._parsers = parsers
        self._converters: dict[int | str, Parse] = dict(parsers.items())
        self._header = [c.name for c in table.columns]

    def fast(self, lines: list[str]) -> NDArray[np.float64] | None:
        """numpy parses a block of plain numbers several times as fast as Python its rows; None
        for a block that it cannot read and that has to be gone through with care."""
        if not lines[0].strip():
            return None  # numpy warns of a block of empty lines
        decimal_comma = self._table.delimiter != "," and "," in lines[0]
        try:
            return np.loadtxt(
                [line.replace(",", ".") for line in lines] if decimal_comma else lines,
                delimiter=self._table.delimiter,
                usecols=[c.index for c in self._columns],
                comments=None,
                ndmin=2,
                converters=self._converters or None,
                encoding=None,
            )
        except ValueError:
            return None

    def careful(self, lines: list[str], first_line: int, is_last: bool) -> NDArray[np.float64]:
        """Parse row by row: quotes, empty cells, a header that is repeated, and an error that
        names its line."""
        reader = csv.reader(lines, delimiter=self._table.delimiter)
        rows = []
        try:
            for cells in reader:
                line = first_line + reader.line_num - 1
                if not any(cells) or self._is_header(cells):
                    continue
                cut_off = len(cells) < self._table.n_columns
                if cut_off and is_last and reader.line_num == len(lines):
                    self._notes.append(f"line {line}, the last one, is cut off: left out")
                    break
                rows.append(self._row(line, cells))
        except csv.Error as error:
            line = first_line + reader.line_num - 1
            raise InputError(
                f"{self._table.file.label}:{line}: {error}; mend or delete the line"
            ) from None
        return np.array(rows).reshape(-1, len(self._columns))

    def _is_header(self, cells: list[str]) -> bool:
        same_start = cells[0].strip() == self._header[0]
        return same_start and [c.strip() for c in cells] == self._header

    def _row(self, line: int, cells: list[str]) -> list[float]:
        table = self._table
        if len(cells) < table.n_columns:
            raise InputError(
                f"{table.file.label}:{line}: {len(cells)} fields, expected {table.n_columns} as in "
                f"the header (line {table.header_line}); mend or delete the line"
            )
        values = []
        for wanted in self._columns:
            text = cells[wanted.index].strip()
            if table.delimiter != ",":
                text = text.replace(",", ".")  # decimal comma
            if text.lower() in ("", "nan", "na", "null", "none"):
                values.append(math.nan)
                continue
            parse = self._parsers.get(wanted.index, float)
            try:
                values.append(parse(text))
            except ValueError:
                kind = "a number" if parse is float else "a time such as 2026-01-31 12:34:56.789"
                raise InputError(
                    f"{table.file.label}:{line}: column {wanted.name!r} holds {text!r}, expected "
                    f"{kind}; mend or delete the line"
                ) from None
        return values


_CLOCK = re.compile(
    r"(?:(\d{4})[-/](\d{1,2})[-/](\d{1,2})[ T]+)?"
    r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:[.:,](\d{1,9}))?\s*(Z|[+-]\d{2}:?\d{2})?"
)
_EPOCH = datetime(1970, 1, 1)
DAY_S = 86_400.0


def clock_s(text: str) -> float:
    """Seconds since 1970 of a written time, or since midnight if it has no date.

    Understands '2026-01-31T12:34:56.789', '2026-1-31 12:34:56:789', '2026-01-31 12:34:56.789
    +0200' and '12:34:56.78'.

    Raises:
        ValueError: it is none of these.
    """
    match = _CLOCK.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no time")
    year, month, day, hours, minutes, seconds, fraction, zone = match.groups()
    second_of_day = int(hours) * 3600.0 + int(minutes) * 60.0 + int(seconds)
    if fraction:
        second_of_day += int(fraction) / 10 ** len(fraction)
    if zone and zone != "Z":
        minutes_east = int(zone[1:3]) * 60 + int(zone[-2:])
        second_of_day -= minutes_east * (60.0 if zone[0] == "+" else -60.0)
    if year is None:
        return second_of_day
    return (datetime(int(year), int(month), int(day)) - _EPOCH).days * DAY_S + second_of_day
