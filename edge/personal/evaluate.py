"""What examples are worth: macro-F1 with 0, 5, 15, 30 s of each wearer's own examples.

    python -m edge.personal.evaluate --corpus DIR --labels FILE.json

Of each subject and placement, the recordings of a label are halved: examples come from the first
half, as `edge-enroll` takes them (windows a second apart, as many seconds as are asked for or
there), and the second half is scored (2.5 s hop, as `edge-eval`). A label that was recorded only
once gives examples from its beginning; what comes later than 5 s after the longest of them is
scored. The same windows are scored whatever the seconds, and none of them overlaps an example. A
label without any is left out for that subject.

Enrolled are all labels at once, or one at a time, as people begin: then each label in turn gives
the difference to 0 s of its own F1, and of the mean F1 of all others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only what parsing needs is imported here: `--help` has to answer at once.
from edge.measuring import corpus_parser, exit_code, opened, write_json
from firmware_bridge.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.corpus import Corpus, CorpusRecording, Segment
    from edge.personal.examples import Take
    from edge.pipeline import Prediction
    from edge.window import Span
    from edge.zeroshot import LabelSet

_EXAMPLE_HOP_S = 1.0
_PAUSE_S = 5.0
"""Between the examples and what is scored of one and the same recording."""

_RESAMPLES = 1000

Confusions = dict[str, "NDArray[np.int64]"]
"""Subject -> (L, L) windows, rows truth and columns said."""


@dataclass(frozen=True)
class _Window:
    """One classified window inside a segment."""

    label: int
    """Index of its true label."""

    stretch: int
    """Counts the stretches of a label in one wearing; examples of two are two takes."""

    prediction: Prediction


@dataclass
class _Wearing:
    """All windows of one subject with the device at one place."""

    subject: str
    placement: str
    examples: list[_Window]
    scored: list[_Window]


def _parser() -> argparse.ArgumentParser:
    parser = corpus_parser(
        "python -m edge.personal.evaluate",
        "Score a bundle on a labelled corpus with examples of each wearer's own.",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=(5.0, 15.0, 30.0),
        metavar="N,N,...",
        help="of examples of each label, beside 0 (default: 5,15,30)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def _seconds(text: str) -> tuple[float, ...]:
    values = sorted({float(part) for part in text.split(",")} - {0.0})
    if not values or not 5 <= values[0] <= values[-1] <= 300:
        raise argparse.ArgumentTypeError(f"{text}: expected 5 to 300 seconds, such as 5,15,30")
    return tuple(values)


def main(argv: list[str] | None = None) -> int:
    """Run the evaluation. Exit codes as those of `edge-eval`."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _measure(args))


def _measure(args: argparse.Namespace) -> None:
    result = _run(args)
    _print_table(result)
    if args.json:
        write_json(args.json, json.dumps(result, indent=1))


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from edge.labels import check_learns

    bundle, corpus, mapping = opened(args)
    check_learns(bundle)
    names = list(dict.fromkeys(mapping.values()))
    wearings = _stream(bundle, corpus, mapping, names, max(args.seconds))
    if not wearings:
        raise InputError(
            f"{args.corpus}: no label was recorded long or often enough to be enrolled and scored"
        )
    return evaluate(bundle, names, wearings, args.seconds) | {"corpus": corpus.name}


