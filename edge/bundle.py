"""A bundle: the folder that `edge-export` writes and the runtime runs.

* `manifest.json`: everything the runtime must know, and the sizes and hashes of the other files.
* `encoder.onnx`: one window -> one unit vector; its metadata repeats the signal contract.
* `prototypes.npz`: `prototypes` (A, 512) float16 of the label bank, `centre` (512,) float32, and
  perhaps `reference` (R, 512) float16, what the encoder makes of windows of all kinds.
* `golden.npz`: a window `imu` (6, 1000) and its `embedding` (512,); loading embeds it again.
* optionally `text_encoder.onnx` and `vocab.txt`, for labels outside the bank.

`export/BUNDLE.md` specifies the format. Nothing in a bundle is unpickled or executed, and its files
cannot lie outside its folder.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.decision import Decision
from edge.encoder import Encoder
from edge.spec import SIGNAL
from firmware_bridge.errors import InputError

FORMAT_VERSION = 3
"""Version 2 may hold a `decision`, which may level novel labels from version 3 on; without one, a
bundle decides as those of version 1 do."""

MANIFEST = "manifest.json"
ENCODER_FILE = "encoder.onnx"
PROTOTYPES_FILE = "prototypes.npz"
GOLDEN_FILE = "golden.npz"

MIN_GOLDEN_COSINE = 0.98
"""Between the golden embedding and this machine's: int8 arithmetic may round otherwise elsewhere,
another encoder is far below."""

SIGNAL_KEY = "aura_edge.signal"
"""Key of the ONNX metadata entry that repeats the manifest's `signal`."""

DEFAULT_BUNDLE = Path(__file__).parent / "data" / "bundle"
"""The bundle that ships with the package."""

_REQUIRED = (
    "format_version",
    "id",
    "name",
    "signal",
    "encoder",
    "text",
    "logit_scale",
    "label_bank",
    "default_labels",
    "files",
    "training",
)


def normalised(label: str) -> str:
    """The form in which labels are compared: lower case, single spaces, no _ or -."""
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    manifest: dict[str, Any]
    encoder: Encoder
    prototypes: NDArray[np.float32]
    """(A, D) prototype of each activity of the label bank."""

    centre: NDArray[np.float32]
    """(D,) mean text vector that the prototypes are centred on."""

    reference: NDArray[np.float32] | None = None
    """(R, D) embeddings of windows of all kinds; what is usual for a label is told by them."""

    @property
    def id(self) -> str:
        """Identifies encoder and prototypes together."""
        return str(self.manifest["id"])

    @property
    def logit_scale(self) -> float:
        """Multiplier of the similarities in the softmax."""
        return float(self.manifest["logit_scale"])

    @cached_property
    def bank(self) -> dict[str, int]:
        """Every name and alias of the label bank, normalised -> row of its prototype."""
        return {
            normalised(wording): row
            for row, activity in enumerate(self.manifest["label_bank"])
            for wording in (activity["name"], *activity["aliases"])
        }

    @cached_property
    def bank_names(self) -> list[str]:
        """The activities' names, in the order of `prototypes`."""
        return [activity["name"] for activity in self.manifest["label_bank"]]

    @cached_property
    def decision(self) -> Decision | None:
        """What decides beside the cosine; None in a bundle that says nothing of it.

        Raises:
            InputError: it is malformed; never of a bundle that `load_bundle` returned.
        """
        try:
            return Decision.parse(self.manifest)
        except InputError as error:
            raise InputError(
                f"{self.folder / MANIFEST}: {error}; export the bundle again"
            ) from None


