"""What decoders, clocks and links of live devices hand to each other.

    bytes -> Decoder -> Packet -> Clock (sample times) -> Merger (acc with gyro) -> Samples

A decoder knows the wire and nothing of time on the host; a link knows when bytes arrived and
nothing of what they mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["imu", "acc", "gyro"]
"""What a packet's columns are: both sensors together, or one of them alone."""


@dataclass(frozen=True)
class Packet:
    """Consecutive samples of one stream of a device, oldest first, not yet placed in time."""

    kind: Kind

    values: NDArray[np.float64]
    """(n, 6) ax ay az gx gy gz for "imu", else (n, 3); m/s^2 with gravity, and rad/s. n >= 1."""

    device_s: NDArray[np.float64] | None = None
    """(n,) when each sample was measured, in seconds of the device's clock since any epoch,
    unwrapped; None for a device that does not say. All streams of a device are of one clock."""

    index: int | None = None
    """Running number of the first sample, lost ones counted, unwrapped; None for a device that does
    not count."""


Counts = Counter[str]
"""What was wrong with what came: reason in a few words ("checksum", "length") -> how often."""


class Decoder(Protocol):
    """Bytes of one device -> packets. Holds the state of one connection."""

    counts: Counts

    def feed(self, data: bytes) -> list[Packet]:
        """Take what one notification or read brought. Never raises: what cannot be understood is
        counted and left out."""
        ...


class Unwrapper:
    """Makes a counter of k bits run on past its end.

    Args:
        bits: of the counter.
        resets_below: a step back of no more than this is taken as what it is, a packet out of
            order; anything else back is a wrap.
    """

    def __init__(self, bits: int, resets_below: int = 0) -> None:
        self._period = 1 << bits
        self._back = resets_below
        self._last: int | None = None

    def __call__(self, value: int) -> int:
        """The same count without the wrap: the nearest one ahead of the last."""
        if self._last is None:
            self._last = value
            return value
        ahead = (value - self._last) % self._period
        if self._period - ahead <= self._back:
            return self._last - (self._period - ahead)
        self._last += ahead
        return self._last


@dataclass(frozen=True)
class Advert:
    """What a BLE device says of itself while it is looked for."""

    address: str
    name: str
    rssi_dbm: int | None
    service_uuids: frozenset[str]
    """Lower case, 128 bits, with hyphens."""


class GattClient(Protocol):
    """The part of `bleak.BleakClient` that a conversation uses. UUIDs are lower-case strings."""

    @property
    def mtu_size(self) -> int:
        """Bytes of an attribute packet; a notification holds 3 less."""
        ...

    async def read_gatt_char(self, char_specifier: str) -> bytearray:
        """Read a characteristic."""
        ...

    async def write_gatt_char(
        self, char_specifier: str, data: bytes, response: bool | None = None
    ) -> None:
        """Write a characteristic, with or without waiting for the device's word."""
        ...

    async def start_notify(
        self, char_specifier: str, callback: Callable[[Any, bytearray], None]
    ) -> None:
        """Subscribe."""
        ...

    async def stop_notify(self, char_specifier: str) -> None:
        """Unsubscribe."""
        ...


Deliver = Callable[[list[Packet]], None]
"""What a conversation calls, in the notification's own callback, with the packets it brought; the
link notes the time of the call."""


class Session(Protocol):
    """A device that streams."""

    decoders: Mapping[str, Decoder]
    """By name of the stream ("imu", or "acc" and "gyro"), for their counts."""

    details: str
    """What was agreed on, for people: "acc 52 Hz +-8 g, gyro 52 Hz +-2000 deg/s"."""

    nominal_hz: float
    """What the device was asked for, or says of itself; 0 where nothing is known."""

    async def stop(self) -> None:
        """Tell the device to stop. May fail as the link may be gone; never hangs."""
        ...


@dataclass(frozen=True)
class BleDevice:
    """A kind of device, and how one talks to it."""

    name: str
    """"Polar Verity Sense"."""

    matches: Callable[[Advert], bool]

    open: Callable[[GattClient, Deliver], Awaitable[Session]]
    """Start the stream on a connected client.

    Raises:
        AuraError: the device refuses, and why.
    """

    has_gyro: bool

    verified: str
    """What its decoder was checked against, such as "vendor test vectors" or "layout only"."""

    open_at: Callable[[float], Callable[[GattClient, Deliver], Awaitable[Session]]] | None = None
    """`open` at another rate, in Hz, than the usual one; None where none can be chosen. Opening
    raises `InputError` where the device has not that rate."""
