"""The whole path, on the shipped bundle: independent of chunking, honest about gaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest

from edge.bundle import Bundle
from edge.labels import resolve_labels
from edge.pipeline import Pipeline, Prediction
from edge.zeroshot import LabelSet
from firmware_bridge.errors import InputError
from firmware_bridge.samples import Samples
from tests.conftest import walk, without


@pytest.fixture
def labels(bundle: Bundle) -> LabelSet:
    return resolve_labels(["walking", "sitting", "swimming"], bundle)


def stream(
    bundle: Bundle,
    labels: LabelSet,
    samples: Samples,
    chunks: list[int],
    placement: str | None = None,
) -> list[Prediction]:
    pipeline, start = Pipeline(bundle, labels, placement=placement), 0
    predictions: list[Prediction] = []
    for size in cycle(chunks):
        predictions += pipeline.push(samples[start : start + size])
        start += size
        if start >= len(samples):
            return predictions + pipeline.finish()
    raise AssertionError


@pytest.mark.parametrize("rate_hz", [52, 416])
def test_the_result_does_not_depend_on_the_chunks(
    bundle: Bundle, labels: LabelSet, rate_hz: float
) -> None:
    samples = without(walk(20, rate_hz, jitter=0.2), 8.0, 9.5)
    offline = stream(bundle, labels, samples, [len(samples)])
    for chunks in ([1], [4], [17, 1, 300]):
        live = stream(bundle, labels, samples, chunks)
        assert len(live) == len(offline) == 16
        for a, b in zip(live, offline, strict=True):
            assert (a.start_s, a.end_s, a.valid, a.missing, a.top) == (
                b.start_s, b.end_s, b.valid, b.missing, b.top
            )  # fmt: skip
            assert a.rate_hz == b.rate_hz
            if a.valid:
                np.testing.assert_array_equal(a.embedding, b.embedding)


def walk_then_lie() -> Samples:
    """20 s of walking, then 15 s with the device turned by 90 degrees, at 52 Hz."""
    moving, resting = walk(20, 52), walk(15, 52, seed=1).shifted(20)
    still = np.random.default_rng(0).normal(0, 0.05, resting.acc_mps2.shape)
    still[:, 1] += 9.8
    resting = Samples(resting.t_s, still, resting.gyro_rads)
    return Samples.joined([moving, resting])


def test_the_decision_does_not_depend_on_the_chunks(deciding: Bundle) -> None:
    labels = resolve_labels(["walking", "sitting", "lying"], deciding)
    samples = without(walk_then_lie(), 16.0, 16.5)
    offline = stream(deciding, labels, samples, [len(samples)], "waist")
    assert sum(p.tilt_deg is not None for p in offline) > 12
    for chunks in ([1], [17, 1, 300]):
        live = stream(deciding, labels, samples, chunks, "waist")
        assert len(live) == len(offline) == 31
        for a, b in zip(live, offline, strict=True):
            assert (a.top, a.tilt_deg, a.face_deg) == (b.top, b.tilt_deg, b.face_deg)


def test_the_tilt_is_known_once_walking_was_seen(plain: Bundle, labels: LabelSet) -> None:
    """In every bundle, whatever it decides by; a window that turns over has no direction."""
    by_start = {round(p.start_s): p for p in stream(plain, labels, walk_then_lie(), [26])}
    assert all(by_start[k].tilt_deg is None for k in range(6))  # 8 steps: 4 s to 11 s
    assert by_start[6].tilt_deg == pytest.approx(0, abs=3)
    assert by_start[6].face_deg == pytest.approx(90, abs=5)
    assert by_start[18].tilt_deg is None and by_start[18].face_deg is None
    assert by_start[29].tilt_deg == pytest.approx(90, abs=3)
    assert by_start[29].face_deg == pytest.approx(0, abs=3)


def test_walking_outside_the_spans_is_seen_too(plain: Bundle, labels: LabelSet) -> None:
    pipeline = Pipeline(plain, labels, iter([(5000, 6000)]))
    (prediction,) = pipeline.push(walk_then_lie()) + pipeline.finish()
    assert prediction.tilt_deg == pytest.approx(90, abs=3)


def test_the_placement_and_the_posture_decide(deciding: Bundle) -> None:
    labels = resolve_labels(["walking", "sitting", "lying"], deciding)

    def lying(placement: str | None) -> float:
        last = stream(deciding, labels, walk_then_lie(), [len(walk_then_lie())], placement)[-1]
        return next(s.probability for s in last.top if s.label == "lying")

    assert lying("belt") > lying(None) + 0.05
    assert lying("on the moon") == lying(None) == lying("wrist")  # its tables are flat


def test_what_fits_no_label_is_unknown(deciding: Bundle) -> None:
    labels = resolve_labels(["sitting", "swimming"], deciding)
    samples = without(walk(20, 50), 8.0, 11.0)
    forced = stream(deciding, labels, samples, [50])
    presences = [p.presence for p in forced if p.presence is not None]
    assert not any(p.unknown for p in forced)
    assert [p.presence is not None for p in forced] == [p.valid for p in forced]
    assert labels.decision is not None
    rule = replace(labels.decision.rule, reject_below=float(np.median(presences)))
    rejecting = replace(labels, decision=replace(labels.decision, rule=rule))
    judged = stream(deciding, rejecting, samples, [50])
    assert sum(p.unknown for p in judged) == len(presences) // 2 > 0
    for a, b in zip(judged, forced, strict=True):
        assert (a.top, a.presence) == (b.top, b.presence)
        assert a.label == ("unknown" if a.unknown else b.label)
        assert a.valid or (a.label is None and not a.unknown)


def test_windows_come_as_soon_as_they_are_complete(bundle: Bundle, labels: LabelSet) -> None:
    """At 50 Hz a window is out two samples after its end: the resampler's look-ahead."""
    pipeline, out_at_s = Pipeline(bundle, labels), []
    samples = walk(8, 50)
    for k in range(len(samples)):
        out_at_s += [samples.t_s[k] for _ in pipeline.push(samples[k : k + 1])]
    assert out_at_s == pytest.approx([5.02, 6.02, 7.02], abs=0.021)


