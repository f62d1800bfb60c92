"""A live device as an iterator of samples: a link in a background thread, and its consumer.

    def run(inbox: Inbox) -> None:  # in the thread: connect, stream, reconnect, until stopped
        inbox.opened({"imu"}, 52.0, {"imu": decoder})
        while not inbox.stopped.is_set():
            inbox.deliver(decoder.feed(port.read()))

    with LiveSource(run, say=print) as source:
        for samples in source:
            ...

The link only notes when packets arrive; the consumer places them in time (`firmware_bridge.clock`)
and joins accelerometer and gyroscope (`firmware_bridge.merge`). Arrivals are taken on the monotonic
clock: setting the computer's clock changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from firmware_bridge.clock import Clock, ClockReport
from firmware_bridge.errors import AuraError
from firmware_bridge.link import Counts, Decoder, Kind, Packet
from firmware_bridge.merge import Merger
from firmware_bridge.samples import Samples

STALL_S = 5.0
"""A connection over which nothing comes for so long is told of."""

MAX_BACKLOG_S = 10.0
"""What may wait for a consumer that is too slow: two windows. Then the older half is dropped, in
one piece, so that there is one gap and no patchwork of small ones."""

MAX_BACKLOG_SAMPLES = 50_000
"""The same bound for a device that floods: 10 s of two streams at 1000 Hz are 20,000."""

CLOSE_S = 5.0
"""How long a link may take to stop."""

_POLL_S = 0.25
"""How often a waiting consumer looks up: Windows delivers Ctrl-C only between two waits."""


@dataclass(frozen=True)
class _Opened:
    """A connection was made: what comes after it belongs to a new segment."""

    kinds: frozenset[Kind]
    nominal_hz: float


@dataclass
class _Arrived:
    """Packets of one notification or read."""

    arrival_s: float
    packets: list[Packet]

    def __len__(self) -> int:
        return sum(len(packet.values) for packet in self.packets)


@dataclass
class _Skipped:
    """What stood here was dropped, as the consumer was too slow."""

    samples: Counter[Kind]
    opened: _Opened | None
    """A connection that was made in between."""


_Item = _Opened | _Arrived | _Skipped


class Inbox:
    """What the link hands to the consumer. Any thread may call any method; none waits."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.stopped = threading.Event()
        """Set when the link shall tell the device to stop, and return."""
        self.connections = 0
        self.details = ""
        self._now_s = now_s
        self._changed = threading.Condition()
        self._items: deque[_Item] = deque()
        self._n_waiting = 0
        self._early: deque[_Arrived] = deque(maxlen=1000)  # before the connection is opened
        self._is_open = False
        self._heard_s = 0.0
        self._has_ended = False
        self._decoders: dict[str, Decoder] = {}
        self._counts: dict[str, Counts] = {}  # of earlier connections
        self._on_stop: list[Callable[[], None]] = []

    def call_when_stopped(self, callback: Callable[[], None]) -> None:
        """Have a function called, once, when the link shall stop (at once if it shall already):
        for links that cannot wait for `stopped`, as an asyncio loop cannot."""
        with self._changed:
            if not self.stopped.is_set():
                self._on_stop.append(callback)
                return
        callback()

    def opened(
        self,
        kinds: Iterable[Kind],
        nominal_hz: float,
        decoders: Mapping[str, Decoder],
        details: str = "",
    ) -> None:
        """A connection streams. Packets delivered since the last one was lost belong to it.

        Args:
            kinds: of the packets that will come; the same for every connection.
            nominal_hz: what the device was asked for, or says of itself; 0 where nothing is known.
            decoders: by name of the stream; their counts go into the report.
            details: what was agreed on, for people.
        """
        with self._changed:
            for name, decoder in self._decoders.items():
                self._counts.setdefault(name, Counter()).update(dict(decoder.counts))
            self._decoders = dict(decoders)
            self.details = details
            self.connections += 1
            self._is_open = True
            self._heard_s = self._now_s()
            self._items.append(_Opened(frozenset(kinds), nominal_hz))
            for early in self._early:
                self._append(early)
            self._early.clear()
            self._changed.notify()

    def deliver(self, packets: list[Packet], arrival_s: float | None = None) -> None:
        """Packets have arrived, now unless said otherwise. This is a `link.Deliver`."""
        arrived = _Arrived(self._now_s() if arrival_s is None else arrival_s, list(packets))
        if not packets:
            return
        with self._changed:
            self._heard_s = arrived.arrival_s
            if self._is_open:
                self._append(arrived)
                self._changed.notify()
            else:
                self._early.append(arrived)

    def lost(self) -> None:
        """The connection is gone; until the next one is opened, silence is no stall."""
        with self._changed:
            self._is_open = False
            self._early.clear()

    def counts(self) -> dict[str, Counts]:
        """What the decoders of all connections could not use, by name of the stream."""
        with self._changed:
            total = {name: Counter(counts) for name, counts in self._counts.items()}
            for name, decoder in self._decoders.items():
                total.setdefault(name, Counter()).update(dict(decoder.counts))
        return total

    def silent_s(self) -> float:
        """How long nothing has come over an open connection."""
        with self._changed:
            if not self._is_open or self._items:
                return 0.0
            return self._now_s() - self._heard_s

    def stop(self) -> None:
        """Ask the link to stop."""
        with self._changed:
            self.stopped.set()
            callbacks, self._on_stop = self._on_stop, []
        for callback in callbacks:
            with suppress(RuntimeError):  # an event loop that has ended by itself meanwhile
                callback()

    def end(self) -> None:
        """Nothing will come any more."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def take(self, wait_s: float) -> _Item | None:
        """The next thing that came, if there is one within a while.

        Raises:
            EndOfLinkError: nothing waits and nothing will come.
        """
        with self._changed:
            if not self._items and not self._has_ended:
                self._changed.wait(wait_s)
            if self._items:
                item = self._items.popleft()
                self._n_waiting -= len(item) if isinstance(item, _Arrived) else 0
                return item
            if self._has_ended:
                raise EndOfLinkError
            return None

    def _append(self, arrived: _Arrived) -> None:
        self._items.append(arrived)
        self._n_waiting += len(arrived)
        oldest_s = next(i.arrival_s for i in self._items if isinstance(i, _Arrived))
        if arrived.arrival_s - oldest_s > MAX_BACKLOG_S:
            self._drop(lambda first: arrived.arrival_s - first.arrival_s > MAX_BACKLOG_S / 2)
        if self._n_waiting > MAX_BACKLOG_SAMPLES:
            self._drop(lambda _: self._n_waiting > MAX_BACKLOG_SAMPLES // 2)

    def _drop(self, too_much: Callable[[_Arrived], bool]) -> None:
        """Drop what waits longest; connections that were made are remembered."""
        skipped = _Skipped(Counter(), None)
        while self._items:
            item = self._items[0]
            if isinstance(item, _Arrived):
                if not too_much(item):
                    break
                self._n_waiting -= len(item)
                for packet in item.packets:
                    skipped.samples[packet.kind] += len(packet.values)
            elif isinstance(item, _Skipped):
                skipped.samples.update(item.samples)
                skipped.opened = item.opened or skipped.opened
            else:
                skipped.opened = item
            self._items.popleft()
        self._items.appendleft(skipped)


class EndOfLinkError(Exception):
    """A link has ended and everything it brought was taken."""


Run = Callable[[Inbox], None]
"""A link: runs in a thread until `Inbox.stopped` is set, reconnecting as it sees fit. What it
raises (`AuraError` where a person can mend it) comes out of the iteration; where it returns by
itself, the stream has ended."""


@dataclass(frozen=True)
class LinkReport:
    """How a link did."""

    streams: Mapping[Kind, ClockReport]
    counts: Mapping[str, Counts]
    """What decoders could not use, by name of the stream."""
    details: str
    reconnects: int
    stalls: int
    skipped: int
    """Samples dropped as this machine was too slow."""
    unpaired: int
    """Accelerometer samples left out for want of gyroscope samples beside them."""

    def lines(self) -> list[str]:
        """For people."""
        lines = [_stream_line(kind, clock) for kind, clock in sorted(self.streams.items())]
        for name, counts in sorted(self.counts.items()):
            if counts:
                causes = ", ".join(f"{cause} {n}" for cause, n in counts.most_common())
                lines.append(f"{name}: not understood: {causes}")
        for n, what in (
            (self.reconnects, f"connected anew {_times(self.reconnects)}"),
            (self.stalls, f"nothing came for {STALL_S:.0f} s {_times(self.stalls)}"),
            (
                self.unpaired,
                f"{_samples(self.unpaired)} left out: the gyroscope had none beside them",
            ),
            (self.skipped, f"{_samples(self.skipped)} skipped: this machine is too slow"),
        ):
            if n:
                lines.append(what)
        return lines


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _samples(n: int) -> str:
    return "1 sample" if n == 1 else f"{n} samples"


def _stream_line(kind: Kind, clock: ClockReport) -> str:
    if clock.rate_hz is None:
        return f"{kind}: no samples"
    parts = [f"{clock.rate_hz:.2f} Hz measured"]
    if clock.drift_ppm is not None:
        parts.append(f"clock {clock.drift_ppm:+.0f} ppm")
    parts.append(f"{clock.lost_fraction:.2%} lost ({_samples(clock.lost)})")
    parts.append(f"lag p50 {clock.lag_p50_s * 1e3:.0f} ms, p95 {clock.lag_p95_s * 1e3:.0f} ms")
    if clock.resets:
        parts.append(f"began anew {_times(clock.resets)}")
    if clock.unplaced:
        parts.append(f"{_samples(clock.unplaced)} without a time")
    return f"{kind}: {', '.join(parts)}"


class LiveSource(Iterator[Samples]):
    """The samples of a link, in seconds of the monotonic clock, as they come.

    The thread starts with the first `next`. Iterating waits for samples; it raises what the link
    raised once everything received before was yielded, and ends when the link does.

    Args:
        run: the link.
        say: tells the user something; called in the consumer's thread.
        now_s: the monotonic clock.
    """

    def __init__(
        self,
        run: Run,
        say: Callable[[str], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._say = say
        self.inbox = Inbox(now_s)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._merger: Merger | None = None
        self._clocks: dict[Kind, Clock] = {}
        self._ready: deque[Samples] = deque()
        self._is_stalled = False
        self._stalls = self._skipped = 0
        self._unannounced: Counts = Counter()

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __next__(self) -> Samples:
        if self._thread is None and not self.inbox.stopped.is_set():
            self._thread = threading.Thread(target=self._work, name="link", daemon=True)
            self._thread.start()
        while not self._ready:
            try:
                item = self.inbox.take(_POLL_S)
            except EndOfLinkError:
                self._finish()
                raise StopIteration from None
            self._watch(item)
            if item is not None:
                self._handle(item)
        return self._ready.popleft()

    def close(self) -> None:
        """Have the link stop, and wait for it a while. What it had brought can still be taken."""
        self.inbox.stop()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                self._say(f"the link did not stop within {CLOSE_S:.0f} s; left as it is")
        self.inbox.end()

    def report(self) -> LinkReport:
        """How the link did so far. To be asked in the consumer's thread."""
        return LinkReport(
            {kind: clock.report() for kind, clock in self._clocks.items()},
            {**self.inbox.counts(), **({"link": self._unannounced} if self._unannounced else {})},
            self.inbox.details,
            max(0, self.inbox.connections - 1),
            self._stalls,
            self._skipped,
            self._merger.unpaired if self._merger else 0,
        )

    def _work(self) -> None:
        try:
            self._run(self.inbox)
        except Exception as error:  # whatever it is, it is the consumer that has to hear of it
            self._error = error
        finally:
            self.inbox.end()

    def _finish(self) -> None:
        """Raise what ended the link, once; where it was to stop anyway, only tell of it."""
        if self._merger is not None:
            self._merger.flush()
        error, self._error = self._error, None
        if error is None:
            return
        if not self.inbox.stopped.is_set():
            raise error
        self._say(f"while the link was stopped: {error}")

    def _watch(self, item: _Item | None) -> None:
        if item is not None:
            if self._is_stalled:
                self._say("the device sends again")
            self._is_stalled = False
        elif not self._is_stalled and self.inbox.silent_s() >= STALL_S:
            self._is_stalled = True
            self._stalls += 1
            self._say(
                f"nothing came for {STALL_S:.0f} s although the device is connected; "
                "is it asleep, or has another program taken its stream?"
            )

    def _handle(self, item: _Item) -> None:
        if isinstance(item, _Opened):
            self._open(item)
        elif isinstance(item, _Skipped):
            self._skip(item)
        else:
            for packet in item.packets:
                self._place(packet, item.arrival_s)

    def _open(self, opened: _Opened) -> None:
        if self._merger is None:
            self._merger = Merger(opened.kinds)
            self._clocks = {kind: Clock(opened.nominal_hz) for kind in opened.kinds}
            return
        if opened.kinds != self._merger.kinds:
            raise AuraError(
                f"the device sent {' and '.join(sorted(self._merger.kinds))} and sends "
                f"{' and '.join(sorted(opened.kinds))} since it reconnected; start again to go on "
                "with that"
            )
        self._merger.flush()
        for clock in self._clocks.values():
            clock.restart(opened.nominal_hz)

    def _skip(self, skipped: _Skipped) -> None:
        if not self._skipped:
            self._say("this machine is too slow for the stream: some of it is skipped")
        self._skipped += skipped.samples.total()
        if skipped.opened is not None:
            self._open(skipped.opened)
        for kind, n in skipped.samples.items():
            if kind in self._clocks:
                self._clocks[kind].skip(n)

    def _place(self, packet: Packet, arrival_s: float) -> None:
        if self._merger is None or packet.kind not in self._clocks:
            self._unannounced[f"unannounced {packet.kind} packet"] += 1
            return
        times_s = self._clocks[packet.kind].place(packet, arrival_s)
        samples = self._merger.push(packet.kind, times_s, packet.values, packet.device_s)
        if samples is not None:
            self._ready.append(samples)
