"""Sensor Logger's pushes -> packets.

Sensor Logger ("HTTP Push" in its settings) posts JSON, all sensors together, about once a
second. Messages carry a running number and may arrive in another order. Source: PUSHING.md,
UNITS.md, CROSSPLATFORM.md of github.com/tszheichoi/awesome-sensor-logger; the form of a reading
({"name", "time", "values": {"x", "y", "z"}}) is from messages of an iPhone and of an Android phone
that others published. Never run against a real phone. Unverified: whether the app sends a message
again that failed, and whether messageId begins with 0 (not relied on).

`firmware_bridge.phones.push` is where they arrive.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.link import Counts, Kind, Packet
from firmware_bridge.phones.network import (
    MAX_NAME_CHARS,
    MAX_READINGS,
    Floats,
    json_of,
    rising,
)
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2

HELD_MESSAGES, HELD_S = 8, 2.0
"""So many messages, and for so long, wait for one before them that has not come."""

LEARNING_S = 2.0
"""How much of a recording is looked at before it is decided which sensors are used."""

_MAX_TIME_NS = 1 << 62
_MAX_WAITING = 50_000
_GRAVITY_BRACKET_S = 0.25
"""Gravity is interpolated between samples less than this apart, as the gyroscope is."""

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
    message = json_of(body)
    if not isinstance(message, dict):
        return None
    index, payload = message.get("messageId"), message.get("payload")
    ids = [message.get("sessionId"), message.get("deviceId")]
    if type(index) is not int or not 0 <= index < _MAX_TIME_NS:
        return None
    if not all(isinstance(one, str) and len(one) <= MAX_NAME_CHARS for one in ids):
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
        rows, late = rising(rows, self._last_s.get(name, -math.inf))
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
