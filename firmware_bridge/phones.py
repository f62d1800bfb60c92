"""Phones as wearables, over the network: phyphox is asked, Sensor Logger sends.

    LiveSource(lambda inbox: run_phyphox(phyphox_address("192.168.0.42"), inbox, say), say)
    LiveSource(lambda inbox: run_sensor_logger(sensor_logger_address("8000"), inbox, say), say)

**phyphox** ("Allow remote access" in the menu of an experiment) serves what it measures over HTTP.
Its buffers grow while it measures; a poll asks for what is later than the last sample it brought.
Nothing is lost by a poll that fails: the next one brings it. Source: RemoteServer.java of
github.com/phyphox/phyphox-android, ExperimentWebServer.swift and ExperimentSensorInput.swift of
phyphox-ios, docs/remote-interface/openapi.yaml of phyphox-docs. Never run against a real phone.

**Sensor Logger** ("HTTP Push" in its settings) posts JSON, all sensors together, about once a
second. Messages carry a running number and may arrive in another order. Source: PUSHING.md,
UNITS.md, CROSSPLATFORM.md of github.com/tszheichoi/awesome-sensor-logger; the form of a reading
({"name", "time", "values": {"x", "y", "z"}}) is from messages of an iPhone and of an Android phone
that others published. Never run against a real phone. Unverified: whether the app sends a message
again that failed, and whether messageId begins with 0 (not relied on).

Neither has any authentication or encryption: who can reach the port can read, or make up, data.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Counts, Kind, Packet
from firmware_bridge.live import Inbox
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2

POLL_S = 0.2
"""phyphox' server answers one request at a time and slowly (openapi.yaml)."""

TIMEOUT_S = 2.0
"""For a phone's answer. Below the time that a link has for stopping."""

MAX_ANSWER_BYTES = 4 << 20
"""20 s of two sensors at 500 Hz, as phyphox writes it."""

MAX_MESSAGE_BYTES = 8 << 20
"""Of Sensor Logger: ten seconds of all its sensors."""

MAX_READINGS = 100_000
"""In a message of Sensor Logger, or rows in an answer of phyphox."""

HELD_MESSAGES, HELD_S = 8, 2.0
"""So many messages, and for so long, wait for one before them that has not come."""

LEARNING_S = 2.0
"""How much of a recording is looked at before it is decided which sensors are used."""

SILENCE_S = 10.0
"""A phone that has sent nothing for so long is gone."""

_PHYPHOX_PORT = 8080
"""Of Android; an iPhone takes 80."""

_FAILED_POLLS = 3
"""In a row, after which the phone is gone. Until then the next poll brings what they did not."""

_EMPTY_POLLS = 10
"""In a row, after which the buffers may have been cleared."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_TICK_S = 0.25
_CONNECTIONS = 16
_ID_CHARS = 200
_MAX_TIME_NS = 1 << 62
_MAX_WAITING = 50_000
_GRAVITY_BRACKET_S = 0.25
"""Gravity is interpolated between samples less than this apart, as the gyroscope is."""

Floats = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Address:
    """Where a phone listens, or we do."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def phyphox_address(text: str) -> Address:
    """HOST[:PORT] as phyphox shows it; the port is 8080 unless stated.

    Raises:
        InputError: it is none.
    """
    text = text.removeprefix("http://").rstrip("/")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # [fe80::1] without a port
        host, port = text, str(_PHYPHOX_PORT)
    address = _address(host, port)
    if address is None or address.port == 0:
        raise InputError(
            f"phyphox:{text}: expected phyphox:HOST or phyphox:HOST:PORT, as phyphox shows it when "
            "'Allow remote access' is switched on: phyphox:192.168.0.42:8080 (an iPhone's port is "
            "80)"
        )
    return address


