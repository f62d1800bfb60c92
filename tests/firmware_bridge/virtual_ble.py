"""BLE wearables without hardware: bumble's peripherals behind bleak's own API.

    with Air() as air:
        sense = air.add(VeritySense(walk(60, 52)))
        ...  # the code under test, with backend=air.backend()
        sense.drop()

The air has a thread and an event loop of its own, as an operating system's Bluetooth has. Its radio
is ideal (bumble's LocalLink); what real ones add is made by the wearables: bursts, for they send
every 45 ms, and loss, for they leave some notifications out.

    python -m tests.firmware_bridge.virtual_ble

shows what `edge-run` does with them on a terminal, and

    python -m tests.firmware_bridge.virtual_ble verity strap-lossy -- --device ble:Strap --no-log

runs `edge-run` where these two wearables are, and says on stderr at the end what each was told.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import numpy as np
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bleak.uuids import normalize_uuid_str
from bumble.att import ATT_Error
from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData, BaseBumbleError
from bumble.device import Device, Peer
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.hci import Address
from bumble.host import Host
from bumble.link import LocalLink
from bumble.transport.common import AsyncPipeSink
from numpy.typing import NDArray

import edge.cli
import edge.source
from edge.recording import UnitOptions, open_recording
from firmware_bridge import native
from firmware_bridge.ble import Backend
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS, Samples
from tests.conftest import RECORDING, REPO, walk

BURST_S = 0.045
"""Between two connection events: what came together leaves together."""

_ANSWER_S = 20.0
_ADVERTISED_EVERY_MS = 20

T = TypeVar("T")


class Air:
    """A room with wearables in it, and the host's own radio."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.link = LocalLink()
        self.central: Device = None  # made in the loop it lives in
        self.wearables: dict[str, Wearable] = {}
        self.trouble: Exception | None = None
        """What the host's radio raises instead of working."""
        self._thread = threading.Thread(target=self._run, name="air", daemon=True)

    def __enter__(self) -> Air:
        self._thread.start()
        self.call(self._power_on())
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._power_off())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _power_on(self) -> None:
        self.central = self.node("host", "F0:F0:F0:F0:F0:F0")
        await self.central.power_on()

    async def _power_off(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the air, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_ANSWER_S)

    def node(self, name: str, address: str) -> Device:
        """One end of the radio."""
        controller = Controller(name, link=self.link, public_address=address)
        host = Host(controller, AsyncPipeSink(controller))
        return Device(name=name, address=Address(address), host=host)

    def add(self, wearable: Wearable) -> Wearable:
        """Switch a wearable on."""
        address = f"C0:00:00:00:00:{len(self.wearables) + 1:02X}"
        self.wearables[address] = wearable
        self.call(wearable.switch_on(self, address))
        return wearable

    def backend(self, mtu: int = 247) -> Backend:
        """bleak's way into this air."""
        scanner = type("AirScanner", (_AirScanner,), {"air": self})
        client = type("AirClient", (_AirClient,), {"air": self, "mtu": mtu})
        return Backend(scanner, client)


class _Caller:
    """Lets a coroutine of another event loop do things in the air."""

    air: Air

    async def _in_air(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.air.loop))
        except ATT_Error as error:
            raise BleakGATTProtocolError(error.error_code) from error
        except BaseBumbleError as error:
            raise BleakError(f"bumble: {error}") from error


