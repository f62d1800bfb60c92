"""Movella DOT (formerly Xsens DOT).

Source: xsens/xsens_dot_server `bleHandler.js` (mode 20, control); clients of adamkewley/xdc (device
control) and pseudo-coder6371/Xsens_DOT_ESP32_BLE (mode 26).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from firmware_bridge.ble_devices.conversation import (
    FrameDecoder,
    Streaming,
    Talk,
    UnreadableError,
    finite_packets,
    float32s,
    into,
    named,
)
from firmware_bridge.errors import AuraError
from firmware_bridge.link import BleDevice, Deliver, GattClient, Packet, Unwrapper
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS, TIME_UNITS_S

DEVICE_CONTROL_UUID = "15171002-4947-11e9-8646-d663bd873d93"
CONTROL_UUID = "15172001-4947-11e9-8646-d663bd873d93"
LONG_UUID = "15172002-4947-11e9-8646-d663bd873d93"
MEDIUM_UUID = "15172003-4947-11e9-8646-d663bd873d93"

RATE_HZ = 60
"""The highest that it streams."""


@dataclass(frozen=True)
class Mode:
    """A payload that has acceleration with gravity and angular rate; the modes of orientation have
    acceleration without."""

    number: int
    uuid: str
    """That notifies it."""

    acc_at: int
    gyro_at: int


RATE_QUANTITIES = Mode(20, MEDIUM_UUID, acc_at=4, gyro_at=16)
CUSTOM_5 = Mode(26, LONG_UUID, acc_at=20, gyro_at=32)

_DEVICE_CONTROL_BYTES = 32
_RATE_AT = 24
_VISIT_RATE = 0x10
"""First byte of a write to the device control: which of its fields is meant."""


def measure(mode: Mode, on: bool) -> bytes:
    """The command that starts a mode, or stops it."""
    return bytes([1, on, mode.number])


def with_rate(device_control: bytes, rate_hz: int) -> bytes:
    """The device control with another rate.

    Raises:
        AuraError: it has another length.
    """
    if len(device_control) != _DEVICE_CONTROL_BYTES:
        raise AuraError(
            f"the DOT's device control has {len(device_control)} bytes, expected "
            f"{_DEVICE_CONTROL_BYTES}; update its firmware with Movella's app"
        )
    changed = bytearray(device_control)
    changed[0] = _VISIT_RATE
    struct.pack_into("<H", changed, _RATE_AT, rate_hz)
    return bytes(changed)


class DotDecoder(FrameDecoder):
    """A sample in each notification, its time in us."""

    def __init__(self, mode: Mode = RATE_QUANTITIES) -> None:
        super().__init__()
        self._mode = mode
        self._stamp_us = Unwrapper(32, resets_below=1_000_000)

    def _packets(self, data: bytes) -> list[Packet]:
        mode = self._mode
        if len(data) < mode.gyro_at + 12:
            raise UnreadableError("length")
        acc = float32s(data[mode.acc_at : mode.acc_at + 12]) * ACC_UNITS_MPS2["m/s^2"]
        gyro = float32s(data[mode.gyro_at : mode.gyro_at + 12]) * GYRO_UNITS_RADS["deg/s"]
        stamp_us = self._stamp_us(int.from_bytes(data[:4], "little"))
        device_s = np.array([stamp_us * TIME_UNITS_S["us"]])
        return finite_packets("imu", np.hstack([acc, gyro])[None], device_s, self.counts)


async def open_stream(client: GattClient, deliver: Deliver) -> Streaming:
    """Set the rate, subscribe, start.

    Raises:
        AuraError: its firmware is another; the device does not answer.
    """
    talk = Talk(client)
    mode = RATE_QUANTITIES
    decoder = DotDecoder(mode)

    async def farewell() -> None:
        await talk.write(CONTROL_UUID, measure(mode, on=False), response=True)
        await talk.unlisten(mode.uuid)

    control = with_rate(await talk.read(DEVICE_CONTROL_UUID), RATE_HZ)
    await talk.write(DEVICE_CONTROL_UUID, control, response=True)
    await talk.listen(mode.uuid, into(decoder, deliver))
    await talk.write(CONTROL_UUID, measure(mode, on=True), response=True)
    return Streaming({"imu": decoder}, f"acc and gyro {RATE_HZ} Hz", float(RATE_HZ), farewell)


DEVICE = BleDevice(
    "Movella DOT",
    named("Xsens DOT", "Movella DOT"),
    open_stream,
    has_gyro=True,
    verified="layout of the vendor's code",
)
