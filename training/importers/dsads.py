"""Daily and Sports Activities: Xsens MTx units at the torso, both arms and both legs.

Source: https://archive.ics.uci.edu/dataset/256 (daily+and+sports+activities.zip).
Files: data/aNN/pN/sNN.txt (data/a01/p1/s01.txt): activity, person, five-second piece; 125 rows of
    45 columns separated by commas: for torso, right arm, left arm, right leg and left leg
    accelerometer, gyroscope and magnetometer (x, y, z each).
Units: m/s^2 with gravity, rad/s; 25 Hz, no time stamps.
Axes: as the units have them.
Licence: CC BY 4.0 (UCI page, not verified).
Traps: the 60 pieces of a person and activity are one recording of five minutes cut up, so they
    are joined again, except where one is missing. The magnetometer is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from training.importers.form import Dataset, Recording, Skipped, table

_RATE_HZ = 25.0
_ROWS, _COLUMNS = 125, 45
_UNITS = ("torso", "right arm", "left arm", "right leg", "left leg")
"""In the order of their nine columns."""

_LABELS = (
    "sitting",
    "standing",
    "lying on the back",
    "lying on the right side",
    "ascending stairs",
    "descending stairs",
    "standing in an elevator",
    "moving around in an elevator",
    "walking in a parking lot",
    "walking on a flat treadmill at 4 km/h",
    "walking on a 15 degree inclined treadmill at 4 km/h",
    "running on a treadmill at 8 km/h",
    "exercising on a stepper",
    "exercising on a cross trainer",
    "cycling on an exercise bike in a horizontal position",
    "cycling on an exercise bike in a vertical position",
    "rowing",
    "jumping",
    "playing basketball",
)
"""Of the folders a01 to a19."""


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """Five recordings, worn at once, for each person and activity."""
    for folder in sorted(src.rglob("a[0-9][0-9]/p[0-9]")):
        activity = int(folder.parent.name[1:])
        if not 1 <= activity <= len(_LABELS):
            raise InputError(f"{folder}: unknown activity; known: a01 to a{len(_LABELS)}")
        numbered = {int(path.stem[1:]): path for path in folder.glob("s[0-9][0-9].txt")}
        numbers = np.array(sorted(numbered))
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            if len(run):
                paths = [numbered[n] for n in run.tolist()]
                yield from _recordings(folder, _LABELS[activity - 1], paths)


def _recordings(folder: Path, label: str, paths: list[Path]) -> Iterator[Recording]:
    rows = np.concatenate([_piece(path) for path in paths])
    for unit, placement in enumerate(_UNITS):
        own = rows[:, 9 * unit : 9 * unit + 6]
        yield Recording(
            subject=folder.name,
            session=folder.parent.name,
            placement=placement,
            rate_hz=_RATE_HZ,
            acc_mps2=own[:, :3],
            gyro_rads=own[:, 3:],
            segments=(Segment(0, len(own), label),),
            source=paths[0],
        )


def _piece(path: Path) -> NDArray[np.float64]:
    rows = table(path, _COLUMNS, ",")
    if len(rows) != _ROWS:
        raise InputError(f"{path}: {len(rows)} rows; expected {_ROWS}")
    return rows


DATASET = Dataset(
    name="dsads",
    title="Daily and Sports Activities (torso, arms and legs at once; 8 subjects, 19 activities)",
    cite="Altun, Barshan, Tuncel, Pattern Recognition 43(10), 2010",
    licence="UCI, believed CC BY 4.0 (not verified)",
    units="m/s^2 with gravity and rad/s, taken as they are",
    note="25 Hz; the 60 five-second pieces of a subject and activity are joined",
    read=read,
)
