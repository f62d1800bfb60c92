"""When each sample was measured, on the host's monotonic clock.

What is known of a sample's time is the arrival of its packet, which is late by an unknown delay
that is never negative and often tens of milliseconds (a BLE connection sends in bursts, one every
connection interval), and what the device says: a stamp of its own clock, a running number, or
nothing. A line is laid under the points (position in the stream, arrival), touching them from
below, for the packets that waited least show where it is (Moon, Skelly and Towsley 1999,
"Estimation and removal of clock skew from network delay measurements"). The position is:

* the device's stamp, where there is one: the line's slope is the drift between two clocks;
* else the sample's number, counted by the device or here: the slope is the time between samples.

**What the times mean.** A sample's time is when it was measured plus the link's smallest latency
(from the measurement of a packet's last sample to its arrival), which nobody can see from one end.
The times never step: a better line is approached by at most 1 % of the time that the samples take
(3 % where the device says nothing), so the spacing of samples stays right and gaps keep their
length. A first packet that came late makes all times late by as much at first.

**What cannot be exact.** A device that neither stamps nor counts does not tell a lost packet from
a late one, nor many lost ones from a lower rate. A hole is taken as a loss when the stream runs
more than 50 ms and most of a packet behind and what comes in the next 0.2 s (0.5 s at most) does
not catch up; it is rounded to whole packets, and the gap lies behind what came meanwhile. Smaller
losses are not seen: the line follows them as a lower rate, which is then the rate reported, and the
times are off by what was lost in the last seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.link import Packet

DRIFT_CLIP = 500e-6
"""What two clocks may differ by: crystals do 20 to 30 ppm, a vendor's own code allows for 200
(links.md, section 3). Less is believed of a window that is not full yet, whose delays say more than
its drift; ten times as much of a full one: no crystal, then."""

RATE_CLIP = 0.03
"""What a device's rate may differ from its nominal one in the first `RATE_BELIEVED_S`: its sensor's
own oscillator sets it."""

RATE_BELIEVED_S = 5.0
"""A rate measured over this long is believed, whatever the nominal one."""

RATE_RELEASE = 0.1
"""A device whose rate is further off after `LEARNING_S` does not keep its nominal rate at all."""

LEARNING_S = 2.0
"""How long a rate is measured before it is used ..."""

BOOT_S = 0.5
"""... of which the beginning is left out where nothing is known: buffers empty at once."""

RESET_S = 1.0
"""A step back by more, or ahead of the arrival by more, means that the device began anew."""

MAX_SHIFT_S = 0.25
"""A new segment that would begin before the last one ended is shifted by no more than this; of what
lies further back nothing is placed."""

REPEATS = 3
"""So many packets in a row that step back by less are no repetition either, but a new beginning."""

STALLED_S = 5.0
"""Packets later than this, and for as long: the device's clock or counter had stopped."""

BEHIND_S, BEHIND_PACKETS = 0.05, 0.75
"""Without stamps and numbers, a stream that is this far behind may have lost packets: more than
the usual connection intervals, and most of a packet."""

CATCH_UP_S, CATCHING_UP_S = 0.2, 0.01
"""It has if it stays behind for so long, by as much: a burst after a stall gets nearer."""

_STAMPS, _NUMBERS, _ARRIVALS = "stamps", "numbers", "arrivals"

_WINDOW_S = {_STAMPS: 60.0, _NUMBERS: 30.0, _ARRIVALS: 8.0}
"""What the line is laid under: long where it is straight, short where unseen losses bend it."""

_SLEW = {_STAMPS: 0.01, _NUMBERS: 0.01, _ARRIVALS: 0.03}
"""The times approach a better line by no more than this much of the time that samples take."""

_BIN_S = 0.5
_OFFSET_BINS = {_ARRIVALS: 2}
"""Where losses shift it unseen, the line touches the points of the last second only."""

_DRIFT_BIN_S, _DRIFT_WINDOW_S = 10.0, 3600.0
"""Of the line that the drift is reported from: the longer, the less the delays matter."""

