"""A bundle: the folder that `edge-export` writes and the runtime runs.

* `manifest.json`: everything the runtime must know, and the sizes and hashes of the other files.
* `encoder.onnx`: one window -> one unit vector; its metadata repeats the signal contract.
* `prototypes.npz`: `prototypes` (A, 512) float16 of the label bank, `centre` (512,) float32.

Nothing in a bundle is unpickled or executed, and its files cannot lie outside its folder.
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

from edge.encoder import Encoder
from edge.spec import SIGNAL
from firmware_bridge.errors import InputError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ENCODER_FILE = "encoder.onnx"
PROTOTYPES_FILE = "prototypes.npz"

SIGNAL_KEY = "aura_edge.signal"
"""Key of the ONNX metadata entry that repeats the manifest's `signal`."""

DEFAULT_BUNDLE = Path(__file__).parent / "data" / "bundle"
"""The bundle that ships with the package."""

_REQUIRED = (
    "format_version",
    "id",
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


def load_bundle(folder: Path) -> Bundle:
    """Load and verify a bundle.

    Raises:
        InputError: what is missing, damaged or contradictory, and what to do.
    """
    manifest = _read_manifest(folder)
    for name in (ENCODER_FILE, PROTOTYPES_FILE):
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
    prototypes, centre = _read_prototypes(folder / PROTOTYPES_FILE)
    if len(prototypes) != len(manifest["label_bank"]):
        raise InputError(
            f"{folder}: {len(prototypes)} prototypes for {len(manifest['label_bank'])} activities "
            "of the label bank; export the bundle again"
        )
    return Bundle(folder, manifest, encoder, prototypes, centre)


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
    return dict(manifest)


def _verify_file(folder: Path, name: str, files: dict[str, Any]) -> None:
    path = folder / name
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


def _read_prototypes(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["prototypes"].astype(np.float32), arrays["centre"].astype(np.float32)
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: unreadable ({error}); export the bundle again") from None
