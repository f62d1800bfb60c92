"""Links with known truth: a device's crystal, its sensor's oscillator, and a radio in between.

`python -m tests.firmware_bridge.simulated_links` prints how well `firmware_bridge.clock` places the
samples of each, how well it could be done at best where the device tells nothing, and how well
acceleration and angular rate that come apart are joined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.clock import Clock, ClockReport
from firmware_bridge.link import Kind, Packet, Unwrapper
from firmware_bridge.merge import Merger

Floats = NDArray[np.float64]

LATENCY_S = 0.006
"""From the last sample of a packet to its arrival, when it does not wait."""


@dataclass(frozen=True)
class Link:
    """What a device says and what its radio does."""

    name: str
    nominal_hz: float = 200.0
    rate_error: float = 0.01
    """The sensor's own oscillator against the nominal rate."""
    packet: int = 4
    interval_s: float = 0.045
    """Connection interval: packets leave at these times only, all that are ready."""
    retry: float = 0.05
    """Connection events that fail; what waited goes at the next."""
    loss: float = 0.02
    """Packets that never arrive."""
    drift_ppm: float = 30.0
    """The device's clock against the host's."""
    tick_s: float | None = None
    """Resolution of the device's stamps of each packet's first sample; None for no stamps."""
    wrap_bits: int = 32
    """Of the stamps' ticks and of the counter."""
    counts: bool = False
    """Whether packets carry the number of their first sample."""
    stated_hz: float | None = None
    """What the clock is told; the nominal rate unless given."""
    duration_s: float = 120.0
    began_s: float = 4290.0
    """On the device's clock: 2^32 us are 4294.97 s, so counters wrap soon."""


@dataclass(frozen=True)
class Sent:
    """A packet that arrived."""

    packet: Packet
    arrival_s: float
    true_s: Floats
    """(n,) when its samples were measured, on the host's clock."""
    number: int
    """Of its first sample, lost ones counted."""
    event_s: float
    """When its connection event began."""


def sent_over(link: Link, seed: int = 0) -> list[Sent]:
    """The packets of a link in the order of their arrival."""
    rng = np.random.default_rng(seed)
    rate_hz = link.nominal_hz * (1 + link.rate_error)
    stamp_of = Unwrapper(link.wrap_bits)
    count_of = Unwrapper(16)
    phase_s = rng.uniform(0, link.interval_s)
    if link.interval_s:
        fails = rng.random(int((1010 + link.duration_s) / link.interval_s)) < link.retry
    arrivals: list[Sent] = []
    for first in range(0, round(link.duration_s * rate_hz), link.packet):
        number = first + np.arange(link.packet)
        true_s = 1000.0 + number / rate_hz
        ready_s = true_s[-1] + LATENCY_S
        event = np.ceil((ready_s - phase_s) / link.interval_s) if link.interval_s else 0.0
        arrival_s = phase_s + event * link.interval_s if link.interval_s else ready_s
        while link.interval_s and fails[int(event)]:  # for all packets that wait for it
            event += 1
            arrival_s += link.interval_s
        event_s = float(phase_s + event * link.interval_s)  # the same for all that it brings
        arrival_s += rng.exponential(0.0005)
        if rng.random() < link.loss:
            continue
        if arrivals:  # in the order of sending
            arrival_s = max(arrival_s, arrivals[-1].arrival_s + 1e-5)
        device_s = None
        if link.tick_s is not None:
            clock_s = link.began_s + (true_s[0] - 1000.0) * (1 + link.drift_ppm * 1e-6)
            ticks = stamp_of(int(clock_s / link.tick_s) % (1 << link.wrap_bits))
            device_s = ticks * link.tick_s + np.arange(link.packet) / rate_hz
        index = count_of((first + 60_000) % (1 << 16)) if link.counts else None
        packet = Packet("acc", np.zeros((link.packet, 3)), device_s, index)
        arrivals.append(Sent(packet, float(arrival_s), true_s, first, event_s))
    return arrivals


