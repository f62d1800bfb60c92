"""`edge-train settings`: zero-shot, transfer and fine-tuning on one labelled corpus.

AURA-MFM's three settings (arXiv 2506.03174), by subject: whom a score is about was never trained
on. Transfer and fine-tuning get all windows of the other subjects, 1 to 32 of each class, or a few
percent (MuJo's setting, arXiv 2406.03857). The paper's own split, windows at random, is
there for comparison with the paper and marked as what it is. A random forest on classical features
stands beside them all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.arguments import positive
from training.protocols import options

if TYPE_CHECKING:
    from rich.console import Console

    from training.protocols.cells import Done
    from training.protocols.corpora import Target
    from training.protocols.sources import Source

NOT_COMPARABLE = (
    "random windows: the paper's own split. The same people, and windows that overlap by half, are "
    "trained and tested on: these figures are not comparable with the others, nor with anything "
    "that holds for a new wearer"
)


def add_parser(commands: options.Commands) -> None:
    """Add `settings` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "settings",
        help="zero-shot, transfer and fine-tuning on one corpus",
        description="Zero-shot, transfer (frozen encoder, trained head) and fine-tuning on one "
        "labelled corpus, with few or many labelled windows, by subject.",
    )
    add = parser.add_argument
    add("corpus", type=Path, metavar="CORPUS", help="of any role; see the note it prints")
    add("--labels", type=Path, metavar="FILE.json", help="corpus label -> label text")
    add("--checkpoint", type=Path, nargs="+", default=[], metavar="CKPT", help="encoders to use")
    add(
        "--train",
        type=Path,
        nargs="+",
        default=[],
        metavar="CORPUS",
        help="train --models on these instead of, or beside, taking checkpoints",
    )
    options.add_models(parser)
    options.add_seeds(parser)
    add("--folds", type=positive, default=5, help="default: %(default)s")
    add("--epochs", type=positive, default=5, help="of fine-tuning (default: %(default)s)")
    add(
        "--shots",
        type=positive,
        nargs="*",
        default=[1, 2, 8, 32],
        metavar="K",
        help="labelled windows of each class (default: 1 2 8 32)",
    )
    add(
        "--percent",
        type=float,
        nargs="*",
        default=[2.0, 10.0],
        metavar="P",
        help="labelled percentage of the windows (default: 2 10)",
    )
    options.add_training(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Carry out `settings`.

    Raises:
        InputError: a corpus, a checkpoint or an option cannot be used.
    """
    from firmware_bridge.errors import InputError
    from training.protocols.cells import run_cells
    from training.protocols.corpora import Library, target_of
    from training.protocols.labelled import ALL, Amount, LabelledBench
    from training.protocols.sources import checkpoint_sources, trained_sources
    from training.protocols.workshop import Lesson, Workshop
    from training.protocols.zero_shot import check_untouched

    if not args.checkpoint and not args.train:
        raise InputError("nothing to score: give --checkpoint, or --train with --models")
    library = Library(args.cache or args.out.parent / "cache", console)
    target = target_of(args.corpus, args.labels)
    workshop = Workshop(options.train_config(args), library, args.out, console)
    sources = checkpoint_sources(args.checkpoint, workshop)
    if args.train:
        check_untouched([library.windows(f, "train").corpus for f in args.train], [target])
        sources += trained_sources(args.models, Lesson(tuple(args.train)), workshop)
    notes = notes_on(target, sources)
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    amounts = [
        *(Amount(f"{k} per class", per_class=k) for k in args.shots),
        *(Amount(f"{p:g} %", fraction=p / 100) for p in args.percent),
        Amount(ALL),
    ]
    bench = LabelledBench(target, workshop, args.folds, args.epochs)
    done = run_cells(bench.cells(sources, args.seeds, amounts), args.out, console)
    _write_report(done, target, notes, args.out)
    return 0


def notes_on(target: Target, sources: Sequence[Source]) -> list[str]:
    """What a reader has to know about this corpus in this protocol."""
    notes = []
    if target.corpus.role != "train":
        notes.append(
            f"{target.corpus.name} is of role {target.corpus.role!r}: the folds train on it as "
            "this protocol asks; nothing trained here may be kept, or be scored zero-shot on it"
        )
    for source in sources:
        if target.corpus.name in source.trained_on:
            notes.append(
                f"{source.name} was trained on {target.corpus.name}: its scores are not those of "
                "an unknown corpus, the zero-shot one least of all"
            )
    return notes


def _write_report(done: Sequence[Done], target: Target, notes: Sequence[str], out: Path) -> None:
    """A row for each model, setting, split and amount."""
    from training.protocols.labelled import BY_SUBJECT
    from training.protocols.report import Report
    from training.scoring import Outcome, accuracy, f1_by_class, summarise

    report = Report(
        "settings",
        f"Settings on {target.name}, {len(target.labels)} classes: macro-F1, mean ± sd over seeds "
        "(95 % interval over subjects)",
        ("model", "setting", "labelled", "split", "macro-F1", "accuracy"),
        {"corpus": target.name, "role": target.corpus.role, "labels": list(target.labels)},
        [*notes, NOT_COMPARABLE],
    )
    rows: dict[tuple[str, ...], list[Done]] = {}
    for d in done:
        key = tuple(d.cell.facts[k] for k in ("name", "setting", "amount", "split"))
        rows.setdefault(key, []).append(d)
    for (name, setting, amount, split), seeds in rows.items():
        outcomes = [Outcome.from_json(d.result) for d in seeds]
        f1, right = summarise([outcomes]), summarise([outcomes], accuracy)
        comparable = split == BY_SUBJECT
        shown = split if comparable else f"{split} (not comparable)"
        report.add(
            (name, setting, amount, shown, str(f1), f"{right.mean:.3f}"),
            {
                "model": name,
                "setting": setting,
                "labelled": amount,
                "split": split,
                "subject_disjoint": comparable,
                "comparable": comparable,
                "seeds": [d.cell.facts["seed"] for d in seeds],
                "macro_f1": f1.to_json(),
                "accuracy": right.to_json(),
                "f1_of_classes": f1_by_class(outcomes),
            },
        )
    report.write(out, done)