def sensor_logger_address(text: str) -> Address:
    """[ADDRESS:]PORT to listen at; on this machine only unless the address says otherwise.

    Raises:
        InputError: it is none.
    """
    host, colon, port = text.rpartition(":")
    address = _address(host if colon else "127.0.0.1", port)
    if address is None:
        raise InputError(
            f"sensorlogger:{text}: expected sensorlogger:PORT, which this machine alone can reach, "
            "or sensorlogger:ADDRESS:PORT: sensorlogger:0.0.0.0:8000 for every phone in your "
            "network"
        )
    return address


def _address(host: str, port: str) -> Address | None:
    """None where it cannot be one. The host goes into a URL as it is."""
    is_host = bool(host) and all(c.isalnum() or c in ".-_[]:%" for c in host)
    is_port = port.isascii() and port.isdecimal() and int(port) <= 0xFFFF
    return Address(host, int(port)) if is_host and is_port else None


# --- phyphox --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Experiment:
    """What an experiment of phyphox measures."""

    title: str
    buffers: Mapping[Kind, tuple[str, str, str, str]]
    """Names of the buffers of "acc" and, where it has one, "gyro": time, x, y, z."""


_PHYPHOX_CURE = (
    "open 'Acceleration with g', or better, press + and make a simple experiment of Accelerometer "
    "and Gyroscope"
)
_PHYPHOX_SOURCES: dict[str, Kind] = {"accelerometer": "acc", "gyroscope": "gyro"}
"""Both apps have them in m/s^2, upwards +1 g (iOS multiplies by -9.81), and rad/s."""


def experiment_of(config: bytes) -> Experiment:
    """What the answer to /config (phyphox 1.1.6 and newer) says.

    Raises:
        AuraError: the experiment has no accelerometer, or the answer is none of phyphox.
    """
    answer = _json(config)
    inputs = answer.get("inputs") if isinstance(answer, dict) else None
    if not isinstance(inputs, list):
        raise _GoneError(
            "what answers is not phyphox 1.1.6 or newer; update the app and open an experiment in "
            "it"
        )
    sources = [one.get("source") for one in inputs if isinstance(one, dict)]
    buffers: dict[Kind, tuple[str, str, str, str]] = {}
    for one, source in zip([i for i in inputs if isinstance(i, dict)], sources, strict=True):
        kind = _PHYPHOX_SOURCES.get(source) if isinstance(source, str) else None
        names = _outputs(one.get("outputs"))
        if kind and names and kind not in buffers:
            buffers[kind] = names
    if "acc" not in buffers:
        if "linear_acceleration" in sources:
            raise AuraError(
                "this experiment of phyphox measures acceleration without gravity. Its direction "
                f"relative to gravity is lost and cannot be put back: {_PHYPHOX_CURE}"
            )
        raise AuraError(f"this experiment of phyphox has no accelerometer: {_PHYPHOX_CURE}")
    title = answer.get("title")
    return Experiment(title[:_ID_CHARS] if isinstance(title, str) else "", buffers)


def _outputs(outputs: object) -> tuple[str, str, str, str] | None:
    """Names of the buffers for t, x, y, z, which come as [{"x": "accX"}, ...]."""
    found: dict[str, str] = {}
    for output in outputs if isinstance(outputs, list) else []:
        for component, name in output.items() if isinstance(output, dict) else ():
            if isinstance(name, str) and 0 < len(name) <= _ID_CHARS:
                found[component] = name
    if not {"t", "x", "y", "z"} <= set(found):
        return None
    return found["t"], found["x"], found["y"], found["z"]


