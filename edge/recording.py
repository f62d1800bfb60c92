"""Recorded files -> samples in SI units.

A recording is a text file with one sample a row and named columns: a time, three accelerometer
axes and, if the device has one, three gyroscope axes. Columns are found by name and units by what
the name says; nothing is converted on a guess. The file is read as a stream, so its length does
not matter.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import InputError
from firmware_bridge.samples import (
    ACC_UNITS_MPS2,
    GYRO_UNITS_RADS,
    STANDARD_GRAVITY_MPS2,
    TIME_UNITS_S,
    Samples,
)

MIN_RATE_HZ, MAX_RATE_HZ = 10.0, 1000.0
_RATE_TOLERANCE = 0.1
"""A nominal 10 Hz or 1000 Hz device may measure this much off."""

_SNIFF_ROWS = 20_000
"""Rows that units and rate are judged by."""

_BLOCK_ROWS = 2_000
"""Rows that are parsed, and handed on, together."""

_HEADER_LINES = 30
"""How far down a header row is looked for: some apps write a preamble."""

_MAX_PLAUSIBLE_RADS = 40.0
"""Consumer gyroscopes end at 2000 deg/s = 34.9 rad/s."""

# Column names as letters and digits only, {} standing for the axis. A unit that an app's column
# implies without saying it stands beside the name.
_ACC_NAMES: dict[str, str | None] = {
    "a{}": None,
    "acc{}": None,
    "{}acc": None,
    "accel{}": None,
    "acceleration{}": None,
    "accelerometer{}": None,
    "accelerometeracceleration{}": None,
    "totalacceleration{}": None,
    "gf{}": "g",  # Physics Toolbox Sensor Suite: g-force
}
_GYRO_NAMES: dict[str, str | None] = {
    "g{}": None,
    "gyr{}": None,
    "gyro{}": None,
    "{}gyro": None,
    "gyroscope{}": None,
    "gyrorotation{}": None,
    "rotationrate{}": None,
    "angularvelocity{}": None,
    "w{}": "rad/s",  # Physics Toolbox Sensor Suite
}
_TIME_NAMES = (
    "time",
    "t",
    "ts",
    "timestamp",
    "epoch",
    "sampletime",
    "elapsed",
    "secondselapsed",
    "seconds",
)
_GRAVITY_FREE = ("useracceleration{}", "linearacceleration{}", "linacc{}", "freeacc{}")

# fmt: off
_UNIT_SPELLINGS = {
    "m/s^2": "m/s^2", "m/s2": "m/s^2", "m/s²": "m/s^2", "mps2": "m/s^2", "ms2": "m/s^2",
    "g": "g", "mg": "mg",
    "rad/s": "rad/s", "rads": "rad/s", "radps": "rad/s",
    "deg/s": "deg/s", "°/s": "deg/s", "dps": "deg/s", "degs": "deg/s",
    "mdps": "mdeg/s", "mdeg/s": "mdeg/s",
    "s": "s", "sec": "s", "seconds": "s", "ms": "ms", "us": "us", "µs": "us", "ns": "ns",
}
# fmt: on


@dataclass(frozen=True)
class UnitOptions:
    """Units the user asks for; None takes what the file says."""

    acc: str | None = None
    gyro: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class _Column:
    index: int
    name: str
    base: str
    """The name's letters and digits, lower case, without the unit."""
    unit: str | None


@dataclass(frozen=True)
class _Layout:
    """Where the channels stand and in which units."""

    delimiter: str
    header_line: int
    n_columns: int
    time: _Column
    acc: tuple[_Column, ...]
    gyro: tuple[_Column, ...]

    @property
    def wanted(self) -> tuple[_Column, ...]:
        return (self.time, *self.acc, *self.gyro)


@dataclass(frozen=True)
class Recording:
    """An opened recording: what was detected, and its samples as a stream."""

    path: Path
    summary: str
    """One line for people: columns, units, rate."""

    notes: list[str]
    """What the user should know of how the file was read; reading `chunks` may add to it."""

    rate_hz: float
    """Median rate of the first rows."""

    chunks: Iterator[Samples]
    """The samples, file order; to be read once."""


