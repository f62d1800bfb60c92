"""Polar's PMD service: Verity Sense (acceleration and angular rate), H10 and OH1 (acceleration).

Source: polarofficial/polar-ble-sdk @8fb5311, `api/ble/model/gatt/client/pmd/` (`BlePMDClient`,
`PmdDataFrame`, `PmdSetting`, `PmdControlPoint*`, `model/{AccData,GyrData,PmdTimeStampUtils}.kt`).

A Verity Sense measures both at 52 Hz, +-8 g and +-2000 deg/s; in its SDK mode (firmware 1.1.5 and
newer) at 26 to 416 Hz and up to +-16 g, but then knows no heart rate (`documentation/
SdkModeExplained.md`, `products/PolarVeritySense.md`). It is switched on for a rate that needs it.
"""

from __future__ import annotations

import asyncio
import math
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.ble_devices.conversation import (
    FrameDecoder,
    Opener,
    Streaming,
    Talk,
    UnreadableError,
    farewell_quietly,
    finite_packets,
    into,
    named,
    within,
)
from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import BleDevice, Decoder, Deliver, GattClient, Packet
from firmware_bridge.samples import ACC_UNITS_MPS2, GYRO_UNITS_RADS, TIME_UNITS_S

CONTROL_UUID = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA_UUID = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"

Stream = Literal["acc", "gyro"]

STREAM_TYPES: dict[Stream, int] = {"acc": 2, "gyro": 5}
"""Measurement types; the bits of the feature flags have the same numbers."""

SDK_MODE = 9
TYPE_MASK = 0x3F

GET_SETTINGS, START, STOP = 1, 2, 3
_RESPONSE = 0xF0
_STOPPED_BY_DEVICE = 1

SAMPLE_RATE, RESOLUTION, RANGE, RANGE_MILLIUNIT, CHANNELS, FACTOR, SECURITY = range(7)
_SETTING_BYTES = {
    SAMPLE_RATE: 2,
    RESOLUTION: 2,
    RANGE: 2,
    RANGE_MILLIUNIT: 4,
    CHANNELS: 1,
    FACTOR: 4,
    SECURITY: 16,
}
_CHOOSABLE = (SAMPLE_RATE, RESOLUTION, RANGE, RANGE_MILLIUNIT, CHANNELS)

MAX_RATE_HZ = 208
"""416 Hz on two streams loses packets (polar-ble-sdk #467, #775)."""

OK, ALREADY_IN_STATE, INVALID_STATE = 0, 6, 12
_STATUS = {
    1: "it does not know the command",
    2: "it has no such stream",
    3: "it does not support that",
    4: "the command has the wrong length",
    5: "a parameter is invalid",
    ALREADY_IN_STATE: "it is in that state already",
    7: "it does not have that resolution",
    8: "it does not have that sample rate",
    9: "it does not have that range",
    10: "the packets of this connection are too small for it",
    11: "it does not have that many channels",
    INVALID_STATE: "its state does not allow that; end any training or recording on it",
    13: "the sensor is in its charger; take it out",
    14: "its memory is full",
}

_PARAMETER_BYTES = 4096
"""More than any answer has; what a device sends beyond makes the answer unreadable."""

MAX_SAMPLES = 4096
"""Of one frame: over a minute at 52 Hz. Blocks of delta width 0 could claim any number."""

LOST_FRAME_STEP = 1.5
"""A step from frame to frame of more nominal sample periods than this has a lost frame in it: the
vendor's rule would stretch this frame's samples over the gap (polar-ble-sdk #775)."""


@dataclass(frozen=True)
class _Layout:
    """Content of a data frame."""

    value_bytes: int
    si: float
    """Factor to m/s^2 or rad/s, after the factor that the device gave."""

    floats: bool = False
    """The integers are bit patterns of float32."""


_COMPRESSED = 0x80
_LAYOUTS: dict[tuple[Stream, int], _Layout] = {
    ("acc", 0): _Layout(1, ACC_UNITS_MPS2["mg"]),
    ("acc", 1): _Layout(2, ACC_UNITS_MPS2["mg"]),
    ("acc", 2): _Layout(3, ACC_UNITS_MPS2["mg"]),
    ("acc", _COMPRESSED | 0): _Layout(2, ACC_UNITS_MPS2["g"]),
    ("acc", _COMPRESSED | 1): _Layout(2, ACC_UNITS_MPS2["mg"]),
    ("gyro", _COMPRESSED | 0): _Layout(2, GYRO_UNITS_RADS["deg/s"]),
    ("gyro", _COMPRESSED | 1): _Layout(4, GYRO_UNITS_RADS["deg/s"], floats=True),
}
"""By stream and frame type (bit 7: delta-compressed)."""

_HEADER = struct.Struct("<BQB")


