"""Boards with edge-ml's firmware (Nano 33 BLE Sense, Seeed XIAO nRF52840 Sense, Nicla Sense ME)
and OpenEarable 1. They say themselves what they send, in a scheme that is read first.

Source: edge-ml/EdgeML-Arduino `SensorManagerInterface.cpp` (scheme), `SensorProvider.cpp` (data),
`BLEPackets.h` (configuration); OpenEarable/open-earable README.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firmware_bridge.ble_devices.conversation import (
    FrameDecoder,
    Opener,
    Streaming,
    Talk,
    UnreadableError,
    any_of,
    by_first_byte,
    farewell_quietly,
    finite_packets,
    named,
    offering,
)
from firmware_bridge.errors import AuraError
from firmware_bridge.link import BleDevice, Decoder, Deliver, GattClient, Kind, Packet, Unwrapper
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS, TIME_UNITS_S

SERVICE_UUID = "34c2e3bb-34aa-11eb-adc1-0242ac120002"
DATA_UUID = "34c2e3bc-34aa-11eb-adc1-0242ac120002"
CONFIG_UUID = "34c2e3bd-34aa-11eb-adc1-0242ac120002"
SCHEME_UUID = "caa25cb8-7e1b-44f2-adc9-e8c06c9ced43"

RATE_HZ = 50.0
"""OpenEarable 1 does no more; Nicla Sense ME falls below it with two sensors on."""

_TYPES = "bBhHiIfd"
"""`struct` codes of the scheme's types 0 to 7."""

_UNITS = {
    "g": "g",
    "mg": "mg",
    "m/s^2": "m/s^2",
    "m/s²": "m/s^2",
    "dps": "deg/s",
    "deg/s": "deg/s",
    "°/s": "deg/s",
    "rad/s": "rad/s",
}
"""Unit as a board spells it -> as `samples` does."""

_HEADER = struct.Struct("<BBI")
_CONFIG = struct.Struct("<BfI")


def sensor_config(sensor: int, rate_hz: float, latency: int = 0) -> bytes:
    """What starts a sensor, or with a rate of 0 stops it."""
    return _CONFIG.pack(sensor, rate_hz, latency)


@dataclass(frozen=True)
class Component:
    """One value of a sensor."""

    code: str
    """Its type, as in `struct`."""

    group: str
    name: str
    unit: str


@dataclass(frozen=True)
class Sensor:
    """One sensor of a board."""

    number: int
    name: str
    components: tuple[Component, ...]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def text(self) -> str:
        size = self.byte()
        if self._at + size > len(self._data):
            raise IndexError
        self._at += size
        return self._data[self._at - size : self._at].decode("utf-8", "replace")


def parsed_scheme(data: bytes) -> list[Sensor]:
    """The sensors of a board.

    Raises:
        AuraError: the scheme cannot be read.
    """
    reader = _Reader(data)
    try:
        return [
            Sensor(
                reader.byte(),
                reader.text(),
                tuple(
                    Component(_TYPES[reader.byte()], reader.text(), reader.text(), reader.text())
                    for _ in range(reader.byte())
                ),
            )
            for _ in range(reader.byte())
        ]
    except IndexError:
        raise AuraError(
            f"the board's description of its sensors cannot be read ({len(data)} bytes); "
            "expected the scheme of edge-ml's firmware 1.2 or newer"
        ) from None


@dataclass(frozen=True)
class Stream:
    """Which values of a sensor's notifications are what."""

    sensor: int
    kind: Kind
    layout: struct.Struct
    columns: tuple[int, ...]
    si: tuple[float, ...]


_GROUPS = {"acc": ("ACC", ACC_UNITS_MPS2), "gyro": ("GYR", GYRO_UNITS_RADS)}
"""Quantity -> how its group's name begins, and its units."""


