"""Edge Impulse's data acquisition format as JSON.

Source: docs.edgeimpulse.com/reference/data-acquisition-format: `payload` has `interval_ms`,
`sensors` (name and units of each column) and `values` (one list a sample). The signature is not
checked: it proves who recorded, not what.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.formats.export import Blocks, Export, Part
from edge.formats.files import TextFile
from edge.formats.headers import acc_axes, gyro_axes, refuse_gravity_free
from edge.formats.table import BLOCK_ROWS, Column, Table, column, known_unit
from firmware_bridge.errors import InputError

MAX_JSON_BYTES = 64 << 20
"""A JSON document is read as a whole and takes several times its size in memory. At 50 Hz and six
axes this is about five hours."""


def open_json(file: TextFile) -> Export:
    """The recording in a JSON file.

    Raises:
        InputError: not this format, too large, no accelerometer with gravity; with the field.
    """
    payload = _object(file, "payload", _document(file).get("payload"))
    interval_ms = payload.get("interval_ms")
    if not isinstance(interval_ms, int | float) or not 0 < interval_ms < 1e6:
        raise InputError(
            f"{file.label}: payload.interval_ms is {_shown(interval_ms)}, expected the "
            "milliseconds between two samples"
        )
    table = Table(file, "utf-8-sig", ",", 1, _columns(file, payload.get("sensors")))
    acc, gyro = acc_axes(table), gyro_axes(table)
    if not acc:
        refuse_gravity_free(table)
        names = ", ".join(c.name for c in table.columns)
        raise InputError(
            f"{file.label}: payload.sensors names no three accelerometer axes. Expected names such "
            f"as accX, accY, accZ, gyrX, gyrY, gyrZ; it has: {names}"
        )
    values = _values(file, payload.get("values"), len(table.columns))
    sensors = tuple(s for s in (acc, gyro) if s)
    wanted = [c.index for _, triple in sensors for c in triple]

    def read(notes: list[str]) -> Blocks:
        for start in range(0, len(values), BLOCK_ROWS):
            rows = values[start : start + BLOCK_ROWS, wanted]
            yield np.column_stack([(start + np.arange(len(rows))) * float(interval_ms), rows])

    timed = Part(file.label, "interval_ms", "ms", tuple(v for v, _ in sensors), read)
    return Export("Edge Impulse JSON", (timed,), infers_units=True)


def _document(file: TextFile) -> dict[str, Any]:
    text = file.head(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise InputError(
            f"{file.label}: larger than the {MAX_JSON_BYTES >> 20} MiB that are read of JSON; "
            "export the recording as CSV"
        )
    try:
        return _object(file, "the document", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.label}: not valid JSON ({error}); export it again") from None


def _object(file: TextFile, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(
            f"{file.label}: {name} is {_shown(value)}, expected an object with "
            "payload.interval_ms, .sensors and .values (Edge Impulse's data acquisition format)"
        )
    return value


def _columns(file: TextFile, sensors: object) -> tuple[Column, ...]:
    if not isinstance(sensors, list) or not sensors:
        raise InputError(f"{file.label}: payload.sensors is {_shown(sensors)}, expected a list")
    columns = []
    for i, sensor in enumerate(sensors):
        name, units = (
            (sensor.get("name"), sensor.get("units")) if isinstance(sensor, dict) else (None, None)
        )
        if not isinstance(name, str) or not name or not isinstance(units, str | None):
            raise InputError(
                f"{file.label}: payload.sensors[{i}] is {_shown(sensor)}, expected a name and units"
            )
        named = column(i, name)
        columns.append(Column(i, named.name, named.base, known_unit(units) or named.unit))
    return tuple(columns)


def _values(file: TextFile, values: object, n_columns: int) -> NDArray[np.float64]:
    if not isinstance(values, list):
        raise InputError(f"{file.label}: payload.values is {_shown(values)}, expected a list")
    for i, row in enumerate(values):
        if (
            not isinstance(row, list)
            or len(row) != n_columns
            or not all(isinstance(v, int | float | None) for v in row)
        ):
            raise InputError(
                f"{file.label}: payload.values[{i}] is {_shown(row)}, expected {n_columns} "
                "numbers, one for each of payload.sensors"
            )
    try:
        return np.array(values, dtype=np.float64).reshape(-1, n_columns)
    except OverflowError:
        raise InputError(f"{file.label}: payload.values holds a number beyond 1e308") from None


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
