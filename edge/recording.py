"""Recorded files -> samples in SI units.

A recording is one text file with a sample a row and named columns (a time, three accelerometer
axes and, if the device has one, three gyroscope axes), or what an app exports: `edge/formats`
recognises those. Columns are found by name and units by what the name says or the app documents;
nothing is converted on a guess that is not said. Files are read as streams, so their length does
not matter (JSON alone is read as a whole, and bounded).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.formats import open_export
from edge.formats.export import Blocks, Export, Kind, Part, Vector, head, in_seconds, interpolated
from edge.formats.table import BLOCK_ROWS
from edge.raw import is_raw, read_raw
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

_RAW_SNIFF_CHUNKS = 3
_NO_GYRO = "no gyroscope columns: labels rest on the accelerometer alone and are less certain"

_MAX_PLAUSIBLE_RADS = 40.0
"""Consumer gyroscopes end at 2000 deg/s = 34.9 rad/s."""


@dataclass(frozen=True)
class UnitOptions:
    """Units the user asks for; None takes what the file says."""

    acc: str | None = None
    gyro: str | None = None
    time: str | None = None


@dataclass(frozen=True)
class Recording:
    """An opened recording: what was detected, and its samples as a stream."""

    path: Path
    summary: str
    """One line for people: format, columns, units and where they are from, rate, sign."""

    notes: list[str]
    """What the user should know of how the file was read; reading `chunks` may add to it."""

    rate_hz: float
    """Median rate of the accelerometer's first rows."""

    chunks: Iterator[Samples]
    """The samples, file order; to be read once."""


