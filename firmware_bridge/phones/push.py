"""Where Sensor Logger's pushes arrive: a bounded HTTP server.

LiveSource(lambda inbox: run_sensor_logger(sensor_logger_address("8000"), inbox, say), say)
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Counts
from firmware_bridge.live import Inbox
from firmware_bridge.phones.network import Address, Say, address_of
from firmware_bridge.phones.sensor_logger import (
    Arrived,
    Message,
    SensorLoggerDecoder,
    message_of,
)

MAX_MESSAGE_BYTES = 8 << 20
"""Of Sensor Logger: ten seconds of all its sensors."""

SILENCE_S = 10.0
"""A phone that has sent nothing for so long is gone."""

_TICK_S = 0.25
_CONNECTIONS = 16


def sensor_logger_address(text: str) -> Address:
    """[ADDRESS:]PORT to listen at; on this machine only unless the address says otherwise.

    Raises:
        InputError: it is none.
    """
    host, colon, port = text.rpartition(":")
    address = address_of(host if colon else "127.0.0.1", port)
    if address is None:
        raise InputError(
            f"sensorlogger:{text}: expected sensorlogger:PORT, which this machine alone can reach, "
            "or sensorlogger:ADDRESS:PORT: sensorlogger:0.0.0.0:8000 for every phone in your "
            "network"
        )
    return address


def run_sensor_logger(address: Address, inbox: Inbox, say: Say) -> None:
    """Listen for Sensor Logger until `inbox` is stopped. One phone at a time is listened to.

    Raises:
        AuraError: it cannot be listened there, or what the phone sends cannot be used.
    """
    receiver = _Receiver(inbox, say)
    try:
        server = _Server(address, receiver)
    except (OSError, UnicodeError) as error:
        raise AuraError(
            f"cannot listen at {address} ({error}): choose another port, or an address of this "
            "machine"
        ) from None
    thread = threading.Thread(
        target=server.serve_forever, args=(_TICK_S,), name="sensor logger", daemon=True
    )
    thread.start()
    try:
        say(_invitation(Address(address.host, server.server_address[1])))
        while not inbox.stopped.wait(_TICK_S):
            receiver.tick()
            if receiver.refused:
                raise AuraError(receiver.refused)
    finally:
        inbox.lost()
        server.shutdown()
        server.server_close()


def _invitation(address: Address) -> str:
    """What the user has to type into the phone."""
    where = "in Sensor Logger: Settings > Data Streaming > HTTP Push, Push URL"
    if address.host in ("127.0.0.1", "localhost"):
        return (
            f"waiting at http://{address}/ for this machine only; for a phone say --device "
            f"sensorlogger:0.0.0.0:{address.port}"
        )
    if address.host == "0.0.0.0":
        address = Address(_own_address(), address.port)
    return (
        f"waiting for Sensor Logger ({where} http://{address}/). Anyone in this network can send "
        "there"
    )


def _own_address() -> str:
    """Of this machine in its network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # for documentation (RFC 5737); nothing is sent
        except OSError:
            return "ADDRESS-OF-THIS-MACHINE"
        return str(sock.getsockname()[0])


@dataclass
class _Following:
    """The recording that is listened to."""

    session: str
    device: str
    decoder: SensorLoggerDecoder
    heard_s: float
    is_open: bool = False
    is_gone: bool = False
    ended: deque[str] = field(default_factory=lambda: deque(maxlen=16))
    """Sessions before it."""