def load_bundle(folder: Path) -> Bundle:
    """Load and verify a bundle.

    Raises:
        InputError: what is missing, damaged or contradictory, and what to do.
    """
    manifest = _read_manifest(folder)
    for name in {ENCODER_FILE, PROTOTYPES_FILE, GOLDEN_FILE, *manifest["files"]}:
        _verify_file(folder, name, manifest["files"])
    encoder = Encoder(folder / ENCODER_FILE)
    in_onnx = encoder.metadata.get(SIGNAL_KEY)
    if in_onnx is None or json.loads(in_onnx) != manifest["signal"]:
        raise InputError(
            f"{folder}: manifest.json and the encoder's own metadata disagree on the signal "
            f"({_first_difference(manifest['signal'], in_onnx)}). The files belong to two "
            "bundles: export it again."
        )
    if manifest["signal"] != SIGNAL.to_json():
        raise InputError(
            f"{folder}: its encoder expects another signal than this runtime makes "
            f"({_first_difference(manifest['signal'], json.dumps(SIGNAL.to_json()))})"
        )
    prototypes, centre, reference = _read_prototypes(folder / PROTOTYPES_FILE)
    if len(prototypes) != len(manifest["label_bank"]):
        raise InputError(
            f"{folder}: {len(prototypes)} prototypes for {len(manifest['label_bank'])} activities "
            "of the label bank; export the bundle again"
        )
    bundle = Bundle(folder, manifest, encoder, prototypes, centre, reference)
    decision = bundle.decision  # parsed here, so that a malformed one is refused here
    if decision and decision.levels_novel and reference is None:
        raise InputError(
            f"{folder / PROTOTYPES_FILE}: no array `reference`, which decision.level_novel_labels "
            "needs; export the bundle again"
        )
    _check_golden(folder / GOLDEN_FILE, encoder)
    return bundle


def manifest_id(manifest: dict[str, Any]) -> str:
    """The id of a manifest: its name and a digest of all the rest, file hashes included."""
    rest = {key: value for key, value in manifest.items() if key != "id"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return f"{manifest['name']}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path}: missing; --bundle takes a folder that edge-export wrote"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error}); export the bundle again") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"{path}: bundle format {version}, this runtime reads up to {FORMAT_VERSION}; "
            "update aura-edge"
        )
    absent = [k for k in _REQUIRED if not isinstance(manifest, dict) or k not in manifest]
    if absent:
        raise InputError(f"{path}: no field {', '.join(absent)}; export the bundle again")
    if manifest["id"] != manifest_id(manifest):
        raise InputError(
            f"{path}: was edited after the export (its contents do not give its id "
            f"{manifest['id']}); change labels with `edge-export prototypes`, else export it again"
        )
    return dict(manifest)


def _verify_file(folder: Path, name: str, files: dict[str, Any]) -> None:
    path = folder / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"{folder / MANIFEST}: file name {name!r} leads out of the bundle")
    if name not in files:
        raise InputError(f"{folder / MANIFEST}: no entry for {name} under `files`")
    if not path.is_file():
        raise InputError(f"{path}: missing; the bundle is incomplete, copy or export it again")
    content, expected = path.read_bytes(), files[name]
    if len(content) != expected["bytes"]:
        raise InputError(
            f"{path}: {len(content)} bytes, the manifest says {expected['bytes']}; "
            "the file is truncated or replaced, copy or export the bundle again"
        )
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise InputError(
            f"{path}: its SHA-256 is not the manifest's; the file was changed or belongs to "
            "another bundle, copy or export the bundle again"
        )


def _first_difference(signal: dict[str, Any], other: str | None) -> str:
    if other is None:
        return "the encoder carries none"
    theirs = json.loads(other)
    for key in sorted(signal.keys() | theirs.keys()):
        if signal.get(key) != theirs.get(key):
            return f"{key}: {signal.get(key)} and {theirs.get(key)}"
    return "no difference"


def _read_prototypes(
    path: Path,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
    """Prototypes, centre and reference embeddings, where there are any."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            reference = arrays["reference"].astype(np.float32) if "reference" in arrays else None
            prototypes, centre = (arrays[k].astype(np.float32) for k in ("prototypes", "centre"))
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: unreadable ({error}); export the bundle again") from None
    if reference is not None and reference.shape[1:] != prototypes.shape[1:]:
        raise InputError(
            f"{path}: `reference` has shape {reference.shape}, expected "
            f"(R, {prototypes.shape[1]}); export the bundle again"
        )
    return prototypes, centre, reference


def _check_golden(path: Path, encoder: Encoder) -> None:
    """Embed the golden window: the encoder works on this machine, and is the one exported."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            imu, expected = arrays["imu"].astype(np.float32), arrays["embedding"]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: unreadable ({error}); export the bundle again") from None
    cosine = float(encoder.embed(imu) @ expected)
    if not cosine >= MIN_GOLDEN_COSINE:
        raise InputError(
            f"{path}: the encoder fails its self-test (cosine {cosine:.3f} to the embedding it "
            f"should give, at least {MIN_GOLDEN_COSINE} expected): it is another encoder, or this "
            "processor computes int8 otherwise; export the bundle again, without --quantize if "
            "that does not help"
        )
