"""Our own wire format, and the conversation over GATT."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_framing import cut

from firmware_bridge import native
from firmware_bridge.ble_devices.native_ble import DEVICE
from firmware_bridge.errors import AuraError
from firmware_bridge.link import Advert, Packet
from firmware_bridge.native import Description, NativeDecoder, NativeStreamDecoder
from tests.firmware_bridge.fuzz import EXAMPLES

PROTOCOL = Path(native.__file__).parent / "PROTOCOL.md"
ACC_SCALE = 4 * 9.80665 / 32768
GYRO_SCALE = math.radians(2000) / 32768
DEVICE_INFO = Description("Böard", 100.0, ACC_SCALE, GYRO_SCALE, 80)
SAMPLE = np.array([[0, 0, 8192, 1, 2, 3]], np.int16)


def ramp(n: int, start: int = 0) -> np.ndarray:
    """(n, 6) samples that tell themselves apart."""
    return (np.arange(start, start + n)[:, None] * 6 + np.arange(6)).astype(np.int16)


def rebuilt(packets: list[Packet]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, device times and indices of all samples."""
    values = np.concatenate([p.values for p in packets])
    times = np.concatenate([p.device_s for p in packets if p.device_s is not None])
    index = [p.index + np.arange(len(p.values)) for p in packets if p.index is not None]
    return values, times, np.concatenate(index)


def test_the_worked_example_of_the_protocol() -> None:
    message = native.encode_samples(7, 1_000_000, SAMPLE)
    text = PROTOCOL.read_text()
    assert len(message) == 20 and f"message  {message.hex(' ')}\n" in text
    assert f"frame    {native.encode_stream([message])[1:].hex(' ')}\n" in text
    for uuid in (
        native.SERVICE_UUID,
        native.DATA_UUID,
        native.DESCRIPTION_UUID,
        native.CONTROL_UUID,
    ):
        assert f"`{uuid}`" in text


def test_one_sample_in_si_units() -> None:
    decoder = NativeDecoder(DEVICE_INFO)
    (packet,) = decoder.feed(native.encode_samples(7, 1_000_000, SAMPLE))
    expected = [0, 0, 9.80665, GYRO_SCALE, 2 * GYRO_SCALE, 3 * GYRO_SCALE]
    assert packet.kind == "imu" and packet.index == 7
    assert packet.values[0] == pytest.approx(expected, rel=1e-6)
    assert packet.device_s is not None and packet.device_s.tolist() == [1.0]


def test_a_device_without_a_gyroscope() -> None:
    decoder = NativeDecoder(Description("acc", 50, ACC_SCALE, 0.0))
    (packet,) = decoder.feed(native.encode_samples(0, 0, SAMPLE))
    assert packet.kind == "acc" and packet.values.shape == (1, 3)


def test_counters_wrap_and_losses_are_known_to_the_sample() -> None:
    decoder = NativeDecoder(DEVICE_INFO)
    first, base_us = 2**16 - 30, 2**32 - 250_000
    packets = []
    for k in range(12):
        if k != 7:  # lost
            at = first + 10 * k
            message = native.encode_samples(at, base_us + 100_000 * k, ramp(10, at))
            packets += decoder.feed(message)
    values, times, index = rebuilt(packets)
    lost = np.flatnonzero(np.diff(index) != 1)
    assert lost.tolist() == [69] and index[70] - index[69] == 11
    assert np.allclose(times, base_us * 1e-6 + 0.01 * (index - first), atol=1e-9)
    assert np.array_equal(
        np.round(values[:, 0] / ACC_SCALE).astype(np.int16),
        ramp(1, 0)[0, 0] + (index * 6).astype(np.int16),
    )


def test_spacing_follows_the_sensor_not_its_nominal_rate() -> None:
    decoder = NativeDecoder(DEVICE_INFO)
    rate_hz = 97.0
    packets = []
    for k in range(5):
        time_us = round(k * 20 / rate_hz * 1e6)
        packets += decoder.feed(native.encode_samples(20 * k, time_us, ramp(20)))
    _, times, index = rebuilt(packets)
    assert np.abs(times - index / rate_hz)[20:].max() < 2e-6
    # After a pause without a loss the spacing is the nominal one, not the pause's.
    (packet,) = decoder.feed(native.encode_samples(100, 60_000_000, ramp(20)))
    assert packet.device_s is not None and np.ptp(packet.device_s) == pytest.approx(0.19)


def test_samples_before_the_description_are_kept_and_bounded() -> None:
    decoder = NativeDecoder()
    assert decoder.nominal_hz == 0
    for k in range(600):
        assert decoder.feed(native.encode_samples(k, k * 10_000, ramp(1))) == []
    packets = decoder.feed(native.encode_description(DEVICE_INFO))
    assert [p.index for p in packets] == list(range(600 - 512, 600))
    assert decoder.counts == {"no description": 88} and decoder.nominal_hz == 100
    assert len(decoder.feed(native.encode_samples(600, 6_000_000, ramp(1)))) == 1


