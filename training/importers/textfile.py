"""Fast reading of text tables, with errors that name file and line."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from firmware_bridge.errors import InputError


def table(
    path: Path,
    columns: int,
    delimiter: str | None = None,
    *,
    use: Sequence[int] | None = None,
    data: bytes | None = None,
) -> NDArray[np.float64]:
    """Read a text table of numbers without a header line: (rows, columns), NaN where it says so.

    Args:
        path: the file.
        columns: how many columns every line has to have.
        delimiter: between columns; None for any white space.
        use: the columns to keep, in this order; all by default.
        data: the file's content where it does not lie at `path` itself (in an archive).

    Raises:
        InputError: the file is missing or holds nothing, or a line has another number of columns or
            something that is no number; names file and line.
    """
    wanted = list(range(columns)) if use is None else list(use)
    try:
        if delimiter is None:
            rows = _read_blanks(path, data)
            if rows.shape[1] != columns:
                raise ValueError("another number of columns in every line")
            return rows[:, wanted]
        names = [str(i) for i in range(columns)]
        types = {str(i): float for i in wanted}
        found = _read_csv(path, data, types, delimiter, names)
        return np.stack([found[str(i)] for i in wanted], axis=1)
    except (ValueError, OSError, pa.ArrowInvalid) as error:
        kinds = [float] * columns
        raise _named_line(path, data, kinds, delimiter, header=False, error=error) from None


def csv_columns(
    path: Path,
    types: Mapping[str, type],
    delimiter: str = ",",
    *,
    header: bool = True,
    data: bytes | None = None,
) -> dict[str, NDArray[Any]]:
    """Read columns of a CSV file: name -> (N,) float64, int64 or str (object) values.

    Args:
        path: the file.
        types: column name -> float, int or str. With a header line the columns to read, wherever
            they stand; without one all columns in file order.
        delimiter: between columns.
        header: the first line names the columns.
        data: the file's content where it does not lie at `path` itself (in an archive).

    Raises:
        InputError: the file is missing or holds nothing, a column is missing, or a line has another
            number of columns or something that is no number; names file and line.
    """
    names, kinds = None, list(types.values())
    try:
        if header:
            present = _header(path, data, delimiter)
            absent = [name for name in types if name not in present]
            if absent:
                raise InputError(
                    f"{path}:1: no column {', '.join(absent)}; found: {', '.join(present)[:200]}"
                )
            kinds = [types.get(name, str) for name in present]
        else:
            names = list(types)
        return _read_csv(path, data, types, delimiter, names)
    except (ValueError, OSError, pa.ArrowInvalid) as error:
        raise _named_line(path, data, kinds, delimiter, header=header, error=error) from None


def _open(path: Path, data: bytes | None) -> IO[str]:
    if data is None:
        return path.open(encoding="utf-8-sig", errors="replace")
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="replace")


def _header(path: Path, data: bytes | None, delimiter: str) -> list[str]:
    with _open(path, data) as lines:
        return [name.strip().strip('"') for name in lines.readline().split(delimiter)]


def _read_blanks(path: Path, data: bytes | None) -> NDArray[np.float64]:
    with _open(path, data) as lines, warnings.catch_warnings(action="error"):
        try:
            return np.loadtxt(lines, comments=None, ndmin=2)
        except UserWarning as error:  # numpy only warns of an empty file
            raise ValueError(str(error)) from None


def _read_csv(
    path: Path,
    data: bytes | None,
    types: Mapping[str, type],
    delimiter: str,
    names: list[str] | None,
) -> dict[str, NDArray[Any]]:
    arrow = {float: pa.float64(), int: pa.int64(), str: pa.string()}
    found = csv.read_csv(
        path if data is None else io.BytesIO(data),
        csv.ReadOptions(column_names=names),
        csv.ParseOptions(delimiter=delimiter),
        csv.ConvertOptions(
            column_types={name: arrow[kind] for name, kind in types.items()},
            include_columns=list(types),
            null_values=["NaN", "nan", "NAN"],
        ),
    )
    if names and not found.num_rows:
        raise ValueError("no rows")
    return {name: found[name].to_numpy() for name in types}


def _named_line(
    path: Path,
    data: bytes | None,
    kinds: Sequence[type],
    delimiter: str | None,
    *,
    header: bool,
    error: Exception,
) -> InputError:
    """The fast readers do not name lines of the file: look for the one they stumbled over."""
    if isinstance(error, OSError):
        return InputError(f"{path}: cannot be read ({error.strerror})")
    rows = 0
    with _open(path, data) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip() or (header and number == 1):
                continue
            rows += 1
            fields = line.split(delimiter)
            if len(fields) != len(kinds):
                return InputError(f"{path}:{number}: {len(fields)} columns; expected {len(kinds)}")
            for column, (text, kind) in enumerate(zip(fields, kinds, strict=True), start=1):
                try:
                    kind(text)
                except ValueError:
                    return InputError(
                        f"{path}:{number}: column {column} is {text.strip()!r}; expected a number"
                    )
    return InputError(f"{path}: {f'cannot be read ({error})' if rows else 'holds no data'}")
