"""`edge-export`: turn a checkpoint into a bundle, or check one."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from edge.bundle import (
    ENCODER_FILE,
    FORMAT_VERSION,
    GOLDEN_FILE,
    PROTOTYPES_FILE,
    Bundle,
    load_bundle,
)
from edge.cli import version
from edge.decision import Decision
from edge.encoder import Encoder
from edge.resample import Resampler
from edge.spec import SIGNAL
from edge.text import TextEncoder
from edge.window import WindowCutter, every_hop
from edge.zeroshot import prototype
from export.manifest import bank_entry, put_in_place, staging
from export.parity import (
    LabelledWindows,
    Parity,
    compare,
    windows_of_corpora,
    windows_of_recording,
)
from export.variants import (
    IR_VERSION,
    OPSET,
    convert_float16,
    export_float32,
    quantize_int8_dynamic,
    quantize_int8_static,
    torch_embeddings,
)
from firmware_bridge.errors import AuraError, InputError
from firmware_bridge.sim import simulated_packets
from training.captions import (
    Activity,
    activity_of,
    label_bank,
    prompt_templates,
    with_trained,
)
from training.model import ImuEncoder
from training.models import DEFAULT_MODEL
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

_TIMED_ROUNDS = 200

_WITHOUT_DECISION, _WITHOUT_LEVELLING = 1, 2
"""Formats of bundles that decide by the cosine alone, and that level no labels: older runtimes read
them."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-export",
        description="Turn a checkpoint into a bundle: ONNX encoder, prototypes, manifest. "
        "`edge-export prototypes` and `edge-export text-encoder` extend a bundle.",
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="what edge-train fit wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bundle's folder")
    parser.add_argument(
        "--quantize",
        action="store_true",
        help="int8 instead of float32: the fastest variant that passes the parity gate",
    )
    parser.add_argument(
        "--heldout",
        type=Path,
        nargs="+",
        default=[],
        metavar="CORPUS",
        help="training-role corpora for calibration and the gate (default: the labelled windows "
        "of the shipped recording, and no static quantization)",
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of cut windows (default: `cache` beside OUT)"
    )
    parser.add_argument(
        "--decision",
        type=Path,
        metavar="FILE",
        help="what `edge-train fit-decision` wrote: what decides beside the cosine",
    )
    parser.add_argument("--force", action="store_true", help="write a bundle that fails the gate")
    parser.add_argument("--name", default="aura-edge", help="the bundle's name")
    parser.add_argument("--verify", type=Path, metavar="DIR", help="check a bundle and exit")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Convert a checkpoint, or verify a bundle."""
    args = _parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        if args.verify:
            print(verify(args.verify))
            return 0
        if not args.checkpoint or not args.out:
            raise InputError("give a checkpoint and --out DIR, or --verify DIR")
        job = Job(args.out, args.name, args.quantize, args.force, console, args.decision)
        cache = args.cache or args.out.parent / "cache"
        bundle = export(args.checkpoint, job, args.heldout, cache)
    except AuraError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return error.exit_code
    sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
    console.print(f"bundle {bundle.id}: {sizes} bytes", highlight=False)
    print(args.out)
    return 0


@dataclass(frozen=True)
class Job:
    """What is asked for."""

    out: Path
    name: str
    quantize: bool
    force: bool
    console: Console
    decision: Path | None = None
    """File of what decides beside the cosine; None: nothing."""


@dataclass(frozen=True)
class Variant:
    """An exported encoder and what was measured of it."""

    path: Path
    parity: Parity
    latency_ms: float
    """Median of one window on one thread of the exporting machine."""

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "bytes": self.path.stat().st_size,
            "latency_ms": round(self.latency_ms, 4),
            **self.parity.to_json(),
        }


def export(checkpoint: Path, job: Job, heldout: list[Path], cache: Path) -> Bundle:
    """Write a bundle and load it back as the runtime does.

    Raises:
        InputError: the checkpoint or the decision cannot be used, or the encoder fails the parity
            gate.
    """
    state = load_checkpoint(checkpoint)
    config = config_of(state)
    if config.model != DEFAULT_MODEL:
        raise InputError(
            f"{checkpoint}: holds the baseline {config.model!r}; only {DEFAULT_MODEL!r} becomes a "
            "bundle"
        )
    model = ImuEncoder(config.encoder)
    model.load_state_dict(state["model"])
    bank, decision = label_bank(), None
    if job.decision:
        bank, rows = with_trained(bank, state["provenance"]["activities"])
        decision = read_decision(job.decision, bank, rows)
        if decision.get("level_novel_labels") and "reference" not in state:
            raise InputError(
                f"{checkpoint}: holds no reference embeddings, which {job.decision} needs; they "
                "come with the end of a training: finish it with --resume, or train it again"
            )
    text_encoder = load_text_encoder(config.text_encoder)
    calibration, gate = None, windows_of_recording()
    if heldout:
        calibration, gate = windows_of_corpora(heldout, cache, job.console)
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_variants(model, Path(folder), job.quantize, calibration)
        at_stake = {a: prototype(activity_of(a).captions(), text_encoder) for a in gate.activity}
        variants = _measure(model, paths, gate, at_stake)
        chosen = _choose(variants, job)
        encoder = variants[chosen].path.read_bytes()
        parity = {
            "windows": _origin(heldout),
            "chosen": chosen,
            "variants": {name: v.to_json() for name, v in variants.items()},
        }
    prototypes = _prototypes(bank, text_encoder, job.console)
    manifest = {"name": job.name, **_manifest(state, config, model, text_encoder, bank)}
    manifest["encoder"]["weights"] = chosen
    manifest["parity"] = parity
    if decision is not None:
        # The scale that the decision was fitted under, in the place of the one training learned.
        manifest["logit_scale"] = decision.pop("logit_scale", manifest["logit_scale"])
        oldest_reader = FORMAT_VERSION if decision.get("level_novel_labels") else _WITHOUT_LEVELLING
        manifest |= {"decision": decision, "format_version": oldest_reader}
    levels = decision is not None and decision.get("level_novel_labels")
    reference = {"reference": state["reference"].numpy()} if levels else {}
    job.out.mkdir(parents=True, exist_ok=True)
    with staging(job.out) as staged:
        (staged / ENCODER_FILE).write_bytes(encoder)
        np.savez(
            staged / PROTOTYPES_FILE,
            prototypes=prototypes.astype(np.float16),
            centre=text_encoder.centre.astype(np.float32),
            **reference,
        )
        golden = golden_window()
        embedding = Encoder(staged / ENCODER_FILE).embed(golden)
        np.savez(staged / GOLDEN_FILE, imu=golden, embedding=embedding)
        names = (ENCODER_FILE, PROTOTYPES_FILE, GOLDEN_FILE)
        return put_in_place(job.out, staged, names, manifest)


def read_decision(path: Path, bank: tuple[Activity, ...], rows: list[int]) -> dict[str, Any]:
    """A manifest's `decision` from a file of `edge-train fit-decision`.

    Args:
        path: the file.
        bank: the bundle's activities.
        rows: those of them that the encoder was trained on.

    Raises:
        InputError: the file cannot be read, or the runtime would refuse the decision.
    """
    try:
        decision = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(decision, dict) or not isinstance(decision.get("vocabulary"), dict):
        raise InputError(f"{path}: not what `edge-train fit-decision` writes")
    decision["vocabulary"]["rows"] = rows
    scale = decision.get("logit_scale", 1.0)
    if not isinstance(scale, int | float) or not 0 < scale <= MAX_LOGIT_SCALE:
        raise InputError(f"{path}: logit_scale {scale!r} is no number above 0; fit it again")
    try:
        Decision.parse({"label_bank": [bank_entry(a, "") for a in bank], "decision": decision})
    except InputError as error:
        raise InputError(f"{path}: {error}; fit it again") from None
    return decision


def _origin(heldout: list[Path]) -> str:
    if not heldout:
        return "the shipped recording"
    return "of subjects not calibrated on, from " + ", ".join(p.name for p in heldout)


def _write_variants(
    model: ImuEncoder, folder: Path, quantize: bool, calibration: LabelledWindows | None
) -> dict[str, Path]:
    """Name -> file of every variant that was asked for; float32 is always there."""
    names = ["float32"]
    if quantize:
        names += ["float16", "int8-dynamic"] + (["int8-static"] if calibration else [])
    paths = {name: folder / f"{name}.onnx" for name in names}
    export_float32(model, paths["float32"])
    if quantize:
        convert_float16(paths["float32"], paths["float16"])
        quantize_int8_dynamic(paths["float32"], paths["int8-dynamic"])
    if quantize and calibration:
        quantize_int8_static(paths["float32"], paths["int8-static"], calibration.imu)
    return paths


def _measure(
    model: ImuEncoder,
    paths: dict[str, Path],
    gate: LabelledWindows,
    at_stake: dict[str, NDArray[np.float32]],
) -> dict[str, Variant]:
    """Parity of every variant, and latency in rounds that take the variants in turn."""
    reference = torch_embeddings(model, gate.imu)
    encoders = {name: Encoder(path) for name, path in paths.items()}
    parities = {
        name: compare(reference, np.stack([encoder.embed(w) for w in gate.imu]), gate, at_stake)
        for name, encoder in encoders.items()
    }
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(_TIMED_ROUNDS):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            encoder.embed(gate.imu[0])
            times[name].append((time.perf_counter() - began) * 1e3)
    return {
        name: Variant(paths[name], parities[name], float(np.median(times[name]))) for name in paths
    }


def _choose(variants: dict[str, Variant], job: Job) -> str:
    """The fastest variant that passes the gate; of int8 only, when that is asked for.

    Raises:
        InputError: none passes, and `force` is off.
    """
    job.console.print(_table(variants))
    eligible = [n for n in variants if n.startswith("int8") or not job.quantize]
    passing = [n for n in eligible if not variants[n].parity.shortfalls()]
    if not passing and not job.force:
        reasons = "; ".join(f"{n}: {', '.join(variants[n].parity.shortfalls())}" for n in eligible)
        raise InputError(
            f"the parity gate is not passed ({reasons}). Export without --quantize, or write the "
            "bundle all the same with --force"
        )
    return min(passing or eligible, key=lambda n: variants[n].latency_ms)


def _table(variants: dict[str, Variant]) -> Table:
    table = Table("", "MB", "ms", "worst cosine", "top-1 same", "macro-F1", "gate")
    for name, v in variants.items():
        p = v.parity
        table.add_row(
            Text(name, no_wrap=True),
            f"{v.path.stat().st_size / 1e6:.2f}",
            f"{v.latency_ms:.3f}",
            f"{p.worst_cosine:.4f}",
            f"{p.top1_agreement:.4f}",
            f"{p.macro_f1:.4f}",
            "; ".join(p.shortfalls()) or "passed",
        )
    return table


def _prototypes(
    bank: tuple[Activity, ...], encoder: TextEncoder, console: Console
) -> NDArray[np.float32]:
    """(A, D) prototype of every activity: the ensemble of all its captions."""
    steps = track(bank, description="prototypes of the label bank", console=console)
    return np.stack([prototype(activity.captions(), encoder) for activity in steps])


def golden_window() -> NDArray[np.float32]:
    """(6, 1000) of the simulated wearable's walk, with a gap: the self-test's input."""
    resampler, cutter = Resampler(), WindowCutter(every_hop(1.0))
    for packet in simulated_packets():
        if 22.0 < packet.t_s[0] < 22.4:
            continue
        for block in resampler.push(packet):
            for window in cutter.push(block):
                if window.start == 20 * SIGNAL.rate_hz:
                    return window.imu
    raise AssertionError("the simulated wearable never ends")


def _manifest(
    state: dict[str, Any],
    config: TrainConfig,
    model: ImuEncoder,
    text_encoder: TextEncoder,
    bank: tuple[Activity, ...],
) -> dict[str, Any]:
    """Everything the runtime must know of the encoder and its words."""
    logit_scale = min(float(state["log_logit_scale"].exp()), MAX_LOGIT_SCALE)
    trained_with = asdict(config)
    del trained_with["corpora"]  # paths of one workstation; the provenance has their names
    return {
        "format_version": _WITHOUT_DECISION,
        "version": version(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "signal": SIGNAL.to_json(),
        "normalisation": "inside the encoder: acceleration / 9.80665, angular rate / pi; the "
        "input is in SI units, NaN where missing",
        "encoder": {
            "parameters": sum(p.numel() for p in model.parameters()),
            "embedding_dim": config.encoder.embedding_dim,
            "opset": OPSET,
            "ir_version": IR_VERSION,
            "uses_placement": False,
        },
        "text": {
            "encoder": text_encoder.name,
            "space": "CLIP ViT-B/32 text, centred",
            "fidelity": getattr(text_encoder, "fidelity", None),
            "prompt_templates": list(prompt_templates()),
        },
        "logit_scale": round(logit_scale, 4),
        "default_labels": list(DEFAULT_LABELS),
        "training": {"config": trained_with, "steps": state["step"], **state["provenance"]},
        "files": {},
        "label_bank": [bank_entry(activity, text_encoder.name) for activity in bank],
    }


def verify(folder: Path) -> str:
    """Re-check a bundle: everything loading checks, and that the ONNX files are well formed.

    Returns:
        What it is, as JSON.

    Raises:
        InputError: what is wrong.
    """
    bundle = load_bundle(folder)
    for name in bundle.manifest["files"]:
        if name.endswith(".onnx"):
            try:
                onnx.checker.check_model(onnx.load(str(folder / name)), full_check=True)
            except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
                raise InputError(f"{folder / name}: not well formed ({error})") from None
    facts = {
        "id": bundle.id,
        "files": bundle.manifest["files"],
        "encoder": bundle.manifest["encoder"],
        "text_encoder": bundle.manifest["text"]["encoder"],
        "activities": len(bundle.bank_names),
        "trained_on": bundle.manifest["training"].get("corpora"),
        "parity": bundle.manifest.get("parity"),
    }
    return json.dumps(facts, indent=1)
