"""Recordings in one table, told apart by their header row.

The layouts are those of the apps' documentation, source code or exports; where each is from stands
with it. A table that no app's layout fits is read by what its columns are named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NoReturn

from edge.formats.export import (
    DOCUMENTED,
    Export,
    Kind,
    Vector,
    counted_part,
    part,
    vector,
)
from edge.formats.files import TextFile
from edge.formats.table import HEADER_LINES, Column, Table, candidates
from firmware_bridge.errors import InputError

IOS: Literal[-1] = -1
"""Apple's Core Motion reports -1 g on the axis that points up, everyone else +1 g; its gyroscope
has everyone's sign (github.com/tszheichoi/awesome-sensor-logger, COORDINATES.md)."""

ARDUINO_RATE_HZ = 119.0
"""Arduino_LSM9DS1 of the Nano 33 BLE Sense: accelerationSampleRate() is 119 Hz, and IMU_Capture
writes every sample."""

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
    "加速度{}": None,  # WitMotion's Chinese software
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
    "as{}": None,  # WitMotion
    "角速度{}": None,
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
_GRAVITY_FREE = {
    "useracceleration{}": "record the raw (total) accelerometer instead",
    "motionuseracceleration{}": "switch on Gravity beside Device Motion, or Accelerometer, in "
    "SensorLog's settings and record again",
    "linearacceleration{}": "record the raw (total) accelerometer instead: in phyphox "
    "'Acceleration (with g)', of an x-IMU3 the file Inertial.csv",
    "linacc{}": "record the raw (total) accelerometer instead",
    "freeacc{}": "record in a mode with Acc and Gyr instead: 'Rate quantities' or 'Custom Mode 5', "
    "or choose Acceleration and Angular velocity for the export of a DOT's own recording",
}

_Triple = tuple[Column, ...]


def acc_axes(table: Table) -> tuple[Vector, _Triple] | None:
    """The accelerometer with gravity, by its columns' names."""
    return _named_axes(table, "acc", _ACC_NAMES)


def gyro_axes(table: Table) -> tuple[Vector, _Triple] | None:
    """The gyroscope, by its columns' names."""
    return _named_axes(table, "gyro", _GYRO_NAMES)


def open_table(file: TextFile) -> Export:
    """The recording in one text file.

    Raises:
        InputError: no table with a time and an accelerometer; acceleration without gravity only.
    """
    export = read_header(file)
    if not export.has("acc"):
        raise InputError(
            f"{file.label}: holds the gyroscope of a {export.format} export and no accelerometer; "
            "give the folder or zip that has both files"
        )
    return export


def read_header(file: TextFile) -> Export:
    """What one text file holds: a recording, or one sensor of it.

    Raises:
        InputError: no table with a time and a sensor; acceleration without gravity only.
    """
    best = ""
    for table in candidates(file):
        for layout in _LAYOUTS:
            export = layout(table)
            if export:
                return export
        refuse_gravity_free(table)
        if len(table.columns) > len(best.split(",")):
            names = ", ".join(c.name for c in table.columns)
            best = f"line {table.header_line} has: {names}"
    lines = min(HEADER_LINES, len(file.lines("latin-1", HEADER_LINES)))
    raise InputError(
        f"{file.label}: no row names a time column and three accelerometer columns in its first "
        f"{lines} lines. Expected names such as time,ax,ay,az,gx,gy,gz or "
        f"'Time (s),Acceleration x (m/s^2),...'. {best}"
    )


def refuse_gravity_free(table: Table) -> None:
    """Raise InputError if the table's only acceleration is one without gravity."""
    for pattern, cure in _GRAVITY_FREE.items():
        if table.axes(pattern):
            _refuse_gravity_free(table, cure)


def _refuse_gravity_free(table: Table, cure: str) -> NoReturn:
    raise InputError(
        f"{table.file.label}:{table.header_line}: has acceleration without gravity only (user or "
        "linear acceleration). Its direction relative to gravity is lost and cannot be put back: "
        f"{cure}."
    )


