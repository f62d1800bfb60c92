"""Postures come back from corpora with known angles; weights are chosen where they help."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

import training.fit_decision
import training.heldout
from edge.decision import Decision
from edge.posture import POSTURES, SEGMENTS, PostureEvidence
from edge.spec import CHANNELS
from firmware_bridge.errors import InputError
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2
from tests.conftest import walk
from tests.training.conftest import HashedText
from training.__main__ import main
from training.fit_decision import (
    _POSTURE_WEIGHTS,
    _calibration_error,
    _left_out,
    _Parts,
    _temperature,
    choose,
    fit_rejection,
)
from training.heldout import Choice, Heldout, decision_record
from training.model import EncoderConfig, ImuEncoder
from training.posture_tables import Angles, _nested_weights, angles_of, fit_tables
from training.protocols.corpora import Library
from training.run import CHECKPOINT_VERSION, TrainConfig

QUIET = Console(file=io.StringIO())
RATE_HZ = 50.0

POSES = {"walking": (0.0, 0.0), "standing": (5.0, 0.0), "sitting": (75.0, 0.0), "lying": (95.0, 1)}
"""Tilt from upright in degrees; and whether the device tips on its face or on its edge."""


def direction(tilt_deg: float, on_face: float) -> NDArray[np.float64]:
    sine, cosine = np.sin(np.radians(tilt_deg)), np.cos(np.radians(tilt_deg))
    return np.array([sine * (1 - on_face), cosine, sine * on_face])


def pose(label: str, seed: int) -> NDArray[np.float64]:
    """(n, 6) 20 s: steps while walking, else noise."""
    rng = np.random.default_rng(seed)
    steps = walk(20, RATE_HZ, seed=seed)
    assert steps.gyro_rads is not None
    imu = np.hstack([steps.acc_mps2, steps.gyro_rads])
    imu[:, 2] -= STANDARD_GRAVITY_MPS2
    if label != "walking":
        imu = rng.normal(0, 0.03, imu.shape)
    imu[:, :3] += STANDARD_GRAVITY_MPS2 * direction(*POSES.get(label, (40.0, 0.5)))
    return imu


def write_poses(
    folder: Path,
    labels: tuple[str, ...] = tuple(POSES),
    placement: str = "left thigh",
    role: str = "train",
    n_subjects: int = 2,
) -> Path:
    """A corpus whose subjects do one thing after another for 20 s."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    steps = np.array([0.01] * 3 + [0.002] * 3)
    length = round(20 * RATE_HZ)
    counts = [pose(label, s) / steps for s in range(n_subjects) for label in labels]
    samples = np.round(np.vstack(counts)).astype(np.int16)
    n = np.arange(n_subjects)
    recordings = {
        "recording": n,
        "subject": [f"s{s}" for s in n],
        "session": ["day"] * n_subjects,
        "placement": [placement] * n_subjects,
        "rate_hz": [RATE_HZ] * n_subjects,
        "offset": n * length * len(labels),
        "length": [length * len(labels)] * n_subjects,
    }
    segments = {
        "recording": np.repeat(n, len(labels)),
        "start": np.tile(np.arange(len(labels)) * length, n_subjects),
        "stop": np.tile(np.arange(len(labels)) * length + length, n_subjects),
        "label": list(labels) * n_subjects,
    }
    folder.mkdir(parents=True)
    parquet.write_table(
        table(dict(zip(CHANNELS, samples.T, strict=True))), folder / "samples.parquet"
    )
    parquet.write_table(table(recordings), folder / "recordings.parquet")
    parquet.write_table(table(segments), folder / "segments.parquet")
    info = {"name": folder.name, "role": role, "acc_step": 0.01, "gyro_step": 0.002}
    (folder / "corpus.json").write_text(json.dumps(info))
    return folder


def angles(folder: Path, cache: Path) -> Angles:
    library = Library(cache, QUIET)
    return angles_of(library.windows(folder, "train"), library.kept(folder))


