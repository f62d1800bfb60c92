"""What boards send over a serial line, and which of it a stream is.

    format = detect(first_two_seconds)
    if format:
        decoder = format.decoder()
        decoder.feed(first_two_seconds)

Every decoder takes bytes in any chunks, holds a bounded buffer, finds the next message after any
damage, and counts what it could not read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import InputError
from firmware_bridge.framing import FrameSplitter, Pieces
from firmware_bridge.link import Counts, Decoder, Kind, Packet, Unwrapper
from firmware_bridge.native import MAX_MESSAGE_BYTES, VERSION, NativeStreamDecoder
from firmware_bridge.samples import (
    ACC_UNITS_MPS2,
    GYRO_UNITS_RADS,
    STANDARD_GRAVITY_MPS2,
    TIME_UNITS_S,
)

MAX_DETECT_BYTES = 262_144
"""Of a longer stream the last ones are looked at."""

_MAX_VALUE = 1e7
"""No accelerometer or gyroscope reads this in any unit; a number above it is damage."""

_ENOUGH = 3
"""Messages in a row that no noise imitates, where a checksum or a layout of many fields holds."""


class TellingDecoder(Decoder, Protocol):
    """A decoder that says what it takes the stream for."""

    @property
    def decided(self) -> str:
        """Columns, units and why, in one line for people."""
        ...

    @property
    def problem(self) -> str | None:
        """Why nothing can be handed on, and the option that mends it; None where all is well."""
        ...

    @property
    def nominal_hz(self) -> float:
        """What the stream says of its rate; 0 where it says nothing."""
        ...


@dataclass(frozen=True)
class SerialFormat:
    """What a stream was recognised as."""

    name: str
    reason: str
    """Why, in words."""

    decoder: Callable[[], TellingDecoder]
    """A fresh decoder, to be fed from the first byte on."""


def _no_option(name: str, acc_unit: str | None, gyro_unit: str | None) -> None:
    if acc_unit or gyro_unit:
        raise InputError(
            f"units are given, but the stream is {name}, whose units are fixed; leave them out"
        )


# ---------------------------------------------------------------------------------------- CSV

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_MAX_LINE_BYTES = 1024
_MAX_FIELDS = 64
_JUDGED_LINES = 20
"""Lines that a unit is judged by, when nothing states it."""

_ACC_NAMES = ("a{}", "acc{}", "{}acc", "accel{}", "acceleration{}", "accelerometer{}")
_GYRO_NAMES = ("g{}", "gyr{}", "{}gyr", "gyro{}", "{}gyro", "gyroscope{}")
"""Column names as letters only, lower case, {} standing for the axis."""

_TIME_NAMES = {
    "micros": "us",
    "timeus": "us",
    "timestampus": "us",
    "tus": "us",
    "millis": "ms",
    "timems": "ms",
    "timestampms": "ms",
    "tms": "ms",
    "times": "s",
    "timestamps": "s",
}
"""Columns that say a time and its unit. Other times are not used: their unit would be a guess."""

_OPENLOG_NAMES = frozenset({"rtcdate", "rtctime", "imudegc", "outputhz"})
"""OpenLog Artemis has Arduino's names aX.. but its own unit (SENSOR_UNITS.md: milli g)."""

# fmt: off
_NAMED_ACC_UNITS = {
    "mps2": "m/s^2", "ms2": "m/s^2", "m/s2": "m/s^2", "m/s^2": "m/s^2", "m/s²": "m/s^2",
    "g": "g", "mg": "mg",
}
_NAMED_GYRO_UNITS = {
    "dps": "deg/s", "deg/s": "deg/s", "degs": "deg/s", "°/s": "deg/s",
    "rads": "rad/s", "rad/s": "rad/s", "radps": "rad/s", "mdps": "mdeg/s",
}
# fmt: on

_REST = {"g": 1.0, "m/s^2": STANDARD_GRAVITY_MPS2, "mg": 1000.0}
"""What a still accelerometer reads, by unit."""

_REST_FACTOR = 3.0
"""The median may be this factor off: a walk's is within 20 %, the units are a factor 10 apart."""

_MAX_GYRO_RADS = 40.0
"""Consumer gyroscopes end at 2000 deg/s = 34.9 rad/s: above, it is not rad/s."""