class _AirScanner(_Caller, BaseBleakScanner):
    def __init__(
        self, callback: Any = None, service_uuids: Any = None, scanning_mode: Any = None, **_: Any
    ) -> None:
        super().__init__(callback, service_uuids)

    async def start(self) -> None:
        self.seen_devices = {}
        if self.air.trouble:
            raise self.air.trouble
        self._loop = asyncio.get_running_loop()
        await self._in_air(self._listen(True))

    async def stop(self) -> None:
        await self._in_air(self._listen(False))

    async def _listen(self, on: bool) -> None:
        central = self.air.central
        if on:
            central.on("advertisement", self._in_air_heard)
            await central.start_scanning(active=True)
        else:
            central.remove_listener("advertisement", self._in_air_heard)
            await central.stop_scanning()

    def _in_air_heard(self, advertisement: Any) -> None:
        self._loop.call_soon_threadsafe(self._heard, advertisement)

    def _heard(self, advertisement: Any) -> None:
        data, address = advertisement.data, str(advertisement.address).split("/")[0]
        name = data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME)
        uuids = [
            _uuid(uuid)
            for kind in (
                AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
                AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS,
            )
            for uuid in data.get(kind) or []
        ]
        rssi_dbm = self.air.wearables[address].rssi_dbm
        said = AdvertisementData(name, {}, {}, uuids, None, rssi_dbm, ())
        device = self.create_or_update_device(address, address, name, advertisement.address, said)
        self.call_detection_callbacks(device, said)