_DRIFT_AFTER_S = 20.0
"""A drift measured over less would be that of the delays."""

_SPACINGS_S = (1e-5, 100.0)
"""What may be the time between samples."""

_LATEST = 1e12
"""Stamps and numbers beyond this are no clock's, and too coarse in float64."""

_LAGS = 4096
"""Packets that the lag is reported over."""

_MS = 1e-3
_MS_PACKETS = 8
"""So many stamps of whole milliseconds in a row are no accident."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClockReport:
    """What was learned of a stream."""

    rate_hz: float | None
    """Measured samples per second of the host's clock; None before it is known."""

    drift_ppm: float | None
    """The device's clock against the host's, positive when it gains; None without stamps and in
    the first 20 s."""

    samples: int
    """Placed in time."""

    lost: int
    """Samples that never came: exact where the device counts or stamps, else what was seen."""

    lag_p50_s: float
    """How much longer than the quickest packet half of the packets took at most."""

    lag_p95_s: float

    resets: int
    """How often the device began anew by itself: its clock or counter jumped or had stopped."""

    unplaced: int
    """Samples that came and have no time: repeated, with a broken stamp, from the 2 s in which a
    rate that nobody stated was measured, or from a time that others were placed in already, as the
    device's clock ran on or its rate was stated as too low."""

    @property
    def lost_fraction(self) -> float:
        """Of what the device measured while it was connected."""
        return self.lost / (self.lost + self.samples) if self.lost else 0.0