@dataclass(frozen=True)
class _Columns:
    """Which fields of a line mean what, and what their names say."""

    n_fields: int
    acc: tuple[int, ...]
    gyro: tuple[int, ...]
    time: int | None
    time_unit: str
    acc_unit: tuple[str, str] | None
    """Unit and why; None where nothing says it."""
    gyro_unit: tuple[str, str] | None
    what: str
    """For people."""

    @property
    def wanted(self) -> tuple[int, ...]:
        return self.acc + self.gyro + (() if self.time is None else (self.time,))


class CsvDecoder:
    """Lines of numbers: Edge Impulse's data forwarder, Arduino sketches, OpenLog Artemis.

    With a header, columns are found by name; without one there are 3 (acc), 6 (acc, gyro) or 9
    (acc, gyro, magnetometer). What comes before the first newline is dropped unless it is a
    header: it may be half a line. A header may also come later, when the board restarts.

    Units come from the caller, else from the header, else from the median of |acc| over
    `_JUDGED_LINES` lines, which are kept until then; `decided` says which and why.

    Args:
        acc_unit: of `ACC_UNITS_MPS2`, None to find out.
        gyro_unit: of `GYRO_UNITS_RADS`, None to find out.

    Raises:
        InputError: a unit of another name.
    """

    nominal_hz = 0.0

    def __init__(self, acc_unit: str | None = None, gyro_unit: str | None = None) -> None:
        for option, unit, units in (
            ("--acc-unit", acc_unit, ACC_UNITS_MPS2),
            ("--gyro-unit", gyro_unit, GYRO_UNITS_RADS),
        ):
            if unit is not None and unit not in units:
                raise InputError(f"{option} {unit!r} is not known; one of: {', '.join(units)}")
        self.counts = Counts()
        self.problem: str | None = None
        self.lines = 0
        """Lines of numbers so far."""
        self._options = (acc_unit, gyro_unit)
        self._pieces = Pieces(b"\n", _MAX_LINE_BYTES)
        self._begun = False
        self._columns: _Columns | None = None
        self._scale: NDArray[np.float64] | None = None
        self._units = ""
        self._unjudged: list[list[float]] = []
        self._rows: list[list[float]] = []
        self._packets: list[Packet] = []
        self._unwrap = _unwrapper()

    @property
    def decided(self) -> str:
        """Columns and units, and why."""
        if self._columns is None:
            return "no line of numbers yet"
        return f"{self._columns.what}; {self._units or 'units not known yet'}"

    def feed(self, data: bytes) -> list[Packet]:
        """Take some bytes of the line."""
        for line in self._pieces.feed(data):
            self._line(line)
        self._flush()
        packets, self._packets = self._packets, []
        return packets

    def _line(self, line: bytes | None) -> None:
        first, self._begun = not self._begun, True
        fields = _fields(line.strip()) if line is not None else []
        if line is not None and not fields:
            return
        numeric = [bool(_NUMBER.fullmatch(field)) for field in fields]
        header = None if any(numeric) else _named_columns(fields)
        if header is not None:
            self._begin(header)
        elif first:
            self.counts["half a line at the start"] += 1
        else:
            if self._columns is None and numeric and all(numeric):
                self._begin(_unnamed_columns(len(fields)))
            self._take(line, fields, numeric)

    def _take(self, line: bytes | None, fields: list[bytes], numeric: list[bool]) -> None:
        """A line that is no header."""
        columns = self._columns
        if columns is None or (not self.lines and len(fields) != columns.n_fields):
            self.counts["before the first line of numbers"] += 1
        elif line is None:
            self.counts["line too long"] += 1
        elif len(fields) != columns.n_fields:
            self.counts["number of fields"] += 1
        elif not all(numeric[i] for i in columns.wanted):
            self.counts["not numbers"] += 1
        else:
            row = [float(fields[i]) for i in columns.wanted]
            n_axes = len(columns.acc + columns.gyro)
            if all(abs(v) < _MAX_VALUE for v in row[:n_axes]) and all(
                0 <= t < 2**32 for t in row[n_axes:]
            ):
                self.lines += 1
                self._judge(row)
            else:
                self.counts["number out of range"] += 1

    def _begin(self, columns: _Columns | None) -> None:
        """Take lines as these columns from now on."""
        if columns is None:
            return
        self._flush()
        self._unwrap = _unwrapper()
        if columns == self._columns:
            self.counts["header again: restart of the device"] += 1
            return
        self._columns = columns
        if self._unjudged:
            self.counts["unit not known"] += len(self._unjudged)
        self._unjudged = []
        self._scale, self.problem, self._units = None, None, ""
        self._settle(columns, [])

    def _judge(self, row: list[float]) -> None:
        """Keep a row until units are known."""
        if self._scale is not None:
            self._rows.append(row)
            return
        self._unjudged.append(row)
        if len(self._unjudged) == _JUDGED_LINES and self._columns is not None:
            rows, self._unjudged = self._unjudged, []
            self._settle(self._columns, rows)
            if self._scale is None:
                self.counts["unit not known"] += len(rows)
            else:
                self._rows += rows

    def _settle(self, columns: _Columns, rows: list[list[float]]) -> None:
        """Decide on units, if options and names suffice or there are rows to judge by."""
        values = np.array(rows)
        acc = _choice(self._options[0], columns.acc_unit) or (_rest_unit(values) if rows else None)
        gyro = _choice(self._options[1], columns.gyro_unit)
        if gyro is None and (rows or not columns.gyro):
            gyro = _gyro_unit(values) if columns.gyro else ("rad/s", "")
        if acc and gyro:
            scale = [ACC_UNITS_MPS2[acc[0]]] * 3 + [GYRO_UNITS_RADS[gyro[0]]] * len(columns.gyro)
            self._scale, self.problem = np.array(scale), None
            self._units = f"acc in {acc[0]} ({acc[1]})"
            self._units += f", gyro in {gyro[0]} ({gyro[1]})" if columns.gyro else ""
        elif rows:
            self.problem = (
                f"the acceleration's median over {len(rows)} lines is {_median(values):.4g}, which "
                f"is near 1 g in none of {', '.join(_REST)}; let the board send one of these, or "
                "say which it is with --acc-unit"
            )

    def _flush(self) -> None:
        """Make a packet of the rows so far."""
        if not self._rows or self._columns is None or self._scale is None:
            return
        values = np.array(self._rows)
        self._rows = []
        device_s = None
        if self._columns.time is not None:
            device_s = self._device_s(values[:, -1], self._columns.time_unit)
        kind: Kind = "imu" if self._columns.gyro else "acc"
        self._packets.append(Packet(kind, values[:, : len(self._scale)] * self._scale, device_s))

    def _device_s(self, times: NDArray[np.float64], unit: str) -> NDArray[np.float64]:
        """Unwrapped where it is a 32-bit counter, as micros() and millis() are."""
        if unit != "s":
            times = np.array([self._unwrap(int(t)) + t % 1 for t in times])
        return times * TIME_UNITS_S[unit]


