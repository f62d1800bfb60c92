"""Personal labels: how they are kept, what they decide, and when they do not apply."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge.labels
import edge.personal.store
from edge.bundle import Bundle
from edge.decision import usual_cosines
from edge.labels import default_labels, label_set, resolve_labels
from edge.personal.examples import _RIDGE, Take, _Background, teach
from edge.personal.store import (
    Personal,
    PersonalLabel,
    PersonalStore,
    Shown,
    embedded_again,
    valid_windows,
)
from edge.posture import PostureEvidence, motion_mps2
from firmware_bridge.errors import AuraError, InputError

N_WINDOWS = 11  # of 15 s


def a_signal(seed: int = 0, seconds: float = 15.0) -> np.ndarray:
    """A device that is shaken in a way of its own."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 200)) / 200
    waves = [rng.uniform(1, 4) * np.sin(2 * np.pi * rng.uniform(0.5, 6) * t) for _ in range(6)]
    signal = np.stack(waves) + rng.normal(0, 0.2, (6, len(t)))
    signal[2] += 9.8
    return signal.astype(np.float32)


def shown(
    bundle: Bundle, seed: int = 0, placement: str | None = "waist", face_deg: float = 20.0
) -> Shown:
    signal = a_signal(seed)
    embeddings = np.stack([bundle.encoder.embed(w) for _, w in valid_windows(signal)])
    face = np.full(len(embeddings), face_deg, np.float32)
    take = Take(embeddings, face, np.full_like(face, np.nan), placement)
    return Shown(take, signal, "2026-11-21T10:00:00+00:00", "replay:walk.csv")


def label_of(bundle: Bundle, name: str, *takes: Shown) -> PersonalLabel:
    return PersonalLabel(name, bundle.id, takes or (shown(bundle),))


@pytest.fixture
def store(tmp_path: Path) -> PersonalStore:
    return PersonalStore(tmp_path / "personal")


def using(store: PersonalStore, segment: str = "trunk") -> tuple[Personal, list[str]]:
    notes: list[str] = []
    return Personal(store, segment, notes.append), notes


def no_text_encoder() -> None:
    raise InputError('install it with: pip install "aura-edge[text]"')


def test_what_is_saved_is_found_bit_by_bit(store: PersonalStore, bundle: Bundle) -> None:
    saved = label_of(bundle, "My  Stretching_Routine", shown(bundle, 1), shown(bundle, 2, None))
    assert store.find("my stretching routine") is None and store.paths() == []
    store.save(saved)
    found = store.find("my stretching-routine")
    assert found is not None
    assert (found.name, found.bundle_id, found.seconds) == (saved.name, bundle.id, 30.0)
    for old, new in zip(saved.shown, found.shown, strict=True):
        assert (old.source, old.enrolled_utc) == (new.source, new.enrolled_utc)
        assert old.take.placement == new.take.placement
        np.testing.assert_array_equal(old.signal, new.signal)
        for array in ("embeddings", "face_deg", "tilt_deg"):
            np.testing.assert_array_equal(getattr(old.take, array), getattr(new.take, array))


def test_files_are_the_owners_alone_and_can_be_read_by_people(
    store: PersonalStore, bundle: Bundle
) -> None:
    store.save(label_of(bundle, "Übung 7/b"))
    (path,) = store.paths()
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.folder.stat().st_mode & 0o777 == 0o700
    details = json.loads(zipfile.ZipFile(path).read("label.json"))
    assert details["label"] == "Übung 7/b" and details["takes"][0]["placement"] == "waist"
    with np.load(path) as arrays:
        assert arrays["signal_0"].shape == (6, 3000)
        assert arrays["embeddings_0"].shape == (N_WINDOWS, 512)


def test_labels_of_similar_names_are_kept_apart(store: PersonalStore, bundle: Bundle) -> None:
    for seed, name in enumerate(["übung", "ubung", "?", "!", "a" * 60, "a" * 61]):
        store.save(label_of(bundle, name, shown(bundle, seed)))
    assert len(store.paths()) == 6
    assert all((found := store.find(n)) and found.name == n for n in ("übung", "!", "a" * 61))


