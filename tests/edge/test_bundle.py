"""Loading a bundle: the shipped one works, a damaged one says what is wrong."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import DEFAULT_BUNDLE, FORMAT_VERSION, Bundle, load_bundle
from edge.spec import SIGNAL
from firmware_bridge.errors import InputError
from tests.conftest import with_decision
from tests.edge.conftest import edit


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle"))


def rehash(folder: Path, name: str) -> None:
    """Make the manifest agree with a replaced file, so that later checks are reached."""
    content = (folder / name).read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, lambda m: m["files"].update({name: entry}))


def test_the_shipped_bundle_is_small_and_says_what_it_is(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest["signal"] == SIGNAL.to_json()
    assert sum(entry["bytes"] for entry in manifest["files"].values()) < 4_000_000
    assert manifest["encoder"]["parameters"] < 1_500_000
    assert manifest["text"]["encoder"] and manifest["logit_scale"] > 1
    assert "hapt" not in manifest["training"]["corpora"]
    assert "weda" not in manifest["training"]["corpora"]
    assert len(manifest["label_bank"]) >= 500
    np.testing.assert_allclose(np.linalg.norm(bundle.prototypes, axis=1), 1, atol=2e-3)


def test_the_encoder_gives_unit_vectors_and_ignores_padding_and_a_missing_gyroscope(
    bundle: Bundle,
) -> None:
    rng = np.random.default_rng(0)
    imu = rng.normal(0, 1, (6, 1000)).astype(np.float32)
    imu[2] += 9.8
    full = bundle.encoder.embed(imu)
    assert full.shape == (512,) and np.linalg.norm(full) == pytest.approx(1, abs=1e-3)
    padded = imu.copy()
    padded[:, 400:] = np.nan
    assert np.isfinite(bundle.encoder.embed(padded)).all()
    no_gyro = imu.copy()
    no_gyro[3:] = np.nan
    assert np.isfinite(bundle.encoder.embed(no_gyro)).all()


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: missing"):
        load_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_bundle(tmp_path)


def test_a_newer_format_asks_for_an_update(copy: Path) -> None:
    edit(copy, lambda m: m.update(format_version=99))
    with pytest.raises(InputError, match=r"bundle format 99, .* update aura-edge"):
        load_bundle(copy)


def test_older_formats_are_read_and_the_next_is_not(copy: Path) -> None:
    edit(copy, lambda m: (m.update(format_version=1), m.pop("decision", None)))
    assert load_bundle(copy).decision is None
    edit(copy, lambda m: m.update(format_version=2))
    assert load_bundle(copy).decision is None
    edit(copy, lambda m: m.update(format_version=FORMAT_VERSION + 1))
    with pytest.raises(InputError, match=r"bundle format 4, this runtime reads up to 3; update"):
        load_bundle(copy)


def test_a_decision_is_read_and_a_malformed_one_refused_at_load(copy: Path) -> None:
    edit(copy, lambda m: m.update(with_decision(m)))
    decision = load_bundle(copy).decision
    assert decision is not None and decision.temperature == 1.5
    edit(copy, lambda m: m["decision"]["bridge"].update(weight=2))
    with pytest.raises(InputError, match=r"manifest\.json: decision\.bridge\.weight: .* export"):
        load_bundle(copy)


def test_levelling_needs_the_reference(copy: Path) -> None:
    edit(copy, lambda m: m.update(with_decision(m)))
    edit(copy, lambda m: m["decision"].update(level_novel_labels=1))
    with pytest.raises(InputError, match=r"level_novel_labels: expected true or false, found 1"):
        load_bundle(copy)
    edit(copy, lambda m: m["decision"].update(level_novel_labels=True))
    with np.load(copy / "prototypes.npz") as arrays:
        kept = {name: arrays[name] for name in ("prototypes", "centre")}
    np.savez(copy / "prototypes.npz", **kept)
    rehash(copy, "prototypes.npz")
    with pytest.raises(InputError, match=r"no array `reference`, which decision\.level_novel"):
        load_bundle(copy)
    np.savez(copy / "prototypes.npz", **kept, reference=np.zeros((7, 3), np.float16))
    rehash(copy, "prototypes.npz")
    with pytest.raises(InputError, match=r"`reference` has shape \(7, 3\), expected \(R, 512\)"):
        load_bundle(copy)
    reference = np.eye(7, 512, dtype=np.float16)
    np.savez(copy / "prototypes.npz", **kept, reference=reference)
    rehash(copy, "prototypes.npz")
    bundle = load_bundle(copy)
    assert bundle.reference is not None and (bundle.reference == reference).all()


def test_a_manifest_without_a_field(copy: Path) -> None:
    edit(copy, lambda m: m.pop("logit_scale"))
    with pytest.raises(InputError, match="no field logit_scale"):
        load_bundle(copy)


def test_an_edited_manifest_is_noticed(copy: Path) -> None:
    edit(copy, lambda m: m.update(logit_scale=1.0), new_id=False)
    with pytest.raises(InputError, match="was edited after the export"):
        load_bundle(copy)


def test_files_cannot_lie_outside_the_bundle(copy: Path) -> None:
    entry = {"bytes": 0, "sha256": ""}
    for name in ("../secrets.txt", "/etc/passwd", "..", "a/b"):
        edit(copy, lambda m, name=name: m["files"].update({name: entry}))
        with pytest.raises(InputError, match="leads out of the bundle"):
            load_bundle(copy)
        edit(copy, lambda m, name=name: m["files"].pop(name))


def test_an_encoder_that_embeds_otherwise_fails_the_self_test(copy: Path) -> None:
    """Right form, right hashes, another encoder: only embedding the golden window can tell."""
    with np.load(copy / "golden.npz") as arrays:
        imu, embedding = arrays["imu"], arrays["embedding"]
    np.savez(copy / "golden.npz", imu=imu, embedding=np.roll(embedding, 1))
    rehash(copy, "golden.npz")
    with pytest.raises(InputError, match="fails its self-test"):
        load_bundle(copy)


def test_a_missing_and_a_truncated_and_a_changed_file(copy: Path) -> None:
    path = copy / "prototypes.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(InputError, match="truncated or replaced"):
        load_bundle(copy)
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match="SHA-256"):
        load_bundle(copy)
    path.unlink()
    with pytest.raises(InputError, match=r"prototypes\.npz: missing"):
        load_bundle(copy)


def test_manifest_and_encoder_that_disagree_on_the_signal(copy: Path) -> None:
    edit(copy, lambda m: m["signal"].update(rate_hz=100))
    with pytest.raises(InputError, match=r"disagree on the signal \(rate_hz: 100 and 200\)"):
        load_bundle(copy)


def test_an_encoder_that_is_no_onnx_file(copy: Path) -> None:
    (copy / "encoder.onnx").write_bytes(b"not onnx")
    rehash(copy, "encoder.onnx")
    with pytest.raises(InputError, match="onnxruntime cannot load it"):
        load_bundle(copy)


def test_prototypes_are_never_unpickled(copy: Path) -> None:
    np.savez(copy / "prototypes.npz", prototypes=np.array([{"a": 1}], object), centre=np.zeros(512))
    rehash(copy, "prototypes.npz")
    with pytest.raises(InputError, match=r"prototypes\.npz: unreadable"):
        load_bundle(copy)


def test_prototypes_of_another_bank(copy: Path) -> None:
    edit(copy, lambda m: m["label_bank"].pop())
    with pytest.raises(InputError, match=r"\d+ prototypes for \d+ activities"):
        load_bundle(copy)
