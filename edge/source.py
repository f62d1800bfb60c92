"""Where samples come from: a recorded file or a device, each an iterator of `Samples`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples
from firmware_bridge.sim import simulated_packets

PACKET_SAMPLES = 20
"""Samples handed out at once: what one BLE notification holds of six int16 axes (MTU 247)."""


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
        starts = range(0, len(chunk), PACKET_SAMPLES)
        # Looked up at once: a processor that is woken for every piece does it with cold caches.
        last = [min(start + PACKET_SAMPLES, len(chunk)) - 1 for start in starts]
        for start, due_s in zip(starts, chunk.t_s[last].tolist(), strict=True):
            if first_s is None:
                first_s = float(chunk.t_s[start])
            wait_s = due_s - first_s - (now_s() - began_s)
            if wait_s > 0:  # False for NaN stamps: they wait for nothing
                sleep_s(wait_s)
            yield chunk[start : start + PACKET_SAMPLES]
