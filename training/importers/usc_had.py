"""USC-HAD: a MotionNode at the front right hip; 14 subjects, 12 activities.

Source: https://sipi.usc.edu/had/ (USC-HAD.zip); Zhang and Sawchuk, UbiComp 2012 workshops.
Files: `SubjectN/aXtY.mat`, activity X, trial Y; `sensor_readings` (N, 6), 100 Hz, one activity
    a file.
Units: accelerometer in g (+-6 g), gyroscope in deg/s (+-500 deg/s); gravity included.
Axes: as worn; the readme lets x point along the vertical. Taken as they are.
Licence: free for research, to be cited; no licence text comes with the files (not verified).
Traps: the field `activity_number` is called `activity_numbr` in some files (subject 13); a file
    whose name and field disagree is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from firmware_bridge.errors import InputError
from training.importers.form import Dataset, Recording, Segment, Skipped
from training.importers.mat import mat_readings

_RATE_HZ = 100.0

_LABELS = {
    1: "walking forward",
    2: "walking left",
    3: "walking right",
    4: "walking upstairs",
    5: "walking downstairs",
    6: "running forward",
    7: "jumping up",
    8: "sitting",
    9: "standing",
    10: "sleeping",
    11: "elevator up",
    12: "elevator down",
}

_FIELDS = ("activity_number", "activity_numbr")


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording a trial."""
    for path in sorted(src.rglob("Subject*/a*t*.mat")):
        named = re.fullmatch(r"a(\d+)t(\d+)", path.stem)
        subject = path.parent.name.removeprefix("Subject")
        if named is None or int(named[1]) not in _LABELS:
            raise InputError(f"{path}: unknown activity; expected a1t1.mat to a12t5.mat")
        activity = int(named[1])
        readings = mat_readings(path, "sensor_readings")
        noted = [readings.variables[f] for f in _FIELDS if f in readings.variables]
        if noted and int(noted[0].ravel()[0]) != activity:
            skipped.note(path, "file whose name and activity number disagree")
            continue
        n = len(readings.acc_mps2)
        yield Recording(
            subject=subject,
            session=f"a{activity}t{named[2]}",
            placement="hip",
            rate_hz=_RATE_HZ,
            acc_mps2=readings.acc_mps2,
            gyro_rads=readings.gyro_rads,
            segments=(Segment(0, n, _LABELS[activity]),),
            source=path,
        )


DATASET = Dataset(
    name="usc_had",
    title="USC-HAD (MotionNode at the front right hip; 14 subjects, 12 activities)",
    cite="Zhang and Sawchuk, UbiComp 2012 workshop on situation, activity and goal awareness",
    licence="free for research, to be cited; no licence text in the copy (not verified)",
    units="g x 9.80665, deg/s x pi/180; gravity included; axes as worn",
    read=read,
    note="100 Hz; one label per trial",
)
