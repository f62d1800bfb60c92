"""HHAR (heterogeneity): phones at the waist, watches at the wrists; 9 subjects, 6 activities.

Source: https://archive.ics.uci.edu/dataset/344/heterogeneity+activity+recognition (Activity
    recognition exp.zip); Stisen et al., SenSys 2015.
Files: Phones_accelerometer.csv, Phones_gyroscope.csv, Watch_accelerometer.csv and
    Watch_gyroscope.csv with the columns Index, Arrival_Time, Creation_Time, x, y, z, User, Model,
    Device, gt. All devices of all users in one file, 13 million lines: read in pieces, with about
    1 GB of memory for the two files of the phones.
Units: m/s^2 with gravity and rad/s (Android's sensors; the readme does not say it).
Axes: Android's, turned as each device was worn. Taken as they are.
Licence: UCI, believed CC BY 4.0 (not verified).
Traps: every model has a rate of its own. Arrival_Time (ms since 1970) comes in bursts;
    Creation_Time (ns) is regular, but since 1970 on some devices, since switching on on others,
    and may jump: it is used, shifted onto the arrivals, as long as both run alike. Where they do
    not, arrivals are timed evenly. The Samsung Galaxy S+ ("samsungold") has no gyroscope.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from firmware_bridge.errors import InputError
from training.importers.form import Dataset, Recording, Skipped, pieces, segments_of

_LABELS = {
    "bike": "cycling",
    "sit": "sitting",
    "stand": "standing",
    "walk": "walking",
    "stairsup": "ascending stairs",
    "stairsdown": "descending stairs",
    "null": None,
}

_RATES_HZ = {
    "nexus4": 200.0,
    "s3": 150.0,
    "s3mini": 100.0,
    "samsungold": 50.0,
    "lgwatch": 200.0,
    "gear": 100.0,
}
"""Model -> rate of its accelerometer."""

_DEVICES = {"Phones": "waist", "Watch": "wrist"}
"""Beginning of the files' names -> placement."""

_NUMBERS = {
    "Arrival_Time": pa.int64(),
    "Creation_Time": pa.int64(),
    "x": pa.float64(),
    "y": pa.float64(),
    "z": pa.float64(),
}
_WORDS = ("User", "Model", "Device", "gt")
_BLOCK_BYTES = 1 << 24

_PAUSE_S = 2.0
"""Arrivals further apart, or clocks that part by more, begin a new stretch."""

_ALIKE_S = 0.2
"""How much the time from creation to arrival may vary for the creation times to be trusted."""

_EVEN_S = 0.5
"""How far arrivals may be from even timing for it to be believed."""


@dataclass
class _Stream:
    """One sensor of one device on one subject, in file order."""

    blocks: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    """(arrival in ms, creation in ns, (n, 3) float32 axes, (n,) int8 index into `_LABELS`)."""

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The blocks joined."""
        return tuple(np.concatenate(parts) for parts in zip(*self.blocks, strict=True))


_Key = tuple[str, str, str]
"""User, model, device."""


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each user, device and stretch without a gap."""
    for devices, placement in _DEVICES.items():
        acc_path = _find(src, f"{devices}_accelerometer.csv")
        gyro_path = _find(src, f"{devices}_gyroscope.csv")
        acc_streams, gyro_streams = _streams(acc_path), _streams(gyro_path)
        for key, stream in sorted(acc_streams.items()):
            user, model, device = key
            if key not in gyro_streams:
                what = f"sample of a device without gyroscope ({model})"
                skipped.note(acc_path, what, len(stream.columns()[0]))
                continue
            zero_ms = int(stream.blocks[0][0][0])
            t_s, acc, labels = _timed(stream, zero_ms, acc_path, skipped)
            gyro_t_s, gyro, _ = _timed(gyro_streams.pop(key), zero_ms, gyro_path, skipped)
            named = [list(_LABELS.values())[i] for i in labels]
            rate_hz = _RATES_HZ[model]
            for piece in pieces(t_s, acc, gyro, rate_hz, gyro_t_s=gyro_t_s):
                yield Recording(
                    subject=user,
                    session="1",
                    placement=placement,
                    rate_hz=rate_hz,
                    acc_mps2=piece.acc_mps2,
                    gyro_rads=piece.gyro_rads,
                    segments=segments_of(t_s, named, piece, rate_hz),
                    source=acc_path / device,
                )
        for stream in gyro_streams.values():
            what = "turn rate of a device without accelerometer"
            skipped.note(gyro_path, what, len(stream.columns()[0]))


def _find(src: Path, name: str) -> Path:
    found = sorted(path for path in src.rglob(name) if path.is_file())
    if not found:
        raise InputError(f"{src}: holds no {name}; give the unpacked Activity recognition exp.zip")
    return found[0]