def _sensorlog(table: Table) -> Export | None:
    """SensorLog for iPhone and Apple Watch: the user chooses the columns; g, rad/s, Apple's sign.

    Source: headers of exported files in public repositories; `motion*` are Core Motion's device
    motion, whose acceleration with gravity is the sum of user acceleration and gravity.
    """
    user, gravity = table.axes("motionuseracceleration{}"), table.axes("motiongravity{}")
    raw = table.axes("accelerometeracceleration{}")
    if not (user or (raw and raw[0].unit == "g")):
        return None
    motion_gyro, raw_gyro = table.axes("motionrotationrate{}"), table.axes("gyrorotation{}")
    motion_time = table.named("motiontimestampsincereboot")
    raw_time = table.named("accelerometertimestampsincereboot")
    if user and gravity:
        sensors = [(vector("acc", user), user), (vector("acc", gravity), gravity)]
        time, gyro = motion_time or raw_time, motion_gyro or raw_gyro
    elif raw:
        sensors = [(vector("acc", raw), raw)]
        time, gyro = raw_time or motion_time, raw_gyro or motion_gyro
    else:
        _refuse_gravity_free(table, _GRAVITY_FREE["motionuseracceleration{}"])
    if gyro:
        sensors.append((vector("gyro", gyro), gyro))
    written = table.named("loggingtime") if time is None else None
    time = time or written or table.named(*_TIME_NAMES)
    if time is None:
        raise InputError(
            f"{table.file.label}:{table.header_line}: no time. Switch on loggingTime or the "
            "timestamp of the accelerometer or device motion in SensorLog's settings."
        )
    parts = (part(table, time, tuple(sensors), "s", written=written is not None),)
    return Export("SensorLog (iOS)", parts, sign=IOS)


def _sensor_logger(table: Table) -> None:
    """One file of a Sensor Logger export says neither what it measures nor with which sign."""
    if table.named("secondselapsed") and (table.axes("{}") or table.axes("gravity{}")):
        raise InputError(
            f"{table.file.label}: is one file of a Sensor Logger export. Which sensor it is, and "
            "with which sign and unit, stands in its name and in Metadata.csv: give the export's "
            "zip or folder."
        )


def _polar(table: Table) -> Export | None:
    """Polar Sensor Logger: one file a sensor, semicolons, nanoseconds since 2000, mg and dps.

    Source: headers of exported files in public repositories. `X [G]` is the magnetometer's gauss.
    """
    time, axes = table.named("sensortimestamp"), table.axes("{}")
    if not time or not axes or axes[0].unit not in ("mg", "deg/s"):
        return None
    kind: Kind = "acc" if axes[0].unit == "mg" else "gyro"
    return _one_sensor("Polar Sensor Logger", table, time, axes, kind, "ns")


def _metabase(table: Table) -> Export | None:
    """MetaBase of MbientLab: one file a sensor; `epoc` and `timestamp` in its first versions.

    `elapsed` starts at 0 in each file, so that only the epoch is common to both files. Source:
    MbientLab's MetaBase for iOS and Android.
    """
    time, axes = table.named("epoch", "epoc"), table.axes("{}axis")
    if not time or not axes or axes[0].unit not in ("g", "deg/s"):
        return None
    kind: Kind = "acc" if axes[0].unit == "g" else "gyro"
    return _one_sensor("MetaBase", table, time, axes, kind, "ms")


def _one_sensor(
    name: str, table: Table, time: Column, axes: _Triple, kind: Kind, time_unit: str
) -> Export:
    return Export(name, (part(table, time, ((vector(kind, axes), axes),), time_unit),))


def _dot(table: Table) -> Export | None:
    """Movella (Xsens) DOT: a preamble, microseconds that wrap at 2^32, m/s^2 and deg/s.

    Source: title rows of a logger in a public repository built on Movella's SDK; units as third
    parties read them.
    """
    time = table.named("sampletimefine")
    if not time:
        return None
    acc, gyro = table.axes("acc{}"), table.axes("gyr{}")
    if not acc:
        refuse_gravity_free(table)
        raise InputError(
            f"{table.file.label}:{table.header_line}: has no Acc_X, Acc_Y, Acc_Z; "
            f"{_GRAVITY_FREE['freeacc{}']}"
        )
    sensors = [(vector("acc", acc, "m/s^2", why=DOCUMENTED), acc)]
    if gyro:
        sensors.append((vector("gyro", gyro, "deg/s", why=DOCUMENTED), gyro))
    return Export(
        "Movella DOT",
        (part(table, time, tuple(sensors), "us", wraps_at=2.0**32, time_why=DOCUMENTED),),
    )


def _witmotion(table: Table) -> Export | None:
    """WitMotion's PC software: tabs, a written time, the device's name in every row.

    Source: headers of exported files in public repositories, English and Chinese. The chip's own
    time is used where rows have one: the other is when the PC got them.
    """
    device = table.named("devicename", "设备名称")
    time = table.named("time", "时间")
    acc, gyro = acc_axes(table), gyro_axes(table)
    if not device or not time or not acc:
        return None
    chip = table.named("chiptime", "片上时间")
    if chip and _first_row_has(table, chip):
        time = chip
    sensors = tuple(s for s in (acc, gyro) if s)
    return Export("WitMotion", (part(table, time, sensors, written=True, device=device),))


def _first_row_has(table: Table, wanted: Column) -> bool:
    lines = table.file.lines(table.encoding, table.header_line + 1)[table.header_line :]
    cells = lines[0].split(table.delimiter) if lines else []
    return len(cells) > wanted.index and ":" in cells[wanted.index]


