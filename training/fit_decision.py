"""`edge-train fit-decision`: what decides beside the cosine, learned from training corpora.

The posture tables are counted (`training/posture_tables.py`). How much the bridge and the posture
count, and how sure the probabilities are, is chosen on corpora that the given checkpoints were not
trained on, as labels and devices of users are. So is the presence below which a window is unknown:
what the label set lacks is played there by labels that are left out of it. What is chosen is the
decision of the runtime (`edge/decision.py`): every score and presence here comes out of
`edge.zeroshot.LabelSet`.

Corpora of role "benchmark" are refused throughout.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score

from edge.evaluate import expected_calibration_error
from edge.posture import POSTURES, SEGMENTS, UNKNOWN
from firmware_bridge.errors import InputError
from training.heldout import Choice, Fitting, Heldout, Matrix, decision_record
from training.posture_tables import Angles, fit_tables
from training.protocols.corpora import Library

_TEMPERATURES = (0.05, 20.0)

NOTHING_HELD_OUT = Choice(posture_weight=1.0)
"""Where nothing was held out to choose on: no bridge, the posture as the tables have it."""

_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_BRIDGES = tuple(product((0.02, 0.03, 0.05, 0.1), (0.5, 1.0, 2.0)))
"""Temperatures and factors of the vocabulary's logit scale."""

_POSTURE_WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)

_AS_GOOD = 0.002
"""Of mean macro-F1: a tenth of what seeds differ by."""

_FALSE_REJECTION = 0.05
"""Share of the windows of wanted labels that may be called unknown."""

_MIN_AUROC = 0.6
"""Where presence tells less, by this, unknown windows from others (0.5: nothing), no threshold
would mean anything."""

_MAX_LEFT_OUT = 6
"""Labels of a corpus, drawn with a fixed seed, that are left out in turn."""

_MIN_UNKNOWN = 20
"""Windows of a left-out label in a cell."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `fit-decision` to `edge-train`'s commands."""
    parser = commands.add_parser(
        "fit-decision",
        help="fit posture tables, bridge and calibration of a bundle's decision",
        description="Fit what decides beside the cosine: posture tables, the weights of bridge and "
        "posture, calibration. The result is for `edge-export --decision`.",
    )
    add = parser.add_argument
    add("corpora", type=Path, nargs="+", metavar="CORPUS", help="of role train: for the tables")
    add(
        "--heldout",
        nargs="+",
        default=[],
        metavar="CHECKPOINT:CORPUS[,CORPUS...]",
        help="corpora of role train that the checkpoint was not trained on: weights, temperature "
        "and what is unknown are chosen on them (default: no bridge, posture weight 1, no "
        "calibration, nothing is unknown)",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="the decision, as JSON")
    add("--cache", type=Path, help="folder of cut windows (default: `cache` beside OUT)")