class Clock:
    """Places the packets of one stream in time, in the order of their arrival.

    Args:
        nominal_hz: what the device was asked for, or says of itself; 0 where nothing is known.
    """

    def __init__(self, nominal_hz: float) -> None:
        self._stated_hz = nominal_hz
        self._nominal_hz = nominal_hz  # 0 from when it turned out to be wrong
        self._mode = ""
        self._slope = 1.0  # seconds of the host per unit of position
        self._offset_s = 0.0
        self._envelope = _Envelope(_BIN_S, 0.0)
        self._drift = _Envelope(_DRIFT_BIN_S, _DRIFT_WINDOW_S)
        self._spacing = _Spacing(nominal_hz)
        self._arrival_s = -np.inf
        self._time_s = -np.inf  # of the last sample placed
        self._position = 0.0  # of the last sample placed
        self._origin: tuple[float, float] | None = None  # position and arrival that began a segment
        self._is_checked = False  # the nominal rate, against the measured one
        self._is_loose = True  # no sample of the segment is placed yet
        self._number = 0  # of the next sample, where numbers are counted
        self._skipped = 0
        self._repeats = 0
        self._behind_s, self._behind_since_s = np.inf, 0.0
        self._stalled_since_s = np.inf
        self._sizes: deque[int] = deque(maxlen=16)
        self._whole_ms = 0
        self._lags: deque[float] = deque(maxlen=_LAGS)
        self._samples = self._lost = self._resets = self._unplaced = 0

    def place(self, packet: Packet, arrival_s: float) -> Floats:
        """When the samples of a packet were measured.

        Args:
            packet: the next one of the stream.
            arrival_s: when it arrived, in seconds of the host's monotonic clock.

        Returns:
            (n,) seconds of the host's monotonic clock, strictly ascending from call to call; (0,)
            when the packet cannot be placed, see `ClockReport.unplaced`.
        """
        n = len(packet.values)
        self._arrival_s = arrival_s = max(arrival_s, self._arrival_s)
        mode = _mode_of(packet)
        if mode != self._mode:
            self._take_up(mode)
        position = self._positions(packet)
        if position is None:
            return self._leave_out(n)
        if self._origin is not None:
            position = self._continued(position)
            if position is None:
                return self._leave_out(n)
        lost = 0
        if self._origin is None:
            position = self._begin(position)
        else:
            lost = self._missing_before(position, packet)
            position = self._between_ticks(position, lost)
            if mode == _STAMPS:
                self._spacing.add(float(position[-1]) - self._position, n, lost)
        self._number = (self._number if packet.index is None else packet.index) + n
        self._sizes.append(n)
        if mode == _ARRIVALS:
            position = self._after_losses(position)
        slope = self._slope
        self._observe(float(position[-1]))
        self._lost += max(0, lost - self._skipped)
        self._skipped = 0
        return self._placed(position, slope)

    def restart(self, nominal_hz: float) -> None:
        """The connection was made anew: a new segment begins, later than the last one."""
        if nominal_hz != self._stated_hz:
            self._stated_hz = self._nominal_hz = nominal_hz
            self._is_checked = False
            self._take_up(self._mode)
        self._origin = None

    def skip(self, n: int) -> None:
        """So many samples came next but will not be placed; they are no loss of the link."""
        self._skipped += n
        if self._mode == _ARRIVALS:
            self._number += n
            self._skipped = 0

    def report(self) -> ClockReport:
        """What was learned so far."""
        lags = np.array(self._lags) if self._lags else np.zeros(1)
        p50, p95 = np.percentile(lags - lags.min(), [50, 95])
        return ClockReport(
            self._rate_hz(),
            self._drift_ppm(),
            self._samples,
            self._lost,
            float(p50),
            float(p95),
            self._resets,
            self._unplaced,
        )

    def _rate_hz(self) -> float | None:
        if not self._mode or not (self._samples or self._is_checked):
            return None
        if self._mode != _STAMPS:
            return 1 / self._slope
        spacing = self._spacing.value()
        return None if spacing is None else 1 / (spacing * self._slope)

    def _drift_ppm(self) -> float | None:
        if self._mode != _STAMPS or self._drift.span_s < _DRIFT_AFTER_S:
            return None
        slope = self._drift.middle_slope()
        return None if slope is None or slope <= 0 else (1 / slope - 1) * 1e6

    def _leave_out(self, n: int) -> Floats:
        self._unplaced += n
        return np.empty(0)

    def _take_up(self, mode: str) -> None:
        """Begin with a stream, or with one that says other things than before."""
        self._mode = mode
        self._origin = None
        self._slope = 1 / self._nominal_hz if self._nominal_hz and mode != _STAMPS else 1.0
        self._spacing = _Spacing(self._nominal_hz)
        self._number = self._whole_ms = 0

    def _is_learning(self) -> bool:
        """Whether the rate is not known from anywhere yet."""
        return self._mode != _STAMPS and not self._nominal_hz and not self._is_checked

    def _positions(self, packet: Packet) -> Floats | None:
        """Where the samples lie in the stream: seconds of the device's clock, or their numbers."""
        n = len(packet.values)
        if self._mode == _STAMPS:
            stamps = np.asarray(packet.device_s, dtype=np.float64)
            if stamps.shape != (n,) or not n or not (np.abs(stamps) < _LATEST).all():
                return None
            return stamps if (np.diff(stamps) >= _SPACINGS_S[0]).all() else None
        first = self._number if packet.index is None else packet.index
        return np.arange(first, first + n, dtype=np.float64) if abs(first) < _LATEST and n else None

    def _unit(self) -> float:
        """Positions from one sample to the next."""
        return 1.0 if self._mode != _STAMPS else self._spacing.value() or _MS

    def _unit_s(self) -> float:
        """Seconds of the host from one sample to the next."""
        return self._unit() * self._slope

    def _continued(self, position: Floats) -> Floats | None:
        """The positions where they go on from the last ones; None for a repetition. Forgets the
        segment (`_origin`) where the device began anew."""
        assert self._origin is not None
        position = position - self._origin[0]
        step_s = (float(position[0]) - self._position) * self._slope
        last_s = self._time_s + (float(position[-1]) - self._position) * self._slope
        if position[-1] <= self._position:
            self._repeats += 1
            if step_s >= -RESET_S and self._repeats < REPEATS:
                return None
            return self._anew(position)
        self._repeats = 0
        if step_s > RESET_S and last_s - self._arrival_s > RESET_S:
            return self._anew(position)
        lateness_s = self._arrival_s - self._line(float(position[-1]))
        if lateness_s <= STALLED_S or self._mode == _ARRIVALS:
            self._stalled_since_s = np.inf
        else:
            self._stalled_since_s = min(self._stalled_since_s, self._arrival_s)
        if self._arrival_s - self._stalled_since_s > STALLED_S:
            return self._anew(position)
        if position[0] <= self._position:  # a decoder that spreads samples back from the last one
            share = np.arange(1, len(position) + 1) / len(position)
            position = self._position + (position[-1] - self._position) * share
        return position

    def _anew(self, position: Floats) -> Floats:
        assert self._origin is not None
        self._resets += 1
        position = position + self._origin[0]
        self._origin = None
        return position

    def _begin(self, position: Floats) -> Floats:
        """Start a segment: its first packet is taken as one that did not wait."""
        n = len(position)
        if self._mode == _STAMPS:
            self._spacing.restart((position[-1] - position[0]) / (n - 1) if n > 1 else None)
        self._origin = (float(position[-1]), self._arrival_s)
        self._envelope = _Envelope(_BIN_S, _WINDOW_S[self._mode])
        self._drift = _Envelope(_DRIFT_BIN_S, _DRIFT_WINDOW_S)
        self._offset_s = self._arrival_s
        self._is_loose = True
        self._skipped = self._repeats = self._whole_ms = 0
        self._behind_s = np.inf
        self._stalled_since_s = np.inf
        return np.asarray(position - position[-1])

    def _line(self, position: float) -> float:
        """When a sample's packet arrives if it does not wait."""
        return self._offset_s + self._slope * position

    def _missing_before(self, position: Floats, packet: Packet) -> int:
        """Samples that the device measured between the last packet and this one."""
        if packet.index is not None:
            return max(0, packet.index - self._number)
        spacing = self._spacing.value() if self._mode == _STAMPS else None
        if spacing is None:
            return 0
        return max(0, round((float(position[0]) - self._position) / spacing) - 1)

    def _between_ticks(self, position: Floats, lost: int) -> Floats:
        """A clock that ticks in milliseconds says only between which ticks a sample lies: the
        samples' even spacing says where."""
        if self._mode != _STAMPS:
            return position
        assert self._origin is not None
        ticks = (float(position[0]) + self._origin[0]) / _MS
        self._whole_ms = self._whole_ms + 1 if abs(ticks - round(ticks)) < 1e-3 else 0
        spacing = self._spacing.lasting()
        if self._whole_ms < _MS_PACKETS or spacing is None:
            return position
        expected = self._position + (lost + 1) * spacing
        first = min(max(expected, float(position[0])), float(position[0]) + _MS)
        return np.asarray(first + spacing * np.arange(len(position)))

    def _observe(self, position: float) -> None:
        """Lay the line under one more packet."""
        assert self._origin is not None
        arrival_s = self._arrival_s
        if self._behind_s < np.inf:
            return  # what was lost before this packet is not known yet
        if not self._is_learning() or arrival_s - self._origin[1] > BOOT_S:
            self._drift.add(position, arrival_s)
            if self._envelope.add(position, arrival_s):
                self._fit()
        self._offset_s = min(self._offset_s, arrival_s - self._slope * position)

    def _fit(self) -> None:
        measured, span_s = self._envelope.middle_slope(), self._envelope.span_s
        needed_s = LEARNING_S - (BOOT_S if self._is_learning() else 0.0)
        if measured is not None and span_s >= needed_s:
            self._believe(measured, span_s)
        self._offset_s = self._envelope.offset_s(self._slope, _OFFSET_BINS.get(self._mode))

    def _believe(self, measured: float, span_s: float) -> None:
        """Take a measured slope for what it may be."""
        if self._mode == _STAMPS:
            full = span_s / _WINDOW_S[_STAMPS]
            clip = DRIFT_CLIP * (10.0 if full > 0.9 else full)
            self._slope = min(max(measured, 1 - clip), 1 + clip)
            return
        if not _SPACINGS_S[0] <= measured <= _SPACINGS_S[1]:
            return
        if not self._is_checked:
            self._is_checked = True
            if abs(measured * self._nominal_hz - 1) > RATE_RELEASE:
                # What was placed at another rate is over.
                self._nominal_hz, self._is_loose = 0.0, True
        if self._nominal_hz and span_s < RATE_BELIEVED_S:
            nominal = 1 / self._nominal_hz
            measured = min(max(measured, nominal * (1 - RATE_CLIP)), nominal * (1 + RATE_CLIP))
        self._slope = measured

    def _after_losses(self, position: Floats) -> Floats:
        """The numbers of a packet's samples, with what was lost before it where that shows."""
        size = float(np.mean(self._sizes))
        lateness_s = self._arrival_s - self._line(float(position[-1]))
        limit_s = max(BEHIND_S, BEHIND_PACKETS * size * self._slope)
        if lateness_s <= limit_s or not self._is_checked:
            self._behind_s = np.inf
            return position
        if lateness_s < self._behind_s - CATCHING_UP_S:
            self._behind_since_s = self._arrival_s
            self._behind_s = lateness_s
            return position
        self._behind_s = min(self._behind_s, lateness_s)
        if self._arrival_s - self._behind_since_s < CATCH_UP_S:
            return position
        lost_s = self._behind_s
        whole = self._sizes[-1] if len(set(self._sizes)) == 1 else 1
        lost = max(1, round(lost_s / (whole * self._slope))) * whole
        self._behind_s = np.inf
        self._lost += lost
        self._number += lost
        return position + lost

    def _placed(self, position: Floats, slope: float) -> Floats:
        """Times on the line, or on the way to it from the last ones at the slope so far: one that
        this packet has a say in would let a gap's length depend on how long it waited."""
        n, last = len(position), float(position[-1])
        times_s: Floats
        if self._is_learning():
            self._position = last
            return self._leave_out(n)
        if self._is_loose:
            times_s = self._offset_s + self._slope * position
            ahead_s = self._time_s + self._unit_s() - float(times_s[0])
            if ahead_s > MAX_SHIFT_S:
                self._position = last
                return self._leave_out(n)
            times_s = times_s + max(0.0, ahead_s)
        else:
            times_s = self._time_s + slope * (position - self._position)
            # Gaps keep their length: only the time that the samples themselves take is bent.
            steps = np.minimum(np.diff(position, prepend=self._position), self._unit())
            taken_s: Floats = slope * np.cumsum(steps)
            off_s = self._line(last) - float(times_s[-1])
            most = _SLEW[self._mode]
            share = off_s / max(float(taken_s[-1]), _SPACINGS_S[0])
            times_s = times_s + min(max(share, -most), most) * taken_s
        if not (np.diff(times_s, prepend=self._time_s) > 0).all():  # beyond float64's resolution
            times_s = self._time_s + _SPACINGS_S[0] * np.arange(1.0, n + 1)
        self._is_loose = False
        self._position, self._time_s = last, float(times_s[-1])
        self._samples += n
        self._lags.append(self._arrival_s - self._time_s)
        return times_s