class PhyphoxDecoder:
    """Answers to /get -> packets, and what to ask for next.

    Args:
        experiment: whose buffers are read.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.counts: Counts = Counter()
        self.measuring = False
        """Whether the phone measures, by its last answer."""
        self.session: str | None = None
        """Another one means another experiment (openapi.yaml, Status)."""
        self._buffers = experiment.buffers
        self._since: dict[Kind, float] = {}  # empty: to be asked for
        self._asks_last = True
        self._empty = 0

    def query(self) -> str:
        """The parameters of the next /get: the last time in the buffers, or what is later than
        the last sample. The values are taken where their time buffer is above the threshold."""
        asked = {}
        for kind, names in self._buffers.items():
            if self._asks_last:
                asked[names[0]] = ""
            else:
                # Negative thresholds are not a number to older iPhones.
                since = f"{max(0.0, self._since[kind])!r}|{names[0]}"
                asked |= dict.fromkeys(names, since)
        return urlencode(asked, quote_via=quote)  # the | has to be encoded

    def feed(self, data: bytes) -> list[Packet]:
        """Take the answer to the last query."""
        answer = _json(data)
        buffers = answer.get("buffer") if isinstance(answer, dict) else None
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(buffers, dict) or not isinstance(status, dict):
            self.counts["malformed"] += 1
            return []
        self.measuring = status.get("measuring") is True
        session = status.get("session")
        self.session = session if isinstance(session, str) else None
        if self._asks_last:
            self._take_last(buffers)
            return []
        found = [self._packet(kind, buffers) for kind in self._buffers]
        packets = [packet for packet in found if packet is not None]
        self._empty = 0 if packets or not self.measuring else self._empty + 1
        self._asks_last = self._empty >= _EMPTY_POLLS
        return packets

    def _take_last(self, buffers: dict[str, Any]) -> None:
        """Begin at the end of what was measured before; or anew, if it was cleared since."""
        for kind, names in self._buffers.items():
            times = _column(buffers.get(names[0]))
            if times is None:
                self.counts["buffer"] += 1
                return
            last_s = float(times[-1]) if len(times) and math.isfinite(times[-1]) else 0.0
            if kind not in self._since:
                self._since[kind] = last_s
            elif last_s < self._since[kind]:
                self._since[kind] = 0.0
        self._asks_last, self._empty = False, 0

    def _packet(self, kind: Kind, buffers: dict[str, Any]) -> Packet | None:
        names = self._buffers[kind]
        columns = [_column(buffers.get(name)) for name in names]
        if any(column is None for column in columns):
            self.counts["buffer"] += 1
            return None
        # An older server may answer while it appends to one after the other.
        n = min(len(column) for column in columns if column is not None)
        rows = np.stack([column[:n] for column in columns if column is not None], axis=1)
        if _is_full(buffers.get(names[0])):  # unasked for: the buffers were cleared
            self._since[kind] = -math.inf
        finite = np.isfinite(rows).all(axis=1)
        self.counts["not a number"] += int((~finite).sum())
        rows, late = _rising(rows[finite], self._since[kind])
        self.counts["not later"] += late
        self.counts += Counter()  # without the zeros
        if not len(rows):
            return None
        self._since[kind] = float(rows[-1, 0])
        return Packet(kind, rows[:, 1:], rows[:, 0])


def _is_full(buffer: object) -> bool:
    return isinstance(buffer, dict) and buffer.get("updateMode") == "full"


def _column(buffer: object) -> Floats | None:
    """The numbers of a buffer, NaN for null; None where it is not one."""
    values = buffer.get("buffer") if isinstance(buffer, dict) else None
    if not isinstance(values, list) or len(values) > MAX_READINGS:
        return None
    if not all(value is None or isinstance(value, int | float) for value in values):
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        return None


def _rising(rows: Floats, since: float) -> tuple[Floats, int]:
    """The rows whose first column is above `since` and all before, and how many are not."""
    before = np.maximum.accumulate(np.concatenate([[since], rows[:, 0]]))[:-1]
    later = rows[:, 0] > before
    return rows[later], int((~later).sum())


class _GoneError(AuraError):
    """The phone does not answer, or not with what it should: it may again."""


def run_phyphox(address: Address, inbox: Inbox, say: Say) -> None:
    """Ask phyphox for its samples until `inbox` is stopped; again and again where it is gone.

    The measurement is started if it is not running, and then stopped at the end.

    Raises:
        AuraError: it cannot be reached at first, or its experiment cannot be used.
    """
    link = _Phyphox(address, inbox, say)
    failed = 0
    try:
        while not inbox.stopped.is_set():
            try:
                link.stream()
            except _GoneError as error:
                if not link.connections:
                    raise
                inbox.lost()
                failed = 0 if link.has_streamed else failed + 1
                pause_s = min(_FIRST_PAUSE_S * 2**failed, _LONGEST_PAUSE_S)
                say(f"{error}; trying again in {pause_s:g} s")
                inbox.stopped.wait(pause_s)
    finally:
        inbox.lost()
        link.stop()


class _Phyphox:
    """One phone, through all connections."""

    def __init__(self, address: Address, inbox: Inbox, say: Say) -> None:
        self.connections = 0
        self.has_streamed = False
        """Whether the last connection brought anything."""
        self._address, self._inbox, self._say = address, inbox, say
        self._was_started_here = False
        # Neither a proxy nor a redirection: the phone itself, or nothing.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            self._opener.add_handler(handler)

    def stream(self) -> None:
        """Connect and hand on what comes, until stopped.

        Raises:
            AuraError: the experiment cannot be used.
        """
        self.has_streamed = False
        experiment = experiment_of(self._get("/config"))
        decoder = PhyphoxDecoder(experiment)
        decoder.feed(self._get(f"/get?{decoder.query()}"))
        if not decoder.measuring:
            self._start()
        self.connections += 1
        sensors = "accelerometer, gyroscope" if "gyro" in experiment.buffers else "accelerometer"
        details = f"phyphox, experiment {experiment.title!r}: {sensors}"
        self._say(f"connected to {details}")
        self._poll(experiment, decoder, details)

    def stop(self) -> None:
        """Stop the measurement if it was started from here."""
        if self._was_started_here:
            try:
                self._get("/control?cmd=stop", TIMEOUT_S / 2)
            except _GoneError as error:
                self._say(f"phyphox was not told to stop: {error}")

    def _start(self) -> None:
        answer = _json(self._get("/control?cmd=start"))
        if isinstance(answer, dict) and answer.get("result") is True:
            self._was_started_here = True
        else:
            self._say("phyphox does not start by itself: press play on the phone")

    def _poll(self, experiment: Experiment, decoder: PhyphoxDecoder, details: str) -> None:
        session, is_open, failed = decoder.session, False, 0
        while not self._inbox.stopped.wait(POLL_S):
            try:
                answer = self._get(f"/get?{decoder.query()}")
            except _GoneError:
                failed += 1
                if failed >= _FAILED_POLLS:
                    raise
                continue
            failed = 0
            packets = decoder.feed(answer)
            if decoder.session != session:
                raise _GoneError("another experiment was opened in phyphox")
            if decoder.measuring and not is_open:
                self._inbox.opened(experiment.buffers, 0.0, {"phyphox": decoder}, details)
                is_open = True
            if is_open and packets:
                self._inbox.deliver(packets)
                self.has_streamed = True
            if is_open and not decoder.measuring:
                self._inbox.lost()
                is_open = False
                # Its clock stands still meanwhile; a new segment begins when it goes on.
                self._say("the measurement is paused; press play on the phone to go on")

    def _get(self, path: str, timeout_s: float = TIMEOUT_S) -> bytes:
        """An answer, whole and bounded in size and time."""
        url = f"http://{self._address}{path}"
        until_s = time.monotonic() + timeout_s
        answer = bytearray()
        try:
            with self._opener.open(url, timeout=timeout_s) as response:
                while part := response.read1(1 << 16):
                    answer += part
                    if len(answer) > MAX_ANSWER_BYTES or time.monotonic() > until_s:
                        raise _GoneError(f"phyphox at {self._address} answers without end")
        except urllib.error.HTTPError as error:
            error.close()
            raise _GoneError(f"phyphox at {self._address} answers {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise _GoneError(
                f"phyphox at {self._address} does not answer ({reason}): is its experiment open, "
                "'Allow remote access' switched on, and the phone in the same network?"
            ) from None
        return bytes(answer)


def _json(data: bytes) -> Any:
    """What it says, None where it is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