def run(args: argparse.Namespace, console: Console) -> int:
    """Fit a decision and write it; returns the exit code.

    Raises:
        InputError: a corpus or a checkpoint cannot be used, or a checkpoint was trained on what it
            is said not to know.
    """
    fitting = Fitting(Library(args.cache or args.out.parent / "cache", console), console)
    angles = [fitting.angles(folder) for folder in args.corpora]
    names = [a.corpus for a in angles]
    if len(set(names)) < len(names):
        raise InputError("a corpus is given twice")
    console.print(_seen_table(angles))
    whole = [h for text in args.heldout for h in fitting.heldout(text, angles)]
    heldout = [*whole, *(e for h in whole if (e := h.everyday()))]
    choice, evidence = choose(heldout, console) if heldout else (NOTHING_HELD_OUT, {})
    scale = float(np.mean([h.logit_scale for h in heldout])) if heldout else 1.0
    decision = decision_record(fit_tables(angles), choice, scale)
    decision["evidence"] = {"fitted_on": names, "heldout": [h.to_json() for h in heldout]}
    decision["evidence"] |= evidence
    if heldout:
        # Weights and temperature go with the scale they were chosen under. A longer training is
        # surer of itself on what it was trained on; on other corpora that is worth nothing.
        decision["logit_scale"] = round(scale, 4)
        rejection = fit_rejection(whole, choice, console)
        decision["evidence"]["rejection"] = rejection
        if _is_telling(rejection):
            decision["reject"] = {"below": rejection["below"]}
    try:
        args.out.write_text(json.dumps(decision, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{args.out}: cannot be written ({error.strerror})") from None
    print(args.out)
    return 0


@dataclass(frozen=True)
class _Parts:
    """What the weights mix, (N, L) each, up to a constant a window: the scores of `edge.decision`
    are linear in the weights, so that not every mixture has to be computed there."""

    own: dict[bool, Matrix]
    """By whether novel labels are levelled."""

    bridged: dict[tuple[float, float], Matrix]
    """By temperature and factor of the vocabulary's logit scale."""

    posture: Matrix

    @classmethod
    def of(cls, heldout: Heldout) -> _Parts:
        """The parts of all windows."""
        plain = heldout.log_probabilities(Choice())
        return cls(
            {False: plain, True: heldout.log_probabilities(Choice(level_novel=True))},
            {bridge: heldout.log_probabilities(Choice(1.0, *bridge)) for bridge in _BRIDGES},
            heldout.log_probabilities(Choice(posture_weight=1.0)) - plain,
        )

    def mixed(self, choice: Choice) -> Matrix:
        """What labels are ranked by."""
        bridged = self.bridged[choice.bridge_temperature, choice.vocabulary_factor]
        weight = choice.bridge_weight
        own = self.own[choice.level_novel]
        return (1 - weight) * own + weight * bridged + choice.posture_weight * self.posture


def choose(heldout: Sequence[Heldout], console: Console) -> tuple[Choice, dict[str, Any]]:
    """The weights with the best mean macro-F1 over corpora and placements, then the temperature.

    Of weights that do as well, those that change least; of weights of the posture within
    `_AS_GOOD`, for it is flat there, the one that makes the truth likeliest. The figures are of the
    windows that were chosen on: a benchmark says what they are worth elsewhere.

    Returns:
        What is chosen, and what came of it for the manifest.
    """
    parts = [_Parts.of(h) for h in track(heldout, "scoring", console=console, transient=True)]

    def mean_f1(choice: Choice) -> float:
        f1 = [f for h, p in zip(heldout, parts, strict=True) for f in h.macro_f1(p.mixed(choice))]
        return round(float(np.mean(f1)), 6)

    def worth(choice: Choice) -> tuple[float, float, float]:
        changes = choice.bridge_weight + choice.posture_weight + choice.level_novel
        return mean_f1(choice), -changes, -choice.bridge_weight

    grid = [
        Choice(weight, *bridge, posture, level_novel=level)
        for bridge, weight, posture, level in product(
            _BRIDGES, _WEIGHTS, _POSTURE_WEIGHTS, (False, True)
        )
    ]
    best = max(grid, key=worth)
    candidates = [best]
    if best.posture_weight:
        least = mean_f1(best) - _AS_GOOD
        others = [replace(best, posture_weight=w) for w in _POSTURE_WEIGHTS if w]
        candidates = [c for c in others if mean_f1(c) >= least]
    fitted = [(c, *_temperature(heldout, c)) for c in candidates]
    weights, temperature, _ = min(fitted, key=lambda f: f[2])
    choice = replace(weights, temperature=temperature)
    return choice, _report(heldout, choice, console)


def _temperature(heldout: Sequence[Heldout], weights: Choice) -> tuple[float, float]:
    """What makes the truth likeliest, each corpus and placement counting the same (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", section 4.2); and the loss that is left."""
    scores = [h.log_probabilities(weights) for h in heldout]

    def loss(log_temperature: float) -> float:
        losses = []
        for h, score in zip(heldout, scores, strict=True):
            of_truth = _log_softmax(score / np.exp(log_temperature))[np.arange(len(score)), h.truth]
            losses += [-float(of_truth[rows].mean()) for _, rows in h.cells()]
        return float(np.mean(losses))

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def _log_softmax(scores: Matrix) -> Matrix:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _calibration_error(log_probability: Matrix, truth: NDArray[np.int64]) -> float:
    """Expected calibration error of (N, L) log-probabilities of labels."""
    confidence = np.exp(log_probability.max(axis=1))
    return expected_calibration_error(confidence, log_probability.argmax(axis=1) == truth)


def _report(heldout: Sequence[Heldout], choice: Choice, console: Console) -> dict[str, Any]:
    """Score what was chosen by the runtime's own decision, tell it, and return the figures."""
    steps = {
        "cosine": Choice(),
        "levelled": Choice(level_novel=choice.level_novel),
        "bridge": replace(choice, posture_weight=0.0, temperature=1.0),
        "before": replace(choice, temperature=1.0),
        "after": choice,
    }
    cells: list[dict[str, Any]] = []
    for h in heldout:
        scores = {name: h.log_probabilities(c) for name, c in steps.items()}
        f1 = {name: h.macro_f1(score) for name, score in scores.items()}
        for i, (placement, rows) in enumerate(h.cells()):
            truth = h.truth[rows]
            cell: dict[str, Any] = {"corpus": h.corpus, "labels": h.label_set}
            cell |= {"placement": placement, "windows": len(rows)}
            cell["macro_f1"] = {
                "cosine": f1["cosine"][i],
                "levelled": f1["levelled"][i],
                "bridge": f1["bridge"][i],
                "posture": f1["after"][i],
            }
            cell["ece"] = {
                name: _calibration_error(scores[name][rows], truth) for name in ("before", "after")
            }
            cells.append(cell)
    means = {
        figure: {
            name: float(np.mean([c[figure][name] for c in cells])) for name in cells[0][figure]
        }
        for figure in ("macro_f1", "ece")
    }
    console.print(_cell_table(cells, means))
    console.print(
        f"novel labels {'levelled' if choice.level_novel else 'as they are'}; "
        f"bridge {choice.bridge_weight:g} at temperature {choice.bridge_temperature:g}, logit "
        f"scale x {choice.vocabulary_factor:g}; posture {choice.posture_weight:g}; temperature "
        f"{choice.temperature:.3f}",
        highlight=False,
    )
    figures: dict[str, Any] = _rounded(means | {"cells": cells})
    return figures


def fit_rejection(heldout: Sequence[Heldout], choice: Choice, console: Console) -> dict[str, Any]:
    """The presence below which a window is unknown, and what it is worth.

    In each cell (a corpus and a placement) labels are left out of the label set in turn: their
    windows are the unknowns then, the others the knowns. The threshold is what a fixed share of the
    knowns lies below when nothing is left out, a mean over the cells.

    Returns:
        For the manifest: `below`; `auroc` of presence, `false_rejection` (share of the knowns,
        nothing left out, that lie below) and `false_acceptance` (share of the unknowns that do
        not), means over the labels of a cell and then over cells, None where no cell has a label to
        leave out; and `cells`.
    """
    all_known = [(h, h.presence(choice)) for h in heldout]
    quantiles = [
        np.quantile(p[rows], _FALSE_REJECTION) for h, p in all_known for _, rows in h.cells()
    ]
    # Rounded down: many windows may share the one presence, and none is to lie below by rounding.
    below = math.floor(np.mean(quantiles) * 1e4) / 1e4
    cells = [
        cell
        for h, p in track(all_known, "leaving labels out", console=console, transient=True)
        for cell in _rejection_cells(h, choice, p, below)
    ]
    means = {
        figure: _mean([cell[figure] for cell in cells if cell[figure] is not None])
        for figure in ("auroc", "false_rejection", "false_acceptance")
    }
    figures: dict[str, Any] = _rounded({"below": below, **means, "cells": cells})
    console.print(_rejection_table(figures))
    console.print(
        f"a window of presence below {below:g} is unknown"
        if _is_telling(figures)
        else f"no window will be unknown: presence has no AUROC of {_MIN_AUROC:g} or more",
        highlight=False,
    )
    return figures


def _rejection_cells(
    h: Heldout, choice: Choice, presence: NDArray[np.float64], below: float
) -> list[dict[str, Any]]:
    """What a threshold does in each placement; `presence` is that of nothing left out."""
    without = {label: h.presence(choice, label) for label in _left_out(h)}
    cells = []
    for placement, rows in h.cells():
        auroc, accepted = [], []
        for label, presence_without in without.items():
            if _has_unknowns(h.truth[rows], label):
                known, p = h.truth[rows] != label, presence_without[rows]
                auroc.append(float(roc_auc_score(known, p)))
                accepted.append(float((p[~known] >= below).mean()))
        cells.append(
            {
                "corpus": h.corpus,
                "placement": placement,
                "left_out": len(auroc),
                "auroc": _mean(auroc),
                "false_rejection": float((presence[rows] < below).mean()),
                "false_acceptance": _mean(accepted),
            }
        )
    return cells


def _left_out(h: Heldout) -> list[int]:
    """The labels of a corpus that are left out in turn."""
    usable = [
        label
        for label in range(len(h.labels))
        if any(_has_unknowns(h.truth[rows], label) for _, rows in h.cells())
    ]
    drawn: list[int] = np.random.default_rng(0).permutation(usable)[:_MAX_LEFT_OUT].tolist()
    return sorted(drawn)


def _has_unknowns(truth: NDArray[np.int64], label: int) -> bool:
    """Whether leaving the label out leaves enough windows on either side."""
    n = int((truth == label).sum())
    return _MIN_UNKNOWN <= n < len(truth)


def _is_telling(rejection: dict[str, Any]) -> bool:
    return rejection["auroc"] is not None and bool(rejection["auroc"] >= _MIN_AUROC)


def _mean(figures: Sequence[float]) -> float | None:
    return float(np.mean(figures)) if figures else None


def _rounded(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {key: _rounded(value) for key, value in figures.items()}
    if isinstance(figures, list):
        return [_rounded(value) for value in figures]
    return round(figures, 4) if isinstance(figures, float) else figures


def _cell_table(cells: Sequence[dict[str, Any]], means: dict[str, Any]) -> Table:
    columns = ("corpus", "labels", "placement", "windows")
    steps = ("cosine", "levelled", "+ bridge", "+ posture", "ECE", "with temperature")
    table = Table(*columns, *steps, title="macro-F1 and calibration, held out")
    for cell in [*cells, {"corpus": "mean", "labels": "", "placement": "", "windows": "", **means}]:
        figures = (*cell["macro_f1"].values(), *cell["ece"].values())
        table.add_row(
            cell["corpus"],
            cell["labels"],
            cell["placement"],
            str(cell["windows"]),
            *(f"{figure:.3f}" for figure in figures),
        )
    return table


def _rejection_table(rejection: dict[str, Any]) -> Table:
    columns = ("corpus", "placement", "labels left out", "AUROC", "false rejection")
    table = Table(*columns, "false acceptance", title="unknown windows by presence, held out")
    for cell in [*rejection["cells"], {"corpus": "mean", "placement": "", **rejection}]:
        figures = (cell["auroc"], cell["false_rejection"], cell["false_acceptance"])
        table.add_row(
            cell["corpus"],
            cell["placement"],
            str(cell.get("left_out", "")),
            *("" if figure is None else f"{figure:.3f}" for figure in figures),
        )
    return table


def _seen_table(angles: Sequence[Angles]) -> Table:
    """What the posture tables are counted from."""
    columns = ("segment", "posture", "corpora", "wearings", "windows", "face", "tilt")
    table = Table(*columns, title="angles of the device, medians")
    for segment, posture in product(SEGMENTS, POSTURES):
        if segment == UNKNOWN:
            continue
        rows = [(a.segment == segment) & (a.posture == POSTURES.index(posture)) for a in angles]
        here = [(a, r) for a, r in zip(angles, rows, strict=True) if r.any()]
        table.add_row(
            segment,
            posture,
            ", ".join(a.corpus for a, _ in here) or "none",
            str(sum(len(np.unique(a.worn[r])) for a, r in here)),
            str(sum(int(r.sum()) for _, r in here)),
            _median([a.face_deg[r] for a, r in here]),
            _median([a.tilt_deg[r] for a, r in here]),
        )
    return table


def _median(angles_deg: Sequence[NDArray[np.float64]]) -> str:
    known = [deg[~np.isnan(deg)] for deg in angles_deg]
    return f"{np.median(np.concatenate(known)):.0f}°" if sum(map(len, known)) else ""