@dataclass(frozen=True)
class Placed:
    """What a clock made of a link."""

    times_s: Floats
    true_s: Floats
    number: NDArray[np.int64]
    report: ClockReport

    def error_s(self, after_s: float = 10.0) -> Floats:
        """Of the times, against the true ones plus the smallest latency."""
        late = self.true_s > self.true_s[0] + after_s
        return np.asarray((self.times_s - self.true_s - LATENCY_S)[late])

    def gap_errors(self, rate_hz: float) -> NDArray[np.int64]:
        """How many samples each hole is too long or too short by."""
        missing = np.diff(self.number) - 1
        holes = missing > 0
        placed = np.round(np.diff(self.times_s) * rate_hz).astype(np.int64) - 1
        return np.asarray((placed - missing)[holes])


def place(link: Link, sent: list[Sent], clock: Clock | None = None) -> Placed:
    """Run a clock over packets."""
    stated_hz = link.nominal_hz if link.stated_hz is None else link.stated_hz
    clock = clock or Clock(stated_hz)
    times, true, number = [], [], []
    for one in sent:
        placed = clock.place(one.packet, one.arrival_s)
        if len(placed):
            times.append(placed)
            true.append(one.true_s)
            number.append(one.number + np.arange(len(placed)))
    return Placed(
        np.concatenate(times), np.concatenate(true), np.concatenate(number), clock.report()
    )


STAMPS = Link("stamps, us (wrapping)", tick_s=1e-6)
STAMPS_MS = Link("stamps, ms", tick_s=1e-3)
COUNTER = Link("counter, 16 bits (wrapping)", counts=True)
NOTHING = Link("nothing, no loss", loss=0.0)
NOTHING_LOSSY = Link("nothing")
NOTHING_SINGLE = Link("nothing, 1 sample a packet", packet=1)

LINKS = (
    STAMPS,
    STAMPS_MS,
    Link("stamps, ms, 1 sample a packet", tick_s=1e-3, packet=1, nominal_hz=208.0),
    Link("stamps, 52 Hz, 36 a packet", tick_s=1e-6, packet=36, nominal_hz=52.0),
    Link("stamps, rate not stated", tick_s=1e-6, stated_hz=0.0),
    COUNTER,
    Link("counter, 1 sample a packet", counts=True, packet=1),
    Link("counter, 52 Hz, 12 a packet", counts=True, nominal_hz=52.0, packet=12),
    Link("counter, rate not stated", counts=True, stated_hz=0.0),
    Link("counter, rate stated 3 x too high", counts=True, stated_hz=600.0),
    NOTHING,
    Link("nothing, no loss, 1 a packet", loss=0.0, packet=1),
    Link("nothing, no loss, rate not stated", loss=0.0, stated_hz=0.0),
    NOTHING_LOSSY,
    NOTHING_SINGLE,
    Link("nothing, 52 Hz, 12 a packet", nominal_hz=52.0, packet=12),
)
"""45 ms bursts, 2 % of packets lost, 30 ppm of drift, a rate 1 % above the nominal one, 5 % of
connection events failed; 200 Hz and 4 samples a packet, unless the name says otherwise."""


def apart_s(link: Link, seed: int = 0, by_stamps: bool = True) -> Floats:
    """(n,) by how much each sample's angular rate was measured after its acceleration, where the
    device sends the two apart: both are of one clock, and each is lost and late by itself. They
    are joined by the device's stamps, or by the times that each is placed at."""
    kinds: tuple[Kind, ...] = ("acc", "gyro")
    sent = [(k, one) for i, k in enumerate(kinds) for one in sent_over(link, 2 * seed + i)]
    clocks, merger = {kind: Clock(link.nominal_hz) for kind in kinds}, Merger(kinds)
    apart = []
    for kind, one in sorted(sent, key=lambda pair: pair[1].arrival_s):
        times_s = clocks[kind].place(one.packet, one.arrival_s)
        measured_s = np.repeat(one.true_s[:, None], 3, axis=1)
        stamps = one.packet.device_s if by_stamps else None
        samples = merger.push(kind, times_s, measured_s, stamps)
        if samples is not None and samples.gyro_rads is not None:
            apart.append((samples.gyro_rads - samples.acc_mps2)[:, 0])
    return np.concatenate(apart)


