"""PAMAP2 Physical Activity Monitoring.

Source: https://archive.ics.uci.edu/dataset/231 (PAMAP2_Dataset.zip).
Files: Protocol/subject101.dat ... and Optional/subject101.dat ..., no header, 54 columns separated
    by blanks: time in s, activity id, heart rate, then 17 columns for each of the units at hand,
    chest and ankle: temperature, accelerometer +-16 g (3), accelerometer +-6 g (3), gyroscope (3),
    magnetometer (3), orientation (4, invalid).
Units: m/s^2 with gravity, rad/s; 100 Hz.
Axes: as the Colibri units have them; a unit at rest reads +9.8 upwards.
Licence: CC BY 4.0 (UCI page, not verified).
Traps: the +-6 g accelerometer saturates in running and jumping, so the other one is taken. The
    radio link lost samples: NaN, up to several seconds. Activity 0 is the way from one activity
    to the next. "hand" and "ankle" are the dominant side's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.importers.form import (
    Dataset,
    Recording,
    Skipped,
    labels_of,
    pieces,
    segments_of,
    table,
)

_RATE_HZ = 100.0
_COLUMNS = 54
_UNITS = {"wrist": 3, "chest": 20, "ankle": 37}
"""Placement -> first of the unit's columns."""

_LABELS = {
    0: None,  # transient
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "nordic walking",
    9: "watching tv",
    10: "working at a computer",
    11: "driving a car",
    12: "ascending stairs",
    13: "descending stairs",
    16: "vacuum cleaning",
    17: "ironing",
    18: "folding laundry",
    19: "house cleaning",
    20: "playing soccer",
    24: "rope jumping",
}


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each unit and stretch without lost samples."""
    for path in sorted(src.rglob("subject*.dat")):
        rows = table(path, _COLUMNS)
        t_s = rows[:, 0]
        labels = labels_of(path, rows[:, 1], _LABELS)
        for placement, first in _UNITS.items():
            acc, gyro = rows[:, first + 1 : first + 4], rows[:, first + 7 : first + 10]
            for piece in pieces(t_s, acc, gyro, _RATE_HZ):
                yield Recording(
                    subject=path.stem.removeprefix("subject"),
                    session=path.parent.name.lower(),
                    placement=placement,
                    rate_hz=_RATE_HZ,
                    acc_mps2=piece.acc_mps2,
                    gyro_rads=piece.gyro_rads,
                    segments=segments_of(t_s, labels, piece, _RATE_HZ),
                    source=path,
                )


DATASET = Dataset(
    name="pamap2",
    title="PAMAP2 (wrist, chest and ankle at once; 9 subjects, 18 activities)",
    cite="Reiss and Stricker, ISWC 2012",
    licence="UCI, believed CC BY 4.0 (not verified)",
    units="m/s^2 with gravity (the +-16 g accelerometer) and rad/s, taken as they are",
    note="100 Hz; cut where the radio link lost more than 0.25 s",
    read=read,
)
