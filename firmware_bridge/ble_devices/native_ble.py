"""Wearables that speak our own format over GATT: ../PROTOCOL.md."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from firmware_bridge import native
from firmware_bridge.errors import AuraError
from firmware_bridge.link import Advert, BleDevice, Decoder, Deliver, GattClient

_STOP_TIMEOUT_S = 2.0


class NativeSession:
    """A device that streams our format."""

    def __init__(
        self, client: GattClient, decoder: native.NativeDecoder, description: native.Description
    ) -> None:
        self._client = client
        self.decoders: Mapping[str, Decoder] = {"imu": decoder}
        self.details = str(description)
        self.nominal_hz = description.rate_hz

    async def stop(self) -> None:
        """Tell the device to stop; a link that is gone already is no matter."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._client.write_gatt_char(native.CONTROL_UUID, native.STOP, response=True)
                await self._client.stop_notify(native.DATA_UUID)


async def open_native(client: GattClient, deliver: Deliver) -> NativeSession:
    """Read the description, subscribe, start.

    Raises:
        AuraError: the description cannot be understood.
    """
    message = bytes(await client.read_gatt_char(native.DESCRIPTION_UUID))
    description = native.decode_description(message)
    if isinstance(description, str):
        raise AuraError(
            f"the device's description ({len(message)} bytes) is not as firmware_bridge/PROTOCOL.md"
            f" says: {description}"
        )
    decoder = native.NativeDecoder(description)

    def notified(_: Any, data: bytearray) -> None:
        packets = decoder.feed(bytes(data))
        if packets:
            deliver(packets)

    await client.start_notify(native.DATA_UUID, notified)
    await client.write_gatt_char(native.CONTROL_UUID, native.START, response=True)
    return NativeSession(client, decoder, description)


def _matches(advert: Advert) -> bool:
    return native.SERVICE_UUID in advert.service_uuids


DEVICE = BleDevice(
    name="aura-edge firmware",
    matches=_matches,
    open=open_native,
    has_gyro=True,
    verified="our own C encoder, both ways",
)
