"""Whatever a BLE device sends, its decoder neither raises, nor grows, nor passes on nonsense."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.ble_devices import (
    dot,
    edge_ml,
    metamotion,
    movesense,
    muse,
    openearable,
    polar,
    thingy,
    witmotion,
)
from firmware_bridge.errors import AuraError
from firmware_bridge.link import Decoder
from tests.firmware_bridge.fuzz import EXAMPLES

_IMU = edge_ml.Sensor(
    0,
    "IMU",
    tuple(
        edge_ml.Component("fd"[group == "GYRO"], group, axis, unit)
        for group, unit in (("ACC", "g"), ("GYRO", "dps"))
        for axis in "XYZ"
    ),
)
_STREAM = edge_ml.streams([_IMU])[0]

DECODERS: dict[str, tuple[Callable[[], Decoder], bytes]] = {
    "polar acc": (
        lambda: polar.PmdDecoder("acc", 52, 2.44e-4),
        struct.pack("<BQB3h", 2, 10**18, 0x80, 1, 2, 3) + bytes.fromhex("0301df0000040a01bbccddee"),
    ),
    "polar raw acc": (
        lambda: polar.PmdDecoder("acc", 200),
        struct.pack("<BQB6h", 2, 10**18, 1, *range(6)),
    ),
    "polar gyro": (
        lambda: polar.PmdDecoder("gyro", 52),
        struct.pack("<BQB3f", 5, 10**18, 0x81, 1, 10, 20)
        + bytes.fromhex("1c010000a001000008cdccec0d"),
    ),
    "movesense": (
        lambda: movesense.Imu6Decoder(26),
        b"\x02\x63" + struct.pack("<I12f", 77, *range(12)),
    ),
    "witmotion": (witmotion.WitDecoder, b"\x55\x61" + struct.pack("<9h", *range(9))),
    "thingy": (thingy.ThingyDecoder, struct.pack("<9h", *range(9))),
    "openearable": (
        openearable.OpenEarableDecoder,
        struct.pack("<BBQ18fH", 0, 74, 10**12, *range(18), 1000),
    ),
    "edge-ml": (
        lambda: edge_ml.SchemeDecoder(_STREAM),
        struct.pack("<BBI3f3d", 0, 36, 2**32 - 5, *range(6)),
    ),
    "dot, medium": (dot.DotDecoder, struct.pack("<I6f3h", 2**32 - 5, *range(6), 1, 2, 3)),
    "dot, long": (
        lambda: dot.DotDecoder(dot.CUSTOM_5),
        struct.pack("<I10f", 2**32 - 5, *range(10)) + b"\0" * 19,
    ),
    "metamotion acc": (
        lambda: metamotion.MetaMotionDecoder(metamotion.ACC),
        b"\x03\x1c" + struct.pack("<9h", *range(9)),
    ),
    "metamotion gyro": (
        lambda: metamotion.MetaMotionDecoder(metamotion.GYRO),
        b"\x13\x05" + struct.pack("<3h", *range(3)),
    ),
    "muse": (lambda: muse.MuseDecoder("gyro"), struct.pack(">H9h", 65535, *range(9))),
}
"""How one is made, and a frame that it understands."""

BYTE_STREAMS = {"witmotion", "movesense"}
"""Those that may keep bytes for the next notification."""


@st.composite
def notifications(draw: st.DrawFn, frame: bytes) -> list[bytes]:
    """Random bytes, the frame whole, and the frame cut, prolonged or with other bytes in it; the
    first bytes are spared more often than not, so that what comes after them is reached."""
    found = []
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(("random", "whole", "mutated", "mutated", "cut", "headed")))
        if kind == "random":
            found.append(draw(st.binary(max_size=600)))
        elif kind == "headed":
            head = frame[: draw(st.integers(0, min(12, len(frame))))]
            found.append(head + draw(st.binary(max_size=520)))
        else:
            data = bytearray(frame)
            if kind == "mutated":
                first = min(draw(st.sampled_from((0, 1, 2, 9, 10))), len(frame))
                for at in draw(st.lists(st.integers(first, len(frame)), min_size=1, max_size=6)):
                    data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            if kind == "cut":
                data = data[: draw(st.integers(0, len(frame)))]
            found.append(bytes(data))
    return found


def held_bytes(decoder: Decoder) -> int:
    """What a decoder keeps."""
    return sum(len(v) for v in vars(decoder).values() if isinstance(v, (bytes, bytearray, dict)))


def check(decoder: Decoder, data: bytes, may_hold: bool) -> int:
    """Feed one notification: how many samples came of it."""
    before = sum(decoder.counts.values())
    packets = decoder.feed(data)
    for packet in packets:
        n = len(packet.values)
        assert n >= 1 and packet.values.shape == (n, 6 if packet.kind == "imu" else 3)
        assert packet.values.dtype == np.float64 and np.isfinite(packet.values).all()
        if packet.device_s is not None:
            assert packet.device_s.shape == (n,) and np.isfinite(packet.device_s).all()
            assert (np.diff(packet.device_s) >= 0).all()
    after = sum(decoder.counts.values())
    assert after >= before
    if not packets and not may_hold:
        assert after > before  # nothing vanishes without a word
    assert held_bytes(decoder) < 2200 and len(decoder.counts) < 10
    return sum(len(p.values) for p in packets)


@pytest.mark.parametrize("name", DECODERS)
def test_the_frames_are_understood(name: str) -> None:
    make, frame = DECODERS[name]
    decoder = make()
    assert check(decoder, frame, False) >= 1 and not decoder.counts


@pytest.mark.parametrize("name", DECODERS)
def test_notifications_of_any_content(name: str) -> None:
    make, frame = DECODERS[name]

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(notifications(frame))
    def run(feed: list[bytes]) -> None:
        decoder = make()
        for data in feed:
            check(decoder, data, name in BYTE_STREAMS)

    run()


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_a_byte_stream_in_any_pieces_gives_the_same(data: st.DataObject) -> None:
    frame = DECODERS["witmotion"][1]
    stream = b"".join(data.draw(notifications(frame)))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    pieces = witmotion.WitDecoder()
    count = sum(
        check(pieces, stream[start:end], True)
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    )
    assert count == check(witmotion.WitDecoder(), stream, True)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=200))
def test_settings_and_schemes_of_any_content(data: bytes) -> None:
    """What conversations read: understood, or refused with a message."""
    for read in (
        lambda: polar.conversion_factor(polar.parsed_settings(data)),
        lambda: polar.chosen_settings(polar.parsed_settings(data)),
        lambda: edge_ml.streams(edge_ml.parsed_scheme(data)),
        lambda: dot.with_rate(data, 60),
    ):
        try:
            read()
        except AuraError as refused:
            assert str(refused)