def _unwrapper() -> Unwrapper:
    """For stamps without a checksum: a damaged one is off by itself, and not a wrap that would put
    all after it off as well."""
    return Unwrapper(32, resets_below=2**31)


def _fields(text: bytes) -> list[bytes]:
    """Comma, semicolon or tab, else spaces; a delimiter at the end of the line adds no field."""
    for delimiter in (b"\t", b";", b","):
        if delimiter in text:
            text = text[: -len(delimiter)] if text.endswith(delimiter) else text
            return [f.strip() for f in text.split(delimiter, _MAX_FIELDS)]
    return text.split(None, _MAX_FIELDS)


def _named_columns(fields: Sequence[bytes]) -> _Columns | None:
    """The columns of a header, or None where there are no three accelerometer axes in it."""
    bases, units = [], []
    for field in fields:
        base, unit = _split_name(field.decode("utf-8", errors="replace"))
        bases.append(base)
        units.append(unit)
    acc, gyro = _axes(bases, _ACC_NAMES), _axes(bases, _GYRO_NAMES)
    if acc is None:
        return None
    openlog = len(_OPENLOG_NAMES & set(bases)) >= 1
    arduino = [bases[i] for i in acc] == ["ax", "ay", "az"] and gyro is not None
    acc_unit = _named_unit(_NAMED_ACC_UNITS, units[acc[0]])
    gyro_unit = _named_unit(_NAMED_GYRO_UNITS, units[gyro[0]]) if gyro else None
    if openlog:
        why = "as OpenLog Artemis writes it"
        acc_unit, gyro_unit = acc_unit or ("mg", why), gyro_unit or ("deg/s", why)
    elif arduino and acc_unit is None and gyro_unit is None:
        gyro_unit = ("deg/s", "as Arduino's IMU sketches write it, by the header")
    times = [i for i, base in enumerate(bases) if _time_unit(base, units[i])]
    time = times[0] if times else None
    names = ", ".join(fields[i].decode("utf-8", errors="replace") for i in (acc + (gyro or ())))
    return _Columns(
        len(fields),
        acc,
        gyro or (),
        time,
        "" if time is None else _time_unit(bases[time], units[time]),
        acc_unit,
        gyro_unit,
        f"columns by the header: {_printable(names)}",
    )