def test_rename_and_delete(store: PersonalStore, bundle: Bundle) -> None:
    store.save(label_of(bundle, "my chair"))
    store.save(label_of(bundle, "my bed"))
    with pytest.raises(InputError, match="'My Bed' already"):
        store.rename("my chair", "My Bed")
    store.rename("my chair", "My Chair")  # the same label, in another spelling
    found = store.find("my chair")
    assert found is not None and found.name == "My Chair"
    store.rename("my chair", "the sofa")
    assert store.find("my chair") is None and store.find("the sofa") is not None
    store.delete("the sofa")
    assert [store.read(path).name for path in store.paths()] == ["my bed"]
    for call in (lambda: store.delete("the sofa"), lambda: store.rename("the sofa", "x")):
        with pytest.raises(InputError, match="no personal label 'the sofa'"):
            call()


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "no take", "other arrays"])
def test_a_damaged_label_is_told_of_and_costs_no_other(
    store: PersonalStore, bundle: Bundle, damage: str
) -> None:
    store.save(label_of(bundle, "my chair"))
    store.save(label_of(bundle, "my bed"))
    path = store.path_of("my chair")
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-400])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        if damage == "no take":
            parts["label.json"] = json.dumps(
                json.loads(parts["label.json"]) | {"takes": []}
            ).encode()
        else:
            parts["tilt_deg_0.npy"] = parts["signal_0.npy"]
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part)
    with pytest.raises(InputError, match=r"my-chair-.*damaged.*--no-personal"):
        store.find("my chair")
    personal, notes = using(store)
    assert personal.names(bundle.id) == ["my bed"] and "damaged" in notes[0]
    store.delete("my chair")
    assert store.find("my chair") is None


