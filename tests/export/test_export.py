"""Checkpoint -> bundle -> runtime: the same embeddings, and a manifest that says it all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console

import export.convert
import export.parity
from edge.bundle import FORMAT_VERSION, SIGNAL_KEY, Bundle, load_bundle
from edge.labels import resolve_labels
from edge.pipeline import Pipeline
from edge.spec import SIGNAL
from export.__main__ import main
from export.convert import golden_window
from export.parity import LabelledWindows, compare, windows_of_corpora
from export.variants import (
    IR_VERSION,
    OPSET,
    SPECTRUM_BASIS,
    _worked_out,
    export_float32,
    quantize_int8_dynamic,
    torch_embeddings,
)
from tests.conftest import decision_record, walk, write_corpus
from tests.training.conftest import HashedText, hashed_text, tiny_config
from training.captions import Activity
from training.model import EncoderConfig, ImuEncoder
from training.train import TrainConfig, config_of, load_checkpoint, train

__all__ = ["hashed_text", "tiny_config"]  # fixtures of the training tests

BANK = (
    Activity(
        "walking", "locomotion", ("walk",), "moving on foot at an easy pace", posture="upright"
    ),
    Activity("lying", "posture", (), "resting flat on the ground"),
)
DANCING = Activity("dancing", "leisure", (), "stepping and swaying to a beat")


@pytest.fixture
def checkpoint(tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(export.convert, "load_text_encoder", lambda name: HashedText())
    monkeypatch.setattr(export.convert, "label_bank", lambda: BANK)
    monkeypatch.setattr(export.convert, "DEFAULT_LABELS", ("walking", "lying"))
    # After 40 steps it is a matter of luck which of several near labels is the best one.
    monkeypatch.setattr(export.parity, "MIN_TOP1_AGREEMENT", 0.9)
    monkeypatch.setattr(export.parity, "MAX_MACRO_F1_LOSS", 0.1)
    return train(
        tiny_config, tmp_path / "run", tmp_path / "cache", False, Console(file=io.StringIO())
    )


QUIET = Console(file=io.StringIO())


def embeddings(bundle: Bundle, windows: np.ndarray) -> np.ndarray:
    return np.stack([bundle.encoder.embed(w) for w in windows])


def awkward_windows() -> np.ndarray:
    """Whole, padded, with a gap, and without a gyroscope."""
    rng = np.random.default_rng(3)
    windows = rng.normal(0, 2, (8, 6, 1000)).astype(np.float32)
    windows[:, 2] += 9.8
    windows[1, :, 500:] = np.nan
    windows[2, :, 300:450] = np.nan
    windows[3, 3:] = np.nan
    return windows


@pytest.mark.parametrize(("flags", "worst"), [([], 0.99999), (["--quantize"], 0.98)])
def test_the_bundle_embeds_as_the_checkpoint_does(
    checkpoint: Path, tmp_path: Path, flags: list[str], worst: float
) -> None:
    out = tmp_path / "bundle"
    assert main([str(checkpoint), "--out", str(out), *flags]) == 0
    bundle = load_bundle(out)
    state = load_checkpoint(checkpoint)
    model = ImuEncoder(config_of(state).encoder)
    model.load_state_dict(state["model"])
    windows = awkward_windows()
    cosine = (torch_embeddings(model, windows) * embeddings(bundle, windows)).sum(axis=1)
    assert cosine.min() > worst


def test_the_bundle_runs_and_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    main([str(checkpoint), "--out", str(out), "--quantize", "--name", "mini"])
    bundle = load_bundle(out)
    manifest = bundle.manifest
    assert bundle.id.startswith("mini-")
    assert manifest["text"]["encoder"] == "hashed"
    assert (
        manifest["training"]["corpora"] == ["mini"]
        and manifest["training"]["config"]["steps"] == 40
    )
    assert {a["text_encoder"] for a in manifest["label_bank"]} == {"hashed"}
    assert manifest["encoder"]["weights"] == manifest["parity"]["chosen"] == "int8-dynamic"
    figures = manifest["parity"]["variants"]["int8-dynamic"]
    assert figures["worst_cosine"] > 0.98 and figures["n_windows"] > 100
    graph = onnx.load(str(out / "encoder.onnx"))
    metadata = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(metadata[SIGNAL_KEY]) == SIGNAL.to_json()
    assert any(n.op_type == "MatMulInteger" for n in graph.graph.node)
    assert graph.ir_version == IR_VERSION and graph.opset_import[0].version == OPSET
    assert not any(n.metadata_props or n.doc_string for n in graph.graph.node)
    pipeline = Pipeline(bundle, resolve_labels(["walk", "lying"], bundle))
    assert {p.best.label for p in pipeline.push(walk(10, 50)) if p.best} == {"walk"}


def write_decision(folder: Path, **more: object) -> Path:
    """What `edge-train fit-decision` writes: all but the rows of the vocabulary."""
    decision = decision_record([]) | {"logit_scale": 12.5} | more
    del decision["vocabulary"]["rows"]
    (folder / "decision.json").write_text(json.dumps(decision))
    return folder / "decision.json"


def test_a_decision_comes_with_the_rows_of_what_was_trained(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.convert, "label_bank", lambda: (DANCING, BANK[0]))
    monkeypatch.setattr(export.convert, "DEFAULT_LABELS", ("walking",))
    decision, out = write_decision(tmp_path), tmp_path / "bundle"
    assert main([str(checkpoint), "--out", str(out), "--decision", str(decision)]) == 0
    bundle = load_bundle(out)
    manifest = bundle.manifest
    assert manifest["format_version"] == 2 and bundle.decision is not None
    assert bundle.reference is None
    assert bundle.bank_names == ["dancing", "walking", "lying"]  # the bank lacks what was trained
    assert manifest["training"]["activities"] == ["lying", "walking"]
    assert manifest["decision"] == decision_record([2, 1])
    assert manifest["logit_scale"] == 12.5  # what the decision was fitted under
    entries = [(a["group"], a.get("posture")) for a in manifest["label_bank"]]
    assert entries == [("leisure", None), ("locomotion", "upright"), ("other", "lying")]
    pipeline = Pipeline(bundle, resolve_labels(["walk", "lying"], bundle))
    assert {p.best.label for p in pipeline.push(walk(10, 50)) if p.best} == {"walk"}


def test_levelling_brings_the_reference_of_the_training(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decision, out = write_decision(tmp_path, level_novel_labels=True), tmp_path / "bundle"
    arguments = ["--out", str(out), "--decision", str(decision)]
    assert main([str(checkpoint), *arguments]) == 0
    bundle, state = load_bundle(out), load_checkpoint(checkpoint)
    assert bundle.manifest["format_version"] == FORMAT_VERSION == 3
    assert bundle.decision is not None and bundle.decision.levels_novel
    assert bundle.reference is not None
    assert (bundle.reference == state["reference"].float().numpy()).all()
    pipeline = Pipeline(bundle, resolve_labels(["walk", "lying"], bundle))
    assert {p.best.label for p in pipeline.push(walk(10, 50)) if p.best} == {"walk"}
    del state["reference"]
    torch.save(state, tmp_path / "unfinished.pt")
    assert main([str(tmp_path / "unfinished.pt"), *arguments]) == 2
    assert "holds no reference embeddings" in capsys.readouterr().err.replace("\n", " ")


def test_without_a_decision_older_runtimes_read_the_bundle(
    checkpoint: Path, tmp_path: Path
) -> None:
    main([str(checkpoint), "--out", str(tmp_path / "bundle")])
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest["format_version"] == 1 and bundle.decision is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "not what `edge-train fit-decision` writes"),
        ('{"vocabulary": {"logit_scale": -1}, "bridge": {}, "posture": {}}', "logit_scale"),
        ('{"vocabulary": {}, "logit_scale": 0}', "logit_scale 0 is no number above 0"),
    ],
)
def test_a_decision_that_cannot_be_used(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    message: str,
) -> None:
    path, out = tmp_path / "decision.json", tmp_path / "bundle"
    if content is not None:
        path.write_text(content)
    assert main([str(checkpoint), "--out", str(out), "--decision", str(path)]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_int8_is_a_quarter_of_float32(tmp_path: Path) -> None:
    """Of the encoder as it ships; of a small one the graph is the larger part."""
    float32, int8 = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
    export_float32(ImuEncoder(EncoderConfig()), float32)
    quantize_int8_dynamic(float32, int8)
    assert int8.stat().st_size <= 0.25 * float32.stat().st_size


def test_the_waves_that_the_graph_works_out_are_those_of_training() -> None:
    constants, nodes = _worked_out("waves")
    output = onnx.helper.make_tensor_value_info("waves", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "waves", [], [output], constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (waves,) = session.run(None, {})
    np.testing.assert_allclose(waves, SPECTRUM_BASIS, rtol=0, atol=1e-6)  # of 0.016


def test_a_batch_of_any_size(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    main([str(checkpoint), "--out", str(out)])
    session = load_bundle(out).encoder._session
    windows = awkward_windows()
    (batch,) = session.run(None, {"imu": windows})
    np.testing.assert_allclose(batch, embeddings(load_bundle(out), windows), atol=1e-5)


def test_held_out_corpora_calibrate_and_gate_with_different_subjects(
    checkpoint: Path, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "heldout", n_subjects=4)
    calibration, gate = windows_of_corpora([corpus], tmp_path / "cache", QUIET)
    assert len(calibration.imu) == len(gate.imu) == 2 * 5
    assert not {w.tobytes() for w in calibration.imu} & {w.tobytes() for w in gate.imu}
    out = tmp_path / "bundle"
    assert main([str(checkpoint), "--out", str(out), "--quantize", "--heldout", str(corpus)]) == 0
    parity = load_bundle(out).manifest["parity"]
    assert set(parity["variants"]) == {"float32", "float16", "int8-dynamic", "int8-static"}
    assert "heldout" in parity["windows"]


def test_a_benchmark_corpus_is_not_calibrated_on(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "bench", role="benchmark")
    argv = [str(checkpoint), "--out", str(tmp_path / "b"), "--quantize", "--heldout", str(corpus)]
    assert main(argv) == 2
    assert "never trained on" in " ".join(capsys.readouterr().err.split())


def test_the_gate_fails_the_export_unless_forced(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export.parity, "MIN_WORST_COSINE", 1.1)
    out = tmp_path / "bundle"
    assert main([str(checkpoint), "--out", str(out), "--quantize"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the parity gate is not passed" in said and "below 1.1" in said and "--force" in said
    assert not out.exists()
    assert main([str(checkpoint), "--out", str(out), "--quantize", "--force"]) == 0
    load_bundle(out)


def test_the_figures_of_the_gate_by_hand() -> None:
    """Three windows, one said otherwise: agreement 2/3, and the cosine of that one is 0."""
    eye = np.eye(3, dtype=np.float32)
    prototypes = {"a": eye[0], "b": eye[1], "c": eye[2]}
    windows = LabelledWindows(np.zeros((3, 6, 1000), np.float32), ("a", "b", "b"))
    reference, candidate = eye[[0, 1, 1]], eye[[0, 1, 2]]
    parity = compare(reference, candidate, windows, prototypes)
    assert parity.worst_cosine == 0 and parity.mean_cosine == pytest.approx(2 / 3)
    assert parity.top1_agreement == pytest.approx(2 / 3)
    assert parity.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    assert parity.macro_f1_loss == pytest.approx(1 - (1 + 2 / 3) / 2)
    assert len(parity.shortfalls()) == 3
    assert compare(reference, reference, windows, prototypes).shortfalls() == []


def test_verify_checks_a_bundle_again(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    main([str(checkpoint), "--out", str(out)])
    capsys.readouterr()
    assert main(["--verify", str(out)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["id"] == load_bundle(out).id and facts["activities"] == len(BANK)
    (out / "encoder.onnx").write_bytes(b"truncated")
    assert main(["--verify", str(out)]) == 2


def test_the_golden_window_is_a_walk_with_a_gap() -> None:
    imu = golden_window()
    assert imu.shape == (6, 1000) and 0.05 < np.isnan(imu).mean() < 0.2


def test_neither_checkpoint_nor_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "give a checkpoint" in " ".join(capsys.readouterr().err.split())


def test_a_missing_checkpoint_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent.pt"), "--out", str(tmp_path / "b")]) == 2
    assert "no checkpoint there" in " ".join(capsys.readouterr().err.split())


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"version": 1, "config": Evil()}, tmp_path / "evil.pt")
    assert main([str(tmp_path / "evil.pt"), "--out", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "pwned").exists()
