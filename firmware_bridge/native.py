"""Our own wire format, for people who build a wearable: see PROTOCOL.md beside this file.

One message layout for BLE (one bare message a notification) and for serial lines (messages in the
frames of `framing`). `firmware/aura_edge.c` is the same encoder in C.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.framing import FrameSplitter, encode_frame
from firmware_bridge.link import Counts, Packet, Unwrapper

VERSION = 1
"""Major version, the high four bits of a message's first byte."""

TYPE_SAMPLES = 1
TYPE_DESCRIPTION = 2

SERVICE_UUID = "2ce05540-5d7b-440d-a438-daadccebf5ff"
DATA_UUID = "2ce05541-5d7b-440d-a438-daadccebf5ff"
"""Notify: messages."""
DESCRIPTION_UUID = "2ce05542-5d7b-440d-a438-daadccebf5ff"
"""Read: one description message."""
CONTROL_UUID = "2ce05543-5d7b-440d-a438-daadccebf5ff"
"""Write, with response: `START` or `STOP`."""

START = b"\x01"
STOP = b"\x00"

MAX_MESSAGE_BYTES = 512
"""Longest value of a GATT attribute (Bluetooth Core 5.4, vol 3 part F, 3.2.9)."""

MAX_SAMPLES = 42
"""Samples that fit a message of `MAX_MESSAGE_BYTES`."""

MAX_NAME_BYTES = 32
UNKNOWN_BATTERY = 255

_SAMPLES_HEAD = struct.Struct("<BBHI")
_DESCRIPTION_HEAD = struct.Struct("<BBBBIff")
_SAMPLE_BYTES = 12
_FLAG_RESTARTED = 1

_MAX_HELD = 512
"""Messages kept while the first description is awaited: over two seconds of one sample each at
200 Hz."""

_RATE_RANGE_MHZ = (100, 20_000_000)
_MAX_ACC_SCALE = 1.0
_MAX_GYRO_SCALE = 0.1
"""Full scale of 3341 g and 188,000 deg/s: a step above these is a mistake in the firmware."""

_PLAUSIBLE_SPACING = 0.2
"""A measured sample spacing this far off the nominal one is not believed: the device paused."""


@dataclass(frozen=True)
class Description:
    """What a device says of itself."""

    name: str
    rate_hz: float
    acc_scale: float
    """m/s^2 per LSB."""
    gyro_scale: float
    """rad/s per LSB; 0 for a device without a gyroscope."""
    battery_percent: int | None = None
    restarted: bool = False
    """Whether the sample counter and the clock began anew since the last message."""

    def __str__(self) -> str:
        parts = [f"{self.rate_hz:g} Hz", "acc and gyro" if self.gyro_scale else "acc only"]
        if self.battery_percent is not None:
            parts.append(f"battery {self.battery_percent} %")
        return f"{self.name or 'unnamed'}: " + ", ".join(parts)


def encode_description(description: Description) -> bytes:
    """A description message; 16 bytes and the name, which is cut after 32 bytes of UTF-8."""
    name = description.name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").encode()
    battery = description.battery_percent
    head = _DESCRIPTION_HEAD.pack(
        VERSION << 4 | TYPE_DESCRIPTION,
        _FLAG_RESTARTED if description.restarted else 0,
        UNKNOWN_BATTERY if battery is None else battery,
        len(name),
        round(description.rate_hz * 1000),
        description.acc_scale,
        description.gyro_scale,
    )
    return head + name


def encode_samples(index: int, time_us: int, samples: NDArray[np.int16]) -> bytes:
    """A samples message; 8 bytes and 12 for each sample.

    Args:
        index: running number of the first sample; its low 16 bits are sent.
        time_us: when the first sample was measured, by the device's clock; its low 32 bits are
            sent.
        samples: (n, 6) ax ay az gx gy gz in LSB, 1 to `MAX_SAMPLES` of them.
    """
    n = len(samples)
    if samples.shape != (n, 6) or not 1 <= n <= MAX_SAMPLES:
        raise ValueError(f"samples have shape {samples.shape}, expected (1..{MAX_SAMPLES}, 6)")
    head = _SAMPLES_HEAD.pack(VERSION << 4 | TYPE_SAMPLES, n, index & 0xFFFF, time_us & 0xFFFF_FFFF)
    return head + samples.astype("<i2").tobytes()