def test_a_new_scale_holds_from_then_on() -> None:
    decoder = NativeDecoder(DEVICE_INFO)
    (before,) = decoder.feed(native.encode_samples(0, 0, SAMPLE))
    decoder.feed(native.encode_description(Description("x", 100, 2 * ACC_SCALE, GYRO_SCALE)))
    (after,) = decoder.feed(native.encode_samples(1, 10_000, SAMPLE))
    assert after.values[0, 2] == pytest.approx(2 * before.values[0, 2])


@pytest.mark.parametrize("announced", [True, False])
def test_a_restart_steps_back_and_is_counted(announced: bool) -> None:
    decoder = NativeDecoder(DEVICE_INFO)
    decoder.feed(native.encode_samples(60_000, 600_000_000, SAMPLE))
    if announced:
        restarted = Description("x", 100, ACC_SCALE, GYRO_SCALE, restarted=True)
        assert decoder.feed(native.encode_description(restarted)) == []
    (packet,) = decoder.feed(native.encode_samples(0, 5_000, SAMPLE))
    assert packet.index == 0 and packet.device_s is not None
    assert packet.device_s[0] == pytest.approx(0.005)
    assert decoder.counts == {"restart of the device": 1}


def test_what_is_not_understood_is_counted() -> None:
    decoder = NativeDecoder(DEVICE_INFO)
    good = native.encode_samples(7, 0, ramp(3))
    assert (
        decoder.feed(b"") == [] and decoder.feed(good[:20]) == [] and decoder.feed(good[:5]) == []
    )
    assert decoder.counts == {"cut short": 3}  # among them what MTU 23 leaves of three samples
    assert decoder.feed(good[:1] + b"\0" + good[2:]) == []
    assert decoder.feed(good[:1] + b"\xff" + good[2:]) == []
    assert decoder.counts["number of samples"] == 2
    for _ in range(3):
        assert decoder.feed(b"\x21" + good[1:]) == []
    (version,) = [text for text in decoder.counts if text.startswith("version 2")]
    assert decoder.counts[version] == 3
    before = decoder.counts.copy()
    assert decoder.feed(b"\x1f" + good[1:]) == []  # a type to come
    (packet,) = decoder.feed(good + b"a field to come")
    assert len(packet.values) == 3 and decoder.counts == before


@pytest.mark.parametrize(
    ("at", "replacement"),
    [
        (2, b"\x65"),  # battery 101 %
        (3, b"\x21" + b"\0\0\0\0"),  # rate 0
        (4, b"\0\0\0\0"),
        (4, b"\xff\xff\xff\xff"),
        (8, b"\0\0\xc0\x7f"),  # NaN
        (8, b"\0\0\0\0"),
        (8, b"\0\0\x80\x7f"),  # infinity
        (12, b"\0\0\xc0\x7f"),
        (12, b"\0\0\x80\xbf"),  # -1
    ],
)
def test_descriptions_out_of_range(at: int, replacement: bytes) -> None:
    message = native.encode_description(Description("n" * 33, 100, ACC_SCALE, GYRO_SCALE))
    assert len(message) == 16 + 32
    broken = message[:at] + replacement + message[at + len(replacement) :] + b"x"
    decoder = NativeDecoder()
    assert decoder.feed(broken) == [] and decoder.description is None
    assert decoder.counts == {"description out of range": 1}


def test_descriptions() -> None:
    message = native.encode_description(DEVICE_INFO)
    assert native.decode_description(message) == Description(
        "Böard", 100.0, pytest.approx(ACC_SCALE), pytest.approx(GYRO_SCALE), 80
    )
    assert native.decode_description(message + b"to come") == native.decode_description(message)
    for n in range(len(message)):
        assert native.decode_description(message[:n]) == "cut short"
    said = native.decode_description(
        native.encode_description(Description("a\x1b[2Jb", 50, 1.0, 0))
    )
    assert isinstance(said, Description) and said.name == "a[2Jb" and said.battery_percent is None
    assert "expected a description" in str(
        native.decode_description(native.encode_samples(0, 0, SAMPLE))
    )
    umlauts = native.decode_description(
        native.encode_description(Description("ü" * 20, 50, 1.0, 0))
    )
    assert isinstance(umlauts, Description) and umlauts.name == "ü" * 16
    assert str(DEVICE_INFO) == "Böard: 100 Hz, acc and gyro, battery 80 %"