@dataclass(frozen=True)
class _Unit:
    """A unit that was decided on, and why where the file does not state it."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.why})" if self.why else self.name


def open_recording(path: Path, units: UnitOptions | None = None) -> Recording:
    """Open a recorded file, the folder or zip of an export, or what `edge-run --record` wrote.

    Where an export has the gyroscope in a file of its own, it is interpolated onto the
    accelerometer's times (`edge.formats.export.interpolated`).

    Raises:
        InputError: with file, line and column, when the file cannot be understood; with the
            option that mends it, when a unit is missing or contradicts the signal. Errors in
            later rows are raised by `chunks`.
    """
    units = units or UnitOptions()
    if is_raw(path):
        return _open_raw_recording(path, units)
    export = open_export(path)
    notes = list(export.notes)
    first, *others = export.parts
    rows, blocks = head(first.read(notes), _SNIFF_ROWS // BLOCK_ROWS)
    if len(rows) < 2:
        raise InputError(f"{path}: {len(rows)} samples below the header; nothing to replay")
    time_unit, rate_hz = _check_time(path, first, rows[:, 0], units, export.infers_units)
    to_seconds = TIME_UNITS_S[time_unit.name]
    blocks = in_seconds(blocks, to_seconds)
    for other in others:
        times_s = in_seconds(other.read(notes), to_seconds)
        name = "the gyroscope" if other.vectors[0].kind == "gyro" else other.vectors[0].label
        blocks = interpolated(blocks, times_s, name, notes)
    if others:
        rows, blocks = head(blocks, _SNIFF_ROWS // BLOCK_ROWS)
        if len(rows) < 2:
            raise InputError(
                f"{path}: {first.label} and {others[-1].label} do not overlap in time; give the "
                "files of one recording" + "".join(f" ({note})" for note in notes)
            )
    channels = _Channels(export)
    acc_unit = _check_acc(path, channels, channels.acc_of(rows), units, export.infers_units)
    gyro_unit = _check_gyro(path, channels, rows, units, notes, export.infers_units)
    acc_factor = ACC_UNITS_MPS2[acc_unit.name] * export.sign
    gyro_factor = GYRO_UNITS_RADS[gyro_unit.name] if gyro_unit else 0.0
    format_name = f"{export.format}, " if export.format else ""
    described = [
        f"{path.name}: {format_name}{rate_hz:.1f} Hz",
        f"time {first.time} in {time_unit}",
        f"acc {' + '.join(v.label for v in channels.acc)} in {acc_unit}",
    ]
    if export.sign < 0:
        described[-1] += ", sign turned so that +1 g points up"
    described += [f"gyro {channels.gyro[0].label} in {gyro_unit}" if gyro_unit else "no gyroscope"]
    return Recording(
        path,
        ", ".join(described),
        notes,
        rate_hz,
        _to_samples(blocks, channels, acc_factor, gyro_factor),
    )


def _open_raw_recording(path: Path, units: UnitOptions) -> Recording:
    if units != UnitOptions():
        raise InputError(f"{path}: a raw recording is in SI units; leave the unit options out")
    notes: list[str] = []
    origin, has_gyro, chunks = read_raw(path, notes)
    first = list(islice(chunks, _RAW_SNIFF_CHUNKS))
    stamps = np.concatenate([chunk.t_s for chunk in first] or [np.empty(0)])
    steps_s = np.diff(stamps[np.isfinite(stamps)])
    steps_s = steps_s[steps_s > 0]
    if not len(steps_s):
        raise InputError(f"{path}: no two samples at different times; nothing to replay")
    if not has_gyro:
        notes.append(_NO_GYRO)
    rate_hz = 1 / float(np.median(steps_s))
    summary = (
        f"{path.name}: raw recording of {origin.source} ({origin.details}), begun "
        f"{origin.began_utc} with aura-edge {origin.version}, {rate_hz:.1f} Hz, "
        f"{'gyro in rad/s' if has_gyro else 'no gyroscope'}"
    )
    return Recording(path, summary, notes, rate_hz, chain(first, chunks))


class _Channels:
    """Where the sensors stand in an export's rows."""

    def __init__(self, export: Export) -> None:
        vectors = [v for part in export.parts for v in part.vectors]
        self.acc = [v for v in vectors if v.kind == "acc"]
        self.gyro = [v for v in vectors if v.kind == "gyro"][:1]
        self._acc = _slices(vectors, "acc")
        self._gyro = _slices(vectors, "gyro")

    def acc_of(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 3), gravity included."""
        total: NDArray[np.float64] = sum((rows[:, s] for s in self._acc[1:]), rows[:, self._acc[0]])
        return total

    def gyro_of(self, rows: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """(n, 3), None without a gyroscope."""
        return rows[:, self._gyro[0]] if self._gyro else None


def _slices(vectors: list[Vector], kind: Kind) -> list[slice]:
    return [slice(1 + 3 * i, 4 + 3 * i) for i, v in enumerate(vectors) if v.kind == kind]


def _to_samples(
    blocks: Blocks, channels: _Channels, acc_factor: float, gyro_factor: float
) -> Iterator[Samples]:
    for block in blocks:
        gyro = channels.gyro_of(block)
        yield Samples(
            block[:, 0],
            channels.acc_of(block) * acc_factor,
            None if gyro is None else gyro * gyro_factor,
        )


def _check_time(
    path: Path, part: Part, stamps: NDArray[np.float64], units: UnitOptions, infers: bool
) -> tuple[_Unit, float]:
    """The time's unit, if it makes a rate that devices have, and that rate in Hz."""
    declared = units.time or part.time_unit
    unit = _Unit(declared or "s", part.time_why if declared == part.time_unit else "")
    steps = np.diff(stamps[np.isfinite(stamps)])
    steps = steps[steps > 0]
    if not len(steps):
        raise InputError(f"{path}: column {part.time!r} never rises; it is not a time")
    step = float(np.median(steps))

    def plausible(candidate: str) -> bool:
        rate_hz = 1 / (step * TIME_UNITS_S[candidate])
        low, high = MIN_RATE_HZ * (1 - _RATE_TOLERANCE), MAX_RATE_HZ * (1 + _RATE_TOLERANCE)
        return low <= rate_hz <= high

    others = [u for u in TIME_UNITS_S if plausible(u)]
    if infers and not declared and others:
        # Units are a factor of 1000 apart and rates of 100: no more than one is plausible.
        unit = _Unit(others[0], "by the rate")
    if plausible(unit.name):
        return unit, 1 / (step * TIME_UNITS_S[unit.name])
    cure = (
        f"It would be {1 / (step * TIME_UNITS_S[others[0]]):.0f} Hz with --time-unit {others[0]}."
        if others
        else f"The runtime takes {MIN_RATE_HZ:.0f} to {MAX_RATE_HZ:.0f} Hz."
    )
    raise InputError(
        f"{path}: column {part.time!r} rises by {step:g} a row, which as {unit.name} is "
        f"{1 / (step * TIME_UNITS_S[unit.name]):.4g} Hz. {cure}"
    )


