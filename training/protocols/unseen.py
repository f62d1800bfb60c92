"""`edge-train unseen`: on activities that were never trained on, among all others.

Generalised zero-shot learning (Xian et al. 2017, "Zero-Shot Learning: A Comprehensive Evaluation of
the Good, the Bad and the Ugly"): some activities are held out of training wholesale, every window
of new subjects is named among all activities, and the harmonic mean of the scores on those seen and
those unseen is high only where neither is bought with the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.arguments import open_fraction, whole
from training.protocols import options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from training.data import WindowSet
    from training.protocols.cells import Cell, Done
    from training.protocols.corpora import Library
    from training.protocols.workshop import Lesson, Workshop


def add_parser(commands: options.Commands) -> None:
    """Add `unseen` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "unseen",
        help="score models on activities that they were never trained on",
        description="Hold activities out of training and score new subjects among all activities.",
    )
    add = parser.add_argument
    add("corpora", type=Path, nargs="+", metavar="CORPUS", help="of role train")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument(
        "--activities", metavar="LIST", help="held out: names, separated by commas"
    )
    held_out.add_argument(
        "--fraction",
        type=open_fraction,
        default=0.2,
        help="of the activities held out, drawn at random (default: %(default)s)",
    )
    add(
        "--test-subjects",
        type=open_fraction,
        default=0.25,
        metavar="FRACTION",
        help="of each corpus' subjects, scored and not trained on (default: %(default)s)",
    )
    add(
        "--split-seed",
        type=whole,
        default=0,
        metavar="N",
        help="draws the activities and the subjects, the same ones for all seeds "
        "(default: %(default)s)",
    )
    options.add_models(parser)
    options.add_seeds(parser)
    options.add_training(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Carry out `unseen`.

    Raises:
        InputError: a corpus, an activity or an option cannot be used.
    """
    from training.protocols.cells import run_cells
    from training.protocols.corpora import Library
    from training.protocols.splits import held_out_subjects
    from training.protocols.workshop import Workshop

    library = Library(args.cache or args.out.parent / "cache", console)
    sets = [library.windows(folder, "train") for folder in args.corpora]
    names = activity_names(sets)
    unseen = unseen_activities(args.activities, args.fraction, names, args.split_seed)
    console.print(f"held out: {', '.join(unseen)}", markup=False, highlight=False)
    subjects = held_out_subjects([s.subject for s in sets], args.test_subjects, args.split_seed)
    lesson = lesson_without(args.corpora, library, unseen, subjects)
    workshop = Workshop(options.train_config(args), library, args.out, console)
    cells = [
        _cell(workshop, name, seed, lesson, names, subjects)
        for seed in args.seeds
        for name in args.models
    ]
    done = run_cells(cells, args.out, console)
    facts = {
        "corpora": [s.corpus for s in sets],
        "unseen": list(unseen),
        "seen": [name for name in names if name not in unseen],
        "test_subjects": sorted(subjects),
    }
    _write_report(done, names, unseen, facts, args.out)
    return 0


def activity_names(sets: Sequence[WindowSet]) -> tuple[str, ...]:
    """The activities that labels mean, in order; what free sentences say is no label."""
    from training.data import LABEL

    return tuple(
        sorted(
            {
                activity.name
                for windows in sets
                for activity, kind in zip(windows.activities, windows.kinds, strict=True)
                if kind == LABEL
            }
        )
    )


def unseen_activities(
    given: str | None, fraction: float, names: Sequence[str], seed: int
) -> tuple[str, ...]:
    """The activities to hold out.

    Raises:
        InputError: a given one is in no corpus, or none would be left to train on.
    """
    import numpy as np

    from firmware_bridge.errors import InputError
    from training.captions import activity_of

    if given is None:
        count = max(1, round(fraction * len(names)))
        chosen = np.random.default_rng(seed).permutation(list(names))[:count].tolist()
    else:
        chosen = [activity_of(part).name for part in given.split(",") if part.strip()]
        unknown = [name for name in chosen if name not in names]
        if unknown or not chosen:
            raise InputError(
                f"--activities {given!r}: no corpus has {', '.join(unknown) or 'such activities'}; "
                f"they have: {', '.join(names)}"
            )
    if len(set(chosen)) >= len(names):
        raise InputError("every activity would be held out: none is left to train on")
    return tuple(sorted(set(chosen)))


def lesson_without(
    folders: Sequence[Path], library: Library, unseen: Sequence[str], subjects: frozenset[str]
) -> Lesson:
    """Everything but the unseen activities and the test subjects.

    Composites that an unseen activity is a part of are held out with it ("walking upstairs and
    downstairs" with "climbing stairs"), and so are all free sentences, for nobody knows what they
    mention.
    """
    import numpy as np

    from training.captions import activity_of, compatible
    from training.data import LABEL
    from training.protocols.workshop import Lesson

    held_out = [activity_of(name) for name in unseen]

    def allowed(windows: WindowSet) -> NDArray[np.bool_]:
        of_label = np.array(
            [
                kind == LABEL and not any(compatible(activity, other) for other in held_out)
                for activity, kind in zip(windows.activities, windows.kinds, strict=True)
            ],
            bool,
        )
        return of_label[windows.label] & ~np.isin(windows.subject, sorted(subjects))

    keep = tuple(library.kept(f) & allowed(library.windows(f, "train")) for f in folders)
    return Lesson(tuple(folders), keep, {"unseen": list(unseen), "subjects": sorted(subjects)})


def _cell(
    workshop: Workshop,
    name: str,
    seed: int,
    lesson: Lesson,
    names: tuple[str, ...],
    subjects: frozenset[str],
) -> Cell:
    from training.protocols.cells import Cell

    def make() -> dict[str, Any]:
        model = workshop.recogniser(name, seed, lesson)
        return score_subjects(workshop, model, lesson.folders, names, subjects)

    facts = {
        "protocol": "unseen",
        "name": name,
        "seed": seed,
        "training": workshop.facts(name, seed, lesson),
        "text": workshop.text_facts(),
        "split": lesson.about_keep,
        "corpora": [workshop.library.windows(f, "train").corpus for f in lesson.folders],
        "activities": list(names),
    }
    return Cell(f"{name}, seed {seed}", facts, make)


def score_subjects(
    workshop: Workshop,
    model: Any,
    folders: Sequence[Path],
    names: tuple[str, ...],
    subjects: frozenset[str],
) -> dict[str, Any]:
    """Name every labelled window of some subjects among all activities."""
    import numpy as np

    from training.data import LABEL
    from training.scoring import Outcome, embed, nearest

    row_of = {name: row for row, name in enumerate(names)}
    prototypes = workshop.prototypes(names)
    subject, truth, said = [], [], []
    for folder in folders:
        windows = workshop.library.windows(folder, "train")
        of_label = np.array(
            [
                row_of[activity.name] if kind == LABEL else -1
                for activity, kind in zip(windows.activities, windows.kinds, strict=True)
            ]
        )[windows.label]
        rows = np.flatnonzero(np.isin(windows.subject, sorted(subjects)) & (of_label >= 0))
        if len(rows):
            subject.append(windows.subject[rows])
            truth.append(of_label[rows])
            said.append(nearest(embed(model, windows.imu, rows), prototypes))
    return Outcome.of(
        names, np.concatenate(subject), np.concatenate(truth), np.concatenate(said)
    ).to_json()


def _write_report(
    done: Sequence[Done],
    names: tuple[str, ...],
    unseen: Sequence[str],
    facts: dict[str, Any],
    out: Path,
) -> None:
    """A row for each model: seen, unseen, harmonic mean; macro-F1 and mean accuracy of a class."""
    import numpy as np

    from training.protocols.report import Report
    from training.scoring import (
        Outcome,
        f1_by_class,
        f1_of_classes,
        harmonic,
        recall_of_classes,
        summarise,
    )

    is_unseen = np.isin(names, list(unseen))
    report = Report(
        "unseen",
        f"{len(unseen)} unseen among {len(names)} activities, new subjects: mean ± sd over seeds "
        "(95 % interval over subjects); H is the harmonic mean",
        ("model", "F1 seen", "F1 unseen", "F1 H", "accuracy seen", "unseen", "H"),
        facts,
        [
            f"held out of training: {', '.join(unseen)}",
            "accuracy is the mean over classes",
        ],
    )
    for name in dict.fromkeys(d.cell.facts["name"] for d in done):
        seeds = [d for d in done if d.cell.facts["name"] == name]
        outcomes = [Outcome.from_json(d.result) for d in seeds]
        scores = {}
        for kind, of_classes in (("f1", f1_of_classes), ("accuracy", recall_of_classes)):
            seen, new = of_classes(~is_unseen), of_classes(is_unseen)
            for part, statistic in (
                ("seen", seen),
                ("unseen", new),
                ("harmonic", harmonic(seen, new)),
            ):
                scores[f"{kind}_{part}"] = summarise([outcomes], statistic)
        report.add(
            (name, *(str(s) if k.startswith("f1") else f"{s.mean:.3f}" for k, s in scores.items())),
            {
                "model": name,
                "seeds": [d.cell.facts["seed"] for d in seeds],
                **{k: s.to_json() for k, s in scores.items()},
                "f1_of_classes": f1_by_class(outcomes),
            },
        )
    report.write(out, done)
