"""One run of `edge-run`: from the source, through the pipeline and the diary, to all outputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.bundle import DEFAULT_BUNDLE, Bundle, load_bundle, normalised
from edge.cli import Args, say, version
from edge.diary import Diary, smoothed
from edge.labels import default_labels, parse_labels, resolve_labels
from edge.moment import Event, Moment, Output
from edge.outputs.display import make_display
from edge.personal.store import Personal, PersonalStore, personal_folder
from edge.pipeline import Pipeline, Prediction
from edge.posture import UNKNOWN, known_placements, segment_of
from edge.recording import Recording, UnitOptions, read_truth, truth_of
from edge.source import Pace
from edge.window import every_hop
from edge.zeroshot import LabelSet
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples

if TYPE_CHECKING:
    from edge.log.eventlog import EventLog
    from firmware_bridge.live import LiveSource


def run(args: Args) -> KeyboardInterrupt | None:
    """One stream, as the command line says; return what interrupted it, if anything did.

    Raises:
        AuraError: it could not be run, or broke off; what was logged and recorded is kept.
    """
    _check(args)
    return _Run(args, *_what_decides(args)).to_its_end()


def label_folder(args: Args) -> int:
    """`--replay DIR --out DIR`: all recordings of a folder; return the exit code.

    Raises:
        AuraError: see `edge.many.label.run`.
    """
    from edge.many.label import Job, default_workers
    from edge.many.label import run as label

    _check(args)
    assert args.replay is not None and args.out is not None
    bundle, labels = _what_decides(args)
    units = UnitOptions(args.acc_unit, args.gyro_unit, args.time_unit)
    folder = args.bundle and args.bundle.resolve()
    job = Job(bundle.id, labels, folder, args.hop, args.placement, units, args.smooth)
    return label(args.replay, args.out, job, args.workers or default_workers(), say)


def _what_decides(args: Args) -> tuple[Bundle, LabelSet]:
    bundle = load_bundle(args.bundle or DEFAULT_BUNDLE)
    if args.placement is not None:
        _say_where(args.placement, bundle)
    personal = None
    if not args.no_personal:
        personal = Personal(PersonalStore(personal_folder()), segment_of(args.placement), say)
    names = parse_labels(args.labels) if args.labels else default_labels(bundle, personal)
    return bundle, resolve_labels(names, bundle, personal)


def _check(args: Args) -> None:
    """What does not go together."""
    if args.truth and not args.replay:
        raise InputError("--truth goes with --replay: a live device has no true labels")
    if args.smooth and not args.replay:
        raise InputError("--smooth goes with --replay: it looks at what comes later")
    if args.smooth and (args.serve is not None or args.mqtt):
        raise InputError(
            "--smooth says nothing before the end: it goes with neither --serve nor --mqtt"
        )
    if args.keep_raw and args.no_log:
        raise InputError("--keep-raw keeps samples in the log: it does not go with --no-log")
    if args.workers and not args.out:
        raise InputError("--workers goes with --out")
    if args.out:
        if not args.replay or not args.replay.is_dir():
            raise InputError("--out goes with --replay DIR, a folder of recordings")
        alone = {
            "--truth": args.truth,
            "--record": args.record,
            "--serve": args.serve is not None,
            "--mqtt": args.mqtt,
            "--log": args.log,
            "--keep-raw": args.keep_raw,
            "--format": args.format,
            "--speed": args.speed,
            "--raw-windows": args.raw_windows,
        }
        given = ", ".join(name for name, value in alone.items() if value)
        if given:
            raise InputError(f"{given}: for one recording, not with --out")


class _Run:
    """One stream, and all that takes what is said of it."""

    def __init__(self, args: Args, bundle: Bundle, labels: LabelSet) -> None:
        self._args, self._bundle, self._labels = args, bundle, labels
        self._truth = read_truth(args.truth) if args.truth else []
        self._source = _open_source(args)
        self._chunks = self._source.chunks
        spans = every_hop(args.hop)
        self._pace = Pace() if self._source.waits else None
        if self._pace:
            spans, self._chunks = self._pace.spans(spans), self._pace.samples(self._chunks)
        self._pipeline = Pipeline(bundle, labels, spans, placement=args.placement)
        self._diary = None if args.raw_windows else Diary(labels.names, args.hop)
        self._tally = _Tally(bundle)
        self._outputs: list[Output] = []
        self._log: EventLog | None = None

    def to_its_end(self) -> KeyboardInterrupt | None:
        """Run; return what interrupted it."""
        interrupt: KeyboardInterrupt | None = None
        with ExitStack() as at_end:  # each is closed even if another cannot be
            if self._source.live:
                at_end.callback(self._source.live.close)
            self._record(at_end)
            self._open_outputs(at_end)
            at_end.callback(self._finish_diary)
            try:
                for moment in self._moments():
                    p = moment.prediction
                    truth = truth_of(self._truth, p.start_s, p.end_s)
                    self._tally.count(moment, truth)
                    for output in self._outputs:
                        output.show(moment, truth)
            except KeyboardInterrupt as caught:
                interrupt = caught
        self._report()
        return interrupt

    def _moments(self) -> Iterator[Moment]:
        if self._args.smooth:
            moments, last = smoothed(self._predictions(), self._labels.names, self._args.hop)
            yield from moments
            self._hand_over(last)
            return
        for prediction in self._predictions():
            if self._diary:
                yield self._diary.push(prediction)
            else:
                best = prediction.best
                yield Moment(prediction, prediction.label, best and best.probability)

    def _predictions(self) -> Iterator[Prediction]:
        for samples in self._chunks:
            yield from self._pipeline.push(samples)
        yield from self._pipeline.finish()

    def _finish_diary(self) -> None:
        """Whatever ended the run, the event that lasted till then is over."""
        if self._diary and not self._args.smooth:
            self._hand_over(self._diary.finish())

    def _hand_over(self, events: tuple[Event, ...]) -> None:
        for output in self._outputs:
            output.finish(events)

    def _record(self, at_end: ExitStack) -> None:
        """Record the samples on their way where that was asked for."""
        if self._args.record is None:
            return
        from edge.raw import Recorder

        recorder = Recorder(self._args.record, self._source.name, self._source.details, say)

        def close() -> None:
            recorder.close()
            if recorder.path.exists():
                say(f"recorded {recorder.samples} samples to {recorder.path}")

        at_end.callback(close)
        self._chunks = recorder.passing(self._chunks)

    def _open_outputs(self, at_end: ExitStack) -> None:
        args, names = self._args, self._labels.names
        if not args.no_log:
            self._log = self._open_log()
            self._take_output(self._log, at_end)
            if args.keep_raw:
                self._chunks = self._log.passing(self._chunks)
        if args.serve is not None:
            from edge.outputs.serve import LivePage

            report = self._source.live.report if self._source.live else None
            page = LivePage(args.serve, self._source.name, names, report, say)
            self._take_output(page, at_end)
            self._chunks = page.passing(self._chunks)
        if args.mqtt:
            from edge.outputs.mqtt import MqttOutput

            broker = MqttOutput(args.mqtt, self._source.name, names, args.hop, version(), say)
            self._take_output(broker, at_end)
        # Last, so that whatever else is said at the end comes after its last line.
        kind = args.format or ("table" if sys.stdout.isatty() else "lines")
        self._take_output(make_display(kind, self._source.name, bool(self._truth)), at_end)

    def _take_output(self, output: Output, at_end: ExitStack) -> None:
        at_end.callback(output.close)
        self._outputs.append(output)

    def _open_log(self) -> EventLog:
        from edge.log.eventlog import EventLog, default_log_path

        args = self._args
        return EventLog(
            args.log or default_log_path(),
            self._source.name,
            self._bundle.id,
            list(self._labels.names),
            args.hop,
            version(),
            say,
            reference=self._bundle.reference,
            device=self._source.device,
            placement=args.placement,
            live=self._source.waits,
            keep_raw_s=args.keep_raw,
        )

    def _report(self) -> None:
        """What the user should know after the last window."""
        recording, live = self._source.recording, self._source.live
        for note in recording.notes if recording else []:
            say(f"note: {note}")
        for line in live.report().lines() if live else []:
            say(line)
        dropped = self._pipeline.resampler.dropped
        if dropped.not_finite:
            say(f"note: {dropped.not_finite} samples left out: NaN or empty in some channel")
        if dropped.not_later:
            say(
                f"note: {dropped.not_later} samples left out: not later than the sample before "
                f"them (first at {dropped.first_not_later_s:.3f} s); sort the file by time to use "
                "them"
            )
        if not self._tally.windows and recording:
            raise InputError("less than 1 s of signal without a gap: no window could be classified")
        for line in self._tally.lines(bool(self._truth)):
            say(line)
        if self._pace and self._pace.skipped:
            say(
                f"note: {self._pace.skipped} windows were skipped: this machine is too slow for "
                f"one every {self._args.hop:g} s; a longer --hop helps"
            )
        if self._log:
            say(f"logged {self._log.written} windows to {self._log.path}")
            if self._log.dropped:
                say(f"note: {self._log.dropped} windows were not logged: the disk is too slow")


def _say_where(placement: str, bundle: Bundle) -> None:
    """What was understood of the placement."""
    segment = segment_of(placement)
    if segment == UNKNOWN:
        say(
            f"note: placement {placement!r} is not recognised, so it is taken as not known; "
            f"recognised are: {known_placements()}"
        )
    else:
        say(f"placement {placement!r}: worn on the {segment}")
    if bundle.decision is None:
        say(f"note: bundle {bundle.id} decides without the placement")


@dataclass(frozen=True)
class _Source:
    """Where samples come from."""

    name: str
    chunks: Iterator[Samples]
    """At the speed that was asked for."""
    recording: Recording | None = None
    live: LiveSource | None = None
    waits: bool = False
    """Whether samples come in their own time."""
    device: str | None = None
    """What the device calls itself."""

    def details(self) -> str:
        """What is known of it by now, for a raw recording."""
        if self.live:
            return self.live.report().details
        return self.recording.summary if self.recording else ""


def _open_source(args: Args) -> _Source:
    if args.replay:
        return _open_replay(args)
    from edge.source import Stated, open_device

    assert args.device is not None
    if args.time_unit:
        raise InputError("--time-unit goes with --replay: what a device sends is timed as it comes")
    stated = Stated(args.speed, args.baud, args.rate, args.acc_unit, args.gyro_unit)
    device = open_device(args.device, say, stated)
    say(f"streaming from {device.name}; the first label comes after 5 s; Ctrl-C ends")
    return _Source(
        device.name,
        device.samples,
        live=device.live,
        waits=device.waits,
        device=device.name.partition(":")[2] or device.name,
    )


def _open_replay(args: Args) -> _Source:
    from edge.recording import open_recording
    from edge.source import in_real_time

    assert args.replay is not None
    if args.rate or args.baud:
        raise InputError("--rate and --baud go with --device")
    recording = open_recording(
        args.replay, UnitOptions(args.acc_unit, args.gyro_unit, args.time_unit)
    )
    say(f"read {recording.summary}")
    speed = args.speed or ("max" if args.serve is None else "1")  # to be watched
    chunks = in_real_time(recording.chunks) if speed == "1" else recording.chunks
    return _Source(f"replay:{args.replay}", chunks, recording)


class _Tally:
    """Counts windows, and agreement with the truth."""

    def __init__(self, bundle: Bundle) -> None:
        self._bank = bundle.bank
        self.windows = 0
        self._classified = 0
        self._unknown = 0
        self._judged = 0
        self._right = 0

    def count(self, moment: Moment, truth: str | None) -> None:
        """Take a window, and its true label where that is known."""
        self.windows += 1
        prediction = moment.prediction
        if prediction.best is None:
            return
        self._classified += 1
        self._unknown += prediction.unknown
        if truth is not None:
            self._judged += 1
            said = moment.label
            self._right += said is not None and self._activity(said) == self._activity(truth)

    def lines(self, with_truth: bool) -> Iterator[str]:
        """What was counted, for people."""
        unknown = f", {self._unknown} of them unknown" if self._unknown else ""
        yield f"{self.windows} windows, {self._classified} classified{unknown}"
        if with_truth and self._judged:
            yield (
                f"agrees with the truth in {self._right} of {self._judged} windows "
                f"({self._right / self._judged:.0%})"
            )

    def _activity(self, label: str) -> int | str:
        """The bank's activity, so that "climbing stairs" agrees with "walking upstairs"."""
        return self._bank.get(normalised(label), normalised(label))