def _mode_of(packet: Packet) -> str:
    if packet.device_s is not None:
        return _STAMPS
    return _ARRIVALS if packet.index is None else _NUMBERS


class _Envelope:
    """The lower convex hull of points (position, arrival) that fall out of a sliding window.

    Only each bin's own hull is kept: the hull of these is that of all points.
    """

    def __init__(self, bin_s: float, window_s: float) -> None:
        self._bin_s, self._window_s = bin_s, window_s
        self._bins: deque[list[tuple[float, float]]] = deque()
        self._open: list[tuple[float, float]] = []

    def add(self, position: float, arrival_s: float) -> bool:
        """Take a point right of all others; whether a bin was completed."""
        self._open.append((position, arrival_s))
        if arrival_s - self._open[0][1] < self._bin_s:
            if len(self._open) > _OPEN_POINTS:
                self._open = _lower_hull(self._open)
            return False
        self._bins.append(_lower_hull(self._open))
        self._open = []
        while arrival_s - self._bins[0][-1][1] > self._window_s:
            self._bins.popleft()
        return True

    @property
    def span_s(self) -> float:
        """Time between the window's first and last point."""
        return self._bins[-1][-1][1] - self._bins[0][0][1] if self._bins else 0.0

    def middle_slope(self) -> float | None:
        """Slope of the hull's edge over the middle of the window: of all lines under the points,
        the one with the least sum of distances; None for fewer than two points."""
        hull = _lower_hull([point for kept in self._bins for point in kept])
        if len(hull) < 2:
            return None
        middle = (hull[0][0] + hull[-1][0]) / 2
        right = next(i for i, point in enumerate(hull) if i and point[0] >= middle)
        (x0, y0), (x1, y1) = hull[right - 1], hull[right]
        return (y1 - y0) / (x1 - x0)

    def offset_s(self, slope: float, newest: int | None = None) -> float:
        """Arrival at position 0 of the highest line of that slope under all points, or those of
        the newest bins."""
        bins = [*self._bins, self._open] if newest is None else [*self._bins][-newest:]
        return min(y - slope * x for kept in bins for x, y in kept)


