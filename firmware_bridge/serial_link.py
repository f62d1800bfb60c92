"""Wearables on a serial line: ports, baud rates, reading.

    link = open_serial(choose_port())
    print(link.details)
    link.read_packets(deliver, stopped)

A port is whatever pyserial opens: /dev/ttyACM0, COM3, socket://192.168.1.4:7000, loop://. Opening
one asserts DTR, which many boards take for a reset and others need before they send; what the boot
loader then says is counted by the decoders as what came before the first message.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import serial
from serial.tools import list_ports as pyserial_ports

from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Decoder, Deliver
from firmware_bridge.serial_formats import (
    MAX_DETECT_BYTES,
    SerialFormat,
    TellingDecoder,
    detect,
)

BAUD_RATES = (115_200, 921_600, 230_400, 57_600, 38_400, 9_600)
"""In the order they are tried."""

LISTEN_S = 2.5
"""For a format, at one baud rate, from the first byte on."""

SILENCE_S = 10.0
"""For the first byte: boards boot in 2 s, some radios take longer."""

_ROUNDS = 2
"""Over the baud rates: in the first one a board may still have been booting."""

_TIMEOUT_S = 0.1
"""How soon a reader sees that it is to stop."""

_SOCKET_TIMEOUT_S = 0.01
_CHUNK_BYTES = 4096


@dataclass(frozen=True)
class SerialOptions:
    """What the user states; None finds out."""

    baud: int | None = None
    rate_hz: float | None = None
    """Nominal rate of the device."""
    acc_unit: str | None = None
    """Of formats that leave it open: a key of `samples.ACC_UNITS_MPS2`."""
    gyro_unit: str | None = None


@dataclass(frozen=True)
class PortInfo:
    """A serial port of this machine."""

    port: str
    description: str
    likely: bool
    """Whether something is plugged in: a USB device, not a port of the mainboard."""


def list_ports() -> list[PortInfo]:
    """The serial ports, the likely ones first."""
    ports = [
        PortInfo(p.device, p.description or "", p.vid is not None)
        for p in pyserial_ports.comports()
    ]
    return sorted(ports, key=lambda p: (not p.likely, p.port))


def choose_port(ports: Sequence[PortInfo] | None = None) -> str:
    """The only likely port.

    Args:
        ports: to choose from; those of this machine by default.

    Raises:
        AuraError: there is none.
        InputError: there are several.
    """
    ports = list_ports() if ports is None else ports
    likely = [p for p in ports if p.likely]
    if len(likely) == 1:
        return likely[0].port
    if not likely:
        others = f"; ports without a USB device: {_names(ports)}" if ports else ""
        raise AuraError(
            f"no serial device is plugged in{others}; a cable that only charges shows none. "
            "Name the port with --device serial:PORT"
        )
    listed = ", ".join(f"{p.port} ({p.description})" for p in likely)
    raise InputError(f"several serial devices: {listed}; name one with --device serial:PORT")


@dataclass
class SerialLink:
    """An open port whose format is known."""

    port: Any
    """`serial.SerialBase`."""
    name: str
    """As it was asked for."""
    format: SerialFormat
    decoder: TellingDecoder
    baud: int | None
    """None for a port without one, such as a socket."""
    rate_hz: float | None
    """That the user states."""

    @property
    def decoders(self) -> Mapping[str, Decoder]:
        """For their counts."""
        return {"imu": self.decoder}

    @property
    def nominal_hz(self) -> float:
        """What the user or the device says; 0 where neither does."""
        return self.rate_hz or self.decoder.nominal_hz

    @property
    def details(self) -> str:
        """Port, baud rate, format and why, for people."""
        baud = "" if self.baud is None else f" at {self.baud} baud"
        why = f"{self.format.name} ({self.format.reason})"
        return f"{self.name}{baud}: {why}; {self.decoder.decided}"

    def read_packets(self, deliver: Deliver, stopped: Callable[[], bool]) -> None:
        """`read_packets` of this link.

        Raises:
            AuraError: the device was unplugged.
        """
        read_packets(self.port, self.decoder, deliver, stopped)

    def close(self) -> None:
        """Close the port."""
        self.port.close()


def open_serial(
    port: str,
    options: SerialOptions | None = None,
    stopped: Callable[[], bool] = lambda: False,
    listen_s: float = LISTEN_S,
    silence_s: float = SILENCE_S,
) -> SerialLink:
    """Open a port and find out what comes from it.

    What is heard until the format is known prepares the decoder and is not handed on: it arrived
    while nobody noted when.

    Args:
        port: a name or URL that pyserial opens.
        options: what the user states.
        stopped: asked all the time; True gives up.
        listen_s: for a format, at each baud rate.
        silence_s: for the first byte.

    Raises:
        AuraError: the port cannot be opened or is silent, nothing known comes from it, or it was
            given up.
        InputError: an option or the port's name makes no sense, or a unit has to be stated.
    """
    options = options or SerialOptions()
    opened = _open(port, options.baud or BAUD_RATES[0])
    try:
        rates: tuple[int | None, ...] = (options.baud,) if options.baud else BAUD_RATES
        if port.startswith(("socket://", "loop://")):
            rates = (None,)
        return _recognise(opened, port, rates, options, stopped, listen_s, silence_s)
    except BaseException:
        opened.close()
        raise


def _recognise(
    port: Any,
    name: str,
    rates: tuple[int | None, ...],
    options: SerialOptions,
    stopped: Callable[[], bool],
    listen_s: float,
    silence_s: float,
) -> SerialLink:
    heard = b""
    for baud in rates * _ROUNDS:
        if baud is not None and port.baudrate != baud:
            _set_baud(port, name, baud)
        found, heard = _listen(port, name, options, stopped, listen_s, silence_s)
        if found:
            decoder = found.decoder()
            decoder.feed(heard)
            if decoder.problem:
                raise InputError(f"{name}: {found.name}, but {decoder.problem}")
            return SerialLink(port, name, found, decoder, baud, options.rate_hz)
    tried = ", ".join(str(b) for b in rates if b is not None)
    raise AuraError(
        f"{name}: what comes is in no format that is known"
        + (f" (tried {tried} baud)" if tried else "")
        + f"; the last {len(heard)} bytes began {heard[:24]!r}. Known are CSV lines of 3, 6 or 9 "
        "numbers or with a header naming the axes (accX,accY,accZ,...), WitMotion, x-IMU3, and "
        "firmware_bridge/PROTOCOL.md; another baud rate is set with --baud"
    )


def _listen(
    port: Any,
    name: str,
    options: SerialOptions,
    stopped: Callable[[], bool],
    listen_s: float,
    silence_s: float,
) -> tuple[SerialFormat | None, bytes]:
    """The format, and all that was heard."""
    heard = bytearray()
    began_s = time.monotonic()
    first_s: float | None = None
    while True:
        if stopped():
            raise AuraError(f"{name}: stopped before anything was recognised")
        heard += _read(port, name)
        del heard[:-MAX_DETECT_BYTES]
        now_s = time.monotonic()
        if first_s is None:
            if heard:
                first_s = now_s
            elif now_s - began_s > silence_s:
                raise AuraError(
                    f"{name}: nothing came in {silence_s:g} s; is the device on and sending?"
                )
        elif now_s - first_s > listen_s:
            data = bytes(heard)
            return detect(data, options.acc_unit, options.gyro_unit), data


def read_packets(
    port: Any,
    decoder: Decoder,
    deliver: Deliver,
    stopped: Callable[[], bool],
) -> None:
    """Read in the calling thread until `stopped` says so.

    Args:
        port: an open `serial.SerialBase`.
        decoder: of what comes.
        deliver: called with the packets of each read, as soon as they are there.
        stopped: asked every 0.1 s at least.

    Raises:
        AuraError: the device was unplugged.
    """
    while not stopped():
        data = _read(port, str(port.port))
        packets = decoder.feed(data) if data else []
        if packets:
            deliver(packets)


def _read(port: Any, name: str) -> bytes:
    """What has come: at once what is there, else the first bytes within the port's timeout."""
    try:
        if str(port.port).startswith("socket://"):
            # pyserial does not tell how much waits in a socket.
            return bytes(port.read(_CHUNK_BYTES))
        first = bytes(port.read(1))
        waiting = port.in_waiting if first else 0
        return first + bytes(port.read(min(waiting, _CHUNK_BYTES))) if waiting else first
    except OSError as e:  # SerialException is one
        raise AuraError(f"{name} was unplugged, or its connection closed ({e})") from e


