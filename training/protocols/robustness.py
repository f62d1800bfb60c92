"""`edge-train robustness`: without gyroscope, at lower rates, with lost packets, worn elsewhere.

The first three befall the samples of a corpus (`training.protocols.degrade`), which then go through
the runtime's own resampler and window cutter. "Worn elsewhere" takes corpora whose subjects wore
several devices at once: zero-shot at each placement, and a head that is trained at one placement
and tested at the others, on other subjects.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.arguments import positive
from training.protocols import options

if TYPE_CHECKING:
    from rich.console import Console

    from training.protocols.cells import Cell, Done
    from training.protocols.corpora import Target
    from training.protocols.degrade import Condition
    from training.protocols.report import Report
    from training.protocols.sources import Source
    from training.protocols.workshop import Workshop
    from training.scoring import Outcome

DEGRADED, PLACEMENTS = "degraded", "placements"


def add_parser(commands: options.Commands) -> None:
    """Add `robustness` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "robustness",
        help="score checkpoints on degraded signals and on devices worn elsewhere",
        description="Score checkpoints without gyroscope, at lower rates, with lost packets and "
        "worn elsewhere.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, nargs="+", required=True, metavar="CKPT")
    add(
        "--on",
        nargs="+",
        required=True,
        metavar="CORPUS[:LABELS.json]",
        help="scored on, under its own labels or those of a file (corpus label -> label text)",
    )
    options.add_seeds(parser)
    add("--folds", type=positive, default=5, help="of the heads (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Carry out `robustness`.

    Raises:
        InputError: a corpus, a checkpoint or an option cannot be used.
    """
    from training.protocols.cells import run_cells
    from training.protocols.corpora import Library, read_target
    from training.protocols.degrade import conditions
    from training.protocols.sources import checkpoint_sources
    from training.protocols.workshop import Workshop
    from training.run import TrainConfig

    library = Library(args.cache or args.out.parent / "cache", console)
    config = TrainConfig(corpora=(), device=args.device)
    workshop = Workshop(config, library, args.out, console)
    targets = [read_target(text) for text in args.on]
    sources = checkpoint_sources(args.checkpoint, workshop)
    cells = []
    for source in sources:
        for target in targets:
            recordings = list(target.corpus.recordings())
            for condition in conditions([r.rate_hz for r in recordings]):
                for seed in args.seeds if condition.random else args.seeds[:1]:
                    cells.append(_degraded_cell(workshop, source, target, condition, seed))
            if len({r.placement for r in recordings}) > 1:
                for seed in args.seeds:
                    cells.append(_placement_cell(workshop, source, target, args.folds, seed))
    done = run_cells(cells, args.out, console)
    _write_report(done, sources, targets, args.out)
    return 0


def _facts(
    workshop: Workshop, part: str, source: Source, target: Target, seed: int | None
) -> dict[str, Any]:
    return {
        "protocol": "robustness",
        "part": part,
        "name": source.name,
        "seed": seed,
        "model": source.facts(0),
        "text": workshop.text_facts(source.text_encoder),
        "target": target.facts,
    }


def _degraded_cell(
    workshop: Workshop, source: Source, target: Target, condition: Condition, seed: int
) -> Cell:
    from training.protocols.cells import Cell
    from training.protocols.degrade import PACKET_SAMPLES

    def make() -> dict[str, Any]:
        from training.protocols.stream import score_streams

        prototypes = workshop.prototypes(target.labels, source.text_encoder)
        return score_streams(
            source.load(seed), prototypes, target, lambda r: condition.apply(r, seed)
        ).to_json()

    facts = _facts(workshop, DEGRADED, source, target, seed if condition.random else None)
    facts |= {"condition": condition.name, "packet_samples": PACKET_SAMPLES}
    title = f"{source.name} on {target.name}, {condition.name}, seed {seed}"
    return Cell(title, facts, make)


def _placement_cell(
    workshop: Workshop, source: Source, target: Target, folds: int, seed: int
) -> Cell:
    from training.protocols.cells import Cell

    def make() -> dict[str, Any]:
        from training.protocols.placements import heads, zero_shot
        from training.scoring import embed

        scorable = workshop.library.scorable(target)
        vectors = embed(source.load(seed), scorable.imu, scorable.rows)
        prototypes = workshop.prototypes(target.labels, source.text_encoder)
        own = zero_shot(scorable, vectors, prototypes)
        return {
            "zero_shot": {name: o.to_json() for name, o in own.items()},
            "heads": [
                {"trained": a, "tested": b, **o.to_json()}
                for (a, b), o in heads(scorable, vectors, folds, seed).items()
            ],
        }

    facts = _facts(workshop, PLACEMENTS, source, target, seed) | {"folds": folds}
    return Cell(f"{source.name} on {target.name}, placements, seed {seed}", facts, make)


def _write_report(
    done: Sequence[Done], sources: Sequence[Source], targets: Sequence[Target], out: Path
) -> None:
    """A row for each checkpoint, corpus and condition; then those of the placements."""
    from training.protocols.report import Report

    report = Report(
        "robustness",
        "Robustness: macro-F1, mean ± sd over seeds (95 % interval over subjects)",
        ("model", "corpus", "condition", "macro-F1", "change", "not classified"),
        notes=[
            "not classified: windows that lack over 20 % of their samples; the others are scored",
            "heads are trained and tested on different subjects",
        ],
    )
    for source in sources:
        for target in targets:
            if target.corpus.name in source.trained_on:
                report.notes.append(f"{source.name} was trained on {target.corpus.name}")
            own = [
                d
                for d in done
                if d.cell.facts["name"] == source.name and d.cell.facts["target"] == target.facts
            ]
            parts = {
                p: [d for d in own if d.cell.facts["part"] == p] for p in (DEGRADED, PLACEMENTS)
            }
            _add_degraded(report, source.name, target, parts[DEGRADED])
            if parts[PLACEMENTS]:
                _add_placements(report, source.name, target, parts[PLACEMENTS])
    report.write(out, done)


def _add_degraded(report: Report, model: str, target: Target, done: Sequence[Done]) -> None:
    from training.scoring import Outcome

    reference = None
    for condition in dict.fromkeys(d.cell.facts["condition"] for d in done):
        outcomes = [
            Outcome.from_json(d.result) for d in done if d.cell.facts["condition"] == condition
        ]
        mean = _add_row(report, model, target, condition, [outcomes], reference)
        reference = mean if reference is None else reference


def _add_placements(report: Report, model: str, target: Target, done: Sequence[Done]) -> None:
    from training.scoring import Outcome

    for placement in done[0].result["zero_shot"]:
        outcome = Outcome.from_json(done[0].result["zero_shot"][placement])
        _add_row(report, model, target, f"zero-shot at the {placement}", [[outcome]], None)
    pairs: dict[tuple[str, str], list[Outcome]] = {}
    for d in done:
        for head in d.result["heads"]:
            pair = head["trained"], head["tested"]
            pairs.setdefault(pair, []).append(Outcome.from_json(head))
    if not any(trained != tested for trained, tested in pairs):
        report.notes.append(f"{target.name}: no two placements share two labels, heads stay put")
    same = {pair: o for pair, o in pairs.items() if pair[0] == pair[1]}
    other = {pair: o for pair, o in pairs.items() if pair[0] != pair[1]}
    reference = None
    for name, group in (
        ("head, worn where it was trained", same),
        ("head, worn elsewhere", other),
    ):
        if group:
            mean = _add_row(report, model, target, name, list(group.values()), reference, group)
            reference = mean if reference is None else reference


def _add_row(
    report: Report,
    model: str,
    target: Target,
    condition: str,
    folds: Sequence[Sequence[Outcome]],
    reference: float | None,
    pairs: dict[tuple[str, str], list[Outcome]] | None = None,
) -> float:
    """One condition, the mean over `folds`; returns its macro-F1."""
    from training.scoring import summarise

    f1 = summarise(folds)
    lost = sum(o.not_classified for seeds in folds for o in seeds)
    total = lost + sum(int(o.total().sum()) for seeds in folds for o in seeds)
    change = None if reference is None else f1.mean - reference
    report.add(
        (
            model,
            target.name,
            condition,
            str(f1),
            "" if change is None else f"{change:+.3f}",
            f"{lost / total:.1%}",
        ),
        {
            "model": model,
            "corpus": target.name,
            "condition": condition,
            "macro_f1": f1.to_json(),
            "change": None if change is None else round(change, 6),
            "not_classified": round(lost / total, 6),
            "pairs": [
                {"trained": a, "tested": b, "macro_f1": summarise([own]).to_json()}
                for (a, b), own in (pairs or {}).items()
            ],
        },
    )
    return f1.mean