def rows(tables: dict[str, Any], angle: str, segment: str) -> dict[str, NDArray[np.float64]]:
    table = np.array(tables[angle][segment])
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-4)
    assert (table > 0.004).all()
    return dict(zip(POSTURES, table, strict=True))


def test_known_angles_come_back(tmp_path: Path) -> None:
    seen = angles(write_poses(tmp_path / "poses"), tmp_path / "cache")
    assert set(seen.segment) == {"thigh"} and seen.gait.any() and not seen.gait.all()
    tables = fit_tables([seen])
    assert tables["postures"] == list(POSTURES) and set(tables["tilt"]) == set(SEGMENTS)
    tilt, face = rows(tables, "tilt", "thigh"), rows(tables, "face", "thigh")
    assert {p: int(row.argmax()) for p, row in tilt.items()} == {
        "upright": 0,
        "sitting": 7,
        "lying": 9,
    }
    assert face["sitting"].argmax() == face["upright"].argmax() == 0
    assert face["lying"].argmax() == 8
    assert 0.3 < tilt["sitting"][7] < 0.45  # a Gaussian of 10 degrees keeps 0.4 of a bin of 10


def test_what_was_not_seen_claims_little(tmp_path: Path) -> None:
    thigh = angles(write_poses(tmp_path / "thigh"), tmp_path / "cache")
    walks = angles(
        write_poses(tmp_path / "shank", ("walking",), placement="ankle"), tmp_path / "cache"
    )
    tables = fit_tables([thigh, walks])
    of_thigh, shank, arm, unknown = (
        rows(tables, "tilt", s) for s in ("thigh", "shank", "arm", "unknown")
    )
    for posture in POSTURES:
        np.testing.assert_allclose(arm[posture], unknown[posture])  # nothing of its own
    np.testing.assert_allclose(unknown["sitting"], of_thigh["sitting"])
    half = (shank["upright"] + of_thigh["sitting"]) / 2
    np.testing.assert_allclose(shank["sitting"], half, atol=1e-5)
    only_walks = rows(fit_tables([walks]), "tilt", "thigh")
    np.testing.assert_allclose(only_walks["lying"], only_walks["upright"])  # no angle says a thing
    np.testing.assert_allclose(rows(fit_tables([]), "face", "arm")["lying"], 1 / 9, atol=1e-5)


def test_without_gait_there_is_no_tilt(tmp_path: Path) -> None:
    seen = angles(write_poses(tmp_path / "still", ("standing", "lying")), tmp_path / "cache")
    assert len(seen.face_deg) and np.isnan(seen.tilt_deg).all()


def test_nothing_drowns_the_others() -> None:
    #          gait,  corpus, activity, wearer
    windows = [("no", "a", "standing", "s1")] * 98
    windows += [("no", "a", "queueing", "s1"), ("no", "b", "standing", "s1")]
    windows += [("yes", "a", "walking", "s1")] * 3 + [("yes", "a", "walking", "s2")]
    weight = _nested_weights(np.array(windows).T)
    assert weight.sum() == pytest.approx(1)
    assert weight[:98].sum() == pytest.approx(0.5 / 2 / 2) == pytest.approx(weight[98])
    assert weight[99] == pytest.approx(0.5 / 2)
    assert weight[100:103].sum() == pytest.approx(0.5 / 2) == pytest.approx(weight[103])


def write_checkpoint(folder: Path, corpora: tuple[str, ...] = ("mini",)) -> Path:
    """A checkpoint that says what it was trained on, and was not."""
    torch.manual_seed(0)
    encoder = EncoderConfig(patch_samples=100, width=32, heads=2, blocks=1)
    config = TrainConfig(corpora=corpora, text_encoder="hashed", steps=1, encoder=encoder)
    state = {
        "version": CHECKPOINT_VERSION,
        "config": asdict(config),
        "step": 1,
        "model": ImuEncoder(encoder).state_dict(),
        "log_logit_scale": torch.tensor(2.7),
        "reference": nn.functional.normalize(torch.randn(50, 512), dim=1).half(),
        "provenance": {
            "corpora": [Path(c).name for c in corpora],
            "activities": ["juggling torches", "lying", "sitting", "walking"],
        },
    }
    folder.mkdir(parents=True)
    torch.save(state, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.heldout, "load_text_encoder", lambda name: HashedText())


