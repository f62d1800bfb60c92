"""MotionSense: an iPhone 6s in the front trouser pocket.

Source: https://github.com/mmalekzadeh/motion-sense (data/A_DeviceMotion_data.zip).
Files: A_DeviceMotion_data/ACTIVITY_TRIAL/sub_N.csv (dws_1/sub_1.csv), comma-separated with a header
    line; gravity.[xyz], userAcceleration.[xyz] and rotationRate.[xyz] are used.
Units: g, rad/s (Core Motion); 50 Hz, no time stamps.
Axes: Core Motion's `gravity` points down (face up at rest it reads -1 on z) and `userAcceleration`
    has the same sense, so that minus their sum is what an accelerometer measures: +9.8 on z.
Licence: MIT (LICENSE in the repository).
Traps: B_Accelerometer_data and C_Gyroscope_data hold the same trials again, in files of the same
    names and without a common clock; they are not used. The label is the whole trial's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge.corpus import Segment
from firmware_bridge.errors import InputError
from firmware_bridge.samples import STANDARD_GRAVITY_MPS2
from training.importers.form import Dataset, Recording, Skipped, csv_columns

_RATE_HZ = 50.0
_FOLDER = "A_DeviceMotion_data"
_LABELS = {
    "dws": "walking downstairs",
    "ups": "walking upstairs",
    "sit": "sitting",
    "std": "standing",
    "wlk": "walking",
    "jog": "jogging",
}


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording for each trial."""
    for folder in (src, *sorted(src.rglob(_FOLDER))):
        for path in sorted(folder.glob("*_*/sub_*.csv")):
            yield _recording(path)


def _recording(path: Path) -> Recording:
    code, _, _ = path.parent.name.partition("_")
    if code not in _LABELS:
        raise InputError(
            f"{path}: unknown activity {code!r} in the folder's name; known: {', '.join(_LABELS)}"
        )
    quantities = ("gravity", "userAcceleration", "rotationRate")
    names = [f"{quantity}.{axis}" for quantity in quantities for axis in "xyz"]
    found = csv_columns(path, dict.fromkeys(names, float))
    gravity, user, gyro = np.split(np.stack([found[n] for n in names], axis=1), 3, axis=1)
    return Recording(
        subject=path.stem.removeprefix("sub_"),
        session=path.parent.name,
        placement="trouser pocket",
        rate_hz=_RATE_HZ,
        acc_mps2=-(gravity + user) * STANDARD_GRAVITY_MPS2,
        gyro_rads=gyro,
        segments=(Segment(0, len(gyro), _LABELS[code]),),
        source=path,
    )


DATASET = Dataset(
    name="motionsense",
    title="MotionSense (phone in the front trouser pocket; 24 subjects, 6 activities)",
    cite="Malekzadeh et al., IoTDI 2019",
    licence="MIT repository",
    units="g: minus (gravity + userAcceleration), times 9.80665; rad/s, taken as they are",
    note="50 Hz; one label a trial",
    read=read,
)
