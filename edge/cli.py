"""`edge-run`: name what a wearable is doing, from a recording or a device."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# Only what parsing needs is imported here: `--help` has to answer at once.
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.pipeline import Pipeline, Prediction
    from edge.recording import Recording, TruthSegment
    from firmware_bridge.live import LiveSource
    from firmware_bridge.samples import Samples


class Args(argparse.Namespace):
    """The parsed command line."""

    replay: Path | None
    device: str | None
    list_devices: bool
    rate: float | None
    baud: int | None
    truth: Path | None
    record: Path | None
    speed: str | None
    acc_unit: str | None
    gyro_unit: str | None
    time_unit: str | None
    bundle: Path | None
    labels: str | None
    hop: float
    placement: str | None
    format: str | None
    log: Path | None
    no_log: bool


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-run",
        description="Name what a wearable is doing, in your own labels, without training for them.",
        epilog="example: edge-run --replay walk.csv --labels 'walking, climbing stairs, sitting'",
    )
    source = parser.add_argument_group("source")
    which = source.add_mutually_exclusive_group(required=True)
    which.add_argument("--replay", type=Path, metavar="FILE", help="a recorded file")
    which.add_argument(
        "--device",
        metavar="URI",
        help="a live device: ble (the only wearable that is heard, else you are asked), ble:NAME, "
        "ble:ADDRESS, serial (the only one plugged in), serial:PORT, phyphox:HOST[:PORT], "
        "sensorlogger:[ADDRESS:]PORT, sim (a simulated wearable)",
    )
    which.add_argument(
        "--list-devices", action="store_true", help="list what --device could be, and end"
    )
    source.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="true labels (CSV: start_s,end_s,label) to show beside",
    )
    source.add_argument(
        "--speed",
        choices=("1", "max"),
        help="real time or as fast as it goes (default: max for --replay, 1 for --device)",
    )
    source.add_argument(
        "--rate",
        type=_rate,
        metavar="HZ",
        help="nominal rate of a serial device (default: measured)",
    )
    source.add_argument(
        "--baud", type=_baud, metavar="N", help="of a serial device (default: found out)"
    )
    units = parser.add_argument_group(
        "units of a file or serial device, where it does not say or says it wrongly"
    )
    units.add_argument("--acc-unit", choices=("m/s^2", "g", "mg"))
    units.add_argument("--gyro-unit", choices=("rad/s", "deg/s", "mdeg/s"))
    units.add_argument("--time-unit", choices=("s", "ms", "us", "ns"))
    model = parser.add_argument_group("model")
    model.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="what edge-export wrote (default: the bundle that came along)",
    )
    model.add_argument(
        "--labels",
        metavar="LIST|FILE",
        help="comma-separated labels, or a file with one a line (default: the bundle's)",
    )
    model.add_argument(
        "--hop",
        type=_positive,
        default=1.0,
        metavar="S",
        help="seconds between windows (default: 1)",
    )
    model.add_argument(
        "--placement",
        metavar="WHERE",
        help='where the device is worn, in your words: "left wrist", "trouser pocket" '
        "(default: not known)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=("table", "lines", "jsonl"),
        help="default: table on a terminal, else lines",
    )
    output.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write the raw samples to a new Parquet file, which --replay reads",
    )
    log = output.add_mutually_exclusive_group()
    log.add_argument(
        "--log",
        type=Path,
        metavar="PATH",
        help="the event log, SQLite (default: log.db in the user's data folder)",
    )
    log.add_argument("--no-log", action="store_true", help="write no log")
    return parser


def version() -> str:
    """The installed version of aura-edge."""
    from importlib.metadata import version as installed

    return installed("aura-edge")


def _positive(text: str) -> float:
    value = float(text)
    if not 0.005 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.005 and 3600 seconds")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 20_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 20000 Hz")
    return value


def _baud(text: str) -> int:
    value = int(text)
    if not 300 <= value <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 300 and 10000000 baud")
    return value


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run as Ctrl-C does, with another exit code."""