def fit(tmp_path: Path, *arguments: object) -> int:
    where = ["--out", tmp_path / "decision.json", "--cache", tmp_path / "cache"]
    return main(["fit-decision", *map(str, [*arguments, *where])])


def test_the_command_chooses_on_what_was_held_out(tmp_path: Path, hashed: None) -> None:
    tables = [write_poses(tmp_path / "a"), write_poses(tmp_path / "held")]
    checkpoint = write_checkpoint(tmp_path / "run")
    assert fit(tmp_path, *tables, "--heldout", f"{checkpoint}:{tables[1]}") == 0
    decision = json.loads((tmp_path / "decision.json").read_text())
    evidence = decision["evidence"]
    assert evidence["fitted_on"] == ["a", "held"]
    (held,) = evidence["heldout"]
    assert held["corpus"] == "held" and held["trained_on"] == ["mini"] and held["windows"] == 56
    # An encoder that was never trained knows nothing: gravity does.
    assert decision["posture"]["weight"] > 0
    assert decision["logit_scale"] == pytest.approx(np.exp(2.7), abs=1e-3)  # the checkpoint's
    f1 = evidence["macro_f1"]
    assert f1["posture"] > f1["cosine"] + 0.2 and f1["posture"] >= f1["bridge"]
    assert evidence["ece"]["after"] <= evidence["ece"]["before"] + 0.02
    assert [c["placement"] for c in evidence["cells"]] == ["left thigh"]
    # No label has the 20 windows to be left out: nothing is known of the unknown.
    assert evidence["rejection"]["auroc"] is None and "reject" not in decision
    # The runtime takes it, once a bundle has filled in the rows.
    decision["vocabulary"]["rows"] = [0]
    bank = [{"name": "walking", "posture": "upright"}]
    assert Decision.parse({"label_bank": bank, "decision": decision}) is not None


@pytest.mark.parametrize(("auroc", "reject"), [(0.6, {"below": 0.25}), (0.59, None)])
def test_a_threshold_ships_only_where_presence_tells(
    tmp_path: Path,
    hashed: None,
    monkeypatch: pytest.MonkeyPatch,
    auroc: float,
    reject: dict[str, float] | None,
) -> None:
    figures = {"auroc": auroc, "below": 0.25}
    monkeypatch.setattr(training.fit_decision, "choose", lambda *_: (Choice(), {}))
    monkeypatch.setattr(training.fit_decision, "fit_rejection", lambda *_: figures)
    held = write_poses(tmp_path / "held")
    checkpoint = write_checkpoint(tmp_path / "run")
    assert fit(tmp_path, held, "--heldout", f"{checkpoint}:{held}") == 0
    decision = json.loads((tmp_path / "decision.json").read_text())
    assert decision.get("reject") == reject and decision["evidence"]["rejection"] == figures


def test_without_a_held_out_corpus_only_the_posture_counts(tmp_path: Path) -> None:
    assert fit(tmp_path, write_poses(tmp_path / "a")) == 0
    decision = json.loads((tmp_path / "decision.json").read_text())
    assert decision["bridge"]["weight"] == 0 and decision["posture"]["weight"] == 1
    assert decision["temperature"] == 1 and decision["evidence"]["heldout"] == []
    assert "reject" not in decision and "rejection" not in decision["evidence"]
    assert "logit_scale" not in decision  # the one that training learned stays


def test_a_label_outside_the_bank_and_falls(
    tmp_path: Path, hashed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.heldout, "label_bank", lambda: training.captions.label_bank()[:30])
    labels = ("walking", "lying", "forward fall", "levitating")
    corpus = write_poses(tmp_path / "odd", labels)
    checkpoint = write_checkpoint(tmp_path / "run")
    fitting = training.heldout.Fitting(Library(tmp_path / "cache", QUIET), QUIET)
    (heldout,) = fitting.heldout(f"{checkpoint}:{corpus}", [])
    assert heldout.labels == ("levitating", "lying", "walking")  # a fall is not scored
    assert heldout.rows[0] is None and None not in heldout.rows[1:]
    assert len(heldout.bank) > 30  # all of the bank, to guess a posture by