_OPEN_POINTS = 1024
"""A flood is thinned before its bin is full."""


def _lower_hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Andrew's monotone chain over points of ascending x; of equal x, the lowest stays."""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        if hull and x <= hull[-1][0]:
            if y >= hull[-1][1]:
                continue
            hull.pop()
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return hull


class _Spacing:
    """Time between samples on the device's clock, lost ones counted."""

    def __init__(self, nominal_hz: float) -> None:
        self._nominal_s = 1 / nominal_hz if nominal_hz else None
        self._recent: deque[float] = deque(maxlen=15)
        self._anchors = deque([(0.0, 0)])  # time and count, one a second
        self._time_s, self._count = 0.0, 0

    def restart(self, within_packet_s: float | None) -> None:
        """Begin a segment with a packet whose samples lie so far apart."""
        self._anchors.clear()
        self._anchors.append((0.0, 0))
        self._time_s, self._count = 0.0, 0
        if within_packet_s is not None and not self._recent:
            self._recent.append(within_packet_s)

    def add(self, time_s: float, n: int, lost: int) -> None:
        """Take a packet of n samples that ends so long after the one before it."""
        self._recent.append(time_s / n)
        self._time_s += time_s
        self._count += n + lost
        if self._time_s - self._anchors[-1][0] >= 1.0:
            self._anchors.append((self._time_s, self._count))
            while self._time_s - self._anchors[0][0] > _WINDOW_S[_STAMPS]:
                self._anchors.popleft()
        lasting = self.lasting()
        if lasting is not None and abs(lasting / float(np.median(self._recent)) - 1) > _OTHER_RATE:
            self._anchors.clear()
            self._anchors.append((self._time_s, self._count))

    def lasting(self) -> float | None:
        """Measured over the last second to minute; None before."""
        time_s, count = self._time_s - self._anchors[0][0], self._count - self._anchors[0][1]
        return time_s / count if time_s >= 1.0 and count else None

    def value(self) -> float | None:
        """The best that is known; None before anything is."""
        lasting = self.lasting()
        if lasting is not None:
            return lasting
        if not self._recent:
            return self._nominal_s
        recent = float(np.median(self._recent))
        if self._nominal_s and abs(recent / self._nominal_s - 1) < _OTHER_RATE:
            return self._nominal_s
        return recent


_OTHER_RATE = 0.3
"""Spacings that differ by more are of different rates, not of a bad measurement."""
