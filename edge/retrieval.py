"""Text -> window retrieval: how well a label's text finds its windows, as `edge-log query` does.

    python -m edge.retrieval --corpus DIR [--labels FILE.json]

A query is a label text; its vector is the label's prototype. A gallery is all classified windows of
the mapped segments (5 s, each inside one segment, 2.5 s hop, streamed as edge-run streams them),
ranked by the cosine of their embeddings with the query. A window is right when its segment's label
maps to the query's text. Of one query in one gallery:

* recall@k: 1 when a right window is among the first k, else 0; over queries, the share answered.
* precision@k: how many of the first k are right, divided by k, or by the number of right windows
  in the gallery where that is smaller, so that 1 can be reached.
* reciprocal rank: 1 / rank of the first right window; its mean over queries is the MRR.

Each subject's windows make a gallery of their own, as a log holds one wearer's, and a subject is
asked for the labels that occur in them. Per label the mean over its subjects; the mean over labels
weighs each label the same. The interval is a bootstrap over subjects. Beside each figure stands
chance: its expectation, computed exactly, when the same galleries are in random order. The whole
corpus as one gallery is reported too (one query a label, thus no interval).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.measuring import corpus_parser, exit_code, opened
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.corpus import Corpus
    from edge.zeroshot import LabelSet

HOP_S = 2.5
"""Hop between the windows inside a labelled segment, as `edge-eval` cuts them."""

KS = (1, 10, 50)

MEASURES = (*(f"recall@{k}" for k in KS), *(f"precision@{k}" for k in KS[1:]), "mrr")
"""In the order of all arrays of measures; precision@1 is recall@1."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Gallery:
    """The windows that a query is put to."""

    embeddings: NDArray[np.float32]
    """(N, D) unit vectors."""

    labels: NDArray[np.intp]
    """(N,) index of each window's label among the queries."""


def _parser() -> argparse.ArgumentParser:
    parser = corpus_parser(
        "python -m edge.retrieval",
        "Measure how well label texts find their windows in a labelled corpus: "
        "recall@k, precision@k and mean reciprocal rank, each subject's windows a gallery.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m edge.retrieval`."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _measure(args))


