"""Which entries of a folder are recordings.

Every file, zip and folder export that `edge.recording.open_recording` takes, in subfolders too. An
app's export of several files, as a folder or a zip, is one recording. Only headers are read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge.formats import open_export
from edge.formats.export import Export
from edge.formats.files import Container, plain_file
from edge.formats.folders import open_folder
from edge.formats.headers import acc_axes, gyro_axes, refuse_gravity_free
from edge.formats.table import candidates
from edge.raw import is_raw, read_raw
from firmware_bridge.errors import InputError


class Task(NamedTuple):
    """A recording that is to be labelled."""

    name: str
    """Its path within the folder, with /; "." for the folder itself."""

    path: Path
    size: int
    """Bytes of its files."""

    stamp: str
    """Changes when a file of it does: a digest of their names, sizes and times of change."""


@dataclass(frozen=True)
class Found:
    """What there is in a folder, each list in the order of names."""

    recordings: list[Task] = field(default_factory=list)
    refused: list[tuple[Task, str]] = field(default_factory=list)
    """Meant as recordings, but cannot be read; and why."""

    others: list[tuple[str, str]] = field(default_factory=list)
    """Names of all other files, and why they are no recordings."""


def find_recordings(folder: Path, skip: Path) -> Found:
    """Look for recordings in a folder and its subfolders. Hidden entries are passed over, links to
    folders are not followed.

    Args:
        folder: where to look.
        skip: a folder that is passed over if it lies in there.

    Raises:
        InputError: there is no such folder, or one in there cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = Found()
    try:
        _walk(folder, folder, skip.resolve(), found)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
    for task in [task for task in found.recordings if not _is_utf8(task.path)]:
        found.recordings.remove(task)
        found.refused.append((task, "its name is not valid UTF-8; rename it"))
    for kind in (found.recordings, found.refused, found.others):
        kind.sort()
    return found


def _walk(root: Path, folder: Path, skip: Path, found: Found) -> None:
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX")))
    files = [p for p in entries if p.is_file()]
    export, refusal = _folder_export(folder)
    if export:
        found.recordings.append(_task(root, folder))
        found.others.extend(_beside(root, export, files))
    else:
        apart = Found()
        for path in files:
            _sort_in(root, path, apart)
        if refusal and not apart.recordings:
            # What is wrong with the export says more than what is wrong with each of its files.
            found.refused.append((_task(root, folder), refusal))
        else:
            found.recordings.extend(apart.recordings)
            found.refused.extend(apart.refused)
            found.others.extend(apart.others)
    for path in entries:
        if not path.is_dir() or path.resolve() == skip or (export and path.name == "meta"):
            continue
        if path.is_symlink():
            found.others.append((_name(root, path), "a link to a folder is not followed"))
        else:
            _walk(root, path, skip, found)


def _folder_export(folder: Path) -> tuple[Export | None, str]:
    """The export that a folder is; or why it cannot be read, empty where it is simply none."""
    try:
        return open_export(folder), ""
    except InputError as error:
        return None, "" if str(error) == _nothing_known(folder, is_zip=False) else str(error)


def _nothing_known(path: Path, is_zip: bool) -> str:
    """What is said of a folder or zip that holds nothing of an export."""
    try:
        open_folder(Container(str(path), {}, is_zip))
    except InputError as error:
        return str(error)
    raise AssertionError("nothing was opened as a recording")


def _beside(root: Path, export: Export, files: list[Path]) -> list[tuple[str, str]]:
    """Files in the folder of an export that would be recordings if they lay elsewhere."""
    of_export = {part.label for part in export.parts}
    found = Found()
    for path in files:
        if str(path) not in of_export:
            _sort_in(root, path, found)
    why = "lies among the files of another recording; give it a folder of its own"
    return [(task.name, why) for task in found.recordings]


def _sort_in(root: Path, path: Path, found: Found) -> None:
    """Put a file where it belongs."""
    try:
        if is_raw(path):
            read_raw(path, [])
        else:
            open_export(path)
    except InputError as error:
        if _is_meant(path, str(error)):
            found.refused.append((_task(root, path), str(error)))
        else:
            why = str(error).removeprefix(f"{path}: ")
            found.others.append((_name(root, path), why))
    except OSError as error:
        found.refused.append((_task(root, path), f"{path}: cannot be read ({error.strerror})"))
    else:
        found.recordings.append(_task(root, path))


def _is_meant(path: Path, refusal: str) -> bool:
    """Whether a file that cannot be read seems to be a recording all the same, so that the user has
    to know; a picture or a table of subjects is none."""
    if is_raw(path):
        return not _is_other_parquet(path)
    if path.suffix.lower() == ".zip":
        return refusal != _nothing_known(path, is_zip=True)
    file = plain_file(path)
    try:
        tables = list(candidates(file))
    except InputError:  # not text
        return path.suffix.lower() == ".cbor"
    try:
        for table in tables:
            refuse_gravity_free(table)
            if acc_axes(table) or gyro_axes(table):
                return True
    except InputError:
        return True
    return False


def _is_other_parquet(path: Path) -> bool:
    """Whether a Parquet file is whole, and of another program."""
    from pyarrow import ArrowException, parquet

    try:
        return b"aura_edge" not in (parquet.read_schema(path).metadata or {})
    except (ArrowException, OSError):
        return False


def _task(root: Path, path: Path) -> Task:
    files = [path] if path.is_file() else sorted(p for p in _export_files(path) if p.is_file())
    stats = [(_name(root, p), p.stat()) for p in files]
    lines = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return Task(_name(root, path), path, sum(stat.st_size for _, stat in stats), digest)


def _export_files(folder: Path) -> Iterable[Path]:
    return [*folder.iterdir(), *(folder / "meta").glob("*")]


def _name(root: Path, path: Path) -> str:
    name = path.relative_to(root).as_posix()
    return name.encode(errors="backslashreplace").decode()


def _is_utf8(path: Path) -> bool:
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True
