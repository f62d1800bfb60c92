"""Recordings of several files: a folder, or the zip that an app writes.

Only files whose names the app's export has are read. A file that the recording does not need (a
magnetometer, the acceleration without gravity beside the one with it) is never opened.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal

from edge.formats.edge_impulse import open_json
from edge.formats.export import DOCUMENTED, Export, Kind, Part, part, vector
from edge.formats.files import Container, TextFile
from edge.formats.headers import open_table, read_header, refuse_gravity_free
from edge.formats.table import Column, Table, candidates
from firmware_bridge.errors import InputError

_METADATA_LINES = 2
_PHYPHOX_META = ("meta/time.csv", "meta/device.csv")
_PHYPHOX_NAMES = (
    "Accelerometer.csv",
    "Acceleration.csv",
    "Gyroscope.csv",
    "Raw Data.csv",
    "Linear Acceleration.csv",
    "Linear Accelerometer.csv",
)
_PAIRS = (
    ("*_ACC.txt", "*_GYRO.txt"),  # Polar Sensor Logger
    ("*Accelerometer*.csv", "*Gyroscope*.csv"),  # MetaBase
)
_GRAVITY_CURE = (
    "switch on Gravity beside Accelerometer (iOS) or Total Acceleration (Android) in Sensor Logger "
    "and record again"
)


def open_folder(container: Container) -> Export:
    """The recording in a folder or zip.

    Raises:
        InputError: no export that is known, several recordings, a part that is missing.
    """
    export = (
        _sensor_logger(container) or _ximu3(container) or _phyphox(container) or _pair(container)
    )
    if export:
        return export
    alone = [n for n in container.files if n.lower().endswith((".csv", ".txt", ".json"))]
    if container.is_zip and len(alone) == 1:
        file = container.files[alone[0]]
        return open_json(file) if alone[0].lower().endswith(".json") else open_table(file)
    kind = "a zip" if container.is_zip else "a folder"
    raise InputError(
        f"{container.label}: is {kind} without an export that is known. Give one recorded file, or "
        "the folder or zip that Sensor Logger, phyphox, Polar Sensor Logger, MetaBase or the "
        "x-IMU3 wrote, with the names that it gave to the files"
    )


@dataclass(frozen=True)
class _Metadata:
    """What Metadata.csv of Sensor Logger says, empty where it does not."""

    platform: str
    standardised: bool

    @property
    def is_apple(self) -> bool:
        return self.platform == "ios"


def _sensor_logger(container: Container) -> Export | None:
    """Sensor Logger: a file a sensor, columns z, y, x, Unix time and seconds of the recording.

    Source: github.com/tszheichoi/awesome-sensor-logger, UNITS.md, CROSSPLATFORM.md,
    COORDINATES.md. Unless units and frames are standardised, iOS has the opposite sign of Android.
    """
    found = {
        name: table
        for name in _SENSOR_LOGGER_NAMES
        if (file := container.named(name)) and (table := _sensor_logger_table(file))
    }
    if not found:
        return None
    metadata = _metadata(container)
    gyro = found.get("Gyroscope.csv") or found.get("GyroscopeUncalibrated.csv")
    notes: list[str] = []
    parts = _sensor_logger_acc(container, found, metadata)
    if "WristMotion.csv" in found and not any("WristMotion" in p.label for p in parts):
        notes.append(
            "the phone is replayed; for the watch give a folder or zip that holds WristMotion.csv "
            "and Metadata.csv alone"
        )
    if gyro and not any(v.kind == "gyro" for p in parts for v in p.vectors):
        parts.append(_xyz_part(gyro, "gyro", "rad/s"))
    turned = metadata.is_apple and not metadata.standardised
    platform = {"ios": " (iOS", "android": " (Android"}.get(metadata.platform, " (platform unknown")
    platform += ", standardised)" if metadata.standardised else ")"
    return Export(f"Sensor Logger{platform}", tuple(parts), -1 if turned else 1, notes=tuple(notes))


_SENSOR_LOGGER_NAMES = (
    "TotalAcceleration.csv",
    "Accelerometer.csv",
    "Gravity.csv",
    "AccelerometerUncalibrated.csv",
    "Gyroscope.csv",
    "GyroscopeUncalibrated.csv",
    "WristMotion.csv",
)


def _sensor_logger_table(file: TextFile) -> Table | None:
    return next(
        (
            table
            for table in candidates(file)
            if table.named("secondselapsed") and (table.axes("{}") or table.axes("gravity{}"))
        ),
        None,
    )


def _sensor_logger_acc(
    container: Container, found: dict[str, Table], metadata: _Metadata
) -> list[Part]:
    """The parts that make up the acceleration with gravity, best first.

    Raises:
        InputError: there is none; or its sign is not known.
    """
    if total := found.get("TotalAcceleration.csv"):  # Android alone writes it
        return [_xyz_part(total, "acc", "m/s^2")]
    user, gravity = found.get("Accelerometer.csv"), found.get("Gravity.csv")
    raw, wrist = found.get("AccelerometerUncalibrated.csv"), found.get("WristMotion.csv")
    if not metadata.platform and ((user and gravity) or raw or wrist):
        raise InputError(
            f"{container.label}: Metadata.csv is missing or does not name the platform. iOS and "
            "Android report acceleration with opposite signs: put the export's Metadata.csv beside "
            "the other files."
        )
    apple_g = "g" if metadata.is_apple and not metadata.standardised else "m/s^2"
    if user and gravity:
        return [_xyz_part(user, "acc", "m/s^2"), _xyz_part(gravity, "acc", "m/s^2")]
    if raw:
        return [_xyz_part(raw, "acc", apple_g)]
    if wrist:
        return [_wrist_part(wrist, "m/s^2" if metadata.standardised else "g")]
    if user:
        raise InputError(
            f"{user.file.label}: has acceleration without gravity only. Its direction relative to "
            f"gravity is lost and cannot be put back: {_GRAVITY_CURE}."
        )
    raise InputError(
        f"{container.label}: a Sensor Logger export without an accelerometer; {_GRAVITY_CURE}"
    )


def _xyz_part(table: Table, kind: Kind, unit: str) -> Part:
    what = vector(kind, table.axes("{}"), unit, table.file.name, DOCUMENTED)
    return part(table, _elapsed(table), ((what, table.axes("{}")),), "s")


def _wrist_part(table: Table, unit: str) -> Part:
    sensors: list[tuple[Kind, str, str]] = [
        ("acc", "acceleration{}", unit),
        ("acc", "gravity{}", unit),
        ("gyro", "rotationrate{}", "rad/s"),
    ]
    vectors = []
    for kind, pattern, own_unit in sensors:
        axes = table.axes(pattern)
        if not axes:
            raise InputError(
                f"{table.file.label}:{table.header_line}: no columns "
                f"{', '.join(pattern.format(a) for a in 'XYZ')}; export the recording again"
            )
        label = f"{table.file.name} {axes[0].name}.."
        vectors.append((vector(kind, axes, own_unit, label, DOCUMENTED), axes))
    return part(table, _elapsed(table), tuple(vectors), "s")


def _elapsed(table: Table) -> Column:
    column = table.named("secondselapsed")
    assert column is not None  # what tells the format
    return column


def _metadata(container: Container) -> _Metadata:
    file = container.named("Metadata.csv")
    if file is None:
        return _Metadata("", False)
    rows = list(csv.reader(file.lines(file.encoding(), _METADATA_LINES)))
    values = dict(zip(*rows, strict=False)) if len(rows) == _METADATA_LINES else {}
    return _Metadata(
        values.get("platform", "").strip().lower(),
        values.get("standardisation", "").strip().lower() == "true",
    )


def _ximu3(container: Container) -> Export | None:
    """The folder of an x-IMU3: Inertial.csv has both sensors (github.com/xioTechnologies)."""
    file = container.named("Inertial.csv")
    return open_table(file) if file else None


def _phyphox(container: Container) -> Export | None:
    """phyphox: a file a set of sensors; a folder `meta` marks the export.

    Raises:
        InputError: no accelerometer with gravity.
    """
    marked = container.named(*_PHYPHOX_META) is not None
    names = [
        name
        for name in container.files
        if "/" not in name and name.endswith(".csv") and (marked or name in _PHYPHOX_NAMES)
    ]
    exports, without_gravity = [], None
    for name in names:
        for table in candidates(container.files[name]):
            if any(c.name == "Time (s)" for c in table.columns):
                linear = table.axes("linearacceleration{}") and not table.axes("acceleration{}")
                if linear:
                    without_gravity = table
                elif table.axes("acceleration{}") or table.axes("gyroscope{}"):
                    exports.append(read_header(container.files[name]))
                break
    if not any(e.has("acc") for e in exports) and without_gravity:
        refuse_gravity_free(without_gravity)
    return _joined(container, exports) if exports else None


def _pair(container: Container) -> Export | None:
    """Polar Sensor Logger and MetaBase: an accelerometer's file and a gyroscope's."""
    for patterns in _PAIRS:
        acc, gyro = (_matching(container.files, pattern) for pattern in patterns)
        if acc or gyro:
            files = [container.files[name] for name in (*acc, *gyro)]
            return _joined(container, [read_header(file) for file in files])
    return None


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    return sorted(n for n in names if fnmatchcase(PurePosixPath(n).name, pattern))


def _joined(container: Container, exports: list[Export]) -> Export:
    """One recording of the files of its sensors, the accelerometer's first."""
    kinds: tuple[tuple[Kind, Literal["accelerometer", "gyroscope"]], ...] = (
        ("acc", "accelerometer"),
        ("gyro", "gyroscope"),
    )
    for kind, sensor in kinds:
        having = [e for e in exports if e.has(kind)]
        if len(having) > 1:
            names = ", ".join(PurePosixPath(e.parts[0].label).name for e in having)
            raise InputError(
                f"{container.label}: holds {len(having)} {sensor} files ({names}); give a folder "
                "with the files of one recording"
            )
    exports = sorted(exports, key=lambda e: not e.has("acc"))
    if not exports[0].has("acc"):
        raise InputError(
            f"{container.label}: holds the gyroscope of a {exports[0].format} export and no "
            "accelerometer; put the accelerometer's file beside it"
        )
    return replace(exports[0], parts=tuple(p for e in exports for p in e.parts))
