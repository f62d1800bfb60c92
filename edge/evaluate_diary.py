"""`python -m edge.evaluate_diary`: what a diary makes of a corpus' whole recordings, against
windows that are named one by one.

Every recording is streamed from its start to its end, 5 s windows at 1 s hop, unlabelled stretches
included. Three are compared: each window by itself (raw), the diary (filtered), and the diary that
looks ahead (smoothed). Scored are labelled frames of 0.1 s. What is said live is what the last
window that had ended said; what is written are the events (of raw windows: runs of one label, each
window taken for the time around its centre).

* Frame macro-F1 of both; with a 95 % interval over subjects, and of the difference from raw.
* Label flips a minute, of all the time that was streamed.
* Delay: from a labelled segment's start to when its label is first said live, where the labelled
  segment before it was another one; 0 where it is said already. The median of those that were said
  before the segment's end, and how many of all these are.
* Events by the categories of Ward et al. 2011 (`edge/event_metrics.py`). Frames without a label are
  cut out of both timelines; what then touches and is the same is one event.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.measuring import corpus_parser, exit_code, opened, write_json
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.corpus import Corpus
    from edge.moment import Event, Moment
    from edge.pipeline import Prediction
    from edge.zeroshot import LabelSet

HOP_S = 1.0
FRAME_S = 0.1
WAYS = ("raw", "filtered", "smoothed")
PLACEMENTS = ("corpus", "unknown")
_RESAMPLES = 1000
_NONE = -1
"""In place of a label's number where none of the labels is said."""


class Stretch(NamedTuple):
    """Time with one label."""

    start_s: float
    end_s: float
    label: int
    """Number of the label in the label set, or `_NONE`."""


class Told(NamedTuple):
    """What one way says of one recording."""

    live: list[Stretch]
    """Of each window: said from its end to the next window's end."""

    written: list[Stretch]
    """Events, in order, which do not overlap."""


@dataclass(frozen=True)
class Tally:
    """What is counted of one subject and way."""

    live: NDArray[np.int64]
    """(L + 1, L + 1) frames, rows truth and columns said; the last is for none of the labels."""

    written: NDArray[np.int64]
    flips: int
    minutes: float
    delays_s: tuple[float, ...]
    """Of the changes that were found."""
    changes: int
    events: Counter[str]
    wrong_s: dict[str, float]
    """Time by `edge.event_metrics.TIME_KINDS`."""