def _stream(
    bundle: Bundle, corpus: Corpus, mapping: dict[str, str], names: list[str], longest_s: float
) -> list[_Wearing]:
    """Every recording through the streaming path, with windows where examples or scores are due."""
    from rich.console import Console
    from rich.progress import track

    from edge.labels import label_set
    from edge.pipeline import Pipeline

    labels = label_set(names, bundle, {})
    plan = _plan(corpus, mapping, names, longest_s)
    wearings: dict[tuple[str, str], _Wearing] = {}
    recordings = track(
        corpus.recordings(),
        description=corpus.name,
        total=len(corpus),
        console=Console(stderr=True),
        transient=True,
    )
    for recording in recordings:
        due = plan.get(recording.recording)
        if not due:
            continue
        key = recording.subject, recording.placement
        wearing = wearings.setdefault(key, _Wearing(*key, [], []))
        spans = iter([due_window.span for due_window in due])
        pipeline = Pipeline(bundle, labels, spans, top=1, placement=recording.placement)
        predictions = pipeline.push(recording.samples) + pipeline.finish()
        # The spans ascend, so the recording's end can only cut off the last ones.
        for one, prediction in zip(due, predictions, strict=False):
            if prediction.valid:
                windows = wearing.examples if one.is_example else wearing.scored
                windows.append(_Window(one.label, one.stretch, prediction))
    for wearing in wearings.values():  # what gives no examples is not scored either
        enrolled = {window.label for window in wearing.examples}
        wearing.scored = [window for window in wearing.scored if window.label in enrolled]
    return [wearing for wearing in wearings.values() if wearing.scored]


@dataclass(frozen=True)
class _Due:
    """A window to be cut."""

    span: Span
    label: int
    stretch: int
    is_example: bool


def _plan(
    corpus: Corpus, mapping: dict[str, str], names: list[str], longest_s: float
) -> dict[int, list[_Due]]:
    """Recording -> its windows, ascending."""
    stretches: dict[tuple[str, str, int], list[tuple[CorpusRecording, Segment]]] = defaultdict(list)
    for recording in corpus.recordings():
        for segment in recording.segments:
            if segment.label in mapping:
                label = names.index(mapping[segment.label])
                key = recording.subject, recording.placement, label
                stretches[key].append((recording, segment))
    plan: dict[int, list[_Due]] = defaultdict(list)
    for (_, _, label), own in stretches.items():
        for number, due in _halves(own, longest_s):
            plan[number] += [_Due(span, label, k, example) for span, k, example in due]
    for windows in plan.values():
        windows.sort(key=lambda due: due.span)
    return plan


