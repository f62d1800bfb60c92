"""`edge-train ablate`: what each augmentation is worth, on corpora left out.

Every variant of `training.augment_config.ABLATIONS` is trained as the default is, of one seed on
the same windows and captions, so that differences are paired.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.augment_config import ABLATIONS, AugmentConfig
from training.protocols import options
from training.protocols.leave_one_out import add_folds

if TYPE_CHECKING:
    from rich.console import Console

    from training.protocols.cells import Done

DEFAULT = "default"

VARIANTS: dict[str, AugmentConfig] = {DEFAULT: AugmentConfig(), **ABLATIONS}


def add_parser(commands: options.Commands) -> None:
    """Add `ablate` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "ablate",
        help="train without each augmentation and score on corpora left out",
        description="Ablation of the augmentations on the development protocol.",
    )
    parser.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS", help="of role train")
    add_folds(parser)
    parser.add_argument(
        "--model",
        choices=(*options.DEEP_MODELS, *options.FORESTS),
        default=options.DEEP_MODELS[0],
        metavar="NAME",
        help="what is trained (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(ABLATIONS),
        default=list(ABLATIONS),
        metavar="VARIANT",
        help=f"of {', '.join(map(repr, ABLATIONS))} (default: all)",
    )
    options.add_seeds(parser)
    options.add_training(parser, augmentation=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Carry out `ablate`.

    Raises:
        InputError: a corpus or an option cannot be used.
    """
    from training.protocols.cells import run_cells
    from training.protocols.corpora import Library
    from training.protocols.leave_one_out import folds_of
    from training.protocols.workshop import Workshop
    from training.protocols.zero_shot import scoring_cell

    library = Library(args.cache or args.out.parent / "cache", console)
    folds = folds_of(args.corpora, args.fold, library)
    config = options.train_config(args, augmentation=False)
    workshop = Workshop(config, library, args.out, console)
    variants = [DEFAULT, *args.only]
    plan = [
        (variant, fold, seed)
        for fold in range(len(folds))
        for seed in args.seeds
        for variant in variants
    ]
    cells = [
        scoring_cell(
            workshop, args.model, seed, folds[f][1], folds[f][0], VARIANTS[variant], variant
        )
        for variant, f, seed in plan
    ]
    done = run_cells(cells, args.out, console)
    by_variant = {
        variant: [
            [d for d, (v, f, _) in zip(done, plan, strict=True) if (v, f) == (variant, fold)]
            for fold in range(len(folds))
        ]
        for variant in variants
    }
    facts = {"model": args.model, "folds": [t.name for t, _ in folds], "seeds": args.seeds}
    _write_report(done, by_variant, facts, args.out)
    return 0


def _write_report(
    done: Sequence[Done],
    by_variant: dict[str, list[list[Done]]],
    facts: dict[str, object],
    out: Path,
) -> None:
    """A row for each variant: its mean over the folds, and how that differs from the default's."""
    from training.protocols.report import Report
    from training.scoring import Outcome, seed_interval, summarise

    folds = facts["folds"]
    assert isinstance(folds, list)
    report = Report(
        "ablate",
        "Ablation of the augmentations, one corpus left out at a time: macro-F1, mean over the "
        "folds ± sd over seeds (95 % interval over subjects)",
        ("variant", "macro-F1", "difference (95 % over seeds)", *folds),
        facts,
    )
    reference: tuple[float, ...] = ()
    for variant, cells in by_variant.items():
        outcomes = [[Outcome.from_json(d.result) for d in seeds] for seeds in cells]
        f1, of_folds = summarise(outcomes), [summarise([seeds]) for seeds in outcomes]
        reference = reference or f1.of_seeds
        paired = [own - base for own, base in zip(f1.of_seeds, reference, strict=True)]
        mean, interval = sum(paired) / len(paired), seed_interval(paired)
        said = "" if interval is None else f" ({interval[0]:+.3f} to {interval[1]:+.3f})"
        report.add(
            (
                variant,
                str(f1),
                "" if variant == DEFAULT else f"{mean:+.3f}{said}",
                *(f"{own.mean:.3f}" for own in of_folds),
            ),
            {
                "variant": variant,
                "macro_f1": f1.to_json(),
                "difference": round(mean, 6),
                "difference_ci": None if interval is None else [round(v, 6) for v in interval],
                "difference_of_seeds": [round(v, 6) for v in paired],
                "folds": dict(zip(folds, [own.to_json() for own in of_folds], strict=True)),
            },
        )
    if len(reference) < 2:
        report.notes.append("one seed: a difference has no interval")
    report.write(out, done)