def test_a_label_of_a_newer_format_is_refused(store: PersonalStore, bundle: Bundle) -> None:
    store.save(label_of(bundle, "my chair"))
    path = store.path_of("my chair")
    with zipfile.ZipFile(path) as archive:
        details = json.loads(archive.read("label.json"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("label.json", json.dumps(details | {"format_version": 2}))
    with pytest.raises(InputError, match="format 2, this runtime reads 1; update"):
        store.find("my chair")


def test_a_disk_that_is_full_leaves_what_was_there(
    store: PersonalStore, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(label_of(bundle, "my chair", shown(bundle, 1)))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edge.personal.store.os, "fsync", full)
    with pytest.raises(AuraError, match=r"No space left.*unchanged"):
        store.save(label_of(bundle, "my chair", shown(bundle, 2)))
    found = store.find("my chair")
    assert found is not None
    np.testing.assert_array_equal(found.shown[0].signal, a_signal(1))
    assert len(list(store.folder.iterdir())) == 1  # nothing half-written is left behind


def test_examples_make_a_private_label_known_without_a_text_encoder(
    store: PersonalStore, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.labels, "load_compact_text_encoder", no_text_encoder)
    store.save(label_of(bundle, "my stretching routine"))
    personal, notes = using(store)
    names = ["walking", "sitting", "My stretching routine", "swimming"]
    labels = resolve_labels(names, bundle, personal)
    assert labels.names == tuple(names) and labels.made_by[2] == "examples" and not notes
    np.testing.assert_allclose(np.linalg.norm(labels.prototypes, axis=1), 1, atol=2e-3)
    again, other = a_signal(0, 5), np.zeros((6, 1000), np.float32)
    other[2] = 9.8  # at rest
    evidence = PostureEvidence(20.0, None)
    best = [
        labels.classify(bundle.encoder.embed(w), bundle.logit_scale, 1, "trunk", evidence)[0].label
        for w in (again, other)
    ]
    assert best[0] == "My stretching routine" and best[1] != "My stretching routine"
    with pytest.raises(InputError, match="not in the bundle's label bank"):
        resolve_labels(names, bundle)


def test_labels_without_examples_are_scored_as_before_bit_by_bit(
    store: PersonalStore, bundle: Bundle
) -> None:
    names = ["walking", "sitting", "lying"]
    store.save(label_of(bundle, "sitting"))
    plain, taught = resolve_labels(names, bundle), resolve_labels(names, bundle, using(store)[0])
    assert taught.made_by[1].endswith(" and examples") and taught.made_by[0] == plain.made_by[0]
    assert plain.decision is not None and taught.decision is not None
    assert plain.decision.footing is not None and taught.decision.footing is not None
    for k in (0, 2):
        np.testing.assert_array_equal(plain.prototypes[k], taught.prototypes[k])
        assert plain.decision.footing.gain[k] == taught.decision.footing.gain[k]
        assert plain.decision.footing.offset[k] == taught.decision.footing.offset[k]
    assert plain.prototypes[1] @ taught.prototypes[1] < 0.999


def test_more_examples_weigh_more_against_the_text(bundle: Bundle) -> None:
    whole = shown(bundle).take
    text = label_set(["sitting"], bundle, {}).prototypes[0]
    cosines = [
        float(text @ label_set(["sitting"], bundle, {0: takes}).prototypes[0])
        for takes in ([first(whole, 1)], [whole], [whole, whole])
    ]
    assert 1 > cosines[0] > cosines[1] > cosines[2] > 0
    assert first(whole, 1).windows == 1 and whole.windows == 3


def first(take: Take, n: int) -> Take:
    return replace(
        take,
        embeddings=take.embeddings[:n],
        face_deg=take.face_deg[:n],
        tilt_deg=take.tilt_deg[:n],
    )


def test_examples_say_which_angles_a_label_has(bundle: Bundle) -> None:
    """Of two labels of the same windows, the one shown at the window's angle is likelier, on the
    body segment it was shown on and on no other."""
    names = ["my chair", "my bed"]
    chair, bed = (shown(bundle, 0, "waist", face).take for face in (15.0, 75.0))
    labels = label_set(names, bundle, {0: [chair], 1: [bed]})
    window = bundle.encoder.embed(a_signal(0, 5))

    def probability(segment: str, face_deg: float) -> float:
        evidence = PostureEvidence(face_deg, None)
        return labels.judge(window, bundle.logit_scale, 2, segment, evidence).posterior[0]

    assert probability("trunk", 15) > 0.8 and probability("trunk", 75) < 0.2
    assert probability("thigh", 15) == pytest.approx(0.5)
    unseen = labels.judge(window, bundle.logit_scale, 2, "trunk", None).posterior[0]
    assert unseen == pytest.approx(0.5)


def test_tilts_of_examples_count_where_the_tilt_is_known(bundle: Bundle) -> None:
    base = shown(bundle, 0, "waist").take
    takes = [replace(base, tilt_deg=np.full_like(base.face_deg, t)) for t in (10.0, 85.0)]
    labels = label_set(["my chair", "my bed"], bundle, {0: [takes[0]], 1: [takes[1]]})
    window = bundle.encoder.embed(a_signal(0, 5))
    verdict = labels.judge(window, bundle.logit_scale, 2, "trunk", PostureEvidence(20.0, 88.0))
    assert verdict.top[0].label == "my bed" and verdict.top[0].probability > 0.8


def test_probabilities_of_angles_add_up_to_one(bundle: Bundle) -> None:
    take = shown(bundle, 0, "waist", 3.0).take
    decision = label_set(["my chair"], bundle, {0: [take]}).decision
    assert decision is not None and decision.angles is not None
    usual = decision.angles.usual["face", "trunk"]
    probability = usual.ratio(np.array([3.0])) * usual.probability
    assert probability.sum() == pytest.approx(1) and probability.argmax() == 0
    assert probability.min() >= 0.1 / len(probability)


def test_examples_of_another_bundle_do_not_apply_until_they_are_embedded_again(
    store: PersonalStore, bundle: Bundle
) -> None:
    stale = replace(label_of(bundle, "sitting"), bundle_id="aura-edge-before")
    store.save(stale)
    personal, notes = using(store)
    labels = resolve_labels(["walking", "sitting"], bundle, personal)
    plain = resolve_labels(["walking", "sitting"], bundle)
    np.testing.assert_array_equal(labels.prototypes, plain.prototypes)
    assert "'sitting' were made with bundle aura-edge-before" in notes[0] and "renew" in notes[0]
    assert personal.names(bundle.id) == [] and "left out" in notes[1]
    zeros = replace(stale.shown[0].take, embeddings=np.zeros((N_WINDOWS, 512), np.float32))
    again = embedded_again(replace(stale, shown=(replace(stale.shown[0], take=zeros),)), bundle)
    assert again.bundle_id == bundle.id
    np.testing.assert_array_equal(again.takes[0].embeddings, stale.takes[0].embeddings)


def test_examples_from_elsewhere_on_the_body_leave_a_known_label_to_its_text(
    store: PersonalStore, bundle: Bundle
) -> None:
    store.save(label_of(bundle, "sitting", shown(bundle, 0, "left wrist")))
    store.save(label_of(bundle, "my chair", shown(bundle, 1, "left wrist")))
    personal, notes = using(store, "trunk")
    labels = resolve_labels(["sitting", "my chair"], bundle, personal)
    assert [name.endswith("examples") for name in labels.made_by] == [False, True]
    assert "worn on the arm, not the trunk: its text alone counts" in notes[0]
    assert "it may be recognised badly" in notes[1]
    for segment in ("arm", "unknown"):
        personal, notes = using(store, segment)
        assert "examples" in resolve_labels(["sitting"], bundle, personal).made_by[0]
        assert not notes


def test_the_default_labels_take_the_personal_ones_along(
    store: PersonalStore, bundle: Bundle
) -> None:
    for name in ("my chair", "going upstairs", "Sitting"):
        store.save(label_of(bundle, name))
    names = default_labels(bundle, using(store)[0])
    usual = default_labels(bundle)
    assert usual == bundle.manifest["default_labels"] and "climbing stairs" in usual
    assert len(names) == len(usual) + 1 and names[-1] == "my chair"
    assert "going upstairs" in names and "climbing stairs" not in names and "Sitting" in names
    resolve_labels(names, bundle, using(store)[0])


def test_two_names_of_one_activity_stay_an_error(store: PersonalStore, bundle: Bundle) -> None:
    store.save(label_of(bundle, "going upstairs"))
    with pytest.raises(InputError, match="the same activity"):
        resolve_labels(["climbing stairs", "going upstairs"], bundle, using(store)[0])


def test_a_bundle_without_reference_embeddings_is_told_of(
    store: PersonalStore, plain: Bundle
) -> None:
    store.save(label_of(plain, "my chair"))
    with pytest.raises(InputError, match=r"reference embeddings.*--no-personal"):
        resolve_labels(["walking", "my chair"], plain, using(store)[0])


def test_a_bundle_that_levels_nothing_learns_too(bundle: Bundle, deciding: Bundle) -> None:
    """Its decision has no footing: the labels without examples keep their cosines."""
    names = ["walking", "my chair"]
    take = shown(deciding).take
    assert deciding.reference is not None
    labels = label_set(names, deciding, {1: [take]})
    assert labels.decision is not None and labels.decision.footing is not None
    assert (labels.decision.footing.gain[0], labels.decision.footing.offset[0]) == (1, 0)
    verdict = labels.judge(take.embeddings[3], deciding.logit_scale, 2, "trunk", None)
    assert verdict.top[0].label == "my chair"


def test_windows_of_a_take_leave_out_what_is_missing() -> None:
    signal = a_signal(0, 15)
    signal[:, 1000:1300] = np.nan  # 1.5 s from 5 s on: in a window at most 30 % of it
    starts = [start for start, _ in valid_windows(signal)]
    assert starts == [0, 200, 1200, 1400, 1600, 1800, 2000]
    assert [s for s, _ in valid_windows(signal[:, :999])] == []
    no_gyro = signal.copy()
    no_gyro[3:] = np.nan
    windows = dict(valid_windows(no_gyro))
    assert list(windows) == starts and motion_mps2(windows[0]) > 0


def test_a_known_label_shown_with_its_own_text_stays_where_it_was(bundle: Bundle) -> None:
    """Teaching changes nothing but the labels named; with none named, nothing at all."""
    labels = label_set(["walking", "sitting"], bundle, {})
    assert labels.decision is not None and bundle.reference is not None
    prototypes, decision = teach(
        labels.prototypes, labels.decision, {}, [True, True], bundle.reference, bundle.manifest
    )
    np.testing.assert_array_equal(prototypes, labels.prototypes)
    cosine, vocabulary = np.array([0.2, 0.1]), np.zeros(0)
    for segment, evidence in (("trunk", PostureEvidence(40.0, 12.0)), ("arm", None)):
        old, new = (
            d.scores(cosine, 20.0, vocabulary, segment, evidence)[0]
            for d in (labels.decision, decision)
        )
        np.testing.assert_array_equal(old, new)


def test_the_direction_is_fishers_by_the_covariance_of_the_background(bundle: Bundle) -> None:
    """A worked example: the first axis holds nearly all variance, so that what differs along the
    second counts more; what all windows share counts nothing."""
    first_axis, second_axis = np.array([3.0, -3, 3, -3]), np.array([0.5, 0.5, -0.5, -0.5])
    reference = np.column_stack([first_axis, second_axis, np.full(4, 7.0)])
    background = _Background.of(reference.astype(np.float32))
    direction, usual, deviation = background.direction(np.array([3.0, 0.5, 7.0]))
    ridge = _RIDGE * (12 + 1 / 3)
    expected = np.array([3 / (12 + ridge), 0.5 / (1 / 3 + ridge), 0])
    np.testing.assert_allclose(direction, expected / np.linalg.norm(expected), atol=1e-6)
    assert direction[1] > 0.9
    cosine = reference @ direction
    assert (usual, deviation) == pytest.approx((cosine.mean(), cosine.std()))


def test_a_private_label_is_on_the_footing_of_trained_ones(bundle: Bundle) -> None:
    """Over the reference its cosines are as high as is usual for them, and spread half as much or
    little more; where nothing is known of its angles, no posture speaks for or against it."""
    take = shown(bundle, 0, None, np.nan).take
    labels = label_set(["walking", "my routine"], bundle, {1: [take]})
    decision = labels.decision
    assert decision is not None and decision.footing is not None and bundle.reference is not None
    mean, deviation = usual_cosines(bundle.reference, labels.prototypes[1:])
    gain, offset = decision.footing.gain[1], decision.footing.offset[1]
    level, spread = (np.median(x) for x in usual_cosines(bundle.reference, decision.vocabulary))
    assert gain * mean[0] + offset == pytest.approx(level, abs=1e-6)
    assert 0.5 - 1e-6 <= gain * deviation[0] / spread < 0.8
    scores = [
        decision.scores(np.array([0.1, 0.1]), 20.0, np.zeros(0), "trunk", evidence)[0][1]
        for evidence in (None, PostureEvidence(80.0, None), PostureEvidence(5.0, 95.0))
    ]
    assert scores[0] == pytest.approx(scores[1]) == pytest.approx(scores[2])


def test_a_mean_that_nothing_tells_apart_spreads_no_more_than_texts(bundle: Bundle) -> None:
    """Examples that are just what all windows are: their direction is noise, and not stretched."""
    assert bundle.reference is not None
    angles = np.full(256, np.nan, np.float32)
    take = Take(bundle.reference[:256], angles, angles, None)
    labels = label_set(["my day"], bundle, {0: [take]})
    assert labels.decision is not None and labels.decision.footing is not None
    _, deviation = usual_cosines(bundle.reference, labels.prototypes)
    _, trained = usual_cosines(bundle.reference, labels.decision.vocabulary)
    spread = labels.decision.footing.gain[0] * deviation[0] / np.median(trained)
    assert spread == pytest.approx(1, abs=1e-5)