class PmdDecoder(FrameDecoder):
    """Data frames of one stream.

    The stamp of a frame is that of its last sample, in ns since 2000. By the vendor's rule the
    first frame's samples are a nominal period apart and a later frame's share the time since the
    frame before; where that is too long (`LOST_FRAME_STEP`) they are a nominal period apart again.

    Args:
        stream: whose frames.
        rate_hz: that the device was asked for.
        factor: from raw values to G, mG or deg/s, from the device's answer to the start command.
            Uncompressed frames are in mG without it.
    """

    def __init__(self, stream: Stream, rate_hz: float, factor: float = 1.0) -> None:
        super().__init__()
        self._stream: Stream = stream
        self._period_s = 1.0 / rate_hz
        self._factor = factor
        self._stamp_ns: dict[int, int] = {}

    def _packets(self, data: bytes) -> list[Packet]:
        if len(data) < _HEADER.size:
            raise UnreadableError("length")
        kind_of_data, stamp_ns, frame_type = _HEADER.unpack_from(data)
        if kind_of_data & TYPE_MASK != STREAM_TYPES[self._stream]:
            raise UnreadableError("other stream")
        layout = _LAYOUTS.get((self._stream, frame_type))
        if layout is None:
            raise UnreadableError("frame type")
        values = self._values(layout, data[_HEADER.size :], bool(frame_type & _COMPRESSED))
        device_s = self._stamped(frame_type, stamp_ns, len(values))
        return finite_packets(self._stream, values, device_s, self.counts)

    def _values(self, layout: _Layout, content: bytes, compressed: bool) -> NDArray[np.float64]:
        if not compressed:
            if not content or len(content) % (3 * layout.value_bytes):
                raise UnreadableError("length")
            return (
                _integers(content, layout.value_bytes).reshape(-1, 3).astype(np.float64) * layout.si
            )
        integers = delta_decoded(content, layout.value_bytes)
        if not layout.floats:
            return integers.astype(np.float64) * (self._factor * layout.si)
        with np.errstate(invalid="ignore"):  # signalling NaN
            floats = integers.view(np.float32).astype(np.float64)
        return floats * (self._factor * layout.si)

    def _stamped(self, frame_type: int, stamp_ns: int, n: int) -> NDArray[np.float64]:
        """(n,) seconds since 2000 of the samples of a frame."""
        step_s = self._period_s
        before_ns = self._stamp_ns.get(frame_type)
        self._stamp_ns[frame_type] = stamp_ns
        if before_ns is not None:
            shared_s = (stamp_ns - before_ns) * TIME_UNITS_S["ns"] / n
            if shared_s <= 0:
                self.counts["stamp not after the last"] += 1
            elif shared_s > LOST_FRAME_STEP * self._period_s:
                self.counts["lost frame"] += 1
            else:
                step_s = shared_s
        return stamp_ns * TIME_UNITS_S["ns"] - step_s * np.arange(n - 1, -1, -1, dtype=np.float64)


def delta_decoded(content: bytes, value_bytes: int) -> NDArray[np.int32]:
    """(n, 3) samples of a delta-compressed frame.

    A reference sample, then blocks of delta width in bits, sample count, and the deltas with their
    bits from the least significant on; sums wrap as int32 do.

    Raises:
        UnreadableError: the content does not end where a block does, or has too many samples.
    """
    at = 3 * value_bytes
    if len(content) < at:
        raise UnreadableError("length")
    rows = [_integers(content[:at], value_bytes).reshape(1, 3)]
    total = 1
    while at < len(content):
        width, n = content[at], content[at + 1] if at + 1 < len(content) else 0
        start, at = at + 2, at + 2 + (width * n * 3 + 7) // 8
        total += n
        if width > 32 or at > len(content) or total > MAX_SAMPLES:
            raise UnreadableError("length")
        rows.append(_deltas(content[start:at], width, 3 * n).reshape(n, 3))
    return np.cumsum(np.concatenate(rows), axis=0).astype(np.int32)


def _integers(raw: bytes, width: int) -> NDArray[np.int64]:
    """Signed little-endian integers of `width` bytes."""
    digits = np.frombuffer(raw, np.uint8).reshape(-1, width).astype(np.int64)
    return _signed(digits @ (1 << 8 * np.arange(width)), 8 * width)


def _deltas(raw: bytes, width: int, n: int) -> NDArray[np.int64]:
    """n signed integers of `width` bits, bits from the least significant on."""
    if width == 0:
        return np.zeros(n, np.int64)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=n * width, bitorder="little")
    return _signed(bits.reshape(n, width).astype(np.int64) @ (1 << np.arange(width)), width)


