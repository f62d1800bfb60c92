"""A link in a thread, and its consumer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest

from firmware_bridge import live
from firmware_bridge.clock import ClockReport
from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.link import Counts, Packet
from firmware_bridge.live import Inbox, LinkReport, LiveSource
from firmware_bridge.samples import Samples
from tests.firmware_bridge.simulated_links import STAMPS, sent_over

LIMIT_S = 30.0
"""Nothing here takes long; a test that hangs fails after this."""


class Deaf:
    """A decoder that understands nothing."""

    def __init__(self) -> None:
        self.counts: Counts = Counter()

    def feed(self, data: bytes) -> list[Packet]:
        self.counts["checksum"] += 1
        return []


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before]
    for thread in left:
        thread.join(LIMIT_S)
    assert not [t for t in left if t.is_alive()]


def packet(number: int, n: int = 10, rate_hz: float = 100.0, kind: str = "imu") -> Packet:
    """The values of a packet's samples are their numbers."""
    numbers = number * n + np.arange(n)
    values = np.repeat(numbers[:, None].astype(float), 6 if kind == "imu" else 3, axis=1)
    return Packet(kind, values, 500.0 + numbers / rate_hz)  # type: ignore[arg-type]


def numbers_of(samples: list[Samples]) -> list[int]:
    return [int(v) for s in samples for v in s.acc_mps2[:, 0]]


def source_of(
    run: Callable[[Inbox], None], **kw: Callable[[], float]
) -> tuple[LiveSource, list[str]]:
    said: list[str] = []
    return LiveSource(run, said.append, **kw), said


def test_samples_come_on_the_monotonic_clock_and_the_end_is_the_end() -> None:
    sent = sent_over(STAMPS)[:400]  # 8 s: a consumer that is held up skips nothing

    def run(inbox: Inbox) -> None:
        inbox.opened({"acc"}, 200.0, {})
        for one in sent:
            inbox.deliver([one.packet], one.arrival_s)

    source, said = source_of(run)
    with source:
        samples = list(source)
    t = np.concatenate([s.t_s for s in samples])
    assert all(s.gyro_rads is None for s in samples) and not said
    assert np.abs(t - np.concatenate([s.true_s for s in sent])).max() < 0.05
    assert list(source) == []
    report = source.report()
    assert report.streams["acc"].samples == len(t) and report.reconnects == 0
    assert report.lines()[0].startswith("acc: 202.0") and "lost" in report.lines()[0]


