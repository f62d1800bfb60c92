"""Nordic Thingy:52: the raw characteristic of its motion service.

Source: NordicSemiconductor/Nordic-Thingy52-FW @6ada0a9 `ble_tms.{h,c}`, `m_motion.c`.
"""

from __future__ import annotations

import struct

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
from firmware_bridge.errors import AuraError
from firmware_bridge.link import BleDevice, Deliver, GattClient, Packet
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS

MOTION_UUID = "ef680400-9b35-4933-9b10-52ffa9740042"
CONFIG_UUID = "ef680401-9b35-4933-9b10-52ffa9740042"
RAW_UUID = "ef680406-9b35-4933-9b10-52ffa9740042"
_ADVERTISED_UUID = "ef680100-9b35-4933-9b10-52ffa9740042"
"""Its configuration service, which it advertises."""

RATE_HZ = 50
"""Of the 5 to 200 Hz that it takes. A notification holds one sample, and 50 to 70 a second get
through (nordicsemi/Android-Nordic-Thingy #24); what more it measures is lost unseen, as nothing
counts samples."""

_RAW = struct.Struct("<9h")
_CONFIG = struct.Struct("<4HB")
_SI = np.repeat([ACC_UNITS_MPS2["g"] / 1024, GYRO_UNITS_RADS["deg/s"] / 32], 3)
"""Q6.10 and Q11.5."""


def motion_config(
    pedometer_ms: int, temperature_ms: int, compass_ms: int, motion_hz: int, wake_on_motion: int
) -> bytes:
    """What is written to the configuration characteristic."""
    return _CONFIG.pack(pedometer_ms, temperature_ms, compass_ms, motion_hz, wake_on_motion)


class ThingyDecoder(FrameDecoder):
    """A sample in each notification: acceleration, angular rate, magnetic field."""

    def _packets(self, data: bytes) -> list[Packet]:
        if len(data) != _RAW.size:
            raise UnreadableError("length")
        return [Packet("imu", np.array([_RAW.unpack(data)[:6]]) * _SI)]


async def open_stream(client: GattClient, deliver: Deliver) -> Streaming:
    """Subscribe, and set the rate; the rest of the device's configuration stays, and its own rate
    comes back when the stream stops.

    Raises:
        AuraError: the configuration is none of a Thingy:52; the device does not answer.
    """
    talk = Talk(client)
    decoder = ThingyDecoder()
    before = await talk.read(CONFIG_UUID)
    if len(before) != _CONFIG.size:
        raise AuraError(
            f"the motion configuration has {len(before)} bytes, expected {_CONFIG.size}: "
            "this is no Thingy:52, or its firmware is not Nordic's"
        )
    pedometer_ms, temperature_ms, compass_ms, _, wake_on_motion = _CONFIG.unpack(before)

    async def farewell() -> None:
        await talk.unlisten(RAW_UUID)
        await talk.write(CONFIG_UUID, before, response=True)

    await talk.listen(RAW_UUID, into(decoder, deliver))
    config = motion_config(pedometer_ms, temperature_ms, compass_ms, RATE_HZ, wake_on_motion)
    await talk.write(CONFIG_UUID, config, response=True)
    return Streaming({"imu": decoder}, f"acc and gyro {RATE_HZ} Hz", float(RATE_HZ), farewell)


DEVICE = BleDevice(
    "Nordic Thingy:52",
    any_of(named("Thingy"), offering(MOTION_UUID), offering(_ADVERTISED_UUID)),
    open_stream,
    has_gyro=True,
    verified="a captured packet",
)
