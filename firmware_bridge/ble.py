"""Wearables over Bluetooth Low Energy: finding, connecting, streaming, reconnecting.

    found = choose(scan())
    source = LiveSource(lambda inbox: run_ble(found, inbox, print), print)

Every connection starts with a scan for the device's address: on macOS a device that another event
loop has found cannot be connected to, and after a drop the device has to be there again anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar, cast

from bleak import BleakClient, BleakScanner
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
)

from firmware_bridge.ble_devices import DEVICES, recognise
from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Advert, BleDevice, Kind, Packet, Session
from firmware_bridge.live import Inbox

SCAN_S = 5.0
"""Wearables advertise every 0.02 to 2.5 s: a scan hears each of them twice or more."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Waited before the first attempt to connect again; doubled for each that fails."""

SILENCE_S = 15.0
"""A device that is connected and sends nothing for so long is connected anew: a Verity Sense at
rest sends every 2 s (polar-ble-sdk, issue 439)."""

_FIND_S = 10.0
_CONNECT_S = 20.0
_BATTERY_S = 3.0
_START_S = 30.0
"""For a device to take its start commands."""

_STOP_S = 2.0
"""For a device to take its stop command, for the host to disconnect, and for a conversation that is
under way when the link is stopped."""

_BATTERY_UUID = "00002a19-0000-1000-8000-00805f9b34fb"
"""Battery Level: one byte, percent (Bluetooth SIG, Battery Service 1.1, section 3.1)."""

_LONGEST_NAME = 64
_NO_RSSI_DBM = -127
"""What bleak's backends say where the system says nothing (bluezdbus/scanner.py)."""

_LINK_ERRORS = (BleakError, OSError, EOFError)
"""What bleak's backends raise when a link fails; a timeout is an OSError."""

Say = Callable[[str], None]
T = TypeVar("T")


class Backend(NamedTuple):
    """What carries bleak's calls out instead of the system's Bluetooth: bleak's `backend=`."""

    scanner: type[BaseBleakScanner]
    client: type[BaseBleakClient]


@dataclass(frozen=True)
class Found:
    """A device that a scan has heard."""

    advert: Advert
    device: BleDevice | None
    """What it is recognised as."""

    def __str__(self) -> str:
        rssi = "" if self.advert.rssi_dbm is None else f"{self.advert.rssi_dbm} dBm"
        kind = self.device.name if self.device else "(not recognised)"
        return f"{self.advert.name or '(no name)':<24}  {self.advert.address}  {rssi:>8}  {kind}"

    def goes_by(self, wanted: str) -> bool:
        """Whether `wanted` is its name or address, upper or lower case."""
        return wanted.casefold() in (self.advert.name.casefold(), self.advert.address.casefold())

    def at_rate(self, rate_hz: float) -> Found:
        """The same device, to be opened at another rate than the usual one.

        Raises:
            InputError: the rate of such a device cannot be chosen.
        """
        if self.device is None or self.device.open_at is None:
            raise InputError(
                f"{self.advert.name or self.advert.address}: the rate of this kind of device is "
                "not chosen here; leave --rate out"
            )
        return replace(self, device=replace(self.device, open=self.device.open_at(rate_hz)))


def scan(seconds: float = SCAN_S, wanted: str = "", backend: Backend | None = None) -> list[Found]:
    """Listen for devices; return those heard, strongest signal first.

    Args:
        seconds: how long.
        wanted: a name or address; the scan ends when a recognised device that goes by it is heard.
        backend: instead of the system's Bluetooth.

    Raises:
        AuraError: Bluetooth cannot be used: why, and the cure.
    """
    try:
        return asyncio.run(_scan(seconds, wanted, backend))
    except _LINK_ERRORS as error:
        raise AuraError(why_no_bluetooth(error) or f"Bluetooth failed: {_said(error)}") from error


async def _scan(seconds: float, wanted: str, backend: Backend | None) -> list[Found]:
    enough = asyncio.Event()
    heard: dict[str, Found] = {}

    def note(device: BLEDevice, said: AdvertisementData) -> None:
        advert = _advert(device, said)
        heard[advert.address] = found = Found(advert, recognise(advert))
        if wanted and found.device and found.goes_by(wanted):
            enough.set()

    async with BleakScanner(note, backend=backend and backend.scanner):
        await _within(seconds, enough.wait())
    return sorted(heard.values(), key=lambda found: -(found.advert.rssi_dbm or _NO_RSSI_DBM))


def _advert(device: BLEDevice, said: AdvertisementData) -> Advert:
    # The name is a stranger's: it must not steer the terminal it is printed on.
    name = "".join(c if c.isprintable() else "?" for c in said.local_name or device.name or "")
    return Advert(
        device.address,
        name[:_LONGEST_NAME],
        None if said.rssi == _NO_RSSI_DBM else said.rssi,
        frozenset(uuid.lower() for uuid in said.service_uuids),
    )


