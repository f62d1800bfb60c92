"""Where samples come from: a recorded file or a device, each an iterator of `Samples`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples
from firmware_bridge.sim import simulated_packets

_PIECE_SAMPLES = 10


def open_device(uri: str) -> Iterator[Samples]:
    """Packets of a device.

    Raises:
        InputError: the URI names no device this version knows.
    """
    if uri == "sim":
        return simulated_packets()
    raise InputError(f"--device {uri!r} is not known; this version streams from: sim")


def in_real_time(
    chunks: Iterator[Samples],
    now_s: Callable[[], float] = time.monotonic,
    sleep_s: Callable[[float], None] = time.sleep,
) -> Iterator[Samples]:
    """The same samples in small pieces, each handed out when its last sample is due."""
    began_s = now_s()
    first_s: float | None = None
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE_SAMPLES):
            piece = chunk[start : start + _PIECE_SAMPLES]
            first_s = float(piece.t_s[0]) if first_s is None else first_s
            wait_s = float(piece.t_s[-1]) - first_s - (now_s() - began_s)
            if wait_s > 0:  # False for NaN stamps: they wait for nothing
                sleep_s(wait_s)
            yield piece
