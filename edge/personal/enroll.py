"""`edge-enroll`: show the device a label of your own, or refine one it knows."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.cli import EXIT_INTERRUPTED, say
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from edge.personal.examples import Take
    from edge.personal.store import PersonalStore, Shown
    from firmware_bridge.samples import Samples

_LEAST_S, _MOST_S = 5.0, 300.0
"""One window; five minutes, which a label does not gain from any more."""

_READY_S = 3.0
"""Before the examples of a live device begin."""

_TOLD_EVERY_S = 5.0


class Args(argparse.Namespace):
    """The parsed command line."""

    command: str
    label: str
    device: str | None
    recording: Path | None
    seconds: float | None
    start: float | None
    end: float | None
    placement: str | None
    acc_unit: str | None
    gyro_unit: str | None
    time_unit: str | None
    bundle: Path | None
    old: str
    new: str
    file: Path


_COMMANDS = ("add", "list", "rename", "delete", "export", "renew")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-enroll",
        usage="edge-enroll LABEL (--device URI | --from FILE --start S --end S) [...]\n"
        "       edge-enroll {list,rename,delete,export,renew} ...",
        description="Show 5 to 30 s of an activity: edge-run then knows it by your examples, and "
        "by its text where it has one. Nothing leaves the machine.",
        epilog='examples: edge-enroll "my stretching routine" --device ble --placement wrist; '
        "edge-enroll sitting --from day.csv --start 60 --end 75; edge-enroll list. A label that is "
        "named like a command: edge-enroll add list ...",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="edge-enroll"
    )
    add = commands.add_parser("add", help="show a label; `add` may be left out")
    add.add_argument("label", metavar="LABEL", help="in your words")
    source = add.add_mutually_exclusive_group(required=True)
    source.add_argument("--device", metavar="URI", help="a live device, as in edge-run")
    source.add_argument(
        "--from", dest="recording", type=Path, metavar="FILE", help="a recorded file"
    )
    add.add_argument(
        "--seconds", type=float, metavar="N", help="how long a live device is shown (default: 15)"
    )
    add.add_argument(
        "--start",
        type=float,
        metavar="S",
        help="where the examples begin in FILE, in seconds from its beginning",
    )
    add.add_argument("--end", type=float, metavar="S", help="where they end")
    add.add_argument(
        "--placement",
        metavar="WHERE",
        help='where the device is worn, in your words: "left wrist", "trouser pocket" '
        "(default: not known)",
    )
    add.add_argument("--acc-unit", choices=("m/s^2", "g", "mg"), help="as in edge-run")
    add.add_argument("--gyro-unit", choices=("rad/s", "deg/s", "mdeg/s"), help="as in edge-run")
    add.add_argument("--time-unit", choices=("s", "ms", "us", "ns"), help="as in edge-run")
    commands.add_parser("list", help="the personal labels")
    rename = commands.add_parser("rename", help="give a personal label another name")
    rename.add_argument("old", metavar="OLD")
    rename.add_argument("new", metavar="NEW")
    delete = commands.add_parser("delete", help="erase a personal label and its examples")
    delete.add_argument("label", metavar="LABEL")
    export = commands.add_parser(
        "export", help="copy all personal labels into a zip; unpacked in the folder that `list` "
        "names, they are there again"
    )  # fmt: skip
    export.add_argument("file", type=Path, metavar="FILE.zip")
    renew = commands.add_parser(
        "renew", help="embed the examples again that were made with another bundle"
    )
    for command in (add, renew):
        command.add_argument(
            "--bundle",
            type=Path,
            metavar="DIR",
            help="what edge-export wrote (default: the bundle that came along)",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `edge-enroll`. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] not in (*_COMMANDS, "-h", "--help"):
        words.insert(0, "add")
    args = _parser().parse_args(words, namespace=Args())
    try:
        _run(args)
    except AuraError as error:
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped; nothing was changed")
        return EXIT_INTERRUPTED
    return 0


def _run(args: Args) -> None:
    from edge.personal.store import PersonalStore, personal_folder

    store = PersonalStore(personal_folder())
    if args.command == "add":
        _add(args, store)
    elif args.command == "list":
        _list(store)
    elif args.command == "rename":
        store.rename(args.old, _checked(args.new))
        say(f"{args.old!r} is now {args.new!r}")
    elif args.command == "delete":
        store.delete(args.label)
        say(f"{args.label!r} and its examples are deleted")
    elif args.command == "export":
        _export(args.file, store)
    else:
        _renew(args, store)


def _checked(label: str) -> str:
    """A label that edge-run can be asked for."""
    label = " ".join(label.split())
    if not label or "," in label or "#" in label:
        raise InputError(
            f"label {label!r}: expected a word or more, without the comma and # that lists of "
            "labels are written with"
        )
    return label


def _add(args: Args, store: PersonalStore) -> None:
    from dataclasses import replace

    from edge.labels import check_learns
    from edge.personal.store import PersonalLabel, embedded_again

    label = _checked(args.label)
    start_s, end_s = _stretch(args)
    bundle = _bundle(args)
    check_learns(bundle)
    before = store.find(label)  # a damaged file is told of before anything is shown
    shown = _shown(args, label, start_s, end_s, bundle)
    _tell(label, shown.take, bundle)
    kept = PersonalLabel(label, bundle.id, ())
    if before is not None:
        kept = before if before.bundle_id == bundle.id else embedded_again(before, bundle)
        say(f"{label!r} had {before.seconds:g} s of examples already, which count as well")
    store.save(replace(kept, name=label, shown=(*kept.shown, shown)))
    say(f"kept in {store.path_of(label)}; edge-run uses it under this name")


def _stretch(args: Args) -> tuple[float, float]:
    """Where the examples lie in the stream, in seconds from its beginning."""
    if args.device:
        if args.start is not None or args.end is not None:
            raise InputError("--start and --end go with --from; a live device takes --seconds")
        if args.acc_unit or args.gyro_unit or args.time_unit:
            raise InputError("the unit options go with --from")
        start_s, end_s = _READY_S, _READY_S + (15.0 if args.seconds is None else args.seconds)
    elif args.start is None or args.end is None or args.seconds is not None:
        raise InputError("--from FILE takes --start S and --end S, and no --seconds")
    else:
        start_s, end_s = args.start, args.end
    if not (start_s >= 0 and _LEAST_S <= round(end_s - start_s, 6) <= _MOST_S):
        raise InputError(
            f"{end_s - start_s:g} s of examples from {start_s:g} s on: expected {_LEAST_S:g} to "
            f"{_MOST_S:g} s, best 15 to 30 s of one activity and nothing else"
        )
    return start_s, end_s


def _bundle(args: Args) -> Bundle:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle

    return load_bundle(args.bundle or DEFAULT_BUNDLE)


def _shown(args: Args, label: str, start_s: float, end_s: float, bundle: Bundle) -> Shown:
    """The examples, from where the user said."""
    from edge.personal.take import take

    _check_placement(args.placement)
    if args.recording:
        from edge.recording import UnitOptions, open_recording

        units = UnitOptions(args.acc_unit, args.gyro_unit, args.time_unit)
        recording = open_recording(args.recording, units)
        say(f"read {recording.summary}")
        name = f"replay:{args.recording}"
        return take(recording.chunks, start_s, end_s, bundle, args.placement, name)
    from edge.source import open_device

    assert args.device is not None
    device = open_device(args.device, say)
    try:
        chunks = _counted_down(device.samples, label, start_s, end_s)
        return take(chunks, start_s, end_s, bundle, args.placement, device.name)
    finally:
        if device.live:
            device.live.close()


def _check_placement(placement: str | None) -> None:
    from edge.posture import UNKNOWN, known_placements, segment_of

    if placement is None:
        say("note: where the device is worn is not told (--placement): its angles may mislead")
    elif segment_of(placement) == UNKNOWN:
        raise InputError(
            f"placement {placement!r} is not recognised; recognised are: {known_placements()}"
        )


def _counted_down(
    chunks: Iterator[Samples], label: str, start_s: float, end_s: float
) -> Iterator[Samples]:
    """The same samples, in whose time the user is told what to do."""
    cues = [(0.0, f"get ready for {label!r}: it begins in {start_s:g} s")]
    cues += [(start_s, f"now: {label!r}, for {end_s - start_s:g} s")]
    left_s = (end_s - start_s) - _TOLD_EVERY_S
    while left_s > 0:
        cues.append((end_s - left_s, f"{left_s:g} s left"))
        left_s -= _TOLD_EVERY_S
    cues.append((end_s, "thank you, that is all"))
    first_s: float | None = None
    for samples in chunks:
        if first_s is None and len(samples):
            first_s = float(samples.t_s[0])
        while cues and first_s is not None and samples.t_s[-1] - first_s >= cues[0][0]:
            say(cues.pop(0)[1])
        yield samples


def _tell(label: str, take: Take, bundle: Bundle) -> None:
    """What the examples are taken for among the default labels, without and with them."""
    from math import isnan

    from edge.labels import default_labels, label_set
    from edge.posture import PostureEvidence

    names = default_labels(bundle)
    activity = bundle.bank.get(_normalised(label))
    others = [n for n in names if activity is None or bundle.bank.get(_normalised(n)) != activity]
    known = activity is not None
    without = label_set([*others, label] if known else others, bundle, {})
    within = label_set([*others, label], bundle, {len(others): [take]})
    said: list[Counter[str]] = []
    for labels in (without, within):
        said.append(Counter())
        for embedding, face_deg, tilt_deg in zip(
            take.embeddings, take.face_deg.tolist(), take.tilt_deg.tolist(), strict=True
        ):
            tilt = None if isnan(tilt_deg) else tilt_deg
            evidence = None if isnan(face_deg) else PostureEvidence(face_deg, tilt)
            scores = labels.classify(embedding, bundle.logit_scale, 1, take.segment, evidence)
            said[-1][scores[0].label] += 1
    n = len(take.embeddings)
    seen = ", ".join(f"{name} {count}" for name, count in said[0].most_common(3))
    say(f"{n} windows; among the usual labels they look like: {seen}")
    say(f"with these examples {said[1][label]} of {n} are {label!r}")


def _normalised(label: str) -> str:
    from edge.bundle import normalised

    return normalised(label)


def _list(store: PersonalStore) -> None:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle

    shipped = load_bundle(DEFAULT_BUNDLE)
    for path in store.paths():
        try:
            label = store.read(path)
        except InputError as error:
            say(f"note: {error}")
            continue
        worn = ", ".join(sorted({take.placement or "not told" for take in label.takes}))
        last = datetime.fromisoformat(max(shown.enrolled_utc for shown in label.shown))
        known = _normalised(label.name) in shipped.bank
        takes = "1 take" if len(label.shown) == 1 else f"{len(label.shown)} takes"
        made = "" if label.bundle_id == shipped.id else f", made with bundle {label.bundle_id}"
        print(
            f"{label.name}: {label.seconds:g} s in {takes}, worn: {worn}, last shown "
            f"{last.astimezone():%Y-%m-%d %H:%M}, {'with its text' if known else 'by examples'}"
            f"{made}"
        )
    say(f"kept in {store.folder}")


def _export(file: Path, store: PersonalStore) -> None:
    import os
    import zipfile

    paths = store.paths()
    if not paths:
        raise InputError(f"no personal label in {store.folder}")
    try:
        # Readable by its owner only, and never in the place of another file.
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "wb") as out, zipfile.ZipFile(out, "w") as archive:
            for path in paths:
                archive.write(path, path.name)
    except FileExistsError:
        raise InputError(f"{file}: is there already; choose another name") from None
    except OSError as error:
        raise AuraError(f"{file}: cannot be written ({error})") from None
    say(f"{_count(len(paths))} copied to {file}; unpacked in {store.folder} they are there again")


def _renew(args: Args, store: PersonalStore) -> None:
    from edge.labels import check_learns
    from edge.personal.store import embedded_again

    bundle = _bundle(args)
    check_learns(bundle)
    renewed = 0
    for path in store.paths():
        try:
            label = store.read(path)
        except InputError as error:
            say(f"note: {error}")
            continue
        if label.bundle_id != bundle.id:
            store.save(embedded_again(label, bundle))
            renewed += 1
    say(f"{_count(renewed)} made anew for bundle {bundle.id}")


def _count(labels: int) -> str:
    return "1 personal label" if labels == 1 else f"{labels} personal labels"


if __name__ == "__main__":
    sys.exit(main())