def streams(sensors: Sequence[Sensor], acc_unit: str | None = None) -> list[Stream]:
    """The streams that acceleration and angular rate come in: one if one sensor has both.

    Args:
        sensors: of the board.
        acc_unit: of the acceleration, where the board is known to be wrong about it.

    Raises:
        AuraError: there are no such sensors; a unit is not known.
    """
    found: dict[str, tuple[Sensor, list[tuple[int, float]]]] = {}
    for quantity, (prefix, units) in _GROUPS.items():
        for sensor in sensors:
            axes = [
                (i, _factor(acc_unit if quantity == "acc" and acc_unit else c.unit, units))
                for i, c in enumerate(sensor.components)
                if c.group.upper().startswith(prefix)
            ]
            if len(axes) == 3:
                found[quantity] = (sensor, axes)
                break
        else:
            names = ", ".join(sensor.name for sensor in sensors) or "none"
            raise AuraError(f"the board has no {quantity} sensor of three axes; it has: {names}")
    (acc_sensor, acc), (gyro_sensor, gyro) = found["acc"], found["gyro"]
    if acc_sensor is gyro_sensor:
        return [_stream(acc_sensor, "imu", acc + gyro)]
    return [_stream(acc_sensor, "acc", acc), _stream(gyro_sensor, "gyro", gyro)]


def _factor(unit: str, units: dict[str, float]) -> float:
    factor = units.get(_UNITS.get(unit.strip(), ""))
    if factor is None:
        raise AuraError(f"the board measures in {unit!r}, expected one of {', '.join(units)}")
    return factor


def _stream(sensor: Sensor, kind: Kind, axes: list[tuple[int, float]]) -> Stream:
    layout = struct.Struct("<" + "".join(c.code for c in sensor.components))
    columns, si = zip(*axes, strict=True)
    return Stream(sensor.number, kind, layout, columns, si)


class SchemeDecoder(FrameDecoder):
    """Notifications of one sensor: one sample each, its time in ms.

    The size byte is that of the values in some firmware, that of the notification in other, and
    anything on a Nicla, which leaves it uninitialised: the length of the notification decides.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._stamp_ms = Unwrapper(32, resets_below=1000)

    def _packets(self, data: bytes) -> list[Packet]:
        layout = self._stream.layout
        if len(data) < _HEADER.size + layout.size:
            raise UnreadableError("length")
        sensor, size, stamp_ms = _HEADER.unpack_from(data)
        if sensor != self._stream.sensor:
            raise UnreadableError("other sensor")
        if size not in (layout.size, layout.size + _HEADER.size):
            self.counts["size byte"] += 1
        with np.errstate(invalid="ignore"):  # signalling NaN
            raw = layout.unpack_from(data, _HEADER.size)
            values = np.array([[raw[i] for i in self._stream.columns]], np.float64)
        device_s = np.array([self._stamp_ms(stamp_ms) * TIME_UNITS_S["ms"]])
        with np.errstate(over="ignore"):  # a double may be as large as it likes
            values = values * np.array(self._stream.si)
        return finite_packets(self._stream.kind, values, device_s, self.counts)


def opener(acc_unit: str | None = None) -> Opener:
    """How one opens a board.

    Args:
        acc_unit: of the acceleration, where the board is known to be wrong about it.
    """

    async def open_streams(client: GattClient, deliver: Deliver) -> Streaming:
        talk = Talk(client)
        wanted = streams(parsed_scheme(await talk.read(SCHEME_UUID)), acc_unit)
        decoders = {stream.sensor: SchemeDecoder(stream) for stream in wanted}

        async def farewell() -> None:
            for stream in wanted:
                await talk.write(CONFIG_UUID, sensor_config(stream.sensor, 0.0), response=True)
            await talk.unlisten(DATA_UUID)

        await talk.listen(DATA_UUID, by_first_byte(decoders, deliver))
        try:
            for stream in wanted:
                await talk.write(CONFIG_UUID, sensor_config(stream.sensor, RATE_HZ), response=True)
        except BaseException:
            await farewell_quietly(farewell)
            raise
        by_kind: dict[str, Decoder] = {stream.kind: decoders[stream.sensor] for stream in wanted}
        return Streaming(by_kind, f"{' and '.join(by_kind)} {RATE_HZ:g} Hz", RATE_HZ, farewell)

    return open_streams


DEVICE = BleDevice(
    "edge-ml board",
    any_of(named("NANO-", "NICLA-", "Seeed XIAO-"), offering(SERVICE_UUID)),
    opener(),
    has_gyro=True,
    verified="layout of the firmware's code",
)