# --- Sensor Logger --------------------------------------------------------------------------------

_TOTAL, _USER, _GRAVITY = "totalacceleration", "accelerometer", "gravity"
_RAW_ACC, _GYRO, _RAW_GYRO = "accelerometeruncalibrated", "gyroscope", "gyroscopeuncalibrated"
_MOTION = frozenset({_TOTAL, _USER, _GRAVITY, _RAW_ACC, _GYRO, _RAW_GYRO})

_STANDARDISE = "Settings > Sensor Configuration > Standardise Units & Frames"


@dataclass(frozen=True)
class Message:
    """One push of Sensor Logger."""

    index: int
    """messageId: counts the messages of a recording."""
    session: str
    device: str
    readings: Mapping[str, tuple[NDArray[np.int64], Floats]]
    """By sensor, of those that are used: (n,) Unix times in ns and (n, 3) values as they came."""
    unusable: int
    """Readings of these sensors that are not three numbers with a time."""


def message_of(body: bytes) -> Message | None:
    """What a push says; None where it is not one."""
    message = _json(body)
    if not isinstance(message, dict):
        return None
    index, payload = message.get("messageId"), message.get("payload")
    ids = [message.get("sessionId"), message.get("deviceId")]
    if type(index) is not int or not 0 <= index < _MAX_TIME_NS:
        return None
    if not all(isinstance(one, str) and len(one) <= _ID_CHARS for one in ids):
        return None
    if not isinstance(payload, list) or len(payload) > MAX_READINGS:
        return None
    times: dict[str, list[int]] = {}
    values: dict[str, list[list[float]]] = {}
    unusable = 0
    for reading in payload:
        name = reading.get("name") if isinstance(reading, dict) else None
        if not isinstance(name, str):
            return None
        if name.lower() not in _MOTION:
            continue
        time_ns, xyz = _time_ns(reading.get("time")), _xyz(reading.get("values"))
        if time_ns is None or xyz is None:
            unusable += 1
            continue
        times.setdefault(name.lower(), []).append(time_ns)
        values.setdefault(name.lower(), []).append(xyz)
    readings = {
        name: (np.array(times[name], dtype=np.int64), np.array(values[name])) for name in times
    }
    return Message(index, str(ids[0]), str(ids[1]), readings, unusable)


