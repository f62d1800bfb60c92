"""`python -m export` / `edge-export`: turn a checkpoint into a bundle."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge.bundle import (
    ENCODER_FILE,
    FORMAT_VERSION,
    MANIFEST,
    PROTOTYPES_FILE,
    Bundle,
    load_bundle,
)
from edge.cli import version
from edge.spec import SIGNAL
from edge.text import TextEncoder
from edge.zeroshot import prototype
from export.onnx_export import OPSET, export_encoder, torch_embeddings
from firmware_bridge.errors import AuraError
from training.captions import PROMPT_TEMPLATES, Activity, label_bank
from training.model import ImuEncoder
from training.text_encoders import load_text_encoder
from training.train import MAX_LOGIT_SCALE, TrainConfig, config_of, load_checkpoint

DEFAULT_LABELS = (
    "walking",
    "jogging",
    "climbing stairs",
    "descending stairs",
    "sitting",
    "standing",
    "lying",
    "cycling",
    "jumping",
    "brushing teeth",
    "typing",
    "eating soup",
    "folding clothes",
    "clapping",
    "swimming",
)
"""What is told apart when the user names no labels: a day's common activities."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-export",
        description="Turn a checkpoint into a bundle: ONNX encoder, prototypes, manifest.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="what edge-train fit wrote")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the bundle's folder"
    )
    parser.add_argument("--quantize", action="store_true", help="int8 instead of float32 weights")
    parser.add_argument("--name", default="aura-edge", help="the bundle's name")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `edge-export`."""
    args = _parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        bundle = export(args.checkpoint, args.out, args.quantize, args.name, console)
    except AuraError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return error.exit_code
    sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
    console.print(f"bundle {bundle.id}: {sizes} bytes", highlight=False)
    print(args.out)
    return 0


def export(checkpoint: Path, out: Path, quantize: bool, name: str, console: Console) -> Bundle:
    """Write a bundle and load it back as the runtime does.

    Raises:
        InputError: the checkpoint cannot be used.
    """
    state = load_checkpoint(checkpoint)
    config = config_of(state)
    model = ImuEncoder(config.encoder)
    model.load_state_dict(state["model"])
    text_encoder = load_text_encoder(config.text_encoder)
    bank = label_bank()
    out.mkdir(parents=True, exist_ok=True)
    export_encoder(model, out / ENCODER_FILE, quantize)
    prototypes = _prototypes(bank, text_encoder, console)
    np.savez(
        out / PROTOTYPES_FILE,
        prototypes=prototypes.astype(np.float16),
        centre=text_encoder.centre.astype(np.float32),
    )
    manifest = _manifest(state, config, model, text_encoder, bank, quantize, name)
    manifest["files"] = {
        file: {
            "bytes": (out / file).stat().st_size,
            "sha256": hashlib.sha256((out / file).read_bytes()).hexdigest(),
        }
        for file in (ENCODER_FILE, PROTOTYPES_FILE)
    }
    hashes = "".join(entry["sha256"] for entry in manifest["files"].values())
    manifest["id"] = f"{name}-{hashlib.sha256(hashes.encode()).hexdigest()[:12]}"
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (out / MANIFEST).write_text(text + "\n", encoding="utf-8")
    bundle = load_bundle(out)
    worst = _worst_cosine(model, bundle)
    console.print(f"worst cosine between torch and ONNX over 64 noise windows: {worst:.4f}")
    return bundle


def _prototypes(
    bank: tuple[Activity, ...], encoder: TextEncoder, console: Console
) -> NDArray[np.float32]:
    """(A, D) prototype of every activity: the ensemble of all its captions."""
    steps = track(bank, description="prototypes of the label bank", console=console)
    return np.stack([prototype(activity.captions(), encoder) for activity in steps])


def _manifest(
    state: dict[str, Any],
    config: TrainConfig,
    model: ImuEncoder,
    text_encoder: TextEncoder,
    bank: tuple[Activity, ...],
    quantize: bool,
    name: str,
) -> dict[str, Any]:
    """Everything the runtime must know, but for the files' hashes."""
    logit_scale = min(float(state["log_logit_scale"].exp()), MAX_LOGIT_SCALE)
    trained_with = asdict(config)
    del trained_with["corpora"]  # paths of one workstation; the provenance has their names
    return {
        "format_version": FORMAT_VERSION,
        "id": "",
        "name": name,
        "version": version(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "signal": SIGNAL.to_json(),
        "normalisation": "inside the encoder: acceleration / 9.80665, angular rate / pi; the "
        "input is in SI units, NaN where missing",
        "encoder": {
            "weights": "int8, dynamic quantization of matrix products" if quantize else "float32",
            "parameters": sum(p.numel() for p in model.parameters()),
            "embedding_dim": config.encoder.embedding_dim,
            "opset": OPSET,
            "uses_placement": False,
        },
        "text": {
            "encoder": text_encoder.name,
            "space": "CLIP ViT-B/32 text, centred",
            "fidelity": getattr(text_encoder, "fidelity", None),
            "prompt_templates": list(PROMPT_TEMPLATES),
        },
        "logit_scale": round(logit_scale, 4),
        "default_labels": list(DEFAULT_LABELS),
        "training": {"config": trained_with, "steps": state["step"], **state["provenance"]},
        "label_bank": [
            {
                "name": activity.name,
                "group": activity.group,
                "aliases": list(activity.aliases),
                "text_encoder": text_encoder.name,
            }
            for activity in bank
        ],
    }


def _worst_cosine(model: ImuEncoder, bundle: Bundle) -> float:
    """Smallest cosine between the torch and the exported encoder's embeddings."""
    rng = np.random.default_rng(0)
    shape = (64, len(SIGNAL.channels), SIGNAL.window_samples)
    drift = np.cumsum(rng.normal(0, 0.1, shape), axis=2) + rng.normal(0, 3, (*shape[:2], 1))
    windows = drift.astype(np.float32)
    reference = torch_embeddings(model, windows)
    exported = np.stack([bundle.encoder.embed(window) for window in windows])
    return float((reference * exported).sum(axis=1).min())


if __name__ == "__main__":
    sys.exit(main())
