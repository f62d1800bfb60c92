"""`edge-train zero-shot`: on corpora that were never trained on.

The benchmark: trained on corpora of role "train", scored on others under their own labels or
those of a file. Every window of a labelled segment is named among all labels of its corpus, from
the window alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.protocols import options

if TYPE_CHECKING:
    from rich.console import Console

    from training.augment_config import AugmentConfig
    from training.protocols.cells import Cell, Done
    from training.protocols.corpora import Library, Target
    from training.protocols.report import Report
    from training.protocols.workshop import Lesson, Workshop

BUNDLE = "bundle"
"""The model that is not trained here: a bundle, streamed as `edge-eval` does."""


def add_parser(commands: options.Commands) -> None:
    """Add `zero-shot` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "zero-shot",
        help="score models on corpora that they were never trained on",
        description="Train models on corpora and score them on others, zero-shot.",
    )
    add = parser.add_argument
    add("--train", type=Path, nargs="+", default=[], metavar="CORPUS", help="trained on")
    add(
        "--on",
        nargs="+",
        required=True,
        metavar="CORPUS[:LABELS.json]",
        help="scored on, under its own labels or those of a file (corpus label -> label text)",
    )
    options.add_models(parser, (*options.MODELS, BUNDLE))
    add(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="scored beside the models, as int8 and through the streaming path; `--models bundle` "
        "alone takes the one that came along",
    )
    options.add_seeds(parser)
    options.add_training(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Carry out `zero-shot`.

    Raises:
        InputError: a corpus or an option cannot be used.
    """
    from firmware_bridge.errors import InputError
    from training.protocols.cells import run_cells
    from training.protocols.corpora import Library, read_target
    from training.protocols.workshop import Lesson, Workshop

    trained = [name for name in args.models if name != BUNDLE]
    if trained and not args.train:
        raise InputError(f"--train: no corpus to train {', '.join(trained)} on")
    targets = [read_target(text) for text in args.on]
    library = Library(args.cache or args.out.parent / "cache", console)
    corpora = [library.windows(folder, "train").corpus for folder in args.train]
    check_untouched(corpora, targets)
    workshop = Workshop(options.train_config(args), library, args.out, console)
    lesson = Lesson(tuple(args.train))
    cells = []
    for seed in args.seeds:
        for name in trained:
            cells += [scoring_cell(workshop, name, seed, lesson, target) for target in targets]
    if args.bundle or BUNDLE in args.models:
        cells += [bundle_cell(args.bundle, target, library) for target in targets]
    done = run_cells(cells, args.out, console)
    write_report(done, corpora, targets, args.out)
    return 0


def check_untouched(corpora: Sequence[str], targets: Sequence[Target]) -> None:
    """Refuse targets that are trained on.

    Raises:
        InputError: one is.
    """
    from firmware_bridge.errors import InputError

    both = sorted({t.corpus.name for t in targets} & set(corpora))
    if both:
        raise InputError(
            f"{', '.join(both)}: trained on and scored on; that is not zero-shot. Leave it out of "
            "one of the two"
        )


def scoring_cell(
    workshop: Workshop,
    name: str,
    seed: int,
    lesson: Lesson,
    target: Target,
    augmentation: AugmentConfig | None = None,
    variant: str = "",
) -> Cell:
    """Train a model and score it on a target. The same cell whichever protocol asks for it.

    Args:
        workshop: trains.
        name: the model.
        seed: of the training.
        lesson: what it is trained on.
        target: what it is scored on.
        augmentation: instead of the workshop's.
        variant: what people call that.
    """
    from training.protocols.cells import Cell

    facts = {
        "protocol": "zero-shot",
        "name": name,
        "seed": seed,
        "training": workshop.facts(name, seed, lesson, augmentation),
        "text": workshop.text_facts(),
        "target": target.facts,
    }

    def make() -> dict[str, Any]:
        from training.scoring import Outcome, embed, nearest

        scorable = workshop.library.scorable(target)
        model = workshop.recogniser(name, seed, lesson, augmentation)
        embeddings = embed(model, scorable.imu, scorable.rows)
        said = nearest(embeddings, workshop.prototypes(target.labels))
        return Outcome.of(target.labels, scorable.subject, scorable.truth, said).to_json()

    title = f"{name}{', ' * bool(variant)}{variant}, seed {seed}, on {target.name}"
    return Cell(title, facts, make)


def bundle_cell(folder: Path | None, target: Target, library: Library) -> Cell:
    """Score a bundle as `edge-eval` does."""
    from edge.bundle import DEFAULT_BUNDLE, load_bundle
    from training.protocols.cells import Cell

    bundle = load_bundle(folder or DEFAULT_BUNDLE)
    facts = {
        "protocol": "zero-shot",
        "name": BUNDLE,
        "seed": None,
        "bundle": bundle.id,
        "target": target.facts,
    }

    def make() -> dict[str, Any]:
        from edge.evaluate import score
        from edge.labels import resolve_labels
        from training.scoring import Outcome

        labels = resolve_labels(list(target.labels), bundle)
        scored, lost = score(bundle, labels, target.corpus, target.mapping, "recording")
        return Outcome.of_scored(target.labels, scored, lost).to_json()

    return Cell(f"bundle {bundle.id}, on {target.name}", facts, make)


def write_report(
    done: Sequence[Done], corpora: Sequence[str], targets: Sequence[Target], out: Path
) -> None:
    """A row for each model and target."""
    from training.protocols.report import Report

    report = Report(
        "zero-shot",
        f"Zero-shot{', trained on ' * bool(corpora)}{', '.join(corpora)}: macro-F1, "
        "mean ± sd over seeds (95 % interval over subjects)",
        ("corpus", "classes", "model", "macro-F1", "accuracy", "windows", "subjects"),
        {"train": list(corpora)},
    )
    for target in targets:
        own = [d for d in done if d.cell.facts["target"] == target.facts]
        for name in dict.fromkeys(d.cell.facts["name"] for d in own):
            seeds = [d for d in own if d.cell.facts["name"] == name]
            add_model_row(report, target, name, seeds)
    report.write(out, done)


def add_model_row(report: Report, target: Target, name: str, seeds: Sequence[Done]) -> None:
    """One model on one target, over its seeds."""
    from training.scoring import Outcome, accuracy, f1_by_class, summarise

    outcomes = [Outcome.from_json(d.result) for d in seeds]
    f1, right = summarise([outcomes]), summarise([outcomes], accuracy)
    windows, subjects = int(outcomes[0].total().sum()), len(outcomes[0].subjects)
    report.add(
        (target.name, str(len(target.labels)), name, str(f1), f"{right.mean:.3f}",
         str(windows), str(subjects)),
        {
            "corpus": target.name,
            "role": target.corpus.role,
            "labels": list(target.labels),
            "model": name,
            "seeds": [d.cell.facts["seed"] for d in seeds],
            "macro_f1": f1.to_json(),
            "accuracy": right.to_json(),
            "f1_of_classes": f1_by_class(outcomes),
            "n_windows": windows,
            "n_not_classified": outcomes[0].not_classified,
            "n_subjects": subjects,
        },
    )  # fmt: skip
