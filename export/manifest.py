"""What every command that writes a bundle shares: file entries, files put in place."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import MANIFEST, Bundle, load_bundle, manifest_id
from edge.text import TextEncoder
from firmware_bridge.errors import AuraError, InputError
from training.captions import Activity


def file_entries(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The manifest's entries under `files`: size and SHA-256 of each, in the order given."""
    return {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in names
    }


def bank_entry(activity: Activity, made_by: str) -> dict[str, Any]:
    """An activity as the manifest's `label_bank` has it.

    Args:
        activity: what it is about.
        made_by: name of the text encoder that made its prototype.
    """
    entry: dict[str, Any] = {"name": activity.name, "group": activity.group}
    if activity.posture is not None:
        entry["posture"] = activity.posture
    return entry | {"aliases": list(activity.aliases), "text_encoder": made_by}


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder inside a bundle's, for files in the making; gone afterwards, whatever happens.

    Inside, because a file can only be moved in one step within a file system.

    Raises:
        AuraError: nothing can be written there.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".changing-", dir=folder) as staged:
            yield Path(staged)
    except OSError as error:
        raise AuraError(
            f"{folder}: cannot be written ({error.strerror or error}); use a folder, or a copy of "
            "the bundle, that you may write to"
        ) from None


def put_in_place(
    folder: Path, staged: Path, names: Sequence[str], manifest: dict[str, Any]
) -> Bundle:
    """Replace or add a bundle's files, then its manifest, and load the bundle as the runtime does.

    Each file is replaced in one step and the manifest last: whoever loads the bundle meanwhile, or
    after a crash, gets the old bundle, the new one, or an error on its hashes, never a mixture.

    Args:
        folder: the bundle.
        staged: what `staging` gave, holding the new files.
        names: the new files.
        manifest: the new manifest; its `files` and `id` are written here.
    """
    manifest["files"] = {**manifest.get("files", {}), **file_entries(staged, names)}
    manifest["id"] = manifest_id(manifest)
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (staged / MANIFEST).write_text(text + "\n", encoding="utf-8")
    for name in (*names, MANIFEST):
        (staged / name).replace(folder / name)
    return load_bundle(folder)


def check_space(bundle: Bundle, encoder: TextEncoder) -> None:
    """Refuse a text encoder whose vectors are centred elsewhere than the bundle's prototypes.

    Raises:
        InputError: the two cannot be compared.
    """
    same = bundle.centre.shape == encoder.centre.shape and np.allclose(
        bundle.centre, encoder.centre, atol=1e-6
    )
    if not same:
        raise InputError(
            f"{bundle.folder}: its prototypes are centred on another mean text vector than that of "
            f"the text encoder {encoder.name!r}; export the bundle again with that encoder"
        )
