"""The decision: what the specification says, number by number."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.decision import Decision, Footing, LabelDecision, transfer_matrix
from edge.posture import PostureEvidence
from edge.zeroshot import LabelSet
from firmware_bridge.errors import InputError
from tests.conftest import decision_record

POSTURES = ("upright", "upright", "sitting", "lying", None, None)
ROWS = [0, 2, 3, 5]


def manifest() -> dict[str, Any]:
    bank = [{"name": f"a{k}"} | ({"posture": p} if p else {}) for k, p in enumerate(POSTURES)]
    return {"label_bank": bank, "decision": copy.deepcopy(decision_record(ROWS))}


def units(n: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


BANK = units(6, 0)
OUTSIDE = units(1, 1)
LABEL_ROWS = (3, None, 1, 4)
PROTOTYPES = np.stack([BANK[3], OUTSIDE[0], BANK[1], BANK[4]])


def label_set(changed: dict[str, Any] | None = None) -> LabelSet:
    rule = Decision.parse(changed or manifest())
    assert rule is not None
    decision = LabelDecision.between(rule, BANK, PROTOTYPES, LABEL_ROWS)
    return LabelSet(("lying", "outside", "a1", "a4"), PROTOTYPES, ("x",) * 4, decision)


def softmax(z: NDArray[np.floating]) -> NDArray[np.float64]:
    odds = np.exp(np.asarray(z, float) - np.max(z))
    return np.asarray(odds / odds.sum())


def by_the_book(
    embedding: NDArray[np.float32], segment: str, face_deg: float | None, tilt_deg: float | None
) -> NDArray[np.float64]:
    """z of BUNDLE.md, written out; `logit_scale` 10."""
    rule = decision_record(ROWS)
    cosine, a = PROTOTYPES @ embedding, BANK[ROWS]
    c = np.log(softmax(10.0 * cosine))
    v = softmax(rule["vocabulary"]["logit_scale"] * (a @ embedding))
    m = np.stack([softmax(row / rule["bridge"]["temperature"]) for row in a @ PROTOTYPES.T])
    m[ROWS.index(3)] = [1, 0, 0, 0]  # "lying" is a wanted label
    b = np.log(v @ m + 1e-4)
    q = np.zeros((4, 4))
    q[0, 2] = q[2, 0] = q[3, 3] = 1
    for share, posture in zip(softmax(BANK @ OUTSIDE[0] / 0.05), POSTURES, strict=True):
        q[1, ["upright", "sitting", "lying", None].index(posture)] += share
    name, angle = ("face", face_deg) if tilt_deg is None else ("tilt", tilt_deg)
    likelihood = np.zeros(4)
    if angle is not None:
        found = int(np.digitize(angle, rule["posture"][f"{name}_edges_deg"])) - 1
        column = np.array(rule["posture"][name][segment])[:, found]
        likelihood = np.log(q @ np.append(column / column.mean(), 1))
    z = 0.7 * c + 0.3 * b + 2.0 * likelihood
    return np.asarray(z)


@pytest.mark.parametrize(
    ("segment", "face_deg", "tilt_deg"),
    [
        ("trunk", 10.0, None), ("trunk", 10.0, 95.0), ("thigh", 50.0, None), ("thigh", 50.0, 65.0),
        ("unknown", 50.0, 65.0), ("trunk", None, None),
    ],
)  # fmt: skip
def test_the_decision_is_what_the_specification_says(
    segment: str, face_deg: float | None, tilt_deg: float | None
) -> None:
    labels = label_set()
    evidence = None if face_deg is None else PostureEvidence(face_deg, tilt_deg)
    for embedding in units(20, 2):
        z = by_the_book(embedding, segment, face_deg, tilt_deg)
        top = labels.classify(embedding, 10.0, 4, segment, evidence)
        order = np.argsort(-z)
        assert [s.label for s in top] == [labels.names[i] for i in order]
        np.testing.assert_allclose([s.probability for s in top], softmax(z / 1.5)[order], rtol=1e-4)
        cosines = (PROTOTYPES @ embedding)[order]
        np.testing.assert_allclose([s.similarity for s in top], cosines, atol=1e-6)


def rejecting(below: float) -> LabelSet:
    changed = manifest()
    changed["decision"]["reject"] = {"below": below}
    return label_set(changed)


def test_presence_is_what_the_specification_says() -> None:
    scale, a = decision_record(ROWS)["vocabulary"]["logit_scale"], BANK[ROWS]
    nearest = (a @ PROTOTYPES.T).max(axis=1)
    assert nearest[ROWS.index(3)] == pytest.approx(1) and nearest.min() < 0.6
    plain = label_set()
    for embedding in units(20, 2):
        presence = softmax(scale * (a @ embedding)) @ nearest
        verdict = plain.judge(embedding, 10.0, 4, "trunk", PostureEvidence(10, 95))
        assert verdict.presence == pytest.approx(presence, rel=1e-4)
        assert verdict.presence is not None and not verdict.unknown
        above = rejecting(float(np.nextafter(verdict.presence, 1))).judge(embedding, 10.0, 4)
        assert above.unknown and above.presence == verdict.presence
        assert above.top == plain.classify(embedding, 10.0, 4)  # the forced choice stays
        assert not rejecting(verdict.presence).judge(embedding, 10.0, 4).unknown


def test_presence_falls_when_what_is_done_is_no_label() -> None:
    rule = Decision.parse(manifest())
    assert rule is not None
    of_lying = []
    for wanted in ([0, 1, 2, 3], [1, 2, 3]):
        prototypes = PROTOTYPES[wanted]
        decision = LabelDecision.between(rule, BANK, prototypes, [LABEL_ROWS[k] for k in wanted])
        labels = LabelSet(tuple(map(str, wanted)), prototypes, (), decision)
        of_lying.append(labels.judge(BANK[3], 10.0, 1).presence)
    asked_for, left_out = of_lying
    assert asked_for is not None and left_out is not None
    assert asked_for > 0.9 and left_out < 0.7


def test_posture_can_overrule_the_cosine() -> None:
    """Without evidence "a1" (upright) is ahead of "lying"; lying down turns that round."""
    changed = manifest()
    changed["decision"]["bridge"]["weight"] = 0
    labels, between = label_set(changed), 1.1 * PROTOTYPES[2] + PROTOTYPES[0]
    embedding = between / np.linalg.norm(between)
    assert labels.classify(embedding, 10.0, 1, "trunk")[0].label == "a1"
    top = labels.classify(embedding, 10.0, 1, "trunk", PostureEvidence(10, 95))
    assert top[0].label == "lying"
    assert top[0].similarity < embedding @ PROTOTYPES[2]


def test_without_a_decision_it_is_the_softmax_of_the_cosines() -> None:
    labels = LabelSet(("a", "b", "c", "d"), PROTOTYPES, ("x",) * 4)
    for embedding in units(5, 3):
        cosine = (PROTOTYPES @ embedding).astype(np.float64)
        odds = np.exp(20.0 * (cosine - cosine.max()))
        order = np.argsort(-cosine, kind="stable")
        got = labels.classify(embedding, 20.0, 4, "trunk", PostureEvidence(10, 95))
        assert [tuple(s) for s in got] == [
            (labels.names[i], cosine[i], (odds / odds.sum())[i]) for i in order
        ]
        assert labels.judge(embedding, 20.0, 4)[:3] == (got, None, False)  # presence is not known


REFERENCE = units(200, 4)


def test_novel_labels_are_levelled_as_the_specification_says() -> None:
    """ "outside", "a1" and "a4" were not trained, "lying" was. A novel label that comes close to
    every window is no longer ahead."""
    changed = manifest()
    changed["decision"]["level_novel_labels"] = True
    rule = Decision.parse(changed)
    assert rule is not None
    reference = REFERENCE + 1.5 * PROTOTYPES[1]  # a hub: every embedding comes close to "outside"
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    decision = LabelDecision.between(rule, BANK, PROTOTYPES, LABEL_ROWS, reference)
    labels = LabelSet(("lying", "outside", "a1", "a4"), PROTOTYPES, (), decision)
    usual, trained = reference @ PROTOTYPES.T, reference @ BANK[ROWS].T
    evidence = PostureEvidence(10.0, 95.0)
    for embedding in units(20, 2):
        cosine = PROTOTYPES @ embedding
        levelled = (cosine - usual.mean(0)) / usual.std(0) * np.median(trained.std(0))
        levelled = np.where(
            [True, False, False, False], cosine, levelled + np.median(trained.mean(0))
        )
        s, c = (np.log(softmax(10.0 * x)) for x in (levelled, cosine))
        expected = softmax((by_the_book(embedding, "trunk", *evidence) + 0.7 * (s - c)) / 1.5)
        got = labels.classify(embedding, 10.0, 4, "trunk", evidence)
        for name, similarity, probability in got:
            label = labels.names.index(name)
            assert probability == pytest.approx(expected[label], rel=1e-4)
            assert similarity == pytest.approx(cosine[label], abs=1e-6)
    of_a4 = reference[np.argmax(usual[:, 3])]  # of all windows the most of the last label
    assert label_set().classify(of_a4, 10.0, 1)[0].label == "outside"
    assert labels.classify(of_a4, 10.0, 1)[0].label != "outside"
    with pytest.raises(ValueError, match="needs reference embeddings"):
        LabelDecision.between(rule, BANK, PROTOTYPES, LABEL_ROWS)


def test_a_prototype_at_right_angles_to_everything_gives_no_nan() -> None:
    level = np.zeros((3, 4), np.float32)
    level[:, 0] = 1
    axes = np.eye(4, dtype=np.float32)
    footing = Footing.of(level, axes[:2], axes[2:])
    assert np.isfinite(footing.gain).all() and np.isfinite(footing.offset).all()


def test_the_vocabulary_is_left_alone_where_nothing_asks_for_it() -> None:
    """Weight 0 and no threshold: the decision of a rule that asks, without its presence."""
    changed = manifest()
    changed["decision"]["bridge"]["weight"] = 0
    silent = label_set(changed)
    changed["decision"]["reject"] = {"below": -1.0}
    asking = label_set(changed)
    for embedding in units(20, 5):
        got, full = (
            x.judge(embedding, 10.0, 4, "trunk", PostureEvidence(10, 95)) for x in (silent, asking)
        )
        assert got.presence is None and full.presence is not None and not full.unknown
        assert [s.label for s in got.top] == [s.label for s in full.top]
        np.testing.assert_allclose([s[1:] for s in got.top], [s[1:] for s in full.top], rtol=1e-9)


def test_weights_of_nothing_leave_the_cosine() -> None:
    changed = manifest()
    changed["decision"]["bridge"]["weight"] = changed["decision"]["posture"]["weight"] = 0
    changed["decision"]["temperature"] = 1
    labels, plain = label_set(changed), LabelSet(("lying", "outside", "a1", "a4"), PROTOTYPES, ())
    for embedding in units(5, 4):
        got = labels.classify(embedding, 10.0, 4, "trunk", PostureEvidence(10, 95))
        expected = plain.classify(embedding, 10.0, 4)
        assert [s.label for s in got] == [s.label for s in expected]
        np.testing.assert_allclose(
            [s.probability for s in got], [s.probability for s in expected], rtol=1e-5
        )


def test_the_same_activity_is_found_in_prototypes_stored_as_float16() -> None:
    rough = units(50, 5).astype(np.float16).astype(np.float32) * np.float32(0.99)
    shares = transfer_matrix(rough, rough[[7, 3]], 0.5)
    np.testing.assert_allclose(shares[7], [1, 0])
    np.testing.assert_allclose(shares[3], [0, 1])
    assert 0.05 < shares[0, 0] < 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(decision=[]), "decision: expected an object"),
        (lambda m: m["decision"].pop("bridge"), r"decision\.bridge: expected an object"),
        (lambda m: m["decision"]["vocabulary"].update(rows=[]), r"vocabulary\.rows: .* \(0 to 5\)"),
        (lambda m: m["decision"]["vocabulary"].update(rows=[6]), r"vocabulary\.rows"),
        (lambda m: m["decision"]["vocabulary"].update(rows=[-1]), r"vocabulary\.rows"),
        (lambda m: m["decision"]["vocabulary"].update(rows=[1, 1]), r"vocabulary\.rows"),
        (lambda m: m["decision"]["vocabulary"].update(rows=[True]), r"vocabulary\.rows"),
        (lambda m: m["decision"]["vocabulary"].update(logit_scale=0), r"logit_scale: .* above 0"),
        (lambda m: m["decision"]["bridge"].update(weight=1.5), "weight: .* up to 1, found 1.5"),
        (lambda m: m["decision"]["bridge"].update(weight=-0.1), r"bridge\.weight: .* 0 or more"),
        (lambda m: m["decision"]["bridge"].update(temperature=0), r"bridge\.temperature: .* 0"),
        (lambda m: m["decision"]["posture"].pop("weight"), r"posture\.weight: .*found None"),
        (lambda m: m["decision"]["posture"].update(weight="2"), r"posture\.weight: .*found '2'"),
        (lambda m: m["decision"].update(temperature=float("nan")), r"decision\.temperature: "),
        (lambda m: m["decision"].update(reject=None), r"decision\.reject: expected an object"),
        (lambda m: m["decision"].update(reject={}), r"reject\.below: .* -1 to 1, found None"),
        (lambda m: m["decision"].update(reject={"below": 1.1}), r"reject\.below: .* found 1\.1"),
        (lambda m: m["decision"].update(reject={"below": True}), r"reject\.below: .* found True"),
        (lambda m: m["decision"].update(reject={"below": float("nan")}), r"below: .* found nan"),
        (lambda m: m["label_bank"][4].update(posture="kneeling"), "'a4': posture 'kneeling' is"),
    ],
)  # fmt: skip
def test_a_malformed_decision(change: Callable[[dict[str, Any]], object], message: str) -> None:
    record = manifest()
    assert Decision.parse(record) is not None
    change(record)
    with pytest.raises(InputError, match=message):
        Decision.parse(record)