def _openlog(table: Table) -> Export | None:
    """SparkFun OpenLog Artemis: mg and deg/s (its SENSOR_UNITS.md); microseconds that wrap at
    2^32 if they are logged, else a clock of hundredths."""
    clock, micros = table.named("rtctime"), table.named("micros")
    acc, gyro = table.axes("a{}"), table.axes("g{}")
    if not clock or not acc:
        return None
    sensors = [(vector("acc", acc, "mg", why=DOCUMENTED), acc)]
    if gyro:
        sensors.append((vector("gyro", gyro, "deg/s", why=DOCUMENTED), gyro))
    timed = (
        part(table, micros, tuple(sensors), "us", wraps_at=2.0**32)
        if micros
        else part(table, clock, tuple(sensors), written=True)
    )
    return Export("OpenLog Artemis", (timed,))


def _arduino(table: Table) -> Export | None:
    """Arduino's IMU_Capture sketch: g and deg/s without a time, a blank line after each capture.

    Source: the sketch's header row; its units and the library's 119 Hz are not verified.
    """
    if [c.name for c in table.columns if c.name] != ["aX", "aY", "aZ", "gX", "gY", "gZ"]:
        return None
    acc, gyro = table.axes("a{}"), table.axes("g{}")
    sensors = (
        (vector("acc", acc, "g", why=DOCUMENTED), acc),
        (vector("gyro", gyro, "deg/s", why=DOCUMENTED), gyro),
    )
    note = (
        f"the file has no time: its rows are taken to be {ARDUINO_RATE_HZ:g} Hz apart, the rate of "
        "the Arduino Nano 33 BLE Sense; if your board samples at another rate, write a column time"
    )
    timed = counted_part(table, sensors, ARDUINO_RATE_HZ)
    return Export("Arduino IMU_Capture", (timed,), notes=(note,))


def _edge_impulse(table: Table) -> Export | None:
    """Edge Impulse: the first column `timestamp` in ms, then the sensors' axes, units unstated.

    Source: github.com/edgeimpulse/example-data-collection-csv, README.
    """
    acc, gyro = table.axes("acc{}"), table.axes("gyr{}", "gyro{}")
    named = [c.name for c in table.columns[:4]]
    if named != ["timestamp", "accX", "accY", "accZ"]:
        return None
    sensors = [(vector("acc", acc), acc)]
    if gyro:
        sensors.append((vector("gyro", gyro), gyro))
    timed = part(table, table.columns[0], tuple(sensors))
    return Export("Edge Impulse CSV", (timed,), infers_units=True)


def _phyphox(table: Table) -> Export | None:
    """phyphox: 'Time (s)' and one or more sensors, each with its own times, padded with NaN.

    The sign is everyone's on iOS too. Source: DataExport.java of phyphox for Android and
    ExperimentSensorInput.swift (kG = -9.81) of phyphox for iOS.
    """
    times = [c for c in table.columns if c.name == "Time (s)"]
    acc, gyro = table.axes("acceleration{}"), table.axes("gyroscope{}")
    if not times or not (acc or gyro):
        return None
    if not acc:
        refuse_gravity_free(table)
    sensors: dict[Column, list[tuple[Vector, _Triple]]] = {}
    named: tuple[tuple[Kind, _Triple], ...] = (("acc", acc), ("gyro", gyro))
    for kind, axes in named:
        if axes:
            own_time = [c for c in times if c.index < axes[0].index] or times
            sensor = (vector(kind, axes), axes)
            sensors.setdefault(own_time[-1], []).append(sensor)
    return Export("phyphox", tuple(part(table, t, tuple(s)) for t, s in sensors.items()))


def _by_name(table: Table) -> Export | None:
    """Any table with a time and an accelerometer that are named as most are."""
    acc, gyro, time = acc_axes(table), gyro_axes(table), table.named(*_TIME_NAMES)
    if not acc or not time:
        return None
    unit = "s" if time.unit is None and "second" in time.base else None
    sensors = tuple(s for s in (acc, gyro) if s)
    name = ""
    if acc[1][0].base == "gfx":
        name = "Physics Toolbox"
    elif time.name == "Timestamp (us)" and acc[1][0].name == "Accelerometer X (g)":
        name = "x-IMU3"
    return Export(name, (part(table, time, sensors, unit),))


def _named_axes(
    table: Table, kind: Kind, names: dict[str, str | None]
) -> tuple[Vector, _Triple] | None:
    for pattern, implied in names.items():
        triple = table.axes(pattern)
        if triple:
            return vector(kind, triple, implied), triple
    return None


_LAYOUTS: tuple[Callable[[Table], Export | None], ...] = (
    _sensor_logger,
    _sensorlog,
    _polar,
    _metabase,
    _dot,
    _witmotion,
    _openlog,
    _arduino,
    _edge_impulse,
    _phyphox,
    _by_name,
)
