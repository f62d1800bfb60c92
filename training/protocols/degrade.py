"""What befalls a wearable's stream, done to the samples of a recording.

Samples, not windows: what is left goes through the runtime's own resampler and window cutter, and
meets the gaps and rates there that it would meet on a device. The first sample always stays: the
grid begins with it, and the labelled segments are counted from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.corpus import CorpusRecording
from firmware_bridge.samples import Samples

PACKET_SAMPLES = 10
"""Samples that are lost together."""

BURST_PACKETS = 3
"""Packets lost in a row, on average: links fade, they do not fail at random."""

LOWER_RATES_HZ = (50.0, 25.0, 20.0)
LOSSES = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Condition:
    """A way to be worse off."""

    name: str
    apply: Callable[[CorpusRecording, int], CorpusRecording]
    """(recording, seed) -> the recording with other samples and the same segments."""

    random: bool = False
    """Whether the seed matters."""


def conditions(rates_hz: Sequence[float]) -> list[Condition]:
    """Those that make a difference to a corpus of such rates."""
    lower = [rate for rate in LOWER_RATES_HZ if rate < max(rates_hz)]
    return [
        Condition("as recorded", lambda recording, seed: recording),
        Condition("no gyroscope", lambda recording, seed: without_gyroscope(recording)),
        *(_lower_rate(rate) for rate in lower),
        *(_loss(fraction) for fraction in LOSSES),
    ]


def _lower_rate(rate_hz: float) -> Condition:
    return Condition(f"{rate_hz:g} Hz", lambda recording, seed: at_rate(recording, rate_hz))


def _loss(fraction: float) -> Condition:
    return Condition(
        f"{fraction:.0%} of the packets lost",
        lambda recording, seed: with_lost_packets(recording, fraction, seed),
        random=True,
    )


def without_gyroscope(recording: CorpusRecording) -> CorpusRecording:
    """As a device without one would have recorded it."""
    samples = recording.samples
    return replace(recording, samples=Samples(samples.t_s, samples.acc_mps2, None))


def at_rate(recording: CorpusRecording, rate_hz: float) -> CorpusRecording:
    """As a slower sensor would have recorded it; a recording that is not faster stays as it is.

    Each new sample is the mean of those nearest to its time, as sensors average between two
    readings. `rate_hz` of the recording is still the old one: its segments are counted in it.
    """
    if recording.rate_hz <= rate_hz:
        return recording
    samples = recording.samples
    begin_s = samples.t_s[0]
    nearest = np.round((samples.t_s - begin_s) * rate_hz).astype(np.int64)
    count = np.bincount(nearest)
    present = count > 0

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = [np.bincount(nearest, values[:, axis]) for axis in range(3)]
        return np.stack(sums, axis=1)[present] / count[present, None]

    t_s = begin_s + np.flatnonzero(present) / rate_hz
    gyro = None if samples.gyro_rads is None else mean(samples.gyro_rads)
    return replace(recording, samples=Samples(t_s, mean(samples.acc_mps2), gyro))


def with_lost_packets(recording: CorpusRecording, fraction: float, seed: int) -> CorpusRecording:
    """With packets lost in bursts, the same ones for one seed whatever the model.

    Gilbert 1960, "Capacity of a burst-noise channel" (Bell Syst. Tech. J. 39:1253): a link that is
    up or down, and stays so for a while.
    """
    samples = recording.samples
    rng = np.random.default_rng([seed, recording.recording])
    packet = np.arange(len(samples)) // PACKET_SAMPLES
    kept = ~_lost(int(packet[-1]) + 1, fraction, rng)[packet]
    gyro = None if samples.gyro_rads is None else samples.gyro_rads[kept]
    rest = Samples(samples.t_s[kept], samples.acc_mps2[kept], gyro)
    return replace(recording, samples=rest)


def _lost(packets: int, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(packets,) which ones are lost; the first never is."""
    recovers = 1 / BURST_PACKETS
    fails = recovers * fraction / (1 - fraction)  # so that `fraction` is lost in the long run
    draw = rng.random(packets)
    lost = np.zeros(packets, bool)
    for i in range(1, packets):
        lost[i] = draw[i] >= recovers if lost[i - 1] else draw[i] < fails
    return lost