def samples_that_fit(payload_bytes: int) -> int:
    """Samples that one message of this many bytes holds; a notification has the MTU less 3."""
    return max(0, min(MAX_SAMPLES, (payload_bytes - _SAMPLES_HEAD.size) // _SAMPLE_BYTES))


def decode_description(message: bytes) -> Description | str:
    """The description, or what is wrong with the message in a few words. Never raises."""
    wrong = _wrong_version(message)
    if wrong:
        return wrong
    if message[0] & 0xF != TYPE_DESCRIPTION:
        return f"message of type {message[0] & 0xF}, expected a description"
    if len(message) < _DESCRIPTION_HEAD.size:
        return "cut short"
    _, flags, battery, name_bytes, rate_mhz, acc, gyro = _DESCRIPTION_HEAD.unpack_from(message)
    name = message[_DESCRIPTION_HEAD.size :][:name_bytes]
    if len(name) < name_bytes:
        return "cut short"
    # Not a comparison the other way round: these are false for NaN.
    if not (
        _RATE_RANGE_MHZ[0] <= rate_mhz <= _RATE_RANGE_MHZ[1]
        and 0 < acc <= _MAX_ACC_SCALE
        and 0 <= gyro <= _MAX_GYRO_SCALE
        and (battery <= 100 or battery == UNKNOWN_BATTERY)
        and name_bytes <= MAX_NAME_BYTES
    ):
        return "description out of range"
    text = "".join(c for c in name.decode(errors="replace") if c.isprintable())
    percent = None if battery == UNKNOWN_BATTERY else battery
    return Description(text, rate_mhz / 1000, acc, gyro, percent, bool(flags & _FLAG_RESTARTED))


def _wrong_version(message: bytes) -> str | None:
    if not message:
        return "cut short"
    version = message[0] >> 4
    if version != VERSION:
        return f"version {version} of the format (this program knows {VERSION}: update it)"
    return None


class NativeDecoder:
    """Bare messages, such as BLE notifications, one a call.

    Samples that come before the first description are kept, up to `_MAX_HELD` messages, and handed
    on with it. When the device restarts, `device_s` and `index` begin anew: they step back.

    Args:
        description: of the device, if it was read already.
    """

    def __init__(self, description: Description | None = None) -> None:
        self.counts = Counts()
        self.description = description
        self._held: deque[bytes] = deque()
        self._last_time_us: int | None = None
        """As the device sent it."""
        self._last: tuple[int, float] | None = None
        """Index and time of the last message's first sample."""
        self._restart()

    @property
    def nominal_hz(self) -> float:
        """What the device says of itself; 0 before it has."""
        return self.description.rate_hz if self.description else 0.0

    def feed(self, data: bytes) -> list[Packet]:
        """Take one message."""
        wrong = _wrong_version(data)
        if wrong:
            self.counts[wrong] += 1
        elif data[0] & 0xF == TYPE_SAMPLES:
            return self._samples(bytes(data))
        elif data[0] & 0xF == TYPE_DESCRIPTION:
            return self._describe(bytes(data))
        return []  # types to come are not for this program, and no fault

    def _describe(self, message: bytes) -> list[Packet]:
        description = decode_description(message)
        if isinstance(description, str):
            self.counts[description] += 1
            return []
        if description.restarted and self._last is not None:
            self.counts["restart of the device"] += 1
            self._restart()
        self.description = description
        held, self._held = self._held, deque()
        return [packet for samples in held for packet in self._samples(samples)]

    def _samples(self, message: bytes) -> list[Packet]:
        if len(message) < _SAMPLES_HEAD.size:
            self.counts["cut short"] += 1
            return []
        _, n, index, time_us = _SAMPLES_HEAD.unpack_from(message)
        if not 1 <= n <= MAX_SAMPLES:
            self.counts["number of samples"] += 1
            return []
        if len(message) < _SAMPLES_HEAD.size + n * _SAMPLE_BYTES:
            self.counts["cut short"] += 1
            return []
        if self.description is None:
            if len(self._held) == _MAX_HELD:
                self._held.popleft()
                self.counts["no description"] += 1
            self._held.append(message)
            return []
        raw = np.frombuffer(message, "<i2", n * 6, _SAMPLES_HEAD.size).reshape(n, 6)
        return [self._packet(raw, index, time_us, self.description)]

    def _packet(
        self, raw: NDArray[np.int16], index: int, time_us: int, description: Description
    ) -> Packet:
        if self._last_time_us is not None and (time_us - self._last_time_us) % 2**32 >= 2**31:
            # A step back, or a silence of over 35 minutes: neither happens on a link that lives.
            self.counts["restart of the device"] += 1
            self._restart()
        self._last_time_us = time_us
        first, first_s = self._index(index), self._time_us(time_us) * 1e-6
        spacing_s = self._spacing_s(first, first_s, 1 / description.rate_hz)
        self._last = (first, first_s)
        device_s = first_s + spacing_s * np.arange(len(raw), dtype=np.float64)
        scale = np.array([description.acc_scale] * 3 + [description.gyro_scale] * 3)
        if not description.gyro_scale:
            return Packet("acc", raw[:, :3] * scale[:3], device_s, first)
        return Packet("imu", raw * scale, device_s, first)

    def _spacing_s(self, first: int, first_s: float, nominal_s: float) -> float:
        """Between the samples of this message: as it was between the last message's and this
        one's first samples, for sensors are up to percents off their nominal rate."""
        if self._last is None or first <= self._last[0]:
            return nominal_s
        measured_s = (first_s - self._last[1]) / (first - self._last[0])
        near = abs(measured_s - nominal_s) <= _PLAUSIBLE_SPACING * nominal_s
        return measured_s if near else nominal_s

    def _restart(self) -> None:
        self._index = Unwrapper(16)
        self._time_us = Unwrapper(32)
        self._last_time_us = self._last = None


class NativeStreamDecoder(NativeDecoder):
    """The same messages in frames of a serial line, in any chunks."""

    def __init__(self) -> None:
        super().__init__()
        self._splitter = FrameSplitter(MAX_MESSAGE_BYTES, self.counts)

    def feed(self, data: bytes) -> list[Packet]:
        """Take some bytes of the line."""
        packets = []
        for message in self._splitter.feed(data):
            packets += super().feed(message)
        return packets


def encode_stream(messages: Sequence[bytes]) -> bytes:
    """Messages as a serial line carries them; a delimiter first, to end what came before."""
    return b"\0" + b"".join(map(encode_frame, messages))
