"""UTD-MHAD, inertial part: one unit at the right wrist or thigh; 8 subjects, 27 actions.

Source: https://personal.utdallas.edu/~kehtar/UTD-MHAD.html (Inertial.zip); Chen, Jafari and
    Kehtarnavaz, ICIP 2015.
Files: `Inertial/aX_sY_tZ_inertial.mat`, action X, subject Y, trial Z; `d_iner` (N, 6), 50 Hz.
Units: accelerometer in g (+-8 g), gyroscope in deg/s (+-1000 deg/s); gravity included.
Axes: as worn, taken as they are.
Licence: cite to use; terms not stated in the files.
Traps: actions 1 to 21 were recorded at the right wrist, 22 to 27 at the right thigh. A trial is
    2 to 5 s long, hardly ever a whole window. 861 files: 3 of 864 are corrupted and not published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from firmware_bridge.errors import InputError
from training.importers.form import Dataset, Recording, Segment, Skipped
from training.importers.mat import mat_readings

_RATE_HZ = 50.0

_WRIST = (
    "right arm swipe to the left",
    "right arm swipe to the right",
    "right hand wave",
    "two hand front clap",
    "right arm throw",
    "cross arms in the chest",
    "basketball shooting",
    "draw x",
    "draw circle (clockwise)",
    "draw circle (counter clockwise)",
    "draw triangle",
    "bowling (right hand)",
    "front boxing",
    "baseball swing from right",
    "tennis forehand swing",
    "arm curl (two arms)",
    "tennis serve",
    "two hand push",
    "knock on door",
    "hand catch",
    "pick up and throw",
)
_THIGH = (
    "jogging",
    "walking",
    "sit to stand",
    "stand to sit",
    "forward lunge (left foot forward)",
    "squat",
)
_ACTIONS = [(label, "right wrist") for label in _WRIST] + [(x, "right thigh") for x in _THIGH]
"""(label, placement) of actions 1, 2, ..."""


def read(src: Path, skipped: Skipped) -> Iterator[Recording]:
    """One recording a trial."""
    for path in sorted(src.rglob("a*_s*_t*_inertial.mat")):
        named = re.fullmatch(r"(a(\d+)_s(\d+)_t\d+)_inertial", path.stem)
        if named is None or not 1 <= int(named[2]) <= len(_ACTIONS):
            raise InputError(f"{path}: unknown action; expected a1_... to a{len(_ACTIONS)}_...")
        label, placement = _ACTIONS[int(named[2]) - 1]
        readings = mat_readings(path, "d_iner")
        yield Recording(
            subject=named[3],
            session=named[1],
            placement=placement,
            rate_hz=_RATE_HZ,
            acc_mps2=readings.acc_mps2,
            gyro_rads=readings.gyro_rads,
            segments=(Segment(0, len(readings.acc_mps2), label),),
            source=path,
        )


DATASET = Dataset(
    name="utd_mhad",
    title="UTD-MHAD inertial (right wrist a1-a21, right thigh a22-a27; 8 subjects, 27 actions)",
    cite="Chen, Jafari and Kehtarnavaz, ICIP 2015",
    licence="cite to use; terms not stated in the files",
    units="g x 9.80665, deg/s x pi/180; gravity included; axes as worn",
    read=read,
    note="trials of 2-5 s; session = aA_sS_tT",
)