class _Receiver:
    """Sorts messages by recording. Any thread may call it."""

    def __init__(self, inbox: Inbox, say: Say) -> None:
        self.refused = ""
        self._inbox, self._say = inbox, say
        self._lock = threading.Lock()
        self._now: _Following | None = None
        self._spare: Counts = Counter()  # before there is a decoder

    def receive(self, body: bytes) -> HTTPStatus:
        """Take the body of a push; returns what to answer."""
        message = message_of(body)
        with self._lock:
            if message is None:
                self._count("malformed")
                return HTTPStatus.BAD_REQUEST
            return self._receive(message, time.monotonic())

    def drop(self, why: str) -> None:
        """Count a request that was not even read."""
        with self._lock:
            self._count(why)

    def tick(self) -> None:
        """To be called now and then."""
        with self._lock:
            now, now_s = self._now, time.monotonic()
            if now is None or now.is_gone:
                return
            self._hand_on(now, now.decoder.overdue(now_s))
            if now_s - now.heard_s > SILENCE_S:
                now.is_gone = True
                if now.is_open:
                    self._inbox.lost()
                    self._say(f"nothing from Sensor Logger for {SILENCE_S:.0f} s; waiting for it")

    def _count(self, why: str) -> None:
        (self._now.decoder.counts if self._now else self._spare)[why] += 1

    def _receive(self, message: Message, now_s: float) -> HTTPStatus:
        now = self._now
        if now is None or message.session != now.session:
            if not message.readings:  # "Tap to Test Pushing", or other sensors alone
                return HTTPStatus.OK
            if now is not None and message.session in now.ended:
                self._count("late")
                return HTTPStatus.OK
            if now is not None and message.device != now.device and not now.is_gone:
                self._count("another phone")
                return HTTPStatus.CONFLICT
            now = self._begin(message, now_s)
        elif now.is_gone:
            now.decoder, now.is_open, now.is_gone = now.decoder.successor(), False, False
        now.heard_s = now_s
        self._hand_on(now, now.decoder.take(message, now_s))
        return HTTPStatus.OK

    def _begin(self, message: Message, now_s: float) -> _Following:
        before, self._now = (
            self._now,
            _Following(message.session, message.device, SensorLoggerDecoder(), now_s),
        )
        self._now.decoder.counts.update(self._spare)
        self._spare.clear()
        if before is not None:
            self._now.ended.extend([*before.ended, before.session])
            if before.is_open:
                self._inbox.lost()
        return self._now

    def _hand_on(self, now: _Following, released: Iterable[Arrived]) -> None:
        choice = now.decoder.choice
        self.refused = now.decoder.refused
        if choice is None:
            return
        if not now.is_open:
            decoders = {"sensorlogger": now.decoder}
            self._inbox.opened(choice.kinds, 0.0, decoders, choice.details)
            now.is_open = True
            self._say(f"connected to {choice.details}")
            if choice.note:
                self._say(choice.note)
        for arrival_s, packets in released:
            self._inbox.deliver(packets, arrival_s)


class _Server(ThreadingHTTPServer):
    """Listens for pushes; a bounded number at a time."""

    request_queue_size = _CONNECTIONS

    def __init__(self, address: Address, receiver: _Receiver) -> None:
        self.receiver = receiver
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__((address.host, address.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.receiver.drop("too many connections")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that hung up or sent what is not HTTP is counted, not printed."""
        self.receiver.drop("connection")


class _Handler(BaseHTTPRequestHandler):
    """One push."""

    timeout = 5.0  # for every read of the socket
    server_version, sys_version = "aura-edge", ""

    def do_POST(self) -> None:
        """Read the body and answer."""
        receiver = self.server.receiver  # type: ignore[attr-defined]
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) <= 20):
            receiver.drop("length")
            self._answer(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MAX_MESSAGE_BYTES:
            receiver.drop("too long")
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self._read(int(length))
            if body is None:
                receiver.drop("incomplete")
                self._answer(HTTPStatus.BAD_REQUEST)
            else:
                self._answer(receiver.receive(body))

    def _read(self, length: int) -> bytes | None:
        """The body, None where it does not come in time."""
        until_s = time.monotonic() + 2 * self.timeout
        body = bytearray()
        while len(body) < length and time.monotonic() < until_s:
            try:
                part = self.rfile.read1(min(length - len(body), 1 << 16))
            except TimeoutError:
                return None
            if not part:
                return None
            body += part
        return bytes(body) if len(body) == length else None

    def _answer(self, status: HTTPStatus) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal shows labels."""
