"""Where samples come from: a recorded file or a device, each an iterator of `Samples`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.samples import Samples
from firmware_bridge.sim import simulated_packets

# What a kind of device needs is imported where it is opened: the others do without.
if TYPE_CHECKING:
    from edge.window import Span
    from firmware_bridge.ble import Backend, Found
    from firmware_bridge.link import Packet
    from firmware_bridge.live import Inbox, LiveSource
    from firmware_bridge.serial_link import SerialLink, SerialOptions

PACKET_SAMPLES = 20
"""Samples handed out at once: what one BLE notification holds of six int16 axes (MTU 247)."""

KNOWN_DEVICES = (
    "sim, ble, ble:NAME, ble:ADDRESS, serial, serial:PORT, phyphox:HOST[:PORT], "
    "sensorlogger:[ADDRESS:]PORT"
)

_PHONES = ("phyphox", "sensorlogger")

BLE_BACKEND: Backend | None = None
"""Instead of the system's Bluetooth: where tests put their virtual wearables."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
"""Before a serial port that was lost is opened again; doubled for each attempt that fails."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stated:
    """What the user states of a device; None finds out."""

    speed: str | None = None
    """Of a simulated one: "1" for real time, which None means too, or "max"."""
    baud: int | None = None
    rate_hz: float | None = None
    """Of a serial device: its nominal rate; of one over BLE: what it is asked for."""
    acc_unit: str | None = None
    """Of `samples.ACC_UNITS_MPS2`."""
    gyro_unit: str | None = None
    """Of `samples.GYRO_UNITS_RADS`."""


NOTHING = Stated()


@dataclass(frozen=True)
class Device:
    """An opened `--device`."""

    name: str
    """For the log: `ble:Polar Sense 1234`."""

    samples: Iterator[Samples]

    live: LiveSource | None = None
    """To be closed, and asked for its report; None for a simulated device."""

    waits: bool = True
    """Whether samples come when they are measured, and not as fast as they are taken."""


def open_device(uri: str, say: Say, stated: Stated = NOTHING) -> Device:
    """Find a device. It is connected to once the first samples are asked for.

    Args:
        uri: one of `KNOWN_DEVICES`.
        say: tells the user what goes on; called from several threads.
        stated: by the user.

    Raises:
        InputError: the URI names no kind of device, there are several devices and nobody to ask,
            or something is stated that does not go with the device.
        AuraError: there is no such device, or no Bluetooth.
    """
    kind, colon, which = uri.partition(":")
    if kind not in ("sim", "ble", "serial", *_PHONES) or (colon and (not which or kind == "sim")):
        raise InputError(f"--device {uri!r} is not known; this version knows: {KNOWN_DEVICES}")
    if kind != "serial":
        if stated.acc_unit or stated.gyro_unit:
            raise InputError(
                "the unit options go with --replay and --device serial; otherwise a device states "
                "its units"
            )
        if stated.baud or (stated.rate_hz and kind != "ble"):
            raise InputError(
                "--rate goes with --device serial and --device ble, --baud with --device serial"
            )
    if kind == "sim":
        samples = simulated_packets()
        fast = stated.speed == "max"
        return Device(uri, samples if fast else in_real_time(samples), waits=not fast)
    if stated.speed == "max":
        raise InputError("--speed max goes with --replay and --device sim: a device sets the pace")
    if kind in _PHONES:
        return _open_phone(kind, which, say)
    if kind == "ble":
        return _open_ble(which, stated.rate_hz, say)
    return _open_serial(which, stated, say)


def _open_ble(wanted: str, rate_hz: float | None, say: Say) -> Device:
    from firmware_bridge.ble import SCAN_S, choose, run_ble, scan
    from firmware_bridge.live import LiveSource

    backend = BLE_BACKEND
    say(f"looking for {wanted or 'wearables'} ({SCAN_S:g} s at most) ...")
    found = scan(SCAN_S, wanted, backend)
    one = choose(found, wanted, _ask if sys.stdin.isatty() and sys.stderr.isatty() else None)
    say(f"found {one}")
    one = one if rate_hz is None else one.at_rate(rate_hz)
    source = LiveSource(lambda inbox: run_ble(one, inbox, say, backend), say)
    return Device(f"ble:{one.advert.name or one.advert.address}", _from_zero(source, say), source)


def _open_phone(app: str, where: str, say: Say) -> Device:
    from firmware_bridge.live import LiveSource
    from firmware_bridge.phones.phyphox import phyphox_address, run_phyphox
    from firmware_bridge.phones.push import run_sensor_logger, sensor_logger_address

    if app == "phyphox":
        address, run = phyphox_address(where), run_phyphox
    else:
        address, run = sensor_logger_address(where), run_sensor_logger
    source = LiveSource(lambda inbox: run(address, inbox, say), say)
    return Device(f"{app}:{address}", _from_zero(source, say), source)


def _ask(several: list[Found]) -> Found:
    """Let the person at the terminal choose."""
    for number, one in enumerate(several, start=1):
        print(f"{number:>3}  {one}", file=sys.stderr)
    while True:
        print(f"which one? 1 to {len(several)}: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            raise InputError("no device was chosen")
        if answer.strip().isdecimal() and 1 <= int(answer) <= len(several):
            return several[int(answer) - 1]


def _open_serial(port: str, stated: Stated, say: Say) -> Device:
    from firmware_bridge.live import LiveSource
    from firmware_bridge.serial_link import SerialOptions, choose_port

    port = port or choose_port()
    options = SerialOptions(stated.baud, stated.rate_hz, stated.acc_unit, stated.gyro_unit)
    say(f"listening to {port} to find out what it sends ...")
    source = LiveSource(lambda inbox: _run_serial(port, options, inbox, say), say)
    return Device(f"serial:{port}", _from_zero(source, say), source)


def _run_serial(port: str, options: SerialOptions, inbox: Inbox, say: Say) -> None:
    """Read a serial port into `inbox` until it is stopped; open it again when it is unplugged.

    Raises:
        AuraError: it cannot be opened at first, or nothing known comes from it.
    """
    from firmware_bridge.serial_link import open_serial

    stopped = inbox.stopped
    opened, failed = False, 0
    while not stopped.is_set():
        try:
            link = open_serial(port, options, stopped.is_set)
        except AuraError as error:
            if stopped.is_set():
                return
            if not opened:
                raise
            failed += 1
            why = f"{error} (failed attempt {failed})"
        else:
            say(f"connected again to {port}" if opened else f"connected to {link.details}")
            opened, failed = True, 0
            why = _read_serial(link, inbox)
        if not stopped.is_set():
            pause_s = min(_FIRST_PAUSE_S * 2 ** min(failed, 16), _LONGEST_PAUSE_S)
            say(f"{why}; opening it again in {pause_s:g} s")
            stopped.wait(pause_s)


def _read_serial(link: SerialLink, inbox: Inbox) -> str:
    """Read a port until it is lost, and say why, or until the link is stopped."""
    announced = False

    def deliver(packets: list[Packet]) -> None:
        nonlocal announced
        if not announced:  # only the packets tell whether there is a gyroscope
            kinds = {packet.kind for packet in packets}
            inbox.opened(kinds, link.nominal_hz, link.decoders, link.details)
            announced = True
        inbox.deliver(packets)

    try:
        link.read_packets(deliver, inbox.stopped.is_set)
    except AuraError as error:
        return str(error)
    finally:
        inbox.lost()
        link.close()
    return "stopped"


def _from_zero(source: LiveSource, say: Say) -> Iterator[Samples]:
    """The samples of a device, timed from its first one."""
    first_s: float | None = None
    for samples in source:
        if first_s is None:
            first_s = float(samples.t_s[0])
            if samples.gyro_rads is None:
                say(
                    "note: this device sends no gyroscope; labels come from the accelerometer "
                    "alone and are less reliable"
                )
        yield samples.shifted(-first_s)


def list_devices(say: Say) -> list[str]:
    """What `--device` could be: lines for people, of BLE and of serial ports.

    Args:
        say: tells what cannot be looked for, and why.
    """
    from firmware_bridge.ble import SCAN_S, scan
    from firmware_bridge.serial_link import list_ports

    lines = [f"serial:{port.port}  {port.description}" for port in list_ports() if port.likely]
    say(f"looking for BLE devices for {SCAN_S:g} s ...")
    try:
        found = scan(SCAN_S, backend=BLE_BACKEND)
    except AuraError as error:
        say(f"note: {error}")
        return lines
    named = [one for one in found if one.device or one.advert.name]
    named.sort(key=lambda one: one.device is None)  # stable: by signal strength within each
    lines += [f"ble:{one}" for one in named]
    if len(named) < len(found):
        say(f"and {len(found) - len(named)} BLE devices that do not tell their names")
    return lines


class Pace:
    """Leaves windows out where the machine is too slow to classify them all, so that what is said
    is of now and not of ever longer ago.

        pace = Pace()
        pipeline = Pipeline(bundle, labels, pace.spans(every_hop(1.0)))
        for samples in pace.samples(device.samples):
            pipeline.push(samples)

    A machine that keeps up waits for the next samples again and again. While it has not done so for
    `BUSY_S`, the windows left out between two classified ones become 1, 3, 7, ...
    """

    BUSY_S = 2.0
    _WAITED_S = 1e-3
    _LONGEST = 1023

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.skipped = 0
        """Windows left out."""
        self._now_s = now_s
        self._waited_s = now_s()

    def samples(self, source: Iterator[Samples]) -> Iterator[Samples]:
        """The same samples, watched for how long they are waited for."""
        while True:
            began_s = self._now_s()
            samples = next(source, None)
            ended_s = self._now_s()
            if ended_s - began_s > self._WAITED_S:
                self._waited_s = ended_s
            if samples is None:
                return
            yield samples

    def spans(self, spans: Iterator[Span]) -> Iterator[Span]:
        """The spans less those that are left out; each is asked for when the last one is due."""
        left_out = 0
        for span in spans:
            yield span
            busy = self._now_s() - self._waited_s > self.BUSY_S
            left_out = min(2 * left_out + 1, self._LONGEST) if busy else 0
            self.skipped += sum(1 for _ in islice(spans, left_out))


def in_real_time(
    chunks: Iterator[Samples],
    now_s: Callable[[], float] = time.monotonic,
    sleep_s: Callable[[float], None] = time.sleep,
) -> Iterator[Samples]:
    """The same samples in small pieces, each handed out when its last sample is due."""
    began_s = now_s()
    first_s: float | None = None
    for chunk in chunks:
        starts = range(0, len(chunk), PACKET_SAMPLES)
        # All at once: a processor that is woken for every piece does it with cold caches.
        pieces = [chunk[start : start + PACKET_SAMPLES] for start in starts]
        last = [min(start + PACKET_SAMPLES, len(chunk)) - 1 for start in starts]
        for piece, due_s in zip(pieces, chunk.t_s[last].tolist(), strict=True):
            if first_s is None:
                first_s = float(chunk.t_s[0])
            wait_s = due_s - first_s - (now_s() - began_s)
            if wait_s > 0:  # False for NaN stamps: they wait for nothing
                sleep_s(wait_s)
            yield piece