def test_arrival_is_when_it_was_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the monotonic clock, whatever becomes of the wall clock."""
    monkeypatch.setattr(time, "time", lambda: -1e9)

    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        inbox.deliver([packet(0)])

    before_s = time.monotonic()
    source, _ = source_of(run)
    (samples,) = list(source)
    assert before_s <= samples.t_s[-1] <= time.monotonic()
    source.close()


@pytest.mark.parametrize(
    "error", [AuraError("gone"), InputError("no such device"), KeyError("bug")]
)
def test_an_error_comes_after_everything_that_was_received(error: Exception) -> None:
    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        for i in range(5):
            inbox.deliver([packet(i)], 7.0 + i / 10)
        raise error

    source, said = source_of(run)
    got: list[Samples] = []
    with pytest.raises(type(error)) as raised, source:
        got.extend(iter_into(source, got))
    assert raised.value is error and numbers_of(got) == list(range(50))
    assert list(source) == [] and not said


def iter_into(source: LiveSource, got: list[Samples]) -> list[Samples]:
    for samples in source:
        got.append(samples)
    return []


def test_close_ends_a_consumer_that_waits() -> None:
    waiting, ended = threading.Event(), threading.Event()

    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        inbox.deliver([packet(0)], 7.0)
        inbox.stopped.wait(LIMIT_S)
        inbox.deliver([packet(1)], 7.1)  # the last notification before the device obeys

    source, said = source_of(run)
    got: list[Samples] = []

    def consume() -> None:
        for samples in source:
            got.append(samples)
            waiting.set()
        ended.set()

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert waiting.wait(LIMIT_S)
    source.close()
    assert ended.wait(LIMIT_S)
    consumer.join()
    source.close()
    assert numbers_of(got) == list(range(20)) and not said


def test_what_came_before_close_can_still_be_taken() -> None:
    delivered = threading.Event()

    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        for i in range(3):
            inbox.deliver([packet(i)], 7.0 + i / 10)
        delivered.set()
        inbox.stopped.wait(LIMIT_S)
        raise AuraError("the device did not answer")

    source, said = source_of(run)
    first = next(source)
    assert delivered.wait(LIMIT_S)
    source.close()
    assert numbers_of([first, *source]) == list(range(30))
    assert said == ["while the link was stopped: the device did not answer"]


def test_close_before_the_first_sample_starts_nothing() -> None:
    source, _ = source_of(lambda inbox: pytest.fail("started"))
    source.close()
    assert list(source) == []


def test_a_link_that_does_not_stop_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CLOSE_S", 0.01)
    release = threading.Event()

    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        inbox.deliver([packet(0)], 7.0)
        release.wait(LIMIT_S)

    source, said = source_of(run)
    next(source)
    source.close()
    assert list(source) == [] and "did not stop" in said[0]
    release.set()


def test_callbacks_tell_of_the_stop_once() -> None:
    called: list[str] = []

    def gone() -> None:
        called.append("loop")
        raise RuntimeError("Event loop is closed")

    inbox = Inbox()
    inbox.call_when_stopped(gone)
    inbox.stop()
    inbox.stop()
    inbox.call_when_stopped(lambda: called.append("late"))
    assert called == ["loop", "late"]


def test_a_consumer_that_is_too_slow_skips_in_one_piece() -> None:
    ready = threading.Event()

    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        for i in range(1000):  # 100 s of signal while the consumer takes nothing
            inbox.deliver([packet(i)], 7.0 + i / 10)
        ready.set()

    source, said = source_of(run)
    first = next(source)
    assert ready.wait(LIMIT_S)  # what the consumer does in the meantime
    numbers = numbers_of(list(source))
    assert numbers == list(range(numbers[0], 10_000))
    kept_s = len(numbers) / 100
    assert live.MAX_BACKLOG_S / 2 - 0.2 <= kept_s <= live.MAX_BACKLOG_S + 0.2
    report = source.report()
    assert report.skipped == 10_000 - len(first) - len(numbers) and report.streams["imu"].lost == 0
    assert len(said) == 1 and "too slow" in said[0]
    assert any("too slow" in line for line in report.lines())
    source.close()


def test_a_flood_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_BACKLOG_SAMPLES", 200)
    inbox = Inbox()
    inbox.opened({"imu"}, 100.0, {})
    for i in range(1000):
        inbox.deliver([packet(i)], 7.0)
        assert inbox._n_waiting <= 200 and len(inbox._items) <= 22


def test_a_skip_across_a_reconnect_keeps_the_reconnect() -> None:
    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        for i in range(300):
            if i in (20, 280):
                inbox.lost()
                inbox.opened({"imu"}, 100.0, {})
            inbox.deliver([packet(i)], 7.0 + i / 10)

    source, _ = source_of(run)
    source._thread = threading.Thread(target=source._work)
    source._thread.start()
    source._thread.join(LIMIT_S)
    numbers = numbers_of(list(source))
    assert numbers == list(range(numbers[0], 3000)) and numbers[0] >= 2000
    assert source.report().reconnects == 2 and source.report().streams["imu"].resets == 0
    source.close()


def test_a_reconnect_is_a_gap_and_the_session_goes_on() -> None:
    def run(inbox: Inbox) -> None:
        for began_s in (7.0, 15.0):
            decoder = Deaf()
            # Notifications come while the conversation that starts the stream still runs.
            inbox.deliver([packet(0)], began_s + 0.1)
            decoder.feed(b"?")
            inbox.opened({"imu"}, 100.0, {"imu": decoder}, "100 Hz")
            inbox.deliver([], began_s + 0.15)
            inbox.deliver([packet(1), packet(2)], began_s + 0.3)
            inbox.lost()

    source, said = source_of(run)
    samples = list(source)
    t = np.concatenate([s.t_s for s in samples])
    assert len(t) == 60 and (np.diff(t) > 0).all() and not said
    assert t[30] - t[29] == pytest.approx(7.71, abs=0.02)
    report = source.report()
    assert report.reconnects == 1 and report.counts == {"imu": {"checksum": 2}}
    assert report.details == "100 Hz" and report.streams["imu"].resets == 0
    assert "imu: not understood: checksum 2" in report.lines()
    assert "connected anew once" in report.lines()
    source.close()


def test_other_sensors_after_a_reconnect_are_an_error() -> None:
    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        inbox.lost()
        inbox.opened({"acc"}, 100.0, {})

    source, _ = source_of(run)
    with source, pytest.raises(AuraError, match="sent imu and sends acc since it reconnected"):
        next(source)


def test_accelerometer_and_gyroscope_are_joined() -> None:
    def run(inbox: Inbox) -> None:
        inbox.opened({"acc", "gyro"}, 100.0, {})
        for i in range(20):
            inbox.deliver([packet(i, kind="acc")], 7.0 + i / 10)
            inbox.deliver([packet(i, kind="gyro")], 7.0 + i / 10)
            inbox.deliver([packet(i)], 7.0 + i / 10)  # never announced

    source, _ = source_of(run)
    samples = Samples.joined(list(source))
    assert samples.gyro_rads is not None and len(samples) >= 190
    assert samples.gyro_rads == pytest.approx(samples.acc_mps2, abs=0.02)
    report = source.report()
    assert report.counts == {"link": {"unannounced imu packet": 20}}
    assert report.unpaired == 200 - len(samples)
    source.close()


def test_a_stalled_stream_is_noticed_once_and_a_lost_one_is_none() -> None:
    now_s, told, stalled_again = [7.0], threading.Event(), threading.Event()

    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        inbox.deliver([packet(0)])
        now_s[0] += live.STALL_S + 1
        told.wait(LIMIT_S)
        now_s[0] += live.STALL_S + 1  # the same stall
        inbox.deliver([packet(60)])
        inbox.lost()
        now_s[0] += 100.0
        stalled_again.wait(2 * live._POLL_S)

    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        told.set()

    with LiveSource(run, say, lambda: now_s[0]) as source:
        assert len(list(source)) == 2
    assert ["nothing came for 5 s" in said[0], said[1]] == [True, "the device sends again"]
    assert len(said) == 2 and source.report().stalls == 1


def test_an_interrupted_consumer_leaves_nothing_behind() -> None:
    def run(inbox: Inbox) -> None:
        inbox.opened({"imu"}, 100.0, {})
        number = 0
        while not inbox.stopped.wait(0.001):
            inbox.deliver([packet(number)])
            number += 1

    source, _ = source_of(run)
    with suppress(KeyboardInterrupt), source:
        for _ in source:
            raise KeyboardInterrupt
    assert source.inbox.stopped.is_set() and source.report().streams["imu"].samples > 0


def test_a_report_reads_as_one_says_it() -> None:
    clock = ClockReport(52.0, None, 99, 1, 0.0, 0.0, 1, 1)
    once = LinkReport({"acc": clock}, {}, "", 1, 1, 1, 1)
    assert once.lines() == [
        "acc: 52.00 Hz measured, 1.00% lost (1 sample), lag p50 0 ms, p95 0 ms, "
        "began anew once, 1 sample without a time",
        "connected anew once",
        "nothing came for 5 s once",
        "1 sample left out: the gyroscope had none beside them",
        "1 sample skipped: this machine is too slow",
    ]
    often = LinkReport({}, {}, "", 2, 3, 40, 50)
    assert often.lines() == [
        "connected anew 2 times",
        "nothing came for 5 s 3 times",
        "50 samples left out: the gyroscope had none beside them",
        "40 samples skipped: this machine is too slow",
    ]


def test_a_report_before_anything_came() -> None:
    source, _ = source_of(lambda inbox: inbox.opened({"imu"}, 0.0, {}))
    assert source.report().lines() == []
    assert list(source) == []
    assert source.report().lines() == ["imu: no samples"]
    source.close()