def choose(
    found: list[Found], wanted: str = "", ask: Callable[[list[Found]], Found] | None = None
) -> Found:
    """The device to connect to: the only one recognised, or the one that goes by `wanted`.

    Args:
        found: what a scan has heard.
        wanted: a name or address; "" for any recognised device.
        ask: lets a person choose between several.

    Raises:
        AuraError: there is none.
        InputError: there are several and nobody to ask; it lists them.
    """
    candidates = [f for f in found if f.device and (not wanted or f.goes_by(wanted))]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise AuraError(_why_none(found, wanted))
    if ask is None:
        raise InputError(
            f"{len(candidates)} wearables are there; say which, by name or address:\n"
            + listing(candidates)
        )
    return ask(candidates)


def listing(found: list[Found]) -> str:
    """One device a line."""
    return "\n".join(f"  {one}" for one in found)


def _why_none(found: list[Found], wanted: str) -> str:
    known = "recognised are: " + ", ".join(device.name for device in DEVICES)
    if any(f.goes_by(wanted) for f in found):
        return f"{wanted!r} is there, but is of no kind that this version recognises; {known}"
    there = [f for f in found if f.device] or found
    heard = f"; heard were:\n{listing(there)}" if there else ""
    what = repr(wanted) if wanted else "no wearable that this version recognises"
    return (
        f"{what} was {'not ' if wanted else ''}heard. Switch it on, bring it near, and disconnect "
        f"it from phones and other programs: a connected device does not advertise{heard}"
        + ("" if wanted else f"\n{known}")
    )


def run_ble(found: Found, inbox: Inbox, say: Say, backend: Backend | None = None) -> None:
    """Connect, stream into `inbox`, connect again whenever the link drops, until it is stopped;
    then tell the device to stop. Runs an event loop of its own; made for `LiveSource`.

    Args:
        found: a recognised device.
        inbox: takes the packets and says when to stop.
        say: tells the user what the link does; called from this thread.
        backend: instead of the system's Bluetooth.

    Raises:
        AuraError: Bluetooth cannot be used, or the device refuses to stream, at the first
            connection; later ones are tried again without end.
    """
    if found.device is None:
        raise ValueError(f"{found.advert.name} is not recognised: there is no way to talk to it")
    asyncio.run(_Life(found.advert, found.device, inbox, say, backend).run())


class _StoppedError(Exception):
    """The link was stopped while something else was under way."""