def _time_ns(value: object) -> int | None:
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    return value if type(value) is int and 0 < value < _MAX_TIME_NS else None


def _xyz(values: object) -> list[float] | None:
    if not isinstance(values, dict):
        return None
    xyz = [values.get(axis) for axis in "xyz"]
    if not all(isinstance(v, int | float) and abs(v) < 1e9 for v in xyz):  # False for NaN
        return None
    return [float(v) for v in xyz if v is not None]


@dataclass(frozen=True)
class _Choice:
    """The sensors that a recording is read by."""

    acc: str
    factor: float
    """To m/s^2 with +1 g upwards."""
    adds_gravity: bool
    gyro: str | None
    unit: str
    """As it comes, for people."""
    note: str = ""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return ("acc", "gyro") if self.gyro else ("acc",)

    @property
    def details(self) -> str:
        """For people."""
        sensors = f"{self.acc} + {_GRAVITY}" if self.adds_gravity else self.acc
        return f"Sensor Logger: {sensors} in {self.unit}, {self.gyro or 'no gyroscope'}"


def _choose(readings: Mapping[str, list[Floats]]) -> _Choice | str:
    """The best of the sensors that were seen, or why there is none.

    Android's "totalacceleration" is its raw accelerometer. Of "accelerometer" (without gravity) and
    "gravity" nothing tells the sign, so they come last.
    """
    gyro = next((name for name in (_GYRO, _RAW_GYRO) if name in readings), None)
    if _TOTAL in readings:
        return _Choice(_TOTAL, 1.0, False, gyro, "m/s^2")
    if _RAW_ACC in readings:
        return _choose_raw(np.concatenate(readings[_RAW_ACC]), gyro)
    if _USER in readings and _GRAVITY in readings:
        return _Choice(
            _USER,
            1.0,
            True,
            gyro,
            "m/s^2",
            "note: the sign of the acceleration is taken as Android's. On an iPhone switch on "
            f"{_STANDARDISE}, or Accelerometer Uncalibrated, whose sign can be told",
        )
    cure = (
        "in Sensor Logger switch on Total Acceleration (Android) or Gravity beside Accelerometer, "
        "and Gyroscope"
    )
    if _USER in readings:
        return (
            "Sensor Logger sends acceleration without gravity only. Its direction relative to "
            f"gravity is lost and cannot be put back: {cure}"
        )
    return f"Sensor Logger sends no acceleration: {cure}"


