"""`edge-run`: name what a wearable is doing, from a recording or a device."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.threads import one_thread
from firmware_bridge.errors import AuraError


class Args(argparse.Namespace):
    """The parsed command line."""

    replay: Path | None
    out: Path | None
    workers: int | None
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
    no_personal: bool
    raw_windows: bool
    smooth: bool
    format: str | None
    serve: str | None
    mqtt: str | None
    log: Path | None
    no_log: bool
    keep_raw: float


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-run",
        description="Name what a wearable is doing, in your own labels, without training for them.",
        epilog="example: edge-run --replay walk.csv --labels 'walking, climbing stairs, sitting'",
    )
    source = parser.add_argument_group("source")
    which = source.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--replay",
        type=Path,
        metavar="FILE",
        help="a recorded file; with --out a folder of recordings",
    )
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
        help="real time or as fast as it goes (default: max for --replay, 1 for --device and "
        "with --serve)",
    )
    source.add_argument(
        "--rate",
        type=_rate,
        metavar="HZ",
        help="nominal rate of a serial device (default: measured); of a Polar sensor over BLE, the "
        "rate it is asked for",
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
    model.add_argument(
        "--no-personal", action="store_true", help="without the labels of edge-enroll"
    )
    diary = model.add_mutually_exclusive_group()
    diary.add_argument(
        "--raw-windows",
        action="store_true",
        help="say each window's own label; by default labels are steadied over time",
    )
    diary.add_argument(
        "--smooth",
        action="store_true",
        help="let later windows decide too; for --replay, which then says nothing before its end",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=("table", "lines", "jsonl"),
        help="default: table on a terminal, else lines",
    )
    output.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="label all recordings in the folder --replay, and write windows.parquet and "
        "events.parquet here; goes on where it was stopped",
    )
    output.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="recordings labelled at a time with --out (default: all processors)",
    )
    output.add_argument(
        "--serve",
        nargs="?",
        const="",
        metavar="[ADDRESS:]PORT",
        help="show the run in a browser (default: on this machine alone)",
    )
    output.add_argument(
        "--mqtt",
        metavar="URL",
        help="send labels and events to a broker, with Home Assistant's discovery: "
        "mqtt[s]://[USER@]HOST[:PORT][/PREFIX]; a password is read from AURA_MQTT_PASSWORD",
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
    output.add_argument(
        "--keep-raw",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="keep the last S seconds of raw samples in the log, for edge-log export --raw",
    )
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


def _workers(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 256")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 31_622_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and a year of seconds")
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
    one_thread()
    try:
        with _sigterm_interrupts():
            if args.list_devices:
                return _list_devices()
            from edge.run import label_folder, run

            return label_folder(args) if args.out else _exit_code(run(args))
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


if __name__ == "__main__":
    sys.exit(main())
