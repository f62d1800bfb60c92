"""The diary, on windows that the tests make up: what is said, since when, and what ends it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.diary import GAP_S, MIN_EVENT_S, NOT_WORN_S, STILL_MPS2, Diary, smoothed
from edge.labels import resolve_labels
from edge.moment import Event, Moment
from edge.pipeline import Pipeline, Prediction
from edge.window import every_hop
from edge.zeroshot import Score
from tests.conftest import walk, without

LABELS = ("walking", "sitting", "lying")


def window(
    start_s: float, label: str | None, probability: float = 0.6, motion_mps2: float = 1.0
) -> Prediction:
    """A window that finds a label this probable and the others equally so; None: not valid."""
    if label is None:
        return Prediction(start_s, start_s + 5, False, (), 0.6, 50, 0, None)
    posterior = np.full(len(LABELS), (1 - probability) / (len(LABELS) - 1))
    posterior[LABELS.index(label)] = probability
    best = Score(LABELS[posterior.argmax()], 0.3, float(posterior.max()))
    return Prediction(
        start_s,
        start_s + 5,
        True,
        (best,),
        0.0,
        50,
        0,
        None,
        posterior=posterior,
        motion_mps2=motion_mps2,
    )


def stream(said: str, hop_s: float = 1.0, start_s: float = 0.0) -> list[Prediction]:
    """Windows from a string of initials; "." is not valid, a blank is left out."""
    names = {label[0]: label for label in LABELS}
    return [window(start_s + k * hop_s, names.get(c)) for k, c in enumerate(said) if c != " "]


def kept(predictions: list[Prediction], hop_s: float = 1.0) -> tuple[list[Moment], list[Event]]:
    """All moments, and the events that ended."""
    diary = Diary(LABELS, hop_s)
    moments = [diary.push(p) for p in predictions]
    return moments, [e for m in moments for e in m.events if e.ended] + list(diary.finish())


def labels_of(moments: list[Moment]) -> list[str | None]:
    return [m.label for m in moments]


def flips(said: list[str | None]) -> int:
    return sum(a != b for a, b in pairwise(said))


def test_a_flicker_is_not_said() -> None:
    moments, events = kept(stream("wwwwwwwwwwswwwwwlwwwwwsw"))
    assert set(labels_of(moments)) == {"walking"}
    assert [(e.label, e.start_s, e.end_s) for e in events] == [("walking", 0.0, 28.0)]


def test_a_change_is_said_once_and_its_boundary_lies_before_it() -> None:
    moments, events = kept(stream("w" * 30 + "s" * 30))
    said = labels_of(moments)
    assert flips(said) == 1 and said[0] == "walking" and said[-1] == "sitting"
    told_s = moments[said.index("sitting")].prediction.end_s
    walking, sitting = events
    assert walking.end_s == sitting.start_s < told_s
    # The first window that finds sitting is half of it, so that walking ended in its middle.
    assert sitting.start_s == pytest.approx(32.5, abs=1.5)
    assert told_s - 32.5 < 6
    assert (walking.number, sitting.number) == (1, 2)
    assert sitting.end_s == moments[-1].prediction.end_s


def test_to_leave_a_label_takes_more_than_to_keep_it() -> None:
    """Hysteresis: windows that speak for either label in turn leave what is said as it is."""
    for first, other in (("walking", "sitting"), ("sitting", "walking")):
        agreed = [window(k, first, 0.5) for k in range(20)]
        in_turn = [window(20 + k, (other, first)[k % 2], 0.4) for k in range(80)]
        assert set(labels_of(kept(agreed + in_turn)[0])) == {first}


def test_an_event_lasts_at_least_its_minimum() -> None:
    sure = [window(k, "walking", 0.999) for k in range(20)]
    sure += [window(20 + k, LABELS[k // 2 % 3], 0.9999) for k in range(60)]
    moments, _ = kept(sure)
    said = labels_of(moments)
    assert flips(said) > 5  # it does follow
    ends = [
        m.prediction.end_s for m, (a, b) in zip(moments[1:], pairwise(said), strict=True) if a != b
    ]
    assert min(np.diff(ends)) >= MIN_EVENT_S


def test_confidence_is_the_mean_probability_of_what_is_said() -> None:
    moments, events = kept([window(k, "walking", p) for k, p in enumerate((0.5, 0.7, 0.9))])
    assert [m.confidence for m in moments] == pytest.approx([0.5, 0.6, 0.7])
    assert events[0].confidence == pytest.approx(0.7)


def test_events_grow_from_window_to_window() -> None:
    moments, _ = kept(stream("www"))
    events = [event for m in moments for event in m.events]
    assert [e.end_s for e in events] == [5.0, 6.0, 7.0]
    assert {(e.number, e.start_s, e.label, e.ended) for e in events} == {(1, 0, "walking", False)}


def test_a_short_gap_is_bridged_and_a_long_one_ends_the_event() -> None:
    moments, events = kept(stream("wwww....wwww"))
    assert set(labels_of(moments)) == {"walking"} and len(events) == 1
    assert all(m.events == () for m in moments if not m.prediction.valid)
    moments, events = kept(stream("wwww" + "." * 20 + "wwww"))
    assert [(e.start_s, e.end_s) for e in events] == [(0.0, 8.0), (24.0, 32.0)]
    silent = [m.prediction.end_s for m in moments if m.label is None]
    assert silent == [e for e in np.arange(9.0, 29.0) if e > 8.0 + GAP_S]
    assert all(m.confidence is None for m in moments if m.label is None)


def test_windows_that_are_missing_count_by_time() -> None:
    """Left out or reported as not valid: what comes after a long gap begins anew."""
    left_out, marked = ("wwwwwwww" + c * 20 + "ssss" for c in " .")
    assert kept(stream(left_out))[1] == kept(stream(marked))[1]
    moments, _ = kept(stream(left_out))
    assert labels_of(moments)[8:] == ["sitting"] * 4  # at once


def test_after_a_gap_what_was_before_does_not_count() -> None:
    before = [window(k, "walking", 0.9) for k in range(30)]
    moments, _ = kept([*before, window(50, "sitting", 0.34)])
    assert labels_of(moments)[-2:] == ["walking", "sitting"]


def test_a_clock_that_leaps_back_begins_anew() -> None:
    moments, events = kept(stream("wwwww", start_s=100) + stream("sssss"))
    assert labels_of(moments) == ["walking"] * 5 + ["sitting"] * 5
    assert [(e.start_s, e.end_s) for e in events] == [(100.0, 109.0), (0.0, 9.0)]


def test_nothing_but_gaps() -> None:
    moments, events = kept(stream("....."))
    assert labels_of(moments) == [None] * 5 and events == []
    assert kept([]) == ([], [])


def test_the_same_evidence_decides_at_any_hop() -> None:
    """Overlapping windows say the same again: a change takes about as long at each hop."""
    took = {}
    for hop_s in (0.25, 1.0, 2.5):
        n = round(40 / hop_s)
        moments, _ = kept(stream("w" * n + "s" * n, hop_s), hop_s)
        first = labels_of(moments).index("sitting")
        took[hop_s] = (first - n + 1) * hop_s
    assert max(took.values()) - min(took.values()) <= 2.5, took


@pytest.mark.parametrize("hop_s", [10.0, 60.0, 600.0])
def test_sparse_windows_are_no_gaps(hop_s: float) -> None:
    _, events = kept(stream("wwwwssss", hop_s), hop_s)
    assert [e.label for e in events] == ["walking", "sitting"]
    assert events[0].end_s == events[1].start_s
    assert 3 * hop_s <= events[1].start_s <= 5 * hop_s + 5


def unknown(start_s: float, is_unknown: bool = True) -> Prediction:
    return replace(window(start_s, "walking"), presence=0.2, unknown=is_unknown)


def test_unknown_is_steadied_too() -> None:
    moments, _ = kept([unknown(k, k % 7 == 3) for k in range(40)])
    assert set(labels_of(moments)) == {"walking"}
    moments, events = kept([unknown(k, 20 <= k < 40) for k in range(60)])
    assert [e.label for e in events] == ["walking", "unknown", "walking"]
    assert flips(labels_of(moments)) == 2
    assert events[1].confidence == pytest.approx(1, abs=0.5)


def test_not_worn_takes_long_and_ends_at_once() -> None:
    still = [window(10.0 * k, "lying", 0.6, STILL_MPS2 / 2) for k in range(400)]
    moments, events = kept([*still, window(4000, "walking"), window(4010, "walking")], 10.0)
    said = labels_of(moments)
    first = said.index("not worn")
    assert moments[first].prediction.end_s == pytest.approx(NOT_WORN_S, abs=10)
    assert set(said[:first]) == {"lying"} and set(said[first:400]) == {"not worn"}
    assert "not worn" not in said[400:]
    assert [e.label for e in events[:2]] == ["lying", "not worn"]
    assert moments[first].confidence == events[1].confidence == 1


def test_who_moves_now_and_then_is_worn() -> None:
    nap = [window(10.0 * k, "lying", 0.6, 0.2 if k % 300 == 0 else 0.01) for k in range(1000)]
    assert set(labels_of(kept(nap, 10.0)[0])) == {"lying"}


def test_nothing_that_was_said_is_changed_by_what_comes() -> None:
    rng = np.random.default_rng(3)
    noisy = [window(k, LABELS[i], 0.5) for k, i in enumerate(rng.integers(3, size=120))]
    moments, _ = kept(noisy)
    for n in (1, 17, 60):
        assert kept(noisy[:n])[0] == moments[:n]


def test_chunks_change_nothing(bundle: Bundle) -> None:
    labels = resolve_labels(["walking", "sitting", "lying"], bundle)
    samples = without(walk(60, 50.0), 20.0, 33.0)

    def run(size: int) -> list[tuple[str | None, float | None, tuple[Event, ...]]]:
        pipeline, diary = Pipeline(bundle, labels, every_hop(1.0)), Diary(labels.names, 1.0)
        parts = [samples[k : k + size] for k in range(0, len(samples), size)]
        predictions = [p for part in parts for p in pipeline.push(part)] + pipeline.finish()
        return [(m.label, m.confidence, m.events) for m in map(diary.push, predictions)]

    assert run(7) == run(500) == run(len(samples))


def test_the_smoother_knows_a_change_when_it_comes() -> None:
    predictions = stream("w" * 30 + "s" * 30 + "w" * 30)
    live = labels_of(kept(predictions)[0])
    moments, last = smoothed(predictions, LABELS, 1.0)
    assert live.index("sitting") > labels_of(moments).index("sitting") in (29, 30, 31)
    events = [e for m in moments for e in m.events if e.ended] + list(last)
    assert [e.label for e in events] == ["walking", "sitting", "walking"]
    assert [e.end_s for e in events] == pytest.approx([32.0, 62.0, 94.0], abs=1.5)


def test_the_smoother_takes_a_device_off_when_it_became_still() -> None:
    moved = [window(10.0 * k, "walking") for k in range(50)]
    still = [window(500 + 10.0 * k, "lying", 0.6, 0.01) for k in range(400)]
    moments, last = smoothed([*moved, *still], LABELS, 10.0)
    assert labels_of(moments).index("not worn") == 50
    assert [e.label for e in last] == ["not worn"]
    nap, last = smoothed([*moved, *still[:200]], LABELS, 10.0)
    assert "not worn" not in labels_of(nap)


def test_the_smoother_begins_anew_after_a_gap() -> None:
    moments, last = smoothed(stream("wwww" + "." * 20 + "ssss"), LABELS, 1.0)
    assert labels_of(moments)[:4] == ["walking"] * 4
    assert labels_of(moments)[-4:] == ["sitting"] * 4
    assert moments[20].label is None and [e.start_s for e in last] == [24.0]
    assert smoothed([], LABELS, 1.0) == ([], ())


def test_how_sure_a_bundle_is_of_itself_matters_little() -> None:
    """Probabilities that are flat all the time decide about as soon as sharp ones."""
    took = []
    for probability in (0.37, 0.5, 0.8):
        before = [window(k, "walking", probability) for k in range(300)]
        after = [window(300 + k, "sitting", probability) for k in range(60)]
        took.append(labels_of(kept(before + after)[0]).index("sitting") - 300)
    assert max(took) - min(took) <= 2, took


def test_soft_evidence_that_lasts_is_heard() -> None:
    """The chance of a change may not keep a label that all windows speak against."""
    soft = [window(k, "walking", 0.4) for k in range(30)]
    soft += [window(30 + k, "sitting", 0.37) for k in range(90)]
    assert labels_of(kept(soft)[0])[-1] == "sitting"


def test_two_labels_and_hundreds() -> None:
    for n in (2, 700):
        names = [f"label {k}" for k in range(n)]
        diary = Diary(names, 1.0)
        said = []
        for k in range(60):
            posterior = np.full(n, 0.9 / n)
            posterior[k // 30] += 0.1
            best = Score(names[k // 30], 0.3, float(posterior.max()))
            p = replace(window(k, "walking"), posterior=posterior, top=(best,))
            said.append(diary.push(p).label)
        assert said[0] == "label 0" and said[-1] == "label 1" and flips(said) == 1
