"""WitMotion's Bluetooth 5 sensors (WT901BLE, BWT901BLE5.0, WT9011DCL).

Source: WITMOTION/WitBluetooth_BWT901BLE5_0 @9efaab0, `device_model.py`, `Bwt901bleResolver.java`;
registers WITMOTION/WitStandardProtocol_JY901 `REG.h`.
"""

from __future__ import annotations

import asyncio

import numpy as np

from firmware_bridge.ble_devices.conversation import (
    Streaming,
    Talk,
    any_of,
    into,
    named,
    offering,
)
from firmware_bridge.link import BleDevice, Counts, Deliver, GattClient, Packet
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS

# The base is the vendor's own: it ends in 9a34fb, not in the 9b34fb of 16-bit UUIDs.
SERVICE_UUID = "0000ffe5-0000-1000-8000-00805f9a34fb"
NOTIFY_UUID = "0000ffe4-0000-1000-8000-00805f9a34fb"
WRITE_UUID = "0000ffe9-0000-1000-8000-00805f9a34fb"

FRAME_BYTES = 20
_START = 0x55
_SAMPLE, _REGISTERS = 0x61, 0x71

UNLOCK = bytes.fromhex("ffaa6988b5")
RATE_HZ = 100
"""Half of what the sensor can do: how many frames a second get over BLE is not documented."""

SET_RATE = bytes.fromhex("ffaa030900")
"""Holds until the sensor is switched off, as no save follows."""

_BETWEEN_COMMANDS_S = 0.1
"""The vendor's pause between the commands."""

_SI = np.repeat([ACC_UNITS_MPS2["g"] * 16 / 32768, GYRO_UNITS_RADS["deg/s"] * 2000 / 32768], 3)


class WitDecoder:
    """Frames of 20 bytes, wherever notifications begin and end. There is no stamp, no counter and
    no checksum: a frame is what starts like one."""

    def __init__(self) -> None:
        self.counts: Counts = Counts()
        self._left = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Decode what one notification brought; the samples of several frames in one packet."""
        buffer = self._left + data
        samples: list[bytes] = []
        at = 0
        while at < len(buffer):
            start = _next_start(buffer, at)
            if start > at:
                self.counts["junk between frames"] += 1
            at = start
            if at + FRAME_BYTES > len(buffer):
                break
            if buffer[at + 1] == _SAMPLE:
                samples.append(buffer[at + 2 : at + FRAME_BYTES])
            at += FRAME_BYTES
        self._left = buffer[at:]
        if not samples:
            return []
        columns = np.frombuffer(b"".join(samples), "<i2").reshape(-1, 9)[:, :6]
        return [Packet("imu", columns * _SI)]


def _next_start(buffer: bytes, at: int) -> int:
    """Where the next frame begins, or may begin once more bytes are there."""
    while (at := buffer.find(_START, at)) >= 0:
        if at + 1 == len(buffer) or buffer[at + 1] in (_SAMPLE, _REGISTERS):
            return at
        at += 1
    return len(buffer)


async def open_stream(client: GattClient, deliver: Deliver) -> Streaming:
    """Subscribe, which starts the stream, and set the rate.

    Raises:
        AuraError: the device does not answer.
    """
    talk = Talk(client)
    decoder = WitDecoder()

    async def farewell() -> None:
        await talk.unlisten(NOTIFY_UUID)

    await talk.listen(NOTIFY_UUID, into(decoder, deliver))
    for command in (UNLOCK, SET_RATE):
        await talk.write(WRITE_UUID, command)
        await asyncio.sleep(_BETWEEN_COMMANDS_S)
    details = f"acc {RATE_HZ} Hz +-16 g, gyro {RATE_HZ} Hz +-2000 deg/s"
    return Streaming({"imu": decoder}, details, float(RATE_HZ), farewell)


DEVICE = BleDevice(
    "WitMotion",
    any_of(named("WT901", "BWT901"), offering(SERVICE_UUID)),
    open_stream,
    has_gyro=True,
    verified="layout of the vendor's code",
)