def test_samples_that_fit() -> None:
    assert [native.samples_that_fit(n) for n in (0, 7, 19, 20, 244, 512, 10_000)] == [
        0,
        0,
        0,
        1,
        19,
        42,
        42,
    ]
    with pytest.raises(ValueError, match=r"\(43, 6\)"):
        native.encode_samples(0, 0, ramp(43))


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.lists(st.tuples(st.integers(1, 42), st.integers(0, 50)), min_size=1, max_size=8),
    st.lists(st.integers(0), max_size=10),
)
def test_a_serial_stream_in_any_chunks(messages: list[tuple[int, int]], cuts: list[int]) -> None:
    index, sent = 0, [native.encode_description(DEVICE_INFO)]
    expected = []
    for n, lost in messages:
        index += lost
        sent.append(native.encode_samples(index, index * 10_000, ramp(n, index)))
        expected.append(index)
        index += n
    decoder = NativeStreamDecoder()
    stream = b"ets Jul 29 2019 12:21:46\r\n" + native.encode_stream(sent)
    packets = [p for chunk in cut(stream, cuts) for p in decoder.feed(chunk)]
    assert [p.index for p in packets] == expected
    _, times, at = rebuilt(packets)
    assert np.allclose(times, at * 0.01, atol=1e-9)
    assert decoder.counts == {"before the first frame": 1}


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.binary(max_size=600), max_size=30))
def test_noise_never_raises(messages: list[bytes]) -> None:
    for described in (None, DEVICE_INFO):
        decoder = NativeDecoder(described)
        for message in messages:
            for start in (b"", b"\x11", b"\x11\x02", b"\x12", b"\x12\x01\x50\x04"):
                for packet in decoder.feed(start + message):
                    assert np.isfinite(packet.values).all() and packet.device_s is not None
                    assert np.isfinite(packet.device_s).all() and 1 <= len(packet.values) <= 42
        assert len(decoder._held) <= 512 and len(decoder.counts) < 25


class FakeClient:
    """A GATT server of our service, as bleak's client shows it."""

    mtu_size = 247

    def __init__(self, description: bytes, hangs: bool = False) -> None:
        self.description = description
        self.hangs = hangs
        self.writes: list[tuple[str, bytes]] = []
        self.callback: Callable[[Any, bytearray], None] | None = None

    async def read_gatt_char(self, char_specifier: str) -> bytearray:
        assert char_specifier == native.DESCRIPTION_UUID
        return bytearray(self.description)

    async def write_gatt_char(
        self, char_specifier: str, data: bytes, response: bool | None = None
    ) -> None:
        if self.hangs and data == native.STOP:
            await asyncio.sleep(3600)
        assert response and (data != native.START or self.callback)
        self.writes.append((char_specifier, data))

    async def start_notify(
        self, char_specifier: str, callback: Callable[[Any, bytearray], None]
    ) -> None:
        assert char_specifier == native.DATA_UUID
        self.callback = callback

    async def stop_notify(self, char_specifier: str) -> None:
        self.callback = None


def test_the_conversation_over_gatt() -> None:
    client = FakeClient(native.encode_description(DEVICE_INFO))
    packets: list[Packet] = []

    async def talk() -> None:
        session = await DEVICE.open(client, packets.extend)
        assert session.nominal_hz == 100 and session.details == str(DEVICE_INFO)
        assert client.callback is not None
        client.callback(None, bytearray(native.encode_samples(0, 0, ramp(19))))
        client.callback(None, bytearray(b"\x11"))
        assert session.decoders["imu"].counts == {"cut short": 1}
        await session.stop()

    asyncio.run(talk())
    assert [len(p.values) for p in packets] == [19] and client.callback is None
    assert client.writes == [(native.CONTROL_UUID, b"\x01"), (native.CONTROL_UUID, b"\x00")]


def test_a_device_of_another_version_is_refused() -> None:
    message = bytearray(native.encode_description(DEVICE_INFO))
    message[0] = 0x22
    with pytest.raises(AuraError, match=r"version 2 of the format \(this program knows 1"):
        asyncio.run(DEVICE.open(FakeClient(bytes(message)), list.copy))


def test_stopping_never_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware_bridge.ble_devices.conversation.ANSWER_S", 0.01)
    client = FakeClient(native.encode_description(DEVICE_INFO), hangs=True)

    async def talk() -> None:
        session = await DEVICE.open(client, list.copy)
        with pytest.raises(AuraError, match="within"):
            await session.stop()

    asyncio.run(talk())


def test_the_stream_is_named_after_what_it_holds() -> None:
    message = native.encode_description(Description("acc", 50, ACC_SCALE, 0.0))
    session = asyncio.run(DEVICE.open(FakeClient(message), list.copy))
    assert list(session.decoders) == ["acc"]


def test_the_advert_is_matched_by_service() -> None:
    ours = Advert("aa", "anything", -50, frozenset({native.SERVICE_UUID}))
    assert DEVICE.matches(ours) and not DEVICE.matches(Advert("aa", "aura-edge", -50, frozenset()))
