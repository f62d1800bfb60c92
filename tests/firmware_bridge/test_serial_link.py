"""Serial ports: pseudo terminals, loop:// and sockets instead of boards."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import serial
from test_serial_formats import ESP32_BOOT, SI, STREAMS, garbled

from firmware_bridge import serial_link
from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Packet
from firmware_bridge.serial_formats import CsvDecoder
from firmware_bridge.serial_link import (
    PortInfo,
    SerialOptions,
    choose_port,
    list_ports,
    open_serial,
    read_packets,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are POSIX")

LISTEN_S, SILENCE_S = 0.3, 20.0
"""Shorter and longer than in use: the boards here send at once, if the machine lets them."""

PATIENCE_S = 60.0
"""After which a test gives up instead of hanging."""


class Board:
    """Something that sends over one end of a pseudo terminal, in a thread of its own.

    Args:
        stream: said again and again, after `boot`.
        baud: at another rate the host reads garbage; None for a USB device, which has none.
    """

    def __init__(self, stream: bytes, boot: bytes = b"", baud: int | None = None) -> None:
        import tty

        self.end, self._other = os.openpty()
        for fd in (self.end, self._other):
            tty.setraw(fd)
        os.set_blocking(self.end, False)
        self.port = os.ttyname(self._other)
        self._stream, self._boot, self._baud = stream, boot, baud
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Board:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def unplug(self) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            os.close(self._other)
            os.close(self.end)

    def _send(self) -> None:
        said = self._boot + self._stream
        while not self._stopped.is_set():
            for start in range(0, len(said), 512):
                chunk = said[start : start + 512]
                rate = self._rate()
                if self._baud is not None and rate != self._baud:
                    chunk = garbled(chunk, self._baud, rate)
                with suppress(BlockingIOError):  # nobody reads: a UART does not wait either
                    os.write(self.end, chunk)
                if self._stopped.wait(0.005):
                    return
            said = self._stream

    def _rate(self) -> int:
        """What the host set: both ends share the terminal's settings."""
        import termios

        code = termios.tcgetattr(self._other)[5]
        return next(
            r for r in (*serial_link.BAUD_RATES, 19_200) if getattr(termios, f"B{r}") == code
        )


def opened(port: str, options: SerialOptions | None = None) -> serial_link.SerialLink:
    return open_serial(port, options, listen_s=LISTEN_S, silence_s=SILENCE_S)


def collect(link: serial_link.SerialLink, n: int) -> list[Packet]:
    """Packets of at least n samples."""
    packets: list[Packet] = []
    until = time.monotonic() + PATIENCE_S

    def enough() -> bool:
        return sum(len(p.values) for p in packets) >= n or time.monotonic() > until

    link.read_packets(packets.extend, enough)
    return packets


def rows_of(packets: list[Packet]) -> np.ndarray:
    return np.concatenate([p.values for p in packets])


def is_in(rows: np.ndarray, expected: np.ndarray) -> bool:
    """Whether each row is one of the expected ones, to the precision of three decimals."""
    return all(np.abs(expected - row).max(axis=1).min() < 0.006 for row in rows)


@posix
@pytest.mark.parametrize("name", ["forwarder", "witmotion", "ximu binary", "native"])
def test_a_board_is_recognised_and_read(name: str) -> None:
    with Board(STREAMS[name], boot=ESP32_BOOT) as board:
        link = opened(board.port)
        packets = collect(link, 300)
        link.close()
    assert is_in(rows_of(packets)[:300], SI)
    assert link.baud == 115_200 and link.decoders["imu"] is link.decoder
    assert link.details.startswith(f"{board.port} at 115200 baud: {link.format.name} (")
    assert link.nominal_hz == (100 if name == "native" else 0)


@posix
def test_the_baud_rate_is_found() -> None:
    with Board(STREAMS["witmotion"], baud=57_600) as board:
        link = opened(board.port)
        assert link.baud == 57_600 and len(rows_of(collect(link, 50))) >= 50
        link.close()


@posix
def test_a_stated_baud_rate_is_the_only_one_tried() -> None:
    with Board(STREAMS["forwarder"], baud=19_200) as board:
        with pytest.raises(AuraError, match="in no format that is known \\(tried 9600 baud\\)"):
            opened(board.port, SerialOptions(baud=9_600))
        link = opened(board.port, SerialOptions(baud=19_200, rate_hz=50, acc_unit="mg"))
        assert link.baud == 19_200 and link.nominal_hz == 50
        assert "acc in mg (as asked)" in link.details
        link.close()


@posix
def test_an_unplugged_board_is_an_error_that_says_so() -> None:
    with Board(STREAMS["native"]) as board:
        link = opened(board.port)
        packets: list[Packet] = []

        def deliver(more: list[Packet]) -> None:
            packets.extend(more)
            board.unplug()

        with pytest.raises(AuraError, match=f"{board.port} was unplugged"):
            link.read_packets(deliver, lambda: False)
        link.close()
    assert packets


