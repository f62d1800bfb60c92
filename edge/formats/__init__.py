"""What apps and devices export, recognised by names and headers, as streams of raw rows."""

from __future__ import annotations

from pathlib import Path

from edge.formats.edge_impulse import open_json
from edge.formats.export import Export
from edge.formats.files import open_container, plain_file
from edge.formats.folders import open_folder
from edge.formats.headers import open_table
from firmware_bridge.errors import InputError


def open_export(path: Path) -> Export:
    """The recording at `path`: a file, a folder or a zip. No more than headers is read.

    Raises:
        InputError: nothing there that is understood; what was found, what was expected.
    """
    container = open_container(path)
    if container:
        return open_folder(container)
    file = plain_file(path)
    if path.suffix.lower() == ".cbor":
        raise InputError(f"{path}: CBOR is not read; export the recording as JSON or CSV")
    if path.suffix.lower() == ".json":
        return open_json(file)
    return open_table(file)
