"""Movesense over its GATT SensorData Protocol: the IMU6 stream.

Source: movesense.com/docs/esw/gatt_sensordata_protocol; clients EvanKat/movesense_bleak
`movesense_class.py` and sensein/movesense-py `src/movensense/protocol.py` (payload and units).
"""

from __future__ import annotations

import asyncio
import struct

import numpy as np

from firmware_bridge.ble_devices.conversation import (
    FrameDecoder,
    Opener,
    Streaming,
    Talk,
    UnreadableError,
    any_of,
    finite_packets,
    float32s,
    into,
    named,
    offering,
    within,
)
from firmware_bridge.errors import AuraError
from firmware_bridge.link import BleDevice, Deliver, GattClient, Packet, Unwrapper
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS, TIME_UNITS_S

SERVICE_UUID = "34802252-7185-4d5d-b431-630e7050e8f0"
WRITE_UUID = "34800001-7185-4d5d-b431-630e7050e8f0"
NOTIFY_UUID = "34800002-7185-4d5d-b431-630e7050e8f0"
_ADVERTISED_UUID = "0000fdf3-0000-1000-8000-00805f9b34fb"

SUBSCRIBE, UNSUBSCRIBE = 1, 2
RESULT, DATA, DATA_PART2 = 1, 2, 3

REFERENCE = 99
"""Any byte but 0 names a subscription."""

RATE_HZ = 104
"""A packet of 8 samples fits one notification; those of 208 Hz do not."""

_PACKET_RATE_HZ = 13
"""Packets per second; samples in a packet are the sample rate over this."""

_SAMPLE_BYTES = 24
_LONGEST_BYTES = 2048
"""More than any packet of 833 Hz or less has (1542)."""

_STATUS = {
    404: "its firmware has no such stream; update it to 2.3 or newer",
    501: "its firmware has no such stream; update it to 2.3 or newer",
    503: "it is busy; disconnect other apps",
    507: "it has no memory left for a stream; disconnect other apps",
}


def subscribe_command(path: str, reference: int = REFERENCE) -> bytes:
    """The command that starts a stream."""
    return bytes([SUBSCRIBE, reference]) + path.encode("ascii")


def unsubscribe_command(reference: int = REFERENCE) -> bytes:
    """The command that ends it."""
    return bytes([UNSUBSCRIBE, reference])


class Imu6Decoder(FrameDecoder):
    """Data notifications: the time of the first sample in ms since the device was switched on,
    then all accelerations, then all angular rates.

    A packet larger than a notification comes in parts, and nothing in them says how many there are:
    what has not the length of a packet waits for the next notification, which either continues it
    or shows that it was one, of a length known from then on.

    Args:
        rate_hz: that was asked for.
        reference: of the subscription.
    """

    def __init__(self, rate_hz: int = RATE_HZ, reference: int = REFERENCE) -> None:
        super().__init__()
        self._period_s = 1.0 / rate_hz
        self._reference = reference
        self._stamp_ms = Unwrapper(32, resets_below=1000)
        self._packet_bytes = 4 + _SAMPLE_BYTES * max(1, rate_hz // _PACKET_RATE_HZ)
        self._waiting: bytes | None = None

    def _packets(self, data: bytes) -> list[Packet]:
        if len(data) < 2 or len(data) > _LONGEST_BYTES:
            raise UnreadableError("length")
        if data[0] == RESULT:
            return []
        if data[1] != self._reference or data[0] not in (DATA, DATA_PART2):
            raise UnreadableError("code")
        if data[0] == DATA:
            packets = self._completed()
            self._waiting = data[2:]
        else:
            packets = []
            if self._waiting is None:
                self._packet_bytes = 0  # what was taken for a packet was its first part
                raise UnreadableError("second part without the first")
            if len(self._waiting) + len(data) > _LONGEST_BYTES:
                self._waiting = None
                raise UnreadableError("length")
            self._waiting += data[2:]
        if len(self._waiting) == self._packet_bytes:
            packets += self._completed()
        return packets

    def _completed(self) -> list[Packet]:
        """What waited, to which nothing more comes."""
        payload, self._waiting = self._waiting, None
        if payload is None:
            return []
        if len(payload) <= 4 or (len(payload) - 4) % _SAMPLE_BYTES:
            self.counts["second part missing"] += 1
            return []
        self._packet_bytes = len(payload)
        (stamp_ms,) = struct.unpack_from("<I", payload)
        acc, gyro = float32s(payload[4:]).reshape(2, -1, 3)
        values = np.hstack([acc * ACC_UNITS_MPS2["m/s^2"], gyro * GYRO_UNITS_RADS["deg/s"]])
        first_s = self._stamp_ms(stamp_ms) * TIME_UNITS_S["ms"]
        device_s = first_s + self._period_s * np.arange(len(values), dtype=np.float64)
        return finite_packets("imu", values, device_s, self.counts)


def result_status(data: bytes) -> int:
    """Status of a result notification, in whichever byte order: newer firmware sends the least
    significant byte first, older its 507 the other way round."""
    little = int.from_bytes(data[2:4], "little")
    return little if 100 <= little <= 599 else int.from_bytes(data[2:4], "big")


def opener(rate_hz: int = RATE_HZ) -> Opener:
    """How one opens a Movesense sensor.

    Args:
        rate_hz: 13, 26, 52, 104, 208, 416 or 833.
    """

    async def open_stream(client: GattClient, deliver: Deliver) -> Streaming:
        talk = Talk(client)
        decoder = Imu6Decoder(rate_hz)
        decode = into(decoder, deliver)
        status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def heard(data: bytes) -> None:
            if data[:2] == bytes([RESULT, REFERENCE]) and len(data) >= 4 and not status.done():
                status.set_result(result_status(data))
            elif data[:2] == bytes([DATA, REFERENCE]) and not status.done():
                status.set_result(200)  # an answer may be lost; data is one
            decode(data)

        async def farewell() -> None:
            await talk.write(WRITE_UUID, unsubscribe_command())
            await talk.unlisten(NOTIFY_UUID)

        path = f"/Meas/IMU6/{rate_hz}"
        await talk.listen(NOTIFY_UUID, heard)
        await talk.write(WRITE_UUID, subscribe_command(path))
        answer = await within(status, f"answer the subscription to {path}")
        if answer not in (200, 201):
            why = _STATUS.get(answer, "unknown to this version")
            raise AuraError(f"the Movesense sensor refused {path} with status {answer}: {why}")
        return Streaming({"imu": decoder}, f"acc and gyro {rate_hz} Hz", float(rate_hz), farewell)

    return open_stream


DEVICE = BleDevice(
    "Movesense",
    any_of(named("Movesense"), offering(SERVICE_UUID), offering(_ADVERTISED_UUID)),
    opener(),
    has_gyro=True,
    verified="layout of third-party clients, not vendor data",
)