def _time_unit(base: str, unit: str) -> str:
    stated = _TIME_NAMES.get(base + unit) or _TIME_NAMES.get(base)
    return stated or ""


def _unnamed_columns(n_fields: int) -> _Columns | None:
    if n_fields == 3:
        return _Columns(3, (0, 1, 2), (), None, "", None, None, "3 columns without names: acc")
    if n_fields == 6:
        what = "6 columns without names: acc, then gyro"
        return _Columns(6, (0, 1, 2), (3, 4, 5), None, "", None, None, what)
    if n_fields == 9:
        what = "9 columns without names: acc, gyro, then a magnetometer (not used)"
        return _Columns(9, (0, 1, 2), (3, 4, 5), None, "", None, None, what)
    return None


def _split_name(name: str) -> tuple[str, str]:
    """A column's name as letters, and the unit in it, if any: "Acc X (g)", "ax_mps2"."""
    lower = name.strip().strip('"').lower()
    match = re.fullmatch(r"(.*?)\s*[(\[](.*)[)\]]", lower)
    if not match:
        match = re.fullmatch(r"(.*[a-z].*?)_([a-z0-9]+)", lower)
        if match and match[2] in ("x", "y", "z"):
            match = None
    base, unit = (match[1], match[2]) if match else (lower, "")
    known = unit in _NAMED_ACC_UNITS or unit in _NAMED_GYRO_UNITS or unit in TIME_UNITS_S
    if unit and not known:
        base, unit = lower, ""
    return re.sub(r"[^a-z]", "", base), unit


def _axes(bases: Sequence[str], patterns: Sequence[str]) -> tuple[int, ...] | None:
    for pattern in patterns:
        names = [pattern.format(axis) for axis in "xyz"]
        if all(bases.count(name) == 1 for name in names):
            return tuple(bases.index(name) for name in names)
    return None


def _named_unit(units: dict[str, str], unit: str) -> tuple[str, str] | None:
    return (units[unit], "by the header") if unit in units else None


def _choice(option: str | None, named: tuple[str, str] | None) -> tuple[str, str] | None:
    return (option, "as asked") if option else named


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(np.linalg.norm(values[:, :3], axis=1)))


def _rest_unit(values: NDArray[np.float64]) -> tuple[str, str] | None:
    """The unit in which the median of |acc| is about 1 g."""
    median = _median(values)
    for unit, rest in _REST.items():
        if rest / _REST_FACTOR <= median <= rest * _REST_FACTOR:
            return unit, f"its median over {len(values)} lines is {median:.4g}"
    return None


def _gyro_unit(values: NDArray[np.float64]) -> tuple[str, str]:
    largest = float(np.abs(values[:, 3:6]).max())
    if largest > _MAX_GYRO_RADS:
        return "deg/s", f"it reached {largest:.4g}, too much for rad/s"
    return "deg/s", "assumed, as nothing states it; else say so with --gyro-unit rad/s"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:120]


# ----------------------------------------------------------------------------------- WitMotion

_WIT_FRAME = 11
_WIT_ACC, _WIT_GYRO = 0x51, 0x52
_WIT_TYPES = range(0x50, 0x60)
_WIT_ACC_G = 16.0 / 32768
_WIT_GYRO_DPS = 2000.0 / 32768


