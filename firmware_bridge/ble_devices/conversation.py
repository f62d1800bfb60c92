"""What the conversations with BLE devices have in common: waiting no longer than a device is given
to answer, passing notifications to a decoder, and the session that comes of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import AuraError
from firmware_bridge.link import Advert, Counts, Decoder, Deliver, GattClient, Kind, Packet

ANSWER_S = 5.0
"""What a device is given for each of its answers."""

Opener = Callable[[GattClient, Deliver], Awaitable["Streaming"]]
"""What `BleDevice.open` is."""

T = TypeVar("T")


class UnreadableError(Exception):
    """A notification cannot be understood; the message is the reason it is counted under."""


class FrameDecoder(ABC):
    """A decoder of a device whose every notification is a frame of its own."""

    def __init__(self) -> None:
        self.counts: Counts = Counts()

    def feed(self, data: bytes) -> list[Packet]:
        """Decode one notification."""
        try:
            return self._packets(data)
        except UnreadableError as problem:
            self.counts[str(problem)] += 1
            return []

    @abstractmethod
    def _packets(self, data: bytes) -> list[Packet]:
        """Decode one notification.

        Raises:
            UnreadableError: it makes no sense.
        """


def float32s(raw: bytes) -> NDArray[np.float64]:
    """(n,) of n little-endian float32; signalling NaN become quiet without a word."""
    with np.errstate(invalid="ignore"):
        return np.frombuffer(raw, "<f4").astype(np.float64)


def finite_packets(
    kind: Kind, values: NDArray[np.float64], device_s: NDArray[np.float64], counts: Counts
) -> list[Packet]:
    """The samples as a packet; those that are not finite are counted and left out."""
    good = np.isfinite(values).all(axis=1)
    if good.all():
        return [Packet(kind, values, device_s)]
    counts["not finite"] += int((~good).sum())
    return [Packet(kind, values[good], device_s[good])] if good.any() else []


async def within(answer: Awaitable[T], what: str) -> T:
    """The device's answer.

    Args:
        answer: what is waited for.
        what: the same, in words: "take the subscription".

    Raises:
        AuraError: it did not come in `ANSWER_S`.
    """
    try:
        return await asyncio.wait_for(answer, ANSWER_S)
    except TimeoutError:
        raise AuraError(
            f"the sensor did not {what} within {ANSWER_S:g} s; "
            "bring it nearer, or switch it off and on, and try again"
        ) from None


class Talk:
    """A GATT client that waits for no answer longer than `ANSWER_S`.

    Its methods raise AuraError where the device does not answer in time; what else the client
    raises passes through.
    """

    def __init__(self, client: GattClient) -> None:
        self._client = client

    async def read(self, uuid: str) -> bytes:
        """Read a characteristic."""
        return bytes(await within(self._client.read_gatt_char(uuid), f"let {uuid} be read"))

    async def write(self, uuid: str, data: bytes, response: bool | None = None) -> None:
        """Write a characteristic."""
        writing = self._client.write_gatt_char(uuid, data, response=response)
        await within(writing, f"take a command on {uuid}")

    async def listen(self, uuid: str, heard: Callable[[bytes], None]) -> None:
        """Subscribe to a characteristic."""

        def callback(_: Any, data: bytearray) -> None:
            heard(bytes(data))

        await within(self._client.start_notify(uuid, callback), f"take a subscription to {uuid}")

    async def unlisten(self, uuid: str) -> None:
        """End a subscription."""
        await within(self._client.stop_notify(uuid), f"end the subscription to {uuid}")


def into(decoder: Decoder, deliver: Deliver) -> Callable[[bytes], None]:
    """A listener that decodes and delivers."""

    def heard(data: bytes) -> None:
        packets = decoder.feed(data)
        if packets:
            deliver(packets)

    return heard


def by_first_byte(
    decoders: Mapping[int, Decoder], deliver: Deliver, mask: int = 0xFF
) -> Callable[[bytes], None]:
    """A listener for a characteristic that several streams share, told apart by the first byte.

    What belongs to none of the decoders is passed over: other sensors of the device may be on.
    """

    def heard(data: bytes) -> None:
        decoder = decoders.get(data[0] & mask) if data else None
        if decoder is not None:
            into(decoder, deliver)(data)

    return heard


@dataclass
class Streaming:
    """A device that streams (`link.Session`)."""

    decoders: Mapping[str, Decoder]
    details: str
    nominal_hz: float
    farewell: Callable[[], Awaitable[None]]
    """Tells the device to stop."""

    async def stop(self) -> None:
        """Tell the device to stop.

        Raises:
            AuraError: it does not answer; given up after `ANSWER_S`.
        """
        await within(self.farewell(), "stop")


async def farewell_quietly(farewell: Callable[[], Awaitable[None]]) -> None:
    """Stop what was started before something else failed, whose error is the one to tell."""
    with suppress(Exception):
        await asyncio.wait_for(farewell(), ANSWER_S)


def named(*prefixes: str) -> Callable[[Advert], bool]:
    """Matches devices whose advertised name begins so, in whatever case."""
    lower = tuple(prefix.lower() for prefix in prefixes)

    def matches(advert: Advert) -> bool:
        return advert.name.strip().lower().startswith(lower)

    return matches


def offering(service_uuid: str) -> Callable[[Advert], bool]:
    """Matches devices that advertise a service."""

    def matches(advert: Advert) -> bool:
        return service_uuid in advert.service_uuids

    return matches


def any_of(*tests: Callable[[Advert], bool]) -> Callable[[Advert], bool]:
    """Matches devices that one of the tests matches."""

    def matches(advert: Advert) -> bool:
        return any(test(advert) for test in tests)

    return matches