@posix
def test_a_silent_board() -> None:
    with Board(b"") as board, pytest.raises(AuraError, match=r"nothing came in 0\.2 s"):
        open_serial(board.port, silence_s=0.2)


@posix
def test_opening_can_be_given_up() -> None:
    with Board(b"") as board, pytest.raises(AuraError, match="stopped before anything"):
        open_serial(board.port, stopped=lambda: True)


@posix
def test_a_board_whose_unit_has_to_be_stated() -> None:
    with (
        Board(b"100,200,16384,5,6,7\n" * 30) as board,
        pytest.raises(InputError, match=r"CSV lines, but .* near 1 g in none .* --acc-unit"),
    ):
        opened(board.port)


@posix
def test_a_port_that_another_program_has_open() -> None:
    with Board(STREAMS["forwarder"]) as board:
        link = opened(board.port)
        with pytest.raises(AuraError, match="another program has it open"):
            opened(board.port)
        link.close()


@posix
@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EACCES, "usermod -a -G dialout"),
        (errno.EPERM, "another program may have it open"),
        (errno.EBUSY, "another program has it open .a serial monitor"),
    ],
)
def test_a_port_that_may_not_be_opened(
    monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    class Forbidden(serial.Serial):
        def open(self) -> None:
            raise serial.SerialException(number, f"could not open port {self.port}")

    monkeypatch.setattr(serial, "serial_for_url", lambda name, **_: Forbidden())
    with pytest.raises(AuraError, match=cure):
        open_serial("/dev/ttyACM0")


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AuraError, match=r"there is no such port; there are: "):
        open_serial(str(tmp_path / "ttyUSB9"))
    with pytest.raises(InputError, match="nonsense://x"):
        open_serial("nonsense://x")


@contextmanager
def server(stream: bytes) -> Iterator[tuple[str, Callable[[], None]]]:
    """A board behind TCP: its URL, and what hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    gone = threading.Event()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, suppress(OSError):
            peer.settimeout(0.1)
            while not gone.wait(0.005):
                with suppress(TimeoutError):
                    peer.sendall(stream)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"socket://127.0.0.1:{listener.getsockname()[1]}", gone.set
    finally:
        gone.set()
        thread.join()
        listener.close()


def test_a_board_behind_tcp() -> None:
    with server(STREAMS["ximu ascii"]) as (url, hang_up):
        link = opened(url)
        assert link.baud is None and link.details.startswith(f"{url}: x-IMU3 (")
        assert is_in(rows_of(collect(link, 100))[:100], SI)
        hang_up()
        with pytest.raises(AuraError, match=f"{url} was unplugged, or its connection closed"):
            link.read_packets(lambda _: None, lambda: False)
        link.close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(AuraError, match=f"{url}: cannot be opened"):
        open_serial(url)


def test_reading_over_a_loop_delivers_what_each_read_brought() -> None:
    port = serial.serial_for_url("loop://", timeout=0.01)
    decoder = CsvDecoder("g", "deg/s")
    deliveries: list[list[Packet]] = []
    lines = [b"\n0,0,1,0,0,0\n", b"0,0,2,0,0,0\n0,0,3,0,", b"0,0\n"]

    def stopped() -> bool:
        if lines:
            port.write(lines.pop(0))
            return False
        return not port.in_waiting

    read_packets(port, decoder, deliveries.append, stopped)
    port.close()
    assert [[len(p.values) for p in delivery] for delivery in deliveries] == [[1], [1], [1]]
    with pytest.raises(AuraError, match="unplugged"):
        read_packets(port, decoder, deliveries.append, lambda: False)


def test_the_only_usb_device_is_chosen() -> None:
    usb = PortInfo("/dev/ttyACM0", "Nano 33 BLE", True)
    board = PortInfo("/dev/ttyS0", "n/a", False)
    assert choose_port([board, usb]) == "/dev/ttyACM0"
    with pytest.raises(InputError, match=r"/dev/ttyACM0 \(Nano 33 BLE\), COM3 \(WCH\)"):
        choose_port([usb, PortInfo("COM3", "WCH", True)])
    with pytest.raises(AuraError, match="no serial device is plugged in; a cable"):
        choose_port([])
    with pytest.raises(AuraError, match="ports without a USB device: /dev/ttyS0"):
        choose_port([board])


def test_ports_of_this_machine_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.tools.list_ports_common import ListPortInfo

    plugged, soldered = ListPortInfo("/dev/ttyUSB0"), ListPortInfo("/dev/ttyS0")
    plugged.vid, plugged.description = 0x1A86, "USB Serial"
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [soldered, plugged])
    ports = list_ports()
    assert [p.port for p in ports] == ["/dev/ttyUSB0", "/dev/ttyS0"]
    assert [p.likely for p in ports] == [True, False]
    assert choose_port() == "/dev/ttyUSB0"