def _choose_raw(values: Floats, gyro: str | None) -> _Choice | str:
    """An iPhone whose units are not standardised sends "accelerometeruncalibrated" in g with -1 g
    upwards, everything else in m/s^2 with +1 g (UNITS.md, CROSSPLATFORM.md): the magnitude
    tells."""
    median = float(np.median(np.linalg.norm(values, axis=1)))
    if 0.5 <= median <= 2.0:
        return _Choice(_RAW_ACC, -STANDARD_GRAVITY_MPS2, False, gyro, "g with an iPhone's sign")
    if 0.5 <= median / STANDARD_GRAVITY_MPS2 <= 2.0:
        return _Choice(_RAW_ACC, 1.0, False, gyro, "m/s^2")
    return (
        f"the median |acceleration| of {_RAW_ACC} is {median:.3g}, where a worn phone reads 1 (g) "
        "or 9.81 (m/s^2)"
    )


Arrived = tuple[float, list[Packet]]
"""Packets, and when the message that brought them arrived."""


class SensorLoggerDecoder:
    """Messages of one recording, in any order -> packets.

    Nothing comes out before `LEARNING_S` of it were seen and `choice` is made.
    """

    def __init__(self) -> None:
        self.counts: Counts = Counter()
        self.choice: _Choice | None = None
        self.refused = ""
        """Why the recording cannot be used."""
        self._held: dict[int, tuple[float, Message]] = {}
        self._next: int | None = None  # messageId
        self._epoch_ns: int | None = None
        self._last_s: dict[str, float] = {}
        self._gravity = _GravityAdder(self.counts)

    def successor(self) -> SensorLoggerDecoder:
        """For the same recording after a loss of the link: it need not learn again."""
        other = SensorLoggerDecoder()
        other.choice, other._next = self.choice, self._next
        other._epoch_ns, other._last_s = self._epoch_ns, dict(self._last_s)
        return other

    def feed(self, data: bytes) -> list[Packet]:
        """Take the body of one push. (A link has to know whose it is: it calls `take`.)"""
        message = message_of(data)
        if message is None:
            self.counts["malformed"] += 1
            return []
        return [p for _, packets in self.take(message, time.monotonic()) for p in packets]

    def take(self, message: Message, arrival_s: float) -> list[Arrived]:
        """Take a message; return what is now in order.

        Args:
            message: of this recording.
            arrival_s: seconds of the monotonic clock.
        """
        is_late = self._next is not None and message.index < self._next
        if is_late or message.index in self._held:
            self.counts["late" if is_late else "repeated"] += 1
            return []
        if message.unusable:
            self.counts["reading"] += message.unusable
        self._held[message.index] = (arrival_s, message)
        if self.choice is None and not self._learn():
            return []
        return self._in_order(arrival_s)

    def overdue(self, now_s: float) -> list[Arrived]:
        """What has waited long enough for a message that does not come."""
        return self._in_order(now_s) if self.choice else []

    def _learn(self) -> bool:
        """Choose the sensors once enough of them was seen."""
        messages = [message for _, message in self._held.values()]
        times = [t for message in messages for t, _ in message.readings.values()]
        span_s = np.ptp(np.concatenate(times)) * 1e-9 if times else 0.0
        if span_s < LEARNING_S and len(messages) < 4 * HELD_MESSAGES:
            return False
        seen: dict[str, list[Floats]] = {}
        for message in messages:
            for name, (_, values) in message.readings.items():
                seen.setdefault(name, []).append(values)
        choice = _choose(seen)
        if isinstance(choice, str):
            self.refused = choice
            self._held.clear()
            return False
        self.choice = choice
        self._epoch_ns = min(int(t.min()) for t in times)
        return True

    def _in_order(self, now_s: float) -> list[Arrived]:
        """Release what is next; and what is not, once too much or for too long it has waited."""
        released = []
        while self._held:
            first = min(self._held)
            waits_s = now_s - min(arrival_s for arrival_s, _ in self._held.values())
            is_next = self._next is None or first == self._next
            if not is_next and len(self._held) <= HELD_MESSAGES and waits_s < HELD_S:
                break
            if self._next is not None and first > self._next:
                self.counts["messages lost"] += first - self._next
            arrival_s, message = self._held.pop(first)
            self._next = first + 1
            packets = self._packets(message)
            if packets:
                released.append((arrival_s, packets))
        return released

    def _packets(self, message: Message) -> list[Packet]:
        assert self.choice is not None
        acc = self._rows(message, self.choice.acc)
        if self.choice.adds_gravity:
            acc = self._gravity.added(acc, self._rows(message, _GRAVITY))
        packets = []
        if len(acc):
            packets.append(Packet("acc", acc[:, 1:] * self.choice.factor, acc[:, 0]))
        if self.choice.gyro:
            gyro = self._rows(message, self.choice.gyro)
            if len(gyro):
                packets.append(Packet("gyro", gyro[:, 1:], gyro[:, 0]))
        return packets

    def _rows(self, message: Message, name: str) -> Floats:
        """(n, 4): seconds since the recording's first reading, x, y, z; ascending."""
        if name not in message.readings:
            return np.empty((0, 4))
        times_ns, values = message.readings[name]
        assert self._epoch_ns is not None
        # In integers: float64 holds Unix time to a quarter of a microsecond only.
        rows = np.column_stack([(times_ns - self._epoch_ns) * 1e-9, values])
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        rows, late = _rising(rows, self._last_s.get(name, -math.inf))
        if late:
            self.counts["not later"] += late
        if len(rows):
            self._last_s[name] = float(rows[-1, 0])
        return rows