def _check_acc(
    path: Path,
    channels: _Channels,
    acc: NDArray[np.float64],
    units: UnitOptions,
    infers: bool,
) -> _Unit:
    """The accelerometer's unit, if the signal agrees: the median |acc| of anything worn is about
    1 g, whatever the wearer does."""
    magnitude = np.sqrt((acc**2).sum(axis=1))
    if not np.isfinite(magnitude).any():
        raise InputError(f"{path}: the accelerometer columns hold no number")
    median = float(np.nanmedian(magnitude))
    stated = channels.acc[0]
    declared = units.acc or stated.unit
    unit = _Unit(declared or "m/s^2", "" if units.acc else stated.why)

    def plausible(candidate: str) -> bool:
        in_g = median * ACC_UNITS_MPS2[candidate] / STANDARD_GRAVITY_MPS2
        return 0.5 <= in_g <= 2.0

    others = [u for u in ACC_UNITS_MPS2 if plausible(u)]
    if infers and not declared and others:
        unit = _Unit(others[0], f"the median |acc| is {median:.3g}")
    if plausible(unit.name):
        return unit
    source = (
        "was asked for"
        if units.acc
        else f"is its unit {unit.why}"
        if unit.why
        else "the header says"
        if declared
        else "is expected"
    )
    cure = (
        f"It looks like {others[0]}: say --acc-unit {others[0]}. (If the app removed gravity, it "
        "cannot be used.)"
        if others
        else "In no known unit is it near 1 g: if gravity was removed (linear or user "
        "acceleration), record the raw accelerometer instead."
    )
    raise InputError(
        f"{path}: the median |acceleration| ({stated.label}) is {median:.3g}, but {unit.name} "
        f"{source}, where a worn device reads about {1 / ACC_UNITS_MPS2[unit.name] * 9.80665:.3g}. "
        f"{cure}"
    )


def _check_gyro(
    path: Path,
    channels: _Channels,
    rows: NDArray[np.float64],
    units: UnitOptions,
    notes: list[str],
    infers: bool,
) -> _Unit | None:
    """The gyroscope's unit, None without one; adds to `notes` what the user should know."""
    gyro = channels.gyro_of(rows)
    if gyro is None:
        notes.append(_NO_GYRO)
        return None
    stated = channels.gyro[0]
    declared = units.gyro or stated.unit
    unit = _Unit(declared or "rad/s", "" if units.gyro else stated.why)
    finite = np.abs(gyro[np.isfinite(gyro)])
    peak = float(np.quantile(finite, 0.999)) if len(finite) else 0.0
    if infers and not declared and peak > _MAX_PLAUSIBLE_RADS:
        return _Unit("deg/s", f"it reaches {peak:.3g}")
    if peak * GYRO_UNITS_RADS[unit.name] > _MAX_PLAUSIBLE_RADS:
        raise InputError(
            f"{path}: the gyroscope ({stated.label}) reaches {peak:.3g}, which as {unit.name} "
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
