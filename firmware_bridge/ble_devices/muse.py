"""InteraXon Muse headbands (2016, 2, S): their accelerometer and gyroscope.

Source: alexandrebarachant/muse-lsl `muselsl/muse.py`. The newer Muse S Athena speaks otherwise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from firmware_bridge.ble_devices.conversation import (
    FrameDecoder,
    Streaming,
    Talk,
    UnreadableError,
    any_of,
    into,
    named,
    offering,
)
from firmware_bridge.link import BleDevice, Decoder, Deliver, GattClient, Packet, Unwrapper
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS

SERVICE_UUID = "0000fe8d-0000-1000-8000-00805f9b34fb"
CONTROL_UUID = "273e0001-4c4d-454d-96be-f03bac821358"

_STREAMS: dict[Literal["acc", "gyro"], tuple[str, float]] = {
    "acc": ("273e000a-4c4d-454d-96be-f03bac821358", 0.0000610352 * ACC_UNITS_MPS2["g"]),
    "gyro": ("273e0009-4c4d-454d-96be-f03bac821358", 0.0074768 * GYRO_UNITS_RADS["deg/s"]),
}
"""Characteristic, and factor from raw values to m/s^2 or rad/s."""

RATE_HZ = 52.0
_PACKET_SAMPLES = 3
_PACKET_BYTES = 20


def command(text: str) -> bytes:
    """A command as it is written: its length, itself, and a line feed."""
    return bytes([len(text) + 1]) + text.encode("ascii") + b"\n"


PRESET, START, STOP = command("p21"), command("d"), command("h")


class MuseDecoder(FrameDecoder):
    """Notifications of one sensor: a counter of notifications, then three samples, all of them with
    the most significant byte first."""

    def __init__(self, stream: Literal["acc", "gyro"]) -> None:
        super().__init__()
        self._stream: Literal["acc", "gyro"] = stream
        self._count = Unwrapper(16, resets_below=16)

    def _packets(self, data: bytes) -> list[Packet]:
        if len(data) != _PACKET_BYTES:
            raise UnreadableError("length")
        count = self._count(int.from_bytes(data[:2], "big"))
        values = np.frombuffer(data[2:], ">i2").reshape(_PACKET_SAMPLES, 3)
        si = _STREAMS[self._stream][1]
        return [Packet(self._stream, values * si, index=count * _PACKET_SAMPLES)]


async def open_stream(client: GattClient, deliver: Deliver) -> Streaming:
    """Subscribe and start. A Muse answers commands in words that no client waits for.

    Raises:
        AuraError: the device does not answer.
    """
    talk = Talk(client)
    decoders: dict[str, Decoder] = {stream: MuseDecoder(stream) for stream in _STREAMS}

    async def farewell() -> None:
        await talk.write(CONTROL_UUID, STOP, response=False)
        for uuid, _ in _STREAMS.values():
            await talk.unlisten(uuid)

    for stream, (uuid, _) in _STREAMS.items():
        await talk.listen(uuid, into(decoders[stream], deliver))
    for text in (PRESET, START):
        await talk.write(CONTROL_UUID, text, response=False)
    return Streaming(decoders, f"acc and gyro {RATE_HZ:g} Hz", RATE_HZ, farewell)


DEVICE = BleDevice(
    "Muse",
    any_of(named("Muse-"), offering(SERVICE_UUID)),
    open_stream,
    has_gyro=True,
    verified="layout of third-party clients",
)