def _parser() -> argparse.ArgumentParser:
    parser = corpus_parser(
        "python -m edge.evaluate_diary",
        "Score the diary of whole recordings: raw windows, filtered and smoothed.",
        "what is not listed counts as unlabelled",
    )
    parser.add_argument(
        "--placement",
        choices=PLACEMENTS,
        default="corpus",
        help="whether the decision is told where each device was worn (default: corpus)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _measure(args))


def _measure(args: argparse.Namespace) -> None:
    result = _run(args)
    _print_table(result)
    if args.json:
        write_json(args.json, json.dumps(result, indent=1))


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from edge.labels import resolve_labels

    bundle, corpus, mapping = opened(args)
    labels = resolve_labels(list(dict.fromkeys(mapping.values())), bundle)
    tallies = score(bundle, labels, corpus, mapping, args.placement)
    if not tallies:
        raise InputError(f"{args.corpus}: no recording of 1 s or more with one of the labels")
    return {
        "corpus": corpus.name,
        "bundle": bundle.id,
        "placement": args.placement,
        "labels": list(labels.names),
        "hop_s": HOP_S,
        **summary(tallies),
    }


def score(
    bundle: Bundle,
    labels: LabelSet,
    corpus: Corpus,
    mapping: dict[str, str],
    placement: str = "corpus",
) -> dict[str, list[dict[str, Tally]]]:
    """Stream the recordings that have a label.

    Args:
        bundle: what is scored.
        labels: the texts of `mapping`.
        corpus: what it is scored on.
        mapping: corpus label -> label text; other labels count as unlabelled.
        placement: one of `PLACEMENTS`: each recording's own, or none.

    Returns:
        Subject -> for each of its recordings, way -> tally.
    """
    from rich.console import Console
    from rich.progress import track

    from edge.pipeline import Pipeline
    from edge.window import every_hop

    number = {text: i for i, text in enumerate(labels.names)}
    tallies: dict[str, list[dict[str, Tally]]] = {}
    for recording in track(
        corpus.recordings(),
        total=len(corpus),
        description=corpus.name,
        console=Console(stderr=True),
        transient=True,
    ):
        truth = [
            Stretch(
                s.start / recording.rate_hz, s.stop / recording.rate_hz, number[mapping[s.label]]
            )
            for s in recording.segments
            if s.label in mapping
        ]
        worn = recording.placement if placement == "corpus" else None
        pipeline = Pipeline(bundle, labels, every_hop(HOP_S), placement=worn)
        predictions = pipeline.push(recording.samples) + pipeline.finish()
        if truth and predictions:
            told = tell(predictions, labels.names)
            tallies.setdefault(recording.subject, []).append(
                {way: count(truth, told[way], len(labels.names)) for way in WAYS}
            )
    return tallies


def tell(predictions: Sequence[Prediction], names: Sequence[str]) -> dict[str, Told]:
    """What each way says of a recording's windows."""
    from edge.diary import Diary, smoothed

    diary = Diary(names, HOP_S)
    filtered = [diary.push(p) for p in predictions]
    numbers: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    number = numbers.get
    return {
        "raw": _raw(predictions, number),
        "filtered": _told(filtered, diary.finish(), number),
        "smoothed": _told(*smoothed(predictions, names, HOP_S), number),
    }


_NumberOf = Callable[[str | None, int], int]
"""A label's number, or else what is given."""


def _raw(predictions: Sequence[Prediction], number: _NumberOf) -> Told:
    said = [number(p.label, _NONE) for p in predictions]
    centre_s = [(p.start_s + p.end_s) / 2 for p in predictions]
    edges_s = [
        predictions[0].start_s,
        *((a + b) / 2 for a, b in pairwise(centre_s)),
        predictions[-1].end_s,
    ]
    written = [Stretch(*s) for s in zip(edges_s[:-1], edges_s[1:], said, strict=True)]
    return Told(_live([p.end_s for p in predictions], said), written)


def _told(moments: Sequence[Moment], last: Iterable[Event], number: _NumberOf) -> Told:
    said = [number(m.label, _NONE) for m in moments]
    ended = [e for m in moments for e in m.events if e.ended]
    written = [Stretch(e.start_s, e.end_s, number(e.label, _NONE)) for e in (*ended, *last)]
    return Told(_live([m.prediction.end_s for m in moments], said), written)


def _live(end_s: Sequence[float], said: Sequence[int]) -> list[Stretch]:
    until_s = [*end_s[1:], float("inf")]
    return [Stretch(*s) for s in zip(end_s, until_s, said, strict=True)]


def count(truth: Sequence[Stretch], told: Told, n_labels: int) -> Tally:
    """Compare what one way says of a recording with the truth.

    Args:
        truth: labelled segments, in order; what lies between them is unlabelled.
        told: by the way.
        n_labels: L.
    """
    import numpy as np

    from edge.event_metrics import TIME_KINDS, compare

    t_s = np.concatenate([np.arange(s.start_s + FRAME_S / 2, s.end_s, FRAME_S) for s in truth])
    true = _at(t_s, truth)
    live, written = _at(t_s, told.live), _at(t_s, told.written)
    agreement = compare(true, written)
    said = [s.label for s in told.live]
    delays_s = list(_delays_s(truth, told.live))
    return Tally(
        _confusion(true, live, n_labels),
        _confusion(true, written, n_labels),
        sum(a != b for a, b in pairwise(said)),
        (told.live[-1].start_s - told.live[0].start_s) / 60,
        tuple(d for d in delays_s if d is not None),
        len(delays_s),
        agreement.events,
        {kind: agreement.frames[kind] * FRAME_S for kind in TIME_KINDS},
    )


def _at(t_s: NDArray[np.float64], stretches: Sequence[Stretch]) -> NDArray[np.intp]:
    """(T,) label of each time."""
    import numpy as np

    start_s, end_s, label = (np.array(column) for column in zip(*stretches, strict=True))
    row = start_s.searchsorted(t_s, side="right") - 1
    return np.where((row >= 0) & (t_s < end_s[row]), label[row], _NONE).astype(np.intp)


def _confusion(truth: NDArray[np.intp], said: NDArray[np.intp], n_labels: int) -> NDArray[np.int64]:
    import numpy as np

    table = np.zeros((n_labels + 1, n_labels + 1), np.int64)
    np.add.at(table, (truth, said), 1)  # _NONE is the last column
    return table


def _delays_s(truth: Sequence[Stretch], live: Sequence[Stretch]) -> Iterator[float | None]:
    """Of each change of the true label: how long after it the new one was said; None if never."""
    for before, now in pairwise(truth):
        if before.label == now.label:
            continue
        said_s = (
            s.start_s
            for s in live
            if s.label == now.label and s.start_s < now.end_s and s.end_s > now.start_s
        )
        first_s = next(said_s, None)
        yield None if first_s is None else max(0.0, first_s - now.start_s)


def summary(tallies: dict[str, list[dict[str, Tally]]]) -> dict[str, Any]:
    """What is reported of each way, with 95 % bootstrap intervals over subjects.

    Args:
        tallies: subject -> recordings, as `score` returns.
    """
    import numpy as np

    subjects = list(tallies)
    draws = np.random.default_rng(0).integers(len(subjects), size=(_RESAMPLES, len(subjects)))
    by_subject = {
        way: [_added([r[way] for r in tallies[subject]]) for subject in subjects] for way in WAYS
    }
    resampled = {
        way: [_figures(_added([tally[i] for i in draw])) for draw in draws]
        for way, tally in by_subject.items()
    }
    ways: dict[str, Any] = {}
    for way, tally in by_subject.items():
        total = _added(tally)
        figures = {key: value for key, value in _figures(total).items() if value is not None}
        if way == "smoothed":  # it looks ahead: nothing of it is live
            figures = {key: value for key, value in figures.items() if key not in _LIVE}
        ways[way] = {
            **figures,
            "ci": {key: _interval([f[key] for f in resampled[way]]) for key in figures},
            "minus_raw_ci": {
                key: _interval(
                    list(map(_difference, *([f[key] for f in resampled[w]] for w in (way, "raw"))))
                )
                for key in figures
            },
            "events": dict(total.events),
            "wrong_s": {kind: round(s, 1) for kind, s in total.wrong_s.items()},
            "written_confusion": total.written.tolist(),
        }
    raw = _added(by_subject["raw"])
    return {
        "n_subjects": len(subjects),
        "minutes": raw.minutes,
        "labelled_s": float(raw.written.sum() * FRAME_S),
        "true_changes": raw.changes,
        "ways": ways,
    }


def _added(tallies: Sequence[Tally]) -> Tally:
    from edge.event_metrics import TIME_KINDS

    return Tally(
        sum(t.live for t in tallies),  # type: ignore[arg-type]
        sum(t.written for t in tallies),  # type: ignore[arg-type]
        sum(t.flips for t in tallies),
        sum(t.minutes for t in tallies),
        tuple(d for t in tallies for d in t.delays_s),
        sum(t.changes for t in tallies),
        sum((t.events for t in tallies), Counter()),
        {kind: sum(t.wrong_s.get(kind, 0.0) for t in tallies) for kind in TIME_KINDS},
    )


def _figures(total: Tally) -> dict[str, float | None]:
    """None where nothing is there to tell it by."""
    import numpy as np

    from edge.evaluate import macro_f1

    return {
        "written_macro_f1": macro_f1(total.written),
        "live_macro_f1": macro_f1(total.live),
        "flips_per_minute": total.flips / total.minutes if total.minutes else None,
        "median_delay_s": float(np.median(total.delays_s)) if total.delays_s else None,
        "changes_found": len(total.delays_s) / total.changes if total.changes else None,
    }


_LIVE = ("live_macro_f1", "median_delay_s", "changes_found")
"""Figures of what is said before the future is known."""


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _interval(values: Sequence[float | None]) -> list[float]:
    """95 % of the values that are there."""
    import numpy as np

    known = [value for value in values if value is not None]
    return [float(q) for q in np.quantile(known, [0.025, 0.975])]


_ROWS = {
    "written_macro_f1": ("frame macro-F1, written", "{:.3f}"),
    "live_macro_f1": ("frame macro-F1, live", "{:.3f}"),
    "flips_per_minute": ("label flips a minute", "{:.2f}"),
    "median_delay_s": ("median delay, s", "{:.1f}"),
    "changes_found": ("changes found", "{:.2f}"),
}
"""How figures are shown."""


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from edge.event_metrics import EVENT_KINDS, TIME_KINDS

    table = Table(
        "",
        *WAYS,
        title=f"{result['corpus']}: {result['minutes']:.0f} minutes of {result['n_subjects']} "
        f"subjects, {result['true_changes']} changes of label, bundle {result['bundle']}",
        caption="in brackets: 95 % over subjects; in seconds: of those that are labelled, "
        f"{result['labelled_s']:.0f}",
    )
    for key, (name, form) in _ROWS.items():
        cells = []
        for way in WAYS:
            own = result["ways"][way]
            if key not in own:
                cells.append("-")
                continue
            low, high = (form.format(edge) for edge in own["ci"][key])
            cells.append(f"{form.format(own[key])} ({low} to {high})")
        table.add_row(name, *cells)
    table.add_section()
    for kind in EVENT_KINDS:
        table.add_row(
            f"events {kind}", *(str(result["ways"][way]["events"].get(kind, 0)) for way in WAYS)
        )
    table.add_section()
    for kind in TIME_KINDS:
        table.add_row(
            f"{kind}, s", *(f"{result['ways'][way]['wrong_s'].get(kind, 0):.0f}" for way in WAYS)
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