def _streams(path: Path) -> dict[_Key, _Stream]:
    """Read one of the four files block by block and sort its lines by device.

    Raises:
        InputError: a column is missing, a line cannot be read, or a model or label is unknown.
    """
    found: dict[_Key, _Stream] = defaultdict(_Stream)
    wanted = [*_NUMBERS, *_WORDS]
    with path.open("rb") as file:
        header = file.readline().decode("utf-8", "replace").strip()
    absent = [name for name in wanted if name not in header.replace('"', "").split(",")]
    if absent:
        raise InputError(f"{path}:1: no column {', '.join(absent)}; found: {header[:200]}")
    words = {name: pa.dictionary(pa.int32(), pa.string()) for name in _WORDS}
    try:
        with csv.open_csv(
            path,
            csv.ReadOptions(block_size=_BLOCK_BYTES),
            convert_options=csv.ConvertOptions(
                include_columns=wanted, column_types=_NUMBERS | words
            ),
        ) as reader:
            for block in reader:
                _sort_block(path, block, found)
    except pa.ArrowInvalid as error:
        raise _named_line(path, header, error) from None
    return found


def _sort_block(path: Path, block: Any, found: dict[_Key, _Stream]) -> None:
    key = pc.binary_join_element_wise(
        *(block[name].cast(pa.string()) for name in ("User", "Model", "Device")), "/"
    ).dictionary_encode()
    label = block["gt"]
    unknown = [name for name in label.dictionary.to_pylist() if name not in _LABELS]
    if unknown:
        raise InputError(
            f"{path}: unknown activity {unknown[0]!r}; expected one of {', '.join(_LABELS)}"
        )
    numbers = [list(_LABELS).index(name) for name in label.dictionary.to_pylist()]
    labels = np.array(numbers, np.int8)[label.indices.to_numpy()]
    axes = np.stack([block[axis].to_numpy() for axis in "xyz"], axis=1).astype(np.float32)
    columns = (block["Arrival_Time"].to_numpy(), block["Creation_Time"].to_numpy(), axes, labels)
    codes = key.indices.to_numpy()
    for code, name in enumerate(key.dictionary.to_pylist()):
        user, model, device = name.split("/")
        if model not in _RATES_HZ:
            raise InputError(
                f"{path}: unknown model {model!r}; expected one of {', '.join(_RATES_HZ)}"
            )
        rows = codes == code
        found[user, model, device].blocks.append(tuple(c[rows] for c in columns))


def _named_line(path: Path, header: str, error: Exception) -> InputError:
    """The block reader does not name lines of the file: look for the one it stumbled over."""
    names = header.replace('"', "").split(",")
    kinds = {name: int if pa.types.is_integer(kind) else float for name, kind in _NUMBERS.items()}
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\r\n").split(",")
            if len(fields) != len(names):
                return InputError(f"{path}:{number}: {len(fields)} columns; expected {len(names)}")
            for name, text in zip(names, fields, strict=True):
                try:
                    kinds.get(name, str)(text if number > 1 else 0)
                except ValueError:
                    return InputError(f"{path}:{number}: {name} is {text!r}; expected a number")
    return InputError(f"{path}: cannot be read ({error})")


def _timed(
    stream: _Stream, zero_ms: int, path: Path, skipped: Skipped
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int8]]:
    """A stream's samples with the time each was measured, ascending.

    Times are in s of the arrivals' clock since `zero_ms`: since 1970 they would leave too few
    digits for the grid.

    Returns: (N,) times, (N, 3) axes, (N,) labels.
    """
    arrival_ms, creation_ns, axes, labels = stream.columns()
    order = np.argsort(arrival_ms, kind="stable")
    arrival_ms, creation_ns, axes, labels = (
        c[order] for c in (arrival_ms, creation_ns, axes, labels)
    )
    arrival_s = (arrival_ms - zero_ms) / 1e3
    creation_s = (creation_ns - creation_ns[0]) / 1e9
    step_s = np.diff(arrival_s)
    parted = np.abs(step_s - np.diff(creation_s)) > _PAUSE_S
    breaks = np.flatnonzero((step_s > _PAUSE_S) | parted) + 1
    t_s = np.full(len(arrival_s), np.nan)
    for part in np.split(np.arange(len(arrival_s)), breaks):
        late_s = arrival_s[part] - creation_s[part]
        if np.diff(np.quantile(late_s, [0.01, 0.99]))[0] <= _ALIKE_S:
            t_s[part] = creation_s[part] + np.median(late_s)
            continue
        even_s = np.polyval(np.polyfit(part - part[0], arrival_s[part], 1), part - part[0])
        if np.abs(even_s - arrival_s[part]).max() <= _EVEN_S:
            skipped.note(path, "creation time not used: it parts from the arrivals", len(part))
            t_s[part] = even_s
        else:
            skipped.note(path, "sample whose time of measurement is unknown", len(part))
    order = np.argsort(t_s, kind="stable")[: int(np.isfinite(t_s).sum())]  # NaN sort last
    return t_s[order], axes[order].astype(np.float64), labels[order]


DATASET = Dataset(
    name="hhar",
    title="HHAR (phones at the waist, watches at the wrists; 9 subjects, 6 activities)",
    cite="Stisen et al., SenSys 2015",
    licence="UCI, believed CC BY 4.0 (not verified)",
    units="m/s^2 and rad/s as they are; gravity included; axes of the device as worn",
    read=read,
    note="50 to 200 Hz by model; timed by the devices' creation times where they can be trusted",
)
