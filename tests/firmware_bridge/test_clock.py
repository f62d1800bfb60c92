"""Sample times against the known truth of simulated links."""

from __future__ import annotations

import dataclasses
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.clock import Clock
from firmware_bridge.link import Packet, Unwrapper
from tests.firmware_bridge.simulated_links import (
    COUNTER,
    NOTHING,
    NOTHING_LOSSY,
    STAMPS,
    STAMPS_MS,
    Link,
    Placed,
    Sent,
    at_best_s,
    place,
    sent_over,
    table,
)

SHORT = 40.0
TOLD = (STAMPS, STAMPS_MS, COUNTER)
ALL = (*TOLD, NOTHING)


def ids(link: Link) -> str:
    return link.name


def without(sent: list[Sent], from_s: float, for_s: float) -> list[Sent]:
    """Everything measured in a while is lost."""
    began_s = sent[0].true_s[0]
    return [s for s in sent if not from_s <= s.true_s[0] - began_s < from_s + for_s]


def hole(placed: Placed, rate_hz: float) -> tuple[int, float, int]:
    """Samples missing in the longest hole, samples that its times leave out, and how many samples
    later they do."""
    true, times = np.diff(placed.number), np.diff(placed.times_s)
    at, found = int(np.argmax(true)), int(np.argmax(times))
    return int(true[at]) - 1, times[found] * rate_hz - 1, found - at