class _GravityAdder:
    """Acceleration without gravity, and gravity -> acceleration. (Both come of one estimate and
    have the same times where it was looked at, but nothing promises it.)"""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._acc, self._gravity = np.empty((0, 4)), np.empty((0, 4))

    def added(self, acc: Floats, gravity: Floats) -> Floats:
        """(n, 4) rows of acceleration whose gravity is known by now, interpolated linearly."""
        self._acc = np.concatenate([self._acc, acc])[-_MAX_WAITING:]
        self._gravity = np.concatenate([self._gravity, gravity])[-_MAX_WAITING:]
        times = self._gravity[:, 0]
        if not len(times):
            return np.empty((0, 4))
        ready = int(np.searchsorted(self._acc[:, 0], times[-1], side="right"))
        acc, self._acc = self._acc[:ready], self._acc[ready:]
        before = np.searchsorted(times, acc[:, 0], side="right") - 1
        after = np.searchsorted(times, acc[:, 0], side="left")
        width_s = times[after] - times[np.maximum(before, 0)]
        known = (before >= 0) & (width_s < _GRAVITY_BRACKET_S)
        if not known.all():
            self._counts["no gravity"] += int((~known).sum())
        total = acc[known]
        for axis in (1, 2, 3):
            total[:, axis] += np.interp(total[:, 0], times, self._gravity[:, axis])
        if len(acc):
            self._gravity = self._gravity[max(0, int(before[-1])) :]
        return total


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
