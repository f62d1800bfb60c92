"""Checkpoint -> bundle -> runtime: the same embeddings, and a manifest that says it all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

import export.__main__
from edge.bundle import SIGNAL_KEY, Bundle, load_bundle
from edge.labels import resolve_labels
from edge.pipeline import Pipeline
from edge.spec import SIGNAL
from export.__main__ import main
from export.onnx_export import torch_embeddings
from tests.conftest import walk
from tests.training.conftest import HashedText, hashed_text, tiny_config
from training.captions import Activity
from training.model import ImuEncoder
from training.train import TrainConfig, config_of, load_checkpoint, train

__all__ = ["hashed_text", "tiny_config"]  # fixtures of the training tests

BANK = (
    Activity("walking", "locomotion", ("walk",), "moving on foot at an easy pace"),
    Activity("lying", "posture", (), "resting flat on the ground"),
)


@pytest.fixture
def checkpoint(tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(export.__main__, "load_text_encoder", lambda name: HashedText())
    monkeypatch.setattr(export.__main__, "label_bank", lambda: BANK)
    monkeypatch.setattr(export.__main__, "DEFAULT_LABELS", ("walking", "lying"))
    return train(
        tiny_config, tmp_path / "run", tmp_path / "cache", False, Console(file=io.StringIO())
    )


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
    graph = onnx.load(str(out / "encoder.onnx"))
    metadata = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(metadata[SIGNAL_KEY]) == SIGNAL.to_json()
    assert any(n.op_type == "MatMulInteger" for n in graph.graph.node)
    pipeline = Pipeline(bundle, resolve_labels(["walk", "lying"], bundle))
    assert {p.best.label for p in pipeline.push(walk(10, 50)) if p.best} == {"walk"}


def test_quantization_shrinks_the_encoder(checkpoint: Path, tmp_path: Path) -> None:
    for name, flags in (("f32", []), ("int8", ["--quantize"])):
        main([str(checkpoint), "--out", str(tmp_path / name), *flags])
    sizes = [(tmp_path / n / "encoder.onnx").stat().st_size for n in ("f32", "int8")]
    assert sizes[1] < sizes[0]


def test_a_batch_of_any_size(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    main([str(checkpoint), "--out", str(out)])
    session = load_bundle(out).encoder._session
    windows = awkward_windows()
    (batch,) = session.run(None, {"imu": windows})
    np.testing.assert_allclose(batch, embeddings(load_bundle(out), windows), atol=1e-5)


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