def at_best_s(link: Link, seed: int = 0) -> Floats:
    """(n,) errors of the best that can be done where the device tells nothing and several packets
    share a connection event: who knows rate, latency and events knows how many packets each event
    brings. Where one is missing nothing tells which; those that came are taken as spread evenly."""
    period_s = link.packet / (link.nominal_hz * (1 + link.rate_error))
    sent = sent_over(link, seed)
    lead_s = sent[0].true_s[-1] - sent[0].true_s[0] + LATENCY_S
    errors, newest, last = [], -1, sent[-1].number // link.packet
    for event_s, burst in groupby(sent, key=lambda one: one.event_s):
        came = np.array([one.number // link.packet for one in burst])
        brought = int((event_s - 1000.0 - lead_s) / period_s + 1e-9)
        oldest, newest = newest + 1, min(brought, last)
        share = (np.arange(len(came)) + 0.5) / len(came)
        taken = oldest + np.round(share * (newest + 1 - oldest) - 0.5)
        errors.append((taken - came) * period_s)
    return np.repeat(np.concatenate(errors), link.packet)


def table(links: tuple[Link, ...] = LINKS, seeds: int = 5) -> list[str]:
    """One line a link, over so many seeds each."""
    lines = [
        f"{'link':<36}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'gaps':>7}{'exact':>8}"
        f"{'lost':>7}{'found':>7}{'rate':>9}{'ppm':>7}"
    ]
    for link in links:
        runs = [(sent, place(link, sent)) for sent in (sent_over(link, s) for s in range(seeds))]
        rate_hz = link.nominal_hz * (1 + link.rate_error)
        errors = np.abs(np.concatenate([placed.error_s() for _, placed in runs])) * 1e3
        gaps = np.concatenate([placed.gap_errors(rate_hz) for _, placed in runs])
        lost = sum(_lost(sent) for sent, _ in runs)
        found = sum(placed.report.lost for _, placed in runs)
        reports = [placed.report for _, placed in runs]
        rate = _worst([r.rate_hz for r in reports], rate_hz)
        ppm = _worst([r.drift_ppm for r in reports], link.drift_ppm)
        p50, p99 = np.percentile(errors, [50, 99])
        exact = f"{np.mean(gaps == 0):.1%}" if len(gaps) else "-"
        lines.append(
            f"{link.name:<36}{p50:>8.2f}{p99:>8.2f}{errors.max():>8.2f}{len(gaps):>7}{exact:>8}"
            f"{lost:>7}{found:>7}{rate:>9}{ppm:>7}"
        )
    return lines


def _lost(sent: list[Sent]) -> int:
    size = len(sent[0].packet.values)
    return sent[-1].number + size - sent[0].number - sum(len(s.packet.values) for s in sent)


def _worst(measured: list[float | None], true: float) -> str:
    values = [m for m in measured if m is not None]
    distance: Callable[[float], float] = lambda m: abs(m - true)  # noqa: E731
    return f"{max(values, key=distance):.2f}" if values else "-"


def at_best_table(seeds: int = 5) -> list[str]:
    """One line a link that loses packets, tells nothing, and has some packets in a burst."""
    lines = [f"{'at best':<36}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'off':>8}"]
    for link in (NOTHING_LOSSY, NOTHING_SINGLE):
        best = np.abs(np.concatenate([at_best_s(link, seed) for seed in range(seeds)])) * 1e3
        p50, p99 = np.percentile(best, [50, 99])
        off = f"{np.mean(best > 1e-3):.1%}"
        lines.append(f"{link.name:<36}{p50:>8.2f}{p99:>8.2f}{best.max():>8.2f}{off:>8}")
    return lines


def apart_table(seeds: int = 5) -> list[str]:
    """Two lines a link that stamps: joined by the stamps, and not."""
    lines = [f"{'acc and gyro apart':<48}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}"]
    for link in LINKS:
        for by_stamps in (True, False) if link.tick_s else ():
            runs = [apart_s(link, seed, by_stamps) for seed in range(seeds)]
            apart = np.abs(np.concatenate(runs)) * 1e3
            p50, p99 = np.percentile(apart, [50, 99])
            name = f"{link.name}, by {'stamps' if by_stamps else 'times'}"
            lines.append(f"{name:<48}{p50:>8.3f}{p99:>8.3f}{apart.max():>8.3f}")
    return lines


if __name__ == "__main__":
    print("\n".join([*table(), "", *at_best_table(), "", *apart_table()]))
