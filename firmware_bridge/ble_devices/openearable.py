"""OpenEarable 2, and what tells it from OpenEarable 1, which speaks as edge-ml's boards do.

Source: OpenEarable/open-earable-2 @5c4fd88 `sensor_service.{c,h}`, `openearable_common.h`,
`IMU.cpp`, `DFRobot_BMX160.cpp`; OpenEarable/open-earable-python `payload_parsers.py`.

Its acceleration is in m/s^2, though its own scheme says g, and clips at +-2 g. Firmware before
commit 3a70ef0 (May 2026) reports angular rates 8 times too low (issue #165), and nothing that it
sends says so.
"""

from __future__ import annotations

import struct

import numpy as np

from firmware_bridge.ble_devices import edge_ml
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
from firmware_bridge.link import BleDevice, Deliver, GattClient, Packet
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS, TIME_UNITS_S

CONFIG_UUID = "34c2e3be-34aa-11eb-adc1-0242ac120002"
DATA_UUID = "34c2e3bc-34aa-11eb-adc1-0242ac120002"
GENERATION_UUID = "45622512-6468-465a-b141-0b9b0f96b468"
"""Version of the hardware as text: "1.4.0", "2.0.1"."""

IMU = 0
_RATE_INDEX, RATE_HZ = 2, 100
"""The highest that the firmware streams over BLE; indices 0 to 5 are 25 to 800 Hz."""

_STREAM, _OFF = 1, 0
_HEADER = struct.Struct("<BBQ")
_SAMPLE_BYTES = 36
_STEP = struct.Struct("<H")


def config(stream: bool) -> bytes:
    """What starts the IMU's stream, or stops it."""
    return bytes([IMU, _RATE_INDEX, _STREAM if stream else _OFF])


class OpenEarableDecoder(FrameDecoder):
    """Notifications of the IMU: the time of the first sample in us; one sample of acceleration,
    angular rate and magnetic field, or several and the time from one to the next."""

    def _packets(self, data: bytes) -> list[Packet]:
        if len(data) < _HEADER.size:
            raise UnreadableError("length")
        sensor, size, stamp_us = _HEADER.unpack_from(data)
        if sensor != IMU:
            raise UnreadableError("other sensor")
        content = data[_HEADER.size :]
        step_us = 0
        if len(content) != size:
            raise UnreadableError("length")
        if size > _SAMPLE_BYTES:
            (step_us,) = _STEP.unpack(content[-_STEP.size :])
            content = content[: -_STEP.size]
        if not content or len(content) % _SAMPLE_BYTES:
            raise UnreadableError("length")
        samples = float32s(content).reshape(-1, 3, 3)
        acc, gyro = samples[:, 0], samples[:, 1]
        values = np.hstack([acc * ACC_UNITS_MPS2["m/s^2"], gyro * GYRO_UNITS_RADS["deg/s"]])
        steps = np.arange(len(values), dtype=np.float64)
        device_s = (float(stamp_us) + step_us * steps) * TIME_UNITS_S["us"]
        return finite_packets("imu", values, device_s, self.counts)


async def open_stream(client: GattClient, deliver: Deliver) -> Streaming:
    """Subscribe and start.

    Raises:
        AuraError: the device does not answer.
    """
    talk = Talk(client)
    if (await talk.read(GENERATION_UUID)).startswith(b"1"):
        return await edge_ml.opener(acc_unit="m/s^2")(client, deliver)
    decoder = OpenEarableDecoder()

    async def farewell() -> None:
        await talk.write(CONFIG_UUID, config(stream=False), response=True)
        await talk.unlisten(DATA_UUID)

    await talk.listen(DATA_UUID, into(decoder, deliver))
    await talk.write(CONFIG_UUID, config(stream=True), response=True)
    details = f"acc {RATE_HZ} Hz +-2 g, gyro {RATE_HZ} Hz"
    return Streaming({"imu": decoder}, details, float(RATE_HZ), farewell)


DEVICE = BleDevice(
    "OpenEarable",
    named("OpenEarable"),
    open_stream,
    has_gyro=True,
    verified="layout of the firmware's code",
)
