"""The files of an export: one file, a folder's or a zip's.

Nothing is extracted to disk and no name from an archive is ever joined to a path: names are looked
up in the list of what is there. What an archive claims to hold is bounded before it is read.
"""

from __future__ import annotations

import codecs
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

from firmware_bridge.errors import InputError

MAX_ZIP_FILE_BYTES = 4 << 30
"""Uncompressed size of one file of a zip: a day at 400 Hz has less than this."""

MAX_ZIP_ENTRIES = 1000
MAX_LINE_BYTES = 1 << 20
"""A line of a zipped file: what a few kilobytes unpack to must not fill the memory."""

_HEAD_BYTES = 1 << 16
_READ_FAILURES = (zipfile.BadZipFile, zlib.error, EOFError)
_CHINESE_ACCELERATION = "加速度"


@dataclass(frozen=True)
class TextFile:
    """A file that can be opened as text, as often as needed."""

    name: str
    label: str
    """What messages call it: its path, or the archive's path and its name in there."""

    open_bytes: Callable[[], AbstractContextManager[IO[bytes]]]

    @contextmanager
    def open(self, encoding: str) -> Iterator[IO[str]]:
        """The text with its line ends as they are; undecodable bytes become U+FFFD.

        Raises:
            InputError: the archive is damaged, here or while the text is read.
        """
        with self._bytes() as binary:
            yield io.TextIOWrapper(binary, encoding=encoding, errors="replace", newline="")

    def encoding(self) -> str:
        """UTF-8, or what else the file's first 64 KiB are written in.

        Raises:
            InputError: no such file, a folder, not text.
        """
        with self._bytes() as binary:
            head = binary.read(_HEAD_BYTES)
        if b"\0" in head:
            raise InputError(f"{self.label}: not a text file; export the recording as CSV")
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)
            return "utf-8-sig"
        except UnicodeDecodeError:
            # WitMotion's Chinese software writes GBK; a degree sign alone may be Latin-1.
            chinese = _CHINESE_ACCELERATION.encode("gb18030") in head
            return "gb18030" if chinese else "latin-1"

    def lines(self, encoding: str, n: int) -> list[str]:
        """The first `n` lines."""
        with self.open(encoding) as file:
            return list(islice(file, n))

    def head(self, n_bytes: int) -> bytes:
        """At most the first `n_bytes` bytes."""
        with self._bytes() as binary:
            return binary.read(n_bytes)

    @contextmanager
    def _bytes(self) -> Iterator[IO[bytes]]:
        try:
            with self.open_bytes() as binary:
                yield binary
        except FileNotFoundError:
            raise InputError(f"{self.label}: no such file") from None
        except IsADirectoryError:
            raise InputError(f"{self.label}: is a folder; give one recorded file") from None
        except _READ_FAILURES as error:
            raise InputError(
                f"{self.label}: damaged in the archive ({error}); export the recording again"
            ) from None


def plain_file(path: Path) -> TextFile:
    """A file on disk."""
    return TextFile(path.name, str(path), lambda: path.open("rb"))


@dataclass(frozen=True)
class Container:
    """The files of a folder or a zip, by name ('meta/time.csv' for one in a folder of it)."""

    label: str
    files: dict[str, TextFile]
    is_zip: bool

    def named(self, *names: str) -> TextFile | None:
        """The first of these files that is there."""
        return next((self.files[name] for name in names if name in self.files), None)


def open_container(path: Path) -> Container | None:
    """The folder or zip at `path`, None if it is a plain file or not there.

    Raises:
        InputError: a zip that is damaged, encrypted, an Excel sheet, or absurdly large.
    """
    if path.is_dir():
        found = [*path.iterdir(), *(path / "meta").glob("*.csv")]
        files = {p.relative_to(path).as_posix(): plain_file(p) for p in found if p.is_file()}
        return Container(str(path), files, is_zip=False)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
    except _READ_FAILURES as error:
        raise InputError(f"{path}: a damaged zip ({error}); export the recording again") from None
    return Container(str(path), _zip_files(path, entries), is_zip=True)


def _zip_files(path: Path, entries: list[zipfile.ZipInfo]) -> dict[str, TextFile]:
    entries = [e for e in entries if not e.filename.startswith("__MACOSX/")]
    if any(e.filename == "xl/workbook.xml" for e in entries):
        raise InputError(f"{path}: an Excel file; export the recording as CSV instead")
    if len(entries) > MAX_ZIP_ENTRIES:
        raise InputError(
            f"{path}: holds {len(entries)} files; an export of one recording holds a few, so give "
            "the zip of one recording"
        )
    # An app, or the user, may have zipped the folder rather than the files in it.
    tops = {PurePosixPath(e.filename).parts[0] for e in entries}
    nested = len(tops) == 1 and all(len(PurePosixPath(e.filename).parts) > 1 for e in entries)
    prefix = f"{tops.pop()}/" if nested else ""
    files: dict[str, TextFile] = {}
    for entry in entries:
        name = entry.filename.removeprefix(prefix)
        files.setdefault(
            name, TextFile(name, f"{path}/{entry.filename}", partial(_open_entry, path, entry))
        )
    return files


@contextmanager
def _open_entry(path: Path, entry: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    if entry.flag_bits & 1:
        raise InputError(f"{path}/{entry.filename}: is encrypted; export it without a password")
    if entry.file_size > MAX_ZIP_FILE_BYTES:
        raise InputError(
            f"{path}/{entry.filename}: claims to be {entry.file_size / 2**30:.0f} GiB large, more "
            f"than the {MAX_ZIP_FILE_BYTES >> 30} GiB that are read from a zip; unpack it and give "
            "the folder"
        )
    try:
        # The module reads no more than the claimed size, so that it binds.
        with zipfile.ZipFile(path) as archive, archive.open(entry) as raw:
            yield io.BufferedReader(_BoundedLines(raw, f"{path}/{entry.filename}"), _HEAD_BYTES)
    except NotImplementedError as error:
        raise InputError(
            f"{path}/{entry.filename}: packed in a way that is not read here ({error}); unpack it "
            "and give the folder"
        ) from None


class _BoundedLines(io.RawIOBase):
    """Bytes of an archive, refused when a line does not end."""

    def __init__(self, raw: IO[bytes], label: str) -> None:
        self._raw = raw
        self._label = label
        self._open_line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._open_line = len(data) - end - 1 if end >= 0 else self._open_line + len(data)
        if self._open_line > MAX_LINE_BYTES:
            raise InputError(
                f"{self._label}: a line of more than {MAX_LINE_BYTES >> 20} MiB; no recording has "
                "such lines"
            )
        return len(data)