EXIT_INTERRUPTED, EXIT_TERMINATED = 128 + 2, 128 + 15
"""128 and the signal's number, as shells say it."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Within it SIGTERM raises `Terminated`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are for the main thread alone
        return

    def interrupt(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-run`. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted
    (Ctrl-C), 143 terminated (SIGTERM)."""
    args = _parser().parse_args(argv, namespace=Args())
    try:
        with _sigterm_interrupts():
            return _list_devices() if args.list_devices else _run(args)
    except KeyboardInterrupt as interrupt:
        return _exit_code(interrupt)
    except AuraError as error:
        say(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); keep the interpreter from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _exit_code(interrupt: KeyboardInterrupt | None) -> int:
    if interrupt is None:
        return 0
    return EXIT_TERMINATED if isinstance(interrupt, Terminated) else EXIT_INTERRUPTED


def say(message: str) -> None:
    """Tell the user something that is no prediction. One write: several threads use it."""
    print(f"{message}\n", end="", file=sys.stderr, flush=True)


def _list_devices() -> int:
    from edge.source import list_devices

    lines = list_devices(say)
    print("\n".join(lines) if lines else "no device", flush=True)
    return 0


def _run(args: Args) -> int:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle
    from edge.display import make_display
    from edge.eventlog import EventLog, default_log_path
    from edge.labels import parse_labels, resolve_labels
    from edge.pipeline import Pipeline
    from edge.recording import read_truth, truth_of
    from edge.source import Pace
    from edge.window import every_hop

    if args.truth and not args.replay:
        raise InputError("--truth goes with --replay: a live device has no true labels")
    bundle = load_bundle(args.bundle or DEFAULT_BUNDLE)
    names = parse_labels(args.labels) if args.labels else list(bundle.manifest["default_labels"])
    labels = resolve_labels(names, bundle)
    truth = read_truth(args.truth) if args.truth else []
    source = _open_source(args)
    if args.placement is not None:
        _say_where(args.placement, bundle)
    spans, chunks = every_hop(args.hop), source.chunks
    pace = Pace() if source.waits else None
    if pace:
        spans, chunks = pace.spans(spans), pace.samples(chunks)
    pipeline = Pipeline(bundle, labels, spans, placement=args.placement)
    run = _Tally(bundle)
    log: EventLog | None = None
    interrupt: KeyboardInterrupt | None = None
    with ExitStack() as at_end:  # each is closed even if another cannot be
        chunks = _recorded(args, source, chunks, at_end)
        if not args.no_log:
            log_path = args.log or default_log_path()
            log = EventLog(log_path, source.name, bundle.id, names, args.hop, version(), say)
            at_end.callback(log.close)
        if source.live:
            at_end.callback(source.live.close)
        display = make_display(
            args.format or ("table" if sys.stdout.isatty() else "lines"), source.name, bool(truth)
        )
        at_end.callback(display.close)
        try:
            for predictions in _predictions(pipeline, chunks):
                for prediction in predictions:
                    if log:
                        log.append(prediction)
                    true_label = truth_of(truth, prediction.start_s, prediction.end_s)
                    run.count(prediction, true_label)
                    display.show(prediction, true_label)
        except KeyboardInterrupt as caught:
            interrupt = caught
    _report(run, pipeline, source, truth)
    if pace and pace.skipped:
        say(
            f"note: {pace.skipped} windows were skipped: this machine is too slow for one every "
            f"{args.hop:g} s; a longer --hop helps"
        )
    if log:
        say(f"logged {log.written} windows to {log.path}")
    return _exit_code(interrupt)