def _halves(
    own: list[tuple[CorpusRecording, Segment]], longest_s: float
) -> list[tuple[int, list[tuple[Span, int, bool]]]]:
    """Of one label's segments in one wearing: recording, and of each window its span, stretch and
    whether it is an example."""
    from dataclasses import replace
    from math import ceil

    from edge.corpus import spans_in_segment
    from edge.evaluate import HOP_S

    numbers = list(dict.fromkeys(recording.recording for recording, _ in own))
    first = set(numbers[: len(numbers) // 2])
    parts = []
    for k, (recording, segment) in enumerate(own):
        rate_hz = recording.rate_hz
        pieces = [(segment, recording.recording in first)]
        if len(numbers) == 1:
            if k > 0:
                pieces = [(segment, False)]
            else:
                end = segment.start + ceil(longest_s * rate_hz)
                later = end + ceil(_PAUSE_S * rate_hz)
                pieces = [(replace(segment, stop=min(end, segment.stop)), True)]
                if later < segment.stop:
                    pieces.append((replace(segment, start=later), False))
        for piece, example in pieces:
            hop_s = _EXAMPLE_HOP_S if example else HOP_S
            spans = spans_in_segment(piece, rate_hz, hop_s)
            if example:  # an example is a whole window
                spans = [s for s in spans if s[1] - s[0] == 1000]
            parts.append((recording.recording, [(span, k, example) for span in spans]))
    return parts


def evaluate(
    bundle: Bundle, names: list[str], wearings: Sequence[_Wearing], seconds: Sequence[float]
) -> dict[str, Any]:
    """All figures of some wearings, for `--json`."""
    from edge.labels import label_set

    base = label_set(names, bundle, {})
    untaught = [_judge(bundle, base, wearing) for wearing in wearings]
    before = _by_subject(wearings, untaught)
    result: dict[str, Any] = {
        "bundle": bundle.id,
        "labels": names,
        "n_subjects": len(before),
        "n_windows": sum(len(w.scored) for w in wearings),
        "seconds": {"0": {"all": _of(before)}},
    }
    for length_s in seconds:
        takes = [_takes(wearing, length_s) for wearing in wearings]
        taught = [
            _judge(bundle, label_set(names, bundle, own), wearing)
            for wearing, own in zip(wearings, takes, strict=True)
        ]
        shown_s = [sum(t.windows * 5 for t in own) for one in takes for own in one.values()]
        result["seconds"][f"{length_s:g}"] = {
            "mean_seconds": sum(shown_s) / len(shown_s),
            "all": _of(after := _by_subject(wearings, taught)) | _paired(before, after),
            "one": _one(bundle, names, wearings, takes, untaught),
        }
    return result


def _takes(wearing: _Wearing, seconds: float) -> dict[int, list[Take]]:
    """Label -> the first `seconds` of its examples; a stretch too short for what is left to take is
    taken whole."""
    import numpy as np

    from edge.personal.examples import Take

    by_stretch: dict[tuple[int, int], list[Prediction]] = defaultdict(list)
    for window in wearing.examples:
        by_stretch[window.label, window.stretch].append(window.prediction)
    left: dict[int, float] = defaultdict(lambda: seconds)
    takes: dict[int, list[Take]] = defaultdict(list)
    for (label, _), windows in sorted(by_stretch.items()):
        if left[label] < 5:
            continue
        end_s = windows[0].start_s + left[label] + 1e-6
        own = [w for w in windows if w.end_s <= end_s]
        angles = np.array([[w.face_deg, w.tilt_deg] for w in own], np.float32)  # None gives NaN
        embeddings = np.stack([w.embedding for w in own if w.embedding is not None])
        takes[label].append(Take(embeddings, angles[:, 0], angles[:, 1], wearing.placement))
        left[label] -= own[-1].end_s - own[0].start_s
    return takes


def _judge(bundle: Bundle, labels: LabelSet, wearing: _Wearing) -> NDArray[np.int64]:
    """(L, L) of the scored windows of a wearing, decided anew as the pipeline does."""
    import numpy as np

    from edge.posture import PostureEvidence, segment_of

    confusion = np.zeros((len(labels.names),) * 2, np.int64)
    segment = segment_of(wearing.placement)
    for window in wearing.scored:
        p = window.prediction
        assert p.embedding is not None
        evidence = None if p.face_deg is None else PostureEvidence(p.face_deg, p.tilt_deg)
        verdict = labels.judge(p.embedding, bundle.logit_scale, 1, segment, evidence)
        confusion[window.label, int(verdict.posterior.argmax())] += 1
    return confusion


def _by_subject(
    wearings: Sequence[_Wearing], confusions: Sequence[NDArray[np.int64]]
) -> Confusions:
    """Sums over all places that a subject wore the device at."""
    total: Confusions = {}
    for wearing, confusion in zip(wearings, confusions, strict=True):
        there = total.get(wearing.subject)
        total[wearing.subject] = confusion if there is None else there + confusion
    return total


def _of(confusions: Confusions) -> dict[str, Any]:
    """Macro-F1 with its 95 % bootstrap interval over subjects."""
    import numpy as np

    from edge.evaluate import macro_f1

    stacked = np.stack(list(confusions.values()))
    resampled = [macro_f1(stacked[draw].sum(axis=0)) for draw in _draws(len(stacked))]
    return {"macro_f1": macro_f1(stacked.sum(axis=0)), "macro_f1_ci": _interval(resampled)}


def _paired(before: Confusions, after: Confusions) -> dict[str, Any]:
    """The difference of the macro-F1 with its interval over the same subjects, and how many of them
    have less than before."""
    import numpy as np

    from edge.evaluate import macro_f1

    old, new = (np.stack([c[subject] for subject in before]) for c in (before, after))

    def difference(rows: NDArray[np.intp]) -> float:
        return macro_f1(new[rows].sum(axis=0)) - macro_f1(old[rows].sum(axis=0))

    everyone = np.arange(len(old))
    return {
        "difference": difference(everyone),
        "difference_ci": _interval([difference(draw) for draw in _draws(len(old))]),
        "subjects_worse": sum(difference(everyone[k : k + 1]) < 0 for k in everyone),
    }


def _one(
    bundle: Bundle,
    names: list[str],
    wearings: Sequence[_Wearing],
    takes: Sequence[Mapping[int, Sequence[Take]]],
    untaught: Sequence[NDArray[np.int64]],
) -> dict[str, Any]:
    """One label enrolled: differences of its F1 and of the others' mean F1, as means over the
    labels, with intervals over subjects."""
    import numpy as np

    from edge.labels import label_set

    subjects = list(dict.fromkeys(wearing.subject for wearing in wearings))
    # Of each label (S, L, L), over the wearings that show examples of it.
    own_old: dict[int, NDArray[np.int64]] = {}
    own_new: dict[int, NDArray[np.int64]] = {}
    enrolled = sorted({label for own in takes for label in own})
    for label in enrolled:
        old = np.zeros((len(subjects), len(names), len(names)), np.int64)
        new = np.zeros_like(old)
        for wearing, shown, before in zip(wearings, takes, untaught, strict=True):
            if label in shown:
                labels = label_set(names, bundle, {label: shown[label]})
                old[subjects.index(wearing.subject)] += before
                new[subjects.index(wearing.subject)] += _judge(bundle, labels, wearing)
        own_old[label], own_new[label] = old, new

    def differences(rows: NDArray[np.intp]) -> tuple[float, float, dict[int, float]]:
        own, others = {}, []
        for label in enrolled:
            change, is_there = _f1_change(
                own_old[label][rows].sum(axis=0), own_new[label][rows].sum(axis=0)
            )
            if not is_there[label]:
                continue
            own[label] = float(change[label])
            is_there[label] = False
            others.append(float(change[is_there].mean()) if is_there.any() else 0.0)
        return float(np.mean(list(own.values()))), float(np.mean(others)), own

    own, others, by_label = differences(np.arange(len(subjects)))
    drawn = [differences(draw) for draw in _draws(len(subjects))]
    return {
        "own": own,
        "own_ci": _interval([d[0] for d in drawn]),
        "others": others,
        "others_ci": _interval([d[1] for d in drawn]),
        "own_by_label": {names[label]: change for label, change in by_label.items()},
    }


def _f1_change(
    old: NDArray[np.int64], new: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(L,) difference of the F1 of two (L, L) confusion matrices, and which labels truly occur."""
    import numpy as np

    def f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
        total = confusion.sum(axis=0) + confusion.sum(axis=1)
        values: NDArray[np.float64] = 2 * np.diag(confusion) / np.maximum(total, 1)
        return values

    return f1(new) - f1(old), old.sum(axis=1) > 0


def _draws(n: int) -> NDArray[np.intp]:
    """(1000, n) bootstrap draws of n subjects, the same each time."""
    import numpy as np

    return np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))


def _interval(values: Sequence[float]) -> list[float]:
    import numpy as np

    return [float(q) for q in np.quantile(values, [0.025, 0.975])]


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{result['corpus']}: {result['n_windows']} windows of {result['n_subjects']} subjects, "
        f"{len(result['labels'])} labels, bundle {result['bundle']}; 95 % over subjects",
        highlight=False,
    )
    table = Table(
        "seconds", "macro-F1, all enrolled", "difference to 0 s", "subjects worse",
        "one enrolled: its F1", "the others' F1",
    )  # fmt: skip
    for seconds, figures in result["seconds"].items():
        everything = figures["all"]
        row = [seconds, _text(everything["macro_f1"], everything["macro_f1_ci"], "")]
        if "one" in figures:
            one = figures["one"]
            row += [
                _text(everything["difference"], everything["difference_ci"]),
                str(everything["subjects_worse"]),
                _text(one["own"], one["own_ci"]),
                _text(one["others"], one["others_ci"]),
            ]
        table.add_row(*row)
    console.print(table)
    for seconds, figures in result["seconds"].items():
        if "one" in figures:
            gains = figures["one"]["own_by_label"]
            least = min(gains, key=lambda label: gains[label])
            line = f"{seconds} s, one enrolled: least is gained by {least!r}, {gains[least]:+.3f}"
            console.print(line, highlight=False, markup=False)


def _text(value: float, interval: Sequence[float], sign: str = "+") -> str:
    low, high = interval
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


if __name__ == "__main__":
    sys.exit(main())