def _measure(args: argparse.Namespace) -> None:
    result = _run(args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        _print_tables(result)


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from edge.labels import resolve_labels

    bundle, corpus, mapping = opened(args)
    labels = resolve_labels(list(dict.fromkeys(mapping.values())), bundle)
    galleries = embed_corpus(bundle, labels, corpus, mapping)
    if not galleries:
        raise InputError(f"{args.corpus}: no labelled segment of 1 s or more is left to search")
    return {"corpus": corpus.name, "bundle": bundle.id, **retrieval(galleries, labels)}


def embed_corpus(
    bundle: Bundle, labels: LabelSet, corpus: Corpus, mapping: dict[str, str]
) -> dict[str, Gallery]:
    """Stream a corpus and embed every window of its mapped segments.

    Args:
        bundle: whose encoder it is.
        labels: the texts of `mapping`.
        corpus: what is searched.
        mapping: corpus label -> label text; other labels are left out.

    Returns:
        Subject -> its windows, of the subjects that have any; windows with too much missing are
        left out.
    """
    from collections import defaultdict

    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from edge.corpus import spans_in_segment
    from edge.pipeline import Pipeline

    embeddings: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    truths: dict[str, list[int]] = defaultdict(list)
    for recording in track(
        corpus.recordings(),
        description=corpus.name,
        total=len(corpus),
        console=Console(stderr=True),
        transient=True,
    ):
        spans = [
            (span, labels.names.index(mapping[segment.label]))
            for segment in recording.segments
            if segment.label in mapping
            for span in spans_in_segment(segment, recording.rate_hz, HOP_S)
        ]
        pipeline = Pipeline(bundle, labels, iter([span for span, _ in spans]), top=1)
        predictions = pipeline.push(recording.samples) + pipeline.finish()
        # The spans ascend, so the recording's end can only cut off the last ones.
        for (_, truth), prediction in zip(spans, predictions, strict=False):
            if prediction.embedding is not None:
                embeddings[recording.subject].append(prediction.embedding)
                truths[recording.subject].append(truth)
    return {
        subject: Gallery(np.stack(rows), np.array(truths[subject], np.intp))
        for subject, rows in embeddings.items()
    }


def retrieval(galleries: dict[str, Gallery], labels: LabelSet) -> dict[str, Any]:
    """What `python -m edge.retrieval` reports.

    Args:
        galleries: subject -> its windows, one subject or more.
        labels: the queries.
    """
    import numpy as np

    n_labels = len(labels.names)
    found = np.full((len(galleries), n_labels, len(MEASURES)), np.nan)
    by_chance = np.full_like(found, np.nan)
    n_windows = np.zeros((len(galleries), n_labels), np.int64)
    for row, gallery in enumerate(galleries.values()):
        found[row], by_chance[row] = _ask(gallery, labels.prototypes)
        n_windows[row] = np.bincount(gallery.labels, minlength=n_labels)
    whole = Gallery(
        np.concatenate([g.embeddings for g in galleries.values()]),
        np.concatenate([g.labels for g in galleries.values()]),
    )
    found_whole, chance_whole = _ask(whole, labels.prototypes)
    asked = np.flatnonzero(n_windows.sum(axis=0))  # a segment shorter than 1 s gives no window
    draws = np.random.default_rng(0).integers(len(found), size=(_RESAMPLES, len(found)))
    resampled = np.array([_mean_over_labels(found[draw]) for draw in draws])
    interval = np.quantile(resampled, [0.025, 0.975], axis=0).T
    return {
        "n_windows": int(n_windows.sum()),
        "n_subjects": len(galleries),
        "mean": _named(_mean_over_labels(found)),
        "interval": dict(zip(MEASURES, interval.tolist(), strict=True)),
        "chance": _named(_mean_over_labels(by_chance)),
        "per_label": {
            labels.names[i]: {
                "n_windows": int(n_windows[:, i].sum()),
                "n_subjects": int((n_windows[:, i] > 0).sum()),
                "mean": _named(np.nanmean(found[:, i], axis=0)),
                "chance": _named(np.nanmean(by_chance[:, i], axis=0)),
            }
            for i in asked.tolist()
        },
        "whole": {
            "mean": _named(np.nanmean(found_whole, axis=0)),
            "chance": _named(np.nanmean(chance_whole, axis=0)),
            "per_label": {labels.names[i]: _named(found_whole[i]) for i in asked.tolist()},
        },
    }


def _ask(
    gallery: Gallery, prototypes: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(L, M) measures of every query that has a right window, NaN of the others; and of chance."""
    import numpy as np

    found = np.full((len(prototypes), len(MEASURES)), np.nan)
    by_chance = np.full_like(found, np.nan)
    for label in np.unique(gallery.labels):
        right = gallery.labels == label
        order = np.argsort(-(gallery.embeddings @ prototypes[label]), kind="stable")
        found[label] = measures(right[order])
        by_chance[label] = chance(len(right), int(right.sum()))
    return found, by_chance


def measures(right: NDArray[np.bool_]) -> list[float]:
    """The `MEASURES` of one query.

    Args:
        right: (N,) whether each window is right, best ranked first; one is at least.
    """
    import numpy as np

    n_right = int(right.sum())
    return [
        *(float(right[:k].any()) for k in KS),
        *(float(right[:k].sum() / min(k, n_right)) for k in KS[1:]),
        1 / (1 + int(np.argmax(right))),
    ]


def chance(n: int, n_right: int) -> list[float]:
    """What `measures` expects of `n` windows in random order, `n_right` (1 to n) of them right."""
    import numpy as np

    # P(none of the first r is right), r = 0 to n: a product, as if drawn without putting back.
    ranks = np.arange(n)
    none_before = np.concatenate(
        [[1.0], np.cumprod(np.maximum(n - n_right - ranks, 0) / (n - ranks))]
    )
    return [
        *(float(1 - none_before[min(k, n)]) for k in KS),
        *(min(k, n) * n_right / n / min(k, n_right) for k in KS[1:]),
        float(((none_before[:-1] - none_before[1:]) / (ranks + 1)).sum()),
    ]


def _mean_over_labels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,) mean over labels of their means over the subjects that have them.

    Args:
        values: (S, L, M), NaN where a subject lacks a label.
    """
    import numpy as np

    has = ~np.isnan(values[..., 0])
    total = np.nansum(values, axis=0)
    of_label: NDArray[np.float64] = total[has.any(axis=0)] / has.sum(axis=0)[has.any(axis=0), None]
    mean: NDArray[np.float64] = of_label.mean(axis=0)
    return mean


def _named(values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(MEASURES, values.tolist(), strict=True))


def _print_tables(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(
        f"{result['corpus']}: {len(result['per_label'])} queries, {result['n_windows']} windows "
        f"of {result['n_subjects']} subjects, bundle {result['bundle']}",
        highlight=False,
    )
    table = Table(
        "measure", "mean", "95 % over subjects", "chance", "whole corpus", "chance",
        title="a gallery a subject; whole corpus: one gallery",
    )  # fmt: skip
    for name in MEASURES:
        low, high = result["interval"][name]
        table.add_row(
            name,
            f"{result['mean'][name]:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{result['chance'][name]:.3f}",
            f"{result['whole']['mean'][name]:.3f}",
            f"{result['whole']['chance'][name]:.3f}",
        )
    console.print(table)
    own = Table("label", "windows", *_SHOWN, title="a gallery a subject (chance)")
    for label, part in result["per_label"].items():
        cells = [f"{part['mean'][m]:.2f} ({part['chance'][m]:.2f})" for m in _SHOWN]
        own.add_row(escape(label), str(part["n_windows"]), *cells)
    console.print(own)


_SHOWN: Sequence[str] = ("recall@1", "precision@10", "mrr")
"""Measures that the table of labels has room for; `--json` has all."""


if __name__ == "__main__":
    sys.exit(main())