class _Life:
    """The life of a link, from the first connection until it is stopped."""

    def __init__(
        self, advert: Advert, device: BleDevice, inbox: Inbox, say: Say, backend: Backend | None
    ) -> None:
        self._address = advert.address
        self._name = advert.name or advert.address
        self._device = device
        self._inbox = inbox
        self._say = say
        self._backend = backend
        self._stop = asyncio.Event()
        self._dropped = asyncio.Event()  # of this connection
        self._opened = False
        self._lost_s = 0.0  # when the last connection went
        self._heard_s: float | None = None  # when this connection last brought something

    async def run(self) -> None:
        """Until stopped."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: all is over already
                loop.call_soon_threadsafe(self._stop.set)

        self._inbox.call_when_stopped(stop)
        failed = 0
        while not self._stop.is_set():
            self._heard_s = None
            why = await self._one_connection()
            if self._stop.is_set():
                return
            failed = 0 if self._heard_s is not None else failed + 1
            pause_s = min(FIRST_PAUSE_S * 2 ** min(failed, 16), LONGEST_PAUSE_S)
            nth = f" (failed attempt {failed})" if failed else ""
            self._say(f"{self._name}: {why}{nth}; connecting again in {pause_s:g} s")
            await _within(pause_s, self._stop.wait())

    async def _one_connection(self) -> str:
        """Find, connect and stream; why that ended."""
        client: BleakClient | None = None
        self._dropped = dropped = asyncio.Event()
        try:
            device = await self._or_stopped(self._find())
            if device is None:
                return f"not heard for {_FIND_S:g} s"
            client = BleakClient(
                device,
                lambda _: dropped.set(),
                timeout=_CONNECT_S,
                backend=self._backend and self._backend.client,
            )
            await self._or_stopped(client.connect())
            return await self._stream(client)
        except _StoppedError:
            return "stopped"
        except AuraError as error:
            if not self._opened:
                raise
            return str(error)
        except _LINK_ERRORS as error:
            cure = why_no_bluetooth(error)
            if cure and not self._opened:
                raise AuraError(cure) from error
            return cure or ("connection lost" if self._dropped.is_set() else _said(error))
        finally:
            if client is not None:
                await self._last_words(client.disconnect())
            self._inbox.lost()

    async def _find(self) -> BLEDevice | None:
        # None is the system's, for the constructor that this is passed on to.
        backend = cast("type[BaseBleakScanner]", self._backend and self._backend.scanner)
        return await BleakScanner.find_device_by_address(self._address, _FIND_S, backend=backend)

    async def _stream(self, client: BleakClient) -> str:
        """Start a connected device, and wait for the end; why it came."""
        gatt = _Gatt(client, self._name, self._device.name)
        battery = await self._or_stopped(gatt.battery_percent())
        async with asyncio.timeout(_START_S):
            # A conversation is not cut short: a device that took the start must hear the stop.
            session = await self._or_stopped(self._device.open(gatt, self._deliver), _STOP_S)
        kinds = cast("Iterable[Kind]", session.decoders.keys())
        self._inbox.opened(kinds, session.nominal_hz, session.decoders, session.details)
        self._tell(session, battery)
        self._opened = True
        try:
            return await self._until_it_ends()
        finally:
            self._lost_s = time.monotonic()
            if not self._dropped.is_set():
                took_it = await self._last_words(session.stop())
                if self._stop.is_set():
                    self._say(f"{self._name}: {'told' if took_it else 'could not be told'} to stop")

    def _tell(self, session: Session, battery_percent: int | None) -> None:
        """What is connected."""
        battery = "" if battery_percent is None else f", battery {battery_percent} %"
        if self._opened:
            after_s = time.monotonic() - self._lost_s
            self._say(f"{self._name}: connected again after {after_s:.1f} s{battery}")
            return
        self._say(f"connected to {self._name} ({self._device.name}): {session.details}{battery}")

    def _deliver(self, packets: list[Packet]) -> None:
        if packets:
            self._heard_s = time.monotonic()
        self._inbox.deliver(packets)

    async def _until_it_ends(self) -> str:
        began_s = time.monotonic()
        while True:
            silent_s = time.monotonic() - (self._heard_s or began_s)
            if silent_s >= SILENCE_S:
                return f"connected, but silent for {SILENCE_S:g} s"
            await self._or_stopped(asyncio.sleep(SILENCE_S - silent_s))

    async def _or_stopped(self, work: Awaitable[T], grace_s: float = 0.0) -> T:
        """Wait for some work, which is given up when the connection drops, and `grace_s` after the
        link is stopped.

        Raises:
            _StoppedError: it was given up as the link was stopped.
            BleakError: it was given up as the connection dropped.
        """
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        dropped = asyncio.ensure_future(self._dropped.wait())
        try:
            await asyncio.wait({task, stopped, dropped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not dropped.done():
                await asyncio.wait({task}, timeout=grace_s)
            if task.done():
                return task.result()
            if dropped.done():
                raise BleakError("connection lost")
            raise _StoppedError
        finally:
            stopped.cancel()
            dropped.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _last_words(self, work: Awaitable[None]) -> bool:
        """Whether something that a lost link may hinder was done."""
        try:
            async with asyncio.timeout(_STOP_S):
                await work
        except (AuraError, *_LINK_ERRORS):
            return False
        return True


class _Gatt:
    """A `link.GattClient` on top of bleak's."""

    def __init__(self, client: BleakClient, name: str, kind: str) -> None:
        self._client = client
        self._name = name
        self._kind = kind

    @property
    def mtu_size(self) -> int:
        """Bytes of an attribute packet. Taken from the characteristics: BlueZ knows it only there,
        and bleak's own property says 23 (bluezdbus/client.py)."""
        sizes = (
            characteristic.max_write_without_response_size
            for characteristic in self._client.services.characteristics.values()
        )
        return max(sizes, default=20) + 3

    async def battery_percent(self) -> int | None:
        """What the battery service says; None without one."""
        if self._client.services.get_characteristic(_BATTERY_UUID) is None:
            return None
        try:
            async with asyncio.timeout(_BATTERY_S):
                value = await self._client.read_gatt_char(_BATTERY_UUID)
        except (BleakError, TimeoutError):  # some want to be paired for it
            return None
        return value[0] if value and value[0] <= 100 else None

    async def read_gatt_char(self, char_specifier: str) -> bytearray:
        """Read."""
        return await self._client.read_gatt_char(self._checked(char_specifier))

    async def write_gatt_char(
        self, char_specifier: str, data: bytes, response: bool | None = None
    ) -> None:
        """Write."""
        await self._client.write_gatt_char(self._checked(char_specifier), data, response)

    async def start_notify(
        self, char_specifier: str, callback: Callable[[Any, bytearray], None]
    ) -> None:
        """Subscribe."""
        await self._client.start_notify(self._checked(char_specifier), callback)

    async def stop_notify(self, char_specifier: str) -> None:
        """Unsubscribe."""
        await self._client.stop_notify(self._checked(char_specifier))

    def _checked(self, uuid: str) -> str:
        if self._client.services.get_characteristic(uuid) is None:
            raise AuraError(
                f"{self._name} was taken for a {self._kind}, but has no characteristic {uuid}: "
                "another model, or a firmware that this version does not know"
            )
        return uuid


