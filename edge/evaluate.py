"""`edge-eval`: zero-shot accuracy and calibration of a bundle on a labelled corpus, through the
streaming path; of the whole corpus, by placement and by group of subjects."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.measuring import corpus_parser, exit_code, opened, read_json
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

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
_ECE_BINS = 15


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
    placement: str = ""
    """Where the device was worn, in the corpus' words, whether or not the decision was told."""
    probability: float = 1.0
    """Of the best label, whether or not it fits."""


def _parser() -> argparse.ArgumentParser:
    parser = corpus_parser(
        "edge-eval",
        "Score a bundle, zero-shot, on a labelled corpus: 5 s windows, each inside "
        "one labelled segment, 2.5 s hop, streamed as edge-run streams them.",
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
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE.json",
        help="group name -> list of subjects; each group is also scored by itself",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.png",
        help="draw the confusion matrix and the reliability diagram (.png, .svg or .pdf)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-eval`."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _measure(args))


def _measure(args: argparse.Namespace) -> None:
    result = _run(args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        _print_tables(result)
    if args.picture:
        from edge.evaluate_picture import draw  # matplotlib takes half a second to import

        draw(result, args.picture)  # last: where it fails, the result is not lost


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from edge.labels import resolve_labels

    if args.picture:
        from edge.evaluate_picture import check_picture

        check_picture(args.picture)
    bundle, corpus, mapping = opened(args)
    groups = None
    if args.groups:
        subjects = sorted({r.subject for r in corpus.recordings()})
        groups = read_groups(args.groups, corpus.name, subjects)
    labels = resolve_labels(list(dict.fromkeys(mapping.values())), bundle)
    scored, not_valid = score(bundle, labels, corpus, mapping, args.context, args.placement)
    if not scored:
        raise InputError(f"{args.corpus}: no labelled segment of 1 s or more is left to score")
    return {
        "corpus": corpus.name,
        "bundle": bundle.id,
        "context": args.context,
        "placement": args.placement,
        **metrics(scored, labels.names, groups),
        "n_not_classified": not_valid,
    }


def read_groups(path: Path, corpus: str, subjects: Sequence[str]) -> dict[str, list[str]]:
    """Group name -> its subjects, from a file. Subjects may be in no group.

    Args:
        path: a JSON object.
        corpus: its name.
        subjects: all that it has.

    Raises:
        InputError: no such file, not that, a subject that the corpus lacks or one in two groups.
    """
    groups = read_json(path)
    if not (isinstance(groups, dict) and groups and all(map(_is_group, groups.values()))):
        raise InputError(f"{path}: expected an object, group name -> list of subjects (strings)")
    group_of: dict[str, str] = {}
    for group, members in groups.items():
        for subject in members:
            if subject not in subjects:
                raise InputError(
                    f"{path}: {group!r}: {corpus} has no subject {subject!r}; "
                    f"it has: {', '.join(subjects)}"
                )
            if group_of.setdefault(subject, group) != group:
                raise InputError(
                    f"{path}: subject {subject!r} is in two groups, {group_of[subject]!r} and "
                    f"{group!r}; leave it in one"
                )
    return groups


def _is_group(members: object) -> bool:
    return isinstance(members, list) and bool(members) and all(isinstance(m, str) for m in members)


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
                # All recordings of a stream share their subject and placement.
                scored.append(
                    Scored(
                        stream[0][0].subject,
                        truth,
                        prediction.best.label,
                        prediction.unknown,
                        stream[0][0].placement,
                        prediction.best.probability,
                    )
                )
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


def metrics(
    scored: Sequence[Scored],
    labels: tuple[str, ...],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What `edge-eval` reports of the best labels, also where the window would be called unknown.

    Accuracy; macro-F1 with a bootstrap interval over subjects, of the whole, by placement and by
    group; per class; confusion matrix; calibration.

    Args:
        scored: one window or more.
        labels: the label set.
        groups: group name -> its subjects; None: nothing is reported by group.
    """
    import numpy as np

    by_subject = _confusion_by_subject(scored, labels)
    confusion = by_subject.sum(axis=0)
    precision, recall, f1 = _per_class(confusion)
    confidence = np.array([s.probability for s in scored])
    right = np.array([s.said == s.truth for s in scored])
    result = {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        **_over_subjects(by_subject),
        "unknown_fraction": sum(s.unknown for s in scored) / len(scored),
        "labels": list(labels),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "n_windows": int(confusion[i].sum()),
            }
            for i, name in enumerate(labels)
        },
        "confusion": confusion.tolist(),
        "ece": expected_calibration_error(confidence, right),
        "reliability": reliability(confidence, right),
        "by_placement": {
            placement: _of_part([s for s in scored if s.placement == placement], labels)
            for placement in sorted({s.placement for s in scored})
        },
    }
    if groups is not None:
        result["by_group"] = {
            group: _of_part([s for s in scored if s.subject in members], labels)
            for group, members in groups.items()
        }
    return result


def _of_part(scored: Sequence[Scored], labels: tuple[str, ...]) -> dict[str, Any]:
    return _over_subjects(_confusion_by_subject(scored, labels))


def _confusion_by_subject(scored: Sequence[Scored], labels: tuple[str, ...]) -> NDArray[np.int64]:
    """(S, L, L) windows, rows truth and columns said, of the subjects that have any."""
    import numpy as np

    row = {name: i for i, name in enumerate(labels)}
    subject = {name: i for i, name in enumerate(sorted({s.subject for s in scored}))}
    by_subject = np.zeros((len(subject), len(labels), len(labels)), np.int64)
    for s in scored:
        by_subject[subject[s.subject], row[s.truth], row[s.said]] += 1
    return by_subject


def _over_subjects(by_subject: NDArray[np.int64]) -> dict[str, Any]:
    """Macro-F1 of (S, L, L) confusion matrices, over the classes that truly occur in them (parts
    with other classes do not compare), with its 95 % bootstrap interval over subjects; None for
    both where there are no subjects."""
    import numpy as np

    n = len(by_subject)
    f1, interval = None, None
    if n:
        draws = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
        resampled = [macro_f1(by_subject[draw].sum(axis=0)) for draw in draws]
        f1 = macro_f1(by_subject.sum(axis=0))
        interval = [float(q) for q in np.quantile(resampled, [0.025, 0.975])]
    return {
        "macro_f1": f1,
        "macro_f1_ci": interval,
        "n_windows": int(by_subject.sum()),
        "n_subjects": n,
        "n_classes": int(by_subject.any(axis=(0, 2)).sum()),
    }


def reliability(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> list[dict[str, float]]:
    """How often what is said with a probability is right: a reliability diagram.

    Args:
        confidence: (N,) probability of the best label, 0 to 1.
        right: (N,) whether it is the true one.

    Returns:
        Of 15 bins of equal width those that hold windows, in order: `from` and `to` (1 belongs to
        the last bin), `n_windows`, `confidence` (mean probability) and `accuracy`.
    """
    import numpy as np

    bins = np.minimum((confidence * _ECE_BINS).astype(int), _ECE_BINS - 1)
    return [
        {
            "from": float(b / _ECE_BINS),
            "to": float((b + 1) / _ECE_BINS),
            "n_windows": int((bins == b).sum()),
            "confidence": float(confidence[bins == b].mean()),
            "accuracy": float(right[bins == b].mean()),
        }
        for b in np.unique(bins)
    ]


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Mean distance of the best label's probability from how often it is right, over the bins of
    `reliability`, by their windows (Guo et al. 2017, "On Calibration of Modern Neural Networks",
    eq. 3)."""
    gaps = (
        b["n_windows"] * abs(b["confidence"] - b["accuracy"])
        for b in reliability(confidence, right)
    )
    return sum(gaps) / len(right)


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
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(
        f"{result['corpus']}: {result['n_windows']} windows of {result['n_subjects']} subjects, "
        f"context {result['context']}, bundle {result['bundle']}\n"
        f"accuracy {result['accuracy']:.3f}   macro-F1 {result['macro_f1']:.3f} "
        f"(95 % over subjects {interval_text(result)})\n"
        f"expected calibration error {result['ece']:.3f}\n"
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
        table.add_row(str(i + 1), escape(name), f"{own['f1']:.2f}", str(own["n_windows"]), *cells)
    console.print(table)
    if len(result["by_placement"]) > 1:
        console.print(_table_of_parts("placement", result["by_placement"]))
    if "by_group" in result:
        console.print(_table_of_parts("group", result["by_group"]))
    if result["n_not_classified"]:
        console.print(f"{result['n_not_classified']} windows not classified: too much missing")


def interval_text(part: dict[str, Any]) -> str:
    """The interval of a macro-F1, for people."""
    low, high = part["macro_f1_ci"]
    return f"{low:.3f} to {high:.3f}"


def _table_of_parts(kind: str, parts: dict[str, dict[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(kind, "macro-F1", "95 % over subjects", "classes", "windows", "subjects")
    for name, part in parts.items():
        is_scored = part["n_subjects"] > 0
        table.add_row(
            escape(name),
            f"{part['macro_f1']:.3f}" if is_scored else "-",
            interval_text(part) if is_scored else "-",
            str(part["n_classes"]),
            str(part["n_windows"]),
            str(part["n_subjects"]),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