def shifted(sent: list[Sent], after_s: float, **change: float) -> list[Sent]:
    """The device's stamps and numbers, some other value added from a time on."""
    out = []
    for one in sent:
        packet = one.packet
        if one.true_s[0] - sent[0].true_s[0] >= after_s:
            stamps = None if packet.device_s is None else packet.device_s + change["stamp_s"]
            index = None if packet.index is None else packet.index + int(change["count"])
            packet = dataclasses.replace(packet, device_s=stamps, index=index)
        out.append(dataclasses.replace(one, packet=packet))
    return out


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("link", ALL, ids=ids)
def test_times_are_within_10_ms_after_10_s(link: Link, seed: int) -> None:
    placed = place(link, sent_over(dataclasses.replace(link, duration_s=60.0), seed))
    assert np.percentile(np.abs(placed.error_s()), 99) < 0.010
    assert (np.diff(placed.times_s) > 0).all()
    rate_hz = placed.report.rate_hz
    assert rate_hz == pytest.approx(202.0, rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("link", TOLD, ids=ids)
def test_gaps_and_losses_are_exact_where_the_device_stamps_or_counts(link: Link, seed: int) -> None:
    sent = sent_over(dataclasses.replace(link, duration_s=60.0), seed)
    placed = place(link, sent)
    errors = placed.gap_errors(202.0)
    assert len(errors) > 10 and not errors.any()
    n = sum(len(s.packet.values) for s in sent)
    assert placed.report.samples == n
    assert placed.report.lost == sent[-1].number + 4 - sent[0].number - n
    assert 0.005 < placed.report.lost_fraction < 0.05


@pytest.mark.parametrize("lasts_s", [0.3, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("link", TOLD, ids=ids)
def test_an_outage_is_a_gap_of_its_length_where_it_was(link: Link, lasts_s: float) -> None:
    sent = without(sent_over(dataclasses.replace(link, duration_s=SHORT), 1), 15.0, lasts_s)
    missing, placed, late = hole(place(link, sent), 202.0)
    # After 15 s the rate is known to a few parts in 10,000: exact up to some seconds.
    assert abs(placed - missing) < max(0.5, 4e-4 * missing) and late == 0


@pytest.mark.parametrize("lasts_s", [0.1, 0.3, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("packet", [1, 4, 12])
def test_without_stamps_or_numbers_an_outage_is_right_to_a_packet(
    packet: int, lasts_s: float
) -> None:
    link = dataclasses.replace(NOTHING, duration_s=SHORT, packet=packet)
    sent = without(sent_over(link, 1), 15.0, lasts_s)
    result = place(link, sent)
    missing, placed, late = hole(result, 202.0)
    assert abs(placed - missing) <= max(packet, 3)
    assert 0 <= late <= 0.5 * 202 + packet  # those that had to be waited for
    assert abs(result.report.lost - missing) <= max(packet, 3)


def test_what_arrives_late_in_a_burst_is_no_loss() -> None:
    link = dataclasses.replace(NOTHING, duration_s=SHORT)
    sent = []
    for one in sent_over(link):
        # The radio is out from 15.0 to 15.8 s and sends what waited packet by packet after it.
        stalled = 1015.0 < one.arrival_s < 1015.8
        late_s = 1015.8 + 0.2 * (one.arrival_s - 1015.0) if stalled else one.arrival_s
        sent.append(dataclasses.replace(one, arrival_s=max(late_s, one.arrival_s)))
    sent = sorted(sent, key=lambda s: s.number)
    latest = np.maximum.accumulate([s.arrival_s for s in sent])
    sent = [dataclasses.replace(s, arrival_s=a) for s, a in zip(sent, latest, strict=True)]
    placed = place(link, sent)
    assert placed.report.lost == 0 and np.abs(placed.error_s()).max() < 0.010
    assert placed.report.lag_p95_s > placed.report.lag_p50_s > 0.01


def test_where_nothing_is_told_small_losses_bend_the_rate() -> None:
    """The limit that the module states: no outage, yet 2 % of the packets never came."""
    placed = place(NOTHING_LOSSY, sent_over(NOTHING_LOSSY))
    errors = np.abs(placed.error_s())
    assert np.median(errors) < 0.02 and errors.max() < 0.2
    assert (np.diff(placed.times_s) > 0).all()


def test_nor_could_10_ms_be_reached_there_by_knowing_more() -> None:
    whole = dataclasses.replace(NOTHING_LOSSY, loss=0.0, duration_s=SHORT)
    assert np.abs(at_best_s(whole)).max() < 1e-9
    assert np.percentile(np.abs(at_best_s(NOTHING_LOSSY)), 99) > 0.010


@pytest.mark.parametrize("link", [STAMPS, COUNTER], ids=ids)
def test_counters_wrap_without_a_trace(link: Link) -> None:
    """The links' counters wrap 5 s and 27 s after they begin; `Unwrapper` is in the path."""
    sent = sent_over(dataclasses.replace(link, duration_s=SHORT, loss=0.0))
    placed = place(link, sent)
    assert placed.report.resets == placed.report.lost == 0
    assert np.diff(placed.times_s).max() < 1.1 / 202.0


def test_a_wrap_is_seen_across_a_gap() -> None:
    unwrap = Unwrapper(8)
    clock = Clock(100.0)
    times = [clock.place(packet_of(index=unwrap(i)), 5.0 + k) for k, i in enumerate((150, 250, 94))]
    assert [round(b[0] - a[0], 6) for a, b in pairwise(times)] == [1.0, 1.0]
    assert clock.report().lost == 2 * 96


@pytest.mark.parametrize("link", [STAMPS, COUNTER], ids=ids)
@pytest.mark.parametrize(("stamp_s", "count"), [(-4100.0, -59_000), (4294.967296, 1 << 16)])
def test_a_device_that_begins_anew(link: Link, stamp_s: float, count: int) -> None:
    """It restarts from 0, or what is left of its count looks like one far ahead."""
    sent = sent_over(dataclasses.replace(link, duration_s=SHORT, loss=0.0))
    sent = shifted(without(sent, 14.0, 1.0), 15.0, stamp_s=stamp_s, count=count)
    placed = place(link, sent)
    assert placed.report.resets == 1 and placed.report.lost == 0
    assert (np.diff(placed.times_s) > 0).all()
    assert np.percentile(np.abs(placed.error_s(25.0)), 99) < 0.010
    assert 0.9 < np.diff(placed.times_s).max() < 1.1


def test_a_device_whose_clock_had_stopped_begins_anew() -> None:
    sent = sent_over(dataclasses.replace(STAMPS, duration_s=60.0, loss=0.0))
    slept = [
        dataclasses.replace(s, arrival_s=s.arrival_s + 30.0, true_s=s.true_s + 30.0)
        if s.true_s[0] > 1010.0
        else s
        for s in sent
    ]
    placed = place(STAMPS, slept)
    assert placed.report.resets == 1
    assert np.percentile(np.abs(placed.error_s(60.0)), 99) < 0.010


def test_a_repeated_packet_has_no_time() -> None:
    for packet in (packet_of(device_s=7.0), packet_of(index=3)):
        clock = Clock(100.0)
        assert len(clock.place(packet, 5.0)) == 4
        assert len(clock.place(packet, 5.1)) == 0
        report = clock.report()
        assert (report.samples, report.unplaced, report.resets) == (4, 4, 0)


def packet_of(n: int = 4, device_s: float | None = None, index: int | None = None) -> Packet:
    stamps = None if device_s is None else device_s + np.arange(n) / 100.0
    return Packet("acc", np.zeros((n, 3)), stamps, index)


@pytest.mark.parametrize("late_s", [0.2, 0.5])
def test_a_first_packet_that_came_late_is_slewed_away(late_s: float) -> None:
    sent = sent_over(dataclasses.replace(STAMPS, duration_s=100.0))
    sent[0] = dataclasses.replace(sent[0], arrival_s=sent[0].arrival_s + late_s)
    latest = np.maximum.accumulate([s.arrival_s for s in sent])
    sent = [dataclasses.replace(s, arrival_s=a) for s, a in zip(sent, latest, strict=True)]
    placed = place(STAMPS, sent)
    assert placed.report.resets == 0
    assert np.abs(placed.error_s(0.0)).max() < late_s + 0.05
    assert np.percentile(np.abs(placed.error_s(late_s * 110 + 5)), 99) < 0.010
    steps = np.diff(placed.times_s) * 202.0
    assert not placed.gap_errors(202.0).any() and steps.min() > 0.985


def test_whole_milliseconds_are_spread_evenly() -> None:
    link = Link("", tick_s=1e-3, packet=1, nominal_hz=208.0, duration_s=SHORT, loss=0.0)
    placed = place(link, sent_over(link))
    jitter_s = np.diff(placed.times_s[4000:]) - 1 / (208 * 1.01)
    # A millisecond of rounding, undone: what remains is a tenth of its 0.41 ms (rms, a difference).
    assert np.sqrt((jitter_s**2).mean()) < 1e-4


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("stated_hz", [0.0, 600.0, 100.0])
def test_a_rate_that_is_not_known_or_wrongly_stated_is_measured(
    stated_hz: float, counts: bool
) -> None:
    link = Link("", counts=counts, loss=0.0, stated_hz=stated_hz, duration_s=60.0)
    placed = place(link, sent_over(link))
    assert placed.report.rate_hz == pytest.approx(202.0, rel=2e-3)
    assert placed.report.lost == 0
    # In the first 2 s there are no times where no rate is known; where it was stated as too low,
    # the times ran ahead, and what follows has to wait for them.
    assert (placed.report.unplaced > 0) == (stated_hz < 200)
    assert placed.report.unplaced < 2.6 * 202
    after_s = 10.0 if stated_hz != 100.0 else 30.0
    assert np.percentile(np.abs(placed.error_s(after_s)), 99) < 0.010


def test_drift_is_measured() -> None:
    for ppm in (-200.0, 30.0, 400.0):
        link = dataclasses.replace(STAMPS, drift_ppm=ppm, duration_s=300.0, packet=20)
        placed = place(link, sent_over(link))
        assert placed.report.drift_ppm == pytest.approx(ppm, abs=15)
        assert np.percentile(np.abs(placed.error_s()), 99) < 0.010
    assert place(COUNTER, sent_over(COUNTER)).report.drift_ppm is None


def test_a_connection_made_anew_is_a_new_segment() -> None:
    for link in ALL:
        sent = sent_over(dataclasses.replace(link, duration_s=SHORT, loss=0.0), 3)
        clock = Clock(link.nominal_hz)
        before = place(link, [s for s in sent if s.true_s[0] < 1015.0], clock)
        clock.restart(link.nominal_hz)
        anew = shifted([s for s in sent if s.true_s[0] > 1020.0], 0.0, stamp_s=-4000, count=-60_000)
        after = place(link, anew, clock)
        assert after.times_s[0] - before.times_s[-1] == pytest.approx(5.0, abs=0.1)
        assert np.percentile(np.abs(after.error_s()), 99) < 0.010
        assert after.report.lost == after.report.resets == 0


@pytest.mark.parametrize("stated_hz", [0.0, 600.0])
def test_a_measured_rate_outlives_the_connection(stated_hz: float) -> None:
    sent = sent_over(dataclasses.replace(NOTHING, duration_s=SHORT))
    clock = Clock(stated_hz)
    place(NOTHING, sent[:1000], clock)
    clock.restart(stated_hz)
    again = place(NOTHING, sent[1200:], clock)
    assert len(again.times_s) == 4 * len(sent[1200:])
    # Late by what its first packet waited: an event missed, and one that failed.
    assert np.abs(again.error_s(0.0)).max() < 0.09
    clock.restart(52.0)  # another rate was agreed on
    assert clock.report().rate_hz == pytest.approx(52.0)


def test_what_was_skipped_is_no_loss_but_takes_its_time() -> None:
    for link in ALL:
        sent = sent_over(dataclasses.replace(link, duration_s=SHORT, loss=0.0), 3)
        clock = Clock(link.nominal_hz)
        before = place(link, sent[:1000], clock)
        clock.skip(4 * 250)
        after = place(link, sent[1250:], clock)
        assert (after.times_s[0] - before.times_s[-1]) * 202 == pytest.approx(1001, abs=1)
        assert after.report.lost == 0


def test_the_hosts_wall_clock_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = sent_over(dataclasses.replace(STAMPS, duration_s=20.0))
    plain = place(STAMPS, sent).times_s
    steps = iter(range(1_000_000))
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600.0 * next(steps))
    assert np.array_equal(place(STAMPS, sent).times_s, plain)


def test_a_broken_stamp_has_no_time() -> None:
    clock = Clock(100.0)
    for stamps in ([np.nan] * 4, [1.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0], [1e300] * 4, [1.0]):
        packet = Packet("acc", np.zeros((4, 3)), np.array(stamps))
        assert len(clock.place(packet, 1.0)) == 0
    assert clock.report().unplaced == 20 and clock.report().rate_hz is None


def any_packet(n: int, first_s: float, step_s: float, stamped: bool, index: int | None) -> Packet:
    with np.errstate(all="ignore"):
        stamps = first_s + step_s * np.arange(n)
    return Packet("acc", np.zeros((n, 3)), stamps if stamped else None, index)


packets = st.builds(
    any_packet,
    st.integers(1, 5),
    st.floats(-10, 100) | st.floats(),
    st.floats(1e-4, 1.0) | st.floats(),
    st.booleans(),
    st.none() | st.integers(0, 300) | st.integers(-(2**70), 2**70),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([0.0, 10.0, 100.0, 1000.0]),
    st.lists(st.tuples(packets, st.floats(0, 20) | st.floats(-1, 1e6)), max_size=60),
    st.booleans(),
)
def test_whatever_arrives_times_ascend_and_are_finite(
    nominal_hz: float, arriving: list[tuple[Packet, float]], restarts: bool
) -> None:
    clock, now_s, last_s = Clock(nominal_hz), 0.0, -np.inf
    for i, (packet, wait_s) in enumerate(arriving):
        now_s += wait_s
        if restarts and i % 7 == 3:
            clock.restart(nominal_hz)
        times_s = clock.place(packet, now_s)
        assert len(times_s) in (0, len(packet.values))
        assert np.isfinite(times_s).all()
        assert (np.diff(times_s, prepend=last_s) > 0).all()
        last_s = times_s[-1] if len(times_s) else last_s
    report = clock.report()
    assert report.samples + report.unplaced == sum(len(p.values) for p, _ in arriving)
    assert report.lost >= 0 and report.lag_p95_s >= report.lag_p50_s >= 0


def test_the_table_is_printed() -> None:
    links = tuple(dataclasses.replace(link, duration_s=20.0) for link in (STAMPS, NOTHING))
    lines = table(links, seeds=1)
    assert len(lines) == 3 and lines[1].startswith(STAMPS.name) and "100.0%" in lines[1]