async def _within(seconds: float, work: Coroutine[Any, Any, Any]) -> bool:
    """Whether some work was done in this time; it is given up otherwise."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


_Reason = BleakBluetoothNotAvailableReason

_SWITCHED_OFF = {
    "linux": "switch it on: `rfkill unblock bluetooth`, then `bluetoothctl power on`",
    "darwin": "switch it on: System Settings > Bluetooth",
    "win32": "switch it on: Settings > Bluetooth & devices",
}
_NO_ADAPTER = {
    "linux": "plug one in (Bluetooth 4.0 or newer); `bluetoothctl list` shows those that the "
    "system knows. A container or virtual machine has to be given the host's",
    "darwin": "this Mac has none that works; virtual machines have none",
    "win32": "plug one in (Bluetooth 4.0 or newer) and look for it in the Device Manager; virtual "
    "machines have to be given the host's",
}
_DENIED = {
    "linux": "D-Bus refuses this user: `sudo usermod -aG bluetooth $USER` and log in anew; in a "
    "container run as the host's user, or set BLEAK_DBUS_AUTH_UID to its number",
    "darwin": "allow the terminal you use: System Settings > Privacy & Security > Bluetooth, then "
    "start it anew",
    "win32": "allow desktop apps to use it: Settings > Privacy & security > Radios",
}
_NO_DBUS = (
    "the system's D-Bus, through which Bluetooth is reached on Linux, is not there: "
    "`sudo systemctl start dbus bluetooth`; in a container mount the host's, "
    "`-v /run/dbus:/run/dbus:ro`"
)
_NO_BLUEZ = (
    "BlueZ, Linux' Bluetooth service, does not run: `sudo apt install bluez`, then `sudo systemctl "
    "enable --now bluetooth`"
)


_DBUS_REASONS = {
    "AccessDenied": _Reason.DENIED_BY_SYSTEM,
    "NotReady": _Reason.POWERED_OFF,
}
"""Last part of a D-Bus error's name (BlueZ, `src/error.c`; the D-Bus specification) -> reason."""

_NOBODY_ANSWERS = ("ServiceUnknown", "NameHasNoOwner", "NoReply")

_WINDOWS_REASONS = {
    0x800710DF - (1 << 32): _Reason.POWERED_OFF,  # "The device is not ready for use" (bleak #792)
    0x80070005 - (1 << 32): _Reason.DENIED_BY_SYSTEM,  # E_ACCESSDENIED
}
"""What Windows raises where bleak has not looked before: HRESULT -> reason."""


def why_no_bluetooth(error: BaseException, platform: str = sys.platform) -> str | None:
    """What keeps Bluetooth from being used, and the cure; None for an error of another kind.

    Args:
        error: what bleak raised.
        platform: as `sys.platform` says.
    """
    reason: BleakBluetoothNotAvailableReason | None = None
    if isinstance(error, BleakBluetoothNotAvailableError):
        reason = error.reason
    elif isinstance(error, PermissionError):
        reason = _Reason.DENIED_BY_SYSTEM
    elif isinstance(error, BleakDBusError):
        kind = error.dbus_error.rpartition(".")[2]
        if kind in _NOBODY_ANSWERS:
            return f"no Bluetooth: {_NO_BLUEZ}"
        reason = _DBUS_REASONS.get(kind)
    elif platform == "linux" and isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"no Bluetooth: {_NO_DBUS}"
    elif platform == "win32":
        reason = _WINDOWS_REASONS.get(getattr(error, "winerror", 0))
    return None if reason is None else _not_available(reason, platform)


def _not_available(reason: BleakBluetoothNotAvailableReason, platform: str) -> str:
    if reason is _Reason.NO_BLUETOOTH:
        return "no Bluetooth adapter: " + _NO_ADAPTER.get(platform, "plug one in")
    if reason is _Reason.NO_BLE_CENTRAL_ROLE:
        return "this Bluetooth adapter cannot talk to wearables: use one of Bluetooth 4.0 or newer"
    if reason is _Reason.POWERED_OFF:
        return "Bluetooth is off: " + _SWITCHED_OFF.get(platform, "switch it on")
    if reason is _Reason.UNKNOWN:
        return "Bluetooth is not available, and the system does not say why: switch it off and on"
    return "Bluetooth is not permitted: " + _DENIED.get(
        platform, "give this program the permission"
    )
