"""COBS and CRC frames."""

from __future__ import annotations

import struct
from itertools import pairwise

from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.framing import FrameSplitter, Pieces, crc16, encode_frame
from tests.firmware_bridge.fuzz import EXAMPLES

MESSAGE = struct.pack("<BIB6h", 1, 7, 0, 0, 0, 8192, 1, 2, 3)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes in chunks, cut at these places."""
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def test_known_answers() -> None:
    """links.md, vectors 20 to 22."""
    assert MESSAGE.hex() == "010700000000000000000020010002000300"
    assert crc16(MESSAGE) == 0x5459
    assert encode_frame(MESSAGE).hex() == "03010701010101010101010320010202020303595400"
    assert cobs.decode(encode_frame(MESSAGE)[:-1]) == MESSAGE + b"\x59\x54"
    assert cobs.encode(bytes.fromhex("11220033")).hex() == "0311220233"
    assert crc16(b"123456789") == 0x29B1


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0), max_size=9)
)
def test_messages_come_back_in_any_chunks(messages: list[bytes], cuts: list[int]) -> None:
    splitter = FrameSplitter(300)
    stream = b"".join(map(encode_frame, messages))
    assert [m for chunk in cut(stream, cuts) for m in splitter.feed(chunk)] == messages
    assert not splitter.counts


def test_what_is_wrong_is_counted_and_the_next_frame_is_found() -> None:
    good = encode_frame(MESSAGE)
    splitter = FrameSplitter(100)
    stream = b"boot: v1.2\r\n" + good[5:] + good  # text and half a frame, before the first
    assert splitter.feed(stream) == [MESSAGE]
    assert splitter.counts == {"before the first frame": 1}
    flipped = bytes([*good[:13], good[13] ^ 0x40, *good[14:]])
    assert splitter.feed(flipped + good) == [MESSAGE]
    assert splitter.counts["CRC"] == 1
    assert splitter.feed(b"\x09\x01\0" + good) == [MESSAGE]
    assert splitter.counts["COBS"] == 1
    assert splitter.feed(encode_frame(b"x" * 101) + good) == [MESSAGE]
    assert splitter.counts["frame too long"] == 1
    assert splitter.feed(b"\0\0\0") == []
    assert sum(splitter.counts.values()) == 4


def test_the_longest_message_fits() -> None:
    for length in (252, 253, 254, 506, 507, 508, 512):
        message = b"x" * length  # no zero in it: COBS costs the most
        assert FrameSplitter(length).feed(encode_frame(message)) == [message]


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.binary(max_size=3000), max_size=20))
def test_noise_is_bounded_and_never_raises(chunks: list[bytes]) -> None:
    splitter = FrameSplitter(100)
    for chunk in chunks:
        splitter.feed(chunk)
    assert len(splitter._pieces._held) <= 104
    whole = FrameSplitter(100)
    whole.feed(b"".join(chunks))
    assert whole.counts == splitter.counts


def test_pieces_too_long_are_none() -> None:
    pieces = Pieces(b"\n", 4)
    assert pieces.feed(b"abcd\nabc") == [b"abcd"]
    assert pieces.feed(b"de") == [] and pieces.feed(b"f\n\nx\n") == [None, b"", b"x"]
