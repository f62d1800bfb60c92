"""`edge-train leave-one-out`: on each training corpus in turn, trained on all others.

The development protocol: models, options and checkpoints are chosen here, never on a benchmark.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.protocols import options

if TYPE_CHECKING:
    from rich.console import Console

    from training.protocols.cells import Done
    from training.protocols.corpora import Library, Target
    from training.protocols.workshop import Lesson


def add_parser(commands: options.Commands) -> None:
    """Add `leave-one-out` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "leave-one-out",
        help="score models on each training corpus in turn, trained on all others",
        description="Leave one corpus out: the protocol to develop with.",
    )
    parser.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS", help="of role train")
    add_folds(parser)
    options.add_models(parser)
    options.add_seeds(parser)
    options.add_training(parser)
    options.add_output(parser)


def add_folds(parser: argparse.ArgumentParser) -> None:
    """Which corpora are left out."""
    parser.add_argument(
        "--fold",
        nargs="+",
        metavar="NAME",
        help="leave only these corpora out, one after another (default: each)",
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Carry out `leave-one-out`.

    Raises:
        InputError: a corpus or an option cannot be used.
    """
    from training.protocols.cells import run_cells
    from training.protocols.corpora import Library
    from training.protocols.workshop import Workshop
    from training.protocols.zero_shot import scoring_cell

    library = Library(args.cache or args.out.parent / "cache", console)
    folds = folds_of(args.corpora, args.fold, library)
    workshop = Workshop(options.train_config(args), library, args.out, console)
    cells = [
        scoring_cell(workshop, name, seed, lesson, target)
        for target, lesson in folds
        for seed in args.seeds
        for name in args.models
    ]
    done = run_cells(cells, args.out, console)
    _write_report(done, [target for target, _ in folds], args.models, args.out)
    return 0


def folds_of(
    folders: Sequence[Path], names: Sequence[str] | None, library: Library
) -> list[tuple[Target, Lesson]]:
    """Of each fold the corpus that is left out, and what is trained on instead.

    Raises:
        InputError: a corpus may not be trained on or is given twice, or there is no such fold.
    """
    from firmware_bridge.errors import InputError
    from training.protocols.corpora import target_of
    from training.protocols.workshop import Lesson

    corpora = [library.windows(folder, "train").corpus for folder in folders]
    if len(set(corpora)) < max(2, len(corpora)):
        raise InputError("leaving one out needs two corpora or more, each given once")
    wanted = corpora if names is None else names
    unknown = [name for name in wanted if name not in corpora]
    if unknown:
        raise InputError(f"no corpus {', '.join(unknown)}; there are: {', '.join(corpora)}")
    return [
        (
            target_of(folders[corpora.index(name)], None),
            Lesson(tuple(f for f, c in zip(folders, corpora, strict=True) if c != name)),
        )
        for name in wanted
    ]


def _write_report(
    done: Sequence[Done], targets: Sequence[Target], models: Sequence[str], out: Path
) -> None:
    """A row for each fold and model, and one for each model's mean over the folds."""
    from training.protocols.report import Report
    from training.protocols.zero_shot import add_model_row
    from training.scoring import Outcome, accuracy, summarise

    report = Report(
        "leave-one-out",
        "Leave one corpus out: macro-F1, mean ± sd over seeds (95 % interval over subjects)",
        ("left out", "classes", "model", "macro-F1", "accuracy", "windows", "subjects"),
        {"folds": [target.name for target in targets]},
    )
    for target in targets:
        for name in models:
            add_model_row(report, target, name, of_fold(done, target, name))
    for name in models:
        folds = [
            [Outcome.from_json(d.result) for d in of_fold(done, target, name)] for target in targets
        ]
        f1, right = summarise(folds), summarise(folds, accuracy)
        report.add(
            ("mean", "", name, str(f1), f"{right.mean:.3f}", "", ""),
            {
                "corpus": "mean",
                "model": name,
                "macro_f1": f1.to_json(),
                "accuracy": right.to_json(),
            },
        )
    report.write(out, done)


def of_fold(done: Sequence[Done], target: Target, name: str) -> list[Done]:
    """The seeds of a model on a target."""
    return [
        d for d in done if d.cell.facts["name"] == name and d.cell.facts["target"] == target.facts
    ]
