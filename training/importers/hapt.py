"""Smartphone-Based Recognition of Human Activities and Postural Transitions (HAPT).

Source: https://archive.ics.uci.edu/dataset/341 (HAPT Data Set.zip).
Files: RawData/acc_expXX_userYY.txt and gyro_expXX_userYY.txt, three columns x y z separated by
    blanks; RawData/labels.txt: experiment, user, activity, first and last sample (from 1).
Units: g with gravity, rad/s; 50 Hz.
Axes: a Samsung Galaxy S II at the waist, screen outwards; a device at rest reads +1 g upwards.
Licence: its README allows no commercial use; the UCI page says CC BY 4.0.
Traps: the labels' last sample belongs to the activity. The same people as UCI HAR. The processed
    windows in Train/ and Test/ are not used. Scored on only, never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge.corpus import Segment
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2
from training.importers.form import Dataset, Recording, Skipped, labels_of, table

_RATE_HZ = 50.0
LABELS = {
    1: "walking",
    2: "walking upstairs",
    3: "walking downstairs",
    4: "sitting",
    5: "standing",
    6: "lying",
    7: "stand to sit",
    8: "sit to stand",
    9: "sit to lie",
    10: "lie to sit",
    11: "stand to lie",
    12: "lie to stand",
}


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each experiment, unlabelled stretches included."""
    for path in sorted(src.rglob("acc_exp[0-9][0-9]_user[0-9][0-9].txt")):
        experiment, user = int(path.stem[7:9]), int(path.stem[-2:])
        labels_path = path.with_name("labels.txt")
        rows = table(labels_path, 5)
        names = labels_of(labels_path, rows[:, 2], LABELS)
        acc = table(path, 3)
        gyro = table(path.with_name(path.name.replace("acc_", "gyro_", 1)), 3)
        n = min(len(acc), len(gyro))
        if len(acc) != len(gyro):
            skipped.note(path, "sample of one sensor only", abs(len(acc) - len(gyro)))
        own = np.flatnonzero((rows[:, 0] == experiment) & (rows[:, 1] == user))
        yield Recording(
            subject=f"{user:02d}",
            session=f"exp{experiment:02d}",
            placement="waist",
            rate_hz=_RATE_HZ,
            acc_mps2=acc[:n] * STANDARD_GRAVITY_MPS2,
            gyro_rads=gyro[:n],
            segments=tuple(
                Segment(int(rows[i, 3]) - 1, int(rows[i, 4]), str(names[i])) for i in own
            ),
            source=path,
        )


DATASET = Dataset(
    name="hapt",
    title="UCI HAPT raw sessions (waist phone; 30 subjects, 12 labels of which 6 basic)",
    cite="Reyes-Ortiz et al., Neurocomputing 171, 2016",
    licence="its own README: no commercial use; UCI page CC BY 4.0",
    units="g with gravity, times 9.80665; rad/s, taken as they are",
    role="benchmark",
    note="50 Hz continuous sessions with unlabelled stretches; same subjects as UCI HAR",
    read=read,
)