def _open(name: str, baud: int) -> Any:
    timeout_s = _SOCKET_TIMEOUT_S if name.startswith("socket://") else _TIMEOUT_S
    try:
        port = serial.serial_for_url(name, baudrate=baud, timeout=timeout_s, do_not_open=True)
        if "://" not in name:
            port.exclusive = True
        port.open()
    except ValueError as e:
        raise InputError(f"{name!r} cannot be opened as a serial port: {e}") from e
    except OSError as e:
        raise AuraError(_why_not_opened(name, e)) from e
    return port


def _set_baud(port: Any, name: str, baud: int) -> None:
    try:
        port.baudrate = baud
        port.reset_input_buffer()
    except (ValueError, OSError) as e:
        raise AuraError(f"{name}: cannot be set to {baud} baud ({e})") from e


def _why_not_opened(name: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"{name}: there is no such port; there are: {_names(list_ports()) or 'none'}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{name}: no permission. On Linux: sudo usermod -a -G dialout $USER, then log in "
            f"again. Elsewhere another program may have it open ({error})"
        )
    if error.errno in (errno.EBUSY, errno.EAGAIN):
        return f"{name}: another program has it open (a serial monitor?); close it"
    return f"{name}: cannot be opened: {error}"


def _names(ports: Sequence[PortInfo]) -> str:
    return ", ".join(p.port for p in ports)