def _recorded(
    args: Args, source: _Source, chunks: Iterator[Samples], at_end: ExitStack
) -> Iterator[Samples]:
    """The same samples, recorded on their way where that was asked for."""
    from edge.raw import Recorder

    if args.record is None:
        return chunks
    recorder = Recorder(args.record, source.name, source.details, say)

    def close() -> None:
        recorder.close()
        if recorder.path.exists():
            say(f"recorded {recorder.samples} samples to {recorder.path}")

    at_end.callback(close)
    return recorder.passing(chunks)


def _say_where(placement: str, bundle: Bundle) -> None:
    """What was understood of the placement."""
    from edge.posture import UNKNOWN, known_placements, segment_of

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

    def details(self) -> str:
        """What is known of it by now, for a raw recording."""
        if self.live:
            return self.live.report().details
        return self.recording.summary if self.recording else ""


def _open_source(args: Args) -> _Source:
    if args.replay:
        return _open_replay(args, args.replay)
    from edge.source import Stated, open_device

    assert args.device is not None
    if args.time_unit:
        raise InputError("--time-unit goes with --replay: what a device sends is timed as it comes")
    stated = Stated(args.speed, args.baud, args.rate, args.acc_unit, args.gyro_unit)
    device = open_device(args.device, say, stated)
    say(f"streaming from {device.name}; the first label comes after 5 s; Ctrl-C ends")
    return _Source(device.name, device.samples, live=device.live, waits=device.waits)


def _open_replay(args: Args, path: Path) -> _Source:
    from edge.recording import UnitOptions, open_recording
    from edge.source import in_real_time

    if args.rate or args.baud:
        raise InputError("--rate and --baud go with --device serial")
    recording = open_recording(path, UnitOptions(args.acc_unit, args.gyro_unit, args.time_unit))
    say(f"read {recording.summary}")
    chunks = in_real_time(recording.chunks) if args.speed == "1" else recording.chunks
    return _Source(f"replay:{path}", chunks, recording)


def _predictions(pipeline: Pipeline, chunks: Iterator[Samples]) -> Iterator[list[Prediction]]:
    for samples in chunks:
        yield pipeline.push(samples)
    yield pipeline.finish()


class _Tally:
    """Counts windows, and agreement with the truth."""

    def __init__(self, bundle: Bundle) -> None:
        self._bank = bundle.bank
        self.windows = 0
        self.classified = 0
        self.unknown = 0
        self.judged = 0
        self.right = 0

    def count(self, prediction: Prediction, truth: str | None) -> None:
        self.windows += 1
        if prediction.best is None:
            return
        self.classified += 1
        self.unknown += prediction.unknown
        if truth is not None:
            self.judged += 1
            agrees = self._activity(prediction.best.label) == self._activity(truth)
            self.right += agrees and not prediction.unknown

    def _activity(self, label: str) -> int | str:
        """The bank's activity, so that "climbing stairs" agrees with "walking upstairs"."""
        from edge.bundle import normalised

        return self._bank.get(normalised(label), normalised(label))


def _report(run: _Tally, pipeline: Pipeline, source: _Source, truth: list[TruthSegment]) -> None:
    """What the user should know after the last window."""
    for note in source.recording.notes if source.recording else []:
        say(f"note: {note}")
    for line in source.live.report().lines() if source.live else []:
        say(line)
    dropped = pipeline.resampler.dropped
    if dropped.not_finite:
        say(f"note: {dropped.not_finite} samples left out: NaN or empty in some channel")
    if dropped.not_later:
        say(
            f"note: {dropped.not_later} samples left out: not later than the sample before them "
            f"(first at {dropped.first_not_later_s:.3f} s); sort the file by time to use them"
        )
    if not run.windows and source.recording:
        raise InputError("less than 1 s of signal without a gap: no window could be classified")
    unknown = f", {run.unknown} of them unknown" if run.unknown else ""
    say(f"{run.windows} windows, {run.classified} classified{unknown}")
    if truth and run.judged:
        say(
            f"agrees with the truth in {run.right} of {run.judged} windows "
            f"({run.right / run.judged:.0%})"
        )


if __name__ == "__main__":
    sys.exit(main())
