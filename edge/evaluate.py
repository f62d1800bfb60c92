"""`edge-eval`: zero-shot accuracy of a bundle on a labelled corpus, through the streaming path."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only what parsing needs is imported here: `--help` has to answer at once.
from firmware_bridge.errors import AuraError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.corpus import Corpus, CorpusRecording
    from edge.window import Span
    from edge.zeroshot import LabelSet

HOP_S = 2.5
"""Hop between the windows inside a labelled segment."""

CONTEXTS = ("window", "recording", "subject")
PLACEMENTS = ("corpus", "unknown")
_BETWEEN_RECORDINGS_S = 60.0
"""Pause put between two recordings of one subject that are streamed as one wearing."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Scored:
    """One scored window."""

    subject: str
    truth: str
    """Label text of the segment it lies in."""
    said: str
    """The best label, whether or not it fits."""
    unknown: bool = False
    """Whether none of the labels fits: `edge-run` would not say the best one."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-eval",
        description="Score a bundle, zero-shot, on a labelled corpus: 5 s windows, each inside "
        "one labelled segment, 2.5 s hop, streamed as edge-run streams them.",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        metavar="DIR",
        help="a corpus folder in the shared form",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="what edge-export wrote (default: the bundle that came along)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.json",
        help="corpus label -> label text; labels not listed are left out "
        "(default: the corpus' own labels)",
    )
    parser.add_argument(
        "--context",
        choices=CONTEXTS,
        default="recording",
        help="what a window may know of its wearer's past: nothing, its recording "
        "so far, or all earlier recordings of the same subject and placement "
        "(default: recording)",
    )
    parser.add_argument(
        "--placement",
        choices=PLACEMENTS,
        default="corpus",
        help="whether the decision is told where each device was worn (default: corpus)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-eval`."""
    args = _parser().parse_args(argv)
    try:
        result = _run(args)
    except AuraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        _print_tables(result)
    return 0


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from edge.bundle import DEFAULT_BUNDLE, load_bundle
    from edge.corpus import read_corpus
    from edge.labels import resolve_labels

    bundle = load_bundle(args.bundle or DEFAULT_BUNDLE)
    corpus = read_corpus(args.corpus)
    own = sorted({s.label for r in corpus.recordings() for s in r.segments})
    mapping = read_mapping(args.labels, corpus.name, own) if args.labels else {n: n for n in own}
    labels = resolve_labels(list(dict.fromkeys(mapping.values())), bundle)
    scored, not_valid = score(bundle, labels, corpus, mapping, args.context, args.placement)
    if not scored:
        raise InputError(f"{args.corpus}: no labelled segment of 1 s or more is left to score")
    return {
        "corpus": corpus.name,
        "bundle": bundle.id,
        "context": args.context,
        "placement": args.placement,
        **metrics(scored, labels.names),
        "n_not_classified": not_valid,
    }


def read_mapping(path: Path, corpus: str, own: list[str]) -> dict[str, str]:
    """Corpus label -> label text, from a file.

    Args:
        path: a JSON object; labels that the corpus lacks are noted on stderr.
        corpus: its name.
        own: its labels.

    Raises:
        InputError: no such file, not that, or none of its labels is the corpus'.
    """
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
        raise InputError(f"{path}: expected an object, corpus label -> label text")
    absent = [name for name in mapping if name not in own]
    complaint = (
        f"{path}: {corpus} has no label {', '.join(map(repr, absent))}; it has: {', '.join(own)}"
    )
    if len(absent) == len(mapping):
        raise InputError(complaint)
    if absent:
        print(f"note: {complaint}", file=sys.stderr)
    return {name: text for name, text in mapping.items() if name in own}


def score(
    bundle: Bundle,
    labels: LabelSet,
    corpus: Corpus,
    mapping: dict[str, str],
    context: str,
    placement: str = "corpus",
) -> tuple[list[Scored], int]:
    """Stream a corpus and name every window of its mapped segments.

    Args:
        bundle: what is scored.
        labels: the texts of `mapping`.
        corpus: what it is scored on.
        mapping: corpus label -> label text; other labels are left out.
        context: what a window may know of its wearer's past, one of `CONTEXTS`.
        placement: one of `PLACEMENTS`: each recording's own, or none.

    Returns:
        The scored windows, and how many were left out for missing samples.
    """
    from rich.console import Console
    from rich.progress import track

    from edge.pipeline import Pipeline

    scored: list[Scored] = []
    not_valid = 0
    streams = _streams(corpus, mapping, context)
    for stream in track(
        streams, description=corpus.name, console=Console(stderr=True), transient=True
    ):
        spans = [span for _, part in stream for span, _ in part]
        truths = [label for _, part in stream for _, label in part]
        worn = stream[0][0].placement if placement == "corpus" else None
        pipeline = Pipeline(bundle, labels, iter(spans), top=1, placement=worn)
        predictions = [
            p for recording, _ in stream for p in pipeline.push(recording.samples)
        ] + pipeline.finish()
        # The spans ascend, so the stream's end can only cut off the last ones.
        for truth, prediction in zip(truths, predictions, strict=False):
            if prediction.best is None:
                not_valid += 1
            else:
                subject, best = stream[0][0].subject, prediction.best.label
                scored.append(Scored(subject, truth, best, prediction.unknown))
        not_valid += len(truths) - len(predictions)
    return scored, not_valid