def test_probabilities_and_similarities(plain: Bundle) -> None:
    labels = resolve_labels(["walking", "sitting", "swimming"], plain)
    for p in stream(plain, labels, walk(10, 50), [25]):
        assert [s.label for s in p.top] == [
            s.label for s in sorted(p.top, key=lambda s: -s.similarity)
        ]
        assert sum(s.probability for s in p.top) == pytest.approx(1)
        assert p.embedding is not None
        row = labels.names.index(p.top[0].label)
        assert p.top[0].similarity == pytest.approx(
            float(labels.prototypes[row] @ p.embedding), abs=1e-6
        )
        ratio = p.top[0].probability / p.top[1].probability
        gap = p.top[0].similarity - p.top[1].similarity
        assert ratio == pytest.approx(np.exp(plain.logit_scale * gap))


def test_gaps_are_reported_and_not_classified(bundle: Bundle, labels: LabelSet) -> None:
    predictions = stream(bundle, labels, without(walk(20, 50), 8.0, 11.0), [50])
    bad = [p for p in predictions if not p.valid]
    assert bad and all(p.top == () and p.embedding is None and p.missing > 0.2 for p in bad)
    assert all(p.missing <= 0.2 and p.best for p in predictions if p.valid)
    # The gap is from 7.98 s to 11 s: the window from 4 s has 1.015 s of it, that from 10 s 0.995 s.
    assert [p.start_s for p in bad] == [4, 5, 6, 7, 8, 9]


def test_the_measured_rate_is_the_sources_own(bundle: Bundle, labels: LabelSet) -> None:
    for p in stream(bundle, labels, without(walk(20, 52), 8.0, 8.9), [10]):
        assert p.rate_hz == pytest.approx(52, rel=0.03)


def test_an_accelerometer_alone_is_enough(bundle: Bundle, labels: LabelSet) -> None:
    samples = walk(8, 50)
    predictions = stream(bundle, labels, Samples(samples.t_s, samples.acc_mps2, None), [10])
    assert len(predictions) == 4 and all(p.valid for p in predictions)


def test_a_gyroscope_that_vanishes_is_an_error_after_all_that_was_measured(
    bundle: Bundle, labels: LabelSet
) -> None:
    samples, pipeline = walk(8, 50), Pipeline(bundle, labels)
    predictions = pipeline.push(samples[:260]) + pipeline.push(samples[260:280])
    alone = Samples(samples.t_s[280:], samples.acc_mps2[280:], None)
    predictions += pipeline.push(alone)
    assert [p.start_s for p in predictions] == [0]
    with pytest.raises(InputError, match="gyroscope disappeared"):
        pipeline.finish()


def test_samples_without_a_usable_stamp_do_not_stop_the_stream(
    bundle: Bundle, labels: LabelSet
) -> None:
    samples = walk(8, 50)
    t = samples.t_s.copy()
    t[100], t[200] = np.nan, t[199]
    predictions = stream(bundle, labels, Samples(t, samples.acc_mps2, samples.gyro_rads), [7])
    assert len(predictions) == 4 and all(p.valid for p in predictions)