def open_recording(path: Path, units: UnitOptions | None = None) -> Recording:
    """Open a recorded file.

    Raises:
        InputError: with file, line and column, when the file cannot be understood; with the
            option that mends it, when a unit is missing or contradicts the signal. Errors in
            later rows are raised by `chunks`.
    """
    units = units or UnitOptions()
    layout = _find_layout(path)
    notes: list[str] = []
    blocks = _blocks(path, layout, notes)
    first_blocks = list(islice(blocks, _SNIFF_ROWS // _BLOCK_ROWS))
    head = np.concatenate([np.empty((0, len(layout.wanted))), *first_blocks])
    if len(head) < 2:
        raise InputError(f"{path}: {len(head)} samples below the header; nothing to replay")
    time_unit, rate_hz = _check_time(path, layout, head[:, 0], units)
    acc_unit = _check_acc(path, layout, head[:, 1:4], units)
    gyro_unit = _check_gyro(path, layout, head[:, 4:], units, notes)
    scale = np.array(
        [TIME_UNITS_S[time_unit]]
        + [ACC_UNITS_MPS2[acc_unit]] * 3
        + [GYRO_UNITS_RADS[gyro_unit or "rad/s"]] * len(layout.gyro)
    )
    channels = f"acc {layout.acc[0].name}.. in {acc_unit}"
    channels += f", gyro {layout.gyro[0].name}.. in {gyro_unit}" if gyro_unit else ", no gyroscope"
    return Recording(
        path,
        f"{path.name}: {rate_hz:.1f} Hz, time {layout.time.name} in {time_unit}, {channels}",
        notes,
        rate_hz,
        _to_samples(chain(first_blocks, blocks), scale),
    )


def _to_samples(
    blocks: Iterator[NDArray[np.float64]], scale: NDArray[np.float64]
) -> Iterator[Samples]:
    for block in blocks:
        values = block * scale
        yield Samples(values[:, 0], values[:, 1:4], values[:, 4:7] if len(scale) > 4 else None)


def _find_layout(path: Path) -> _Layout:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(islice(file, _HEADER_LINES))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; give one recorded file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; export the recording as CSV") from None
    if not lines:
        raise InputError(f"{path}: is empty")
    best = ""
    for number, line in enumerate(lines, start=1):
        for delimiter in (",", ";", "\t"):
            cells = next(csv.reader([line], delimiter=delimiter), [])
            columns = [_column(i, name) for i, name in enumerate(cells)]
            layout = _match(delimiter, number, columns)
            if layout:
                return layout
            _refuse_gravity_free(path, number, columns)
            if len(cells) > len(best.split(",")):
                best = f"line {number} has: {', '.join(c.strip() for c in cells)}"
    raise InputError(
        f"{path}: no row names a time column and three accelerometer columns in its first "
        f"{len(lines)} lines. Expected names such as time,ax,ay,az,gx,gy,gz or "
        f"'Time (s),Acceleration x (m/s^2),...'. {best}"
    )


def _column(index: int, name: str) -> _Column:
    """Split a column's name into what it measures and its unit: 'Acc X (g)', 'ax_mps2'."""
    text = name.strip()
    match = re.fullmatch(r"(.*?)\s*[(\[]([^)\]]*)[)\]]", text)
    base, unit = (match[1], match[2]) if match else (text, None)
    words = text.split("_")
    for n_words in (2, 1):  # gyro_x_rad_s, ax_mps2
        suffix = "/".join(words[-n_words:]).lower()
        if unit is None and len(words) > n_words and suffix in _UNIT_SPELLINGS:
            base, unit = "_".join(words[:-n_words]), suffix
    known = _UNIT_SPELLINGS.get(unit.strip().lower().replace(" ", "")) if unit else None
    return _Column(index, text, re.sub(r"[^a-z0-9]", "", base.lower()), known)


def _axes(columns: list[_Column], names: dict[str, str | None]) -> tuple[_Column, ...]:
    by_base = {c.base: c for c in reversed(columns)}
    for pattern, implied in names.items():
        found = [by_base.get(pattern.format(axis)) for axis in "xyz"]
        triple = [c for c in found if c]
        if len(triple) == 3:
            return tuple(_Column(c.index, c.name, c.base, c.unit or implied) for c in triple)
    return ()


def _match(delimiter: str, line: int, columns: list[_Column]) -> _Layout | None:
    acc, gyro = _axes(columns, _ACC_NAMES), _axes(columns, _GYRO_NAMES)
    times = [c for name in _TIME_NAMES for c in columns if c.base == name]
    if not acc or not times:
        return None
    time = times[0]
    if time.unit is None and "second" in time.base:
        time = _Column(time.index, time.name, time.base, "s")
    return _Layout(delimiter, line, len(columns), time, acc, gyro)


def _refuse_gravity_free(path: Path, line: int, columns: list[_Column]) -> None:
    if _axes(columns, dict.fromkeys(_GRAVITY_FREE)):
        raise InputError(
            f"{path}:{line}: has acceleration without gravity only (user or linear acceleration). "
            "Its direction relative to gravity is lost and cannot be put back: record the raw "
            "(total) accelerometer instead."
        )


def _blocks(path: Path, layout: _Layout, notes: list[str]) -> Iterator[NDArray[np.float64]]:
    """Blocks (n, columns) of the wanted columns below the header; empty cells are NaN."""
    wanted = [c.index for c in layout.wanted]
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        list(islice(file, layout.header_line))
        first_line = layout.header_line + 1
        lines = list(islice(file, _BLOCK_ROWS))
        while lines:
            following = list(islice(file, _BLOCK_ROWS))
            try:
                if not lines[0].strip():
                    raise ValueError("numpy warns of a block of empty lines")
                # numpy parses a block of plain numbers several times as fast as Python its rows;
                # a block that it cannot read is gone through with care.
                block = np.loadtxt(
                    lines, delimiter=layout.delimiter, usecols=wanted, comments=None, ndmin=2
                )
            except ValueError:
                block = _careful_block(path, first_line, layout, lines, notes, not following)
            if len(block):
                yield block
            first_line += len(lines)
            lines = following


def _careful_block(
    path: Path,
    first_line: int,
    layout: _Layout,
    lines: list[str],
    notes: list[str],
    is_last: bool,
) -> NDArray[np.float64]:
    """Parse row by row: decimal commas, quotes, empty cells, and an error that names its line."""
    reader = csv.reader(lines, delimiter=layout.delimiter)
    rows = []
    for cells in reader:
        line = first_line + reader.line_num - 1
        if not any(cells):
            continue
        if len(cells) < layout.n_columns and is_last and reader.line_num == len(lines):
            notes.append(f"line {line}, the last one, is cut off: left out")
            break
        rows.append(_careful_row(path, line, layout, cells))
    return np.array(rows).reshape(-1, len(layout.wanted))


def _careful_row(path: Path, line: int, layout: _Layout, cells: list[str]) -> list[float]:
    if len(cells) < layout.n_columns:
        raise InputError(
            f"{path}:{line}: {len(cells)} fields, expected {layout.n_columns} as in the header "
            f"(line {layout.header_line}); mend or delete the line"
        )
    values = []
    for column in layout.wanted:
        text = cells[column.index].strip()
        if layout.delimiter != ",":
            text = text.replace(",", ".")  # decimal comma
        if text.lower() in ("", "nan", "na", "null", "none"):
            values.append(math.nan)
            continue
        try:
            values.append(float(text))
        except ValueError:
            raise InputError(
                f"{path}:{line}: column {column.name!r} holds {text!r}, expected a number; "
                "mend or delete the line"
            ) from None
    return values


def _check_time(
    path: Path, layout: _Layout, stamps: NDArray[np.float64], units: UnitOptions
) -> tuple[str, float]:
    unit = units.time or layout.time.unit
    steps = np.diff(stamps[np.isfinite(stamps)])
    steps = steps[steps > 0]
    if not len(steps):
        raise InputError(f"{path}: column {layout.time.name!r} never rises; it is not a time")
    step = float(np.median(steps))

    def plausible(candidate: str) -> bool:
        rate_hz = 1 / (step * TIME_UNITS_S[candidate])
        low, high = MIN_RATE_HZ * (1 - _RATE_TOLERANCE), MAX_RATE_HZ * (1 + _RATE_TOLERANCE)
        return low <= rate_hz <= high

    if plausible(unit or "s"):
        return unit or "s", 1 / (step * TIME_UNITS_S[unit or "s"])
    others = [u for u in TIME_UNITS_S if plausible(u)]
    cure = (
        f"It would be {1 / (step * TIME_UNITS_S[others[0]]):.0f} Hz with --time-unit {others[0]}."
        if others
        else f"The runtime takes {MIN_RATE_HZ:.0f} to {MAX_RATE_HZ:.0f} Hz."
    )
    raise InputError(
        f"{path}: column {layout.time.name!r} rises by {step:g} a row, which as {unit or 's'} is "
        f"{1 / (step * TIME_UNITS_S[unit or 's']):.4g} Hz. {cure}"
    )


def _check_acc(path: Path, layout: _Layout, acc: NDArray[np.float64], units: UnitOptions) -> str:
    """The accelerometer's unit, if the signal agrees: the median |acc| of anything worn is about
    1 g, whatever the wearer does."""
    magnitude = np.sqrt((acc**2).sum(axis=1))
    if not np.isfinite(magnitude).any():
        raise InputError(f"{path}: the accelerometer columns hold no number")
    median = float(np.nanmedian(magnitude))
    declared = units.acc or layout.acc[0].unit
    unit = declared or "m/s^2"

    def plausible(candidate: str) -> bool:
        in_g = median * ACC_UNITS_MPS2[candidate] / STANDARD_GRAVITY_MPS2
        return 0.5 <= in_g <= 2.0

    if plausible(unit):
        return unit
    source = "was asked for" if units.acc else "the header says" if declared else "is expected"
    others = [u for u in ACC_UNITS_MPS2 if plausible(u)]
    cure = (
        f"It looks like {others[0]}: say --acc-unit {others[0]}. (If the app removed gravity, it "
        "cannot be used.)"
        if others
        else "In no known unit is it near 1 g: if gravity was removed (linear or user "
        "acceleration), record the raw accelerometer instead."
    )
    raise InputError(
        f"{path}: the median |acceleration| ({layout.acc[0].name}..) is {median:.3g}, but {unit} "
        f"{source}, where a worn device reads about {1 / ACC_UNITS_MPS2[unit] * 9.80665:.3g}. "
        f"{cure}"
    )


def _check_gyro(
    path: Path,
    layout: _Layout,
    gyro: NDArray[np.float64],
    units: UnitOptions,
    notes: list[str],
) -> str | None:
    """The gyroscope's unit, None without one; adds to `notes` what the user should know."""
    if not layout.gyro:
        notes.append(
            "no gyroscope columns: labels rest on the accelerometer alone and are less certain"
        )
        return None
    declared = units.gyro or layout.gyro[0].unit
    unit = declared or "rad/s"
    finite = np.abs(gyro[np.isfinite(gyro)])
    peak = float(np.quantile(finite, 0.999)) if len(finite) else 0.0
    if peak * GYRO_UNITS_RADS[unit] > _MAX_PLAUSIBLE_RADS:
        raise InputError(
            f"{path}: the gyroscope ({layout.gyro[0].name}..) reaches {peak:.3g}, which as {unit} "
            "is more than any wearable measures. If it is in deg/s, say --gyro-unit deg/s."
        )
    if not declared:
        notes.append(
            "the gyroscope's unit is not stated: taken as rad/s; if it is not, say --gyro-unit"
        )
    return unit


@dataclass(frozen=True)
class TruthSegment:
    """What was really done from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    label: str


def read_truth(path: Path) -> list[TruthSegment]:
    """Read true labels: a CSV with the columns start_s, end_s, label.

    Raises:
        InputError: file, line and what was expected.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"start_s", "end_s", "label"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}:1: expected the columns start_s,end_s,label")
            segments = []
            for row in reader:
                try:
                    start_s, end_s = float(row["start_s"]), float(row["end_s"])
                except (TypeError, ValueError):
                    raise InputError(
                        f"{path}:{reader.line_num}: start_s and end_s must be numbers (seconds)"
                    ) from None
                segments.append(TruthSegment(start_s, end_s, (row["label"] or "").strip()))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    return segments


def truth_of(segments: list[TruthSegment], start_s: float, end_s: float) -> str | None:
    """The true label of most of a window, None where none covers half of it."""
    overlap = [(min(s.end_s, end_s) - max(s.start_s, start_s), s.label) for s in segments]
    longest = max(overlap, default=(0.0, ""))
    return longest[1] if longest[0] >= (end_s - start_s) / 2 else None
