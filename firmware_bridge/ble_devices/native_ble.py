"""Wearables that speak our own format over GATT (../PROTOCOL.md)."""

from __future__ import annotations

from firmware_bridge import native
from firmware_bridge.ble_devices.conversation import (
    Streaming,
    Talk,
    farewell_quietly,
    into,
    offering,
)
from firmware_bridge.errors import AuraError
from firmware_bridge.link import BleDevice, Deliver, GattClient


async def open_native(client: GattClient, deliver: Deliver) -> Streaming:
    """Read the description, subscribe, start.

    Raises:
        AuraError: the description cannot be understood; the device does not answer.
    """
    talk = Talk(client)
    message = await talk.read(native.DESCRIPTION_UUID)
    description = native.decode_description(message)
    if isinstance(description, str):
        raise AuraError(
            f"the device's description ({len(message)} bytes) is not as firmware_bridge/PROTOCOL.md"
            f" says: {description}"
        )
    decoder = native.NativeDecoder(description)

    async def farewell() -> None:
        await talk.write(native.CONTROL_UUID, native.STOP, response=True)
        await talk.unlisten(native.DATA_UUID)

    await talk.listen(native.DATA_UUID, into(decoder, deliver))
    try:
        await talk.write(native.CONTROL_UUID, native.START, response=True)
    except BaseException:
        await farewell_quietly(farewell)
        raise
    kind = "imu" if description.gyro_scale else "acc"
    return Streaming({kind: decoder}, str(description), description.rate_hz, farewell)


DEVICE = BleDevice(
    "aura-edge firmware",
    offering(native.SERVICE_UUID),
    open_native,
    has_gyro=True,
    verified="our own C encoder, both ways",
)