class _AirClient(_Caller, BaseBleakClient):
    mtu: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._link: Any = None
        self._subscriptions: dict[int, Callable[[bytes], None]] = {}

    @property
    def name(self) -> str:
        return self.address

    @property
    def is_connected(self) -> bool:
        return self._link is not None

    @property
    def mtu_size(self) -> int:
        return 23  # as on BlueZ, where only the characteristics know better

    async def connect(self, pair: bool, **_: Any) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                self.services = await self._in_air(self._connect())
        except TimeoutError:
            raise BleakDeviceNotFoundError(self.address) from None

    async def _connect(self) -> BleakGATTServiceCollection:
        self._link = await self.air.central.connect(Address(self.address))
        self._link.on("disconnection", self._in_air_dropped)
        peer = Peer(self._link)
        await peer.request_mtu(self.mtu)
        await peer.discover_all()
        services = BleakGATTServiceCollection()
        for service in peer.services:
            found = BleakGATTService(service, service.handle, _uuid(service.uuid))
            services.add_service(found)
            for characteristic in service.characteristics:
                services.add_characteristic(self._described(characteristic, found))
        return services

    def _described(self, characteristic: Any, service: BleakGATTService) -> BleakGATTCharacteristic:
        names = ("read", "write-without-response", "write", "notify", "indicate")
        bits = int(characteristic.properties) >> 1
        return BleakGATTCharacteristic(
            characteristic,
            characteristic.handle,
            _uuid(characteristic.uuid),
            [name for bit, name in enumerate(names) if bits >> bit & 1],  # type: ignore[misc]
            lambda: self._link.att_mtu - 3,
            service,
        )

    def _in_air_dropped(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._dropped)

    def _dropped(self) -> None:
        if self._link is not None:
            self._link = None
            if self._disconnected_callback:
                self._disconnected_callback()

    async def disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.remove_listener("disconnection", self._in_air_dropped)
            await self._in_air(link.disconnect())

    async def _ask(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Something that fails at once when the link drops."""
        if self._link is None:
            raise BleakError("Not connected")

        async def until_dropped() -> T:
            try:
                return await self._link.cancel_on_disconnection(work())
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # by the caller, not by the link
                raise BleakError("disconnected") from None

        return await self._in_air(until_dropped())

    async def read_gatt_char(self, characteristic: Any, **_: Any) -> bytearray:
        return bytearray(await self._ask(characteristic.obj.read_value))

    async def write_gatt_char(self, characteristic: Any, data: Any, response: bool) -> None:
        await self._ask(lambda: characteristic.obj.write_value(bytes(data), response))

    async def start_notify(self, characteristic: Any, callback: Any, **_: Any) -> None:
        def in_air_notified(value: bytes) -> None:
            self._loop.call_soon_threadsafe(callback, bytearray(value))

        self._subscriptions[characteristic.handle] = in_air_notified
        await self._ask(lambda: characteristic.obj.subscribe(in_air_notified))

    async def stop_notify(self, characteristic: Any) -> None:
        callback = self._subscriptions.pop(characteristic.handle)
        await self._ask(lambda: characteristic.obj.unsubscribe(callback))

    async def pair(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    async def unpair(self) -> None:
        raise NotImplementedError

    async def read_gatt_descriptor(self, *_: Any, **__: Any) -> bytearray:
        raise NotImplementedError

    async def write_gatt_descriptor(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError


def _uuid(uuid: Any) -> str:
    return normalize_uuid_str(uuid.to_hex_str("-"))


READ, WRITE = Characteristic.Properties.READ, Characteristic.Properties.WRITE
NOTIFY, INDICATE = Characteristic.Properties.NOTIFY, Characteristic.Properties.INDICATE


class Wearable:
    """What all wearables do: advertise, take commands, sample, send in bursts, drop.

    Args:
        name: advertised.
        motion: what it measures; the time of its first sample is when it is first told to start.
        loss: fraction of data notifications that it leaves out.
        ppm: how much its clock is fast.
        battery_percent: what its battery service says; no such service for None.
        advertised: UUIDs of services.
        rssi_dbm: at the host.
        mute: whether it takes its commands and sends nothing.
    """

    def __init__(
        self,
        name: str,
        motion: Samples,
        loss: float = 0.0,
        ppm: float = 0.0,
        battery_percent: int | None = 87,
        advertised: tuple[str, ...] = (),
        rssi_dbm: int = -50,
        mute: bool = False,
    ) -> None:
        assert motion.gyro_rads is not None
        self.name = name
        self.address = ""
        self.rssi_dbm = rssi_dbm
        self.told: list[str] = []
        """The commands it was given, in words."""
        self.connected = 0
        """How often."""
        self.mute = mute
        self.started = threading.Event()
        """Set when it sends."""
        self.air: Air
        self._motion = motion
        self._gyro_rads = motion.gyro_rads
        self._loss = loss
        self._speed = 1 + ppm * 1e-6
        self._battery_percent = battery_percent
        self._advertised = advertised
        self._device: Device = None
        self._streaming: asyncio.Task[None] | None = None
        self._began_s: float | None = None
        self._sent = 0
        self._rng = np.random.default_rng(0)

    def services(self) -> list[Service]:
        """Its GATT services, beside that of the battery."""
        return []

    def messages(self, first: int, stop: int, payload: int) -> Iterator[tuple[Any, bytes]]:
        """Characteristics and the notifications on them for some samples, as many as are ready;
        calls `self.took(n)` for those it has used."""
        raise NotImplementedError

    async def switch_on(self, air: Air, address: str) -> None:
        """Advertise until connected, and after each connection again."""
        self.air, self.address = air, address
        self._device = device = air.node(self.name, address)
        battery = [] if self._battery_percent is None else [self._battery_service()]
        device.add_services(self.services() + battery)
        said = [
            (AdvertisingData.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, bytes(UUID(uuid)))
            for uuid in self._advertised
        ]
        # Real ones have 31 bytes for it and put the rest into the scan response, which bumble's
        # radio does not carry.
        said += [(AdvertisingData.COMPLETE_LOCAL_NAME, self.name.encode())]
        device.advertising_data = bytes(AdvertisingData(said))
        device.on("connection", self._on_connection)
        await device.power_on()
        await self._advertise()

    async def _advertise(self) -> None:
        await self._device.start_advertising(
            auto_restart=True,
            advertising_interval_min=_ADVERTISED_EVERY_MS,
            advertising_interval_max=_ADVERTISED_EVERY_MS,
        )

    def _battery_service(self) -> Service:
        level = Characteristic(
            "2A19", READ, Characteristic.READABLE, bytes([self._battery_percent or 0])
        )
        return Service("180F", [level])

    def _on_connection(self, connection: Any) -> None:
        self.connected += 1
        connection.on("disconnection", lambda *_: self.halt())

    def drop(self) -> None:
        """The link goes, without a word to the host."""
        self.air.call(self._drop())

    async def _drop(self) -> None:
        for connection in list(self._device.connections.values()):
            await connection.disconnect()

    def hide(self) -> None:
        """Out of range: the link goes, and it is not heard any more."""
        self.air.call(self._hide())

    async def _hide(self) -> None:
        await self._device.stop_advertising()  # first, for the end of a connection starts it
        await self._drop()

    def show(self) -> None:
        """In range again."""
        self.air.call(self._advertise())

    def send(self) -> None:
        """Start, or go on."""
        if self._streaming is not None:
            return
        if self._began_s is None:
            self._began_s = self.air.loop.time()
        else:
            self._sent = self.due()  # nobody listened in between
        self._streaming = self.air.loop.create_task(self._stream())
        self.started.set()

    def halt(self) -> None:
        """Stop sending."""
        if self._streaming is not None:
            self._streaming.cancel()
            self._streaming = None

    def due(self) -> int:
        """Samples measured so far."""
        assert self._began_s is not None
        t_s = (self.air.loop.time() - self._began_s) * self._speed + self._motion.t_s[0]
        return int(np.searchsorted(self._motion.t_s, t_s, side="right"))

    def took(self, n: int) -> None:
        """So many samples are on their way."""
        self._sent += n

    async def _stream(self) -> None:
        while not self.mute:
            await asyncio.sleep(BURST_S)
            for connection in list(self._device.connections.values()):
                payload = connection.att_mtu - 3
                for characteristic, message in self.messages(self._sent, self.due(), payload):
                    if self._rng.random() >= self._loss:
                        await self._device.notify_subscribers(characteristic, message)

    def later(self, work: Awaitable[None]) -> None:
        """Something to do once the write that asks for it is answered."""
        self.air.loop.create_task(_do(work))


async def _do(work: Awaitable[None]) -> None:
    await work


def _written(handle: Callable[[bytes], None]) -> CharacteristicValue:
    return CharacteristicValue(write=lambda _, value: handle(bytes(value)))


_COMPRESSED_16_BIT = 0x80
_SINCE_2000_NS = 600_000_000 * 10**9


_PMD_RANGE = {2: 8, 5: 2000}
"""Stream -> full scale in g, deg/s."""

_PMD_FACTOR = {kind: full / 32768 for kind, full in _PMD_RANGE.items()}
_PMD_UNIT = {2: ACC_UNITS_MPS2["g"], 5: GYRO_UNITS_RADS["deg/s"]}


class VeritySense(Wearable):
    """Polar Verity Sense: acceleration and angular rate by PMD, delta-compressed, at 52 Hz.

    Source: polarofficial/polar-ble-sdk @8fb5311 (see firmware_bridge/ble_devices/polar.py).

    Args:
        motion: at 52 Hz.
        acc_only: whether it is a chest strap H10 instead, which has no gyroscope.
        refuses: status that it answers start commands with; 0 to start.
        drops_on_start: how many start commands it answers by losing the link.
    """

    FRAME_SAMPLES = 16
    RATE_HZ = 52

    def __init__(
        self,
        motion: Samples,
        acc_only: bool = False,
        refuses: int = 0,
        drops_on_start: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            "Polar H10 0A1B2C3D" if acc_only else "Polar Sense 0A1B2C3D", motion, **kwargs
        )
        self._features = 1 << 2 if acc_only else 1 << 2 | 1 << 5
        self.refuses = refuses
        self._drops_on_start = drops_on_start
        self._on: set[int] = set()
        self._sdk_mode = False
        units = {2: motion.acc_mps2, 5: self._gyro_rads}
        self._raw = {
            kind: np.round(values / _PMD_UNIT[kind] / _PMD_FACTOR[kind]).astype(np.int64)
            for kind, values in units.items()
        }

    def as_sent(self) -> Samples:
        """Its motion in the resolution it is sent in."""
        acc, gyro = (self._raw[k] * _PMD_FACTOR[k] * _PMD_UNIT[k] for k in (2, 5))
        return Samples(self._motion.t_s, acc, gyro)

    def services(self) -> list[Service]:
        """PMD."""
        uuid = "FB005C8{}-02E7-F387-1CAD-8ACD2D8DF0C8".format
        features = bytes([0x0F, self._features, 1 << 1]) + bytes(14)
        self._control = Characteristic(
            uuid(1),
            READ | WRITE | INDICATE,
            Characteristic.READABLE | Characteristic.WRITEABLE,
            CharacteristicValue(
                read=lambda _: features, write=lambda _, value: self._command(bytes(value))
            ),
        )
        self._data = Characteristic(uuid(2), NOTIFY, Characteristic.READABLE, b"")
        return [Service(uuid(0), [self._control, self._data])]

    def _command(self, command: bytes) -> None:
        op, kind = command[0], command[1]
        status, parameters = 0, b""
        if kind == 9:
            status = 6 if self._sdk_mode == (op == 2) else 0
            self._sdk_mode = op == 2
            if not status:
                self.told.append(f"SDK mode {'on' if self._sdk_mode else 'off'}")
        elif op == 1:
            parameters = self._settings(kind)
        elif op == 2:
            self.told.append(f"start {'acc' if kind == 2 else 'gyro'}")
            if self._drops_on_start:
                self._drops_on_start -= 1
                self.later(self._drop())
                return
            status = self.refuses
            if not status:
                parameters = bytes([5, 1]) + np.float32(_PMD_FACTOR[kind]).tobytes()
                self._on.add(kind)
                self.send()
        elif op == 3:
            self.told.append(f"stop {'acc' if kind == 2 else 'gyro'}")
            self._on.discard(kind)
            if not self._on:
                self.halt()
        answer = bytes([0xF0, op, kind, status, 0]) + parameters
        self.later(self._device.indicate_subscribers(self._control, answer))

    def _settings(self, kind: int) -> bytes:
        return b"".join(
            bytes([setting, 1]) + value.to_bytes(size, "little")
            for setting, value, size in (
                (0, self.RATE_HZ, 2),
                (1, 16, 2),
                (2, _PMD_RANGE[kind], 2),
                (4, 3, 1),
            )
        )

    def halt(self) -> None:
        """Stop sending."""
        super().halt()
        if not self._device.connections:
            self._on.clear()

    def messages(self, first: int, stop: int, payload: int) -> Iterator[tuple[Any, bytes]]:
        """A frame of each stream that is on."""
        while stop - first >= self.FRAME_SAMPLES:
            last_s = self._motion.t_s[first + self.FRAME_SAMPLES - 1]
            stamp = (_SINCE_2000_NS + round(last_s * 1e9)).to_bytes(8, "little")
            for kind in sorted(self._on):
                content = delta_encoded(self._raw[kind][first : first + self.FRAME_SAMPLES])
                yield self._data, bytes([kind]) + stamp + bytes([_COMPRESSED_16_BIT]) + content
            self.took(self.FRAME_SAMPLES)
            first += self.FRAME_SAMPLES


def delta_encoded(raw: NDArray[np.int64]) -> bytes:
    """(n, 3) 16-bit samples as PMD compresses them: the first, then one block of differences."""
    deltas = np.diff(raw, axis=0).ravel()
    width = max(2, int(np.abs(deltas).max(initial=1)).bit_length() + 1)
    bits = (deltas[:, None] >> np.arange(width) & 1).astype(np.uint8)
    block = np.packbits(bits.ravel(), bitorder="little").tobytes()
    return raw[0].astype("<i2").tobytes() + bytes([width, len(raw) - 1]) + block


class Strap(Wearable):
    """A wearable of our own format (firmware_bridge/PROTOCOL.md).

    Args:
        motion: at any one rate.
        name: advertised.
        per_message: samples in one message, if they fit.
        ignores_mtu: whether it sends so many anyway, and one more alone after each message.
    """

    ACC_SCALE = 16 * ACC_UNITS_MPS2["g"] / 32768
    GYRO_SCALE = 2000 * GYRO_UNITS_RADS["deg/s"] / 32768

    def __init__(
        self,
        motion: Samples,
        name: str = "Strap",
        per_message: int = 5,
        ignores_mtu: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, motion, advertised=(native.SERVICE_UUID,), **kwargs)
        self._ignores_mtu = ignores_mtu
        self._per_message = per_message
        self.rate_hz = round((len(motion) - 1) / (motion.t_s[-1] - motion.t_s[0]), 3)
        self._raw = np.round(
            np.hstack([motion.acc_mps2 / self.ACC_SCALE, self._gyro_rads / self.GYRO_SCALE])
        ).astype(np.int16)

    def as_sent(self) -> Samples:
        """Its motion in the resolution it is sent in."""
        raw = self._raw.astype(np.float64)
        return Samples(self._motion.t_s, raw[:, :3] * self.ACC_SCALE, raw[:, 3:] * self.GYRO_SCALE)

    def services(self) -> list[Service]:
        """The format's service."""
        description = native.encode_description(
            native.Description(self.name, self.rate_hz, self.ACC_SCALE, self.GYRO_SCALE)
        )
        readable, writeable = Characteristic.READABLE, Characteristic.WRITEABLE
        self._data = Characteristic(native.DATA_UUID, NOTIFY, readable, b"")
        control = Characteristic(native.CONTROL_UUID, WRITE, writeable, _written(self._command))
        about = Characteristic(native.DESCRIPTION_UUID, READ, readable, description)
        return [Service(native.SERVICE_UUID, [self._data, about, control])]

    def _command(self, command: bytes) -> None:
        if command == native.START:
            self.told.append("start")
            self.send()
        elif command == native.STOP:
            self.told.append("stop")
            self.halt()

    def messages(self, first: int, stop: int, payload: int) -> Iterator[tuple[Any, bytes]]:
        """Samples messages."""
        n = self._per_message
        sizes = [n, 1] if self._ignores_mtu else [min(n, native.samples_that_fit(payload))]
        while stop - first >= sum(sizes):
            for n in sizes:
                time_us = round(self._motion.t_s[first] * 1e6)
                raw = self._raw[first : first + n]
                yield self._data, native.encode_samples(first, time_us, raw)
                self.took(n)
                first += n


class WitMotion(Wearable):
    """WitMotion's Bluetooth 5 sensor: streams while it is subscribed to, without stamps.

    Source: WITMOTION/WitBluetooth_BWT901BLE5_0 @9efaab0 (see firmware_bridge/ble_devices/
    witmotion.py). Frames and notifications begin and end in different places.
    """

    _CHUNK_BYTES = 50
    _FACTOR = np.repeat(
        [16 * ACC_UNITS_MPS2["g"] / 32768, 2000 * GYRO_UNITS_RADS["deg/s"] / 32768], 3
    )

    def __init__(self, motion: Samples, **kwargs: Any) -> None:
        super().__init__("WT901BLE68", motion, battery_percent=None, **kwargs)
        values = np.hstack([motion.acc_mps2, self._gyro_rads]) / self._FACTOR
        self._raw = np.hstack([np.round(values), np.zeros((len(values), 3))]).astype("<i2")
        self._rest = b""

    def as_sent(self) -> Samples:
        """Its motion in the resolution it is sent in."""
        values = self._raw[:, :6] * self._FACTOR
        return Samples(self._motion.t_s, values[:, :3], values[:, 3:])

    def services(self) -> list[Service]:
        """Its one service; the UUIDs are of the vendor's own base."""
        uuid = "0000FFE{}-0000-1000-8000-00805F9A34FB".format
        self._data = Characteristic(uuid(4), NOTIFY, Characteristic.READABLE, b"")
        self._data.on("subscription", self._subscribed)
        control = Characteristic(
            uuid(9), WRITE, Characteristic.WRITEABLE, _written(lambda c: self.told.append(c.hex()))
        )
        return [Service(uuid(5), [self._data, control])]

    def _subscribed(self, _: Any, notify: bool, __: bool) -> None:
        self.told.append("subscribe" if notify else "unsubscribe")
        if notify:
            self.send()
        else:
            self.halt()

    def messages(self, first: int, stop: int, payload: int) -> Iterator[tuple[Any, bytes]]:
        """The frames of all samples that are due, cut into pieces."""
        self._rest += b"".join(b"\x55\x61" + row.tobytes() for row in self._raw[first:stop])
        self.took(stop - first)
        size = min(self._CHUNK_BYTES, payload)
        while len(self._rest) >= size:
            yield self._data, self._rest[:size]
            self._rest = self._rest[size:]


OUTING = walk(600, VeritySense.RATE_HZ)


def recorded(rate_hz: float, from_s: float) -> Samples:
    """The recording that comes along, from some time on, at another rate."""
    whole = Samples.joined(list(open_recording(RECORDING, UnitOptions()).chunks))
    assert whole.gyro_rads is not None
    t_s = np.arange(from_s, whole.t_s[-1], 1 / rate_hz)
    values = np.hstack([whole.acc_mps2, whole.gyro_rads])
    at = np.stack([np.interp(t_s, whole.t_s, column) for column in values.T], axis=1)
    return Samples(t_s - from_s, at[:, :3], at[:, 3:])


_WEARABLES: dict[str, Callable[[], Wearable]] = {
    "verity": lambda: VeritySense(OUTING),
    "verity-lossy": lambda: VeritySense(
        recorded(VeritySense.RATE_HZ, 135), loss=0.02, ppm=-27, rssi_dbm=-61
    ),
    "witmotion": lambda: WitMotion(recorded(100, 135)),
    "strap-lossy": lambda: Strap(recorded(100, 135), loss=0.02, ppm=20, rssi_dbm=-54),
}


def main(argv: list[str]) -> int:
    """Run `edge-run` in an air with some wearables, or show what it does."""
    if not argv:
        return show()
    ours, theirs = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    parser = argparse.ArgumentParser()
    parser.add_argument("wearable", nargs="+", choices=_WEARABLES)
    parser.add_argument("--away-after", type=float, help="s; the first wearable leaves for 3 s")
    parser.add_argument("--stop-after", type=float, help="s; Ctrl-C is pressed")
    args = parser.parse_args(ours)
    with Air() as air:
        wearables = [air.add(_WEARABLES[name]()) for name in args.wearable]
        threading.Thread(target=_incidents, args=(wearables[0], args), daemon=True).start()
        edge.source.BLE_BACKEND = air.backend()
        code = edge.cli.main(theirs)
        for wearable in wearables:
            if wearable.connected:
                told = ", ".join(wearable.told)
                print(f"[{wearable.name} was told: {told}]", file=sys.stderr, flush=True)
    return code


def _incidents(wearable: Wearable, args: argparse.Namespace) -> None:
    wearable.started.wait()
    if args.away_after:
        time.sleep(args.away_after)
        wearable.hide()
        time.sleep(3)
        wearable.show()
    if args.stop_after:
        time.sleep(args.stop_after - (args.away_after or 0))
        os.kill(os.getpid(), signal.SIGINT)


_LABELS = ("--labels", "walking, sitting, standing, lying")
_SHOWN = (
    ("verity-lossy strap-lossy", "--list-devices"),
    ("verity-lossy strap-lossy", "--device ble --no-log"),
    (
        "verity-lossy --away-after 15 --stop-after 50",
        "--device ble --placement waist --log show.db",
    ),
    (
        "strap-lossy verity-lossy --away-after 15 --stop-after 50",
        "--device ble:Strap --placement waist --log show.db",
    ),
)


def show() -> int:
    """A terminal's text: some runs of `edge-run`, one after another."""
    with tempfile.TemporaryDirectory() as folder:
        for air, argv in _SHOWN:
            labels = () if "--list" in argv else _LABELS
            told = " ".join([argv, *(["--labels", f"'{labels[1]}'"] if labels else [])])
            print(f"$ edge-run {told}", flush=True)
            module = [sys.executable, "-m", "tests.firmware_bridge.virtual_ble"]
            done = subprocess.run(
                [*module, *air.split(), "--", *argv.split(), *labels],
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(REPO)},
                check=False,
            )
            print(f"$ echo $?\n{done.returncode}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
