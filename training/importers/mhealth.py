"""MHEALTH: Shimmer2 units at the right wrist, the left ankle and the chest.

Source: https://archive.ics.uci.edu/dataset/319 (MHEALTHDATASET.zip).
Files: mHealth_subject1.log ... mHealth_subject10.log, no header, 24 columns separated by tabs:
    chest accelerometer (3), ECG (2), ankle accelerometer, gyroscope, magnetometer (3 each), wrist
    accelerometer, gyroscope, magnetometer (3 each), label.
Units: m/s^2 with gravity; the gyroscopes in deg/s by its README; 50 Hz, no time stamps.
Axes: as the units have them; standing upright, the ankle reads -9.8 on y.
Licence: CC BY 4.0 (UCI page, not verified).
Traps: the chest unit has no gyroscope. Label 0 is no activity. The gyroscope columns of the two
    others hold no believable turn rates: in the rows that were looked at, (x, y, z) has a length
    of about 1 in every activity, running and lying alike, and stays the same for several samples.
    They are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.importers.form import Dataset, Recording, Skipped, labels_of, runs_of, table

_RATE_HZ = 50.0
_COLUMNS = 24
_UNITS = {"chest": 0, "left ankle": 5, "right wrist": 14}
"""Placement -> first of the unit's accelerometer columns."""

_LABELS = {
    0: None,
    1: "standing still",
    2: "sitting and relaxing",
    3: "lying",
    4: "walking",
    5: "climbing stairs",
    6: "waist bends forward",
    7: "frontal elevation of arms",
    8: "knee bends",
    9: "cycling",
    10: "jogging",
    11: "running",
    12: "jumping forwards and backwards",
}


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """Three recordings for each subject, worn at once, accelerometers alone."""
    for path in sorted(src.rglob("mHealth_subject*.log")):
        rows = table(path, _COLUMNS)
        segments = runs_of(labels_of(path, rows[:, -1], _LABELS))
        skipped.note(path, "gyroscope whose columns hold no turn rates", 2)
        for placement, first in _UNITS.items():
            yield Recording(
                subject=path.stem.removeprefix("mHealth_subject"),
                session="1",
                placement=placement,
                rate_hz=_RATE_HZ,
                acc_mps2=rows[:, first : first + 3],
                gyro_rads=None,
                segments=segments,
                source=path,
            )


DATASET = Dataset(
    name="mhealth",
    title="MHEALTH (chest, right wrist and left ankle at once; 10 subjects, 12 activities)",
    cite="Banos et al., IWAAL 2014",
    licence="UCI, believed CC BY 4.0 (not verified)",
    units="m/s^2 with gravity, taken as they are; no gyroscope",
    note="50 Hz; accelerometers alone: the gyroscope columns hold no believable turn rates",
    read=read,
)