class WitmotionDecoder:
    """WitMotion's frames on a serial line: 55, type, 8 bytes, sum (WitStandardProtocol_JY901,
    wit_c_sdk.c). Acceleration (51) is paired with the next angular velocity (52).

    Args:
        has_gyro: False hands on the acceleration alone, for a device set to send no 52.
    """

    nominal_hz = 0.0
    problem = None

    def __init__(self, has_gyro: bool = True) -> None:
        self.counts = Counts()
        self.types = Counts()
        """Good frames, by type in hexadecimal."""
        self._has_gyro = has_gyro
        self._held = b""
        self._acc: tuple[float, ...] | None = None

    @property
    def decided(self) -> str:
        """Which frames are used."""
        frames = "acc and gyro (51, 52)" if self._has_gyro else "acc only (51; no 52 is sent)"
        return f"{frames}; +-16 g, +-2000 deg/s"

    def feed(self, data: bytes) -> list[Packet]:
        """Take some bytes of the line."""
        held, at = self._held + data, 0
        rows: list[tuple[float, ...]] = []
        while len(held) - at >= _WIT_FRAME:
            if held[at] != 0x55 or held[at + 1] not in _WIT_TYPES:
                self._wrong("bytes between frames")
                at += 1
                continue
            if sum(held[at : at + _WIT_FRAME - 1]) & 0xFF != held[at + _WIT_FRAME - 1]:
                self._wrong("checksum")
                at += 1  # this 55 may have been data, and a frame begin within
                continue
            rows += self._frame(held[at + 1], struct.unpack_from("<3h", held, at + 2))
            at += _WIT_FRAME
        self._held = held[at:]
        if not rows:
            return []
        return [Packet("imu" if self._has_gyro else "acc", np.array(rows))]

    def _wrong(self, what: str) -> None:
        self.counts[what if self.types else "bytes before the first frame"] += 1

    def _frame(self, kind: int, raw: tuple[int, ...]) -> list[tuple[float, ...]]:
        self.types[f"{kind:02x}"] += 1
        if kind == _WIT_ACC:
            if self._acc is not None:
                self.counts["acc without gyro"] += 1
            acc = tuple(v * _WIT_ACC_G * STANDARD_GRAVITY_MPS2 for v in raw)
            if not self._has_gyro:
                return [acc]
            self._acc = acc
        elif kind == _WIT_GYRO and self._has_gyro:
            if self._acc is None:
                self.counts["gyro without acc"] += 1
                return []
            acc, self._acc = self._acc, None
            return [acc + tuple(v * _WIT_GYRO_DPS * GYRO_UNITS_RADS["deg/s"] for v in raw)]
        return []


# -------------------------------------------------------------------------------------- x-IMU3

_XIMU_BINARY = struct.Struct("<Q6f")
_XIMU_INERTIAL = 0x80 | ord("I")
_MAX_XIMU_BYTES = 4096
"""Longer than any message of the device: its JSON answers have some hundred bytes."""

_XIMU_ESCAPES = re.compile(rb"\xdb(.?)", re.DOTALL)
_XIMU_UNSTUFFED = {b"\xdc": b"\n", b"\xdd": b"\xdb"}


class Ximu3Decoder:
    """x-io x-IMU3, ASCII and binary: inertial messages, gyroscope first, deg/s and g, each with
    its time in microseconds (xioTechnologies/x-IMU3-Software, receiver.rs, inertial_message.rs).
    Other messages are skipped."""

    nominal_hz = 0.0
    problem = None
    decided = "inertial messages; g, deg/s, device time in us"

    def __init__(self) -> None:
        self.counts = Counts()
        self._pieces = Pieces(b"\n", _MAX_XIMU_BYTES)
        self._synced = False

    def feed(self, data: bytes) -> list[Packet]:
        """Take some bytes of the line."""
        rows = [row for piece in self._pieces.feed(data) if (row := self._message(piece))]
        if not rows:
            return []
        values = np.array(rows)
        acc = values[:, 4:] * STANDARD_GRAVITY_MPS2
        gyro = values[:, 1:4] * GYRO_UNITS_RADS["deg/s"]
        return [Packet("imu", np.hstack([acc, gyro]), values[:, 0] * TIME_UNITS_S["us"])]

    def _message(self, message: bytes | None) -> tuple[float, ...] | None:
        """Time in us, gyro, acc; None for a message of another kind or a broken one."""
        if message is None:
            self._wrong("message too long")
        elif message[:1] == bytes([_XIMU_INERTIAL]):
            plain = _XIMU_ESCAPES.sub(lambda m: _XIMU_UNSTUFFED.get(m[1], b""), message[1:])
            if len(plain) == _XIMU_BINARY.size:
                return self._checked(_XIMU_BINARY.unpack(plain))
            self._wrong("length")
        elif message[:2] == b"I,":
            fields = message[2:].strip().split(b",", 8)
            if len(fields) == 7 and all(_NUMBER.fullmatch(f) for f in fields):
                return self._checked(tuple(float(f) for f in fields))
            self._wrong("fields")
        return None

    def _checked(self, row: tuple[float, ...]) -> tuple[float, ...] | None:
        # False for NaN as well.
        if 0 <= row[0] < 2**64 and all(abs(v) < _MAX_VALUE for v in row[1:]):
            self._synced = True
            return row
        self._wrong("number out of range")
        return None

    def _wrong(self, what: str) -> None:
        self.counts[what if self._synced else "before the first message"] += 1


