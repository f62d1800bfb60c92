"""`edge-run`: name what a wearable is doing, from a recording or a device."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Only what parsing needs is imported here: `--help` has to answer at once.
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.pipeline import Pipeline, Prediction
    from edge.recording import Recording, TruthSegment
    from firmware_bridge.samples import Samples


class Args(argparse.Namespace):
    """The parsed command line."""

    replay: Path | None
    device: str | None
    truth: Path | None
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
    which.add_argument("--replay", type=Path, metavar="FILE", help="a recorded file (CSV)")
    which.add_argument("--device", metavar="URI", help="a live device: sim (a simulated wearable)")
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
    units = parser.add_argument_group("units of the file, where it does not say or says it wrongly")
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


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-run`. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    args = _parser().parse_args(argv, namespace=Args())
    try:
        return _run(args)
    except AuraError as error:
        say(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); keep the interpreter from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def say(message: str) -> None:
    """Tell the user something that is no prediction."""
    print(message, file=sys.stderr, flush=True)


def _run(args: Args) -> int:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle
    from edge.display import make_display
    from edge.eventlog import EventLog, default_log_path
    from edge.labels import parse_labels, resolve_labels
    from edge.pipeline import Pipeline
    from edge.recording import read_truth, truth_of
    from edge.window import every_hop

    if args.truth and not args.replay:
        raise InputError("--truth goes with --replay: a live device has no true labels")
    bundle = load_bundle(args.bundle or DEFAULT_BUNDLE)
    names = parse_labels(args.labels) if args.labels else list(bundle.manifest["default_labels"])
    labels = resolve_labels(names, bundle)
    truth = read_truth(args.truth) if args.truth else []
    source_name, chunks, recording = _open_source(args)
    if args.placement is not None:
        _say_where(args.placement, bundle)
    pipeline = Pipeline(bundle, labels, every_hop(args.hop), placement=args.placement)
    log = None
    if not args.no_log:
        log_path = args.log or default_log_path()
        log = EventLog(log_path, source_name, bundle.id, names, args.hop, version(), say)
    display = make_display(
        args.format or ("table" if sys.stdout.isatty() else "lines"), source_name, bool(truth)
    )
    run = _Tally(bundle)
    interrupted = False
    try:
        for predictions in _predictions(pipeline, chunks):
            for prediction in predictions:
                if log:
                    log.append(prediction)
                true_label = truth_of(truth, prediction.start_s, prediction.end_s)
                run.count(prediction, true_label)
                display.show(prediction, true_label)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        display.close()
        if log:
            log.close()
    _report(run, pipeline, recording, truth)
    if log:
        say(f"logged {log.written} windows to {log.path}")
    return 130 if interrupted else 0


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


def _open_source(args: Args) -> tuple[str, Iterator[Samples], Recording | None]:
    """The source's name, its samples at the asked speed, and the recording if it is one."""
    from edge.recording import UnitOptions, open_recording
    from edge.source import in_real_time, open_device

    if args.replay:
        units = UnitOptions(args.acc_unit, args.gyro_unit, args.time_unit)
        recording = open_recording(args.replay, units)
        say(f"read {recording.summary}")
        name, chunks, speed = f"replay:{args.replay}", recording.chunks, args.speed or "max"
    else:
        assert args.device is not None
        if args.acc_unit or args.gyro_unit or args.time_unit:
            raise InputError("the unit options go with --replay: a device states its units")
        recording = None
        say(f"streaming from {args.device}; the first label comes after 5 s; Ctrl-C ends")
        name, chunks, speed = args.device, open_device(args.device), args.speed or "1"
    return name, in_real_time(chunks) if speed == "1" else chunks, recording


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


def _report(
    run: _Tally, pipeline: Pipeline, recording: Recording | None, truth: list[TruthSegment]
) -> None:
    """What the user should know after the last window."""
    for note in recording.notes if recording else []:
        say(f"note: {note}")
    dropped = pipeline.resampler.dropped
    if dropped.not_finite:
        say(f"note: {dropped.not_finite} samples left out: NaN or empty in some channel")
    if dropped.not_later:
        say(
            f"note: {dropped.not_later} samples left out: not later than the sample before them "
            f"(first at {dropped.first_not_later_s:.3f} s); sort the file by time to use them"
        )
    if not run.windows:
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