@pytest.mark.parametrize("held_out", [False, True])
def test_a_benchmark_is_refused(
    tmp_path: Path, hashed: None, capsys: pytest.CaptureFixture[str], held_out: bool
) -> None:
    benchmark = write_poses(tmp_path / "bench", role="benchmark")
    arguments: list[object] = [benchmark]
    if held_out:
        checkpoint = write_checkpoint(tmp_path / "run")
        arguments = [write_poses(tmp_path / "a"), "--heldout", f"{checkpoint}:{benchmark}"]
    assert fit(tmp_path, *arguments) != 0
    assert "its role is 'benchmark'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "decision.json").exists()


def test_a_checkpoint_without_its_reference_is_refused(
    tmp_path: Path, hashed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, corpus = write_checkpoint(tmp_path / "run"), write_poses(tmp_path / "held")
    state = torch.load(checkpoint)
    del state["reference"]
    torch.save(state, checkpoint)
    assert fit(tmp_path, corpus, "--heldout", f"{checkpoint}:{corpus}") == 2
    assert "holds no reference embeddings" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_that_knows_the_corpus_is_refused(
    tmp_path: Path, hashed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_poses(tmp_path / "known")
    checkpoint = write_checkpoint(tmp_path / "run", ("elsewhere/known", "mini"))
    assert fit(tmp_path, corpus, "--heldout", f"{checkpoint}:{corpus}") != 0
    assert "was trained on known" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("text", ["checkpoint.pt", "checkpoint.pt:", ":corpus"])
def test_held_out_corpora_need_a_checkpoint(tmp_path: Path, text: str) -> None:
    fitting = training.heldout.Fitting(Library(tmp_path, QUIET), QUIET)
    with pytest.raises(InputError, match="expected CHECKPOINT:CORPUS"):
        list(fitting.heldout(text, []))


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def made_up(
    embeddings: NDArray[np.float32],
    truth: NDArray[np.int64],
    prototypes: NDArray[np.float32],
    vocabulary: NDArray[np.float32],
    evidence: tuple[PostureEvidence | None, ...],
    reference: NDArray[np.float32] | None = None,
) -> Heldout:
    """Windows of three labels, one of each posture, with what the encoder was trained on."""
    tables = fit_tables([])
    low = [0.8, *[0.2 / 17] * 17]
    tables["tilt"]["thigh"] = [np.roll(low, 6 * p).tolist() for p in range(len(POSTURES))]
    record = decision_record(tables, Choice(), 10.0)
    n = len(prototypes)
    record["vocabulary"]["rows"] = list(range(n, n + len(vocabulary)))
    names = [{"name": str(i), "posture": p} for i, p in enumerate(POSTURES)]
    names += [{"name": f"v{i}", "posture": None} for i in range(len(vocabulary))]
    rule = Decision.parse({"label_bank": names, "decision": record})
    assert rule is not None
    bank = np.concatenate([prototypes, vocabulary])
    labels = tuple(map(str, range(n)))
    placement = np.array(["thigh", "left thigh"])[np.arange(len(truth)) % 2]
    return Heldout(
        "made up",
        ("others",),
        1,
        10.0,
        rule,
        bank,
        labels,
        (0, 1, 2),
        prototypes,
        embeddings,
        truth,
        placement,
        evidence,
        REFERENCE if reference is None else reference,
    )


def axes(*numbers: int) -> NDArray[np.float64]:
    return np.eye(16)[list(numbers)]


TRUTH = np.tile([0, 1, 2], 60)
LABELS, TRAINED = axes(0, 1, 2), 0.5 * axes(0, 1, 2) + axes(5, 6, 7)


REFERENCE = unit(np.random.default_rng(3).normal(size=(300, 16)))
"""No label is closer to these than another."""


def noisy(vectors: NDArray[np.float64], noise: float = 0.05) -> NDArray[np.float32]:
    return unit(vectors + np.random.default_rng(0).normal(0, noise, vectors.shape))


def test_everyday_labels_are_a_label_set_of_their_own() -> None:
    """Of five labels, three that say how one moves or rests; their windows, and no others."""
    names = ("playing chess", "walking", "typing", "sitting", "lying")
    truth = np.tile(np.arange(5), 20)
    whole = replace(
        made_up(
            noisy(np.eye(16)[truth]), truth, unit(np.eye(16)[:3]), unit(TRAINED), (None,) * 100
        ),
        labels=names,
        rows=(4, 0, 3, 1, 2),
        prototypes=unit(np.eye(16)[:5]),
    )
    everyday = whole.everyday()
    assert everyday is not None
    assert (everyday.label_set, everyday.labels) == ("everyday", ("walking", "sitting", "lying"))
    assert everyday.rows == (0, 1, 2) and len(everyday.evidence) == 60
    np.testing.assert_array_equal(everyday.prototypes, whole.prototypes[[1, 3, 4]])
    np.testing.assert_array_equal(everyday.embeddings.argmax(axis=1), np.tile([1, 3, 4], 20))
    np.testing.assert_array_equal(everyday.truth, np.tile([0, 1, 2], 20))
    assert everyday.macro_f1(everyday.embeddings[:, [1, 3, 4]]) == [1, 1]
    assert everyday.everyday() is None  # it is all everyday already
    assert replace(whole, labels=("a", "b", "c", "sitting", "lying")).everyday() is None


def test_novel_labels_are_levelled_where_one_is_a_hub() -> None:
    """All windows come close to the first label, whatever they show; none of them was trained."""
    hub = 2.0 * LABELS[[0] * len(TRUTH)]
    embeddings = noisy(LABELS[TRUTH] + hub)
    reference = noisy(np.concatenate([TRAINED, LABELS])[np.arange(300) % 6] + 2.0 * LABELS[0], 0.3)
    nothing: tuple[PostureEvidence | None, ...] = (None,) * len(TRUTH)
    heldout = made_up(embeddings, TRUTH, unit(LABELS), unit(TRAINED), nothing, reference)
    choice, evidence = choose([heldout], QUIET)
    assert choice.level_novel and choice.bridge_weight == 0
    means = evidence["macro_f1"]
    assert means["cosine"] < 0.3 and means["levelled"] > 0.9
    assert decision_record(fit_tables([]), choice, 10.0)["level_novel_labels"] is True
    assert "level_novel_labels" not in decision_record(fit_tables([]), Choice(), 10.0)


def test_what_the_cosine_knows_needs_nothing_else() -> None:
    seen = (None,) * len(TRUTH)
    heldout = made_up(noisy(LABELS[TRUTH]), TRUTH, unit(LABELS), unit(TRAINED), seen)
    choice, evidence = choose([heldout], QUIET)
    assert (choice.bridge_weight, choice.posture_weight) == (0, 0)
    assert not choice.level_novel
    assert evidence["macro_f1"] == {"cosine": 1, "levelled": 1, "bridge": 1, "posture": 1}
    assert choice.temperature < 1  # always right, and not sure enough of it


def test_the_bridge_is_chosen_where_only_the_trained_activities_are_near() -> None:
    seen = (None,) * len(TRUTH)
    windows = noisy((TRAINED - 0.5 * LABELS)[TRUTH])  # nothing of the labels themselves
    heldout = made_up(windows, TRUTH, unit(LABELS), unit(TRAINED), seen)
    choice, evidence = choose([heldout], QUIET)
    assert choice.bridge_weight > 0 and choice.posture_weight == 0
    assert evidence["macro_f1"]["bridge"] > evidence["macro_f1"]["cosine"] + 0.3


def test_the_posture_is_chosen_where_gravity_knows_more() -> None:
    seen = tuple(PostureEvidence(0.0, 60.0 * truth + 5) for truth in TRUTH.tolist())
    windows = noisy(axes(9)[np.zeros_like(TRUTH)])
    heldout = made_up(windows, TRUTH, unit(LABELS), unit(TRAINED), seen)
    choice, evidence = choose([heldout], QUIET)
    assert choice.posture_weight > 0
    assert evidence["macro_f1"]["posture"] > evidence["macro_f1"]["cosine"] + 0.3


def test_of_postures_weights_that_do_as_well_the_likeliest_is_taken() -> None:
    """In half of the windows the cosine knows all, in the others only an angle that shows another
    posture in one of seven: no weight changes what is said, but a heavy one is sure of what is
    wrong."""
    shown = np.where(np.arange(len(TRUTH)) % 7, TRUTH, (TRUTH + 1) % 3)
    by_cosine = np.arange(len(TRUTH)) < len(TRUTH) // 2
    seen = tuple(
        None if told else PostureEvidence(0.0, 60.0 * posture + 5)
        for told, posture in zip(by_cosine.tolist(), shown.tolist(), strict=True)
    )
    windows = noisy(np.where(by_cosine[:, None], LABELS[TRUTH], axes(9)[0]))
    windows[~by_cosine] = unit(axes(9))[0]
    heldout = made_up(windows, TRUTH, unit(LABELS), unit(TRAINED), seen)
    choice, _ = choose([heldout], QUIET)
    assert choice.posture_weight

    def of(weight: float) -> tuple[float, float]:
        other = replace(choice, posture_weight=weight, temperature=1.0)
        f1 = heldout.macro_f1(heldout.log_probabilities(other))
        return round(float(np.mean(f1)), 6), _temperature([heldout], other)[1]

    figures = {weight: of(weight) for weight in _POSTURE_WEIGHTS if weight}
    best = max(f1 for f1, _ in figures.values())
    losses = {w: loss for w, (f1, loss) in figures.items() if f1 >= best - 0.002}
    assert len(losses) > 1 and max(losses.values()) > min(losses.values()) + 1e-3
    assert choice.posture_weight == min(losses, key=lambda w: losses[w])


def test_too_sure_probabilities_are_cooled() -> None:
    said = TRUTH.copy()
    said[::3] = np.roll(said, 1)[::3]  # a third is wrong, as surely as the others are right
    seen = (None,) * len(TRUTH)
    heldout = made_up(noisy(LABELS[said], 0.01), TRUTH, unit(LABELS), unit(TRAINED), seen)
    choice, evidence = choose([heldout], QUIET)
    assert choice.temperature > 1.5
    assert evidence["ece"]["after"] < evidence["ece"]["before"] / 2


def test_mixtures_are_those_of_the_runtime() -> None:
    seen = tuple(PostureEvidence(0.0, 47.0 * t + 5) if t else None for t in TRUTH.tolist())
    heldout = made_up(noisy(LABELS[TRUTH], 0.5), TRUTH, unit(LABELS), unit(TRAINED), seen)
    for choice in (Choice(0.25, 0.03, 2.0, 1.5), Choice(1.0, 0.1, 0.5, 0.5), Choice()):
        mixed = _Parts.of(heldout).mixed(choice)
        mixed -= np.log(np.exp(mixed).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(mixed, heldout.log_probabilities(choice), atol=1e-6)


def test_calibration_error() -> None:
    sure = np.log([[0.9, 0.1]] * 10)
    assert _calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0, abs=1e-9)
    assert _calibration_error(sure, np.array([0] * 4 + [1] * 6)) == pytest.approx(0.5)


def softmax(z: NDArray[np.floating]) -> NDArray[np.float64]:
    odds = np.exp(z.astype(float))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def test_presence_with_and_without_a_label() -> None:
    nothing = (None,) * len(TRUTH)
    heldout = made_up(noisy(TRAINED[TRUTH]), TRUTH, unit(LABELS), unit(TRAINED), nothing)
    v = softmax(20.0 * heldout.embeddings @ unit(TRAINED).T)  # twice the logit scale
    cosine = unit(TRAINED) @ unit(LABELS).T
    choice = Choice(vocabulary_factor=2.0, bridge_weight=0.5, posture_weight=1.0)
    np.testing.assert_allclose(heldout.presence(choice), v @ cosine.max(axis=1), atol=1e-6)
    without = np.delete(cosine, 1, axis=1).max(axis=1)
    np.testing.assert_allclose(heldout.presence(choice, 1), v @ without, atol=1e-6)


def test_a_threshold_is_found_where_presence_tells() -> None:
    """Windows look more or less like something that is close to no label."""
    vocabulary, nothing = np.concatenate([TRAINED, axes(8)]), (None,) * len(TRUTH)
    odd = np.random.default_rng(1).uniform(0, 1.2, (len(TRUTH), 1)) * axes(8)
    heldout = made_up(noisy(TRAINED[TRUTH] + odd), TRUTH, unit(LABELS), unit(vocabulary), nothing)
    console = Console(file=(told := io.StringIO()), width=200)
    rejection = fit_rejection([heldout], Choice(), console)
    presence, cells = heldout.presence(Choice()), [rows for _, rows in heldout.cells()]
    quantile = np.mean([np.quantile(presence[rows], 0.05) for rows in cells])
    assert rejection["below"] == pytest.approx(quantile, abs=1e-4)
    below = [(presence[rows] < rejection["below"]).mean() for rows in cells]
    assert rejection["false_rejection"] == pytest.approx(np.mean(below), abs=1e-4)
    assert rejection["false_rejection"] == pytest.approx(0.05, abs=0.02)
    accepted = [
        (heldout.presence(Choice(), label)[rows][TRUTH[rows] == label] >= rejection["below"]).mean()
        for rows in cells
        for label in range(3)
    ]
    assert rejection["false_acceptance"] == pytest.approx(np.mean(accepted), abs=1e-4)
    assert rejection["auroc"] > 0.9 and rejection["false_acceptance"] < 0.2
    assert [(c["placement"], c["left_out"]) for c in rejection["cells"]] == [
        ("left thigh", 3), ("thigh", 3)
    ]  # fmt: skip
    assert f"presence below {rejection['below']:g} is unknown" in told.getvalue()


def test_rounding_rejects_no_window() -> None:
    """All windows have one presence, 0.514496: a threshold of 0.5145 would reject them all."""
    trained, nothing = 0.6 * axes(0, 1, 2) + axes(5, 6, 7), (None,) * len(TRUTH)
    heldout = made_up(noisy(trained[TRUTH]), TRUTH, unit(LABELS), unit(trained), nothing)
    rejection = fit_rejection([heldout], Choice(), QUIET)
    assert (rejection["below"], rejection["false_rejection"]) == (0.5144, 0)


def test_presence_that_tells_nothing_is_told() -> None:
    nothing = (None,) * len(TRUTH)
    windows = noisy(axes(9)[np.zeros_like(TRUTH)])
    heldout = made_up(windows, TRUTH, unit(LABELS), unit(TRAINED), nothing)
    console = Console(file=(told := io.StringIO()), width=200)
    rejection = fit_rejection([heldout], Choice(), console)
    assert rejection["auroc"] == pytest.approx(0.5, abs=0.1)
    assert "no window will be unknown" in told.getvalue()


def test_few_labels_with_enough_windows_are_left_out() -> None:
    counts = {0: 19, 1: 20, **dict.fromkeys(range(2, 9), 25)}
    truth = np.repeat(list(counts), list(counts.values()))
    made = made_up(noisy(LABELS[TRUTH]), TRUTH, unit(LABELS), unit(TRAINED), ())
    labels = tuple(map(str, counts))
    heldout = replace(made, truth=truth, labels=labels, placement=np.full(len(truth), "wrist"))
    drawn = _left_out(heldout)
    assert len(set(drawn)) == 6 and 0 not in drawn and drawn == _left_out(heldout)
    few = replace(heldout, truth=truth[:39], placement=heldout.placement[:39])
    assert _left_out(few) == [1]
    alone = replace(heldout, truth=truth[truth == 2], placement=np.full(25, "wrist"))
    assert _left_out(alone) == []  # no window of another label is left