_Part = tuple["CorpusRecording", list[tuple["Span", str]]]
"""A recording, shifted to its place in its stream, with its spans and their labels."""


def _streams(corpus: Corpus, mapping: dict[str, str], context: str) -> list[list[_Part]]:
    """What is streamed through one pipeline each: a window, a recording, or one wearing."""
    parts = [(r, _spans(r, mapping)) for r in corpus.recordings()]
    if context == "window":
        return [[_alone(r, span, label)] for r, spans in parts for span, label in spans]
    if context == "recording":
        return [[part] for part in parts if part[1]]
    wearings: dict[tuple[str, str], list[_Part]] = defaultdict(list)
    for recording, spans in parts:
        wearings[recording.subject, recording.placement].append((recording, spans))
    return [list(_one_after_another(wearing)) for wearing in wearings.values()]


def _spans(recording: CorpusRecording, mapping: dict[str, str]) -> list[tuple[Span, str]]:
    from edge.corpus import spans_in_segment

    return [
        (span, mapping[segment.label])
        for segment in recording.segments
        if segment.label in mapping
        for span in spans_in_segment(segment, recording.rate_hz, HOP_S)
    ]


def _alone(recording: CorpusRecording, span: Span, label: str) -> _Part:
    """A window's own samples, as if nothing had been measured before."""
    from dataclasses import replace
    from math import ceil

    from edge.spec import SIGNAL

    first, stop = (ceil(i / SIGNAL.rate_hz * recording.rate_hz - 1e-6) for i in span)
    own = replace(recording, samples=recording.samples[first:stop])
    return own, [((0, span[1] - span[0]), label)]


def _one_after_another(wearing: list[_Part]) -> Iterator[_Part]:
    from dataclasses import replace
    from math import ceil

    from edge.spec import SIGNAL

    offset = 0  # on the grid, so that a shift changes no window's alignment
    for recording, spans in wearing:
        shifted = recording.samples.shifted(offset / SIGNAL.rate_hz)
        yield (
            replace(recording, samples=shifted),
            [((start + offset, stop + offset), label) for (start, stop), label in spans],
        )
        length_s = len(recording.samples) / recording.rate_hz + _BETWEEN_RECORDINGS_S
        offset += ceil(length_s * SIGNAL.rate_hz)


def metrics(scored: list[Scored], labels: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, macro-F1 with a bootstrap interval over subjects, per class, confusion matrix; all
    of the best labels, also where the window would be called unknown."""
    import numpy as np

    index = {name: i for i, name in enumerate(labels)}
    subjects = sorted({s.subject for s in scored})
    by_subject = np.zeros((len(subjects), len(labels), len(labels)), int)
    for s in scored:
        by_subject[subjects.index(s.subject), index[s.truth], index[s.said]] += 1
    confusion = by_subject.sum(axis=0)
    precision, recall, f1 = _per_class(confusion)
    rng = np.random.default_rng(0)
    draws = rng.integers(len(subjects), size=(_RESAMPLES, len(subjects)))
    resampled = [macro_f1(by_subject[draw].sum(axis=0)) for draw in draws]
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "macro_f1": macro_f1(confusion),
        "macro_f1_ci": [float(q) for q in np.quantile(resampled, [0.025, 0.975])],
        "n_windows": int(confusion.sum()),
        "n_subjects": len(subjects),
        "unknown_fraction": sum(s.unknown for s in scored) / len(scored),
        "labels": list(labels),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "n_windows": int(confusion[i].sum()),
            }
            for name, i in index.items()
        },
        "confusion": confusion.tolist(),
    }


def _per_class(
    confusion: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    right = np.diag(confusion).astype(float)
    said, true = confusion.sum(axis=0), confusion.sum(axis=1)
    return (
        right / np.maximum(said, 1),
        right / np.maximum(true, 1),
        2 * right / np.maximum(said + true, 1),
    )


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that truly occur (rows: truth, columns: said)."""
    _, _, f1 = _per_class(confusion)
    return float(f1[confusion.sum(axis=1) > 0].mean())


def _print_tables(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    low, high = result["macro_f1_ci"]
    console.print(
        f"{result['corpus']}: {result['n_windows']} windows of {result['n_subjects']} subjects, "
        f"context {result['context']}, bundle {result['bundle']}\n"
        f"accuracy {result['accuracy']:.3f}   macro-F1 {result['macro_f1']:.3f} "
        f"(95 % over subjects {low:.3f} to {high:.3f})\n"
        f"{result['unknown_fraction']:.1%} of the windows would be called unknown",
        highlight=False,
    )
    table = Table(
        "",
        "label",
        "F1",
        "windows",
        *map(str, range(1, len(result["labels"]) + 1)),
        title="rows: truth, columns: said",
    )
    for i, name in enumerate(result["labels"]):
        own = result["per_class"][name]
        cells = [str(n or ".") for n in result["confusion"][i]]
        table.add_row(str(i + 1), name, f"{own['f1']:.2f}", str(own["n_windows"]), *cells)
    console.print(table)
    if result["n_not_classified"]:
        console.print(f"{result['n_not_classified']} windows not classified: too much missing")


if __name__ == "__main__":
    sys.exit(main())