# -------------------------------------------------------------------------------------- native


class NativeSerialDecoder(NativeStreamDecoder):
    """Our own format, PROTOCOL.md."""

    @property
    def decided(self) -> str:
        """What the device says of itself."""
        return str(self.description) if self.description else "no description yet"

    @property
    def problem(self) -> str | None:
        """That the device speaks a version to come, or never says what its samples mean."""
        if self.description:
            return None
        versions = [wrong for wrong in self.counts if wrong.startswith("version")]
        if versions:
            return f"the device speaks {versions[0]}"
        return "no description came, which PROTOCOL.md asks for every second"


# ------------------------------------------------------------------------------------- detection


def detect(
    data: bytes, acc_unit: str | None = None, gyro_unit: str | None = None
) -> SerialFormat | None:
    """Which format some seconds of a stream are in.

    Args:
        data: from anywhere in the stream, with boot noise or half a message in front.
        acc_unit: that the user states, for a format that leaves it open.
        gyro_unit: likewise.

    Returns:
        None when nothing fits, as with a wrong baud rate, or as too little has come.

    Raises:
        InputError: units are stated, and the format states its own; or they are unknown ones.
    """
    data = data[-MAX_DETECT_BYTES:]
    found = _native(data) or _witmotion(data) or _ximu3(data)
    if found:
        _no_option(found.name, acc_unit, gyro_unit)
        return found
    return _csv(data, acc_unit, gyro_unit)


def _native(data: bytes) -> SerialFormat | None:
    splitter = FrameSplitter(MAX_MESSAGE_BYTES)
    good = [message for message in splitter.feed(data) if message[0] >> 4 >= VERSION]
    if len(good) < _ENOUGH:
        return None
    reason = f"{len(good)} frames with good CRC"
    return SerialFormat("aura-edge", reason, NativeSerialDecoder)


def _witmotion(data: bytes) -> SerialFormat | None:
    decoder = WitmotionDecoder()
    decoder.feed(data)
    good = sum(decoder.types.values())
    acc, gyro = decoder.types["51"], decoder.types["52"]
    # One sum in 256 is right by chance: most of the bytes have to be in good frames.
    if acc < _ENOUGH or good * _WIT_FRAME < len(data) / 2:
        return None
    reason = f"{good} frames 55 .. with good checksum"
    return SerialFormat("WitMotion", reason, lambda: WitmotionDecoder(has_gyro=gyro > 0))


def _ximu3(data: bytes) -> SerialFormat | None:
    good = sum(len(p.values) for p in Ximu3Decoder().feed(data))
    if good < _ENOUGH:
        return None
    return SerialFormat("x-IMU3", f"{good} inertial messages", Ximu3Decoder)


def _csv(data: bytes, acc_unit: str | None, gyro_unit: str | None) -> SerialFormat | None:
    decoder = CsvDecoder(acc_unit, gyro_unit)
    decoder.feed(data)
    bad = sum(decoder.counts[c] for c in ("number of fields", "not numbers", "line too long"))
    if decoder.lines < _ENOUGH or decoder.lines < bad:
        return None
    return SerialFormat(
        "CSV lines",
        f"{decoder.lines} lines of numbers",
        lambda: CsvDecoder(acc_unit, gyro_unit),
    )