def _signed(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return values - ((values >> (bits - 1)) << bits)


Settings = dict[int, tuple[int, ...]]
"""Setting -> its values; those of `FACTOR` are bit patterns of float32."""


def parsed_settings(parameters: bytes) -> Settings:
    """The settings of an answer: `type, count, values...`, again and again.

    A single byte is none, as the vendor's `PmdSetting` has it, and a type that came after this was
    written ends them, as its size is not known.

    Raises:
        AuraError: they end within a value.
    """
    settings: Settings = {}
    at = 0
    while at + 1 < len(parameters) and parameters[at] in _SETTING_BYTES:
        size, count = _SETTING_BYTES[parameters[at]], parameters[at + 1]
        values = parameters[at + 2 : at + 2 + size * count]
        if len(values) < size * count:
            raise AuraError(
                f"the sensor's settings cannot be read ({parameters.hex()}); "
                "is its firmware up to date?"
            )
        if values:
            settings[parameters[at]] = tuple(
                int.from_bytes(values[i : i + size], "little") for i in range(0, len(values), size)
            )
        at += 2 + len(values)
    return settings


def chosen_settings(offered: Settings, rate_hz: float | None = None) -> dict[int, int]:
    """The largest of each that the device offers: rate (up to `MAX_RATE_HZ`), resolution, range,
    channels.

    Args:
        offered: by the device.
        rate_hz: that the user wants; None for the largest.

    Raises:
        AuraError: it offers no sample rate.
        InputError: it does not offer the one that is wanted.
    """
    rates = _rates_hz(offered)
    if not rates:
        raise AuraError(f"the sensor offers no sample rate of {MAX_RATE_HZ} Hz or less")
    if rate_hz is not None and rate_hz not in rates:
        raise InputError(
            f"the sensor does not measure at {rate_hz:g} Hz; it offers "
            f"{', '.join(str(rate) for rate in rates)}: say one of these with --rate, or leave "
            "--rate out"
        )
    largest = {setting: max(offered[setting]) for setting in _CHOOSABLE if setting in offered}
    return {**largest, SAMPLE_RATE: max(rates) if rate_hz is None else int(rate_hz)}


def _rates_hz(offered: Settings) -> list[int]:
    return sorted(rate for rate in offered.get(SAMPLE_RATE, ()) if 0 < rate <= MAX_RATE_HZ)


def start_command(stream: Stream, settings: dict[int, int]) -> bytes:
    """The command that starts a stream."""
    command = bytes([START, STREAM_TYPES[stream]])
    for setting, value in sorted(settings.items()):
        command += bytes([setting, 1]) + value.to_bytes(_SETTING_BYTES[setting], "little")
    return command


def conversion_factor(settings: Settings) -> float:
    """From raw values to physical ones, by the answer to a start command; 1 if it says nothing.

    Raises:
        AuraError: it is no factor.
    """
    if FACTOR not in settings:
        return 1.0
    (factor,) = struct.unpack("<f", settings[FACTOR][0].to_bytes(4, "little"))
    if not (math.isfinite(factor) and factor > 0):
        raise AuraError(f"the sensor gave {factor} as its conversion factor, expected one above 0")
    return float(factor)


@dataclass(frozen=True)
class _Answer:
    status: int
    parameters: bytes

    def checked(self, doing: str) -> Settings:
        """The settings in it.

        Raises:
            AuraError: the device refuses, and why.
        """
        if self.status != OK:
            why = _STATUS.get(self.status, f"status {self.status}")
            raise AuraError(f"the Polar sensor refused to {doing}: {why}, and try again")
        return parsed_settings(self.parameters)


class _ControlPoint:
    """Questions and answers. A question has one answer, of one or more notifications."""

    def __init__(self, talk: Talk, decoders: dict[Stream, PmdDecoder]) -> None:
        self._talk = talk
        self._decoders = decoders
        self._asked = b""
        self._parameters = b""
        self._answer: asyncio.Future[_Answer] | None = None

    def heard(self, data: bytes) -> None:
        if data[:1] == bytes([_STOPPED_BY_DEVICE]):
            for stream, number in STREAM_TYPES.items():
                if number in data[1:] and stream in self._decoders:
                    self._decoders[stream].counts["stopped by the device"] += 1
        elif data[:3] == bytes([_RESPONSE]) + self._asked and len(data) > 3:
            self._continue(data)

    def _continue(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            return
        self._parameters += data[5:]
        more = data[3] == OK and len(data) > 4 and data[4] != 0
        if not more or len(self._parameters) > _PARAMETER_BYTES:
            self._answer.set_result(_Answer(data[3], self._parameters))

    async def ask(self, command: bytes) -> _Answer:
        """Send a command and wait for what the device answers to it."""
        self._asked, self._parameters = command[:2], b""
        self._answer = asyncio.get_running_loop().create_future()
        await self._talk.write(CONTROL_UUID, command, response=True)
        return await within(self._answer, f"answer the command {command.hex()}")

    async def set_sdk_mode(self, on: bool) -> None:
        command = bytes([START if on else STOP, SDK_MODE])
        answer = await self.ask(command)
        if answer.status == INVALID_STATE:  # streams run that somebody else left
            for number in STREAM_TYPES.values():
                await self.ask(bytes([STOP, number]))
            answer = await self.ask(command)
        if on and answer.status != ALREADY_IN_STATE:
            answer.checked("switch its SDK mode on")

    async def offered(self, stream: Stream) -> Settings:
        """What can be chosen of a stream."""
        answer = await self.ask(bytes([GET_SETTINGS, STREAM_TYPES[stream]]))
        return answer.checked(f"tell its settings for {stream}")

    async def start(self, stream: Stream, rate_hz: float | None) -> tuple[dict[int, int], float]:
        """Start a stream: what was asked for, and the device's conversion factor."""
        settings = chosen_settings(await self.offered(stream), rate_hz)
        command = start_command(stream, settings)
        answer = await self.ask(command)
        if answer.status == ALREADY_IN_STATE:  # its factor comes only with a start
            await self.ask(bytes([STOP, STREAM_TYPES[stream]]))
            answer = await self.ask(command)
        return settings, conversion_factor(answer.checked(f"start {stream}"))


def _described(stream: Stream, settings: dict[int, int]) -> str:
    unit = "g" if stream == "acc" else "deg/s"
    span = f" +-{settings[RANGE]} {unit}" if RANGE in settings else ""
    return f"{stream} {settings[SAMPLE_RATE]} Hz{span}"


def opener(*, gyro: bool = True, rate_hz: float | None = None) -> Opener:
    """How one opens a Polar sensor.

    Args:
        gyro: stream the angular rate too.
        rate_hz: that the user wants; where only the SDK mode has it, that is switched on. None for
            the highest without it.
    """

    async def open_streams(client: GattClient, deliver: Deliver) -> Streaming:
        talk = Talk(client)
        wanted: list[Stream] = ["acc", "gyro"] if gyro else ["acc"]
        decoders: dict[Stream, PmdDecoder] = {}
        control = _ControlPoint(talk, decoders)
        sdk_mode = False

        def heard(data: bytes) -> None:
            for stream, decoder in decoders.items():
                if data and data[0] & TYPE_MASK == STREAM_TYPES[stream]:
                    into(decoder, deliver)(data)

        async def farewell() -> None:
            for stream in wanted:
                await control.ask(bytes([STOP, STREAM_TYPES[stream]]))
            if sdk_mode:
                await control.ask(bytes([STOP, SDK_MODE]))

        # Both before the first command: the answers come as indications.
        await talk.listen(CONTROL_UUID, control.heard)
        await talk.listen(DATA_UUID, heard)
        features = (await talk.read(CONTROL_UUID))[1:]
        for stream in wanted:
            if not _has(features, STREAM_TYPES[stream]):
                raise AuraError(f"the Polar sensor offers no {stream} stream to this connection")
        if _has(features, SDK_MODE):
            await control.set_sdk_mode(False)
            for stream in wanted if rate_hz is not None else []:
                sdk_mode = sdk_mode or rate_hz not in _rates_hz(await control.offered(stream))
            if sdk_mode:
                await control.set_sdk_mode(True)
        described, rates_hz = [], []
        try:
            for stream in wanted:
                settings, factor = await control.start(stream, rate_hz)
                decoders[stream] = PmdDecoder(stream, settings[SAMPLE_RATE], factor)
                described.append(_described(stream, settings))
                rates_hz.append(settings[SAMPLE_RATE])
        except BaseException:
            await farewell_quietly(farewell)
            raise
        described += ["SDK mode"] if sdk_mode else []
        by_stream: dict[str, Decoder] = {stream: decoders[stream] for stream in wanted}
        return Streaming(by_stream, ", ".join(described), float(rates_hz[0]), farewell)

    return open_streams


def _has(features: bytes, bit: int) -> bool:
    return len(features) > bit // 8 and bool(features[bit // 8] >> bit % 8 & 1)


_VERIFIED = "vendor test vectors"

VERITY_SENSE = BleDevice(
    "Polar Verity Sense",
    named("Polar Sense", "Polar Verity"),
    opener(),
    has_gyro=True,
    verified=_VERIFIED,
    open_at=lambda rate_hz: opener(rate_hz=rate_hz),
)

H10 = BleDevice(
    "Polar H10",
    named("Polar H10"),
    opener(gyro=False),
    has_gyro=False,
    verified=_VERIFIED,
    open_at=lambda rate_hz: opener(gyro=False, rate_hz=rate_hz),
)

OH1 = BleDevice(
    "Polar OH1",
    named("Polar OH1"),
    opener(gyro=False),
    has_gyro=False,
    verified=_VERIFIED,
    open_at=lambda rate_hz: opener(gyro=False, rate_hz=rate_hz),
)
