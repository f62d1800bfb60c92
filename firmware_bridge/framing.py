"""Frames of a byte stream: COBS and CRC-16, ended by a zero byte.

    message -> message + CRC (u16, little-endian) -> COBS, which leaves no zero in it -> + 00

COBS (Cheshire and Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM ToN 7(2), 1999) costs one
byte in 254 and finds the next frame after any damage. The CRC is CRC-16/CCITT-FALSE (polynomial
0x1021, start 0xFFFF, not reflected; "IBM-3740" in the CRC catalogue).
"""

from __future__ import annotations

import binascii

from cobs import cobs

from firmware_bridge.link import Counts

DELIMITER = b"\0"
_CRC_BYTES = 2


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE."""
    return binascii.crc_hqx(data, 0xFFFF)


def encode_frame(message: bytes) -> bytes:
    """A message as it goes over a wire, its delimiter included."""
    crc = crc16(message).to_bytes(_CRC_BYTES, "little")
    return bytes(cobs.encode(message + crc)) + DELIMITER


class Pieces:
    """Bytes in any chunks -> what stands between delimiters.

    Args:
        delimiter: one byte.
        limit: longest piece; of a longer one nothing is kept.
    """

    def __init__(self, delimiter: bytes, limit: int) -> None:
        self._delimiter = delimiter
        self._limit = limit
        self._held = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The pieces that end in `data`, oldest first; None for one that was too long."""
        pieces: list[bytes | None] = []
        *ends, rest = data.split(self._delimiter)
        for part in ends:
            self._hold(part)
            pieces.append(None if self._overlong else bytes(self._held))
            self._held.clear()
            self._overlong = False
        self._hold(rest)
        return pieces

    def _hold(self, part: bytes) -> None:
        if self._overlong or len(self._held) + len(part) > self._limit:
            self._overlong = True
            self._held.clear()
        else:
            self._held += part


class FrameSplitter:
    """Bytes in any chunks -> the messages of the frames that arrived whole.

    What comes before the first good frame is boot noise or the rest of a frame whose start was
    missed: it has a count of its own and says nothing of the link.

    Args:
        max_message: longest message in bytes; what grows longer is dropped up to the next
            delimiter.
        counts: to add to.
    """

    def __init__(self, max_message: int, counts: Counts | None = None) -> None:
        self.counts = Counts() if counts is None else counts
        coded = max_message + _CRC_BYTES
        self._pieces = Pieces(DELIMITER, coded + coded // 254 + 1)
        self._synced = False

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that end in `data`, oldest first. Never raises."""
        messages = []
        for piece in self._pieces.feed(data):
            if piece == b"":
                continue  # two delimiters in a row are no fault
            message = "frame too long" if piece is None else _decode(piece)
            if isinstance(message, bytes):
                self._synced = True
                messages.append(message)
            else:
                self.counts[message if self._synced else "before the first frame"] += 1
        return messages


def _decode(frame: bytes) -> bytes | str:
    """The message, or what is wrong with it."""
    try:
        coded = bytes(cobs.decode(frame))
    except cobs.DecodeError:
        return "COBS"
    message, crc = coded[:-_CRC_BYTES], coded[-_CRC_BYTES:]
    if not message or crc16(message) != int.from_bytes(crc, "little"):
        return "CRC"
    return message
